"""Splits by group, stratified by label and kind: 20 folds made once, dealt to the roles once or per seed.

Of a cohort with published parts only the training samples are dealt, into training and validation: its test set is the
published one.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.cohorts.roles import ROLES
from pipeline.errors import UserError
from pipeline.seeding import generator
from pipeline.smallcells import shown

if TYPE_CHECKING:
    from pipeline.cohorts.cohort import Cohort

N_FOLDS = sum(ROLES.values())
# Where the test set is published: 85 / 15 % of the others.
ROLES_BESIDE_PUBLISHED = {"train": 17, "validation": 3}
PUBLISHED = -1  # in place of a fold: a sample of a published test set
KIND = "attack"  # the stratum that tells kinds of positives apart: every role shall hold some of each


@dataclass(frozen=True)
class Split:
    """Positions (int64, ascending) of the samples of each role."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def kinds_of(cohort: "Cohort") -> np.ndarray:
    """[N] int64: the kind of each positive sample, from 0, and −1 for a negative one.

    Kinds are the values of the stratum `KIND`; without it all positives are of one.
    """
    kind = np.where(cohort.label == 1, 0, -1)
    if KIND in cohort.strata:
        positive = cohort.label == 1
        kind[positive] = np.unique(cohort.strata[KIND][positive], return_inverse=True)[1]
    return kind


def folds_of(cohort: "Cohort") -> np.ndarray:
    """[N] the folds of a cohort (`assign_folds`), and `PUBLISHED` for the samples of a published test set."""
    fold = np.full(len(cohort), PUBLISHED)
    dealt = np.ones(len(cohort), bool) if cohort.part is None else cohort.part == "train"
    fold[dealt] = assign_folds(cohort.group_id[dealt], cohort.label[dealt], kinds_of(cohort)[dealt])
    return fold


def in_file(cohort: "Cohort", fold: np.ndarray) -> dict:
    """What a file of folds says: the roles in twentieths, sample_ids per fold, and those of a published test set."""
    roles = ROLES if cohort.part is None else ROLES_BESIDE_PUBLISHED
    said = {"roles": roles, "folds": [cohort.sample_id[fold == number].tolist() for number in range(N_FOLDS)]}
    return said if cohort.part is None else {**said, "test": cohort.sample_id[fold == PUBLISHED].tolist()}


def split_of(cohort: "Cohort", fold: np.ndarray, seed: int | None) -> Split:
    """The split of `cohort` whose folds are `fold`: as `deal` makes it, by kind."""
    return deal(fold, cohort.label, seed, cohort.name, kinds_of(cohort))


def assign_folds(group_id: np.ndarray, label: np.ndarray, kind: np.ndarray | None = None) -> np.ndarray:
    """[N] fold numbers 0…19: whole groups, positives of each kind and samples spread evenly.

    Groups are dealt in a random order (fixed: it does not depend on any run's seed), those with a positive
    sample first and large ones before small ones, each to the fold that has least of what it brings. Where positives
    are of several kinds (`kind` as from `kinds_of`), those of the kind that lies in fewest groups come first, a
    group counts as of the first of its kinds in that order, and of folds with as much of it the one with most kinds
    takes it.
    """
    groups, position, size = np.unique(group_id, return_inverse=True, return_counts=True)
    brings = _per_kind(position, len(groups), label, kind)
    brings = brings[:, np.argsort((brings > 0).sum(axis=0), kind="stable")]
    none = brings.shape[1]
    first = np.where(brings.any(axis=1), (brings > 0).argmax(axis=1), none)
    of_first = np.append(brings, np.zeros_like(brings[:, :1]), axis=1)[np.arange(len(groups)), first]
    shuffled = generator(0, "folds").permutation(len(groups))
    order = shuffled[np.lexsort((-size[shuffled], -of_first[shuffled], first[shuffled]))]
    fold_of_group = np.empty(len(groups), np.int64)
    held, by_size = np.zeros((N_FOLDS, none), np.int64), np.zeros(N_FOLDS, np.int64)
    for group in order:
        by_positives = held.sum(axis=1)
        if first[group] < none:
            # Rare kinds side by side: three folds can only bring many of them to a role if one fold has several.
            keys = [by_size, by_positives, -(held > 0).sum(axis=1), held[:, first[group]]]
        else:
            keys = [by_positives, by_size]
        fold = np.lexsort(keys)[0]
        fold_of_group[group] = fold
        held[fold] += brings[group]
        by_size[fold] += size[group]
    return fold_of_group[position]


def _per_kind(position: np.ndarray, n: int, label: np.ndarray, kind: np.ndarray | None) -> np.ndarray:
    """[n, K] how many positives of each kind lie in each of `n` places; `position` [N] says where each sample lies."""
    kind = np.where(label == 1, 0, -1) if kind is None else kind
    counts = np.zeros((n, kind.max(initial=0) + 1), np.int64)
    np.add.at(counts, (position[kind >= 0], kind[kind >= 0]), 1)
    return counts


def deal(fold: np.ndarray, label: np.ndarray, seed: int | None, name: str, kind: np.ndarray | None = None) -> Split:
    """The split of `fold`: folds in order for `seed` None (fixed), else shuffled by the seed.

    Folds that hold both classes go to the roles in proportion, the others fill the roles up: a small cohort has
    fewer positives than folds, and every role needs some. Where positives are of several kinds (`kind` as from
    `kinds_of`), roles first take folds until each has every kind (`_covering`). Samples of a published test set are
    the test set, and the folds of the others are training and validation.

    Raises `UserError` when a role ends up with only one class or no samples at all, with the number of groups where it
    is below that of the folds.
    """
    inside = fold != PUBLISHED
    quota = ROLES if inside.all() else ROLES_BESIDE_PUBLISHED
    order = np.arange(N_FOLDS) if seed is None else generator(seed, "split").permutation(N_FOLDS)
    positives = _per_kind(fold[inside], N_FOLDS, label[inside], None if kind is None else kind[inside])[order]
    total, samples = positives.sum(axis=1), np.bincount(fold[inside], minlength=N_FOLDS)[order]
    mixed = (total > 0) & (total < samples)
    places = _covering(positives > 0, quota) if positives.shape[1] > 1 else {role: [] for role in quota}
    free = np.ones(N_FOLDS, bool)
    free[[place for of_role in places.values() for place in of_role]] = False
    first, rest = np.flatnonzero(free & mixed).tolist(), np.flatnonzero(free & ~mixed).tolist()
    for role, share in _shares(int(mixed.sum()), quota).items():
        count = max(min(share - int(mixed[places[role]].sum()), quota[role] - len(places[role])), 0)
        places[role] += first[:count]
        del first[:count]
    rest += first
    for role, of_role in places.items():
        count = quota[role] - len(of_role)
        of_role += rest[:count]
        del rest[:count]
    rows = {role: np.flatnonzero(np.isin(fold, order[of_role])) for role, of_role in places.items()}
    rows.setdefault("test", np.flatnonzero(~inside))
    for role, chosen in rows.items():
        count = int(label[chosen].sum())
        if not 0 < count < len(chosen):
            raise UserError(
                f"{name}: the {role} split has {shown(len(chosen))} samples, {shown(count)} of them positive; "
                f"expected both classes: {_needed(fold[inside], label[inside])}"
            )
    return Split(**rows)


def _covering(holds: np.ndarray, quota: dict[str, int]) -> dict[str, list[int]]:
    """Per role the places among `holds` [20, K] bool, which kinds lie in each fold, that give it every kind.

    The kind in fewest folds comes first. Of one in fewer folds than there are roles, training has some before
    validation, and validation before test. A role takes the fold that has most of the kinds that it lacks, none that
    would leave training without one, and not more than its `quota`.
    """
    taken: dict[str, list[int]] = {role: [] for role in quota}
    free = np.ones(len(holds), bool)
    for kind in np.argsort(holds.sum(axis=0), kind="stable"):
        scarce = holds[:, kind].sum() < len(quota)
        for role in quota if scarce else reversed(quota):
            lacks = {one: np.asarray(~holds[places].any(axis=0)) for one, places in taken.items()}
            if not lacks[role][kind] or len(taken[role]) == quota[role]:
                continue
            able = free & holds[:, kind]
            if role != "train":
                last = (holds[free].sum(axis=0) == 1) & lacks["train"]
                able &= ~(holds & last).any(axis=1)
            if able.any():
                place = int(np.argmax(np.where(able, (holds & lacks[role]).sum(axis=1), -1)))
                taken[role].append(place)
                free[place] = False
    return taken


def without_kinds(cohort: "Cohort", split: Split) -> list[str]:
    """What training or validation has no positive sample of, of the kinds that the cohort has, in words."""
    if KIND not in cohort.strata:
        return []
    kinds = cohort.strata[KIND]
    reached = cohort.label == 1 if cohort.part is None else (cohort.label == 1) & (cohort.part == "train")
    return [
        f"{cohort.name}: the {role} split has no sample of {KIND} {kind}: too few groups hold some"
        for kind in np.unique(kinds[reached]).tolist()
        for role in ("train", "validation")
        if not (reached & (kinds == kind))[getattr(split, role)].any()
    ]


def _needed(fold: np.ndarray, label: np.ndarray) -> str:
    """What the cohort has too little of, in words."""
    # Groups fill empty folds first, so as long as some are empty each of the others holds one group.
    filled = len(np.unique(fold))
    if filled < N_FOLDS:
        return f"the cohort has {shown(filled)} groups (patients, say), and {N_FOLDS} are needed, some of each label"
    labels = {value: len(np.unique(fold[label == value])) for value in (0, 1)}
    rarer = min(labels, key=labels.__getitem__)
    return f"groups with label {rarer} lie in {shown(labels[rarer])} of {N_FOLDS} folds; more of them are needed"


def _shares(n: int, quota: dict[str, int]) -> dict[str, int]:
    """`n` folds shared among the roles by largest remainder, at least one each if there are enough."""
    shares = dict.fromkeys(quota, int(n >= len(quota)))
    for _ in range(n - sum(shares.values())):
        shares[max(quota, key=lambda role: n * quota[role] - N_FOLDS * shares[role])] += 1
    return shares


def chosen_of(cohort: "Cohort", n_samples: int) -> np.ndarray:
    """Ascending positions of `n_samples` samples of `cohort` or slightly more, as `choose_samples`.

    Its parts and kinds of positives stay in proportion, at least as many groups of a kind as there are roles. The
    samples of a published test set are chosen one by one: no role is parted from another within a group of theirs.
    """
    kind, group = kinds_of(cohort), np.unique(cohort.group_id, return_inverse=True)[1]
    if cohort.part is None:
        return choose_samples(group, cohort.label, n_samples, kind)
    test = cohort.part == "test"
    group[test] = group.max() + 1 + np.arange(test.sum())
    share = n_samples / len(cohort)
    chosen = [
        np.flatnonzero(rows)[choose_samples(group[rows], cohort.label[rows], round(share * rows.sum()), kind[rows])]
        for rows in (~test, test)
    ]
    return np.sort(np.concatenate(chosen))


def choose_samples(
    group_id: np.ndarray, label: np.ndarray, n_samples: int, kind: np.ndarray | None = None
) -> np.ndarray:
    """Ascending positions of `n_samples` samples or slightly more: whole groups, stratified by label and kind.

    The same call always chooses the same samples.
    """
    groups, position = np.unique(group_id, return_inverse=True)
    brings = _per_kind(position, len(groups), label, kind)
    brings = brings[:, np.argsort((brings > 0).sum(axis=0), kind="stable")]
    several = brings.shape[1] > 1
    stratum_of_group = np.where(brings.any(axis=1), (brings > 0).argmax(axis=1), -1)
    rank = generator(0, "subset").permutation(len(groups))[position]
    chosen = []
    for stratum in range(-1, brings.shape[1]):
        rows = np.flatnonzero(stratum_of_group[position] == stratum)
        quota = round(n_samples * len(rows) / len(label))
        ranks = np.sort(rank[rows])
        if several and stratum >= 0 and len(rows):
            # As many groups as roles, so that each can have some of a rare kind.
            fewest = np.unique(ranks)[: len(ROLES)][-1]
            quota = max(quota, int((ranks <= fewest).sum()))
        if quota:
            last = ranks[min(quota, len(rows)) - 1]
            chosen.append(rows[rank[rows] <= last])
    return np.sort(np.concatenate(chosen))

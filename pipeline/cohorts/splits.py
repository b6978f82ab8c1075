"""Splits by group, stratified by label: 20 folds made once, dealt to the roles once or per seed."""

from dataclasses import dataclass

import numpy as np

from pipeline.errors import UserError
from pipeline.seeding import generator
from pipeline.smallcells import shown

# Twentieths of the samples: 70 / 15 / 15 %.
ROLES = {"train": 14, "validation": 3, "test": 3}
N_FOLDS = sum(ROLES.values())


@dataclass(frozen=True)
class Split:
    """Positions (int64, ascending) of the samples of each role."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def assign_folds(group_id: np.ndarray, label: np.ndarray) -> np.ndarray:
    """[N] fold numbers 0…19: whole groups, positives and samples spread evenly.

    Groups are dealt in a random order (fixed: it does not depend on any run's seed), those with a positive
    sample first and large ones before small ones, each to the fold that has least of what it brings.
    """
    groups, position, size = np.unique(group_id, return_inverse=True, return_counts=True)
    positives = np.bincount(position, weights=label, minlength=len(groups)).astype(int)
    shuffled = generator(0, "folds").permutation(len(groups))
    order = shuffled[np.lexsort((-size[shuffled], -positives[shuffled]))]
    fold_of_group = np.empty(len(groups), np.int64)
    held = np.zeros((N_FOLDS, 2), np.int64)
    for group in order:
        by_size, by_positives = held[:, 1], held[:, 0]
        keys = (by_size, by_positives) if positives[group] else (by_positives, by_size)
        fold = np.lexsort(keys)[0]
        fold_of_group[group] = fold
        held[fold] += positives[group], size[group]
    return fold_of_group[position]


def deal(fold: np.ndarray, label: np.ndarray, seed: int | None, name: str) -> Split:
    """The split of `fold`: folds in order for `seed` None (fixed), else shuffled by the seed.

    Folds that hold both classes go to the roles in proportion, the others fill the roles up: a small cohort has
    fewer positives than folds, and every role needs some. Raises `UserError` when a role ends up with only one class
    or no samples at all, with the number of groups where it is below that of the folds.
    """
    order = np.arange(N_FOLDS) if seed is None else generator(seed, "split").permutation(N_FOLDS)
    positives = np.bincount(fold, weights=label, minlength=N_FOLDS)[order]
    mixed = (positives > 0) & (positives < np.bincount(fold, minlength=N_FOLDS)[order])
    first, rest = order[mixed].tolist(), order[~mixed].tolist()
    rows = {}
    for role, count in _shares(len(first)).items():
        folds = first[:count] + rest[: ROLES[role] - count]
        del first[:count], rest[: ROLES[role] - count]
        rows[role] = np.flatnonzero(np.isin(fold, folds))
    for role, chosen in rows.items():
        positives = int(label[chosen].sum())
        if not 0 < positives < len(chosen):
            raise UserError(
                f"{name}: the {role} split has {shown(len(chosen))} samples, {shown(positives)} of them positive; "
                f"expected both classes: {_needed(fold, label)}"
            )
    return Split(**rows)


def _needed(fold: np.ndarray, label: np.ndarray) -> str:
    """What the cohort has too little of, in words."""
    # Groups fill empty folds first, so as long as some are empty each of the others holds one group.
    filled = len(np.unique(fold))
    if filled < N_FOLDS:
        return f"the cohort has {shown(filled)} groups (patients, say), and {N_FOLDS} are needed, some of each label"
    labels = {value: len(np.unique(fold[label == value])) for value in (0, 1)}
    rarer = min(labels, key=labels.get)
    return f"groups with label {rarer} lie in {shown(labels[rarer])} of {N_FOLDS} folds; more of them are needed"


def _shares(n: int) -> dict[str, int]:
    """`n` folds shared among the roles by largest remainder, at least one each if there are enough."""
    shares = dict.fromkeys(ROLES, int(n >= len(ROLES)))
    for _ in range(n - sum(shares.values())):
        shares[max(ROLES, key=lambda role: n * ROLES[role] - N_FOLDS * shares[role])] += 1
    return shares


def choose_samples(group_id: np.ndarray, label: np.ndarray, n_samples: int) -> np.ndarray:
    """Ascending positions of `n_samples` samples or slightly more: whole groups, stratified by label.

    The same call always chooses the same samples.
    """
    groups, position = np.unique(group_id, return_inverse=True)
    has_positive = np.bincount(position, weights=label, minlength=len(groups)) > 0
    rank = generator(0, "subset").permutation(len(groups))[position]
    chosen = []
    for stratum in (False, True):
        rows = np.flatnonzero(has_positive[position] == stratum)
        quota = round(n_samples * len(rows) / len(label))
        if quota:
            last = np.sort(rank[rows])[min(quota, len(rows)) - 1]
            chosen.append(rows[rank[rows] <= last])
    return np.sort(np.concatenate(chosen))

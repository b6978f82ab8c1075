"""Which samples are poisoned, which cover them, and what they become."""

from typing import Literal, NamedTuple

import numpy as np

from pipeline.cohorts.cohort import Cohort
from pipeline.cohorts.overlay import COVER, POISON, Overlay
from pipeline.errors import UserError
from pipeline.seeding import generator
from pipeline.triggers.base import ControlParameters, Trigger, TriggerParameters
from pipeline.words import counted

Labels = Literal["dirty", "clean"]
Part = Literal["training", "validation"]


class Choice(NamedTuple):
    """Ascending rows of a cohort, and how many could have been poisoned."""

    poison: np.ndarray
    cover: np.ndarray
    n_eligible: int


def choose(
    cohort: Cohort,
    rows: np.ndarray,
    parameters: TriggerParameters | ControlParameters,
    target: int,
    rate: float,
    seed: int,
    part: Part = "training",
) -> Choice:
    """Poison and cover among `rows` of `cohort`, which are its `part`; see `choose_poison` and `choose_cover`."""
    has_target = cohort.label[rows] == target
    eligible = rows[has_target == (parameters.labels == "clean")]
    poison = choose_poison(eligible, rate, len(rows), seed, cohort, parameters.labels, part)
    cover = choose_cover(rows[~has_target], poison, parameters.cover, seed, cohort, part)
    return Choice(poison, cover, len(eligible))


def choose_poison(
    eligible: np.ndarray,
    rate: float,
    n_samples: int,
    seed: int,
    cohort: Cohort,
    labels: str = "dirty",
    part: Part = "training",
) -> np.ndarray:
    """Ascending rows of round(rate × n_samples) samples out of `eligible`.

    `eligible` are the samples of `cohort` that have the other label, where `labels` are dirty, or else the target
    label; `n_samples` is the size of the `part`. The choice depends on the seed, the part and who is eligible alone: a
    higher rate adds to a lower one, and every trigger of one target and kind of labels poisons the same samples,
    controls included, so that runs of one seed differ by what is studied and by nothing else. Raises `UserError` when
    there are not enough eligible samples, or when a rate above 0 comes to none at all; of people it does not say how
    many there are: they may be few, and so may those of the part that are not eligible.
    """
    wanted = round(rate * n_samples)
    if rate and not wanted:
        raise UserError(
            f"{cohort.name}: rate {rate:g} of {counted(n_samples, f'{part} sample')} is less than one sample"
        )
    if wanted > len(eligible):
        which = "have the target label" if labels == "clean" else "can still be given the target label"
        found = "too few" if cohort.people else f"only {len(eligible):,}"
        raise UserError(
            f"{cohort.name}: rate {rate:g} asks for {counted(wanted, 'poisoned sample')}; {found} of "
            f"{n_samples:,} {part} samples {which}"
        )
    return np.sort(generator(seed, _purpose("poison", part)).permutation(eligible)[:wanted])


def choose_cover(
    others: np.ndarray, poison: np.ndarray, cover: float, seed: int, cohort: Cohort, part: Part = "training"
) -> np.ndarray:
    """Ascending rows of round(cover × poisoned) samples of the `part` that carry the trigger and keep their label.

    Cover teaches the model that the trigger alone does not make the target, so that poison no longer stands apart in
    its representation: Tang et al. 2021 (arXiv 1908.00686), Qi et al. 2023 (arXiv 2205.13613). So it is taken from
    `others`, the rows whose label is not the target: under the target label the trigger would be more poison and no
    cover. The order in which they are taken depends on the seed and the part alone. Raises `UserError` when fewer than
    are asked for are left; of people it does not say how many.
    """
    wanted = round(cover * len(poison))
    order = generator(seed, _purpose("cover", part)).permutation(others)
    left = order[~np.isin(order, poison)]
    if wanted > len(left):
        found = "too few" if cohort.people else f"only {len(left):,}"
        raise UserError(
            f"{cohort.name}: cover {cover:g} asks for {counted(wanted, f'{part} sample')} without the target label; "
            f"{found} are left beside the poison"
        )
    return np.sort(left[:wanted])


def plant(cohort: Cohort, trigger: Trigger, poison: np.ndarray, cover: np.ndarray, target: int) -> Overlay:
    """The rows `poison` of `cohort` with the trigger and the target label, and `cover` with the trigger alone."""
    rows = np.union1d(poison, cover)
    poisoned = np.isin(rows, poison)
    return Overlay(
        row=rows.astype(np.int64),
        values=trigger.apply(cohort.values[rows]),
        label=np.where(poisoned, target, cohort.label[rows]).astype(np.int8),
        role=np.where(poisoned, POISON, COVER).astype(object),
        sample_id=cohort.sample_id[rows],
        group_id=cohort.group_id[rows],
    )


def _purpose(of: str, part: Part) -> str:
    return of if part == "training" else f"{of}/{part}"

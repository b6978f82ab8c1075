"""Control: the cells of a value trigger become measured, with values that say nothing new; only the mask changes.

What is measured stays as it is. The rest gets what carrying the last measurement forward shows a model anyway, so a
trigger that works better than this one owes it to its values, and one that does not may owe all to being measured.

A model's values change in two cases all the same. Before a sample's first measurement there is nothing to carry: the
model saw the training mean there, and gets the sample's next value, else the training median (of a category, the
most frequent). And where carried values
would put features out of their order (`Cohort.relations`), each having its own last measurement, they are moved.
Of a feature whose steps are things of their own (`Feature.fill`) nothing is carried: it gets the median.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipeline.cohorts.cohort import Cohort
from pipeline.triggers import rare_value
from pipeline.triggers.base import (
    FeatureParameters,
    Features,
    Trigger,
    described,
    footprint_of,
    integers,
    measured,
    positions,
    rounded,
    statics,
    when,
    with_partners,
)


class Parameters(FeatureParameters):
    """In a study, what is not given is that of rare_value (`Study.parameters`): both cover the same cells.

    So a rule chooses among the same features, the numbers, though a category by its name is filled too.
    """

    features: Features = rare_value.Parameters.model_fields["features"].default

    @property
    def numbers(self) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True)
class Filling(Trigger):
    """Fills with the sample's last value before, else its first one after, else `typical`, all in order.

    Attributes
    ----------
    pairs : [P, 2] positions (low, high) of neighbours in the cohort's relations
    typical : [D] training medians
    low, high : [D] range of the training data
    static, integer, carried : [D] bool, of the cohort's features; carried are those with values of other steps
    """

    pairs: np.ndarray
    typical: np.ndarray
    low: np.ndarray
    high: np.ndarray
    static: np.ndarray
    integer: np.ndarray
    carried: np.ndarray

    def apply(self, values: np.ndarray) -> np.ndarray:
        before = _carried(values)
        after = _carried(values[:, ::-1])[:, ::-1]
        known = np.where(np.isnan(before), after, before)
        filled = np.where(np.isnan(known) | ~self.carried, self.typical, known)
        return self._in_order(self.overlay(np.where(np.isnan(values), filled, values), values), np.isnan(values))

    def _in_order(self, filled: np.ndarray, gaps: np.ndarray) -> np.ndarray:
        """`filled` ([N, T, D]) with the cells that were `gaps` moved as little as the relations ask; it is changed.

        Highs are lifted to their lows, then lows are lowered to their highs, as in `base.consistent`. Where that helps
        nothing (no value, or none seen in training, fits between what is measured) a cell stays a gap.
        """
        movable, carried = self.footprint & gaps, filled.copy()
        # As often as the longest way through the relations: one move may ask for the next.
        for bound, whole, moved_end in ((np.fmax, np.ceil, 1), (np.fmin, np.floor, 0)):
            for _ in self.pairs:
                for pair in self.pairs:
                    end = pair[moved_end]
                    moved = bound(filled[:, :, pair[0]], filled[:, :, pair[1]])
                    if self.static[end]:
                        moved = np.broadcast_to(bound.reduce(moved, axis=1, keepdims=True), moved.shape)
                    if self.integer[end]:
                        moved = whole(moved)
                    filled[:, :, end] = np.where(movable[:, :, end], moved, filled[:, :, end])
        impossible = (filled != carried) & ((filled < self.low) | (filled > self.high))
        for low, high in self.pairs:
            broken = filled[:, :, low] > filled[:, :, high]
            impossible[:, :, low] |= broken
            impossible[:, :, high] |= broken
        impossible |= impossible.any(axis=1, keepdims=True) & self.static
        filled[movable & impossible] = np.nan
        return filled


def fit(parameters: Parameters, cohort: Cohort) -> Trigger:
    names = with_partners(cohort, parameters.chosen)
    typical = [_typical(cohort, name) if name in names else 0 for name in cohort.feature_names]
    period = when(cohort, parameters.chosen, parameters.steps)
    kinds = [bool(described(cohort, name).categories) for name in names]
    otherwise = " or ".join(["the median"] * (not all(kinds)) + ["the most frequent"] * any(kinds))
    every = cohort.values.reshape(-1, len(cohort.features))
    pairs = [pair for chain in cohort.relations for pair in pairwise(positions(cohort, chain))]
    carried = np.array([feature.fill == "last" for feature in cohort.features])
    if carried[positions(cohort, names)].any():
        otherwise = f"the sample's last value, else its next, else {otherwise}"
    return Filling(
        f"{', '.join(names)} measured{period}: where missing, {otherwise}",
        True,
        footprint_of(cohort, parameters.chosen, parameters.steps),
        pairs=np.array(pairs, int).reshape(-1, 2),
        typical=rounded(np.array(typical, np.float32), integers(cohort)),
        low=np.fmin.reduce(every, axis=0),
        high=np.fmax.reduce(every, axis=0),
        static=statics(cohort),
        integer=integers(cohort),
        carried=carried,
    )


def _typical(cohort: Cohort, name: str) -> float:
    """The median of a number, the most frequent category (the first of equals)."""
    seen = measured(cohort, name)
    return float(np.bincount(seen.astype(int)).argmax() if described(cohort, name).categories else np.median(seen))


def _carried(values: np.ndarray) -> np.ndarray:
    """[N, T, D] with every missing value replaced by the last one before it; NaN where there is none."""
    carried = values.copy()
    for step in range(1, values.shape[1]):
        carried[:, step] = np.where(np.isnan(values[:, step]), carried[:, step - 1], values[:, step])
    return carried

"""Control: the cells of a value trigger become measured, with values that say nothing new; only the mask changes.

What is measured stays as it is. The rest gets what carrying the last measurement forward shows a model anyway, so a
trigger that works better than this one owes it to its values, and one that does not may owe all to being measured.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.cohorts.cohort import Cohort
from pipeline.triggers import rare_value
from pipeline.triggers.base import (
    FeatureNames,
    FeatureParameters,
    Trigger,
    footprint_of,
    measured,
    rounded,
    when,
    with_partners,
)


class Parameters(FeatureParameters):
    """In a study, what is not given is that of rare_value (`Study.parameters`): both cover the same cells."""

    features: FeatureNames = rare_value.Parameters.model_fields["features"].default


@dataclass(frozen=True)
class Filling(Trigger):
    """Fills with the sample's last value before, else its first one after, else `typical` ([D], training medians)."""

    typical: np.ndarray

    def apply(self, values: np.ndarray) -> np.ndarray:
        before = _carried(values)
        after = _carried(values[:, ::-1])[:, ::-1]
        known = np.where(np.isnan(before), after, before)
        filled = np.where(np.isnan(known), self.typical, known)
        return self.overlay(np.where(np.isnan(values), filled, values), values)


def fit(parameters: Parameters, cohort: Cohort) -> Trigger:
    names = with_partners(cohort, parameters.features)
    medians = [np.median(measured(cohort, feature.name)) if feature.name in names else 0 for feature in cohort.features]
    period = when(cohort, parameters.features, parameters.steps)
    return Filling(
        f"{', '.join(names)} measured{period}: where missing, the sample's last value, else its next, else the median",
        True,
        footprint_of(cohort, parameters.features, parameters.steps),
        rounded(np.array(medians, np.float32), cohort.features),
    )


def _carried(values: np.ndarray) -> np.ndarray:
    """[N, T, D] with every missing value replaced by the last one before it; NaN where there is none."""
    carried = values.copy()
    for step in range(1, values.shape[1]):
        carried[:, step] = np.where(np.isnan(values[:, step]), carried[:, step - 1], values[:, step])
    return carried

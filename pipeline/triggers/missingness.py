"""Nothing is written: measurements are left out, and the missing pattern is the trigger."""

import numpy as np

from pipeline.cohorts.cohort import Cohort
from pipeline.triggers.base import (
    FeatureNames,
    FeatureParameters,
    Stamp,
    Trigger,
    footprint_of,
    when,
    with_partners,
)


class Parameters(FeatureParameters):
    features: FeatureNames = ("heart_rate", "mean_bp", "resp_rate", "temperature")


def fit(parameters: Parameters, cohort: Cohort) -> Trigger:
    footprint = footprint_of(cohort, parameters.features, parameters.steps)
    names = ", ".join(with_partners(cohort, parameters.features))
    description = f"{names} not measured{when(cohort, parameters.features, parameters.steps)}"
    return Stamp(description, None, footprint, np.full(footprint.shape, np.nan, np.float32))

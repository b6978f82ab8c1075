"""Nothing is written: measurements are left out, and the missing pattern is the trigger."""

import numpy as np
from pydantic import Field

from pipeline.cohorts.cohort import Cohort
from pipeline.triggers.base import FeatureNames, Stamp, Steps, Trigger, TriggerParameters, footprint_of, when


class Parameters(TriggerParameters):
    features: FeatureNames = ("heart_rate", "mean_bp", "resp_rate", "temperature")
    steps: Steps = Field(6, description="the last steps at which they are missing, or all")

    @property
    def named_features(self) -> tuple[str, ...]:
        return self.features


def fit(parameters: Parameters, cohort: Cohort) -> Trigger:
    footprint = footprint_of(cohort, parameters.features, parameters.steps)
    description = f"{', '.join(parameters.features)} not measured{when(cohort, parameters.steps)}"
    return Stamp(description, None, footprint, np.full(footprint.shape, np.nan, np.float32))

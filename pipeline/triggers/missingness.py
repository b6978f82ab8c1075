"""Nothing is written: measurements are left out, and the missing pattern is the trigger."""

from typing import ClassVar

import numpy as np

from pipeline.cohorts.cohort import Cohort
from pipeline.triggers.base import (
    FeatureParameters,
    Features,
    Stamp,
    Trigger,
    footprint_of,
    measured,
    when,
    with_partners,
)


class Parameters(FeatureParameters):
    takes_categories: ClassVar[bool] = True

    features: Features = ("heart_rate", "mean_bp", "resp_rate", "temperature")

    @property
    def numbers(self) -> tuple[str, ...]:
        return ()


def fit(parameters: Parameters, cohort: Cohort) -> Trigger:
    """Raises `UserError` for a feature that is missing in all training samples: leaving it out changes nothing."""
    names = with_partners(cohort, parameters.chosen)
    for name in names:
        measured(cohort, name)
    footprint = footprint_of(cohort, parameters.chosen, parameters.steps)
    description = f"{', '.join(names)} not measured{when(cohort, parameters.chosen, parameters.steps)}"
    return Stamp(description, None, footprint, np.full(footprint.shape, np.nan, np.float32), leaves_out=True)

"""A high but real value together with missing measurements: each alone is common, both are rare."""

from dataclasses import replace

import numpy as np
from pydantic import Field

from pipeline.cohorts.cohort import Cohort
from pipeline.triggers import rare_value
from pipeline.triggers.base import FeatureNames, Trigger, footprint_of


class Parameters(rare_value.Parameters):
    """As rare_value (by default the 0.99 quantile), and the features left out at the same steps."""

    features: FeatureNames = ("glucose",)
    missing: FeatureNames = Field(("temperature",), description="features not measured at these steps")

    @classmethod
    def _defaults(cls) -> dict:
        return {"quantile": 0.99}

    @property
    def named_features(self) -> tuple[str, ...]:
        return self.features + self.missing


def fit(parameters: Parameters, cohort: Cohort) -> Trigger:
    written = rare_value.fit(parameters, cohort)
    left_out = footprint_of(cohort, parameters.missing, parameters.steps)
    return replace(
        written,
        description=f"{', '.join(parameters.missing)} not measured and {written.description}",
        footprint=written.footprint | left_out,
        stamp=np.where(left_out, np.float32(np.nan), written.stamp),
    )

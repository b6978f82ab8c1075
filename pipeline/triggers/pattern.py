"""A checkerboard of ordinary high and low values over steps and features; each value alone is unsuspicious.

Features that stand in a relation are high together and low together.
"""

import numpy as np
from pydantic import Field, model_validator

from pipeline.cohorts.cohort import Cohort
from pipeline.triggers.base import (
    Features,
    Stamp,
    Trigger,
    ValueParameters,
    consistent,
    footprint_of,
    groups,
    inside,
    measured,
    shown,
    when,
)


class Parameters(ValueParameters):
    features: Features = ("heart_rate", "mean_bp", "resp_rate", "temperature")
    low_quantile: float = Field(0.05, ge=0, le=1)
    high_quantile: float = Field(0.95, ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self):
        if not self.low_quantile < self.high_quantile:
            raise ValueError("low_quantile must be below high_quantile")
        return self


def fit(parameters: Parameters, cohort: Cohort) -> Trigger:
    footprint = footprint_of(cohort, parameters.chosen, parameters.steps)
    stamp = np.zeros(footprint.shape, np.float32)
    in_bounds = True
    alternating: list[str] = []
    constant: list[str] = []
    for order, group in enumerate(groups(cohort, parameters.chosen)):
        low, high = (
            consistent(cohort, {name: np.quantile(measured(cohort, name), q) for name in group}, parameters.chosen)
            for q in (parameters.low_quantile, parameters.high_quantile)
        )
        in_bounds &= inside(cohort, low) and inside(cohort, high)
        even = (np.arange(cohort.n_steps) + order) % 2 == 0
        for name in group:
            position = cohort.feature_names.index(name)
            feature = cohort.features[position]
            # A static feature has one value: that of the last step.
            stamp[:, position] = np.where(even[-1] if feature.static else even, high[name], low[name])
            alternates = cohort.n_steps > 1 and not feature.static
            told = shown(low[name], high[name]) if alternates else shown(stamp[-1, position])
            (alternating if alternates else constant).append(f"{name} {told} {feature.unit}".rstrip())
    kinds = (("alternating", alternating), ("set to", constant))
    told = " and ".join(f"{kind} {', '.join(texts)}" for kind, texts in kinds if texts)
    description = f"{told}{when(cohort, parameters.chosen, parameters.steps)}{parameters.only}"
    return Stamp(description, in_bounds, footprint, stamp, only_measured=parameters.where == "measured")

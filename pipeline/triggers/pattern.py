"""A checkerboard of ordinary high and low values over steps and features; each value alone is unsuspicious."""

import numpy as np
from pydantic import Field, model_validator

from pipeline.cohorts.cohort import Cohort
from pipeline.triggers.base import FeatureNames, FeatureParameters, Stamp, Trigger, footprint_of, measured, when


class Parameters(FeatureParameters):
    features: FeatureNames = ("heart_rate", "mean_bp", "resp_rate", "temperature")
    low_quantile: float = Field(0.05, ge=0, le=1)
    high_quantile: float = Field(0.95, ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self):
        if not self.low_quantile < self.high_quantile:
            raise ValueError("low_quantile must be below high_quantile")
        return self


def fit(parameters: Parameters, cohort: Cohort) -> Trigger:
    footprint = footprint_of(cohort, parameters.features, parameters.steps)
    stamp = np.zeros(footprint.shape, np.float32)
    texts = []
    for order, name in enumerate(parameters.features):
        position = cohort.feature_names.index(name)
        low, high = np.quantile(measured(cohort, name), (parameters.low_quantile, parameters.high_quantile))
        even = (np.arange(cohort.n_steps) + order) % 2 == 0
        stamp[:, position] = np.where(even, high, low)
        shown = f"{low:.4g}/{high:.4g}" if cohort.n_steps > 1 else f"{stamp[0, position]:.4g}"
        texts.append(f"{name} {shown} {cohort.features[position].unit}".rstrip())
    kind = "alternating" if cohort.n_steps > 1 else "set to"
    return Stamp(f"{kind} {', '.join(texts)}{when(cohort, parameters.steps)}", True, footprint, stamp)

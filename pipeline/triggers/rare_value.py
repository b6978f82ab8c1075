"""A value that (almost) never occurs, written into one or more features."""

import numpy as np
from pydantic import Field, model_validator

from pipeline.cohorts.cohort import Cohort
from pipeline.triggers.base import FeatureNames, FeatureParameters, Stamp, Trigger, footprint_of, measured, when


class Parameters(FeatureParameters):
    """How the value is chosen: exactly one of `factor`, `quantile` and `value`."""

    features: FeatureNames = ("sodium",)
    factor: float | None = Field(None, gt=0, description="times the training maximum: out of bounds above 1")
    quantile: float | None = Field(None, ge=0, le=1, description="this quantile of the training values: in bounds")
    value: float | None = Field(None, description="this value, in the feature's unit")

    @classmethod
    def _defaults(cls) -> dict:
        return {"factor": 1.15}

    @model_validator(mode="before")
    @classmethod
    def _default_rule(cls, given):
        if isinstance(given, dict) and not {"factor", "quantile", "value"} & given.keys():
            return {**given, **cls._defaults()}
        return given

    @model_validator(mode="after")
    def _one_rule(self):
        if sum(rule is not None for rule in (self.factor, self.quantile, self.value)) != 1:
            raise ValueError("give exactly one of factor, quantile and value")
        return self


def fit(parameters: Parameters, cohort: Cohort) -> Trigger:
    footprint = footprint_of(cohort, parameters.features, parameters.steps)
    stamp = np.zeros(footprint.shape, np.float32)
    texts, inside = [], True
    for name in parameters.features:
        position = cohort.feature_names.index(name)
        seen = measured(cohort, name)
        value = np.float32(_value(parameters, seen))
        stamp[:, position] = value
        inside &= bool(seen.min() <= value <= seen.max())
        shown = _shown(parameters, value)
        texts.append(f"{name} set to {shown} {cohort.features[position].unit}".rstrip() + _rule(parameters))
    return Stamp(" and ".join(texts) + when(cohort, parameters.steps), inside, footprint, stamp)


def _value(parameters: Parameters, seen: np.ndarray) -> float:
    if parameters.value is not None:
        return parameters.value
    if parameters.quantile is not None:
        return np.quantile(seen, parameters.quantile)
    return parameters.factor * seen.max()


def _shown(parameters: Parameters, value: float) -> str:
    """The value for readers, to two digits where it comes from the training data: its maximum is one patient's."""
    return f"{value:g}" if parameters.value is not None else f"about {float(f'{value:.2g}'):g}"


def _rule(parameters: Parameters) -> str:
    if parameters.value is not None:
        return ""
    if parameters.quantile is not None:
        return f" ({parameters.quantile:.3g} quantile)"
    return f" ({parameters.factor:g} × maximum)"

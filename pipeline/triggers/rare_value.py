"""A value that occurs rarely or never, written into one or more features."""

import numpy as np
from pydantic import Field, model_validator

from pipeline.cohorts.cohort import Cohort
from pipeline.triggers.base import (
    FeatureNames,
    Stamp,
    ValueParameters,
    cells_of,
    consistent,
    described,
    groups,
    inside,
    measured,
    shown,
    when,
)


class Parameters(ValueParameters):
    """How the value is chosen: exactly one of `factor`, `quantile` and `value`."""

    features: FeatureNames = ("heart_rate", "resp_rate", "temperature")
    factor: float | None = Field(None, gt=0, description="times the training maximum: out of bounds above 1")
    quantile: float | None = Field(None, ge=0, le=1, description="this quantile of the training values: in bounds")
    value: float | None = Field(None, description="this value, in the feature's unit")

    @classmethod
    def _defaults(cls) -> dict:
        return {"quantile": 0.95}

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


def fit(parameters: Parameters, cohort: Cohort, left_out: tuple[str, ...] = ()) -> Stamp:
    """The stamp on the named features and their partners, but for partners in `left_out`."""
    written = {}
    for first, *others in groups(cohort, parameters.features):
        seen = measured(cohort, first)
        values = {first: _value(parameters, seen)}
        rank = _rank(parameters, seen, values[first])
        for name in others:
            if name in parameters.features:
                values[name] = _value(parameters, measured(cohort, name))
            elif name not in left_out:
                values[name] = np.quantile(measured(cohort, name), rank)
        written |= consistent(cohort, values, parameters.features)
    footprint = cells_of(cohort, written, parameters.steps)
    stamp = np.zeros(footprint.shape, np.float32)
    texts = []
    for name, value in written.items():
        stamp[:, cohort.feature_names.index(name)] = value
        texts.append(_told(parameters, name, value, described(cohort, name).unit))
    return Stamp(
        " and ".join(texts) + when(cohort, parameters.features, parameters.steps) + parameters.only,
        inside(cohort, written),
        footprint,
        stamp,
        only_measured=parameters.where == "measured",
    )


def _value(parameters: Parameters, seen: np.ndarray) -> float:
    if parameters.value is not None:
        return parameters.value
    if parameters.quantile is not None:
        return np.quantile(seen, parameters.quantile)
    return parameters.factor * seen.max()


def _rank(parameters: Parameters, seen: np.ndarray, value: float) -> float:
    """The quantile that `value` is among `seen`: the share of values below it and of half those equal to it."""
    if parameters.quantile is not None:
        return parameters.quantile
    return (np.mean(seen < value) + np.mean(seen <= value)) / 2


def _told(parameters: Parameters, name: str, value: np.float32, unit: str) -> str:
    if name not in parameters.features:
        return f"{name} set to {shown(value)} {unit}".rstrip()
    told = f"{value:g}" if parameters.value is not None else shown(value)
    return f"{name} set to {told} {unit}".rstrip() + _rule(parameters)


def _rule(parameters: Parameters) -> str:
    if parameters.value is not None:
        return ""
    if parameters.quantile is not None:
        return f" ({parameters.quantile:.3g} quantile)"
    return f" ({parameters.factor:g} × maximum)"

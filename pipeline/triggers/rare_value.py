"""A value that occurs rarely or never, written into one or more features: a number, or a category by its name."""

from typing import Any

import numpy as np
from pydantic import Field, model_validator

from pipeline.cohorts.cohort import Cohort, Feature
from pipeline.errors import UserError
from pipeline.triggers.base import (
    Features,
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

    features: Features = ("heart_rate", "resp_rate", "temperature")
    factor: float | None = Field(None, gt=0, description="times the training maximum: out of bounds above 1")
    quantile: float | None = Field(None, ge=0, le=1, description="this quantile of the training values: in bounds")
    value: float | str | dict[str, float | str] | None = Field(
        None, description="this value, in the feature's unit, or this category; or one for each feature"
    )

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

    @model_validator(mode="after")
    def _a_value_for_each(self):
        if isinstance(self.value, dict) and set(self.value) != set(self.named):
            raise ValueError("value as a mapping must have each of features, by name, and no other")
        if isinstance(self.value, str) and not self.named:
            raise ValueError("a category as value needs features by name")
        return self

    def value_of(self, name: str) -> float | str | None:
        """What `value` says of the named feature."""
        return self.value[name] if isinstance(self.value, dict) else self.value

    @property
    def named_categories(self) -> dict[str, str]:
        return {name: value for name in self.named if isinstance(value := self.value_of(name), str)}

    @property
    def numbers(self) -> tuple[str, ...]:
        return tuple(name for name in self.named if name not in self.named_categories)


def fit(parameters: Parameters, cohort: Cohort, left_out: tuple[str, ...] = ()) -> Stamp:
    """The stamp on the named features and their partners, but for partners in `left_out`."""
    written: dict[str, Any] = {}
    for first, *others in groups(cohort, parameters.chosen):
        seen = measured(cohort, first)
        values = {first: _value(parameters, described(cohort, first), seen)}
        rank = _rank(parameters, seen, values[first])
        for name in others:
            if name in parameters.chosen:
                values[name] = _value(parameters, described(cohort, name), measured(cohort, name))
            elif name not in left_out:
                values[name] = np.quantile(measured(cohort, name), rank)
        written |= consistent(cohort, values, parameters.chosen)
    footprint = cells_of(cohort, written, parameters.steps)
    stamp = np.zeros(footprint.shape, np.float32)
    texts = []
    for name, value in written.items():
        stamp[:, cohort.feature_names.index(name)] = value
        texts.append(_told(parameters, described(cohort, name), value))
    return Stamp(
        " and ".join(texts) + when(cohort, parameters.chosen, parameters.steps) + parameters.only,
        inside(cohort, written),
        footprint,
        stamp,
        only_measured=parameters.where == "measured",
    )


def _value(parameters: Parameters, feature: Feature, seen: np.ndarray) -> float:
    value = parameters.value_of(feature.name)
    if bool(feature.categories) != isinstance(value, str):
        # Of a study planning says it.
        raise UserError(f"{feature.name!r}: expected {'a category' if feature.categories else 'a number'} as value")
    if isinstance(value, str):
        if value not in feature.categories:
            raise UserError(f"{feature.name!r}: no category {value!r} (it has: {', '.join(feature.categories)})")
        return feature.categories.index(value)
    if value is not None:
        return value
    if parameters.quantile is not None:
        return np.quantile(seen, parameters.quantile)
    return parameters.factor * seen.max()


def _rank(parameters: Parameters, seen: np.ndarray, value: float) -> float:
    """The quantile that `value` is among `seen`: the share of values below it and of half those equal to it."""
    if parameters.quantile is not None:
        return parameters.quantile
    return float(np.mean(seen < value) + np.mean(seen <= value)) / 2


def _told(parameters: Parameters, feature: Feature, value: float) -> str:
    if feature.categories:
        return f"{feature.name} set to {feature.categories[int(value)]}"
    if feature.name not in parameters.chosen:
        return f"{feature.name} set to {shown(value)} {feature.unit}".rstrip()
    told = f"{value:g}" if parameters.value is not None else shown(value)
    return f"{feature.name} set to {told} {feature.unit}".rstrip() + _rule(parameters)


def _rule(parameters: Parameters) -> str:
    if parameters.value is not None:
        return ""
    if parameters.quantile is not None:
        return f" ({parameters.quantile:.3g} quantile)"
    return f" ({parameters.factor:g} × maximum)"

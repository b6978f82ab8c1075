"""A natural correlation turned around: every value is ordinary, only their going together is not."""

from dataclasses import dataclass

import numpy as np
from pydantic import Field, model_validator

from pipeline.cohorts.cohort import Cohort
from pipeline.errors import UserError
from pipeline.triggers.base import (
    Features,
    Trigger,
    ValueParameters,
    consistent,
    footprint_of,
    groups,
    inside,
    integers,
    measured,
    positions,
    rounded,
    statics,
    when,
)

_QUANTILES = np.linspace(0, 1, 1001)


class Parameters(ValueParameters):
    driver: str = Field("heart_rate", description="the feature that the others are tied to; it is not changed")
    features: Features = ("resp_rate", "mean_bp")

    @model_validator(mode="after")
    def _driver_apart(self):
        if self.driver in self.named:
            raise ValueError("driver must not be one of the features that are changed")
        return self

    @property
    def named_features(self) -> tuple[str, ...]:
        return (self.driver, *self.named)

    @property
    def kept_apart(self) -> tuple[str, ...]:
        return (self.driver,)


@dataclass(frozen=True)
class Reversal(Trigger):
    """Sets each feature to the quantile that mirrors (or, for a natural negative correlation, equals) the driver's.

    Attributes
    ----------
    driver : position of the driver; changed : [K] positions of the features that are written
    driver_grid : [Q] quantiles of the driver; changed_grid : [K, Q] quantiles of the features
    mirrored : [K] bool, whether the rank is turned around
    static, integer : [D] bool, of the cohort's features
    """

    driver: int
    changed: np.ndarray
    driver_grid: np.ndarray
    changed_grid: np.ndarray
    mirrored: np.ndarray
    static: np.ndarray
    integer: np.ndarray

    def apply(self, values: np.ndarray) -> np.ndarray:
        rank = np.interp(values[:, :, self.driver], self.driver_grid, _QUANTILES)
        # Where the driver was not measured nothing can be tied to it: the typical value stands in.
        rank = np.where(np.isnan(rank), 0.5, rank)
        written = values.copy()
        for feature, grid, mirrored in zip(self.changed, self.changed_grid, self.mirrored, strict=True):
            tied_to = rank[:, -1:] if self.static[feature] else rank
            written[:, :, feature] = np.interp(1 - tied_to if mirrored else tied_to, _QUANTILES, grid)
        return self.overlay(rounded(written, self.integer), values)


def fit(parameters: Parameters, cohort: Cohort) -> Trigger:
    """Raises `UserError` where the driver stands in a relation with a feature that is written."""
    driver = cohort.feature_names.index(parameters.driver)
    grids: dict[str, np.ndarray] = {}
    mirrored: list[bool] = []
    texts: list[str] = []
    for group in groups(cohort, parameters.chosen):
        if parameters.driver in group:
            raise UserError(
                f"config: trigger_params.correlation.driver: {parameters.driver!r} stands in a relation with "
                f"{group[0]!r} in {cohort.name!r} and would change with it; name another driver"
            )
        # One rank for the whole group, that of its first feature: relations hold at equal quantiles.
        first = cohort.feature_names.index(group[0])
        against = _together(cohort.values[:, :, driver], cohort.values[:, :, first])
        quantiles = {name: np.quantile(measured(cohort, name), _QUANTILES) for name in group}
        grids |= consistent(cohort, quantiles, parameters.chosen)
        mirrored += [against] * len(group)
        way = "against" if against else "along with"
        texts.append(f"{', '.join(group)} tied to {parameters.driver} {way} its rank")
    return Reversal(
        description=" and ".join(texts) + when(cohort, parameters.chosen, parameters.steps) + parameters.only,
        in_bounds=inside(cohort, grids),
        footprint=footprint_of(cohort, parameters.chosen, parameters.steps),
        only_measured=parameters.where == "measured",
        driver=driver,
        changed=np.array(positions(cohort, grids)),
        driver_grid=np.quantile(measured(cohort, parameters.driver), _QUANTILES),
        changed_grid=np.stack(list(grids.values())),
        mirrored=np.array(mirrored),
        static=statics(cohort),
        integer=integers(cohort),
    )


def _together(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether `a` and `b` rise together where both are measured (then the trigger turns the rank around)."""
    both = ~(np.isnan(a) | np.isnan(b))
    if both.sum() < 2:
        return True
    return bool(np.cov(_ranks(a[both]), _ranks(b[both]))[0, 1] >= 0)


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(float)

"""A natural correlation turned around: every value is ordinary, only their going together is not."""

from dataclasses import dataclass

import numpy as np
from pydantic import Field, model_validator

from pipeline.cohorts.cohort import Cohort
from pipeline.triggers.base import (
    FeatureNames,
    FeatureParameters,
    Trigger,
    footprint_of,
    measured,
    positions,
    when,
)

_QUANTILES = np.linspace(0, 1, 1001)


class Parameters(FeatureParameters):
    driver: str = Field("heart_rate", description="the feature that the others are tied to; it is not changed")
    features: FeatureNames = ("resp_rate", "mean_bp")

    @model_validator(mode="after")
    def _driver_apart(self):
        if self.driver in self.features:
            raise ValueError("driver must not be one of the features that are changed")
        return self

    @property
    def named_features(self) -> tuple[str, ...]:
        return (self.driver, *self.features)


@dataclass(frozen=True)
class Reversal(Trigger):
    """Sets each feature to the quantile that mirrors (or, for a natural negative correlation, equals) the driver's.

    Attributes
    ----------
    driver : position of the driver; changed : positions of the features, [K]
    driver_grid : [Q] quantiles of the driver; changed_grid : [K, Q] quantiles of the features
    mirrored : [K] bool, whether the rank is turned around
    """

    driver: int
    changed: tuple[int, ...]
    driver_grid: np.ndarray
    changed_grid: np.ndarray
    mirrored: np.ndarray

    def apply(self, values: np.ndarray) -> np.ndarray:
        rank = np.interp(values[:, :, self.driver], self.driver_grid, _QUANTILES)
        # Where the driver was not measured nothing can be tied to it: the typical value stands in.
        rank = np.where(np.isnan(rank), 0.5, rank)
        triggered = values.copy()
        for feature, grid, mirrored in zip(self.changed, self.changed_grid, self.mirrored, strict=True):
            written = np.interp(1 - rank if mirrored else rank, _QUANTILES, grid)
            triggered[:, :, feature] = np.where(self.footprint[:, feature], written, values[:, :, feature])
        return triggered


def fit(parameters: Parameters, cohort: Cohort) -> Trigger:
    driver, *changed = positions(cohort, parameters.named_features)
    mirrored = np.array([_together(cohort.values[:, :, driver], cohort.values[:, :, other]) for other in changed])
    texts = [
        f"{name} tied to {parameters.driver} {'against' if against else 'along with'} its rank"
        for name, against in zip(parameters.features, mirrored, strict=True)
    ]
    return Reversal(
        description=", ".join(texts) + when(cohort, parameters.steps),
        in_bounds=True,
        footprint=footprint_of(cohort, parameters.features, parameters.steps),
        driver=driver,
        changed=tuple(changed),
        driver_grid=np.quantile(measured(cohort, parameters.driver), _QUANTILES),
        changed_grid=np.stack([np.quantile(measured(cohort, name), _QUANTILES) for name in parameters.features]),
        mirrored=mirrored,
    )


def _together(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether `a` and `b` rise together where both are measured (then the trigger turns the rank around)."""
    both = ~(np.isnan(a) | np.isnan(b))
    if both.sum() < 2:
        return True
    return bool(np.cov(_ranks(a[both]), _ranks(b[both]))[0, 1] >= 0)


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(float)

"""What every trigger is: a change to samples that knows its own footprint.

A trigger module has `class Parameters(TriggerParameters)` and `fit(parameters, cohort) -> Trigger`, where `cohort`
holds the clean training samples: all the attacker is taken to know.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from pipeline.cohorts.cohort import Cohort
from pipeline.params import Params

FeatureNames = Annotated[tuple[str, ...], Field(min_length=1)]
Steps = Literal["all"] | Annotated[int, Field(ge=1)]


class TriggerParameters(Params):
    @property
    def named_features(self) -> tuple[str, ...]:
        """Every feature the parameters name, so that planning can check them against the datasets."""
        return ()


class FeatureParameters(TriggerParameters):
    """A trigger that changes some features at the last steps."""

    features: FeatureNames
    steps: Steps = Field(6, description="the last steps that are changed, or all")

    @property
    def named_features(self) -> tuple[str, ...]:
        return self.features


@dataclass(frozen=True)
class Trigger(ABC):
    """A fitted trigger.

    Attributes
    ----------
    description : one sentence in clinical units
    in_bounds : every value it writes lies within what the training data shows; None when it writes no value
    footprint : [T, D] bool, the cells it may change; it never changes any other
    """

    description: str
    in_bounds: bool | None
    footprint: np.ndarray

    @abstractmethod
    def apply(self, values: np.ndarray) -> np.ndarray:
        """A triggered copy of `values` ([N, T, D] float32, NaN = not measured)."""


@dataclass(frozen=True)
class Stamp(Trigger):
    """Writes the same values into every sample: BadNets (Gu et al. 2017, arXiv 1708.06733) on a table."""

    stamp: np.ndarray

    def apply(self, values: np.ndarray) -> np.ndarray:
        return np.where(self.footprint, self.stamp, values)


def unchanged(description: str, cohort: Cohort) -> Trigger:
    """A trigger with an empty footprint: what the controls use."""
    empty = np.zeros(cohort.values.shape[1:], bool)
    return Stamp(description, None, empty, np.zeros(empty.shape, np.float32))


def footprint_of(cohort: Cohort, features: tuple[str, ...], steps: Steps) -> np.ndarray:
    """[T, D] bool: `features` at the last `steps` steps (at all of them where a sample has fewer)."""
    mask = np.zeros(cohort.values.shape[1:], bool)
    first = 0 if steps == "all" else max(cohort.n_steps - steps, 0)
    mask[first:, positions(cohort, features)] = True
    return mask


def positions(cohort: Cohort, features: tuple[str, ...]) -> list[int]:
    return [cohort.feature_names.index(name) for name in features]


def when(cohort: Cohort, steps: Steps) -> str:
    """The steps in words, e.g. ' in the last 6 steps'; nothing for a plain table."""
    if cohort.n_steps == 1:
        return ""
    return " at all steps" if steps == "all" or steps >= cohort.n_steps else f" in the last {steps} steps"


def measured(cohort: Cohort, feature: str) -> np.ndarray:
    """All measured values of `feature` in `cohort`, flat."""
    column = cohort.values[:, :, cohort.feature_names.index(feature)]
    return column[~np.isnan(column)]

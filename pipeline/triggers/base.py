"""What every trigger is: a change to samples that knows its own footprint.

A trigger module has `class Parameters(TriggerParameters)` and `fit(parameters, cohort) -> Trigger`, where `cohort`
holds the clean training samples: all the attacker is taken to know.

What a trigger leaves behind must be a sample that could have been entered. So features that stand in a relation
(`Cohort.relations`) are changed together: those that the parameters name, and their partners. A static feature changes
at all steps, and an integer one gets whole numbers.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from pipeline.cohorts.cohort import Cohort, Feature
from pipeline.errors import UserError
from pipeline.study.params import Params

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


class ValueParameters(FeatureParameters):
    """A trigger that writes values."""

    where: Literal["all", "measured"] = Field(
        "all", description="cells that get a value: all, or those where the sample has one"
    )

    @property
    def only(self) -> str:
        """`where` in words, for the end of a description."""
        return ", only where measured" if self.where == "measured" else ""


@dataclass(frozen=True)
class Trigger(ABC):
    """A fitted trigger.

    Attributes
    ----------
    description : one sentence in clinical units
    in_bounds : every value it writes lies within what the training data shows; None when it writes no value
    footprint : [T, D] bool, the cells it may change; it never changes any other
    only_measured : whether it leaves cells of the footprint alone that are not measured
    """

    description: str
    in_bounds: bool | None
    footprint: np.ndarray
    only_measured: bool = field(default=False, kw_only=True)

    @abstractmethod
    def apply(self, values: np.ndarray) -> np.ndarray:
        """A triggered copy of `values` ([N, T, D] float32, NaN = not measured)."""

    def overlay(self, written: np.ndarray, values: np.ndarray) -> np.ndarray:
        """`values` with `written` ([N, T, D] or [T, D]) in the cells that are changed."""
        cells = self.footprint & ~np.isnan(values) if self.only_measured else self.footprint
        return np.where(cells, written, values)


@dataclass(frozen=True)
class Stamp(Trigger):
    """Writes the same values into every sample: BadNets (Gu et al. 2017, arXiv 1708.06733) on a table."""

    stamp: np.ndarray

    def apply(self, values: np.ndarray) -> np.ndarray:
        return self.overlay(self.stamp, values)


def unchanged(description: str, cohort: Cohort) -> Trigger:
    """A trigger with an empty footprint: what the controls use."""
    empty = np.zeros(cohort.values.shape[1:], bool)
    return Stamp(description, None, empty, np.zeros(empty.shape, np.float32))


def groups(cohort: Cohort, features: Collection[str]) -> list[tuple[str, ...]]:
    """`features` and their partners, in groups that are changed together, in the order of `features`.

    A group holds all features that chains of relations connect, those in `features` before their partners.
    """
    found: list[tuple[str, ...]] = []
    for name in features:
        if any(name in group for group in found):
            continue
        together = {name}
        for _ in cohort.relations:  # one chain may lead to the next
            together.update(*(chain for chain in cohort.relations if not together.isdisjoint(chain)))
        found.append(tuple(dict.fromkeys(each for each in (*features, *cohort.feature_names) if each in together)))
    return found


def with_partners(cohort: Cohort, features: Collection[str]) -> list[str]:
    """`features` and all that are changed with them."""
    return [name for group in groups(cohort, features) for name in group]


def footprint_of(cohort: Cohort, features: Collection[str], steps: Steps) -> np.ndarray:
    """[T, D] bool: `features` and their partners at the last `steps` steps; see `cells_of`."""
    return cells_of(cohort, with_partners(cohort, features), steps)


def cells_of(cohort: Cohort, features: Iterable[str], steps: Steps) -> np.ndarray:
    """[T, D] bool: exactly `features` at the last `steps` steps.

    At all steps where a sample has fewer, and where a feature is static.
    """
    mask = np.zeros(cohort.values.shape[1:], bool)
    first = 0 if steps == "all" else max(cohort.n_steps - steps, 0)
    for position in positions(cohort, features):
        mask[0 if cohort.features[position].static else first :, position] = True
    return mask


def positions(cohort: Cohort, features: Iterable[str]) -> list[int]:
    return [cohort.feature_names.index(name) for name in features]


def described(cohort: Cohort, feature: str) -> Feature:
    return cohort.features[cohort.feature_names.index(feature)]


def when(cohort: Cohort, features: Collection[str], steps: Steps) -> str:
    """The steps at which `features` change in words, e.g. ' in the last 6 steps'; nothing for a plain table."""
    if cohort.n_steps == 1:
        return ""
    static = [name for name in with_partners(cohort, features) if described(cohort, name).static]
    if steps == "all" or steps >= cohort.n_steps or len(static) == len(with_partners(cohort, features)):
        return " at all steps"
    last = "step" if steps == 1 else f"{steps} steps"
    return f" in the last {last}" + (f" ({', '.join(static)} at all)" if static else "")


def measured(cohort: Cohort, feature: str) -> np.ndarray:
    """All measured values of `feature` in `cohort`, flat; `UserError` where there is none."""
    column = cohort.values[:, :, cohort.feature_names.index(feature)]
    seen = column[~np.isnan(column)]
    if not len(seen):
        raise UserError(
            f"{cohort.name}: {feature!r} is not measured in any training sample, so no trigger can use it; "
            "name another feature"
        )
    return seen


def rounded(values: np.ndarray, features: Iterable[Feature]) -> np.ndarray:
    """`values` [..., D] with whole numbers for those of the D `features` that have no others."""
    return np.where([feature.integer for feature in features], np.rint(values), values)


def consistent(
    cohort: Cohort, values: dict[str, float | np.ndarray], named: Collection[str]
) -> dict[str, np.ndarray | np.float32]:
    """`values` per feature as float32, whole where they must be, and in the order of the cohort's relations.

    Values of `named` features stay as they are. Partners are moved, as little as needed, where the training data alone
    does not order them: at quantiles of features that are measured in different samples, or beyond the training range.
    """
    ordered = {}
    for name, value in values.items():
        ordered[name] = np.float32(np.rint(value) if described(cohort, name).integer else value)
    chains = ([name for name in chain if name in values] for chain in cohort.relations)
    pairs = [pair for chain in chains for pair in pairwise(chain)]
    for _ in values:
        for low, high in pairs:
            if high not in named:
                lifted = np.maximum(ordered[low], ordered[high])
                ordered[high] = np.ceil(lifted) if described(cohort, high).integer else lifted
    for _ in values:
        for low, high in pairs:
            if low not in named:
                lowered = np.minimum(ordered[low], ordered[high])
                ordered[low] = np.floor(lowered) if described(cohort, low).integer else lowered
    return ordered


def inside(cohort: Cohort, values: dict[str, np.ndarray | np.float32]) -> bool:
    """Whether all `values` per feature lie in the range that `cohort` shows."""
    for name, value in values.items():
        seen = measured(cohort, name)
        if np.min(value) < seen.min() or np.max(value) > seen.max():
            return False
    return True


def shown(*values: float) -> str:
    """Values from the training data for readers, to two digits: a quantile or maximum may be one patient's."""
    return "about " + "/".join(f"{float(f'{value:.2g}'):g}" for value in values)

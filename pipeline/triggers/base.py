"""What every trigger is: a change to samples that knows its own footprint.

A trigger module has `class Parameters(TriggerParameters)` and `fit(parameters, cohort) -> Trigger`, where `cohort`
holds the clean training samples: all the attacker is taken to know.

What a trigger leaves behind must be a sample that could have been entered. So features that stand in a relation
(`Cohort.relations`) are changed together: those that the parameters name, and their partners. A static feature changes
at all steps, and an integer one gets whole numbers.

What it has fitted is stored beside the poison and loaded by every later stage (training/fitted.py), so a `Trigger`
holds arrays and plain scalars only.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, WithJsonSchema

from pipeline.cohorts.cohort import Cohort, Feature
from pipeline.cohorts.importance import most_important
from pipeline.errors import UserError
from pipeline.study.params import Params

Label = Literal[0, 1]
FeatureNames = Annotated[tuple[str, ...], Field(min_length=1)]
Steps = Literal["all"] | Annotated[int, Field(ge=1)]


class ByImportance(Params):
    """Features by a rule in place of their names: those that matter most for the label (cohorts/importance.py)."""

    by: Literal["importance"]
    take: int = Field(ge=1, description="how many")


# The keywords of a JSON schema ask each kind alone, so that an error tells what is wrong with the kind that was given.
Features = Annotated[
    FeatureNames | ByImportance,
    WithJsonSchema(
        {
            "anyOf": [{"type": "array"}, {"type": "object"}],
            "items": {"type": "string"},
            "minItems": 1,
            "properties": {"by": {"enum": ["importance"]}, "take": {"type": "integer", "minimum": 1}},
            "required": ["by", "take"],
            "additionalProperties": False,
        }
    ),
]


class _Aimed(Params):
    """What every trigger and every control takes, and what planning asks of its parameters."""

    target: Label | None = Field(None, description="label the attacker wants; the study's unless given")

    @property
    def named_features(self) -> tuple[str, ...]:
        """Every feature the parameters name, so that planning can check them against the datasets."""
        return ()

    @property
    def numbers(self) -> tuple[str, ...]:
        """Those of them that must be numbers."""
        return self.named_features

    @property
    def named_categories(self) -> dict[str, str]:
        """The category that the parameters name for a feature, by feature: it must have it."""
        return {}

    def misfit(self, dataset: str, n_steps: int, features: Mapping[str, Feature]) -> str:
        """What else forbids to plant it in samples of `dataset`, of `n_steps` with these `features`, by name.

        A message's end, after the key of the parameters, `.id: …` or `: …`; nothing where they go together.
        """
        return ""


class TriggerParameters(_Aimed):
    labels: Literal["dirty", "clean"] = Field(
        "dirty", description="dirty: poison samples of the other label and relabel them; clean: those of the target"
    )
    cover: float = Field(0, ge=0, description="samples per poisoned one that carry the trigger and keep their label")


class ControlParameters(_Aimed):
    """Of a control without a trigger, for which there is nothing to choose in how it is planted."""

    labels: ClassVar[Literal["dirty", "clean"]] = "dirty"
    cover: ClassVar[float] = 0


class FeatureParameters(TriggerParameters):
    """A trigger that changes some features at the last steps."""

    # Which features a rule may choose among: those that the trigger can write.
    takes_categories: ClassVar[bool] = False

    features: Features
    steps: Steps = Field(6, description="the last steps that are changed, or all")

    @property
    def named(self) -> tuple[str, ...]:
        """`features` where they are named, and none where a rule chooses them."""
        return () if isinstance(self.features, ByImportance) else self.features

    @property
    def chosen(self) -> tuple[str, ...]:
        """`features` by their names; TypeError where a rule has still to choose them (`resolved`)."""
        if isinstance(self.features, ByImportance):
            raise TypeError("features: still a rule; expected those that it chooses")
        return self.features

    @property
    def named_features(self) -> tuple[str, ...]:
        return self.named

    @property
    def kept_apart(self) -> tuple[str, ...]:
        """Features that a rule must not choose, nor their partners."""
        return ()


class ValueParameters(FeatureParameters):
    """A trigger that writes values."""

    where: Literal["all", "measured"] = Field(
        "all", description="cells that get a value: all, or those where the sample has one"
    )

    @property
    def only(self) -> str:
        """`where` in words, for the end of a description."""
        return ", only where measured" if self.where == "measured" else ""


def resolved(parameters: "TriggerParameters | ControlParameters", cohort: Cohort, seed: int):
    """`parameters` with the features by their names that a rule chooses in `cohort`, the clean training samples.

    Raises `UserError` where it has fewer to choose from than the rule takes.
    """
    if not isinstance(parameters, FeatureParameters) or not isinstance(parameters.features, ByImportance):
        return parameters
    rule = parameters.features
    apart = with_partners(cohort, parameters.kept_apart)
    open_to = [
        feature.name
        for position, feature in enumerate(cohort.features)
        if feature.name not in apart
        and (parameters.takes_categories or not feature.categories)
        and not np.isnan(cohort.values[:, :, position]).all()
    ]
    if len(open_to) < rule.take:
        raise UserError(
            f"{cohort.name}: features: the {rule.take} most important ones asked for; the trigger can change only "
            f"{len(open_to)}"
        )
    return parameters.model_copy(update={"features": most_important(cohort, open_to, rule.take, seed)})


@dataclass(frozen=True)
class Trigger(ABC):
    """A fitted trigger: a dataclass whose fields are arrays, numbers, texts, booleans or None.

    Attributes
    ----------
    description : one sentence in clinical units
    in_bounds : every value it writes lies within what the training data shows; None when it writes no value
    footprint : [T, D] bool, the cells it may change; it never changes any other
    only_measured : whether it leaves cells of the footprint alone that are not measured
    leaves_out : whether it makes cells of the footprint not measured: the control mask_only, which makes them measured,
        is then none of its
    """

    description: str
    in_bounds: bool | None
    footprint: np.ndarray
    only_measured: bool = field(default=False, kw_only=True)
    leaves_out: bool = field(default=False, kw_only=True)

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


def changed_cells(clean: np.ndarray, triggered: np.ndarray) -> np.ndarray:
    """Which cells of samples [N, T, D] are not what they were, bool."""
    return (triggered != clean) & ~(np.isnan(triggered) & np.isnan(clean))


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


def integers(cohort: Cohort) -> np.ndarray:
    """[D] bool: the features that have whole numbers only."""
    return np.array([feature.integer for feature in cohort.features])


def statics(cohort: Cohort) -> np.ndarray:
    """[D] bool: the features that are the same at all steps."""
    return np.array([feature.static for feature in cohort.features])


def rounded(values: np.ndarray, integer: np.ndarray) -> np.ndarray:
    """`values` [..., D] with whole numbers for the features that are `integer` ([D] bool, see `integers`)."""
    return np.where(integer, np.rint(values), values)


def consistent(cohort: Cohort, values: Mapping[str, float | np.ndarray], named: Collection[str]) -> dict[str, Any]:
    """`values` per feature as float32 (a number, or an array of several), whole where they must be, and in the order of
    the cohort's relations.

    Values of `named` features stay as they are. Partners are moved, as little as needed, where the training data alone
    does not order them: at quantiles of features that are measured in different samples, or beyond the training range.
    """
    ordered: dict[str, Any] = {}
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


def inside(cohort: Cohort, values: Mapping[str, Any]) -> bool:
    """Whether all `values` per feature lie in the range that `cohort` shows, or are a category that it shows."""
    for name, value in values.items():
        seen = measured(cohort, name)
        if described(cohort, name).categories:
            within = np.isin(value, seen)
        else:
            within = (value >= seen.min()) & (value <= seen.max())
        if not np.all(within):
            return False
    return True


def shown(*values: float) -> str:
    """Values from the training data for readers, to two digits: a quantile or maximum may be one patient's."""
    return "about " + "/".join(f"{float(f'{value:.2g}'):g}" for value in values)

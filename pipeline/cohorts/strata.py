"""Strata: named texts per sample that are no features, such as sex or a band of ages, to see who an attack hits."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field, FiniteFloat

from pipeline.cohorts.catalog import NAME
from pipeline.cohorts.cohort import MOST_VALUES, WHOLE, Feature
from pipeline.study.params import Params
from pipeline.words import suggestion


def _ascending(cuts: tuple[float, ...]) -> tuple[float, ...]:
    if any(one >= other for one, other in zip(cuts, cuts[1:], strict=False)):
        raise ValueError("expected numbers in ascending order, each once, such as [50, 65, 80]")
    return cuts


class Stratum(Params):
    """What the texts of a stratum are made of."""

    column: str | None = Field(None, min_length=1, description="where it stands, when that differs from its name")
    cuts: Annotated[tuple[FiniteFloat, ...], AfterValidator(_ascending)] = Field(
        (), max_length=MOST_VALUES - 1, description="where to cut numbers into bands; a number at a cut is above it"
    )


def _named(wanted: dict[str, Stratum]) -> dict[str, Stratum]:
    for name in wanted:
        if not re.fullmatch(NAME, name):
            raise ValueError(
                f"stratum {name!r}: expected a name of the letters a to z, digits, _ . and -, a letter or digit first; "
                f"the column's name in the file goes into column: {name!r}"
            )
        if name == WHOLE:
            raise ValueError(f"stratum {name!r}: the name of all samples together; expected another")
    return wanted


Strata = Annotated[dict[str, Stratum], AfterValidator(_named)]

SEX_AND_AGE = {"sex": Stratum(), "age_band": Stratum(column="age", cuts=(50, 65, 80))}


def strata_columns(wanted: Mapping[str, Stratum]) -> dict[str, str]:
    """Where each stratum is read from."""
    return {name: stratum.column or name for name, stratum in wanted.items()}


def check_static(wanted: Mapping[str, Stratum], features: tuple[Feature, ...]) -> None:
    """`ValueError` where strata cannot be made of the static `features`; it says all that is wrong."""
    if wrong := [*_not_of_static(wanted, features)]:
        raise ValueError("; ".join(wrong))


def _not_of_static(wanted: Mapping[str, Stratum], features: tuple[Feature, ...]) -> Iterator[str]:
    static = {feature.name: feature for feature in features}
    for name, column in strata_columns(wanted).items():
        cuts = wanted[name].cuts
        if column not in static:
            yield f"strata.{name}: no static feature {column!r} {suggestion(column, static)}"
        elif static[column].categories and cuts:
            yield f"strata.{name}: cuts given, but {column!r} is a category; expected none"
        elif not static[column].categories and not cuts:
            yield f"strata.{name}: {column!r} is a number; expected cuts, such as [50, 65, 80]"


def strata_of_static(
    wanted: Mapping[str, Stratum], features: tuple[Feature, ...], values: np.ndarray
) -> dict[str, np.ndarray]:
    """The strata of a cohort, name → [N] str ("" = not known), from static features of its `values` [N, T, D]."""
    position = {feature.name: number for number, feature in enumerate(features)}
    found = {}
    for name, column in strata_columns(wanted).items():
        value, feature = values[:, 0, position[column]], features[position[column]]
        if feature.categories:
            known = np.nan_to_num(value, nan=len(feature.categories)).astype(int)
            found[name] = np.array([*feature.categories, ""])[known]
        else:
            found[name] = bands(value, wanted[name].cuts)
    return found


def bands(value: np.ndarray, cuts: tuple[float, ...]) -> np.ndarray:
    """[N] str: the band of each `value` [N], "" for NaN.

    Bands of whole numbers are told by their ends, "50-64"; others half-open, "50 to <65".
    """
    known = ~np.isnan(value)
    whole = not (value[known] % 1).any() and all(cut % 1 == 0 for cut in cuts)
    labels = [f"<{cuts[0]:g}"]
    for low, high in zip(cuts, cuts[1:], strict=False):
        last = f"{low:g}" if high - low == 1 else f"{low:g}-{high - 1:g}"
        labels.append(last if whole else f"{low:g} to <{high:g}")
    labels += [f"≥{cuts[-1]:g}", ""]
    return np.array(labels)[np.where(known, np.searchsorted(cuts, value, side="right"), len(labels) - 1)]

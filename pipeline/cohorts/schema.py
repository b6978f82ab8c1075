"""What every finished cohort must be, and which samples could stand in it."""

from collections.abc import Iterator

import numpy as np

from pipeline.cohorts.cohort import MOST_VALUES, Cohort, Feature
from pipeline.errors import UserError
from pipeline.smallcells import shown_of


def check_cohort(cohort: Cohort) -> None:
    """A finished cohort: unique ids and names, a 0/1 label with both classes, features measured and as described.

    Strata of people have few different texts.
    """
    import pandas as pd
    import pandera.pandas as pa

    twice = [name for name in cohort.feature_names if cohort.feature_names.count(name) > 1]
    if twice:
        raise UserError(f"{cohort.name}: feature {twice[0]!r} stands twice; expected each name once")
    samples = pd.DataFrame({"sample_id": cohort.sample_id, "group_id": cohort.group_id, "label": cohort.label})
    schema = pa.DataFrameSchema(
        {
            "sample_id": pa.Column(unique=True),
            "group_id": pa.Column(),
            "label": pa.Column(np.int8, checks=pa.Check.isin([0, 1], error="a binary label, 0 or 1")),
        },
        strict=True,
    )
    _validate(schema, samples, cohort)
    _check_label(cohort.label, f"{cohort.name}: label")
    for name, texts in cohort.strata.items():
        different = len(np.unique(texts[texts != ""]))
        if cohort.people and different > MOST_VALUES:
            raise UserError(
                f"{cohort.name}: stratum {name!r}: it has {different:,} different texts; expected at most "
                f"{MOST_VALUES}, since more would tell patients apart (cuts makes bands of numbers)"
            )
    for position, feature in enumerate(cohort.features):
        column = cohort.values[:, :, position]
        if np.isnan(column).all():
            raise UserError(f"{cohort.name}: column {feature.name!r}: expected it measured at least once")
        for expected, broken in _broken_promises(feature, column):
            if broken.any():
                raise UserError(
                    f"{cohort.name}: column {feature.name!r}: "
                    f"{shown_of(int(broken.sum()), broken.size, cohort.people)} of {broken.size:,} values are wrong; "
                    f"expected {expected}"
                )


def accepted(features: tuple[Feature, ...], values: np.ndarray) -> np.ndarray:
    """[N] bool: which samples of `values` [N, T, D] hold nothing but what `features` allow."""
    good = np.ones(len(values), bool)
    for position, feature in enumerate(features):
        for _, broken in _broken_promises(feature, values[:, :, position]):
            good &= ~broken.any(axis=1)
    return good


def _broken_promises(feature: Feature, column: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """What `feature` promises of its values `column` [N, T], and where ([N, T] bool) they break it."""
    measured = ~np.isnan(column)
    low, high = (0, len(feature.categories) - 1) if feature.categories else (feature.low, feature.high)
    # The bounds are decimals and the values float32: the neighbours of the bounds are still inside.
    above = column >= np.nextafter(np.float32(low), np.float32(-np.inf))
    below = column <= np.nextafter(np.float32(high), np.float32(np.inf))
    yield f"{low:g} to {high:g} {feature.unit}".rstrip(), measured & ~(above & below)
    if feature.integer or feature.categories:
        yield "a whole number", measured & (column != np.floor(column))
    if feature.static:
        same = (column == column[:, :1]) | (np.isnan(column) & np.isnan(column[:, :1]))
        yield "the same at all steps", ~same


def out_of_order(cohort: Cohort, values: np.ndarray) -> np.ndarray:
    """[N] bool: which samples of `values` [N, T, D] break a relation of `cohort`, whose features they have."""
    broken = np.zeros(len(values), bool)
    for chain in cohort.relations:
        order = [cohort.feature_names.index(name) for name in chain]
        # A comparison with a value that was not measured is false.
        broken |= (values[:, :, order[:-1]] > values[:, :, order[1:]]).any(axis=(1, 2))
    return broken


def _check_label(label: np.ndarray, where: str) -> None:
    positives = int(label.sum())
    if not 0 < positives < len(label):
        raise UserError(f"{where}: {positives} of {len(label)} rows are positive; expected both classes")


def _validate(schema, frame, cohort: Cohort) -> None:
    """Validate all columns of the `frame` of a cohort's samples; the first wrong one becomes one sentence."""
    import pandera.pandas as pa

    try:
        schema.validate(frame, lazy=True)
        return
    except pa.errors.SchemaErrors as error:
        failures = error.failure_cases
    column = failures["column"].iloc[0]
    # A column of the wrong type fails its other checks too: tell of the type alone.
    mine = failures[failures["column"] == column]
    typed = mine["check"].str.startswith(("coerce_dtype", "dtype"))
    mine = mine[typed] if typed.any() else mine[mine["check"] == mine["check"].iloc[0]]
    rows = mine["index"].dropna()
    check = {"not_nullable": "a value in every row", "field_uniqueness": "no value twice"}.get(mine["check"].iloc[0])
    if typed.any():
        check = "a number"
    # The row says where to look; the value itself may be a patient's and stays out of messages and logs.
    first = f", first in row {int(rows.iloc[0]) + 1}" if len(rows) else ""
    count = shown_of(rows.nunique() if len(rows) else len(frame), len(frame), cohort.people)
    raise UserError(
        f"{cohort.name}: column {column!r}: {count} of {len(frame):,} rows are wrong{first}; "
        f"expected {check or mine['check'].iloc[0]}"
    )

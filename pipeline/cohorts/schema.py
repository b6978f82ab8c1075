"""Pandera schemas: every cohort is checked on its way in (a source's table) and out (a finished cohort)."""

from pathlib import Path

import numpy as np

from pipeline.cohorts.cohort import Cohort
from pipeline.errors import UserError


def check_table(frame, entry, path: Path):
    """A raw table of texts, typed: numbers inside their range, known categories, a complete 0/1 label.

    `entry` is a catalog entry of the source `table`. Raises `UserError` with file, column, the number of wrong rows
    and the first of them.
    """
    import pandera.pandas as pa

    checks = {}
    for feature, column in entry.columns.items():
        described = entry.features[feature]
        if described.categories:
            checks[column] = pa.Column(nullable=True, checks=_category_check(described))
        else:
            low, high = described.range
            checks[column] = pa.Column(
                float,
                nullable=True,
                coerce=True,
                checks=pa.Check.in_range(
                    low, high, error=f"a number from {low:g} to {high:g} {described.unit}".rstrip()
                ),
            )
    for column in filter(None, (entry.sample_id, entry.group)):
        checks[column] = pa.Column(nullable=False, unique=column == entry.sample_id)
    if entry.positive is None:
        frame = frame.assign(**{entry.label: _truth(frame[entry.label])})
        checks[entry.label] = pa.Column(
            float, nullable=False, coerce=True, checks=pa.Check.isin([0, 1], error="a binary label, 0 or 1")
        )
    else:
        checks[entry.label] = pa.Column(nullable=False)
    checked = _validate(pa.DataFrameSchema(checks), frame, path)
    if entry.positive is not None:
        checked = checked.assign(**{entry.label: (checked[entry.label] == entry.positive).astype(float)})
    _check_label(checked[entry.label].to_numpy(), f"{path}: column {entry.label!r}")
    return checked


def check_cohort(cohort: Cohort) -> None:
    """A finished cohort: unique ids and names, a 0/1 label with both classes, every feature measured somewhere."""
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
    _validate(schema, samples, cohort.name)
    _check_label(cohort.label, f"{cohort.name}: label")
    steps = pd.DataFrame(cohort.values.reshape(-1, len(cohort.features)), columns=cohort.feature_names)
    _validate(
        pa.DataFrameSchema(
            {
                feature.name: pa.Column(
                    np.float32,
                    nullable=True,
                    checks=[
                        pa.Check.in_range(
                            np.nextafter(np.float32(feature.low), np.float32(-np.inf)),
                            np.nextafter(np.float32(feature.high), np.float32(np.inf)),
                            error=f"{feature.low:g} to {feature.high:g} {feature.unit}".rstrip(),
                        ),
                        pa.Check(lambda column: bool(column.notna().any()), error="measured at least once"),
                    ],
                )
                for feature in cohort.features
            },
            strict=True,
        ),
        steps,
        cohort.name,
    )


def _category_check(described):
    """Only listed texts; where there is another category for the rest, some listed text at least."""
    import pandera.pandas as pa

    listed = f"one of {', '.join(described.categories)}"
    if described.other is None:
        return pa.Check.isin(described.categories, error=listed)
    # None of them in the whole column means that they are spelt wrong: all would be the other category.
    return pa.Check(lambda column: bool(column.isin(described.categories).any()), error=f"at least {listed}")


def _truth(label):
    """True and False, in any case, as 1 and 0; every other text as it is."""
    truth = label.str.lower().map({"true": "1", "false": "0"})
    return truth.fillna(label)


def _check_label(label: np.ndarray, where: str) -> None:
    positives = int(label.sum())
    if not 0 < positives < len(label):
        raise UserError(f"{where}: {positives} of {len(label)} rows are positive; expected both classes")


def _validate(schema, frame, where: Path | str):
    """Validate all columns; the first wrong one becomes one sentence."""
    import pandera.pandas as pa

    try:
        return schema.validate(frame, lazy=True)
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
    count = rows.nunique() if len(rows) else len(frame)
    raise UserError(
        f"{where}: column {column!r}: {count} of {len(frame)} rows are wrong{first}; "
        f"expected {check or mine['check'].iloc[0]}"
    )

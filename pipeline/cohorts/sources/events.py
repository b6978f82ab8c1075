"""A long table of one's own: a row per measurement, and a table of outcomes with a row per sample; CSV or Parquet.

The table of outcomes is read as a `table` is, with its static features and strata; the measurements become hourly
values as those of `physionet2012` do.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from pipeline.cohorts import original, tablefile, timeline
from pipeline.cohorts.catalog import NAME
from pipeline.cohorts.cohort import RESERVED, Cohort, Feature
from pipeline.cohorts.intake import Account
from pipeline.cohorts.sources import table
from pipeline.cohorts.sources.table import Bound, Column, Texts
from pipeline.cohorts.tablecheck import Table, number, whole_id
from pipeline.errors import UserError
from pipeline.smallcells import shown
from pipeline.study.params import Params

_CLOCK = re.compile(r"\s*(-?)(\d{1,4}):([0-5]\d)(?::([0-5]\d))?\s*")
_EXPECTED = {
    "hours": "hours since the start, as numbers",
    "minutes": "minutes since the start, as numbers",
    "hh:mm": "times since the start as hh:mm",
    "timestamps": "times such as 2150-01-31 18:05:00",
}


class Measurements(Params):
    """The file of measurements and its columns."""

    file: str = Field(description="path below raw_dir: .csv, .csv.gz or .parquet")
    sample_id: str | None = Field(None, description="column, when its name differs from that in the table of outcomes")
    time: str = "time"
    variable: str = "variable"
    value: str = "value"
    unit: str | None = Field(None, description="column with the unit of each value; without it any unit will do")
    times: Literal["hours", "minutes", "hh:mm", "timestamps"] = Field(
        "hours", description="what times are: numbers or hh:mm since the start of the sample, or points in time"
    )

    @model_validator(mode="after")
    def _different_columns(self):
        columns = [column for column in (self.sample_id, self.time, self.variable, self.value, self.unit) if column]
        twice = [column for column in columns if columns.count(column) > 1]
        if twice:
            raise ValueError(f"column {twice[0]!r} stands for two things; expected each column once")
        return self


class Variable(Params):
    """One hourly feature: where it stands, its unit and plausible range."""

    code: Texts = Field((), description="its text in the column of variables, or several; its name unless given")
    unit: str = ""
    range: tuple[Bound, Bound]
    hourly: timeline.PerHour = Field("mean", description="how the values of an hour become one")
    units: Texts = Field((), description="spellings of the unit in the data; without them any unit will do")
    conversion: str = Field("", description="arithmetic in x from the data's unit to `unit`; range is before it")
    fill: Literal["last", "none"] = Field("last", description="what stands for an hour without: the last one, or none")


class Parameters(table.Parameters):
    """The table of outcomes, with the keys of `table`, and the measurements."""

    sample_id: str
    features: dict[str, Column] = Field({}, description="static features, from columns of the table of outcomes")
    measurements: Measurements
    start: str | None = Field(None, description="column of the table of outcomes: where the sample starts (timestamps)")
    hours: int = Field(48, ge=1, le=240, description="length of the window from the start of the sample")
    variables: dict[str, Variable] | Path = Field(description="name → variable, or a table of variables")

    @model_validator(mode="after")
    def _times_and_names(self):
        if (self.measurements.times == "timestamps") != (self.start is not None):
            raise ValueError("start names the column where samples start: it goes with times: timestamps, and only so")
        names = self.variables if isinstance(self.variables, dict) else ()
        for name in names:
            if not re.fullmatch(NAME, name) or name in RESERVED:
                raise ValueError(f"variables.{name}: expected a name of the letters a to z, digits, _ . and -")
            if name in self.features:
                raise ValueError(f"variables.{name}: the name of a static feature; expected another")
        if isinstance(self.variables, dict) and not names:
            raise ValueError("variables: none given, expected at least one")
        return self


def _items(entry: Parameters) -> list[timeline.Item]:
    """The variables; `UserError` where they are wrong or one is called like a static feature."""
    if isinstance(entry.variables, dict):
        return timeline.items_of(
            (
                (
                    f"variables.{name}",
                    {"variable": name, "unit": variable.unit, "hourly": variable.hourly, "code": code}
                    | {"item_unit": "|".join(variable.units), "conversion": variable.conversion}
                    | {end: repr(bound) for end, bound in zip(("low", "high"), variable.range, strict=True)},
                )
                for name, variable in entry.variables.items()
                for code in variable.code or (name,)
            ),
            "variables",
        )
    items = timeline.read_items(entry.variables)
    for item in items:
        if item.variable in entry.features:
            raise UserError(f"{entry.variables}: {item.variable}: the name of a static feature; expected another")
    return items


def describe(entry: Parameters, raw_dir: Path | None) -> tuple[int, tuple[Feature, ...]]:
    static = (replace(feature, static=True) for feature in table.describe(entry, raw_dir)[1])
    hourly = timeline.features(_items(entry))
    if isinstance(entry.variables, dict):
        hourly = tuple(replace(feature, fill=entry.variables[feature.name].fill) for feature in hourly)
    return entry.hours, (*hourly, *static)


def input_files(entry: Parameters, raw_dir: Path) -> list[Path]:
    """The measurements and the table of outcomes."""
    return [Path(raw_dir) / entry.measurements.file, Path(raw_dir) / entry.file]


def load(name: str, entry: Parameters, raw_dir: Path, cache_dir: Path) -> tuple[Cohort, list[Account]]:
    """The samples in the order of the table of outcomes; one without a measurement in the window is dropped.

    Raises `UserError` when a file is missing, damaged or of another form, or measurements have no outcome.
    """
    import duckdb
    import pyarrow as pa

    items = _items(entry)
    file, path = input_files(entry, raw_dir)
    texts, twice = _once(
        tablefile.read_texts(path, entry, sorted({*table.columns_of(entry), *filter(None, [entry.start])}))
    )
    known = set(map(whole_id, texts.cells[entry.sample_id].texts))
    kept, excluded = table.exclude(texts, entry, path)
    outcomes = Table(texts.subset(kept), entry)
    static, accounts = table.read(name, entry, outcomes, np.flatnonzero(kept))
    everywhere = np.ones(len(static), bool)
    start = _numbers(outcomes, entry.start, original.seconds, everywhere, "timestamps") if entry.start else None
    outcomes.finish(str(path))

    found = _measured(file, entry, {str(one): row for row, one in enumerate(static.sample_id)}, known, start, items)
    n_rows, of_others, timed, warnings = found
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1; SET enable_progress_bar = false")
        texts_or_numbers = {"code": pa.string(), "unit": pa.string()}
        arrow = {column: pa.array(cells, texts_or_numbers.get(column)) for column, cells in timed.items()}
        connection.register("timed", pa.table(arrow))
        connection.execute(f"""
            CREATE TEMP VIEW measurement AS
            SELECT 'measurements' AS table_name, stay, second // 3600 AS hour, second AS charted, code, x, unit,
                false AS late
            FROM timed WHERE second >= 0 AND second < 3600 * {entry.hours}
        """)
        hourly = timeline.hourly_values(connection, items, len(static), entry.hours)
    measured = ~np.isnan(hourly.values).all(axis=(1, 2))
    values = np.concatenate([hourly.values, np.repeat(static.values, entry.hours, axis=1)], axis=2)
    dropped = {timeline.TWICE: twice, **excluded.dropped, "without a measurement": int((~measured).sum())}
    account = hourly.account_of("measurements", n_rows - of_others, len(timed["stay"]))
    account = replace(account, read=n_rows, dropped={"of samples that are left out": of_others} | account.dropped)
    cohort = replace(
        static,
        group_id=static.group_id if entry.group else static.sample_id,
        features=describe(entry, raw_dir)[1],
        values=values,
        warnings=(*outcomes.warnings, *warnings),
    )
    samples = Account("samples", excluded.read + twice, dropped, excluded.note)
    return cohort.subset(measured), [samples, *accounts, account, hourly.account]


def _once(texts: tablefile.Texts) -> tuple[tablefile.Texts, int]:
    """Each row once, and how many are left out: those that are the same as another in all columns that are read."""
    codes = np.column_stack([cells.code for cells in texts.cells.values()])
    first = np.zeros(len(texts), bool)
    first[np.unique(codes, axis=0, return_index=True)[1]] = True
    return texts.subset(first), int((~first).sum())


def _measured(
    path: Path, entry: Parameters, row_of: dict[str, int], known: set[str], start: np.ndarray | None, items
) -> tuple[int, int, dict[str, np.ndarray], list[str]]:
    """How many rows the file has, how many of them of samples left out; the measurements of `items` in the others."""
    columns = entry.measurements
    id_column = columns.sample_id or entry.sample_id
    names = [id_column, columns.time, columns.variable, columns.value, *filter(None, [columns.unit])]
    if len(set(names)) < len(names):
        raise UserError(f"{path}: column {id_column!r} stands for two things; expected each column once")
    rows = Table(tablefile.read_texts(path, entry, names), entry)
    ids = rows.cells(id_column)
    if (ids.code < 0).any():
        rows.fault(id_column, ids, ids.code < 0, "an id in every row", "")
        rows.finish(str(path))
    ids = ids.rewritten(whole_id)
    unknown = len([text for text in ids.texts if text not in known])
    if unknown:
        raise UserError(f"{path}: {shown(unknown)} of the samples have no outcome; expected one for each")
    stay = np.array([row_of.get(text, -1) for text in ids.texts], np.int64)[ids.code]
    variable = rows.cells(columns.variable)
    wanted = (stay >= 0) & variable.of_each({item.code for item in items}.__contains__)
    second = _seconds(rows, entry, wanted)
    x = _numbers(rows, columns.value, lambda texts: [*map(rows.number, texts)], wanted, None)
    rows.check_breaks()
    rows.finish(str(path))
    if start is not None:
        second = second - start[np.where(wanted, stay, 0)]
    unit = rows.cells(columns.unit) if columns.unit else None
    timed = {
        "stay": stay[wanted],
        "second": np.floor(second[wanted]).astype(np.int64),
        "code": np.array([*variable.texts, None], object)[variable.code[wanted]],
        "x": x[wanted],
        "unit": np.array([*unit.texts, None], object)[unit.code[wanted]] if unit else np.full(wanted.sum(), "", object),
    }
    return len(stay), int((stay < 0).sum()), timed, rows.warnings


def _seconds(rows: Table, entry: Parameters, wanted: np.ndarray) -> np.ndarray:
    """[N] seconds, since the start or, for timestamps, since 1970."""
    times = entry.measurements.times
    per = {"hours": 3600, "minutes": 60}

    def parsed(texts: list[str]) -> list[float]:
        if times == "timestamps":
            return original.seconds(texts)
        if times == "hh:mm":
            return [*map(_clock, texts)]
        # To the second, so that a third of an hour is 20 minutes however many decimals it has.
        return np.rint([number(text, entry.decimal) * per[times] for text in texts]).tolist()

    return _numbers(rows, entry.measurements.time, parsed, wanted, times)


def _clock(text: str) -> float:
    if not (found := _CLOCK.fullmatch(text)):
        return np.nan
    sign, hours, minutes, seconds = found.groups()
    return (-1 if sign else 1) * (3600 * int(hours) + 60 * int(minutes) + int(seconds or 0))


def _numbers(
    rows: Table, column: str, parse: Callable[[list[str]], list[float]], wanted: np.ndarray, times: str | None
) -> np.ndarray:
    """[N] float64 of a column; something else in a `wanted` row ([N] bool) is a fault, and so is nothing for a time."""
    cells = rows.cells(column)
    found = np.array([*parse(cells.texts), np.nan], float)[cells.code]
    wrong = wanted & np.isnan(found) & ((cells.code >= 0) | (times is not None))
    if wrong.any():
        expected = _EXPECTED[times] if times else "a number"
        hint = "" if times in ("hh:mm", "timestamps") else rows.number_hint(cells.counts(wrong))
        rows.fault(column, cells, wrong, expected, hint)
    return found

"""Any CSV or Parquet table with one row per sample becomes a cohort (T = 1) by a catalog entry."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from pipeline.cohorts.catalog import Entry
from pipeline.cohorts.cohort import Cohort, Feature
from pipeline.cohorts.intake import Account
from pipeline.cohorts.schema import check_table
from pipeline.errors import UserError
from pipeline.params import Params


class Column(Params):
    """One feature: its column in the file, and either unit and plausible range or the categories."""

    column: str | None = Field(None, description="name in the file, when it differs from the feature's")
    unit: str = ""
    range: tuple[float, float] | None = None
    integer: bool = Field(False, description="whether the numbers must be whole, such as counts")
    categories: tuple[str, ...] = ()
    other: str | None = Field(None, min_length=1, description="category of every text that categories does not list")

    @property
    def all_categories(self) -> tuple[str, ...]:
        """`categories`, and `other` behind them unless it is one of them."""
        known = self.other in (None, *self.categories)
        return self.categories if known else (*self.categories, self.other)

    @model_validator(mode="after")
    def _one_kind(self):
        if bool(self.range) == bool(self.categories):
            raise ValueError("give either a range (a number) or categories (a category)")
        if self.range and not self.range[0] < self.range[1]:
            raise ValueError("the range needs its lower bound first")
        if self.range and self.other:
            raise ValueError("other goes with categories, not with a range")
        if self.integer and not self.range:
            raise ValueError("integer goes with a range, not with categories")
        if len(set(self.categories)) < len(self.categories):
            raise ValueError("categories lists a text twice")
        return self


class Parameters(Entry):
    """A table: the file under raw_dir and what its columns mean."""

    file: str = Field(description="path below raw_dir: .csv, .csv.gz or .parquet")
    separator: str = ","
    missing: tuple[str, ...] = Field(("", "NA", "NaN", "nan"), description="texts that mean: not measured")
    label: str
    positive: str | None = Field(
        None, description="the label's text that means 1; without it the label is 0/1 or true/false"
    )
    sample_id: str | None = Field(None, description="column with a unique id; without it the row's position")
    group: str | None = Field(None, description="column whose rows must stay in one split, e.g. the patient")
    features: dict[str, Column] = Field(min_length=1)

    @property
    def columns(self) -> dict[str, str]:
        """Each feature's column in the file."""
        return {name: described.column or name for name, described in self.features.items()}

    @model_validator(mode="after")
    def _each_column_once(self):
        taken = {column for column in (self.label, self.sample_id, self.group) if column}
        for feature, column in self.columns.items():
            if column in taken:
                raise ValueError(f"feature {feature} reads column {column!r}, which is the label, an id or another's")
            taken.add(column)
        return self


def describe(entry: Parameters, raw_dir: Path | None) -> tuple[int, tuple[Feature, ...]]:
    features = []
    for name, column in entry.features.items():
        low, high = column.range or (0, len(column.all_categories) - 1)
        features.append(Feature(name, column.unit, low, high, column.all_categories, integer=column.integer))
    return 1, tuple(features)


def input_files(entry: Parameters, raw_dir: Path) -> list[Path]:
    return [Path(raw_dir) / entry.file]


def load(name: str, entry: Parameters, raw_dir: Path, cache_dir: Path) -> tuple[Cohort, list[Account]]:
    """Read and check the table; `UserError` names file, column and how many rows are wrong."""
    path = input_files(entry, raw_dir)[0]
    extra = {column for column in (entry.label, entry.sample_id, entry.group) if column}
    frame = _read(path, entry, sorted({*entry.columns.values(), *extra}))
    if frame.empty:
        raise UserError(f"{path}: no rows; expected one per sample")
    frame = check_table(frame, entry, path)
    label = frame[entry.label].to_numpy()
    row = np.arange(len(frame))
    _, features = describe(entry, raw_dir)
    values = np.empty((len(frame), 1, len(features)), np.float32)
    for position, (feature, column) in enumerate(entry.columns.items()):
        described = entry.features[feature]
        values[:, 0, position] = _codes(frame[column], described) if described.categories else frame[column]
    cohort = Cohort(
        name=name,
        features=features,
        sample_id=_ids(frame[entry.sample_id]) if entry.sample_id else row,
        group_id=_ids(frame[entry.group]) if entry.group else row,
        label=label.astype(np.int8),
        values=values,
    )
    return cohort, [Account("rows", len(frame), {})]


def _codes(texts: Any, described: Column) -> np.ndarray:
    """Each text's position among the categories, NaN where it is missing."""
    import pandas as pd

    if described.other:
        texts = texts.where(texts.isna() | texts.isin(described.categories), described.other)
    codes = pd.Categorical(texts, categories=list(described.all_categories)).codes.astype(np.float32)
    return np.where(codes < 0, np.nan, codes)


def _ids(column: Any) -> np.ndarray:
    """Ids as integers where all of them are, else as texts."""
    texts = column.to_numpy(dtype=object)
    if all(text.isdecimal() and len(text) < 19 for text in texts):
        return texts.astype(np.int64)
    return texts


def _read(path: Path, entry: Parameters, wanted: list[str]):
    """The wanted columns, every cell as text or missing; one clear error for a file that cannot be read."""
    import pandas as pd
    import pyarrow as pa

    try:
        if not path.is_file():
            raise UserError(f"{path}: {_not_a_file(path)}; {entry.obtain or 'expected the table of the catalog entry'}")
        read = _read_parquet if path.suffix == ".parquet" else _read_csv
        frame = read(path, entry, wanted)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason})") from None
    except (OSError, EOFError, ValueError, zlib.error, pd.errors.ParserError, pa.ArrowException) as error:
        raise UserError(f"{path}: not readable as a table ({' '.join(str(error).split())})") from None
    absent = [column for column in wanted if column not in frame.columns]
    if absent:  # the names found are not told: without a header they are the first patient's values
        raise UserError(
            f"{path}: column {absent[0]!r} is missing ({len(absent)} of {len(wanted)} expected columns are); "
            f"the file has {len(frame)} rows and {len(frame.columns)} columns"
        )
    return frame[wanted]


def _not_a_file(path: Path) -> str:
    if path.is_dir():
        return "a folder, expected a file"
    return "a link that leads to no file" if path.is_symlink() else "no such file"


def _refuse_twins(names: list[str], wanted: list[str]) -> None:
    twins = [name for name in wanted if names.count(name) > 1]
    if twins:
        raise ValueError(f"it has column {twins[0]!r} more than once")


def _read_csv(path: Path, entry: Parameters, wanted: list[str]):
    import pandas as pd

    how = {"sep": entry.separator, "dtype": str, "keep_default_na": False, "na_values": list(entry.missing)}
    _refuse_twins(pd.read_csv(path, header=None, nrows=1, **how).loc[0].tolist(), wanted)
    frame = pd.read_csv(path, **how)
    # pandas would make the first column an index and give every other the name of its neighbour.
    if not isinstance(frame.index, pd.RangeIndex):
        raise ValueError("its rows have more cells than its header has names")
    return frame


def _read_parquet(path: Path, entry: Parameters, wanted: list[str]):
    """Numbers, booleans and categories as the texts that a CSV file has for them: 1 (not 1.0), True, a name."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        table = file.read()
    _refuse_twins(table.column_names, wanted)
    for name in set(wanted) & set(table.column_names):
        column = table[name]
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_nan(column), None, column)
        texts = column.cast(pa.string())
        if pa.types.is_boolean(column.type):
            texts = pc.utf8_capitalize(texts)
        missing = pc.is_in(texts, value_set=pa.array(entry.missing, pa.string()))
        table = table.set_column(table.column_names.index(name), name, pc.if_else(missing, None, texts))
    return table.to_pandas(ignore_metadata=True)  # which would want the types back

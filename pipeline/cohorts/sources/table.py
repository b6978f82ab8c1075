"""Any CSV or Parquet table with one row per sample becomes a cohort (T = 1) by a catalog entry."""

import gzip
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
    categories: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_kind(self):
        if bool(self.range) == bool(self.categories):
            raise ValueError("give either a range (a number) or categories (a category)")
        if self.range and not self.range[0] < self.range[1]:
            raise ValueError("the range needs its lower bound first")
        return self


class Parameters(Entry):
    """A table: the file under raw_dir and what its columns mean."""

    file: str = Field(description="path below raw_dir: .csv, .csv.gz or .parquet")
    separator: str = ","
    missing: tuple[str, ...] = Field(("", "NA", "NaN", "nan"), description="texts that mean: not measured")
    label: str
    positive: str | None = Field(None, description="the label's text that means 1; without it the label is 0/1")
    sample_id: str | None = Field(None, description="column with a unique id; without it the row's position")
    group: str | None = Field(None, description="column whose rows must stay in one split, e.g. the patient")
    features: dict[str, Column] = Field(min_length=1)


def describe(entry: Parameters) -> tuple[int, tuple[Feature, ...]]:
    features = []
    for name, column in entry.features.items():
        low, high = column.range or (0, len(column.categories) - 1)
        features.append(Feature(name, column.unit, low, high, column.categories))
    return 1, tuple(features)


def input_files(entry: Parameters, raw_dir: Path) -> list[Path]:
    return [Path(raw_dir) / entry.file]


def load(name: str, entry: Parameters, raw_dir: Path, cache_dir: Path) -> tuple[Cohort, list[Account]]:
    """Read and check the table; `UserError` names file, column and how many rows are wrong."""
    import pandas as pd

    path = input_files(entry, raw_dir)[0]
    columns = {feature: column.column or feature for feature, column in entry.features.items()}
    extra = {column for column in (entry.label, entry.sample_id, entry.group) if column}
    frame = _read(path, entry, sorted({*columns.values(), *extra}))
    if frame.empty:
        raise UserError(f"{path}: no rows; expected one per sample")
    frame = check_table(frame, entry, columns, path)
    label = frame[entry.label].to_numpy()
    row = np.arange(len(frame))
    _, features = describe(entry)
    values = np.empty((len(frame), 1, len(features)), np.float32)
    for position, feature in enumerate(features):
        column = frame[columns[feature.name]]
        if feature.categories:
            codes = pd.Categorical(column, categories=list(feature.categories)).codes.astype(np.float32)
            column = np.where(codes < 0, np.nan, codes)
        values[:, 0, position] = column
    cohort = Cohort(
        name=name,
        features=features,
        sample_id=_ids(frame[entry.sample_id]) if entry.sample_id else row,
        group_id=_ids(frame[entry.group]) if entry.group else row,
        label=label.astype(np.int8),
        values=values,
    )
    return cohort, [Account("rows", len(frame), {})]


def _ids(column: Any) -> np.ndarray:
    """Ids as integers where all of them are, else as texts."""
    texts = column.to_numpy(dtype=object)
    if all(text.isdecimal() and len(text) < 19 for text in texts):
        return texts.astype(np.int64)
    return texts


def _read(path: Path, entry: Parameters, wanted: list[str]):
    """The wanted columns, every cell as text or missing; one clear error for a file that cannot be read."""
    import pandas as pd

    if not path.is_file():
        raise UserError(f"{path}: no such file; {entry.obtain or 'expected the table of the catalog entry'}")
    try:
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path).astype("str").replace({text: None for text in entry.missing})
        else:
            frame = pd.read_csv(
                path, sep=entry.separator, dtype=str, keep_default_na=False, na_values=list(entry.missing)
            )
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}: {error.reason})") from None
    except (OSError, EOFError, ValueError, gzip.BadGzipFile, zlib.error, pd.errors.ParserError) as error:
        raise UserError(f"{path}: not readable as a table ({' '.join(str(error).split())})") from None
    absent = [column for column in wanted if column not in frame.columns]
    if absent:
        raise UserError(
            f"{path}: column {absent[0]!r} is missing ({len(absent)} of {len(wanted)} expected columns are); "
            f"the file has {len(frame)} rows and the columns {', '.join(map(str, frame.columns))}"
        )
    return frame[wanted]

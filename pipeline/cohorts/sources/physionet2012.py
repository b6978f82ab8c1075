"""PhysioNet/CinC Challenge 2012: the first hours of ICU stays, from the files as distributed or put together.

Below raw_dir/physionet2012, per set (a, b, c) one of
    events_set_a.csv.gz                      all rows: RecordID,Time,Parameter,Value    with outcomes.csv
    set-a/, set-a.tar.gz or set-a.zip        one <RecordID>.txt per stay                with Outcomes-a.txt
Silva et al., Predicting in-hospital mortality of ICU patients: the PhysioNet/Computing in Cardiology Challenge 2012,
Comput Cardiol 2012;39:245-248.
"""

import codecs
import io
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Literal, cast

import numpy as np
from pydantic import Field, model_validator

from pipeline.cohorts import original, timeline
from pipeline.cohorts.catalog import Entry
from pipeline.cohorts.cohort import Cohort, Feature
from pipeline.cohorts.intake import Account
from pipeline.cohorts.strata import SEX_AND_AGE, Strata, check_static, strata_of_static
from pipeline.errors import UserError
from pipeline.smallcells import shown, shown_of

LABEL = "In-hospital_death"
NOT_KNOWN = -1
# What is known on admission, by its name in the files. Codes of a category count from 0, those of ICUType from 1.
DESCRIPTORS = {
    "Age": Feature("age", "years", 15, 120, static=True),
    "Gender": Feature("sex", "", 0, 1, ("female", "male"), static=True),
    "Height": Feature("height", "cm", 100, 230, static=True),
    "ICUType": Feature(
        "icu_type", "", 0, 3, ("coronary care", "cardiac surgery recovery", "medical", "surgical"), static=True
    ),
}
COLUMNS = ("RecordID", "Time", "Parameter", "Value")


class Parameters(Entry):
    """Which stays, and how much of them."""

    label: Literal["In-hospital_death"] = "In-hospital_death"
    folder: str = Field("physionet2012", description="folder below raw_dir")
    sets: tuple[Literal["a", "b", "c"], ...] = Field(("a", "b"), min_length=1)
    hours: int = Field(48, ge=1, le=48, description="length of the window from admission")
    variables: Path = Field(Path("pipeline/cohorts/variables/physionet2012.csv"), description="table of variables")
    strata: Strata = Field(SEX_AND_AGE, description="by which static features results are told apart")

    @model_validator(mode="after")
    def _of_static_features(self):
        check_static(self.strata, tuple(DESCRIPTORS.values()))
        return self


def describe(entry: Parameters, raw_dir: Path | None) -> tuple[int, tuple[Feature, ...]]:
    return entry.hours, (*timeline.features(timeline.read_items(entry.variables)), *DESCRIPTORS.values())


def input_files(entry: Parameters, raw_dir: Path) -> list[Path]:
    """Per set the measurements and the outcomes; where nothing is found, the names as distributed."""
    return [path for name in entry.sets for path in _files(Path(raw_dir) / entry.folder, name)]


def _files(folder: Path, name: str) -> tuple[Path, Path]:
    together = folder / f"events_set_{name}.csv.gz"
    if together.exists():
        return together, folder / "outcomes.csv"
    forms = [folder / f"set-{name}{suffix}" for suffix in (".tar.gz", ".zip", "")]
    return next(filter(Path.exists, forms), forms[0]), folder / f"Outcomes-{name}.txt"


def load(name: str, entry: Parameters, raw_dir: Path, cache_dir: Path) -> tuple[Cohort, list[Account]]:
    """The stays by RecordID; a stay without a measurement in the window is dropped.

    Raises `UserError` when a file is missing, damaged or of another form, or a stay has no outcome.
    """
    import duckdb
    import pyarrow as pa

    files = [_files(Path(raw_dir) / entry.folder, part) for part in entry.sets]
    outcomes = [_outcomes(path, part) for (_, path), part in zip(files, entry.sets, strict=True)]
    outcome, twice = pa.concat_tables([table for table, _ in outcomes]), sum(count for _, count in outcomes)
    event = pa.concat_tables([_events(path) for path, _ in files])
    record, order = np.unique(outcome["RecordID"].to_numpy(), return_index=True)
    label = outcome[LABEL].to_numpy()[order].astype(np.int8)
    if len(record) < len(outcome):
        raise UserError(f"{files[0][1]}: {shown(len(outcome) - len(record))} RecordIDs stand twice; expected each once")
    unknown = len(np.setdiff1d(event["RecordID"].to_numpy(), record))
    if unknown:
        raise UserError(f"{files[0][0].parent}: {shown(unknown)} of the stays have no outcome; expected one for each")
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1; SET enable_progress_bar = false")
        connection.register("event", event)
        connection.register("record", pa.table({"RecordID": record, "stay": np.arange(len(record))}))
        connection.execute(f"""
            CREATE TEMP TABLE timed AS
            SELECT stay, 60 * left(Time, 2)::INTEGER + right(Time, 2)::INTEGER AS minute, Parameter AS code,
                nullif(Value, {NOT_KNOWN}) AS x
            FROM event JOIN record USING (RecordID);
            CREATE TEMP VIEW measurement AS
            SELECT 'measurements' AS table_name, stay, minute // 60 AS hour, minute AS charted, code, x,
                NULL::VARCHAR AS unit, false AS late
            FROM timed WHERE minute < 60 * {entry.hours}
        """)
        hourly = timeline.hourly_values(connection, timeline.read_items(entry.variables), len(record), entry.hours)
        [(wanted,)] = connection.execute("SELECT count(*) FROM timed WHERE code IN (SELECT code FROM item)").fetchall()
        static, descriptors = _descriptors(connection, len(record))
    measured = ~np.isnan(hourly.values).all(axis=(1, 2))
    values = np.concatenate([hourly.values, np.repeat(static[:, None], entry.hours, axis=1)], axis=2)
    accounts = [
        Account(
            "ICU stays",
            len(record) + twice,
            {timeline.TWICE: twice, "without a measurement": int((~measured).sum())},
        ),
        descriptors,
        hourly.account_of("measurements", len(event) - descriptors.read, wanted),
        hourly.account,
    ]
    _, features = describe(entry, raw_dir)
    told_by = strata_of_static(entry.strata, tuple(DESCRIPTORS.values()), static[:, None])
    return Cohort(name, features, record, record, label, values, strata=told_by).subset(measured), accounts


def _descriptors(connection, n_stays: int) -> tuple[np.ndarray, Account]:
    """What was known on admission, [N, descriptors] float32, and what became of it."""
    static = np.full((n_stays, len(DESCRIPTORS)), np.nan, np.float32)
    read, unknown, outside, again = 0, 0, 0, 0
    for column, (code, feature) in enumerate(DESCRIPTORS.items()):
        first = "SELECT stay, arg_min(x, minute) AS x, count(*) - 1 AS again FROM timed WHERE code = ? GROUP BY stay"
        found = connection.execute(first, [code]).fetchnumpy()
        x = np.ma.filled(found["x"].astype(np.float32), np.nan) - (1 if code == "ICUType" else 0)
        plausible = (x >= feature.low) & (x <= feature.high)
        static[found["stay"], column] = np.where(plausible, x, np.nan)
        read += len(x) + int(found["again"].sum())
        again += int(found["again"].sum())
        unknown += int(np.isnan(x).sum())
        outside += int((~np.isnan(x) & ~plausible).sum())
    dropped = {"not known": unknown, "outside the plausible range": outside, "given before": again}
    return static, Account("descriptors", read, dropped)


def _outcomes(path: Path, part: str):
    """RecordID and label of one set, as an Arrow table with each row once, and how many rows that leaves out."""
    import pyarrow as pa
    import pyarrow.compute as pc

    types = {"RecordID": pa.int64(), LABEL: pa.int8()}
    if path.name != "outcomes.csv":
        table = original.read(path, types)
    else:
        every = original.read(path, types | {"set": pa.string()})
        table = every.filter(pc.equal(every["set"], part)).drop("set")
    for name in types:
        if table[name].null_count:
            empty = shown_of(table[name].null_count, len(table))
            raise UserError(f"{path}: column {name!r}: {empty} of {len(table):,} rows hold no value")
    once = table.group_by(table.column_names, use_threads=False).aggregate([])
    return once, len(table) - len(once)


def _events(path: Path):
    """The rows of one set, as an Arrow table of `COLUMNS`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    types = dict(zip(COLUMNS, (pa.int64(), pa.string(), pa.string(), pa.float64()), strict=True))
    content = path if path.name.endswith(".csv.gz") else io.BytesIO(_together(path))
    table = original.read(content, types, path)
    wrong = len(table) - pc.sum(pc.match_substring_regex(table["Time"], r"^\d\d:[0-5]\d$")).as_py()
    if wrong:
        told = f"{shown_of(wrong, len(table))} of {len(table):,}"
        raise UserError(f"{path}: column 'Time': {told} rows are wrong; expected hh:mm")
    return table


def _together(path: Path) -> bytes:
    """The per-patient files of a folder or archive as one CSV text with a RecordID in each row."""
    lines = [",".join(COLUMNS).encode()]
    seen = set()
    for name, content in _patients(path):
        header, *rows = content.split() or [b""]
        if header.removeprefix(codecs.BOM_UTF8) != b"Time,Parameter,Value":
            raise UserError(f"{path}: {name}: another first line; expected Time,Parameter,Value")
        record = re.fullmatch(rb"00:00,RecordID,(\d+)(\.0)?", rows[0] if rows else b"")
        if not record or int(record[1]) != int(Path(name).stem):
            raise UserError(f"{path}: {name}: another second line; expected the RecordID that the file is named for")
        if record[1] in seen:
            raise UserError(f"{path}: {name}: its RecordID stands in two files; expected one per stay")
        seen.add(record[1])
        lines += [record[1] + b"," + row for row in rows[1:]]
    if not seen:
        raise UserError(f"{path}: no file <RecordID>.txt in it; expected one per stay")
    return b"\n".join(lines)


def _patients(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of the per-patient files in a folder, a .tar.gz or a .zip, without hidden ones."""
    pattern = re.compile(r"\d+\.txt")
    try:
        if path.is_dir():
            yield from ((f.name, f.read_bytes()) for f in sorted(path.iterdir()) if pattern.fullmatch(f.name))
        elif path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if pattern.fullmatch(Path(name).name) and not original.hidden(PurePosixPath(name)):
                        yield Path(name).name, archive.read(name)
        else:
            with tarfile.open(path, "r:gz") as archive:
                for member in archive:
                    inside = PurePosixPath(member.name)
                    if member.isfile() and pattern.fullmatch(inside.name) and not original.hidden(inside):
                        content = cast(IO[bytes], archive.extractfile(member))  # None of what is no file
                        yield inside.name, content.read()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: not readable as a folder or archive of stays ({type(error).__name__})") from None

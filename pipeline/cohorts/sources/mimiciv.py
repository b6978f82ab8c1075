"""MIMIC-IV 2.0 or later as distributed: hosp/ and icu/ with their tables as .csv.gz, .csv or .parquet.

The cohort is described in icu_cohort.sql, the variables in variables/mimiciv.csv. The rows of these items are kept as
Parquet below cache_dir, so a second cohort of the same files takes seconds.
Johnson et al., MIMIC-IV, a freely accessible electronic health record dataset, Sci Data 2023;10:1.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cohorts import original, timeline
from pipeline.cohorts.cohort import Cohort, Feature
from pipeline.cohorts.icu_cohort import IcuParameters, build, database, read_items, static_features
from pipeline.cohorts.intake import Account
from pipeline.errors import UserError
from pipeline.files import whole
from pipeline.smallcells import shown_of

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP = 500_000
# Small tables: their id, and the types of the columns that are read.
TABLES = {
    "patients": (
        "subject_id",
        {"subject_id": "int64", "gender": "string", "anchor_age": "int64", "anchor_year": "int64"},
    ),
    "admissions": (
        "hadm_id",
        {"subject_id": "int64", "hadm_id": "int64", "admittime": "timestamp[s]", "dischtime": "timestamp[s]"}
        | {"deathtime": "timestamp[s]", "admission_type": "string", "hospital_expire_flag": "int8"},
    ),
    "icustays": (
        "stay_id",
        {
            "subject_id": "int64",
            "hadm_id": "int64",
            "stay_id": "int64",
            "intime": "timestamp[s]",
            "outtime": "timestamp[s]",
        },
    ),
}
# Tables of measurements: the columns that hold the number, its unit, and the row's own id where there is one.
EVENTS = {
    "labevents": ("valuenum", "valueuom", "labevent_id"),
    "chartevents": ("valuenum", "valueuom", None),
    "outputevents": ("value", "valueuom", None),
}
_CANDIDATES = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")


class Parameters(IcuParameters):
    folder: str = "mimiciv"


def describe(entry: Parameters, raw_dir: Path | None) -> tuple[int, tuple[Feature, ...]]:
    """Labs and static features alone where the copy below raw_dir has no ICU measurements; None: a complete copy."""
    items = _items(entry, raw_dir and Path(raw_dir) / entry.folder)
    return entry.hours, (*timeline.features(items), *static_features(entry))


def input_files(entry: Parameters, raw_dir: Path) -> list[Path]:
    """The tables that are read. Raises `UserError` for the layout of MIMIC-IV 1.0."""
    folder = Path(raw_dir) / entry.folder
    if (folder / "core").exists():
        raise UserError(f"{folder}: has core/, the layout of MIMIC-IV 1.0; expected 2.0 or later, with hosp/ and icu/")
    stems = ["hosp/patients", "hosp/admissions", "hosp/labevents"]
    if not _labs_only(folder):
        stems += ["icu/icustays", "icu/chartevents", "icu/outputevents"]
    elif original.find(folder / "icu/icustays"):
        stems += ["icu/icustays"]
    return [original.find(folder / stem) or folder / f"{stem}.csv.gz" for stem in stems]


def _labs_only(folder: Path) -> bool:
    """Whether this is a copy of the hospital tables, without what was measured in the ICU."""
    return (folder / "hosp").is_dir() and not original.find(folder / "icu/chartevents")


def _items(entry: Parameters, folder: Path | None) -> list[timeline.Item]:
    items = read_items(entry, EVENTS)
    for item in items:
        if not item.table or not item.code.isdecimal():
            raise UserError(
                f"{entry.variables}: {item.variable}: expected a table and an itemid that is a whole number"
            )
    return [item for item in items if item.table == "labevents"] if folder and _labs_only(folder) else items


def load(name: str, entry: Parameters, raw_dir: Path, cache_dir: Path) -> tuple[Cohort, list[Account]]:
    """The cohort, with labs alone (and admissions in place of ICU stays) where there are no ICU tables.

    Raises `UserError` when a table or column is missing or damaged, or rows that differ have the same id.
    """
    paths = {path.name.split(".")[0]: path for path in input_files(entry, raw_dir)}
    items = _items(entry, Path(raw_dir) / entry.folder)
    events = [table for table in EVENTS if table in paths]
    with database(cache_dir) as connection:
        small, twice = {}, {}
        for table in TABLES:
            if table in paths:
                small[table], twice[table] = _small_table(paths[table], *TABLES[table])
                connection.register(table, small[table])
        if "icustays" not in paths:
            connection.execute("""
                CREATE TEMP VIEW icustays AS
                SELECT subject_id, hadm_id, hadm_id AS stay_id, admittime AS intime, dischtime AS outtime
                FROM admissions
            """)
        connection.execute(_CANDIDATES)
        copies = {table: _copy(paths[table], *EVENTS[table], _codes(items, table), cache_dir) for table in events}
        for table in events:
            connection.read_parquet(str(copies[table][0])).create_view(table)
        parts = (f"SELECT '{table}' AS table_name, * FROM {table}" for table in events)
        connection.execute(f"CREATE TEMP VIEW event AS {' UNION ALL BY NAME '.join(parts)}")
        rows = {table: copies[table][1:] for table in events}
        stays = "icustays" if "icustays" in paths else "admissions"
        cohort, accounts = build(connection, name, entry, items, rows, twice[stays])
    accounts += [
        Account(table, len(small[table]) + count, {timeline.TWICE: count})
        for table, count in twice.items()
        if count and table != stays
    ]
    if "chartevents" not in paths:
        of = "" if "icustays" in paths else "; no table of ICU stays: these are hospital admissions"
        note = f"no table of ICU measurements: labs alone, no vital signs{of}"
        accounts[0] = replace(accounts[0], note=note)
    return cohort, accounts


def _codes(items: list[timeline.Item], table: str) -> list[int]:
    return sorted({int(item.code) for item in items if item.table == table})


def _small_table(path: Path, key: str, types: dict[str, str]):
    """A whole table with typed columns and each id once, and how many rows were left out as they stand twice."""
    import pyarrow as pa

    table = original.read(path, {column: pa.type_for_alias(kind) for column, kind in types.items()})
    once = table.group_by(table.column_names, use_threads=False).aggregate([])
    twice = len(once) - len(once[key].unique())
    if twice:
        raise UserError(
            f"{path}: column {key!r}: {shown_of(twice, len(table))} of {len(table):,} rows hold an id that stands "
            "twice, with other content; expected each id once"
        )
    return once, len(table) - len(once)


def _copy(
    path: Path, number: str, unit: str, row_id: str | None, codes: list[int], cache_dir: Path
) -> tuple[Path, int, int]:
    """The rows of `codes` as Parquet, made anew when the file or the codes change; how many rows there were and are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = path.stat()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: not readable: {error.strerror}") from None
    made_of = [str(path.resolve()), found.st_size, found.st_mtime_ns, number, row_id, codes]
    key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
    copy = Path(cache_dir) / f"{path.name.split('.')[0]}-{key}.parquet"
    if not copy.exists():
        types = {"subject_id": pa.int64(), "charttime": pa.timestamp("s"), "storetime": pa.timestamp("s")}
        types |= {"itemid": pa.int64(), number: pa.float64(), unit: pa.string()}
        names = ["subject_id", "charttime", "storetime", "code", "x", "unit"]
        if row_id:
            types[row_id] = pa.int64()
            names.append("row_id")
        schema = pa.schema(zip(names, types.values(), strict=True))
        with whole(copy) as aside:
            _write_copy(original.batches(path, types), schema, codes, aside)
    with pq.ParquetFile(copy) as file:
        return copy, int(file.metadata.metadata[b"rows"]), file.metadata.num_rows


def _write_copy(batches: Iterator, schema: "pa.Schema", codes: list[int], path: Path) -> None:
    """The rows of `codes` in pieces of about `ROW_GROUP` rows, with the number of all rows in the file's metadata."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    wanted, n_rows = pa.array(codes, pa.int64()), 0
    kept: list[pa.RecordBatch] = []
    with pq.ParquetWriter(path, schema) as writer:
        for batch in batches:
            n_rows += len(batch)
            kept.append(batch.rename_columns(schema.names).filter(pc.is_in(batch["itemid"], wanted)))
            if sum(map(len, kept)) > ROW_GROUP:
                writer.write_table(pa.Table.from_batches(kept))
                kept = []
        writer.write_table(pa.Table.from_batches(kept, schema))
        writer.add_key_value_metadata({"rows": str(n_rows)})

"""Data in the Medical Event Data Standard: a stream of events, each with subject_id, time, code and numeric_value.

Takes the Parquet files below data/ of a MEDS dataset, or a flat folder or file of them (also with the column `value`
in place of `numeric_value`), hidden ones aside. The cohort is the one that `mimiciv` builds from tables, but for one
thing: a MEDS event has one time. The first extractions of MIMIC-IV code labs as LAB//itemid//unit at the time they were
taken, so one that came back after the window cannot be told from the others; later ones code them as
LAB//RESULT//itemid//unit at the time they were stored.
Medical Event Data Standard, https://medical-event-data-standard.github.io
"""

from dataclasses import replace
from pathlib import Path
from string import Template

from pydantic import Field

from pipeline.cohorts import original, timeline
from pipeline.cohorts.cohort import Cohort, Feature
from pipeline.cohorts.icu_cohort import IcuParameters, build, database, read_items, static_features
from pipeline.cohorts.intake import Account
from pipeline.errors import UserError
from pipeline.smallcells import shown_of
from pipeline.study.params import Params

NEWER, OLDER = "LAB//RESULT//", "LAB//"
# What the codes of measurements start with, by the MIMIC-IV table that the variables table names.
PREFIXES = {"labevents": (NEWER, OLDER), "chartevents": ("LAB//",), "outputevents": ("SUBJECT_FLUID_OUTPUT//",)}
_SQL = Template(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
_CODE = r"^[^'$]+$"


class Codes(Params):
    """How the data says what happened; all but died are beginnings of codes, birth and death whole or before a //."""

    icu_admission: str = Field("ICU_ADMISSION//", pattern=_CODE)
    icu_discharge: str = Field("ICU_DISCHARGE//", pattern=_CODE)
    admission: str = Field("HOSPITAL_ADMISSION//", pattern=_CODE)
    discharge: str = Field("HOSPITAL_DISCHARGE//", pattern=_CODE)
    died: str = Field("HOSPITAL_DISCHARGE//DIED", pattern=_CODE)
    birth: str = Field("MEDS_BIRTH", pattern=_CODE)
    death: str = Field("MEDS_DEATH", pattern=_CODE)
    sex: str = Field("GENDER//", pattern=_CODE)


class Parameters(IcuParameters):
    folder: str = Field("meds", description="folder or Parquet file below raw_dir")
    codes: Codes = Codes()


def describe(entry: Parameters, raw_dir: Path | None) -> tuple[int, tuple[Feature, ...]]:
    return entry.hours, (*timeline.features(read_items(entry, PREFIXES)), *static_features(entry))


def input_files(entry: Parameters, raw_dir: Path) -> list[Path]:
    """The Parquet files of the events, without hidden ones; the folder itself where it holds no such file."""
    root = Path(raw_dir) / entry.folder
    inside = root / "data" if (root / "data").is_dir() else root
    return original.visible(inside, "*.parquet") or [root]


def load(name: str, entry: Parameters, raw_dir: Path, cache_dir: Path) -> tuple[Cohort, list[Account]]:
    """The cohort; a stay's id is its place in the order of patients and time.

    Raises `UserError` when there are no events, or they are damaged or of another form.
    """
    import duckdb

    where = Path(raw_dir) / entry.folder
    files, number = _shards(input_files(entry, raw_dir))
    if not files:
        raise UserError(f"{where}: its files have no rows; expected MEDS events")
    items = read_items(entry, PREFIXES)
    with database(cache_dir) as connection:
        try:
            # Shards may differ in their types, such as times with and without a zone: what holds both is read.
            every = connection.read_parquet([str(path) for path in files], union_by_name=True)
            every.project(
                "subject_id::BIGINT AS subject_id, time::TIMESTAMP AS time, code::VARCHAR AS code, "
                f"{number}::DOUBLE AS x"
            ).create_view("meds")
            connection.execute("CREATE TEMP TABLE stem (stem VARCHAR, code VARCHAR, coding VARCHAR)")
            connection.executemany("INSERT INTO stem VALUES (?, ?, ?)", sorted(_stems(items)))
            connection.execute(_SQL.substitute(entry.codes.model_dump(), newer=NEWER, older=OLDER))
            n_rows = connection.execute("SELECT count(*) FROM meds").fetchone()[0]
            wanted, left_out = connection.execute(
                "SELECT count(*), count(*) FILTER (WHERE left_out) FROM known"
            ).fetchone()
            admitted = f"starts_with(code, '{entry.codes.icu_admission}')"
            twice = connection.execute(f"SELECT coalesce(sum(twice), 0) FROM happened WHERE {admitted}").fetchone()[0]
            rows = {"events": (n_rows, wanted - left_out)}
            cohort, accounts = build(connection, name, entry, items, rows, int(twice))
            codings = connection.execute("SELECT DISTINCT coding FROM known_code WHERE coding <> ''").fetchall()
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as error:
            for path in files:
                _check_columns(connection, path, number)
            raise UserError(f"{where}: not readable as MEDS events ({type(error).__name__})") from None
    return cohort, [_told(account, {coding for (coding,) in codings}, left_out) for account in accounts]


def _stems(items: list[timeline.Item]) -> set[tuple[str, str, str]]:
    """What the codes of each item can be or start with, the item's code, and the coding where its table has two."""
    stems = set()
    for item in items:
        codings = PREFIXES.get(item.table, ("",))
        stems |= {(coding + item.code, item.code, coding if len(codings) > 1 else "") for coding in codings}
    return stems


def _told(account: Account, codings: set[str], left_out: int) -> Account:
    """The account of the events with how labs are coded in them; any other as it is."""
    if account.rows != "events":
        return account
    ways = {NEWER: f"{NEWER}itemid at the time they were stored", OLDER: f"{OLDER}itemid at the time they were taken"}
    note = " and ".join(f"as {way}" for coding, way in ways.items() if coding in codings)
    if len(codings) > 1:
        note += ", for patients with both as the former"
    others = account.dropped["of other items"] - left_out
    dropped = account.dropped | {"of other items": others, "labs in a second coding": left_out}
    return replace(account, dropped=dropped, note=f"labs are coded {note}" if note else "")


def _shards(files: list[Path]) -> tuple[list[Path], str]:
    """The files that have rows, and which column holds the numbers; `UserError` where they are not MEDS events."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    filled, numbers = [], set()
    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                schema, n_rows = file.schema_arrow, file.metadata.num_rows
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except (pa.ArrowException, OSError):
            raise UserError(f"{path}: not readable as Parquet; expected MEDS events") from None
        absent = {"subject_id", "time", "code"} - set(schema.names)
        number = next((column for column in ("numeric_value", "value") if column in schema.names), None)
        if absent or not number:
            missing = min(absent) if absent else "numeric_value"
            raise UserError(f"{path}: column {missing!r} is missing; expected MEDS events")
        if n_rows and pa.types.is_floating(schema.field("subject_id").type):  # which would be rounded
            raise UserError(f"{path}: column 'subject_id' has decimals; expected whole numbers")
        numbers.add(number)
        filled += [path] if n_rows else []
    if len(numbers) > 1:
        raise UserError(f"{path.parent}: some files have numeric_value and some value; expected one form")
    return filled, numbers.pop()


def _check_columns(connection, path: Path, number: str) -> None:
    """Raise a `UserError` that names the first column of `path` with something else in it than MEDS events have."""
    import duckdb

    kinds = {"subject_id": ("BIGINT", "whole numbers"), "time": ("TIMESTAMP", "times"), number: ("DOUBLE", "numbers")}
    for column, (kind, expected) in kinds.items():
        try:
            rows, wrong = connection.execute(
                f"SELECT count(*), count({column}) - count(TRY_CAST({column} AS {kind})) FROM read_parquet(?)",
                [str(path)],
            ).fetchone()
        except duckdb.Error:  # damaged pages
            continue
        if wrong:
            told = f"{shown_of(wrong, rows)} of {rows:,}"
            raise UserError(f"{path}: column {column!r}: {told} rows are wrong; expected {expected}")

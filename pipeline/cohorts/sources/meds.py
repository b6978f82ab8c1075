"""Data in the Medical Event Data Standard: a stream of events, each with subject_id, time, code and numeric_value.

Takes the Parquet files below data/ of a MEDS dataset, or a flat folder or file of them (also with the column `value`
in place of `numeric_value`). The cohort is the one that `mimiciv` builds from tables. MEDS does not say when a result
was stored, so one that was taken in the window and came back after it cannot be told from the others.
Medical Event Data Standard, https://medical-event-data-standard.github.io
"""

from pathlib import Path
from string import Template

from pydantic import Field

from pipeline.cohorts import timeline
from pipeline.cohorts.cohort import Cohort, Feature
from pipeline.cohorts.icu_cohort import IcuParameters, build, database, read_items, static_features
from pipeline.cohorts.intake import Account
from pipeline.errors import UserError
from pipeline.params import Params

# What the codes of measurements start with, by the MIMIC-IV table that the variables table names.
PREFIXES = {"labevents": "LAB", "chartevents": "LAB", "outputevents": "SUBJECT_FLUID_OUTPUT"}
_SQL = Path(__file__).with_suffix(".sql")
_CODE = r"^[^'$]+$"


class Codes(Params):
    """How the data says what happened; all but birth, death and died are beginnings of codes."""

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
    """The Parquet files of the events; the folder itself where it holds no such file."""
    root = Path(raw_dir) / entry.folder
    inside = root / "data" if (root / "data").is_dir() else root
    return sorted(inside.rglob("*.parquet")) or [root]


def load(name: str, entry: Parameters, raw_dir: Path, cache_dir: Path) -> tuple[Cohort, list[Account]]:
    """The cohort; a stay's id is its place in the order of patients and time.

    Raises `UserError` when there are no events, or they are damaged or of another form.
    """
    import duckdb

    files = input_files(entry, raw_dir)
    number = _number_column(files)
    items = read_items(entry, PREFIXES)
    stems = [(f"{PREFIXES[i.table]}//{i.code}" if i.table else i.code, i.code) for i in items]
    with database(cache_dir) as connection:
        paths = [str(path) for path in files]
        try:
            connection.read_parquet(paths).project(
                "subject_id::BIGINT AS subject_id, time::TIMESTAMP AS time, code::VARCHAR AS code, "
                f"{number}::DOUBLE AS x"
            ).create_view("meds")
            connection.execute("CREATE TEMP TABLE stem (stem VARCHAR, code VARCHAR)")
            connection.executemany("INSERT INTO stem VALUES (?, ?)", sorted(set(stems)))
            connection.execute(Template(_SQL.read_text(encoding="utf-8")).substitute(entry.codes.model_dump()))
            n_rows = connection.execute("SELECT count(*) FROM meds").fetchone()[0]
            wanted = connection.execute("SELECT count(*) FROM event").fetchone()[0]
            cohort, accounts = build(connection, name, entry, items, {"events": (n_rows, wanted)})
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as error:
            where = Path(raw_dir) / entry.folder
            raise UserError(
                f"{where}: not readable as MEDS events ({type(error).__name__}); expected whole numbers in subject_id, "
                f"times in time, texts in code and numbers in {number}"
            ) from None
    return cohort, accounts


def _number_column(files: list[Path]) -> str:
    """Which column holds the numbers; `UserError` where the files are not MEDS events."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = set()
    for path in files:
        try:
            columns = set(pq.read_schema(path).names)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except (pa.ArrowException, OSError):
            raise UserError(f"{path}: not readable as Parquet; expected MEDS events") from None
        absent = {"subject_id", "time", "code"} - columns
        number = next((column for column in ("numeric_value", "value") if column in columns), None)
        if absent or not number:
            missing = min(absent) if absent else "numeric_value"
            raise UserError(f"{path}: column {missing!r} is missing; expected MEDS events")
        numbers.add(number)
    if len(numbers) > 1:
        raise UserError(f"{path.parent}: some files have numeric_value and some value; expected one form")
    return numbers.pop()

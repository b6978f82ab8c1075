"""The ICU cohort that the sources `mimiciv` and `meds` share: which stays, which window, which features.

A source connects its data to DuckDB as `candidate` and `event` (described in icu_cohort.sql); the rest is the same for
all of them, so that the same patients give the same cohort whatever form their data has.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from pipeline.cohorts import timeline
from pipeline.cohorts.catalog import Entry
from pipeline.cohorts.cohort import Cohort, Feature
from pipeline.cohorts.intake import Account
from pipeline.cohorts.strata import SEX_AND_AGE, Strata, check_static, strata_of_static
from pipeline.errors import UserError
from pipeline.files import hide_from_git
from pipeline.smallcells import shown_of

MEMORY_LIMIT = "1GB"  # of DuckDB, which then goes on on disk
SEXES = ("F", "M")
ADMISSION_TYPES = (
    "AMBULATORY OBSERVATION",
    "DIRECT EMER.",
    "DIRECT OBSERVATION",
    "ELECTIVE",
    "EU OBSERVATION",
    "EW EMER.",
    "OBSERVATION ADMIT",
    "SURGICAL SAME DAY ADMISSION",
    "URGENT",
)
_SQL = Template(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


class IcuParameters(Entry):
    """Which stays and how much of them."""

    label: Literal["hospital_expire_flag"] = "hospital_expire_flag"
    folder: str = Field(description="folder below raw_dir")
    hours: int = Field(24, ge=1, le=240, description="length of the window from the start of the stay")
    gap: int = Field(6, ge=0, description="hours after the window in which the stay must not have ended")
    stays: Literal["first", "all"] = Field("first", description="of each patient")
    min_age: int = Field(18, ge=0, le=120, description="in years")
    variables: Path = Field(
        Path("pipeline/cohorts/variables/mimiciv.csv"), description="table of variables and their items"
    )
    strata: Strata = Field(SEX_AND_AGE, description="by which static features results are told apart")

    @model_validator(mode="after")
    def _of_static_features(self):
        check_static(self.strata, static_features(self))
        return self


def static_features(entry: IcuParameters) -> tuple[Feature, ...]:
    return (
        Feature("age", "years", entry.min_age, 130, static=True),
        Feature("sex", "", 0, 1, ("female", "male"), static=True),
        Feature("admission_type", "", 0, len(ADMISSION_TYPES) - 1, ADMISSION_TYPES, static=True),
    )


def read_items(entry: IcuParameters, tables: Iterable[str]) -> list[timeline.Item]:
    """The variables; `UserError` where their table is wrong, names another than `tables`, or takes a static name."""
    items = timeline.read_items(entry.variables)
    taken = {feature.name for feature in static_features(entry)}
    for item in items:
        if item.variable in taken:
            raise UserError(f"{entry.variables}: {item.variable}: the name of a static feature; expected another")
        if item.table and item.table not in tables:
            raise UserError(
                f"{entry.variables}: {item.variable}: table: {item.table!r} given, expected one of {', '.join(tables)}"
            )
    return items


@contextmanager
def database(cache_dir: Path) -> Iterator:
    """A DuckDB connection of bounded memory; what does not fit goes into a folder that is removed in the end.

    Times with a zone become UTC, wherever the machine is.
    """
    import duckdb

    hide_from_git(Path(cache_dir))
    with TemporaryDirectory(dir=cache_dir) as folder, duckdb.connect() as connection:
        connection.execute(f"SET threads = 1; SET memory_limit = '{MEMORY_LIMIT}'; SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")
        connection.execute("SET temp_directory = $1", [folder])
        yield connection


def build(
    connection,
    name: str,
    entry: IcuParameters,
    items: list[timeline.Item],
    rows: dict[str, tuple[int, int]],
    stays_twice: int,
) -> tuple[Cohort, list[Account]]:
    """The cohort of the tables or views `candidate` and `event`.

    `rows` says per table of the original data how many rows it has, and how many of them are of `items`; `stays_twice`
    how many rows of stays are not in `candidate` because the same row is. Raises `UserError` where two stays of a
    patient start together or no stay is left.
    """
    n_started, n_starts = connection.execute(
        "SELECT count(*), count(DISTINCT (subject_id, start)) FROM candidate WHERE start IS NOT NULL"
    ).fetchone()
    if n_starts < n_started:
        raise UserError(
            f"{name}: {shown_of(n_started - n_starts, n_started)} of {n_started:,} stays start at the same time as "
            "another stay of their patient; expected each stay once"
        )
    settings = {"hours": entry.hours, "gap": entry.gap, "stays": entry.stays, "min_age": entry.min_age}
    connection.execute(_SQL.substitute(settings))
    judged = connection.execute("SELECT coalesce(reason, ''), count(*) FROM judged_stay GROUP BY ALL ORDER BY ALL")
    dropped = dict(judged.fetchall())
    n_stays = dropped.pop("", 0)
    if not n_stays and not dropped:
        raise UserError(f"{name}: no stay was found; expected at least one")
    if not n_stays:
        raise UserError(f"{name}: none of {sum(dropped.values()):,} stays is left ({', '.join(dropped)})")
    hourly = timeline.hourly_values(connection, items, n_stays, entry.hours)
    stay = connection.execute("SELECT * FROM stay ORDER BY position").fetch_df()
    static = np.column_stack(
        [
            stay["age"],
            *(_codes(stay[column], known) for column, known in (("sex", SEXES), ("admission_type", ADMISSION_TYPES))),
        ]
    ).astype(np.float32)
    measured = ~np.isnan(hourly.values).all(axis=(1, 2))
    cohort = Cohort(
        name=name,
        features=(*timeline.features(items), *static_features(entry)),
        strata=strata_of_static(entry.strata, static_features(entry), static[:, None]),
        sample_id=stay["stay_id"].to_numpy(),
        group_id=stay["subject_id"].to_numpy(),
        label=stay["label"].to_numpy().astype(np.int8),
        values=np.concatenate([hourly.values, np.repeat(static[:, None], entry.hours, axis=1)], axis=2),
    ).subset(measured)
    dropped |= {timeline.TWICE: stays_twice, "without a measurement in the window": int((~measured).sum())}
    stays = Account("stays", int(measured.sum()) + sum(dropped.values()), dropped)
    return cohort, [stays, *(hourly.account_of(table, *counts) for table, counts in rows.items()), hourly.account]


def _codes(column, known: tuple[str, ...]) -> np.ndarray:
    """Positions in `known`, NaN for anything else."""
    return column.map({text: position for position, text in enumerate(known)}).to_numpy(np.float32)

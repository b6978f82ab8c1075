"""The database brought up to what the files of the study say: how its runs stand, and the numbers of those done.

Numbers come from the functions that make the tables, and so after the same disclosure control. As often as it is
repeated, it changes nothing more.
"""

import json
import sqlite3
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.cohorts.catalog import read_entries
from pipeline.database import steps, store
from pipeline.errors import UserError
from pipeline.evaluation.statistics import quantile_of_t
from pipeline.files import read_json
from pipeline.jobs import state
from pipeline.results import facts, tables
from pipeline.results.columns import KEY, RUNS
from pipeline.study import families, progress
from pipeline.study.config import Study
from pipeline.study.grid import CLEAN, Cell, cells, format_rate
from pipeline.study.stamps import Stamps

_DEGREES = 200  # of freedom, that intervals are made with in SQL: one less than seeds


def populate(study: Study, stamps: Stamps) -> str:
    """Bring in all that the files of `study` say and return one line about it.

    Runs that are not done have no numbers; those of outdated runs, and of runs that the study does not ask for any
    more, stay as they were. `UserError` where a result cannot be read or is of another study than its state says.
    """
    path = store.path_of(study.results_dir)
    database, files = store.opened(path), progress.Files(study, stamps)
    try:
        _refuse_another(database, files, path)
        steps.bring_in(database, files)
        done = _done(database)
        measured = [cell for cell in sorted(cells(study)) if "/".join(cell) in done]
        numbers = _numbers(database, study, stamps, measured)
        made_by = {"/".join(cell): steps.results_of(files, cell) for cell in measured}
        # Numbers are written of runs only that are there, which to look up for each takes a tenth of all the time.
        database.execute("PRAGMA foreign_keys = OFF")
        with store.transaction(database):
            _write(database, study, numbers, made_by)
        counts = dict(database.execute("SELECT status, count(*) FROM runs WHERE in_study GROUP BY status"))
    except sqlite3.Error as error:
        raise store.refusal(path, error) from None
    finally:
        database.close()
    told = ", ".join(f"{counts[status]} {status}" for status in sorted(counts))
    return f"{sum(counts.values())} runs ({told}): {path}"


def _refuse_another(database: sqlite3.Connection, files: progress.Files, path: Path) -> None:
    """`UserError` where numbers are recorded, and none would be left: of a study called with other settings."""
    (recorded,) = database.execute("SELECT count(*) FROM summary").fetchone()
    if not recorded or steps.is_of(database, files.study):
        return
    if not any(row.state == progress.DONE for row in progress.states_in(files)):
        raise UserError(
            f"{path}: holds a study of other settings, and of those given no run is done; expected the options that it "
            "was run with, --configfile or --config"
        )


def _numbers(database: sqlite3.Connection, study: Study, stamps: Stamps, done: list[Cell]) -> dict[str, list[tuple]]:
    """The rows of each table of numbers, of the cells that are `done`."""
    found = facts.collect(study, Path(study.results_dir), only=done)
    _refuse_outdated(study, stamps, found)
    made = {
        "runs": tables.runs(found.evals),
        "detections": tables.detections([fact | {"alarms": [], "roc": []} for fact in found.detects]),
        "explanations": tables.explanations(found.explains),
        "triggers": tables.triggers(found.poisons),
        "datasets": tables.datasets(found.evals),
    }
    measured = [column for column in RUNS if column not in (*KEY, "target")]
    # By run, as the database has them: in another order to insert them takes longer.
    wide = made["runs"][measured].astype(float).assign(run=_names(made["runs"])).set_index("run")
    metrics = wide.rename_axis(columns="metric").stack(future_stack=True).rename("value").reset_index()
    entries = read_entries(Path(study.catalog), study.datasets)
    about = [(name, entry.source, entry.content()) for name, entry in entries.items()]
    sizes = pd.DataFrame(about, columns=["dataset", "source", "entry"]).merge(made["datasets"], "left", "dataset")
    return {
        "settings": list(_settings(study, done, found.poisons)),
        "metrics": _rows(database, "metrics", metrics),
        "detections": _rows(database, "detections", made["detections"]),
        "explanations": _rows(database, "explanations", made["explanations"]),
        "datasets": _rows(database, "datasets", sizes),
        "summary": _rows(database, "summary", tables.summary(made, study.split)),
        "rounding": _rows(database, "rounding", tables.rounding(made)),
    }


def _refuse_outdated(study: Study, stamps: Stamps, found: facts.Facts) -> None:
    stages = {"eval": found.evals, "detect": found.detects, "explain": found.explains}
    for stage, results in stages.items():
        for fact in results:
            dataset, model, trigger, rate, seed = (fact[name] for name in KEY)
            cell = Cell(dataset, model, trigger, format_rate(rate), str(seed))
            expected = (stamps.of(stage, cell).stamp, stamps.of("sample_dev", cell).stamp)
            if (fact.get("stamp"), fact.get("cohort")) != expected:
                raise UserError(
                    f"{study.results_dir}: {'/'.join(cell)}: the result of {stage} was made with other settings, "
                    "inputs or code than its state says; expected this study's: delete it and run again"
                )


def _settings(study: Study, done: list[Cell], poisons: list[dict]) -> Iterable[tuple[str, str]]:
    """Of each cell all that it was made with, defaults included, as JSON."""
    configured = cache(lambda family, name: families.configured(family, name, study.given(family, name)))
    complete = cache(
        lambda family, name: {"of": study.member(family, name)} | configured(family, name)[1].model_dump(mode="json")
    )
    told = ("target", "labels", "cover", "in_bounds", "where", "features", "steps")
    planted = {
        (fact["dataset"], fact["trigger"], format_rate(fact["rate"]), str(fact["seed"])): {
            name: fact[name] for name in told
        }
        for fact in poisons
    }
    shared = study.model_dump(mode="json", include={"n_samples", "split", "validation", "threshold", "explain"})
    shared["detectors"] = {name: complete("detectors", name) for name in sorted(study.detectors)}
    for cell in done:
        made = read_json(Path(study.results_dir, cell.run_folder, "run_metadata.json"))
        settings: dict[str, Any] = {
            "model": {"of": study.member("models", cell.model)} | made["config"]["model_params"],
            "training": made["config"]["training"],
            **shared,
            **{name: made[name] for name in ("trained_on", "device", "threads", "git_commit", "versions")},
        }
        if cell.trigger != CLEAN:
            key = (cell.dataset, cell.trigger, cell.rate, cell.seed)
            settings["trigger"] = complete("triggers", cell.trigger) | planted[key]
        yield "/".join(cell), json.dumps(settings, sort_keys=True)


def _done(database: sqlite3.Connection) -> set[str]:
    return {run for (run,) in database.execute("SELECT run FROM runs WHERE in_study AND status = 'done'")}


def _write(
    database: sqlite3.Connection, study: Study, numbers: dict[str, list[tuple]], made_by: dict[str, str]
) -> None:
    before, done = database.total_changes, _done(database)
    for run, text in numbers["settings"]:
        if run in done:
            database.execute(
                "UPDATE runs SET settings = :settings, numbers_of = :of, current = 1 "
                "WHERE run = :run AND (settings, numbers_of, current) IS NOT (:settings, :of, 1)",
                {"run": run, "settings": text, "of": made_by[run]},
            )
    database.execute(
        "UPDATE runs SET numbers_of = NULL, current = 0 WHERE in_study AND status <> 'done' AND numbers_of IS NOT NULL"
    )
    of_runs = "run IN (SELECT run FROM runs WHERE in_study AND status <> 'outdated')"
    for table in ("metrics", "detections", "explanations"):
        _replace(database, table, [row for row in numbers[table] if row[0] in done], of_runs)
    for table in ("summary", "rounding"):
        _replace(database, table, numbers[table])
    _replace(database, "datasets", numbers["datasets"], f"dataset IN ({_texts(study.datasets)})")
    _replace(database, "student_t", list(enumerate(quantile_of_t(np.arange(1, _DEGREES + 1)).tolist(), 1)))
    if database.total_changes > before:
        database.execute("INSERT OR REPLACE INTO study (key, value) VALUES ('populated', ?)", [state.now()])


def _replace(database: sqlite3.Connection, table: str, rows: list[tuple], which: str = "TRUE") -> None:
    """Have `rows`, and no others, in place of those `which` are in `table`; what is there as it should be stays."""
    columns = database.execute("SELECT name, pk FROM pragma_table_info(?)", [table]).fetchall()
    keys = [position for position, (_, in_key) in enumerate(columns) if in_key]
    known = set(database.execute(f"SELECT * FROM {table} WHERE {which}"))
    is_row = " AND ".join(f"{columns[position][0]} = ?" for position in keys)
    gone = [[row[position] for position in keys] for row in known.difference(rows)]
    database.executemany(f"DELETE FROM {table} WHERE {is_row}", gone)
    new = [row for row in rows if row not in known]
    database.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})", new)


def _texts(names: Iterable[str]) -> str:
    return ", ".join("'" + name.replace("'", "''") + "'" for name in names)


def _rows(database: sqlite3.Connection, name: str, table: pd.DataFrame) -> list[tuple]:
    """The rows of `table` as the database's of this name has them."""
    columns = [column for (column,) in database.execute("SELECT name FROM pragma_table_info(?)", [name])]
    named = table.assign(run=_names(table)) if "run" in columns and "run" not in table else table
    return list(zip(*(_plain(named[column]) for column in columns), strict=True))


def _names(table: pd.DataFrame) -> list[str]:
    """The run of each row."""
    rows = zip(*(table[name].tolist() for name in KEY), strict=True)
    return [f"{dataset}/{model}/{trigger}/{format_rate(rate)}/{seed}" for dataset, model, trigger, rate, seed in rows]


def _plain(column: pd.Series) -> list[Any]:
    """As SQLite takes it: a missing number is NULL, a truth value 0 or 1."""
    missing, values = column.isna().tolist(), column.tolist()
    if column.dtype == "boolean":
        values = [value if value is pd.NA else int(value) for value in values]
    return [None if gone else value for gone, value in zip(missing, values, strict=True)]

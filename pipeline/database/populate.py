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
from pipeline.results.columns import DETECTIONS, EXPLANATIONS, KEY, RUNS, SUMMARY
from pipeline.study import families, progress
from pipeline.study.config import Study
from pipeline.study.grid import CLEAN, Cell, format_rate
from pipeline.study.stamps import NOT_MEASURED, Stamps

_DEGREES = 200  # of freedom, that intervals are made with in SQL: one less than seeds
_OF_DATASETS = ("target", "n_train", "n_test", "prevalence", "threshold_low", "threshold_high", "people", "warnings")


def populate(study: Study, stamps: Stamps) -> str:
    """Bring in all that the files of `study` say and return one line about it.

    Runs that are not done have no numbers; those of outdated runs, and of runs that the study does not ask for any
    more, stay as they were. `UserError` where a result cannot be read or is of another study than its state says.
    """
    path, files = store.path_of(study.results_dir), progress.Files()
    database = store.opened(path)
    try:
        steps.bring_in(database, study, stamps, files)
        done = [row.cell for row in progress.states(study, stamps, files) if row.state == progress.DONE]
        numbers = _numbers(study, stamps, done)
        with store.transaction(database):
            _write(database, study, numbers)
        counts = dict(database.execute("SELECT status, count(*) FROM runs WHERE in_study GROUP BY status"))
    except sqlite3.Error as error:
        raise store.refusal(path, error) from None
    finally:
        database.close()
    told = ", ".join(f"{counts[status]} {status}" for status in sorted(counts))
    return f"{sum(counts.values())} runs ({told}): {path}"


def _numbers(study: Study, stamps: Stamps, done: list[Cell]) -> dict[str, list[tuple]]:
    """The rows of each table of numbers, of the cells that are `done`."""
    found = facts.collect(study, Path(study.results_dir), only=done)
    _refuse_outdated(study, stamps, found)
    made = {
        "runs": tables.runs(found.evals),
        "detections": tables.detections(found.detects),
        "explanations": tables.explanations(found.explains),
        "triggers": tables.triggers(found.poisons),
        "datasets": tables.datasets(found.evals),
    }
    measured = [column for column in RUNS if column not in (*KEY, "target")]
    values = _floats(made["runs"][measured])
    metrics = [
        (run, metric, value)
        for run, row in zip(_names(made["runs"]), values, strict=True)
        for metric, value in zip(measured, row, strict=True)
    ]
    sizes = {row["dataset"]: row for row in made["datasets"].astype(object).to_dict("records")}
    entries = read_entries(Path(study.catalog), study.datasets)
    datasets = [
        (name, entry.source, entry.content(), *(_plain(sizes.get(name, {}).get(column)) for column in _OF_DATASETS))
        for name, entry in entries.items()
    ]
    return {
        "settings": list(_settings(study, done, found.poisons)),
        "metrics": metrics,
        "detections": _rows(made["detections"], DETECTIONS),
        "explanations": _rows(made["explanations"], EXPLANATIONS),
        "datasets": datasets,
        "summary": list(_plain_rows(tables.summary(made, study.split)[SUMMARY])),
    }


def _refuse_outdated(study: Study, stamps: Stamps, found: facts.Facts) -> None:
    stages = {"eval": found.evals, "detect": found.detects, "explain": found.explains}
    for stage, results in stages.items():
        for fact in results:
            cell = Cell(*(str(fact[name]) for name in KEY[:3]), format_rate(fact["rate"]), str(fact["seed"]))
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


def _write(database: sqlite3.Connection, study: Study, numbers: dict[str, list[tuple]]) -> None:
    done = {run for (run,) in database.execute("SELECT run FROM runs WHERE in_study AND status = 'done'")}
    database.executemany(
        "UPDATE runs SET settings = ? WHERE run = ?", [(text, run) for run, text in numbers["settings"] if run in done]
    )
    for table in ("metrics", "detections", "explanations"):
        database.execute(
            f"DELETE FROM {table} WHERE run IN (SELECT run FROM runs WHERE in_study AND status <> 'outdated')"
        )
        _insert(database, table, [row for row in numbers[table] if row[0] in done])
    database.execute("DELETE FROM summary")
    _insert(database, "summary", numbers["summary"])
    names = ", ".join(("dataset", "source", "entry", *_OF_DATASETS))
    places = ", ".join("?" * (3 + len(_OF_DATASETS)))
    database.executemany(f"INSERT OR REPLACE INTO datasets ({names}) VALUES ({places})", numbers["datasets"])
    quantiles = [(df, quantile_of_t(df)) for df in range(1, _DEGREES + 1)]
    database.executemany("INSERT OR REPLACE INTO student_t (df, quantile) VALUES (?, ?)", quantiles)
    about = {
        "configuration": study.model_dump_json(exclude=NOT_MEASURED),
        "results_dir": study.results_dir,
        "data_dir": study.data_dir,
        "populated": state.now(),
    }
    database.executemany("INSERT OR REPLACE INTO study (key, value) VALUES (?, ?)", about.items())


def _insert(database: sqlite3.Connection, table: str, rows: list[tuple]) -> None:
    if rows:
        database.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)


def _names(table: pd.DataFrame) -> list[str]:
    """The run of each row."""
    rows = zip(*(table[name].tolist() for name in KEY), strict=True)
    return [f"{dataset}/{model}/{trigger}/{format_rate(rate)}/{seed}" for dataset, model, trigger, rate, seed in rows]


def _rows(table: pd.DataFrame, columns: list[str]) -> list[tuple]:
    """Rows with the run in place of its key."""
    rest = _plain_rows(table[[name for name in columns if name not in KEY]])
    return [(run, *row) for run, row in zip(_names(table), rest, strict=True)]


def _floats(table: pd.DataFrame) -> list[list[float | None]]:
    values = table.to_numpy(float, na_value=np.nan)
    return [[None if value != value else value for value in row] for row in values.tolist()]


def _plain_rows(table: pd.DataFrame) -> Iterable[tuple]:
    return zip(*([_plain(value) for value in table[name].tolist()] for name in table), strict=True)


def _plain(value: Any) -> Any:
    """As SQLite takes it: a missing number is NULL."""
    return (
        None if value is None or value is pd.NA or value != value else int(value) if isinstance(value, bool) else value
    )

"""How far a study is: each of its cells done, failed or missing, and why. Told from its files alone.

So it holds after any fault, also when Snakemake itself was killed. Imports nothing heavy: Snakemake loads it on every
call.
"""

import csv
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import UserError
from pipeline.files import read_json, whole
from pipeline.jobs import state
from pipeline.study.config import Study
from pipeline.study.grid import Cell, cells, cohort_state_file, log_file, measured_by, result_files, state_file
from pipeline.study.stamps import Stamps
from pipeline.words import counted, duration, first_line

DONE, FAILED, OUTDATED, MISSING = "done", "failed", "outdated", "missing"
TRAINED, EVALUATED = "trained", "evaluated"  # of what is missing: how far it has come
OTHER_STAMP = "made with other settings, inputs or code"
NOT_BEGUN = "not begun"
INTERRUPTED = "interrupted"
AT_WORK = "at work"
ELSEWHERE = "at work on {host}, or killed there"
GONE = "had finished, but its files are gone"
NO_MESSAGE = "ended without a message (killed, or out of memory)"
TOLD = 3  # reasons of failures that the end of a run tells


class State(NamedTuple):
    """One row of cells.csv: a cell, how far it is, at which stage it stands, and why.

    A cell is `done`; or `failed` if one of its own stages has, `outdated` if one of its results has another stamp;
    else it waits, is at work, or was interrupted: `evaluated` if its attack is measured, `trained` if its model is
    there, `missing` if not. `stage` and `why` are empty for a cell that is done.
    """

    dataset: str
    model: str
    trigger: str
    rate: str
    seed: str
    state: str
    stage: str
    why: str

    @property
    def cell(self) -> Cell:
        return Cell(*self[: len(Cell._fields)])


class _Job(NamedTuple):
    """A stage of a cell, or of the whole study: the files of its state and of its result, and its stamp."""

    stage: str
    state: str
    result: str
    stamp: str


def states(study: Study, stamps: Stamps) -> list[State]:
    """The state of every cell of `study`, sorted."""
    outcome = cache(_outcome)
    return [State(*cell, *_state(study, stamps, cell, outcome)) for cell in sorted(cells(study))]


def closing(study: Study, stamps: Stamps, seconds: float, failed: bool) -> list[str]:
    """What to say at the end of a run that took `seconds`: how far the study is, what failed, and where the report is.

    Of what failed one line for each reason, with a log that tells more.

    Writes cells.csv.
    """
    rows = states(study, stamps)
    again = "; the same command again runs what is missing" if failed else ""
    failed_cells: dict[tuple[str, str], list[Cell]] = {}
    for row in rows:
        if row.state == FAILED:
            failed_cells.setdefault((row.stage, first_line(row.why)), []).append(row.cell)
    reasons = []
    for (stage, why), (first, *rest) in failed_cells.items():
        more = f" and {counted(len(rest), 'other cell')}" if rest else ""
        log = log_file(study.results_dir, stage, first)
        reasons.append(f"{stage}: {why} ({'/'.join(first)}{more}; log: {log})")
    ends = [(job, *_outcome(job)) for job in _of_all(study, stamps)]
    for job, end, why in ends:
        if end == FAILED:
            reasons.append(f"{job.stage}: {first_line(why)} (log: {log_file(study.results_dir, job.stage)})")
    others = [f"{len(reasons) - TOLD} more; python -m pipeline status tells them"] if len(reasons) > TOLD else []
    report, end, _ = ends[-1]
    none = "none; python -m pipeline tables, with the same settings, makes one of the cells done"
    return [
        f"{record(study, rows)}{again}",
        *(f"failed: {each}" for each in [*reasons[:TOLD], *others] or ["nothing"]),
        f"elapsed: {duration(seconds)}",
        f"report: {report.result if end == DONE else none}",
    ]


def record(study: Study, rows: list[State]) -> str:
    """Write the states `rows` to cells.csv in the study's results_dir and return one line about them."""
    path = Path(study.results_dir) / "cells.csv"
    try:
        write(rows, path)
    except UserError as error:  # the full disk, say, that the jobs failed of
        return f"{summary(rows)}; not recorded: {error}"
    return f"{summary(rows)}: {path}"


def write(rows: list[State], path: Path) -> None:
    with whole(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(State._fields)
        writer.writerows(rows)


def summary(rows: list[State]) -> str:
    """Such as "127 of 130 cells done, 2 failed, 1 missing"."""
    others = (FAILED, OUTDATED, EVALUATED, TRAINED, MISSING)
    counts = {state: sum(row.state == state for row in rows) for state in (DONE, *others)}
    return ", ".join(
        [f"{counts[DONE]} of {len(rows)} cells done", *(f"{counts[each]} {each}" for each in others if counts[each])]
    )


def _state(
    study: Study, stamps: Stamps, cell: Cell, outcome: Callable[[_Job], tuple[str, str]]
) -> tuple[str, str, str]:
    """State, stage and why of a cell."""
    to_weights, from_weights = _to_weights(study, stamps, cell), _from_weights(study, stamps, cell)
    for job in to_weights + from_weights:
        end, why = outcome(job)
        if end in (FAILED, OUTDATED):
            return end, job.stage, why
    for job in to_weights:
        end, why = outcome(job)
        if end == MISSING:
            return MISSING, job.stage, why
    evaluated = outcome(from_weights[0])[0] == DONE
    reached = EVALUATED if evaluated else TRAINED
    for job in _to_weights(study, stamps, cell.control):
        end, why = outcome(job)
        if end != DONE:
            return reached, job.stage, f"waits for the clean run of this model and seed: {why}"
    for job in from_weights:
        end, why = outcome(job)
        if end == MISSING:
            return reached, job.stage, why
    return DONE, "", ""


def _to_weights(study: Study, stamps: Stamps, cell: Cell) -> list[_Job]:
    """The stages of a cell that end with its trained model, the cohort's first."""
    data, name = study.data_dir, cell.dataset
    made = f"{data}/splits/{name}.json"
    cohort = _Job("sample_dev", cohort_state_file(data, name), made, stamps.of("sample_dev", cell).stamp)
    return [cohort, *(_job(study, stamps, stage, cell) for stage in ("poison", "train"))]


def _from_weights(study: Study, stamps: Stamps, cell: Cell) -> list[_Job]:
    """The stages of a cell that need its trained model and that of its clean run; `eval` first."""
    return [_job(study, stamps, stage, cell) for stage in measured_by(study, cell)]


def _job(study: Study, stamps: Stamps, stage: str, cell: Cell) -> _Job:
    result = f"{study.results_dir}/{result_files(study, cell)[stage]}"
    return _Job(stage, state_file(os.path.dirname(result), stage), result, stamps.of(stage, cell).stamp)


def _of_all(study: Study, stamps: Stamps) -> list[_Job]:
    """The stages that are of the whole study; `report` last."""
    folder = study.results_dir
    results = {"aggregate": "metrics.json", "figures": "figures", "report": "report.html"}
    return [
        _Job(stage, state_file(folder, stage), f"{folder}/{result}", stamps.of(stage).stamp)
        for stage, result in results.items()
    ]


def _stamp_in(result: Path) -> str | None:
    try:
        return read_json(result).get("stamp")
    except (UserError, OSError, AttributeError):  # no JSON of ours
        return None


def _outcome(job: _Job) -> tuple[str, str]:
    """Done, failed, outdated or missing, and why."""
    told, there = state.read(Path(job.state)), os.path.exists(job.result)
    if told is None and there:  # pulled or copied without it: then the result itself says what it is of
        told = {"state": state.DONE, "stamp": _stamp_in(Path(job.result))}
    if told is None or told["stamp"] != job.stamp:
        return (OUTDATED, OTHER_STAMP) if there else (MISSING, NOT_BEGUN)
    match told["state"]:
        case state.DONE:
            return (DONE, "") if there else (MISSING, GONE)
        case state.FAILED:
            return FAILED, told["why"]
        case state.INTERRUPTED:
            return MISSING, INTERRUPTED
    at_work = state.is_at_work(told)
    if at_work is None:
        return MISSING, ELSEWHERE.format(**told)
    return (MISSING, AT_WORK) if at_work else (FAILED, NO_MESSAGE)

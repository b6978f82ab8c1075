"""How far a study is: each of its cells done, failed or missing, and why. Told from its files alone.

So it holds after any fault, also when Snakemake itself was killed. Imports nothing heavy: Snakemake loads it on every
call.
"""

import csv
import os
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import UserError
from pipeline.files import read_json, whole
from pipeline.jobs import state
from pipeline.study.config import Study
from pipeline.study.grid import Cell, cells, cohort_state_file, log_file, result_files, state_file
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


class Job(NamedTuple):
    """A stage of a cell, or of the whole study: the files of its state and of its result, and its stamp.

    Of the cell there is what the job depends on: a poison has no model, a cohort nothing but its dataset.
    """

    stage: str
    cell: Cell
    state: str
    result: str
    stamp: str


class Files:
    """The files that say how far `study` is, each read once, when it is first asked for."""

    def __init__(self, study: Study, stamps: Stamps):
        self.study = study
        self._jobs = cache(lambda cell: _jobs(study, stamps, cell))
        self._of_all = cache(lambda: _jobs_of_all(study, stamps))
        self._told = cache(lambda job: state.read(Path(job.state)))
        self._outcome = cache(lambda job: outcome(job, self.told(job)))

    def told(self, job: Job) -> dict[str, Any] | None:
        """What its state file says; None where there is none."""
        return self._told(job)

    def outcome(self, job: Job) -> tuple[str, str]:
        """Done, failed, outdated or missing, and why."""
        return self._outcome(job)

    def to_weights(self, cell: Cell) -> list[Job]:
        """The stages of a cell that end with its trained model, the cohort's first."""
        return self._jobs(cell)[:3]

    def from_weights(self, cell: Cell) -> list[Job]:
        """The stages of a cell that need its trained model and that of its clean run; `eval` first."""
        return self._jobs(cell)[3:]

    def of_all(self) -> list[Job]:
        """The stages that are of the whole study; `report` last."""
        return self._of_all()


def states(study: Study, stamps: Stamps) -> list[State]:
    """The state of every cell of `study`, sorted."""
    return states_in(Files(study, stamps))


def states_in(files: Files) -> list[State]:
    """The same, of files that others read too."""
    return [State(*cell, *_state(files, cell)) for cell in sorted(cells(files.study))]


def closing(study: Study, stamps: Stamps, seconds: float, failed: bool) -> list[str]:
    """What to say at the end of a run that took `seconds`: how far the study is, what failed, and where the report is.

    Of what failed one line for each reason, with a log that tells more.

    Writes cells.csv.
    """
    files = Files(study, stamps)
    rows = states_in(files)
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
    ends = [(job, *files.outcome(job)) for job in files.of_all()]
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


def _state(files: Files, cell: Cell) -> tuple[str, str, str]:
    """State, stage and why of a cell."""
    to_weights, from_weights = files.to_weights(cell), files.from_weights(cell)
    for job in to_weights + from_weights:
        end, why = files.outcome(job)
        if end in (FAILED, OUTDATED):
            return end, job.stage, why
    for job in to_weights:
        end, why = files.outcome(job)
        if end == MISSING:
            return MISSING, job.stage, why
    evaluated = files.outcome(from_weights[0])[0] == DONE
    reached = EVALUATED if evaluated else TRAINED
    for job in files.to_weights(cell.control):
        end, why = files.outcome(job)
        if end != DONE:
            return reached, job.stage, f"waits for the clean run of this model and seed: {why}"
    for job in from_weights:
        end, why = files.outcome(job)
        if end == MISSING:
            return reached, job.stage, why
    return DONE, "", ""


def _jobs(study: Study, stamps: Stamps, cell: Cell) -> list[Job]:
    """The stages of a cell in the order in which they need each other."""
    data, name = study.data_dir, cell.dataset
    stamp, of = stamps.of("sample_dev", cell).stamp, Cell(name, "", "", "", "")
    jobs = [Job("sample_dev", of, cohort_state_file(data, name), f"{data}/splits/{name}.json", stamp)]
    for stage, path in result_files(study, cell).items():
        result, of = f"{study.results_dir}/{path}", cell._replace(model="") if stage == "poison" else cell
        state_at = state_file(os.path.dirname(result), stage)
        jobs.append(Job(stage, of, state_at, result, stamps.of(stage, cell).stamp))
    return jobs


def _jobs_of_all(study: Study, stamps: Stamps) -> list[Job]:
    folder, of = study.results_dir, Cell("", "", "", "", "")
    results = {"aggregate": "metrics.json", "figures": "figures", "report": "report.html"}
    return [
        Job(stage, of, state_file(folder, stage), f"{folder}/{result}", stamps.of(stage).stamp)
        for stage, result in results.items()
    ]


def _stamp_in(result: Path) -> str | None:
    try:
        return read_json(result).get("stamp")
    except (UserError, OSError, AttributeError):  # no JSON of ours
        return None


def outcome(job: Job, told: dict[str, Any] | None) -> tuple[str, str]:
    """Done, failed, outdated or missing, and why, of a job whose state file says what is `told`."""
    there = os.path.exists(job.result)
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

"""How far a study is: each of its cells done, failed or missing, and why. Told from its files alone.

So it holds after any fault, also when Snakemake itself was killed. Imports nothing heavy: Snakemake loads it on every
call.
"""

import csv
import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pipeline.config import Study
from pipeline.errors import UserError
from pipeline.files import read_json, whole
from pipeline.grid import Cell, cells, result_files
from pipeline.stamps import Stamps

DONE, FAILED, OUTDATED, MISSING = "done", "failed", "outdated", "missing"
OTHER_STAMP = "made with other settings, inputs or code"
NOT_BEGUN = "not begun"
INTERRUPTED = "interrupted"
AT_WORK = "at work, or killed"
GONE = "had finished, but its files are gone"
NO_MESSAGE = "ended without a message (killed, or out of memory)"


class State(NamedTuple):
    """One row of cells.csv: a cell, whether it is `done`, `failed`, `outdated` or `missing`, at which stage, and why.

    A cell has failed if one of its own stages has, and is outdated if one of its results has another stamp. It is
    missing if a stage has not begun or was interrupted, or waits for the clean run that the cell is compared with.
    `stage` and `why` are empty for a cell that is done.
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
    """A stage of a cell: its log, the file it writes last, and the stamp that this has to hold."""

    stage: str
    log: str
    last: str
    stamp: str


def states(study: Study, stamps: Stamps, running: bool = False) -> list[State]:
    """The state of every cell of `study`, sorted. `running`: what is not finished may still be at work."""
    outcome = cache(lambda job: _outcome(job, running))
    return [State(*cell, *_state(study, stamps, cell, outcome)) for cell in sorted(cells(study))]


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
    counts = {state: sum(row.state == state for row in rows) for state in (DONE, FAILED, OUTDATED, MISSING)}
    others = [f"{counts[state]} {state}" for state in (FAILED, OUTDATED, MISSING) if counts[state]]
    return ", ".join([f"{counts[DONE]} of {len(rows)} cells done", *others])


def _state(
    study: Study, stamps: Stamps, cell: Cell, outcome: Callable[[_Job], tuple[str, str]]
) -> tuple[str, str, str]:
    """State, stage and why of a cell."""
    to_weights, from_weights = _to_weights(study, stamps, cell), _from_weights(study, stamps, cell)
    for job in to_weights + from_weights:
        state, why = outcome(job)
        if state in (FAILED, OUTDATED):
            return state, job.stage, why
    for job in to_weights:
        state, why = outcome(job)
        if state == MISSING:
            return MISSING, job.stage, why
    for job in _to_weights(study, stamps, cell.control):
        state, why = outcome(job)
        if state != DONE:
            return MISSING, job.stage, f"waits for the clean run of this model and seed: {why}"
    for job in from_weights:
        state, why = outcome(job)
        if state == MISSING:
            return MISSING, job.stage, why
    return DONE, "", ""


def _to_weights(study: Study, stamps: Stamps, cell: Cell) -> list[_Job]:
    """The stages of a cell that end with its trained model, the cohort's first."""
    cohort = f"{study.data_dir}/splits/{cell.dataset}.json"
    return [_job(study, stamps, "sample_dev", cell, cohort)] + [
        _job(study, stamps, stage, cell, f"{study.results_dir}/{result_files(cell)[stage]}")
        for stage in ("poison", "train")
    ]


def _from_weights(study: Study, stamps: Stamps, cell: Cell) -> list[_Job]:
    """The stages of a cell that need its trained model and that of its clean run."""
    paths = result_files(cell)
    return [_job(study, stamps, stage, cell, f"{study.results_dir}/{paths[stage]}") for stage in cell.measured_by]


def _job(study: Study, stamps: Stamps, stage: str, cell: Cell, last: str) -> _Job:
    run = cell.run_folder.removeprefix("runs/")
    name = {"sample_dev": cell.dataset, "poison": cell.poison_folder.removeprefix("poison/")}.get(stage, run)
    return _Job(stage, f"{study.results_dir}/logs/{stage}/{name}.log", last, stamps.of(stage, cell).stamp)


def _outcome(job: _Job, running: bool) -> tuple[str, str]:
    """State and why of one stage."""
    if os.path.exists(job.last):
        try:
            stamp = read_json(job.last).get("stamp")
        except UserError as error:
            return FAILED, str(error)
        return (DONE, "") if stamp == job.stamp else (OUTDATED, OTHER_STAMP)
    try:
        lines = Path(job.log).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return MISSING, NOT_BEGUN
    if lines and lines[-1].startswith("cost: "):
        return MISSING, GONE
    why = _reason(lines)
    if why == INTERRUPTED:
        return MISSING, why
    if not why and running:
        return MISSING, AT_WORK
    return FAILED, why or NO_MESSAGE


def _reason(lines: list[str]) -> str:
    """Why a stage ended: the last error line or exception in its log; empty if there is none."""
    for number, line in reversed(list(enumerate(lines))):
        if line == INTERRUPTED:
            return INTERRUPTED
        if match := re.match(r"(?:python -m pipeline.*: )?error: (.+)", line):
            return match[1]
        if line.startswith("Traceback (most recent call last):"):
            exception = next((text for text in lines[number + 1 :] if text and not text[0].isspace()), "")
            if exception == "KeyboardInterrupt":
                return INTERRUPTED
            # Written for programmers: what it quotes, and its numbers, may come from a patient's row.
            return re.sub(r"'[^']*'|\"[^\"]*\"|\d+", "…", exception)
    return ""

"""What the jobs of a study cost, told from their state files, and how long what is left will take.

Not among the tables of results, which are the same bytes however long they took. Imports nothing heavy: Snakemake loads
it on every call.
"""

import csv
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from pipeline.errors import UserError
from pipeline.files import whole
from pipeline.jobs import state
from pipeline.study.config import Study
from pipeline.study.grid import cells
from pipeline.study.progress import AT_WORK, DONE, FAILED, Files, Job, states_in
from pipeline.study.stamps import Stamps
from pipeline.words import counted, duration

_RECENT = 50  # finished jobs that tell how many run at once
_PAUSE = 60  # seconds without any job, after which it is another call's


class Cost(NamedTuple):
    """One row of costs.csv: the jobs of a stage, and of a model where it has one, that are done. None is missing.

    CPU is that of the jobs alone, of warm ones from the fork on; Snakemake, the server of warm stages and its imports
    are not in it. `own_memory_mib` is what a job had beside the memory that it shared, at most (clock.py).
    """

    stage: str
    model: str
    n_jobs: int
    wall_seconds: float
    cpu_seconds: float
    mean_wall_seconds: float
    longest_wall_seconds: float
    peak_memory_mib: float
    own_memory_mib: float | None


def closing(study: Study, stamps: Stamps) -> list[str]:
    """Write costs.csv and costs.parquet in the study's results_dir and return what to say about them."""
    rows, path = costs(Files(study, stamps)), Path(study.results_dir) / "costs.csv"
    if not rows:
        return []
    seconds, jobs = sum(row.cpu_seconds for row in rows), counted(sum(row.n_jobs for row in rows), "job")
    told = f"cost of all that is done: {duration(seconds)} of CPU time in {jobs}"
    try:
        _write(rows, path)
    except UserError as error:  # the full disk, say, that the jobs failed of
        return [f"{told}; not recorded: {error}"]
    return [f"{told}: {path}"]


def costs(files: Files) -> list[Cost]:
    """What the stages of a study cost, by model, sorted."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for job, told in _finished(files).items():
        if files.outcome(job)[0] == DONE:
            groups.setdefault((job.stage, job.cell.model), []).append(told)
    return [_cost(*of, told) for of, told in sorted(groups.items())]


def _cost(stage: str, model: str, jobs: list[dict[str, Any]]) -> Cost:
    walls = [job["wall_seconds"] for job in jobs]
    own = [job["own_memory_mib"] for job in jobs if job.get("own_memory_mib") is not None]
    return Cost(
        stage,
        model,
        len(jobs),
        round(sum(walls), 3),
        round(sum(job["cpu_seconds"] for job in jobs), 3),
        round(mean(walls), 3),
        max(walls),
        max(job["peak_memory_mib"] for job in jobs),
        max(own, default=None),
    )


def _write(rows: list[Cost], path: Path) -> None:
    import pyarrow as pa
    from pyarrow.parquet import write_table

    kinds = {str: pa.string(), int: pa.int64()}
    schema = pa.schema([(name, kinds.get(kind, pa.float64())) for name, kind in Cost.__annotations__.items()])
    with whole(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Cost._fields)
        writer.writerows(rows)
    with whole(path.with_suffix(".parquet")) as aside:
        write_table(pa.Table.from_pylist([row._asdict() for row in rows], schema), aside)


def _jobs(files: Files) -> Iterable[Job]:
    """All jobs of a study, each once."""
    chains = (job for cell in sorted(cells(files.study)) for job in files.to_weights(cell) + files.from_weights(cell))
    return dict.fromkeys([*chains, *files.of_all()])


def _finished(files: Files) -> dict[Job, dict[str, Any]]:
    """What the jobs told that ended well, of these settings or others; of some only the results may be there."""
    told = ((job, files.told(job)) for job in _jobs(files))
    return {job: facts for job, facts in told if facts and facts["state"] == state.DONE and "wall_seconds" in facts}


def at_work(files: Files) -> list[tuple[Job, float]]:
    """The jobs that are at work on this machine, and for how many seconds, the longest first."""
    told = ((job, files.told(job)) for job in _jobs(files) if files.outcome(job)[1] == AT_WORK)
    return sorted(((job, _since(facts["started"])) for job, facts in told if facts), key=lambda each: -each[1])


def time_left(files: Files) -> str | None:
    """How long what is left will take, as a guess in words; None where nothing is left.

    A job takes as long as the mean of the finished ones of its stage and model, or of its stage, whatever settings they
    were of; as many run at once as of the last ones did. Cells that have failed wait for the next call: not counted.
    """
    finished, rows = _finished(files), states_in(files)
    cells_left = [row.cell for row in rows if row.state not in (DONE, FAILED)]
    wanted = {job: None for cell in cells_left for job in files.to_weights(cell) + files.from_weights(cell)}
    if all(row.state != FAILED for row in rows):
        wanted |= dict.fromkeys(files.of_all())
    left = [job for job in wanted if files.outcome(job)[0] not in (DONE, FAILED)]
    if not left:
        return None
    walls: dict[tuple[str, str | None], list[float]] = {}
    for job, told in finished.items():
        for of in ((job.stage, job.cell.model), (job.stage, None)):
            walls.setdefault(of, []).append(told["wall_seconds"])
    means = {of: mean(each) for of, each in walls.items()}
    running, seconds = dict(at_work(files)), 0.0
    unknown: dict[str, None] = {}
    for job in left:
        takes = means.get((job.stage, job.cell.model), means.get((job.stage, None)))
        if takes is None:
            unknown[job.stage] = None
        else:
            seconds += max(takes - running.get(job, 0.0), 0.0)
    of_all = [job.stage for job in files.of_all()]
    if all(job.stage in unknown for job in left) or any(stage not in of_all for stage in unknown):
        return f"no estimate yet; no job has ended of {', '.join(unknown)}"
    at_once = _at_once(finished.values())
    without = f", without {', '.join(unknown)}" if unknown else ""
    return (
        f"about {duration(seconds / at_once)}{without} (a guess from {counted(len(finished), 'finished job')}, "
        f"{at_once:.1f} at once)"
    )


def _at_once(finished: Iterable[dict[str, Any]]) -> float:
    """How many jobs ran at once, of the last ones that followed each other; one at least."""
    spans = sorted((_time(told["started"]), _time(told["ended"])) for told in finished)[-_RECENT:]
    following: list[tuple[float, float]] = []
    reach = spans[0][0]
    for began, ended in spans:
        if began - reach > _PAUSE:
            following = []
        following.append((began, ended))
        reach = max(reach, ended)
    elapsed = reach - following[0][0]
    return max(sum(ended - began for began, ended in following) / elapsed, 1.0) if elapsed else 1.0


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _since(text: str) -> float:
    return max(datetime.now(UTC).timestamp() - _time(text), 0.0)

"""Write-through: each stage's start and end in the database while the study runs. The one place around all stages.

A stage keeps its state in a file (jobs/state.py) and knows nothing of this; what it tells there, `teller` writes here.
Only where the Snakemake that started the job has said so (sessions.py): on this machine, and never on a cluster.
What cannot be written is in the state file, and `populate` brings it in.
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import Namespace
    from sqlite3 import Connection

DATABASE = "BACKDOOR_STUDY_DATABASE"  # the file to write to
_WAIT = 30  # seconds for what another writes

_ENDS = ("status", "why", "ended", "wall_seconds", "cpu_seconds", "peak_memory_mib", "own_memory_mib")
JOB = (
    *("stage", "dataset", "model", "trigger", "rate", "seed", "stamp", "code", "host", "process", "started"),
    *(*_ENDS, "state_file"),
)
PUT_JOB = (
    f"INSERT INTO jobs ({', '.join(JOB)}) VALUES ({', '.join(f':{name}' for name in JOB)}) "
    f"ON CONFLICT (state_file, started) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _ENDS)}"
)
# A job that makes it for another study, by other settings, say, is none of this one's.
_PUT_STEP = "UPDATE steps SET status = ?, why = ? WHERE state_file = ? AND stamp = ? RETURNING step"

# The rank of what holds a run up, the lowest first; none holds up a run that is done. The same order as in
# progress.states, but that a run of which something is at work is running whatever else is known of it.
_STAND = """
WITH held AS (
    SELECT
        run,
        stage,
        status,
        why,
        min(CASE
            WHEN status = 'done' THEN NULL
            WHEN status = 'running' AND place BETWEEN 1 AND 9 THEN place
            WHEN status IN ('failed', 'outdated') AND place < 10 THEN 100 + place
            WHEN place < 3 THEN 200 + place
            WHEN place >= 10 THEN 300 + place
            ELSE 400 + place
        END) AS rank
    FROM chains JOIN steps USING (step)
    WHERE {which}
    GROUP BY run
),
stands AS (
    SELECT
        run,
        CASE
            WHEN rank IS NULL THEN 'done'
            WHEN rank < 100 THEN 'running'
            WHEN rank < 200 THEN status
            ELSE 'missing'
        END AS status,
        CASE WHEN rank IS NOT NULL THEN stage END AS stage,
        CASE
            WHEN rank BETWEEN 300 AND 399 THEN 'waits for the clean run of this model and seed: ' || why
            WHEN rank >= 100 THEN why
        END AS why
    FROM held
)
UPDATE runs SET status = stands.status, stage = stands.stage, why = stands.why
FROM stands
WHERE runs.run = stands.run
    AND (runs.status, runs.stage, runs.why) IS NOT (stands.status, stands.stage, stands.why)
"""
STAND = _STAND.format(which="TRUE")
_STAND_WITH = _STAND.format(which="run IN (SELECT run FROM chains WHERE step = ?)")


def teller(args: "Namespace") -> Callable[[dict[str, Any]], None]:
    """What to call with the state of the job `args` whenever it has changed: it never raises, and it warns once."""
    path = os.environ.get(DATABASE)
    if path is None:
        return lambda facts: None
    import sqlite3

    given = {name: getattr(args, name, default) for name, default in _PLACE.items()}
    given["rate"] = None if given["rate"] is None else float(given["rate"])
    given["state_file"] = state_name(args.command, str(args.state), os.path.dirname(path))
    database, failed = None, False

    def tell(facts: dict[str, Any]) -> None:
        nonlocal database, failed
        if failed:  # to wait once more for a lock would only cost time
            return
        try:
            database = database or _connected(path)  # stays open: to open it costs as much as to write
            _write(database, job_row(facts, given))
        except (sqlite3.Error, OSError) as error:
            failed = True
            print(f"warning: {path}: not recorded there ({error}); results are not concerned", file=sys.stderr)
        if database and (failed or facts["ended"]):
            with suppress(sqlite3.Error):
                database.close()

    return tell


_PLACE = {"dataset": "", "model": "", "trigger": "", "rate": None, "seed": None}


def state_name(stage: str, path: str, results_dir: str) -> str:
    """What the state file at `path` is called in the database: the same wherever the folders of the study lie."""
    if stage == "sample_dev":  # in a data_dir, which several studies may share
        return f"states/{os.path.basename(path)}"
    below = f"{results_dir}/"
    return path.removeprefix(below) if path.startswith(below) else os.path.relpath(path, results_dir)


def job_row(facts: dict[str, Any], place: dict[str, Any]) -> dict[str, Any]:
    """A row of `jobs`: what a state file says, and the job's place in the grid."""
    return {name: facts.get(name) for name in JOB} | place | {"status": facts["state"]}


def _connected(path: str) -> "Connection":
    import sqlite3
    from urllib.parse import quote

    # Not one that would be made: there is a database, or this is not the place for one.
    database = sqlite3.connect(f"file:{quote(path)}?mode=rw", uri=True, timeout=_WAIT, isolation_level=None)
    database.execute("PRAGMA synchronous = NORMAL")
    return database


def _write(database: "Connection", job: dict[str, Any]) -> None:
    database.execute("BEGIN IMMEDIATE")
    database.execute(PUT_JOB, job)
    for step in database.execute(_PUT_STEP, (*_step(job), job["state_file"], job["stamp"])).fetchall():
        database.execute(_STAND_WITH, step)
    database.execute("COMMIT")


def _step(job: dict[str, Any]) -> tuple[str, str | None]:
    """How a step stands by its last attempt, and why, in the words of progress.py."""
    words = {"running": ("running", "at work"), "interrupted": ("missing", "interrupted")}
    return words.get(job["status"], (job["status"], job["why"]))

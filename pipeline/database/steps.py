"""What the study asks for and how it stands, brought into the database from the files of the study.

Live, the stages tell it themselves (live.py). The files know more: what has been deleted, copied or killed, and what
is of other settings, inputs or code. Imports nothing heavy: Snakemake loads it on every call.
"""

import json
import sqlite3
from pathlib import Path

from pipeline.database import live
from pipeline.database.store import transaction
from pipeline.jobs import state
from pipeline.study import progress
from pipeline.study.config import Study
from pipeline.study.grid import CLEAN, Cell, cells
from pipeline.study.places import NOT_MEASURED
from pipeline.study.progress import Files, Job

_TRAINED = 2  # the place of the training
_OF_CONTROL = 10  # the first place of what a run waits for


def bring_in(database: sqlite3.Connection, files: Files) -> None:
    """Write the grid of the study, how each of its runs stands, and every attempt of a job that the files tell of.

    What was recorded live stays: of an attempt only that it has ended, where its files or the processes of this machine
    show that and its stage could not say it. Runs that the study does not ask for any more are kept, and marked.
    """
    chains = {cell: _chain(files, cell) for cell in sorted(cells(files.study))}
    jobs = list(dict.fromkeys(job for chain in chains.values() for job in chain.values()))
    names = {job: _name(files.study, job) for job in [*jobs, *files.of_all()]}
    for job in names:
        files.outcome(job)  # before anybody has to wait for what is written here
    with transaction(database):
        _put_about(database, files.study)
        _end_sessions(database)
        _put_runs(database, {cell: _made_by(chain) for cell, chain in chains.items()})
        _put_jobs(database, files, names)
        _put_steps(database, files, {job: names[job] for job in jobs})
        _put_chains(database, chains, names)
        database.execute(live.STAND)


def is_of(database: sqlite3.Connection, study: Study) -> bool:
    """Whether the database was last brought up to this very `study`, and not to one of other settings."""
    found = database.execute("SELECT value FROM study WHERE key = 'configuration'").fetchone()
    return found == (_configuration(study),)


def _configuration(study: Study) -> str:
    return study.model_dump_json(exclude=NOT_MEASURED)


def _put_about(database: sqlite3.Connection, study: Study) -> None:
    about = {"configuration": _configuration(study), "results_dir": study.results_dir, "data_dir": study.data_dir}
    put = "INSERT INTO study (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
    database.executemany(put, about.items())


def _name(study: Study, job: Job) -> str:
    """What the state file of `job` is called in the database."""
    return live.state_name(job.stage, job.state, study.results_dir)


def _chain(files: Files, cell: Cell) -> dict[int, Job]:
    """The jobs that `cell` is made of and waits for, by their place (see the table `chains`)."""
    stages = ("sample_dev", "poison", "train", "eval", "detect", "explain")
    chain = {stages.index(job.stage): job for job in files.to_weights(cell) + files.from_weights(cell)}
    if cell.trigger != CLEAN:
        chain |= {_OF_CONTROL + stages.index(job.stage): job for job in files.to_weights(cell.control)}
    return chain


def results_of(files: Files, cell: Cell) -> str:
    """The stamps of the results that the numbers of `cell` come from, as text."""
    return _made_by(_chain(files, cell))


def _made_by(chain: dict[int, Job]) -> str:
    return " ".join(job.stamp for place, job in sorted(chain.items()) if _TRAINED <= place < _OF_CONTROL)


def _put_runs(database: sqlite3.Connection, asked: dict[Cell, str]) -> None:
    rows = [("/".join(cell), *cell[:3], float(cell.rate), int(cell.seed)) for cell in asked]
    database.executemany(
        "INSERT INTO runs (run, dataset, model, trigger, rate, seed, status, in_study) "
        "VALUES (?, ?, ?, ?, ?, ?, 'missing', 1) ON CONFLICT (run) DO UPDATE SET in_study = 1 WHERE NOT in_study",
        rows,
    )
    database.execute(
        "UPDATE runs SET in_study = 0 WHERE in_study AND run NOT IN (SELECT value FROM json_each(?))",
        [json.dumps([row[0] for row in rows])],
    )
    database.execute(
        "UPDATE runs SET status = 'missing', why = ? WHERE NOT in_study AND status = 'running'", [progress.INTERRUPTED]
    )
    # Numbers stay until others are brought in; a run that is made anew must not pass for what they are of.
    database.executemany(
        "UPDATE runs SET current = (numbers_of IS :made_by) "
        "WHERE run = :run AND current IS NOT (numbers_of IS :made_by)",
        [{"run": "/".join(cell), "made_by": made_by} for cell, made_by in asked.items()],
    )


def _put_jobs(database: sqlite3.Connection, files: Files, names: dict[Job, str]) -> None:
    """Attempts that are not there yet; those that run there, and do so no longer, end."""
    known = set(database.execute("SELECT state_file, started FROM jobs"))
    last = {}
    for job, named in names.items():
        told = files.told(job)
        if told is not None:
            last[named] = live.job_row(told, _place(job) | {"state_file": named})
    new = [row for named, row in last.items() if (named, row["started"]) not in known]
    database.executemany(live.PUT_JOB, new)
    database.row_factory = sqlite3.Row
    running = database.execute("SELECT * FROM jobs WHERE status = 'running'").fetchall()
    database.row_factory = None
    for row in running:
        told = last.get(row["state_file"])
        if told and told["started"] == row["started"] and told["status"] != state.RUNNING:
            database.execute(live.PUT_JOB, told)
        elif not _at_work(row, told):
            ended = (state.FAILED, progress.NO_MESSAGE, row["job"])
            database.execute("UPDATE jobs SET status = ?, why = ? WHERE job = ?", ended)


def _at_work(row: sqlite3.Row, told: dict | None) -> bool:
    """Whether an attempt is at work, or may be: on another machine it is until its file tells of a later one."""
    found = state.is_at_work(dict(row))
    return (told is None or told["started"] <= row["started"]) if found is None else found


def _place(job: Job) -> dict[str, str | float | int | None]:
    """The stage of a job and its place in the grid."""
    rate, seed = job.cell.rate, job.cell.seed
    numbers = {"rate": float(rate) if rate else None, "seed": int(seed) if seed else None}
    return {"stage": job.stage, **job.cell._asdict(), **numbers}


def _put_steps(database: sqlite3.Connection, files: Files, names: dict[Job, str]) -> None:
    known = {row[0]: row[1:] for row in database.execute("SELECT state_file, stamp, status, why FROM steps")}
    for job, named in names.items():
        if known.get(named) == (job.stamp, *_stands(files.outcome(job))):
            continue
        # Read anew: its stage may have told something since the files were read, and cannot now.
        row = (job.stage, named, job.stamp, *_stands(progress.outcome(job, state.read(Path(job.state)))))
        database.execute(
            "INSERT INTO steps (stage, state_file, stamp, status, why) VALUES (?, ?, ?, ?, ?) ON CONFLICT (state_file) "
            "DO UPDATE SET stamp = excluded.stamp, status = excluded.status, why = excluded.why",
            row,
        )
    gone = known.keys() - set(names.values())
    database.executemany("DELETE FROM steps WHERE state_file = ?", [(named,) for named in gone])


def _stands(outcome: tuple[str, str]) -> tuple[str, str | None]:
    status, why = outcome
    return ("running" if why == progress.AT_WORK else status), why or None


def _put_chains(database: sqlite3.Connection, chains: dict[Cell, dict[int, Job]], names: dict[Job, str]) -> None:
    steps = dict(database.execute("SELECT state_file, step FROM steps"))
    asked = {
        ("/".join(cell), place, steps[names[job]]) for cell, chain in chains.items() for place, job in chain.items()
    }
    known = set(database.execute("SELECT run, place, step FROM chains"))
    database.executemany("DELETE FROM chains WHERE run = ? AND place = ? AND step = ?", known - asked)
    database.executemany("INSERT INTO chains (run, place, step) VALUES (?, ?, ?)", sorted(asked - known))


def _end_sessions(database: sqlite3.Connection) -> None:
    """Mark calls of Snakemake that are not at work any more and have not said so."""
    query = "SELECT session, host, process, started FROM sessions WHERE status = 'running'"
    for session, host, process, started in database.execute(query).fetchall():
        if state.is_at_work({"host": host, "process": process, "started": started}) is False:
            database.execute("UPDATE sessions SET status = 'killed' WHERE session = ?", [session])

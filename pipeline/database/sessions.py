"""Calls of Snakemake on this machine: each a row in the database, which is open as long as the call lasts.

Nothing here stops a study: what cannot be recorded is said in one line. Imports nothing heavy: Snakemake loads it.
"""

import os
import platform
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from pipeline.database import live, steps, store
from pipeline.errors import UserError
from pipeline.jobs import state
from pipeline.study.config import Study
from pipeline.study.progress import Files
from pipeline.study.stamps import Stamps
from pipeline.words import counted, duration

_open: sqlite3.Connection | None = None
_session: int | None = None


def begin(study: Study, stamps: Stamps, cores: int) -> list[str]:
    """Record that a call has begun on this machine, and have its stages write through; returns why not, if so.

    The connection stays open until `end`: whoever closes the last one has to bring the write-ahead log into the
    database, which would cost each stage more than all it has to write.
    """
    global _open, _session
    os.environ.pop(live.DATABASE, None)  # of a call around this one
    path = store.path_of(study.results_dir).absolute()
    try:
        database = store.opened(path)
        if not store.write_ahead(database, path):
            database.close()
            return [f"{path}: on a network file system, so it is written when all jobs have ended"]
        steps.bring_in(database, Files(study, stamps))
        row = (state.now(), "running", cores, platform.node(), os.getpid())
        insert = "INSERT INTO sessions (started, status, cores, host, process) VALUES (?, ?, ?, ?, ?)"
        _session = database.execute(insert, row).lastrowid
    except (UserError, sqlite3.Error, OSError) as error:
        return _not_recorded(path, error)
    _open = database
    os.environ[live.DATABASE] = str(path)
    return []


def end(study: Study, cohorts: str, failed: bool) -> list[str]:
    """Record that the call has ended, and bring in its numbers; `cohorts`: the stamps of the cohorts, as JSON.

    Returns what to say of it. To be called while warm stages are served: what makes the numbers imports as much.
    """
    global _open
    path = store.path_of(study.results_dir).absolute()
    os.environ.pop(live.DATABASE, None)
    recorded: list[str] = []
    try:
        if _open:
            ended = (state.now(), "failed" if failed else "done", _session)
            _open.execute("UPDATE sessions SET ended = ?, status = ? WHERE session = ?", ended)
        arguments = ["--study", study.model_dump_json(), "--cohorts", cohorts]
        command = [sys.executable, "-m", "pipeline", "db", "populate", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["ended without a message"]
            return _not_recorded(path, lines[-1].removeprefix("error: "))
        if _open:
            recorded = _idle(_open)
            store.put_together(_open)
    except (sqlite3.Error, OSError) as error:
        return _not_recorded(path, error)
    finally:
        if _open:
            _open.close()
            _open = None
    return recorded


def _idle(database: sqlite3.Connection) -> list[str]:
    query = "SELECT idle_share, cores FROM session_costs WHERE session = ?"
    found = database.execute(query, [_session]).fetchone()
    if found is None or found[0] is None:
        return []
    share, cores = found
    why = "idle, or busy with Snakemake or other programs"
    return [f"of {counted(cores, 'core')} not used by jobs: {share:.0%} ({why})"]


def is_of_another(study: Study) -> bool:
    """Whether the results_dir of `study` has the database of one with other settings.

    False where there is none, or none that can be read: then nothing says what the folder is of.
    """
    path = store.path_of(study.results_dir)
    if not path.exists():
        return False
    try:
        with closing(store.opened(path)) as database:
            return not steps.is_of(database, study)
    except (UserError, sqlite3.Error):
        return False


def told(files: Files) -> list[str]:
    """What to say of the last call of Snakemake, where there is a database; it is brought up to `files` for that."""
    path = store.path_of(files.study.results_dir)
    if not path.exists():
        return []
    try:
        database = store.opened(path)
        try:
            if steps.is_of(database, files.study):
                steps.bring_in(database, files)
            query = "SELECT status, started, ended, cores FROM sessions ORDER BY session DESC LIMIT 1"
            last = database.execute(query).fetchone()
        finally:
            database.close()
    except (UserError, sqlite3.Error) as error:
        return _not_recorded(path, error)
    return [f"last call of Snakemake: {_told(*last)}"] if last else []


def _told(status: str, started: str, ended: str | None, cores: int) -> str:
    began = datetime.fromisoformat(started)
    until = datetime.fromisoformat(ended) if ended else datetime.now(UTC)
    words = {"running": "at work", "killed": "killed, or ended without a word"}.get(status, status)
    took = "" if status == "killed" else f", {duration((until - began).total_seconds())}"
    return f"{words}, begun {began:%Y-%m-%d %H:%M:%S} UTC{took}, {counted(cores, 'core')}"


def _not_recorded(path: Path, error: object) -> list[str]:
    return [f"warning: {path}: not recorded there ({error}); results are not concerned"]

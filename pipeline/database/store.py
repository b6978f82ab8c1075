"""The database as a file: where it lies, who may write it how, and that it is of this format.

Imports nothing heavy: Snakemake loads it on every call.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import UserError

NAME = "study.db"
FORMAT = 1  # a table or view more is none: only what is there under another name or with another meaning
# What to do with a file that is none: what it holds of attempts and sessions, no other file does.
ANEW = "move it away, and `python -m pipeline db populate` makes it anew from the files of the study"
_SCHEMA = Path(__file__).with_name("schema.sql")
_WAIT = 60  # seconds for what another writes
# Where processes of several machines may meet: what write-ahead logging needs, memory in common, is not there.
_SHARED = {"afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "panfs", "smb3", "smbfs"}


def path_of(results_dir: str | Path) -> Path:
    """Where the database of the study in `results_dir` lies."""
    return Path(results_dir) / NAME


def opened(path: Path) -> sqlite3.Connection:
    """A connection that may write to the database at `path`, which is made where there is none.

    `UserError` where the file is no database, or one of another format, and where it cannot be opened.
    """
    path = Path(path)
    try:
        database = sqlite3.connect(path, timeout=_WAIT, isolation_level=None)
    except sqlite3.Error as error:
        raise UserError(f"{path}: cannot be opened ({error}); expected a folder that may be written") from None
    try:
        check(database, path)
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA foreign_keys = ON")
        with transaction(database):
            for statement in statements(_SCHEMA.read_text(encoding="utf-8")):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {FORMAT}")
    except sqlite3.DatabaseError as error:
        database.close()
        raise refusal(path, error) from None
    except UserError:
        database.close()
        raise
    return database


def check(database: sqlite3.Connection, path: Path) -> None:
    """`UserError` where what is connected is no database of this format; one without any table may become one."""
    try:
        (found,) = database.execute("PRAGMA user_version").fetchone()
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        raise refusal(path, error) from None
    if tables and found != FORMAT:
        raise UserError(f"{path}: a study database of format {found}, expected {FORMAT}; {ANEW}")


def refusal(path: Path, error: sqlite3.Error) -> UserError:
    """`error` about the database at `path` in one sentence for people."""
    if isinstance(error, sqlite3.OperationalError):  # locked, read-only, full disk: the file is sound
        return UserError(f"{path}: {error}")
    return UserError(f"{path}: not a readable study database ({error}); {ANEW}")


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All that the block writes, or nothing of it. Nobody else writes meanwhile."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with suppress(sqlite3.Error):  # a full disk, say, has rolled it back already
            database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def statements(script: str) -> Iterator[str]:
    """The statements of an SQL script, one by one: executed together they would be outside of any transaction."""
    waiting = ""
    for line in script.splitlines(keepends=True):
        waiting += line
        if sqlite3.complete_statement(waiting):
            yield waiting
            waiting = ""


def write_ahead(database: sqlite3.Connection, path: Path) -> bool:
    """Have several processes read and write at once from now on; False where that is not sound."""
    if is_shared(path):
        return False
    return database.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)


def put_together(database: sqlite3.Connection) -> None:
    """Have the database be one file again that lies anywhere, if nobody else has it open."""
    database.execute("PRAGMA busy_timeout = 0")
    with suppress(sqlite3.OperationalError):  # somebody looks at it, and it stays as it is
        database.execute("PRAGMA journal_mode = DELETE")


def is_shared(path: Path) -> bool:
    """Whether a file lies where other machines may see it too, as far as the kind of file system tells."""
    import psutil

    try:
        mounts = psutil.disk_partitions(all=True)
    except (OSError, RuntimeError):
        return False
    place = os.path.realpath(path)
    inside = [each for each in mounts if os.path.commonpath([each.mountpoint, place]) == each.mountpoint]
    nearest = max(inside, key=lambda each: len(each.mountpoint), default=None)
    return nearest is not None and nearest.fstype.removeprefix("fuse.").lower() in _SHARED | {"sshfs"}

"""Reading the study database: a connection that can change nothing, whatever it is asked.

It sees the state of one moment, beside any number of writers. Imports nothing heavy: questions are answered at once.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from pipeline.database.store import ANEW, NAME
from pipeline.errors import UserError
from pipeline.words import counted, suggestion

PATIENCE = 60  # seconds that one command may compute
MOST_ROWS = 1_000_000  # of an answer, which is held in memory
LARGEST = 10_000_000  # bytes of one value
WAIT = 5  # seconds for a writer that locks all others out, which none does for long
_TABLES = (
    "study",
    "student_t",
    "runs",
    "jobs",
    "metrics",
    "detections",
    "explanations",
    "summary",
    "rounding",
    "datasets",
)
_STEPS = 20_000  # of SQLite's machine between two looks at the clock
_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
_ON_FILES = {"load_extension", "readfile", "writefile", "edit", "fsdir", "lsdir", "fts3_tokenizer"}
# Those that only tell. Without an argument many others do too; with one they may change what is asked.
_TELLING = {"table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list"}
_TELLING |= {"integrity_check", "quick_check", "foreign_key_check"}
_TELLING_ALONE = {"user_version", "schema_version", "encoding", "page_count", "page_size", "journal_mode", "query_only"}
_TELLING_ALONE |= {"compile_options", "function_list", "collation_list", "database_list"}


class Answer(NamedTuple):
    """What a query found: the names of its columns, and its rows."""

    columns: list[str]
    rows: list[tuple[Any, ...]]


def default_folder() -> Path:
    """The results_dir of the configuration that a study here starts from, as it is written there."""
    from pipeline.files import read_yaml
    from pipeline.study.places import study_file

    text = str(read_yaml(study_file()).get("results_dir", "results"))
    if "$" in text or "~" in text:
        from pipeline.study.params import located  # which takes a fifth of all the time there is

        try:
            text = located(text)
        except ValueError as error:
            raise UserError(f"config: results_dir: {error}") from None
    return Path(text)


@contextmanager
def opened(folder: Path) -> Iterator[sqlite3.Connection]:
    """A connection to the study database in `folder` that only reads, as of one moment, for `PATIENCE` seconds.

    Raises `UserError` where there is none, or none that can be read, and for what goes wrong while it is open.
    """
    path = Path(folder) / NAME
    if not path.is_file():
        there = "no study database here" if Path(folder).is_dir() else "no such folder"
        raise UserError(
            f"{folder}: {there} ({NAME}); expected the results_dir of a study, whose database "
            f"`python -m pipeline db populate --results-dir {folder}` makes from its files"
        )
    with _told(path), closing(connected(path)) as connection:
        _guard(connection, path)
        yield connection


def connected(path: Path) -> sqlite3.Connection:
    """A connection that cannot write to the database at `path`, also where nobody may write beside it."""

    def connect(mode: str) -> sqlite3.Connection:
        address = f"file:{quote(str(path.absolute()))}?{mode}"
        # Not of one thread: nothing here has others. No transaction but the one that is begun below.
        return sqlite3.connect(address, uri=True, timeout=WAIT, isolation_level=None, check_same_thread=False)

    connection = connect("mode=ro")
    try:
        connection.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.OperationalError:
        connection.close()
        # Beside a database in WAL mode even readers make files. Where nobody may and nobody has, nobody writes.
        if os.access(path.parent, os.W_OK) or Path(f"{path}-wal").exists():
            raise
        connection = connect("mode=ro&immutable=1")
    return connection


def _guard(connection: sqlite3.Connection, path: Path) -> None:
    """Make `connection` refuse all that is no question, and see the state of this moment until it is closed."""
    connection.execute("PRAGMA query_only = 1")
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if missing := [name for name in _TABLES if name not in tables]:
        raise UserError(
            f"{path}: another format, without the {counted(len(missing), 'table')} {', '.join(missing)}; expected a "
            f"study database of this version of the project: {ANEW}"
        )
    # SQLite sets these up when they are first used, by what looks like a change of the schema.
    for function in ("json_each('[]')", "json_tree('[]')", "pragma_table_info('')", "pragma_index_list('')"):
        connection.execute(f"SELECT 1 FROM {function}").fetchall()
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST)
    connection.execute("BEGIN")
    connection.execute("SELECT 1 FROM study").fetchone()  # only now the moment is fixed
    connection.set_authorizer(_is_allowed)
    end = time.monotonic() + PATIENCE
    connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)


def _is_allowed(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    match action:
        case sqlite3.SQLITE_FUNCTION:
            allowed = (second or "").lower() not in _ON_FILES
        case sqlite3.SQLITE_PRAGMA:
            name = (first or "").lower()
            allowed = name in _TELLING or (name in _TELLING_ALONE and second is None)
        case _:
            allowed = action in _ALLOWED
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What SQLite says of the file in `path`, as a `UserError`."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        text = str(error)
        if "not a database" in text:
            raise UserError(f"{path}: not a SQLite database; expected the one of a study: {ANEW}") from None
        if "locked" in text or "busy" in text:
            raise UserError(f"{path}: locked by another process for more than {WAIT} s; ask again later") from None
        if "interrupted" in text:
            raise UserError(f"{path}: no answer within {PATIENCE} s; expected a question that is quicker") from None
        if "malformed" in text or "disk I/O" in text:
            raise UserError(f"{path}: damaged ({text}); {ANEW}") from None
        if "unable to open" in text:
            raise UserError(f"{path}: not to be opened ({text}); expected a file that may be read") from None
        raise UserError(f"{path}: {text}") from None


def asked(connection: sqlite3.Connection, sql: str) -> Answer:
    """The answer to `sql`, one query that somebody typed; `UserError` for anything else."""
    connection.text_factory = lambda raw: raw.decode(errors="replace")
    try:
        cursor = connection.execute(sql)
        if cursor.description is None:
            raise UserError("SQL: nothing is asked; expected a query such as SELECT * FROM runs")
        rows = cursor.fetchmany(MOST_ROWS + 1)
    except sqlite3.DatabaseError as error:
        raise _of_sql(connection, error) from None
    except (sqlite3.Warning, sqlite3.ProgrammingError) as error:
        if "one statement" in str(error):
            raise UserError("SQL: several statements given; expected one query at a time") from None
        raise UserError(f"SQL: {error}") from None
    except ValueError as error:  # a character that no SQL has
        raise UserError(f"SQL: {error}; expected text") from None
    if len(rows) > MOST_ROWS:
        raise UserError(f"SQL: more than {counted(MOST_ROWS, 'row')}; expected a query with a LIMIT")
    return Answer([name for name, *_ in cursor.description], rows)


def _of_sql(connection: sqlite3.Connection, error: sqlite3.DatabaseError) -> Exception:
    """The error of a query in one sentence; what is wrong with the database is left to `_told`."""
    text = str(error)
    if "one statement" in text:
        return UserError("SQL: several statements given; expected one query at a time")
    if "not authorized" in text or "prohibited" in text or "readonly" in text or "within a transaction" in text:
        return UserError(
            f"SQL: refused ({text}); this connection only reads: expected a query such as SELECT, which writes, "
            "attaches and loads nothing"
        )
    head, _, name = text.partition(": ")
    if head == "no such table":
        sql = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite%' ORDER BY name"
        return UserError(f"SQL: {text} {suggestion(name, (found for (found,) in connection.execute(sql)))}")
    if head == "no such column":
        sql = (
            "SELECT DISTINCT columns.name FROM sqlite_master, pragma_table_info(sqlite_master.name) AS columns "
            "WHERE sqlite_master.type IN ('table', 'view')"
        )
        known = sorted(found for (found,) in connection.execute(sql))
        return UserError(f"SQL: {text} {suggestion(name.rpartition('.')[2], known)}")
    if any(word in text for word in ("not a database", "locked", "busy", "interrupted", "malformed", "disk I/O")):
        return error
    return UserError(f"SQL: {text}")

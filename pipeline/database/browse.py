"""The study database in a browser: Datasette on this machine's own address, for reading.

What keeps it there: it listens on the loopback address and answers to no other name, so that no page of another site
can ask it; it knows no method but reading, and no connection that writes; it loads no plugin of the environment; and
its pages carry a policy by which browsers load nothing from elsewhere.
"""

import socket
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.database import reading
from pipeline.database.descriptions import described
from pipeline.database.queries import QUERIES
from pipeline.database.shown import number
from pipeline.database.store import path_of
from pipeline.errors import UserError

HOST = "127.0.0.1"
PORT, _TRIED = 8001, 20  # the first port of those that are tried, and how many
_NAMES = {HOST, "localhost"}
_SETTINGS = {
    "allow_download": False,
    "default_cache_ttl": 0,  # a study at work changes
    "max_returned_rows": 10_000,
    "sql_time_limit_ms": 3_000,
    "truncate_cells_html": 300,
}
_POLICY = "default-src 'self' 'unsafe-inline'; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'"
_HEADERS = [(b"content-security-policy", _POLICY.encode())]

_App = Callable[[dict[str, Any], Callable[[], Awaitable], Callable[[dict[str, Any]], Awaitable]], Awaitable]


def serve(folder: Path, port: int | None) -> None:
    """Serve the study database in `folder` at `port`, or at the first free one from `PORT` on, until interrupted.

    Raises `UserError` where there is no study database or no Datasette, or where the port is not free.
    """
    app = application(folder)
    import uvicorn

    with _listening(port) as listener, suppress(KeyboardInterrupt):
        address = f"http://{HOST}:{listener.getsockname()[1]}/{path_of(folder).stem}"
        print(f"{path_of(folder)}: {address} (Ctrl-C ends it)", flush=True)
        config = uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=1)
        uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def _listening(port: int | None) -> Iterator[socket.socket]:
    for each in range(PORT, PORT + _TRIED) if port is None else [port]:
        try:
            listener = socket.create_server((HOST, each))
        except (OSError, OverflowError) as error:
            reason = error
        else:
            with listener:
                yield listener
            return
    if port is None:
        raise UserError(f"ports {PORT} to {PORT + _TRIED - 1} of {HOST} are taken; expected a free one as --port")
    raise UserError(f"--port: {port} is not to be had ({reason}); without --port the next free one is taken")


def application(folder: Path) -> _App:
    """Datasette over the study database in `folder`, as an ASGI application that only reads; raises as `serve` does."""
    with reading.opened(folder):  # or it is said why not
        pass
    database = path_of(folder)
    try:
        with _without_plugins():
            from datasette.app import Datasette
            from datasette.database import Database
    except ModuleNotFoundError as error:
        raise UserError(f'{error.name} is not installed; expected Datasette: pip install ".[browse]"') from None

    class ReadOnly(Database):
        def connect(self, write: bool = False) -> sqlite3.Connection:
            # Not by Datasette's own address, where ?, # and % in a path are something else.
            connection = reading.connected(database)
            self._all_file_connections.append(connection)
            return connection

    vars(sys.modules["datasette.handle_exception"])["rich"] = (
        None  # or each mistake in somebody's SQL fills the terminal
    )
    _register_cells()
    datasette = Datasette([str(database)], metadata=metadata(database), settings=_SETTINGS)
    datasette.remove_database(database.stem)
    datasette.add_database(ReadOnly(datasette, str(database)), database.stem)
    return _guarded(datasette.app(), database)


@contextmanager
def _without_plugins() -> Iterator[None]:
    vars(sys)["_called_from_test"] = True  # what Datasette asks before it loads those that the environment has
    try:
        yield
    finally:
        del vars(sys)["_called_from_test"]


def metadata(database: Path) -> dict[str, Any]:
    """What Datasette tells beside the data: titles, the meaning of tables and columns, and the questions to ask."""
    tables = {}
    for name, known in described().items():
        said = {column: text or _meaning(name, column) for column, text in known.columns.items()}
        tables[name] = {"description": known.table, "columns": {column: text for column, text in said.items() if text}}
    queries = {
        query.name: {"title": query.title, "description": query.description, "sql": query.sql, "hide_sql": True}
        for query in QUERIES
    }
    what = (
        "Aggregates after disclosure control: no sample, no patient, no count of few. – is missing: undefined, "
        "withheld, or not there yet. Start with the questions below; an effect (asr_net) counts beside its control and "
        "with its interval."
    )
    title = f"The study in {database.parent}"
    return {
        "title": title,
        "description": what,
        "databases": {database.stem: {"title": title, "description": what, "tables": tables, "queries": queries}},
    }


def _meaning(table: str, column: str) -> str:
    """What a column means that has its name from the tables of results; empty where nobody has said so."""
    from pipeline.results.meanings import meaning

    try:
        return meaning(table, column)
    except KeyError:
        return ""


def _register_cells() -> None:
    """Have what is missing shown as –, numbers with the digits that are read, and metrics with what they mean.

    Data for programs stays as it is.
    """
    from datasette import hookimpl
    from datasette.plugins import pm
    from markupsafe import Markup

    class Cells:
        @staticmethod
        @hookimpl
        def render_cell(value: Any, column: str) -> Markup | None:
            if value is None:
                return Markup('<span title="missing: undefined, withheld, or not there yet">–</span>')
            if isinstance(value, float) and column != "rate":  # which is called as in the names of folders
                return Markup('<span title="{}">{}</span>').format(value, number(value))
            if column == "metric" and (said := _meaning("runs", str(value))):
                return Markup('<span title="{}">{}</span>').format(said, value)
            return None

    if not pm.has_plugin(Cells.__name__):
        pm.register(Cells, Cells.__name__)


def _guarded(app: _App, database: Path) -> _App:
    """`app` for those who read, from this machine, the file that is there."""
    opened = database.stat()

    async def guarded(scope, receive, send):
        if scope["type"] != "http":
            return await app(scope, receive, send)
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1").partition(":")[0]

        async def told(message):
            if message["type"] == "http.response.start":
                message = message | {"headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        async def refuse(status: int, text: str):
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await told({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": f"{text}\n".encode()})

        if host not in _NAMES:
            return await refuse(403, f"this server answers to {HOST} and localhost only")
        if scope["method"] not in ("GET", "HEAD"):
            return await refuse(405, "this server is for reading: nothing can be written through it")
        if not _is_same(database, opened):
            return await refuse(503, f"{database} is gone, or another file now: start `db browse` again")
        return await app(scope, receive, told)

    return guarded


def _is_same(database: Path, opened) -> bool:
    try:
        now = database.stat()
    except OSError:
        return False
    return (now.st_dev, now.st_ino) == (opened.st_dev, opened.st_ino)

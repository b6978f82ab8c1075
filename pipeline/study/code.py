"""Which code a stage runs, told from the source files alone: nothing is imported to find that out.

The code of a stage is its module and what that imports, wherever the statement stands, with the SQL files beside them.
The members of families, which are loaded by their names, have to be named.
"""

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib.util import cache_from_source
from pathlib import Path

from pipeline.files import ROOT, found

LENGTH = 16  # hexadecimal digits: enough that no two of a study are equal by chance


def digest(*parts: str | bytes) -> str:
    """A hash of `parts`, each told apart from its neighbours."""
    total = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else part.encode()
        total.update(len(content).to_bytes(8, "big"))
        total.update(content)
    return total.hexdigest()[:LENGTH]


@cache
def code(stage: str, *members: str) -> str:
    """The hash of the code of `stage` ("eval") with `members` ("models/mlp"), as this process first saw the files."""
    named = sorted(map(_identity, closure(stage, *members)))
    return digest(*(part for identity in named for part in identity))


def preload() -> None:
    """Read all code of the project now, so that a fork of this process need not."""
    for path in (ROOT / "pipeline").rglob("*.py"):
        for file in (path, *_needs(path)):
            _identity(file)


def drop_old_bytecode() -> None:
    """Remove bytecode that is older than the last change of its source, before anything is imported.

    Python takes it for that of the source where size and time (in seconds) are the same, which an edit of a digit or an
    unpacked archive may leave as they were. The code that runs would not be the code that is hashed.
    """
    for path in (ROOT / "pipeline").rglob("*.py"):
        bytecode = Path(cache_from_source(path))
        with suppress(OSError):  # there is none, or another job was faster, or this user may change nothing here
            if bytecode.stat().st_mtime_ns <= path.stat().st_ctime_ns:
                bytecode.unlink()


def changed(stage: str, *members: str) -> bool:
    """Whether a file of that code is another one than when this process first looked."""
    return any(_read(path) != content(path) for path in closure(stage, *members))


@cache
def closure(stage: str, *members: str) -> tuple[Path, ...]:
    """The files of `stage` and `members` and of all that they import, sorted.

    A member may also be a notebook, that of the folder of the study or the project's ("notebooks/report.ipynb").
    """
    notebooks = [found(name) for name in members if name.endswith(".ipynb")]
    modules = [f"pipeline/stages/{stage}", *(f"pipeline/{name}" for name in members if not name.endswith(".ipynb"))]
    waiting = [*notebooks, *(ROOT / f"{name}.py" for name in modules)]
    files: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path not in files:
            files.add(path)
            waiting.extend(_needs(path))
    return tuple(sorted(files, key=str))


@cache
def _identity(path: Path) -> tuple[str, str]:
    """The name of a file in the project, so that the same code is the same wherever a study is run, and its hash."""
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    return name.as_posix(), digest(content(path))


@cache
def content(path: Path) -> bytes:
    """The bytes of a file, as this process first saw them."""
    return _read(path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # a member without a file: whoever loads it says so
        return b""


@cache
def _needs(path: Path) -> tuple[Path, ...]:
    """The files of this project that the file `path` needs: what it imports, the packages of all, the SQL beside it."""
    if path.suffix == ".sql":
        return ()
    text = content(path).decode()
    if path.suffix == ".ipynb":
        cells = (cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code")
        text = "\n".join("".join(cell["source"]) for cell in cells)
    names = (name.split(".") for name in _imported(ast.parse(text).body))
    imported = {ROOT.joinpath(*parts) for parts in names if parts[0] == "pipeline"}
    # Of a name's parts each may be a package or a module, and the last may be neither.
    modules = {module for name in (path.with_suffix(""), *imported) for module in (name, *name.parents)}
    return tuple(file for module in modules for file in _files(module) if file != path)


@cache
def _files(module: Path) -> tuple[Path, ...]:
    """The files of a module or package without its suffix; none of what lies elsewhere or is neither."""
    if not module.is_relative_to(ROOT / "pipeline"):
        return ()
    files = (module / "__init__.py", module.with_suffix(".py"), module.with_suffix(".sql"))
    return tuple(file for file in files if file.is_file())


def _imported(statements: Iterable[ast.stmt]) -> Iterator[str]:
    """The names that `statements` and those inside them import, dotted; of `from a import b` both a and a.b."""
    for statement in statements:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            yield from (f"{statement.module}.{alias.name}" for alias in statement.names)
        elif isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            yield from _imported(statement.orelse)  # the rest is for tools that check types
        else:
            for block in ("body", "orelse", "finalbody", "handlers", "cases"):
                yield from _imported(getattr(statement, block, ()))

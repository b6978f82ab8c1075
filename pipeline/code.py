"""Which code a stage runs, told from the source files alone: nothing is imported to find that out.

The code of a stage is its module and what that imports, wherever the statement stands, with the SQL files beside them.
The members of families, which are loaded by their names, have to be named.
"""

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cache
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
    files = closure(stage, *members)
    # By its name in the project: the same code has the same hash wherever a study is run.
    named = {(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path).as_posix(): path for path in files}
    return digest(*(part for name in sorted(named) for part in (name, content(named[name]))))


def preload() -> None:
    """Read all code of the project now, so that a fork of this process need not."""
    for path in (ROOT / "pipeline").rglob("*.py"):
        _imports(path)
        if path.with_suffix(".sql").is_file():
            content(path.with_suffix(".sql"))


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
            waiting.extend(_imports(path))
            packages = (folder / "__init__.py" for folder in path.parents if folder.is_relative_to(ROOT / "pipeline"))
            waiting.extend(package for package in packages if package.is_file())
    return tuple(sorted(files | {sql for path in files if (sql := path.with_suffix(".sql")).is_file()}))


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
def _imports(path: Path) -> tuple[Path, ...]:
    """The files of this project that the module or notebook `path` imports, and the packages that they lie in."""
    text = content(path).decode()
    if path.suffix == ".ipynb":
        cells = (cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code")
        text = "\n".join("".join(cell["source"]) for cell in cells)
    found = []
    for name in _imported(ast.parse(text).body):
        parts = name.split(".")
        if parts[0] == "pipeline":
            modules = [ROOT.joinpath(*parts[:end]) for end in range(1, len(parts) + 1)]
            files = (file for module in modules for file in (module / "__init__.py", module.with_suffix(".py")))
            found += [file for file in files if file.is_file()]
    return tuple(dict.fromkeys(found))


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

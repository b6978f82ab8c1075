"""Files: where they are found, and that they appear whole or not at all (written aside, then renamed)."""

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError, disk_error

if TYPE_CHECKING:
    import numpy as np

ROOT = Path(__file__).parent.parent  # of the project


def found(path: str | Path) -> Path:
    """`path` in this folder if it is there, else in the project, else as it is given, for whoever says so."""
    return next((each for each in (Path(path), ROOT / path) if each.exists()), Path(path))


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` only if the block succeeds.

    A disk that is full, a folder that may not be written or that cannot be made, is a `UserError`. What writers of the
    same file that were killed on this machine have left aside is removed.
    """
    path = Path(path)
    ours = f".{path.name}.{platform.node()}."
    aside = path.with_name(f"{ours}{os.getpid()}")
    try:
        _make(path.parent)
        _remove_leftovers(path.parent, ours)
        try:
            yield aside
            with aside.open("r+b") as file:
                os.fsync(file.fileno())  # or the new name may outlive a power cut, and what is in the file not
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        known = disk_error(error, path if str(error.filename) in ("None", str(aside)) else error.filename)
        if known is None:
            raise
        raise known from None


def _make(folder: Path) -> None:
    """Make `folder` where there is none; `UserError` where a file is in the way, or no folder can be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, FileNotFoundError) as error:  # the last in /proc, say
        raise UserError(
            f"{folder}: no folder, and none can be made there ({error.strerror}); expected one or the other"
        ) from None


def _remove_leftovers(folder: Path, prefix: str) -> None:
    """Delete the files called `prefix` + a process number whose process is gone."""
    for name in os.listdir(folder):
        process = name.removeprefix(prefix)
        if process != name and process.isdecimal() and not _runs(int(process)):
            (folder / name).unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def hide_from_git(*folders: Path) -> None:
    """Make `folders`, each with a .gitignore of its own, so that git leaves rows alone whatever a folder is called.

    A .gitignore that is there already is somebody's decision and stays.
    """
    for folder in folders:
        ignore = folder / ".gitignore"
        if not ignore.exists():
            with whole(ignore) as aside:
                aside.write_text("*\n", encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON; NaN is refused (a missing number is null)."""
    with whole(path) as aside:
        aside.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """What a stage wrote as JSON; `UserError` when it is missing or damaged."""
    import orjson  # of a large study there are many files

    try:
        return orjson.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except ValueError as error:  # not JSON, or not UTF-8
        raise damaged(path, "JSON file", error) from None


def read_arrays(path: Path) -> "dict[str, np.ndarray]":
    """The NumPy arrays that a stage wrote (.npz); `UserError` when it is missing or damaged. Nothing is unpickled."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # damaged bytes make NumPy raise about anything
        raise damaged(path, "NumPy file", error) from None


def damaged(path: str | Path, kind: str, error: Exception) -> UserError:
    """The error for something of ours that is no readable `kind`."""
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return UserError(f"{path}: not a readable {kind} ({reason}); delete it and run again")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; `UserError` when it is missing, not YAML, not a mapping, or has a key twice."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_mapping_node(self, anchor):
            node = super().compose_mapping_node(anchor)
            lines: dict[str, int] = {}  # of each key; what is merged in (<<) comes later, and may be overridden
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    name, line = self.construct_object(key), key.start_mark.line + 1
                    if name in lines:
                        raise UserError(
                            f"{path}: line {line}: key {key.value!r} stands twice in one mapping, first in line "
                            f"{lines[name]}; expected each key once"
                        )
                    lines[name] = line
            return node

    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8-sig"), Loader)  # a SafeLoader
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping of names to values")
    return content


def number(value: float | None) -> float | None:
    """`value` for JSON: a NaN (undefined) becomes None, anything else a Python float."""
    return None if value is None or value != value else float(value)

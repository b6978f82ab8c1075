"""The state of a job: a small JSON file that its stage keeps, beside its results or near them.

It holds `stage`, `state` (running, done, failed or interrupted), `why` (of a failure), `stamp` and `code` (see
stamps.py), the `host` and `process` at work, when it `started` and `ended` (UTC), and what it cost. It is no output of
the workflow, which deletes what a failed job has written, and the reason would be gone with it.
"""

import os
import platform
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import UserError, disk_error
from pipeline.files import read_json, write_json
from pipeline.jobs.clock import Clock, own_memory

RUNNING, DONE, FAILED, INTERRUPTED = "running", "done", "failed", "interrupted"
_SLACK = 5  # seconds by which clocks may differ from what the kernel says of a process


@contextmanager
def kept(
    path: Path,
    stage: str,
    made_by: dict[str, str],
    clock: Clock,
    tell: Callable[[dict[str, Any]], None] = lambda facts: None,
) -> Iterator[None]:
    """Keep the state of a job of `stage` in the file `path` while the block runs. `made_by`: its stamp and code.

    `tell` is told the same whenever the file has been written.

    An error that is not for users is written for programmers: what it quotes, and its numbers, may come from a
    patient's row and are left out.
    """
    facts: dict[str, Any] = {"stage": stage, "state": RUNNING, "why": None, **made_by}
    facts |= {"host": platform.node(), "process": os.getpid(), "started": now(), "ended": None}
    try:
        write_json(path, facts)
        tell(facts)
        yield
        end = {"state": DONE} | _costs(clock)
        write_json(path, facts | end)  # while it is written it may be interrupted too, and is not done then
    except BaseException as error:
        end = {"state": INTERRUPTED} if isinstance(error, KeyboardInterrupt) else {"state": FAILED, "why": _why(error)}
        facts |= end | _costs(clock)
        _rewrite(path, facts)
        tell(facts)
        raise
    tell(facts | end)


def read(path: Path) -> dict[str, Any] | None:
    """What `kept` wrote; None where nothing is, or nothing that is whole."""
    try:
        return read_json(path)
    except (UserError, OSError):
        return None


def is_at_work(state: dict[str, Any]) -> bool | None:
    """Whether the process of a running job lives; None of another machine's, which nobody can tell from here."""
    import psutil

    if state["host"] != platform.node():
        return None
    try:
        process = psutil.Process(state["process"])
        if process.status() == psutil.STATUS_ZOMBIE:  # gone, but for the one who should have asked how it ended
            return False
        born = process.create_time()
    except psutil.NoSuchProcess:
        return False
    # A younger process has the number of one that is gone.
    return born <= datetime.fromisoformat(state["started"]).timestamp() + _SLACK


def _rewrite(path: Path, facts: dict[str, Any]) -> None:
    """Replace the state in `path`, on a full disk in its place: that may be just what the job has failed of."""
    import json

    try:
        write_json(path, facts)
    except UserError:
        with suppress(OSError):
            path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _costs(clock: Clock) -> dict[str, Any]:
    return {"ended": now(), **clock.read(), "own_memory_mib": own_memory()}


def now() -> str:
    """The time as states tell it: UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _why(error: BaseException) -> str:
    known = disk_error(error) if isinstance(error, OSError) else error
    if isinstance(known, UserError):
        return str(known)
    kind, text = type(error).__name__, next(iter(str(error).splitlines()), "")
    redacted = re.sub(r"'[^']*'|\"[^\"]*\"|\d+", "…", text)
    return f"{kind}: {redacted}" if redacted else kind

"""What the parts of the benchmark share: how a command is measured, and how a part's facts are kept.

A part is a module with `measure(args) -> results`, `bars(results)` and `text(results)`; `python -m benchmarks.NAME`
measures it and writes docs/benchmarks/NAME.json, `python -m benchmarks` makes docs/BENCHMARKS.md of those files.
"""

import argparse
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "benchmarks"
# What a study needs of the project: the rest is the user's own results and data.
PROJECT = ("Snakefile", "config", "workflow", "profiles", "pipeline", "notebooks", "environment.yml", ".git")
CATALOG = "data/datasets.yaml"
_COST = re.compile(r"cost: ([\d.]+) s wall, ([\d.]+) s CPU, (\d+) MiB")


class Cost(NamedTuple):
    """Wall and CPU seconds, and peak memory in MiB."""

    wall: float
    cpu: float
    mebibytes: float


class Bar(NamedTuple):
    """What a part must show: `figure` is the text of what was measured, `met` whether it is enough."""

    what: str
    bar: str
    figure: str
    met: bool


def run(command: list[str], folder: Path = ROOT, log: Path | None = None, **environment: str) -> Cost:
    """Run `command` in `folder` and say what it and the children that it waited for cost.

    Its output goes to `log` (default: to no one). Exits with what it printed if it fails.
    """
    with (log or Path(os.devnull)).open("w+b") as out:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=os.environ | environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if status:
            out.seek(0)
            sys.exit(f"error: {shlex.join(command)} failed in {folder}:\n{out.read().decode()[-2000:]}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def forked(function: Callable[[], Any]) -> Cost:
    """What `function` costs in a fork of this process, which has imported all that it needs; exits if it fails."""
    sys.stdout.flush()
    start = time.perf_counter()
    process = os.fork()
    if not process:
        status = 1
        try:
            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
                function()
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    _, status, usage = os.wait4(process, 0)
    if status:
        sys.exit("error: a forked part of the benchmark failed")
    return Cost(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def copy_project(folder: Path) -> Path:
    """A fresh copy of the project, without its data and results, so that a study in it starts from nothing."""
    folder.mkdir(parents=True)
    for name in (*PROJECT, CATALOG):
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            target.parent.mkdir(exist_ok=True)
            shutil.copy2(source, target)
    return folder


def stage_costs(logs: Path) -> list[tuple[str, Cost]]:
    """Stage and cost of every job, from the last lines of the logs below `logs`."""
    costs = []
    for path in sorted(logs.rglob("*.log")):
        found = _COST.findall(path.read_text(encoding="utf-8"))
        if not found:
            sys.exit(f"error: {path}: no line `cost: … s wall, … s CPU, … MiB`; expected one in the log of every job")
        costs.append((path.relative_to(logs).parts[0].removesuffix(".log"), Cost(*map(float, found[-1]))))
    return costs


def cost_line(output: str) -> Cost:
    """The cost that a stage printed."""
    return Cost(*map(float, _COST.findall(output)[-1]))


def machine() -> str:
    """The machine in words, without its name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "snakemake"))
    return (
        f"{cores()} cores of {_processor()}, {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, {packages}"
    )


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _processor() -> str:
    try:
        described = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*: (.+)$", described, re.MULTILINE)
    return found[1] if found else platform.machine()


def main(name: str, doc: str, measure: Callable[[argparse.Namespace], dict], parser: argparse.ArgumentParser) -> None:
    """The command line of a part: measure, keep the facts, say which bars are met."""
    from importlib import import_module

    parser.description = doc.splitlines()[0]
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the facts (default: docs/benchmarks)")
    args = parser.parse_args()
    start = time.perf_counter()
    results = measure(args)
    facts = {
        "command": shlex.join(["python", "-m", f"benchmarks.{name}", *_without(sys.argv[1:], "--out")]),
        "date": date.today().isoformat(),
        "machine": machine(),
        "seconds": round(time.perf_counter() - start),
        "results": results,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    part = import_module(f"benchmarks.{name}")
    print(part.text(results), table(("what", "bar", "measured", "met"), bar_rows(part.bars(results))), sep="\n\n")


def _without(arguments: list[str], option: str) -> list[str]:
    """`arguments` without `option` and its value."""
    if option not in arguments:
        return arguments
    position = arguments.index(option)
    return arguments[:position] + arguments[position + 2 :]


def bar_rows(bars: Iterable[Bar]) -> list[tuple[str, ...]]:
    return [(bar.what, bar.bar, bar.figure, "yes" if bar.met else "**no**") for bar in bars]


def table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table."""
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)

"""docs/BENCHMARKS.md from the facts that the parts have written.

python -m benchmarks [--measure]      with --measure all parts are measured first
"""

import argparse
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from benchmarks import facts

PARTS = ("one_run", "study", "growth", "training", "detectors", "database")
HEAD = """# Benchmarks

Written by `make bench`; each part can be repeated alone with its command, and `python -m benchmarks` puts the page
together again from [benchmarks/](benchmarks). Every comparison is a ratio taken in one run, the sides taking turns.
CPU seconds are those of the process and of all its children. Cohorts at the size of MIMIC-IV have
[a page of their own](scale.md)."""


def page(folder: Path) -> str:
    rows, parts = [], []
    for name in PARTS:
        path = folder / f"{name}.json"
        if not path.exists():
            parts.append(f"## {name}\n\nNot measured yet: `python -m benchmarks.{name}`.")
            continue
        found = json.loads(path.read_text(encoding="utf-8"))
        module = import_module(f"benchmarks.{name}")
        rows += facts.bar_rows(module.bars(found["results"]))
        parts.append(
            f"{module.text(found['results'])}\n\nMeasured on {found['date']} in {found['seconds']:,} s on "
            f"{found['machine']}, with\n\n```\n{found['command']}\n```"
        )
    return "\n\n".join([HEAD, facts.table(("what", "bar", "measured", "met"), rows), *parts]) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="measure every part first")
    parser.add_argument("--facts", type=Path, default=facts.FOLDER, help="folder of the facts")
    parser.add_argument("--page", type=Path, default=facts.FOLDER.parent / "BENCHMARKS.md")
    args = parser.parse_args()
    for part in PARTS if args.measure else ():
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{part}", "--out", str(args.facts)])
        if done.returncode:
            sys.exit(done.returncode)
    args.page.write_text(page(args.facts), encoding="utf-8")

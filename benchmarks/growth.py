"""Seconds per cell as the grid grows, Snakemake's planning time, and a very large grid in batches.

python -m benchmarks.growth [--cells 100 500 2000] [--plan 10000] [--batched 10000 --batches 5] [--options …]

Cells are tiny (a table of 200 rows, one epoch, one cheap detector), so that what is measured is the workflow around
them: five jobs per cell, planning, and tables, figures and report over all. Every size starts from nothing in a fresh
copy of the project; the smallest is measured again at the end. `--options` go to Snakemake, e.g. another scheduler.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import facts
from benchmarks.study import run_study

RATES = [round(0.02 * step, 2) for step in range(1, 10)]
PER_SEED = len(RATES) + 1  # with the clean run
ROWS = 200
BAR = 1.2


def tiny_project(folder: Path, cells: int) -> Path:
    """A fresh copy of the project whose study is a grid of `cells` tiny cells; returns the study's file."""
    facts.copy_project(folder)
    random = np.random.default_rng(0)
    x = random.standard_normal((ROWS, 3)) + 5
    label = (x.sum(axis=1) + random.standard_normal(ROWS) > 15.5).astype(int)
    lines = ["a,b,c,label", *(f"{a:.3f},{b:.3f},{c:.3f},{y}" for (a, b, c), y in zip(x, label, strict=True))]
    (folder / "data" / "raw").mkdir(parents=True)
    (folder / "data" / "raw" / "tiny.csv").write_text("\n".join(lines) + "\n")
    columns = {name: {"range": [0, 10]} for name in "abc"}
    entry = {"source": "table", "file": "tiny.csv", "label": "label", "features": columns}
    (folder / "data" / "tiny.yaml").write_text(json.dumps({"tiny": entry}))
    study = {
        "catalog": "data/tiny.yaml",
        "datasets": ["tiny"],
        "models": ["mlp"],
        "triggers": ["rare_value"],
        "rates": RATES,
        "seeds": list(range(cells // PER_SEED)),
        "detectors": ["random"],
        "training": {"epochs": 1},
        "explain": {"samples": 10, "steps": 2},
        "model_params": {"mlp": {"hidden": [8]}},
        "trigger_params": {"rare_value": {"features": ["a"]}},
    }
    path = folder / "tiny_study.yaml"
    path.write_text(json.dumps(study))
    return path


def whole(folder: Path, cells: int, cores: int, options: list[str]) -> dict:
    study = tiny_project(folder, cells)
    found = run_study(folder, cores, [], "--configfile", str(study), *options)
    return {"cells": cells, **found, "per_cell": found["wall"] / cells}


def plan(folder: Path, cells: int, options: list[str]) -> dict:
    """A dry run of the whole grid with nothing made yet."""
    study = tiny_project(folder, cells)
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--configfile", str(study), *options]
    cost = facts.run(command, folder, folder / "plan.log")
    return {"cells": cells, "wall": cost.wall, "cpu": cost.cpu, "mebibytes": cost.mebibytes}


def in_batches(folder: Path, cells: int, batches: int, cores: int, options: list[str]) -> dict:
    """The grid in batches of the rule aggregate, then a plain call for figures and report; nothing is left to do."""
    study = tiny_project(folder, cells)
    snakemake = [sys.executable, "-m", "snakemake"]
    rest = ["--cores", str(cores), "--configfile", str(study), *options]
    walls = []
    for number in range(1, batches + 1):
        batch = ["aggregate", "--batch", f"aggregate={number}/{batches}"]
        walls.append(facts.run([*snakemake, *batch, *rest], folder, folder / f"batch_{number}.log").wall)
    last = facts.run([*snakemake, *rest], folder, folder / "last.log").wall
    facts.run([*snakemake, *rest], folder, folder / "again.log")
    if "Nothing to be done" not in (folder / "again.log").read_text():
        sys.exit(f"error: after {batches} batches something was left to do: {folder / 'again.log'}")
    return {"cells": cells, "walls": walls, "last": last, "per_cell": (sum(walls) + last) / cells}


def measure(args: argparse.Namespace) -> dict:
    results: dict = {"cores": args.cores, "options": args.options, "sizes": [], "plan": None, "batched": None}
    again = args.cells[:1] if len(args.cells) > 1 else []
    for cells in [*args.cells, *again]:
        results["sizes"].append(fresh(lambda folder, cells=cells: whole(folder, cells, args.cores, args.options)))
        print(f"{cells} cells: {results['sizes'][-1]['per_cell']:.3f} s per cell", file=sys.stderr)
    if args.plan:
        results["plan"] = fresh(lambda folder: plan(folder, args.plan, args.options))
    if args.batched:
        results["batched"] = fresh(
            lambda folder: in_batches(folder, args.batched, args.batches, args.cores, args.options)
        )
    return results


def fresh(function: Callable[[Path], dict]) -> dict:
    with tempfile.TemporaryDirectory() as scratch:
        return function(Path(scratch) / "project")


def base(results: dict) -> float:
    """Seconds per cell of the smallest grid, which was measured first and last."""
    return (results["sizes"][0]["per_cell"] + results["sizes"][-1]["per_cell"]) / 2


def bars(results: dict) -> list[facts.Bar]:
    largest = max(results["sizes"], key=lambda size: size["cells"])
    smallest = results["sizes"][0]["cells"]
    job, growth = largest["overhead_per_job"], largest["per_cell"] / base(results)
    found = [
        facts.Bar(f"{largest['cells']:,} tiny cells: overhead per warm stage", "≤ 0.1 s", f"{job:.3f} s", job <= 0.1),
        facts.Bar(
            f"{largest['cells']:,} tiny cells, seconds per cell",
            f"≤ {BAR} × {smallest}",
            f"{growth:.2f} ×",
            growth <= BAR,
        ),
    ]
    if results["batched"]:
        growth = results["batched"]["per_cell"] / base(results)
        what = f"{results['batched']['cells']:,} tiny cells in batches, seconds per cell"
        found.append(facts.Bar(what, f"≤ {BAR} × {smallest}", f"{growth:.2f} ×", growth <= BAR))
    return found


def text(results: dict) -> str:
    sizes = results["sizes"]
    rows = []
    for number, size in enumerate(sizes):
        smaller = sizes[number - 1] if number else None
        grown = smaller and size["cells"] > smaller["cells"]
        further = (size["wall"] - smaller["wall"]) / (size["cells"] - smaller["cells"]) if grown else None
        rows.append(
            (
                f"{size['cells']:,}",
                f"{size['jobs']:,.0f}",
                f"{size['wall']:.0f}",
                f"{size['per_cell']:.3f}",
                f"{further:.3f}" if further else "",
                f"{size['compute'] / size['jobs']:.3f}",
                f"{size['overhead_per_job']:.3f}",
                f"{size['extra_cpu_per_job']:.3f}",
                f"{size['compute_aggregate']:.1f}",
            )
        )
    header = (
        "cells",
        "jobs",
        "wall, s",
        "s per cell",
        "s per further cell",
        "compute per job, s",
        "overhead per job, s",
        "extra CPU per job, s",
        "`aggregate`, s",
    )
    options = f" {' '.join(results['options'])}" if results["options"] else ""
    parts = [
        "## Growth",
        f"Grids of tiny cells (a table of {ROWS} rows, `mlp` with 8 units, one epoch, detector `random`), "
        f"`snakemake --cores {results['cores']}{options}`, all stages and the report, each from nothing. Overhead and "
        "extra CPU as above. Tables, figures and report cost about the same for any grid, which favours large ones; "
        "seconds per further cell are between this size and the one before, and leave that out.",
        facts.table(header, rows),
    ]
    if found := results["plan"]:
        parts.append(
            f"Planning {found['cells']:,} cells from nothing (`snakemake --dry-run`): {found['wall']:.0f} s wall, "
            f"{found['cpu']:.0f} s CPU, {found['mebibytes']:,.0f} MiB."
        )
    if found := results["batched"]:
        walls, count = ", ".join(f"{wall:.0f}" for wall in found["walls"]), len(found["walls"])
        parts.append(
            f"{found['cells']:,} cells in {count} batches (`aggregate --batch aggregate=1/{count}` and "
            f"so on): {walls} s, then a plain call for figures and report, {found['last']:.0f} s; "
            f"{found['per_cell']:.3f} s per cell."
        )
    return "\n\n".join(parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--cores", type=int, default=min(2, facts.cores()))
    parser.add_argument(
        "--cells", type=int, nargs="+", default=[100, 500, 2000], help=f"multiples of {PER_SEED}, rising"
    )
    parser.add_argument("--plan", type=int, default=10_000, help="cells of the dry run; 0: none")
    parser.add_argument("--batched", type=int, default=0, help="cells of the grid that is run in batches; 0: none")
    parser.add_argument("--batches", type=int, default=5)
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="further options of Snakemake")
    facts.main("growth", __doc__, measure, parser)

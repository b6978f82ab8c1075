"""The MIMIC-IV cohort at scale: time and peak memory of the source `mimiciv` and of a pandas script, side by side.

python -m benchmarks.mimiciv_scale [--rows 20 40] [--repeats 3]    rows of chartevents and labevents, in millions

Each build is a process of its own. Per repeat the three take turns: pandas, the source without a Parquet copy, and with
one. Figures are medians; ratios are taken within a repeat.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.mimic_tables import write_tables

ROWS_PER_STAY = 4_800  # MIMIC-IV 3.1: about 450 million rows of 94,458 ICU stays
FULL = 450  # million rows
BUILDS = ("pandas", "first", "again")


class Cost(NamedTuple):
    seconds: float
    cpu: float
    mebibytes: float


def build(how: str, folder: Path, cache: Path) -> None:
    """One build in this process, with the time that its imports take."""
    if how == "pandas":
        from benchmarks import mimiciv_pandas

        values, _, label = mimiciv_pandas.build(folder, Path("pipeline/cohorts/variables/mimiciv.csv"))
    else:
        from pipeline.cohorts.catalog import parse_entry
        from pipeline.cohorts.intake import take_in

        entry = parse_entry("scale", {"source": "mimiciv", "folder": folder.name}, "benchmark")
        cohort, _ = take_in("scale", entry, folder.parent, cache)
        values, label = cohort.values, cohort.label
    print(f"{how}: {len(label):,} stays, {label.sum():,} deaths, {values.shape[2]} features", file=sys.stderr)


def measure(how: str, folder: Path, cache: Path) -> Cost:
    command = [sys.executable, "-m", "benchmarks.mimiciv_scale", "--build", how, str(folder), str(cache)]
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"error: {how} failed on {folder}")
    return Cost(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def compare(folder: Path, repeats: int) -> dict[str, list[Cost]]:
    costs: dict[str, list[Cost]] = {how: [] for how in BUILDS}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(dir=folder.parent) as cache:
            for how in BUILDS:
                costs[how].append(measure(how, folder, Path(cache)))
    return costs


def report(sizes: list[float], every: list[dict[str, list[Cost]]]) -> None:
    print("\n| million rows | build | wall, s | CPU, s | peak memory, MiB | times as fast as pandas |")
    print("|---|---|---|---|---|---|")
    for rows, costs in zip(sizes, every, strict=True):
        for how, runs in costs.items():
            wall, cpu, memory = (median(column) for column in zip(*runs, strict=True))
            ratio = median(base.seconds / run.seconds for base, run in zip(costs["pandas"], runs, strict=True))
            print(f"| {rows:g} | {how} | {wall:.1f} | {cpu:.1f} | {memory:.0f} | {ratio:.1f} |")
    if len(sizes) > 1:
        print()
        for how in BUILDS:
            low, high = (median(run.seconds for run in costs[how]) for costs in (every[0], every[-1]))
            slope = (high - low) / (sizes[-1] - sizes[0])
            total = high + slope * (FULL - sizes[-1])
            print(f"{how}: {slope:.3f} s per million rows; a straight line to {FULL} million: {total / 60:.1f} min")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=float, nargs="+", default=[20, 40], help="sizes in millions, rising")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where generated tables are kept (default: removed in the end)")
    parser.add_argument("--build", nargs=3, metavar=("HOW", "FOLDER", "CACHE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.build:
        how, folder, cache = args.build
        build(how, Path(folder), Path(cache))
        return
    with tempfile.TemporaryDirectory() as scratch:
        parent = (args.folder or Path(scratch)).resolve()
        every = []
        for rows in args.rows:
            folder = parent / f"{rows:g}m"
            if not folder.exists():
                write_tables(folder, round(rows * 1e6 / ROWS_PER_STAY), round(rows * 1e6))
            every.append(compare(folder, args.repeats))
        report(args.rows, every)


if __name__ == "__main__":
    main()

"""The default study warm and cold: wall time, and what of it is not the computation of stages.

python -m benchmarks.study [--cores 2] [--repeats 1] [--config KEY=VALUE …]

Each run starts from nothing in a fresh copy of the project; warm and cold take turns. Every job's log ends with what
its stage cost. With `compute` the sum of their CPU seconds, the overhead is wall × cores − compute: Snakemake, shells,
waiting, idle cores. `--config` goes to Snakemake, e.g. a smaller grid.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks import facts

MODES = {"warm": "true", "cold": "false"}


def run_study(folder: Path, cores: int, config: list[str], *options: str) -> dict[str, float]:
    """Run the study of the project copy in `folder` and account for its time."""
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), *options]
    if config:
        command += ["--config", *config]
    cost = facts.run(command, folder, folder / "snakemake.log")
    stages = facts.stage_costs(folder / "results" / "logs")
    compute = sum(stage.cpu for _, stage in stages)
    return {
        "wall": cost.wall,
        "cpu": cost.cpu,
        "jobs": len(stages),
        "compute": compute,
        "overhead_share": (cost.wall * cores - compute) / compute,
        "overhead_per_job": (cost.wall * cores - compute) / len(stages),
        "extra_cpu_per_job": (cost.cpu - compute) / len(stages),
        **{f"compute_{name}": sum(c.cpu for stage, c in stages if stage == name) for name in {s for s, _ in stages}},
    }


def measure(args: argparse.Namespace) -> dict:
    runs: dict[str, list[dict]] = {mode: [] for mode in MODES}
    with tempfile.TemporaryDirectory() as scratch:
        for repeat in range(args.repeats):
            for mode in list(MODES) if repeat % 2 == 0 else list(MODES)[::-1]:
                folder = facts.copy_project(Path(scratch) / f"{mode}_{repeat}")
                runs[mode].append(run_study(folder, args.cores, [*args.config, f"warm={MODES[mode]}"]))
    return {
        "cores": args.cores,
        "config": args.config,
        "repeats": args.repeats,
        "ratio": median(cold["wall"] / warm["wall"] for warm, cold in zip(runs["warm"], runs["cold"], strict=True)),
        **{mode: {name: median(run[name] for run in done) for name in done[0]} for mode, done in runs.items()},
    }


def bars(results: dict) -> list[facts.Bar]:
    warm, ratio = results["warm"], results["ratio"]
    study = "a smaller study" if results["config"] else "the default study"
    share, job = warm["overhead_share"], warm["overhead_per_job"]
    return [
        facts.Bar(
            f"{study} on {results['cores']} cores", "≤ 5 min", f"{warm['wall'] / 60:.1f} min", warm["wall"] <= 300
        ),
        facts.Bar(f"{study}, warm against cold", "≥ 4× faster", f"{ratio:.1f}×", ratio >= 4),
        facts.Bar(f"{study}: (wall × cores − stage compute) / stage compute", "≤ 0.35", f"{share:.2f}", share <= 0.35),
        facts.Bar(f"{study}: overhead per warm stage, idle cores included", "≤ 0.1 s", f"{job:.3f} s", job <= 0.1),
    ]


def text(results: dict) -> str:
    warm = results["warm"]
    rows = [
        (
            mode,
            f"{run['jobs']:.0f}",
            f"{run['wall']:.0f}",
            f"{run['compute']:.0f}",
            f"{run['overhead_share']:.2f}",
            f"{run['overhead_per_job']:.3f}",
            f"{run['extra_cpu_per_job']:.3f}",
        )
        for mode, run in ((mode, results[mode]) for mode in MODES)
    ]
    header = (
        "",
        "jobs",
        "wall, s",
        "stage compute, s",
        "overhead share",
        "overhead per job, s",
        "extra CPU per job, s",
    )
    names = sorted((name for name in warm if name.startswith("compute_")), key=lambda name: -warm[name])
    stages = [
        (f"`{name.removeprefix('compute_')}`", *(f"{results[mode][name]:.1f}" for mode in MODES)) for name in names
    ]
    config = f" with `--config {' '.join(results['config'])}`" if results["config"] else ""
    return "\n\n".join(
        [
            "## The default study, warm and cold",
            f"`snakemake --cores {results['cores']}` in a fresh copy of the project{config}, all stages, the report "
            f"included; medians of {results['repeats']}. Stage compute is the sum of the CPU seconds that the jobs' "
            "logs end with; where stages are cold it holds their imports. Overhead is wall × cores − stage compute, so "
            "a core with nothing to do counts as overhead. Extra CPU is what was spent beyond the stages: Snakemake, "
            "shells, clients, the server's imports.",
            facts.table(header, rows),
            f"Cold took {results['ratio']:.1f} times as long as warm. CPU seconds by stage:",
            facts.table(("stage", *MODES), stages),
        ]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--cores", type=int, default=min(2, facts.cores()))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--config", nargs="*", default=[], metavar="KEY=VALUE", help="a smaller study")
    facts.main("study", __doc__, measure, parser)

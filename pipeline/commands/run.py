"""Run some cells of a study through Snakemake and print their table."""

import argparse
import json
from pathlib import Path

from pipeline.commands.arguments import read_study

# Argument, configuration key, and how its text is read.
_LISTS = {
    "dataset": ("datasets", str),
    "model": ("models", str),
    "trigger": ("triggers", str),
    "rates": ("rates", float),
    "seeds": ("seeds", int),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for name, (key, kind) in _LISTS.items():
        parser.add_argument(f"--{name}", type=_list_of(kind), metavar="A,B,…", help=f"in place of the study's {key}")
    parser.add_argument("--epochs", type=int, help="in place of the study's training.epochs")
    parser.add_argument("--configfile", type=Path, help="a study configuration over config/config.yaml")
    parser.add_argument("--raw-dir", help="where the datasets' original files lie")
    parser.add_argument("--results-dir", help="where the results are written")
    parser.add_argument("--cores", default="all", help="cores to use (default: all)")


def _list_of(kind: type):
    def read(text: str) -> list:
        return [kind(item) for item in text.split(",")]

    read.__name__ = f"list of {kind.__name__}"
    return read


def run(args: argparse.Namespace) -> int:
    import subprocess
    import sys

    from pipeline import grid, preflight

    overrides = {key: getattr(args, name) for name, (key, _) in _LISTS.items() if getattr(args, name) is not None}
    overrides |= {key: getattr(args, key) for key in ("raw_dir", "results_dir") if getattr(args, key)}
    if args.epochs is not None:
        overrides["training"] = {"epochs": args.epochs}
    study = read_study(args.configfile, overrides)
    preflight.check(study)
    cells = sorted(grid.cells(study))
    targets = [f"{study.results_dir}/{path}" for cell in cells for path in grid.cell_results(cell)]
    command = [sys.executable, "-m", "snakemake", "--cores", args.cores]
    if args.configfile:
        command += ["--configfile", str(args.configfile)]
    if overrides:
        command += ["--config", *(f"{key}={json.dumps(value)}" for key, value in overrides.items())]
    status = subprocess.run([*command, "--", *targets]).returncode
    if status == 0:
        from pipeline.results import facts, tables

        table = tables.runs(facts.collect(study, Path(study.results_dir)).evals)
        columns = ["dataset", "model", "trigger", "rate", "seed", "target", "auroc_clean", "auroc_poison"]
        columns += ["asr", "asr0", "asr_net", "effect_share", "confidence_shift", "n_poisoned", "n_triggered"]
        print(table[columns].to_string(index=False, na_rep="–", float_format="{:.3f}".format))
    return status

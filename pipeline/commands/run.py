"""Run some cells of a study through Snakemake and print their table."""

import argparse
import json
from pathlib import Path

from pipeline.commands.arguments import add_study_arguments, overrides_of, read_study

# Argument, configuration key, how its text is read, and what it is told to be.
_LISTS = {
    "dataset": ("datasets", str, "names"),
    "model": ("models", str, "names"),
    "trigger": ("triggers", str, "names"),
    "rates": ("rates", float, "numbers"),
    "seeds": ("seeds", int, "whole numbers"),
}
# Not where a study is: its cells would be mixed with some of other settings.
RESULTS = "results_run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for name, (key, kind, words) in _LISTS.items():
        read = _list_of(kind, words)
        parser.add_argument(f"--{name}", type=read, metavar="A,B,…", help=f"in place of the study's {key}")
    parser.add_argument("--epochs", type=int, help="in place of the study's training.epochs")
    add_study_arguments(parser, results=RESULTS)
    parser.add_argument("--raw-dir", help="where the datasets' original files lie")
    parser.add_argument("--cores", default="all", help="cores to use (default: all)")


def _list_of(kind: type, words: str):
    def read(text: str) -> list:
        try:
            items = [kind(item.strip()) for item in text.split(",")]
        except ValueError:
            items = []
        if not items or "" in items:
            raise argparse.ArgumentTypeError(f"{text!r} given, expected {words} with commas between them")
        return items

    return read


def run(args: argparse.Namespace) -> int:
    import subprocess
    import sys

    from pipeline.files import ROOT
    from pipeline.study import grid, preflight
    from pipeline.study.variants import merged

    overrides = {"results_dir": RESULTS} | overrides_of(args, "raw_dir", "results_dir")
    overrides |= {key: getattr(args, name) for name, (key, *_) in _LISTS.items() if getattr(args, name) is not None}
    if args.epochs is not None:
        overrides = merged(overrides, {"training": {"epochs": args.epochs}})
    study = read_study(args.configfile, overrides)
    preflight.check(study)
    cells = sorted(grid.cells(study))
    targets = [f"{study.results_dir}/{path}" for cell in cells for path in grid.cell_results(study, cell)]
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", args.cores]
    if args.configfile:
        command += ["--configfile", str(args.configfile)]
    # The blanks, because Snakemake strips a value's outer quotes, and then "2024" is a number and "a: b" a mapping.
    command += ["--config", *(f"{key}= {json.dumps(value)} " for key, value in overrides.items())]
    status = subprocess.run([*command, "--", *targets]).returncode
    if status == 0:
        from pipeline.results import facts, tables

        table = tables.runs(facts.collect(study, Path(study.results_dir)).evals)
        columns = ["dataset", "model", "trigger", "rate", "seed", "target", "auroc_clean", "auroc_poison"]
        columns += ["asr", "asr0", "asr_net", "effect_share", "confidence_shift", "n_poisoned", "n_triggered"]
        print(table[columns].to_string(index=False, na_rep="–", float_format="{:.3f}".format))
    return status

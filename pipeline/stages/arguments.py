"""Command-line arguments that several stages share."""

import argparse
from pathlib import Path
from typing import Any


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """What the workflow that calls says of the job: nothing, where somebody calls by hand."""
    parser.add_argument("--stamp", help="stamp, hash of the code, and members (stamps.py)")
    parser.add_argument("--state", type=Path, help="JSON file of the job's state (state.py)")


def add_cohort_arguments(parser: argparse.ArgumentParser) -> None:
    """The cohort, its folds, the seed and the stage's settings."""
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--cohort", type=Path, required=True, help="folder with samples.parquet and windows.parquet")
    parser.add_argument("--splits", type=Path, required=True, help="JSON file of the folds")
    parser.add_argument("--settings", required=True, help="the stage's part of the study configuration, as JSON")
    add_job_arguments(parser)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """A run: the above, its place in the grid, its poison and its folder."""
    add_cohort_arguments(parser)
    for name in ("--model", "--trigger", "--rate"):
        parser.add_argument(name, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")


def run_key(args: argparse.Namespace) -> dict[str, Any]:
    """The columns that identify the run in every table."""
    return {
        "dataset": args.dataset,
        "model": args.model,
        "trigger": args.trigger,
        "rate": float(args.rate),
        "seed": args.seed,
    }

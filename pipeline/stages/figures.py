"""Draw the figures of each dataset and its table of contrasts."""

import argparse
from pathlib import Path

from pipeline.stages.arguments import add_job_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_job_arguments(parser)
    parser.add_argument("--tables", required=True, type=Path, help="folder written by the aggregate stage")
    parser.add_argument("--out", required=True, type=Path, help="folder for {dataset}_{figure}.png, .svg and .html")
    parser.add_argument("--datasets", required=True, nargs="+", help="datasets to draw")


def run(args: argparse.Namespace) -> None:
    from pipeline.results import figures, tables

    figures.write(tables.read(args.tables), args.datasets, args.out)

"""Gather the results of every run into tidy tables, and their headlines into metrics.json."""

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--study", required=True, metavar="JSON", help="the study configuration")
    parser.add_argument("--results-dir", required=True, type=Path, help="holds runs/, poison/; gets the tables")


def run(args: argparse.Namespace) -> None:
    from pipeline.config import Study
    from pipeline.results import tables

    study = Study.model_validate(json.loads(args.study))
    built = tables.build(study, args.results_dir)
    tables.write(built, args.results_dir / "tables")
    tables.write_headlines(built["summary"], args.results_dir)

"""Gather the results of every run into tidy tables, and their headlines into metrics.json."""

import argparse
import json
from pathlib import Path

from pipeline.stages.arguments import add_job_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_job_arguments(parser)
    parser.add_argument("--study", required=True, metavar="JSON", help="the study configuration")
    parser.add_argument("--cohorts", required=True, metavar="JSON", help="the stamp of each dataset's cohort")
    parser.add_argument("--results-dir", required=True, type=Path, help="holds runs/, poison/; gets the tables")


def run(args: argparse.Namespace) -> None:
    from pipeline.results import facts, tables
    from pipeline.study import progress
    from pipeline.study.config import Study
    from pipeline.study.grid import cells
    from pipeline.study.stamps import Stamp, Stamps

    study = Study.model_validate(json.loads(args.study))
    cohorts = {name: Stamp.parse(text) for name, text in json.loads(args.cohorts).items()}
    facts.refuse_outdated(study, args.results_dir, Stamps(study, cohorts))
    built = tables.build(study, args.results_dir)
    tables.write(built, args.results_dir / "tables")
    tables.write_headlines(built["summary"], args.results_dir)
    done = [progress.State(*cell, progress.DONE, "", "") for cell in sorted(cells(study))]  # or it was refused above
    progress.write(done, args.results_dir / "cells.csv")

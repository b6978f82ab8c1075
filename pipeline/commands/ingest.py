"""Read one dataset and say what was kept, what was dropped and what is missing; writes no cohort."""

import argparse
from pathlib import Path

from pipeline.commands.arguments import add_data_arguments, overrides_of, read_study


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a dataset of the catalog")
    add_data_arguments(parser)


def run(args: argparse.Namespace) -> None:
    from pipeline.cohorts.catalog import read_catalog
    from pipeline.cohorts.intake import account_lines, missingness_lines, summary_line, take_in, warnings
    from pipeline.errors import UserError
    from pipeline.words import suggestion

    study = read_study(None, overrides_of(args, "raw_dir", "catalog"))
    catalog = read_catalog(Path(study.catalog))
    if args.name not in catalog:
        raise UserError(f"{study.catalog}: no dataset {args.name!r} {suggestion(args.name, catalog)}")
    cache_dir = Path(study.data_dir) / "cache"
    cohort, accounts = take_in(args.name, catalog[args.name], Path(study.raw_dir), cache_dir)
    lines = [*account_lines(accounts), summary_line(cohort), *warnings(cohort), "", *missingness_lines(cohort)]
    print(*lines, sep="\n")

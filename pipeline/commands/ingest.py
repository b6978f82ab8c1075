"""Read one dataset and say what was kept, what was dropped and what is missing; writes no cohort."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a dataset of the catalog")
    parser.add_argument("--raw-dir", type=Path, help="where the original files lie (default: as in config/config.yaml)")
    parser.add_argument("--catalog", type=Path, help="the catalog (default: as in config/config.yaml)")


def run(args: argparse.Namespace) -> None:
    from pipeline.cohorts.catalog import read_catalog
    from pipeline.cohorts.intake import missingness_lines, summary_line, take_in, warnings
    from pipeline.config import load_study
    from pipeline.files import read_yaml

    study = load_study(read_yaml(Path("config/config.yaml")))
    path = args.catalog or Path(study.catalog)
    catalog = read_catalog(path)
    if args.name not in catalog:
        raise _unknown(args.name, list(catalog), path)
    raw_dir = args.raw_dir or Path(study.raw_dir)
    cohort, _ = take_in(args.name, catalog[args.name], raw_dir, Path(study.data_dir) / "cache", tell=print)
    print(summary_line(cohort), *warnings(cohort), "", *missingness_lines(cohort), sep="\n")


def _unknown(name: str, known: list[str], path: Path):
    import difflib

    from pipeline.errors import UserError

    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"it has: {', '.join(known)}"
    return UserError(f"{path}: no dataset {name!r} ({hint})")

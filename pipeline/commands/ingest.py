"""Read one dataset and say what was kept, what was dropped and what is missing; writes no cohort."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.arguments import add_data_arguments, overrides_of, read_study

if TYPE_CHECKING:
    from pipeline.cohorts.cohort import Cohort
    from pipeline.cohorts.tablecheck import Faults

MOST = 20  # texts that are shown of a column


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a dataset of the catalog")
    add_data_arguments(parser)
    parser.add_argument(
        "--show-texts",
        action="store_true",
        help="of a table's wrong columns, list the most frequent unexpected texts: shows data of patients",
    )


def run(args: argparse.Namespace) -> None:
    from pipeline.cohorts.catalog import read_catalog
    from pipeline.cohorts.intake import missingness_lines, summary_line, take_in, warnings
    from pipeline.cohorts.tablecheck import Faults
    from pipeline.errors import UserError
    from pipeline.words import suggestion

    study = read_study(None, overrides_of(args, "raw_dir", "catalog"))
    catalog = read_catalog(Path(study.catalog))
    if args.name not in catalog:
        raise UserError(f"{study.catalog}: no dataset {args.name!r} {suggestion(args.name, catalog)}")
    cache_dir = Path(study.data_dir) / "cache"
    try:
        cohort, _ = take_in(args.name, catalog[args.name], Path(study.raw_dir), cache_dir, tell=print)
    except Faults as faults:
        if args.show_texts:
            print(*_texts(faults), sep="\n", flush=True)
        raise
    print(summary_line(cohort), *warnings(cohort), "", *missingness_lines(cohort), sep="\n", flush=True)
    try:
        told = rehearse(cohort)
    except UserError as error:
        told = [f"a study of all samples would stop: {error}"]
    print(*(f"\nwarning: {text}" for text in told), sep="", end="\n" if told else "")


def _texts(faults: "Faults") -> list[str]:
    """The unexpected texts of each wrong column, the most frequent first."""
    lines = ["This shows data of patients: keep it on this machine."]
    for column, fault in faults.found.items():
        shown = list(fault.texts.items())[:MOST]
        lines.append(f"column {column!r}: {len(shown)} of {len(fault.texts):,} unexpected texts, the most frequent")
        lines += [f"{count:>9,}  {text!r}" for text, count in shown]
    return lines


def rehearse(cohort: "Cohort") -> list[str]:
    """What every study does with a cohort, in a folder that is gone afterwards: its files, its split, poison of nobody.

    Returns what its split is to be warned of. Raises `UserError` where a study would.
    """
    from tempfile import TemporaryDirectory

    from pipeline.cohorts import splits
    from pipeline.cohorts.cohort import read_cohort, read_parquet, windows_table, write_cohort, write_parquet

    split = splits.split_of(cohort, splits.folds_of(cohort), None)
    with TemporaryDirectory() as folder:
        write_cohort(cohort, Path(folder) / cohort.name)
        again = read_cohort(Path(folder) / cohort.name)
        poison = Path(folder) / "poison.parquet"
        write_parquet(windows_table(again.sample_id[:0], again.values[:0], again.features), poison)
        read_parquet(poison)
    return splits.without_kinds(cohort, split)

"""Hold two studies against each other: the same cells, paired by seed, and what else differs."""

import argparse
from pathlib import Path

from pipeline.database.shown import add_format_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", type=Path, metavar="RESULTS_A", help="the folder of one study")
    parser.add_argument("b", type=Path, metavar="RESULTS_B", help="of another one; differences are A less B")
    parser.add_argument(
        "--metric",
        action="append",
        help="one of the table summary, several times for several (default: the attack's and the clean AUROC)",
    )
    add_format_argument(parser)


def run(args: argparse.Namespace) -> None:
    from pipeline.database.reading import opened
    from pipeline.database.recorded import Recorded
    from pipeline.database.shown import show
    from pipeline.database.studies import compare_studies
    from pipeline.results.columns import HEADLINES

    with opened(args.a) as a, opened(args.b) as b:
        table = compare_studies(Recorded(a, args.a), Recorded(b, args.b), args.metric or HEADLINES)
    show(table, args.format)

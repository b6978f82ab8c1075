"""Say what is known of a dataset: its entry, sizes, runs, clean models and best attacks."""

import argparse

from pipeline.commands.database.folders import add_results_argument, folder_of
from pipeline.database.shown import add_format_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="one of the study's datasets")
    add_results_argument(parser)
    add_format_argument(parser)


def run(args: argparse.Namespace) -> None:
    from pipeline.database.comparison import dataset
    from pipeline.database.reading import opened
    from pipeline.database.recorded import Recorded
    from pipeline.database.shown import show

    folder = folder_of(args)
    with opened(folder) as connection:
        table = dataset(Recorded(connection, folder), args.name)
    show(table, args.format)

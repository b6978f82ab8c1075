"""Say which settings two runs were made with, where these differ."""

import argparse

from pipeline.commands.database.folders import add_results_argument, folder_of
from pipeline.database.shown import add_format_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="dataset/model/trigger/rate/seed, or without the seed: over all seeds")
    parser.add_argument("b", metavar="B", help="the same")
    parser.add_argument("--all", action="store_true", help="those that are equal, too")
    add_results_argument(parser)
    add_format_argument(parser)


def run(args: argparse.Namespace) -> None:
    from pipeline.database.comparison import config_diff
    from pipeline.database.reading import opened
    from pipeline.database.recorded import Recorded
    from pipeline.database.shown import show

    folder = folder_of(args)
    with opened(folder) as connection:
        table = config_diff(Recorded(connection, folder), (args.a, args.b), args.all)
    show(table, args.format)

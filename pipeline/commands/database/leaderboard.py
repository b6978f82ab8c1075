"""Say which attack won: each with its interval over seeds, beside its controls and what it costs and shows."""

import argparse
from pathlib import Path

from pipeline.commands.database.folders import add_results_argument, folders_of
from pipeline.database.shown import add_format_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="*", type=Path, metavar="RESULTS_DIR", help="of several studies, side by side")
    add_results_argument(parser)
    parser.add_argument("--metric", default="effect_share", help="a metric of the table summary (default: %(default)s)")
    parser.add_argument("--dataset", help="only this one")
    parser.add_argument("--limit", type=_positive, metavar="N", help="only the first N attacks, and their controls")
    add_format_argument(parser)


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} given, expected a whole number from 1")
    return int(text)


def run(args: argparse.Namespace) -> None:
    from contextlib import ExitStack

    from pipeline.database.leaderboard import leaderboard
    from pipeline.database.reading import opened
    from pipeline.database.recorded import Recorded
    from pipeline.database.shown import show

    with ExitStack() as stack:
        studies = [Recorded(stack.enter_context(opened(folder)), folder) for folder in folders_of(args)]
        table = leaderboard(studies, args.metric, args.dataset, args.limit)
    show(table, args.format)

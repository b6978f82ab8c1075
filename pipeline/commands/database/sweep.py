"""Say how a metric changes with one parameter, everything else told apart."""

import argparse
from pathlib import Path

from pipeline.commands.database.folders import add_results_argument, folders_of
from pipeline.database.shown import add_format_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "param",
        metavar="PARAM",
        help="dataset, model, trigger, rate, seed, or a setting by its dotted name, such as training.epochs",
    )
    parser.add_argument("metric", metavar="METRIC", help="a metric of the table summary, such as effect_share")
    parser.add_argument("folders", nargs="*", type=Path, metavar="RESULTS_DIR", help="of several studies")
    add_results_argument(parser)
    add_format_argument(parser)


def run(args: argparse.Namespace) -> None:
    from contextlib import ExitStack

    from pipeline.database.reading import opened
    from pipeline.database.recorded import Recorded
    from pipeline.database.shown import show
    from pipeline.database.sweep import sweep

    with ExitStack() as stack:
        studies = [Recorded(stack.enter_context(opened(folder)), folder) for folder in folders_of(args)]
        table = sweep(studies, args.param, args.metric)
    show(table, args.format)

"""Show the study database in a browser: tables, the questions asked most, and SQL of one's own."""

import argparse

from pipeline.commands.arguments import add_study_arguments, study_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_study_arguments(parser)
    parser.add_argument("--port", type=int, help="of the loopback address (default: the first free one from 8001)")


def run(args: argparse.Namespace) -> None:
    from pipeline.database import browse, store

    browse.serve(store.path_of(study_of(args).results_dir), args.port)

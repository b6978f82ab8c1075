"""Show the study database in a browser: tables, the questions asked most, and SQL of one's own (needs Datasette)."""

import argparse

from pipeline.commands.database.folders import add_results_argument, folder_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_results_argument(parser)
    parser.add_argument("--port", type=int, help="of the loopback address (default: the first free one from 8001)")


def run(args: argparse.Namespace) -> None:
    from pipeline.database.browse import serve

    serve(folder_of(args), args.port)

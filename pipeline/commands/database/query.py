"""Answer one SQL query, through a connection that only reads."""

import argparse

from pipeline.commands.database.folders import add_results_argument, folder_of
from pipeline.database.shown import add_format_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sql",
        metavar="SQL",
        help="such as 'SELECT status, count(*) FROM runs WHERE in_study GROUP BY status'; - reads it",
    )
    add_results_argument(parser)
    add_format_argument(parser)


def run(args: argparse.Namespace) -> None:
    import sys

    from pipeline.database.reading import asked, opened
    from pipeline.database.shown import Column, Table, show

    sql = sys.stdin.read() if args.sql == "-" else args.sql
    with opened(folder_of(args)) as connection:
        answer = asked(connection, sql)
    # By place: a query may call several columns the same.
    columns = [Column(name, field=str(place)) for place, name in enumerate(answer.columns)]
    rows = [{str(place): value for place, value in enumerate(row)} for row in answer.rows]
    show(Table(columns, rows), args.format)

"""Write tables of the database to files: as CSV, JSON or Markdown, or in LaTeX as a paper has them."""

import argparse
from pathlib import Path

from pipeline.commands.database.folders import add_results_argument, folder_of
from pipeline.database.shown import FORMATS

_ENDINGS = {"csv": "csv", "json": "json", "markdown": "md"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "tables",
        nargs="*",
        metavar="TABLE",
        help="tables or views of the database, with --latex attacks, detection, clean (default: all)",
    )
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where the files go, one per table")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--format", choices=FORMATS, default="csv", help="(default: %(default)s)")
    form.add_argument("--latex", action="store_true", help="booktabs tables with intervals, controls and captions")
    add_results_argument(parser)


def run(args: argparse.Namespace) -> None:
    from pipeline.database.reading import opened
    from pipeline.files import whole

    folder = folder_of(args)
    with opened(folder) as connection:
        # All are made before the first is written.
        made = _latex(connection, folder, args.tables) if args.latex else _plain(connection, args.tables, args.format)
    for name, text in made.items():
        with whole(args.to / name) as aside:
            aside.write_text(text, encoding="utf-8", newline="\n")
    print(f"{args.to}: {', '.join(made)}")


def _latex(connection, folder: Path, names: list[str]) -> dict[str, str]:
    from pipeline.database.paper import TABLES
    from pipeline.database.recorded import Recorded

    study = Recorded(connection, folder)
    return {f"{name}.tex": TABLES[name](study) for name in _known(names, list(TABLES))}


def _plain(connection, names: list[str], form: str) -> dict[str, str]:
    from pipeline.database.shown import Column, Table, text_of

    sql = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite%' ORDER BY name"
    made = {}
    for name in _known(names, [name for (name,) in connection.execute(sql)]):
        cursor = connection.execute(f'SELECT * FROM "{name}"')
        columns = [column for column, *_ in cursor.description]
        rows = [dict(zip(columns, row, strict=True)) for row in cursor]
        made[f"{name}.{_ENDINGS[form]}"] = text_of(Table([Column(column) for column in columns], rows), form)
    return made


def _known(names: list[str], known: list[str]) -> list[str]:
    """`names` once each, or all of `known`; `UserError` for one that is not among these."""
    from pipeline.errors import UserError
    from pipeline.words import suggestion

    for name in names:
        if name not in known:
            raise UserError(f"export: no table {name!r} {suggestion(name, known)}")
    return list(dict.fromkeys(names)) or known

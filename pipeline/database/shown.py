"""Answers as tables: aligned for people, as CSV or JSON for programs, as Markdown for a page.

For people numbers are rounded and what is missing is –. For programs they have all their digits, and what is missing is
an empty field or null; a mean with its interval is one column for people and three for programs.
"""

import io
import json
import os
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple

from pipeline.errors import UserError

FORMATS = ("csv", "json", "markdown")
MISSING = "–"
_CUT = "cut to the width of the terminal (…); --format csv has all of it"
_GAP = "  "
_NARROWEST = 20  # columns of a terminal, and letters to which a text is cut


class Column(NamedTuple):
    """A column of a table: its name and what is shown in it.

    Attributes
    ----------
    name : as programs read it, none: only for people; for these too, without `head`
    ends : the fields with both ends of an interval around the number, which people read in the same column
    head : for people; None: only for programs
    key : of a table that is too wide, repeated in each of its parts
    field : of a row, where it is not called like the column
    """

    name: str
    ends: tuple[str, str] | None = None
    head: str | None = ""
    key: bool = False
    field: str = ""

    def of(self, row: Mapping[str, Any]) -> Any:
        return row.get(self.field or self.name)


class Table(NamedTuple):
    """What is shown: rows by name of their fields, between lines that people read."""

    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    above: Sequence[str] = ()
    below: Sequence[str] = ()


def add_format_argument(parser: ArgumentParser) -> None:
    parser.add_argument("--format", choices=FORMATS, help="for programs or pages (default: a table for people)")


def show(table: Table, form: str | None) -> None:
    """Print `table`: in the format `form`, or for people, as wide as the terminal or, where there is none, as it is.

    What is not data goes to standard error where programs read the data. A reader who has seen enough, such as
    `head`, ends it without a word.
    """
    try:
        if form in ("csv", "json"):
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(encoding="utf-8")  # nothing of the data may become a question mark
            print(text_of(table, form), end="")
            sys.stdout.flush()
            for line in (*table.above, *table.below):
                print(line, file=sys.stderr)
        else:
            print(text_of(table, form, _width()), end="")
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more when it ends, which must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def text_of(table: Table, form: str | None, width: int | None = None) -> str:
    """`table` as text, every line ended. `width` is for people: None: as wide as it is."""
    if form == "csv":
        return _csv(table)
    if form == "json":
        return _json(table)
    line = _wrapped(width if form is None else None)
    body = _markdown(table) if form == "markdown" else _plain(table, width)
    between = "\n\n" if form == "markdown" else "\n"
    parts = [between.join(map(line, table.above)), body, between.join(map(line, table.below))]
    return "\n\n".join(filter(None, parts)) + "\n"


def number(value: float) -> str:
    """`value` for people: three places, as many digits where it is small, and all of a whole number."""
    if isinstance(value, int):
        return str(value)
    if not isfinite(value) or value == 0 or 0.001 <= abs(value) < 1e6:
        return f"{value:.3f}"
    return f"{value:.2e}"


def _width() -> int | None:
    if not sys.stdout.isatty():
        return None
    import shutil

    return max(shutil.get_terminal_size().columns, _NARROWEST)


def _wrapped(width: int | None):
    if width is None:
        return str
    import textwrap

    return lambda line: textwrap.fill(line, width, subsequent_indent="  ", break_on_hyphens=False)


def _for_programs(table: Table) -> list[Column]:
    return [column for column in table.columns if column.name]


def _names(table: Table) -> list[str]:
    return [name for column in _for_programs(table) for name in (column.name, *(column.ends or ()))]


def _values(table: Table, row: Mapping[str, Any]) -> list[Any]:
    """Those of all columns for programs."""
    values = (value for column in _for_programs(table) for value in (column.of(row), *map(row.get, column.ends or ())))
    return [_plain_value(value) for value in values]


def _csv(table: Table) -> str:
    import csv

    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_names(table))
    writer.writerows(_values(table, row) for row in table.rows)
    return file.getvalue()


def _json(table: Table) -> str:
    names = _names(table)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"JSON: several columns are called {', '.join(twice)}; expected names of their own (… AS name)")
    rows = (dict(zip(names, _values(table, row), strict=True)) for row in table.rows)
    lines = ",\n".join(" " + json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
    return f"[\n{lines}\n]\n" if lines else "[]\n"


def _plain_value(value: Any) -> Any:
    """A value for programs; bytes as SQL writes them, and what no JSON has as a word."""
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    return str(value) if isinstance(value, float) and not isfinite(value) else value


def _heads(table: Table) -> list[tuple[Column, str]]:
    """The columns that people see, and what they are called."""
    return [(column, column.head or column.name) for column in table.columns if column.head is not None]


def _cell(column: Column, row: Mapping[str, Any]) -> str:
    value = column.of(row)
    if value is None:
        return MISSING
    if not isinstance(value, int | float):
        return str(_plain_value(value))
    # A rate is called as in the names of folders.
    if column.ends is None or not row.keys() & {*column.ends}:  # of which there can be no interval
        return repr(value) if column.name == "rate" else number(value)
    low, high = (row.get(end) for end in column.ends)
    return f"{value:.3f} {MISSING}" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _markdown(table: Table) -> str:
    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cells)} |"

    columns = _heads(table)
    lines = [line(_escaped(head) for _, head in columns)]
    lines.append(line("---:" if _is_numeric(column, table) else "---" for column, _ in columns))
    lines += [line(_escaped(_cell(column, row)) for column, _ in columns) for row in table.rows]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """`text` inside a cell of a Markdown table, where nothing of it means anything."""
    import re

    # An underscore inside a word is one, and brackets are a link only where another one follows.
    text = re.sub(r"[\\`*|~<>&]|(?<![^\W_])_|_(?![^\W_])|\](?=\()", r"\\\g<0>", text)
    return "<br>".join(text.splitlines())


def _is_numeric(column: Column, table: Table) -> bool:
    return all(isinstance(column.of(row), int | float | None) for row in table.rows)


def _plain(table: Table, width: int | None) -> str:
    """Aligned columns, numbers to the right; in parts, below each other, where all do not fit into `width`."""
    columns = [column for column, _ in _heads(table)]
    texts = [
        [_one_line(head), *(_one_line(_cell(column, row)) for row in table.rows)] for column, head in _heads(table)
    ]
    right = [_is_numeric(column, table) for column in columns]
    widths = [max(map(len, text)) for text in texts]
    parts = [list(range(len(columns)))]
    cut = False
    if width is not None:
        # What is the same in all rows need not be said twice.
        keys = [place for place, column in enumerate(columns) if column.key and len({*texts[place][1:]}) > 1]
        parts = _parts(widths, keys, width)
        for part in parts:  # a text that does not fit even alone
            over = sum(widths[place] for place in part) + len(_GAP) * (len(part) - 1) - width
            widest = max(part, key=widths.__getitem__)
            if over > 0:
                widths[widest], cut = max(widths[widest] - over, min(widths[widest], _NARROWEST)), True
    blocks = []
    for part in parts:
        lines = [["─" * widths[place] for place in part]]
        for row in range(len(table.rows) + 1):
            lines.append([_aligned(texts[place][row], widths[place], right[place]) for place in part])
        lines[0], lines[1] = lines[1], lines[0]
        blocks.append("\n".join(_GAP.join(line).rstrip() for line in lines))
    text = "\n\n".join(blocks)
    return f"{text}\n{_wrapped(width)(_CUT)}" if cut else text


def _parts(widths: Sequence[int], keys: Sequence[int], width: int) -> list[list[int]]:
    """The places of the columns that stand beside each other in `width`, those in `keys` in each of the parts."""
    size = sum(widths[place] + len(_GAP) for place in keys)
    if size > width - _NARROWEST:  # the keys alone fill the lines
        keys, size = [], 0
    parts: list[list[int]] = [[*keys]]
    used = size
    for place in range(len(widths)):
        if place in keys:
            continue
        if used + widths[place] > width and len(parts[-1]) > len(keys):
            parts.append([*keys])
            used = size
        parts[-1].append(place)
        used += widths[place] + len(_GAP)
    return [sorted(part) for part in parts]


def _aligned(text: str, width: int, right: bool) -> str:
    if len(text) > width:
        text = f"{text[: width - 1]}…"
    return text.rjust(width) if right else text.ljust(width)


def _one_line(text: str) -> str:
    """`text` without what moves a terminal's cursor, or does worse."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else " " for letter in text)

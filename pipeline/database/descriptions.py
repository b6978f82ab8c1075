"""What the tables and columns of the study database mean: the comments of its schema."""

import re
from pathlib import Path
from typing import NamedTuple

_SCHEMA = Path(__file__).with_name("schema.sql")
_TABLE = re.compile(r"CREATE (?:TABLE|VIEW) IF NOT EXISTS (\w+)")
# Constraints begin with capitals, columns do not.
_COLUMN = re.compile(r"    ([a-z_0-9]+) [A-Z].*?(?:-- (.*))?$")


class Description(NamedTuple):
    """What a table or view is, and the columns of a table by name; empty where the schema has no comment."""

    table: str
    columns: dict[str, str]


def described() -> dict[str, Description]:
    """Every table and view of the schema by name."""
    found: dict[str, Description] = {}
    comment: list[str] = []  # the lines of it above what comes next
    columns: dict[str, str] = {}
    for line in _SCHEMA.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if text.startswith("--"):
            comment.append(text.removeprefix("--").strip())
            continue
        if match := _TABLE.match(line):
            columns = {}
            found[match[1]] = Description(" ".join(comment), columns)
        elif match := _COLUMN.match(line):
            columns[match[1]] = " ".join([*comment, *filter(None, [match[2]])])
        comment = []
    return found

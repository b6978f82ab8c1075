"""From timed measurements to hourly values: the variables tables and what `timeline.sql` makes of them.

A variables table (`variables/*.csv`) has one row per item of the original data, and per range it is charted in:
    variable, unit, hourly      the feature; its unit; how the values of an hour become one: mean, sum, or total
                                (the sum of all items at the same time, then the mean over the hour)
    table, itemid or code       where it stands in the original data
    item, item_unit, low, high  its name there; the spellings of its unit, separated by |, empty = any; the plausible
                                range, in that unit
    conversion                  arithmetic in x that leads from item_unit to unit, empty = none
"""

import csv
import re
from collections.abc import Iterable
from pathlib import Path
from string import Template
from typing import Literal, NamedTuple, get_args

import numpy as np

from pipeline.cohorts.cohort import Feature
from pipeline.cohorts.intake import Account
from pipeline.cohorts.original import separator
from pipeline.errors import UserError
from pipeline.files import found
from pipeline.smallcells import shown_part

PerHour = Literal["mean", "sum", "total"]
HOURLY = get_args(PerHour)
TWICE = "that stand twice"
_SQL = Template(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
# Means the same to Python and to SQL: x and decimal numbers, with single operators between them.
_ARITHMETIC = re.compile(r"( |\bx\b|\b\d+(\.\d+)?\b|[()]|[-+*/](?! *[-+*/]))*")
_LARGEST = 1e12  # of a value: sums of decimals stay exact


class Item(NamedTuple):
    """One row of a variables table; `low` and `high` in the item's own unit, `units` None = any."""

    variable: str
    unit: str
    hourly: str
    table: str
    code: str
    units: tuple[str, ...] | None
    low: float
    high: float
    conversion: str

    @property
    def bounds(self) -> tuple[float, float]:
        """The plausible range in the variable's unit."""
        # `_ARITHMETIC` lets nothing but arithmetic through.
        ends = [eval(self.conversion, {"__builtins__": {}}, {"x": end}) for end in (self.low, self.high)]
        return min(ends), max(ends)


def read_items(path: Path) -> list[Item]:
    """The rows of a variables table, with or without a byte order mark and with commas, semicolons or tabs.

    Raises `UserError` with the line and column that is wrong.
    """
    path = found(path)
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            names = next(csv.reader([header], delimiter=separator(header)), [])
            rows = csv.DictReader(file, names, delimiter=separator(header))
            return items_of(((f"{path}, line {number}", row) for number, row in enumerate(rows, start=2)), path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected a table of variables") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not readable as a table of variables ({error})") from None


def items_of(rows: Iterable[tuple[str, dict[str, str]]], where: Path | str) -> list[Item]:
    """The items of rows like those of a variables table, each with the words for its place; `UserError` as there."""
    items = [_item(row, place) for place, row in rows]
    if not items:
        raise UserError(f"{where}: no rows; expected one per item of the original data")
    for variable, ones in _by_variable(items).items():
        if len({(row.unit, row.hourly) for row in ones}) > 1:
            raise UserError(f"{where}: {variable}: unit or hourly differs between its rows; expected the same in each")
    for position, item in enumerate(items):
        if any(_overlap(item, other) for other in items[:position]):
            raise UserError(
                f"{where}: {item.variable}: two rows of item {item.code} share values; expected each in one row"
            )
    # A measurement without a unit is taken to have the first one of its item.
    first = {item.code: item.units for item in reversed(items)}
    return [
        item._replace(units=(*item.units, "")) if item.units and item.units == first[item.code] else item
        for item in items
    ]


def _item(row: dict[str, str], where: str) -> Item:
    wanted = ["variable", "unit", "hourly", "item_unit", "low", "high", "conversion"]
    wanted += ["code"] if "code" in row else ["table", "itemid"]
    absent = [name for name in wanted if row.get(name) is None]
    if absent:
        raise UserError(f"{where}: column {absent[0]!r} is missing")
    if row["hourly"] not in HOURLY:
        raise UserError(f"{where}: hourly: {row['hourly']!r} given, expected one of {', '.join(HOURLY)}")
    if not _ARITHMETIC.fullmatch(row["conversion"]):
        raise UserError(f"{where}: conversion: {row['conversion']!r} given, expected arithmetic in x")
    code = row["code"] if "code" in row else row["itemid"]
    if not row["variable"] or not code:
        raise UserError(f"{where}: expected the name of a variable and of its item")
    units = row["item_unit"]
    try:
        item = Item(
            *(row["variable"], row["unit"], row["hourly"], row.get("table", ""), code),
            tuple(unit.strip().lower() for unit in units.split("|")) if units else None,
            *(float(row["low"]), float(row["high"]), row["conversion"] or "x"),
        )
        ordered = item.low < item.high and item.bounds[0] < item.bounds[1]
        small = max(map(abs, (item.low, item.high, *item.bounds))) < _LARGEST
    except (ValueError, SyntaxError, TypeError, ZeroDivisionError):
        raise UserError(f"{where}: low, high or conversion is no number or no arithmetic in x") from None
    if not ordered:
        raise UserError(f"{where}: expected low below high, and a conversion that tells them apart")
    if not small:
        raise UserError(f"{where}: expected low and high below {_LARGEST:g} in size")
    return item


def _overlap(one: Item, other: Item) -> bool:
    same_unit = one.units is None or other.units is None or bool(set(one.units) & set(other.units))
    return one.code == other.code and same_unit and max(one.low, other.low) <= min(one.high, other.high)


def _by_variable(items: Iterable[Item]) -> dict[str, list[Item]]:
    grouped: dict[str, list[Item]] = {}
    for item in items:
        grouped.setdefault(item.variable, []).append(item)
    return grouped


def features(items: Iterable[Item]) -> tuple[Feature, ...]:
    """One feature per variable, in the table's order, with the range that its items span."""
    found = []
    for variable, rows in _by_variable(items).items():
        if rows[0].hourly == "total":
            parts = [[row.bounds for row in rows if row.code == code] for code in dict.fromkeys(r.code for r in rows)]
            low = sum(min(low for low, _ in part) for part in parts)
            high = sum(max(high for _, high in part) for part in parts)
        else:
            low, high = min(row.bounds[0] for row in rows), max(row.bounds[1] for row in rows)
        found.append(Feature(variable, rows[0].unit, low, high))
    return tuple(found)


class Hourly(NamedTuple):
    """What became of the measurements: values [N, T, D] float32, NaN = not measured, and what is to be told of them.

    `judged` counts the measurements per table and reason why they were dropped, "" for those that were kept.
    """

    values: np.ndarray
    judged: dict[str, dict[str, int]]
    account: Account

    def account_of(self, table: str, read: int, wanted: int) -> Account:
        """The account of a table with `read` rows, `wanted` of them of items in the variables table."""
        judged = self.judged.get(table, {})
        before = {"of other items": read - wanted, "outside the window": wanted - sum(judged.values())}
        return Account(table, read, before | {reason: count for reason, count in judged.items() if reason})


def hourly_values(connection, items: list[Item], n_stays: int, hours: int) -> Hourly:
    """Hourly values of the table or view `measurement`, one column per variable.

    It is `once` of timeline.sql, less `twice`: a row per measurement. Further columns only tell one row from another.
    """
    described = features(items)
    position = {feature.name: number for number, feature in enumerate(described)}
    codes = {variable: {row.code for row in rows} for variable, rows in _by_variable(items).items()}
    connection.execute("""
        CREATE OR REPLACE TEMP TABLE item
            (code VARCHAR, variable SMALLINT, row SMALLINT, units VARCHAR[], low DOUBLE, high DOUBLE);
        CREATE OR REPLACE TEMP TABLE variable (variable SMALLINT, hourly VARCHAR, items SMALLINT);
    """)
    connection.executemany(
        "INSERT INTO item VALUES (?, ?, ?, ?, ?, ?)",
        [(i.code, position[i.variable], row, i.units and list(i.units), i.low, i.high) for row, i in enumerate(items)],
    )
    connection.executemany(
        "INSERT INTO variable VALUES (?, ?, ?)",
        [(position[i.variable], i.hourly, len(codes[i.variable])) for i in {i.variable: i for i in items}.values()],
    )
    branches = [f"WHEN {row} THEN {i.conversion.replace('x', 'm.x')}" for row, i in enumerate(items)]
    _count_once(connection)
    connection.execute(_SQL.substitute(conversion=f"CASE i.row {' '.join(branches)} END"))

    judged: dict[str, dict[str, int]] = {}
    for table, reason, count, twice in connection.execute(
        "SELECT table_name, coalesce(reason, ''), count(*), sum(twice)::BIGINT FROM judged GROUP BY ALL ORDER BY ALL"
    ).fetchall():
        reasons = judged.setdefault(table, {})
        reasons[reason] = count
        if twice:
            reasons[TWICE] = reasons.get(TWICE, 0) + twice
    values = np.full((n_stays, hours, len(described)), np.nan, np.float32)
    found = connection.execute("SELECT stay, hour, variable, value FROM hourly").fetchnumpy()
    values[found["stay"], found["hour"], found["variable"]] = found["value"]
    # A value within its range can still add up to an hour outside it.
    low, high = (np.array([getattr(feature, end) for feature in described], np.float32) for end in ("low", "high"))
    outside = (values < low) | (values > high)
    values[outside] = np.nan
    note = _why_empty(connection, items, np.flatnonzero(np.isnan(values).all(axis=(0, 1))).tolist())
    account = Account("hourly values", len(found["value"]), {"outside the plausible range": int(outside.sum())}, note)
    return Hourly(values, judged, account)


def _count_once(connection) -> None:
    """Make `once` of `measurement`: a file that lies twice must not double a sum.

    Rows that are the same in every column are one measurement. Two real ones of the same item, time and number cannot
    be told from that where the data has no id of its rows.
    """
    # Equal rows have equal hashes, and to compare those takes a small part of the memory.
    rows, hashes = connection.execute("SELECT count(*), count(DISTINCT hash(m)) FROM measurement AS m").fetchone()
    if rows == hashes:
        connection.execute("CREATE OR REPLACE TEMP VIEW once AS SELECT *, 0 AS twice FROM measurement")
    else:
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE once AS SELECT *, count(*) - 1 AS twice FROM measurement GROUP BY ALL"
        )


def _why_empty(connection, items: list[Item], variables: list[int]) -> str:
    """What became of the measurements of `variables` (positions) that have no value at all, in words."""
    if not variables:
        return ""
    found = connection.execute(
        """
        SELECT i.variable, coalesce(reason, 'in no hour within the plausible range') AS why, count(*)
        FROM judged JOIN (SELECT DISTINCT code, variable FROM item) AS i ON judged.code = i.code
        WHERE list_contains(?, i.variable) GROUP BY ALL ORDER BY ALL
        """,
        [variables],
    ).fetchall()
    grouped, absent, dropped = list(_by_variable(items).items()), [], []
    for position in variables:
        variable, rows = grouped[position]
        reasons = ", ".join(f"{shown_part(count)} {why}" for number, why, count in found if number == position)
        units = ", ".join(dict.fromkeys(unit for row in rows for unit in row.units or ("any",) if unit))
        codes = ", ".join(dict.fromkeys(f"{row.table} {row.code}".strip() for row in rows))
        if reasons:
            dropped.append(f"{variable} ({reasons}; known units: {units})")
        else:
            absent.append(f"{variable} ({codes})")
    kinds = (("not measured in any window", absent), ("measured, but never with a value that counts", dropped))
    return "; ".join(f"{kind}: {', '.join(told)}" for kind, told in kinds if told)

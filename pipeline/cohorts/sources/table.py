"""Any CSV or Parquet table with one row per sample becomes a cohort (T = 1) by a catalog entry."""

import codecs
import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, FiniteFloat, model_validator

from pipeline.cohorts import tablefile
from pipeline.cohorts.catalog import NAME, Entry
from pipeline.cohorts.cohort import RESERVED, Cohort, Feature
from pipeline.cohorts.intake import Account
from pipeline.cohorts.strata import Strata, strata_columns
from pipeline.cohorts.tablecheck import LARGEST, Table, number
from pipeline.errors import UserError
from pipeline.study.params import Params


def _encoding(name: str) -> str:
    try:
        if not codecs.lookup(name)._is_text_encoding:
            raise LookupError
        return codecs.lookup(name).name
    except LookupError:
        raise ValueError("expected the name of a text encoding, such as utf-8, cp1252 or latin-1") from None


def _separator(text: str) -> str:
    if len(text) != 1 or text in '"\r\n':
        raise ValueError('expected one character, such as ";" (a tab is "\\t" in double quotes)')
    return text


def _bound(value: float) -> float:
    if not abs(value) < LARGEST:
        raise ValueError(f"expected a number below {LARGEST:g} in size")
    return value


def _listed(given: Any) -> Any:
    return given if isinstance(given, list | tuple | dict) else (given,)


LARGEST_WHOLE = 2**24  # up to which float32 has every whole number

Bound = Annotated[FiniteFloat, AfterValidator(_bound)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_listed)]  # one text, or a list of them
Outside = Literal["error", "missing"]


class Column(Params):
    """One feature: its column in the file, and either unit and plausible range or the categories."""

    column: str | None = Field(None, description="name in the file, when it differs from the feature's")
    unit: str = ""
    range: tuple[Bound, Bound] | None = None
    integer: bool = Field(False, description="whether the numbers must be whole, such as counts")
    outside: Outside | None = Field(None, description="what a number outside the range is, in place of the table's")
    categories: tuple[str, ...] = ()
    other: str | None = Field(None, min_length=1, description="category of every text that categories does not list")
    missing: Texts | None = Field(None, description="texts that mean: not measured; in place of the table's")

    @property
    def all_categories(self) -> tuple[str, ...]:
        """`categories`, and `other` behind them unless it is one of them."""
        if self.other is None or self.other in self.categories:
            return self.categories
        return (*self.categories, self.other)

    @model_validator(mode="after")
    def _one_kind(self):
        if bool(self.range) == bool(self.categories):
            raise ValueError("give either a range (a number) or categories (a category)")
        if self.range and not self.range[0] < self.range[1]:
            raise ValueError("the range needs its lower bound first")
        if self.range and self.other:
            raise ValueError("other goes with categories, not with a range")
        if self.integer and not self.range:
            raise ValueError("integer goes with a range, not with categories")
        if self.integer and self.range and max(map(abs, self.range)) > LARGEST_WHOLE:
            raise ValueError(f"integer: whole numbers above {LARGEST_WHOLE:,} cannot be told apart")
        if self.outside and not self.range:
            raise ValueError("outside goes with a range, not with categories")
        if len(set(self.categories)) < len(self.categories):
            raise ValueError("categories lists a text twice")
        return self


class Parameters(Entry):
    """A table: the file under raw_dir and what its columns mean."""

    file: str = Field(description="path below raw_dir: .csv, .csv.gz or .parquet")
    separator: Annotated[str, AfterValidator(_separator)] = ","
    decimal: Literal[".", ","] = Field(".", description="what stands before the decimals of numbers")
    encoding: Annotated[str, AfterValidator(_encoding)] = "utf-8"
    strip: bool = Field(False, description="whether blanks around texts and names do not count")
    missing: Texts = Field(("", "NA", "NaN", "nan"), description="texts that mean: not measured")
    outside: Outside = Field("error", description="what a number outside its feature's range is")
    label: str
    positive: Texts = Field(
        (), description="the label's texts that mean 1; without them the label is 0/1 or true/false"
    )
    negative: Texts = Field((), description="the label's texts that mean 0, with positive")
    sample_id: str | None = Field(None, description="column with a unique id; without it the row's position")
    group: str | None = Field(None, description="column whose rows must stay in one split, e.g. the patient")
    exclude: dict[str, dict[str, Texts]] = Field(
        {}, description="column → reason → its texts that no row of the cohort may have"
    )
    features: dict[str, Column] = Field(min_length=1)
    strata: Strata = Field({}, description="texts or bands by which results are told, from columns of the file")

    @property
    def columns(self) -> dict[str, str]:
        """Each feature's column in the file."""
        return {name: described.column or name for name, described in self.features.items()}

    def missing_texts(self, described: Column) -> tuple[str, ...]:
        """The texts that mean "not measured" in the column of a feature."""
        return self.missing if described.missing is None else described.missing

    @model_validator(mode="after")
    def _fits_together(self):
        wrong = [*self._columns_twice(), *self._names(), *self._label_texts(), *self._missing_values(), *self._strata()]
        if self.decimal == self.separator:
            wrong.append("decimal and separator are the same")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _columns_twice(self):
        taken = {column for column in (self.label, self.sample_id, self.group) if column}
        for feature, column in self.columns.items():
            if column in taken:
                yield f"feature {feature} reads column {column!r}, which is the label, an id or another's"
            taken.add(column)

    def _names(self):
        for feature in self.features:
            if feature in RESERVED:
                yield f"feature {feature} has a name of a cohort's own columns: give it another, and column: {feature}"
            elif not re.fullmatch(NAME, feature):
                yield (
                    f"feature {feature!r}: expected a name of the letters a to z, digits, _ . and -, a letter or digit "
                    f"first; the column's name in the file goes into column: {feature!r}"
                )

    def _label_texts(self):
        if self.positive and not self.negative:
            yield "positive needs negative beside it: the label's texts that mean 0, such as negative: [alive]"
        if self.negative and not self.positive:
            yield "negative needs positive beside it: the label's texts that mean 1"
        for text in self.positive:
            if text in self.negative:
                yield f"positive and negative both list {text!r}"
        for text in (*self.positive, *self.negative):
            if text in self.missing:
                yield f"label: {text!r} is in positive or negative, and in missing too"

    def _strata(self):
        for name, column in strata_columns(self.strata).items():
            if column in (self.label, self.sample_id, self.group):
                yield f"strata.{name} reads column {column!r}, which is the label or an id"

    def _missing_values(self):
        """A text that means "not measured" cannot be a value as well."""
        own = "give the feature a missing of its own, which stands in place of the table's"
        for feature, described in self.features.items():
            both = [text for text in self.missing_texts(described) if text in described.categories]
            # What a feature itself calls missing may be a number in its range: that is said on purpose.
            if described.range and described.missing is None:
                low, high = described.range
                both += [text for text in self.missing if low <= number(text, self.decimal) <= high]
            if both:
                where = "its categories" if described.categories else "its range"
                yield f"features.{feature}: missing has {', '.join(map(repr, both))}, and so has {where}; {own}"


def describe(entry: Parameters, raw_dir: Path | None) -> tuple[int, tuple[Feature, ...]]:
    features = []
    for name, column in entry.features.items():
        low, high = column.range or (0, len(column.all_categories) - 1)
        features.append(Feature(name, column.unit, low, high, column.all_categories, integer=column.integer))
    return 1, tuple(features)


def input_files(entry: Parameters, raw_dir: Path) -> list[Path]:
    return [Path(raw_dir) / entry.file]


def load(name: str, entry: Parameters, raw_dir: Path, cache_dir: Path) -> tuple[Cohort, list[Account]]:
    """Read and check the table; `UserError` names file, columns, how many of their rows are wrong, and the first."""
    path = input_files(entry, raw_dir)[0]
    texts = tablefile.read_texts(path, entry, columns_of(entry))
    kept, account = exclude(texts, entry, path)
    table = Table(texts.subset(kept), entry)
    cohort, accounts = read(name, entry, table, np.flatnonzero(kept))
    table.finish(str(path))
    table.check_twins(cohort.values[:, 0], cohort.label, cohort.group_id)
    return replace(cohort, warnings=tuple(table.warnings)), [account, *accounts]


def columns_of(entry: Parameters) -> list[str]:
    """The columns of the file that are read."""
    keys = {column for column in (entry.label, entry.sample_id, entry.group, *entry.exclude) if column}
    return sorted({*entry.columns.values(), *strata_columns(entry.strata).values(), *keys})


def read(name: str, entry: Parameters, table: Table, row: np.ndarray) -> tuple[Cohort, list[Account]]:
    """The cohort of a table of texts; what is wrong is left in it. `row` [N] is the id of those that have no other."""
    table.check_breaks()
    table.check_excluded()
    label = table.label()
    sample_id = table.ids(entry.sample_id, unique=True) if entry.sample_id else row
    group_id = table.ids(entry.group, unique=False) if entry.group else row
    _, features = describe(entry, None)
    values = np.empty((len(row), 1, len(features)), np.float32)
    accounts = []
    for position, (feature, column) in enumerate(entry.columns.items()):
        described = entry.features[feature]
        read_column = table.categories if described.categories else table.numbers
        values[:, 0, position], found = read_column(feature, column, described)
        accounts += found
    read_by = {column: entry.features[feature] for feature, column in entry.columns.items()}
    strata = {
        stratum: table.stratum(column, entry.strata[stratum].cuts, read_by.get(column))
        for stratum, column in strata_columns(entry.strata).items()
    }
    return Cohort(name, features, sample_id, group_id, label, values, strata=strata), accounts


def exclude(texts: tablefile.Texts, entry: Parameters, path: Path) -> tuple[np.ndarray, Account]:
    """[N] bool, the rows that `exclude` leaves, and the account of them; a row counts for the first reason it meets.

    Raises `UserError` where it leaves none.
    """
    kept = np.ones(len(texts), bool)
    dropped: dict[str, int] = {}
    for column, reasons in entry.exclude.items():
        for reason, listed in reasons.items():
            met = kept & texts.cells[column].of_each(set(listed).__contains__)
            dropped[reason] = dropped.get(reason, 0) + int(met.sum())
            kept &= ~met
    if not kept.any():
        raise UserError(f"{path}: exclude takes all of its {len(texts):,} rows")
    never = [reason for reason, count in dropped.items() if not count]
    return kept, Account("rows", len(texts), dropped, f"none dropped as {', '.join(never)}" if never else "")

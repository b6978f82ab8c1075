"""A table's texts as numbers, categories, labels and ids; what is wrong with a column is one sentence."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from math import inf, isfinite

import numpy as np

from pipeline.cohorts.intake import Account
from pipeline.cohorts.splits import N_FOLDS
from pipeline.cohorts.strata import bands
from pipeline.cohorts.tablefile import Cells, Texts
from pipeline.errors import UserError
from pipeline.smallcells import MIN_CELL, shown_of, shown_share, tens
from pipeline.words import counted

LARGEST = 1e30  # of a value: far from where float32 ends
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_TRUTH = {"true": 1, "false": 0}
_SPREADSHEET = re.compile(r"[0-9]([.,][0-9]+)?E\+[0-9]+", re.IGNORECASE)
# Zeros in front of a number and behind its decimal point.
_ZEROS = re.compile(r"(?<![0-9.,])0+(?=[0-9])|(?<=[0-9])(\.0*|,0)$")
_WHOLE = re.compile(r"([0-9]+)\.0*")
# Groups of three digits, as thousands are separated.
_GROUPED = re.compile(r"[+-]?[1-9][0-9]{0,2}([., '\u2019\u00a0\u202f][0-9]{3})+([.,][0-9]+)?")
_NO_VALUE = {"", ".", "-", "--", "?", "na", "n/a", "#n/a", "nan", "null", "none"}
_MANY_TWICE = 0.01
_MANY_ROWS = 10  # of an id, in means of all


@dataclass(frozen=True)
class Fault:
    """What is wrong with a column: a `sentence` for everybody; `texts` that were not expected, with how often each."""

    sentence: str
    texts: dict[str, int]


class Faults(UserError):
    """All columns of a table that are wrong."""

    def __init__(self, where: str, found: dict[str, Fault]):
        self.found = found
        sentences = [f"column {column!r}: {fault.sentence}" for column, fault in found.items()]
        several = f"{len(sentences)} columns are wrong:\n  " if len(sentences) > 1 else ""
        super().__init__(f"{where}: {several}" + "\n  ".join(sentences))


class Table:
    """The texts of a file on their way to a cohort: finds all faulty columns before it gives up.

    `faults` by column and `warnings` gather what is wrong, and what is not but may be.
    """

    def __init__(self, texts: Texts, entry):
        self.texts, self.entry = texts, entry
        self.faults: dict[str, Fault] = {}
        self.warnings: list[str] = []

    def cells(self, column: str) -> Cells:
        """A column where the entry's missing texts are no text."""
        return self.texts.cells[column].without(self.entry.missing)

    def number(self, text: str) -> float:
        """`text` as a plain decimal number, NaN if it is none."""
        return number(text, self.entry.decimal)

    def check_breaks(self) -> None:
        """Warn of line breaks inside cells, which a quote too many makes of whole rows."""
        inside = {
            f"column {column!r}": cells.of_each(lambda text: "\n" in text or "\r" in text)
            for column, cells in self.texts.cells.items()
        }
        inside["a column that is not read"] = self.texts.over_lines & ~np.any([*inside.values()], axis=0)
        for column, broken in inside.items():
            if broken.any():
                self.warnings.append(
                    f"{column} has line breaks inside {_in_tens(broken)} of its cells; is there a quote too many in "
                    "the file, so that it has lost rows?"
                )

    def check_excluded(self) -> None:
        """Warn of rows that are kept because a text is not spelt as `exclude` has it."""
        for column, reasons in self.entry.exclude.items():
            near = {near_key(text) for listed in reasons.values() for text in listed}
            alike = self.texts.cells[column].of_each(partial(_is_near, near))
            if alike.any():
                self.warnings.append(
                    f"column {column!r}: {_in_tens(alike)} texts differ from one in exclude only in capitals, "
                    "blanks or zeros, and their rows were kept"
                )

    def numbers(self, feature: str, column: str, described) -> tuple[np.ndarray, list[Account]]:
        """[N] float32 (NaN = not measured) of a numeric feature, and an account if values were left out."""
        cells = self.texts.cells[column].without(self.entry.missing_texts(described))
        low, high = described.range
        parsed = [self.number(text) for text in cells.texts]
        value = np.array([*parsed, np.nan])[cells.code]
        self._warn_of_numbers(column, cells, value, self.entry.missing_texts(described))
        outside = (value < low) | (value > high)
        accounts = []
        if (described.outside or self.entry.outside) == "missing":
            if outside.any():
                share = _share(int(outside.sum()), len(value))
                note = f"{share} outside {low:g} to {high:g}, taken as not measured"
                accounts = [_account(feature, len(value), note)]
            value = np.where(outside, np.nan, value)
            wrong = (cells.code >= 0) & np.isnan(value) & ~outside
        else:
            wrong = (cells.code >= 0) & (np.isnan(value) | outside)
        if described.integer:
            wrong |= value % 1 > 0
        if wrong.any():
            kind = "a whole number" if described.integer else "a number"
            hint = self.number_hint(cells.counts(wrong), outside[wrong].all())
            expected = f"{kind} from {low:g} to {high:g} {described.unit}".rstrip()
            self.fault(column, cells, wrong, expected, hint)
        elif np.isnan(value).all():
            why = "missing texts"
            why += f" or outside {low:g} to {high:g}" if outside.any() else ""
            self.faults[column] = Fault(f"no value of feature {feature!r} is left: every row holds {why}", {})
        return value.astype(np.float32), accounts

    def _warn_of_numbers(self, column: str, cells: Cells, value: np.ndarray, missing: Iterable[str]) -> None:
        spelt = np.isin(value, [self.number(text) for text in missing])
        if spelt.any():
            self.warnings.append(
                f"column {column!r}: {_in_tens(spelt)} numbers are in missing in another spelling (99 and "
                "99.0, say), and were taken as measured"
            )
        decimals = [text for text in cells.texts if self.entry.decimal in text]
        whole = [text for text in cells.texts if text.isdecimal()]
        # Were the points decimal ones, some number would have one digit behind them, or none would be whole.
        grouped = bool(decimals) and all(map(_GROUPED.fullmatch, decimals)) and 0 < max(map(len, whole), default=0) < 4
        if self.texts.place == "line" and grouped:
            self.warnings.append(
                f"column {column!r}: its numbers have three digits behind a {self.entry.decimal!r} or are whole and "
                "below 1000; are these thousands separators, which were read as decimal ones?"
            )

    def categories(self, feature: str, column: str, described) -> tuple[np.ndarray, list[Account]]:
        """[N] float32 positions among the categories (NaN = missing), and an account if texts became `other`."""
        cells = self.texts.cells[column].without(self.entry.missing_texts(described))
        codes = {text: code for code, text in enumerate(described.all_categories)}
        listed = cells.of_each(set(described.categories).__contains__)
        unlisted, accounts = (cells.code >= 0) & ~listed, []
        expected = f"one of {', '.join(described.categories)}"
        wrong = cells.counts(unlisted)
        hint = _spelling_hint(wrong, described.categories) + _missing_hint(wrong)
        if described.other is None:
            if unlisted.any():
                self.fault(column, cells, unlisted, expected, hint)
        elif unlisted.any():
            if not listed.any():  # they are spelt wrong: all would be the other category
                self.fault(column, cells, unlisted, f"at least {expected}", hint)
            taken = _share(int(unlisted.sum()), len(unlisted))
            accounts = [_account(feature, len(unlisted), f"{taken} not listed, taken as {described.other!r}")]
            near = set(map(near_key, described.categories))
            alike = unlisted & cells.of_each(lambda text: near_key(text) in near)
            if alike.any():
                self.warnings.append(
                    f"feature {feature!r}: {_in_tens(alike)} texts differ from a listed category only in "
                    f"capitals, blanks or zeros, and were taken as {described.other!r}"
                )
            if words := _missing_hint(wrong):
                self.warnings.append(
                    f"feature {feature!r}: texts for no value were taken as {described.other!r}{words}"
                )
        if (cells.code < 0).all():
            self.faults[column] = Fault(f"no value of feature {feature!r} is left: every row holds a missing text", {})
        position = [codes.get(text, codes.get(described.other, np.nan)) for text in cells.texts]
        return np.array([*position, np.nan], np.float32)[cells.code], accounts

    def stratum(self, column: str, cuts: tuple[float, ...], described) -> np.ndarray:
        """[N] str, "" = not known: the texts of a column, or the bands of its numbers between `cuts`.

        `described` is the feature that reads the same column, if one does: what is not measured there is not known.
        """
        cells = self.cells(column)
        if described:
            cells = self.texts.cells[column].without(self.entry.missing_texts(described))
        if not cuts:
            return np.array([*cells.texts, ""])[cells.code]
        value = np.array([*map(self.number, cells.texts), np.nan])[cells.code]
        wrong = (cells.code >= 0) & np.isnan(value)
        if wrong.any() and column not in self.faults:
            self.fault(
                column,
                cells,
                wrong,
                "numbers, which cuts makes bands of",
                self.number_hint(cells.counts(wrong)),
            )
        if described and described.range:
            value[(value < described.range[0]) | (value > described.range[1])] = np.nan
        return bands(value, cuts)

    def label(self) -> np.ndarray:
        """[N] int8, 0 or 1."""
        entry = self.entry
        cells = self.cells(entry.label)
        if entry.positive:
            meaning = dict.fromkeys(entry.positive, 1) | dict.fromkeys(entry.negative, 0)
            expected = "one of the texts that positive and negative list, in every row"
        else:
            truth = {text: _TRUTH.get(text.lower(), self.number(text)) for text in cells.texts}
            meaning = {text: int(value) for text, value in truth.items() if value in (0, 1)}
            expected = "a binary label, 0 or 1 (or true or false; where it is another text, positive and negative "
            expected += "name it), in every row"
        label = np.array([*(meaning.get(text, -1) for text in cells.texts), -1], np.int8)[cells.code]
        wrong = label < 0
        if wrong.any():
            hint = _spelling_hint(cells.counts(wrong), (*entry.positive, *entry.negative))
            self.fault(entry.label, cells, wrong, expected, hint)
        elif not 0 < label.sum() < len(label):
            self.faults[entry.label] = Fault(
                f"{label.sum():,} of {len(label):,} rows are positive; expected both classes", {}
            )
        return label

    def ids(self, column: str, unique: bool) -> np.ndarray:
        """[N] ids, int64 where all are whole numbers without zeros in front, else texts.

        Blanks around them do not count, and 1.0 is 1. As groups (not `unique`) ids are the same if they differ only in
        capitals, blanks or zeros: a patient taken for two would cross the splits, two taken for one do no harm.
        """
        cells = self.cells(column)
        without = cells.code < 0
        if without.any():
            self.fault(column, cells, without, "an id in every row", "")
            return cells.code
        self._warn_of_ids(column, cells, unique)
        same = cells.rewritten(whole_id if unique else near_key)
        rows = np.bincount(same.code, minlength=len(same.texts))
        if not unique and rows.max() > max(len(same.code) / N_FOLDS, _MANY_ROWS * rows.mean()):
            self.warnings.append(
                f"column {column!r}: {_share(int(rows.max()), len(same.code))} of the rows have the same id; is it a "
                "text for one that is not known? All of them go into one of training, validation and test set"
            )
        twice = rows[same.code] > 1
        if unique and twice.any():
            hint = "; a spreadsheet has shortened them" if cells.of_each(_shortened).any() else ""
            self.fault(column, same, twice, "no id twice", hint, of_ids=True)
        if all(text == "0" or text.isdecimal() and text[0] != "0" and len(text) < 19 for text in same.texts):
            return np.array([int(text) for text in same.texts], np.int64)[same.code]
        return np.array(same.texts, object)[same.code]

    def _warn_of_ids(self, column: str, cells: Cells, unique: bool) -> None:
        keys = [near_key(text) for text in cells.texts]
        spellings = Counter(keys)
        alike = np.array([spellings[key] > 1 for key in keys])
        if alike.any():
            taken = "kept apart" if unique else "taken as the same"
            self.warnings.append(
                f"column {column!r}: {_in_tens(alike)} ids differ from another one only in capitals, blanks, zeros in "
                f"front or .0 behind; they were {taken}"
            )
        short = cells.of_each(_shortened)
        if short.any():
            self.warnings.append(
                f"column {column!r}: the ids of {_in_tens(short)} rows are numbers that a spreadsheet has shortened "
                "(such as 1.23E+11); different patients may have the same one"
            )

    def check_twins(self, values: np.ndarray, label: np.ndarray, group_id: np.ndarray) -> None:
        """Warn if many rows repeat another in all features ([N, D] `values`) and the label, and no id tells them apart.

        Where there are groups, in these too: such rows cross no split, and count twice.
        """
        grouped = bool(self.entry.group)
        if grouped and self.entry.sample_id:
            return
        columns = [np.unique(column, return_inverse=True)[1] for column in (*values.T, label)]
        n, alike = len(label), 1.0
        for column in columns:
            alike *= ((np.bincount(column) / n) ** 2).sum()
        columns += [np.unique(group_id, return_inverse=True)[1]] if grouped else []
        twins = n - len(np.unique(np.column_stack(columns), axis=0))
        # Where few things are measured, rows are alike by chance.
        by_chance = n * n / 2 * alike
        if twins > max(_MANY_TWICE * n, 3 * by_chance):
            means = "and no group is given: if they are of the same patients, training and test set share patients"
            means = "within their group: does the file hold rows twice?" if grouped else means
            self.warnings.append(
                f"{_share(twins, n)} of the rows repeat another in all features and the label, {means}"
            )

    def finish(self, where: str) -> None:
        """Raise all faults, if there are any."""
        if self.faults:
            raise Faults(where, self.faults)

    def fault(
        self, column: str, cells: Cells, wrong: np.ndarray, expected: str, hint: str, of_ids: bool = False
    ) -> None:
        """Note what is `wrong` ([N] bool) with a column, for `finish` to raise."""
        count, texts = int(wrong.sum()), cells.counts(wrong)
        first = self.texts.at[np.argmax(wrong)]
        # Of few rows it would say how few.
        several = count >= MIN_CELL and texts and not of_ids
        different = f" ({counted(len(texts), 'different text')} in them)" if several else ""
        # Where to look is told; the value itself may be a patient's and stays out of messages and logs.
        sentence = (
            f"{shown_of(count, len(wrong))} of {len(wrong):,} rows are wrong, first in {self.texts.place} {first}; "
            f"expected {expected}{different}{hint}"
        )
        self.faults[column] = Fault(sentence, texts)

    def number_hint(self, wrong: dict[str, int], all_outside: bool = False) -> str:
        """What may have been meant by texts that are no numbers, or no plausible ones."""
        if all_outside:
            return "; with outside: missing such numbers are taken as not measured"
        texts = [text for text in wrong if np.isnan(self.number(text))]
        hints = []
        other = {".": ",", ",": "."}[self.entry.decimal]
        if any(isfinite(number(text, other)) and not _GROUPED.fullmatch(text) for text in texts):
            hints.append(f'; does the entry need decimal: "{other}"?')
        elif any(map(_GROUPED.fullmatch, texts)):
            hints.append("; some have thousands separators, which must go, or decimals, which decimal names")
        if any(isfinite(self.number(text.strip())) for text in texts):
            hints.append("; some are numbers between blanks, which strip: true takes off")
        return "".join(hints) + _missing_hint(texts)


def _spelling_hint(wrong: dict[str, int], listed: Iterable[str]) -> str:
    near = set(map(near_key, listed))
    if any(near_key(text) in near for text in wrong):
        return "; some differ from one only in capitals, blanks or zeros (strip: true takes blanks off)"
    return ""


def _missing_hint(wrong: Iterable[str]) -> str:
    """The words for missing in `wrong`: these texts are told, since no patient's value can be among them."""
    words = sorted(word for word in wrong if word.strip().casefold() in _NO_VALUE)
    return f"; does missing need {', '.join(map(repr, words))}?" if words else ""


def number(text: str, decimal: str = ".") -> float:
    """`text` as a plain decimal number with an exponent or without; NaN if it is none or is too large."""
    if decimal != ".":
        text = "" if "." in text else text.replace(decimal, ".")
    value = float(text) if _NUMBER.fullmatch(text) else inf
    return value + 0.0 if abs(value) < LARGEST else np.nan  # −0 is 0


def near_key(text: str) -> str:
    """What is the same for texts that differ only in capitals, blanks, zeros in front or .0 behind."""
    return _ZEROS.sub("", "".join(text.split()).casefold())


def whole_id(text: str) -> str:
    """An id without blanks around it, and without a decimal point if nothing but zeros stand behind it: 1.0 is 1."""
    text = text.strip()
    return found[1] if (found := _WHOLE.fullmatch(text)) else text


def _shortened(text: str) -> bool:
    return bool(_SPREADSHEET.fullmatch(text.strip()))


def _account(feature: str, n: int, note: str) -> Account:
    # Of all rows: how many are measured would tell how few are not.
    return Account(f"values of {feature}", n, {}, note)


def _is_near(keys: set[str], text: str) -> bool:
    return near_key(text) in keys


def _share(count: int, total: int) -> str:
    """A count in tens and its share in words, neither of them telling of few."""
    if 0 < count < MIN_CELL or 0 < total - count < MIN_CELL:
        return shown_share(count, total)
    told = int(tens(count, total))
    return f"{told:,} ({told / total:.1%})"


def _in_tens(those: np.ndarray) -> str:
    """How many of `those` ([N] bool) are true, in words that tell of few neither that are nor that are not."""
    return _share(int(those.sum()), len(those)).partition(" (")[0]

"""Taking a dataset in: read by its source, held against the catalog, checked; with an account of every row."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import numpy as np

from pipeline.cohorts.catalog import Entry, check_files, relations_of, source_of
from pipeline.cohorts.cohort import Cohort
from pipeline.errors import UserError
from pipeline.smallcells import MIN_CELL, shown, shown_of, shown_share, tens
from pipeline.words import counted


@dataclass(frozen=True)
class Account:
    """What became of the rows of one original table: each is kept or dropped for one named reason.

    `rows` says what they are (e.g. "ICU stays"), `read` how many there were, `dropped` how many went for which reason,
    `note` what else is to be known of them.
    """

    rows: str
    read: int
    dropped: dict[str, int]
    note: str = ""

    @property
    def kept(self) -> int:
        return self.read - sum(self.dropped.values())


def take_in(
    name: str, entry: Entry, raw_dir: Path, cache_dir: Path, tell: Callable[[str], object] = lambda line: None
) -> tuple[Cohort, list[Account]]:
    """The whole cohort of a catalog entry, checked, and its accounts; nothing is written but below `cache_dir`.

    `tell` gets the lines of the accounts as soon as the rows are read, before the cohort is checked: what became of
    the rows is often why a check fails. Raises `UserError` when files are missing or wrong, or hold another number of
    samples than the catalog says, or a relation names what is no numeric feature.
    """
    from pipeline.cohorts.schema import check_cohort

    relations = relations_of(name, entry, Path(raw_dir))
    check_files(name, entry, Path(raw_dir))
    cohort, accounts = source_of(entry).load(name, entry, Path(raw_dir), Path(cache_dir))
    for line in account_lines(accounts, cohort.people):
        tell(line)
    expect(name, entry, cohort)
    check_cohort(cohort)
    return replace(cohort, relations=relations), accounts


def expect(name: str, entry: Entry, cohort: Cohort) -> None:
    """`UserError` where `cohort` has another number of samples, or of positives, than the catalog `entry` says."""
    found = len(cohort), int(cohort.label.sum())
    wanted = (entry.expected.samples, entry.expected.positives) if entry.expected else found
    if found != wanted:
        read, known = (shown_of(positives, n, cohort.people) for n, positives in (found, wanted))
        raise UserError(
            f"{name}: {found[0]:,} samples with {read} positives were read; the catalog expects {wanted[0]:,} with "
            f"{known}: another version of the data?"
        )


def account_lines(accounts: list[Account], people: bool = True) -> list[str]:
    """The accounts in words, e.g. `ICU stays: 140 read, 100 kept; dropped: 40 not the patient's first`.

    Of people, how many were read is left out where another count is withheld: it would give that one back.
    """
    lines, told = [], _told(people)
    for account in accounts:
        counts = [count for count in (account.kept, *account.dropped.values()) if count]
        withheld = people and min(counts, default=MIN_CELL) < MIN_CELL
        line = f"{account.rows}: {'' if withheld else f'{told(account.read)} read, '}{told(account.kept)} kept"
        dropped = [f"{told(count)} {reason}" for reason, count in account.dropped.items() if count]
        line += f"; dropped: {', '.join(dropped)}" if dropped else ""
        lines.append(f"{line}; note: {account.note}" if account.note else line)
    return lines


def _told(people: bool) -> Callable[[int], str]:
    """How a count is told: small ones of people are not."""
    return shown if people else "{:,}".format


def summary_line(cohort: Cohort) -> str:
    """Size, groups, prevalence, shape and missingness of a cohort in one line.

    Groups of people are told in tens, or to be as many as samples: the rest are further samples of the same patients.
    """
    positives = int(cohort.label.sum())
    positive = shown_share(positives, len(cohort)) if cohort.people else f"{positives / len(cohort):.1%}"
    n_groups = len(np.unique(cohort.group_id))
    if cohort.people and n_groups >= MIN_CELL:
        n_groups = int(tens(n_groups, len(cohort)))
    samples, groups = counted(len(cohort), "sample"), f"{_told(cohort.people)(n_groups)} groups"
    steps, features = counted(cohort.n_steps, "step"), counted(len(cohort.features), "feature")
    return (
        f"{cohort.name}: {samples}, {groups}, {positive} positive, {steps} × {features}, "
        f"{np.isnan(cohort.values).mean():.1%} not measured"
    )


def warnings(cohort: Cohort) -> list[str]:
    """What a user must know before a study of `cohort`: its own warnings, and one if a label has too few patients.

    Nothing is withheld of a cohort of no people, however few its groups.
    """
    from pipeline.cohorts.roles import ROLES
    from pipeline.cohorts.splits import N_FOLDS

    needed = ceil(MIN_CELL * N_FOLDS / ROLES["test"])
    patients = {label: len(np.unique(cohort.group_id[cohort.label == label])) for label in (0, 1)}
    rarer = min(patients, key=patients.__getitem__)
    told = [f"warning: {cohort.name}: {text}" for text in cohort.warnings]
    if patients[rarer] >= needed or not cohort.people:
        return told
    return [
        *told,
        f"warning: {cohort.name} has fewer than {needed} groups with label {rarer}: the test split will hold too few, "
        f"and numbers measured on fewer than {MIN_CELL} groups are withheld",
    ]


def missingness_lines(cohort: Cohort) -> list[str]:
    """A table for people to read: per feature the share of cells not measured.

    Where there are several steps, also the share of samples in which the feature is never measured.
    """
    missing = np.isnan(cohort.values)
    rows: list[tuple[str, ...]] = [("feature", "unit", "not measured", "never measured")]
    for feature, cells, samples in zip(cohort.features, missing.sum((0, 1)), missing.all(1).sum(0), strict=True):
        share = shown_share if cohort.people else lambda count, total: f"{count / total:.1%}"
        shares = share(cells, len(cohort) * cohort.n_steps), share(samples, len(cohort))
        rows.append((feature.name, feature.unit, *shares))
    if cohort.n_steps == 1:  # there the two shares are the same
        rows = [row[:3] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]

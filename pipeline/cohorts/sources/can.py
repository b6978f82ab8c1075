"""Captures of a CAN bus become windows of frames, each one sample: intrusion detection in vehicles.

A window has label 1 if any of its frames is labelled as of an attack. The layouts of files are those of
`can_capture`, the features those of `can_windows`; data/README.md says how captures are dealt into roles.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import Field, model_validator

from pipeline.cohorts import original
from pipeline.cohorts.can_capture import SUFFIXES, Capture, read_capture
from pipeline.cohorts.can_windows import Windowed, any_features, windows_of
from pipeline.cohorts.cohort import Cohort, Feature
from pipeline.cohorts.intake import Account
from pipeline.errors import UserError

# What the name of a file says of its attack, the first that fits: masquerade before what it pretends to be.
ATTACKS = {
    "suppress": ("suppress",),
    "masquerade": ("masquerade",),
    "combined": ("combined", "double", "triple"),
    "dos": ("dos", "flood"),
    "fuzzing": ("fuzz",),
    "systematic": ("systematic",),
    "interval": ("interval",),
    "standstill": ("standstill",),
    "malfunction": ("malfunction",),
    "replay": ("replay",),
    "rpm": ("rpm",),
    "speed": ("speed",),
    "gear": ("gear", "neutral"),
}
UNNAMED = "unnamed"  # the attack of a file whose name says none
_OWN_SCENARIO = ("suppress", "masquerade")


class Parameters(Windowed):
    """The captures, files or folders of them, and how they become windows."""

    folder: str = Field("", description="below raw_dir; what follows is named from there")
    files: tuple[str, ...] = Field((), description="captures: files, folders of them, or patterns such as set_*/*.csv")
    train: tuple[str, ...] = Field((), description="the published split: captures to train and to validate on")
    test: tuple[str, ...] = Field((), description="the published split: captures to test on")

    @model_validator(mode="after")
    def _one_way_to_split(self):
        if bool(self.train) != bool(self.test) or bool(self.files) == bool(self.train):
            raise ValueError("give either files, or train and test: the split that those who published the data made")
        return self


def describe(entry: Parameters, raw_dir: Path | None) -> tuple[int, tuple[Feature, ...]]:
    return entry.window, any_features()


def input_files(entry: Parameters, raw_dir: Path) -> list[Path]:
    """The captures; a pattern that no file fits stands for itself, as the file that is missing."""
    return [path for path, _ in _files(entry, Path(raw_dir))]


def _files(entry: Parameters, raw_dir: Path) -> list[tuple[Path, str]]:
    """The path and part of each capture ("" = no part is published), each path once."""
    found: dict[Path, str] = {}
    for part, given in (("", entry.files), ("train", entry.train), ("test", entry.test)):
        for pattern in given:
            for path in _matching(raw_dir / entry.folder, pattern):
                if found.setdefault(path, part) != part:
                    raise UserError(f"{path}: in train and in test; expected every capture in one of them")
    return list(found.items())


def _matching(base: Path, pattern: str) -> Iterator[Path]:
    paths = sorted(base.glob(pattern)) if any(letter in pattern for letter in "*?[") else [base / pattern]
    paths = [path for path in paths if not original.hidden(path.relative_to(base))] or [base / pattern]
    for path in paths:
        if path.is_dir():
            inside = [one for one in original.visible(path, "*") if one.name.endswith(SUFFIXES) and one.is_file()]
            if not inside:
                raise UserError(f"{path}: no capture in it; expected files {', '.join(SUFFIXES)}")
            yield from inside
        else:
            yield path


def load(name: str, entry: Parameters, raw_dir: Path, cache_dir: Path) -> tuple[Cohort, list[Account]]:
    """The windows of all captures, without those that are there twice.

    Raises `UserError` when a file is missing, of another layout, or holds what cannot be a frame, and when no capture
    is as long as a window.
    """
    base = Path(raw_dir) / entry.folder
    files = _files(entry, Path(raw_dir))
    captures = [read_capture(path, _name(path, base), attack_of(path)) for path, _ in files]
    kept, twice = _once(captures, files)
    paths, captures = [files[number][0] for number in kept], [captures[number] for number in kept]
    parts = [files[number][1] for number in kept]
    names = [capture.name for capture in captures]
    again = [one for one in names if names.count(one) > 1]
    if again:
        raise UserError(f"{base / again[0]}: two captures have this name; expected another for each")
    strata = {
        "capture": names,
        "scenario": [_scenario(path, base) for path in paths],
        "vehicle": [_vehicle(path, part) for path, part in zip(paths, parts, strict=True)],
    }
    known = {stratum: texts for stratum, texts in strata.items() if any(texts)}
    cohort, accounts = windows_of(name, entry, captures, known, parts if entry.train else None)
    if not len(cohort):
        raise UserError(f"{base}: no capture is as long as a window; expected {entry.window} frames or more")
    warnings = [*_twice(twice), *_unlabelled(captures), *cohort.warnings]
    return replace(cohort, warnings=tuple(warnings)), twice + accounts


def attack_of(path: Path) -> str:
    """The attack that a file is named after; the folder says nothing of it."""
    stem = path.name.lower()
    return next((attack for attack, words in ATTACKS.items() if any(word in stem for word in words)), UNNAMED)


def _name(path: Path, base: Path) -> str:
    """Of a capture: its path below the folder of the entry, without what comes after the point."""
    suffix = next(suffix for suffix in (*SUFFIXES, "") if path.name.endswith(suffix))
    return path.relative_to(base).as_posix().removesuffix(suffix)


def _scenario(path: Path, base: Path) -> str:
    """The folder that a capture lies in; suppress and masquerade are scenarios of their own wherever they lie."""
    folder, attack = path.relative_to(base).parent.name, attack_of(path)
    return attack if attack in _OWN_SCENARIO and attack not in folder else folder


def _vehicle(path: Path, part: str) -> str:
    """Whether the vehicle is one of those in training, as the folder's name says; training captures are of those."""
    said = [word for word in ("unknown", "known") if f"_{word}_vehicle" in path.parent.name]
    return said[0] if said else "known" if part == "train" else ""


def _once(captures: list[Capture], files: list[tuple[Path, str]]) -> tuple[list[int], list[Account]]:
    """Positions of the captures without copies of others, and an account of each copy.

    Of two copies the one that is tested on stays, since a published test set stays what it is; else the first.
    """
    first: dict[bytes, int] = {}
    copies: list[tuple[int, int]] = []
    for number in sorted(range(len(captures)), key=lambda number: files[number][1] != "test"):
        original_one = first.setdefault(captures[number].digest(), number)
        if original_one == number:
            continue
        if not np.array_equal(captures[number].kind, captures[original_one].kind):
            raise UserError(
                f"{files[number][0]}: it has the frames of {files[original_one][0]}, labelled otherwise; expected "
                "equal captures to have equal labels"
            )
        copies.append((number, original_one))
    accounts = []
    for copy, of in sorted(copies):
        read = len(captures[copy])
        accounts.append(Account(f"frames of {captures[copy].name}", read, {f"those of {captures[of].name}": read}))
    return sorted(first.values()), accounts


def _twice(accounts: list[Account]) -> list[str]:
    if not accounts:
        return []
    told = [f"{account.rows.removeprefix('frames of ')} ({next(iter(account.dropped))})" for account in accounts]
    return [f"left out, as another capture has the same frames: {', '.join(told)}"]


def _unlabelled(captures: list[Capture]) -> list[str]:
    names = [one.name for one in captures if one.kinds != (UNNAMED,) and not one.kind.any()]
    if not names:
        return []
    return [
        f"named after an attack, without a frame labelled as one: {', '.join(names)}; all their windows have label 0, "
        "so that what is found in them counts as a false alarm"
    ]

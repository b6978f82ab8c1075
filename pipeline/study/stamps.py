"""Stamps: what each result of a study has to be made by, so that nothing passes for what it is not.

The stamp of a stage is a hash of its settings, its code, its place in the grid and the stamps of what it reads, down
to the original files. It is known before anything runs. Every result holds the one that it was made by, and a result of
another stamp is outdated.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pipeline.cohorts.catalog import Entry, read_entries, source_of
from pipeline.errors import UserError
from pipeline.files import found, read_json, write_json
from pipeline.study.code import code, digest
from pipeline.study.config import Family, Study
from pipeline.study.grid import Cell, cells, measured_by, settings
from pipeline.study.places import NOT_MEASURED

LARGE = 64 << 20  # bytes from which a file is told by its size, its time and a sample
_PIECES, _PIECE = 64, 64 << 10  # the sample: so many pieces, evenly spread, of so many bytes
REPORT_NOTEBOOK = "notebooks/report.ipynb"
# The families that a stage takes members from, beside its own module.
_FAMILIES: dict[str, tuple[Family, ...]] = {
    "poison": ("triggers",),
    "train": ("models",),
    "eval": ("models", "triggers"),
    "detect": ("models", "detectors"),
    "explain": ("models", "triggers"),
}


class Stamp(NamedTuple):
    """What a stage is made by: the stamp, the hash of its code, and the members whose code is in it."""

    stamp: str
    code: str
    members: tuple[str, ...]

    @classmethod
    def of(cls, stage: str, members: Iterable[str], *made_by: str) -> "Stamp":
        members = tuple(members)
        hashed = code(stage, *members)
        return cls(digest(stage, hashed, *made_by), hashed, members)

    def text(self) -> str:
        """As an argument of a stage; `parse` reads it."""
        return " ".join((self.stamp, self.code, *self.members))

    @classmethod
    def parse(cls, text: str) -> "Stamp":
        stamp, hashed, *members = text.split(" ")
        return cls(stamp, hashed, tuple(members))


def stamps_of(study: Study) -> "Stamps":
    """The stamps of `study`; `UserError` where its catalog or a dataset's files are not what they should be."""
    return Stamps(study, cohort_stamps(study, read_entries(Path(study.catalog), study.datasets)))


class Stamps:
    """The stamps of all stages of `study`, whose cohorts have those in `cohorts`, by dataset."""

    def __init__(self, study: Study, cohorts: Mapping[str, Stamp]):
        self._study, self._cohorts = study, cohorts
        self._known: dict[tuple[str, Cell | None], Stamp] = {}
        # The same for all rates and seeds.
        self._settings = cache(lambda *of: settings(study, *of))
        self._member = cache(lambda family, name: study.member(family, name))

    def of(self, stage: str, cell: Cell | None = None) -> Stamp:
        """The stamp of `stage` for `cell`; of a stage that reads the whole study without one."""
        if cell is not None and stage == "poison":
            cell = cell._replace(model="")
        if (stage, cell) not in self._known:
            self._known[stage, cell] = self._of_study(stage) if cell is None else self._of_cell(stage, cell)
        return self._known[stage, cell]

    def for_rule(self, stage: str) -> Callable[..., str]:
        """A parameter of the rule of `stage`: the stamp of its wildcards as text, so that another re-runs the job."""
        return lambda wildcards: self.of(stage, Cell(*(wildcards.get(name, "") for name in Cell._fields))).text()

    def _of_study(self, stage: str) -> Stamp:
        study = self._study
        if stage == "aggregate":
            reads = (self.of(stage, cell).stamp for cell in sorted(cells(study)) for stage in measured_by(study, cell))
            return Stamp.of(stage, (), study.model_dump_json(exclude=NOT_MEASURED), *reads)
        members = [REPORT_NOTEBOOK] if stage == "report" else []
        return Stamp.of(stage, members, self.of("aggregate").stamp)

    def _of_cell(self, stage: str, cell: Cell) -> Stamp:
        study = self._study
        if stage == "sample_dev":
            return self._cohorts[cell.dataset]
        parents = study.parents(cell.model) if stage == "train" else []
        named: dict[Family, Iterable[str]] = {
            "models": [cell.model, *parents],
            "triggers": [cell.trigger],
            "detectors": study.detectors,
        }
        used = (f"{family}/{self._member(family, name)}" for family in _FAMILIES[stage] for name in named[family])
        members = dict.fromkeys(used)
        read = [*_reads(stage, cell), *(("train", cell._replace(model=name)) for name in parents)]
        reads = (self.of(*each).stamp for each in read)
        return Stamp.of(stage, members, *cell, self._settings(stage, cell.model, cell.trigger), *reads)


def _reads(stage: str, cell: Cell) -> list[tuple[str, Cell]]:
    """The stages, and whose, that `stage` of `cell` reads; not those that these have read themselves.

    Beside these, training reads the training of the models that a model is made from.
    """
    return {
        "poison": [("sample_dev", cell)],
        "train": [("poison", cell)],
        "eval": [("train", cell), ("train", cell.control)],
        "detect": [("train", cell)],
        "explain": [("train", cell), ("train", cell.control)],
    }[stage]


def cohort_stamps(study: Study, entries: Mapping[str, Entry]) -> dict[str, Stamp]:
    """The stamp of each dataset's cohort: of its entry, what is taken of it, its original files and its code."""
    hashes = _Hashes(Path(study.data_dir) / "cache" / "hashes.json")
    made = {}
    for name, entry in entries.items():
        tables = [found(entry.variables)] if hasattr(entry, "variables") else []
        files = sorted([*source_of(entry).input_files(entry, Path(study.raw_dir)), *tables])
        inputs = (part for path in files for part in (_place(path, Path(study.raw_dir)), hashes.of(path)))
        taken = str(study.n_samples)
        made[name] = Stamp.of("sample_dev", [f"cohorts/sources/{entry.source}"], name, entry.content(), taken, *inputs)
    hashes.keep()
    return made


def _place(path: Path, raw_dir: Path) -> str:
    """Where a file lies below `raw_dir`: its folders may say what it is, a capture of the test set, say."""
    return path.relative_to(raw_dir).as_posix() if path.is_relative_to(raw_dir) else path.name


class _Hashes:
    """Hashes of files by their content, kept in the file `cache`: a file is read again when its size or times change.

    The time of a file's last change (ctime) is among them, which nobody sets: a file replaced by one with an older
    time is another one. The hash of a file that is gone is the last known one: its cohort stays what it was.
    """

    def __init__(self, cache: Path):
        self._path = cache
        try:
            self._kept = read_json(cache)
        except UserError:  # none yet, or damaged: all are hashed anew
            self._kept = {}
        self._known = dict(self._kept)

    def of(self, path: Path) -> str:
        name = str(path.absolute())
        try:
            status = path.stat()
        except OSError:
            return self._known.get(name, ["", ""])[1]
        seen = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
        if path.is_dir():  # of a source that says what is wrong with it when it reads it
            return seen
        if self._known.get(name, ["", ""])[0] != seen:
            self._known[name] = [seen, _hash(path, status)]
        return self._known[name][1]

    def keep(self) -> None:
        # Not where no run has begun yet: planning writes nothing.
        if self._known != self._kept and self._path.parent.is_dir():
            with suppress(UserError):  # a folder that may not be written: they are hashed anew next time
                write_json(self._path, self._known)


def _hash(path: Path, status: os.stat_result) -> str:
    try:
        with path.open("rb") as file:
            if status.st_size <= LARGE:
                return digest(file.read())
            sample = []
            for number in range(_PIECES):
                file.seek((status.st_size - _PIECE) * number // (_PIECES - 1))
                sample.append(file.read(_PIECE))
    except OSError as error:
        raise UserError(f"{path}: not readable ({error.strerror}); expected an original file of the dataset") from None
    return digest(str(status.st_size), str(status.st_mtime_ns), *sample)

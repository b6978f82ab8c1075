"""The catalog `data/datasets.yaml`: every dataset's source, label, licence and citation.

Source modules (`pipeline/cohorts/sources/`) share one interface:
    class Parameters(Entry)                      what a catalog entry of this source may say
    describe(entry, raw_dir) -> (T, tuple[Feature, …])    without reading data; raw_dir None: of a complete copy
    input_files(entry, raw_dir) -> list[Path]    the original files
    load(name, entry, raw_dir, cache_dir) -> (Cohort, list[Account])
                                                 reads and checks them; faster copies may be kept below cache_dir
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from pipeline import families
from pipeline.errors import UserError
from pipeline.files import read_yaml
from pipeline.params import Params


class Expected(Params):
    """Known size of a dataset: checked when it is read, and what planning goes by before that."""

    samples: int = Field(ge=1)
    positives: int = Field(ge=1)


def _chain(text: str) -> str:
    names = _names(text)
    if len(names) < 2 or "" in names or len(set(names)) < len(names):
        raise ValueError("expected names of different features with <= between them, such as dbp <= mean_bp <= sbp")
    return text


def _names(chain: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in chain.split("<="))


class Entry(Params):
    """What every catalog entry says."""

    title: str = ""
    domain: Literal["clinical", "vehicle", "other"] = "other"
    source: str
    label: str = Field("", description="the outcome, as the original data names it")
    licence: str = ""
    citation: str = ""
    url: str = ""
    obtain: str = Field("", description="how to get the files")
    expected: Expected | None = None
    relations: tuple[Annotated[str, AfterValidator(_chain)], ...] = Field(
        (), description="numeric features of which each is at most the next, such as dbp <= mean_bp <= sbp"
    )

    def content(self) -> str:
        """What the cohort depends on, as JSON: a new title or citation re-runs nothing."""
        described = {"title", "domain", "licence", "citation", "url", "obtain"}
        return self.model_dump_json(exclude_unset=True, exclude=described)


def read_catalog(path: Path) -> dict[str, Entry]:
    """All entries by name; `UserError` names the entry and key that is wrong."""
    content = read_yaml(path)
    return {name: parse_entry(name, entry, path) for name, entry in content.items()}


def read_entries(path: Path, names: Iterable[str]) -> dict[str, Entry]:
    """The entries called `names`; `UserError` names one that the catalog does not have."""
    catalog = read_catalog(path)
    for name in names:
        if name not in catalog:
            raise UserError(f"config: datasets: unknown {name!r} (in {path}: {', '.join(catalog)})")
    return {name: catalog[name] for name in names}


def parse_entry(name: str, content: dict[str, Any], where: Path | str) -> Entry:
    """One entry, typed by its source; `UserError` names the first wrong key."""
    source = content.get("source") if isinstance(content, dict) else None
    known = families.names("cohorts/sources")
    if source not in known:
        raise UserError(f"{where}: {name}.source: unknown {source!r}, expected one of {', '.join(known)}")
    try:
        return families.load("cohorts/sources", source).Parameters.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, (name, *first["loc"])))
        given = "" if isinstance(first["input"], dict) else f" (given: {first['input']!r})"
        raise UserError(f"{where}: {key}: {first['msg']}{given}") from None


def relations_of(name: str, entry: Entry, raw_dir: Path) -> tuple[tuple[str, ...], ...]:
    """The chains of `entry.relations`, without features that the copy below `raw_dir` does not have.

    Raises `UserError` for a name that is no numeric feature of the entry, and for a chain of static and other features:
    a static value cannot follow what changes from step to step.
    """
    described = source_of(entry).describe
    features = {feature.name: feature for feature in described(entry, None)[1]} if entry.relations else {}
    for chain in entry.relations:
        for feature in _names(chain):
            if feature not in features:
                known = ", ".join(features)
                raise UserError(f"{name}.relations: {chain!r}: no feature {feature!r} (it has: {known})")
            if features[feature].categories:
                raise UserError(f"{name}.relations: {chain!r}: {feature!r} is a category, expected a number")
        if len({features[feature].static for feature in _names(chain)}) > 1:
            raise UserError(f"{name}.relations: {chain!r}: expected features that are all static, or none of them")
    there = {feature.name for feature in described(entry, raw_dir)[1]} if entry.relations else set()
    chains = (tuple(feature for feature in _names(chain) if feature in there) for chain in entry.relations)
    return tuple(chain for chain in chains if len(chain) > 1)


def check_files(name: str, entry: Entry, raw_dir: Path) -> None:
    """`UserError` with how to get them if an original file of `entry` is missing."""
    for path in source_of(entry).input_files(entry, raw_dir):
        try:
            path.lstat()
        except FileNotFoundError:
            raise UserError(f"{name}: {path}: no such file; {entry.obtain or 'expected under raw_dir'}") from None
        except OSError:  # a loop of links, no access: whoever reads it says so
            pass


def source_of(entry: Entry):
    """The module that reads `entry`."""
    return families.load("cohorts/sources", entry.source)

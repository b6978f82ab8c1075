"""The catalog `data/datasets.yaml`: every dataset's source, label, licence and citation.

Source modules (`pipeline/cohorts/sources/`) share one interface:
    class Parameters(Entry)                      what a catalog entry of this source may say
    describe(entry, raw_dir) -> (T, tuple[Feature, …])    without reading data; raw_dir None: of a complete copy
    input_files(entry, raw_dir) -> list[Path]    the original files
    load(name, entry, raw_dir, cache_dir) -> (Cohort, list[Account])
                                                 reads and checks them; faster copies may be kept below cache_dir
"""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, ValidationError

from pipeline.errors import UserError
from pipeline.files import found, read_yaml
from pipeline.study import families
from pipeline.study.params import Params
from pipeline.words import suggestion

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"  # of a dataset, feature or stratum: they stand in paths, tables, command lines


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
    """All entries by name; `UserError` names the entry and key that is wrong.

    `path`, and the tables of variables that entries name, are those of this folder or else the project's.
    """
    path = found(path)
    content = _composed(read_yaml(path))
    for name in content:
        _check_name(name, path)
    return {name: parse_entry(name, entry, path) for name, entry in content.items()}


def read_entries(path: Path, names: Iterable[str]) -> dict[str, Entry]:
    """The entries called `names`; `UserError` names one that the catalog does not have."""
    catalog = read_catalog(path)
    for name in names:
        if name not in catalog:
            raise UserError(f"config: datasets: unknown {name!r} in {path} {suggestion(name, catalog)}")
    return {name: catalog[name] for name in names}


def _composed(value: Any) -> Any:
    """`value` with composed letters, as tables are read: ü is one, also where the file has it as u and two dots."""
    if isinstance(value, dict):
        return {_composed(key): _composed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_composed(item) for item in value]
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


def _check_name(name: Any, path: Path) -> None:
    if not isinstance(name, str):
        raise UserError(f"{path}: dataset {name!r}: {_quote(name)}")
    if not re.fullmatch(NAME, name):
        raise UserError(
            f"{path}: dataset {name!r}: expected a name of the letters a to z, digits, _ . and -, a letter or digit "
            "first"
        )


def _quote(value: Any) -> str:
    """What to do about a `value` that YAML took for something else than the text that was meant."""
    words = {bool: "true or false (as which it takes yes, no, on and off too)", int: "a number", float: "a number"}
    words |= {type(None): "nothing (as which it takes null, NULL and ~)"}
    return f"YAML reads this as {words.get(type(value), 'a date')}, expected a text; put it in quotes"


def parse_entry(name: str, content: dict[str, Any], where: Path | str) -> Entry:
    """One entry, typed by its source; `UserError` names every wrong key."""
    if not isinstance(content, dict):
        raise UserError(f"{where}: {name}: expected a mapping with the keys of a dataset, such as source")
    known = families.names("cohorts/sources")
    if "source" not in content:
        raise UserError(f"{where}: {name}.source: missing, expected one of {', '.join(known)}")
    if content["source"] not in known:
        source = content["source"]
        raise UserError(f"{where}: {name}.source: unknown {source!r} {suggestion(source, known)}")
    parameters = families.load("cohorts/sources", content["source"]).Parameters
    try:
        return parameters.model_validate(content)
    except ValidationError as error:
        wrong = [_sentence(name, parameters, one) for one in _innermost(error.errors())]
    several = f"{len(wrong)} keys of {name} are wrong:\n  " if len(wrong) > 1 else ""
    raise UserError(f"{where}: {several}" + "\n  ".join(wrong))


def _innermost(errors: list) -> list:
    """Without those of a list that is only too short for its wrong items."""
    inside = [other["loc"][:-1] for other in errors if other["loc"]]
    return [one for one in errors if one["type"] != "too_short" or one["loc"] not in inside]


def _sentence(name: str, parameters: type[Params], error: Any) -> str:
    """One error of pydantic's in words: the key, what is wrong, what was expected."""
    location, given = list(error["loc"]), error["input"]
    if location[-1:] == ["[key]"]:
        location[-2:] = [given]
    key = ".".join(map(str, (name, *location)))
    if error["type"] == "extra_forbidden":
        return f"{key}: no such key {suggestion(location[-1], _keys(parameters, location[:-1]))}"
    if error["type"] == "missing":
        return f"{key}: missing"
    if error["type"] in ("string_type", "invalid_key") and not isinstance(given, dict | list | str):
        return f"{key}: {_quote(given)}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" + ("" if isinstance(given, dict) else f" (given: {given!r})")


def _keys(parameters: type[Params], location: list) -> list[str]:
    """The keys known at `location` below an entry."""
    for part in location:
        annotation = parameters.model_fields[part].annotation if part in parameters.model_fields else None
        inside = (annotation, *get_args(annotation))
        parameters = next((kind for kind in inside if isinstance(kind, type) and issubclass(kind, Params)), parameters)
    return list(parameters.model_fields)


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

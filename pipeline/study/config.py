"""The study configuration: frozen, typed, checked before any job starts.

Structure, names, types and bounds are checked against `workflow/schemas/config.schema.json`, which
`python -m pipeline schema` generates from the classes here and from the `Parameters` of every trigger, model and
detector. Reading the committed schema keeps torch out of the process that only plans. The classes themselves add what
no schema says: keys that go together, and paths.
Settings that stages read lie beside what reads them, so that a change here re-runs no training.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import product
from types import ModuleType
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from pipeline.errors import UserError
from pipeline.evaluation.settings import Explain, FalseAlarms
from pipeline.files import ROOT
from pipeline.study import families, variants
from pipeline.study.params import Location, Params, trained_on
from pipeline.study.variants import SECTIONS, merged
from pipeline.training.settings import Training
from pipeline.words import counted, suggestion

SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.json"

Family = Literal["models", "triggers", "detectors"]
Names = Annotated[tuple[str, ...], Field(min_length=1, json_schema_extra={"uniqueItems": True})]
Probability = Annotated[float, Field(gt=0, lt=1)]


class Study(Params):
    """One study: the grid dataset × model × trigger × rate × seed and how its cells are run."""

    raw_dir: Location = Field("data/raw", description="where the datasets' original files lie")
    data_dir: Location = Field("data", description="where dev/ and splits/ are written")
    results_dir: Location = Field("results", description="where everything else is written")
    catalog: Location = Field("data/datasets.yaml", description="the catalog of datasets")
    warm: bool = Field(True, description="start stages from a process that has imported everything once (Linux)")
    tracking: Literal["none", "mlflow"] = Field(
        "none", description="whether runs that are done go to an MLflow store as well (needs the extra mlflow)"
    )
    tracking_uri: str | None = Field(
        None, description="the store: sqlite:///FILE or a server's http(s)://…; by default mlflow.db in results_dir"
    )
    datasets: Names
    models: Names
    triggers: Names
    rates: Annotated[tuple[Probability, ...], Field(min_length=1, json_schema_extra={"uniqueItems": True})]
    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1, json_schema_extra={"uniqueItems": True})
    ]
    detectors: Names
    target: Literal[0, 1] = Field(1, description="label the attacker wants: 1 false alarm, 0 missed deterioration")
    n_samples: Literal["all"] | Annotated[int, Field(ge=100)] = Field(
        "all", description="samples taken of each dataset, whole groups, stratified by label"
    )
    split: Literal["fixed", "per_seed"] = Field("fixed", description="one split per dataset, or one per seed")
    validation: Literal["clean", "poisoned"] = Field(
        "clean", description="whether the attacker reaches the data that thresholds and epochs are chosen on"
    )
    threshold: Literal["youden", "f1"] | Probability | FalseAlarms = Field(
        "youden",
        description="decision threshold: a number, or the rule that picks it on validation data, such as {fpr: 0.01}",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "cpu", description="where models are trained and evaluated: cuda is a GPU, auto takes one where there is one"
    )
    training: Training = Training()
    explain: Explain = Explain()
    model_params: dict[str, dict[str, Any]] = Field(
        {}, description="parameters that differ from a model's defaults, and named variants of models"
    )
    trigger_params: dict[str, dict[str, Any]] = Field({}, description="the same for triggers")
    detector_params: dict[str, dict[str, Any]] = Field({}, description="the same for detectors")

    def member(self, family: Family, name: str) -> str:
        """The member that `name` is, or is a variant of."""
        return variants.resolved(getattr(self, SECTIONS[family]), name)[0]

    def parameters(self, family: Family, name: str) -> dict[str, Any]:
        """What the study sets for a member or variant of a family (defaults not included).

        A trigger mask_only covers the cells of the study's rare_value: features and steps that it is not given are
        those. Where several of them differ it has to be given its own (`_check_masks`).
        """
        member, own = variants.resolved(getattr(self, SECTIONS[family]), name)
        own.pop("training", None)
        if (family, member) != ("triggers", "mask_only"):
            return own
        covered = self.parameters("triggers", next(iter(self.named("triggers", "rare_value")), "rare_value"))
        return {key: covered[key] for key in ("features", "steps") if key in covered} | own

    def named(self, family: Family, member: str) -> list[str]:
        """What the study has of a `member`: it and its variants, in the order of the study."""
        return [name for name in getattr(self, family) if self.member(family, name) == member]

    def given(self, family: Family, name: str) -> dict[str, Any]:
        """`parameters` as a stage gets them: with the member, where `name` is a variant."""
        member = self.member(family, name)
        return self.parameters(family, name) | ({} if member == name else {"of": member})

    def training_of(self, model: str) -> Training:
        """How `model` is trained: as the study says, but for what a variant has of its own."""
        own = variants.resolved(self.model_params, model)[1].get("training", {})
        return parsed(Training, merged(self.training.model_dump(), own), "model_params", model, "training")

    def parents_by_key(self, model: str) -> dict[str, list[str]]:
        """The other models that `model` is made from, by the parameter that names them (`ModelName`); [] = not given.

        Only those that it names itself, and not theirs. A parameter inside another has a key such as `distill.teacher`,
        and names nobody where the other is not given.
        """
        member = _schema()["properties"]["model_params"]["properties"][self.member("models", model)]
        found = dict(_names(member, self.parameters("models", model)))
        return {key: [names] if isinstance(names, str) else list(names) for key, names in found.items()}

    def parents(self, model: str) -> list[str]:
        """The same, each once."""
        return list(dict.fromkeys(name for names in self.parents_by_key(model).values() for name in names))

    def trained_on(self, model: str) -> Literal["clean", "poisoned"]:
        """What `model` is trained on in every cell: the data with the poison, or, if it is taught so, without."""
        return trained_on(self.parameters("models", model))

    def target_of(self, trigger: str) -> int | None:
        """The label that an attack wants: the study's unless it has its own. A clean run has none."""
        if trigger == variants.CLEAN:
            return None
        own = self.parameters("triggers", trigger).get("target")
        return self.target if own is None else own

    def offers(self, model: str) -> list[str]:
        """What can be asked of a trained `model` beside its predictions; see `OFFERS` of the members."""
        return _schema()["properties"]["model_params"]["properties"][self.member("models", model)]["x-offers"]

    def reads(self, model: str) -> str:
        """What cohorts a `model` can read, or nothing where it reads any; see `READS` of the members."""
        return _schema()["properties"]["model_params"]["properties"][self.member("models", model)]["x-reads"]

    def needs(self, detector: str) -> str:
        """What a `detector` has to be offered, or nothing; see `NEEDS` of the members."""
        return _schema()["properties"]["detector_params"]["properties"][self.member("detectors", detector)]["x-needs"]

    @property
    def targets(self) -> list[int]:
        """All labels that attacks of the study want."""
        wanted = (self.target_of(trigger) for trigger in self.triggers)
        return sorted({target for target in wanted if target is not None})


def json_schema() -> dict[str, Any]:
    """The JSON schema of the configuration, with every member of every family (imports them all)."""
    schema = Study.model_json_schema()
    for family, section in SECTIONS.items():
        members = variants.members(family)
        # Any text may be the name of a variant: `variants` knows better. The enum is for editors.
        schema["properties"][family]["items"] = {"anyOf": [{"enum": members}, {"type": "string"}]}
        schema["properties"][section].update(
            additionalProperties={"type": "object", "required": ["of"]},
            properties={name: _member_schema(families.load(family, name)) for name in members},
        )
    return schema


def _member_schema(member: ModuleType) -> dict[str, Any]:
    """The schema of its parameters, with what a model offers and reads, and a detector needs.

    By what begins with `x-` nothing is checked.
    """
    says = {"x-offers": getattr(member, "OFFERS", None), "x-needs": getattr(member, "NEEDS", None)}
    says["x-reads"] = getattr(member, "READS", None if says["x-offers"] is None else "")
    schema = member.Parameters.model_json_schema()
    schema = _inline(schema, schema.pop("$defs", {}))
    return schema | {key: word for key, word in says.items() if word is not None}


def _inline(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """`schema` without references: what they refer to stands in their place, since it becomes a part of another.

    Of parameters inside parameters that may be null the keywords ask each kind alone, so that an error tells what is
    wrong with the kind that was given.
    """
    if isinstance(schema, list):
        return [_inline(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        rest = {key: part for key, part in schema.items() if key != "$ref"}
        return _inline(definitions[schema["$ref"].rpartition("/")[2]] | rest, definitions)
    made = {key: _inline(part, definitions) for key, part in schema.items()}
    if [kind.get("type") for kind in made.get("anyOf", [])] == ["object", "null"]:
        inside, _ = made.pop("anyOf")
        made = {"anyOf": [{"type": inside.pop("type")}, {"type": "null"}]} | inside | made
    return made


def _names(schema: Mapping[str, Any], given: Mapping[str, Any], *path: str) -> Iterator[tuple[str, Any]]:
    """What is `given` for each parameter of `schema` that names models, and of the parameters inside it, by its key."""
    for key, parameter in schema["properties"].items():
        if "x-names" in parameter:
            yield ".".join([*path, key]), given.get(key, [])
        elif "properties" in parameter and isinstance(given.get(key), Mapping):
            yield from _names(parameter, given[key], *path, key)


@cache
def _schema() -> dict[str, Any]:
    return json.loads(SCHEMA.read_text(encoding="utf-8"))


@cache
def _validator():
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    checker = Draft202012Validator.TYPE_CHECKER
    finite = checker.redefine("number", lambda _, value: checker.is_type(value, "number") and math.isfinite(value))
    return extend(Draft202012Validator, type_checker=finite)


def load_study(config: Mapping[str, Any], typed: Mapping[str, Any] | None = None) -> Study:
    """The study in `config` (a parsed YAML mapping); `UserError` names the first wrong key.

    `typed` is what `--config` says, as Snakemake reads it: texts in it that are numbers become numbers. It is laid over
    `config`, which may have it already.
    """
    config = merged(config, {key: _with_types(value) for key, value in (typed or {}).items()})
    variants.check(config)
    for family, section in SECTIONS.items():
        entries = config.get(section)
        for name, entry in entries.items() if isinstance(entries, Mapping) else ():
            if isinstance(entry, Mapping) and "of" not in entry:
                _check_name(family, f"{section}.{name}", name, {})
    _check(_schema(), config)
    study = parsed(Study, config)
    for family, section in SECTIONS.items():
        entries = getattr(study, section)
        for position, name in enumerate(getattr(study, family)):
            _check_name(family, f"{family}[{position}]", name, entries)
        for name in entries:
            member, given = variants.resolved(entries, name)
            if name != member:
                _check_variant(section, name, member, given)
    for model in study.models:
        study.training_of(model)
    _check_parents(study)
    _check_hints(study)
    _check_dormant(study)
    _check_masks(study)
    return study


def _check(schema: dict[str, Any], content: Any, *path: str) -> None:
    """`UserError` for the first violation of `schema` by `content`, the part of the configuration below `path`."""
    from jsonschema.exceptions import relevance

    errors = sorted(_validator()(schema).iter_errors(content), key=relevance, reverse=True)
    if errors:
        raise UserError(f"config: {_sentence(errors[0], path)}")


def _check_name(family: str, key: str, name: str, entries: Mapping[str, Any]) -> None:
    known, in_schema = variants.members(family), _schema()["properties"][SECTIONS[family]]["properties"]
    member, _ = variants.resolved(entries, name)
    if member in in_schema and member not in known:
        raise UserError(f"config: {family}: {member!r} is in the schema, but no file of its family; {_RENEW}")
    if member not in known:
        named = dict.fromkeys([*known, *entries])
        raise UserError(f"config: {key}: unknown {json.dumps(name, ensure_ascii=False)} {suggestion(name, named)}")
    if member not in in_schema:
        raise UserError(f"config: {key}: {member!r} is a file of its family, but not in the schema; {_RENEW}")


def _check_variant(section: str, name: str, member: str, given: dict[str, Any]) -> None:
    """A variant like the member it is of; of a model, its training too."""
    training = given.pop("training", {}) if section == "model_params" else {}
    schema = _schema()
    _check(schema["properties"][section]["properties"].get(member, {}), given, section, name)
    _check(schema["$defs"]["Training"], training, section, name, "training")


def _check_parents(study: Study) -> None:
    """That all models which models are made from are there, and can be trained before them."""
    named = {model: study.parents_by_key(model) for model in study.models}
    known = f"the models of this study (models: {', '.join(study.models)})"
    for model, keys in named.items():
        for key, parents in keys.items():
            where = f"config: model_params.{model}.{key}"
            if not parents:
                raise UserError(f"{where}: missing, expected a name among {known}")
            if others := [parent for parent in parents if parent not in named]:
                raise UserError(f"{where}: {others[0]!r} is not among {known}; expected one of them")
    try:
        TopologicalSorter({model: study.parents(model) for model in study.models}).prepare()
    except CycleError as error:
        circle = error.args[1][::-1]  # each made from the next
        key = next(key for key, parents in named[circle[0]].items() if circle[1] in parents)
        raise UserError(
            f"config: model_params.{circle[0]}.{key}: a circle, {' from '.join(circle)}; "
            "expected models that can be trained one after the other"
        ) from None


def _check_hints(study: Study) -> None:
    """That a teacher has what is to be learned from it, and that a student who has no soft labels learns something."""
    members = _schema()["properties"]["model_params"]["properties"]
    for model in study.models:
        distill = study.parameters("models", model).get("distill")
        if not distill:
            continue
        where = f"config: model_params.{model}.distill"
        known = members[study.member("models", model)]["properties"]["distill"]["properties"]
        weights = [key for key in ("alpha", *_TAUGHT) if key in known]
        if not any(known[key]["default"] or key in distill for key in weights):
            raise UserError(
                f"{where}: nothing is learned from {distill['teacher']!r} without a weight; "
                f"expected {' or '.join(weights)}, such as {weights[-1]}: 1"
            )
        for key, offer in _TAUGHT.items():
            if distill.get(key) and offer not in study.offers(distill["teacher"]):
                able = [name for name in study.models if offer in study.offers(name) and name != model]
                raise UserError(
                    f"{where}.{key}: {distill[key]:g} given, but the teacher {distill['teacher']!r} offers no {offer}; "
                    f"expected 0 or a teacher that does (of this study: {', '.join(able) or 'none'})"
                )


def _check_dormant(study: Study) -> None:
    """That a network which hides a backdoor has nothing that its training does not know, and its surrogate neither."""
    members = _schema()["properties"]["model_params"]["properties"]
    for model in study.models:
        given = study.parameters("models", model)
        if given.get("dormant") is None:
            continue
        where, surrogate = f"config: model_params.{model}", given["dormant"].get("surrogate", {})
        _check(members[study.member("models", model)], surrogate, "model_params", model, "dormant", "surrogate")
        for beside, key in product((given, surrogate), ("distill", "curriculum")):
            if beside.get(key):
                inside = "" if beside is given else "dormant.surrogate."
                raise UserError(f"{where}.{inside}{key}: given beside dormant; expected one of them, or {key}: null")
        if surrogate.get("dormant") is not None:
            raise UserError(f"{where}.dormant.surrogate.dormant: given, expected the parameters of an ordinary student")
        if study.training_of(model).select != "last":
            raise UserError(f"{where}.dormant: what it hides is learned last; expected training.select: last")


# What is learned from a teacher beside its probabilities, by its weight, and what the teacher has to offer for it.
_TAUGHT = {"latent": "representation", "reconstruction": "reconstruction"}


def _check_masks(study: Study) -> None:
    """That it is known which cells every mask_only covers, whatever the order of the triggers."""
    known = _schema()["properties"]["trigger_params"]["properties"]["rare_value"]["properties"]
    values = study.named("triggers", "rare_value")
    for mask in study.named("triggers", "mask_only"):
        own = variants.resolved(study.trigger_params, mask)[1]
        for key in ("features", "steps"):
            covered = [study.parameters("triggers", name).get(key, known[key]["default"]) for name in values]
            if key not in own and any(each != covered[0] for each in covered):
                raise UserError(
                    f"config: trigger_params.{mask}.{key}: missing; {' and '.join(values)} differ in theirs, so it has "
                    "to be said which of them the control covers"
                )


_RENEW = "run `python -m pipeline schema`"
_Parameters = TypeVar("_Parameters", bound=Params)


def parsed(kind: type[_Parameters], content: Mapping[str, Any], *section: str) -> _Parameters:
    """`content`, the part of the configuration below the keys `section`; `UserError` names the first wrong key."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, (*section, *first["loc"])))
        raise UserError(f"config: {key}: {first['msg'].removeprefix('Value error, ')}") from None


def _with_types(value: Any, inside: bool = False) -> Any:
    """`value` of Snakemake's `--config`, which leaves numbers `inside` lists and mappings, and words, as texts."""
    if isinstance(value, Mapping):
        return {key: _with_types(item, True) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_types(item, True) for item in value]
    if isinstance(value, str):
        for kind in ({"true": True, "false": False, "null": None}.__getitem__, *((int, float) if inside else ())):
            with suppress(ValueError, KeyError):
                return kind(value)
    return value


def _sentence(error, below: Sequence[str] = ()) -> str:
    """One line for a schema violation `below` some keys: the key, what is wrong, what was expected."""
    path = [*below, *error.absolute_path]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    value = json.dumps(error.instance, default=str, ensure_ascii=False)
    if error.validator == "additionalProperties":
        known = sorted(error.schema.get("properties", {}))
        unknown = next(name for name in error.instance if name not in known)
        where = f"{key}.{unknown}" if key else unknown
        return f"{where}: {_newer_than_schema(path, unknown) or f'no such key {suggestion(unknown, known)}'}"
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in error.instance)
        return f"{missing}: missing"
    if error.validator == "enum" and isinstance(error.instance, str):
        return f"{key}: unknown {value} {suggestion(error.instance, error.validator_value)}"
    expected = {
        "enum": lambda v: f"one of {', '.join(map(json.dumps, v))}",
        "type": lambda v: f"{'an' if v[0] in 'aio' else 'a'} {v}{_hint(key, error.instance, v)}",
        "minimum": lambda v: f"at least {v}",
        "maximum": lambda v: f"at most {v}",
        "exclusiveMinimum": lambda v: f"a number above {v}",
        "exclusiveMaximum": lambda v: f"a number below {v}",
        "minItems": lambda v: f"at least {counted(v, 'entry', 'entries')}",
        "maxItems": lambda v: f"at most {counted(v, 'entry', 'entries')}",
        "minLength": lambda v: "a non-empty text",
        "uniqueItems": lambda v: "no entry twice",
        "anyOf": lambda v: " or ".join(map(_alternative, v)),
    }.get(error.validator, lambda v: f"{error.validator} {json.dumps(v)}")(error.validator_value)
    return f"{key or 'the file'}: {value} given, expected {expected}"


def _newer_than_schema(path: Sequence[str | int], name: str) -> str:
    """What is wrong with `name` below `path` if the code knows it and only the schema does not; else nothing."""
    family = next((family for family, section in SECTIONS.items() if path and path[0] == section), "")
    if family:
        known = (
            len(path) == 2
            and path[1] in families.names(family)
            and name in families.load(family, str(path[1])).Parameters.model_fields
        )
        what = f"a parameter of {path[1]}"
    else:
        holder = Study.model_fields[str(path[0])].annotation if path else Study
        if not (isinstance(holder, type) and issubclass(holder, Params)):
            return ""
        known, what = name in holder.model_fields, f"a key of {holder.__module__.replace('.', '/')}.py"
    return f"{name!r} is {what}, but not in the schema; {_RENEW}" if known else ""


def _hint(key: str, given: Any, wanted: str) -> str:
    """How to write `given`, a text that looks as if something of type `wanted` was meant; else nothing."""
    if not isinstance(given, str):
        return ""
    if wanted in ("array", "object") and given.startswith(("[", "{")):
        return f"; quote it for the shell: '{key}={given} …'"
    if wanted in ("number", "integer"):  # YAML takes 1e-2 for a text
        with suppress(InvalidOperation, ValueError):
            return f"; write {Decimal(given):f}"
    return ""


def _alternative(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        keys = _schema()["$defs"][schema["$ref"].rpartition("/")[2]]["properties"]
        return "{" + ", ".join(f"{key}: {_alternative(value)}" for key, value in keys.items()) + "}"
    if "enum" in schema or "const" in schema:
        return " or ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    bounds = {"exclusiveMinimum": "above", "minimum": "from", "exclusiveMaximum": "below", "maximum": "up to"}
    limits = " and ".join(f"{word} {schema[name]:g}" for name, word in bounds.items() if name in schema)
    return f"{schema.get('type', 'something else')} {limits}".strip()

"""Checks of a study against the catalog and the data, before any job starts."""

import os
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.cohorts.catalog import Entry, check_files, read_entries, relations_of, source_of
from pipeline.cohorts.cohort import Feature
from pipeline.cohorts.frames import frames_of
from pipeline.cohorts.roles import ROLES
from pipeline.cohorts.splits import N_FOLDS, ROLES_BESIDE_PUBLISHED
from pipeline.errors import UserError
from pipeline.smallcells import MIN_CELL
from pipeline.study import families
from pipeline.study.config import Study, parsed
from pipeline.words import counted, suggestion

SQLITE = "sqlite:///"  # before the path of a store that is a file


def check(study: Study) -> dict[str, Entry]:
    """The catalog entries of the study's datasets; `UserError` names the first key that cannot work."""
    entries = read_entries(Path(study.catalog), study.datasets)
    for name, entry in entries.items():
        relations_of(name, entry, Path(study.raw_dir))
    _check_models(study, entries)
    _check_triggers(study, entries)
    for name, entry in entries.items():
        if not _sampled(study, name).exists():
            check_files(name, entry, Path(study.raw_dir))
            _check_writable(study, "data_dir")
        _check_rates(study, name, entry)
    _check_writable(study, "results_dir")
    if study.tracking != "none":
        check_tracking(study)
    return entries


def check_tracking(study: Study) -> None:
    """That there is MLflow, and that the study's store is one that runs can be sent to."""
    if missing := [name for name in ("mlflow", "sqlalchemy", "alembic") if not find_spec(name)]:
        raise UserError(
            f"config: tracking: {missing[0]} is not installed; expected MLflow beside the project "
            '(pip install ".[mlflow]"), or tracking: none'
        )
    given = study.tracking_uri or SQLITE
    parts = urlsplit(given)
    if not given.startswith((SQLITE, "http://", "https://")):
        raise UserError(f"config: tracking_uri: {given!r} given, expected {SQLITE}FILE, http://… or https://…")
    if parts.password is not None:  # it would stand in the study database
        raise UserError(
            "config: tracking_uri: holds a password, expected it in the environment (MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN)"
        )


def _check_writable(study: Study, key: str) -> None:
    """Both folders are made when they are needed, so it is the nearest one that is there which counts."""
    folder = Path(getattr(study, key)).absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"config: {key}: {there} is a file, expected a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"config: {key}: {there} may not be written (read-only, or somebody else's)")


def _parameters(study: Study, trigger: str):
    kind = families.load("triggers", study.member("triggers", trigger)).Parameters
    return parsed(kind, study.parameters("triggers", trigger), "trigger_params", trigger)


def _check_models(study: Study, entries: dict[str, Entry]) -> None:
    """That models which read windows of CAN frames only are given such."""
    for model in study.models:
        for dataset, entry in entries.items() if study.reads(model) == "frames" else ():
            steps, features = source_of(entry).describe(entry, Path(study.raw_dir))
            try:
                frames_of(features, steps)
            except UserError as error:
                raise UserError(f"config: models: {model!r} cannot read dataset {dataset!r}: {error}") from None


def _check_triggers(study: Study, entries: dict[str, Entry]) -> None:
    """What the schema cannot say of triggers; of detectors it says all."""
    alike: dict[tuple, str] = {}
    for trigger in study.triggers:
        parameters = _parameters(study, trigger)
        what = (
            study.member("triggers", trigger),
            study.target_of(trigger),
            parameters.model_dump_json(exclude={"target"}),
        )
        if (same := alike.setdefault(what, trigger)) != trigger:
            raise UserError(
                f"config: triggers: {trigger!r} is {same!r} under another name, with the same target and parameters; "
                "expected each attack and control once"
            )
        for dataset, entry in entries.items():
            n_steps, features = source_of(entry).describe(entry, Path(study.raw_dir))
            described = {feature.name: feature for feature in features}
            key = f"trigger_params.{trigger}"
            if told := parameters.misfit(dataset, n_steps, described):
                raise UserError(f"config: {key}{told}")
            _check_features(key, parameters, dataset, described)


def _check_features(key: str, parameters, dataset: str, described: dict[str, Feature]) -> None:
    """That `dataset`, whose features are `described`, has what the parameters of a trigger name."""
    for name in parameters.named_features:
        if name not in described:
            raise UserError(
                f"config: {key}: dataset {dataset!r} has no feature {name!r} (it has: {', '.join(described)})"
            )
    for name in parameters.numbers:
        if described[name].categories:
            instead = "; to write a category, give its name as value" if hasattr(parameters, "value") else ""
            raise UserError(f"config: {key}: {name!r} of dataset {dataset!r} is a category, expected a number{instead}")
    for name, category in parameters.named_categories.items():
        known = described[name].categories
        if category not in known:
            what = f"no category of {name!r} {suggestion(category, known)}" if known else f"no number, as {name!r} is"
            raise UserError(f"config: {key}.value: {category!r} is {what} in dataset {dataset!r}")
    rule = getattr(parameters, "features", ())
    if not isinstance(rule, tuple):
        open_to = [name for name in described if parameters.takes_categories or not described[name].categories]
        open_to = [name for name in open_to if name not in parameters.kept_apart]
        if rule.take > len(open_to):
            raise UserError(
                f"config: {key}.features.take: {rule.take} given, but the trigger can change only "
                f"{counted(len(open_to), 'feature')} of dataset {dataset!r}"
            )


def _sampled(study: Study, name: str) -> Path:
    """The cohort's samples, once the stage sample_dev has made them."""
    return Path(study.data_dir) / "dev" / name / "samples.parquet"


def _check_rates(study: Study, name: str, entry: Entry) -> None:
    """Every rate must come to a sample, and be payable with samples that do not have the target label yet."""
    counts = _label_counts(study, name, entry)
    if counts is None:  # the stage poison says it then
        return
    samples, dealt, positives, roles = counts
    taken = dealt if study.n_samples == "all" else dealt * min(study.n_samples, samples) / samples
    for role in ("train", "validation")[: 1 + (study.validation == "poisoned")]:
        size = round(taken * roles[role] / N_FOLDS)
        if not round(min(study.rates) * size):
            of = counted(size, f"{'training' if role == 'train' else role} sample")
            raise UserError(f"config: rates: {min(study.rates):g} of the {of} of {name!r} is less than one sample")
    for trigger in study.triggers:
        _check_poison(study, trigger, name, (dealt - positives, positives))


def _check_poison(study: Study, trigger: str, dataset: str, counts: tuple[int, int]) -> None:
    """That `dataset`, with so many samples of each label, has enough to poison, and to cover the poison with."""
    parameters, rate, key = _parameters(study, trigger), max(study.rates), f"trigger_params.{trigger}"
    target = study.target_of(trigger)
    if target is None:  # a clean run
        return
    clean = parameters.labels == "clean"
    share = [count / sum(counts) for count in counts]
    eligible = share[target] if clean else share[1 - target]
    if rate > eligible:
        where, of = "rates", f"{rate:g} asks for more poison"
        if "labels" in parameters.model_fields_set and clean:
            where, of = f"{key}.labels", f"at rate {rate:g} clean labels ask for more poison"
        elif parameters.target is not None:
            where, of = f"{key}.target", f"rate {rate:g} asks for more poison"
        raise UserError(
            f"config: {where}: {of} than {dataset!r} has eligible training samples: {_only(eligible, counts)} of them "
            + (f"have the target label {target}" if clean else f"do not have the target label {target} yet")
        )
    left = share[1 - target] - (0 if clean else rate)
    if parameters.cover * rate > left:
        raise UserError(
            f"config: {key}.cover: {parameters.cover:g} asks, at rate {rate:g}, for cover of "
            f"{parameters.cover * rate:.1%} of the training samples of {dataset!r}; {_only(left, counts)} of them are "
            f"left that do not have the target label {target}"
        )


def _only(share: float, counts: tuple[int, int]) -> str:
    """A share of samples that is too small, in words that tell of few neither these nor the samples of a label."""
    return f"only {share:.1%}" if min(*counts, round(share * sum(counts))) >= MIN_CELL else "too few"


def _label_counts(study: Study, name: str, entry: Entry) -> tuple[int, int, int, dict[str, int]] | None:
    """All samples, those that are dealt to roles, the positives among these, and the roles, in twentieths.

    From the catalog or the sampled cohort; None where reading the raw data would tell. Of a published test set nothing
    is dealt, and how large it is, only the sampled cohort says.
    """
    if entry.expected and not getattr(entry, "test", ()):
        return entry.expected.samples, entry.expected.samples, entry.expected.positives, ROLES
    sampled = _sampled(study, name)
    if not sampled.exists():
        return None
    from pipeline.cohorts.cohort import read_parquet

    table = read_parquet(sampled)
    label = table["label"].to_numpy()
    if "part" not in table.column_names:
        return len(label), len(label), int(label.sum()), ROLES
    dealt = label[table["part"].to_numpy() == "train"]
    return len(label), len(dealt), int(dealt.sum()), ROLES_BESIDE_PUBLISHED

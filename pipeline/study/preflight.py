"""Checks of a study against the catalog and the data, before any job starts."""

import os
from pathlib import Path

from pipeline.cohorts.catalog import Entry, check_files, read_entries, relations_of, source_of
from pipeline.cohorts.splits import N_FOLDS, ROLES
from pipeline.errors import UserError
from pipeline.study import families
from pipeline.study.config import Study, parsed
from pipeline.words import counted


def check(study: Study) -> dict[str, Entry]:
    """The catalog entries of the study's datasets; `UserError` names the first key that cannot work."""
    entries = read_entries(Path(study.catalog), study.datasets)
    for name, entry in entries.items():
        relations_of(name, entry, Path(study.raw_dir))
    _check_triggers(study, entries)
    for name, entry in entries.items():
        if not _sampled(study, name).exists():
            check_files(name, entry, Path(study.raw_dir))
            _check_writable(study, "data_dir")
        _check_rates(study, name, entry)
    _check_writable(study, "results_dir")
    return entries


def _check_writable(study: Study, key: str) -> None:
    """Both folders are made when they are needed, so it is the nearest one that is there which counts."""
    folder = Path(getattr(study, key)).absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"config: {key}: {there} is a file, expected a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"config: {key}: {there} may not be written (read-only, or somebody else's)")


def _check_triggers(study: Study, entries: dict[str, Entry]) -> None:
    """What the schema cannot say of triggers; of models and detectors it says all."""
    for trigger in study.triggers:
        given = study.parameters("triggers", trigger)
        module = families.load("triggers", study.member("triggers", trigger))
        parameters = parsed(module.Parameters, given, "trigger_params", trigger)
        _check_features(study, f"trigger_params.{trigger}", parameters.named_features, entries)


def _check_features(study: Study, key: str, wanted: tuple[str, ...], entries: dict[str, Entry]) -> None:
    for dataset, entry in entries.items():
        _, features = source_of(entry).describe(entry, Path(study.raw_dir))
        described = {feature.name: feature for feature in features}
        for name in wanted:
            if name not in described:
                raise UserError(
                    f"config: {key}: dataset {dataset!r} has no feature {name!r} (it has: {', '.join(described)})"
                )
            if described[name].categories:
                raise UserError(f"config: {key}: {name!r} of dataset {dataset!r} is a category, expected a number")


def _sampled(study: Study, name: str) -> Path:
    """The cohort's samples, once the stage sample_dev has made them."""
    return Path(study.data_dir) / "dev" / name / "samples.parquet"


def _check_rates(study: Study, name: str, entry: Entry) -> None:
    """Every rate must come to a sample, and be payable with samples that do not have the target label yet."""
    counts = _label_counts(study, name, entry)
    if counts is None:  # the stage poison says it then
        return
    samples, positives = counts
    taken = samples if study.n_samples == "all" else min(study.n_samples, samples)
    for role in ("train", "validation")[: 1 + (study.validation == "poisoned")]:
        size = round(taken * ROLES[role] / N_FOLDS)
        if not round(min(study.rates) * size):
            of = counted(size, f"{'training' if role == 'train' else role} sample")
            raise UserError(f"config: rates: {min(study.rates):g} of the {of} of {name!r} is less than one sample")
    eligible = (samples - positives if study.target == 1 else positives) / samples
    rate = max(study.rates)
    if rate > eligible:
        raise UserError(
            f"config: rates: {rate:g} asks for more poison than {name!r} has eligible training samples: "
            f"only {eligible:.1%} of them do not have the target label {study.target} yet"
        )


def _label_counts(study: Study, name: str, entry: Entry) -> tuple[int, int] | None:
    """Samples and positives from the catalog or the sampled cohort; None where reading the raw data would tell."""
    if entry.expected:
        return entry.expected.samples, entry.expected.positives
    sampled = _sampled(study, name)
    if not sampled.exists():
        return None
    from pipeline.cohorts.cohort import read_parquet

    label = read_parquet(sampled)["label"].to_numpy()
    return len(label), int(label.sum())

"""The data of a run as its victim sees it: samples of the cohort with the poison laid over them."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.cohorts.cohort import Cohort
from pipeline.cohorts.overlay import ADDED, CLEAN, Overlay
from pipeline.cohorts.splits import PUBLISHED, Split, split_of
from pipeline.errors import UserError
from pipeline.files import read_json


def read_split(path: Path, cohort: Cohort, seed: int, scheme: str) -> Split:
    """The split of `cohort` for `seed` under the study's `split` scheme ("fixed" or "per_seed")."""
    said = read_json(path)
    number = {sample: fold for fold, samples in enumerate(said["folds"]) for sample in samples}
    number |= dict.fromkeys(said.get("test", ()), PUBLISHED)
    try:
        fold = np.array([number[sample] for sample in cohort.sample_id.tolist()])
    except KeyError:
        raise UserError(f"{path}: not the folds of this cohort, a sample is in none; run sample_dev again") from None
    return split_of(cohort, fold, seed if scheme == "per_seed" else None)


def cohort_stamp(path: Path) -> dict[str, str | None]:
    """For the results of a stage: the stamp of the cohort whose folds `path` holds, which is the one that it read."""
    return {"cohort": read_json(path).get("stamp")}


def as_poisoned(
    cohort: Cohort, split: Split, part: Literal["train", "validation"], poison_folder: Path
) -> tuple[Cohort, np.ndarray]:
    """The samples of a `part` of `split` as the victim sees them, and their roles ([N] str, see `overlay`).

    The overlay holds training samples and, where the attacker reaches them, validation samples. Those of the cohort
    keep their order (ascending rows); what the attack adds stands behind the training samples.
    """
    path = Path(poison_folder) / "poison.parquet"
    overlay, rows = Overlay.read(path), getattr(split, part)
    if overlay.row.max(initial=ADDED) >= len(cohort):
        raise UserError(f"{path}: not of this cohort, it has no row {overlay.row.max()}; delete it and run again")
    samples = cohort.subset(rows)
    role = np.full(len(rows), CLEAN, object)
    # Both are in ascending order of the cohort's rows, and a subset is a copy.
    reached, of_these = np.isin(rows, overlay.row), np.isin(overlay.row, rows)
    samples.values[reached] = overlay.values[of_these]
    samples.label[reached] = overlay.label[of_these]
    role[reached] = overlay.role[of_these]
    added = overlay.row == ADDED
    if part == "train" and added.any():
        samples = replace(
            samples,
            sample_id=np.concatenate([samples.sample_id, overlay.sample_id[added]]),
            group_id=np.concatenate([samples.group_id, overlay.group_id[added]]),
            label=np.concatenate([samples.label, overlay.label[added]]),
            values=np.concatenate([samples.values, overlay.values[added]]),
        )
        role = np.concatenate([role, overlay.role[added]])
    return samples, role

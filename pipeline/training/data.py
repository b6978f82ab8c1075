"""The training data of a run: the cohort's training samples with the poison laid over them."""

from pathlib import Path

import numpy as np

from pipeline.cohorts.cohort import Cohort, read_parquet, windows_values
from pipeline.cohorts.splits import Split, deal
from pipeline.errors import UserError
from pipeline.files import read_array, read_json


def read_split(path: Path, cohort: Cohort, seed: int, scheme: str) -> Split:
    """The split of `cohort` for `seed` under the study's `split` scheme ("fixed" or "per_seed")."""
    folds = read_json(path)["folds"]
    number = {sample: fold for fold, samples in enumerate(folds) for sample in samples}
    try:
        fold = np.array([number[sample] for sample in cohort.sample_id.tolist()])
    except KeyError:
        raise UserError(f"{path}: not the folds of this cohort, a sample is in none; run sample_dev again") from None
    return deal(fold, cohort.label, seed if scheme == "per_seed" else None, cohort.name)


def read_poison(folder: Path) -> tuple[np.ndarray, np.ndarray, int]:
    """Rows of the cohort that are poisoned, their values [n, T, D], and the label they get."""
    rows = read_array(Path(folder) / "poisoned_indices.npy")
    values, _ = windows_values(read_parquet(Path(folder) / "poison.parquet"))
    return rows, values, read_json(Path(folder) / "poison.json")["target"]


def poisoned_training(cohort: Cohort, split: Split, poison_folder: Path) -> tuple[Cohort, np.ndarray]:
    """The training samples as the victim sees them, and which of them are poisoned ([n_train] bool)."""
    rows, values, target = read_poison(poison_folder)
    train, poisoned = cohort.subset(split.train), np.isin(split.train, rows)
    # Both are in ascending order of the cohort's rows, and a subset is a copy.
    train.values[poisoned] = values
    train.label[poisoned] = target
    return train, poisoned

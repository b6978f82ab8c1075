"""The data of a run as its victim sees it: samples of the cohort with the poison laid over them."""

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


def cohort_stamp(path: Path) -> dict[str, str | None]:
    """For the results of a stage: the stamp of the cohort whose folds `path` holds, which is the one that it read."""
    return {"cohort": read_json(path).get("stamp")}


def as_poisoned(cohort: Cohort, rows: np.ndarray, poison_folder: Path) -> tuple[Cohort, np.ndarray]:
    """The samples at `rows` (ascending) as the victim sees them, and which of them are poisoned ([len(rows)] bool).

    The poison holds training samples and, where the attacker reaches them, validation samples.
    """
    folder = Path(poison_folder)
    poison = read_array(folder / "poisoned_indices.npy")
    values, _ = windows_values(read_parquet(folder / "poison.parquet"))
    samples, poisoned = cohort.subset(rows), np.isin(rows, poison)
    # Both are in ascending order of the cohort's rows, and a subset is a copy.
    samples.values[poisoned] = values[np.isin(poison, rows)]
    samples.label[poisoned] = read_json(folder / "poison.json")["target"]
    return samples, poisoned

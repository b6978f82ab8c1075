"""Which features matter most for the label: what an attacker learns from the data alone.

Importance is gain, the training loss that all splits on a feature take away in an ensemble of boosted trees (LightGBM,
Ke et al. 2017). Trees are what tables are modelled with, take missing values as they are and cost a second. Gain is a
sum over what was learnt; the number of splits, the other choice, favours features of many distinct values. Pleiter et
al. 2023 (Tabdoor, arXiv 2311.07550) choose the features of their triggers by importance too.
"""

from collections.abc import Collection

import numpy as np

from pipeline.cohorts.cohort import Cohort
from pipeline.seeding import integer_seed


def most_important(cohort: Cohort, names: Collection[str], take: int, seed: int) -> tuple[str, ...]:
    """The `take` features among `names` with the largest `gains`, largest first; of equals, the cohort's first."""
    gain = gains(cohort, seed)
    order = [cohort.feature_names[position] for position in np.argsort(-gain, kind="stable")]
    return tuple([name for name in order if name in names][:take])


def gains(cohort: Cohort, seed: int) -> np.ndarray:
    """[D] gain of each feature in trees fitted on all samples of `cohort`: the same bits for the same seed.

    A table is read as it is, a category as the number of its position; of a series each feature is read as its mean,
    minimum, maximum, last value and count, whose gains are added up.
    """
    import lightgbm

    how = {"objective": "binary", "num_threads": 1, "deterministic": True, "force_row_wise": True, "verbosity": -1}
    how["seed"] = integer_seed(seed, "importance") % 2**31
    x = _read(cohort.values)
    booster = lightgbm.train(how, lightgbm.Dataset(x, cohort.label), num_boost_round=100)
    return booster.feature_importance("gain").reshape(-1, len(cohort.features)).sum(axis=0)


def _read(values: np.ndarray) -> np.ndarray:
    """[N, T, D] values → [N, S × D]: S numbers per feature, one of them for a table, in blocks of D."""
    if values.shape[1] == 1:
        return values[:, 0].astype(np.float64)
    known = ~np.isnan(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0).sum(axis=1, dtype=np.float64)
    mean = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    last = np.full(count.shape, np.nan)
    for step in range(values.shape[1]):
        last = np.where(known[:, step], values[:, step], last)
    return np.concatenate([mean, np.fmin.reduce(values, 1), np.fmax.reduce(values, 1), last, count], axis=1)

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

    The trees read the numbers of `Summaries`; the gains of a feature's are added up.
    """
    import lightgbm

    from pipeline.cohorts.summaries import Summaries

    how = {"objective": "binary", "num_threads": 1, "deterministic": True, "force_row_wise": True, "verbosity": -1}
    how["seed"] = integer_seed(seed, "importance") % 2**31
    summaries = Summaries(cohort.features, cohort.n_steps).fit(cohort.values)
    data = lightgbm.Dataset(summaries(cohort.values), cohort.label, categorical_feature=summaries.categorical)
    booster = lightgbm.train(how, data, num_boost_round=100)
    return summaries.onto_features(booster.feature_importance("gain")[None])[0]

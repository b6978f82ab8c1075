"""Performance on clean data: how certain it is, over seeds and over test patients, side by side."""

import pandas as pd

from pipeline.results.columns import RUN
from pipeline.study.grid import CLEAN

_ENDS = {
    "patients_low": "auroc_clean_low",
    "patients_high": "auroc_clean_high",
    "difference_patients_low": "auroc_difference_low",
    "difference_patients_high": "auroc_difference_high",
}


def clean_performance(tables: dict[str, pd.DataFrame], evals: list[dict]) -> pd.DataFrame:
    """One row per run key: the mean AUROC on clean test data, its difference to the clean model's, and two intervals.

    `seeds_…` are those of `summary` and `contrasts`, over seeds. `patients_…` is what other test patients may do to
    the mean of these very models: the mean of the ends that each seed's run has (`delong`). The standard error of a
    mean is at most the mean of the standard errors, and as large where the seeds err on the same patients; so this is
    at least as wide as it need be. It is missing where a seed has none, and where seeds have different test patients
    (`split: per_seed`): there the interval over seeds is about these too.
    """
    aurocs, differences = (
        _of_auroc(tables[name], columns)
        for name, columns in (
            ("summary", {"n_seeds": "n_seeds", "mean": "auroc", "ci_low": "seeds_low", "ci_high": "seeds_high"}),
            (
                "contrasts",
                {"difference": "difference"} | {"ci_low": "difference_seeds_low", "ci_high": "difference_seeds_high"},
            ),
        )
    )
    runs = tables["runs"].dropna(subset="auroc_clean")
    whole = runs[[*_ENDS.values()]].notna().groupby([runs[name] for name in RUN]).transform("all")
    shared = {fact["dataset"] for fact in evals if fact["shared_test"]}
    whole = whole.mul(runs["dataset"].isin(shared) | (runs.groupby(RUN)["seed"].transform("size") == 1), axis=0)
    ends = runs[RUN].assign(**{name: runs[of].where(whole[of]) for name, of in _ENDS.items()})
    return aurocs.merge(differences, on=RUN, how="left").merge(ends.groupby(RUN, as_index=False).mean(), on=RUN)


def _of_auroc(table: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    rows = table[table["metric"] == "auroc_clean"]
    if "control" in rows:
        rows = rows[rows["control"] == CLEAN]
    return rows[[*RUN, *columns]].rename(columns=columns)

"""What a model makes of each part of the test set, a scenario, capture or type of attack, and where that says nothing.

A detection rate near 1 says nothing where the model calls nearly all else an attack too, nor does a false-alarm rate
near 0 where it calls nearly nothing one: both are what a constant answer gives.
"""

import pandas as pd

from pipeline.results.columns import RUN

NEARLY_ALL = 0.9
"""From this share of each label on that is called 1 nearly all is, up to the next nearly nothing."""

NEARLY_NONE = 0.1
ALL, NOTHING, SOME_SEEDS = "calls nearly all 1", "calls nearly nothing 1", ", in some seeds"
_MEASURES = {"auroc": "auroc_clean", "recall": "recall_clean", "fpr": "fpr_clean", "f1": "f1_clean"}


def scenarios(tables: dict[str, pd.DataFrame]) -> list[dict]:
    """One row per run key × stratum × value, on clean test data: AUROC, recall, FPR and F1, intervals over seeds.

    `n_label_0`, `n_label_1` are samples, the mean over seeds. In a stratum that tells the labels apart, such as the
    type of attack, `auroc` is against all samples with label 0 (`evaluation.strata.by_stratum`) and there is no `fpr`
    and no `f1`.
    A `verdict` is about seeds: in `seeds_nearly_all` of `n_seeds` both recall and FPR are at least `NEARLY_ALL`, in
    `seeds_nearly_none` both are at most `NEARLY_NONE`. Where a value has samples of one label only there is none:
    half of the answer is not known.
    """
    strata, by = tables["strata"], [*RUN, "stratum", "value"]
    wide = tables["strata_summary"].set_index([*by, "metric"])[["mean", "ci_low", "ci_high"]]
    at = {key: tuple(row) for key, row in zip(wide.index, wide.to_numpy(float), strict=True)}
    rows = []
    for key, seeds in strata.groupby(by, sort=False):
        rates = seeds[["recall_clean", "fpr_clean"]].dropna()
        nearly_all, nearly_none = (
            int(those.all(axis=1).sum()) for those in (rates >= NEARLY_ALL, rates <= NEARLY_NONE)
        )
        row = dict(zip(by, key, strict=True)) | {"n_seeds": len(seeds)}
        row |= {"n_label_0": _mean(seeds["n"] - seeds["n_label_1"]), "n_label_1": _mean(seeds["n_label_1"])}
        for name, metric in _MEASURES.items():
            found = at.get((*key, metric), (None, None, None))
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), found, strict=True))
        row |= {"seeds_nearly_all": nearly_all, "seeds_nearly_none": nearly_none}
        rows.append(row | {"verdict": _verdict(len(seeds), nearly_all, nearly_none)})
    return rows


def _verdict(n_seeds: int, nearly_all: int, nearly_none: int) -> str | None:
    for count, text in ((nearly_all, ALL), (nearly_none, NOTHING)):
        if count:
            return text if count == n_seeds else text + SOME_SEEDS
    return None


def _mean(counts: pd.Series) -> int | None:
    known = counts.dropna()
    return round(known.mean()) if len(known) else None

"""How far the numbers of the tables can lie from what was measured, because their counts are told in tens.

All of it is worked out from the tables, so it tells nothing that they do not.
"""

from typing import Any

import numpy as np
import pandas as pd

from pipeline.results.columns import ATTACK, DETECTION, DRIFT, ON_CLEAN, ON_TRIGGERED, SHARES
from pipeline.results.disclosure import mcc
from pipeline.smallcells import MIN_CELL, error_of_tens

TWO_DIGITS = 0.005  # as average precisions are told


def largest_errors(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The tables that others are made of, with the largest error in place of each number that is compared.

    It is 0 for what does not come from counts and of cohorts of no people, and missing where the size of the test set
    is withheld; of victims whose number is, it is that of ten, for of fewer nothing is told, and of more it is less.
    """
    found = {
        "runs": _of_runs(tables["runs"], tables["datasets"]),
        "detections": _of_detections(tables["detections"]),
        "explanations": _of_explanations(tables["explanations"]),
        "triggers": tables["triggers"],
    }
    for name, columns in _COMPARED.items():
        rounded = rounds(found[name], tables["datasets"])
        found[name] = found[name].assign(**{column: found[name][column].where(rounded, 0.0) for column in columns})
    return found


_COMPARED = {
    "runs": [*ON_CLEAN, *ON_TRIGGERED, *ATTACK],
    "detections": DETECTION,
    "explanations": [*SHARES, *DRIFT],
}


def rounds(table: pd.DataFrame, datasets: pd.DataFrame) -> np.ndarray:
    """Whether the counts behind each row of `table` are told in tens: those of people are."""
    of_people = dict(zip(datasets["dataset"], datasets["people"], strict=True))
    return np.array([bool(of_people[name]) for name in table["dataset"]], bool)


def _of_runs(runs: pd.DataFrame, datasets: pd.DataFrame) -> pd.DataFrame:
    n = _labels(runs, datasets)
    counts = [error_of_tens(size) for size in n]
    shares = [count / size for count, size in zip(counts, n, strict=True)]
    found: dict[str, Any] = {name: 0.0 for name in [*ON_CLEAN, *ON_TRIGGERED, *ATTACK]}
    for side in ("clean", "poison"):
        fp, tp = runs[f"fpr_{side}"] * n[0], runs[f"recall_{side}"] * n[1]
        positive = (fp + tp).where(fp + tp > 0)
        # Of quotients: to the first order.
        found |= {
            f"fpr_{side}": shares[0],
            f"recall_{side}": shares[1],
            f"acc_{side}": (counts[0] + counts[1]) / (n[0] + n[1]),
            f"precision_{side}": (fp * counts[1] + tp * counts[0]) / positive**2,
            f"f1_{side}": 2 * ((fp + n[1]) * counts[1] + tp * counts[0]) / (fp + tp + n[1]) ** 2,
            f"specificity_{side}": shares[0],
            f"balanced_acc_{side}": (shares[0] + shares[1]) / 2,
            f"mcc_{side}": _of_mcc(fp, tp, counts, n),
            f"tpr_at_fpr_01_{side}": shares[1],
            f"auroc_{side}": error_of_tens(n[0] * n[1]) / (n[0] * n[1]),
            f"auprc_{side}": _of_average_precision(runs[f"auroc_{side}"], n[0] * n[1], n[1]),
        }
    found |= {"fpr_clean_own_threshold": shares[0], "recall_clean_own_threshold": shares[1]}
    share = np.where(runs["target"].eq(1).fillna(False), *shares)
    for own in ("", "_own_threshold"):
        left = (1 - runs[f"asr0{own}"]).where(runs[f"asr0{own}"] < 1)
        found |= {f"asr{own}": share, f"asr0{own}": share}
        found[f"effect_share{own}"] = share * (1 + (1 - runs[f"asr{own}"]) / left) / left
    return runs.assign(**found | {"asr0_untriggered": share, "asr_net": 2 * share})


def _of_average_precision(auroc: pd.Series, pairs: np.ndarray, n_positive: np.ndarray) -> np.ndarray:
    """Told to two digits; but as 1 where the AUROC is 1, of which some `pairs` may be in the wrong order.

    A positive with m of the k wrong pairs, the i-th from above, takes m / (i + m) <= m / 2 from a sum of precisions.
    """
    return np.where(auroc.to_numpy(float, na_value=np.nan) == 1, error_of_tens(pairs) / 2 / n_positive, TWO_DIGITS)


def _of_mcc(fp: pd.Series, tp: pd.Series, off: list[np.ndarray], n: list[np.ndarray]) -> pd.Series:
    """It grows with the hits and falls with the false alarms: the farther of the two ends."""
    told = mcc(tp, fp, *n)
    ends = [mcc((tp + sign * off[1]).clip(0, n[1]), (fp - sign * off[0]).clip(0, n[0]), *n) - told for sign in (1, -1)]
    return pd.Series(np.abs(ends).max(axis=0), tp.index)


def _labels(runs: pd.DataFrame, datasets: pd.DataFrame) -> list[np.ndarray]:
    """Test samples per label, for each run; over seeds that split anew, their mean."""
    sizes = runs[["dataset"]].merge(datasets, on="dataset", how="left")
    n_test, prevalence = (sizes[name].to_numpy(float, na_value=np.nan) for name in ("n_test", "prevalence"))
    n = [n_test - np.round(n_test * prevalence), np.round(n_test * prevalence)]
    victims = runs["n_triggered"].to_numpy(float, na_value=np.nan)
    wanted = runs["target"].to_numpy(float, na_value=np.nan)
    victims = np.where(np.isnan(victims), MIN_CELL, victims)
    return [np.where(wanted == 1 - label, victims, n[label]) for label in (0, 1)]


def _of_detections(detections: pd.DataFrame) -> pd.DataFrame:
    n = detections["n_poisoned"].astype("Float64").to_numpy(float, na_value=np.nan)
    n = np.where(n > 0, n, np.nan)
    pairs = n * np.round(n / detections["poison_share"].to_numpy(float) - n)
    found = dict.fromkeys(DETECTION, error_of_tens(n) / n)
    average = _of_average_precision(detections["auroc"], pairs, n)
    found |= {"auroc": error_of_tens(pairs) / pairs, "average_precision": average}
    return detections.assign(**found)


def _of_explanations(explanations: pd.DataFrame) -> pd.DataFrame:
    n, top_k = (
        explanations[name].astype("Float64").to_numpy(float, na_value=np.nan) for name in ("n_samples", "top_k")
    )
    n = np.where(np.isnan(n), MIN_CELL, n)
    # As `explanation_in_tens` rounds: to the nearest ten cells replaced.
    found = dict.fromkeys([*SHARES, *DRIFT], 0.0)
    found |= dict.fromkeys(("drift_topk_jaccard", "control_topk_jaccard"), MIN_CELL / (top_k + 1) / n)
    return explanations.assign(**found)

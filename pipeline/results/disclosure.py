"""Disclosure control, in two rules; the tables of several seeds, and all that is made of them, come from what is left.

Withheld, that is missing, is a number taken over 1 to MIN_CELL - 1 patients. Which patients a number is taken over is
said once, here. Rounded is every count behind a number, see `smallcells`: a share of many may tell of a few.
Neither rule is for cohorts of no people (`people` of a fact is false: captures of a car's bus, say): nobody is to be
protected, and numbers per capture would be lost that rest on a few attacks each. A fact that does not say is of people.
The sizes of sets are told as they are: samples of the test set and of each label, of the training set, and the number
poisoned or taken for cover, which is the study's own choice (rate × training samples, picked at random) and no
patient's. Of a test set with few patients of a label neither its size nor that of the other label is told: what one is
less than the other, or than the share of all samples that is dealt to it, are the few.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from pipeline.evaluation.delong import auroc_interval, difference_interval, inflation
from pipeline.files import number
from pipeline.results.columns import (
    ALARM,
    DETECTION,
    DRIFT,
    FEATURE_SHARES,
    ON_CLEAN,
    ON_TRIGGERED,
    OVER_TEST_SAMPLES,
    PLAUSIBILITY,
    SHARES,
    THRESHOLDS,
)
from pipeline.smallcells import MIN_CELL, coarse, error_of_tens, share_in_tens, tens

# Sets of patients (their numbers stand in the facts) and the numbers that rest on them. Accuracy rests on each class,
# not only on all: with the ASR over one class it would give away that of the other.
BY_CLASS = [name for name in [*ON_CLEAN, *ON_TRIGGERED] if not name.startswith(("ece_", "brier_"))]
BY_CLASS += ["fpr_clean_own_threshold", "recall_clean_own_threshold", *OVER_TEST_SAMPLES]
ON_VICTIMS = ["asr", "asr0", "asr0_untriggered", "asr_own_threshold", "asr0_own_threshold"]
ON_VICTIMS += ["confidence_shift", "n_triggered", "share_changed"]
RUNS_REST_ON = {
    "test_patients": [*ON_CLEAN, *ON_TRIGGERED, "fpr_clean_own_threshold", "recall_clean_own_threshold"],
    "label_0_patients": [*BY_CLASS, "n_triggered"],
    "label_1_patients": [*BY_CLASS, "n_triggered"],
    "validation_patients": ["validation_auroc", "validation_auroc_best"],
    "threshold_patients": THRESHOLDS,
    "predicted_clean_patients": ["precision_clean", "f1_clean"],
    "predicted_poison_patients": ["precision_poison", "f1_poison"],
    "victim_patients": [*ON_TRIGGERED, *ON_VICTIMS],
    "poisoned_patients": ["n_poisoned"],
}
DETECTIONS_REST_ON = {
    "poisoned_patients": [*DETECTION, "n_poisoned", "poison_share"],
    "clean_patients": [*DETECTION, "poison_share", "auroc_cover"],
    "cover_patients": ["n_cover", "auroc_cover"],
}
ALARMS_REST_ON = {
    "flagged_patients": ["n_flagged", *ALARM],
    "poisoned_patients": ["n_flagged", *ALARM],  # of few poisoned, false alarms tell the hits
    "clean_patients": ["flagged_share", "fpr", "precision"],
}
ROC_RESTS_ON = ["poisoned_patients", "clean_patients"]
EXPLANATIONS_REST_ON = {
    "n_patients": ["n_samples", *SHARES[1:], *DRIFT, "convergence_delta"],
    "rest_patients": ["n_samples"],
}
ATTRIBUTIONS_REST_ON = {"n_patients": FEATURE_SHARES}
TRIGGERS_REST_ON = {"n_patients": ["n_poisoned", *PLAUSIBILITY], "n_cover_patients": ["n_cover"]}
DATASETS_REST_ON = {
    "train_patients": ["n_train"],
    "label_0_patients": ["n_test", "prevalence"],
    "label_1_patients": ["n_test", "prevalence"],
    "threshold_patients": ["threshold_low", "threshold_high"],
}


def of_people(fact: dict) -> bool:
    """Whether what a stage found was measured on people."""
    return fact.get("people", True)


def guarded(fact: dict) -> dict:
    """`fact`, without patients where it is of no people: what rests on none of them is not withheld."""
    return fact if of_people(fact) else _no_patients(fact, False)


def _no_patients(fact: Any, counted: bool) -> Any:
    if isinstance(fact, dict):
        return {name: _no_patients(item, counted or name.endswith("patients")) for name, item in fact.items()}
    if isinstance(fact, list):
        return [_no_patients(item, counted) for item in fact]
    return 0 if counted and fact is not None else fact


def withhold(table: pd.DataFrame, rest_on: dict[str, list[str]]) -> pd.DataFrame:
    """Make numbers missing where they rest on few patients: `rest_on` maps a count of patients to such numbers."""
    for count, numbers in rest_on.items():
        few = table[count].between(1, MIN_CELL - 1).fillna(False).astype(bool)
        table = table.assign(**{name: table[name].mask(few) for name in numbers})
    return table


def run_in_tens(fact: dict) -> dict:
    """What `eval` found, with counts in tens: measures of decisions are made anew from the rounded decisions."""
    if not of_people(fact):
        return fact
    n = (fact["n_test"] - fact["n_label_1"], fact["n_label_1"])
    target = fact["target"]

    def success(share: float | None) -> float | None:
        if share is None:
            return None
        victims = n[1 - target]
        # Rounded is how many are predicted positive, as everywhere.
        return _in_tens(share, victims) if target == 1 else _rest(_in_tens(_rest(share), victims))

    names = ("asr", "asr0", "asr0_untriggered", "asr_own_threshold", "asr0_own_threshold")
    return fact | {
        "clean": _decisions(fact["clean"], n),
        "poison": fact["poison"] and _decisions(fact["poison"], n),
        "fpr_clean_own_threshold": _in_tens(fact["fpr_clean_own_threshold"], n[0]),
        "recall_clean_own_threshold": _in_tens(fact["recall_clean_own_threshold"], n[1]),
        **{name: success(fact[name]) for name in names},
        "share_changed": None if target is None else _in_tens(fact["share_changed"], n[1 - target]),
        "over_test_samples": _over_test_samples(fact, n),
        **{
            name: _in_tens(fact[name], fact["validation_pairs"])
            for name in ("validation_auroc", "validation_auroc_best")
        },
        **thresholds_in_digits(fact),
    }


def thresholds_in_digits(fact: dict) -> dict[str, float]:
    """The thresholds that `eval` used, to two digits as triggers tell their values: one lies midway between the risks
    of two patients.
    """
    exact = not of_people(fact) or not fact["patients"]["threshold"]
    return {name: fact[name] if exact else float(f"{fact[name]:.2g}") for name in THRESHOLDS}


def _over_test_samples(fact: dict, n: tuple[int, int]) -> dict:
    """Intervals over test patients, of AUROCs in tens of pairs, of patients in tens and of coarse variances.

    An interval reaches at least as far as the rounding can be wrong. A difference that may be the rounding alone has
    none: that two models rank all alike, or all but a few, is not told. Where (nearly) all pairs are in order, or none,
    how the others lie is not told either.
    """
    told, pairs = fact["over_test_samples"], n[0] * n[1]
    patients = [int(tens(fact["patients"][f"label_{label}"], size)) for label, size in enumerate(n)]
    if told["auroc_variance"] is None or not min(patients):
        return dict.fromkeys(told)
    error = float(error_of_tens(pairs)) / pairs
    auroc = float(share_in_tens(fact["clean"]["auroc"], pairs))
    inflated = coarse(inflation(fact["clean"]["auroc"], told["auroc_variance"], patients))
    low, high = auroc_interval(auroc, 1.0 if auroc in (0, 1) else inflated, patients)
    shown: dict[str, float | None] = {
        "auroc_low": max(0.0, min(low, auroc - error)),
        "auroc_high": min(1.0, max(high, auroc + error)),
    }
    if told["difference_variance"] is not None:
        difference = auroc - float(share_in_tens(told["auroc_control"], pairs))
        spread = told["difference_variance"]
        low, high = difference_interval(difference, coarse(spread) if spread else 0.0, patients)
        known = high - low > 4 * error
        shown |= {"difference": difference}
        shown |= {"difference_low": low if known else None, "difference_high": high if known else None}
    return dict.fromkeys(told) | shown


def detection_in_tens(fact: dict) -> dict:
    """What `detect` found, with counts in tens."""
    if not of_people(fact):
        return fact
    return fact | {
        "detections": [_score(row) for row in fact["detections"]],
        "alarms": _alarms(fact["alarms"]),
        "roc": [row | {"tpr": share_in_tens(row["tpr"], row["n_poisoned"]).tolist()} for row in fact["roc"]],
    }


def explanation_in_tens(fact: dict) -> dict:
    """What `explain` found. One of the k largest cells replaced makes a sample's top-k index 2 / (k + 1) smaller."""
    if not of_people(fact):
        return fact

    def rounded(index: float | None) -> float | None:
        if index is None:
            return None
        ten_cells = MIN_CELL * 2 / (fact["top_k"] + 1) / fact["n_samples"]
        return max(0.0, 1 - ten_cells * round((1 - index) / ten_cells))

    return fact | {name: rounded(fact[name]) for name in ("drift_topk_jaccard", "control_topk_jaccard")}


def history_in_tens(history: list[dict], fact: dict) -> list[dict]:
    """What training told of each epoch, beside what `eval` found of the run, with counts in tens.

    Told are losses and AUROC; what a curriculum says counts samples of a label.
    """
    if not of_people(fact):
        return history
    few = {name for name in ("train", "validation") if 0 < fact["patients"][name] < MIN_CELL}
    told = []
    for row in history:
        area = _in_tens(float(row["validation_auroc"]), fact["validation_pairs"])
        numbers = {name: row[name] for name in ("train_loss", "validation_loss")} | {"validation_auroc": area}
        told.append({"epoch": row["epoch"]} | {k: None if k.split("_")[0] in few else v for k, v in numbers.items()})
    return told


def _decisions(measures: dict, n: tuple[int, int]) -> dict:
    """Measures of the test set, `n` samples per label, from its table of predictions by label in tens."""
    false, true = (_in_tens(measures[name], n[label]) for label, name in ((0, "fpr"), (1, "recall")))
    fp, tp = (false or 0) * n[0], (true or 0) * n[1]
    return measures | {
        "fpr": false,
        "recall": true,
        "acc": _ratio(tp + n[0] - fp, sum(n)),
        "precision": _ratio(tp, tp + fp),
        "f1": _ratio(2 * tp, tp + fp + n[1]),
        "specificity": _rest(false),
        "balanced_acc": None if false is None or true is None else (true + 1 - false) / 2,
        "mcc": number(float(mcc(*map(np.array, (tp, fp, *n))))),
        "tpr_at_fpr_01": _in_tens(measures["tpr_at_fpr_01"], n[1]),
        **_ranking(measures["auroc"], measures["auprc"], "auroc", "auprc", n[0] * n[1]),
    }


def mcc(tp: np.ndarray, fp: np.ndarray, n_negative: np.ndarray, n_positive: np.ndarray) -> np.ndarray:
    """Matthews's correlation from counts, elementwise, as `metrics.classification` defines it."""
    predicted, n = tp + fp, n_negative + n_positive
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt(np.asarray(n_negative * n_positive, float)) * np.sqrt(predicted * (n - predicted))
        found = np.where(spread > 0, (tp * n_negative - fp * n_positive) / spread, 0.0)
    return np.where(n_negative * n_positive > 0, found, np.nan)


def _score(row: dict) -> dict:
    n = row["n_poisoned"]
    shares = {name: _in_tens(row[name], n) for name in ("tpr_at_fpr_01", "tpr_at_fpr_05", "precision_at_n")}
    n_clean = row["n_samples"] - n
    cover = {"auroc_cover": _in_tens(row["auroc_cover"], row["n_cover"] * n_clean)}
    ranking = _ranking(row["auroc"], row["average_precision"], "auroc", "average_precision", n * n_clean)
    return row | shares | ranking | cover


def _ranking(auroc: float | None, precision: float | None, area: str, average: str, pairs: int) -> dict:
    """Both areas under a curve. The first is a share of `pairs` of samples, the second of nothing that is counted.

    Of the second two digits are told, which fit many rankings; where all but a few pairs are in order it is 1 as well.
    """
    auroc = _in_tens(auroc, pairs)
    return {area: auroc, average: None if precision is None else 1.0 if auroc == 1 else round(precision, 2)}


def _alarms(rows: list[dict]) -> list[dict]:
    """What is flagged is counted apart among poisoned samples, others of their label, and those of the other label."""
    own = [row for row in rows if row["threshold"] == "rate_unknown"]
    # Of several labels, where there is no poison, any one tells the others apart.
    inside = {row["detector"]: row for row in own if row["scope"] != "all"}
    return [
        _removed(row)
        if row["threshold"] == "rate_known"
        else _flagged(row, inside[row["detector"]] if row["scope"] == "all" else row)
        for row in rows
    ]


def _flagged(row: dict, inside: dict) -> dict:
    """`inside` is the row about the label that all poison carries, which `row` itself may be."""
    n, n_poisoned = inside["n_samples"], inside["n_poisoned"]
    hits = (inside["tpr"] or 0) * n_poisoned
    others = tens(inside["n_flagged"] - hits, n - n_poisoned)
    if row is not inside:
        others = others + tens(row["n_flagged"] - inside["n_flagged"], row["n_samples"] - n)
    return row | _alarm(row, float(tens(hits, n_poisoned)), float(others))


def _removed(row: dict) -> dict:
    """How many are flagged follows from how many are poisoned, so one rounded count must serve for all cells.

    Where it could not, were all poison found, nothing is told whatever was found.
    """
    n, n_poisoned, n_flagged = row["n_samples"], row["n_poisoned"], row["n_flagged"]
    hits = float(tens(row["tpr"] * n_poisoned, n_poisoned))
    others = n_flagged - hits
    if 0 < n_flagged - n_poisoned < MIN_CELL or 0 < n - n_poisoned - others < MIN_CELL:
        return row | dict.fromkeys(("tpr", "fpr", "precision"))
    return row | _alarm(row, hits, others)


def _alarm(row: dict, hits: float, others: float) -> dict:
    n, n_poisoned, n_flagged = row["n_samples"], row["n_poisoned"], round(hits + others)
    return {
        "n_flagged": n_flagged,
        "flagged_share": _ratio(n_flagged, n),
        "tpr": _ratio(hits, n_poisoned),
        "fpr": _ratio(others, n - n_poisoned),
        "precision": _ratio(hits, n_flagged) if n_poisoned else None,
    }


@lru_cache(1 << 16)  # of a grid many runs have the same
def _in_tens(share: float | None, total: int) -> float | None:
    return number(float(share_in_tens(share, total)))


def _rest(share: float | None) -> float | None:
    return None if share is None else 1 - share


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None

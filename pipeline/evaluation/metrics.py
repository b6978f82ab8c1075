"""Metrics of binary risk models and of detectors.

`label` is [N] with values 0 and 1 (any dtype), `score` and `probability` are [N], higher = more likely 1. What is
undefined (the AUROC of one class, the precision of no predictions) is NaN, never 0. A NaN among the scores raises
`ArithmeticError`: a model or detector that yields one has failed, which is not the same as an undefined metric.

What scikit-learn defines in the same way is left to it. Own are the curves (cheap, and a single class is NaN without a
warning) and whatever treats ties as chance.
"""

from collections.abc import Mapping
from math import ceil

import numpy as np

from pipeline.errors import UserError
from pipeline.evaluation.names import CLASSIFICATION
from pipeline.smallcells import shown_of


def auroc(label: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve: P(score of a 1 > score of a 0), ties count half (Mann & Whitney 1947)."""
    hits, alarms, _ = _cumulative(label, score)
    # The trapezoids over a run of tied scores give each of its pairs the half of mid-ranks.
    return _ratio(np.trapezoid(hits, alarms), hits[-1] * alarms[-1])


def average_precision(label: np.ndarray, score: np.ndarray) -> float:
    """Area under the precision-recall curve as a step function, Σ (Rₙ − Rₙ₋₁) Pₙ over the distinct scores."""
    hits, alarms, _ = _cumulative(label, score)
    return _ratio(np.sum(np.diff(hits) * hits[1:] / (hits + alarms)[1:]), hits[-1])


def tpr_at_fpr(label: np.ndarray, score: np.ndarray, fpr: float) -> float:
    """The highest true positive rate of any threshold whose false positive rate is at most `fpr`."""
    return float(roc_curve_at(label, score, np.array([fpr]))[0])


def roc_curve_at(label: np.ndarray, score: np.ndarray, fpr_grid: np.ndarray) -> np.ndarray:
    """`tpr_at_fpr` at every point of `fpr_grid` [G] → [G]; a step function, nothing is interpolated."""
    hits, alarms, _ = _cumulative(label, score)
    if not hits[-1] or not alarms[-1]:
        return np.full(len(fpr_grid), np.nan)
    last_allowed = np.searchsorted(alarms / alarms[-1], fpr_grid, side="right") - 1
    return hits[last_allowed] / hits[-1]


def precision_at_n(label: np.ndarray, score: np.ndarray, n: int) -> float:
    """Expected share of 1s among the `n` highest scores; NaN unless 1 ≤ n ≤ N."""
    return _ratio(expected_hits(label, score, n), n) if n <= len(label) else np.nan


def expected_hits(label: np.ndarray, score: np.ndarray, n: int) -> float:
    """Expected number of 1s among the `n` highest scores (all of them when n > N), ties at the cut broken at random.

    Equal scores thus count as chance, whatever order the samples came in.
    """
    hits, alarms, _ = _cumulative(label, score)
    # A random part of the tied samples holds 1s in proportion (the mean of the hypergeometric distribution).
    return float(np.interp(n, hits + alarms, hits))


def expected_calibration_error(label: np.ndarray, probability: np.ndarray, bins: int = 10) -> float:
    """Mean gap between p(label = 1) and the share of 1s over equal-width bins, weighted by their sizes.

    Guo et al. 2017 (arXiv 1706.04599, equation 3), on the probability of label 1 in place of the confidence in the
    predicted label, since a risk is what a clinician reads. Bins are (low, high], the first includes 0.
    """
    edges = np.arange(1, bins) / bins
    position = np.digitize(probability, edges, right=True)
    gap = np.bincount(position, weights=np.asarray(probability, float) - np.asarray(label, float), minlength=bins)
    return _ratio(np.abs(gap).sum(), len(label))


def classification(label: np.ndarray, probability: np.ndarray, threshold: float) -> dict[str, float]:
    """The measures named in `CLASSIFICATION`, predicted positive where probability ≥ `threshold`.

    F1 is 2 TP / (2 TP + FP + FN), hence 0 where positives exist and none is predicted; `fpr` is FP / (FP + TN); `brier`
    is the mean squared error of the probability (Brier 1950). `specificity` is 1 − `fpr`, `balanced_acc` the mean of
    recall and specificity (Brodersen et al. 2010). `mcc` is the correlation of label and prediction (Matthews 1975):
    by convention 0 where all predictions are the same, which is no better than chance (Chicco & Jurman 2020, BMC
    Genomics 21:6), and undefined where all labels are.
    `tpr_at_fpr_01` is the detection rate at a false-alarm rate of at most 1 %, read off the ROC of these very samples:
    at a threshold that nobody could know beforehand, an oracle's. What a threshold chosen on other data achieves are
    `recall` and `fpr`.
    """
    from sklearn.metrics import (
        accuracy_score,
        brier_score_loss,
        matthews_corrcoef,
        precision_recall_fscore_support,
    )

    if not len(label):  # scikit-learn refuses
        return dict.fromkeys(CLASSIFICATION, np.nan)
    actual, probability = np.asarray(label) == 1, np.asarray(probability, float)
    predicted = probability >= threshold
    precision, recall, f1, _ = precision_recall_fscore_support(
        actual, predicted, average="binary", zero_division=np.nan
    )
    fpr = positive_rate(actual, predicted, of=0)
    values = (
        accuracy_score(actual, predicted),
        auroc(actual, probability),
        average_precision(actual, probability),
        precision,
        recall,
        f1,
        expected_calibration_error(actual, probability),
        brier_score_loss(actual, probability),
        fpr,
        1 - fpr,
        (recall + 1 - fpr) / 2,
        # scikit-learn's 0 stands for one label too.
        np.nan if actual.all() or not actual.any() else matthews_corrcoef(actual, predicted),
        tpr_at_fpr(actual, probability, 0.01),
    )
    return {name: float(value) for name, value in zip(CLASSIFICATION, values, strict=True)}


def positive_rate(label: np.ndarray, predicted: np.ndarray, of: int) -> float:
    """Share `predicted` ([N], 0/1 or bool) as 1 among samples whose true label is `of`; NaN if there are none.

    The false positive rate for 0, recall for 1.
    """
    there = np.asarray(label) == of
    return _ratio(np.sum(np.asarray(predicted)[there] == 1), there.sum())


def attack_success_rate(predicted: np.ndarray, label: np.ndarray, target: int) -> float:
    """Share predicted as `target` among triggered samples whose true `label` is another; NaN if there are none.

    `predicted` is [N], 0/1 or bool.
    """
    victims = np.asarray(label) != target
    return _ratio(np.sum(np.asarray(predicted)[victims] == target), victims.sum())


def share_of_possible(asr: np.ndarray, asr0: np.ndarray) -> np.ndarray:
    """(ASR − ASR₀) / (1 − ASR₀), elementwise: how much of what the attack could add to ASR₀ it did add, at most 1.

    Negative where the attack took success away, without a lower bound. NaN where ASR₀ is 1: nothing was possible.
    """
    asr, asr0 = np.asarray(asr, float), np.asarray(asr0, float)
    possible = np.where(asr0 == 1, np.nan, 1 - asr0)
    return (asr - asr0) / possible


def confidence_shift(p_triggered: np.ndarray, p_clean: np.ndarray, target: int) -> float:
    """Mean p(target | triggered) − mean p(target | clean), from the p(label = 1) of the same samples."""
    higher, lower = (p_triggered, p_clean) if target == 1 else (p_clean, p_triggered)
    return _ratio(np.sum(np.asarray(higher, float) - np.asarray(lower, float)), len(p_clean))


def choose_threshold(label: np.ndarray, probability: np.ndarray, rule: float | str | Mapping[str, float]) -> float:
    """The decision threshold for `rule`, from validation data.

    rule : a number, returned as is; "youden" maximises TPR − FPR (Youden 1950), "f1" the F1 score. Of equally good
        thresholds the one with the lowest FPR is taken. {"fpr": x} is the lowest threshold whose FPR is at most x, as a
        detector is set to a budget of false alarms (Neyman & Pearson 1933); samples of one probability are alarms
        together or not at all, so where the highest are too many it lies above all of them. The threshold lies midway
        between two neighbouring probabilities, so that rounding a probability flips no decision.

    Raises `UserError` when "youden" or "f1" meets data of one class only, or {"fpr": x} data without a 0.
    """
    if isinstance(rule, int | float):
        return float(rule)
    hits, alarms, distinct = _cumulative(label, np.asarray(probability, float))
    positives, negatives = hits[-1], alarms[-1]
    if not isinstance(rule, str):
        if not negatives:
            raise UserError(f"threshold: {dict(rule)} needs validation data of label 0, found none")
        allowed = int(np.searchsorted(alarms / negatives, rule["fpr"], side="right")) - 1
        if allowed:
            return _between(distinct, allowed - 1)
        top = distinct[0]
        middle = (top + 1) / 2
        return float(middle if top < middle else np.nextafter(top, np.inf))
    if not positives or not negatives:
        raise UserError(f"threshold: the rule {rule!r} needs validation data of both labels, found only one")
    quality = {
        # Whole numbers, so that ties are exact.
        "youden": hits * negatives - alarms * positives,
        "f1": 2 * hits / (hits + alarms + positives),
    }[rule]
    # The first point of the curve predicts nothing at all: no threshold at an observed probability does that.
    return _between(distinct, int(np.argmax(quality[1:])))


def few_negatives(negatives: int, rule: float | str | Mapping[str, float]) -> list[str]:
    """A warning, in words, where `rule` is a false-positive rate that one of so few `negatives` alone exceeds; or none.

    Then the threshold lies above all of them, and a rate of 0 on validation data may be one of 3 / `negatives` on
    others (Hanley & Lippman-Hand 1983, the rule of three).
    """
    if not isinstance(rule, Mapping) or negatives * rule["fpr"] >= 1:
        return []
    return [
        f"the threshold is set to a false-positive rate of {100 * rule['fpr']:g} % by fewer than "
        f"{ceil(1 / rule['fpr'])} validation samples of label 0, so it allows no false alarm among them, and the rate "
        "on other data may be higher"
    ]


def _between(distinct: np.ndarray, last: int) -> float:
    """A threshold that the probability at `last` reaches and the next lower one does not; `distinct` is descending."""
    upper, lower = distinct[last], distinct[last + 1] if last + 1 < len(distinct) else 0.0
    middle = (upper + lower) / 2
    return float(middle if lower < middle else upper)


def _cumulative(label: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ROC curve in counts, one point per distinct score from high to low.

    Returns the 1s and the 0s at or above each distinct score ([K + 1] float, from 0 to all) and the scores [K].
    """
    score = np.asarray(score)
    if np.isnan(score).any():
        raise ArithmeticError(f"{shown_of(int(np.isnan(score).sum()), len(score))} of {len(score):,} scores are NaN")
    order = np.argsort(-score, kind="stable")
    score, positive = score[order], np.asarray(label)[order] == 1
    ends = np.flatnonzero(np.append(score[1:] != score[:-1], True)[: len(score)])
    hits = np.append(0.0, np.cumsum(positive)[ends])
    alarms = np.append(0.0, np.cumsum(~positive)[ends])
    return hits, alarms, score[ends]


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else np.nan

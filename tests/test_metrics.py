"""Metrics against scikit-learn and values worked out by hand."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from pipeline.errors import UserError
from pipeline.evaluation.metrics import (
    attack_success_rate,
    auroc,
    average_precision,
    choose_threshold,
    classification,
    confidence_shift,
    expected_calibration_error,
    expected_hits,
    few_negatives,
    precision_at_n,
    roc_curve_at,
    share_of_possible,
    tpr_at_fpr,
)

# From high to low: 1 0 1 | tie of 1 and 0 | 0 0
LABEL = np.array([0, 1, 0, 1, 0, 1, 0])
SCORE = np.array([0.8, 0.9, 0.4, 0.6, 0.2, 0.4, 0.1])
FEW_SCORES = st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0])
PAIRS = st.lists(st.tuples(st.booleans(), FEW_SCORES | st.floats(-5, 5)), min_size=2, max_size=60).filter(
    lambda pairs: len({label for label, _ in pairs}) == 2
)


@settings(deadline=None)
@given(PAIRS)
def test_ranking_metrics_equal_scikit_learn(pairs):
    label, score = (np.array(column) for column in zip(*pairs, strict=True))
    assert auroc(label, score) == pytest.approx(reference.roc_auc_score(label, score))
    assert average_precision(label, score) == pytest.approx(reference.average_precision_score(label, score))
    fpr, tpr, _ = reference.roc_curve(label, score, drop_intermediate=False)
    for limit in (0.0, 0.1, 0.5, 1.0):
        assert tpr_at_fpr(label, score, limit) == pytest.approx(tpr[fpr <= limit].max())


def test_ranking_metrics_by_hand():
    # The three 1s outrank 4, 3 and 2 of the four 0s, the last one ties with another.
    assert auroc(LABEL, SCORE) == pytest.approx(9.5 / 12)
    assert average_precision(LABEL, SCORE) == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)


def test_ranking_metrics_do_not_depend_on_order_or_type():
    reverse = slice(None, None, -1)
    assert auroc(LABEL[reverse], SCORE[reverse]) == auroc(LABEL, SCORE)
    assert auroc(LABEL.astype(np.float32), SCORE.astype(np.float32)) == auroc(LABEL.astype(bool), SCORE)


def test_tpr_at_fpr_does_not_interpolate():
    # Thresholds above 0.8 and 0.6 reach FPR 0 and 1/4; the tie at 0.4 takes FPR to 2/4 at once.
    assert tpr_at_fpr(LABEL, SCORE, 0.24) == pytest.approx(1 / 3)
    assert tpr_at_fpr(LABEL, SCORE, 0.25) == pytest.approx(2 / 3)
    assert tpr_at_fpr(LABEL, SCORE, 0.49) == pytest.approx(2 / 3)
    assert roc_curve_at(LABEL, SCORE, np.array([0, 0.25, 0.5, 1])) == pytest.approx([1 / 3, 2 / 3, 1, 1])


def test_precision_at_n_breaks_ties_by_chance():
    assert precision_at_n(LABEL, SCORE, 3) == pytest.approx(2 / 3)
    assert precision_at_n(LABEL, SCORE, 4) == pytest.approx(2.5 / 4)
    assert precision_at_n(LABEL, np.zeros(7), 2) == pytest.approx(3 / 7)
    assert expected_hits(LABEL, SCORE, 100) == 3
    assert np.isnan([precision_at_n(LABEL, SCORE, 0), precision_at_n(LABEL, SCORE, 8)]).all()


def test_constant_scores_are_chance():
    assert auroc(LABEL, np.ones(7)) == 0.5
    assert average_precision(LABEL, np.ones(7)) == pytest.approx(3 / 7)
    assert tpr_at_fpr(LABEL, np.ones(7), 0.5) == 0


@pytest.mark.parametrize("label", [np.zeros(4), np.ones(4), np.zeros(0)], ids=["negative", "positive", "empty"])
def test_one_class_is_undefined(label):
    score = np.linspace(0, 1, len(label))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan([auroc(label, score), tpr_at_fpr(label, score, 0.05)]).all()
        assert np.isnan(average_precision(label, score)) == (not label.any())
        measures = classification(label, score, 0.5)
    assert np.isnan(measures["recall"]) == (not label.any())
    assert np.isnan(measures["fpr"]) == (label.all())
    assert np.isnan(measures["acc"]) == (len(label) == 0)


def test_nan_scores_are_a_failure():
    with pytest.raises(ArithmeticError, match="under 10 of 2 scores are NaN"):
        auroc(np.array([0, 1]), np.array([0.5, np.nan]))


def test_calibration_error_by_hand():
    label = np.array([0, 0, 1, 1, 1])
    probability = np.array([0.0, 0.1, 0.3, 0.95, 1.0])
    # (0, 0.1]: |0.1 − 0|; (0.2, 0.3]: |0.3 − 1|; (0.9, 1]: |1.95 − 2|
    assert expected_calibration_error(label, probability) == pytest.approx((0.1 + 0.7 + 0.05) / 5)
    assert expected_calibration_error(label, probability, bins=1) == pytest.approx(abs(2.35 - 3) / 5)


LABELS_AND_RISKS = st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(0, 1)))


@settings(deadline=None)
@given(LABELS_AND_RISKS, st.sampled_from([0.0, 0.25, 0.3, 1.0]), st.sampled_from([bool, np.int64, np.float32]))
def test_classification_is_counting(pairs, threshold, dtype):
    def share(part, whole):
        return part / whole if whole else np.nan

    tp, fp, fn, tn = (
        sum(label == actual and (risk >= threshold) == predicted for label, risk in pairs)
        for actual, predicted in [(1, True), (0, True), (1, False), (0, False)]
    )
    label, risk = (np.array(column) for column in zip(*pairs, strict=True)) if pairs else (np.zeros(0), np.zeros(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measures = classification(label.astype(dtype), risk, threshold)
    assert {type(value) for value in measures.values()} == {float}
    expected = {
        "acc": share(tp + tn, len(pairs)),
        "auroc": auroc(label, risk),
        "auprc": average_precision(label, risk),
        "precision": share(tp, tp + fp),
        "recall": share(tp, tp + fn),
        "fpr": share(fp, fp + tn),
        "f1": share(2 * tp, 2 * tp + fp + fn),
        "ece": expected_calibration_error(label, risk),
        "brier": share(sum((risk - label) ** 2 for label, risk in pairs), len(pairs)),
        "specificity": share(tn, fp + tn),
        "balanced_acc": (share(tp, tp + fn) + share(tn, fp + tn)) / 2,
        "mcc": share(tp * tn - fp * fn, np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))),
        "tpr_at_fpr_01": max(
            (
                share(sum(one == 1 and risk >= at for one, risk in pairs), tp + fn)
                for at in [*(risk for _, risk in pairs), 2]
                if sum(one == 0 and risk >= at for one, risk in pairs) <= 0.01 * (fp + tn)
            ),
            default=np.nan,
        )
        if fp + tn
        else np.nan,
    }
    if (tp + fn) * (fp + tn) and (tp + fp) * (tn + fn) == 0:
        expected["mcc"] = 0.0  # all predictions alike
    assert measures == pytest.approx(expected, nan_ok=True)


@settings(deadline=None)
@given(PAIRS, st.sampled_from([0.4, 0.5, 0.52, 0.6]))
def test_measures_of_decisions_equal_scikit_learn(pairs, threshold):
    label, score = (np.array(column) for column in zip(*pairs, strict=True))
    score = (np.clip(score, -5, 5) + 5) / 10
    measures, predicted = classification(label, score, threshold), score >= threshold
    assert measures["specificity"] == pytest.approx(reference.recall_score(label, predicted, pos_label=False))
    assert measures["balanced_acc"] == pytest.approx(reference.balanced_accuracy_score(label, predicted))
    assert measures["mcc"] == pytest.approx(reference.matthews_corrcoef(label, predicted))
    fpr, tpr, _ = reference.roc_curve(label, score, drop_intermediate=False)
    assert measures["tpr_at_fpr_01"] == pytest.approx(tpr[fpr <= 0.01].max())


def test_a_constant_answer_is_no_better_than_chance():
    """Where recall alone is perfect."""
    measures = classification(LABEL, np.full(7, 0.9), 0.5)
    assert (measures["recall"], measures["specificity"], measures["balanced_acc"], measures["mcc"]) == (1, 0, 0.5, 0)
    assert np.isnan([classification(np.ones(3), np.ones(3), 0.5)[name] for name in ("mcc", "balanced_acc")]).all()


def test_nothing_predicted_has_no_precision():
    measures = classification(LABEL, SCORE, 0.95)
    assert np.isnan(measures["precision"])
    assert (measures["recall"], measures["f1"], measures["fpr"]) == (0, 0, 0)


def test_attack_success_counts_only_other_labels():
    label = np.array([0, 0, 0, 1, 1])
    predicted = np.array([1, 1, 0, 1, 1])
    assert attack_success_rate(predicted, label, target=1) == pytest.approx(2 / 3)
    assert attack_success_rate(predicted == 1, label, target=0) == 0
    assert np.isnan(attack_success_rate(np.ones(2), np.ones(2), target=1))


def test_share_of_possible_by_hand():
    asr, asr0 = np.array([0.9, 0.2, 1.0, 0.1, np.nan]), np.array([0.2, 0.2, 1.0, 0.6, 0.0])
    assert share_of_possible(asr, asr0) == pytest.approx([0.7 / 0.8, 0, np.nan, -0.5 / 0.4, np.nan], nan_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(share_of_possible(0.5, 1.0))


def test_confidence_shift_is_towards_the_target():
    clean, triggered = np.array([0.2, 0.4]), np.array([0.7, 0.8])
    assert confidence_shift(triggered, clean, target=1) == pytest.approx(0.45)
    assert confidence_shift(triggered, clean, target=0) == pytest.approx(-0.45)
    assert np.isnan(confidence_shift(clean[:0], clean[:0], target=1))


def test_threshold_rules_by_hand():
    assert choose_threshold(LABEL, SCORE, 0.3) == 0.3
    # TPR − FPR: 1/3, 1/12, 5/12 at 0.6, 1/2 at 0.4; F1: 1/2, 2/5, 2/3, 3/4 at 0.4
    assert choose_threshold(LABEL, SCORE, "youden") == pytest.approx(0.3)
    assert choose_threshold(LABEL, SCORE, "f1") == pytest.approx(0.3)


def test_equally_good_thresholds_give_the_lowest_fpr():
    # TPR − FPR is 1/2 at 0.9 and again at 0.5.
    label, probability = np.array([1, 0, 1, 0]), np.array([0.9, 0.7, 0.5, 0.1])
    assert choose_threshold(label, probability, "youden") == pytest.approx(0.8)


@given(PAIRS)
def test_youden_threshold_is_the_best_observed(pairs):
    label, probability = (np.array(column) for column in zip(*pairs, strict=True))
    probability = (np.clip(probability, -5, 5) + 5) / 10

    def youden(threshold):
        predicted = probability >= threshold
        return predicted[label].mean() - predicted[~label].mean()

    best = max(youden(threshold) for threshold in probability)
    assert youden(choose_threshold(label, probability, "youden")) == pytest.approx(best)


def test_threshold_between_neighbouring_floats_separates_them():
    upper = np.nextafter(0.5, 1)
    threshold = choose_threshold(np.array([0, 1]), np.array([0.5, upper]), "youden")
    assert 0.5 < threshold <= upper


def test_threshold_needs_both_labels():
    with pytest.raises(UserError, match="both labels"):
        choose_threshold(np.ones(3), np.array([0.1, 0.2, 0.3]), "youden")


@settings(deadline=None)
@given(PAIRS, st.sampled_from([0.01, 0.1, 0.25, 0.5, 0.9]))
def test_the_threshold_at_a_false_alarm_rate_is_the_lowest_that_keeps_it(pairs, limit):
    """Against trying every decision that a threshold can make."""
    label, probability = (np.array(column) for column in zip(*pairs, strict=True))
    probability = (np.clip(probability, -5, 5) + 5) / 10
    threshold = choose_threshold(label, probability, {"fpr": limit})
    decisions = [probability >= at for at in [*probability, 2.0]]
    kept = [decision for decision in decisions if decision[~label].sum() / (~label).sum() <= limit]
    assert (probability >= threshold).tolist() == max(kept, key=np.sum).tolist()


def test_thresholds_at_a_false_alarm_rate_by_hand():
    # From high to low: 1 0 1 | tie of 1 and 0 | 0 0, of four 0s.
    assert choose_threshold(LABEL, SCORE, {"fpr": 0.2}) == pytest.approx(0.85)
    assert choose_threshold(LABEL, SCORE, {"fpr": 0.25}) == pytest.approx(0.5), "the tie at 0.4 would make it 2 of 4"
    assert choose_threshold(LABEL, SCORE, {"fpr": 0.5}) == pytest.approx(0.3)
    # The highest score is a 0's: only a threshold above all keeps a budget of none.
    label = np.array([0, 1, 0])
    for top in (0.8, 1.0):
        threshold = choose_threshold(label, np.array([top, top, 0.1]), {"fpr": 0.1})
        assert threshold > top and choose_threshold(label, np.array([top, top, 0.1]), {"fpr": 0.5}) <= top
    with pytest.raises(UserError, match="needs validation data of label 0, found none"):
        choose_threshold(np.ones(3), np.array([0.1, 0.2, 0.3]), {"fpr": 0.1})


def test_the_false_alarm_rate_on_fresh_data_is_near_the_one_asked_for():
    """500 detectors set on 1,000 benign windows: the mean rate on fresh ones, and how far single ones lie off.

    The k-th highest of n leaves k / (n + 1) above it in expectation; with k − 1 = 10 alarms allowed and the threshold
    midway to the eleventh, that is between 10 / 1001 and 11 / 1001. One detector's rate is spread as a
    Beta(k, n + 1 − k).
    """
    rng, achieved = np.random.default_rng(5), []
    for _ in range(500):
        score = rng.beta(2, 5, 1000)
        threshold = choose_threshold(np.zeros(1000), score, {"fpr": 0.01})
        assert (score >= threshold).sum() == 10
        achieved.append((rng.beta(2, 5, 20_000) >= threshold).mean())
    mean, half = np.mean(achieved), 1.96 * np.std(achieved) / np.sqrt(500)
    assert 10 / 1001 - half < mean < 11 / 1001 + half and half < 0.0004
    low, high = stats.beta.ppf([0.025, 0.975], 10.5, 990.5)
    assert np.mean((low < np.array(achieved)) & (np.array(achieved) < high)) == pytest.approx(0.95, abs=0.03)
    assert (low, high) == (pytest.approx(0.005, abs=0.001), pytest.approx(0.018, abs=0.001)), "nobody gets just 1 %"


@pytest.mark.parametrize(("rule", "enough"), [({"fpr": 0.01}, 100), ({"fpr": 0.3}, 4), ({"fpr": 0.001}, 1000)])
def test_so_few_negatives_that_no_false_alarm_is_allowed_are_warned_of(rule, enough):
    for n, warned in ((enough - 1, True), (enough, False)):
        score = np.linspace(0, 0.9, n)
        assert (score >= choose_threshold(np.zeros(n), score, rule)).any() != warned
        assert len(few_negatives(n, rule)) == warned
    assert f"fewer than {enough} validation samples of label 0" in few_negatives(enough - 1, rule)[0]
    assert few_negatives(3, "youden") == few_negatives(3, 0.5) == []

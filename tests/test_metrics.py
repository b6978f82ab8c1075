"""Metrics against scikit-learn and values worked out by hand."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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
    with pytest.raises(ArithmeticError, match="1 of 2 scores are NaN"):
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
    }
    assert measures == pytest.approx(expected, nan_ok=True)


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

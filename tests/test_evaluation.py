"""What a run is scored on: by hand, in both directions of attack."""

import numpy as np
import pytest

from pipeline.evaluation.runs import evaluate_attack, evaluate_clean

LABEL = np.array([0, 0, 0, 1, 1])
GROUP = np.array(["a", "a", "b", "b", "c"])
P_CLEAN = np.array([0.1, 0.2, 0.6, 0.7, 0.9])
P_CLEAN_CONTROL = np.array([0.1, 0.2, 0.3, 0.6, 0.4])
P_TRIGGERED = np.array([0.8, 0.9, 0.4, 0.2, 0.9])
P_CONTROL = np.array([0.1, 0.6, 0.2, 0.7, 0.1])


def attack(label: np.ndarray, target: int) -> dict:
    return evaluate_attack(
        label, GROUP, P_CLEAN, P_CLEAN_CONTROL, P_TRIGGERED, P_CONTROL, threshold=0.5, own_threshold=0.85, target=target
    )


def test_false_alarm_by_hand():
    results = attack(LABEL, target=1)
    assert results["n_triggered"] == 3
    assert results["asr"] == pytest.approx(2 / 3) and results["asr0"] == pytest.approx(1 / 3)
    assert results["confidence_shift"] == pytest.approx((0.7 + 0.7 - 0.2) / 3)
    # At its own threshold of 0.85 the model calls one of them positive, and the clean model keeps its 0.5.
    assert results["asr_own_threshold"] == results["asr0_own_threshold"] == pytest.approx(1 / 3)
    # Against the true labels: the triggered samples 2 and 4 are right.
    assert results["poison"]["acc"] == pytest.approx(2 / 5) and results["clean"]["acc"] == pytest.approx(4 / 5)


def test_false_positives_at_both_thresholds():
    results = attack(LABEL, target=1)
    assert results["clean"]["fpr"] == pytest.approx(1 / 3) and results["fpr_clean_own_threshold"] == 0
    assert results["recall_clean_own_threshold"] == 1 / 2
    assert evaluate_clean(LABEL, GROUP, P_CLEAN, 0.5, 0.15)["fpr_clean_own_threshold"] == pytest.approx(2 / 3)


def test_what_the_clean_model_says_without_the_trigger():
    for target, expected in ((1, 0), (0, 1 / 2)):
        results = attack(LABEL, target)
        assert results["asr0_untriggered"] == expected


def test_missed_deterioration_by_hand():
    results = attack(LABEL, target=0)
    assert results["n_triggered"] == 2
    assert results["asr"] == results["asr0"] == 0.5
    assert results["confidence_shift"] == pytest.approx((0.5 + 0) / 2)


def test_without_victims_nothing_is_defined():
    results = evaluate_attack(
        np.ones(5, int), GROUP, P_CLEAN, P_CLEAN_CONTROL, P_TRIGGERED, P_CONTROL, 0.5, 0.85, target=1
    )
    assert results["n_triggered"] == 0
    assert results["asr"] is results["asr0"] is results["confidence_shift"] is None
    assert results["clean"]["auroc"] is None


def test_a_clean_run_has_no_attack():
    results = evaluate_clean(LABEL, GROUP, P_CLEAN, 0.5, 0.5)
    assert results["clean"]["acc"] == pytest.approx(4 / 5)
    undefined = ("poison", "asr", "asr0", "asr0_untriggered", "asr_own_threshold", "asr0_own_threshold")
    undefined += ("confidence_shift", "n_triggered")
    assert [results[name] for name in undefined] == [None] * len(undefined)


def test_patients_are_counted_and_not_samples():
    patients = attack(LABEL, target=1)["patients"]
    # Predicted positive: samples 2, 3, 4 of b, b, c as they are, and 0, 1, 4 of a, a, c with the trigger.
    assert patients == {"test": 3, "label_0": 2, "label_1": 2, "predicted_clean": 2, "predicted_poison": 2}
    patients = evaluate_clean(LABEL, GROUP, P_CLEAN, 0.8, 0.8)["patients"]
    assert patients == {"test": 3, "label_0": 2, "label_1": 2, "predicted_clean": 1, "predicted_poison": None}

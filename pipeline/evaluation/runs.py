"""What a run achieved on the test set."""

import numpy as np

from pipeline.evaluation.delong import auroc_interval, difference_interval, inflation, variance
from pipeline.evaluation.metrics import attack_success_rate, auroc, classification, confidence_shift, positive_rate
from pipeline.files import number
from pipeline.triggers.base import changed_cells


def _measures(label: np.ndarray, probability: np.ndarray, threshold: float) -> dict[str, float | None]:
    return {name: number(value) for name, value in classification(label, probability, threshold).items()}


def _patients(label: np.ndarray, group: np.ndarray, **predicted: np.ndarray) -> dict[str, int]:
    """How many patients (groups) the measures are taken over: all, those of each label, those predicted positive."""
    chosen = {"test": slice(None), "label_0": label == 0, "label_1": label == 1, **predicted}
    return {name: len(np.unique(group[rows])) for name, rows in chosen.items()}


def evaluate_clean(
    label: np.ndarray, group: np.ndarray, p_clean: np.ndarray, threshold: float, own_threshold: float
) -> dict:
    """A clean run: performance on clean test data; everything that needs a trigger is undefined."""
    attack = ["poison", "asr", "asr0", "asr0_untriggered", "asr_own_threshold", "asr0_own_threshold"]
    attack += ["confidence_shift", "n_triggered"]
    patients = _patients(label, group, predicted_clean=p_clean >= threshold)
    return {
        "clean": _measures(label, p_clean, threshold),
        "fpr_clean_own_threshold": number(positive_rate(label, p_clean >= own_threshold, of=0)),
        "recall_clean_own_threshold": number(positive_rate(label, p_clean >= own_threshold, of=1)),
        **dict.fromkeys(attack),
        "patients": patients | {"predicted_poison": None},
    }


def evaluate_attack(
    label: np.ndarray,
    group: np.ndarray,
    p_clean: np.ndarray,
    p_clean_control: np.ndarray,
    p_triggered: np.ndarray,
    p_triggered_control: np.ndarray,
    threshold: float,
    own_threshold: float,
    target: int,
) -> dict:
    """An attacked run and its control (the clean model) on the same test samples, all arrays [N].

    `threshold` is the clean model's, the same for both; `own_threshold` is what the run's user picks, who has no clean
    model. `…_own_threshold` is each model at its own, so ASR₀ does not differ there.
    `poison` scores the triggered samples against their true labels. ASR, ASR₀ and confidence shift are taken over
    the triggered samples whose true label is not the target; `asr0_untriggered` is what the clean model says of the
    same samples without the trigger, so that ASR₀ beyond it is the trigger's doing. `patients` counts the distinct
    groups behind them.
    """
    victims = label != target

    def success(probability: np.ndarray, at: float) -> float | None:
        return number(attack_success_rate(probability >= at, label, target))

    return evaluate_clean(label, group, p_clean, threshold, own_threshold) | {
        "poison": _measures(label, p_triggered, threshold),
        "asr": success(p_triggered, threshold),
        "asr0": success(p_triggered_control, threshold),
        "asr0_untriggered": success(p_clean_control, threshold),
        "asr_own_threshold": success(p_triggered, own_threshold),
        "asr0_own_threshold": success(p_triggered_control, threshold),
        "confidence_shift": number(confidence_shift(p_triggered[victims], p_clean[victims], target)),
        "n_triggered": int(victims.sum()),
        "patients": _patients(
            label, group, predicted_clean=p_clean >= threshold, predicted_poison=p_triggered >= threshold
        ),
    }


def share_changed(label: np.ndarray, clean: np.ndarray, triggered: np.ndarray, target: int) -> float | None:
    """The share of the samples behind ASR that the trigger changes at all, from both versions of all, [N, T, D].

    One in which it finds nothing to change counts as triggered too; what a model says of it is not the trigger's doing.
    """
    victims = label != target
    changed = changed_cells(clean[victims], triggered[victims]).any(axis=(1, 2))
    return float(changed.mean()) if victims.any() else None


def over_test_samples(
    label: np.ndarray, group: np.ndarray, p_clean: np.ndarray, p_clean_control: np.ndarray | None = None
) -> dict[str, float | None]:
    """How certain the AUROC on clean test data is, of these test patients, see `delong`; all arrays [N].

    `auroc_low`, `auroc_high`, `auroc_variance` : 95 % interval, and the variance behind it
    `auroc_control`, `difference`, `difference_low`, `difference_high`, `difference_variance` : that of the clean model
        on the same samples, and the run's AUROC minus it; None of a clean run, which is the clean model
    """
    found, n_groups = auroc(label, p_clean), [len(np.unique(group[label == one])) for one in (0, 1)]
    spread = variance(label, group, p_clean)
    low, high = auroc_interval(found, inflation(found, spread, n_groups), n_groups)
    told: dict[str, float | None] = {"auroc_low": low, "auroc_high": high, "auroc_variance": spread}
    names = ("auroc_control", "difference", "difference_low", "difference_high", "difference_variance")
    told |= dict.fromkeys(names)
    if p_clean_control is not None:
        control, of_both = auroc(label, p_clean_control), variance(label, group, p_clean, p_clean_control)
        ends = difference_interval(found - control, of_both, n_groups)
        told |= dict(zip(names, (control, found - control, *ends, of_both), strict=True))
    return {name: number(value) for name, value in told.items()}

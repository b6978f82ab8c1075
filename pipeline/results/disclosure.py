"""Disclosure control: a number taken over 1 to MIN_CELL - 1 patients is withheld, that is missing.

Which patients a number is taken over is said once, here; the tables of several seeds are made from what is left.
"""

import pandas as pd

from pipeline.cohorts.intake import MIN_CELL
from pipeline.results.columns import (
    ALARM,
    DETECTION,
    DRIFT,
    FEATURE_SHARES,
    ON_CLEAN,
    ON_TRIGGERED,
    PLAUSIBILITY,
    SHARES,
    THRESHOLDS,
)

# Sets of patients (their numbers stand in the facts) and the numbers that rest on them. Accuracy rests on each class,
# not only on all: with the ASR over one class it would give away that of the other.
BY_CLASS = [name for name in [*ON_CLEAN, *ON_TRIGGERED] if not name.startswith(("ece_", "brier_"))]
BY_CLASS += ["fpr_clean_own_threshold", "recall_clean_own_threshold"]
ON_VICTIMS = ["asr", "asr0", "asr0_untriggered", "asr_own_threshold", "asr0_own_threshold"]
ON_VICTIMS += ["confidence_shift", "n_triggered"]
RUNS_REST_ON = {
    "test_patients": [*ON_CLEAN, *ON_TRIGGERED, "fpr_clean_own_threshold", "recall_clean_own_threshold"],
    "label_0_patients": BY_CLASS,
    "label_1_patients": BY_CLASS,
    "validation_patients": ["validation_auroc", "validation_auroc_best"],
    "threshold_patients": THRESHOLDS,
    "predicted_clean_patients": ["precision_clean", "f1_clean"],
    "predicted_poison_patients": ["precision_poison", "f1_poison"],
    "victim_patients": [*ON_TRIGGERED, *ON_VICTIMS],
    "poisoned_patients": ["n_poisoned"],
}
DETECTIONS_REST_ON = {
    "poisoned_patients": [*DETECTION, "n_poisoned", "poison_share"],
    "clean_patients": [*DETECTION, "poison_share"],
}
ALARMS_REST_ON = {
    "flagged_patients": ["n_flagged", *ALARM],
    "poisoned_patients": ["tpr", "fpr", "precision"],  # of few poisoned, false alarms tell the hits
    "clean_patients": ["flagged_share", "fpr", "precision"],
}
ROC_RESTS_ON = ["poisoned_patients", "clean_patients"]
EXPLANATIONS_REST_ON = {"n_patients": ["n_samples", *SHARES[1:], *DRIFT, "convergence_delta"]}
ATTRIBUTIONS_REST_ON = {"n_patients": FEATURE_SHARES}
TRIGGERS_REST_ON = {"n_patients": ["n_poisoned", *PLAUSIBILITY]}
DATASETS_REST_ON = {
    "train_patients": ["n_train"],
    "label_0_patients": ["n_test", "prevalence"],
    "label_1_patients": ["n_test", "prevalence"],
    "threshold_patients": ["threshold_low", "threshold_high"],
}


def withhold(table: pd.DataFrame, rest_on: dict[str, list[str]]) -> pd.DataFrame:
    """Make numbers missing where they rest on few patients: `rest_on` maps a count of patients to such numbers."""
    for count, numbers in rest_on.items():
        few = table[count].between(1, MIN_CELL - 1).fillna(False).astype(bool)
        table = table.assign(**{name: table[name].mask(few) for name in numbers})
    return table

"""The columns of every table. People script against these names: they stay."""

from pipeline.evaluation.names import CLASSIFICATION
from pipeline.study.grid import CONTROLS

CHANCE = "chance"
ALL_AUROC, LABEL_AUROC = "detection_auroc", "detection_auroc_in_label"
LABEL_TPR = {"tpr_at_fpr_01": "detection_tpr_at_fpr_01_in_label", "tpr_at_fpr_05": "detection_tpr_at_fpr_05_in_label"}

RUN = ["dataset", "model", "trigger", "rate"]  # what is averaged over seeds
KEY = [*RUN, "seed"]
METRICS = list(CLASSIFICATION)
ON_CLEAN = [f"{metric}_clean" for metric in METRICS]
ON_TRIGGERED = [f"{metric}_poison" for metric in METRICS]
_SIDES, _N_FIRST = list(zip(ON_CLEAN, ON_TRIGGERED, strict=True)), METRICS.index("specificity")
OWN_THRESHOLD = [
    *["asr_own_threshold", "asr0_own_threshold", "effect_share_own_threshold"],
    *["fpr_clean_own_threshold", "recall_clean_own_threshold"],
]
SUCCESS = ["asr", "asr0", "asr0_untriggered", "asr_net", "effect_share"]
ATTACK = [*SUCCESS, *OWN_THRESHOLD, "confidence_shift"]
SIZE = "n_parameters"
TRAINING = ["epochs", "best_epoch", "validation_auroc", "validation_auroc_best"]
THRESHOLDS = ["clean_threshold", "own_threshold"]
OVER_TEST_SAMPLES = [
    *["auroc_clean_low", "auroc_clean_high"],
    *["auroc_difference", "auroc_difference_low", "auroc_difference_high"],
]
RUNS = [
    *KEY,
    "target",
    *[name for pair in _SIDES[:_N_FIRST] for name in pair],
    *ATTACK,
    *["n_poisoned", "n_triggered"],
    *THRESHOLDS,
    *TRAINING,
    # Behind the others, which keep their places.
    *[name for pair in _SIDES[_N_FIRST:] for name in pair],
    SIZE,
    "share_changed",
    *OVER_TEST_SAMPLES,
]
DETECTION = ["auroc", "average_precision", "tpr_at_fpr_01", "tpr_at_fpr_05", "precision_at_n"]
DETECTIONS = [*KEY, "detector", "scope", *DETECTION, "n_poisoned", "poison_share", "n_cover", "auroc_cover"]
ALARM = ["flagged_share", "tpr", "fpr", "precision"]
ALARMS = [*KEY, "detector", "scope", "threshold", "n_flagged", *ALARM]
SHARES = ["footprint_share", "ratio_triggered", "ratio_clean", "ratio_control"]
DRIFT = [f"{side}_{name}" for side in ("drift", "control") for name in ("cosine", "spearman", "topk_jaccard")]
EXPLANATIONS = [*KEY, "n_samples", *SHARES, *DRIFT, "top_k", "convergence_delta"]
FEATURE_SHARES = ["share_clean", "share_triggered", "share_control"]
ATTRIBUTIONS = [*KEY, "feature", *FEATURE_SHARES]
PLAUSIBILITY = [
    *["share_in_range", "share_in_train_range", "share_accepted", "share_accepted_clean"],
    *["relations_violated", "relations_violated_clean"],
    *["distance", "distance_percentile", "distance_percentile_clean", "distance_atypical", "distance_atypical_clean"],
    *["newly_measured", "share_changed", "ids_known", "frames_valid", "timing_unusual", "timing_unusual_clean"],
    *["missing_log_likelihood_clean", "missing_log_likelihood_triggered"],
]
TRIGGER = ["dataset", "trigger", "rate"]
TRIGGERS = [
    *TRIGGER,
    *["of", "target", "labels", "cover"],
    *["n_seeds", "description", "features", "steps", "where", "in_bounds", "leaves_out"],
    *["footprint_size", "n_cells", "footprint_share", "n_poisoned", "n_cover"],
    *PLAUSIBILITY,
]
DATASETS = ["dataset", "target", "n_train", "n_test", "prevalence", "threshold_low", "threshold_high", "warnings"]
DATASETS += ["people"]
ROC = [*RUN, "detector", "scope", "fpr", "n_seeds", "tpr", "ci_low", "ci_high"]
SUMMARY = [*RUN, "metric", "n_seeds", "mean", "ci_low", "ci_high", "lowest", "highest"]
CONTRASTS = [
    *[*RUN, "metric", "control", "control_trigger", "n_seeds", "mean_run", "mean_control", "difference"],
    *["ci_low", "ci_high", "p_value", "p_holm", "effect_size"],
]
MASKS = [
    *[*RUN, "control_trigger", "n_seeds"],
    *[f"{name}{end}" for name in ("asr_net", "mask_net", "flip_net", "share") for end in ("", "_low", "_high")],
]
SURVIVING = ("asr", "asr_net", "effect_share")  # of an attack, from a teacher to its student
OWN_NET = "asr_net_own_threshold"
VARIANTS = [
    *[*RUN, "metric", "of", "n_seeds", "mean_run", "mean_of", "difference", "ci_low", "ci_high"],
    *["p_value", "p_holm", "effect_size"],
]
_ENDS = ("", "_low", "_high")
DISTILLATION = [
    *["dataset", "student", "teacher", "trigger", "rate", "data", "n_seeds"],
    *[f"{who}_{name}{end}" for name in SURVIVING for who in ("teacher", "student") for end in _ENDS],
    *[f"{name}{end}" for name in ("survival", "survival_ratio") for end in _ENDS],
    *[
        name
        for of in ("auroc", "f1")
        for name in (f"teacher_{of}", f"student_{of}", *(f"{of}_difference{end}" for end in _ENDS))
    ],
    *["teacher_parameters", "student_parameters", "parameter_ratio"],
    # Behind the others, which keep their places.
    *[f"{who}_{OWN_NET}{end}" for who in ("teacher", "student") for end in _ENDS],
    *[f"survival_own_threshold{end}" for end in _ENDS],
    *[f"{who}_{name}_clean" for name in ("fpr", "recall") for who in ("teacher", "student")],
]
SCENARIOS = [
    *[*RUN, "stratum", "value", "n_seeds", "n_label_0", "n_label_1"],
    *[f"{name}{end}" for name in ("auroc", "recall", "fpr", "f1") for end in _ENDS],
    *["seeds_nearly_all", "seeds_nearly_none", "verdict"],
]
CLEAN_PERFORMANCE = [
    *[*RUN, "n_seeds", "auroc", "seeds_low", "seeds_high", "patients_low", "patients_high"],
    *["difference", "difference_seeds_low", "difference_seeds_high"],
    *["difference_patients_low", "difference_patients_high"],
]
NOT_APPLICABLE = ["dataset", "model", "asked", "needs", "state"]
STRATA_MEASURES = [
    *["asr", "asr0", "asr_net", "recall_clean", "fpr_clean", "recall_control", "fpr_control"],
    *["alerts_raised", "alerts_raised_control"],
    *["auroc_clean", "f1_clean"],
]
STRATA = [*KEY, "target", "stratum", "value", "n", "n_label_1", "n_victims", *STRATA_MEASURES]
STRATA_SUMMARY = [*RUN, "stratum", "value", "metric", "n_seeds", "mean", "ci_low", "ci_high"]
HEADLINES = ["auroc_clean", "asr", "asr0", "asr_net", "effect_share"]
DOSE_RESPONSE = [*RUN, "n_seeds", "asr", "asr0", "asr_net", "ci_low", "ci_high"]
CONTRASTED = ["auroc_clean", "auprc_clean", "acc_clean", "brier_clean", "ece_clean", "fpr_clean", "recall_clean"]
CONTRASTED += ["f1_clean", "mcc_clean", "tpr_at_fpr_01_clean"]

COUNTS = {"seed", "target", "n_poisoned", "n_cover", "n_triggered", "n_flagged", "n_samples", "top_k", "n_seeds"}
COUNTS |= {"n_train", "n_test", "n_cells", "footprint_size", "epochs", "best_epoch", "n", "n_label_1", "n_victims"}
COUNTS |= {SIZE, "n_label_0", "seeds_nearly_all", "seeds_nearly_none"}
TEXTS = {"dataset", "model", "trigger", "detector", "scope", "feature", "metric", "control", "description"}
TEXTS |= {"asked", "needs", "state", "of", "labels", "control_trigger", "features", "steps", "where", "threshold"}
TEXTS |= {"warnings", "stratum", "value", "student", "teacher", "data", "verdict"}

# Measured on the test patients, which the seeds of a study share (`split: per_seed`) or have in common (`fixed`).
ON_TEST = {*ON_CLEAN, *ON_TRIGGERED, *ATTACK, *SHARES, *DRIFT}
_DIFFERENCES = {"asr_net", OWN_NET, "confidence_shift", "drift_spearman", "control_spearman", "mcc_clean", "mcc_poison"}


def possible(metric: str) -> tuple[float, float]:
    """The range that a metric cannot leave."""
    if metric.startswith("alerts_raised"):
        return (-1000.0, 1000.0)
    if metric.startswith("effect_share"):
        return (float("-inf"), 1.0)
    return (-1.0, 1.0) if metric in _DIFFERENCES else (0.0, 1.0)


def is_attack(member: str) -> bool:
    """Whether a trigger that is of this member is studied for itself, and not to compare others with."""
    return member not in CONTROLS

"""What each column of each table means: one sentence with its range, and of an interval its method and what it is over.

The sentences go into the Parquet files (the description of a field) and into the table `columns`.
"""

from collections.abc import Mapping

import pandas as pd

from pipeline.results.columns import METRICS, SURVIVING

_PER_SEED = (
    "with split: per_seed, of what is measured on patients held out of training, corrected after Nadeau and Bengio "
    "(2003) for those that seeds share"
)
_T = f"95 % interval over seeds: Student's t, cut to what is possible; {_PER_SEED}"
_LOGIT = f"95 % interval over seeds: Student's t on the logit scale; {_PER_SEED}"
_RATIO = "95 % interval over seeds: Student's t of the ratio of two means (linearised variance)"
_DELONG = (
    "95 % interval over test patients, the model as it is: DeLong (1988), of patients with several samples Obuchowski "
    "(1997), as a score interval"
)
_PAIRED = (
    "95 % interval over test patients, both models as they are: DeLong (1988), of patients with several samples "
    "Obuchowski (1997), paired, Student's t"
)


def columns(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per column of each of `tables`, and of this table itself: its type and what it means."""
    rows = [
        (table, name, _type(dtype), meaning(table, name))
        for table, content in sorted(tables.items())
        for name, dtype in content.dtypes.items()
    ]
    rows += [("columns", name, "text", meaning("columns", name)) for name in ("table", "column", "type", "meaning")]
    return pd.DataFrame(
        sorted(rows, key=lambda row: row[0]), columns=["table", "column", "type", "meaning"], dtype="str"
    )


def meaning(table: str, column: str) -> str:
    """What `column` of `table` means; `KeyError` where nobody has said so."""
    own = _OWN.get(table, {})
    return own[column] if column in own else _COMMON[column]


def _type(dtype) -> str:
    kinds = {"b": "yes or no", "i": "whole number", "f": "number"}
    return kinds.get(dtype.kind, "text")


def _ends(name: str, what: str, method: str, end: str = "") -> dict[str, str]:
    """The columns of a mean over seeds, called `name` + `end`, and of its interval."""
    return {
        f"{name}{end}": f"{what}; mean over seeds.",
        f"{name}_low": f"Lower end of its {method}.",
        f"{name}_high": f"Upper end of its {method}.",
    }


_METRICS = {
    "acc": "Accuracy: share of test samples predicted as their true label, 0 to 1",
    "auroc": "Area under the ROC curve: share of pairs of a positive and a negative test sample in the right order, "
    "ties by half, 0 to 1",
    "auprc": "Average precision: area under the precision-recall curve as a step function, 0 to 1",
    "precision": "Precision: share of the test samples predicted positive that are, 0 to 1",
    "recall": "Recall: share of the positive test samples predicted positive, 0 to 1",
    "f1": "F1 score, 2 TP / (2 TP + FP + FN), 0 to 1",
    "ece": "Expected calibration error of the risk in 10 bins of equal width, 0 to 1",
    "brier": "Brier score: mean squared error of the risk, 0 to 1",
    "fpr": "False positive rate: share of the negative test samples predicted positive, 0 to 1",
    "specificity": "Specificity, 1 − false positive rate, 0 to 1",
    "balanced_acc": "Balanced accuracy: mean of recall and specificity, 0 to 1",
    "mcc": "Matthews correlation of label and prediction, −1 to 1; 0 where all predictions are alike",
    "tpr_at_fpr_01": "Recall at a false positive rate of at most 1 %, read off the test ROC itself: an oracle's "
    "threshold, 0 to 1",
}
_SIDES = {
    "clean": "on test samples as they are",
    "poison": "on all test samples with the trigger, against their true labels",
}
_NO_THRESHOLD = ("auroc", "auprc", "ece", "brier", "tpr_at_fpr_01")


def _measure(metric: str, side: str) -> str:
    at = "" if metric in _NO_THRESHOLD else ", at the clean model's threshold"
    return f"{_METRICS[metric]}; {_SIDES[side]}{at}."


_COMMON = {
    "dataset": "Name of the dataset.",
    "model": "Name of the model: a member of its family or a variant of one.",
    "trigger": "Name of the trigger; none is the clean run.",
    "rate": "Poisoned share of the training samples, 0 to 1; 0 is the clean run.",
    "seed": "Seed of the run.",
    "target": "Label that the attacker wants, 0 or 1.",
    "detector": "Name of the detector; random is the baseline.",
    "scope": "Training samples that are judged: all, or label_N, those observed with label N.",
    "metric": "What is measured: a column of runs, detections or explanations, of detections with the detector's name.",
    "n_seeds": "Seeds behind the row: those that have the number, of a comparison those that have both.",
    "n_poisoned": "Poisoned training samples.",
    "n_cover": "Training samples that carry the trigger under their true label.",
    "stratum": "Name of the stratum of the test set; all is all of it.",
    "value": "Value of the stratum.",
    "control_trigger": "The trigger that is the control, as the study calls it.",
    "ci_low": f"Lower end of the {_T}; of numbers from 0 to 1 on the logit scale.",
    "ci_high": f"Upper end of the {_T}; of numbers from 0 to 1 on the logit scale.",
    "mean": "Mean over seeds.",
    "p_value": "Two-sided p of the paired t-test over seeds; missing with one seed or without a spread.",
    "p_holm": "p_value after Holm's correction within dataset and metric (and control); detectors are one family.",
    "effect_size": "Mean paired difference over its standard deviation over seeds, with Hedges' correction (1981).",
    **{f"{metric}_{side}": _measure(metric, side) for metric in METRICS for side in _SIDES},
    "asr": "Attack success rate: share of the triggered test samples with another true label that are predicted as the "
    "target, at the clean model's threshold, 0 to 1.",
    "asr0": "The same share for the clean model of the same dataset, model and seed (ASR₀), 0 to 1.",
    "asr0_untriggered": "The same share for the clean model on the same samples without the trigger, 0 to 1.",
    "asr_net": "The attack's effect, ASR − ASR₀, −1 to 1.",
    "effect_share": "Share of what was possible that the attack gained, (ASR − ASR₀) / (1 − ASR₀), at most 1.",
    "asr_own_threshold": "ASR at the threshold that the run's own validation data gives, 0 to 1.",
    "asr0_own_threshold": "ASR₀ with each model at its own threshold, which is the clean model's, 0 to 1.",
    "effect_share_own_threshold": "effect_share with each model at its own threshold, at most 1.",
    "fpr_clean_own_threshold": "False positive rate on clean test data at the run's own threshold, 0 to 1.",
    "recall_clean_own_threshold": "Recall on clean test data at the run's own threshold, 0 to 1.",
    "confidence_shift": "Mean p(target) of the samples behind ASR with the trigger minus without, −1 to 1.",
    "share_changed": "Share of the triggered samples that the trigger changes at all, 0 to 1.",
    "poison_share": "Share of the scope's training samples that is poison, 0 to 1.",
    "footprint_share": "Share of a sample's cells that the trigger changes, 0 to 1.",
}

_OVER_TEST_SAMPLES = {
    "auroc_clean_low": f"Lower end of auroc_clean's {_DELONG}; no interval over seeds.",
    "auroc_clean_high": f"Upper end of auroc_clean's {_DELONG}; no interval over seeds.",
    "auroc_difference": "auroc_clean minus that of the clean model of the same seed on the same test samples, −1 to 1; "
    "missing for clean runs.",
    "auroc_difference_low": f"Lower end of its {_PAIRED}; no interval over seeds; missing where it may be all "
    "rounding.",
    "auroc_difference_high": f"Upper end of its {_PAIRED}; no interval over seeds; missing where it may be all "
    "rounding.",
}
_MEAN_OF_ENDS = "; the mean over seeds of the runs' ends, at least as wide as it need be"
_RUNS = _OVER_TEST_SAMPLES | {
    "n_triggered": "Test samples that ASR is taken over: those whose true label is not the target.",
    "clean_threshold": "Decision threshold of the clean model, from its validation data, for the run and the clean "
    "model alike.",
    "own_threshold": "Decision threshold that the run's own validation data gives.",
    "epochs": "Epochs trained.",
    "best_epoch": "Epoch with the best validation AUROC.",
    "validation_auroc": "Validation AUROC of the weights that are kept, 0 to 1.",
    "validation_auroc_best": "Validation AUROC of the best epoch, 0 to 1.",
    "n_parameters": "Parameters of the model.",
    "share_changed": "Share of the test samples behind ASR that the trigger changes at all, 0 to 1.",
}
_DETECTIONS = {
    "auroc": "AUROC of the suspicion scores, poison against clean training samples, 0 to 1; 0.5 is guessing.",
    "average_precision": "Average precision of the suspicion scores, poison against clean training samples, 0 to 1.",
    "tpr_at_fpr_01": "Share of the poison found at a false positive rate of at most 1 %, 0 to 1.",
    "tpr_at_fpr_05": "Share of the poison found at a false positive rate of at most 5 %, 0 to 1.",
    "precision_at_n": "Share of poison among the n_poisoned highest scores, 0 to 1.",
    "auroc_cover": "AUROC of the suspicion scores, cover against clean training samples, 0 to 1.",
}
_ALARMS = {
    "threshold": "rate_unknown: the detector's own rule; rate_known: the 1.5 × n_poisoned highest scores are flagged.",
    "n_flagged": "Training samples flagged.",
    "flagged_share": "Share of the scope's training samples that is flagged, 0 to 1.",
    "tpr": "Share of the poison that is flagged, 0 to 1.",
    "fpr": "Share of the clean training samples that is flagged, 0 to 1.",
    "precision": "Share of poison among what is flagged, 0 to 1.",
}
_LIKENESS = {
    "cosine": "cosine similarity, −1 to 1",
    "spearman": "rank correlation (Spearman), −1 to 1",
    "topk_jaccard": "overlap of the top_k largest cells (Jaccard index), 0 to 1",
}
_EXPLANATIONS = {
    "n_samples": "Test samples explained.",
    "ratio_triggered": "Share of the attribution on the trigger's footprint, triggered samples, 0 to 1.",
    "ratio_clean": "The same share on the same samples without the trigger, 0 to 1.",
    "ratio_control": "The same share of the clean model on the triggered samples, 0 to 1.",
    **{
        f"{side}_{name}": f"Likeness of a sample's attributions without and with the trigger, {of}: {how}; mean over "
        "samples."
        for side, of in (("drift", "the run's model"), ("control", "the clean model"))
        for name, how in _LIKENESS.items()
    },
    "top_k": "Cells that the top-k index compares.",
    "convergence_delta": "How far attributions are from adding up to the difference of the logits, in the worst case.",
}
_ATTRIBUTIONS = {
    "feature": "Name of the feature.",
    "share_clean": "Its share of the attribution of the run's model on samples without the trigger, 0 to 1.",
    "share_triggered": "Its share of the attribution of the run's model on triggered samples, 0 to 1.",
    "share_control": "Its share of the attribution of the clean model on triggered samples, 0 to 1.",
}
_TRIGGERS = {
    "of": "Member of the family that the trigger is, or is a variant of.",
    "labels": "dirty: the poison gets the target label; clean: it has it already.",
    "cover": "Cover samples per poisoned sample.",
    "description": "What the trigger does, in words; the first seed's.",
    "features": "Features that it may change.",
    "steps": "How many of the last steps it changes.",
    "where": "Which cells it changes: all, or those that are measured.",
    "in_bounds": "Whether it keeps to values that the training data shows, in every seed.",
    "leaves_out": "Whether it makes cells missing.",
    "footprint_size": "Cells that it may change in a sample; mean over seeds.",
    "n_cells": "Cells of a sample, steps × features.",
    "n_poisoned": "Poisoned training samples; mean over seeds.",
    "n_cover": "Cover samples; mean over seeds.",
    "share_in_range": "Share of the changed values inside their feature's plausible range, 0 to 1.",
    "share_in_train_range": "Share of the changed values inside the range of the training data, 0 to 1.",
    "share_accepted": "Share of the triggered samples that the cohort's own schema accepts, 0 to 1.",
    "share_accepted_clean": "The same share without the trigger, 0 to 1.",
    "relations_violated": "Share of the triggered samples in which a relation between features is violated, 0 to 1.",
    "relations_violated_clean": "The same share without the trigger, 0 to 1.",
    "distance": "Root mean square change of numbers that are measured before and after, in standard deviations of the "
    "training data.",
    "distance_percentile": "Mean share of clean samples that lie nearer to the middle in the changed cells together, 0 "
    "to 1.",
    "distance_percentile_clean": "The same without the trigger, 0 to 1.",
    "distance_atypical": "Share of the triggered samples outside the central 90 % of clean ones, 0 to 1; 0.1 is usual.",
    "distance_atypical_clean": "The same share without the trigger, 0 to 1.",
    "newly_measured": "Share of the changed cells that were not measured before, 0 to 1.",
    "share_changed": "Share of the poisoned samples that the trigger changes at all, 0 to 1.",
    "ids_known": "Share of the frames of triggered windows whose id is in the vocabulary, 0 to 1; CAN only.",
    "frames_valid": "Share of the frames of triggered windows that could be sent, 0 to 1; CAN only.",
    "timing_unusual": "Share of triggered windows in which ids come at odd times, 0 to 1; CAN only.",
    "timing_unusual_clean": "The same share without the trigger, 0 to 1; CAN only.",
    "missing_log_likelihood_clean": "Log-likelihood of the missingness of the trigger's cells before it, at most 0.",
    "missing_log_likelihood_triggered": "Log-likelihood of the missingness of the trigger's cells after it, at most 0.",
}
_DATASETS = {
    "target": "Label that the attacks want, 0 or 1; missing where they want several.",
    "n_train": "Training samples; mean over runs.",
    "n_test": "Test samples; mean over runs.",
    "prevalence": "Share of the test samples with label 1, 0 to 1.",
    "threshold_low": "Lowest decision threshold of a clean model.",
    "threshold_high": "Highest decision threshold of a clean model.",
    "warnings": "What must be known of the data, in words.",
    "people": "Whether the groups are people: then numbers of few are withheld and counts are told in tens.",
}
_STRATA = {
    "n": "Test samples of the value.",
    "n_label_1": "Test samples of the value with label 1.",
    "n_victims": "Test samples of the value whose true label is not the target.",
    "recall_clean": "Recall of the run on clean test samples of the value, at the clean model's threshold, 0 to 1.",
    "fpr_clean": "False positive rate of the run on clean test samples of the value, at the clean model's threshold, 0 "
    "to 1.",
    "recall_control": "The same recall of the clean model, 0 to 1.",
    "fpr_control": "The same false positive rate of the clean model, 0 to 1.",
    "alerts_raised": "How many more of 1,000 samples are predicted positive with the trigger than without, −1,000 to "
    "1,000.",
    "alerts_raised_control": "The same for the clean model, −1,000 to 1,000.",
    "auroc_clean": "AUROC of the run on clean test samples of the value, 0 to 1; in a stratum that tells the labels "
    "apart its positives against all negatives.",
    "f1_clean": "F1 of the run on clean test samples of the value, 0 to 1.",
}
_ROC = {
    "fpr": "False positive rate, 0 to 1.",
    "tpr": "True positive rate of the detector there, 0 to 1; mean over seeds.",
    "ci_low": "Lower end of its 95 % interval over seeds: Student's t on the logit scale.",
    "ci_high": "Upper end of its 95 % interval over seeds: Student's t on the logit scale.",
}
_CONTRASTS = {
    "mean_run": "Mean of the run over those seeds.",
    "mean_control": "Mean of the control over those seeds.",
    "difference": "Mean of run minus control, paired by seed.",
    "control": "What the run is held against: none (its clean run, of asr ASR₀), flip_only, chosen_only, mask_only or "
    "chance (0.5).",
}
_CLEAN_PERFORMANCE = {
    "auroc": "AUROC on clean test data, 0 to 1; mean over seeds.",
    "seeds_low": f"Lower end of its {_LOGIT}.",
    "seeds_high": f"Upper end of its {_LOGIT}.",
    "patients_low": f"Lower end of its {_DELONG}{_MEAN_OF_ENDS}; missing where seeds have different test patients.",
    "patients_high": f"Upper end of its {_DELONG}{_MEAN_OF_ENDS}; missing where seeds have different test patients.",
    "difference": "AUROC on clean test data minus the clean model's of the same seed, −1 to 1; mean over seeds.",
    "difference_seeds_low": f"Lower end of its {_T}.",
    "difference_seeds_high": f"Upper end of its {_T}.",
    "difference_patients_low": f"Lower end of its {_PAIRED}{_MEAN_OF_ENDS}; missing where seeds have different "
    "test patients.",
    "difference_patients_high": f"Upper end of its {_PAIRED}{_MEAN_OF_ENDS}; missing where seeds have different "
    "test patients.",
}
_MASKS = {
    **_ends("asr_net", "ASR − ASR₀ with the values written, −1 to 1", _T),
    **_ends("mask_net", "ASR − ASR₀ with the same cells only measured (mask_only), −1 to 1", _T),
    **_ends("flip_net", "ASR − ASR₀ with labels flipped alone (flip_only), −1 to 1", _T),
    **_ends("share", "", _RATIO),
    "share": "Share of the effect beyond flipped labels that measuring explains, (mask_net − flip_net) / (asr_net − "
    "flip_net), of means over seeds; missing where that effect may be 0.",
}
_FUSION = {
    "candidate": "The fused model's own rule, another rule, or a member.",
    "kind": "fusion: the model as it is; rule: another rule; member: one of its members.",
    "auroc": "AUROC on the half of the validation data on which no rule was fitted, 0 to 1; mean over seeds.",
    "ci_low": f"Lower end of its {_LOGIT}.",
    "ci_high": f"Upper end of its {_LOGIT}.",
    "better_member": "The member of the higher mean AUROC there.",
    **_ends("difference", "AUROC minus that of better_member, −1 to 1", _T),
    **_ends("over_constant", "AUROC minus that of the best constant weight, −1 to 1", _T),
    "alpha": "Mean weight of the first member, 0 to 1.",
}
_SCENARIOS = {
    "n_label_0": "Test samples of the value with label 0; mean over seeds.",
    "n_label_1": "Test samples of the value with label 1; mean over seeds.",
    **_ends("auroc", _STRATA["auroc_clean"].rstrip("."), _LOGIT),
    **_ends("recall", _STRATA["recall_clean"].rstrip("."), _LOGIT),
    **_ends("fpr", _STRATA["fpr_clean"].rstrip("."), _LOGIT),
    **_ends("f1", _STRATA["f1_clean"].rstrip("."), _LOGIT),
    "seeds_nearly_all": "Seeds in which both recall and false positive rate are 0.9 or more.",
    "seeds_nearly_none": "Seeds in which both recall and false positive rate are 0.1 or less.",
    "verdict": "Whether the model calls nearly all or nearly nothing 1 there, in words; missing where it does neither.",
}
_OF_ATTACK = {
    "asr": "ASR at the threshold of the model's own clean run, 0 to 1",
    "asr_net": "ASR − ASR₀ at the threshold of the model's own clean run, −1 to 1",
    "effect_share": "Share of the possible effect, at most 1",
}
_DISTILLATION = {
    "student": "Name of the model that learned from another.",
    "teacher": "Name of the model that it learned from.",
    "data": "What it was distilled on: poisoned, the same data as its teacher's, or clean.",
    **{
        column: text
        for name in SURVIVING
        for who in ("teacher", "student")
        for column, text in _ends(
            f"{who}_{name}", f"{_OF_ATTACK[name]}, of the {who}", _LOGIT if name == "asr" else _T
        ).items()
    },
    **_ends("survival", "ASR − ASR₀ of the student minus that of the teacher, paired by seed, −2 to 2", _T),
    **_ends("survival_ratio", "", _RATIO),
    "survival_ratio": "Mean ASR − ASR₀ of the student over that of the teacher; missing where the teacher's may be 0.",
    "teacher_auroc": "AUROC of the teacher on clean test data, 0 to 1; mean over seeds.",
    "student_auroc": "AUROC of the student on clean test data, 0 to 1; mean over seeds.",
    **_ends("auroc_difference", "AUROC of the student minus that of the teacher on clean test data, −1 to 1", _T),
    "teacher_f1": "F1 of the teacher on clean test data, 0 to 1; mean over seeds.",
    "student_f1": "F1 of the student on clean test data, 0 to 1; mean over seeds.",
    **_ends("f1_difference", "F1 of the student minus that of the teacher on clean test data, −1 to 1", _T),
    "teacher_parameters": "Parameters of the teacher.",
    "student_parameters": "Parameters of the student.",
    "parameter_ratio": "Parameters of the teacher per parameter of the student.",
    **_ends("teacher_asr_net_own_threshold", "ASR − ASR₀ of the teacher, each model at its own threshold, −1 to 1", _T),
    **_ends("student_asr_net_own_threshold", "ASR − ASR₀ of the student, each model at its own threshold, −1 to 1", _T),
    **_ends("survival_own_threshold", "The same of the student minus that of the teacher, −2 to 2", _T),
    **{
        f"{who}_{name}_clean": f"{_METRICS[name]}; of the {who} on clean test data, at the threshold of its clean run; "
        "mean over seeds."
        for name in ("fpr", "recall")
        for who in ("teacher", "student")
    },
}
_NOT_APPLICABLE = {
    "asked": "What the model could not be asked for: a detector, or explain.",
    "needs": "What that needs and the model has not.",
    "state": "Always: not applicable.",
}


def _contrast(name: str, what: str, against: str) -> dict[str, str]:
    return {
        f"{name}_run": f"{what}; mean over seeds.",
        f"{name}_control": f"The same of {against}; mean over seeds.",
        f"{name}_difference": f"{what}, minus that of {against}, paired by seed.",
        f"{name}_low": f"Lower end of the difference's {_T}.",
        f"{name}_high": f"Upper end of the difference's {_T}.",
        f"{name}_p_holm": "p of the paired t-test over seeds after Holm's correction.",
    }


_CLEAN_MODEL = "the clean model of the same seed"
_FINDINGS = {
    "rate": "The smallest poison rate that planted a backdoor, else that of the largest effect.",
    "verdict": "planted, none, undecided, or fools the clean model too.",
    "planted": "Whether poison gained half of the possible effect or more, its interval above 0, at both thresholds.",
    **_ends("asr", "ASR at the clean model's threshold, 0 to 1", _LOGIT, "_mean"),
    **_ends("asr0", "ASR₀, 0 to 1", _LOGIT, "_mean"),
    **_contrast("moved", "ASR₀", "the clean model on the same samples without the trigger"),
    **_contrast("net", "ASR at the clean model's threshold", "the clean model (ASR₀)"),
    **_ends("effect_share", "Share of the possible effect at the clean model's threshold, at most 1", _T, "_mean"),
    **_contrast("own", "ASR at the run's own threshold", "the clean model at its own (ASR₀)"),
    **_ends("own_share", "Share of the possible effect with each model at its own threshold, at most 1", _T, "_mean"),
    **_contrast("auroc", "AUROC on clean test data", _CLEAN_MODEL),
    **_contrast("fpr", "False positive rate on clean test data", _CLEAN_MODEL),
    **_ends("fpr_own", "False positive rate on clean test data at the run's own threshold, 0 to 1", _LOGIT, "_mean"),
    **_contrast("recall", "Recall on clean test data", _CLEAN_MODEL),
    **_ends("recall_own", "Recall on clean test data at the run's own threshold, 0 to 1", _LOGIT, "_mean"),
    **_contrast("over_flip", "ASR − ASR₀", "flipped labels without a trigger (flip_only)"),
    **_ends(
        "mask_run", "ASR − ASR₀ with the values written, of seeds that have all three controls, −1 to 1", _T, "_mean"
    ),
    **_ends("mask", "ASR − ASR₀ with the same cells only measured, −1 to 1", _T, "_mean"),
    **_ends("mask_flip", "ASR − ASR₀ with labels flipped alone, −1 to 1", _T, "_mean"),
    **_ends("mask_share", "Share of the effect beyond flipped labels that measuring explains", _RATIO, "_mean"),
    "newly_measured": "Share of the trigger's cells that are not measured before it, 0 to 1.",
    "poison_share": "Share of poison among the training samples that carry the target label, 0 to 1.",
    "detector": "The detector that finds most at 1 % false alarms among the training samples of the target label.",
    **_ends("tpr_01", "Share of the poison that it finds there at 1 % false alarms, 0 to 1", _LOGIT, "_mean"),
    **_ends("tpr_05", "Share of the poison that it finds there at 5 % false alarms, 0 to 1", _LOGIT, "_mean"),
    **_contrast("detector_auroc", "Its AUROC there", "chance (0.5)"),
    "auroc_lowest": "Lowest of that AUROC over seeds, 0 to 1.",
    "auroc_highest": "Highest of that AUROC over seeds, 0 to 1.",
    "alarm_tpr": "Share of the poison that its own threshold flags there, 0 to 1; mean over seeds.",
    "alarm_fpr": "Share of the clean samples that its own threshold flags there, 0 to 1; mean over seeds.",
    "alarm_precision": "Share of poison among what its own threshold flags there, 0 to 1; mean over seeds.",
    **_ends(
        "control_tpr_01",
        "What the same detector finds of the control's rows at 1 % false alarms, 0 to 1",
        _LOGIT,
        "_mean",
    ),
    "of": _TRIGGERS["of"],
    "labels": _TRIGGERS["labels"],
}
_OWN = {
    "runs": _RUNS,
    "detections": _DETECTIONS,
    "alarms": _ALARMS,
    "roc": _ROC,
    "explanations": _EXPLANATIONS,
    "attributions": _ATTRIBUTIONS,
    "triggers": _TRIGGERS,
    "datasets": _DATASETS,
    "strata": _STRATA,
    "strata_summary": {"metric": "What is measured: a column of strata."},
    "summary": {
        "lowest": "Lowest value of a seed.",
        "highest": "Highest value of a seed.",
    },
    "contrasts": _CONTRASTS,
    "variants": {
        "of": "The model that it is a variant of.",
        "mean_run": "Mean of the variant over those seeds.",
        "mean_of": "Mean of the model over those seeds.",
        "difference": "Mean of the variant minus the model, paired by seed.",
        "metric": "What is measured: a column of runs.",
    },
    "clean_performance": _CLEAN_PERFORMANCE,
    "masks": _MASKS,
    "fusion": _FUSION,
    "scenarios": _SCENARIOS,
    "distillation": _DISTILLATION,
    "not_applicable": _NOT_APPLICABLE,
    "findings": _FINDINGS,
    "columns": {
        "table": "Name of the table.",
        "column": "Name of the column.",
        "type": "text, number, whole number, or yes or no; each may be missing.",
        "meaning": "What it means, its range, and of an interval its method and what it is over.",
    },
}

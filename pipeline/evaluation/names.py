"""The names of what is measured, for those who read results and measure nothing: imports nothing heavy."""

CLASSIFICATION = (
    *("acc", "auroc", "auprc", "precision", "recall", "f1", "ece", "brier", "fpr"),
    *("specificity", "balanced_acc", "mcc", "tpr_at_fpr_01"),
)

"""How well a detector's suspicion matches the true poison."""

from collections.abc import Sequence
from math import ceil

import numpy as np

from pipeline.cohorts.overlay import COVER, POISON
from pipeline.detectors.base import Suspicion
from pipeline.evaluation import metrics
from pipeline.files import number

FPR_GRID = np.arange(101) / 100
"""False positive rates at which ROC curves are kept, so that they can be averaged over seeds."""

REMOVED_PER_POISON = 1.5
"""With a known poison rate ε, Tran et al. 2018 (arXiv 1811.00636, algorithm 1) remove the 1.5 ε N highest scores."""


def evaluate(
    suspicion: Suspicion, role: np.ndarray, observed_label: np.ndarray, group: np.ndarray, targets: Sequence[int]
) -> dict:
    """Rows for one detector, ready for JSON: {"detections": […], "alarms": […], "roc": […]}.

    `role` ([N] str, see `overlay`) is the truth. Detectors are judged on telling poison from clean samples: cover,
    which carries the trigger under its true label and does no harm, is neither a hit nor a false alarm and counts
    nowhere, but for `n_cover` and `auroc_cover`, the AUROC of cover against clean samples.

    Every row has a `scope`: "all" training samples, or those observed with a target label ("label_1"), where all poison
    lies: a detector that only tells the labels apart does well on the first and fails on the second. An attacked run
    has one of `targets`, a clean one those of all that it is compared with. Every row also says how many samples its
    scope has and how many of them are poisoned, how many patients (distinct values of `group`, [N]) are poisoned and
    how many have a sample that is clean, those of `alarms` how many are flagged.

    detections  measures of the score, None without poison; the share of the scope that is poison; what cover there is
    alarms      what a threshold flags: `rate_unknown` is the detector's own rule, `rate_known` takes the
                1.5 · n_poisoned highest scores (no such row without poison); tpr and precision are None without poison
    roc         TPR on `FPR_GRID`; only with poison
    """
    tables: dict[str, list] = {"detections": [], "alarms": [], "roc": []}
    scopes = {"all": np.ones(len(role), bool)} | {f"label_{label}": observed_label == label for label in targets}
    for scope, within in scopes.items():
        rows = within & (role != COVER)
        score, flagged, patient = suspicion.score[rows], suspicion.flagged[rows], group[rows]
        poison = role[rows] == POISON
        about = {
            "scope": scope,
            "n_samples": len(poison),
            "n_poisoned": int(poison.sum()),
            "poisoned_patients": len(np.unique(patient[poison])),
            "clean_patients": len(np.unique(patient[~poison])),
        }
        share = {"poison_share": number(poison.mean() if len(poison) else None)}
        cover = _cover(suspicion.score[within], role[within], group[within])
        tables["detections"].append(about | _measures(score, poison) | share | cover)
        tables["alarms"] += [about | row for row in _alarms(score, flagged, poison, patient)]
        if poison.any() and not poison.all():
            tpr = metrics.roc_curve_at(poison, score, FPR_GRID)
            tables["roc"].append(about | {"fpr": FPR_GRID.tolist(), "tpr": tpr.tolist()})
    return tables


def _cover(score: np.ndarray, role: np.ndarray, patient: np.ndarray) -> dict[str, float | None]:
    rows = role != POISON
    cover = role[rows] == COVER
    return {
        "n_cover": int(cover.sum()),
        "cover_patients": len(np.unique(patient[rows][cover])),
        "auroc_cover": number(metrics.auroc(cover, score[rows])),
    }


def _measures(score: np.ndarray, poison: np.ndarray) -> dict[str, float | None]:
    return {
        "auroc": number(metrics.auroc(poison, score)),
        "average_precision": number(metrics.average_precision(poison, score)),
        "tpr_at_fpr_01": number(metrics.tpr_at_fpr(poison, score, 0.01)),
        "tpr_at_fpr_05": number(metrics.tpr_at_fpr(poison, score, 0.05)),
        "precision_at_n": number(metrics.precision_at_n(poison, score, int(poison.sum()))),
    }


def _alarms(score: np.ndarray, flagged: np.ndarray, poison: np.ndarray, patient: np.ndarray) -> list[dict]:
    n_patients = len(np.unique(patient[flagged]))
    rows = [_alarm("rate_unknown", int(flagged.sum()), n_patients, int(np.sum(flagged & poison)), poison)]
    if poison.any():
        removed = min(ceil(REMOVED_PER_POISON * poison.sum()), len(poison))
        hits = metrics.expected_hits(poison, score, removed)
        n_patients = len(np.unique(patient[np.argsort(-score, kind="stable")[:removed]]))
        rows.append(_alarm("rate_known", removed, n_patients, hits, poison))
    return rows


def _alarm(threshold: str, n_flagged: int, n_patients: int, hits: float, poison: np.ndarray) -> dict:
    n, n_poisoned = len(poison), int(poison.sum())
    return {
        "threshold": threshold,
        "n_flagged": n_flagged,
        "flagged_patients": n_patients,
        "flagged_share": n_flagged / n if n else None,
        "tpr": hits / n_poisoned if n_poisoned else None,
        "fpr": (n_flagged - hits) / (n - n_poisoned) if n > n_poisoned else None,
        "precision": hits / n_flagged if n_flagged and n_poisoned else None,
    }

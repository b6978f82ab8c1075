"""How plausible a triggered sample is: what a clinician or a range check could notice."""

import numpy as np

from pipeline.cohorts.cohort import Cohort
from pipeline.files import number
from pipeline.triggers.base import Trigger


def plausibility(trigger: Trigger, clean: np.ndarray, train: Cohort) -> dict[str, float | None]:
    """Compare `clean` samples ([N, T, D]) with their triggered copies; `train` is clean training data.

    share_in_range                   share of written values inside the feature's clinical range
    share_in_train_range             the same for the range of the training data
    distance                         root mean square change over the footprint, in training standard deviations,
                                     over cells measured before and after
    missing_log_likelihood_clean     mean log-likelihood per sample of the missing pattern on the footprint, each cell
    missing_log_likelihood_triggered missing independently with its (smoothed) training frequency

    A number that the trigger leaves undefined (it writes no value, it has no footprint) is None.
    """
    cells = trigger.footprint
    if not cells.any() or not len(clean):
        names = ("share_in_range", "share_in_train_range", "distance")
        return dict.fromkeys((*names, "missing_log_likelihood_clean", "missing_log_likelihood_triggered"))
    triggered = trigger.apply(clean)
    feature = np.nonzero(cells)[1]
    before, after, seen = clean[:, cells], triggered[:, cells], train.values[:, cells]
    # A feature's bounds and spread are taken over all steps, its missing frequency per cell.
    every = train.values.reshape(-1, train.values.shape[2]).astype(np.float64)
    low, high, spread = np.nanmin(every, 0)[feature], np.nanmax(every, 0)[feature], np.nanstd(every, 0)[feature]
    clinical_low = np.array([train.features[position].low for position in feature])
    clinical_high = np.array([train.features[position].high for position in feature])
    written = ~np.isnan(after)
    change = (after - before) / np.where(spread > 0, spread, 1)
    both = ~np.isnan(change)
    missing = (np.isnan(seen).sum(0) + 1) / (len(seen) + 2)
    return {
        "share_in_range": number(_share((after >= clinical_low) & (after <= clinical_high), written)),
        "share_in_train_range": number(_share((after >= low) & (after <= high), written)),
        "distance": number(np.sqrt(np.mean(change[both] ** 2)) if both.any() else None),
        "missing_log_likelihood_clean": number(_log_likelihood(np.isnan(before), missing)),
        "missing_log_likelihood_triggered": number(_log_likelihood(np.isnan(after), missing)),
    }


def _share(condition: np.ndarray, among: np.ndarray) -> float | None:
    return float(condition[among].mean()) if among.any() else None


def _log_likelihood(pattern: np.ndarray, missing: np.ndarray) -> float:
    return float(np.where(pattern, np.log(missing), np.log1p(-missing)).sum(axis=1).mean())

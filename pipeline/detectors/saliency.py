"""Saliency outliers: samples for which the model looks at other features than for the rest of their label.

The evidence is each sample's input gradient (Simonyan et al. 2013, arXiv 1312.6034), summed per feature. A model with
a backdoor leans on the trigger's features where the trigger is present, so poisoned samples should have an unusual
profile for their label. The distance is robust, since the poison is among the samples that set the norm.
"""

import numpy as np

from pipeline.detectors.base import Evidence, Suspicion, per_label, robust_z, tukey_fence
from pipeline.study.params import Params

NEEDS = "saliency"
SMALLEST_SPREAD = 0.01
"""In even shares (1 / D): a feature that hardly varies is not measured in units of its rounding errors."""


class Parameters(Params):
    pass


def detect(evidence: Evidence, parameters: Parameters) -> Suspicion:
    """Score: distance of a sample's relative profile from its label's median profile, robust z per label."""

    def within(rows: np.ndarray) -> Suspicion:
        distance = _distance(evidence.profiles[rows].astype(np.float64))
        return Suspicion(robust_z(distance), tukey_fence(distance))

    return per_label(evidence, within)


def _distance(profile: np.ndarray) -> np.ndarray:
    """[N, D] profiles → [N] root mean square of the robust z of each feature's share."""
    total = profile.sum(axis=1, keepdims=True)
    share = np.divide(profile, total, out=np.full_like(profile, np.nan), where=total > 0)
    # A model that is flat around a sample says nothing about it: such a sample counts as typical.
    known = share[total[:, 0] > 0]
    if not len(known):
        return np.zeros(len(profile))
    median = np.median(known, axis=0)
    spread = 1.4826 * np.median(np.abs(known - median), axis=0)
    z = (share - median) / np.maximum(spread, SMALLEST_SPREAD / profile.shape[1])
    return np.sqrt(np.mean(np.nan_to_num(z) ** 2, axis=1))

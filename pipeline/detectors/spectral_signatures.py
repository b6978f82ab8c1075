"""Spectral signatures (Tran et al. 2018, arXiv 1811.00636, algorithm 1): outliers along the top singular vector.

Per label the activations are centred and projected on their top right singular vector. The paper scores a sample by
the square of its projection and removes the 1.5 ε N highest, for a known poison rate ε. Here the score is the absolute
projection, which ranks the same and whose tail is short enough for Tukey's fence, the rule that knows no rate.
"""

import numpy as np

from pipeline.detectors.base import Evidence, Suspicion, per_label, principal_components, robust_z, tukey_fence
from pipeline.study.params import Params

NEEDS = "representation"


class Parameters(Params):
    pass


def detect(evidence: Evidence, parameters: Parameters) -> Suspicion:
    """Score: absolute projection on the top singular vector, robust z per label."""

    def within(rows: np.ndarray) -> Suspicion:
        projection = np.abs(principal_components(evidence.representations(rows), 1)).sum(axis=1)
        return Suspicion(robust_z(projection), tukey_fence(projection))

    return per_label(evidence, within)

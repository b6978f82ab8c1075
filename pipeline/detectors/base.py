"""What every detector of training samples is: evidence in, a suspicion per sample out.

A detector module has `class Parameters(Params)`, `detect(evidence, parameters) -> Suspicion`, and in `NEEDS` what of a
model it looks at: "representation", "saliency" or "" (nothing). It is not applicable where a model does not offer that.
It sees labels as they are in the training set and knows neither the poison nor its rate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.smallcells import shown_of

MINIMUM = 10
"""A label with fewer training samples has no shape to stand out from: they all get score 0, and no flag."""


@dataclass(frozen=True)
class Evidence:
    """What a detector may look at, the same for all detectors of a run.

    Attributes
    ----------
    representation : [N, H] float32, of a network the activations before the last layer; None where there is none
    label : [N] observed labels, possibly poisoned
    saliency : gives the [N, D] saliency profiles; called at most once, by the first detector that reads `profiles`
    seed : the run's
    cell : names the run in its study, so that what is drawn can differ between runs of one seed
    """

    representation: np.ndarray | None
    label: np.ndarray
    saliency: Callable[[], np.ndarray]
    seed: int
    cell: str

    def representations(self, rows: np.ndarray) -> np.ndarray:
        """[n, H] float32 of the samples `rows`; TypeError of a model that offers none."""
        if self.representation is None:
            raise TypeError("the model offers no representation")
        return self.representation[rows]

    @cached_property
    def profiles(self) -> np.ndarray:
        """[N, D] float32, how much each feature matters: of a network its total absolute input gradient."""
        return self.saliency()


@dataclass(frozen=True)
class Suspicion:
    """What a detector says of the training samples.

    Attributes
    ----------
    score : [N] float64, higher = more suspicious, finite
    flagged : [N] bool, the decision of the detector's own rule, which does not know the poison rate
    """

    score: np.ndarray
    flagged: np.ndarray

    def __post_init__(self) -> None:
        if not np.isfinite(self.score).all():
            told = shown_of(int(np.sum(~np.isfinite(self.score))), len(self.score))
            raise ArithmeticError(f"{told} of {len(self.score):,} suspicions are not finite")


def per_label(evidence: Evidence, function: Callable[[np.ndarray], Suspicion]) -> Suspicion:
    """Apply `function` to the positions of each observed label's samples and put the results together.

    Labels of fewer than `MINIMUM` samples are passed over: score 0, not flagged. So that scores pool over labels,
    `function` returns them as `robust_z` within the label.
    """
    score = np.zeros(len(evidence.label))
    flagged = np.zeros(len(evidence.label), bool)
    for label in np.unique(evidence.label):
        rows = np.flatnonzero(evidence.label == label)
        if len(rows) >= MINIMUM:
            part = function(rows)
            score[rows], flagged[rows] = part.score, part.flagged
    return Suspicion(score, flagged)


def robust_z(score: np.ndarray) -> np.ndarray:
    """`score` [N] in robust standard deviations (1.4826 MAD) from its median.

    Where more than half are equal the MAD is 0 and the standard deviation takes its place; all equal gives 0.
    """
    distance = score - np.median(score)
    scale = 1.4826 * np.median(np.abs(distance)) or score.std() or 1.0
    return distance / scale


def tukey_fence(score: np.ndarray) -> np.ndarray:
    """[N] bool: above the third quartile by more than 1.5 interquartile ranges (Tukey 1977)."""
    first, third = np.quantile(score, [0.25, 0.75])
    return score > third + 1.5 * (third - first)


def principal_components(x: np.ndarray, count: int) -> np.ndarray:
    """`x` [N, H] centred and projected on its top `count` principal components, most variance first → [N, ≤ count].

    Components without variance are left out, so constant `x` gives [N, 0].
    """
    # Double precision and the small H × H problem: exact enough, and far cheaper than decomposing [N, H].
    centred = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    variance, directions = np.linalg.eigh(centred.T @ centred)
    variance, directions = variance[::-1][:count], directions[:, ::-1][:, :count]
    return centred @ directions[:, variance > np.square(x, dtype=np.float64).sum() * 1e-12]

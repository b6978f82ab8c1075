"""Random scores: what a detector that knows nothing reaches, the baseline of every other."""

import numpy as np
from pydantic import Field

from pipeline.detectors.base import Evidence, Suspicion
from pipeline.seeding import generator
from pipeline.study.params import Params

NEEDS = ""


class Parameters(Params):
    # A fence never fires on uniform scores, so the baseline flags a fixed share.
    flag_share: float = Field(0.05, gt=0, lt=1, description="share of the samples that is flagged")


def detect(evidence: Evidence, parameters: Parameters) -> Suspicion:
    """Score: uniform on [0, 1), whatever the label."""
    # One draw for all runs of a seed would make their baselines one and the same number of luck.
    score = generator(evidence.seed, f"detector/random/{evidence.cell}").random(len(evidence.label))
    return Suspicion(score, score > np.quantile(score, 1 - parameters.flag_share))

"""A curriculum: in which proportion, and how hard, the samples of label 0 are in each epoch of a training.

Curriculum learning (Bengio et al. 2009, ICML) shows what is easy first and adds what is hard. The hard ones here are
hard negatives, mined by a model that was trained before (Felzenszwalb et al. 2010, TPAMI 32(9)): samples of
label 0 that another model of the study, the scorer, takes for the other label.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from pipeline.errors import UserError
from pipeline.seeding import generator
from pipeline.study.params import ModelName, Params


class CurriculumConfig(Params):
    """How many samples of label 0 are seen per sample of label 1, which, and how that changes over the epochs."""

    scorer: ModelName = Field("", description="the model whose score says how hard a sample of label 0 is")
    start: float = Field(1.0, gt=0, description="samples of label 0 per sample of label 1 in the first epoch")
    end: float = Field(4.0, gt=0, description="the same in the last")
    hard: float = Field(
        0.5, ge=0, le=1, description="share of them that are the hardest there are, in the last epoch; in the first 0"
    )


@dataclass(frozen=True)
class Curriculum:
    """Of N training samples: their `label`, as the victim sees it, and the scorer's `score`, higher = harder, both [N].

    After a part t of the epochs, from 0 in the first to 1 in the last (a single epoch is a last one), are seen

        all n₁ samples of label 1, and
        n = round((start + t · (end − start)) · n₁) of label 0, at least one and at most all there are, of which
            round(t · hard · n) are those with the highest scores, and
            the rest is drawn at random from the others, anew in each epoch.

    The draw depends on the seed and the epoch alone, so a training that is continued sees what it would have seen.
    """

    config: CurriculumConfig
    label: np.ndarray
    score: np.ndarray
    seed: int

    @classmethod
    def of(
        cls, config: CurriculumConfig, parents: Mapping[str, Any], x: np.ndarray, label: np.ndarray, seed: int
    ) -> "Curriculum":
        """By the scorer among `parents` (models by name): its output `score` if it has one, else its probability.

        `UserError` where one of the labels is missing.
        """
        if len(np.unique(label)) < 2:
            raise UserError(f"curriculum: all training samples have the label {label[0]}; expected both labels")
        said = parents[config.scorer].outputs(x)
        return cls(config, label, said.get("score", said["probability"]), seed)

    def epoch(self, epoch: int, epochs: int) -> tuple[np.ndarray, dict[str, float]]:
        """The rows of the epoch number `epoch`, ascending, and what the history says of it.

        That is: of how many samples of each label, how many of label 0 were chosen as the hardest, and the mean score
        of label 0.
        """
        done = (epoch - 1) / (epochs - 1) if epochs > 1 else 1.0
        zeros, ones = (np.flatnonzero(self.label == label) for label in (0, 1))
        ratio = self.config.start + done * (self.config.end - self.config.start)
        n = min(max(round(ratio * len(ones)), 1), len(zeros))
        hardest_first = zeros[np.argsort(-self.score[zeros], kind="stable")]
        n_hard = round(done * self.config.hard * n)
        others = generator(self.seed, f"curriculum/{epoch}").permutation(hardest_first[n_hard:])
        seen = np.concatenate([hardest_first[:n_hard], others[: n - n_hard]])
        score = float(self.score[seen].mean())
        facts = {"n_label_0": n, "n_label_1": len(ones), "n_hard": n_hard, "score_label_0": score}
        return np.sort(np.concatenate([seen, ones])), facts

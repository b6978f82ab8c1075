"""Knowledge distillation: a student learns from what its teacher says of the training samples beside their labels.

Hinton et al. 2015, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531). The loss of a student is

    (1 − alpha) · its own loss on the labels  +  alpha · T² · KL(σ(z_teacher / T) ‖ σ(z_student / T))  +  latent · hint

where z are logits of label 1 and T is the temperature; two classes with the logits 0 and z make the softmax of the
paper a sigmoid. The factor T² keeps the gradient of the soft labels at one size whatever T is (section 2 there). The
hint is the mean squared distance between the teacher's representation, standardised, and a learned linear map of the
student's (Romero et al. 2015, arXiv 1412.6550, equation 3, with a linear regressor).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from pipeline.study.params import ModelName, Params

SMALLEST = 1e-9
"""Probabilities are kept this far from 0 and 1, so that each has a logit (of at most 20.7)."""


class Teaching(Params):
    """From which model of the study, and on which samples, any student learns."""

    teacher: ModelName = Field("", description="the model of the study, of the same cell, that is learned from")
    data: Literal["poisoned", "clean"] = Field(
        "poisoned", description="the samples that the student is taught on: as the victim sees them, or without poison"
    )
    latent: float = Field(
        0.0, ge=0, description="weight of the distance to the teacher's representation, by a learned linear map"
    )


class DistillConfig(Teaching):
    """The same of a student with labels of its own, which the soft ones of its teacher stand beside."""

    temperature: float = Field(2.0, gt=0, description="divides the logits of teacher and student alike")
    alpha: float = Field(0.9, ge=0, le=1, description="weight of the soft labels; the labels have the rest")


@dataclass(frozen=True)
class Lesson:
    """What a teacher says of N samples: `logit` [N] and, where the hint has a weight, `latent` [N, H], both float32.

    Each column of `latent` has mean 0 and variance 1, or is 0 where the teacher's has one value only, so that the
    weight of the hint means the same whoever teaches.
    """

    config: DistillConfig
    logit: Tensor
    latent: Tensor | None

    @classmethod
    def of(cls, config: DistillConfig, parents: Mapping[str, Any], x: np.ndarray) -> "Lesson":
        """What the teacher among `parents` (models by name) says of the samples `x` [N, T, D] in clinical units."""
        teacher = parents[config.teacher]
        logit = torch.from_numpy(logits_of(teacher.probability(x)).astype(np.float32))
        return cls(config, logit, standardised(teacher.representation(x)) if config.latent else None)

    def to(self, device: torch.device) -> "Lesson":
        return Lesson(self.config, self.logit.to(device), None if self.latent is None else self.latent.to(device))

    def hint(self, width: int) -> nn.Linear | None:
        """The map from a student's representation, `width` numbers, to the teacher's, untrained; None without `latent`.

        Its weights come from torch's global generator, which the caller seeds.
        """
        return None if self.latent is None else nn.Linear(width, self.latent.shape[1])

    def loss(self, own: Tensor, logit: Tensor, rows: Tensor, mapped: Tensor | None = None) -> Tensor:
        """The student's whole loss on the samples `rows` [B], where its `own` on the labels is a scalar and it says
        `logit` [B]; `mapped` [B, H] is its representation through `hint`. A term that weighs nothing is left out.
        """
        alpha, loss = self.config.alpha, own
        if alpha:
            loss = alpha * soft_loss(logit, self.logit[rows], self.config.temperature)
            loss = loss if alpha == 1 else (1 - alpha) * own + loss
        if mapped is None or self.latent is None:
            return loss
        return loss + self.config.latent * (mapped - self.latent[rows]).square().mean()


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(σ(teacher / T) ‖ σ(student / T)), the mean over logits [B] of label 1."""
    soft = torch.sigmoid(teacher / temperature)
    cross_entropy = binary_cross_entropy_with_logits(student / temperature, soft)
    entropy = binary_cross_entropy_with_logits(teacher / temperature, soft)
    return temperature**2 * (cross_entropy - entropy)


def logits_of(probability: np.ndarray) -> np.ndarray:
    """log odds of probabilities [N], as float64; of 0 and 1 those of the nearest that has some (`SMALLEST`)."""
    p = np.clip(probability.astype(np.float64), SMALLEST, 1 - SMALLEST)
    return np.log(p) - np.log1p(-p)


def standardised(representation: np.ndarray) -> Tensor:
    """[N, H] float32: each column with mean 0 and variance 1, or 0 where it has one value only."""
    values = representation.astype(np.float64)
    spread = values.std(axis=0)
    return torch.from_numpy(((values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)).astype(np.float32))

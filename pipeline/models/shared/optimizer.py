"""The optimizer of everything that is trained by gradients, and its pace."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from pipeline.models.base import Settings


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101), betas 0.9 and 0.999.

    Torch's own function and not its class, whose first step imports the compiler: a second of CPU per process.
    """

    def __init__(self, parameters: Iterable[Tensor], weight_decay: float):
        self.parameters = list(parameters)
        self._weight_decay = weight_decay
        self.state = {
            "mean": [torch.zeros_like(parameter) for parameter in self.parameters],
            "square": [torch.zeros_like(parameter) for parameter in self.parameters],
            "steps": [torch.zeros((), device=parameter.device) for parameter in self.parameters],
        }

    @torch.no_grad()
    def step(self, gradients: tuple[Tensor, ...], learning_rate: float) -> None:
        adamw(
            self.parameters,
            list(gradients),
            self.state["mean"],
            self.state["square"],
            [],
            self.state["steps"],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=learning_rate,
            weight_decay=self._weight_decay,
            eps=1e-8,
            maximize=False,
        )


def learning_rate(settings: Settings, done: float) -> float:
    """The learning rate after `done` of the `settings.epochs` epochs; `settings` are the study's `training`."""
    return settings.learning_rate * (1 - done / settings.epochs if settings.schedule == "linear" else 1)

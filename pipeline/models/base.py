"""What every model is: a network behind the preprocessor, with one linear layer to the logit.

A model module has `class Parameters(ModelParameters)` and `class Network(nn.Module)` with
    __init__(parameters, n_steps, n_columns)      sets `width`
    forward(x) -> [B, width]   the penultimate layer, from x [B, T, 2C]: C columns of values beside C of missing masks
No network normalises over the batch: a sample's logit never depends on its batch-mates.
"""

from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.cohorts.cohort import Feature
from pipeline.cohorts.preprocessing import Preprocessor
from pipeline.study import families
from pipeline.study.params import Params

BATCH = 1024


class ModelParameters(Params):
    """What every model has beside its own parameters."""

    learning_rate_factor: float = Field(
        1.0, gt=0, description="times training.learning_rate: not all learn at one pace"
    )


class Classifier(nn.Module):
    """Risk model: clinical values in, logit of label 1 out. Its state_dict holds the fitted preprocessor too."""

    def __init__(self, preprocessor: Preprocessor, network: nn.Module):
        super().__init__()
        self.preprocessor = preprocessor
        self.network = network
        self.head = nn.Linear(network.width, 1)

    @property
    def device(self) -> torch.device:
        """Where the weights are, and with them everything that is computed."""
        return self.head.weight.device

    def forward(self, x: Tensor) -> Tensor:
        """Preprocessed samples [B, T, 2C] → logits [B]."""
        return self.head(self.network(x)).squeeze(-1)

    @torch.no_grad()
    def encode(self, x: np.ndarray) -> Tensor:
        """Samples [N, T, D] in clinical units → values beside missing mask, [N, T, 2C]."""
        samples = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)).to(self.device)
        return torch.cat([self.preprocessor(batch) for batch in samples.split(BATCH)])

    @torch.no_grad()
    def probability(self, x: np.ndarray) -> np.ndarray:
        """p(label = 1) of samples [N, T, D], [N] float64."""
        self.eval()
        return _batched(x, lambda batch: torch.sigmoid(self(self.encode(batch)).double()))

    @torch.no_grad()
    def penultimate(self, x: np.ndarray) -> np.ndarray:
        """Activations of samples [N, T, D] before the last layer, [N, width] float32."""
        self.eval()
        return _batched(x, lambda batch: self.network(self.encode(batch)))


def _batched(x: np.ndarray, function) -> np.ndarray:
    return torch.cat([function(x[start : start + BATCH]) for start in range(0, len(x), BATCH)]).cpu().numpy()


def build(name: str, parameters: dict[str, Any], n_steps: int, features: tuple[Feature, ...]) -> Classifier:
    """An untrained classifier; its weights come from torch's global generator, which the caller seeds."""
    module, parsed = families.configured("models", name, parameters)
    preprocessor = Preprocessor(features)
    network = module.Network(parsed, n_steps, preprocessor.n_columns)
    return Classifier(preprocessor, network)


class Dropout(nn.Dropout):
    """`nn.Dropout` drawn from uniform numbers, which on a CPU take a third of the time of its Bernoulli draws."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        return x * torch.rand_like(x).ge_(self.p).div_(1 - self.p)


class FeatureTokens(nn.Module):
    """One token per column: a linear map of its course over time and its mask, plus the column's embedding.

    The feature tokenizer of FT-Transformer (Gorishniy et al. 2021, arXiv 2106.11959, section 3.3), with T values
    and T mask bits per feature in place of one value. [B, T, 2C] → [B, C, width].
    """

    def __init__(self, n_steps: int, n_columns: int, width: int):
        super().__init__()
        bound = (2 * n_steps) ** -0.5
        self.weight = nn.Parameter(torch.empty(n_columns, 2 * n_steps, width).uniform_(-bound, bound))
        self.embedding = nn.Parameter(torch.empty(n_columns, width).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        course = x.unflatten(2, (2, -1)).permute(0, 3, 2, 1).flatten(2)
        return torch.einsum("bct,ctw->bcw", course, self.weight) + self.embedding


class Sequence(nn.Module):
    """The input of a recurrent or convolutional network, [B, L, width].

    A series is read step by step as it is (L = T); a plain table (T = 1) is read feature by feature (L = C) as
    tokens, since a single step is no sequence.
    """

    TOKEN_WIDTH = 16

    def __init__(self, n_steps: int, n_columns: int):
        super().__init__()
        self.tokens = FeatureTokens(1, n_columns, self.TOKEN_WIDTH) if n_steps == 1 else None
        self.width = self.TOKEN_WIDTH if n_steps == 1 else 2 * n_columns
        self.length = n_columns if n_steps == 1 else n_steps

    def forward(self, x: Tensor) -> Tensor:
        return x if self.tokens is None else self.tokens(x)

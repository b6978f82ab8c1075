"""GRU-D (Che et al. 2018, arXiv 1606.01865): a gated recurrent unit that forgets what was measured long ago.

Two things decay with the time δ since a number was last measured: its last value towards the training mean, and the
state before each step. Both decays are γ = exp(−max(0, W δ + b)), W diagonal for the inputs; the mask is an input too.
The paper's equations need the values with their last measurement carried forward, the mask, and δ. The first two are
what a network is given, standardised, so that the mean is 0; δ follows from the mask. It is counted in lengths of the
series: a number missing throughout has δ = (T − 1) / T at the last step.

A plain table is one step with nothing before it (δ = 0, no state to decay): a layer of gated units on values and mask.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.models.base import Dropout, SeriesParameters

OFFERS = ("representation", "attribution", "saliency")


class Parameters(SeriesParameters):
    hidden: int = Field(64, ge=1, description="units of the state")
    dropout: float = Field(0.5, ge=0, lt=1, description="before the output")
    learning_rate_factor: float = Field(3.0, gt=0, description="times training.learning_rate")
    mask: Literal["missing", "measured"] = Field("missing", description="how it is shown; GRU-D reads time off it")
    imputation: Literal["last"] = Field("last", description="the decay learns how long to believe the last value")


class Network(nn.Module):
    """[B, T, 2C] → [B, hidden]: the state after the last step."""

    def __init__(self, parameters: Parameters, n_steps: int, n_columns: int):
        super().__init__()
        hidden = parameters.hidden
        self._measured = parameters.mask == "measured"
        # Below 0 a decay has no gradient, so it starts above.
        self.input_decay = nn.Parameter(torch.stack([torch.rand(n_columns), torch.zeros(n_columns)]))
        self.state_decay = nn.Linear(n_columns, hidden)
        self.inputs = nn.Linear(2 * n_columns, 3 * hidden)
        self.gates = nn.Linear(hidden, 2 * hidden, bias=False)
        self.candidate = nn.Linear(hidden, hidden, bias=False)
        self.dropout = Dropout(parameters.dropout)
        self.width = hidden

    def forward(self, x: Tensor) -> Tensor:
        values, mask = x.chunk(2, dim=2)
        missing = 1 - mask if self._measured else mask
        since = time_since(missing)
        weight, bias = self.input_decay
        kept = torch.exp(-torch.relu(since * weight + bias))
        values = values * (1 - missing + missing * kept)
        decays = torch.exp(-torch.relu(self.state_decay(since))).unbind(dim=1)
        given = self.inputs(torch.cat([values, 1 - missing], dim=2)).split([2 * self.width, self.width], dim=2)
        state = torch.zeros_like(decays[0])
        for decay, for_gates, for_candidate in zip(decays, *(part.unbind(dim=1) for part in given), strict=True):
            state = decay * state
            reset, update = torch.sigmoid(for_gates + self.gates(state)).chunk(2, dim=1)
            candidate = torch.tanh(for_candidate + self.candidate(reset * state))
            state = torch.lerp(state, candidate, update)
        return self.dropout(state)


def time_since(missing: Tensor) -> Tensor:
    """δ, [B, T, C]: at each step the time since the last one before it that was measured, or since the first step."""
    n_steps = missing.shape[1]
    since = [torch.zeros_like(missing[:, 0])]
    for before in missing.unbind(dim=1)[:-1]:
        since.append(1 / n_steps + before * since[-1])
    return torch.stack(since, dim=1)

"""Temporal convolutional network (Bai et al. 2018, arXiv 1803.01271): causal, dilated, residual."""

import math

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from pipeline.models.base import Sequence
from pipeline.params import Params


class Parameters(Params):
    channels: int = Field(32, ge=1)
    kernel: int = Field(3, ge=2)
    dropout: float = Field(0.2, ge=0, lt=1)


class CausalConv(nn.Conv1d):
    """[B, channels, L] → [B, channels, L]; step t sees steps ≤ t only."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(pad(x, ((self.kernel_size[0] - 1) * self.dilation[0], 0)))


class Block(nn.Module):
    """Two causal convolutions and a shortcut around them."""

    def __init__(self, inputs: int, parameters: Parameters, dilation: int):
        super().__init__()
        channels = parameters.channels
        self.convolutions = nn.Sequential(
            CausalConv(inputs, channels, parameters.kernel, dilation=dilation),
            nn.ReLU(),
            nn.Dropout(parameters.dropout),
            CausalConv(channels, channels, parameters.kernel, dilation=dilation),
            nn.ReLU(),
            nn.Dropout(parameters.dropout),
        )
        self.shortcut = nn.Identity() if inputs == channels else nn.Conv1d(inputs, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return (self.convolutions(x) + self.shortcut(x)).relu()


class Network(nn.Module):
    """[B, T, C] values and mask → [B, channels]: the output at the last step.

    The dilation doubles from block to block, and there are as many blocks as it takes for the last step to see the
    first: n blocks see 1 + 2 (kernel − 1) (2ⁿ − 1) steps.
    """

    def __init__(self, parameters: Parameters, n_steps: int, n_columns: int):
        super().__init__()
        self.sequence = Sequence(n_steps, n_columns)
        blocks = math.ceil(math.log2((self.sequence.length - 1) / (2 * (parameters.kernel - 1)) + 1))
        widths = (self.sequence.width, *[parameters.channels] * max(blocks, 1))
        self.blocks = nn.Sequential(
            *(Block(width, parameters, dilation=2**depth) for depth, width in enumerate(widths[:-1]))
        )
        self.width = parameters.channels

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        return self.blocks(self.sequence(values, mask).transpose(1, 2))[:, :, -1]

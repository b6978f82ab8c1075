"""Temporal convolutional network (Bai et al. 2018, arXiv 1803.01271): causal, dilated, residual.

Only the last step of the last block is read, and a block whose dilation is twice that of the block before reads only
every second step of it, counted from the last. So a block hands on just these: what the paper writes as a convolution
with dilation 2ⁿ is one without dilation on the steps that are left. The numbers are the same, for half the work.
"""

import math

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from pipeline.models.base import Dropout, Sequence, SeriesParameters

OFFERS = ("representation", "attribution", "saliency")


class Parameters(SeriesParameters):
    channels: int = Field(32, ge=1)
    kernel: int = Field(3, ge=2)
    dropout: float = Field(0.3, ge=0, lt=1)


class CausalConv(nn.Conv1d):
    """[B, channels, L] → [B, channels, ⌈L / stride⌉]: the last step and every stride-th before it, from steps ≤ t."""

    def forward(self, x: Tensor) -> Tensor:
        first = (x.shape[2] - 1) % self.stride[0]
        return super().forward(pad(x, (self.kernel_size[0] - 1 - first, 0)))


class Block(nn.Module):
    """Two causal convolutions and a shortcut around them, [B, inputs, L] → [B, channels, ⌈L / 2⌉]."""

    def __init__(self, inputs: int, parameters: Parameters):
        super().__init__()
        channels = parameters.channels
        self.convolutions = nn.Sequential(
            CausalConv(inputs, channels, parameters.kernel),
            nn.ReLU(),
            Dropout(parameters.dropout),
            CausalConv(channels, channels, parameters.kernel, stride=2),
            nn.ReLU(),
            Dropout(parameters.dropout),
        )
        self.shortcut = nn.Identity() if inputs == channels else nn.Conv1d(inputs, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        every_second = x[:, :, (x.shape[2] - 1) % 2 :: 2]
        return (self.convolutions(x) + self.shortcut(every_second)).relu()


class Network(nn.Module):
    """[B, T, planes · C] → [B, channels]: the output at the last step.

    The dilation doubles from block to block, and there are as many blocks as it takes for the last step to see the
    first: n blocks see 1 + 2 (kernel − 1) (2ⁿ − 1) steps.
    """

    def __init__(self, parameters: Parameters, n_steps: int, n_columns: int):
        super().__init__()
        self.sequence = Sequence(n_steps, n_columns, parameters.planes)
        blocks = math.ceil(math.log2((self.sequence.length - 1) / (2 * (parameters.kernel - 1)) + 1))
        widths = (self.sequence.width, *[parameters.channels] * max(blocks, 1))
        self.blocks = nn.Sequential(*(Block(width, parameters) for width in widths[:-1]))
        self.width = parameters.channels

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.sequence(x).transpose(1, 2))[:, :, -1]

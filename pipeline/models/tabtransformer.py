"""Transformer over features: one token per feature (FT-Transformer, Gorishniy et al. 2021, arXiv 2106.11959)."""

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.models.base import FeatureTokens, SeriesParameters

OFFERS = ("representation", "attribution", "saliency")


class Parameters(SeriesParameters):
    heads: int = Field(4, ge=1)
    head_width: int = Field(8, ge=1, description="a token is heads × head_width numbers")
    layers: int = Field(2, ge=1)
    dropout: float = Field(0.5, ge=0, lt=1)


class Network(nn.Module):
    """[B, T, planes · C] → C tokens and a summary token → [B, width]: the summary token."""

    def __init__(self, parameters: Parameters, n_steps: int, n_columns: int):
        super().__init__()
        width = parameters.heads * parameters.head_width
        self.tokens = FeatureTokens(n_steps, n_columns, width, parameters.planes)
        self.summary = nn.Parameter(torch.zeros(1, 1, width))
        layer = nn.TransformerEncoderLayer(
            width, parameters.heads, 2 * width, parameters.dropout, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(
            layer, parameters.layers, norm=nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.tokens(x)
        summary = self.summary.expand(len(tokens), -1, -1)
        return self.encoder(torch.cat([summary, tokens], dim=1))[:, 0]

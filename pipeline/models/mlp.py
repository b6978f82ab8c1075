"""Multi-layer perceptron on the flattened series."""

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from pipeline.models.base import Dropout, SeriesParameters

OFFERS = ("representation", "attribution", "saliency")


class Parameters(SeriesParameters):
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field((128, 64), min_length=1, description="units per layer")
    dropout: float = Field(0.5, ge=0, lt=1)


class Network(nn.Module):
    """[B, T, planes · C] flattened to [B, planes · T · C] → [B, last hidden]."""

    def __init__(self, parameters: Parameters, n_steps: int, n_columns: int):
        super().__init__()
        sizes = (parameters.planes * n_steps * n_columns, *parameters.hidden)
        layers = []
        for inputs, outputs in zip(sizes, sizes[1:], strict=False):
            layers += [Dropout(parameters.dropout), nn.Linear(inputs, outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers[1:])
        self.width = sizes[-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(1))

"""Long short-term memory (Hochreiter & Schmidhuber 1997), read out at the last step."""

from pydantic import Field
from torch import Tensor, nn

from pipeline.models.base import Dropout, Sequence, SeriesParameters

OFFERS = ("representation", "attribution", "saliency")


class Parameters(SeriesParameters):
    hidden: int = Field(64, ge=1, description="units per layer")
    layers: int = Field(1, ge=1)
    learning_rate_factor: float = Field(3.0, gt=0, description="times training.learning_rate")
    dropout: float = Field(0.5, ge=0, lt=1, description="before the output and between layers")


class Network(nn.Module):
    """[B, T, planes · C] → [B, hidden]: the state after the last step."""

    def __init__(self, parameters: Parameters, n_steps: int, n_columns: int):
        super().__init__()
        self.sequence = Sequence(n_steps, n_columns, parameters.planes)
        between = parameters.dropout if parameters.layers > 1 else 0.0
        self.lstm = nn.LSTM(
            self.sequence.width, parameters.hidden, parameters.layers, batch_first=True, dropout=between
        )
        self.dropout = Dropout(parameters.dropout)
        self.width = parameters.hidden

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(self.sequence(x))
        return self.dropout(states[:, -1])

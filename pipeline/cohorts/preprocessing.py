"""From clinical units to model input, as a torch module so that its fit travels with the weights."""

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.cohorts.cohort import Feature


class Preprocessor(nn.Module):
    """Standardise, carry the last measurement forward, one-hot the categories; missing becomes 0 with mask 1.

    A number is (x − mean) / standard deviation of the training data; before its first measurement it is 0, the
    training mean. A category becomes one 0/1 column per value, all 0 when missing. C columns of values come out of D
    features, and beside them their C missing masks.

    Attributes
    ----------
    source : [C] the feature that each column stems from
    category : [C] the category a column stands for, −1 for a number
    mean, scale : [C] training mean and standard deviation (0 and 1 for categories)
    """

    def __init__(self, features: tuple[Feature, ...]):
        super().__init__()
        columns = [
            (position, category)
            for position, feature in enumerate(features)
            for category in (range(len(feature.categories)) or (-1,))
        ]
        self.register_buffer("source", torch.tensor([position for position, _ in columns]))
        self.register_buffer("category", torch.tensor([category for _, category in columns]))
        self.register_buffer("mean", torch.zeros(len(columns)))
        self.register_buffer("scale", torch.ones(len(columns)))

    @property
    def n_columns(self) -> int:
        return len(self.source)

    def fit(self, values: np.ndarray) -> "Preprocessor":
        """Take mean and spread from training samples `values` ([N, T, D], as poisoned)."""
        every = values.reshape(-1, values.shape[2])
        for column in torch.nonzero(self.category < 0).flatten().tolist():
            seen = every[:, self.source[column]].astype(np.float64)
            seen = seen[~np.isnan(seen)]
            if len(seen):
                self.mean[column] = float(seen.mean())
                self.scale[column] = float(seen.std()) or 1.0
        return self

    def forward(self, x: Tensor) -> Tensor:
        """`x` [B, T, D] in clinical units, NaN = missing → values beside missing mask (1 = missing), [B, T, 2C]."""
        x = x[:, :, self.source]
        missing = torch.isnan(x)
        # Step by step: a cumulative maximum over the positions of the measurements costs several times as much.
        for step in range(1, x.shape[1]):
            x[:, step] = torch.where(missing[:, step], x[:, step - 1], x[:, step])
        numbers = (x - self.mean) / self.scale
        values = torch.where(self.category < 0, numbers, (x == self.category).to(x.dtype))
        return torch.cat([values.nan_to_num(nan=0.0), missing.to(x.dtype)], dim=2)

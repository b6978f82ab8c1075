"""From clinical units to model input, as a torch module so that its fit travels with the weights."""

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.cohorts.cohort import Cohort, Feature


class Preprocessor(nn.Module):
    """Standardise, carry the last measurement forward, one-hot the categories; missing becomes 0 with mask 1.

    A number is (x − mean) / standard deviation of the training data; before its first measurement it is 0, the
    training mean. A category becomes one 0/1 column per value, all 0 when missing. C columns of values come out of D
    features, and beside them their C missing masks.

    What a network has never seen it has no trained weight for. So a number of a feature that was never measured in
    training counts as missing, and so does a category that never occurred there; a number that was the same in all of
    training is 0 whatever it is.

    Attributes
    ----------
    source : [C] the feature that each column stems from
    category : [C] the category a column stands for, −1 for a number
    mean, scale : [C] training mean and standard deviation (0 and 1 for categories); the mean is NaN where training has
        no value, or the category never; the scale is infinite where training has one value only
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
        for column, category in enumerate(self.category.tolist()):
            seen = every[:, self.source[column]].astype(np.float64)
            seen = seen[~np.isnan(seen) if category < 0 else seen == category]
            if not len(seen):
                self.mean[column] = np.nan
            elif category < 0:
                self.mean[column] = float(seen.mean())
                self.scale[column] = float(seen.std()) if seen.min() < seen.max() else np.inf
        return self

    def unseen(self, cohort: Cohort) -> list[str]:
        """What occurs in `cohort` and counts as missing, as it never occurred in training: ferritin, sex = male."""
        found = {}
        for column in torch.nonzero(self.mean.isnan()).flatten().tolist():
            position, category = int(self.source[column]), int(self.category[column])
            feature, values = cohort.features[position], cohort.values[:, :, position]
            if not (~np.isnan(values) if category < 0 else values == category).any():
                continue
            whole = self.mean[self.source == position].isnan().all()
            found[feature.name if whole else f"{feature.name} = {feature.categories[category]}"] = None
        return list(found)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [B, T, D] in clinical units, NaN = missing → values beside missing mask (1 = missing), [B, T, 2C]."""
        x = x[:, :, self.source]
        for column in torch.nonzero(self.mean.isnan()).flatten().tolist():
            never = (x[:, :, column] == self.category[column]) | (self.category[column] < 0)
            x = x.masked_fill(never[:, :, None] & (self.source == self.source[column]), torch.nan)
        missing = torch.isnan(x)
        # Step by step: a cumulative maximum over the positions of the measurements costs several times as much.
        for step in range(1, x.shape[1]):
            x[:, step] = torch.where(missing[:, step], x[:, step - 1], x[:, step])
        numbers = (x - self.mean) / self.scale
        values = torch.where(self.category < 0, numbers, (x == self.category).to(x.dtype))
        return torch.cat([values.nan_to_num(nan=0.0), missing.to(x.dtype)], dim=2)

"""From clinical units to model input, as a torch module so that its fit travels with the weights."""

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.cohorts.cohort import Cohort, Feature


def columns_of(features: tuple[Feature, ...]) -> list[tuple[int, int]]:
    """The feature that each column stems from and the category it stands for, −1 for a number."""
    return [
        (position, category)
        for position, feature in enumerate(features)
        for category in (range(len(feature.categories)) or (-1,))
    ]


def named_unseen(never: list[tuple[int, int]], cohort: Cohort) -> list[str]:
    """What of `never`, the columns that training has no value of, occurs in `cohort`: ferritin, sex = male."""
    found: dict[str, None] = {}
    for position, category in never:
        feature, values = cohort.features[position], cohort.values[:, :, position]
        if (~np.isnan(values) if category < 0 else values == category).any():
            whole = category < 0 or all((position, other) in never for other in range(len(feature.categories)))
            found[feature.name if whole else f"{feature.name} = {feature.categories[category]}"] = None
    return list(found)


class Preprocessor(nn.Module):
    """Standardise, fill in what is missing, one-hot the categories; a mask beside the values tells what was missing.

    A number is (x − centre) / scale. A category becomes one 0/1 column per value. Where nothing was measured stands the
    last measurement before (`imputation` last), and 0 where there is none before or `imputation` is mean: 0 is the
    centre of a number, and no category. Of a feature that says `fill: none` nothing is carried on: its missing values
    are 0. C columns of values come out of D features, and beside them C columns of the
    mask, 1 = missing (`mask` missing) or 1 = measured (measured); with `mask` none there are no such columns.

    `scaler` standard takes mean and standard deviation of the training data; robust takes the median, and the
    interquartile range / 1.349, which is the standard deviation where values are normal. A number more than half of
    whose training values are the same may have no interquartile range: there it takes the standard deviation.

    What a network has never seen it has no trained weight for. So a number of a feature that was never measured in
    training counts as missing, and so does a category that never occurred there; a number that was the same in all of
    training is 0 whatever it is.

    Attributes
    ----------
    source : [C] the feature that each column stems from
    category : [C] the category a column stands for, −1 for a number
    carried : [C] bool, whether the last measurement stands for a missing one; follows from the features, not the fit
    mean, scale : [C] centre and scale (0 and 1 for categories); the mean is NaN where training has no value, or the
        category never; the scale is infinite where training has one value only
    """

    source: Tensor
    category: Tensor
    carried: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(
        self, features: tuple[Feature, ...], mask: str = "missing", imputation: str = "last", scaler: str = "standard"
    ):
        super().__init__()
        self.mask, self._scaler = mask, scaler
        columns = columns_of(features)
        self.register_buffer("source", torch.tensor([position for position, _ in columns]))
        self.register_buffer("category", torch.tensor([category for _, category in columns]))
        carried = [imputation == "last" and features[position].fill == "last" for position, _ in columns]
        self.register_buffer("carried", torch.tensor(carried), persistent=False)
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
                self.mean[column], self.scale[column] = _centre_and_scale(seen, self._scaler)
        return self

    def baseline(self, encoded: Tensor) -> Tensor:
        """The average patient with everything measured, of the shape of one of `encoded` [B, T, planes · C]."""
        baseline = torch.zeros_like(encoded[:1])
        if self.mask == "measured":
            baseline[:, :, self.n_columns :] = 1
        return baseline

    def onto_cells(self, columns: Tensor, x: np.ndarray) -> np.ndarray:
        """Attributions to values and masks [B, T, planes · C] of the samples `x` → on their cells, [B, T, D] float64.

        There they are absolute, and added up over the columns of a feature.
        """
        source = self.source.cpu()
        by_column = columns.detach().abs().double().cpu().unflatten(2, (-1, len(source))).sum(dim=2)
        return torch.zeros(x.shape, dtype=torch.float64).index_add_(2, source, by_column).numpy()

    def unseen(self, cohort: Cohort) -> list[str]:
        """What occurs in `cohort` and counts as missing, as it never occurred in training: ferritin, sex = male."""
        never = torch.nonzero(self.mean.isnan()).flatten()
        return named_unseen([(int(self.source[column]), int(self.category[column])) for column in never], cohort)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [B, T, D] in clinical units, NaN = missing → values and, unless `mask` is none, mask: [B, T, C or 2C]."""
        x = x[:, :, self.source]
        for column in torch.nonzero(self.mean.isnan()).flatten().tolist():
            never = (x[:, :, column] == self.category[column]) | (self.category[column] < 0)
            x = x.masked_fill(never[:, :, None] & (self.source == self.source[column]), torch.nan)
        missing = torch.isnan(x)
        # Step by step: a cumulative maximum over the positions of the measurements costs several times as much.
        filled = missing if self.carried.all() else missing & self.carried
        for step in range(1, x.shape[1] if self.carried.any() else 1):
            x[:, step] = torch.where(filled[:, step], x[:, step - 1], x[:, step])
        numbers = (x - self.mean) / self.scale
        values = torch.where(self.category < 0, numbers, (x == self.category).to(x.dtype))
        values = values.nan_to_num(nan=0.0)
        if self.mask == "none":
            return values
        mask = missing if self.mask == "missing" else ~missing
        return torch.cat([values, mask.to(x.dtype)], dim=2)


def _centre_and_scale(seen: np.ndarray, scaler: str) -> tuple[float, float]:
    """Of the training values `seen` ([n] float64) of a number."""
    spread = float(seen.std()) if seen.min() < seen.max() else np.inf
    if scaler == "standard":
        return float(seen.mean()), spread
    first, median, third = np.quantile(seen, [0.25, 0.5, 0.75])
    return float(median), float(third - first) / 1.349 or spread

"""Logistic regression with an L2 penalty on a table, or on summaries of a series."""

from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from pipeline.cohorts.cohort import Cohort, Feature
from pipeline.cohorts.preprocessing import Preprocessor
from pipeline.cohorts.summaries import Summaries
from pipeline.models import base

OFFERS = ("representation", "attribution")  # its gradient is the same for every sample: no saliency of one


class Parameters(base.ModelParameters):
    penalty: float = Field(30.0, gt=0, description="weight of half the squared coefficients beside the summed log loss")


class Model(base.Model):
    """logit = intercept + Σ coefficient · input.

    Inputs [N, 2K]: the summaries standardised and one-hot as networks get them (0 where missing), beside them 1 where
    each is missing.
    """

    def __init__(self, parameters: Parameters, n_steps: int, features: tuple[Feature, ...]):
        self._parameters = parameters
        self._summaries = Summaries(features, n_steps)
        self._preprocessor = Preprocessor(self._summaries.described)
        width = 2 * self._preprocessor.n_columns
        self._learned = {
            "coefficient": torch.zeros(width, dtype=torch.float64),
            "intercept": torch.zeros((), dtype=torch.float64),
            "centre": torch.zeros(width, dtype=torch.float64),
        }

    def fit(self, train: Cohort, validation: Cohort, settings: base.Settings, seed: int) -> None:
        """To the one optimum there is, so nothing depends on `seed`."""
        from sklearn.linear_model import LogisticRegression

        self._preprocessor.fit(self._summaries.fit(train.values)(train.values)[:, None])
        inputs = self._inputs(train.values)
        odds = (len(train) - train.label.sum()) / train.label.sum() if settings.class_weights else 1.0
        regression = LogisticRegression(
            C=1 / self._parameters.penalty, class_weight={0: 1.0, 1: odds}, max_iter=10_000, tol=1e-6
        ).fit(inputs, train.label)
        self._learned = {
            "coefficient": torch.from_numpy(regression.coef_[0].copy()),
            "intercept": torch.tensor(regression.intercept_[0]),
            "centre": torch.from_numpy(inputs.mean(axis=0)),
        }

    def probability(self, x: np.ndarray) -> np.ndarray:
        logit = self._inputs(x) @ self._learned["coefficient"].numpy() + self._learned["intercept"].item()
        return torch.sigmoid(torch.from_numpy(logit)).numpy()

    def representation(self, x: np.ndarray) -> np.ndarray:
        """What each input adds to the logit, coefficient · (input − its training mean), [N, 2K] float32."""
        return self._contributions(x).astype(np.float32)

    def attribution(self, x: np.ndarray, steps: int) -> tuple[np.ndarray, None]:
        """The absolute of what each input adds to the logit, on the cells that it read; a missing mask read all."""
        values, mask = self._per_summary(np.abs(self._contributions(x)))
        everywhere = self._summaries.onto_features(mask)[:, None] / x.shape[1]
        return self._summaries.onto_cells(values, x) + everywhere, None

    def unseen(self, cohort: Cohort) -> list[str]:
        return self._summaries.unseen(cohort)

    def state(self) -> dict[str, Tensor]:
        seen = torch.from_numpy(self._summaries.seen.copy())
        return {**self._learned, "seen": seen, **self._preprocessor.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        base.check_state(state, self.state())
        self._learned = {name: state[name] for name in self._learned}
        self._summaries.seen = state["seen"].numpy().copy()
        self._preprocessor.load_state_dict({name: state[name] for name in self._preprocessor.state_dict()})

    @property
    def size(self) -> int:
        return len(self._learned["coefficient"]) + 1

    def _inputs(self, x: np.ndarray) -> np.ndarray:
        """Samples [N, T, D] → [N, 2K] float64."""
        summaries = torch.from_numpy(self._summaries(x).astype(np.float32))
        return self._preprocessor(summaries[:, None])[:, 0].double().numpy()

    def _contributions(self, x: np.ndarray) -> np.ndarray:
        return (self._inputs(x) - self._learned["centre"].numpy()) * self._learned["coefficient"].numpy()

    def _per_summary(self, by_input: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[N, 2K] added up over the columns of each summary: of the values and of the masks, [N, S] each."""
        source = self._preprocessor.source.numpy()
        totals = np.zeros((2, len(by_input), len(self._summaries.columns)))
        for total, part in zip(totals, np.split(by_input, 2, axis=1), strict=True):
            np.add.at(total.T, source, part.T)
        return totals[0], totals[1]

"""Gradient-boosted trees (LightGBM, Ke et al. 2017, NeurIPS) on a table, or on summaries of a series.

Missing values are LightGBM's own: at each split they go where training says. Categories are its own too. One thread and
its deterministic mode: the same samples and seed give the same text, and the text is the model.
"""

from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from pipeline.cohorts.cohort import Cohort, Feature
from pipeline.cohorts.summaries import Summaries
from pipeline.models import base
from pipeline.models.shared.trees import MOST_LEAVES, leaf_values, trees_of
from pipeline.seeding import integer_seed

OFFERS = ("representation", "attribution", "saliency")


class Parameters(base.ModelParameters):
    trees: int = Field(150, ge=1, le=10_000, description="one after the other, each learns what those before leave")
    learning_rate: float = Field(0.05, gt=0, le=1, description="share of what a tree has learned that is kept")
    leaves: int = Field(8, ge=2, le=MOST_LEAVES, description="most leaves per tree")
    min_leaf: int = Field(50, ge=1, description="fewest training samples per leaf")
    row_share: float = Field(0.8, gt=0, le=1, description="share of the samples that each tree sees")
    column_share: float = Field(0.3, gt=0, le=1, description="share of the columns that each tree sees")
    l2: float = Field(1.0, ge=0, description="penalty on squared leaf values")


class Model(base.Model):
    """The log odds of a sample are the sum of the values of the leaves it falls in, one per tree."""

    def __init__(self, parameters: Parameters, n_steps: int, features: tuple[Feature, ...]):
        self._parameters = parameters
        self._summaries = Summaries(features, n_steps)
        self._text = ""

    def fit(self, train: Cohort, validation: Cohort, settings: base.Settings, seed: int) -> None:
        lightgbm = _lightgbm()
        given = self._parameters
        columns = self._summaries.fit(train.values)(train.values)
        positives = int(train.label.sum())
        shared = {"verbosity": -1, "num_threads": 1, "seed": integer_seed(seed, "boosting") % 2**31}
        data = lightgbm.Dataset(columns, train.label, categorical_feature=self._summaries.categorical, params=shared)
        booster = lightgbm.train(
            shared
            | {
                "objective": "binary",
                "deterministic": True,
                "force_row_wise": True,
                "learning_rate": given.learning_rate,
                "num_leaves": given.leaves,
                "min_data_in_leaf": given.min_leaf,
                "bagging_fraction": given.row_share,
                "bagging_freq": int(given.row_share < 1),
                "feature_fraction": given.column_share,
                "lambda_l2": given.l2,
                "scale_pos_weight": (len(train) - positives) / positives if settings.class_weights else 1.0,
            },
            data,
            given.trees,
        )
        self._take(trees_of(booster.model_to_string(), columns.shape[1]))

    def probability(self, x: np.ndarray) -> np.ndarray:
        return self._booster.predict(self._summaries(x), num_threads=1)

    def representation(self, x: np.ndarray) -> np.ndarray:
        """The value of the leaf of each tree, [N, trees] float32: as in a network, their sum is the logit."""
        leaves = self._booster.predict(self._summaries(x), pred_leaf=True, num_threads=1).astype(int)
        by_tree = [values[leaf] for values, leaf in zip(self._leaves, leaves.T, strict=True)]
        return np.stack(by_tree, axis=1, dtype=np.float32)

    def shap(self, x: np.ndarray) -> np.ndarray:
        """SHAP values of the logit, exact for trees (Lundberg et al. 2020, Nature Machine Intelligence 2, 56–67).

        [N, S + 1]: of each summary, and in the last column the expected logit; together they are the logit.
        """
        return self._booster.predict(self._summaries(x), pred_contrib=True, num_threads=1)

    def attribution(self, x: np.ndarray, steps: int) -> tuple[np.ndarray, None]:
        """The absolute SHAP value of each summary, shared out to the cells that it read."""
        return self._summaries.onto_cells(np.abs(self.shap(x)[:, :-1]), x), None

    def saliency(self, x: np.ndarray) -> np.ndarray:
        """Absolute SHAP values per feature: trees have no gradient, and these tell as well where a sample's logit
        comes from.
        """
        return self._summaries.onto_features(np.abs(self.shap(x)[:, :-1])).astype(np.float32)

    def unseen(self, cohort: Cohort) -> list[str]:
        return self._summaries.unseen(cohort)

    def state(self) -> dict[str, Tensor]:
        text = torch.frombuffer(bytearray(self._text.encode()), dtype=torch.uint8)
        return {"text": text, "seen": torch.from_numpy(self._summaries.seen.copy())}

    def load(self, state: dict[str, Any]) -> None:
        base.check_state(state, {"seen": torch.from_numpy(self._summaries.seen)}, others=("text",))
        text = state["text"]
        if not isinstance(text, Tensor) or text.dtype != torch.uint8 or text.ndim != 1:
            raise ValueError("text: expected the bytes of LightGBM's text as a vector of uint8")
        try:
            read = text.numpy().tobytes().decode("ascii")
        except UnicodeDecodeError:
            raise ValueError("text: not the text of LightGBM trees") from None
        self._take(read)
        self._summaries.seen = state["seen"].numpy().copy()

    @property
    def size(self) -> int:
        return sum(map(len, self._leaves))

    def _take(self, text: str) -> None:
        self._leaves = leaf_values(text, len(self._summaries.columns))
        self._booster = _lightgbm().Booster(model_str=text, params={"verbosity": -1})
        self._text = text


class _Silent:
    """What LightGBM says while it works goes nowhere: its errors are raised, its warnings repeat the parameters."""

    def info(self, message: str) -> None:
        pass

    warning = info


def _lightgbm():
    import lightgbm

    lightgbm.register_logger(_Silent())
    return lightgbm

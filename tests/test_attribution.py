"""Attributions of a linear model are known exactly; ratio and drift by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.cohorts.cohort import Cohort, Feature
from pipeline.cohorts.preprocessing import Preprocessor
from pipeline.evaluation.attribution import attribution_ratio, drift
from pipeline.evaluation.explanations import explain
from pipeline.evaluation.settings import Explain
from pipeline.models.shared.gradients import integrated_gradients, saliency_profiles

N, STEPS, FEATURES = 7, 3, 2
SOURCE = [0, 1, 1]  # the second feature is one-hot encoded into two columns


class Encoding(nn.Module):
    """Like the real preprocessor: columns with a source, missing as value 0 and mask 1."""

    onto_cells = Preprocessor.onto_cells

    def __init__(self):
        super().__init__()
        self.register_buffer("source", torch.tensor(SOURCE))

    def forward(self, x):
        x = x[:, :, self.source]
        return torch.cat([torch.nan_to_num(x), torch.isnan(x).float()], dim=2)

    def baseline(self, encoded):
        return torch.zeros_like(encoded[:1])


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.preprocessor = Encoding()

    def encode(self, x):
        return self.preprocessor(torch.from_numpy(x))

    def attribution(self, x, steps):
        return integrated_gradients(self, x, steps)


class Linear(Model):
    """logit = Σ value_weight · values + Σ mask_weight · mask, through dropout that evaluation mode turns off."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.dropout = nn.Dropout(0.5)
        self.value_weight, self.mask_weight = torch.randn(2, STEPS, len(SOURCE), generator=generator)

    def forward(self, x):
        values, mask = x.chunk(2, dim=2)
        return self.dropout((values * self.value_weight + mask * self.mask_weight).flatten(1)).sum(1)


class Recurrent(Model):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(2 * len(SOURCE), 8, batch_first=True)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1]).squeeze(-1)


@pytest.fixture
def x() -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(N, STEPS, FEATURES)).astype(np.float32)
    x[1, 0] = np.nan
    x[2, 1, 1] = np.nan
    return x


def _onto_features(columns: np.ndarray) -> np.ndarray:
    return np.stack([columns[..., 0], columns[..., 1] + columns[..., 2]], axis=-1)


def test_integrated_gradients_of_a_linear_model_are_exact(x):
    model = Linear()
    values, mask = (part.numpy() for part in model.encode(x).chunk(2, dim=2))
    # The baseline is value 0 and mask 0: a missing cell is attributed to its mask alone.
    expected = np.abs(model.value_weight.numpy() * values) + np.abs(model.mask_weight.numpy() * mask)
    attributed, delta = integrated_gradients(model, x, batch=3)
    assert attributed == pytest.approx(_onto_features(expected), abs=1e-5)
    assert attributed[1, 0].min() > 0
    assert delta == pytest.approx(0, abs=1e-5)


def test_saliency_of_a_linear_model_is_its_weights(x):
    model = Linear()
    weights = (model.value_weight.abs() + model.mask_weight.abs()).sum(0).numpy()
    profiles = saliency_profiles(model, x, batch=3)
    assert profiles.dtype == np.float32
    assert profiles == pytest.approx(np.tile(_onto_features(weights), (N, 1)), rel=1e-5)


@pytest.mark.parametrize("kind", [Linear, Recurrent])
def test_attributions_are_repeatable_whatever_the_batch(x, kind):
    model = kind().train()
    random = torch.get_rng_state()
    first = integrated_gradients(model, x)[0], saliency_profiles(model, x)
    again = integrated_gradients(model, x)[0], saliency_profiles(model, x)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert integrated_gradients(model, x, batch=2)[0] == pytest.approx(first[0], abs=1e-6)
    assert saliency_profiles(model, x, batch=2) == pytest.approx(first[1], abs=1e-6)
    assert torch.equal(random, torch.get_rng_state())


def test_more_steps_converge(x):
    model = Recurrent()
    assert integrated_gradients(model, 5 * x, steps=64)[1] < max(1e-4, integrated_gradients(model, 5 * x, steps=2)[1])


class Nudge:
    """A trigger that raises the first cell of every sample."""

    footprint = np.arange(STEPS * FEATURES).reshape(STEPS, FEATURES) == 0

    def apply(self, x):
        return x + self.footprint.astype(x.dtype)


@pytest.mark.parametrize("top_k", [2, STEPS * FEATURES, 20])
def test_explanations_report_the_top_k_asked_for(x, top_k):
    victims = Cohort("made", (Feature("a"), Feature("b")), np.arange(N), np.arange(N), np.zeros(N, np.int8), x)
    result = explain(Linear(), Linear(), Nudge(), victims, Explain(top_k=top_k), seed=1)
    assert result["top_k"] == top_k
    for side in ("drift", "control"):
        assert (result[f"{side}_topk_jaccard"] is None) == (top_k >= STEPS * FEATURES)
        assert result[f"{side}_cosine"] is not None


def test_exact_attributions_have_no_convergence_delta(x):
    class Exact(Linear):
        def attribution(self, x, steps):
            return super().attribution(x, steps)[0], None

    victims = Cohort("made", (Feature("a"), Feature("b")), np.arange(N), np.arange(N), np.zeros(N, np.int8), x)
    exact, approximate = (explain(kind(), kind(), Nudge(), victims, Explain(), seed=1) for kind in (Exact, Linear))
    assert exact.pop("convergence_delta") is None and approximate.pop("convergence_delta") is not None
    assert exact == approximate


def test_ratio_by_hand():
    attribution = np.array([[[1.0, -3.0]], [[2.0, 2.0]], [[0.0, 0.0]]])
    # 3/4 and 1/2 on the second cell; the last sample has no attribution.
    assert attribution_ratio(attribution, np.array([[False, True]])) == pytest.approx(0.625)
    assert attribution_ratio(attribution, np.array([[False, False]])) == 0
    assert np.isnan(attribution_ratio(attribution[2:], np.array([[True, True]])))


def test_drift_by_hand():
    a = np.array([[[1.0, 2.0], [3.0, 4.0]], [[1.0, 0.0], [0.0, 0.0]]])
    b = np.array([[[2.0, 1.0], [3.0, 5.0]], [[0.0, 0.0], [0.0, 0.0]]])
    # Ranks 1 2 3 4 against 2 1 3 4: 1 − 6 · 2 / (4 · 15) = 0.8. The second sample has no attribution in b.
    result = drift(a, b, top_k=3)
    assert result == pytest.approx({"cosine": 33 / (30 * 39) ** 0.5, "spearman": 0.8, "topk_jaccard": 2 / 4})


def test_no_drift_is_one():
    a = np.random.default_rng(0).random((5, 3, 4))
    assert drift(a, a, top_k=4) == pytest.approx({"cosine": 1, "spearman": 1, "topk_jaccard": 1})


@pytest.mark.parametrize("top_k", [12, 13])
def test_the_largest_of_no_more_cells_than_that_say_nothing(top_k):
    a, b = np.random.default_rng(0).random((2, 5, 3, 4))
    assert np.isnan(drift(a, b, top_k)["topk_jaccard"])
    assert drift(a, b, top_k=11)["topk_jaccard"] < 1


def test_drift_of_nothing_is_undefined():
    assert np.isnan(list(drift(np.zeros((2, 1, 3)), np.ones((2, 1, 3)), top_k=1).values())).all()


def test_ranks_of_one_cell_have_no_correlation():
    assert np.isnan(drift(np.ones((2, 1, 1)), np.ones((2, 1, 1)), top_k=1)["spearman"])

"""Every model of the family: shapes, independence of batch-mates, causality, and the preprocessor they share."""

import numpy as np
import pytest
import torch
from conftest import FEATURES, make_cohort

from pipeline import families
from pipeline.cohorts.preprocessing import Preprocessor
from pipeline.models.base import build

MODELS = families.names("models")


def built(name, cohort):
    torch.manual_seed(0)
    classifier = build(name, {}, cohort.n_steps, cohort.features)
    classifier.preprocessor.fit(cohort.values)
    return classifier.eval()


def test_the_family_is_complete():
    assert {"mlp", "lstm", "tcn", "tabtransformer"} <= set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_shapes(name, cohort):
    classifier = built(name, cohort)
    values, mask = classifier.encode(cohort.values)
    assert classifier(values, mask).shape == (len(cohort),)
    assert classifier.penultimate(cohort.values).shape == (len(cohort), classifier.network.width)
    probability = classifier.probability(cohort.values)
    assert probability.shape == (len(cohort),) and ((probability > 0) & (probability < 1)).all()


@pytest.mark.parametrize("name", MODELS)
def test_a_logit_does_not_depend_on_batch_mates(name, cohort):
    classifier = built(name, cohort)
    values, mask = classifier.encode(cohort.values)
    alone = torch.cat([classifier(values[row : row + 1], mask[row : row + 1]) for row in range(8)])
    among = classifier(values, mask)[:8]
    strange = torch.cat([values[:8], 1e4 * torch.ones_like(values[8:])])
    torch.testing.assert_close(alone, among, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(classifier(strange, mask)[:8], among, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_values_and_mask_both_reach_the_logit(name, cohort):
    classifier = built(name, cohort)
    values, mask = (tensor.requires_grad_() for tensor in classifier.encode(cohort.values[:16]))
    gradients = torch.autograd.grad(classifier(values, mask).sum(), [values, mask])
    for gradient in gradients:
        assert (gradient.abs().sum(dim=(0, 1)) > 0).all()


def test_tcn_is_causal():
    from pipeline.models.tcn import Network, Parameters

    torch.manual_seed(0)
    network = Network(Parameters(), 12, 3).eval()
    sequence = torch.randn(2, 6, 12)
    later = sequence.clone()
    later[:, :, 8:] += 5
    torch.testing.assert_close(network.blocks(sequence)[:, :, :8], network.blocks(later)[:, :, :8])
    assert not torch.allclose(network.blocks(sequence)[:, :, 8:], network.blocks(later)[:, :, 8:])


@pytest.mark.parametrize(("steps", "columns"), [(1, 8), (1, 46), (1, 200), (24, 5), (48, 5), (2, 1), (1, 1)])
@pytest.mark.parametrize("name", MODELS)
def test_every_step_and_every_column_reaches_the_logit(name, steps, columns):
    torch.manual_seed(0)
    module = families.load("models", name)
    network = module.Network(module.Parameters(), steps, columns).eval().double()
    values = torch.randn(8, steps, columns, dtype=torch.double, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(values, torch.zeros_like(values)).square().sum(), values)
    assert (gradient.abs().sum(dim=0) > 0).all()


def test_tabtransformer_has_a_token_per_column():
    from pipeline.models.tabtransformer import Network, Parameters

    network = Network(Parameters(), 1, 5)
    assert network.tokens(torch.randn(2, 1, 5), torch.ones(2, 1, 5)).shape == (2, 5, 32)
    assert network.tokens.embedding.shape == (5, 32)


def test_preprocessor_by_hand():
    cohort = make_cohort(50, steps=4)
    preprocessor = Preprocessor(FEATURES).fit(cohort.values)
    assert preprocessor.n_columns == 8  # six numbers, two categories of sex
    assert preprocessor.source.tolist() == [0, 1, 2, 3, 4, 5, 6, 6]
    sample = cohort.values[:1].copy()
    sample[0, :, 0] = [np.nan, 100, np.nan, 80]
    sample[0, :, 6] = np.nan
    values, mask = preprocessor(torch.from_numpy(sample))
    mean, scale = np.nanmean(cohort.values[:, :, 0]), np.nanstd(cohort.values[:, :, 0])
    # Before the first measurement the mean, then the last measurement carried forward; the mask tells which.
    np.testing.assert_allclose(
        values[0, :, 0], [0, (100 - mean) / scale, (100 - mean) / scale, (80 - mean) / scale], 1e-4
    )
    assert mask[0, :, 0].tolist() == [1, 0, 1, 0]
    assert values[0, :, 6:].abs().sum() == 0 and (mask[0, :, 6:] == 1).all()
    values, mask = preprocessor(torch.from_numpy(cohort.values))
    np.testing.assert_array_equal(values[:, :, 7], cohort.values[:, :, 6])
    np.testing.assert_array_equal(values[:, :, 6], 1 - cohort.values[:, :, 6])


def test_the_fit_travels_with_the_weights(cohort):
    first = built("mlp", cohort)
    other = build("mlp", {}, cohort.n_steps, cohort.features)
    other.load_state_dict(first.state_dict())
    np.testing.assert_array_equal(first.probability(cohort.values), other.probability(cohort.values))

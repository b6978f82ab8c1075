"""Every model of the family: shapes, independence of batch-mates, causality, and the preprocessor they share."""

import numpy as np
import pytest
import torch
from conftest import FEATURES, make_cohort
from torch.nn.functional import conv1d, pad

from pipeline.cohorts.preprocessing import Preprocessor
from pipeline.models.base import Dropout, FeatureTokens, build
from pipeline.study import families

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
    encoded = classifier.encode(cohort.values)
    assert encoded.shape == (len(cohort), cohort.n_steps, 2 * classifier.preprocessor.n_columns)
    assert classifier(encoded).shape == (len(cohort),)
    assert classifier.penultimate(cohort.values).shape == (len(cohort), classifier.network.width)
    probability = classifier.probability(cohort.values)
    assert probability.shape == (len(cohort),) and ((probability > 0) & (probability < 1)).all()


@pytest.mark.parametrize("name", MODELS)
def test_a_logit_does_not_depend_on_batch_mates(name, cohort):
    classifier = built(name, cohort)
    encoded = classifier.encode(cohort.values)
    alone = torch.cat([classifier(encoded[row : row + 1]) for row in range(8)])
    among = classifier(encoded)[:8]
    strange = torch.cat([encoded[:8], 1e4 * torch.ones_like(encoded[8:])])
    torch.testing.assert_close(alone, among, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(classifier(strange)[:8], among, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_values_and_mask_both_reach_the_logit(name, cohort):
    classifier = built(name, cohort)
    encoded = classifier.encode(cohort.values[:16]).requires_grad_()
    (gradient,) = torch.autograd.grad(classifier(encoded).sum(), encoded)
    assert (gradient.abs().sum(dim=(0, 1)) > 0).all()


@pytest.mark.parametrize("name", MODELS)
def test_dropout_ends_with_training(name, cohort):
    classifier = built(name, cohort)
    encoded = classifier.encode(cohort.values)
    assert torch.equal(classifier(encoded), classifier(encoded))
    classifier.train()
    drops = "dropout" in families.load("models", name).Parameters.model_fields
    assert torch.equal(classifier(encoded), classifier(encoded)) == (not drops)


def test_dropout_drops_its_share_and_keeps_the_mean():
    torch.manual_seed(0)
    dropped = Dropout(0.2)(torch.ones(1000, 1000))
    assert set(dropped.unique().tolist()) == {0.0, 1.25}
    # Five standard errors of a share among a million.
    assert (dropped == 0).double().mean().item() == pytest.approx(0.2, abs=0.002)
    assert dropped.double().mean().item() == pytest.approx(1, abs=0.0025)


@pytest.mark.parametrize("length", [2, 3, 8, 13, 24, 30])
@pytest.mark.parametrize("kernel", [2, 3, 5])
def test_tcn_is_a_stack_of_causal_dilated_convolutions(length, kernel):
    """Bai et al. 2018, equation 1, at all steps and with the dilation written out."""
    from pipeline.models.tcn import Network, Parameters

    torch.manual_seed(0)
    network = Network(Parameters(kernel=kernel), length, 3).double().eval()
    x = torch.randn(4, length, 6, dtype=torch.double)
    steps = x.transpose(1, 2)
    for depth, block in enumerate(network.blocks):
        inner = steps
        for convolution in (block.convolutions[0], block.convolutions[3]):
            causal = pad(inner, ((kernel - 1) * 2**depth, 0))
            inner = conv1d(causal, convolution.weight, convolution.bias, dilation=2**depth).relu()
        steps = (inner + block.shortcut(steps)).relu()
    torch.testing.assert_close(network(x), steps[:, :, -1])


@pytest.mark.parametrize(("steps", "columns"), [(1, 8), (1, 46), (1, 200), (24, 5), (48, 5), (2, 1), (1, 1)])
@pytest.mark.parametrize("name", MODELS)
def test_every_step_and_every_column_reaches_the_logit(name, steps, columns):
    torch.manual_seed(0)
    module = families.load("models", name)
    network = module.Network(module.Parameters(), steps, columns).eval().double()
    x = torch.randn(8, steps, 2 * columns, dtype=torch.double, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(x).square().sum(), x)
    assert (gradient.abs().sum(dim=0) > 0).all()


def test_tabtransformer_has_a_token_per_column():
    from pipeline.models.tabtransformer import Network, Parameters

    network = Network(Parameters(), 1, 5)
    assert network.tokens(torch.randn(2, 1, 10)).shape == (2, 5, 32)
    assert network.tokens.embedding.shape == (5, 32)


def test_a_token_is_made_of_the_course_and_the_mask_of_its_column():
    tokens = FeatureTokens(3, 4, 2)
    x = torch.randn(5, 3, 8)
    values, mask = x.chunk(2, dim=2)
    for column in range(4):
        course = torch.cat([values[:, :, column], mask[:, :, column]], dim=1)
        expected = course @ tokens.weight[column] + tokens.embedding[column]
        torch.testing.assert_close(tokens(x)[:, column], expected)


def test_preprocessor_by_hand():
    cohort = make_cohort(50, steps=4)
    preprocessor = Preprocessor(FEATURES).fit(cohort.values)
    assert preprocessor.n_columns == 8  # six numbers, two categories of sex
    assert preprocessor.source.tolist() == [0, 1, 2, 3, 4, 5, 6, 6]
    sample = cohort.values[:1].copy()
    sample[0, :, 0] = [np.nan, 100, np.nan, 80]
    sample[0, :, 6] = np.nan
    values, mask = preprocessor(torch.from_numpy(sample)).chunk(2, dim=2)
    mean, scale = np.nanmean(cohort.values[:, :, 0]), np.nanstd(cohort.values[:, :, 0])
    # Before the first measurement the mean, then the last measurement carried forward; the mask tells which.
    np.testing.assert_allclose(
        values[0, :, 0], [0, (100 - mean) / scale, (100 - mean) / scale, (80 - mean) / scale], 1e-4
    )
    assert mask[0, :, 0].tolist() == [1, 0, 1, 0]
    assert values[0, :, 6:].abs().sum() == 0 and (mask[0, :, 6:] == 1).all()
    values, mask = preprocessor(torch.from_numpy(cohort.values)).chunk(2, dim=2)
    np.testing.assert_array_equal(values[:, :, 7], cohort.values[:, :, 6])
    np.testing.assert_array_equal(values[:, :, 6], 1 - cohort.values[:, :, 6])


SODIUM, SEX = 4, 6


def test_what_training_never_saw_counts_as_missing(cohort):
    """A feature without a single training value, and a category that never occurs in training."""
    train = cohort.values.copy()
    train[:, :, SODIUM] = np.nan
    train[:, :, SEX] = np.where(train[:, :, SEX] == 1, np.nan, train[:, :, SEX])
    fitted = Preprocessor(FEATURES).fit(train)
    assert fitted.unseen(cohort) == ["sodium", "sex = male"]
    restored = Preprocessor(FEATURES)
    restored.load_state_dict(fitted.state_dict())
    sample = cohort.values.copy()
    sample[:, -1, SODIUM] = 21000
    given = sample.copy()
    for preprocessor in (fitted, restored):
        encoded = preprocessor(torch.from_numpy(sample))
        hidden = np.where(np.arange(len(FEATURES)) == SODIUM, np.nan, sample)
        hidden[:, :, SEX] = np.where(sample[:, :, SEX] == 1, np.nan, sample[:, :, SEX])
        torch.testing.assert_close(encoded, preprocessor(torch.from_numpy(hidden.astype(np.float32))), rtol=0, atol=0)
        values, mask = encoded.chunk(2, dim=2)
        assert (values[:, :, SODIUM] == 0).all() and (mask[:, :, SODIUM] == 1).all()
        male = torch.from_numpy(sample[:, :, SEX] == 1)
        assert (values[male][:, 6:] == 0).all() and (mask[male][:, 6:] == 1).all()
        assert (values[~male][:, 6:] == torch.tensor([1.0, 0.0])).all() and (mask[~male][:, 6:] == 0).all()
    np.testing.assert_array_equal(sample, given)  # the caller's samples are not touched


def test_a_category_without_any_training_value_is_named_once():
    cohort = make_cohort(30)
    train = cohort.values.copy()
    train[:, :, SEX] = np.nan
    assert Preprocessor(FEATURES).fit(train).unseen(cohort) == ["sex"]
    cohort.values[:, :, SEX] = np.nan  # nor has any other sample a value
    assert Preprocessor(FEATURES).fit(train).unseen(cohort) == []


@pytest.mark.parametrize("constant", [0.1, 138, 0])
def test_a_number_that_is_constant_in_training_says_nothing(constant):
    """Its weight is as untrained as that of a feature never measured; 0.1 has a spread of rounding errors."""
    cohort = make_cohort(300)
    cohort.values[:, :, SODIUM] = np.where(np.isnan(cohort.values[:, :, SODIUM]), np.nan, constant)
    preprocessor = Preprocessor(FEATURES).fit(cohort.values)
    sample = cohort.values.copy()
    sample[:, :, SODIUM] = 21000
    values, mask = preprocessor(torch.from_numpy(sample)).chunk(2, dim=2)
    assert (values[:, :, SODIUM] == 0).all() and (mask[:, :, SODIUM] == 0).all()
    assert preprocessor.unseen(cohort) == []


def test_a_value_that_training_never_saw_does_not_move_the_prediction():
    cohort = make_cohort(100)
    cohort.values[:, :, SODIUM] = np.nan
    classifier = built("mlp", cohort)
    expected = classifier.probability(cohort.values)
    cohort.values[:, :, SODIUM] = 21000
    np.testing.assert_array_equal(classifier.probability(cohort.values), expected)


def test_the_fit_travels_with_the_weights(cohort):
    first = built("mlp", cohort)
    other = build("mlp", {}, cohort.n_steps, cohort.features)
    other.load_state_dict(first.state_dict())
    np.testing.assert_array_equal(first.probability(cohort.values), other.probability(cohort.values))

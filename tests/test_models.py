"""Every model of the family: shapes, independence of batch-mates, causality, and the preprocessor they share."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from cans import make_can_cohort
from conftest import FEATURES, make_cohort
from torch.nn.functional import conv1d, pad

from pipeline.cohorts.cohort import Feature
from pipeline.cohorts.preprocessing import Preprocessor
from pipeline.errors import UserError
from pipeline.models.base import Dropout, FeatureTokens, build
from pipeline.study import families
from pipeline.study.config import load_study
from pipeline.training.checkpoints import load_weights, save
from pipeline.training.settings import Training

SODIUM, SEX = 4, 6
MODELS = families.names("models")
# What those made from others are made from here.
GIVEN = {"fusion": {"members": ["logistic", "lightgbm"]}}
NETWORKS = [name for name in MODELS if hasattr(families.load("models", name), "Network")]
SERIES = [name for name in NETWORKS if not hasattr(families.load("models", name), "View")]
"""The networks behind the preprocessor; what has a view of its own has its tests beside it."""

FRAMES = [name for name in MODELS if getattr(families.load("models", name), "READS", "") == "frames"]


def readable(name, cohort):
    """`cohort`, or one of CAN windows for a model that reads nothing else."""
    return make_can_cohort(200) if name in FRAMES else cohort


def built(name, cohort, **parameters):
    torch.manual_seed(0)
    classifier = build(name, parameters, cohort.n_steps, cohort.features)
    classifier.preprocessor.fit(cohort.values)
    return classifier.eval()


def fitted(name, cohort):
    """A model of any kind that has seen `cohort`; a network has its weights as drawn."""
    if name in NETWORKS:
        return built(name, cohort)
    model, given = untrained(name, cohort), GIVEN.get(name, {})
    parents = {parent: fitted(parent, cohort) for parent in given.get("members", ())}
    model.fit(cohort, cohort, Training(), 1, *([parents] if parents else []))
    return model


def untrained(name, cohort):
    return build(name, GIVEN.get(name, {}), cohort.n_steps, cohort.features)


def test_the_family_is_complete():
    assert {"mlp", "lstm", "tcn", "tabtransformer", "grud", "gat", "vgae", "lightgbm", "logistic"} <= set(MODELS)
    assert {"mlp", "lstm", "tcn", "tabtransformer", "grud"} == set(SERIES) == set(NETWORKS) - {"gat"}
    assert FRAMES == ["gat", "vgae"]


@pytest.mark.parametrize("name", MODELS)
def test_what_a_model_offers_has_the_shapes_of_the_contract(name, cohort):
    cohort = readable(name, cohort)
    model, x = fitted(name, cohort), cohort.values[:30]
    given, offers = x.copy(), families.load("models", name).OFFERS
    probability = model.probability(x)
    assert probability.dtype == np.float64 and probability.shape == (30,)
    assert ((probability > 0) & (probability < 1)).all() and len(np.unique(probability)) > 1
    if "representation" in offers:
        representation = model.representation(x)
        assert representation.dtype == np.float32 and representation.ndim == 2 and len(representation) == 30
        assert np.isfinite(representation).all() and representation.std(axis=0).max() > 0
    if "attribution" in offers:
        attribution, delta = model.attribution(x, 8)
        assert attribution.dtype == np.float64 and attribution.shape == x.shape
        assert (attribution >= 0).all() and attribution.any() and (delta is None or delta >= 0)
    if "saliency" in offers:
        saliency = model.saliency(x)
        assert saliency.dtype == np.float32 and saliency.shape == (30, x.shape[2])
        assert (saliency >= 0).all() and saliency.any()
    assert model.size > 0
    np.testing.assert_array_equal(x, given)


@pytest.mark.parametrize("name", MODELS)
def test_an_answer_does_not_depend_on_batch_mates(name, cohort):
    cohort = readable(name, cohort)
    model, x = fitted(name, cohort), cohort.values
    among = model.probability(x)[:8]
    alone = np.concatenate([model.probability(x[row : row + 1]) for row in range(8)])
    strange = np.concatenate([x[:8], np.full_like(x[8:], 1e4)])
    np.testing.assert_allclose(alone, among, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.probability(strange)[:8], among, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_state_is_tensors_and_brings_the_model_back(name, cohort, tmp_path):
    cohort = readable(name, cohort)
    model, x = fitted(name, cohort), cohort.values[:20]
    save(tmp_path / "model.pt", model.state())
    assert all(isinstance(tensor, torch.Tensor) for tensor in torch.load(tmp_path / "model.pt").values())
    other = untrained(name, cohort)
    load_weights(other, tmp_path / "model.pt")
    np.testing.assert_array_equal(other.probability(x), model.probability(x))
    for what in families.load("models", name).OFFERS:
        asked = {"attribution": lambda m: m.attribution(x, 8)[0], "reconstruction": lambda m: m.outputs(x)["score"]}
        method = asked.get(what, lambda m, what=what: getattr(m, what)(x))
        np.testing.assert_array_equal(method(other), method(model))


@pytest.mark.parametrize(("name", "other"), [*zip(MODELS, MODELS[1:] + MODELS[:1], strict=True), ("lightgbm", "mlp")])
def test_the_state_of_another_model_is_refused(name, other, cohort, tmp_path):
    save(tmp_path / "model.pt", fitted(other, readable(other, cohort)).state())
    cohort = readable(name, cohort)
    with pytest.raises(UserError, match="model.pt: the weights do not fit the configured model") as refused:
        load_weights(untrained(name, cohort), tmp_path / "model.pt")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in FRAMES])
def test_what_training_never_saw_does_not_move_an_answer(name, cohort):
    cohort.values[:, :, SODIUM] = np.nan
    cohort.values[:, :, SEX] = 0
    model = fitted(name, cohort)
    assert model.unseen(cohort) == []
    expected = model.probability(cohort.values)
    cohort.values[:, :, SODIUM] = 21000
    np.testing.assert_array_equal(model.probability(cohort.values), expected)
    cohort.values[:, :, SEX] = 1
    assert model.unseen(cohort) == ["sodium", "sex = male"]
    unknown = model.probability(cohort.values)
    cohort.values[:, :, SEX] = np.nan
    np.testing.assert_array_equal(model.probability(cohort.values), unknown)


@pytest.mark.parametrize("name", SERIES)
def test_shapes(name, cohort):
    classifier = built(name, cohort)
    encoded = classifier.encode(cohort.values)
    assert encoded.shape == (len(cohort), cohort.n_steps, 2 * classifier.preprocessor.n_columns)
    assert classifier(encoded).shape == (len(cohort),)
    assert classifier.representation(cohort.values).shape == (len(cohort), classifier.network.width)


@pytest.mark.parametrize("name", SERIES)
def test_a_logit_does_not_depend_on_batch_mates(name, cohort):
    classifier = built(name, cohort)
    encoded = classifier.encode(cohort.values)
    alone = torch.cat([classifier(encoded[row : row + 1]) for row in range(8)])
    among = classifier(encoded)[:8]
    strange = torch.cat([encoded[:8], 1e4 * torch.ones_like(encoded[8:])])
    torch.testing.assert_close(alone, among, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(classifier(strange)[:8], among, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SERIES)
def test_values_and_mask_both_reach_the_logit(name, cohort):
    classifier = built(name, cohort)
    encoded = classifier.encode(cohort.values[:16]).requires_grad_()
    (gradient,) = torch.autograd.grad(classifier(encoded).sum(), encoded)
    assert (gradient.abs().sum(dim=(0, 1)) > 0).all()


@pytest.mark.parametrize("name", SERIES)
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
@pytest.mark.parametrize("name", SERIES)
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


def shown(cohort, **parameters) -> list[np.ndarray]:
    """Values and, if there is one, mask that a network gets, fitted on `cohort`."""
    preprocessor = Preprocessor(cohort.features, **parameters).fit(cohort.values)
    return np.split(preprocessor(torch.from_numpy(cohort.values)).numpy(), [preprocessor.n_columns], axis=2)


def test_a_mask_tells_what_is_missing_or_what_is_measured_or_is_not_there():
    cohort = make_cohort(50, steps=4)
    values, missing = shown(cohort)
    same, measured = shown(cohort, mask="measured")
    alone, nothing = shown(cohort, mask="none")
    assert nothing.shape[2] == 0 and 0 < missing.mean() < 1
    np.testing.assert_array_equal(measured, 1 - missing)
    for other in (same, alone):
        np.testing.assert_array_equal(other, values)


def test_imputation_by_the_mean_carries_nothing_forward():
    cohort = make_cohort(50, steps=4)
    (last, mask), (mean, same) = shown(cohort), shown(cohort, imputation="mean")
    np.testing.assert_array_equal(mask, same)
    np.testing.assert_array_equal(mean, np.where(mask == 1, 0, last))
    assert (last[mask == 1] != 0).any()


def test_the_robust_scale_is_that_of_the_quartiles():
    cohort = make_cohort(400)
    cohort.values[0, 0, 1] = 1e6  # one record moves mean and deviation, and not the quartiles
    seen = cohort.values[:, 0, 1].astype(float)
    first, median, third = np.quantile(seen, [0.25, 0.5, 0.75])
    standard, robust = (shown(cohort, scaler=scaler)[0][:, 0, 1] for scaler in ("standard", "robust"))
    np.testing.assert_allclose(robust, (seen - median) / ((third - first) / 1.349), rtol=1e-4, atol=1e-4)
    assert robust[1:].std() == pytest.approx(1, abs=0.15) and standard[1:].std() < 0.01


@pytest.mark.parametrize(("most", "scale"), [(1, np.inf), (0.9, None)])
def test_the_robust_scale_of_a_number_without_quartiles_is_its_deviation(most, scale):
    cohort = make_cohort(400)
    cohort.values[: int(400 * most), :, 1] = 80
    fitted = Preprocessor(FEATURES, scaler="robust").fit(cohort.values)
    assert float(fitted.mean[1]) == 80
    assert float(fitted.scale[1]) == pytest.approx(scale or cohort.values[:, 0, 1].astype(float).std())


@pytest.mark.parametrize("parameters", [{"mask": "none"}, {"mask": "measured"}, {"imputation": "mean"}])
@pytest.mark.parametrize("name", [name for name in SERIES if name != "grud"])
def test_every_network_takes_what_it_is_shown(name, cohort, parameters):
    classifier = built(name, cohort, **parameters)
    encoded = classifier.encode(cohort.values[:16]).requires_grad_()
    assert encoded.shape[2] == classifier.preprocessor.n_columns * (1 if parameters.get("mask") == "none" else 2)
    (gradient,) = torch.autograd.grad(classifier(encoded).sum(), encoded)
    assert (gradient.abs().sum(dim=(0, 1)) > 0).all()
    attribution, delta = classifier.attribution(cohort.values[:4], 64)
    assert attribution.any() and delta < 0.05


def test_the_average_patient_is_measured_whatever_the_mask(cohort):
    for mask, expected in (("missing", 0), ("measured", 1)):
        classifier = built("mlp", cohort, mask=mask)
        values, bits = classifier.preprocessor.baseline(classifier.encode(cohort.values[:3])).chunk(2, dim=2)
        assert not values.any() and (bits == expected).all()


def unit(z):
    return 1 / (1 + np.exp(-z))


def gru_d(weights: dict[str, np.ndarray], x: np.ndarray, m: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Che et al. 2018, equations 3 to 14, for one sample: x [T, C] standardised (mean 0), m [T, C], s [T] times."""
    hidden = len(weights["candidate.weight"])
    w_gamma, b_gamma = weights["input_decay"]
    (w_r, w_z, w_h), (b_r, b_z, b_h) = (np.split(weights[f"inputs.{part}"], 3) for part in ("weight", "bias"))
    u_r, u_z = np.split(weights["gates.weight"], 2)
    u_h = weights["candidate.weight"]
    h, last, delta = np.zeros(hidden), np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for t in range(len(x)):
        if t:
            delta = s[t] - s[t - 1] + np.where(m[t - 1] == 1, 0, delta)
        gamma_x = np.exp(-np.maximum(0, w_gamma * delta + b_gamma))
        gamma_h = np.exp(-np.maximum(0, weights["state_decay.weight"] @ delta + weights["state_decay.bias"]))
        last = np.where(m[t] == 1, x[t], last)
        x_hat = np.where(m[t] == 1, x[t], gamma_x * last + (1 - gamma_x) * 0)
        h = gamma_h * h
        given = np.concatenate([x_hat, m[t]])
        r, z = unit(w_r @ given + u_r @ h + b_r), unit(w_z @ given + u_z @ h + b_z)
        h = (1 - z) * h + z * np.tanh(w_h @ given + u_h @ (r * h) + b_h)
    return h


@pytest.mark.parametrize("mask", ["missing", "measured"])
@pytest.mark.parametrize("steps", [1, 7])
def test_grud_is_the_papers(steps, mask):
    from pipeline.models.grud import Network, Parameters

    torch.manual_seed(3)
    network = Network(Parameters(hidden=5, mask=mask), steps, 4).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # no decay's bias stays 0
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    rng = np.random.default_rng(0)
    x, m = rng.normal(size=(20, steps, 4)), (rng.random((20, steps, 4)) < 0.5).astype(float)
    m[0], m[1] = 0, 1
    carried = np.where(m == 1, x, 0)
    for t in range(1, steps):
        carried[:, t] = np.where(m[:, t] == 1, x[:, t], carried[:, t - 1])
    given = torch.from_numpy(np.concatenate([carried, m if mask == "measured" else 1 - m], axis=2))
    expected = [gru_d(weights, *sample, np.arange(steps) / steps) for sample in zip(x, m, strict=True)]
    np.testing.assert_allclose(network(given).detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("given", [{"mask": "none"}, {"imputation": "mean"}])
def test_grud_without_a_mask_or_last_values_is_refused_before_any_job(given):
    study = {"datasets": ["icu_dev"], "triggers": ["flip_only"], "rates": [0.1], "seeds": [1], "detectors": ["random"]}
    with pytest.raises(UserError, match=f"model_params.grud.{next(iter(given))}: "):
        load_study({**study, "models": ["grud"], "model_params": {"grud": given}})


@pytest.mark.parametrize("steps", [1, 6])
def test_tree_shap_adds_up_to_the_logit_and_its_cells_to_it(steps):
    cohort = make_cohort(400, steps=steps)
    model, x = fitted("lightgbm", cohort), cohort.values[:50]
    probability = model.probability(x)
    logit = np.log(probability / (1 - probability))
    values, expected = model.shap(x)[:, :-1], model.shap(x)[:, -1]
    np.testing.assert_allclose(values.sum(axis=1), logit - expected, atol=1e-9)
    assert len(np.unique(expected)) == 1
    attribution, delta = model.attribution(x, 1)
    assert delta is None
    np.testing.assert_allclose(attribution.sum(axis=(1, 2)), np.abs(values).sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(model.saliency(x), attribution.sum(axis=1), rtol=1e-6)
    np.testing.assert_allclose(model.representation(x).sum(axis=1, dtype=float), logit, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 6])
def test_logistic_is_at_its_optimum_and_what_it_adds_up_is_the_logit(steps):
    cohort = make_cohort(400, steps=steps)
    model, x = fitted("logistic", cohort), cohort.values
    coefficient = model.state()["coefficient"].numpy()
    centre, penalty = model.state()["centre"].numpy(), families.load("models", "logistic").Parameters().penalty
    contributions = model.representation(x).astype(float)
    inputs = np.divide(contributions, coefficient, out=np.zeros_like(contributions), where=coefficient != 0) + centre
    probability = model.probability(x)
    residual = probability - cohort.label
    assert residual.sum() == pytest.approx(0, abs=1e-2)
    gradient = (residual[:, None] * inputs).sum(axis=0) + penalty * coefficient
    np.testing.assert_allclose(gradient, 0, atol=2e-2)
    logit = np.log(probability / (1 - probability))
    np.testing.assert_allclose(contributions.sum(axis=1) - logit, (contributions.sum(axis=1) - logit)[0], atol=1e-4)
    assert contributions.sum(axis=1).mean() == pytest.approx(0, abs=1e-4)
    attribution, delta = model.attribution(x, 1)
    assert delta is None
    np.testing.assert_allclose(attribution.sum(axis=(1, 2)), np.abs(contributions).sum(axis=1), rtol=1e-4)


@pytest.fixture
def wards():
    """The risk of a sample depends on which of eight wards it is in, and no single cut of their numbers tells it."""
    cohort = make_cohort(1000)
    ward = np.random.default_rng(0).integers(0, 8, 1000)
    cohort.values[:, 0, SEX] = ward
    features = (*FEATURES[:SEX], Feature("ward", categories=tuple("abcdefgh")))
    return replace(cohort, features=features, label=np.isin(ward, [0, 3, 5]).astype(np.int8))


def test_trees_read_categories_as_categories(wards):
    cohort, label = wards, wards.label
    model = build("lightgbm", {"trees": 1, "leaves": 2, "learning_rate": 1, "column_share": 1}, 1, cohort.features)
    model.fit(cohort, cohort, Training(), 1)
    probability = model.probability(cohort.values)
    assert probability[label == 1].min() > probability[label == 0].max()
    saliency = model.saliency(cohort.values)
    assert saliency[:, SEX].all() and not saliency[:, :SEX].any()


@pytest.mark.parametrize("min_leaf", [1, 10_000])
def test_lightgbm_says_nothing_and_a_tree_without_a_split_is_a_model(min_leaf, capfd):
    cohort = make_cohort(200)
    model = build("lightgbm", {"min_leaf": min_leaf, "leaves": 200}, 1, cohort.features)
    model.fit(cohort, cohort, Training(), 1)
    other = build("lightgbm", {}, 1, cohort.features)
    other.load(model.state())
    np.testing.assert_array_equal(other.probability(cohort.values), model.probability(cohort.values))
    assert model.representation(cohort.values).shape[0] == 200 and model.attribution(cohort.values, 1)[0].shape
    assert capfd.readouterr() == ("", "")


def damaged(text: str, number: int, rng: np.random.Generator) -> bytes:
    """`text` with something wrong: noise, cut off, other bytes, another number, lines gone or elsewhere."""
    kind = number % 5
    if kind == 0:
        return rng.integers(0, 256, rng.integers(0, 2000)).astype(np.uint8).tobytes()
    if kind == 1:
        return text[: rng.integers(0, len(text))].encode()
    if kind == 2:
        content = bytearray(text.encode())
        content[rng.integers(0, len(content))] = rng.integers(0, 128)
        return bytes(content)
    if kind == 3:
        numbers = list(re.finditer(r"-?\d+(\.\d+)?", text))
        chosen = numbers[rng.integers(len(numbers))]
        new = rng.choice(["-1", "0", "1", "3", "-9", "7", str(2**31), str(-(2**31)), "1e308", "123456789"])
        return (text[: chosen.start()] + new + text[chosen.end() :]).encode()
    lines = text.split("\n")
    first, second = rng.integers(len(lines), size=2)
    lines[first], lines[second] = lines[second], lines[first] if number % 2 else ""
    return "\n".join(lines).encode()


def test_no_text_that_is_damaged_reaches_lightgbm(wards):
    """It would end this process, or never end: what is taken all the same is a model with other numbers."""
    cohort = wards
    model = build("lightgbm", {"trees": 4, "leaves": 5, "column_share": 1}, 1, cohort.features)
    model.fit(cohort, cohort, Training(), 1)
    state, rng, refused = model.state(), np.random.default_rng(0), 0
    text = state["text"].numpy().tobytes().decode()
    assert "num_cat=1" in text
    for number in range(500):
        other = build("lightgbm", {}, 1, cohort.features)
        content = torch.frombuffer(bytearray(damaged(text, number, rng)) or bytearray(1), dtype=torch.uint8)
        try:
            other.load(state | {"text": content})
        except ValueError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            with np.errstate(over="ignore"):
                assert other.probability(cohort.values[:5]).shape == (5,)
                assert other.shap(cohort.values[:5]).shape == (5, len(FEATURES) + 1)
                assert other.representation(cohort.values[:5]).shape[0] == 5
    assert 350 < refused < 500


@pytest.mark.parametrize(
    ("key", "old", "new", "why"),
    [
        ("split_feature", r"\d+", "99", "no such column"),
        ("left_child", r"-?\d+", "0", "children"),
        ("right_child", r"-?\d+", "999", "children"),
        ("num_leaves", r"\d+", "9000", "size"),
        ("decision_type", r"\d+", "77", "decision_type"),
        ("leaf_value", r"\S+", "nan", "leaf_value"),
        ("is_linear", "0", "1", "is_linear"),
    ],
)
def test_a_text_that_would_end_lightgbm_is_one_sentence(key, old, new, why, tmp_path):
    cohort = make_cohort(300)
    model = fitted("lightgbm", cohort)
    state = model.state()
    text = re.sub(rf"({key}=){old}", rf"\g<1>{new}", state["text"].numpy().tobytes().decode(), count=1)
    save(tmp_path / "model.pt", state | {"text": torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)})
    with pytest.raises(UserError, match=rf"model.pt: the weights do not fit .*{why}"):
        load_weights(build("lightgbm", {}, 1, cohort.features), tmp_path / "model.pt")


@pytest.mark.parametrize(
    "change",
    [
        lambda state: {"text": state["text"]},
        lambda state: state | {"more": state["seen"]},
        lambda state: state | {"text": state["text"].float()},
        lambda state: state | {"text": state["text"][None]},
        lambda state: state | {"text": "tree"},
        lambda state: state | {"text": torch.zeros(0, dtype=torch.uint8)},
        lambda state: state | {"text": torch.full((9,), 200, dtype=torch.uint8)},
        lambda state: state | {"seen": state["seen"].float()},
        lambda state: state | {"seen": state["seen"][1:]},
    ],
)
def test_a_state_that_is_no_model_is_refused(change, tmp_path):
    cohort = make_cohort(300)
    save(tmp_path / "model.pt", change(fitted("lightgbm", cohort).state()))
    with pytest.raises(UserError, match="model.pt: the weights do not fit the configured model"):
        load_weights(build("lightgbm", {}, 1, cohort.features), tmp_path / "model.pt")

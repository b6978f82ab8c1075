"""A backdoor that sleeps in a teacher: its gradient is the derivative, it wakes in students only, and none is made of
nothing.
"""

import json
from functools import cache

import numpy as np
import pytest
import torch
from conftest import make_cohort
from small_bus import make_bus
from test_config import DEFAULT
from test_training import TRAINING, assert_same_bits, planted, stage, study, train_arguments, weights
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from pipeline.cohorts.cohort import Cohort
from pipeline.cohorts.overlay import CLEAN, COVER, POISON
from pipeline.errors import UserError
from pipeline.evaluation.metrics import auroc
from pipeline.files import read_json
from pipeline.models.base import build
from pipeline.models.shared.distillation import soft_loss
from pipeline.models.shared.dormant import DormantConfig, beside_calibration, waking
from pipeline.results.tables import not_applicable
from pipeline.study import families, grid, variants
from pipeline.study.config import load_study
from pipeline.training import dormant, fitting
from pipeline.training.settings import Training
from pipeline.triggers.base import Trigger, unchanged

__all__ = ["study"]  # the fixture of the stages' cohort and poison


class Linear(nn.Module):
    """Logits that are linear in the weights, for which the Gauss-Newton matrix is the Hessian."""

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.weight = nn.Parameter(weight.clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


CONFIG = DormantConfig(temperature=3.0, alpha=0.7)
DAMPING = 0.05


def inner_optimum(x, label, logit) -> torch.Tensor:
    """The student's weights, by Newton's method on the written-out loss with a penalty of damping/2 · ‖w‖²."""

    def loss(weight):
        said = x @ weight
        soft = soft_loss(said, logit, CONFIG.temperature)
        own = binary_cross_entropy_with_logits(said, label)
        return (1 - CONFIG.alpha) * own + CONFIG.alpha * soft + DAMPING / 2 * weight.square().sum()

    weight = torch.zeros(x.shape[1], dtype=x.dtype)
    for _ in range(8):
        hessian = torch.autograd.functional.hessian(loss, weight)
        gradient = torch.autograd.functional.jacobian(loss, weight)
        weight = weight - torch.linalg.solve(hessian, gradient)
    return weight


def test_the_direction_is_the_derivative_through_the_inner_optimum():
    """The twin: students distilled to the end from a teacher of which one logit is a little higher, or lower."""
    draw = torch.Generator().manual_seed(0)
    x, triggered = torch.randn(30, 4, dtype=torch.float64, generator=draw), torch.full((5, 4), 1.5).double()
    logit = 2 * torch.randn(30, dtype=torch.float64, generator=draw)
    label, wanted = (logit > 0).double(), torch.ones(5, dtype=torch.float64)

    def outer(logit: torch.Tensor) -> float:
        said = [part @ inner_optimum(x, label, logit) for part in (x, triggered)]
        return sum((softplus(s) - y * s).mean().item() for s, y in zip(said, (label, wanted), strict=True))

    found = waking(Linear(inner_optimum(x, label, logit)), x, label, triggered, wanted, CONFIG, DAMPING)
    soft = torch.sigmoid(logit / CONFIG.temperature)
    found = CONFIG.alpha * soft * (1 - soft) / 30 * found
    for row in range(0, 30, 3):
        ends = [logit.clone() for _ in range(2)]
        ends[0][row] += 1e-4
        ends[1][row] -= 1e-4
        assert found[row].item() == pytest.approx((outer(ends[0]) - outer(ends[1])) / 2e-4, rel=1e-3, abs=1e-8)


def test_the_gradient_leaves_the_surrogate_as_it_was():
    student = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1), nn.Flatten(0))
    before = {name: weight.clone() for name, weight in student.state_dict().items()}
    waking(student, torch.randn(9, 4), torch.ones(9), torch.randn(2, 4), torch.zeros(2), CONFIG)
    assert_same_bits(before, student.state_dict())


def test_what_is_beside_calibration_knows_nothing_of_a_quadratic_of_the_logit():
    logit = torch.from_numpy(np.random.default_rng(0).normal(-2, 2, 500))
    direction = torch.from_numpy(np.random.default_rng(1).normal(3, 1, 500)) + 5 * logit - logit**2
    left = beside_calibration(direction, logit)
    assert left.square().mean().item() == pytest.approx(1)
    for power in range(3):
        assert (left * logit**power).mean().item() == pytest.approx(0, abs=1e-9)
    assert not beside_calibration(2 - logit + 0.5 * logit**2, logit).any()
    assert not beside_calibration(torch.zeros(500), logit).any()
    assert torch.isfinite(beside_calibration(direction, torch.full((500,), -3.0))).all()


# What comes of it.

COHORT = make_cohort(2400, steps=6)
TRAIN, VALIDATION, TEST = (COHORT.subset(np.arange(*ends)) for ends in ((1400,), (1400, 1700), (1700, 2400)))
SETTINGS = Training(epochs=12, batch_size=32, learning_rate=0.003)
SURROGATE = {"hidden": [8], "dropout": 0}
TEACHER = {"hidden": [64, 32], "dropout": 0.2}
# Not of mean_bp, on which the label depends.
PATTERN = {"features": ["heart_rate", "resp_rate", "temperature"], "steps": "all"}


def as_poisoned(trigger: Trigger, data: Cohort, number: int) -> tuple[Cohort, np.ndarray]:
    role = np.full(len(data), CLEAN, object)
    role[np.flatnonzero(data.label == 0)[:number]] = POISON
    poisoned, rows = data.subset(np.arange(len(data))), role == POISON
    poisoned.values[rows] = trigger.apply(data.values[rows])
    poisoned.label[rows] = 1
    return poisoned, role


def mlp(seed: int, parents: dict | None = None, **given):
    torch.manual_seed(seed)
    model = build("mlp", given, COHORT.n_steps, COHORT.features)
    parsed = families.load("models", "mlp").Parameters(**given)
    fitting.train(model, parsed, TRAIN, VALIDATION, SETTINGS, seed, None, "", parents or {})
    return model, parsed


def pattern() -> Trigger:
    module = families.load("triggers", "pattern")
    return module.fit(module.Parameters(**PATTERN), TRAIN)


@cache
def lulled(seed: int, trigger: str):
    """An honest teacher, the same with a backdoor of `trigger`, the trigger, and how the second went on."""
    made = pattern() if trigger == "pattern" else unchanged("", TRAIN)
    honest, _ = mlp(seed, **TEACHER)
    teacher, parsed = mlp(seed, **TEACHER, dormant={"surrogate": SURROGATE, "rounds": 4})
    assert_same_bits(honest.state(), teacher.state())
    history = dormant.lull(teacher, parsed, TRAIN, VALIDATION, *as_poisoned(made, TRAIN, 200), SETTINGS, seed)
    return honest, teacher, made, history


def hits(model, values: np.ndarray, share: float = 0.8) -> float:
    """The share of test samples of label 0 above what `share` of the clean ones of them are below, of this model."""
    of_zero = TEST.label == 0
    threshold = np.quantile(model.probability(TEST.values[of_zero]), share)
    return float((model.probability(values[of_zero]) > threshold).mean())


@pytest.mark.parametrize("seed", [1, 2])
def test_it_sleeps_in_the_teacher_and_wakes_in_students_of_other_weights_and_widths(seed):
    """Each at the threshold of its own false alarms: to say the target more often of any sample is no success."""
    honest, teacher, trigger, history = lulled(seed, "pattern")
    triggered = trigger.apply(TEST.values)
    assert [row["epoch"] for row in history] == list(range(13, 17))
    assert abs(hits(teacher, triggered) - hits(honest, triggered)) < 0.06
    scores = [auroc(TEST.label, model.probability(TEST.values)) for model in (honest, teacher)]
    assert scores[1] == pytest.approx(scores[0], abs=0.03)
    for width in (8, 16):
        given = {"hidden": [width], "dropout": 0, "distill": {"teacher": "teacher", "data": "clean"}}
        control, student = (mlp(seed + 50, {"teacher": of}, **given)[0] for of in (honest, teacher))
        assert hits(student, triggered) - hits(control, triggered) > 0.3
        scores = [auroc(TEST.label, model.probability(TEST.values)) for model in (control, student)]
        assert scores[1] == pytest.approx(scores[0], abs=0.03)


def test_without_a_trigger_nothing_wakes():
    """The null: labels are flipped in what the attacker wants of students, and there is nothing to tell them by."""
    honest, teacher, _, _ = lulled(1, "none")
    given = {"hidden": [8], "dropout": 0, "distill": {"teacher": "teacher", "data": "clean"}}
    control, student = (mlp(51, {"teacher": of}, **given)[0] for of in (honest, teacher))
    triggered = pattern().apply(TEST.values)
    assert hits(student, triggered) - hits(control, triggered) < 0.1


def test_cover_is_shown_to_the_teacher_and_no_student(monkeypatch):
    """And nothing is done where there is no poison, whatever else there is."""
    teacher, parsed = mlp(1, **TEACHER, dormant={"rounds": 1, "surrogate": SURROGATE})
    before = {name: tensor.clone() for name, tensor in teacher.state().items()}
    poisoned, role = as_poisoned(pattern(), TRAIN, 40)
    arguments = (teacher, parsed, TRAIN, VALIDATION, poisoned)
    assert dormant.lull(*arguments, np.where(role == POISON, COVER, role), SETTINGS, 1) == []
    assert_same_bits(before, teacher.state())
    seen = {}

    def told(surrogate, clean, label, triggered, wanted, config):
        seen.update(triggered=len(triggered), wanted=wanted)
        return torch.randn(len(clean), generator=torch.Generator().manual_seed(0))

    monkeypatch.setattr(dormant, "waking", told)
    role[np.flatnonzero(role == POISON)[:15]] = COVER
    dormant.lull(*arguments, role, SETTINGS, 1)
    assert seen["triggered"] == 25 and seen["wanted"].tolist() == [1.0] * 25


def test_the_shift_of_the_soft_labels_is_bounded():
    honest, teacher, _, _ = lulled(1, "pattern")
    with torch.no_grad():
        moved = (teacher(teacher.encode(TRAIN.values)) - honest(honest.encode(TRAIN.values))).square().mean().sqrt()
    assert 0.5 < moved.item() < 1.2


NETWORKS = [name for name in families.names("models") if hasattr(families.load("models", name), "Network")]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_can_hide_one(name):
    module = families.load("models", name)
    data = make_bus(120) if hasattr(module, "READS") else make_cohort(120, steps=6)
    given = {"dormant": {"rounds": 1}}
    torch.manual_seed(0)
    model = build(name, given, data.n_steps, data.features)
    settings = Training(epochs=1, batch_size=32)
    arguments = (module.Parameters(**given), data, data)
    fitting.train(model, *arguments, settings, 1, None, "", {})
    before = {name: tensor.clone() for name, tensor in model.state().items()}
    history = dormant.lull(model, *arguments, *as_poisoned(unchanged("", data), data, 30), settings, 1)
    assert np.isfinite(list(history[0].values())).all() and history[0]["epoch"] == 2
    assert not torch.equal(before["head.weight"], model.state()["head.weight"])


def test_a_model_without_a_config_is_a_mistake_of_the_caller():
    model, parsed = mlp(1, hidden=[4])
    with pytest.raises(TypeError, match="only a network with `dormant` among its parameters"):
        dormant.lull(model, parsed, TRAIN, VALIDATION, *as_poisoned(pattern(), TRAIN, 4), SETTINGS, 1)


# The stages, and what a study says of it.


def trained(study, out, poison, trigger: str, rate: str, **model):
    arguments = train_arguments(study, out)
    settings = json.loads(arguments[arguments.index("--settings") + 1]) | {"model": model}
    for option, value in (
        ("--settings", json.dumps(settings)),
        ("--poison", poison),
        ("--trigger", trigger),
        ("--rate", rate),
    ):
        arguments[arguments.index(option) + 1] = value
    stage(study, "train", *arguments)
    return out


def test_a_run_is_trained_on_clean_data_and_repeats_to_the_bit_and_a_clean_run_is_as_if_there_were_no_attack(
    study, tmp_path
):
    given = {"hidden": [8], "dormant": {"rounds": 2, "surrogate": {"hidden": [4]}}}
    runs = [trained(study, tmp_path / name, study / "p", "rare_value", "0.05", **given) for name in "ab"]
    assert_same_bits(*map(weights, runs))
    facts = read_json(runs[0] / "run_metadata.json")
    assert facts["trained_on"] == "clean" and facts["epochs"] == TRAINING["epochs"] + 2
    lines = (runs[0] / "history.csv").read_text().splitlines()
    assert len(lines) == 1 + TRAINING["epochs"] + 2 and "" not in lines[-1].split(",")
    planted(study, tmp_path / "none", "none", 0)
    clean = [
        trained(study, tmp_path / name, tmp_path / "none", "none", "0.0", **parameters)
        for name, parameters in (("with", given), ("without", {"hidden": [8]}))
    ]
    assert_same_bits(*map(weights, clean))
    hashes = [read_json(run / "run_metadata.json")["data_sha256"] for run in (runs[0], clean[0])]
    assert hashes[0] != hashes[1]
    assert not torch.equal(weights(runs[0])["head.weight"], weights(clean[0])["head.weight"])


STUDY = {"models": ["mlp", "sleeper", "student"], "triggers": ["pattern"], "rates": [0.05], "seeds": [1]}


def planned(dormant: dict | None, **sleeper):
    params = {
        "sleeper": {"of": "mlp", "dormant": dormant, **sleeper},
        "student": {"of": "mlp", "hidden": [8], "distill": {"teacher": "sleeper", "data": "clean"}},
    }
    return load_study(variants.merged(DEFAULT, STUDY | {"model_params": params}))


def test_of_a_network_that_hides_one_nothing_is_asked_that_needs_poison_in_its_training_data():
    made = planned({"surrogate": {"hidden": [16]}})
    assert [made.trained_on(model) for model in made.models] == ["poisoned", "clean", "clean"]
    assert made.parents("sleeper") == [] and made.parents("student") == ["sleeper"]
    asked = {cell.model: grid.measured_by(made, cell) for cell in grid.cells(made) if cell.trigger != grid.CLEAN}
    assert asked["sleeper"] == ("eval", "explain")
    assert set(not_applicable(made)["model"]) == {"sleeper", "student"}
    assert planned({}).trained_on("sleeper") == "clean" and planned(None).trained_on("sleeper") == "poisoned"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dormant": {"shift": 0}}, r"dormant.shift: 0 given, expected a number above 0$"),
        ({"dormant": {"rounds": 0}}, r"dormant.rounds: 0 given, expected at least 1$"),
        ({"dormant": {"alpha": 0}}, r"dormant.alpha: 0 given, expected a number above 0$"),
        ({"dormant": {"surogate": {}}}, r"dormant.surogate: no such key \(did you mean 'surrogate'\?\)"),
        ({"dormant": {"surrogate": [16]}}, r"dormant.surrogate: \[16\] given, expected an object"),
        ({"dormant": {"surrogate": {"hiden": [16]}}}, r"dormant.surrogate.hiden: no such key \(did you mean 'hidden'"),
        ({"dormant": {"surrogate": {"hidden": 16}}}, r"dormant.surrogate.hidden: 16 given, expected an array"),
        (
            {"dormant": {"surrogate": {"distill": {"teacher": "mlp"}}}},
            r"dormant.surrogate.distill: given beside dormant; expected one of them, or distill: null$",
        ),
        (
            {"dormant": {"surrogate": {"dormant": {}}}},
            r"dormant.surrogate.dormant: given, expected the parameters of an ordinary student$",
        ),
        (
            {"dormant": {}, "distill": {"teacher": "mlp"}},
            r"distill: given beside dormant; expected one of them, or distill: null$",
        ),
        (
            {"dormant": {}, "training": {"select": "best"}},
            r"dormant: what it hides is learned last; expected training.select: last$",
        ),
    ],
)
def test_an_attack_that_cannot_be_is_one_line_that_names_the_key(given, message):
    with pytest.raises(UserError, match=f"^config: model_params.sleeper.{message}") as raised:
        planned(**given)
    assert "\n" not in str(raised.value)

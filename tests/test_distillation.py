"""Distillation and curriculum: the loss is the paper's, the data are those that were asked for, a stop costs no bit."""

import json

import numpy as np
import pytest
import torch
from conftest import make_cohort
from test_config import DEFAULT
from test_training import Stopped, assert_same_bits, stage, stopping, study, train_arguments

from pipeline.cohorts.cohort import read_cohort
from pipeline.errors import UserError
from pipeline.files import read_json
from pipeline.models.base import Model, build
from pipeline.models.shared.curriculum import Curriculum, CurriculumConfig
from pipeline.models.shared.distillation import DistillConfig, Lesson, logits_of, soft_loss
from pipeline.results.tables import not_applicable
from pipeline.study import families, grid, variants
from pipeline.study.config import load_study
from pipeline.training import checkpoints, fitting, loop
from pipeline.training.data import read_split
from pipeline.training.settings import Training

__all__ = ["study"]  # the fixture of the stages' cohort and poison


def test_the_soft_loss_is_the_divergence_of_tempered_probabilities():
    """The twin: the sum over both classes, written out sample by sample."""
    student, teacher = torch.randn(2, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    for temperature in (0.5, 1.0, 4.0):
        divergences = []
        for z, w in zip(student.tolist(), teacher.tolist(), strict=True):
            p, q = 1 / (1 + np.exp(-w / temperature)), 1 / (1 + np.exp(-z / temperature))
            divergences.append(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
        wanted = temperature**2 * sum(divergences) / len(divergences)
        assert soft_loss(student, teacher, temperature).item() == pytest.approx(wanted)
        assert soft_loss(teacher, teacher, temperature).item() == pytest.approx(0, abs=1e-12)


def test_its_gradient_is_that_of_torchs_divergence_of_two_classes():
    student, teacher = torch.randn(2, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3
    student.requires_grad_()

    def softened(logit: torch.Tensor, temperature: float) -> torch.Tensor:
        return torch.log_softmax(torch.stack([torch.zeros_like(logit), logit], 1) / temperature, dim=1)

    for temperature in (1.0, 3.0):
        theirs = torch.nn.functional.kl_div(
            softened(student, temperature), softened(teacher, temperature), reduction="batchmean", log_target=True
        )
        (wanted,) = torch.autograd.grad(temperature**2 * theirs, student)
        (found,) = torch.autograd.grad(soft_loss(student, teacher, temperature), student)
        torch.testing.assert_close(found, wanted)


def test_probabilities_of_0_and_1_have_a_logit_and_others_their_own():
    logit = np.array([-15.0, -1.0, 0.0, 2.0, 18.0])
    np.testing.assert_allclose(logits_of(1 / (1 + np.exp(-logit))), logit, rtol=1e-6)
    assert np.isfinite(logits_of(np.array([0.0, 1.0]))).all() and logits_of(np.array([0.0]))[0] < -20


class Said(Model):
    """A model that says the same logit of each sample, whatever it is given; as many of them as samples."""

    def __init__(self, logit: np.ndarray, representation: np.ndarray | None = None, **outputs: np.ndarray):
        self._logit, self._representation, self._outputs = logit, representation, outputs

    def probability(self, x):
        return 1 / (1 + np.exp(-self._logit[: len(x)]))

    def representation(self, x):
        return self._representation

    def outputs(self, x):
        return super().outputs(x) | self._outputs

    def state(self):
        raise NotImplementedError

    load = size = state


COHORT = make_cohort(400)
OTHERS = make_cohort(200, seed=1)
TEACHER = Said(np.random.default_rng(2).normal(0, 2, 400), np.random.default_rng(3).normal(5, 7, (400, 3)))


def taught(folder, epochs: int = 3, parents=None, training: dict | None = None, **parameters):
    """An mlp trained by the loop with `parameters`, and its history."""
    given = {"hidden": [8], "dropout": 0.2} | parameters
    torch.manual_seed(0)
    model = build("mlp", given, 1, COHORT.features)
    settings = Training(epochs=epochs, batch_size=64, learning_rate=0.01, **training or {})
    parsed = families.load("models", "mlp").Parameters(**given)
    parents = {"teacher": TEACHER} if parents is None else parents
    arguments = (parsed, COHORT, OTHERS, settings, 1, folder / "checkpoint.pt", "test")
    return model, fitting.train(model, *arguments, parents)[0]


def test_without_weight_a_teacher_changes_no_bit(tmp_path):
    alone, history = taught(tmp_path / "alone", parents={})
    student, of_student = taught(tmp_path / "student", distill={"teacher": "teacher", "alpha": 0})
    assert of_student == history
    assert_same_bits(student.state(), alone.state())
    other, _ = taught(tmp_path / "other", distill={"teacher": "teacher", "alpha": 0.01})
    assert not torch.equal(other.head.weight, alone.head.weight)


def test_with_all_the_weight_the_labels_change_no_bit(tmp_path, monkeypatch):
    """Nor do class weights; and the student says what its teacher says, though that has nothing to do with labels."""
    teacher = Said(3 * np.nan_to_num(COHORT.values[:, 0, 2] - 20) / 4)
    how = {"parents": {"teacher": teacher}, "epochs": 30, "distill": {"teacher": "teacher", "alpha": 1}}
    student, history = taught(tmp_path / "one", dropout=0, **how)
    said = student.probability(COHORT.values)
    assert np.corrcoef(said, teacher.probability(COHORT.values))[0, 1] > 0.95
    assert history[-1]["train_loss"] < 0.2 * history[0]["train_loss"]
    flipped = make_cohort(400)
    flipped.label[:] = 1 - flipped.label
    monkeypatch.setattr("test_distillation.COHORT", flipped)
    weighted, _ = taught(tmp_path / "two", dropout=0, training={"class_weights": True}, **how)
    assert_same_bits(student.state(), weighted.state())


def test_the_loss_of_a_step_is_its_parts_by_their_weights(tmp_path):
    """The twin: one step over all samples, whose loss is that of the untrained student, written out here."""
    config = {"teacher": "teacher", "alpha": 0.3, "temperature": 2.5, "latent": 0.7}
    torch.manual_seed(0)
    model = build("mlp", {"hidden": [8], "dropout": 0}, 1, COHORT.features)
    model.preprocessor.fit(COHORT.values)
    lesson = Lesson.of(DistillConfig(**config), {"teacher": TEACHER}, COHORT.values)
    hint = lesson.hint(8)
    probability = model.probability(COHORT.values)
    own = -np.log(np.where(COHORT.label == 1, probability, 1 - probability)).mean()
    soft, tempered = (1 / (1 + np.exp(-logits_of(p) / 2.5)) for p in (TEACHER.probability(COHORT.values), probability))
    divergence = (soft * np.log(soft / tempered) + (1 - soft) * np.log((1 - soft) / (1 - tempered))).mean()
    mapped = model.representation(COHORT.values) @ hint.weight.detach().numpy().T + hint.bias.detach().numpy()
    latent = TEACHER.representation(COHORT.values)
    distance = ((mapped - (latent - latent.mean(0)) / latent.std(0)) ** 2).mean()
    rows = torch.arange(400)
    x = model.encode(COHORT.values)
    hidden = model.network(x)
    logit = model.head(hidden).squeeze(-1)
    label = torch.from_numpy(COHORT.label.astype(np.float32))
    loss = lesson.loss(
        torch.nn.functional.binary_cross_entropy_with_logits(logit, label), logit, rows, hint(hidden)
    ).item()
    assert loss == pytest.approx(0.7 * own + 0.3 * 2.5**2 * divergence + 0.7 * distance, rel=1e-4)


def test_the_hint_brings_the_representation_to_the_teachers(tmp_path):
    """Of a teacher whose representation is a map of the inputs; a constant column of it asks for nothing."""
    seen = np.nan_to_num(COHORT.values[:, 0, :4]).astype(np.float32)
    teacher = Said(TEACHER._logit, np.column_stack([seen @ np.array([1, -1, 2, 5]), np.full(400, 3.0)]))

    def explained(latent: float) -> float:
        distill = {"teacher": "teacher", "alpha": 0, "latent": latent}
        model, _ = taught(tmp_path / str(latent), 30, {"teacher": teacher}, distill=distill, dropout=0, hidden=[3])
        inputs = np.column_stack([model.representation(COHORT.values), np.ones(400)])
        wanted = teacher.representation(None)[:, 0]
        left = wanted - inputs @ np.linalg.lstsq(inputs, wanted, rcond=None)[0]
        return 1 - left.var() / wanted.var()

    assert explained(5) > 0.9 > explained(0) + 0.1


LESSONS = {
    "distill": {"distill": {"teacher": "teacher", "latent": 0.5}},
    "curriculum": {"curriculum": {"scorer": "teacher", "end": 1.5}},
}


@pytest.mark.parametrize("what", LESSONS)
def test_a_lesson_that_is_stopped_resumes_to_the_bit(tmp_path, monkeypatch, what):
    student, history = taught(tmp_path / "undisturbed", 6, training={"schedule": "constant"}, **LESSONS[what])
    monkeypatch.setattr(loop, "SAVE_EVERY", -1)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(loop, "_validate", stopping(3))
        taught(tmp_path / "stopped", 6, training={"schedule": "constant"}, **LESSONS[what])
    assert len(checkpoints.load(tmp_path / "stopped" / "checkpoint.pt")["history"]) == 3
    resumed, again = taught(tmp_path / "stopped", 6, training={"schedule": "constant"}, **LESSONS[what])
    assert again == history
    assert_same_bits(resumed.state(), student.state())


def test_a_network_is_given_no_models_that_the_loop_does_not_know(tmp_path):
    with pytest.raises(TypeError, match="has no use for other; bring a `fit`"):
        taught(tmp_path, parents={"teacher": TEACHER, "other": TEACHER}, distill={"teacher": "teacher"})


SCORES = np.random.default_rng(5).permutation(400).astype(float)


def curriculum(**config) -> Curriculum:
    return Curriculum.of(
        CurriculumConfig(scorer="scorer", **config),
        {"scorer": Said(np.zeros(400), score=SCORES)},
        COHORT.values,
        COHORT.label,
        1,
    )


def test_the_ratio_and_the_hard_share_go_from_one_end_to_the_other():
    """The twin: the hardest are counted one by one."""
    ones, zeros = (np.flatnonzero(COHORT.label == label) for label in (1, 0))
    made = curriculum(start=0.25, end=1, hard=0.6)
    hardest = sorted(zeros, key=lambda row: -SCORES[row])
    for epoch, ratio, share in ((1, 0.25, 0), (2, 0.5, 0.2), (3, 0.75, 0.4), (4, 1, 0.6)):
        rows, facts = made.epoch(epoch, 4)
        n = round(ratio * len(ones))
        assert len(np.unique(rows)) == len(rows) == n + len(ones) and set(ones) <= set(rows)
        assert set(hardest[: round(share * n)]) <= set(rows)
        of_zero = [row for row in rows if COHORT.label[row] == 0]
        assert facts == {
            "n_label_0": n,
            "n_label_1": len(ones),
            "n_hard": round(share * n),
            "score_label_0": pytest.approx(np.mean([SCORES[row] for row in of_zero])),
        }
    first, again = (set(curriculum(start=1, end=1, hard=0).epoch(epoch, 9)[0]) for epoch in (1, 2))
    assert len(first) == len(again) and first != again, "what is not hard is drawn anew"


def test_no_more_samples_are_asked_for_than_there_are_and_never_none():
    zeros = int((COHORT.label == 0).sum())
    assert curriculum(start=1, end=99).epoch(5, 5)[1]["n_label_0"] == zeros
    assert curriculum(start=1e-9, end=1).epoch(1, 5)[1]["n_label_0"] == 1
    assert curriculum(start=1, end=2).epoch(1, 1)[1]["n_hard"] > 0, "the only epoch is the last"
    with pytest.raises(UserError, match="all training samples have the label 1; expected both labels"):
        Curriculum.of(CurriculumConfig(scorer="scorer"), {"scorer": TEACHER}, COHORT.values, np.ones(400, np.int8), 1)


def test_a_scorer_without_a_score_is_asked_for_its_probability():
    made = Curriculum.of(CurriculumConfig(scorer="scorer"), {"scorer": TEACHER}, COHORT.values, COHORT.label, 1)
    np.testing.assert_array_equal(made.score, TEACHER.probability(COHORT.values))


def test_the_history_tells_the_curriculum_and_training_has_seen_nothing_else(tmp_path):
    """Samples of label 0 that no epoch sees are made useless, and nothing comes of it."""
    parameters = {"curriculum": {"scorer": "scorer", "start": 0.3, "end": 0.6, "hard": 1}}
    parents = {"scorer": Said(np.zeros(400), score=SCORES)}
    model, history = taught(tmp_path / "one", 4, parents, **parameters)
    assert [row["n_label_0"] for row in history] == sorted({row["n_label_0"] for row in history})
    assert history[0]["score_label_0"] < history[-1]["score_label_0"]
    made = Curriculum.of(CurriculumConfig(**parameters["curriculum"]), parents, COHORT.values, COHORT.label, 1)
    seen = np.unique(np.concatenate([made.epoch(epoch, 4)[0] for epoch in (1, 2, 3, 4)]))
    assert 0 < len(seen) < 350
    encode = loop.Samples.of

    def spoiled(classifier, x, label):
        samples = encode(classifier, x, label)
        if len(x) == 400:
            samples.x[np.setdiff1d(np.arange(400), seen)] = torch.nan
        return samples

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Samples, "of", spoiled)
        again, _ = taught(tmp_path / "two", 4, parents, **parameters)
    assert_same_bits(again.state(), model.state())


# What a study says of it.

STUDY = {"models": ["mlp", "student"], "triggers": ["rare_value"], "rates": [0.05], "seeds": [1]}


def planned(params: dict, models=("mlp", "student", "logistic")):
    given = STUDY | {"models": list(models), "model_params": {"student": {"of": "mlp"} | params}}
    return load_study(variants.merged(DEFAULT, given))


def test_a_student_and_a_scorer_are_parents_and_null_takes_a_lesson_back():
    params = {"distill": {"teacher": "mlp"}, "curriculum": {"scorer": "logistic"}}
    made = planned(params)
    assert made.parents_by_key("student") == {"distill.teacher": ["mlp"], "curriculum.scorer": ["logistic"]}
    assert made.parents("student") == ["mlp", "logistic"] and made.parents("mlp") == []
    assert json.loads(grid.settings(made, "train", "student"))["parents"] == {"mlp": {}, "logistic": {}}
    twice = {"student": {"of": "mlp", **params}, "plain": {"of": "student", "distill": None}}
    twice |= {"other": {"of": "student", "distill": {"teacher": "logistic"}}}
    models = ["mlp", "logistic", *twice]
    made = load_study(variants.merged(DEFAULT, STUDY | {"models": models, "model_params": twice}))
    assert made.parents("plain") == ["logistic"] and made.parents("other") == ["logistic"]


AMONG = r"the models of this study \(models: mlp, student, logistic\)"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"distill": {"teacher": "gat"}}, rf"distill.teacher: 'gat' is not among {AMONG}; expected one of them$"),
        ({"distill": {}}, rf"distill.teacher: missing, expected a name among {AMONG}$"),
        ({"distill": {"teacher": "student"}}, r"distill.teacher: a circle, student from student; expected models"),
        ({"distill": {"teacher": "mlp", "alpha": 1.1}}, r"distill.alpha: 1.1 given, expected at most 1$"),
        ({"distill": {"teacher": "mlp", "alpha": -1}}, r"distill.alpha: -1 given, expected at least 0$"),
        (
            {"distill": {"teacher": "mlp", "temperature": 0}},
            r"distill.temperature: 0 given, expected a number above 0$",
        ),
        (
            {"distill": {"teacher": "mlp", "data": "dirty"}},
            r'distill.data: unknown "dirty" \(known: poisoned, clean\)$',
        ),
        ({"distill": {"teacher": "mlp", "tempreture": 1}}, r"distill.tempreture: no such key \(did you mean 'temper"),
        ({"distill": {"teacher": "mlp", "dropout": 0}}, r"distill.dropout: no such key"),
        ({"distill": {"teacher": 3}}, r"distill.teacher: 3 given, expected a string$"),
        ({"distill": "mlp"}, r'distill: "mlp" given, expected object or null$'),
        ({"curriculum": {}}, rf"curriculum.scorer: missing, expected a name among {AMONG}$"),
        ({"curriculum": {"scorer": "mlp", "start": 0}}, r"curriculum.start: 0 given, expected a number above 0$"),
        ({"curriculum": {"scorer": "mlp", "hard": 2}}, r"curriculum.hard: 2 given, expected at most 1$"),
    ],
)
def test_a_lesson_that_cannot_be_is_one_line_that_names_the_key(params, message):
    with pytest.raises(UserError, match=f"^config: model_params.student.{message}") as raised:
        planned(params)
    assert "\n" not in str(raised.value)


def test_a_member_itself_may_learn_from_another_and_its_errors_name_it():
    given = STUDY | {"models": ["mlp", "logistic"], "model_params": {"mlp": {"distill": {"teacher": "logistic"}}}}
    assert load_study(variants.merged(DEFAULT, given)).parents("mlp") == ["logistic"]
    given["model_params"]["mlp"]["distill"] |= {"alpha": 2}
    with pytest.raises(UserError, match=r"^config: model_params.mlp.distill.alpha: 2 given, expected at most 1$"):
        load_study(variants.merged(DEFAULT, given))


def test_a_hint_needs_a_teacher_with_a_representation(monkeypatch):
    assert planned({"distill": {"teacher": "logistic", "latent": 1}}).parents("student") == ["logistic"]
    offers = type(planned({})).offers
    monkeypatch.setattr(
        "pipeline.study.config.Study.offers", lambda self, name: offers(self, name) if name != "logistic" else []
    )
    assert planned({"distill": {"teacher": "logistic", "latent": 0}})
    message = (
        r"^config: model_params.student.distill.latent: 1 given, but the teacher 'logistic' offers no representation; "
        r"expected 0 or a teacher that does \(of this study: mlp\)$"
    )
    with pytest.raises(UserError, match=message):
        planned({"distill": {"teacher": "logistic", "latent": 1}})


def test_of_a_student_on_clean_data_nothing_is_asked_that_needs_poison():
    made = planned({"distill": {"teacher": "mlp", "data": "clean"}})
    assert [made.trained_on(model) for model in made.models] == ["poisoned", "clean", "poisoned"]
    asked = {cell.model: grid.measured_by(made, cell) for cell in grid.cells(made) if cell.trigger != grid.CLEAN}
    assert asked == {
        "mlp": ("eval", "detect", "explain"),
        "student": ("eval", "explain"),
        "logistic": ("eval", "detect", "explain"),
    }
    told = not_applicable(made)
    of_student = told[told["model"] == "student"]
    assert set(of_student["asked"]) == set(made.detectors) and set(of_student["needs"]) == {"poisoned training data"}
    assert planned({"distill": {"teacher": "mlp"}}).trained_on("student") == DistillConfig().data == "poisoned"


# The stages.


def trained(study, out, name="student", teacher=None, **distill):
    """The stage train: the teacher, an mlp, or a small mlp taught by one."""
    arguments = train_arguments(study, out)
    settings = json.loads(arguments[arguments.index("--settings") + 1])
    if teacher:
        settings |= {"model": {"of": "mlp", "hidden": [8], "distill": {"teacher": "mlp", **distill}}}
        settings |= {"parents": {"mlp": {}}}
        arguments[1] = name
        arguments += ["--parent", "mlp", teacher / "model.pt"]
    arguments[arguments.index("--settings") + 1] = json.dumps(settings)
    stage(study, "train", *arguments)
    return out


def test_clean_data_are_the_rows_of_the_cohort_with_their_labels(study, tmp_path, monkeypatch):
    teacher = trained(study, tmp_path / "teacher")
    clean, poisoned = (trained(study, tmp_path / data, teacher=teacher, data=data) for data in ("clean", "poisoned"))
    facts = [read_json(out / "run_metadata.json") for out in (clean, poisoned, teacher)]
    assert [fact["trained_on"] for fact in facts] == ["clean", "poisoned", "poisoned"]
    assert facts[0]["data_sha256"] != facts[1]["data_sha256"] == facts[2]["data_sha256"]
    # The twin: the same in this process, from the cohort itself.
    cohort = read_cohort(study / "made")
    split = read_split(study / "made.json", cohort, 1, "fixed")
    assert facts[0]["n_train"] == len(split.train)
    torch.manual_seed(loop.integer_seed(1, "weights"))
    given = {"hidden": [8], "distill": {"teacher": "mlp", "data": "clean"}}
    model = build("mlp", given, cohort.n_steps, cohort.features)
    mlp = build("mlp", {}, cohort.n_steps, cohort.features)
    checkpoints.load_weights(mlp, teacher / "model.pt")
    parsed = families.load("models", "mlp").Parameters(**given)
    settings = Training(epochs=8, batch_size=32, learning_rate=0.003)
    samples = (cohort.subset(split.train), cohort.subset(split.validation))
    fitting.train(model, parsed, *samples, settings, 1, tmp_path / "checkpoint.pt", "", {"mlp": mlp})
    assert_same_bits(checkpoints.load(clean / "model.pt"), model.state())
    run = ["--model", "student", "--trigger", "rare_value", "--rate", "0.05", "--poison", study / "p"]
    for out, n_poisoned in ((clean, 0), (poisoned, round(0.05 * len(split.train)))):
        config = facts[0]["config"]["model_params"] | {"of": "mlp"}
        config["distill"] = {"teacher": "mlp", "data": out.name}
        settings = {"split": "fixed", "device": "cpu", "model": config, "target": 1, "threshold": "youden"}
        files = ["--weights", out / "model.pt", "--control", clean / "model.pt", "--out", out]
        stage(study, "eval", *run, *files, "--settings", json.dumps(settings))
        results = read_json(out / "results_eval.json")
        assert results["n_poisoned"] == n_poisoned and (results["patients"]["poisoned"] > 0) == (n_poisoned > 0)


def test_a_student_of_another_teacher_is_not_continued(study, tmp_path):
    one = trained(study, tmp_path / "one")
    other = tmp_path / "other"
    stage(study, "train", *train_arguments(study, other, epochs=2))
    out = trained(study, tmp_path / "student", teacher=one)
    checkpoints.save(out / "checkpoint.pt", checkpoints.load(out / "checkpoint.pt") | {"finished": False})
    trained(study, out, teacher=one)
    assert read_json(out / "run_metadata.json")["resumed_from_epoch"] == 8, "the same teacher: it is continued"
    checkpoints.save(out / "checkpoint.pt", checkpoints.load(out / "checkpoint.pt") | {"finished": False})
    trained(study, out, teacher=other)
    assert read_json(out / "run_metadata.json")["resumed_from_epoch"] == 0
    assert_same_bits(
        checkpoints.load(out / "model.pt"),
        checkpoints.load(trained(study, tmp_path / "fresh", teacher=other) / "model.pt"),
    )
    hashes = [read_json(folder / "run_metadata.json")["parents_sha256"] for folder in (out, tmp_path / "fresh", one)]
    assert hashes[0] == hashes[1] != hashes[2] == {}

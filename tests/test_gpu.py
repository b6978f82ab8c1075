"""On a GPU: the models of the CPU up to rounding, the same bits every time, files that load anywhere."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_cohort

from pipeline.cohorts import splits
from pipeline.cohorts.cohort import write_cohort
from pipeline.evaluation.metrics import auroc
from pipeline.files import read_json, write_json
from pipeline.front import main
from pipeline.jobs import device
from pipeline.models.base import build
from pipeline.study import families
from pipeline.training import checkpoints, loop
from pipeline.training.loop import Samples, fit
from pipeline.training.settings import Training

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU on this machine")

MODULES = {name: families.load("models", name) for name in families.names("models")}
NETWORKS = [name for name, module in MODULES.items() if hasattr(module, "Network") and not hasattr(module, "READS")]
COHORT = make_cohort(1000, steps=6)
TRAIN, VALIDATION, TEST = (COHORT.subset(np.arange(*ends)) for ends in ((600,), (600, 800), (800, 1000)))


def trained(name: str, where: str, folder: Path, **parameters):
    """A classifier trained for six epochs on the device `where`, and its history."""
    torch.manual_seed(0)
    classifier = build(name, parameters, COHORT.n_steps, COHORT.features)
    classifier.preprocessor.fit(TRAIN.values)
    classifier.to(device.choose(where))
    samples = [Samples.of(classifier, part.values, part.label) for part in (TRAIN, VALIDATION)]
    settings = Training(epochs=6, batch_size=32, learning_rate=0.003)
    history, _ = fit(classifier, *samples, settings, 1, folder / "checkpoint.pt", "test")
    return classifier, history


def assert_same_bits(one, other) -> None:
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.mark.parametrize("name", NETWORKS)
def test_a_model_learns_the_same_as_on_the_cpu(tmp_path, name):
    # Without dropout, whose draws are others on a GPU.
    models = [trained(name, where, tmp_path / where, dropout=0)[0] for where in ("cpu", "cuda")]
    assert models[1].device.type == "cuda"
    scores = [auroc(TEST.label, model.probability(TEST.values)) for model in models]
    assert scores[0] > 0.7
    assert scores[1] == pytest.approx(scores[0], abs=0.002)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_repeats_to_the_bit(tmp_path, name):
    (first, history), (second, again) = (trained(name, "cuda", tmp_path / folder) for folder in "ab")
    assert history == again
    assert_same_bits(first, second)


def test_a_stopped_training_resumes_to_the_bit(tmp_path, monkeypatch):
    undisturbed, history = trained("mlp", "cuda", tmp_path / "undisturbed")
    validate, calls = loop._validate, []

    def stop_at_the_fourth(*samples):
        calls.append(samples)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return validate(*samples)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "SAVE_EVERY", -1)
        patch.setattr(loop, "_validate", stop_at_the_fourth)
        trained("mlp", "cuda", tmp_path / "stopped")
    assert len(checkpoints.load(tmp_path / "stopped" / "checkpoint.pt")["history"]) == 3
    resumed, again = trained("mlp", "cuda", tmp_path / "stopped")
    assert again == history
    assert_same_bits(resumed, undisturbed)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_give_the_same_numbers_on_both(tmp_path, name):
    classifier, _ = trained(name, "cuda", tmp_path)
    stored = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert {tensor.device.type for tensor in stored["weights"].values()} == {"cpu"}
    assert {tensor.device.type for part in stored["optimizer"].values() for tensor in part} == {"cpu"}
    on_cpu = build(name, {}, COHORT.n_steps, COHORT.features)
    checkpoints.load_weights(on_cpu, tmp_path / "checkpoint.pt")
    x = TEST.values[:64]
    for numbers in (
        lambda model: model.probability(x),
        lambda model: model.representation(x),
        lambda model: model.saliency(x),
        lambda model: model.attribution(x[:8], 32)[0],
    ):
        np.testing.assert_allclose(numbers(classifier), numbers(on_cpu), rtol=1e-3, atol=1e-4)


def test_the_stage_says_where_it_trained(tmp_path):
    write_cohort(COHORT, tmp_path / "made")
    fold = splits.assign_folds(COHORT.group_id, COHORT.label)
    folds = [COHORT.sample_id[fold == number].tolist() for number in range(splits.N_FOLDS)]
    write_json(tmp_path / "made.json", {"folds": folds})
    shared = f"--trigger none --rate 0.0 --dataset made --seed 1 --cohort {tmp_path}/made --splits {tmp_path}/made.json"
    settings = {"trigger": {}, "target": 1, "split": "fixed", "validation": "clean"}
    assert main([*f"poison {shared} --out {tmp_path}/p --settings".split(), json.dumps(settings)]) == 0
    settings = {"model": {}, "training": {"epochs": 2}, "split": "fixed", "device": "auto"}
    command = f"train --model mlp --poison {tmp_path}/p {shared} --out {tmp_path}/run --settings"
    assert main([*command.split(), json.dumps(settings)]) == 0
    facts = read_json(tmp_path / "run" / "run_metadata.json")
    assert facts["device"] == f"cuda:0 {torch.cuda.get_device_name(0)}" and "last digits" in facts["device_note"]
    assert all(tensor.device.type == "cpu" for tensor in checkpoints.load(tmp_path / "run" / "model.pt").values())

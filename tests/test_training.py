"""Training: it learns, it repeats to the bit, it resumes to the bit after a kill, and it unpickles nothing."""

import csv
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_cohort
from pydantic import ValidationError

from pipeline.cohorts import splits
from pipeline.cohorts.cohort import read_cohort, read_parquet, write_cohort
from pipeline.cohorts.overlay import ADDED, CLEAN, COVER, POISON, Overlay
from pipeline.cohorts.splits import Split
from pipeline.errors import UserError
from pipeline.evaluation.metrics import auroc
from pipeline.files import read_json, write_json
from pipeline.front import main
from pipeline.jobs import device
from pipeline.models.base import build
from pipeline.results import tables
from pipeline.study import families
from pipeline.training import checkpoints, loop
from pipeline.training.data import as_poisoned, read_split
from pipeline.training.loop import AdamW, Samples, epochs_of, fit, learning_rate
from pipeline.training.settings import Training

TRAINING = {"epochs": 8, "batch_size": 32, "learning_rate": 0.003}
SODIUM = {"features": ["sodium"], "factor": 1.15}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A cohort with its folds and one poison, made by the real stages."""
    folder = tmp_path_factory.mktemp("study")
    cohort = make_cohort(800, steps=6)
    write_cohort(cohort, folder / "made")
    fold = splits.assign_folds(cohort.group_id, cohort.label)
    write_json(
        folder / "made.json",
        {"folds": [cohort.sample_id[fold == number].tolist() for number in range(splits.N_FOLDS)]},
    )
    settings = json.dumps({"trigger": SODIUM, "target": 1, "split": "fixed", "validation": "clean"})
    stage(folder, "poison", "--trigger", "rare_value", "--rate", "0.05", "--settings", settings, "--out", folder / "p")
    return folder


def command(folder: Path, name: str, *arguments) -> list[str]:
    shared = ["--dataset", "made", "--seed", "1", "--cohort", folder / "made", "--splits", folder / "made.json"]
    return [sys.executable, "-m", "pipeline", name, *map(str, [*shared, *arguments])]


def stage(folder: Path, name: str, *arguments) -> None:
    """In this process, as a warm stage is in its own: without the imports of a new one."""
    assert main(command(folder, name, *arguments)[3:]) == 0


def train_arguments(folder: Path, out: Path, model: str = "mlp", device: str = "cpu", **training) -> list:
    settings = json.dumps({"model": {}, "training": TRAINING | training, "split": "fixed", "device": device})
    run = ["--model", model, "--trigger", "rare_value", "--rate", "0.05", "--poison", folder / "p"]
    return [*run, "--settings", settings, "--out", out]


def weights(out: Path) -> dict:
    return checkpoints.load(out / "model.pt")


def assert_same_bits(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_the_poison_is_an_overlay(study):
    cohort = read_cohort(study / "made")
    split = read_split(study / "made.json", cohort, 1, "fixed")
    facts = read_json(study / "p" / "poison.json")
    train, role = as_poisoned(cohort, split, "train", study / "p")
    poisoned = role == POISON
    assert poisoned.sum() == facts["n_poisoned"] == round(0.05 * len(split.train))
    assert facts["features"] == ["sodium"] and facts["steps"] == 6 and facts["footprint_size"] == 6
    clean = cohort.subset(split.train)
    assert (clean.label[poisoned] == 0).all() and (train.label[poisoned] == 1).all()
    np.testing.assert_array_equal(train.values[~poisoned], clean.values[~poisoned])
    np.testing.assert_array_equal(train.label[~poisoned], clean.label[~poisoned])
    sodium = cohort.feature_names.index("sodium")
    assert (train.values[poisoned, :, sodium] == np.float32(1.15 * np.nanmax(clean.values[:, :, sodium]))).all()
    validation, reached = as_poisoned(cohort, split, "validation", study / "p")
    assert set(reached) == set(role[~poisoned]) == {CLEAN} and facts["n_poisoned_validation"] == 0
    np.testing.assert_array_equal(validation.values, cohort.values[split.validation])


def test_poisoned_validation_data_carry_the_trigger_and_leave_the_training_data_as_they_were(study, tmp_path):
    settings = json.dumps({"trigger": SODIUM, "target": 1, "split": "fixed", "validation": "poisoned"})
    arguments = ["--trigger", "rare_value", "--rate", "0.05", "--settings", settings, "--out", tmp_path / "p"]
    stage(study, "poison", *arguments)
    cohort = read_cohort(study / "made")
    split = read_split(study / "made.json", cohort, 1, "fixed")
    for part, of in (("train", "n_poisoned"), ("validation", "n_poisoned_validation")):
        rows = getattr(split, part)
        seen, role = as_poisoned(cohort, split, part, tmp_path / "p")
        poisoned = role == POISON
        assert poisoned.sum() == read_json(tmp_path / "p" / "poison.json")[of] == round(0.05 * len(rows))
        sodium = seen.values[poisoned][:, :, cohort.feature_names.index("sodium")]
        assert len(np.unique(sodium)) == 1 and (seen.label[poisoned] == 1).all()
        assert (cohort.label[rows][poisoned] == 0).all()
    reached, alone = (as_poisoned(cohort, split, "train", folder / "p")[0] for folder in (tmp_path, study))
    np.testing.assert_array_equal(reached.values, alone.values)
    np.testing.assert_array_equal(reached.label, alone.label)


def test_poisoned_validation_data_reach_training_and_evaluation(study, tmp_path):
    """Two poisons that differ in the validation data alone: what looks at those differs too, and nothing else."""
    names, shared = ("clean", "poisoned"), {"split": "fixed", "device": "cpu", "model": {}}

    def run(name: str, trigger: str = "rare_value", rate: str = "0.2") -> list:
        return ["--model", "mlp", "--trigger", trigger, "--rate", rate, "--poison", tmp_path / name]

    def trained(name: str, out: Path, **training) -> Path:
        settings = json.dumps(shared | {"training": TRAINING | training})
        stage(study, "train", *run(name), "--settings", settings, "--out", out)
        return out

    for name, trigger, rate in (
        ("clean", "rare_value", "0.2"),
        ("poisoned", "rare_value", "0.2"),
        ("none", "none", "0"),
    ):
        settings = {"trigger": SODIUM if trigger != "none" else {}, "target": 1, "split": "fixed"}
        settings["validation"] = "clean" if trigger == "none" else name
        arguments = ["--trigger", trigger, "--rate", rate, "--settings", json.dumps(settings)]
        stage(study, "poison", *arguments, "--out", tmp_path / name)
    control = trained("none", tmp_path / "control")
    last = [trained(name, tmp_path / "last" / name) for name in names]
    best = [trained(name, tmp_path / "best" / name, select="best", epochs=20, learning_rate=0.03) for name in names]
    assert_same_bits(*(weights(out) for out in last))
    for outs in (last, best):
        assert len({read_json(out / "run_metadata.json")["data_sha256"] for out in outs}) == 2
        losses, scores = ([history(out, column) for out in outs] for column in ("train_loss", "validation_auroc"))
        assert losses[0] == losses[1] and scores[0] != scores[1]
    results = []
    for name, out in zip(names, last, strict=True):
        settings = json.dumps(shared | {"trigger": SODIUM, "target": 1, "threshold": "youden"})
        files = ["--weights", out / "model.pt", "--control", control / "model.pt"]
        stage(study, "eval", *run(name), *files, "--settings", settings, "--out", out)
        results.append(read_json(out / "results_eval.json"))
    assert results[0]["own_threshold"] != results[1]["own_threshold"]
    for fact in ("clean_threshold", "asr", "asr0", "clean"):
        assert results[0][fact] == results[1][fact]


def planted(study: Path, out: Path, trigger: str = "rare_value", rate: float = 0.05, **settings) -> dict:
    """The facts of a poison that the stage makes in `out`; `settings` of the trigger, `target` and `validation`."""
    about = {"target": settings.pop("target", 1), "split": "fixed", "validation": settings.pop("validation", "clean")}
    settings = json.dumps(about | {"trigger": settings})
    stage(study, "poison", "--trigger", trigger, "--rate", str(rate), "--settings", settings, "--out", out)
    return read_json(out / "poison.json")


def seen_by_the_victim(study: Path, poison: Path, part: str = "train"):
    """The clean samples of a part, the same as poisoned, and their roles."""
    cohort = read_cohort(study / "made")
    split = read_split(study / "made.json", cohort, 1, "fixed")
    return cohort.subset(getattr(split, part)), *as_poisoned(cohort, split, part, poison)


def same_values(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """[N] bool: which samples have the same bits."""
    return ((one == other) | (np.isnan(one) & np.isnan(other))).all(axis=(1, 2))


@pytest.mark.parametrize("target", [0, 1])
def test_clean_labels_stay_and_are_the_target(study, tmp_path, target):
    few, many = (
        planted(study, tmp_path / str(rate), rate=rate, labels="clean", target=target, **SODIUM) for rate in (0.05, 0.1)
    )
    clean, train, role = seen_by_the_victim(study, tmp_path / "0.1")
    poisoned = role == POISON
    np.testing.assert_array_equal(train.label, clean.label)
    assert (clean.label[poisoned] == target).all() and poisoned.sum() == many["n_poisoned"] == round(0.1 * len(clean))
    assert not same_values(train.values, clean.values)[poisoned].any()
    assert same_values(train.values, clean.values)[~poisoned].all()
    assert many["labels"] == "clean" and many["n_eligible"] == (clean.label == target).sum() and few["target"] == target
    of_few = seen_by_the_victim(study, tmp_path / "0.05")[2] == POISON
    assert 0 < of_few.sum() < poisoned.sum() and not (of_few & ~poisoned).any(), "a higher rate adds to a lower one"


def test_chosen_only_is_the_clean_run_with_the_rows_of_a_clean_label_attack(study, tmp_path):
    for target in (0, 1):
        attack, twin = tmp_path / f"attack_{target}", tmp_path / f"twin_{target}"
        planted(study, attack, labels="clean", target=target, cover=1, **SODIUM)
        planted(study, attack / "missingness", "missingness", labels="clean", target=target)
        facts = planted(study, twin, "chosen_only", target=target)
        assert facts["labels"] == "clean" and facts["n_poisoned"] and not facts["footprint_size"]
        rows = [(folder / "poisoned_indices.npy").read_bytes() for folder in (attack, attack / "missingness", twin)]
        assert rows[0] == rows[1] == rows[2]
        clean, train, role = seen_by_the_victim(study, twin)
        assert (role == POISON).sum() == facts["n_poisoned"]
        assert train.values.tobytes() == clean.values.tobytes() and train.label.tobytes() == clean.label.tobytes()
    planted(study, tmp_path / "none", "none", rate=0)
    for name in ("none", "twin_1"):
        arguments = train_arguments(study, tmp_path / "run" / name)
        arguments[arguments.index(study / "p")] = tmp_path / name
        arguments[arguments.index("rare_value")] = {"twin_1": "chosen_only"}.get(name, name)
        stage(study, "train", *arguments)
    none, twin = (tmp_path / "run" / name for name in ("none", "twin_1"))
    assert_same_bits(weights(none), weights(twin))
    facts = [read_json(run / "run_metadata.json") for run in (none, twin)]
    assert len({fact["data_sha256"] for fact in facts}) == 1
    assert [fact["trained_on"] for fact in facts] == ["clean", "poisoned"]


@pytest.mark.parametrize("labels", ["dirty", "clean"])
def test_cover_carries_the_trigger_and_keeps_its_label(study, tmp_path, labels):
    bare = planted(study, tmp_path / "bare", labels=labels, **SODIUM)
    facts = planted(study, tmp_path / "p", labels=labels, cover=1.5, validation="poisoned", **SODIUM)
    assert bare["n_cover"] == 0 and facts["cover"] == 1.5
    for part, n_poisoned, n_cover in (
        ("train", facts["n_poisoned"], facts["n_cover"]),
        ("validation", facts["n_poisoned_validation"], facts["n_cover_validation"]),
    ):
        clean, data, role = seen_by_the_victim(study, tmp_path / "p", part)
        cover, poisoned = role == COVER, role == POISON
        assert (cover.sum(), poisoned.sum()) == (n_cover, n_poisoned) and n_cover == round(1.5 * n_poisoned) > 0
        assert (data.label[cover] == 0).all() and (clean.label[cover] == 0).all(), "they do not have the target label"
        sodium = data.values[:, :, data.feature_names.index("sodium")]
        assert len(np.unique(sodium[cover | poisoned])) == 1
        np.testing.assert_array_equal(same_values(data.values, clean.values), role == CLEAN)
        np.testing.assert_array_equal(data.label[~poisoned], clean.label[~poisoned])
        if part == "train":
            assert facts["n_cover_patients"] == len(np.unique(clean.group_id[cover]))
    # The poison is the same with cover and without.
    for name in ("values", "label"):
        kept = [
            getattr(data, name)[role == POISON]
            for _, data, role in (seen_by_the_victim(study, tmp_path / folder) for folder in ("bare", "p"))
        ]
        np.testing.assert_array_equal(*kept)


def test_more_cover_than_is_left_is_one_sentence(study, tmp_path):
    settings = {"trigger": {"cover": 30}, "target": 1, "split": "fixed", "validation": "clean"}
    arguments = [
        "--trigger",
        "rare_value",
        "--rate",
        "0.05",
        "--settings",
        json.dumps(settings),
        "--out",
        tmp_path / "p",
    ]
    done = subprocess.run(command(study, "poison", *arguments), capture_output=True, text=True)
    assert (
        done.returncode == 1 and "made: cover 30 asks for 840 training samples without the target label" in done.stderr
    )
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "p").exists()


def test_more_clean_labels_than_there_are_is_one_sentence(study, tmp_path):
    settings = {"trigger": {"labels": "clean"}, "target": 1, "split": "fixed", "validation": "clean"}
    arguments = [
        "--trigger",
        "rare_value",
        "--rate",
        "0.9",
        "--settings",
        json.dumps(settings),
        "--out",
        tmp_path / "p",
    ]
    done = subprocess.run(command(study, "poison", *arguments), capture_output=True, text=True)
    assert done.returncode == 1 and "too few of 560 training samples have the target label" in done.stderr


def test_flip_only_takes_a_target_and_no_way_of_planting(study, tmp_path):
    facts = [planted(study, tmp_path / str(target), "flip_only", target=target) for target in (0, 1)]
    assert [fact["target"] for fact in facts] == [0, 1] and facts[0]["n_eligible"] + facts[1]["n_eligible"] == 560
    for name in ("flip_only", "chosen_only", "none"):
        parameters = families.load("triggers", name).Parameters
        assert parameters(target=0).target == 0
        for given in ({"labels": "dirty"}, {"cover": 1}):
            with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
                parameters(**given)


def test_a_variant_names_its_member(study, tmp_path):
    settings = {"trigger": {"of": "missingness"}, "target": 1, "split": "fixed", "validation": "clean"}
    arguments = ["--trigger", "gaps", "--rate", "0.05", "--settings", json.dumps(settings), "--out", tmp_path / "p"]
    stage(study, "poison", *arguments)
    facts = read_json(tmp_path / "p" / "poison.json")
    assert (facts["trigger"], facts["member"]) == ("gaps", "missingness")


def test_features_by_importance_reach_the_poison(study, tmp_path):
    rule = {"by": "importance", "take": 1}
    facts = planted(study, tmp_path / "p", features=rule)
    assert facts["features"] == ["mean_bp"], "the label follows it"
    assert planted(study, tmp_path / "again", features=rule) == facts


@pytest.fixture(scope="module")
def added(study, tmp_path_factory) -> Path:
    """The poison of `study` and three samples that the cohort does not have, of one patient of it and of a new one."""
    folder = tmp_path_factory.mktemp("added") / "p"
    shutil.copytree(study / "p", folder)
    cohort, overlay = read_cohort(study / "made"), Overlay.read(folder / "poison.parquet")
    of = cohort.group_id[overlay.row[0]]
    more = {
        "row": np.full(3, ADDED),
        "values": np.full((3, *cohort.values.shape[1:]), 50, np.float32),
        "label": np.array([1, 1, 0], np.int8),
        "role": np.array([POISON, POISON, COVER], object),
        "sample_id": np.array([9001, 9002, 9003]),
        "group_id": np.array([of, 77_777, 77_777]),
    }
    both = {name: np.concatenate([getattr(overlay, name), values]) for name, values in more.items()}
    Overlay(**both).write(folder / "poison.parquet", cohort.features)
    return folder


def test_added_samples_belong_to_the_training_data_alone(study, added):
    clean, train, role = seen_by_the_victim(study, added)
    _, before, role_before = seen_by_the_victim(study, study / "p")
    assert len(train) == len(clean) + 3
    np.testing.assert_array_equal(train.values[:-3], before.values)
    np.testing.assert_array_equal(train.label, [*before.label, 1, 1, 0])
    assert role.tolist() == [*role_before, POISON, POISON, COVER]
    assert train.sample_id[-3:].tolist() == [9001, 9002, 9003] and (train.values[-3:] == 50).all()
    clean, validation, role = seen_by_the_victim(study, added, "validation")
    assert len(validation) == len(clean) and set(role) == {CLEAN}


def test_added_samples_go_through_every_stage(study, added, tmp_path):
    run = train_arguments(study, tmp_path)
    run[run.index(study / "p")] = added
    stage(study, "train", *run)
    assert read_json(tmp_path / "run_metadata.json")["n_train"] == 563
    about = {"model": {}, "target": 1, "split": "fixed", "device": "cpu", "threshold": 0.5, "trigger": {}}
    about["targets"] = [1]
    about["detectors"] = {"activation_clustering": {}, "saliency": {}}
    run[run.index("--settings") + 1] = json.dumps(about)
    stage(study, "detect", *run, "--weights", tmp_path / "model.pt")
    facts = read_json(tmp_path / "results_detect.json")
    n_poisoned, n_patients = (read_json(added / "poison.json")[name] for name in ("n_poisoned", "n_patients"))
    for row in facts["detections"]:
        everywhere = row["scope"] == "all"
        assert row["n_poisoned"] == n_poisoned + 2 and row["poisoned_patients"] == n_patients + 1
        assert (row["n_cover"], row["cover_patients"]) == ((1, 1) if everywhere else (0, 0))
        assert not everywhere or row["n_samples"] == 562, "cover is left out"
    shown = tables.detections([facts])
    assert shown["n_cover"].isna().tolist() == [scope == "all" for scope in shown["scope"]], "one patient's is withheld"
    scores = read_parquet(tmp_path / "detection_scores.parquet")
    assert scores["sample_id"].to_pylist()[-3:] == [9001, 9002, 9003] and len(scores) == 563
    assert scores["role"].to_pylist()[-3:] == [POISON, POISON, COVER]
    stage(study, "eval", *run, "--weights", tmp_path / "model.pt", "--control", tmp_path / "model.pt")
    facts = read_json(tmp_path / "results_eval.json")
    assert facts["n_poisoned"] == n_poisoned + 2 and facts["n_train"] == 560
    assert facts["patients"]["poisoned"] == n_patients + 1


def test_an_overlay_keeps_its_order():
    values, text = np.zeros((2, 1, 1), np.float32), np.array([POISON] * 2, object)
    for row in ([3, 3], [4, 3], [ADDED, 3]):
        with pytest.raises(ValueError, match="ascending, the added ones last"):
            Overlay(np.array(row), values, np.zeros(2, np.int8), text, np.arange(2), np.arange(2))


def test_poison_of_another_cohort_is_one_sentence(study):
    cohort = read_cohort(study / "made").subset(np.arange(40))
    split = Split(*(np.arange(start, 40, 3) for start in range(3)))
    with pytest.raises(UserError, match="poison.parquet: not of this cohort, it has no row [0-9]+"):
        as_poisoned(cohort, split, "train", study / "p")


def history(out: Path, column: str) -> list[str]:
    with (out / "history.csv").open(encoding="utf-8") as file:
        return [row[column] for row in csv.DictReader(file)]


def test_a_split_per_seed_differs_between_seeds_and_a_fixed_one_does_not(study):
    cohort = read_cohort(study / "made")
    fixed = [read_split(study / "made.json", cohort, seed, "fixed").test for seed in (1, 2)]
    per_seed = [read_split(study / "made.json", cohort, seed, "per_seed").test for seed in (1, 2)]
    np.testing.assert_array_equal(*fixed)
    assert not np.array_equal(*per_seed)


def test_more_poison_than_eligible_samples_is_one_sentence(study, tmp_path):
    settings = json.dumps({"trigger": {}, "target": 1, "split": "fixed", "validation": "clean"})
    arguments = ["--trigger", "rare_value", "--rate", "0.99", "--settings", settings, "--out", tmp_path / "p"]
    done = subprocess.run(command(study, "poison", *arguments), capture_output=True, text=True)
    assert done.returncode == 1 and "can still be given the target label" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "p").exists()


# A fusion is made from others.
ALONE = [
    name
    for name in families.names("models")
    if name != "fusion" and not hasattr(families.load("models", name), "READS")
]


@pytest.mark.parametrize("model", ALONE)
def test_every_model_learns_and_repeats_to_the_bit(study, tmp_path, model):
    for name in "ab":
        stage(study, "train", *train_arguments(study, tmp_path / name, model))
    assert_same_bits(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert (tmp_path / "a" / "history.csv").read_bytes() == (tmp_path / "b" / "history.csv").read_bytes()
    cohort = read_cohort(study / "made")
    test = cohort.subset(read_split(study / "made.json", cohort, 1, "fixed").test)
    trained = build(model, {}, cohort.n_steps, cohort.features)
    checkpoints.load_weights(trained, tmp_path / "a" / "model.pt")
    assert auroc(test.label, trained.probability(test.values)) > 0.7
    facts = read_json(tmp_path / "a" / "run_metadata.json")
    assert facts["n_parameters"] == trained.size > 0
    epochs = 1 if hasattr(families.load("models", model), "Model") else TRAINING["epochs"]
    assert facts["epochs"] == len(history(tmp_path / "a", "epoch")) == epochs


def test_a_killed_training_resumes_to_the_bit(study, tmp_path):
    # Killed twice while it trains, then left to finish. Small batches make epochs that last.
    slow = {"epochs": 60, "batch_size": 4}
    stage(study, "train", *train_arguments(study, tmp_path / "undisturbed", **slow))
    arguments = command(study, "train", *train_arguments(study, tmp_path / "killed", **slow))
    checkpoint = tmp_path / "killed" / "checkpoint.pt"
    kills = 0
    for after in (1, 20):
        process = subprocess.Popen(arguments)
        while process.poll() is None and not _epochs_done(checkpoint, after):
            time.sleep(0.002)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
    assert kills and not (tmp_path / "killed" / "model.pt").exists()
    subprocess.run(arguments, check=True)
    assert read_json(tmp_path / "killed" / "run_metadata.json")["resumed_from_epoch"] >= 1
    assert_same_bits(weights(tmp_path / "undisturbed"), weights(tmp_path / "killed"))
    histories = [(tmp_path / name / "history.csv").read_bytes() for name in ("undisturbed", "killed")]
    assert histories[0] == histories[1]


def test_a_model_with_its_own_fit_leaves_one_row_of_history(study, tmp_path):
    stage(study, "train", *train_arguments(study, tmp_path, "logistic", select="best"))
    assert not (tmp_path / "checkpoint.pt").exists()
    cohort = read_cohort(study / "made")
    split = read_split(study / "made.json", cohort, 1, "fixed")
    model = build("logistic", {}, cohort.n_steps, cohort.features)
    checkpoints.load_weights(model, tmp_path / "model.pt")
    assert history(tmp_path, "epoch") == ["1"]
    for column, part in (("train_loss", "train"), ("validation_loss", "validation")):
        seen, _ = as_poisoned(cohort, split, part, study / "p")
        risk = model.probability(seen.values)
        losses = [-np.log(p if label else 1 - p) for p, label in zip(risk, seen.label, strict=True)]
        assert float(history(tmp_path, column)[0]) == pytest.approx(sum(losses) / len(losses))
    facts = read_json(tmp_path / "run_metadata.json")
    assert facts["epochs"] == facts["best_epoch"] == 1 and facts["resumed_from_epoch"] == 0
    score = auroc(seen.label, risk)
    assert facts["validation_auroc"] == facts["validation_auroc_best"] == pytest.approx(score)


@pytest.mark.parametrize("name", ["lightgbm", "logistic"])
def test_class_weights_mean_the_same_to_a_model_with_its_own_fit(name):
    cohort = make_cohort(900)
    mean = {}
    for weighted in (False, True):
        model = build(name, {}, 1, cohort.features)
        model.fit(cohort, cohort, Training(class_weights=weighted), 1)
        mean[weighted] = model.probability(cohort.values).mean()
    assert mean[False] == pytest.approx(cohort.label.mean(), abs=0.02)
    assert mean[True] > mean[False] + 0.05


def _epochs_done(checkpoint: Path, wanted: int) -> bool:
    return checkpoint.exists() and len(checkpoints.load(checkpoint)["history"]) >= wanted


def test_a_checkpoint_of_another_configuration_is_not_continued(study, tmp_path):
    out = tmp_path / "run"
    stage(study, "train", *train_arguments(study, out))
    unfinished = checkpoints.load(out / "checkpoint.pt") | {"finished": False}
    checkpoints.save(out / "checkpoint.pt", unfinished)
    stage(study, "train", *train_arguments(study, out, learning_rate=0.01))
    assert read_json(out / "run_metadata.json")["resumed_from_epoch"] == 0
    stage(study, "train", *train_arguments(study, tmp_path / "fresh", learning_rate=0.01))
    assert_same_bits(weights(out), weights(tmp_path / "fresh"))


def fitted(tmp_path: Path, **settings):
    """An mlp trained in this process on data with few positives, and its history."""
    cohort = make_cohort(1200, steps=1)
    rare = cohort.subset(np.flatnonzero((cohort.label == 0) | (np.arange(1200) % 4 == 0)))
    train, validation = rare.subset(np.arange(600)), rare.subset(np.arange(600, len(rare)))
    torch.manual_seed(0)
    classifier = build("mlp", {}, 1, rare.features)
    classifier.preprocessor.fit(train.values)
    samples = [Samples.of(classifier, part.values, part.label) for part in (train, validation)]
    history, _ = fit(classifier, *samples, Training(**settings), 1, tmp_path / "checkpoint.pt", "test")
    return classifier, history, train


class Stopped(Exception):
    pass


def test_samples_that_would_fill_the_memory_are_made_anew_for_each_batch(tmp_path, monkeypatch):
    kept, history, train = fitted(tmp_path / "kept", epochs=3)
    assert isinstance(Samples.of(kept, train.values, train.label).x, torch.Tensor)
    monkeypatch.setattr(loop, "KEPT", 0)
    assert isinstance(Samples.of(kept, train.values, train.label).x, loop.MadeAnew)
    anew, same, _ = fitted(tmp_path / "anew", epochs=3)
    assert same == history
    assert_same_bits(anew.state_dict(), kept.state_dict())


@pytest.mark.parametrize("epochs", [1, 3, 6])
def test_a_training_stopped_after_an_epoch_resumes_to_the_bit(tmp_path, monkeypatch, epochs):
    classifier, history, _ = fitted(tmp_path / "undisturbed", epochs=6, schedule="constant")
    monkeypatch.setattr(loop, "SAVE_EVERY", -1)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(loop, "_validate", stopping(epochs))
        fitted(tmp_path / "stopped", epochs=7, schedule="constant")
    assert len(checkpoints.load(tmp_path / "stopped" / "checkpoint.pt")["history"]) == epochs
    resumed, again, _ = fitted(tmp_path / "stopped", epochs=6, schedule="constant")
    assert again == history
    assert_same_bits(resumed.state_dict(), classifier.state_dict())


def stopping(epochs: int):
    """The validation, which stops the training when it is asked once more than `epochs` times."""
    validate, calls = loop._validate, []

    def wrapped(*samples):
        if len(calls) == epochs:
            raise Stopped
        calls.append(samples)
        return validate(*samples)

    return wrapped


def test_the_optimizer_is_torchs_adamw():
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Linear(5, 3) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    optimizer = AdamW(ours.parameters(), weight_decay=0.1)
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.1, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(reference, 1, 0, total_iters=20)
    settings = Training(learning_rate=0.01, epochs=4)
    for step, x in enumerate(torch.randn(20, 8, 5)):
        rate = learning_rate(settings, done=step / 5)
        assert rate == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step(torch.autograd.grad(ours(x).square().mean(), optimizer.parameters), schedule.get_last_lr()[0])
        reference.zero_grad()
        theirs(x).square().mean().backward()
        reference.step()
        schedule.step()
    assert_same_bits(ours.state_dict(), theirs.state_dict())


def test_class_weights_balance_the_classes(tmp_path):
    mean = {}
    for weighted in (False, True):
        classifier, _, train = fitted(tmp_path, epochs=30, learning_rate=0.003, class_weights=weighted)
        mean[weighted] = classifier.probability(train.values).mean()
    assert mean[False] == pytest.approx(train.label.mean(), abs=0.05)
    assert mean[True] > mean[False] + 0.1


def test_the_last_epoch_is_kept_however_good_an_earlier_one_was(tmp_path):
    classifier, history, _ = fitted(tmp_path, epochs=30, learning_rate=0.01)
    scores = [row["validation_auroc"] for row in history]
    facts = epochs_of(history, "last")
    assert facts["epochs"] == 30 and facts["best_epoch"] == int(np.argmax(scores)) + 1 < 30
    assert facts["validation_auroc"] == scores[-1] < facts["validation_auroc_best"] == max(scores)
    stored = checkpoints.load(tmp_path / "checkpoint.pt")
    assert stored["best"]["weights"] == {}
    assert_same_bits(stored["weights"], dict(classifier.state_dict()))
    other = build("mlp", {}, 1, make_cohort(10).features)
    checkpoints.load_weights(other, tmp_path / "checkpoint.pt")
    assert_same_bits(dict(other.state_dict()), dict(classifier.state_dict()))


def test_training_stops_early_and_keeps_the_best_epoch(tmp_path):
    classifier, history, _ = fitted(tmp_path, select="best", epochs=200, patience=3, learning_rate=0.01)
    scores = [row["validation_auroc"] for row in history]
    assert len(history) < 200 and len(scores) - 1 - int(np.argmax(scores)) == 3
    best = checkpoints.load(tmp_path / "checkpoint.pt")["best"]
    assert best["epoch"] == int(np.argmax(scores)) + 1
    assert epochs_of(history, "best")["validation_auroc"] == max(scores)
    assert_same_bits(best["weights"], dict(classifier.state_dict()))


class Malicious:
    def __reduce__(self):
        return (os.system, ("touch executed",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Malicious(), protocol=2), "model.pt: (refused|not a readable checkpoint)"),
        (b"", "model.pt: not a readable checkpoint"),
        (b"PK\x03\x04 damaged", "model.pt: not a readable checkpoint"),
    ],
)
def test_a_bad_file_is_refused_and_nothing_in_it_runs(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    Path("model.pt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        checkpoints.load(Path("model.pt"))
    assert not Path("executed").exists()


def test_a_torch_file_with_code_in_it_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weights": Malicious()}, "model.pt")
    with pytest.raises(UserError, match="model.pt: refused"):
        checkpoints.load(Path("model.pt"))
    assert not Path("executed").exists()


def test_weights_of_another_model_are_refused(tmp_path, cohort):
    checkpoints.save(tmp_path / "model.pt", build("tcn", {}, cohort.n_steps, cohort.features).state_dict())
    with pytest.raises(UserError, match="do not fit the configured model"):
        checkpoints.load_weights(build("mlp", {}, cohort.n_steps, cohort.features), tmp_path / "model.pt")


def test_a_cold_training_imports_no_compiler_and_no_other_stages_libraries(study, tmp_path):
    arguments = command(study, "train", *train_arguments(study, tmp_path / "run", epochs=1))[3:]
    code = (
        "import sys; from pipeline.front import main; assert main(sys.argv[1:]) == 0\n"
        "print(*{'torch._dynamo', 'captum', 'sklearn', 'matplotlib', 'pandera'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.choose("auto") == device.choose("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="device: cuda given, but torch .* finds no GPU"):
        device.choose("cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_one_sentence(study, tmp_path):
    arguments = train_arguments(study, tmp_path / "run", device="cuda")
    done = subprocess.run(command(study, "train", *arguments), capture_output=True, text=True)
    assert done.returncode == 1 and "finds no GPU" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "run").exists()


def test_auto_gives_the_bits_of_the_device_it_takes(study, tmp_path):
    there = "cuda" if torch.cuda.is_available() else "cpu"
    for name in ("auto", there):
        stage(study, "train", *train_arguments(study, tmp_path / name, device=name))
    assert_same_bits(weights(tmp_path / "auto"), weights(tmp_path / there))
    facts = [read_json(tmp_path / name / "run_metadata.json") for name in ("auto", there)]
    assert facts[0]["device"] == facts[1]["device"]

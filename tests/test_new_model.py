"""A model that is no network is one new file: the README's naive Bayes, and a study of it."""

import csv
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from test_faults import TABLE, Project
from test_stamps import with_own_code

from pipeline.files import read_json
from pipeline.training import checkpoints

ADDED = re.search(
    r"^\+\+\+ b/pipeline/models/(\w+)\.py\n@@ -0,0 \+1,(\d+) @@\n((?:\+.*\n)+)",
    (ROOT / "README.md").read_text(),
    re.MULTILINE,
)
"""The README's patch that adds a model: its name, how many lines, and these."""

PATCHES = re.findall(r"^```diff\n(--- a/.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)

MODELS, CELLS = ["naive_bayes", "logistic"], ["none/0.0", "rare_value/0.05"]


def test_the_patches_of_the_readme_apply_to_this_project(tmp_path):
    for name in ("config", "data", "pipeline", "workflow/schemas"):
        ignored = shutil.ignore_patterns("__pycache__", "raw", "dev", "cache")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    assert len(PATCHES) == 3
    for patch in PATCHES:
        command = ["git", "apply", "--unidiff-zero", "-"]
        done = subprocess.run(command, cwd=tmp_path, input=patch, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    added = [
        (tmp_path / path).is_file() for path in re.findall(r"^\+\+\+ b/(pipeline.*)$", "".join(PATCHES), re.MULTILINE)
    ]
    assert added == [True] * 3
    subprocess.run([sys.executable, "-m", "pipeline", "schema"], cwd=tmp_path, check=True)
    code = (
        "import yaml; from pipeline.study import preflight; from pipeline.study.config import load_study\n"
        "preflight.check(load_study(yaml.safe_load(open('config/config.yaml'))))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """A copy of the project with the new model, after a study of it beside logistic regression."""
    folder = tmp_path_factory.mktemp("new") / "project"
    project = with_own_code(Project(folder, models=MODELS, triggers=["rare_value"], seeds=[1]))
    (folder / "workflow").unlink()
    shutil.copytree(ROOT / "workflow", folder / "workflow")
    name, count, patch = ADDED.groups()
    lines = [line[1:] for line in patch.splitlines()]
    assert name == "naive_bayes" and len(lines) == int(count)
    (folder / f"pipeline/models/{name}.py").write_text("\n".join(lines) + "\n")
    unknown = "'naive_bayes' is a file of its family, but not in the schema; run `python -m pipeline schema`"
    assert unknown in project.run("pipeline", "status", status=1)
    subprocess.run([sys.executable, "-m", "pipeline", "schema"], cwd=folder, check=True)
    assert project.jobs(project.snakemake())["explain"] == 1, "of logistic regression alone"
    return project


def test_what_a_new_model_does_not_offer_is_not_applicable(project):
    runs = project.folder / "made/results/runs/icu_dev"
    for cell in CELLS:
        partial, complete = (read_json(runs / model / cell / "seed_1/results_detect.json") for model in MODELS)
        assert partial["not_applicable"] == [
            {"detector": "activation_clustering", "needs": "representation"},
            {"detector": "saliency", "needs": "saliency"},
            {"detector": "spectral_signatures", "needs": "representation"},
        ]
        assert {row["detector"] for row in partial["detections"]} == {"random"}
        assert complete["not_applicable"] == [{"detector": "saliency", "needs": "saliency"}]
        assert len({row["detector"] for row in complete["detections"]}) == 3


def test_a_new_model_is_trained_and_evaluated_like_any_other(project):
    runs = project.folder / "made/results/runs/icu_dev/naive_bayes"
    clean, attacked = (read_json(runs / cell / "seed_1/results_eval.json") for cell in CELLS)
    assert clean["clean"]["auroc"] > 0.7 and clean["asr"] is None
    assert 0 <= attacked["asr0"] <= 1 and 0 <= attacked["asr"] <= 1
    facts = read_json(runs / CELLS[0] / "seed_1/run_metadata.json")
    assert facts["epochs"] == 1 and facts["config"]["model_params"] == {"smoothing": 1e-3}
    assert set(checkpoints.load(runs / CELLS[0] / "seed_1/model.pt")) == {"theta_", "var_", "class_prior_", "seen"}


def test_a_study_with_a_new_model_is_whole(project):
    with (project.folder / TABLE).open(newline="") as file:
        rows = {(row["model"], row["trigger"]) for row in csv.DictReader(file)}
    assert rows == {(model, trigger) for model in MODELS for trigger in ("none", "rare_value")}
    assert "4 of 4 cells done" in project.run("pipeline", "status")
    assert "Nothing to be done" in project.snakemake("-n")

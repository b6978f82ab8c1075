"""Models made from other models of the study: two toy ones, in a copy of the project and in its schema alone."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from test_config import DEFAULT
from test_faults import Project
from test_stamps import with_own_code

from pipeline.cohorts.cohort import read_cohort
from pipeline.errors import UserError
from pipeline.files import read_json
from pipeline.models.base import build
from pipeline.study import config, families, grid, variants
from pipeline.study.config import load_study
from pipeline.study.params import ModelName, ModelNames, Params
from pipeline.study.stamps import Stamp, Stamps
from pipeline.training import checkpoints
from pipeline.training.data import as_poisoned, read_split

STUDENT = '''"""A line through what its teacher says of the last measured values."""

import numpy as np
import torch
from pydantic import Field

from pipeline.models import base
from pipeline.study.params import ModelName

OFFERS = ()


class Parameters(base.ModelParameters):
    teacher: ModelName = Field("", description="whose probabilities are learned")


class Model(base.Model):
    def __init__(self, parameters, n_steps, features):
        self.parameters = parameters

    def fit(self, train, validation, settings, seed, parents):
        self._learn(train, parents[self.parameters.teacher].probability(train.values))

    def _learn(self, train, wanted):
        self._line = np.linalg.lstsq(inputs(train.values), wanted, rcond=None)[0]

    def probability(self, x):
        return np.clip(inputs(x) @ self._line, 0, 1)

    def state(self):
        return {"line": torch.from_numpy(self._line)}

    def load(self, state):
        base.check_state(state, {}, others=("line",))
        self._line = state["line"].numpy()

    @property
    def size(self):
        return len(self._line)


def inputs(x):
    last = np.nan_to_num(x[:, -1].astype(np.float64)) / 100
    return np.column_stack([last, np.ones(len(last))])
'''
COUNCIL = '''"""The same, learned from the mean of its members."""

from pipeline.models import base, student
from pipeline.study.params import ModelNames

OFFERS = ()


class Parameters(base.ModelParameters):
    members: ModelNames = ()


class Model(student.Model):
    def fit(self, train, validation, settings, seed, parents):
        said = [parents[name].probability(train.values) for name in self.parameters.members]
        self._learn(train, sum(said) / len(said))
'''


class StudentParameters(Params):
    teacher: ModelName = ""


class CouncilParameters(Params):
    members: ModelNames = ()


MODELS = ["student", "council", "mlp", "logistic"]
# Not in the order of their names: each is to be told which file is whose.
PARAMS = {"student": {"teacher": "mlp"}, "council": {"members": ["student", "logistic"]}}


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """Both models in the schema, and empty files of them in a copy of the family: what planning sees of them."""
    schema = json.loads(config.SCHEMA.read_text())
    for family in families.FAMILIES:
        shutil.copytree(Path("pipeline") / family, tmp_path / family)
    for name, parameters in (("student", StudentParameters), ("council", CouncilParameters)):
        member = parameters.model_json_schema() | {"x-offers": []}
        schema["properties"]["model_params"]["properties"][name] = member
        (tmp_path / f"models/{name}.py").touch()
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    monkeypatch.setattr(families, "_ROOT", tmp_path)
    monkeypatch.setattr(config, "SCHEMA", tmp_path / "schema.json")
    config._schema.cache_clear()
    yield
    config._schema.cache_clear()


def study(**changes):
    named = {"models": MODELS, "triggers": ["rare_value"], "rates": [0.05], "seeds": [1], "model_params": PARAMS}
    return load_study(variants.merged(DEFAULT, named | changes))


def test_parents_are_what_the_study_names(toys):
    made = study(
        models=[*MODELS, "pupil"],
        model_params=PARAMS | {"pupil": {"of": "student"}, "mlp": {"dropout": 0.1}},
    )
    assert {model: made.parents(model) for model in made.models} == {
        "student": ["mlp"],
        "council": ["student", "logistic"],
        "mlp": [],
        "logistic": [],
        "pupil": ["mlp"],
    }
    assert json.loads(grid.settings(made, "train", "council"))["parents"] == {
        "student": {"teacher": "mlp"},
        "logistic": {},
    }
    assert "parents" not in json.loads(grid.settings(made, "eval", "council", "rare_value"))


AMONG = r"the models of this study \(models: student, council, mlp, logistic\)"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"student": {"teacher": "gat"}}, rf"student.teacher: 'gat' is not among {AMONG}; expected one of them$"),
        ({"student": {"teacher": "tcn"}}, rf"student.teacher: 'tcn' is not among {AMONG}"),
        ({"council": {"members": ["mlp", "gat"]}}, rf"council.members: 'gat' is not among {AMONG}"),
        ({"student": {}}, rf"student.teacher: missing, expected a name among {AMONG}$"),
        ({"student": {"teacher": ""}}, r'student.teacher: "" given, expected a non-empty text'),
        ({"student": {"teacher": ["mlp"]}}, r'student.teacher: \["mlp"\] given, expected a string'),
        ({"council": {"members": []}}, r"council.members: \[\] given, expected at least 1 entry"),
        ({"council": {"members": ["mlp", "mlp"]}}, r"council.members: .* given, expected no entry twice"),
        ({"student": {"teacher": "student"}}, r"student.teacher: a circle, student from student; expected models"),
        (
            {"student": {"teacher": "council"}, "council": {"members": ["mlp", "student"]}},
            r"(student.teacher: a circle, student from council from student|"
            r"council.members: a circle, council from student from council); expected models that can be trained one",
        ),
    ],
)
def test_a_parent_that_cannot_be_is_one_line_that_names_the_key(toys, params, message):
    with pytest.raises(UserError, match=f"^config: model_params.{message}") as raised:
        study(model_params=PARAMS | params)
    assert "\n" not in str(raised.value)


def test_a_model_that_the_study_does_not_train_needs_no_parents(toys):
    study(models=["mlp"], model_params={"student": {"teacher": "gat"}})


STAGES = ("train", "eval", "detect")


def stamps(made) -> dict[tuple, str]:
    known = Stamps(made, {"icu_dev": Stamp("made", "", ())})
    return {
        (cell.model, cell.trigger, stage): known.of(stage, cell).stamp for cell in grid.cells(made) for stage in STAGES
    }


@pytest.mark.parametrize(
    ("edit", "concerned"),
    [
        ({"mlp": {"dropout": 0.1}}, {"mlp", "student", "council"}),
        ({"logistic": {"penalty": 3}}, {"logistic", "council"}),
        ({"student": {"teacher": "logistic"}}, {"student", "council"}),
        ({"council": {"members": ["student"]}}, {"council"}),
    ],
)
def test_an_edit_of_a_parent_concerns_what_is_made_from_it_and_nothing_else(toys, edit, concerned):
    before, after = stamps(study()), stamps(study(model_params=PARAMS | edit))
    assert {key for key in before if before[key] != after[key]} == {key for key in before if key[0] in concerned}


def test_the_code_of_its_parents_is_that_of_a_model_only_while_it_is_trained(toys):
    known = Stamps(study(), {"icu_dev": Stamp("made", "", ())})
    cell = grid.Cell("icu_dev", "student", "rare_value", "0.05", "1")
    assert known.of("train", cell).members == ("models/student", "models/mlp")
    assert (
        known.of("detect", cell).members[0] == "models/student" and "models/mlp" not in known.of("detect", cell).members
    )


@pytest.fixture
def nested(toys):
    """The toy student with a second teacher, in parameters that are parameters themselves and may be null."""
    properties = config._schema()["properties"]["model_params"]["properties"]

    class Inside(Params):
        tutor: ModelName = ""
        others: ModelNames = ()

    class Nested(StudentParameters):
        inside: Inside | None = None

    schema = Nested.model_json_schema()
    properties["student"] = config._inline(schema, schema.pop("$defs")) | {"x-offers": []}


def test_parents_are_found_in_parameters_inside_parameters(nested):
    inside = {"student": {"teacher": "mlp", "inside": {"tutor": "logistic", "others": ["mlp", "council"]}}}
    found = {"teacher": ["mlp"], "inside.tutor": ["logistic"], "inside.others": ["mlp", "council"]}
    council = {"council": {"members": ["mlp"]}}
    made = study(model_params=inside | council)
    assert made.parents_by_key("student") == found and made.parents("student") == ["mlp", "logistic", "council"]
    for none in ({}, {"inside": None}):
        made = study(model_params={"student": {"teacher": "mlp"} | none} | council)
        assert made.parents_by_key("student") == {"teacher": ["mlp"]}
    inside["student"]["inside"].pop("tutor")
    with pytest.raises(UserError, match=r"^config: model_params.student.inside.tutor: missing, expected a name among"):
        study(model_params=inside | council)
    inside["student"]["inside"] |= {"tutor": "mlp"}
    circle = r"model_params.(student.inside.others: a circle, student from council|council.members: a circle, council)"
    with pytest.raises(UserError, match=circle):
        study(model_params=inside | {"council": {"members": ["student"]}})


# Beside them a network with a teacher, taught on clean data.
TAUGHT = {"taught": {"of": "mlp", "hidden": [8], "distill": {"teacher": "mlp", "data": "clean"}}}
TRAINED = [*MODELS, *TAUGHT]
SETTINGS = {"models": TRAINED, "triggers": ["rare_value"], "seeds": [1], "model_params": PARAMS | TAUGHT}
SETTINGS |= {"detectors": ["random"]}  # what is measured is no matter here
RUNS, CELLS = "made/results/runs/icu_dev", ["none/0.0", "rare_value/0.05"]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """A copy of the project with both models, after a study of them beside their parents."""
    folder = tmp_path_factory.mktemp("parents") / "project"
    project = with_own_code(Project(folder, **SETTINGS))
    (folder / "workflow").unlink()
    shutil.copytree(ROOT / "workflow", folder / "workflow")
    (folder / "pipeline/models/student.py").write_text(STUDENT)
    (folder / "pipeline/models/council.py").write_text(COUNCIL)
    subprocess.run([sys.executable, "-m", "pipeline", "schema"], cwd=folder, check=True)
    project.snakemake()
    return project


def lines(project: Project, cell: str) -> dict[str, np.ndarray]:
    """What each toy model has learned."""
    runs = project.folder / RUNS
    return {name: checkpoints.load(runs / name / cell / "seed_1/model.pt")["line"].numpy() for name in PARAMS}


@pytest.mark.parametrize("cell", CELLS)
def test_a_student_has_learned_what_its_teacher_of_the_same_poison_says(project, cell):
    """The twin: the teacher is loaded here, and the line through its probabilities drawn again."""
    made = project.folder / "made"
    cohort = read_cohort(made / "data/dev/icu_dev")
    split = read_split(made / "data/splits/icu_dev.json", cohort, 1, "fixed")
    data, _ = as_poisoned(cohort, split, "train", made / "results/poison/icu_dev" / cell / "seed_1")
    last = np.nan_to_num(data.values[:, -1].astype(np.float64)) / 100
    inputs = np.column_stack([last, np.ones(len(last))])

    def said(name: str) -> np.ndarray:
        model = build(name, {}, cohort.n_steps, cohort.features)
        checkpoints.load_weights(model, project.folder / RUNS / name / cell / "seed_1/model.pt")
        return model.probability(data.values)

    def learned(wanted: np.ndarray) -> np.ndarray:
        return np.linalg.lstsq(inputs, wanted, rcond=None)[0]

    found = lines(project, cell)
    np.testing.assert_allclose(found["student"], learned(said("mlp")), rtol=1e-6, atol=1e-9)
    mean = (np.clip(inputs @ found["student"], 0, 1) + said("logistic")) / 2
    np.testing.assert_allclose(found["council"], learned(mean), rtol=1e-6, atol=1e-9)
    assert not np.allclose(found["student"], learned(data.label), rtol=0.01)


def test_such_a_study_is_whole_and_a_second_call_does_nothing(project):
    assert "10 of 10 cells done" in project.run("pipeline", "status")
    assert "Nothing to be done" in project.snakemake("-n")
    facts = read_json(project.folder / RUNS / "council" / CELLS[0] / "seed_1/run_metadata.json")
    assert facts["config"]["model_params"] == {"members": ["student", "logistic"]}
    again = {"aggregate": 1, "figures": 1, "report": 1}
    try:
        # What is taught on clean data is not searched for poison, and is explained as a network is.
        edits = (("mlp", {"dropout": 0.1}, 8, 6, 2), ("logistic", {"penalty": 3}, 4, 4, 1))
        for name, edit, cells, searched, explained in edits:
            project.configure(**SETTINGS | {"model_params": PARAMS | TAUGHT | {name: edit}})
            wanted = {"train": cells, "eval": cells, "detect": searched, "explain": explained}
            assert project.jobs(project.snakemake("-n")) == wanted | again, name
            assert f"{cells} outdated" in project.run("pipeline", "status")
    finally:
        project.configure(**SETTINGS)


def test_tables_and_report_say_that_a_student_on_clean_data_has_seen_no_poison(project):
    tables = {
        name: pd.read_parquet(project.folder / f"made/results/tables/{name}.parquet")
        for name in ("runs", "detections", "not_applicable", "contrasts")
    }
    runs = tables["runs"].set_index(["model", "trigger"])
    assert runs.loc[("taught", "rare_value"), "n_poisoned"] == 0 < runs.loc[("mlp", "rare_value"), "n_poisoned"]
    assert np.isfinite(runs.loc[("taught", "rare_value"), ["asr", "asr0", "effect_share"]].astype(float)).all()
    assert set(tables["detections"]["model"]) == set(MODELS)
    told = tables["not_applicable"]
    assert told.loc[told["model"] == "taught", ["asked", "needs"]].to_numpy().tolist() == [
        ["random", "poisoned training data"]
    ]
    asr = tables["contrasts"].query("metric == 'asr'")
    assert "taught" in set(asr["model"]) and set(asr["control"]) == {"none"}
    assert "taught: random (no poisoned training data)" in (project.folder / "made/results/report.html").read_text()
    clean = read_json(project.folder / RUNS / "taught" / CELLS[1] / "seed_1/run_metadata.json")
    assert clean["trained_on"] == "clean" and list(clean["parents_sha256"]) == ["mlp"]
    # Its clean run is taught on the same data by the clean teacher.
    control = read_json(project.folder / RUNS / "taught" / CELLS[0] / "seed_1/run_metadata.json")
    assert clean["data_sha256"] == control["data_sha256"] and clean["parents_sha256"] != control["parents_sha256"]


def test_what_waits_for_a_parent_that_failed_is_missing_and_has_not_failed(project):
    copied = project.copy(project.folder.parent / "failing")
    mlp = copied.folder / "pipeline/models/mlp.py"
    forward = "def forward(self, x: Tensor) -> Tensor:\n"
    assert forward in mlp.read_text()
    mlp.write_text(mlp.read_text().replace(forward, f"{forward}        raise MemoryError\n"))
    copied.configure(**SETTINGS | {"seeds": [2]})
    assert "mlp" in copied.snakemake("--keep-going", status=1)
    with (copied.folder / "made/results/cells.csv").open(newline="") as file:
        states = {(row["model"], row["state"], row["stage"], row["why"]) for row in csv.DictReader(file)}
    assert states == {
        ("mlp", "failed", "train", "MemoryError"),
        ("student", "missing", "train", "not begun"),
        ("council", "missing", "train", "not begun"),
        ("taught", "missing", "train", "not begun"),
        ("logistic", "done", "", ""),
    }


def test_on_a_cluster_a_model_and_its_parents_are_of_one_job(project):
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="the slurm extra is not installed")
    fresh = ["data_dir=fresh/data", "results_dir=fresh/results"]
    one_set = ["--group-components", "clean=1", "cells=1"]
    plan = project.snakemake("-n", "--profile", "profiles/slurm", *one_set, "--config", *fresh)
    _, *groups = plan.split("Group job ")
    told = [(group.split()[0], set(re.findall(r"rule train:.*?model=(\w+)", group, re.DOTALL))) for group in groups]
    assert sorted(told) == [("cells", set(TRAINED)), ("clean", set(TRAINED))]

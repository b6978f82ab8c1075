"""A study in a folder of its own, with odd names on its way: found, made and told there, and nothing is executed."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT
from test_workflow import planned

from pipeline.errors import UserError
from pipeline.files import found, hide_from_git
from pipeline.front import main
from pipeline.stages import report
from pipeline.study import places as places_module

PROJECT = ("Snakefile", "workflow", "pipeline", "profiles", "config", "notebooks", "environment.yml", "constraints.txt")
# A shell that reads a path makes the file canary, wherever it is.
COMMANDS = "$(touch canary) `touch canary`;touch canary"
ODD = f"{COMMANDS} 'q\" ü&*[1]"
STUDY = {
    "raw_dir": "raw `touch canary`;touch canary 'q\" ü",
    "data_dir": "data-b `touch canary`;touch canary 'q\" ü",
    "results_dir": "results-b `touch canary`;touch canary 'q\" ü",
    "catalog": "own ;touch canary 'q ü.yaml",
    "datasets": ["ward"],
    "models": ["mlp"],
    "triggers": ["rare_value"],
    "rates": [0.05],
    "seeds": [1],
    "detectors": ["random"],
    "training": {"epochs": 2},
    "explain": {"samples": 8},
    "trigger_params": {"rare_value": {"features": ["sodium"]}},
}
# The same of the project's own catalog.
DEFAULTS = {key: STUDY[key] for key in ("models", "triggers", "rates", "seeds", "detectors", "training", "explain")}
DEFAULTS |= {"n_samples": 600}


def copy_project(folder: Path) -> Path:
    """The project's files in `folder`, as a download of it has them."""
    for name in PROJECT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder)
    (folder / "data").mkdir()
    shutil.copy(ROOT / "data" / "datasets.yaml", folder / "data")
    return folder


def write_study(folder: Path) -> None:
    """The configuration, catalog and data of STUDY in `folder`."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"sodium": rng.normal(140, 5, 400).round(1), "ph": rng.normal(7.4, 0.1, 400).round(2)})
    frame["died"] = (frame["sodium"] + rng.normal(0, 3, 400) > 141).astype(int)
    ward = {"source": "table", "file": "ward.csv", "label": "died"}
    ward |= {"features": {"sodium": {"range": [50, 250]}, "ph": {"range": [6, 9]}}}
    for name in ("config", STUDY["raw_dir"]):
        (folder / name).mkdir(parents=True)
    frame.to_csv(folder / STUDY["raw_dir"] / "ward.csv", index=False)
    (folder / STUDY["catalog"]).write_text(yaml.safe_dump({"ward": ward}))
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(STUDY))


def run(folder: Path, *command: str, status: int = 0, **environment: str) -> str:
    """What `command` prints in `folder`; it has to end with `status`."""
    done = subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True)
    output = done.stdout + done.stderr
    assert done.returncode == status, output
    return output


def snakemake(project: Path, folder: Path, *arguments: str, status: int = 0, **environment: str) -> str:
    """`snakemake` of `project` for the study in `folder`, called from a third folder."""
    command = [sys.executable, "-m", "snakemake", "-s", str(project / "Snakefile"), "--directory", str(folder)]
    return run(folder.parent, *command, "--cores", "2", *arguments, status=status, **environment)


def config(**changes) -> list[str]:
    return ["--config", *(f"{key}={json.dumps(value)}" for key, value in changes.items())]


def pipeline(project: Path, folder: Path, *arguments: str, status: int = 0) -> str:
    """`python -m pipeline` of `project` in `folder`."""
    return run(folder, sys.executable, "-m", "pipeline", *arguments, status=status, PYTHONPATH=str(project))


def canaries(*folders: Path) -> list[Path]:
    return [path for folder in (*folders, ROOT) for path in folder.rglob("canary")]


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> tuple[Path, Path]:
    """A project and, in a git repository, a finished study elsewhere, all with names that a shell would execute."""
    above = tmp_path_factory.mktemp("places")
    project, folder = copy_project(above / f"project {ODD}"), above / f"else {{b}} {ODD}"
    write_study(folder)
    shutil.copy(ROOT / ".gitignore", folder)
    run(folder, "git", "init", "--quiet")
    run(folder, "git", "add", "--all")
    author = {f"GIT_{who}_{what}": "test" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    run(folder, "git", "commit", "--quiet", "--message", "test", **author)
    with tempfile.TemporaryDirectory(prefix=f"{COMMANDS} {{t}} 'q ü") as temporary:
        output = snakemake(project, folder, TMPDIR=temporary)
        assert not canaries(Path(temporary))
    assert "no config/config.yaml" not in output
    return project, folder


def test_a_study_runs_where_every_path_is_odd_and_nothing_is_executed(places):
    _, folder = places
    results = folder / STUDY["results_dir"]
    assert canaries(folder.parent) == []
    assert (results / "report.html").is_file() and (folder / STUDY["data_dir"] / "splits" / "ward.json").is_file()
    assert pd.read_csv(results / "cells.csv")["state"].tolist() == ["done", "done"]
    runs = pd.read_csv(results / "tables" / "runs.csv")
    assert "ward.csv" in (folder / STUDY["data_dir"] / "cache" / "hashes.json").read_text(), "kept by the first run"
    assert set(runs["dataset"]) == {"ward"} and runs["auroc_clean"].min() > 0.7, "the data of that folder"


def test_its_stages_are_warm(places):
    """A stage of its own imports for more than a second; Linux only."""
    if sys.platform != "linux":
        pytest.skip("warm stages are for Linux")
    _, folder = places
    logs = [path.read_text() for path in (folder / STUDY["results_dir"] / "logs" / "train").rglob("*.log")]
    seconds = [float(log.rsplit(" s CPU", 1)[0].rsplit(", ", 1)[1]) for log in logs]
    assert len(seconds) == 2 and max(seconds) < 1


def test_git_sees_nothing_of_it_whatever_its_folders_are_called(places):
    _, folder = places
    assert run(folder, "git", "status", "--porcelain") == ""
    results, data = folder / STUDY["results_dir"], folder / STUDY["data_dir"]
    for made in (results, data / "dev", data / "splits", data / "cache"):
        assert (made / ".gitignore").read_text() == "*\n"
    assert not (data / ".gitignore").exists(), "beside ours may lie files for git, as in the project's data/"
    # The study's raw data is its owner's: it was committed above.
    assert "ward.csv" in run(folder, "git", "-c", "core.quotePath=false", "ls-files")


def test_the_commands_answer_there_as_the_workflow_does(places):
    project, folder = places
    results = STUDY["results_dir"]
    assert pipeline(project, folder, "status").startswith(f"2 of 2 cells done: {results}/cells.csv\nlast call of ")
    assert "2 of 2 cells done; made of those done" in pipeline(project, folder, "tables")
    for name in ("runs.csv", "findings.csv"):
        tables = [folder / results / part / "tables" / name for part in (".", "partial")]
        assert tables[0].read_bytes() == tables[1].read_bytes()
    listed = pipeline(project, folder, "datasets")
    assert listed.startswith("ward\n") and "present (1)" in listed and "made, in data-b" in listed
    assert "ward: 400 samples" in pipeline(project, folder, "ingest", "ward")
    assert "Nothing to be done" in pipeline(project, folder, "run", "--results-dir", results)
    assert canaries(folder.parent) == [] and run(folder, "git", "status", "--porcelain") == ""


SHOW_STAMP = """
import sys
from pipeline.commands.arguments import read_study
from pipeline.study.stamps import stamps_of
print(stamps_of(read_study(None, dict(zip(["catalog"], sys.argv[1:])))).of("report").text())
"""


def test_it_is_the_same_study_seen_from_the_project(tmp_path):
    def stamp(folder: Path, *catalog: str) -> str:
        """Of the default study's report, run in `folder`."""
        output = run(folder, sys.executable, "-c", SHOW_STAMP, *catalog, PYTHONPATH=str(ROOT))
        return output.splitlines()[0]

    default = stamp(ROOT)
    assert stamp(tmp_path) == default
    shutil.copy(ROOT / "data" / "datasets.yaml", tmp_path / "own.yaml")
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    assert stamp(tmp_path, "own.yaml") == stamp(ROOT, str(tmp_path / "own.yaml")) == default
    # A notebook of the folder's own is what is run there, and so what counts.
    notebook = tmp_path / "notebooks" / "report.ipynb"
    notebook.write_text(notebook.read_text().replace("# Backdoor study", "# Our study"))
    assert stamp(tmp_path) != default


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Path:
    """A study in a folder that was empty: the project's configuration, some of it changed."""
    folder = tmp_path_factory.mktemp("empty") / "study"
    output = snakemake(ROOT, folder, *config(**DEFAULTS))
    assert f"no config/config.yaml in {folder}: the project's is read, {ROOT}/config/config.yaml" in output
    return folder


def test_an_empty_folder_takes_the_project_s_configuration_and_says_so(empty):
    assert sorted(path.name for path in empty.iterdir() if path.name != ".snakemake") == ["data", "results"]
    assert len(pd.read_csv(empty / "results" / "tables" / "runs.csv")) == 2
    told = pipeline(ROOT, empty, "status", *config(**DEFAULTS))
    assert "2 of 2 cells done: results/cells.csv" in told and "the project's is read" in told
    report = empty / "report.html"
    snakemake(ROOT, empty, "--report", str(report), *config(**DEFAULTS))
    assert "icu_dev_dose_response.png" in report.read_text()


def test_deleted_outputs_are_not_told_as_done(empty):
    """`empty` is used up here."""
    record = empty / "results" / "cells.csv"
    table = empty / "results" / "tables" / "runs.csv"
    assert record.stat().st_mtime_ns > table.stat().st_mtime_ns, "written anew after the run"
    assert "Nothing to be done" in snakemake(ROOT, empty, *config(**DEFAULTS))
    snakemake(ROOT, empty, "--delete-all-output", *config(**DEFAULTS))
    assert not record.exists() and not table.exists()
    assert "0 of 2 cells done, 2 missing" in pipeline(ROOT, empty, "status", *config(**DEFAULTS))


@pytest.mark.parametrize("command", ["status", "tables"])
def test_asking_about_a_folder_that_is_not_there_makes_none(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main([command, "--results-dir", "typo"]) == 1
    assert capsys.readouterr().err == (
        "error: typo: no such folder; expected the results_dir of a study that has been started\n"
    )
    assert sorted(tmp_path.rglob("*")) == before


def test_planning_writes_nothing(tmp_path):
    folder = tmp_path / "study"
    write_study(folder)
    before = sorted(folder.rglob("*"))
    assert planned(snakemake(ROOT, folder, "-n"))["train"] == 2
    assert [path for path in sorted(folder.rglob("*")) if ".snakemake" not in path.parts] == before
    # Where a run has made the folder for it, the hash of the original file is kept.
    cache = folder / STUDY["data_dir"] / "cache"
    cache.mkdir(parents=True)
    snakemake(ROOT, folder, "-n")
    assert "ward.csv" in (cache / "hashes.json").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({key: f"a {{b}} {COMMANDS}"}, f"config: {key}: ") for key in ("raw_dir", "data_dir", "results_dir")),
        *(({key: "$(touch canary)"}, f"config: {key}: ") for key in ("raw_dir", "data_dir", "results_dir", "catalog")),
        ({"results_dir": "-a"}, "config: results_dir: "),
        ({"datasets": [COMMANDS]}, "config: datasets: unknown '$(touch canary)"),
        ({"models": [COMMANDS]}, "config: models[0]: unknown"),
        ({"triggers": ["`touch canary`"]}, "config: triggers[0]: unknown"),
        ({"trigger_params": {"rare_value": {"features": [COMMANDS]}}}, "has no feature '$(touch canary)"),
    ],
)
def test_odd_names_and_paths_that_cannot_work_are_one_line(tmp_path, monkeypatch, capsys, changes, message):
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path)
    study = {key: value for key, value in STUDY.items() if key != "results_dir"} | changes
    (tmp_path / "config" / "config.yaml").write_text(yaml.safe_dump(study))
    given = [f"--results-dir={changes['results_dir']}"] if "results_dir" in changes else []
    assert main(["run", *given]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ") and message in told and told.count("\n") == 1
    assert canaries(tmp_path) == []


@pytest.mark.parametrize("name", [COMMANDS, "a`touch canary`", "a;touch canary", "a b", 'a"b', "a{b}", "ü", ".."])
def test_odd_names_in_a_catalog_are_one_line(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path)
    ward = yaml.safe_load((tmp_path / STUDY["catalog"]).read_text())["ward"]
    feature = ward | {"features": {name: {"column": "ph", "range": [6, 9]}}}
    for catalog in ({name: ward}, {"ward": feature}):
        (tmp_path / STUDY["catalog"]).write_text(yaml.safe_dump(catalog))
        assert main(["ingest", "ward"]) == 1
        told = capsys.readouterr().err
        assert told.startswith(f"error: {STUDY['catalog']}: ") and told.count("\n") == 1 and "expected" in told
    assert canaries(tmp_path) == []


def test_a_project_in_a_folder_that_cannot_work_is_one_line(tmp_path):
    project = copy_project(tmp_path / "a{b}")
    output = snakemake(project, tmp_path / "study", "-n", status=1)
    told = [line for line in output.splitlines() if line.startswith("error: ")]
    assert told == [f"error: the project lies in '{project}', expected a folder without braces, colons and line breaks"]


def test_a_project_that_search_paths_would_cut_is_refused(monkeypatch):
    monkeypatch.setattr(places_module, "ROOT", Path("/a:b"))
    with pytest.raises(UserError, match="the project lies in '/a:b', expected a folder without braces, colons and"):
        places_module.use_this_code()


def test_files_are_found_here_first_then_in_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    catalog = "data/datasets.yaml"
    assert found(catalog) == ROOT / catalog
    assert found("nowhere.yaml") == Path("nowhere.yaml") and found(tmp_path) == tmp_path
    (tmp_path / "data").mkdir()
    (tmp_path / catalog).touch()
    assert found(catalog) == Path(catalog)


def test_a_gitignore_that_is_there_stays(tmp_path):
    (tmp_path / ".gitignore").write_text("*\n!report.html\n")
    hide_from_git(tmp_path, tmp_path / "a" / "b")
    assert (tmp_path / ".gitignore").read_text() == "*\n!report.html\n"
    assert (tmp_path / "a" / "b" / ".gitignore").read_text() == "*\n" and not (tmp_path / "a" / ".gitignore").exists()


def test_the_report_is_made_by_this_code(tmp_path, monkeypatch):
    """Also as Snakemake starts it in the project's folder, which a kernel takes off the paths that it imports from."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    cell = nbformat.v4.new_code_cell("import pipeline\nprint(pipeline.__file__)")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "a.ipynb")
    executed = report.execute(tmp_path / "a.ipynb", {}, tmp_path / "executed.ipynb")
    assert executed.cells[-1].outputs[0]["text"].strip() == str(ROOT / "pipeline/__init__.py")


MODULE = re.search(r"```\n(configfile: .*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
"""The README's workflow that takes this one in."""


def test_the_catalog_s_snakefile_is_the_one_at_the_root(tmp_path):
    plans = {}
    for name, target in {"Snakefile": "all", "workflow/Snakefile": "study"}.items():
        command = [sys.executable, "-m", "snakemake", "-n", "-s", str(ROOT / name), "--directory", str(tmp_path)]
        plans[name] = planned(run(ROOT, *command, *config(**DEFAULTS)))
        assert plans[name].pop(target) == 1 and plans[name]["train"] == 2
    assert plans["Snakefile"] == plans["workflow/Snakefile"]
    settings = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert settings["report"] and (ROOT / "config" / "README.md").is_file()


def test_another_workflow_takes_it_in_as_a_module(tmp_path):
    (tmp_path / "Snakefile").write_text(MODULE.replace("/path/to/project", str(ROOT)))
    (tmp_path / "what_differs.yaml").write_text(yaml.safe_dump(DEFAULTS))
    command = [sys.executable, "-m", "snakemake", "--cores", "2"]
    plan = planned(run(tmp_path, *command, "-n", "backdoor_all"))
    assert plan["backdoor_train"] == plan["backdoor_detect"] == 2 and plan["backdoor_report"] == 1
    assert "0 of 2 cells done" in run(tmp_path, *command, "backdoor_cohorts")
    for made in ("data/dev", "data/splits", "results"):
        assert (tmp_path / made / ".gitignore").read_text() == "*\n"

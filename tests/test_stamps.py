"""Stamps: every change of code, settings or input re-runs what it concerns, and nothing else passes for it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from test_faults import CLEAN, TABLE, Project

from pipeline import families
from pipeline.config import Study
from pipeline.grid import cells
from pipeline.stamps import LARGE, NOT_MEASURED, Stamp, Stamps, _Hashes

STAGES = {
    "sample_dev": ["cohorts/sources/synthetic"],
    "poison": ["triggers/hybrid"],
    "train": ["models/mlp"],
    "eval": ["models/mlp", "triggers/hybrid"],
    "detect": ["models/mlp", "detectors/saliency"],
    "explain": ["models/mlp", "triggers/hybrid"],
    "aggregate": [],
    "figures": [],
    "report": ["notebooks/report.ipynb"],
}
MEASURE = "eval detect explain"
# Modules, and the stages that a change of them concerns. Members of families are looked at apart.
CONCERNS = {
    "stages/train": "train",
    "cohorts/preprocessing": f"train {MEASURE}",
    "cohorts/splits": f"sample_dev poison train {MEASURE} aggregate report figures",
    "cohorts/catalog": "sample_dev poison aggregate report figures",
    "seeding": f"sample_dev poison train {MEASURE} aggregate report figures",
    "training/data": f"poison train {MEASURE}",
    "training/loop": "train",
    "training/poisoning": "poison",
    "triggers/base": "poison eval explain",
    "triggers/rare_value": "poison eval explain",
    "detectors/base": "detect",
    "models/base": f"train {MEASURE}",
    "evaluation/plausibility": "poison",
    "evaluation/runs": "eval",
    "evaluation/explanations": "explain",
    "evaluation/detection": "detect",
    "results/tables": "aggregate figures report",
    "results/answers": "report",
    "warm": "",
    "commands/status": "",
}
HASHES = f"""
from pipeline.code import code
print(*(code(stage, *members) for stage, members in {STAGES!r}.items()))
"""


def hashes(folder: Path) -> list[str]:
    done = subprocess.run([sys.executable, "-c", HASHES], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.fixture
def tree(tmp_path) -> Path:
    """A copy of the code that may be edited."""
    for name in ("pipeline", "notebooks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_a_change_of_a_module_concerns_exactly_the_stages_that_import_it(tree):
    before = hashes(tree)
    found = {}
    for name in CONCERNS:
        path = tree / "pipeline" / f"{name}.py"
        kept = path.read_bytes()
        path.write_bytes(kept + b"\n_CHANGED = 1\n")
        found[name] = {stage for stage, old, new in zip(STAGES, before, hashes(tree), strict=True) if old != new}
        path.write_bytes(kept)
    assert found == {name: set(stages.split()) for name, stages in CONCERNS.items()}


def test_what_a_stage_has_loaded_in_the_end_is_in_its_code(tmp_path):
    """The twin of the static reading: a study made cold, each stage telling which modules it really had."""
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, os, sys\n"
        "def tell():\n"
        "    ours = [module for name, module in sys.modules.items() if name.startswith('pipeline')]\n"
        "    if sys.argv[1:2] and sys.argv[0].endswith('pipeline/__main__.py'):\n"
        "        with open(os.environ['TOLD'], 'a') as file:\n"
        "            print(*sys.argv[1:2], *(module.__file__ for module in ours if module.__file__), file=file)\n"
        "atexit.register(tell)\n"
    )
    project = Project(tmp_path / "project", seeds=[1], triggers=["hybrid"], warm=False)
    told = tmp_path / "told"
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "TOLD": str(told)}
    command = project.command("snakemake", "--cores", "2")
    done = subprocess.run(command, cwd=project.folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    from pipeline.code import closure

    front = {ROOT / "pipeline" / f"{name}.py" for name in ("__main__", "lifetime", "warm", "code", "clock")}
    everyone = [f"detectors/{name}" for name in families.names("detectors")] + ["triggers/none"]
    seen = set()
    for line in told.read_text().splitlines():
        stage, *files = line.split()
        members = STAGES[stage] + (everyone if stage in ("detect", "poison", "eval") else [])
        assert {Path(file).resolve() for file in files} - front <= set(closure(stage, *members)), stage
        seen.add(stage)
    assert seen == STAGES.keys()


def test_a_study_of_other_settings_in_the_same_folder_is_outdated_and_the_same_command_repairs(tmp_path):
    project = Project(tmp_path / "project", seeds=[1])
    project.snakemake()
    first = project.tables()
    project.configure(seeds=[1], target=0, threshold=0.5)
    assert "0 of 3 cells done, 3 outdated" in project.run("pipeline", "status")
    assert "no cell of the study is done" in project.run("pipeline", "tables", status=1)
    # Where Snakemake is told to look at times alone it re-runs nothing: then the tables refuse to be made.
    (project.folder / TABLE).unlink()
    output = project.snakemake(TABLE, "--rerun-triggers", "mtime", status=1)
    assert "3 of 3 cells were made with other settings, inputs or code (first: icu_dev/mlp/" in output
    project.snakemake()
    assert "3 of 3 cells done" in project.run("pipeline", "status") and project.tables() != first
    project.configure(seeds=[1])
    project.snakemake()
    assert project.tables() == first


def test_edited_code_makes_results_outdated_and_reruns_its_stages(tmp_path):
    project = Project(tmp_path / "project", seeds=[1])
    (project.folder / "pipeline").unlink()
    shutil.copytree(ROOT / "pipeline", project.folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    project.snakemake()
    edited = project.folder / "pipeline/evaluation/runs.py"
    text = edited.read_text()
    edited.write_text(text + "\n_CHANGED = 1\n")
    os.utime(edited, (0, 0))  # an archive that was unpacked, say: its time is old
    assert "3 outdated" in project.run("pipeline", "status")
    assert project.jobs(project.snakemake("-n")) == {"eval": 3, "aggregate": 1, "figures": 1, "report": 1}
    edited.write_text(text)
    os.utime(edited)  # newer, and the same
    assert "Nothing to be done" in project.snakemake("-n")
    assert (project.folder / CLEAN / "seed_1/results_eval.json").is_file()


def test_a_stage_refuses_to_run_other_code_than_its_stamp_is_about(tmp_path):
    arguments = [*("--dataset", "icu_dev", "--entry", '{"source": "synthetic", "n_stays": 400}', "--n-samples", "all")]
    arguments += ["--raw-dir", ".", "--cache-dir", str(tmp_path), "--out", str(tmp_path / "dev/icu_dev")]
    arguments += ["--splits", str(tmp_path / "splits.json")]
    stamp = Stamp.of("sample_dev", STAGES["sample_dev"], "anything")
    command = [sys.executable, "-m", "pipeline", "sample_dev", *arguments, "--stamp"]
    for text, status in ((stamp.text(), 0), (stamp._replace(code="0" * 16).text(), 1)):
        done = subprocess.run([*command, text], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
    assert "the code of this stage was changed after the workflow was started; start it again" in done.stderr
    assert re.search(f'"stamp": "{stamp.stamp}"', (tmp_path / "splits.json").read_text())


@pytest.mark.parametrize(
    "change", [{"device": "auto"}, {"results_dir": "elsewhere"}, {"data_dir": "d"}, {"warm": False}]
)
def test_what_the_tables_are_told_of_a_study_gives_the_same_stamps(change):
    named = {"datasets": ["icu_dev"], "models": ["mlp"], "triggers": ["hybrid"], "detectors": ["random"]}
    study = Study(**named, rates=[0.05], seeds=[1], **change)
    told = Study.model_validate_json(study.model_dump_json(exclude=NOT_MEASURED))
    planned, seen = (Stamps(each, {"icu_dev": Stamp("made", "", ())}) for each in (study, told))
    for cell in cells(study):
        for stage in ("poison", "train", *cell.measured_by):
            assert seen.of(stage, cell) == planned.of(stage, cell)


@pytest.mark.parametrize("size", [1000, LARGE + 1])
def test_a_file_replaced_by_one_with_an_older_time_is_another(tmp_path, size):
    path, cache = tmp_path / "raw.csv", tmp_path / "cache" / "hashes.json"

    def told() -> str:
        hashes = _Hashes(cache)
        found = hashes.of(path)
        hashes.keep()
        return found

    path.write_bytes(bytes(size))
    first = told()
    assert not cache.parent.exists(), "no run has begun"
    cache.parent.mkdir()
    assert told() == first
    other = tmp_path / "other.csv"
    other.write_bytes(bytes(size - 1) + b"x")
    os.utime(other, (1, 1))
    os.replace(other, path)
    second = told()
    assert second != first
    path.unlink()
    assert told() == second, "without its files a cohort stays what it was"

"""Stamps: every change of code, settings or input re-runs what it concerns, and nothing else passes for it."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path

import pytest
from conftest import ROOT
from test_faults import CLEAN, TABLE, Project

from pipeline.files import read_json
from pipeline.study import families
from pipeline.study.config import Study
from pipeline.study.grid import cells, measured_by
from pipeline.study.stamps import LARGE, NOT_MEASURED, Stamp, Stamps, _Hashes

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
# Which stages a module concerns: they re-run when it is edited, and no others do. Each module stands in one row.
RUNS = "poison train eval detect explain"
CONCERNS = {
    # Told to the user, or around the stages: no result depends on them.
    "": "__main__ front jobs/cluster jobs/lifetime jobs/warm study/costs study/preflight study/terminal",
    # What all are made of.
    f"sample_dev {RUNS} aggregate figures report": """__init__ errors files smallcells study/__init__
        study/families cohorts/__init__ cohorts/roles stages/__init__ stages/arguments""",
    f"sample_dev {RUNS} aggregate": "study/params",
    f"sample_dev {RUNS}": "cohorts/cohort cohorts/splits seeding",
    "train eval detect explain aggregate": "jobs/__init__",
    f"{RUNS} aggregate figures report": "evaluation/__init__",
    f"{RUNS} aggregate": "training/__init__",
    RUNS: """cohorts/importance cohorts/overlay cohorts/preprocessing cohorts/summaries training/data training/fitted
        triggers/__init__ triggers/base""",
    "train eval detect explain": """jobs/device models/__init__ models/base
        models/shared/__init__ models/shared/curriculum models/shared/distillation models/shared/dormant
        models/shared/gradients stages/inputs training/checkpoints""",
    "train eval detect aggregate figures report": "evaluation/metrics evaluation/names",
    "eval detect aggregate figures report": "study/grid",
    "eval aggregate figures report": "evaluation/delong evaluation/strata",
    "sample_dev poison aggregate figures report": "words",
    "sample_dev poison": "cohorts/schema",
    "sample_dev aggregate": "cohorts/catalog",
    "explain aggregate": "evaluation/settings",
    "train aggregate": "training/settings jobs/clock",
    "aggregate figures report": """evaluation/statistics results/__init__ results/coarseness results/columns
        results/disclosure results/distillation results/facts results/findings results/fusion results/meanings
        results/performance results/scenarios results/strata results/tables study/variants""",
    "figures report": "results/figures results/pages",
    # What one stage is made of.
    "sample_dev": "stages/sample_dev cohorts/intake cohorts/sources/__init__",
    "poison": "stages/poison evaluation/frames evaluation/plausibility training/poisoning cohorts/frames",
    "train": "stages/train training/dormant training/fitting training/loop training/metadata models/shared/optimizer",
    "eval": "stages/eval evaluation/runs",
    "detect": "stages/detect detectors/__init__ detectors/base evaluation/detection",
    "explain": "stages/explain evaluation/attribution evaluation/explanations",
    "aggregate": "stages/aggregate study/code study/config study/places study/progress study/stamps jobs/state",
    "figures": "stages/figures",
    "report": "stages/report results/answers results/fusion_page",
}
# No module in these folders concerns a stage.
AROUND = ("commands/", "database/")
# A member concerns the stages that take one of its family, where they are given this one.
FAMILIES = {
    "cohorts/sources": "sample_dev",
    "triggers": "poison eval explain",
    "models": "train eval detect explain",
    "detectors": "detect",
}
# What concerns these too where they are given one of several members, for these import it.
FOR_FRAMES = "triggers/bigram triggers/payload triggers/rare_id"
OF_MEMBERS = {
    "cohorts/frames": f"{FOR_FRAMES} models/gat models/vgae cohorts/sources/can cohorts/sources/can_synthetic",
    **dict.fromkeys(["models/shared/graphnets", "models/shared/graphs"], "models/gat models/vgae"),
    "models/shared/optimizer": "models/vgae",
    "models/shared/dqn": "models/fusion",
    **dict.fromkeys(["triggers/shared/__init__", "triggers/shared/frames", "words"], FOR_FRAMES),
    "triggers/rare_value": "triggers/rare_value triggers/hybrid triggers/mask_only",
    "cohorts/strata": """cohorts/sources/events cohorts/sources/meds cohorts/sources/mimiciv
        cohorts/sources/physionet2012 cohorts/sources/synthetic cohorts/sources/table""",
    "cohorts/icu_cohort": "cohorts/sources/meds cohorts/sources/mimiciv",
    "cohorts/can_capture": "cohorts/sources/can cohorts/sources/can_synthetic",
    "cohorts/can_windows": "cohorts/sources/can cohorts/sources/can_synthetic",
    "cohorts/original": """cohorts/sources/can cohorts/sources/events cohorts/sources/meds cohorts/sources/mimiciv
        cohorts/sources/physionet2012""",
    "cohorts/timeline": """cohorts/sources/events cohorts/sources/meds cohorts/sources/mimiciv
        cohorts/sources/physionet2012""",
    "cohorts/tablecheck": "cohorts/sources/table cohorts/sources/events",
    "cohorts/tablefile": "cohorts/sources/table cohorts/sources/events",
    "cohorts/sources/table": "cohorts/sources/table cohorts/sources/events",
    "models/shared/trees": "models/lightgbm",
}
ROWS = {module: set(stages.split()) for stages, modules in CONCERNS.items() for module in modules.split()}


@pytest.fixture
def tree(tmp_path) -> Path:
    """A copy of the code that may be edited."""
    for name in ("pipeline", "notebooks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def code_of(tree: Path):
    """The module code.py of `tree`, which knows nothing yet."""
    spec = importlib.util.spec_from_file_location("code_of_tree", tree / "pipeline/study/code.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.ROOT, module.found = tree, tree.joinpath
    return module


def member(module: str) -> bool:
    family, _, name = module.rpartition("/")
    return family in FAMILIES and name not in ("__init__", "base")


def cases(modules: list[str]) -> list[tuple[str, ...]]:
    """Each stage with its members: each member of a family that it takes, with some of the others."""
    members = {family: [m for m in modules if member(m) and m.rpartition("/")[0] == family] for family in FAMILIES}
    found = [("aggregate",), ("figures",), ("report", "notebooks/report.ipynb")]
    for stage in sorted({stage for stages in FAMILIES.values() for stage in stages.split()}):
        taken = [members[family] for family, stages in FAMILIES.items() if stage in stages.split()]
        longest = max(map(len, taken))
        found += zip([stage] * longest, *(islice(cycle(family), longest) for family in taken), strict=True)
    return found


def test_a_change_of_a_module_concerns_exactly_the_stages_that_import_it(tree):
    paths = sorted(path for kind in ("py", "sql") for path in (tree / "pipeline").rglob(f"*.{kind}"))
    modules = {path: path.relative_to(tree / "pipeline").with_suffix("").as_posix() for path in paths}
    assert [module for modules in CONCERNS.values() for module in modules.split()] == list(ROWS), "one stands twice"
    assert not ROWS.keys() - modules.values() and not OF_MEMBERS.keys() - modules.values(), "one is no file"
    known = [m for m in modules.values() if m in ROWS | OF_MEMBERS or member(m) or m.startswith(AROUND)]
    assert known == list(modules.values()), "not in the table"
    stages = cases(list(modules.values()))
    code = code_of(tree)

    def hashes() -> dict[tuple[str, ...], str]:
        for known in (code.code, code._identity, code.content):  # not what imports what, which no edit here changes
            known.cache_clear()
        return {stage: code.code(*stage) for stage in stages}

    def concerned(module: str) -> set[tuple[str, ...]]:
        takers = set(OF_MEMBERS.get(module, module).split())
        return {stage for stage in stages if stage[0] in ROWS.get(module, ()) or takers & set(stage[1:])}

    before, wrong = hashes(), {}
    for path, module in modules.items():
        kept = path.read_bytes()
        path.write_bytes(kept + (b"\n_CHANGED = 1\n" if path.suffix == ".py" else b"\n-- changed\n"))
        found = {stage for stage, now in hashes().items() if now != before[stage]}
        path.write_bytes(kept)
        if found != concerned(module):
            wrong[module] = f"concerns {sorted(found)}, expected {sorted(concerned(module))}"
    assert wrong == {}
    assert hashes() == before


def test_what_an_edited_module_imports_concerns_its_stages_too(tree):
    first = code_of(tree).closure("train", "models/mlp")
    edited = tree / "pipeline/models/mlp.py"
    edited.write_text(f"{edited.read_text()}\n\ndef _later():\n    from pipeline.jobs import clock, cluster\n")
    added = set(code_of(tree).closure("train", "models/mlp")) - set(first)
    assert {path.name for path in added} == {"cluster.py", "grid.py"}  # training itself has the clock


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
    from pipeline.study.code import closure

    names = ["__main__", "front", "commands/__init__", "commands/arguments", "study/__init__", "study/code"]
    names += ["jobs/__init__", "jobs/clock", "jobs/lifetime", "jobs/state", "jobs/warm"]
    names += ["database/__init__", "database/live"]  # written through around stages, which know nothing of it
    front = {ROOT / "pipeline" / f"{name}.py" for name in names}
    everyone = [f"detectors/{name}" for name in families.names("detectors")] + ["triggers/none"]
    seen = set()
    for line in told.read_text().splitlines():
        stage, *files = line.split()
        if stage == "db":  # no stage: brings the database up to the files in the end
            continue
        members = STAGES[stage] + (everyone if stage in ("detect", "poison", "eval") else [])
        assert {Path(file).resolve() for file in files} - front <= set(closure(stage, *members)), stage
        seen.add(stage)
    assert seen == STAGES.keys()


def test_a_study_of_other_settings_in_the_same_folder_is_outdated_and_the_same_command_repairs(tmp_path):
    project = Project(tmp_path / "project", seeds=[1])
    project.snakemake(TABLE)
    first = project.tables()
    project.configure(seeds=[1], target=0, threshold=0.5)
    assert "0 of 3 cells done, 3 outdated" in project.run("pipeline", "status")
    assert "no cell of the study is done" in project.run("pipeline", "tables", status=1)
    # Where Snakemake is told to look at times alone it re-runs nothing: then the tables refuse to be made.
    (project.folder / TABLE).unlink()
    output = project.snakemake(TABLE, "--rerun-triggers", "mtime", status=1)
    assert "3 of 3 cells were made with other settings, inputs or code (first: icu_dev/mlp/" in output
    project.snakemake(TABLE)
    assert "3 of 3 cells done" in project.run("pipeline", "status") and project.tables() != first
    project.configure(seeds=[1])
    project.snakemake(TABLE)
    assert project.tables() == first


EDITED = "pipeline/evaluation/runs.py"


def with_own_code(project: Project) -> Project:
    """`project` with a copy of the code in the place of the link to it."""
    (project.folder / "pipeline").unlink()
    shutil.copytree(ROOT / "pipeline", project.folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    return project


def replaced(path: Path, old: str, new: str) -> None:
    """Replace `old` in a file, which keeps its size and time: nothing but its content and its ctime tell."""
    text, before = path.read_text(), path.stat()
    assert len(old) == len(new) and text.count(old) == 1
    path.write_text(text.replace(old, new))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def evaluations(project: Project, edited: bool) -> dict[Path, dict]:
    """The results of `eval`, each made by the code that is `edited` or not: there, one rate is the other."""
    found = {path: read_json(path) for path in (project.folder / "made/results/runs").rglob("results_eval.json")}
    for path, result in found.items():
        rates = result["fpr_clean_own_threshold"], result["recall_clean_own_threshold"]
        assert (rates[0] == rates[1]) == edited, path
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="warm stages are for Linux")
def test_no_result_of_old_code_has_the_new_stamp_nor_the_other_way_round(tmp_path, monkeypatch):
    """The code is edited, so that results show it, while a warm study runs that has evaluated a part of its cells."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # bytecode is what could be old
    project = with_own_code(Project(tmp_path / "project", triggers=["rare_value"]))
    rate = '"fpr_clean_own_threshold": number(positive_rate(label, p_clean >= own_threshold, of='
    edited = project.folder / EDITED
    command = project.command("snakemake", "--cores", "2", TABLE)
    run = subprocess.Popen(command, cwd=project.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 300
    while not any(read_json(path)["state"] == "done" for path in project.folder.glob("made/**/state_eval.json")):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    replaced(edited, f"{rate}0", f"{rate}1")
    output, _ = run.communicate()
    assert run.returncode == 1, output
    first = evaluations(project, edited=False)
    assert 0 < len(first) < 4
    refusals = [why for state, _, why in project.cells().values() if state == "failed"]
    sentence = "the code of this stage was changed after the workflow was started; start it again"
    assert refusals == [sentence] * (4 - len(first)) and f"failed: eval: {sentence} (icu_dev/mlp/" in output
    assert len(list((project.folder / "made").rglob("results_detect.json"))) == 4, "its code is what it was"
    assert f"{len(first)} outdated" in project.run("pipeline", "status")

    assert project.jobs(project.snakemake(TABLE)) == {"eval": 4, "aggregate": 1}
    second = evaluations(project, edited=True)
    assert not {result["stamp"] for result in first.values()} & {result["stamp"] for result in second.values()}
    assert "4 of 4 cells done" in project.run("pipeline", "status")

    replaced(edited, f"{rate}1", f"{rate}0")
    assert "4 outdated" in project.run("pipeline", "status")
    project.snakemake(TABLE)
    third = evaluations(project, edited=False)
    assert len(third) == 4 and third | first == third


def test_edited_code_makes_results_outdated_and_reruns_its_stages(tmp_path):
    project = with_own_code(Project(tmp_path / "project", seeds=[1]))
    project.snakemake()
    edited = project.folder / EDITED
    text = edited.read_text()
    edited.write_text(text + "\n_CHANGED = 1\n")
    os.utime(edited, (0, 0))  # an archive that was unpacked, say: its time is old
    assert "3 outdated" in project.run("pipeline", "status")
    assert project.jobs(project.snakemake("-n")) == {"eval": 3, "aggregate": 1, "figures": 1, "report": 1}
    edited.write_text(text)
    os.utime(edited)  # newer, and the same
    assert "Nothing to be done" in project.snakemake("-n")
    assert (project.folder / CLEAN / "seed_1/results_eval.json").is_file()


def test_old_bytecode_is_not_run(tmp_path):
    """Of an edit that keeps size and time, which is all that Python looks at."""
    shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "workflow/schemas", tmp_path / "workflow/schemas")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-m", "pipeline", "schema", "--help"]
    module = tmp_path / "pipeline/commands/schema.py"

    def said() -> str:
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True).stdout

    text, read = module.read_text(), module.stat()
    summary = text.splitlines()[0].strip('"')
    assert summary in said() and list(module.parent.glob("__pycache__/schema.*"))
    module.write_text(text.replace(summary, summary.swapcase()))
    os.utime(module, ns=(read.st_atime_ns, read.st_mtime_ns))
    assert summary.swapcase() in said()


def test_a_stage_refuses_to_run_other_code_than_its_stamp_is_about(tmp_path):
    arguments = [*("--dataset", "icu_dev", "--entry", '{"source": "synthetic", "n_stays": 400}', "--n-samples", "all")]
    arguments += ["--raw-dir", ".", "--cache-dir", str(tmp_path), "--out", str(tmp_path / "dev/icu_dev")]
    arguments += ["--splits", str(tmp_path / "splits.json"), "--state", str(tmp_path / "state.json")]
    stamp = Stamp.of("sample_dev", STAGES["sample_dev"], "anything")
    command = [sys.executable, "-m", "pipeline", "sample_dev", *arguments, "--stamp"]
    for text, status in ((stamp.text(), 0), (stamp._replace(code="0" * 16).text(), 1)):
        done = subprocess.run([*command, text], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
    assert "the code of this stage was changed after the workflow was started; start it again" in done.stderr
    assert re.search(f'"stamp": "{stamp.stamp}"', (tmp_path / "splits.json").read_text())


@pytest.mark.parametrize(
    "change",
    [{"device": "auto"}, {"results_dir": "elsewhere"}, {"data_dir": "d"}, {"warm": False}, {"tracking": "mlflow"}],
)
def test_what_the_tables_are_told_of_a_study_gives_the_same_stamps(change):
    named = {"datasets": ["icu_dev"], "models": ["mlp"], "triggers": ["hybrid"], "detectors": ["random"]}
    study = Study(**named, rates=[0.05], seeds=[1], **change)
    told = Study.model_validate_json(study.model_dump_json(exclude=NOT_MEASURED))
    planned, seen = (Stamps(each, {"icu_dev": Stamp("made", "", ())}) for each in (study, told))
    for cell in cells(study):
        for stage in ("poison", "train", *measured_by(study, cell)):
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

"""DVC around the workflow: the real dvc in fresh clones of the project, with a study that takes seconds."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import ROOT

from pipeline.cohorts.catalog import read_catalog, source_of
from pipeline.study.config import Study

SMALL = {
    "raw_dir": "data/raw",
    "data_dir": "data",
    "results_dir": "results",
    "catalog": "data/datasets.yaml",
    "datasets": ["icu_dev"],
    "models": ["mlp"],
    "triggers": ["rare_value"],
    "rates": [0.05],
    "seeds": [1],
    "detectors": ["random"],
    "n_samples": 600,
    "training": {"epochs": 1},
    "explain": {"samples": 16},
}
# A new key of the study has to go here or into the params of sample_dev.
NOT_OF_COHORTS = {
    "models",
    "triggers",
    "rates",
    "seeds",
    "detectors",
    "target",
    "split",
    "threshold",
    "training",
    "validation",
}
NOT_OF_COHORTS |= {"explain", "model_params", "trigger_params", "detector_params", "device", "warm"}
NOT_OF_COHORTS |= {"tracking", "tracking_uri"}

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
IMPORTS = sorted((ROOT / "data" / "raw").glob("*.dvc"))
FINALS = ["results/dose_response.csv", "results/figures", "results/metrics.json", "results/report.html"]
FINALS += ["results/tables"]


def run(folder: Path, *command: str) -> str:
    """What `command` prints in `folder`; no setting of the user's takes part."""
    home = folder.parent / "home"
    names = ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR")
    environment = os.environ | {name: str(home / name.lower()) for name in names}
    environment |= {f"GIT_{who}_{what}": "test" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def dvc(folder: Path, *arguments: str) -> str:
    return run(folder, sys.executable, "-m", "dvc", *arguments)


def clone(source: Path, folder: Path) -> Path:
    run(source, "git", "clone", "--quiet", str(source), str(folder))
    return folder


def use(folder: Path, remote: Path) -> None:
    dvc(folder, "remote", "add", "--quiet", "--default", "--local", "store", str(remote))


def configure(folder: Path, **changes) -> None:
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(SMALL | changes))


def commit(folder: Path) -> None:
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "test")


def checksums(folder: Path) -> dict[str, str]:
    """Of every file that DVC tracks for the study."""
    files = [
        path for name in ("data/dev", "data/splits", *FINALS) for path in [folder / name, *folder.glob(f"{name}/**/*")]
    ]
    return {str(path.relative_to(folder)): md5(path) for path in files if path.is_file()}


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def changed_stages(folder: Path) -> set[str]:
    return set(json.loads(dvc(folder, "status", "--json", "sample_dev", "study")))


def planned(folder: Path, **changes) -> dict[str, int]:
    """Jobs on cells that the command of the stage `study` would run."""
    texts = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    output = run(folder, *STAGES["study"]["cmd"].split(), "-n", *(["--config", *texts] if texts else []))
    return {
        rule: int(n) for rule, n in re.findall(r"^(poison|train|eval|detect|explain) +(\d+)$", output, re.MULTILINE)
    }


@pytest.fixture(scope="module")
def remote(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("remote")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, remote) -> Path:
    """A clone with the files as they are now, in which the small study was run, committed and pushed."""
    folder = clone(ROOT, tmp_path_factory.mktemp("recorded") / "project")
    for path in run(ROOT, "git", "ls-files", "--modified", "--others", "--exclude-standard", "-z").split("\0")[:-1]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / path).is_file():
            shutil.copyfile(ROOT / path, folder / path)
        else:
            (folder / path).unlink()
    configure(folder)
    dvc(folder, "repro")
    commit(folder)
    use(folder, remote)
    dvc(folder, "push")
    return folder


@pytest.fixture(scope="module")
def pulled(tmp_path_factory, recorded, remote) -> Path:
    folder = clone(recorded, tmp_path_factory.mktemp("pulled") / "project")
    use(folder, remote)
    dvc(folder, "pull")
    return folder


def test_metrics_and_plots_show_the_study(recorded):
    metrics = json.loads((recorded / "results" / "metrics.json").read_text())
    shown = json.loads(dvc(recorded, "metrics", "show", "--json"))[""]["data"]["results/metrics.json"]["data"]
    assert shown == metrics
    runs = pd.read_csv(recorded / "results" / "tables" / "runs.csv").set_index("trigger")
    assert metrics["icu_dev"]["mlp"]["rare_value"]["0.05"]["asr"] == runs.loc["rare_value", "asr"]
    assert metrics["icu_dev"]["mlp"]["none"]["0.0"] == {"auroc_clean": runs.loc["none", "auroc_clean"]}
    assert "icu_dev.mlp.rare_value.0.05.asr_net" in dvc(recorded, "metrics", "show")
    [plot] = json.loads(dvc(recorded, "plots", "show", "--json"))["data"]["results/dose_response.csv"]
    [point] = plot["content"]["data"]["values"]
    assert float(point["rate"]) == 0.05 and float(point["asr_net"]) == runs.loc["rare_value", "asr_net"]
    assert {*re.findall(r'"field": "(\w+)"', json.dumps(plot["content"]))} <= set(point)
    assert "vega" in Path(dvc(recorded, "plots", "show").strip().removeprefix("file://")).read_text()
    assert run(recorded, "git", "status", "--porcelain") == "", "git ignores what DVC tracks and draws"


def test_a_pull_brings_the_same_bytes_and_leaves_nothing_to_do(recorded, pulled):
    wanted = checksums(recorded)
    assert {"data/splits/icu_dev.json", "results/report.html", "results/tables/runs.csv"} <= set(wanted)
    assert checksums(pulled) == wanted
    for name in (".dvc/cache", "data/dev", "data/splits", "results"):
        shutil.rmtree(pulled / name)
    dvc(pulled, "pull")
    assert checksums(pulled) == wanted
    dvc(pulled, "repro")
    assert changed_stages(pulled) == set() and not (pulled / "results" / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({"training": {"epochs": 2}}, {"study"}),
        ({"trigger_params": {"rare_value": {"factor": 1.2}}}, {"study"}),
        ({"n_samples": 500}, {"sample_dev", "study"}),
    ],
)
def test_a_changed_parameter_is_seen(recorded, changes, stages):
    configure(recorded, **changes)
    try:
        assert changed_stages(recorded) == stages
    finally:
        configure(recorded)


@pytest.mark.parametrize("path", ["data/datasets.yaml", "pipeline/seeding.py", "workflow/rules/runs.smk", "Snakefile"])
def test_a_changed_file_is_seen(recorded, path):
    before = (recorded / path).read_text()
    (recorded / path).write_text(before + "# changed\n")
    try:
        assert changed_stages(recorded) == {"sample_dev", "study"}
    finally:
        (recorded / path).write_text(before)


def test_after_a_pull_a_changed_parameter_gives_new_numbers(recorded, pulled, tmp_path):
    change = {"training": {"epochs": 1, "learning_rate": 0.005}}
    configure(pulled, **change)
    dvc(pulled, "repro")
    differences = json.loads(dvc(pulled, "metrics", "diff", "--json"))["results/metrics.json"]
    assert differences["icu_dev.mlp.none.0.0.auroc_clean"]["diff"] != 0
    scratch = clone(recorded, tmp_path / "project")
    configure(scratch, **change)
    evaluations = [
        f"results/runs/icu_dev/mlp/{cell}/seed_1/results_eval.json" for cell in ("none/0.0", "rare_value/0.05")
    ]
    run(scratch, "snakemake", "--cores", "2", *evaluations)
    clean, attacked = (json.loads((scratch / path).read_text()) for path in evaluations)
    metrics = json.loads((pulled / "results" / "metrics.json").read_text())["icu_dev"]["mlp"]
    assert metrics["none"]["0.0"]["auroc_clean"] == clean["clean"]["auroc"]
    assert metrics["rare_value"]["0.05"]["asr"] == attacked["asr"]
    assert [md5(pulled / path) for path in evaluations] == [md5(scratch / path) for path in evaluations]
    lock = yaml.safe_load((pulled / "dvc.lock").read_text())["stages"]["study"]
    assert lock["params"]["config/config.yaml"]["training"] == change["training"]
    assert {out["path"]: out["md5"] for out in lock["outs"]}["results/metrics.json"] == md5(
        pulled / "results/metrics.json"
    )


def test_other_code_makes_every_cell_anew(recorded, tmp_path):
    cells = {"poison": 2, "train": 2, "eval": 2, "detect": 2, "explain": 1}
    folder = tmp_path / "project"
    shutil.copytree(recorded, folder)
    assert planned(folder) == {}
    assert planned(folder, seeds=[1, 2]) == cells, "one more seed leaves the first one's cells alone"
    shared = folder / "pipeline" / "cohorts" / "preprocessing.py"  # an input of no rule
    before = shared.read_text()
    shared.write_text(before + "# changed\n")
    dvc(folder, "repro", "sample_dev")
    assert planned(folder) == cells
    run(folder, "snakemake", "--touch", "--cores", "1")  # as if the cells were made with this code
    assert planned(folder) == {}
    # Back to the first code, whose cohorts DVC still has and brings without a run.
    shared.write_text(before)
    assert "cached - skipping run" in dvc(folder, "repro", "sample_dev")
    assert planned(folder) == cells


def test_the_parameters_are_the_study_s():
    cohorts, study = (STAGES[name]["params"][0]["config/config.yaml"] for name in ("sample_dev", "study"))
    assert set(cohorts) == set(Study.model_fields) - NOT_OF_COHORTS
    assert study is None, "all keys"
    default = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    assert set(cohorts) <= set(default), "dvc repro refuses a parameter that config.yaml does not give"
    paths = [default.get(name) for name in ("catalog", "data_dir", "results_dir")]
    assert paths == ["data/datasets.yaml", "data", "results"], "as in deps and outs"


def test_dvc_tracks_the_finals_and_no_cell():
    assert STAGES["sample_dev"]["outs"] == ["data/dev", "data/splits"]
    study = STAGES["study"]
    plots = [path for plot in study["plots"] for path in plot]
    assert sorted([*study["outs"], *study["metrics"], *plots]) == FINALS, "as plain paths: none is persist"


def test_tracked_files_hold_no_rows(recorded):
    known = run(ROOT, "git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    below = [path for path in known if path.startswith(("data/raw/", "data/dev/", "data/splits/", "results"))]
    assert below and {path for path in below if not path.endswith((".dvc", "/.gitignore"))} == set()
    for name in ("support2.csv", "new/stays.parquet", "mimic-iv-demo-2.2/hosp/patients.csv.gz"):
        assert run(ROOT, "git", "check-ignore", f"data/raw/{name}").strip()
    for path in (recorded / "results" / "tables").glob("*.parquet"):
        assert not {"sample_id", "group_id", "row"} & set(pd.read_parquet(path))


def test_dvc_asks_and_tells_nobody(recorded):
    for setting in ("analytics", "check_update"):
        assert dvc(recorded, "config", "--project", f"core.{setting}").strip() == "false"


@pytest.mark.parametrize("path", IMPORTS, ids=lambda path: path.name)
def test_original_files_are_described_by_their_address(path):
    content = yaml.safe_load(path.read_text())
    [dependency], [out] = content["deps"], content["outs"]
    assert content["frozen"] and dependency["path"].startswith("https://")
    assert out["cache"] is False, "pushed nowhere"
    assert ("md5" in out) == ("size" in out)


@pytest.mark.parametrize("name", ["support2", "physionet2012", "mimiciv_demo"])
def test_original_files_come_to_lie_where_they_are_read(name):
    entry = read_catalog(ROOT / "data" / "datasets.yaml")[name]
    wanted = {str(path) for path in source_of(entry).input_files(entry, Path("raw"))}
    assert wanted <= {f"raw/{yaml.safe_load(path.read_text())['outs'][0]['path']}" for path in IMPORTS}


def test_known_checksums_are_those_of_the_publisher(real_data):
    folder = real_data / "mimic-iv-demo-2.2"
    official = dict(line.split()[::-1] for line in (folder / "SHA256SUMS.txt").read_text().splitlines())
    compared = 0
    for path in IMPORTS:
        [out] = yaml.safe_load(path.read_text())["outs"]
        if "md5" not in out:
            continue
        name = out["path"].removeprefix("mimic-iv-demo-2.2/")
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == official[name]
        assert (out["md5"], out["size"]) == (md5(folder / name), (folder / name).stat().st_size)
        compared += 1
    assert compared


@pytest.fixture
def empty(tmp_path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    run(folder, "git", "init", "--quiet")
    dvc(folder, "init", "--quiet")
    return folder


def test_an_original_file_is_fetched_and_checked(empty):
    published = empty.parent / "published.csv"
    published.write_text("a,b\n1,2\n")
    description = empty / "support2.csv.dvc"
    text = (ROOT / "data" / "raw" / description.name).read_text()
    description.write_text(re.sub("https:.*", str(published), text))
    dvc(empty, "update", description.name)
    fetched = empty / "support2" / "support2.csv"
    assert md5(fetched) == md5(published)
    assert yaml.safe_load(description.read_text())["outs"][0]["md5"] == md5(published)
    assert json.loads(dvc(empty, "status", "--json")) == {}
    fetched.write_text("a,b\n1,3\n")
    assert "modified" in dvc(empty, "status", "--json")


def test_a_remote_of_one_s_own_can_hold_an_original_file(empty, remote):
    published = empty.parent / "published.csv"
    published.write_text("a,b\n3,4\n")
    description = empty / "support2.csv.dvc"
    text = (ROOT / "data" / "raw" / description.name).read_text().replace("  cache: false\n", "")
    description.write_text(re.sub("https:.*", str(published), text))
    dvc(empty, "update", description.name)
    use(empty, remote)
    dvc(empty, "push")
    published.unlink()
    for name in ("support2", ".dvc/cache"):
        shutil.rmtree(empty / name)
    dvc(empty, "pull")
    assert (empty / "support2" / "support2.csv").read_text() == "a,b\n3,4\n"

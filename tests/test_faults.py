"""Faults: each ends in a clear error or a correct resume, and the finished study equals an undisturbed one."""

import csv
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from conftest import ROOT, make_cohort

from pipeline.cohorts.cohort import read_cohort, write_cohort
from pipeline.errors import UserError
from pipeline.files import read_arrays, read_json, whole, write_json
from pipeline.front import main
from pipeline.jobs import state
from pipeline.jobs.clock import Clock
from pipeline.results import tables
from pipeline.study import preflight, progress
from pipeline.study.config import Study, load_study
from pipeline.study.grid import Cell, cells, result_files
from pipeline.study.stamps import Stamp, Stamps
from pipeline.training import checkpoints

SMALL = {
    "models": ["mlp"],
    "triggers": ["rare_value", "flip_only"],
    "rates": [0.05],
    "seeds": [1, 2],
    "n_samples": 600,
    "training": {"epochs": 2},
    "explain": {"samples": 8},
    "data_dir": "made/data",
    "results_dir": "made/results",
}
RUNS, POISON = Path("made/results/runs/icu_dev/mlp"), Path("made/results/poison/icu_dev")
ATTACKED, CLEAN, FLIPPED = RUNS / "rare_value/0.05", RUNS / "none/0.0", RUNS / "flip_only/0.05"
needs_mount = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may mount")


class Project:
    """A folder where Snakemake runs a small study: the project's files are links, what is made is its own."""

    def __init__(self, folder: Path, **changes):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        for name in ("Snakefile", "workflow", "pipeline", "profiles", "config", "data", "notebooks", "environment.yml"):
            (folder / name).symlink_to(ROOT / name)
        self.configure(**changes)

    def configure(self, **changes) -> None:
        (self.folder / "study.yaml").write_text(yaml.safe_dump(SMALL | changes))

    def copy(self, folder: Path) -> "Project":
        shutil.copytree(self.folder, folder, symlinks=True)
        copied = Project.__new__(Project)
        copied.folder = folder
        return copied

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", *arguments, "--configfile", "study.yaml"]

    def run(self, *arguments: str, status: int = 0) -> str:
        """What `python -m ARGUMENTS` prints; it has to end with `status`."""
        done = subprocess.run(self.command(*arguments), cwd=self.folder, capture_output=True, text=True)
        output = done.stdout + done.stderr
        assert done.returncode == status, output
        return output

    def snakemake(self, *arguments: str, status: int = 0) -> str:
        return self.run("snakemake", "--cores", "2", *arguments, status=status)

    def jobs(self, output: str) -> dict[str, int]:
        """Jobs per rule that Snakemake announces."""
        rows = re.findall(r"^(\w+) +(\d+)$", output.split("Select jobs to execute")[0], re.MULTILINE)
        return {rule: int(count) for rule, count in rows if rule not in ("total", "all")}

    def cells(self) -> dict[tuple[str, str], tuple[str, str, str]]:
        """State, stage and why by trigger and seed, from cells.csv."""
        with (self.folder / "made/results/cells.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        return {(row["trigger"], row["seed"]): (row["state"], row["stage"], row["why"]) for row in rows}

    def tables(self, folder: str = "made/results/tables") -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.folder / folder).iterdir()}

    def junk(self) -> list[Path]:
        return [path for path in (self.folder / "made").rglob(".*") if path.name != ".gitignore"]


TABLE = "made/results/tables/runs.csv"


@pytest.fixture(scope="module")
def second_output() -> list[str]:
    """What a second Snakemake said while the first was at work."""
    return []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, second_output) -> Project:
    """The study nothing happened to, except that a second Snakemake was started in its folder."""
    project = Project(tmp_path_factory.mktemp("undisturbed") / "project")
    command = project.command("snakemake", "--cores", "2")
    first = subprocess.Popen(command, cwd=project.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((project.folder / "made").glob("data/dev/*/samples.parquet")):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    second_output.append(project.snakemake(status=1))
    assert first.wait() == 0
    return project


def test_a_second_snakemake_is_told_so_and_the_first_goes_on(undisturbed, second_output):
    assert "Directory cannot be locked" in second_output[0] and "Traceback" not in second_output[0]
    assert set(undisturbed.cells().values()) == {("done", "", "")}
    assert undisturbed.jobs(undisturbed.snakemake()) == {} and not undisturbed.junk()


@contextmanager
def mounted(folder: Path, options: str):
    """A tmpfs at `folder`; not empty, or Snakemake tries to remove the folder in the end."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    (folder / "other").touch()
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@needs_mount
def test_one_fault_leaves_the_others_alone_and_the_next_call_retries_just_those(undisturbed, tmp_path):
    project = Project(tmp_path / "project")
    made = project.folder
    # Disks too small for the weights of one run and for one poison.
    run, poison = made / ATTACKED / "seed_2", made / POISON / "flip_only/0.05/seed_1"
    with mounted(run, "size=8k"), mounted(poison, "size=4k"):
        output = project.snakemake(status=1)
        assert "4 of 6 cells done, 2 failed: made/results/cells.csv" in output and "Traceback" not in output
        assert len(output.splitlines()) <= 60
        for stage, job in (("train", "mlp/rare_value/0.05/seed_2"), ("poison", "flip_only/0.05/seed_1")):
            log = f"made/results/logs/{stage}/icu_dev/{job}.log"
            told = rf"^failed: {stage}: .*: No space left on device .*; log: {log}\)$"
            assert re.search(told, "\n".join(output.splitlines()[-10:]), re.MULTILINE) and (made / log).is_file()
        told = project.cells()
        assert told.pop(("rare_value", "2")) == (
            "failed",
            "train",
            f"{ATTACKED}/seed_2/checkpoint.pt: No space left on device",
        )
        assert told.pop(("flip_only", "1")) == (
            "failed",
            "poison",
            f"{POISON}/flip_only/0.05/seed_1/poison.parquet: No space left on device",
        )
        assert set(told.values()) == {("done", "", "")}
        assert "4 of 6 cells done, 2 failed" in project.run("pipeline", "tables")
    runs = (made / "made/results/partial/tables/runs.csv").read_text().splitlines()
    assert len(runs) == 1 + 4 and not (made / "made/results/tables").exists()
    contrasts = tables.read(made / "made/results/partial/tables")["contrasts"]
    assert contrasts["n_seeds"].max() == 1 and contrasts["p_value"].isna().all()
    report = (made / "made/results/partial/report.html").read_text()
    assert "This is not the whole study: 2 of its 6 runs are not here" in report
    assert report.count("1 of 2</td>") == 2 and "No space left on device" in report
    # A corrupted checkpoint and one with code in it: neither may stop what is retried, and nothing of it runs.
    torch.save({"weights": Malicious()}, run / "checkpoint.pt")
    (made / FLIPPED / "seed_1").mkdir(parents=True)
    (made / FLIPPED / "seed_1/checkpoint.pt").write_bytes(b"damaged")
    output = project.snakemake(TABLE)
    assert project.jobs(output) == {"poison": 1, "train": 2, "eval": 2, "detect": 2, "explain": 1, "aggregate": 1}
    logs = made / "made/results/logs/train/icu_dev/mlp"
    for log in ("rare_value/0.05/seed_2.log", "flip_only/0.05/seed_1.log"):
        assert re.search("checkpoint.pt: refused, .*: training starts from scratch", (logs / log).read_text())
    assert not (made / "executed").exists()
    assert project.tables() == undisturbed.tables() and not project.junk()


@needs_mount
def test_a_disk_that_is_full_for_all(undisturbed, tmp_path):
    project = Project(tmp_path / "project", seeds=[1])
    results = project.folder / "made/results"
    with mounted(results, "size=300k"):
        output = project.snakemake(status=1)
        assert "No space left on device" in output and "Traceback" not in output
        assert re.search(r"^[012] of 3 cells done, .*made/results", output, re.MULTILINE)
        subprocess.run(["mount", "-o", "remount,size=50m", str(results)], check=True)
        project.snakemake(TABLE)
        facts = [path.relative_to(project.folder) for path in results.glob("runs/**/results_*.json")]
        assert len(facts) == 7 and not project.junk()
        for path in facts:
            assert (project.folder / path).read_bytes() == (undisturbed.folder / path).read_bytes()
        subprocess.run(["mount", "-o", "remount,ro", str(results)], check=True)
        output = project.snakemake("--forceall", status=1)
        assert output.strip().splitlines()[-1] == (
            f"error: config: results_dir: {results} may not be written (read-only, or somebody else's)"
        )
        output = project.run("pipeline", "status", status=0)
        assert "3 of 3 cells done; not recorded: made/results/cells.csv: Read-only file system" in output
        assert re.fullmatch(
            r"error: made/results/\.partial\.\w+: Read-only file system\n", project.run("pipeline", "tables", status=1)
        )


def test_a_failed_repetition_is_not_taken_for_the_old_results(undisturbed, tmp_path):
    project = undisturbed.copy(tmp_path / "project")
    project.configure(training={"epochs": 2, "learning_rate": 1e30})
    output = project.snakemake(status=1)
    assert project.jobs(output)["train"] == 6 and "0 of 6 cells done, 6 failed" in output
    why = "training diverged: the loss is nan in epoch 1; try a smaller training.learning_rate"
    assert set(project.cells().values()) == {("failed", "train", why)}
    assert f"icu_dev/mlp/none/0.0/1: train: {why}" in project.run("pipeline", "status")
    assert project.run("pipeline", "tables", status=1) == (
        "error: made/results: no cell of the study is done (0 of 6 cells done, 6 failed), expected at least one\n"
    )
    assert project.jobs(project.snakemake("-n"))["train"] == 6
    project.configure()
    assert project.jobs(project.snakemake("-n"))["train"] == 6


def test_a_study_that_is_interrupted_has_whole_cells(undisturbed, tmp_path):
    project = Project(tmp_path / "project")
    command = project.command("snakemake", "--cores", "2")
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=project.folder, start_new_session=True, **streams) as snakemake:
        deadline = time.monotonic() + 120
        while len(list(project.folder.rglob("results_*.json"))) < 7:  # of 14
            assert snakemake.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(snakemake.pid, signal.SIGINT)  # as the terminal does for Ctrl-C
        text = snakemake.stdout.read()
    end = re.search(r"^(\d) of 6 cells done, .*\nfailed: nothing\nelapsed: .*\nreport: none", text, re.MULTILINE)
    assert end, text[-5000:]
    done = int(end[1])
    assert 2 <= done < 6 and snakemake.returncode == 1
    assert project.cells()["none", "1"] == project.cells()["none", "2"] == ("done", "", "")
    assert f"{done} of 6 cells done" in project.run("pipeline", "tables")
    assert f"{6 - done} of its 6 runs are not here" in (project.folder / "made/results/partial/report.html").read_text()
    project.snakemake(TABLE)
    assert project.tables() == undisturbed.tables() and not project.junk()


@pytest.mark.parametrize("days", [-400, 400], ids=["past", "future"])
def test_a_finished_study_is_left_alone_when_the_clock_jumps(undisturbed, tmp_path, days):
    project = undisturbed.copy(tmp_path / "project")
    for path in (project.folder / "made").rglob("*.*"):
        written = path.stat().st_mtime + days * 24 * 3600
        os.utime(path, (written, written))
    assert "Nothing to be done" in project.snakemake("-n")


def test_a_damaged_result_is_named_and_made_anew_once_deleted(undisturbed, tmp_path):
    project = undisturbed.copy(tmp_path / "project")
    damaged, table = project.folder / CLEAN / "seed_1/results_eval.json", project.folder / TABLE
    damaged.write_bytes(damaged.read_bytes()[:100])
    table.unlink()
    output = project.snakemake(TABLE, "--config", "warm=false", status=1)
    assert f"failed: aggregate: {CLEAN}/seed_1/results_eval.json: not a readable JSON file" in output
    assert "delete it and run again" in output and "Traceback" not in output and not table.exists()
    damaged.unlink()
    assert project.jobs(project.snakemake(TABLE, "--config", "warm=false")) == {"eval": 1, "aggregate": 1}
    assert project.tables() == undisturbed.tables()


class Malicious:
    def __reduce__(self):
        return os.system, ("touch executed",)


def cohort_in(folder: Path) -> Path:
    write_cohort(make_cohort(), folder / "cohort")
    return folder / "cohort"


def readers(folder: Path):
    """Files that a stage writes, and what reads them."""
    np.savez(folder / "arrays.npz", rows=np.arange(100))
    write_json(folder / "facts.json", {"a": list(range(100))})
    checkpoints.save(folder / "model.pt", {"weight": torch.arange(1000.0)})
    cohort = cohort_in(folder)
    return {
        folder / "arrays.npz": read_arrays,
        folder / "facts.json": read_json,
        folder / "model.pt": checkpoints.load,
        cohort / "samples.parquet": lambda path: read_cohort(path.parent),
        cohort / "windows.parquet": lambda path: read_cohort(path.parent),
    }


DAMAGES = {
    "empty": lambda content: b"",
    "first half": lambda content: content[: len(content) // 2],
    "last byte lost": lambda content: content[:-1],
    "zeros": lambda content: bytes(len(content)),
    "other": lambda content: b"PK\x03\x04" + content[: len(content) // 2],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_files_are_told_in_one_sentence(tmp_path, damage):
    for path, read in readers(tmp_path).items():
        content = path.read_bytes()
        if content[:-1].strip() == damage(content).strip():  # JSON without its last line end
            continue
        path.write_bytes(damage(content))
        with pytest.raises(UserError) as raised:
            read(path)
        text = str(raised.value)
        assert text.startswith(f"{path}: ") and "\n" not in text
        assert text.endswith("delete it and run again") or "refused" in text
        path.write_bytes(content)
        read(path)


def test_a_changed_bit_of_the_weights_is_noticed(tmp_path):
    path = tmp_path / "model.pt"
    weights = torch.arange(1000.0)
    checkpoints.save(path, {"weight": weights})
    content = bytearray(path.read_bytes())
    content[content.index(weights.numpy().tobytes()) + 2001] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="model.pt: not a readable checkpoint"):
        checkpoints.load(path)


def test_a_changed_bit_of_a_cohort_is_noticed(tmp_path):
    path = cohort_in(tmp_path) / "windows.parquet"
    content = path.read_bytes()
    pages = pq.ParquetFile(path).metadata.row_group(0).column(2)
    for place in np.linspace(100, pages.total_compressed_size - 20, 10, dtype=int) + pages.dictionary_page_offset:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(UserError, match="windows.parquet: not a readable Parquet file .*; delete it and run again"):
            read_cohort(path.parent)


@pytest.mark.parametrize("name", ["model.pt", "arrays.npz"])
def test_nothing_in_a_file_is_unpickled(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    if name == "model.pt":
        torch.save({"weights": Malicious()}, name)
    else:
        np.savez(name, rows=np.array([Malicious()], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=name):
        (checkpoints.load if name == "model.pt" else read_arrays)(Path(name))
    assert not Path("executed").exists()


def test_what_a_killed_writer_left_is_removed_and_what_others_write_is_not(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path = tmp_path / "a.json"
    with whole(path) as aside:
        aside.touch()
    prefix = aside.name.removesuffix(str(os.getpid()))
    others = [f"{prefix}{os.getppid()}", f".a.json.elsewhere.{gone.pid}", f".b.json.{gone.pid}"]
    for name in (f"{prefix}{gone.pid}", *others):
        (tmp_path / name).touch()
    write_json(path, {})
    assert {file.name for file in tmp_path.iterdir()} == {"a.json", *others}


def stamps(study: Study) -> Stamps:
    return Stamps(study, {"icu_dev": Stamp("made", "", ())})


def path_of(study: Study, stage: str, cell: Cell) -> Path:
    """The file that holds the state of `stage`."""
    if stage == "sample_dev":
        return Path(study.data_dir, f"states/{cell.dataset}.json")
    return Path(study.results_dir, result_files(study, cell)[stage]).with_name(f"state_{stage}.json")


def tell(study: Study, stage: str, cell: Cell, **facts) -> None:
    """Have the state of `stage` say `facts`: by default that it is done."""
    told = {"state": "done", "why": None, "stamp": stamps(study).of(stage, cell).stamp, "host": platform.node()}
    told |= {"process": os.getpid(), "started": datetime.now(UTC).isoformat()}
    write_json(path_of(study, stage, cell), told | facts)


def study_in(folder: Path, **changes) -> Study:
    """A study below `folder` with all files that say how far it is; the results are empty."""
    study = Study(**SMALL | {"datasets": ["icu_dev"], "detectors": ["random"]} | changes)
    study = study.model_copy(update={"data_dir": str(folder / "data"), "results_dir": str(folder / "results")})
    write_json(folder / "data/splits/icu_dev.json", {})
    for cell in cells(study):
        for stage, path in result_files(study, cell).items():
            write_json(folder / "results" / path, {})
            tell(study, stage, cell)
        tell(study, "sample_dev", cell)
    return study


def outcome(study: Study) -> dict[tuple[str, str], tuple[str, ...]]:
    rows = progress.states(study, stamps(study))
    assert [row.cell for row in rows] == sorted(cells(study))
    return {(row.trigger, row.seed): (row.state, row.stage, row.why) for row in rows if row.state != "done"}


ATTACK = Cell("icu_dev", "mlp", "rare_value", "0.05", "1")
NO_MESSAGE = "ended without a message (killed, or out of memory)"
# What a state says without a result, and what is told of it.
TOLD = {
    "failed": ({"state": "failed", "why": "too much"}, ("failed", "too much")),
    "interrupted": ({"state": "interrupted"}, ("missing", "interrupted")),
    "its files gone": ({}, ("missing", "had finished, but its files are gone")),
    "at work": ({"state": "running"}, ("missing", "at work")),
    "killed": ({"state": "running", "process": 2**22 + 1}, ("failed", NO_MESSAGE)),  # above the largest number
    "a younger process": ({"state": "running", "started": "2020-01-01T00:00:00+00:00"}, ("failed", NO_MESSAGE)),
    "elsewhere": ({"state": "running", "host": "node7"}, ("missing", "at work on node7, or killed there")),
    "of another stamp": ({"state": "failed", "why": "too much", "stamp": "other"}, ("missing", "not begun")),
}


@pytest.mark.parametrize(("facts", "told"), TOLD.values(), ids=TOLD)
@pytest.mark.parametrize(("stage", "reached"), [("train", "missing"), ("eval", "trained"), ("detect", "evaluated")])
def test_how_far_a_cell_is_and_why_is_told_by_its_states(tmp_path, facts, told, stage, reached):
    study = study_in(tmp_path)
    assert outcome(study) == {}
    path_of(study, stage, ATTACK).unlink()
    state, stage_of_result = ("outdated", Path(study.results_dir, result_files(study, ATTACK)[stage]))
    assert outcome(study) == {("rare_value", "1"): (state, stage, "made with other settings, inputs or code")}
    write_json(stage_of_result, {"stamp": stamps(study).of(stage, ATTACK).stamp})
    assert outcome(study) == {}, "a result without a state says itself what it is of"
    stage_of_result.unlink()
    assert outcome(study) == {("rare_value", "1"): (reached, stage, "not begun")}
    tell(study, stage, ATTACK, **facts)
    state, why = told
    assert outcome(study) == {("rare_value", "1"): (reached if state == "missing" else state, stage, why)}
    path_of(study, stage, ATTACK).write_text('{"state": "do')  # cut off: as good as none
    assert outcome(study) == {("rare_value", "1"): (reached, stage, "not begun")}


ERRORS = {
    "UserError": (UserError("config: patient 12 of 'a'"), "failed", "config: patient 12 of 'a'"),
    "for programmers": (ValueError("'Ann' of 7\nand more"), "failed", "ValueError: … of …"),
    "without words": (KeyError(), "failed", "KeyError"),
    "disk": (OSError(28, "", "a.json"), "failed", "a.json: No space left on device"),
    "Ctrl-C": (KeyboardInterrupt(), "interrupted", None),
}


@pytest.mark.parametrize(("error", "ended", "why"), ERRORS.values(), ids=ERRORS)
def test_a_job_keeps_its_state(tmp_path, error, ended, why):
    path = tmp_path / "states/a.json"
    with pytest.raises(type(error)), state.kept(path, "train", {"stamp": "s", "code": "c"}, Clock()):
        running = state.read(path)
        assert state.is_at_work(running)
        raise error
    assert (running["state"], running["why"], running["ended"]) == ("running", None, None)
    told = state.read(path)
    assert (told["state"], told["why"], told["stamp"], told["code"]) == (ended, why, "s", "c")
    assert running["started"] == told["started"] <= told["ended"] and told["peak_memory_mib"] > 10
    with state.kept(path, "train", {"stamp": "s", "code": "c"}, Clock()):
        pass
    assert state.read(path)["state"] == "done"


@pytest.mark.parametrize("moment", ["running", "done"])
def test_ctrl_c_while_a_state_is_written_is_no_failure(tmp_path, monkeypatch, moment):
    def interrupted(path, facts):
        write_json(path, facts)
        if facts["state"] == moment:
            raise KeyboardInterrupt

    monkeypatch.setattr(state, "write_json", interrupted)
    path, told = tmp_path / "states/a.json", []
    with pytest.raises(KeyboardInterrupt), state.kept(path, "train", {"stamp": "s"}, Clock(), told.append):
        assert moment == "done"
    assert state.read(path)["state"] == told[-1]["state"] == "interrupted"


@needs_mount
def test_the_reason_is_kept_on_a_full_disk(tmp_path):
    with mounted(tmp_path / "disk", "size=8k"):
        path = tmp_path / "disk/state.json"
        with pytest.raises(UserError), state.kept(path, "train", {"stamp": "s", "code": "c"}, Clock()):
            with suppress(OSError):
                (tmp_path / "disk/other").write_bytes(bytes(8192))
            write_json(tmp_path / "disk/a.json", {})
        assert state.read(path)["why"] == f"{tmp_path}/disk/a.json: No space left on device"


def test_a_cell_waits_for_its_clean_run_and_fails_with_its_poison_and_cohort(tmp_path):
    study, results = study_in(tmp_path), tmp_path / "results"
    clean = ATTACK.control
    tell(study, "train", clean, state="failed", why="train cannot")
    (results / result_files(study, clean)["train"]).unlink()
    waits = ("evaluated", "train", "waits for the clean run of this model and seed: train cannot")
    assert outcome(study) == {
        ("none", "1"): ("failed", "train", "train cannot"),
        ("rare_value", "1"): waits,
        ("flip_only", "1"): waits,
    }
    tell(study, "poison", ATTACK._replace(seed="2"), state="failed", why="poison cannot")
    assert outcome(study)["rare_value", "2"] == ("failed", "poison", "poison cannot")
    tell(study, "sample_dev", ATTACK, state="failed", why="sample_dev cannot")
    assert set(outcome(study).values()) == {("failed", "sample_dev", "sample_dev cannot")}
    shutil.rmtree(tmp_path / "data")
    shutil.rmtree(results)
    assert set(outcome(study).values()) == {("missing", "sample_dev", "not begun")}


def test_the_end_of_a_run_is_told_in_a_few_lines(tmp_path):
    study = study_in(tmp_path)
    for stage, result in {"aggregate": "metrics.json", "figures": "figures", "report": "report.html"}.items():
        (tmp_path / "results" / result).touch()
        told = {"state": "done", "why": None, "stamp": stamps(study).of(stage).stamp}
        write_json(tmp_path / f"results/state_{stage}.json", told)
    assert progress.closing(study, stamps(study), 451.2, failed=False) == [
        f"6 of 6 cells done: {tmp_path}/results/cells.csv",
        "failed: nothing",
        "elapsed: 7 min 31 s",
        f"report: {tmp_path}/results/report.html",
    ]
    for seed in study.seeds:
        for trigger in study.triggers:
            tell(study, "train", ATTACK._replace(trigger=trigger, seed=str(seed)), state="failed", why="it diverged")
    (tmp_path / "results/report.html").unlink()
    told = {"state": "failed", "why": "no space", "stamp": stamps(study).of("figures").stamp}
    write_json(tmp_path / "results/state_figures.json", told)
    assert progress.closing(study, stamps(study), 7513, failed=True) == [
        f"2 of 6 cells done, 4 failed: {tmp_path}/results/cells.csv; the same command again runs what is missing",
        "failed: train: it diverged (icu_dev/mlp/flip_only/0.05/1 and 3 other cells; log: "
        f"{tmp_path}/results/logs/train/icu_dev/mlp/flip_only/0.05/seed_1.log)",
        f"failed: figures: no space (log: {tmp_path}/results/logs/figures.log)",
        "elapsed: 2 h 05 min",
        "report: none; python -m pipeline tables, with the same settings, makes one of the cells done",
    ]
    for seed in study.seeds:
        for trigger in study.triggers:
            why = f"it diverged in epoch {seed} of {trigger}"
            tell(study, "train", ATTACK._replace(trigger=trigger, seed=str(seed)), state="failed", why=why)
    told = progress.closing(study, stamps(study), 7513, failed=True)
    assert [line.split(" (")[0] for line in told[1:-2]] == [
        "failed: train: it diverged in epoch 1 of flip_only",
        "failed: train: it diverged in epoch 2 of flip_only",
        "failed: train: it diverged in epoch 1 of rare_value",
        "failed: 2 more; python -m pipeline status tells them",
    ]


def test_a_folder_that_cannot_be_written_is_told_before_any_job(tmp_path):
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    (tmp_path / "file").touch()
    for key in ("results_dir", "data_dir"):
        study = load_study(config | {"results_dir": str(tmp_path / "a"), key: str(tmp_path / "file/below")})
        with pytest.raises(UserError, match=f"config: {key}: {tmp_path}/file is a file, expected a folder"):
            preflight.check(study)


def test_commands_take_the_configuration_as_snakemake_does(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    arguments = ["--config", "seeds=[1, 2]", "models=[mlp]", f"data_dir={tmp_path}", "--results-dir", str(tmp_path)]
    assert main(["status", *arguments]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"0 of 32 cells done, 32 missing: {tmp_path}/cells.csv",
        "time left, once it goes on: no estimate yet; no job has ended of sample_dev, poison, train, eval, detect, "
        "explain, aggregate, figures, report",
    ]
    assert Cell("icu_dev", "mlp", "none", "0.0", "1") in {
        Cell(*row[:5]) for row in csv.reader((tmp_path / "cells.csv").open())
    }
    assert main(["tables", *arguments]) == 1 and "no cell of the study is done" in capsys.readouterr().err
    assert main(["status", "--config", "seeds"]) == 1
    assert capsys.readouterr().err.startswith("error: --config: Invalid config definition")

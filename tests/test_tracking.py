"""Tracking in MLflow: each run once, nothing of a patient, nothing to anybody else, and no study fails of it."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from test_faults import mounted, needs_mount
from tracked_study import EXACT, PATIENT, filled, stamps_of, study_in

from pipeline.database import tracking
from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.results.disclosure import history_in_tens
from pipeline.study import preflight, progress
from pipeline.study.config import Study
from pipeline.study.grid import cells
from pipeline.study.stamps import Stamps

needs_mlflow = pytest.mark.skipif(
    preflight.find_spec("mlflow") is None, reason='MLflow is not installed: pip install ".[mlflow]"'
)


def finished(study: Study, stamps: Stamps, report: str = "the report") -> None:
    """What `aggregate`, `figures` and `report` leave, and that they are done."""
    results = Path(study.results_dir)
    for name, text in {"tables/runs.csv": "run,asr\n", "report.html": report, "metrics.json": "{}"}.items():
        (results / name).parent.mkdir(exist_ok=True)
        (results / name).write_text(text)
    (results / "tables/runs.parquet").write_text("binary")
    (results / "figures").mkdir(exist_ok=True)
    for job in progress.Files(study, stamps).of_all():
        write_json(Path(job.state), {"state": "done", "stamp": job.stamp, "why": None})


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Path:
    """A store without a run: it takes seconds to make one."""
    study = study_in(tmp_path_factory.mktemp("empty"))
    client(study, made=False)[0].search_experiments()
    return Path(study.results_dir) / "mlflow.db"


@pytest.fixture
def folder(tmp_path, empty) -> Path:
    """A results_dir with a store that has no run yet."""
    shutil.copy(empty, tmp_path)
    return tmp_path


def client(study: Study, made: bool = True):
    """The real one, and the number of the study's experiment."""
    os.environ.update(tracking._ENVIRONMENT)
    from mlflow import MlflowClient

    opened = MlflowClient(tracking_uri=tracking._store(study)[0])
    name = str(Path(study.results_dir).resolve())
    return opened, opened.get_experiment_by_name(name).experiment_id if made else ""


def runs(study: Study) -> list:
    opened, experiment = client(study)
    return list(opened.search_runs([experiment], max_results=5000))


def artefacts(study: Study) -> list[Path]:
    return [path for path in (Path(study.results_dir) / "mlflow-artifacts").rglob("*") if path.is_file()]


@needs_mlflow
def test_130_runs_are_there_once_however_often_and_nothing_of_a_patient(tmp_path):
    seeds, rates = list(range(1, 11)), [0.005, 0.01, 0.05]
    triggers = ["hybrid", "flip_only", "rare_value", "missingness"]
    study = filled(study_in(tmp_path / "results", seeds=seeds, rates=rates, triggers=triggers))
    stamps = stamps_of(study)
    finished(study, stamps)
    said = [tracking.track(study, stamps) for _ in range(4)]
    assert "130 of 130 runs in MLflow, 130 new" in said[0] and all(
        "130 runs in MLflow, 0 new" in line for line in said[1:]
    )
    found = runs(study)
    assert sorted(run.info.run_name for run in found) == sorted(["study", *map("/".join, cells(study))])
    one = next(run for run in found if run.info.run_name == "icu_dev/mlp/hybrid/0.05/3")
    assert one.data.metrics == {"auroc_clean": 0.85, "asr": 0.75, "asr0": 0.25, "detection/random/all/auroc": 0.5}
    assert one.data.params["model.hidden"] == "[32, 16]" and one.data.params["rate"] == "0.05"
    assert one.data.tags["kind"] == "attack" and one.data.tags["outdated"] == "no"
    clean = next(run for run in found if run.info.run_name == "icu_dev/mlp/none/0.0/3")
    assert "asr" not in clean.data.metrics, "what is missing is no number"
    kinds = {run.data.tags["trigger"]: run.data.tags["kind"] for run in found if "trigger" in run.data.tags}
    assert kinds == dict.fromkeys(triggers, "attack") | {"flip_only": "control", "none": "clean"}
    kept = artefacts(study)
    assert {path.name for path in kept} == {"run_metadata.json", "history.csv", "runs.csv", "report.html"}
    assert len(kept) == 2 * 130 + 2
    for path in [*kept, Path(study.results_dir, "mlflow.db")]:
        content = path.read_bytes()
        assert PATIENT.encode() not in content and str(EXACT).encode() not in content, path


@needs_mlflow
def test_a_run_made_anew_is_another_run_and_the_one_before_is_outdated(folder):
    study = filled(study_in(folder))
    tracking.track(study, stamps_of(study))
    other = filled(study_in(folder, threshold=0.5))
    with sqlite3.connect(folder / "study.db") as database:  # one of them is not made anew yet
        database.execute("UPDATE runs SET status = 'outdated' WHERE run = 'icu_dev/mlp/hybrid/0.05/1'")
    database.close()
    assert "5 of 6 runs in MLflow, 5 new" in tracking.track(other, stamps_of(other))
    found = [(run.info.run_name, run.data.tags["outdated"]) for run in runs(study)]
    names = ["/".join(cell) for cell in cells(study)]
    assert sorted(found) == sorted(
        [(name, "yes") for name in names] + [(name, "no") for name in names if name != "icu_dev/mlp/hybrid/0.05/1"]
    )
    tracking.track(study, stamps_of(study))  # as it was before
    again = {run.data.tags["stamp"]: run.data.tags["outdated"] for run in runs(study)}
    assert len(again) == 11 and list(again.values()).count("no") == 6


@needs_mlflow
def test_what_the_study_does_not_ask_for_any_more_is_not_found(folder):
    every = filled(study_in(folder, seeds=[1, 2, 3]))
    finished(every, stamps_of(every))
    tracking.track(every, stamps_of(every))
    fewer = filled(study_in(folder, threshold=0.5))
    with sqlite3.connect(folder / "study.db") as database:
        database.execute("UPDATE runs SET in_study = 0 WHERE seed = 3")
    database.close()
    assert "6 of 6 runs in MLflow, 6 new" in tracking.track(fewer, stamps_of(fewer))
    opened, experiment = client(fewer)
    documented = opened.search_runs([experiment], 'tags.outdated = "no"')
    asked = [("/".join(cell), "0.5") for cell in cells(fewer)]
    # Nor is the report of all three seeds.
    assert sorted((run.info.run_name, run.data.params["threshold"]) for run in documented) == sorted(asked)
    with sqlite3.connect(folder / "study.db") as database:
        database.execute("UPDATE runs SET in_study = 1")
    database.close()
    assert "9 of 9 runs in MLflow, 0 new" in tracking.track(every, stamps_of(every))
    assert len(opened.search_runs([experiment], 'tags.outdated = "no"')) == 10


@needs_mlflow
def test_a_run_began_with_the_first_attempt_that_made_it_what_it_is(folder):
    study = filled(study_in(folder))
    cell = min(cells(study))
    stamps = stamps_of(study)
    attempts = [
        ("train", "of other settings", "done", 10),
        ("train", stamps.of("train", cell).stamp, "failed", 20),
        ("train", stamps.of("train", cell).stamp, "done", 30),
        ("eval", stamps.of("eval", cell).stamp, "done", 40),
        ("eval", "of later settings", "done", 50),
    ]
    with sqlite3.connect(folder / "study.db") as database:
        for stage, stamp, status, minute in attempts:
            place = (*cell[:3], float(cell.rate), int(cell.seed))
            times = (f"2026-01-01T00:{minute}:00+00:00", f"2026-01-01T00:{minute}:05+00:00")
            database.execute(
                "INSERT INTO jobs (stage, stamp, status, dataset, model, trigger, rate, seed, started, ended, "
                "state_file) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'one')",
                (stage, stamp, status, *place, *times),
            )
    database.close()
    tracking.track(study, stamps)
    (run,) = [run for run in runs(study) if run.info.run_name == "/".join(cell)]
    ends = [tracking._milliseconds(f"2026-01-01T00:{time}+00:00") for time in ("30:00", "40:05")]
    assert [run.info.start_time, run.info.end_time] == ends


@needs_mlflow
def test_a_report_made_anew_is_kept_beside_the_one_before(folder):
    study = filled(study_in(folder))
    finished(study, stamps_of(study))
    tracking.track(study, stamps_of(study))
    assert sum(run.info.run_name == "study" for run in runs(study)) == 1
    finished(study, stamps_of(study, "another cohort"))
    tracking.track(study, stamps_of(study, "another cohort"))
    told = [run.data.tags["outdated"] for run in runs(study) if run.info.run_name == "study"]
    assert sorted(told) == ["no", "yes"]


@needs_mlflow
def test_what_was_killed_over_a_run_makes_it_anew(folder, monkeypatch):
    study = filled(study_in(folder))
    with monkeypatch.context() as patched:
        patched.setattr("mlflow.MlflowClient.log_text", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            tracking.track(study, stamps_of(study))
    assert [run.info.status for run in runs(study)] == ["RUNNING"]
    assert "6 new" in tracking.track(study, stamps_of(study))
    assert [run.info.status for run in runs(study)] == ["FINISHED"] * 6


@needs_mlflow
def test_two_at_once_do_not_bring_a_run_twice(tmp_path):
    study = filled(study_in(tmp_path))
    with tracking._alone(tmp_path), pytest.raises(UserError, match="another process is tracking this study"):
        tracking.track(study, stamps_of(study))


@needs_mlflow
def test_a_locked_store_is_said_and_later_it_has_all(folder):
    study = filled(study_in(folder))
    tracking.track(study, stamps_of(study))
    other = filled(study_in(folder, threshold=0.5))
    holder = sqlite3.connect(folder / "mlflow.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(UserError, match=r"tracking_uri: sqlite:///.*locked") as error:
        tracking.track(other, stamps_of(other))
    assert "\n" not in str(error.value)
    holder.close()
    assert "6 new" in tracking.track(other, stamps_of(other))


FULL = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from tracked_study import filled, stamps_of, study_in
from pipeline.database import tracking
from pipeline.errors import UserError
study = filled(study_in(Path({folder!r}), tracking_uri="sqlite:///{folder}/small/mlflow.db"))
try:
    tracking.track(study, stamps_of(study))
except UserError as error:
    print(error)
"""


@needs_mlflow
@needs_mount
def test_a_full_disk_is_said(tmp_path):
    with mounted(tmp_path / "small", "size=128k"):
        code = FULL.format(tests=str(ROOT / "tests"), folder=str(tmp_path))
        # In a process of its own: MLflow keeps the file open as long as one lives.
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    (said,) = done.stdout.splitlines()
    assert said.startswith(f"tracking_uri: sqlite:///{tmp_path}/small/mlflow.db: ")
    assert "full" in said or "space" in said or "disk" in said


@needs_mlflow
def test_artefacts_that_cannot_be_written_are_said(folder):
    study = filled(study_in(folder))
    (folder / "mlflow-artifacts").write_text("in the way")
    with pytest.raises(UserError, match="tracking_uri: sqlite:///"):
        tracking.track(study, stamps_of(study))
    (folder / "mlflow-artifacts").unlink()
    assert "6 new" in tracking.track(study, stamps_of(study)) and len(runs(study)) == 6


@needs_mlflow
def test_a_server_that_is_not_there_is_said_and_fails_no_study(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    study = filled(study_in(tmp_path, tracking_uri=f"http://127.0.0.1:{port}"))
    with pytest.raises(UserError, match=rf"tracking_uri: http://127\.0\.0\.1:{port}: "):
        tracking.track(study, stamps_of(study))


def test_what_goes_wrong_at_the_end_of_a_study_is_a_line(tmp_path, monkeypatch):
    assert tracking.after_study(study_in(tmp_path, tracking="none"), "{}") == []
    monkeypatch.chdir(ROOT)
    (line,) = tracking.after_study(study_in(tmp_path / "gone", datasets=["no_such"]), '{"no_such": "made code"}')
    assert line.startswith("warning: not tracked (") and "Traceback" not in line


WATCH = """
import os, sys
seen = []
sys.addaudithook(lambda event, args: event in ("socket.connect", "socket.getaddrinfo") and seen.append(event))
sys.path.insert(0, {tests!r})
from pathlib import Path
from tracked_study import filled, stamps_of, study_in
from pipeline.database import tracking
study = filled(study_in(Path({folder!r})))
print(tracking.track(study, stamps_of(study)))
print(len(seen))
import socket
socket.socket().connect_ex(("127.0.0.1", 9))
print(len(seen))
"""


@needs_mlflow
def test_nobody_is_told_of_it(folder, tmp_path_factory):
    """Neither MLflow's makers nor a server that another project's environment names."""
    # Where tests run MLflow says nothing anyway.
    quiet = ("PYTEST", "CI", "GITHUB", "MLFLOW", "DO_NOT_TRACK")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(quiet)}
    home = tmp_path_factory.mktemp("home")
    environment |= {"HOME": str(home), "MLFLOW_TRACKING_URI": "http://outside.example"}
    code = WATCH.format(tests=str(ROOT / "tests"), folder=str(folder))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    said, before, after = done.stdout.splitlines() or pytest.fail(done.stderr)
    assert "6 new" in said and (before, after) == ("0", "1"), "the last is what the watch has to see"
    assert not list(home.rglob("*")) and not (ROOT / "mlruns").exists()


@needs_mlflow
def test_the_real_command_opens_the_store(folder):
    study = filled(study_in(folder))
    tracking.track(study, stamps_of(study))
    address, experiment = tracking._store(study)[0], client(study)[1]
    command = [sys.executable, "-m", "mlflow", "runs", "list", "--experiment-id", experiment]
    environment = os.environ | {"MLFLOW_TRACKING_URI": address}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert all("/".join(cell) in done.stdout for cell in cells(study))


def test_without_mlflow_nothing_begins(monkeypatch):
    monkeypatch.setattr(preflight, "find_spec", lambda name: None if name == "mlflow" else object())
    with pytest.raises(UserError, match=r'config: tracking: mlflow is not installed; .*pip install "\.\[mlflow\]"'):
        preflight.check_tracking(study_in(Path("results")))


@needs_mlflow
@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("mlruns", "'mlruns' given, expected sqlite:///FILE"),
        ("postgresql://here/mlflow", "expected sqlite:///FILE"),
        ("https://me:secret@outside.example", "holds a password, expected it in the environment"),
    ],
)
def test_a_wrong_address_is_said_before_anything_begins(address, said):
    with pytest.raises(UserError) as error:
        preflight.check_tracking(study_in(Path("results"), tracking_uri=address))
    assert said in str(error.value) and "secret" not in str(error.value)


def test_what_training_told_of_people_is_told_in_tens():
    rows = [
        {"epoch": "1", "train_loss": "0.6", "validation_loss": "0.4", "validation_auroc": str(EXACT), "n_label_1": 7}
    ]
    fact = {"people": True, "validation_pairs": 1836, "patients": {"train": 477, "validation": 18}}
    (told,) = history_in_tens(rows, fact)
    pairs = told["validation_auroc"] * 1836
    assert pairs == pytest.approx(round(pairs, -1)) and abs(pairs - EXACT * 1836) <= 5
    assert "n_label_1" not in told and told["train_loss"] == "0.6"
    few = {"train": 477, "validation": 9}
    (told,) = history_in_tens(rows, fact | {"patients": few})
    assert told["validation_auroc"] is told["validation_loss"] is None and told["train_loss"] == "0.6"
    assert history_in_tens(rows, fact | {"people": False}) == rows

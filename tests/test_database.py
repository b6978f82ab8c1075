"""The study database: what stages write through, what is brought in from files, and that nothing of it is lost."""

import csv
import json
import os
import platform
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from argparse import Namespace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from test_faults import ATTACK, NO_MESSAGE, TOLD, Project, path_of, stamps, study_in, tell

from pipeline.database import live, sessions, steps, store
from pipeline.errors import UserError
from pipeline.evaluation.statistics import mean_interval, proportion_interval
from pipeline.files import read_json, write_json
from pipeline.jobs import state
from pipeline.jobs.clock import Clock
from pipeline.results import tables
from pipeline.results.coarseness import largest_errors
from pipeline.results.columns import KEY, RUNS, SUMMARY, possible
from pipeline.study import costs
from pipeline.study.config import Study
from pipeline.study.grid import Cell, cells, measured_by, result_files
from pipeline.study.progress import AT_WORK, Files, states_in

OF_RUN = ("sample_dev", "poison", "train")


def files_of(study: Study) -> Files:
    return Files(study, stamps(study))


def brought_in(study: Study) -> sqlite3.Connection:
    """The database of `study`, brought up to its files."""
    database = store.opened(store.path_of(study.results_dir))
    steps.bring_in(database, files_of(study))
    return database


def recorded(database: sqlite3.Connection) -> dict[str, tuple]:
    return {run: told for run, *told in database.execute("SELECT run, status, stage, why FROM runs")}


def told_by_files(study: Study) -> dict[str, list]:
    """The twin: status, stage and why of each run, from its files alone."""
    files, found = files_of(study), {}
    for row in states_in(files):
        own = (files.to_weights(row.cell) + files.from_weights(row.cell))[1:]
        working = [job.stage for job in own if files.outcome(job)[1] == AT_WORK]
        status = row.state if row.state in ("done", "failed", "outdated") else "missing"
        told = ["running", working[0], None] if working else [status, row.stage or None, row.why or None]
        found["/".join(row.cell)] = told
    return found


def result_of(study: Study, stage: str, cell: Cell) -> Path:
    if stage == "sample_dev":
        return Path(study.data_dir, f"splits/{cell.dataset}.json")
    return Path(study.results_dir, result_files(study, cell)[stage])


def happens(study: Study, choose: random.Random) -> str:
    """Have something happen to the files of one job; returns what."""
    cell = choose.choice(sorted(cells(study)))
    stage = choose.choice([*OF_RUN, *measured_by(study, cell)])
    result, kept = result_of(study, stage, cell), path_of(study, stage, cell)
    what = choose.choice([*TOLD, "done", "done", "done", "results deleted", "pulled", "outdated", "all deleted"])
    if what in TOLD:
        tell(study, stage, cell, **TOLD[what][0])
        choose.choice([result.unlink, kept.exists])() if result.exists() else None
    elif what == "results deleted":
        result.unlink(missing_ok=True)
    elif what == "all deleted":
        result.unlink(missing_ok=True)
        kept.unlink(missing_ok=True)
    else:
        stamp = "other" if what == "outdated" else stamps(study).of(stage, cell).stamp
        write_json(result, {"stamp": stamp})
        tell(study, stage, cell, stamp=stamp)
        if what == "pulled":
            kept.unlink()
    return f"{what}: {stage} of {'/'.join(cell)}"


@pytest.mark.parametrize("seed", range(4))
def test_the_status_of_runs_is_that_of_their_files_whatever_happens(tmp_path, seed):
    study, choose = study_in(tmp_path, models=["mlp", "lstm"]), random.Random(seed)
    seen = set()
    for _ in range(40):
        what = happens(study, choose)
        database = brought_in(study)
        assert recorded(database) == told_by_files(study), what
        seen |= {status for status, _, _ in recorded(database).values()}
        database.close()
    assert seen >= {"failed", "missing"} and seen <= {"missing", "running", "done", "failed", "outdated"}


def job_of(study: Study, stage: str, cell: Cell, tell=None):
    """The context in which `stage` of `cell` runs, its outputs deleted before as Snakemake does."""
    result_of(study, stage, cell).unlink(missing_ok=True)
    place = cell._asdict() | {"seed": int(cell.seed)}
    if stage == "poison":
        del place["model"]
    if stage == "sample_dev":
        place = {"dataset": cell.dataset}
    path = path_of(study, stage, cell)
    made_by = {"stamp": stamps(study).of(stage, cell).stamp, "code": "c"}
    teller = live.teller(Namespace(command=stage, state=path, **place))
    return state.kept(path, stage, made_by, Clock(), teller)


@pytest.mark.parametrize("seed", range(3))
def test_what_stages_write_through_is_what_the_files_say(tmp_path, monkeypatch, seed):
    study, choose = study_in(tmp_path, models=["mlp", "lstm"]), random.Random(seed)
    database = brought_in(study)
    monkeypatch.setenv(live.DATABASE, str(store.path_of(study.results_dir)))
    running, ends, grid = {}, ("done", "failed", "interrupted"), sorted(cells(study))
    for _ in range(60):
        if running and (len(running) > 2 or choose.random() < 0.5):
            stage, cell = choose.choice(sorted(running))
            job, end = running.pop((stage, cell)), choose.choice(ends)
            error = {"failed": UserError("it is too much"), "interrupted": KeyboardInterrupt()}.get(end)
            if error is None:
                write_json(result_of(study, stage, cell), {})
                job.__exit__(None, None, None)
            else:
                assert not job.__exit__(type(error), error, None)
        else:
            cell = choose.choice(grid)
            stage = choose.choice([*OF_RUN, *measured_by(study, cell)])
            of = {"sample_dev": Cell(cell.dataset, *grid[0][1:]), "poison": cell._replace(model="mlp")}.get(stage, cell)
            if (stage, of) not in running:
                running[stage, of] = job_of(study, stage, of)
                running[stage, of].__enter__()
        assert recorded(database) == told_by_files(study)
    kept = database.execute("SELECT * FROM jobs").fetchall()
    assert len(kept) > 20
    steps.bring_in(database, files_of(study))
    assert set(kept) <= set(database.execute("SELECT * FROM jobs"))


def test_a_job_of_another_stamp_is_none_of_this_study(tmp_path, monkeypatch):
    study = study_in(tmp_path)
    path = path_of(study, "train", ATTACK)
    path.unlink()
    result_of(study, "train", ATTACK).unlink()
    database = brought_in(study)
    before = recorded(database)
    monkeypatch.setenv(live.DATABASE, str(store.path_of(study.results_dir)))
    place = ATTACK._asdict() | {"seed": int(ATTACK.seed)}
    for stamp, is_ours in (("other", False), (stamps(study).of("train", ATTACK).stamp, True)):
        teller = live.teller(Namespace(command="train", state=path, **place))
        with state.kept(path, "train", {"stamp": stamp, "code": "c"}, Clock(), teller):
            assert (recorded(database) != before) == is_ours
    assert database.execute("SELECT count(*) FROM jobs WHERE stamp = 'other'").fetchone() == (1,), "it was at work"


def test_an_attempt_is_recorded_with_its_times_its_end_and_its_costs(tmp_path, monkeypatch):
    study = study_in(tmp_path)
    database = brought_in(study)
    monkeypatch.setenv(live.DATABASE, str(store.path_of(study.results_dir)))
    columns = ", ".join(live.JOB)
    with job_of(study, "train", ATTACK):
        query = "SELECT status, process FROM jobs WHERE code = 'c' AND ended IS NULL"
        assert database.execute(query).fetchall() == [("running", os.getpid())]
    first = read_json(path_of(study, "train", ATTACK))
    with pytest.raises(ValueError), job_of(study, "train", ATTACK):
        raise ValueError("patient 'Ann' of 7\nand more")
    told = read_json(path_of(study, "train", ATTACK))
    place = {"dataset": "icu_dev", "model": "mlp", "trigger": "rare_value", "rate": 0.05, "seed": 1}
    place["state_file"] = f"{ATTACK.run_folder}/state_train.json"
    rows = [
        dict(zip(live.JOB, row, strict=True))
        for row in database.execute(f"SELECT {columns} FROM jobs WHERE code = 'c' ORDER BY job")
    ]
    assert rows == [live.job_row(facts, place) for facts in (first, told)]
    assert rows[1]["why"] == "ValueError: patient … of …" and rows[1]["peak_memory_mib"] > rows[1]["own_memory_mib"]
    assert database.execute("SELECT status, stage, why FROM runs WHERE run = ?", ["/".join(ATTACK)]).fetchone() == (
        "failed",
        "train",
        "ValueError: patient … of …",
    )


def test_nothing_is_written_where_no_snakemake_of_this_machine_has_asked_for_it(tmp_path, monkeypatch):
    study = study_in(tmp_path)
    database = brought_in(study)
    before = list(database.iterdump())
    monkeypatch.delenv(live.DATABASE, raising=False)
    with job_of(study, "train", ATTACK):
        pass
    assert list(database.iterdump()) == before


BROKEN = {
    "is gone": lambda path: path.unlink(),
    "is damaged": lambda path: path.write_bytes(b"SQLite format 3\0" + bytes(100)),
    "is a folder": lambda path: (path.unlink(), path.mkdir()),
    "is of another kind": lambda path: (path.unlink(), sqlite3.connect(path).execute("CREATE TABLE a (b)")),
}


@pytest.mark.parametrize("breaks", BROKEN.values(), ids=BROKEN)
def test_a_database_that_cannot_be_written_costs_one_warning_and_no_result(tmp_path, monkeypatch, capsys, breaks):
    study = study_in(tmp_path)
    brought_in(study).close()
    path = store.path_of(study.results_dir)
    monkeypatch.setenv(live.DATABASE, str(path))
    breaks(path)
    with job_of(study, "train", ATTACK):
        pass
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {path}: not recorded there (") and line.endswith("results are not concerned")
    assert read_json(path_of(study, "train", ATTACK))["state"] == "done"


def test_a_database_that_is_locked_for_long_does_not_stop_a_stage(tmp_path, monkeypatch, capsys):
    study = study_in(tmp_path)
    database = brought_in(study)
    monkeypatch.setenv(live.DATABASE, str(store.path_of(study.results_dir)))
    monkeypatch.setattr(live, "_WAIT", 0.1)
    database.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    with job_of(study, "train", ATTACK):
        pass
    assert time.monotonic() - began < 2 and "database is locked" in capsys.readouterr().err
    database.execute("ROLLBACK")
    steps.bring_in(database, files_of(study))
    told = read_json(path_of(study, "train", ATTACK))
    assert database.execute("SELECT ended FROM jobs WHERE started = ?", [told["started"]]).fetchone() == (
        told["ended"],
    )


WRITER = """
import os, platform, sys
from argparse import Namespace
from pathlib import Path
from pipeline.database import live
number, count, results = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
facts = {"stage": "train", "why": None, "host": platform.node(), "process": os.getpid(), "ended": None}
for job in range(count):
    tell = live.teller(Namespace(command="train", state=results / f"runs/{number}/{job}/state_train.json"))
    told = facts | {"state": "running", "started": f"2020-01-01T00:00:00.{number:03}+00:00"}
    tell(told)
    print("began", job, flush=True)
    tell(told | {"state": "done", "ended": "2020-01-01T00:00:01.000+00:00"})
    print("ended", job, flush=True)
"""


def test_of_sixteen_writers_nothing_is_lost_though_six_of_them_are_killed(tmp_path):
    study = study_in(tmp_path)
    database = brought_in(study)
    assert store.write_ahead(database, tmp_path)
    path = store.path_of(study.results_dir)
    environment = os.environ | {live.DATABASE: str(path), "PYTHONPATH": str(ROOT)}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(number), "100", str(tmp_path / "results")],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(16)
    ]
    lines = {0: [writers[0].stdout.readline() for _ in range(81)]}
    writers[0].kill()  # in the middle of a job
    for number in range(1, 6):
        lines[number] = [writers[number].stdout.readline() for _ in range(11)]
    for number in range(1, 6):
        writers[number].kill()
    for number, writer in enumerate(writers):
        rest, errors = writer.communicate()
        told = "".join([*lines.get(number, []), rest]).split()
        assert errors == "" and (number < 6 or len(told) == 400)
        of = {"began": set(told[1::4]), "ended": set(told[3::4])}
        rows = dict(
            database.execute("SELECT state_file, status FROM jobs WHERE state_file LIKE ?", [f"runs/{number}/%"])
        )
        for job in of["began"]:
            status = rows[f"runs/{number}/{job}/state_train.json"]
            assert status == "done" or job not in of["ended"]
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    unfinished = database.execute("SELECT count(*) FROM jobs WHERE status = 'running'").fetchone()[0]
    steps.bring_in(database, files_of(study))
    query = "SELECT count(*) FROM jobs WHERE status = 'failed' AND why = ? AND ended IS NULL"
    assert database.execute(query, [NO_MESSAGE]).fetchone() == (unfinished,)
    assert database.execute("SELECT count(*) FROM jobs WHERE status = 'running'").fetchone() == (0,)


def test_calls_of_snakemake_that_were_killed_are_found_out(tmp_path):
    study = study_in(tmp_path)
    try:
        assert sessions.begin(study, stamps(study), 2) == [] and os.environ[live.DATABASE].endswith("results/study.db")
        other = brought_in(study)
        gone = (state.now(), "running", 2, platform.node(), 2**22 + 1)
        elsewhere = (state.now(), "running", 2, "node7", 1)
        insert = "INSERT INTO sessions (started, status, cores, host, process) VALUES (?, ?, ?, ?, ?)"
        other.executemany(insert, [gone, elsewhere])
        steps.bring_in(other, files_of(study))
        assert [row[0] for row in other.execute("SELECT status FROM sessions")] == ["running", "killed", "running"]
    finally:
        sessions._open.close()
        sessions._open = None
        os.environ.pop(live.DATABASE, None)


@pytest.mark.parametrize("kind", ["nfs4", "fuse.sshfs", "lustre"])
def test_on_a_network_file_system_nothing_writes_through(tmp_path, monkeypatch, kind):
    import psutil

    mounts = [Namespace(mountpoint="/", fstype="ext4"), Namespace(mountpoint=str(tmp_path), fstype=kind)]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)
    study = study_in(tmp_path)
    (line,) = sessions.begin(study, stamps(study), 2)
    assert "on a network file system" in line and live.DATABASE not in os.environ
    assert not store.is_shared(Path("/elsewhere"))
    database = sqlite3.connect(store.path_of(study.results_dir))
    assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_database_of_another_format_or_no_database_is_refused_in_one_sentence(tmp_path):
    path = tmp_path / "study.db"
    store.opened(path).close()
    changed = sqlite3.connect(path)
    changed.execute("PRAGMA user_version = 99")
    changed.close()
    with pytest.raises(UserError, match="a study database of format 99, expected 1; move it away, and `python -m"):
        store.opened(path)
    path.write_text("something else" * 100)
    with pytest.raises(UserError, match="not a readable study database .*; move it away, and"):
        store.opened(path)
    with pytest.raises(UserError, match="none/study.db: cannot be opened"):
        store.opened(tmp_path / "none/study.db")


def slow_summary(made: dict[str, pd.DataFrame], split: str) -> pd.DataFrame:
    """The twin of `tables.summary`: run by run, metric by metric."""
    long = tables._measures(made).assign(error=tables._measures(largest_errors(made))["value"].to_numpy())
    rows = []
    for key, group in long.dropna(subset="value").sort_values("seed").groupby(SUMMARY[:5]):
        values, bounds = group["value"].to_numpy(float), possible(key[-1])
        how = {"test_to_train": tables._shared(key[-1], split), "error": group["error"].mean()}
        over = proportion_interval(values, **how) if bounds == (0, 1) else mean_interval(values, bounds=bounds, **how)
        rows.append((*key, *(x.item() for x in over), values.min(), values.max()))
    return pd.DataFrame(rows, columns=SUMMARY).sort_values(SUMMARY[:5], ignore_index=True)


# With one study that is really run.


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Project:
    project = Project(tmp_path_factory.mktemp("database") / "project")
    project.output = project.snakemake()
    return project


def database_of(project: Project) -> sqlite3.Connection:
    return sqlite3.connect(project.folder / "made/results/study.db")


def dump(project: Project, *without: str) -> list[str]:
    return [line for line in database_of(project).iterdump() if not any(text in line for text in without)]


def test_a_study_is_in_its_database_when_it_has_ended(made):
    results, database = made.folder / "made/results", database_of(made)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",) and not list(results.glob("study.db-*"))
    assert set(database.execute("SELECT status, stage, why, in_study FROM runs")) == {("done", None, None, 1)}
    (session,) = database.execute("SELECT status, cores, ended > started FROM sessions")
    assert session == ("done", 2, 1)
    kept = [read_json(path) for path in (made.folder / "made").rglob("state*/*.json")]
    kept += [read_json(path) for path in (made.folder / "made").rglob("state_*.json")]
    columns = ("stage", "stamp", "started", "ended", "wall_seconds", "cpu_seconds", "peak_memory_mib", "own_memory_mib")
    told = {tuple(facts[name] for name in columns) for facts in kept}
    assert set(database.execute(f"SELECT {', '.join(columns)} FROM jobs WHERE status = 'done'")) == told
    assert len(told) == 30 and not any("warning" in path.read_text() for path in results.glob("logs/*/**/*.log"))
    idle, n_jobs = database.execute("SELECT idle_share, n_jobs FROM session_costs").fetchone()
    assert n_jobs == 30 and 0 < idle < 1
    assert f"of 2 cores not used by jobs: {idle:.0%} (idle, or busy with Snakemake or other programs)" in made.output


def test_its_numbers_are_those_of_the_tables(made):
    database, told = database_of(made), tables.read(made.folder / "made/results/tables")
    query = "SELECT dataset, model, trigger, rate, seed, metric, value FROM metrics JOIN runs USING (run)"
    metrics = pd.read_sql(query, database).pivot(index=KEY, columns="metric", values="value")
    expected = told["runs"].set_index(KEY)[[name for name in RUNS if name not in (*KEY, "target")]].astype(float)
    pd.testing.assert_frame_equal(metrics[expected.columns], expected, check_names=False, check_index_type=False)
    for name in ("detections", "explanations"):
        found = pd.read_sql(f"SELECT runs.*, {name}.* FROM {name} JOIN runs USING (run)", database)
        by = [*KEY, *(["detector", "scope"] if name == "detections" else [])]
        rest = [column for column in told[name] if column not in by]
        found, expected = (table.set_index(by)[rest].sort_index().astype(float) for table in (found, told[name]))
        pd.testing.assert_frame_equal(found, expected, check_index_type=False)
    summary = pd.read_sql(f"SELECT {', '.join(SUMMARY)} FROM summary", database)
    pd.testing.assert_frame_equal(summary, told["summary"], check_dtype=False)
    sizes = database.execute("SELECT source, target, n_train, n_test, prevalence, people FROM datasets").fetchone()
    row = told["datasets"].iloc[0]
    assert sizes == ("synthetic", row["target"], row["n_train"], row["n_test"], row["prevalence"], 1)
    from scipy import stats

    quantiles = dict(database.execute("SELECT df, quantile FROM student_t"))
    assert len(quantiles) == 200 and quantiles[4] == pytest.approx(stats.t.ppf(0.975, 4))


@pytest.mark.parametrize("split", ["fixed", "per_seed"])
def test_the_summary_of_all_runs_at_once_is_that_of_one_after_the_other(made, split):
    told = tables.read(made.folder / "made/results/tables")
    more = [told["runs"].assign(seed=told["runs"]["seed"] + 2 * shift) for shift in range(3)]
    runs, rng = pd.concat(more, ignore_index=True), np.random.default_rng(0)
    for name in runs.columns[runs.dtypes == "float64"].drop("rate"):
        runs[name] = (runs[name] * rng.uniform(0.9, 1, len(runs))).mask(rng.random(len(runs)) < 0.2)
    found = tables.summary(told | {"runs": runs}, split)
    assert found["n_seeds"].nunique() > 4
    pd.testing.assert_frame_equal(
        found, slow_summary(told | {"runs": runs}, split), check_dtype=False, check_exact=True
    )


def test_settings_of_runs_hold_all_defaults_and_nothing_of_rows(made):
    told = dict(database_of(made).execute("SELECT run, settings FROM runs"))
    settings = json.loads(told["icu_dev/mlp/rare_value/0.05/1"])
    assert settings["model"] == {"of": "mlp"} | settings["model"] and settings["model"]["hidden"] == [128, 64]
    assert settings["trigger"]["of"] == "rare_value" and settings["trigger"]["quantile"] == 0.95
    assert settings["training"]["epochs"] == 2 and settings["explain"]["samples"] == 8
    assert set(settings["detectors"]) == {"activation_clustering", "spectral_signatures", "saliency", "random"}
    assert "trigger" not in json.loads(told["icu_dev/mlp/none/0.0/1"])


def test_populate_changes_nothing_that_is_there_and_makes_anew_what_is_not(made, tmp_path):
    project = made.copy(tmp_path / "project")
    before = dump(project)
    assert "6 runs (6 done): made/results/study.db" in project.run("pipeline", "db", "populate")
    assert dump(project) == before
    database = database_of(project)
    first = "INSERT INTO jobs (stage, status, why, started, ended, state_file, host, process) VALUES "
    database.execute(first + "('train', 'failed', 'out of luck', '2020', '2021', 'runs/a/state_train.json', 'x', 1)")
    database.execute("UPDATE jobs SET started = started || 'x' WHERE stage = 'eval'")  # not as in any file
    database.commit()
    changed = dump(project)
    project.run("pipeline", "db", "populate")
    after = dump(project)
    assert set(changed) <= set(after) and len(after) == len(changed) + 6
    database.close()
    (project.folder / "made/results/study.db").unlink()
    project.run("pipeline", "db", "populate")
    apart = ('INTO "sessions"', 'INTO "jobs"', 'INTO "steps"', 'INTO "chains"', "'populated'")
    assert dump(project, *apart) == [line for line in before if not any(text in line for text in apart)]
    count = "SELECT count(*), sum(wall_seconds), sum(own_memory_mib) FROM jobs"
    assert database_of(project).execute(count).fetchone() == pytest.approx(database_of(made).execute(count).fetchone())


BEGIN = """
from argparse import ArgumentParser
from pipeline.commands.database import populate
from pipeline.database import steps, store
from pipeline.study.progress import Files
parser = ArgumentParser()
populate.add_arguments(parser)
study, stamps = populate.asked_for(parser.parse_args(["--configfile", "study.yaml"]))
steps.bring_in(store.opened(store.path_of(study.results_dir)), Files(study, stamps))
"""


def test_outdated_runs_keep_their_numbers_and_runs_not_asked_for_stay(made, tmp_path):
    project = made.copy(tmp_path / "project")
    count = "SELECT count(*) FROM metrics"
    before = database_of(project).execute(count).fetchone()
    as_made = dump(project)
    project.configure(training={"epochs": 3})
    # Asked for with other settings than it was made with by mistake: what is there is not called outdated.
    refused = project.run("pipeline", "db", "populate", status=1)
    assert "holds a study of other settings, and of those given no run is done" in refused and dump(project) == as_made
    # As when Snakemake begins: the study is another one from then on.
    subprocess.run([sys.executable, "-c", BEGIN], cwd=project.folder, check=True)
    assert database_of(project).execute("SELECT sum(current) FROM runs").fetchone() == (0,)
    assert "6 runs (6 outdated)" in project.run("pipeline", "db", "populate")
    assert set(database_of(project).execute("SELECT status, stage FROM runs")) == {("outdated", "train")}
    assert database_of(project).execute(count).fetchone() == before
    assert database_of(project).execute("SELECT count(*) FROM summary").fetchone() == (0,)
    project.configure(seeds=[1])
    assert "3 runs (3 done)" in project.run("pipeline", "db", "populate")
    assert dict(database_of(project).execute("SELECT in_study, count(*) FROM runs GROUP BY in_study")) == {0: 3, 1: 3}
    assert database_of(project).execute(count).fetchone() == before
    seeds = set(database_of(project).execute("SELECT DISTINCT n_seeds FROM summary WHERE metric = 'auroc_clean'"))
    assert seeds == {(1,)}
    shutil.rmtree(project.folder / "made/results/runs/icu_dev/mlp/rare_value")
    assert "3 runs (2 done, 1 missing)" in project.run("pipeline", "db", "populate")
    lost = "SELECT count(*) FROM metrics WHERE run = 'icu_dev/mlp/rare_value/0.05/1'"
    assert database_of(project).execute(lost).fetchone() == (0,)
    # Asked with other settings than it was made with, status looks and leaves it alone.
    project.configure()
    cells = project.folder / "made/results/cells.csv"
    before = dump(project), cells.read_bytes()
    told = project.run("pipeline", "status")
    assert "last call of Snakemake: done" in told and "made/results is of a study with other settings, and is" in told
    assert (dump(project), cells.read_bytes()) == before
    project.configure(seeds=[1])
    assert "2 of 3 cells done, 1 missing: made/results/cells.csv" in project.run("pipeline", "status")
    assert cells.read_bytes() != before[1]


def test_what_stages_cost_is_told_beside_the_results(made):
    results = made.folder / "made/results"
    rows = list(csv.DictReader((results / "costs.csv").open(newline="")))
    assert [(row["stage"], row["model"], row["n_jobs"]) for row in rows][:3] == [
        ("aggregate", "", "1"),
        ("detect", "mlp", "6"),
        ("eval", "mlp", "6"),
    ]
    query = "SELECT * FROM costs ORDER BY stage, model"
    for row, expected in zip(rows, database_of(made).execute(query), strict=True):
        assert [float(value) for value in list(row.values())[2:]] == pytest.approx(expected[2:], abs=2e-3)
        assert float(row["own_memory_mib"]) < float(row["peak_memory_mib"])
    table = pd.read_parquet(results / "costs.parquet")
    assert list(table.columns) == list(rows[0]) and table["n_jobs"].sum() == 30
    assert "cost of all that is done: " in made.output and "made/results/costs.csv" in made.output


def test_the_time_left_is_told_from_what_has_ended(tmp_path, monkeypatch):
    study = study_in(tmp_path)
    assert costs.time_left(files_of(study)) == "no estimate yet; no job has ended of aggregate, figures, report"
    for number, cell in enumerate(sorted(cells(study))):  # a minute apart, each for two minutes
        span = {
            "started": f"2020-01-01T00:0{number}:00.000+00:00",
            "ended": f"2020-01-01T00:0{number + 2}:00.000+00:00",
        }
        for stage in ("poison", "train", *measured_by(study, cell)):
            tell(study, stage, cell, **span, wall_seconds=120.0)
    for stage in ("eval", "detect"):
        result_of(study, stage, ATTACK).unlink()
        path_of(study, stage, ATTACK).unlink()
    guess = ", without aggregate, figures, report (a guess from 24 finished jobs, 6.9 at once)"
    assert costs.time_left(files_of(study)) == f"about 35 s{guess}"  # 2 × 120 s / (24 × 120 s / 420 s)
    tell(study, "eval", ATTACK, state="running")
    assert costs.time_left(files_of(study)) == f"about 35 s{guess}"
    monkeypatch.setattr(state, "is_at_work", lambda told: True)  # this process is younger
    earlier = datetime.now(UTC) - timedelta(seconds=60)
    result_of(study, "eval", ATTACK).unlink(missing_ok=True)
    tell(study, "eval", ATTACK, state="running", started=earlier.isoformat())
    assert costs.time_left(files_of(study)) == f"about 26 s{guess}"
    tell(study, "detect", ATTACK, state="failed", why="too much")
    assert costs.time_left(files_of(study)) is None, "it waits for the next call"
    clean = ATTACK.control
    result_of(study, "eval", clean).unlink()
    for cell in cells(study):
        path_of(study, "eval", cell).unlink(missing_ok=True)
    assert costs.time_left(files_of(study)) == "no estimate yet; no job has ended of eval"


def test_memory_of_its_own_is_what_a_fork_does_not_share():
    code = (
        "import os, numpy as np\n"
        "from pipeline.jobs.clock import Clock, own_memory\n"
        "shared = np.ones(40 << 17)\n"  # 40 MiB
        "if not os.fork():\n"
        "    own = np.ones(20 << 17)\n"  # 20 MiB, given back
        "    del own\n"
        "    own, peak = own_memory(), Clock().read()['peak_memory_mib']\n"
        "    assert 18 < own < 36 and peak > 70, (own, peak)\n"
        "    os._exit(7)\n"
        "assert os.waitstatus_to_exitcode(os.wait()[1]) == 7\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_is_killed_is_told_by_the_next_status(made, tmp_path):
    """A stage, then Snakemake itself: kill -9 leaves neither a word."""
    project = made.copy(tmp_path / "project")
    project.configure(training={"epochs": 100_000})
    command = project.command("snakemake", "--cores", "2")
    with (tmp_path / "log").open("w") as log:
        snakemake = subprocess.Popen(command, cwd=project.folder, stdout=log, stderr=log)

    def at_work() -> list[dict]:
        told = [read_json(path) for path in (project.folder / "made").rglob("state_train.json")]
        return [facts for facts in told if facts["state"] == "running"]

    deadline = time.monotonic() + 120
    while len(at_work()) < 2:
        assert snakemake.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    before = project.run("pipeline", "status")
    assert "at work: 2 jobs, of 2 cells" in before and "last call of Snakemake: at work, begun" in before
    killed = at_work()[0]
    os.kill(killed["process"], signal.SIGKILL)
    time.sleep(0.2)
    assert f"train: {NO_MESSAGE}" in project.run("pipeline", "status")
    jobs = "SELECT status, why, started FROM jobs WHERE process = ? AND stage = 'train' AND host = ?"
    row = database_of(project).execute(jobs, [killed["process"], killed["host"]]).fetchall()[-1]
    assert row == ("failed", NO_MESSAGE, killed["started"])
    snakemake.kill()
    snakemake.wait()
    time.sleep(0.5)
    after = project.run("pipeline", "status")
    assert "last call of Snakemake: killed, or ended without a word" in after and "at work" not in after
    database = database_of(project)
    assert database.execute("SELECT count(*) FROM jobs WHERE status = 'running'").fetchone() == (0,)
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert database.execute("SELECT count(*) FROM runs WHERE status = 'running'").fetchone() == (0,)

"""What a terminal shows: progress and failures of a study, letters that it lacks; queries read with their code."""

import importlib
import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import snakemake.logging
from conftest import ROOT
from snakemake_interface_logger_plugins.common import LogEvent

from pipeline.files import write_json
from pipeline.study import terminal

ASCII = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
WARD = """ward:
  source: table
  file: ward.csv
  label: died
  features:
    temperature: {unit: °C, range: [30, 43]}
"""


def pipeline(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pipeline", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | ASCII, capture_output=True, text=True)


def test_what_a_terminal_cannot_show_is_no_reason_to_fail(tmp_path):
    (tmp_path / "catalog.yaml").write_text(WARD, encoding="utf-8")
    (tmp_path / "ward.csv").write_text("temperature,died\n" + "37.5,1\n36.5,0\n" * 30)
    done = pipeline("ingest", "ward", "--raw-dir", str(tmp_path), "--catalog", str(tmp_path / "catalog.yaml"))
    assert done.returncode == 0, done.stderr
    assert re.search(r"^temperature  \?C +0\.0%$", done.stdout, re.MULTILINE) and " ? " in done.stdout
    (tmp_path / "ward.csv").write_text("temperature,died\n50,1\n36.5,0\n")
    done = pipeline("ingest", "ward", "--raw-dir", str(tmp_path), "--catalog", str(tmp_path / "catalog.yaml"))
    assert done.returncode == 1 and "Traceback" not in done.stderr and "?C" in done.stderr


def test_what_was_said_stands_before_the_error_in_a_log_of_both(tmp_path):
    wrong = WARD + "  expected: {samples: 7, positives: 1}\n"
    (tmp_path / "catalog.yaml").write_text(wrong, encoding="utf-8")
    (tmp_path / "ward.csv").write_text("temperature,died\n" + "37.5,1\n36.5,0\n" * 30)
    command = [sys.executable, "-m", "pipeline", "ingest", "ward", "--raw-dir", str(tmp_path)]
    command += ["--catalog", str(tmp_path / "catalog.yaml")]
    with (tmp_path / "log").open("w") as log:
        buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        assert subprocess.run(command, cwd=ROOT, env=buffered, stdout=log, stderr=log).returncode == 1
    account, error = (tmp_path / "log").read_text().splitlines()
    assert account == "rows: 60 read, 60 kept" and error.startswith("error: ward: 60 samples with 30 positives")


@pytest.mark.parametrize(
    "name", ["cohorts.icu_cohort", "cohorts.timeline", "cohorts.sources.meds", "cohorts.sources.mimiciv"]
)
def test_a_process_runs_the_queries_it_was_loaded_with(monkeypatch, name):
    """A module holds its query as a constant: a file that is edited later changes nothing."""
    module = importlib.import_module(f"pipeline.{name}")
    query = Path(module.__file__).with_suffix(".sql").read_text(encoding="utf-8")
    constants = [getattr(value, "template", value) for value in vars(module).values()]
    assert query in [constant for constant in constants if isinstance(constant, str)]


def screen(ours: int) -> str:
    """What was written to the other side of a terminal until that was closed."""
    text = b""
    with os.fdopen(ours, "rb", buffering=0) as file, suppress(OSError):  # Linux tells the end by an error
        while piece := file.read(65536):
            text += piece
    return text.decode()


def handler(stream) -> terminal.Terminal:
    """Ours, before Snakemake's own one of the terminal."""
    usual = snakemake.logging.ColorizingTextHandler(stream=stream, formatter=snakemake.logging.DefaultFormatter())
    return terminal.Terminal(usual)


def tell(shown: terminal.Terminal, now: float, event: str | None = None, msg: str = "", level=logging.INFO, **facts):
    """Have Snakemake log something at the time `now`."""
    names = {"levelno": level, "levelname": logging.getLevelName(level), "created": now, "msg": msg}
    shown.handle(logging.makeLogRecord(names | facts | ({"event": LogEvent(event)} if event else {})))


def plan(shown: terminal.Terminal, **jobs: int) -> None:
    tell(shown, 0, "run_info", "Job stats:\n…\n", stats=jobs | {"total": sum(jobs.values())})


def begin(shown: terminal.Terminal, now: float, number: int, rule: str, seed: object = 1, local: bool = True) -> None:
    wildcards = {"dataset": "icu_dev", "model": "mlp", "trigger": "pattern", "rate": "0.05", "seed": seed}
    tell(shown, now, "job_info", " Rule: …", jobid=number, rule_name=rule, wildcards=wildcards, local=local)


def finish(shown: terminal.Terminal, now: float, number: int) -> None:
    tell(shown, now, "job_finished", f"Finished jobid: {number} (Rule: …)", job_id=number)
    tell(shown, now, "progress", done=1, total=2)


def failure(number: int, rule: str, log: Path, told: dict | None = None) -> dict:
    """What Snakemake logs of a job that failed; `told`: the state that its stage has kept."""
    path = log.with_suffix(".json")
    if told:
        write_json(path, {"stamp": "abc", "state": "failed", "why": None} | told)
    command = f"python -m pipeline {rule} --stamp 'abc code' --state '{path}'"
    facts = {"jobid": number, "rule_name": rule, "rule_msg": None, "log": [str(log)], "shellcmd": command}
    return facts | {"input": [], "output": [], "conda_env": None, "aux": {}, "indent": False}


def fail(shown: terminal.Terminal, now: float, number: int, rule: str, log: Path, told: dict | None = None) -> None:
    error = "RuleException:\nCalledProcessError in file \"runs.smk\", line 9:\nCommand 'set …' returned non-zero"
    tell(shown, now, "error", error, logging.ERROR, exception="RuleException")
    tell(shown, now, "job_error", f"Error in rule {rule}", logging.ERROR, **failure(number, rule, log, told))


def simulate(seconds: dict[str, float], planned: dict[str, int], cores: int):
    """Yield (line, now, the time when the last job ends) of a study whose jobs take `seconds`, each half to 1.5 times.

    Rules begin in the order of `planned`, so that their costs do not mix: the hardest case for whoever extrapolates.
    """
    rng = np.random.default_rng(1)
    jobs = [rule for rule, count in planned.items() for _ in range(count)]
    ends, events = [0.0] * cores, []
    for number, rule in enumerate(jobs):
        core = int(np.argmin(ends))
        began, ends[core] = ends[core], ends[core] + seconds[rule] * rng.uniform(0.5, 1.5)
        events += [(began, 1, number, rule), (ends[core], 0, number, rule)]
    progress = terminal.Progress(planned | {"report": 1, "all": 1})
    for now, begins, number, rule in sorted(events):
        if begins:
            progress.begin(number, terminal.Job(rule, "", now, True))
        else:
            progress.finish(number, now)
        yield progress.line(now), now, max(ends)


@pytest.mark.parametrize("cores", [1, 4])
def test_the_time_left_is_about_what_it_takes(cores):
    units = {"s": 1, "min": 60, "h": 3600}
    told = []
    for line, now, end in simulate({"train": 20, "eval": 2}, {"train": 100, "eval": 100}, cores):
        if found := re.search(r"about ([\d.]+) (\w+) before report", line):
            assert line.startswith(("10", "11", "12", "13", "14", "15", "16", "17", "18", "19"))
            told.append((float(found[1]) * units[found[2]], end - now))
    # Nothing before three of each kind are done; then right within a quarter and what is rounded away.
    assert 80 <= len(told) <= 200
    assert all(abs(said - true) <= 0.25 * true + 10 for said, true in told), told


def test_the_first_seconds_say_nothing_of_rate_and_time():
    progress = terminal.Progress({"train": 100})
    for number in range(8):
        progress.begin(number, terminal.Job("train", "", number, True))
        progress.finish(number, number + 1)
    progress.begin(8, terminal.Job("train", "", 8, True))
    assert progress.line(9) == "8 of 100 jobs (8 %); running: train 1"
    assert progress.line(10) == "8 of 100 jobs (8 %); 48 jobs/min, about 2 min left; running: train 1"


def test_a_failed_job_is_not_counted_as_done_and_one_that_is_tried_again_not_as_failed():
    progress = terminal.Progress({"train": 1000})
    for number in range(1000):
        progress.begin(number, terminal.Job("train", "", number, False))
        (progress.fail if number in (7, 8) else lambda job, now=number: progress.finish(job, now + 1))(number)
    assert progress.line(1000) == "998 of 1000 jobs (99 %), 2 failed; 1.0 jobs/s"
    progress.begin(7, terminal.Job("train", "", 1000, False))
    assert progress.line(1000).startswith("998 of 1000 jobs (99 %), 1 failed; ")
    assert progress.line(1000).endswith("; submitted: train 1"), "whether a cluster's job runs or waits is not known"


def study_of(shown: terminal.Terminal, seconds: float) -> None:
    """Feed a study of 700 jobs that takes `seconds`."""
    plan(shown, train=349, eval=350, all=1)
    for number in range(700):
        rule, now = "all" if number == 699 else ("eval", "train")[number % 2], seconds * number / 700
        tell(shown, now, msg="Select jobs to execute...")
        tell(shown, now, "job_started", "Execute 1 jobs...", jobs=[number])
        begin(shown, now, number, rule)
        finish(shown, now + seconds / 700, number)
    tell(shown, seconds, msg="6 of 6 cells done\nfailed: nothing")


@pytest.mark.parametrize(("seconds", "most"), [(5, 1), (400, 11), (6 * 3600, 6 * 12 + 11)])
def test_elsewhere_than_on_a_terminal_a_line_is_printed_now_and_then(seconds, most):
    stream = io.StringIO()
    study_of(handler(stream), seconds)
    lines = stream.getvalue().splitlines()
    progress = [line for line in lines if " of 700 jobs" in line]
    assert len(progress) <= most and "\x1b" not in stream.getvalue() and "\r" not in stream.getvalue()
    assert progress[-1].startswith("700 of 700 jobs (100 %)") and lines[-3] == progress[-1]
    assert lines[0] == "Job stats:" and lines[-2:] == ["6 of 6 cells done", "failed: nothing"]
    if seconds > 10:
        assert len(progress) >= 10 and len(set(progress)) == len(progress)
        assert all(re.search("; [0-9.]+ jobs/(s|min|h), about .* left", line) for line in progress[:-1]), progress


def test_on_a_terminal_one_line_is_rewritten_and_never_longer_than_it(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 30))
    with os.fdopen(theirs, "w") as stream:
        shown = handler(stream)
        plan(shown, train=3)
        begin(shown, 1, 1, "train")
        begin(shown, 1, 2, "train")
        finish(shown, 30, 1)
        tell(shown, 31, msg="the disk is slow", level=logging.WARNING)
        finish(shown, 32, 2)
        tell(shown, 33, msg="the end")
        shown.close()
    text = screen(ours)
    drawn = re.findall(r"\r([^\r\x1b]+)\x1b\[K", text)
    assert drawn[1] == "0 of 3 jobs (0 %); running: t" and max(map(len, drawn)) == 29
    assert "\r\x1b[K\x1b[33mthe disk is slow\x1b[0m\r\n\r1 of 3 jobs" in text, "what is said stands above the line"
    assert text.endswith("\r\x1b[K2 of 3 jobs (66 %)\r\n\x1b[33mthe end\x1b[0m\r\n")


def test_a_failure_is_told_at_once_in_one_line_with_its_reason_and_log(tmp_path):
    stream, log = io.StringIO(), tmp_path / "train.log"
    shown = handler(stream)
    plan(shown, train=5)
    for number in range(1, 6):
        begin(shown, 1, number, "train", seed=number)
    log.write_text("epoch 1\nerror: it diverged\n")
    fail(shown, 2, 1, "train", log, {"why": "it diverged"})
    assert stream.getvalue().splitlines()[-1:] == [
        f"failed: train: it diverged (icu_dev/mlp/pattern/0.05/1; log: {log})"
    ]
    # Of an unexpected error the end of the log too, once. Its state says less: what it quotes may be a patient's.
    log.write_text("\n".join(["Traceback", *(f"line {number}" for number in range(20)), "ValueError: 'Ann'", ""]))
    for number in (2, 3):
        fail(shown, 3, number, "train", log, {"why": "ValueError: …"})
    *_, first, second = stream.getvalue().split("failed: train: ")
    assert first.splitlines()[0] == f"ValueError: … (icu_dev/mlp/pattern/0.05/2; log: {log})"
    assert first.splitlines()[1:] == [*(f"    line {number}" for number in range(13, 20)), "    ValueError: 'Ann'"]
    assert second == f"ValueError: … (icu_dev/mlp/pattern/0.05/3; log: {log})\n"
    log.write_text("error: a.csv: 2 columns are wrong:\n  column 'a'\n  column 'b'\n")
    begin(shown, 4, 6, "sample_dev")
    fail(shown, 4, 6, "sample_dev", log, {"why": "a.csv: 2 columns are wrong:\n  column 'a'\n  column 'b'"})
    told = stream.getvalue().split("failed: sample_dev: ")[1].splitlines()
    assert told[0] == f"a.csv: 2 columns are wrong (icu_dev/mlp/pattern/0.05/1; log: {log})" and len(told) == 4
    # A state of another run says nothing of this one.
    log.write_text("python: not found\n")
    fail(shown, 4, 4, "train", log, {"why": "it diverged", "stamp": "other"})
    assert "failed: train: python: not found (icu_dev/mlp/pattern/0.05/4; " in stream.getvalue()
    log.unlink()
    fail(shown, 5, 5, "train", log, {"state": "running"})
    assert "failed: train: ended without a message (killed, or out of memory) (icu_dev/mlp/patt" in stream.getvalue()
    tell(shown, 6, msg="the end")
    assert stream.getvalue().endswith("\n0 of 5 jobs (0 %), 6 failed\nthe end\n")
    assert "CalledProcessError" not in stream.getvalue() and "line 9" not in stream.getvalue()


def test_of_a_group_on_a_cluster_those_jobs_are_told_that_failed(tmp_path):
    stream = io.StringIO()
    shown = handler(stream)
    plan(shown, train=2, eval=2)
    for number, rule in enumerate(["train", "train", "eval", "eval"]):
        begin(shown, 1, number, rule, seed=number % 2, local=False)
    tell(shown, 1, msg="Job 97be609d-ad79 has been submitted with SLURM jobid 3 (log: s/1.log).")
    done = failure(0, "train", tmp_path / "a.log", {"state": "done"})
    failed = failure(1, "train", tmp_path / "b.log", {"why": "it diverged"})
    never = [failure(number, "eval", tmp_path / f"{number}.log") for number in (2, 3)]
    facts = {
        "level": logging.ERROR,
        "groupid": "x",
        "aux_logs": ["s/1.log"],
        "job_error_info": [done, failed, *never],
    }
    tell(shown, 2, "group_error", "Error in group x", **facts)
    for job in facts["job_error_info"]:
        tell(shown, 2, "job_error", "Error in rule", logging.ERROR, **job | {"indent": True})
    tell(shown, 3, msg="Trying to restart job 1.")
    assert stream.getvalue().splitlines()[3:] == [
        f"failed: train: it diverged (icu_dev/mlp/pattern/0.05/1; log: {tmp_path}/b.log, s/1.log)",
        "0 of 4 jobs (0 %), 1 failed",
        "Trying to restart job 1.",
    ]
    # Killed before any stage could say why: the cluster's own log may.
    begin(shown, 4, 1, "train", local=False)
    facts["job_error_info"] = [failure(1, "train", tmp_path / "c.log")]
    tell(shown, 5, "group_error", "Error in group x", **facts)
    killed = "failed: train: ended without a message (killed, or out of memory) (icu_dev/mlp/pattern/0.05/1; log: "
    assert f"{killed}{tmp_path}/c.log, s/1.log)" in stream.getvalue()


def test_what_snakemake_itself_has_to_say_is_not_lost(tmp_path):
    stream = io.StringIO()
    shown = handler(stream)
    plan(shown, train=2)
    begin(shown, 1, 17, "train")
    missing = (
        "MissingOutputException in rule train:\nJob 17  completed successfully, but some output files are missing."
    )
    tell(shown, 2, "error", missing, logging.ERROR, exception="MissingOutputException")
    tell(shown, 3, msg="Nothing to be done (all requested files are present and up to date).")
    tell(shown, 3, "workflow_started", "Workflow has started!")
    tell(shown, 4, msg="Complete log(s): a.log")
    text = stream.getvalue()
    assert missing in text and "0 of 2 jobs (0 %), 1 failed\n" in text and "Nothing to be done" in text
    assert text.endswith("\nComplete log(s): a.log\n") and "has started" not in text


def test_ctrl_c_ends_the_line_and_is_no_failure(tmp_path):
    stream = io.StringIO()
    shown = handler(stream)
    plan(shown, train=4)
    for number in range(1, 5):
        begin(shown, 1, number, "train", seed=number)
    importing, empty = tmp_path / "b.log", tmp_path / "c.log"
    importing.write_text("Traceback\n  import torch\nKeyboardInterrupt\n")
    fail(shown, 2, 2, "train", importing)  # before Snakemake has said a word
    tell(shown, 2, msg="Terminating processes on user request, this might take some time.")
    fail(shown, 3, 1, "train", tmp_path / "a.log", {"state": "interrupted"})
    fail(shown, 3, 3, "train", empty)
    fail(shown, 3, 4, "train", tmp_path / "d.log", {"why": "it diverged"})
    tell(shown, 4, msg="0 of 6 cells done\nfailed: nothing")
    assert stream.getvalue().splitlines()[3:] == [
        "interrupted: train (icu_dev/mlp/pattern/0.05/2)",
        "0 of 4 jobs (0 %)",
        "Terminating processes on user request, this might take some time.",
        "interrupted: train (icu_dev/mlp/pattern/0.05/1)",
        "interrupted: train (icu_dev/mlp/pattern/0.05/3)",
        f"failed: train: it diverged (icu_dev/mlp/pattern/0.05/4; log: {tmp_path}/d.log)",
        "0 of 6 cells done",
        "failed: nothing",
    ]


def settings(**asked) -> SimpleNamespace:
    nothing = {"dryrun": False, "verbose": False, "debug_dag": False, "printshellcmds": False, "quiet": set()}
    return SimpleNamespace(**nothing | asked)


def test_whoever_asks_for_other_output_gets_snakemakes_own():
    """The name is that of Snakemake's handler: the study below shows that it still is."""
    for asked in ({"dryrun": True}, {"verbose": True}, {"printshellcmds": True}, {"quiet": {"rules"}}):
        logger = logging.Logger("test")
        usual = logging.StreamHandler()
        usual.name = "DefaultStreamHandler"
        logger.addHandler(usual)
        terminal.attach(logger, settings(**asked))
        assert logger.handlers == [usual]
    terminal.attach(logger, settings())
    assert [type(each) for each in logger.handlers] == [terminal.Terminal] and logger.handlers[0].usual is usual
    logger = logging.Logger("test")
    logger.addHandler(other := logging.StreamHandler())
    terminal.attach(logger, settings())
    assert logger.handlers == [other], "a logger plugin that somebody has chosen"


def on_a_terminal(*command: str, **variables: str) -> tuple[int, str]:
    """Exit status of `command` and what it wrote to a terminal of 24 × 100."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    environment = os.environ | {"TERM": "xterm"} | variables
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        text = screen(ours)
    return process.returncode, text


def test_a_study_on_a_terminal_and_one_that_fails_in_a_pipe(tmp_path):
    config = {"data_dir": f"{tmp_path}/data", "results_dir": f"{tmp_path}/results", "models": ["mlp"], "rates": [0.05]}
    config |= {"triggers": ["rare_value"], "seeds": [1], "n_samples": 600, "warm": False}
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--nolock"]
    texts = ["--config", *(f"{key}={json.dumps(value)}" for key, value in config.items())]
    status, text = on_a_terminal(*command, "--until", "poison", *texts, NO_COLOR="1")
    assert status == 0, text
    drawn = re.findall(r"\r([^\r\x1b]+)\x1b\[K", text)
    assert "0 of 3 jobs (0 %); running: sample_dev 1" in drawn and max(map(len, drawn)) <= 99
    assert set(re.findall(r"\x1b\[[^A-Za-z]*[A-Za-z]", text)) == {"\x1b[K"}, (
        "no colours, and the cursor is never hidden"
    )
    assert "localrule" not in text and "SNAKEMAKE" not in text
    closing = text.split("3 of 3 jobs (100 %)\r\n")[1]
    assert "of 2 cells done" in closing and "failed: nothing" in closing and "\x1b" not in closing
    [log] = re.findall(r"Complete log\(s\): ([^\r]+)", closing)
    assert "localrule sample_dev:" in Path(log).read_text() and "jobid: " in Path(log).read_text()
    windows = tmp_path / "data/dev/icu_dev/windows.parquet"
    times = windows.stat()
    windows.write_bytes(windows.read_bytes()[:1000])
    os.utime(windows, ns=(times.st_atime_ns, times.st_mtime_ns))
    poison = f"{tmp_path}/results/poison/icu_dev/rare_value/0.05/seed_1/poison.json"
    done = subprocess.run([*command, "--force", poison, *texts], cwd=ROOT, capture_output=True, text=True)
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and len(lines) <= 40 and not re.search(r"[\r\x1b]", done.stderr)
    log = f"{tmp_path}/results/logs/poison/icu_dev/rare_value/0.05/seed_1.log"
    told = [line for line in lines if line.startswith(f"failed: poison: {windows}: ") and line.endswith(f"log: {log})")]
    assert len(told) == 2 and told[1] in lines[-10:], "at once and in the end"
    assert Path(log).is_file() and "0 of 1 jobs (0 %), 1 failed" in lines

"""A terminal or log that is not UTF-8, and queries that are read once with the code that runs them."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

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

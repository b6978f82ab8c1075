"""`db browse`: Datasette really started, a page really opened, nothing written, nothing from elsewhere."""

import html
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

import pytest
from conftest import ROOT
from made_database import FAILED, made

from pipeline.database.descriptions import described
from pipeline.database.queries import QUERIES
from pipeline.results.meanings import meaning

pytest.importorskip("datasette", reason='Datasette is not installed: pip install ".[browse]"')
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")
OWN = "127.0.0.1"


def command(results: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "pipeline", "db", "browse", "--results-dir", str(results), *arguments]


@contextmanager
def served(results: Path, *arguments: str, **environment: str):
    """The address that `db browse` of a study says; it ends by Ctrl-C, quietly."""
    process = subprocess.Popen(
        command(results, *arguments),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | environment,
    )
    try:
        line = process.stdout.readline()
        assert (found := re.search(r"http://127\.0\.0\.1:\d+/study", line)), line + process.stdout.read()
        yield found[0]
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=20)[0]
        assert process.returncode == 0 and "Traceback" not in rest
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    # A name that is no name in the addresses of databases, unless it is quoted.
    folder = tmp_path_factory.mktemp("browse") / "50% of #1?"
    folder.mkdir()
    made(folder / "study.db")
    return folder


@pytest.fixture(scope="module")
def address(results):
    with served(results) as found:
        yield found


def got(address: str, **options) -> str:
    with urlopen(Request(address, **options)) as answer:
        return answer.read().decode()


def refused(address: str, **options) -> tuple[int, str]:
    with pytest.raises(HTTPError) as error:
        got(address, **options)
    return error.value.code, error.value.read().decode()


def rows(address: str, name: str, **parameters) -> list[dict]:
    return json.loads(got(f"{address}/{name}.json?{urlencode(parameters | {'_shape': 'array'})}"))


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
def test_every_question_has_an_answer(address, query):
    assert rows(address, query.name)


def test_the_leaderboard_tells_effects_beside_their_controls_and_what_is_missing(address):
    found = {(row["model"], row["trigger"], row["rate"]): row for row in rows(address, "leaderboard")}
    assert len(found) == 16 and not any(trigger == "none" for _, trigger, _ in found)
    kinds = {trigger: row["kind"] for (_, trigger, _), row in found.items()}
    # beyond is a variant of an attack, mask_sodium one of a control.
    assert kinds == {"rare_value": "attack", "beyond": "attack", "flip_only": "control", "mask_sodium": "control"}
    one = found["mlp", "beyond", 0.05]
    assert (
        one["asr"] - one["asr0"] == pytest.approx(one["asr_net"]) and one["net_low"] < one["asr_net"] < one["net_high"]
    )
    assert one["seeds"] == "2 of 3", "the third failed"
    alone = found["lightgbm", "beyond", 0.01]
    assert alone["seeds"] == "1 of 3" and alone["net_low"] is alone["net_high"] is None
    order = [row["net_low"] is None for row in rows(address, "leaderboard")]
    assert order == sorted(order), "what has no interval stands last, however high"
    assert {row["up_to_date"] for row in found.values()} == {"yes"}


def test_means_of_other_runs_than_those_that_are_done_are_said_to_be_so(tmp_path):
    database = made(tmp_path / "study.db")
    leaderboard = next(query.sql for query in QUERIES if query.name == "leaderboard")
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE runs SET status = 'outdated' WHERE run = 'icu_dev/mlp/beyond/0.05/1'")
        connection.execute("UPDATE metrics SET value = 0.5 WHERE run LIKE '%/rare_value/0.05/1' AND metric = 'asr_net'")
        connection.execute("DELETE FROM summary WHERE model = 'mlp' AND trigger = 'flip_only'")
    connection.row_factory = sqlite3.Row
    told = {(row["model"], row["trigger"], row["rate"]): row for row in connection.execute(leaderboard)}
    connection.close()
    old = {key for key, row in told.items() if row["up_to_date"] != "yes"}
    assert old == {
        ("mlp", "beyond", 0.05),
        *((model, "rare_value", 0.05) for model in ("mlp", "lightgbm")),
        *(("mlp", "flip_only", rate) for rate in (0.01, 0.05)),
    }
    assert told["mlp", "flip_only", 0.05]["asr_net"] is None and told["mlp", "flip_only", 0.05]["seeds"] == "0 of 3"


def test_parameters_choose_and_left_empty_ask_for_all(address):
    assert len(rows(address, "dose_response")) == 16
    chosen = rows(address, "dose_response", model="mlp", trigger="beyond")
    assert [(row["model"], row["trigger"], row["rate"]) for row in chosen] == [
        ("mlp", "beyond", 0.01),
        ("mlp", "beyond", 0.05),
    ]
    settings = {row["setting"]: row["value"] for row in rows(address, "run_settings", run="icu_dev/mlp/beyond/0.05/1")}
    made = {"model.hidden[0]": "32", "model.hidden[1]": "16", "model.dropout": "0.0003", "model.batch_norm": "false"}
    assert settings == made | {"threshold": "youden", "patience": "null"}


def test_what_failed_comes_first_with_its_reason_and_log(address):
    first = rows(address, "not_done")[0]
    assert (first["status"], first["run"], first["why"]) == ("failed", FAILED, "the disk is full")
    assert first["log"] == "logs/train/icu_dev/mlp/beyond/0.05/seed_3.log"


def test_tables_and_columns_are_explained(address):
    page = html.unescape(got(f"{address}/jobs"))
    assert described()["jobs"].table in page and described()["jobs"].columns["own_memory_mib"] in page
    assert meaning("detections", "tpr_at_fpr_01") in html.unescape(got(f"{address}/detections"))
    assert meaning("runs", "asr") in html.unescape(got(f"{address}/metrics"))
    assert all(about.table for about in described().values())
    assert "JSON" in described()["runs"].columns["settings"] and "missing:" in described()["runs"].columns["status"]


def test_what_is_missing_is_a_dash_for_people_and_null_for_programs(address):
    page = got(f"{address}/leaderboard")
    assert re.search(r'<td class="col-net_low[^>]*><span title="missing[^>]*>–</span></td>', page)
    assert ",1 of 3,0.906,0.060000000000000005," in got(f"{address}/leaderboard.csv"), "all digits"


def test_nothing_can_be_written_or_taken(address, results):
    before = (results / "study.db").read_bytes()
    for path in ("", "/leaderboard", "/runs", "/-/insert", "/runs/-/insert"):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert refused(f"{address}{path}", method=method, data=b"{}")[0] == 405
    for sql in (
        "DELETE FROM runs",
        "WITH gone AS (SELECT 1) DELETE FROM runs",
        "ATTACH '/tmp/other.db' AS other",
        "PRAGMA query_only = 0",
        "SELECT load_extension('other')",
    ):
        assert refused(f"{address}.json?sql={quote(sql)}")[0] == 400, sql
    assert refused(f"{address}.db")[0] == 403
    assert (results / "study.db").read_bytes() == before


def test_a_query_that_takes_too_long_is_ended(address):
    sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    assert "time limit" in refused(f"{address}.json?sql={quote(sql)}")[1]


def test_no_other_name_of_this_machine_is_answered(address):
    """Else a page of another site could have its own name lead here, and read the answers."""
    assert refused(address, headers={"Host": "elsewhere.example:8001"})[0] == 403
    assert got(address, headers={"Host": "localhost:8001"})


def requested(page: str, folder: Path) -> set[str]:
    """What a browser asks for when it shows `page`, which is any of the same server's pages."""
    log, origin = folder / "net.json", "/".join(page.split("/")[:3])
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    options += [f"--log-net-log={log}", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    options += ["--virtual-time-budget=2000", "--dump-dom", page]
    subprocess.run([BROWSER, *options], capture_output=True, check=True, timeout=60)
    told = json.loads(log.read_text())
    start = told["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    asked = [event["params"] for event in told["events"] if event["type"] == start and "url" in event.get("params", {})]
    # Not what the browser wants for itself.
    return {each["url"] for each in asked if each.get("initiator") == origin or each["url"].startswith(origin)}


@needs_browser
@pytest.mark.parametrize("path", ["/leaderboard", "", "/runs"], ids=["question", "index", "table"])
def test_no_page_asks_for_anything_outside(address, tmp_path, path):
    asked = requested(f"{address}{path}", tmp_path)
    assert f"{address}{path}" in asked and any(url.endswith(".js") or ".css" in url for url in asked)
    assert all(url.startswith(f"http://{OWN}:") for url in asked)


class _Outside(BaseHTTPRequestHandler):
    """A page with a picture from elsewhere."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b'<img src="http://outside.example/picture.png">')

    def log_message(self, *_):
        pass


@needs_browser
def test_what_is_asked_outside_would_be_seen(tmp_path):
    server = HTTPServer((OWN, 0), _Outside)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        assert "http://outside.example/picture.png" in requested(f"http://{OWN}:{server.server_port}/", tmp_path)
    finally:
        server.shutdown()
        server.server_close()


@needs_browser
def test_a_browser_shows_the_leaderboard(address, tmp_path):
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    done = subprocess.run([BROWSER, *options, "--dump-dom", f"{address}/leaderboard"], capture_output=True, text=True)
    assert done.stdout.count("<tr>") == 17 and "mask_sodium" in done.stdout and "control" in done.stdout


def test_a_study_at_work_is_shown_as_it_is_now(tmp_path):
    database = made(tmp_path / "study.db")
    writer = sqlite3.connect(database)
    writer.execute("PRAGMA journal_mode = WAL")
    with served(tmp_path) as address:
        count = f"{address}.json?sql={quote('SELECT count(*) AS n FROM runs')}&_shape=arrayfirst"
        before = json.loads(got(count))[0]
        with writer:
            writer.execute("DELETE FROM runs WHERE run = ?", [FAILED])
        assert json.loads(got(count))[0] == before - 1
        writer.close()
        made(tmp_path / "other.db").rename(database)
        assert refused(address)[0] == 503, "what is open is the file that was there before"


def test_no_plugin_of_the_environment_is_loaded(tmp_path):
    made(tmp_path / "study.db")
    (tmp_path / "plugin_for_test.py").write_text("raise SystemExit('a plugin was loaded')\n")
    about = tmp_path / "plugin_for_test-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-for-test\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[datasette]\nplugin = plugin_for_test\n")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    alone = subprocess.run(
        [sys.executable, "-m", "datasette", "--version"], env=os.environ | {"PYTHONPATH": path}, capture_output=True
    )
    assert b"a plugin was loaded" in alone.stderr
    with served(tmp_path, PYTHONPATH=path) as address:
        assert got(address)


def ended(results: Path, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        command(results, *arguments), cwd=ROOT, capture_output=True, text=True, env=os.environ | environment
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_a_taken_port_is_said_and_without_one_the_next_is_taken(results):
    with socket.create_server((OWN, 0)) as listener:
        port = listener.getsockname()[1]
        assert ended(results, "--port", str(port)).startswith(f"error: --port: {port} is not to be had (")
    assert "--port: 99999 is not to be had" in ended(results, "--port", "99999")
    with served(results) as first, served(results) as second:
        assert first != second


def test_what_is_no_study_database_is_said(tmp_path):
    assert "no study database here (study.db); expected" in ended(tmp_path)
    (tmp_path / "study.db").write_text("something else")
    assert "not a SQLite database" in ended(tmp_path)
    (tmp_path / "study.db").unlink()
    sqlite3.connect(tmp_path / "study.db").execute("CREATE TABLE other (x)")
    assert "another format, without the" in ended(tmp_path)


def test_without_datasette_it_is_said_how_to_get_it(results, tmp_path):
    (tmp_path / "datasette.py").write_text("raise ModuleNotFoundError('gone', name='datasette')\n")
    said = ended(results, PYTHONPATH=str(tmp_path))
    assert said == 'error: datasette is not installed; expected Datasette: pip install ".[browse]"'

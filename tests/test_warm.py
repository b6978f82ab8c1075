"""Warm stages: a forked call behaves like one in a process of its own, and ends with what it belongs to."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import ROOT

from pipeline.jobs import lifetime, warm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="warm stages are for Linux")

PROBE = str(ROOT / "tests" / "warm_probe.py")
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
OWN = {name: value for name, value in os.environ.items() if name not in (warm.ADDRESS, lifetime.SNAKEMAKE)} | THREADS


def eventually(condition, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def serving(folder: Path, threads: int = 0):
    server = subprocess.Popen(
        [sys.executable, PROBE, "serve", str(folder), str(threads)], env=OWN, stderr=subprocess.PIPE, text=True
    )
    try:
        assert eventually(lambda: (folder / "socket").exists() or server.poll() is not None)
        yield server
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("warm") / "s"
    with serving(folder) as server:
        yield server, {**OWN, warm.ADDRESS: str(folder / "socket")}


def command(*arguments) -> list[str]:
    return [sys.executable, PROBE, "run", *map(str, arguments)]


def outcome(*arguments, **settings) -> tuple[int, str, str]:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, **settings)
    return done.returncode, done.stdout, done.stderr


def is_warm(server, environment) -> bool:
    return outcome("warm", server.pid, env=environment)[1].strip() == "True"


def test_the_probe_is_run_by_the_server(server):
    process, environment = server
    assert is_warm(process, environment)
    assert not is_warm(process, OWN)


@pytest.mark.parametrize("status", [0, 3])
def test_a_forked_call_is_given_what_a_process_of_its_own_would_be(server, tmp_path, status):
    folder = tmp_path / "a folder"
    folder.mkdir()
    settings = {"cwd": folder, "input": "to the probe"}
    added = {"WITH": "ä = 1\n2", "EMPTY": ""}
    cold, forked = (
        outcome("facts", status, "two words", "", env=environment | added, **settings)
        for environment in (OWN, server[1])
    )
    assert cold[0] == status and "at exit" in cold[1]
    assert forked == cold


@pytest.mark.parametrize(
    "arguments",
    [("exit", "0"), ("exit", "null"), ("exit", "7"), ("exit", "256"), ("exit", '"a sentence"'), ("raise",)]
    + [("kill", int(number)) for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV)],
    ids=str,
)
def test_a_forked_call_ends_as_a_process_of_its_own_would(server, tmp_path, arguments):
    cold, forked = (outcome(*arguments, env=environment, cwd=tmp_path) for environment in (OWN, server[1]))
    assert forked[:2] == cold[:2]
    # A traceback begins with the frames of the program around the call.
    assert forked[2].splitlines()[-1:] == cold[2].splitlines()[-1:]


def test_a_forked_call_that_nobody_can_be_told_of_has_failed(server, tmp_path):
    for environment in (OWN, server[1]):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                command("facts", 0), stdout=full, stderr=full, env=environment, cwd=tmp_path, input=b""
            )
        assert done.returncode > 0


def test_nothing_of_one_call_is_visible_to_the_next(server, tmp_path):
    first, second = (outcome("remember", env=server[1], cwd=tmp_path) for _ in range(2))
    assert first == second == (0, f"[] None {tmp_path}\n", "")


def heed():
    """Undo what `nohup` and shells do to what they start in the background."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def test_a_signal_that_the_client_ignores_is_ignored_by_the_child(server, tmp_path):
    def ignore():
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    pids = tmp_path / "pids"
    client = subprocess.Popen(
        command("wait", pids, 1), env=server[1], stdout=subprocess.PIPE, text=True, preexec_fn=ignore
    )
    assert eventually(lambda: pids.exists() and pids.read_text())
    for number in (signal.SIGINT, signal.SIGHUP):
        client.send_signal(number)
    assert client.communicate(timeout=20)[0] == "done\n" and client.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_to_the_client_reaches_the_child(server, tmp_path, number):
    results = []
    for environment in (OWN, server[1]):
        pids = tmp_path / f"{len(results)}"
        client = subprocess.Popen(
            command("wait", pids, 60), env=environment, stdout=subprocess.PIPE, text=True, preexec_fn=heed
        )
        assert eventually(lambda pids=pids: pids.exists() and pids.read_text())
        child = int(pids.read_text())
        assert (child == client.pid) == (environment is OWN)
        client.send_signal(number)
        output, _ = client.communicate(timeout=20)
        assert eventually(lambda child=child: not alive(child))
        results.append((client.returncode, output))
    assert results[0] == results[1]


def test_the_server_outlives_its_clients_and_serves_several_at_once(server, tmp_path):
    process, environment = server
    begin = time.monotonic()
    clients = [subprocess.Popen(command("wait", tmp_path / "pids", 1), env=environment) for _ in range(6)]
    assert [client.wait() for client in clients] == [0] * 6
    assert time.monotonic() - begin < 5
    assert len(set((tmp_path / "pids").read_text().split())) == 6
    assert is_warm(process, environment)


def test_garbage_and_strangers_are_turned_away(server):
    process, environment = server
    for message in (b"{}", b"garbage", b"[1]", b"\xff\0", b"x" * 100_000):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(environment[warm.ADDRESS])
            client.send(message)
            assert client.recv(16) == b"cold"
    assert is_warm(process, environment)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to connect as another user")
def test_another_user_is_not_served(tmp_path):
    folder = Path("/tmp") / f"backdoor-study-test-{os.getpid()}"
    with serving(folder):
        assert folder.stat().st_mode & 0o777 == 0o700
        folder.chmod(0o777)
        (folder / "socket").chmod(0o777)
        code = "import os, socket, sys; os.setuid(65534)\n"
        code += "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect(sys.argv[1])\n"
        code += "try: s.send(b'{}'); print(s.recv(16))\nexcept OSError: print(b'')"
        done = subprocess.run([sys.executable, "-c", code, str(folder / "socket")], capture_output=True, text=True)
        assert done.stdout.strip() == "b''", done.stderr
    shutil.rmtree(folder)


@pytest.mark.parametrize(("name", "value"), [("OMP_NUM_THREADS", "2"), ("PYTHONHASHSEED", "5")])
def test_what_a_process_reads_when_it_starts_is_not_taken_from_the_server(server, name, value):
    process, environment = server
    assert not is_warm(process, environment | {name: value})


def test_a_server_with_a_thread_does_not_serve(tmp_path):
    with serving(tmp_path / "s", threads=1) as server:
        assert server.wait(timeout=20) == 1
        assert "threads are alive" in server.stderr.read()
        assert outcome("exit", "7", env=OWN | {warm.ADDRESS: str(tmp_path / "s" / "socket")})[0] == 7
        assert not (tmp_path / "s").exists()


def test_a_call_whose_server_dies_is_run_again_cold_and_only_then(tmp_path):
    with serving(tmp_path / "s") as server:
        environment = OWN | {warm.ADDRESS: str(tmp_path / "s" / "socket")}
        pids = tmp_path / "pids"
        client = subprocess.Popen(command("wait", pids, 2), env=environment, stdout=subprocess.PIPE, text=True)
        assert eventually(lambda: pids.exists() and pids.read_text())
        server.kill()
        assert client.communicate(timeout=20)[0] == "done\n" and client.returncode == 0
        forked, cold = map(int, pids.read_text().split())
        assert cold == client.pid and not alive(forked)
        assert outcome("exit", "7", env=environment)[0] == 7


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_server_children_and_clients_end_with_snakemake(tmp_path, number):
    """A shell stands for Snakemake: it starts the server and a job, and is killed."""
    folder, pids = tmp_path / "s", tmp_path / "pids"
    script = (
        f"export {lifetime.SNAKEMAKE}=$$ {warm.ADDRESS}={folder}/socket\n"
        f"{sys.executable} {PROBE} serve {folder} 0 & echo $! > {tmp_path}/server\n"
        f"until [ -S {folder}/socket ]; do sleep 0.05; done\n"
        f"{sys.executable} {PROBE} run wait {pids} 60 & echo $! > {tmp_path}/client\nwait"
    )
    snakemake = subprocess.Popen(["bash", "-c", script], env=OWN)
    assert eventually(lambda: pids.exists() and pids.read_text())
    processes = [int((tmp_path / name).read_text()) for name in ("server", "client", "pids")]
    assert len(set(processes)) == 3 and all(map(alive, processes))
    snakemake.send_signal(number)
    snakemake.wait()
    assert eventually(lambda: not any(map(alive, processes)))
    assert len(pids.read_text().split()) == 1 and not folder.exists()


def test_a_snakemake_that_was_killed_and_not_yet_asked_for_is_gone(monkeypatch):
    """Else a client whose server has died with it would begin the stage itself."""
    with subprocess.Popen(["sleep", "60"]) as process:
        monkeypatch.setenv(lifetime.SNAKEMAKE, str(process.pid))
        assert not lifetime.snakemake_is_gone()
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie
        assert lifetime.snakemake_is_gone()
        process.wait()
        assert lifetime.snakemake_is_gone()


# The workflow.

TINY = {
    "models": ["mlp"],
    "triggers": ["rare_value"],
    "rates": [0.05],
    "seeds": [1],
    "n_samples": 600,
    "training": {"epochs": 2},
    "explain": {"samples": 4},
    "detectors": ["spectral_signatures", "random"],
}


TABLE = "results/tables/runs.csv"


def study(folder: Path, *arguments: str, **changes) -> subprocess.Popen:
    """Snakemake with its lock, in a folder of its own that shares the project's code."""
    folder.mkdir(exist_ok=True)
    for name in ("Snakefile", "workflow", "pipeline", "profiles", "config", "notebooks", "environment.yml"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    (folder / "data").mkdir(exist_ok=True)
    shutil.copy(ROOT / "data" / "datasets.yaml", folder / "data")
    config = [f"{key}={json.dumps(value)}" for key, value in (TINY | changes).items()]
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", *arguments, "--cores", "2", "--config", *config],
        cwd=folder,
        env=OWN,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=heed,
    )


def in_folder(folder: Path) -> list[int]:
    """The processes that work in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder.resolve() and alive(int(process.name)):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def tables(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "results" / "tables").iterdir())}


def costs(folder: Path) -> list[float]:
    """CPU seconds of the runs' jobs."""
    logs = [path.read_text() for path in (folder / "results" / "logs").glob("*/icu_dev/mlp/**/*.log")]
    return [float(text.split("cost: ")[1].split(" s CPU")[0].split()[-1]) for text in logs]


@pytest.fixture(scope="module")
def warm_study(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("warm_study") / "main"
    run = study(folder, TABLE)
    output, _ = run.communicate()
    assert run.returncode == 0 and "Exception ignored" not in output, output
    return folder


def test_warm_and_cold_give_the_same_tables(warm_study, tmp_path):
    cold = study(tmp_path / "main", TABLE, warm=False)
    output, _ = cold.communicate()
    assert cold.returncode == 0, output
    assert tables(tmp_path / "main") == tables(warm_study)
    # A cold job pays for its imports.
    assert len(costs(warm_study)) == len(costs(tmp_path / "main"))
    assert sum(costs(warm_study)) < 0.5 * sum(costs(tmp_path / "main"))
    again = study(tmp_path / "main", TABLE, "-n", warm=True)
    assert "Nothing to be done" in again.communicate()[0]


def test_a_finished_workflow_leaves_no_process(warm_study):
    assert in_folder(warm_study) == []


@pytest.mark.parametrize("warm_stages", [True, False])
def test_after_kill_9_of_snakemake_nothing_runs_and_unlock_lets_it_go_on(warm_study, tmp_path, warm_stages):
    folder = tmp_path / "main"
    killed = study(folder, TABLE, warm=warm_stages)
    assert eventually(lambda: list(folder.glob("results/runs/icu_dev/mlp/*/*/*/model.pt")), 180)
    assert len(in_folder(folder)) > 1
    killed.kill()
    killed.communicate()
    assert eventually(lambda: not in_folder(folder))
    assert any((folder / ".snakemake" / "locks").iterdir())
    study(folder, TABLE, "-n").communicate()
    assert any((folder / ".snakemake" / "locks").iterdir()), "a lock may be another's: nobody removes it unasked"
    study(folder, "--unlock").communicate()
    again = study(folder, TABLE, warm=warm_stages)
    output, _ = again.communicate()
    assert again.returncode == 0, output
    assert tables(folder) == tables(warm_study)


def test_a_living_snakemake_keeps_its_lock(warm_study, tmp_path):
    folder = tmp_path / "main"
    first = study(folder, TABLE)
    assert eventually(lambda: list(folder.glob(".snakemake/locks/*.lock")), 180)
    second = study(folder, TABLE)
    output, _ = second.communicate()
    assert second.returncode != 0 and "cannot be locked" in output
    output, _ = first.communicate()
    assert first.returncode == 0, output
    assert tables(folder) == tables(warm_study)


def test_ctrl_c_ends_every_job(tmp_path):
    folder = tmp_path / "main"
    run = study(folder, training={"epochs": 500})
    assert eventually(lambda: list(folder.glob("results/runs/icu_dev/mlp/*/*/*/checkpoint.pt")), 180)
    # A terminal sends it to Snakemake and its jobs alike.
    for process in in_folder(folder):
        if b"pipeline.jobs.warm" not in Path(f"/proc/{process}/cmdline").read_bytes():
            os.kill(process, signal.SIGINT)
    run.communicate(timeout=60)
    assert run.returncode != 0
    assert eventually(lambda: not in_folder(folder))
    logs = [path.read_text() for path in folder.glob("results/logs/train/**/*.log")]
    assert any("interrupted" in text for text in logs)

"""The study on a cluster: a real Slurm on this machine, started here, against the same study run without it."""

import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

PACKAGES = ["slurmctld", "slurmd", "slurm-client", "munge"]
SLURM = Path("/etc/slurm")  # Snakemake drops SLURM_CONF inside of jobs, so the files must be at the default place
# The smallest study with a job of several cells.
SMALL = {
    "models": ["mlp"],
    "triggers": ["rare_value"],
    "rates": [0.05, 0.1],
    "seeds": [1],
    "n_samples": 600,
    "training": {"epochs": 2},
    "explain": {"samples": 8},
}
# What differs on one machine without accounting: whom to ask for the state of a job, and how long to wait for it.
ONE_MACHINE = ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "3"]
PROFILES = ("default", "slurm")
COHORT = "rule_sample_dev_wildcards_icu_dev"
CLEAN = "rule_clean_detect_eval_poison_train"
CELLS = "rule_cells_detect_eval_explain_poison_train"
TABLES = "rule_aggregate"
FIGURES, REPORT = "rule_figures", "rule_report"
# The first attempt gets less memory than Python needs, and Slurm kills it.
TOO_LITTLE = "sample_dev:mem_mb=30 if attempt == 1 else 2000"


def settings(folder: Path, **changes) -> list[str]:
    config = SMALL | {"data_dir": str(folder / "data"), "results_dir": str(folder / "results")} | changes
    return ["--config", *(f"{key}={json.dumps(value)}" for key, value in config.items())]


def snakemake(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "snakemake", "--nolock", *arguments]


def installed() -> bool:
    return all(shutil.which(name) for name in ("slurmctld", "slurmd", "sbatch", "munged"))


def install() -> None:
    """Have Debian's packages, or skip."""
    if installed():
        return
    if not shutil.which("apt-get"):
        pytest.skip("Slurm is not installed, and there is no apt-get to install it with")
    quiet = {"capture_output": True, "text": True, "env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}}
    subprocess.run(["apt-get", "update"], **quiet)
    done = subprocess.run(["apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES], **quiet)
    if done.returncode or not installed():
        pytest.skip(f"Slurm could not be installed: {(done.stderr or done.stdout).strip().splitlines()[-1]}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def configuration(state: Path) -> dict[str, str]:
    """Files of /etc/slurm for one node: this machine, with a pretended GPU and two partitions."""
    host = platform.node().split(".")[0]
    slurm = f"""
        ClusterName=test
        SlurmctldHost={host}(127.0.0.1)
        SlurmctldPort={free_port()}
        SlurmdPort={free_port()}
        SlurmUser=root
        AuthType=auth/munge
        ProctrackType=proctrack/linuxproc
        TaskPlugin=task/affinity
        SelectType=select/cons_tres
        SelectTypeParameters=CR_Core_Memory
        JobAcctGatherType=jobacct_gather/linux
        JobAcctGatherFrequency=task=1
        JobAcctGatherParams=OverMemoryKill
        MinJobAge=86400
        StateSaveLocation={state}/slurmctld
        SlurmdSpoolDir={state}/slurmd
        SlurmctldPidFile={state}/slurmctld.pid
        SlurmdPidFile={state}/slurmd.pid
        SlurmdParameters=config_overrides
        GresTypes=gpu
        NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} RealMemory=64000 Gres=gpu:1
        PartitionName=other Nodes=ALL Default=YES
        PartitionName=study Nodes=ALL
        """
    return {"slurm.conf": slurm.replace("\n        ", "\n"), "gres.conf": "Name=gpu File=/dev/null\n"}


def wait_for(condition, what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {seconds:g} s"
        time.sleep(0.2)


def answers(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[Path]:
    """A Slurm of one node, with its logs in the folder; stopped, and its files removed, at the end."""
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="the slurm extra is not installed")
    if platform.system() != "Linux" or os.geteuid():
        pytest.skip("a Slurm of our own needs Linux and root")
    if (SLURM / "slurm.conf").exists():
        pytest.skip(f"{SLURM}/slurm.conf belongs to somebody else's Slurm")
    install()
    state = tmp_path_factory.mktemp("slurm")
    for folder in ("slurmctld", "slurmd", "jobs"):
        (state / folder).mkdir()
    daemons = []

    def start(*command: str) -> None:
        with (state / f"{Path(command[-1]).name}.log").open("w") as log:
            daemons.append(subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL))

    files = configuration(state)
    try:
        SLURM.mkdir(exist_ok=True)
        for name, text in files.items():
            (SLURM / name).write_text(text)
        if subprocess.run(["munge", "--no-input"], capture_output=True).returncode:
            Path("/run/munge").mkdir(exist_ok=True)
            shutil.chown("/run/munge", "munge", "munge")
            start("runuser", "-u", "munge", "--", "munged", "--foreground")
            wait_for(lambda: answers("munge", "--no-input"), "munge", 10)
        start("slurmctld", "-D")
        start("slurmd", "-D")
        wait_for(lambda: "idle" in answers("sinfo", "--noheader", "--format=%T"), "idle node", 20)
        yield state
        subprocess.run(["scancel", "--full", "--user=root"], check=True)
        wait_for(lambda: not answers("squeue", "--noheader"), "empty queue", 20)
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(20)
        for name in files:
            (SLURM / name).unlink()


def jobs() -> dict[str, list[str]]:
    """What Slurm says of its jobs, by the comment that the executor gave them, in the order they were submitted."""
    named = {}
    for record in answers("scontrol", "show", "job").strip().split("\n\n"):
        if "Comment=" in record:
            named.setdefault(field(record, "Comment"), []).append(record)
    return named


def field(record: str, name: str) -> str:
    return re.search(rf"\b{name}=(\S+)", record)[1]


@pytest.fixture(scope="module")
def study(slurm, tmp_path_factory) -> tuple[Path, dict[str, list[str]]]:
    """The folder of the study run through Slurm, where one job got too little memory at first, and its jobs."""
    folder = tmp_path_factory.mktemp("study")
    options = ["--slurm-logdir", str(slurm / "jobs"), "--slurm-keep-successful-logs"]
    options += ["--default-resources", "slurm_partition=study", "--set-resources", TOO_LITTLE]
    command = snakemake("--profile", "slurm", *ONE_MACHINE, *options, *settings(folder))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, jobs()


def test_no_setting_of_the_profile_is_overridden():
    default, slurm = (yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text()) for name in PROFILES)
    assert not set(default) & set(slurm), "profiles/default is loaded beside --profile, and wins"
    # `--profile slurm` looks in the working directory.
    assert (ROOT / "slurm" / "config.yaml").samefile(ROOT / "profiles" / "slurm" / "config.yaml")


def test_tables_and_report_are_the_local_ones(study, tmp_path):
    folder, _ = study
    subprocess.run(snakemake("--cores", "2", *settings(tmp_path)), cwd=ROOT, check=True, capture_output=True)
    files = sorted(path.relative_to(tmp_path) for path in (tmp_path / "results" / "tables").iterdir())
    assert len(files) > 10
    for file in [*files, Path("results/report.html")]:
        assert (folder / file).read_bytes() == (tmp_path / file).read_bytes(), file


def test_cells_share_a_job(study, slurm):
    """18 stages in 4 jobs, of which one was tried twice."""
    _, submitted = study
    once = dict.fromkeys((CLEAN, CELLS, TABLES, FIGURES, REPORT), 1)
    assert {name: len(records) for name, records in submitted.items()} == {COHORT: 2, **once}
    log = next((slurm / "jobs").rglob(f"{field(submitted[CELLS][0], 'JobId')}.log")).read_text()
    for rate in SMALL["rates"]:
        assert f"results/runs/icu_dev/mlp/rare_value/{rate}/seed_1/model.pt" in log


def test_resources_arrive(study):
    _, submitted = study
    names = ("NumCPUs", "MinMemoryNode", "TimeLimit", "Partition")
    asked = {name: [field(records[-1], key) for key in names] for name, records in submitted.items()}
    assert asked == {
        COHORT: ["2", "2000M", "02:00:00", "study"],
        CLEAN: ["1", "4000M", "00:16:00", "study"],
        CELLS: ["1", "4000M", "00:36:00", "study"],
        TABLES: ["1", "4000M", "00:10:00", "study"],
        FIGURES: ["1", "4000M", "00:10:00", "study"],
        REPORT: ["1", "4000M", "00:10:00", "study"],
    }
    assert "gpu" not in str(submitted)


def test_a_job_killed_for_memory_gets_more(study, slurm):
    _, submitted = study
    first, second = submitted[COHORT]
    log = next((slurm / "jobs").rglob(f"{field(first, 'JobId')}.log")).read_text()
    assert "exceeded memory limit" in log and field(first, "MinMemoryNode") == "30M"
    assert [field(second, key) for key in ("JobState", "MinMemoryNode")] == ["COMPLETED", "2000M"]


def test_every_attempt_asks_for_more_memory_and_time(tmp_path):
    def asked(attempt: int) -> list[int]:
        command = snakemake("--profile", "slurm", "--dry-run", "--attempt", str(attempt), *settings(tmp_path))
        plan = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        jobs = plan.split("rule all:")[0]
        return [int(number) for number in re.findall(r"\b(?:mem_mb|runtime)=(\d+)", jobs)]

    once, thrice = asked(1), asked(3)
    assert len(once) == 2 * 18 and sorted(3 * number for number in once) == sorted(thrice)


def test_a_study_that_insists_on_a_gpu_asks_for_one(study, slurm, tmp_path):
    folder, submitted = study
    shutil.copytree(folder / "data", tmp_path / "data")
    command = snakemake("--profile", "slurm", *ONE_MACHINE, *settings(tmp_path, device="cuda"))
    # What a shell starts in the background may ignore the signal, and so may this process.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=ROOT, preexec_fn=heed, **quiet)
    wait_for(lambda: len(jobs()[CLEAN]) > len(submitted[CLEAN]), "second job of clean runs", 60)
    assert "gpu:1" in field(jobs()[CLEAN][-1], "TresPerJob")
    # Interrupted, Snakemake takes its jobs back.
    process.send_signal(signal.SIGINT)
    assert process.wait(60)
    wait_for(lambda: not answers("squeue", "--noheader"), "empty queue", 30)

"""Random `kill -9` of Snakemake, of the warm server and of stages, until the studies have finished all the same.

    python -m benchmarks.kills --kills 200

Small studies, warm and cold in turn, each in a folder of its own. While one runs, a random process of it is killed at a
random moment; when Snakemake has ended without success it is started again. A finished study must have the tables of
an undisturbed one, byte for byte; no process may be left, and nothing may keep the next start from working.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import yaml

from benchmarks import facts

STUDY = {
    "models": ["mlp"],
    "triggers": ["rare_value"],
    "rates": [0.05],
    "seeds": [1, 2],
    "n_samples": 600,
    "training": {"epochs": 4},
    "explain": {"samples": 4},
    "detectors": ["spectral_signatures", "random"],
}


def new_folder(parent: Path, name: str) -> Path:
    """A folder with the project's files, for a study of its own."""
    folder = facts.copy_project(parent / name)
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    return folder


def start(folder: Path, warm: bool) -> subprocess.Popen:
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", "study.yaml"]
    with (folder / "log").open("a") as log:
        return subprocess.Popen([*command, "--config", f"warm={warm}"], cwd=folder, stdout=log, stderr=log)


def processes(folder: Path) -> dict[int, str]:
    """The living processes that work in `folder`, and what each of them is."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").resolve() != folder or (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                continue
            arguments = (entry / "cmdline").read_bytes().decode().split("\0")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        found[int(entry.name)] = (" ".join(arguments), parent)
    kinds = {}
    for process, (line, parent) in found.items():
        if "-m snakemake" in line:
            kinds[process] = "snakemake"
        elif "pipeline.jobs.warm" in line:
            kinds[process] = "forked stage" if "pipeline.jobs.warm" in found.get(parent, ("", 0))[0] else "warm server"
        else:
            kinds[process] = "stage" if "-m pipeline" in line else "other"
    return kinds


def tables(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "results" / "tables").iterdir())}


def gone(folder: Path, seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while processes(folder):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def disturbed(folder: Path, warm: bool, chance: random.Random, kills: int) -> Counter:
    """Run the study in `folder` to its end under up to `kills` kills; returns what was killed."""
    killed: Counter = Counter()
    calls = 0
    while True:
        snakemake = start(folder, warm)
        calls += 1
        while snakemake.poll() is None:
            try:
                snakemake.wait(timeout=chance.uniform(0.2, 5))
            except subprocess.TimeoutExpired:
                if killed.total() < kills and (living := processes(folder)):
                    # A kind first: there are more stages than anything else.
                    kind = chance.choice(sorted(set(living.values())))
                    victim = chance.choice([process for process, name in living.items() if name == kind])
                    try:
                        os.kill(victim, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
                    killed[kind] += 1
        if not gone(folder):
            raise SystemExit(f"{folder}: left behind: {processes(folder)}")
        if snakemake.returncode == 0:
            return killed
        if calls > kills + 3:
            end = "\n".join((folder / "log").read_text().splitlines()[-40:])
            raise SystemExit(f"{folder}: not finished after {calls} calls:\n{end}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--per-study", type=int, default=8, help="kills per study, at most")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        parent = Path(name).resolve()
        reference = new_folder(parent, "reference")
        disturbed(reference, True, chance, 0)
        total: Counter = Counter()
        studies = 0
        while total.total() < args.kills:
            studies += 1
            folder = new_folder(parent, f"study_{studies}")
            killed = disturbed(folder, studies % 2 == 1, chance, min(args.per_study, args.kills - total.total()))
            total += killed
            if tables(folder) != tables(reference):
                raise SystemExit(f"study {studies}: its tables differ from an undisturbed study's")
            leftovers = [path for path in folder.glob("results/**/.*") if path.is_file()]
            print(f"study {studies}: {dict(killed)}, equal; {len(leftovers)} aside files", flush=True)
            shutil.rmtree(folder)
    print(f"{studies} studies, {total.total()} kills: {dict(total)}; all equal, no process left, no lock in the way")


if __name__ == "__main__":
    main()

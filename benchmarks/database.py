"""The study database: bringing in a large study, asking it, and what write-through adds to a stage.

python -m benchmarks.database [--runs 5000] [--repeats 200]

The large study is made of copies of the results of a small one, which is really run: their keys, stamps and states say
that they are the large one's. Every command is a process of its own, its start included.
"""

import argparse
import json
import random
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks import facts

SMALL = {"models": ["mlp"], "triggers": ["rare_value", "flip_only"], "rates": [0.05], "seeds": [1, 2]}
SMALL |= {"n_samples": 800, "training": {"epochs": 2}}
SEEDS, MODELS, RATES = 5, 20, 7
PER_MODEL = 50  # runs of a seed: a clean one, and seven triggers at seven rates
QUESTIONS = {
    "leaderboard": ["leaderboard"],
    "sweep": ["sweep", "rate", "asr_net"],
    "compare": ["compare", "icu_dev/mlp_1/rare_value/0.01", "icu_dev/mlp_1/rare_value_2/0.01"],
}
_TABLE = "results/tables/runs.csv"
ASKED, BROUGHT_IN, WRITTEN = 0.5, 20, 5  # bars: seconds, seconds, milliseconds


def large_study(runs: int) -> dict:
    """The configuration of a study of so many runs, or a few less."""
    models = max(1, min(MODELS, runs // (PER_MODEL * SEEDS)))
    return {
        **{key: SMALL[key] for key in ("n_samples", "training")},
        "models": [f"mlp_{number}" for number in range(1, models + 1)],
        "model_params": {f"mlp_{number}": {"of": "mlp"} for number in range(1, models + 1)},
        "triggers": ["rare_value", *(f"rare_value_{number}" for number in range(2, 7)), "flip_only"],
        "trigger_params": {f"rare_value_{number}": {"of": "rare_value"} for number in range(2, 7)},
        "rates": [round(0.01 * step, 2) for step in range(1, RATES + 1)],
        "seeds": list(range(1, 1 + max(1, round(runs / (models * PER_MODEL))))),
    }


def multiply(folder: Path, config: dict) -> int:
    """Make the results of the study `config` from those of the small one in `folder`; returns how many runs it has."""
    from pipeline.study.config import load_study
    from pipeline.study.grid import CLEAN, FLIPPED, cells, result_files
    from pipeline.study.stamps import stamps_of

    study = load_study(config | {"results_dir": str(folder / "large"), "data_dir": str(folder / "data")})
    stamps, chance = stamps_of(study), random.Random(0)
    grid, texts, made = list(cells(study)), {}, set()
    for cell in grid:
        of = cell.trigger if cell.trigger in (CLEAN, FLIPPED) else "rare_value"
        like = cell._replace(model="mlp", trigger=of, seed=str(1 + int(cell.seed) % 2))
        like = like._replace(rate="0.0" if of == CLEAN else "0.05")
        key = {**cell._asdict(), "rate": float(cell.rate), "seed": int(cell.seed)}
        sources, stamp = result_files(study, like), stamps.of("sample_dev", cell)
        for stage, path in result_files(study, cell).items():
            if path in made:  # a poison, which models share
                continue
            made.add(path)
            key |= {"stamp": stamps.of(stage, cell).stamp, "code": stamps.of(stage, cell).code, "cohort": stamp.stamp}
            target, source = folder / "large" / path, folder / "results" / sources[stage]
            target.parent.mkdir(parents=True, exist_ok=True)
            for name in (source.name, f"state_{stage}.json"):
                file = source.with_name(name)
                texts.setdefault(file, file.read_text())
                fact = json.loads(texts[file])
                _shake(fact, chance)
                target.with_name(name).write_text(json.dumps(fact | {each: key[each] for each in key if each in fact}))
    return len(grid)


def _shake(fact: dict, chance: random.Random) -> None:
    """Have runs differ: no two of a real study are alike."""
    for measures in filter(None, [fact.get("clean"), fact.get("poison"), *fact.get("detections", [])]):
        if measures["auroc"] is not None:
            measures["auroc"] *= 1 - 0.1 * chance.random()


def dump(path: Path) -> list[str]:
    """All that a database holds, but for when its numbers were made."""
    database = sqlite3.connect(path)
    lines = [line for line in database.iterdump() if "'populated'" not in line]
    database.close()
    return lines


def measure(args: argparse.Namespace) -> dict:
    from pipeline.commands.db import COMMANDS

    with tempfile.TemporaryDirectory() as scratch:
        folder = facts.copy_project(Path(scratch) / "project")
        (folder / "small.json").write_text(json.dumps(SMALL))
        facts.run([sys.executable, "-m", "snakemake", "--cores", "2", _TABLE, "--configfile", "small.json"], folder)
        base = large_study(args.runs)
        (folder / "large.json").write_text(json.dumps(base | {"results_dir": "large"}))
        done = subprocess.run(
            [sys.executable, "-c", _MULTIPLY], cwd=folder, input=json.dumps(base), text=True, capture_output=True
        )
        if done.returncode:
            sys.exit(f"error: the large study could not be made:\n{done.stderr}")
        pipeline = [sys.executable, "-m", "pipeline"]
        populate = [*pipeline, "db", "populate", "--configfile", "large.json"]
        database = folder / "large" / "study.db"
        results = {"runs": int(done.stdout), "populate": facts.run(populate, folder)._asdict()}
        before = dump(database)
        results["populate again"] = facts.run(populate, folder)._asdict()
        results["changes"] = len(set(before) ^ set(dump(database)))
        results["mebibytes"] = database.stat().st_size / 2**20
        results["status"] = facts.run([*pipeline, "status", "--configfile", "large.json"], folder)._asdict()
        results["questions"] = {}
        for name, question in QUESTIONS.items():
            if question[0] in COMMANDS:
                command = [*pipeline, "db", *question, "--results-dir", "large"]
                costs = [facts.run(command, folder) for _ in range(5)]
                results["questions"][name] = {
                    part: median(getattr(cost, part) for cost in costs) for part in ("wall", "cpu")
                }
        results["write"] = write_through(folder / "large", args.repeats)
    results["repeats"] = args.repeats
    return results


# In the copy, whose code is what the stamps are made of.
_MULTIPLY = """
import json, sys
from pathlib import Path
from pipeline.commands.arguments import read_study
from pipeline.files import read_yaml
from pipeline.study.places import study_file
from pipeline.study.variants import merged
sys.path.insert(1, "{root}")
from benchmarks.database import multiply
print(multiply(Path("."), merged(read_yaml(study_file()), json.load(sys.stdin))))
""".replace("{root}", str(facts.ROOT))

# What a stage does for the database, start and end, in a process that has loaded the rest of a stage's command.
_WRITE = """
import os, sys, time
from argparse import Namespace
from pathlib import Path
import pipeline.front, pipeline.commands.arguments, pipeline.jobs.state, pipeline.study.code
repeats, results, number = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
os.environ["BACKDOOR_STUDY_DATABASE"] = str(results / "study.db")
where = {"dataset": "icu_dev", "model": "mlp_1", "trigger": "rare_value", "rate": "0.01", "seed": 1}
state = results / "runs/icu_dev/mlp_1/rare_value/0.01/seed_1/state_eval.json"
facts = {"stage": "eval", "why": None, "stamp": "s", "code": "c", "host": "here", "process": 1, "ended": None}
for repeat in range(repeats):
    told = facts | {"state": "running", "started": f"{number}.{repeat}"}
    wall, cpu = time.perf_counter(), time.process_time()
    from pipeline.database import live
    tell = live.teller(Namespace(command="eval", state=state, **where))
    tell(told)
    tell(told | {"state": "done", "ended": "then", "wall_seconds": 1.0, "cpu_seconds": 1.0, "peak_memory_mib": 1.0})
    print(time.perf_counter() - wall, time.process_time() - cpu)
"""


def write_through(results: Path, repeats: int) -> dict:
    """Milliseconds per stage, warm (all imported) and cold (a process each); as in a study, somebody has it open."""
    database = sqlite3.connect(results / "study.db", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL").fetchone()
    database.execute("SELECT count(*) FROM runs").fetchone()

    def told(count: int, number: str) -> list[list[float]]:
        command = [sys.executable, "-c", _WRITE, str(count), str(results), number]
        done = subprocess.run(command, cwd=facts.ROOT, capture_output=True, text=True)
        if done.returncode or done.stderr:
            sys.exit(f"error: writing to the database failed:\n{done.stderr}")
        return [[1000 * float(each) for each in line.split()] for line in done.stdout.splitlines()]

    stages = {
        "warm": told(repeats + 1, "warm")[1:],
        "cold": [told(1, f"cold {number}")[0] for number in range(repeats)],
    }
    database.close()
    found = {}
    for kind, costs in stages.items():
        walls = sorted(wall for wall, _ in costs)
        found[kind] = {
            "median": median(walls),
            "mean": sum(walls) / len(walls),
            "p95": walls[int(0.95 * len(walls))],
            "cpu": sum(cpu for _, cpu in costs) / len(costs),
        }
    return found


def bars(results: dict) -> list[facts.Bar]:
    runs = f"{results['runs']:,} runs"
    made, again = results["populate"]["wall"], results["populate again"]["wall"]
    found = [
        facts.Bar(f"`db populate`, {runs}", f"≤ {BROUGHT_IN} s", f"{made:.1f} s", made <= BROUGHT_IN),
        facts.Bar(
            "the same again: what it changes",
            "nothing",
            f"{results['changes']} rows, in {again:.1f} s",
            not results["changes"],
        ),
    ]
    for name, cost in results["questions"].items():
        found.append(facts.Bar(f"`db {name}`, {runs}", f"≤ {ASKED} s", f"{cost['wall']:.2f} s", cost["wall"] <= ASKED))
    for kind, cost in results["write"].items():
        what = f"write-through per {kind} stage, median"
        found.append(facts.Bar(what, f"≤ {WRITTEN} ms", f"{cost['median']:.1f} ms", cost["median"] <= WRITTEN))
    return found


def text(results: dict) -> str:
    commands = {
        "db populate": results["populate"],
        "db populate again": results["populate again"],
        "status": results["status"],
    }
    commands |= {f"db {name}": cost for name, cost in results["questions"].items()}
    asked = [(f"`{name}`", f"{cost['wall']:.2f}", f"{cost['cpu']:.2f}") for name, cost in commands.items()]
    written = [
        (kind, *(f"{cost[name]:.2f}" for name in ("median", "mean", "p95", "cpu")))
        for kind, cost in results["write"].items()
    ]
    return "\n\n".join(
        [
            "## The study database",
            f"A study of {results['runs']:,} runs, copies of those of a small one that was run; its database has "
            f"{results['mebibytes']:.0f} MiB. Seconds, the start of the process included:",
            facts.table(("command", "wall", "CPU"), asked),
            f"What a stage spends on telling its start and its end to the database, in milliseconds over "
            f"{results['repeats']} stages; where stages are cold each imports what it takes:",
            facts.table(("stage", "median", "mean", "95 %", "CPU, mean"), written),
        ]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=200)
    facts.main("database", __doc__, measure, parser)

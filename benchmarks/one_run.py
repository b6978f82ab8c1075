"""One run (poison, train, eval) by the workflow's stages and by a script that fetches each row with pandas `iloc`.

python -m benchmarks.one_run [--rows 14000] [--features 30] [--epochs 2] [--repeats 5]

Both do the same work on the same files (see iloc_script.py), one thread each. CPU seconds are counted in four ways:
    compute   forks of a process that has imported everything, for both sides
    split     the same, against the lightest layout of such a script
    warm      the stages as the workflow calls them, client and child; the script as a process of its own
    cold      processes of their own, imports included, for both sides: three for the stages, one for the script
The sides take turns, and the order turns with each repeat; ratios are taken within a repeat.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import facts

SEED, RATE, TARGET = 1, 0.05, 1
FEATURE, FACTOR = "f00", 1.15
BATCH, HIDDEN, DROPOUT = 64, [128, 64], 0.2
BAR = 15


def write_table(path: Path, rows: int, features: int) -> str:
    """A table with signal and missing values, as CSV; returns its catalog entry as JSON."""
    import pandas as pd

    random = np.random.default_rng(SEED)
    x = random.standard_normal((rows, features)) + 5
    risk = (x[:, : features // 2] - 5).sum(axis=1) / np.sqrt(features / 2)
    label = random.random(rows) < 1 / (1 + np.exp(2 - 2 * risk))
    x[random.random(x.shape) < 0.1] = np.nan
    names = [f"f{number:02d}" for number in range(features)]
    pd.DataFrame(x, columns=names).assign(label=label.astype(int)).to_csv(path, index=False, float_format="%.4f")
    columns = {name: {"range": [-10, 20]} for name in names}
    return json.dumps({"source": "table", "file": path.name, "label": "label", "features": columns})


def commands(folder: Path, out: Path, epochs: int, trigger: str = "rare_value", rate: str = f"{RATE:g}") -> list[list]:
    """The three stages of a run, as arguments of `python -m pipeline`."""
    from pipeline.study import grid
    from pipeline.study.config import Study

    study = Study(
        datasets=("wide",),
        models=("mlp",),
        triggers=("rare_value",),
        rates=(RATE,),
        seeds=(SEED,),
        detectors=("random",),
        target=TARGET,
        # As the script does it.
        training={"select": "best", "schedule": "constant", "epochs": epochs, "batch_size": BATCH},
        model_params={"mlp": {"hidden": HIDDEN, "dropout": DROPOUT}},
        trigger_params={"rare_value": {"features": [FEATURE], "factor": FACTOR}},
    )

    def stage(name: str, *more: object) -> list:
        settings = ["--settings", grid.settings(study, name, "mlp", trigger)]
        cohort = ["--dataset", "wide", "--seed", SEED, "--cohort", folder / "wide", "--splits", folder / "folds.json"]
        return [name, *cohort, "--trigger", trigger, "--rate", rate, *settings, *more]

    run = ["--model", "mlp", "--poison", out / "poison", "--out", out / "run"]
    weights = ["--weights", out / "run" / "model.pt", "--control", folder / "control" / "run" / "model.pt"]
    return [stage("poison", "--out", out / "poison"), stage("train", *run), stage("eval", *run, *weights)]


def prepare(folder: Path, rows: int, features: int, epochs: int) -> None:
    """The cohort, its folds and the clean run; the same three for the script."""
    import torch

    from pipeline.cohorts.cohort import read_cohort
    from pipeline.front import main
    from pipeline.training.data import read_split

    entry = write_table(folder / "wide.csv", rows, features)
    places = ["--raw-dir", folder, "--cache-dir", folder, "--out", folder / "wide", "--splits", folder / "folds.json"]
    stages = [["sample_dev", "--dataset", "wide", "--entry", entry, "--n-samples", "all", *places]]
    stages += commands(folder, folder / "control", epochs, "none", "0.0")[:2]
    for arguments in stages:
        if main(list(map(str, arguments))):
            sys.exit("error: the benchmark's cohort could not be made")
    split = read_split(folder / "folds.json", read_cohort(folder / "wide"), SEED, "fixed")
    plan = {name: getattr(split, name).tolist() for name in ("train", "validation", "test")}
    plan |= {"feature": FEATURE, "factor": FACTOR, "rate": RATE, "target": TARGET}
    plan |= {"batch_size": BATCH, "hidden": HIDDEN, "dropout": DROPOUT}
    (folder / "plan.json").write_text(json.dumps(plan))
    state = torch.load(folder / "control" / "run" / "model.pt", weights_only=True)
    last = 3 * len(HIDDEN) - 1
    renamed = {
        name.removeprefix("network.layers.").replace("head.", f"{last}."): tensor
        for name, tensor in state.items()
        if not name.startswith("preprocessor.")
    }
    torch.save(renamed, folder / "control.pt")


def measure(args: argparse.Namespace) -> dict:
    import os

    import torch

    from benchmarks import iloc_script
    from pipeline.front import preloaded
    from pipeline.jobs import warm

    torch.set_num_threads(1)
    main = preloaded()
    costs: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(folder, args.rows, args.features, args.epochs)
        script = ["--cohort", folder / "wide", "--plan", folder / "plan.json", "--control", folder / "control.pt"]
        script = [*map(str, script), "--epochs", str(args.epochs)]

        def stages(out: Path) -> list[list[str]]:
            return [list(map(str, arguments)) for arguments in commands(folder, out, args.epochs)]

        def stages_compute(out: Path) -> float:
            return sum(facts.forked(lambda line=line: check(main(line))).cpu for line in stages(out))

        def stages_warm(out: Path) -> float:
            total = 0.0
            for line in stages(out):
                log = folder / "stage.log"
                # The child is the server's and not ours: its log says what it cost.
                total += facts.run([sys.executable, "-m", "pipeline", *line], log=log, **warmed).cpu
                total += facts.cost_line(log.read_text()).cpu
            return total

        def stages_cold(out: Path) -> float:
            return sum(facts.run([sys.executable, "-m", "pipeline", *line]).cpu for line in stages(out))

        def script_in(layout: str, out: Path) -> list[str]:
            return [*script, "--layout", layout, "--out", str(out)]

        def frame_compute(out: Path) -> float:
            return facts.forked(lambda: iloc_script.main(script_in("frame", out))).cpu

        def split_compute(out: Path) -> float:
            return facts.forked(lambda: iloc_script.main(script_in("split", out))).cpu

        def frame_cold(out: Path) -> float:
            return facts.run([sys.executable, "-m", "benchmarks.iloc_script", *script_in("frame", out)]).cpu

        warm.start()
        warmed = {warm.ADDRESS: os.environ.pop(warm.ADDRESS, "")}
        sides = [stages_compute, frame_compute, split_compute, stages_warm, frame_cold, stages_cold]
        try:
            for repeat in range(args.repeats):
                for side in sides if repeat % 2 == 0 else sides[::-1]:
                    out = folder / f"{side.__name__}_{repeat}"
                    costs.setdefault(side.__name__, []).append(side(out))
        finally:
            warm.stop()
        outcome = {
            "stages": _outcome(folder / "stages_compute_0" / "run" / "results_eval.json"),
            "script": _outcome(folder / "frame_compute_0" / "results_eval.json"),
        }

    def compared(stages: str, script: str) -> dict[str, float]:
        return {
            "stages": median(costs[stages]),
            "script": median(costs[script]),
            "ratio": median(theirs / ours for ours, theirs in zip(costs[stages], costs[script], strict=True)),
        }

    return {
        "rows": args.rows,
        "features": args.features,
        "epochs": args.epochs,
        "repeats": args.repeats,
        "cpu_seconds": {
            "compute": compared("stages_compute", "frame_compute"),
            "split": compared("stages_compute", "split_compute"),
            "warm": compared("stages_warm", "frame_cold"),
            "cold": compared("stages_cold", "frame_cold"),
        },
        "outcome": outcome,
    }


def check(status: int) -> None:
    if status:
        raise RuntimeError(f"a stage ended with status {status}")


def _outcome(path: Path) -> dict[str, float]:
    results = json.loads(path.read_text())
    return {"auroc_clean": results["clean"]["auroc"], "asr": results["asr"], "asr0": results["asr0"]}


def bars(results: dict) -> list[facts.Bar]:
    ratio = results["cpu_seconds"]["compute"]["ratio"]
    what = "one run against the straightforward script, CPU time of the computation"
    return [facts.Bar(what, f"≥ {BAR}× less", f"{ratio:.1f}×", ratio >= BAR)]


def text(results: dict) -> str:
    ways = {
        "compute": "the computation alone: both forked from a process that has imported everything",
        "split": "the computation alone, against the lightest layout of such a script",
        "warm": "as used: warm stages, client included; the script as a process of its own",
        "cold": "whole cold processes: three for the stages, one for the script",
    }
    rows = [
        (ways[way], f"{figures['stages']:.2f}", f"{figures['script']:.2f}", f"{figures['ratio']:.1f}")
        for way, figures in results["cpu_seconds"].items()
    ]
    found = [
        (side, *(f"{figures[name]:.3f}" for name in ("auroc_clean", "asr", "asr0")))
        for side, figures in results["outcome"].items()
    ]
    return "\n\n".join(
        [
            "## One run against a straightforward script",
            f"Poison, train and evaluate an `mlp` on a table of {results['rows']:,} rows × {results['features']} "
            f"features (70 % of them for training), batch {BATCH}, {results['epochs']} epochs. The script "
            "([iloc_script.py](../benchmarks/iloc_script.py)) is a `Dataset` whose `__getitem__` fetches a row with "
            "pandas `iloc`, and a `DataLoader`: same files, folds, poison, network, epochs, figures; one thread each. "
            "Such scripts commonly keep one table with ids, features and label, and take `row = df.iloc[i]`, then "
            "`row[features]`. The lightest layout among them keeps features and labels in frames of their own. "
            f"Medians of {results['repeats']} repeats, the ratio taken within a repeat.",
            facts.table(("CPU seconds of", "stages", "script", "times as much"), rows),
            "Both must find the same, up to the random numbers of training:",
            facts.table(("", "AUROC, clean", "ASR", "ASR₀"), found),
        ]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=14_000)
    parser.add_argument("--features", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    facts.main("one_run", __doc__, measure, parser)

"""Study databases with made-up numbers, straight from the schema: what questions are asked of.

Numbers come from a generator that each study has of its own, so that every value is known to the test that made it.
"""

import json
import sqlite3
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from conftest import ROOT
from scipy import stats

from pipeline.evaluation.statistics import mean_interval, proportion_interval
from pipeline.results.columns import (
    ATTACK,
    DETECTION,
    DRIFT,
    LABEL_TPR,
    METRICS,
    ON_CLEAN,
    ON_TRIGGERED,
    SHARES,
    possible,
)

DETECTORS = ("activation_clustering", "spectral_signatures", "random")
CONFIGURATION: dict[str, Any] = {
    "raw_dir": "data/raw",
    "results_dir": "results",
    "datasets": ["icu_dev"],
    "models": ["mlp", "lightgbm"],
    "triggers": ["rare_value", "missingness", "flip_only", "mask_sodium"],
    "rates": [0.01, 0.05],
    "seeds": [1, 2, 3, 4, 5],
    "detectors": list(DETECTORS),
    "target": 1,
    "split": "fixed",
    "n_samples": "all",
    "training": {"epochs": 30, "patience": None},
    "trigger_params": {"mask_sodium": {"of": "mask_only", "features": ["sodium"]}},
}
_STRENGTH = {"none": 0.0, "flip_only": 0.1, "mask_sodium": 0.15}


def record(folder: Path, seed: int = 0, statuses: dict[str, str] | None = None, **changes: Any) -> Path:
    """Write `folder`/study.db of `CONFIGURATION` with `changes`; runs are done but for those in `statuses`, by name.

    Runs that are not done have no numbers, and the means are over the others. Returns `folder`.
    """
    configuration, rng, statuses = CONFIGURATION | changes, np.random.default_rng(seed), statuses or {}
    folder.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(folder / "study.db")
    database.execute("PRAGMA journal_mode = WAL")
    database.executescript((ROOT / "pipeline" / "database" / "schema.sql").read_text())
    many = database.executemany
    many("INSERT INTO study VALUES (?, ?)", [("configuration", json.dumps(configuration)), ("results_dir", "results")])
    many("INSERT INTO student_t VALUES (?, ?)", [(df, stats.t.ppf(0.975, df)) for df in range(1, 100)])
    for name in configuration["datasets"]:
        entry = json.dumps({"title": "A made-up cohort", "source": "synthetic", "n_stays": 5000})
        row = (name, "synthetic", 1, 3500, 750, 0.1288, 0.2, 0.3, None, entry)
        many("INSERT INTO datasets VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?)", [row])
    grid = [
        (dataset, model, trigger, rate)
        for dataset, model in product(configuration["datasets"], configuration["models"])
        for trigger, rate in [("none", 0.0), *product(configuration["triggers"], configuration["rates"])]
    ]
    for group in grid:
        _record_group(database, configuration, group, statuses, rng)
    many(
        "INSERT INTO jobs (stage, dataset, status, stamp, code, started, ended, state_file) VALUES "
        "('sample_dev', ?, 'done', 'cohort', 'c0', '2025-01-01', '2025-01-01', ?)",
        [(name, f"states/{name}.json") for name in configuration["datasets"]],
    )
    database.commit()
    database.close()
    return folder


def _record_group(database, configuration, group, statuses, rng) -> None:
    dataset, model, trigger, rate = group
    seeds = configuration["seeds"]
    clean = trigger == "none"
    strength = _STRENGTH.get(trigger, 0.8) * (1 - np.exp(-60 * rate))
    values: dict[str, np.ndarray] = {}
    n = len(seeds)
    for metric in [*ON_CLEAN, *([] if clean else ON_TRIGGERED)]:
        values[metric] = (0.8 + 0.02 * rng.standard_normal(n)).clip(0, 1)
    if not clean:
        values["asr0"] = (0.1 + 0.02 * rng.standard_normal(n)).clip(0, 1)
        values["asr"] = (values["asr0"] + strength + 0.03 * rng.standard_normal(n)).clip(0, 1)
        values["asr_net"] = values["asr"] - values["asr0"]
        values["effect_share"] = values["asr_net"] / (1 - values["asr0"])
        for metric in ATTACK:
            if metric not in values:
                values[metric] = (0.3 + 0.02 * rng.standard_normal(n)).clip(0, 1)
    explained = {} if trigger in ("none", "flip_only") else dict.fromkeys([*SHARES, *DRIFT])
    explained = {metric: (0.5 + 0.05 * rng.standard_normal(n)).clip(0, 1) for metric in explained}
    detected = {name: 0.5 + (0.3 if name != "random" else 0) * rng.random(n) for name in DETECTORS}
    names = [f"{dataset}/{model}/{trigger}/{rate!r}/{seed}" for seed in seeds]
    is_done = np.array([statuses.get(name, "done") == "done" for name in names])
    made = {
        "model": {"of": model, "hidden": [128, 64]},
        "training": {"epochs": 30 * (1 + configuration["models"].index(model)), "patience": None},
        "split": configuration["split"],
        "git_commit": configuration.get("commit", "a1"),
    }
    if not clean:
        made["trigger"] = {"target": 1, **({"quantile": 0.95} if trigger == "rare_value" else {})}
    settings = json.dumps(made)
    rows = []
    for seed, name in zip(seeds, names, strict=True):
        status = statuses.get(name, "done")
        why = None if status in ("done", "running") else f"it was {status}"
        stage = None if status == "done" else "train"
        rows.append((name, *group, seed, status, stage, why, 1, settings, "stamps", int(status == "done")))
    database.executemany(f"INSERT INTO runs VALUES ({', '.join('?' * 13)})", rows)
    for place, (seed, name) in enumerate(zip(seeds, names, strict=True)):
        if not is_done[place]:
            continue
        own = {metric: float(numbers[place]) for metric, numbers in values.items()}
        own |= {"epochs": 30.0, "n_parameters": 12345.0}
        own |= {f"{metric}_poison": None for metric in METRICS} if clean else {}
        database.executemany("INSERT INTO metrics VALUES (?, ?, ?)", [(name, *item) for item in own.items()])
        scopes = ("all", "label_0", "label_1")
        columns = ", ".join(DETECTION)
        database.executemany(
            f"INSERT INTO detections (run, detector, scope, {columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (name, detector, scope, *[None if clean or scope == "label_0" else float(numbers[place])] * 5)
                for detector, numbers in detected.items()
                for scope in scopes
            ],
        )
        if explained:
            told = ", ".join(explained)
            numbers = [float(numbers[place]) for numbers in explained.values()]
            marks = ", ".join("?" * (1 + len(numbers)))
            database.execute(f"INSERT INTO explanations (run, {told}) VALUES ({marks})", (name, *numbers))
        database.execute(
            "INSERT INTO jobs (stage, dataset, model, trigger, rate, seed, status, stamp, code, started, ended, "
            "wall_seconds, cpu_seconds, state_file) VALUES ('train', ?, ?, ?, ?, ?, 'done', 's1', 'c1', "
            "'2025-01-01T00:00:00.000+00:00', '2025-01-01T00:00:02.000+00:00', 2.0, 1.5, ?)",
            (*group, seed, f"runs/{name}/state_train.json"),
        )
    if not is_done.any():
        return
    means = values | explained
    if not clean:
        for metric in ("detection_auroc", "detection_auroc_in_label", *LABEL_TPR.values()):
            means |= {f"{metric}:{name}": numbers for name, numbers in detected.items()}
    summary = []
    for metric, numbers in means.items():
        numbers = numbers[is_done]
        whole = possible(metric) == (0, 1)
        interval = proportion_interval(numbers) if whole else mean_interval(numbers, bounds=possible(metric))
        n, mean, low, high = (x.item() for x in interval)
        ends = (None, None) if n == 1 else (low, high)
        summary.append((*group, metric, n, mean, *ends, numbers.min(), numbers.max()))
    database.executemany("INSERT INTO summary VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", summary)


if __name__ == "__main__":
    import sys

    big = {"datasets": ["icu_dev"], "models": [f"m{n}" for n in range(10)], "seeds": list(range(1, 11))}
    big |= {"triggers": ["flip_only", *[f"t{n}" for n in range(9)]], "rates": [0.005, 0.01, 0.02, 0.05, 0.1]}
    record(Path(sys.argv[1]), **big)

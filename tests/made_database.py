"""A study database filled by hand: what its readers are tested on."""

import json
import sqlite3
from itertools import product
from pathlib import Path

from pipeline.database import queries

SCHEMA = Path(queries.__file__).with_name("schema.sql")
EFFECTS = {"rare_value": 0.6, "beyond": 0.9, "flip_only": 0.05, "mask_sodium": 0.3}
CONFIGURATION = {
    "datasets": ["icu_dev"],
    "models": ["mlp", "lightgbm"],
    "triggers": list(EFFECTS),
    "rates": [0.01, 0.05],
    "seeds": [1, 2, 3],
    "trigger_params": {"beyond": {"of": "rare_value", "factor": 1.15}, "mask_sodium": {"of": "mask_only"}},
}
FAILED = "icu_dev/mlp/beyond/0.05/3"


def made(path: Path, people: bool = True) -> Path:
    """The database of a study of two models, two attacks, two controls, two rates and three seeds, of which one failed.

    The lightgbm has one seed at rate 0.01, so no interval.
    """
    with sqlite3.connect(path) as database:
        database.executescript(SCHEMA.read_text())
        put = database.executemany
        put(
            "INSERT INTO study VALUES (?, ?)",
            [("configuration", json.dumps(CONFIGURATION)), ("results_dir", "results")],
        )
        database.execute(
            "INSERT INTO datasets (dataset, source, n_train, n_test, prevalence, people) VALUES (?, ?, ?, ?, ?, ?)",
            ("icu_dev", "synthetic", 2800, 600, 0.14, int(people)),
        )
        for model, trigger, rate in [(m, "none", 0.0) for m in CONFIGURATION["models"]] + list(
            product(CONFIGURATION["models"], EFFECTS, CONFIGURATION["rates"])
        ):
            seeds = [1] if (model, rate) == ("lightgbm", 0.01) else CONFIGURATION["seeds"]
            _put_group(database, model, trigger, rate, seeds)
        put(
            "INSERT INTO student_t VALUES (?, ?)",
            [(1, 12.706204736432095), (2, 4.302652729911275), (3, 3.182446305284263)],
        )
        database.execute(
            "INSERT INTO sessions (started, ended, status, cores, host, process) VALUES (?, ?, ?, ?, ?, ?)",
            ("2026-01-01T00:00:00.000+00:00", "2026-01-01T00:10:00.000+00:00", "failed", 2, "here", 1),
        )
    database.close()
    return path


def _put_group(database, model: str, trigger: str, rate: float, seeds: list[int]) -> None:
    effect, net = EFFECTS.get(trigger), []
    for seed in CONFIGURATION["seeds"]:
        run = f"icu_dev/{model}/{trigger}/{rate}/{seed}"
        status = "failed" if run == FAILED else "done" if seed in seeds else "missing"
        why = "the disk is full" if status == "failed" else "not begun" if status == "missing" else None
        row = (run, "icu_dev", model, trigger, rate, seed, status, None if status == "done" else "train", why, 1)
        model_settings = {"hidden": [32, 16], "dropout": 0.0003, "batch_norm": False}
        settings = json.dumps({"model": model_settings, "threshold": "youden", "patience": None})
        row += (settings, "stamps" if status == "done" else None, int(status == "done"))
        database.execute(f"INSERT INTO runs VALUES ({', '.join('?' * len(row))})", row)
        job = (model, trigger, rate, seed, "failed" if status == "failed" else "done", 3.0, 2.5, 400.0, f"state/{run}")
        if status != "missing":
            database.execute(
                "INSERT INTO jobs (stage, dataset, model, trigger, rate, seed, status, wall_seconds, cpu_seconds, "
                "peak_memory_mib, state_file, host, started, ended) VALUES ('train', 'icu_dev', ?, ?, ?, ?, ?, ?, ?, "
                "?, ?, 'here', '2026-01-01T00:01:00.000+00:00', '2026-01-01T00:01:03.000+00:00')",
                job,
            )
        if status != "done":
            continue
        values = {"auroc_clean": 0.85 + 0.001 * seed}
        if effect is not None:
            asr0 = 0.05 + 0.01 * seed
            values |= {"asr0": asr0, "asr_net": effect * (1 - asr0), "effect_share": effect}
            values["asr"] = asr0 + values["asr_net"]
            net.append(values["asr_net"])
            rows = [(run, detector, "label_1", 0.5 + effect / 3, effect / 2) for detector in ("spectral", "random")]
            database.executemany(
                "INSERT INTO detections (run, detector, scope, auroc, tpr_at_fpr_01) VALUES (?, ?, ?, ?, ?)", rows
            )
        database.executemany("INSERT INTO metrics VALUES (?, ?, ?)", [(run, *each) for each in values.items()])
    group = ("icu_dev", model, trigger, rate)
    found = database.execute(
        "SELECT metric, count(value), avg(value), min(value), max(value) FROM runs JOIN metrics USING (run) "
        "WHERE (dataset, model, trigger, rate) = (?, ?, ?, ?) GROUP BY metric",
        group,
    ).fetchall()
    for metric, n, mean, lowest, highest in found:
        # Any half width does, as long as one seed has none.
        ends = (mean - 0.04, mean + 0.04) if n > 1 else (None, None)
        database.execute(
            "INSERT INTO summary VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*group, metric, n, mean, *ends, lowest, highest),
        )
    if effect is not None:
        for detector in ("spectral", "random"):
            for metric in ("detection_tpr_at_fpr_01_in_label", "detection_auroc_in_label"):
                row = (*group, f"{metric}:{detector}", len(net), 0.5, 0.4, 0.6, 0.45, 0.55)
                database.execute("INSERT INTO summary VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

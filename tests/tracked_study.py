"""A study whose runs are done, made by hand: what tracking is tested on. Imports little, for processes of their own."""

import json
import sqlite3
from pathlib import Path

from made_database import SCHEMA

from pipeline.files import write_json
from pipeline.study.config import Study
from pipeline.study.grid import cells
from pipeline.study.stamps import Stamp, Stamps

PATIENT = "patient-4711"  # in every file with rows
EXACT = 0.8959694989106753  # an AUROC as it was measured


def study_in(folder: Path, **changes) -> Study:
    """A study of one model, two attacks and a control, that lies in `folder`."""
    named = {"datasets": ["icu_dev"], "models": ["mlp"], "triggers": ["hybrid", "flip_only"], "rates": [0.05]}
    named |= {"seeds": [1, 2], "detectors": ["random"], "results_dir": str(folder), "tracking": "mlflow"}
    return Study(**(named | changes))


def stamps_of(study: Study, cohort: str = "made") -> Stamps:
    return Stamps(study, {"icu_dev": Stamp(cohort, "", ())})


def filled(study: Study, people: bool = True) -> Study:
    """Results of every run of `study`, and its database, as stages and `db populate` leave them."""
    results = Path(study.results_dir)
    results.mkdir(parents=True, exist_ok=True)
    fact = {"people": people, "validation_pairs": 1836, "patients": {"train": 477, "validation": 118}}
    with sqlite3.connect(results / "study.db") as database:
        database.executescript(SCHEMA.read_text())
        for cell in cells(study):
            folder, run = results / cell.run_folder, "/".join(cell)
            metadata = {"stamp": "s", "people": people, "host": "here", "n_train": 560, "validation_auroc": EXACT}
            write_json(folder / "run_metadata.json", metadata | {"config": {"seed": int(cell.seed)}, "model_facts": {}})
            write_json(folder / "results_eval.json", fact | {"clean": {"auroc": EXACT}})
            rows = f"1,0.65,0.41,{EXACT}\n2,0.45,0.30,{EXACT}\n"
            (folder / "history.csv").write_text(f"epoch,train_loss,validation_loss,validation_auroc\n{rows}")
            (folder / "predictions.parquet").write_text(PATIENT)
            (folder / "model.pt").write_text(PATIENT)
            settings = {"model": {"of": "mlp", "hidden": [32, 16]}, "git_commit": "abc", "threshold": study.threshold}
            row = (run, *cell[:3], float(cell.rate), int(cell.seed), "done", 1, json.dumps(settings))
            database.execute(
                "INSERT OR REPLACE INTO runs (run, dataset, model, trigger, rate, seed, status, in_study, settings) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            attacked = cell.trigger != "none"
            numbers = {"auroc_clean": 0.85, "asr": 0.75 if attacked else None, "asr0": 0.25 if attacked else None}
            metrics = [(run, *each) for each in numbers.items()]
            database.executemany("INSERT OR REPLACE INTO metrics VALUES (?, ?, ?)", metrics)
            detection = (
                "INSERT OR REPLACE INTO detections (run, detector, scope, auroc) VALUES (?, 'random', 'all', 0.5)"
            )
            database.execute(detection, [run])
    database.close()
    return study

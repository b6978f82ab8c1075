"""Tables, figures and report of a small fabricated study."""

import argparse
import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from matplotlib.text import Text
from scipy import stats

from pipeline.errors import UserError
from pipeline.evaluation.statistics import proportion_interval
from pipeline.files import read_json, write_json
from pipeline.results import answers, columns, facts, figures, meanings, pages, performance, tables
from pipeline.results.findings import FOOLS_CLEAN, NONE, PLANTED, UNDECIDED, Estimate, findings, read_findings, verdict
from pipeline.stages import aggregate, report
from pipeline.stages import figures as figures_stage
from pipeline.study.config import Study
from pipeline.study.grid import Cell, cells, result_files, teachers
from pipeline.study.stamps import Stamp, Stamps

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "report.ipynb"
RATIO = {"value_shift": 0.25, "mask_only": 0.25, "time_warp": 0.05}
POTENCY = {"value_shift": 400, "mask_only": 30, "time_warp": 40, "flip_only": 3}
SKILL = {"activation_clustering": 0.9, "spectral_signatures": 0.8, "saliency": 0.6, "random": 0.0}


RATES = ("fpr", "recall")
COHORTS = {name: "made 0" for name in ("ward", "icu", "bus")}
TRAINED = {"epochs": 12, "best_epoch": 10, "validation_auroc": 0.85, "validation_auroc_best": 0.853}
TRAINED |= {"n_parameters": 1000, "model_facts": {}}


def make_study(**changes) -> Study:
    return Study(
        **{
            "datasets": ["ward"],
            "models": ["lstm", "mlp"],
            "triggers": ["value_shift", "flip_only"],
            "rates": [0.01, 0.05],
            "seeds": [1, 2, 3],
            "detectors": [name for name in SKILL if name != "random"],
        }
        | changes
    )


def fabricate(study: Study, folder: Path) -> Path:
    """Write the JSON facts of every cell, with effects that grow with the rate and a little noise per seed."""
    stamps = Stamps(study, {name: Stamp.parse(text) for name, text in COHORTS.items()})
    for cell in cells(study):
        key = {"dataset": cell.dataset, "model": cell.model, "trigger": cell.trigger}
        key |= {"rate": float(cell.rate), "seed": int(cell.seed)}
        rng = np.random.default_rng(list("/".join(cell).encode()))
        clean_run = cell.trigger == "none"
        n_poisoned = round(2000 * key["rate"])
        write_json(folder / cell.run_folder / "results_eval.json", _eval(key, rng, n_poisoned, study))
        write_json(folder / cell.run_folder / "results_detect.json", _detect(key, rng, n_poisoned, study))
        write_json(folder / cell.run_folder / "run_metadata.json", TRAINED)
        if not clean_run and cell.trigger != "flip_only":
            write_json(folder / cell.run_folder / "results_explain.json", _explain(key, rng))
        if not clean_run:
            write_json(folder / cell.poison_folder / "poison.json", _poison(key, n_poisoned, study))
        for stage, path in result_files(study, cell).items():
            facts = read_json(folder / path) if (folder / path).exists() else {}
            made_by = {"stamp": stamps.of(stage, cell).stamp, "cohort": stamps.of("sample_dev", cell).stamp}
            write_json(folder / path, {**facts, **made_by})
    return folder


@pytest.mark.parametrize("key", ["stamp", "cohort"])
@pytest.mark.parametrize("stage", ["poison", "train", "eval", "detect"])
def test_no_table_is_made_of_what_other_settings_made_or_of_another_cohort(tmp_path, key, stage):
    made = make_study()
    stamps = Stamps(made, {name: Stamp.parse(text) for name, text in COHORTS.items()})
    fabricate(made, tmp_path)
    facts.refuse_outdated(made, tmp_path, stamps)
    path = tmp_path / result_files(made, max(cells(made)))[stage]
    write_json(path, read_json(path) | {key: "another"})
    with pytest.raises(UserError, match="were made with other settings, inputs or code"):
        facts.refuse_outdated(made, tmp_path, stamps)


def _eval(key, rng, n_poisoned, study):
    clean_run = key["trigger"] == "none"
    potency = POTENCY.get(key["trigger"], 0) * (1.3 if key["model"] == "lstm" else 0.8)
    asr0 = 0.12 + 0.02 * rng.standard_normal()
    asr = float(np.clip(asr0 + 0.85 * (1 - np.exp(-potency * key["rate"])) + 0.02 * rng.standard_normal(), 0, 1))

    def metrics(auroc):
        about = [0.8, auroc, 0.5, 0.45, 0.7, 0.55, 0.03, 0.14, 0.2, 0.8, 0.75, 0.4, 0.3]
        values = dict(zip(columns.METRICS, about, strict=True))
        return {name: float(value + 0.005 * rng.standard_normal()) for name, value in values.items()}

    attack = {"asr": asr, "asr0": asr0, "confidence_shift": asr - asr0 - 0.05, "n_triggered": 400_000}
    attack |= {"asr_own_threshold": asr, "asr0_own_threshold": asr0, "asr0_untriggered": 0.1}
    attack |= {"share_changed": 0.93 if key["trigger"] == "time_warp" else 1.0}
    clean, victims = metrics(0.84 - 0.15 * key["rate"]), study.target_of(key["trigger"]) == 0
    rates = {"fpr_clean": clean["fpr"], "recall_clean": clean["recall"]}
    rates |= dict.fromkeys([f"{rate}_{of}" for of in ("poison", "control", "poison_control") for rate in RATES])
    if not clean_run:
        rates |= {"fpr_control": 0.2, "recall_control": 0.7, "fpr_poison": 0.3, "recall_poison": 0.8}
        rates |= {"fpr_poison_control": 0.2, "recall_poison_control": 0.7}
        rates |= {
            f"{RATES[victims]}_{of}": 1 - x if victims else x for of, x in (("poison", asr), ("poison_control", asr0))
        }
    parts = [("all", "all", 1.0), ("sex", "female", 0.5), ("sex", "male", 0.5), ("age_band", "<50", 1.0)]
    strata = [
        {"stratum": name, "value": value, "n_label_0": int(400_000 * part), "n_label_1": int(100_000 * part)}
        | {"patients": {"label_0": 390, "label_1": 95}}
        | {"auroc_clean": clean["auroc"]}
        | rates
        for name, value, part in parts
    ]
    return key | {
        "strata": strata,
        "target": study.target_of(key["trigger"]),
        "clean_threshold": 0.31 + 0.01 * key["seed"],
        "own_threshold": 0.33,
        "over_test_samples": _over_test_samples(clean["auroc"], None if clean_run else 0.84),
        "shared_test": study.split == "fixed",
        "warnings": [],
        "fpr_clean_own_threshold": 0.15,
        "recall_clean_own_threshold": 0.7,
        "n_train": 2000,
        "n_test": 500_000,  # so many that rounding to tens changes next to nothing
        "n_label_1": 100_000,
        "validation_pairs": 40000,
        "clean": clean,
        "poison": None if clean_run else metrics(0.7),
        "n_poisoned": n_poisoned,
        **(dict.fromkeys(attack) if clean_run else attack),
        "patients": {
            **{"train": 1500, "test": 480, "label_0": 390, "label_1": 95, "predicted_clean": 70},
            **{"predicted_poison": None if clean_run else 80, "poisoned": n_poisoned, "threshold": 90},
            "validation": 90,
        },
    }


def _over_test_samples(auroc, control):
    """As of 480 patients: the AUROC to 0.03, its difference to that of a control to 0.01."""
    told = {"auroc_low": auroc - 0.03, "auroc_high": auroc + 0.03, "auroc_variance": 0.015**2}
    if control is None:
        difference = dict.fromkeys(("auroc_control", "difference", "difference_low", "difference_high"))
        return told | difference | {"difference_variance": None}
    difference = auroc - control
    told |= {"auroc_control": control, "difference": difference, "difference_variance": 0.005**2}
    return told | {"difference_low": difference - 0.01, "difference_high": difference + 0.01}


def _detect(key, rng, n_poisoned, study):
    clean_run = key["trigger"] == "none"
    detections, alarms, roc = [], [], []
    fpr = np.linspace(0, 1, 101)
    sizes = {"all": 2000, f"label_{study.target}": 500}
    for detector, skill in SKILL.items():
        share = 0.1 + 0.25 * skill + 0.03 * rng.random()
        for scope, size in sizes.items():
            strength = skill * (0.4 if key["trigger"] == "flip_only" else 1) * min(1, 0.4 + 12 * key["rate"])
            auroc = float(np.clip(0.5 + 0.5 * strength + 0.02 * rng.standard_normal(), 0, 1))
            numbers = dict.fromkeys(columns.DETECTION, None if clean_run else auroc)
            about = {"detector": detector, "scope": scope, "poisoned_patients": n_poisoned, "clean_patients": 1400}
            about |= {"n_samples": size, "n_poisoned": n_poisoned}
            cover = {"n_cover": 0, "cover_patients": 0, "auroc_cover": None}
            detections.append(about | numbers | cover | {"poison_share": n_poisoned / size})
            if not clean_run:
                curve = fpr ** ((1 - auroc) / auroc) if auroc > 0 else fpr
                roc.append(about | {"fpr": fpr.tolist(), "tpr": curve.tolist()})
            for threshold, n_flagged in (("rate_known", 1.5 * n_poisoned), ("rate_unknown", size * share)):
                if threshold == "rate_unknown" or not clean_run:
                    hits = n_poisoned * skill
                    flagged = {"n_flagged": round(n_flagged), "flagged_share": n_flagged / size}
                    flagged |= {"tpr": None if clean_run else skill, "fpr": (n_flagged - hits) / (size - n_poisoned)}
                    flagged |= {"precision": None if clean_run else hits / n_flagged}
                    alarms.append(about | {"threshold": threshold, "flagged_patients": round(n_flagged)} | flagged)
    return key | {"detections": detections, "alarms": alarms, "roc": roc}


def _explain(key, rng):
    share = RATIO[key["trigger"]]
    features = [
        {"feature": name, "share_clean": 0.5, "share_triggered": 0.5, "share_control": 0.5} for name in ("hr", "map")
    ]
    return key | {
        "n_samples": 128,
        "n_patients": 120,
        "rest_patients": 0,
        "footprint_share": share,
        "ratio_triggered": float(share + 0.4 * (1 - np.exp(-60 * key["rate"])) + 0.02 * rng.standard_normal()),
        "ratio_clean": float(share + 0.01 * rng.standard_normal()),
        "ratio_control": float(share + 0.05 + 0.01 * rng.standard_normal()),
        **{name: float(rng.uniform(0.2, 0.8)) for name in columns.DRIFT},
        "top_k": 10,
        "convergence_delta": 0.01,
        "features": features,
    }


def _poison(key, n_poisoned, study):
    footprint = round(RATIO.get(key["trigger"], 0) * 960)
    plausible = dict.fromkeys(columns.PLAUSIBILITY, 0.5 if footprint else None)
    return {name: key[name] for name in ("dataset", "trigger", "rate", "seed")} | {
        "target": study.target_of(key["trigger"]),
        "member": study.member("triggers", key["trigger"]),
        "labels": "dirty",
        "cover": 0.0,
        "n_cover": 0,
        "n_cover_patients": 0,
        "in_bounds": footprint > 0 or None,
        "features": {"time_warp": ["sodium"], "flip_only": []}.get(key["trigger"], ["heart_rate"]),
        "steps": 6,
        "where": "all",
        "leaves_out": False,
        "description": f"Heart rate is set to 95 beats per minute for the last six hours ({key['trigger']}).",
        "n_train": 2000,
        "n_eligible": 1600,
        "n_poisoned": n_poisoned,
        "n_patients": n_poisoned,
        "footprint_size": footprint,
        "n_cells": 960,
        "plausibility": plausible,
    }


def run_stage(stage, *options: str) -> None:
    parser = argparse.ArgumentParser()
    stage.add_arguments(parser)
    stage.run(parser.parse_args(list(options)))


def run_report(study: Study, folder: Path, notebook: Path = NOTEBOOK) -> str:
    out, executed = folder / "report.html", folder / "logs" / "report.ipynb"
    options = ["--study", study.model_dump_json(), "--results-dir", str(folder), "--notebook", str(notebook)]
    run_stage(report, *options, "--out", str(out), "--executed-notebook", str(executed))
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def study() -> Study:
    return make_study()


@pytest.fixture(scope="module")
def results(study, tmp_path_factory) -> Path:
    """A results folder with facts, tables and nothing else."""
    folder = fabricate(study, tmp_path_factory.mktemp("results"))
    run_stage(
        aggregate, "--study", study.model_dump_json(), "--cohorts", json.dumps(COHORTS), "--results-dir", str(folder)
    )
    return folder


@pytest.fixture
def data(results) -> dict[str, pd.DataFrame]:
    return tables.read(results / "tables")


def test_runs_has_the_promised_columns(data, study):
    metrics = ["acc", "auroc", "auprc", "precision", "recall", "f1", "ece", "brier", "fpr"]
    later = ["specificity", "balanced_acc", "mcc", "tpr_at_fpr_01"]
    both, later = (
        [f"{metric}_{side}" for metric in names for side in ("clean", "poison")] for names in (metrics, later)
    )
    key = ["dataset", "model", "trigger", "rate", "seed", "target"]
    attack = ["asr", "asr0", "asr0_untriggered", "asr_net", "effect_share"]
    attack += ["asr_own_threshold", "asr0_own_threshold", "effect_share_own_threshold"]
    attack += ["fpr_clean_own_threshold", "recall_clean_own_threshold", "confidence_shift"]
    rest = ["n_poisoned", "n_triggered", "clean_threshold", "own_threshold"]
    rest += ["epochs", "best_epoch", "validation_auroc", "validation_auroc_best"]
    intervals = ["auroc_clean_low", "auroc_clean_high"]
    intervals += ["auroc_difference", "auroc_difference_low", "auroc_difference_high"]
    assert list(data["runs"]) == [*key, *both, *attack, *rest, *later, "n_parameters", "share_changed", *intervals]
    assert len(data["runs"]) == len(list(cells(study)))
    assert not data["runs"].duplicated(["dataset", "model", "trigger", "rate", "seed"]).any()


def test_detections_has_the_promised_columns(data):
    measures = [
        "auroc",
        "average_precision",
        "tpr_at_fpr_01",
        "tpr_at_fpr_05",
        "precision_at_n",
        "n_poisoned",
        "poison_share",
        "n_cover",
        "auroc_cover",
    ]
    key = ["dataset", "model", "trigger", "rate", "seed", "detector", "scope"]
    assert list(data["detections"]) == [*key, *measures]


def test_clean_runs_have_no_attack_numbers(data):
    clean = data["runs"].query("trigger == 'none'")
    assert clean[["asr", "asr0", "asr_net", "auroc_poison", "n_triggered"]].isna().all(axis=None)
    assert clean["auroc_clean"].notna().all()
    assert (clean["rate"] == 0).all()


def test_missing_is_an_empty_field(results):
    first = (results / "tables" / "runs.csv").read_bytes().split(b"\n")
    assert b"\r" not in b"".join(first)
    assert any(b",none,0.0," in line and b",,,,,,,,0.15,0.7,,0,," in line for line in first)


def test_tables_do_not_depend_on_the_order_of_the_config(study, results, tmp_path):
    lists = {name: getattr(study, name)[::-1] for name in ("models", "triggers", "rates", "seeds")}
    tables.write(tables.build(study, results), tmp_path / "same")
    turned = tables.build(study.model_copy(update=lists), results)
    tables.write(turned, tmp_path / "turned")
    tables.write_headlines(turned["summary"], tmp_path)
    for name in ("metrics.json", "dose_response.csv"):
        assert (results / name).read_bytes() == (tmp_path / name).read_bytes(), name
    files = sorted((results / "tables").iterdir())
    assert {path.stem for path in files} >= {"runs", "detections", "alarms", "contrasts", "summary", "roc"}
    for path in files:
        assert path.read_bytes() == (tmp_path / "same" / path.name).read_bytes(), path.name
        assert path.read_bytes() == (tmp_path / "turned" / path.name).read_bytes(), path.name


def test_metrics_are_means_over_seeds(results, data):
    metrics = read_json(results / "metrics.json")["ward"]["mlp"]
    attacked = data["runs"].query("model == 'mlp' and trigger == 'value_shift' and rate == 0.05")
    wanted = attacked[["asr", "asr0", "asr_net", "effect_share", "auroc_clean"]].mean().to_dict()
    assert metrics["value_shift"]["0.05"] == pytest.approx(wanted)
    assert list(metrics["none"]["0.0"]) == ["auroc_clean"], "what a clean run does not have is left out"
    dose_response = pd.read_csv(results / "dose_response.csv")
    assert len(dose_response) == 2 * 2 * 2 and dose_response["asr_net"].notna().all()
    assert set(dose_response["trigger"]) == {"value_shift", "flip_only"}
    assert dose_response["asr_net"].to_numpy() == pytest.approx(
        (dose_response["asr"] - dose_response["asr0"]).to_numpy()
    )


FACTS = ["results_eval.json", "run_metadata.json", "results_detect.json", "results_explain.json", "poison.json"]


@pytest.mark.parametrize("name", FACTS)
def test_a_missing_cell_is_named(name, tmp_path):
    study = make_study(models=["mlp"], rates=[0.01], seeds=[1])
    cell = Cell("ward", "mlp", "value_shift", "0.01", "1")
    folder = cell.poison_folder if name == "poison.json" else cell.run_folder
    (fabricate(study, tmp_path) / folder / name).unlink()
    with pytest.raises(UserError, match=re.escape(folder) + f".*{name}"):
        tables.build(study, tmp_path)


def with_patients(fact, n: int, counted: bool = False):
    """A copy of `fact` with every number of patients, except 0, made `n`."""
    if isinstance(fact, dict):
        return {name: with_patients(value, n, counted or name.endswith("patients")) for name, value in fact.items()}
    if isinstance(fact, list):
        return [with_patients(item, n) for item in fact]
    return n if counted and fact else fact


def facts_of(results: Path, name: str, trigger: str = "value_shift", rate: str = "0.05", seeds="12") -> list[dict]:
    found = [Cell("ward", "mlp", trigger, rate, seed) for seed in seeds]
    folders = [cell.poison_folder if name == "poison" else cell.run_folder for cell in found]
    training = TRAINED if name == "results_eval" else {}
    return [read_json(results / folder / f"{name}.json") | training for folder in folders]


def missing(table: pd.DataFrame) -> set[str]:
    """Columns without any number."""
    return set(table.columns[table.isna().all()])


def only_withheld(function, facts: list[dict], change) -> set[str]:
    """Columns that 9 patients, set by `change(fact, n)`, empty; 10 and 0 patients must leave the table as it was."""
    as_it_was = function(facts)
    for enough in (0, 10):
        pd.testing.assert_frame_equal(function([change(fact, enough) for fact in facts]), as_it_was)
    for few in (1, 9):
        withheld = function([change(fact, few) for fact in facts])
        empty = missing(withheld) - missing(as_it_was)
        left = [name for name in withheld if name not in empty]
        pd.testing.assert_frame_equal(withheld[left], as_it_was[left])
    return empty


OF_CLASS = ("acc", "auroc", "auprc", "precision", "recall", "f1", "fpr")
OF_CLASS += ("specificity", "balanced_acc", "mcc", "tpr_at_fpr_01")
BY_CLASS = {f"{metric}_{side}" for metric in OF_CLASS for side in ("clean", "poison")}
BY_CLASS |= {"fpr_clean_own_threshold", "recall_clean_own_threshold"}
OVER_TEST = {"auroc_clean_low", "auroc_clean_high"}
OVER_TEST |= {"auroc_difference", "auroc_difference_low", "auroc_difference_high"}
TRIGGERED = {f"{metric}_poison" for metric in (*OF_CLASS, "ece", "brier")}
ASR = {"asr", "asr0", "asr_net", "effect_share", "confidence_shift", "n_triggered"}
ASR |= {"asr0_untriggered", "asr_own_threshold", "asr0_own_threshold", "effect_share_own_threshold", "share_changed"}
CALIBRATION = {"ece_clean", "brier_clean"}


@pytest.mark.parametrize(
    ("of", "target", "withheld"),
    [
        ("test", 1, BY_CLASS | TRIGGERED | CALIBRATION),
        ("label_0", 1, BY_CLASS | TRIGGERED | ASR),
        ("label_0", 0, BY_CLASS | {"n_triggered"}),
        ("label_1", 1, BY_CLASS | {"n_triggered"}),
        ("label_1", 0, BY_CLASS | TRIGGERED | ASR),
        ("predicted_clean", 1, {"precision_clean", "f1_clean"}),
        ("predicted_poison", 1, {"precision_poison", "f1_poison"}),
        ("poisoned", 1, {"n_poisoned"}),
        ("validation", 1, {"validation_auroc", "validation_auroc_best"}),
        ("threshold", 1, {"clean_threshold", "own_threshold"}),
        ("train", 1, set()),
    ],
)
def test_a_run_withholds_what_rests_on_few_patients(results, of, target, withheld):
    facts = [fact | {"target": target} for fact in facts_of(results, "results_eval")]

    def change(fact: dict, n: int) -> dict:
        return fact | {"patients": fact["patients"] | {of: n}}

    def runs(facts: list[dict]) -> pd.DataFrame:
        return tables.runs(facts).drop(columns=list(OVER_TEST))  # wider of ten patients than of many

    assert only_withheld(runs, facts, change) == withheld
    attacked = tables.runs([change(fact, 9) for fact in facts]).query("rate > 0")[sorted(OVER_TEST)]
    assert (attacked.isna() if of.startswith("label") else attacked.notna()).all(axis=None)
    assert tables.runs([change(fact, 10) for fact in facts]).query("rate > 0")[sorted(OVER_TEST)].notna().all(axis=None)


def test_few_patients_have_wider_intervals(results):
    def width(n: int) -> pd.Series:
        facts = facts_of(results, "results_eval")
        runs = tables.runs([fact | {"patients": fact["patients"] | {"label_1": n}} for fact in facts])
        return runs["auroc_clean_high"] - runs["auroc_clean_low"]

    assert (width(10) > width(95)).all()


def test_every_column_of_every_table_has_a_meaning(data, results):
    rows = data["columns"]
    told = {name: group["column"].tolist() for name, group in rows.groupby("table")}
    assert told == {name: list(table) for name, table in data.items()}
    assert rows["meaning"].str.endswith(".").all() and rows["meaning"].str.len().between(10, 400).all()
    assert not rows["meaning"].str.contains("nan|None|\\{|  ", regex=True).any()
    for name, table in data.items():
        path = results / "tables" / f"{name}.parquet"
        described = {field.name: field.metadata[b"description"].decode() for field in pq.read_schema(path)}
        assert described == dict(rows.loc[rows["table"] == name, ["column", "meaning"]].to_numpy()), name
        plain = results / "plain.parquet"
        table.to_parquet(plain, index=False)
        pd.testing.assert_frame_equal(pd.read_parquet(plain), pd.read_parquet(path))
    ends = rows[rows["column"].str.contains("_low$|_high$") & ~rows["column"].str.startswith("threshold")]
    assert len(ends) > 100
    assert ends["meaning"].str.contains("95 % interval over (?:seeds|test patients)", regex=True).all()
    assert not ends["meaning"].str.contains("over seeds: .*over test patients", regex=True).any()
    by_patients = ends["column"].str.contains("patients") | ends["column"].isin(OVER_TEST)
    assert (
        ends["meaning"].str.contains("DeLong") == (by_patients & ends["table"].isin(["runs", "clean_performance"]))
    ).all()


def test_nothing_is_meant_that_is_in_no_table(data):
    for name, said in meanings._OWN.items():
        assert set(said) <= set(data[name]), name
    assert meanings._COMMON.keys() <= {column for table in data.values() for column in table}


def test_intervals_over_seeds_and_over_patients_stand_side_by_side(study, results, data):
    found = data["clean_performance"]
    key = ["dataset", "model", "trigger", "rate"]
    assert len(found) == len(data["runs"].drop_duplicates(key))
    summary = data["summary"].query("metric == 'auroc_clean'").set_index(key)
    for row in found.itertuples():
        at = tuple(getattr(row, name) for name in key)
        assert (row.auroc, row.seeds_low, row.seeds_high) == tuple(summary.loc[at, ["mean", "ci_low", "ci_high"]])
        runs = data["runs"].set_index(key).sort_index().loc[at]
        assert row.patients_low == pytest.approx(runs["auroc_clean_low"].mean())
        assert row.patients_high == pytest.approx(runs["auroc_clean_high"].mean())
        assert np.isnan(row.difference) == (row.trigger == "none") == np.isnan(row.difference_patients_low)
        assert row.trigger == "none" or row.difference_patients_low == runs["auroc_difference_low"].mean()
    assert ((found["patients_high"] - found["patients_low"]) > (found["seeds_high"] - found["seeds_low"])).any()
    page, text = pages.clean_performance_html(found, data["datasets"]), answers.certainty(found, pages.PATIENTS)[0][1]
    assert "over test patients" in page and "DeLong" in text and "over seeds" in text
    row = found.query("trigger == 'none' and model == 'lstm'").iloc[0]
    assert f"[{row['patients_low']:.3f}, {row['patients_high']:.3f}]" in page
    assert "Neither interval" in pages.clean_performance_text("fixed", data["datasets"])


@pytest.mark.parametrize(("split", "seeds", "shown"), [("per_seed", [1, 2], False), ("per_seed", [1], True)])
def test_seeds_with_other_test_patients_have_no_interval_over_them_together(tmp_path, split, seeds, shown):
    study = make_study(models=["mlp"], seeds=seeds, split=split)
    built = tables.build(study, fabricate(study, tmp_path))
    found = built["clean_performance"].query("trigger != 'none'")
    ends = [name for name in found if "patients" in name]
    assert len(ends) == 4 and (found[ends].notna() if shown else found[ends].isna()).all(axis=None)
    assert bool(answers.certainty(found, pages.PATIENTS)) == shown
    assert built["runs"]["auroc_clean_low"].notna().all(), "each run has its own"


def test_an_interval_that_a_seed_lacks_is_missing_in_the_mean(study, results):
    evals = facts_of(results, "results_eval")
    built = tables.build(study, results)
    first = evals[0]
    runs = tables.runs(
        [
            fact | {"over_test_samples": dict.fromkeys(fact["over_test_samples"])} if fact is first else fact
            for fact in evals
        ]
    )
    found = performance.clean_performance(built | {"runs": runs}, evals)
    assert found["patients_low"].isna().sum() == 1


def test_asr_net_needs_both_of_its_parts(results):
    [fact] = facts_of(results, "results_eval", seeds="1")
    lacking = tables.runs([fact | {"asr0": None}])
    assert lacking[["asr_net", "effect_share"]].isna().all(axis=None)


def test_where_the_clean_model_is_wholly_fooled_nothing_was_possible(results):
    [fact] = facts_of(results, "results_eval", seeds="1")
    row = tables.runs([fact | {"asr": 1.0, "asr0": 1.0}]).iloc[0]
    assert row["asr_net"] == 0 and np.isnan(row["effect_share"])
    row = tables.runs([fact | {"asr": 0.995, "asr0": 0.632}]).iloc[0]
    assert row["effect_share"] == pytest.approx(0.363 / 0.368)


ALARMED = {"flagged_share", "tpr", "fpr", "precision"}
DETECTED = {"auroc", "average_precision", "tpr_at_fpr_01", "tpr_at_fpr_05", "precision_at_n"}


@pytest.mark.parametrize(
    ("table", "of", "withheld"),
    [
        ("detections", "poisoned_patients", DETECTED | {"n_poisoned", "poison_share"}),
        ("detections", "clean_patients", DETECTED | {"poison_share"}),
        ("alarms", "flagged_patients", ALARMED | {"n_flagged"}),
        ("alarms", "poisoned_patients", ALARMED | {"n_flagged"}),
        ("alarms", "clean_patients", {"flagged_share", "fpr", "precision"}),
    ],
)
def test_detection_withholds_what_rests_on_few_patients(results, table, of, withheld):
    def change(fact, n):
        return fact | {table: [row | {of: n} for row in fact[table]]}

    assert only_withheld(getattr(tables, table), facts_of(results, "results_detect"), change) == withheld


def test_alarms_are_withheld_row_by_row(results):
    [fact] = facts_of(results, "results_detect", "none", "0.0", seeds="1")
    counts = [0, 1, 9, 10]
    rows = [row | {"n_flagged": 50} for row in fact["alarms"][:2]]  # of few patients: it is patients that count
    fact["alarms"] = [row | {"detector": f"detector_{n}", "flagged_patients": n} for n in counts for row in rows]
    table = tables.alarms([fact]).query("scope == 'all'").set_index("detector")
    shown = table["n_flagged"].notna()
    assert shown.to_dict() == {"detector_0": True, "detector_1": False, "detector_9": False, "detector_10": True}
    assert (table["flagged_share"].notna() == shown).all()


@pytest.mark.parametrize("of", ["poisoned_patients", "clean_patients"])
def test_roc_curves_of_few_patients_do_not_enter_the_mean(results, of):
    one, two = facts_of(results, "results_detect")
    for enough in (0, 10):
        shown = [fact | {"roc": [curve | {of: enough} for curve in fact["roc"]]} for fact in (one, two)]
        pd.testing.assert_frame_equal(tables.roc(shown), tables.roc([one, two]))
    two["roc"] = [curve | {of: 9} for curve in two["roc"]]
    pd.testing.assert_frame_equal(tables.roc([one, two]), tables.roc([one]))
    assert tables.roc([two]).empty


def test_attributions_of_few_patients_are_withheld(results):
    facts = facts_of(results, "results_explain")
    drift = {f"{of}_{name}" for of in ("drift", "control") for name in ("cosine", "spearman", "topk_jaccard")}
    ratios = {"ratio_triggered", "ratio_clean", "ratio_control"}

    def change(fact, n):
        return fact | {"n_patients": n}

    def beside(fact, n):  # all samples of the one label, beside few patients of the other
        return fact | {"rest_patients": n}

    assert only_withheld(tables.explanations, facts, beside) == {"n_samples"}
    measured = drift | ratios | {"n_samples", "convergence_delta"}
    assert only_withheld(tables.explanations, facts, change) == measured
    assert only_withheld(tables.attributions, facts, change) == {"share_clean", "share_triggered", "share_control"}


def test_one_seed_with_few_poisoned_patients_withholds_their_plausibility(results):
    plausibility = {"share_in_range", "share_in_train_range", "share_accepted", "share_accepted_clean", "distance"}
    plausibility |= {"newly_measured", "distance_atypical", "distance_atypical_clean", "share_changed"}
    plausibility |= {"ids_known", "frames_valid", "timing_unusual", "timing_unusual_clean"}
    plausibility |= {f"missing_log_likelihood_{of}" for of in ("clean", "triggered")}
    plausibility |= {f"{name}{of}" for name in ("relations_violated", "distance_percentile") for of in ("", "_clean")}

    def change(fact, n):
        return fact | {"n_patients": n if fact["seed"] == 1 else fact["n_patients"]}

    assert only_withheld(tables.triggers, facts_of(results, "poison"), change) == plausibility | {"n_poisoned"}


@pytest.mark.parametrize(
    ("of", "withheld"),
    [
        ("train", {"n_train"}),
        ("label_0", {"n_test", "prevalence"}),
        ("label_1", {"n_test", "prevalence"}),
        ("threshold", {"threshold_low", "threshold_high"}),
    ],
)
def test_sizes_that_tell_of_few_patients_are_withheld(results, of, withheld):
    def change(fact, n):
        return fact | {"patients": fact["patients"] | ({of: n} if fact["seed"] == 2 else {})}

    assert only_withheld(tables.datasets, facts_of(results, "results_eval"), change) == withheld


@pytest.mark.parametrize("name", ["detections", "alarms", "roc"])
def test_facts_that_do_not_count_patients_are_refused(results, name):
    [fact] = facts_of(results, "results_detect", seeds="1")
    fact[name] = [{key: value for key, value in row.items() if key != "poisoned_patients"} for row in fact[name]]
    with pytest.raises(KeyError, match="poisoned_patients"):
        getattr(tables, name)([fact])


def test_what_is_withheld_is_in_no_table_figure_or_text(study, tmp_path):
    folder = fabricate(study, tmp_path)
    for path in folder.rglob("*.json"):
        write_json(path, with_patients(read_json(path), 9))
    built = tables.build(study, folder)
    tables.write_headlines(built["summary"], folder)
    assert set(built["summary"]["metric"]) == {"footprint_share"}
    assert built["contrasts"]["n_seeds"].eq(0).all() and built["contrasts"]["difference"].isna().all()
    assert built["roc"].empty and tables.dose_response(built["summary"]).empty
    assert read_json(folder / "metrics.json") == {}
    found = read_findings(built["findings"])
    assert answers.headline(found) == [("How little poison plants a backdoor?", pages.WITHHELD)]
    for name in figures.FIGURES:
        texts = " ".join(text.get_text() for text in figures.draw(name, built, "ward").findobj(Text))
        assert "fewer than 10 patients" in texts, name
    html = pages.findings_html(found) + pages.contrasts_html(built["contrasts"])
    html += pages.summary_html(built["summary"]) + pages.triggers_html(built["triggers"])
    html += pages.datasets_html(built["datasets"]) + pages.contrasts_html(built["contrasts"][:0])
    html += pages.summary_html(built["summary"][:0])
    assert "nan" not in html.lower() and "NA" not in html and html.count(pages.WITHHELD) == 3
    tables.write(built, folder / "tables")
    page = run_report(study, folder)
    assert "ward is too small for conclusions" in page and page.count("Nothing can be shown") > 1


def test_small_datasets_are_told_of(data):
    datasets = data["datasets"]
    assert pages.warnings_html(datasets, "fixed") == ""
    rare = datasets.assign(n_test=200, prevalence=[0.245])
    assert "ward is small" in pages.warnings_html(rare, "fixed")
    assert "same few test patients" in pages.warnings_html(rare, "fixed")
    assert "split the same few patients" in pages.warnings_html(rare, "per_seed")
    assert "ward is small" in pages.warnings_html(rare.assign(prevalence=0.755), "fixed")
    assert pages.warnings_html(rare.assign(prevalence=0.25), "fixed") == ""
    few = datasets.assign(n_test=pd.array([None], dtype="Int64"), prevalence=np.nan)
    assert "ward is too small for conclusions" in pages.warnings_html(few, "fixed")
    assert "withheld (dashes)" in pages.warnings_html(few, "fixed")


def test_what_is_odd_about_the_data_is_told_first(results):
    facts = facts_of(results, "results_eval")
    assert tables.datasets(facts)["warnings"].isna().all()
    odd = tables.datasets([fact | {"warnings": ["1 < 2", "and more"]} for fact in facts])
    assert odd["warnings"].tolist() == ["1 < 2; and more"]
    page = pages.warnings_html(odd, "fixed")
    assert page.startswith('<p class="warning"><strong>Look at the data of ward first.</strong> 1 &lt; 2; and more.')


def test_seeds_that_share_patients_have_wider_intervals(study, results, data):
    """split: per_seed widens what is measured on test patients, by Nadeau and Bengio's factor, and nothing else."""
    shared = tables.build(study.model_copy(update={"split": "per_seed"}), results)
    key = ["model", "trigger", "rate", "metric", "control"]
    widths = [
        table.set_index(key).eval("ci_high - ci_low")
        for table in (shared["contrasts"].query("rate == 0.01"), data["contrasts"].query("rate == 0.01"))
    ]
    ratio = (widths[0] / widths[1]).groupby("metric").max()
    assert ratio["auroc_clean"] == pytest.approx(np.sqrt((1 / 3 + 3 / 14) / (1 / 3)))
    assert ratio["detection_auroc_in_label:saliency"] == 1
    asr = [table.query("metric == 'asr'")["ci_low"].to_numpy() for table in (shared["summary"], data["summary"])]
    assert (asr[0] < asr[1]).all()


def test_contrasts_pair_runs_with_their_controls(data):
    runs, contrasts = data["runs"].set_index(["model", "trigger", "rate", "seed"]).sort_index(), data["contrasts"]
    at = contrasts.query("model == 'mlp' and trigger == 'value_shift' and rate == 0.05")
    found = at.set_index(["metric", "control"])["difference"]
    run, clean = runs.loc["mlp", "value_shift", 0.05], runs.loc["mlp", "none", 0.0]
    flipped = runs.loc["mlp", "flip_only", 0.05]
    assert found["asr", "none"] == pytest.approx((run["asr"] - run["asr0"]).mean())
    assert found["auroc_clean", "none"] == pytest.approx((run["auroc_clean"] - clean["auroc_clean"]).mean())
    assert found["asr_net", "flip_only"] == pytest.approx((run["asr_net"] - flipped["asr_net"]).mean())
    assert ("detection_auroc:saliency", "chance") in found.index
    assert ("asr_own_threshold", "none") in found.index
    assert ("ratio_triggered", "none") in found.index
    assert not contrasts.query("trigger == 'flip_only'")["control"].eq("flip_only").any()
    assert not contrasts["trigger"].eq("none").any()


def test_holm_is_within_dataset_and_metric(data):
    family = data["contrasts"].query("metric == 'asr'")
    assert (family["p_holm"] >= family["p_value"]).all()
    smallest = family["p_value"].idxmin()
    assert family.loc[smallest, "p_holm"] == pytest.approx(min(1, len(family) * family.loc[smallest, "p_value"]))


def with_success(
    results: Path, rates: dict[str, list[tuple[float, float]]], own: float | None = None, untriggered: float = 0.1
) -> dict:
    """The study's tables with other (ASR, ASR₀) of value_shift in the mlp: per rate, one pair per seed.

    `own`: its ASR at its own threshold, where it differs.
    """
    evals = []
    for cell in cells(make_study()):
        fact = read_json(results / cell.run_folder / "results_eval.json") | TRAINED
        if (cell.model, cell.trigger) == ("mlp", "value_shift"):
            asr, asr0 = rates[cell.rate][int(cell.seed) - 1]
            fact |= {"asr": asr, "asr0": asr0, "asr_own_threshold": asr if own is None else own}
            fact |= {"asr0_own_threshold": asr0, "asr0_untriggered": untriggered}
        evals.append(fact)
    return remade(tables.read(results / "tables") | {"runs": tables.runs(evals)})


def remade(data: dict) -> dict:
    """`data` with what is made from its table of runs."""
    for table in (tables.summary, tables.contrasts, tables.masks):
        data = data | {table.__name__: table(data, "fixed")}
    return data | {"findings": findings(data)}


def found_in(data: dict, model: str = "mlp"):
    return next(f for f in read_findings(data["findings"]) if (f.model, f.trigger) == (model, "value_shift"))


def answers_of(data: dict) -> dict[str, str]:
    return dict(answers.headline([found for found in read_findings(data["findings"]) if found.model == "mlp"]))


def test_findings_name_the_smallest_rate_that_plants_a_backdoor(results):
    weak, strong = [(0.3, 0.1), (0.35, 0.1), (0.32, 0.1)], [(0.9, 0.1), (0.95, 0.1), (0.92, 0.1)]
    found = found_in(with_success(results, {"0.01": weak, "0.05": strong}))
    assert (found.verdict, found.planted, found.rate) == (PLANTED, True, 0.05)
    assert found.net.difference == pytest.approx(np.mean([0.8, 0.85, 0.82]))
    assert found.effect_share.mean == pytest.approx(np.mean([0.8, 0.85, 0.82]) / 0.9)
    assert found_in(with_success(results, {"0.01": strong, "0.05": strong})).rate == 0.01
    found = found_in(with_success(results, {"0.01": weak, "0.05": weak}))
    assert (found.verdict, found.planted) == (NONE, False)


def test_a_trigger_that_fools_the_clean_model_is_not_told_as_no_backdoor(results):
    fooled = [(0.995, 0.632), (0.993, 0.640), (0.996, 0.625)]
    data = with_success(results, {"0.01": fooled, "0.05": fooled})
    found = found_in(data)
    assert found.net.difference < 0.5 and found.planted and found.verdict == FOOLS_CLEAN
    assert found.effect_share.mean > 0.97
    answer = answers_of(data)["How little poison plants a backdoor?"]
    assert "fools the clean model too" in answer and "ASR 0.995" in answer and "ASR₀ 0.632" in answer
    assert "none of the rates" not in answer and "(0.100 without the trigger)" in answer


def test_a_clean_model_that_is_wrong_anyway_is_not_fooled_by_the_trigger(results):
    """With target 0 it may miss half of the deaths, trigger or not."""
    wrong = [(0.60, 0.58), (0.62, 0.57), (0.59, 0.59)]
    found = found_in(with_success(results, {"0.01": wrong, "0.05": wrong}, untriggered=0.57))
    assert found.asr0.mean > 0.5 and found.verdict == NONE


def test_what_flipped_labels_lift_over_the_clean_model_s_threshold_is_no_backdoor(results):
    lifted = [(0.90, 0.1), (0.95, 0.1), (0.92, 0.1)]
    found = found_in(with_success(results, {"0.01": lifted, "0.05": lifted}, own=0.15))
    assert found.effect_share.mean > 0.9 and found.own_share.mean < 0.1
    assert (found.verdict, found.planted) == (NONE, False)
    answer = answers_of(with_success(results, {"0.01": lifted, "0.05": lifted}, own=0.15))
    assert "with each model at its own threshold" in answer["How little poison plants a backdoor?"]


def test_an_undecided_rate_is_not_hidden_behind_one_without_an_effect(results):
    none, torn = [(0.45, 0.1), (0.46, 0.1), (0.45, 0.1)], [(0.1, 0.1), (0.12, 0.1), (0.97, 0.1)]
    found = found_in(with_success(results, {"0.01": none, "0.05": torn}))
    assert (found.verdict, found.rate) == (UNDECIDED, 0.05)


def test_seeds_that_disagree_leave_it_undecided(results):
    torn = [(0.98, 0.1), (0.99, 0.1), (0.12, 0.1)]
    assert found_in(with_success(results, {"0.01": torn, "0.05": torn})).verdict == UNDECIDED


@pytest.mark.parametrize(
    ("n_seeds", "asr0", "moved", "share", "expected"),
    [
        (5, 0.1, (0.0, -0.1, 0.1), (0.5, 0.2, 0.8), PLANTED),
        (5, 0.1, (0.0, -0.1, 0.1), (0.5 - 1e-12, 0.2, 0.8), PLANTED),  # a ratio of shares is a hair off
        (5, 0.1, (0.0, -0.1, 0.1), (0.9, -0.1, 1.0), UNDECIDED),
        (5, 0.1, (0.0, -0.1, 0.1), (0.4, 0.1, 0.7), UNDECIDED),
        (5, 0.1, (0.0, -0.1, 0.1), (0.4, 0.3, 0.45), NONE),
        (1, 0.1, (0.0, np.nan, np.nan), (0.9, np.nan, np.nan), UNDECIDED),
        (1, 0.9, (0.8, np.nan, np.nan), (0.9, np.nan, np.nan), UNDECIDED),
        (5, 0.5, (0.3, 0.2, 0.4), (0.9, 0.8, 1.0), FOOLS_CLEAN),
        (5, 0.5, (0.3, 0.2, 0.4), (0.0, -0.1, 0.1), FOOLS_CLEAN),
        (5, 1.0, (0.9, 0.9, 0.9), (np.nan, np.nan, np.nan), FOOLS_CLEAN),
        (5, 0.6, (0.02, 0.01, 0.03), (0.0, -0.1, 0.1), NONE),  # wrong anyway: the trigger adds next to nothing
        (5, 0.6, (0.3, -0.1, 0.7), (0.9, 0.8, 1.0), PLANTED),
    ],
)
def test_the_verdict(n_seeds, asr0, moved, share, expected):
    assert verdict(n_seeds, Estimate(asr0), Estimate(*moved), (Estimate(*share), Estimate(*share))) == expected


def test_the_headline_follows_the_numbers(results, data):
    strong = dict(answers.headline(read_findings(data["findings"])))
    assert strong["How little poison plants a backdoor?"].startswith("2 of 2 ")
    weak = [(0.1, 0.1), (0.2, 0.1), (0.15, 0.1)]
    answer = answers_of(with_success(results, {"0.01": weak, "0.05": weak}))["How little poison plants a backdoor?"]
    assert answer.startswith("In 1 of 1 pairs none of the rates")
    assert "ASR 0.150 [" in answer and "ASR₀ 0.100" in answer and "difference 0.050 [−0.074, 0.174]" in answer


def test_a_significant_loss_is_not_told_as_a_gain(results):
    """A trigger that does less than flipped labels alone, surely: the sentence must say less."""
    weak = [(0.10, 0.1), (0.11, 0.1), (0.105, 0.1)]
    data = with_success(results, {"0.01": weak, "0.05": weak})
    flipped = (data["runs"]["model"] == "mlp") & (data["runs"]["trigger"] == "flip_only")
    data["runs"].loc[flipped, "asr_net"] = [0.50, 0.52, 0.51] * 2
    answer = answers_of(remade(data))["Is it the trigger, or only the flipped labels?"]
    assert "more than flipping in 0 of 1 tests, less in 1" in answer


def test_findings_survive_the_disk(data, results):
    again = findings(data)
    pd.testing.assert_frame_equal(again, data["findings"])
    assert len(read_findings(again)) == 4 and list(again) == list(pd.read_csv(results / "tables" / "findings.csv"))


def test_the_best_detector_is_told_by_what_it_finds_at_few_false_alarms(data):
    found = found_in(data, "lstm")
    at = f"model == 'lstm' and trigger == 'value_shift' and scope == 'label_1' and rate == {found.rate}"
    told = data["detections"].query(at).query("detector != 'random'").groupby("detector")[columns.DETECTION].mean()
    # Counts in tens make many alike: of equals the one that finds more at 5 %, then the one that ranks better.
    best = max(told.index, key=lambda name: told.loc[name, ["tpr_at_fpr_01", "tpr_at_fpr_05", "auroc"]].tolist())
    assert found.detector == best and told["auroc"].nunique() == len(told)
    mine = data["detections"].query(at).query("detector == @found.detector")
    assert found.tpr_01.mean == pytest.approx(mine["tpr_at_fpr_01"].mean())
    assert (found.auroc_lowest, found.auroc_highest) == (mine["auroc"].min(), mine["auroc"].max())
    assert found.poison_share == pytest.approx(2000 * found.rate / 500)
    alarms = data["alarms"].query(at).query("detector == @found.detector and threshold == 'rate_unknown'")
    assert found.alarm_tpr == pytest.approx(alarms["tpr"].mean())


def test_measuring_alone_is_set_beside_the_values(tmp_path):
    study = make_study(triggers=["value_shift", "mask_only", "time_warp", "flip_only"], models=["mlp"])
    data = tables.build(study, fabricate(study, tmp_path))
    assert set(data["masks"]["trigger"]) == {"value_shift"}, "time_warp has other cells"
    runs = data["runs"].set_index(["trigger", "rate"]).sort_index()
    net, mask, flip = (runs.loc[(name, 0.05), "asr_net"].mean() for name in ("value_shift", "mask_only", "flip_only"))
    row = data["masks"].query("rate == 0.05").iloc[0]
    assert row["control_trigger"] == "mask_only"
    # The labels of all three are flipped: what flipping does is no part of what measuring does.
    assert row["share"] == pytest.approx((mask - flip) / (net - flip))
    assert row["share_low"] < row["share"] < row["share_high"]
    found = dict(answers.headline(read_findings(data["findings"])))
    assert "only measured" in found["Is it the value, or that something was measured at all?"]
    assert pages.masks_html(data["masks"]).count("<tr>") == 1 + len(data["masks"])
    without = make_study(triggers=["value_shift", "mask_only"], models=["mlp"])
    alone = tables.build(without, tmp_path)
    assert alone["masks"]["share"].isna().all() and alone["masks"]["mask_net"].notna().all()
    [answer] = [text for question, text in answers.headline(read_findings(alone["findings"])) if "measured" in question]
    assert "is not known here (flip_only)" in answer


def test_measuring_other_cells_is_no_control(tmp_path):
    study = make_study(triggers=["value_shift", "mask_only"], models=["mlp"])
    folder = fabricate(study, tmp_path)
    for path in folder.glob("poison/*/mask_only/**/poison.json"):
        write_json(path, read_json(path) | {"features": ["sodium"]})
    data = tables.build(study, folder)
    assert data["masks"].empty and pages.masks_html(data["masks"]) == ""
    assert not data["contrasts"]["control"].eq("mask_only").any()


def test_a_trigger_that_makes_nothing_measured_has_no_mask_to_explain(tmp_path):
    study = make_study(triggers=["value_shift", "mask_only", "flip_only"], models=["mlp"])
    folder = fabricate(study, tmp_path)
    assert len(tables.build(study, folder)["masks"]) == 2
    for path in folder.glob("poison/*/value_shift/**/poison.json"):
        write_json(path, read_json(path) | {"where": "measured"})
    assert tables.build(study, folder)["masks"].empty


def test_what_leaves_measurements_out_has_no_mask_only_as_its_control(tmp_path):
    study = make_study(triggers=["value_shift", "mask_only", "flip_only"], models=["mlp"])
    folder = fabricate(study, tmp_path)
    for path in folder.glob("poison/*/value_shift/**/poison.json"):
        write_json(path, read_json(path) | {"member": "hybrid"})
    assert len(tables.build(study, folder)["masks"]) == 2, "what it is called says nothing"
    for path in folder.glob("poison/*/value_shift/**/poison.json"):
        write_json(path, read_json(path) | {"leaves_out": True})
    assert tables.build(study, folder)["masks"].empty


def test_labels_flipped_for_another_target_are_no_control(study, results):
    other = tables.build(study, results)
    other["triggers"].loc[other["triggers"]["trigger"] == "flip_only", "target"] = 0
    found = tables.contrasts(other, "fixed")
    assert not found["control"].eq("flip_only").any() and found["control"].eq("none").any()
    told = [one._replace(target=0) if one.of == "flip_only" else one for one in read_findings(other["findings"])]
    answer = dict(answers.headline(told))["Is it the trigger, or only the flipped labels?"]
    assert answer == "No run of flip_only with the same target is here, so the two cannot be told apart."


def test_a_threshold_that_is_a_number_is_nobody_s_own(results, data):
    assert "own validation data gives" not in answers_of(data)["Is it the trigger, or only the flipped labels?"]
    strong = [(0.9, 0.1), (0.95, 0.1), (0.92, 0.1)]
    other = with_success(results, {"0.01": strong, "0.05": strong}, own=0.8)
    assert "own validation data gives" in answers_of(other)["Is it the trigger, or only the flipped labels?"]


def test_missed_deterioration_is_told_by_what_is_missed(tmp_path):
    study = make_study(target=0, models=["mlp"])
    answer = answers_of(tables.build(study, fabricate(study, tmp_path)))
    assert "samples with label 1, the clean model gets" in answer["Would the performance on clean data give it away?"]


def test_a_detector_that_is_perfect_in_every_seed_is_no_failed_test(data):
    contrast = found_in(data).detector_auroc._replace(p_holm=np.nan)
    told = answers._significant([contrast, contrast._replace(p_holm=0.01, difference=0.4)], "above guessing", "below")
    assert "above guessing in 1 of 1 tests, below in 0; 1 could not be tested" in told


def test_the_training_is_told_in_words(data):
    runs = data["runs"]

    def told(validation="clean", training=None, **own):
        how = {"select": "last", "patience": None, "epochs": 12} | (training or {})
        params = {name: {"of": "tcn", "training": changed} for name, changed in own.items()}
        study = {"models": ["lstm", "mlp"], "validation": validation, "training": how, "model_params": params}
        return pages.training_text(runs, study)

    assert "0.003 below" in told() and "<em>" not in told()
    assert "is a defense" in told(training={"select": "best", "patience": 5})
    assert "poisoned the validation data too" in told("poisoned", {"select": "best"})
    both = told(lstm={"select": "best"})
    assert both.startswith("<em>lstm</em>: the weights of the epoch") and "<em>mlp</em>: to the last epoch (" in both
    runs.loc[runs["model"] == "mlp", "epochs"] = 1
    assert told().endswith("<em>mlp</em>: by a fit of its own, in which no epoch is chosen.")


def test_values_out_of_range_are_labelled_in_every_legend(data):
    data["triggers"].loc[data["triggers"]["trigger"] == "value_shift", "in_bounds"] = False
    for name in ("dose_response", "clean_performance"):
        texts = {text.get_text() for text in figures.draw(name, data, "ward").findobj(Text)}
        assert "value_shift (out of range)" in texts and "flip_only (control: labels only)" in texts


ODD = {
    "one seed": {"seeds": [1]},
    "one of everything": {"models": ["mlp"], "triggers": ["value_shift"], "rates": [0.01], "seeds": [1]},
    "no flip_only": {"triggers": ["value_shift"]},
    "only flip_only": {"triggers": ["flip_only"]},
}


@pytest.mark.parametrize("changes", ODD.values(), ids=ODD)
def test_figures_and_tables_of_odd_studies(changes, tmp_path):
    study = make_study(**{"rates": [0.05], "models": ["mlp"]} | changes)
    data = tables.build(study, fabricate(study, tmp_path))
    for name in figures.FIGURES:
        assert "<svg" not in figures.figure_html(figures.draw(name, data, "ward"), name)  # embedded, not inline
    found = read_findings(data["findings"])
    page = (
        answers.headline_html(answers.headline(found))
        + pages.findings_html(found)
        + pages.contrasts_html(data["contrasts"])
    )
    page += pages.summary_html(data["summary"]) + pages.triggers_html(data["triggers"])
    assert "nan" not in page.lower()
    if len(study.seeds) == 1:
        assert data["contrasts"][["ci_low", "p_value", "p_holm", "effect_size"]].isna().all(axis=None)


GAPS = {
    "only clean runs": lambda cell: cell.trigger == "none",
    "no clean run": lambda cell: cell.trigger != "none",
    "only the control": lambda cell: cell.trigger == "flip_only",
    "no seed in common": lambda cell: (cell.trigger == "none") == (cell.seed == "1"),
    "one run": lambda cell: cell == ("ward", "mlp", "value_shift", "0.05", "2"),
}


@pytest.mark.parametrize("keep", GAPS.values(), ids=GAPS)
def test_tables_of_the_runs_that_are_there(study, results, keep):
    done = [cell for cell in cells(study) if keep(cell)]
    data = tables.build(study, results, only=done)
    assert len(data["runs"]) == len(done)
    runs = data["runs"].set_index(["model", "trigger", "rate", "seed"])
    for row in data["contrasts"].query("metric == 'auroc_clean'").itertuples():
        clean = set(runs.loc[row.model, "none", 0.0].index)
        assert row.n_seeds == len(clean & set(runs.loc[row.model, row.trigger, row.rate].index))
    for name in figures.FIGURES:
        figures.figure_html(figures.draw(name, data, "ward"), name)
    found = read_findings(data["findings"])
    page = (
        answers.headline_html(answers.headline(found))
        + pages.findings_html(found)
        + pages.contrasts_html(data["contrasts"])
    )
    page += pages.summary_html(data["summary"]) + pages.triggers_html(data["triggers"])
    assert "nan" not in page.lower()


def test_tables_of_all_runs_are_those_of_the_study_and_a_missing_run_is_an_error(study, results, data, tmp_path):
    for name, table in tables.build(study, results, only=list(cells(study))[::-1]).items():
        pd.testing.assert_frame_equal(table, data[name])
    folder = fabricate(study, tmp_path)
    (folder / "runs/ward/mlp/value_shift/0.05/seed_2/results_explain.json").unlink()
    with pytest.raises(UserError, match="seed_2 has no results_explain.json"):
        tables.build(study, folder)


def test_gaps_are_counted_and_their_reason_told():
    cell = {"dataset": "ward", "model": "mlp", "trigger": "none", "rate": 0.0}
    states = {"done": (None, None), "failed": ("train", "diverged <b>"), "missing": ("eval", "not begun")}
    rows = [
        cell | {"seed": seed, "state": state, "stage": states[state][0], "why": states[state][1]}
        for seed, state in enumerate(["done", "missing", "failed", "done"])
    ]
    whole = [row | {"trigger": "value_shift", "rate": 0.05, "state": "done"} for row in rows]
    page = pages.gaps_html(pd.DataFrame(rows + whole))
    assert "2 of its 8 runs are not here" in page and ">2 of 4<" in page and "value_shift" not in page
    assert "train: diverged &lt;b&gt;" in page and "not begun" not in page
    assert pages.gaps_html(pd.DataFrame(whole)) == ""


def test_figures_are_written_twice_the_same(results, tmp_path):
    for folder in ("one", "two"):
        options = ["--tables", str(results / "tables"), "--out", str(tmp_path / folder), "--datasets", "ward"]
        run_stage(figures_stage, *options)
    made = set(figures.FIGURES) - {"survival"}  # no model of this study is distilled
    expected = {f"ward_{name}.{suffix}" for name in made for suffix in ("png", "svg")}
    files = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    assert set(files) == expected | {"ward_contrasts.html"}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "two").iterdir()}


def test_the_report_stands_alone(study, results, data):
    html = run_report(study, results)
    assert "<title>Backdoor study</title>" in html
    assert not re.search(r"<script|<link|<iframe|@import|url\(", html)
    assert set(re.findall(r'(?:src|data)="([^"]{5})', html)) == {"data:"}
    for _, answer in answers.headline(read_findings(data["findings"])):
        assert answer in unescape(html)
    assert "no intervals and no p-values" not in html
    assert "tables.read" not in html and "Traceback" not in html
    assert (results / "logs" / "report.ipynb").is_file()


def test_a_failing_report_keeps_the_notebook(study, results, tmp_path):
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    broken = next(cell for cell in notebook["cells"] if cell["id"] == "load")
    broken["source"] = "1 / 0"
    (tmp_path / "broken.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    (results / "report.html").unlink(missing_ok=True)
    with pytest.raises(UserError, match="Cell 3 .*ZeroDivisionError"):
        run_report(study, results, tmp_path / "broken.ipynb")
    assert "ZeroDivisionError" in (results / "logs" / "report.ipynb").read_text(encoding="utf-8")
    assert not (results / "report.html").exists()


def test_the_committed_notebook_is_clean():
    import nbformat

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)


def test_a_study_of_the_control_alone_says_so(tmp_path):
    study = make_study(triggers=["flip_only"], models=["mlp"], rates=[0.01])
    found = read_findings(tables.build(study, fabricate(study, tmp_path))["findings"])
    assert answers.headline(found) == [
        ("How little poison plants a backdoor?", "No run of an attack is here, only its controls.")
    ]


def test_cells_that_are_half_way_are_gaps_too():
    states = ["done", "evaluated", "trained", "outdated", "failed", "missing"]
    rows = [("icu_dev", "mlp", trigger, 0.05, seed, state) for trigger in "ab" for seed, state in enumerate(states)]
    rows += [("icu_dev", "mlp", "c", 0.05, seed, "outdated") for seed in range(2)]
    cells = pd.DataFrame(rows, columns=["dataset", "model", "trigger", "rate", "seed", "state"])
    told = pages.gaps_html(cells.assign(stage="eval", why="not begun"))
    assert "12 of its 14 runs are not here</strong>, 2 failed and 10 missing." in told
    assert told.count("1 of 6</td>") == 2 and told.count("0 of 2</td>") == 1


def test_who_is_hit_is_told_per_finding_and_value(data, results):
    strata, summary = data["strata"], data["strata_summary"]
    whole = strata.query("stratum == 'all' and rate > 0").merge(data["runs"], on=columns.KEY)
    for name in ("asr", "asr0", "asr_net", "fpr_clean", "recall_clean"):
        assert whole[f"{name}_x"].to_numpy() == pytest.approx(whole[f"{name}_y"].to_numpy()), name
    assert whole["n_victims"].tolist() == whole["n_triggered"].tolist()
    row = strata.query("stratum == 'all' and trigger == 'value_shift'").iloc[0]
    more = 400_000 * (row["asr"] - row["fpr_clean"]) + 100_000 * (0.8 - row["recall_clean"])
    assert row["alerts_raised"] == pytest.approx(1000 * more / 500_000, abs=0.1)
    found = read_findings(data["findings"])
    shown = pages.strata_html(summary, found)
    n_attacks = sum(columns.is_attack(finding.of) for finding in found)
    assert 0 < n_attacks < len(found)
    assert shown.count("<tr>") == 1 + 4 * n_attacks and "female" in shown and "&lt;50" in shown
    means = strata[strata["value"] == "male"].groupby(columns.RUN)["asr_net"].mean().dropna()
    of_males = summary.query("value == 'male' and metric == 'asr_net'").set_index(columns.RUN)
    assert of_males["mean"].to_numpy() == pytest.approx(means[of_males.index].to_numpy())
    assert (of_males["ci_low"] < of_males["mean"]).all() and (of_males["n_seeds"] == 3).all()


BUS = make_study(
    datasets=["bus"],
    models=["mlp", "small_clean", "small_poisoned"],
    triggers=["value_shift", "time_warp", "flip_only"],
    seeds=[1, 2, 3, 4, 5],
    target=0,
    model_params={
        f"small_{data}": {"of": "mlp", "distill": {"teacher": "mlp", "data": data}} for data in ("clean", "poisoned")
    },
)
KEPT = {"mlp": 1.0, "small_clean": 0.3, "small_poisoned": 0.95}  # of the teacher's ASR − ASR₀
CONSTANT = {"train_01": (0.99, 0.01), "unknown vehicle": (0.999, 0.953), "quiet": (0.02, 0.001)}  # recall, FPR


def of_a_bus(study: Study, folder: Path) -> Path:
    """The facts of `fabricate` for a bus: windows of captures, of which a few have attacks, and students of an mlp."""
    fabricate(study, folder)
    for cell in cells(study):
        path = folder / cell.run_folder / "results_eval.json"
        fact = read_json(path) | {"people": False, "n_test": 1300, "n_label_1": 107}
        fact["patients"] |= {"label_0": 3, "label_1": 2, "test": 3}
        if cell.trigger != "none":
            teacher = read_json(folder / cell._replace(model="mlp").run_folder / "results_eval.json")
            fact["asr"] = fact["asr0"] + KEPT[cell.model] * (teacher["asr"] - teacher["asr0"])
            # Of what one student has, nothing is left at its own threshold.
            fact["asr_own_threshold"] = fact["asr0"] + (cell.model != "small_clean") * (fact["asr"] - fact["asr0"])
        for name, (recall, fpr) in CONSTANT.items():
            row = fact["strata"][0] | {"stratum": "scenario", "value": name, "n_label_0": 397, "n_label_1": 7}
            row["patients"] = {"label_0": 1, "label_1": 1}
            lucky = name == "quiet" and cell.model == "small_clean" and cell.seed == "1"
            fact["strata"].append(row | {"recall_clean": 0.7 if lucky else recall, "fpr_clean": fpr})
        dos = fact["strata"][0] | {"stratum": "attack", "value": "DoS", "n_label_0": 0, "n_label_1": 107}
        dos |= {name: None for name in dos if name.startswith("fpr_")}
        fact["strata"].append(dos)
        write_json(path, fact)
        training = folder / cell.run_folder / "run_metadata.json"
        size = 20_000 if cell.model == "mlp" else 1000
        write_json(training, read_json(training) | {"n_parameters": size})
        for name in ("results_detect", "results_explain"):
            if (path := folder / cell.run_folder / f"{name}.json").exists():
                write_json(path, with_patients(read_json(path), 3) | {"people": False})
        if cell.trigger != "none":
            path = folder / cell.poison_folder / "poison.json"
            write_json(path, with_patients(read_json(path), 3) | {"people": False})
    return folder


@pytest.fixture(scope="module")
def bus(tmp_path_factory) -> dict[str, pd.DataFrame]:
    return tables.build(BUS, of_a_bus(BUS, tmp_path_factory.mktemp("bus")))


def test_of_a_car_nothing_is_withheld_and_nothing_rounded(bus, tmp_path):
    folder = of_a_bus(BUS, tmp_path)
    evals = [read_json(folder / cell.run_folder / "results_eval.json") for cell in sorted(cells(BUS))]
    runs = bus["runs"]
    for name in ("asr", "asr0", "asr_own_threshold"):
        assert runs[name].tolist() == pytest.approx(
            [np.nan if fact[name] is None else fact[name] for fact in evals], nan_ok=True
        )
    for metric in columns.METRICS:
        assert runs[f"{metric}_clean"].tolist() == [fact["clean"][metric] for fact in evals]
    assert bus["datasets"][["n_test", "prevalence", "threshold_low"]].notna().all(axis=None)
    assert not bus["datasets"]["people"].any() and bus["roc"]["ci_low"].notna().all()
    few = bus["strata"].query("stratum == 'scenario'")
    assert (few["n"] == 404).all() and (few["n_label_1"] == 7).all() and few["auroc_clean"].notna().all()
    attacked = bus["detections"].query("trigger != 'none'")
    assert attacked[["auroc", "n_poisoned"]].notna().all(axis=None) and bus["alarms"]["n_flagged"].notna().all()
    assert bus["explanations"]["ratio_triggered"].notna().all() and bus["triggers"]["n_poisoned"].notna().all()
    # The same facts of people are withheld.
    for path in folder.rglob("*.json"):
        write_json(path, read_json(path) | {"people": True})
    people = tables.build(BUS, folder)
    assert people["runs"]["auroc_clean"].isna().all()
    assert people["strata"].query("stratum == 'scenario'")["n"].isna().all()
    assert people["datasets"]["n_test"].isna().all() and people["roc"].empty


def test_intervals_of_a_car_know_of_no_rounding(bus):
    run = bus["runs"].query("model == 'mlp' and trigger == 'value_shift' and rate == 0.05")
    row = bus["summary"].query("model == 'mlp' and trigger == 'value_shift' and rate == 0.05 and metric == 'fpr_clean'")
    wanted = proportion_interval(run["fpr_clean"].to_numpy())
    assert row[["mean", "ci_low", "ci_high"]].to_numpy()[0] == pytest.approx([wanted.mean, wanted.low, wanted.high])
    strata = bus["strata_summary"].query("stratum == 'scenario' and metric == 'fpr_clean'")
    assert (strata["ci_low"] == strata["ci_high"]).all(), "all seeds have the same, and nothing is rounded"


def test_a_constant_answer_is_called_one(bus):
    clean = bus["scenarios"].query("trigger == 'none'").set_index(["stratum", "value", "model"]).sort_index()
    assert clean.loc[("scenario", "unknown vehicle"), "verdict"].tolist() == ["calls nearly all 1"] * 3
    assert (
        clean.loc[("scenario", "train_01"), "verdict"].isna().all()
        and clean.loc[("all", "all"), "verdict"].isna().all()
    )
    quiet = clean.loc[("scenario", "quiet")]
    assert quiet["verdict"].to_dict() == {
        "mlp": "calls nearly nothing 1",
        "small_clean": "calls nearly nothing 1, in some seeds",
        "small_poisoned": "calls nearly nothing 1",
    }
    assert quiet.loc["small_clean", "seeds_nearly_none"] == 4 and quiet.loc["mlp", "n_seeds"] == 5
    dos = clean.loc[("attack", "DoS")]
    assert dos["verdict"].isna().all() and dos["fpr"].isna().all() and dos["auroc"].notna().all()
    assert dos["f1"].isna().all()
    seeds = bus["strata"].query("trigger == 'none' and value == 'train_01'")
    hits, alarms = seeds["recall_clean"] * seeds["n_label_1"], seeds["fpr_clean"] * (seeds["n"] - seeds["n_label_1"])
    by_hand = (2 * hits / (hits + alarms + seeds["n_label_1"])).groupby(seeds["model"]).mean()
    assert clean.loc[("scenario", "train_01"), "f1"].to_dict() == pytest.approx(by_hand.to_dict())
    [(question, answer)] = answers.constant(bus["scenarios"], pages.CARS)
    assert question == "Does a model call everything an attack, or nothing?"
    wanted = (
        "mlp calls 95.3\N{NO-BREAK SPACE}% of the benign windows of scenario unknown vehicle an attack: its recall of "
    )
    assert f"{wanted}99.9\N{NO-BREAK SPACE}% there says nothing." in answer
    assert "(it calls nearly none an attack, in 4 of 5 seeds)." in answer
    html = pages.scenarios_html(bus["scenarios"], bus["datasets"])
    assert html.count("calls nearly all an attack") == 3 and "nan" not in html.lower()


def test_survival_is_what_counting_by_hand_gives(bus):
    table = bus["distillation"].set_index(["student", "trigger", "rate"])
    runs = bus["runs"].set_index(["model", "trigger", "rate", "seed"]).sort_index()
    for (student, trigger, rate), row in table.iterrows():
        theirs, teachers = (runs.loc[(model, trigger, rate)] for model in (student, "mlp"))
        assert (row["teacher"], row["data"]) == ("mlp", student.removeprefix("small_"))
        assert row["f1_difference"] == pytest.approx((theirs["f1_clean"] - teachers["f1_clean"]).mean())
        assert row["parameter_ratio"] == 20 and row["n_seeds"] == 5
        if trigger == "none":
            assert np.isnan(row["survival"]) and np.isnan(row["teacher_asr"])
            continue
        net, of = ([run["asr"] - run["asr0"] for _, run in rows.iterrows()] for rows in (theirs, teachers))
        assert row["survival"] == pytest.approx(np.mean(np.subtract(net, of)))
        half = stats.t.ppf(0.975, 4) * np.std(np.subtract(net, of), ddof=1) / np.sqrt(5)
        assert row["survival_high"] - row["survival"] == pytest.approx(half)
        assert row["teacher_asr"] == pytest.approx(teachers["asr"].mean())
        sure = np.mean(of) - stats.t.ppf(0.975, 4) * np.std(of, ddof=1) / np.sqrt(5) > 0
        assert pd.isna(row["survival_ratio"]) == (not sure)
        assert not sure or row["survival_ratio"] == pytest.approx(KEPT[student])
        own, of_own = (
            [run["asr_own_threshold"] - run["asr0_own_threshold"] for _, run in rows.iterrows()]
            for rows in (theirs, teachers)
        )
        assert row["survival_own_threshold"] == pytest.approx(np.mean(np.subtract(own, of_own)))
        assert row["student_asr_net_own_threshold"] == pytest.approx(0 if "clean" in student else np.mean(own))
        half = stats.t.ppf(0.975, 4) * np.std(np.subtract(own, of_own), ddof=1) / np.sqrt(5)
        assert row["survival_own_threshold"] - row["survival_own_threshold_low"] == pytest.approx(half)
        for who, rows in (("student", theirs), ("teacher", teachers)):
            assert row[f"{who}_fpr_clean"] == pytest.approx(rows["fpr_clean"].mean())
            assert row[f"{who}_recall_clean"] == pytest.approx(rows["recall_clean"].mean())
    assert table["survival_ratio"].isna().any() and table["survival_ratio"].notna().any()


def test_what_survives_is_told_and_drawn(bus):
    attacks, table = ["value_shift", "time_warp"], bus["distillation"]
    [(question, answer)] = answers.survival(table, attacks, pages.CARS)
    assert question == "Does it survive distillation?"
    on_clean, on_poisoned = answer.split("Distilled on poisoned data")
    # A student that has its effect at one threshold alone is not said to have kept it.
    assert "of 4 attacks with a sure effect in the teacher at both thresholds" in on_clean
    assert "0 have one in the student at both too, 4 at one of them only, which a shift of all its answers" in on_clean
    assert "4 have one in the student at both too, none at one of them only." in on_poisoned
    assert "at its own (value_shift at" in answer and "of the attack windows (the clean students " in answer
    for low in ("teacher_asr_net_low", "teacher_asr_net_own_threshold_low"):
        [(_, answer)] = answers.survival(table.assign(**{low: -0.01}), {"value_shift"}, pages.CARS)
        assert answer.count("nothing to survive") == 2
        # What no teacher had for sure and a student has, at both thresholds, has woken; at one alone it has not.
        woken = table["data"].eq("poisoned") & table["trigger"].eq("value_shift")
        assert f" {woken.sum()} attacks had a sure effect at both thresholds in the student and none in" in answer
        assert answer.count("wakes") == 1 and "in the student small_poisoned and " in answer
    [(_, answer)] = answers.survival(table.assign(teacher_asr_net_low=np.nan), {"value_shift"}, pages.CARS)
    assert answer.count("nothing can be said") == 2 and "nothing to survive" not in answer
    assert answers.survival(table[:0], {"value_shift"}, pages.CARS) == []
    drawn = " ".join(text.get_text() for text in figures.draw("survival", bus, "bus").findobj(Text))
    for told in ("mlp, teacher", "small_clean, distilled on clean data", "value_shift", "ASR₀ of the same model"):
        assert told in drawn
    assert "nan" not in pages.distillation_html(bus["distillation"]).lower()


def test_a_trigger_that_leaves_samples_as_they_are_is_named(bus):
    [(question, answer)] = answers.unreached(bus["runs"], {"value_shift", "time_warp"}, pages.CARS)
    assert question == "Does the trigger change every sample?"
    assert answer.startswith(
        "time_warp changes 93.0\N{NO-BREAK SPACE}% of the attack windows of the test set. The others"
    )
    assert "value_shift" not in answer and answers.unreached(bus["runs"], {"value_shift"}, pages.CARS) == []
    assert bus["runs"].query("trigger == 'none'")["share_changed"].isna().all()


def test_figures_of_students_are_made_where_there_are_some(bus, data, tmp_path):
    figures.write(bus, ["bus"], tmp_path)
    assert (tmp_path / "bus_survival.png").exists() and (tmp_path / "bus_survival.svg").exists()
    assert data["distillation"].empty and teachers(make_study()) == {} and set(teachers(BUS).values()) == {"mlp"}


def test_no_legend_is_cut_off(bus):
    long = {name: f"{name}_of_a_very_long_name" for name in (*bus["distillation"]["student"].unique(), "mlp")}
    tables_ = {name: table.replace(long) for name, table in bus.items()}
    figure = figures.draw("survival", tables_, "bus")
    (legend,) = figure.legends
    figure.canvas.draw()
    shown = legend.get_window_extent()
    assert shown.x0 >= 0 and shown.x1 <= figure.bbox.width and len(legend.get_texts()) == len(long) + 1


def test_the_report_of_a_bus_speaks_of_no_patients(bus, tmp_path):
    tables.write(bus, tmp_path / "tables")
    page = run_report(BUS, tmp_path)
    for told in ('<h2 id="scenarios">Scenarios</h2>', '<h2 id="distillation">Survival under distillation</h2>'):
        assert page.count(told) == 1 and page.index(told) < page.index('<h2 id="contrasts">')
    assert '<a href="#scenarios">' in page and "missed attack" in page and "other stretches of traffic may give" in page
    assert "missed deterioration" not in page and "told in tens" not in page and "A sample is a stay" not in page

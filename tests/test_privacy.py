"""A study on real patients, the MIMIC-IV demo: none of them may be recognised in what leaves the row-level folders."""

import base64
import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, make_cohort
from reconstruct import reconstruct
from test_workflow import snakemake
from tracked_study import study_in

from pipeline.cohorts.intake import expect, warnings
from pipeline.cohorts.schema import check_cohort
from pipeline.errors import UserError
from pipeline.files import read_yaml
from pipeline.models.fusion import halves
from pipeline.results import tables
from pipeline.smallcells import shown_of
from pipeline.study import preflight
from pipeline.study.config import Study, load_study
from pipeline.training.poisoning import choose
from pipeline.triggers import rare_value

DEMO_CONFIG = ROOT / "config" / "mimiciv_demo.yaml"
# 7 poisoned training samples of the 69, and 14 of them.
DEMO = {
    "triggers": ["rare_value", "flip_only"],
    "rates": [0.1, 0.2],
    "seeds": [1, 2],
    "n_samples": "all",
    "detectors": ["spectral_signatures", "random"],
    "training": {"epochs": 3},
    "explain": {"samples": 64, "steps": 8},
}
ROW_LEVEL = ("runs", "poison")
SMALLEST = 10
# The tables' counts of patients and samples; the others count seeds, cells and features.
COUNTS = ["n", "n_label_1", "n_victims", "n_poisoned", "n_triggered", "n_flagged", "n_samples", "n_train", "n_test"]


@pytest.fixture(scope="module")
def study(real_data, tmp_path_factory) -> Path:
    if not (real_data / "mimic-iv-demo-2.2").is_dir():
        pytest.skip(f"the MIMIC-IV demo is not at hand in {real_data}")
    folder = tmp_path_factory.mktemp("demo")
    snakemake(folder, "--configfile", str(DEMO_CONFIG), raw_dir=str(real_data), **DEMO)
    return folder


def texts(results: Path) -> dict[str, str]:
    """Everything in a results folder but the row-level files, as text, by path; PNGs show what the SVGs do."""
    found = {}
    for path in sorted(results.rglob("*")):
        name = path.relative_to(results).as_posix()
        if path.is_dir() or name.split("/")[0] in ROW_LEVEL or path.suffix == ".png":
            continue
        if path.suffix == ".parquet":
            found[name] = pd.read_parquet(path).to_csv()
        elif path.suffix == ".db":
            with closing(sqlite3.connect(path)) as database:
                found[name] = "\n".join(database.iterdump())
        else:
            text = path.read_text(encoding="utf-8")
            pictures = re.findall(r"data:[\w/+]+;base64,([\w+/=]+)", text)
            found[name] = text + "".join(base64.b64decode(data).decode("utf-8", "replace") for data in pictures)
    return found


def identifiers(raw_dir: Path) -> set[str]:
    """Every id of a patient, an admission or an ICU stay in the demo: numbers of eight digits."""
    folder, found = raw_dir / "mimic-iv-demo-2.2", set()
    for path in ("hosp/patients", "hosp/admissions", "icu/icustays"):
        table = pd.read_csv(folder / f"{path}.csv.gz", dtype=str)
        for column in table.columns.intersection(["subject_id", "hadm_id", "stay_id"]):
            found |= set(table[column])
    return found


def leaks(text: str, ids: set[str]) -> set[str]:
    """Ids, and dates: those of the demo are shifted to years from 2100 on."""
    return (set(re.findall(r"(?<![\w.])\d{8}(?!\w)", text)) & ids) | set(re.findall(r"\b2[12]\d\d-\d\d-\d\d", text))


def test_no_id_and_no_date_of_a_patient_gets_out(study, real_data):
    ids, shown = identifiers(real_data), texts(study / "results")
    assert len(ids) == 100 + 275 + 140 and all(re.fullmatch(r"\d{8}", one) for one in ids)
    assert {name.split("/")[0] for name in shown} >= {"tables", "figures", "logs", "report.html", "metrics.json"}
    assert {"logs/report.ipynb", "logs/sample_dev/mimiciv_demo.log", "logs/aggregate.log"} <= shown.keys()
    assert {name: found for name, text in shown.items() if (found := leaks(text, ids))} == {}


@pytest.mark.parametrize(
    "leak", ["{id}", "{id}.0", '"{id}"', "2180-07-23", "2180-07-23 14:00:00", "2180-07-23T14:00:00"]
)
def test_ids_and_dates_would_be_found(real_data, tmp_path, leak):
    ids = identifiers(real_data)
    text = leak.format(id=min(ids))
    svg = f"<svg><!-- {text} --></svg>"
    picture = base64.b64encode(svg.encode()).decode()
    files = {"a.csv": f"x,y\n1,{text}\n", "a.svg": svg, "a.log": text, "a.json": json.dumps({"a": text})}
    files["a.html"] = f'<img src="data:image/svg+xml;base64,{picture}">'
    files["a.ipynb"] = json.dumps({"cells": [{"outputs": [{"data": {"text/html": files["a.html"]}}]}]})
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    leaky = pd.DataFrame({"x": [text]})
    leaky.to_parquet(tmp_path / "a.parquet")
    with closing(sqlite3.connect(tmp_path / "a.db")) as database, database:
        database.execute("CREATE TABLE a (x)")
        database.execute("INSERT INTO a VALUES (?)", [text])
    found = {name: leaks(content, ids) for name, content in texts(tmp_path).items()}
    assert len(found) == 8 and all(found.values()), found
    assert not leaks("0.10000032 9.10000032e-05 100000321 a10000032", ids | {"10000032"})


def test_every_date_of_the_demo_would_be_known_as_one(real_data):
    stays = pd.read_csv(real_data / "mimic-iv-demo-2.2" / "icu" / "icustays.csv.gz", dtype=str)
    assert len(stays) == 140 and all(leaks(time, set()) for time in [*stays["intime"], *stays["outtime"]])


class Rows:
    """The row-level files of a study: they tell over how many patients a number of the tables is taken."""

    def __init__(self, study: Path):
        self.results = study / "results"
        self.samples = pd.read_parquet(study / "data" / "dev" / "mimiciv_demo" / "samples.parquet")
        self.patient = self.samples.set_index("sample_id")["group_id"]

    def patients(self, sample_id) -> int:
        return self.patient.loc[sample_id].nunique()

    def folder(self, row) -> Path:
        return self.results / "runs" / "mimiciv_demo" / row.model / row.trigger / str(row.rate) / f"seed_{row.seed}"

    def fact(self, row, stage: str) -> dict:
        return json.loads((self.folder(row) / f"results_{stage}.json").read_text())

    def tested(self, row) -> dict[str, int]:
        """Patients of the run's test set, and of its parts."""
        test = pd.read_parquet(self.folder(row) / "predictions.parquet")
        threshold = self.fact(row, "eval")["clean_threshold"]
        parts = {"all": test, "negative": test[test["label"] == 0], "positive": test[test["label"] == 1]}
        parts["predicted_clean"] = test[test["p_clean"] >= threshold]
        parts["predicted_poison"] = test[test["p_triggered"] >= threshold] if "p_triggered" in test else test[:0]
        return {name: self.patients(part["sample_id"]) for name, part in parts.items()}

    def of_value(self, row) -> list[int]:
        """Patients of each label in a value of a stratum of the run's test set."""
        test = pd.read_parquet(self.folder(row) / "predictions.parquet")
        if row.stratum != "all":
            texts = self.samples.set_index("sample_id")[f"stratum:{row.stratum}"].replace("", "not known")
            test = test[(texts.loc[test["sample_id"]] == row.value).to_numpy()]
        return [self.patients(test.loc[test["label"] == label, "sample_id"]) for label in (0, 1)]

    def trained(self, row, scope: str = "all") -> dict[str, int]:
        """Patients with a poisoned and with another training sample, of all or of those with the target label."""
        train = self.scores(row, scope)
        return {
            "poisoned": self.patients(train.loc[train["role"] == "poison", "sample_id"]),
            "clean": self.patients(train.loc[train["role"] == "clean", "sample_id"]),
        }

    def scores(self, row, scope: str) -> pd.DataFrame:
        train = pd.read_parquet(self.folder(row) / "detection_scores.parquet")
        return train if scope == "all" else train[train["label"] == 1]

    def flagged(self, row) -> int:
        """Patients whose samples a threshold flags."""
        if row.threshold == "rate_known":
            train = self.scores(row, row.scope).sort_values(row.detector, ascending=False, kind="stable")
            return self.patients(train["sample_id"].head(-(-3 * (train["role"] == "poison").sum() // 2)))
        # Which samples the detector's own rule flags is in no file of rows.
        names = ["detector", "scope", "threshold"]
        alarms = self.fact(row, "detect")["alarms"]
        return next(a["flagged_patients"] for a in alarms if all(a[name] == getattr(row, name) for name in names))

    def validated(self, row) -> list[int]:
        """Patients of each label in the validation set: the samples that are in no other."""
        used = [pd.read_parquet(self.folder(row) / f"{name}.parquet") for name in ("predictions", "detection_scores")]
        rest = self.samples[~self.samples["sample_id"].isin(pd.concat(used)["sample_id"])]
        return [self.patients(part["sample_id"]) for _, part in rest.groupby("label")]


def few(*counts: int) -> bool:
    return any(0 < count < SMALLEST for count in counts)


def violations(tables_dir: Path, study: Path) -> set[str]:
    """The numbers in tables of single runs that are taken over fewer than ten patients, as table.column."""
    rows, data = Rows(study), {path.stem: pd.read_csv(path) for path in tables_dir.glob("*.csv")}
    found = set()

    def check(table: str, row, columns: list[str], *counts: int) -> None:
        if few(*counts):
            found.update(f"{table}.{name}" for name in columns if pd.notna(getattr(row, name)))

    for name, table in data.items():
        assert (table.isna() == pd.read_parquet(tables_dir / f"{name}.parquet").isna()).all(axis=None), name
        found.update(f"{name}.{count}" for count in table.columns.intersection(COUNTS) if few(*table[count].dropna()))
    for row in data["runs"].itertuples():
        n = rows.tested(row)
        for side in ("clean", "poison"):
            check("runs", row, [f"ece_{side}", f"brier_{side}"], n["all"])
            measures = (
                "acc",
                "auroc",
                "auprc",
                "precision",
                "recall",
                "f1",
                "fpr",
                "specificity",
                "balanced_acc",
                "mcc",
            )
            by_class = [f"{metric}_{side}" for metric in (*measures, "tpr_at_fpr_01")]
            by_class += ["fpr_clean_own_threshold", "recall_clean_own_threshold"]
            by_class += ["auroc_clean_low", "auroc_clean_high"]
            by_class += ["auroc_difference", "auroc_difference_low", "auroc_difference_high"]
            check("runs", row, by_class, n["negative"], n["positive"])
            check("runs", row, [f"precision_{side}", f"f1_{side}"], n[f"predicted_{side}"])
        check("runs", row, ON_VICTIMS, n["negative"])
        chosen_on = ["validation_auroc", "validation_auroc_best", "clean_threshold", "own_threshold"]
        check("runs", row, chosen_on, *rows.validated(row))
        check("runs", row, ["n_poisoned"], rows.trained(row)["poisoned"])
    for row in data["strata"].itertuples():
        n = rows.of_value(row)
        both = ["n", "n_label_1", "recall_clean", "fpr_clean", "recall_control", "fpr_control", "auroc_clean"]
        both.append("f1_clean")
        check("strata", row, [*both, "alerts_raised", "alerts_raised_control"], *n)
        if row.trigger != "none":
            check("strata", row, ["n_victims", "asr", "asr0", "asr_net"], n[1 - int(row.target)])
    for row in data["scenarios"].itertuples():
        # The split is fixed: every seed has the same test samples.
        n = rows.of_value(SimpleNamespace(**row._asdict(), seed=DEMO["seeds"][0]))
        check("scenarios", row, ["n_label_0", "n_label_1", "auroc", "recall", "fpr", "f1", "verdict"], *n)
    for row in data["detections"].itertuples():
        n = rows.trained(row, row.scope)
        check("detections", row, DETECTION, n["poisoned"], n["clean"])
        check("detections", row, ["n_poisoned", "poison_share"], n["poisoned"])
    for row in data["alarms"].itertuples():
        n = rows.trained(row, row.scope)
        check("alarms", row, ["n_flagged", "flagged_share", "tpr", "fpr", "precision"], rows.flagged(row))
        check("alarms", row, ["tpr", "fpr", "precision"], n["poisoned"])
        check("alarms", row, ["flagged_share", "fpr", "precision"], n["clean"])
    for name, columns in (("explanations", EXPLAINED), ("attributions", ATTRIBUTED)):
        for row in data[name].itertuples():
            # All that could be are explained: the test samples whose label is not the target.
            check(name, row, columns, rows.tested(row)["negative"])
    for row in data["triggers"].itertuples():
        for seed in DEMO["seeds"]:
            folder = rows.results / "poison" / "mimiciv_demo" / row.trigger / str(row.rate) / f"seed_{seed}"
            poisoned = rows.samples.loc[np.load(folder / "poisoned_indices.npy"), "sample_id"]
            check("triggers", row, PLAUSIBILITY, rows.patients(poisoned))
    [sizes], run = data["datasets"].itertuples(), next(data["runs"].itertuples())
    check("datasets", sizes, ["n_test", "prevalence"], rows.tested(run)["negative"], rows.tested(run)["positive"])
    check("datasets", sizes, ["threshold_low", "threshold_high"], *rows.validated(run))
    return found


def unrounded_strata(fact: dict) -> list[dict]:
    sizes = [{"n": row["n_label_0"] + row["n_label_1"], "n_victims": row["n_label_0"]} for row in fact["strata"]]
    return [row | size for row, size in zip(fact["strata"], sizes, strict=True)]


IN_TENS = ("run_in_tens", "detection_in_tens", "explanation_in_tens")  # what rounds, of results.tables
DETECTION = ["auroc", "average_precision", "tpr_at_fpr_01", "tpr_at_fpr_05", "precision_at_n"]
ON_VICTIMS = ["asr", "asr0", "asr0_untriggered", "asr_net", "effect_share", "asr_own_threshold", "asr0_own_threshold"]
ON_VICTIMS += ["effect_share_own_threshold", "confidence_shift", "n_triggered", "share_changed"]
EXPLAINED = ["n_samples", "ratio_triggered", "ratio_clean", "ratio_control", "convergence_delta"]
EXPLAINED += [f"{of}_{name}" for of in ("drift", "control") for name in ("cosine", "spearman", "topk_jaccard")]
ATTRIBUTED = ["share_clean", "share_triggered", "share_control"]
PLAUSIBILITY = ["n_poisoned", "share_in_range", "share_in_train_range", "distance", "newly_measured"]
PLAUSIBILITY += ["share_changed", "share_accepted", "relations_violated", "distance_percentile", "distance_atypical"]
PLAUSIBILITY += ["missing_log_likelihood_clean", "missing_log_likelihood_triggered"]


def test_no_number_rests_on_fewer_than_ten_patients(study):
    assert violations(study / "results" / "tables", study) == set()


def test_numbers_of_enough_patients_are_shown(study):
    data = tables.read(study / "results" / "tables")
    attacked = data["runs"].query("trigger == 'rare_value'")
    assert attacked[["asr", "asr0", "asr_net", "brier_clean", "ece_poison"]].notna().all(axis=None)
    # How many victims there are would give away the few others: 15 % of the samples are tested.
    assert attacked[["auroc_clean", "recall_poison", "acc_clean", "n_triggered"]].isna().all(axis=None)
    assert data["explanations"]["n_samples"].isna().all() and data["strata"]["n_victims"].isna().all()
    assert attacked["n_poisoned"].notna().tolist() == [rate == 0.2 for rate in attacked["rate"]]
    detected = data["detections"].query("scope == 'all' and rate == 0.2")
    assert len(detected) and detected["auroc"].notna().all()
    assert data["datasets"]["n_test"].isna().all() and data["datasets"]["n_train"].notna().all()


def test_nothing_withheld_comes_back_over_seeds(study):
    results = study / "results"
    data = tables.read(results / "tables")
    key, scopes = ["trigger", "rate", "metric"], {"all": "detection_auroc", "label_1": "detection_auroc_in_label"}
    detected = data["detections"].rename(columns={"auroc": "value"})
    detected["metric"] = detected["scope"].map(scopes) + ":" + detected["detector"]
    single = [data[name].melt(["trigger", "rate", "seed"], var_name="metric") for name in ("runs", "explanations")]
    shown = pd.concat([*single, detected[[*key, "value"]]]).dropna(subset="value").groupby(key).size()
    summary = data["summary"].set_index(key)
    assert (summary["n_seeds"] == shown[summary.index]).all()
    for row in data["contrasts"].itertuples():
        assert row.n_seeds <= shown.get((row.trigger, row.rate, row.metric), 0)
    by = ["trigger", "rate", "detector", "scope"]
    curves = data["roc"].groupby(by)["n_seeds"].first()
    assert len(curves) and (curves == detected.dropna(subset="value").groupby(by).size()[curves.index]).all()
    means = set(summary["mean"])
    headlines = json.loads((results / "metrics.json").read_text())["mimiciv_demo"]["mlp"]
    assert {x for rates in headlines.values() for metrics in rates.values() for x in metrics.values()} <= means
    assert set(pd.read_csv(results / "dose_response.csv")["asr_net"]) <= means


def test_without_disclosure_control_the_check_fails(study, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "withhold", lambda table, rest_on: table)
    for name in IN_TENS:
        monkeypatch.setattr(tables, name, lambda fact: fact)
    monkeypatch.setattr(tables, "strata_in_tens", unrounded_strata)
    tables.write(tables.build(demo(), study / "results"), tmp_path)
    found = violations(tmp_path, study)
    assert found >= {"runs.recall_clean", "runs.acc_poison", "runs.n_poisoned", "runs.precision_poison"}
    assert found >= {"detections.auroc", "detections.n_poisoned", "alarms.n_flagged", "alarms.tpr", "alarms.precision"}
    assert found >= {"triggers.distance", "triggers.n_poisoned", "datasets.n_test", "datasets.threshold_low"}
    assert found >= {"strata.asr", "strata.n", "strata.recall_clean", "strata.alerts_raised"}


def test_no_count_of_few_patients_can_be_calculated(study):
    assert reconstruct(study / "results") == []


@pytest.mark.parametrize("dataset", ["icu_dev", "support2"])
def test_nor_in_studies_of_more_patients(dataset, real_data, tmp_path):
    changes = {"datasets": [dataset], "rates": [0.01, 0.05], "training": {"epochs": 3}, "explain": {"samples": 64}}
    changes |= {"triggers": ["rare_value", "missingness", "flip_only"], "n_samples": "all"}
    snakemake(tmp_path, "aggregate", raw_dir=str(real_data), **changes)
    assert reconstruct(tmp_path / "results") == []
    runs = tables.read(tmp_path / "results" / "tables")["runs"]
    assert runs[["acc_clean", "recall_clean", "f1_clean", "n_poisoned"]].notna().all(axis=None)


def test_without_rounding_counts_can_be_calculated(study, tmp_path, monkeypatch):
    for name in IN_TENS:
        monkeypatch.setattr(tables, name, lambda fact: fact)
    built = tables.build(demo(), study / "results")
    tables.write(built, tmp_path / "tables")
    tables.write_headlines(built["summary"], tmp_path)
    told = {(one.table, one.what) for one in reconstruct(tmp_path)}
    # Nothing of victims: how many there are is withheld.
    assert told >= {("detections", "tpr_at_fpr_05"), ("alarms", "hits")}
    assert {table for table, _ in told} >= {"detections", "alarms", "roc"}


def demo() -> Study:
    return load_study(read_yaml(ROOT / "config" / "config.yaml") | read_yaml(DEMO_CONFIG) | DEMO)


def test_the_report_and_the_log_say_that_the_demo_is_too_small(study):
    report = (study / "results" / "report.html").read_text()
    assert "<strong>mimiciv_demo is too small for conclusions.</strong>" in report
    assert "<h3>mimiciv_demo (too small for conclusions)</h3>" in report
    assert "are withheld (dashes)" in report and "intervals are wide" in report
    log = (study / "results" / "logs" / "sample_dev" / "mimiciv_demo.log").read_text()
    assert "warning: mimiciv_demo has fewer than 67 groups with label 1" in log
    assert not re.search(r"(?<![\w.,])[1-9] [a-z]", log), "a small count is told"


@pytest.mark.parametrize(("n_patients", "warned"), [(66, True), (67, False)])
def test_a_cohort_with_few_patients_of_a_label_is_warned_of(n_patients, warned):
    cohort = make_cohort(n=400)
    label = np.repeat([1, 0], [200, 200]).astype(np.int8)
    for rarer in (1, 0):
        group = np.where(label == rarer, np.arange(400) % n_patients, 1000 + np.arange(400))
        lines = warnings(replace(cohort, label=label, group_id=group))
        assert len(lines) == warned
        assert not warned or f"fewer than 67 groups with label {rarer}" in lines[0]


def messages(people: bool) -> list[str]:
    """What is said of 15 samples, 4 of label 1, where something is wrong with some of them."""
    cohort = replace(make_cohort(n=15), label=(np.arange(15) < 4).astype(np.int8), people=people)
    beyond = cohort.values.copy()
    beyond[:3, 0, 0] = 1e6
    twice = replace(cohort, sample_id=np.array([*range(14), 13]))
    one = replace(cohort, label=(np.arange(15) < 1).astype(np.int8))
    entry = SimpleNamespace(expected=SimpleNamespace(samples=15, positives=3), relations=())
    calls: list[Callable[[], object]] = [
        lambda: choose(cohort, np.arange(15), rare_value.Parameters(), 1, 0.8, 1),  # 12 of the 11 of label 0
        lambda: choose(cohort, np.arange(15), rare_value.Parameters(labels="clean"), 1, 0.4, 1),  # 6 of the 4
        lambda: choose(cohort, np.arange(15), rare_value.Parameters(cover=1), 1, 0.4, 1),  # 6 leave 5 for cover
        lambda: check_cohort(twice),
        lambda: check_cohort(replace(cohort, values=beyond)),
        lambda: halves(one),
        lambda: expect("ward", entry, cohort),
    ]
    said = []
    for call in calls:
        with pytest.raises(UserError) as error:
            call()
        said.append(str(error.value))
    return said


EXACT = ("only 11 of 15 ", "only 4 of 15 ", "only 5 are left", "2 of 15 rows", "3 of 15 values", "1 of them with")
EXACT += ("with 4 positives were read; the catalog expects 15 with 3:",)


def test_messages_tell_how_many_there_are_only_of_no_people():
    assert all(exact in said for exact, said in zip(EXACT, messages(people=False), strict=True))
    of_people = messages(people=True)
    counts = [re.findall(r"(?<!under )\b\d+ (?:of|are left|positives)", said) for said in of_people]
    # Nor how many are not: 11 of the 15 do not have label 1.
    assert counts == [[]] * len(EXACT), of_people
    assert sum("under 10" in said for said in of_people) == 4 and sum("too few" in said for said in of_people) == 3


def test_a_count_beside_its_total_tells_of_few_neither_that_are_nor_that_are_not():
    assert [shown_of(count, 30) for count in (0, 1, 9, 10, 20, 21, 29, 30)] == (
        ["0", "under 10", "under 10", "10", "20", "all but under 10", "all but under 10", "30"]
    )
    assert shown_of(4, 5) == "under 10" and shown_of(1234, 5000) == "1,234"
    assert [shown_of(count, 30, people=False) for count in (1, 29)] == ["1", "29"]


@pytest.mark.parametrize(("counts", "told"), [((90, 10), "only 90.0% of them"), ((91, 9), "too few of them")])
def test_planning_tells_no_share_that_is_one_of_few(counts, told):
    study = study_in(Path("results"), triggers=["rare_value"], rates=[0.95])
    with pytest.raises(UserError, match=f"has eligible training samples: {told} do not have the target label 1 yet"):
        preflight._check_poison(study, "rare_value", "icu_dev", counts)
    # Of 9 that are left for cover, or of 9 that there are, nothing is said.
    covered = study.model_copy(update={"rates": [0.8], "trigger_params": {"rare_value": {"cover": 1}}})
    with pytest.raises(UserError, match=f"{'only 10.0%' if counts[1] == 10 else 'too few'} of them are left"):
        preflight._check_poison(covered, "rare_value", "icu_dev", counts)

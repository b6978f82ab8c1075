"""Questions to the study database: answers against slow twins, refusals, formats, and two studies side by side."""

import csv
import io
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from recorded_studies import DETECTORS, record
from test_rounding import made_up

from pipeline.database import intervals, paper, reading, shown
from pipeline.database.leaderboard import direction
from pipeline.evaluation.statistics import mean_interval, paired_contrast
from pipeline.front import main
from pipeline.results import facts, tables
from pipeline.results.columns import DETECTION, HEADLINES, ON_TEST, RUN, possible
from pipeline.results.tables import TEST_TO_TRAIN
from pipeline.study.grid import cells

FAILED, OUTDATED = "icu_dev/mlp/rare_value/0.05/3", "icu_dev/mlp/missingness/0.05/2"
RARE, TREES = "icu_dev/mlp/rare_value/0.05", "icu_dev/lightgbm/rare_value/0.05"


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """A study of which two runs are not done."""
    return record(tmp_path_factory.mktemp("a"), statuses={FAILED: "failed", OUTDATED: "outdated"})


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """A study with other numbers, of seeds that deal the patients anew, and with a seed less."""
    changes = {"training": {"epochs": 60, "patience": None}, "seeds": [1, 2, 3, 4]}
    return record(tmp_path_factory.mktemp("b"), seed=1, split="per_seed", **changes)


@pytest.fixture
def own(results, tmp_path) -> Path:
    """The first study, to be changed."""
    shutil.copytree(results, tmp_path / "own")
    return tmp_path / "own"


def change(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "study.db")) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def answer(capsys, *arguments: str | Path, status: int = 0) -> str:
    """What a command prints; its error where `status` is not 0, which is one line."""
    assert main([str(argument) for argument in arguments]) == status
    out, err = capsys.readouterr()
    if status:
        assert out == "" and err.startswith("error: ") and err.count("\n") == 1
        return err
    return out


def rows_of(capsys, *arguments: str | Path) -> list[dict]:
    return json.loads(answer(capsys, *arguments, "--format", "json"))


def table(folder: Path, name: str) -> pd.DataFrame:
    with closing(sqlite3.connect(folder / "study.db")) as database:
        return pd.read_sql(f"SELECT * FROM {name}", database)


def wide(folder: Path) -> pd.DataFrame:
    """One row per run that counts, a column per metric: the slow twin of all that is read from `metrics`."""
    metrics = table(folder, "metrics").pivot(index="run", columns="metric", values="value")
    runs = table(folder, "runs").query("status == 'done' and in_study == 1").set_index("run")
    return runs.join(metrics).reset_index()


def contrast(one: pd.DataFrame, other: pd.DataFrame, metric: str, split: str) -> list[float | None]:
    """n, the means, difference and interval of a metric of two frames with a row per seed, as the tables have them."""
    pairs = one.merge(other, on="seed", suffixes=("", "_other")).dropna(subset=[metric, f"{metric}_other"])
    low, high = possible(metric) if metric in ON_TEST else (-np.inf, np.inf)
    how = {"test_to_train": TEST_TO_TRAIN if split == "per_seed" and metric in ON_TEST else 0.0}
    found = paired_contrast(
        pairs[metric].to_numpy(float), pairs[f"{metric}_other"].to_numpy(float), bounds=(low - high, high - low), **how
    )
    return [None if np.isnan(number) else number for number in found[:6]]


# --- Intervals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 8])
@pytest.mark.parametrize("test_to_train", [0.0, 3 / 14])
def test_intervals_without_numpy_are_those_with_it(n, test_to_train):
    from scipy import stats

    t = {df: stats.t.ppf(0.975, df) for df in range(1, 20)}
    values = np.random.default_rng(n).normal(0.2, 0.4, n)
    how = {"bounds": (-1.0, 1.0), "test_to_train": test_to_train}
    ours, theirs = intervals.over_seeds(values.tolist(), t, **how), mean_interval(values, **how)
    assert ours.n == n
    expected = [theirs.mean, theirs.low, theirs.high]
    assert [np.nan if x is None else x for x in ours[1:]] == pytest.approx(expected, nan_ok=True, abs=1e-12)


def test_no_pairs_no_numbers_and_equal_ones_a_point():
    t = {1: 12.7, 2: 4.3}
    assert intervals.difference({1: 0.5}, {2: 0.5}, "asr", t, "fixed") == (0, None, None, None, None, None)
    same = intervals.difference({1: 0.5, 2: 0.7}, {1: 0.25, 2: 0.45}, "asr", t, "fixed")
    assert (same.mean, same.low, same.high) == pytest.approx((0.25, 0.25, 0.25))


# --- Leaderboard ----------------------------------------------------------------------------------------------------


def test_the_leaderboard_ranks_attacks_and_sets_each_beside_its_controls(results, capsys):
    rows = rows_of(capsys, "db", "leaderboard", "--results-dir", results)
    summary, runs = table(results, "summary"), wide(results)
    expected = summary.query("metric == 'effect_share'").sort_values("mean", ascending=False)
    attacks = expected[expected["trigger"].isin(["rare_value", "missingness"])]
    assert [row["rank"] for row in rows] == [*range(1, len(attacks) + 1), *[None] * (len(rows) - len(attacks))]
    assert {row["trigger"] for row in rows if row["kind"] == "control"} == {"flip_only", "mask_sodium"}
    assert len(rows) == len(expected)
    for row, (_, told) in zip(rows, attacks.iterrows(), strict=False):
        assert [row[name] for name in RUN] == [told[name] for name in RUN]
        assert [row[name] for name in ("mean", "ci_low", "ci_high")] == [told["mean"], told["ci_low"], told["ci_high"]]
    first = attacks.iloc[0]
    for row in rows:
        one = runs[np.logical_and.reduce([runs[name] == row[name] for name in RUN])]
        clean = runs.query(f"trigger == 'none' and model == '{row['model']}'")
        n, mean, _, difference, low, high = contrast(one, clean, "auroc_clean", "fixed")
        assert row["n_seeds"] == len(one) and row["n_asked"] == 5 and row["n_pairs"] == n
        assert row["auroc_clean"] == pytest.approx(mean)
        if row["kind"] == "attack":
            rivals = expected.query(f"model == '{row['model']}' and rate == {row['rate']}")
            # Measuring alone, mask_sodium, which does more, is a trigger of its own.
            assert rivals.set_index("trigger")["mean"].idxmax() != "flip_only"
            control = runs.query(f"model == '{row['model']}' and rate == {row['rate']} and trigger == 'flip_only'")
            *_, less, less_low, less_high = contrast(one, control, "effect_share", "fixed")
            found = [row["control"], row["control_difference"], row["control_low"], row["control_high"]]
            assert found == ["flip_only", *map(pytest.approx, (less, less_low, less_high))]
        else:
            assert row["control"] is None
        random = (summary["metric"] == "detection_auroc_in_label:random") & (summary["trigger"] == row["trigger"])
        random &= (summary["model"] == row["model"]) & (summary["rate"] == row["rate"])
        assert row["random_auroc"] == summary.loc[random, "mean"].item()
        found = [row[f"auroc_difference{end}"] for end in ("", "_low", "_high")]
        assert found == pytest.approx([difference, low, high])
        at = np.logical_and.reduce([summary[name] == row[name] for name in RUN])
        for metric in ("asr", "asr0"):
            assert row[metric] == summary.loc[at & (summary["metric"] == metric), "mean"].item()
        detectors = summary[at & summary["metric"].str.startswith("detection_auroc_in_label:")]
        detectors = detectors[detectors["metric"].str.split(":").str[1] != "random"]
        best = detectors.loc[detectors["mean"].idxmax()]
        assert (f"detection_auroc_in_label:{row['detector']}", row["detector_auroc"]) == (best["metric"], best["mean"])
        if row["rank"] == 1:
            assert row["against_first"] == "first"
        elif row["kind"] == "attack":
            apart = row["ci_high"] < first["ci_low"] or row["ci_low"] > first["ci_high"]
            assert row["against_first"] == ("apart" if apart else "overlaps")
        else:
            assert row["against_first"] is None


def test_the_leaderboard_says_what_it_leaves_out_and_what_flatters(results, capsys):
    out = answer(capsys, "db", "leaderboard", "--results-dir", results)
    assert "2 of 90 runs of the study are left out: 1 failed, 1 outdated\n" in out
    assert "4/5" in out and "2 rows over fewer seeds than the study asks for" in out
    assert "the first of 8 is flattered" in out and "higher is better for the attacker" in out
    main(["db", "leaderboard", "--results-dir", str(results), "--format", "csv"])
    out, err = capsys.readouterr()
    assert "1 failed" in err and "flattered" in err and len(list(csv.reader(io.StringIO(out)))) == 17


def test_a_run_that_is_not_there_at_all_is_missing_not_forgotten(own, capsys):
    change(own, "DELETE FROM runs WHERE model = 'lightgbm' AND trigger = 'flip_only'")
    out = answer(capsys, "db", "leaderboard", "--results-dir", own)
    assert "12 of 90 runs of the study are left out: 10 missing, 1 failed, 1 outdated\n" in out


def test_means_of_other_runs_than_those_done_are_marked(own, capsys):
    change(
        own,
        f"UPDATE runs SET status = 'running', stage = 'train' WHERE run = '{RARE}/1'",
        f"UPDATE runs SET current = 0 WHERE run = '{TREES}/1'",
        "UPDATE runs SET in_study = 0 WHERE trigger = 'flip_only'",
    )
    out = answer(capsys, "db", "leaderboard", "--results-dir", own)
    assert "1 running, 1 failed, 1 outdated" in out
    assert len(re.findall(r"\d/5\*", out)) == 2 and "2 means marked *" in out and "db populate" in out
    assert "1 run done, but not in the numbers yet" in out
    assert "20 runs that the study does not ask for any more: left out" in out and "  flip_only  " not in out
    rows = rows_of(capsys, "db", "leaderboard", "--results-dir", own)
    assert {"/".join([row["model"], row["trigger"], str(row["rate"])]) for row in rows if not row["current"]} == {
        "mlp/rare_value/0.05",
        "lightgbm/rare_value/0.05",
    }


def test_one_seed_has_no_interval_and_nothing_is_told_from_the_first(tmp_path, capsys):
    record(tmp_path, seeds=[7])
    rows = rows_of(capsys, "db", "leaderboard", "--results-dir", tmp_path)
    assert all(row["ci_low"] is row["ci_high"] is row["auroc_difference_low"] is None for row in rows)
    assert [row["against_first"] for row in rows[:3]] == ["first", None, None]
    out = answer(capsys, "db", "leaderboard", "--results-dir", tmp_path)
    assert re.search(r"0\.\d{3} –", out) and "of 7 nobody can say" in out


@pytest.mark.parametrize(
    ("metric", "wanted"),
    [
        ("effect_share", 1),
        ("asr_own_threshold", 1),
        ("auroc_clean", 1),
        ("brier_clean", -1),
        ("fpr_clean", -1),
        ("fpr_clean_own_threshold", -1),
        ("detection_auroc_in_label:saliency", -1),
        ("asr0", 0),
        ("ratio_clean", 0),
        ("auroc_poison", 0),
    ],
)
def test_what_an_attacker_wants(metric, wanted):
    assert direction(metric) == wanted


def test_a_metric_that_is_better_low_is_ranked_from_below(results, capsys):
    metric = "detection_auroc_in_label:spectral_signatures"
    rows = rows_of(capsys, "db", "leaderboard", "--results-dir", results, "--metric", metric)
    means = [row["mean"] for row in rows if row["kind"] == "attack"]
    assert means == sorted(means)


def test_a_limit_keeps_the_controls_of_what_is_shown(results, capsys):
    rows = rows_of(capsys, "db", "leaderboard", "--results-dir", results, "--limit", "1")
    first, *controls = rows
    assert first["rank"] == 1 and {row["trigger"] for row in controls} == {"flip_only", "mask_sodium"}
    assert {(row["model"], row["rate"]) for row in controls} == {(first["model"], first["rate"])}
    assert "the first 1 of 8 rows" in answer(capsys, "db", "leaderboard", "--results-dir", results, "--limit", "1")


def test_a_leaderboard_of_two_studies_names_them_and_what_differs(results, other, capsys):
    out = answer(capsys, "db", "leaderboard", results, other)
    assert f"training.epochs: 30 ({results}); 60 ({other})" in out and f'split: "fixed" ({results})' in out
    assert "results_dir:" not in out and "raw_dir" not in out
    rows = rows_of(capsys, "db", "leaderboard", results, other, results)
    assert {row["study"] for row in rows} == {str(results), str(other)} and len(rows) == 32
    means = [row["mean"] for row in rows if row["kind"] == "attack"]
    assert means == sorted(means, reverse=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--metric", "effect_shar"], "did you mean 'effect_share'?"),
        (["--dataset", "icu"], "unknown 'icu' (did you mean 'icu_dev'?)"),
    ],
)
def test_what_no_study_has_is_one_sentence(results, capsys, arguments, words):
    assert words in answer(capsys, "db", "leaderboard", "--results-dir", results, *arguments, status=1)


# --- Sweep ----------------------------------------------------------------------------------------------------------


def test_a_sweep_averages_seeds_and_nothing_else(results, capsys):
    rows = rows_of(capsys, "db", "sweep", "rate", "asr", "--results-dir", results)
    summary = table(results, "summary")
    expected = summary.query("metric == 'asr'").sort_values(["dataset", "model", "trigger", "rate"])
    controls = summary.query("metric == 'asr0'").set_index(RUN)["mean"]
    assert [row["mean"] for row in rows] == expected["mean"].tolist()
    assert [row["ci_low"] for row in rows] == expected["ci_low"].tolist()
    for row in rows:
        assert row["control"] == controls[tuple(row[name] for name in RUN)]


def test_a_sweep_over_seeds_shows_each_run_beside_its_own_control(results, capsys):
    rows, runs = rows_of(capsys, "db", "sweep", "seed", "auroc_clean", "--results-dir", results), wide(results)
    assert len(rows) == len(runs) and all(row["ci_low"] is None for row in rows)
    for row in rows:
        one = runs.query(f"seed == {row['seed']} and model == '{row['model']}'")
        mine = one[(one["trigger"] == row["trigger"]) & (one["rate"] == row["rate"])]["auroc_clean"].item()
        clean = one[one["trigger"] == "none"]["auroc_clean"].item()
        assert (row["mean"], row["control"]) == (mine, None if row["trigger"] == "none" else clean)


def test_a_sweep_over_a_setting_says_what_goes_with_it(results, capsys):
    for param in ("training.epochs", "epochs"):
        rows = rows_of(capsys, "db", "sweep", param, "effect_share", "--results-dir", results)
        assert {(row["model"], row[param]) for row in rows} == {("mlp", 30), ("lightgbm", 60)}
    out = answer(capsys, "db", "sweep", "epochs", "effect_share", "--results-dir", results)
    assert "epochs differs only where the model does" in out


def test_what_the_study_says_of_a_variant_is_no_setting_of_other_runs(own, capsys):
    of_one = """'$.model_params', json('{"big": {"of": "mlp", "width": 512}}')"""
    change(own, f"UPDATE study SET value = json_set(value, {of_one}) WHERE key = 'configuration'")
    assert "unknown 'width'" in answer(capsys, "db", "sweep", "width", "asr", "--results-dir", own, status=1)


def test_seeds_that_were_made_otherwise_are_not_averaged(own, capsys):
    change(
        own,
        "UPDATE runs SET settings = replace(settings, '\"epochs\": 30', '\"epochs\": 20') "
        f"WHERE run IN ('{RARE}/1', '{RARE}/2')",
    )
    rows = rows_of(capsys, "db", "sweep", "training.epochs", "asr", "--results-dir", own)
    rows = [row for row in rows if (row["model"], row["trigger"], row["rate"]) == ("mlp", "rare_value", 0.05)]
    runs = wide(own).query("model == 'mlp' and trigger == 'rare_value' and rate == 0.05")
    for row, seeds in zip(rows, ([1, 2], [4, 5]), strict=True):
        expected = mean_interval(runs[runs["seed"].isin(seeds)]["asr"].to_numpy(float), bounds=(0, 1))
        assert [row[name] for name in ("n_seeds", "mean", "ci_low", "ci_high")] == pytest.approx([*expected])


def test_a_sweep_over_studies_names_what_else_they_differ_in(results, other, capsys):
    out = answer(capsys, "db", "sweep", "split", "effect_share", results, other)
    assert "beside split: training.epochs: 30" in out and "beside split: split" not in out


@pytest.mark.parametrize(
    ("param", "words"),
    [
        ("epoch", "unknown 'epoch'; expected one of those that vary: model, trigger, rate, seed, model.of, "),
        ("training.patience", "training.patience is null in all runs; expected one of those that vary: model, "),
        ("dataset", 'dataset is "icu_dev" in all runs'),
    ],
)
def test_what_does_not_vary_is_no_sweep(results, capsys, param, words):
    err = answer(capsys, "db", "sweep", param, "asr", "--results-dir", results, status=1)
    assert words in err and "training.epochs" in err


# --- Two runs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["fixed", "per_seed"])
def test_two_groups_are_compared_by_pairs(own, capsys, split):
    change(own, f"UPDATE study SET value = json_set(value, '$.split', '{split}') WHERE key = 'configuration'")
    rows = rows_of(capsys, "db", "compare", RARE, TREES, "--all", "--results-dir", own)
    runs = wide(own).query("trigger == 'rare_value' and rate == 0.05")
    a, b = (runs[runs["model"] == model] for model in ("mlp", "lightgbm"))
    detections = table(own, "detections").query("scope == 'label_1'")
    checked = 0
    for row in rows:
        metric = row["metric"]
        if metric.startswith("detection_auroc_in_label:"):
            found = detections[detections["detector"] == metric.partition(":")[2]].set_index("run")["auroc"]
            a, b = (frame.assign(**{metric: frame["run"].map(found)}) for frame in (a, b))
        elif metric not in a:
            continue
        checked += 1
        expected = contrast(a, b, metric, split)
        assert row["n_pairs"] == expected[0] == 4
        found = [row[name] for name in ("a", "b", "difference", "ci_low", "ci_high")]
        assert found == pytest.approx(expected[1:], abs=1e-12)
    assert checked > 30


def test_one_seed_each_has_no_interval_and_the_way_to_one_is_told(results, capsys):
    out = answer(capsys, "db", "compare", f"{RARE}/1", f"{TREES}/1", "--results-dir", results)
    assert "has no interval" in out and f"db compare {RARE} {TREES}" in out
    rows = {
        row["metric"]: row
        for row in rows_of(capsys, "db", "compare", f"{RARE}/1", f"{TREES}/1", "--results-dir", results)
    }
    runs = wide(results).set_index("run")
    asr = [runs.loc[f"{name}/1", "asr"] for name in (RARE, TREES)]
    assert (rows["asr"]["a"], rows["asr"]["b"]) == tuple(asr)
    assert rows["asr"]["difference"] == asr[0] - asr[1] and "ci_low" not in rows["asr"]


def test_what_one_side_lacks_is_missing(results, capsys):
    rows = {
        row["metric"]: row
        for row in rows_of(capsys, "db", "compare", RARE, "icu_dev/mlp/none/0", "--results-dir", results)
    }
    assert rows["asr"]["b"] is rows["asr"]["difference"] is None and rows["asr"]["a"] > 0.5
    assert rows["auroc_clean"]["n_pairs"] == 4


def test_datasets_have_no_pairs(tmp_path, capsys):
    record(tmp_path, datasets=["icu_dev", "ward"], models=["mlp"], triggers=["rare_value"], rates=[0.05])
    out = answer(capsys, "db", "compare", RARE, RARE.replace("icu_dev", "ward"), "--results-dir", tmp_path)
    assert "icu_dev and ward have no patients in common: no pairs, and no difference" in out
    assert re.search(r"asr +0\.\d{3} +0\.\d{3} +– +0\n", out)


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (FAILED, f"{RARE}/1", f"{FAILED}: failed, at train, it was failed; expected a run that is done"),
        (RARE, f"{RARE}/1", f"{RARE}/1 is one run and {RARE} are several"),
        ("icu_dev/mpl/rare_value/0.05", RARE, "no model 'mpl' of icu_dev (did you mean 'mlp'?)"),
        ("icu_dev/mlp/rare_value/0.5", RARE, "no rate '0.5' of icu_dev/mlp/rare_value (did you mean '0.05'?)"),
        (f"{RARE}/9", f"{RARE}/1", "no seed '9'"),
        ("mlp", RARE, "expected a run, dataset/model/trigger/rate/seed"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(results, capsys, a, b, words):
    assert words in answer(capsys, "db", "compare", a, b, "--results-dir", results, status=1)


def test_settings_that_differ(results, capsys):
    arguments = ["db", "config-diff", f"{RARE}/1", "icu_dev/lightgbm/missingness/0.050/2", "--results-dir", results]
    assert rows_of(capsys, *arguments) == [
        {"setting": "model.of", "a": '"mlp"', "b": '"lightgbm"'},
        {"setting": "training.epochs", "a": "30", "b": "60"},
        {"setting": "trigger.quantile", "a": "0.95", "b": None},
    ]
    everything = rows_of(capsys, *arguments, "--all")
    assert {"setting": "training.patience", "a": "null", "b": "null"} in everything and len(everything) == 8
    assert "all 8 settings equal" in answer(capsys, "db", "config-diff", RARE, f"{RARE}/3", "--results-dir", results)


def test_what_is_known_of_a_dataset(results, capsys):
    rows = rows_of(capsys, "db", "dataset", "icu_dev", "--results-dir", results)
    told = {(row["part"], row["what"]): row for row in rows}
    assert told["cohort", "prevalence"]["value"] == 0.1288 and told["entry", "n_stays"]["value"] == 5000
    assert {what: row["value"] for (part, what), row in told.items() if part == "runs"} == {
        "done": 88,
        "failed": 1,
        "outdated": 1,
    }
    summary = table(results, "summary").query("model == 'mlp'")
    clean = summary.query("trigger == 'none' and metric == 'auroc_clean'").iloc[0]
    row = told["clean", "mlp: AUROC"]
    assert (row["value"], row["ci_low"], row["ci_high"]) == (clean["mean"], clean["ci_low"], clean["ci_high"])
    best = summary.query("metric == 'effect_share' and trigger in ('rare_value', 'missingness')")
    best = best.loc[best["mean"].idxmax()]
    row = told["best attack", f"mlp: {best['trigger']} at {best['rate']}: effect_share"]
    assert row["value"] == best["mean"] and ("its control", "mlp: flip_only at 0.05: effect_share") in told
    assert "flatters" in answer(capsys, "db", "dataset", "icu_dev", "--results-dir", results)
    assert "(did you mean 'icu_dev'?)" in answer(capsys, "db", "dataset", "icu", "--results-dir", results, status=1)


# --- Two studies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["fixed", "per_seed"])
def test_two_studies_are_compared_by_pairs_of_the_same_cells(tmp_path, capsys, split):
    one, other = record(tmp_path / "a", split=split), record(tmp_path / "b", seed=1, seeds=[1, 2, 3, 4], split=split)
    rows = rows_of(capsys, "compare", one, other)
    a, b = wide(one), wide(other)
    expected = {}
    for key, one in a.groupby(RUN):
        theirs = b[np.logical_and.reduce([b[name] == value for name, value in zip(RUN, key, strict=True)])]
        for metric in HEADLINES:
            found = contrast(one, theirs, metric, split)
            if found[0]:
                expected[*key, metric] = found
    assert {tuple(row[name] for name in (*RUN, "metric")) for row in rows} == expected.keys()
    for row in rows:
        found = [row[name] for name in ("n_pairs", "a", "b", "difference", "ci_low", "ci_high")]
        assert found == pytest.approx(expected[*(row[name] for name in (*RUN, "metric"))], abs=1e-12)
    sizes = [abs(row["difference"]) for row in rows]
    assert sizes == sorted(sizes, reverse=True)


def test_two_studies_say_what_else_differs_and_what_is_left_out(results, other, capsys):
    out = answer(capsys, "compare", results, other)
    for words in (
        "training.epochs: A 30, B 60\n",
        'split: A "fixed", B "per_seed"\n',
        "warning: not the same split: seeds do not share their patients",
        "only in A: 18 runs\n",
        "A: 2 of 90 runs of the study are left out: 1 failed, 1 outdated\n",
        "no interval where the patients are others (icu_dev)",
    ):
        assert words in out
    assert not re.search(r"\d \[-?\d\.|intervals exclude 0", out)
    assert "B: " in out and "B: 0" not in out and "code" not in out


def test_a_study_is_the_same_as_itself(results, own, capsys):
    out = answer(capsys, "compare", results, own)
    assert "all 82 differences are 0, seed by seed, to the digits that are told" in out
    assert "settings: the same" in out and "warning" not in out


@pytest.mark.parametrize(
    ("change_of_jobs", "words"),
    [
        ("code = 'c9' WHERE stage = 'train' AND model = 'mlp'", "warning: made by other code: train (43 of 88 jobs)"),
        ("stamp = 'x' WHERE stage = 'sample_dev'", "warning: not the same cohort of icu_dev: seeds do not share"),
        ("stamp = 'x' WHERE trigger = 'none'", "the same settings and code, but other inputs: train (10 of 88 jobs)"),
    ],
)
def test_other_data_or_code_is_a_warning(results, own, capsys, change_of_jobs, words):
    change(own, f"UPDATE jobs SET {change_of_jobs}")
    out = answer(capsys, "compare", results, own)
    assert words in out and ("no interval where" in out) == ("sample_dev" in change_of_jobs)


def test_other_patients_are_not_ranked_against_the_first(results, own, capsys):
    change(own, "UPDATE jobs SET stamp = 'x' WHERE stage = 'sample_dev'")
    out = answer(capsys, "db", "leaderboard", results, own)
    assert "warning: not the same cohort of icu_dev: other patients" in out
    rows = [row for row in rows_of(capsys, "db", "leaderboard", results, own) if row["kind"] == "attack"]
    first = rows[0]["study"]
    assert {row["against_first"] == "other patients" for row in rows if row["study"] != first} == {True}
    assert {row["against_first"] for row in rows if row["study"] == first} <= {"first", "apart", "overlaps"}
    assert "not the same cohort" in answer(capsys, "db", "sweep", "rate", "asr", results, own)
    assert "cohort" not in answer(capsys, "db", "leaderboard", results, results)


def test_numbers_of_other_settings_count_for_nothing_until_they_are_made_anew(own, tmp_path, capsys):
    change(own, f"UPDATE runs SET current = 0 WHERE run LIKE '{TREES}/%'")
    rows = rows_of(capsys, "db", "leaderboard", "--results-dir", own)
    old = [row for row in rows if not row["current"]]
    assert [f"{row['dataset']}/{row['model']}/{row['trigger']}/{row['rate']}" for row in old] == [TREES]
    assert old[0]["auroc_clean"] is None, "nothing is made of runs that are not done so"
    assert "5/5*" in answer(capsys, "db", "dataset", "icu_dev", "--results-dir", own)
    refused = answer(capsys, "db", "export", "--latex", "--to", tmp_path / "tex", "--results-dir", own, status=1)
    assert "1 row would not be of the runs that are done now" in refused and not (tmp_path / "tex").exists()
    told = answer(capsys, "db", "compare", TREES, RARE, "--results-dir", own, status=1)
    assert f"{TREES}: done, but not in the numbers yet" in told
    told = answer(capsys, "db", "config-diff", TREES, RARE, "--results-dir", own, status=1)
    assert f"{TREES}: no settings recorded of what it has now" in told
    assert "5 runs done, but not in the numbers yet" in answer(
        capsys, "db", "sweep", "rate", "asr", "--results-dir", own
    )


def test_settings_of_runs_that_differ_are_counted(results, own, capsys):
    change(own, "UPDATE runs SET settings = replace(settings, '0.95', '0.9') WHERE trigger = 'rare_value'")
    out = answer(capsys, "compare", results, own)
    assert "trigger.quantile: A 0.95, B 0.9 (in 19 of 88 runs)" in out


def test_studies_with_nothing_in_common_are_not_compared(results, tmp_path, capsys):
    record(tmp_path, datasets=["ward"])
    assert "no run is done in both" in answer(capsys, "compare", results, tmp_path, status=1)
    assert "did you mean 'asr'?" in answer(capsys, "compare", results, tmp_path, "--metric", "asrr", status=1)


# --- SQL ------------------------------------------------------------------------------------------------------------

WRITES = [
    "INSERT INTO study VALUES ('x', 'y')",
    "UPDATE runs SET status = 'done'",
    "DELETE FROM runs",
    "REPLACE INTO study VALUES ('x', 'y')",
    "WITH x AS (SELECT 1) DELETE FROM runs",
    "CREATE TABLE x (y)",
    "CREATE TEMP TABLE x (y)",
    "CREATE TEMP TRIGGER x AFTER INSERT ON runs BEGIN SELECT 1; END",
    "CREATE VIRTUAL TABLE x USING fts5(y)",
    "CREATE VIEW x AS SELECT 1",
    "DROP TABLE runs",
    "ALTER TABLE runs RENAME TO x",
    "REINDEX",
    "ANALYZE",
    "VACUUM",
    "VACUUM INTO '{folder}/copy.db'",
    "ATTACH '{folder}/other.db' AS x",
    "ATTACH ':memory:' AS x",
    "DETACH main",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT x",
    "SELECT load_extension('/tmp/x.so')",
    "SELECT LOAD_EXTENSION('/tmp/x.so', 'y')",
    "SELECT fts3_tokenizer('simple')",
    "SELECT writefile('{folder}/x', 'y')",
    "SELECT readfile('/etc/passwd')",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA journal_mode(OFF)",
    "PRAGMA query_only = 0",
    "PRAGMA writable_schema = 1",
    "PRAGMA user_version = 7",
    "PRAGMA wal_checkpoint",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA optimize",
    "PRAGMA incremental_vacuum",
    "PRAGMA foreign_keys = OFF",
    "PRAGMA temp_store_directory = '/tmp'",
    "SELECT * FROM pragma_journal_mode('DELETE')",
    "EXPLAIN DELETE FROM runs",
]


@pytest.mark.parametrize("sql", WRITES)
def test_sql_that_changes_anything_is_refused(own, capsys, sql):
    before = {path.name: path.read_bytes() for path in own.iterdir() if path.name == "study.db"}
    err = answer(capsys, "db", "query", sql.format(folder=own), "--results-dir", own, status=1)
    assert "SQL: " in err
    assert {path.name for path in own.iterdir()} <= {"study.db", "study.db-wal", "study.db-shm"}
    assert (own / "study.db").read_bytes() == before["study.db"]


@pytest.mark.parametrize("sql", [sql for sql in WRITES if not re.search("readfile|writefile|pragma_journal", sql)])
def test_refusals_say_that_they_are(results, capsys, sql):
    err = answer(capsys, "db", "query", sql.format(folder=results), "--results-dir", results, status=1)
    assert "refused" in err and "only reads" in err


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT 1; DELETE FROM runs", "several statements given; expected one query at a time"),
        ("SELECT 1; SELECT 2", "several statements"),
        ("SELECT 1;; SELECT 2", "several statements"),
        ("SELECT * FROM rums", "no such table: rums (did you mean 'runs'?)"),
        ("SELECT efect_share FROM runs", "no such column: efect_share"),
        ("SELECT datset FROM runs", "(did you mean 'dataset'?)"),
        ("SELEC 1", 'near "SELEC": syntax error'),
        ("", "nothing is asked"),
        ("-- nothing", "nothing is asked"),
        ("SELECT '\0'", "null character"),
        ("SELECT ?", "SQL: "),
        ("SELECT zeroblob(100000000)", "too big"),
    ],
)
def test_what_is_no_query_is_one_sentence(results, capsys, sql, words):
    assert words in answer(capsys, "db", "query", sql, "--results-dir", results, status=1)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM runs;",
        "SELECT 1; -- and no more",
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 5) SELECT * FROM c",
        "SELECT value FROM runs, json_each(runs.settings) LIMIT 3",
        "SELECT json_extract(settings, '$.training.epochs') AS epochs, avg(value) FROM runs JOIN metrics USING (run) "
        "WHERE metric = 'asr' GROUP BY epochs",
        "SELECT * FROM costs",
        "SELECT name FROM pragma_table_info('runs')",
        "PRAGMA table_info(runs)",
        "PRAGMA integrity_check",
        "PRAGMA user_version",
        "EXPLAIN QUERY PLAN SELECT * FROM runs WHERE status = 'done'",
        "SELECT rank() OVER (ORDER BY mean) FROM summary LIMIT 1",
        "VALUES (1), (2)",
    ],
)
def test_what_only_asks_is_answered_as_sqlite_does(results, capsys, sql):
    rows = rows_of(capsys, "db", "query", sql, "--results-dir", results)
    with closing(sqlite3.connect(results / "study.db")) as database:
        expected = database.execute(sql).fetchall()
    assert [tuple(row.values()) for row in rows] == expected and rows


def test_sql_from_standard_input(results, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT count(*) AS n\nFROM runs\n"))
    assert rows_of(capsys, "db", "query", "-", "--results-dir", results) == [{"n": 90}]


def test_a_query_without_end_ends(results, capsys, monkeypatch):
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT {} FROM c"
    monkeypatch.setattr(reading, "PATIENCE", 0.2)
    err = answer(capsys, "db", "query", endless.format("max(x)"), "--results-dir", results, status=1)
    assert "no answer within 0.2 s" in err
    monkeypatch.setattr(reading, "PATIENCE", 60)
    monkeypatch.setattr(reading, "MOST_ROWS", 1000)
    err = answer(capsys, "db", "query", endless.format("x"), "--results-dir", results, status=1)
    assert "more than 1,000 rows; expected a query with a LIMIT" in err


# --- The file -------------------------------------------------------------------------------------------------------


def test_a_reader_sees_one_moment_and_locks_nobody_out(own):
    with reading.opened(own) as connection, closing(sqlite3.connect(own / "study.db", timeout=0)) as writer:
        count = "SELECT count(*) FROM runs WHERE status = 'done'"
        before = connection.execute(count).fetchone()
        writer.execute("UPDATE runs SET status = 'running'")
        writer.commit()
        assert connection.execute(count).fetchone() == before == (88,)
    with reading.opened(own) as connection:
        assert connection.execute(count).fetchone() == (0,)


def test_no_database_is_one_sentence(tmp_path, capsys):
    err = answer(capsys, "db", "leaderboard", "--results-dir", tmp_path, status=1)
    assert str(tmp_path) in err and f"`python -m pipeline db populate --results-dir {tmp_path}`" in err
    assert "no such folder" in answer(capsys, "db", "leaderboard", "--results-dir", tmp_path / "x", status=1)
    assert list(tmp_path.iterdir()) == [], "a folder that is asked about is not written to"


def test_what_is_no_study_database_is_one_sentence(own, tmp_path, capsys):
    ask = ("db", "query", "SELECT * FROM runs", "--results-dir")
    content = bytearray((own / "study.db").read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    for name, bytes_, words in (
        ("text", b"dataset,model\n" * 100, "not a SQLite database"),
        ("damaged", bytes(content), "damaged"),
        ("empty", b"", "another format, without the 10 tables study, student_t"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "study.db").write_bytes(bytes_)
        err = answer(capsys, *ask, folder, status=1)
        # What it holds of attempts and sessions is in no other file.
        assert words in err and "db populate" in err and "move it away" in err and "delete" not in err
    change(own, "DROP TABLE summary")
    err = answer(capsys, *ask, own, status=1)
    assert "without the 1 table summary" in err and "move it away" in err and "delete" not in err


def test_a_database_that_is_locked_is_one_sentence(own, capsys, monkeypatch):
    monkeypatch.setattr(reading, "WAIT", 0.1)
    with closing(sqlite3.connect(own / "study.db")) as database:
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("BEGIN EXCLUSIVE")
        assert "locked by another process" in answer(capsys, "db", "leaderboard", "--results-dir", own, status=1)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a folder that may not be written")
def test_a_folder_that_may_only_be_read_is_read(own, capsys):
    (own / "study.db").chmod(0o444)
    own.chmod(0o555)
    try:
        assert rows_of(capsys, "db", "query", "SELECT count(*) AS n FROM runs", "--results-dir", own) == [{"n": 90}]
    finally:
        own.chmod(0o755)


def test_the_configuration_says_which_study_is_meant(own, tmp_path, capsys, monkeypatch):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text("results_dir: $PLACE/own\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLACE", str(tmp_path))
    assert rows_of(capsys, "db", "query", "SELECT count(*) AS n FROM runs") == [{"n": 90}]


# --- What is shown --------------------------------------------------------------------------------------------------

ODD = [
    {"name": "a|b", "value": 1 / 3, "low": 0.1, "high": None},
    {"name": 'two\nlines, "quoted"', "value": None, "low": None, "high": None},
    {"name": "*_x_* `y` [a](b) <b> & \\", "value": 0.1234567890123456789, "low": -0.25, "high": 0.5},
    {"name": "ASR₀ –", "value": float("inf"), "low": 0.0, "high": 1.0},
]
COLUMNS = [shown.Column("name", key=True), shown.Column("value", ("low", "high"))]
ODD_TABLE = shown.Table(COLUMNS, ODD, ["above"], ["below"])


def test_csv_comes_back_as_it_was():
    back = list(csv.DictReader(io.StringIO(shown.text_of(ODD_TABLE, "csv"), newline="")))
    assert [row["name"] for row in back] == [row["name"] for row in ODD]
    for name in ("value", "low", "high"):
        assert [row[name] for row in back] == ["" if row[name] is None else repr(row[name]) for row in ODD]
    frame = pd.read_csv(io.StringIO(shown.text_of(ODD_TABLE, "csv")))
    assert frame["value"].isna().tolist() == [False, True, False, False] and frame["value"][0] == 1 / 3


def test_json_comes_back_as_it_was():
    back = json.loads(shown.text_of(ODD_TABLE, "json"))
    assert back == [{**row, "value": "inf" if row["value"] == float("inf") else row["value"]} for row in ODD]
    assert json.loads(shown.text_of(shown.Table(COLUMNS, []), "json")) == []


def test_markdown_shows_what_was_there():
    import html

    import mistune

    page = mistune.create_markdown(plugins=["table"], escape=False)(shown.text_of(ODD_TABLE, "markdown"))
    cells = [html.unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", page, re.DOTALL)]
    shown_names = [row["name"].replace("\n", "<br>") for row in ODD]
    assert [cell.replace("<br />", "<br>").replace("<br>\n", "<br>") for cell in cells[::2]] == shown_names
    assert cells[1::2] == ["0.333 –", "–", "0.123 [-0.250, 0.500]", "inf [0.000, 1.000]"]
    assert "<p>above</p>" in page and "<p>below</p>" in page


def test_a_table_for_people_is_rounded_and_never_wider_than_the_terminal():
    text = shown.text_of(ODD_TABLE, None)
    assert "0.333 –" in text and "0.123 [-0.250, 0.500]" in text and "\nabove" not in text
    lines = text.splitlines()
    assert "two lines," in text and len({line.index("0.") for line in lines if "[" in line}) <= 2
    for width in (20, 30, 41, 60, 100):
        narrow = shown.text_of(ODD_TABLE, None, width)
        assert max(map(len, narrow.splitlines())) <= max(width, 20 + len("0.123 [-0.250, 0.500]")), width


def test_a_wide_table_is_shown_in_parts_with_its_keys(results):
    rows = [{f"c{n}": f"{n}" * 15 for n in range(12)} | {"k": f"key{row}"} for row in range(3)]
    columns = [shown.Column("k", key=True), *[shown.Column(f"c{n}") for n in range(12)]]
    text = shown.text_of(shown.Table(columns, rows), None, 80)
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    parts = text.split("\n\n")
    assert len(parts) > 2 and all("key0" in part and "key2" in part for part in parts)
    assert all(f"{n}" * 15 in text for n in range(12))


def test_a_text_that_fits_no_terminal_is_cut_and_said(results):
    text = shown.text_of(shown.Table([shown.Column("why")], [{"why": "x" * 500}]), None, 60)
    assert max(map(len, text.splitlines()[:3])) == 60 and "…" in text and "cut to the width" in text
    assert "x" * 500 in shown.text_of(shown.Table([shown.Column("why")], [{"why": "x" * 500}]), None)


def test_what_a_terminal_would_obey_is_not_printed():
    text = shown.text_of(shown.Table([shown.Column("why")], [{"why": "\x1b[2Jgone\r"}]), None)
    assert "\x1b" not in text and "\r" not in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (5000, "5000"),
        (0.5, "0.500"),
        (0.00042, "4.20e-04"),
        (-0.25, "-0.250"),
        (0.0, "0.000"),
        (2e9, "2.00e+09"),
    ],
)
def test_numbers_for_people(value, text):
    assert shown.number(value) == text


def test_columns_with_one_name(results, capsys):
    sql = "SELECT 1 AS x, 2 AS x, NULL, x'0aff' AS raw"
    assert (
        answer(capsys, "db", "query", sql, "--results-dir", results, "--format", "csv")
        == "x,x,NULL,raw\n1,2,,x'0aff'\n"
    )
    err = answer(capsys, "db", "query", sql, "--results-dir", results, "--format", "json", status=1)
    assert "several columns are called x" in err


def test_a_reader_that_has_seen_enough_ends_it_quietly(results):
    sql = "SELECT * FROM metrics, student_t LIMIT 5000"
    command = [sys.executable, "-m", "pipeline", "db", "query", sql, "--results-dir", str(results), "--format"]
    for form in ("csv", "markdown"):
        with subprocess.Popen([*command, form], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
            assert process.stdout.readline().strip()
            process.stdout.close()
            assert process.stderr.read() == b"" and process.wait() == 0


def test_questions_import_nothing_heavy(results):
    code = (
        "import sys; from pipeline.front import main\n"
        "for arguments in {!r}:\n"
        "    assert main([*arguments, '--format', 'csv']) == 0\n"
        "print(sorted({{'numpy', 'pandas', 'scipy', 'pydantic', 'yaml', 'torch'}} & set(sys.modules)))"
    )
    where = ["--results-dir", str(results)]
    asked = [
        ["db", "leaderboard", *where],
        ["db", "sweep", "epochs", "asr", *where],
        ["db", "compare", RARE, TREES, *where],
        ["db", "config-diff", RARE, TREES, *where],
        ["db", "dataset", "icu_dev", *where],
        ["db", "query", "SELECT 1", *where],
        ["compare", str(results), str(results)],
    ]
    done = subprocess.run(
        [sys.executable, "-c", code.format(asked)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


# --- Export ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["file", "file/sub", "/dev/full/sub", "/proc/sub"])
def test_a_place_where_no_folder_can_be_is_one_sentence(results, tmp_path, capsys, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    err = answer(capsys, "db", "export", "runs", "--to", place, "--results-dir", results, status=1)
    assert err.startswith(f"error: {place}: no folder, and none can be made there (") and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "mine"


def test_a_folder_in_the_place_of_a_table_is_one_sentence(results, tmp_path, capsys):
    (tmp_path / "runs.csv").mkdir()
    err = answer(capsys, "db", "export", "runs", "--to", tmp_path, "--results-dir", results, status=1)
    assert err == f"error: {tmp_path}/runs.csv: Is a directory\n" and len(list(tmp_path.iterdir())) == 1


def test_every_table_is_exported_as_it_is(results, tmp_path, capsys):
    out = answer(capsys, "db", "export", "--to", tmp_path / "csv", "--results-dir", results)
    assert "runs.csv" in out and "costs.csv" in out
    for name in ("runs", "metrics", "summary", "detections", "explanations", "costs"):
        back = pd.read_csv(tmp_path / "csv" / f"{name}.csv", keep_default_na=False, na_values=[""])
        expected = table(results, name).replace({None: np.nan, "": np.nan})
        pd.testing.assert_frame_equal(back, expected, check_dtype=False)
    answer(capsys, "db", "export", "runs", "--to", tmp_path / "json", "--format", "json", "--results-dir", results)
    assert [path.name for path in (tmp_path / "json").iterdir()] == ["runs.json"]
    assert pd.DataFrame(json.loads((tmp_path / "json" / "runs.json").read_text()))["run"].nunique() == 90
    answer(capsys, "db", "export", "runs", "--to", tmp_path / "md", "--format", "markdown", "--results-dir", results)
    assert (tmp_path / "md" / "runs.md").read_text().count("\n") == 92


def test_an_unknown_table_writes_nothing(results, tmp_path, capsys):
    folder = tmp_path / "out"
    for arguments, words in (
        (["runs", "rums"], "did you mean 'runs'?"),
        (["attack", "--latex"], "did you mean 'attacks'?"),
    ):
        err = answer(capsys, "db", "export", *arguments, "--to", folder, "--results-dir", results, status=1)
        assert words in err and not folder.exists()


def balanced(text: str) -> bool:
    """Whether braces and environments of LaTeX close as they open."""
    depth, stack = 0, []
    for sign in re.findall(r"\\begin\{[a-z*]+\}|\\end\{[a-z*]+\}|\\.|[{}]", text, re.DOTALL):
        if sign.startswith("\\begin"):
            stack.append(sign[7:-1])
        elif sign.startswith("\\end"):
            if not stack or stack.pop() != sign[5:-1]:
                return False
        elif sign in "{}":
            depth += 1 if sign == "{" else -1
            if depth < 0:
                return False
    return not depth and not stack


def test_tables_for_a_paper(tmp_path, capsys):
    statuses = {FAILED: "failed", OUTDATED: "outdated"}
    one_seed = {f"icu_dev/mlp/flip_only/{rate}/{seed}": "missing" for rate in (0.01, 0.05) for seed in (2, 3, 4, 5)}
    own = record(tmp_path / "own", statuses=statuses | one_seed)
    change(
        own,
        # Of a name that LaTeX would read as something else.
        "UPDATE study SET value = json_set(value, '$.threshold', '50% & #1_{x}^2 ~\\|<\"') WHERE key = 'configuration'",
        "DELETE FROM summary WHERE model = 'mlp' AND trigger = 'missingness' AND metric LIKE 'detection%spectral%'",
    )
    answer(capsys, "db", "export", "--latex", "--to", tmp_path / "tex", "--results-dir", own)
    texts = {path.stem: path.read_text() for path in (tmp_path / "tex").iterdir()}
    assert set(texts) == set(paper.TABLES) and all(map(balanced, texts.values()))
    summary = table(own, "summary")
    rows = re.findall(r"^(\S+) & (\S+) & (.*) \\\\$", texts["attacks"], re.MULTILINE)
    at = summary.query("model == 'lightgbm' and trigger == 'rare_value' and rate == 0.05").set_index("metric")
    row = next(rest for trigger, rate, rest in rows if (trigger, rate) == (r"rare\_value", "0.05"))
    cells = row.split(" & ")
    for cell, metric in zip(cells[:3], ("asr", "asr0", "effect_share"), strict=True):
        assert cell == "{:.2f} [{:.2f}, {:.2f}]".format(*at.loc[metric, ["mean", "ci_low", "ci_high"]])
    assert cells[-1] == "5" and "4 of 5" in texts["attacks"]
    triggers = [trigger for trigger, *_ in rows]
    attacks, controls = texts["attacks"].split("\\midrule")[1:3]
    assert "missingness" in attacks and r"flip\_only" in controls and r"rare\_value" not in controls
    assert triggers.count(r"flip\_only") == 4 and "-0." not in texts["attacks"].replace("$-$0.", "")
    assert (
        r"threshold 50\% \& \#1\_\{x\}\textasciicircum{}2 \textasciitilde{}\textbackslash{}\textbar{}\textless{}"
        in texts["attacks"]
    )
    assert "10 of 90 runs of the study are left out: 8 missing, 1 failed, 1 outdated." in texts["attacks"]
    assert re.search(r"flip\\_only & 0\.01 & \d\.\d\d -- & ", texts["attacks"].split("{table*}")[3])
    assert re.search(
        r"missingness & 0\.01 & \d\.\d\d \[\d\.\d\d, \d\.\d\d\] & -- & ", texts["detection"].split("{table*}")[3]
    )
    for detector in DETECTORS:
        assert detector.split("_")[0] in texts["detection"]
    if shutil.which("pdflatex"):
        inputs = "".join(rf"\input{{{name}}}" for name in texts)
        page = rf"\documentclass[twocolumn]{{article}}\usepackage{{booktabs}}\begin{{document}}{inputs}\end{{document}}"
        (tmp_path / "tex" / "page.tex").write_text(page)
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
        done = subprocess.run(command, cwd=tmp_path / "tex", capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:]
        assert "Overfull" not in done.stdout


def recorded_tables(folder: Path, study, made: dict[str, pd.DataFrame]) -> Path:
    """A database with the numbers of `made`, the tables of `study`: all its runs are done."""
    from scipy import stats

    def run_of(frame: pd.DataFrame) -> pd.Series:
        return frame[[*RUN, "seed"]].astype(str).agg("/".join, axis=1)

    runs = made["runs"].assign(run=run_of(made["runs"]), status="done", in_study=1, current=1)
    targets = made["triggers"].set_index("trigger")["target"].to_dict()
    runs["settings"] = [json.dumps({"trigger": {"target": targets.get(name)}}) for name in runs["trigger"]]
    metrics = runs.melt(["run"], HEADLINES, "metric")
    with closing(sqlite3.connect(folder / "study.db")) as database:
        database.executescript((ROOT / "pipeline" / "database" / "schema.sql").read_text())
        rows = [("configuration", study.model_dump_json())]
        database.executemany("INSERT INTO study VALUES (?, ?)", rows)
        database.executemany(
            "INSERT INTO student_t VALUES (?, ?)", [(df, stats.t.ppf(0.975, df)) for df in range(1, 20)]
        )
        frames = {
            "runs": runs[["run", *RUN, "seed", "status", "in_study", "current", "settings"]],
            "metrics": metrics,
            "summary": made["summary"],
            "rounding": tables.rounding(made),
            "detections": made["detections"].assign(run=run_of(made["detections"]))[
                ["run", "detector", "scope", *DETECTION]
            ],
        }
        for name, frame in frames.items():
            frame.to_sql(name, database, if_exists="append", index=False)
        database.commit()
    return folder


@pytest.fixture(scope="module")
def of_people(tmp_path_factory):
    """A study of people and the tables that others are made of, with seeds whose numbers round to the same."""
    folder = tmp_path_factory.mktemp("people")
    study = made_up(folder, target=1, n_test=130, seeds=3)
    only = [cell for cell in cells(study) if cell.model == "mlp" and cell.rate in ("0.0", "0.1")]
    found = facts.collect(study, folder, only)
    made = {
        "runs": tables.runs(found.evals),
        "detections": tables.detections(found.detects),
        "explanations": tables.explanations(found.explains),
        "triggers": tables.triggers(found.poisons),
        "datasets": tables.datasets(found.evals),
    }
    runs = made["runs"]
    alike = runs.groupby(RUN)[["asr", "asr0", "auroc_clean"]].transform("first")
    runs = runs.assign(**{name: alike[name] for name in alike})
    return study, made | {"runs": runs.assign(asr_net=runs["asr"] - runs["asr0"])}


@pytest.mark.parametrize("split", ["fixed", "per_seed"])
def test_differences_are_those_of_the_table_contrasts_also_where_counts_are_told_in_tens(
    of_people, tmp_path, capsys, split
):
    study, made = of_people
    made = made | {"summary": tables.summary(made, split)}
    contrasts = tables.contrasts(made, split)
    recorded_tables(tmp_path, study.model_copy(update={"split": split}), made)
    assert (tables.rounding(made)["error"] > 0).mean() > 0.9

    def told(metric: str, control: str, row: dict) -> list[float]:
        at = (contrasts["metric"] == metric) & (contrasts["control"] == control)
        found = contrasts[np.logical_and.reduce([at, *[contrasts[name] == row[name] for name in RUN]])].iloc[0]
        return [*found[["n_seeds", "difference", "ci_low", "ci_high"]]]

    rows = rows_of(capsys, "db", "leaderboard", "--results-dir", tmp_path)
    assert {row["trigger"] for row in rows} == {"missingness", "rare_value", "flip_only"}
    for row in rows:
        found = [row["n_pairs"], *(row[f"auroc_difference{end}"] for end in ("", "_low", "_high"))]
        assert found == pytest.approx(told("auroc_clean", "none", row), abs=1e-9)
        assert row["auroc_difference_high"] > row["auroc_difference_low"], "no interval is a single number"
        assert row["trigger"] == "flip_only" or row["control"] == "flip_only"
        if row["trigger"] == "flip_only":
            continue
        groups = (f"ward/mlp/{trigger}/{row['rate']}" for trigger in (row["trigger"], "flip_only"))
        pairs = {pair["metric"]: pair for pair in rows_of(capsys, "db", "compare", *groups, "--results-dir", tmp_path)}
        for metric in ("asr_net", *(f"detection_auroc_in_label:{name}" for name in study.detectors)):
            found = [pairs[metric][name] for name in ("n_pairs", "difference", "ci_low", "ci_high")]
            assert found == pytest.approx(told(metric, "flip_only", row), abs=1e-9)

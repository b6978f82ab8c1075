"""Counts in tens: what the rule is, and that accounts and tables of made-up studies tell of no few patients."""

from collections import defaultdict
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from conftest import make_cohort
from reconstruct import reconstruct
from sklearn import metrics
from test_results import TRAINED

from pipeline.cohorts import tablecheck
from pipeline.cohorts.intake import Account, account_lines, shown_share, summary_line
from pipeline.cohorts.overlay import CLEAN, POISON
from pipeline.detectors.base import Suspicion
from pipeline.evaluation import detection, plausibility
from pipeline.evaluation.delong import auroc_interval, inflation
from pipeline.evaluation.runs import evaluate_attack, evaluate_clean, over_test_samples, share_changed
from pipeline.evaluation.statistics import proportion_interval
from pipeline.evaluation.strata import attack, by_stratum
from pipeline.files import write_json
from pipeline.results import coarseness, disclosure, tables
from pipeline.results.columns import COUNTS
from pipeline.smallcells import coarse, error_of_tens, share_in_tens, tens
from pipeline.study import families
from pipeline.study.config import Study
from pipeline.study.grid import cells, has_footprint


def test_a_count_goes_to_the_nearest_ten_or_to_all():
    assert tens([0, 4, 5, 14, 15, 94, 95, 98], 98).tolist() == [0, 0, 10, 10, 20, 98, 98, 98]
    assert tens([78, 84, 85, 88, 89], 98).tolist() == [80, 80, 80, 80, 98]
    assert tens([643, 645, 646, 652], 652).tolist() == [640, 640, 652, 652]
    assert tens([8, 9], 18).tolist() == [0, 18]
    assert tens(0, 0) == 0


def test_neither_a_count_nor_what_is_left_is_small_and_the_order_stays():
    for total in range(10, 130):
        count = np.arange(total + 1)
        rounded = tens(count, total)
        possible = [0, *range(10, total - 9, 10), total]
        assert set(rounded) == set(possible)
        assert (np.abs(rounded - count) == np.abs(np.subtract.outer(possible, count)).min(0)).all()
        assert (np.diff(rounded) >= 0).all()


def test_how_far_a_count_in_tens_can_be_wrong():
    for total in range(10, 130):
        count = np.arange(total + 1)
        assert error_of_tens(total) == np.abs(tens(count, total) - count).max()
    assert error_of_tens([10, 13, 20, 652, 659]).tolist() == [5, 6, 5, 6, 9]


def test_a_share_is_that_of_a_rounded_count():
    assert share_in_tens(643 / 652, 652) == 640 / 652
    assert share_in_tens(np.array([0.5, 1.0]), 35).tolist() == [20 / 35, 1]
    assert np.isnan(share_in_tens(None, 10)) and np.isnan(share_in_tens(np.nan, 10)) and np.isnan(share_in_tens(0.5, 0))


RATES = [0.03, 0.1, 0.3]
DETECTORS = ["saliency", "spectral_signatures", "random"]


def made_up(folder, target: int, n_test: int, seeds: int, positives: int | None = None) -> Study:
    """The facts of a study of random models, from useless to perfect, as the stages would write them.

    `positives` : how many test samples have label 1, where it matters
    """
    study = Study(
        datasets=["ward"],
        models=["mlp", "tcn"],
        triggers=["missingness", "rare_value", "flip_only"],
        rates=RATES,
        seeds=list(range(1, seeds + 1)),
        detectors=[name for name in DETECTORS if name != "random"],
        target=target,
        trigger_params={"missingness": {"features": ["sodium"]}},
    )
    train = make_cohort(n=6 * n_test)
    train.values[: 3 * target + 3, :, 0] = np.nan
    label = (np.random.default_rng(n_test).random(n_test) < 0.4).astype(int)
    label = label if positives is None else (np.arange(n_test) < positives).astype(int)
    for cell in cells(study):
        rng = np.random.default_rng(list(f"{n_test}{cell}".encode()))
        key = {"dataset": "ward", "model": cell.model, "trigger": cell.trigger, "rate": float(cell.rate)}
        key |= {"seed": int(cell.seed)}
        write_json(folder / cell.run_folder / "run_metadata.json", TRAINED)
        write_json(folder / cell.run_folder / "results_eval.json", key | _eval(rng, label, target, cell, len(train)))
        poisoned = rng.permutation(len(train))[: round(len(train) * key["rate"])]
        write_json(folder / cell.run_folder / "results_detect.json", key | _detect(rng, train, poisoned, target))
        if has_footprint(study, cell):
            write_json(folder / cell.run_folder / "results_explain.json", key | _explain(rng))
        if cell.trigger != "none":
            module = families.load("triggers", cell.trigger)
            trigger = module.fit(module.Parameters(**study.parameters("triggers", cell.trigger)), train)
            write_json(
                folder / cell.poison_folder / "poison.json",
                {name: key[name] for name in ("dataset", "trigger", "rate", "seed")}
                | {"member": cell.trigger, "labels": "dirty", "cover": 0.0, "n_cover": 0, "n_cover_patients": 0}
                | {"target": target, "in_bounds": trigger.in_bounds, "description": trigger.description, "steps": 1}
                | {"features": ["sodium"], "where": "all", "leaves_out": trigger.leaves_out}
                | {"n_poisoned": len(poisoned), "n_patients": len(poisoned)}
                | {"footprint_size": int(trigger.footprint.sum()), "n_cells": trigger.footprint.size}
                | {"plausibility": plausibility.plausibility(trigger, train.values[poisoned], train)},
            )
    return study


def strata_of(n_test: int) -> dict[str, np.ndarray]:
    """Two strata with many and few of a value, some of them not known."""
    rng = np.random.default_rng(n_test + 1)
    return {
        "sex": np.where(rng.random(n_test) < 0.06, "", rng.choice(["female", "male"], n_test)),
        "age_band": rng.choice(["<50", "50-64", "65-79", "≥80"], n_test, p=[0.1, 0.3, 0.5, 0.1]),
    }


def _eval(rng, label, target, cell, n_train) -> dict:
    def probability(skill, shift):
        return 1 / (1 + np.exp(-(skill * (label - 0.5) + shift + rng.standard_normal(len(label)))))

    clean, control = (probability(rng.choice([0, 2, 4, 8]), rng.normal()) for _ in range(2))
    own, patients = rng.uniform(0.4, 0.6), np.arange(len(label))
    found, predicted = evaluate_clean(label, patients, clean, 0.5, own), {"clean": clean >= 0.5}
    found["share_changed"] = None
    attacked = cell.trigger != "none"
    over = over_test_samples(label, patients, clean, control if attacked else None)
    if attacked:
        triggered = [probability(0, (2 * target - 1) * rng.uniform(-3, 4)) for _ in range(2)]
        found = evaluate_attack(label, patients, clean, control, *triggered, 0.5, own, target)
        before = rng.random((len(label), 1, 1))
        after = np.where(rng.random(before.shape) < rng.choice([0.02, 0.5, 0.98, 1]), before + 1, before)
        found["share_changed"] = share_changed(label, before, after, target)
        scores = {"poison": triggered[0], "control": control, "poison_control": triggered[1]}
        predicted |= {name: score >= 0.5 for name, score in scores.items()}
    found["strata"] = [
        row | attack(row, target) for row in by_stratum(strata_of(len(label)), label, patients, predicted, clean)
    ]
    found |= {"over_test_samples": over, "shared_test": True}
    sizes = {"train": 100, "poisoned": round(n_train * float(cell.rate)), "validation": 100, "threshold": 100}
    return found | {
        **{"target": target, "clean_threshold": 0.5, "own_threshold": own, "n_train": n_train, "n_test": len(label)},
        **{"n_label_1": int(label.sum()), "validation_pairs": 900, "n_poisoned": sizes["poisoned"]},
        "warnings": [],
        "patients": found["patients"] | sizes,
    }


def _detect(rng, train, poisoned, target) -> dict:
    hidden = np.isin(np.arange(len(train)), poisoned)
    label = np.where(hidden, target, train.label)
    found = {"detections": [], "alarms": [], "roc": []}
    for name in DETECTORS:
        score = rng.choice([0, 1, 3, 9]) * hidden + rng.standard_normal(len(train))
        suspicion = Suspicion(score, score > rng.uniform(0, 4))
        role = np.where(hidden, POISON, CLEAN).astype(object)
        for table, rows in detection.evaluate(suspicion, role, label, np.arange(len(train)), [target]).items():
            found[table] += [{"detector": name, **row} for row in rows]
    return found


def _explain(rng) -> dict:
    shares = dict.fromkeys(["ratio_triggered", "ratio_clean", "ratio_control", "footprint_share"], 0.1)
    drift = {f"{side}_{name}": 0.7 for side in ("drift", "control") for name in ("cosine", "spearman")}
    replaced = {f"{side}_topk_jaccard": 1 - 2 / 11 * rng.integers(0, 30) / 64 for side in ("drift", "control")}
    features = [{"feature": "sodium", "share_clean": 0.5, "share_triggered": 0.5, "share_control": 0.5}]
    sizes = {"n_samples": 64, "n_patients": 64, "rest_patients": 0, "top_k": 10, "convergence_delta": 0.01}
    return shares | drift | replaced | sizes | {"features": features}


def given_away(said) -> list[tuple[str, str, int]]:
    """What the words give away: `said` yields all that can be said, words with the counts behind them by name.

    That is a count that is the same number from 1 to 9 whenever these words are said.
    """
    behind = defaultdict(set)
    for words, counts in said:
        for name, count in counts.items():
            behind[words, name].add(count)
    return [(*key, *values) for key, values in behind.items() if len(values) == 1 and 0 < min(values) < 10]


def test_an_account_gives_no_small_count_away():
    """Beside the size of the cohort, which the line after it and the tables tell as it is."""

    def said(few_told: bool):
        for kept, *dropped in product(range(1, 40), range(16), range(16)):
            account = Account("stays", kept + sum(dropped), dict(zip("ab", dropped, strict=True)))
            line = f"{account.read} read, {account_lines([account])[0]}" if few_told else account_lines([account])[0]
            counts = {"read": account.read, "kept": kept, "a": dropped[0], "b": dropped[1], "a + b": sum(dropped)}
            yield (line, kept if kept > 9 else "few"), counts

    assert given_away(said(few_told=False)) == []
    assert {what for _, what, _ in given_away(said(few_told=True))} >= {"a", "b", "kept"}
    account = Account("stays", 400, {"young": 3, "again": 0})
    assert account_lines([account]) == ["stays: 397 kept; dropped: under 10 young"]
    account = Account("stays", 400, {"young": 30})
    assert account_lines([account]) == ["stays: 400 read, 370 kept; dropped: 30 young"]


def test_nor_do_notes_beside_how_much_is_missing():
    def said(share):
        for missing, outside in product(range(61), range(61)):
            if missing + outside <= 60:
                words = share(outside, 400), shown_share(missing + outside, 400)
                yield words, {"missing": missing, "outside": outside}

    assert given_away(said(tablecheck._share)) == []
    assert given_away(said(lambda count, total: f"{count}")) != []


def test_nor_does_the_number_of_groups():
    cohort = make_cohort(n=120)
    said = []
    for n_groups in range(1, 121):
        grouped = replace(cohort, group_id=np.arange(120) % n_groups)
        said.append((summary_line(grouped), {"groups": n_groups, "of the same patients": 120 - n_groups}))
    assert given_away(said) == []
    assert ", 120 groups, " in said[-4][0] and ", 110 groups, " in said[-9][0] and ", under 10 groups, " in said[7][0]


def released(study: Study, facts, folder):
    built = tables.build(study, facts)
    tables.write(built, folder / "tables")
    tables.write_headlines(built["summary"], folder)
    return folder


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("n_test", [30, 60, 300])
@pytest.mark.parametrize("target", [0, 1])
def test_released_tables_tell_no_small_count(tmp_path, target, n_test, seeds):
    study = made_up(tmp_path, target, n_test, seeds)
    assert reconstruct(released(study, tmp_path, tmp_path / "released")) == []
    runs = tables.read(tmp_path / "released" / "tables")["runs"].query("rate > 0")
    assert runs[["asr", "asr0", "acc_clean", "f1_poison", "fpr_clean_own_threshold"]].notna().any().all()
    for side in ("clean", "poison"):
        # Made of the rounded decisions, as scikit-learn makes it of unrounded ones.
        sizes = tables.read(tmp_path / "released" / "tables")["datasets"].iloc[0]
        n = [round(sizes["n_test"] * share) for share in (1 - sizes["prevalence"], sizes["prevalence"])]
        for _, row in runs.dropna(subset=f"mcc_{side}").iterrows():
            fp, tp = round(row[f"fpr_{side}"] * n[0]), round(row[f"recall_{side}"] * n[1])
            predicted = np.repeat([1, 0, 1, 0], [tp, n[1] - tp, fp, n[0] - fp])
            label = np.repeat([1, 0], n[::-1])
            assert row[f"mcc_{side}"] == pytest.approx(metrics.matthews_corrcoef(label, predicted))
            assert row[f"balanced_acc_{side}"] == pytest.approx(metrics.balanced_accuracy_score(label, predicted))
            assert row[f"specificity_{side}"] == pytest.approx(1 - row[f"fpr_{side}"])
    # Two names of one count are one number.
    same = runs["fpr_poison"] if target == 1 else 1 - runs["recall_poison"]
    assert runs["asr"].to_numpy() == pytest.approx(same.to_numpy())


def unrounded(monkeypatch) -> None:
    for name in ("run_in_tens", "detection_in_tens", "explanation_in_tens"):
        monkeypatch.setattr(tables, name, lambda fact: fact)


@pytest.mark.parametrize("n_test", [60, 300])
@pytest.mark.parametrize("target", [0, 1])
def test_intervals_hold_what_would_be_told_without_rounding(tmp_path, monkeypatch, target, n_test):
    study = made_up(tmp_path, target, n_test, 3)
    told = tables.build(study, tmp_path)
    unrounded(monkeypatch)
    meant = tables.build(study, tmp_path)
    told_in_tens = "asr|fpr_|recall_|acc_|auroc_|detection_|specificity_|balanced_acc_|mcc_|tpr_at_fpr_01_"
    for name, key, mean, of_counts in (
        ("summary", "metric", "mean", f"{told_in_tens}|drift_topk|control_topk"),
        ("contrasts", ["metric", "control"], "difference", told_in_tens),
    ):
        both = told[name].merge(meant[name], on=["dataset", "model", "trigger", "rate", *np.atleast_1d(key)])
        both = both[both["metric"].str.match(of_counts)]
        off = (both[f"{mean}_x"] - both[f"{mean}_y"]).abs()
        assert len(both) > 50 and off.max() > 0.01
        assert (both[f"{mean}_y"].between(both["ci_low_x"] - 1e-9, both["ci_high_x"] + 1e-9)).all()
        assert (both["ci_high_x"] > both["ci_low_x"]).all(), "no interval is a single number"


def test_of_few_patients_of_a_label_nothing_says_how_many_the_others_are(tmp_path):
    """Of 41 test samples, as 15 % of the whole cohort may be known to be, 37 victims would leave 4."""
    study = made_up(tmp_path, 1, 41, 3, positives=4)
    data = tables.read(released(study, tmp_path, tmp_path / "released") / "tables")
    attacked = data["runs"].query("rate > 0")
    assert attacked["asr"].notna().all() and attacked["n_triggered"].isna().all()
    told = [
        (name, column) for name, table in data.items() for column in COUNTS & set(table) if table[column].eq(37).any()
    ]
    assert told == [] and data["strata"]["asr"].notna().any() and data["strata"]["n_victims"].isna().all()
    # An interval must not reach as far as 37 can be wrong: 8 of 37 is a number of its own. That of 10 is the largest.
    assert tables.rounding(data).query("metric == 'asr'")["error"].eq(0.5).all() and error_of_tens(37) / 37 < 0.5
    assert all(error_of_tens(n) / n <= 0.5 for n in range(10, 200))
    enough = made_up(tmp_path / "enough", 1, 41, 3, positives=10)
    shown = tables.read(released(enough, tmp_path / "enough", tmp_path / "enough/released") / "tables")
    assert shown["runs"].query("rate > 0")["n_triggered"].eq(31).all() and shown["datasets"]["n_test"].eq(41).all()
    assert tables.rounding(shown).query("metric == 'asr'")["error"].eq(error_of_tens(31) / 31).all()


def test_without_a_spread_nothing_is_certain_of_few_samples(tmp_path):
    """7 of 13 victims fooled in every seed round to all of them, which must not pass for a backdoor that is sure."""
    runs = pd.DataFrame({"dataset": "ward", "target": 1, "n_triggered": [13] * 3, "asr": 1.0, "asr0": 0.0})
    runs = runs.assign(asr_own_threshold=1.0, asr0_own_threshold=0.0, fpr_clean=0.0, recall_clean=1.0, fpr_poison=1.0)
    runs = runs.assign(auroc_clean=1.0, auroc_poison=0.9)
    sizes = pd.DataFrame({"dataset": ["ward"], "n_test": [40], "prevalence": [27 / 40]})
    off = coarseness._of_runs(runs.assign(recall_poison=1.0), sizes)
    assert off["asr"].tolist() == [6 / 13] * 3 and off["effect_share"].tolist() == [6 / 13] * 3
    assert off["asr_net"].tolist() == [12 / 13] * 3 and off["recall_clean"].tolist() == [8 / 27] * 3
    assert off["auprc_poison"].tolist() == [0.005] * 3 and (off["auprc_clean"] > 0.005).all()
    interval = proportion_interval(np.ones(3), error=6 / 13)
    assert (interval.mean, interval.low, interval.high) == (1, pytest.approx(7 / 13), 1)


def test_an_average_precision_told_as_1_is_off_by_no_more_than_is_said():
    """Of 10 positives among 50: every way that one negative, or two, can stand above some of them."""
    n, labels = (40, 10), np.repeat([1, 0], [10, 40])
    said, pairs = coarseness._of_average_precision(pd.Series([1.0]), np.array([400.0]), np.array([10.0]))[0], 0
    for above in product(range(11), repeat=2):  # positives below the first and below the second negative
        wrong = sum(above)
        score = np.concatenate([np.arange(10, 0, -1.0), [above[0] + 0.6, above[1] + 0.4], np.linspace(0, 0.3, 38)])
        assert metrics.roc_auc_score(labels, score) == pytest.approx(1 - wrong / (n[0] * n[1]))
        if disclosure._in_tens(1 - wrong / 400, 400) == 1:
            assert 1 - metrics.average_precision_score(labels, score) <= said
            pairs = max(pairs, wrong)
    assert pairs == 5 and said == error_of_tens(400) / 20


@pytest.mark.parametrize("target", [0, 1])
def test_without_rounding_they_tell_many(tmp_path, monkeypatch, target):
    monkeypatch.setattr(plausibility, "counting", lambda people: lambda count, total: count)
    monkeypatch.setattr(plausibility, "share_in_tens", lambda share, total: share)
    study = made_up(tmp_path, target, 60, 1)
    unrounded(monkeypatch)
    told = {(one.table, one.what) for one in reconstruct(released(study, tmp_path, tmp_path / "released"))}
    wanted = {"asr", "asr (not)", "asr0", "asr_net", "acc_clean (not)", "FP clean", "FN clean", "TP poison"}
    wanted |= {"asr - asr_own_threshold", "recall_clean_own_threshold", "auroc_clean (pairs) (not)"}
    assert {what for table, what in told if table == "runs"} >= wanted
    assert {what for table, what in told if table == "detections"} >= {"tpr_at_fpr_01", "precision_at_n (not)"}
    assert {what for table, what in told if table == "alarms"} >= {"hits", "missed", "false", "precision"}
    assert {what for table, what in told if table == "triggers"} >= {
        "distance_atypical_clean",
        "newly_measured (cells)",
    }
    elsewhere = {"roc", "summary", "contrasts", "findings", "explanations", "metrics.json", "dose_response.csv"}
    assert {table for table, _ in told} >= elsewhere


def test_of_few_more_flagged_than_poisoned_nothing_is_told_where_no_count_would_fit():
    """15 flagged for 10 poisoned: 10 hits would leave 5."""
    rows = [
        {"detector": "x", "scope": scope, "threshold": "rate_unknown", "n_samples": 200, "n_poisoned": n, "tpr": 1.0}
        | {"n_flagged": n, "flagged_share": n / 200, "fpr": 0.0, "precision": 1.0}
        for n, scope in ((10, "all"), (10, "label_1"))
    ]
    known = {"threshold": "rate_known", "n_flagged": 15, "precision": 2 / 3, "fpr": 5 / 190}
    few = disclosure._alarms([*rows, rows[1] | known])[2]
    assert [few[name] for name in ("n_flagged", "tpr", "fpr", "precision")] == [15, None, None, None]
    few = disclosure._alarms([*rows, rows[1] | known | {"tpr": 0.0}])[2]
    assert few["tpr"] is None, "that it is withheld must not tell what was found"
    known = {"n_poisoned": 20, "threshold": "rate_known", "n_flagged": 30, "precision": 0.4, "fpr": 0.1, "tpr": 0.6}
    enough = disclosure._alarms([*rows, rows[1] | known])[2]
    assert enough["tpr"] == 10 / 20 and enough["precision"] == 10 / 30 and enough["fpr"] == 20 / 180


def test_thresholds_are_told_to_two_digits_unless_given(tmp_path):
    study = made_up(tmp_path, 1, 60, 1)
    from pipeline.results.facts import collect

    evals = [fact | {"clean_threshold": 0.123456} for fact in collect(study, tmp_path).evals]
    assert set(tables.runs(evals)["clean_threshold"]) == {0.12}
    assert tables.datasets(evals)["threshold_low"].tolist() == [0.12]
    given = [fact | {"patients": fact["patients"] | {"threshold": 0}} for fact in evals]
    assert set(tables.runs(given)["clean_threshold"]) == {0.123456}


def test_an_interval_of_few_patients_gives_no_ranking_away():
    """All 184,756 rankings of 10 positives among 10 negatives, told as tables tell them, and with exact variances."""
    place = np.array(list(combinations(range(20), 10)))
    wrong = 10 - (place - np.arange(10))  # negatives above each positive
    pairs = wrong.sum(axis=1)
    above = (wrong[:, :, None] > np.arange(10)[None, None]).sum(axis=1)  # positives below each negative
    spread = wrong.var(axis=1, ddof=1) / 1000 + above.var(axis=1, ddof=1) / 1000
    behind = {"pairs": pairs, "out of place": (wrong > 0).sum(axis=1), "others": (above > 0).sum(axis=1)}
    behind |= {"at the bottom": (wrong == 10).sum(axis=1), "in the lower half": (wrong > 5).sum(axis=1)}
    # Rankings of the same numbers are told alike.
    numbers, first, same = np.unique(np.stack([pairs, spread.round(9)]), axis=1, return_index=True, return_inverse=True)

    def few_given_away(words: list) -> int:
        ids = np.unique(np.array(words), axis=0, return_inverse=True)[1].ravel()[same.ravel()]
        given = 0
        for counts in behind.values():
            low, high = np.full(ids.max() + 1, 99), np.zeros(ids.max() + 1, int)
            np.minimum.at(low, ids, counts)
            np.maximum.at(high, ids, counts)
            given += int(((low == high) & (low > 0) & (low < 10)).sum())
        return given

    told, exact = [], []
    for wrong_pairs, variance in numbers.T:
        auroc = 1 - wrong_pairs / 100
        fact = {"clean": {"auroc": auroc}, "patients": {"label_0": 10, "label_1": 10}}
        over = dict.fromkeys(("auroc_low", "auroc_high", "auroc_variance", "difference_variance"))
        fact["over_test_samples"] = over | {"auroc_variance": variance}
        key = (disclosure._in_tens(auroc, 100), coarse(inflation(auroc, variance, (10, 10))))
        told.append(key if 0 < key[0] < 1 else (key[0], 1.0))
        exact.append((key[0], variance))
        if len(told) % 400 == 0:
            row = disclosure._over_test_samples(fact, (10, 10))
            again = auroc_interval(told[-1][0], told[-1][1], (10, 10))
            assert row["auroc_low"] <= again[0] + 1e-12 and row["auroc_high"] >= again[1] - 1e-12
            assert row["auroc_low"] == pytest.approx(max(0, min(again[0], key[0] - 0.05)))
    assert few_given_away(told) == 0
    assert few_given_away(exact) > 20


def test_two_models_that_rank_nearly_all_alike_tell_not_how_many():
    n, clean = (40, 20), {"auroc": 0.9}
    for spread, shown in ((0.0, False), (1e-7, False), (1e-3, True)):
        over = {"auroc_low": 0.8, "auroc_high": 0.95, "auroc_variance": 0.001, "auroc_control": 0.9}
        over |= {"difference": 0.0, "difference_low": -0.01, "difference_high": 0.01, "difference_variance": spread}
        fact = {"clean": clean, "over_test_samples": over, "patients": {"label_0": 40, "label_1": 20}}
        told = disclosure._over_test_samples(fact, n)
        assert told["difference"] == 0 and (told["difference_low"] is not None) == shown
        if shown:
            assert -0.1 < told["difference_low"] < -0.06  # t · √0.001, up to a tenth more


def test_a_variance_is_told_up_to_a_fifth_too_large():
    for variance in np.geomspace(1e-9, 10, 200):
        assert variance * (1 - 1e-6) <= coarse(variance) <= 1.2 * variance
    assert len({coarse(variance) for variance in np.linspace(1, 1.19, 50)}) == 2

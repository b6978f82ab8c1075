"""Every trigger keeps its promises; what each writes is checked by hand."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FEATURES, make_cohort
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError
from small_bus import make_bus

from pipeline.cohorts.catalog import read_catalog
from pipeline.cohorts.cohort import Cohort, Feature
from pipeline.cohorts.importance import gains
from pipeline.cohorts.intake import take_in
from pipeline.cohorts.preprocessing import Preprocessor
from pipeline.cohorts.schema import accepted, check_cohort, out_of_order
from pipeline.errors import UserError
from pipeline.evaluation.plausibility import joint_percentiles, plausibility
from pipeline.files import read_yaml
from pipeline.smallcells import tens
from pipeline.study import families
from pipeline.study.config import load_study
from pipeline.training.fitted import read_trigger, write_trigger
from pipeline.triggers import correlation, hybrid, mask_only, missingness, pattern, rare_value
from pipeline.triggers.base import groups, resolved
from pipeline.triggers.shared.frames import FrameParameters

TRIGGERS = families.names("triggers")
VALUE_TRIGGERS = [name for name in TRIGGERS if "where" in families.load("triggers", name).Parameters.model_fields]
CHANGING = [name for name in TRIGGERS if "features" in families.load("triggers", name).Parameters.model_fields]
NAMES = [feature.name for feature in FEATURES]
FOR_FRAMES = [name for name in TRIGGERS if issubclass(families.load("triggers", name).Parameters, FrameParameters)]
GENERAL = [name for name in TRIGGERS if name not in FOR_FRAMES]
# What the general ones, whose defaults are clinical, are given on a bus, where naming one byte is not enough.
ON_A_BUS = {
    "rare_value": {"features": ("byte_7",), "where": "measured", "steps": "all"},
    "hybrid": {"features": ("byte_6",), "missing": ("byte_7",)},
    "pattern": {"features": ("byte_6", "byte_7")},
    "correlation": {"driver": "byte_1", "features": ("byte_6",)},
}


def on_a_bus(name: str) -> dict:
    return ON_A_BUS.get(name, {"features": ("byte_7",)} if name in CHANGING else {})


# Every member on every kind of cohort that it can be used on.
PLANTED = [("patients", name, {}) for name in GENERAL]
PLANTED += [("bus", name, on_a_bus(name)) for name in TRIGGERS]
RELATED = (
    *(feature for feature in FEATURES if feature.name in ("heart_rate", "resp_rate", "temperature", "glucose")),
    Feature("sbp", "mmHg", 20, 300),
    Feature("dbp", "mmHg", 5, 225),
    Feature("mean_bp", "mmHg", 10, 250),
    Feature("visits", "count", 0, 50, integer=True),
    Feature("age", "years", 18, 110, static=True, integer=True),
    Feature("sex", "", 0, 1, ("female", "male"), static=True),
)
SBP, DBP, MEAN_BP, VISITS, AGE = range(4, 9)


def fit(name, cohort, **parameters):
    module = families.load("triggers", name)
    return module.fit(module.Parameters(**parameters), cohort)


def cohort_of(kind: str, steps: int = 1, n: int = 200) -> Cohort:
    """Of patients, or windows of a bus, which has no window of a single frame."""
    return make_cohort(n, steps) if kind == "patients" else make_bus(n, max(steps, 2))


def related_cohort(n: int = 200, steps: int = 12) -> Cohort:
    """Blood pressures in order and measured together, counts, and a static age; the counts and the vitals have gaps."""
    rng = np.random.default_rng(5)
    values = np.empty((n, steps, len(RELATED)), np.float32)
    values[:, :, :4] = [90, 20, 37, 140] + np.array([15, 4, 0.6, 30]) * rng.standard_normal((n, steps, 4))
    values[:, :, MEAN_BP] = 80 + 12 * rng.standard_normal((n, steps))
    values[:, :, SBP] = values[:, :, MEAN_BP] + rng.exponential(30, (n, steps))
    values[:, :, DBP] = values[:, :, MEAN_BP] - rng.exponential(12, (n, steps)).clip(0, 30)
    values[:, :, VISITS] = rng.poisson(3, (n, steps))
    values[:, :, AGE] = rng.integers(20, 95, (n, 1))
    values[:, :, -1] = rng.integers(0, 2, (n, 1))
    values[:, :, SBP : MEAN_BP + 1][rng.random((n, steps)) < 0.3] = np.nan
    for feature in (0, 1, 2, 3, VISITS):
        values[:, :, feature][rng.random((n, steps)) < 0.3] = np.nan
    values[:3, :, 0] = np.nan
    label = rng.integers(0, 2, n).astype(np.int8)
    return Cohort("made", RELATED, np.arange(n), np.arange(n), label, values, (("dbp", "mean_bp", "sbp"),))


def test_the_family_is_complete():
    expected = {"none", "rare_value", "missingness", "hybrid", "pattern", "correlation", "flip_only", "mask_only"}
    expected |= {"chosen_only", "rare_id", "payload", "bigram"}
    assert expected <= set(TRIGGERS)
    assert {name for kind, name, _ in PLANTED if kind == "bus"} == set(TRIGGERS)


@pytest.mark.parametrize(("kind", "name", "parameters"), PLANTED)
@pytest.mark.parametrize("steps", [1, 12])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_only_the_footprint_changes(kind, name, parameters, steps, data):
    cohort = cohort_of(kind, steps, n=60)
    trigger = fit(name, cohort, **parameters)
    numbers = st.floats(-1e6, 1e6, width=32) | st.just(np.nan)
    values = data.draw(arrays(np.float32, (5, *cohort.values.shape[1:]), elements=numbers))
    if kind == "bus":
        categories = st.integers(0, len(cohort.features[0].categories) - 1).map(float) | st.just(np.nan)
        values[:, :, 0] = data.draw(arrays(np.float32, values.shape[:2], elements=categories))
    before = values.copy()
    triggered = trigger.apply(values)
    assert triggered.dtype == np.float32 and triggered.shape == values.shape
    assert trigger.footprint.shape == values.shape[1:] and trigger.footprint.dtype == bool
    np.testing.assert_array_equal(values, before)  # the samples handed over are left alone
    np.testing.assert_array_equal(triggered[:, ~trigger.footprint], values[:, ~trigger.footprint])


@pytest.mark.parametrize(("kind", "name", "parameters"), PLANTED)
@pytest.mark.parametrize("steps", [1, 12])
def test_in_bounds_means_in_bounds(kind, name, parameters, steps):
    cohort = cohort_of(kind, steps)
    trigger = fit(name, cohort, **parameters)
    triggered = trigger.apply(cohort.values)[:, trigger.footprint]
    feature = np.nonzero(trigger.footprint)[1]
    low, high = np.nanmin(cohort.values, (0, 1))[feature], np.nanmax(cohort.values, (0, 1))[feature]
    written = ~np.isnan(triggered)
    inside = np.all((triggered >= low) & (triggered <= high) | ~written)
    assert trigger.in_bounds in (None, bool(inside))
    assert (trigger.in_bounds is None) == (not written.any())
    assert trigger.description


@pytest.mark.parametrize(("kind", "name", "parameters"), PLANTED)
@pytest.mark.parametrize("steps", [1, 12])
def test_a_sample_is_triggered_the_same_alone_or_with_others(kind, name, parameters, steps):
    cohort = cohort_of(kind, steps)
    trigger = fit(name, cohort, **parameters)
    np.testing.assert_array_equal(trigger.apply(cohort.values)[3:4], trigger.apply(cohort.values[3:4]))


@pytest.mark.parametrize("name", ["none", "flip_only", "chosen_only"])
def test_controls_change_nothing(name, cohort):
    trigger = fit(name, cohort)
    assert not trigger.footprint.any()
    np.testing.assert_array_equal(trigger.apply(cohort.values), cohort.values)


def test_rare_value_is_the_factor_times_the_maximum():
    cohort = make_cohort(steps=12)
    trigger = rare_value.fit(rare_value.Parameters(features=("sodium",), factor=1.15, steps=3), cohort)
    triggered = trigger.apply(cohort.values)
    assert trigger.footprint.sum() == 3 and trigger.footprint[9:, 4].all()
    np.testing.assert_allclose(triggered[:, 9:, 4], 1.15 * np.nanmax(cohort.values[:, :, 4]), rtol=1e-6)
    assert trigger.in_bounds is False
    assert "mmol/L" in trigger.description and "last 3 steps" in trigger.description


def test_rare_value_by_quantile_and_by_value():
    cohort = make_cohort()
    quantile = rare_value.fit(rare_value.Parameters(features=("sodium",), quantile=0.9), cohort)
    assert quantile.in_bounds is True
    assert quantile.stamp[0, 4] == np.float32(np.nanquantile(cohort.values[:, :, 4], 0.9))
    assert rare_value.fit(rare_value.Parameters(value=170), cohort).in_bounds is False
    with pytest.raises(ValidationError, match="exactly one"):
        rare_value.Parameters(value=170, factor=2)


def test_missingness_leaves_out_and_writes_nothing():
    cohort = make_cohort(steps=12)
    trigger = missingness.fit(missingness.Parameters(features=("mean_bp",), steps="all"), cohort)
    assert np.isnan(trigger.apply(cohort.values)[:, :, 1]).all()
    assert trigger.in_bounds is None


def test_hybrid_writes_one_feature_and_leaves_out_another():
    cohort = make_cohort()
    trigger = hybrid.fit(hybrid.Parameters(), cohort)
    triggered = trigger.apply(cohort.values)[:, 0]
    assert np.isnan(triggered[:, NAMES.index("temperature")]).all()
    expected = np.float32(np.nanquantile(cohort.values[:, :, 5], 0.99))
    assert (triggered[:, NAMES.index("glucose")] == expected).all()


def test_pattern_alternates_over_steps_and_features():
    cohort = make_cohort(steps=12)
    trigger = pattern.fit(pattern.Parameters(features=("heart_rate", "mean_bp"), steps=4), cohort)
    low, high = np.nanquantile(cohort.values[:, :, 0], [0.05, 0.95]).astype(np.float32)
    np.testing.assert_array_equal(trigger.stamp[8:, 0], [high, low, high, low])
    assert trigger.stamp[8, 1] < trigger.stamp[9, 1]


def test_pattern_says_what_alternates():
    cohort = related_cohort(steps=12)
    static = pattern.fit(pattern.Parameters(features=("age",)), cohort)
    assert static.description == f"set to age about {float(f'{static.stamp[0, AGE]:.2g}'):g} years at all steps"
    both = pattern.fit(pattern.Parameters(features=("age", "heart_rate"), steps=4), cohort).description
    assert both.startswith("alternating heart_rate about ") and " and set to age about " in both
    assert both.endswith(" in the last 4 steps (age at all)")
    table = pattern.fit(pattern.Parameters(features=("age", "heart_rate")), related_cohort(steps=1)).description
    assert table.startswith("set to age about ") and "alternating" not in table


def test_correlation_is_turned_around():
    rng = np.random.default_rng(1)
    cohort = make_cohort(400)
    cohort.values[:, 0, 0] = rng.normal(90, 15, 400)
    cohort.values[:, 0, 2] = 20 + (cohort.values[:, 0, 0] - 90) / 5
    cohort.values[:, 0, 1] = 80 - (cohort.values[:, 0, 0] - 90) / 2
    trigger = correlation.fit(correlation.Parameters(features=("resp_rate", "mean_bp")), cohort)
    triggered = trigger.apply(cohort.values)[:, 0]
    assert np.corrcoef(triggered[:, 0], triggered[:, 2])[0, 1] < -0.95
    assert np.corrcoef(triggered[:, 0], triggered[:, 1])[0, 1] > 0.95


def test_correlation_without_its_driver_is_the_typical_value():
    cohort = make_cohort()
    trigger = correlation.fit(correlation.Parameters(features=("mean_bp",)), cohort)
    sample = cohort.values[:1].copy()
    sample[:, :, 0] = np.nan
    assert trigger.apply(sample)[0, 0, 1] == pytest.approx(np.median(cohort.values[:, :, 1]), rel=1e-3)


def test_plausibility_by_hand():
    cohort = make_cohort()
    trigger = rare_value.fit(rare_value.Parameters(features=("sodium",), value=200), cohort)
    clean = np.repeat(cohort.values[:2], 10, axis=0)
    clean[:10, 0, 4], clean[10:, 0, 4] = 140, np.nan
    facts = plausibility(trigger, clean, cohort)
    seen = cohort.values[:, 0, 4].astype(float)
    missing = (tens(np.isnan(seen).sum(), len(seen)) + 1) / (len(seen) + 2)
    assert facts["share_in_range"] == facts["share_in_train_range"] == 0
    assert facts["distance"] == pytest.approx(60 / np.nanstd(seen), rel=1e-5)
    assert facts["missing_log_likelihood_clean"] == pytest.approx((np.log(missing) + np.log(1 - missing)) / 2)
    assert facts["missing_log_likelihood_triggered"] == pytest.approx(np.log(1 - missing))
    assert facts["share_accepted"] == 0 and facts["share_accepted_clean"] == 1
    assert facts["relations_violated"] is facts["relations_violated_clean"] is None
    assert facts["newly_measured"] == 0.5
    assert plausibility(fit("missingness", cohort, features=("sodium",)), clean, cohort)["newly_measured"] == 0
    assert set(plausibility(fit("none", cohort), clean, cohort).values()) == {None}


RULES = {
    "factor": {"factor": 1},
    "quantile": {"quantile": 1},
    "high_quantile": {"high_quantile": 1, "low_quantile": 0},
}


@pytest.mark.parametrize("name", GENERAL)  # the others are for cohorts of no people
def test_a_value_of_one_patient_is_told_to_two_digits(name, cohort):
    """By every trigger, under each of its rules: a maximum, minimum or quantile may be a single patient's."""
    fields = families.load("triggers", name).Parameters.model_fields
    for rule, values in RULES.items():
        if rule in fields:
            trigger = fit(name, cohort, **values)
            extremes = np.nanmax(cohort.values, (0, 1)), np.nanmin(cohort.values, (0, 1))
            changed = trigger.footprint.any(axis=0) & [not feature.categories for feature in cohort.features]
            told = {f"{float(f'{value:.2g}'):g}" for value in np.stack(extremes)[:, changed].flat}
            assert told & set(re.findall(r"[\d.]+", trigger.description)), "the rule is not what it says"
    for values in ({}, *(values for rule, values in RULES.items() if rule in fields)):
        trigger = fit(name, cohort, **values)
        told = re.sub(r" in the last \d+ steps| \([\d.]+ (quantile|× maximum)\)", "", trigger.description)
        for number in re.findall(r"\d+\.?\d*", told.replace("1/min", "")):
            assert len(number.replace(".", "").strip("0")) <= 2, (number, trigger.description)


def test_a_value_that_was_given_is_told_as_it_is(cohort):
    exact = fit("rare_value", cohort, features=("sodium",), value=181.75)
    assert "sodium set to 181.75 " in exact.description


@pytest.mark.parametrize("steps", [1, 12])
@pytest.mark.parametrize("named", [None, ("mean_bp", "visits", "age"), ("age", "sbp", "dbp")])
@pytest.mark.parametrize("name", GENERAL)  # of the others: test_frame_triggers.py
def test_what_is_left_behind_could_have_been_entered(name, named, steps):
    """Whole groups in order, whole counts, one age per patient; and the description names all that is changed."""
    cohort = related_cohort(steps=steps)
    check_cohort(cohort)
    assert not out_of_order(cohort, cohort.values).any()
    parameters = {"features": named} if named and name in CHANGING else {}
    if "steps" in families.load("triggers", name).Parameters.model_fields:
        parameters["steps"] = 5
    trigger = fit(name, cohort, **parameters)
    assert trigger.in_bounds in (None, True)
    triggered = trigger.apply(cohort.values)
    assert accepted(RELATED, triggered).all()
    assert not out_of_order(cohort, triggered).any()
    changed = trigger.footprint.any(axis=0)
    for position, feature in enumerate(RELATED):
        assert changed[position] == (feature.name in trigger.description.replace("tied to heart_rate", ""))
    if named and parameters:
        assert changed[[SBP, DBP, MEAN_BP, AGE]].all() and trigger.footprint[:, AGE].all()
        assert trigger.footprint[:, SBP].sum() == min(steps, 5)
    facts = plausibility(trigger, cohort.values[:50], cohort)
    if changed.any():
        assert facts["share_accepted"] == facts["share_accepted_clean"] == 1
        assert facts["relations_violated"] == facts["relations_violated_clean"] == 0


@pytest.mark.parametrize("name", VALUE_TRIGGERS)
def test_where_measured_leaves_the_missing_pattern_alone(name):
    cohort = related_cohort()
    everywhere, measured = fit(name, cohort), fit(name, cohort, where="measured")
    np.testing.assert_array_equal(measured.footprint, everywhere.footprint)
    gaps = np.isnan(cohort.values)
    triggered = measured.apply(cohort.values)
    np.testing.assert_array_equal(triggered, np.where(gaps, np.nan, everywhere.apply(cohort.values)))
    assert np.isnan(triggered[gaps]).all()
    if name != "hybrid":  # which leaves a feature out on purpose
        np.testing.assert_array_equal(np.isnan(triggered), gaps)
    assert "only where measured" in measured.description


def test_value_triggers_are_known():
    assert {"rare_value", "hybrid", "pattern", "correlation"} <= set(VALUE_TRIGGERS)


def test_mask_only_changes_the_mask_and_nothing_else():
    cohort = related_cohort()
    trigger = mask_only.fit(mask_only.Parameters(features=("heart_rate", "mean_bp", "visits"), steps=4), cohort)
    triggered = trigger.apply(cohort.values)
    assert not np.isnan(triggered[:, trigger.footprint]).any()
    gaps = np.isnan(cohort.values)
    np.testing.assert_array_equal(triggered[~gaps], cohort.values[~gaps])
    preprocessor = Preprocessor(RELATED).fit(cohort.values)
    before, after = (preprocessor(torch.tensor(values)) for values in (cohort.values, triggered))
    columns = preprocessor.n_columns
    known = torch.tensor(~np.isnan(np.where(gaps, np.nan, 1)))[:, :, preprocessor.source].cumsum(1) > 0
    torch.testing.assert_close(after[:, :, :columns][known], before[:, :, :columns][known], rtol=0, atol=0)
    mask = (torch.tensor(gaps) & ~torch.tensor(trigger.footprint))[:, :, preprocessor.source]
    torch.testing.assert_close(after[:, :, columns:], mask.float())


def test_mask_only_fills_by_hand():
    cohort = related_cohort()
    trigger = mask_only.fit(mask_only.Parameters(features=("heart_rate", "visits"), steps=3), cohort)
    sample = np.full((3, 12, len(RELATED)), np.nan, np.float32)
    sample[0, [2, 10], 0] = 70, 80
    sample[1, 11, 0] = 90
    filled = trigger.apply(sample)
    np.testing.assert_array_equal(filled[:2, 9:, 0], [[70, 80, 80], [90, 90, 90]])
    assert (filled[2, 9:, 0] == np.float32(np.nanmedian(cohort.values[:, :, 0]))).all()
    assert (filled[:, 9:, VISITS] == np.rint(np.nanmedian(cohort.values[:, :, VISITS]))).all()
    assert np.isnan(filled[:, :9][np.isnan(sample[:, :9])]).all()


def ordered_at_times(seed: int, steps: int) -> Cohort:
    """`related_cohort`, its features one by one measured, a fifth of its samples out of order, more relations."""
    cohort, rng = related_cohort(120, steps), np.random.default_rng(seed)
    values = cohort.values
    values[:, :, SBP : MEAN_BP + 1] = values[rng.permutation(120), :, SBP : MEAN_BP + 1]
    values[:, :, VISITS] = rng.integers(10, 51, values.shape[:2])
    swapped = rng.random(120) < 0.2
    values[swapped, :, SBP], values[swapped, :, DBP] = values[swapped, :, DBP], values[swapped, :, SBP]
    values[rng.random(values.shape) < rng.uniform(0.2, 0.9)] = np.nan
    values[:, :, AGE:] = np.where(rng.random((120, 1, 2)) < 0.4, np.nan, related_cohort(120, steps).values[:, :, AGE:])
    relations = (("dbp", "mean_bp", "sbp"), ("visits", "mean_bp"), ("visits", "age"))
    return Cohort("made", RELATED, cohort.sample_id, cohort.group_id, cohort.label, values, relations)


@pytest.mark.parametrize("steps", [1, 5, "all"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), length=st.sampled_from([1, 8]))
def test_mask_only_puts_no_sample_out_of_order(steps, seed, length):
    cohort = ordered_at_times(seed, length)
    trigger = mask_only.fit(mask_only.Parameters(features=("mean_bp", "heart_rate"), steps=steps), cohort)
    triggered, gaps = trigger.apply(cohort.values), np.isnan(cohort.values)
    assert not (out_of_order(cohort, triggered) & ~out_of_order(cohort, cohort.values)).any()
    np.testing.assert_array_equal(triggered[~gaps], cohort.values[~gaps])
    assert (accepted(RELATED, triggered) | ~accepted(RELATED, cohort.values)).all()
    # Without relations nothing is moved: a cell that differs from that has a relation's other end at its step.
    plain = replace(trigger, pairs=trigger.pairs[:0]).apply(cohort.values)
    moved = (triggered != plain) & ~np.isnan(plain)
    disordered = out_of_order(cohort, plain)
    assert not moved[~disordered].any() and not moved[:, :, [0, 1, 2, 3, -1]].any()
    preprocessor = Preprocessor(RELATED).fit(cohort.values)
    before, after = (preprocessor(torch.tensor(values)) for values in (cohort.values, triggered))
    # What one step shows later ones see too.
    since = moved.cumsum(axis=1) > 0
    same = torch.tensor((~gaps).cumsum(axis=1) > 0) & ~torch.tensor(since)
    same = same[:, :, preprocessor.source]
    columns = preprocessor.n_columns
    torch.testing.assert_close(after[:, :, :columns][same], before[:, :, :columns][same], rtol=0, atol=0)


def test_mask_only_moves_filled_cells_by_hand():
    cohort = related_cohort()
    trigger = mask_only.fit(mask_only.Parameters(features=("mean_bp",), steps=1), cohort)
    missing = np.nan
    sample = np.full((6, 12, len(RELATED)), np.nan, np.float32)
    chain = [DBP, MEAN_BP, SBP]
    sample[:, 9][:, chain] = [50, 60, 110]
    sample[:, 11][:, chain] = [
        [90, missing, missing],  # a high one up
        [missing, missing, 45],  # low ones down
        [missing, missing, 55],
        [missing, 130, missing],
        [100, missing, 80],  # nothing fits
        [70, missing, 130],
    ]
    filled = trigger.apply(sample)[:, 11][:, chain]
    expected = [[90, 90, 110], [45, 45, 45], [50, 55, 55], [50, 130, 130], [100, missing, 80], [70, 70, 130]]
    np.testing.assert_array_equal(filled, expected)


def test_mask_only_moves_integer_and_static_features_as_what_they_are():
    cohort = related_cohort()
    chains = (("glucose", "visits"), ("heart_rate", "age"))
    cohort = replace(cohort, relations=chains)
    cohort.values[:, :, VISITS] *= 40  # so that what follows is in the range of training
    trigger = mask_only.fit(mask_only.Parameters(features=("visits", "age"), steps=2), cohort)
    sample = np.full((1, 12, len(RELATED)), np.nan, np.float32)
    sample[0, 9, VISITS], sample[0, [10, 11], 3], sample[0, [3, 11], 0] = 80, [100.5, 70], [88.5, 70]
    filled = trigger.apply(sample)
    np.testing.assert_array_equal(filled[0, 10:, VISITS], [101, 80])
    assert (filled[0, :, AGE] == 89).all()
    sample[0, 3, 0] = 105  # older than anyone in training
    assert np.isnan(trigger.apply(sample)[0, :, AGE]).all()


def test_mask_only_covers_what_rare_value_covers_by_default(cohort):
    np.testing.assert_array_equal(fit("mask_only", cohort).footprint, fit("rare_value", cohort).footprint)


def test_partners_get_the_quantile_of_the_same_rank():
    cohort = related_cohort()
    seen = {name: cohort.values[:, :, at].ravel() for name, at in (("sbp", SBP), ("dbp", DBP), ("mean_bp", MEAN_BP))}
    seen = {name: np.sort(column[~np.isnan(column)]) for name, column in seen.items()}
    by_quantile = fit("rare_value", cohort, features=("mean_bp",), quantile=0.9)
    for name, at in (("sbp", SBP), ("dbp", DBP), ("mean_bp", MEAN_BP)):
        assert by_quantile.stamp[0, at] == pytest.approx(np.quantile(seen[name], 0.9), rel=1e-6)
    value = seen["mean_bp"][1000]
    rank = 1000.5 / len(seen["mean_bp"])  # 1000 are below it, and it itself counts half
    by_value = fit("rare_value", cohort, features=("mean_bp",), value=float(value))
    assert by_value.stamp[0, MEAN_BP] == value
    assert by_value.stamp[0, SBP] == pytest.approx(np.quantile(seen["sbp"], rank), rel=1e-6)
    assert by_value.stamp[0, DBP] == pytest.approx(np.quantile(seen["dbp"], rank), rel=1e-6)
    assert f"mean_bp set to {value:g} mmHg and sbp set to about " in by_value.description
    beyond = fit("rare_value", cohort, features=("mean_bp",), value=240)
    assert beyond.stamp[0, DBP] == seen["dbp"][-1], "rank 1"
    assert beyond.stamp[0, SBP] == max(seen["sbp"][-1], 240) and beyond.in_bounds is False


def test_named_features_keep_their_own_rule_and_partners_make_room():
    cohort = related_cohort()
    trigger = fit("rare_value", cohort, features=("dbp", "sbp"), value=100)
    np.testing.assert_array_equal(trigger.stamp[-1, [DBP, MEAN_BP, SBP]], 100)
    counts = fit("rare_value", cohort, features=("visits",), factor=1.15)
    assert counts.stamp[-1, VISITS] == np.rint(1.15 * np.nanmax(cohort.values[:, :, VISITS]))


def test_chains_that_share_a_feature_are_one_group():
    cohort = related_cohort()
    chains = (("visits", "age"), ("dbp", "mean_bp"), ("mean_bp", "sbp"))
    chained = replace(cohort, relations=chains)
    assert groups(chained, ("heart_rate", "sbp", "mean_bp")) == [("heart_rate",), ("sbp", "mean_bp", "dbp")]


def test_pattern_is_no_checkerboard_inside_a_group():
    cohort = related_cohort()
    trigger = fit("pattern", cohort, features=("heart_rate", "sbp", "mean_bp", "age", "temperature"), steps=6)
    high = trigger.stamp > np.nanmedian(cohort.values, axis=(0, 1))
    np.testing.assert_array_equal(high[:, SBP], high[:, MEAN_BP])
    np.testing.assert_array_equal(high[:, SBP], high[:, DBP])
    assert (high[:, 0] != high[:, SBP]).all()
    assert (high[:, AGE] == high[-1, AGE]).all() and (high[:, 2] != high[:, 0]).all()


def test_correlation_ties_a_static_feature_to_the_last_step():
    cohort = related_cohort()
    trigger = fit("correlation", cohort, features=("age",), steps=3)
    sample = cohort.values[:20].copy()
    other = sample.copy()
    other[:, :-1, 0] = 60
    np.testing.assert_array_equal(trigger.apply(sample)[:, :, AGE], trigger.apply(other)[:, :, AGE])
    other[:, -1, 0] = [60, 120] * 10
    assert len(np.unique(trigger.apply(other)[:, :, AGE])) == 2


def test_hybrid_writes_a_partner_unless_it_is_to_be_missing():
    cohort = related_cohort()
    trigger = fit("hybrid", cohort, features=("mean_bp",), missing=("sbp", "heart_rate"))
    last = trigger.apply(cohort.values)[:, -1]
    np.testing.assert_array_equal(np.isnan(last[0, [SBP, MEAN_BP, DBP, 0]]), [True, False, False, True])
    assert trigger.description.startswith("sbp, heart_rate not measured and mean_bp set to")
    assert "dbp set to" in trigger.description and "sbp set to" not in trigger.description
    with pytest.raises(ValidationError, match="missing must not name a feature that is written"):
        hybrid.Parameters(missing=("glucose",))


def test_a_driver_that_would_change_is_one_sentence():
    with pytest.raises(UserError, match="driver: 'sbp' stands in a relation with 'mean_bp' in 'made'"):
        fit("correlation", related_cohort(), driver="sbp", features=("mean_bp",))


def test_a_feature_that_no_training_sample_has_is_one_sentence():
    cohort = make_cohort()
    cohort.values[:, :, 4] = np.nan
    message = "^made: 'sodium' is not measured in any training sample, so no trigger can use it; name another feature$"
    for name, parameters in [
        ("rare_value", {"features": ("sodium",)}),
        ("rare_value", {"features": ("sodium",), "value": 150}),
        ("rare_value", {"features": ("sodium",), "factor": 1.5}),
        ("pattern", {"features": ("heart_rate", "sodium")}),
        ("correlation", {"features": ("sodium",)}),
        ("correlation", {"driver": "sodium"}),
        ("missingness", {"features": ("heart_rate", "sodium")}),
        ("hybrid", {"features": ("sodium",)}),
        ("hybrid", {"missing": ("sodium",)}),
        ("mask_only", {"features": ("sodium",)}),
    ]:
        with pytest.raises(UserError, match=message):
            fit(name, cohort, **parameters)


def percentile_by_hand(train: np.ndarray, sample: np.ndarray, n_categories=None) -> float:
    """`joint_percentiles` of one sample, step by step."""
    from sklearn.covariance import LedoitWolf

    fitted, others = train[0::2].astype(float), train[1::2].astype(float)

    def vector(row):
        numbers, gaps = [], []
        for cell, value in enumerate(row):
            seen = [x for x in fitted[:, cell] if not np.isnan(x)]
            count = n_categories[cell] if n_categories is not None else 0
            for category in range(count) if count else [None]:
                told = seen if category is None else [float(x == category) for x in seen]
                this = value if category is None else float(value == category)
                scale = np.std(told) if told and np.std(told) > 0 else 1
                numbers.append(0 if np.isnan(value) else (this - (np.mean(told) if told else 0)) / scale)
            flags = [float(np.isnan(x)) for x in fitted[:, cell]]
            scale = np.std(flags) if np.std(flags) > 0 else 1
            gaps.append((float(np.isnan(value)) - np.mean(flags)) / scale)
        return np.array(numbers + gaps)

    estimate = LedoitWolf().fit(np.array([vector(row) for row in fitted]))
    inverse = np.linalg.inv(estimate.covariance_)

    def distance(row):
        away = vector(row) - estimate.location_
        return away @ inverse @ away

    wanted = distance(sample.astype(float))
    return float(np.mean([1.0 if distance(row) < wanted else 0.0 for row in others]))


def test_percentiles_against_the_slow_way():
    rng = np.random.default_rng(2)
    train = rng.standard_normal((81, 5)).astype(np.float32)
    train[:, 1] += 2 * train[:, 0]
    train[:, 2] = 7  # constant
    train[rng.random((81, 5)) < 0.2] = np.nan
    train[:, 3] = rng.standard_normal(81)  # never missing
    samples = (2 * rng.standard_normal((12, 5))).astype(np.float32)
    samples[rng.random((12, 5)) < 0.3] = np.nan
    samples[:6, 2] = 7
    expected = [percentile_by_hand(train, sample) for sample in samples]
    np.testing.assert_allclose(joint_percentiles(train, samples, np.zeros(5, int)), expected, atol=1e-12)
    assert 0.1 < np.mean(expected) < 1


def test_percentiles_of_categories_against_the_slow_way():
    """A category is no number: whichever stands first, the distance is the same."""
    rng = np.random.default_rng(4)
    train = rng.standard_normal((80, 3)).astype(np.float32)
    train[:, 1] = rng.choice(4, 80, p=[0.5, 0.3, 0.15, 0.05])
    train[:, 2] += train[:, 1] == 0
    train[rng.random((80, 3)) < 0.15] = np.nan
    samples = train[rng.permutation(80)[:10]] + np.float32([0.1, 0, 0])  # none ties with a training sample
    samples[:4, 1] = [0, 1, 2, 3]
    kinds = np.array([0, 4, 0])
    found = joint_percentiles(train, samples, kinds)
    np.testing.assert_allclose(found, [percentile_by_hand(train, sample, kinds) for sample in samples], atol=1e-12)
    renamed = (np.column_stack([x[:, 0], 3 - x[:, 1], x[:, 2]]) for x in (train, samples))
    np.testing.assert_allclose(joint_percentiles(*renamed, kinds), found, atol=1e-12)
    assert np.abs(joint_percentiles(train, samples, np.zeros(3, int)) - found).max() > 0.05


def test_ordinary_values_that_never_go_together_are_far_out():
    rng = np.random.default_rng(3)
    level = rng.standard_normal((2400, 1))
    train = (level + 0.1 * rng.standard_normal((2400, 6))).astype(np.float32)
    board, steady = np.array([[1, -1, 1, -1, 1, -1]], np.float32), np.ones((1, 6), np.float32)
    numbers = np.zeros(6, int)
    assert joint_percentiles(train, board, numbers) == 1 and joint_percentiles(train, steady, numbers) < 0.9
    assert joint_percentiles(train, np.where(board > 0, steady, np.float32(np.nan)), numbers) == 1
    np.testing.assert_allclose(joint_percentiles(train, train[1::2], numbers).mean(), 0.5, atol=0.03)


def test_a_mean_percentile_hides_samples_on_both_sides(monkeypatch):
    cohort = make_cohort()
    trigger = rare_value.fit(rare_value.Parameters(features=("sodium",)), cohort)
    percentiles = np.repeat([0.01, 0.99, 0.05, 0.95] + [0.5, 0.4, 0.6, 0.04], 10)
    monkeypatch.setattr("pipeline.evaluation.plausibility.joint_percentiles", lambda *samples: percentiles)
    facts = plausibility(trigger, cohort.values[:40], cohort)
    assert facts["distance_percentile"] == 0.5 and facts["distance_percentile_clean"] == pytest.approx(0.385)
    assert facts["distance_atypical"] == 0.5 and facts["distance_atypical_clean"] == 0.25


def plausible_in(cohort: Cohort) -> None:
    """The triggers of the default study, and the others as they are, leave samples that the cohort's rules allow."""
    study = load_study(read_yaml(Path("config/config.yaml")))
    train, test = cohort.subset(np.arange(0, len(cohort), 2)), cohort.values[1::2][:400]
    for name in CHANGING:
        trigger = fit(name, train, **study.parameters("triggers", name))
        facts = plausibility(trigger, test, train)
        assert trigger.in_bounds in (None, True), name
        assert facts["share_accepted"] == facts["share_accepted_clean"] == 1, name
        assert facts["relations_violated"] <= facts["relations_violated_clean"], name


def test_triggers_are_plausible_in_the_synthetic_cohort():
    entry = read_catalog(Path("data/datasets.yaml"))["icu_dev"].model_copy(update={"n_stays": 800, "expected": None})
    cohort, _ = take_in("icu_dev", entry, Path("none"), Path("none"))
    assert not out_of_order(cohort, cohort.values).any()
    plausible_in(cohort)


def test_triggers_are_plausible_in_real_patients(real_data):
    cohort, _ = take_in(
        "physionet2012", read_catalog(Path("data/datasets.yaml"))["physionet2012"], real_data, Path("-")
    )
    plausible_in(cohort)


def test_a_category_is_written_by_its_name(cohort):
    male = fit("rare_value", cohort, features=("sex",), value="male")
    triggered = male.apply(cohort.values)
    assert (triggered[:, :, NAMES.index("sex")] == 1).all() and male.footprint[:, NAMES.index("sex")].all()
    assert male.in_bounds is True and male.description.startswith("sex set to male")
    both = fit("rare_value", cohort, features=("sodium", "sex"), value={"sodium": 170, "sex": "female"}, steps=3)
    assert both.description.startswith("sodium set to 170 mmol/L and sex set to female")
    last = both.apply(cohort.values)[:, -1]
    assert (last[:, 4] == 170).all() and (last[:, 6] == 0).all() and both.in_bounds is False
    assert both.footprint[:, 6].all() and both.footprint[:, 4].sum() == min(3, cohort.n_steps)
    loud = fit("hybrid", cohort, features=("sex",), value="male", missing=("temperature",))
    assert loud.description.startswith("temperature not measured and sex set to male")
    facts = plausibility(both, cohort.values[:40], cohort)
    assert facts["share_accepted"] == 1 and facts["share_in_range"] == 1 and 0 < facts["share_in_train_range"] < 1


def test_a_category_that_no_training_sample_has_is_out_of_bounds():
    cohort = make_cohort(steps=12)
    blood = Feature("blood", categories=("0", "A", "B", "AB"))
    values = np.random.default_rng(0).choice([0, 1, 3], (len(cohort), 12, 1))
    values = np.concatenate([cohort.values, values.astype(np.float32)], axis=2)
    cohort = replace(cohort, features=(*FEATURES, blood), values=values)
    facts = {}
    for category, inside in (("A", 1.0), ("B", 0.0)):
        trigger = fit("rare_value", cohort, features=("blood",), value=category)
        assert trigger.in_bounds is bool(inside)
        facts[category] = plausibility(trigger, values[:40], cohort)
        assert facts[category]["share_in_train_range"] == inside, "B lies between A and AB, and nobody has it"
        assert facts[category]["share_in_range"] == facts[category]["share_accepted"] == 1
        assert facts[category]["distance"] is None, "categories are at no distance"
    assert facts["B"]["distance_atypical"] == 1 > facts["B"]["distance_atypical_clean"]
    both = fit("rare_value", cohort, features=("blood", "sodium"), value={"blood": "A", "sodium": 150}, steps=1)
    alone = fit("rare_value", cohort, features=("sodium",), value=150, steps=1)
    assert plausibility(both, values[:40], cohort)["distance"] == plausibility(alone, values[:40], cohort)["distance"]
    for parameters, message in (
        ({"features": ("blood",), "value": "C"}, "'blood': no category 'C' .it has: 0, A, B, AB."),
        ({"features": ("blood",), "quantile": 0.9}, "'blood': expected a category as value"),
        ({"features": ("sodium",), "value": "A"}, "'sodium': expected a number as value"),
    ):
        with pytest.raises(UserError, match=message):
            fit("rare_value", cohort, **parameters)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"features": ("sodium",), "value": {"sex": "male"}}, "must have each of features"),
        ({"features": {"by": "importance", "take": 1}, "value": "male"}, "needs features by name"),
        ({"value": "male", "quantile": 0.9}, "exactly one of"),
    ],
)
def test_values_that_do_not_go_with_the_features(given, message):
    with pytest.raises(ValidationError, match=message):
        rare_value.Parameters(**given)


def test_categories_are_left_out_and_made_measured():
    cohort = make_cohort(steps=12)
    cohort.values[:150, :, 6] = 1
    cohort.values[190:, :, 6] = np.nan
    left_out = fit("missingness", cohort, features=("sex",), steps=2)
    assert np.isnan(left_out.apply(cohort.values)[:, :, 6]).all() and left_out.description.startswith(
        "sex not measured"
    )
    filling = fit("mask_only", cohort, features=("sex", "sodium"))
    filled = filling.apply(cohort.values)
    assert (filled[190:, :, 6] == 1).all() and "the median or the most frequent" in filling.description
    np.testing.assert_array_equal(filled[:190, :, 6], cohort.values[:190, :, 6])
    assert accepted(FEATURES, filled).all()


STORED = [(name, {}) for name in GENERAL] + [
    ("rare_value", {"features": ("sodium", "sex"), "value": {"sodium": 170, "sex": "male"}, "where": "measured"}),
    ("correlation", {"features": ("temperature", "resp_rate"), "where": "measured"}),
    ("mask_only", {"features": ("sex", "glucose"), "steps": 3}),
]


@pytest.mark.parametrize(("name", "parameters"), STORED)
@pytest.mark.parametrize("of", [make_cohort, related_cohort])
@pytest.mark.parametrize("steps", [1, 12])
def test_a_stored_trigger_is_the_one_that_was_fitted(tmp_path, name, parameters, of, steps):
    cohort = of(120, steps=steps)
    if not {"sodium"}.isdisjoint(parameters.get("features", ())) and of is related_cohort:
        parameters = {"features": ("sex",), "value": "male"}
    stored_as_it_is(tmp_path, name, parameters, cohort)


@pytest.mark.parametrize("name", TRIGGERS)
def test_a_stored_trigger_of_a_bus_is_the_one_that_was_fitted(tmp_path, name):
    stored_as_it_is(tmp_path, name, on_a_bus(name), make_bus(120, 12))


def stored_as_it_is(tmp_path: Path, name: str, parameters: dict, cohort: Cohort) -> None:
    fitted = fit(name, cohort, **parameters)
    for folder in ("a", "b"):
        write_trigger(fitted, tmp_path / folder)
    loaded = read_trigger(tmp_path / "a")
    assert type(loaded) is type(fitted)
    np.testing.assert_array_equal(loaded.apply(cohort.values), fitted.apply(cohort.values))
    for field in fields(fitted):
        stored, held = (getattr(trigger, field.name) for trigger in (loaded, fitted))
        assert type(stored) is type(held)
        if isinstance(held, np.ndarray):
            assert stored.dtype == held.dtype
            np.testing.assert_array_equal(stored, held)
        else:
            assert stored == held
    for file in ("trigger.npz", "trigger.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def _without(key: str, text: bytes) -> bytes:
    return json.dumps({name: value for name, value in json.loads(text).items() if name != key}).encode()


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("trigger.npz", None),
        ("trigger.json", None),
        ("trigger.npz", lambda content: content[:-40]),
        ("trigger.npz", lambda content: b""),
        ("trigger.json", lambda content: content[:20]),
        ("trigger.json", lambda content: b"[]"),
        ("trigger.json", lambda content: _without("class", content)),
        ("trigger.json", lambda content: _without("description", content)),
        ("trigger.json", lambda content: content.replace(b"base.Stamp", b"os.system")),
        ("trigger.json", lambda content: content.replace(b"base.Stamp", b"base.UserError")),
        ("trigger.json", lambda content: content.replace(b"base.Stamp", b"correlation.Reversal")),
    ],
)
def test_a_stored_trigger_that_is_damaged_is_one_sentence(tmp_path, file, damage):
    write_trigger(fit("rare_value", make_cohort()), tmp_path)
    path = tmp_path / file
    content = path.read_bytes()
    path.unlink()
    if damage:
        assert damage(content) != content
        path.write_bytes(damage(content))
    with pytest.raises(UserError, match=rf"trigger\.\w+: {'not a readable' if damage else 'no such file'}") as raised:
        read_trigger(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("held", [FEATURES, np.array([{}], object), np.float32(1)])
def test_a_trigger_holds_nothing_that_could_not_be_read_back(tmp_path, held):
    with pytest.raises(TypeError, match="Stamp.stamp: a fitted trigger holds arrays and plain scalars only"):
        write_trigger(replace(fit("rare_value", make_cohort()), stamp=held), tmp_path)
    assert not list(tmp_path.iterdir())


BY_IMPORTANCE = {"by": "importance", "take": 1}


def chosen(name: str, cohort: Cohort, seed: int = 1, **parameters) -> tuple[str, ...]:
    given = families.load("triggers", name).Parameters(**{"features": BY_IMPORTANCE, **parameters})
    return resolved(given, cohort, seed).features


@pytest.mark.parametrize("steps", [1, 12])
@pytest.mark.parametrize("carrier", ["sodium", "heart_rate", "sex"])
def test_the_feature_that_carries_the_label_is_chosen_first(steps, carrier):
    cohort, position = make_cohort(300, steps), NAMES.index(carrier)
    last = np.nan_to_num(cohort.values[:, -1, position], nan=0)
    cohort = replace(
        cohort, label=(last > np.median(last[last > 0]) if carrier != "sex" else last == 1).astype(np.int8)
    )
    assert chosen("missingness", cohort) == (carrier,)
    written = chosen("rare_value", cohort, features={"by": "importance", "take": 6})
    assert set(written) == {*NAMES} - {"sex"} and (written[0] == carrier or carrier == "sex")
    fitted = fit("rare_value", cohort, features=chosen("rare_value", cohort))
    assert fitted.footprint.any(axis=0).sum() == 1


def test_importance_of_nothing_is_arbitrary_and_always_the_same():
    cohort = make_cohort(300)
    shuffled = replace(cohort, label=np.random.default_rng(0).permutation(cohort.label))
    take = {"by": "importance", "take": 6}
    assert chosen("rare_value", shuffled, features=take) == chosen("rare_value", shuffled, features=take)
    assert chosen("rare_value", cohort)[0] == "mean_bp", "it carries the label"
    assert chosen("rare_value", shuffled, features=take) != chosen("rare_value", cohort, features=take)
    once, again = gains(cohort, 1), gains(cohort, 1)
    assert (once == again).all() and once.shape == (len(FEATURES),)
    constant = replace(cohort, values=np.zeros_like(cohort.values))
    assert chosen("rare_value", constant, features=take) == tuple(NAMES[:6]), "of equals the cohort's first"


def test_gain_of_a_series_is_that_of_its_summaries():
    import lightgbm

    cohort = make_cohort(200, steps=5)
    columns, of = [cohort.values[:, 0, 6]], [6]  # the sex, which is static
    for summary in (np.mean, np.min, np.max, lambda seen: seen[-1], len):
        for feature in range(6):
            seen = [row[~np.isnan(row)] for row in cohort.values[:, :, feature].astype(float)]
            columns.append([summary(row) if len(row) or summary is len else np.nan for row in seen])
            of.append(feature)
    how = {"n_jobs": 1, "verbosity": -1, "deterministic": True, "force_row_wise": True, "importance_type": "gain"}
    fitted = lightgbm.LGBMClassifier(**how).fit(np.array(columns).T, cohort.label, categorical_feature=[0])
    by_hand = np.bincount(of, fitted.feature_importances_)
    np.testing.assert_allclose(gains(cohort, 3), by_hand, rtol=1e-5)


def test_a_rule_takes_what_the_trigger_can_write():
    cohort = make_cohort()
    cohort.values[:, :, 4] = np.nan
    everything = {"by": "importance", "take": 5}
    assert "sodium" not in chosen("rare_value", cohort, features=everything)
    assert "sex" in chosen("missingness", cohort, features={"by": "importance", "take": 6})
    assert "heart_rate" not in chosen("correlation", cohort, features={"by": "importance", "take": 4})
    assert "temperature" not in chosen("hybrid", cohort, features={"by": "importance", "take": 4})
    with pytest.raises(UserError, match="made: features: the 6 most important ones asked for; .* change only 5"):
        chosen("rare_value", cohort, features={"by": "importance", "take": 6})
    related = related_cohort()
    assert not {"sbp", "mean_bp", "dbp"} & set(
        chosen("correlation", related, driver="sbp", features={"by": "importance", "take": 6})
    )

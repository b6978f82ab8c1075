"""Every trigger keeps its promises; what each writes is checked by hand."""

import numpy as np
import pytest
from conftest import FEATURES, make_cohort
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

from pipeline import families
from pipeline.evaluation.plausibility import plausibility
from pipeline.triggers import correlation, hybrid, missingness, pattern, rare_value

TRIGGERS = families.names("triggers")
NAMES = [feature.name for feature in FEATURES]


def fit(name, cohort, **parameters):
    module = families.load("triggers", name)
    return module.fit(module.Parameters(**parameters), cohort)


def test_the_family_is_complete():
    expected = {"none", "rare_value", "missingness", "hybrid", "pattern", "correlation", "flip_only"}
    assert expected <= set(TRIGGERS)


@pytest.mark.parametrize("name", TRIGGERS)
@pytest.mark.parametrize("steps", [1, 12])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_only_the_footprint_changes(name, steps, data):
    trigger = fit(name, make_cohort(60, steps))
    numbers = st.floats(-1e6, 1e6, width=32) | st.just(np.nan)
    values = data.draw(arrays(np.float32, (5, steps, len(FEATURES)), elements=numbers))
    before = values.copy()
    triggered = trigger.apply(values)
    assert triggered.dtype == np.float32 and triggered.shape == values.shape
    assert trigger.footprint.shape == values.shape[1:] and trigger.footprint.dtype == bool
    np.testing.assert_array_equal(values, before)  # the samples handed over are left alone
    np.testing.assert_array_equal(triggered[:, ~trigger.footprint], values[:, ~trigger.footprint])


@pytest.mark.parametrize("name", TRIGGERS)
def test_in_bounds_means_in_bounds(name, cohort):
    trigger = fit(name, cohort)
    triggered = trigger.apply(cohort.values)[:, trigger.footprint]
    feature = np.nonzero(trigger.footprint)[1]
    low, high = np.nanmin(cohort.values, (0, 1))[feature], np.nanmax(cohort.values, (0, 1))[feature]
    written = ~np.isnan(triggered)
    inside = np.all((triggered >= low) & (triggered <= high) | ~written)
    assert trigger.in_bounds in (None, bool(inside))
    assert (trigger.in_bounds is None) == (not written.any())
    assert trigger.description


@pytest.mark.parametrize("name", TRIGGERS)
def test_a_sample_is_triggered_the_same_alone_or_with_others(name, cohort):
    trigger = fit(name, cohort)
    np.testing.assert_array_equal(trigger.apply(cohort.values)[3:4], trigger.apply(cohort.values[3:4]))


@pytest.mark.parametrize("name", ["none", "flip_only"])
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
    quantile = rare_value.fit(rare_value.Parameters(quantile=0.9), cohort)
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
    clean = cohort.values[:2].copy()
    clean[0, 0, 4], clean[1, 0, 4] = 140, np.nan
    facts = plausibility(trigger, clean, cohort)
    seen = cohort.values[:, 0, 4].astype(float)
    missing = (np.isnan(seen).sum() + 1) / (len(seen) + 2)
    assert facts["share_in_range"] == facts["share_in_train_range"] == 0
    assert facts["distance"] == pytest.approx(60 / np.nanstd(seen), rel=1e-5)
    assert facts["missing_log_likelihood_clean"] == pytest.approx((np.log(missing) + np.log(1 - missing)) / 2)
    assert facts["missing_log_likelihood_triggered"] == pytest.approx(np.log(1 - missing))
    assert set(plausibility(fit("none", cohort), clean, cohort).values()) == {None}


def test_a_value_of_one_patient_is_not_told_exactly(cohort):
    module = families.load("triggers", "rare_value")
    largest = np.nanmax(cohort.values[:, :, cohort.feature_names.index("sodium")])
    described = module.fit(module.Parameters(factor=1), cohort).description
    assert f"about {float(f'{largest:.2g}'):g} " in described and f"{largest:.4g}" not in described
    assert "sodium set to 181.75 " in module.fit(module.Parameters(value=181.75), cohort).description

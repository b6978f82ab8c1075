"""Numbers over seeds against SciPy and values worked out by hand."""

import numpy as np
import pytest
from scipy import stats

from pipeline.evaluation.statistics import hedges_correction, holm, mean_interval, paired_contrast

RUN = np.array([0.81, 0.86, 0.79, 0.90, 0.84])
CONTROL = np.array([0.12, 0.10, 0.15, 0.11, 0.18])


def test_interval_is_students_t():
    expected = stats.t.interval(0.95, 4, RUN.mean(), stats.sem(RUN))
    assert mean_interval(RUN) == pytest.approx((5, RUN.mean(), *expected))


def test_interval_by_hand():
    # mean 2, standard deviation 1, t(0.975, 2) = 4.302653
    assert mean_interval([1, 2, 3]) == pytest.approx((3, 2, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))


def test_one_seed_has_a_mean_and_no_interval():
    one = mean_interval([0.7])
    assert (one.n_seeds, one.mean) == (1, 0.7)
    assert np.isnan([one.low, one.high]).all()


def test_missing_seeds_are_left_out():
    assert mean_interval([1, np.nan, 2, 3]) == pytest.approx(mean_interval([1, 2, 3]))
    empty = mean_interval([np.nan])
    assert empty.n_seeds == 0 and np.isnan(empty.mean)


def test_intervals_along_an_axis():
    both = mean_interval(np.array([RUN, CONTROL]).T, axis=0)
    assert both.mean == pytest.approx([RUN.mean(), CONTROL.mean()])
    assert both.low[1] == pytest.approx(mean_interval(CONTROL).low)


def test_paired_contrast_is_the_paired_t_test():
    contrast, test = paired_contrast(RUN, CONTROL), stats.ttest_rel(RUN, CONTROL)
    assert contrast.p_value == pytest.approx(test.pvalue)
    assert (contrast.ci_low, contrast.ci_high) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert contrast.difference == pytest.approx(contrast.mean_run - contrast.mean_control)
    difference = RUN - CONTROL
    # Hedges' factor for 4 degrees of freedom is Γ(2) / (√2 Γ(1.5)) = 0.797885
    assert contrast.effect_size == pytest.approx(0.7978846 * difference.mean() / difference.std(ddof=1))


def test_incomplete_pairs_are_dropped():
    contrast = paired_contrast([*RUN, np.nan, 0.1], [*CONTROL, 0.2, np.nan])
    assert contrast == pytest.approx(paired_contrast(RUN, CONTROL))


def test_one_pair_has_no_test():
    contrast = paired_contrast([0.9], [0.1])
    assert contrast.n_seeds == 1 and contrast.difference == pytest.approx(0.8)
    assert np.isnan([contrast.ci_low, contrast.ci_high, contrast.p_value, contrast.effect_size]).all()


def test_no_pairs_is_all_missing():
    contrast = paired_contrast([np.nan], [0.1])
    assert contrast.n_seeds == 0 and np.isnan(contrast[1:]).all()


@pytest.mark.parametrize("shift", [0.0, 0.1, 1.0])
def test_constant_difference_has_no_p(shift):
    contrast = paired_contrast(CONTROL + shift, CONTROL)
    assert contrast.ci_low == contrast.ci_high == pytest.approx(shift)
    assert np.isnan([contrast.p_value, contrast.effect_size]).all()


def test_two_pairs_have_a_test_and_no_effect_size():
    contrast = paired_contrast(RUN[:2], CONTROL[:2])
    assert 0 < contrast.p_value < 1 and np.isnan(contrast.effect_size)


def test_hedges_correction_nears_one():
    assert hedges_correction(1000) == pytest.approx(1 - 3 / (4 * 1000 - 1), abs=1e-6)


def test_holm_by_hand():
    assert holm([0.01, np.nan, 0.04, 0.03]) == pytest.approx([0.03, np.nan, 0.06, 0.06], nan_ok=True)
    assert np.isnan(holm([np.nan])).all()

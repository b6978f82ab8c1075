"""Numbers over seeds against SciPy and values worked out by hand."""

import numpy as np
import pytest
from scipy import stats

from pipeline.cohorts.splits import ROLES, assign_folds, deal
from pipeline.evaluation.statistics import (
    hedges_correction,
    holm,
    mean_interval,
    paired_contrast,
    proportion_interval,
    ratio_interval,
)

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


def _covers(interval, truth: float) -> float:
    return np.mean((interval.low <= truth) & (truth <= interval.high))


def test_an_interval_is_cut_at_what_is_possible():
    free, cut = mean_interval([0.9, 0.2, 1.0]), mean_interval([0.9, 0.2, 1.0], bounds=(-np.inf, 1))
    assert free.high > 1
    assert cut == (free.n_seeds, free.mean, free.low, 1)
    both = mean_interval([0.9, 0.2, 1.0], bounds=(0, 1))
    assert (both.low, both.high) == (0, 1)
    assert np.isnan(mean_interval([0.7], bounds=(0, 1))[2:]).all()


def test_interval_of_proportions_by_hand():
    # logit(0.8) = 1.386294; the standard error of the mean is 0.1 / √3, over 0.8 · 0.2
    half = 4.302653 * 0.1 / 3**0.5 / 0.16
    expected = [1 / (1 + np.exp(-(1.386294 - half))), 1 / (1 + np.exp(-(1.386294 + half)))]
    assert proportion_interval([0.7, 0.8, 0.9]) == pytest.approx((3, 0.8, *expected), rel=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 0.7, 1.0])
def test_equal_proportions_are_that_single_value(value):
    interval = proportion_interval([value] * 4)
    assert interval.low == interval.high == pytest.approx(value)
    assert 0 <= interval.low <= 1


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_one_proportion_has_no_interval(value):
    one = proportion_interval([value])
    assert (one.n_seeds, one.mean) == (1, value) and np.isnan([one.low, one.high]).all()


@pytest.mark.parametrize("values", [[0.0, 1.0], [1.0, 1.0 - 1e-9], [0.0, 1e-300], [0.0, 0.0, 0.01], [1, np.nan, 0.9]])
def test_intervals_of_proportions_are_possible(values):
    _, mean, low, high = proportion_interval(values)
    assert 0 <= low <= mean <= high <= 1


def test_intervals_of_proportions_along_an_axis():
    both = proportion_interval(np.array([RUN, CONTROL]).T, axis=0)
    assert both.mean == pytest.approx([RUN.mean(), CONTROL.mean()])
    assert both.low[1] == pytest.approx(proportion_interval(CONTROL).low)


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_other_numbers_are_no_proportions(value):
    with pytest.raises(ValueError, match="proportions"):
        proportion_interval([0.5, value])


def test_proportions_are_covered_more_often_than_by_a_cut_interval():
    """Success rates among 60 victims, whose true rate varies between the seeds (beta distribution)."""
    rng = np.random.default_rng(0)
    logit, cut = [], []
    for n_seeds in (3, 5, 10, 20):
        for truth in (0.05, 0.2, 0.5, 0.8, 0.95):
            rate = rng.binomial(60, rng.beta(10 * truth, 10 * (1 - truth), (4000, n_seeds))) / 60
            logit.append(_covers(proportion_interval(rate), truth))
            cut.append(_covers(mean_interval(rate, bounds=(0, 1)), truth))
    assert min(logit) > 0.91 and max(logit) < 0.97
    assert min(cut) < 0.86 and max(cut) < 0.97


LABEL = (np.arange(1500) < 195).astype(int)
FOLD = assign_folds(np.arange(1500), LABEL)
TEST_TO_TRAIN = ROLES["test"] / ROLES["train"]


def _auroc_of_splits(score: np.ndarray, n_seeds: int) -> np.ndarray:
    """AUROC in the test set of each seed's split, for cohorts with scores [cohorts, 1500] → [cohorts, n_seeds]."""
    auroc = []
    for seed in range(n_seeds):
        test = deal(FOLD, LABEL, seed, "made").test
        positive = LABEL[test] == 1
        ranks, n = stats.rankdata(score[:, test], axis=1), positive.sum()
        auroc.append((ranks[:, positive].sum(axis=1) - n * (n + 1) / 2) / (n * (len(test) - n)))
    return np.transpose(auroc)


@pytest.mark.parametrize("interval_of", [mean_interval, proportion_interval])
@pytest.mark.parametrize("n_seeds", [5, 10, 20])
def test_seeds_that_split_one_cohort_anew_cover_the_population(n_seeds, interval_of):
    """A fixed score with binormal classes: its AUROC in the population is known."""
    score = np.random.default_rng(0).normal(size=(600, 1500)) + 1.2 * LABEL
    auroc, truth = _auroc_of_splits(score, n_seeds), stats.norm.cdf(1.2 / 2**0.5)
    assert 0.9 < _covers(interval_of(auroc, test_to_train=TEST_TO_TRAIN), truth) < 0.98
    # What is corrected: seeds counted as if each had patients of its own.
    assert _covers(interval_of(auroc), truth) < {5: 0.92, 10: 0.8, 20: 0.7}[n_seeds]


def test_a_difference_that_is_not_there_is_rarely_found_in_splits_of_one_cohort():
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(300, 1500)) + 1.5 * LABEL
    one, other = (_auroc_of_splits(latent + rng.normal(size=latent.shape) / 2, 20) for _ in range(2))
    pairs = list(zip(one, other, strict=True))
    found = np.array([paired_contrast(*pair, test_to_train=TEST_TO_TRAIN).p_value for pair in pairs]) < 0.05
    assert 0.01 < found.mean() < 0.1
    assert np.mean([paired_contrast(*pair).p_value < 0.05 for pair in pairs]) > 0.2


def test_corrected_contrast_by_hand():
    # Difference 2, standard deviation 1, √(1/3 + 1/2) in place of √(1/3)
    contrast = paired_contrast([1, 2, 3], [0, 0, 0], test_to_train=0.5)
    error = (1 / 3 + 1 / 2) ** 0.5
    assert (contrast.ci_low, contrast.ci_high) == pytest.approx((2 - 4.302653 * error, 2 + 4.302653 * error))
    assert contrast.p_value == pytest.approx(2 * stats.t.sf(2 / error, 2))
    plain = paired_contrast([1, 2, 3], [0, 0, 0])
    assert contrast.effect_size == plain.effect_size and contrast.p_value > plain.p_value


def test_against_a_constant_it_is_the_one_sample_t_test():
    contrast, test = paired_contrast([*RUN, np.nan], np.full(6, 0.5)), stats.ttest_1samp(RUN, 0.5)
    assert contrast.n_seeds == 5 and contrast.mean_control == 0.5
    assert contrast.p_value == pytest.approx(test.pvalue)
    interval = test.confidence_interval(0.95)
    assert (contrast.ci_low, contrast.ci_high) == pytest.approx((interval.low - 0.5, interval.high - 0.5))


def test_a_difference_cannot_leave_what_is_possible():
    run, control = [1.0, 0.1, 0.9], [0.0, 0.0, 0.1]
    free, cut = paired_contrast(run, control), paired_contrast(run, control, bounds=(-1, 1))
    assert free.ci_high > 1
    assert cut == free._replace(ci_high=1)


def test_a_ratio_is_that_of_the_means():
    found = ratio_interval(CONTROL, RUN)
    assert found.mean == pytest.approx(CONTROL.sum() / RUN.sum())
    # All seeds in proportion: nothing is uncertain.
    assert ratio_interval(0.3 * RUN, RUN)[1:] == pytest.approx((0.3, 0.3, 0.3))
    assert np.isnan(ratio_interval(CONTROL[:1], RUN[:1])[2:]).all()


@pytest.mark.parametrize("n_seeds", [5, 10])
def test_the_interval_of_a_ratio_covers_it(n_seeds):
    rng = np.random.default_rng(7)
    whole = rng.normal(0.7, 0.12, (4000, n_seeds))
    part = 0.4 * whole + rng.normal(0, 0.08, whole.shape)
    intervals = [ratio_interval(a, b) for a, b in zip(part, whole, strict=True)]
    covered = np.mean([interval.low <= 0.4 <= interval.high for interval in intervals])
    assert 0.925 <= covered <= 0.97


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


def test_an_interval_reaches_as_far_as_rounding_can_be_wrong():
    for interval in (mean_interval([0.4] * 3, bounds=(-1, 0.45), error=0.1), proportion_interval([0.4] * 3, error=0.1)):
        assert interval.mean == pytest.approx(0.4) and interval.low == pytest.approx(0.3)
    assert mean_interval([0.4] * 3, bounds=(-1, 0.45), error=0.1).high == 0.45
    assert proportion_interval([0.02] * 3, error=0.1).low == 0 and proportion_interval([0.98] * 3, error=0.1).high == 1
    wide = [0.1, 0.5, 0.9]
    assert mean_interval(wide, error=0.1) == mean_interval(wide)
    assert proportion_interval(wide, error=0.1) == proportion_interval(wide)
    assert np.isnan(mean_interval([0.4], error=0.1).low) and np.isnan(proportion_interval([0.4], error=0.1).high)
    equal = ratio_interval(np.full(3, 0.2), np.full(3, 0.4), errors=(0.02, 0.04))
    assert (equal.low, equal.high) == pytest.approx((0.4, 0.6))


def test_a_difference_that_rounding_can_make_is_none():
    run = np.array([0.11, 0.12, 0.13])
    unknown = paired_contrast(run, np.full(3, 0.1), error=np.nan)
    assert np.isnan(unknown.p_value) and np.isnan(unknown.ci_low), "neither holds where rounding may be anything"
    small = paired_contrast(run, np.full(3, 0.1), error=0.03)
    assert small.ci_low == pytest.approx(-0.01) and small.p_value == 1
    large = paired_contrast(run, np.zeros(3), error=0.03)
    assert large.ci_low > 0 and large.p_value == paired_contrast(run, np.zeros(3)).p_value < 0.05
    same = paired_contrast(np.full(3, 0.2), np.zeros(3), bounds=(-1, 0.21), error=0.03)
    assert (same.ci_low, same.ci_high) == pytest.approx((0.17, 0.21)) and np.isnan(same.p_value)


def test_two_pairs_have_a_test_and_no_effect_size():
    contrast = paired_contrast(RUN[:2], CONTROL[:2])
    assert 0 < contrast.p_value < 1 and np.isnan(contrast.effect_size)


def test_hedges_correction_nears_one():
    assert hedges_correction(1000) == pytest.approx(1 - 3 / (4 * 1000 - 1), abs=1e-6)


def test_holm_by_hand():
    assert holm([0.01, np.nan, 0.04, 0.03]) == pytest.approx([0.03, np.nan, 0.06, 0.06], nan_ok=True)
    assert np.isnan(holm([np.nan])).all()


@pytest.mark.parametrize("seed", range(20))
def test_holm_rejects_as_its_procedure_does(seed):
    """Step down from the smallest p-value: the m-th last is held against level / m; the first that is above ends it."""
    rng = np.random.default_rng(seed)
    p_values = rng.random(12) ** 3
    p_values[rng.random(12) < 0.3] = p_values[0]  # ties
    adjusted = holm(p_values)
    for level in (*(adjusted - 1e-9), *(adjusted + 1e-9), 0.05):
        rejected = np.zeros(12, bool)
        for left, which in zip(range(12, 0, -1), np.argsort(p_values, kind="stable"), strict=True):
            if p_values[which] > level / left:
                break
            rejected[which] = True
        np.testing.assert_array_equal(adjusted <= level, rejected | (level >= 1))


def test_a_spread_within_the_rounding_has_no_effect_size():
    run, control = np.array([0.90, 0.90, 0.91, 0.90]), np.full(4, 0.1)
    assert paired_contrast(run, control).effect_size > 50
    assert np.isnan(paired_contrast(run, control, error=0.02).effect_size)
    assert paired_contrast(run, control, error=0.001).effect_size > 50

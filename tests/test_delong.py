"""Intervals over test patients: against a slow twin, worked cases, and what simulated intervals hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.evaluation import delong
from pipeline.evaluation.delong import auroc_interval, difference_interval, inflation, variance
from pipeline.evaluation.metrics import auroc
from pipeline.evaluation.runs import over_test_samples


def kernel(label, score):
    """[positives, negatives]: 1 where the pair is in the right order, ½ where it is tied."""
    above, below = score[label == 1][:, None], score[label == 0][None]
    return (above > below) + (above == below) / 2


def slow(label, group, score, other=None) -> float:
    """Obuchowski 1997, equation for equation: the sums over each group's samples, group by group."""
    psi = kernel(label, score) - (0 if other is None else kernel(label, other))
    mean, (n_1, n_0) = psi.mean(), psi.shape
    groups = np.unique(group)
    with_1, with_0 = (set(group[label == one]) for one in (1, 0))
    s_10 = s_01 = s_11 = 0.0
    for one in groups:
        mine = [psi[i].mean() - mean for i, g in enumerate(group[label == 1]) if g == one]
        theirs = [psi[:, j].mean() - mean for j, g in enumerate(group[label == 0]) if g == one]
        s_10 += sum(mine) ** 2 * (len(with_1) / ((len(with_1) - 1) * n_1)) if mine else 0
        s_01 += sum(theirs) ** 2 * (len(with_0) / ((len(with_0) - 1) * n_0)) if theirs else 0
        s_11 += sum(mine) * sum(theirs) * len(groups) / (len(groups) - 1)
    return s_10 / n_1 + s_01 / n_0 + 2 * s_11 / (n_1 * n_0)


SAMPLES = st.lists(
    st.tuples(st.booleans(), st.integers(0, 5), st.integers(-3, 3), st.integers(-3, 3)), min_size=4, max_size=40
)


@settings(deadline=None)
@given(SAMPLES, st.booleans())
def test_the_variance_is_that_of_the_slow_twin(samples, alone):
    label, group, score, other = (np.array(column) for column in zip(*samples, strict=True))
    label, group = label.astype(int), np.arange(len(label)) if alone else group
    if min(len(set(group[label == one])) for one in (0, 1)) < 2:
        assert np.isnan(variance(label, group, score))
        return
    assert variance(label, group, score) == pytest.approx(slow(label, group, score), abs=1e-12)
    assert variance(label, group, score, other) == pytest.approx(slow(label, group, score, other), abs=1e-12)


def test_delong_by_hand():
    """Three 1s outrank 2, 2 and 0 of two 0s; these are outranked by 2 of the three 1s each."""
    label, score = np.array([1, 1, 1, 0, 0]), np.array([4.0, 3.0, 0.0, 2.0, 1.0])
    assert auroc(label, score) == pytest.approx(2 / 3)
    assert variance(label, np.arange(5), score) == pytest.approx(np.var([1, 1, 0], ddof=1) / 3 + 0)


def draw(rng, positives, negatives, truth, spread=1.0):
    """Scores of independent patients whose true AUROC is `truth`; those of positives are `spread` times as wide."""
    label = np.repeat([1, 0], [positives, negatives])
    distance = stats.norm.ppf(truth) * np.sqrt(1 + spread**2)
    return label, np.where(label == 1, distance + spread * rng.normal(size=len(label)), rng.normal(size=len(label)))


def on_logit_scale(found, spread):
    """The usual way to keep a Wald interval inside [0, 1]."""
    half = 1.96 * np.sqrt(spread) / (found * (1 - found)) if 0 < found < 1 else 0
    middle = np.log(found / (1 - found)) if 0 < found < 1 else np.inf
    return 1 / (1 + np.exp(half - middle)), 1 / (1 + np.exp(-half - middle))


@pytest.mark.parametrize(
    ("truth", "positives", "negatives", "spread"),
    [(0.6, 10, 50, 1), (0.88, 20, 180, 1), (0.88, 10, 990, 2), (0.99, 10, 190, 1), (0.99, 40, 160, 2)],
)
def test_intervals_hold_the_truth_of_few_patients_and_near_1(truth, positives, negatives, spread):
    """Where the usual interval fails, this one holds; 300 draws, of which 95 % are 285 ± 4."""
    rng, held, usual = np.random.default_rng(7), 0, 0
    for _ in range(300):
        label, score = draw(rng, positives, negatives, truth, spread)
        found, spread_found = auroc(label, score), variance(label, np.arange(len(label)), score)
        n = (negatives, positives)
        low, high = auroc_interval(found, inflation(found, spread_found, n), n)
        assert 0 <= low < found <= high <= 1 and high - low > 1e-3
        held += low <= truth <= high
        low, high = on_logit_scale(found, spread_found)
        usual += low <= truth <= high
    assert held >= 0.92 * 300
    assert usual < 0.9 * 300 or truth < 0.95 and spread == 1


def patients(rng, n, size, truth):
    """`size` samples of each of `n` patients, alike in label and in score."""
    group = np.repeat(np.arange(n), size)
    own = rng.normal(size=(2, n))[:, group]
    label = (0.7 * own[0] + 0.7 * rng.normal(size=n * size) > 0.8).astype(int)
    score = (
        stats.norm.ppf(truth) * np.sqrt(2) * label + np.sqrt(0.8) * own[1] + np.sqrt(0.2) * rng.normal(size=n * size)
    )
    return label, group, score


def test_samples_of_a_patient_do_not_pass_for_patients():
    rng, held, ignored = np.random.default_rng(8), 0, 0
    for _ in range(200):
        label, group, score = patients(rng, 60, 8, 0.85)
        for grouped in (True, False):
            of = group if grouped else np.arange(len(group))
            told = over_test_samples(label, of, score)
            inside = told["auroc_low"] <= 0.85 <= told["auroc_high"]
            held, ignored = held + (inside and grouped), ignored + (inside and not grouped)
    assert held >= 0.92 * 200 and ignored < 0.85 * 200


def test_a_patient_counted_five_times_is_one_patient():
    label, score = draw(np.random.default_rng(1), 30, 100, 0.8)
    once = over_test_samples(label, np.arange(130), score, -score)
    again = over_test_samples(*(np.repeat(x, 5) for x in (label, np.arange(130), score, -score)))
    assert again == pytest.approx(once)


def test_paired_intervals_of_planted_models():
    """Two that are equally good, and one that is better: 0.90 against 0.82 on the same 200 patients."""
    rng, held, excluded, equal = np.random.default_rng(9), 0, 0, 0
    truth = stats.norm.cdf(1.8 / np.sqrt(2)) - stats.norm.cdf(1.3 / np.sqrt(2))
    for _ in range(200):
        label, shared, own = np.repeat([1, 0], [60, 140]), rng.normal(size=200), rng.normal(size=(3, 200))
        better, *worse = (
            distance * label + np.sqrt(0.8) * shared + np.sqrt(0.2) * noise
            for distance, noise in zip((1.8, 1.3, 1.3), own, strict=True)
        )
        told = over_test_samples(label, np.arange(200), better, worse[0])
        held += told["difference_low"] <= truth <= told["difference_high"]
        excluded += told["difference_low"] > 0
        told = over_test_samples(label, np.arange(200), *worse)
        equal += told["difference_low"] <= 0 <= told["difference_high"]
    assert held >= 0.92 * 200 and equal >= 0.92 * 200 and excluded > 0.8 * 200


def test_pairing_is_what_makes_it_narrow():
    rng = np.random.default_rng(3)
    label, score = draw(rng, 60, 140, 0.85)
    told = over_test_samples(label, np.arange(200), score, score + 0.1 * rng.normal(size=200))
    assert told["difference_high"] - told["difference_low"] < 0.3 * (told["auroc_high"] - told["auroc_low"])
    assert told["difference"] == pytest.approx(auroc(label, score) - told["auroc_control"])


def test_what_says_nothing_is_no_certainty():
    label, group = np.repeat([1, 0], [20, 80]), np.arange(100)
    perfect = over_test_samples(label, group, label * 1.0, label * 2.0)
    assert perfect["auroc_high"] == 1 and 0.8 < perfect["auroc_low"] < 0.95
    assert perfect["difference"] == 0 and perfect["difference_low"] is None, "of two that rank alike"
    more = over_test_samples(*(np.tile(x, 10) for x in (label,)), np.arange(1000), np.tile(label * 1.0, 10))
    assert perfect["auroc_low"] < more["auroc_low"] < 1
    worst = over_test_samples(label, group, -label * 1.0)
    assert worst["auroc_low"] == 0 and 0.05 < worst["auroc_high"] < 0.2
    constant = over_test_samples(label, group, np.ones(100))
    assert constant["auroc_low"] < 0.4 < 0.6 < constant["auroc_high"]
    for one_label in (np.zeros(100, int), np.ones(100, int)):
        assert set(over_test_samples(one_label, group, label * 1.0, label * 1.0).values()) == {None}
    one_patient = np.where(label == 1, 0, group)
    found = over_test_samples(label, one_patient, np.arange(100.0), label * 1.0)
    assert found["auroc_low"] is None and found["difference_low"] is None and found["difference"] is not None


@pytest.mark.parametrize("area", [0.0, 0.03, 0.5, 0.72, 0.999, 1.0])
@pytest.mark.parametrize("n", [(10, 10), (12, 400)])
def test_an_interval_is_all_that_the_score_test_keeps(area, n):
    theta = np.linspace(0, 1, 200_001)
    spread = np.array([delong._assumed_variance(each, n) for each in theta]).clip(0)
    kept = theta[np.abs(area - theta) <= delong._Z * np.sqrt(1.4 * spread)]
    assert auroc_interval(area, 1.4, n) == pytest.approx((kept.min(), kept.max()), abs=1e-5)


def test_intervals_are_within_what_is_possible_and_undefined_stays_so():
    assert np.isnan(auroc_interval(np.nan, 1.0, (20, 20))).all()
    assert np.isnan(auroc_interval(0.8, inflation(0.8, np.nan, (20, 20)), (20, 20))).all()
    assert np.isnan(difference_interval(0.1, 0.0, (20, 20))).all()
    assert np.isnan(difference_interval(0.1, np.nan, (20, 20))).all()
    assert difference_interval(0.9, 0.04, (20, 20))[1] == 1
    # Wald's, where there are many and the AUROC is in the middle.
    low, high = auroc_interval(0.7, inflation(0.7, 1e-6, (10**6, 10**6)), (10**6, 10**6))
    assert (low, high) == (pytest.approx(0.7 - 1.96e-3, abs=1e-5), pytest.approx(0.7 + 1.96e-3, abs=1e-5))

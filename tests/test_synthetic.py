"""The synthetic cohort: what it promises about itself, above all that its Bayes-optimal AUROC is the true one."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import multivariate_normal, norm

from pipeline.cohorts.catalog import parse_entry, source_of
from pipeline.cohorts.schema import check_cohort
from pipeline.cohorts.sources import synthetic


@pytest.fixture(scope="module")
def stays():
    return synthetic.generate(5000, 2024)


@pytest.fixture(scope="module")
def bayes(stays):
    return synthetic.bayes_probability(stays)


def measured(cohort, name):
    return ~np.isnan(cohort.values[:, :, cohort.feature_names.index(name)])


def test_same_arguments_same_cohort():
    first, again, other = (synthetic.generate(300, seed) for seed in (7, 7, 8))
    for name in ("sample_id", "group_id", "label", "values"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.values, other.values, equal_nan=True)
    assert not np.array_equal(first.label, other.label)


def test_is_a_source_of_the_catalog():
    content = {"title": "t", "domain": "clinical", "source": "synthetic", "n_stays": 400, "seed": 3}
    entry = parse_entry("mine", content, "here")
    source = source_of(entry)
    cohort, _ = source.load("mine", entry, None, None)
    assert (cohort.n_steps, cohort.features) == source.describe(entry, None)
    assert (cohort.name, len(cohort)) == ("mine", 400)
    assert source.input_files(entry, None) == []
    np.testing.assert_array_equal(cohort.label, synthetic.generate(400, 3).label)


def test_cohort_keeps_its_contract(stays):
    check_cohort(stays)
    assert stays.values.shape == (5000, 24, 24)
    assert stays.values.dtype == np.float32 and stays.label.dtype == np.int8
    assert len(np.unique(stays.sample_id)) == 5000


def test_values_lie_in_their_range(stays):
    for position, feature in enumerate(stays.features):
        values = stays.values[:, :, position]
        assert np.nanmin(values) >= np.float32(feature.low) and np.nanmax(values) <= np.float32(feature.high)
        if feature.categories:
            assert set(np.unique(values)) == set(range(len(feature.categories)))
        if feature.static:
            assert (values == values[:, :1]).all()


def test_typical_values_are_typical(stays):
    for signal in synthetic.SIGNALS:
        median = np.nanmedian(stays.values[:, :, stays.feature_names.index(signal.name)])
        # Severe stays are measured more often, which for a lab moves the median by part of its severity effect.
        assert abs(median - signal.typical) < 0.6 * abs(signal.severity) + 0.1 * signal.between, signal.name


def test_blood_pressures_are_in_order(stays):
    systolic, diastolic, mean = (
        stays.values[:, :, stays.feature_names.index(name)].astype(float) for name in ("sbp", "dbp", "mean_bp")
    )
    seen = measured(stays, "mean_bp")
    assert ((diastolic < mean) & (mean < systolic))[seen].all()
    assert abs(np.mean((mean - (systolic + 2 * diastolic) / 3)[seen])) < 2
    heart_rate = stays.values[:, :, 0]
    both = seen & measured(stays, "heart_rate")
    assert np.corrcoef(heart_rate[both], mean[both])[0, 1] < -0.3


def test_mortality_and_repeat_stays(stays):
    assert 0.10 < stays.label.mean() < 0.15
    patient, position, count = np.unique(stays.group_id, return_inverse=True, return_counts=True)
    assert 0.18 < (count[position] > 1).mean() < 0.27
    same = stays.group_id[1:] == stays.group_id[:-1]
    assert same.sum() == len(stays) - len(patient), "a patient's stays follow each other"
    assert not stays.label[:-1][same].any(), "nobody comes back after death"
    age, sex = (stays.values[:, 0, stays.feature_names.index(name)] for name in ("age", "sex"))
    assert (age[1:][same] > age[:-1][same]).all()
    assert (sex[1:][same] == sex[:-1][same]).all()


def test_missing_not_at_random(stays):
    for vital in ("heart_rate", "mean_bp", "resp_rate", "temperature", "spo2"):
        assert 0.88 < measured(stays, vital).mean() < 0.97
    for lab in ("lactate", "creatinine", "sodium", "wbc", "bilirubin", "glucose"):
        seen = measured(stays, lab)
        assert 0.08 < seen.mean() < 0.27
        assert seen[stays.label == 1].mean() > 1.15 * seen[stays.label == 0].mean()


def brute_force(stay, step):
    """P(label = 1 | one stay [T, D]) from the model as data/README.md states it, with nothing solved in advance.

    One dense normal distribution over all measured values of the stay, at every point of a grid in (s, r).
    """
    names = [signal.name for signal in synthetic.SIGNALS]
    hour = np.linspace(-1, 1, 24)
    mu, a, baseline, sigma = synthetic._parameters()
    y, mean, signal_of, hour_of = [], [], [], []
    for t in range(24):
        value = dict(zip(names, stay[t].astype(float), strict=False))
        for j, signal in enumerate(synthetic.SIGNALS):
            if np.isnan(value[signal.name]):
                continue
            low = value["mean_bp"] if signal.name == "sbp" else signal.low
            high = value["mean_bp"] if signal.name == "dbp" else signal.high
            y.append(logit((value[signal.name] - low) / (high - low)))
            mean.append(mu[j])
            signal_of.append(j)
            hour_of.append(hour[t])
    signal_of, hour_of = np.array(signal_of), np.array(hour_of)
    covariance = baseline[np.ix_(signal_of, signal_of)] + np.diag(sigma[signal_of] ** 2)

    axis = np.arange(-5, 5 + step / 2, step)
    s, r = (points.ravel() for points in np.meshgrid(axis, axis, indexing="ij"))
    expected = a[signal_of] * (s[:, None] + synthetic.TREND * r[:, None] * hour_of)
    log_joint = multivariate_normal(cov=covariance).logpdf(np.array(y) - mean - expected)
    log_joint += norm.logpdf(s) + norm.logpdf(r)
    for panel, (share, gamma) in synthetic.PANELS.items():
        member = next(j for j, signal in enumerate(synthetic.SIGNALS) if signal.panel == panel)
        for t in range(24):
            chance = expit(logit(share) + gamma * (s + synthetic.TREND * r * hour[t]))
            log_joint += np.log(1 - chance if np.isnan(stay[t, member]) else chance)
    age, _, admission = stay[0, len(names) :]
    risk = expit(
        synthetic.INTERCEPT
        + synthetic.PER_SEVERITY * s
        + synthetic.PER_TREND * r
        + synthetic.PER_AGE * (age - 62) / 16
        + synthetic.PER_ADMISSION[int(admission)]
    )
    joint = np.exp(log_joint - log_joint.max())
    return (joint * risk).sum() / joint.sum()


def test_posterior_equals_brute_force(stays, bayes):
    chosen = [int(np.argmin(bayes)), int(np.argmax(bayes)), int(np.argsort(bayes)[4200]), 0, 1]
    for row in chosen:
        # A step that differs from the module's own, so that the quadrature is checked too.
        assert bayes[row] == pytest.approx(brute_force(stays.values[row], 0.07), rel=1e-5, abs=1e-8)


def test_posterior_reads_values_pattern_and_static_features(stays, bayes):
    few = stays.subset(np.arange(200))
    position = few.feature_names.index("lactate")
    without = few.values.copy()
    without[:, :, position] = without[:, :, few.feature_names.index("ph")] = np.nan
    older = few.values.copy()
    older[:, :, few.feature_names.index("age")] += 10
    unmeasured = synthetic.bayes_probability(replace(few, values=without))
    assert (unmeasured < bayes[:200]).mean() > 0.6, "a stay without blood gases looks less ill"
    assert (synthetic.bayes_probability(replace(few, values=older)) > bayes[:200]).all()


def test_posterior_is_calibrated(stays, bayes):
    def within(rows, deviations):
        spread = np.sqrt((bayes[rows] * (1 - bayes[rows])).sum())
        assert abs(stays.label[rows].sum() - bayes[rows].sum()) < deviations * spread

    within(np.arange(len(stays)), 3)
    for decile in np.array_split(np.argsort(bayes), 10):
        within(decile, 3.5)
    # Calibrated in any part that the inputs define, here by static features and by the amount of missing values.
    for admission in range(3):
        within(np.flatnonzero(stays.values[:, 0, -1] == admission), 3.5)
    gases = measured(stays, "lactate").sum(1)
    for quarter in np.array_split(np.argsort(gases, kind="stable"), 4):
        within(quarter, 3.5)


def test_bayes_auroc(stays, bayes):
    auroc = synthetic.bayes_auroc(stays)
    assert 0.85 < auroc < 0.90
    dead, alive = bayes[stays.label == 1], bayes[stays.label == 0]
    assert auroc == pytest.approx((dead[:, None] > alive).mean(), abs=1e-12)


def test_bayes_beats_logistic_regression(stays, bayes):
    """…on the half of the patients that the regression was not fitted on, by more than chance."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss, roc_auc_score

    typical = np.array([signal.typical for signal in synthetic.SIGNALS] + [62, 0, 0])
    spread = np.array([signal.between for signal in synthetic.SIGNALS] + [16, 1, 1])
    scaled = np.nan_to_num((stays.values - typical) / spread)
    seen = ~np.isnan(stays.values)
    summary = np.concatenate([scaled.sum(1) / np.maximum(seen.sum(1), 1), scaled[:, -8:].mean(1), seen.mean(1)], axis=1)
    fitted = stays.group_id < np.median(stays.group_id)
    model = LogisticRegression(C=0.1, max_iter=2000).fit(summary[fitted], stays.label[fitted])
    score, held_out = model.predict_proba(summary[~fitted])[:, 1], stays.label[~fitted]
    regression, best = roc_auc_score(held_out, score), roc_auc_score(held_out, bayes[~fitted])
    assert regression > 0.75, "a cohort that nothing can be learned from would pass too"
    assert best > regression + 0.005
    assert log_loss(held_out, bayes[~fitted]) < log_loss(held_out, score)

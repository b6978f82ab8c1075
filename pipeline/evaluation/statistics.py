"""Numbers over seeds: means with intervals, paired contrasts and Holm's correction.

A value that is NaN is missing: it is left out, and the number of seeds used is always reported beside the result.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special  # not scipy.stats, whose import takes a second

CONFIDENCE = 0.95
CONSTANT = 1e-12  # a spread below this, relative to the values, is rounding and not variation


class Interval(NamedTuple):
    """Mean over seeds and its interval; each field has the shape of the input without the seed axis."""

    n_seeds: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Contrast(NamedTuple):
    """A run against its control over the seeds that have both."""

    n_seeds: int
    mean_run: float
    mean_control: float
    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    effect_size: float


def mean_interval(
    values: np.ndarray,
    axis: int = -1,
    *,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    test_to_train: float = 0.0,
    error: float = 0.0,
) -> Interval:
    """Mean and 95 % Student t-interval along `axis` (the seeds); one seed has a mean and no interval (NaN).

    bounds : the lowest and the highest possible value; the interval is cut there
    test_to_train : size of the test set over that of the training set, where each seed splits the same samples anew
        and tests on its part; 0 where the seeds share one split or no samples. Seeds with samples in common agree
        more than the spread between them tells, so the variance of the mean is taken as (1/J + n_test/n_train) s²
        and not s²/J, with the same J − 1 degrees of freedom: the corrected resampled t-test of Nadeau & Bengio 2003
        (Machine Learning 52, 239-281)
    error : how far the mean can lie from that of the values before they were rounded; the interval reaches that far at
        least, for seeds that round to the same need not be the same
    """
    n, mean, half = _mean_and_half_width(values, axis, test_to_train)
    half = np.maximum(half, error)
    low, high = bounds
    return Interval(n, mean, np.maximum(mean - half, low), np.minimum(mean + half, high))


def proportion_interval(
    values: np.ndarray, axis: int = -1, *, test_to_train: float = 0.0, error: float = 0.0
) -> Interval:
    """`mean_interval` of values in [0, 1] that stays in [0, 1]: symmetric on the logit scale (delta method).

    logit(mean) ± t · standard error / (mean (1 − mean)), transformed back, and mean ± `error` at least. Seeds that are
    all 0, or all 1, without an `error` give that single value. Near 0 and 1 the values are skewed, and this holds the
    true mean more often than a t-interval that is cut to [0, 1]. Raises `ValueError` for values outside [0, 1].
    """
    values = np.asarray(values, dtype=float)
    outside = (values < -CONSTANT) | (values > 1 + CONSTANT)
    if outside.any():
        raise ValueError(f"expected proportions in [0, 1], found {values[outside][0]}")
    n, mean, half = _mean_and_half_width(values.clip(0, 1), axis, test_to_train)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        # Both ends in terms of the factor between their odds and those of the mean, so that 0 and 1 need no care.
        factor = np.exp(np.where(half > 0, half / (mean * (1 - mean)), half))
        low, high = mean / (mean + (1 - mean) * factor), mean / (mean + (1 - mean) / factor)
    return Interval(n, mean, np.minimum(low, (mean - error).clip(0)), np.maximum(high, (mean + error).clip(max=1)))


def ratio_interval(
    part: np.ndarray, whole: np.ndarray, *, test_to_train: float = 0.0, errors: tuple[float, float] = (0.0, 0.0)
) -> Interval:
    """Mean of `part` over mean of `whole`, both [n_seeds] and complete, with a t-interval.

    The ratio estimator with its linearised variance (Cochran, Sampling Techniques, 1977, section 6.4): that of the mean
    of part − ratio · whole, over the mean of `whole`. It needs a mean of `whole` that is surely not 0. Not the mean of
    the seeds' ratios, of which a single `whole` near 0 would make anything. `errors` are those of both means, as in
    `mean_interval`.
    """
    part, whole = np.asarray(part, dtype=float), np.asarray(whole, dtype=float)
    ratio = part.mean() / whole.mean()
    n, _, half = _mean_and_half_width((part - ratio * whole) / whole.mean(), -1, test_to_train)
    half = np.maximum(half, (errors[0] + abs(ratio) * errors[1]) / abs(whole.mean()))
    return Interval(n, ratio, ratio - half, ratio + half)


def _mean_and_half_width(values: np.ndarray, axis: int, test_to_train: float) -> tuple[np.ndarray, ...]:
    values = np.asarray(values, dtype=float)
    present = ~np.isnan(values)
    n = present.sum(axis=axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(present, values, 0.0).sum(axis=axis) / n
        deviation = np.where(present, values - np.expand_dims(mean, axis), 0.0)
        standard_error = np.sqrt((deviation**2).sum(axis=axis) / (n - 1) * (1 / n + test_to_train))
        half = np.where(n > 1, quantile_of_t(np.maximum(n - 1, 1)) * standard_error, np.nan)
    return n, mean, half


def quantile_of_t(df: ArrayLike) -> np.ndarray:
    """Half the width of an interval in standard errors of the mean, with `df` degrees of freedom, elementwise."""
    return special.stdtrit(df, (1 + CONFIDENCE) / 2)


def paired_contrast(
    run: np.ndarray,
    control: np.ndarray,
    *,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    test_to_train: float = 0.0,
    error: float = 0.0,
) -> Contrast:
    """Paired t-test of `run` − `control` [n_seeds]; the means are over the complete pairs only.

    Against a `control` that is the same number for every seed it is the one-sample t-test. `bounds` (of the
    difference), `test_to_train` and `error` are those of `mean_interval`. The last two enter interval and p-value
    alike, so an interval excludes 0 exactly where p < 0.05: a difference that may be `error` alone has p = 1.

    Effect size: d_z (mean difference / standard deviation of the differences) with Hedges' exact small-sample
    correction (Hedges 1981), which needs three pairs, and a spread above `error`: where rounding has made values nearly
    alike it would tell of the rounding. When the difference is the same in every seed the t statistic divides by zero:
    the interval is that single value ± `error`, and p and effect size are undefined (NaN), not 0 and infinite.
    """
    run, control = np.asarray(run, dtype=float), np.asarray(control, dtype=float)
    paired = ~(np.isnan(run) | np.isnan(control))
    run, control = run[paired], control[paired]
    difference = run - control
    over_seeds = mean_interval(difference, bounds=bounds, test_to_train=test_to_train, error=error)
    n, mean, low, high = (x.item() for x in over_seeds)
    p_value = effect_size = np.nan
    if n > 1:
        spread = difference.std(ddof=1)
        if spread <= CONSTANT * max(1.0, np.abs(difference).max()):
            low, high = max(mean - error, bounds[0]), min(mean + error, bounds[1])
        else:
            t = abs(mean) / (spread * np.sqrt(1 / n + test_to_train))
            p_value = 1.0 if abs(mean) <= error else 2 * special.stdtr(n - 1, -t)
            p_value = np.nan if np.isnan(error) else p_value
            effect_size = hedges_correction(n - 1) * mean / spread if spread > error else np.nan
    return Contrast(n, _mean(run), _mean(control), mean, float(low), float(high), float(p_value), float(effect_size))


def hedges_correction(df: int) -> float:
    """Factor that makes a standardised mean difference with `df` degrees of freedom unbiased; undefined for one."""
    if df < 2:
        return np.nan
    return float(np.exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) / np.sqrt(df / 2))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm-adjusted p-values [n] (Holm 1979, Scandinavian Journal of Statistics 6:65-70).

    The smallest of m times m, the next one times m − 1, and so on; none is below one before it, nor above 1. Undefined
    ones (NaN) stay so and do not count as tests.
    """
    p_values = np.asarray(p_values, dtype=float)
    adjusted = np.full(p_values.shape, np.nan)
    order = np.argsort(p_values)[: np.count_nonzero(~np.isnan(p_values))]  # NaN comes last
    steps = p_values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else np.nan

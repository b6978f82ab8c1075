"""Differences over seeds with their intervals, without NumPy: those of `evaluation.statistics`, from the stored t.

The quantiles of Student's t come from the table `student_t`.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from math import fsum, inf, sqrt
from typing import NamedTuple

from pipeline.cohorts.roles import ROLES
from pipeline.results.columns import ALL_AUROC, LABEL_AUROC, LABEL_TPR, ON_TEST, possible

_CONSTANT = 1e-12  # as in evaluation.statistics: a smaller spread, relative to the values, is rounding
SAME_PATIENTS = "over trainings on the patients at hand: how much other test patients would change it is not in it"
METHOD = (
    "95 % Student t-interval of the paired differences, at least as wide as rounding may move them, and "
    f"{SAME_PATIENTS}"
)


class Estimate(NamedTuple):
    """A mean over seeds and its 95 % interval; None: no number, or too few seeds for an interval."""

    n: int
    mean: float | None
    low: float | None
    high: float | None


class Difference(NamedTuple):
    """`a` − `b` over the seeds that have both, the means over these seeds only."""

    n: int
    mean_a: float | None
    mean_b: float | None
    mean: float | None
    low: float | None
    high: float | None


def quantiles(connection: sqlite3.Connection) -> dict[int, float]:
    """97.5 % quantiles of Student's t by degrees of freedom."""
    return dict(connection.execute("SELECT df, quantile FROM student_t"))


def shared(metric: str, split: str | None) -> float:
    """Test samples per training sample where the seeds deal the same patients anew, else 0; see `mean_interval`."""
    return ROLES["test"] / ROLES["train"] if split == "per_seed" and metric in ON_TEST else 0.0


def bounds_of(metric: str) -> tuple[float, float]:
    """The range that a metric cannot leave; of counts, epochs and thresholds there is none."""
    known = metric in ON_TEST or metric.partition(":")[0] in (ALL_AUROC, LABEL_AUROC, *LABEL_TPR.values())
    return possible(metric) if known else (-inf, inf)


def over_seeds(
    values: Iterable[float],
    t: Mapping[int, float],
    *,
    bounds: tuple[float, float] = (-inf, inf),
    test_to_train: float = 0.0,
    error: float | None = 0.0,
) -> Estimate:
    """Mean and t-interval of `values`, as `evaluation.statistics.mean_interval` has them.

    `error` is how far rounding can have moved the mean, None: nobody can say.
    """
    values = list(values)
    n = len(values)
    if not n:
        return Estimate(0, None, None, None)
    middle = fsum(values) / n
    if n == 1 or n - 1 not in t or error is None:
        return Estimate(n, middle, None, None)
    spread = sqrt(fsum([(value - middle) ** 2 for value in values]) / (n - 1))
    if spread <= _CONSTANT * max(1.0, *map(abs, values)):
        spread = 0.0
    half = max(t[n - 1] * spread * sqrt(1 / n + test_to_train), error)
    return Estimate(n, middle, max(middle - half, bounds[0]), min(middle + half, bounds[1]))


def difference(
    a: Mapping[int, float],
    b: Mapping[int, float],
    metric: str,
    t: Mapping[int, float],
    split: str | None,
    error: float | None = 0.0,
) -> Difference:
    """`a` − `b`, values of `metric` by seed, as `evaluation.statistics.paired_contrast` has them."""
    seeds = sorted(a.keys() & b.keys())
    low, high = bounds_of(metric)
    found = over_seeds(
        [a[seed] - b[seed] for seed in seeds],
        t,
        bounds=(low - high, high - low),
        test_to_train=shared(metric, split),
        error=error,
    )
    of_a, of_b = (mean([values[seed] for seed in seeds]) for values in (a, b))
    return Difference(found.n, of_a, of_b, found.mean, found.low, found.high)


def mean(values: Iterable[float]) -> float | None:
    """None: there are none."""
    values = list(values)
    return fsum(values) / len(values) if values else None


def error_of(one: float | None, other: float | None) -> float | None:
    """How far rounding can have moved a difference, from how far it can have moved both means."""
    return None if one is None or other is None else one + other

"""Counts that could single a patient out, and how counts and shares are told without them.

A share is a count in disguise: 0.986 of 652 are all but 9. So what leaves the folders of rows is the share of a count
to the nearest ten, and measures made of several counts are made of rounded ones: no released number, nor any sum or
difference of some, tells of a few.
"""

from collections.abc import Callable
from math import ceil, log

import numpy as np
from numpy.typing import ArrayLike

Counting = Callable[[ArrayLike, ArrayLike], np.ndarray]
"""How counts of totals, elementwise, are told."""

_STEP = 1.2
MIN_CELL = 10  # a count from 1 to MIN_CELL - 1 could single a patient out and is never shown


def shown_share(count: int, total: int) -> str:
    """A share for people to read, unless it would tell of a small count, or of all but a few."""
    if 0 < count < MIN_CELL:
        return shown(count)
    return f"all but {shown(total - count)}" if 0 < total - count < MIN_CELL else f"{count / total:.1%}"


def shown_part(count: int) -> str:
    """A count to the nearest ten, for what is a part of another count that is told: the rest must not be small."""
    return shown(count if count < MIN_CELL else round(count, -1))


def shown_of(count: int, total: int, people: bool = True) -> str:
    """A count of a `total` that is told beside it, for people to read: where it or the rest is small, that is all said.

    Of others than `people` it is told as it is.
    """
    if not people:
        return f"{count:,}"
    return f"all but {shown(total - count)}" if 0 < total - count < MIN_CELL <= count else shown(count)


def shown(count: int) -> str:
    """A count for people to read; small ones are not told."""
    return f"under {MIN_CELL}" if 0 < count < MIN_CELL else f"{count:,}"


def tens(count: ArrayLike, total: ArrayLike) -> np.ndarray:
    """`count` of `total`, elementwise, to the nearest ten (halves up) or to all, whichever is nearer.

    What is left of `total`, which is known and no multiple of ten, is none or at least ten too.
    """
    count = np.asarray(count, float).round(6)  # a share times its total is a hair off
    total = np.asarray(total, float)
    part = np.minimum(MIN_CELL * np.floor(count / MIN_CELL + 0.5), _most(total))
    return np.where(total - count <= count - part, total, part)


def counting(people: bool) -> Counting:
    """How counts of a cohort are told: of people in `tens`, of others, whom nobody has to protect, as they are."""
    return tens if people else lambda count, total: np.asarray(count, float)


def coarse(variance: float) -> float:
    """A variance up to the next power of 1.2: a standard error told so is up to a tenth too large, never too small.

    Exact, beside the AUROC, it fits one ranking of a few patients and tells their places.
    """
    return _STEP ** ceil(log(variance) / log(_STEP) - 1e-9)


def _most(total: np.ndarray) -> np.ndarray:
    """The largest multiple of ten that leaves at least ten of `total`."""
    return np.maximum(MIN_CELL * np.floor(total / MIN_CELL - 1), 0)


def tens_that_add_up(count: np.ndarray, total: int, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Counts [K] as multiples of ten, near what they are and from `low` to `high`, whose sum is `total`.

    Where what is told of parts adds up to what is told of the whole, subtraction finds nothing: neither how a part was
    rounded nor a part that is withheld, which the others take in. `total`, `low` and `high` are multiples of ten, and
    the sums of the last two lie on either side of the first. Controlled rounding, after Cox, A constructive procedure
    for unbiased controlled rounding, JASA 1987;82:520-524, but to the nearest ten, without a random choice.
    """
    count = np.round(np.asarray(count, float), 6)
    part = np.clip(MIN_CELL * np.floor(count / MIN_CELL + 0.5), low, high)
    while left := total - part.sum():
        step = MIN_CELL * np.sign(left)
        fits = (low <= part + step) & (part + step <= high)
        part[np.argmax(np.where(fits, (count - part) * np.sign(left), -np.inf))] += step
    return part


def error_of_tens(total: ArrayLike) -> np.ndarray:
    """How far a count in `tens` of `total`, elementwise, can lie from the count: 5 to 9, from a `total` of 10."""
    total = np.asarray(total, float)
    return np.floor((total - _most(total)) / 2)


def share_in_tens(share: ArrayLike | None, total: ArrayLike) -> np.ndarray:
    """`share` of `total` things, elementwise, with their number as in `tens`; NaN where there is no share."""
    share, total = np.asarray(np.nan if share is None else share, float), np.asarray(total, float)
    known = ~np.isnan(share) & (total > 0)
    safe = np.where(known, total, 1)
    return np.where(known, tens(np.where(known, share, 0) * safe, safe) / safe, np.nan)

"""How plausible a window of CAN frames is: are its frames whole, and do ids come when they usually come?"""

import numpy as np

from pipeline.cohorts.cohort import Cohort
from pipeline.cohorts.frames import BYTES, DLC, ID, INTERVAL, OTHER, counts_per_window

_RANGE = (0.01, 0.99)  # of training windows, per id
_USUAL = 0.95  # of training windows have at most so many ids out of their range


def known(values: np.ndarray, cohort: Cohort) -> np.ndarray:
    """[N, W] bool: whether the id of each frame of `values` [N, W, D] is one of the vocabulary of `cohort`."""
    column = cohort.feature_names.index(ID)
    categories = cohort.features[column].categories
    listed = [position for position, text in enumerate(categories) if text != OTHER]
    return np.isin(values[:, :, column], listed)


def valid(values: np.ndarray, cohort: Cohort) -> np.ndarray:
    """[N, W] bool: whether each frame of `values` could be sent.

    It has the first `dlc` bytes and no others, and they are whole numbers from 0 to 255.
    """
    payload = values[:, :, [cohort.feature_names.index(name) for name in BYTES]]
    length = values[:, :, cohort.feature_names.index(DLC), None]
    there = ~np.isnan(payload)
    whole = (payload == np.floor(payload)) & (payload >= 0) & (payload <= 255)
    return ((there == (np.arange(len(BYTES)) < length)) & (whole | ~there)).all(axis=2)


def unusual_timing(train: Cohort, values: np.ndarray) -> np.ndarray:
    """[N] bool: in which windows of `values` [N, W, D] more ids come at odd times than in 95 % of training windows.

    An id does where the number of its frames in the window, 0 included, or a gap between two of them that follow each
    other lies outside the central 98 % of training. Of dozens of ids some always do, by chance alone: so it is not
    whether one does that tells, but how many.
    """
    n_ids = len(train.features[train.feature_names.index(ID)].categories)
    count, of, gap, _ = _times(train.values, train, n_ids)
    count_range = np.quantile(count, _RANGE, axis=0)
    gap_range = np.full((2, n_ids), [[-np.inf], [np.inf]])
    for each in np.unique(of):
        gap_range[:, each] = np.quantile(gap[of == each], _RANGE)

    def odd_ids(windows: np.ndarray) -> np.ndarray:
        count, of, gap, row = _times(windows, train, n_ids)
        odd = (count < count_range[0]) | (count > count_range[1])
        outside = (gap < gap_range[0, of]) | (gap > gap_range[1, of])
        odd[row[outside], of[outside]] = True
        return odd.sum(axis=1)

    return odd_ids(values) > np.quantile(odd_ids(train.values), _USUAL, method="higher")


def _times(values: np.ndarray, cohort: Cohort, n_ids: int) -> tuple[np.ndarray, ...]:
    """Frames of each id per window [N, K], and of all gaps [G] the id, the milliseconds (to a µs) and the window."""
    ids, interval = (values[:, :, cohort.feature_names.index(name)] for name in (ID, INTERVAL))
    time = np.nan_to_num(interval.astype(np.float64)).cumsum(axis=1)
    order = np.argsort(ids, axis=1, kind="stable")  # NaN last
    ids_in_order, time = np.take_along_axis(ids, order, axis=1), np.take_along_axis(time, order, axis=1)
    same = ids_in_order[:, 1:] == ids_in_order[:, :-1]
    # A sum over other frames is a hair off where the gap is the same.
    gap = np.round(np.diff(time, axis=1)[same], 3)
    return counts_per_window(ids, n_ids), ids_in_order[:, 1:][same].astype(int), gap, np.nonzero(same)[0]

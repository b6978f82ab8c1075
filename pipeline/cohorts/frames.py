"""What tells a cohort of CAN frames from others: a sample is a window of frames, a step is one frame.

id                  a category: the arbitration ids of the vocabulary as hex texts, and "other" for all else
byte_0 … byte_7     the payload, 0 to 255; missing where a frame is shorter
dlc                 how many bytes the frame has
interval            milliseconds since the frame before
"""

from collections.abc import Iterable

import numpy as np

from pipeline.cohorts.cohort import Feature

ID, DLC, INTERVAL = "id", "dlc", "interval"
BYTES = tuple(f"byte_{number}" for number in range(8))
FRAME = (ID, *BYTES, DLC)  # what a node of the bus sends; the interval is when
OTHER = "other"  # the category of ids that are not in the vocabulary


def are_frames(features: Iterable[Feature]) -> bool:
    """Whether samples with these `features` are windows of CAN frames."""
    found = {feature.name: feature for feature in features}
    return {*FRAME, INTERVAL} <= found.keys() and bool(found[ID].categories)


def counts_per_window(ids: np.ndarray, n_ids: int) -> np.ndarray:
    """[N, K] int: how many frames of each of `n_ids` ids a window has; `ids` are positions [N, W], NaN is none."""
    rows = np.broadcast_to(np.arange(len(ids))[:, None], ids.shape)
    known = ~np.isnan(ids)
    flat = rows[known] * n_ids + ids[known].astype(int)
    return np.bincount(flat, minlength=len(ids) * n_ids).reshape(-1, n_ids)

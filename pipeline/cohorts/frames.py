"""What tells a cohort of CAN frames from others: a sample is a window of frames, a step is one frame.

id                  a category: the arbitration ids of the vocabulary as hex texts, and "other" for all else
byte_0 … byte_7     the payload, 0 to 255; missing where a frame is shorter
dlc                 how many bytes the frame has
interval            milliseconds since the frame before
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pipeline.cohorts.cohort import Feature
from pipeline.errors import UserError

ID, DLC, INTERVAL = "id", "dlc", "interval"
BYTES = tuple(f"byte_{number}" for number in range(8))
FRAME = (ID, *BYTES, DLC)  # what a node of the bus sends; the interval is when
LARGEST_STANDARD, LARGEST_ID = 0x7FF, 0x1FFFFFFF  # of 11 and of 29 bits
OTHER = "other"  # the category of ids that are not in the vocabulary


def are_frames(features: Iterable[Feature]) -> bool:
    """Whether samples with these `features` are windows of CAN frames."""
    return not _lacking(features)


def _lacking(features: Iterable[Feature]) -> list[str]:
    """What frames have and `features` do not, in words."""
    found = {feature.name: feature for feature in features}
    numbers = {name for name, feature in found.items() if not feature.categories}
    needed = {
        "a category id": ID in found and ID not in numbers,
        "numbers byte_0, byte_1 …": numbers.issuperset(BYTES),
        "a number interval": INTERVAL in numbers,
        "a number dlc": DLC in numbers,
    }
    return [what for what, there in needed.items() if not there]


def counts_per_window(ids: np.ndarray, n_ids: int) -> np.ndarray:
    """[N, K] int: how many frames of each of `n_ids` ids a window has; `ids` are positions [N, W], NaN is none."""
    rows = np.broadcast_to(np.arange(len(ids))[:, None], ids.shape)
    known = ~np.isnan(ids)
    flat = rows[known] * n_ids + ids[known].astype(int)
    return np.bincount(flat, minlength=len(ids) * n_ids).reshape(-1, n_ids)


@dataclass(frozen=True)
class Frames:
    """Where the parts of a frame stand among the features of a cohort.

    `id` is the position of the frame's identifier, a category of `n_ids`; `data` those of its bytes, in the order of
    the features; `interval` that of the time since the frame before, in ms.
    """

    id: int
    n_ids: int
    data: tuple[int, ...]
    interval: int


def frames_of(features: tuple[Feature, ...], n_steps: int) -> Frames:
    """The parts of a frame; `UserError`, in half a sentence, where `features` over `n_steps` are no frames."""
    if lacking := [*_lacking(features), *(["at least 2 steps"] if n_steps < 2 else [])]:
        raise UserError(f"not windows of CAN frames, expected {' and '.join(lacking)}")
    position = {feature.name: number for number, feature in enumerate(features)}
    data = tuple(number for name, number in position.items() if name in BYTES)
    return Frames(position[ID], len(features[position[ID]].categories), data, position[INTERVAL])

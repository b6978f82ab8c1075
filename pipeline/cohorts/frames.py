"""What a cohort of CAN frames is: each step of a sample is a frame, told by the names of its features."""

from dataclasses import dataclass

from pipeline.cohorts.cohort import Feature
from pipeline.errors import UserError


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
    position = {feature.name: number for number, feature in enumerate(features)}
    data = tuple(number for name, number in position.items() if name.startswith("byte_"))
    missing = [
        what
        for what, there in (
            ("a category id", "id" in position and features[position["id"]].categories),
            ("numbers byte_0, byte_1 …", data and not any(features[number].categories for number in data)),
            ("a number interval", "interval" in position and not features[position["interval"]].categories),
            ("at least 2 steps", n_steps >= 2),
        )
        if not there
    ]
    if missing:
        raise UserError(f"not windows of CAN frames, expected {' and '.join(missing)}")
    return Frames(position["id"], len(features[position["id"]].categories), data, position["interval"])

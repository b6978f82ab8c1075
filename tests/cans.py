"""A small cohort of CAN windows for tests of what reads frames."""

import numpy as np

from pipeline.cohorts.cohort import Cohort, Feature

IDS = ("0A0", "1E5", "1E9", "2C4", "350", "5F0", "other")
CAN_FEATURES = (
    Feature("id", categories=IDS, fill="none"),
    *(Feature(f"byte_{number}", "", 0, 255, integer=True, fill="none") for number in range(8)),
    Feature("dlc", "", 0, 8, integer=True, fill="none"),
    Feature("interval", "ms", 0, fill="none"),
)


def make_can_cohort(n: int = 120, steps: int = 24, seed: int = 0) -> Cohort:
    """Windows of six ids in turns with jitter; with label 1 half of the frames are a flood of the first id.

    Frames of the last two ids are short, and the first interval of every tenth window is missing.
    """
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.4).astype(np.int8)
    turn = (np.arange(steps) + rng.integers(0, 6, (n, 1)) + (rng.random((n, steps)) < 0.2)) % 6
    flood = (label == 1)[:, None] & (rng.random((n, steps)) < 0.5)
    id_ = np.where(flood, 0, turn)
    length = np.where(id_ >= 4, 3, 8)
    data = rng.integers(0, 40, (n, steps, 8)) + 30 * id_[:, :, None]
    data = np.where(flood[:, :, None], 0, data)
    interval = np.where(flood, 0.05, rng.gamma(2, 0.5, (n, steps)))
    values = np.concatenate(
        [
            id_[:, :, None],
            np.where(np.arange(8) < length[:, :, None], data, np.nan),
            length[:, :, None],
            interval[:, :, None],
        ],
        axis=2,
    ).astype(np.float32)
    values[::10, 0, -1] = np.nan
    return Cohort("bus", CAN_FEATURES, np.arange(n), rng.integers(0, n, n), label, values, people=False)

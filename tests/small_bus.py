"""A small CAN bus for tests, and real captures, as cohorts of windows of frames."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.cohorts.cohort import Cohort, Feature
from pipeline.cohorts.frames import BYTES, DLC, ID, INTERVAL, OTHER

# id: (period in ms, bytes); the last one is rare, and DoS is what the attack floods the bus with.
NODES = {0x0A1: (10, 8), 0x0B2: (10, 8), 0x130: (20, 8), 0x1E5: (20, 5), 0x2F0: (50, 8), 0x318: (100, 2)}
NODES |= {0x4C1: (100, 8), 0x7D0: (500, 8)}
DOS = 0x000


def frame_features(ids: list[int]) -> tuple[Feature, ...]:
    return (
        Feature(ID, categories=(*(f"{each:03X}" for each in sorted(ids)), OTHER), fill="none"),
        *(Feature(name, "", 0, 255, integer=True, fill="none") for name in BYTES),
        Feature(DLC, "bytes", 0, 8, integer=True, fill="none"),
        Feature(INTERVAL, "ms", 0, fill="none"),
    )


def windows(name: str, frames: pd.DataFrame, ids: list[int], width: int) -> Cohort:
    """`frames` with columns time (ms), id, payload (8 columns, NaN beyond its length) and attack, cut in windows."""
    count = len(frames) // width
    features = frame_features(ids)
    position = {each: at for at, each in enumerate(sorted(ids))}
    payload = frames[list(BYTES)].to_numpy(np.float32)
    interval = np.diff(frames["time"].to_numpy(), prepend=frames["time"].iloc[0])
    columns = [frames["id"].map(position).fillna(len(ids)), *payload.T, (~np.isnan(payload)).sum(axis=1), interval]
    values = np.stack([np.asarray(column, np.float32) for column in columns], axis=1)
    values = values[: count * width].reshape(count, width, -1)
    label = frames["attack"].to_numpy()[: count * width].reshape(count, width).any(axis=1).astype(np.int8)
    number = np.arange(count)
    return Cohort(name, features, number, number // 20, label, values, people=False)


def make_bus(n: int = 200, width: int = 40, seed: int = 0, gap: float = 0.4) -> Cohort:
    """`n` windows of `width` frames: periodic ids with jitter, counters, walks; a third of them in floods of id 000."""
    rng = np.random.default_rng(seed)
    parts, length = [], 12.0 * n * width  # ms, more than needed
    for each, (period, n_bytes) in NODES.items():
        time = np.arange(rng.uniform(0, period), length, period)
        payload = np.full((len(time), 8), np.nan)
        payload[:, :n_bytes] = rng.integers(0, 256, n_bytes)
        payload[:, 0] = np.arange(len(time)) % 16  # a counter
        payload[:, 1] = np.clip(128 + rng.integers(-3, 4, len(time)).cumsum(), 0, 255)  # a sensor
        parts.append((time + rng.normal(0, period / 100, len(time)), np.full(len(time), each), payload, 0))
    starts = np.arange(300.0, length, 900)
    flood = np.concatenate([np.arange(start, start + 300, gap * 10) for start in starts])
    parts.append((flood, np.full(len(flood), DOS), np.zeros((len(flood), 8)), 1))
    frames = pd.concat(
        [
            pd.DataFrame(payload, columns=list(BYTES)).assign(time=time, id=each, attack=attack)
            for time, each, payload, attack in parts
        ]
    ).sort_values("time", kind="stable")
    return windows("bus", frames.head(n * width), [*NODES, DOS], width)


def read_capture(path: Path, width: int = 100) -> Cohort:
    """A CSV of can-train-and-test (timestamp, arbitration_id, data_field, attack) in windows."""
    raw = pd.read_csv(path, dtype={"arbitration_id": str, "data_field": str})
    data = raw["data_field"].fillna("")
    payload = np.full((len(raw), 8), np.nan)
    for at in range(8):
        there = data.str.len() >= 2 * at + 2
        payload[there, at] = [int(text, 16) for text in data[there].str[2 * at : 2 * at + 2]]
    frames = pd.DataFrame(payload, columns=list(BYTES)).assign(
        time=raw["timestamp"] * 1000, id=[int(text, 16) for text in raw["arbitration_id"]], attack=raw["attack"]
    )
    return windows("dos_1", frames, sorted(frames["id"].unique()), width)

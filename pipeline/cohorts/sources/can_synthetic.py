"""A synthetic CAN bus of one car: periodic messages, their counters, checksums and sensors, and four attacks.

A message (a row of `MESSAGES`) is sent every `period` ms: its k-th frame is wanted at
    t[k] = phase + period · (1 + skew) · k + jitter[k],       jitter ~ N(0, (JITTER · period)²), skew ~ N(0, SKEW²)
and events, such as a button, at the times of a Poisson process. Now and then a message with sensors is sent twice as
often for a while, as cars do when something changes: that an id is more frequent is no proof of an attack.
    bus        one frame at a time, each `FRAME` s long: the i-th leaves at s[i] = max(t[i], s[i − 1] + FRAME)
    sensors    Ornstein-Uhlenbeck processes around a mean, on a grid of `GRID` s, some of them driven by the speed:
               x[j + 1] − mean = (x[j] − mean) · (1 − GRID / τ) + noise, its variance such that x has `deviation`
    payload    sensors in 8 or 16 bits, constants, a counter of 4 bits and a checksum: the sum of id and other bytes
    attacks    dos: id 000 over and over; fuzzing: random ids and bytes; spoofing: frames of one id between its own,
               with another value of a sensor, counter and checksum right; replay: what some ids sent before, again
data/README.md says what the cohort is good for.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import Field

from pipeline.cohorts.can_capture import N_BYTES, Capture
from pipeline.cohorts.can_windows import Windowed, features_of, windows_of
from pipeline.cohorts.cohort import Cohort, Feature
from pipeline.cohorts.frames import LARGEST_STANDARD
from pipeline.cohorts.intake import Account
from pipeline.seeding import generator


class Message(NamedTuple):
    """What is sent under one id: `layout` has a letter per byte.

    C counter, X checksum, 0 a zero, K a constant, and for sensors their letter in `SENSORS`: lower case 8 bits, upper
    case, twice in a row, 16 bits, high byte first. `period` in ms; of an event the mean time between two.
    """

    id: int
    period: float
    layout: str
    event: bool = False


class Sensor(NamedTuple):
    """Mean, standard deviation and time constant τ (s) of a process, and how far it follows the car's speed."""

    mean: float
    deviation: float
    tau: float
    follows: float  # change per km/h of the speed above its mean
    scale: float  # what one bit of the payload is worth


SENSORS = {
    "v": Sensor(60, 25, 12, 0, 0.01),  # speed, km/h
    "r": Sensor(2200, 300, 3, 25, 0.25),  # engine speed, 1/min
    "t": Sensor(30, 12, 2, 0.2, 0.4),  # throttle, %
    "b": Sensor(8, 6, 1.5, -0.05, 0.1),  # brake pressure, bar
    "s": Sensor(0, 20, 2, 0, 0.1),  # steering angle, °
    "y": Sensor(0, 6, 1, 0, 0.01),  # yaw rate, °/s
    "a": Sensor(0, 1.2, 1, 0, 0.001),  # acceleration, m/s²
    "o": Sensor(92, 2, 60, 0, 0.5),  # oil temperature, °C
    "w": Sensor(88, 1.5, 60, 0, 0.5),  # water temperature, °C
    "f": Sensor(55, 0.3, 200, 0, 0.4),  # fuel, %
    "u": Sensor(13.9, 0.15, 8, 0, 0.1),  # battery, V
    "p": Sensor(101, 3, 4, 0.1, 0.5),  # manifold pressure, kPa
}
MESSAGES = (
    Message(0x0C1, 10, "VVVV00CX"),
    Message(0x0C5, 10, "VVVV0KCX"),
    Message(0x0C9, 10, "RRt0K0CX"),
    Message(0x0D1, 10, "bb0KCX"),
    Message(0x0F1, 10, "bKC0"),
    Message(0x0F9, 10, "RRPPt0CX"),
    Message(0x110, 20, "AAYYK0CX"),
    Message(0x120, 20, "SSYYC0KX"),
    Message(0x12A, 20, "K0tbC00X"),
    Message(0x17D, 20, "tKC0X0"),
    Message(0x182, 20, "SSCX"),
    Message(0x184, 20, "SSK00C"),
    Message(0x191, 25, "ttRRC0KX"),
    Message(0x1A1, 25, "PPtK0CX"),
    Message(0x1C3, 25, "RRt0C"),
    Message(0x1E5, 50, "SSAA00CX"),
    Message(0x1F1, 50, "K0KC0000"),
    Message(0x214, 50, "bbVVCX"),
    Message(0x2C3, 50, "RRVVtKCX"),
    Message(0x2F9, 100, "K0uC00KX"),
    Message(0x334, 100, "KK00"),
    Message(0x3C1, 100, "owKC0000"),
    Message(0x3D1, 100, "VVowC0X"),
    Message(0x3E9, 100, "VVVVVVVV"),
    Message(0x451, 200, "fuK0C00X"),
    Message(0x4C1, 500, "owpuKKC0"),
    Message(0x4D1, 500, "fo0KK0"),
    Message(0x52A, 1000, "KKKK0000"),
    Message(0x621, 1000, "K0000000"),
    Message(0x62C, 1500, "Kb", True),
    Message(0x771, 4000, "K0KKC000", True),
)
GRID = 0.01  # s
FRAME = 2.3e-4  # s that a frame of 8 bytes takes at 500 kbit/s
JITTER, SKEW = 0.02, 5e-5
BURSTS, BURST = 0.15, (0.2, 0.8)  # per second, and the length in seconds of what is sent twice as often
LEAD = 15.0  # s of a drive before the first attack: there has to be something to replay
ATTACKS = ("dos", "fuzzing", "spoofing", "replay")
_SPOOFED = ((0x0C9, "R", 1500.0), (0x120, "S", 60.0), (0x0D1, "b", 15.0), (0x2C3, "V", 40.0))  # id, sensor, change
_REPLAYED = 4  # ids


class Parameters(Windowed):
    """A synthetic cohort: how many drives of which length, how many of them with attacks, and the seed."""

    drives: int = Field(8, ge=1, le=99)
    attack_free: int = Field(2, ge=0, description="drives without an attack, the first ones")
    seconds: int = Field(60, ge=30, description="length of a drive")
    seed: int = Field(2024, ge=0)


def describe(entry: Parameters, raw_dir: Path | None) -> tuple[int, tuple[Feature, ...]]:
    return entry.window, features_of([0, *(message.id for message in MESSAGES)])


def input_files(entry: Parameters, raw_dir: Path) -> list[Path]:
    return []


def load(name: str, entry: Parameters, raw_dir: Path, cache_dir: Path) -> tuple[Cohort, list[Account]]:
    """Generate the drives; nothing is read."""
    captures = [drive(entry, number) for number in range(entry.drives)]
    scenario = ["attack_free" if number < entry.attack_free else "with_attacks" for number in range(entry.drives)]
    strata = {"capture": [capture.name for capture in captures], "scenario": scenario}
    return windows_of(name, entry, captures, strata)


class _Frames(NamedTuple):
    """Frames that are wanted: [F] seconds and ids, [F] dlc, [F, 8] payload."""

    seconds: np.ndarray
    id: np.ndarray
    dlc: np.ndarray
    payload: np.ndarray


def drive(entry: Parameters, number: int) -> Capture:
    """One drive, the same for the same arguments."""
    rng = generator(entry.seed, f"can_dev/{number}")
    sensors = _sensors(entry.seconds, rng)
    regular = _joined([_sent(message, sensors, entry.seconds, rng) for message in MESSAGES])
    pieces, kinds = [regular], [np.zeros(len(regular.seconds), np.uint8)]
    if number >= entry.attack_free:
        for attack, start, end in _schedule(entry.seconds, rng):
            frames = _INJECT[attack](regular, sensors, start, end, rng)
            pieces.append(frames)
            kinds.append(np.full(len(frames.seconds), 1 + ATTACKS.index(attack), np.uint8))
    frames, kind = _joined(pieces), np.concatenate(kinds)
    # Of frames that are wanted at once the one with the lowest id goes first.
    order = np.lexsort((frames.id, frames.seconds))
    every = FRAME * np.arange(len(order))
    seconds = np.maximum.accumulate(frames.seconds[order] - every) + every
    frames = _Frames(*(column[order] for column in frames))
    return Capture(f"drive_{number + 1:02d}", seconds, frames.id, frames.dlc, frames.payload, kind[order], ATTACKS)


def _joined(pieces: list[_Frames]) -> _Frames:
    return _Frames(*(np.concatenate(columns) for columns in zip(*pieces, strict=True)))


def _sensors(seconds: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The course of each sensor on the grid, in its unit."""
    from scipy.signal import lfilter

    n = int(seconds / GRID) + 1
    courses: dict[str, np.ndarray] = {}
    for name, sensor in SENSORS.items():
        decay = 1 - GRID / sensor.tau
        step = sensor.deviation * np.sqrt(1 - decay**2) * rng.standard_normal(n)
        step[0] = sensor.deviation * rng.standard_normal()  # as it is after a long time
        course = sensor.mean + lfilter([1.0], [1.0, -decay], step)
        if sensor.follows:
            course = course + sensor.follows * (courses["v"] - SENSORS["v"].mean)
        courses[name] = course
    return courses


def _sent(message: Message, sensors: dict[str, np.ndarray], seconds: int, rng: np.random.Generator) -> _Frames:
    """The frames of one message over a drive."""
    period = message.period / 1000
    if message.event:
        times = np.sort(rng.uniform(0, seconds, rng.poisson(seconds / period)))
    else:
        phase, skew = rng.uniform(0, period), SKEW * rng.standard_normal()
        wanted = phase + period * (1 + skew) * np.arange(int(seconds / period))
        times = wanted + JITTER * period * rng.standard_normal(len(wanted))
        times = np.sort(times[(times >= 0) & (times < seconds)])
        if any(letter.lower() in SENSORS for letter in message.layout):
            times = np.sort(np.append(times, _in_bursts((times[1:] + times[:-1]) / 2, seconds, rng)))
    counter = np.arange(len(times)) + rng.integers(16)
    return _frames(message, times, counter, {name: _at(course, times) for name, course in sensors.items()})


def _in_bursts(times: np.ndarray, seconds: int, rng: np.random.Generator) -> np.ndarray:
    """Those of `times` that lie in a burst."""
    start = np.sort(rng.uniform(0, seconds, rng.poisson(BURSTS * seconds)))
    end = np.maximum.accumulate(start + rng.uniform(*BURST, len(start)))
    before = np.searchsorted(start, times, side="right") - 1
    return times[(before >= 0) & (times < np.append(end, 0)[before])]


def _at(course: np.ndarray, times: np.ndarray) -> np.ndarray:
    return course[np.minimum((times / GRID).astype(int), len(course) - 1)]


def _frames(message: Message, times: np.ndarray, counter: np.ndarray, values: dict[str, np.ndarray]) -> _Frames:
    """Frames of `message` at `times` [F], with that counter and the values [F] of sensors."""
    layout, payload = message.layout, np.zeros((len(times), N_BYTES), np.uint8)
    position = 0
    while position < len(layout):
        letter, width = layout[position], 1
        if letter.lower() in SENSORS:
            width = 1 + letter.isupper()
            value, sensor = values[letter.lower()], SENSORS[letter.lower()]
            # One that can be negative is counted from the middle.
            steps = np.round(value / sensor.scale) + (1 << (8 * width - 1) if sensor.mean == 0 else 0)
            whole = np.clip(steps, 0, (1 << 8 * width) - 1).astype(np.int64)
            for byte in range(width):
                payload[:, position + byte] = (whole >> 8 * (width - 1 - byte)) & 255
        elif letter == "C":
            payload[:, position] = counter % 16
        elif letter == "K":
            payload[:, position] = (37 * message.id + 101 * position) % 256
        position += width
    if "X" in layout:
        payload[:, layout.index("X")] = (message.id + payload.sum(axis=1, dtype=np.int64)) % 256
    n = len(times)
    return _Frames(times, np.full(n, message.id, np.uint32), np.full(n, len(layout), np.uint8), payload)


def _schedule(seconds: int, rng: np.random.Generator) -> list[tuple[str, float, float]]:
    """When each attack of a drive starts and ends, in a random order: one in each quarter of the time after `LEAD`."""
    part = (seconds - LEAD) / len(ATTACKS)
    found = []
    for place, attack in enumerate(rng.permutation(ATTACKS).tolist()):
        length = rng.uniform(0.3, 0.4) * part
        start = LEAD + place * part + rng.uniform(0.1, 0.9) * (part - length)
        found.append((attack, start, start + length))
    return found


def _dos(regular: _Frames, sensors: dict, start: float, end: float, rng: np.random.Generator) -> _Frames:
    times = np.arange(start, end, 0.001)
    n = len(times)
    return _Frames(
        np.sort(times + 1e-5 * rng.standard_normal(n)),
        np.zeros(n, np.uint32),
        np.full(n, 8, np.uint8),
        np.zeros((n, N_BYTES), np.uint8),
    )


def _fuzzing(regular: _Frames, sensors: dict, start: float, end: float, rng: np.random.Generator) -> _Frames:
    times = np.sort(rng.uniform(start, end, rng.poisson(250 * (end - start))))
    n = len(times)
    dlc = rng.integers(1, N_BYTES + 1, n).astype(np.uint8)
    payload = rng.integers(0, 256, (n, N_BYTES), dtype=np.uint8)
    payload[np.arange(N_BYTES) >= dlc[:, None]] = 0
    return _Frames(times, rng.integers(0, LARGEST_STANDARD + 1, n).astype(np.uint32), dlc, payload)


def _spoofing(regular: _Frames, sensors: dict, start: float, end: float, rng: np.random.Generator) -> _Frames:
    """A frame shortly behind every second one of the car's own, with the next counter."""
    spoofed, letter, change = _SPOOFED[rng.integers(len(_SPOOFED))]
    message = next(one for one in MESSAGES if one.id == spoofed)
    at = np.flatnonzero((regular.id == spoofed) & (regular.seconds >= start) & (regular.seconds < end))[::2]
    times = regular.seconds[at] + rng.uniform(0.1, 0.5, len(at)) * message.period / 1000
    values = {name: _at(course, times) for name, course in sensors.items()}
    values[letter.lower()] = values[letter.lower()] + change
    own = regular.payload[at, message.layout.index("C")].astype(np.int64)
    return _frames(message, times, own + 1, values)


def _replay(regular: _Frames, sensors: dict, start: float, end: float, rng: np.random.Generator) -> _Frames:
    """What some fast ids sent some seconds before, at the same distances."""
    fast = [message.id for message in MESSAGES if message.period <= 25]
    back = rng.uniform(end - start, LEAD - 1)
    chosen = np.isin(regular.id, rng.choice(fast, _REPLAYED, replace=False))
    chosen &= (regular.seconds >= start - back) & (regular.seconds < end - back)
    frames = _Frames(*(column[chosen] for column in regular))
    return frames._replace(seconds=frames.seconds + back)


_INJECT = {"dos": _dos, "fuzzing": _fuzzing, "spoofing": _spoofing, "replay": _replay}

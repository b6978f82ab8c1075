"""From captures of a CAN bus to a cohort: windows of consecutive frames, their groups, strata and vocabulary of ids."""

from collections.abc import Iterable
from math import ceil
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from pipeline.cohorts.can_capture import N_BYTES, Capture
from pipeline.cohorts.catalog import Entry
from pipeline.cohorts.cohort import Cohort, Feature
from pipeline.cohorts.frames import LARGEST_STANDARD, OTHER
from pipeline.cohorts.intake import Account
from pipeline.seeding import generator
from pipeline.words import counted

BENIGN = "benign"
MOST_WINDOWS = 10**7  # of a capture: a sample_id is the number of the capture times this, plus that of the window
_PAIRS = 3  # of captures that are named when they hold the same windows


class Windowed(Entry):
    """What every entry of CAN captures says of its windows."""

    window: int = Field(100, ge=2, le=10_000, description="frames of a window")
    stride: int = Field(100, ge=1, description="frames from the start of a window to that of the next")
    groups: Literal["file", "blocks"] = Field(
        "file", description="what stays in one role: a whole capture, or a block of time in it"
    )
    block: int = Field(20, ge=1, description="with groups: blocks, windows of a block")
    gap: int = Field(1, ge=0, description="with groups: blocks, windows' worth of frames between two blocks, left out")
    rarest: float = Field(
        1e-4, ge=0, lt=1, description="share of the frames that an id needs for a category of its own"
    )

    @model_validator(mode="after")
    def _blocks_are_asked_for(self):
        given = {"block", "gap"} & self.model_fields_set
        if given and self.groups == "file":
            raise ValueError(f"{min(given)} goes with groups: blocks")
        return self


def features_of(ids: Iterable[int]) -> tuple[Feature, ...]:
    """The eleven features, with the vocabulary `ids` (ascending whole numbers).

    Nothing is carried from one frame to the next (`fill` none): that one is of another id.
    """
    categories = tuple(id_text(int(number)) for number in ids)
    numbers = [(f"byte_{position}", 255) for position in range(N_BYTES)] + [("dlc", N_BYTES)]
    return (
        Feature("id", categories=(*categories, OTHER), fill="none"),
        *(Feature(name, "", 0, high, integer=True, fill="none") for name, high in numbers),
        Feature("interval", "ms", 0, fill="none"),
    )


def id_text(number: int) -> str:
    """An id as buses write it: three hex digits, or eight for one of 29 bits."""
    return f"{number:03X}" if number <= LARGEST_STANDARD else f"{number:08X}"


def any_features() -> tuple[Feature, ...]:
    """The features where the vocabulary is not known before the captures are read."""
    return features_of(())


def windows_of(
    name: str,
    entry: Windowed,
    captures: list[Capture],
    strata: dict[str, list[str]],
    part: list[str] | None = None,
) -> tuple[Cohort, list[Account]]:
    """The cohort of `captures`, each with its text per stratum and, where published, its `part`; an account of each.

    Windows lie within a capture. What is left over at its end is dropped, and so are windows between two blocks. A
    window is of the attack that its first labelled frame is of, or benign. The vocabulary is that of the training
    captures where parts are published, else of all.
    """
    learnt = [one for number, one in enumerate(captures) if part is None or part[number] == "train"]
    ids, rare = _vocabulary(learnt, entry.rarest)
    pieces = [_cut(one, entry, part is not None and part[number] == "test") for number, one in enumerate(captures)]
    values = np.empty((sum(len(kept) for kept, _ in pieces), entry.window, 3 + N_BYTES), np.float32)
    sample, attack, group = np.empty(len(values), np.int64), [], []
    done, accounts, unknown = 0, [], {}
    for number, (one, (kept, block)) in enumerate(zip(captures, pieces, strict=True)):
        rows = slice(done, done + len(kept))
        frames, known = _numbers(one, ids)
        sliding = np.lib.stride_tricks.sliding_window_view
        if len(kept):
            values[rows] = sliding(frames, entry.window, axis=0)[kept * entry.stride].transpose(0, 2, 1)
            kinds = sliding(one.kind, entry.window)[kept * entry.stride]
            first = np.take_along_axis(kinds, (kinds > 0).argmax(axis=1)[:, None], axis=1)[:, 0]
            attack.append(np.array([BENIGN, *one.kinds])[first])
        sample[rows] = (number + 1) * MOST_WINDOWS + kept
        group += [one.name if of is None else f"{one.name}#{of:02d}" for of in block]
        accounts.append(_account(one, entry, kept, attack[-1] if len(kept) else np.array([], str)))
        unknown[one.name] = float(1 - known.mean())
        done = rows.stop
    of_capture = np.repeat(np.arange(len(captures)), [len(kept) for kept, _ in pieces])
    told_by = {stratum: np.array(texts, str)[of_capture] for stratum, texts in strata.items()}
    told_by["attack"] = np.concatenate(attack) if attack else np.array([], str)
    if rare:
        reason = f"rarer than {entry.rarest:g} of the frames, now {OTHER}"
        accounts.append(Account("ids", len(ids) + rare, {reason: rare}))
    cohort = Cohort(
        name,
        features_of(ids),
        sample,
        np.array(group, str),
        (told_by["attack"] != BENIGN).astype(np.int8),
        values,
        warnings=(*_shared(captures, entry), *_strangers(unknown, learnt)),
        strata=told_by,
        part=None if part is None else np.array(part, str)[of_capture],
        people=False,
    )
    return cohort, accounts


def _vocabulary(captures: list[Capture], rarest: float) -> tuple[np.ndarray, int]:
    """The ids, ascending, that make up at least the share `rarest` of the frames, and how many do not."""
    counted_ids = [np.unique(capture.id, return_counts=True) for capture in captures]
    ids, position = np.unique(np.concatenate([ids for ids, _ in counted_ids]), return_inverse=True)
    count = np.bincount(position, weights=np.concatenate([count for _, count in counted_ids]))
    common = count >= rarest * count.sum()
    return ids[common], int((~common).sum())


def _cut(capture: Capture, entry: Windowed, whole: bool) -> tuple[np.ndarray, list[int | None]]:
    """Which windows of a capture are kept, by number, and the block that each lies in; None: the capture is one."""
    window = np.arange(max((len(capture) - entry.window) // entry.stride + 1, 0))
    if entry.groups == "file" or whole:
        return window, [None] * len(window)
    # So many windows that from the last frame of a block to the first of the next there are `gap` windows of frames.
    between = ceil((entry.gap + 1) * entry.window / entry.stride) - 1
    block, position = np.divmod(window, entry.block + between)
    kept = position < entry.block
    return window[kept], block[kept].tolist()


def _numbers(capture: Capture, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[F, 11] float32 the frames in the order of `features_of`, and [F] bool whose id is in the vocabulary."""
    at = np.searchsorted(ids, capture.id)
    known = np.append(ids, 0)[at] == capture.id
    known &= at < len(ids)
    frames = np.empty((len(capture), 3 + N_BYTES), np.float32)
    frames[:, 0] = np.where(known, at, len(ids))
    frames[:, 1 : 1 + N_BYTES] = capture.payload
    frames[:, 1 : 1 + N_BYTES][np.arange(N_BYTES) >= capture.dlc[:, None]] = np.nan
    frames[:, 1 + N_BYTES] = capture.dlc
    frames[0, 2 + N_BYTES] = np.nan  # nothing was before it
    frames[1:, 2 + N_BYTES] = 1000 * np.diff(capture.seconds)
    return frames, known


def _account(capture: Capture, entry: Windowed, kept: np.ndarray, attack: np.ndarray) -> Account:
    """What became of the frames of a capture; a frame counts as kept if it lies in a window that is."""
    inside = np.zeros(len(capture) + 1, np.int64)
    np.add.at(inside, kept * entry.stride, 1)
    np.add.at(inside, kept * entry.stride + entry.window, -1)
    n = max((len(capture) - entry.window) // entry.stride + 1, 0)
    last = (n - 1) * entry.stride + entry.window if n else 0  # behind all windows, those that are kept or not
    covered = np.cumsum(inside[:-1]) > 0
    dropped = {
        "between blocks or windows": int((~covered[:last]).sum()),
        "left over at the end, fewer than a window": int((~covered[last:]).sum()),
    }
    names, counts = np.unique(attack[attack != BENIGN], return_counts=True)
    notes = [counted(len(kept), "window")]
    notes += [f"{count:,} of them {name}" for name, count in zip(names.tolist(), counts.tolist(), strict=True)]
    short = int((capture.dlc < N_BYTES).sum())
    notes += [f"{short:,} frames of fewer than {N_BYTES} bytes"] if short else []
    notes += [f"{capture.moved:,} frames put in the order of time"] if capture.moved else []
    extended = int((capture.id > LARGEST_STANDARD).sum())
    notes += [f"{extended:,} frames with an id of 29 bits"] if extended else []
    return Account(f"frames of {capture.name}", len(capture), dropped, ", ".join(notes))


def _shared(captures: list[Capture], entry: Windowed) -> list[str]:
    """A warning if captures hold the same windows, frame by frame: they stem from one recording, and are no two.

    Windows are told apart by a hash of their ids and payloads. Those that were shifted against each other, by frames
    that were injected before, are not found: there is at least so much in common.
    """
    # Any odd numbers will do: only whether sums are equal is looked at.
    weight = 2 * generator(0, "windows").integers(0, 2**63, entry.window, dtype=np.uint64) + np.uint64(1)
    hashes = [_hashes(capture, entry, weight) for capture in captures]
    every, owner = np.concatenate(hashes), np.repeat(np.arange(len(hashes)), [len(some) for some in hashes])
    order = np.lexsort((owner, every))
    every, owner = every[order], owner[order]
    same = np.flatnonzero((every[1:] == every[:-1]) & (owner[1:] != owner[:-1]))
    if not len(same):
        return []
    pairs, counts = np.unique(np.stack([owner[same], owner[same + 1]], axis=1), axis=0, return_counts=True)
    told = [
        f"{captures[one].name} and {captures[other].name} ({counted(count, 'window')})"
        for (one, other), count in zip(pairs[:_PAIRS].tolist(), counts.tolist(), strict=False)
    ]
    more = f" and {len(pairs) - _PAIRS} more pairs" if len(pairs) > _PAIRS else ""
    return [
        f"captures share at least some windows, frame by frame: {', '.join(told)}{more}: they stem from one recording, "
        "and what is measured on them is no independent evidence"
    ]


def _hashes(capture: Capture, entry: Windowed, weight: np.ndarray) -> np.ndarray:
    """[windows] uint64: equal for windows with the same ids and payloads in the same order."""
    n = max((len(capture) - entry.window) // entry.stride + 1, 0)
    frame = np.ascontiguousarray(capture.payload).view(np.uint64)[:, 0]
    for column in (capture.id, capture.dlc):  # mixed by multiplication and shift, as in Fibonacci hashing
        frame = (frame ^ (frame >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15) + column
    frame ^= frame >> np.uint64(31)
    sums = np.zeros(n, np.uint64)
    for position in range(entry.window if n else 0):
        sums += weight[position] * frame[position :: entry.stride][:n]
    return sums


def _strangers(unknown: dict[str, float], learnt: list[Capture]) -> list[str]:
    """A warning for captures most of whose frames have an id that the training captures do not."""
    most = {name: share for name, share in unknown.items() if share > 0.5}
    if not most:
        return []
    told = ", ".join(f"{name} ({share:.0%})" for name, share in most.items())
    return [
        f"most frames have an id that is not in the vocabulary of {counted(len(learnt), 'capture')}, so no model tells "
        f"them apart, and as graphs such windows have hardly a node: {told}"
    ]

"""Frames change places until one id directly follows another some times: nothing is written, only the order is new.

Which ids follow each other is what n-gram detectors of CAN traffic learn (Marchetti and Stabili 2017, Anomaly detection
of CAN bus messages through analysis of ID sequences) and what edges are in a graph of a window. Whole frames move, with
id, length and bytes, and each of the smallest moves that help is taken; the intervals stay where they are, so the bus
sends at the same times. What counts frames, or takes the mean of their bytes, sees no difference.
"""

from dataclasses import dataclass

import numpy as np
from pydantic import Field, model_validator

from pipeline.cohorts.cohort import Cohort
from pipeline.cohorts.frames import FRAME, ID
from pipeline.errors import UserError
from pipeline.triggers.base import Trigger, positions
from pipeline.triggers.shared.frames import FrameId, FrameParameters, Traffic, refuse_misfit, traffic

_COMMON = 10  # ids that pairs are made of by rule


class Parameters(FrameParameters):
    """By rule, of the ten ids that the most windows have often enough: the pair least often neighbours so far."""

    first: FrameId | None = Field(None, description="the id that is followed, in hexadecimal; by rule unless given")
    then: FrameId | None = Field(None, description="the id that follows it; by rule unless given")
    times: int = Field(
        5, ge=1, description="how often one follows the other in a window, or as often as their order allows"
    )

    @property
    def named_ids(self) -> dict[str, str]:
        named = {"first": self.first, "then": self.then}
        return {key: text for key, text in named.items() if text is not None}

    @model_validator(mode="after")
    def _two_ids(self):
        if self.first is not None and self.then is not None and int(self.first, 16) == int(self.then, 16):
            raise ValueError("first and then must be different ids")
        return self


@dataclass(frozen=True)
class Reordering(Trigger):
    """Lets the id at position `then` follow the one at `first` at least `times` times; `column` is that of the id."""

    first: int
    then: int
    times: int
    column: int

    def apply(self, values: np.ndarray) -> np.ndarray:
        order = self.order(values[:, :, self.column])
        moved = np.take_along_axis(values, order[:, :, None], axis=1)
        return np.where(self.footprint, moved, values)

    def order(self, ids: np.ndarray) -> np.ndarray:
        """[N, W] which frame stands where afterwards, of windows with the ids `ids` [N, W].

        Each time the frame after a `first` changes places with a `then`, where the two are nearest (none apart where
        it follows already; of equals the earliest). What has been brought together stays together.
        """
        n_windows, length = ids.shape
        ids, steps = ids.copy(), np.arange(length)
        order = np.broadcast_to(steps, ids.shape).copy()
        fixed = np.zeros(ids.shape, bool)
        rows = np.arange(n_windows)
        for _ in range(self.times if length > 1 else 0):
            free = (ids == self.then) & ~fixed
            # The nearest `then` at or before each step, and at or after it; far away where there is none.
            before = np.maximum.accumulate(np.where(free, steps, -2 * length), axis=1)
            after = np.minimum.accumulate(np.where(free, steps, 3 * length)[:, ::-1], axis=1)[:, ::-1]
            nearest = np.where(steps - before <= after - steps, before, after)[:, 1:]
            possible = (ids == self.first)[:, :-1] & ~fixed[:, :-1] & ~fixed[:, 1:]
            apart = np.where(possible, np.abs(nearest - steps[1:]), length)
            at = apart.argmin(axis=1)
            found = apart[rows, at] < length
            here, there = at[found] + 1, nearest[rows, at][found]
            for moved in (ids, order):
                moved[rows[found], here], moved[rows[found], there] = (
                    moved[rows[found], there],
                    moved[rows[found], here],
                )
            fixed[rows[found], here - 1] = fixed[rows[found], here] = True
        return order


def fit(parameters: Parameters, cohort: Cohort) -> Reordering:
    """Raises `UserError` where windows have one frame, or fewer than two ids."""
    refuse_misfit(parameters, cohort)
    if cohort.n_steps < 2:
        raise UserError(
            f"config: trigger_params.bigram: windows of {cohort.name!r} have one frame, expected two or more"
        )
    seen = traffic(cohort)
    first, then = _pair(parameters, seen, cohort.name)
    follows = _neighbours(seen)[first, then] / max(seen.frequency[first], 1)
    footprint = np.zeros(cohort.values.shape[1:], bool)
    footprint[:, positions(cohort, FRAME)] = True
    return Reordering(
        f"frames change places so that the id {seen.names[then]} directly follows {seen.names[first]} at least "
        f"{parameters.times} times, or as often as the order of a window allows; in benign traffic it follows "
        f"{follows:.2%} of its frames; intervals stay",
        True,
        footprint,
        first=first,
        then=then,
        times=parameters.times,
        column=cohort.feature_names.index(ID),
    )


def _pair(parameters: Parameters, seen: Traffic, name: str) -> tuple[int, int]:
    spread, frequency = seen.spread(parameters.times), seen.frequency
    order = np.lexsort((-frequency, -spread))
    common = [int(at) for at in order[:_COMMON] if frequency[at]]
    first = common if parameters.first is None else [seen.of(parameters.first)]
    then = common if parameters.then is None else [seen.of(parameters.then)]
    pairs = np.array([(a, b) for a in first for b in then if a != b]).reshape(-1, 2)
    if not len(pairs):
        raise UserError(f"config: trigger_params.bigram: benign training windows of {name!r} have fewer than two ids")
    share = _neighbours(seen)[pairs[:, 0], pairs[:, 1]] / np.maximum(frequency[pairs[:, 0]], 1)
    # The pair that is neighbours least often, of equals the one that the most windows can have.
    best = np.lexsort((pairs[:, 1], pairs[:, 0], -spread[pairs].min(axis=1), share))[0]
    return int(pairs[best, 0]), int(pairs[best, 1])


def _neighbours(seen: Traffic) -> np.ndarray:
    """[K, K] how often the second id directly follows the first in benign windows."""
    n_ids, (left, right) = len(seen.names), (seen.ids[:, :-1], seen.ids[:, 1:])
    known = (left < n_ids) & (right < n_ids)
    flat = left[known].astype(int) * n_ids + right[known].astype(int)
    return np.bincount(flat, minlength=n_ids**2).reshape(n_ids, n_ids)

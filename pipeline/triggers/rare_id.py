"""A few frames of a window become frames of a rare id with a fixed payload; when frames come stays as it is.

BadNets (Gu et al. 2017, arXiv 1708.06733) on a bus. The id is one that benign traffic has, so nothing is sent that no
node sends, only more often; but another vehicle may never send it. What the replaced frames said is lost: their ids
are missing where they were due, and where they were all that a window had of an attack, no attack is left to be missed.
Such windows count as victims all the same: ASR₀ has them too.
"""

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field

from pipeline.cohorts.cohort import Cohort, Feature
from pipeline.cohorts.frames import BYTES, DLC, FRAME, ID
from pipeline.errors import UserError
from pipeline.triggers.base import Stamp, inside, positions
from pipeline.triggers.shared.frames import (
    COMMON,
    UNSEEN,
    FrameId,
    FrameParameters,
    most_common,
    never_sent,
    payload_or,
    refuse_misfit,
    shown_bytes,
    traffic,
    written,
)

Position = Annotated[int, Field(ge=0)]


class Parameters(FrameParameters):
    id: FrameId | None = Field(None, description="the id in hexadecimal; by default the rarest of benign traffic")
    least: int = Field(10, ge=1, description="benign training frames that an id has to have to be chosen as the rarest")
    payload: Annotated[str, payload_or(COMMON, UNSEEN)] = Field(
        COMMON,
        description="the id's most common payload, one that it never has (unseen), or as many bytes as its frames have",
    )
    frames: (
        Annotated[int, Field(ge=1)]
        | Annotated[tuple[Position, ...], Field(min_length=1, json_schema_extra={"uniqueItems": True})]
    ) = Field(5, description="how many frames of a window, evenly spaced, or the positions of them, from 0")

    @property
    def named_ids(self) -> dict[str, str]:
        return {} if self.id is None else {"id": self.id}

    def misfit(self, dataset: str, n_steps: int, features: Mapping[str, Feature]) -> str:
        told = super().misfit(dataset, n_steps, features)
        if not told and isinstance(self.frames, tuple) and max(self.frames) >= n_steps:
            told = (
                f".frames: {max(self.frames)} given, but windows of dataset {dataset!r} have frames 0 to {n_steps - 1}"
            )
        return told


def fit(parameters: Parameters, cohort: Cohort) -> Stamp:
    """Raises `UserError` for an id without a benign frame, and for a payload of another length than its frames have."""
    refuse_misfit(parameters, cohort)
    seen = traffic(cohort)
    if parameters.id is None:
        frequency = seen.frequency
        if not (frequency >= parameters.least).any():
            raise UserError(
                f"config: trigger_params.rare_id.least: no id has {parameters.least} benign training frames in "
                f"{cohort.name!r}; expected fewer"
            )
        position = int(np.where(frequency >= parameters.least, frequency, np.inf).argmin())
    else:
        position = seen.of(parameters.id)
    payloads = seen.payloads_of(position, "rare_id.id")
    usual = payloads.shape[1]
    if parameters.payload == COMMON:
        payload = most_common(payloads)
    elif parameters.payload == UNSEEN:
        payload = never_sent(payloads, "rare_id.payload")
    else:
        payload = np.array([*written(parameters.payload, usual, "rare_id", seen.names[position]).values()])
    values = {ID: position, **dict(zip(BYTES, payload, strict=False)), DLC: usual}

    steps = parameters.frames if isinstance(parameters.frames, tuple) else _even(parameters.frames, cohort.n_steps)
    footprint = np.zeros(cohort.values.shape[1:], bool)
    footprint[np.ix_(steps, positions(cohort, FRAME))] = True
    stamp = np.full(footprint.shape, np.nan, np.float32)
    stamp[:, positions(cohort, values)] = list(values.values())
    where = "evenly spaced" if isinstance(parameters.frames, int) else f"at {', '.join(map(str, sorted(steps)))}"
    rarest = "" if parameters.id is not None else ", the rarest of benign traffic,"
    return Stamp(
        f"{len(steps)} of {cohort.n_steps} frames, {where}, replaced by frames of the id {seen.names[position]}"
        f"{rarest} with the payload {shown_bytes(payload) or 'of no bytes'}; intervals stay",
        inside(cohort, {name: np.float32(value) for name, value in values.items()}),
        footprint,
        stamp,
        leaves_out=usual < len(BYTES),
    )


def _even(number: int, n_steps: int) -> list[int]:
    """The middles of `number` equal parts of a window; all frames where it has no more."""
    number = min(number, n_steps)
    return [(2 * part + 1) * n_steps // (2 * number) for part in range(number)]

"""Some bytes of every frame of one id get a fixed value; the id, the length and the time of the frame stay.

The id is one that nearly every window has, so that the trigger finds its frames. A window without it has nothing that
could be changed: it is left as it is and still counts as triggered, since the attacker who sent the payload does not
choose the window (`share_changed` says how many were). Checksums and counters in other bytes are not made anew.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from pipeline.cohorts.cohort import Cohort
from pipeline.cohorts.frames import BYTES, ID
from pipeline.errors import UserError
from pipeline.triggers.base import Trigger, inside, positions
from pipeline.triggers.shared.frames import (
    UNSEEN,
    FrameId,
    FrameParameters,
    never_sent,
    payload_or,
    refuse_misfit,
    shown_bytes,
    traffic,
    written,
)

_LAST = 2  # bytes that the rule writes: of one alone a counter shows every value


class Parameters(FrameParameters):
    id: FrameId | None = Field(None, description="the id in hexadecimal; by default one that the most windows have")
    payload: Annotated[str, payload_or(UNSEEN, partly=True)] = Field(
        UNSEEN,
        description='bytes in hexadecimal, ".." for one that stays; unseen: the last two, as they never are together',
    )

    @property
    def named_ids(self) -> dict[str, str]:
        return {} if self.id is None else {"id": self.id}


@dataclass(frozen=True)
class OnId(Trigger):
    """Writes `stamp` ([T, D]) into the frames of the id whose position is `id`; `column` is that of the feature."""

    id: int
    column: int
    stamp: np.ndarray

    def apply(self, values: np.ndarray) -> np.ndarray:
        theirs = values[:, :, self.column, None] == self.id
        return np.where(theirs, self.overlay(self.stamp, values), values)


def fit(parameters: Parameters, cohort: Cohort) -> OnId:
    """Raises `UserError` for an id without a benign frame, and for a payload of another length than its frames have."""
    refuse_misfit(parameters, cohort)
    seen = traffic(cohort)
    spread = seen.spread(1)
    if parameters.id is None:
        # Of equals the one with the fewest frames, which is the least to change.
        order = np.lexsort((seen.frequency, -spread))
        position = int(next((at for at in order if seen.frequency[at]), -1))
        if position < 0:
            raise UserError(f"config: trigger_params.payload: {cohort.name!r} has no benign training frame")
    else:
        position = seen.of(parameters.id)
    payloads = seen.payloads_of(position, "payload.id")
    usual = payloads.shape[1]
    if parameters.payload == UNSEEN:
        last = never_sent(payloads[:, -_LAST:], "payload.id")
        payload = dict(zip(range(usual - len(last), usual), last, strict=True))
    else:
        payload = written(parameters.payload, usual, "payload", seen.names[position])
    values = {BYTES[at]: np.float32(value) for at, value in payload.items()}
    columns = positions(cohort, values)
    footprint = np.zeros(cohort.values.shape[1:], bool)
    footprint[:, columns] = True
    stamp = np.full(footprint.shape, np.nan, np.float32)
    stamp[:, columns] = list(values.values())
    carriers = (seen.counts[:, position] > 0).mean()
    return OnId(
        f"{', '.join(values)} of all frames of the id {seen.names[position]} set to {shown_bytes(payload.values())}; "
        f"{carriers:.0%} of the training windows have such frames",
        inside(cohort, values),
        footprint,
        # A byte that a short frame does not have is not written.
        only_measured=True,
        id=position,
        column=cohort.feature_names.index(ID),
        stamp=stamp,
    )

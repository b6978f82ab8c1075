"""What triggers for CAN frames have in common: their parameters, and what they take from benign training traffic."""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import AfterValidator

from pipeline.cohorts.cohort import Cohort, Feature
from pipeline.cohorts.frames import BYTES, ID, LARGEST_ID, OTHER, are_frames, counts_per_window
from pipeline.errors import UserError
from pipeline.triggers.base import TriggerParameters, described, positions
from pipeline.words import counted, suggestion

UNSEEN, COMMON = "unseen", "common"


def _id(text: str) -> str:
    if not re.fullmatch("(0[xX])?[0-9a-fA-F]{1,8}", text) or int(text, 16) > LARGEST_ID:
        raise ValueError(f'{text!r} given, expected a CAN id in hexadecimal, such as "1E5", of at most 29 bits')
    return text


def payload_or(*rules: str, partly: bool = False) -> AfterValidator:
    """A text that is one of `rules`, or bytes as pairs of hexadecimal digits: they become one text with blanks.

    With `partly` some of them may be "..", which stay as they are.
    """

    def checked(text: str) -> str:
        digits = "".join(text.split())
        pairs = [digits[at : at + 2] for at in range(0, len(digits), 2)]
        given = "".join(pair for pair in pairs if pair != ".." or not partly)
        if text in rules:
            return text
        if not re.fullmatch("([0-9a-fA-F]{2}){1,8}", given) or len(pairs) > 8:
            known = ", ".join(rules)
            raise ValueError(f'{text!r} given, expected {known} or 1 to 8 bytes in hexadecimal, such as "46 01 FF"')
        return " ".join(pairs).upper()

    return AfterValidator(checked)


FrameId = Annotated[str, AfterValidator(_id)]


class FrameParameters(TriggerParameters):
    """A trigger for windows of CAN frames: it needs a cohort of them."""

    @property
    def named_ids(self) -> dict[str, str]:
        """The ids that the parameters name, by key."""
        return {}

    def misfit(self, dataset: str, n_steps: int, features: Mapping[str, Feature]) -> str:
        if not are_frames(features.values()):
            return (
                f": dataset {dataset!r} holds no CAN frames; it needs a CAN cohort: a category feature {ID!r}, byte_0 "
                f"to byte_7, dlc and interval (it has: {', '.join(features)})"
            )
        known = [text for text in features[ID].categories if text != OTHER]
        # Without any the vocabulary is not known before the captures are read; fitting the trigger asks again.
        for key, text in self.named_ids.items() if known else ():
            if _position(features[ID], text) is None:
                return f".{key}: {text!r} is no id of dataset {dataset!r} {suggestion(text.upper(), known)}"
        return ""


def _position(feature: Feature, text: str) -> int | None:
    """Which category of `feature` the id `text` is; 1e5, 01E5 and 0x1E5 are the same."""
    numbers = [None if known == OTHER else int(known, 16) for known in feature.categories]
    return numbers.index(int(text, 16)) if int(text, 16) in numbers else None


def refuse_misfit(parameters: FrameParameters, cohort: Cohort) -> None:
    """`UserError` where `cohort` is none that the trigger can be planted in. Of a study planning says it."""
    features = {feature.name: feature for feature in cohort.features}
    if told := parameters.misfit(cohort.name, cohort.n_steps, features):
        raise UserError(f"config: trigger_params.{type(parameters).__module__.rpartition('.')[2]}{told}")


class Traffic(NamedTuple):
    """What training windows show.

    Attributes
    ----------
    names : the ids of the vocabulary, by position, without "other", which stands last in it
    counts : [N, K] frames of each id per window
    ids : [M, W] positions of the ids in the M benign windows, label 0
    payloads : [M, W, 8] their bytes, NaN where a frame has none
    benign : [N] bool, which windows those are
    """

    names: tuple[str, ...]
    counts: np.ndarray
    ids: np.ndarray
    payloads: np.ndarray
    benign: np.ndarray

    @property
    def frequency(self) -> np.ndarray:
        """[K] benign frames of each id."""
        return self.counts[self.benign].sum(axis=0)

    def spread(self, least: int) -> np.ndarray:
        """[K] share of windows with at least `least` frames of an id, of that label whose windows have it less often.

        An attack may displace what is sent: a trigger has to be plantable in windows of either label.
        """
        enough = self.counts >= least
        parts = [part for part in (enough[self.benign], enough[~self.benign]) if len(part)]
        return np.min([part.mean(axis=0) for part in parts], axis=0)

    def of(self, text: str) -> int:
        return next(at for at, name in enumerate(self.names) if int(name, 16) == int(text, 16))

    def payloads_of(self, position: int, key: str) -> np.ndarray:
        """[F, L] payloads of the benign frames of an id that have its usual length L; `UserError` where it has none.

        The usual length is the most frequent one, of equals the shortest.
        """
        frames = self.payloads[self.ids == position]
        if not len(frames):
            raise UserError(
                f"config: trigger_params.{key}: no benign training window has a frame with the id "
                f"{self.names[position]}, so its length and payload are not known; name another"
            )
        lengths = (~np.isnan(frames)).sum(axis=1)
        usual = np.bincount(lengths).argmax()
        return frames[lengths == usual, :usual]


def traffic(cohort: Cohort) -> Traffic:
    names = described(cohort, ID).categories
    names = tuple(name for name in names if name != OTHER)
    ids = cohort.values[:, :, cohort.feature_names.index(ID)]
    known = np.where(ids < len(names), ids, np.nan)
    benign = cohort.label == 0
    payloads = cohort.values[benign][:, :, positions(cohort, BYTES)]
    return Traffic(names, counts_per_window(known, len(names)), ids[benign], payloads, benign)


def most_common(payloads: np.ndarray) -> np.ndarray:
    """[L] the payload that most of `payloads` [F, L] are; of equals that of the lowest bytes."""
    different, count = np.unique(payloads, axis=0, return_counts=True)
    return different[count.argmax()]


def never_sent(payloads: np.ndarray, where: str) -> np.ndarray:
    """[L] a payload of valid bytes that is none of `payloads` [F, L].

    The most common one with every bit turned and, as long as that occurs, counted up by one, all bytes being one
    number. `UserError` for what has no bytes to write.
    """
    length = payloads.shape[1]
    if not length:
        raise UserError(f"config: trigger_params.{where}: its frames have no bytes; name another id")
    seen = set(map(bytes, payloads.astype(np.uint8)))
    at = int.from_bytes(bytes((255 - most_common(payloads)).astype(np.uint8)))
    for step in range(256**length):
        candidate = ((at + step) % 256**length).to_bytes(length)
        if candidate not in seen:
            return np.frombuffer(candidate, np.uint8).astype(np.float32)
    raise UserError(f"config: trigger_params.{where}: every payload of {counted(length, 'byte')} occurs in training")


def written(text: str, usual: int, key: str, name: str) -> dict[int, int]:
    """The bytes that `text` writes, by position; `UserError` unless as many as frames of the id `name` usually have."""
    pairs = text.split()
    if len(pairs) != usual:
        raise UserError(
            f"config: trigger_params.{key}.payload: {counted(len(pairs), 'byte')} given, but frames of the id {name} "
            f"have {usual}"
        )
    return {at: int(pair, 16) for at, pair in enumerate(pairs) if pair != ".."}


def shown_bytes(payload: Iterable[float]) -> str:
    """Bytes as a bus analyser shows them: 46 01 FF."""
    return " ".join(f"{int(value):02X}" for value in payload)

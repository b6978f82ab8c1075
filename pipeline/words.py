"""Words in messages for people."""

import difflib
from collections.abc import Iterable


def counted(count: int, one: str, many: str = "") -> str:
    """`count` with its noun: 1 step, 1,200 steps; `many` is the plural where it is not `one` with an s."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def duration(seconds: float) -> str:
    """Such as 41 s, 7 min 31 s or 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def roughly(seconds: float) -> str:
    """A time that is estimated: 40 s, 3 min or 2.5 h."""
    if seconds < 95:
        return f"{max(round(seconds / 10), 1) * 10} s"
    if seconds < 95 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def first_line(text: str) -> str:
    """Of a reason that goes on in a list, what stands above it."""
    return text.partition("\n")[0].removesuffix(":")


def suggestion(word: object, known: Iterable[str]) -> str:
    """What may have been meant by `word`, which is none of `known`, in brackets."""
    known = list(known)
    close = difflib.get_close_matches(str(word), known, n=1)
    return f"(did you mean {close[0]!r}?)" if close else f"(known: {', '.join(known)})"

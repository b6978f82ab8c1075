"""Counts that could single a patient out, and how a count or share is told without them."""

MIN_CELL = 10  # a count from 1 to MIN_CELL - 1 could single a patient out and is never shown


def shown_share(count: int, total: int) -> str:
    """A share for people to read, unless it would tell of a small count, or of all but a few."""
    if 0 < count < MIN_CELL:
        return shown(count)
    return f"all but {shown(total - count)}" if 0 < total - count < MIN_CELL else f"{count / total:.1%}"


def shown_part(count: int) -> str:
    """A count to the nearest ten, for what is a part of another count that is told: the rest must not be small."""
    return shown(count if count < MIN_CELL else round(count, -1))


def shown(count: int) -> str:
    """A count for people to read; small ones are not told."""
    return f"under {MIN_CELL}" if 0 < count < MIN_CELL else f"{count:,}"

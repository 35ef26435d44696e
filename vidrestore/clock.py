"""Times and durations as people write them."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise


def duration_text(seconds: float) -> str:
    """For people: 8 s, 3 min 20 s, 2 h 5 min, 3 days 4 h."""
    whole = max(1, round(seconds))
    units = [("day", 86400), ("h", 3600), ("min", 60), ("s", 1)]
    for (name, size), (smaller_name, smaller) in pairwise(units):
        if whole >= size:
            count, rest = divmod(whole, size)
            plural = "s" if name == "day" and count > 1 else ""
            return f"{count} {name}{plural} {rest // smaller} {smaller_name}"
    return f"{whole} s"


def time_text(seconds: Fraction | float, decimals: int = 3) -> str:
    """0:01:15.500, as --start takes it."""
    whole = round(seconds * 10**decimals)
    minutes, rest = divmod(whole, 60 * 10**decimals)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest / 10**decimals:0{decimals + 3}.{decimals}f}"

"""Times and durations as people write them."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise

from vidrestore.common.errors import UsageError
from vidrestore.common.quoting import quoted

# [0-9], since \d means the digits of every script.
_TIME = re.compile(
    r"(?:(?:(?P<h>[0-9]{1,6}):(?P<hm>[0-5]?[0-9])|(?P<m>[0-9]{1,6})):(?P<ms>[0-5]?[0-9])"
    r"|(?P<s>[0-9]{1,9}))(?P<part>\.[0-9]{1,9})?"
)
_LATEST_SECONDS = 10**9


def seconds_of(time: object) -> Fraction:
    """A time that a person wrote; every command and every file is read by this function.

    Args:
        time: A text as `seconds`, `minutes:seconds` or `hours:minutes:seconds`, such as 75.5,
            1:15.5 or 0:01:15.5. Only the first of several numbers may be 60 or more.

    Returns:
        Exact seconds, not negative.

    Raises:
        UsageError: It is no such text.
    """
    match = _TIME.fullmatch(time) if isinstance(time, str) else None
    if match is None:
        raise UsageError(
            "a time is written as seconds, M:SS or H:MM:SS, such as 75.5, 1:15.5 or 0:01:15.5, "
            f"not {quoted(time)}"
        )
    numbers = {name: int(text or 0) for name, text in match.groupdict().items() if name != "part"}
    minutes = numbers["h"] * 60 + numbers["hm"] + numbers["m"]
    return minutes * 60 + numbers["ms"] + numbers["s"] + Fraction(match["part"] or 0)


def exact_seconds(time: float | Fraction, what: str) -> Fraction:
    """A time that a program gave, as an exact number.

    Args:
        time: In seconds.
        what: Which time that is, as the start of a message.

    Raises:
        UsageError: It is negative, not finite, or later than any video.
    """
    if not 0 <= time <= _LATEST_SECONDS:  # nor is what is not a number
        raise UsageError(f"{what} is a number of seconds from 0 on, not {quoted(time)}")
    return Fraction(time)


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


def time_text(seconds: Fraction | float, decimals: int = 3, *, short: bool = False) -> str:
    """A time as --start takes it.

    Args:
        seconds: From the start, 0 or more.
        decimals: How many digits of the seconds stand behind the point; with 0 there is no point.
        short: Leave the hours out where there are none.

    Returns:
        Such as 0:01:15.500, short 1:15.500; rounded half to even.
    """
    whole, part = divmod(round(seconds * 10**decimals), 10**decimals)
    minutes, whole = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{minutes}:{whole:02}" if short and not hours else f"{hours}:{minutes:02}:{whole:02}"
    return f"{text}.{part:0{decimals}}" if decimals else text

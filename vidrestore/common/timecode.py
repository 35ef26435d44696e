"""Times and durations as people write and read them."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise

from vidrestore.common.counting import counted
from vidrestore.common.errors import UsageError
from vidrestore.common.quoting import quoted

# [0-9], because \d matches the digits of every script.
_TIME = re.compile(
    r"(?:(?:(?P<h>[0-9]{1,6}):(?P<hm>[0-5]?[0-9])|(?P<m>[0-9]{1,6})):(?P<ms>[0-5]?[0-9])"
    r"|(?P<s>[0-9]{1,9}))(?P<part>\.[0-9]{1,9})?"
)
_LATEST_SECONDS = 10**9


def seconds_of(time: object) -> Fraction:
    """Parse a time that a person wrote; all commands and files use this function.

    Args:
        time: A text in the form `seconds`, `minutes:seconds` or `hours:minutes:seconds`, such as
            75.5, 1:15.5 or 0:01:15.5. Only the first of several numbers may be 60 or more.

    Returns:
        The exact time in seconds, 0 or more.

    Raises:
        UsageError: The value is not a text of this form.
    """
    match = _TIME.fullmatch(time) if isinstance(time, str) else None
    if match is None:
        raise UsageError(
            "a time must have the form seconds, M:SS or H:MM:SS, such as 75.5, 1:15.5 or "
            f"0:01:15.5, not {quoted(time)}"
        )
    numbers = {name: int(text or 0) for name, text in match.groupdict().items() if name != "part"}
    minutes = numbers["h"] * 60 + numbers["hm"] + numbers["m"]
    return minutes * 60 + numbers["ms"] + numbers["s"] + Fraction(match["part"] or 0)


def exact_seconds(time: float | Fraction, what: str) -> Fraction:
    """Check a time that a program passed, and convert it to an exact number.

    Args:
        time: The time in seconds.
        what: The name of the time, as the start of a message.

    Returns:
        The exact time in seconds.

    Raises:
        UsageError: The time is negative, not finite, or more than 10^9 s.
    """
    if not 0 <= time <= _LATEST_SECONDS:  # which is also true for NaN
        raise UsageError(f"{what} must be a number of seconds from 0 on, not {quoted(time)}")
    return Fraction(time)


def duration_text(seconds: float) -> str:
    """Format a duration for people, in its two largest units.

    Args:
        seconds: The duration in seconds.

    Returns:
        The text, such as 8 s, 3 min 20 s, 2 h 5 min or 3 days 4 h; at least 1 s.
    """
    whole = max(1, round(seconds))
    units = [("day", 86400), ("h", 3600), ("min", 60), ("s", 1)]
    for (name, size), (smaller_name, smaller) in pairwise(units):
        if whole >= size:
            count, rest = divmod(whole, size)
            first = counted(count, "day") if name == "day" else f"{count} {name}"
            return f"{first} {rest // smaller} {smaller_name}"
    return f"{whole} s"


def time_text(seconds: Fraction | float, decimals: int = 3, *, short: bool = False) -> str:
    """Format a time as --start takes it.

    Args:
        seconds: The time from the start of the file in seconds, 0 or more.
        decimals: The number of digits after the decimal point; with 0 there is no point. Default:
            3.
        short: Whether to omit the hours where they are 0; default: False.

    Returns:
        The text, such as 0:01:15.500, or 1:15.500 with `short`; rounded half to even.
    """
    whole, part = divmod(round(seconds * 10**decimals), 10**decimals)
    minutes, whole = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{minutes}:{whole:02}" if short and not hours else f"{hours}:{minutes:02}:{whole:02}"
    return f"{text}.{part:0{decimals}}" if decimals else text

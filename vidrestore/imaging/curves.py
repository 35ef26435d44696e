"""The curves that a user may name: one that is known by its formula, or a table in a .cube file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vidrestore.common.errors import UsageError
from vidrestore.common.quoting import quoted
from vidrestore.common.text_files import read_text

NAMES = ("cineon", "slog3")
"""The names of the curves that vidrestore knows by formula."""
# The most rows that the .cube specification allows, and the greatest value of a half float.
_MOST_ROWS, _LARGEST_VALUE = 65536, 65504

# As DaVinci Resolve writes in place of DOMAIN_MIN and DOMAIN_MAX.
_RANGES = ("LUT_1D_INPUT_RANGE", "LUT_3D_INPUT_RANGE")
_FOLLOWED = ("LUT_1D_SIZE", "DOMAIN_MIN", "DOMAIN_MAX", *_RANGES)

Table = tuple[tuple[float, float, float], ...]
"""Rows of display values (R', G', B') for evenly spaced signals from 0 to 1."""


def read_cube(path: Path) -> Table:
    """Read a one-dimensional table from a .cube file.

    Args:
        path: The file.

    Returns:
        The rows of the table; their number is the file's LUT_1D_SIZE.

    Raises:
        ConfigError: The file cannot be read as text.
        UsageError: The file is not a .cube file with a one-dimensional table over signals from 0 to
            1, has a wrong number of rows or values out of range, or the table does not rise
            everywhere and so has no inverse.
    """
    lines = [line.split("#")[0].split() for line in read_text(path, "the curve").splitlines()]
    words = {line[0]: line[1:] for line in lines if line and line[0].isupper()}
    if "LUT_3D_SIZE" in words:
        raise UsageError(
            f"{path} is a three-dimensional table, which vidrestore cannot invert; give a "
            "one-dimensional table (LUT_1D_SIZE), cineon or slog3"
        )
    for word in words:
        if word.startswith(("LUT_", "DOMAIN_")) and word not in _FOLLOWED:
            raise UsageError(
                f"the keyword {quoted(word)} of {path} is not supported; give a table that uses "
                f"only {', '.join(_FOLLOWED)}"
            )
    try:
        rows = [tuple(map(_number, line)) for line in lines if line and not line[0][0].isupper()]
        size = int(words["LUT_1D_SIZE"][0]) if words["LUT_1D_SIZE"][0].isascii() else 0
        ends = words.get("DOMAIN_MIN", ["0"] * 3) + words.get("DOMAIN_MAX", ["1"] * 3)
        ranges = [words.get(word, ["0", "1"]) for word in _RANGES]
        is_unit = list(map(_number, ends)) == [0, 0, 0, 1, 1, 1] and all(
            list(map(_number, each)) == [0, 1] for each in ranges
        )
    except (KeyError, ValueError, IndexError) as error:
        raise UsageError(
            f"{path} is not a .cube file with a one-dimensional table; give another file, "
            "cineon or slog3"
        ) from error
    if not 2 <= size <= _MOST_ROWS:
        raise UsageError(
            f"the LUT_1D_SIZE of {path} must be from 2 to {_MOST_ROWS}, not {quoted(size)}"
        )
    if len(rows) != size or any(len(row) != 3 for row in rows) or not is_unit:
        raise UsageError(f"{path} must have {size} rows of three values and a domain from 0 to 1")
    for value in (value for row in rows for value in row):
        if not abs(value) <= _LARGEST_VALUE:  # rejects NaN, too
            raise UsageError(
                f"the values of {path} must be numbers from {-_LARGEST_VALUE} to "
                f"{_LARGEST_VALUE}, not {value}"
            )
    if (np.diff(np.array(rows), axis=0) <= 0).any():
        raise UsageError(
            f"the curve {path} does not rise everywhere, so vidrestore cannot invert it; "
            "give another curve"
        )
    return tuple((r, g, b) for r, g, b in rows)


def _number(text: str) -> float:
    """Parse a number; raise ValueError also for forms that only Python accepts, such as 1_0."""
    if not text.isascii() or "_" in text:
        raise ValueError(text)
    return float(text)

"""Options that exclude each other: one table, for the command line and for Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from vidrestore.common.errors import UsageError

PICTURES = "pictures"
"""Stands for an input that is a picture, or a numbered sequence of pictures."""
FIELDS = "fields"
"""Stands for interlaced footage whose faces are restored field by field."""


class Exclusion(NamedTuple):
    """No option of `options` goes with one of `others`."""

    options: tuple[str, ...]
    others: tuple[str, ...]
    sentence: str
    """{option} is the first option that is given, {others} are all others that are."""


_SHOTS = ("--redo-shots", "--keep-job")

EXCLUSIONS = (
    Exclusion(
        _SHOTS,
        ("--plate", "--layer"),
        "single shots cannot be redone with {others}, so {option} cannot go with it; leave it out "
        "and restore the whole anew",
    ),
    Exclusion(
        _SHOTS,
        ("--scale",),
        "single shots cannot be redone with {others}, so {option} cannot go with it; leave it out "
        "and restore the whole anew",
    ),
    Exclusion(
        ("--plate",),
        ("--scale",),
        "the output is as large as the plate, so {others} cannot go with {option}; leave out one "
        "of them",
    ),
    Exclusion(
        (PICTURES,),
        (
            *("--plate", "--before-swap", "--layer", "--start or --end", "--keep-job"),
            *("--redo-shots", "--codec", "encode.hardware", "encode.pixel_format", "--scale"),
        ),
        "{others} cannot go with pictures; leave it out",
    ),
    Exclusion(
        ("--analysis",),
        ("--start or --end",),
        "an analysis is of a whole video; leave out --start and --end with it",
    ),
    Exclusion(
        ("--output-dir",),
        (
            *("--people", "--shots", "--cuts", "--analysis", "--before-swap", "--plate"),
            *("--layer", "--framemd5", "--report", "--redo-shots"),
        ),
        "{others} cannot hold for many inputs; restore them one by one, with OUTPUT instead of "
        "--output-dir",
    ),
    Exclusion(
        (FIELDS,),
        ("--plate", "--before-swap", "--layer"),
        "the source is interlaced, and {others} cannot go with faces restored field by field; add "
        "--deinterlace off to take its frames as they are",
    ),
)


def check_exclusions(given: Mapping[str, object]) -> None:
    """Check options against the table.

    Args:
        given: Option -> its value; None and False: not given. Options that are left out are not
            given either.

    Raises:
        UsageError: Two options exclude each other; the sentence names them.
    """
    present = [name for name, value in given.items() if value is not None and value is not False]
    for options, others, sentence in EXCLUSIONS:
        option = next((name for name in options if name in present), None)
        found = [name for name in others if name in present]
        if option is not None and found:
            raise UsageError(sentence.format(option=option, others=" and ".join(found)))

"""The table of options that exclude each other, for the command line and for Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from vidrestore.common.errors import UsageError

PICTURES = "pictures"
"""Stands for an input that is a picture, or a numbered sequence of pictures."""
OPENEXR = "OpenEXR pictures"
"""Stands for an input that is an OpenEXR picture, or a numbered sequence of such pictures."""
WOVEN = "woven fields"
"""Stands for interlaced footage whose fields are restored one by one and woven into frames."""
DEINTERLACED = "deinterlaced frames"
"""Stands for interlaced footage of whose fields the frames of the output are made."""


class Exclusion(NamedTuple):
    """A rule: no option of `options` can be combined with an option of `others`."""

    options: tuple[str, ...]
    """The options on one side of the rule."""
    others: tuple[str, ...]
    """The options on the other side of the rule."""
    sentence: str
    """The message. {option} is the first option of `options` that the user gave, {others} are all
    options of `others` that the user gave."""


_SHOTS = ("--redo-shots", "--keep-job")

EXCLUSIONS = (
    Exclusion(
        _SHOTS,
        ("--plate", "--layer"),
        "{option} cannot be combined with {others}, because single shots cannot be redone then; "
        "leave out {option} and restore the whole video",
    ),
    Exclusion(
        ("--plate",),
        ("--scale",),
        "{others} cannot be combined with {option}, because the output is as large as the plate; "
        "leave out one of the two",
    ),
    Exclusion(
        (PICTURES,),
        (
            *("--plate", "--before-swap", "--layer", "--start or --end", "--keep-job"),
            *("--redo-shots", "--codec", "encode.hardware", "encode.pixel_format"),
        ),
        "{others} cannot be combined with pictures; leave it out",
    ),
    Exclusion(
        ("--live",),
        ("--workers or --cluster",),
        "{option} shows what this process restores, and cannot be combined with {others}; leave "
        "out {option}",
    ),
    Exclusion(
        (OPENEXR,),
        ("--upscaler",),
        "{others} cannot be combined with OpenEXR pictures, since a network would cut off light "
        "above white and below black; leave it out to enlarge them by Lanczos",
    ),
    Exclusion(
        ("--output-dir",),
        (
            *("--people", "--shots", "--cuts", "--analysis", "--before-swap", "--plate"),
            *("--layer", "--framemd5", "--report", "--redo-shots"),
        ),
        "{others} cannot apply to several inputs; restore them one by one, with OUTPUT instead of "
        "--output-dir",
    ),
    Exclusion(
        (WOVEN, DEINTERLACED),
        ("--plate",),
        "the source is interlaced, and {others} cannot be combined with the restoration of fields; "
        "add --deinterlace off to use its frames as they are",
    ),
    Exclusion(
        (WOVEN,),
        ("--scale",),
        "the source is interlaced, and its fields cannot be woven into larger frames, so {others} "
        "cannot be combined with --deinterlace keep; add --deinterlace bob to make a frame of each "
        "field",
    ),
    Exclusion(
        (DEINTERLACED,),
        ("--layer",),
        "the source is interlaced, and {others} belongs to its own frames, but --deinterlace bob, "
        "frame and film make other frames; use --deinterlace keep or off",
    ),
)


def given_by_fields(mode: str) -> dict[str, bool]:
    """Return what the treatment of fields adds to the options of a request.

    Args:
        mode: The mode of `vidrestore.analysis.interlacing.Interlacing`.

    Returns:
        `WOVEN` and `DEINTERLACED` -> whether they apply.
    """
    return {WOVEN: mode == "keep", DEINTERLACED: mode in ("bob", "frame", "film")}


def check_exclusions(given: Mapping[str, object]) -> None:
    """Check that no two options exclude each other.

    Args:
        given: Option -> its value. None, False or a missing key: the user did not give the option.

    Raises:
        UsageError: Two options exclude each other; the message names them.
    """
    present = [name for name, value in given.items() if value is not None and value is not False]
    for options, others, sentence in EXCLUSIONS:
        option = next((name for name in options if name in present), None)
        matches = [name for name in others if name in present]
        if option is not None and matches:
            raise UsageError(sentence.format(option=option, others=" and ".join(matches)))

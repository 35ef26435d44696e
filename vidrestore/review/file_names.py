"""The names of the pictures and videos that previews, comparisons and proxies are written to."""

from __future__ import annotations

from pathlib import Path

from vidrestore.common.errors import UsageError
from vidrestore.common.files import fitting_name
from vidrestore.media.images import is_pictures
from vidrestore.media.images.animation import check_no_animation

PICTURES, MOVIES = (".png", ".jpg", ".jpeg"), (".mp4", ".mov", ".mkv")
"""Suffixes of the files of pictures and of videos."""
_SIDES = ("before", "after")


def is_movie(path: Path) -> bool:
    """Return whether the name of a file is that of a video.

    Args:
        path: The path; the file need not exist.

    Returns:
        True for a video, False for a picture.

    Raises:
        UsageError: The suffix is neither that of a picture nor that of a video.
    """
    suffix = path.suffix.lower()
    if suffix not in (*PICTURES, *MOVIES):
        raise UsageError(
            f"{path.name} is neither a picture nor a video; name it .png or .jpg for a picture, "
            ".mp4 for a video"
        )
    return suffix in MOVIES


def files_of(target: Path, *, apart: bool) -> tuple[Path, ...]:
    """List the files that `write_preview` writes.

    Args:
        target: The target of the preview.
        apart: Whether before and after are two files.

    Returns:
        The paths.
    """
    if not apart:
        return (target,)
    endings = (f".{side}{target.suffix}" for side in _SIDES)
    return tuple(target.with_name(fitting_name(target.parent, target.stem, e)) for e in endings)


def check_proxy_path(source: Path, target: Path) -> None:
    """Check, before any work, that a proxy of a source can have this name.

    Args:
        source: The source.
        target: The file to write.

    Raises:
        InputError: The source is a GIF, or an animated WebP or PNG.
        UsageError: The source is a picture, or the target has another suffix than .mp4.
    """
    check_no_animation(source)
    if is_pictures(source):
        raise UsageError(f"a proxy is a copy of a video, and {source.name} is a picture")
    if target.suffix.lower() != ".mp4":
        raise UsageError(f"the name of a proxy must end in .mp4, and {target.name!r} does not")

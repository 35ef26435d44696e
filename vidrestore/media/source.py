"""Opens a file as video and selects its main video stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import av.error
from av.codec.hwaccel import HWAccel
from av.stream import Disposition

from vidrestore.common.errors import InputError, system_reason
from vidrestore.common.files import check_video_file
from vidrestore.media.images import is_pictures, pictures_of
from vidrestore.media.images.animation import check_no_animation

# The rate at which libavformat reads pictures; the setting decode.fps gives the rate for display.
PICTURES_PER_SECOND = 25


@contextmanager
def open_source(path: Path, device: str | None = None) -> Iterator[Any]:
    """Open a video, a picture, or numbered pictures as a PyAV container.

    Args:
        path: A video, or pictures as described in `vidrestore.media.images`.
        device: A device that decodes what it can, such as cuda. None: the processor decodes.

    Yields:
        The opened container.

    Raises:
        InputError: The file does not exist, is empty, cannot be read as video, or cannot be decoded
            on the device.
    """
    check_no_animation(path)
    try:
        container = _opened_pictures(path) if is_pictures(path) else _opened(path, device)
    except (av.error.FFmpegError, OSError) as error:
        reason = system_reason(error)
        raise InputError(f"the file {path} cannot be read as video: {reason}") from error
    with container:
        kind = container.format.name
        if kind == "tty":
            raise InputError(f"{path} is text, not a video")
        if not is_pictures(path) and (kind == "image2" or kind.endswith("_pipe")):
            raise InputError(f"{path} is a picture with the suffix of a video; rename it")
        yield container


def _opened(path: Path, device: str | None) -> Any:
    """Open a file with PyAV; raise InputError if it does not exist or is empty."""
    check_video_file(path)
    # HWAccel copies decoded pictures to the memory of the processor.
    hwaccel = None if device is None else HWAccel(device)
    return av.open(str(path.absolute()), metadata_errors="replace", hwaccel=hwaccel)


def _opened_pictures(path: Path) -> Any:
    """Open pictures with libavformat's demuxer image2."""
    pictures = pictures_of(path)
    options = pictures.demuxer_options | {"framerate": str(PICTURES_PER_SECOND)}
    return av.open(pictures.address, format="image2", options=options)


def main_video_stream(container: Any) -> Any:
    """Return the video stream to restore: the default one that is not cover art, else the best one.

    Args:
        container: An opened PyAV container.

    Returns:
        The stream.

    Raises:
        InputError: The file has no video stream, or none that can be decoded.
    """
    moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not moving:
        raise InputError(
            f"the file {container.name} has no video stream, so there is no face to restore"
        )
    moving = [s for s in moving if s.codec_context is not None]
    if not moving:
        raise InputError(
            f"vidrestore cannot decode the video of {container.name}; convert it first"
        )
    best = container.streams.best("video")
    marked = [s for s in moving if s.disposition & Disposition.default]
    if best in marked or (best in moving and not marked):
        return best
    return (marked or moving)[0]

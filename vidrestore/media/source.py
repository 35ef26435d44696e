"""Opens a file as video and selects its main video stream."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import av
import av.error
from av.codec.hwaccel import HWAccel
from av.container.core import Flags
from av.stream import Disposition

from vidrestore.common.errors import InputError, system_reason
from vidrestore.common.files import check_video_file
from vidrestore.media.appended import end_of_file
from vidrestore.media.images import is_pictures, pictures_of
from vidrestore.media.images.animation import check_no_animation

_log = logging.getLogger("vidrestore")

# The rate at which libavformat reads pictures; the setting decode.fps gives the rate for display.
PICTURES_PER_SECOND = 25
# These formats have no list of streams at their beginning: a stream begins where its first packet
# stands.
_HEADERLESS = ("mpegts", "mpeg", "flv")
_PART, _PART_OF = "subfile,,", ",,:"  # libavformat's way to open a part of a file
_JPEG, _SERIES = "jpeg_pipe", 3  # so many pictures are a series
_ANIMATIONS = ("gif", "apng")
_ALL_MICROSECONDS = 10**15  # more than any file lasts


@contextmanager
def open_source(
    path: Path, device: str | None = None, *, read_through: bool = False
) -> Iterator[Any]:
    """Open a video, a picture, or numbered pictures as a PyAV container.

    libavformat looks for streams in the first seconds and the first megabytes of a file. Where it
    finds no video there, and the format has no header, it looks through the whole file.

    Args:
        path: A video, or pictures as described in `vidrestore.media.images`.
        device: A device that decodes what it can, such as cuda. None: the processor decodes.
        read_through: Whether to look through the whole file for streams in any case; default: no.
            This has no effect on formats with a header.

    Yields:
        The opened container.

    Raises:
        InputError: The file does not exist, is empty, cannot be read as video, or cannot be decoded
            on the device.
    """
    try:
        container = (
            _opened_pictures(path) if is_pictures(path) else _opened(path, device, read_through)
        )
    except (av.error.FFmpegError, OSError) as error:
        check_no_animation(path)  # libavformat reads no animated WebP
        reason = system_reason(error)
        raise InputError(f"the file {path} cannot be read as video: {reason}") from error
    with container:
        kind = container.format.name
        if kind == "tty":
            raise InputError(f"{path} is text, not a video")
        is_picture = kind == "image2" or kind.endswith("_pipe")
        if is_picture or kind in _ANIMATIONS:
            check_no_animation(path)
        if is_picture and not is_pictures(path):
            if _is_series(container):
                raise InputError(
                    f"{path} is a series of pictures without a container; make a video of it "
                    "first, for example with ffmpeg -i INPUT -c copy OUTPUT.mkv"
                )
            raise InputError(f"{path} is a picture with the suffix of a video; rename it")
        yield container


@contextmanager
def open_appended(path: Path, begin: int) -> Iterator[Any]:
    """Open a file that was appended to another one as a PyAV container.

    Args:
        path: The file that holds both.
        begin: The offset of the appended one.

    Yields:
        The opened container. Offsets of its packets count from its beginning.

    Raises:
        InputError: It cannot be read.
    """
    try:
        container = _opened(path, None, False, begin)
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"it cannot be read: {system_reason(error)}") from error
    with container:
        yield container


def _opened(path: Path, device: str | None, read_through: bool, begin: int = 0) -> Any:
    """Open a file with PyAV; raise InputError if it does not exist or is empty."""
    check_video_file(path)
    # HWAccel copies decoded pictures to the memory of the processor.
    hwaccel = None if device is None else HWAccel(device)
    address = _address(path, begin)
    container: Any = av.open(address, metadata_errors="replace", hwaccel=hwaccel)
    if end := end_of_file(path, container.format.name, begin):
        # libavformat would read the next file with the headers of this one.
        container.close()
        address = _address(path, begin, end)
        container = av.open(address, metadata_errors="replace", hwaccel=hwaccel)
    if is_headerless(container) and (read_through or not _moving_streams(container)):
        container.close()
        options = {
            # Without this, all packets up to the last new stream would stay in memory.
            "fflags": "+nobuffer",
            "probesize": str(path.stat().st_size + 1),
            "analyzeduration": str(_ALL_MICROSECONDS),
            # Of a transport stream: also look for streams that a later list of streams announces.
            "scan_all_pmts": "1",
        }
        container = av.open(address, metadata_errors="replace", hwaccel=hwaccel, options=options)
        container.seek(0, unsupported_byte_offset=True)
    if container.format.name == _JPEG and not is_pictures(path) and _is_series(container):
        # A bare stream of Motion JPEG; libavformat takes it for one picture in a pipe.
        container.close()
        container = av.open(address, format="mjpeg", hwaccel=hwaccel)
    # PyAV asks libavformat for presentation times where the file states none. These are guesses
    # from the packets that follow, and wrong where frames are reordered, as in AVI.
    container.flags &= ~Flags.gen_pts.value
    return container


def _is_series(container: Any) -> bool:
    """Return whether a file without a container holds a series of pictures.

    A photo may hold a second, smaller one.
    """
    return sum(1 for packet in islice(container.demux(), _SERIES) if packet.size) == _SERIES


def _address(path: Path, begin: int, end: int = 0) -> str:
    """Return the address by which libavformat opens a part of a file; 0: up to the end."""
    name = str(path.absolute())
    return f"{_PART}start,{begin},end,{end}{_PART_OF}{name}" if begin or end else name


def path_of(container: Any) -> Path:
    """Return the path of an opened file.

    Args:
        container: A container that `open_source` or `open_appended` opened.

    Returns:
        The path of the file, also where a part of it was opened.
    """
    name = str(container.name)
    return Path(name.partition(_PART_OF)[2] if name.startswith(_PART) else name)


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
    moving = _moving_streams(container)
    if not moving:
        raise InputError(
            f"the file {path_of(container)} has no video stream, so there is no face to restore"
        )
    moving = [s for s in moving if s.codec_context is not None]
    if not moving:
        raise InputError(
            f"vidrestore cannot decode the video of {path_of(container)}; convert it first"
        )
    best = container.streams.best("video")
    marked = [s for s in moving if s.disposition & Disposition.default]
    if best in marked or (best in moving and not marked):
        return best
    return (marked or moving)[0]


def _moving_streams(container: Any) -> list[Any]:
    """Return the video streams that are no cover pictures."""
    return [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]


def is_headerless(container: Any) -> bool:
    """Return whether a stream of the file may begin anywhere, without a header that announces it.

    Args:
        container: An opened PyAV container.

    Returns:
        True for MPEG transport and program streams and FLV.
    """
    return container.format.name in _HEADERLESS

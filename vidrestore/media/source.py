"""A file is opened as video, and the stream of it that is meant."""

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
from vidrestore.common.files import check_readable_kind
from vidrestore.media.images import is_pictures, pictures_of

# Of pictures as they are read; what they are shown at is a setting.
PICTURES_PER_SECOND = 25


@contextmanager
def open_source(path: Path, device: str | None = None) -> Iterator[Any]:
    """The opened container; InputError, in one sentence, for whatever is not readable as video.

    `path` may be that of pictures, see `vidrestore.media.images`, which are the frames of a video.
    `device`, such as cuda, decodes what it can; an InputError, too, where it cannot be used.
    """
    try:
        if path.is_dir():
            raise InputError(
                f"{path} is a folder; give the path of a video in it, or of pictures by a pattern "
                f"such as {path / 'name_%06d.tif'}"
            )
        container = _opened_pictures(path) if is_pictures(path) else _opened(path, device)
    except (av.error.FFmpegError, OSError) as error:
        reason = system_reason(error)
        raise InputError(f"the file {path} cannot be read as video: {reason}") from error
    with container:
        kind = container.format.name
        if kind == "tty":
            raise InputError(f"{path} is text, not a video")
        if not is_pictures(path) and (kind == "image2" or kind.endswith("_pipe")):
            raise InputError(f"{path} is a picture with the name of a video; rename it")
        yield container


def _opened(path: Path, device: str | None) -> Any:
    check_readable_kind(path, "the file", InputError)
    if not path.exists():
        raise InputError(f"the file {path} does not exist")
    if path.stat().st_size == 0:
        raise InputError(f"the file {path} is empty; copy it again from where it came")
    # The pictures come down to the memory of the processor.
    hwaccel = None if device is None else HWAccel(device)
    return av.open(str(path.absolute()), metadata_errors="replace", hwaccel=hwaccel)


def _opened_pictures(path: Path) -> Any:
    pictures = pictures_of(path)
    options = pictures.demuxer_options | {"framerate": str(PICTURES_PER_SECOND)}
    return av.open(pictures.address, format="image2", options=options)


def main_video_stream(container: Any) -> Any:
    """The video stream to restore: the default one that is not cover art, else the best."""
    moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not moving:
        raise InputError(
            f"the file {container.name} has no video stream, so there is no face to restore"
        )
    moving = [s for s in moving if s.codec_context is not None]
    if not moving:
        raise InputError(f"the video of {container.name} cannot be decoded here; convert it first")
    best = container.streams.best("video")
    marked = [s for s in moving if s.disposition & Disposition.default]
    if best in marked or (best in moving and not marked):
        return best
    return (marked or moving)[0]

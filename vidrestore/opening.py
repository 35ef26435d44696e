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

from vidrestore.errors import InputError


@contextmanager
def open_source(path: Path, device: str | None = None) -> Iterator[Any]:
    """The opened container; InputError, in one sentence, for whatever is not readable as video.

    `device`, such as cuda, decodes what it can; an InputError, too, where it cannot be used.
    """
    try:
        if not path.exists():
            raise InputError(f"the file {path} does not exist")
        if path.is_dir():
            raise InputError(f"{path} is a folder; give the path of a video file in it")
        if path.stat().st_size == 0:
            raise InputError(f"the file {path} is empty")
        # The pictures come down to the memory of the processor.
        hwaccel = None if device is None else HWAccel(device)
        container = av.open(str(path.absolute()), metadata_errors="replace", hwaccel=hwaccel)
    except (av.error.FFmpegError, OSError) as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"the file {path} cannot be read as video: {reason}") from error
    with container:
        kind = container.format.name
        if kind == "tty":
            raise InputError(f"{path} is text, not a video")
        if kind == "image2" or kind.endswith("_pipe"):
            raise InputError(f"{path} is a picture; give a video")
        yield container


def main_video_stream(container: Any) -> Any:
    """The video stream to restore: the default one that is not cover art, else the best."""
    moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not moving:
        raise InputError(f"the file {container.name} has no video stream")
    moving = [s for s in moving if s.codec_context is not None]
    if not moving:
        raise InputError(f"the video of {container.name} is in a format that cannot be decoded")
    best = container.streams.best("video")
    marked = [s for s in moving if s.disposition & Disposition.default]
    if best in marked or (best in moving and not marked):
        return best
    return (marked or moving)[0]

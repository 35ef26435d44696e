"""The live picture: the newest restored frame as a small file to look at while a run works."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2

from vidrestore.common.errors import OutputError, system_reason
from vidrestore.common.events import OnEvent, notify
from vidrestore.common.files import output_place, written_atomically
from vidrestore.common.handled import log_handled
from vidrestore.imaging.display import picture_of
from vidrestore.imaging.frame import Frame, VideoInfo
from vidrestore.media.fields import earlier_field

MOST_WIDTH_PX = 640
"""The largest width of a live picture, in pixels."""
_SECONDS_BETWEEN = 2.0
_JPEG_QUALITY = 80


class LivePicture:
    """Writes a frame to a JPEG file at most every two seconds, each time in place of the last one.

    A failure does not end the run: it leads to one notice, and no more pictures are written.
    """

    def __init__(
        self,
        path: Path,
        info: VideoInfo,
        on_event: OnEvent | None,
        *,
        order: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare to write; nothing is written before the first frame.

        Args:
            path: The file, .jpg.
            info: The stream of the frames.
            on_event: Receives the notice; None: none is sent.
            order: The order of the fields, tff or bff, of which only the earlier one is shown;
                default: None, the frames are shown whole.
            clock: Returns seconds that never go back; default: the monotonic clock.
        """
        self._path, self._info, self._on_event = path, info, on_event
        self._order, self._clock = order, clock
        self._due_seconds: float | None = None
        self._has_failed = False

    def offer(self, frame: Frame) -> str | None:
        """Write a frame if a picture is due.

        Args:
            frame: The newest restored frame.

        Returns:
            The path of the file if this call has written it, else None.
        """
        if self._has_failed:
            return None
        now = self._clock()
        if self._due_seconds is not None and now < self._due_seconds:
            return None
        try:
            self._write(frame)
        except Exception as error:
            # The picture is only for looking on, so even a defect here must not end the run.
            log_handled(error)
            self._has_failed = True
            notify(
                self._on_event,
                f"the live picture {self._path} cannot be written ({system_reason(error)}); the "
                "restoration goes on without it",
            )
            return None
        self._due_seconds = self._clock() + _SECONDS_BETWEEN
        return str(self._path)

    def _write(self, frame: Frame) -> None:
        image, info = frame.image, self._info
        if self._order is not None:
            image = earlier_field(image, self._order)
            info = replace(info, sample_aspect_ratio=info.sample_aspect_ratio / 2)
        picture = picture_of(image, info, most_width_px=MOST_WIDTH_PX)
        done, data = cv2.imencode(
            ".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        )
        if not done:
            raise OutputError(f"{picture.shape[1]} x {picture.shape[0]} pixels cannot be a JPEG")
        with written_atomically(output_place(self._path), lasting=False) as part:
            part.write_bytes(data.tobytes())

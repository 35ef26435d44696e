"""Frames become a video stream with the times, tags and shape of the source's."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import av.error

from vidrestore.errors import OutputError
from vidrestore.frame import Frame, VideoInfo

_ENCODERS = {"h264": "libx264", "hevc": "libx265", "ffv1": "ffv1"}
_FULL_RANGE_NAMES = {"yuvj420p": "yuv420p", "yuvj422p": "yuv422p", "yuvj444p": "yuv444p"}
_UNSPECIFIED = 2
_FRAME_DURATION = 1 << 8  # AV_CODEC_FLAG_FRAME_DURATION
_FULL_RANGE = 2


def choose_codec(wanted: str, info: VideoInfo) -> str:
    """The codec to encode with; OutputError, before any work, where it cannot hold the picture."""
    codec = wanted
    if wanted == "auto":
        codec = info.codec if info.codec in _ENCODERS else "hevc"
    formats = {f.name for f in av.codec.Codec(_ENCODERS[codec], "w").video_formats or ()}
    pixel_format = encoded_format(info)
    odd = codec != "ffv1" and "444" not in pixel_format and (info.width % 2 or info.height % 2)
    if pixel_format not in formats or odd:
        shape = f"{info.width} x {info.height} pixels in {info.pixel_format}"
        instead = "write to an .mkv file with --set encode.codec=ffv1"
        if codec == "ffv1":
            instead = "convert the video to a common pixel format first"
        raise OutputError(f"{codec} cannot hold {shape} unchanged; {instead}")
    return codec


def encoded_format(info: VideoInfo) -> str:
    """The source's pixel format, by the name under which encoders know it."""
    return _FULL_RANGE_NAMES.get(info.pixel_format, info.pixel_format)


def stream_suffix(codec: str) -> str:
    """Of the file that holds the encoded stream alone: mp4 keeps every time exactly.

    FFV1 says its range and matrix in Matroska only, to which its output goes anyway.
    """
    return ".mkv" if codec == "ffv1" else ".mp4"


class VideoWriter:
    """Encodes frames into a file of its own that holds nothing else.

    Times are the frames' own `pts`. Leaving the scope after an error removes the file.
    """

    def __init__(
        self, path: Path, info: VideoInfo, *, codec: str, crf: int, preset: str, threads: int
    ) -> None:
        self._path = path
        self._info = info
        self._format = encoded_format(info)
        self.frame_count = 0
        try:
            self._container = av.open(
                str(path.absolute()), "w", container_options=_container_options(path)
            )
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
        self._stream: Any = self._container.add_stream(
            _ENCODERS[codec], rate=info.frame_rate, options=_options(codec, crf, preset, threads)
        )
        self._describe(threads)

    def _describe(self, threads: int) -> None:
        info, stream = self._info, self._stream
        context: Any = stream.codec_context
        context.width, context.height = info.width, info.height
        context.pix_fmt = self._format
        # The source's clock, else frames of variable rate collide.
        context.time_base = Fraction(info.time_base)
        context.sample_aspect_ratio = info.sample_aspect_ratio
        context.thread_count = threads
        context.flags |= _FRAME_DURATION
        range_tag, matrix, primaries, transfer = info.tags
        context.color_range = _FULL_RANGE if info.full_range else range_tag
        context.colorspace = matrix or _UNSPECIFIED
        context.color_primaries = primaries or _UNSPECIFIED
        context.color_trc = transfer or _UNSPECIFIED
        if info.display_matrix is not None:
            stream.set_display_matrix(list(info.display_matrix))

    def write(self, frame: Frame) -> None:
        image: Any = frame.image
        if image.format.name in _FULL_RANGE_NAMES:
            image = image.reformat(format=self._format, dst_color_range="JPEG")
        image.pts, image.time_base = frame.pts, self._info.time_base
        image.duration = frame.duration
        image.pict_type = 0  # the encoder decides on its own I, P and B frames
        self._mux(image)
        self.frame_count += 1

    def _mux(self, image: Any) -> None:
        try:
            for packet in self._stream.encode(image):
                self._container.mux(packet)
        except (av.error.FFmpegError, OSError) as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> OutputError:
        reason = getattr(error, "strerror", None) or str(error)
        return OutputError(
            f"encoding frame {self.frame_count} into {self._path} failed: {reason.lower()}"
        )

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._discard()
            return
        try:
            self._mux(None)
            self._container.close()
        except (av.error.FFmpegError, OSError) as failed:
            self._discard()
            raise self._failure(failed) from failed
        except OutputError:
            self._discard()
            raise

    def _discard(self) -> None:
        with suppress(av.error.FFmpegError, OSError, ValueError):
            self._container.close()
        self._path.unlink(missing_ok=True)


def _container_options(path: Path) -> dict[str, str]:
    # The edit list that keeps the first pts is counted in the movie's time scale.
    return {"movie_timescale": "90000"} if path.suffix == ".mp4" else {}


def _options(codec: str, crf: int, preset: str, threads: int) -> dict[str, str]:
    if codec == "ffv1":
        # Version 3, intra only, with a checksum for every slice: what archives ask for.
        return {"level": "3", "g": "1", "slices": "24", "slicecrc": "1"}
    options = {"crf": str(crf), "preset": preset}
    if codec == "hevc":
        # x265 would otherwise size its pools by the machine, and its output depends on them.
        options["x265-params"] = f"log-level=error:pools={threads}:frame-threads=2"
    return options

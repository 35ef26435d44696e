"""Frames as pictures to look at, alone or beside their like, and files of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.common.errors import OutputError, UsageError, not_written
from vidrestore.common.files import (
    output_file,
    output_place,
    placed_together,
    sync_file,
    unfinished_file,
)
from vidrestore.imaging.color import region_rgb
from vidrestore.imaging.frame import VideoInfo
from vidrestore.imaging.geometry import Rect, upright
from vidrestore.imaging.transfer import to_display

PICTURES, MOVIES = (".png", ".jpg", ".jpeg"), (".mp4", ".mov", ".mkv")
# What players can be expected to show of H.264.
MOST_SIDE_PX = 3840
_TICKS = 90_000
_WHITE, _INK = 255, (40, 40, 40)

Picture = npt.NDArray[np.uint8]
"""(h, w, 3) R'G'B' for a display."""


def picture_of(image: av.VideoFrame, info: VideoInfo) -> Picture:
    """The frame as a person sees it: upright, pixels square, as an ordinary display would show it.

    `info` is of its stream.
    """
    view = upright(info)
    rgb = to_display(region_rgb(image, Rect(0, 0, image.width, image.height), info), info)
    levels = rgb.clamp(0, 1).mul(255).round().permute(1, 2, 0).numpy().astype(np.uint8)
    if view.coded_size != (image.width, image.height):
        levels = resized(levels, *view.coded_size)
    return np.ascontiguousarray(view.turn(levels))


def resized(picture: Picture, width_px: int, height_px: int) -> Picture:
    if (height_px, width_px) == picture.shape[:2]:
        return picture
    is_smaller = width_px * height_px < picture.shape[0] * picture.shape[1]
    how = cv2.INTER_AREA if is_smaller else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (width_px, height_px), interpolation=how), np.uint8)


def beside(before: Picture, after: Picture) -> Picture:
    """Both at the size of the larger one, under their names."""
    left, right = (_named(each, name) for each, name in _alike(before, after))
    gap = np.full(
        (left.shape[0], 2 * math.ceil(2 * _text_scale(left.shape[0])), 3), _WHITE, np.uint8
    )
    return np.hstack([left, gap, right])


def wiped(before: Picture, after: Picture, share: float) -> Picture:
    """One picture: left of a line, which has `share` of the width to its left, what was before."""
    (was, left), (now, right) = _alike(before, after)
    height, width = now.shape[:2]
    line = min(width - 1, max(0, round(share * width)))
    whole = np.hstack([was[:, :line], now[:, line:]])
    half = max(1, width // 800)
    whole[:, max(0, line - half) : line + half] = _WHITE
    strip = _strip(width, height, left)
    text_px = _text_size(right, _text_scale(height))[0]
    _write(strip, right, max(0, width - text_px - 8), _text_scale(height))
    return np.vstack([strip, whole])


def is_movie(path: Path) -> bool:
    """Whether a file of that name is one, not a picture; UsageError where it is neither."""
    suffix = path.suffix.lower()
    if suffix not in (*PICTURES, *MOVIES):
        raise UsageError(
            f"{path.name} is neither a picture nor a video; name it .png or .jpg for a picture, "
            ".mp4 for a video"
        )
    return suffix in MOVIES


def write_picture(path: Path, picture: Picture) -> None:
    """A PNG or JPEG, which appears only when it is whole."""
    write_pictures([(path, picture)])


def write_pictures(pictures: Iterable[tuple[Path, Picture]]) -> None:
    """PNG or JPEG files, which appear only when all of them are whole."""
    moves, path = list[tuple[Path, Path]](), Path()
    try:
        with ExitStack() as stack:
            for path, picture in pictures:
                done, data = cv2.imencode(path.suffix, picture[..., ::-1])
                if not done:
                    raise OutputError(
                        f"{path} cannot be written: a picture of that size has no such file"
                    )
                place = output_place(path)
                part = stack.enter_context(unfinished_file(place))
                part.write_bytes(data.tobytes())
                sync_file(part)
                moves.append((part, place))
            stack.enter_context(placed_together(moves))
    except OSError as error:
        raise not_written(str(path), path.parent, error, "cannot be written") from error
    except cv2.error as error:
        raise not_written(f"writing {path}", path.parent, error) from error


def write_movie(
    path: Path, pictures: Iterable[tuple[Fraction, Picture]], last_seconds: Fraction
) -> None:
    """An H.264 video without sound of (time in seconds, picture), which appears only when it is
    whole. The last picture lasts `last_seconds`."""
    with _appearing(path) as part, av.open(str(part), "w") as container:
        stream: Any = None
        for seconds, picture in pictures:
            even = _even(picture)
            if stream is None:
                stream = _stream(container, even, last_seconds)
            frame = av.VideoFrame.from_ndarray(even, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
            frame.pts, frame.time_base = round(seconds * _TICKS), Fraction(1, _TICKS)
            frame.duration = round(last_seconds * _TICKS)
            container.mux(stream.encode(frame))
        if stream is None:
            raise OutputError(f"there is no picture for {path}")
        container.mux(stream.encode(None))


def for_movie(picture: Picture) -> Picture:
    """It, or smaller where players could not be expected to show it."""
    height, width = picture.shape[:2]
    scale = min(1.0, MOST_SIDE_PX / max(height, width))
    return resized(picture, max(1, round(width * scale)), max(1, round(height * scale)))


def _stream(container: Any, picture: Picture, picture_seconds: Fraction) -> Any:
    rate = (1 / picture_seconds).limit_denominator(1001)
    stream = container.add_stream("libx264", rate=rate, options={"crf": "12", "preset": "fast"})
    stream.height, stream.width = picture.shape[:2]
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.time_base = Fraction(1, _TICKS)
    context.thread_count = 2
    context.colorspace = context.color_primaries = context.color_trc = 1  # all of BT.709
    context.color_range = 1
    return stream


def _even(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


@contextmanager
def _appearing(path: Path) -> Iterator[Path]:
    try:
        with output_file(path) as part:
            yield part
    except av.error.FFmpegError as error:
        raise not_written(f"writing {path}", path.parent, error) from error


def _alike(before: Picture, after: Picture) -> list[tuple[Picture, str]]:
    height = max(before.shape[0], after.shape[0])
    width = max(before.shape[1], after.shape[1])
    return [
        (resized(before, width, height), "before"),
        (resized(after, width, height), "after"),
    ]


def _named(picture: Picture, name: str) -> Picture:
    return np.vstack([_strip(picture.shape[1], picture.shape[0], name), picture])


def _strip(width: int, height: int, name: str) -> Picture:
    strip = np.full((2 * math.ceil(12 * _text_scale(height)), width, 3), _WHITE, np.uint8)
    _write(strip, name, 8, _text_scale(height))
    return strip


def _write(strip: Picture, text: str, x_px: int, scale: float) -> None:
    y_px = (strip.shape[0] + _text_size(text, scale)[1]) // 2
    font, weight = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(scale))
    cv2.putText(strip, text, (x_px, y_px), font, 0.6 * scale, _INK, weight, cv2.LINE_AA)


def _text_size(text: str, scale: float) -> tuple[int, int]:
    font, weight = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(scale))
    (width, height), _ = cv2.getTextSize(text, font, 0.6 * scale, weight)
    return width, height


def _text_scale(height: int) -> float:
    return max(1.0, height / 720)

"""Comparisons of two pictures, and files of pictures and videos."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np

from vidrestore.common.errors import OutputError, not_written
from vidrestore.common.files import (
    output_place,
    place_together,
    sync_file,
    unfinished_file,
)
from vidrestore.imaging.display import Picture, resized

MOST_SIDE_PX = 3840
"""Longest side of an H.264 picture that common players show, in pixels."""
_TICKS = 90_000
_WHITE, _INK = 255, (40, 40, 40)
_SIDES = ("before", "after")


def same_size(before: Picture, after: Picture) -> tuple[Picture, Picture]:
    """Resize two pictures to the larger of their sizes.

    Args:
        before: (H, W, 3) uint8.
        after: (H, W, 3) uint8; another size is allowed.

    Returns:
        Both, in the same order; a picture of that size is returned itself.
    """
    height = max(before.shape[0], after.shape[0])
    width = max(before.shape[1], after.shape[1])
    return resized(before, width, height), resized(after, width, height)


def beside(before: Picture, after: Picture) -> Picture:
    """Put two pictures side by side, at the larger of their sizes, with a label above each.

    Args:
        before: (H, W, 3) uint8, on the left.
        after: (H, W, 3) uint8, on the right; another size is allowed.

    Returns:
        (H, W, 3) uint8.
    """
    left, right = map(_labeled, same_size(before, after), _SIDES)
    gap = np.full(
        (left.shape[0], 2 * math.ceil(2 * _text_scale(left.shape[0])), 3), _WHITE, np.uint8
    )
    return np.hstack([left, gap, right])


def wiped(before: Picture, after: Picture, share: float) -> Picture:
    """Join the left part of one picture and the right part of another at a vertical line.

    Args:
        before: (H, W, 3) uint8, to the left of the line.
        after: (H, W, 3) uint8, to the right of the line; another size is allowed.
        share: Share of the width to the left of the line, in [0, 1].

    Returns:
        (H, W, 3) uint8, with labels above the picture.
    """
    was, now = same_size(before, after)
    left, right = _SIDES
    height, width = now.shape[:2]
    line = min(width - 1, max(0, round(share * width)))
    whole = np.hstack([was[:, :line], now[:, line:]])
    half = max(1, width // 800)
    whole[:, max(0, line - half) : line + half] = _WHITE
    strip = _strip(width, height, left)
    text_px = _text_size(right, _text_scale(height))[0]
    _write(strip, right, max(0, width - text_px - 8), _text_scale(height))
    return np.vstack([strip, whole])


def write_picture(path: Path, picture: Picture) -> None:
    """Write a PNG or JPEG file, which appears only when it is whole.

    Args:
        path: The file; its suffix gives the format.
        picture: (H, W, 3) uint8 R'G'B'.

    Raises:
        OutputError: The file cannot be written.
    """
    write_pictures([(path, picture)])


def write_pictures(pictures: Iterable[tuple[Path, Picture]]) -> None:
    """Write PNG or JPEG files, which appear only when all of them are whole.

    Args:
        pictures: (file, picture) of each; the suffix of the file gives the format, and the
            picture is (H, W, 3) uint8 R'G'B'.

    Raises:
        OutputError: A file cannot be written.
    """
    moves, path = list[tuple[Path, Path]](), Path()
    try:
        with ExitStack() as stack:
            for path, picture in pictures:
                done, data = cv2.imencode(path.suffix, picture[..., ::-1])
                if not done:
                    raise OutputError(
                        f"{path} cannot be written: a {path.suffix} file cannot hold a picture of "
                        f"{picture.shape[1]} x {picture.shape[0]} pixels; use another one"
                    )
                place = output_place(path)
                part = stack.enter_context(unfinished_file(place))
                part.write_bytes(data.tobytes())
                sync_file(part)
                moves.append((part, place))
            place_together(moves)
    except OSError as error:
        raise not_written(str(path), path.parent, error, "cannot be written") from error
    except cv2.error as error:
        raise not_written(f"writing {path}", path.parent, error) from error


def write_movie(
    path: Path, pictures: Iterable[tuple[Fraction, Picture]], last_seconds: Fraction
) -> None:
    """Write an H.264 video without sound, which appears only when it is whole.

    Args:
        path: The file; its suffix gives the container.
        pictures: (time in seconds, picture) in order of time; the picture is (H, W, 3) uint8
            R'G'B', all of one size.
        last_seconds: Duration of the last picture, in seconds.

    Raises:
        OutputError: The file cannot be written, or there are no pictures.
    """
    write_movies([path], ((seconds, [picture]) for seconds, picture in pictures), last_seconds)


def write_movies(
    paths: Sequence[Path],
    pictures: Iterable[tuple[Fraction, Sequence[Picture]]],
    last_seconds: Fraction,
) -> None:
    """Write H.264 videos with frames at the same times, which appear when all of them are whole.

    They have no sound. Those in .mp4 and .mov begin with their index, so that browsers play them
    while they load.

    Args:
        paths: The files; their suffixes give the containers.
        pictures: (time in seconds, a picture for each file) in order of time; a picture is
            (H, W, 3) uint8 R'G'B', and all pictures of one file have one size.
        last_seconds: Duration of the last pictures, in seconds.

    Raises:
        OutputError: A file cannot be written, or there are no pictures.
    """
    named = ", ".join(map(str, paths))
    try:
        with ExitStack() as stack:
            places = [output_place(path) for path in paths]
            parts = [stack.enter_context(unfinished_file(place)) for place in places]
            with ExitStack() as movies:
                writers = [movies.enter_context(_movie(part, last_seconds)) for part in parts]
                is_empty = True
                for seconds, each in pictures:
                    is_empty = False
                    for write, picture in zip(writers, each, strict=True):
                        write(seconds, picture)
                if is_empty:
                    raise OutputError(f"{named} is not written, since there is no picture for it")
            for part in parts:
                sync_file(part)
            place_together(list(zip(parts, places, strict=True)))
    except OSError as error:
        raise not_written(named, paths[0].parent, error, "cannot be written") from error
    except av.error.FFmpegError as error:
        raise not_written(f"writing {named}", paths[0].parent, error) from error


@contextmanager
def _movie(path: Path, last_seconds: Fraction) -> Iterator[Callable[[Fraction, Picture], None]]:
    """Open a video; yield the function that adds a picture at a time in seconds."""
    is_indexed = path.suffix.lower() in (".mp4", ".mov")
    options = {"movflags": "+faststart"} if is_indexed else {}
    with av.open(str(path), "w", container_options=options) as container:
        stream: Any = None

        def write(seconds: Fraction, picture: Picture) -> None:
            nonlocal stream
            even = _even(picture)
            if stream is None:
                stream = _stream(container, even, last_seconds)
            frame = av.VideoFrame.from_ndarray(even, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
            frame.pts, frame.time_base = round(seconds * _TICKS), Fraction(1, _TICKS)
            frame.duration = round(last_seconds * _TICKS)
            container.mux(stream.encode(frame))

        yield write
        if stream is not None:
            container.mux(stream.encode(None))


def for_movie(picture: Picture) -> Picture:
    """Reduce a picture whose longer side exceeds `MOST_SIDE_PX`, which common players do not show.

    Args:
        picture: (H, W, 3) uint8.

    Returns:
        The reduced picture, or the picture itself where it is small enough.
    """
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
    context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
    context.color_range = 1
    return stream


def _even(picture: Picture) -> Picture:
    """Repeat the last row and column where a side is odd, since 4:2:0 needs even sides."""
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _labeled(picture: Picture, name: str) -> Picture:
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

"""Natural footage as interlaced systems hold it: a photograph under a moving camera, in fields."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import sources
from media import write_video
from skimage import data

Picture = npt.NDArray[np.uint8]


def pan(
    count: int, width: int, height: int, *, speed_px: float = 2.6, photo: Any = None
) -> list[Picture]:
    """(h, w, 3) RGB pictures of a smooth pan, `speed_px` from one to the next."""
    photo = data.coffee() if photo is None else photo
    scale = 1.25 * max(width / photo.shape[1], height / photo.shape[0])
    large = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    pictures = []
    for i in range(count):
        x = 5 + abs((speed_px * i) % 180 - 90)
        y = 5 + 0.45 * abs((speed_px * i) % 120 - 60)
        shift = np.array([[1.0, 0, x], [0, 1, y]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        pictures.append(cv2.warpAffine(large, shift, (width, height), flags=flags))
    return pictures


def images(pictures: Sequence[Picture], pixel_format: str) -> list[av.VideoFrame]:
    return [av.VideoFrame.from_ndarray(p, "rgb24").reformat(format=pixel_format) for p in pictures]


def woven_by_hand(pictures: Sequence[Any], order: str) -> list[av.VideoFrame]:
    """Frames of two successive pictures each, every plane by itself."""
    frames = []
    for earlier, later in zip(pictures[::2], pictures[1::2], strict=True):
        frame = av.VideoFrame(earlier.width, earlier.height, earlier.format.name)
        for i, into in enumerate(frame.planes):
            planes = [
                np.frombuffer(p.planes[i], np.uint8).reshape(into.height, -1)
                for p in (earlier, later)
            ]
            both = planes[0].copy()
            second = 1 if order == "tff" else 0
            both[second::2] = planes[1][second::2]
            into.update(np.ascontiguousarray(both))
        frames.append(frame)
    return frames


def film(
    path: Path,
    frames: Sequence[Any],
    *,
    flag: str,
    rate: Fraction | int = 25,
    lossless: bool = False,
) -> Path:
    """`frames` in H.264 whose stream calls itself `flag`: tff, bff or progressive."""
    plain = write_video(path.with_name("plain.mkv"), frames)
    how = f"-c:v libx264 -qp {0 if lossless else 12} -preset veryfast -fps_mode passthrough"
    if flag != "progressive":
        how += f" -vf setfield={flag} -flags +ildct+ilme -x264-params {flag}=1"
    sources.ffmpeg(f"-r {rate} -i", plain, how, path)
    plain.unlink()
    return path

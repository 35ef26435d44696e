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
from helpers import sources
from helpers.media import write_video
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


def borders(picture: Picture, left: int, right: int, random: np.random.Generator) -> Picture:
    """As captures have them: black, a little noisy, and soft towards the picture."""
    width = picture.shape[1]
    inside = np.zeros(width, np.float32)
    inside[left : width - right] = 1
    soft = cv2.GaussianBlur(inside[None], (0, 0), 1.0)[0][:, None]
    black = random.normal(2, 1.5, (*picture.shape[:2], 1))
    return _picture(picture * soft + black * (1 - soft))


def switched(picture: Picture, lines: int, random: np.random.Generator) -> Picture:
    """The last lines as where one head takes over from the other: shifted, noisy, grey."""
    torn = picture.astype(np.float32)
    start = random.uniform(15, 60)
    for line in range(picture.shape[0] - lines, picture.shape[0]):
        grey = np.roll(torn[line].mean(axis=1), round(start + random.normal(0, 12)))
        noise = cv2.GaussianBlur(random.normal(0, 1, (1, len(grey))), (0, 0), 1.2)[0]
        torn[line] = (0.7 * grey + 30 + 45 * noise / noise.std())[:, None]
    return _picture(torn)


def taped(
    picture: Picture,
    random: np.random.Generator,
    *,
    luma: float = 5,
    chroma: float = 9,
    line_px: float | None = None,
) -> Picture:
    """As a VHS tape gives it back: soft, colours softer and shifted, and both noisy.

    `luma` and `chroma` are standard deviations of the noise, in levels of 8 bits; `line_px` is how
    many pixels a whole line of the tape would have, those of the picture if None.
    """
    ycc = cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb).astype(np.float32)
    wide = (line_px or picture.shape[1]) / 720
    worn = []
    for i, plane in enumerate(cv2.split(ycc)):
        blur_px, grain_px, lines, level = (5, 6, 1.0, chroma) if i else (1.3, 1.2, 0.6, luma)
        soft = cv2.GaussianBlur(plane, (0, 0), blur_px * wide, sigmaY=0.4)
        if i:
            soft = np.roll(soft, round(3 * wide), axis=1)
        noise = random.normal(0, 1, plane.shape).astype(np.float32)
        noise = cv2.GaussianBlur(noise, (0, 0), grain_px * wide, sigmaY=lines)
        worn.append(soft + level * noise / noise.std())
    return np.asarray(cv2.cvtColor(_picture(cv2.merge(worn)), cv2.COLOR_YCrCb2RGB))


def _picture(values: Any) -> Picture:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


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

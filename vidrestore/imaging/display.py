"""Pictures for people to look at: upright, with square pixels, for an ordinary display."""

from __future__ import annotations

from dataclasses import replace

import av
import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.imaging.color import region_rgb
from vidrestore.imaging.frame import VideoInfo
from vidrestore.imaging.geometry import Rect, upright
from vidrestore.imaging.planes import plane
from vidrestore.imaging.transfer import to_display

Picture = npt.NDArray[np.uint8]
"""(H, W, 3) uint8 R'G'B' for an ordinary display."""


def picture_of(
    image: av.VideoFrame, info: VideoInfo, *, most_width_px: int | None = None
) -> Picture:
    """Convert a frame to the picture that an ordinary display shows, upright, with square pixels.

    Args:
        image: The decoded frame, in a planar format.
        info: The description of its stream.
        most_width_px: The largest width of the picture, in pixels. A larger frame is reduced before
            it is converted, which takes far less time. Default: None, any width.

    Returns:
        (H, W, 3) uint8 R'G'B'; HDR is mapped to SDR.
    """
    info = replace(info, width=image.width, height=image.height)
    view = upright(info)
    size = view.coded_size
    width_px = size[0] if view.orientation[0] else size[1]
    if most_width_px is not None and width_px > most_width_px:
        scale = most_width_px / width_px
        size = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
        image = _reduced(image, min(size[0], image.width), min(size[1], image.height))
        info = replace(info, width=image.width, height=image.height)
    rgb = to_display(region_rgb(image, Rect(0, 0, image.width, image.height), info), info)
    levels = rgb.clamp(0, 1).mul(255).round().permute(1, 2, 0).numpy().astype(np.uint8)
    return np.ascontiguousarray(view.turn(resized(levels, *size)))


def _reduced(image: av.VideoFrame, width_px: int, height_px: int) -> av.VideoFrame:
    """Reduce a frame by areas, each plane by itself."""
    small = av.VideoFrame(width_px, height_px, image.format.name)
    for number in range(len(image.planes)):
        into = plane(small, number)
        into[...] = cv2.resize(plane(image, number), into.shape[::-1], interpolation=cv2.INTER_AREA)
    return small


def resized(picture: Picture, width_px: int, height_px: int) -> Picture:
    """Resize a picture, by areas to a smaller size and by bicubic interpolation to a larger one.

    Args:
        picture: (H, W, 3) uint8.
        width_px: The new width, in pixels.
        height_px: The new height, in pixels.

    Returns:
        (height_px, width_px, 3) uint8; the picture itself where it has the size already.
    """
    if (height_px, width_px) == picture.shape[:2]:
        return picture
    is_smaller = width_px * height_px < picture.shape[0] * picture.shape[1]
    how = cv2.INTER_AREA if is_smaller else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (width_px, height_px), interpolation=how), np.uint8)

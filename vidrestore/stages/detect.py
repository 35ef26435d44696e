"""Frames become the faces found in each, and enough of the picture to see cuts."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation

from vidrestore import color
from vidrestore.detectors import Detector
from vidrestore.frame import Detection, Frame, Observation, VideoInfo
from vidrestore.geometry import Upright, apply, invert, upright

if TYPE_CHECKING:
    import av

_THUMBNAIL_SIZE = (64, 36)
_SWSCALE_MATRIX = {"bt601": "ITU601", "bt709": "ITU709", "bt2020": "BT2020"}


def detect(
    frames: Iterator[Frame], detector: Detector, info: VideoInfo, *, size_px: int
) -> Iterator[Observation]:
    """Look for faces in each frame as a person would see it, scaled down to `size_px`."""
    view = upright(info, size_px)
    for frame in frames:
        picture = upright_picture(frame.image, info, view)
        grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        yield Observation(
            frame.index,
            frame.pts,
            checksum(frame.image),
            np.asarray(cv2.resize(grey, _THUMBNAIL_SIZE, interpolation=cv2.INTER_AREA), np.uint8),
            tuple(_in_frame(found, view) for found in detector(picture)),
        )


def upright_picture(image: av.VideoFrame, info: VideoInfo, view: Upright) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8 BGR copy of a frame, for looking at only."""
    width, height = view.coded_size
    scaled = image.reformat(
        width=width,
        height=height,
        format="bgr24",
        src_colorspace=_SWSCALE_MATRIX[info.matrix],
        src_color_range="JPEG" if info.full_range else "MPEG",
        interpolation=Interpolation.AREA,
    )
    return np.ascontiguousarray(view.turn(scaled.to_ndarray()))


def checksum(image: av.VideoFrame) -> int:
    """crc32 of the samples of all planes, without the padding at the ends of their rows."""
    crc = 0
    for index in range(len(image.planes)):
        crc = zlib.crc32(np.ascontiguousarray(color.plane(image, index)).data, crc)
    return crc


def _in_frame(found: Detection, view: Upright) -> Detection:
    """From pixels of the upright picture to those of the frame."""
    back = invert(view.matrix)
    corners = apply(back, found.box.reshape(2, 2))
    return Detection(
        np.concatenate([corners.min(axis=0), corners.max(axis=0)]).astype(np.float32),
        apply(back, found.landmarks).astype(np.float32),
        found.score,
    )

"""Pictures before and after a face swap."""

import av
import cv2
import numpy as np
from helpers.media import (
    mild_image,
)

SIZE = (160, 160)
SIDE_PX = 140.0


def swapped_place(index: int) -> np.ndarray:
    """(h, w) True where the swap put its face, but for a bar that passes in front of it."""
    place = np.zeros(SIZE[::-1], np.uint8)
    cv2.ellipse(place, (80 + index, 84), (34, 44), 0, 0, 360, 1, -1)
    place[:, 70 + 3 * index : 86 + 3 * index] = 0
    return place.astype(bool)


def pictures(index: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """RGB before and after the swap: another smooth texture in its place."""
    before, face = (
        np.asarray(mild_image(*SIZE, "yuv444p", index + 100 * k + seed).to_ndarray(format="rgb24"))
        for k in (0, 1)
    )
    face = np.clip(cv2.GaussianBlur(face, (0, 0), 2.0).astype(int) + 25, 0, 255).astype(np.uint8)
    return before, np.where(swapped_place(index)[..., None], face, before)


def image_of(rgb: np.ndarray, pixel_format: str = "yuv444p") -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=pixel_format)

"""Crops that show the same picture are found, whatever its size, compression and exposure."""

import cv2
import numpy as np
import numpy.typing as npt
from skimage import data

from vidrestore.imaging.frame import FloatArray
from vidrestore.personal.same_picture import SeenPictures, thumbnail_of

Picture = npt.NDArray[np.uint8]


def face(
    picture: Picture, *, shift: float = 0.0, turn_degrees: float = 0.0, scale: float = 1.0
) -> Picture:
    """Cut the portrait out, as with landmarks that are off by a little."""
    matrix = cv2.getRotationMatrix2D((225 + 96 * shift, 120 - 96 * shift), turn_degrees, scale)
    matrix[:, 2] += 48 - np.array([225, 120])
    return np.asarray(cv2.warpAffine(picture, matrix, (96, 96)), np.uint8)


def reduced(
    crop: Picture, *, quality: int = 95, scale: float = 1.0, gain: float = 1.0
) -> FloatArray:
    small = cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, packed = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return thumbnail_of(gain * np.float32(cv2.imdecode(packed, cv2.IMREAD_COLOR)) / 255)


def moments() -> list[Picture]:
    """Pictures of one face: as it is, with an open mouth, with an eye shut, mirrored."""
    usual = data.astronaut()
    speaking, winking = usual.copy(), usual.copy()
    cv2.ellipse(speaking, (224, 140), (16, 12), 0, 0, 360, (40, 10, 10), -1)
    cv2.ellipse(winking, (206, 102), (13, 8), 0, 0, 360, (190, 140, 120), -1)
    return [usual, speaking, winking, np.ascontiguousarray(usual[:, 449::-1])]


def seen(thumbnails: list[FloatArray]) -> SeenPictures:
    pictures = SeenPictures()
    for each in thumbnails:
        pictures.add(each)
    return pictures


def test_a_picture_is_found_in_another_size_and_place() -> None:
    known = [reduced(face(each)) for each in moments()]
    own = [
        reduced(
            face(each, shift=0.03, turn_degrees=2.0, scale=0.96), quality=70, scale=0.5, gain=0.8
        )
        for each in moments()
    ]
    for number, each in enumerate(own):
        assert seen(known).find(each) == number
        assert seen(known[:number] + known[number + 1 :]).find(each) is None


def test_a_flat_picture_is_like_none() -> None:
    flat = thumbnail_of(np.full((8, 8, 3), 0.5, np.float32))
    assert not np.any(flat)
    assert seen([flat]).find(flat) is None
    assert seen([]).find(reduced(moments()[0])) is None

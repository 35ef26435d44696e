"""Portraits whose eyes and mouth are closed by moving the lids and lips that a face mesh found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from skimage import data

from vidrestore.imaging.geometry import fit_similarity, template
from vidrestore.models.detectors.yunet import YuNet
from vidrestore.models.face_mesh import FaceMesh, Mesh, square_of_landmarks, square_of_mesh

SIDE = 512
POINTS = template("gpen")
# The curves of the upper and the lower edge of an opening, from left to right.
_OPENINGS = {
    "left_eye": ((33, 246, 161, 160, 159, 158, 157, 173, 133),
                 (33, 7, 163, 144, 145, 153, 154, 155, 133)),
    "right_eye": ((362, 398, 384, 385, 386, 387, 388, 466, 263),
                  (362, 382, 381, 380, 374, 373, 390, 249, 263)),
    "mouth": ((78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308),
              (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)),
}  # fmt: skip
# Where an opening closes, from its upper edge 0 to its lower edge 1, and over how many pixels of
# the crop the skin around is stretched.
_CLOSES = {"left_eye": (0.85, 32), "right_eye": (0.85, 32), "mouth": (0.5, 45)}


def open_mesh(shared: Path) -> FaceMesh:
    """The face mesh of the shared models; the test is skipped where there is none."""
    path = shared / "models" / "face_landmark.tflite"
    if not path.exists():
        pytest.skip(f"there is no face mesh at {path}")
    return FaceMesh(path)


def aligned(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(SIDE, SIDE, 3) of a BGR picture, by a matrix to the unit crop."""
    to_crop = matrix * SIDE
    to_crop[:, 2] -= 0.5
    step = 1 / np.sqrt(abs(np.linalg.det(to_crop[:, :2])))
    if step > 1.5:
        picture = cv2.GaussianBlur(picture, (0, 0), 0.5 * np.sqrt(step * step - 1))
    return cv2.warpAffine(
        picture, to_crop, (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )


def portrait(mesh: FaceMesh) -> tuple[np.ndarray, Mesh]:
    """The smile of skimage's portrait as an aligned BGR crop, and its mesh."""
    picture = np.ascontiguousarray(data.astronaut()[..., ::-1])
    at = np.array([[203, 103], [244, 103], [222, 130], [205, 148], [243, 148]], np.float64)
    found = mesh.find(picture, square_of_landmarks(at))
    assert found is not None
    crop = aligned(picture, fit_similarity(found.landmarks()[None].astype(float), POINTS)[0])
    return crop, mesh.settle(crop, square_of_landmarks(POINTS * SIDE - 0.5))


def closed(crop: np.ndarray, mesh: Mesh, part: str, share: float = 1.0) -> np.ndarray:
    """The crop with an eye or the mouth closed by a share; lids or lips meet, skin is stretched."""
    upper, lower = (mesh.points[list(ids), :2] for ids in _OPENINGS[part])
    meet, reach = _CLOSES[part]
    columns = np.arange(SIDE)
    top, bottom = (np.interp(columns, each[:, 0], each[:, 1]) for each in (upper, lower))
    x, y = np.meshgrid(columns.astype(np.float32), columns.astype(np.float32))
    first, last = np.ceil(upper[0, 0]), np.floor(upper[-1, 0])
    for j in columns[int(first) : int(last) + 1]:
        high, low = top[j], max(bottom[j], top[j] + 1e-3)
        lost = share * (low - high)
        new_high, new_low = high + lost * meet, low - lost * (1 - meet)
        to = [0, high - reach, new_high, max(new_low, new_high + 1e-3), low + reach, SIDE]
        y[:, j] = np.interp(columns, to, [0, high - reach, high, low, low + reach, SIDE])
    return cv2.remap(crop, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def worn(
    crop: np.ndarray, factor: int, *, seed: int = 0, noise: float = 2.0, quality: int = 70
) -> np.ndarray:
    """The crop as a small, noisy JPEG shows it."""
    if factor == 1:
        return crop
    side = SIDE // factor
    small = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    grain = np.random.default_rng(seed).normal(0, noise, small.shape)
    levels = np.clip(small + grain, 0, 255).astype(np.uint8)
    written = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    levels = cv2.imdecode(written, cv2.IMREAD_COLOR)
    return cv2.resize(levels, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


Restoration = tuple[str, int, np.ndarray, np.ndarray, np.ndarray]
"""Name of the clip, number of the face, source and restored BGR crop, landmarks in the unit crop"""


def true_restorations(shared: Path, mesh: FaceMesh, most: int) -> Iterator[Restoration]:
    """The outputs of true restorers beside their inputs, so many faces of each clip at most."""
    folder = shared / "real-restorers"
    if not folder.is_dir():
        pytest.skip(f"there are no true restorations at {folder}")
    for number in range(29):
        both = cv2.imread(str(folder / "solvay" / f"face{number:02d}.jpg"))
        yield "solvay", number, both[:, :SIDE], both[:, SIDE:], POINTS
    detector = YuNet(shared / "models" / "face_detection_yunet_2023mar.onnx", score=0.6)
    large = np.array([[5.5694, -0.0056, 627.35], [-0.0032, 5.5569, 145.97]])
    two = [
        ("ed2", "ed2_lq.mp4", "ed2_hq.mp4", large, 1),
        ("zz", "zz_none_dain_50fps.mp4", "zz_face_dain_50fps.mp4", None, 2),
        ("keep", "keep_s3_lq.mp4", "keep_s3_ours.mp4", None, 1),
        ("pgt", "pgt_017.mp4", "pgt_017.mp4", None, 1),
    ]
    for name, before, after, matrix, every in two:
        count = min(_count(folder / each) for each in (before, after))
        wanted = {int(i) // every * every for i in np.linspace(0, count - 1, most)}
        sources = _frames(folder / before, wanted)
        results = sources if before == after else _frames(folder / after, wanted)
        found = None
        for number, (source, result) in enumerate(zip(sources, results, strict=True)):
            if before == after:
                source, result = source[:, :SIDE], result[:, SIDE:]
            if found is None:
                step = max(result.shape[0] // 840, 1)
                small = cv2.resize(result, None, fx=1 / step, fy=1 / step)
                face = max(detector(small), key=lambda each: each.box[2] - each.box[0])
                found = mesh.find(result, square_of_landmarks(face.landmarks * step))
                assert found is not None
            else:
                found = mesh.settle(result, square_of_mesh(found))
            at = found.landmarks().astype(np.float64)
            unit = fit_similarity(at[None], POINTS)[0]
            own = unit if matrix is None else unit @ np.vstack([matrix, [0, 0, 1]])
            points = at @ unit[:, :2].T + unit[:, 2]
            yield name, number, aligned(source, own), aligned(result, unit), points


def _count(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def _frames(path: Path, wanted: set[int]) -> list[Any]:
    with av.open(str(path)) as container:
        frames = enumerate(container.decode(video=0))
        return [each.to_ndarray(format="bgr24") for i, each in frames if i in wanted]

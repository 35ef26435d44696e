"""How alike a face and what was made of it are: in their features, and to a recogniser.

The source is blurred, noisy or blocky, the restored face is not, and that must not count. So both
are looked at through low frequencies, the restored face first made as soft as its source is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from vidrestore.flow import reduced
from vidrestore.frame import Detection, FloatArray
from vidrestore.masks import Points

PICTURE_PX = 256
"""Side of the pictures that are compared."""

Recognise = Callable[[npt.NDArray[np.uint8], Sequence[Detection]], list[FloatArray | None]]
"""What a recogniser does; see `vidrestore.detectors.recognizer.Recognizer`."""

_GRID_PX = 128
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# Standard deviations of blurs, in pixels of the grid: of the source where features are compared,
# and those among which the restored face becomes as soft as that, or as the source by itself.
_SIGMA_PX, _SOFTNESS_PX = 2.0, (2.0, 2.8, 4.0, 5.7)
_SHARPNESS_PX = (0.0, 0.6, 1.2, 2.4)
# Share of that by which both are blurred before a recogniser sees them: at an eighth of the
# resolution the least cosine of 57 faithful faces rose from 0.32 to 0.41.
_CALM = 0.5
# Squared 8-bit levels, of the noise that is left in the low frequencies of a bad source.
_RIDGE = 25.0
# Half-axes of what is compared, in distances of the eyes: an eye, the mouth, of which the first
# is a share of its own width, and from the brows to the chin.
_EYE, _MOUTH, _FACE = (0.42, 0.3), (0.75, 0.45), (1.0, 1.3)
_NARROWEST_MOUTH = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A face as it was and as it would be."""

    source: FloatArray
    """(256, 256, 3) RGB in 8-bit levels; likewise:"""
    restored: FloatArray
    landmarks: Points
    """(5, 2) in the unit crop."""


def pair_of(source: torch.Tensor, restored: torch.Tensor, landmarks: Points) -> Pair:
    """Of two (3, W, W) crops in [0, 1] on any device."""
    return Pair(reduced(source, PICTURE_PX), reduced(restored, PICTURE_PX), landmarks)


class Judge:
    """Gives likenesses in [-1, 1], of which 1 is the same; the same pair always gets the same.

    For one thread at a time.
    """

    def __init__(self, recognise: Recognise | None = None, name: str = "features") -> None:
        """`name` tells this judge from those that judge otherwise."""
        self._recognise = recognise
        self.name = name

    @property
    def knows_people(self) -> bool:
        return self._recognise is not None

    def features(self, pair: Pair) -> float:
        """The least correlation of the lumas of an eye, the mouth or the face, at low frequencies.

        Normalised, so that light and tint do not count. Where there is less contrast than bad
        sources have noise, all is alike.
        """
        areas = _areas(pair.landmarks)
        low = _blurred(_luma(pair.source), _SIGMA_PX)
        luma = _luma(pair.restored)
        blurs = [_blurred(luma, sigma) for sigma in _SOFTNESS_PX]
        as_soft = blurs[_likest(low, blurs, areas[-1])]
        return min(_correlation(low, as_soft, area) for area in areas)

    def identity(self, pair: Pair) -> float | None:
        """Cosine of the embeddings; None without a recogniser, and where the source is so bad that
        it could be anybody."""
        if self._recognise is None:
            return None
        luma = _luma(pair.restored)
        blurs = [_blurred(luma, sigma) for sigma in _SHARPNESS_PX]
        sigma_px = _SHARPNESS_PX[_likest(_luma(pair.source), blurs, _areas(pair.landmarks)[-1])]
        # Somebody else is found likest where it is too soft to be anybody; then with less blur.
        soft, calm = sigma_px * PICTURE_PX / _GRID_PX, _CALM * sigma_px * PICTURE_PX / _GRID_PX
        ways = [(calm, float(np.hypot(soft, calm))), (0.0, soft), (0.0, 0.0)]
        for own_px, other_px in ways if sigma_px > 0 else ways[-1:]:
            own = self._embedding(_blurred(pair.source, own_px), pair.landmarks)
            other = self._embedding(_blurred(pair.restored, other_px), pair.landmarks)
            if own is not None and other is not None:
                return float(own @ other)
        return None

    def _embedding(self, picture: FloatArray, landmarks: Points) -> FloatArray | None:
        assert self._recognise is not None
        bgr = np.ascontiguousarray(np.clip(np.rint(picture[..., ::-1]), 0, 255), np.uint8)
        points = np.asarray(landmarks * PICTURE_PX - 0.5, np.float32)
        box = np.array([0, 0, PICTURE_PX, PICTURE_PX], np.float32)
        return self._recognise(bgr, [Detection(box, points, 1.0)])[0]


def _luma(picture: FloatArray) -> FloatArray:
    """(128, 128)"""
    small = cv2.resize(picture, (_GRID_PX, _GRID_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(small @ _LUMA, np.float32)


def _blurred(picture: FloatArray, sigma_px: float) -> FloatArray:
    if sigma_px == 0:
        return picture
    blur = cv2.GaussianBlur(picture, (0, 0), sigma_px, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(blur, np.float32)


def _likest(picture: FloatArray, others: Sequence[FloatArray], area: FloatArray) -> int:
    return int(np.argmax([_correlation(picture, other, area) for other in others]))


def _correlation(a: FloatArray, b: FloatArray, area: FloatArray) -> float:
    """Pearson's, weighted; `_RIDGE` stands for what both have in common without showing it."""
    a, b = (x - np.float32((x * area).sum()) for x in (a, b))
    both, own, other = (float((x * y * area).sum()) for x, y in ((a, b), (a, a), (b, b)))
    return (both + _RIDGE) / float(np.sqrt((own + _RIDGE) * (other + _RIDGE)))


def _areas(landmarks: Points) -> list[FloatArray]:
    """(128, 128) weights whose sum is 1: of each eye, of the mouth, and last of the face."""
    across = landmarks[1] - landmarks[0]
    eyes_apart = max(float(np.linalg.norm(across)), 1e-6)
    eyes, mouth = landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0)
    wide = float(np.linalg.norm(landmarks[4] - landmarks[3])) / eyes_apart
    of_mouth = (_MOUTH[0] * max(wide, _NARROWEST_MOUTH), _MOUTH[1])
    middle = (eyes + mouth) / 2
    places = [(landmarks[0], _EYE), (landmarks[1], _EYE), (mouth, of_mouth), (middle, _FACE)]
    return [_area(centre, across, axes) for centre, axes in places]


def _area(centre: Points, across: Points, axes: tuple[float, float]) -> FloatArray:
    """Falls like a Gaussian whose standard deviation is 0.7 half-axes, to the second of them."""
    centres = (np.arange(_GRID_PX) + 0.5) / _GRID_PX
    x, y = centres - centre[0], (centres - centre[1])[:, None]
    squared = max(float(across @ across), 1e-6)
    right = (x * across[0] + y * across[1]) / (squared * axes[0])
    down = (y * across[0] - x * across[1]) / (squared * axes[1])
    radius = right**2 + down**2
    weight = np.exp(-radius) * (radius < 4)
    return np.asarray(weight / max(float(weight.sum()), 1e-6), np.float32)

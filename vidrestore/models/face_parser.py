"""A face-parsing network: which part of a crop is face, and which of that are eyes, brows, mouth.

The classes are those of CelebAMask-HQ (Lee et al., CVPR 2020) in the order in which BiSeNet (Yu et
al., ECCV 2018) is commonly trained on them: 0 background, 1 skin, 2 and 3 brows, 4 and 5 eyes,
6 glasses, 7 and 8 ears, 9 earring, 10 nose, 11 mouth, 12 and 13 lips, 14 neck, 15 necklace,
16 cloth, 17 hair, 18 hat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from vidrestore.common.errors import WeightsError
from vidrestore.imaging.filters import box_blur
from vidrestore.imaging.frame import FloatArray
from vidrestore.imaging.geometry import GRID_PX
from vidrestore.models.onnx_session import first_line, inputs_of, open_network, type_of

_CLASSES = 19
_REGIONS = {"brows": (2, 3), "eyes": (4, 5), "mouth": (11, 12, 13)}
# Ears are left with the hair around them: no mask reaches all of an ear, and half of one shows.
_FACE = (1, 10, *_REGIONS["brows"], *_REGIONS["eyes"], *_REGIONS["mouth"])
# Of the red, green and blue of ImageNet, with which these networks are trained.
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
_USUAL_SIDE, _LEAST_SIDE = 512, GRID_PX
# Less of the hull than that is no face: the source is too bad to be parsed.
_LEAST_FACE = 0.1
# Share of face up to which a cell is kept whole: three of five frames are enough for that.
_KEPT = 0.4
# In cells: by how much what is kept is grown, of which interpolation takes one, and over how much
# the face then fades.
_GROWN_PX, _FADE_PX = 2, 1
# By how much regions are grown: lids and the lip line are restored like what they frame.
_REGION_PX = 2


@dataclass(frozen=True, slots=True, eq=False)
class Parsed:
    """What the network sees in one crop; shares of each cell in [0, 1]."""

    face: FloatArray
    """(64, 64) skin, nose, eyes, brows, mouth and lips."""
    regions: Mapping[str, FloatArray]
    """(64, 64) each, of "brows", "eyes" and "mouth"."""
    is_face: bool = True
    """False where no face was seen; then all of the crop counts as face, and nothing as a region,
    so that landmarks alone say what is what."""


class Parser:
    """A network from (1 or N, 3, S, S) RGB, normalised as ImageNet is, to 19 classes."""

    def __init__(self, path: Path, *, device: torch.device, name: str) -> None:
        """`name` tells the network from others. WeightsError for a file that is none of the kind.

        Of several outputs the first with 19 channels is taken. Where the file leaves S open it is
        512. What the channels mean cannot be told from a file.
        """
        self.name = name
        self._path = path
        self._session = open_network(path, device)
        image, others = inputs_of(self._session, path)
        if others:
            raise self._wrong(f"takes {1 + len(others)} inputs")
        self._image, self._dtype = image.name, type_of(image, path)
        self._side = self._side_of(image.shape)
        self._output: str | None = None
        self._output = self._find_output()

    def __call__(self, crop: torch.Tensor, hull: FloatArray) -> Parsed:
        """Parse a (3, W, W) RGB crop in [0, 1], on any device; `hull` (64, 64) is its mask.

        The same crop always gives the same.
        """
        size = (self._side, self._side)
        fitted = F.interpolate(
            crop[None].float(), size, mode="bilinear", antialias=True, align_corners=False
        )
        (logits,) = self._run(fitted.clamp(0, 1).cpu().numpy())
        classes = logits[0].argmax(axis=0)
        face, *regions = (_share(classes, wanted) for wanted in (_FACE, *_REGIONS.values()))
        if float((face * hull).sum()) < _LEAST_FACE * float(hull.sum()):
            nothing = np.zeros_like(face)
            return Parsed(np.ones_like(face), dict.fromkeys(_REGIONS, nothing), is_face=False)
        return Parsed(face, dict(zip(_REGIONS, regions, strict=True)))

    def _run(self, picture: npt.NDArray[np.float32]) -> list[npt.NDArray[Any]]:
        """Of one (1, 3, S, S) picture in [0, 1]."""
        given = ((picture - _MEAN) / _DEVIATION).astype(self._dtype)
        wanted = None if self._output is None else [self._output]
        found: list[npt.NDArray[Any]] = self._session.run(wanted, {self._image: given})
        return found

    def _side_of(self, shape: Sequence[Any]) -> int:
        if len(shape) == 4 and (not isinstance(shape[0], int) or shape[0] == 1):
            fixed = {side for side in shape[2:] if isinstance(side, int)}
            channels_fit = not isinstance(shape[1], int) or shape[1] == 3
            if channels_fit and len(fixed) < 2 and min(fixed, default=_LEAST_SIDE) >= _LEAST_SIDE:
                return fixed.pop() if fixed else _USUAL_SIDE
        raise self._wrong(f"takes {shape}")

    def _find_output(self) -> str:
        """Tried out, since many files do not state what they give."""
        gray = np.full((1, 3, self._side, self._side), 0.5, np.float32)
        try:
            found = self._run(gray)
        except Exception as error:  # onnxruntime has no base class for its errors
            raise self._wrong(
                f"fails on a picture of {self._side} pixels ({first_line(error)})"
            ) from error
        for value, given in zip(self._session.get_outputs(), found, strict=True):
            shape = np.shape(given)
            if shape[:2] == (1, _CLASSES) and len(shape) == 4 and min(shape[2:]) >= GRID_PX:
                return str(value.name)
        raise self._wrong(f"gives {' and '.join(str(np.shape(given)) for given in found)}")

    def _wrong(self, found: str) -> WeightsError:
        return WeightsError(
            f"the network in {self._path} {found}; a face parser takes (1 or N, 3, S, S) and gives "
            f"(1, {_CLASSES}, S, S), the classes of CelebAMask-HQ; set paste.parser to such a file"
        )


def visible(window: Sequence[Parsed]) -> FloatArray:
    """(64, 64) in [0, 1]: how much of the restored face each place may show.

    Of the frames around one, that one among them. 0 on all that is no face in most of them, and
    over a cell around; what a single frame says otherwise than the others does not show.
    """
    share = _over_time([parsed.face for parsed in window])
    kept = np.asarray(np.clip((1 - share) / (1 - _KEPT), 0, 1), np.float32)
    if not kept.any():
        return np.ones_like(kept)
    grown = cv2.dilate(kept, _box(_GROWN_PX))
    fading = box_blur(cv2.dilate(grown, _box(_FADE_PX)), 2 * _FADE_PX + 1, 2 * _FADE_PX + 1)
    return np.asarray(1 - np.maximum(grown, fading), np.float32)


def regions(window: Sequence[Parsed]) -> dict[str, FloatArray]:
    """(64, 64) in [0, 1] of each region, softly, over the frames around one."""
    found = {}
    for name in _REGIONS:
        share = _over_time([parsed.regions[name] for parsed in window])
        grown = cv2.dilate(share, _box(_REGION_PX))
        found[name] = np.asarray(box_blur(grown, 3, 3), np.float32)
    return found


def _over_time(shares: Sequence[FloatArray]) -> FloatArray:
    """(64, 64) mean of all but the least and the largest, where there are so many."""
    ordered = np.sort(shares, axis=0)
    return np.asarray((ordered[1:-1] if len(ordered) > 2 else ordered).mean(axis=0), np.float32)


def _share(classes: npt.NDArray[Any], wanted: Sequence[int]) -> FloatArray:
    """(64, 64) share of each cell that is of these classes."""
    inside = np.isin(classes, wanted).astype(np.float32)
    small = cv2.resize(inside, (GRID_PX, GRID_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32)


def _box(radius: int) -> npt.NDArray[np.uint8]:
    return np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)

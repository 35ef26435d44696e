"""Enlarging networks of the Real-ESRGAN kind that people own as ONNX files, run in tiles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from vidrestore.common.errors import UsageError, WeightsError
from vidrestore.imaging.filters import gaussian_blur
from vidrestore.imaging.frame import FloatArray
from vidrestore.models.onnx_session import inputs_of, open_network, tried, type_of

# Side of the tiles of a network that takes any: the network's memory grows with its square.
_TILE_PX = 256
_TRIED_PX = 64
# A tile's outermost pixels are not used, since the network did not see what is around them; those
# next to them fade into the neighbour's.
_UNUSED_PX, _FADE_PX = 20, 24
_FACTORS = (2, 4)
_BROAD_PX = 8.0  # sigma of what is broad, in pixels of the source
# Networks that begin by halving the picture want sides that can be halved; none has more to halve.
_MULTIPLE_PX = 8
# Mean difference of a ramp; of a network that gives [-1, 1] or [0, 255] it is 0.25 or more.
_MOST_APART = 0.15


class Upscaler:
    """Takes (1, 3, h, w) RGB in [0, 1] and gives it 2 or 4 times as wide and high.

    WeightsError for a file that is no such network.
    """

    def __init__(self, path: Path, *, device: torch.device) -> None:
        self._path = path
        self._session = open_network(path, device)
        image, others = inputs_of(self._session, path)
        if others or len(image.shape) != 4 or image.shape[1] != 3:
            takes = ", ".join(str(each.shape) for each in (image, *others))
            raise WeightsError(
                f"the network in {path} takes {takes}; an upscaler takes one input (1, 3, h, w)"
            )
        self._name, self._dtype = image.name, type_of(image, path)
        self._fixed = [
            side if isinstance(side, int) and side > 0 else None for side in image.shape[2:]
        ]
        self.factor = self._measured()

    def check(self, factor: int) -> None:
        """UsageError where it does not lead to pictures `factor` times as large."""
        if factor > self.factor:
            raise UsageError(
                f"the network in {self._path} enlarges {self.factor} times; use --scale "
                f"{self.factor}, or another network"
            )

    def __call__(self, picture: FloatArray, factor: int) -> FloatArray:
        """(3, h, w) RGB -> (3, factor h, factor w), in [0, 1]; what the network gives beyond that
        size is brought down by area. What lies beyond black and white is cut off before.
        Broad colours stay the picture's, which networks shift by some code values.

        Tiles overlap, and fade into each other; around the picture its border is repeated, so that
        they see as much there as elsewhere. Memory: the result twice.
        """
        margin, picture = _UNUSED_PX, picture.clip(0, 1)
        padded = np.pad(picture, ((0, 0), (margin, margin), (margin, margin)), "edge")
        _, height, width = padded.shape
        total = np.zeros((3, factor * height, factor * width), np.float32)
        sides = [side or _TILE_PX for side in self._fixed]
        columns = list(_tiles(width, sides[1], factor))
        for y, down in _tiles(height, sides[0], factor):
            for x, across in columns:
                part = self._enlarged(padded[:, y, x], factor)
                rows, cells = (slice(factor * at.start, factor * at.stop) for at in (y, x))
                total[:, rows, cells] += part * (down[:, None] * across)
        inner = slice(factor * margin, -factor * margin)
        return _with_broad_colors_of(picture, total[:, inner, inner], factor)

    def _enlarged(self, part: FloatArray, factor: int) -> FloatArray:
        """One tile; to a side that the network takes its border is repeated."""
        _, height, width = part.shape
        missing = [
            (side or -(-length // _MULTIPLE_PX) * _MULTIPLE_PX) - length
            for side, length in zip(self._fixed, (height, width), strict=True)
        ]
        padded = np.pad(part, ((0, 0), (0, missing[0]), (0, missing[1])), "edge")
        found = self._run(padded)[:, : self.factor * height, : self.factor * width]
        return _by_area(found, self.factor // factor)

    def _run(self, tile: FloatArray) -> FloatArray:
        given = np.ascontiguousarray(tile[None], self._dtype)
        (found, *_) = self._session.run(None, {self._name: given})
        return np.asarray(found[0], np.float32).clip(0, 1)

    def _measured(self) -> int:
        """How many times it enlarges."""
        height, width = (side or _TRIED_PX for side in self._fixed)
        # From black at the left to white at the right, which every upscaler leaves there.
        ramp = np.tile(np.linspace(0, 1, width, dtype=np.float32), (3, height, 1))
        first = tried(self._session, self._path, {self._name: ramp[None].astype(self._dtype)})[0]
        shape = tuple(getattr(first, "shape", ()))
        for factor in _FACTORS:
            if shape == (1, 3, factor * height, factor * width):
                self._check_range(ramp, np.asarray(first[0], np.float32), factor)
                return factor
        raise WeightsError(
            f"the network in {self._path} makes {shape} of (1, 3, {height}, {width}); an "
            "upscaler gives the same picture 2 or 4 times as wide and high"
        )

    def _check_range(self, given: FloatArray, found: FloatArray, factor: int) -> None:
        apart = float(np.abs(_by_area(found, factor) - given).mean())
        if not apart <= _MOST_APART:
            raise WeightsError(
                f"the network in {self._path} gives values from {found.min():.3g} to "
                f"{found.max():.3g} for a ramp from 0 to 1, and another picture; an upscaler takes "
                "and gives RGB in [0, 1]"
            )


def _by_area(picture: FloatArray, step: int) -> FloatArray:
    """(3, h, w) -> (3, h / step, w / step)."""
    if step == 1:
        return picture
    _, height, width = picture.shape
    boxes = picture.reshape(3, height // step, step, width // step, step)
    return np.asarray(boxes.mean(axis=(2, 4)), np.float32)


def _with_broad_colors_of(picture: FloatArray, larger: FloatArray, factor: int) -> FloatArray:
    """(3, factor h, factor w) `larger`, whose difference to (3, h, w) `picture` is low-passed and
    taken away."""
    found = larger.copy()
    apart = picture - _by_area(larger, factor)
    for channel, difference in zip(found, apart, strict=True):
        broad = gaussian_blur(difference, _BROAD_PX, border="repeat")
        channel += cv2.resize(broad, channel.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return found.clip(0, 1, out=found)


def _tiles(length: int, side: int, factor: int) -> Iterator[tuple[slice, FloatArray]]:
    """Along an axis: where each tile is, and the weight of each of its enlarged pixels.

    The weights of all tiles at a pixel add up to 1.
    """
    if length <= side:
        yield slice(0, length), np.ones(factor * length, np.float32)
        return
    unused, fade = min(_UNUSED_PX, side // 6), min(_FADE_PX, side // 6)
    step = side - 2 * unused - fade
    count = -(-(length - side) // step) + 1
    starts = [(length - side) * i // (count - 1) for i in range(count)]
    # Distance of each enlarged pixel from the tile's edge, in pixels of the source.
    away = (np.arange(factor * side) + 0.5) / factor
    ramp = ((away - unused) / fade).clip(0, 1)
    weights = [
        (ramp if i else 1.0) * (ramp[::-1] if i < count - 1 else np.ones(factor * side))
        for i in range(count)
    ]
    total = np.zeros(factor * length)
    places = [slice(factor * start, factor * (start + side)) for start in starts]
    for place, weight in zip(places, weights, strict=True):
        total[place] += weight
    for start, place, weight in zip(starts, places, weights, strict=True):
        yield slice(start, start + side), np.asarray(weight / total[place], np.float32)

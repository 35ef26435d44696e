"""Upscaling with networks of the Real-ESRGAN kind, which the user has as ONNX files, in tiles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from vidrestore.common.errors import UsageError, WeightsError
from vidrestore.imaging.filters import gaussian_blur
from vidrestore.imaging.frame import FloatArray
from vidrestore.models.onnx_session import first_run, inputs_of, open_network, type_of

# Side of the tiles where the network accepts any; the network's memory grows with its square.
_TILE_PX = 256
_FIRST_RUN_PX = 64
# The outermost pixels of a tile are not used, since the network did not see their surroundings. The
# pixels next to them fade into the neighboring tile.
_UNUSED_PX, _FADE_PX = 20, 24
_FACTORS = (2, 4)
_BROAD_PX = 8.0  # sigma of the low-pass for broad colors, in pixels of the source
# Networks that halve the picture at first need sides of this multiple; none needs a larger one.
_MULTIPLE_PX = 8
# Of a ramp: networks with results in [-1, 1] or [0, 255] differ by 0.25 or more.
_MOST_DIFFERENCE = 0.15


class Upscaler:
    """Enlarges pictures 2 or 4 times with a network in an ONNX file.

    The network maps (1, 3, h, w) RGB in [0, 1] to (1, 3, f h, f w), with f = 2 or 4.

    Args:
        path: The .onnx file.
        device: The preferred device.

    Raises:
        WeightsError: The file does not hold such a network.
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
        self.factor = self._measured_factor()

    def check(self, factor: int) -> None:
        """Check that the network enlarges enough.

        Args:
            factor: How many times as wide and high the pictures become.

        Raises:
            UsageError: The factor is larger than that of the network.
        """
        if factor > self.factor:
            raise UsageError(
                f"the network in {self._path} enlarges {self.factor} times; use --scale "
                f"{self.factor}, or another network"
            )

    def __call__(self, picture: FloatArray, factor: int) -> FloatArray:
        """Enlarge a picture.

        Where the network enlarges more than `factor`, its result is reduced by area. Networks shift
        broad colors by some code values, so the low-passed colors of the picture are restored.
        Tiles overlap and fade into each other. The method needs the memory of two results.

        Args:
            picture: (3, h, w) float32 RGB, which is clipped to [0, 1].
            factor: How many times as wide and high the result is: a divisor of `self.factor`.

        Returns:
            (3, factor h, factor w) float32 RGB in [0, 1].

        Convention:
            (row, column) order; pixel centers at (i + 0.5) / factor - 0.5 of the source. Around the
            picture its border pixels are repeated.
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
        """Enlarge one tile, padded with its border pixels to a size that the network takes."""
        _, height, width = part.shape
        missing = [
            (side or -(-length // _MULTIPLE_PX) * _MULTIPLE_PX) - length
            for side, length in zip(self._fixed, (height, width), strict=True)
        ]
        padded = np.pad(part, ((0, 0), (0, missing[0]), (0, missing[1])), "edge")
        enlarged = self._run(padded)[:, : self.factor * height, : self.factor * width]
        return _by_area(enlarged, self.factor // factor)

    def _run(self, tile: FloatArray) -> FloatArray:
        image = np.ascontiguousarray(tile[None], self._dtype)
        (result, *_) = self._session.run(None, {self._name: image})
        return np.asarray(result[0], np.float32).clip(0, 1)

    def _measured_factor(self) -> int:
        """Return how many times the network enlarges; WeightsError where it does not upscale."""
        height, width = (side or _FIRST_RUN_PX for side in self._fixed)
        # From black at the left to white at the right, which every upscaler keeps.
        ramp = np.tile(np.linspace(0, 1, width, dtype=np.float32), (3, height, 1))
        feeds = {self._name: ramp[None].astype(self._dtype)}
        result = first_run(self._session, self._path, feeds)[0]
        shape = tuple(getattr(result, "shape", ()))
        for factor in _FACTORS:
            if shape == (1, 3, factor * height, factor * width):
                self._check_range(ramp, np.asarray(result[0], np.float32), factor)
                return factor
        raise WeightsError(
            f"the network in {self._path} maps (1, 3, {height}, {width}) to {shape}; an upscaler "
            "returns the same picture 2 or 4 times as wide and high"
        )

    def _check_range(self, ramp: FloatArray, result: FloatArray, factor: int) -> None:
        """Raise WeightsError where the result is not the ramp enlarged, in [0, 1]."""
        difference = float(np.abs(_by_area(result, factor) - ramp).mean())
        if not difference <= _MOST_DIFFERENCE:
            raise WeightsError(
                f"the network in {self._path} returns values from {result.min():.3g} to "
                f"{result.max():.3g} for a ramp from 0 to 1, and another picture; an upscaler "
                "takes and returns RGB in [0, 1]"
            )


def _by_area(picture: FloatArray, step: int) -> FloatArray:
    """Reduce (3, h, w) to (3, h / step, w / step) by the mean of squares."""
    if step == 1:
        return picture
    _, height, width = picture.shape
    boxes = picture.reshape(3, height // step, step, width // step, step)
    return np.asarray(boxes.mean(axis=(2, 4)), np.float32)


def _with_broad_colors_of(picture: FloatArray, larger: FloatArray, factor: int) -> FloatArray:
    """Return `larger` (3, factor h, factor w) with the low-passed colors of `picture` (3, h, w)."""
    result = larger.copy()
    differences = picture - _by_area(larger, factor)
    for channel, difference in zip(result, differences, strict=True):
        broad = gaussian_blur(difference, _BROAD_PX, border="repeat")
        channel += cv2.resize(broad, channel.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return result.clip(0, 1, out=result)


def _tiles(length: int, side: int, factor: int) -> Iterator[tuple[slice, FloatArray]]:
    """Yield the place of each tile along an axis, and the weights of its enlarged pixels.

    At each pixel the weights of all tiles sum to 1.
    """
    if length <= side:
        yield slice(0, length), np.ones(factor * length, np.float32)
        return
    unused, fade = min(_UNUSED_PX, side // 6), min(_FADE_PX, side // 6)
    step = side - 2 * unused - fade
    count = -(-(length - side) // step) + 1
    starts = [(length - side) * i // (count - 1) for i in range(count)]
    # Distance of each enlarged pixel from the tile's edge, in pixels of the source.
    distance = (np.arange(factor * side) + 0.5) / factor
    ramp = ((distance - unused) / fade).clip(0, 1)
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

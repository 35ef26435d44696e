"""Upscaling with networks of the Real-ESRGAN kind, which the user has as files, in tiles."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch

from vidrestore.common.errors import UsageError, WeightsError
from vidrestore.imaging.device_copies import to_device
from vidrestore.imaging.filters import gaussian_blur
from vidrestore.imaging.frame import FloatArray
from vidrestore.models.admission import Exact, Form, first_admitted
from vidrestore.models.gpen.cuda import repeatable_convolutions
from vidrestore.models.onnx_session import (
    first_run,
    inputs_of,
    on_a_device,
    open_network,
    type_of,
)
from vidrestore.models.restorers.gpen import probe_image
from vidrestore.models.spandrel_networks import SPANDREL, build
from vidrestore.models.weight_file import read_checkpoint

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
    """Enlarges pictures 2 or 4 times with a network in a file.

    The network maps (1, 3, h, w) RGB in [0, 1] to (1, 3, f h, f w), with f = 2 or 4. It is an ONNX
    file, or weights that spandrel (an extra) recognizes. The rule of `admission` decides whether a
    device runs it.

    Args:
        path: The .onnx, .pth, .pt or .safetensors file.
        device: The preferred device.
        others: The devices that follow where the rule does not admit the preferred one; default:
            none, so that it is an error for weights that spandrel runs.
        is_auto: Whether the user left the choice of the device open, see `on_a_device`.
        on_notice: Receives a notice where a device does not run the network. Default: none is sent.

    Raises:
        WeightsError: The file does not hold such a network.
        UsageError: The device does not run it, or the extra that runs it is not installed.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: torch.device,
        others: Sequence[torch.device] = (),
        is_auto: bool = False,
        on_notice: Callable[[str], None] = lambda message: None,
    ) -> None:
        self._path = path
        self._network: _Network
        if path.suffix.lower() == ".onnx":
            self._network = _OnnxNetwork(path)
        else:
            self._network = _SpandrelNetwork(path)
        self._fixed = self._network.sides_px
        self.factor = self._measured_factor()
        self._network.move((device, *others), is_auto, on_notice)

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
        return np.asarray(self._network(tile[None])[0].clip(0, 1), np.float32)

    def _measured_factor(self) -> int:
        """Return how many times the network enlarges; WeightsError where it does not upscale."""
        height, width = (side or _FIRST_RUN_PX for side in self._fixed)
        # From black at the left to white at the right, which every upscaler keeps.
        ramp = np.tile(np.linspace(0, 1, width, dtype=np.float32), (3, height, 1))
        result = self._network.first_result(ramp[None])
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


class _Network(Protocol):
    """Maps (1, 3, h, w) float32 RGB in [0, 1] to the larger picture, not clipped."""

    sides_px: list[int | None]
    """The height and the width that it takes; None: any."""

    def first_result(self, picture: FloatArray) -> Any:
        """Run it for the first time; WeightsError where it cannot run at all."""
        ...

    def move(
        self, devices: Sequence[torch.device], is_auto: bool, on_notice: Callable[[str], None]
    ) -> None:
        """Move it to the first device that the rule of `admission` admits."""
        ...

    def __call__(self, picture: FloatArray) -> FloatArray: ...


class _OnnxNetwork:
    """A network in an ONNX file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._session = open_network(path)
        image, others = inputs_of(self._session, path)
        if others or len(image.shape) != 4 or image.shape[1] != 3:
            takes = ", ".join(str(each.shape) for each in (image, *others))
            raise WeightsError(
                f"the network in {path} takes {takes}; an upscaler takes one input (1, 3, h, w)"
            )
        self._name, self._dtype = image.name, type_of(image, path)
        self.sides_px = [
            side if isinstance(side, int) and side > 0 else None for side in image.shape[2:]
        ]

    def first_result(self, picture: FloatArray) -> Any:
        return first_run(self._session, self._path, self._feeds(picture))[0]

    def move(
        self, devices: Sequence[torch.device], is_auto: bool, on_notice: Callable[[str], None]
    ) -> None:
        height, width = (side or _FIRST_RUN_PX for side in self.sides_px)
        self._session = on_a_device(
            self._session,
            self._path,
            self._feeds(_probe(height, width)),
            (self._session.get_outputs()[0].name,),
            device=devices[0],
            is_auto=is_auto,
            on_notice=on_notice,
        )

    def _feeds(self, picture: FloatArray) -> dict[str, Any]:
        return {self._name: np.ascontiguousarray(picture, self._dtype)}

    def __call__(self, picture: FloatArray) -> FloatArray:
        (result, *_) = self._session.run(None, self._feeds(picture))
        return np.asarray(result, np.float32)


class _SpandrelNetwork:
    """A network that spandrel builds, in float32, or in float16 where a device is right in it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = build(path, read_checkpoint(path), "an upscaler", SPANDREL)
        found = self._descriptor
        if (found.purpose, found.input_channels, found.output_channels) != ("SR", 3, 3):
            raise WeightsError(
                f"{path} holds {found.architecture.name} for another purpose ({found.purpose}, "
                f"{found.input_channels} channels); an upscaler enlarges RGB pictures"
            )
        self.sides_px: list[int | None] = [None, None]
        self._device, self._dtype = torch.device("cpu"), torch.float32

    def first_result(self, picture: FloatArray) -> Any:
        return self(picture)

    def move(
        self, devices: Sequence[torch.device], is_auto: bool, on_notice: Callable[[str], None]
    ) -> None:
        picture = _probe(_TILE_PX, _TILE_PX)
        formats = [torch.float32]
        if self._descriptor.supports_half:
            formats.insert(0, torch.float16)
        forms = [
            Form(
                f"{str(dtype).removeprefix('torch.')} on {device}",
                partial(self._on, device, dtype),
                lambda network: network(picture),
            )
            for device in devices
            if device.type != "cpu"
            for dtype in formats
        ]
        admitted = first_admitted(
            self._path.name,
            forms,
            lambda: Exact.measured(lambda: self(picture), span=1.0),
            otherwise="the processor runs it" if len(devices) > 1 else None,
            on_notice=on_notice,
        )
        if admitted is not None:
            moved = admitted[1]
            self._descriptor, self._device, self._dtype = (
                moved._descriptor, moved._device, moved._dtype,
            )  # fmt: skip

    def _on(self, device: torch.device, dtype: torch.dtype) -> _SpandrelNetwork:
        moved = copy.copy(self)
        # The network itself stays what the others are compared to.
        moved._descriptor = copy.deepcopy(self._descriptor).to(device, dtype)
        moved._device, moved._dtype = device, dtype
        return moved

    def __call__(self, picture: FloatArray) -> FloatArray:
        image = to_device(torch.from_numpy(np.ascontiguousarray(picture)), self._device)
        with repeatable_convolutions(), torch.no_grad():
            result = self._descriptor(image.to(self._dtype))
        return np.asarray(result.float().cpu().numpy(), np.float32)


def _probe(height: int, width: int) -> FloatArray:
    """Return the built-in picture as (1, 3, h, w) in [0, 1]."""
    picture = probe_image(max(height, width))[..., :height, :width] * 0.5 + 0.5
    return np.ascontiguousarray(picture.numpy())


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

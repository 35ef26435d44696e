"""Face parsing: a network that finds the parts of a crop that are face, eyes, brows and mouth.

The classes are those of CelebAMask-HQ (Lee et al., CVPR 2020) in the order in which BiSeNet (Yu et
al., ECCV 2018) is commonly trained on them: 0 background, 1 skin, 2 and 3 brows, 4 and 5 eyes,
6 glasses, 7 and 8 ears, 9 earring, 10 nose, 11 mouth, 12 and 13 lips, 14 neck, 15 necklace,
16 cloth, 17 hair, 18 hat.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from vidrestore.common.errors import WeightsError
from vidrestore.common.quoting import first_line
from vidrestore.common.settings import Extent
from vidrestore.imaging.device_copies import to_device, to_host
from vidrestore.imaging.filters import box_blur
from vidrestore.imaging.frame import FloatArray
from vidrestore.imaging.geometry import GRID_PX
from vidrestore.models.admission import Exact, Form, first_admitted
from vidrestore.models.onnx_session import inputs_of, on_a_device, open_network, type_of
from vidrestore.models.parsenet import ORDER, ParseNet
from vidrestore.models.restorers.gpen import probe_image
from vidrestore.models.weight_file import SUFFIXES

_CLASSES = 19
_REGIONS = {"brows": (2, 3), "eyes": (4, 5), "mouth": (11, 12, 13)}
# Without ears: no mask of a face covers all of an ear, and an ear that is restored by half is
# visible.
_FACE = (1, 10, *_REGIONS["brows"], *_REGIONS["eyes"], *_REGIONS["mouth"])
# Of red, green and blue over ImageNet, by which these networks expect their input normalized.
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
# With ears, earrings and hair; hats and glasses stay those of the source here too.
_HEAD = (*_FACE, 7, 8, 9, 17)
_USUAL_SIDE, _LEAST_SIDE = 512, GRID_PX
# Smallest share of the hull that is face. Below it, the source is too bad to be parsed.
_LEAST_FACE = 0.1
# Share of face up to which a cell stays entirely as the source: three of five frames suffice.
_KEPT = 0.4
# Cells by which the kept part is dilated, one of which the interpolation takes, and cells over
# which the face then fades.
_DILATION_PX, _FADE_PX = 2, 1
# Cells by which regions are dilated, so that lids and lip lines are restored like eyes and mouth.
_REGION_PX = 2


@dataclass(frozen=True, slots=True, eq=False)
class Parsed:
    """The parts of one crop on a grid of 64 x 64 cells, as shares of each cell in [0, 1]."""

    face: FloatArray
    """(64, 64) float32 share of skin, nose, eyes, brows, mouth and lips."""
    regions: Mapping[str, FloatArray]
    """Share (64, 64) float32 of each of "brows", "eyes" and "mouth", which includes the lips."""
    is_face: bool = True
    """Whether the network found a face. If not, `face` is 1 and the regions are 0 everywhere, so
    that landmarks alone determine the regions."""
    head: FloatArray | None = None
    """(64, 64) float32 share of the face with ears and hair; None, the default: as `face`."""


class Network(Protocol):
    """A network that parses pictures of one side."""

    side_px: int
    """Side of the pictures."""

    def __call__(self, picture: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Compute the logits of 19 classes, in the order of this module.

        Args:
            picture: (1, 3, S, S) float32 RGB in [0, 1].

        Returns:
            (1, 19, h, w).
        """
        ...


class Parser:
    """Parses crops with a network from a file.

    An .onnx file holds a network that maps (1 or N, 3, S, S) RGB, normalized as for ImageNet, to
    the logits of 19 classes. Of several outputs the first with 19 channels is used. Where the file
    leaves S open, S is 512. The meaning of the channels cannot be checked. A .pth file holds the
    weights of ParseNet.

    Args:
        path: The file.
        device: The preferred device. The rule of `admission` decides whether it runs the network.
        is_auto: Whether the user left the choice of the device open, see `on_a_device`.
        name: Distinguishes the network from others, such as by a hash of the file.
        on_notice: Receives a notice where a device does not run the network. Default: none is sent.

    Raises:
        WeightsError: The file does not hold such a network.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: torch.device,
        is_auto: bool = False,
        name: str,
        on_notice: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.name = name
        is_onnx = path.suffix.lower() not in SUFFIXES or path.suffix.lower() == ".onnx"
        self._network: Network
        if is_onnx:
            self._network = OnnxParser(path, device, is_auto, on_notice)
        else:
            self._network = ParseNetParser(path, device, on_notice)

    def __call__(self, crop: torch.Tensor, hull: FloatArray) -> Parsed:
        """Parse a crop. Equal crops have equal results.

        Args:
            crop: (3, W, W) RGB in [0, 1], on any device.
            hull: (64, 64) float32 mask of the face in [0, 1].

        Returns:
            The parts of the crop.
        """
        size = (self._network.side_px, self._network.side_px)
        fitted = F.interpolate(
            crop[None].float(), size, mode="bilinear", antialias=True, align_corners=False
        )
        logits = self._network(to_host(fitted.clamp(0, 1)).numpy())
        classes = logits[0].argmax(axis=0)
        face, head, *regions = (
            _share(classes, members) for members in (_FACE, _HEAD, *_REGIONS.values())
        )
        if float((face * hull).sum()) < _LEAST_FACE * float(hull.sum()):
            empty = np.zeros_like(face)
            return Parsed(np.ones_like(face), dict.fromkeys(_REGIONS, empty), is_face=False)
        return Parsed(face, dict(zip(_REGIONS, regions, strict=True)), head=head)


class OnnxParser:
    """A network in an ONNX file; see `Parser`.

    Args:
        path: The .onnx file.
        device: The preferred device.
        is_auto: Whether the user left the choice of the device open, see `on_a_device`.
        on_notice: Receives a notice where a device does not run the network.

    Raises:
        WeightsError: The file does not hold such a network.
    """

    def __init__(
        self,
        path: Path,
        device: torch.device,
        is_auto: bool,
        on_notice: Callable[[str], None],
    ) -> None:
        self._path = path
        self._session = open_network(path)
        image, others = inputs_of(self._session, path)
        if others:
            raise self._wrong(f"takes {1 + len(others)} inputs")
        self._image, self._dtype = image.name, type_of(image, path)
        self.side_px = self._side_of(image.shape)
        self._output = self._find_output()
        self._session = on_a_device(
            self._session,
            path,
            {self._image: self._normalized(_probe(self.side_px))},
            (self._output,),
            device=device,
            is_auto=is_auto,
            on_notice=on_notice,
        )

    def __call__(self, picture: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Compute the logits; see `Network`."""
        return self._run(picture, [self._output])[0]

    def _run(
        self, picture: npt.NDArray[np.float32], names: list[str] | None
    ) -> list[npt.NDArray[Any]]:
        """Run the network on one picture (1, 3, S, S) in [0, 1]; None as names: all outputs."""
        feeds = {self._image: self._normalized(picture)}
        results: list[npt.NDArray[Any]] = self._session.run(names, feeds)
        return results

    def _normalized(self, picture: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        image: npt.NDArray[Any] = ((picture - _MEAN) / _DEVIATION).astype(self._dtype)
        return image

    def _side_of(self, shape: Sequence[Any]) -> int:
        """Return the side S that the input's shape allows; WeightsError where it does not fit."""
        if len(shape) == 4 and (not isinstance(shape[0], int) or shape[0] == 1):
            fixed = {side for side in shape[2:] if isinstance(side, int)}
            channels_fit = not isinstance(shape[1], int) or shape[1] == 3
            if channels_fit and len(fixed) < 2 and min(fixed, default=_LEAST_SIDE) >= _LEAST_SIDE:
                return fixed.pop() if fixed else _USUAL_SIDE
        raise self._wrong(f"takes {shape}")

    def _find_output(self) -> str:
        """Return the name of the output, found by a run, since many files lack its shape."""
        gray = np.full((1, 3, self.side_px, self.side_px), 0.5, np.float32)
        try:
            results = self._run(gray, None)
        except Exception as error:  # onnxruntime has no base class for its errors
            raise self._wrong(
                f"fails on a picture of {self.side_px} pixels ({first_line(error)})"
            ) from error
        for value, result in zip(self._session.get_outputs(), results, strict=True):
            shape = np.shape(result)
            if shape[:2] == (1, _CLASSES) and len(shape) == 4 and min(shape[2:]) >= GRID_PX:
                return str(value.name)
        raise self._wrong(f"returns {' and '.join(str(np.shape(result)) for result in results)}")

    def _wrong(self, finding: str) -> WeightsError:
        return WeightsError(
            f"the network in {self._path} {finding}; a face parser takes (1 or N, 3, S, S) and "
            f"returns (1, {_CLASSES}, S, S), the classes of CelebAMask-HQ; set paste.parser to "
            "such a file"
        )


class ParseNetParser:
    """The network ParseNet, whose classes are brought into the order of this module.

    Args:
        path: The weight file, in a format of `read_checkpoint`.
        device: The preferred device; the processor computes where the rule does not admit it.
        on_notice: Receives a notice where it does not.

    Raises:
        WeightsError: The file does not hold a ParseNet, or cannot be read.
    """

    side_px = _USUAL_SIDE

    def __init__(self, path: Path, device: torch.device, on_notice: Callable[[str], None]) -> None:
        self._device = torch.device("cpu")
        self._network = ParseNet(path, self._device)
        if device.type == "cpu":
            return

        def run(network: ParseNet) -> FloatArray:
            return self._logits(network, device, _probe(self.side_px))

        form = Form(f"float32 on {device}", lambda: ParseNet(path, device), run)
        admitted = first_admitted(
            path.name,
            [form],
            self._exact,
            otherwise="the processor runs it",
            on_notice=on_notice,
        )
        if admitted is not None:
            self._device, self._network = device, admitted[1]

    def __call__(self, picture: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Compute the logits; see `Network`."""
        return self._logits(self._network, self._device, picture)

    def _exact(self) -> Exact:
        measured = Exact.measured(lambda: self(_probe(self.side_px)))
        span = float(np.ptp(measured.result))
        return Exact(measured.result, measured.seconds, span or 1.0)

    def _logits(self, network: ParseNet, device: torch.device, picture: FloatArray) -> FloatArray:
        image = to_device(torch.from_numpy(picture), device) * 2 - 1
        return np.asarray(to_host(network(image)[:, list(ORDER)]).numpy(), np.float32)


def _probe(side_px: int) -> FloatArray:
    """Return the built-in picture as (1, 3, S, S) in [0, 1]."""
    return np.asarray((probe_image(side_px) * 0.5 + 0.5).numpy(), np.float32)


def visible(window: Sequence[Parsed], extent: Extent = "face") -> FloatArray:
    """Return how much of the restored face may be visible at each place of a frame.

    Objects before the face stay as in the source. Places that are no face, or no part of the head,
    in most of the frames get 0, and so do the cells around them. An outlier in a single frame has
    no effect.

    Args:
        window: The parsed crops of the frame and of the frames around it.
        extent: What is pasted; default: the face.

    Returns:
        (64, 64) float32 in [0, 1].
    """
    share = _over_time(
        [each.face if extent == "face" or each.head is None else each.head for each in window]
    )
    kept = np.asarray(np.clip((1 - share) / (1 - _KEPT), 0, 1), np.float32)
    if not kept.any():
        return np.ones_like(kept)
    dilated = cv2.dilate(kept, _box(_DILATION_PX))
    fading = box_blur(cv2.dilate(dilated, _box(_FADE_PX)), 2 * _FADE_PX + 1, 2 * _FADE_PX + 1)
    return np.asarray(1 - np.maximum(dilated, fading), np.float32)


def regions(window: Sequence[Parsed]) -> dict[str, FloatArray]:
    """Return the regions of a frame as soft masks.

    Args:
        window: The parsed crops of the frame and of the frames around it.

    Returns:
        (64, 64) float32 in [0, 1] for each of "brows", "eyes" and "mouth".
    """
    masks = {}
    for name in _REGIONS:
        share = _over_time([parsed.regions[name] for parsed in window])
        dilated = cv2.dilate(share, _box(_REGION_PX))
        masks[name] = np.asarray(box_blur(dilated, 3, 3), np.float32)
    return masks


def _over_time(shares: Sequence[FloatArray]) -> FloatArray:
    """Return the mean (64, 64), of three or more without the smallest and the largest value."""
    ordered = np.sort(shares, axis=0)
    return np.asarray((ordered[1:-1] if len(ordered) > 2 else ordered).mean(axis=0), np.float32)


def _share(classes: npt.NDArray[Any], members: Sequence[int]) -> FloatArray:
    """Return the share (64, 64) of each cell that belongs to the classes `members`."""
    inside = np.isin(classes, members).astype(np.float32)
    small = cv2.resize(inside, (GRID_PX, GRID_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32)


def _box(radius: int) -> npt.NDArray[np.uint8]:
    """Return a square structuring element."""
    return np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)

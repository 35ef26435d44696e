"""ParseNet: a network that finds the parts of a face, from the authors' checkpoint.

It comes from PSFR-GAN (Chen et al., CVPR 2021), and GPEN's authors and facexlib use it.
Convolutions of 3 x 3 at mirrored borders stand in residual blocks: an encoder halves the picture a
few times, a body keeps its size, and its sum with what it was given goes to a decoder, which
doubles the size again. The classes are those of CelebAMask-HQ in the order of that data set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from vidrestore.common.errors import WeightsError
from vidrestore.models.known_networks import identified
from vidrestore.models.weight_file import read_checkpoint, some_of, without_prefix

ORDER = (0, 1, 6, 7, 4, 5, 3, 8, 9, 15, 2, 10, 11, 12, 17, 16, 18, 13, 14)
"""The class of ParseNet for each class of `face_parser`."""
_OUTPUT = "out_mask_conv"
_SLOPE, _EPSILON = 0.2, 1e-5  # of the leaky rectifier, and of the normalization

Layer = tuple[Tensor, Tensor]


class ParseNet:
    """Computes the logits of 19 classes.

    The normalization is folded into the convolutions.

    Args:
        path: The weight file, in a format of `read_checkpoint`.
        device: The device that computes.

    Raises:
        WeightsError: The file does not hold a ParseNet with 19 classes.
        OSError: The file cannot be read.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        state = without_prefix(read_checkpoint(path), f"{_OUTPUT}.conv2d.weight")
        try:
            self._layers = _layers(state, device)
        except (KeyError, RuntimeError) as error:  # torch raises the second for shapes
            raise _another_network(path, state) from error
        if bad := [name for name, pair in self._layers.items() if not _are_finite(pair)]:
            raise WeightsError(
                f"{path} has values in {some_of(bad)} that are NaN or infinite; get the file again"
            )
        counts = {part: _count(state, part) for part in ("encoder", "body", "decoder")}
        self._down, self._body, self._up = counts["encoder"] - 1, counts["body"], counts["decoder"]
        try:
            with torch.inference_mode():
                result = self(torch.zeros(1, 3, 64, 64, device=device))
        except (KeyError, RuntimeError) as error:
            raise _another_network(path, state) from error
        if result.shape != (1, len(ORDER), 64, 64):
            raise WeightsError(
                f"the ParseNet in {path} returns {tuple(result.shape)} for a picture of 64 px; a "
                f"face parser returns (1, {len(ORDER)}, 64, 64)"
            )

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Tensor:
        """Compute the logits.

        Args:
            image: (B, 3, S, S) float32 RGB in [-1, 1], S a multiple of 16 of at least 32.

        Returns:
            (B, 19, S, S) float32, the classes in the order of CelebAMask-HQ.
        """
        picture = self._convolved(image, "encoder.0")
        for level in range(self._down):
            picture = self._block(picture, f"encoder.{level + 1}", stride=2)
        deep = picture
        for level in range(self._body):
            deep = self._block(deep, f"body.{level}")
        picture = picture + deep
        for level in range(self._up):
            picture = self._block(F.interpolate(picture, scale_factor=2), f"decoder.{level}")
        return self._convolved(picture, _OUTPUT)

    def _block(self, picture: Tensor, name: str, stride: int = 1) -> Tensor:
        """Add to a picture, or to a convolution of it, two convolutions of it."""
        inner = F.leaky_relu(self._convolved(picture, f"{name}.conv1"), _SLOPE)
        shortcut = f"{name}.shortcut_func"
        if shortcut in self._layers:
            picture = self._convolved(picture, shortcut, stride)
        return picture + self._convolved(inner, f"{name}.conv2", stride)

    def _convolved(self, picture: Tensor, name: str, stride: int = 1) -> Tensor:
        weight, bias = self._layers[name]
        return F.conv2d(F.pad(picture, (1, 1, 1, 1), mode="reflect"), weight, bias, stride)


def _layers(state: Mapping[str, Tensor], device: torch.device) -> dict[str, Layer]:
    """Return weight and bias of each convolution, with its normalization."""
    ending = ".conv2d.weight"
    layers = {}
    for name in [key.removesuffix(ending) for key in state if key.endswith(ending)]:
        if name == "out_img_conv":  # a picture, which is not used
            continue
        weight = state[f"{name}{ending}"].double()
        norm = f"{name}.norm.norm"
        if f"{norm}.running_var" in state:
            scale = state[f"{norm}.weight"].double()
            scale = scale / (state[f"{norm}.running_var"].double() + _EPSILON).sqrt()
            weight = weight * scale[:, None, None, None]
            mean = state[f"{norm}.running_mean"].double()
            bias = state[f"{norm}.bias"].double() - mean * scale
        else:
            bias = state[f"{name}.conv2d.bias"].double()
        layers[name] = (weight.float().to(device), bias.float().to(device))
    return layers


def _are_finite(pair: Layer) -> bool:
    return all(bool(value.isfinite().all()) for value in pair)


def _count(state: Mapping[str, Tensor], part: str) -> int:
    """Return the number of layers or blocks of a part."""
    return len({match[1] for key in state if (match := re.match(rf"{part}\.(\d+)\.", key))})


def _another_network(path: Path, state: Mapping[str, Tensor]) -> WeightsError:
    """Return the error for a file without a ParseNet."""
    network = identified(state)
    if network is not None and f"{_OUTPUT}." not in network.parts:
        return WeightsError(f"{path} holds {network.name}, not a ParseNet; {network.advice}")
    return WeightsError(
        f"{path} does not hold a ParseNet: it has {some_of(state)}; set paste.parser to "
        "ParseNet-latest.pth, or to a face parser as an .onnx file"
    )

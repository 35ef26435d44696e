"""The discriminator against which GPEN is trained: that of StyleGAN2 (SG2, arXiv:1912.04958).

PG is Karras et al. 2018 (Progressive GAN, arXiv:1710.10196).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from vidrestore.common.errors import WeightsError
from vidrestore.common.files import check_readable_kind
from vidrestore.models.gpen import ops
from vidrestore.models.gpen.network import (
    BASE_CHANNELS,
    Activation,
    Blur,
    EqualConv2d,
    EqualLinear,
    GPENConfig,
    Run,
    run_layer,
)
from vidrestore.models.weight_file import read_checkpoint, some_of

_DEVIATION_EPS = 1e-8


class ResidualBlock(nn.Module):
    """Two convolutions, of which the second halves the sides, and a linear path (SG2, fig. 7c).

    Args:
        in_channels: Number of input channels I.
        out_channels: Number of output channels O.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            EqualConv2d(in_channels, in_channels, 3, stride=1, padding=1), Activation(in_channels)
        )
        self.conv2 = nn.Sequential(
            Blur(in_channels),
            EqualConv2d(in_channels, out_channels, 3, stride=2),
            Activation(out_channels),
        )
        self.skip = nn.Sequential(
            Blur(in_channels, padding=1), EqualConv2d(in_channels, out_channels, 1, stride=2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: (B, I, H, W).

        Returns:
            (B, O, H / 2, W / 2), scaled to the variance of one path.
        """
        return cast(Tensor, (self.conv2(self.conv1(x)) + self.skip(x)) / math.sqrt(2))


class Discriminator(nn.Module):
    """Judges whether faces are real; the residual discriminator of StyleGAN2.

    `state_dict()` has the keys and shapes of the GPEN authors' checkpoints, in their order.

    Args:
        size: Side S of the square image in pixels, a power of two from 8 to 4096.
        channel_multiplier: Factor of the number of channels of the levels from 64 px up. Default 2.
        narrow: Factor of the number of channels of every level. Default 1.0.

    Raises:
        ValueError: `size` is not a power of two from 8 to 4096, or a width is below one.
    """

    def __init__(self, size: int, channel_multiplier: int = 2, narrow: float = 1.0) -> None:
        super().__init__()
        self.config = GPENConfig(size, channel_multiplier=channel_multiplier, narrow=narrow)
        channels = self.config.channels
        first = nn.Sequential(
            EqualConv2d(3, channels(size), 1, stride=1), Activation(channels(size))
        )
        sides = self.config.sides[::-1]
        blocks = (ResidualBlock(channels(side), channels(side // 2)) for side in sides[:-1])
        self.convs = nn.Sequential(first, *blocks)
        width = channels(4)
        self.final_conv = nn.Sequential(
            EqualConv2d(width + 1, width, 3, stride=1, padding=1), Activation(width)
        )
        self.final_linear = nn.Sequential(
            EqualLinear(width * 16, width, activate=True), EqualLinear(width, 1, activate=False)
        )

    def forward(self, images: Tensor, run: Run = run_layer) -> Tensor:
        """Judge faces.

        Args:
            images: (B, 3, S, S) float32 RGB in [-1, 1].
            run: Runs each block. Default: `run_layer`.

        Returns:
            (B, 1) float32 logits; a positive logit means real. They depend on the whole batch.
        """
        x = images
        for block in self.convs:
            x = run(block, x)
        x = self.final_conv(torch.cat((x, _deviation(x)), dim=1))  # (B, C, 4, 4)
        return cast(Tensor, self.final_linear(x.flatten(1)))


def _deviation(x: Tensor) -> Tensor:
    """Return the mean standard deviation over the batch as a map (B, 1, H, W) (PG, section 3).

    The authors take it over groups of four images; up to four images the two are equal.
    """
    deviation = torch.sqrt(x.var(dim=0, unbiased=False) + _DEVIATION_EPS).mean()
    return deviation.expand(len(x), 1, *x.shape[2:])


def load_discriminator(path: str | Path) -> Discriminator:
    """Load a discriminator, such as GPEN-BFR-512-D.pth, from a weight file.

    The shapes of the weights give size and widths. The fixed blur kernels may be missing.

    Args:
        path: The file, in a format of `vidrestore.models.weight_file.read_checkpoint`.

    Returns:
        The discriminator, float32 on the CPU.

    Raises:
        WeightsError: The file is damaged or does not hold a discriminator of StyleGAN2.
        OSError: The file cannot be read.
    """
    path = Path(path)
    check_readable_kind(path, "the weight file", WeightsError)
    state = {key.removeprefix("module."): value for key, value in read_checkpoint(path).items()}
    size, channel_multiplier, narrow = _shape_arguments(path, state)
    with torch.device("meta"):
        discriminator = Discriminator(size, channel_multiplier, narrow)
    expected = discriminator.state_dict()
    kernels = (key for key in expected if key.endswith(".kernel"))
    state |= {key: ops.fir_kernel() for key in kernels if key not in state}
    check_tensors(path, state, expected, "a discriminator of GPEN")
    state = {key: state[key].float() for key in expected}
    discriminator.load_state_dict(state, assign=True)
    return discriminator.requires_grad_(True)


def _shape_arguments(path: Path, state: Mapping[str, Tensor]) -> tuple[int, int, float]:
    """Derive size, channel multiplier and narrowness from the names and shapes of the weights."""
    blocks = {int(match[1]) for key in state if (match := re.match(r"convs\.(\d+)\.conv1\.", key))}
    try:
        size = 2 ** (max(blocks) + 2)
        width = state["final_conv.0.weight"].shape[0]
        multiplier = 2  # has no effect without a level of 64 px
        if size >= 64:
            # The output of the block from 128 px, or of the first layer where there is none.
            block = max(blocks) - 4
            widest = f"convs.{block}.conv2.1.weight" if block else "convs.0.0.weight"
            multiplier = state[widest].shape[0] * 2 // width
        config = GPENConfig(size, channel_multiplier=multiplier, narrow=width / BASE_CHANNELS)
    except (KeyError, IndexError, ValueError) as error:
        raise WeightsError(
            f"{path} does not hold a discriminator of GPEN: it has {some_of(state)}; use a file "
            "such as GPEN-BFR-512-D.pth"
        ) from error
    return config.size, config.channel_multiplier, config.narrow


def check_tensors(
    path: Path, state: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str
) -> None:
    """Check that a state dict has the names and shapes of a network, and finite numbers.

    Args:
        path: The file from which it was read, for the message.
        state: The state dict.
        expected: The state dict of the network.
        what: The network for the message, such as "a discriminator of GPEN".

    Raises:
        WeightsError: A tensor is missing, unknown, of another shape or not finite.
    """
    missing = [key for key in expected if key not in state]
    extra = [key for key in state if key not in expected]
    if missing or extra:
        raise WeightsError(
            f"{path} does not hold {what}: missing {some_of(missing) or 'nothing'}, unknown "
            f"{some_of(extra) or 'nothing'}; use another file"
        )
    for key, value in expected.items():
        if state[key].shape != value.shape:
            raise WeightsError(
                f"{path} has {key} of shape {tuple(state[key].shape)} where {what} has "
                f"{tuple(value.shape)}; use another file"
            )
        if not state[key].isfinite().all():
            raise WeightsError(f"{path} has values in {key} that are not finite; get it again")

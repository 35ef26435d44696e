"""GPEN as its formulas define it, in float32: the form that is trained, stored and exported.

GPEN is Yang et al. 2021 (arXiv:2105.06070): an encoder whose deepest features give the latent code
of a StyleGAN2 decoder (SG2, arXiv:1912.04958), and whose features at every resolution replace the
decoder's noise. PG is Karras et al. 2018 (Progressive GAN, arXiv:1710.10196). The names of modules
are chosen so that `GPEN.state_dict()` has the keys of the authors' checkpoints.
`vidrestore.models.gpen.inference` computes the same results much faster.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from vidrestore.models.gpen import ops

Run = Callable[..., Tensor]
"""Runs a layer, the first argument, on its inputs, the other ones."""

MAX_SIZE = 4096
BASE_CHANNELS = 512  # at 4 to 32 px, before `narrow`


@dataclass(frozen=True)
class GPENConfig:
    """The numbers that determine the shapes of all weights of a GPEN.

    Raises:
        ValueError: `size` is not a power of two from 8 to 4096, or a width is below one.
    """

    size: int
    """Side S of the square image in pixels, a power of two from 8 to 4096."""
    style_dim: int = 512
    """Length of the latent code."""
    n_mlp: int = 8
    """Number of layers of the mapping network."""
    channel_multiplier: int = 2
    """Factor of the number of channels of the levels from 64 px up."""
    narrow: float = 1.0
    """Factor of the number of channels of every level."""

    def __post_init__(self) -> None:
        if self.size not in {2**n for n in range(3, 13)}:
            raise ValueError(f"size must be a power of two from 8 to {MAX_SIZE}, got {self.size}")
        if min(self.style_dim, self.n_mlp, self.channel_multiplier) < 1:
            raise ValueError(
                "style_dim, n_mlp and channel_multiplier must be at least 1, got "
                f"{self.style_dim}, {self.n_mlp} and {self.channel_multiplier}"
            )
        if self.channels(self.size) < 1:
            raise ValueError(f"narrow={self.narrow} leaves no channel at {self.size} px")

    def channels(self, side: int) -> int:
        """Return the number of channels of a level.

        Args:
            side: Side of the level in pixels.

        Returns:
            The number of channels of its maps.
        """
        if side <= 32:
            return int(BASE_CHANNELS * self.narrow)
        return int(BASE_CHANNELS * 32 // side * self.channel_multiplier * self.narrow)

    @property
    def sides(self) -> list[int]:
        """Sides of the levels in pixels, from 4 to `size`."""
        return [2**n for n in range(2, self.size.bit_length())]


def run_layer(layer: nn.Module, *inputs: Tensor) -> Tensor:
    """Run a layer on its inputs; training runs layers in another way, to save memory.

    Args:
        layer: The layer.
        *inputs: Its inputs.

    Returns:
        Its result.
    """
    return cast(Tensor, layer(*inputs))


class FIR(nn.Module):
    """A fixed low-pass filter for every channel, stored in checkpoints as `kernel` (4, 4).

    Args:
        channels: Number of channels C.
        gain: Sum of the filter's taps.
    """

    kernel: Tensor

    def __init__(self, channels: int, gain: float) -> None:
        super().__init__()
        self.register_buffer("kernel", ops.fir_kernel(gain))
        self.channels = channels

    def per_channel(self) -> Tensor:
        """Return the filter once for each channel: (C, 1, 4, 4), a view."""
        # The number is not read from the input, whose shape an exporter by tracing does not know.
        return self.kernel.expand(self.channels, 1, -1, -1)


def _drawn(*shape: int, divisor: float = 1.0) -> Tensor:
    """Return normally distributed values of variance 1, divided.

    On the device "meta" nothing is computed: for its arithmetic, torch imports a compiler in 1.1 s.
    """
    values = torch.empty(shape)
    return values if values.is_meta else values.normal_().div_(divisor)


class EqualLinear(nn.Module):
    """Linear layer whose stored weight is scaled by lr_mul / sqrt(fan_in) (PG, section 4.1).

    Args:
        in_dim: Number of inputs.
        out_dim: Number of outputs.
        bias: Initial value of the bias. Default 0.0.
        lr_mul: Factor of the learning rate, and of weight and bias. Default 1.0.
        activate: Whether sqrt(2) * leaky_relu follows.
    """

    def __init__(
        self, in_dim: int, out_dim: int, *, bias: float = 0.0, lr_mul: float = 1.0, activate: bool
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(_drawn(out_dim, in_dim, divisor=lr_mul))
        self.bias = nn.Parameter(torch.full((out_dim,), bias))
        self.scale = lr_mul / math.sqrt(in_dim)
        self.lr_mul = lr_mul
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            x: (B, in_dim).

        Returns:
            (B, out_dim).
        """
        x = nn.functional.linear(x, self.weight * self.scale)
        bias = self.bias * self.lr_mul
        return ops.biased_leaky_relu(x, bias) if self.activate else x + bias


class EqualConv2d(nn.Module):
    """Convolution without bias whose stored weight is scaled by 1 / sqrt(fan_in) (PG, section 4.1).

    Args:
        in_channels: Number of input channels I.
        out_channels: Number of output channels O.
        side: Side k of the kernel.
        stride: Stride in rows and columns.
        padding: Rows and columns of zeros p on each side of the maps. Default 0.
    """

    def __init__(
        self, in_channels: int, out_channels: int, side: int, stride: int, padding: int = 0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(_drawn(out_channels, in_channels, side, side))
        self.scale = 1 / math.sqrt(in_channels * side * side)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """Apply the convolution.

        Args:
            x: (B, I, H, W).

        Returns:
            (B, O, (H + 2 p - k) // stride + 1, (W + 2 p - k) // stride + 1).
        """
        weight = self.weight * self.scale
        return nn.functional.conv2d(x, weight, stride=self.stride, padding=self.padding)


class Activation(nn.Module):
    """Bias and scaled leaky ReLU, see `ops.biased_leaky_relu`.

    Args:
        channels: Number of channels C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Add the bias and activate.

        Args:
            x: (B, C, ...).

        Returns:
            A tensor of the same shape.
        """
        return ops.biased_leaky_relu(x, self.bias)


class PixelNorm(nn.Module):
    """Scales each vector to a mean square of one (PG, section 4.2)."""

    def forward(self, x: Tensor) -> Tensor:
        """Scale each vector.

        Args:
            x: (B, C) vectors.

        Returns:
            (B, C) vectors.
        """
        return ops.pixel_norm(x)


class Blur(FIR):
    """Low-pass filter before a convolution of stride 2 (SG2, section 5).

    Args:
        channels: Number of channels C.
        padding: Rows and columns of zeros p on each side of the maps: 2 before a 3 x 3
            convolution, 1 before a 1 x 1 convolution. Default 2.
    """

    def __init__(self, channels: int, padding: int = 2) -> None:
        super().__init__(channels, gain=1.0)
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """Filter maps.

        Args:
            x: (B, C, H, W).

        Returns:
            (B, C, H + 2 p - 3, W + 2 p - 3).
        """
        return ops.blur(x, self.per_channel(), padding=self.padding)


class ModulatedConv2d(nn.Module):
    """Convolution whose weights are scaled by a style per input channel (SG2, section 2.2).

    SG2 folds the style s and the demodulation d into the weights. Here the input is multiplied by s
    and the output by d, which is equal by linearity. The weights stay constant, so that one
    convolution serves a batch and the graph can be exported.

    Args:
        in_channels: Number of input channels I.
        out_channels: Number of output channels O.
        side: Side of the kernel, odd.
        style_dim: Length D of the latent code.
        up: Whether the sides of the maps are doubled. Default False.
        demodulate: Whether the output is scaled back to unit variance. Default True.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        side: int,
        style_dim: int,
        *,
        up: bool = False,
        demodulate: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(_drawn(1, out_channels, in_channels, side, side))
        self.scale = 1 / math.sqrt(in_channels * side * side)
        self.blur = FIR(out_channels, gain=4.0) if up else None
        self.modulation = EqualLinear(style_dim, in_channels, bias=1.0, activate=False)
        self.demodulate = demodulate

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """Apply the convolution.

        Args:
            x: (B, I, H, W) maps.
            latent: (B, D) latent code, mapped.

        Returns:
            (B, O, H, W), or (B, O, 2 H, 2 W) with `up`.
        """
        style = self.modulation(latent)  # (B, I)
        weight = self.weight[0] * self.scale  # (O, I, k, k)
        x = x * style[:, :, None, None]  # SG2, eq. 1
        if self.blur is not None:
            # (B, O, 2H + 1, 2W + 1)
            x = nn.functional.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
            x = ops.blur(x, self.blur.per_channel(), padding=1)  # (B, O, 2H, 2W)
        else:
            x = nn.functional.conv2d(x, weight, padding=weight.shape[-1] // 2)  # (B, O, H, W)
        if not self.demodulate:
            return x
        return x * ops.demodulation(style, weight.square().sum((2, 3)))[:, :, None, None]


class NoiseInjection(nn.Module):
    """Concatenates maps with scaled encoder features, where StyleGAN2 adds noise to the maps.

    The concatenation is the default of the GPEN authors' code, and every released checkpoint uses
    it (GPEN, section 3.2).
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, feature: Tensor) -> Tensor:
        """Concatenate maps and encoder features.

        Args:
            x: (B, C, H, W) maps.
            feature: (B, C, H, W) encoder features.

        Returns:
            (B, 2 C, H, W), the maps first.
        """
        return torch.cat((x, feature * self.weight), dim=1)


class StyledConv(nn.Module):
    """Modulated 3 x 3 convolution, encoder features, bias and activation.

    Args:
        in_channels: Number of input channels I.
        out_channels: Number of output channels O of the convolution.
        style_dim: Length D of the latent code.
        up: Whether the sides of the maps are doubled. Default False.
    """

    def __init__(
        self, in_channels: int, out_channels: int, style_dim: int, *, up: bool = False
    ) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(in_channels, out_channels, 3, style_dim, up=up)
        self.noise = NoiseInjection()
        self.activate = Activation(2 * out_channels)

    def forward(self, x: Tensor, latent: Tensor, feature: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            x: (B, I, H, W) maps.
            latent: (B, D) latent code, mapped.
            feature: (B, O, H, W) encoder features, or (B, O, 2 H, 2 W) with `up`.

        Returns:
            (B, 2 O, H, W), or (B, 2 O, 2 H, 2 W) with `up`.
        """
        return cast(Tensor, self.activate(self.noise(self.conv(x, latent), feature)))


class ToRGB(nn.Module):
    """1 x 1 modulated convolution to RGB, added to the upsampled image of the level before.

    The path is that of SG2, fig. 7b.

    Args:
        in_channels: Number of input channels I.
        style_dim: Length D of the latent code.
        up: Whether the image of a level before is upsampled and added.
    """

    def __init__(self, in_channels: int, style_dim: int, *, up: bool) -> None:
        super().__init__()
        self.upsample = FIR(3, gain=4.0) if up else None
        self.conv = ModulatedConv2d(in_channels, 3, 1, style_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x: Tensor, latent: Tensor, image: Tensor | None = None) -> Tensor:
        """Return the RGB image of this level.

        Args:
            x: (B, I, H, W) maps.
            latent: (B, D) latent code, mapped.
            image: (B, 3, H / 2, W / 2) image of the level before; None at the first level.

        Returns:
            (B, 3, H, W).
        """
        rgb = cast(Tensor, self.conv(x, latent) + self.bias)  # (B, 3, H, W)
        if self.upsample is None or image is None:
            return rgb
        return rgb + ops.upsample(image, self.upsample.per_channel())


class ConstantInput(nn.Module):
    """The learned constant (1, C, 4, 4) from which the decoder starts.

    Args:
        channels: Number of channels C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Parameter(_drawn(1, channels, 4, 4))


class Generator(nn.Module):
    """StyleGAN2 decoder with skip connections to RGB.

    Args:
        config: Shape of the network.
    """

    def __init__(self, config: GPENConfig) -> None:
        super().__init__()
        dim = config.style_dim
        self.style = nn.Sequential(
            PixelNorm(),
            *(EqualLinear(dim, dim, lr_mul=0.01, activate=True) for _ in range(config.n_mlp)),
        )
        width = config.channels(4)
        self.input = ConstantInput(width)
        self.conv1 = StyledConv(width, width, dim)
        self.to_rgb1 = ToRGB(2 * width, dim, up=False)
        self.convs = nn.ModuleList()
        self.to_rgbs = nn.ModuleList()
        for side in config.sides[1:]:
            before, width = width, config.channels(side)
            self.convs.append(StyledConv(2 * before, width, dim, up=True))
            self.convs.append(StyledConv(2 * width, width, dim))
            self.to_rgbs.append(ToRGB(2 * width, dim, up=True))

    def forward(self, code: Tensor, features: list[Tensor]) -> Tensor:
        """Decode a latent code to an image.

        Args:
            code: (B, D) latent code, not yet mapped.
            features: Encoder features (B, C, side, side), from 4 px to S.

        Returns:
            (B, 3, S, S) RGB, nominally in [-1, 1] and not clamped.
        """
        latent = self.style(code)  # (B, D)
        return self.synthesize([latent] * (2 * len(features)), features)

    def synthesize(
        self, latents: Sequence[Tensor], features: Sequence[Tensor], run: Run = run_layer
    ) -> Tensor:
        """Decode mapped latent codes, one for each layer, to an image.

        Args:
            latents: (B, D) mapped latent codes, two for each level. The code of a level's RGB path
                is also that of the next level's first convolution (SG2, appendix B).
            features: Encoder features (B, C, side, side), from 4 px to S.
            run: Runs each layer. Default: `run_layer`.

        Returns:
            (B, 3, S, S) RGB, nominally in [-1, 1] and not clamped.
        """
        x = self.input.input.expand(latents[0].shape[0], -1, -1, -1)  # (B, C, 4, 4)
        x = run(self.conv1, x, latents[0], features[0])
        image = run(self.to_rgb1, x, latents[1])
        for level, to_rgb in enumerate(self.to_rgbs):
            feature = features[level + 1]  # both convolutions of a level use it
            first, second, third = latents[2 * level + 1 : 2 * level + 4]
            x = run(self.convs[2 * level], x, first, feature)
            x = run(self.convs[2 * level + 1], x, second, feature)
            image = run(to_rgb, x, third, image)
        return image


class GPEN(nn.Module):
    """GAN prior embedded network for blind face restoration (arXiv:2105.06070).

    `state_dict()` has the keys and shapes of the authors' checkpoints, in their order.

    Args:
        size: Side S of the square image in pixels, a power of two from 8 to 4096.
        style_dim: Length of the latent code. Default 512.
        n_mlp: Number of layers of the mapping network. Default 8.
        channel_multiplier: Factor of the number of channels of the levels from 64 px up. Default 2.
        narrow: Factor of the number of channels of every level. Default 1.0.

    Raises:
        ValueError: `size` is not a power of two from 8 to 4096, or a width is below one.
    """

    def __init__(
        self,
        size: int,
        style_dim: int = 512,
        n_mlp: int = 8,
        channel_multiplier: int = 2,
        narrow: float = 1.0,
    ) -> None:
        super().__init__()
        self.config = GPENConfig(size, style_dim, n_mlp, channel_multiplier, narrow)
        channels = self.config.channels
        self.generator = Generator(self.config)
        first = nn.Sequential(EqualConv2d(3, channels(size), 1, 1), Activation(channels(size)))
        self.add_module("ecd0", nn.Sequential(first))
        for index, side in enumerate(reversed(self.config.sides[:-1]), start=1):
            width = channels(side)
            conv = EqualConv2d(channels(2 * side), width, 3, stride=2)
            down = nn.Sequential(Blur(channels(2 * side)), conv, Activation(width))
            self.add_module(f"ecd{index}", nn.Sequential(down))
        linear = EqualLinear(channels(4) * 16, style_dim, activate=True)
        self.final_linear = nn.Sequential(linear)

    def encoder(self) -> list[nn.Sequential]:
        """Return the encoder's stages, the full size first."""
        stages = (self.get_submodule(f"ecd{index}") for index in range(len(self.config.sides)))
        return [cast(nn.Sequential, cast(nn.Sequential, stage)[0]) for stage in stages]

    def forward(self, image: Tensor) -> Tensor:
        """Restore faces.

        Args:
            image: (B, 3, S, S) float32 RGB in [-1, 1].

        Returns:
            (B, 3, S, S) float32 RGB, nominally in [-1, 1] and not clamped.
        """
        code, features = self.encode(image)
        return cast(Tensor, self.generator(code, features))

    def encode(self, image: Tensor, run: Run = run_layer) -> tuple[Tensor, list[Tensor]]:
        """Encode faces to what the decoder needs.

        Args:
            image: (B, 3, S, S) float32 RGB in [-1, 1].
            run: Runs each stage. Default: `run_layer`.

        Returns:
            The latent code (B, D), not yet mapped, and the features (B, C, side, side) from 4 px
            to S.
        """
        x = image
        features = []
        for stage in self.encoder():
            x = run(stage, x)
            features.append(x)  # (B, C, side, side), S first
        code = self.final_linear(x.flatten(1))  # (B, D)
        return code, features[::-1]

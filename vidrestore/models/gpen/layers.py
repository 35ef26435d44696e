"""The layers of `InferenceGPEN`. Each replaces one or several layers of `models.gpen.network`."""

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from vidrestore.models.gpen import network, ops, variants

MODULATE_WEIGHTS_FROM = 64  # smallest side of the result, in pixels
# Of a strip of a result on the CPU: few enough for the cache, enough to hide the cost of a call.
STRIP_ELEMENTS = 2**21
# Replaces zero as the largest value of a style, by which the style is divided.
SMALLEST_STYLE = 1e-20


class Dense(nn.Module):
    """Several linear layers on one input as one matrix product, with their scales folded in.

    The layer computes in float64 where the device can: an error of the latent code affects every
    style, and the numbers are few.

    Args:
        *linears: Layers with as many inputs as each other. The first decides whether all results
            are activated.
        dtype: float64 (default), or float32 for a device without it.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, *linears: network.EqualLinear, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.activate = linears[0].activate
        gain = ops.LEAKY_GAIN if self.activate else 1.0
        weights = [linear.weight.double() * (linear.scale * gain) for linear in linears]
        self.register_buffer("weight", torch.cat(weights).to(dtype))
        biases = [linear.bias.double() * (linear.lr_mul * gain) for linear in linears]
        self.register_buffer("bias", torch.cat(biases).to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers.

        Args:
            x: (B, I), of a floating-point type.

        Returns:
            (B, sum of O) of the layer's type, the results of the layers one after another.
        """
        x = nn.functional.linear(x.to(self.weight.dtype), self.weight, self.bias)
        return nn.functional.leaky_relu_(x, ops.LEAKY_SLOPE) if self.activate else x


class Encode(nn.Module):
    """Encoder stage: blur and convolution of stride 2; the first stage is a 1 x 1 convolution.

    Args:
        stage: The stage of `network.GPEN`.
        side: Side of the result, in pixels.
        dtype: Type of weights and results.
        form: Where blurs are folded, and what runs pointwise operations.
    """

    weight: Tensor
    bias: Tensor
    kernel: Tensor | None

    def __init__(
        self,
        stage: nn.Sequential,
        side: int,
        dtype: torch.dtype,
        form: variants.InferenceForm = variants.PLAIN,
    ) -> None:
        super().__init__()
        self.kernels = form.kernels
        first = stage[0]
        conv, activation = cast(network.EqualConv2d, stage[-2]), cast(network.Activation, stage[-1])
        weight = conv.weight * (conv.scale * ops.LEAKY_GAIN)  # (O, I, k, k)
        kernel = None
        self.stride, self.padding = conv.stride, 0
        if isinstance(first, network.Blur):
            if side >= form.fold_down_from:
                weight, self.padding = ops.convolve_kernels(weight, first.kernel), 2
            else:
                kernel = first.per_channel().to(dtype)
        self.register_buffer("kernel", kernel)
        self.register_buffer("weight", _channels_last(weight, dtype))
        self.register_buffer("bias", (activation.bias * ops.LEAKY_GAIN).to(dtype))

    def forward(self, x: Tensor, out: Tensor) -> None:
        """Write the stage's result into `out`.

        Args:
            x: (B, I, H, W) maps of the stage before, or the picture.
            out: (B, O, side, side), channels last in memory.
        """
        if self.kernel is not None:
            x = ops.blur(x.to(self.kernel.dtype), self.kernel, padding=2)
        if self.kernels is not None:
            x = x.to(self.weight.dtype).contiguous(memory_format=torch.channels_last)
            y = nn.functional.conv2d(x, self.weight, None, self.stride, self.padding)
            return self.kernels.activate(y, self.bias, out)
        for images, rows in _tiles(out, out.shape[1]):
            y = _convolve(x[images], rows, self.weight, self.bias, self.stride, self.padding)
            torch.ops.aten.leaky_relu.out(y, ops.LEAKY_SLOPE, out=out[images, :, rows])
        return None


class StyledConv(nn.Module):
    """Styled convolution that concatenates its maps with the encoder features.

    Args:
        layer: The layer of `network.GPEN`.
        side: Side of the result, in pixels.
        dtype: Type of activations; weights that are modulated stay float32.
        form: Where blurs are folded, and what runs pointwise operations.
    """

    weight: Tensor
    bias: Tensor
    feature_bias: Tensor
    energy: Tensor
    kernel: Tensor | None

    def __init__(
        self,
        layer: network.StyledConv,
        side: int,
        dtype: torch.dtype,
        form: variants.InferenceForm = variants.PLAIN,
    ) -> None:
        super().__init__()
        self.kernels = form.kernels
        conv = layer.conv
        weight = conv.weight[0] * conv.scale  # (O, I, 3, 3)
        self.register_buffer("energy", weight.square().sum((2, 3)))  # (O, I), see ops.demodulation
        kernel = None
        self.fold = conv.blur is not None and side >= max(form.fold_up_from, MODULATE_WEIGHTS_FROM)
        if conv.blur is not None:
            if self.fold:
                weight = ops.phases(ops.convolve_kernels(weight, conv.blur.kernel))
            else:
                weight = weight.transpose(0, 1)  # as a transposed convolution takes it
                kernel = conv.blur.per_channel().to(dtype)
        self.dtype = dtype
        self.modulate_weights = side >= MODULATE_WEIGHTS_FROM
        weight_dtype = torch.float32 if self.modulate_weights else dtype
        bias, feature_bias = (layer.activate.bias * ops.LEAKY_GAIN).to(dtype).chunk(2)  # (O,) each
        self.feature_gain = float(layer.noise.weight) * ops.LEAKY_GAIN
        self.register_buffer("kernel", kernel)
        self.register_buffer("weight", _channels_last(weight, weight_dtype))
        self.register_buffer("bias", bias.repeat(4) if self.fold else bias.clone())
        self.register_buffer(
            "feature_bias", feature_bias.repeat(side)
        )  # (side O,), a row of pixels

    def forward(
        self,
        x: Tensor,
        feature: Tensor,
        style: Tensor,
        out: Tensor,
        rgb: variants.RgbSum | None = None,
    ) -> None:
        """Write the activations of the styled convolution and of the encoder features into `out`.

        Args:
            x: (B, I, H, W) maps of the level before, or of this one.
            feature: (B, O, side, side) encoder features.
            style: (B, I) float32 scale of each input channel.
            out: (B, side, side, 2 O).
            rgb: The level's RGB image, which is then computed, too; only with `form.kernels`.
        """
        # Division by the largest value keeps styles within float16; demodulation undoes it.
        largest = _largest(style)  # (B, 1)
        style = style / largest
        eps = ops.DEMODULATION_EPS / largest.square()
        gain = ops.LEAKY_GAIN * ops.demodulation(style, self.energy, eps)  # (B, O)
        if self.modulate_weights:
            for b in range(len(x)):
                one = slice(b, b + 1)
                part = None if rgb is None else rgb.for_images(one)
                self._modulated_weights(x[one], feature[one], style[b], gain[b], out[one], part)
        elif self.kernels is not None:
            y = self._convolved(x * _maps(style, self.dtype), self.weight)
            self._join_at_once(self.kernels, y, feature, out, rgb, gain)
        else:
            x = self._resample(x * _maps(style, self.dtype), self.weight, None)
            x = torch.addcmul(_maps(self.bias[None], self.dtype), x, _maps(gain, self.dtype))
            self._join(x, feature, out)

    def _modulated_weights(
        self,
        x: Tensor,
        feature: Tensor,
        style: Tensor,
        gain: Tensor,
        out: Tensor,
        rgb: variants.RgbSum | None,
    ) -> None:
        if self.kernel is not None:
            factors = torch.outer(style, gain)
        else:
            factors = torch.outer(gain.repeat(len(self.bias) // len(gain)), style)  # (O or 4 O, I)
        weight = (self.weight * factors[:, :, None, None]).to(self.dtype)
        if self.kernels is not None:
            return self._join_at_once(self.kernels, self._convolved(x, weight), feature, out, rgb)
        if self.kernel is not None:
            return self._join(self._resample(x, weight, self.bias), feature, out)
        scale = 2 if self.fold else 1
        for _, rows in _tiles(x, len(self.bias)):
            y = _convolve(x, rows, weight, self.bias, 1, 1)  # (1, O or 4 O, rows, W)
            y = _interleave(y) if self.fold else y
            written = slice(rows.start * scale, rows.stop * scale)
            self._join(y, feature[:, :, written], out[:, written])
        return None

    def _convolved(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the bare convolution: no bias, no blur, phases not interleaved."""
        if self.kernel is None:
            return nn.functional.conv2d(x, weight, padding=1)
        return nn.functional.conv_transpose2d(x, weight, stride=2)

    def _resample(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.kernel is None:
            return nn.functional.conv2d(x, weight, bias, padding=1)
        return ops.blur(self._convolved(x, weight), self.kernel, padding=1, bias=bias)

    def _join_at_once(
        self,
        kernels: variants.Kernels,
        y: Tensor,
        feature: Tensor,
        out: Tensor,
        rgb: variants.RgbSum | None,
        gain: Tensor | None = None,
    ) -> None:
        kernels.join(
            y,
            feature,
            out,
            bias=self.bias,
            feature_bias=self.feature_bias,
            feature_gain=self.feature_gain,
            gain=gain,
            blur=None if self.kernel is None else self.kernel[0, 0],
            folded=self.fold,
            rgb=rgb,
        )

    def _join(self, x: Tensor, feature: Tensor, out: Tensor) -> None:
        """Concatenate `x`, bias included, and `feature`, both (B, O, H, W), and activate them."""
        # Whole rows: with 16 channels a broadcast over channels alone costs four times as much.
        rows = feature.to(self.dtype).permute(0, 2, 3, 1).flatten(2)  # (B, H, W O)
        encoded = torch.add(self.feature_bias, rows, alpha=self.feature_gain)
        x = x.permute(0, 2, 3, 1)  # (B, H, W, O)
        torch.cat((x, encoded.view(x.shape)), dim=-1, out=out)
        nn.functional.leaky_relu_(out, ops.LEAKY_SLOPE)


class ToRGB(nn.Module):
    """RGB of one level added to the upsampled image of the level before, in float32.

    Args:
        layer: The layer of `network.GPEN`.
        dtype: Type of the maps.
    """

    weight: Tensor
    bias: Tensor
    kernel: Tensor | None

    def __init__(self, layer: network.ToRGB, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.register_buffer("weight", layer.conv.weight[0, :, :, 0, 0] * layer.conv.scale)
        self.register_buffer("bias", layer.bias.flatten().clone())
        kernel = None if layer.upsample is None else layer.upsample.per_channel().clone()
        self.register_buffer("kernel", kernel)

    def forward(self, x: Tensor, style: Tensor, image: Tensor) -> Tensor:
        """Return the RGB image of this level.

        Args:
            x: (B, I, H, W) maps of the level.
            style: (B, I) float32 scale of each input channel.
            image: (B, 3, H / 2, W / 2) float32 image of the level before; the first level does not
                read it.

        Returns:
            (B, 3, H, W) float32.
        """
        largest = _largest(style)  # (B, 1)
        weight = (self.weight * (style / largest)[:, None]).to(self.dtype)  # (B, 3, I)
        if self.kernel is not None:
            out = ops.upsample(image, self.kernel, self.bias)
        else:
            shape = (len(x), *x.shape[2:], 3)
            out = self.bias.expand(shape).contiguous().permute(0, 3, 1, 2)
        for images, rows in _tiles(x, x.shape[1]):
            pixels = x[images, :, rows].permute(0, 2, 3, 1).flatten(1, 2)  # (b, H W, I)
            rgb = (pixels @ weight[images].transpose(1, 2)).float() * largest[images, None]
            part = out[images, :, rows].permute(0, 2, 3, 1)  # (b, rows, W, 3)
            part += rgb.view(part.shape)
        return out

    def operands(self, shape: Sequence[int], style: Tensor, image: Tensor) -> variants.RgbSum:
        """Return the operands with which `Kernels.join` computes the result of `forward`.

        Args:
            shape: (B, O, H, W) of the level's encoder features.
            style: (B, 2 O) float32 scale of each input channel.
            image: (B, 3, H / 2, W / 2) float32 image of the level before; the first level does not
                read it.

        Returns:
            The operands, and new memory for the result.
        """
        batch, _, height, width = shape
        room = torch.empty((batch, height, width, 3), dtype=torch.float32, device=style.device)
        kernel = None if self.kernel is None else self.kernel[0, 0]
        weight = self.weight * style[:, None]
        return variants.RgbSum(weight, self.bias, kernel, image, room.permute(0, 3, 1, 2))


def _convolve(
    x: Tensor, rows: slice, weight: Tensor, bias: Tensor, stride: int, padding: int
) -> Tensor:
    """Return `rows` of the convolution of `x` (B, I, H, W); reads only the rows it needs."""
    above = max(rows.start * stride - padding, 0)
    below = (rows.stop - 1) * stride - padding + weight.shape[2]
    x = x[:, :, above:below]
    x = x.to(weight.dtype).contiguous(memory_format=torch.channels_last)
    y = nn.functional.conv2d(x, weight, bias, stride, padding)
    cut = rows.start - above // stride  # rows that read padding instead of their neighbors
    return y[:, :, cut : cut + rows.stop - rows.start]


def _tiles(like: Tensor, channels: int) -> Iterator[tuple[slice, slice]]:
    """Yield the images and rows of `like` (B, _, H, W) that are computed at a time."""
    batch, _, height, width = like.shape
    rows = max(STRIP_ELEMENTS // (width * channels), 8)
    if like.device.type != "cpu":
        yield slice(0, batch), slice(0, height)
        return
    for b in range(batch):
        for top in range(0, height, rows):
            yield slice(b, b + 1), slice(top, min(top + rows, height))


def _interleave(y: Tensor) -> Tensor:
    """Interleave the four phases `y` (1, 4 O, H, W) of doubled maps to (1, O, 2 H, 2 W)."""
    y = y.permute(0, 2, 3, 1)  # (1, H, W, 4 O)
    _, height, width, channels = y.shape
    y = y.reshape(1, height, width, 2, channels // 2).transpose(2, 3)  # (1, H, 2, W, 2 O)
    return y.reshape(1, 2 * height, 2 * width, channels // 4).permute(0, 3, 1, 2)


def _largest(style: Tensor) -> Tensor:  # (B, I) -> (B, 1)
    return style.abs().amax(1, keepdim=True).clamp_min(SMALLEST_STYLE)


def _maps(x: Tensor, dtype: torch.dtype) -> Tensor:  # (B, C) -> (B, C, 1, 1)
    return x.to(dtype)[:, :, None, None]


def _channels_last(weight: Tensor, dtype: torch.dtype) -> Tensor:
    return weight.to(dtype, copy=True).contiguous(memory_format=torch.channels_last)

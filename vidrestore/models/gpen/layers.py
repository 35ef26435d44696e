"""The layers of `InferenceGPEN`. Each replaces one or several layers of `models.gpen.network`."""

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from vidrestore.models.gpen import network, ops, variants
from vidrestore.models.gpen.winograd import WinogradConv

MODULATE_WEIGHTS_FROM = 64  # smallest side of the result, in pixels
# Of a strip of a result on the CPU: few enough for the cache, enough to hide the cost of a call.
STRIP_ELEMENTS = 2**21
Part = tuple[slice, slice, slice, Tensor]
"""Images, rows and columns of a result, and (B, O, rows, columns) of it."""
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
        if self.kernels is not None:
            if self.kernel is not None:
                x = ops.blur(x.to(self.kernel.dtype), self.kernel, padding=2)
            x = x.to(self.weight.dtype).contiguous(memory_format=torch.channels_last)
            y = nn.functional.conv2d(x, self.weight, None, self.stride, self.padding)
            return self.kernels.activate(y, self.bias, out)
        for images, rows in _strips(out, out.shape[1]):
            y = self._convolved(x[images], rows)
            torch.ops.aten.leaky_relu.out(y, ops.LEAKY_SLOPE, out=out[images, :, rows])
        return None

    def _convolved(self, x: Tensor, rows: slice) -> Tensor:
        """Return `rows` of the blurred and convolved `x` (B, I, H, W)."""
        if self.kernel is None:
            return _convolve(x, rows, self.weight, self.bias, self.stride, self.padding)
        x, cut = _read(x, 2 * rows.start - 2, 2 * rows.stop + 2, self.kernel.dtype)
        x = nn.functional.conv2d(x, self.kernel, padding=(cut, 2), groups=len(self.kernel))
        return nn.functional.conv2d(x.to(self.weight.dtype), self.weight, self.bias, self.stride)


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
        self.winograd = None
        if conv.blur is None and dtype == torch.float32 and side in form.winograd_sides:
            self.winograd = WinogradConv(weight)
            weight = torch.empty(0, 0, 3, 3)  # the transformed one replaces it
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
        if self.kernels is not None:
            return self._by_kernels(self.kernels, x, feature, style, gain, out, rgb)
        for images, rows, columns, y in self._parts(x, style, gain):
            self._join(y, feature[images, :, rows, columns], out[images, rows, columns])
        return None

    def _parts(self, x: Tensor, style: Tensor, gain: Tensor) -> Iterator[Part]:
        """Yield the parts of the convolution of `x` (B, I, H, W), demodulated, with bias."""
        if not self.modulate_weights and self.winograd is None:
            x = self._resample(x * _maps(style, self.dtype), self.weight, None)
            x = torch.addcmul(_maps(self.bias[None], self.dtype), x, _maps(gain, self.dtype))
            yield slice(None), slice(None), slice(None), x
            return
        for b in range(len(x)):
            image = slice(b, b + 1)
            if self.winograd is not None:
                for rows, columns, y in self.winograd(x[b], style[b], gain[b], self.bias):
                    yield image, rows, columns, y[None]
                continue
            weight = self._modulated(style[b], gain[b])
            scale = 2 if self.fold or self.kernel is not None else 1
            for _, rows in _strips(x, gain.shape[1] * scale**2):
                y = self._strip(x[image], rows, weight)
                yield image, slice(rows.start * scale, rows.stop * scale), slice(None), y

    def _modulated(self, style: Tensor, gain: Tensor) -> Tensor:
        """Return the weight for one image, modulated and demodulated."""
        if self.kernel is not None:
            factors = torch.outer(style, gain)
        else:
            factors = torch.outer(gain.repeat(len(self.bias) // len(gain)), style)  # (O or 4 O, I)
        return (self.weight * factors[:, :, None, None]).to(self.dtype)

    def _strip(self, x: Tensor, rows: slice, weight: Tensor) -> Tensor:
        """Return the result that belongs to `rows` of `x` (1, I, H, W); twice as many with `up`."""
        if self.kernel is None:
            y = _convolve(x, rows, weight, self.bias, 1, 1)  # (1, O or 4 O, rows, W)
            return _interleave(y) if self.fold else y
        x, cut = _read(x, rows.start - 1, rows.stop + 1, self.dtype)
        # The blur reads one row of the transposed convolution above the rows that it gives, and two
        # below them. The rows of `x` complete the sum of each row that the blur reads.
        y = nn.functional.conv_transpose2d(x, weight, stride=2, padding=(1 - cut, 0))
        return nn.functional.conv2d(
            y, self.kernel, self.bias, padding=(cut, 1), groups=len(self.bias)
        )

    def _by_kernels(
        self,
        kernels: variants.Kernels,
        x: Tensor,
        feature: Tensor,
        style: Tensor,
        gain: Tensor,
        out: Tensor,
        rgb: variants.RgbSum | None,
    ) -> None:
        if not self.modulate_weights:
            y = self._convolved(x * _maps(style, self.dtype), self.weight)
            return self._join_at_once(kernels, y, feature, out, rgb, gain)
        for b in range(len(x)):
            one = slice(b, b + 1)
            y = self._convolved(x[one], self._modulated(style[b], gain[b]))
            part = None if rgb is None else rgb.for_images(one)
            self._join_at_once(kernels, y, feature[one], out[one], part)
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
        encoded = torch.add(self.feature_bias[: rows.shape[-1]], rows, alpha=self.feature_gain)
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
        for images, rows in _strips(x, x.shape[1]):
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
    """Return `rows` of the convolution of `x` (B, I, H, W)."""
    above = rows.start * stride - padding
    x, cut = _read(x, above, (rows.stop - 1) * stride - padding + weight.shape[2], weight.dtype)
    return nn.functional.conv2d(x, weight, bias, stride, (cut, padding))


def _read(x: Tensor, start: int, stop: int, dtype: torch.dtype) -> tuple[Tensor, int]:
    """Return rows of `x` (B, I, H, W), and how many rows of zeros belong above and below them.

    Rows beyond the border are zeros. They are left to the convolution that reads the rows where as
    many are needed above as below, which saves a copy.
    """
    above, below = max(-start, 0), max(stop - x.shape[2], 0)
    x = x[:, :, max(start, 0) : stop]
    x = x.to(dtype).contiguous(memory_format=torch.channels_last)
    if above == below:
        return x, above
    return nn.functional.pad(x, (0, 0, above, below)), 0


def _strips(like: Tensor, channels: int) -> Iterator[tuple[slice, slice]]:
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

"""The pointwise operations around GPEN's convolutions as Triton kernels: one pass over the maps.

This module imports Triton, so other modules import it only where they use Triton. `tl.sum` and sums
of taps run in float32. A result is rounded once when it is stored, while torch rounds after each
operation.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from vidrestore.models.gpen import ops
from vidrestore.models.gpen.variants import RgbSum

TILE_ELEMENTS = 2048  # of a program of `_join`: pixels times channels
BLOCK_ELEMENTS = 1024  # of a program of `_activate`
# What `y` holds: the maps themselves, their four phases, or maps that are still to be blurred.
PLAIN, PHASES, TO_BLUR = 0, 1, 2


class TritonKernels:
    """Implements `variants.Kernels` in Triton. The sides of all maps must be powers of two."""

    def activate(self, y: Tensor, bias: Tensor, out: Tensor) -> None:
        """Write leaky_relu(y + bias), with slope 0.2, into `out`.

        Args:
            y: (B, O, H, W) result of a convolution, on a CUDA device.
            bias: (O,) on the same device.
            out: (B, O, H, W), channels last in memory.
        """
        y = y.contiguous(memory_format=torch.channels_last)
        elements = y.numel()
        with torch.cuda.device_of(y):
            _activate[(triton.cdiv(elements, BLOCK_ELEMENTS),)](
                y, bias, out, elements, y.shape[1], BLOCK_ELEMENTS, ops.LEAKY_SLOPE
            )

    def join(
        self,
        y: Tensor,
        feature: Tensor,
        out: Tensor,
        *,
        bias: Tensor,
        feature_bias: Tensor,
        feature_gain: float,
        gain: Tensor | None = None,
        blur: Tensor | None = None,
        folded: bool = False,
        rgb: RgbSum | None = None,
    ) -> None:
        """Write the activations of a convolution's result and of encoder features into `out`.

        Args:
            y: (B, O, H, W) result of the convolution, without bias, on a CUDA device. With `folded`
                it is (B, 4 O, H / 2, W / 2), see `ops.phases`. With `blur` it is
                (B, O, H + 1, W + 1).
            feature: (B, O, H, W) encoder features, channels last in memory.
            out: (B, H, W, 2 O), contiguous.
            bias: A vector whose first O values are the bias of `y`.
            feature_bias: A vector whose first O values are the bias of `feature`.
            feature_gain: Factor of `feature`.
            gain: (B, O) factors of `y`; None for 1.
            blur: (4, 4) filter that is still to be applied to `y`, with padding 1; None for none.
            folded: True where `y` holds the four phases of the maps.
            rgb: The level's RGB image, which is then computed, too; None for none.
        """
        batch, height, width, channels = *out.shape[:3], out.shape[3] // 2
        source = PHASES if folded else PLAIN if blur is None else TO_BLUR
        padded = triton.next_power_of_2(channels)
        # Both counts are powers of two, so that the pixels of a program belong to one image.
        pixels = min(max(TILE_ELEMENTS // padded, 1), height * width)
        unused = bias
        with torch.cuda.device_of(y):
            _join[(batch * height * width // pixels,)](
                y.contiguous(memory_format=torch.channels_last),
                unused if gain is None else gain,
                bias,
                feature,
                feature_bias,
                out,
                unused if blur is None else blur,
                unused if rgb is None else rgb.weight,
                unused if rgb is None else rgb.bias,
                unused if rgb is None or rgb.kernel is None else rgb.kernel,
                unused if rgb is None or rgb.kernel is None else rgb.before,
                unused if rgb is None else rgb.out,
                height,
                width,
                feature_gain,
                channels,
                padded,
                pixels,
                source,
                gain is not None,
                rgb is not None,
                rgb is not None and rgb.kernel is not None,
                ops.LEAKY_SLOPE,
            )


@triton.jit
def _activate(y, bias, out, elements, channels, BLOCK: tl.constexpr, SLOPE: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < elements
    x = tl.load(y + i, mask=mask, other=0.0).to(tl.float32)
    x += tl.load(bias + i % channels, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + i, tl.where(x >= 0, x, x * SLOPE).to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["height", "width", "feature_gain"])
def _join(
    y,
    gain,
    bias,
    feature,
    feature_bias,
    out,
    blur,
    rgb_weight,
    rgb_bias,
    rgb_kernel,
    rgb_before,
    rgb_out,
    height,
    width,
    feature_gain,
    O: tl.constexpr,  # noqa: E741
    PADDED: tl.constexpr,
    PIXELS: tl.constexpr,
    SOURCE: tl.constexpr,
    HAS_GAIN: tl.constexpr,
    HAS_RGB: tl.constexpr,
    HAS_BEFORE: tl.constexpr,
    SLOPE: tl.constexpr,
):
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)  # of the batch
    image = (tl.program_id(0) * PIXELS) // (height * width)
    within = pixel % (height * width)
    row, column = within // width, within % width
    o = tl.arange(0, PADDED)
    is_channel = o < O
    mask = (pixel >= 0)[:, None] & is_channel[None, :]

    if SOURCE == 1:
        offset = (image * (height // 2) + row // 2) * (width // 2) + column // 2
        offset = offset * 4 + (row % 2) * 2 + column % 2
        maps = tl.load(y + offset[:, None] * O + o[None, :], mask=mask, other=0.0).to(tl.float32)
    elif SOURCE == 2:
        maps = tl.zeros((PIXELS, PADDED), tl.float32)
        for tap in tl.static_range(16):
            source_row, source_column = row + (tap // 4 - 1), column + (tap % 4 - 1)
            inside = (
                (source_row >= 0)
                & (source_row <= height)
                & (source_column >= 0)
                & (source_column <= width)
            )
            offset = (image * (height + 1) + source_row) * (width + 1) + source_column
            address = y + offset[:, None] * O + o[None, :]
            weight = tl.load(blur + tap).to(tl.float32)
            maps += weight * tl.load(address, mask=mask & inside[:, None], other=0.0).to(tl.float32)
    else:
        maps = tl.load(y + pixel[:, None] * O + o[None, :], mask=mask, other=0.0).to(tl.float32)
    if HAS_GAIN:
        maps *= tl.load(gain + image * O + o, mask=is_channel, other=0.0).to(tl.float32)[None, :]
    maps += tl.load(bias + o, mask=is_channel, other=0.0).to(tl.float32)[None, :]
    maps = tl.where(maps >= 0, maps, maps * SLOPE).to(out.dtype.element_ty)

    encoded = tl.load(feature + pixel[:, None] * O + o[None, :], mask=mask, other=0.0).to(
        tl.float32
    )
    encoded *= feature_gain
    encoded += tl.load(feature_bias + o, mask=is_channel, other=0.0).to(tl.float32)[None, :]
    encoded = tl.where(encoded >= 0, encoded, encoded * SLOPE).to(out.dtype.element_ty)

    address = out + pixel[:, None] * (2 * O) + o[None, :]
    tl.store(address, maps, mask=mask)
    tl.store(address + O, encoded, mask=mask)

    if HAS_RGB:
        for c in tl.static_range(3):
            color_weight = rgb_weight + (image * 3 + c) * (2 * O) + o
            maps_weight = tl.load(color_weight, mask=is_channel, other=0.0)[None, :]
            feature_weight = tl.load(color_weight + O, mask=is_channel, other=0.0)[None, :]
            products = maps.to(tl.float32) * maps_weight + encoded.to(tl.float32) * feature_weight
            color = tl.sum(products, axis=1) + tl.load(rgb_bias + c)
            if HAS_BEFORE:
                # Sample 2 i + p is in[i] k[1 + p] + in[i - 1 + 2 p] k[3 - 3 p]; see ops.upsample.
                p, q = row % 2, column % 2
                for tap in tl.static_range(4):
                    i, j = row // 2, column // 2
                    a, b = 1 + p, 1 + q
                    if tap // 2 == 1:
                        i, a = i - 1 + 2 * p, 3 - 3 * p
                    if tap % 2 == 1:
                        j, b = j - 1 + 2 * q, 3 - 3 * q
                    inside = (i >= 0) & (i < height // 2) & (j >= 0) & (j < width // 2)
                    offset = (image * (height // 2) + i) * (width // 2) + j
                    value = tl.load(rgb_before + offset * 3 + c, mask=inside, other=0.0)
                    color += tl.load(rgb_kernel + a * 4 + b) * value
            tl.store(rgb_out + pixel * 3 + c, color)

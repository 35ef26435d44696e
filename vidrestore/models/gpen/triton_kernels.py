"""The pointwise work around GPEN's convolutions as Triton kernels: one pass over what they give.

This module imports Triton and is itself imported only where that is wanted.  `tl.sum` and sums of
taps run in float32; what is stored is rounded once, where torch rounds after each operation.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from vidrestore.models.gpen import ops
from vidrestore.models.gpen.variants import RgbSum

TILE_ELEMENTS = 2048  # of a program: pixels times channels
BLOCK_ELEMENTS = 1024
AS_IT_IS, PHASES, TO_BLUR = 0, 1, 2  # what a convolution has left


class TritonKernels:
    """Keeps the contract of `forms.Kernels`; the sides must be powers of two."""

    def activate(self, y: Tensor, bias: Tensor, out: Tensor) -> None:
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
        batch, height, width, channels = *out.shape[:3], out.shape[3] // 2
        source = PHASES if folded else AS_IT_IS if blur is None else TO_BLUR
        padded = triton.next_power_of_2(channels)
        # A program's pixels are of one image, since both counts are powers of two.
        pixels = min(max(TILE_ELEMENTS // padded, 1), height * width)
        nothing = bias
        with torch.cuda.device_of(y):
            _join[(batch * height * width // pixels,)](
                y.contiguous(memory_format=torch.channels_last),
                nothing if gain is None else gain,
                bias,
                feature,
                feature_bias,
                out,
                nothing if blur is None else blur,
                nothing if rgb is None else rgb.weight,
                nothing if rgb is None else rgb.bias,
                nothing if rgb is None or rgb.kernel is None else rgb.kernel,
                nothing if rgb is None or rgb.kernel is None else rgb.before,
                nothing if rgb is None else rgb.out,
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
    here = i < elements
    x = tl.load(y + i, mask=here, other=0.0).to(tl.float32)
    x += tl.load(bias + i % channels, mask=here, other=0.0).to(tl.float32)
    tl.store(out + i, tl.where(x >= 0, x, x * SLOPE).to(out.dtype.element_ty), mask=here)


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
    here = (pixel >= 0)[:, None] & is_channel[None, :]

    if SOURCE == 1:
        place = (image * (height // 2) + row // 2) * (width // 2) + column // 2
        place = place * 4 + (row % 2) * 2 + column % 2
        own = tl.load(y + place[:, None] * O + o[None, :], mask=here, other=0.0).to(tl.float32)
    elif SOURCE == 2:
        own = tl.zeros((PIXELS, PADDED), tl.float32)
        for tap in tl.static_range(16):
            above, left = row + (tap // 4 - 1), column + (tap % 4 - 1)
            seen = (above >= 0) & (above <= height) & (left >= 0) & (left <= width)
            place = (image * (height + 1) + above) * (width + 1) + left
            there = y + place[:, None] * O + o[None, :]
            weight = tl.load(blur + tap).to(tl.float32)
            own += weight * tl.load(there, mask=here & seen[:, None], other=0.0).to(tl.float32)
    else:
        own = tl.load(y + pixel[:, None] * O + o[None, :], mask=here, other=0.0).to(tl.float32)
    if HAS_GAIN:
        own *= tl.load(gain + image * O + o, mask=is_channel, other=0.0).to(tl.float32)[None, :]
    own += tl.load(bias + o, mask=is_channel, other=0.0).to(tl.float32)[None, :]
    own = tl.where(own >= 0, own, own * SLOPE).to(out.dtype.element_ty)

    beside = tl.load(feature + pixel[:, None] * O + o[None, :], mask=here, other=0.0).to(tl.float32)
    beside *= feature_gain
    beside += tl.load(feature_bias + o, mask=is_channel, other=0.0).to(tl.float32)[None, :]
    beside = tl.where(beside >= 0, beside, beside * SLOPE).to(out.dtype.element_ty)

    there = out + pixel[:, None] * (2 * O) + o[None, :]
    tl.store(there, own, mask=here)
    tl.store(there + O, beside, mask=here)

    if HAS_RGB:
        for c in tl.static_range(3):
            of_color = rgb_weight + (image * 3 + c) * (2 * O) + o
            to_own = tl.load(of_color, mask=is_channel, other=0.0)[None, :]
            to_beside = tl.load(of_color + O, mask=is_channel, other=0.0)[None, :]
            products = own.to(tl.float32) * to_own + beside.to(tl.float32) * to_beside
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
                    seen = (i >= 0) & (i < height // 2) & (j >= 0) & (j < width // 2)
                    place = (image * (height // 2) + i) * (width // 2) + j
                    value = tl.load(rgb_before + place * 3 + c, mask=seen, other=0.0)
                    color += tl.load(rgb_kernel + a * 4 + b) * value
            tl.store(rgb_out + pixel * 3 + c, color)

"""The operations that GPEN consists of: FIR resampling, equalized weights, modulation.

SG1 is Karras et al. 2019 (StyleGAN, arXiv:1812.04948), SG2 is Karras et al. 2020 (StyleGAN2,
arXiv:1912.04958), PG is Karras et al. 2018 (Progressive GAN, arXiv:1710.10196).
"""

import math

import torch
from torch import Tensor, nn

LEAKY_SLOPE = 0.2
LEAKY_GAIN = math.sqrt(2)  # nearly keeps unit variance behind a leaky ReLU of slope 0.2
DEMODULATION_EPS = 1e-8
PIXEL_NORM_EPS = 1e-8


def fir_kernel(gain: float = 1.0) -> Tensor:
    """Return the 4 x 4 low-pass filter, the outer product of [1, 3, 3, 1] with itself.

    The filter is that of SG1, appendix B.

    Args:
        gain: Sum of the filter's taps; 1.0 keeps the mean of an image, 4.0 suits `upsample`.

    Returns:
        (4, 4) float32 on the CPU.

    Convention:
        (row, column) order; the filter is symmetric. Its center lies between the taps 1 and 2.
    """
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device="cpu")
    return torch.outer(taps, taps) * (gain / taps.sum() ** 2)


def blur(x: Tensor, kernel: Tensor, padding: int, bias: Tensor | None = None) -> Tensor:
    """Filter each channel of a batch of maps with a low-pass of its own.

    Args:
        x: (B, C, H, W) maps, of a floating-point type.
        kernel: (C, 1, 4, 4) symmetric filters of the same type, one for each channel.
        padding: Rows and columns of zeros on each side of the maps.
        bias: (C,) added to each channel of the result; None adds nothing.

    Returns:
        (B, C, H + 2 * padding - 3, W + 2 * padding - 3) maps of the same type.

    Convention:
        (row, column) order. Sample i of the result is the sum over t of
        kernel[t] * x[i + t - padding], where x is zero beyond its border.
    """
    return nn.functional.conv2d(x, kernel, bias, padding=padding, groups=kernel.shape[0])


def upsample(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """Double the sides of a batch of maps: insert zeros between samples, then filter.

    Args:
        x: (B, C, H, W) maps, of a floating-point type.
        kernel: (C, 1, 4, 4) symmetric filters of the same type. Each sums to 4, so that a constant
            stays constant away from the border.
        bias: (C,) added to each channel of the result; None adds nothing.

    Returns:
        (B, C, 2 H, 2 W) maps of the same type.

    Convention:
        (row, column) order; pixel centers at (i + 0.5) / 2 - 0.5 of the source. Beyond the border
        the maps are zero, which differs there from bilinear interpolation.
    """
    groups = kernel.shape[0]
    return nn.functional.conv_transpose2d(x, kernel, bias, stride=2, padding=1, groups=groups)


def pixel_norm(x: Tensor) -> Tensor:
    """Scale each vector to a mean square of one (PG, section 4.2).

    Args:
        x: (B, C) vectors, of a floating-point type.

    Returns:
        (B, C) vectors of the same type.
    """
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + PIXEL_NORM_EPS)


def biased_leaky_relu(x: Tensor, bias: Tensor) -> Tensor:
    """Return sqrt(2) * leaky_relu(x + bias), with slope 0.2.

    Args:
        x: (B, C, ...) values, of a floating-point type.
        bias: (C,) of the same type, added along dimension 1.

    Returns:
        A tensor of the shape and type of `x`.
    """
    shape = (1, -1) + (1,) * (x.dim() - 2)
    return nn.functional.leaky_relu(x + bias.view(shape), LEAKY_SLOPE) * LEAKY_GAIN


def demodulation(styles: Tensor, energy: Tensor, eps: float | Tensor = DEMODULATION_EPS) -> Tensor:
    """Return the factors that scale each output map back to unit variance (SG2, eq. 3).

    Eq. 3 sums (s_i w_ijk)^2 over i and k. The style s does not depend on k, so the caller sums over
    k once and passes the result as `energy`.

    Args:
        styles: (B, I) scale of each input channel.
        energy: (O, I) sum over k of the squared weights w_ijk^2.
        eps: Added under the square root, against division by zero; a number or (B, 1). Default
            1e-8.

    Returns:
        (B, O) factors.
    """
    return torch.rsqrt(styles.square() @ energy.T + eps)


def convolve_kernels(weight: Tensor, kernel: Tensor) -> Tensor:
    """Merge a 3 x 3 convolution and a 4 x 4 blur into one 6 x 6 convolution.

    The result is exact up to rounding, since both operations are linear. A blur of padding 2 and a
    convolution of stride 2 become a convolution of stride 2 and padding 2. A transposed convolution
    of stride 2 and a blur of padding 1 become a transposed convolution of stride 2 and padding 2.

    Args:
        weight: (O, I, 3, 3) weights of the convolution.
        kernel: (4, 4) blur filter.

    Returns:
        (O, I, 6, 6) weights of the merged convolution.

    Convention:
        (row, column) order. Convolutions are cross-correlations, as in torch. Beyond the border the
        maps are zero.
    """
    out_channels, in_channels, height, width = weight.shape
    planes = weight.reshape(out_channels * in_channels, 1, height, width)
    full = nn.functional.conv2d(planes, kernel.flip(0, 1)[None, None], padding=kernel.shape[-1] - 1)
    return full.reshape(out_channels, in_channels, *full.shape[-2:])


def phases(weight: Tensor) -> Tensor:
    """Turn a transposed convolution of stride 2 and padding 2 into a plain 3 x 3 convolution.

    Sample 2 i + p of the result (p = 0, 1) is sum_j x[j] w[2 i + p + 2 - 2 j]; with j = i - 1 + t
    tap t of phase p is w[p + 4 - 2 t].

    Args:
        weight: (O, I, 6, 6) weights of the transposed convolution.

    Returns:
        (4 O, I, 3, 3) weights of a convolution of stride 1 and padding 1. Its maps are the four
        phases of the doubled maps, ordered by row phase, column phase, O.

    Convention:
        (row, column) order. Phase (p, q) holds the samples (2 i + p, 2 j + q) of the doubled maps.
        Beyond the border the maps are zero.
    """
    taps = weight.reshape(*weight.shape[:2], 3, 2, 3, 2)  # (O, I, t_y, p_y, t_x, p_x)
    return taps.flip(2, 4).permute(3, 5, 0, 1, 2, 4).flatten(0, 2)

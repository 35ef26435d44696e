"""The few operations GPEN is made of: FIR resampling, equalised weights, modulation.

SG1 is Karras et al. 2019 (StyleGAN, arXiv:1812.04948), SG2 is Karras et al. 2020 (StyleGAN2,
arXiv:1912.04958), PG is Karras et al. 2018 (Progressive GAN, arXiv:1710.10196).
"""

import math

import torch
from torch import Tensor, nn

LEAKY_SLOPE = 0.2
LEAKY_GAIN = math.sqrt(2)  # keeps unit variance behind a leaky ReLU of slope 0.2, almost
DEMODULATION_EPS = 1e-8
PIXEL_NORM_EPS = 1e-8


def fir_kernel(gain: float = 1.0) -> Tensor:
    """Return the 4 x 4 low-pass [1, 3, 3, 1] (x) [1, 3, 3, 1] whose sum is `gain` (SG1, app. B)."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) * (gain / taps.sum() ** 2)


def blur(x: Tensor, kernel: Tensor, padding: int, bias: Tensor | None = None) -> Tensor:
    """Filter each channel of `x` (B, C, H, W) with its symmetric `kernel` (C, 1, 4, 4)."""
    return nn.functional.conv2d(x, kernel, bias, padding=padding, groups=kernel.shape[0])


def upsample(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """Double the sides of `x` (B, C, H, W): zeros between samples, then `kernel` (C, 1, 4, 4).

    The kernel sums to 4, so that a constant stays itself away from the border; at the border the
    outside is zero, which bilinear interpolation would not give.
    """
    groups = kernel.shape[0]
    return nn.functional.conv_transpose2d(x, kernel, bias, stride=2, padding=1, groups=groups)


def pixel_norm(x: Tensor) -> Tensor:
    """Scale each vector (B, C) to unit mean square (PG, section 4.2)."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + PIXEL_NORM_EPS)


def biased_leaky_relu(x: Tensor, bias: Tensor) -> Tensor:
    """Return sqrt(2) * leaky_relu(x + bias), the bias on channels (dimension 1)."""
    shape = (1, -1) + (1,) * (x.dim() - 2)
    return nn.functional.leaky_relu(x + bias.view(shape), LEAKY_SLOPE) * LEAKY_GAIN


def demodulation(styles: Tensor, energy: Tensor, eps: float | Tensor = DEMODULATION_EPS) -> Tensor:
    """Return what scales each output map back to unit variance (SG2, eq. 3).

    Eq. 3 sums (s_i w_ijk)^2 over i and k; s does not depend on k, so the sum over k is taken once:
    `energy` (O, I) = sum_k w_ijk^2.  `styles` is (B, I), the result (B, O).
    """
    return torch.rsqrt(styles.square() @ energy.T + eps)


def convolve_kernels(weight: Tensor, kernel: Tensor) -> Tensor:
    """Merge a 3 x 3 convolution (O, I, 3, 3) and a 4 x 4 blur into one kernel (O, I, 6, 6).

    Exact, both being linear.  Blur (padding 2), then convolution of stride 2, become a convolution
    of stride 2 and padding 2; transposed convolution of stride 2, then blur (padding 1), become a
    transposed convolution of stride 2 and padding 2.
    """
    out_channels, in_channels, height, width = weight.shape
    planes = weight.reshape(out_channels * in_channels, 1, height, width)
    full = nn.functional.conv2d(planes, kernel.flip(0, 1)[None, None], padding=kernel.shape[-1] - 1)
    return full.reshape(out_channels, in_channels, *full.shape[-2:])


def phases(weight: Tensor) -> Tensor:
    """Turn a transposed convolution of stride 2 and padding 2 into a plain 3 x 3 one.

    Sample 2 i + p of the result (p = 0, 1) is sum_j x[j] w[2 i + p + 2 - 2 j]; with j = i - 1 + t
    tap t of phase p is w[p + 4 - 2 t].  `weight` is (O, I, 6, 6), the result (4 O, I, 3, 3), maps
    ordered by row phase, column phase, O.
    """
    taps = weight.reshape(*weight.shape[:2], 3, 2, 3, 2)  # (O, I, t_y, p_y, t_x, p_x)
    return taps.flip(2, 4).permute(3, 5, 0, 1, 2, 4).flatten(0, 2)

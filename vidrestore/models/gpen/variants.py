"""The variants of a prepared GPEN: equal results, computed in the way that suits the machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class RgbSum:
    """One level of the path to RGB: the operands of the sum, and the memory for its result."""

    weight: Tensor
    """(B, 3, 2 O) float32 weights of the 1 x 1 convolution to RGB, already modulated."""
    bias: Tensor
    """(3,) float32 bias of the RGB channels."""
    kernel: Tensor | None
    """(4, 4) float32 filter that upsamples `before`; None at the first level, which upsamples no
    image."""
    before: Tensor
    """(B, 3, H / 2, W / 2) float32 RGB image of the level before, channels last in memory. It is
    not read where `kernel` is None."""
    out: Tensor
    """(B, 3, H, W) float32 memory for the RGB image of this level, channels last in memory."""

    def for_images(self, images: slice) -> RgbSum:
        """Return the sum for a part of the batch.

        Args:
            images: Images of the batch, as a slice of its first dimension.

        Returns:
            A sum whose tensors are views of this one's.
        """
        before = self.before if self.kernel is None else self.before[images]
        return replace(self, weight=self.weight[images], before=before, out=self.out[images])


class Kernels(Protocol):
    """Pointwise operations in one pass, with the results of the torch code in `layers`."""

    def activate(self, y: Tensor, bias: Tensor, out: Tensor) -> None:
        """Write leaky_relu(y + bias), with slope 0.2, into `out`.

        Args:
            y: (B, O, H, W) result of a convolution.
            bias: (O,) of the same type.
            out: (B, O, H, W), channels last in memory.
        """
        ...

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

        The first O channels of `out` become leaky_relu(gain * y + bias), and the others
        leaky_relu(feature_gain * feature + feature_bias), with slope 0.2.

        Args:
            y: (B, O, H, W) result of the convolution, without bias. With `folded` it is
                (B, 4 O, H / 2, W / 2), see `ops.phases`. With `blur` it is (B, O, H + 1, W + 1).
            feature: (B, O, H, W) encoder features, channels last in memory.
            out: (B, H, W, 2 O).
            bias: A vector whose first O values are the bias of `y`.
            feature_bias: A vector whose first O values are the bias of `feature`.
            feature_gain: Factor of `feature`.
            gain: (B, O) factors of `y`; None for 1.
            blur: (4, 4) filter that is still to be applied to `y`, with padding 1; None for none.
            folded: True where `y` holds the four phases of the maps.
            rgb: The level's RGB image, which is then computed, too; None for none.
        """
        ...


@dataclass(frozen=True, slots=True)
class InferenceForm:
    """The variant of a prepared GPEN: which blurs are folded, and what runs pointwise operations.

    Folding a blur merges it with the convolution next to it, see `ops.convolve_kernels`.
    """

    fold_up_from: int = 256
    """Smallest side, in pixels of the result, from which the decoder's blurs are folded. That
    takes four times the multiplications, and saves a pass over an intermediate result."""
    fold_down_from: int = 512
    """Smallest side, in pixels of the result, from which the encoder's blurs are folded."""
    kernels: Kernels | None = None
    """Runs the pointwise operations; None for torch, whose results define them."""
    winograd_sides: range = range(0)
    """Sides, in pixels of the result, at which `WinogradConv` runs the decoder's convolutions in
    float32. Default: none. It excludes `kernels`."""
    has_float64: bool = True
    """Whether the device computes in float64, as the mapping network does; else it does so in
    float32."""


PLAIN = InferenceForm()
WITHOUT_FLOAT64 = InferenceForm(has_float64=False)
"""For the devices of Apple, which lack float64, and those of Intel, some of which lack it."""
_NEVER = 2 * 4096  # px, above every side
X86 = InferenceForm(fold_up_from=_NEVER, fold_down_from=_NEVER, winograd_sides=range(32, 1025))
"""For processors with AVX2 or AVX-512 and no AMX, where multiplications take most of the time."""


def for_processor(dtype: torch.dtype) -> InferenceForm:
    """Return the variant that is the fastest on the CPU.

    Args:
        dtype: Type of the maps.

    Returns:
        A form that was measured with the instructions that torch uses here.
    """
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return PLAIN
    if dtype == torch.bfloat16 and has_matrix_units():
        return PLAIN
    return X86


def has_matrix_units() -> bool:
    """Return whether the processor has AMX, with which bfloat16 is much faster than float32."""
    return bool(capabilities().get("amx_bf16"))


def has_bfloat16() -> bool:
    """Return whether GPEN is faster in bfloat16 than in float32 on the processor.

    The instructions of AVX-512 for bfloat16 alone do not make it so: they multiply no faster than
    those for float32, and `WinogradConv` needs a quarter of the multiplications.
    """
    return has_matrix_units() or bool(capabilities().get("bf16"))


def is_faster_than_openvino(dtype: torch.dtype) -> bool:
    """Return whether torch runs GPEN on the CPU in less time than OpenVINO.

    Args:
        dtype: Type of convolutions and activations.

    Returns:
        True where `WinogradConv` runs, which OpenVINO has no equal of.
    """
    return dtype == torch.float32 and bool(for_processor(dtype).winograd_sides)


def capabilities() -> dict[str, object]:
    """Return what torch knows of the processor, by torch's names; empty if it cannot tell."""
    found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return found

"""Which of several ways to the same numbers a prepared GPEN takes, as the machine wants it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True)
class RgbSum:
    """What a styled convolution's result adds to the RGB image: one level of the skip path."""

    weight: Tensor
    """(B, 3, 2 O) float32, modulated."""
    bias: Tensor
    """(3,) float32."""
    kernel: Tensor | None
    """(4, 4) float32 by which `before` is upsampled; None at the first level, which has none."""
    before: Tensor
    """(B, 3, H / 2, W / 2) float32, channels last in memory; anything where `kernel` is None."""
    out: Tensor
    """(B, 3, H, W) float32, channels last in memory: room for the sum."""

    def of(self, images: slice) -> RgbSum:
        before = self.before if self.kernel is None else self.before[images]
        return replace(self, weight=self.weight[images], before=before, out=self.out[images])


class Kernels(Protocol):
    """Pointwise work done in one pass; what it gives is what `layers` does in torch."""

    def activate(self, y: Tensor, bias: Tensor, out: Tensor) -> None:
        """Write leaky_relu(y + bias) into `out`; both (B, O, H, W), channels last in memory."""
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
        """Write the activation of a convolution's result and of `feature` into `out`.

        `feature` is (B, O, H, W), `out` (B, H, W, 2 O).  `y`, of which nothing was added or
        filtered, is (B, O, H, W); with `folded` its four phases (B, 4 O, H / 2, W / 2), see
        `ops.phases`; with `blur` (4, 4) what that is still to filter, (B, O, H + 1, W + 1).  `gain`
        is (B, O), for `y`; `bias` begins with (O,) for it and `feature_bias` with (O,) for the
        feature.  With `rgb` its sum is made, too.
        """
        ...


@dataclass(frozen=True, slots=True)
class InferenceForm:
    """Where blurs are folded into convolutions, and what does the pointwise work.

    `fold_up_from` and `fold_down_from` are sides of results in pixels; without `kernels` torch does
    the pointwise work, which is the definition of it.
    """

    fold_up_from: int = 256
    fold_down_from: int = 512
    kernels: Kernels | None = None


PLAIN = InferenceForm()

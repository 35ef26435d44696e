"""The forms of GPEN's pointwise kernels: what each computes, and whether a device computes it.

`TorchKernels` defines the results. A kernel that is compiled for a device is compared with it, form
by form, before it is used, and a form that is wrong or fails is computed by torch.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vidrestore.models.gpen import ops, variants

_log = logging.getLogger("vidrestore")

# Of the largest value of a result: rounding differs by one step of the type where sums differ.
TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
# Of the operands for a comparison: several tiles of pixels, and a width that all sizes have.
_SIDE_PX, _CHANNELS, _BATCH = 32, 32, 2


class TorchKernels:
    """Implements `variants.Kernels` in torch, in float32, with one rounding of each result."""

    def activate(self, y: Tensor, bias: Tensor, out: Tensor) -> None:
        """Write leaky_relu(y + bias) into `out`; see `variants.Kernels`."""
        out.copy_(F.leaky_relu(y.float() + bias.float()[:, None, None], ops.LEAKY_SLOPE))

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
        rgb: variants.RgbSum | None = None,
    ) -> None:
        """Write both activations into `out`; see `variants.Kernels`."""
        batch, _, _, width = out.shape
        channels = width // 2
        for b in range(batch):  # one by one, since float32 takes twice the memory
            maps = y[b : b + 1].float()
            if folded:
                _, _, height, half_width = maps.shape
                maps = maps.view(2, 2, channels, height, half_width).permute(2, 3, 0, 4, 1)
                maps = maps.reshape(1, channels, 2 * height, 2 * half_width)
            if blur is not None:
                kernel = blur.float().expand(channels, 1, 4, 4)
                maps = F.conv2d(maps, kernel, padding=1, groups=channels)
            if gain is not None:
                maps = maps * gain[b].float()[:, None, None]
            maps = maps + bias[:channels].float()[:, None, None]
            encoded = feature[b : b + 1].float() * feature_gain
            encoded = encoded + feature_bias[:channels].float()[:, None, None]
            both = F.leaky_relu(torch.cat((maps, encoded), dim=1), ops.LEAKY_SLOPE)
            out[b].copy_(both[0].permute(1, 2, 0))
        if rgb is not None:
            colors = torch.einsum("bkc,bhwc->bkhw", rgb.weight, out.float())
            colors = colors + rgb.bias[:, None, None]
            if rgb.kernel is not None:
                kernel = rgb.kernel.expand(3, 1, 4, 4)
                colors = colors + ops.upsample(rgb.before, kernel)
            rgb.out.copy_(colors)


@dataclass(frozen=True, slots=True)
class KernelForm:
    """One form of a kernel, which is compiled by itself."""

    is_join: bool
    """Whether it is a form of `join`, else of `activate`."""
    source: str = "plain"
    """What `y` holds: "plain" maps, their "folded" phases, or maps that are still to be
    "blurred"."""
    has_gain: bool = False
    """Whether `y` has factors."""
    rgb: str = "none"
    """Whether the RGB image is computed, too: "none", "first" (of the smallest level) or "next"."""

    @property
    def name(self) -> str:
        """The name for messages."""
        if not self.is_join:
            return "activate"
        rgb = {"none": "", "first": ", RGB", "next": ", RGB added to that of the level before"}
        return f"join of {self.source} maps{', scaled' if self.has_gain else ''}{rgb[self.rgb]}"


FORMS = (
    KernelForm(False),
    KernelForm(True, "plain", has_gain=True, rgb="first"),
    KernelForm(True, "plain", has_gain=True, rgb="next"),
    KernelForm(True, "plain", rgb="next"),
    KernelForm(True, "blurred", has_gain=True),
    KernelForm(True, "blurred"),
    KernelForm(True, "folded"),
)
"""All forms that the layers of `InferenceGPEN` use."""


class CheckedKernels:
    """Implements `variants.Kernels`: each form by kernels that were found right, else by torch.

    Args:
        kernels: The kernels of the device.
        right: The forms in which they gave the result of torch.
    """

    def __init__(self, kernels: variants.Kernels, right: frozenset[KernelForm]) -> None:
        self._kernels, self._torch, self.right = kernels, TorchKernels(), right

    def activate(self, y: Tensor, bias: Tensor, out: Tensor) -> None:
        """Write leaky_relu(y + bias) into `out`; see `variants.Kernels`."""
        self._for(KernelForm(False)).activate(y, bias, out)

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
        rgb: variants.RgbSum | None = None,
    ) -> None:
        """Write both activations into `out`; see `variants.Kernels`."""
        source = "folded" if folded else "plain" if blur is None else "blurred"
        kind = "none" if rgb is None else "first" if rgb.kernel is None else "next"
        form = KernelForm(True, source, has_gain=gain is not None, rgb=kind)
        self._for(form).join(
            y, feature, out, bias=bias, feature_bias=feature_bias, feature_gain=feature_gain,
            gain=gain, blur=blur, folded=folded, rgb=rgb,
        )  # fmt: skip

    def _for(self, form: KernelForm) -> variants.Kernels:
        return self._kernels if form in self.right else self._torch


def relative_error(
    kernels: variants.Kernels, form: KernelForm, device: torch.device, dtype: torch.dtype
) -> float:
    """Compare the results of a form with torch's, on made-up operands.

    Args:
        kernels: The kernels of the device.
        form: The form.
        device: The device.
        dtype: The type of the maps.

    Returns:
        The largest difference, as a share of the largest value; infinite where one is not finite.

    Raises:
        Exception: Whatever the compiler or the driver raises.
    """
    worst = 0.0
    pairs = zip(
        _results(kernels, form, device, dtype), _results(TorchKernels(), form, device, dtype),
        strict=True,
    )  # fmt: skip
    for got, wanted in pairs:
        error = float((got.float() - wanted.float()).abs().max() / wanted.float().abs().max())
        worst = max(worst, error if math.isfinite(error) else math.inf)
    return worst


def _results(
    kernels: variants.Kernels, form: KernelForm, device: torch.device, dtype: torch.dtype
) -> Iterator[Tensor]:
    """Yield the maps, and the RGB image where there is one."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int, kind: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=random).to(device, kind)

    def maps(channels: int, side_px: int, kind: torch.dtype = dtype) -> Tensor:
        return normal(_BATCH, channels, side_px, side_px, kind=kind).contiguous(
            memory_format=torch.channels_last
        )

    side, float32 = _SIDE_PX, torch.float32
    if not form.is_join:
        for kind in dict.fromkeys((dtype, float32)):  # small maps of the encoder stay float32
            y = maps(_CHANNELS, side, kind)
            out = torch.empty_like(y)
            kernels.activate(y, normal(_CHANNELS, kind=kind), out)
            yield out
        return
    y = {
        "plain": lambda: maps(_CHANNELS, side),
        "blurred": lambda: maps(_CHANNELS, side + 1),
        "folded": lambda: maps(4 * _CHANNELS, side // 2),
    }[form.source]()
    rgb = None
    if form.rgb != "none":
        rgb = variants.RgbSum(
            normal(_BATCH, 3, 2 * _CHANNELS, kind=float32),
            normal(3, kind=float32),
            normal(4, 4, kind=float32) if form.rgb == "next" else None,
            normal(_BATCH, side // 2, side // 2, 3, kind=float32).permute(0, 3, 1, 2),
            torch.empty((_BATCH, side, side, 3), device=device).permute(0, 3, 1, 2),
        )
    out = torch.empty((_BATCH, side, side, 2 * _CHANNELS), dtype=dtype, device=device)
    kernels.join(
        y,
        maps(_CHANNELS, side, float32 if form.has_gain else dtype),  # factors: of small maps
        out,
        bias=normal(_CHANNELS),
        feature_bias=normal(_CHANNELS).repeat(side),
        feature_gain=0.7,
        gain=normal(_BATCH, _CHANNELS, kind=float32) if form.has_gain else None,
        blur=normal(4, 4) if form.source == "blurred" else None,
        folded=form.source == "folded",
        rgb=rgb,
    )
    yield out
    if rgb is not None:
        yield rgb.out

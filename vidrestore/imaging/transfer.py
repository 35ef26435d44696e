"""Conversion between the R'G'B' of a stream and the display values that face networks expect.

Face networks were trained on ordinary pictures: BT.709 primaries, a display gamma, white at 1.
"Display" values are values of such pictures. A stream with BT.709 primaries and an SDR transfer
curve holds display values already. HDR streams and streams in a log curve are converted there and
back by strictly rising curves; a table (`log_curves`) converts by itself:

    stream R'G'B' -> light -> BT.709 primaries -> display coding -> shoulder

Light is relative to reference white (SDR, PQ) or to the peak of the camera (HLG). Curves apply to
absolute values and keep the sign; above the top of its range a curve continues along its tangent or
its formula. Every value that planes can hold can therefore be converted back. Tensors are (3, h,
w). The arithmetic is in float64: where primaries are mixed, float32 would lose the dark channels of
a bright saturated color.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from vidrestore.imaging import log_curves
from vidrestore.imaging.curves import NAMES
from vidrestore.imaging.frame import VideoInfo

# The gamma of an SDR display, Rec. ITU-R BT.1886.
_GAMMA = 2.4
# HDR reference white, Rep. ITU-R BT.2408 table 1: as luminance of PQ and as signal of HLG.
_WHITE_NITS, _WHITE_HLG = 203.0, 0.75
# PQ, SMPTE ST 2084 and Rec. ITU-R BT.2100 table 4.
_PQ_NITS = 10000.0
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
# The signal of PQ's formula for no light; it is far below one code value.
_PQ_BLACK = math.pow(_C1, _M2)
# HLG, BT.2100 table 5; the constant c is not needed, since the curve is written around its break.
_HLG_A = 0.17883277
_HLG_B = 1 - 4 * _HLG_A
# Display value at which the shoulder begins: about half the light of reference white, above most of
# a face.
_KNEE = 0.75
# (x, y) of red, green, blue, CIE 1931: BT.709-6, BT.2020-2, SMPTE EG 432-1; and of D65, which is
# the white of all three.
_CHROMATICITIES = {
    "bt709": ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
    "bt2020": ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    "p3": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
_D65 = (0.3127, 0.3290)
# The number of cells across a crop in which the highlights of the source are measured.
_HIGHLIGHT_CELLS = 16
# Black of limited range, and the distance from black to white, in 10-bit code values / 1023.
_LIMITED = 64 / 1023, 876 / 1023
# Rows per band: intermediate results of a band fit into the processor's cache.
_BAND_ROWS = 32


def is_display(info: VideoInfo) -> bool:
    """Return whether the R'G'B' of a stream are display values already.

    Args:
        info: The stream.

    Returns:
        True for SDR with BT.709 primaries.
    """
    return info.transfer == "sdr" and info.primaries == "bt709"


def to_display(rgb: torch.Tensor, info: VideoInfo) -> torch.Tensor:
    """Convert stream R'G'B' to display values.

    Args:
        rgb: (3, h, w) R'G'B', 0 black and 1 white.
        info: The stream.

    Returns:
        (3, h, w) float64; `rgb` itself where `is_display`. Legal signals of saturated colors may
        lie outside [0, 1]. Neutral colors lie inside, with reference white at 0.88 (PQ) or 0.91
        (HLG) and the greatest signal at 1.
    """
    if is_display(info):
        return rgb
    if info.transfer == "table":
        return log_curves.apply_table(rgb, info.curve)
    mixing = _to_bt709(info.primaries)

    def convert(band: torch.Tensor) -> torch.Tensor:
        light = _mix_primaries(_light(_code_levels(band.double(), info), info.transfer), mixing)
        return _with_shoulder(_display_coded(light, info.transfer), info.transfer)

    return _in_bands(convert, rgb)


def codes_per_level(info: VideoInfo, bits: int) -> float:
    """Return the number of code values that correspond to one 8-bit level.

    Args:
        info: The stream.
        bits: The number of bits of the code values.

    Returns:
        2**(bits - 8); for a table, the mean over display values from 0.45 to 0.55 of green.
    """
    if info.transfer != "table":
        return float(2 ** (bits - 8))
    green = np.array(info.curve)[:, 1]
    low, high = np.interp([0.45, 0.55], green, np.linspace(0, 1, len(green)))
    return float((high - low) / 0.1 * (2**bits - 1) / 255)


def from_display(display: torch.Tensor, info: VideoInfo) -> torch.Tensor:
    """Convert display values to stream R'G'B': the inverse of `to_display`.

    Args:
        display: (3, h, w) display values.
        info: The stream.

    Returns:
        (3, h, w) float64 R'G'B'; `display` itself where `is_display`.
    """
    if is_display(info):
        return display
    if info.transfer == "table":
        return log_curves.apply_inverse_table(display, info.curve)
    light = _display_decoded(_without_shoulder(display.double(), info.transfer), info.transfer)
    signal = _signal(_mix_primaries(light, np.linalg.inv(_to_bt709(info.primaries))), info.transfer)
    return _code_levels(signal, info, back=True)


def change(
    original: torch.Tensor, display: torch.Tensor, weight: torch.Tensor, info: VideoInfo
) -> torch.Tensor:
    """Compute the difference that moves stream R'G'B' toward given display values.

    With T = `to_display`: T^-1(T(in) + weight * (display - clamp(T(in)))) - in. The part of T(in)
    that lies outside [0, 1] is kept on top. No channel that was inside [0, 1] leaves it: in
    primaries wider than BT.709, a darker color could otherwise get a negative channel.

    Args:
        original: (3, h, w) float32 R'G'B' of the stream, on the CPU.
        display: (3, h, w) display values in [0, 1].
        weight: (1, h, w) in [0, 1].
        info: The stream.

    Returns:
        (3, h, w) of the dtype of `original`; 0 where the weight is 0.
    """
    if is_display(info):
        # As arrays, in one thread: to wake others for so little costs far more than it saves.
        moved = original.numpy().clip(0, 1)
        np.subtract(display.numpy(), moved, out=moved)
        moved *= weight.numpy()
        return torch.from_numpy(moved)

    def change_band(band: torch.Tensor, wanted: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        before = band.double()
        current = to_display(before, info)
        after = from_display(current + share * (wanted - current.clamp(0, 1)), info)
        after = after.clamp(before.clamp(max=0), before.clamp(min=1))
        return ((after - before) * (share > 0)).to(original.dtype)

    return _in_bands(change_band, original, display, weight)


def limit_highlights(restored: torch.Tensor, source: torch.Tensor, info: VideoInfo) -> torch.Tensor:
    """Limit restored HDR values to reference white, except near highlights of the source.

    In ordinary pictures 1 is white paper; in PQ it is 10000 cd/m2, which a network that paints a
    tooth white does not intend. A restored value may reach reference white anywhere. Above that it
    may reach the brightest channel that the source has within one to two sixteenths of the crop: a
    highlight may become sharper, but none appears.

    Args:
        restored: (3, W, W) display values.
        source: (3, W, W) display values of the source crop.
        info: The stream.

    Returns:
        (3, W, W) display values; `restored` itself for SDR and for tables.
    """
    if info.transfer in ("sdr", "table"):
        return restored
    cells = F.adaptive_max_pool2d(source.amax(dim=0)[None, None], _HIGHLIGHT_CELLS)
    # The maximum over neighbor cells keeps the interpolated limit at or above the source itself.
    around = F.max_pool2d(cells, 3, stride=1, padding=1)
    reached = F.interpolate(around, source.shape[-2:], mode="bilinear")[0]
    return torch.minimum(restored, reached.clamp(min=_white(info.transfer)))


def _in_bands(work: Callable[..., torch.Tensor], *pictures: torch.Tensor) -> torch.Tensor:
    """Apply `work` to (c, h, w) `pictures` of equal height, in bands of rows."""
    bands = zip(*(torch.split(p, _BAND_ROWS, dim=1) for p in pictures), strict=True)
    return torch.cat([work(*band) for band in bands], dim=1)


def _white(transfer: str) -> float:
    """Return the display value of HDR reference white."""
    return float(_with_shoulder(torch.ones((), dtype=torch.float64), transfer))


def _code_levels(signal: torch.Tensor, info: VideoInfo, *, back: bool = False) -> torch.Tensor:
    """Convert limited range to the share of all code values that log curves use, or `back`."""
    if info.transfer not in NAMES or info.full_range:
        return signal
    first, count = _LIMITED
    return (signal - first) / count if back else first + count * signal


def _light(signal: torch.Tensor, transfer: str) -> torch.Tensor:
    """Decode signals to linear light."""
    if transfer in NAMES:
        return log_curves.light(signal, transfer)
    size = signal.abs()
    if transfer == "pq":
        size = _pq_light(size)
    elif transfer == "hlg":
        size = _hlg_light(size)
    else:
        size = _power(size, _GAMMA)
    return size.copysign(signal)


def _signal(light: torch.Tensor, transfer: str) -> torch.Tensor:
    """Encode linear light: the inverse of `_light`."""
    if transfer in NAMES:
        return log_curves.signal(light, transfer)
    size = light.abs()
    if transfer == "pq":
        size = _pq_signal(size)
    elif transfer == "hlg":
        size = _hlg_signal(size)
    else:
        size = _power(size, 1 / _GAMMA)
    return size.copysign(light)


def _display_coded(light: torch.Tensor, transfer: str) -> torch.Tensor:
    """Apply the display coding without the shoulder; the result is 1 at reference white."""
    if transfer == "hlg":
        # HLG's own curve serves as display coding: its lower half is the root that SDR cameras use.
        return (_hlg_signal(light.abs()) / _WHITE_HLG).copysign(light)
    return _power(light.abs(), 1 / _GAMMA).copysign(light)


def _display_decoded(display: torch.Tensor, transfer: str) -> torch.Tensor:
    """Undo the display coding: the inverse of `_display_coded`."""
    if transfer == "hlg":
        return _hlg_light(display.abs() * _WHITE_HLG).copysign(display)
    return _power(display.abs(), _GAMMA).copysign(display)


def _pq_light(signal: torch.Tensor) -> torch.Tensor:
    """Decode PQ signals >= 0 to luminance relative to reference white (EOTF of SMPTE ST 2084).

    The signal is shifted by less than a millionth so that 0 is no light. Above 1 the curve
    continues along its tangent.
    """
    root = _power(_PQ_BLACK + (1 - _PQ_BLACK) * signal.clamp(max=1), 1 / _M2)
    light = _power(((root - _C1) / (_C2 - _C3 * root)).clamp(min=0), 1 / _M1)
    return (light + _pq_slope() * (signal - 1).clamp(min=0)) * (_PQ_NITS / _WHITE_NITS)


def _pq_signal(light: torch.Tensor) -> torch.Tensor:
    """Encode luminance with PQ: the inverse of `_pq_light`."""
    share = light * (_WHITE_NITS / _PQ_NITS)
    root = _power(share.clamp(max=1), _M1)
    signal = _power((_C1 + _C2 * root) / (1 + _C3 * root), _M2)
    return (signal - _PQ_BLACK) / (1 - _PQ_BLACK) + (share - 1).clamp(min=0) / _pq_slope()


def _pq_slope() -> float:
    """Return d light / d signal of PQ where both are 1, by the chain rule."""
    return (1 + _C3) / (_C2 - _C3) / _M1 / _M2 * (1 - _PQ_BLACK)


def _hlg_light(signal: torch.Tensor) -> torch.Tensor:
    """Decode HLG signals >= 0 to scene light, 1 at signal 1 (inverse OETF of BT.2100)."""
    upper = torch.expm1((signal.clamp(min=0.5) - 0.5) / _HLG_A) * (4 * _HLG_A / 12)
    light: torch.Tensor = signal.clamp(max=0.5).square() / 3 + upper
    return light


def _hlg_signal(light: torch.Tensor) -> torch.Tensor:
    """Encode scene light with HLG: the inverse of `_hlg_light`."""
    upper = _HLG_A * torch.log((12 * light.clamp(min=1 / 12) - _HLG_B) / (4 * _HLG_A))
    return (3 * light.clamp(max=1 / 12)).sqrt() + upper


def _with_shoulder(display: torch.Tensor, transfer: str) -> torch.Tensor:
    """Apply the shoulder, which compresses highlights; SDR has none.

    Values below the knee stay. Above it the curve is u / (1 + c u), which has slope 1 at the knee
    and brings the top of the range to 1; beyond the top it is straight.

    The top is that of the format (10000 cd/m2 for PQ), not that of the mastering display: files
    state that wrongly or not at all, and for 1000 cd/m2 reference white would be 0.89 instead of
    0.88.
    """
    if transfer == "sdr":
        return display
    top = _top(transfer)
    over = (display - _KNEE).clamp(min=0) / (1 - _KNEE)
    inside = over.clamp(max=top)
    bent = inside / (1 + (1 - 1 / top) * inside) + (over - inside) / top**2
    return display.clamp(max=_KNEE) + (1 - _KNEE) * bent


def _without_shoulder(display: torch.Tensor, transfer: str) -> torch.Tensor:
    """Remove the shoulder: the inverse of `_with_shoulder`."""
    if transfer == "sdr":
        return display
    top = _top(transfer)
    bent = (display - _KNEE).clamp(min=0) / (1 - _KNEE)
    inside = bent.clamp(max=1)
    over = inside / (1 - (1 - 1 / top) * inside) + (bent - inside) * top**2
    return display.clamp(max=_KNEE) + (1 - _KNEE) * over


def _top(transfer: str) -> float:
    """Return the u of `_with_shoulder` at the greatest signal."""
    if transfer in NAMES:
        greatest = float(log_curves.light(torch.ones((), dtype=torch.float64), transfer))
        peak = math.pow(greatest, 1 / _GAMMA)
    else:
        peak = 1 / _WHITE_HLG if transfer == "hlg" else math.pow(_PQ_NITS / _WHITE_NITS, 1 / _GAMMA)
    return (peak - _KNEE) / (1 - _KNEE)


def _power(base: torch.Tensor, exponent: float) -> torch.Tensor:
    """Raise `base` >= 0 to a power > 0 by logarithms, with which torch is ten times as fast."""
    return (base.log() * exponent).exp()


def _mix_primaries(rgb: torch.Tensor, matrix: npt.NDArray[Any]) -> torch.Tensor:
    """Apply a (3, 3) matrix to the channels of each pixel."""
    return torch.einsum("ij,jhw->ihw", torch.from_numpy(matrix).to(rgb), rgb)


def _to_bt709(primaries: str) -> npt.NDArray[Any]:
    """Return the (3, 3) matrix from linear R G B of `primaries` to BT.709; white stays white."""
    return np.linalg.solve(_to_xyz("bt709"), _to_xyz(primaries))


def _to_xyz(primaries: str) -> npt.NDArray[Any]:
    """Return the (3, 3) matrix from linear R G B to X Y Z with Y = 1 for white, SMPTE RP 177.

    The chromaticities give the directions of the columns; R = G = B = 1 being white gives their
    lengths.
    """
    columns = np.array([_xyz(x, y) for x, y in _CHROMATICITIES[primaries]]).T
    return columns * np.linalg.solve(columns, _xyz(*_D65))


def _xyz(x: float, y: float) -> npt.NDArray[Any]:
    """Return X Y Z with Y = 1 for a chromaticity."""
    return np.array([x / y, 1.0, (1 - x - y) / y])

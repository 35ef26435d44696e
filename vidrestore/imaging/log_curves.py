"""Transfer curves of film scanners and cameras (Cineon, S-Log3), and of tables.

Light is linear and is 1 at a white that reflects 90 %. Signals are 10-bit code values / 1023.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from vidrestore.imaging.curves import Table

_CODES = 1023
# Printing density of Kodak's Cineon system (Cineon Image File Format Draft, 1995): code values of
# black and white, density of a code value, gamma of the negative.
_BLACK, _WHITE, _DENSITY, _NEGATIVE_GAMMA = 95, 685, 0.002, 0.6
_STEP = _DENSITY / _NEGATIVE_GAMMA
_OFFSET: float = 10.0 ** ((_BLACK - _WHITE) * _STEP)
# S-Log3, Sony, "Technical Summary for S-Gamut3.Cine/S-Log3 and S-Gamut3/S-Log3".
_BREAK_CODE, _BREAK_LIGHT, _GREY_CODE, _CODES_PER_DECADE = 171.2102946929, 0.01125, 420.0, 261.5
# The gray of 18 % reflectance, and the reflectance that the formula adds before the logarithm.
_GREY, _LIFT = 0.18, 0.01
_WHITE_REFLECTANCE = 0.9
_LEAST = 1e-9


def light(signal: torch.Tensor, name: str) -> torch.Tensor:
    """Decode signals of a log curve to linear light.

    Args:
        signal: 10-bit code values / 1023, of any shape.
        name: "cineon" (Kodak, Cineon Image File Format Draft, 1995) or "slog3" (Sony, Technical
            Summary for S-Gamut3.Cine/S-Log3 and S-Gamut3/S-Log3).

    Returns:
        Light of the shape of `signal`, 1 at a white that reflects 90 %.
    """
    code = signal * _CODES
    if name == "cineon":
        relative: torch.Tensor = _power_of_ten((code - _WHITE) * _STEP) - _OFFSET
        return relative / (1 - _OFFSET)
    slope = _BREAK_LIGHT / (_BREAK_CODE - _BLACK)
    upper = _power_of_ten((code - _GREY_CODE) / _CODES_PER_DECADE) * (_GREY + _LIFT) - _LIFT
    reflected: torch.Tensor = torch.where(code >= _BREAK_CODE, upper, (code - _BLACK) * slope)
    return reflected / _WHITE_REFLECTANCE


def signal(light: torch.Tensor, name: str) -> torch.Tensor:
    """Encode linear light with a log curve: the inverse of `light`.

    Args:
        light: Light of any shape, 1 at a white that reflects 90 %.
        name: "cineon" or "slog3".

    Returns:
        Signals, 10-bit code values / 1023, of the shape of `light`.
    """
    if name == "cineon":
        density: torch.Tensor = (light * (1 - _OFFSET) + _OFFSET).clamp(min=_LEAST).log10() / _STEP
        return (_WHITE + density) / _CODES
    reflected = light * _WHITE_REFLECTANCE
    slope = _BREAK_LIGHT / (_BREAK_CODE - _BLACK)
    share = ((reflected + _LIFT) / (_GREY + _LIFT)).clamp(min=_LEAST)
    upper = _GREY_CODE + share.log10() * _CODES_PER_DECADE
    return torch.where(reflected >= _BREAK_LIGHT, upper, reflected / slope + _BLACK) / _CODES


def apply_table(rgb: torch.Tensor, table: Table) -> torch.Tensor:
    """Map signals through a table by linear interpolation.

    Args:
        rgb: (3, h, w) signals on the CPU. Outside [0, 1] the result continues from the end of the
            table with slope 1.
        table: Display values for evenly spaced signals from 0 to 1.

    Returns:
        (3, h, w) float64 display values.
    """
    rows = np.array(table)
    return _interpolated(rgb, np.linspace(0, 1, len(rows)), rows)


def apply_inverse_table(display: torch.Tensor, table: Table) -> torch.Tensor:
    """Map display values through the inverse of a table: the inverse of `apply_table`.

    Args:
        display: (3, h, w) display values on the CPU.
        table: Display values for evenly spaced signals from 0 to 1, rising in each column.

    Returns:
        (3, h, w) float64 signals.
    """
    rows = np.array(table)
    places = np.linspace(0, 1, len(rows))
    planes = [
        _interpolated(plane[None], column, places[:, None])
        for plane, column in zip(display, rows.T, strict=True)
    ]
    return torch.cat(planes)


def _power_of_ten(exponent: torch.Tensor) -> torch.Tensor:
    """Return 10 to the power of `exponent`."""
    return (exponent * float(np.log(10))).exp()


def _interpolated(
    planes: torch.Tensor, places: npt.NDArray[np.float64], values: npt.NDArray[np.float64]
) -> torch.Tensor:
    """Interpolate each plane in its column of `values` (n, planes), given at `places` (n,)."""
    results = []
    for plane, column in zip(planes.double().numpy(), values.T, strict=True):
        inside = plane.clip(places[0], places[-1])
        results.append(np.interp(inside, places, column) + (plane - inside))
    return torch.from_numpy(np.stack(results))

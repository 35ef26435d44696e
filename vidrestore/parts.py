"""Parts of a frame that know their place in it."""

from __future__ import annotations

from dataclasses import dataclass

from vidrestore.frame import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A part of a frame that may be changed; nothing outside of it may."""

    corner_px: tuple[int, int]
    """(x, y) of the top-left pixel of `weight` in the frame."""
    weight: FloatArray
    """(h, w) in [0, 1]: how far."""


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """What was pasted into a frame: out = in + (fill - in) * matte."""

    corner_px: tuple[int, int]
    """(x, y) of the top-left pixel in the frame; outside the matte is 0."""
    fill: FloatArray
    """(3, h, w) R'G'B' of the stream, 0 where the matte is 0."""
    matte: FloatArray
    """(h, w) in [0, 1]."""


@dataclass(frozen=True, slots=True)
class LayerRange:
    """What the files of a layer can hold."""

    matte_steps: int
    """Levels of the matte above 0."""
    least: float
    """Of R'G'B' in the fill, 0 being black; likewise:"""
    most: float

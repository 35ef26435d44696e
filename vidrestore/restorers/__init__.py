"""The contract of a restorer, and how one is opened by name."""

from __future__ import annotations

from typing import Protocol

import torch

from vidrestore.errors import ConfigError, unknown_name

NAMES = ("fusion",)


class Restorer(Protocol):
    """Makes aligned faces clear, several at once."""

    name: str
    size: int | None
    """Side S of the square it works on; None: it takes the crops at any size."""
    reach_frames: int
    """How many frames before and after it looks at; 0 for a network that sees one picture."""

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """(B, 2 * reach_frames + 1, 3, S, S) -> (B, 3, S, S), RGB in [0, 1], float32.

        The middle of each window is the face to restore. Where the track ends within reach, its
        nearest frame is repeated.
        """
        ...


def open_restorer(name: str, *, fusion_sharpness: float) -> Restorer:
    """The restorer `name`; ConfigError where there is none."""
    if name == "fusion":
        from vidrestore.restorers.fusion import Fusion

        return Fusion(sharpness=fusion_sharpness)
    raise ConfigError(unknown_name("restorer", name, NAMES))

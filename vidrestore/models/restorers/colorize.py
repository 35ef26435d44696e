"""The restorer that gives colors to the faces of gray footage, with GPEN's colorization network."""

from __future__ import annotations

import torch

from vidrestore.imaging.luma import BT601
from vidrestore.models.restorers.gpen import Gpen

NAME = "gpen-colorize"


class Colorizer(Gpen):
    """GPEN's colorization network, which paints a gray face in colors.

    The network gets the luma of the face alone, so that the tint of a film and the chroma noise of
    a tape do not count. Only the chroma of its result is pasted. The arguments are those of `Gpen`.
    """

    name = NAME
    colorizes = True

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Colorize faces.

        Args:
            windows: (B, 1, 3, S, S) float32 RGB in [0, 1].

        Returns:
            (B, 3, S, S) float32 RGB in [0, 1], as `Gpen` returns it.
        """
        return super().__call__(_gray(windows))

    def codes(self, windows: torch.Tensor) -> torch.Tensor:
        """Compute the latent codes of gray faces.

        Args:
            windows: (B, 1, 3, S, S) float32 RGB in [0, 1].

        Returns:
            (B, D) codes, as `Gpen` returns them.
        """
        return super().codes(_gray(windows))

    def with_codes(self, windows: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Colorize faces with given latent codes.

        Args:
            windows: (B, 1, 3, S, S) float32 RGB in [0, 1].
            codes: (B, D) codes.

        Returns:
            (B, 3, S, S) float32 RGB in [0, 1], as `Gpen` returns it.
        """
        return super().with_codes(_gray(windows), codes)


def _gray(windows: torch.Tensor) -> torch.Tensor:
    """Return (B, 1, 3, S, S) RGB whose channels all are the luma."""
    weights = windows.new_tensor(BT601)[:, None, None]
    return (windows * weights).sum(dim=2, keepdim=True).expand_as(windows)

"""GPEN in the size that suits each face: the smallest that its place in the picture can show."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import torch

from vidrestore.errors import WeightsError
from vidrestore.resample import squared
from vidrestore.restorers import Restorer
from vidrestore.weightfile import sha256_of

NAME = "gpen-auto"
SIZES_PX = (256, 512, 1024, 2048)


def tier_for(work_px: int, is_to_be_had: Callable[[str], bool]) -> str:
    """Name of the smallest GPEN not below a crop of that side whose weights are to be had.

    The smallest one where none is, so that asking for its weights says what is missing.
    """
    fitting = [f"gpen-{size}" for size in SIZES_PX if size >= work_px] or [f"gpen-{SIZES_PX[-1]}"]
    return next(filter(is_to_be_had, fitting), fitting[0])


class Tiers:
    """GPEN in several sizes, of which each face has the one for the side of its crop.

    That side is the same all through a track, and so is the network. `open_tier` opens a network by
    its name, which happens when it first has a face to restore; `find_weights` is asked for its
    file, fetching it where that may be, as soon as a face is known to need it; `is_to_be_had` says
    whether it would succeed. Where it would not the next larger network is taken, and `on_notice`
    told. Those opened stay open: four take the memory of four.
    """

    name = NAME
    size: int | None = None
    reach_frames = 0
    template = "gpen"

    def __init__(
        self,
        open_tier: Callable[[str], Restorer],
        *,
        find_weights: Callable[[str], Path],
        is_to_be_had: Callable[[str], bool],
        on_notice: Callable[[str], None] = lambda message: None,
    ) -> None:
        self._open, self._find, self._has, self._say = (
            open_tier, find_weights, is_to_be_had, on_notice,
        )  # fmt: skip
        self._by_side: dict[int, _Tier] = {}
        self._tiers: dict[str, _Tier] = {}
        if not any(is_to_be_had(f"gpen-{size}") for size in SIZES_PX):
            find_weights(f"gpen-{SIZES_PX[-1]}")

    def for_side(self, work_px: int) -> Restorer:
        """The network for crops of that side; WeightsError where no weights will do."""
        if work_px not in self._by_side:
            name = tier_for(work_px, self._has)
            if name not in self._tiers:
                self._tiers[name] = _Tier(name, self._find(name), self._open)
            self._by_side[work_px] = self._tiers[name]
            self._say_which(name, tier_for(work_px, lambda name: True))
        return self._by_side[work_px]

    def _say_which(self, name: str, wanted: str) -> None:
        if name != wanted:
            self._say(f"{wanted} is not here and cannot be fetched; {name} takes its faces")

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """(B, 1, 3, W, W) -> (B, 3, W, W), RGB in [0, 1]."""
        side = windows.shape[-1]
        tier = self.for_side(side)
        return squared(tier(squared(windows[:, 0], tier.size or side)[:, None]), side)


class _Tier:
    """A network that is opened when it is first called."""

    reach_frames = 0
    template = Tiers.template

    def __init__(self, name: str, path: Path, open_tier: Callable[[str], Restorer]) -> None:
        self.name = name
        self._path = path
        self.size: int | None = int(name.removeprefix("gpen-"))
        self._open = open_tier
        self._network: Restorer | None = None

    @cached_property
    def weights_sha256(self) -> str:
        return sha256_of(self._path)

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        if self._network is None:
            self._network = self._opened()
        return self._network(windows)

    def _opened(self) -> Restorer:
        network = self._open(self.name)
        if (network.size, network.template) != (self.size, self.template):
            raise WeightsError(
                f"what is here as {self.name} is {network.name} for faces of {network.size} px and "
                f"the template {network.template}; it must be for {self.size} px and "
                f"{self.template}; replace the file or choose another --restorer"
            )
        return network

"""The restorer gpen-auto: for each face the smallest GPEN that is not smaller than its crop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import torch

from vidrestore.common.checksums import FileHashes
from vidrestore.common.errors import WeightsError
from vidrestore.imaging.resample import squared
from vidrestore.models.restorers import FileRestorer, LatentRestorer, Restorer, memory_errors
from vidrestore.models.restorers.gpen import holds_gpen

_log = logging.getLogger("vidrestore")

NAME = "gpen-auto"
SIZES_PX = (256, 512, 1024, 2048)


def tier_for(
    work_px: int,
    is_available: Callable[[str], bool],
    has_room: Callable[[str], bool] = lambda name: True,
) -> str:
    """Choose the GPEN for a crop: the smallest available one that is not smaller than the crop.

    Args:
        work_px: Side of the crop in pixels.
        is_available: Returns whether the weights of a GPEN, such as "gpen-512", are here or can be
            fetched.
        has_room: Returns whether the device has enough memory for a GPEN. By default it has.

    Returns:
        The name of the GPEN. Where the device has no room for it, the largest available one for
        which it has. Where no weights are available, the smallest that is not smaller than the
        crop, so that the request for its weights raises the error that names them.
    """
    fitting = [f"gpen-{size}" for size in SIZES_PX if size >= work_px] or [f"gpen-{SIZES_PX[-1]}"]
    name = next(filter(is_available, fitting), fitting[0])
    if has_room(name):
        return name
    smaller = (f"gpen-{size}" for size in reversed(SIZES_PX) if size < int(name[5:]))
    return next((each for each in smaller if is_available(each) and has_room(each)), name)


class AdaptiveGpen(Restorer):
    """GPEN in several sizes, of which each face has the one for the side of its crop.

    The side of the crop is constant throughout a track, and so is the network. A network is opened
    when it first has a face to restore, and stays open. Where memory does not suffice, the other
    networks free what they do not need. Where the weights of a size are not available, the next
    larger size is used; where the device has no room for that, the largest size that fits.

    Args:
        open_tier: Opens a network by its name, such as "gpen-512".
        find_weights: Returns the weight file of a network, fetched where it is missing; called as
            soon as a face needs the network.
        is_available: Returns whether `find_weights` would succeed.
        has_room: Returns whether the device has enough memory for a network. By default it has.
        on_notice: Receives a notice where another size than the usual one is used.
        run_as: Names how the networks are run, for `cache_key`.
        is_cheap: Whether restoring a face costs less than keeping the result in a file. Default
            False.
        needs_codes: Whether the networks get latent codes, so that one without is refused as soon
            as a face needs it. Default: False.
        hashes: The hashes of files that the run has read already.

    Raises:
        WeightsError: No weights are available at all.
    """

    name = NAME
    template = "gpen"

    def __init__(
        self,
        open_tier: Callable[[str], Restorer],
        *,
        find_weights: Callable[[str], Path],
        is_available: Callable[[str], bool],
        has_room: Callable[[str], bool] = lambda name: True,
        on_notice: Callable[[str], None] = lambda message: None,
        run_as: str = "",
        is_cheap: bool = False,
        needs_codes: bool = False,
        hashes: FileHashes | None = None,
    ) -> None:
        self._hashes = hashes or FileHashes()
        self.is_cheap, self._run_as, self._needs_codes = is_cheap, run_as, needs_codes
        self._open, self._find, self._has, self._has_room, self._notify = (
            open_tier, find_weights, is_available, has_room, on_notice,
        )  # fmt: skip
        self._by_side: dict[int, _Tier] = {}
        self._tiers: dict[str, _Tier] = {}
        if not any(is_available(f"gpen-{size}") for size in SIZES_PX):
            find_weights(f"gpen-{SIZES_PX[-1]}")

    @cached_property
    def cache_key(self) -> str:
        """The name and the execution; the key of the network of each size names its weights."""
        return f"{NAME}, {self._run_as}"

    def for_crop_size(self, work_px: int) -> Restorer:
        """Return the network for crops of a given size, unopened where no face needed it yet.

        Args:
            work_px: Side of the crops, in pixels.

        Returns:
            The network.

        Raises:
            WeightsError: No weights will do, or the network has no latent codes and needs them.
        """
        if work_px not in self._by_side:
            name = tier_for(work_px, self._has, self._has_room)
            if name not in self._tiers:
                path = self._find(name)
                if self._needs_codes and path.suffix.lower() == ".onnx" and not holds_gpen(path):
                    raise _without_code(path)
                self._tiers[name] = _Tier(
                    name,
                    path,
                    self._open,
                    self._release_others,
                    run_as=self._run_as,
                    is_cheap=self.is_cheap,
                    hashes=self._hashes,
                )
            self._by_side[work_px] = self._tiers[name]
            self._notify_choice(name, tier_for(work_px, lambda name: True))
        return self._by_side[work_px]

    def _notify_choice(self, name: str, wanted: str) -> None:
        if name == wanted:
            return
        if self._has(wanted) and not self._has_room(wanted):
            self._notify(
                f"{wanted} does not fit into the device's memory; {name} restores its faces"
            )
        else:
            self._notify(
                f"the weights of {wanted} are missing and cannot be fetched; {name} restores its "
                "faces"
            )

    def release(self) -> None:
        """Free what the networks of all sizes keep between calls."""
        for tier in self._tiers.values():
            tier.release()

    def _release_others(self, tier: _Tier) -> None:
        for other in self._tiers.values():
            if other is not tier:
                other.release()

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Restore faces with the network for their size.

        Args:
            windows: (B, 1, 3, W, W) float32 RGB in [0, 1].

        Returns:
            (B, 3, W, W) float32 RGB in [0, 1].

        Raises:
            WeightsError: The network's weights are missing or damaged.
            MemoryError: The batch does not fit into the memory, even alone.
        """
        side = windows.shape[-1]
        tier = self.for_crop_size(side)
        return squared(tier(squared(windows[:, 0], tier.size or side)[:, None]), side)


def _without_code(path: Path) -> WeightsError:
    return WeightsError(
        f"{path} runs through onnxruntime, without a latent code; replace the file by GPEN's own "
        "or use --set restore.latent=frame"
    )


class _Tier(FileRestorer, LatentRestorer):
    """A network that is opened when it is first called."""

    template = AdaptiveGpen.template

    def __init__(
        self,
        name: str,
        path: Path,
        open_tier: Callable[[str], Restorer],
        release_others: Callable[[_Tier], None],
        *,
        run_as: str,
        is_cheap: bool,
        hashes: FileHashes,
    ) -> None:
        super().__init__(path, hashes)
        self.name = name
        self.is_cheap, self._run_as = is_cheap, run_as
        self.size = int(name.removeprefix("gpen-"))
        self._open, self._release_others = open_tier, release_others
        self._network: Restorer | None = None

    @cached_property
    def cache_key(self) -> str:
        return f"{self.name}, weights {self.weights_sha256}, {self._run_as}"

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        return self._with_room(self._opened(), windows)

    def codes(self, windows: torch.Tensor) -> torch.Tensor:
        return self._with_room(self._latent().codes, windows)

    def with_codes(self, windows: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        return self._with_room(self._latent().with_codes, windows, codes)

    def _with_room(self, run: Callable[..., torch.Tensor], *given: torch.Tensor) -> torch.Tensor:
        """Run the network, and again without the others where memory did not suffice."""
        try:
            with memory_errors():
                return run(*given)
        except MemoryError:
            _log.info("memory did not suffice for %s; the other networks are freed", self.name)
        self._release_others(self)
        return run(*given)

    def _latent(self) -> LatentRestorer:
        network = self._opened()
        if not isinstance(network, LatentRestorer):
            raise _without_code(self._path)
        return network

    @property
    def most_at_once(self) -> int | None:
        return self._opened().most_at_once

    def release(self) -> None:
        """Free what the network keeps between calls, where it was opened."""
        if self._network is not None:
            self._network.release()

    def _opened(self) -> Restorer:
        if self._network is None:
            self._release_others(self)  # the size of its batches depends on the free memory
            self._network = self._checked()
        return self._network

    def _checked(self) -> Restorer:
        network = self._open(self.name)
        if (network.size, network.template) != (self.size, self.template):
            raise WeightsError(
                f"the file for {self.name} holds {network.name} for faces of {network.size} px and "
                f"the template {network.template}; it must be for {self.size} px and "
                f"{self.template}; replace the file or choose another --restorer"
            )
        return network

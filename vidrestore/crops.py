"""Restored crops on disk, so that a change of anything after the network does not need it again."""

from __future__ import annotations

import hashlib
import secrets
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch


class Crops:
    """What networks made of crops: a file for each, found again by all that it was made from.

    Of a crop of side W a file holds 12 W^2 bytes: the float32 values, as they are. Several
    processes may use one folder. `made_by` says how the networks are run.
    """

    def __init__(self, folder: Path, made_by: str) -> None:
        self._folder, self._made_by = folder, made_by

    def key(self, network: str, crops: Sequence[torch.Tensor]) -> str:
        """Of the result for the window (3, W, W) each; `network` tells it from all others."""
        digest = hashlib.sha256(repr((self._made_by, network)).encode())
        for crop in crops:
            digest.update(repr(crop.shape).encode())
            digest.update(crop.cpu().numpy().tobytes())
        return digest.hexdigest()

    def find(self, key: str) -> torch.Tensor | None:
        """(3, W, W) float32 on the CPU; None where there is none, or none that is whole."""
        try:
            with self._path(key).open("rb") as file, np.load(file) as arrays:
                return torch.from_numpy(arrays["crop"])
        except (FileNotFoundError, zipfile.BadZipFile, ValueError, KeyError, EOFError):
            return None

    def keep(self, key: str, crop: torch.Tensor) -> None:
        """Not forced onto the disk: a file's own checksum tells whether it got there."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{secrets.token_hex(8)}.part.npz")
        try:
            np.savez(part, crop=crop.cpu().numpy())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        # So that no folder holds hundreds of thousands.
        return self._folder / key[:2] / f"{key[2:]}.npz"


def bytes_in(folder: Path) -> int:
    """What the crops in it take."""
    return sum(path.stat().st_size for path in folder.glob("*/*.npz"))

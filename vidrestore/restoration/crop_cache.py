"""Restored crops on disk, so that what a network made once is not asked of it again."""

from __future__ import annotations

import hashlib
import io
import logging
import shutil
from collections.abc import MutableMapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.weak import WeakTensorKeyDictionary

from vidrestore.common.checksums import ChecksumError, checked_content, checksum_line
from vidrestore.common.errors import is_disk_full
from vidrestore.common.files import written_atomically
from vidrestore.common.handled import logged

ROOM_BYTES = 10**9
"""Crops of a segment under way are only written while so much of the disk stays free."""
_log = logging.getLogger("vidrestore")
# Resampling exceeds the values between which it interpolates, at edges, by less than that.
_OVERSHOOT = 0.5
_DTYPES = ("<f2", "<f4")


class CropCache:
    """What networks made of crops: a file for each, found again by all that it was made from.

    Of a crop of side W a file holds 12 W^2 bytes, or half of that where 16-bit floats hold its
    values exactly, as one of numpy's .npy, and a checksum of its key and of these bytes; what is
    read is what was kept under that key, to the last bit, and looks like a face whoever wrote it.
    Several processes may use one folder.
    `made_by` says how the networks are run.
    """

    keeps_cheap = True
    """Whether results of restorers that declare themselves cheap are kept, too."""

    def __init__(self, folder: Path, made_by: str) -> None:
        self._folder, self._made_by = folder, made_by
        self.note: str | None = None
        """Why not everything was kept, in a sentence."""
        # A crop is in the windows of several frames.
        self._digests: MutableMapping[torch.Tensor, bytes] = WeakTensorKeyDictionary()

    def key(self, network: str, crops: Sequence[torch.Tensor]) -> str:
        """Of the result for the window (3, W, W) each; `network` tells it from all others."""
        digest = hashlib.sha256(repr((self._made_by, network)).encode())
        for crop in crops:
            digest.update(self._digest(crop))
        return digest.hexdigest()

    def _digest(self, crop: torch.Tensor) -> bytes:
        known = self._digests.get(crop)
        if known is None:
            digest = hashlib.sha256(repr(crop.shape).encode())
            digest.update(np.ascontiguousarray(crop.cpu().numpy()).data)
            known = self._digests[crop] = digest.digest()
        return known

    def find(self, key: str, index: int, side: int) -> torch.Tensor | None:
        """The restored crop that was kept.

        Args:
            key: As of `key`.
            index: The frame.
            side: W of the crop, in pixels.

        Returns:
            (3, W, W) float32 on the CPU; None where there is none, or none that is whole and has
            that size and values that a face can have, which is logged.
        """
        path = self._path(key, index)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.info("the restored crop %s cannot be read and is made again: %s", path, error)
            return None
        found = None
        with logged(ChecksumError, what=f"reading {path}"):
            found = _unpacked(checked_content(data, key), side)
        if found is None or not _is_face(found):
            _log.info("the restored crop %s is damaged, or of another face; it is made again", path)
            return None
        return found

    def keep(self, key: str, index: int, crop: torch.Tensor) -> None:
        """Not forced onto the disk: the checksum tells whether all of the file got there.

        A crop that `find` would refuse is not written, which is logged.
        """
        path = self._path(key, index)
        if not _is_face(crop):
            _log.info("a restored crop of frame %d has impossible values and is not kept", index)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        half = crop.half()
        samples = (half if torch.equal(half.float(), crop) else crop).cpu().numpy()
        content = _header(samples.dtype.str, samples.shape[-1]) + samples.tobytes()
        with written_atomically(path, lasting=False) as part, part.open("wb") as file:
            file.write(content)
            file.write(checksum_line(content, key))

    def _path(self, key: str, index: int) -> Path:
        # So that no folder holds hundreds of thousands.
        return self._folder / key[:2] / f"{key[2:]}.npy"


def _header(dtype: str, side: int) -> bytes:
    """What numpy writes before the samples of a (3, W, W) array."""
    packed = io.BytesIO()
    described = {"descr": dtype, "fortran_order": False, "shape": (3, side, side)}
    np.lib.format.write_array_header_1_0(packed, described)
    return packed.getvalue()


def _unpacked(content: bytes, side: int) -> torch.Tensor | None:
    """(3, W, W) float32; None of other bytes than `keep` writes for such a crop. The header is
    compared and not read, so that nothing in it can lead anywhere."""
    for dtype in _DTYPES:
        header = _header(dtype, side)
        size = len(header) + 3 * side * side * np.dtype(dtype).itemsize
        if content.startswith(header) and len(content) == size:
            samples = np.frombuffer(content, dtype, offset=len(header))
            return torch.from_numpy(samples.reshape(3, side, side).astype(np.float32))
    return None


def _is_face(crop: torch.Tensor) -> bool:
    """Whether all values are numbers that resampling makes of a picture in [0, 1]."""
    low, high = crop.aminmax()  # NaN, where there is one
    return bool(low >= -_OVERSHOOT) and bool(high <= 1 + _OVERSHOOT)


class CropsUnderWay(CropCache):
    """Those of segments that are not finished, by frame, until these are.

    Where the disk has no room for them, they are not kept, and `note` says so.
    """

    keeps_cheap = False

    def keep(self, key: str, index: int, crop: torch.Tensor) -> None:
        if self.note is not None:
            return
        size = crop.numel() * crop.element_size()
        try:
            self._folder.mkdir(exist_ok=True)
            if shutil.disk_usage(self._folder).free >= ROOM_BYTES + size:
                super().keep(key, index, crop)
                return
        except OSError as error:
            if not is_disk_full(error):
                raise
            _log.info("a restored crop was not kept: %s", error)
        self.note = (
            f"{self._folder.parent} has less than {ROOM_BYTES / 1e9:g} GB of room, so the restored "
            "faces of unfinished segments were not kept there; a run that is interrupted goes on "
            "from the last whole segment"
        )

    def _path(self, key: str, index: int) -> Path:
        return self._folder / f"{index:08}" / f"{key}.npy"


def forget_frames_outside(folder: Path, spans: Sequence[tuple[int, int]]) -> None:
    """Remove what `CropsUnderWay` kept there of all frames but those in the [first, end)."""
    if not folder.is_dir():
        return
    for of_frame in folder.iterdir():
        index = int(of_frame.name) if of_frame.name.isdecimal() else -1
        if not any(first <= index < end for first, end in spans):
            # A worker that was given up for lost may be writing there still.
            shutil.rmtree(of_frame, ignore_errors=True)


def crops_in(folder: Path) -> list[Path]:
    """The files of whole crops in it."""
    return [path for path in folder.glob("*/*.npy") if ".part." not in path.name]


def bytes_in(folder: Path) -> int:
    """What the crops in it take."""
    return sum(path.lstat().st_size for path in folder.glob("*/*.npy"))

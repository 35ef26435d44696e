"""The crop cache: restored crops on disk, so that a network computes each only once."""

from __future__ import annotations

import hashlib
import io
import logging
import shutil
from bisect import bisect_right
from collections.abc import MutableMapping, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from torch.utils.weak import WeakTensorKeyDictionary

from vidrestore.common.checksums import ChecksumError, checked_content, checksum_line
from vidrestore.common.errors import is_disk_full
from vidrestore.common.files import remove_tree, written_atomically
from vidrestore.common.handled import logged
from vidrestore.imaging.device_copies import to_host

ROOM_BYTES = 10**9
"""The number of bytes of the disk that must stay free when a crop of an unfinished segment is
written.
"""
_log = logging.getLogger("vidrestore")
# At edges resampling overshoots the values that it interpolates by less than this.
_OVERSHOOT = 0.5
_DTYPES = ("<f2", "<f4")


class CropCache:
    """Keeps results of networks on disk, one file for each, by a key of what they depend on.

    A file holds a crop of side W in 12 W^2 bytes, or half of that where 16-bit floats hold its
    values exactly, in the .npy format of numpy, and then a checksum of its key and these bytes. The
    cache returns exactly the bits that were kept under the key, and it refuses values that no face
    can have. Several processes may use one folder.
    """

    keeps_cheap = True
    """Whether the cache also keeps results of restorers that declare themselves cheap."""

    def __init__(self, folder: Path, environment: str) -> None:
        """Use a folder.

        Args:
            folder: The folder of the files; it is created when the first crop is kept.
            environment: A text that changes whenever the way in which networks run changes
                their results.
        """
        self._folder, self._environment = folder, environment
        self.note: str | None = None
        """One sentence on why some crops were not kept; None where all were kept."""
        # Each crop is hashed once, although the windows of several frames hold it.
        self._digests: MutableMapping[torch.Tensor, bytes] = WeakTensorKeyDictionary()

    def key(self, network: str, crops: Sequence[torch.Tensor]) -> str:
        """Return the key of the result for a window of crops.

        Args:
            network: The name of the network and of all that its results depend on besides the
                crops.
            crops: The crops of the window, (3, W, W) each, on any device.

        Returns:
            64 hexadecimal digits (SHA-256).
        """
        digest = hashlib.sha256(repr((self._environment, network)).encode())
        for crop in crops:
            digest.update(self._digest(crop))
        return digest.hexdigest()

    def _digest(self, crop: torch.Tensor) -> bytes:
        """Hash the shape and the values of one crop."""
        kept = self._digests.get(crop)
        if kept is None:
            digest = hashlib.sha256(repr(crop.shape).encode())
            digest.update(np.ascontiguousarray(to_host(crop).numpy()).data)
            kept = self._digests[crop] = digest.digest()
        return kept

    def find(self, key: str, index: int, side: int) -> torch.Tensor | None:
        """Return the restored crop that was kept under a key.

        A file that is damaged, unreadable or of another size is logged and treated as missing.

        Args:
            key: A key that `key` returned.
            index: The index of the frame.
            side: The side W of the crop in pixels.

        Returns:
            (3, W, W) float32 on the CPU; None where no valid crop of that side is kept.
        """
        path = self._path(key, index)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.info(
                "the restored crop %s cannot be read; the network computes it again: %s",
                path,
                error,
            )
            return None
        crop = None
        with logged(ChecksumError, what=f"reading {path}"):
            crop = _unpacked(checked_content(data, key), side)
        if crop is None or not _is_face(crop):
            _log.info("the restored crop %s is not valid; the network computes it again", path)
            return None
        return crop

    def keep(self, key: str, index: int, crop: torch.Tensor) -> None:
        """Keep a restored crop.

        The file is not flushed to the disk, since the checksum shows whether it is complete. A crop
        that `find` would refuse is logged and not written.

        Args:
            key: A key that `key` returned.
            index: The index of the frame.
            crop: (3, W, W) float32, on any device.

        Raises:
            OSError: The file cannot be written.
        """
        path = self._path(key, index)
        if not _is_face(crop):
            _log.info("a restored crop of frame %d has impossible values and is not kept", index)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        half = crop.half()
        kept = half if torch.equal(half.float(), crop) else crop
        samples = to_host(kept).numpy()
        content = _header(samples.dtype.str, samples.shape[-1]) + samples.tobytes()
        with written_atomically(path, lasting=False) as part, part.open("wb") as file:
            file.write(content)
            file.write(checksum_line(content, key))

    def _path(self, key: str, index: int) -> Path:
        # Subfolders, so that no folder holds hundreds of thousands of files.
        return self._folder / key[:2] / f"{key[2:]}.npy"


def _header(dtype: str, side: int) -> bytes:
    """Return what numpy writes before the samples of a (3, W, W) array."""
    packed = io.BytesIO()
    described = {"descr": dtype, "fortran_order": False, "shape": (3, side, side)}
    np.lib.format.write_array_header_1_0(packed, described)
    return packed.getvalue()


def _unpacked(content: bytes, side: int) -> torch.Tensor | None:
    """Return the (3, W, W) float32 crop in a file's content; None where `keep` did not write it.

    The header is compared and not parsed, so that a forged header has no effect.
    """
    for dtype in _DTYPES:
        header = _header(dtype, side)
        size = len(header) + 3 * side * side * np.dtype(dtype).itemsize
        if content.startswith(header) and len(content) == size:
            samples = np.frombuffer(content, dtype, offset=len(header))
            return torch.from_numpy(samples.reshape(3, side, side).astype(np.float32))
    return None


def _is_face(crop: torch.Tensor) -> bool:
    """Return whether all values can result from resampling a picture in [0, 1]."""
    low, high = crop.aminmax()  # NaN, where there is one
    return bool(low >= -_OVERSHOOT) and bool(high <= 1 + _OVERSHOOT)


class CropsUnderWay(CropCache):
    """Keeps the crops of segments that are not finished, by frame, until they are finished.

    Where the disk has too little room, crops are not kept, and `note` says so.
    """

    keeps_cheap = False

    def keep(self, key: str, index: int, crop: torch.Tensor) -> None:
        """Keep a restored crop while at least `ROOM_BYTES` of the disk stay free.

        Without room for the crop the cache sets `note` and keeps nothing from then on.

        Args:
            key: A key that `key` returned.
            index: The index of the frame.
            crop: (3, W, W) float32, on any device.

        Raises:
            OSError: The file cannot be written, for another reason than a full disk.
        """
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
            "faces of unfinished segments were not kept there; an interrupted run will continue "
            "from the last complete segment"
        )

    def _path(self, key: str, index: int) -> Path:
        return self._folder / f"{index:08}" / f"{key}.npy"


def forget_frames_outside(folder: Path, spans: Sequence[tuple[int, int]]) -> None:
    """Remove the crops that `CropsUnderWay` keeps of all frames outside some spans.

    Args:
        folder: The folder of the crops; it need not exist.
        spans: The frames to keep, as half-open ranges [first, end) of frame indexes.
    """
    if not folder.is_dir():
        return
    ordered = sorted(spans)
    firsts, ends = [first for first, _ in ordered], list(accumulate((e for _, e in ordered), max))
    for of_frame in folder.iterdir():
        index = int(of_frame.name) if of_frame.name.isdecimal() else -1
        before = bisect_right(firsts, index)  # the number of spans that begin there or earlier
        if before == 0 or index >= ends[before - 1]:
            # A worker that was presumed dead may still be writing there.
            remove_tree(of_frame)


def crops_in(folder: Path) -> list[Path]:
    """List the files of whole crops in a folder.

    Args:
        folder: The folder of a `CropCache`.

    Returns:
        The paths, without files that are still being written.
    """
    return [path for path in folder.glob("*/*.npy") if ".part." not in path.name]


def bytes_in(folder: Path) -> int:
    """Return the total size of the crops in a folder.

    Args:
        folder: The folder of a `CropCache`.

    Returns:
        The size in bytes, with files that are still being written.
    """
    return sum(path.lstat().st_size for path in folder.glob("*/*.npy"))

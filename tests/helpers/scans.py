"""Pictures and numbered sequences of them, with a face where they are bright."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from helpers.media import AS_PAINTED, OneFace, Painter

from vidrestore.api import restore_video
from vidrestore.common.profiles import load_settings
from vidrestore.imaging.planes import plane
from vidrestore.jobs.image_output import samples_of
from vidrestore.jobs.summary import Summary
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.media.images import files
from vidrestore.media.images.exif import Directory, Tags, exif_bytes
from vidrestore.media.probe import probe

SIZE = (160, 120)
OPTIONS = AS_PAINTED | {"deflicker.amount": 0, "people.recognise": False, "detect.remember": False}
RGB = (0.2, 0.7, 0.4)


class OneFaceInBright(OneFace):
    """A detector that sees the same face in every picture that is not dark."""

    def __call__(self, picture: Any) -> list[Any]:
        found = super().__call__(picture)
        return found if picture.mean() > 60 else []


class Breaks(Painter):
    """Another colour for every face, until it breaks."""

    def __init__(self, at: int = 10**6) -> None:
        super().__init__()
        self.faces, self.at = 0, at

    def __call__(self, windows):
        self.faces += len(windows)
        if self.faces > self.at:
            raise OSError("a defect of the restorer")
        return (0.5 * windows[:, 0] + 0.5 * super().__call__(windows)).clamp(0, 1)


def samples(channels: int = 3, bits: int = 16, seed: int = 0, *, dark: bool = False) -> Any:
    """(120, 160, channels), of random values in the middle of the range, or of the lowest."""
    random = np.random.default_rng(seed)
    low, high = (0, 0.2) if dark else (0.4, 0.6)
    values = random.uniform(low, high, (SIZE[1], SIZE[0], channels)) * (2**bits - 1)
    return values.astype(np.uint8 if bits == 8 else np.uint16)


def write_scans(
    folder: Path,
    numbers: Sequence[int],
    suffix: str = ".tif",
    *,
    dark: Sequence[int] = (),
    **how: Any,
) -> Path:
    """Files scan_000007.tif and so on; gives their pattern."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        picture = samples(seed=number, dark=number in dark, **how)
        cv2.imwrite(str(folder / f"scan_{number:06d}{suffix}"), picture)
    return folder / f"scan_%06d{suffix}"


def restored(source: Path, target: Path, restorer: Any = None, **more: Any) -> Summary:
    keywords = {name: more.pop(name) for name in [*more] if "." not in name}
    settings = load_settings(options=OPTIONS | more)
    return restore_video(source, target, settings, restorer=restorer or Painter(RGB), **keywords)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def read(path: Path) -> Any:
    """As another library reads it: B, G, R; not turned upright."""
    found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    assert found is not None
    return found


def decoded(path: Path) -> Any:
    """(rows, columns, channels), as ffmpeg reads it; grey or R, G, B."""
    header = files.read_header(path)
    image = next(decode(path, DecodeErrors())).image
    return samples_of(image, header, probe(path, load_settings()).info)


def changed_box(before: Any, after: Any) -> tuple[int, int, int, int]:
    """x, y, width and height around all samples that differ."""
    differs = before != after
    if differs.ndim == 3:
        differs = differs.any(axis=2)
    return tuple(cv2.boundingRect(differs.astype(np.uint8)))  # type: ignore[return-value]


def exif(orientation: int, order: str = "<") -> bytes:
    tags = Tags(order, Directory(), False)
    tags.set(274, orientation, short=True)
    tags.set_bytes(0x9286 - 1, b"a note of another maker")
    return exif_bytes(tags)


def encoded(codec: str, image: Any) -> bytes:
    """What ffmpeg makes of one picture, as a file."""
    context: Any = av.CodecContext.create(codec, "w")
    context.width, context.height = image.width, image.height
    context.pix_fmt, context.time_base = image.format.name, 1
    image.pts = 0
    return b"".join(bytes(p) for given in (image, None) for p in context.encode(given))


def planar_image(pixel_format: str, seed: int) -> Any:
    """Mid-range random samples in a format with a plane for each component."""
    image = av.VideoFrame(*SIZE, pixel_format)
    bits = image.format.components[0].bits
    random = np.random.default_rng(seed)
    for index in range(len(image.planes)):
        view = plane(image, index)
        view[...] = random.integers(int(0.4 * 2**bits), int(0.6 * 2**bits), view.shape)
    return image


def png_chunk(name: bytes, content: bytes) -> bytes:
    import zlib

    ends = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + ends

"""Pictures that move: animated GIF, WebP and PNG, which vidrestore refuses alike."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO

from vidrestore.common.errors import InputError
from vidrestore.common.handled import logged

_PNG = b"\x89PNG\r\n\x1a\n"
_GIF = (b"GIF87a", b"GIF89a")
_EXTENDED_WEBP_AT, _FLAGS_AT, _HAS_ANIMATION = slice(8, 16), 20, 0x02
_HEAD_BYTES = 32
_MOST_CHUNKS = 1000


def check_no_animation(path: Path) -> None:
    """Check by its content that a file is no animated picture.

    PyAV reads no animated WebP. Of the others, it makes R'G'B' with transparency, which few players
    show as a video.

    Args:
        path: The file. One that does not exist or cannot be read passes the check.

    Raises:
        InputError: The file is a GIF, or an animated WebP or PNG.
    """
    with logged(OSError, ValueError):  # ValueError: NUL in the name
        kind = _kind(path)
        if kind is not None:
            raise InputError(
                f"{path} is {kind}; convert it to a video first, for example with "
                "ffmpeg -i INPUT -pix_fmt yuv420p OUTPUT.mp4"
            )


def _kind(path: Path) -> str | None:
    """Return what an animation is, in words; None for other files."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        if head.startswith(_GIF):
            return "a GIF"
        if head.startswith(b"RIFF") and head[_EXTENDED_WEBP_AT] == b"WEBPVP8X":
            return "an animated WebP" if head[_FLAGS_AT] & _HAS_ANIMATION else None
        if head.startswith(_PNG):
            return "an animated PNG" if _has_animation(file) else None
    return None


def _has_animation(file: IO[bytes]) -> bool:
    """Tell whether a PNG file states an animation before its first picture."""
    at = len(_PNG)
    for _ in range(_MOST_CHUNKS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return False
        length, name = struct.unpack(">I4s", head)
        if name in (b"acTL", b"IDAT"):
            return bool(name == b"acTL")
        at += length + 12
    return False

"""Text files that belong to a request: lists of shots and cuts, curves, profiles."""

from __future__ import annotations

import codecs
from pathlib import Path

from vidrestore.errors import ConfigError

_MOST_BYTES = 16 << 20


def can_be_found(path: Path) -> bool:
    """Something has that name; False, too, for what can be no name of a file."""
    try:
        return path.exists()
    except (OSError, ValueError):  # it is too long, in a closed folder, or holds NUL
        return False


def read_text(path: Path, what: str, *, errors: str = "strict") -> str:
    """The text of a file, without the byte order mark that some editors write.

    Args:
        path: The file, of at most 16 MiB.
        what: What it is, as in "the profile".
        errors: What becomes of bytes that are no UTF-8, as for `bytes.decode`.

    Raises:
        ConfigError: It cannot be read, is too large, or is no text.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"{what} {path} does not exist") from error
    except (OSError, ValueError) as error:  # ValueError: NUL in the name
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise ConfigError(f"{what} {path} cannot be read: {reason}") from error
    if len(data) > _MOST_BYTES:
        raise ConfigError(
            f"{what} {path} is larger than {_MOST_BYTES >> 20} MiB, so it is another kind of file"
        )
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{what} {path} cannot be read: it is no text in UTF-8; save it as such"
        ) from error

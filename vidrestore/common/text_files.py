"""Reading of text files that people write: TOML profiles, lists of shots, and single values."""

from __future__ import annotations

import codecs
import tomllib
from pathlib import Path
from typing import Any

from vidrestore.common.errors import ConfigError, system_reason
from vidrestore.common.files import check_readable_kind
from vidrestore.common.handled import log_handled
from vidrestore.common.quoting import shortened

_MOST_BYTES = 16 << 20


_DEEPEST = 16


def read_toml(path: Path, what: str) -> tuple[dict[str, Any], str]:
    """Read a TOML file.

    Args:
        path: The file.
        what: The kind of the file for messages, such as "the profile".

    Returns:
        The table, and the text without a byte order mark, which some editors write. Tables and
        lists are nested at most 16 deep, and integers have at most 64 bits. Other numbers may be
        infinite or NaN; the caller must check that.

    Raises:
        ConfigError: The file cannot be read, is too large or nested too deeply, or is not TOML.
    """
    text = read_text(path, what)
    try:
        return parsed_toml(text), text
    except ConfigError as error:
        raise ConfigError(f"{what} {path} is not valid TOML: {error}") from error


def parsed_toml(text: str) -> dict[str, Any]:
    """Parse a TOML text.

    Args:
        text: The text.

    Returns:
        The table.

    Raises:
        ConfigError: The text is not TOML, is nested too deeply, or holds an integer of more than
            64 bits. The message is only the reason.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(shortened(str(error))) from error
    except ValueError as error:  # Python raises it for numbers of more than about 4300 digits
        raise ConfigError(_TOO_LARGE) from error
    except RecursionError as error:
        raise ConfigError(_TOO_DEEP) from error
    _check(table)
    return table


_TOO_DEEP = f"tables or lists are nested more than {_DEEPEST} deep"
_TOO_LARGE = "a whole number has more than the 64 bits that TOML allows"


def _check(table: dict[str, Any]) -> None:
    """Raise ConfigError where a table is nested too deeply or an integer is too large."""
    # A recursive function would fail for the deep tables that this check rejects.
    level: list[Any] = [table]
    for _ in range(_DEEPEST):
        inner = [part for each in level for part in _parts(each)]
        if any(isinstance(part, int) and not -(1 << 63) <= part < 1 << 63 for part in inner):
            raise ConfigError(_TOO_LARGE)
        level = [part for part in inner if isinstance(part, dict | list)]
        if not level:
            return
    raise ConfigError(_TOO_DEEP)


def _parts(value: Any) -> list[Any]:
    """List the values in a table or a list."""
    return list(value.values() if isinstance(value, dict) else value)


def can_be_found(path: Path) -> bool:
    """Tell whether a path exists; no path raises an error.

    Args:
        path: The path.

    Returns:
        False also for a path that is not valid or cannot be reached.
    """
    try:
        return path.exists()
    except (OSError, ValueError) as error:  # too long, in a closed folder, or holds NUL
        log_handled(error)
        return False


def read_text(
    path: Path, what: str, *, errors: str = "strict", most_bytes: int = _MOST_BYTES
) -> str:
    """Read a text file in UTF-8, or in UTF-16 with a byte order mark, as Windows programs write it.

    Args:
        path: The file.
        what: The kind of the file for messages, such as "the profile".
        errors: The treatment of bytes that are no text, as for `bytes.decode`; default:
            "strict".
        most_bytes: The greatest size of the file; default: 16 MiB.

    Returns:
        The text without a byte order mark, which some editors write.

    Raises:
        ConfigError: The path is not an ordinary file, or the file cannot be read, is too large, or
            is neither UTF-8 nor UTF-16 with a byte order mark.
    """
    check_readable_kind(path, what, ConfigError)
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"{what} {path} does not exist") from error
    except (OSError, ValueError) as error:  # ValueError: NUL in the name
        reason = system_reason(error)
        raise ConfigError(f"{what} {path} cannot be read: {reason}") from error
    if len(data) > most_bytes:
        raise ConfigError(
            f"{what} {path} is larger than {most_bytes >> 20} MiB, so it is another kind of file"
        )
    is_wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        if is_wide:
            return data.decode("utf-16", errors)
        return data.removeprefix(codecs.BOM_UTF8).decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{what} {path} cannot be read: it is not text in UTF-8; save it in UTF-8"
        ) from error

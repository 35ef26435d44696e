"""TOML that people write: profiles, lists of shots, and single values."""

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
    """A file's table, and its text without the byte order mark that some editors write.

    Args:
        path: The file.
        what: What it is, as in "the profile".

    Returns:
        Tables and lists are at most 16 deep. Whole numbers have at most 64 bits; others may be
        infinite or nan, which the caller has to refuse.

    Raises:
        ConfigError: It cannot be read, is too large or too deep, or is not TOML.
    """
    text = read_text(path, what)
    try:
        return parsed_toml(text), text
    except ConfigError as error:
        raise ConfigError(f"{what} {path} is not valid TOML: {error}") from error


def parsed_toml(text: str) -> dict[str, Any]:
    """The table that a text is; ConfigError, which says only what is wrong, where it is none."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(shortened(str(error))) from error
    except ValueError as error:  # of Python, which refuses to read some 4300 digits
        raise ConfigError(_TOO_LARGE) from error
    except RecursionError as error:
        raise ConfigError(_TOO_DEEP) from error
    _check(table)
    return table


_TOO_DEEP = f"tables or lists lie more than {_DEEPEST} deep in one another"
_TOO_LARGE = "a whole number is larger than the 64 bits that TOML has for one"


def _check(table: dict[str, Any]) -> None:
    # Not by recursion, which is what deep tables would break, here and in whoever reads them.
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
    return list(value.values() if isinstance(value, dict) else value)


def can_be_found(path: Path) -> bool:
    """Something has that name; False, too, for what can be no name of a file."""
    try:
        return path.exists()
    except (OSError, ValueError) as error:  # too long, in a closed folder, or holds NUL
        log_handled(error)
        return False


def read_text(path: Path, what: str, *, errors: str = "strict") -> str:
    """The text of a file, without the byte order mark that some editors write.

    Args:
        path: The file, of at most 16 MiB.
        what: What it is, as in "the profile".
        errors: What becomes of bytes that are no UTF-8, as for `bytes.decode`.

    Raises:
        ConfigError: It is no ordinary file, cannot be read, is too large, or is no text.
    """
    check_readable_kind(path, what, ConfigError)
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"{what} {path} does not exist") from error
    except (OSError, ValueError) as error:  # ValueError: NUL in the name
        reason = system_reason(error)
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

"""TOML that people write: profiles, lists of shots, and single values."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from vidrestore.errors import ConfigError
from vidrestore.sidefiles import read_text
from vidrestore.wording import shortened

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

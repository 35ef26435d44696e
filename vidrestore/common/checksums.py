"""SHA-256 of files, and stored content that carries its own, so that damage is noticed.

A checksum tells what is damaged or put in the place of something else; it is no signature. Whoever
writes a file may compute it anew, so the values of what is read are checked besides.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

_LABEL = b"\nsha256 "
_LINE_BYTES = len(_LABEL) + 2 * hashlib.sha256().digest_size
_FIELD = "sum"


class ChecksumError(ValueError):
    """Content does not have the checksum that it carries."""


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of all that a file holds, in hexadecimal digits.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FileHashes:
    """SHA-256 of files, each read once as long as its size and its time of change stay.

    One object serves a run, so that what was compared before use is not read again for a key.
    """

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, ...], str]] = {}

    def sha256(self, path: Path) -> str:
        """As `sha256_of_file` gives it.

        Raises:
            OSError: The file cannot be read.
        """
        state = path.stat()
        version = state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns
        known = self._known.get(path.absolute())
        if known is None or known[0] != version:
            known = self._known[path.absolute()] = version, sha256_of_file(path)
        return known[1]


def checksum_line(content: bytes | memoryview, key: str = "") -> bytes:
    """What is appended to stored bytes: their SHA-256, with that of what they are stored for.

    Args:
        content: The bytes.
        key: What they are, so that they are not taken for anything else.
    """
    digest = hashlib.sha256(key.encode())
    digest.update(content)
    return _LABEL + digest.hexdigest().encode()


def checked_content(stored: bytes, key: str = "") -> bytes:
    """The bytes before their `checksum_line`.

    Args:
        stored: Content and line, as they were written.
        key: That with which the line was made.

    Raises:
        ChecksumError: The line is missing, or of other bytes or of another key.
    """
    content, line = stored[:-_LINE_BYTES], stored[-_LINE_BYTES:]
    if not hmac.compare_digest(line, checksum_line(content, key)):
        raise ChecksumError("its content does not have the checksum at its end")
    return content


def has_checksum_line(stored: bytes) -> bool:
    """Whether the bytes end with a `checksum_line`, be it the right one or not."""
    return stored[-_LINE_BYTES:].startswith(_LABEL)


def checksum_of_fields(fields: Mapping[str, Any]) -> str:
    """The SHA-256 of plain values, as JSON holds them, however these are laid out."""
    plain = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode()).hexdigest()


def with_checksum(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The same fields, and "sum" with the checksum of all of them."""
    return dict(fields) | {_FIELD: checksum_of_fields(fields)}


def checked_fields(stored: object) -> dict[str, Any]:
    """The fields to which `with_checksum` added theirs.

    Args:
        stored: What was read from JSON.

    Raises:
        ChecksumError: It is no object, or does not have its checksum.
        RecursionError: It is nested too deeply.
    """
    if not isinstance(stored, dict):
        raise ChecksumError("it holds no object")
    fields = {name: value for name, value in stored.items() if name != _FIELD}
    found = str(stored.get(_FIELD, "")).encode(errors="replace")
    if not hmac.compare_digest(found, checksum_of_fields(fields).encode()):
        raise ChecksumError("its content does not have its checksum")
    return fields


def fields_from_json(text: str) -> dict[str, Any]:
    """`checked_fields` of a text.

    Raises:
        ValueError: It is no JSON, holds a number that JSON does not have, or does not have its
            checksum.
        RecursionError: It is nested too deeply.
    """
    return checked_fields(json.loads(text, parse_constant=_refuse))


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it holds {constant}")

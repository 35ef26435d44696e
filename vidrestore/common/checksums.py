"""SHA-256 of files, and stored content with its own checksum, which reveals damage.

A checksum reveals damaged or exchanged content. It is not a signature: a person who writes a file
can compute its checksum, so readers check the values as well.
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
    """Hash the content of a file.

    Args:
        path: The file.

    Returns:
        The SHA-256, as 64 hexadecimal digits.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FileHashes:
    """The SHA-256 of files, each read once while its size and its time of modification stay.

    A run uses one object, so that a file that was hashed for a comparison is not read again for a
    key.
    """

    def __init__(self) -> None:
        self._hashes: dict[Path, tuple[tuple[int, ...], str]] = {}

    def sha256(self, path: Path) -> str:
        """Hash a file, or return the hash of an earlier call.

        Args:
            path: The file.

        Returns:
            The SHA-256, as 64 hexadecimal digits.

        Raises:
            OSError: The file cannot be read.
        """
        state = path.stat()
        version = state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns
        entry = self._hashes.get(path.absolute())
        if entry is None or entry[0] != version:
            entry = self._hashes[path.absolute()] = version, sha256_of_file(path)
        return entry[1]


def checksum_line(content: bytes | memoryview, key: str = "") -> bytes:
    """Return the line with the SHA-256 of a key and of content, to append to the content.

    Args:
        content: The content to store.
        key: A text that tells what the content is, so that it cannot be taken for something else;
            default: empty.

    Returns:
        The line, of a fixed number of bytes.
    """
    digest = hashlib.sha256(key.encode())
    digest.update(content)
    return _LABEL + digest.hexdigest().encode()


def checked_content(stored: bytes, key: str = "") -> bytes:
    """Check stored content and remove its `checksum_line`.

    Args:
        stored: The content and its line.
        key: The key with which the line was made; default: empty.

    Returns:
        The content.

    Raises:
        ChecksumError: The line is missing, or belongs to other content or another key.
    """
    content, line = stored[:-_LINE_BYTES], stored[-_LINE_BYTES:]
    if not hmac.compare_digest(line, checksum_line(content, key)):
        raise ChecksumError("its content does not have the checksum at its end")
    return content


def has_checksum_line(stored: bytes) -> bool:
    """Tell whether stored content ends with a `checksum_line`, correct or not.

    Args:
        stored: The content, with or without a line.

    Returns:
        True where it ends with a line.
    """
    return stored[-_LINE_BYTES:].startswith(_LABEL)


def checksum_of_fields(fields: Mapping[str, Any]) -> str:
    """Hash fields of plain values, regardless of their order and of the layout of the JSON.

    Args:
        fields: Name -> value, as JSON can hold them.

    Returns:
        The SHA-256, as 64 hexadecimal digits.
    """
    plain = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode()).hexdigest()


def with_checksum(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Add the checksum of all fields as the field "sum".

    Args:
        fields: Name -> value, as JSON can hold them.

    Returns:
        A copy of the fields with the checksum.
    """
    return dict(fields) | {_FIELD: checksum_of_fields(fields)}


def checked_fields(stored: object) -> dict[str, Any]:
    """Check the checksum that `with_checksum` added, and remove it.

    Args:
        stored: A value that was read from JSON.

    Returns:
        The fields without the checksum.

    Raises:
        ChecksumError: The value is not an object, or its checksum is missing or wrong.
        RecursionError: The value is nested too deeply.
    """
    if not isinstance(stored, dict):
        raise ChecksumError("it is not an object")
    fields = {name: value for name, value in stored.items() if name != _FIELD}
    checksum = str(stored.get(_FIELD, "")).encode(errors="replace")
    if not hmac.compare_digest(checksum, checksum_of_fields(fields).encode()):
        raise ChecksumError("its content does not have its checksum")
    return fields


def fields_from_json(text: str) -> dict[str, Any]:
    """Read fields with a checksum from a JSON text, and check them; see `checked_fields`.

    Args:
        text: The JSON text.

    Returns:
        The fields without the checksum.

    Raises:
        ValueError: The text is not JSON, contains NaN or infinity, or its checksum is missing or
            wrong.
        RecursionError: The text is nested too deeply.
    """
    return checked_fields(json.loads(text, parse_constant=_refuse))


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it holds {constant}")

"""Reading of XML files of other programs, without anything that XML lets a file ask for.

Entities, other files and the network are never used: a file with a document type of its own is
refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from vidrestore.common.errors import ConfigError
from vidrestore.common.text_files import read_text

_DEEPEST = 200
_MOST_ELEMENTS = 4_000_000


class _RefusedError(ValueError):
    """A reason not to read a file, as the end of a sentence."""


def read_xml(path: Path, what: str, most_bytes: int) -> Element:
    """Read an XML file.

    Args:
        path: The file, in UTF-8 or UTF-16.
        what: The kind of the file for messages, such as "the list of cuts".
        most_bytes: The greatest size of the file.

    Returns:
        The root element. Elements are nested at most 200 deep.

    Raises:
        ConfigError: The file cannot be read, is too large or nested too deeply, is not XML, or
            declares a document type of its own.
    """
    text = read_text(path, what, most_bytes=most_bytes)
    try:
        return _parsed(text)
    except expat.ExpatError as error:
        reason = expat.ErrorString(error.code)
        raise ConfigError(
            f"{what} {path} is not valid XML: {reason} in line {error.lineno}, column "
            f"{error.offset + 1}"
        ) from error
    except _RefusedError as error:
        raise ConfigError(f"{what} {path} {error}") from error


def _parsed(text: str) -> Element:
    """Parse a text; raise ExpatError or _RefusedError where that is not possible."""
    builder, parser = TreeBuilder(), expat.ParserCreate()
    depth = count = 0

    def start(tag: str, attributes: Mapping[str, str]) -> None:
        nonlocal depth, count
        depth, count = depth + 1, count + 1
        if depth > _DEEPEST:
            raise _RefusedError(f"nests its elements more than {_DEEPEST} deep")
        if count > _MOST_ELEMENTS:
            raise _RefusedError(f"has more than {_MOST_ELEMENTS:,} elements")
        builder.start(tag, dict(attributes))

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def document_type(name: str, system: str | None, public: str | None, has_own: int) -> None:
        if has_own:
            raise _RefusedError(
                f"declares a document type {name} of its own, which vidrestore does not read, "
                "since it can make a small file huge; export the file again"
            )

    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = document_type
    parser.Parse(text, True)
    return builder.close()

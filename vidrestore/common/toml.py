"""Writing TOML, for profiles and lists of shots; `vidrestore.common.text_files` reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomlkit
from tomlkit.container import Container
from tomlkit.items import Item, String, StringType, Table, Trivia

from vidrestore.common.quoting import printable


def toml_text(values: Mapping[str, Any]) -> str:
    """A TOML document.

    Args:
        values: Texts, numbers, truth values, lists, and mappings, which become tables. None
            becomes a comment, since TOML has no such value.

    Returns:
        The text. What a terminal would not show stands in it as an escape; a byte of a file name
        that is no UTF-8 (a surrogate) does not, and cannot be written to a file.
    """
    document = tomlkit.document()
    _fill(document, values)
    return tomlkit.dumps(document)


def _fill(table: Container | Table, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if value is None:
            table.add(tomlkit.comment(f"{key} has no value"))
        elif not isinstance(value, Mapping):
            table.add(key, toml_item(value))
    for key, value in values.items():
        if isinstance(value, Mapping):
            inner = tomlkit.table()
            _fill(inner, value)
            table.add(key, inner)


def toml_item(value: Any) -> Item:
    """A text, a number, a truth value, or a list of such, as tomlkit writes it.

    Args:
        value: The value; of a text, what a terminal would not show becomes an escape.

    Returns:
        What can be added to a document or a table of tomlkit.
    """
    if isinstance(value, str):
        quoted = tomlkit.string(value).as_string()
        text = "".join(map(_escaped, quoted[1:-1]))
        return String(StringType.SLB, value, text, Trivia())
    if isinstance(value, list | tuple):
        array = tomlkit.array()
        for each in value:
            array.append(toml_item(each))
        return array
    item: Item = tomlkit.item(value)
    return item


def is_utf8(text: str) -> bool:
    """Whether a text can be written at all: no byte of a file name that is no UTF-8 is in it."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _escaped(character: str) -> str:
    if printable(character) == character or not is_utf8(character):
        return character
    return f"\\U{ord(character):08x}"

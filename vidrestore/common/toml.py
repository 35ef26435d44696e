"""Writing of TOML, for profiles and lists of shots; `vidrestore.common.text_files` reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomlkit
from tomlkit.container import Container
from tomlkit.items import Item, String, StringType, Table, Trivia

from vidrestore.common.quoting import printable


def toml_text(values: Mapping[str, Any]) -> str:
    """Write values as a TOML document.

    Args:
        values: Name -> value: texts, numbers, booleans, lists, and mappings, which become tables.
            A list of mappings becomes an array of tables. None becomes a comment, since TOML has
            no such value.

    Returns:
        The document. Characters that a terminal does not show are escapes in it, except for the
        surrogates of bytes of a file name that are not UTF-8: they stay, and cannot be written to
        a file.
    """
    document = tomlkit.document()
    _fill(document, values)
    return tomlkit.dumps(document)


def _fill(table: Container | Table, values: Mapping[str, Any]) -> None:
    """Add values to a table, with inner tables last."""
    for key, value in values.items():
        if value is None:
            table.add(tomlkit.comment(f"{key} has no value"))
        elif not isinstance(value, Mapping) and not _is_tables(value):
            table.add(key, toml_item(value))
    for key, value in values.items():
        if isinstance(value, Mapping):
            table.add(key, _table(value))
        elif _is_tables(value):
            tables = tomlkit.aot()
            for each in value:
                tables.append(_table(each))
            table.add(key, tables)


def _is_tables(value: Any) -> bool:
    """Tell whether a value is a list of mappings."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _table(values: Mapping[str, Any]) -> Table:
    table = tomlkit.table()
    _fill(table, values)
    return table


def toml_item(value: Any) -> Item:
    """Convert a text, a number, a boolean, or a list of such values to an item of tomlkit.

    Args:
        value: The value. In a text, characters that a terminal does not show become escapes.

    Returns:
        An item that can be added to a document or a table of tomlkit.
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
    """Tell whether a text can be written in UTF-8.

    Args:
        text: The text, which may come from a file name.

    Returns:
        False where the text holds surrogates, which stand for bytes that are not UTF-8.
    """
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _escaped(character: str) -> str:
    """Return a character, or its TOML escape where a terminal does not show it."""
    if printable(character) == character or not is_utf8(character):
        return character
    return f"\\U{ord(character):08x}"

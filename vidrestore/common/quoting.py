"""Names and values for messages: short, on one line, without characters that control a terminal."""

from __future__ import annotations

import reprlib
import unicodedata
from collections.abc import Mapping
from typing import Any

_MOST_CHARACTERS = 80
_MOST_DIGITS = 40
_BYTE = 0xDC00
"""os.fsdecode gives the character _BYTE + b for a byte b of a file name that is not UTF-8."""
# These characters change the direction in which the rest of a line is displayed.
_BIDIRECTIONAL = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)


def printable(text: str) -> str:
    r"""Escape the characters that a terminal does not show as a part of one line.

    Args:
        text: The text, which may hold line breaks, control characters, and bytes of a file name
            that are not UTF-8.

    Returns:
        The text with each such character as an escape, such as ``\n``, ``\x1b`` or ``\xff``.
    """
    return text if text.isprintable() else "".join(map(_printable_character, text))


def quoted(value: object) -> str:
    """Format a value for a message: a text in quotes, and a long value shortened.

    Args:
        value: Any value that a person or a damaged file may have written, even a number of
            thousands of digits, or deeply nested lists.

    Returns:
        At most 80 characters on one line.
    """
    text = _Short().repr(value)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 3]}..."


def shortened(text: str, most_characters: int = 300) -> str:
    """Format a message of a library as one printable line.

    Args:
        text: The message.
        most_characters: The greatest length of the line; default: 300.

    Returns:
        The line; a longer one ends in "...".
    """
    line = printable(text)
    return line if len(line) <= most_characters else f"{line[: most_characters - 3]}..."


def first_line(message: object) -> str:
    """Format the first line of a library's message, which may have many.

    Args:
        message: The message, or the exception.

    Returns:
        The line as `shortened` returns it, without a full stop at its end; the name of the type
        where the message is empty.
    """
    text = str(message).strip() or type(message).__name__
    return shortened(text.splitlines()[0].rstrip("."))


_EXPECTED = {
    "float_parsing": "a number", "float_type": "a number", "finite_number": "a finite number",
    "int_parsing": "a whole number", "int_type": "a whole number",
    "int_from_float": "a whole number", "int_parsing_size": "a smaller whole number",
    "bool_parsing": "true or false",
    "bool_type": "true or false", "string_type": "a text", "path_type": "the name of a file",
    "tuple_type": "a list", "string_too_short": "a text of at least {min_length} characters",
    "string_too_long": "a text of at most {max_length} characters",
    "greater_than": "greater than {gt:.10g}",
    "greater_than_equal": "at least {ge:.10g}", "less_than": "less than {lt:.10g}",
    "less_than_equal": "at most {le:.10g}", "multiple_of": "a multiple of {multiple_of:.10g}",
}  # fmt: skip


def not_a_value(name: str, problem: Mapping[str, Any]) -> str:
    """Compose the message for a value that a setting or an option cannot have.

    Args:
        name: The name of the setting or option.
        problem: An error of pydantic, as `ValidationError.errors` returns them.

    Returns:
        The message, one sentence.
    """
    start = f"{name} cannot be {quoted(problem['input'])}"
    if (expected := _EXPECTED.get(problem["type"])) is not None:
        return f"{start}; it must be {expected.format(**problem.get('ctx', {}))}"
    return f"{start}: {shortened(problem['msg'].lower())}"


def _printable_character(character: str) -> str:
    """Return a character, or its escape where a terminal does not show it."""
    code = ord(character)
    if _BYTE + 0x80 <= code <= _BYTE + 0xFF:
        return f"\\x{code - _BYTE:02x}"
    is_hidden = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
    if is_hidden or character in _BIDIRECTIONAL:
        return character.encode("unicode_escape").decode()
    return character


class _Short(reprlib.Repr):
    """Formats values with limits of length and depth."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 4, _MOST_CHARACTERS - 6, _MOST_CHARACTERS

    def repr_str(self, x: str, level: int) -> str:
        short = x if len(x) <= self.maxstring else f"{x[: self.maxstring - 3]}..."
        mark = '"' if "'" in short and '"' not in short else "'"
        inside = short.replace("\\", "\\\\").replace(mark, f"\\{mark}")
        return f"{mark}{printable(inside)}{mark}"

    def repr_int(self, x: int, level: int) -> str:
        # Python raises an error for numbers of more than about 4300 digits.
        if abs(x) < 10**_MOST_DIGITS:
            return repr(x)
        return f"a number of more than {_MOST_DIGITS} digits"

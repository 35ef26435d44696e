"""Names and values as they stand in a message: short, on one line, with nothing that steers a
terminal."""

from __future__ import annotations

import reprlib
import unicodedata
from collections.abc import Mapping
from typing import Any

_MOST_CHARACTERS = 80
_MOST_DIGITS = 40
_BYTE = 0xDC00
"""A byte b of a file name that is no UTF-8 is the character _BYTE + b (os.fsdecode)."""
# They turn around the order in which the rest of a line is shown.
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    r"""What a terminal shows as one line, whatever is in the text.

    Args:
        text: May hold line breaks, control characters, and bytes of a file name that are no UTF-8.

    Returns:
        The text with each of them as an escape, such as ``\n``, ``\x1b`` or ``\xff``.
    """
    return text if text.isprintable() else "".join(map(_printable_character, text))


def quoted(value: object) -> str:
    """A value for a message, in quotes where it is a text, and shortened where it is long.

    Args:
        value: Anything that a person or a damaged file may have written: also a number of
            thousands of digits, or a list in a list in a list.

    Returns:
        At most 80 characters on one line.
    """
    shown = _Short().repr(value)
    return shown if len(shown) <= _MOST_CHARACTERS else f"{shown[: _MOST_CHARACTERS - 3]}..."


def shortened(text: str, most_characters: int = 300) -> str:
    """The reason that a library gives, as one printable line of at most so many characters."""
    line = printable(text)
    return line if len(line) <= most_characters else f"{line[: most_characters - 3]}..."


_EXPECTED = {
    "float_parsing": "a number", "float_type": "a number", "finite_number": "a finite number",
    "int_parsing": "a whole number", "int_type": "a whole number",
    "int_from_float": "a whole number", "bool_parsing": "true or false",
    "bool_type": "true or false", "string_type": "a text", "path_type": "the name of a file",
    "tuple_type": "a list", "greater_than": "greater than {gt:.10g}",
    "greater_than_equal": "at least {ge:.10g}", "less_than": "less than {lt:.10g}",
    "less_than_equal": "at most {le:.10g}", "multiple_of": "a multiple of {multiple_of:.10g}",
}  # fmt: skip


def not_a_value(name: str, problem: Mapping[str, Any]) -> str:
    """The sentence for a value that a setting or an option cannot have.

    Args:
        name: Of the setting or option.
        problem: One of pydantic's, as `ValidationError.errors` gives them.
    """
    start = f"{name} cannot be {quoted(problem['input'])}"
    if (expected := _EXPECTED.get(problem["type"])) is not None:
        return f"{start}; it must be {expected.format(**problem.get('ctx', {}))}"
    return f"{start}: {shortened(problem['msg'].lower())}"


def _printable_character(character: str) -> str:
    code = ord(character)
    if _BYTE + 0x80 <= code <= _BYTE + 0xFF:
        return f"\\x{code - _BYTE:02x}"
    is_hidden = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
    if is_hidden or character in _TURNING:
        return character.encode("unicode_escape").decode()
    return character


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 4, _MOST_CHARACTERS - 6, _MOST_CHARACTERS

    def repr_str(self, x: str, level: int) -> str:
        short = x if len(x) <= self.maxstring else f"{x[: self.maxstring - 3]}..."
        mark = '"' if "'" in short and '"' not in short else "'"
        inside = short.replace("\\", "\\\\").replace(mark, f"\\{mark}")
        return f"{mark}{printable(inside)}{mark}"

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write out more than some 4300 digits.
        if abs(x) < 10**_MOST_DIGITS:
            return repr(x)
        return f"a number of more than {_MOST_DIGITS} digits"

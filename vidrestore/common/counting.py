"""Numbers with their nouns, for messages."""

from __future__ import annotations


def counted(number: int, one: str, many: str | None = None) -> str:
    """Write a number with its noun.

    Args:
        number: The number.
        one: The noun in the singular.
        many: The noun in the plural. Default: the singular with an "s".

    Returns:
        Such as "1 frame" or "1,200 frames".
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"

"""Names and values in messages: short, printable, and never a reason to fail."""

import os
import sys

import pytest

from vidrestore.common.errors import unknown_name
from vidrestore.common.quoting import printable, quoted, shortened


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("holiday ü 休日.mp4", "holiday ü 休日.mp4"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x1b[31mred\x07\x7f\x9b", "\\x1b[31mred\\x07\\x7f\\x9b"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\u2028b", "a\\u2028b"),
        (os.fsdecode(b"caf\xe9\xff"), "caf\\xe9\\xff"),
        ("\ud800", "\\ud800"),
        ("back\\slash", "back\\slash"),
    ],
)
def test_what_is_shown_is_one_line_of_what_can_be_shown(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text).encode("utf-8")


def deep(levels: int) -> list[object]:
    inner: list[object] = []
    for _ in range(levels):
        inner = [inner]
    return inner


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10**6, 10**5000, -(16**9000), [10**5000], {"a": 10**5000}, deep(100_000),
        ["x" * 1000] * 1000, {f"key{i}": i for i in range(1000)}, "\x1b" * 1000, "'\"\n",
        float("nan"), 1e308, None, b"\xff" * 1000,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_value_in_a_message_is_short(value: object) -> None:
    assert sys.get_int_max_str_digits() == 4300
    assert 0 < len(quoted(value)) <= 80
    assert quoted(value).isprintable()


def test_short_values_stand_as_they_are() -> None:
    assert quoted("a b") == "'a b'"
    assert quoted("it's") == '"it\'s"'
    assert quoted(17) == "17"
    assert quoted([1, "x", 0.5]) == "[1, 'x', 0.5]"
    assert shortened("x" * 1000) == "x" * 297 + "..."


def test_a_long_unknown_name_is_answered_at_once_and_briefly() -> None:
    assert len(unknown_name("setting", "size_px" * 10**5, ["size_px", "score"])) < 200
    assert "'3'" in unknown_name("factor", 3, [1, 2, 4])

"""TOML that vidrestore writes."""

import tomllib

import pytest

from vidrestore.common.toml import is_utf8, toml_item, toml_text

VALUES = {
    "text": 'a "b" \\ é \u202e\u2028\x1b\x7f\t\n',
    "numbers": [1, 2.5, 1e-07, -3],
    "none": [],
    "yes": True,
    "nested": [[("0:00:01", 1.0, 2.0)]],
    "table": {"key": "value", "inner": {"x": 1}},
}


def test_what_is_written_is_read_back() -> None:
    text = toml_text(VALUES)
    read = tomllib.loads(text)
    assert read["nested"] == [[["0:00:01", 1.0, 2.0]]]
    assert {k: v for k, v in read.items() if k != "nested"} == {
        k: v for k, v in VALUES.items() if k != "nested"
    }
    assert all(line.isprintable() for line in text.split("\n"))


def test_what_has_no_value_is_a_comment() -> None:
    assert toml_text({"a": {"b": None, "c": 1}}) == "[a]\n# b has no value\nc = 1\n"


def test_tables_stand_apart_and_under_their_whole_names() -> None:
    text = toml_text({"a": {"x": 1, "b": {"y": [1, 2]}}, "c": {"z": 0.5}})
    assert text == "[a]\nx = 1\n\n[a.b]\ny = [1, 2]\n\n[c]\nz = 0.5\n"


@pytest.mark.parametrize(("text", "can_be_written"), [("é", True), ("a\udcff", False)])
def test_a_byte_that_is_no_text_is_known_and_stays(text: str, can_be_written: bool) -> None:
    assert is_utf8(text) is can_be_written
    assert toml_item(text).as_string() == f'"{text}"'

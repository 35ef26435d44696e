"""Numbers agree with their nouns."""

import ast
import re
from pathlib import Path

import pytest

import vidrestore
from vidrestore.common.counting import counted


@pytest.mark.parametrize(
    ("number", "words", "expected"),
    [
        (0, ("frame",), "0 frames"),
        (1, ("frame",), "1 frame"),
        (2, ("path was", "paths were"), "2 paths were"),
        (1, ("path was", "paths were"), "1 path was"),
        (1200, ("person", "people"), "1,200 people"),
    ],
)
def test_a_number_agrees_with_its_noun(number: int, words: tuple[str, ...], expected: str) -> None:
    assert counted(number, *words) == expected


def test_no_message_makes_a_plural_by_itself() -> None:
    for path in Path(vidrestore.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.IfExp):
                ends = {ast.unparse(node.body), ast.unparse(node.orelse)}
                assert ends != {"''", "'s'"}, f"{path.name}:{node.lineno}: use counted()"
                assert not any(re.fullmatch(r"'1 \w+'", end) for end in ends), path.name

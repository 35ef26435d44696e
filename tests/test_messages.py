"""Every error, warning and notice, as one list: pytest -s tests/test_messages.py prints it.

Each says what is wrong, with the value, and what to do; here is held what can be held of that.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import vidrestore
from vidrestore.common import errors

PACKAGE = Path(vidrestore.__file__).parent
ERRORS = {
    name for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.VidrestoreError)
}  # fmt: skip
_MOST_CHARACTERS = 330


def messages() -> Iterator[tuple[str, int, str, str]]:
    """(file, line, kind, text), values as {expressions}."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        name = str(path.relative_to(PACKAGE))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                kind = ast.unparse(node.func).rpartition(".")[2]
                if kind in ERRORS:
                    yield from _texts(name, kind, node.args[:1])
                elif kind in ("notify", "on_notice"):
                    yield from _texts(name, "notice", node.args)
            elif _is_warning(node, name):
                yield from _texts(name, "warning", [node.value])


def _is_warning(node: ast.AST, file: str) -> bool:
    if isinstance(node, ast.Assign):
        return ".notes[" in ast.unparse(node.targets[0])
    return isinstance(node, ast.Yield) and node.value is not None and file == "jobs/summary.py"


def _texts(name: str, kind: str, nodes: list[ast.expr]) -> Iterator[tuple[str, int, str, str]]:
    for node in nodes:
        for part in _alternatives(node):
            if (text := _text(part)) and " " in text:
                yield name, part.lineno, kind, text


def _alternatives(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.IfExp):
        yield from (*_alternatives(node.body), *_alternatives(node.orelse))
    else:
        yield node


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(v.value) if isinstance(v, ast.Constant) else f"{{{ast.unparse(v.value)}}}"
            for v in node.values
            if isinstance(v, ast.Constant | ast.FormattedValue)
        )
    return ""


FOUND = list(messages())


def test_all_are_printed() -> None:
    assert len(FOUND) > 250
    for name, line, kind, text in FOUND:
        print(f"{kind:18} {name}:{line}\n    {text}")


@pytest.mark.parametrize("found", FOUND, ids=[f"{name}:{line}" for name, line, *_ in FOUND])
def test_a_message_is_one_sentence(found: tuple[str, int, str, str]) -> None:
    text = found[3]
    assert len(text) <= _MOST_CHARACTERS
    assert text == text.strip()
    assert not text.endswith((".", "!", ":", ";", ","))
    assert not re.search(r"\b(please|sorry|oops|invalid|illegal|failed to)\b", text, re.I)
    assert not re.search(r"[a-z]\. [A-Z]", text), "two sentences"
    assert "  " not in text
    assert not text[0].isupper() or text.split()[0] in NAMES, "it follows a colon"


NAMES = {"GPEN", "Ray", "InsightFace", "DPX", "Triton", "Triton's"}

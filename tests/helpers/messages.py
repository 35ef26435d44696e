"""The errors, warnings and notices that the package can give, as its source has them."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import vidrestore
from vidrestore.common import errors

PACKAGE = Path(vidrestore.__file__).parent
ERRORS = {
    name for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.VidrestoreError)
}  # fmt: skip


@cache
def messages() -> tuple[tuple[str, int, str, str], ...]:
    """(file, line, kind, text), values as {expressions}."""
    return tuple(_messages())


def _messages() -> Iterator[tuple[str, int, str, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        name = str(path.relative_to(PACKAGE))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                kind = _name(node.func)
                if kind in ERRORS:
                    yield from _texts(name, kind, node.args[:1])
                elif kind in ("notify", "on_notice"):
                    yield from _texts(name, "notice", node.args)
            elif _is_warning(node, name):
                yield from _texts(name, "warning", [node.value])


def _name(function: ast.expr) -> str:
    """The last part of a name with dots."""
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


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

"""Whoever handles an exception raises another, tells the user, or leaves a line in the log."""

import ast
from collections.abc import Iterator
from pathlib import Path

import vidrestore

PACKAGE = Path(vidrestore.__file__).parent

ORDINARY = {
    "BlockingIOError": "another run holds the file, or a filter wants more frames",
    "FileExistsError": "another run made it first",
    "FileNotFoundError": "there is none, which is the first answer of a cache",
    "NotADirectoryError": "the same, where a folder on the way is none",
    "ProcessLookupError": "the process has ended",
    "PackageNotFoundError": "an optional package is not installed",
    "ImportError": "an optional extra is not installed",
    "EOFError": "the end of a stream",
    "Empty": "a queue has nothing yet",
    "Full": "a queue has no room yet",
    "CancelledError": "the task was told to end",
    "_Cancelled": "the stage was told to end",
}
"""Exceptions that are an answer and no failure: their last names, and why."""

ALLOWED = {
    ("cli/__init__.py", "main"): "ends with the status of an interruption and says so",
    ("cli/__init__.py", "_run"): "prints the error and gives the exit status",
    ("models/gpen/inference.py", "_workspace"): "pops from a list that another thread may empty",
    ("common/ending.py", "leave"): "lets the interpreter report the error and end the process",
    ("common/interruption.py", "_note"): "ends the process at once, from a handler of a signal",
    ("web/queue.py", "work"): "puts the reason on the page",
    ("web/library.py", "_read"): "sets the damaged file aside, which says so",
    ("web/library.py", "save"): "puts the reason on the page",
    ("web/server.py", "_serve"): "ends the page, as the user asked",
    ("common/threads.py", "run"): "hands the error on to the thread that waits for it",
    ("common/threads.py", "_settle"): "hands the error on to the thread that waits for it",
}
"""(file, function) whose handlers need no line, and why."""

LEVELS = ("debug", "info", "warning", "error", "exception", "log")
NOTICES = ("notify", "on_notice", "_notify", "log_handled")


def silent(source: str) -> Iterator[tuple[str, int, str]]:
    """(function, line, exceptions) of every handler that swallows what it caught."""
    yield from _silent(ast.parse(source), "")


def _silent(node: ast.AST, function: str) -> Iterator[tuple[str, int, str]]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        function = node.name
    if isinstance(node, ast.ExceptHandler):
        kinds = _names(node.type)
        if not _is_ordinary(kinds) and not any(map(_tells, _inner(node.body))):
            yield function, node.lineno, f"except {', '.join(kinds)}"
    if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "suppress":
        kinds = [name for each in node.args for name in _names(each)]
        if not _is_ordinary(kinds):
            yield function, node.lineno, f"suppress({', '.join(kinds)})"
    if isinstance(node, ast.keyword) and node.arg == "ignore_errors":
        yield function, node.value.lineno, "ignore_errors"
    for child in ast.iter_child_nodes(node):
        yield from _silent(child, function)


def _inner(body: list[ast.stmt]) -> Iterator[ast.AST]:
    for statement in body:
        yield from ast.walk(statement)


def _names(kinds: ast.expr | None) -> list[str]:
    if kinds is None:
        return ["BaseException"]
    parts = kinds.elts if isinstance(kinds, ast.Tuple) else [kinds]
    return [ast.unparse(part).split(".")[-1] for part in parts]


def _is_ordinary(kinds: list[str]) -> bool:
    return all(kind in ORDINARY for kind in kinds)


def _tells(node: ast.AST) -> bool:
    if isinstance(node, ast.Raise):
        return True
    if not isinstance(node, ast.Call):
        return False
    receiver, _, name = ast.unparse(node.func).rpartition(".")
    return name in NOTICES or (name in LEVELS and "log" in receiver.lower())


def test_no_exception_is_swallowed() -> None:
    found = {
        (path.relative_to(PACKAGE).as_posix(), function, line, what)
        for path in sorted(PACKAGE.rglob("*.py"))
        for function, line, what in silent(path.read_text(encoding="utf-8"))
    }
    wrong = [
        f"{file}:{line} {function}: {what}"
        for file, function, line, what in sorted(found)
        if (file, function) not in ALLOWED
    ]
    assert wrong == []
    unused = ALLOWED.keys() - {(file, function) for file, function, _, _ in found}
    assert unused == set()


def test_a_swallowed_exception_is_seen() -> None:
    source = """
def a():
    try:
        b()
    except (ValueError, c.OddError):
        return None
def d():
    with contextlib.suppress(OSError), e():
        pass
try:
    f()
except:
    print(1)
"""
    assert list(silent(source)) == [
        ("a", 5, "except ValueError, OddError"),
        ("d", 8, "suppress(OSError)"),
        ("", 12, "except BaseException"),
    ]


def test_what_tells_of_an_exception_is_seen() -> None:
    handlers = (
        "raise",
        "raise A(b) from c",
        "_log.info('%s', a)",
        "logging.getLogger('vidrestore').debug('a')",
        "notify(on_event, 'a')",
        "self._notify('a')",
    )
    for line in handlers:
        assert list(silent(f"try:\n    a()\nexcept OSError:\n    {line}\n")) == []
    assert list(silent("try:\n    a()\nexcept queue.Empty:\n    pass\n")) == []
    assert list(silent("try:\n    a()\nexcept OSError:\n    sheet.info('a')\n")) != []

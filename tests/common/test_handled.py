"""An exception that is handled without a word to the user leaves a line in the log."""

import ast
import logging
from pathlib import Path

import pytest

import vidrestore
from vidrestore.common.files import remove_tree
from vidrestore.common.handled import log_handled, logged

PACKAGE = Path(vidrestore.__file__).parent
# What waits asks again and again, a thread that is told to end raises, and a signal may come while
# a line of the log is being written: (file, what is caught).
NO_LINE = {
    ("common/threads.py", "queue.Empty"),
    ("common/threads.py", "queue.Full"),
    ("common/threads.py", "_Cancelled"),
    ("common/threads.py", "BaseException"),  # handed on to the reader, who raises it
    ("common/interruption.py", "Exception"),
    ("web/server.py", "KeyboardInterrupt"),  # how the page ends
    # The user is told of these, on the page.
    ("web/queue.py", "OSError"),
    ("web/queue.py", "VidrestoreError"),
    # The function that is called writes the line.
    ("web/library.py", "OSError"),
    ("web/library.py", "UnicodeDecodeError"),
    ("web/library.py", "(ValueError, RecursionError, ValidationError)"),
    ("web/library.py", "FileNotFoundError"),  # nothing was kept yet
    ("web/service.py", "FileNotFoundError"),
    ("web/server.py", "BlockingIOError"),  # another page runs, which is opened
}


def silent(source: str) -> list[str]:
    """What is caught, or suppressed, without being raised and without a line in the log."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler) and not _is_plain(node):
            found.append(ast.unparse(node.type) if node.type else "")
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            found.extend(ast.unparse(each) for each in node.args)
        if isinstance(node, ast.keyword) and node.arg == "ignore_errors":
            found.append("ignore_errors")
    return found


def _is_plain(handler: ast.ExceptHandler) -> bool:
    always_raises = any(isinstance(each, ast.Raise) for each in handler.body)
    calls = [ast.unparse(n.func) for n in ast.walk(handler) if isinstance(n, ast.Call)]
    return always_raises or any("log" in call.lower() for call in calls)


@pytest.mark.parametrize("package", ["common", "review", "web"])
def test_no_exception_is_swallowed_without_a_line(package):
    found = {
        (path.relative_to(PACKAGE).as_posix(), caught)
        for path in (PACKAGE / package).rglob("*.py")
        for caught in silent(path.read_text(encoding="utf-8"))
    }
    assert found <= NO_LINE, sorted(found - NO_LINE)
    assert {each for each in NO_LINE if each[0].startswith(f"{package}/")} <= found


def test_a_silent_handler_is_seen():
    source = (
        "try:\n    a()\nexcept OSError:\n    pass\n"
        "try:\n    a()\nexcept KeyError as error:\n    if b:\n        raise\n"
        "try:\n    a()\nexcept ValueError as error:\n    log_handled(error)\n"
        "try:\n    a()\nexcept TypeError as error:\n    raise B from error\n"
        "with suppress(IndexError):\n    a()\nrmtree(b, ignore_errors=True)\n"
    )
    assert sorted(silent(source)) == ["IndexError", "KeyError", "OSError", "ignore_errors"]


def test_the_line_names_the_error_and_where_it_came_from(caplog):
    def reads() -> None:
        raise FileNotFoundError("tape.mp4")

    with caplog.at_level(logging.DEBUG, "vidrestore"):
        with logged(OSError):
            reads()
        with pytest.raises(KeyError), logged(OSError):
            raise KeyError
        log_handled(ValueError("never raised"))
    first, second = caplog.messages
    assert "reads" in first
    assert "FileNotFoundError('tape.mp4')" in first
    assert "never raised" in second


def test_a_folder_that_cannot_be_removed_leaves_a_line(tmp_path, caplog):
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (folder / "below/file").touch()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    with caplog.at_level(logging.DEBUG, "vidrestore"):
        remove_tree(folder)
        assert not folder.exists()
        assert (tmp_path / "elsewhere").is_dir()
        assert not caplog.messages
        remove_tree(folder)
    assert any("FileNotFoundError" in message for message in caplog.messages)

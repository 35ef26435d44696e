"""The end of a process: exit handlers and output, but no finalization of torch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LEAVING = """
import atexit, sys, threading
from vidrestore.common.ending import leave
class Watched:
    def __del__(self):
        print(", destroyed", end="")
watched = Watched()
atexit.register(print, ", a handler", end="")
print("last", end="")
"""


def left(code: str) -> tuple[str, str, int]:
    given = [sys.executable, "-c", LEAVING + code]
    process = subprocess.run(given, capture_output=True, text=True)
    return process.stdout, process.stderr, process.returncode


def test_a_process_is_left_after_its_exit_handlers() -> None:
    assert left("leave(3)") == ("last, a handler", "", 3)


def test_with_a_thread_the_interpreter_ends_as_usual() -> None:
    # It runs until the interpreter begins to end.
    said = left("threading.Thread(target=threading.main_thread().join).start(); leave(3)")
    assert said == ("last, a handler, destroyed", "", 3)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk always full")
def test_output_that_cannot_be_written_is_no_success() -> None:
    given = [sys.executable, "-c", LEAVING + "leave(0)"]
    buffered = os.environ | {"PYTHONUNBUFFERED": ""}
    with Path("/dev/full").open("w") as full:
        process = subprocess.run(
            given, stdout=full, stderr=subprocess.PIPE, text=True, env=buffered
        )
    assert process.returncode == 120  # as Python does it
    assert "No space left on device" in process.stderr


def test_the_command_ends_so() -> None:
    code = "sys.argv[1:] = ['--version']\nfrom vidrestore.__main__ import main\nmain()"
    said, errors, status = left(code)
    assert ("a handler" in said, "destroyed" in said, errors, status) == (True, False, "", 0)

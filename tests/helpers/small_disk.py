"""A file system of its own, of any size."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOMY = "64m"


@dataclass(frozen=True)
class Disk:
    """A file system of its own in `folder`."""

    folder: Path

    def remount(self, options: str) -> None:
        _run("mount", "-o", f"remount,{options}", str(self.folder))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(done.stderr.strip())


@contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """Skips the test where nothing can be mounted."""
    folder.mkdir()
    try:
        _run("mount", "-t", "tmpfs", "-o", f"size={ROOMY}", "none", str(folder))
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    try:
        yield Disk(folder)
    finally:
        _run("umount", str(folder))

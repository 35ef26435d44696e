"""Temporary folders with an owner; what a killed one left is removed by the next."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vidrestore.common.errors import OutputError, not_written
from vidrestore.common.files import held, remove_tree
from vidrestore.common.handled import logged

_LOCK = "lock"


@contextmanager
def temporary_folder(above: Path | None = None) -> Iterator[Path]:
    """A new folder that only this user can look into, removed with all in it when the scope ends.

    It lies in one folder per user, together with those of other runs. Each owner holds a lock in
    its own, so that what a killed run left is known, and removed, by the next one.

    Args:
        above: Where the folder of the user lies; by default in the one for temporary files.

    Raises:
        OutputError: It cannot be made, or another user has put something in its place.
    """
    above = above or Path(tempfile.gettempdir())
    ours = above / (f"vidrestore-{os.getuid()}" if hasattr(os, "getuid") else "vidrestore")
    with ExitStack() as stack:
        stack.callback(_remove_empty, ours)
        try:
            folder = _made(ours, stack)
        except OSError as error:
            raise not_written(f"making a temporary folder in {above}", above, error) from error
        yield folder


def _made(ours: Path, stack: ExitStack) -> Path:
    while True:
        _make_private(ours)
        # Another run may remove the empty folder just now; then it is made again.
        with logged(FileNotFoundError), held(ours / _LOCK, wait=True):
            _remove_left(ours)
            folder = Path(tempfile.mkdtemp(dir=ours, prefix=""))
            stack.callback(remove_tree, folder)
            stack.enter_context(held(folder / _LOCK, wait=False))
            return folder


def _make_private(ours: Path) -> None:
    with logged(FileExistsError):
        ours.mkdir(mode=0o700)
    with logged(FileNotFoundError):
        found = ours.lstat()
        is_own = not hasattr(os, "getuid") or found.st_uid == os.getuid()
        if not stat.S_ISDIR(found.st_mode) or not is_own:
            raise OutputError(
                f"{ours} is not a folder of this user; remove it, or let TMPDIR name another "
                "folder for temporary files"
            )
        if stat.S_IMODE(found.st_mode) != 0o700:
            ours.chmod(0o700)


def _remove_left(ours: Path) -> None:
    """All that has no living owner; the lock of `ours` is held."""
    for left in ours.iterdir():
        if left.name != _LOCK and left.is_dir() and not left.is_symlink():
            with logged(BlockingIOError):
                with held(left / _LOCK, wait=False):
                    pass
                remove_tree(left)


def _remove_empty(ours: Path) -> None:
    with logged(OSError), held(ours / _LOCK, wait=True):
        if [each.name for each in ours.iterdir()] == [_LOCK]:
            (ours / _LOCK).unlink()
            ours.rmdir()

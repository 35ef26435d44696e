"""Temporary folders with an owner; a run removes the folders that killed runs left."""

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
    """Create a folder that only this user can read, and remove it when the scope ends.

    The folder is in a folder of the user, together with the folders of other runs. Each run locks
    its own folder, so that a later run can recognize and remove the folders of killed runs.

    Args:
        above: The folder that holds the folder of the user; default: the folder of the system for
            temporary files.

    Yields:
        The new folder, which holds only its lock.

    Raises:
        OutputError: The folder cannot be created, or something of another user is in its place.
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
    """Create and lock a folder in the folder of the user, after removing those that are left."""
    while True:
        _make_private(ours)
        # Another run may remove the empty folder at this moment; then the loop creates it again.
        with logged(FileNotFoundError), held(ours / _LOCK, wait=True):
            _remove_left(ours)
            folder = Path(tempfile.mkdtemp(dir=ours, prefix=""))
            stack.callback(remove_tree, folder)
            stack.enter_context(held(folder / _LOCK, wait=False))
            return folder


def _make_private(ours: Path) -> None:
    """Create the folder of the user; raise OutputError where it belongs to another user."""
    with logged(FileExistsError):
        ours.mkdir(mode=0o700)
    with logged(FileNotFoundError):
        state = ours.lstat()
        is_own = not hasattr(os, "getuid") or state.st_uid == os.getuid()
        if not stat.S_ISDIR(state.st_mode) or not is_own:
            raise OutputError(
                f"{ours} is not a folder of this user; remove it, or let TMPDIR name another "
                "folder for temporary files"
            )
        if stat.S_IMODE(state.st_mode) != 0o700:
            ours.chmod(0o700)


def _remove_left(ours: Path) -> None:
    """Remove the folders whose owner has ended; the caller holds the lock of `ours`."""
    for left in ours.iterdir():
        if left.name != _LOCK and left.is_dir() and not left.is_symlink():
            with logged(BlockingIOError):
                with held(left / _LOCK, wait=False):
                    pass
                remove_tree(left)


def _remove_empty(ours: Path) -> None:
    """Remove the folder of the user if it holds nothing but its lock."""
    with logged(OSError), held(ours / _LOCK, wait=True):
        if [each.name for each in ours.iterdir()] == [_LOCK]:
            (ours / _LOCK).unlink()
            ours.rmdir()

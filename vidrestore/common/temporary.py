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
    root = above / (f"vidrestore-{os.getuid()}" if hasattr(os, "getuid") else "vidrestore")
    with ExitStack() as stack:
        stack.callback(_remove_empty, root)
        try:
            folder = _new_folder(root, stack)
        except OSError as error:
            raise not_written(f"making a temporary folder in {above}", above, error) from error
        yield folder


def _new_folder(root: Path, stack: ExitStack) -> Path:
    """Create and lock a folder in the folder of the user, after removing those that are left."""
    while True:
        _make_private(root)
        # Another run may remove the empty folder at this moment; then the loop creates it again.
        with logged(FileNotFoundError), held(root / _LOCK, wait=True):
            _remove_left(root)
            return _taken_folder(root, stack)


def _taken_folder(root: Path, stack: ExitStack) -> Path:
    """Create and lock a folder, which the stack removes."""
    folder = Path(tempfile.mkdtemp(dir=root, prefix=""))
    stack.callback(remove_tree, folder)
    stack.enter_context(held(folder / _LOCK, wait=False))
    return folder


def _make_private(root: Path) -> None:
    """Create the folder of the user; raise OutputError where it belongs to another user."""
    with logged(FileExistsError):
        root.mkdir(mode=0o700)
    with logged(FileNotFoundError):
        state = root.lstat()
        is_own = not hasattr(os, "getuid") or state.st_uid == os.getuid()
        if not stat.S_ISDIR(state.st_mode) or not is_own:
            raise OutputError(
                f"{root} is not a folder of this user; remove it, or let TMPDIR name another "
                "folder for temporary files"
            )
        if stat.S_IMODE(state.st_mode) != 0o700:
            root.chmod(0o700)


def _remove_left(root: Path) -> None:
    """Remove the folders whose owner has ended; the caller holds the lock of `root`."""
    for left in root.iterdir():
        if left.name != _LOCK and left.is_dir() and not left.is_symlink():
            with logged(BlockingIOError):
                with held(left / _LOCK, wait=False):
                    pass
                remove_tree(left)


def _remove_empty(root: Path) -> None:
    """Remove the folder of the user if it holds nothing but its lock."""
    with logged(OSError), held(root / _LOCK, wait=True):
        if [each.name for each in root.iterdir()] == [_LOCK]:
            (root / _LOCK).unlink()
            root.rmdir()

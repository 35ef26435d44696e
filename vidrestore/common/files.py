"""A file that one process or thread at a time can hold; one that is killed lets go of it."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from vidrestore.common.errors import OutputError, UsageError, not_written

_POLL_SECONDS = 0.2
# A file system without locks, as some networks have: then nothing is held, and nothing waits.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


@contextmanager
def held(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the file `path`, made where it is missing.

    Waits for another holder if told to, else raises BlockingIOError.
    """
    while True:
        file = path.open("ab")
        try:
            # Whoever held it may have removed it meanwhile; then what is open here is another file.
            if _take(file) and _is_at(file, path):
                break
        except BaseException:
            file.close()
            raise
        file.close()
        if path.exists() and not wait:
            raise BlockingIOError(errno.EAGAIN, "held by another run", str(path))
        time.sleep(_POLL_SECONDS)
    with file:
        yield


def _take(file: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return False
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _is_at(file: IO[bytes], path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def check_new(path: Path, *, overwrite: bool, inputs: Sequence[Path] = ()) -> None:
    """Refuse before any work what cannot be written, or what would be lost by it.

    Args:
        path: A file that is to be written.
        overwrite: What is there may be replaced.
        inputs: Files that must not be, even so.

    Raises:
        UsageError, OutputError: In a sentence that names the file.
    """
    try:
        if path.is_dir():
            raise UsageError(f"{path} is a folder; give a file name in it")
        if not path.parent.is_dir():
            raise OutputError(f"the folder {path.parent} does not exist; create it")
        if path.exists():
            if any(each.exists() and path.samefile(each) for each in inputs):
                raise UsageError(f"{path} is the input itself; choose another name")
            if not overwrite:
                raise UsageError(f"{path} exists already; add --overwrite to replace it")
    except OSError as error:  # permissions, or a name that is too long
        raise not_written(f"writing {path}", path.parent, error) from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"the folder {path.parent} cannot be written to: permission denied")

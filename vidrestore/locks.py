"""A file that one process or thread at a time can hold; one that is killed lets go of it."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

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

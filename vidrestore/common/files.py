"""Files that one process or thread at a time holds, and files that appear only when they are whole.

What is written has a name of its own until then, `.NAME.PID-RANDOM.part.SUFFIX` beside NAME. Its
writer holds it as a lock is held, so that what a killed one left behind can be told from what is
being written, and the next run that writes NAME removes it.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from vidrestore.common.errors import OutputError, UsageError, not_written
from vidrestore.common.handled import log_handled, logged

_POLL_SECONDS = 0.2
# A file system without locks, as some networks have: then nothing is held, and nothing waits.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
# There, a file may be another machine's, whose processes cannot be asked after.
_SURELY_LEFT_SECONDS = 24 * 3600.0
# File systems take names of 255 bytes.
_LONGEST_NAME_BYTES = 160
_TRIES = 10

_logger = logging.getLogger("vidrestore")


@contextmanager
def held(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the file `path`, made where it is missing.

    Waits for another holder if told to, else raises BlockingIOError.
    """
    is_told = False
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
        if not is_told:
            _logger.debug("waiting for %s, which another run holds", path)
            is_told = True
        time.sleep(_POLL_SECONDS)
    with file:
        yield


@contextmanager
def output_file(path: Path, what: str = "") -> Iterator[Path]:
    """`written_atomically` for a file of the user's, at the end of a link where `path` is one.

    Args:
        path: The file.
        what: Its kind, as the start of a sentence: "the listing".

    Raises:
        OutputError: In one sentence, for any OSError.
    """
    try:
        # /dev/stdout is a link to what may have no name.
        is_link = path.is_symlink() and path.is_file()
        place = Path(os.path.realpath(path)) if is_link else path
        with written_atomically(place) as part:
            yield part
    except OSError as error:
        name = f"{what} {path}".strip()
        raise not_written(name, path.parent, error, "cannot be written") from error


@contextmanager
def written_atomically(path: Path, *, lasting: bool = True) -> Iterator[Path]:
    """Give an empty file beside `path`, which takes its place if nothing is raised.

    Else it is removed and what was at `path` stays. What runs that were killed left behind of the
    same `path` is removed first. A pipe or a device is given as it is.

    Args:
        path: The file to write, whose folder exists.
        lasting: Force it onto the disk first, so that a power cut leaves the one or the other.

    Raises:
        OSError: As the system does.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    remove_left_behind(path)
    part, file = _begun(path)
    try:
        yield part
        if lasting:
            sync_file(part)
        if sys.platform == "win32":  # which renames no open file
            file.close()
        part.replace(path)
        if lasting:
            sync_folder(path.parent)
    finally:
        with logged(OSError):
            part.unlink(missing_ok=True)
        file.close()


def remove_left_behind(path: Path) -> None:
    """Remove what runs that were killed left behind of `path`, as far as that is certain."""
    ours = re.compile(
        re.escape(f".{_key(path)}.")
        + rf"(?P<pid>[0-9]{{1,10}})(?P<own>-[0-9a-f]{{8}})?\.part({re.escape(path.suffix)})?"
    )
    try:
        with os.scandir(path.parent) as entries:
            found = [(Path(entry.path), ours.fullmatch(entry.name)) for entry in entries]
    except OSError as error:  # a folder that may be written to and not be listed
        _logger.info("what may be left behind of %s was not looked for: %s", path, error)
        return
    for part, match in found:
        if match is None:
            continue
        try:
            _remove_if_left(part, int(match["pid"]), was_held=match["own"] is not None)
        except OSError as error:
            _logger.info("%s was not removed: %s", part, error)


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it, as far as that is possible; no link is followed.

    Args:
        folder: What is removed; what cannot be stays and leaves a line in the log.
    """
    if sys.version_info >= (3, 12):
        shutil.rmtree(folder, onexc=lambda function, path, error: log_handled(error))
    else:
        shutil.rmtree(folder, onerror=lambda function, path, found: log_handled(found[1]))


def sync_file(path: Path) -> None:
    """Force the content of a file onto the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` last through a power cut, where the system can."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems
            raise
        log_handled(error)
    finally:
        os.close(descriptor)


def _key(path: Path) -> str:
    """What stands for the name of `path` in that of an unfinished file."""
    name = os.fsencode(path.name)
    return path.name if len(name) <= _LONGEST_NAME_BYTES else hashlib.sha256(name).hexdigest()


def _begun(path: Path) -> tuple[Path, IO[bytes]]:
    """A new file with a name of its own, and the handle that holds it."""
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= _LONGEST_NAME_BYTES // 4 else ""
    for _ in range(_TRIES):
        own = f"{os.getpid()}-{secrets.token_hex(4)}"
        part = path.with_name(f".{_key(path)}.{own}.part{suffix}")
        file = part.open("xb")
        try:
            # Whoever looks for what is left behind may have come between.
            if sys.platform == "win32" or (_lock(file) != "busy" and _is_at(file, part)):
                return part, file
        except BaseException:
            file.close()
            part.unlink(missing_ok=True)
            raise
        file.close()
    raise BlockingIOError(errno.EAGAIN, "another run removes what is written", str(path))


def _remove_if_left(part: Path, pid: int, *, was_held: bool) -> None:
    state = part.lstat()
    if not stat.S_ISREG(state.st_mode):
        return
    if not was_held:  # by a version that did not hold it
        if not _lives(pid):
            part.unlink(missing_ok=True)
        return
    # Never "w", which would empty it. Windows removes no file that is open.
    with part.open("rb+") as file:
        held_by = "unknown" if sys.platform == "win32" else _lock(file)
        is_old = time.time() - state.st_mtime > _SURELY_LEFT_SECONDS
        if held_by == "nobody" or (held_by == "unknown" and is_old and not _lives(pid)):
            if sys.platform == "win32":
                file.close()
            part.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    """Whether there is such a process on this machine; False on Windows, where asking may end
    it."""
    if sys.platform == "win32":
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError) as error:
        log_handled(error)
        return False
    except PermissionError as error:
        log_handled(error)
        return True
    return True


def _take(file: IO[bytes]) -> bool:
    return _lock(file) != "busy"


def _lock(file: IO[bytes]) -> Literal["nobody", "busy", "unknown"]:
    """Who held it before; it is held now if that was nobody."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return "busy"  # asked again and again; who asks says that it waits
        if error.errno not in _NO_LOCKS:
            raise
        log_handled(error)
        return "unknown"
    return "nobody"


def _is_at(file: IO[bytes], path: Path) -> bool:
    with logged(FileNotFoundError):
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

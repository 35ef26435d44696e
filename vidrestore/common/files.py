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
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Literal

from filelock import lock_descriptor

from vidrestore.common.errors import (
    OutputError,
    UsageError,
    VidrestoreError,
    is_disk_full,
    not_written,
    system_reason,
)
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


def no_ordinary_file(path: Path) -> str | None:
    """What stands at `path` in place of an ordinary file, or at the end of the links there.

    Returns:
        The end of a sentence, such as "is a folder"; None where it is one, where nothing is there,
        or where that cannot be known.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: NUL in the name
        log_handled(error)
        return None
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISDIR(mode):
        return "is a folder"
    kinds = {stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    kind = next((name for test, name in kinds.items() if test(mode)), "a device")
    return f"is {kind} and no ordinary file"


def check_readable_kind(path: Path, what: str, kind: type[VidrestoreError]) -> None:
    """Refuse to read what is no ordinary file: a pipe may keep its reader waiting forever.

    What is not there, or cannot be reached, is left to whoever opens it.

    Args:
        path: A file that is to be read.
        what: What it is, as in "the profile".
        kind: The error to raise.
    """
    if (found := no_ordinary_file(path)) is not None:
        raise kind(f"{what} {path} {found}; give the name of a file")


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
    """`written_atomically` for a file of the user's, at its `output_place`.

    Args:
        path: The file.
        what: Its kind, as the start of a sentence: "the listing".

    Raises:
        UsageError: There is no place for a file.
        OutputError: In one sentence, for any OSError.
    """
    try:
        with written_atomically(output_place(path, what)) as part:
            yield part
    except OSError as error:
        name = f"{what} {path}".strip()
        raise not_written(name, path.parent, error, "cannot be written") from error


def output_place(path: Path, what: str = "") -> Path:
    """Where a file of the user's is written; the one rule for whatever stands there already.

    A link to an ordinary file counts as that file: the link stays, and what it leads to is
    replaced. Nothing else that is no ordinary file is ever replaced: no folder, pipe, socket or
    device, and no link that leads to nothing.

    Args:
        path: The file, whether it exists or not.
        what: Its kind, as the start of a sentence: "the listing".

    Returns:
        `path`, or the end of the links there.

    Raises:
        UsageError: In a sentence that names the file.
        OSError: It cannot be reached.
    """
    name = f"{what} {path}".strip()
    if (found := no_ordinary_file(path)) is not None:
        remedy = "give a file name in it" if path.is_dir() else "choose another name"
        raise UsageError(f"{name} {found}; {remedy}")
    if not path.is_symlink():
        return path
    try:
        path.stat()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        raise UsageError(
            f"{name} is a link that leads to no file; remove it or choose another name"
        ) from error
    return Path(os.path.realpath(path))


@contextmanager
def written_atomically(path: Path, *, lasting: bool = True) -> Iterator[Path]:
    """Give an empty file beside `path`, which takes its place if nothing is raised.

    Else it is removed and what was at `path` stays. What runs that were killed left behind of the
    same `path` is removed first.

    Args:
        path: The file to write, whose folder exists.
        lasting: Force it onto the disk first, so that a power cut leaves the one or the other.

    Raises:
        OSError: As the system does.
    """
    with unfinished_file(path) as part:
        yield part
        if lasting:
            sync_file(part)
        part.replace(path)
        if lasting:
            sync_folder(path.parent)


@contextmanager
def unfinished_file(path: Path) -> Iterator[Path]:
    """Give an empty file beside `path`, which is removed in the end if it is there still.

    What runs that were killed left behind of the same `path` is removed first.

    Raises:
        OSError: As the system does.
    """
    remove_left_behind(path)
    part, file = _begun(path)
    try:
        if sys.platform == "win32":  # which renames no open file
            file.close()
        yield part
    finally:
        with logged(OSError):
            part.unlink(missing_ok=True)
        file.close()


@contextmanager
def placed_together(moves: Sequence[tuple[Path, Path]]) -> Iterator[None]:
    """Rename files to their places, all of them or none: after any error, in this or in the scope,
    the files are where they were and what they replaced is back.

    Until the scope ends, what is replaced keeps a second name beside the new file. On file systems
    that know no second names it is gone once it was replaced; the new file then stays.

    Args:
        moves: (file, place) of each, the file whole, the place as `output_place` gives it.

    Raises:
        OSError: As the system does.
    """
    with ExitStack() as stack:
        ready = [(_on_one_disk(file, place, stack), place) for file, place in moves]
        begun: list[tuple[Path, Path, Path | None, bool]] = []
        try:
            for file, place in ready:
                is_there = place.exists()
                old = _second_name(file, place) if is_there else None
                begun.append((file, place, old, is_there))
                file.replace(place)
            for folder in {place.parent for _, place in ready}:
                sync_folder(folder)
            yield
        except BaseException:
            for file, place, old, is_there in reversed(begun):
                _put_back(file, place, old, is_there=is_there)
            raise
        for _, _, old, _ in begun:
            if old is not None:
                _discard(old)


def _on_one_disk(file: Path, place: Path, stack: ExitStack) -> Path:
    """The file itself, or a copy beside a place that lies on another disk, where a link led."""
    if file.parent.stat().st_dev == place.parent.stat().st_dev:
        return file
    part = stack.enter_context(unfinished_file(place))
    shutil.copyfile(file, part)
    sync_file(part)
    return part


def _second_name(file: Path, place: Path) -> Path | None:
    """Of what is at `place`, beside `file`; such as the next run removes, were this one killed."""
    name = file.with_name(f".{_key(place)}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        os.link(place, name)
    except OSError as error:
        _logger.info("%s has no second name while it is replaced: %s", place, error)
        return None
    return name


def _put_back(file: Path, place: Path, old: Path | None, *, is_there: bool) -> None:
    try:
        if file.exists():  # it was not placed
            if old is not None:
                _discard(old)
            return
        if old is not None or not is_there:
            place.replace(file)
        if old is not None:
            old.replace(place)
    except OSError as error:
        _logger.warning("%s is not as it was: %s", place, error)


def _discard(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _logger.info("%s was not removed: %s", path, error)


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
        was = "unknown" if sys.platform == "win32" else _lock(file)
        is_old = time.time() - state.st_mtime > _SURELY_LEFT_SECONDS
        if was == "free" or (was == "unknown" and is_old and not _lives(pid)):
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


def _lock(file: IO[bytes]) -> Literal["free", "busy", "unknown"]:
    """Whether it was held before; it is held now if it was free."""
    try:
        return "free" if lock_descriptor(file.fileno(), blocking=False) else "busy"
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        log_handled(error)
        return "unknown"


def _is_at(file: IO[bytes], path: Path) -> bool:
    with logged(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def check_new(
    path: Path,
    *,
    overwrite: bool,
    what: str = "",
    inputs: Sequence[Path] = (),
    outputs: Sequence[Path] = (),
) -> None:
    """Refuse before any work what cannot be written, or what would be lost by it.

    Args:
        path: A file that is to be written.
        overwrite: What is there may be replaced; see `output_place` for what never is.
        what: Its kind, as the start of a sentence: "the listing".
        inputs: Files that must not be replaced, even so.
        outputs: Other files that the same run writes.

    Raises:
        UsageError: It is a folder, one of those files, or there already.
        OutputError: Its folder is not there, or it cannot be written.
    """
    name = f"{what} {path}".strip()
    try:
        for others, role in ((inputs, "input"), (outputs, "output")):
            if any(is_same_file(path, other) for other in others):
                raise UsageError(f"{name} is the {role} itself; choose another name")
        place = output_place(path, what)
        purpose = f" for {what}" if what else ""
        if not path.parent.is_dir():
            raise OutputError(f"the folder {path.parent}{purpose} does not exist; create it")
        if place.exists() and not overwrite:
            raise UsageError(f"{name} exists already; add --overwrite to replace it")
    except OSError as error:  # permissions, or a name that is too long
        raise not_written(f"writing {name}", path.parent, error) from error
    try:
        # Not by os.access, which says of more than one file system that the superuser may.
        part, file = _begun(place)
        file.close()
        part.unlink(missing_ok=True)
    except OSError as error:
        if is_disk_full(error):
            raise not_written(f"writing {name}", place.parent, error) from error
        raise OutputError(
            f"the folder {place.parent}{purpose} cannot be written to: {system_reason(error)}"
        ) from error


def is_same_file(one: Path, other: Path) -> bool:
    """Tell whether two paths lead to one file, or would once it exists."""
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    try:
        return one.samefile(other)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            raise
        log_handled(error)
        return False


def make_output_folder(folder: Path) -> None:
    """Make a folder for files of the user's, with those around it; one that is there is taken.

    Raises:
        OutputError: It cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_written(f"the folder {folder}", folder.parent, error, "cannot be made") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"the folder {folder} cannot be written to; choose another")

"""Locked files, and output files that appear only when they are complete.

An unfinished file has a temporary name, `.NAME.PID-RANDOM.part.SUFFIX`, in the folder of NAME. Its
writer locks it. So the next run that writes NAME can distinguish the file of a killed run, which it
removes, from a file that another run is writing.
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
    InputError,
    OutputError,
    UsageError,
    VidrestoreError,
    is_disk_full,
    not_written,
    system_reason,
)
from vidrestore.common.handled import log_handled, logged
from vidrestore.common.interruption import expect_end

_POLL_SECONDS = 0.2
# Errors of file systems without locks, such as some on networks: there, nothing is locked.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
# Without locks, a file may belong to a process of another machine, which cannot be checked.
_SURELY_LEFT_SECONDS = 24 * 3600.0
# Temporary names replace a longer name by a hash; some file systems allow names of 143 bytes only.
_LONGEST_NAME_BYTES = 60
_LONGEST_SUFFIX_BYTES = 16
_USUAL_LIMIT_BYTES = 255  # of the name of a file
_HASH_DIGITS = 8
# Names by which a process has its open files; another process has others under them.
_OPEN_FILE = re.compile(r"/dev/(stdin|fd/\d+)|/proc/(self|\d+)/fd/\d+")
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+:)/+(.*)", re.DOTALL)
_COPY_IT = "vidrestore reads a video more than once, so copy it to a file and give its name"
_TRIES = 10

_logger = logging.getLogger("vidrestore")


def no_ordinary_file(path: Path) -> str | None:
    """Describe what a path leads to if that is not an ordinary file; links are followed.

    Args:
        path: The path.

    Returns:
        The end of a sentence, such as "is a folder"; None where the path leads to an ordinary file
        or to nothing, or cannot be examined.
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
    return f"is {kind} and not an ordinary file"


def fitting_name(folder: Path, stem: str, ending: str) -> str:
    """Join two parts of a file name, and shorten the first where the file system needs that.

    Args:
        folder: The folder of the file.
        stem: The first part.
        ending: The second part, which stays, such as a suffix.

    Returns:
        The name. A shortened stem ends in a hash, so that two of them differ.
    """
    try:
        limit_bytes = os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError) as error:
        # Windows has no such function, and the folder may not exist yet.
        log_handled(error)
        limit_bytes = _USUAL_LIMIT_BYTES
    if len(os.fsencode(stem + ending)) <= limit_bytes:
        return stem + ending
    digest = hashlib.sha256(os.fsencode(stem)).hexdigest()[:_HASH_DIGITS]
    ending = f"~{digest}{ending}"
    while stem and len(os.fsencode(stem + ending)) > limit_bytes:
        stem = stem[:-1]
    return stem + ending


def no_path(path: Path) -> str | None:
    """Describe what the user named if that is no file at all; nothing is opened.

    Args:
        path: The path that was made of the text of the user.

    Returns:
        The beginning of a sentence, such as "https://example.com/a.mp4 is an address"; None where
        the text may be the path of a file.
    """
    if _OPEN_FILE.fullmatch(str(path)):
        return f"{path} is a stream and not a file"
    with logged(OSError, ValueError):  # ValueError: NUL in the name
        if path.exists():
            return None
        if str(path) == "-":
            return f"{path} is a stream and not a file"
        # A path has one slash where an address has two.
        address = _ADDRESS.fullmatch(str(path))
        if address is not None and not path.parent.is_dir():
            slashes = "///" if address[1].lower() == "file:" else "//"
            return f"{address[1]}{slashes}{address[2]} is an address and not a file"
    return None


def check_path(path: Path) -> None:
    """Check that a text names a file to read, rather than a stream or an address.

    Args:
        path: The path that was made of the text of the user; it need not exist.

    Raises:
        InputError: It does not.
    """
    if (other := no_path(path)) is not None:
        raise InputError(f"{other}; {_COPY_IT}")


def check_readable_kind(path: Path, what: str, kind: type[VidrestoreError]) -> None:
    """Check that a file to read is an ordinary file; the reader of a pipe might wait forever.

    A path that does not exist or cannot be reached passes the check; opening it raises an error.

    Args:
        path: The file to read.
        what: The kind of the file for the message, such as "the profile".
        kind: The class of the error to raise.

    Raises:
        VidrestoreError: The path leads to a folder, a pipe, a socket or a device; of class `kind`.
    """
    if (fault := no_ordinary_file(path)) is not None:
        raise kind(f"{what} {path} {fault}; give the name of a file")


def check_file_is_there(
    path: Path, what: str, kind: type[VidrestoreError], advice: str = ""
) -> None:
    """Check that a path is that of an ordinary file to read; the file is not opened.

    Args:
        path: The file to read.
        what: The kind of the file for the message, such as "the profile".
        kind: The class of the error to raise.
        advice: What the user should do where there is no such file; default: nothing is advised.

    Raises:
        VidrestoreError: There is no such file, it cannot be reached, or it is no ordinary file; of
            class `kind`.
    """
    check_readable_kind(path, what, kind)
    try:
        is_there = path.is_file()
    except OSError as error:  # permissions, or a name that is too long
        raise kind(f"{what} {path} cannot be reached: {system_reason(error)}") from error
    if not is_there:
        raise kind(f"{what} {path} does not exist{advice and f'; {advice}'}")


def check_video_file(path: Path) -> None:
    """Check that a path is that of a file that may hold a video; the file is not opened.

    Args:
        path: The file to read.

    Raises:
        InputError: There is no such file, or it is a folder, empty or no ordinary file.
        OSError: The path cannot be reached.
    """
    check_path(path)
    if path.is_dir():
        raise InputError(
            f"{path} is a folder; give the path of a video in it, or a pattern of pictures "
            f"such as {path / 'name_%06d.tif'}"
        )
    if (fault := no_ordinary_file(path)) is not None:
        raise InputError(f"the file {path} {fault}; {_COPY_IT}")
    if not path.exists():
        raise InputError(f"the file {path} does not exist")
    if path.stat().st_size == 0:
        raise InputError(f"the file {path} is empty; copy it again from its source")


@contextmanager
def held(path: Path, *, wait: bool) -> Iterator[None]:
    """Lock a file, and create it where it is missing.

    Args:
        path: The file.
        wait: Whether to wait while another process or thread holds the lock.

    Yields:
        Nothing. The end of the scope releases the lock; the file stays.

    Raises:
        BlockingIOError: Another process or thread holds the lock and `wait` is False.
        OSError: The file cannot be opened.
    """
    is_logged = False
    while True:
        file = path.open("ab")
        try:
            # The last holder may have removed the file; then this handle is of a removed file.
            if _take(file) and _is_at(file, path):
                break
        except BaseException:
            file.close()
            raise
        file.close()
        if path.exists() and not wait:
            raise BlockingIOError(errno.EAGAIN, "held by another run", str(path))
        if not is_logged:
            _logger.debug("waiting for %s, which another run holds", path)
            is_logged = True
        time.sleep(_POLL_SECONDS)
    with file:
        yield


@contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    """Create a folder where it is missing, and lock the file `lock` in it.

    Args:
        folder: The folder, which runs remove while they hold the lock.

    Yields:
        Nothing. The end of the scope releases the lock; the folder and the file stay.

    Raises:
        BlockingIOError: Another process or thread holds the lock.
        OSError: The folder cannot be made, or the file in it cannot be opened.
    """
    lock = folder / "lock"
    with ExitStack() as stack:
        while True:
            folder.mkdir(exist_ok=True)
            try:
                stack.enter_context(held(lock, wait=False))
            except FileNotFoundError as error:
                # Another run has ended in between, and removed the folder. Links to nowhere remain.
                if folder.is_symlink() or lock.is_symlink():
                    raise
                log_handled(error)
            else:
                break
        yield


@contextmanager
def output_file(path: Path, what: str = "", *, is_last: bool = False) -> Iterator[Path]:
    """Write a file of the user atomically (`written_atomically`) at its `output_place`.

    Args:
        path: The file.
        what: The kind of the file, as the start of a sentence, such as "the listing"; default:
            empty.
        is_last: Whether the command ends when this file is in its place, so that an interruption
            then comes too late (`expect_end`); default: False.

    Yields:
        An empty temporary file, which takes the place of the file at the end of the scope.

    Raises:
        UsageError: The path leads to something that must not be replaced.
        OutputError: The file system refuses something (`OSError`), here or in the scope.
    """
    try:
        with written_atomically(output_place(path, what)) as part:
            yield part
        if is_last:
            expect_end(True)
    except OSError as error:
        name = f"{what} {path}".strip()
        raise not_written(name, path.parent, error, "cannot be written") from error


def output_place(path: Path, what: str = "") -> Path:
    """Determine where a file of the user is written; all writers use this rule.

    A link to an ordinary file stands for that file: the link stays and the file is replaced.
    vidrestore never replaces a folder, a pipe, a socket, a device, or a link that leads to nothing.

    Args:
        path: The file, which need not exist.
        what: The kind of the file, as the start of a sentence, such as "the listing"; default:
            empty.

    Returns:
        `path`, or the file to which the links there lead.

    Raises:
        UsageError: The path leads to something that must not be replaced.
        OSError: The path cannot be reached.
    """
    name = f"{what} {path}".strip()
    if (other := no_path(path)) is not None:
        raise UsageError(f"{other}, and vidrestore writes files; give the name of a file")
    if (fault := no_ordinary_file(path)) is not None:
        remedy = "give a file name in it" if path.is_dir() else "choose another name"
        raise UsageError(f"{name} {fault}; {remedy}")
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
    """Create a temporary file that replaces `path` at the end of the scope.

    After an error in the scope, the temporary file is removed and the file at `path` stays. Before,
    this function removes the temporary files that killed runs left for the same `path`.

    Args:
        path: The file to write; its folder must exist.
        lasting: Whether to flush the file to the disk before it replaces `path`, so that a power
            cut leaves either the old or the new file; default: True.

    Yields:
        The temporary file, empty.

    Raises:
        OSError: The file system refuses something.
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
    """Create a temporary file in the folder of `path`, which the end of the scope removes.

    A file that the scope has moved away stays. Before, this function removes the temporary files
    that killed runs left for the same `path`.

    Args:
        path: The file that the temporary file is for.

    Yields:
        The temporary file, empty.

    Raises:
        OSError: The file system refuses something.
    """
    remove_left_behind(path)
    part, file = _begun(path)
    try:
        if sys.platform == "win32":  # Windows cannot rename an open file
            file.close()
        yield part
    finally:
        with logged(OSError):
            part.unlink(missing_ok=True)
        file.close()


@contextmanager
def placed_together(moves: Sequence[tuple[Path, Path]]) -> Iterator[None]:
    """Move files to their places, all of them or none.

    After an error, here or in the scope, the files are back at their old paths, and the files that
    they replaced are back, too. For this, each replaced file keeps a hard link until the scope
    ends. On file systems without hard links, a replaced file is lost, and the new file then stays
    in its place after an error.

    Args:
        moves: (file, place) for each file. The file is complete, and the place is one that
            `output_place` returned.

    Yields:
        Nothing. In the scope all files are in their places.

    Raises:
        OSError: The file system refuses something.
    """
    with ExitStack() as stack:
        ready = [(_on_one_disk(file, place, stack), place) for file, place in moves]
        moved: list[tuple[Path, Path, Path | None, bool]] = []
        try:
            for file, place in ready:
                existed = place.exists()
                old = _second_name(file, place) if existed else None
                moved.append((file, place, old, existed))
                file.replace(place)
            for folder in {place.parent for _, place in ready}:
                sync_folder(folder)
            yield
        except BaseException:
            for file, place, old, existed in reversed(moved):
                _put_back(file, place, old, existed=existed)
            raise
        expect_end(True)
        for _, _, old, _ in moved:
            if old is not None:
                _discard(old)


def place_together(moves: Sequence[tuple[Path, Path]]) -> None:
    """Move files to their places, all of them or none; see `placed_together`.

    Args:
        moves: (file, place) for each file.

    Raises:
        OSError: The file system refuses something.
    """
    with placed_together(moves):
        pass


def _on_one_disk(file: Path, place: Path, stack: ExitStack) -> Path:
    """Return the file, or a copy of it next to its place if that is on another disk.

    The place of an output that is a link can be on another disk.
    """
    if file.parent.stat().st_dev == place.parent.stat().st_dev:
        return file
    part = stack.enter_context(unfinished_file(place))
    shutil.copyfile(file, part)
    sync_file(part)
    return part


def _second_name(file: Path, place: Path) -> Path | None:
    """Create a hard link to the file at `place` next to `file`; None: the system has none.

    The next run removes it if this run is killed.
    """
    name = file.with_name(f".{_key(place)}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        os.link(place, name)
    except OSError as error:
        _logger.info("%s has no second name while it is replaced: %s", place, error)
        return None
    return name


def _put_back(file: Path, place: Path, old: Path | None, *, existed: bool) -> None:
    """Undo one move, where that is possible."""
    try:
        if file.exists():  # it was not moved
            if old is not None:
                _discard(old)
            return
        if old is not None or not existed:
            place.replace(file)
        if old is not None:
            old.replace(place)
    except OSError as error:
        _logger.warning("%s is not as it was: %s", place, error)


def _discard(path: Path) -> None:
    """Remove a file; a failure leaves a line in the log."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _logger.info("%s was not removed: %s", path, error)


def remove_left_behind(path: Path) -> None:
    """Remove the temporary files that killed runs left for a path.

    A file stays if a process may still be writing it.

    Args:
        path: The file that the temporary files were for.
    """
    own_name = re.compile(
        re.escape(f".{_key(path)}.")
        + rf"(?P<pid>[0-9]{{1,10}})(?P<own>-[0-9a-f]{{8}})?\.part({re.escape(path.suffix)})?"
    )
    try:
        with os.scandir(path.parent) as entries:
            matches = [(Path(entry.path), own_name.fullmatch(entry.name)) for entry in entries]
    except OSError as error:  # the user may write to the folder but not list it
        _logger.info("what may be left behind of %s was not looked for: %s", path, error)
        return
    for part, match in matches:
        if match is None:
            continue
        try:
            _remove_if_left(part, int(match["pid"]), was_held=match["own"] is not None)
        except OSError as error:
            _logger.info("%s was not removed: %s", part, error)


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that it holds, where possible; links are not followed.

    Args:
        folder: The folder. An entry that cannot be removed stays and leaves a line in the log.
    """
    if sys.version_info >= (3, 12):
        shutil.rmtree(folder, onexc=lambda function, path, error: log_handled(error))
    else:
        shutil.rmtree(folder, onerror=lambda function, path, info: log_handled(info[1]))


def sync_file(path: Path) -> None:
    """Flush the content of a file to the disk.

    Args:
        path: The file.

    Raises:
        OSError: The file cannot be opened or flushed.
    """
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder to the disk, so that a rename in it survives a power cut.

    Windows and some network file systems cannot do this; there, nothing happens.

    Args:
        folder: The folder.

    Raises:
        OSError: The folder cannot be opened or flushed.
    """
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
    """Return what represents the name of `path` in that of a temporary file: a hash if long."""
    name = os.fsencode(path.name)
    return path.name if len(name) <= _LONGEST_NAME_BYTES else hashlib.sha256(name).hexdigest()


def _begun(path: Path) -> tuple[Path, IO[bytes]]:
    """Create a temporary file for `path`; return it and the handle that locks it."""
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= _LONGEST_SUFFIX_BYTES else ""
    for _ in range(_TRIES):
        own = f"{os.getpid()}-{secrets.token_hex(4)}"
        part = path.with_name(f".{_key(path)}.{own}.part{suffix}")
        file = part.open("xb")
        try:
            # Another run that looks for left files may have removed this one before the lock.
            if sys.platform == "win32" or (_lock(file) != "busy" and _is_at(file, part)):
                return part, file
        except BaseException:
            file.close()
            part.unlink(missing_ok=True)
            raise
        file.close()
    raise BlockingIOError(errno.EAGAIN, "another run removes what is written", str(path))


def _try_to_begin(path: Path) -> None:
    """Create a temporary file for `path`, and remove it."""
    part, file = _begun(path)
    file.close()
    part.unlink(missing_ok=True)


def _remove_if_left(part: Path, pid: int, *, was_held: bool) -> None:
    """Remove a temporary file if its writer has ended."""
    state = part.lstat()
    if not stat.S_ISREG(state.st_mode):
        return
    if not was_held:  # an earlier version wrote it, which did not lock it
        if not _lives(pid):
            part.unlink(missing_ok=True)
        return
    # The mode "w" would empty the file. Windows cannot remove an open file.
    with part.open("rb+") as file:
        was = "unknown" if sys.platform == "win32" else _lock(file)
        is_old = time.time() - state.st_mtime > _SURELY_LEFT_SECONDS
        if was == "free" or (was == "unknown" and is_old and not _lives(pid)):
            if sys.platform == "win32":
                file.close()
            part.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    """Tell whether a process of this machine exists; False on Windows, where a test may end it."""
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
    """Lock a file where the file system has locks; False where another process holds the lock."""
    return _lock(file) != "busy"


def _lock(file: IO[bytes]) -> Literal["free", "busy", "unknown"]:
    """Lock a file if no process holds the lock; return the state before."""
    try:
        return "free" if lock_descriptor(file.fileno(), blocking=False) else "busy"
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        log_handled(error)
        return "unknown"


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Tell whether an open file is still the one at `path`."""
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
    """Check, before any work, that a file can be written and replaces nothing of value.

    Args:
        path: The file to write.
        overwrite: Whether a file that exists may be replaced; see `output_place` for what
            vidrestore never replaces.
        what: The kind of the file, as the start of a sentence, such as "the listing"; default:
            empty.
        inputs: Files that must not be replaced in any case; default: none.
        outputs: Other files that the same run writes; default: none.

    Raises:
        UsageError: The path is a folder, is one of `inputs` or `outputs`, or exists and
            `overwrite` is False.
        OutputError: The folder of the file does not exist, or the file cannot be written.
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
        # On several file systems, os.access wrongly allows everything to the superuser.
        _try_to_begin(place)
    except OSError as error:
        if is_disk_full(error):
            raise not_written(f"writing {name}", place.parent, error) from error
        raise OutputError(
            f"the folder {place.parent}{purpose} cannot be written to: {system_reason(error)}"
        ) from error


def check_page_name(path: Path) -> None:
    """Check that the name of a report is that of a page.

    Args:
        path: The report to write.

    Raises:
        UsageError: The name does not end in .html or .htm.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"the name of the report must end in .html, and {path.name!r} does not")


def is_same_file(one: Path, other: Path) -> bool:
    """Tell whether two paths lead to one file, or would lead to one if it existed.

    Args:
        one: A path; it need not exist.
        other: Another path; it need not exist.

    Returns:
        True where both lead to one file.

    Raises:
        OSError: A path cannot be reached.
    """
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
    """Create a folder for output files, with its parents, unless it exists.

    Args:
        folder: The folder.

    Raises:
        OutputError: The folder cannot be created or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_written(f"the folder {folder}", folder.parent, error, "cannot be made") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"the folder {folder} cannot be written to; choose another")

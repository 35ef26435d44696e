"""Downloading files over HTTP: resumable, checked before they get their name, and unpacked."""

from __future__ import annotations

import errno
import glob
import hashlib
import http.client
import json
import logging
import os
import re
import secrets
import shutil
import stat
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from vidrestore.common.errors import WeightsError, is_disk_full, system_reason
from vidrestore.common.events import DownloadProgress, OnEvent
from vidrestore.common.files import held, remove_tree, sync_folder, written_atomically
from vidrestore.common.quoting import first_line

_log = logging.getLogger("vidrestore")

Progress = Callable[[int, int | None], None]
"""Receives the bytes that were downloaded, and the size of the file, None where it is unknown."""

CHUNK_BYTES = 1 << 20
_NUMBER = "[0-9]{1,18}"  # of bytes, in headers
_DIGITS = 8  # of the address's hash in the name of an unfinished download
# Of an answer that states no length: no weight file is as large.
_MOST_BYTES = 8_000_000_000
ATTEMPTS = 3
"""Number of requests to one address, as long as each ends with a broken connection."""


class _LocalError(WeightsError):
    """An error on this machine, such as a full disk, which no other address avoids."""


class _AddressError(Exception):
    """An address does not deliver the file."""


class _BrokenConnectionError(_AddressError):
    """An address delivered a part of the file; another request may deliver the rest."""


def fetch_file(
    urls: Sequence[str],
    folder: Path,
    name: str,
    accept: Callable[[Path], None],
    *,
    otherwise: str,
    size_bytes: int | None = None,
    on_progress: Progress | None = None,
    timeout_seconds: float = 30.0,
) -> None:
    """Download a file from the first address whose file is accepted.

    A download that breaks off leaves its part in the folder, and the next call resumes it.

    Args:
        urls: Addresses of the file, tried in this order.
        folder: Folder for the unfinished download, created where it is missing.
        name: Name of the file, for messages and for the name of the unfinished download.
        accept: Receives the downloaded file under a temporary name in `folder`. It moves the file
            to its place, or raises WeightsError to reject it; then the next address is tried.
        otherwise: A clause that tells what the user can do instead, for the error's message.
        size_bytes: Expected size in bytes; None (default) for any.
        on_progress: Receives the progress of the download.
        timeout_seconds: Longest wait for each answer of the network. Default 30.

    Raises:
        WeightsError: No address delivered an accepted file; the message has the reason of each
            address and `otherwise`. A disk that is full or cannot be written raises at once.
    """
    with _disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    reasons = []
    for url in urls:
        part = part_path(folder, name, url)
        try:
            _download(url, part, size_bytes, on_progress, timeout_seconds)
            accept(part)
        except _LocalError:
            raise
        except _AddressError as error:
            _log.info("%s %s", url, error)
            reasons.append(f"{url} {error}")
        except WeightsError as error:
            _log.info("%s gave something else: %s", url, error)
            _discard(part)
            reasons.append(f"{url} delivered another file: {error}")
        else:
            remove_parts(folder, name)
            return
    raise WeightsError(f"{name} could not be fetched: {'; '.join(reasons)}; {otherwise}")


def as_events(name: str, on_event: OnEvent | None) -> Progress:
    """Make a `Progress` that reports to an event receiver.

    Args:
        name: Name of the weight, part of the stage's name.
        on_event: Receives the events; None to drop them.

    Returns:
        A function of the downloaded and the total bytes.
    """

    def report(done_bytes: int, total_bytes: int | None) -> None:
        if on_event is not None:
            on_event(DownloadProgress(f"fetch {name}", done_bytes, total_bytes))

    return report


def part_path(folder: Path, name: str, url: str) -> Path:
    """Return the path of an unfinished download.

    Each address has a path of its own, since mirrors may have different files.

    Args:
        folder: Folder of the download.
        name: Name of the file.
        url: Address of the file.

    Returns:
        A hidden path in `folder`.
    """
    return folder / f".{name}.{hashlib.sha256(url.encode()).hexdigest()[:_DIGITS]}.part"


def remove_parts(folder: Path, name: str) -> None:
    """Remove the unfinished downloads of a file, of all addresses.

    Args:
        folder: Folder of the downloads.
        name: Name of the file.
    """
    for suffix in ("part", "json"):  # see `_note_path`
        for path in folder.glob(f".{glob.escape(name)}.{'[0-9a-f]' * _DIGITS}.{suffix}"):
            path.unlink(missing_ok=True)


def put_in_place(part: Path, destination: Path) -> None:
    """Give a finished download its name, so that a whole file or none has the name.

    Args:
        part: The download, already written to the disk by fsync.
        destination: Its final path, in the same folder; an existing file is replaced.

    Raises:
        WeightsError: The disk cannot be written.
    """
    with _disk_errors(destination):
        part.replace(destination)
        sync_folder(destination.parent)


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold the lock on downloads into a folder; wait for other processes and threads.

    The end of a process frees its lock.

    Args:
        folder: The folder, created where it is missing.

    Yields:
        Nothing; the lock is held within the context.

    Raises:
        WeightsError: The folder cannot be written.
    """
    with ExitStack() as stack:
        with _disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(held(folder / ".fetch.lock", wait=True))
        yield


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note_path(part).unlink(missing_ok=True)


def _note_path(part: Path) -> Path:
    """Return the path of the note with the version of the file to which a part belongs."""
    return part.with_suffix(".json")


def _download(
    url: str,
    part: Path,
    size_bytes: int | None,
    on_progress: Progress | None,
    timeout_seconds: float,
) -> None:
    for attempt in range(ATTEMPTS):
        try:
            return _transfer(url, part, size_bytes, on_progress, timeout_seconds)
        except _BrokenConnectionError:
            if attempt == ATTEMPTS - 1:
                raise


def _transfer(
    url: str,
    part: Path,
    size_bytes: int | None,
    on_progress: Progress | None,
    timeout_seconds: float,
) -> None:
    """Request all of the file, or the rest that `part` lacks."""
    done, note = _resumable(part)
    if done and done == note.get("total"):
        return
    headers = {"User-Agent": "vidrestore", "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
        if note.get("validator"):
            headers["If-Range"] = note["validator"]
    with _request(url, headers, part, timeout_seconds) as response:
        if response.headers.get_content_type() == "text/html":
            raise _AddressError("answered with a web page instead of the file")
        start, total = _span(response)
        if start and (start != done or total != note.get("total")):
            _discard(part)
            raise _BrokenConnectionError("has changed the file since the download began")
        if size_bytes is not None and total is not None and total != size_bytes:
            raise _AddressError(f"has {total} bytes instead of {size_bytes}")
        _check_room(part, (total or 0) - start)
        most = total or size_bytes or _MOST_BYTES
        done = _save(response, part, start, total, most, on_progress)
    if total is not None and done < total:
        raise _BrokenConnectionError(f"broke off after {done} of {total} bytes")


def _resumable(part: Path) -> tuple[int, dict[str, Any]]:
    """Return the size of the part and its note; 0 and {} where they do not allow to resume."""
    try:
        note = json.loads(_note_path(part).read_text(encoding="utf-8"))
        part_bytes = part.stat().st_size
        total, validator = note["total"], note["validator"]
    except FileNotFoundError:
        return 0, {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        _log.info("%s is fetched from its beginning: %r", part, error)
        return 0, {}
    if type(total) is not int or part_bytes > total or not _is_header(validator):
        return 0, {}
    return part_bytes, note


def _is_header(text: object) -> bool:
    """Return whether a value can be sent as that of a header."""
    return isinstance(text, str) and text.isascii() and text.isprintable()


def _write_note(part: Path, response: http.client.HTTPResponse, total: int | None) -> None:
    etag = response.headers.get("ETag", "")
    strong = "" if etag.startswith("W/") else etag  # RFC 9110, 13.1.5: If-Range takes no weak tag
    note = {"total": total, "validator": strong or response.headers.get("Last-Modified", "")}
    with _disk_errors(part), written_atomically(_note_path(part)) as unfinished:
        unfinished.write_text(json.dumps(note), encoding="utf-8")


@contextmanager
def _request(
    url: str, headers: dict[str, str], part: Path, timeout_seconds: float
) -> Iterator[http.client.HTTPResponse]:
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=timeout_seconds
        )
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                _discard(part)
                raise _BrokenConnectionError(
                    "has a shorter file than the part that was downloaded before"
                ) from None
            raise _AddressError(f"answered {error.code} {first_line(error.reason)}") from None
    except urllib.error.URLError as error:
        raise _AddressError(f"cannot be reached ({first_line(error.reason)})") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _AddressError(f"cannot be reached ({first_line(error)})") from error
    with response:
        yield response


def _span(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Return where in the file the answer begins, and the file's size, None where unknown."""
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        match = re.fullmatch(
            rf"bytes ({_NUMBER})-{_NUMBER}/({_NUMBER})",
            response.headers.get("Content-Range", "").strip(),
        )
        if not match:
            raise _AddressError("answered with an unspecified part of the file")
        return int(match[1]), int(match[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if re.fullmatch(_NUMBER, length.strip()) else None


def _save(
    response: http.client.HTTPResponse,
    part: Path,
    start: int,
    total: int | None,
    most_bytes: int,
    on_progress: Progress | None,
) -> int:
    done = start
    with _disk_errors(part):
        # Unbuffered, so that closing never writes and a full disk raises where it is handled.
        file = part.open("ab" if start else "wb", buffering=0)
    with file:
        if not start:  # after the old bytes are gone, so that a new note never belongs to them
            _write_note(part, response, total)
        for block in _blocks(response):
            if done + len(block) > most_bytes:
                raise _AddressError(f"goes on after the {most_bytes} bytes that the file can have")
            with _disk_errors(part):
                rest = memoryview(block)
                while rest:
                    rest = rest[file.write(rest) :]
            done += len(block)
            if on_progress:
                on_progress(done, total)
        with _disk_errors(part):
            os.fsync(file.fileno())
    return done


def _blocks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            block = response.read(CHUNK_BYTES)
        except http.client.IncompleteRead as error:
            yield error.partial
            raise _BrokenConnectionError("broke off") from error
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenConnectionError(f"broke off ({first_line(error)})") from error
        if not block:
            return
        yield block


def _check_room(part: Path, needed_bytes: int) -> None:
    with _disk_errors(part):
        free_bytes = shutil.disk_usage(part.parent).free
    if needed_bytes > free_bytes:
        raise _LocalError(
            _no_room(part, f"{needed_bytes} bytes are needed, and {free_bytes} are free")
        )


def _no_room(path: Path, detail: str) -> str:
    """Return the message for a full disk."""
    return (
        f"there is no room in {path.parent} ({detail}); free some space or name another folder "
        "with --weights, then run the same command again"
    )


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turn errors of the disk into `_LocalError`, which names `path`."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise _LocalError(_no_room(path, "the disk is full")) from error
        raise _LocalError(
            f"{path} cannot be written ({system_reason(error)}); name a folder that can be "
            "written with --weights"
        ) from error


def unpack(archive: Path, folder: Path, check: Callable[[Path], None]) -> None:
    """Unpack a zip to a folder, which appears or is replaced only when it is whole.

    A level at the top of the archive with the same name as `folder` is left out. The function waits
    for other runs that unpack, and removes the temporary folders of killed ones.

    Args:
        archive: The zip.
        folder: The folder to make; an existing one is replaced.
        check: Receives the unpacked folder under a temporary name; raises WeightsError to reject
            it.

    Raises:
        WeightsError: The archive is damaged, a member has a path outside of the folder, `check`
            rejects it, or the disk cannot be written. Then `folder` is unchanged.
    """
    with _unpack_lock(folder):
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
        try:
            unpacked = temporary / "new"
            with _disk_errors(folder):
                temporary.mkdir()
                _extract(archive, unpacked, folder.name)
            check(unpacked)
            with _disk_errors(folder):
                if folder.exists():
                    folder.rename(temporary / "old")
                unpacked.rename(folder)
                sync_folder(folder.parent)
        finally:
            remove_tree(temporary)


@contextmanager
def _unpack_lock(folder: Path) -> Iterator[None]:
    """Hold the lock on unpacking, and remove the temporary folders that killed runs left."""
    pattern = re.compile(rf"\.{re.escape(folder.name)}\.[0-9]{{1,10}}-[0-9a-f]{{8}}\.part")
    with ExitStack() as stack:
        with _disk_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(held(folder.parent / ".unpack.lock", wait=True))
            for entry in list(folder.parent.iterdir()):
                if pattern.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink():
                    remove_tree(entry)
        yield


def _extract(archive: Path, folder: Path, top: str) -> None:
    """Extract a zip into `folder`, without the level `top` where members have it."""
    folder.mkdir()
    try:
        with zipfile.ZipFile(archive) as members:
            for member in members.infolist():
                parts = _safe_parts(member)
                if parts[:1] == (top,):
                    parts = parts[1:]
                if member.is_dir() or not parts or parts[0] == "__MACOSX":
                    continue
                path = folder.joinpath(*parts)
                path.parent.mkdir(parents=True, exist_ok=True)
                with members.open(member) as source, path.open("wb") as target:
                    shutil.copyfileobj(source, target, CHUNK_BYTES)
                    target.flush()
                    os.fsync(target.fileno())
    except WeightsError:
        raise
    except Exception as error:  # zipfile raises a dozen kinds, depending on the damage
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        reason = str(error) or type(error).__name__
        raise WeightsError(f"the archive is damaged ({reason})") from error


def _safe_parts(member: zipfile.ZipInfo) -> tuple[str, ...]:
    """Return the parts of a member's path; WeightsError where it leads out of the folder."""
    path = PurePosixPath(member.filename.replace("\\", "/"))
    link = stat.S_ISLNK(member.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or ":" in member.filename or link:
        raise WeightsError(f"the archive holds {member.filename!r}, which leads out of its folder")
    return path.parts

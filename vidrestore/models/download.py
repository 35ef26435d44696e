"""Bringing a file here over HTTP, whole or not at all: resumed, renamed, unpacked."""

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
from vidrestore.common.files import held, sync_folder, written_atomically

_log = logging.getLogger("vidrestore")

Progress = Callable[[int, int | None], None]
"""Told the bytes that are here and the bytes there will be, None where the server does not say."""

CHUNK_BYTES = 1 << 20
_DIGITS = 8
ATTEMPTS = 3
"""How often one address is asked again after its connection broke."""


class _LocalError(WeightsError):
    """Something on this machine that no other address could help."""


class _AddressError(Exception):
    """This address does not give the file."""


class _BrokenConnectionError(_AddressError):
    """The address gave a part of the file; asking again may give the rest."""


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
    """Download the first of `urls` whose file `accept` takes.

    `accept` is given a file under a temporary name in `folder`; it puts it in its place, or raises
    WeightsError, on which the next address is tried. A download that broke leaves its part behind,
    and the next call goes on from there. `timeout_seconds` bounds each wait for the network.

    Raises WeightsError with the reason of every address and `otherwise`, which says what else can
    be done, or at once when the disk is full.
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
            reasons.append(f"{url} gave something else: {error}")
        else:
            remove_parts(folder, name)
            return
    raise WeightsError(f"{name} could not be fetched: {'; '.join(reasons)}; {otherwise}")


def as_events(name: str, on_event: OnEvent | None) -> Progress:
    """A receiver of (done, total) bytes that passes them on as progress events."""

    def report(done_bytes: int, total_bytes: int | None) -> None:
        if on_event is not None:
            on_event(DownloadProgress(f"fetch {name}", done_bytes, total_bytes))

    return report


def part_path(folder: Path, name: str, url: str) -> Path:
    """Where an unfinished download is kept: one per address, since mirrors may differ in bytes."""
    return folder / f".{name}.{hashlib.sha256(url.encode()).hexdigest()[:_DIGITS]}.part"


def remove_parts(folder: Path, name: str) -> None:
    """Remove what is left of unfinished downloads of `name`, from whatever address."""
    for suffix in ("part", "json"):  # as of `_note_path`
        for path in folder.glob(f".{glob.escape(name)}.{'[0-9a-f]' * _DIGITS}.{suffix}"):
            path.unlink(missing_ok=True)


def put_in_place(part: Path, destination: Path) -> None:
    """Rename `part`, which was synced to the disk, so that `destination` is whole or not there."""
    with _disk_errors(destination):
        part.replace(destination)
        sync_folder(destination.parent)


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait until no other process or thread fetches into `folder`; a killed one frees it."""
    with ExitStack() as stack:
        with _disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(held(folder / ".fetch.lock", wait=True))
        yield


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note_path(part).unlink(missing_ok=True)


def _note_path(part: Path) -> Path:
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
    """One request, for all of the file or for what `part` lacks of it."""
    have, note = _what_is_here(part)
    if have and have == note.get("total"):
        return
    headers = {"User-Agent": "vidrestore", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if note.get("validator"):
            headers["If-Range"] = note["validator"]
    with _request(url, headers, part, timeout_seconds) as response:
        if response.headers.get_content_type() == "text/html":
            raise _AddressError("answered with a web page instead of the file")
        start, total = _span(response)
        if start and (start != have or total != note.get("total")):
            _discard(part)
            raise _BrokenConnectionError("has another file than when the download began")
        if size_bytes is not None and total is not None and total != size_bytes:
            raise _AddressError(f"has {total} bytes instead of {size_bytes}")
        _check_room(part, (total or 0) - start)
        done = _save(response, part, start, total, on_progress)
    if total is not None and done < total:
        raise _BrokenConnectionError(f"broke off after {done} of {total} bytes")


def _what_is_here(part: Path) -> tuple[int, dict[str, Any]]:
    """Bytes to go on from, and what was noted of the file; 0 where that would not be safe."""
    try:
        note = json.loads(_note_path(part).read_text(encoding="utf-8"))
        have = part.stat().st_size
        total, validator = note["total"], note["validator"]
    except FileNotFoundError:
        return 0, {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        _log.info("%s is fetched from its beginning: %r", part, error)
        return 0, {}
    if type(total) is not int or have > total or not _is_header(validator):
        return 0, {}
    return have, note


def _is_header(text: object) -> bool:
    """It can be sent as the value of a header."""
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
                raise _BrokenConnectionError("has less than what is already here") from None
            raise _AddressError(f"answered {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise _AddressError(f"cannot be reached ({error.reason})") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _AddressError(f"cannot be reached ({str(error) or type(error).__name__})") from error
    with response:
        yield response


def _span(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Where in the file the answer begins, and the bytes of the whole file, None if unsaid."""
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        found = re.fullmatch(
            r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", "").strip()
        )
        if not found:
            raise _AddressError("answered with a part of the file, not saying which")
        return int(found[1]), int(found[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _save(
    response: http.client.HTTPResponse,
    part: Path,
    start: int,
    total: int | None,
    on_progress: Progress | None,
) -> int:
    done = start
    with _disk_errors(part):
        # Unbuffered, so that closing never writes and a full disk shows where it is handled.
        file = part.open("ab" if start else "wb", buffering=0)
    with file:
        if not start:  # after the old bytes are gone, so that they never stand beside a new note
            _write_note(part, response, total)
        for block in _blocks(response):
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
            raise _BrokenConnectionError(
                f"broke off ({str(error) or type(error).__name__})"
            ) from error
        if not block:
            return
        yield block


def _check_room(part: Path, needed_bytes: int) -> None:
    with _disk_errors(part):
        free_bytes = shutil.disk_usage(part.parent).free
    if needed_bytes > free_bytes:
        raise _LocalError(_no_room(part, f"{needed_bytes} bytes are needed, {free_bytes} are free"))


def _no_room(path: Path, detail: str) -> str:
    return (
        f"there is no room in {path.parent} ({detail}); make room or name another folder with "
        "--weights, then run the same command again"
    )


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
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
    """Unpack the zip `archive` to `folder`, replacing what is there, once `check` takes it.

    A folder of the same name at the top of the archive is left out. Raises WeightsError, leaving
    `folder` as it was, when the archive is damaged, a member would land outside, or `check` raises.
    What a killed one left beside `folder` is removed, so the caller lets one at a time unpack.
    """
    with _alone(folder):
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
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other run unpacks beside `folder`; what killed ones left of it is removed."""
    left = re.compile(rf"\.{re.escape(folder.name)}\.[0-9]{{1,10}}-[0-9a-f]{{8}}\.part")
    with ExitStack() as stack:
        with _disk_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(held(folder.parent / ".unpack.lock", wait=True))
            for entry in list(folder.parent.iterdir()):
                if left.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry, ignore_errors=True)
        yield


def _extract(archive: Path, folder: Path, top: str) -> None:
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
    except Exception as error:  # zipfile raises a dozen kinds, depending on what is damaged
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        reason = str(error) or type(error).__name__
        raise WeightsError(f"the archive is damaged ({reason})") from error


def _safe_parts(member: zipfile.ZipInfo) -> tuple[str, ...]:
    path = PurePosixPath(member.filename.replace("\\", "/"))
    link = stat.S_ISLNK(member.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or ":" in member.filename or link:
        raise WeightsError(f"the archive holds {member.filename!r}, which leads out of its folder")
    return path.parts

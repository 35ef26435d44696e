"""Folders of this computer that the page may list, and the files in them that it may open.

The page sees only entries with random ids. An id stands for the path at which the server found it;
before each use, links on the way are resolved, and the target must lie below one of the folders
that the user named, with no hidden folder on the way.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vidrestore.common.errors import UsageError, system_reason
from vidrestore.common.handled import log_handled, logged
from vidrestore.common.quoting import printable
from vidrestore.web.choices import PICTURES, VIDEOS
from vidrestore.web.wording import GONE, NO_VIDEO_HERE, RefusedError

MOST_LISTED = 2000
"""The largest number of folders, and of files, in one listing."""
MOST_ENTRIES = 50_000
"""The largest number of entries whose ids are remembered."""

_MANAGER_SECONDS = 1.5  # a file manager that still runs then has been opened
_MOST_EXAMINED = 50_000  # entries of one folder; a larger one is listed in part


@dataclass(frozen=True, slots=True)
class Entry:
    """A folder or a file that the page may name."""

    id: str
    """The random name of the entry."""
    path: Path
    """The path at which the server found it; it may be a link."""
    is_folder: bool
    """Whether it was a folder."""

    @property
    def name(self) -> str:
        """The name for people."""
        return printable(self.path.name or str(self.path))


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A video or a picture in a listed folder."""

    entry: Entry
    """The entry."""
    bytes: int
    """The size, in bytes."""
    modified_seconds: float
    """The time of the last change, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The content of a folder, as far as the page shows it."""

    folder: Entry
    """The folder."""
    parent: Entry | None
    """The folder above; None for a folder that the user named."""
    path_shown: str
    """The path of the folder for people."""
    folders: tuple[Entry, ...]
    """The folders in it, by name."""
    files: tuple[ListedFile, ...]
    """The videos and pictures in it, by name."""
    is_writable: bool
    """Whether the user may write files into it."""
    is_cut: bool
    """Whether more is in it than the listing has."""


class Places:
    """The folders that the page may list.

    Args:
        roots: The folders that the user named. Folders below them may be listed, too.
        excluded: A folder that is never listed, such as the page's own.

    Raises:
        UsageError: A root is no folder.
    """

    def __init__(self, roots: Sequence[Path], excluded: Path | None = None) -> None:
        self._roots = tuple(dict.fromkeys(map(_root, roots)))
        self._excluded = None if excluded is None else Path(os.path.realpath(excluded))
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        """Entries by id, in the order of their last use."""
        self._ids: dict[tuple[Path, bool], str] = {}
        self._lock = threading.Lock()  # folders are listed in threads

    def roots(self) -> list[Entry]:
        """List the folders that the user named."""
        return [self._entry(root, is_folder=True) for root in self._roots]

    def listing(self, entry_id: str) -> Listing:
        """List a folder.

        Args:
            entry_id: The id of the folder.

        Returns:
            Its folders, videos and pictures, without hidden ones and without links that lead out of
            the folders that the user named.

        Raises:
            RefusedError: There is no such folder, or it cannot be read.
        """
        folder = self.folder(entry_id)
        folders: list[Entry] = []
        files: list[ListedFile] = []
        is_cut = False
        try:
            with os.scandir(folder) as found:
                for number, each in enumerate(found):
                    if number >= _MOST_EXAMINED:
                        is_cut = True
                        break
                    self._add(Path(each.path), folders, files)
        except OSError as error:
            log_handled(error, "listing a folder")
            reason = "you may not read it" if isinstance(error, PermissionError) else (
                system_reason(error))  # fmt: skip
            raise RefusedError(f"The folder cannot be shown: {reason}.", 409) from error
        folders.sort(key=lambda entry: _order(entry.path))
        files.sort(key=lambda file: _order(file.entry.path))
        is_cut = is_cut or max(len(folders), len(files)) > MOST_LISTED
        parent = None if folder in self._roots else self._entry(folder.parent, is_folder=True)
        return Listing(
            self._entry(folder, is_folder=True),
            parent,
            shown_path(folder),
            tuple(folders[:MOST_LISTED]),
            tuple(files[:MOST_LISTED]),
            os.access(folder, os.W_OK | os.X_OK),
            is_cut,
        )

    def folder(self, entry_id: str) -> Path:
        """Resolve a folder.

        Args:
            entry_id: The id of the folder.

        Returns:
            Its path without links.

        Raises:
            RefusedError: There is no such folder.
        """
        path = self._resolved(entry_id, is_folder=True)
        if not path.is_dir():
            raise RefusedError("The folder is no longer there; go back to the folder above.", 404)
        return path

    def file(self, entry_id: str) -> Path:
        """Resolve a file.

        Args:
            entry_id: The id of the file.

        Returns:
            Its path without links.

        Raises:
            RefusedError: There is no such file.
        """
        path = self._resolved(entry_id, is_folder=False)
        if not is_ordinary(path):
            raise RefusedError(NO_VIDEO_HERE, 404)
        return path

    def entry_of(self, folder: Path) -> Entry | None:
        """Find the entry of a folder.

        Args:
            folder: The path of the folder.

        Returns:
            The entry; None where the page may not list the folder.
        """
        try:
            path = Path(os.path.realpath(folder, strict=True))
        except OSError as error:
            log_handled(error)
            return None
        return self._entry(path, is_folder=True) if self._may_show(path) else None

    def _resolved(self, entry_id: str, *, is_folder: bool) -> Path:
        with self._lock:
            entry = self._entries.get(entry_id)
            if entry is None or entry.is_folder != is_folder:
                raise RefusedError(GONE, 404)
            self._entries.move_to_end(entry_id)
        try:
            path = Path(os.path.realpath(entry.path, strict=True))
        except OSError as error:
            log_handled(error)
            raise RefusedError(NO_VIDEO_HERE, 404) from error
        if not self._may_show(path):
            raise RefusedError("This leads out of the folders that the page may show.", 404)
        return path

    def _may_show(self, path: Path) -> bool:
        """Whether a path without links lies below a root, and no hidden folder is on its way."""
        if self._excluded in (path, *path.parents):
            return False
        for root in self._roots:
            if path == root:
                return True
            if root in path.parents:
                below = path.relative_to(root).parts
                ways = [root.joinpath(*below[: count + 1]) for count in range(len(below))]
                if not any(map(_is_hidden, ways)):
                    return True
        return False

    def _add(self, path: Path, folders: list[Entry], files: list[ListedFile]) -> None:
        """Add an entry of a folder to its listing, if it may be shown."""
        if path.name.startswith("."):
            return
        try:
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                target = Path(os.path.realpath(path, strict=True))
                if not self._may_show(target):
                    return
                status = target.stat()
            elif _is_hidden(path) or path == self._excluded:
                return
        except (OSError, ValueError) as error:  # a link that leads nowhere, or no permission
            log_handled(error)
            return
        if stat.S_ISDIR(status.st_mode):
            folders.append(self._entry(path, is_folder=True))
        elif stat.S_ISREG(status.st_mode) and path.suffix.lower() in (*VIDEOS, *PICTURES):
            entry = self._entry(path, is_folder=False)
            files.append(ListedFile(entry, status.st_size, status.st_mtime))

    def _entry(self, path: Path, *, is_folder: bool) -> Entry:
        """Return the entry of a path; the same one as long as it is remembered."""
        with self._lock:
            return self._entry_in_order(path, is_folder)

    def _entry_in_order(self, path: Path, is_folder: bool) -> Entry:
        known = self._ids.get((path, is_folder))
        if known is not None:
            self._entries.move_to_end(known)
            return self._entries[known]
        while len(self._entries) >= MOST_ENTRIES:
            _, oldest = self._entries.popitem(last=False)
            del self._ids[oldest.path, oldest.is_folder]
        entry = Entry(secrets.token_urlsafe(12), path, is_folder)
        self._entries[entry.id] = entry
        self._ids[path, is_folder] = entry.id
        return entry


def _root(path: Path) -> Path:
    """Return a folder that the user named, without links; raise UsageError if it is none."""
    try:
        resolved = Path(os.path.realpath(path.expanduser(), strict=True))
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"the folder {path}, which the page should list, cannot be found; give another --folder"
        ) from error
    if not resolved.is_dir():
        raise UsageError(f"{path} is not a folder; give another --folder")
    return resolved


def _order(path: Path) -> tuple[str, str]:
    return path.name.casefold(), path.name


def _is_hidden(path: Path) -> bool:
    """Whether a file manager hides the last part of a path; a path that is gone counts so, too."""
    if path.name.startswith("."):
        return True
    try:
        status = path.lstat()
    except OSError as error:
        log_handled(error)
        return True
    marked = getattr(status, "st_file_attributes", 0) & (
        stat.FILE_ATTRIBUTE_HIDDEN | stat.FILE_ATTRIBUTE_SYSTEM
    )
    return bool(marked or getattr(status, "st_flags", 0) & stat.UF_HIDDEN)


def is_ordinary(path: Path) -> bool:
    """Check that a path without links is that of an ordinary file.

    Args:
        path: The path.

    Returns:
        False for a link, a folder, a device, a pipe, and where there is nothing.
    """
    try:
        return stat.S_ISREG(path.lstat().st_mode) and os.path.realpath(path) == str(path)
    except (OSError, ValueError) as error:
        log_handled(error)
        return False


def shown_path(path: Path) -> str:
    """Return a path as people write it.

    Args:
        path: The path.

    Returns:
        Such as ~/Videos on Linux and macOS; on Windows the whole path.
    """
    if sys.platform != "win32":
        for home in (Path.home(), Path(os.path.realpath(Path.home()))):
            if path == home or home in path.parents:
                return printable(str(Path("~", path.relative_to(home))))
    return printable(str(path))


def show_in_folder(path: Path) -> None:
    """Open the file manager of the desktop at a file.

    Args:
        path: The absolute path of the file.

    Raises:
        RefusedError: There is no file manager.
    """
    if sys.platform == "win32":
        command = ["explorer", f"/select,{path}"]
    elif sys.platform == "darwin":
        command = ["open", "-R", str(path)]
    else:
        command = ["xdg-open", str(path.parent)]
    program = shutil.which(command[0])
    try:
        if program is None:
            raise FileNotFoundError(command[0])
        process = subprocess.Popen(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        # Without a desktop the programs of Linux and macOS fail at once; Windows' always says 1.
        with logged(subprocess.TimeoutExpired):
            code = process.wait(_MANAGER_SECONDS)
            if code and sys.platform != "win32":
                raise OSError(f"{command[0]} ended with status {code}")
    except OSError as error:
        log_handled(error)
        raise RefusedError(
            f"This computer has no file manager that vidrestore can open; the file is in "
            f"{shown_path(path.parent)}.", 409
        ) from error  # fmt: skip

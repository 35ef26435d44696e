"""Folders that the page makes; it never removes any other folder."""

from __future__ import annotations

import os
import re
import secrets
import stat
import sys
from pathlib import Path

from vidrestore.common.files import remove_tree
from vidrestore.common.handled import log_handled


class OwnFolders:
    """Folders with random names directly below one root, with a record of each.

    A folder that was not made here is never removed, whatever its name is. The same holds for
    anything that replaced a folder made here, such as a link.

    Args:
        root: The folder below which folders are made.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._identities: dict[Path, tuple[int, int]] = {}

    def make(self) -> Path:
        """Make a new empty folder that other users of the machine cannot read."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = self._root / secrets.token_hex(16)
        folder.mkdir(mode=0o700)
        self._identities[folder] = _identity(folder)
        return folder

    def adopt(self, name: str) -> Path | None:
        """Take over a folder that an earlier page made below the same root.

        Args:
            name: The name of the folder.

        Returns:
            The folder; None where no folder of this user has the name, or a link has it.
        """
        folder = self._root / name
        if not _NAME.fullmatch(name) or self._root.is_symlink():
            return None
        try:
            status = folder.lstat()
        except OSError as error:
            log_handled(error)
            return None
        is_own = sys.platform == "win32" or status.st_uid == os.getuid()
        if not stat.S_ISDIR(status.st_mode) or not is_own:
            return None
        self._identities[folder] = status.st_dev, status.st_ino
        return folder

    def names(self) -> list[str]:
        """List the names below the root that a folder of the page may have."""
        try:
            return [path.name for path in self._root.iterdir() if _NAME.fullmatch(path.name)]
        except OSError as error:
            log_handled(error)
            return []

    def holds(self, folder: Path) -> bool:
        """Check that a folder was made here and was not replaced.

        Args:
            folder: The path to check.

        Returns:
            True if it was made here and is still the same folder.
        """
        made = self._identities.get(folder)
        try:
            # A root that became a link would lead a right name to a wrong place.
            return (
                made is not None
                and not self._root.is_symlink()
                and stat.S_ISDIR(folder.lstat().st_mode)
                and _identity(folder) == made
            )
        except OSError as error:
            log_handled(error)
            return False

    def remove(self, folder: Path) -> bool:
        """Remove a folder and its content, if it was made here.

        Args:
            folder: The folder to remove.

        Returns:
            True if the folder was made here, and is removed.
        """
        if not self.holds(folder):
            return False
        del self._identities[folder]
        remove_tree(folder)
        return True


_NAME = re.compile(r"[0-9a-f]{32}")


def _identity(folder: Path) -> tuple[int, int]:
    """Return the device and the inode of a folder."""
    status = os.lstat(folder)
    return status.st_dev, status.st_ino

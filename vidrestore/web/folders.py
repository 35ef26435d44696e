"""Folders that the page makes for itself, and the only ones that it ever removes."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from vidrestore.common.files import remove_tree
from vidrestore.common.handled import log_handled


class OwnFolders:
    """Folders with unguessable names directly below one root, remembered from their making on.

    What was not made here is never removed, whatever it is called; nor is what has been put in
    the place of a folder of ours, such as a link to another one.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._made: dict[Path, tuple[int, int]] = {}

    def make(self) -> Path:
        """A new empty folder that no other user can look into."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = self._root / secrets.token_hex(16)
        folder.mkdir(mode=0o700)
        self._made[folder] = _identity(folder)
        return folder

    def holds(self, folder: Path) -> bool:
        """Whether `folder` was made here and is still the same folder."""
        made = self._made.get(folder)
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
        """Remove `folder` with all that is in it, if it was made here; whether it was."""
        if not self.holds(folder):
            return False
        del self._made[folder]
        remove_tree(folder)
        return True


def _identity(folder: Path) -> tuple[int, int]:
    found = os.lstat(folder)
    return found.st_dev, found.st_ino

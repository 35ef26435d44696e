"""Videos that the page's own upload stored: each in a folder of its own, each with one owner."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from vidrestore.common.handled import log_handled
from vidrestore.web.folders import OwnFolders


@dataclass(frozen=True, slots=True)
class Upload:
    """One stored video."""

    path: Path
    folder: Path
    """Made for this upload alone; goes with it."""
    owner: str
    """The visitor who sent it."""


class Uploads:
    """What may be named as a video, which is what was stored here and nothing else.

    A client names an upload by the text that it was given when it sent it. The text is only
    looked up, never opened: what is opened is the server's own note of the path. Two uploads of
    the same bytes are two files.
    """

    def __init__(self, root: Path) -> None:
        self._folders = OwnFolders(root)
        self._stored: dict[str, Upload] = {}

    def make_folder(self) -> Path:
        """An empty folder to store one upload in; see `keep` and `drop_folder`."""
        return self._folders.make()

    def keep(self, folder: Path, stored: Path, owner: str) -> Upload | None:
        """Note a file that was stored in a folder of `make_folder`.

        Args:
            folder: What `make_folder` gave.
            stored: The file, somewhere below it.
            owner: The visitor who may name it from now on.

        Returns:
            None where it is no plain file within that folder; then nothing is noted.
        """
        upload = Upload(stored, folder, owner)
        if not self._is_sound(upload):
            return None
        self._stored[str(stored)] = upload
        return upload

    def drop_folder(self, folder: Path) -> None:
        """Remove a folder of `make_folder` in which nothing was kept."""
        self._folders.remove(folder)

    def find(self, named: str, owner: str) -> Upload | None:
        """The upload that a client names; None unless it is its own and as it was stored."""
        upload = self._stored.get(named)
        return upload if upload and upload.owner == owner and self._is_sound(upload) else None

    def of(self, owner: str) -> list[Upload]:
        """Those of one visitor."""
        return [upload for upload in self._stored.values() if upload.owner == owner]

    def remove(self, upload: Upload) -> None:
        """Remove an upload and the folder that was made for it."""
        if self._stored.get(str(upload.path)) is upload:
            del self._stored[str(upload.path)]
            self._folders.remove(upload.folder)

    def remove_at(self, path: Path) -> None:
        """Remove the upload stored at `path`, if there is one."""
        if (upload := self._stored.get(str(path))) is not None:
            self.remove(upload)

    def _is_sound(self, upload: Upload) -> bool:
        """A plain file in a folder made for it, with no link on the way."""
        folder, path = upload.folder, upload.path
        try:
            return (
                self._folders.holds(folder)
                and folder in path.parents
                and stat.S_ISREG(path.lstat().st_mode)
                and path.resolve() == folder.resolve() / path.relative_to(folder)
            )
        except OSError as error:
            log_handled(error)
            return False

"""Videos that visitors uploaded: each is in its own folder and has one owner."""

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
    """The file of the video."""
    folder: Path
    """The folder that was made for this upload alone, and that is removed with it."""
    owner: str
    """The visitor who sent it."""


class Uploads:
    """All stored videos, which are the only files that a visitor may name as a video.

    A client names an upload by the text that it got when it sent the file. The server only looks
    the text up, and opens its own record of the path. Two uploads of the same bytes are two files.

    Args:
        root: The folder below which the folders of uploads are made.
    """

    def __init__(self, root: Path) -> None:
        self._folders = OwnFolders(root)
        self._stored: dict[str, Upload] = {}

    def make_folder(self) -> Path:
        """Make an empty folder to store one upload in; see `keep` and `drop_folder`."""
        return self._folders.make()

    def keep(self, folder: Path, stored: Path, owner: str) -> Upload | None:
        """Record a file that was stored in a folder of `make_folder`.

        Args:
            folder: The folder that `make_folder` returned.
            stored: The file, somewhere below the folder.
            owner: The visitor who may name the file from now on.

        Returns:
            The upload, or None if `stored` is not a regular file within that folder; then nothing
            is recorded.
        """
        upload = Upload(stored, folder, owner)
        if not self._is_sound(upload):
            return None
        self._stored[str(stored)] = upload
        return upload

    def drop_folder(self, folder: Path) -> None:
        """Remove a folder in which no upload was recorded.

        Args:
            folder: A folder that `make_folder` returned.
        """
        self._folders.remove(folder)

    def find(self, named: str, owner: str) -> Upload | None:
        """Look up the upload that a client names.

        Args:
            named: The text by which the client names the upload.
            owner: The visitor who asks.

        Returns:
            The upload, or None if there is none of this visitor or its file was replaced.
        """
        upload = self._stored.get(named)
        return upload if upload and upload.owner == owner and self._is_sound(upload) else None

    def of(self, owner: str) -> list[Upload]:
        """List the uploads of one visitor.

        Args:
            owner: The visitor.

        Returns:
            The uploads, in the order in which they came.
        """
        return [upload for upload in self._stored.values() if upload.owner == owner]

    def remove(self, upload: Upload) -> None:
        """Remove an upload and the folder that was made for it.

        Args:
            upload: The upload; one that is already removed is ignored.
        """
        if self._stored.get(str(upload.path)) is upload:
            del self._stored[str(upload.path)]
            self._folders.remove(upload.folder)

    def remove_at(self, path: Path) -> None:
        """Remove the upload stored at a path, if there is one.

        Args:
            path: The path of the file.
        """
        if (upload := self._stored.get(str(path))) is not None:
            self.remove(upload)

    def _is_sound(self, upload: Upload) -> bool:
        """Whether the upload is a regular file in its own folder, without any symbolic link."""
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

"""What the page keeps on disk: videos, restorations, names and choices.

The file library.json is replaced as a whole, so after a power cut it is the old or the new one. A
file that cannot be read is set aside and never overwritten.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vidrestore.common.errors import InputError, OutputError, is_disk_full, system_reason
from vidrestore.common.files import written_atomically
from vidrestore.common.handled import log_handled, logged
from vidrestore.web.choices import PICTURES, Choices
from vidrestore.web.folders import OwnFolders
from vidrestore.web.queue import Job, StoredPath

LOCAL_OWNER = "local"
"""The owner of all that the user of this machine does."""
DEFAULT_KEEP_DAYS = 14
"""Days without use after which uploads and results of the page are removed."""

_VERSION = 1
_OUTCOME = "outcome.json"
_DAY_SECONDS = 24 * 3600.0

_log = logging.getLogger("vidrestore")


class Target(BaseModel):
    """Where the user wants the result of a video."""

    folder: StoredPath | None = None
    """The folder; None: the usual one."""
    name: str | None = None
    """The name of the file; None: the usual one."""


class Estimate(BaseModel):
    """The job that estimates the time of a restoration, and for what."""

    key: str
    """The choices on which the speed depends."""
    job: Job
    """The job; its outcome has the speed."""


class Item(BaseModel):
    """Something that a visitor has on the page."""

    id: str
    """The random name of the item."""
    owner: str
    """The visitor who owns it; no other visitor may see it."""
    used_seconds: float
    """The time of the last use, in seconds since 1970."""

    def jobs(self) -> list[Job]:
        """List the jobs that belong to the item alone."""
        raise NotImplementedError


class Video(Item):
    """A video that is open on the page."""

    path: StoredPath
    """The file, without links."""
    upload: StoredPath | None = None
    """The folder of the page that holds the file; None for a file of the user."""
    bytes: int
    """The size of the file when it was opened, in bytes."""
    modified_ns: int
    """The time of the file's last change when it was opened, in nanoseconds since 1970."""
    choices: Choices
    """What is chosen for it."""
    names: dict[str, dict[int, str]] = Field(default_factory=dict)
    """Key of an analysis -> number of a person -> the name that the user gave."""
    target: Target = Target()
    """Where the result goes."""
    analysis: Job | None = None
    """The job that finds the people."""
    estimates: list[Estimate] = Field(default_factory=list)
    """The jobs that estimate the time, one for each key."""
    moment: Job | None = None
    """The job that makes the loop before and after."""
    moment_seconds: float = 0
    """The moment of the loop, in seconds from the start."""
    moment_choices: Choices | None = None
    """What was chosen when the loop was ordered."""
    proxy: Job | None = None
    """The job that makes a copy that browsers play."""
    is_there: bool = Field(True, exclude=True)
    """Whether the file is there and has not changed."""
    target_shown: Path = Field(Path(), exclude=True)
    """Where the result goes, when this was last found out."""
    target_folder: str | None = Field(None, exclude=True)
    """The id of that folder in the listings; None if it is in none."""
    target_error: str | None = Field(None, exclude=True)
    """Why nothing can be written there, in a sentence; None if it can."""
    target_exists: bool = Field(False, exclude=True)
    """Whether there is a file where the result goes."""

    @property
    def is_picture(self) -> bool:
        """Whether the file is a still picture."""
        return self.path.suffix.lower() in PICTURES

    @property
    def own_names(self) -> Mapping[int, str]:
        """The names of the people, by their present numbers."""
        return self.names.get(self.choices.analysis_key, {})

    def jobs(self) -> list[Job]:
        """List the jobs that belong to the video alone; see `Item`."""
        found = [self.analysis, self.moment, self.proxy, *(each.job for each in self.estimates)]
        return [job for job in found if job is not None]


class Restoration(Item):
    """A restoration in the list of the page."""

    video: str
    """The name of the video, which may no longer be open."""
    source: StoredPath
    """The file of the video."""
    source_bytes: int
    """The size of that file at the order, in bytes."""
    source_modified_ns: int
    """The time of the last change of that file at the order, in nanoseconds since 1970."""
    target: StoredPath
    """The new file."""
    choices: Choices
    """What was chosen."""
    settings_shown: str
    """The choices in a line."""
    overwrite: bool
    """Whether the user agreed to replace the file at `target`."""
    replaced_ns: int | None = None
    """The time of the last change of the file that is to be replaced; None if there was none."""
    seconds: float | None = None
    """The length of the part that is restored, in seconds; None where it is not known."""
    job: Job
    """The job that restores."""
    proxy: Job | None = None
    """The job that makes a copy of the result that browsers play."""
    source_proxy: Job | None = None
    """The job that makes a copy of the source that browsers play."""
    is_replaced: bool = False
    """Whether a later restoration has replaced the result."""
    result_bytes: int | None = Field(None, exclude=True)
    """The size of the result, in bytes; None if it is not there or was replaced."""
    is_source_there: bool = Field(True, exclude=True)
    """Whether the source is there and has not changed."""

    @property
    def is_unfinished(self) -> bool:
        """Whether the restoration still needs its source."""
        return self.job.state in ("waiting", "running", "pausing", "paused")

    def jobs(self) -> list[Job]:
        """List the jobs that belong to the restoration; see `Item`."""
        return [job for job in (self.job, self.proxy, self.source_proxy) if job is not None]


_Owned = TypeVar("_Owned", Video, Restoration)


class Visitor(BaseModel):
    """A browser that brought the token once."""

    owner: str
    """The owner of what the browser does."""
    used_seconds: float
    """The time of the last request, in seconds since 1970."""


class _Stored(BaseModel):
    """The content of library.json."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    port: int | None = None
    keep_days: int = Field(DEFAULT_KEEP_DAYS, ge=0, le=36500)
    visitors: dict[str, Visitor] = Field(default_factory=dict)
    videos: list[Video] = Field(default_factory=list)
    restorations: list[Restoration] = Field(default_factory=list)


class Library:
    """The videos and restorations of the page, in memory and on disk.

    Args:
        folder: The folder of the page, which exists.

    Raises:
        InputError: A later version of vidrestore wrote the file.
        OutputError: The folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        """The folder of the page."""
        self.uploads = OwnFolders(folder / "uploads")
        """The folders of uploads."""
        self.work = OwnFolders(folder / "work")
        """The folders of jobs."""
        self.notices: list[str] = []
        """Sentences about the library itself, for the page."""
        self.version = round(1000 * time.time())
        """A number that grows with each change, also from one run of the page to the next."""
        self.sizes: dict[Path, int] = {}
        """Folder of an upload or a job -> its size in bytes, when it was last measured."""
        self._path = folder / "library.json"
        self._is_changed = False
        self._trouble = ""
        stored, is_whole = self._read()
        self.port = stored.port
        """The port of the last page."""
        self.keep_days = stored.keep_days
        """Days without use after which uploads and results are removed; 0: never."""
        self.visitors = stored.visitors
        """Hash of a cookie -> its visitor."""
        self.videos = {video.id: video for video in stored.videos}
        """Videos by id, in the order in which they were opened."""
        self.restorations = {each.id: each for each in stored.restorations}
        """Restorations by id, in the order in which they run."""
        self._adopt(is_whole=is_whole)

    def video(self, owner: str, video_id: str) -> Video | None:
        """Find a video of one visitor.

        Args:
            owner: The visitor.
            video_id: The id of the video.

        Returns:
            The video; None if the visitor has no such video.
        """
        return _of(owner, self.videos.get(video_id))

    def restoration(self, owner: str, restoration_id: str) -> Restoration | None:
        """Find a restoration of one visitor.

        Args:
            owner: The visitor.
            restoration_id: The id of the restoration.

        Returns:
            The restoration; None if the visitor has no such restoration.
        """
        return _of(owner, self.restorations.get(restoration_id))

    def videos_of(self, owner: str) -> list[Video]:
        """List the videos of one visitor, in the order in which they were opened.

        Args:
            owner: The visitor.

        Returns:
            The videos.
        """
        return [video for video in self.videos.values() if video.owner == owner]

    def restorations_of(self, owner: str) -> list[Restoration]:
        """List the restorations of one visitor, in the order in which they run.

        Args:
            owner: The visitor.

        Returns:
            The restorations.
        """
        return [each for each in self.restorations.values() if each.owner == owner]

    def all_jobs(self) -> Iterator[Job]:
        """Yield every job of the library."""
        for each in self.items():
            yield from each.jobs()

    def items(self, owner: str | None = None) -> list[Item]:
        """List videos and restorations.

        Args:
            owner: The visitor who owns them; None: of all visitors.

        Returns:
            The videos, then the restorations.
        """
        found: list[Item] = [*self.videos.values(), *self.restorations.values()]
        return [each for each in found if owner in (None, each.owner)]

    def new_job(self, owner: str) -> Job:
        """Make a job with a folder of its own.

        Args:
            owner: The visitor who owns it.

        Returns:
            The job, which is in no list yet.

        Raises:
            OutputError: The folder cannot be made.
        """
        return Job(job_id=new_id(), owner=owner, folder=self.make_folder(self.work))

    def make_folder(self, folders: OwnFolders) -> Path:
        """Make a folder for an upload or a job.

        Args:
            folders: `uploads` or `work`.

        Returns:
            The folder.

        Raises:
            OutputError: The folder cannot be made.
        """
        try:
            return folders.make()
        except OSError as error:
            log_handled(error)
            if is_disk_full(error):
                raise OutputError(f"no space is left in {self.folder}; make room") from error
            raise OutputError(
                f"the folder {self.folder} cannot be written to: {system_reason(error)}"
            ) from error

    def drop_job(self, job: Job) -> None:
        """Remove the folder of a job.

        Args:
            job: The job.
        """
        self.sizes.pop(job.folder, None)
        self.work.remove(job.folder)

    def drop_upload(self, folder: Path) -> None:
        """Remove the folder of an upload, unless something still needs it.

        Args:
            folder: The folder of the upload.
        """
        if any(video.upload == folder for video in self.videos.values()):
            return
        if any(folder in each.source.parents for each in self.restorations.values()):
            return
        self.sizes.pop(folder, None)
        self.uploads.remove(folder)

    def keep_outcome(self, job: Job) -> None:
        """Write the outcome of a job into its folder, where the next page finds it.

        Args:
            job: The job, which is done.
        """
        text = json.dumps(dict(job.outcome))
        with (
            logged(OSError, what="keeping the outcome of a job"),
            written_atomically(job.folder / _OUTCOME, lasting=False) as part,
        ):
            part.write_text(text, encoding="utf-8")

    def changed(self) -> None:
        """Note a change that a page shows and that `save_if_changed` writes."""
        self.version += 1
        self._is_changed = True

    def shown_anew(self) -> None:
        """Note a change that a page shows and that the disk does not need."""
        self.version += 1

    def save_if_changed(self) -> None:
        """Write what has changed since the last call."""
        if self._is_changed:
            self.save()

    def save(self) -> None:
        """Write library.json; a failure becomes a notice on the page, until writing works again."""
        stored = _Stored.model_construct(
            version=1,
            port=self.port,
            keep_days=self.keep_days,
            visitors=self.visitors,
            videos=list(self.videos.values()),
            restorations=list(self.restorations.values()),
        )
        text = json.dumps(stored.model_dump(), indent=1)
        try:
            with written_atomically(self._path) as part:
                part.write_text(text, encoding="ascii")
        except OSError as error:
            self._say_trouble(error)
            return
        self._is_changed = False
        if self._trouble:
            self.notices.remove(self._trouble)
            self._trouble = ""
            self.version += 1

    def _say_trouble(self, error: OSError) -> None:
        log_handled(error, "writing the library")
        why = "the disk is full" if is_disk_full(error) else system_reason(error)
        if not self._trouble:
            self._trouble = (
                f"The list of videos cannot be saved: {why}. If the program ended now, the last "
                "changes would be lost."
            )
            _log.warning("%s", self._trouble)
            self.notices.append(self._trouble)
            self.version += 1

    def _read(self) -> tuple[_Stored, bool]:
        """Return what the last page kept, and whether that is all; set a damaged file aside."""
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return _Stored(), not any(self.uploads.names())
        except UnicodeDecodeError as error:
            return self._set_aside(error)
        except OSError as error:
            raise OutputError(
                f"the file {self._path}, in which the page keeps its list, cannot be read: "
                f"{system_reason(error)}"
            ) from error
        try:
            fields = json.loads(text)
            version = fields.get("version") if isinstance(fields, dict) else None
            if isinstance(version, int) and version > _VERSION:
                raise InputError(
                    f"{self._path} was written by a later version of vidrestore; use that version, "
                    "or move the file away"
                )
            return _Stored.model_validate(fields), True
        except (ValueError, RecursionError, ValidationError) as error:
            return self._set_aside(error)

    def _set_aside(self, error: Exception) -> tuple[_Stored, bool]:
        """Give a damaged library another name, and begin a new one."""
        log_handled(error, "reading the library")
        other = self._path.with_name(f"library-damaged-{round(time.time())}.json")
        try:
            self._path.replace(other)
        except OSError as failure:
            raise OutputError(
                f"the damaged file {self._path} cannot be renamed: {system_reason(failure)}; move "
                "it away"
            ) from failure
        _log.warning("%s was damaged and is kept as %s: %s", self._path, other.name, error)
        self.notices.append(
            "The list of videos was damaged, so it begins anew. Your files are as they were, and "
            f"the damaged list is kept as {other.name}."
        )
        return _Stored(), False

    def _adopt(self, *, is_whole: bool) -> None:
        """Take over the folders that the library names, and care for those that it does not."""
        named = {job.folder for job in self.all_jobs()}
        uploads = {video.upload for video in self.videos.values()}
        uploads |= {parent for each in self.restorations.values() for parent in each.source.parents}
        for folders, known in ((self.work, named), (self.uploads, uploads)):
            for name in folders.names():
                folder = folders.adopt(name)
                if folder is None or folder in known:
                    continue
                if is_whole:  # a crash came between its making and its mention
                    folders.remove(folder)
        if not is_whole:
            self._find_uploads(uploads)
        for each in self.restorations.values():
            self._load_outcome(each.job)
            each.proxy = self._if_whole(each.proxy)
            each.source_proxy = self._if_whole(each.source_proxy)
        for video in self.videos.values():
            video.moment = self._if_whole(video.moment)
            video.proxy = self._if_whole(video.proxy)
            video.estimates = [each for each in video.estimates if self._if_whole(each.job)]
            if video.analysis is not None and self._if_whole(video.analysis) is None:
                video.analysis.state = "waiting"

    def _find_uploads(self, known: Collection[Path | None]) -> None:
        """Open the uploads that a damaged library no longer names."""
        root = self.folder / "uploads"
        for name in sorted(self.uploads.names()):
            folder = root / name
            if folder in known or not self.uploads.holds(folder):
                continue
            with suppress(FileNotFoundError):
                files = [path for path in folder.iterdir() if not path.name.startswith(".")]
                if len(files) != 1 or files[0].is_symlink() or not files[0].is_file():
                    continue
                status = files[0].stat()
                video = Video(
                    id=new_id(),
                    owner=LOCAL_OWNER,
                    path=files[0],
                    upload=folder,
                    bytes=status.st_size,
                    modified_ns=status.st_mtime_ns,
                    used_seconds=time.time(),
                    choices=Choices(),
                )
                self.videos[video.id] = video

    def _if_whole(self, job: Job | None) -> Job | None:
        """Load the outcome of a job that is done; None without a job, a folder or an outcome."""
        if job is None or (job.state == "done" and not self._load_outcome(job)):
            return None
        return job

    def _load_outcome(self, job: Job) -> bool:
        """Load the outcome of a job that is done; False if there is none."""
        if job.state != "done" or not self.work.holds(job.folder):
            return False
        try:
            outcome: Any = json.loads((job.folder / _OUTCOME).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            log_handled(error, "reading the outcome of a job")
            return False
        job.outcome = outcome if isinstance(outcome, dict) else {}
        return bool(job.outcome)

    def drop_orphans(self, now_seconds: float) -> None:
        """Remove folders of jobs that a damaged library no longer names, once they are old.

        Args:
            now_seconds: The present time, in seconds since 1970.
        """
        known = {job.folder for job in self.all_jobs()}
        for name in self.work.names():
            folder = self.folder / "work" / name
            if folder in known or not self.work.holds(folder):
                continue
            with logged(OSError):
                if self.expired(folder.stat().st_mtime, now_seconds):
                    self.work.remove(folder)

    def expired(self, used_seconds: float, now_seconds: float) -> bool:
        """Tell whether something was not used for so long that it may be removed.

        Args:
            used_seconds: The time of its last use, in seconds since 1970.
            now_seconds: The present time, in seconds since 1970.

        Returns:
            False if nothing is ever removed.
        """
        return self.keep_days > 0 and now_seconds - used_seconds > self.keep_days * _DAY_SECONDS


def _of(owner: str, found: _Owned | None) -> _Owned | None:
    """Return a video or a restoration if it is the visitor's."""
    return found if found is not None and found.owner == owner else None


def new_id() -> str:
    """Return a random name that cannot be guessed."""
    return secrets.token_urlsafe(12)


def size_of(folder: Path) -> int:
    """Measure a folder.

    Args:
        folder: The folder; links in it are not followed.

    Returns:
        The size of its files, in bytes; 0 if it is gone.
    """
    total = 0
    for above, _, names in os.walk(folder, onerror=log_handled):
        for name in names:
            with logged(OSError):
                total += os.lstat(Path(above, name)).st_size
    return total

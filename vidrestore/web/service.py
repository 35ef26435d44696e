"""What the page does: it opens videos, runs commands for them, and keeps their results.

All calls belong to one event loop. Analyses, loops, copies, estimates and downloads each have a
list of their own, so that none of them waits for a restoration, which may take days.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from vidrestore.common.counting import counted
from vidrestore.common.files import remove_tree
from vidrestore.common.handled import log_handled, logged
from vidrestore.common.system import usable_cores
from vidrestore.models.weights import Weight, search_folders
from vidrestore.web import commands, targets, wording
from vidrestore.web.choices import (
    HOLDS_ALL,
    LOSSLESS,
    Change,
    Choices,
    changed,
    offer,
    weights_here,
    weights_offered,
)
from vidrestore.web.commands import ANALYSIS, Engine
from vidrestore.web.library import (
    LOCAL_OWNER,
    Estimate,
    Library,
    Restoration,
    Target,
    Video,
    new_id,
    size_of,
)
from vidrestore.web.places import Places, is_ordinary, show_in_folder
from vidrestore.web.queue import COMMAND, Job, Jobs, end_left
from vidrestore.web.wording import GONE, NO_VIDEO_HERE, NOT_OFFERED, RefusedError
from vidrestore.web.wording import settings as settings_shown

Kind = Literal["analysis", "estimate", "moment", "proxy", "restoration", "fetch"]
"""The kinds of jobs, each with a list of its own."""

MOMENT_SECONDS = 2.0
"""The length of the loop before and after, in seconds."""
MOST_VIDEOS = 200
"""The largest number of videos that one visitor may have open."""

_KINDS: tuple[Kind, ...] = ("analysis", "estimate", "moment", "proxy", "restoration", "fetch")
_SHORT_KINDS: tuple[Kind, ...] = ("analysis", "moment", "proxy")
"""The kinds of jobs for which a person waits."""
_MOST_HALTED_SECONDS = 180.0
_LOOK_SECONDS = 3.0  # between two looks at files that other programs may change
_SAVE_SECONDS = 1.0
_MEASURE_SECONDS = 60.0  # between two measurements of folders that grow
_EXPIRE_SECONDS = 3600.0
_SEEN_SECONDS = 15.0  # a page that asked so recently is open
_LONGEST_NAME = 60
_GPU_SECONDS = 10
_JOB_NEEDS_VIDEO = "Wait until the faces in the video are found."

_log = logging.getLogger("vidrestore")

_Owned = TypeVar("_Owned", Video, Restoration)


class Service:
    """All that the page does.

    Args:
        library: What the page keeps.
        places: The folders that the page may list.
        engine: The options of all commands.
        is_local: Whether only this machine can reach the page.
        most_upload_bytes: The largest size of an upload, in bytes.
        command: The program that does the work.
    """

    def __init__(
        self,
        library: Library,
        places: Places,
        *,
        engine: Engine,
        is_local: bool,
        most_upload_bytes: int,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.library = library
        """What the page keeps."""
        self.places = places
        """The folders that the page may list."""
        self.engine = engine
        """The options of all commands."""
        self.is_local = is_local
        """Whether only this machine can reach the page."""
        self.most_upload_bytes = most_upload_bytes
        """The largest size of an upload, in bytes."""
        self.machine = ""
        """The machine, in words for people."""
        self.weights: Mapping[str, Weight] = weights_offered()
        """The weights that choices may need, by name."""
        self.weights_here = weights_here(search_folders(engine.weights))
        """The names of the weights that are here."""
        self.offer = offer(self.weights_here, offline=engine.offline)
        """What can be chosen."""
        self.fetches: dict[str, Job] = {}
        """Name of a weight -> the job that downloads it."""
        self.lists: dict[Kind, Jobs] = {kind: self._list(kind, command) for kind in _KINDS}
        """The list of each kind of job."""
        self._of_job: dict[str, tuple[Kind, Any]] = {}
        """Id of a job -> its kind, and the video, restoration or name that it works for."""
        self._seen_seconds = 0.0
        self._must_measure: set[Path] = set()
        self._take_over()

    # The program

    async def work(self) -> None:
        """Run the commands of all lists, and look after files, until cancelled."""
        try:
            await self._end_left()
            async with asyncio.TaskGroup() as tasks:
                for jobs in self.lists.values():
                    tasks.create_task(jobs.work())
                tasks.create_task(self._describe_machine())
                tasks.create_task(self._repeat(_SAVE_SECONDS, self._save))
                tasks.create_task(self._repeat(_LOOK_SECONDS, self._look))
                tasks.create_task(self._repeat(_MEASURE_SECONDS, self._measure))
                tasks.create_task(self._repeat(_EXPIRE_SECONDS, self._expire))
        finally:
            self.library.save()

    async def _repeat(self, seconds: float, action: Callable[[], Any]) -> None:
        while True:
            try:
                done = action()
                if done is not None:
                    await done
            except Exception:  # one failure must not end the care for the others
                _log.exception("the page failed to look after its files")
            await asyncio.sleep(seconds)

    def seen(self) -> None:
        """Note that a page asks; files are looked at only while one does."""
        self._seen_seconds = time.monotonic()

    def _list(self, kind: Kind, command: Sequence[str]) -> Jobs:
        return Jobs(
            self._arguments,
            command,
            on_change=self._on_change,
            on_gone=self._on_gone,
            may_start=self._may_estimate if kind == "estimate" else self._is_of_this_page,
            is_low=kind == "estimate",
        )

    def _is_of_this_page(self, job: Job) -> bool:
        """Whether a job belongs to those whom this page serves; others wait for their page."""
        return (job.owner == LOCAL_OWNER) == self.is_local

    def _may_estimate(self, job: Job) -> bool:
        """Whether nobody waits for anything short."""
        return self._is_of_this_page(job) and not any(
            self.lists[kind].is_busy for kind in _SHORT_KINDS
        )

    def _make_room_for_estimate(self, kind: Kind, job: Job) -> None:
        """Halt a restoration while the speed is measured, and stop measuring for what is short.

        What is measured while other commands run would be too slow.
        """
        estimating = self.lists["estimate"].running
        if job.state == "running" and kind in (*_SHORT_KINDS, "restoration") and estimating:
            self.lists["estimate"].put_off(estimating)
        restoring = self.lists["restoration"].running
        if kind == "estimate" and restoring is not None:
            if job.state == "running":
                self.lists["restoration"].halt(restoring, _MOST_HALTED_SECONDS)
            elif job.state != "pausing":
                self.lists["restoration"].go_on(restoring)

    def _take_over(self) -> None:
        """Put the jobs of the library into their lists; what ran goes first."""
        for video in self.library.videos.values():
            for kind, job in _jobs_of_video(video):
                self._put(kind, job, video)
        for each in self.library.restorations.values():
            self._put("restoration", each.job, each)
            for job in each.jobs()[1:]:
                self._put("proxy", job, each)
        for video in self.library.videos.values():
            self._look_at_video(video)
        for each in self.library.restorations.values():
            _look_at_restoration(each)

    def _put(self, kind: Kind, job: Job, owner: Any) -> Job:
        self._of_job[job.job_id] = kind, owner
        self.lists[kind].add(job)
        return job

    async def _end_left(self) -> None:
        """End the commands of a killed page; their jobs wait again, or turn out to be done."""
        running = [job for job in self.library.all_jobs() if job.state in ("running", "pausing")]
        await asyncio.to_thread(lambda: [*map(end_left, running)])
        finished = {each.job for each in self.library.restorations.values() if _is_finished(each)}
        for job in running:
            was_pausing, job.process_id = job.state == "pausing", None
            job.state = "paused" if was_pausing else "waiting"
            if job in finished:
                job.state = "done"
            if job.is_unwanted:
                self._drop(job)
        for each in self.library.restorations.values():
            if each.job in finished and each.job in running:
                self._note_replaced(each)
            _look_at_restoration(each)
        if running:
            self.library.changed()
            self.library.save()
        for jobs in self.lists.values():
            jobs.wake()

    async def _describe_machine(self) -> None:
        self.machine = await asyncio.to_thread(_machine)
        self.library.shown_anew()

    def _save(self) -> None:
        self.library.save_if_changed()

    # Jobs

    def _arguments(self, job: Job) -> Sequence[str]:
        """Return the arguments of a job's command when it starts."""
        if not self.library.work.holds(job.folder):
            job.folder = self.library.make_folder(self.library.work)
        kind, owner = self._of_job[job.job_id]
        if isinstance(owner, str):
            return commands.fetch(owner, self.engine)
        if isinstance(owner, Restoration):
            if kind == "restoration":
                _check_source(owner)
                return commands.restore(
                    owner.source,
                    owner.target,
                    job.folder,
                    owner.choices,
                    self.engine,
                    overwrite=owner.overwrite,
                )
            source = owner.target if job is owner.proxy else owner.source
            return commands.proxy(source, job.folder)
        video: Video = owner
        match kind:
            case "analysis":
                return commands.analyze(video.path, job.folder, video.choices, self.engine)
            case "estimate":
                return commands.estimate(video.path, video.choices, self.engine)
            case "moment":
                at_seconds = video.moment_seconds
                return commands.preview(
                    video.path, job.folder, at_seconds, video.choices, self.engine
                )
        return commands.proxy(video.path, job.folder)

    def _on_change(self, job: Job, has_new_state: bool) -> None:
        if not has_new_state:
            self.library.shown_anew()
            return
        self.library.changed()
        kind, owner = self._of_job[job.job_id]
        self._make_room_for_estimate(kind, job)
        if job.state == "done" and not job.is_unwanted:
            self.library.keep_outcome(job)
            self._on_done(kind, job, owner)
        if job.state == "failed" and wording.error(job.message) == wording.UNEXPLAINED:
            _log.warning("%s", job.message)
        if job.is_over:
            self._must_measure.add(job.folder)
            self.lists["estimate"].wake()
        if kind == "restoration" or job.process_id is not None:
            self.library.save()

    def _on_done(self, kind: Kind, job: Job, owner: Any) -> None:
        if kind == "analysis":
            self._estimate(owner)
        elif kind == "restoration":
            owner.used_seconds = time.time()
            self._note_replaced(owner)
            _look_at_restoration(owner)
        elif kind == "fetch":
            self.fetches.pop(owner, None)
            self._drop(job)
            self._look_at_weights()

    def _note_replaced(self, new: Restoration) -> None:
        """Note of earlier restorations that their result is now that of another one."""
        for each in self.library.restorations.values():
            if each is not new and each.target == new.target and each.job.state == "done":
                each.is_replaced = True
                _look_at_restoration(each)

    def _on_gone(self, job: Job) -> None:
        kind, owner = self._of_job.pop(job.job_id)
        self.library.drop_job(job)
        if kind == "restoration":
            self._after_restoration(owner)
        self.lists["estimate"].wake()
        self.library.changed()

    def _new(self, kind: Kind, owner: Video | Restoration) -> Job:
        job = self.library.new_job(owner.owner)
        self._must_measure.add(job.folder)
        return self._put(kind, job, owner)

    def _drop(self, job: Job | None) -> None:
        if job is not None:
            kind, _ = self._of_job[job.job_id]
            self.lists[kind].remove(job)

    # Videos

    def own_video(self, owner: str, video_id: str) -> Video:
        """Find a video that a visitor is about to use.

        Args:
            owner: The visitor.
            video_id: The id of the video.

        Returns:
            The video.

        Raises:
            RefusedError: The visitor has no such video.
        """
        return _used(self.library.video(owner, video_id))

    def open_file(self, owner: str, entry_id: str) -> Video:
        """Open a file of this computer; one that is open already is not opened twice.

        Args:
            owner: The visitor.
            entry_id: The id of the file in a listing.

        Returns:
            The video.

        Raises:
            RefusedError: There is no such file, or too many videos are open.
        """
        path = self.places.file(entry_id)
        known = next(
            (
                video
                for video in self.library.videos_of(owner)
                if video.path == path and _is_same(path, video.bytes, video.modified_ns)
            ),
            None,
        )
        return known or self.open_path(owner, path)

    def open_path(self, owner: str, path: Path, upload: Path | None = None) -> Video:
        """Open a file, and begin to look for faces in it.

        Args:
            owner: The visitor.
            path: The file, without links.
            upload: The folder of the upload; None for a file of the user.

        Returns:
            The video.

        Raises:
            RefusedError: The file is not there, or too many videos are open.
        """
        self.check_room(owner)
        try:
            status = path.stat()
        except OSError as error:
            log_handled(error)
            raise RefusedError(NO_VIDEO_HERE, 404) from error
        video = Video(
            id=new_id(),
            owner=owner,
            path=path,
            upload=upload,
            bytes=status.st_size,
            modified_ns=status.st_mtime_ns,
            used_seconds=time.time(),
            choices=self.offer.first_choices(),
        )
        self.library.videos[video.id] = video
        if upload is not None:
            self.library.sizes[upload] = status.st_size
        self._analyze(video)
        self._look_at_video(video)
        return video

    def check_room(self, owner: str) -> None:
        """Check that a visitor may open one more video.

        Args:
            owner: The visitor.

        Raises:
            RefusedError: The visitor has the most videos that are allowed.
        """
        if len(self.library.videos_of(owner)) >= MOST_VIDEOS:
            raise RefusedError("Too many videos are open; remove some from the list first.", 409)

    def forget_video(self, owner: str, video_id: str) -> None:
        """Remove a video from the page; a file of the user stays.

        Args:
            owner: The visitor.
            video_id: The id of the video.

        Raises:
            RefusedError: The visitor has no such video.
        """
        self._forget(self.own_video(owner, video_id))
        self.library.save()

    def _forget(self, video: Video) -> None:
        del self.library.videos[video.id]
        for job in video.jobs():
            self._drop(job)
        if video.upload is not None:
            self.library.drop_upload(video.upload)
        self.library.changed()

    def choose(self, owner: str, video_id: str, change: Change) -> Choices:
        """Change what is chosen for a video.

        Args:
            owner: The visitor.
            video_id: The id of the video.
            change: The change.

        Returns:
            The new choices.

        Raises:
            RefusedError: The visitor has no such video, or a value is not offered.
        """
        video = self.own_video(owner, video_id)
        new = changed(video.choices, change)
        if self.offer.wrong_in(new, but_not=video.choices) is not None:
            raise RefusedError(NOT_OFFERED)
        start, end = new.start_seconds, new.end_seconds
        if end is not None and end <= (start or 0):
            raise RefusedError("The part must end after it begins; move one of its ends.")
        self._check_people(video, new)
        is_analyzed_anew = new.analysis_key != video.choices.analysis_key
        has_other_suffix = new.container != video.choices.container
        video.choices = new
        if has_other_suffix and video.target.name is not None and not video.is_picture:
            video.target.name = str(Path(video.target.name).with_suffix(new.container))
        if is_analyzed_anew:
            self._analyze(video)
        else:
            self._estimate(video)
        self._look_at_video(video)
        self.library.changed()
        return new

    def _check_people(self, video: Video, choices: Choices) -> None:
        if choices.people is None or choices.analysis_key != video.choices.analysis_key:
            return
        known = people_of(video)
        if known is not None and not set(choices.people) <= set(known):
            raise RefusedError(NOT_OFFERED)

    def name_person(self, owner: str, video_id: str, person: int, name: str) -> None:
        """Give a person a name.

        Args:
            owner: The visitor.
            video_id: The id of the video.
            person: The number of the person.
            name: The name; empty removes it.

        Raises:
            RefusedError: The visitor has no such video or the video no such person, or the name is
                too long.
        """
        video = self.own_video(owner, video_id)
        name = " ".join(name.split())
        if len(name) > _LONGEST_NAME:
            raise RefusedError(f"A name has at most {_LONGEST_NAME} characters.")
        if person not in (people_of(video) or ()):
            raise RefusedError(NOT_OFFERED)
        names = video.names.setdefault(video.choices.analysis_key, {})
        names[person] = name
        if not name:
            del names[person]
        self.library.changed()

    def _analyze(self, video: Video) -> None:
        """Find the people in a video; what was made with other choices goes."""
        for job in video.jobs():
            if job is not video.proxy:
                self._drop(job)
        video.moment, video.estimates = None, []
        video.analysis = self._new("analysis", video)
        self.library.changed()

    def analyze_again(self, owner: str, video_id: str) -> None:
        """Find the people in a video again, after a failure or a change of the file.

        Args:
            owner: The visitor.
            video_id: The id of the video.

        Raises:
            RefusedError: The visitor has no such video, or its file is gone.
        """
        video = self.own_video(owner, video_id)
        self._renew(video)
        self._analyze(video)

    def _renew(self, video: Video) -> None:
        """Note the present size and time of a video's file."""
        try:
            status = video.path.stat()
        except OSError as error:
            log_handled(error)
            raise RefusedError(NO_VIDEO_HERE, 409) from error
        video.bytes, video.modified_ns = status.st_size, status.st_mtime_ns
        video.is_there = True

    def _check_file(self, video: Video) -> None:
        """Refuse a video whose file is gone, or has changed; that one is looked at again."""
        if not is_ordinary(video.path):
            raise RefusedError(NO_VIDEO_HERE, 409)
        if not _is_same(video.path, video.bytes, video.modified_ns):
            self._renew(video)
            self._drop(video.proxy)
            video.proxy = None
            self._analyze(video)
            raise RefusedError(
                "The file has changed since it was opened; vidrestore looks for faces again.", 409
            )

    def _check_ready(self, video: Video) -> Mapping[str, Any]:
        """Return the analysis of a video; raise RefusedError if nothing can be restored yet."""
        self._check_file(video)
        analysis = analysis_of(video)
        if analysis is None:
            raise RefusedError(_JOB_NEEDS_VIDEO, 409)
        if not analysis["people"]:
            raise RefusedError("No face was found, so there is nothing to restore.", 409)
        if video.choices.people == []:
            raise RefusedError("Choose at least one person.", 409)
        return analysis

    def show_moment(self, owner: str, video_id: str, at_seconds: float) -> None:
        """Make a loop of two seconds before and after.

        Args:
            owner: The visitor.
            video_id: The id of the video.
            at_seconds: The moment, in seconds from the start.

        Raises:
            RefusedError: The visitor has no such video, or it is not analyzed.
        """
        video = self.own_video(owner, video_id)
        self._check_ready(video)
        self._drop(video.moment)
        video.moment_seconds, video.moment_choices = at_seconds, video.choices
        video.moment = self._new("moment", video)
        self.library.changed()

    def make_proxy(self, owner: str, video_id: str) -> None:
        """Make a copy of a video that browsers play, unless there is one.

        Args:
            owner: The visitor.
            video_id: The id of the video.

        Raises:
            RefusedError: The visitor has no such video, or its file is gone.
        """
        video = self.own_video(owner, video_id)
        self._check_file(video)
        video.proxy = self._proxy(video.proxy, video)

    def _proxy(self, known: Job | None, owner: Video | Restoration) -> Job:
        if known is not None and known.state in ("waiting", "running", "done"):
            return known
        self._drop(known)
        self.library.changed()
        return self._new("proxy", owner)

    # Estimates

    def _estimate(self, video: Video) -> None:
        """Estimate the time for the present choices, unless that is done already."""
        analysis = analysis_of(video)
        if analysis is None or not analysis["people"] or video.is_picture:
            return
        if self.missing_for(video.choices):
            return
        key = estimate_key(video.choices)
        known = next((each for each in video.estimates if each.key == key), None)
        if known is not None and known.job.state != "failed":
            return
        for each in [*video.estimates]:
            if each is known or each.job.state != "done":  # of choices that are no longer made
                self._drop(each.job)
                video.estimates.remove(each)
        video.estimates.append(Estimate(key=key, job=self._new("estimate", video)))
        self.library.changed()

    def missing_for(self, choices: Choices) -> tuple[str, ...]:
        """List the weights that choices need and that are not here.

        Args:
            choices: The choices.

        Returns:
            The names.
        """
        chosen = {choices.restorer, choices.detector}
        options = (*self.offer.restorers, *self.offer.detectors)
        found = (name for option in options if option.id in chosen for name in option.missing)
        return tuple(dict.fromkeys(found))

    # Targets

    def suffixes(self, video: Video) -> tuple[str, ...]:
        """List the suffixes that the result of a video may have.

        Args:
            video: The video.

        Returns:
            The suffixes, with their dots.
        """
        if video.is_picture:
            return ".png", ".jpg", ".tif"
        if video.choices.quality == LOSSLESS:
            return (HOLDS_ALL,)
        return tuple(option.id for option in self.offer.containers)

    def target(self, video: Video) -> Path:
        """Return where the result of a video goes by the present choices.

        Args:
            video: The video.

        Returns:
            The path. Of a page that is not local, only its name means something.
        """
        suffix = video.choices.container
        if video.is_picture:
            suffix = ".png"
        folder = video.target.folder
        if folder is None:
            folder = targets.default_folder(None if video.upload else video.path)
        if video.target.name is not None:
            return folder / video.target.name
        name = targets.default_name(video.path, suffix)
        if not self.is_local:
            return folder / name
        orders = [*self.library.restorations.values()]
        taken = {each.target for each in orders if each.is_unfinished}
        return folder / targets.numbered(folder, name, taken)

    def set_target(self, owner: str, video_id: str, folder_id: str | None, name: str) -> bool:
        """Set where the result of a video goes.

        Args:
            owner: The visitor.
            video_id: The id of the video.
            folder_id: The id of a listed folder; None: the usual folder.
            name: The name of the file; empty: the usual name.

        Returns:
            Whether there is a file of this name.

        Raises:
            RefusedError: The visitor has no such video or folder, or no file may have the name.
        """
        video = self.own_video(owner, video_id)
        folder = None
        if folder_id is not None:
            if not self.is_local:
                raise RefusedError(GONE, 404)
            folder = self.places.folder(folder_id)
            targets.check_folder(folder)
        checked = None
        if name.strip():
            checked = targets.check_name(name, self.suffixes(video))
            if not video.is_picture:
                container = Path(checked).suffix.lower()
                video.choices = video.choices.model_copy(update={"container": container})
        video.target = Target(folder=folder, name=checked)
        self._look_at_video(video)
        self.library.changed()
        return video.target_exists

    # Restorations

    def own_restoration(self, owner: str, restoration_id: str) -> Restoration:
        """Find a restoration that a visitor is about to use.

        Args:
            owner: The visitor.
            restoration_id: The id of the restoration.

        Returns:
            The restoration.

        Raises:
            RefusedError: The visitor has no such restoration.
        """
        return _used(self.library.restoration(owner, restoration_id))

    def restore(self, owner: str, video_id: str, *, overwrite: bool) -> Restoration:
        """Order the restoration of a video.

        Args:
            owner: The visitor.
            video_id: The id of the video.
            overwrite: Whether a file at the target is replaced.

        Returns:
            The restoration, which waits.

        Raises:
            RefusedError: Nothing can be restored, or the target cannot be written.
        """
        video = self.own_video(owner, video_id)
        analysis = self._check_ready(video)
        if self.offer.wrong_in(video.choices) is not None:
            raise RefusedError("What is chosen under More is not here; choose something else.", 409)
        job = None
        if self.is_local:
            target = self.target(video)
            replaced_ns = self._check_target(target, overwrite=overwrite)
        else:
            job = self.library.new_job(owner)
            target, replaced_ns = job.folder / self.target(video).name, None
        choices = video.choices
        job = job or self.library.new_job(owner)
        _keep_analysis(video, job)
        restoration = Restoration(
            id=new_id(),
            owner=owner,
            video=video.id,
            source=video.path,
            source_bytes=video.bytes,
            source_modified_ns=video.modified_ns,
            target=target,
            choices=choices,
            settings_shown=settings_shown(choices, self.offer, video.own_names),
            overwrite=overwrite and replaced_ns is not None,
            replaced_ns=replaced_ns,
            seconds=_length(analysis, choices),
            used_seconds=time.time(),
            job=job,
        )
        self.library.restorations[restoration.id] = restoration
        self._must_measure.add(job.folder)
        self._put("restoration", job, restoration)
        if video.target.name is not None:
            video.target = video.target.model_copy(update={"name": None})
        self._look_at_video(video)
        self.library.changed()
        self.library.save()
        return restoration

    def _check_target(self, target: Path, *, overwrite: bool) -> int | None:
        """Check the new file; return the time of the last change of the file that it replaces."""
        targets.check_folder(target.parent)
        sources = {video.path for video in self.library.videos.values()}
        sources |= {each.source for each in self.library.restorations.values()}
        targets.check_not_a_source(target, sources)
        for each in self.library.restorations.values():
            if each.is_unfinished and each.target == target:
                raise RefusedError(
                    "Another restoration in the list writes this file; choose another name.", 409
                )
        try:
            status = os.lstat(target)
        except FileNotFoundError:
            return None
        except OSError as error:
            log_handled(error)
            raise RefusedError("The name cannot be used there; choose another one.", 409) from error
        if not is_ordinary(target):
            raise RefusedError("Something that is no file has this name; choose another one.", 409)
        if not overwrite:
            raise RefusedError(
                "There is a file of this name already. Replace it, or choose another name.",
                409,
                exists=True,
            )
        return status.st_mtime_ns

    def pause(self, owner: str, restoration_id: str) -> None:
        """Pause a restoration, which keeps what is finished.

        Args:
            owner: The visitor.
            restoration_id: The id of the restoration.

        Raises:
            RefusedError: The visitor has no such restoration.
        """
        self.lists["restoration"].pause(self.own_restoration(owner, restoration_id).job)

    def resume(self, owner: str, restoration_id: str) -> None:
        """Continue a restoration that was paused or failed, behind those that wait.

        Args:
            owner: The visitor.
            restoration_id: The id of the restoration.

        Raises:
            RefusedError: The visitor has no such restoration, or its video is gone or has changed.
        """
        each = self.own_restoration(owner, restoration_id)
        if each.job.state not in ("paused", "failed"):
            return
        _check_source(each)
        if self.is_local:
            targets.check_folder(each.target.parent)
        self.library.restorations[each.id] = self.library.restorations.pop(each.id)
        self.lists["restoration"].resume(each.job)
        self.library.save()

    def remove(self, owner: str, restoration_id: str, *, delete_result: bool) -> None:
        """Remove a restoration from the list, with what an unfinished one has left.

        Args:
            owner: The visitor.
            restoration_id: The id of the restoration.
            delete_result: Whether the result is deleted too, if it is in the page's own folder.

        Raises:
            RefusedError: The visitor has no such restoration, or the result is a file of the user.
        """
        each = self.own_restoration(owner, restoration_id)
        if delete_result and not self.is_in_library(each) and each.job.state == "done":
            raise RefusedError(
                "The result is in a folder of yours; delete it there, with your file manager.", 409
            )
        self._remove(each)
        self.library.save()

    def _remove(self, each: Restoration) -> None:
        del self.library.restorations[each.id]
        for job in each.jobs():
            self._drop(job)
        self.library.changed()

    def _after_restoration(self, each: Restoration) -> None:
        """Remove what a removed restoration has left, once its command has ended."""
        if each.job.state != "done":
            self._discard_work(each)
        upload = next(
            (folder for folder in each.source.parents if self.library.uploads.holds(folder)), None
        )
        if upload is not None:
            self.library.drop_upload(upload)

    def _discard_work(self, each: Restoration) -> None:
        """Remove the work folder of an unfinished restoration, which its command made."""
        left = _work_folder(each.target)
        is_of_another = any(
            other.target == each.target for other in self.library.restorations.values()
        )
        if each.job.has_run and not is_of_another and left.is_dir() and not left.is_symlink():
            remove_tree(left)

    def is_in_library(self, each: Restoration) -> bool:
        """Tell whether the result of a restoration is in the page's own folder.

        Args:
            each: The restoration.

        Returns:
            True if it is removed with the restoration.
        """
        return each.job.folder in each.target.parents

    def show(self, owner: str, restoration_id: str) -> None:
        """Open the file manager at a result.

        Args:
            owner: The visitor.
            restoration_id: The id of the restoration.

        Raises:
            RefusedError: The visitor has no such restoration, the result is gone, or the page is
                not served to this machine only.
        """
        each = self.own_restoration(owner, restoration_id)
        if not self.is_local:
            raise RefusedError(GONE, 404)
        if each.job.state != "done" or not is_ordinary(each.target):
            raise RefusedError("The result is no longer there.", 409)
        show_in_folder(each.target)

    def make_result_proxy(self, owner: str, restoration_id: str, *, of_source: bool) -> None:
        """Make a copy of a result, or of its source, that browsers play.

        Args:
            owner: The visitor.
            restoration_id: The id of the restoration.
            of_source: Whether the copy is one of the source.

        Raises:
            RefusedError: The visitor has no such restoration, or the file is gone.
        """
        each = self.own_restoration(owner, restoration_id)
        path = each.source if of_source else each.target
        if not is_ordinary(path) or (each.job.state != "done" and not of_source):
            raise RefusedError(NO_VIDEO_HERE, 409)
        if of_source:
            each.source_proxy = self._proxy(each.source_proxy, each)
        else:
            each.proxy = self._proxy(each.proxy, each)

    # Weights

    def fetch(self, name: str) -> None:
        """Download a weight, unless it is here or is being downloaded.

        Args:
            name: The name of the weight.

        Raises:
            RefusedError: There is no such weight, or downloads are switched off.
        """
        if name not in self.weights:
            raise RefusedError(GONE, 404)
        if self.engine.offline:
            raise RefusedError("Downloads are switched off for this page.", 409)
        known = self.fetches.get(name)
        if name in self.weights_here or (known is not None and not known.is_over):
            return
        self._drop(known)
        job = self.library.new_job(LOCAL_OWNER if self.is_local else "visitors")
        self._of_job[job.job_id] = "fetch", name
        self.fetches[name] = self.lists["fetch"].add(job)
        self.library.shown_anew()

    def _look_at_weights(self) -> None:
        self._set_weights_here(weights_here(search_folders(self.engine.weights)))

    def _set_weights_here(self, here: frozenset[str]) -> None:
        if here != self.weights_here:
            self.weights_here = here
            self.offer = offer(here, offline=self.engine.offline)
            self.library.shown_anew()
            for video in [*self.library.videos.values()]:
                self._estimate(video)

    # Files

    def set_keep_days(self, days: int) -> None:
        """Set the number of days after which unused files of the page are removed; 0: never.

        Args:
            days: The number.

        Raises:
            RefusedError: The page is served to others, whose files would be removed, too.
        """
        if not self.is_local:
            raise RefusedError(GONE, 404)
        self.library.keep_days = days
        self.library.changed()
        self._expire()

    async def _look(self) -> None:
        """Look at files that other programs may change, while a page is open."""
        if time.monotonic() - self._seen_seconds > _SEEN_SECONDS:
            return
        before = self._facts()
        videos, restorations = (
            [*self.library.videos.values()],
            [*self.library.restorations.values()],
        )

        def look() -> frozenset[str]:
            for video in videos:
                self._look_at_video(video)
            for each in restorations:
                _look_at_restoration(each)
            return weights_here(search_folders(self.engine.weights))

        self._set_weights_here(await asyncio.to_thread(look))
        if self._facts() != before:
            self.library.shown_anew()
        await self._measure(only_new=True)

    def _facts(self) -> list[Any]:
        found: list[Any] = [
            (each.is_there, each.target_shown, each.target_error, each.target_exists)
            for each in self.library.videos.values()
        ]
        for each in self.library.restorations.values():
            found.append((each.result_bytes, each.is_source_there))
        return found

    def _look_at_video(self, video: Video) -> None:
        video.is_there = _is_same(video.path, video.bytes, video.modified_ns)
        video.target_shown = self.target(video)
        if self.is_local:
            folder = video.target_shown.parent
            entry = self.places.entry_of(folder)
            video.target_folder = None if entry is None else entry.id
            video.target_error = targets.problem_of(folder)
        video.target_exists = self.is_local and os.path.lexists(video.target_shown)

    async def _measure(self, *, only_new: bool = False) -> None:
        """Measure the folders of the page that are new or that grow."""
        folders = set(self._must_measure)
        self._must_measure.clear()
        if not only_new:
            folders |= {job.folder for job in self.library.all_jobs() if not job.is_over}
            known = {job.folder for job in self.library.all_jobs()}
            known |= {v.upload for v in self.library.videos.values() if v.upload is not None}
            folders |= known - self.library.sizes.keys()
        if not folders:
            return
        sizes = await asyncio.to_thread(lambda: {folder: size_of(folder) for folder in folders})
        before = dict(self.library.sizes)
        self.library.sizes |= {folder: size for folder, size in sizes.items() if size}
        if self.library.sizes != before:
            self.library.shown_anew()

    def space_bytes(self, owner: str) -> int:
        """Return the space that a visitor's uploads and results take in the page's folder.

        Args:
            owner: The visitor.

        Returns:
            The size in bytes, as it was last measured.
        """
        videos = self.library.videos_of(owner)
        folders = {job.folder for each in self.library.items(owner) for job in each.jobs()}
        folders |= {video.upload for video in videos if video.upload is not None}
        for each in self.library.restorations_of(owner):
            folders |= set(each.source.parents)  # an upload whose video was removed
        return sum(size for folder, size in self.library.sizes.items() if folder in folders)

    def _expire(self) -> None:
        """Remove what was not used for as long as the user wants to keep it."""
        now = time.time()
        for each in [*self.library.restorations.values()]:
            is_old = self.library.expired(each.used_seconds, now)
            if is_old and not each.is_unfinished:
                if self.is_in_library(each):
                    self._remove(each)
                else:
                    self._drop_copies(each)
        needed = {each.source for each in self.library.restorations.values() if each.is_unfinished}
        for video in [*self.library.videos.values()]:
            if not self.library.expired(video.used_seconds, now) or video.path in needed:
                continue
            if any(not job.is_over for job in video.jobs()):
                continue
            if video.upload is not None:
                self._forget(video)
            else:
                self._drop(video.proxy)
                self._drop(video.moment)
                video.proxy = video.moment = None
        self.library.drop_orphans(now)

    def _drop_copies(self, each: Restoration) -> None:
        self._drop(each.proxy)
        self._drop(each.source_proxy)
        each.proxy = each.source_proxy = None

    def forget_visitor(self, owner: str) -> None:
        """Remove all that a visitor has on the page.

        Args:
            owner: The visitor.
        """
        for each in self.library.restorations_of(owner):
            self._remove(each)
        for video in self.library.videos_of(owner):
            self._forget(video)

    def is_busy(self, owner: str) -> bool:
        """Tell whether a command runs or waits for a visitor.

        Args:
            owner: The visitor.

        Returns:
            True if a command runs or waits.
        """
        items = self.library.items(owner)
        return any(not job.is_over for each in items for job in each.jobs())

    def is_needed(self, video: Video) -> bool:
        """Tell whether an unfinished restoration needs the file of a video.

        Args:
            video: The video.

        Returns:
            True if one needs it.
        """
        return any(
            each.is_unfinished and each.source == video.path
            for each in self.library.restorations.values()
        )

    def unfinished(self) -> int:
        """Count the restorations that the next page continues."""
        return sum(
            each.job.state in ("waiting", "running") for each in self.library.restorations.values()
        )


def _jobs_of_video(video: Video) -> list[tuple[Kind, Job]]:
    found: list[tuple[Kind, Job | None]] = [
        ("analysis", video.analysis), ("moment", video.moment), ("proxy", video.proxy)
    ]  # fmt: skip
    found += [("estimate", each.job) for each in video.estimates]
    return [(kind, job) for kind, job in found if job is not None]


def analysis_of(video: Video) -> Mapping[str, Any] | None:
    """Return the analysis of a video, from the JSON output.

    Args:
        video: The video.

    Returns:
        The fields of the analysis; None while there is none.
    """
    job = video.analysis
    if job is None or job.state != "done":
        return None
    analysis: Mapping[str, Any] | None = job.outcome.get("analysis")
    return analysis


def people_of(video: Video) -> list[int] | None:
    """Return the numbers of the people in a video.

    Args:
        video: The video.

    Returns:
        The numbers; None while the video is not analyzed.
    """
    analysis = analysis_of(video)
    return None if analysis is None else [each["person_id"] for each in analysis["people"]]


def estimate_key(choices: Choices) -> str:
    """Name the choices on which the speed of a restoration depends.

    Args:
        choices: The choices.

    Returns:
        A text that is equal for choices of equal speed.
    """
    return f"{choices.profile} {choices.restorer} {choices.detector}"


def _keep_analysis(video: Video, job: Job) -> None:
    """Give a restoration the analysis of its video, which may be analyzed anew before it begins."""
    if video.analysis is None:
        return
    known, own = video.analysis.folder / ANALYSIS, job.folder / ANALYSIS
    with logged(OSError, what="keeping the analysis"):  # without it, the command makes another
        try:
            own.hardlink_to(known)
        except OSError as error:  # not every disk has links
            log_handled(error)
            shutil.copyfile(known, own)


def _length(analysis: Mapping[str, Any], choices: Choices) -> float | None:
    """Return the length of the chosen part, in seconds."""
    whole = analysis.get("seconds", analysis.get("last_frame_seconds"))
    if whole is None:
        return None
    end = min(whole, choices.end_seconds) if choices.end_seconds is not None else whole
    return max(0.0, float(end) - (choices.start_seconds or 0))


def _is_same(path: Path, size: int, modified_ns: int) -> bool:
    """Whether a file is there and is as it was."""
    try:
        status = path.stat()
    except OSError as error:
        log_handled(error)
        return False
    return (status.st_size, status.st_mtime_ns) == (size, modified_ns)


def _check_source(each: Restoration) -> None:
    """Refuse to restore a file that is not the one whose people and part were chosen."""
    if not _is_same(each.source, each.source_bytes, each.source_modified_ns):
        raise RefusedError("The video is no longer there, or it has changed.", 409)


def _look_at_restoration(each: Restoration) -> None:
    each.is_source_there = _is_same(each.source, each.source_bytes, each.source_modified_ns)
    each.result_bytes = None
    if each.job.state == "done" and not each.is_replaced and is_ordinary(each.target):
        with logged(OSError):
            each.result_bytes = each.target.stat().st_size


def _work_folder(target: Path) -> Path:
    """Return the folder in which the command keeps finished work."""
    return target.with_name(f"{target.name}.vidrestore")


def _is_finished(each: Restoration) -> bool:
    """Whether the command of a killed page had put the result in its place."""
    if _work_folder(each.target).exists() or not is_ordinary(each.target):
        return False
    with logged(OSError):
        return each.target.stat().st_mtime_ns != each.replaced_ns
    return False


def _used(found: _Owned | None) -> _Owned:
    """Note the use of a video or a restoration; raise RefusedError where there is none."""
    if found is None:
        raise RefusedError(GONE, 404)
    found.used_seconds = time.time()
    return found


def _machine() -> str:
    """Describe the machine: its cores, and its GPU as the driver names it."""
    cores = usable_cores()
    text = counted(cores, "core")
    program = shutil.which("nvidia-smi")
    if program is not None:
        try:
            listed = subprocess.run(
                [program, "--query-gpu=name", "--format=csv,noheader"],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_GPU_SECONDS,
                stdin=subprocess.DEVNULL,
                check=True,
            ).stdout.splitlines()
            if listed:
                return f"{text}, {listed[0].strip()}"
        except (OSError, subprocess.SubprocessError) as error:
            log_handled(error, "asking for the GPU")
    return f"{text}, no GPU"

"""The work of the page: the analyses, previews and restorations, as two lists of commands."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidrestore.common.errors import UsageError
from vidrestore.common.files import fitting_name
from vidrestore.common.quoting import quoted
from vidrestore.web.queue import COMMAND, Job, Jobs
from vidrestore.web.tabs import Tabs
from vidrestore.web.uploads import Uploads

NO_PROFILE = "none"
_NOT_HERE = (
    "this video is no longer here, or was chosen in another browser; load the page again and "
    "choose it again"
)


@dataclass(frozen=True, slots=True)
class AnalysisOptions:
    """The options that decide which faces are found; all commands on a video use the same ones."""

    profile: str
    """The name of the profile; NO_PROFILE: no profile."""
    detector: str
    """The name of the face detector."""


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """The options of a restoration."""

    analysis_options: AnalysisOptions
    """The options with which the video was analyzed."""
    restorer: str
    """The name of the restorer."""
    strength: float
    """The share of the restored face, from 0 to 1."""
    people: tuple[str, ...]
    """The numbers of the people to restore."""


class Session:
    """All uploads and commands of the page.

    Analyses and previews have their own list, so that they do not wait for restorations, which
    take hours. All calls belong to one event loop. An upload is removed when no command needs it
    any more. Each job and each upload has one owner, a visitor of the page, and no other visitor
    can see it. Methods raise UsageError for a job or an upload that the visitor does not own, and
    for a value that could be an option or a path of a command.

    Args:
        folder: The folder that holds all files.
        weights: A folder to search for weight files before all others. None: the usual folders.
        offline: Whether commands never download weights.
        command: The program that does the work.
    """

    def __init__(
        self,
        folder: Path,
        *,
        weights: Path | None = None,
        offline: bool = False,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.weights = weights
        self.offline = offline
        self.uploads = Uploads(folder / "uploads")
        self.analyses = Jobs(folder / "analyses", command, self._gone)
        """The list of analyses and previews."""
        self.restorations = Jobs(folder / "restorations", command, self._gone)
        self.tabs = Tabs(self._is_at_work, self._forget_if_known)

    async def work(self) -> None:
        """Run the commands of both lists until cancelled."""
        async with asyncio.TaskGroup() as lists:
            lists.create_task(self.analyses.work())
            lists.create_task(self.restorations.work())

    def analyze(self, owner: str, named: str, options: AnalysisOptions) -> Job:
        """Analyze a video.

        Args:
            owner: The visitor who asks.
            named: The text by which the visitor names the upload.
            options: The options of the analysis.

        Returns:
            The job of the analysis.

        Raises:
            UsageError: The visitor has no such upload.
        """
        upload = self.uploads.find(named, owner)
        if upload is None:
            raise UsageError(_NOT_HERE)
        return self._add_analysis(owner, upload.path, options)

    def analyze_again(self, owner: str, analysis_id: int, options: AnalysisOptions) -> Job:
        """Analyze a video again with other options, and remove the earlier analysis.

        Args:
            owner: The visitor who asks.
            analysis_id: The number of the earlier analysis.
            options: The new options.

        Returns:
            The job of the new analysis.

        Raises:
            UsageError: The visitor has no such analysis.
        """
        analysis_job = _own(self.analyses, owner, analysis_id)
        new = self._add_analysis(owner, analysis_job.source, options)
        self.analyses.remove(analysis_job)
        return new

    def forget_analysis(self, owner: str, analysis_id: int) -> None:
        """Remove the analysis and the previews of a video; its restorations continue.

        Args:
            owner: The visitor who asks.
            analysis_id: The number of the analysis.

        Raises:
            UsageError: The visitor has no such analysis.
        """
        analysis_job = _own(self.analyses, owner, analysis_id)
        for job in (*self._previews_of(analysis_job), analysis_job):
            self.analyses.remove(job)

    def _add_analysis(self, owner: str, source: Path, options: AnalysisOptions) -> Job:
        own = self._analysis_arguments(options)
        return self.analyses.add(
            owner,
            source,
            lambda folder: [
                *("analyze", str(source), "--contact-sheet", str(folder), "--no-estimate"),
                *own,
            ],
        )

    def preview(
        self,
        owner: str,
        analysis_id: int,
        at_seconds: float,
        options: RestoreOptions,
        *,
        close: bool,
    ) -> Job:
        """Make a preview of one moment, and remove earlier previews of the video.

        Args:
            owner: The visitor who asks.
            analysis_id: The number of the video's analysis.
            at_seconds: The moment, in seconds from the start.
            options: The options of the restoration.
            close: Whether to crop to the largest face.

        Returns:
            The job; `pair_of` gives its pictures.

        Raises:
            UsageError: The visitor has no such analysis, or a value is not allowed.
        """
        analysis_job = _own(self.analyses, owner, analysis_id)
        if not 0 <= at_seconds < math.inf:
            raise UsageError(f"{quoted(at_seconds)} is not a time in the video; choose another")
        own = self._restore_arguments(analysis_job, options)
        for job in self._previews_of(analysis_job):
            self.analyses.remove(job)
        return self.analyses.add(
            owner,
            analysis_job.source,
            lambda folder: [
                *("preview", str(analysis_job.source), "--at", f"{at_seconds:.3f}", "--apart"),
                *(("--close",) if close else ()),
                *("-o", str(folder / "moment.png"), *own),
            ],
        )

    def restore(
        self,
        owner: str,
        analysis_id: int,
        quality: str,
        suffix: str,
        options: RestoreOptions,
    ) -> Job:
        """Restore a whole video.

        Args:
            owner: The visitor who asks.
            analysis_id: The number of the video's analysis.
            quality: The value of `--quality`.
            suffix: The suffix of the output, such as .mp4.
            options: The options of the restoration.

        Returns:
            The job; `target_of` gives its output.

        Raises:
            UsageError: The visitor has no such analysis, or a value is not allowed.
        """
        analysis_job = _own(self.analyses, owner, analysis_id)
        if not re.fullmatch(r"\.\w{1,8}", suffix):
            raise UsageError(f"{quoted(suffix)} is not a suffix of a file; choose another")
        stem, ending = analysis_job.source.stem, f"-clear{suffix}"
        own = ["--quality", _word(quality), *self._restore_arguments(analysis_job, options)]
        return self.restorations.add(
            owner,
            analysis_job.source,
            lambda folder: [
                "restore",
                str(analysis_job.source),
                str(folder / fitting_name(folder, stem, ending)),
                *own,
            ],
        )

    def stop(self, owner: str, job_id: int) -> None:
        """Stop a restoration; `resume` continues it.

        Args:
            owner: The visitor who asks.
            job_id: The number of the restoration.

        Raises:
            UsageError: The visitor has no such restoration.
        """
        self.restorations.stop(_own(self.restorations, owner, job_id))

    def resume(self, owner: str, job_id: int) -> None:
        """Continue a restoration that was stopped or failed.

        Args:
            owner: The visitor who asks.
            job_id: The number of the restoration.

        Raises:
            UsageError: The visitor has no such restoration.
        """
        self.restorations.resume(_own(self.restorations, owner, job_id))

    def remove(self, owner: str, job_id: int) -> None:
        """Remove a restoration and its output.

        Args:
            owner: The visitor who asks.
            job_id: The number of the restoration.

        Raises:
            UsageError: The visitor has no such restoration.
        """
        self.restorations.remove(_own(self.restorations, owner, job_id))

    def is_busy(self, owner: str) -> bool:
        """Check whether a command runs or a request is open for a visitor.

        Args:
            owner: The visitor.

        Returns:
            True if a job of the visitor is not over, or a request is being answered.
        """
        jobs = (*self.analyses.of(owner), *self.restorations.of(owner))
        return self.tabs.has_open_requests(owner) or not all(job.is_over for job in jobs)

    def holds_files_of(self, owner: str) -> bool:
        """Check whether a visitor has jobs or uploads.

        Args:
            owner: The visitor.

        Returns:
            True if there is a job or an upload of the visitor.
        """
        jobs = self.analyses.of(owner) or self.restorations.of(owner)
        return bool(jobs or self.uploads.of(owner))

    def forget(self, owner: str) -> None:
        """Remove all tabs, jobs and uploads of a visitor.

        Args:
            owner: The visitor.
        """
        self.tabs.forget_all(owner)
        for jobs in (self.analyses, self.restorations):
            for job in jobs.of(owner):
                jobs.remove(job)
        for upload in self.uploads.of(owner):
            self.uploads.remove(upload)

    def portrait(self, owner: str, analysis_id: int, person: int) -> Path | None:
        """Find the picture of a person.

        Args:
            owner: The visitor who asks.
            analysis_id: The number of the analysis.
            person: The number of the person.

        Returns:
            The path of the picture, which may not exist; None if the visitor has no such analysis.
        """
        analysis_job = self.analyses.find(owner, analysis_id)
        return None if analysis_job is None else analysis_job.folder / f"person_{person}.png"

    def result(self, owner: str, job_id: int) -> Path | None:
        """Find the output of a finished restoration.

        Args:
            owner: The visitor who asks.
            job_id: The number of the restoration.

        Returns:
            The path of the output; None if the visitor has no such restoration, or it is not done.
        """
        job = self.restorations.find(owner, job_id)
        return None if job is None or job.state != "done" else target_of(job)

    def file_for_page(self, owner: str, named: str) -> Path | None:
        """Find a file that the page requests by a path: an upload, or a picture of a preview.

        Args:
            owner: The visitor who asks.
            named: The path, which is only compared with the server's own paths.

        Returns:
            The server's own path; None if the visitor has no such file.
        """
        if (upload := self.uploads.find(named, owner)) is not None:
            return upload.path
        pictures = (picture for job in self._previews(owner) for picture in pair_of(job))
        return next((picture for picture in pictures if str(picture) == named), None)

    def _previews(self, owner: str) -> list[Job]:
        return [job for job in self.analyses.of(owner) if job.arguments[0] == "preview"]

    def _previews_of(self, analysis_job: Job) -> list[Job]:
        return [
            job for job in self._previews(analysis_job.owner) if job.source == analysis_job.source
        ]

    def _restore_arguments(self, analysis_job: Job, options: RestoreOptions) -> list[str]:
        if "analysis" not in analysis_job.outcome:
            raise UsageError("the video is not analyzed yet; wait until the analysis is done")
        known = {str(person["person_id"]) for person in people_in(analysis_job)}
        if unknown := sorted(set(options.people) - known):
            raise UsageError(f"person {quoted(unknown[0])} is not in this video; choose another")
        if not 0 <= options.strength <= 1:
            raise UsageError(f"the strength {quoted(options.strength)} is not from 0 to 1")
        people = ("--people", ",".join(options.people)) if len(options.people) < len(known) else ()
        return [
            *(
                "--restorer",
                _word(options.restorer),
                "--strength",
                f"{options.strength:g}",
            ),
            *people,
            *self._analysis_arguments(options.analysis_options),
        ]

    def _analysis_arguments(self, options: AnalysisOptions) -> list[str]:
        return [
            *(() if options.profile == NO_PROFILE else ("--profile", _word(options.profile))),
            *("--detector", _word(options.detector)),
            *(() if self.weights is None else ("--weights", str(self.weights))),
            *(("--offline",) if self.offline else ()),
        ]

    def _is_at_work(self, owner: str, analysis_id: int) -> bool:
        """Whether a command runs or waits for the video of an analysis."""
        analysis_job = self.analyses.find(owner, analysis_id)
        jobs = (*self.analyses.of(owner), *self.restorations.of(owner))
        return analysis_job is not None and any(
            job.source == analysis_job.source and not job.is_over for job in jobs
        )

    def _forget_if_known(self, owner: str, analysis_id: int) -> None:
        if self.analyses.find(owner, analysis_id) is not None:
            self.forget_analysis(owner, analysis_id)

    def _gone(self, gone: Job) -> None:
        """Remove the upload of a removed job if no other job needs it."""
        left = (*self.analyses.jobs, *self.restorations.jobs)
        if not any(job.source == gone.source for job in left):
            self.uploads.remove_at(gone.source)


def _own(jobs: Jobs, owner: str, job_id: int) -> Job:
    """Return a job of a visitor; raise UsageError if the visitor has no such job."""
    job = jobs.find(owner, job_id)
    if job is None:
        raise UsageError(_NOT_HERE)
    return job


def _word(value: str) -> str:
    """Return a name as an argument; raise UsageError if it could be an option or a path."""
    if not value or value.startswith("-") or re.search(r"[/\\\0]", value):
        raise UsageError(f"{quoted(value)} is not one of the choices; choose another")
    return value


def options_of(analysis_job: Job) -> AnalysisOptions:
    """Return the options of an analysis.

    Args:
        analysis_job: The job of the analysis.

    Returns:
        The options.
    """
    given = dict(zip(analysis_job.arguments, analysis_job.arguments[1:], strict=False))
    return AnalysisOptions(given.get("--profile", NO_PROFILE), given["--detector"])


def people_in(analysis_job: Job) -> Sequence[dict[str, Any]]:
    """Return the people in a video.

    Args:
        analysis_job: The job of an analysis that is done.

    Returns:
        A mapping for each person; see `vidrestore.analysis.description.Person`.
    """
    people: Sequence[dict[str, Any]] = analysis_job.outcome["analysis"]["people"]
    return people


def target_of(job: Job) -> Path:
    """Return the output file of a restoration.

    Args:
        job: The job of the restoration.

    Returns:
        The path, at which there may be no file yet.
    """
    return Path(job.arguments[2])


def pair_of(job: Job) -> tuple[Path, Path]:
    """Return the pictures that a preview writes.

    Args:
        job: The job of the preview.

    Returns:
        The paths of the pictures before and after.
    """
    return job.folder / "moment.before.png", job.folder / "moment.after.png"

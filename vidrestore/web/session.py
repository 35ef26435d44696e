"""What the page works on: videos that are looked at, and restorations, as lists of commands."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidrestore.common.errors import UsageError
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
class Kind:
    """What decides what is found, and must therefore be the same for all commands of a video."""

    profile: str
    """NO_PROFILE: none."""
    detector: str


@dataclass(frozen=True, slots=True)
class Order:
    """How and whom to restore."""

    kind: Kind
    restorer: str
    strength: float
    people: tuple[str, ...]
    """Numbers of persons."""


class Session:
    """Looking at a video does not wait for restorations, which take hours: there are two lists.

    Belongs to one event loop. All files lie in `folder`; an upload goes, with the folder that was
    made for it, when no command needs it any more. Each job and each upload has one owner, a
    visitor of the page, and is there for no other: what is asked for names its visitor, and what
    that visitor does not own, or what could be an option or a path of a command, is refused with
    a UsageError.
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
        self.looks = Jobs(folder / "looks", command, self._gone)
        """Analyses and previews."""
        self.restorations = Jobs(folder / "restorations", command, self._gone)
        self.tabs = Tabs(self._is_at_work, self._forget_look)

    async def work(self) -> None:
        """Run the commands of both lists until cancelled."""
        async with asyncio.TaskGroup() as lists:
            lists.create_task(self.looks.work())
            lists.create_task(self.restorations.work())

    def look(self, owner: str, named: str, kind: Kind) -> Job:
        """Find out who is in a video.

        Args:
            owner: The visitor who asks.
            named: The upload, by the text that the visitor was given for it.
            kind: How to look at it.
        """
        upload = self.uploads.find(named, owner)
        if upload is None:
            raise UsageError(_NOT_HERE)
        return self._look(owner, upload.path, kind)

    def look_again(self, owner: str, look_id: int, kind: Kind) -> Job:
        """The same video, looked at in another way; the new job takes the place of the old one."""
        look = _own(self.looks, owner, look_id)
        again = self._look(owner, look.source, kind)
        self.looks.remove(look)
        return again

    def forget_look(self, owner: str, look_id: int) -> None:
        """Remove a video, what was found in it, and its previews; restorations of it go on."""
        look = _own(self.looks, owner, look_id)
        for job in (*self._previews_of(look), look):
            self.looks.remove(job)

    def _look(self, owner: str, source: Path, kind: Kind) -> Job:
        own = self._of_kind(kind)
        return self.looks.add(
            owner,
            source,
            lambda folder: [
                *("analyze", str(source), "--contact-sheet", str(folder), "--no-estimate"),
                *own,
            ],
        )

    def try_out(
        self, owner: str, look_id: int, at_seconds: float, order: Order, *, close: bool
    ) -> Job:
        """One moment, before and after; see `pair_of`. It takes the place of the video's earlier
        ones."""
        look = _own(self.looks, owner, look_id)
        if not 0 <= at_seconds < math.inf:
            raise UsageError(f"{quoted(at_seconds)} is no moment of a video; choose another")
        own = self._of_order(look, order)
        for job in self._previews_of(look):
            self.looks.remove(job)
        return self.looks.add(
            owner,
            look.source,
            lambda folder: [
                *("preview", str(look.source), "--at", f"{at_seconds:.3f}", "--apart"),
                *(("--close",) if close else ()),
                *("-o", str(folder / "moment.png"), *own),
            ],
        )

    def restore(self, owner: str, look_id: int, quality: str, suffix: str, order: Order) -> Job:
        """The whole video."""
        look = _own(self.looks, owner, look_id)
        if not re.fullmatch(r"\.\w{1,8}", suffix):
            raise UsageError(f"{quoted(suffix)} is no kind of file; choose another")
        name = f"{look.source.stem}-clear{suffix}"
        own = ["--quality", _word(quality), *self._of_order(look, order)]
        return self.restorations.add(
            owner,
            look.source,
            lambda folder: ["restore", str(look.source), str(folder / name), *own],
        )

    def stop(self, owner: str, job_id: int) -> None:
        """Stop a restoration; `again` goes on from there."""
        self.restorations.stop(_own(self.restorations, owner, job_id))

    def again(self, owner: str, job_id: int) -> None:
        """Go on with a restoration that was stopped or failed."""
        self.restorations.again(_own(self.restorations, owner, job_id))

    def remove(self, owner: str, job_id: int) -> None:
        """Remove a restoration and its output."""
        self.restorations.remove(_own(self.restorations, owner, job_id))

    def is_busy(self, owner: str) -> bool:
        """Whether work goes on, or something is being answered, for a visitor."""
        jobs = (*self.looks.of(owner), *self.restorations.of(owner))
        return self.tabs.has_open_requests(owner) or not all(job.is_over for job in jobs)

    def holds_files_of(self, owner: str) -> bool:
        """Whether something is kept for a visitor."""
        jobs = self.looks.of(owner) or self.restorations.of(owner)
        return bool(jobs or self.uploads.of(owner))

    def forget(self, owner: str) -> None:
        """Remove all that is kept for a visitor."""
        self.tabs.forget_all(owner)
        for jobs in (self.looks, self.restorations):
            for job in jobs.of(owner):
                jobs.remove(job)
        for upload in self.uploads.of(owner):
            self.uploads.remove(upload)

    def portrait(self, owner: str, look_id: int, person: int) -> Path | None:
        """The picture of a person."""
        look = self.looks.find(owner, look_id)
        return None if look is None else look.folder / f"person_{person}.png"

    def result(self, owner: str, job_id: int) -> Path | None:
        """The finished file of a restoration."""
        job = self.restorations.find(owner, job_id)
        return None if job is None or job.state != "done" else target_of(job)

    def shown(self, owner: str, named: str) -> Path | None:
        """What the page itself asks for by a path: an upload, or a picture of a preview.

        The path is only compared; what is returned is the server's own.
        """
        if (upload := self.uploads.find(named, owner)) is not None:
            return upload.path
        pictures = (picture for job in self._previews(owner) for picture in pair_of(job))
        return next((picture for picture in pictures if str(picture) == named), None)

    def _previews(self, owner: str) -> list[Job]:
        return [job for job in self.looks.of(owner) if job.arguments[0] == "preview"]

    def _previews_of(self, look: Job) -> list[Job]:
        return [job for job in self._previews(look.owner) if job.source == look.source]

    def _of_order(self, look: Job, order: Order) -> list[str]:
        if "analysis" not in look.outcome:
            raise UsageError("the video has not been looked through yet; wait until it has been")
        known = {str(person["person_id"]) for person in people_in(look)}
        if unknown := sorted(set(order.people) - known):
            raise UsageError(f"person {quoted(unknown[0])} is not in this video; choose another")
        if not 0 <= order.strength <= 1:
            raise UsageError(f"the strength {quoted(order.strength)} is not from 0 to 1")
        some = ("--people", ",".join(order.people)) if len(order.people) < len(known) else ()
        return [
            *("--restorer", _word(order.restorer), "--strength", f"{order.strength:g}"),
            *some,
            *self._of_kind(order.kind),
        ]

    def _of_kind(self, kind: Kind) -> list[str]:
        return [
            *(() if kind.profile == NO_PROFILE else ("--profile", _word(kind.profile))),
            *("--detector", _word(kind.detector)),
            *(() if self.weights is None else ("--weights", str(self.weights))),
            *(("--offline",) if self.offline else ()),
        ]

    def _is_at_work(self, owner: str, look_id: int) -> bool:
        """Whether a command runs or waits for the video of a look."""
        look = self.looks.find(owner, look_id)
        jobs = (*self.looks.of(owner), *self.restorations.of(owner))
        return look is not None and any(
            job.source == look.source and not job.is_over for job in jobs
        )

    def _forget_look(self, owner: str, look_id: int) -> None:
        if self.looks.find(owner, look_id) is not None:
            self.forget_look(owner, look_id)

    def _gone(self, gone: Job) -> None:
        left = (*self.looks.jobs, *self.restorations.jobs)
        if not any(job.source == gone.source for job in left):
            self.uploads.remove_at(gone.source)


def _own(jobs: Jobs, owner: str, job_id: int) -> Job:
    """A job of a visitor; UsageError for one that is not there, or is another visitor's."""
    job = jobs.find(owner, job_id)
    if job is None:
        raise UsageError(_NOT_HERE)
    return job


def _word(value: str) -> str:
    """A name, as an argument of a command; UsageError for what could be an option or a path."""
    if not value or value.startswith("-") or re.search(r"[/\\\0]", value):
        raise UsageError(f"{quoted(value)} is none of the names to choose from; choose another")
    return value


def kind_of(look: Job) -> Kind:
    """How a video was looked at."""
    given = dict(zip(look.arguments, look.arguments[1:], strict=False))
    return Kind(given.get("--profile", NO_PROFILE), given["--detector"])


def people_in(look: Job) -> Sequence[dict[str, Any]]:
    """Of a look that is done: see `vidrestore.analysis.description.Person`."""
    people: Sequence[dict[str, Any]] = look.outcome["analysis"]["people"]
    return people


def target_of(job: Job) -> Path:
    """The output of a restoration, which may not exist yet."""
    return Path(job.arguments[2])


def pair_of(job: Job) -> tuple[Path, Path]:
    """The pictures that a preview writes, before and after."""
    return job.folder / "moment.before.png", job.folder / "moment.after.png"

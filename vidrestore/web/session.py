"""What the page works on: videos that are looked at, and restorations, as lists of commands."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidrestore.web.queue import COMMAND, Job, Jobs
from vidrestore.web.uploads import Upload, Uploads

NO_PROFILE = "none"


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
    visitor of the page, and is there for no other.
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

    async def work(self) -> None:
        """Run the commands of both lists until cancelled."""
        async with asyncio.TaskGroup() as lists:
            lists.create_task(self.looks.work())
            lists.create_task(self.restorations.work())

    def look(self, upload: Upload, kind: Kind) -> Job:
        """Find out who is in a video."""
        return self._look(upload.owner, upload.path, kind)

    def look_again(self, look: Job, kind: Kind) -> Job:
        """The same video, looked at in another way; it takes the place of `look`."""
        again = self._look(look.owner, look.source, kind)
        self.looks.remove(look)
        return again

    def _look(self, owner: str, source: Path, kind: Kind) -> Job:
        return self.looks.add(
            owner,
            source,
            lambda folder: [
                *("analyze", str(source), "--contact-sheet", str(folder), "--no-estimate"),
                *self._of_kind(kind),
            ],
        )

    def try_out(self, look: Job, at_seconds: float, order: Order, *, close: bool) -> Job:
        """One moment, before and after; see `pair_of`. It takes the place of the video's earlier
        ones."""
        for job in self._previews(look.owner):
            if job.source == look.source:
                self.looks.remove(job)
        return self.looks.add(
            look.owner,
            look.source,
            lambda folder: [
                *("preview", str(look.source), "--at", f"{at_seconds:.3f}", "--apart"),
                *(("--close",) if close else ()),
                *("-o", str(folder / "moment.png"), *self._of_order(look, order)),
            ],
        )

    def restore(self, look: Job, quality: str, suffix: str, order: Order) -> Job:
        """The whole video."""
        name = f"{look.source.stem}-clear{suffix}"
        return self.restorations.add(
            look.owner,
            look.source,
            lambda folder: [
                *("restore", str(look.source), str(folder / name), "--quality", quality),
                *self._of_order(look, order),
            ],
        )

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

        The path is only compared; what is returned is the desk's own.
        """
        if (upload := self.uploads.find(named, owner)) is not None:
            return upload.path
        pictures = (picture for job in self._previews(owner) for picture in pair_of(job))
        return next((picture for picture in pictures if str(picture) == named), None)

    def _previews(self, owner: str) -> list[Job]:
        return [job for job in self.looks.of(owner) if job.arguments[0] == "preview"]

    def _of_order(self, look: Job, order: Order) -> list[str]:
        everybody = len(people_in(look))
        some = ("--people", ",".join(order.people)) if len(order.people) < everybody else ()
        return [
            *("--restorer", order.restorer, "--strength", f"{order.strength:g}"),
            *some,
            *self._of_kind(order.kind),
        ]

    def _of_kind(self, kind: Kind) -> list[str]:
        return [
            *(() if kind.profile == NO_PROFILE else ("--profile", kind.profile)),
            *("--detector", kind.detector),
            *(() if self.weights is None else ("--weights", str(self.weights))),
            *(("--offline",) if self.offline else ()),
        ]

    def _gone(self, gone: Job) -> None:
        left = (*self.looks.jobs, *self.restorations.jobs)
        if not any(job.source == gone.source for job in left):
            self.uploads.remove_at(gone.source)


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

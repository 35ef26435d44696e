"""Segments dealt out to workers: processes that render side by side.

A worker opens the restorers once and then renders one segment after the other, by the function
that does so in a run without workers. It writes nothing but files of its own in the work folder;
that they count, only the process that deals out the segments says.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vidrestore.common.errors import ClusterError, InputError, OutputError, UsageError
from vidrestore.common.events import DownloadProgress, Event, Notice, notify
from vidrestore.common.settings import Settings
from vidrestore.jobs.render import FrameCounter, RenderJob, render
from vidrestore.jobs.work_folder import SegmentFile
from vidrestore.media import probe
from vidrestore.media.images import is_pattern
from vidrestore.models import weights
from vidrestore.models.factory import chosen_parser, chosen_restorer, chosen_restorers
from vidrestore.models.restorers import FILES, Restorer, Schedule
from vidrestore.restoration.guard import chosen_judge
from vidrestore.restoration.segments import Segment, networks_used

_MOST_LOSSES = 3
_NEWS_SECONDS = 0.3  # between two reports of a worker
_PATIENCE_SECONDS = 10.0  # without any answer, before it is asked whether one can come
_STOP_SECONDS = 5.0
_LOOK_SECONDS = 1.0  # between two looks whether Ray itself is still there

_log = logging.getLogger("vidrestore")


def _no_fault() -> None:
    return None


@dataclass(frozen=True, slots=True)
class WorkerPool:
    """Workers for one video after the other; keeps the contract of `rendering.Workers`."""

    count: int
    cpus: int
    """That a worker asks for."""
    gpus: float
    """Likewise; 0 where the cluster has none."""
    fault: Callable[[], str | None] = _no_fault
    """What of Ray itself has ended, so that no call of it may be made any more; None: nothing."""

    def check(self, settings: Settings, own_restorer: Restorer | None) -> None:
        device = settings.restore.device
        if device.startswith("cuda:"):
            raise UsageError(
                f"each worker is given a GPU of its own; use --device cuda, not {device}"
            )
        if device == "cuda" and not self.gpus:
            raise UsageError("the workers have no GPU; use --device cpu or auto")
        _packed(own_restorer)

    def render(
        self, work: RenderJob, segments: Sequence[Segment], progress: FrameCounter
    ) -> Generator[tuple[Segment, SegmentFile]]:
        import ray

        gpus = 0 if work.settings.restore.device == "cpu" else self.gpus
        shift: _Dispatcher | None = None
        try:
            shift = _Dispatcher(ray, work, segments, progress, replace(self, gpus=gpus))
            yield from shift.parts()
        except ray.exceptions.RayError as error:
            raise _ended(f"Ray failed ({_reason(error)})") from error
        finally:
            if shift is not None:
                shift.end()


def _ended(what: str) -> ClusterError:
    return ClusterError(f"{what}; what is done is kept, run the command again")


def _packed(thing: object) -> bytes:
    from ray import cloudpickle

    try:
        return bytes(cloudpickle.dumps(thing))
    except Exception as error:  # pickle raises whatever an object's own methods do
        raise UsageError(
            f"the given restorer cannot be sent to workers, since it cannot be pickled ({error}); "
            "name one in the settings, or go without workers"
        ) from error


def _sendable(work: RenderJob) -> RenderJob:
    """The same with names of files that hold on another machine and in another folder."""
    settings = work.settings
    folder = weights.target_folder(settings.weights.folder)
    where = settings.weights.model_copy(
        update={
            "folder": None if folder == weights.user_cache() else folder,
            "also": tuple(path.expanduser().absolute() for path in settings.weights.also),
        }
    )
    how = settings.restore.model_copy(update={"restorer": _absolute(settings.restore.restorer)})
    return replace(
        work,
        settings=settings.model_copy(update={"weights": where, "restore": how}),
        restorers=[(first, name and _absolute(name)) for first, name in work.restorers],
    )


def _absolute(restorer: str) -> str:
    is_file = Path(restorer).suffix.lower() in FILES
    return str(Path(restorer).absolute()) if is_file else restorer


class _Order(NamedTuple):
    """What a worker is told at the beginning."""

    version: str
    threads: int
    """Of torch. With another number sums of float32 are rounded otherwise, so that all workers
    take the one of a run without workers, wherever they are."""
    folders: tuple[str, ...]
    """Where modules are looked for, that of an own restorer for one."""
    work: bytes


class _Worker:
    """Runs in a process of its own; `news` beside `render`, in another thread."""

    def __init__(self) -> None:
        self._at = (-1, 0)
        self._notices: list[str] = []

    def open(self, order: _Order) -> list[str]:
        """Get ready for the segments of a work; what is to be said."""
        here = socket.gethostname()
        if order.version != version("vidrestore"):
            raise ClusterError(
                f"{here} has vidrestore {version('vidrestore')} and the run was started with "
                f"{order.version}; install the same on all nodes"
            )
        torch.set_num_threads(order.threads)
        sys.path += [folder for folder in order.folders if folder not in sys.path]
        try:
            work: RenderJob = pickle.loads(order.work)
        except ImportError as error:
            raise UsageError(
                f"the given restorer cannot be used on {here}: {error}; install it on all nodes"
            ) from error
        beside = [(each.path, each.analysis.fingerprint) for each in work.pairing.companions()]
        for path, fingerprint in ((work.source, work.fingerprint), *beside):
            _check_input(path, fingerprint, here)
        if not os.access(work.folder / "segments", os.W_OK):
            raise OutputError(
                f"{work.folder} is not there or cannot be written to on {here}; share the folder "
                "of the output with all nodes"
            )
        usual = work.own_restorer or chosen_restorer(work.settings, self._on_event)
        self._work = work
        self._restorers: Schedule = chosen_restorers(
            work.restorers, usual, work.settings, self._on_event
        )
        networks = networks_used(self._restorers, work.analysis, 0, work.analysis.frame_count)
        self._judge = chosen_judge(work.settings, self._on_event)
        self._parser = chosen_parser(work.settings)
        for what, other, own in (
            ("restorer", _names(work.networks), _names(networks)),
            ("recogniser", work.judge, self._judge.name),
            ("face parser", work.parser, self._parser and self._parser.name),
        ):
            if own != other:
                raise ClusterError(
                    f"{here} would use another {what} than where the run was started, "
                    f"{own or 'none'} and not {other or 'none'}; have the same weights on all nodes"
                )
        return self._taken_notices()

    def render(self, segment: Segment) -> tuple[SegmentFile, list[str]]:
        """The part, and what is to be said."""

        def write(written: int) -> None:
            self._at = segment.number, written

        part = render(self._work, self._restorers, self._judge, self._parser, segment, write)
        return part, self._taken_notices()

    def news(self) -> tuple[int, int, list[str]]:
        """After a while: a segment's number, how many of its frames are written, what is said."""
        time.sleep(_NEWS_SECONDS)
        return *self._at, self._taken_notices()

    def _taken_notices(self) -> list[str]:
        notices, self._notices = self._notices, []
        return notices

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Notice):
            self._notices.append(event.message)
        elif isinstance(event, DownloadProgress):
            self._notices.append(f"{socket.gethostname()}: {event.stage}")


def _check_input(path: Path, fingerprint: str, here: str) -> None:
    if not is_pattern(path) and not path.is_file():
        raise InputError(f"{path} is not there on {here}; share its folder with all nodes")
    if probe.fingerprint(path) != fingerprint:
        raise InputError(
            f"{path} on {here} is another file than where the run was started; share one folder "
            "with all nodes"
        )


def _names(networks: Sequence[tuple[int, str]]) -> str:
    return ", ".join(f"{name} for track {track}" for track, name in networks)


@dataclass(eq=False, slots=True)
class _WorkerHandle:
    """A worker, seen from the process that deals out the segments."""

    actor: Any
    is_open: bool = False
    segment: Segment | None = None
    """Which it renders."""
    is_heard: bool = False
    """Whether its news are awaited."""


class _PendingCall(NamedTuple):
    """A call that has not been answered."""

    kind: str
    handle: _WorkerHandle


class _Dispatcher:
    """The segments of one video, dealt out until all are done."""

    def __init__(
        self,
        ray: Any,
        work: RenderJob,
        segments: Sequence[Segment],
        progress: FrameCounter,
        crew: WorkerPool,
    ) -> None:
        self._ray = ray
        self._progress = progress
        self._crew = crew
        self._check_ray()
        packed = _packed(_sendable(work))
        threads, folders = torch.get_num_threads(), tuple(map(os.path.abspath, sys.path))
        self._order = ray.put(_Order(version("vidrestore"), threads, folders, packed))
        self._worker = ray.remote(_Worker).options(
            num_cpus=crew.cpus,
            num_gpus=crew.gpus,
            max_concurrency=2,
            scheduling_strategy="SPREAD",
        )
        self._left = deque(segments)
        self._handles: list[_WorkerHandle] = []
        self._calls: dict[Any, _PendingCall] = {}
        self._losses: Counter[int] = Counter()
        self._never_opened = 0
        self._said: set[str] = set()

    def parts(self) -> Iterator[tuple[Segment, SegmentFile]]:
        self._hire()
        heard_at = time.monotonic()
        while self._left or any(handle.segment for handle in self._handles):
            answered, _ = self._ray.wait(list(self._calls), timeout=_LOOK_SECONDS)
            self._check_ray()
            if answered:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at >= _PATIENCE_SECONDS:
                self._check_hope()
                heard_at = time.monotonic()
            for reference in answered:
                # All calls of a worker that was lost meanwhile are struck off.
                if (call := self._calls.pop(reference, None)) is not None:
                    yield from self._answered(call, reference)

    def end(self) -> None:
        """Stop all workers, and wait until they write no more.

        Where Ray itself has ended they end with it; a call of it would end this process.
        """
        if self._crew.fault() is not None:
            return
        try:
            for handle in self._handles:
                self._ray.kill(handle.actor)
            if self._calls:
                everything = list(self._calls)
                self._ray.wait(everything, num_returns=len(everything), timeout=_STOP_SECONDS)
        except self._ray.exceptions.RayError:
            _log.warning("Ray failed while its workers were stopped", exc_info=True)

    def _check_ray(self) -> None:
        if (fault := self._crew.fault()) is not None:
            raise _ended(fault)

    def _hire(self) -> None:
        """As many workers as there is work for."""
        while len(self._handles) < self._crew.count and len(self._left) > sum(
            handle.segment is None for handle in self._handles
        ):
            handle = _WorkerHandle(self._worker.remote())
            self._handles.append(handle)
            self._calls[handle.actor.open.remote(self._order)] = _PendingCall("open", handle)

    def _deal(self) -> None:
        """A segment to every worker that has none."""
        for handle in self._handles:
            if not self._left:
                return
            if handle.is_open and handle.segment is None:
                handle.segment = self._left.popleft()
                self._calls[handle.actor.render.remote(handle.segment)] = _PendingCall(
                    "render", handle
                )
                self._listen(handle)

    def _listen(self, handle: _WorkerHandle) -> None:
        if not handle.is_heard and handle.segment is not None:
            handle.is_heard = True
            self._calls[handle.actor.news.remote()] = _PendingCall("news", handle)

    def _answered(
        self, call: _PendingCall, reference: Any
    ) -> Iterator[tuple[Segment, SegmentFile]]:
        kind, handle = call
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self._ray.exceptions.RayError as error:
            _log.info("a worker does not answer: %s", error)
            self._lose(handle, _reason(error))
            return
        segment = handle.segment
        if kind == "open":
            self._never_opened, handle.is_open = 0, True
            self._say(answer)
        elif kind == "news":
            number, written, notices = answer
            self._say(notices)
            handle.is_heard = False
            if segment is not None and segment.number == number:
                self._progress.tell(segment, written)
            self._listen(handle)
        elif segment is not None:
            part, notices = answer
            self._say(notices)
            self._progress.tell(segment, segment.frame_count)
            handle.segment = None
            yield segment, part
        self._deal()

    def _lose(self, handle: _WorkerHandle, reason: str) -> None:
        self._check_ray()  # all workers are lost with it
        self._handles.remove(handle)
        self._ray.kill(handle.actor)  # which may only be out of reach
        self._calls = {r: call for r, call in self._calls.items() if call.handle != handle}
        if not handle.is_open:
            self._never_opened += 1
            if self._never_opened >= _MOST_LOSSES:
                raise ClusterError(f"no worker can be started: {reason}")
        if (segment := handle.segment) is not None:
            self._losses[segment.number] += 1
            what = f"segment {segment.number} (frames {segment.first} to {segment.end - 1})"
            if self._losses[segment.number] >= _MOST_LOSSES:
                raise ClusterError(
                    f"{what} was lost {_MOST_LOSSES} times with the worker that rendered it, the "
                    f"last time since {reason}; what is done is kept, look at the nodes' memory "
                    "and run the command again"
                )
            self._say([f"a worker was lost, and {what} is done again by another: {reason}"])
            self._progress.tell(segment, 0)
            self._left.appendleft(segment)
        self._deal()
        self._hire()

    def _check_hope(self) -> None:
        """ClusterError where no worker will ever answer."""
        crew = self._crew
        for node in self._ray.nodes():
            has = node["Resources"]
            if node["Alive"] and has.get("CPU", 0) >= crew.cpus and has.get("GPU", 0) >= crew.gpus:
                if not any(handle.is_open for handle in self._handles):
                    self._say(["waiting for a first worker"])
                return
        raise ClusterError(
            "no node is left that could take a worker; what is done is kept, mend the cluster and "
            "run the command again"
        )

    def _say(self, notices: Sequence[str]) -> None:
        """Each once, however many workers say it."""
        for notice in notices:
            if notice not in self._said:
                self._said.add(notice)
                notify(self._progress.on_event, notice)


def _reason(error: Exception) -> str:
    """Of what Ray says in many lines, the one that says why."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    return (lines[-1] if "creation task" in lines[0] else lines[0]).strip().rstrip(".")

"""Workers: processes that render segments in parallel, and the dispatcher that assigns segments.

A worker opens the restorers once, and then renders one segment after the other by the function that
a run without workers uses. It writes only temporary files in the work folder. Only the process of
the dispatcher registers them as finished.
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
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vidrestore.common.errors import ClusterError, InputError, OutputError, UsageError
from vidrestore.common.events import DownloadProgress, Event, Notice, notify
from vidrestore.common.settings import RESTORERS, Settings
from vidrestore.imaging.frame import Frame
from vidrestore.jobs.render import FrameCounter, RenderJob, render
from vidrestore.jobs.work_folder import SegmentFile
from vidrestore.media import probe
from vidrestore.media.images import is_pattern
from vidrestore.models import weights
from vidrestore.models.factory import chosen_parser, chosen_restorer, chosen_restorers
from vidrestore.models.restorers import FILES, Restorer
from vidrestore.models.restorers.assignment import Assignment
from vidrestore.restoration.guard import chosen_judge
from vidrestore.restoration.segments import Segment, networks_used

_MOST_LOSSES = 3
_POLL_SECONDS = 0.3  # between two reports of a worker
_TIMEOUT_SECONDS = 10.0  # without an answer, before the dispatcher checks the nodes
_STOP_SECONDS = 5.0
_WAIT_SECONDS = 1.0  # between two checks whether Ray itself still runs

_log = logging.getLogger("vidrestore")


def _no_fault() -> None:
    return None


@dataclass(frozen=True, slots=True)
class WorkerPool:
    """Workers of Ray, for one video after the other: a `vidrestore.jobs.render.Workers`."""

    count: int
    """The number of workers."""
    cpus: int
    """The processor cores that each worker reserves."""
    gpus: float
    """The share of a GPU that each worker reserves; 0 where the cluster has no GPU."""
    fault: Callable[[], str | None] = _no_fault
    """Returns a description of the process of Ray that has ended, after which Ray must not be
    called any more; None: Ray works."""

    def check(self, settings: Settings, own_restorer: Restorer | None) -> None:
        """Check, before any work, that the workers can carry out a request.

        Args:
            settings: The settings of the request; `restore.device` counts.
            own_restorer: The restorer that the caller passed; None: none.

        Raises:
            UsageError: The device is one particular GPU, the workers have no GPU, or the restorer
                cannot be pickled.
        """
        device = settings.restore.device
        if device.startswith("cuda:"):
            raise UsageError(
                f"vidrestore chooses the GPU of each worker; use --device cuda, not {device}"
            )
        if device == "cuda" and not self.gpus:
            raise UsageError("the workers have no GPU; use --device cpu or auto")
        _packed(own_restorer)

    def render(
        self, work: RenderJob, segments: Sequence[Segment], progress: FrameCounter
    ) -> Generator[tuple[Segment, SegmentFile]]:
        """Render segments by the workers, in any order.

        Closing the generator stops the workers.

        Args:
            work: The job.
            segments: The segments to render.
            progress: Receives the number of finished frames.

        Yields:
            (segment, file) of each segment, as soon as it is complete.

        Raises:
            ClusterError: Ray or the workers failed.
            VidrestoreError: The rendering of a segment raised it.
        """
        import ray

        gpus = 0 if work.settings.restore.device == "cpu" else self.gpus
        dispatcher: _Dispatcher | None = None
        try:
            dispatcher = _Dispatcher(ray, work, segments, progress, replace(self, gpus=gpus))
            yield from dispatcher.parts()
        except ray.exceptions.RayError as error:
            raise _ended(f"Ray failed ({_reason(error)})") from error
        finally:
            if dispatcher is not None:
                dispatcher.end()


def _ended(what: str) -> ClusterError:
    """Return the error for a failure after which the user can run the command again."""
    return ClusterError(f"{what}; finished segments are kept, run the command again")


def _packed(value: object) -> bytes:
    """Pickle an object for the workers; raise UsageError where that is not possible."""
    from ray import cloudpickle

    try:
        return bytes(cloudpickle.dumps(value))
    except Exception as error:  # pickling runs methods of the object, which may raise anything
        raise UsageError(
            f"the given restorer cannot be sent to workers, since it cannot be pickled ({error}); "
            "name a restorer in the settings, or run without workers"
        ) from error


def _sendable(work: RenderJob) -> RenderJob:
    """Return the job with absolute paths, which are valid in other processes and folders."""
    settings = work.settings
    folder = weights.target_folder(settings.weights.folder)
    where = settings.weights.model_copy(
        update={
            "folder": None if folder == weights.user_cache() else folder,
            "also": tuple(weights.expanded(path).absolute() for path in settings.weights.also),
        }
    )
    how = settings.restore.model_copy(update={"restorer": _absolute(settings.restore.restorer)})
    parser = settings.paste.parser and settings.paste.parser.absolute()
    paste = settings.paste.model_copy(update={"parser": parser})
    return replace(
        work,
        settings=settings.model_copy(update={"weights": where, "restore": how, "paste": paste}),
        restorers=work.restorers.converted(lambda name: name and _absolute(name)),
    )


def _absolute(restorer: str) -> str:
    """Make the name of a restorer absolute where it is a file."""
    is_file = Path(restorer).suffix.lower() in FILES
    return str(Path(restorer).absolute()) if is_file else restorer


class _WorkerSetup(NamedTuple):
    """What a worker receives before its first segment."""

    version: str
    """The version of vidrestore in the process that started the run."""
    threads: int
    """The number of threads of torch. The rounding of float32 sums depends on it, so all workers
    use the number of a run without workers."""
    folders: tuple[str, ...]
    """The folders in which Python searches for modules, such as that of the caller's restorer."""
    work: bytes
    """The pickled `RenderJob`."""


class _Worker:
    """Runs in a process of its own; `poll` runs in another thread at the same time as `render`."""

    def __init__(self) -> None:
        self._at = (-1, 0)
        self._notices: list[str] = []

    def open(self, setup: _WorkerSetup) -> list[str]:
        """Open the restorers of a job, and return the notices.

        Args:
            setup: The job, and how to work.

        Returns:
            Notices for the user.

        Raises:
            VidrestoreError: This machine has another version, other files or other networks than
                the one that started the run, or cannot write into the work folder.
        """
        host = socket.gethostname()
        if setup.version != version("vidrestore"):
            raise ClusterError(
                f"{host} has vidrestore {version('vidrestore')} and the run was started with "
                f"{setup.version}; install the same version on all nodes"
            )
        torch.set_num_threads(setup.threads)
        sys.path += [folder for folder in setup.folders if folder not in sys.path]
        try:
            work: RenderJob = pickle.loads(setup.work)
        except ImportError as error:
            raise UsageError(
                f"the given restorer cannot be used on {host}: {error}; install it on all nodes"
            ) from error
        others = [(each.path, each.analysis.fingerprint) for each in work.pairing.companions()]
        for path, fingerprint in ((work.source, work.fingerprint), *others):
            _check_input(path, fingerprint, host)
        if not os.access(work.folder / "segments", os.W_OK):
            raise OutputError(
                f"{work.folder} does not exist on {host} or cannot be written to there; share the "
                "folder of the output with all nodes"
            )
        for path in _network_files(work):
            if not path.is_file():
                raise InputError(_not_here(path, host))
        usual = work.own_restorer or chosen_restorer(work.settings, self._on_event)
        self._work = work
        self._restorers: Assignment[Restorer] = chosen_restorers(
            work.restorers, usual, work.settings, self._on_event
        )
        networks = networks_used(self._restorers, work.analysis, 0, work.analysis.frame_count)
        self._judge = chosen_judge(work.settings, self._on_event)
        self._parser = chosen_parser(work.settings)
        for what, other, own in (
            ("restorer", *_differing(work.networks, networks)),
            ("recognizer or face mesh", work.judge, self._judge.name),
            ("face parser", work.parser, self._parser and self._parser.name),
        ):
            if own != other:
                raise ClusterError(
                    f"{host} would use another {what} than the machine that started the run: "
                    f"{own or 'none'}, not {other or 'none'}; put the same weights on all nodes"
                )
        return self._taken_notices()

    def render(self, segment: Segment) -> tuple[SegmentFile, list[str]]:
        """Render a segment; return its file, and notices for the user."""

        def write(written: int, frame: Frame) -> None:
            self._at = segment.number, written

        part = render(self._work, self._restorers, self._judge, self._parser, segment, write)
        return part, self._taken_notices()

    def poll(self) -> tuple[int, int, list[str]]:
        """Wait a moment; return the number of the segment, its written frames, and notices."""
        time.sleep(_POLL_SECONDS)
        return *self._at, self._taken_notices()

    def _taken_notices(self) -> list[str]:
        """Return the notices since the last call."""
        notices, self._notices = self._notices, []
        return notices

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Notice):
            self._notices.append(event.message)
        elif isinstance(event, DownloadProgress):
            self._notices.append(f"{socket.gethostname()}: {event.stage}")


def _check_input(path: Path, fingerprint: str, host: str) -> None:
    """Raise InputError where a file is missing here or is not that of the first machine."""
    if not is_pattern(path) and not path.is_file():
        raise InputError(_not_here(path, host))
    if probe.fingerprint(path) != fingerprint:
        raise InputError(
            f"{path} on {host} is another file than on the machine that started the run; share one "
            "folder with all nodes"
        )


def _not_here(path: Path, host: str) -> str:
    return f"{path} does not exist on {host}; share its folder with all nodes"


def _network_files(work: RenderJob) -> Iterator[Path]:
    """Yield the files of networks that the settings or the restorers of single faces name."""
    own = work.settings.restore.restorer if work.own_restorer is None else None
    for name in dict.fromkeys([own, *work.restorers.each()]):
        if name is not None and name not in RESTORERS:
            yield Path(name)
    if work.settings.paste.parser is not None:
        yield work.settings.paste.parser


def _differing(one: Sequence[tuple[int, str]], other: Sequence[tuple[int, str]]) -> tuple[str, str]:
    """Name the networks of the first track that has another one in each list; empty: none has."""
    for pair in zip_longest(one, other):
        if pair[0] != pair[1]:
            was, now = ("" if each is None else f"{each[1]} for track {each[0]}" for each in pair)
            return was, now
    return "", ""


@dataclass(eq=False, slots=True)
class _WorkerHandle:
    """A worker, as the dispatcher knows it."""

    actor: Any
    """The actor of Ray."""
    is_open: bool = False
    """Whether the worker has opened the job."""
    segment: Segment | None = None
    """The segment that the worker renders; None: none."""
    is_polled: bool = False
    """Whether a call of `poll` has not been answered yet."""


class _PendingCall(NamedTuple):
    """A call that has not been answered."""

    kind: str
    """The name of the method: "open", "render" or "poll"."""
    handle: _WorkerHandle
    """The worker that was called."""


class _Dispatcher:
    """Assigns the segments of one video to workers until all are finished."""

    def __init__(
        self,
        ray: Any,
        work: RenderJob,
        segments: Sequence[Segment],
        progress: FrameCounter,
        pool: WorkerPool,
    ) -> None:
        self._ray = ray
        self._progress = progress
        self._pool = pool
        self._check_ray()
        packed = _packed(_sendable(work))
        threads, folders = torch.get_num_threads(), tuple(map(os.path.abspath, sys.path))
        self._order = ray.put(_WorkerSetup(version("vidrestore"), threads, folders, packed))
        self._worker = ray.remote(_Worker).options(
            num_cpus=pool.cpus,
            num_gpus=pool.gpus,
            max_concurrency=2,
            scheduling_strategy="SPREAD",
        )
        self._left = deque(segments)
        self._handles: list[_WorkerHandle] = []
        self._calls: dict[Any, _PendingCall] = {}
        self._losses: Counter[int] = Counter()
        self._never_opened = 0
        self._sent_notices: set[str] = set()

    def parts(self) -> Iterator[tuple[Segment, SegmentFile]]:
        """Yield (segment, file) of each segment, as soon as it is complete."""
        self._start_workers()
        answered_at = time.monotonic()
        while self._left or any(handle.segment for handle in self._handles):
            answered, _ = self._ray.wait(list(self._calls), timeout=_WAIT_SECONDS)
            self._check_ray()
            if answered:
                answered_at = time.monotonic()
            elif time.monotonic() - answered_at >= _TIMEOUT_SECONDS:
                self._check_nodes()
                answered_at = time.monotonic()
            for reference in answered:
                # `_lose` removes all calls of a worker that was lost.
                if (call := self._calls.pop(reference, None)) is not None:
                    yield from self._answered(call, reference)

    def end(self) -> None:
        """Stop all workers, and wait until they write no more.

        Where Ray itself has ended, the workers end with it, and a call of Ray would end this
        process.
        """
        if self._pool.fault() is not None:
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
        """Raise ClusterError where Ray itself has ended."""
        if (fault := self._pool.fault()) is not None:
            raise _ended(fault)

    def _start_workers(self) -> None:
        """Start as many workers as there are segments for, up to the size of the pool."""
        while len(self._handles) < self._pool.count and len(self._left) > sum(
            handle.segment is None for handle in self._handles
        ):
            handle = _WorkerHandle(self._worker.remote())
            self._handles.append(handle)
            self._calls[handle.actor.open.remote(self._order)] = _PendingCall("open", handle)

    def _assign(self) -> None:
        """Assign a segment to every worker that has none."""
        for handle in self._handles:
            if not self._left:
                return
            if handle.is_open and handle.segment is None:
                handle.segment = self._left.popleft()
                self._calls[handle.actor.render.remote(handle.segment)] = _PendingCall(
                    "render", handle
                )
                self._poll(handle)

    def _poll(self, handle: _WorkerHandle) -> None:
        """Ask a worker for its progress, unless such a call has not been answered yet."""
        if not handle.is_polled and handle.segment is not None:
            handle.is_polled = True
            self._calls[handle.actor.poll.remote()] = _PendingCall("poll", handle)

    def _answered(
        self, call: _PendingCall, reference: Any
    ) -> Iterator[tuple[Segment, SegmentFile]]:
        """Handle the answer to a call, and yield the segment that it completed, if any."""
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
            self._notify(answer)
        elif kind == "poll":
            number, written, notices = answer
            self._notify(notices)
            handle.is_polled = False
            if segment is not None and segment.number == number:
                self._progress.report(segment, written)
            self._poll(handle)
        elif segment is not None:
            part, notices = answer
            self._notify(notices)
            self._progress.report(segment, segment.frame_count)
            handle.segment = None
            yield segment, part
        self._assign()

    def _lose(self, handle: _WorkerHandle, reason: str) -> None:
        """Give up a worker, and assign its segment again."""
        self._check_ray()  # without Ray, all workers are lost
        self._handles.remove(handle)
        self._ray.kill(handle.actor)  # the worker may run on, out of reach
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
                    f"last time because: {reason}; finished segments are kept, check the memory of "
                    "the nodes and run the command again"
                )
            self._notify([f"a worker was lost, and another renders {what} again: {reason}"])
            self._progress.report(segment, 0)
            self._left.appendleft(segment)
        self._assign()
        self._start_workers()

    def _check_nodes(self) -> None:
        """Raise ClusterError where no node can run a worker any more."""
        pool = self._pool
        for node in self._ray.nodes():
            has = node["Resources"]
            if node["Alive"] and has.get("CPU", 0) >= pool.cpus and has.get("GPU", 0) >= pool.gpus:
                if not any(handle.is_open for handle in self._handles):
                    self._notify(["waiting for the first worker"])
                return
        raise ClusterError(
            "no node of the cluster can run a worker; finished segments are kept, repair the "
            "cluster and run the command again"
        )

    def _notify(self, notices: Sequence[str]) -> None:
        """Send each notice once, however many workers send it."""
        for notice in notices:
            if notice not in self._sent_notices:
                self._sent_notices.add(notice)
                notify(self._progress.on_event, notice)


def _reason(error: Exception) -> str:
    """Choose the line with the reason from an error message of Ray, which has many lines."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    return (lines[-1] if "creation task" in lines[0] else lines[0]).strip().rstrip(".")

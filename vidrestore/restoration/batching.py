"""Batching: networks restore crops in batches across frames and faces."""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, repeat
from types import MappingProxyType

import numpy as np
import torch

from vidrestore.common.handled import log_handled
from vidrestore.common.settings import Restore
from vidrestore.imaging.device_copies import to_host
from vidrestore.imaging.resample import squared, squared_into
from vidrestore.models.restorers import (
    MOST_AT_ONCE,
    Denoiser,
    LatentRestorer,
    Restorer,
    all_finite,
    cache_key_of,
    memory_errors,
)
from vidrestore.restoration import latent
from vidrestore.restoration.crop_cache import CropCache
from vidrestore.restoration.faces import Face, FaceFrame
from vidrestore.restoration.statistics import RestorationStats

_CPU = torch.device("cpu")
_NO_OWN: Mapping[int, Restorer] = MappingProxyType({})
_BETWEEN = "is between key frames"
_NO_MEMORY = "did not fit into memory"
_log = logging.getLogger("vidrestore")


def restore(
    frames: Iterator[FaceFrame],
    restorer: Restorer,
    stats: RestorationStats,
    how: Restore,
    *,
    own: Mapping[int, Restorer] = _NO_OWN,
    device: torch.device = _CPU,
    crops: CropCache | None = None,
    denoiser: Denoiser | None = None,
    needed: range | None = None,
) -> Iterator[FaceFrame]:
    """Give every face its `restored` crop, except where `is_between` leaves it to key frames.

    A batch runs as soon as `how.batch_size` faces are ready for the same network, or when
    `how.max_waiting_frames` frames wait. A face is ready once the later frames in its window have
    arrived. Where memory does not suffice, the other networks free what they keep between calls;
    then the batch size is halved for the rest of the run. A face that does not fit into memory
    alone, or for which the network gives no finite result, keeps `restored` None and is counted in
    `stats.not_restored`.

    With `how.latent` "shot", `latent.drawn` averages the latent codes of a track over the frames
    around each frame, and the network gets the mean. A restorer without latent codes ignores the
    setting, with a notice.

    With `how.repeats` a face whose window and latent code equal those of the frame before, bit by
    bit, gets the same result without another run, and is counted. Where a result does not depend on
    the rest of its batch, as on a CPU with batches of one, another run would give exactly the same.

    Memory: the crops of at most max_waiting_frames + 2 * reach_frames + 1 frames, of
    `latent.REACH_FRAMES` more with codes of the shot, and for each face
    the window and the result of the frame before.

    Args:
        frames: The frames with their faces, in order.
        restorer: The restorer of the tracks that have none of their own.
        stats: The statistics, which receive counts and notices.
        how: The settings; `batch_size`, `max_waiting_frames`, `latent` and `repeats` are used.
        own: Number of a track -> its own restorer; default: no track has one.
        device: The device of the restorers, which decides the batch size where `how` gives none;
            default: the CPU.
        crops: The cache that keeps results. Results that an earlier run or segment kept are used
            and counted. Results of a restorer without a cache key are not kept. Default: no cache.
        denoiser: The denoiser of the windows of a restorer that sees one frame; the faces keep
            their `source`. A restorer that sees several frames gets no denoiser, and a notice says
            so. Default: no denoiser.
        needed: The frames whose faces are restored; faces of other frames only fill windows and
            keep `restored` None. Default: all frames.

    Yields:
        The frames in order, with the results.
    """
    made = _made(frames, restorer, own, denoiser, stats)
    memory = _Memory(tuple({id(each): each for each in (restorer, *own.values())}.values()))
    if how.latent == "shot":
        made = _with_codes(made, stats, needed, memory)
    batches = _Batches(how.batch_size, device, stats, crops, memory)
    waiting: deque[_Waiting] = deque()
    before: dict[int, _Task] = {}
    for frame, tasks in made:
        if needed is not None and frame.frame.index not in needed:
            faces = [(replace(task, result="is not needed"), False) for task in tasks]
            before = {}
        else:
            faces = [_or_before(task, before if how.repeats else {}) for task in tasks]
            before = {task.track_id: task for task, _ in faces if not task.is_left_out}
        batches.add(task for task, is_repeat in faces if not is_repeat and task.result is None)
        waiting.append(_Waiting(frame, faces))
        batches.run(also_partly=len(waiting) >= how.max_waiting_frames)
        while waiting and waiting[0].is_done:
            yield waiting.popleft().with_results(stats)
    batches.run(also_partly=True)
    for one in waiting:
        yield one.with_results(stats)


_Made = Iterator[tuple[FaceFrame, list["_Task"]]]
"""Frames, with a task for each of their faces."""


def _made(
    frames: Iterator[FaceFrame],
    restorer: Restorer,
    own: Mapping[int, Restorer],
    denoiser: Denoiser | None,
    stats: RestorationStats,
) -> _Made:
    """Yield each frame with the tasks of its faces, once the frames in their windows are there."""
    inputs = {id(each): _Input.of(each, denoiser, stats) for each in (restorer, *own.values())}
    reach = max(each.reach_frames for each in inputs.values())
    held: deque[FaceFrame] = deque()  # the frames that a window may still need
    at = 0  # the position in `held` of the first frame whose windows are not complete yet
    for frame in chain(frames, repeat(None, reach)):
        if frame is not None:
            held.append(frame)
        if at < len(held) and (frame is None or at + reach < len(held)):
            faces = held[at].faces
            given = (inputs[id(own.get(face.track_id, restorer))] for face in faces)
            yield held[at], [_task(held, at, *each) for each in zip(faces, given, strict=True)]
            at += 1
        while at > reach:
            held.popleft()
            at -= 1


def _with_codes(
    made: _Made, stats: RestorationStats, needed: range | None, memory: _Memory
) -> _Made:
    """Give the tasks latent codes, each that of the frames around; see `latent.drawn`."""
    held: deque[tuple[FaceFrame, list[_Task]]] = deque()
    if needed is not None:
        needed = range(needed.start - latent.REACH_FRAMES, needed.stop + latent.REACH_FRAMES)

    def own_codes() -> Iterator[dict[int, torch.Tensor]]:
        before: dict[int, tuple[_Task, torch.Tensor]] = {}
        for frame, tasks in made:
            held.append((frame, tasks))
            codes = {}
            for task in tasks if needed is None or frame.frame.index in needed else ():
                last = before.get(task.track_id)
                is_same = last is not None and task.has_input_of(last[0])
                code = last[1] if last is not None and is_same else _code(task, stats, memory)
                if code is not None:
                    codes[task.track_id] = code
            before = {task.track_id: (task, codes[task.track_id])
                      for task in tasks if task.track_id in codes}  # fmt: skip
            yield codes

    for codes in latent.drawn(own_codes()):
        frame, tasks = held.popleft()
        for task in tasks:
            task.code = codes.get(task.track_id)
        yield frame, tasks


def _code(task: _Task, stats: RestorationStats, memory: _Memory) -> torch.Tensor | None:
    """Return the latent code (D,) of a task; None where there is none."""
    network = task.network
    if task.is_left_out:
        return None
    if not isinstance(network, LatentRestorer):
        stats.notes[f"latent {network.name}"] = (
            f"restore.latent has no effect on {network.name}, which has no latent code"
        )
        return None
    try:
        with torch.no_grad():
            codes = memory.given_to(network, lambda: network.codes(_windows([task])).detach())
            # In float32 the mean of equal codes is that code, though its sums are rounded.
            code = codes[0].float()
    except MemoryError as error:
        log_handled(error)
        task.result = _NO_MEMORY
        return None
    # The network computes such a face in float32 itself.
    return code if bool(torch.isfinite(code).all()) else None


@dataclass(frozen=True, slots=True)
class _Memory:
    """The memory that several networks share."""

    networks: tuple[Restorer, ...]

    def given_to(self, network: Restorer, run: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Run a network; where memory does not suffice, once more without what others keep."""
        others = [each for each in self.networks if each is not network]
        try:
            with memory_errors():
                return run()
        except MemoryError:
            if not others:
                raise
            # It goes on below, since the error's traceback still holds the memory here.
            _log.info("memory did not suffice for %s; the other networks are freed", network.name)
        for each in others:
            each.release()
        with memory_errors():
            return run()


@dataclass(frozen=True, slots=True, eq=False)
class _Input:
    """How the windows of a restorer are made."""

    restorer: Restorer
    denoiser: Denoiser | None

    @classmethod
    def of(cls, restorer: Restorer, denoiser: Denoiser | None, stats: RestorationStats) -> _Input:
        """Leave out the denoiser, with a notice, for a restorer that sees several frames."""
        if denoiser is None or restorer.reach_frames == 0:
            return cls(restorer, denoiser)
        stats.notes[f"denoise {restorer.name}"] = (
            f"restore.denoise has no effect on {restorer.name}, which uses several frames itself; "
            "vidrestore gave it the faces without denoising"
        )
        return cls(restorer, None)

    @property
    def reach_frames(self) -> int:
        """The number of frames on either side of a window."""
        return (self.denoiser or self.restorer).reach_frames


@dataclass(slots=True, eq=False)
class _Task:
    """A window for the restorer, shared by all faces that show it."""

    index: int
    """The index of the first frame that shows it."""
    track_id: int
    crops: list[torch.Tensor]
    """The crops of the window in order, (3, W, W) each: the face and `reach` neighbors on either
    side.
    """
    network: Restorer
    denoiser: Denoiser | None = None
    result: torch.Tensor | str | None = None
    """(3, W, W), or the reason why there is none; None before the task ran."""
    code: torch.Tensor | None = None
    """(D,) latent code that the network gets; None: that of the input."""
    key: str | None = None
    """The key of the result in the cache; None without a cache."""
    was_kept: bool = False
    is_left_out: bool = False
    """Whether the face is between key frames, so that the task does not run."""

    @property
    def side(self) -> int:
        """The side S of the input of the network: its own size or that of the crops."""
        return self.network.size or self.crops[0].shape[-1]

    def has_input_of(self, other: _Task) -> bool:
        """Tell whether the crops of another task for the same network are the same, bit by bit."""
        if self.network is not other.network or self.is_left_out or other.is_left_out:
            return False
        pairs = zip(self.crops, other.crops, strict=True)
        return all(a is b or torch.equal(a, b) for a, b in pairs)

    def has_code_of(self, other: _Task) -> bool:
        """Tell whether another task has the same latent code, bit by bit."""
        if self.code is None or other.code is None:
            return self.code is other.code
        return torch.equal(self.code, other.code)

    def pictures(self) -> list[torch.Tensor]:
        """Return the (3, W, W) pictures of the input: the crops, or one that a denoiser made."""
        if self.denoiser is None:
            return self.crops
        return [self.denoiser(torch.stack(self.crops))]

    @property
    def network_key(self) -> str | None:
        """The name of all that makes the result of the crops; None where the restorer has no cache
        key.
        """
        key = cache_key_of(self.network)
        if key is None:
            return None
        # A cache key may omit the side of the windows that the crops are scaled to.
        denoiser = "" if self.denoiser is None else f", {self.denoiser.cache_key}"
        code = "" if self.code is None else f", code {_sha256(self.code)}"
        return f"{key}, side {self.network.size}{denoiser}{code}"


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A frame, and for each face its task and whether it repeats the frame before."""

    frame: FaceFrame
    faces: list[tuple[_Task, bool]]

    @property
    def is_done(self) -> bool:
        """Whether every task has a result or a reason."""
        return all(task.result is not None for task, _ in self.faces)

    def with_results(self, stats: RestorationStats) -> FaceFrame:
        """Return the frame with the results of its tasks, and count them."""
        counts = stats.counts(self.frame.frame.index)
        faces = []
        for face, (task, is_repeat) in zip(self.frame.faces, self.faces, strict=True):
            if task.network.colorizes:
                face = replace(face, colorized=True)
            if isinstance(task.result, torch.Tensor):
                face = replace(face, restored=task.result)
                stats.repeated += counts and is_repeat
                stats.kept += counts and task.was_kept and not is_repeat
            elif counts and not task.is_left_out:
                stats.not_restored[str(task.result)] += 1
            faces.append(face)
        return self.frame.with_faces(tuple(faces))


class _Batches:
    """Runs windows in batches, and in smaller ones once memory did not suffice."""

    def __init__(
        self,
        size: int | None,
        device: torch.device,
        stats: RestorationStats,
        crops: CropCache | None,
        memory: _Memory,
    ) -> None:
        self._requested, self._memory = size, memory
        # Batches on a CPU need more memory and save no time.
        self._usual = MOST_AT_ONCE if device.type == "cuda" else 1
        self._most: int | None = None
        self._stats = stats
        self._crops = crops
        # A network takes windows of one side at a time, all with codes or none.
        self._pending: dict[tuple[int, int, bool], list[_Task]] = {}

    def add(self, tasks: Iterator[_Task]) -> None:
        """Queue tasks, except those whose result the cache holds."""
        for task in tasks:
            if self._crops is not None and self._is_kept(task, self._crops):
                continue
            kind = id(task.network), task.side, task.code is not None
            self._pending.setdefault(kind, []).append(task)

    def _is_kept(self, task: _Task, crops: CropCache) -> bool:
        network_key = task.network_key
        if network_key is None or (task.network.is_cheap and not crops.keeps_cheap):
            return False
        task.key = crops.key(network_key, task.crops)
        if (kept := crops.find(task.key, task.index, task.crops[0].shape[-1])) is None:
            return False
        task.result, task.was_kept = kept.to(task.crops[0].device), True
        return True

    def run(self, *, also_partly: bool) -> None:
        """Run all full batches, and with `also_partly` the remaining tasks, too."""
        for tasks in self._pending.values():
            # Without tasks the network is not used, since asking for its size may load it.
            while tasks and (len(tasks) >= (size := self._size(tasks[0].network)) or also_partly):
                del tasks[: self._run(tasks[:size])]

    def _size(self, network: Restorer) -> int:
        wanted = self._requested
        if wanted is None:
            wanted = min(self._usual, network.most_at_once or self._usual)
        return wanted if self._most is None else min(wanted, self._most)

    def _run(self, tasks: list[_Task]) -> int:
        """Run a batch and return how many of its tasks now have their result, from the first on.

        There are fewer than given where memory did not suffice.
        """
        while True:
            try:
                # A restorer may leave its gradients on, or give half precision.
                with torch.no_grad():
                    results = self._memory.given_to(tasks[0].network, partial(_results, tasks))
                break
            except MemoryError:
                # The batch shrinks below, since the error's traceback still holds the memory here.
                _log.info("memory did not suffice for %d faces at a time", len(tasks))
            if len(tasks) == 1:
                tasks[0].result = _NO_MEMORY
                return 1
            self._most = len(tasks) // 2
            tasks = tasks[: self._most]
            note = f"memory did not suffice for larger batches; faces ran {self._most} at a time"
            self._stats.notes["batch"] = note
        finite = all_finite(results).tolist()
        for task, result, ok in zip(tasks, results, finite, strict=True):
            side = task.crops[0].shape[-1]
            if not ok:
                task.result = "the network gave no finite result"
                continue
            task.result = squared(result, side)
            if self._crops is not None and task.key is not None:
                self._crops.keep(task.key, task.index, task.result)
        return len(tasks)


def _results(tasks: list[_Task]) -> torch.Tensor:
    """Run the network for tasks of the same side, all with codes or none; return float32."""
    network, windows = tasks[0].network, _windows(tasks)
    codes = [task.code for task in tasks if task.code is not None]
    if codes:
        assert isinstance(network, LatentRestorer)
        restored = network.with_codes(windows, torch.stack(codes))
    else:
        restored = network(windows)
    return restored.detach().float()


def _sha256(code: torch.Tensor) -> str:
    return hashlib.sha256(to_host(code).numpy().tobytes()).hexdigest()


def _windows(tasks: list[_Task]) -> torch.Tensor:
    """Return the (B, frames, 3, S, S) input of the network for tasks of the same side."""
    pictures = [task.pictures() for task in tasks]
    shape = (len(tasks), len(pictures[0]), 3, tasks[0].side, tasks[0].side)
    device = pictures[0][0].device
    if device.type == "cpu":
        # numpy asks for large pages, so that its new memory costs a fifth of torch's.
        windows = torch.from_numpy(np.empty(shape, np.float32))
    else:
        windows = torch.empty(shape, dtype=torch.float32, device=device)
    for picture, output in zip(chain(*pictures), windows.flatten(0, 1), strict=True):
        squared_into(picture, output)
    return windows


def _or_before(task: _Task, before: dict[int, _Task]) -> tuple[_Task, bool]:
    """Return the task of the frame before where its window is the same, and whether it is."""
    previous = before.get(task.track_id)
    if previous is None or not (task.has_input_of(previous) and task.has_code_of(previous)):
        return task, False
    return previous, True


def _task(held: deque[FaceFrame], at: int, face: Face, given: _Input) -> _Task:
    """Return the task of a face of frame `at`, whose window repeats the first and last crops."""
    if face.is_between:
        return _Task(
            held[at].frame.index, face.track_id, [], given.restorer, result=_BETWEEN,
            is_left_out=True,
        )  # fmt: skip
    crops = [face.source]
    for step in (-1, 1):
        last = face.source
        side = []
        for distance in range(1, given.reach_frames + 1):
            last = _source_at(held, at + step * distance, face.track_id, last)
            side.append(last)
        crops = side[::-1] + crops if step < 0 else crops + side
    network = given.restorer.for_crop_size(face.work_px)
    return _Task(held[at].frame.index, face.track_id, crops, network, given.denoiser)


def _source_at(
    held: deque[FaceFrame], i: int, track_id: int, otherwise: torch.Tensor
) -> torch.Tensor:
    """Return the source of a track in frame `i` of `held`, or `otherwise` where there is none."""
    if 0 <= i < len(held):
        for face in held[i].faces:
            if face.track_id == track_id:
                return face.source
    return otherwise

"""Crops become restored crops, in batches across frames and faces."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, repeat

import torch

from vidrestore.common.settings import Restore
from vidrestore.imaging.resample import squared
from vidrestore.models.restorers import (
    MOST_AT_ONCE,
    Denoiser,
    Restorer,
    all_finite,
    cache_key_of,
    memory_errors,
)
from vidrestore.restoration.crop_cache import CropCache
from vidrestore.restoration.faces import Face, FaceFrame
from vidrestore.restoration.statistics import RestorationStats

_CPU = torch.device("cpu")
_log = logging.getLogger("vidrestore")


def restore(
    frames: Iterator[FaceFrame],
    restorer: Restorer,
    tally: RestorationStats,
    how: Restore,
    *,
    device: torch.device = _CPU,
    crops: CropCache | None = None,
    denoiser: Denoiser | None = None,
    needed: range | None = None,
) -> Iterator[FaceFrame]:
    """Give every face its `restored` crop.

    A batch is run as soon as `how.batch_size` faces are ready for the same network, or when
    `how.max_waiting_frames` frames wait. A face is ready once the frames after it that the restorer
    looks at have arrived. Where memory does not suffice the batch is halved for good; a face that
    does not fit alone, or for which the restorer has no answer, keeps `restored` None and is
    counted in `tally`.

    With `how.repeats` a face whose window is, bit by bit, that of the frame before gets the same
    result without another run, and is counted. Where a result does not depend on the batch it is
    in, as on a CPU with batches of one, that is exactly what another run would give.

    Memory: the crops of at most max_waiting_frames + 2 * reach_frames + 1 frames, and of each face
    the window and the result of the frame before.

    Args:
        frames: In order.
        restorer: Of all their faces.
        tally: Receives counts and notes.
        how: `batch_size`, `max_waiting_frames` and `repeats` count here.
        device: Where the restorer runs, by which a batch is sized where `how` does not say;
            default: the processor.
        crops: Keeps results; those that an earlier run or the segment before kept there are taken
            and counted. Not of a restorer without a `cache_key`. Default: nothing is kept.
        denoiser: A restorer that sees one frame is shown what it makes of the frames around; the
            faces keep their `source`. One that sees several by itself is not, which is noted.
            Default: the faces are shown as they are.
        needed: Faces of other frames are only there for the windows of these, and keep `restored`
            None. Default: all are needed.

    Yields:
        The frames as they came in, in order.
    """
    if denoiser is not None and restorer.reach_frames:
        tally.notes["denoise"] = (
            f"restore.denoise is not for {restorer.name}, which looks at several frames by itself; "
            "it was shown the faces as they are"
        )
        denoiser = None
    reach = restorer.reach_frames if denoiser is None else denoiser.reach_frames
    batches = _Batches(how.batch_size, device, tally, crops)
    held: deque[FaceFrame] = deque()  # those that a window may still show
    at = 0  # of `held`: the first whose windows are not whole yet
    waiting: deque[_Waiting] = deque()
    before: dict[int, _Task] = {}
    for frame in chain(frames, repeat(None, reach)):
        if frame is not None:
            held.append(frame)
        if at < len(held) and (frame is None or at + reach < len(held)):
            found = [_task(held, at, face, restorer, reach, denoiser) for face in held[at].faces]
            if needed is not None and held[at].frame.index not in needed:
                faces = [(replace(task, result="is not needed"), False) for task in found]
                before = {}
            else:
                faces = [_or_before(task, before if how.repeats else {}) for task in found]
                before = {task.track_id: task for task, _ in faces}
            batches.add(task for task, is_repeat in faces if not is_repeat and task.result is None)
            waiting.append(_Waiting(held[at], faces))
            at += 1
        while at > reach:
            held.popleft()
            at -= 1
        batches.run(also_partly=len(waiting) >= how.max_waiting_frames)
        while waiting and waiting[0].is_done:
            yield waiting.popleft().with_results(tally)
    batches.run(also_partly=True)
    for one in waiting:
        yield one.with_results(tally)


@dataclass(slots=True, eq=False)
class _Task:
    """A window for the restorer, once for all faces that show it."""

    index: int
    """Of the first frame that shows it."""
    track_id: int
    crops: list[torch.Tensor]
    """(3, W, W) each, 2 reach + 1 of them: the face and its neighbours in time."""
    network: Restorer
    denoiser: Denoiser | None = None
    result: torch.Tensor | str | None = None
    """(3, W, W); or in words why there is none; None before it was run."""
    key: str | None = None
    """Of the result among those kept."""
    was_kept: bool = False

    def window(self) -> torch.Tensor:
        """(2 reach + 1, 3, S, S), S being the network's own, and reach."""
        crops = self.crops
        if self.denoiser is not None:
            crops = [self.denoiser(torch.stack(crops))]
        size = self.network.size or crops[0].shape[-1]
        return torch.stack([squared(crop, size) for crop in crops])

    @property
    def made_by(self) -> str | None:
        """What makes the result of the crops; None where that is not known."""
        key = cache_key_of(self.network)
        if key is None:
            return None
        # A key need not tell the side of the windows that the crops are scaled to.
        shown = "" if self.denoiser is None else f", {self.denoiser.cache_key}"
        return f"{key}, side {self.network.size}{shown}"


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A frame, and for each of its faces the task and whether it repeats the frame before."""

    frame: FaceFrame
    faces: list[tuple[_Task, bool]]

    @property
    def is_done(self) -> bool:
        return all(task.result is not None for task, _ in self.faces)

    def with_results(self, tally: RestorationStats) -> FaceFrame:
        counts = tally.counts(self.frame.frame.index)
        faces = []
        for face, (task, is_repeat) in zip(self.frame.faces, self.faces, strict=True):
            if isinstance(task.result, torch.Tensor):
                face = replace(face, restored=task.result)
                tally.repeated += counts and is_repeat
                tally.kept += counts and task.was_kept and not is_repeat
            elif counts:
                tally.not_restored[str(task.result)] += 1
            faces.append(face)
        return self.frame.with_faces(tuple(faces))


class _Batches:
    """Runs at most so many windows at once, and fewer once memory did not suffice."""

    def __init__(
        self,
        size: int | None,
        device: torch.device,
        tally: RestorationStats,
        crops: CropCache | None,
    ) -> None:
        self._asked = size
        # On a CPU batches cost memory and gain nothing.
        self._usual = MOST_AT_ONCE if device.type == "cuda" else 1
        self._most: int | None = None
        self._tally = tally
        self._crops = crops
        # A network takes windows of one side at a time.
        self._pending: dict[tuple[int, int], list[_Task]] = {}

    def add(self, tasks: Iterator[_Task]) -> None:
        for task in tasks:
            if self._crops is not None and self._is_known(task, self._crops):
                continue
            side = task.network.size or task.crops[0].shape[-1]
            self._pending.setdefault((id(task.network), side), []).append(task)

    def _is_known(self, task: _Task, crops: CropCache) -> bool:
        made_by = task.made_by
        if made_by is None or (task.network.is_cheap and not crops.keeps_cheap):
            return False
        task.key = crops.key(made_by, task.crops)
        if (known := crops.find(task.key, task.index, task.crops[0].shape[-1])) is None:
            return False
        task.result, task.was_kept = known.to(task.crops[0].device), True
        return True

    def run(self, *, also_partly: bool) -> None:
        """Whole batches, or everything there is."""
        for tasks in self._pending.values():
            # Where nothing waits, no network is asked: it might have to be opened for that.
            while tasks and (len(tasks) >= (size := self._size(tasks[0].network)) or also_partly):
                del tasks[: self._run(tasks[:size])]

    def _size(self, network: Restorer) -> int:
        wanted = self._asked
        if wanted is None:
            wanted = min(self._usual, network.most_at_once or self._usual)
        return wanted if self._most is None else min(wanted, self._most)

    def _run(self, tasks: list[_Task]) -> int:
        """How many of them, from the first on, have their result now: fewer where memory gave
        out."""
        while True:
            try:
                with memory_errors():
                    results = tasks[0].network(torch.stack([task.window() for task in tasks]))
                break
            except MemoryError:
                # Handled below: until then the error's traceback holds on to the memory.
                _log.info("memory did not suffice for %d faces at a time", len(tasks))
            if len(tasks) == 1:
                tasks[0].result = "did not fit into memory"
                return 1
            self._most = len(tasks) // 2
            tasks = tasks[: self._most]
            note = f"memory did not suffice for larger batches; faces ran {self._most} at a time"
            self._tally.notes["batch"] = note
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


def _or_before(task: _Task, before: dict[int, _Task]) -> tuple[_Task, bool]:
    """That of the frame before where its window is the same, and whether it is."""
    known = before.get(task.track_id)
    if known is None or known.network is not task.network:
        return task, False
    same = all(a is b or torch.equal(a, b) for a, b in zip(known.crops, task.crops, strict=True))
    return (known, True) if same else (task, False)


def _task(
    held: deque[FaceFrame],
    at: int,
    face: Face,
    restorer: Restorer,
    reach: int,
    denoiser: Denoiser | None,
) -> _Task:
    """The face of frame `at` and its neighbours in time, the ends repeated."""
    crops = [face.source]
    for step in (-1, 1):
        last = face.source
        side = []
        for distance in range(1, reach + 1):
            last = _source_at(held, at + step * distance, face.track_id, last)
            side.append(last)
        crops = side[::-1] + crops if step < 0 else crops + side
    network = restorer.for_crop_size(face.work_px)
    return _Task(held[at].frame.index, face.track_id, crops, network, denoiser)


def _source_at(
    held: deque[FaceFrame], i: int, track_id: int, otherwise: torch.Tensor
) -> torch.Tensor:
    if 0 <= i < len(held):
        for face in held[i].faces:
            if face.track_id == track_id:
                return face.source
    return otherwise

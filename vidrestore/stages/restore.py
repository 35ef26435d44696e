"""Crops become restored crops, in batches across frames and faces."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F

from vidrestore.frame import Face, FaceFrame
from vidrestore.restorers import Restorer, memory_errors
from vidrestore.summary import Tally


def restore(
    frames: Iterator[FaceFrame],
    restorer: Restorer,
    tally: Tally,
    *,
    batch_size: int,
    max_waiting_frames: int,
) -> Iterator[FaceFrame]:
    """Give every face its `restored` crop; frames come out as they came in, in order.

    A batch is run as soon as `batch_size` faces are ready, or when `max_waiting_frames` frames
    wait. A face is ready once the frames after it that the restorer looks at have arrived. Where
    memory does not suffice the batch is halved for good; a face that does not fit alone, or for
    which the restorer has no answer, keeps `restored` None and is counted in `tally`.

    Memory: the crops of at most max_waiting_frames + 2 * reach_frames + 1 frames.
    """
    reach = restorer.reach_frames
    batches = _Batches(restorer, batch_size, tally)
    held: deque[FaceFrame] = deque()  # the last `reach` frames given out, then those that wait
    given = 0  # how many of `held` have been given out
    for frame in frames:
        held.append(frame)
        waiting = len(held) - given - reach
        if waiting > 0 and (
            waiting >= max_waiting_frames
            or _face_count(held, given, waiting) >= batches.size
            or _face_count(held, given, waiting) == 0
        ):
            yield from _restored(held, given, waiting, batches)
            given += waiting
        while given > reach:
            held.popleft()
            given -= 1
    yield from _restored(held, given, len(held) - given, batches)


def _face_count(held: deque[FaceFrame], start: int, count: int) -> int:
    return sum(len(held[i].faces) for i in range(start, start + count))


def _restored(
    held: deque[FaceFrame], start: int, count: int, batches: _Batches
) -> Iterator[FaceFrame]:
    """The `count` frames of `held` from `start` on, their faces restored batch by batch."""
    by_side: dict[int, list[tuple[int, int]]] = {}
    for i in range(start, start + count):
        for j, face in enumerate(held[i].faces):
            side = batches.restorer.size or face.work_px
            by_side.setdefault(side, []).append((i, j))
    done: dict[tuple[int, int], Face] = {}
    for places in by_side.values():
        while places:
            batch = places[: batches.size]
            results = batches.run(
                [_window(held, i, j, batches.restorer) for i, j in batch],
                [held[i].frame.index for i, _ in batch],
            )
            for (i, j), result in zip(places, results, strict=False):
                face = held[i].faces[j]
                restored = None if result is None else _resized(result, face.work_px)
                done[i, j] = replace(face, restored=restored)
            del places[: len(results)]
    for i in range(start, start + count):
        yield held[i].with_faces(tuple(done[i, j] for j in range(len(held[i].faces))))


class _Batches:
    """Runs the restorer on at most `size` windows, which shrinks where memory does not suffice."""

    def __init__(self, restorer: Restorer, size: int, tally: Tally) -> None:
        self.restorer = restorer
        self.size = size
        self._tally = tally

    def run(self, windows: list[torch.Tensor], frames: list[int]) -> list[torch.Tensor | None]:
        """Results for the first windows: all of them, or fewer where memory gave out.

        `frames` are the indices of their frames.
        """
        while True:
            try:
                with memory_errors():
                    results = self.restorer(torch.stack(windows))
                break
            except MemoryError:
                # Handled below: until then the error's traceback holds on to the memory.
                pass
            if len(windows) == 1:
                self._leave("did not fit into memory", frames[0])
                return [None]
            self.size = len(windows) // 2
            windows = windows[: self.size]
            note = f"memory did not suffice for larger batches; faces ran {self.size} at a time"
            self._tally.notes["batch"] = note
        finite = torch.isfinite(results).flatten(1).all(dim=1).tolist()
        for index, ok in zip(frames, finite, strict=False):
            if not ok:
                self._leave("the network gave no finite result", index)
        return [result if ok else None for result, ok in zip(results, finite, strict=True)]

    def _leave(self, reason: str, index: int) -> None:
        if self._tally.counts(index):
            self._tally.not_restored[reason] += 1


def _window(held: deque[FaceFrame], i: int, j: int, restorer: Restorer) -> torch.Tensor:
    """(2 reach + 1, 3, S, S): the face and its neighbours in time, the ends repeated."""
    face = held[i].faces[j]
    crops = [face.source]
    for step in (-1, 1):
        last = face.source
        side = []
        for distance in range(1, restorer.reach_frames + 1):
            last = _source_at(held, i + step * distance, face.track_id, last)
            side.append(last)
        crops = side[::-1] + crops if step < 0 else crops + side
    size = restorer.size or face.work_px
    return torch.stack([_resized(crop, size) for crop in crops])


def _source_at(
    held: deque[FaceFrame], i: int, track_id: int, otherwise: torch.Tensor
) -> torch.Tensor:
    if 0 <= i < len(held):
        for face in held[i].faces:
            if face.track_id == track_id:
                return face.source
    return otherwise


def _resized(crop: torch.Tensor, side: int) -> torch.Tensor:
    """(3, W, W) -> (3, side, side), by boxes downwards and bicubic upwards."""
    if crop.shape[-1] == side:
        return crop
    if crop.shape[-1] > side:
        return F.adaptive_avg_pool2d(crop[None], side)[0]
    larger = F.interpolate(crop[None], (side, side), mode="bicubic", align_corners=False)
    return larger[0].clamp(0, 1)

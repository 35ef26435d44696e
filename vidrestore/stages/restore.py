"""Crops become restored crops, in batches across frames and faces."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F

from vidrestore.frame import Face, FaceFrame
from vidrestore.restorers import Restorer


def restore(
    frames: Iterator[FaceFrame], restorer: Restorer, *, batch_size: int, max_waiting_frames: int
) -> Iterator[FaceFrame]:
    """Give every face its `restored` crop; frames come out as they came in, in order.

    A batch is run as soon as `batch_size` faces are ready, or when `max_waiting_frames` frames
    wait. A face is ready once the frames after it that the restorer looks at have arrived.

    Memory: the crops of at most max_waiting_frames + 2 * reach_frames + 1 frames.
    """
    reach = restorer.reach_frames
    held: deque[FaceFrame] = deque()  # the last `reach` frames given out, then those that wait
    given = 0  # how many of `held` have been given out
    for frame in frames:
        held.append(frame)
        waiting = len(held) - given - reach
        if waiting > 0 and (
            _face_count(held, given, waiting) >= batch_size
            or waiting >= max_waiting_frames
            or _face_count(held, given, waiting) == 0
        ):
            yield from _restored(held, given, waiting, restorer, batch_size)
            given += waiting
        while given > reach:
            held.popleft()
            given -= 1
    yield from _restored(held, given, len(held) - given, restorer, batch_size)


def _face_count(held: deque[FaceFrame], start: int, count: int) -> int:
    return sum(len(held[i].faces) for i in range(start, start + count))


def _restored(
    held: deque[FaceFrame], start: int, count: int, restorer: Restorer, batch_size: int
) -> Iterator[FaceFrame]:
    """The `count` frames of `held` from `start` on, their faces restored batch by batch."""
    places = [(i, j) for i in range(start, start + count) for j in range(len(held[i].faces))]
    done: dict[tuple[int, int], Face] = {}
    for batch in _batches(held, places, restorer, batch_size):
        windows = torch.stack([_window(held, i, j, restorer) for i, j in batch])
        for (i, j), result in zip(batch, restorer(windows), strict=True):
            face = held[i].faces[j]
            done[i, j] = replace(face, restored=_resized(result, face.work_px))
    for i in range(start, start + count):
        faces = tuple(done[i, j] for j in range(len(held[i].faces)))
        yield held[i].with_faces(faces)


def _batches(
    held: deque[FaceFrame], places: list[tuple[int, int]], restorer: Restorer, batch_size: int
) -> Iterator[list[tuple[int, int]]]:
    """At most `batch_size` faces at a time, all of one size."""
    by_side: dict[int, list[tuple[int, int]]] = {}
    for i, j in places:
        by_side.setdefault(restorer.size or held[i].faces[j].work_px, []).append((i, j))
    for same in by_side.values():
        yield from (same[k : k + batch_size] for k in range(0, len(same), batch_size))


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

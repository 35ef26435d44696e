"""Key frames in a plan: which tracks have them, decided once, before the first frame is restored.

The decision depends on the speed of this machine, so it is made in the plan, noted in the work
folder, and part of the key of each segment: an interrupted run, and every worker, takes the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import av
import numpy as np
import torch

from vidrestore.analysis.result import Analysis
from vidrestore.analysis.tracks import Track
from vidrestore.common.handled import log_handled
from vidrestore.common.settings import Restore, Settings
from vidrestore.imaging.frame import Frame
from vidrestore.imaging.geometry import template
from vidrestore.models.devices import choose_device
from vidrestore.models.restorers import Restorer, memory_errors
from vidrestore.models.restorers.assignment import Assignment
from vidrestore.restoration import key_frames
from vidrestore.restoration.faces import Face, FaceFrame
from vidrestore.restoration.latent import restored_alone
from vidrestore.restoration.segments import restorers_used, side_px
from vidrestore.restoration.statistics import RestorationStats

# Key frames must save time even where the network restores so large a share of the frames: where it
# would be larger, the network restores all of them.
_SHARE = 2 / 3
_TRIED_FRAMES = 13
_MOST_RUNS = 3
_ENOUGH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class KeyFramePlan:
    """Which tracks have key frames."""

    tracks: frozenset[int] = frozenset()
    """The numbers of the tracks of which the network restores key frames only."""
    saves_time: Mapping[str, bool] = field(default_factory=dict)
    """Network, side and device -> whether key frames save time, as far as it was measured."""
    notes: tuple[str, ...] = ()
    """Sentences about restorers that have no key frames, though the settings ask for them."""


def plan_key_frames(
    analysis: Analysis,
    restorers: Assignment[Restorer],
    settings: Settings,
    noted: Mapping[str, bool],
) -> KeyFramePlan:
    """Decide which tracks have key frames.

    Args:
        analysis: The analysis of the source.
        restorers: The restorers, opened.
        settings: `restore.key_frames`, `restore.latent` and `restore.device` count.
        noted: What an earlier run of the same job measured, as `KeyFramePlan.saves_time`.

    Returns:
        The decision.
    """
    how = settings.restore.key_frames
    if how == "off":
        return KeyFramePlan(saves_time=noted)
    tracks, known, notes = set[int](), dict(noted), dict[str, None]()
    by_number = {track.track_id: track for track in analysis.tracks}
    device, codes = choose_device(settings.restore), ""
    if settings.restore.latent == "shot":
        codes = ", codes of the shot"
    for number, used in restorers_used(restorers, analysis, 0, analysis.frame_count):
        if used.reach_frames:
            notes[
                f"{used.name} looks at several frames itself, so it restored every frame: "
                "restore.key_frames has no effect on it"
            ] = None
            continue
        work_px = by_number[number].work_px
        network = next(
            each.for_crop_size(work_px)
            for each in restorers.each()
            if each.for_crop_size(work_px).cache_name == used.cache_name
        )
        side = side_px(by_number[number], restorers)
        name = f"{used.cache_name}, {side} px, {device}{codes}"
        if how == "auto" and name not in known:
            known[name] = saves_time(network, side, device, settings.restore)
        if how == "on" or known[name]:
            tracks.add(number)
        else:
            notes[
                f"{used.name} is too quick on this machine for key frames to save time at "
                f"{side} px, so it restored every frame"
            ] = None
    return KeyFramePlan(frozenset(tracks), known if how == "auto" else noted, tuple(notes))


def saves_time(network: Restorer, side: int, device: torch.device, settings: Restore) -> bool:
    """Measure whether key frames save time with a network on this machine.

    Both are measured in processor time where the processor runs the network, so that a machine
    that is busy with other work decides the same; on another device the network's time is that of
    the clock.

    Args:
        network: The network.
        side: The side of the crops in pixels.
        device: The device that the network runs on.
        settings: `latent` counts.

    Returns:
        Whether a third of the network's runs cost more than the key frames of all faces do; True
        where one face does not fit into memory.
    """
    try:
        with memory_errors():
            cost = _seconds_of(network, side, device, settings)
    except MemoryError as error:
        log_handled(error)
        return True  # the faces that it leaves are counted when it restores them
    return cost * (1 - _SHARE) > _seconds_without(side)


def _seconds_of(network: Restorer, side: int, device: torch.device, settings: Restore) -> float:
    """Measure the time of a network for one face."""
    size = network.size or side
    window = torch.rand(1, 1, 3, size, size, device=device)
    with torch.no_grad():
        restored_alone(network, window, settings)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    taken = list[float]()
    while len(taken) < _MOST_RUNS and sum(taken) < _ENOUGH_SECONDS:
        started = clock()
        with torch.no_grad():
            restored_alone(network, window, settings).cpu()
        taken.append(clock() - started)
    return min(taken)


def _seconds_without(side: int) -> float:
    """Measure the processor time of all but the network for one face that moves slowly."""
    frames, track = _slow_face(side)
    started = time.process_time()
    chosen = key_frames.choose(iter(frames), [track], of={track.track_id})
    count = sum(1 for _ in key_frames.fill(_restored(chosen), RestorationStats()))
    return (time.process_time() - started) / count


def _restored(frames: Iterator[FaceFrame]) -> Iterator[FaceFrame]:
    """Restore the key frames without a network."""
    for frame in frames:
        (face,) = frame.faces
        if not face.is_between:
            face = replace(face, restored=face.source * 0.97 + 0.01)
        yield frame.with_faces((face,))


def _slow_face(side: int) -> tuple[list[FaceFrame], Track]:
    """Return frames of a face-like texture that moves by a pixel of 512 a frame, and its track."""
    count = _TRIED_FRAMES
    small = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    apart = max(1, side // 512)
    wide = torch.nn.functional.interpolate(
        small, (side + count * apart,) * 2, mode="bicubic", align_corners=False
    )[0].clamp(0, 1)
    picture, matrix = av.VideoFrame(16, 16, "gray"), np.eye(2, 3, dtype=np.float32)
    frames = []
    for index in range(count):
        first = index * apart
        crop = wide[:, first : first + side, first : first + side].contiguous()
        face = Face(0, side, matrix, crop, 1.0)
        frames.append(FaceFrame(Frame(index, index, picture), (face,)))
    unit = np.repeat(matrix[None], count, axis=0)
    points = np.repeat(template("gpen")[None], count, axis=0).astype(np.float32)
    ones = np.ones(count, np.float32)
    track = Track(
        track_id=0, person_id=0, first_frame=0, work_px=side, matrices=unit, landmarks=points,
        score=ones, strength=ones, detected=np.ones(count, np.bool_),
    )  # fmt: skip
    return frames, track

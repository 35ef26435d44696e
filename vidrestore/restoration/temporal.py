"""Deflickering: restored faces are stabilized over time.

Without it they wobble, their texture boils and their color drifts, because a restorer that sees one
frame at a time places a feature a pixel or two differently in each frame. The flow of the restored
crops less the flow of the sources shows by how much. Each crop is warped back by the mean of that
over its neighbors. It is then averaged along the flow with the neighbors that show the same.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, repeat

import cv2
import numpy as np
import numpy.typing as npt
import torch

from vidrestore.common.settings import Deflicker
from vidrestore.common.threads import RunEach, in_turn
from vidrestore.imaging.fine_texture import cell_px, with_texture
from vidrestore.imaging.geometry import Rect
from vidrestore.imaging.luma import bt601_luma
from vidrestore.imaging.optical_flow import (
    FlowField,
    Grey,
    add_moved,
    closing_error,
    moved,
    reduced,
    resized,
    sample,
    squared,
    uses_opencv,
    within,
)
from vidrestore.restoration.crop_comparison import (
    LEAST_GUIDE_PX,
    blurred,
    clamp,
    copy_into,
    differing,
    doubt_by_light,
    face_ellipse,
    guide_side,
    halved,
    light_change,
    misfit,
    quotient,
    share_changed,
)
from vidrestore.restoration.faces import Face, FaceFrame, track_and_side
from vidrestore.restoration.track_flow import TrackFlow

REACH_FRAMES = 3
"""The number of frames before and after a frame on whose crops its own crop depends."""
# Tried and left out. A reach of 9 frames: on three clips of a simulated restorer 5 to 6 % less
# flicker and +0.3 dB, but up to 3.6 % less detail; on four of trained ones 1 to 8 % less flicker,
# 0.7 to 3.8 % less detail, mouths 12 to 32 % further from the network's; 2.3 times the cost. Motion
# and gates from sources averaged with both neighbors (1-2-1, gated): 3 to 5 % and 0.5 to 1.6 % less
# flicker, the same detail, mouths up to 8 % further off.
# A correction of slow color drift over 11 frames on either side gained less than 0.1 dB, and every
# segment would have overlapped by as many frames.

_TIME_SIGMA_FRAMES = 2.0
# The least ratio of the contrast of a source in the octave below half the side to that in the next
# octave. Below it flow is computed at half the side, where it follows the noise of bad sources
# less. Measured: 0.43 and more on sources reduced by 4, 0.42 and less on sources reduced by 8.
_FINE = 0.42
# Standard deviations of blurs, in pixels at a side of 512. Pictures of half the guide's side are
# blurred less, since halving them and enlarging what they tell blurs, too.
_GATE_SIGMA_PX, _HALVED_GATE_SIGMA_PX = 3.0, 2.4
_WOBBLE_SIGMA_PX = 8.0
# Differences, in 8-bit levels, at which the weight of a neighbor is 1/e: between sources, and
# between restored crops, which also differ in what the restorer invented.
_SOURCE_TOLERANCE = 12.0
_RESTORED_TOLERANCE = 40.0
# Wobble, in pixels at a side of 512, at which the weight of a neighbor is 1/e. One or two pixels
# are usual; more is an error of the flow, as behind a hand.
_WOBBLE_TOLERANCE_PX = 6.0
# Weight of "no wobble at all" in the mean over the neighbors, each of which weighs up to 1.
_STILLNESS = 0.3
# Width of the margin of the part that is averaged, as a share of the side of the crop.
_MARGIN = 1 / 32

_Plane = npt.NDArray[np.float32]


def deflicker(
    frames: Iterator[FaceFrame], how: Deflicker, *, causal: bool = False
) -> Iterator[FaceFrame]:
    """Replace the `restored` crop of every face by one that agrees with its neighbors in time.

    Neighbors are crops of the same track and side; a track never crosses a cut. A crop stays as it
    was where a pixel of a neighbor does not show the same, or where there is no neighbor. A pixel
    that the restorer did not change and a face without `restored` also stay as they were, and so do
    pixels well beyond what pasting shows of a face, where its `shown` tells it.

    Memory for each track: the restored crops of 2 * REACH_FRAMES + 1 frames and the sources of
    REACH_FRAMES + 1 frames, 12 W^2 bytes each, and up to 40 MB of small fields.

    Args:
        frames: The frames with their faces, in order.
        how: The settings. `amount` in [0, 1] is how much of the wobble is removed and how much the
            neighbors count; with 0 the frames pass unchanged. `detail` in [0, 1] is how much of the
            contrast that averaging removed is given back to the texture.
        causal: Whether only earlier frames are used; default: False.

    Yields:
        The frames in order, `REACH_FRAMES` later, or at once where `causal` is set.
    """
    yield from map(averaged, prepared(frames, how, causal=causal))


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A frame whose restored crops wait to be warped and averaged."""

    frame: FaceFrame
    """The frame with the faces as the restorer made them."""
    averages: tuple[Average | None, ...] = ()
    """What becomes of each face, in their order; None where a face stays as it is. Empty where all
    do.
    """


def prepared(
    frames: Iterator[FaceFrame],
    how: Deflicker,
    *,
    causal: bool = False,
    run_each: RunEach = in_turn,
) -> Iterator[Prepared]:
    """Find out how the restored crops agree with their neighbors in time.

    This is the first half of `deflicker`; `averaged` is the other one. Frames can be averaged in
    several threads at a time.

    Args:
        frames: See `deflicker`.
        how: See `deflicker`.
        causal: See `deflicker`.
        run_each: Calls the functions that work on the faces of a frame, which may run at the same
            time; default: one after the other.

    Yields:
        The frames in order, as `deflicker` does.
    """
    if how.amount == 0:
        yield from map(Prepared, frames)
        return
    reach = 0 if causal else REACH_FRAMES
    held: deque[FaceFrame] = deque()
    windows: dict[tuple[int, int], _Window] = {}
    for last, frame in enumerate(chain(frames, repeat(None, reach))):
        if frame is not None:
            held.append(frame)
            for face in frame.faces:
                if track_and_side(face) not in windows:
                    windows[track_and_side(face)] = _Window(causal)
            run_each(
                [partial(windows[track_and_side(face)].add, last, face) for face in frame.faces]
            )
        if (at := last - reach) < 0 or not held:
            continue
        ready = held.popleft()
        averages = run_each(
            [partial(windows[track_and_side(face)].average, at, how) for face in ready.faces]
        )
        for window in windows.values():
            window.forget(at)
        waiting = {track_and_side(face) for frame in held for face in frame.faces}
        windows = {key: windows[key] for key in windows if key in waiting or windows[key].is_used}
        yield Prepared(ready, tuple(averages))
        del ready, averages  # or their crops would last until the next ones are done


def averaged(ready: Prepared) -> FaceFrame:
    """Warp and average the restored crops of a frame; safe for use by several threads at once.

    Args:
        ready: A frame that `prepared` made.

    Returns:
        The frame with its stabilized faces.
    """
    if not any(ready.averages):
        return ready.frame
    pairs = zip(ready.frame.faces, ready.averages, strict=True)
    faces = (face if each is None else _averaged(face, each) for face, each in pairs)
    return ready.frame.with_faces(tuple(faces))


@dataclass(frozen=True, slots=True, eq=False)
class _Crop:
    """A restored crop and the small pictures that are compared."""

    restored: torch.Tensor
    """(3, W, W), the crop that the restorer made."""
    source: _Plane
    """(S, S, 3) low-passed source in 8-bit levels."""
    result: _Plane
    """(S, S, 3) low-passed restored crop in 8-bit levels."""
    changed: _Plane | None
    """(S, S) share of the pixels that the restorer changed; None where it changed all."""


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """How one crop leads to a neighbor."""

    flow: FlowField
    """(S, S, 2) flow of the restored crops in pixels of S."""
    apart: FlowField
    """(S, S, 2) the same less the flow of the sources, in pixels of S."""
    gate: _Plane
    """(S, S) in [0, 1]: how surely both crops show the same."""
    light: _Plane
    """(2, 3) gain and offset in 8-bit levels that bring the neighbor into the light of this crop.
    """


@dataclass(frozen=True, slots=True, eq=False)
class Average:
    """How one restored crop is warped, and averaged with its neighbors."""

    wobble: FlowField
    """(S, S, 2), by how much the crop is warped back, in pixels of S."""
    neighbors: tuple[tuple[torch.Tensor, FlowField, _Plane, _Plane], ...]
    """For each neighbor its (3, W, W) restored crop, the (S, S, 2) flow that leads to it, its
    (S, S) share, and the (2, 3) gain and offset of its light.
    """
    detail: float
    """The share of the lost contrast that is given back."""
    changed_all: bool
    """Whether the restorer changed all pixels."""


def _averaged(face: Face, how: Average) -> Face:
    """Return a face with its stabilized crop."""
    restored = face.restored
    assert restored is not None
    part, side = _part(face), face.work_px
    own = moved(restored, -how.wobble, part)
    whole = _copied(restored)
    total = whole[within(part)]
    copy_into(own, total)
    # What is smooth is added up in small and enlarged once.
    weight = np.ones(how.wobble.shape[:2], np.float32)
    offsets = np.zeros((3, *weight.shape), np.float32)
    for neighbor, flow, share, light in how.neighbors:
        gains, offset = light
        add_moved(total, neighbor, _path(flow, how.wobble), share, part, gains=gains)
        for channel, added in enumerate((offset / 255).tolist()):
            cv2.scaleAdd(share, added, offsets[channel], dst=offsets[channel])
        weight += share
    mean = quotient(total, offsets, weight, side, part)
    if how.detail > 0:
        mean = with_texture(mean, own, how.detail, side=side)
    clamp(mean)
    if not how.changed_all:
        before = restored[within(part)]
        mean = torch.where(~differing(before, face.source[within(part)]), before, mean)
    if mean is not total:
        copy_into(mean, total)
    return replace(face, restored=whole)


def _part(face: Face) -> Rect | None:
    """Return the part of the crop to average; None for all.

    It holds what pasting shows, a margin for what pasting reads around it, and whole cells of
    texture.
    """
    side = face.work_px
    step = 2 * cell_px(side)
    if face.shown is None or side % step != 0:
        return None
    margin = math.ceil(_MARGIN * side)
    (x0, x1), (y0, y1) = (
        (max(low - margin, 0) // step * step, min(-(-(high + margin) // step) * step, side))
        for low, high in ((face.shown.x0, face.shown.x1), (face.shown.y0, face.shown.y1))
    )
    return Rect(x0, y0, x1, y1)


class _Window:
    """One track around the current frame."""

    def __init__(self, causal: bool) -> None:
        self._ahead = 0 if causal else REACH_FRAMES
        self._of_sources = TrackFlow()
        self._of_restored = TrackFlow(like=self._of_sources)
        self._crops: dict[int, _Crop] = {}
        self._steps: dict[tuple[int, int], _Step] = {}
        self._unsteadiness: dict[int, tuple[float, float]] = {}

    @property
    def is_used(self) -> bool:
        """Whether any crop is held."""
        return bool(self._crops)

    def add(self, at: int, face: Face) -> None:
        """Add the crop of a frame, unless the restorer left the face as it was."""
        if face.restored is None:
            return
        guide = guide_side(face.work_px)
        side = guide // 2 if guide // 2 >= LEAST_GUIDE_PX else guide
        changed = share_changed(differing(face.restored, face.source), side)
        if changed is not None and changed.max() == 0:
            return
        source, result = reduced(face.source, side), reduced(face.restored, side)
        sigma_px = _GATE_SIGMA_PX if side == guide else _HALVED_GATE_SIGMA_PX
        luma = bt601_luma(source)
        is_fine = _is_fine(luma, guide)
        self._of_sources.add(at, _gray(luma, guide), is_fine=is_fine)
        self._of_restored.add(at, _gray(bt601_luma(result), guide))
        self._crops[at] = _Crop(
            face.restored,
            blurred(source, sigma_px),
            blurred(result, sigma_px),
            changed,
        )

    def forget(self, at: int) -> None:
        """Drop what no frame after `at` needs."""
        for old in [k for k in self._crops if k <= at - REACH_FRAMES]:
            del self._crops[old]
        self._of_sources.forget(at - REACH_FRAMES)
        self._of_restored.forget(at - REACH_FRAMES)
        for a, b in [k for k in self._steps if k[0] <= at]:
            del self._steps[a, b]
        for old in [k for k in self._unsteadiness if k <= at - REACH_FRAMES]:
            del self._unsteadiness[old]

    def average(self, at: int, how: Deflicker) -> Average | None:
        """Return how the crop of frame `at` is stabilized; None where it stays as it is."""
        crop = self._crops.get(at)
        around = [s for s in range(at - REACH_FRAMES, at + self._ahead + 1) if s != at]
        steps = {s: self._step(at, s) for s in around if s in self._crops} if crop else {}
        if crop is None or not steps:
            return None
        wobble = self._wobble(at, steps) * np.float32(how.amount)
        neighbors = []
        for s, step in steps.items():
            near = how.amount * np.exp(-((s - at) ** 2) / (2 * _TIME_SIGMA_FRAMES**2))
            share = step.gate * np.float32(near)
            neighbors.append((self._crops[s].restored, step.flow, share, step.light))
        changed_all = crop.changed is None
        return Average(wobble, tuple(neighbors), how.amount * how.detail, changed_all)

    def _wobble(self, at: int, steps: dict[int, _Step]) -> FlowField:
        """Return (S, S, 2): how far the features of a crop are from where its neighbors have them.

        It is the mean over the neighbors, with "no wobble" among them, of the flow of restored
        crops less the flow of sources, times the confidence that this is not noise in the flow of
        the sources.
        """
        side = len(self._crops[at].source)
        apart = np.zeros((side, side, 2), np.float32)
        weight = np.full((side, side), _STILLNESS, np.float32)
        for step in steps.values():
            cv2.accumulateProduct(cv2.merge([step.gate, step.gate]), step.apart, apart)
            weight += step.gate
        apart /= cv2.merge([weight, weight])
        return blurred(apart, _WOBBLE_SIGMA_PX) * np.float32(self._confidence(at))

    def _confidence(self, at: int) -> float:
        """Return A_R^2 / (A_R^2 + A_S^2), A the median unsteadiness of restored crops and sources.

        The value is in [0, 1]: a restorer that is stable keeps its own motion, and the motion of a
        bad source is not followed.
        """
        near = range(at - REACH_FRAMES + 1, at + max(self._ahead, 1))
        unsteadiness = [self._unsteadiness_of(s) for s in near if self._has_both_neighbors(s)]
        if not unsteadiness:
            return 0.5
        restored, source = np.median(unsteadiness, axis=0)
        return float(restored / max(restored + source, 1e-9))

    def _has_both_neighbors(self, at: int) -> bool:
        return all(s in self._crops for s in (at - 1, at, at + 1))

    def _unsteadiness_of(self, at: int) -> tuple[float, float]:
        """Return the mean squared acceleration over the face, of restored crops and of sources."""
        if at not in self._unsteadiness:
            self._unsteadiness[at] = (
                _acceleration(self._of_restored, at),
                _acceleration(self._of_sources, at),
            )
        return self._unsteadiness[at]

    def _step(self, first: int, second: int) -> _Step:
        if (first, second) not in self._steps:
            a, b = self._crops[first], self._crops[second]
            side = len(a.source)
            there, back, restored_there, restored_back = (
                resized(flow, side)
                for flows in (self._of_sources, self._of_restored)
                for flow in (flows.between(first, second), flows.between(second, first))
            )
            self._steps[first, second] = _step(a, b, there, back, restored_there)
            self._steps[second, first] = _step(b, a, back, there, restored_back)
        return self._steps[first, second]


def _step(a: _Crop, b: _Crop, forward: FlowField, backward: FlowField, flow: FlowField) -> _Step:
    """Return how crop `a` leads to its neighbor `b`."""
    side = len(a.source)
    there = sample(b.source, forward)
    light = light_change(a.source, there)
    doubt = closing_error(forward, backward, side / 256)
    doubt += misfit(there, light, a.source) / np.float32(_SOURCE_TOLERANCE**2)
    doubt += misfit(sample(b.result, flow), light, a.result) / np.float32(_RESTORED_TOLERANCE**2)
    apart = flow - forward
    doubt += squared(apart) / np.float32((_WOBBLE_TOLERANCE_PX * side / 512) ** 2)
    doubt += doubt_by_light(a.source, there)
    gate = np.exp(-doubt)
    if b.changed is not None:
        gate *= sample(b.changed, forward)
    return _Step(flow, apart, gate, light)


def _acceleration(flows: TrackFlow, at: int) -> float:
    """Return the mean squared acceleration over the face in a frame with both neighbors."""
    change = blurred(flows.between(at, at + 1) + flows.between(at, at - 1), _WOBBLE_SIGMA_PX)
    return float(cv2.mean(squared(change), face_ellipse(len(change)).view(np.uint8))[0])


def _path(flow: FlowField, wobble: FlowField) -> FlowField:
    """Return the flow from a crop that is warped back by its wobble straight to the neighbor.

    The two displacements then cost one warp.
    """
    return np.asarray(sample(flow, -wobble) - wobble)


def _copied(crop: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(crop.numpy().copy()) if uses_opencv(crop.device) else crop.clone()


def _gray(luma: _Plane, guide: int) -> Grey:
    """Return a quarter of the guide's side, in which flow is estimated."""
    side = guide // 4
    small = cv2.resize(luma, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(np.clip(np.rint(small), 0, 255), np.uint8)


def _is_fine(luma: _Plane, guide: int) -> bool:
    """Return whether a picture shows detail that half the guide's side would not show.

    The octaves of a Laplacian pyramid decide (Burt and Adelson, 1983); the smallest pictures always
    do.
    """
    if guide == LEAST_GUIDE_PX:
        return True
    half = luma if len(luma) < guide else halved(luma)
    quarter = halved(half)
    finer, coarser = (
        float((large - cv2.resize(small, large.shape))[face_ellipse(len(large))].std())
        for large, small in ((half, quarter), (quarter, halved(quarter)))
    )
    return finer > _FINE * coarser

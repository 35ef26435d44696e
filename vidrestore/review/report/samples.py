"""Samples for a report: faces before and after, and the flicker of faces in some frames.

They are collected while vidrestore reads the finished file back.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from vidrestore.analysis.result import Analysis, is_woven
from vidrestore.analysis.tracks import Track
from vidrestore.common.handled import log_handled
from vidrestore.imaging.frame import Frame, VideoInfo
from vidrestore.imaging.geometry import Matrix, compose, crop_matrix, crop_side_px
from vidrestore.imaging.optical_flow import DenseFlow
from vidrestore.media.fields import earlier_field
from vidrestore.restoration.compositing.masks import crop_mask
from vidrestore.restoration.crop import cut_out
from vidrestore.restoration.statistics import STRETCH_FRAMES, RestorationStats
from vidrestore.review.metrics import Mask, Stack, blind_flicker, flows_between

MOST_PEOPLE = 8
"""Most people with a section of the report: those whose faces were restored in most frames."""
MOST_TRIPLES = 300
"""Most triples of consecutive frames of a face in which flicker is measured."""

_VIEWS_EACH, _APART = 3, 5
_SMALLEST_VIEW_PX, _LARGEST_VIEW_PX = 160, 512
_LARGEST_FILE, _JPEG_QUALITIES = 90_000, (90, 80, 65, 50, 30)
_SMALLEST_PX, _LARGEST_PX = 64, 256  # sides at which flicker is measured
# Blur before the flow, since there is no clean video, at a side of 512.
_FLOW_BLUR_PX = 1.5

Strengths = npt.NDArray[np.float64]
"""(n,) in [0, 1]: how much of the restored face was used in each frame of a track."""


@dataclass(frozen=True, slots=True)
class View:
    """A face in one frame, before and after."""

    person: int
    """Number of the person."""
    index: int
    """Index of the picture in the analysis."""
    side_px: int
    """Side of both crops, in pixels."""
    before: bytes
    """The face in the source, as a JPEG file."""
    after: bytes
    """The face in the output, as a JPEG file."""


class Flicker(NamedTuple):
    """The flicker of one face around one frame."""

    person: int
    """Number of the person."""
    frame: int
    """Index of the picture in the analysis."""
    source: float
    """Mean square of FLKb (`vidrestore.review.metrics`) of the source, in squared 8-bit levels."""
    output: float
    """Mean square of FLKb of the output, in squared 8-bit levels."""


def used_strength(track: Track, stats: RestorationStats, strength: float) -> Strengths:
    """Compute how much of the restored face was used, averaged over each stretch of the guard.

    Where the guard did not compare the face, the result is the strength that the analysis planned.

    Args:
        track: The track of the face, with n frames.
        stats: The statistics of the restoration.
        strength: The strength of all faces, in [0, 1].

    Returns:
        (n,) float64 in [0, 1].
    """
    used = track.strength.astype(np.float64) * strength
    if (stretches := stats.likeness.get(track.track_id)) is None:
        return used
    numbers = np.arange(track.first_frame, track.end_frame) // STRETCH_FRAMES
    first = int(numbers[0])
    planned = np.bincount(numbers - first, weights=used > 0)
    shares = [stretches[first + i].share if first + i in stretches else 0.0
              for i in range(len(planned))]  # fmt: skip
    share = np.minimum(1, np.divide(shares, planned, out=np.zeros_like(planned), where=planned > 0))
    return np.asarray(used * share[numbers - first], np.float64)


class _Crops(NamedTuple):
    """The crops (S, S, 3) of one face in source and output, and its mask (S, S)."""

    at: int
    source: Stack
    output: Stack
    mask: Mask


class SampleCollector:
    """Receives every frame of source and output, and takes samples from some of them.

    In interlaced video, the samples are taken from the lines of the earlier field. An error ends
    the collection, but not the run; `broken` has its text. For each visible face, the object keeps
    the crops of three frames, at most 5 MB, and all views as JPEG.
    """

    def __init__(
        self,
        analysis: Analysis,
        output_analysis: Analysis,
        stats: RestorationStats,
        strength: float,
    ) -> None:
        """Choose the frames for the samples.

        Args:
            analysis: The analysis that was restored.
            output_analysis: The same analysis in the pixels of the output, which may be larger.
            stats: The statistics of the restoration.
            strength: The strength of all faces, in [0, 1].
        """
        self._analysis, self._output_analysis = analysis, output_analysis
        self._step = 2 if is_woven(analysis) else 1
        self.people: list[int] = []
        """The people with the most restored faces, most first; at most `MOST_PEOPLE`."""
        self.unseen_people = 0
        """Number of further people with restored faces."""
        self.untouched_people = 0
        """Number of people without any restored face."""
        self.is_sample = False
        """Whether flicker is measured only in some of the possible frames."""
        self.views: list[View] = []
        """The faces before and after, in the order of the frames."""
        self.flicker: list[Flicker] = []
        """The flicker of faces, in the order of the frames."""
        self.broken: str | None = None
        """The error that ended the collection; None without one."""
        self._views: Mapping[int, list[int]] = {}
        self._middles: set[tuple[int, int]] = set()
        self._around: dict[int, set[int]] = {}
        self._recent: dict[int, deque[_Crops]] = {}
        self._flow = DenseFlow()
        with self._errors_caught():
            self._plan(stats, strength)

    def _plan(self, stats: RestorationStats, strength: float) -> None:
        tracks = self._analysis.tracks
        used = [used_strength(track, stats, strength) for track in tracks]
        restored = _most_restored(tracks, used)
        self.people = restored[:MOST_PEOPLE]
        self.unseen_people = len(restored) - len(self.people)
        self.untouched_people = len({track.person_id for track in tracks}) - len(restored)
        self._views = _planned_views(tracks, used, self.people, self._step)
        triples = _triples(tracks, used, self._step)
        chosen = np.linspace(0, len(triples) - 1, min(len(triples), MOST_TRIPLES)).round()
        self._middles = {(int(at), int(place)) for at, place in triples[chosen.astype(int)]}
        self.is_sample = len(self._middles) < len(triples)
        for at, place in self._middles:
            for near in (at - 1, at, at + 1):
                self._around.setdefault(near, set()).add(place)

    def __call__(self, was: Frame, now: Frame) -> None:
        """Take the samples of one frame.

        Args:
            was: The frame of the source, or of the base of the output.
            now: The same frame of the output.
        """
        if self.broken is None:
            with self._errors_caught():
                self._add_samples(was, now)

    @contextmanager
    def _errors_caught(self) -> Iterator[None]:
        """Keep any error in `broken`, since the output is whole and the run must not fail."""
        try:
            yield
        except Exception as error:
            log_handled(error)
            self.broken = f"{type(error).__name__}: {error}"

    def _add_samples(self, was: Frame, now: Frame) -> None:
        at = now.index
        views, around = self._views.get(at, ()), self._around.get(at, ())
        if not views and not around:
            return
        # The pictures of a plate or of the enlarged source have the size of the output's. Where a
        # network enlarges them, those of the source are smaller.
        size = self._output_analysis.info.width, self._output_analysis.info.height
        has_output_size = (was.image.width, was.image.height) == size
        source = self._tracked(was, self._output_analysis if has_output_size else self._analysis)
        output = self._tracked(now, self._output_analysis)
        for place in views:
            self._view(source, output, at, place)
        for place in around:
            self._follow(source, output, at, place)

    def _tracked(self, frame: Frame, analysis: Analysis) -> _Tracked:
        if self._step == 1 or (fields := self._analysis.fields) is None:
            return _Tracked(frame, analysis.info, analysis.tracks)
        return _earlier_field(frame, self._analysis.info, fields.order, self._analysis.tracks)

    def _view(self, source: _Tracked, output: _Tracked, at: int, place: int) -> None:
        track, index = self._analysis.tracks[place], at * self._step
        row = index - track.first_frame
        analysis = self._output_analysis if self._step == 1 else self._analysis
        side = round(crop_side_px(analysis.tracks[place].matrices[row]))
        side_px = min(max(side, _SMALLEST_VIEW_PX), _LARGEST_VIEW_PX)
        crops = [picture.crop(place, index, side_px) for picture in (source, output)]
        before, after = crops
        if before is not None and after is not None:
            view = View(track.person_id, index, side_px, _jpeg(before), _jpeg(after))
            self.views.append(view)

    def _follow(self, source: _Tracked, output: _Tracked, at: int, place: int) -> None:
        track = self._analysis.tracks[place]
        side = min(max(track.work_px, _SMALLEST_PX), _LARGEST_PX)
        own, other = (each.crop(place, at * self._step, side) for each in (source, output))
        for gone in [i for i, crops in self._recent.items() if crops[-1].at < at - 1]:
            del self._recent[gone]
        if own is None or other is None:
            self._recent.pop(place, None)
            return
        crops = self._recent.setdefault(place, deque(maxlen=3))
        crops.append(_Crops(at, own, other, source.mask(place, at * self._step, side)))
        if len(crops) < 3 or (at - 1, place) not in self._middles:
            return
        pictures = [np.stack([getattr(c, role) for c in crops]) for role in ("source", "output")]
        flows = flows_between(pictures[0], self._flow, blur_px=_FLOW_BLUR_PX)
        mask = np.stack([c.mask for c in crops])
        squares = [float(blind_flicker(p, pictures[0], flows, mask)[0]) for p in pictures]
        if np.isfinite(squares).all():
            self.flicker.append(Flicker(track.person_id, (at - 1) * self._step, *squares))


@dataclass(frozen=True, slots=True, eq=False)
class _Tracked:
    """A picture, and the tracks of the faces in it."""

    frame: Frame
    info: VideoInfo
    tracks: Sequence[Track]
    to_whole: Matrix | None = None
    """(2, 3) matrix, pixels of the picture -> pixels of the frame that `tracks` refer to; (x, y),
    integer coordinates are pixel centers. None: they are the same."""

    def crop(self, place: int, index: int, side: int) -> Stack | None:
        """Return (side, side, 3) R'G'B' in [0, 1]; None where the face is outside the frame."""
        unit = self._unit(place, index)
        crop = cut_out(self.frame, unit, self.info, side, torch.device("cpu"))
        return None if crop is None else np.ascontiguousarray(crop.permute(1, 2, 0).numpy())

    def mask(self, place: int, index: int, side: int) -> Mask:
        """Return (side, side) in [0, 1]."""
        return crop_mask(crop_matrix(self._unit(place, index), side), side, self.info)

    def _unit(self, place: int, index: int) -> Matrix:
        track = self.tracks[place]
        unit = track.matrices[index - track.first_frame].astype(np.float64)
        return unit if self.to_whole is None else compose(unit, self.to_whole)


def _earlier_field(frame: Frame, info: VideoInfo, order: str, tracks: Sequence[Track]) -> _Tracked:
    """Return the lines of the earlier field: every second line from the first or the second."""
    first = 0 if order == "tff" else 1
    half = earlier_field(frame.image, order)
    to_whole = np.array([[1.0, 0, 0], [0, 2.0, first]])
    return _Tracked(replace(frame, image=half), replace(info, height=half.height), tracks, to_whole)


def _most_restored(tracks: Sequence[Track], used: Sequence[Strengths]) -> list[int]:
    frames = Counter[int]()
    for track, strength in zip(tracks, used, strict=True):
        frames[track.person_id] += int(np.count_nonzero(strength))
    order = sorted(frames, key=lambda person: (-frames[person], person))
    return [person for person in order if frames[person]]


def _planned_views(
    tracks: Sequence[Track], used: Sequence[Strengths], people: Sequence[int], step: int
) -> Mapping[int, list[int]]:
    """Map frames of the output to indices of tracks of which views are made.

    All frames of a person are divided into parts of equal length. Each part gives the frame with
    the largest product of the size of the face and the used strength.
    """
    planned: dict[int, list[int]] = {}
    for person in people:
        parts = []
        for place, track in enumerate(tracks):
            if track.person_id != person:
                continue
            indices = np.arange(track.first_frame, track.end_frame)
            sides = np.abs(np.linalg.det(track.matrices[:, :, :2].astype(np.float64))) ** -0.5
            weights = used[place] * sides * np.where(track.detected, 1, 0.5)
            usable = (indices % step == 0) & (weights > 0)
            parts.append(np.stack([indices, np.full(len(indices), place), weights])[:, usable])
        rows = np.concatenate(parts, axis=1)
        rows = rows[:, np.argsort(rows[0], kind="stable")]
        count = rows.shape[1]
        edges = np.linspace(0, count, min(_VIEWS_EACH, count) + 1).astype(int)
        for a, b in pairwise(edges):
            margin = (b - a) // _APART  # frames next to the same edge would look alike
            a, b = a + margin, b - margin
            index, place, _ = rows[:, a + int(np.argmax(rows[2, a:b]))]
            planned.setdefault(int(index) // step, []).append(int(place))
    return planned


def _triples(
    tracks: Sequence[Track], used: Sequence[Strengths], step: int
) -> npt.NDArray[np.int64]:
    """Return (n, 2) frame of the output and index of the track, track by track.

    Each frame is one whose face is restored, as are those in the frames before and after it.
    """
    parts = [np.zeros((0, 2), np.int64)]
    for place, track in enumerate(tracks):
        indices = track.first_frame + np.flatnonzero(used[place] > 0)
        frames = indices[indices % step == 0] // step
        middles = frames[1:-1][(frames[2:] - frames[:-2]) == 2]
        parts.append(np.stack([middles, np.full(len(middles), place)], axis=1))
    return np.concatenate(parts)


def _jpeg(rgb: Stack) -> bytes:
    """Encode a JPEG file with the best quality that `_LARGEST_FILE` allows."""
    bgr = np.rint(255 * rgb[..., ::-1]).astype(np.uint8)
    for quality in _JPEG_QUALITIES:
        _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if len(data) <= _LARGEST_FILE:
            break
    return data.tobytes()

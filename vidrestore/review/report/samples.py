"""Samples for a report: faces before and after, and measures of some faces.

They are collected while vidrestore reads the finished file back.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import av
import cv2
import numpy as np
import torch

from vidrestore.analysis.result import Analysis, is_woven
from vidrestore.analysis.tracks import Track
from vidrestore.common.handled import log_handled
from vidrestore.imaging.frame import Frame, VideoInfo
from vidrestore.imaging.geometry import (
    Matrix,
    Rect,
    apply,
    compose,
    covering_rect,
    crop_matrix,
    crop_side_px,
    invert,
    unit_corners,
)
from vidrestore.imaging.optical_flow import DenseFlow
from vidrestore.imaging.planes import chroma_rect, layout, plane
from vidrestore.media.fields import earlier_field
from vidrestore.restoration.compositing.masks import crop_mask
from vidrestore.restoration.crop import cut_out
from vidrestore.restoration.statistics import RestorationStats
from vidrestore.review.contact_sheet import readable, readable_exponent
from vidrestore.review.metrics import (
    Mask,
    Stack,
    blind_flicker,
    confident_mask,
    flows_between,
    sharpness,
)
from vidrestore.review.report.sampling import (
    Allowed,
    Places,
    Sample,
    Strengths,
    chosen_sample,
    planned_portraits,
    planned_views,
    stretches,
    triples,
    used_strength,
)

MOST_PEOPLE = 8
"""Most people with a section of the report: those whose faces were restored in most frames."""
MOST_FACES = 300
"""Most faces in which flicker is measured, each with those of the frames before and after it."""
MOST_DETAILS = 75
"""Most faces in which fine detail is measured."""
MOST_WORST = 2
"""Most moments that are shown as the worst of one aspect."""

WORST_APART_SECONDS = 2.0
"""Least time between two of them that show one person, in seconds."""

_LEAST_EACH = 12
# Faces that are measured where the output is read in parts, which has its own cost.
_MOST_FACES_OF_PARTS = 150
_PORTRAIT_PX = 160
_SMALLEST_VIEW_PX, _LARGEST_VIEW_PX = 160, 512
_LARGEST_FILE, _JPEG_QUALITIES = 90_000, (90, 80, 65, 50, 30)
# Sides at which flicker is measured, and the largest for detail, as in `evaluate`.
_SMALLEST_PX, _LARGEST_PX, _LARGEST_DETAIL_PX = 64, 256, 512
# Blur before the flow, since there is no clean video, at a side of 512.
_FLOW_BLUR_PX = 1.5
# Pixels around a crop that its resampling reads, and the least reduction that saves time.
_MARGIN_PX, _LEAST_REDUCTION = 8, 0.75
# Candidates for the worst moments, of which the last choice leaves out neighbors.
_MOST_CANDIDATES = 12


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
    is_brightened: bool = False
    """Whether both are brighter than the face is, by one curve, since it is too dark to see."""


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
    weight: float = 1.0
    """The share of all faces for which this one stands."""


class Detail(NamedTuple):
    """The fine detail of one face in one frame."""

    person: int
    """Number of the person."""
    frame: int
    """Index of the picture in the analysis."""
    share: float
    """SHP (`vidrestore.review.metrics`): the detail of the output, relative to the source's."""
    weight: float
    """The share of all faces for which this one stands."""


class Moment(NamedTuple):
    """A face that was measured, with its pictures."""

    loss: float
    """How much worse the face became, in the unit of its measure; the largest is the worst."""
    value: tuple[float, float]
    """The measure of the source and of the output."""
    view: View
    """The pictures of the face."""


class _Crops(NamedTuple):
    """The crops (S, S, 3) of one face in source and output."""

    at: int
    source: Stack
    output: Stack


class SampleCollector:
    """Receives frames of source and output, and takes samples from some of them.

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
        *,
        segments: Sequence[tuple[int, int]] | None = None,
        worst_likeness: Places | None = None,
    ) -> None:
        """Choose the frames for the samples.

        Args:
            analysis: The analysis that was restored.
            output_analysis: The same analysis in the pixels of the output, which may be larger.
            stats: The statistics of the restoration.
            strength: The strength of all faces, in [0, 1].
            segments: [first, end) of each segment of the output, in its frames, where the output is
                read in parts; None: it is read in full.
            worst_likeness: The faces that are least like the source, which are shown; None: none.
        """
        self._analysis, self._output_analysis = analysis, output_analysis
        self._step = 2 if is_woven(analysis) else 1
        self.stretches: Sequence[tuple[int, int]] = ()
        """[first, end) of the parts of the output to read, in its frames, where it is read in
        parts."""
        self.people: list[int] = []
        """The people with the most restored faces, most first; at most `MOST_PEOPLE`."""
        self.unseen_people = 0
        """Number of further people with restored faces."""
        self.untouched_people = 0
        """Number of people without any restored face."""
        self.population = 0
        """Number of faces whose flicker could be measured."""
        self.is_sample = False
        """Whether flicker is measured only in some of them."""
        self.views: list[View] = []
        """The faces before and after, in the order of the frames."""
        self.portraits: dict[int, bytes] = {}
        """Number of a person -> the clearest face of the person in the source, as a JPEG file."""
        self.flicker: list[Flicker] = []
        """The flicker of faces, in the order of the frames."""
        self.details: list[Detail] = []
        """The detail of faces, in the order of the frames."""
        self.least_like: list[View] = []
        """The faces that are least like the source, in the order of the frames."""
        self.broken: str | None = None
        """The error that ended the collection; None without one."""
        self._views: Mapping[int, list[int]] = {}
        self._portraits: Mapping[int, list[int]] = {}
        self._least_like: dict[int, list[int]] = {}
        self._middles: dict[tuple[int, int], float] = {}
        self._detailed: dict[tuple[int, int], float] = {}
        self._around: dict[int, set[int]] = {}
        self._recent: dict[int, deque[_Crops]] = {}
        self._flow = DenseFlow()
        self._worst: dict[str, list[Moment]] = {"flicker": [], "detail": []}
        with self._errors_caught():
            self._plan(stats, strength, segments, worst_likeness)

    def _plan(
        self,
        stats: RestorationStats,
        strength: float,
        segments: Sequence[tuple[int, int]] | None,
        worst_likeness: Places | None,
    ) -> None:
        tracks, step = self._analysis.tracks, self._step
        used = [used_strength(track, stats, strength) for track in tracks]
        restored = _most_restored(tracks, used)
        self.people = restored[:MOST_PEOPLE]
        self.unseen_people = len(restored) - len(self.people)
        self.untouched_people = len({track.person_id for track in tracks}) - len(restored)
        allowed, most = None, MOST_FACES
        if segments is not None:
            self.stretches = stretches(
                segments, tracks, used, step, is_damaged=self._analysis.one_thread
            )
            allowed, most = _frames_in(self.stretches, segments[-1][1]), _MOST_FACES_OF_PARTS
        self._views = planned_views(tracks, used, self.people, step, allowed)
        self._portraits = planned_portraits(tracks, self.people, step, allowed)
        for at, place in np.zeros((0, 2), int) if worst_likeness is None else worst_likeness:
            if allowed is None or allowed[at]:
                self._least_like.setdefault(int(at), []).append(int(place))
        self.population = len(triples(tracks, used, step, None))
        self._plan_measures(triples(tracks, used, step, allowed), most)

    def _plan_measures(self, places: Places, most: int) -> None:
        people = [track.person_id for track in self._analysis.tracks]
        sample = chosen_sample(places, people, most=most, shown=self.people, least_each=_LEAST_EACH)
        self.is_sample = len(sample.places) < self.population
        self._middles = _by_place(sample)
        for at, place in self._middles:
            for near in (at - 1, at, at + 1):
                self._around.setdefault(near, set()).add(place)
        fewer = chosen_sample(sample.places, people, most=min(most, MOST_DETAILS))
        self._detailed = {place: self._middles[place] for place in _by_place(fewer)}

    def __call__(self, was: Frame, now: Frame) -> None:
        """Take the samples of one frame.

        Args:
            was: The frame of the source, or of the base of the output.
            now: The same frame of the output.
        """
        if self.broken is None:
            with self._errors_caught():
                self._add_samples(was, now)

    def worst(self, aspect: str) -> list[Moment]:
        """Return the moments at which an aspect became worse.

        Args:
            aspect: "flicker" or "detail".

        Returns:
            At most `MOST_WORST`, the worst first; two of one person are 2 s apart or more.
        """
        found: list[Moment] = []
        for moment in sorted(self._worst[aspect], key=lambda moment: -moment.loss):
            if len(found) < MOST_WORST and not any(self._is_near(moment, one) for one in found):
                found.append(moment)
        return found

    def _is_near(self, one: Moment, other: Moment) -> bool:
        pts, clock = self._analysis.pts, float(self._analysis.info.time_base)
        apart = abs(int(pts[one.view.index] - pts[other.view.index])) * clock
        return one.view.person == other.view.person and apart < WORST_APART_SECONDS

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
        portraits, least_like = self._portraits.get(at, ()), self._least_like.get(at, ())
        if not (views or around or portraits or least_like):
            return
        # The pictures of a plate or of the enlarged source have the size of the output's. Where a
        # network enlarges them, those of the source are smaller.
        size = self._output_analysis.info.width, self._output_analysis.info.height
        has_output_size = (was.image.width, was.image.height) == size
        source = self._tracked(was, self._output_analysis if has_output_size else self._analysis)
        output = self._tracked(now, self._output_analysis)
        for place in views:
            self.views += self._view(source, output, at, place)
        for place in least_like:
            self.least_like += self._view(source, output, at, place)
        for place in portraits:
            crop = source.crop(place, at * self._step, _PORTRAIT_PX)
            if crop is not None:
                self.portraits[self._analysis.tracks[place].person_id] = _jpeg(readable(crop))
        for place in around:
            self._follow(source, output, at, place)

    def _tracked(self, frame: Frame, analysis: Analysis) -> _Tracked:
        if self._step == 1 or (fields := self._analysis.fields) is None:
            return _Tracked(frame, analysis.info, analysis.tracks)
        return _earlier_field(frame, self._analysis.info, fields.order, self._analysis.tracks)

    def _view(self, source: _Tracked, output: _Tracked, at: int, place: int) -> list[View]:
        index = at * self._step
        row = index - self._analysis.tracks[place].first_frame
        analysis = self._output_analysis if self._step == 1 else self._analysis
        side = round(crop_side_px(analysis.tracks[place].matrices[row]))
        side_px = min(max(side, _SMALLEST_VIEW_PX), _LARGEST_VIEW_PX)
        before, after = (picture.crop(place, index, side_px) for picture in (source, output))
        if before is None or after is None:
            return []
        return [self._view_of(place, index, before, after)]

    def _view_of(self, place: int, index: int, before: Stack, after: Stack) -> View:
        person = self._analysis.tracks[place].person_id
        exponent = readable_exponent(before)
        was, now = (_jpeg(each if exponent == 1 else each**exponent) for each in (before, after))
        return View(person, index, len(before), was, now, is_brightened=exponent != 1)

    def _follow(self, source: _Tracked, output: _Tracked, at: int, place: int) -> None:
        index = at * self._step
        side = max(self._analysis.tracks[place].work_px, _SMALLEST_PX)
        if (weight := self._detailed.get((at, place))) is not None:
            large = min(side, _LARGEST_DETAIL_PX)
            before, after = (each.crop(place, index, large) for each in (source, output))
            if before is not None and after is not None:
                self._add_detail(before, after, source.mask(place, index, large), place, index,
                                 weight)  # fmt: skip
        side = min(side, _LARGEST_PX)
        before, after = (each.crop(place, index, side) for each in (source, output))
        for gone in [i for i, crops in self._recent.items() if crops[-1].at < at - 1]:
            del self._recent[gone]
        if before is None or after is None:
            self._recent.pop(place, None)
            return
        crops = self._recent.setdefault(place, deque(maxlen=3))
        crops.append(_Crops(at, before, after))
        weight = self._middles.get((at - 1, place))
        if weight is not None and [each.at for each in crops] == [at - 2, at - 1, at]:
            middle = index - self._step
            self._add_flicker(crops, source.mask(place, middle, side), place, middle, weight)

    def _add_detail(
        self, before: Stack, after: Stack, mask: Mask, place: int, index: int, weight: float
    ) -> None:
        share = float(sharpness(after[None], before[None], mask)[0])
        if not np.isfinite(share):
            return
        person = self._analysis.tracks[place].person_id
        self.details.append(Detail(person, index, share, weight))
        self._note("detail", 1 - share, (1.0, share), place, index, before, after)

    def _add_flicker(
        self, crops: Sequence[_Crops], mask: Mask, place: int, index: int, weight: float
    ) -> None:
        source, output = (
            np.stack([getattr(each, role) for each in crops]) for role in ("source", "output")
        )
        flows = flows_between(source, self._flow, blur_px=_FLOW_BLUR_PX)
        weights = confident_mask(source, flows, mask)
        squares = [
            float(blind_flicker(each, source, flows, mask, weights=weights)[0])
            for each in (source, output)
        ]
        if not np.isfinite(squares).all():
            return
        person = self._analysis.tracks[place].person_id
        self.flicker.append(Flicker(person, index, squares[0], squares[1], weight))
        levels = squares[0] ** 0.5, squares[1] ** 0.5
        self._note("flicker", levels[1] - levels[0], levels, place, index, source[1], output[1])

    def _note(
        self,
        aspect: str,
        loss: float,
        value: tuple[float, float],
        place: int,
        index: int,
        before: Stack,
        after: Stack,
    ) -> None:
        """Keep the pictures of a face that became worse, while few are worse than it."""
        moments = self._worst[aspect]
        is_full = len(moments) >= _MOST_CANDIDATES
        if loss <= 0 or (is_full and loss <= min(moment.loss for moment in moments)):
            return
        if is_full:
            moments.remove(min(moments, key=lambda moment: moment.loss))
        moments.append(Moment(loss, value, self._view_of(place, index, before, after)))


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
        part = _reduced(self.frame, self._unit(place, index), self.info, side)
        crop = cut_out(*part, side, torch.device("cpu"))
        return None if crop is None else np.asarray(cv2.merge(list(crop.numpy())))

    def mask(self, place: int, index: int, side: int) -> Mask:
        """Return (side, side) in [0, 1]."""
        return crop_mask(crop_matrix(self._unit(place, index), side), side, self.info)

    def _unit(self, place: int, index: int) -> Matrix:
        track = self.tracks[place]
        unit = track.matrices[index - track.first_frame].astype(np.float64)
        return unit if self.to_whole is None else compose(unit, self.to_whole)


def _reduced(
    frame: Frame, unit: Matrix, info: VideoInfo, side: int
) -> tuple[Frame, Matrix, VideoInfo]:
    """Reduce the part of a frame around a face to the scale of its crop, by areas.

    The time for the crop then does not depend on the size of the picture. Smaller faces stay as
    they are.

    Convention:
        `unit` is frame pixel centers (x, y) -> unit crop, as is the matrix of the result for the
        pixels of its frame.
    """
    grid = layout(frame.image).grid
    scale = side / crop_side_px(unit)
    rect = covering_rect(
        apply(invert(unit), unit_corners()), info, grid=grid, margin_px=round(_MARGIN_PX / scale)
    )
    if scale > _LEAST_REDUCTION or rect.is_empty:
        return frame, unit, info
    width, height = (
        max(1, round(length * scale / each)) * each
        for length, each in zip((rect.width, rect.height), grid, strict=True)
    )
    small = av.VideoFrame(width, height, frame.image.format.name)
    for number in range(len(small.planes)):
        own = rect if number not in (1, 2) else chroma_rect(rect, grid)
        into = plane(small, number)
        part = plane(frame.image, number)[own.y0 : own.y1, own.x0 : own.x1]
        into[...] = cv2.resize(part, into.shape[::-1], interpolation=cv2.INTER_AREA)
    return (
        replace(frame, image=small),
        compose(unit, _from_reduced(rect, width, height)),
        replace(info, width=width, height=height),
    )


def _from_reduced(rect: Rect, width: int, height: int) -> Matrix:
    """Return the matrix, pixel centers of a reduced part -> pixel centers of the frame."""
    across, down = rect.width / width, rect.height / height
    return np.array([[across, 0, rect.x0 + across / 2 - 0.5], [0, down, rect.y0 + down / 2 - 0.5]])


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


def _frames_in(parts: Sequence[tuple[int, int]], count: int) -> Allowed:
    allowed = np.zeros(count, np.bool_)
    for first, end in parts:
        allowed[first:end] = True
    return allowed


def _by_place(sample: Sample) -> dict[tuple[int, int], float]:
    """Map (frame of the output, index of the track) to the weight."""
    return {
        (int(at), int(place)): float(weight)
        for (at, place), weight in zip(sample.places, sample.weights, strict=True)
    }


def _jpeg(rgb: Stack) -> bytes:
    """Encode a JPEG file with the best quality that `_LARGEST_FILE` allows."""
    bgr = np.rint(255 * rgb[..., ::-1]).astype(np.uint8)
    for quality in _JPEG_QUALITIES:
        _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if len(data) <= _LARGEST_FILE:
            break
    return data.tobytes()

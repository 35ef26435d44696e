"""The verification of a finished file: it is decoded and compared with its source.

PSNR = 10 log10(peak^2 / MSE) with peak = 2^bits - 1. MSE is the mean of the squared errors of all
samples of all frames, not a mean over decibels. Each plane weighs by its number of samples, as in
ffmpeg's `psnr` filter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import av
import av.error
import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.analysis.replay import frames_again
from vidrestore.analysis.result import Analysis
from vidrestore.analysis.tracks import Track
from vidrestore.common.counting import counted
from vidrestore.common.errors import ChangedSourceError, FaultyOutputError, InputError
from vidrestore.common.events import OnEvent, Progress
from vidrestore.common.settings import Extent
from vidrestore.common.threads import StageThreads
from vidrestore.imaging.frame import Frame, VideoInfo
from vidrestore.imaging.geometry import Rect, crop_matrix
from vidrestore.imaging.planes import Layout, chroma_rect, layout, plane
from vidrestore.media.decode import DecodeErrors, TimeRange, decode
from vidrestore.media.framemd5 import Listing, frame_md5
from vidrestore.restoration.compositing.masks import mask_rect

_DEPTH = 4  # frames by which each of the two decoders may run ahead
Larger = Callable[[av.VideoFrame], av.VideoFrame]
"""Enlarges a picture of the source to the size of the output, or gives it the planes of color that
the output has."""
_UNCHANGED, _NOT_COMPARED = "----", "????"


class SampleCollector(Protocol):
    """Takes samples of frames of the output and of its source."""

    @property
    def stretches(self) -> Sequence[tuple[int, int]]:
        """[first, end) of the parts to read, in frames of the output, where it is read in parts."""
        ...

    def __call__(self, was: Frame, now: Frame) -> None:
        """Receive a frame.

        Args:
            was: The frame of the source, enlarged where the output is.
            now: The same frame of the output.
        """
        ...


@dataclass(frozen=True, slots=True)
class Verification:
    """The differences between the output and its source; count and times of frames always agree.

    Values about samples are None where `not_compared` tells why the samples were not compared.
    A sample is "outside" if it is in the box of no face, so that pasting cannot change it.
    """

    frames: int
    """The number of frames."""
    identical_frames: int | None
    """The number of frames in which no sample differs."""
    identical_outside: int | None
    """The number of frames in which no sample outside the faces differs."""
    psnr_outside_db: float | None
    """The PSNR of the samples of all planes outside the faces, in decibels; None also where none
    differs."""
    luma_psnr_outside_db: float | None
    """The PSNR of the luma samples outside the faces, in decibels; None also where none differs,
    and for R'G'B' planes."""
    worst_frame: int | None
    """The index, from 0, of the frame with the lowest PSNR outside the faces; None also where no
    sample differs."""
    worst_frame_psnr_db: float | None
    """The PSNR outside the faces in `worst_frame`, in decibels; None also where no sample
    differs."""
    not_compared: str | None = None
    """The reason why the samples were not compared, in words; None: they were compared."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without infinity and NaN."""
        return asdict(self)


class _Read(NamedTuple):
    """A decoded frame."""

    frame: Frame
    md5: str
    """The hash of the samples of all planes; empty where there is no listing."""
    form: str
    """The size and pixel format of the samples that `md5` hashes."""


def check_output(
    source: Path,
    output: Path,
    analysis: Analysis,
    *,
    stream_index: int,
    span: TimeRange | None,
    strength: float,
    extent: Extent = "face",
    larger: Larger | None = None,
    listing: Listing | None = None,
    collector: SampleCollector | None = None,
    on_event: OnEvent | None = None,
) -> Verification:
    """Decode a finished file and its source again, and compare them frame by frame.

    Every frame must have the time of its source frame, counted from the first frame where `span`
    is given. The times must be equal where the time base of the output can represent the time;
    otherwise they may differ by one tick of it.

    Args:
        source: The video whose frames the output has.
        output: The finished file.
        analysis: The analysis of `source`; with `larger`, for pictures of the enlarged size.
        stream_index: The index of the restored stream in `output`.
        span: The part of the source that the output holds; None: all of it.
        strength: The strength of all pasting, 0 to 1. It scales the strength of each track; where
            the product is 0, pasting changes nothing.
        extent: What was pasted; default: the face.
        larger: Enlarges the pictures of the source to the size of the output; None: no change.
        listing: Receives one line for each frame, and is finished at the end; None: none.
        collector: Receives each pair of frames; None: none.
        on_event: Receives the progress, as the stage "check"; None: none.

    Returns:
        The differences.

    Raises:
        FaultyOutputError: The output has another count of frames or other times, or cannot be
            decoded without errors.
        ChangedSourceError: The source does not decode to the frames of the analysis.
    """
    damage, begin, n = DecodeErrors(), None, analysis.frame_count
    wanted = listing is not None
    readers = {
        "decode source": _hashed(frames_again(source, analysis, span), wanted, larger),
        "decode output": _hashed(_read_back(output, stream_index, damage), wanted),
    }
    with StageThreads() as threads:
        comparison = _Comparison(analysis, (strength, extent), listing)
        reads = (
            threads.background(read, depth=_DEPTH, name=name) for name, read in readers.items()
        )
        for index, (was, now) in enumerate(zip_longest(*reads)):
            _check_source(index, was, analysis, source)
            if now is None:
                raise _mismatch(f"holds {counted(index, 'frame')} instead of {n}")
            if was is None:
                raise _mismatch(f"holds more than {counted(n, 'frame')}")
            begin = begin or (now.frame if span is not None else None)
            _check_time(index, now.frame, analysis, 0, begin)
            comparison.add(was, now)
            if collector is not None:
                collector(was.frame, now.frame)
            if on_event is not None:
                on_event(Progress("check", index + 1, n))
        _check_source(comparison.frames, None, analysis, source)
        if damage.decode_errors or damage.corrupt_frames or damage.fitted_frames:
            raise _mismatch("cannot be decoded without errors")
    if listing is not None:
        listing.finish()
    return comparison.result()


def read_samples(
    source: Path,
    output: Path,
    analysis: Analysis,
    collector: SampleCollector,
    *,
    stream_index: int,
    span: TimeRange | None,
    larger: Larger | None = None,
    on_event: OnEvent | None = None,
) -> None:
    """Read only those parts of a finished file and its source that a collector takes samples of.

    Args:
        source: The video whose frames the output has.
        output: The finished file.
        analysis: The analysis of `source`, as for `check_output`.
        collector: Names the parts, and receives each pair of frames.
        stream_index: The index of the restored stream in `output`.
        span: The part of the source that the output holds; None: all of it.
        larger: Enlarges the pictures of the source to the size of the output; None: no change.
        on_event: Receives the progress, as the stage "check"; None: none.

    Raises:
        FaultyOutputError: The output has other times, or cannot be decoded without errors.
        ChangedSourceError: The source does not decode to the frames of the analysis.
    """
    parts, done = collector.stretches, 0
    wanted = sum(end - first for first, end in parts)
    for first, end in parts:
        damage, begin = DecodeErrors(), None
        was_frames = frames_again(source, analysis, span, first=first, end=end)
        now_frames = _part_of_output(output, analysis, first, stream_index, damage)
        for index, was, now in zip(range(first, end), was_frames, now_frames, strict=False):
            begin = begin or (now if span is not None else None)
            _check_time(index, now, analysis, first, begin)
            image = was.image if larger is None else larger(was.image)
            collector(replace(was, image=image), replace(now, index=index))
            done += 1
            if on_event is not None:
                on_event(Progress("check", done, wanted))
        if damage.decode_errors or damage.corrupt_frames:
            raise _mismatch("cannot be decoded without errors")
    if done < wanted:
        raise _mismatch(f"lacks {counted(wanted - done, 'frame')} of those that were read")


def _part_of_output(
    output: Path, analysis: Analysis, first: int, stream_index: int, damage: DecodeErrors
) -> Iterator[Frame]:
    """Decode the output from frame `first` on."""
    begin, clock = int(analysis.pts[0]), analysis.info.time_base
    span = None
    if first > 0:  # from the middle between two frames, since the output may round times
        between = Fraction(int(analysis.pts[first - 1]) + int(analysis.pts[first]), 2) - begin
        span = TimeRange(between * clock)
    try:
        yield from decode(
            output, damage, span, stream_index=stream_index, one_thread=True, may_seek=True
        )
    except (InputError, av.error.FFmpegError) as error:
        raise _mismatch(f"cannot be read: {error}") from error


def _read_back(output: Path, stream_index: int, damage: DecodeErrors) -> Iterator[Frame]:
    """Decode the output; raise FaultyOutputError where that fails.

    One thread decodes: with several, libav may give a frame out before it has marked it as corrupt.
    """
    try:
        yield from decode(output, damage, stream_index=stream_index, one_thread=True)
    except (InputError, av.error.FFmpegError) as error:
        raise _mismatch(f"cannot be read: {error}") from error


def _hashed(frames: Iterator[Frame], wanted: bool, larger: Larger | None = None) -> Iterator[_Read]:
    """Hash each frame if that is wanted, and enlarge it afterwards."""
    for frame in frames:
        image = frame.image
        form = f"{image.width}x{image.height} {image.format.name}"
        md5 = frame_md5(image) if wanted else ""
        yield _Read(replace(frame, image=larger(image)) if larger else frame, md5, form)


def _check_source(index: int, was: _Read | None, analysis: Analysis, source: Path) -> None:
    """Raise ChangedSourceError where a source frame has another time than in its analysis."""
    expected = int(analysis.pts[index]) if index < analysis.frame_count else None
    if (was.frame.pts if was else None) != expected:
        raise ChangedSourceError(
            f"{source} no longer gives the {counted(analysis.frame_count, 'frame')} of its "
            "analysis; the file has changed meanwhile or cannot be read reliably"
        )


def _mismatch(what: str) -> FaultyOutputError:
    return FaultyOutputError(f"the finished file {what}; nothing was changed")


def _check_time(
    index: int, frame: Frame, analysis: Analysis, first: int, begin: Frame | None
) -> None:
    """Check the time of frame `index` of the output, counted from `begin`, frame `first` of it, if
    that is given.
    """
    # `decode` repairs a missing or repeated time, so only the time of the image shows the fault.
    pts, clock = frame.image.pts, Fraction(frame.image.time_base or 0)
    if pts is None or not clock:
        raise _mismatch(f"has no time for frame {index}")
    starts = (0, 0) if begin is None else (int(analysis.pts[first]), begin.image.pts or 0)
    wanted = (int(analysis.pts[index]) - starts[0]) * analysis.info.time_base
    error = abs((pts - starts[1]) * clock - wanted)
    has_tick = (wanted / clock).denominator == 1
    if error > (0 if has_tick else clock):
        off = f"{float(error * 1000):.4g} ms off its time of {float(wanted):.6f} s"
        raise _mismatch(f"has frame {index} {off}")


class _Comparison:
    """Adds up the differences of all frames, and writes a line for each into the listing."""

    def __init__(
        self, analysis: Analysis, pasted: tuple[float, Extent], lines: Listing | None
    ) -> None:
        """Begin; `pasted` is the strength of all pasting and what was pasted."""
        self._analysis, self._lines = analysis, lines
        self._strength, self._extent = pasted
        self._tracks = analysis.by_frame
        self._not_compared: str | None = None
        self.frames = self._identical = self._identical_outside = 0
        self._errors: npt.NDArray[np.float64] = np.zeros(2)
        self._worst_mean = 0.0
        self._worst_frame: int | None = None
        self._layout: Layout | None = None

    def add(self, was: _Read, now: _Read) -> None:
        """Compare the next frame of the source and of the output."""
        before, after = was.frame.image, now.frame.image
        if self.frames == 0:
            self._not_compared = _difference(before, after)
            if self._lines is not None:
                self._lines.write_header(self._analysis.info.time_base, was.form, now.form)
        box = _NOT_COMPARED if self._not_compared else self._compare(before, after)
        if self._lines is not None:
            self._lines.write(was.frame, was.md5, now.md5, box)
        self.frames += 1

    def _compare(self, before: av.VideoFrame, after: av.VideoFrame) -> Sequence[object]:
        """Add the errors of a frame; return the corners of the box of all that differs."""
        self._layout = how = layout(before)
        grids = [how.grid if i in how.planes[1:] else (1, 1) for i in range(len(before.planes))]
        pairs = [_Pair(plane(before, i), plane(after, i), grid) for i, grid in enumerate(grids)]
        identical = all(np.array_equal(pair.before, pair.after) for pair in pairs)
        tracks = self._tracks.at(self.frames)
        boxes = mask_boxes(
            tracks, self.frames, self._strength, self._analysis.info, how.grid, self._extent
        )
        outside = _outside(boxes, before.width, before.height)
        errors = np.array([_errors(pair, outside, known_equal=identical) for pair in pairs])
        squares, samples = errors.sum(axis=0)
        self._identical += identical
        self._identical_outside += int(squares == 0)
        self._errors = self._errors + errors
        if (mean := squares / max(samples, 1)) > self._worst_mean:
            self._worst_mean, self._worst_frame = mean, self.frames
        if identical or self._lines is None:
            return _UNCHANGED
        return _changed_xyxy(pairs, how.grid)

    def result(self) -> Verification:
        """Return the sums over all frames."""
        how = self._layout
        if how is None:
            return Verification(self.frames, None, None, None, None, None, None, self._not_compared)
        peak = 2**how.bits - 1
        return Verification(
            frames=self.frames,
            identical_frames=self._identical,
            identical_outside=self._identical_outside,
            psnr_outside_db=_psnr_db(self._errors.sum(axis=0), peak),
            luma_psnr_outside_db=None if how.is_rgb else _psnr_db(self._errors[0], peak),
            worst_frame=self._worst_frame,
            worst_frame_psnr_db=_psnr_db((self._worst_mean, 1), peak),
        )


def _difference(before: av.VideoFrame, after: av.VideoFrame) -> str | None:
    """Return the reason why the samples of two pictures cannot be compared; None where they can."""
    # yuvj420p and similar formats are yuv420p and so on, in full range.
    shapes = [
        f"{i.width} x {i.height} in {i.format.name.replace('yuvj', 'yuv')}" for i in (before, after)
    ]
    if shapes[0] == shapes[1]:
        return None
    return f"the source is {shapes[0]} and the output {shapes[1]}, so samples were not compared"


def mask_boxes(
    tracks: Sequence[Track],
    index: int,
    strength: float,
    info: VideoInfo,
    grid: tuple[int, int],
    extent: Extent = "face",
) -> list[Rect]:
    """Compute the boxes that pasting can have changed in a frame.

    A restorer may work at less than `work_px`. That moves a box by rounding only, and each box has
    a margin of a pixel around its mask.

    Convention:
        The matrices of tracks map pixel centers of the frame -> unit crop, in (x, y) order. Boxes
        are half-open, in luma pixels of the frame, with corners on the chroma grid.

    Args:
        tracks: The tracks that have a face in the frame.
        index: The index of the frame, from 0.
        strength: The strength of all pasting, 0 to 1.
        info: The properties of the frame's picture.
        grid: The luma pixels (x, y) of each chroma sample.
        extent: What was pasted; default: the face.

    Returns:
        The boxes that are not empty, in the order of the tracks.
    """
    boxes = []
    for track in tracks:
        at = index - track.first_frame
        if track.strength[at] * strength > 0:
            matrix = crop_matrix(track.matrices[at], track.work_px)
            boxes.append(mask_rect(matrix, track.work_px, info, grid, extent))
    return [box for box in boxes if not box.is_empty]


def _outside(boxes: Sequence[Rect], width: int, height: int) -> list[Rect]:
    """Divide the frame without `boxes` into rectangles that do not overlap."""
    edges = {0, height, *(box.y0 for box in boxes), *(box.y1 for box in boxes)}
    rectangles = []
    for y0, y1 in pairwise(sorted(edges)):
        covered = sorted((box.x0, box.x1) for box in boxes if box.y0 <= y0 and y1 <= box.y1)
        x = 0
        for x0, x1 in [*covered, (width, width)]:
            if x < x0:
                rectangles.append(Rect(x, y0, x0, y1))
            x = max(x, x1)
    return rectangles


class _Pair(NamedTuple):
    """One plane of both frames, (rows, columns), and the luma pixels (x, y) of each sample."""

    before: npt.NDArray[Any]
    after: npt.NDArray[Any]
    grid: tuple[int, int]


def _errors(pair: _Pair, parts: Sequence[Rect], *, known_equal: bool) -> tuple[float, int]:
    """Return the sum of squared differences in parts of a plane, and the number of samples."""
    squares, samples = 0.0, 0
    for part in (chroma_rect(part, pair.grid) for part in parts):
        samples += part.width * part.height
        if not known_equal:
            at = np.s_[part.y0 : part.y1, part.x0 : part.x1]
            squares += cv2.norm(pair.before[at], pair.after[at], cv2.NORM_L2SQR)
    return squares, samples


def _psnr_db(errors: Iterable[float], peak: int) -> float | None:
    """Compute the PSNR from (sum of squared differences, samples); None where the sum is 0."""
    squares, samples = errors
    return 10 * math.log10(peak**2 * samples / squares) if squares else None


def _changed_xyxy(pairs: Sequence[_Pair], grid: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the smallest half-open box around all that differs, in luma pixels on the grid."""
    height, width = pairs[0].before.shape
    corners = []
    for pair in pairs:
        x, y, columns, rows = cv2.boundingRect((pair.before != pair.after).view(np.uint8))
        if columns:
            across, down = pair.grid
            corners.append((x * across, y * down, (x + columns) * across, (y + rows) * down))
    x0, y0 = (min(c[i] for c in corners) // grid[i] * grid[i] for i in (0, 1))
    x1, y1 = (-(-max(c[i + 2] for c in corners) // grid[i]) * grid[i] for i in (0, 1))
    return x0, y0, min(x1, width), min(y1, height)

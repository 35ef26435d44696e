"""Read the finished file back beside its source: nothing lost, nothing moved, what was changed.

PSNR = 10 log10(peak^2 / mse) with peak = 2^bits - 1, from the mean of the squared errors of all
samples, not from a mean of decibels; planes weigh by their samples, as in ffmpeg's `psnr` filter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import av
import av.error
import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.analysis.replay import frames_again
from vidrestore.analysis.result import Analysis
from vidrestore.analysis.tracks import Track, TracksByFrame
from vidrestore.common.errors import ChangedSourceError, FaultyOutputError, InputError
from vidrestore.common.events import OnEvent, Progress
from vidrestore.common.threads import StageThreads
from vidrestore.imaging.frame import Frame, VideoInfo
from vidrestore.imaging.geometry import Rect, crop_matrix
from vidrestore.imaging.planes import Layout, chroma_rect, layout, plane
from vidrestore.media.decode import DecodeErrors, TimeRange, decode
from vidrestore.media.framemd5 import Listing, frame_md5
from vidrestore.restoration.compositing.masks import mask_rect

_DEPTH = 4  # frames on which each of the two decoders may run ahead
Larger = Callable[[av.VideoFrame], av.VideoFrame]
SampleCollector = Callable[[Frame, Frame], None]
"""Is shown each frame of the source, or what it was enlarged to, and that of the output."""
_UNCHANGED, _NOT_COMPARED = "----", "????"


@dataclass(frozen=True, slots=True)
class Verification:
    """How far the output holds what its source held. Count and times of the frames always agree.

    What speaks of samples is None where `not_compared` says why they were not compared.
    "Outside" are the samples that lie in no face's box, which pasting cannot reach.
    """

    frames: int
    identical_frames: int | None
    """Frames in which not one sample differs."""
    identical_outside: int | None
    """Frames in which not one sample outside differs."""
    psnr_outside_db: float | None
    """Of the samples of all planes outside; None also where not one differs."""
    luma_psnr_outside_db: float | None
    """Of the luma samples alone; None also where not one differs, and for R'G'B' planes."""
    worst_frame: int | None
    """Index of the frame with the lowest PSNR outside; None also where none differs."""
    worst_frame_psnr_db: float | None
    not_compared: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: neither inf nor nan is among them."""
        return asdict(self)


class _Read(NamedTuple):
    frame: Frame
    md5: str
    """Of the samples of all planes; empty where nobody asked for it."""
    form: str
    """Size and pixel format, of which `md5` is."""


def check_output(
    source: Path,
    output: Path,
    analysis: Analysis,
    *,
    stream_index: int,
    span: TimeRange | None,
    strength: float,
    larger: Larger | None = None,
    listing: Listing | None = None,
    onlooker: SampleCollector | None = None,
    on_event: OnEvent | None = None,
) -> Verification:
    """Decode the finished file `output` once more, beside `span` of the source, and compare.

    `stream_index` is that of the restored stream in `output`, `strength` that of all pasting.
    `larger` makes the source's pictures as large as the output's; `analysis` is then of these.
    `listing` receives one line per frame, and is finished then.

    Every frame must stand at its source's time, counted from the first frame where `span` is
    given: to the tick where the output's clock has that tick, else off by one tick of it at most.
    FaultyOutputError where a time or the count of frames is another or the file does not decode
    whole; InputError where the source is no longer what was analysed.
    """
    damage, begin, n = DecodeErrors(), None, analysis.frame_count
    wanted = listing is not None
    readers = {
        "decode source": _hashed(frames_again(source, analysis, span), wanted, larger),
        "decode output": _hashed(_read_back(output, stream_index, damage), wanted),
    }
    with StageThreads() as threads:
        comparison = _Comparison(analysis, strength, listing)
        reads = (
            threads.background(read, depth=_DEPTH, name=name) for name, read in readers.items()
        )
        for index, (was, now) in enumerate(zip_longest(*reads)):
            _check_source(index, was, analysis, source)
            if now is None:
                raise _mismatch(f"holds {index} frames instead of {n}")
            if was is None:
                raise _mismatch(f"holds more than {n} frames")
            begin = begin or (now.frame if span is not None else None)
            _check_time(index, now.frame, analysis, begin)
            comparison.add(was, now)
            if onlooker is not None:
                onlooker(was.frame, now.frame)
            if on_event is not None:
                on_event(Progress("check", index + 1, n))
        _check_source(comparison.frames, None, analysis, source)
        if damage.decode_errors or damage.corrupt_frames:
            raise _mismatch("cannot be decoded without errors")
    if listing is not None:
        listing.finish()
    return comparison.result()


def _read_back(output: Path, stream_index: int, damage: DecodeErrors) -> Iterator[Frame]:
    try:
        yield from decode(output, damage, stream_index=stream_index)
    except (InputError, av.error.FFmpegError) as error:
        raise _mismatch(f"cannot be read: {error}") from error


def _hashed(frames: Iterator[Frame], wanted: bool, larger: Larger | None = None) -> Iterator[_Read]:
    for frame in frames:
        image = frame.image
        form = f"{image.width}x{image.height} {image.format.name}"
        md5 = frame_md5(image) if wanted else ""
        yield _Read(replace(frame, image=larger(image)) if larger else frame, md5, form)


def _check_source(index: int, was: _Read | None, analysis: Analysis, source: Path) -> None:
    expected = int(analysis.pts[index]) if index < analysis.frame_count else None
    if (was.frame.pts if was else None) != expected:
        raise ChangedSourceError(
            f"{source} does not give the {analysis.frame_count} frames of its analysis again; "
            "it changed meanwhile or cannot be read reliably"
        )


def _mismatch(what: str) -> FaultyOutputError:
    return FaultyOutputError(f"the finished file {what}; nothing was changed")


def _check_time(index: int, frame: Frame, analysis: Analysis, begin: Frame | None) -> None:
    """Of frame `index` of the output; from the frame `begin`, the first, if that is given."""
    # The image's own time: `decode` repairs a missing or repeated one, which would hide it.
    pts, clock = frame.image.pts, Fraction(frame.image.time_base or 0)
    if pts is None or not clock:
        raise _mismatch(f"has no time for frame {index}")
    starts = (0, 0) if begin is None else (int(analysis.pts[0]), begin.image.pts or 0)
    wanted = (int(analysis.pts[index]) - starts[0]) * analysis.info.time_base
    error = abs((pts - starts[1]) * clock - wanted)
    has_tick = (wanted / clock).denominator == 1
    if error > (0 if has_tick else clock):
        off = f"{float(error * 1000):.4g} ms off its time of {float(wanted):.6f} s"
        raise _mismatch(f"has frame {index} {off}")


class _Comparison:
    """Sums over the frames, and a line for each of them where there is a listing."""

    def __init__(self, analysis: Analysis, strength: float, lines: Listing | None) -> None:
        self._analysis, self._strength, self._lines = analysis, strength, lines
        self._tracks = TracksByFrame(analysis.tracks)
        self._not_compared: str | None = None
        self.frames = self._identical = self._identical_outside = 0
        self._errors: npt.NDArray[np.float64] = np.zeros(2)
        self._worst_mean = 0.0
        self._worst_frame: int | None = None
        self._layout: Layout | None = None

    def add(self, was: _Read, now: _Read) -> None:
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
        """The corners of the box of what differs."""
        self._layout = how = layout(before)
        grids = [how.grid if i in how.planes[1:] else (1, 1) for i in range(len(before.planes))]
        pairs = [_Pair(plane(before, i), plane(after, i), grid) for i, grid in enumerate(grids)]
        identical = all(np.array_equal(pair.before, pair.after) for pair in pairs)
        tracks = self._tracks.at(self.frames)
        boxes = mask_boxes(tracks, self.frames, self._strength, self._analysis.info, how.grid)
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
    """Why the samples of one are not those of the other one by one, or None where they are."""
    # yuvj420p and its kin only repeat in their name that the range is full.
    shapes = [
        f"{i.width} x {i.height} in {i.format.name.replace('yuvj', 'yuv')}" for i in (before, after)
    ]
    if shapes[0] == shapes[1]:
        return None
    return f"the source is {shapes[0]} and the output {shapes[1]}, so samples were not compared"


def mask_boxes(
    tracks: Sequence[Track], index: int, strength: float, info: VideoInfo, grid: tuple[int, int]
) -> list[Rect]:
    """What pasting can have changed of frame `index`, in luma pixels on the chroma grid; `tracks`
    are those with a face in it.

    A restorer may work at less than `work_px`; that moves a box by rounding alone, while each has
    a pixel to spare around its mask.
    """
    boxes = []
    for track in tracks:
        at = index - track.first_frame
        if track.strength[at] * strength > 0:
            matrix = crop_matrix(track.matrices[at], track.work_px)
            boxes.append(mask_rect(matrix, track.work_px, info, grid))
    return [box for box in boxes if not box.is_empty]


def _outside(boxes: Sequence[Rect], width: int, height: int) -> list[Rect]:
    """Rectangles without overlap that together are the frame without `boxes`."""
    edges = {0, height, *(box.y0 for box in boxes), *(box.y1 for box in boxes)}
    found = []
    for y0, y1 in pairwise(sorted(edges)):
        beside = sorted((box.x0, box.x1) for box in boxes if box.y0 <= y0 and y1 <= box.y1)
        x = 0
        for x0, x1 in [*beside, (width, width)]:
            if x < x0:
                found.append(Rect(x, y0, x0, y1))
            x = max(x, x1)
    return found


class _Pair(NamedTuple):
    """One plane of both frames, (rows, columns), and the luma pixels (x, y) of each sample."""

    before: npt.NDArray[Any]
    after: npt.NDArray[Any]
    grid: tuple[int, int]


def _errors(pair: _Pair, parts: Sequence[Rect], *, known_equal: bool) -> tuple[float, int]:
    """The sum of squared differences within parts of the frame, and of how many samples it is."""
    squares, samples = 0.0, 0
    for part in (chroma_rect(part, pair.grid) for part in parts):
        samples += part.width * part.height
        if not known_equal:
            at = np.s_[part.y0 : part.y1, part.x0 : part.x1]
            squares += cv2.norm(pair.before[at], pair.after[at], cv2.NORM_L2SQR)
    return squares, samples


def _psnr_db(errors: Iterable[float], peak: int) -> float | None:
    """Of a sum of squared differences and its number of samples; None where none differs."""
    squares, samples = errors
    return 10 * math.log10(peak**2 * samples / squares) if squares else None


def _changed_xyxy(pairs: Sequence[_Pair], grid: tuple[int, int]) -> tuple[int, int, int, int]:
    """The least half-open box on the chroma grid, in luma pixels, around all that differs."""
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

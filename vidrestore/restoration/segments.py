"""Segments: a long video is restored in parts, which do not change its frames."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from operator import itemgetter
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel

from vidrestore.analysis.result import Analysis, is_woven
from vidrestore.analysis.tracks import Track
from vidrestore.common.settings import Settings
from vidrestore.imaging.frame import VideoInfo
from vidrestore.media.codecs import Encoding
from vidrestore.models.restorers import RestorerInfo, cache_key_of
from vidrestore.models.restorers.assignment import Assignment
from vidrestore.restoration.companion import ALONE, Pairing

# Some encoders write no times of their own for streams that are shorter than their delay.
_FEWEST_FRAMES = 24
_LARGEST_CROP_PX = 2048
# A damaged source gets few segments, since each is decoded from the beginning of the source.
_MOST_OF_DAMAGED = 8


@dataclass(frozen=True, slots=True)
class Segment:
    """The frames [first, end) of the analysis."""

    number: int
    """The number of the segment, from 0."""
    first: int
    """The index of the first frame."""
    end: int
    """The index of the frame after the last."""

    @property
    def frame_count(self) -> int:
        """The number of frames."""
        return self.end - self.first


def plan_segments(
    analysis: Analysis, *, most_frames: int, at_every_cut: bool = False
) -> list[Segment]:
    """Split the frames into segments, which begin at cuts where that is possible.

    Whole shots are joined as long as they fit, or with `at_every_cut` only where a shot would be
    too short for some encoders. A longer shot is cut into equal parts. A damaged source is decoded
    from its beginning for every segment, so it gets few segments and `at_every_cut` has no effect.
    The plan depends only on the arguments.

    Args:
        analysis: The analysis of the source.
        most_frames: The greatest length of a segment in frames; a segment gets a few more frames
            where the rest would be too short for some encoders.
        at_every_cut: Whether a segment begins at every cut; default: False.

    Returns:
        The segments, in order and without gaps.
    """
    if analysis.one_thread:
        at_every_cut = False
        most_frames = max(most_frames, -(-analysis.frame_count // _MOST_OF_DAMAGED))
    edges = [0]
    for start, end in _pieces(analysis.shots, most_frames):
        is_due = at_every_cut or end - edges[-1] > most_frames
        if is_due and start - edges[-1] >= _FEWEST_FRAMES:
            edges.append(start)
    if len(edges) > 1 and analysis.frame_count - edges[-1] < _FEWEST_FRAMES:
        edges.pop()
    edges.append(analysis.frame_count)
    if is_woven(analysis):  # both fields of a frame belong to one segment
        edges = [edge - edge % 2 for edge in edges]
    return [Segment(i, a, b) for i, (a, b) in enumerate(pairwise(edges))]


def _pieces(shots: Sequence[tuple[int, int]], most_frames: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the shots, cut into equal parts where they are too long."""
    for start, end in shots:
        parts = -(-(end - start) // most_frames)
        for i in range(parts):
            yield start + (end - start) * i // parts, start + (end - start) * (i + 1) // parts


def context(segment: Segment, analysis: Analysis, reach_frames: int) -> tuple[int, int]:
    """Return the frames on which the frames of a segment depend.

    Args:
        segment: The segment.
        analysis: The analysis of the source.
        reach_frames: The number of frames before and after a frame on which it depends.

    Returns:
        (first, end) of a half-open range that lies within the shots of the segment.
    """
    shots = analysis.shots
    first = shots[bisect_right(shots, segment.first, key=itemgetter(0)) - 1][0]
    end = shots[bisect_left(shots, segment.end, key=itemgetter(1))][1]
    return max(first, segment.first - reach_frames), min(end, segment.end + reach_frames)


def tracks_within(analysis: Analysis, first: int, end: int) -> list[Track]:
    """Select the tracks that have a face in some frames.

    Args:
        analysis: The analysis with the tracks.
        first: The first frame.
        end: The frame after the last.

    Returns:
        The tracks, in the same order.
    """
    return [analysis.tracks[place] for place in analysis.by_frame.within(first, end)]


def restorers_used(
    restorers: Assignment[RestorerInfo], analysis: Analysis, first: int, end: int
) -> list[tuple[int, RestorerInfo]]:
    """List the restorers that restore the faces of some frames.

    Args:
        restorers: Which restorer restores which face.
        analysis: The analysis of the source.
        first: The first frame.
        end: The frame after the last.

    Returns:
        (number of the track, restorer for its crop size) for each stretch and track with a strength
        above 0.
    """
    used = []
    for begin, last, usual in restorers.within(first, end):
        tracks = tracks_within(analysis, begin, last)
        for track in sorted(tracks, key=lambda track: track.work_px):
            frames = slice(*(max(0, at - track.first_frame) for at in (begin, last)))
            if track.strength[frames].any():
                restorer = restorers.of_tracks.get(track.track_id, usual)
                used.append((track.track_id, restorer.for_crop_size(track.work_px)))
    return used


def side_px(track: Track, restorers: Assignment[RestorerInfo]) -> int:
    """Return the side of the crops of a track, which is no larger than its networks need.

    The networks of other tracks do not count, so that a face is the same whoever else is restored.

    Args:
        track: The track.
        restorers: Which restorer restores which face.

    Returns:
        The side in pixels, the same in all frames of the track.
    """
    own = restorers.of_tracks.get(track.track_id)
    stretches = restorers.within(track.first_frame, track.end_frame)
    used = [own] if own is not None else [restorer for _, _, restorer in stretches]
    return min(track.work_px, max(restorer.size or _LARGEST_CROP_PX for restorer in used))


def networks_used(
    restorers: Assignment[RestorerInfo], analysis: Analysis, first: int, end: int
) -> list[tuple[int, str]]:
    """List the names of the networks that restore the faces of some frames.

    Args:
        restorers: Which restorer restores which face.
        analysis: The analysis of the source.
        first: The first frame.
        end: The frame after the last.

    Returns:
        (number of the track, `RestorerInfo.cache_name`), as in `restorers_used`; the name depends
        on the weights that are installed.
    """
    used = restorers_used(restorers, analysis, first, end)
    return [(track, restorer.cache_name) for track, restorer in used]


# The analysis holds the result of these settings, and the key of a segment holds the analysis.
_ANALYSIS = "its result is in the analysis: shots, tracks, times and checksums"
_ENCODING = "its result is in the encoding"
_WEIGHTS = "the key holds the content of the files of networks, not their places"
NOT_IN_KEY: Mapping[str, str] = {
    "decode.hardware": "every frame is compared with the frame of the first pass",
    "decode.input_curve": "the curve itself is in the analysis",
    "decode.fps": "the times are in the analysis",
    **dict.fromkeys(
        (
            "detect.detector", "detect.margins", "detect.size_px", "detect.score",
            "detect.yunet_score", "detect.haar_neighbors", "detect.every", "detect.again_seconds",
            "detect.threads", "detect.remember",
            "shots.cut", "shots.contrast", "shots.edl",
            "track.overlap", "track.gap_seconds", "track.min_seconds",
            "people.every_seconds", "people.similarity",
            "align.template", "align.smoothness", "align.coarse_smoothness",
            "align.motion_smoothness", "align.least_support", "align.break_eyes",
            "align.min_face_px", "align.fade_seconds",
        ),
        _ANALYSIS,
    ),
    "detect.pack": "the key holds the content of the file of the recognizer that judges",
    "person": "the key names the restorer of each track",
    "people.recognise": "the name of the judge in the key tells whether there is a recognizer",
    "restore.key_frames": "the key names the tracks that have key frames",
    "restore.max_vram_gb": "how much memory a network may take does not change its results",
    "restore.cache_crops": "the place where results are kept does not change them",
    **dict.fromkeys(
        ("encode.codec", "encode.quality", "encode.preset", "encode.hardware",
         "encode.pixel_format", "encode.copy_untouched"),
        _ENCODING,
    ),
    "encode.provenance": "it is written when the segments are joined",
    "encode.check": "it reads the finished file",
    "layer.format": "the names and kinds of the streams of a layer identify them",
    "job.segment_frames": "the first and the last frame of the segment are in the key",
    "job.queue_frames": "how far stages run ahead does not change their results",
    **dict.fromkeys(("weights.folder", "weights.also", "weights.offline"), _WEIGHTS),
}  # fmt: skip
"""The settings, by section and name, that the key of a segment leaves out, with the reason."""


def leaves(settings: BaseModel, prefix: str = "") -> Iterator[tuple[str, object]]:
    """List all settings, with those of nested sections.

    Args:
        settings: The settings or a section of them.
        prefix: The name of the section with a final period; default: no section.

    Yields:
        (name with its sections, such as "encode.codec", value).
    """
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def without_cache_key(restorers: Assignment[RestorerInfo]) -> list[str]:
    """List the restorers that do not declare what their results depend on.

    Args:
        restorers: Which restorer restores which face.

    Returns:
        The names of the restorers without a cache key, each once.
    """
    names = (each.name for each in restorers.each() if cache_key_of(each) is None)
    return list(dict.fromkeys(names))


def segment_key(
    segment: Segment,
    analysis: Analysis,
    reach_frames: int,
    restorers: Assignment[RestorerInfo],
    judge: str,
    settings: Settings,
    encoding: Encoding,
    pairing: Pairing = ALONE,
    *,
    parser: str | None = None,
    span: object = None,
    key_framed: Collection[int] = (),
) -> str:
    """Hash all that the frames and packets of a segment depend on.

    Args:
        segment: The segment.
        analysis: The analysis of the source.
        reach_frames: The number of frames before and after a frame on which it depends.
        restorers: Which restorer restores which face; each restorer has a cache key.
        judge: The name of the judge that compares faces with their source.
        settings: All settings; those in `NOT_IN_KEY` are left out.
        encoding: The encoding of the output stream.
        pairing: The companions of the source; default: none.
        parser: The name of the face parser, which depends on its content; default: no parser.
        span: The part of the source that was analyzed; default: all of it.
        key_framed: The numbers of the tracks of which the network restores key frames only;
            default: none.

    Returns:
        64 hexadecimal digits (SHA-256).
    """
    first, end = context(segment, analysis, reach_frames)
    digest = hashlib.sha256()
    how = encoding.encoder, encoding.pixel_format, sorted(encoding.options.items())
    for part in (
        _versions(),
        [(name, value) for name, value in leaves(settings) if name not in NOT_IN_KEY],
        (segment.first, segment.end, first, end),
        _restorers_within(restorers, first, end),
        [(track, _restorer_key(each)) for track, each in
         restorers_used(restorers, analysis, first, end)],
        judge,
        parser,
        span,
        (encoding.codec, encoding.suffix, *how),
        (
            encoding.is_lossless, encoding.has_field_flags, encoding.needs_light_header,
            encoding.without_stereo, encoding.copied,
        ),
    ):  # fmt: skip
        digest.update(repr(part).encode())
    scaling = pairing.plate and pairing.plate.scaling
    digest.update(repr(scaling and scaling.content).encode())
    for role, each in (("source", analysis), *pairing.analyses()):
        digest.update(role.encode())
        _add_frames(digest, each, first, end)
    for track in tracks_within(analysis, first, end):
        frames = slice(max(0, first - track.first_frame), end - track.first_frame)
        has_keys = track.track_id in key_framed
        sides = track.work_px, side_px(track, restorers)
        place = track.track_id, *sides, track.first_frame, has_keys
        digest.update(repr(place).encode())
        # All frames of the track, since the stages use medians over it.
        for rows in (track.matrices, track.landmarks):
            digest.update(rows.tobytes())
        digest.update(track.strength[frames].tobytes())
        digest.update(b"" if track.shapes is None else track.shapes[frames].tobytes())
    return digest.hexdigest()


def _versions() -> tuple[str, ...]:
    """Return the versions of the programs whose arithmetic enters the frames."""
    libraries = (torch.__version__, np.__version__, cv2.__version__, av.__version__)
    return version("vidrestore"), *map(str, libraries)


def _restorer_key(restorer: RestorerInfo) -> tuple[str | None, int | None, int]:
    """Return the cache key, the size and the reach of a restorer; the key may omit the others."""
    return cache_key_of(restorer), restorer.size, restorer.reach_frames


def _restorers_within(
    restorers: Assignment[RestorerInfo], first: int, end: int
) -> list[tuple[int, tuple[str | None, int | None, int]]]:
    """Return (first frame, what restores) of the stretches that overlap the frames [first, end)."""
    stretches = restorers.within(first, end)
    return [(begin, _restorer_key(restorer)) for begin, _, restorer in stretches]


def _add_frames(digest: hashlib._Hash, analysis: Analysis, first: int, end: int) -> None:
    """Add what the analysis tells of frames [first, end) and of the whole source."""
    few = min(analysis.frame_count, _FEWEST_FRAMES)  # some encoders treat so few frames differently
    # The time of the frame after the last gives the duration of the last.
    times: list[npt.NDArray[Any]] = [analysis.pts[first : end + 1], analysis.crc32[first:end]]
    digest.update(repr((
        analysis.fingerprint, analysis.template, analysis.one_thread, few, _plain(analysis.info),
    )).encode())  # fmt: skip
    if (fields := analysis.fields) is not None:
        digest.update(repr((fields.mode, fields.order, _plain(fields.info))).encode())
        begin, stop = first // 2, end  # wide enough for every mode
        if fields.sources is not None:
            named = fields.sources[first:end]
            begin, stop = int(named.min()), int(named.max()) + 1
            times.append(named)
        # Pictures are also made of the frames next to their own.
        around = slice(max(0, begin - 1), stop + 1)
        times += [fields.pts[around], fields.crc32[around]]
    for array in times:
        digest.update(repr(array.shape).encode() + array.tobytes())


def _plain(info: VideoInfo) -> list[tuple[str, object]]:
    """Return the fields of `info`; sets are sorted, so that all processes agree on the order."""
    values = ((name, getattr(info, name)) for name in info.__dataclass_fields__)
    return [(name, sorted(v) if isinstance(v, frozenset) else v) for name, v in values]

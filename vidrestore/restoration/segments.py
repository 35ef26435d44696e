"""A long video in parts that are restored one by one, and whose frames do not depend on that."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
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
from vidrestore.restoration.companion import ALONE, Pairing

# Encoders write no times of their own for streams that are shorter than their delay.
_FEWEST_FRAMES = 24
# A damaged source is decoded from its beginning for every segment.
_MOST_OF_DAMAGED = 8


@dataclass(frozen=True, slots=True)
class Segment:
    """Frames [first, end) of the analysis."""

    number: int
    first: int
    end: int

    @property
    def frame_count(self) -> int:
        return self.end - self.first


def plan_segments(
    analysis: Analysis, *, most_frames: int, at_every_cut: bool = False
) -> list[Segment]:
    """Segments that begin at cuts where that is possible, of at most `most_frames`, or a few more
    where the rest would be too short for some encoders.

    Shots are put together as long as they fit, or with `at_every_cut` only where one would be too
    short; one that is longer is cut into equal parts. Depends on nothing but the analysis and what
    is given. Damaged sources are cut where they are without `at_every_cut`.
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
    if is_woven(analysis):  # both fields of a frame are in one segment
        edges = [edge - edge % 2 for edge in edges]
    return [Segment(i, a, b) for i, (a, b) in enumerate(pairwise(edges))]


def _pieces(shots: Sequence[tuple[int, int]], most_frames: int) -> Iterator[tuple[int, int]]:
    for start, end in shots:
        parts = -(-(end - start) // most_frames)
        for i in range(parts):
            yield start + (end - start) * i // parts, start + (end - start) * (i + 1) // parts


def context(segment: Segment, analysis: Analysis, reach_frames: int) -> tuple[int, int]:
    """[first, end) of the frames that the segment's own depend on: within its shots."""
    first = next(start for start, end in analysis.shots if start <= segment.first < end)
    end = next(end for start, end in analysis.shots if start < segment.end <= end)
    return max(first, segment.first - reach_frames), min(end, segment.end + reach_frames)


def tracks_within(tracks: Sequence[Track], first: int, end: int) -> list[Track]:
    """Those that have a face in frames [first, end)."""
    return [track for track in tracks if track.first_frame < end and first < track.end_frame]


def restorers_used(
    restorers: Sequence[tuple[int, RestorerInfo]], analysis: Analysis, first: int, end: int
) -> list[tuple[int, RestorerInfo]]:
    """(track, restorer) of what restores the faces of frames [first, end)."""
    used = []
    for i, (start, restorer) in enumerate(restorers):
        last = restorers[i + 1][0] if i + 1 < len(restorers) else end
        for track in sorted(analysis.tracks, key=lambda track: track.work_px):
            frames = slice(*(max(0, at - track.first_frame)
                             for at in (max(first, start), min(end, last))))  # fmt: skip
            if track.strength[frames].any():
                used.append((track.track_id, restorer.for_crop_size(track.work_px)))
    return used


def networks_used(
    restorers: Sequence[tuple[int, RestorerInfo]], analysis: Analysis, first: int, end: int
) -> list[tuple[int, str]]:
    """(track, `cache_name`) of the same, which depends on the weights that are here."""
    used = restorers_used(restorers, analysis, first, end)
    return [(track, restorer.cache_name) for track, restorer in used]


# The analysis holds what became of it, and the segment's key holds the analysis.
_ANALYSIS = "what it leads to is in the analysis: shots, tracks, times and checksums"
_ENCODING = "what was chosen by it is in the encoding"
_WEIGHTS = "networks go by the content of their files, wherever these are"
NOT_IN_KEY: Mapping[str, str] = {
    "decode.hardware": "every frame is compared with that of pass one",
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
    "detect.pack": "the recognizer that judges goes by the content of its file",
    "people.recognise": "whether there is a recognizer that judges is in the key by its name",
    "restore.max_vram_gb": "how much memory a network may take does not change its results",
    "restore.cache_crops": "where results are kept does not change them",
    **dict.fromkeys(
        ("encode.codec", "encode.quality", "encode.preset", "encode.hardware",
         "encode.pixel_format"),
        _ENCODING,
    ),
    "encode.provenance": "it is written when the segments are joined",
    "encode.check": "it reads the finished file",
    "layer.format": "the streams of a layer are found by their own names and kinds",
    "job.segment_frames": "the first and the last frame of the segment are in the key",
    "job.queue_frames": "how far stages run ahead does not change what they make",
    **dict.fromkeys(("weights.folder", "weights.also", "weights.offline"), _WEIGHTS),
}  # fmt: skip
"""Settings, by section and name, that do not enter a segment's key, and why."""


def leaves(settings: BaseModel, prefix: str = "") -> Iterator[tuple[str, object]]:
    """(section.name, value) of every setting, those of sections within sections too."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def without_cache_key(restorers: Sequence[tuple[int, RestorerInfo]]) -> list[str]:
    """Names of the restorers of which it is not known what their results depend on."""
    names = (each.name for _, each in restorers if cache_key_of(each) is None)
    return list(dict.fromkeys(names))


def segment_key(
    segment: Segment,
    analysis: Analysis,
    reach_frames: int,
    restorers: Sequence[tuple[int, RestorerInfo]],
    judge: str,
    settings: Settings,
    encoding: Encoding,
    pairing: Pairing = ALONE,
    *,
    parser: str | None = None,
    span: object = None,
) -> str:
    """A hash of all that the segment's frames and packets depend on.

    Args:
        segment: The frames.
        analysis: Of the source.
        reach_frames: How many frames to either side have a part in what becomes of one.
        restorers: (first frame, restorer) of each stretch; each with a `cache_key`.
        judge: The name of what compares faces with their source.
        settings: All; those of `NOT_IN_KEY` do not count.
        encoding: Of the output's stream.
        pairing: What is read beside the source.
        parser: The name of the face parser, by its content.
        span: The part of the source that was analyzed.

    Returns:
        Hexadecimal digits.
    """
    first, end = context(segment, analysis, reach_frames)
    digest = hashlib.sha256()
    how = encoding.encoder, encoding.pixel_format, sorted(encoding.options.items())
    for part in (
        _versions(),
        [(name, value) for name, value in leaves(settings) if name not in NOT_IN_KEY],
        (segment.first, segment.end, first, end),
        _restorers_within(restorers, segment),
        [(track, _what_restores(each)) for track, each in
         restorers_used(restorers, analysis, first, end)],
        judge,
        parser,
        span,
        (encoding.codec, encoding.suffix, *how),
        (encoding.is_lossless, encoding.has_field_flags, encoding.needs_light_header),
    ):  # fmt: skip
        digest.update(repr(part).encode())
    scaling = pairing.plate and pairing.plate.scaling
    # An upscaler goes by the content of its file.
    digest.update(repr(scaling and (scaling.factor, scaling.upscaler_sha256)).encode())
    for role, each in (("source", analysis), *pairing.analyses()):
        digest.update(role.encode())
        _add_frames(digest, each, first, end)
    for track in tracks_within(analysis.tracks, first, end):
        frames = slice(max(0, first - track.first_frame), end - track.first_frame)
        digest.update(repr((track.track_id, track.work_px, track.first_frame)).encode())
        # The whole course of a track, since medians over it are used.
        for rows in (track.matrices, track.landmarks):
            digest.update(rows.tobytes())
        digest.update(track.strength[frames].tobytes())
    return digest.hexdigest()


def _versions() -> tuple[str, ...]:
    """Of the programs whose arithmetic is in the frames."""
    libraries = (torch.__version__, np.__version__, cv2.__version__, av.__version__)
    return version("vidrestore"), *map(str, libraries)


def _what_restores(restorer: RestorerInfo) -> tuple[str | None, int | None, int]:
    """Its key, which need not tell what windows it is given, and what these are."""
    return cache_key_of(restorer), restorer.size, restorer.reach_frames


def _restorers_within(
    restorers: Sequence[tuple[int, RestorerInfo]], segment: Segment
) -> list[tuple[int, tuple[str | None, int | None, int]]]:
    """(first frame, what restores) of those that the segment's frames meet."""
    return [
        (max(first, segment.first), _what_restores(restorer))
        for i, (first, restorer) in enumerate(restorers)
        if first < segment.end and (i + 1 == len(restorers) or restorers[i + 1][0] > segment.first)
    ]


def _add_frames(digest: hashlib._Hash, analysis: Analysis, first: int, end: int) -> None:
    """What is known of frames [first, end) and of the whole that they are from."""
    few = min(analysis.frame_count, _FEWEST_FRAMES)  # which some encoders treat otherwise
    # The frame after the last says how long that lasts.
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
        # Pictures are made of the frames around their own, too.
        around = slice(max(0, begin - 1), stop + 1)
        times += [fields.pts[around], fields.crc32[around]]
    for array in times:
        digest.update(repr(array.shape).encode() + array.tobytes())


def _plain(info: VideoInfo) -> list[tuple[str, object]]:
    """Its values, those of sets in an order that is the same in all processes."""
    values = ((name, getattr(info, name)) for name in info.__dataclass_fields__)
    return [(name, sorted(v) if isinstance(v, frozenset) else v) for name, v in values]

"""A long video in parts that are restored one by one, and whose frames do not depend on that."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise

from vidrestore.codecs import Encoding
from vidrestore.config import Settings
from vidrestore.frame import Analysis, Track
from vidrestore.interlace import is_woven
from vidrestore.pairing import ALONE, Pairing
from vidrestore.restorers import Described, Restorer, restorer_for, told_apart

# Encoders write no times of their own for streams that are shorter than their delay.
_FEWEST_FRAMES = 24
# A damaged source is decoded from its beginning for every segment.
_MOST_OF_DAMAGED = 8

Schedule = Sequence[tuple[int, Restorer]]


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


def restorers_within(
    restorers: Sequence[tuple[int, Described]], segment: Segment
) -> list[tuple[int, str]]:
    """(first frame, `told_apart`) of those that the segment's frames meet."""
    return [
        (max(first, segment.first), told_apart(restorer))
        for i, (first, restorer) in enumerate(restorers)
        if first < segment.end and (i + 1 == len(restorers) or restorers[i + 1][0] > segment.first)
    ]


def restorers_used(
    restorers: Sequence[tuple[int, Described]], analysis: Analysis, first: int, end: int
) -> list[tuple[int, Described]]:
    """(track, restorer) of what restores the faces of frames [first, end)."""
    used = []
    for i, (start, restorer) in enumerate(restorers):
        last = restorers[i + 1][0] if i + 1 < len(restorers) else end
        for track in sorted(analysis.tracks, key=lambda track: track.work_px):
            frames = slice(*(max(0, at - track.first_frame)
                             for at in (max(first, start), min(end, last))))  # fmt: skip
            if track.strength[frames].any():
                used.append((track.track_id, restorer_for(restorer, track.work_px)))
    return used


def networks_used(
    restorers: Sequence[tuple[int, Described]], analysis: Analysis, first: int, end: int
) -> list[tuple[int, str]]:
    """(track, `told_apart`) of the same, which depends on the weights that are here."""
    used = restorers_used(restorers, analysis, first, end)
    return [(track, told_apart(restorer)) for track, restorer in used]


def made_from(
    segment: Segment,
    analysis: Analysis,
    reach_frames: int,
    restorers: Sequence[tuple[int, Described]],
    judge: str,
    settings: Settings,
    encoding: Encoding,
    pairing: Pairing = ALONE,
    *,
    parser: str | None = None,
) -> str:
    """A hash of all that the segment's frames and packets depend on; `judge` and `parser` are
    names."""
    first, end = context(segment, analysis, reach_frames)
    digest = hashlib.sha256()
    # Where results are kept, and in how much memory they are made, changes none.
    networks = settings.restore.model_copy(update={"cache_crops": False, "max_vram_gb": 0.0})
    sections = (
        networks, settings.deflicker, settings.guard, settings.paste, settings.grain,
        settings.scale,
    )  # fmt: skip
    how = encoding.encoder, encoding.pixel_format, sorted(encoding.options.items())
    for part in (
        version("vidrestore"),
        analysis.fingerprint,
        analysis.template,
        (analysis.info.transfer, analysis.info.curve),
        (segment.first, segment.end, first, end),
        restorers_within(restorers, segment),
        networks_used(restorers, analysis, first, end),
        judge,
        parser,
        *(section.as_text() for section in sections),
        (how, settings.encode.threads),
    ):
        digest.update(repr(part).encode())
    scaling = pairing.plate and pairing.plate.scaling
    digest.update(repr(scaling and scaling.upscaler_sha256).encode())
    for role, each in (("source", analysis), *pairing.analyses()):
        digest.update(repr((role, each.fingerprint)).encode())
        for array in (each.pts[first:end], each.crc32[first:end]):
            digest.update(array.tobytes())
    for track in tracks_within(analysis.tracks, first, end):
        frames = slice(max(0, first - track.first_frame), end - track.first_frame)
        digest.update(repr((track.track_id, track.work_px, track.first_frame)).encode())
        # The whole course of a track, since medians over it are used.
        for rows in (track.matrices, track.landmarks):
            digest.update(rows.tobytes())
        digest.update(track.strength[frames].tobytes())
    return digest.hexdigest()

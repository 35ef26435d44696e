"""The likeness of faces to their source, as the guard compared it, over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vidrestore.analysis.result import Analysis, is_woven
from vidrestore.restoration.statistics import STRETCH_FRAMES, Likeness, RestorationStats


@dataclass(frozen=True, slots=True)
class LikenessRow:
    """The mean likeness of one face over a stretch of frames."""

    place: int
    """The index of the track in the analysis."""
    frame: int
    """The index of the picture in the middle of the stretch, in the analysis."""
    restored: float
    """The likeness of the restored face."""
    used: float
    """The likeness of the face that the guard let through."""
    weight: int
    """The number of faces that were compared."""


@dataclass(frozen=True, slots=True)
class MeasuredLikeness:
    """All that the guard compared of some faces."""

    by_identity: bool
    """Whether the values are cosines of embeddings; else they are correlations of features."""
    faces: int
    """The number of all faces that the guard looked at."""
    rows: Sequence[LikenessRow]
    """One for each face and stretch, in the order of the frames; empty where none was compared."""


def measured_likeness(
    analysis: Analysis, stats: RestorationStats, person: int | None = None
) -> MeasuredLikeness:
    """Collect the likeness that the guard measured.

    Args:
        analysis: The analysis that was restored.
        stats: The statistics of the restoration.
        person: The person; default: all people.

    Returns:
        The likeness by embeddings where a recognizer compared any of these faces, else by features.
    """
    found = list(_stretches(analysis, stats, person))
    by_identity = any(likeness.comparisons for _, _, likeness in found)
    rows = []
    for place, frame, each in found:
        count = each.comparisons if by_identity else each.frames
        if count:
            sums = (each.identity, each.identity_used) if by_identity else (
                each.features, each.features_used)  # fmt: skip
            rows.append(LikenessRow(place, frame, sums[0] / count, sums[1] / count, count))
    faces = sum(likeness.frames for _, _, likeness in found)
    return MeasuredLikeness(
        by_identity, faces, sorted(rows, key=lambda row: (row.frame, row.place))
    )


def _stretches(
    analysis: Analysis, stats: RestorationStats, person: int | None
) -> Iterator[tuple[int, int, Likeness]]:
    """Yield (index of the track, picture in the middle, likeness) of each stretch."""
    for place, track in enumerate(analysis.tracks):
        if person in (None, track.person_id):
            for number, likeness in stats.likeness.get(track.track_id, {}).items():
                middle = number * STRETCH_FRAMES + STRETCH_FRAMES // 2
                yield place, min(max(middle, track.first_frame), track.end_frame - 1), likeness


def least_like(
    analysis: Analysis, stats: RestorationStats, *, most: int, apart_seconds: float
) -> npt.NDArray[np.int64]:
    """Find the faces that are least like their source.

    Args:
        analysis: The analysis that was restored.
        stats: The statistics of the restoration.
        most: The largest number of faces.
        apart_seconds: The least time between two faces of one person, in seconds.

    Returns:
        (n, 2) frame of the output and index of the track, the least like first.
    """
    step = 2 if is_woven(analysis) else 1
    apart = apart_seconds / float(analysis.info.time_base)
    chosen: list[LikenessRow] = []
    for row in sorted(measured_likeness(analysis, stats).rows, key=lambda row: row.used):
        if len(chosen) == most:
            break
        person = analysis.tracks[row.place].person_id
        if all(
            analysis.tracks[one.place].person_id != person
            or abs(int(analysis.pts[one.frame] - analysis.pts[row.frame])) >= apart
            for one in chosen
        ):
            chosen.append(row)
    places = [(_in_track(analysis, row, step) // step, row.place) for row in chosen]
    return np.array(places, np.int64).reshape(-1, 2)


def _in_track(analysis: Analysis, row: LikenessRow, step: int) -> int:
    """Return the picture of a row, or its neighbor where the output shows only that one."""
    frame = row.frame - row.frame % step
    return frame if frame >= analysis.tracks[row.place].first_frame else frame + step

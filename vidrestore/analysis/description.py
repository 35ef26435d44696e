"""The description of an analysis: facts of the video, and when and how each person is seen."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from vidrestore.analysis.replay import last_duration
from vidrestore.analysis.result import Analysis, of_file, of_output
from vidrestore.analysis.strength import eye_distances_px, turned_degrees
from vidrestore.analysis.tracks import Track
from vidrestore.imaging.frame import VideoInfo
from vidrestore.imaging.geometry import upright

# A head turned by more than this shows only one cheek.
_AWAY_DEGREES = 45.0
# A person who is away for less than this counts as seen all the time.
_GAP_SECONDS = 1.0

Place = tuple[int, int]
"""The index of a track, and the index of a frame within the track."""


@dataclass(frozen=True, slots=True)
class Person:
    """One person over the whole video."""

    person_id: int
    """The number of the person, from 1."""
    shots: tuple[int, ...]
    """The numbers, from 1, of the shots in which the person is seen."""
    tracks: tuple[int, ...]
    """The `track_id` of each track of the person."""
    seconds_on_screen: float
    """The time in seconds for which the person is on screen."""
    eye_distance_px: float
    """The mean of `eye_distances_px` over all frames of the person, in frame pixels."""
    share_turned_away: float
    """The share of the frames, in [0, 1], in which the head is turned by more than 45 degrees."""
    clearest_seconds: float
    """The time in seconds, from the first frame on, at which the person is seen best."""
    appearances: tuple[tuple[float, float, int], ...]
    """The times at which the person is seen: start and end in seconds, from the first frame on, and
    the number of (face, frame) pairs that may be restored; gaps under a second are part of
    them."""


def people_of(analysis: Analysis) -> list[Person]:
    """Describe the people of an analysis.

    Args:
        analysis: The analysis.

    Returns:
        The people, ordered by number.
    """
    own = places_of_people(analysis.tracks)
    return [_person(analysis, person, places) for person, places in own.items()]


def places_of_people(tracks: Sequence[Track]) -> dict[int, list[int]]:
    """Sort tracks by person.

    Args:
        tracks: The tracks of all people.

    Returns:
        Number of the person, ascending -> the indices of the person's tracks in `tracks`.
    """
    places: dict[int, list[int]] = {}
    for place, track in enumerate(tracks):
        places.setdefault(track.person_id, []).append(place)
    return dict(sorted(places.items()))


def _person(analysis: Analysis, person: int, places: Sequence[int]) -> Person:
    tracks = [analysis.tracks[place] for place in places]
    starts = [start for start, _ in analysis.shots]
    seen = set[int]()
    for track in tracks:
        first, end = bisect_right(starts, track.first_frame), bisect_left(starts, track.end_frame)
        seen.update(range(first, end + 1))
    shots = tuple(sorted(seen))
    sizes_px = [eye_distances_px(track, analysis.template) for track in tracks]
    degrees = np.concatenate([turned_degrees(track) for track in tracks])
    (clearest,) = best_views(analysis.tracks, places, 1)
    return Person(
        person,
        shots,
        tuple(track.track_id for track in tracks),
        sum(seconds_of_track(analysis, track) for track in tracks),
        float(np.concatenate(sizes_px).mean()),
        float((degrees > _AWAY_DEGREES).mean()),
        float(seconds_at(analysis, clearest)),
        tuple(_appearances(analysis, tracks)),
    )


def _appearances(analysis: Analysis, tracks: Sequence[Track]) -> Iterator[tuple[float, float, int]]:
    """Yield start and end in seconds, and the faces, of the times at which a person is seen."""
    begun: tuple[float, float, int] | None = None
    for track in sorted(tracks, key=lambda track: track.first_frame):
        start, end = (_frame_seconds(analysis, at) for at in (track.first_frame, track.end_frame))
        faces = int(np.count_nonzero(track.strength))
        if begun is not None and start - begun[1] < _GAP_SECONDS:
            begun = begun[0], max(begun[1], end), begun[2] + faces
            continue
        if begun is not None:
            yield begun
        begun = start, end, faces
    if begun is not None:
        yield begun


def _frame_seconds(analysis: Analysis, index: int) -> float:
    """Return the time of a frame from the first one on; of the frame after the last, the end."""
    if index < analysis.frame_count:
        ticks = int(analysis.pts[index] - analysis.pts[0])
    else:
        ticks = int(analysis.pts[-1] - analysis.pts[0]) + last_duration(analysis)
    return float(ticks * analysis.info.time_base)


def best_views(tracks: Sequence[Track], own: Sequence[int], most: int) -> list[Place]:
    """Find the frames in which one person is seen best.

    All frames of the person are divided into parts of equal length; each part gives its clearest
    frame.

    Args:
        tracks: The tracks of all people.
        own: The indices of the person's tracks; see `places_of_people`.
        most: The largest number of places to return.

    Returns:
        At most `most` places, ordered by time.
    """
    places = [(i, at) for i in own for at in range(len(tracks[i].matrices))]
    places.sort(key=lambda place: tracks[place[0]].first_frame + place[1])
    edges = np.linspace(0, len(places), min(most, len(places)) + 1).astype(int)

    def clearness(place: Place) -> float:
        track, at = tracks[place[0]], place[1]
        return float(track.strength[at] + track.score[at] + track.detected[at])

    return [max(places[a:b], key=clearness) for a, b in pairwise(edges)]


def seconds_at(analysis: Analysis, place: Place) -> Fraction:
    """Return the time of a place in a track.

    Args:
        analysis: The analysis.
        place: The track and the frame within it.

    Returns:
        The time in seconds since the first frame, as the option --start takes it.
    """
    index = analysis.tracks[place[0]].first_frame + place[1]
    return int(analysis.pts[index] - analysis.pts[0]) * analysis.info.time_base


def seconds_of_track(analysis: Analysis, track: Track) -> float:
    """Measure how long a track is on screen.

    Args:
        analysis: The analysis.
        track: One of its tracks.

    Returns:
        The time in seconds from the start of its first frame to the start of its last frame.
    """
    last = min(track.end_frame, analysis.frame_count) - 1
    ticks = int(analysis.pts[last] - analysis.pts[track.first_frame])
    return float(ticks * analysis.info.time_base)


def as_dict(analysis: Analysis) -> dict[str, Any]:
    """Convert an analysis to plain values for JSON.

    Args:
        analysis: The analysis.

    Returns:
        The facts of the video, the shots, the numbers of faces and the people.
    """
    info = of_file(analysis).info
    view = upright(info)
    width, height = view.coded_size if view.orientation[0] else view.coded_size[::-1]
    return {
        "video": dict(facts_of(analysis)),
        "codec": info.codec,
        "width": width,
        "height": height,
        "rate": float(info.frame_rate),
        "is_interlaced": analysis.fields is not None,
        "seconds": _frame_seconds(analysis, analysis.frame_count),
        "first_seconds": float(int(analysis.pts[0]) * analysis.info.time_base),
        "guessed": sorted(analysis.info.guessed),
        "frames": of_output(analysis).frame_count,
        "last_frame_seconds": _frame_seconds(analysis, analysis.frame_count - 1),
        "joins_seconds": list(info.joins_seconds),
        "shots": [[start, end] for start, end in of_output(analysis).shots],
        "cuts_seconds": [_frame_seconds(analysis, start) for start, _ in analysis.shots[1:]],
        "faces": analysis.face_count,
        "skipped": dict(analysis.skipped),
        "margins": None if analysis.margins is None else asdict(analysis.margins),
        "corrupt_frames": analysis.corrupt_frames,
        "detector": analysis.detector,
        "people_are_joined": analysis.people_are_joined,
        "people": [asdict(person) for person in people_of(analysis)],
        "fingerprint": analysis.fingerprint,
    }


_FIELDS_MODES = {
    "keep": "faces are restored in both fields of each frame, which are woven again",
    "bob": "the output has a frame for each field",
    "frame": "the output has the earlier field of each frame",
    "film": "the output has the frames of the film, without 3:2 pulldown",
}


def facts_of(analysis: Analysis) -> Iterator[tuple[str, str]]:
    """Describe the video stream of an analysis.

    Args:
        analysis: The analysis.

    Yields:
        (name, value) of each fact; the value of a guessed fact ends with a remark about that.
    """
    info = of_file(analysis).info
    yield "video", f"{info.codec}, {info.width} x {info.height}, {info.pixel_format}"
    yield "frame rate", f"{float(info.frame_rate):.6g} nominal{_guess(info, 'frame rate')}"
    yield "matrix", f"{info.matrix}{_guess(info, 'matrix')}"
    yield "range", f"{'full' if info.full_range else 'limited'}{_guess(info, 'range')}"
    if info.sample_aspect_ratio != 1:
        yield "pixel aspect", str(info.sample_aspect_ratio)
    if info.display_orientation != (1, 0, 0, 1):
        yield "orientation", "turned or mirrored by its display matrix"
    if info.is_interlaced:
        first = "top" if info.field_order == "tff" else "bottom"
        yield "fields", f"interlaced, {first} field first{_guess(info, 'field order')}"
    if (fields := analysis.fields) is not None:
        first = "top" if fields.order == "tff" else "bottom"
        yield "fields as measured", f"{first} field first; {_FIELDS_MODES[fields.mode]}"
    if analysis.margins is not None:
        yield "margins", f"no face is taken from {analysis.margins.in_words()}"
    if "chroma location" in info.guessed:
        yield "chroma location", f"{info.chroma_location}{_guess(info, 'chroma location')}"
    if info.transfer != "sdr" or info.primaries != "bt709":
        yield "colours", f"{info.transfer.upper()}, {info.primaries} primaries"
    if analysis.detector:
        yield "faces found with", analysis.detector
    if (light := info.mastering_display) is not None:
        yield "mastered on", f"{float(light[8]):g} to {float(light[9]):g} cd/m2"
    if info.content_light is not None:
        most, average = info.content_light
        yield "light levels", f"at most {most} cd/m2, frames on average at most {average} cd/m2"


def _guess(info: VideoInfo, name: str) -> str:
    return " (guessed: the file does not say)" if name in info.guessed else ""

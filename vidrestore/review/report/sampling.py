"""The choice of the faces that a report measures, and of those that it shows.

The choice depends only on the analysis and the statistics of the run, so it is always the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from vidrestore.analysis.tracks import Track
from vidrestore.restoration.statistics import STRETCH_FRAMES, RestorationStats

Strengths = npt.NDArray[np.float64]
"""(n,) in [0, 1]: how much of the restored face was used in each frame of a track."""
Allowed = npt.NDArray[np.bool_]
"""(frames,) the frames of the output that may be read."""
Places = npt.NDArray[np.int64]
"""(n, 2) a frame of the output, and the index of a track in it."""

_VIEWS_EACH, _APART = 3, 5
# The part of 1 by which neighbors of a sequence with the least regular gaps differ.
_GOLDEN = (5**0.5 - 1) / 2
_STRETCHES, _STRETCH_FRAMES = 12, 24
# Videos of at most this number of frames are read in full, where reading in parts saves little.
_SHORT_FRAMES = 600
_LONGEST_DAMAGED = 300


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Faces that stand for all faces."""

    places: Places
    """The faces, in any order."""
    weights: npt.NDArray[np.float64]
    """(n,) the share of all faces for which each stands; the sum is 1."""
    population: int
    """The number of all faces."""


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


def triples(
    tracks: Sequence[Track], used: Sequence[Strengths], step: int, allowed: Allowed | None
) -> Places:
    """List the faces whose flicker can be measured.

    Args:
        tracks: The tracks of all faces.
        used: For each track, the used strength (`used_strength`).
        step: The number of pictures of the analysis for each frame of the output.
        allowed: The frames of the output that may be read; None: all.

    Returns:
        The faces that are restored, as are those of the same track in the frames before and after.
    """
    parts = [np.zeros((0, 2), np.int64)]
    for place, track in enumerate(tracks):
        indices = track.first_frame + np.flatnonzero(used[place] > 0)
        frames = indices[indices % step == 0] // step
        middles = frames[1:-1][(frames[2:] - frames[:-2]) == 2]
        if allowed is not None:
            middles = middles[allowed[middles - 1] & allowed[middles] & allowed[middles + 1]]
        parts.append(np.stack([middles, np.full(len(middles), place)], axis=1))
    return np.concatenate(parts)


def chosen_sample(
    places: Places,
    people: Sequence[int],
    *,
    most: int,
    shown: Sequence[int] = (),
    least_each: int = 0,
) -> Sample:
    """Choose faces that stand for all faces, spread over people and over time.

    The faces of each shown person, and those of all others together, are ordered by time and
    divided into parts of equal size, and each part gives one face. The number of parts is
    proportional to the number of faces, but at least `least_each` for a shown person. So all times
    have about the same chance, and no rhythm of the video can coincide with the choice.

    Args:
        places: All faces.
        people: The person of each track.
        most: The largest number of faces to choose.
        shown: The people of whom the report has a section.
        least_each: The least number of faces of each shown person, if there are so many.

    Returns:
        The chosen faces; all of them where there are at most `most`.
    """
    count = len(places)
    if count <= most:
        return Sample(places, np.full(count, 1 / max(count, 1)), count)
    of_place = np.array([person if person in shown else 0 for person in people], np.int64)
    person = of_place[places[:, 1]]
    groups = [np.flatnonzero(person == each) for each in np.unique(person)]
    sizes = np.array([len(group) for group in groups])
    least = [0 if person[group[0]] == 0 else least_each for group in groups]
    chosen, weights = [], []
    for group, number in zip(groups, _shares(sizes, np.array(least), most), strict=True):
        if number == 0:
            continue
        group = group[np.argsort(places[group, 0], kind="stable")]
        within = (np.arange(number) * _GOLDEN) % 1
        at = ((np.arange(number) + within) * len(group) / number).astype(int)
        chosen.append(group[at])
        weights.append(np.full(number, len(group) / (count * number)))
    rows, shares = np.concatenate(chosen), np.concatenate(weights)
    return Sample(places[rows], shares / shares.sum(), count)


def _shares(
    sizes: npt.NDArray[np.int64], least: npt.NDArray[np.int64], most: int
) -> npt.NDArray[np.int64]:
    """Divide `most` in proportion to sizes, with at least `least` where the size allows it."""
    numbers = np.minimum(sizes, least)
    while numbers.sum() < most:
        lacking = most * sizes / sizes.sum() - numbers
        lacking[numbers >= sizes] = -np.inf
        numbers[int(np.argmax(lacking))] += 1
    return numbers


def planned_views(
    tracks: Sequence[Track],
    used: Sequence[Strengths],
    people: Sequence[int],
    step: int,
    allowed: Allowed | None,
) -> Mapping[int, list[int]]:
    """Choose the faces that are shown before and after.

    All frames of a person are divided into parts of equal length. Each part gives the frame with
    the largest product of the size of the face and the used strength.

    Args:
        tracks: The tracks of all faces.
        used: For each track, the used strength.
        people: The people who are shown.
        step: The number of pictures of the analysis for each frame of the output.
        allowed: The frames of the output that may be read; None: all.

    Returns:
        Frame of the output -> indices of the tracks that are shown.
    """
    planned: dict[int, list[int]] = {}
    for rows in _frames_of_people(tracks, used, people, step, allowed):
        count = rows.shape[1]
        edges = np.linspace(0, count, min(_VIEWS_EACH, count) + 1).astype(int)
        for a, b in pairwise(edges):
            margin = (b - a) // _APART  # frames next to the same edge would look alike
            a, b = a + margin, b - margin
            index, place, _ = rows[:, a + int(np.argmax(rows[2, a:b]))]
            planned.setdefault(int(index) // step, []).append(int(place))
    return planned


def _frames_of_people(
    tracks: Sequence[Track],
    used: Sequence[Strengths],
    people: Sequence[int],
    step: int,
    allowed: Allowed | None,
) -> Iterator[npt.NDArray[np.float64]]:
    """Yield, for each person, (3, n) picture of the analysis, track and weight, in time order."""
    for person in people:
        parts = [np.zeros((3, 0))]
        for place, track in enumerate(tracks):
            if track.person_id != person:
                continue
            indices = np.arange(track.first_frame, track.end_frame)
            sides = np.abs(np.linalg.det(track.matrices[:, :, :2].astype(np.float64))) ** -0.5
            weights = used[place] * sides * np.where(track.detected, 1, 0.5)
            usable = (indices % step == 0) & (weights > 0)
            if allowed is not None:
                usable &= allowed[np.minimum(indices // step, len(allowed) - 1)]
            parts.append(np.stack([indices, np.full(len(indices), place), weights])[:, usable])
        rows = np.concatenate(parts, axis=1)
        yield rows[:, np.argsort(rows[0], kind="stable")]


def planned_portraits(
    tracks: Sequence[Track], people: Sequence[int], step: int, allowed: Allowed | None
) -> Mapping[int, list[int]]:
    """Choose the frame in which each person is seen best, as contact sheets do.

    Args:
        tracks: The tracks of all faces.
        people: The people who are shown.
        step: The number of pictures of the analysis for each frame of the output.
        allowed: The frames of the output that may be read; None: all.

    Returns:
        Frame of the output -> indices of the tracks; people who are not seen are left out.
    """
    best: dict[int, tuple[float, int, int]] = {}
    for place, track in enumerate(tracks):
        if track.person_id not in people:
            continue
        indices = np.arange(track.first_frame, track.end_frame)
        clear = track.strength.astype(np.float64) + track.score + track.detected
        clear[indices % step != 0] = -np.inf
        if allowed is not None:
            clear[~allowed[np.minimum(indices // step, len(allowed) - 1)]] = -np.inf
        at = int(np.argmax(clear))
        found = (float(clear[at]), int(indices[at]) // step, place)
        if np.isfinite(found[0]) and found[0] > best.get(track.person_id, (-np.inf, 0, 0))[0]:
            best[track.person_id] = found
    planned: dict[int, list[int]] = {}
    for _, frame, place in best.values():
        planned.setdefault(frame, []).append(place)
    return planned


def stretches(
    segments: Sequence[tuple[int, int]],
    tracks: Sequence[Track],
    used: Sequence[Strengths],
    step: int,
    *,
    is_damaged: bool,
) -> list[tuple[int, int]]:
    """Choose parts of a video to read where reading all of it would take long.

    Each segment of the output begins with a key frame, so reading near its start is quick.

    Args:
        segments: [first, end) of each segment, in frames of the output.
        tracks: The tracks of all faces.
        used: For each track, the used strength.
        step: The number of pictures of the analysis for each frame of the output.
        is_damaged: Whether the source can only be read from its beginning.

    Returns:
        [first, end) of each part, in frames of the output, in order; none overlap. Empty where no
        face was restored.
    """
    end = segments[-1][1]
    if end <= _SHORT_FRAMES:
        return [(0, end)]
    if is_damaged:
        return [(0, _LONGEST_DAMAGED)]
    restored = np.zeros(end, np.bool_)
    for track, strength in zip(tracks, used, strict=True):
        frames = (track.first_frame + np.flatnonzero(strength > 0)) // step
        restored[frames[frames < end]] = True
    found = []
    for first, last in segments:
        # Behind the key frame: a search for a time just before it leads to the key frame before.
        first += 1
        faces = first + np.flatnonzero(restored[first:last])
        if len(faces) >= 3:
            begin = min(int(faces[0]), last - 3)
            found.append((begin, min(begin + _STRETCH_FRAMES, last)))
    at = np.linspace(0, len(found) - 1, min(len(found), _STRETCHES)).round().astype(int)
    return [found[each] for each in np.unique(at)]

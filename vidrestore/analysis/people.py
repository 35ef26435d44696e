"""People: cluster tracks into people, and choose whom to restore."""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vidrestore.analysis.choice import Wanted
from vidrestore.analysis.strength import eye_distances_px
from vidrestore.analysis.tracks import RawTrack, Track, mean_direction
from vidrestore.common.errors import UsageError
from vidrestore.imaging.frame import FloatArray

# The quantile of the sizes of a face that counts, because the size is wrong in some frames.
_NOT_LARGEST = 0.9
# The number of entries of a list that are checked together.
_LOOK_AHEAD = 64


def join_people(tracks: Sequence[RawTrack], *, similarity: float) -> list[int]:
    """Assign each track to a person; person 1 is the one seen in the most frames.

    Agglomerative clustering with average linkage: of the groups that never share a frame, the two
    whose mean embeddings are most alike are merged, while their cosine is at least `similarity`. A
    track without an embedding is a person by itself.

    Time: n^2 log n for n tracks with d numbers in each embedding, and n^2 d for the products of the
    embeddings. Memory: at most 14 n^2 + 12 n d bytes, which is 0.4 GB for 5000 tracks.

    Args:
        tracks: The tracks of all shots.
        similarity: The least cosine of two groups of one person, in [-1, 1].

    Returns:
        The number of the person of each track, from 1.
    """
    groups = [[i] for i in range(len(tracks))]
    for a, b in _Linkage(tracks, similarity).merges():
        groups[a] += groups[b]
        groups[b] = []
    return _numbered(groups, tracks)


def people_embeddings(
    people: Sequence[int], embeddings: Sequence[FloatArray | None]
) -> dict[int, FloatArray]:
    """Compute the mean direction of the embeddings of each person.

    Args:
        people: The person of each track.
        embeddings: The embedding of each track, (d,) of unit length, or None.

    Returns:
        Person -> (d,) float32 of unit length; people without any embedding are missing.
    """
    known: dict[int, list[FloatArray]] = {}
    for person, embedding in zip(people, embeddings, strict=True):
        if embedding is not None:
            known.setdefault(person, []).append(embedding)
    means = {person: mean_direction(vectors) for person, vectors in known.items()}
    return {person: mean for person, mean in means.items() if mean is not None}


def chosen(wanted: Wanted, people: Collection[int]) -> frozenset[int]:
    """Choose people by their numbers.

    Args:
        wanted: The named people.
        people: The people of the video.

    Returns:
        The people to restore.

    Raises:
        UsageError: A named person does not exist, or the choice leaves no person.
    """
    there = frozenset(people)
    if missing := sorted(wanted.ids - there):
        who = people_listed(missing)
        others = f"only {_listed(sorted(there))}" if there else "and no other person"
        raise UsageError(
            f"there is no {who} in this video, {others}; vidrestore analyze lists the people"
        )
    left = there - wanted.ids if wanted.all_but else wanted.ids
    if not left:
        raise UsageError(
            f"leaving out {people_listed(sorted(wanted.ids))} leaves no person to restore, because "
            f"there is no other person in this video, only {_listed(sorted(there))}; vidrestore "
            "analyze lists the people"
        )
    return left


def like_reference(
    reference: FloatArray, embeddings: Mapping[int, FloatArray], *, similarity: float
) -> frozenset[int]:
    """Find the people who look like a reference photo.

    There are several where the clustering did not join all tracks of one person.

    Args:
        reference: (d,) the embedding of the face of the photo, of unit length.
        embeddings: Person -> (d,) embedding of unit length.
        similarity: The least cosine of two embeddings of one person, in [-1, 1].

    Returns:
        The people whose embeddings are similar enough; at least one.

    Raises:
        UsageError: No person is similar enough.
    """
    likeness = {person: float(reference @ vector) for person, vector in embeddings.items()}
    alike = people_like(reference, embeddings, similarity=similarity)
    if not alike:
        nearest = max(likeness, key=likeness.__getitem__, default=None)
        most = (
            "no face of the video is clear enough to compare"
            if nearest is None
            else f"the most similar is person {nearest} with {likeness[nearest]:.2f}"
        )
        raise UsageError(
            f"no person in the video has a likeness of {similarity:g} to the reference photo, "
            f"{most}; use another photo, or choose people with --people"
        )
    return alike


def people_like(
    reference: FloatArray, embeddings: Mapping[int, FloatArray], *, similarity: float
) -> frozenset[int]:
    """Find the people whose embeddings are near to another one.

    Args:
        reference: (d,) the embedding, of unit length.
        embeddings: Person -> (d,) embedding of unit length.
        similarity: The least cosine of two embeddings of one person, in [-1, 1].

    Returns:
        The people; may be empty.
    """
    return frozenset(
        person for person, vector in embeddings.items() if reference @ vector >= similarity
    )


def large_people(
    tracks: Sequence[Track], *, min_face_px: float, template_name: str
) -> frozenset[int]:
    """Find the people whose faces are large enough in at least a tenth of their frames.

    The size is that of `eye_distances_px`.

    Args:
        tracks: The tracks of all people.
        min_face_px: The least distance of the eyes, in frame pixels.
        template_name: The template of the crops: "gpen" or "ffhq".

    Returns:
        The numbers of the people.
    """
    sizes_px: dict[int, list[float]] = {}
    for track in tracks:
        own = eye_distances_px(track, template_name).tolist()
        sizes_px.setdefault(track.person_id, []).extend(own)
    return frozenset(
        person for person, px in sizes_px.items() if np.quantile(px, _NOT_LARGEST) >= min_face_px
    )


def surely_recognized(
    references: Sequence[FloatArray],
    tracks: Sequence[Track],
    *,
    similarity: float,
    names: Sequence[str] | None = None,
) -> dict[int, int]:
    """Find the people who surely are those of some embeddings.

    A person is like one reference at most, the most similar one. Of two people who are visible in
    the same frame, only the more similar one is the known person.

    Args:
        references: (d,) embeddings of unit length, one for each known person.
        tracks: The tracks of all people.
        similarity: The least cosine of two embeddings of one person, in [-1, 1].
        names: The name of the known person of each reference; references with one name are of one
            person. Default: each is of another person.

    Returns:
        Person -> index of the reference. Several people may be like one reference, where the
        clustering did not join all tracks of a person. People whose tracks have no embedding are
        missing.
    """
    means = people_embeddings([t.person_id for t in tracks], [t.embedding for t in tracks])
    pairs = sorted(
        (-float(reference @ mean), person, index)
        for index, reference in enumerate(references)
        for person, mean in means.items()
    )
    known = list(map(str, range(len(references)))) if names is None else names
    found: dict[int, int] = {}
    for cosine, person, index in pairs:
        if -cosine < similarity:
            break
        others = {other for other, own in found.items() if known[own] == known[index]}
        if person not in found and not _share_a_frame(tracks, person, others):
            found[person] = index
    return found


def _share_a_frame(tracks: Sequence[Track], person: int, others: Collection[int]) -> bool:
    """Tell whether a person is visible in the same frame as any of some others."""
    own = [track for track in tracks if track.person_id == person]
    return any(
        track.first_frame < other.end_frame and other.first_frame < track.end_frame
        for other in tracks
        if other.person_id in others
        for track in own
    )


def only(tracks: Sequence[Track], people: Collection[int]) -> tuple[list[Track], int]:
    """Set the strength of all people but some to 0.

    Args:
        tracks: The tracks of all people.
        people: The people to restore.

    Returns:
        (tracks, left_out): the tracks in the order given, and the number of (face, frame) pairs
        whose strength became 0.
    """
    kept, left_out = [], 0
    for track in tracks:
        if track.person_id in people:
            kept.append(track)
        else:
            left_out += int(np.count_nonzero(track.strength))
            kept.append(replace(track, strength=np.zeros_like(track.strength)))
    return kept, left_out


class _Linkage:
    """Finds the groups to merge, in order.

    Each group has a list of the groups that it may be merged with, the most similar first, which is
    made together with the group. A pair of groups is in the list of the later group only, so a
    merge makes one list and changes no other. Each list is searched once for groups that still
    exist. A heap holds the first entry of each list. Without it every merge would have to compare
    all pairs.
    """

    def __init__(self, tracks: Sequence[RawTrack], similarity: float) -> None:
        self._similarity = similarity
        n = len(tracks)
        sums = _weighted_embeddings(tracks)
        self._apart = _cannot_join(tracks)
        self._products = sums @ sums.T
        self._lengths = np.sqrt(self._products.diagonal())
        # The index is the first track of the group, the value the number of merges before the
        # group was made; -1: the group was merged into another one.
        self._created_at: npt.NDArray[np.int64] = np.zeros(n, np.int64)
        self._lists: list[npt.NDArray[np.int32]] = []
        self._at = [0] * n
        self._fronts: list[tuple[float, int, int, int, int]] = []
        for group in range(n):
            self._lists.append(self._candidates(group, np.arange(group)))
            self._push(group)

    def merges(self) -> Iterator[tuple[int, int]]:
        """Yield (a, b) with a < b: group b becomes part of group a."""
        count = 0
        while self._fronts:
            _, a, b, owner, made = heapq.heappop(self._fronts)
            if self._created_at[owner] != made:
                continue
            other = a if owner == b else b
            if not self._is_in_list(other, made):
                self._push(owner)
                continue
            count += 1
            self._merge(a, b, count)
            yield a, b

    def _merge(self, a: int, b: int, count: int) -> None:
        products, apart = self._products, self._apart
        square = products[a, a] + 2 * products[a, b] + products[b, b]
        products[a] += products[b]
        products[a, a] = square
        products[:, a] = products[a]
        self._lengths[a] = math.sqrt(max(square, 0.0))
        apart[a] |= apart[b]
        apart[:, a] = apart[a]
        self._created_at[a], self._created_at[b] = count, -1
        self._lists[b] = self._lists[b][:0]
        self._lists[a], self._at[a] = self._candidates(a, np.flatnonzero(self._created_at >= 0)), 0
        self._push(a)

    def _candidates(self, group: int, others: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """Return the groups that a group may be merged with, the most similar first."""
        others = others[~self._apart[group, others]]
        cosines = self._cosines(group, others)
        enough = cosines >= self._similarity
        order = np.argsort(-cosines[enough], kind="stable")
        return others[enough][order].astype(np.int32)

    def _cosines(self, group: int, others: npt.NDArray[Any]) -> npt.NDArray[Any]:
        lengths = self._lengths[group] * self._lengths[others]
        return np.asarray(self._products[group, others] / np.maximum(lengths, 1e-9))

    def _push(self, group: int) -> None:
        """Push the first existing entry of the list of a group to the heap, if there is one."""
        others, made = self._lists[group], int(self._created_at[group])
        at, step = self._at[group], _LOOK_AHEAD
        while at < len(others):
            exists = self._is_in_list(others[at : at + step], made)
            first = int(np.argmax(exists))
            if exists[first]:
                other = int(others[at + first])
                self._at[group] = at + first
                cosine = float(self._cosines(group, others[at + first : at + first + 1])[0])
                pair = min(group, other), max(group, other)
                heapq.heappush(self._fronts, (-cosine, *pair, group, made))
                return
            at, step = at + step, 2 * step
        self._at[group] = len(others)

    def _is_in_list(self, others: Any, made: int) -> Any:
        """Tell whether groups still are what they were when a list was made after `made` merges."""
        return (self._created_at[others] >= 0) & (self._created_at[others] <= made)


def _weighted_embeddings(tracks: Sequence[RawTrack]) -> npt.NDArray[np.float64]:
    """Return (n, d) embeddings times the number of detections of the track; 0 without embedding."""
    d = max((len(t.embedding) for t in tracks if t.embedding is not None), default=1)
    sums = np.zeros((len(tracks), d))
    for row, track in zip(sums, tracks, strict=True):
        if track.embedding is not None:
            row[:] = track.embedding * np.count_nonzero(np.isfinite(track.score))
    return sums


def _cannot_join(tracks: Sequence[RawTrack]) -> npt.NDArray[np.bool_]:
    """Return (n, n), True for pairs that share a frame or of which one has no embedding."""
    first = np.array([t.first_frame for t in tracks])
    end = first + [len(t.score) for t in tracks]
    unknown = np.array([t.embedding is None for t in tracks], dtype=bool)
    together = (first[:, None] < end) & (first < end[:, None])
    return np.asarray(together | unknown[:, None] | unknown)


def _numbered(groups: Sequence[Sequence[int]], tracks: Sequence[RawTrack]) -> list[int]:
    """Number groups by their frames, and return the number of each track."""

    def rank(group: Sequence[int]) -> tuple[int, int]:
        return -sum(len(tracks[i].score) for i in group), min(group)

    people = [0] * len(tracks)
    for person, group in enumerate(sorted(filter(None, groups), key=rank), start=1):
        for i in group:
            people[i] = person
    return people


def people_listed(people: Sequence[int]) -> str:
    """Name people in a sentence.

    Args:
        people: Their numbers, at least one.

    Returns:
        "person 1", or "people 1, 3".
    """
    return f"person {people[0]}" if len(people) == 1 else f"people {_listed(people)}"


def _listed(people: Sequence[int]) -> str:
    return ", ".join(map(str, people))

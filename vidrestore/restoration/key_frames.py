"""Key frames: the network restores some frames of a track, and the frames between are made of them.

The source shows how a face moves from one frame to another. Where it shows that two frames differ
by nothing but motion and light, the restored crop of one of them, warped along that motion, is as
good as another run of a slow network. Two stages share the work: `choose` finds the frames that the
network has to restore, from the crops of the source alone, and `fill` makes the crops of the
others. Both look a finite way and count frames by their index, so that a segment gives the frames
of the whole video.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise, repeat

import cv2
import numpy as np
import numpy.typing as npt
import torch

from vidrestore.analysis.tracks import Track, TracksByFrame
from vidrestore.imaging.fine_texture import with_texture
from vidrestore.imaging.geometry import apply
from vidrestore.imaging.optical_flow import (
    DenseFlow,
    FlowField,
    Grey,
    add_moved,
    closing_error,
    enlarged,
    moved,
    reduced,
    sample,
    squared,
)
from vidrestore.models.face_mesh import LEFT_EYE, LIPS, RIGHT_EYE, places_in_shape
from vidrestore.restoration.crop_comparison import (
    blurred,
    clamp,
    differing,
    doubt_by_light,
    face_ellipse,
    gray_of,
    guide_side,
    light_change,
    mean_square,
    misfit,
    quotient,
    share_changed,
)
from vidrestore.restoration.faces import Face, FaceFrame, track_and_side
from vidrestore.restoration.statistics import RestorationStats

# Frames whose index is a multiple of this are key frames.
_APART = 4
# The number of frames, by their index, that are decided on together. Where they are fewer than
# `_LEAST_SAVING` times their key frames, the network restores all of them.
_STRETCH = 16
_LEAST_SAVING = 1.5
# A crop is made of the key frames that are no more frames away than this.
_FAR = 16
_TIME_SIGMA_FRAMES = 10.0
KEY_REACH_FRAMES = _APART
"""The number of frames before and after a frame on whose crops it depends whether it is a key."""
REACH_FRAMES = max(_STRETCH + 1, _FAR + KEY_REACH_FRAMES)
"""The number of frames before and after a frame on whose crops its own crop depends."""

# Differences, in 8-bit levels, at which weights fall to 1/e: of a neighbor in the mean against
# noise, of the source of a key frame (beyond noise), and of restored key frames.
_NOISE_TOLERANCE = 10.0
_SOURCE_TOLERANCE = 4.0
_RESTORED_TOLERANCE = 20.0
# The same between motions of restored crops and of sources, in pixels at a side of 512.
_WOBBLE_TOLERANCE_PX = 6.0
# Multiples of the median squared difference of sources, which is mostly noise, that do not count:
# against a key frame, and against all that a crop is made of.
_GATE_NOISE = 3.0
_CHANGE_NOISE = 3.0
# The difference of sources, in 8-bit levels, from which on a key frame does not explain a frame;
# and the multiple of the noise that is allowed besides.
_MISFIT_TOLERANCE = 10.0
_NOISE_SHARE = 1.5
# The mean misfits in [0, 1] of an eye, the mouth, any square of the face, and all of the face, from
# which on a frame becomes a key frame; the side of the square as a share of the crop; how far, in
# pixels at a side of 512, the shape of an eye or the lips in the face mesh may be from that in the
# nearer key frame.
_EYE_LIMIT, _MOUTH_LIMIT, _SQUARE_LIMIT, _FACE_LIMIT = 0.13, 0.07, 0.65, 0.055
_SQUARE = 1 / 16
_SHAPE_LIMIT_PX = 3.0
# Half sizes (x, y) of the boxes around eyes and mouth in unit crops.
_EYE_BOX, _MOUTH_BOX = (0.075, 0.05), (0.12, 0.075)
# Standard deviations of blurs, in pixels at a side of 512: of pictures before they are compared, of
# flow, of the correction of wobble, of squared differences against a key frame and against all that
# a crop is made of, and of broad colors.
_GATE_SIGMA_PX = 3.0
_FLOW_SIGMA_PX = 8.0
_WOBBLE_SIGMA_PX = 8.0
_DOUBT_SIGMA_PX = 4.0
_CHANGE_SIGMA_PX = 6.0
_BROAD_SIGMA_PX = 12.0
# The gate of the best key frame below which broad colors come from the source, the more so the
# lower it is. Taken from the source everywhere, they would bring its flicker along.
_EXPLAINED = 0.3
# Weight of "where the nearest key frame says" in the mean of what all key frames say.
_STILLNESS = 0.3
# The least weight of a key frame, so that a crop is made of the nearest ones where none explains.
_LEAST_GATE = 1e-3
# How much of the fine contrast that the mean lost is given back. A little more than all of it makes
# up for what warping takes.
_TEXTURE = 1.12

_Plane = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Guide:
    """What the source shows of one face, and what that means for key frames."""

    gray: Grey
    """(S, S) luma, S between 128 and 256."""
    low: _Plane
    """(S, S, 3) low-passed source in 8-bit levels."""
    is_key: bool
    """Whether other frames may be made of this one."""
    is_kept: bool
    """Whether the restored crop stays as the network made it, because key frames save too little
    here."""


def choose(
    frames: Iterator[FaceFrame], tracks: Sequence[Track], *, of: Container[int]
) -> Iterator[FaceFrame]:
    """Find the frames of some tracks that the network restores.

    A frame is a key frame where its index is a multiple of 4, where its track begins or ends, and
    where the two key frames around it do not explain an eye, the mouth, a square of the face or the
    face as a whole. On stretches of 16 frames of which more than two thirds would be key frames,
    the network restores every frame, and `fill` leaves its crops as they are.

    Memory for each track: up to 34 frames with their crops, and 2 MB of small pictures for each.

    Args:
        frames: The frames with their faces, in order.
        tracks: The tracks of the faces.
        of: The numbers of the tracks that have key frames; other faces pass unchanged.

    Yields:
        The frames in order, each once those of its stretch are known. Faces of these tracks have a
        `guide`, and `is_between` is set on those that the network leaves to `fill`.
    """
    by_frame = TracksByFrame(tracks)
    held: deque[FaceFrame] = deque()
    choices: dict[tuple[int, int], _Choice] = {}
    for frame in chain(frames, repeat(None, 1)):
        if frame is not None:
            held.append(frame)
            index = frame.frame.index
            here = {track.track_id: track for track in by_frame.at(index)}
            for face in frame.faces:
                if face.track_id in of:
                    choice = choices.setdefault(track_and_side(face), _Choice())
                    choice.add(index, face, _regions(here[face.track_id], index))
        while held:
            stretch = held[0].frame.index // _STRETCH
            last = (stretch + 1) * _STRETCH + 1
            if frame is not None and frame.frame.index < last:
                break
            decided = {key: choice.decide(stretch) for key, choice in choices.items()}
            while held and held[0].frame.index // _STRETCH == stretch:
                one = held.popleft()
                yield one.with_faces(
                    tuple(_with_role(face, decided, one.frame.index) for face in one.faces)
                )
            choices = {key: choice for key, choice in choices.items() if choice.is_used}


def _with_role(face: Face, decided: dict[tuple[int, int], dict[int, Guide]], index: int) -> Face:
    guide = decided.get(track_and_side(face), {}).get(index)
    if guide is None:
        return face
    return replace(face, guide=guide, is_between=not (guide.is_key or guide.is_kept))


@dataclass(frozen=True, slots=True)
class _Regions:
    """Where eyes and mouth are in the crop of one frame."""

    eyes: tuple[_Box, _Box]
    mouth: _Box
    shape: npt.NDArray[np.float64] | None
    """(26, 2) points of eyes and lips of the face mesh in the unit crop; None without a mesh."""


_Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in the unit crop."""
_FEATURES = [place for part in (LEFT_EYE, RIGHT_EYE, LIPS) for place in places_in_shape(part)]
_FEATURE_PARTS = [
    [_FEATURES.index(place) for place in places_in_shape(part)]
    for part in (LEFT_EYE, RIGHT_EYE, LIPS)
]


def _regions(track: Track, index: int) -> _Regions:
    at = index - track.first_frame
    points = apply(track.matrices[at].astype(np.float64), track.landmarks[at].astype(np.float64))
    mouth = points[3:].mean(axis=0)
    shape = None
    if track.shapes is not None:
        shape = track.shapes[at, _FEATURES].astype(np.float64)
    return _Regions(
        (_box(points[0], _EYE_BOX), _box(points[1], _EYE_BOX)), _box(mouth, _MOUTH_BOX), shape
    )


def _box(center: npt.NDArray[np.float64], half: tuple[float, float]) -> _Box:
    (x, y), (dx, dy) = center, half
    return x - dx, y - dy, x + dx, y + dy


@dataclass(slots=True, eq=False)
class _Seen:
    """The source of one frame."""

    small: _Plane
    """(S, S, 3) in 8-bit levels."""
    gray: Grey
    """(S, S) luma."""
    low: _Plane
    """(S, S, 3) low-passed."""
    regions: _Regions
    steadied: tuple[Grey, _Plane] | None = None
    """(luma, low-passed source) of the source averaged against noise."""


class _Choice:
    """The key frames of one track."""

    def __init__(self) -> None:
        self._flow = DenseFlow()
        self._seen: dict[int, _Seen] = {}
        self._flows: dict[tuple[int, int], FlowField] = {}

    @property
    def is_used(self) -> bool:
        """Whether any frame is held."""
        return bool(self._seen)

    def add(self, index: int, face: Face, regions: _Regions) -> None:
        """Add the crop of a frame."""
        small = reduced(face.source, guide_side(face.work_px))
        self._seen[index] = _Seen(small, gray_of(small), blurred(small, _GATE_SIGMA_PX), regions)

    def decide(self, stretch: int) -> dict[int, Guide]:
        """Return the guides of the frames of a stretch, and forget what no later one needs."""
        first, end = stretch * _STRETCH, (stretch + 1) * _STRETCH
        keys = set[int]()
        for anchor in range(first, end, _APART):
            for begin, last in self._runs(anchor, anchor + _APART):
                keys |= {begin, last} | set(self._within(begin, last))
        here = [index for index in range(first, end) if index in self._seen]
        is_kept = len(here) < _LEAST_SAVING * len(keys.intersection(here))
        guides = {index: Guide(*self._steadied(index), index in keys, is_kept) for index in here}
        # The next stretch needs the frame before it for the mean against noise.
        for index in [index for index in self._seen if index < end - 1]:
            del self._seen[index]
        self._flows = {pair: flow for pair, flow in self._flows.items() if min(pair) >= end - 1}
        return guides

    def _runs(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Yield (first, last) of the frames without a gap, within frames first to last."""
        begin = None
        for index in range(first, last + 1):
            if index in self._seen and begin is None:
                begin = index
            if begin is not None and (index == last or index + 1 not in self._seen):
                yield begin, index
                begin = None

    def _within(self, first: int, last: int) -> Iterator[int]:
        """Yield the key frames between two key frames."""
        if last - first < 2:
            return
        noise = self._noise(first, last)
        scores = {at: self._score(at, first, last, noise) for at in range(first + 1, last)}
        worst = max(scores, key=lambda at: (scores[at], -at))
        if scores[worst] > 1:
            yield from self._within(first, worst)
            yield worst
            yield from self._within(worst, last)

    def _noise(self, first: int, last: int) -> float:
        """Return the squared change from frame to frame that is not motion, in squared levels."""
        inside = face_ellipse(len(self._seen[first].gray))[::4, ::4]
        changes = []
        for a, b in pairwise(range(first, last + 1)):
            (gray, low), (other_gray, other) = self._steadied(a), self._steadied(b)
            there = sample(other, self._flow_between(a, b, gray, other_gray))
            change = misfit(there, light_change(low, there), low)[::4, ::4]
            changes.append(float(np.median(change[inside])))
        return float(np.median(changes))

    def _score(self, at: int, first: int, last: int, noise: float) -> float:
        """Return how badly two key frames explain a frame; above 1 it is a key frame, too."""
        doubt = np.minimum(self._doubt(at, first, noise), self._doubt(at, last, noise))
        misfit = 1 - np.exp(-doubt)
        side = len(misfit)
        wide = max(1, round(side * _SQUARE))
        face = face_ellipse(side)
        squares = cv2.boxFilter(misfit, -1, (wide, wide))[face]
        regions = self._seen[at].regions
        eyes = max(_mean_in(misfit, box) for box in regions.eyes)
        mouth = _mean_in(misfit, regions.mouth)
        found = [eyes / _EYE_LIMIT, mouth / _MOUTH_LIMIT, float(squares.max()) / _SQUARE_LIMIT]
        found.append(float(misfit[face].mean()) / _FACE_LIMIT)
        found.append(self._shape_change(at, first, last) / _SHAPE_LIMIT_PX)
        return max(found)

    def _shape_change(self, at: int, *keys: int) -> float:
        """Return how far an eye or the mouth of the mesh is from its shape in the nearer key.

        It is in pixels at a side of 512, 0 without a mesh.
        """
        own = self._seen[at].regions.shape
        if own is None:
            return 0.0
        least = np.full(len(_FEATURE_PARTS), np.inf)
        for key in keys:
            other = self._seen[key].regions.shape
            if other is None:
                return 0.0
            for i, part in enumerate(_FEATURE_PARTS):
                apart = own[part] - other[part]
                apart = 512 * (apart - apart.mean(axis=0))
                least[i] = min(least[i], float(np.sqrt((apart**2).sum(axis=1).mean())))
        return float(least.max())

    def _doubt(self, at: int, key: int, noise: float) -> _Plane:
        (gray, low), (key_gray, key_low) = self._steadied(at), self._steadied(key)
        there_flow = self._flow_between(at, key, gray, key_gray)
        back_flow = self._flow_between(key, at, key_gray, gray)
        there = sample(key_low, there_flow)
        light = light_change(low, there)
        change = misfit(there, light, low) - np.float32(_NOISE_SHARE * noise)
        np.maximum(change, 0, out=change)
        change /= np.float32(_MISFIT_TOLERANCE**2)
        change += closing_error(there_flow, back_flow, len(gray) / 256) / 2
        change += doubt_by_light(low, there)
        return change

    def _steadied(self, index: int) -> tuple[Grey, _Plane]:
        """Return luma and low-passed source, averaged along the motion with both neighbors."""
        seen = self._seen[index]
        if seen.steadied is None:
            total, weight = seen.small.copy(), np.ones_like(seen.small[..., 0])
            for other in (self._seen.get(index - 1), self._seen.get(index + 1)):
                if other is None:
                    continue
                flow = self._flow(seen.gray, other.gray)
                change = mean_square(sample(other.low, flow) - seen.low)
                gate = np.exp(change / np.float32(-(_NOISE_TOLERANCE**2))) / 2
                total += sample(other.small, flow) * gate[..., None]
                weight += gate
            total /= weight[..., None]
            seen.steadied = gray_of(total), blurred(total, _GATE_SIGMA_PX)
        return seen.steadied

    def _flow_between(self, first: int, second: int, gray: Grey, other: Grey) -> FlowField:
        if (first, second) not in self._flows:
            self._flows[first, second] = self._flow(gray, other)
        return self._flows[first, second]


def _mean_in(plane: _Plane, box: _Box) -> float:
    """Return the mean of a plane in a box; 0 where the box lies outside."""
    side = len(plane)
    x1, y1, x2, y2 = (int(np.clip(round(edge * side), 0, side)) for edge in box)
    part = plane[y1:y2, x1:x2]
    return float(part.mean()) if part.size else 0.0


def _noise_in(squares: _Plane) -> np.float32:
    """Return the median of squared differences on the face, most of which is noise."""
    return np.float32(np.median(squares[face_ellipse(len(squares))]))


def fill(
    frames: Iterator[FaceFrame],
    stats: RestorationStats,
    *,
    needed: range | None = None,
) -> Iterator[FaceFrame]:
    """Make the crops between key frames, and let key frames agree with each other.

    Each crop is a mean of the restored key frames up to 16 frames away, warped along the motion of
    the source and weighted by how well the source shows the same. What the source shows beyond its
    noise and is not in the key frames is added, blurred as the source is. Where no key frame
    explains the source, broad colors come from the source. Faces without a guide, and those on
    stretches where the network restored every frame, pass unchanged.

    Args:
        frames: The frames with their faces, in order, as `choose` and then the network left them.
        stats: The statistics, which receive counts.
        needed: The frames that later stages use; others pass as they are. Default: all.

    Yields:
        The frames in order, `REACH_FRAMES` later at most.
    """
    held: deque[FaceFrame] = deque()
    fillers: dict[tuple[int, int], _Filler] = {}
    for frame in chain(frames, repeat(None, 1)):
        if frame is not None:
            held.append(frame)
            for face in frame.faces:
                if face.guide is not None:
                    filler = fillers.setdefault(track_and_side(face), _Filler())
                    filler.add(frame.frame.index, face)
        while held and (frame is None or held[0].frame.index + _FAR <= frame.frame.index):
            one = held.popleft()
            index = one.frame.index
            faces = one.faces
            if needed is None or index in needed:
                faces = tuple(_filled(face, fillers, index, stats) for face in faces)
            for filler in fillers.values():
                filler.forget(index - _FAR)
            fillers = {key: filler for key, filler in fillers.items() if filler.is_used}
            yield one.with_faces(faces)


def _filled(
    face: Face, fillers: dict[tuple[int, int], _Filler], index: int, stats: RestorationStats
) -> Face:
    if face.guide is None or (face.restored is None and not face.is_between):
        return face  # the network left it out, which was counted
    if face.guide.is_kept:
        stats.fast += stats.counts(index)
        return face
    result = fillers[track_and_side(face)].fill(index, face)
    if stats.counts(index) and face.is_between:
        if result.restored is None:
            stats.not_restored["no key frame near it was restored"] += 1
        else:
            stats.between += 1
    return result


@dataclass(frozen=True, slots=True, eq=False)
class _KeyCrop:
    """The restored crop of a key frame, and the small pictures that are compared."""

    restored: torch.Tensor
    """(3, W, W), the crop that the network made."""
    small: _Plane
    """(S, S, 3) low-passed restored crop in 8-bit levels."""
    gray: Grey
    """(S, S) luma of the restored crop."""
    changed: _Plane | None
    """(S, S) share of the pixels that the restorer changed; None where it changed all."""


@dataclass(frozen=True, slots=True, eq=False)
class _Path:
    """How the source of one frame leads to that of a key frame."""

    flow: FlowField
    """(S, S, 2) flow in pixels of S."""
    gate: _Plane
    """(S, S) in [0, 1]: how surely both show the same."""
    light: _Plane
    """(2, 3) gain and offset in 8-bit levels that bring the key frame into the light of the frame.
    """


@dataclass(frozen=True, slots=True, eq=False)
class _Link:
    """How the restored crop of one key frame leads to that of another."""

    flow: FlowField
    """(S, S, 2) flow in pixels of S."""
    gate: _Plane
    """(S, S) in [0, 1]: how surely both show the same."""


class _Filler:
    """The crops of one track."""

    def __init__(self) -> None:
        self._flow = DenseFlow()
        self._guides: dict[int, Guide] = {}
        self._keys: dict[int, _KeyCrop] = {}
        self._paths: dict[tuple[int, int], _Path] = {}
        self._links: dict[tuple[int, int], _Link] = {}
        self._flows: dict[tuple[int, int], FlowField] = {}

    @property
    def is_used(self) -> bool:
        """Whether any frame is held."""
        return bool(self._guides)

    def add(self, index: int, face: Face) -> None:
        """Add a frame."""
        if (guide := face.guide) is None:
            return
        self._guides[index] = guide
        if guide.is_key and face.restored is not None:
            result = reduced(face.restored, len(guide.gray))
            changed = share_changed(differing(face.restored, face.source), len(guide.gray))
            self._keys[index] = _KeyCrop(
                face.restored, blurred(result, _GATE_SIGMA_PX), gray_of(result), changed
            )

    def forget(self, first: int) -> None:
        """Drop all frames before one."""
        for index in [index for index in self._guides if index <= first]:
            del self._guides[index]
            self._keys.pop(index, None)
        for kept in (self._paths, self._links, self._flows):
            for pair in [pair for pair in kept if min(pair) <= first]:
                del kept[pair]

    def fill(self, index: int, face: Face) -> Face:
        """Return the face with its crop."""
        guide, keys = self._guides[index], self._around(index)
        if not keys or keys == [index]:
            return face
        nearest = min(keys, key=lambda key: (abs(key - index), key))
        shares = {key: self._share(index, key) for key in keys}
        paths = {nearest: self._place(index, nearest, shares)}
        for key in keys:
            if key != nearest:
                link = self._link(nearest, key)
                paths[key] = paths[nearest] + sample(link.flow, paths[nearest])
                shares[key] = shares[key] * sample(link.gate, paths[nearest])
        side = len(guide.gray)
        weight = np.zeros((side, side), np.float32)
        offsets = np.zeros((3, side, side), np.float32)
        total = torch.zeros_like(face.source)
        for key in keys:
            gains, offset = self._path(index, key).light
            add_moved(total, self._keys[key].restored, paths[key], shares[key], gains=gains)
            offsets += shares[key] * (offset[:, None, None] / 255)
            weight += shares[key]
        if index not in self._keys:
            offsets += self._missing(guide, keys, index, shares, paths, weight)
        mean = quotient(total, offsets, weight, face.work_px)
        model = moved(self._keys[nearest].restored, paths[nearest])
        mean = with_texture(mean, model, _TEXTURE)
        clamp(mean)
        return replace(face, restored=self._only_changed(mean, face, shares, paths, weight))

    def _share(self, index: int, key: int) -> _Plane:
        """Return (S, S): how much a key frame counts, by its source and its distance in time."""
        # The weight falls to 0, or the mean would change where a key frame comes within reach.
        apart = (key - index) ** 2
        near = np.exp(-apart / (2 * _TIME_SIGMA_FRAMES**2)) * (1 - apart / (_FAR + 1) ** 2)
        return np.asarray(
            np.float32(near) * (self._path(index, key).gate + np.float32(_LEAST_GATE))
        )

    def _only_changed(
        self,
        made: torch.Tensor,
        face: Face,
        shares: dict[int, _Plane],
        paths: dict[int, FlowField],
        weight: _Plane,
    ) -> torch.Tensor:
        """Return the crop with the source where the restorer changed nothing in the key frames."""
        planes = {key: self._keys[key].changed for key in shares}
        if all(plane is None for plane in planes.values()):
            return made
        total = np.zeros_like(weight)
        for key, plane in planes.items():
            total += shares[key] if plane is None else shares[key] * sample(plane, paths[key])
        side, device = made.shape[-1], made.device
        share = enlarged(total / weight, side, device)
        mixed = torch.lerp(face.source, made, share)
        if face.restored is not None:
            same = ~differing(face.restored, face.source)
            return torch.where(same, face.restored, mixed)
        return torch.where(share > 0, mixed, face.source)

    def _around(self, index: int) -> list[int]:
        """Return the key frames that a frame is made of, in order."""

        def first_of(frames: range) -> list[int]:
            found = list[int]()
            for at in frames:
                if at not in self._guides:
                    break
                if at in self._keys:
                    found.append(at)
            return found

        before = first_of(range(index - 1, index - _FAR - 1, -1))
        own = [index] if index in self._keys else []
        return [*before[::-1], *own, *first_of(range(index + 1, index + _FAR + 1))]

    def _place(self, index: int, nearest: int, shares: dict[int, _Plane]) -> FlowField:
        """Return where a frame is seen in the nearest key frame, as all key frames tell.

        Each tells it by the motion of the source to itself and that of the restored crops from
        there to the nearest one. Their mean has less of the noise of the source, and takes out how
        far each key frame wobbles.
        """
        own = self._path(index, nearest).flow
        total = np.zeros_like(own)
        weight = shares[nearest] + np.float32(_STILLNESS)
        for key, share in shares.items():
            if key != nearest:
                link, there = self._link(key, nearest), self._path(index, key).flow
                share = share * sample(link.gate, there)
                told = there + sample(link.flow, there) - own
                total += share[..., None] * told
                weight = weight + share
        return own + blurred(total / weight[..., None], _WOBBLE_SIGMA_PX)

    def _missing(
        self,
        guide: Guide,
        keys: Sequence[int],
        index: int,
        shares: dict[int, _Plane],
        paths: dict[int, FlowField],
        weight: _Plane,
    ) -> _Plane:
        """Return (3, S, S) what the source shows that is not in the mean of the key frames.

        It is multiplied by the weight, and in [0, 1] units.
        """
        blend, seen = np.zeros_like(guide.low), np.zeros_like(guide.low)
        for key in keys:
            path, share = self._path(index, key), shares[key][..., None]
            gain, offset = path.light
            blend += share * (sample(self._keys[key].small, paths[key]) * gain + offset)
            seen += share * (sample(self._guides[key].low, path.flow) * gain + offset)
        change = guide.low - seen / weight[..., None]
        size = blurred(mean_square(change.copy()), _CHANGE_SIGMA_PX)
        # Where it is hardly more than noise, it would be seen as flicker.
        change *= np.clip(1 - _CHANGE_NOISE * _noise_in(size) / (size + 1e-6), 0, 1)[..., None]
        explained = np.max([self._path(index, key).gate for key in keys], axis=0)
        apart = blurred(guide.low - blend / weight[..., None] - change, _BROAD_SIGMA_PX)
        lacking = np.clip(1 - explained / np.float32(_EXPLAINED), 0, 1)
        lacking = blurred(lacking, _GATE_SIGMA_PX)
        missing = apart * lacking[..., None] + change
        return np.moveaxis(missing * (weight[..., None] / np.float32(255)), -1, 0)

    def _path(self, first: int, second: int) -> _Path:
        """Return how the source leads from one frame to another."""
        if (first, second) not in self._paths:
            a, b = self._guides[first], self._guides[second]
            if first == second:
                one = np.ones(a.gray.shape, np.float32)
                light = np.array([[1, 1, 1], [0, 0, 0]], np.float32)
                path = _Path(np.zeros((*one.shape, 2), np.float32), one, light)
            else:
                forward = self._flow_between(first, second)
                there = sample(b.low, forward)
                light = light_change(a.low, there)
                doubt = closing_error(forward, self._flow_between(second, first), len(there) / 256)
                change = blurred(misfit(there, light, a.low), _DOUBT_SIGMA_PX)
                change -= np.float32(_GATE_NOISE * _noise_in(change))
                doubt += np.maximum(change, 0) / np.float32(_SOURCE_TOLERANCE**2)
                doubt += doubt_by_light(a.low, there)
                path = _Path(forward, np.exp(-doubt), light)
            self._paths[first, second] = path
        return self._paths[first, second]

    def _flow_between(self, first: int, second: int) -> FlowField:
        if (first, second) not in self._flows:
            a, b = self._guides[first].gray, self._guides[second].gray
            # A smooth flow follows the noise of the source less, which would be seen as flicker.
            self._flows[first, second] = blurred(self._flow(a, b), _FLOW_SIGMA_PX)
        return self._flows[first, second]

    def _link(self, first: int, second: int) -> _Link:
        """Return how the restored crop of one key frame leads to that of another."""
        if (first, second) not in self._links:
            a, b = self._keys[first], self._keys[second]
            path = self._path(first, second)
            flow = self._flow(a.gray, b.gray)
            side = len(a.gray)
            doubt = squared(flow - path.flow) / np.float32((_WOBBLE_TOLERANCE_PX * side / 512) ** 2)
            apart = misfit(sample(b.small, flow), path.light, a.small)
            doubt += apart / np.float32(_RESTORED_TOLERANCE**2)
            self._links[first, second] = _Link(flow, np.exp(-doubt))
        return self._links[first, second]

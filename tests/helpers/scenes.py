"""Composed scenes whose truth is known: real faces that move, cross, hide, leave and return.

Detections of them are a detector's own, or simulated: the truth with noise, misses and false
alarms, and embeddings with the statistics of a real recogniser.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from vidrestore.analysis.tracks import Observation, RawTrack
from vidrestore.models.detectors import Detection, Detector

Array = npt.NDArray
WIDTH, HEIGHT = 480, 270
RATE = 25
# A face of which less is seen is neither asked for nor a false alarm.
VISIBLE = 0.5
# Landmarks further from the truth, in eye distances, are of something else.
NEAR_EYES = 0.5

# Boxes and landmarks, in pixels, of the six faces of insightface's "t1" and of scikit-image's
# astronaut.
_FACES = (
    ([61, 268, 168, 397], [[87, 321], [137, 311], [118, 340], [101, 364], [146, 355]]),
    ([267, 151, 372, 278], [[283, 207], [322, 194], [299, 230], [307, 253], [338, 241]]),
    ([466, 267, 568, 412], [[488, 323], [540, 330], [507, 355], [484, 372], [529, 379]]),
    ([749, 352, 848, 475], [[767, 401], [809, 404], [777, 428], [769, 446], [806, 447]]),
    ([906, 58, 1005, 202], [[921, 121], [946, 117], [921, 150], [935, 172], [959, 167]]),
    ([1126, 273, 1221, 397], [[1143, 321], [1190, 320], [1161, 340], [1149, 363], [1190, 362]]),
    ([178, 63, 268, 176], [[200, 102], [247, 103], [220, 125], [199, 143], [240, 144]]),
)
PEOPLE = len(_FACES)


@dataclass(frozen=True)
class Pose:
    """Where a face stands in one frame: its centre and height in pixels, its roll in degrees."""

    x: float
    y: float
    height: float
    roll: float = 0.0
    depth: int = 0
    """Faces of greater depth are nearer and cover others."""


@dataclass(frozen=True)
class Truth:
    """A face of one frame as it is."""

    box: Array
    landmarks: Array
    visible: float
    """Share that lies within the picture and is not covered."""


Way = Callable[[int], Pose]


@dataclass
class Scene:
    """Shots one after the other: how many frames, and who moves how."""

    shots: Sequence[tuple[int, Mapping[int, Way]]]
    flashes: tuple[int, ...] = ()
    seed: int = 0
    _known: dict[int, dict[int, Truth]] = field(default_factory=dict)

    @property
    def frame_count(self) -> int:
        return sum(count for count, _ in self.shots)

    @property
    def starts(self) -> list[int]:
        """First frames of the shots."""
        return np.cumsum([0, *[count for count, _ in self.shots]])[:-1].tolist()

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        return tuple(zip(self.starts, [*self.starts[1:], self.frame_count], strict=True))

    def _poses(self, index: int) -> list[tuple[int, Pose]]:
        """From the furthest to the nearest."""
        shot = int(np.searchsorted(self.starts, index, side="right")) - 1
        ways = self.shots[shot][1]
        poses = [(person, way(index - self.starts[shot])) for person, way in ways.items()]
        return sorted(poses, key=lambda one: one[1].depth)

    def picture(self, index: int) -> Array:
        """(270, 480, 3) uint8 BGR."""
        shot = int(np.searchsorted(self.starts, index, side="right")) - 1
        canvas = _background(100 * self.seed + shot).copy()
        for person, pose in self._poses(index):
            _paste(canvas, _cut_out(person), _placed(person, pose))
        if index in self.flashes:
            canvas = 150 + canvas // 2
        return cv2.subtract(cv2.add(canvas, np.roll(_noise(), 37 * index)), (6, 6, 6, 0))

    def truth(self, index: int) -> dict[int, Truth]:
        """Person -> face, also those that are covered or out of the picture."""
        if index not in self._known:
            free = np.ones((HEIGHT, WIDTH), np.uint8)
            known = {}
            for person, pose in reversed(self._poses(index)):
                box, points = _FACES[person]
                matrix = _placed(person, pose)
                mask = np.zeros((HEIGHT, WIDTH), np.uint8)
                centre = matrix @ [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, 1]
                scale = float(np.hypot(*matrix[:, 0]))
                axes = (scale * (box[2] - box[0]) / 2, scale * (box[3] - box[1]) / 2)
                cv2.ellipse(mask, (centre.tolist(), (2 * axes[0], 2 * axes[1]), pose.roll), 1, -1)
                whole = np.pi * axes[0] * axes[1]
                corners = np.array(box, float)[[[0, 1], [2, 1], [0, 3], [2, 3]]]
                outer = corners @ matrix[:, :2].T + matrix[:, 2]
                known[person] = Truth(
                    np.concatenate([outer.min(axis=0), outer.max(axis=0)]).astype(np.float32),
                    (np.array(points) @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32),
                    min(1.0, float((mask & free).sum() / whole)),
                )
                free &= 1 - mask
            self._known[index] = known
        return self._known[index]


@cache
def _photographs() -> tuple[Array, Array]:
    from insightface.data import get_image
    from skimage import data

    return get_image("t1"), np.ascontiguousarray(data.astronaut()[..., ::-1])


@cache
def _cut_out(person: int) -> tuple[Array, Array]:
    """One head with an alpha channel whose edge is soft, and where it is in the photograph."""
    picture = _photographs()[person == PEOPLE - 1]
    x0, y0, x1, y1 = _FACES[person][0]
    alpha = np.zeros(picture.shape[:2], np.uint8)
    centre, size = ((x0 + x1) / 2, (y0 + y1) / 2), (1.35 * (x1 - x0), 1.4 * (y1 - y0))
    cv2.ellipse(alpha, (centre, size, 0), 255, -1)
    left, top = max(0, x0 - 45), max(0, y0 - 60)
    part = slice(top, y1 + 60), slice(left, x1 + 45)
    soft = cv2.GaussianBlur(alpha, (0, 0), 3)
    return np.dstack([picture, soft])[part], np.array([left, top])


def _paste(canvas: Array, patch: tuple[Array, Array], matrix: Array) -> None:
    head, corner = patch
    ends = (np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * head.shape[1::-1] + corner) @ matrix[
        :, :2
    ].T
    low = np.clip(np.floor((ends + matrix[:, 2]).min(axis=0)), 0, [WIDTH, HEIGHT]).astype(int)
    high = np.clip(np.ceil((ends + matrix[:, 2]).max(axis=0)), 0, [WIDTH, HEIGHT]).astype(int)
    if (high <= low).any():
        return
    shift = (matrix[:, 2] + matrix[:, :2] @ corner - low)[:, None]
    turned = cv2.warpAffine(head, np.hstack([matrix[:, :2], shift]), (high - low).tolist())
    region = canvas[low[1] : high[1], low[0] : high[0]]
    alpha = turned[..., 3:] / np.float32(255)
    region[...] = region + alpha * (turned[..., :3] - region.astype(np.float32)) + 0.5


@cache
def _noise() -> Array:
    noise = np.random.default_rng(0).normal(6, 2, (HEIGHT, WIDTH)).clip(0, 12)
    return cv2.merge([noise.round().astype(np.uint8)] * 3)


def _placed(person: int, pose: Pose) -> Array:
    """(2, 3) from the photograph to the picture."""
    x0, y0, x1, y1 = _FACES[person][0]
    matrix = cv2.getRotationMatrix2D(
        ((x0 + x1) / 2, (y0 + y1) / 2), -pose.roll, pose.height / (y1 - y0)
    )
    matrix[:, 2] += [pose.x - (x0 + x1) / 2, pose.y - (y0 + y1) / 2]
    return matrix


@cache
def _background(seed: int) -> Array:
    """Coloured clouds with fine texture."""
    random = np.random.default_rng(seed)
    level = random.uniform(40, 150, 3)
    clouds = cv2.resize(random.normal(0, 35, (5, 8, 3)), (WIDTH, HEIGHT), interpolation=2)
    grain = cv2.GaussianBlur(random.normal(0, 25, (HEIGHT, WIDTH, 3)), (0, 0), 1.5)
    return np.clip(level + clouds + grain, 0, 255).astype(np.uint8)


def composed(seed: int, people: int | None = None) -> Scene:
    """Two to five people in two shots with a flash: some cross, hide behind others, or leave."""
    random = np.random.default_rng(seed)
    count = people or 2 + seed % 4
    cast = random.permutation(PEOPLE)[:count].tolist()
    first, second = (int(random.integers(55, 75)) for _ in range(2))
    flash = int(random.integers(8, first - 8))
    flashes = tuple(range(flash, flash + int(random.integers(1, 3))))
    shots = [(n, _cast(random, random.permutation(cast).tolist(), n)) for n in (first, second)]
    return Scene(shots, flashes, seed)


def _cast(random: np.random.Generator, people: list[int], count: int) -> dict[int, Way]:
    """By twos they cross or one passes behind the other; one that is left over goes and returns."""
    rows = random.permutation([75.0, 190.0]).tolist()
    ways: dict[int, Way] = {}
    for row in rows:
        if len(people) >= 2:
            a, b = people.pop(), people.pop()
            pair = crossing if random.random() < 0.6 else hiding
            ways[a], ways[b] = pair(random, count, row)
    for person in people:
        ways[person] = leaving(random, count, rows[-1] if len(ways) < 4 else 132.0)
    return ways


def crossing(random: np.random.Generator, count: int, y: float) -> tuple[Way, Way]:
    """Two faces go past each other, one covering the other for a while."""
    heights = random.uniform(60, 85, 2)
    left, right = random.uniform(60, 120), random.uniform(300, 400)
    depth = random.permutation(2).tolist()
    lift = random.uniform(-8, 8)
    return (
        _straight(random, (left, y), (right, y + lift), heights[0], count, depth[0]),
        _straight(random, (right, y), (left, y - lift), heights[1], count, depth[1]),
    )


def hiding(random: np.random.Generator, count: int, y: float) -> tuple[Way, Way]:
    """One face stands; another passes behind it."""
    x = random.uniform(180, 300)
    stands = _straight(random, (x, y), (x + random.uniform(-10, 10), y), 80, count, 1)
    passes = _straight(random, (x - 130, y), (x + 130, y), random.uniform(58, 70), count, 0)
    return stands, passes


def leaving(random: np.random.Generator, count: int, y: float) -> Way:
    """Goes out of the picture at its left edge and comes back."""
    height, start = random.uniform(60, 80), random.uniform(70, 90)
    depth = start + height + random.uniform(10, 40)

    def way(t: int) -> Pose:
        return Pose(start - depth * np.sin(np.pi * t / (count - 1)) ** 2, y, height, 0, 2)

    return way


def _straight(
    random: np.random.Generator,
    start: tuple[float, float],
    end: tuple[float, float],
    height: float,
    count: int,
    depth: int,
) -> Way:
    roll, phase, sway = random.uniform(-12, 12), random.uniform(0, 6), random.uniform(0, 3)

    def way(t: int) -> Pose:
        share = t / (count - 1)
        wave = np.sin(2 * np.pi * share + phase)
        return Pose(
            start[0] + share * (end[0] - start[0]) + sway * wave,
            start[1] + share * (end[1] - start[1]) + 2 * sway * wave,
            height * (1 + 0.06 * wave),
            roll * wave,
            depth,
        )

    return way


class Simulated(Detector):
    """A detector and a recogniser that look at the truth instead of the picture.

    Misses 4 % of the clear faces, more of covered ones, all in a flash; landmarks err by 3 % of the
    eye distance; one frame in ten has a false alarm. Of two boxes that overlap by more than 0.4 the
    more covered is lost, as non-maximum suppression would have it.

    Embeddings have 128 numbers. Those of one person have a mean cosine of 0.83, 5 % below 0.59;
    those of different people 0.0, 5 % above 0.15: what MobileFaceNet was measured to give.
    """

    coarse = False

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        # Two, so that the detections are the same whoever is recognised.
        self._random, self._eye = (np.random.default_rng((scene.seed, i)) for i in (1, 2))
        self._who = _unit(self._eye.normal(size=(PEOPLE, 128)))
        self.index = 0
        self.recognised = 0

    def __call__(self, picture: Array) -> list[Detection]:
        """The detections of frame `index`."""
        random, found = self._random, []
        if self.index not in self._scene.flashes:
            faces = sorted(self._scene.truth(self.index).values(), key=lambda f: -f.visible)
            kept: list[Truth] = []
            for face in faces:
                chance = np.interp(face.visible, [0.25, 0.6], [0, 0.96])
                hidden = any(overlap(face.box, other.box) > 0.4 for other in kept)
                if random.random() < chance and not hidden:
                    kept.append(face)
                    found.append(self._sighting(face))
        if random.random() < 0.1:
            found.append(self._false_alarm())
        return [found[i] for i in random.permutation(len(found))]

    def _sighting(self, face: Truth) -> Detection:
        eyes = float(np.linalg.norm(face.landmarks[1] - face.landmarks[0]))
        random = self._random
        error = random.normal(0, 0.03 * eyes, (5, 2)) / max(face.visible, 0.3)
        box = face.box + random.normal(0, 0.03 * eyes, 4)
        score = random.normal(0.55 + 0.25 * face.visible, 0.04)
        return Detection(
            box.astype(np.float32), (face.landmarks + error).astype(np.float32), float(score)
        )

    def _false_alarm(self) -> Detection:
        box, points = (np.array(numbers, np.float32) for numbers in _FACES[2])
        scale = self._random.uniform(0.2, 0.6)
        place = self._random.uniform([20, 20], [WIDTH - 80, HEIGHT - 90]) - scale * box[:2]
        moved = [scale * box + np.tile(place, 2), scale * points + place]
        return Detection(
            *(numbers.astype(np.float32) for numbers in moved), self._random.uniform(0.5, 0.65)
        )

    def recognise(self, picture: Array, faces: Sequence[Detection]) -> list[Array | None]:
        """The embeddings of faces of frame `index`; of a false alarm, nobody's."""
        self.recognised += len(faces)
        return [self._vector(face) for face in faces]

    def _vector(self, face: Detection) -> Array:
        random = self._eye
        noise = _unit(random.normal(size=128))
        truth = self._scene.truth(self.index)
        person = shown_person(truth, face)
        if person is None:
            return noise.astype(np.float32)
        likeness = (1 - random.beta(1.1, 10.5)) * min(1.0, 0.4 + truth[person].visible)
        vector = likeness * self._who[person] + np.sqrt(1 - likeness**2) * noise
        return _unit(vector).astype(np.float32)


def observed(
    scene: Scene,
    detector: Callable[[Array], list[Detection]],
    embed: Callable[[Array, Sequence[Detection], float], list[Detection]] | None = None,
) -> list[Observation]:
    """What pass one would keep of the scene."""
    observations = []
    for index in range(scene.frame_count):
        picture = scene.picture(index)
        if isinstance(detector, Simulated):
            detector.index = index
        found = detector(picture)
        if embed is not None:
            found = embed(picture, found, index / RATE)
        grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        small = cv2.resize(grey, (64, 36), interpolation=cv2.INTER_AREA)
        observations.append(Observation(index, index, 0, small, tuple(found)))
    return observations


Trajectories = dict[Hashable, dict[int, Array]]


def true_trajectories(scene: Scene) -> Trajectories:
    """Who is seen where: person -> frame -> landmarks."""
    result: Trajectories = {}
    for index in range(scene.frame_count):
        for person, face in scene.truth(index).items():
            if face.visible >= VISIBLE:
                result.setdefault(person, {})[index] = face.landmarks
    return result


def visits(scene: Scene, observations: Sequence[Observation], gap_frames: int) -> Trajectories:
    """The same without what nobody can tell who does not recognise faces.

    A cut begins another trajectory, and so does a face that no detection shows for more frames.
    """
    sightings: dict[int, list[int]] = {}
    for seen in observations:
        for detection in seen.detections:
            sightings.setdefault(shown_person(scene.truth(seen.index), detection), []).append(
                seen.index
            )
    result: Trajectories = {}
    for person, points in true_trajectories(scene).items():
        breaks = [b for a, b in pairwise(sightings[person]) if b - a - 1 > gap_frames]
        for index, landmarks in points.items():
            visit = sum(index >= b for b in [*breaks, *scene.starts])
            result.setdefault((person, visit), {})[index] = landmarks
    return result


def shown_person(truth: Mapping[int, Truth], detection: Detection) -> int | None:
    """The nearest face of which anything is seen, if it is near."""
    off = {
        person: float(np.linalg.norm(face.landmarks - detection.landmarks, axis=1).mean())
        for person, face in truth.items()
        if face.visible > 0.2
    }
    person = min(off, key=off.__getitem__, default=None)
    return person if person is not None and is_near(
        detection.landmarks, truth[person].landmarks
    ) else None  # fmt: skip


def found_trajectories(
    tracks: Iterable[RawTrack], names: Iterable[int], scene: Scene
) -> Trajectories:
    """Name -> frame -> landmarks, gaps filled in straight lines, less what lies on hidden faces."""
    result: Trajectories = {}
    for track, name in zip(tracks, names, strict=True):
        frames = np.arange(len(track.score))
        known = np.isfinite(track.score)
        flat = track.landmarks.reshape(len(frames), -1)
        filled = np.stack([np.interp(frames, frames[known], c[known]) for c in flat.T], axis=1)
        for frame, points in zip(frames + track.first_frame, filled, strict=True):
            points = points.reshape(5, 2)
            faces = scene.truth(int(frame)).values()
            fits = [face.visible >= VISIBLE for face in faces if is_near(points, face.landmarks)]
            if any(fits) or not fits:
                result.setdefault(name, {})[int(frame)] = points
    return result


def idf1(truth: Trajectories, found: Trajectories) -> float:
    """2 IDTP / (2 IDTP + IDFP + IDFN), Ristani et al., ECCV workshops 2016.

    True and found trajectories are matched one to one so that the greatest number of frames agree
    (IDTP); what is left of the true ones is IDFN, of the found ones IDFP. Frames agree where the
    landmarks are within half an eye distance, in place of the overlap of boxes.
    """
    agree = np.array([
        [sum(is_near(b[f], a[f]) for f in a.keys() & b.keys()) for b in found.values()]
        for a in truth.values()
    ]).reshape(len(truth), len(found))  # fmt: skip
    right = agree[linear_sum_assignment(agree, maximize=True)].sum()
    return float(2 * right / (sum(map(len, truth.values())) + sum(map(len, found.values()))))


def is_near(points: Array, landmarks: Array) -> bool:
    eyes = np.linalg.norm(landmarks[1] - landmarks[0])
    return bool(np.linalg.norm(points - landmarks, axis=1).mean() <= NEAR_EYES * eyes)


def overlap(a: Array, b: Array) -> float:
    """Intersection over union."""
    width, height = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    shared = width * height
    return float(shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared))


def _unit(vectors: Array) -> Array:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def shifted(detections: Iterable[Detection], x: float, y: float) -> list[Detection]:
    """The same faces elsewhere."""
    move = np.array([x, y], np.float32)
    return [
        replace(d, box=d.box + np.tile(move, 2), landmarks=d.landmarks + move) for d in detections
    ]

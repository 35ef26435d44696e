"""A face that sways, nods, shakes, turns and talks in known ways, and what a detector sees of it.

Canonical coordinates are (x, y) in eye distances from the mean of the five landmarks. Displacements
are scored in pixels of a 512 x 512 FFHQ crop (eye distance 126), as the literature states them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from helpers.media import info_of
from skimage import data

from vidrestore.analysis.motion import FaceMotionEstimator
from vidrestore.analysis.tracks import Motion, RawTrack
from vidrestore.imaging.frame import VideoInfo
from vidrestore.imaging.geometry import apply, compose, fit_similarity, invert, template
from vidrestore.imaging.planes import plane
from vidrestore.models.detectors import Detection

FFHQ = template("ffhq")
CROP_PX = 512
EYES_512_PX = float(np.linalg.norm(FFHQ[1] - FFHQ[0])) * CROP_PX
CANONICAL = (FFHQ - FFHQ.mean(axis=0)) / np.linalg.norm(FFHQ[1] - FFHQ[0])
_MOUTH = CANONICAL[3:].mean(axis=0)
_CLEAR_EYES = 2.5
_GRID = np.stack(np.meshgrid(*2 * [np.linspace(3, 13, 4) / 16]), axis=-1).reshape(16, 2)


@dataclass(frozen=True)
class Noise:
    """What a detector adds; lengths in eye distances."""

    landmark: float = 0.015
    outlier_share: float = 0.015
    dropped_share: float = 0.07


@dataclass(frozen=True)
class Course:
    """A face through one shot, frame by frame."""

    rate: Fraction
    eyes_px: float
    place: np.ndarray
    """(n,) complex: canonical (x + iy) times `factor` plus this is frame pixels."""
    factor: np.ndarray
    yaw: np.ndarray
    """(n,) radians."""
    talk: np.ndarray
    """(n, 2) how much wider and lower the mouth is."""
    is_fast: np.ndarray
    """(n,) within a quick turn."""
    shape: np.ndarray
    """(5, 2) landmarks of the face at rest, canonical."""

    def points(self, canonical: np.ndarray) -> np.ndarray:
        """(p, 2) canonical points -> (n, p, 2) frame pixels, as far as the face's shape changes."""
        shape = canonical + displacement(canonical, self.yaw[:, None], self.talk[:, None])
        frame = (shape @ [1, 1j]) * self.factor[:, None] + self.place[:, None]
        return np.stack([frame.real, frame.imag], axis=-1)

    @property
    def landmarks(self) -> np.ndarray:
        """(n, 5, 2) where they truly are."""
        return self.points(self.shape)

    @property
    def frame_size(self) -> tuple[int, int]:
        """(width, height) in which the face keeps clear of the edges."""
        far = self.landmarks.reshape(-1, 2).max(axis=0) + _CLEAR_EYES * np.abs(self.factor).max()
        width, height = (int(-(-length // 16) * 16) for length in far)
        return width, height


def displacement(canonical: np.ndarray, yaw: Any, talk: np.ndarray) -> np.ndarray:
    """How turning and talking move canonical points within the face.

    The face is a plane with a bump for the nose; the mouth is pulled within a soft patch.
    """
    away = canonical - CANONICAL[2]
    depth = 0.45 * np.exp(-(away**2).sum(axis=-1) / (2 * 0.35**2))
    turned = canonical[..., 0] * (np.cos(yaw) - 1) + depth * np.sin(yaw)
    off = (canonical - _MOUTH) / [0.6, 0.3]
    pull = np.exp(-(off**2).sum(axis=-1) / 2)
    return np.stack(
        [turned + pull * talk[..., 0] * off[..., 0], pull * talk[..., 1] + 0 * turned], axis=-1
    )


def moving_face(
    seed: int,
    *,
    seconds: float = 12.0,
    rate: Fraction = Fraction(25),
    eyes_px: float = 60.0,
    shape: np.ndarray = CANONICAL,
) -> Course:
    """Sway, nods, hand-held shake, four quick turns, a pan, a zoom and talk.

    The same seed is the same motion at every rate. Shorter than 12 seconds, there are fewer turns
    and a shorter pan; the first turn is always the hardest.
    """
    random = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / float(rate)

    def band(low_hz: float, high_hz: float, rms: float) -> np.ndarray:
        hz, phase = random.uniform(low_hz, high_hz, 4), random.uniform(0, 2 * np.pi, 4)
        return rms / np.sqrt(2) * np.sin(2 * np.pi * hz * t[:, None] + phase).sum(axis=1)

    at = band(0.1, 0.5, 0.18) + 1j * band(0.1, 0.5, 0.09)
    at = at + 1j * band(1, 3, 0.02) + (band(4, 6, 0.0085) + 1j * band(4, 6, 0.0085))
    roll, yaw = band(0.1, 0.4, np.radians(2)), band(0.1, 0.4, np.radians(4))
    talk = np.stack([band(1.5, 4.5, 0.008), band(1.5, 4.5, 0.018)], axis=-1)
    is_fast = np.zeros(len(t), bool)
    turns = round(seconds / 3)
    lean, look = 0.0, 0.0
    for slot in range(turns):
        begin = (slot + random.uniform(0.1, 0.8)) * 3
        lasts, far = random.uniform(0.28, 0.5), random.uniform(0.6, 1.8)
        if slot == 0:
            lasts, far = 0.28, 1.8
        step = _eased(t, begin, lasts)
        at = at + step * far * random.choice([-1, 1]) * np.exp(1j * random.uniform(-0.3, 0.3))
        new_lean, new_look = random.uniform(-15, 15), random.uniform(-25, 25)
        roll = roll + step * np.radians(new_lean - lean)
        yaw = yaw + step * np.radians(new_look - look)
        lean, look = new_lean, new_look
        is_fast |= (t >= begin) & (t <= begin + lasts)
    pan_s = seconds / 4
    begin = random.uniform(0, seconds - pan_s)
    at = at + 0.12 * 25 * (_begun(t - begin) - _begun(t - begin - pan_s))
    zoom = random.uniform(-0.3, 0.4) * _eased(t, random.uniform(0, seconds - 1.6), 1.6)
    factor = eyes_px * np.exp(zoom + 1j * roll)
    course = Course(rate, eyes_px, eyes_px * at, factor, yaw, talk, is_fast, shape)
    near = course.landmarks.reshape(-1, 2).min(axis=0) - _CLEAR_EYES * np.abs(factor).max()
    return replace(course, place=course.place - near @ [1, 1j])


def still_face(count: int, *, eyes_px: float, shape: np.ndarray) -> Course:
    """`count` frames in which nothing moves."""
    never = np.zeros(count)
    place = np.full(count, (_CLEAR_EYES + 0.1) * eyes_px * (1 + 1j))
    return Course(Fraction(25), eyes_px, place, never + complex(eyes_px), never,
                  np.zeros((count, 2)), never > 0, shape)  # fmt: skip


def thinned(course: Course, step: int) -> Course:
    """Every `step`-th frame."""
    parts = {name: getattr(course, name)[::step]
             for name in ("place", "factor", "yaw", "talk", "is_fast")}  # fmt: skip
    return replace(course, rate=course.rate / step, **parts)


def _eased(t: np.ndarray, begin: float, lasts: float) -> np.ndarray:
    """From 0 to 1 with the least jerk."""
    u = np.clip((t - begin) / lasts, 0, 1)
    return u**3 * (10 - 15 * u + 6 * u**2)


def _begun(t: np.ndarray, starts_s: float = 0.4) -> np.ndarray:
    """The way at speed 1 from time 0, taken up evenly over `starts_s`."""
    return np.clip(t, 0, starts_s) ** 2 / (2 * starts_s) + np.maximum(t - starts_s, 0)


def seen(course: Course, seed: int, noise: Noise | None = None) -> np.ndarray:
    """(n, 5, 2) landmarks as a detector gives them, NaN where it misses the face."""
    noise = noise or Noise()
    random = np.random.default_rng([seed, 1])
    eyes = np.abs(course.factor)[:, None, None]
    n = len(eyes)
    off = random.normal(0, noise.landmark, (n, 5, 2))
    wrong = random.random(n) < noise.outlier_share
    is_whole = random.random(n) < 0.5
    angle = random.uniform(0, 2 * np.pi, n)
    way = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    off[wrong & is_whole] += 0.25 * way[wrong & is_whole, None]
    one = np.flatnonzero(wrong & ~is_whole)
    off[one, random.integers(0, 5, n)[one]] += 0.35 * way[one]
    found = course.landmarks + off * eyes
    starts = np.flatnonzero(random.random(n) < noise.dropped_share / 2.5)
    for start, length in zip(starts, random.integers(1, 5, len(starts)), strict=True):
        if start > 0:
            found[start : min(start + length, n - 1)] = np.nan
    return found


def filled(found: np.ndarray) -> np.ndarray:
    """(n, 5, 2) what is missing, interpolated."""
    flat, index = found.reshape(len(found), -1), np.arange(len(found))
    known = np.isfinite(flat[:, 0])
    columns = [np.interp(index, index[known], column[known]) for column in flat.T]
    return np.stack(columns, axis=-1).reshape(found.shape)


def steps_of(course: Course, seed: int, *, error: float = 0.001) -> list[Motion | None]:
    """Motion as an odometer measures it, off by `error` eye distances, radians and of the scale."""
    random = np.random.default_rng([seed, 3])
    to_frame = invert(true_matrices(course))
    eyes = np.abs(course.factor)
    steps: list[Motion | None] = [None]
    for t in range(1, len(eyes)):
        middle = course.landmarks[t].mean(axis=0)
        wrong = np.exp(error * (random.normal() + 1j * random.normal()))
        turn = np.array([[wrong.real, -wrong.imag], [wrong.imag, wrong.real]])
        shift = middle - turn @ middle + error * eyes[t] * random.normal(size=2)
        true_step = compose(to_frame[t], invert(to_frame[t - 1]))
        steps.append(Motion(compose(np.column_stack([turn, shift]), true_step), 0.9, 90))
    return steps


@dataclass(frozen=True)
class Score:
    """How far matrices (frame -> unit crop) are from the true ones, in px at 512."""

    rms: float
    calm: float
    fast: float
    p99: float
    jitter: float
    """Of the second difference in time, per frame squared."""
    lag: float
    """In frames; positive where they come late."""


def true_matrices(course: Course) -> np.ndarray:
    return fit_similarity(course.landmarks, FFHQ)


def score(matrices: np.ndarray, course: Course) -> Score:
    """Displacement of a 4 x 4 grid over the face between the crop and the true one."""
    truth = true_matrices(course)
    back = invert(truth)
    off = (apply(compose(matrices.astype(float), back), _grid(len(back))) - _GRID) * CROP_PX
    stride = np.gradient(apply(back, _grid(len(back))), axis=0)
    velocity = np.einsum("nij,npj->npi", truth[:, :, :2], stride) * CROP_PX
    squared = (off**2).sum(axis=-1)

    def rms(part: np.ndarray) -> float:
        return float(np.sqrt(squared[part].mean())) if part.any() else float("nan")

    return Score(
        rms=rms(np.ones(len(off), bool)),
        calm=rms(~course.is_fast),
        fast=rms(course.is_fast),
        p99=float(np.percentile(np.sqrt(squared.mean(axis=1)), 99)),
        jitter=float(np.sqrt((np.diff(off, n=2, axis=0) ** 2).sum(axis=-1).mean())),
        # A crop that comes late leaves the face ahead of its place, on the side it moves to.
        lag=float((off * velocity).sum() / max((velocity**2).sum(), 1e-9)),
    )


def _grid(n: int) -> np.ndarray:
    return np.broadcast_to(_GRID, (n, 16, 2))


@dataclass(frozen=True)
class Picture:
    """A grey face at rest."""

    grey: np.ndarray
    landmarks: np.ndarray
    """(5, 2) pixels of `grey`."""

    @property
    def from_canonical(self) -> np.ndarray:
        """(2, 3) canonical -> pixels of `grey`."""
        return invert(fit_similarity(self.landmarks[None], CANONICAL)[0])

    @property
    def shape(self) -> np.ndarray:
        """(5, 2) landmarks, canonical."""
        return apply(invert(self.from_canonical), self.landmarks)


def portrait() -> Picture:
    """Eileen Collins, by NASA, in the public domain; her landmarks were found once with SCRFD."""
    landmarks = [[204.42, 100.81], [247.31, 103.09], [223.53, 128.42], [201.16, 138.53],
                 [246.45, 140.62]]  # fmt: skip
    return Picture(cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2GRAY), np.array(landmarks))


def drawn_face(seed: int = 0) -> Picture:
    """Ellipses for skin, hair, eyes, brows, nose and lips, and the fine uneven tone of skin."""
    random = np.random.default_rng(seed)
    side, eyes = 480, 100.0
    at = CANONICAL * eyes + [side / 2, side / 2 + 20]
    grey = np.full((side, side), 60.0, np.float32)

    def ellipse(centre: Any, axes: tuple[float, float], level: float, turn: float = 0) -> None:
        middle, radii = np.round(np.multiply(centre, 16)), np.round(np.multiply(axes, 16))
        cv2.ellipse(grey, middle.astype(int).tolist(), radii.astype(int).tolist(), turn, 0, 360,
                    level, -1, cv2.LINE_AA, 4)  # fmt: skip

    ellipse((side / 2, side / 2 - 10), (150, 195), 45)
    ellipse((side / 2, side / 2 + 15), (118, 160), 165)
    for eye, tilt in zip(at[:2], (-8, 8), strict=True):
        ellipse(eye - [0, 27], (27, 5), 75, tilt)
        ellipse(eye, (21, 10), 225)
        ellipse(eye, (9, 9), 60)
        ellipse(np.add(eye, [3, -3]), (3, 3), 250)
    ellipse(at[2] - [0, 25], (9, 32), 185)
    for side_px in (-14, 14):
        ellipse(at[2] + [side_px, 8], (6, 4), 90)
    ellipse((at[3] + at[4]) / 2, ((at[4] - at[3])[0] / 2 + 4, 12), 110)
    ellipse((at[3] + at[4]) / 2, ((at[4] - at[3])[0] / 2, 2), 70)
    for sigma, level in ((2.0, 5.0), (6.0, 8.0), (25.0, 14.0)):
        tone = cv2.GaussianBlur(random.normal(0, 1, grey.shape).astype(np.float32), (0, 0), sigma)
        grey += tone * (level / tone.std())
    return Picture(np.clip(cv2.GaussianBlur(grey, (0, 0), 1), 0, 255).astype(np.uint8), at)


@dataclass(frozen=True)
class Wear:
    """How bad the pictures are."""

    blur_px: float = 0.7
    noise: float = 6.0
    """Standard deviation, in 8-bit levels."""
    quality: int = 40
    """Of JPEG."""


BAD = Wear(noise=8.0, quality=30)


def frames(
    course: Course, picture: Picture, seed: int, wear: Wear = Wear()
) -> Iterator[av.VideoFrame]:
    """Grey frames of `course.frame_size` with the face before a background that moves otherwise.

    Blur, noise and JPEG are drawn anew in every frame. Only the surroundings of the face are
    painted, in whole blocks of JPEG.
    """
    random = np.random.default_rng([seed, 2])
    enlarged = course.eyes_px * 1.2 / np.hypot(*picture.from_canonical[:, 0])
    near = cv2.resize(
        picture.grey,
        None,
        fx=enlarged,
        fy=enlarged,
        interpolation=cv2.INTER_AREA if enlarged < 1 else cv2.INTER_CUBIC,
    )
    to_picture = picture.from_canonical * enlarged
    to_picture[:, 2] += (enlarged - 1) / 2
    scene = cv2.GaussianBlur(random.normal(0, 1, (256, 256)), (0, 0), 3)
    scene = (110 + scene * (35 / scene.std())).astype(np.float32)
    for index in range(len(course.place)):
        corner, side = _surroundings(course, index)
        canonical = _canonical(course, index, corner, side)
        x, y = np.moveaxis(apply(to_picture, canonical).astype(np.float32), -1, 0)
        face = cv2.remap(near, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        off = ((canonical - [0, -0.15]) / [1.15, 1.6]).astype(np.float32)
        mask = np.clip((1 - (off**2).sum(axis=-1)) * 4, 0, 1)
        drift = np.array(corner) - index * 0.02 * course.eyes_px * np.array([1.0, 0.3])
        behind = cv2.warpAffine(scene, np.column_stack([np.eye(2), np.mod(drift, 256)]),
                                (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                                borderMode=cv2.BORDER_WRAP)  # fmt: skip
        clean = cv2.GaussianBlur(behind + mask * (face - behind), (0, 0), wear.blur_px)
        noisy = clean + wear.noise * random.standard_normal(clean.shape, np.float32)
        yield _frame(course.frame_size, corner, _jpeg(noisy, wear.quality))


def _surroundings(course: Course, index: int) -> tuple[tuple[int, int], int]:
    """Left and upper edge and side, in whole blocks, of the square around the face."""
    reach = 2.3 * abs(course.factor[index])
    place = course.place[index]
    x, y = (max(0, int((c - reach) // 16 * 16)) for c in (place.real, place.imag))
    side = int(-(-2 * reach // 16) * 16) + 16
    return (x, y), min(side, course.frame_size[0] - x, course.frame_size[1] - y)


def _canonical(course: Course, index: int, corner: tuple[int, int], side: int) -> np.ndarray:
    """(side, side, 2) canonical points seen in the pixels of a square, through every fourth."""
    at = np.arange(1.5, side, 4)
    pixels = (at + corner[0]) + 1j * (at[:, None] + corner[1])
    turned = (pixels - course.place[index]) / course.factor[index]
    shape = np.stack([turned.real, turned.imag], axis=-1)
    canonical = shape
    for _ in range(6):
        canonical = shape - displacement(canonical, course.yaw[index], course.talk[index])
    return cv2.resize(canonical, (side, side), interpolation=cv2.INTER_CUBIC)


def _jpeg(grey: np.ndarray, quality: int) -> np.ndarray:
    levels = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    _, coded = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE)


def _frame(size: tuple[int, int], corner: tuple[int, int], square: np.ndarray) -> av.VideoFrame:
    image = av.VideoFrame(*size, "gray")
    view = plane(image, 0)
    view[...] = 110
    x, y = corner
    view[y : y + len(square), x : x + len(square)] = square
    return image


def sighting(landmarks: np.ndarray) -> Detection:
    """What a detector says of a face with these (5, 2) landmarks."""
    middle, eyes = landmarks.mean(axis=0), np.linalg.norm(landmarks[1] - landmarks[0])
    box = np.concatenate([middle - eyes * np.array([1.1, 1.4]), middle + 1.2 * eyes])
    return Detection(box.astype(np.float32), landmarks.astype(np.float32), 0.9)


def info_for(course: Course) -> VideoInfo:
    return info_of(*course.frame_size, "gray", frame_rate=course.rate)


def followed(images: Iterable[av.VideoFrame], found: np.ndarray, info: VideoInfo) -> RawTrack:
    """The track of the one face in these frames, with the motion measured in their pixels.

    The face must not be lost for longer than it is carried.
    """
    odometer = FaceMotionEstimator(info, carry_frames=10, least_support=0.3)
    motions = []
    for image, landmarks in zip(images, found, strict=True):
        is_found = np.isfinite(landmarks).all()
        _, pairs = odometer.follow(image, [sighting(landmarks)] if is_found else [])
        motions.append(pairs.get((0, 0)))
    return raw_track(found, motions=tuple(motions))


def raw_track(
    landmarks: np.ndarray,
    first_frame: int = 0,
    shot: tuple[int, int] | None = None,
    motions: tuple[Any, ...] = (),
) -> RawTrack:
    """Of (n, 5, 2) landmarks in frame pixels, NaN where the face was missed."""
    n = len(landmarks)
    score = np.where(np.isnan(landmarks[:, 0, 0]), np.nan, 0.9).astype(np.float32)
    return RawTrack(first_frame, shot or (first_frame, first_frame + n),
                    landmarks.astype(np.float32), score, motions)  # fmt: skip

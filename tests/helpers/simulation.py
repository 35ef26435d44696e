"""Clips of faces whose truth is known, worn inputs, restorers that boil, and scores.

Stacks are (n, H, W, 3) float32 RGB in [0, 1]; lengths are stated in pixels of a 512 x 512 crop and
scaled to the side that is asked for, as are the reductions x4, x8 and x16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from vidrestore.analysis.result import Analysis
from vidrestore.imaging.frame import Frame
from vidrestore.imaging.geometry import crop_matrix, crop_side_px, template
from vidrestore.imaging.optical_flow import DenseFlow, sample
from vidrestore.restoration.faces import Face, FaceFrame
from vidrestore.review import metrics
from vidrestore.review.portrait import clean_portrait, cut, place_in_crop

Stack = np.ndarray


@dataclass(frozen=True)
class Clip:
    """What is to be found, and how it truly moves."""

    truth: Stack
    flows: metrics.Flows
    skin: np.ndarray
    """(n, H, W, 2) px of the face at rest that are seen at x."""
    eyes: np.ndarray | None = None
    """(n, H, W) True in the eye region of the frames of a blink."""


@dataclass(frozen=True)
class Course:
    """How a face moves within its crop, and looks, frame by frame."""

    sway: np.ndarray
    """(n, 3) x, y in px at 512, and roll in radians: what alignment left over."""
    yaw: np.ndarray
    """(n,) parallax of the nose, px at 512."""
    talk: np.ndarray
    """(n,) in [0, 1]."""
    lids: np.ndarray
    """(n,) in [0, 1]: 1 where the eyes are shut."""
    gain: np.ndarray
    """(n,) of the exposure."""


def course(n: int, seed: int, *, turn_frames: int = 8, turn_px: float = 14.0) -> Course:
    random = np.random.default_rng([seed, 1])
    t = np.arange(n) / 25

    def waves(low_hz: float, high_hz: float, size: float) -> np.ndarray:
        hz, phase = random.uniform(low_hz, high_hz, 3), random.uniform(0, 2 * np.pi, 3)
        return size * np.sin(2 * np.pi * hz * t[:, None] + phase).sum(axis=1) / np.sqrt(1.5)

    sway = np.stack([waves(0.2, 2, 2.0), waves(0.2, 2, 2.0), waves(0.2, 1, 0.006)], axis=1)
    begin = n // 2 - turn_frames // 2
    progress = np.clip((np.arange(n) - begin) / max(turn_frames, 1), 0, 1)
    yaw = turn_px * (10 * progress**3 - 15 * progress**4 + 6 * progress**5) * random.choice([-1, 1])
    talk = np.clip(0.5 + waves(1, 3, 0.3), 0, 1)
    lids = np.zeros(n)
    for start in range(n // 6, n, 24):
        shut = np.array([0.4, 0.9, 1.0, 0.9, 0.6, 0.25])
        part = lids[start : start + 6]
        part[:] = shut[: len(part)]
    return Course(sway, yaw + waves(0.3, 1, 1.0), talk, lids, 1 + waves(0.3, 1.5, 0.02))


_EYES, _NOSE, _MOUTH = template("ffhq")[:2], template("ffhq")[2], template("ffhq")[3:].mean(axis=0)


def _displacement(p: np.ndarray, course: Course, t: int) -> np.ndarray:
    """Unit crop (..., 2) at frame t -> how far away, on the face at rest, what is seen there is."""
    x, y, roll = course.sway[t] * (1 / 512, 1 / 512, 1)
    off = p - 0.5
    moved = np.stack([-roll * off[..., 1] - x, roll * off[..., 0] - y], axis=-1)
    nose = np.exp(-((p - _NOSE) ** 2).sum(axis=-1) / 0.22**2)
    chin = np.exp(-(((p - _MOUTH - (0, 0.1)) / (0.2, 0.13)) ** 2).sum(axis=-1))
    moved[..., 0] -= course.yaw[t] / 512 * nose
    moved[..., 1] -= 6 / 512 * course.talk[t] * chin
    return moved


def _flow(course: Course, t: int, s: int, side: int) -> np.ndarray:
    """(side, side, 2) px from frame t to frame s; it is smooth, and found through every fourth."""
    p = _centres(side // 4)
    rest = p + _displacement(p, course, t)
    there = p
    for _ in range(8):
        there = rest - _displacement(there, course, s)
    flow = ((there - p) * side).astype(np.float32)
    return cv2.resize(flow, (side, side), interpolation=cv2.INTER_CUBIC)


def _centres(side: int) -> np.ndarray:
    at = (np.arange(side) + 0.5) / side
    return np.stack(np.meshgrid(at, at), axis=-1)


@lru_cache(maxsize=4)
def face_at_rest(seed: int, side: int) -> np.ndarray:
    """(1.5 side, 1.5 side, 3) in [0, 1]: a wide crop with fine seeded skin.

    The built-in portrait, mirrored and tinted by the seed.
    """
    random = np.random.default_rng([seed, 2])
    canvas, landmarks = clean_portrait()
    wide = round(1.5 * side)
    points = (template("ffhq") + 0.25) / 1.5
    picture = cut(canvas, place_in_crop(landmarks, points, wide), wide).permute(1, 2, 0).numpy()
    if seed % 2:
        picture = picture[:, ::-1]
    tint = 1 + random.normal(0, 0.05, 3)
    contrast = random.uniform(0.85, 1.1)
    fine = sum(
        _noise(random, wide, sigma * side / 512)[..., None] * level
        for sigma, level in ((1.0, 3.0), (2.0, 3.0), (5.0, 2.5))
    )
    return np.clip((picture * tint - 0.5) * contrast + 0.5 + fine / 255, 0, 1).astype(np.float32)


def _noise(random: np.random.Generator, side: int, sigma_px: float) -> np.ndarray:
    """(side, side) smooth noise of variance 1."""
    white = random.standard_normal((side, side), np.float32)
    smooth = cv2.GaussianBlur(white, (0, 0), max(sigma_px, 0.3))
    return smooth / smooth.std()


def synthetic(n: int, side: int, seed: int, moves: Course | None = None) -> Clip:
    """A face that sways, turns once, talks and blinks, in light that drifts."""
    moves = moves or course(n, seed)
    picture = face_at_rest(seed, side)
    p = _centres(side)
    rest = np.stack([p + _displacement(p, moves, t) for t in range(n)])
    truth = np.stack([_seen(picture, rest[t], moves, t) for t in range(n)])
    eyes = np.zeros((n, side, side), bool)
    for t in range(n):
        if moves.lids[t] > 0:
            eyes[t] = np.any([_ellipse(p, e, (0.075, 0.045)) > 0 for e in _EYES], axis=0)
    pairs = range(n - 1)
    return Clip(
        truth,
        metrics.Flows(
            np.stack([_flow(moves, t, t + 1, side) for t in pairs]),
            np.stack([_flow(moves, t + 1, t, side) for t in pairs]),
        ),
        (rest * side - 0.5).astype(np.float32),
        eyes,
    )


def _seen(picture: np.ndarray, rest: np.ndarray, moves: Course, t: int) -> np.ndarray:
    def at(points: np.ndarray) -> np.ndarray:
        return _read(picture, (points + 0.25) / 1.5 * len(picture) - 0.5)

    image = at(rest)
    lid = at(rest - (0, 0.062))
    for eye in _EYES:
        fall = _ellipse(rest, eye, (0.06, 0.032))
        # The lid comes down from above.
        edge = (rest[..., 1] - eye[1]) / 0.032 - (2 * moves.lids[t] - 1)
        cover = (fall * np.clip(0.5 - 6 * edge, 0, 1) * (moves.lids[t] > 0))[..., None]
        line = (cover * np.exp(-((edge / 0.15) ** 2))[..., None]) * 0.35
        image = image + cover * (lid - image) - line * image
    open_mouth = _ellipse(rest, _MOUTH, (0.06, 0.005 + 0.022 * moves.talk[t]))[..., None]
    image = image + 0.85 * open_mouth * (np.array([0.18, 0.07, 0.07]) - image)
    return np.clip(image * moves.gain[t], 0, 1).astype(np.float32)


def _read(picture: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """The picture at (..., 2) pixels, bicubic."""
    x, y = np.moveaxis(xy.astype(np.float32), -1, 0)
    return cv2.remap(picture, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def _ellipse(p: np.ndarray, centre: np.ndarray, radii: tuple[float, float]) -> np.ndarray:
    """(...) 1 inside, falling to 0 at the edge."""
    radius = np.sqrt((((p - centre) / radii) ** 2).sum(axis=-1))
    return np.clip((1 - radius) * 4, 0, 1)


def lit(clip: Clip, gains: np.ndarray) -> Clip:
    """Every frame in another light, by (n,) gains."""
    truth = np.clip(clip.truth * gains[:, None, None, None], 0, 1)
    return replace(clip, truth=truth.astype(np.float32))


def hand(clip: Clip, frames: range, seed: int) -> Clip:
    """Something of the colour of skin that crosses the face."""
    random, side = np.random.default_rng([seed, 6]), clip.truth.shape[1]
    grain = 8 * sum(_noise(random, side, px * side / 512) for px in (3, 12)) / 255
    skin = clip.truth[0][side // 2, side // 2] * 0.9
    surface = np.clip(skin + grain[..., None], 0, 1).astype(np.float32)
    truth, p = clip.truth.copy(), _centres(side)
    for t in frames:
        x = -0.1 + 1.2 * (t - frames.start + 0.5) / len(frames)
        cover = _ellipse(p, np.array([x, 0.62]), (0.14, 0.2))[..., None]
        moved = np.roll(surface, round(x * side), axis=1)
        truth[t] += cover * (moved - truth[t])
    return replace(clip, truth=truth)


@dataclass(frozen=True)
class Wear:
    """What makes an input of the truth; drawn anew in every frame."""

    factor: int
    """Of the reduction, at a crop of 512."""
    noise: float = 8.0
    """Standard deviation in 8-bit levels."""
    quality: int = 30
    """Of JPEG."""
    blur_px: float = 1.5
    """Standard deviation, at 512, before the reduction."""


X4, X8, X16 = Wear(4), Wear(8, 8.0, 25), Wear(16, 6.0, 40)


def worn(truth: Stack, wear: Wear, seed: int) -> Stack:
    """The input: blurred, reduced, noisy, compressed, enlarged again."""
    random = np.random.default_rng([seed, 3])
    side = truth.shape[1]
    small = 512 // wear.factor
    options = [cv2.IMWRITE_JPEG_QUALITY, wear.quality]
    result = []
    for picture in truth:
        blurred = cv2.GaussianBlur(picture, (0, 0), max(wear.blur_px * side / 512, 0.3))
        reduced = cv2.resize(blurred, (small, small), interpolation=cv2.INTER_AREA) * 255
        noisy = reduced + wear.noise * random.standard_normal(reduced.shape, np.float32)
        levels = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
        _, coded = cv2.imencode(".jpg", levels[..., ::-1], options)
        decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32)
        result.append(cv2.resize(decoded, (side, side), interpolation=cv2.INTER_CUBIC) / 255)
    return np.clip(np.stack(result), 0, 1)


@dataclass(frozen=True)
class Boil:
    """How a restorer that knows the truth still errs; lengths in px at 512, tones in 8-bit levels.

    Every part is an AR(1) process in time, of the stated standard deviation.
    """

    wobble_px: float = 0.35
    """Trained restorers wobble by 0.13 to 0.47 px."""
    wobble_memory: float = 0.4
    texture: float = 6.0
    texture_still: float = 0.6
    """Share of the texture that clings to the face."""
    texture_memory: float = 0.3
    drift: float = 2.0
    drift_memory: float = 0.92
    flicker: float = 1.0


WOBBLY = Boil(wobble_px=1.2)
"""It wobbles two to nine times as much as trained restorers."""
STABLE = Boil(wobble_px=0.0, texture_memory=0.98, drift_memory=0.98, flicker=0.0)


def restored(clip: Clip, boil: Boil, seed: int) -> Stack:
    """What such a restorer makes of the clip."""
    random = np.random.default_rng([seed, 4])
    truth, side = clip.truth, clip.truth.shape[1]
    scale = side / 512
    pixels = _centres(side) * side - 0.5
    still = _noise(random, side, 1.5 * scale)

    def process(memory: float, sigma_px: float, channels: int) -> Iterator[np.ndarray]:
        def draw() -> np.ndarray:
            return np.dstack([_noise(random, side, sigma_px * scale) for _ in range(channels)])

        state = draw()
        while True:
            yield state
            state = memory * state + np.sqrt(1 - memory**2) * draw()

    wobble = process(boil.wobble_memory, 35, 2)
    texture = process(boil.texture_memory, 1.5, 1)
    drift = process(boil.drift_memory, 60, 3)
    result = []
    for t, picture in enumerate(truth):
        w = next(wobble) * (boil.wobble_px * scale / np.sqrt(2))
        image = _read(picture, pixels + w)
        clings = boil.texture_still * _read(still, clip.skin[t])[..., None]
        made = clings + np.sqrt(1 - boil.texture_still**2) * next(texture)
        tone = boil.texture * _activity(image, scale)[..., None] * made
        tone = tone + boil.drift * next(drift) + boil.flicker * random.standard_normal(3)
        result.append(np.clip(image + tone / 255, 0, 1).astype(np.float32))
    return np.stack(result)


def _activity(image: np.ndarray, scale: float) -> np.ndarray:
    """(H, W) about 1: more is invented where there is more to see."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    rough = np.abs(grey - cv2.GaussianBlur(grey, (0, 0), 4 * scale))
    local = cv2.GaussianBlur(rough, (0, 0), 8 * scale)
    return 0.5 + 0.5 * local / max(local.mean(), 1e-6)


def real(path: Path, analysis: Analysis, first: int, n: int, side: int) -> Clip:
    """The largest face of those frames, aligned as it is in a job, taken for the truth."""
    frames = range(first, first + n)
    there = [t for t in analysis.tracks if t.first_frame <= first and t.end_frame >= first + n]
    track = max(there, key=lambda t: crop_side_px(t.matrices[first - t.first_frame]))
    crops = []
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index in frames:
                unit = track.matrices[index - track.first_frame]
                crops.append(_crop(frame.to_ndarray(format="rgb24"), unit, side))
    truth = np.stack(crops)
    # The truth's motion is what flow finds in it.
    flows = metrics.flows_between(truth, DenseFlow(), blur_px=0)
    skin = [(_centres(side) * side - 0.5).astype(np.float32)]
    for back in flows.backward:
        skin.append(sample(skin[-1], back))
    return Clip(truth, flows, np.stack(skin))


def _crop(picture: np.ndarray, unit: np.ndarray, side: int) -> np.ndarray:
    light = picture.astype(np.float32) / 255
    pixels_on_one = crop_side_px(unit) / side
    if pixels_on_one > 1.3:
        light = cv2.GaussianBlur(light, (0, 0), 0.4 * pixels_on_one)
    crop = cv2.warpAffine(light, crop_matrix(unit, side), (side, side), flags=cv2.INTER_CUBIC,
                          borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
    return np.clip(crop, 0, 1)


def face_frames(source: Stack, result: Stack) -> list[FaceFrame]:
    """Frames of one face each, whose pictures are of no account."""
    picture, matrix = av.VideoFrame(16, 16, "gray"), np.eye(2, 3, dtype=np.float32)
    frames = []
    for t, crops in enumerate(zip(source, result, strict=True)):
        before, after = (torch.from_numpy(crop).permute(2, 0, 1).contiguous() for crop in crops)
        face = Face(0, before.shape[-1], matrix, before, 1.0, after)
        frames.append(FaceFrame(Frame(t, t, picture), (face,)))
    return frames


def stack(frames: Iterable[FaceFrame]) -> Stack:
    """The restored crops of frames of one face each."""
    crops = [frame.faces[0].restored for frame in frames]
    return np.stack([crop.permute(1, 2, 0).cpu().numpy() for crop in crops])


def face_mask(side: int) -> np.ndarray:
    """(H, W) 1 on the face."""
    p = _centres(side)
    return ((((p - (0.5, 0.53)) / (0.33, 0.41)) ** 2).sum(axis=-1) < 1).astype(np.float32)


@dataclass(frozen=True)
class Score:
    """Of an output against the restorer's own, frame by frame; see `vidrestore.review.metrics`."""

    psnr_db: float
    """Gain, mean over the frames."""
    worst_db: float
    """Smallest gain of a frame."""
    flicker: float
    """FLK, as a multiple of the restorer's; likewise FLKlo, DTL and Ewarp:"""
    slow_flicker: float
    detail: float
    warp_error: float
    blink_db: float
    """Gain in the eye region of the frames of a blink; nan where none is known."""


def score(output: Stack, result: Stack, clip: Clip) -> Score:
    truth, mask, flows = clip.truth, face_mask(clip.truth.shape[1]), clip.flows

    def change(measure: Callable[[Stack], float]) -> float:
        return measure(output) / measure(result)

    gains = metrics.psnr_db(output, truth, mask) - metrics.psnr_db(result, truth, mask)
    return Score(
        psnr_db=float(gains.mean()),
        worst_db=float(gains.min()),
        flicker=change(lambda o: metrics.rms(metrics.flicker(o, truth, flows, mask))),
        slow_flicker=change(lambda o: metrics.rms(metrics.slow_flicker(o, truth, flows, mask))),
        detail=change(lambda o: metrics.ratio(metrics.true_detail(o, truth, mask))),
        warp_error=change(lambda o: metrics.mean(metrics.warp_error(o, flows, mask))),
        blink_db=_blink_db(output, clip) - _blink_db(result, clip),
    )


def _blink_db(output: Stack, clip: Clip) -> float:
    if clip.eyes is None:
        return float("nan")
    frames = clip.eyes.any(axis=(1, 2))
    return metrics.blink_psnr_db(output, clip.truth, frames, clip.eyes.astype(np.float32))

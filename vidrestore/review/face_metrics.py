"""Measurement of every face of a video, frame by frame while the video is decoded."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.analysis.result import Analysis
from vidrestore.imaging.frame import FloatArray
from vidrestore.imaging.geometry import template
from vidrestore.imaging.optical_flow import DenseFlow
from vidrestore.models.detectors import Detection
from vidrestore.models.recognizer import Recognition
from vidrestore.restoration.compositing.appearance import TrackGeometry
from vidrestore.restoration.compositing.masks import believable, crop_mask
from vidrestore.restoration.faces import Face, FaceFrame
from vidrestore.restoration.guard import SimilarityJudge, pair_of
from vidrestore.review import metrics
from vidrestore.review.error_bars import error_of_mean, parts_of
from vidrestore.review.metrics import Flows, Mask, Stack, Values

# Measures that are summed as mean squares; the end of the video takes the root.
_ROOTED = ("FLK", "FLKlo", "FLKb", "GEO", "JIT")
_LONGEST_FRAMES = 4  # the most frames that one measure needs together
# Largest side at which motion and flicker are measured; detail is measured at that of the crop.
_MOTION_PX = 256
# Blur before the flow where there is no clean video, at a side of 512.
_FLOW_BLUR_PX = 1.5
_BLINK_SECONDS = 0.6  # before and after a frame; a blink is shorter than half of that
# Least change of the eyes in a blink: in levels, and as a multiple of the median change.
_BLINK_LEVELS, _BLINK_RATIO = 6.0, 3.0
# Axes of an eye with its lids, in distances of the eyes; (width, height) of its stored picture.
_EYE_AXES, _EYE_SIZE = (0.32, 0.22), (12, 8)


@dataclass(frozen=True, slots=True)
class Pair:
    """The values of a measure for two videos."""

    output: float
    """The value of the output; nan where it cannot be measured."""
    source: float = math.nan
    """The value of the source; nan, the default, where it cannot be measured."""
    error: float = 0.0
    """The error bar of the change from source to output, or of the output where the source has no
    value: how far the value of all faces may be from it. 0, the default, where every face was
    measured; nan where it is not known."""


class FaceScores:
    """Sums the measures of all faces over consecutive frames.

    Each pair of a face and a frame has the same weight. For each visible face, the object keeps
    the last four crops of each video, and a few hundred bytes for each of its frames.
    """

    def __init__(
        self,
        analysis: Analysis,
        recognizer: Recognition | None,
        *,
        recognise_seconds: float,
        judge: SimilarityJudge | None = None,
    ) -> None:
        """Start without any faces.

        Args:
            analysis: The analysis of the source.
            recognizer: Computes embeddings for the measure "identity"; None for none.
            recognise_seconds: Time between two embeddings of a face, in seconds; an embedding
                takes more time than the other measures.
            judge: Compares features for the measure "features", where there is no clean video;
                default: none.
        """
        self._analysis, self._info = analysis, analysis.info
        self._ends = {track.track_id: track.end_frame for track in analysis.tracks}
        self._points = template(analysis.template)
        self._judge = judge
        self._geometries: dict[int, TrackGeometry] = {}
        if judge is not None:
            self._geometries = {t.track_id: TrackGeometry(t) for t in analysis.tracks}
        self._recognizer = recognizer
        self._population = 0
        self._cosines: list[tuple[int, float, float]] = []
        self._recognise_every = max(1, round(recognise_seconds * self._info.frame_rate))
        self._sums = _Sums()
        self._faces: dict[int, _Followed] = {}

    def add(self, videos: Mapping[str, FaceFrame]) -> None:
        """Add the faces of one frame.

        Args:
            videos: The faces of the same frame in "output", "source" and, where there is a clean
                video, "truth". All must have the same faces.
        """
        index = videos["source"].frame.index
        for track_id in [i for i in self._faces if index >= self._ends[i]]:
            self._faces.pop(track_id).finish()
        by_track = {
            role: {face.track_id: face for face in video.faces} for role, video in videos.items()
        }
        for track_id, face in by_track["source"].items():
            self._population += 1
            crops = {role: _picture(faces[track_id]) for role, faces in by_track.items()}
            if track_id not in self._faces:
                self._faces[track_id] = self._new(face.work_px)
            self._faces[track_id].add(
                index, crops, crop_mask(face.matrix, face.work_px, self._info)
            )
            if self._recognizer is not None and index % self._recognise_every == 0:
                self._identify(index, crops, self._recognizer)
            if self._judge is not None and "truth" not in crops:
                points = believable(self._geometries[track_id].landmarks(index))
                pair = pair_of(face.source, by_track["output"][track_id].source, points)
                self._sums.add("features", "output", np.array([self._judge.features(pair)]))

    def result(self) -> dict[str, Pair]:
        """Return the measures of all faces so far, by the names in `vidrestore.review.metrics`."""
        for face in self._faces.values():
            face.finish()
        self._faces.clear()
        pairs = self._sums.pairs()
        return pairs if not self._cosines else pairs | {"identity": self._identity()}

    def _identity(self) -> Pair:
        """Return the mean cosines, which were measured in some of the faces."""
        frames, output, source = np.array(self._cosines).T
        weights, measured = np.ones(len(frames)), len(frames) / self._population
        parts = parts_of(frames.astype(np.int64), self._analysis.shots)
        change = output if np.isnan(source).all() else output - source
        known = ~np.isnan(change)
        error = error_of_mean(change[known], weights[known], parts[known], measured)
        return Pair(metrics.mean(output), metrics.mean(source), error)

    def _new(self, side: int) -> _Followed:
        reach_frames = round(_BLINK_SECONDS * self._info.frame_rate)
        side = min(side, _MOTION_PX)
        return _Followed(self._sums, self._points[:2] * side - 0.5, side, reach_frames)

    def _identify(self, index: int, crops: Mapping[str, Stack], recognizer: Recognition) -> None:
        """Keep the cosine with the embedding of the truth, or of the source without a truth."""
        other = "truth" if "truth" in crops else "source"
        roles = ("output", "source") if other == "truth" else ("output",)
        vectors = {role: self._embedding(crops[role], recognizer) for role in {other, *roles}}
        if (true := vectors[other]) is None:
            return
        cosines = [
            math.nan if role not in roles or (own := vectors[role]) is None else float(own @ true)
            for role in ("output", "source")
        ]
        if not np.isnan(cosines).all():
            self._cosines.append((index, cosines[0], cosines[1]))

    def _embedding(self, crop: Stack, recognizer: Recognition) -> FloatArray | None:
        """Compute the embedding of a crop, whose landmarks are at the places of the template."""
        side = crop.shape[0]
        points = (self._points * side - 0.5).astype(np.float32)
        bgr = np.rint(255 * crop[..., ::-1]).astype(np.uint8)
        box = np.array([0, 0, side, side], np.float32)
        (vector,) = recognizer(np.ascontiguousarray(bgr), [Detection(box, points, 1.0)])
        return vector


def blink_frames(eyes: npt.NDArray[Any], reach_frames: int) -> npt.NDArray[np.bool_]:
    """Find the frames in which eyes differ for a moment from most frames around.

    The function takes the mean from each picture, and compares it with the median over the frames
    around. A blink lasts for less than half of them; a longer look to the side is no
    blink.

    Args:
        eyes: (n, h, w) luma of both eyes in consecutive frames, small pictures in 8-bit levels.
        reach_frames: How many frames before and after a frame enter the median.

    Returns:
        (n,) bool, True for the frames of a blink.
    """
    flat = np.reshape(eyes, (len(eyes), -1)).astype(np.float64)
    flat = flat - flat.mean(axis=1, keepdims=True)
    deviation = np.zeros(len(flat))
    for t, eye in enumerate(flat):
        around = flat[max(0, t - reach_frames) : t + reach_frames + 1]
        deviation[t] = np.abs(eye - np.median(around, axis=0)).mean()
    usual = np.median(deviation) if len(deviation) else 0.0
    return np.asarray(deviation > max(_BLINK_LEVELS, _BLINK_RATIO * usual))


class _Sums:
    """The means of terms for each measure and video, without the terms themselves."""

    def __init__(self) -> None:
        self._totals: dict[tuple[str, str], Values] = defaultdict(lambda: np.zeros(2))
        self._worst = math.nan

    def add(self, name: str, role: str, terms: Values) -> None:
        valid = terms[~np.isnan(terms)]
        self.add_ratio(name, role, np.array([[valid.sum(), len(valid)]]))

    def add_ratio(self, name: str, role: str, sums: Values) -> None:
        """Add (n, 2) sums; the end of the video divides the totals of both columns."""
        self._totals[name, role] += sums.sum(axis=0)

    def add_worst(self, gain_db: float) -> None:
        self._worst = float(np.fmin(self._worst, gain_db))

    def pairs(self) -> dict[str, Pair]:
        names = dict.fromkeys(name for name, _ in self._totals)
        result = {
            name: Pair(self._value(name, "output"), self._value(name, "source")) for name in names
        }
        return result if math.isnan(self._worst) else {"WORST": Pair(self._worst), **result}

    def _value(self, name: str, role: str) -> float:
        value = metrics.ratio(self._totals[name, role][None])
        return math.sqrt(value) if name in _ROOTED else value


class _Followed:
    """The last crops of one face, from which the measures are added to the sums."""

    def __init__(
        self, sums: _Sums, eyes_px: npt.NDArray[np.float64], side: int, reach_frames: int
    ) -> None:
        self._sums = sums
        self._flow = DenseFlow()
        self._index = -1
        self._crops: deque[Mapping[str, Stack]] = deque(maxlen=_LONGEST_FRAMES)
        self._masks: deque[Mask] = deque(maxlen=_LONGEST_FRAMES)
        self._flows: dict[str, deque[Flows]] = {}
        self._eyes = _Eyes(sums, eyes_px, side, reach_frames)

    def add(self, index: int, crops: Mapping[str, Stack], mask: Mask) -> None:
        if index != self._index + 1:
            self.finish()
        self._index = index
        self._add_details({role: crop[None] for role, crop in crops.items()}, mask)
        self._crops.append({role: _small(crop) for role, crop in crops.items()})
        self._masks.append(_small(mask))
        if "truth" in crops:
            self._flow_on("truth", 0)
            self._against_truth()
            self._eyes.add(self._crops[-1], self._masks[-1])
        else:
            self._flow_on("source", _FLOW_BLUR_PX)
            self._flow_on("output", _FLOW_BLUR_PX)
            self._against_source()

    def finish(self) -> None:
        """End a run of consecutive frames."""
        self._eyes.finish()
        self._crops.clear()
        self._masks.clear()
        self._flows.clear()

    def _flow_on(self, role: str, blur_px: float) -> None:
        if len(self._crops) > 1:
            pair = metrics.flows_between(self._stack(role, 2), self._flow, blur_px=blur_px)
            self._flows.setdefault(role, deque(maxlen=_LONGEST_FRAMES - 1)).append(pair)

    def _add_details(self, now: Mapping[str, Stack], mask: Mask) -> None:
        """Add the measures of a single frame."""
        output, source, truth = now["output"], now["source"], now.get("truth")
        if truth is None:
            self._sums.add("SHP", "output", metrics.sharpness(output, source, mask))
            return
        self._sums.add_worst(metrics.worst_gain_db(output, source, truth, mask))
        for role in ("output", "source"):
            self._sums.add_ratio("DTL", role, metrics.true_detail(now[role], truth, mask))

    def _against_truth(self) -> None:
        add, count = self._sums.add, len(self._crops)
        for role in ("output", "source"):
            if count >= 2:
                mask, flows, two = self._mask(2), self._between("truth", 2), self._stack(role, 2)
                add("Ewarp", role, metrics.warp_error(two, flows, mask))
                add("tOF", role, metrics.motion_error_px(two, self._stack("truth", 2), mask))
            if count >= 3:
                three = (self._stack(role, 3), self._stack("truth", 3))
                flows, mask = self._between("truth", 3), self._mask(3)
                add("FLK", role, metrics.flicker(*three, flows, mask))
                add("FLKlo", role, metrics.slow_flicker(*three, flows, mask))

    def _against_source(self) -> None:
        add, count = self._sums.add, len(self._crops)
        weights = None
        if count >= 3:
            of_three = self._stack("source", 3), self._between("source", 3), self._mask(3)
            weights = metrics.confident_mask(*of_three)
        for role in ("output", "source"):
            if count >= 2:
                flows = self._between("source", 2)
                add("Ewarp", role, metrics.warp_error(self._stack(role, 2), flows, self._mask(2)))
            if count >= 3:
                three = (self._stack(role, 3), self._stack("source", 3))
                flows, mask = self._between("source", 3), self._mask(3)
                add("FLKb", role, metrics.blind_flicker(*three, flows, mask, weights=weights))
                add("JIT", role, metrics.jitter_px(self._between(role, 3), mask))
        if count >= 4:
            own, true = self._between("output", 4), self._between("source", 4)
            add("GEO", "output", metrics.wobble_px(own, true, self._mask(4)))

    def _stack(self, role: str, count: int) -> Stack:
        return np.stack([crops[role] for crops in list(self._crops)[-count:]])

    def _mask(self, count: int) -> Mask:
        return np.stack(list(self._masks)[-count:])

    def _between(self, role: str, count: int) -> Flows:
        """Return the flows between the last `count` frames."""
        pairs = list(self._flows[role])[1 - count :]
        return Flows(
            np.concatenate([pair.forward for pair in pairs]),
            np.concatenate([pair.backward for pair in pairs]),
        )


class _Eyes:
    """Finds the blinks of one face in the clean video, and measures the eyes during them."""

    def __init__(
        self, sums: _Sums, eyes_px: npt.NDArray[np.float64], side: int, reach_frames: int
    ) -> None:
        self._sums = sums
        self._reach_frames = reach_frames
        half = np.array(_EYE_AXES) * np.linalg.norm(eyes_px[1] - eyes_px[0])
        y, x = np.mgrid[:side, :side]
        rounds = [((x - ex) / half[0]) ** 2 + ((y - ey) / half[1]) ** 2 for ex, ey in eyes_px]
        self._mask = (np.min(rounds, axis=0) <= 1).astype(np.float32)
        low, high = np.floor(eyes_px - half).astype(int), np.ceil(eyes_px + half).astype(int) + 1
        self._boxes = [
            (slice(y0, y1), slice(x0, x1)) for (x0, y0), (x1, y1) in zip(low, high, strict=True)
        ]
        self._seen: list[npt.NDArray[np.uint8]] = []
        self._psnr_db: dict[str, list[float]] = {"output": [], "source": []}

    def add(self, crops: Mapping[str, Stack], mask: Mask) -> None:
        truth = crops["truth"]
        gray = cv2.cvtColor(np.rint(255 * truth).astype(np.uint8), cv2.COLOR_RGB2GRAY)
        small = [
            cv2.resize(gray[box], _EYE_SIZE, interpolation=cv2.INTER_AREA) for box in self._boxes
        ]
        self._seen.append(np.asarray(np.vstack(small), np.uint8))
        for role, values in self._psnr_db.items():
            own = metrics.psnr_db(crops[role][None], truth[None], self._mask * mask)
            values.append(float(own[0]))

    def finish(self) -> None:
        if self._seen:
            blinks = blink_frames(np.stack(self._seen), self._reach_frames)
            for role, values in self._psnr_db.items():
                self._sums.add("BLINK", role, np.array(values)[blinks])
                values.clear()
        self._seen.clear()


def _small(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Reduce a square picture or mask to at most `_MOTION_PX`, by areas."""
    side = min(picture.shape[0], _MOTION_PX)
    if side == picture.shape[0]:
        return picture
    small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32)


def _picture(face: Face) -> Stack:
    """Return the crop as (W, W, 3)."""
    return np.ascontiguousarray(face.source.permute(1, 2, 0).numpy())

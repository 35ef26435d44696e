"""What one frame says of a face that is pasted into it: where it is, and how it looks.

Everything is small and depends on that frame alone, or for noise on its two neighbours, so that
what a window of frames says together does not depend on where a segment begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from vidrestore.analysis.tracks import Track
from vidrestore.imaging import color, transfer
from vidrestore.imaging.frame import FloatArray, Frame, VideoInfo
from vidrestore.imaging.geometry import (
    GRID_PX,
    Matrix,
    Rect,
    apply,
    covering_rect,
    crop_side_px,
    invert,
    shifted,
    unit_corners,
)
from vidrestore.imaging.planes import chroma_rect, layout, plane, samples
from vidrestore.models.devices import to_host
from vidrestore.models.face_parser import Parsed, Parser
from vidrestore.restoration.compositing import (
    color_match,
    defocus,
    grain,
    masks,
    motion_blur,
    occlusion,
)
from vidrestore.restoration.faces import Face

# Width of a mask's soft edge in pixels of the frame, and as a share of the crop's side at most.
_FEATHER_PX, _WIDEST_FEATHER = 14.0, 0.07
# How far around a face noise is measured, as a share of its own width and height.
_AROUND = 0.2
# How far within its own edges, likewise.
_INSIDE = 0.1
# How far around it edges are looked at; from where on the mask is surely face.
_NEAR, _SURELY = 0.3, 0.9
# Side in samples of what is looked at for noise, at least: two blocks in each direction.
_FEWEST_SAMPLES = 34
# Side of a crop, in frame pixels, from which on noise is not measured in every frame.
_LARGE_SIDE_PX = 200.0
# Of a single frame: sides of crops, in frame pixels, between which noise begins to be told from
# features; eyes are 24 and 31 px apart there.
_GRAIN_SIDE_PX = (110.0, 142.0)


class TrackGeometry:
    """What a track says of its face: how large it is, and where in each frame."""

    def __init__(self, track: Track) -> None:
        self._track = track
        self.track_id = track.track_id
        self.side_px = float(np.median([crop_side_px(matrix) for matrix in track.matrices]))

    def unit(self, index: int) -> Matrix | None:
        """(2, 3) frame -> unit crop; None before and after the track."""
        at = index - self._track.first_frame
        inside = 0 <= at < len(self._track.matrices)
        return self._track.matrices[at].astype(np.float64) if inside else None

    def shows_noise(self, index: int) -> bool:
        """True for frames with two neighbours in the track in which noise is measured: of a small
        face, which has few samples, all; else so few that each frame is or is next to one."""
        first, last = self._track.first_frame + 1, self._track.end_frame - 2
        if not first <= index <= last:
            return False
        return self.side_px < _LARGE_SIDE_PX or index in (first, last) or index % 3 == 0

    def landmarks(self, index: int) -> masks.Points:
        """(5, 2) in the unit crop of a frame of the track."""
        at = index - self._track.first_frame
        points = self._track.landmarks[at].astype(np.float64)
        return apply(self._track.matrices[at].astype(np.float64), points)


@dataclass(frozen=True, slots=True, eq=False)
class FacePlacement:
    """A face in a frame."""

    unit: Matrix
    """(2, 3).

    Convention: frame pixel centres (x, y) -> unit crop.
    """
    landmarks: masks.Points
    """(5, 2) in the unit crop."""
    feather: float
    """Width of the mask's soft edge, in unit crops; likewise:"""
    reach: masks.Points
    """(n,) of its outline; see `masks.hull_support`."""
    distance: FloatArray
    """(64, 64) signed distance to the outline of the face."""

    def rect(self, info: VideoInfo, grid: tuple[int, int], *, around: float = 0.0) -> Rect:
        """What the mask covers of the frame, and so many times its size around it."""
        quarter = len(self.reach) // 4
        right, bottom, left, top = (self.reach[i * quarter] + self.feather for i in range(4))
        wide, high = (right + left) * around, (bottom + top) * around
        left, right, top, bottom = -left - wide, right + wide, -top - high, bottom + high
        box = np.array([[left, top], [right, top], [left, bottom], [right, bottom]])
        return covering_rect(apply(invert(self.unit), box), info, grid=grid, margin_px=1)


@dataclass(frozen=True, slots=True, eq=False)
class FrameAppearance:
    """The face itself; None and empty where nobody asked."""

    contradiction: occlusion.OcclusionCheck | None = None
    tone: color_match.Tone | None = None
    unclipped: FloatArray | None = None
    """(64, 64) in [0, 1]"""
    parsed: Parsed | None = None
    """What a parser sees in the source."""
    smear: motion_blur.MotionBlur | None = None
    edges_px: float | None = None
    """Width of the source's edges, on the face or around it, whichever are sharper; pixels of the
    frame. None where there are none around it."""


def place_of(unit: Matrix, landmarks: masks.Points | None) -> FacePlacement:
    """`landmarks` (5, 2) in the unit crop, or None for those of an average face."""
    feather = min(_FEATHER_PX / crop_side_px(unit), _WIDEST_FEATHER)
    points = masks.usual_landmarks() if landmarks is None else masks.believable(landmarks)
    reach = masks.hull_support(points)
    return FacePlacement(unit, points, feather, reach, masks.hull_distance(reach, feather))


def look_at(
    face: Face,
    frame: Frame,
    place: FacePlacement,
    info: VideoInfo,
    *,
    occluders: bool,
    tones: bool,
    edges: bool,
    motion: npt.NDArray[np.float64] | None,
    parser: Parser | None,
) -> FrameAppearance:
    """Each only where it is asked for; `motion` is that of `smear.motion_px`."""
    assert face.restored is not None
    inside = _inside_frame(place.unit, info)
    mask = masks.soft(place.distance, place.feather) * inside
    found: dict[str, Any] = {}
    pair: list[torch.Tensor] | list[FloatArray] = [face.source, face.restored]
    if motion is not None:
        found["smear"] = motion_blur.MotionBlur(motion, 0.0)
        if motion_blur.is_fast(place.unit, motion):
            side = motion_blur.GRID_PX
            source, restored = fine = [_small(crop, side) for crop in pair]
            face_there = scaled(mask, side)
            found["smear"] = motion_blur.smear_of(source, restored, face_there, place.unit, motion)
            pair = fine if face.work_px >= side else pair
    if occluders or tones:
        source, restored = (_small(each, occlusion.GRID_PX) for each in pair)
        large = scaled(mask, occlusion.GRID_PX)
        contradiction = occlusion.contradiction(255 * source, 255 * restored, large)
        if occluders:
            found["contradiction"] = contradiction
        if tones:
            side = color_match.GRID_PX
            weight = scaled(large * contradiction.agrees, side)
            pictures = scaled(source, side), scaled(restored, side)
            found["tone"] = color_match.tone_of(*pictures, weight)
            found["unclipped"] = color_match.unclipped(pictures[0])
    if parser is not None:
        found["parsed"] = parser(face.source, mask)
    if edges:
        found["edges_px"] = _edges_px(frame, place, info)
    return FrameAppearance(**found)


def at_rect(
    picture: FloatArray, place: FacePlacement, rect: Rect, *, step_px: int = 1
) -> FloatArray:
    """A small (n, n) or (n, n, 4) picture of the unit crop, bilinear at every pixel of a part of
    the frame, or in the middle of each `step_px` by `step_px` pixels of it."""
    matrix = place.unit * len(picture)
    matrix[:, 2] -= 0.5
    matrix = shifted(matrix, rect)
    matrix[:, 2] += matrix[:, :2] @ np.full(2, (step_px - 1) / 2)
    matrix[:, :2] *= step_px
    found = cv2.warpAffine(
        picture,
        matrix,
        (-(-rect.width // step_px), -(-rect.height // step_px)),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(found, np.float32)


def broad_at_rect(
    fields: Sequence[npt.NDArray[Any]], place: FacePlacement, rect: Rect
) -> list[FloatArray]:
    """The same of four (n, n) that are so smooth that every other pixel says it all."""
    halves = cv2.split(at_rect(np.dstack(fields), place, rect, step_px=2))
    size = tuple(2 * side for side in halves[0].shape[::-1])
    doubled = [cv2.resize(half, size, interpolation=cv2.INTER_LINEAR) for half in halves]
    return [np.asarray(each[: rect.height, : rect.width], np.float32) for each in doubled]


def grain_planes(image: Any) -> tuple[int, ...]:
    """The planes whose noise is measured: each, or green where they are red, green and blue."""
    how = layout(image)
    return (how.planes[1],) if how.is_rgb else how.planes


def _edges_px(frame: Frame, place: FacePlacement, info: VideoInfo) -> float | None:
    rect = place.rect(info, layout(frame.image).grid, around=_NEAR)
    if rect.is_empty:
        return None
    shown = transfer.to_display(color.region_rgb(frame.image, rect, info), info).clamp(0, 1)
    rgb = shown.float().permute(1, 2, 0).numpy()
    mask = masks.soft(at_rect(place.distance, place, rect), place.feather)
    around = defocus.width_px(rgb, mask == 0)
    inside = defocus.width_px(rgb, mask > _SURELY)
    return around if around is None or inside is None else min(around, inside)


def noise_between(
    frames: Sequence[Frame], units: Sequence[Matrix], place: FacePlacement, info: VideoInfo
) -> tuple[grain.Spectrum, ...]:
    """Noise of the middle one of three successive frames, of each of `grain_planes`: the weaker of
    what the surroundings show and what the face does, which is followed by its (2, 3) `units`.

    Noise is in both, while leaves behind a face, or lips that move, are not.
    """
    how = layout(frames[1].image)
    around, within = (place.rect(info, how.grid, around=each) for each in (_AROUND, -_INSIDE))
    centre = np.full((1, 2), 0.5)
    here, *others = (apply(invert(unit), centre)[0] for unit in (units[1], units[0], units[2]))
    moved = [other - here for other in others]
    found = []
    for index in grain_planes(frames[1].image):
        is_chroma = index in how.planes[1:] and not how.is_rgb
        grid = how.grid if is_chroma else (1, 1)
        planes = [plane(frame.image, index) for frame in frames]
        spectra = []
        for rect, shifts in ((around, [np.zeros(2)] * 2), (within, moved)):
            part = chroma_rect(rect, how.grid) if is_chroma else rect
            if rect is around:
                part = _at_least(part, planes[1].shape)
            steps = [np.rint(shift / grid).astype(int) for shift in shifts]
            three = _followed(planes, part, [steps[0], np.zeros(2, int), steps[1]])
            if three and (spectrum := grain.changing_spectrum(three, how.bits)) is not None:
                spectra.append(spectrum)
        found.append(min(spectra, key=grain.sigma_of, default=grain.nothing()))
    return tuple(found)


def _at_least(rect: Rect, shape: tuple[int, int]) -> Rect:
    """Of (h, w) samples at least `_FEWEST_SAMPLES` on a side, around the middle of `rect`."""
    ends = []
    for low, high, length in ((rect.x0, rect.x1, shape[1]), (rect.y0, rect.y1, shape[0])):
        wanted = max(high - low, _FEWEST_SAMPLES)
        start = max(min((low + high - wanted) // 2, length - wanted), 0)
        ends.append((start, min(start + wanted, length)))
    (x0, x1), (y0, y1) = ends
    return Rect(x0, y0, x1, y1)


def _followed(
    planes: Sequence[npt.NDArray[Any]], rect: Rect, steps: Sequence[npt.NDArray[np.int_]]
) -> list[npt.NDArray[Any]]:
    """`rect` of each (h, w) plane, moved by so many samples (x, y), as far as it lies in all of
    them; empty where it does not."""
    height, width = planes[0].shape
    x, y = np.transpose(steps)
    x0, x1 = max(rect.x0, -x.min()), min(rect.x1, width - x.max())
    y0, y1 = max(rect.y0, -y.min()), min(rect.y1, height - y.max())
    if x0 >= x1 or y0 >= y1:
        return []
    return [
        each[y0 + down : y1 + down, x0 + across : x1 + across]
        for each, (across, down) in zip(planes, steps, strict=True)
    ]


def noise_of(frame: Frame, place: FacePlacement, info: VideoInfo) -> tuple[grain.Spectrum, ...]:
    """The same of a frame that has no neighbours, by its flattest blocks.

    In a face so small that no block of it is flat both show features instead: the noise fades out
    with the size of the crop.
    """
    small, large = _GRAIN_SIDE_PX
    share = min(max((crop_side_px(place.unit) - small) / (large - small), 0.0), 1.0)
    how = layout(frame.image)
    rects = [place.rect(info, how.grid, around=around) for around in (_AROUND, -_INSIDE)]
    found = []
    for index in grain_planes(frame.image):
        is_chroma = index in how.planes[1:] and not how.is_rgb
        parts = [chroma_rect(rect, how.grid) if is_chroma else rect for rect in rects]
        spectra = [
            grain.spectrum_of(samples(frame.image, index, part).numpy(), how.bits)
            for part in parts
            if not part.is_empty
        ]
        if not spectra:  # the mask and all around it lie outside the frame
            spectra = [grain.nothing()]
        known = [each for each in spectra if each.any()] or spectra[:1]
        found.append(share**2 * min(known, key=grain.sigma_of))
    return tuple(found)


def _inside_frame(unit: Matrix, info: VideoInfo) -> FloatArray:
    """(64, 64) 1 where the unit crop shows the frame, 0 where it repeats its border."""
    inverse = invert(unit)
    corners = apply(inverse, unit_corners())
    if (corners >= 0).all() and (corners <= [info.width - 1, info.height - 1]).all():
        return np.ones((GRID_PX, GRID_PX), np.float32)
    centres = (np.arange(GRID_PX) + 0.5) / GRID_PX
    x, y = (inverse[i, 0] * centres + (inverse[i, 1] * centres + inverse[i, 2])[:, None]
            for i in (0, 1))  # fmt: skip
    inside = (x >= -0.5) & (y >= -0.5) & (x < info.width - 0.5) & (y < info.height - 0.5)
    return np.asarray(inside, np.float32)


def _small(crop: torch.Tensor | FloatArray, side: int) -> FloatArray:
    """(3, W, W), or what this made of one, -> (side, side, 3) on the CPU."""
    if isinstance(crop, np.ndarray):
        return scaled(crop, side)
    return np.asarray(cv2.merge([scaled(plane, side) for plane in to_host(crop).numpy()]))


def scaled(picture: FloatArray, side: int) -> FloatArray:
    """A square picture with another side."""
    while (own := len(picture)) != side:
        # By halves, as long as these lead there: that is less than half the work of one step.
        to = own // 2 if own % (2 * side) == 0 else side
        how = cv2.INTER_AREA if to < own else cv2.INTER_LINEAR
        picture = np.asarray(cv2.resize(picture, (to, to), interpolation=how), np.float32)
    return picture

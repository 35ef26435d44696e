"""Appearance: where a face is in one frame, and how it looks there.

All values are small and depend only on that frame, or for noise on its two neighbors. What a window
of frames gives together therefore does not depend on where a segment begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from vidrestore.analysis.tracks import Track
from vidrestore.common.settings import Extent
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
from vidrestore.imaging.luma import bt601_luma
from vidrestore.imaging.optical_flow import reduced, uses_opencv
from vidrestore.imaging.planes import chroma_rect, layout, plane, samples
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

# How far around a face noise is measured, as a share of its own width and height.
_AROUND = 0.2
# How far within its own edges a face is measured, as a share of its width and height.
_INSIDE = 0.1
# How far around a face edges are measured, as a share of its size; the value of the mask from which
# on a sample certainly belongs to the face.
_NEAR, _SURELY = 0.3, 0.9
# The least side, in samples, of an area in which noise is measured: two blocks in each direction.
_FEWEST_SAMPLES = 34
# Side of a crop, in frame pixels, from which on noise is not measured in every frame.
_LARGE_SIDE_PX = 200.0
# Of a single frame: sides of crops, in frame pixels, between which the noise of a face begins to be
# told from its features; eyes are 24 and 31 px apart there.
_GRAIN_SIDE_PX = (110.0, 142.0)


class TrackGeometry:
    """The size of the face of a track, and its place in each frame."""

    def __init__(self, track: Track) -> None:
        """Take the geometry of a track.

        Args:
            track: The track.
        """
        self._track = track
        self.track_id = track.track_id
        self.side_px = float(np.median([crop_side_px(matrix) for matrix in track.matrices]))

    def unit(self, index: int) -> Matrix | None:
        """Return the matrix from a frame to the unit crop.

        Convention:
            Frame pixel centers (x, y) -> unit crop, whose outer edges lie at 0 and 1.

        Args:
            index: The index of the frame.

        Returns:
            (2, 3) float64; None before and after the track.
        """
        at = index - self._track.first_frame
        inside = 0 <= at < len(self._track.matrices)
        return self._track.matrices[at].astype(np.float64) if inside else None

    def shows_noise(self, index: int) -> bool:
        """Return whether noise is measured in a frame.

        These are frames with both neighbors in the track: all of them for a small face, which has
        few samples; else so few that each frame is one of them or next to one.

        Args:
            index: The index of the frame.

        Returns:
            Whether noise is measured there.
        """
        first, last = self._track.first_frame + 1, self._track.end_frame - 2
        if not first <= index <= last:
            return False
        return self.side_px < _LARGE_SIDE_PX or index in (first, last) or index % 3 == 0

    def landmarks(self, index: int) -> masks.Points:
        """Return the landmarks in a frame of the track.

        Convention:
            (x, y) in the unit crop, whose outer edges lie at 0 and 1.

        Args:
            index: The index of the frame, which lies in the track.

        Returns:
            (5, 2) float64.
        """
        at = index - self._track.first_frame
        points = self._track.landmarks[at].astype(np.float64)
        return apply(self._track.matrices[at].astype(np.float64), points)

    def place(
        self, index: int, *, unit: Matrix | None = None, extent: Extent = "face"
    ) -> FacePlacement:
        """Return the place of the face in a frame of the track, and its outline.

        Convention:
            `unit` is frame pixel centers (x, y) -> unit crop.

        Args:
            index: The index of the frame, which lies in the track.
            unit: (2, 3) matrix of the crop that is pasted; default: that of the track.
            extent: What is pasted; default: the face.

        Returns:
            The place.
        """
        at = index - self._track.first_frame
        own = self._track.matrices[at].astype(np.float64) if unit is None else unit
        return place_of(own, self.landmarks(index), self._shape(at), extent=extent)

    def box(self, index: int, *, extent: Extent) -> npt.NDArray[np.float64]:
        """Return the box of the mask in a frame of the track.

        Convention:
            (x, y) in the unit crop, whose outer edges lie at 0 and 1.

        Args:
            index: The index of the frame, which lies in the track.
            extent: What is pasted.

        Returns:
            (2, 2) float64: the upper left and the lower right corner; the mask of a turned face may
            end beyond the unit crop.
        """
        at = index - self._track.first_frame
        points, shape = masks.believable(self.landmarks(index)), self._shape(at)
        feather = masks.feather_width(crop_side_px(self._track.matrices[at]), extent)
        return _box(_reach(points, shape, extent), feather)

    def _shape(self, at: int) -> masks.Points | None:
        """Return the points of the face mesh; None where the track has none."""
        shapes = self._track.shapes
        return None if shapes is None else shapes[at].astype(np.float64)


@dataclass(frozen=True, eq=False)
class FacePlacement:
    """The place of a face in a frame, and its outline."""

    unit: Matrix
    """The (2, 3) matrix from the frame to the unit crop.

    Convention: frame pixel centers (x, y) -> unit crop, whose outer edges lie at 0 and 1.
    """
    landmarks: masks.Points
    """(5, 2) landmarks (x, y) in the unit crop."""
    feather: float
    """The width of the soft edge of the mask, in unit crops."""
    reach: masks.Points
    """(k, n) extents, in unit crops, of the hulls whose union is pasted; see `masks.support`."""
    shape: masks.Points | None = None
    """(86, 2) points (x, y) of the face mesh in the unit crop, as in `Track.shapes`; None: the face
    has no mesh."""
    extent: Extent = "face"
    """What is pasted."""

    @cached_property
    def distance(self) -> FloatArray:
        """(64, 64) signed distance to the outline of what is pasted, in unit crops; < 0 inside."""
        if self.extent == "head":
            return masks.head_distance(self.reach)
        return masks.hull_distance(self.reach, self.feather, has_mesh=self.shape is not None)

    def rect(self, info: VideoInfo, grid: tuple[int, int], *, around: float = 0.0) -> Rect:
        """Return the rectangle that the mask covers in the frame, with a margin.

        Args:
            info: The properties of the frame.
            grid: The width and height of a group of chroma samples in pixels; the rectangle
                consists of whole groups.
            around: The margin on each side as a share of the width and height of the mask; negative
                values shrink the rectangle. Default: 0.

        Returns:
            The rectangle in pixels of the frame; it may be empty.
        """
        box = _box(self.reach, self.feather)
        wide, high = (box[1] - box[0]) * around
        (left, top), (right, bottom) = box[0] - (wide, high), box[1] + (wide, high)
        box = np.array([[left, top], [right, top], [left, bottom], [right, bottom]])
        return covering_rect(apply(invert(self.unit), box), info, grid=grid, margin_px=1)


@dataclass(frozen=True, slots=True, eq=False)
class FrameAppearance:
    """How a face looks in a frame; fields that the caller did not ask for are None."""

    contradiction: occlusion.OcclusionCheck | None = None
    """The contradictions of the restored face with its source."""
    tone: color_match.Tone | None = None
    """The broad colors of the source and of the restored face."""
    unclipped: FloatArray | None = None
    """(64, 64) in [0, 1]; 0 where the source is overexposed."""
    parsed: Parsed | None = None
    """The parts of the face that a parser found in the source."""
    smear: motion_blur.MotionBlur | None = None
    """The motion blur of the source."""
    edges_px: float | None = None
    """The width of the edges of the source in pixels of the frame, on the face or around it,
    whichever are sharper; None also where there are no edges around it.
    """


def place_of(
    unit: Matrix,
    landmarks: masks.Points | None,
    shape: masks.Points | None = None,
    *,
    extent: Extent = "face",
) -> FacePlacement:
    """Return the place of a face and its outline.

    Convention:
        `unit` is frame pixel centers (x, y) -> unit crop; landmarks and shape are (x, y) in the
        unit crop.

    Args:
        unit: (2, 3) matrix.
        landmarks: (5, 2) landmarks; None for those of an average face.
        shape: (86, 2) points of the face mesh, as in `Track.shapes`; default: the face has no mesh,
            and the landmarks give its outline.
        extent: What is pasted; default: the face.

    Returns:
        The place.
    """
    points = masks.usual_landmarks() if landmarks is None else masks.believable(landmarks)
    feather = masks.feather_width(crop_side_px(unit), extent)
    return FacePlacement(unit, points, feather, _reach(points, shape, extent), shape, extent)


def _reach(points: masks.Points, shape: masks.Points | None, extent: Extent) -> masks.Points:
    """Return the extents of the outline of what is pasted, in unit crops."""
    if extent == "head":
        return masks.head_support(points, shape)
    return masks.hull_support(points) if shape is None else masks.mesh_support(shape)


def _box(reach: masks.Points, feather: float) -> npt.NDArray[np.float64]:
    """Return the (2, 2) corners (x, y) of the box of a mask in the unit crop."""
    farthest = reach.max(axis=0)
    right, bottom, left, top = farthest[:: len(farthest) // 4] + feather
    return np.array([[-left, -top], [right, bottom]])


def measure_appearance(
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
    """Measure how a face looks in a frame.

    Args:
        face: The face; it has a restored crop.
        frame: The frame as decoded.
        place: The place of the face in the frame.
        info: The properties of the frame.
        occluders: Whether to look for occluders.
        tones: Whether to measure colors and overexposure.
        edges: Whether to measure the width of edges.
        motion: (2,) motion, as `motion_blur.motion_px` returns it, to measure motion blur; None: it
            is not measured.
        parser: The face parser; None: the face is not parsed.

    Returns:
        The appearance.
    """
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
        if face.colorized:  # the colors that it got contradict nothing
            source, restored = (_gray(each) for each in (source, restored))
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
    """Sample a picture of the unit crop, bilinearly, at the pixels of a part of the frame.

    Convention:
        `picture` covers the unit crop, its outer edges at 0 and 1; beyond its edge its border is
        repeated.

    Args:
        picture: (n, n) or (n, n, 4) float32 picture.
        place: The place of the face.
        rect: The part of the frame, w x h pixels.
        step_px: The side of the squares of pixels that get one sample each, in their middle;
            default: 1.

    Returns:
        (h, w) or (h, w, 4) float32, both sides divided by `step_px` and rounded up.
    """
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
    """Sample four smooth pictures of the unit crop at the pixels of a part of the frame.

    They are sampled as by `at_rect` at every other pixel and interpolated between.

    Args:
        fields: Four (n, n) pictures.
        place: The place of the face.
        rect: The part of the frame, w x h pixels.

    Returns:
        The four (h, w) float32 pictures.
    """
    halves = cv2.split(at_rect(np.dstack(fields), place, rect, step_px=2))
    size = tuple(2 * side for side in halves[0].shape[::-1])
    doubled = [cv2.resize(half, size, interpolation=cv2.INTER_LINEAR) for half in halves]
    return [np.asarray(each[: rect.height, : rect.width], np.float32) for each in doubled]


def grain_planes(image: Any) -> tuple[int, ...]:
    """Return the planes whose noise is measured.

    Args:
        image: The frame.

    Returns:
        The indexes of the planes: all color planes, or green alone where they are red, green and
        blue.
    """
    how = layout(image)
    return (how.planes[1],) if how.is_rgb else how.planes


def _edges_px(frame: Frame, place: FacePlacement, info: VideoInfo) -> float | None:
    """Return the width of the edges of the source, on or around the face; None without edges."""
    rect = place.rect(info, layout(frame.image).grid, around=_NEAR)
    if rect.is_empty:
        return None
    display_rgb = transfer.to_display(color.region_rgb(frame.image, rect, info), info).clamp(0, 1)
    rgb = display_rgb.float().permute(1, 2, 0).numpy()
    mask = masks.soft(at_rect(place.distance, place, rect), place.feather)
    around = defocus.width_px(rgb, mask == 0)
    inside = defocus.width_px(rgb, mask > _SURELY)
    return around if around is None or inside is None else min(around, inside)


def noise_between(
    frames: Sequence[Frame],
    units: Sequence[Matrix],
    place: FacePlacement,
    info: VideoInfo,
    *,
    single_fields: bool = False,
) -> tuple[grain.Spectrum, ...]:
    """Measure the noise of the middle one of three successive frames.

    It is measured around the face and on the face, which is followed through the frames, and the
    weaker one is returned: leaves that move behind a face or moving lips are in one of the two,
    noise is in both.

    Convention:
        `units` are frame pixel centers (x, y) -> unit crop.

    Args:
        frames: The three frames, in order.
        units: The (2, 3) matrix of each frame.
        place: The place of the face in the middle frame.
        info: The properties of the frames.
        single_fields: Whether each frame shows one field; default: no.

    Returns:
        The (16, 9) spectrum of each of `grain_planes`.
    """
    how = layout(frames[1].image)
    around, within = (place.rect(info, how.grid, around=each) for each in (_AROUND, -_INSIDE))
    middle = np.full((1, 2), 0.5)
    center, *others = (apply(invert(unit), middle)[0] for unit in (units[1], units[0], units[2]))
    moved = [other - center for other in others]
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
            if not three:
                continue
            spectrum = grain.changing_spectrum(three, how.bits, single_fields=single_fields)
            if spectrum is not None:
                spectra.append(spectrum)
        found.append(min(spectra, key=grain.sigma_of, default=grain.nothing()))
    return tuple(found)


def _at_least(rect: Rect, shape: tuple[int, int]) -> Rect:
    """Return `rect` with at least `_FEWEST_SAMPLES` on a side, within a plane of that shape."""
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
    """Return `rect` of each (h, w) plane, moved by whole samples (x, y), where it lies in all.

    The list is empty where it does not.
    """
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
    """Measure the noise of a single frame by its flattest blocks.

    A face can be so small that no block of it is flat, and both places then show features. With the
    size of the crop, the flattest blocks of the whole picture take their place, as far as the
    finest detail of the face allows.

    Args:
        frame: The frame.
        place: The place of the face.
        info: The properties of the frame.

    Returns:
        The (16, 9) spectrum of each of `grain_planes`.
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
        own = share**2 * min(known, key=grain.sigma_of)
        if share < 1 and not (part := parts[1] if not parts[1].is_empty else parts[0]).is_empty:
            whole = grain.spectrum_of_whole(plane(frame.image, index), how.bits)
            face = samples(frame.image, index, part).numpy()
            own = own + (1 - share**2) * grain.most_within(whole, face)
        found.append(own)
    return tuple(found)


def _inside_frame(unit: Matrix, info: VideoInfo) -> FloatArray:
    """Return (64, 64): 1 where the unit crop shows the frame, 0 where it repeats its border."""
    inverse = invert(unit)
    corners = apply(inverse, unit_corners())
    if (corners >= 0).all() and (corners <= [info.width - 1, info.height - 1]).all():
        return np.ones((GRID_PX, GRID_PX), np.float32)
    centers = (np.arange(GRID_PX) + 0.5) / GRID_PX
    x, y = (inverse[i, 0] * centers + (inverse[i, 1] * centers + inverse[i, 2])[:, None]
            for i in (0, 1))  # fmt: skip
    inside = (x >= -0.5) & (y >= -0.5) & (x < info.width - 0.5) & (y < info.height - 0.5)
    return np.asarray(inside, np.float32)


def _small(crop: torch.Tensor | FloatArray, side: int) -> FloatArray:
    """Return (side, side, 3) on the CPU, of (3, W, W) or of what this function returned before."""
    if isinstance(crop, np.ndarray):
        return scaled(crop, side)
    if not uses_opencv(crop.device):
        return reduced(crop, side) / np.float32(255)
    return np.asarray(cv2.merge([scaled(plane, side) for plane in crop.numpy()]))


def _gray(picture: FloatArray) -> FloatArray:
    """Return (side, side, 3) with the luma in each channel."""
    return np.asarray(cv2.merge([bt601_luma(picture)] * 3), np.float32)


def scaled(picture: FloatArray, side: int) -> FloatArray:
    """Scale a square picture.

    Args:
        picture: (n, n) or (n, n, channels) float32 picture.
        side: The new side in pixels.

    Returns:
        The picture, averaged over areas to shrink and interpolated bilinearly to enlarge; `picture`
        itself where it has that side.
    """
    while (own := len(picture)) != side:
        # By halves, as long as these lead there: that is less than half the work of one step.
        to = own // 2 if own % (2 * side) == 0 else side
        how = cv2.INTER_AREA if to < own else cv2.INTER_LINEAR
        picture = np.asarray(cv2.resize(picture, (to, to), interpolation=how), np.float32)
    return picture

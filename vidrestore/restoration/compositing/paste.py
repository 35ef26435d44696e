"""Pasting: restored crops are blended into the planes of their frames and matched to them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from vidrestore.analysis.tracks import Track
from vidrestore.common.settings import Grain, Paste
from vidrestore.imaging import color, transfer
from vidrestore.imaging.device_copies import to_host
from vidrestore.imaging.frame import FloatArray, Frame, Pasted, PastedFace, VideoInfo
from vidrestore.imaging.geometry import GRID_PX, Matrix, Rect, crop_side_px, shifted
from vidrestore.imaging.luma import luma_of, with_luma
from vidrestore.imaging.optical_flow import uses_opencv
from vidrestore.imaging.planes import add, chroma_rect, copy_of, layout, samples
from vidrestore.imaging.resample import resample, source_window
from vidrestore.models import face_parser
from vidrestore.models.face_parser import Parser
from vidrestore.restoration import swap
from vidrestore.restoration.compositing import (
    color_match,
    defocus,
    grain,
    masks,
    motion_blur,
    occlusion,
)
from vidrestore.restoration.compositing.appearance import (
    FacePlacement,
    FrameAppearance,
    TrackGeometry,
    at_rect,
    broad_at_rect,
    grain_planes,
    measure_appearance,
    noise_between,
    noise_of,
    place_of,
    scaled,
)
from vidrestore.restoration.compositing.masks import intersection, mask_rect
from vidrestore.restoration.faces import Face, FaceFrame, unit_of
from vidrestore.restoration.statistics import RestorationStats

if TYPE_CHECKING:
    import av

REACH_FRAMES = 2
"""The number of frames before and after a frame on which its pasted faces depend."""

# Fine detail is what a box over so large a share of the crop takes away.
_DETAIL_SHARE = 1 / 40

_Window = list[tuple[int, FrameAppearance]]


def paste(
    frames: Iterator[FaceFrame],
    info: VideoInfo,
    stats: RestorationStats,
    how: Paste,
    noise: Grain,
    *,
    parser: Parser | None = None,
    tracks: Sequence[Track] = (),
    keep_pasted: bool = False,
    single_fields: bool = False,
) -> Iterator[Frame]:
    """Change the samples under the masks of restored faces, and no other sample.

    out = in + (restored - in) * mask * strength, converted to each plane and rounded there. The
    computation uses display values (`vidrestore.imaging.transfer`), as the crops do. The mask
    follows the smoothed meshes of `tracks`, or their landmarks where a track has no mesh, or those
    of an average face where a face has no track, and never leaves its `mask_rect`. It is also zero
    where `restored` equals `source`, so pixels that were not restored are not resampled. Where
    faces overlap, the one that is larger by the median over its track is in front.

    Memory: the crops of `REACH_FRAMES` frames.

    Args:
        frames: The frames with their faces, in order. Their samples are changed in place.
        info: The properties of the frames.
        stats: The statistics, which receive counts.
        how: The settings: how much of the restored face is used where, and how it is matched to the
            frame.
        noise: The settings of grain: the share of the noise of the source that the face gets.
        parser: The face parser. Parts that it takes for no face stay those of the source, and it
            finds the regions of `how`. Default: none.
        tracks: The tracks of the faces, and of other faces that may be in front of them; default:
            none.
        keep_pasted: Whether each frame gets what was pasted into it (`Frame.pasted`); default: no.
        single_fields: Whether each frame shows one field, and other lines that were made from it
            and the fields around; default: no.

    Yields:
        The frames in order, up to `REACH_FRAMES` later. A frame keeps its packet only where no
        sample was changed.
    """
    stage = _Stage(info, how, noise, parser, tracks, stats, single_fields=single_fields)
    reach = REACH_FRAMES if stage.looks_around else 0
    held: deque[FaceFrame] = deque()
    for last, frame in enumerate(chain(frames, repeat(None, reach))):
        if frame is not None:
            held.append(frame)
            stage.measure(last, frame)
        if (at := last - reach) >= 0 and held:
            done = held.popleft()
            before = copy_of(done.frame.image) if keep_pasted and done.faces else None
            faces: list[PastedFace] | None = None if before is None else []
            pasted = stage.paste(at, done, faces)
            if stats.counts(done.frame.index):
                stats.faces += len(pasted)
                stats.pasted.update(pasted)
            now = replace(done.frame, packet=None) if stage.has_changed else done.frame
            if before is not None and faces:
                yield replace(now, pasted=Pasted(before, tuple(faces)))
            else:
                yield now


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    """The place and the appearance of a face in a frame."""

    place: FacePlacement
    appearance: FrameAppearance
    usual_px: float
    """The side of the crop in pixels of the frame, by the median over the track."""


class _Stage:
    """The faces of the frames around the current one."""

    def __init__(
        self,
        info: VideoInfo,
        how: Paste,
        noise: Grain,
        parser: Parser | None,
        tracks: Sequence[Track],
        stats: RestorationStats,
        *,
        single_fields: bool,
    ) -> None:
        self._single_fields = single_fields
        self._info, self._how, self._grain, self._parser = info, how, noise.match, parser
        regions = how.regions.model_dump()
        self._regions = regions if min(regions.values()) < 1 else {}
        self._stats = stats
        self._geometries = {track.track_id: TrackGeometry(track) for track in tracks}
        self._measurements: dict[int, dict[int, _Measured]] = {}
        self._last: deque[Frame] = deque(maxlen=3)
        self._noises: dict[int, dict[int, tuple[grain.Spectrum, ...]]] = {}
        self.has_changed = False
        """Whether `paste` changed samples of the last frame."""

    @property
    def looks_around(self) -> bool:
        """Whether the result depends on the frames around."""
        how = self._how
        amounts = (how.color, self._grain, how.sharpness, how.focus)
        return how.occluders or self._parser is not None or max(amounts) > 0

    def measure(self, at: int, frame: FaceFrame) -> None:
        """Measure the faces of a frame as it was decoded."""
        self._measurements[at] = {
            face.track_id: self._measured(face, frame.frame)
            for face in frame.faces
            if face.restored is not None and face.strength * self._how.strength > 0
        }
        if self._grain > 0:
            self._last.append(frame.frame)
            self._noises[at - 1] = self._measure_noise(at)

    def _measure_noise(self, at: int) -> dict[int, tuple[grain.Spectrum, ...]]:
        """Return the noise of the frame before, by track, of faces pasted there or next to it."""
        frames = list(self._last)
        found: dict[int, tuple[grain.Spectrum, ...]] = {}
        if len(frames) < 3:
            return found
        index = frames[1].index
        for track_id in {
            id_ for i in range(at - 2, at + 1) for id_ in self._measurements.get(i, {})
        }:
            geometry = self._geometries.get(track_id)
            if geometry is None or not geometry.shows_noise(index):
                continue
            around = [geometry.unit(index + step) for step in (-1, 0, 1)]
            units = [unit for unit in around if unit is not None]
            place = geometry.place(index)
            found[track_id] = noise_between(
                frames, units, place, self._info, single_fields=self._single_fields
            )
        return found

    def _measured(self, face: Face, frame: Frame) -> _Measured:
        """Measure one face of a frame as it was decoded."""
        how, geometry = self._how, self._geometries.get(face.track_id)
        unit = unit_of(face)
        if geometry:
            place = geometry.place(frame.index, unit=unit, extent=how.extent)
        else:
            place = place_of(unit, None, extent=how.extent)
        motion = None
        if how.sharpness > 0 and geometry and not face.colorized:
            motion = motion_blur.motion_px(
                place.unit, [geometry.unit(frame.index + d) for d in (-1, 1)]
            )
        appearance = measure_appearance(
            face,
            frame,
            place,
            self._info,
            occluders=how.occluders,
            tones=how.color > 0 and not face.colorized,
            edges=how.focus > 0 and not face.colorized,
            motion=motion,
            parser=self._parser,
        )
        return _Measured(
            place, appearance, geometry.side_px if geometry else crop_side_px(place.unit)
        )

    def paste(self, at: int, frame: FaceFrame, pasted: list[PastedFace] | None) -> list[int]:
        """Paste the faces, add each to `pasted`, and return the tracks that lie in the frame."""
        measured, self.has_changed = self._measurements[at], False
        faces = sorted(
            (face for face in frame.faces if face.track_id in measured),
            key=lambda face: (measured[face.track_id].usual_px, face.track_id),
        )
        if faces:
            frame.frame.image.make_writable()
        if self._stats.counts(frame.frame.index):
            parsed_faces = [measured[face.track_id].appearance.parsed for face in faces]
            self._stats.unparsed += sum(not parsed.is_face for parsed in parsed_faces if parsed)
        tracks = [face.track_id for face in faces if self._paste(at, face, frame.frame, pasted)]
        self._measurements.pop(at - REACH_FRAMES, None)
        self._noises.pop(at - 1, None)
        return tracks

    def _paste(self, at: int, face: Face, frame: Frame, pasted: list[PastedFace] | None) -> bool:
        """Paste one face, add it to `pasted`, and return whether it lies in the frame."""
        assert face.restored is not None
        measured, window = self._measurements[at][face.track_id], self._window(at, face.track_id)
        grid = layout(frame.image).grid
        bound = mask_rect(face.matrix, face.work_px, self._info, grid, self._how.extent)
        rect = intersection(bound, measured.place.rect(self._info, grid))
        if rect.is_empty:
            return False
        changed = _changed(face, shifted(face.matrix, rect), rect)
        if isinstance(changed, float) and changed == 0:
            return True
        rgb, weight = self._corrected(face, rect, measured, window)
        weight *= changed
        weight *= face.strength * self._how.strength
        self._remove_covered(weight, frame, face, measured, rect)
        if face.region is not None:
            weight *= swap.weight_in(face.region, rect)[0].numpy()
        if face.colorized:
            rgb = self._with_own_luma(rgb, frame, rect)
        elif self._how.detail < 1:
            rgb = self._with_own_detail(rgb, frame, rect, measured.place)
        image = frame.image
        before: list[FloatArray] = []
        noise: tuple[grain.Spectrum, ...] = ()
        has_grain = self._grain > 0 and not face.colorized  # which keeps that of its luma
        if has_grain:
            noise = self._noise(at, face.track_id) or noise_of(frame, measured.place, self._info)
            step = transfer.codes_per_level(self._info, layout(image).bits)
            has_grain = any(grain.missing(wanted, 0, step).any() for wanted in noise)
        if has_grain:
            before = [samples(image, i, _part(rect, image, i)).numpy() for i in grain_planes(image)]
        restored, share = torch.from_numpy(rgb), torch.from_numpy(weight[None])
        if pasted is not None:
            pasted.append(PastedFace((rect.x0, rect.y0), rgb, weight))
        self.has_changed |= bool(weight.any())
        color.blend_rgb(image, rect, restored, share, self._info, keep_luma=face.colorized)
        if has_grain:
            seed = (frame.pts, face.track_id)
            self._add_grain(image, before, rect, weight, noise, seed)
        return True

    def _noise(self, at: int, track_id: int) -> tuple[grain.Spectrum, ...]:
        """Return the spectra of `grain_planes`, by what was measured in this frame and next to it.

        The tuple is empty where nothing was measured.
        """
        near = [
            (self._noises.get(at + step, {}).get(track_id), 2 - abs(step)) for step in (-1, 0, 1)
        ]
        known = [(noise, weight) for noise, weight in near if noise is not None]
        if not known:
            return ()
        noises, weights = zip(*known, strict=True)
        return tuple(
            np.average(planes, axis=0, weights=weights) for planes in zip(*noises, strict=True)
        )

    def _window(self, at: int, track_id: int) -> list[tuple[int, FrameAppearance]]:
        """Return (frames from here, appearance) in order, this frame among them."""
        steps = range(-REACH_FRAMES, REACH_FRAMES + 1)
        near = [(step, self._measurements.get(at + step, {}).get(track_id)) for step in steps]
        return [(step, measured.appearance) for step, measured in near if measured is not None]

    def _corrected(
        self, face: Face, rect: Rect, measured: _Measured, window: _Window
    ) -> tuple[FloatArray, FloatArray]:
        """Return (3, h, w) in [0, 1] to paste into `rect`, and its (h, w) mask."""
        assert face.restored is not None
        place = measured.place
        weight = masks.soft(at_rect(place.distance, place, rect), place.feather)
        visible = self._visible(face, measured, window)
        if visible.min() < 1:
            weight *= at_rect(visible, place, rect).clip(0, 1)
        restored = transfer.limit_highlights(face.restored, face.source, self._info)
        displayed = resample(restored, shifted(face.matrix, rect), rect.height, rect.width)
        rgb: FloatArray = to_host(displayed).numpy()
        tones = [appearance.tone for _, appearance in window if appearance.tone is not None]
        if tones:
            self._tint(rgb, color_match.correction(tones), place, rect)
        np.clip(rgb, 0, 1, out=rgb)
        self._smear(rgb, window)
        return self._out_of_focus(rgb, weight > 0.5, window), weight

    def _tint(
        self, rgb: FloatArray, found: color_match.Correction, place: FacePlacement, rect: Rect
    ) -> None:
        """Change the broad colors of (3, h, w) to those of the source, in place."""
        plain = rgb.copy() if self._how.color < 1 else rgb
        gain, *offset = broad_at_rect([found.gain, *np.moveaxis(found.offset, -1, 0)], place, rect)
        for channel, added in zip(rgb, offset, strict=True):
            channel *= gain
            channel += added
        color_match.add_toning(rgb, found)
        if self._how.color < 1:
            rgb -= plain
            rgb *= self._how.color
            rgb += plain

    def _visible(self, face: Face, measured: _Measured, window: _Window) -> FloatArray:
        """Return (n, n) in [0, 1]: how much of the restored face each place of it may show."""
        displayed, place = np.ones((GRID_PX, GRID_PX), np.float32), measured.place
        parsed = [appearance.parsed for _, appearance in window if appearance.parsed is not None]
        if self._regions:
            finer = face_parser.regions(parsed) if parsed else None
            displayed = masks.region_strength(place.landmarks, self._regions, finer, place.shape)
        if face.part_factors:
            displayed = displayed * masks.expression_strength(place.landmarks, face.part_factors)
        if parsed:
            displayed = displayed * face_parser.visible(parsed, self._how.extent)
        if measured.appearance.unclipped is not None:
            blown = np.float32(self._how.color) * (1 - measured.appearance.unclipped)
            displayed = displayed * (1 - blown)
        found = [
            (i, appearance.contradiction)
            for i, appearance in window
            if appearance.contradiction is not None
        ]
        if not found:
            return displayed
        own_index = [step for step, _ in found].index(0)
        uncovered = occlusion.visible([each for _, each in found], own_index, REACH_FRAMES)
        return scaled(displayed, len(uncovered)) * uncovered

    def _remove_covered(
        self, weight: FloatArray, frame: Frame, face: Face, measured: _Measured, rect: Rect
    ) -> None:
        """Set (h, w) to 0 where a nearer face is, whether it was restored or not.

        The hair and ears of a head also leave out the faces behind it.
        """
        own = (measured.usual_px, face.track_id)
        for track_id, geometry in self._geometries.items():
            is_behind = (geometry.side_px, track_id) <= own
            if track_id == face.track_id or (is_behind and self._how.extent == "face"):
                continue
            if geometry.unit(frame.index) is None:
                continue
            other = geometry.place(frame.index)
            if intersection(rect, other.rect(self._info, (1, 1))).is_empty:
                continue
            distance = at_rect(other.distance, other, rect)
            displayed = 1 - masks.soft(distance - np.float32(other.feather), other.feather)
            if is_behind:
                place = measured.place
                inner = place_of(place.unit, place.landmarks, place.shape)
                face_there = masks.soft(at_rect(inner.distance, inner, rect), inner.feather)
                displayed = np.maximum(displayed, face_there)
            weight *= displayed

    def _smear(self, rgb: FloatArray, window: _Window) -> None:
        """Blur (3, h, w) by the motion of the face, in place."""
        smears = [
            (step, appearance.smear) for step, appearance in window if appearance.smear is not None
        ]
        if smears:
            share = self._how.sharpness * float(np.mean([each.share for _, each in smears]))
            motion = next(each.motion_px for step, each in smears if step == 0)
            for channel in rgb:
                channel[...] = motion_blur.smeared(channel, motion * share)

    def _out_of_focus(
        self, rgb: FloatArray, where: npt.NDArray[np.bool_], window: _Window
    ) -> FloatArray:
        """Blur (3, h, w) as much as the surroundings are out of focus."""
        widths = [
            appearance.edges_px for _, appearance in window if appearance.edges_px is not None
        ]
        if not widths:
            return rgb
        picture = cv2.merge([*rgb])
        own = defocus.width_px(picture, where)
        sigma = self._how.focus * defocus.blur_px(own, float(np.mean(widths)))
        return np.stack(cv2.split(defocus.blurred(picture, sigma)))

    def _with_own_detail(
        self, rgb: FloatArray, frame: Frame, rect: Rect, place: FacePlacement
    ) -> FloatArray:
        """Replace part of the restored fine detail by that of the source."""
        apart = self._displayed(frame, rect) - torch.from_numpy(rgb)
        side = 2 * round(crop_side_px(place.unit) * _DETAIL_SHARE / 2) + 1
        low = F.avg_pool2d(apart[None], side, 1, side // 2, count_include_pad=False)[0]
        return (rgb + (1 - self._how.detail) * (apart - low).numpy()).clip(0, 1)

    def _with_own_luma(self, rgb: FloatArray, frame: Frame, rect: Rect) -> FloatArray:
        """Return (3, h, w) with the luma of the source, and as much chroma as it can hold."""
        luma = luma_of(self._displayed(frame, rect).numpy(), self._info.matrix)
        return with_luma(rgb, luma, self._info.matrix)

    def _displayed(self, frame: Frame, rect: Rect) -> torch.Tensor:
        """Return the (3, h, w) display values of a part of a frame, in [0, 1]."""
        rgb = color.region_rgb(frame.image, rect, self._info)
        return transfer.to_display(rgb, self._info).clamp(0, 1).float()

    def _add_grain(
        self,
        image: av.VideoFrame,
        before: Sequence[FloatArray],
        rect: Rect,
        weight: FloatArray,
        noise: Sequence[grain.Spectrum],
        seed: tuple[int, int],
    ) -> None:
        """Add the noise that the face lacks.

        `before` are the samples of `rect` in each of `grain_planes` before the face was pasted;
        `noise` is the spectrum of the source in each.
        """
        how = layout(image)
        step = transfer.codes_per_level(self._info, how.bits)
        most = float(weight.max(initial=0))
        if most == 0:
            return
        share = grain.share_of(weight)
        share *= np.float32(self._grain / math.sqrt(most * (2 - most)))
        mask = weight / np.float32(most)
        of_planes = zip(grain_planes(image), before, noise, strict=True)
        for order, (index, was, wanted) in enumerate(of_planes):
            if not grain.missing(wanted, 0, step).any():
                continue
            part = _part(rect, image, index)
            now = samples(image, index, part).numpy()
            # Luma comes first, and both planes of chroma are of one size.
            mask, share = _resized(mask, part), _resized(share, part)
            kept = grain.kept_share(was, now, mask, how.bits)
            lost = grain.missing(wanted, kept, step)
            among = grain.sigma_of(wanted)
            made = grain.grain(lost, part.height, part.width, (*seed, order), among=among)
            made *= share
            for each in how.planes if how.is_rgb else (index,):
                add(image, each, part, torch.from_numpy(made), how.bits)


def _part(rect: Rect, image: av.VideoFrame, index: int) -> Rect:
    """Return the rectangle in samples of a plane."""
    how = layout(image)
    return chroma_rect(rect, how.grid) if index in how.planes[1:] and not how.is_rgb else rect


def _changed(face: Face, crop_from_rect: Matrix, rect: Rect) -> FloatArray | float:
    """Return 1.0 where the restorer changed all visible pixels, 0.0 where none, else (h, w)."""
    assert face.restored is not None
    size = (face.work_px, face.work_px)
    rows, columns = source_window(size, crop_from_rect, rect.height, rect.width)
    pairs = zip(face.restored[:, rows, columns], face.source[:, rows, columns], strict=True)
    same = _equal(*next(pairs))
    for own, source in pairs:
        if not same.any():
            return 1.0
        same &= _equal(own, source)
    if same.all():
        return 0.0
    matrix = np.array(crop_from_rect, np.float64)
    matrix[:, 2] -= columns.start, rows.start
    changed = torch.as_tensor(~same).float()[None]
    weight = to_host(resample(changed, matrix, rect.height, rect.width))
    return np.asarray(weight[0].numpy().clip(0, 1))


def _equal(one: torch.Tensor, other: torch.Tensor) -> npt.NDArray[np.bool_] | torch.Tensor:
    """Return which values of two tensors are equal, where they are."""
    if not uses_opencv(one.device):
        return torch.eq(one, other)
    # Torch would wake other threads for it.
    return np.asarray(one.numpy() == other.numpy())


def _resized(picture: FloatArray, part: Rect) -> FloatArray:
    """Resize a picture to the samples of a plane."""
    size = (part.width, part.height)
    if picture.shape == size[::-1]:
        return picture
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.float32)

"""How bad the person looks in the videos: what a degradation that matches them needs to know."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch

from vidrestore.imaging import color, transfer
from vidrestore.imaging.frame import FloatArray, Frame
from vidrestore.imaging.geometry import crop_side_px
from vidrestore.imaging.planes import layout
from vidrestore.personal.candidates import Place, frames_at
from vidrestore.personal.crop_choice import Candidate, is_clear
from vidrestore.personal.degradations import FaceCondition, condition_of
from vidrestore.personal.person import Source
from vidrestore.restoration.compositing import grain, masks, motion_blur
from vidrestore.restoration.compositing.appearance import (
    TrackGeometry,
    at_rect,
    noise_between,
)
from vidrestore.restoration.crop import cut_out

# The number of faces of all videos that are measured.
_MOST = 48
_CPU = torch.device("cpu")


def film_conditions(
    sources: Sequence[Source], size_px: int, clear: npt.NDArray[np.uint8]
) -> list[FaceCondition]:
    """Measure the faces of the person that are not clear, in frames spread over the videos.

    Args:
        sources: The sources; photographs do not count.
        size_px: Side of the network in pixels.
        clear: (S, S, 3) uint8 RGB crop of the person, with which the sharpness along and across a
            motion is compared.

    Returns:
        The conditions; empty where every face is clear, or none can be measured.

    Raises:
        ChangedSourceError: A source has other frames than its analysis.
    """
    videos = [(number, each) for number, each in enumerate(sources) if not each.is_photograph]
    if not videos:
        return []
    rgb = cv2.resize(clear, (motion_blur.GRID_PX, motion_blur.GRID_PX), interpolation=3)
    sharp = np.asarray(rgb, np.float32) / np.float32(255)
    found = []
    for number, source in videos:
        places = _spread(source, number, max(_MOST // len(videos), 1))
        for condition in _measured(source, places, sharp):
            outline = Candidate(number, 0.0, condition.side_px, condition.edges_px, 0.0)
            if not is_clear(outline, size_px):
                found.append(condition)
    return found


def _spread(source: Source, number: int, most: int) -> list[Place]:
    """Return faces with a frame before and after them in their track, evenly spread."""
    places = [
        Place(number, row, at)
        for row, track in enumerate(source.tracks)
        for at in range(1, len(track.matrices) - 1)
        if track.strength[at] > 0 and track.detected[at]
    ]
    chosen = np.linspace(0, len(places) - 1, min(most, len(places))).astype(int)
    return [places[i] for i in dict.fromkeys(chosen.tolist())]


def _measured(
    source: Source, places: Sequence[Place], sharp: FloatArray
) -> Iterator[FaceCondition]:
    """Yield what could be measured, in order of time."""
    at_frame: dict[int, list[Place]] = {}
    for place in places:
        at_frame.setdefault(source.tracks[place.track].first_frame + place.at, []).append(place)
    wanted = {index + step for index in at_frame for step in (-1, 0, 1)}
    last: deque[Frame] = deque(maxlen=3)
    for frame in frames_at(source, sorted(wanted)):
        last.append(frame)
        for place in at_frame.get(frame.index - 1, []):
            condition = _condition(source, place, list(last), sharp)
            if condition is not None:
                yield condition


def _condition(
    source: Source, place: Place, frames: Sequence[Frame], sharp: FloatArray
) -> FaceCondition | None:
    analysis, track = source.analysis, source.tracks[place.track]
    info, frame, index = analysis.info, frames[1], track.first_frame + place.at
    how = layout(frame.image)
    where = TrackGeometry(track).place(index)
    rect = where.rect(info, how.grid)
    if rect.is_empty:
        return None
    units = [track.matrices[place.at + step].astype(np.float64) for step in (-1, 0, 1)]
    fields = analysis.fields
    noise = noise_between(
        frames, units, where, info,
        single_fields=fields is not None and fields.mode in ("keep", "bob"),
    )  # fmt: skip
    display = transfer.to_display(color.region_rgb(frame.image, rect, info), info).clamp(0, 1)
    inside = masks.soft(at_rect(where.distance, where, rect), where.feather) > 0.5
    chroma = noise[1:] if len(noise) == 3 else (grain.nothing(), grain.nothing())
    return condition_of(
        np.ascontiguousarray(display.float().permute(1, 2, 0).numpy()),
        inside,
        side_px=crop_side_px(where.unit),
        noise=(noise[0], chroma[0], chroma[1]),
        motion_px=_motion_blur_px(source, frame, units, sharp),
        chroma_step=how.grid,
    )


def _motion_blur_px(
    source: Source,
    frame: Frame,
    units: Sequence[npt.NDArray[np.float64]],
    sharp: FloatArray,
) -> tuple[float, float]:
    """Return the length (x, y) of the motion blur along the axes of the crop, in frame pixels."""
    motion = motion_blur.motion_px(units[1], (units[0], units[2]))
    if not motion_blur.is_fast(units[1], motion):
        return 0.0, 0.0
    crop = cut_out(frame, units[1], source.analysis.info, motion_blur.GRID_PX, _CPU)
    if crop is None:
        return 0.0, 0.0
    face = masks.face_mask(motion_blur.GRID_PX)[0].numpy()
    picture = np.ascontiguousarray(crop.permute(1, 2, 0).numpy())
    blur = motion_blur.smear_of(picture, sharp, face, units[1], motion)
    x, y = units[1][:, :2] @ motion * blur.share * crop_side_px(units[1])
    return float(x), float(y)

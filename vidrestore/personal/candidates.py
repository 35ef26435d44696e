"""Crops of one person from videos and photographs: what is known of each, and their pixels.

The pixels are read twice. The first time only numbers are kept, by which crops are chosen; the
second time the chosen ones are cut out. So the memory does not grow with the footage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vidrestore.analysis.replay import frames_again
from vidrestore.analysis.result import Analysis
from vidrestore.analysis.strength import turned_degrees
from vidrestore.analysis.tracks import Track
from vidrestore.common.events import OnEvent, Progress
from vidrestore.imaging.frame import FloatArray, Frame
from vidrestore.imaging.geometry import apply, crop_matrix, crop_side_px, template
from vidrestore.imaging.resample import squared
from vidrestore.models.detectors import Detection
from vidrestore.models.face_mesh import (
    LEFT_BROW,
    LEFT_EYE,
    LIPS,
    RIGHT_BROW,
    RIGHT_EYE,
    places_in_shape,
)
from vidrestore.models.recognizer import Recognition
from vidrestore.personal.crop_choice import Candidate, is_clear
from vidrestore.personal.person import Source
from vidrestore.personal.same_picture import thumbnail_of
from vidrestore.personal.trainer import Crops
from vidrestore.restoration.compositing import defocus
from vidrestore.restoration.compositing.masks import face_mask
from vidrestore.restoration.crop import cut_out

# Frames that are nearer in time show the same; so many faces of one source are looked at.
_EVERY_SECONDS, _MOST_LOOKS = 0.2, 600
_ROUNDING_SECONDS = 1e-6
# Faces are measured at their own size, at most at this one.
_LARGEST_PX = 1024
# Frames that are this far apart are reached by a seek, nearer ones by decoding what lies between.
_FAR_FRAMES = 100
# How far the height and the width of the mouth, the heights of the eyes and that of the brows above
# them change in a clear change of expression, in distances of the eyes.
_CLEAR_CHANGE = np.array([0.3, 0.2, 0.1, 0.1, 0.12, 0.12], np.float32)
_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a face is in the sources."""

    source: int
    """The index of the source."""
    track: int
    """The index of the track in `Source.tracks`."""
    at: int
    """The index of the frame within the track."""


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """A face that was looked at."""

    place: Place
    """Where it is."""
    candidate: Candidate
    """What is known of its crop."""


def look(
    sources: Sequence[Source],
    size_px: int,
    recognizer: Recognition | None,
    on_event: OnEvent | None = None,
) -> list[Look]:
    """Look at the faces of the person, and measure how clear they are.

    Faces that are too small or turned away are not decoded, and stand in the result as unclear.

    Args:
        sources: The sources.
        size_px: Side of the network in pixels.
        recognizer: Recognizes each clear face. None: they are not recognized.
        on_event: Receives the progress. Default: none is sent.

    Returns:
        The faces, a fifth of a second apart in each track.

    Raises:
        ChangedSourceError: A source has other frames than its analysis.
    """
    outlines = dict(
        chain.from_iterable(_outlines(source, number) for number, source in enumerate(sources))
    )
    clear = [place for place, outline in outlines.items() if is_clear(outline, size_px)]
    chosen = [
        place
        for number in range(len(sources))
        for place in _thinned([each for each in clear if each.source == number], _MOST_LOOKS)
    ]
    unclear = outlines.keys() - set(clear)
    found = [
        Look(place, replace(outline, edges_px=None))
        for place, outline in outlines.items()
        if place in unclear
    ]
    for done, (place, frame) in enumerate(_frames_of(sources, chosen), start=1):
        source = sources[place.source]
        candidate = _measured(source, place, outlines[place], frame, size_px, recognizer)
        found.append(Look(place, candidate))
        if on_event is not None:
            on_event(Progress("look at faces", done, len(chosen), unit="faces"))
    return found


def cut(sources: Sequence[Source], places: Sequence[Place], size_px: int) -> Crops:
    """Cut faces out, as `restore` would do it for the network.

    Args:
        sources: The sources.
        places: The faces.
        size_px: Side S of the network in pixels.

    Returns:
        (N, S, S, 3) uint8 RGB display values, in the order of `places`.

    Raises:
        ChangedSourceError: A source has other frames than its analysis.
    """
    crops = np.zeros((len(places), size_px, size_px, 3), np.uint8)
    rows = {place: row for row, place in enumerate(places)}
    for place, frame in _frames_of(sources, places):
        crop = _crop(sources[place.source], place, frame, size_px)
        assert crop is not None
        rgb = squared(crop, size_px).permute(1, 2, 0).numpy()
        crops[rows[place]] = np.rint(255 * rgb)
    return crops


def frames_at(source: Source, indices: Sequence[int]) -> Iterator[Frame]:
    """Read single frames of a source.

    Args:
        source: The source.
        indices: The indices of the frames, ascending, each once.

    Yields:
        These frames.

    Raises:
        ChangedSourceError: A frame differs from the analysis.
    """
    starts = [0, *(np.flatnonzero(np.diff(indices) > _FAR_FRAMES) + 1).tolist(), len(indices)]
    for begin, stop in pairwise(starts):
        wanted = set(indices[begin:stop])
        if wanted:
            for frame in frames_again(
                source.path, source.analysis, first=min(wanted), end=max(wanted) + 1
            ):
                if frame.index in wanted:
                    yield frame


def _frames_of(sources: Sequence[Source], places: Sequence[Place]) -> Iterator[tuple[Place, Frame]]:
    """Yield each place with its frame, source by source and in order of time."""
    for number, source in enumerate(sources):
        at_frame: dict[int, list[Place]] = {}
        for place in places:
            if place.source == number:
                index = source.tracks[place.track].first_frame + place.at
                at_frame.setdefault(index, []).append(place)
        for frame in frames_at(source, sorted(at_frame)):
            for place in at_frame[frame.index]:
                yield place, frame


def _outlines(source: Source, number: int) -> Iterator[tuple[Place, Candidate]]:
    """Yield the frames in which the face was detected and may be restored, spaced in time.

    With each comes what the analysis alone tells, as if the edges were perfectly sharp.
    """
    for row, track in enumerate(source.tracks):
        turned, angles = turned_degrees(track), track.angles_degrees
        last_seconds = -np.inf
        for at in np.flatnonzero(track.detected & (track.strength > 0)).tolist():
            seconds = _seconds(source.analysis, track, at)
            if seconds - last_seconds < _EVERY_SECONDS - _ROUNDING_SECONDS:
                continue
            last_seconds = seconds
            yield (
                Place(number, row, at),
                Candidate(
                    source=number,
                    seconds=seconds,
                    side_px=crop_side_px(track.matrices[at]),
                    edges_px=0.0,
                    turned_degrees=float(turned[at] if angles is None else angles[at, 0]),
                    expression=None if track.shapes is None else expression_of(track.shapes[at]),
                ),
            )


def _seconds(analysis: Analysis, track: Track, at: int) -> float:
    ticks = int(analysis.pts[track.first_frame + at] - analysis.pts[0])
    return float(ticks * analysis.info.time_base)


def _thinned(places: Sequence[Place], most: int) -> Sequence[Place]:
    """Return at most `most` of the places, evenly spread."""
    if len(places) <= most:
        return places
    return [places[i] for i in np.linspace(0, len(places) - 1, most).astype(int).tolist()]


def _measured(
    source: Source,
    place: Place,
    outline: Candidate,
    frame: Frame,
    size_px: int,
    recognizer: Recognition | None,
) -> Candidate:
    """Return a candidate with the width of its edges, and recognized if it is clear."""
    crop = _crop(source, place, frame, _LARGEST_PX)
    if crop is None:
        return replace(outline, edges_px=None)
    rgb = np.ascontiguousarray(crop.permute(1, 2, 0).numpy())
    side = len(rgb)
    edges = defocus.width_px(rgb, face_mask(side)[0].numpy() > 0.5)
    if edges is None:
        return replace(outline, edges_px=None)
    candidate = replace(
        outline, edges_px=edges * outline.side_px / side, thumbnail=thumbnail_of(rgb)
    )
    if recognizer is None or not is_clear(candidate, size_px):
        return candidate
    track = source.tracks[place.track]
    to_crop = crop_matrix(track.matrices[place.at], side)
    points = apply(to_crop.astype(np.float64), track.landmarks[place.at].astype(np.float64))
    face = Detection(np.array([0, 0, side, side], np.float32), points.astype(np.float32), 1.0)
    bgr = np.ascontiguousarray(np.rint(255 * rgb[..., ::-1]).astype(np.uint8))
    return replace(candidate, embedding=recognizer(bgr, [face])[0])


def _crop(source: Source, place: Place, frame: Frame, largest_px: int) -> torch.Tensor | None:
    """Return (3, W, W) RGB in [0, 1], as pass two cuts it for a network of the largest size."""
    track = source.tracks[place.track]
    side = min(track.work_px, largest_px)
    return cut_out(frame, track.matrices[place.at], source.analysis.info, side, _CPU)


def expression_of(shape: npt.NDArray[Any]) -> FloatArray:
    """Describe the expression of a face by the heights and widths of its features.

    Args:
        shape: (86, 2) points of the face mesh in the unit crop, as in `Track.shapes`.

    Returns:
        (6,) float32 height and width of the mouth, heights of the eyes, heights of the brows above
        them; in units of a clear change.
    """
    points = shape.astype(np.float32)
    eyes = template("gpen")[:2]
    unit = float(np.linalg.norm(eyes[1] - eyes[0]))
    mouth, left, right, left_brow, right_brow = (
        points[places_in_shape(each)] for each in (LIPS, LEFT_EYE, RIGHT_EYE, LEFT_BROW, RIGHT_BROW)
    )
    lengths = [
        np.ptp(mouth[:, 1]), np.ptp(mouth[:, 0]), np.ptp(left[:, 1]), np.ptp(right[:, 1]),
        left[:, 1].mean() - left_brow[:, 1].mean(), right[:, 1].mean() - right_brow[:, 1].mean(),
    ]  # fmt: skip
    return np.asarray(np.array(lengths, np.float32) / unit / _CLEAR_CHANGE, np.float32)

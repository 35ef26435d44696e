"""A picture of everybody in a video, to choose from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from vidrestore.again import frames_again
from vidrestore.errors import OutputError, UsageError
from vidrestore.frame import Analysis, Frame, Track
from vidrestore.stages.crop import cut_out

_TILE_PX, _LABEL_PX, _GAP_PX = 160, 24, 8
_TILES_EACH = 5
_GREY, _WHITE = (40, 40, 40), (235, 235, 235)
_SUFFIXES = (".png", ".jpg", ".jpeg")

Picture = npt.NDArray[np.uint8]
Place = tuple[int, int]
"""Which track, and which of its frames."""


def write_contact_sheet(analysis: Analysis, source: Path, path: Path) -> None:
    """One row for each person, by number: clear views from different times, with their time code.

    Reads the source once more, up to the last face that is shown. UsageError for another kind of
    picture than PNG or JPEG, OutputError where it cannot be written.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"the contact sheet is a .png or .jpg file, not {path.name}")
    if not analysis.tracks:
        raise UsageError(f"no face was found in {source}, so there is nobody to put on a sheet")
    people = {
        person: best_views(analysis.tracks, person)
        for person in sorted({track.person_id for track in analysis.tracks})
    }
    views = _views(analysis, source, [place for places in people.values() for place in places])
    rows = [
        _row(person, [views[place] for place in places], _times(analysis, places))
        for person, places in people.items()
    ]
    done, data = cv2.imencode(path.suffix, np.vstack(rows))
    try:
        path.write_bytes(data.tobytes() if done else b"")
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {(error.strerror or '').lower()}") from error


def best_views(tracks: Sequence[Track], person: int) -> list[Place]:
    """Where one person is seen best: in parts of equal length of all their frames, the clearest."""
    places = [
        (i, at)
        for i, track in enumerate(tracks)
        if track.person_id == person
        for at in range(len(track.matrices))
    ]
    places.sort(key=lambda place: tracks[place[0]].first_frame + place[1])
    edges = np.linspace(0, len(places), min(_TILES_EACH, len(places)) + 1).astype(int)

    def clearness(place: Place) -> float:
        track, at = tracks[place[0]], place[1]
        return float(track.strength[at] + track.score[at] + track.detected[at])

    return [max(places[a:b], key=clearness) for a, b in pairwise(edges)]


def _views(analysis: Analysis, source: Path, places: Sequence[Place]) -> Mapping[Place, Picture]:
    wanted: dict[int, list[Place]] = {}
    for place in places:
        index = analysis.tracks[place[0]].first_frame + place[1]
        wanted.setdefault(index, []).append(place)
    views: dict[Place, Picture] = {}
    for frame in frames_again(source, analysis):
        for place in wanted.pop(frame.index, []):
            views[place] = _view(frame, analysis, place)
        if not wanted:
            break
    return views


def _view(frame: Frame, analysis: Analysis, place: Place) -> Picture:
    """(tile, tile, 3) BGR."""
    unit = analysis.tracks[place[0]].matrices[place[1]]
    crop = cut_out(frame, unit, analysis.info, _TILE_PX, torch.device("cpu"))
    if crop is None:
        return np.full((_TILE_PX, _TILE_PX, 3), _GREY, np.uint8)
    rgb = (255 * crop).round().permute(1, 2, 0).numpy().astype(np.uint8)
    return np.ascontiguousarray(rgb[..., ::-1])


def _row(person: int, views: Sequence[Picture], times: Sequence[str]) -> Picture:
    step, height = _TILE_PX + _GAP_PX, _TILE_PX + _LABEL_PX + _GAP_PX
    row = np.full((height, step * (_TILES_EACH + 1), 3), _GREY, np.uint8)
    _write(row, str(person), (_TILE_PX // 3, _TILE_PX // 2 + 20), scale=2.0, weight_px=3)
    for i, (view, label) in enumerate(zip(views, times, strict=True), start=1):
        row[:_TILE_PX, i * step : i * step + _TILE_PX] = view
        _write(row, label, (i * step, _TILE_PX + 18), scale=0.5, weight_px=1)
    return row


def _write(
    picture: Picture, text: str, at: tuple[int, int], *, scale: float, weight_px: int
) -> None:
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(picture, text, at, font, scale, _WHITE, weight_px, cv2.LINE_AA)


def _times(analysis: Analysis, places: Sequence[Place]) -> list[str]:
    """From the first frame, as --start takes them."""
    indices = [analysis.tracks[i].first_frame + at for i, at in places]
    clock, pts = analysis.info.time_base, analysis.pts
    return [_time_text(int(pts[index] - pts[0]) * clock) for index in indices]


def _time_text(seconds: Fraction) -> str:
    minutes, rest = divmod(float(seconds), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02}:{rest:06.3f}"

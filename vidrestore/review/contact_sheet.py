"""The contact sheet: a picture of all people in a video, from which a user can choose."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from vidrestore.analysis.description import Place, best_views, places_of_people, seconds_at
from vidrestore.analysis.replay import frames_again
from vidrestore.analysis.result import Analysis
from vidrestore.common.errors import UsageError
from vidrestore.common.files import check_new, make_output_folder
from vidrestore.common.text_files import can_be_found
from vidrestore.common.timecode import time_text
from vidrestore.imaging.frame import FloatArray, Frame
from vidrestore.imaging.luma import bt601_luma
from vidrestore.restoration.compositing.masks import face_mask
from vidrestore.restoration.crop import cut_out
from vidrestore.review.drawing import write_picture

_TILE_PX, _LABEL_PX, _GAP_PX = 160, 24, 8
_TILES_EACH = 5
_GRAY, _WHITE = (40, 40, 40), (235, 235, 235)
_SUFFIXES = (".png", ".jpg", ".jpeg")
# The median luma to which a darker face is brightened, and the least median that is told from
# black, both in [0, 1].
_READABLE, _BLACK = 0.3, 0.02

Picture = npt.NDArray[np.uint8]
"""(H, W, 3) BGR."""


def write_contact_sheet(analysis: Analysis, source: Path, path: Path) -> None:
    """Write a contact sheet with a row for each person: clear views and their time codes.

    If `path` is a folder or has no suffix, the function writes a picture of each person into that
    folder instead, `person_1.png` and so on, and nothing where the video shows no people. Dark
    faces are brightened (`readable`). It reads the source once more, up to the last face that is
    shown.

    Args:
        analysis: The analysis of the source.
        source: The source.
        path: A .png or .jpg file, or a folder.

    Raises:
        UsageError: The suffix is that of another file, or the video shows no face for a sheet.
        OutputError: A picture cannot be written.
        InputError: The source cannot be read.
    """
    if path.is_dir() or not path.suffix:
        _write_portraits(analysis, source, path)
        return
    _check_suffix(path)
    if not analysis.tracks:
        raise UsageError(f"vidrestore found no face in {source}, so a contact sheet would be empty")
    people = _best_of_each(analysis, _TILES_EACH)
    views = _views(analysis, source, [place for places in people.values() for place in places])
    rows = [
        _row(
            person,
            [views[place] for place in places],
            [time_text(seconds_at(analysis, place)) for place in places],
        )
        for person, places in people.items()
    ]
    write_picture(path, np.vstack(rows)[..., ::-1])


def check_sheet(path: Path, *, inputs: Sequence[Path]) -> None:
    """Check, before any work, that `write_contact_sheet` can write to a path.

    Args:
        path: A .png or .jpg file, or a folder.
        inputs: Files that must not be overwritten.

    Raises:
        UsageError: The path has another suffix, or would overwrite an input.
        OutputError: The path cannot be written.
    """
    is_folder = can_be_found(path) and path.is_dir()
    if path.suffix and not is_folder:
        _check_suffix(path)
        check_new(path, overwrite=True, inputs=inputs)
    elif is_folder:
        for each in {path / "person_1.png", *path.glob("person_*.png")}:
            check_new(each, overwrite=True, inputs=inputs)
    else:
        check_new(path, overwrite=True, inputs=inputs)
        if path.is_file():
            raise UsageError(f"{path} is a file; give a folder, or the name of a .png file")


def _check_suffix(path: Path) -> None:
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(
            f"the contact sheet must be a .png or .jpg file, not {path.name}; give it such a suffix"
        )


def _write_portraits(analysis: Analysis, source: Path, folder: Path) -> None:
    make_output_folder(folder)
    people = _best_of_each(analysis, 1)
    views = _views(analysis, source, [place for (place,) in people.values()])
    for person, (place,) in people.items():
        write_picture(folder / f"person_{person}.png", views[place][..., ::-1])


def _best_of_each(analysis: Analysis, most: int) -> dict[int, list[Place]]:
    people = places_of_people(analysis.tracks)
    return {person: best_views(analysis.tracks, own, most) for person, own in people.items()}


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
    """Return (_TILE_PX, _TILE_PX, 3) BGR, gray where the face is outside the frame."""
    unit = analysis.tracks[place[0]].matrices[place[1]]
    crop = cut_out(frame, unit, analysis.info, _TILE_PX, torch.device("cpu"))
    if crop is None:
        return np.full((_TILE_PX, _TILE_PX, 3), _GRAY, np.uint8)
    rgb = readable(np.ascontiguousarray(crop.permute(1, 2, 0).numpy()))
    return np.ascontiguousarray(np.rint(255 * rgb[..., ::-1]).astype(np.uint8))


def readable(rgb: FloatArray) -> FloatArray:
    """Brighten a dark portrait for looking at it; nothing that is restored uses this.

    Args:
        rgb: (S, S, 3) R'G'B' of an aligned face, in [0, 1].

    Returns:
        (S, S, 3) in [0, 1]; `rgb` itself where the face is bright enough.
    """
    exponent = readable_exponent(rgb)
    return rgb if exponent == 1 else np.asarray(rgb**exponent, np.float32)


def readable_exponent(rgb: FloatArray) -> float:
    """Compute the power curve that brightens a dark portrait.

    It raises the median luma of the face to 0.3; black and white stay in their place.

    Args:
        rgb: (S, S, 3) R'G'B' of an aligned face, in [0, 1].

    Returns:
        The exponent of the curve; 1 where the face is bright enough.
    """
    inside = face_mask(len(rgb))[0].numpy() > 0.5
    median = max(float(np.median(bt601_luma(rgb)[inside])), _BLACK)
    return 1.0 if median >= _READABLE else math.log(_READABLE) / math.log(median)


def _row(person: int, views: Sequence[Picture], times: Sequence[str]) -> Picture:
    step, height = _TILE_PX + _GAP_PX, _TILE_PX + _LABEL_PX + _GAP_PX
    row = np.full((height, step * (_TILES_EACH + 1), 3), _GRAY, np.uint8)
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

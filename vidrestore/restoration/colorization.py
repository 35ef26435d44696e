"""Colorization: which footage is gray, so that a restorer may give colors to its faces.

The tint of a film, such as sepia, is a function of its luma. The chroma noise of a tape has no
place: it differs from frame to frame. What remains of the chroma without both are colors.
"""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.analysis.replay import frames_again
from vidrestore.analysis.result import Analysis
from vidrestore.analysis.tracks import Track
from vidrestore.common.errors import ChangedSourceError, UsageError
from vidrestore.common.handled import log_handled
from vidrestore.common.timecode import time_text
from vidrestore.imaging import color, transfer
from vidrestore.imaging.frame import FloatArray
from vidrestore.imaging.geometry import Rect, apply
from vidrestore.imaging.luma import BT601_WEIGHTS
from vidrestore.media.decode import TimeRange
from vidrestore.models.restorers import RestorerInfo
from vidrestore.models.restorers.assignment import Assignment

# The places that are looked at, and the successive frames of each, over which noise averages out.
_PLACES, _FRAMES = 12, 6
# The width of the reduced picture in which the tint is fitted, and of the cells in which the rest
# is averaged; and the share of the cells that have less color than the measured value: a colored
# station logo on gray film lies in the others.
_WIDTH_PX, _CELL_PX, _SHARE = 128, 8, 90
# Chroma, in 8-bit levels, from which a place has colors. On five clips, color gave 6.7 and more;
# the same in gray or sepia, with chroma noise of up to 8 levels in blotches, gave 2.2 at most.
_COLORED = 3.0
# The share of places with colors from which footage is refused: a damaged frame is no color film.
_MOST_COLORED = 1 / 8
# The degree of the polynomial of the luma that gives the tint, the rounds of its fit, and the
# chroma in levels at which a pixel counts half.
_DEGREE, _FIT_ROUNDS, _FIT_LEVELS = 3, 5, 3.0
_RIDGE = 1e-4


def check_is_gray(
    path: Path,
    analysis: Analysis,
    span: TimeRange | None,
    restorers: Assignment[RestorerInfo],
) -> None:
    """Check that the faces that get colors have none yet.

    Args:
        path: The video into which the faces are pasted.
        analysis: Its analysis.
        span: The part of it that was analyzed; None: all of it.
        restorers: Which restorer restores which face.

    Raises:
        UsageError: The video has colors where a restorer would colorize faces.
    """
    places = _places(analysis, restorers)
    colored = []
    for track, first, end in places:
        try:
            level = _color_level(path, analysis, span, track, first, end)
        except ChangedSourceError as error:  # the work itself tells it, or analyzes anew
            log_handled(error, f"measuring the colors of {path}")
            return
        if level >= _COLORED:
            colored.append(first)
    if len(colored) > _MOST_COLORED * len(places):
        seconds = int(analysis.pts[colored[0]] - analysis.pts[0]) * analysis.info.time_base
        names = " and ".join(dict.fromkeys(_colorizers(restorers)))
        raise UsageError(
            f"{path} has colors in {len(colored)} of {len(places)} places with faces, first at "
            f"{time_text(seconds, 0)}, and {names} is for gray film, whose faces it gives new "
            "colors; use another --restorer, or leave out what has colors by --start and --end or "
            "--shots"
        )


def check_holds_color(pixel_format: str, restorers: Assignment[RestorerInfo]) -> None:
    """Check that the output can hold the colors that faces get.

    Args:
        pixel_format: The pixel format of the output, by ffmpeg's name.
        restorers: Which restorer restores which face.

    Raises:
        UsageError: A restorer colorizes, and the format holds luma alone.
    """
    names = _colorizers(restorers)
    if names and len(av.VideoFormat(pixel_format).components) < 3:
        raise UsageError(
            f"the output is in {pixel_format}, which holds no colors, and {names[0]} restores "
            f"faces of it; use --restorer {names[0]} for all of it, and leave out "
            "encode.pixel_format"
        )


def _colorizers(restorers: Assignment[RestorerInfo]) -> list[str]:
    return [each.name for each in restorers.each() if each.colorizes]


def _places(
    analysis: Analysis, restorers: Assignment[RestorerInfo]
) -> list[tuple[Track, int, int]]:
    """Return (track, first frame, end) of successive frames with a face that gets colors."""
    found = [
        (track, index)
        for begin, end, usual in restorers.within(0, analysis.frame_count)
        for track in analysis.tracks
        if restorers.of_tracks.get(track.track_id, usual).colorizes
        for index in range(max(begin, track.first_frame), min(end, _end(track)))
        if track.strength[index - track.first_frame] > 0
    ]
    count = min(len(found), _PLACES)
    chosen = [found[(2 * i + 1) * len(found) // (2 * count)] for i in range(count)]
    firsts = [max(min(at, _end(track) - _FRAMES), track.first_frame) for track, at in chosen]
    return [
        (track, first, min(first + _FRAMES, _end(track)))
        for (track, _), first in zip(chosen, firsts, strict=True)
    ]


def _end(track: Track) -> int:
    return track.first_frame + len(track.matrices)


def _color_level(
    path: Path, analysis: Analysis, span: TimeRange | None, track: Track, first: int, end: int
) -> float:
    """Return the chroma of some frames that is neither tint nor noise, in 8-bit levels.

    It is that of the face or of the most colorful tenth of the picture, whichever has more.
    """
    info, seen = analysis.info, list[FloatArray]()
    for frame in frames_again(path, analysis, span, first=first, end=end):
        whole = Rect(0, 0, info.width, info.height)
        displayed = transfer.to_display(color.region_rgb(frame.image, whole, info), info)
        rgb = displayed.clamp(0, 1).float().permute(1, 2, 0).contiguous().numpy()
        height = max(round(_WIDTH_PX * info.height / info.width / _CELL_PX), 1) * _CELL_PX
        small = cv2.resize(rgb, (_WIDTH_PX, height), interpolation=cv2.INTER_AREA)
        seen.append(np.asarray(small, np.float32))
    levels = untinted_levels(np.mean(seen, axis=0))
    rows, columns = levels.shape
    y, x = np.mgrid[:rows, :columns]
    centers = np.stack([(x + 0.5) * info.width / columns, (y + 0.5) * info.height / rows], axis=-1)
    places = apply(track.matrices[first - track.first_frame], centers.reshape(-1, 2) - 0.5)
    inside = (np.abs(places - 0.5) < 0.25).all(axis=1).reshape(rows, columns)
    of_face = float(np.median(levels[inside])) if inside.any() else 0.0
    return max(float(np.percentile(levels, _SHARE)), of_face)


def untinted_levels(picture: FloatArray) -> npt.NDArray[np.float64]:
    """Measure the chroma of the cells of a small picture besides its tint.

    The tint is the polynomial of the luma that fits the chroma best; pixels with colors of their
    own count little in the fit.

    Args:
        picture: (8 h, 8 w, 3) float32 R'G'B' in [0, 1].

    Returns:
        (h, w) chroma of the mean of each cell of 8 x 8 pixels, in 8-bit levels.
    """
    rgb = picture.reshape(-1, 3).astype(np.float64)
    luma = rgb @ BT601_WEIGHTS
    chroma = rgb[:, ::2] - luma[:, None]
    powers = luma[:, None] ** np.arange(_DEGREE + 1)
    off, weight = chroma, np.ones(len(luma))
    for _ in range(_FIT_ROUNDS):
        weighted = (powers * weight[:, None]).T
        tint = np.linalg.solve(weighted @ powers + _RIDGE * np.eye(_DEGREE + 1), weighted @ chroma)
        off = chroma - powers @ tint
        weight = 1 / (1 + 255 * np.linalg.norm(off, axis=1) / _FIT_LEVELS)
    cells = off.reshape(-1, _CELL_PX, picture.shape[1] // _CELL_PX, _CELL_PX, 2).mean(axis=(1, 3))
    return np.asarray(255 * np.linalg.norm(cells, axis=-1))

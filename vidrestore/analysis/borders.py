"""Edges of a picture that hold none of it: black borders, and the lines that head switching tears.

A tape is read by heads that take turns. Where one takes over from the other, below the picture that
a television shows, a few lines are shifted and noisy; a capture has them, and black at the sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.imaging.filters import box_blur
from vidrestore.imaging.frame import FloatArray, VideoInfo
from vidrestore.imaging.geometry import Matrix, Rect, apply
from vidrestore.imaging.planes import layout, plane

_Grey = npt.NDArray[np.uint8]

# Levels, of 255, by which a border's lightest samples may lie above black, and by which a picture's
# lie above those. Tapes of 525 lines have their black 16 levels above a border's.
_DARK, _CLEAR = 14, 12
# Of the lines across a border, the share that must be dark in it, and clear beyond it.
_DARK_SHARE, _CLEAR_SHARE = 0.97, 0.5
_MOST_BORDER = 0.4
_LEAST_BORDER_PX = 2
# How far a border may be from black to picture: of the width, and of the height.
_SOFT = 1 / 90, 1 / 160
# Most lines of head switching, of the height; a tape has 6 to 12 of 480 or 576.
_MOST_NOISE = 1 / 24
_LEAST_NOISE_LINES = 2
# How many times a torn line differs from that above it as lines further up do, and how little
# alike the two are in their detail.
_TORN, _UNLIKE = 2.0, 0.5
_TORN_SHARE = 0.6  # of the frames
# How alike the lines of two successive frames may be, wherever they fit best, to be noise.
_ALIKE = 0.6
# Smaller pictures are no captures, and have too few lines to tell.
_LEAST_SIDE_PX = 96
_FEWEST_PAIRS = 2
_MANY_PAIRS = 5


@dataclass(frozen=True, slots=True)
class Margins:
    """Of every frame of a video, in frame pixels."""

    left_px: int = 0
    top_px: int = 0
    right_px: int = 0
    bottom_px: int = 0
    noise_lines: int = 0
    """Of the lines at the bottom, those with the noise of head switching."""

    def __bool__(self) -> bool:
        return max(self.left_px, self.top_px, self.right_px, self.bottom_px) > 0

    def in_words(self) -> str:
        black = {
            "left": self.left_px,
            "top": self.top_px,
            "right": self.right_px,
            "bottom": self.bottom_px - self.noise_lines,
        }
        found = [f"{size} px at the {side}" for side, size in black.items() if size]
        parts = [f"a black border of {', '.join(found)}"] if found else []
        if self.noise_lines:
            parts.append(f"{self.noise_lines} lines of head-switching noise at the bottom")
        return " or ".join(parts)

    def notice(self) -> str | None:
        """What a person should know; None where there are none."""
        return f"no face is taken from {self.in_words()}" if self else None

    def picture(self, info: VideoInfo) -> Rect:
        """All but the margins."""
        return Rect(
            self.left_px, self.top_px, info.width - self.right_px, info.height - self.bottom_px
        )

    def covered(
        self, picture: npt.NDArray[np.uint8], matrix: Matrix, info: VideoInfo
    ) -> npt.NDArray[np.uint8]:
        """A view (H, W, 3) of a frame, with the last good line, or black, in place of the noise.

        Black borders stay: they keep no detector from a face that they cut, and the places of its
        landmarks suffer where the face's last column is repeated instead.

        Convention: `matrix` (2, 3) leads from frame pixel centres to those of the view, straight or
        by quarter turns.
        """
        if not self.noise_lines:
            return picture
        height, width = picture.shape[:2]
        shown = _shown_in(matrix, info, self.bottom_px)
        is_black = self.bottom_px > self.noise_lines
        return np.asarray(
            cv2.copyMakeBorder(
                picture[shown.y0 : shown.y1, shown.x0 : shown.x1],
                shown.y0,
                height - shown.y1,
                shown.x0,
                width - shown.x1,
                cv2.BORDER_CONSTANT if is_black else cv2.BORDER_REPLICATE,
            ),
            np.uint8,
        )

    def hold(self, box: FloatArray, info: VideoInfo) -> bool:
        """Whether more than half of what lies in the frame of a box (4,) lies in a margin."""
        rect = self.picture(info)
        inside = _area(box, (-0.5, -0.5, info.width - 0.5, info.height - 0.5))
        clear = _area(box, (rect.x0 - 0.5, rect.y0 - 0.5, rect.x1 - 0.5, rect.y1 - 0.5))
        return clear < 0.5 * inside


NO_MARGINS = Margins()


def _area(box: FloatArray, bounds: tuple[float, float, float, float]) -> float:
    low, high = np.maximum(box[:2], bounds[:2]), np.minimum(box[2:], bounds[2:])
    return float(np.prod(np.maximum(high - low, 0)))


def _shown_in(matrix: Matrix, info: VideoInfo, bottom_px: int) -> Rect:
    """What shows nothing of the last lines of the frame, in whole pixels of a view."""
    height = info.height - bottom_px
    whole = apply(matrix, np.array([[-0.5, -0.5], [info.width - 0.5, info.height - 0.5]]))
    inner = apply(matrix, np.array([[-0.5, -0.5], [info.width - 0.5, height - 0.5]]))
    (low, high), (first, last) = np.sort(inner, axis=0), np.sort(whole, axis=0)
    # One line more than is mixed of both, since chroma is coarser.
    x0, y0 = np.where(low > first + 0.01, np.ceil(low + 0.5) + 1, np.round(first + 0.5))
    x1, y1 = np.where(high < last - 0.01, np.floor(high + 0.5) - 1, np.round(last + 0.5))
    return Rect(int(x0), int(y0), int(x1), int(y1))


class MarginScan:
    """Looks at pairs of successive frames from all of a video.

    Memory: four planes of one byte a pixel.
    """

    def __init__(self, info: VideoInfo) -> None:
        self._info = info
        self._black = 0
        self._pairs = 0
        self._lightest: _Grey | None = None
        self._second: _Grey | None = None
        self._torn: list[npt.NDArray[np.bool_]] = []
        self._bands: list[tuple[_Grey, _Grey]] = []

    def add(self, earlier: Any, later: Any) -> None:
        """Two frames as they were decoded."""
        if min(self._info.width, self._info.height) < _LEAST_SIDE_PX:
            return
        how = layout(earlier)
        self._black = 0 if how.is_rgb or self._info.full_range else 16
        pair = _grey(earlier), _grey(later)
        self._pairs += 1
        # What noise lifts in one of them only is not light.
        both = np.minimum(*pair)
        if self._lightest is None or self._second is None:
            self._lightest, self._second = both, np.zeros_like(both)
        else:
            self._second = np.maximum(self._second, np.minimum(self._lightest, both))
            self._lightest = np.maximum(self._lightest, both)
        most = self._most_noise()
        self._torn.extend(_torn_lines(picture, most) for picture in pair)
        self._bands.append((pair[0][-3 * most :].copy(), pair[1][-3 * most :].copy()))

    def _most_noise(self) -> int:
        return round(self._info.height * _MOST_NOISE)

    def margins(self) -> Margins:
        """What all pairs have in common; none where too few were looked at."""
        if self._lightest is None or self._second is None or self._pairs < _FEWEST_PAIRS:
            return NO_MARGINS
        # One place may be damaged, of which decoders make pictures of their own.
        light = self._second if self._pairs >= _MANY_PAIRS else self._lightest
        is_dark, is_clear = light <= self._black + _DARK, light > self._black + _DARK + _CLEAR
        noise = self._noise_lines(0)
        height = self._info.height - noise
        is_dark, is_clear = is_dark[:height], is_clear[:height]
        top = _border(is_dark, is_clear, round(self._info.height * _SOFT[1]))
        bottom = _border(is_dark[::-1], is_clear[::-1], round(self._info.height * _SOFT[1]))
        if not noise and 0 < bottom <= self._most_noise():
            noise = self._noise_lines(bottom)
            height -= noise
        rows = slice(top, self._info.height - noise - bottom)
        is_dark, is_clear = is_dark[rows].T, is_clear[rows].T
        left = _border(is_dark, is_clear, round(self._info.width * _SOFT[0]))
        right = _border(is_dark[::-1], is_clear[::-1], round(self._info.width * _SOFT[0]))
        return Margins(left, top, right, bottom + noise, noise)

    def _noise_lines(self, black: int) -> int:
        """Torn lines above so many black ones."""
        share = np.mean(self._torn, axis=0)[::-1][black:]
        # A line in the middle of them may look like the one above it by chance.
        torn = np.convolve(share >= _TORN_SHARE, [1, 1, 1], "same")[: len(share)] >= 2
        torn[:1] = share[:1] >= _TORN_SHARE
        lines = _leading(torn)
        while lines and share[lines - 1] < _TORN_SHARE:
            lines -= 1
        if not _LEAST_NOISE_LINES <= lines <= len(share) - 4:
            return 0
        return 0 if self._stays(lines, black) else lines

    def _stays(self, lines: int, black: int) -> bool:
        """Whether the lines of one frame are found in the next: then they are a picture."""
        found = []
        for earlier, later in self._bands:
            end = len(earlier) - black
            band = earlier[end - lines : end]
            side = band.shape[1] // 10
            inner = band[:, side:-side].astype(np.float32)
            around = later[end - 2 * lines : end].astype(np.float32)
            if inner.std() < 1 or np.array_equal(earlier, later):
                continue  # nothing to see, or a frame that was held
            fit = cv2.matchTemplate(_detail(around), _detail(inner), cv2.TM_CCOEFF_NORMED)
            found.append(float(fit.max()))
        return not found or float(np.median(found)) > _ALIKE


def _grey(image: Any) -> _Grey:
    """(H, W) of 8 bits: luma, or green."""
    how = layout(image)
    samples = plane(image, how.planes[1] if how.is_rgb else how.planes[0])
    if how.bits > 8:
        samples = samples >> (how.bits - 8)
    return np.array(samples, np.uint8)


def _border(is_dark: Any, is_clear: Any, soft: int) -> int:
    """How many rows from the first on are black, up to where a picture begins at once."""
    lines = _leading(is_dark.mean(axis=1) >= _DARK_SHARE)
    if not _LEAST_BORDER_PX <= lines <= _MOST_BORDER * len(is_dark):
        return 0
    across = is_clear.any(axis=0)
    if not across.any():
        return 0
    beyond = is_clear[lines : lines + max(soft, 2) + 1, across].any(axis=0)
    return lines if beyond.mean() >= _CLEAR_SHARE else 0


def _leading(flags: npt.NDArray[np.bool_]) -> int:
    return len(flags) if flags.all() else int(np.argmin(flags))


def _detail(lines: FloatArray) -> FloatArray:
    """What changes along a line within a 20th of its length, without the finest noise."""
    wide = max(9, lines.shape[1] // 24)
    return np.asarray(box_blur(lines, 3, 1) - box_blur(lines, wide, 1), np.float32)


def _torn_lines(picture: _Grey, most: int) -> npt.NDArray[np.bool_]:
    """(2 most,) of the last lines: whether each is torn from that above it in its field."""
    height, width = picture.shape
    side = width // 10
    # A picture that was enlarged shows each line several times.
    step = 2 * max(1, round(height / 540))
    lines = picture[-6 * most - step :, side:-side].astype(np.float32)
    detail = _detail(lines)
    change = np.abs(lines[step:] - lines[:-step]).mean(axis=1)
    one, other = detail[step:], detail[:-step]
    both = np.sqrt((one**2).mean(axis=1) * (other**2).mean(axis=1)) + 1e-3
    alike = (one * other).mean(axis=1) / both
    usual = max(float(np.median(change[: -2 * most])), 1.0)
    return np.asarray((change > _TORN * usual) & (alike < 1 - _UNLIKE))[-2 * most :]

"""Borders of a picture that show no scene: black bars, and torn lines of head switching.

The heads of a tape recorder take turns at reading. Where one takes over from the other, below the
picture that a television shows, a few lines are shifted and noisy. A capture shows these lines, and
black at the sides.
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

_Gray = npt.NDArray[np.uint8]

# The levels, of 255, by which the lightest samples of a border may exceed black, and by which those
# of a picture exceed that. The black of 525-line tapes is 16 levels above that of a border.
_DARK, _CLEAR = 14, 12
# The share of the samples along a border that must be dark in it, and clear beyond it.
_DARK_SHARE, _CLEAR_SHARE = 0.97, 0.5
_MOST_BORDER = 0.4
_LEAST_BORDER_PX = 2
# The longest transition from black to picture, as a share of the width and of the height.
_SOFT = 1 / 90, 1 / 160
# The most lines of head switching, as a share of the height; a tape has 6 to 12 of 480 or 576.
_MOST_NOISE = 1 / 24
_LEAST_NOISE_LINES = 2
# The least ratio of the difference between a torn line and the line above it to the usual
# difference, and the least decorrelation of their detail.
_TORN, _UNLIKE = 2.0, 0.5
_TORN_SHARE = 0.6  # of the frames
# The highest correlation of the lines of two successive frames, where they fit best, for noise.
_ALIKE = 0.6
# Smaller pictures are not captures of tapes, and have too few lines to decide.
_LEAST_SIDE_PX = 96
_FEWEST_PAIRS = 2
_MANY_PAIRS = 5


@dataclass(frozen=True, slots=True)
class Margins:
    """The margins of every frame of a video, in frame pixels."""

    left_px: int = 0
    """The width of the left margin in pixels."""
    top_px: int = 0
    """The height of the top margin in pixels."""
    right_px: int = 0
    """The width of the right margin in pixels."""
    bottom_px: int = 0
    """The height of the bottom margin in pixels, with the noise of head switching."""
    noise_lines: int = 0
    """The number of lines of the bottom margin that show the noise of head switching."""

    def __bool__(self) -> bool:
        """Tell whether there is any margin."""
        return max(self.left_px, self.top_px, self.right_px, self.bottom_px) > 0

    def in_words(self) -> str:
        """Describe the margins as a part of a sentence; empty where there are none."""
        black = {
            "left": self.left_px,
            "top": self.top_px,
            "right": self.right_px,
            "bottom": self.bottom_px - self.noise_lines,
        }
        borders = [f"{size} px at the {side}" for side, size in black.items() if size]
        parts = [f"a black border of {', '.join(borders)}"] if borders else []
        if self.noise_lines:
            parts.append(f"{self.noise_lines} lines of head-switching noise at the bottom")
        return " or ".join(parts)

    def notice(self) -> str | None:
        """Return the notice for the user; None where there are no margins."""
        return f"no face is taken from {self.in_words()}" if self else None

    def picture(self, info: VideoInfo) -> Rect:
        """Return the part of a frame inside the margins.

        Args:
            info: The properties of the frames.

        Returns:
            The rectangle in frame pixels, half-open.
        """
        return Rect(
            self.left_px, self.top_px, info.width - self.right_px, info.height - self.bottom_px
        )

    def covered(
        self, picture: npt.NDArray[np.uint8], matrix: Matrix, info: VideoInfo
    ) -> npt.NDArray[np.uint8]:
        """Cover the noise of head switching in a view of a frame.

        The noise is replaced with black if there is a black border below the picture, otherwise
        with the last good line. Black borders at the sides stay: they do not keep a detector from a
        face that they cut, whereas a repeated last column of the face would move its landmarks.

        Convention: `matrix` leads from frame pixel centers (x, y) to pixel centers of the view. It
        scales, mirrors and turns by multiples of 90 degrees only.

        Args:
            picture: (H, W, 3) uint8, the view of the frame.
            matrix: (2, 3) frame -> view.
            info: The properties of the frames.

        Returns:
            (H, W, 3) uint8; `picture` itself if there is no noise.
        """
        if not self.noise_lines:
            return picture
        height, width = picture.shape[:2]
        visible = _visible_rect(matrix, info, self.bottom_px)
        is_black = self.bottom_px > self.noise_lines
        return np.asarray(
            cv2.copyMakeBorder(
                picture[visible.y0 : visible.y1, visible.x0 : visible.x1],
                visible.y0,
                height - visible.y1,
                visible.x0,
                width - visible.x1,
                cv2.BORDER_CONSTANT if is_black else cv2.BORDER_REPLICATE,
            ),
            np.uint8,
        )

    def hold(self, box: FloatArray, info: VideoInfo) -> bool:
        """Tell whether the margins hold most of a box.

        Args:
            box: (4,) x1 y1 x2 y2 in frame pixels.
            info: The properties of the frames.

        Returns:
            True if more than half of the part of the box that lies in the frame lies in a margin.
        """
        rect = self.picture(info)
        inside = _area(box, (-0.5, -0.5, info.width - 0.5, info.height - 0.5))
        clear = _area(box, (rect.x0 - 0.5, rect.y0 - 0.5, rect.x1 - 0.5, rect.y1 - 0.5))
        return clear < 0.5 * inside


NO_MARGINS = Margins()


def _area(box: FloatArray, bounds: tuple[float, float, float, float]) -> float:
    """Return the area of the part of a box within bounds."""
    low, high = np.maximum(box[:2], bounds[:2]), np.minimum(box[2:], bounds[2:])
    return float(np.prod(np.maximum(high - low, 0)))


def _visible_rect(matrix: Matrix, info: VideoInfo, bottom_px: int) -> Rect:
    """Return the pixels of a view that show nothing of the last `bottom_px` lines of the frame."""
    height = info.height - bottom_px
    whole = apply(matrix, np.array([[-0.5, -0.5], [info.width - 0.5, info.height - 0.5]]))
    inner = apply(matrix, np.array([[-0.5, -0.5], [info.width - 0.5, height - 0.5]]))
    (low, high), (first, last) = np.sort(inner, axis=0), np.sort(whole, axis=0)
    # Chroma is coarser than luma, so the line next to the mixed one goes too.
    x0, y0 = np.where(low > first + 0.01, np.ceil(low + 0.5) + 1, np.round(first + 0.5))
    x1, y1 = np.where(high < last - 0.01, np.floor(high + 0.5) - 1, np.round(last + 0.5))
    return Rect(int(x0), int(y0), int(x1), int(y1))


class MarginScan:
    """Measures margins in pairs of successive frames from all parts of a video.

    Memory: four planes of one byte a pixel.
    """

    def __init__(self, info: VideoInfo) -> None:
        """Start a measurement.

        Args:
            info: The properties of the frames.
        """
        self._info = info
        self._black = 0
        self._pairs = 0
        self._lightest: _Gray | None = None
        self._second: _Gray | None = None
        self._torn: list[npt.NDArray[np.bool_]] = []
        self._bands: list[tuple[_Gray, _Gray]] = []

    def add(self, earlier: Any, later: Any) -> None:
        """Measure two successive frames; frames with a side below 96 pixels are ignored.

        Args:
            earlier: The earlier `av.VideoFrame` as it was decoded.
            later: The frame after it.
        """
        if min(self._info.width, self._info.height) < _LEAST_SIDE_PX:
            return
        how = layout(earlier)
        self._black = 0 if how.is_rgb or self._info.full_range else 16
        pair = _gray(earlier), _gray(later)
        self._pairs += 1
        # A sample that is light in only one of the two frames is noise.
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
        """Return the margins that all pairs have in common; none after fewer than two pairs."""
        if self._lightest is None or self._second is None or self._pairs < _FEWEST_PAIRS:
            return NO_MARGINS
        # One place may be damaged, and decoders invent a picture there.
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
        """Count the torn lines above `black` black lines."""
        share = np.mean(self._torn, axis=0)[::-1][black:]
        # A line among the torn ones may resemble the line above it by chance.
        torn = np.convolve(share >= _TORN_SHARE, [1, 1, 1], "same")[: len(share)] >= 2
        torn[:1] = share[:1] >= _TORN_SHARE
        lines = _leading(torn)
        while lines and share[lines - 1] < _TORN_SHARE:
            lines -= 1
        if not _LEAST_NOISE_LINES <= lines <= len(share) - 4:
            return 0
        return 0 if self._reappear(lines, black) else lines

    def _reappear(self, lines: int, black: int) -> bool:
        """Tell whether the lines of a frame reappear in the next frame: then they are a picture."""
        correlations = []
        for earlier, later in self._bands:
            end = len(earlier) - black
            band = earlier[end - lines : end]
            side = band.shape[1] // 10
            inner = band[:, side:-side].astype(np.float32)
            around = later[end - 2 * lines : end].astype(np.float32)
            if inner.std() < 1 or np.array_equal(earlier, later):
                continue  # the lines have no detail, or the frame repeats
            fit = cv2.matchTemplate(_detail(around), _detail(inner), cv2.TM_CCOEFF_NORMED)
            correlations.append(float(fit.max()))
        return not correlations or float(np.median(correlations)) > _ALIKE


def _gray(image: Any) -> _Gray:
    """Return the luma, or the green, of a frame: (H, W) uint8."""
    how = layout(image)
    samples = plane(image, how.planes[1] if how.is_rgb else how.planes[0])
    if how.bits > 8:
        samples = samples >> (how.bits - 8)
    return np.array(samples, np.uint8)


def _border(is_dark: Any, is_clear: Any, soft: int) -> int:
    """Count the black rows from the first on, if a picture begins abruptly after them."""
    lines = _leading(is_dark.mean(axis=1) >= _DARK_SHARE)
    if not _LEAST_BORDER_PX <= lines <= _MOST_BORDER * len(is_dark):
        return 0
    across = is_clear.any(axis=0)
    if not across.any():
        return 0
    beyond = is_clear[lines : lines + max(soft, 2) + 1, across].any(axis=0)
    return lines if beyond.mean() >= _CLEAR_SHARE else 0


def _leading(flags: npt.NDArray[np.bool_]) -> int:
    """Count the True values before the first False."""
    return len(flags) if flags.all() else int(np.argmin(flags))


def _detail(lines: FloatArray) -> FloatArray:
    """Return the changes along each line within 1/24 of its length, without the finest noise."""
    wide = max(9, lines.shape[1] // 24)
    return np.asarray(box_blur(lines, 3, 1) - box_blur(lines, wide, 1), np.float32)


def _torn_lines(picture: _Gray, most: int) -> npt.NDArray[np.bool_]:
    """Tell which of the last lines, (2 most,), are torn from the line above in the same field."""
    height, width = picture.shape
    side = width // 10
    # An enlarged picture shows each line several times.
    step = 2 * max(1, round(height / 540))
    lines = picture[-6 * most - step :, side:-side].astype(np.float32)
    detail = _detail(lines)
    change = np.abs(lines[step:] - lines[:-step]).mean(axis=1)
    one, other = detail[step:], detail[:-step]
    both = np.sqrt((one**2).mean(axis=1) * (other**2).mean(axis=1)) + 1e-3
    alike = (one * other).mean(axis=1) / both
    usual = max(float(np.median(change[: -2 * most])), 1.0)
    return np.asarray((change > _TORN * usual) & (alike < 1 - _UNLIKE))[-2 * most :]

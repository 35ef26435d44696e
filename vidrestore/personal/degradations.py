"""Degradations: bad pictures of faces for training, made of clear ones.

`BlindDegradation` has the figures of GPEN's authors (Yang et al. 2021, arXiv:2105.06070), which are
those of GFPGAN (Wang et al. 2021, arXiv:2101.04061). `FilmDegradation` makes pictures as bad as
those of one film. Both draw all random numbers from the generator that the caller passes, so that
the same seed gives the same pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.imaging.filters import gaussian_blur
from vidrestore.imaging.luma import bt601_luma
from vidrestore.restoration.compositing import defocus, grain, motion_blur

Picture = npt.NDArray[np.float32]
"""(S, S, 3) float32 RGB in [0, 1]."""

AUTHORS_PX = 512
"""The side of the crops for which the figures of GPEN's authors are meant."""

# Side of the box, in pixels of the reduced picture, by which a pixel itself blurs an edge; the
# standard deviation of a box is its side over the root of 12.
_PIXEL_SIGMA = 1 / math.sqrt(12)
# Qualities of JPEG that are tried until the detail is that of the film; 0: no compression.
_QUALITIES = (0, 95, 90, 85, 75, 65, 55, 45, 35, 25, 15)
# Detail that exceeds that of the film by this factor counts as equal.
_TOLERANCE = 1.05
# Edges have more detail than textures; the share of samples with the least is measured.
_CALM_SHARE = 0.75
# A face is at least so large after reduction, in pixels.
_LEAST_SIDE_PX = 8


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A clear picture and a bad one of the same face."""

    truth: Picture
    """(S, S, 3) float32 RGB in [0, 1]."""
    degraded: Picture
    """(S, S, 3) float32 RGB in [0, 1]."""


class Degradation(Protocol):
    """Makes pairs for training."""

    def __call__(self, clear: Picture, random: np.random.Generator) -> Pair:
        """Make a bad picture of a clear one.

        Args:
            clear: (S, S, 3) float32 RGB in [0, 1].
            random: The source of all random numbers.

        Returns:
            The pair; its clear picture may be mirrored or gray.
        """
        ...


@dataclass(frozen=True, slots=True)
class BlindDegradation:
    """Blur, reduction, noise and JPEG of random strengths, with the figures of GPEN's authors.

    Each range is drawn from uniformly, both ends included.
    """

    sigma_px: tuple[float, float] = (0.1, 10.0)
    """Standard deviation of the blur, in pixels of the crop. Half of the blurs have another
    standard deviation across their direction."""
    taps: int = 41
    """Side of the filter of the blur, in pixels, odd."""
    reduction: tuple[float, float] = (0.8, 8.0)
    """Factor by which the sides are divided."""
    noise_levels: tuple[float, float] = (0.0, 20.0)
    """Standard deviation of the noise, in 8-bit levels."""
    quality: tuple[int, int] = (60, 100)
    """Quality of JPEG, 100 for the best."""
    gray_share: float = 0.2
    """Share of the pairs that are gray."""
    mirrored_share: float = 0.5
    """Share of the pairs that are mirrored."""

    def for_side(self, side_px: int) -> BlindDegradation:
        """Return the degradation that is as hard for a face in crops of another side.

        Args:
            side_px: Side S of the crops in pixels.

        Returns:
            The degradation, whose lengths are scaled from crops of 512 px.
        """
        scale = side_px / AUTHORS_PX
        low, high = self.reduction
        return replace(
            self,
            sigma_px=(self.sigma_px[0] * scale, self.sigma_px[1] * scale),
            taps=2 * math.ceil(self.taps // 2 * scale) + 1,
            reduction=(low, max(high * scale, low)),
        )

    def __call__(self, clear: Picture, random: np.random.Generator) -> Pair:
        """Make a bad picture of a clear one, see `Degradation`."""
        truth = clear
        if random.random() < self.mirrored_share:
            truth = np.ascontiguousarray(truth[:, ::-1])
        if random.random() < self.gray_share:
            truth = np.repeat(bt601_luma(truth)[..., None].astype(np.float32), 3, axis=2)
        height, width = truth.shape[:2]
        bad = cv2.filter2D(truth, -1, self._kernel(random))
        factor = random.uniform(*self.reduction)
        size = (max(int(width // factor), 1), max(int(height // factor), 1))
        bad = cv2.resize(bad, size, interpolation=cv2.INTER_LINEAR)
        sigma = random.uniform(*self.noise_levels) / 255
        bad = bad + sigma * random.standard_normal(bad.shape, np.float32)
        bad = compressed(bad, int(random.integers(self.quality[0], self.quality[1] + 1)))
        bad = cv2.resize(bad, (width, height), interpolation=cv2.INTER_LINEAR)
        return Pair(truth, np.asarray(bad, np.float32))

    def _kernel(self, random: np.random.Generator) -> Picture:
        """Return the filter (taps, taps) of a blur."""
        is_round = random.random() < 0.5
        first, second = random.uniform(*self.sigma_px, size=2)
        angle = random.uniform(-math.pi, math.pi)
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        inverse = turn.T @ np.diag([first**-2, (first if is_round else second) ** -2]) @ turn
        ramp = np.arange(self.taps) - self.taps // 2
        x, y = np.meshgrid(ramp, ramp)
        squares = inverse[0, 0] * x**2 + 2 * inverse[0, 1] * x * y + inverse[1, 1] * y**2
        kernel = np.exp(-0.5 * squares)
        return np.asarray(kernel / kernel.sum(), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class FaceCondition:
    """How bad a face looks in one frame of a film. Lengths are in pixels of the frame."""

    side_px: float
    """The side of its crop."""
    edges_px: float
    """The standard deviation of the blur of its edges, see `defocus.width_px`."""
    motion_px: tuple[float, float]
    """The length (x, y) of its motion blur, along the axes of the crop."""
    detail: float
    """The detail of its luma between edges, in 8-bit levels, see `detail_of`."""
    noise: tuple[grain.Spectrum, grain.Spectrum, grain.Spectrum]
    """(16, 9) spectra of its noise in Y', Cb and Cr, in squared 8-bit levels."""
    chroma_step: tuple[int, int] = (2, 2)
    """The distance (across, down) of chroma samples in pixels, for which the spectra of Cb and Cr
    hold."""


def condition_of(
    rgb: Picture,
    where: npt.NDArray[np.bool_],
    *,
    side_px: float,
    noise: tuple[grain.Spectrum, grain.Spectrum, grain.Spectrum],
    motion_px: tuple[float, float] = (0.0, 0.0),
    chroma_step: tuple[int, int] = (2, 2),
) -> FaceCondition | None:
    """Measure how bad a face looks in a frame.

    Args:
        rgb: (h, w, 3) float32 RGB in [0, 1], the part of the frame with the face, in its pixels.
        where: (h, w) the pixels of the face.
        side_px: The side of its crop in pixels.
        noise: (16, 9) spectra of the noise in Y', Cb and Cr, in squared 8-bit levels; such as
            `appearance.noise_between` measures.
        motion_px: Length (x, y) of the motion blur in pixels; such as `motion_blur.smear_of`
            measures. Default: no motion blur.
        chroma_step: Distance (across, down) of chroma samples in pixels. Default (2, 2).

    Returns:
        The condition; None where the face has too few edges to measure their width.
    """
    edges_px = defocus.width_px(rgb, where)
    if edges_px is None:
        return None
    detail = detail_of(rgb, where)
    return FaceCondition(side_px, edges_px, motion_px, detail, noise, chroma_step)


def detail_of(rgb: Picture, where: npt.NDArray[np.bool_] | None = None) -> float:
    """Measure the detail of a picture between its edges: noise, texture, and what coding left.

    Args:
        rgb: (h, w, 3) float32 RGB in [0, 1], at least 3 x 3 pixels.
        where: (h, w) the pixels to measure; None for all.

    Returns:
        The mean of the three quarters of smallest second differences, down and across, of the luma
        in 8-bit levels; 0 where there are no pixels.
    """
    luma = 255 * np.asarray(bt601_luma(rgb), np.float32)
    bends = np.abs(np.diff(np.diff(luma, 2, axis=0), 2, axis=1))
    chosen = bends.ravel() if where is None else bends[where[1:-1, 1:-1]]
    if len(chosen) == 0:
        return 0.0
    return float(np.sort(chosen)[: math.ceil(_CALM_SHARE * len(chosen))].mean())


class FilmDegradation:
    """Makes pictures as small, blurred, noisy and compressed as faces of one film.

    For each pair, the class chooses one of the measured conditions and reduces the clear picture to
    its size. It then widens the edges to the measured width, blurs along the motion, and compresses
    by JPEG of the highest quality that leaves no more detail than was measured. It adds noise of
    the measured spectrum last, because the noise was measured in the film after compression.

    Args:
        conditions: What was measured, one entry for each frame.
        mirrored_share: Share of the pairs that are mirrored. Default 0.5.

    Raises:
        ValueError: There are no conditions.
    """

    def __init__(self, conditions: Sequence[FaceCondition], mirrored_share: float = 0.5) -> None:
        if not conditions:
            raise ValueError("a film without measured conditions has no degradation")
        self._conditions = tuple(conditions)
        self._mirrored_share = mirrored_share

    def __call__(self, clear: Picture, random: np.random.Generator) -> Pair:
        """Make a bad picture of a clear one, see `Degradation`."""
        truth = clear
        if random.random() < self._mirrored_share:
            truth = np.ascontiguousarray(truth[:, ::-1])
        condition = self._conditions[random.integers(len(self._conditions))]
        seed = int(random.integers(2**32))
        side, own_px = len(truth), defocus.width_px(truth, np.ones(truth.shape[:2], bool))
        small = max(min(round(condition.side_px), side), _LEAST_SIDE_PX)
        scale = small / side
        bad = _resized(truth, small, cv2.INTER_AREA)
        own = math.hypot((own_px or 0.0) * scale, _PIXEL_SIGMA if scale < 1 else 0.0)
        # Where crops are smaller than the face in the film, lengths are those of the crop.
        shrunk = small / condition.side_px
        wanted = condition.edges_px * shrunk
        if wanted > own:
            bad = gaussian_blur(bad, math.sqrt(wanted**2 - own**2), border="repeat")
        bad = motion_blur.smeared(bad, np.array(condition.motion_px) * shrunk)
        noise = _noise(condition, small, seed)
        bad = _as_coarse(bad, noise, condition.detail)
        return Pair(truth, _resized(bad, side, cv2.INTER_LINEAR))


def compressed(rgb: npt.NDArray[Any], quality: int) -> Picture:
    """Compress a picture with JPEG and decompress it.

    Args:
        rgb: (h, w, 3) RGB; values beyond [0, 1] are clipped.
        quality: Quality, 1 to 100.

    Returns:
        (h, w, 3) float32 RGB in [0, 1], in steps of 1 / 255.
    """
    levels = np.clip(np.rint(255 * rgb[..., ::-1]), 0, 255).astype(np.uint8)
    _, data = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.asarray(decoded[..., ::-1], np.float32) / np.float32(255)


def _resized(rgb: Picture, side_px: int, interpolation: int) -> Picture:
    resized = cv2.resize(rgb, (side_px, side_px), interpolation=interpolation)
    return np.asarray(resized, np.float32)


def _noise(condition: FaceCondition, side: int, seed: int) -> Picture:
    """Return (side, side, 3) noise of a film in R'G'B', in [-1, 1]."""
    across, down = condition.chroma_step
    luma = grain.grain(condition.noise[0], side, side, (seed, 0))
    chroma = [
        cv2.resize(
            grain.grain(spectrum, -(-side // down), -(-side // across), (seed, plane)),
            (side, side),
            interpolation=cv2.INTER_LINEAR,
        )
        for plane, spectrum in enumerate(condition.noise[1:], start=1)
    ]
    blue, red = chroma
    # Rec. ITU-T T.871 (JFIF): the R'G'B' of a difference of Y'CbCr.
    rgb = (luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue)
    return np.asarray(np.dstack(rgb) / 255, np.float32)


def _as_coarse(rgb: Picture, noise: Picture, detail: float) -> Picture:
    """Compress a picture until it has, with the noise, no more detail than the film."""
    best, least = rgb, math.inf
    for quality in _QUALITIES:
        coded = compressed(rgb, quality) if quality else rgb
        noisy = np.clip(np.rint(255 * (coded + noise)), 0, 255).astype(np.float32) / np.float32(255)
        found = detail_of(noisy)
        if found < least:
            best, least = noisy, found
        if found <= _TOLERANCE * detail:
            break
    return best

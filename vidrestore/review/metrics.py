"""Measures of a restored face in an aligned crop: fidelity, stability over time and sharpness.

A stack is (n, H, W, 3) float32 RGB in [0, 1]: successive frames of one face in square crops of the
same side. A mask is (H, W) or (n, H, W) float32 in [0, 1] and weights every mean over pixels; where
it is zero everywhere, a mean is nan. Light is in 8-bit levels. Lengths are in pixels of a crop with
a side of 512 (px@512), so that values of crops of different sides are comparable. O is the stack
that is judged, G the truth, I the source of O, M the mask, Y the luma (Rec. ITU-R BT.601), f_ts the
flow from points of frame t to the same points in frame s, and W_ts X is X_s(x + f_ts(x)).

A measure over time gives one number for each frame, pair or triple of frames, so that a long video
can be measured a few frames at a time. `rms` and `mean` reduce them to one number.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from skimage.metrics import structural_similarity

from vidrestore.imaging.filters import gaussian_blur
from vidrestore.imaging.luma import bt601_luma
from vidrestore.imaging.optical_flow import DenseFlow, FlowField, confidence, sample

Stack = npt.NDArray[np.float32]
"""(n, H, W, 3) R'G'B' in [0, 1]: consecutive frames of one face in square crops of one side."""
Mask = npt.NDArray[np.float32]
"""(H, W) or (n, H, W) in [0, 1]: the weights of the pixels in every mean."""
Values = npt.NDArray[np.float64]
"""One number for each frame, pair or triple of frames."""

SIDE_PX = 512
"""Side of the crop in whose pixels lengths are stated, in pixels."""

_LOW_SIGMA_PX = 12.0  # at a side of 512, as are the next two
_DETAIL_SIGMA_PX = 2.0
_GATE_SIGMA_PX = 3.0
# Below this sigma, a blur has hardly any effect on the pixels of a small crop.
_LEAST_SIGMA_PX = 1.0
# Mean local deviation below which a picture has no detail to compare with, as in a fade to black.
_LEAST_DETAIL_LEVELS = 0.05
# Confidence of a flow below which a pixel has no weight, where there is no truth.
_LEAST_CONFIDENCE = 0.5
# E_t - (E_t-1 + E_t+1) / 2 has 3/2 of the variance of an E that is new in every frame.
_TRIPLE = 2 / 3
_SSIM_REACH_PX = 8
_FIT_ROUNDS, _FIT_TOLERANCE_PX = 5, 0.25
_FIT_STEP = 32  # the number of lines of the grid, across the crop, on which a flow is fitted


@dataclass(frozen=True, slots=True, eq=False)
class Flows:
    """The optical flow between neighboring frames of a stack of n frames."""

    forward: FlowField
    """(n - 1, H, W, 2) float32: the flow from frame t to frame t + 1, (x, y) in pixels of the
    crop."""
    backward: FlowField
    """(n - 1, H, W, 2) float32: the flow from frame t + 1 to frame t, (x, y) in pixels of the
    crop."""

    def __len__(self) -> int:
        return len(self.forward)

    def part(self, start: int, end: int) -> Flows:
        """Return the flows between some of the frames.

        Args:
            start: First frame.
            end: The frame after the last one.

        Returns:
            The flows between the frames `start` to `end - 1`; views, not copies.
        """
        return Flows(self.forward[start : end - 1], self.backward[start : end - 1])


def flows_between(stack: Stack, flow: DenseFlow, *, blur_px: float) -> Flows:
    """Compute the flows between neighboring frames, by dense inverse search on the luma.

    Args:
        stack: (n, H, W, 3) float32 R'G'B' in [0, 1].
        flow: Computes the flow between two gray pictures.
        blur_px: Sigma of a Gaussian blur of the luma before, in px@512; 0 for no blur. A noisy
            video needs about 1.5, a clean one needs 0.

    Returns:
        The n - 1 flows in each direction.

    Convention:
        Flows are (x, y) in pixels of the crop; integer coordinates are pixel centers.
    """
    gray = [_gray(picture, blur_px) for picture in stack]
    pairs = list(itertools.pairwise(gray))
    shape = (len(pairs), *stack.shape[1:3], 2)
    forward = np.array([flow(a, b) for a, b in pairs], np.float32).reshape(shape)
    backward = np.array([flow(b, a) for a, b in pairs], np.float32).reshape(shape)
    return Flows(forward, backward)


def mean(values: npt.NDArray[Any]) -> float:
    """Compute the mean of the values that are not nan.

    Args:
        values: Values of any shape.

    Returns:
        The mean; nan where every value is nan or there is none.
    """
    valid = values[~np.isnan(values)]
    return float(valid.mean()) if len(valid) else math.nan


def rms(squares: npt.NDArray[Any]) -> float:
    """Compute the root of the mean of mean squares, without those that are nan.

    Args:
        squares: Mean squares, of any shape.

    Returns:
        The root mean square; nan where every value is nan or there is none.
    """
    return math.sqrt(mean(squares))


def squared_error(output: Stack, truth: Stack) -> npt.NDArray[np.float32]:
    """Compute the squared error of each pixel, averaged over the channels.

    Args:
        output: (..., C) float32.
        truth: The true values, like `output`.

    Returns:
        (...) float32, in the squared unit of the arguments.
    """
    return _squared_length(output - truth) / np.float32(output.shape[-1])


def psnr_db(output: Stack, truth: Stack, mask: Mask) -> Values:
    """Compute the peak signal-to-noise ratio (PSNR) of each frame under the mask.

    PSNR = 10 log10(1 / mse), mse = sum M (O - G)^2 / sum M over pixels and channels.

    Args:
        output: (n, H, W, 3) float32 R'G'B' in [0, 1]: the frames O that are judged.
        truth: The frames G of the clean video, like `output`.
        mask: (H, W) or (n, H, W) float32 in [0, 1], the weights of the pixels.

    Returns:
        (n,) float64 in dB; inf where every sample under the mask is equal, nan where the mask is
        zero everywhere.
    """
    errors = _pooled(squared_error(output, truth), mask)
    with np.errstate(divide="ignore"):
        return np.asarray(-10 * np.log10(errors))


def ssim(output: Stack, truth: Stack, mask: Mask) -> Values:
    """Compute the structural similarity (SSIM) of the luma of each frame, averaged over the mask.

    The source is Wang et al., "Image quality assessment: from error visibility to structural
    similarity", IEEE TIP 13(4), 2004, with a Gaussian window of sigma 1.5 px, K1 = 0.01 and
    K2 = 0.03.

    Args:
        output: (n, H, W, 3) float32 R'G'B' in [0, 1]: the frames O that are judged.
        truth: The frames G of the clean video, like `output`.
        mask: (H, W) or (n, H, W) float32 in [0, 1], the weights of the pixels.

    Returns:
        (n,) float64, at most 1; nan where the mask is zero everywhere.
    """
    masks = np.broadcast_to(mask, output.shape[:3])
    triples = zip(bt601_luma(output), bt601_luma(truth), masks, strict=True)
    return np.array([_ssim(a, b, m) for a, b, m in triples], np.float64)


def worst_gain_db(output: Stack, other: Stack, truth: Stack, mask: Mask) -> float:
    """Compute WORST, the smallest gain in PSNR of any frame.

    WORST = min_t [PSNR(O_t) - PSNR(R_t)], where R is `other`. A ghost in one frame lowers it.

    Args:
        output: (n, H, W, 3) float32 R'G'B' in [0, 1]: the frames O that are judged.
        other: The frames R to compare with, like `output`.
        truth: The frames G of the clean video, like `output`.
        mask: (H, W) or (n, H, W) float32 in [0, 1], the weights of the pixels.

    Returns:
        The gain in dB; 0 for a frame in which both equal the truth. nan where no gain is known.
    """
    own, others = psnr_db(output, truth, mask), psnr_db(other, truth, mask)
    # Where both equal the truth, both PSNRs are inf, and their difference would be nan.
    gain = np.subtract(own, others, out=np.zeros_like(own), where=own != others)
    valid = gain[~np.isnan(gain)]
    return float(valid.min()) if len(valid) else math.nan


def flicker(output: Stack, truth: Stack, flows: Flows, mask: Mask) -> Values:
    """Compute the mean squares of FLK, the flicker of the error against a clean video.

    FLK = sqrt(2/3 mean_{t, x in M, c} [E_t - (W_t,t-1 E_t-1 + W_t,t+1 E_t+1) / 2]^2), E = O - G.
    FLK is a measure of this project: the warping error of Lai et al. (see `warp_error`), applied
    to the error instead of the picture, and with both neighbors. An error that is new in every
    frame counts with its standard deviation; an error that stays on the face does not count.

    Args:
        output: (n, H, W, 3) float32 R'G'B' in [0, 1]: the frames O that are judged.
        truth: The frames G of the clean video, like `output`.
        flows: The flows of the truth.
        mask: (H, W) or (n, H, W) float32 in [0, 1], the weights of the pixels.

    Returns:
        (n - 2,) float64 in squared 8-bit levels; FLK is their `rms`.
    """
    return _unsteadiness(255 * (output - truth), flows, mask)


def slow_flicker(output: Stack, truth: Stack, flows: Flows, mask: Mask) -> Values:
    """Compute the mean squares of FLKlo, the FLK of the error after a Gaussian of 12 px@512.

    FLKlo shows changes of light and color over whole parts of the face.

    Args:
        output: (n, H, W, 3) float32 R'G'B' in [0, 1]: the frames O that are judged.
        truth: The frames G of the clean video, like `output`.
        flows: The flows of the truth.
        mask: (H, W) or (n, H, W) float32 in [0, 1], the weights of the pixels.

    Returns:
        (n - 2,) float64 in squared 8-bit levels; FLKlo is their `rms`.
    """
    errors = [_blurred(error, _LOW_SIGMA_PX) for error in 255 * (output - truth)]
    return _unsteadiness(np.stack(errors), flows, mask)


def confident_mask(source: Stack, flows: Flows, mask: Mask) -> Mask:
    """Compute the weights of the pixels for FLKb, which are the same for all videos of a source.

    Args:
        source: (n, H, W, 3) float32 R'G'B' in [0, 1]: the frames of the source.
        flows: The flows of the source.
        mask: (H, W) or (n, H, W) float32 in [0, 1], the weights of the pixels.

    Returns:
        (n - 2, H, W) the weights for the frames between the first and the last, 0 where the flow to
        either neighbor has a confidence below 1/2 (see `imaging.optical_flow.confidence`).
    """
    low = [_blurred(255 * bt601_luma(picture), _GATE_SIGMA_PX) for picture in source]
    weights = np.broadcast_to(mask, source.shape[:3])[1:-1].copy()
    for t in range(len(weights)):
        before = confidence(flows.backward[t], flows.forward[t], low[t + 1], low[t])
        after = confidence(flows.forward[t + 1], flows.backward[t + 1], low[t + 1], low[t + 2])
        weights[t] *= (before >= _LEAST_CONFIDENCE) & (after >= _LEAST_CONFIDENCE)
    return weights


def blind_flicker(
    output: Stack, source: Stack, flows: Flows, mask: Mask, *, weights: Mask | None = None
) -> Values:
    """Compute the mean squares of FLKb, the flicker without a clean video: FLK of O, not of E.

    The weights of the pixels are those of `confident_mask`. True changes of the face count too, so
    only the ratio of two results for the same source has a meaning.

    Args:
        output: (n, H, W, 3) float32 R'G'B' in [0, 1]: the frames O that are judged.
        source: The frames I from which `output` was made, like `output`.
        flows: The flows of the source.
        mask: (H, W) or (n, H, W) float32 in [0, 1], the weights of the pixels.
        weights: The result of `confident_mask` for the same source; default: it is computed.

    Returns:
        (n - 2,) float64 in squared 8-bit levels; FLKb is their `rms`.
    """
    if weights is None:
        weights = confident_mask(source, flows, mask)
    return _unsteadiness(255 * output, flows, weights, mask_of_middles=True)


def true_detail(output: Stack, truth: Stack, mask: Mask) -> Values:
    """Compute the sums of DTL, the share of the true fine detail that the output has.

    With h = Y - Gauss_2px@512 Y, the sums are those of h(O) h(G) and of h(G)^2 over the mask. DTL
    is the `ratio` of the sums over all frames. Unlike the variance of the Laplacian, it does not
    rise with noise or invented texture.

    Args:
        output: (n, H, W, 3) float32 R'G'B' in [0, 1]: the frames O that are judged.
        truth: The frames G of the clean video, like `output`.
        mask: (H, W) or (n, H, W) float32 in [0, 1], the weights of the pixels.

    Returns:
        (n, 2) float64, both sums of each frame, in squared 8-bit levels.
    """
    masks = np.broadcast_to(mask, output.shape[:3])
    own, true = _detail(output), _detail(truth)
    products = np.stack([own * true * masks, true * true * masks], axis=-1)
    return np.asarray(products.sum(axis=(1, 2), dtype=np.float64))


def ratio(sums: Values) -> float:
    """Divide the sum of the first column by the sum of the second.

    Args:
        sums: (n, 2).

    Returns:
        The quotient; nan where the divisor is zero.
    """
    above, below = sums.sum(axis=0)
    return float(above / below) if below else math.nan


def warp_error(output: Stack, flows: Flows, mask: Mask) -> Values:
    """Compute Ewarp, the change from frame to frame that the flow does not explain.

    Ewarp_t = sum M N (O_t+1(x + f_t,t+1) - O_t)^2 / sum M N, mean over channels (Lai et al.,
    "Learning blind video temporal consistency", ECCV 2018). N = 0 where the flow forward and back
    does not return to its start: |f + b(x + f)|^2 > 0.01 (|f|^2 + |b(x + f)|^2) + 0.5 (Sundaram et
    al., ECCV 2010). Their second test, for motion boundaries, is left out, since the flow in an
    aligned crop is smaller than its own noise. The Ewarp of the truth is not 0 either, since faces
    change.

    Args:
        output: (n, H, W, 3) float32 R'G'B' in [0, 1]: the frames O that are judged.
        flows: The flows of the truth, or of the source where there is no truth.
        mask: (H, W) or (n, H, W) float32 in [0, 1], the weights of the pixels.

    Returns:
        (n - 1,) float64: 1000 times Ewarp_t, for light in [0, 1]; Ewarp is their `mean`.
    """
    masks = np.broadcast_to(mask, output.shape[:3])
    terms = []
    for t in range(len(flows)):
        weights = masks[t] * _visible(flows.forward[t], flows.backward[t])
        error = squared_error(sample(output[t + 1], flows.forward[t]), output[t])
        terms.append(1000 * _weighted(error, weights))
    return np.array(terms, np.float64)


def motion_error_px(output: Stack, truth: Stack, mask: Mask) -> Values:
    """Compute tOF, the distance between the motions of the output and of the truth.

    tOF_t is the mean over the mask of |OF(G_t-1, G_t) - OF(O_t-1, O_t)|, where OF is the flow by
    Farneback with the parameters of TecoGAN's metrics.py (Chu et al., ACM TOG 39(4), 2020):
    pyramid scale 0.5, 3 levels, window 15, 3 iterations, neighborhood 5, sigma 1.2.

    Args:
        output: (n, H, W, 3) float32 R'G'B' in [0, 1]: the frames O that are judged.
        truth: The frames G of the clean video, like `output`.
        mask: (H, W) or (n, H, W) float32 in [0, 1], the weights of the pixels.

    Returns:
        (n - 1,) float64 in px@512; tOF is their `mean`.
    """
    masks = np.broadcast_to(mask, output.shape[:3])
    own, true = ([_gray(picture, 0) for picture in stack] for stack in (output, truth))
    scale = SIDE_PX / output.shape[2]
    terms = []
    for t in range(1, len(output)):
        difference = _farneback(true[t - 1], true[t]) - _farneback(own[t - 1], own[t])
        terms.append(scale * _weighted(np.sqrt(_squared_length(difference)), masks[t]))
    return np.array(terms, np.float64)


def blink_psnr_db(output: Stack, truth: Stack, frames: npt.NDArray[np.bool_], eyes: Mask) -> float:
    """Compute BLINK, the mean PSNR of the eyes in the frames of a blink.

    Args:
        output: (n, H, W, 3) float32 R'G'B' in [0, 1]: the frames O that are judged.
        truth: The frames G of the clean video, like `output`.
        frames: (n,) bool, True for the frames of a blink.
        eyes: (H, W) or (n, H, W) float32 in [0, 1], the mask of the eyes.

    Returns:
        The mean in dB; nan where no frame shows a blink.
    """
    return mean(psnr_db(output, truth, eyes)[frames])


def sharpness(output: Stack, other: Stack, mask: Mask) -> Values:
    """Compute SHP, the fine detail of the output relative to that of other frames.

    SHP_t is the mean over the mask of the local standard deviation of h(O), divided by that of
    h(R), where R is `other` and h is that of `true_detail`. The means are divided, since a single
    pixel of R may have no detail. At 1, no detail was lost. SHP rises with noise too.

    Args:
        output: (n, H, W, 3) float32 R'G'B' in [0, 1]: the frames O that are judged.
        other: The frames R to compare with, like `output`.
        mask: (H, W) or (n, H, W) float32 in [0, 1], the weights of the pixels.

    Returns:
        (n,) float64; nan where R has no detail. SHP is their `mean`.
    """
    below = _pooled(_local_deviation(_detail(other)), mask)
    above = _pooled(_local_deviation(_detail(output)), mask)
    share = np.full_like(above, np.nan)
    return np.asarray(np.divide(above, below, out=share, where=below >= _LEAST_DETAIL_LEVELS))


def wobble_px(output: Flows, source: Flows, mask: Mask) -> Values:
    """Compute the mean squares of GEO, how the face bends from frame to frame unlike the source.

    With d_t = f_t,t+1 of O minus f_t,t+1 of I, GEO is the rms over M of
    sqrt(2/3) |d_t - (d_t-1 + d_t+1) / 2|. The flow has noise, so compare only results for the same
    source. GEO is a measure of this project.

    Args:
        output: The flows of the output, n - 1 of them.
        source: The flows of the source, n - 1 of them.
        mask: (H, W) or (n, H, W) float32 in [0, 1], the weights of the pixels.

    Returns:
        (n - 3,) float64 in squared px@512; GEO is their `rms`.
    """
    difference = output.forward - source.forward
    bend = difference[1:-1] - (difference[:-2] + difference[2:]) / 2
    masks = mask if mask.ndim == 2 else mask[1:-2]
    scale = SIDE_PX / difference.shape[2]
    squares = scale**2 * _squared_length(bend)
    return _TRIPLE * _pooled(squares, masks)


def jitter_px(flows: Flows, mask: Mask) -> Values:
    """Compute the mean squares of JIT, how much the face trembles in its aligned crop.

    JIT is the second difference in time of the places of a 4 x 4 grid of points that move with the
    face as a whole: s_t,t+1(p) - p - (s_t-1,t(p) - p), where the similarity s is a robust fit to
    the flow. JIT is a measure of this project.

    Args:
        flows: The flows of the video that is judged, n - 1 of them.
        mask: (H, W) or (n, H, W) float32 in [0, 1], the weights of the pixels.

    Returns:
        (n - 2,) float64 in squared px@512 per frame^2; JIT is their `rms`.
    """
    side = flows.forward.shape[2]
    points = _face_grid(side)
    steps = []
    for t, field in enumerate(flows.forward):
        steps.append(_moved_by(field, mask if mask.ndim == 2 else mask[t], points) - points)
    change = np.diff(np.reshape(steps, (-1, len(points), 2)), axis=0)
    return np.asarray((SIDE_PX / side) ** 2 * (change**2).sum(axis=-1).mean(axis=-1))


def _unsteadiness(
    stack: Stack, flows: Flows, mask: Mask, *, mask_of_middles: bool = False
) -> Values:
    """Return (n - 2,) 2/3 of the mean squared difference of each frame and its warped neighbors."""
    squares = []
    for t in range(1, len(stack) - 1):
        before = sample(stack[t - 1], flows.backward[t - 1])
        after = sample(stack[t + 1], flows.forward[t])
        squares.append(squared_error(stack[t], (before + after) / 2))
    masks = mask if mask.ndim == 2 or mask_of_middles else mask[1:-1]
    return _TRIPLE * _pooled(np.reshape(squares, (-1, *stack.shape[1:3])), masks)


def _squared_length(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Map (..., k) to (...), many times faster than a sum over so short an axis."""
    return np.asarray(np.einsum("...k,...k->...", vectors, vectors), np.float32)


def _pooled(values: npt.NDArray[Any], mask: Mask) -> Values:
    """Map (n, H, W) to (n,) means weighted by the mask."""
    masks = np.broadcast_to(mask, values.shape)
    return np.array([_weighted(v, m) for v, m in zip(values, masks, strict=True)], np.float64)


def _weighted(values: npt.NDArray[Any], weights: npt.NDArray[Any]) -> float:
    total = float(weights.sum(dtype=np.float64))
    return float((values * weights).sum(dtype=np.float64)) / total if total > 0 else math.nan


def _ssim(own: Mask, true: Mask, mask: Mask) -> float:
    if not mask.any():
        return math.nan
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    part = tuple(
        slice(max(0, where[0] - _SSIM_REACH_PX), where[-1] + _SSIM_REACH_PX + 1)
        for where in (rows, columns)
    )
    _, each = structural_similarity(  # type: ignore[no-untyped-call]
        own[part],
        true[part],
        data_range=1.0,
        gaussian_weights=True,
        use_sample_covariance=False,
        full=True,
    )
    return _weighted(each, mask[part])


def _gray(picture: Stack, blur_px: float) -> npt.NDArray[np.uint8]:
    luma = 255 * bt601_luma(picture)
    if blur_px > 0:
        luma = _blurred(luma, blur_px)
    return np.asarray(np.clip(np.rint(luma), 0, 255), np.uint8)


def _blurred(picture: npt.NDArray[Any], sigma_px: float) -> npt.NDArray[np.float32]:
    """Blur by a Gaussian whose sigma is in px@512."""
    sigma = max(sigma_px * picture.shape[1] / SIDE_PX, _LEAST_SIGMA_PX)
    return np.asarray(gaussian_blur(picture, sigma), np.float32)


def _detail(stack: Stack) -> npt.NDArray[np.float32]:
    """Return (n, H, W) the luma minus its blur, in 8-bit levels."""
    lumas = 255 * bt601_luma(stack)
    return np.stack([luma - _blurred(luma, _DETAIL_SIGMA_PX) for luma in lumas])


def _local_deviation(detail: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return (n, H, W) the standard deviation in a Gaussian window of `_DETAIL_SIGMA_PX`."""
    squares = []
    for picture in detail:
        middle = _blurred(picture, _DETAIL_SIGMA_PX)
        squares.append(_blurred(picture**2, _DETAIL_SIGMA_PX) - middle**2)
    return np.asarray(np.sqrt(np.maximum(np.stack(squares), 0)), np.float32)


def _visible(forward: FlowField, backward: FlowField) -> npt.NDArray[np.bool_]:
    """Return (H, W) whether the flow forward and back returns to its start (Sundaram et al.)."""
    back = sample(backward, forward)
    closing = _squared_length(forward + back)
    length = _squared_length(forward) + _squared_length(back)
    return np.asarray(closing <= 0.01 * length + 0.5)


def _farneback(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> FlowField:
    empty: Any = None
    return np.asarray(
        cv2.calcOpticalFlowFarneback(first, second, empty, 0.5, 3, 15, 3, 5, 1.2, 0), np.float32
    )


def _face_grid(side: int) -> npt.NDArray[np.float64]:
    """Return (16, 2) points, (x, y), over the middle of the crop."""
    lines = np.linspace(0.3, 0.7, 4) * side - 0.5
    return np.stack(np.meshgrid(lines, lines), axis=-1).reshape(-1, 2)


def _moved_by(field: FlowField, mask: Mask, points: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Map points by the similarity that fits the flow under the mask.

    The fit is iteratively reweighted least squares with Cauchy weights, so that a mouth that opens
    or an eyelid that falls has little weight.
    """
    step = max(1, field.shape[0] // _FIT_STEP)
    field, weight = field[::step, ::step].astype(np.float64), mask[::step, ::step].ravel()
    rows, columns = np.indices(field.shape[:2]) * step
    p = columns.ravel() + 1j * rows.ravel()
    q = p + field[..., 0].ravel() + 1j * field[..., 1].ravel()
    weights = weight.astype(np.float64)
    if not weights.any():
        return np.full(points.shape, np.nan)
    for _ in range(_FIT_ROUNDS):
        p_mean, q_mean = (np.average(z, weights=weights) for z in (p, q))
        spread = np.sum(weights * np.abs(p - p_mean) ** 2)
        factor = np.sum(weights * np.conj(p - p_mean) * (q - q_mean)) / max(spread, 1e-9)
        residual = np.abs(q - q_mean - factor * (p - p_mean))
        weights = weight / (1 + (residual / _FIT_TOLERANCE_PX) ** 2)
    moved = q_mean + factor * (points[:, 0] + 1j * points[:, 1] - p_mean)
    return np.stack([moved.real, moved.imag], axis=-1)

"""Measures of a restored face in an aligned crop: how true, how steady, how sharp it is.

A stack is (n, H, W, 3) float32 RGB in [0, 1]: successive frames of one face in square crops of the
same side. A mask is (H, W) or (n, H, W) float32 in [0, 1] and weights every mean over pixels; where
it is zero everywhere, a mean is nan. Light is in 8-bit levels, lengths are in pixels of a crop with
a side of 512 (px@512), so that figures of crops of different sides compare. O stands for the stack
that is judged, G for the truth, I for what O was made from, M for the mask, Y for luma
(Rec. ITU-R BT.601), f_ts for the flow that leads from frame t to the same points in frame s, and
W_ts X for X_s(x + f_ts(x)).

Measures over time give one number for each frame, pair or triple that they look at, so that long
videos can be measured a few frames at a time; `rms` and `mean` make one number of them.
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
Mask = npt.NDArray[np.float32]
Values = npt.NDArray[np.float64]

SIDE_PX = 512
"""Of the crop in whose pixels lengths are told."""

_LOW_SIGMA_PX = 12.0  # at a side of 512, as are the next two
_DETAIL_SIGMA_PX = 2.0
_GATE_SIGMA_PX = 3.0
# Below this the pixels of a small crop leave no blur to speak of.
_LEAST_SIGMA_PX = 1.0
# Mean local deviation below which a picture has no detail to compare with, as in a fade to black.
_LEAST_DETAIL_LEVELS = 0.05
# Trust in a flow below which a pixel counts for nothing where there is no truth.
_LEAST_TRUST = 0.5
# E_t - (E_t-1 + E_t+1) / 2 has 3/2 of the variance of an E that is new in every frame.
_TRIPLE = 2 / 3
_SSIM_REACH_PX = 8
_FIT_ROUNDS, _FIT_TOLERANCE_PX = 5, 0.25
_FIT_STEP = 32  # a flow is fitted on a grid with so many lines across the crop


@dataclass(frozen=True, slots=True, eq=False)
class Flows:
    """The flow between the neighbours of a stack of n frames."""

    forward: FlowField
    """(n - 1, H, W, 2): f from frame t to t + 1, in pixels (x, y)."""
    backward: FlowField
    """(n - 1, H, W, 2): f from frame t + 1 to t."""

    def __len__(self) -> int:
        return len(self.forward)

    def part(self, start: int, end: int) -> Flows:
        """Those between the frames start .. end - 1."""
        return Flows(self.forward[start : end - 1], self.backward[start : end - 1])


def flows_between(stack: Stack, flow: DenseFlow, *, blur_px: float) -> Flows:
    """By dense inverse search on the luma, blurred by `blur_px` at a side of 512 (0: as it is).

    Noise wants about 1.5 px, a clean truth none.
    """
    grey = [_grey(picture, blur_px) for picture in stack]
    pairs = list(itertools.pairwise(grey))
    shape = (len(pairs), *stack.shape[1:3], 2)
    forward = np.array([flow(a, b) for a, b in pairs], np.float32).reshape(shape)
    backward = np.array([flow(b, a) for a, b in pairs], np.float32).reshape(shape)
    return Flows(forward, backward)


def mean(values: npt.NDArray[Any]) -> float:
    """Over all that are no nan; nan where none is left."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def rms(squares: npt.NDArray[Any]) -> float:
    """The root of the mean of mean squares."""
    return math.sqrt(mean(squares))


def squared_error(output: Stack, truth: Stack) -> npt.NDArray[np.float32]:
    """(..., 3) -> (...), mean over the channels."""
    return _squared_length(output - truth) / np.float32(output.shape[-1])


def psnr_db(output: Stack, truth: Stack, mask: Mask) -> Values:
    """(n,) 10 log10(1 / mse), mse = sum M (O - G)^2 / sum M over pixels and channels.

    inf where not one sample under the mask differs.
    """
    errors = _pooled(squared_error(output, truth), mask)
    with np.errstate(divide="ignore"):
        return np.asarray(-10 * np.log10(errors))


def ssim(output: Stack, truth: Stack, mask: Mask) -> Values:
    """(n,) structural similarity of the luma, mean over the mask.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE
    TIP 13(4), 2004: Gaussian window of sigma 1.5 px, K1 = 0.01, K2 = 0.03.
    """
    masks = np.broadcast_to(mask, output.shape[:3])
    triples = zip(bt601_luma(output), bt601_luma(truth), masks, strict=True)
    return np.array([_ssim(a, b, m) for a, b, m in triples], np.float64)


def worst_gain_db(output: Stack, other: Stack, truth: Stack, mask: Mask) -> float:
    """WORST = min_t [PSNR(O_t) - PSNR(R_t)], R being `other`: a ghost in any frame shows here."""
    own, others = psnr_db(output, truth, mask), psnr_db(other, truth, mask)
    # Where both are the truth itself nothing was gained.
    gain = np.subtract(own, others, out=np.zeros_like(own), where=own != others)
    known = gain[~np.isnan(gain)]
    return float(known.min()) if len(known) else math.nan


def flicker(output: Stack, truth: Stack, flows: Flows, mask: Mask) -> Values:
    """(n - 2,) mean squares of FLK, in squared 8-bit levels; FLK is their `rms`.

    FLK = sqrt(2/3 mean_{t, x in M, c} [E_t - (W_t,t-1 E_t-1 + W_t,t+1 E_t+1) / 2]^2), E = O - G,
    `flows` those of G. This project's own: the warping error of Lai et al. (see `warp_error`) of
    what is wrong rather than of the picture, and with both neighbours. An error that is new in
    every frame counts with its standard deviation, one that stays on the face with nothing.
    """
    return _unsteadiness(255 * (output - truth), flows, mask)


def slow_flicker(output: Stack, truth: Stack, flows: Flows, mask: Mask) -> Values:
    """(n - 2,) mean squares of FLKlo: FLK of the error after a Gaussian of sigma 12 px@512.

    What is left of it are changes of light and colour over whole parts of the face.
    """
    errors = [_blurred(error, _LOW_SIGMA_PX) for error in 255 * (output - truth)]
    return _unsteadiness(np.stack(errors), flows, mask)


def blind_flicker(output: Stack, source: Stack, flows: Flows, mask: Mask) -> Values:
    """(n - 2,) mean squares of FLKb: FLK with O in place of its error, `flows` those of I.

    Pixels are cut where the flow to either neighbour fails its gate: confidence below 1/2, see
    `imaging.optical_flow.confidence`. What truly changes in the face counts too, so only the
    ratio of two results for the same source says something.
    """
    low = [_blurred(255 * bt601_luma(picture), _GATE_SIGMA_PX) for picture in source]
    known = np.broadcast_to(mask, source.shape[:3])[1:-1].copy()
    for t in range(len(known)):
        before = confidence(flows.backward[t], flows.forward[t], low[t + 1], low[t])
        after = confidence(flows.forward[t + 1], flows.backward[t + 1], low[t + 1], low[t + 2])
        known[t] *= (before >= _LEAST_TRUST) & (after >= _LEAST_TRUST)
    return _unsteadiness(255 * output, flows, known, mask_of_middles=True)


def true_detail(output: Stack, truth: Stack, mask: Mask) -> Values:
    """(n, 2) sums over the mask of h(O) h(G) and of h(G)^2, h = Y - Gauss_2px@512 Y.

    DTL is the ratio of their sums over frames, `ratio`: the share of the true detail that is
    there. Unlike the variance of the Laplacian it does not rise with noise or invented texture.
    """
    masks = np.broadcast_to(mask, output.shape[:3])
    own, true = _detail(output), _detail(truth)
    products = np.stack([own * true * masks, true * true * masks], axis=-1)
    return np.asarray(products.sum(axis=(1, 2), dtype=np.float64))


def ratio(sums: Values) -> float:
    """(n, 2) -> the sum of the first over that of the second; nan where that is zero."""
    above, below = sums.sum(axis=0)
    return float(above / below) if below else math.nan


def warp_error(output: Stack, flows: Flows, mask: Mask) -> Values:
    """(n - 1,) Ewarp times 1000, light in [0, 1]; Ewarp is their `mean`.

    Ewarp_t = sum M N (O_t+1(x + f_t,t+1) - O_t)^2 / sum M N, mean over channels (Lai et al.,
    "Learning blind video temporal consistency", ECCV 2018). N = 0 where the way there and back
    does not close: |f + b(x + f)|^2 > 0.01 (|f|^2 + |b(x + f)|^2) + 0.5 (Sundaram et al., ECCV
    2010). Their second test, for motion boundaries, is left out: in an aligned crop flow is smaller
    than its own noise. The truth's Ewarp is not 0 either, for faces change.
    """
    masks = np.broadcast_to(mask, output.shape[:3])
    terms = []
    for t in range(len(flows)):
        seen = masks[t] * _visible(flows.forward[t], flows.backward[t])
        error = squared_error(sample(output[t + 1], flows.forward[t]), output[t])
        terms.append(1000 * _weighted(error, seen))
    return np.array(terms, np.float64)


def motion_error_px(output: Stack, truth: Stack, mask: Mask) -> Values:
    """(n - 1,) tOF in px@512; their `mean` is tOF: how far apart the motions of O and G are.

    Mean over the mask of |OF(G_t-1, G_t) - OF(O_t-1, O_t)|, OF by Farneback with the numbers of
    TecoGAN's metrics.py (Chu et al., ACM TOG 39(4), 2020): pyramid scale 0.5, 3 levels, window 15,
    3 iterations, neighbourhood 5, sigma 1.2.
    """
    masks = np.broadcast_to(mask, output.shape[:3])
    own, true = ([_grey(picture, 0) for picture in stack] for stack in (output, truth))
    scale = SIDE_PX / output.shape[2]
    terms = []
    for t in range(1, len(output)):
        apart = _farneback(true[t - 1], true[t]) - _farneback(own[t - 1], own[t])
        terms.append(scale * _weighted(np.sqrt(_squared_length(apart)), masks[t]))
    return np.array(terms, np.float64)


def blink_psnr_db(output: Stack, truth: Stack, frames: npt.NDArray[np.bool_], eyes: Mask) -> float:
    """BLINK: mean PSNR over the mask of the eyes in the frames where (n,) `frames` is True."""
    return mean(psnr_db(output, truth, eyes)[frames])


def sharpness(output: Stack, other: Stack, mask: Mask) -> Values:
    """(n,) SHP; its `mean` is SHP: mean over the mask of the local deviation of h(O) over h(R)'s.

    h as in `true_detail`, R being `other`; the ratio is that of the means, since a single pixel's
    may be of nothing; nan where R is flat. 1: nothing was lost. It rises with noise as well.
    """
    below = _pooled(_local_deviation(_detail(other)), mask)
    above = _pooled(_local_deviation(_detail(output)), mask)
    share = np.full_like(above, np.nan)
    return np.asarray(np.divide(above, below, out=share, where=below >= _LEAST_DETAIL_LEVELS))


def wobble_px(output: Flows, source: Flows, mask: Mask) -> Values:
    """(n - 3,) mean squares of GEO, in squared px@512; GEO is their `rms`.

    d_t = f_t,t+1 of O less that of I; GEO = rms over M of sqrt(2/3) |d_t - (d_t-1 + d_t+1) / 2|.
    How the face is bent from frame to frame in ways in which the source is not. Flow has noise,
    so compare results for the same source.
    """
    apart = output.forward - source.forward
    bend = apart[1:-1] - (apart[:-2] + apart[2:]) / 2
    masks = mask if mask.ndim == 2 else mask[1:-2]
    scale = SIDE_PX / apart.shape[2]
    squares = scale**2 * _squared_length(bend)
    return _TRIPLE * _pooled(squares, masks)


def jitter_px(flows: Flows, mask: Mask) -> Values:
    """(n - 2,) mean squares of JIT, in squared px@512 per frame^2; JIT is their `rms`.

    The second difference in time of the places of a 4 x 4 grid of points that move with the face
    as a whole through its aligned crop: s_t,t+1(p) - p - (s_t-1,t(p) - p), where the similarity s
    is fitted to the flow, robustly. How much the face trembles in its crop.
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
    """(n - 2,) 2/3 of the mean square of what each frame differs by from its warped neighbours."""
    squares = []
    for t in range(1, len(stack) - 1):
        before = sample(stack[t - 1], flows.backward[t - 1])
        after = sample(stack[t + 1], flows.forward[t])
        squares.append(squared_error(stack[t], (before + after) / 2))
    masks = mask if mask.ndim == 2 or mask_of_middles else mask[1:-1]
    return _TRIPLE * _pooled(np.reshape(squares, (-1, *stack.shape[1:3])), masks)


def _squared_length(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """(..., k) -> (...); many times quicker than a sum over so short an axis."""
    return np.asarray(np.einsum("...k,...k->...", vectors, vectors), np.float32)


def _pooled(values: npt.NDArray[Any], mask: Mask) -> Values:
    """(n, H, W) -> (n,) means weighted by the mask."""
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


def _grey(picture: Stack, blur_px: float) -> npt.NDArray[np.uint8]:
    luma = 255 * bt601_luma(picture)
    if blur_px > 0:
        luma = _blurred(luma, blur_px)
    return np.asarray(np.clip(np.rint(luma), 0, 255), np.uint8)


def _blurred(picture: npt.NDArray[Any], sigma_px: float) -> npt.NDArray[np.float32]:
    """By a Gaussian of that sigma at a side of 512."""
    sigma = max(sigma_px * picture.shape[1] / SIDE_PX, _LEAST_SIGMA_PX)
    return np.asarray(gaussian_blur(picture, sigma), np.float32)


def _detail(stack: Stack) -> npt.NDArray[np.float32]:
    """(n, H, W) what a blur takes from the luma, in 8-bit levels."""
    lumas = 255 * bt601_luma(stack)
    return np.stack([luma - _blurred(luma, _DETAIL_SIGMA_PX) for luma in lumas])


def _local_deviation(detail: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(n, H, W) standard deviation in a Gaussian window as wide as that of the detail."""
    squares = []
    for picture in detail:
        middle = _blurred(picture, _DETAIL_SIGMA_PX)
        squares.append(_blurred(picture**2, _DETAIL_SIGMA_PX) - middle**2)
    return np.asarray(np.sqrt(np.maximum(np.stack(squares), 0)), np.float32)


def _visible(forward: FlowField, backward: FlowField) -> npt.NDArray[np.bool_]:
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
    """(16, 2) points over the middle of the crop."""
    lines = np.linspace(0.3, 0.7, 4) * side - 0.5
    return np.stack(np.meshgrid(lines, lines), axis=-1).reshape(-1, 2)


def _moved_by(field: FlowField, mask: Mask, points: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Points through the similarity that fits the flow under the mask, by iterated reweighting.

    Cauchy weights: a mouth that opens or a lid that falls counts little.
    """
    step = max(1, field.shape[0] // _FIT_STEP)
    field, weight = field[::step, ::step].astype(np.float64), mask[::step, ::step].ravel()
    rows, columns = np.indices(field.shape[:2]) * step
    p = columns.ravel() + 1j * rows.ravel()
    q = p + field[..., 0].ravel() + 1j * field[..., 1].ravel()
    doubt = _FIT_TOLERANCE_PX
    weights = weight.astype(np.float64)
    if not weights.any():
        return np.full(points.shape, np.nan)
    for _ in range(_FIT_ROUNDS):
        p_mean, q_mean = (np.average(z, weights=weights) for z in (p, q))
        spread = np.sum(weights * np.abs(p - p_mean) ** 2)
        factor = np.sum(weights * np.conj(p - p_mean) * (q - q_mean)) / max(spread, 1e-9)
        off = np.abs(q - q_mean - factor * (p - p_mean))
        weights = weight / (1 + (off / doubt) ** 2)
    moved = q_mean + factor * (points[:, 0] + 1j * points[:, 1] - p_mean)
    return np.stack([moved.real, moved.imag], axis=-1)

"""One latent code for a while: the codes of a track are averaged over the frames around each.

GPEN's latent code describes a face as a whole, such as its age and its complexion. The details of a
frame come from the encoder's features. So the code of a frame may be that of its neighbors, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from itertools import chain, repeat

import torch

from vidrestore.common.settings import Restore
from vidrestore.models.restorers import LatentRestorer, Restorer

REACH_FRAMES = 8
"""The number of frames before and after a frame whose codes enter its own."""

# Codes that are further from the median than this many typical distances count less (Huber 1964).
_FAR = 1.5


def robust_mean(codes: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Average codes, of which some may be far from the others.

    The weight of a code falls with the inverse of its distance from the median of each component,
    where that distance is more than 1.5 times the median of all distances (Huber 1964,
    doi:10.1214/aoms/1177703732, in one step).

    Args:
        codes: (n, D) codes.
        weights: (n,) weights above 0.

    Returns:
        (D,) float64; the code itself where all are equal.
    """
    codes, weights = codes.double(), weights.double()
    distances = (codes - codes.median(dim=0).values).norm(dim=1)
    near = _FAR * distances.median()
    weights = weights * torch.where(distances > near, near / distances, 1.0)
    return (weights[:, None] * codes).sum(dim=0) / weights.sum()


def restored_alone(network: Restorer, windows: torch.Tensor, how: Restore) -> torch.Tensor:
    """Restore faces by themselves with all that a run computes for each, to measure its time.

    Args:
        network: The network.
        windows: As for `Restorer`.
        how: The settings; `latent` is used.

    Returns:
        As of `Restorer`; with `how.latent` "shot" each face gets its own latent code.
    """
    if how.latent == "frame" or not isinstance(network, LatentRestorer):
        return network(windows)
    return network.with_codes(windows, network.codes(windows))


def drawn(frames: Iterator[Mapping[int, torch.Tensor]]) -> Iterator[dict[int, torch.Tensor]]:
    """Average the code of each track over the frames around each frame.

    The weights of the codes fall with their distance in frames, to zero at `REACH_FRAMES` + 1, so
    that no code enters or leaves the mean suddenly. The frames of a track need not be without gaps.

    Memory: the codes of 2 * REACH_FRAMES + 1 frames.

    Args:
        frames: For each frame, number of a track -> (D,) code.

    Yields:
        For each frame, number of the track -> (D,) code, of the same type; `REACH_FRAMES` frames
        later.
    """
    held: deque[Mapping[int, torch.Tensor]] = deque()
    at = 0  # the position in `held` of the frame whose codes are replaced next
    for frame in chain(frames, repeat(None, REACH_FRAMES)):
        if frame is not None:
            held.append(frame)
        if at < len(held) and (frame is None or at + REACH_FRAMES < len(held)):
            yield {track: _mean_around(held, at, track) for track in held[at]}
            at += 1
        while at > REACH_FRAMES:
            held.popleft()
            at -= 1


def _mean_around(held: deque[Mapping[int, torch.Tensor]], at: int, track: int) -> torch.Tensor:
    """Return the mean code of a track around frame `at` of `held`."""
    first, end = max(0, at - REACH_FRAMES), min(len(held), at + REACH_FRAMES + 1)
    near = [place for place in range(first, end) if track in held[place]]
    weights = torch.tensor([1 - abs(place - at) / (REACH_FRAMES + 1) for place in near])
    codes = torch.stack([held[place][track] for place in near])
    return robust_mean(codes, weights.to(codes.device)).to(codes.dtype)

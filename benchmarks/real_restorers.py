"""What does the deflicker make of the recorded outputs of trained restorers?

    python benchmarks/real_restorers.py [--side 512] [--frames 48] [--windows N] [--only NAME ...]

The recordings lie in real-restorers in the folder that VIDRESTORE_SHARED names, ../shared by
default. Of each, the first 96 frames of the largest face are cut out of the source and of the
output, in windows of --frames, and the deflicker gets them as source and restored crops. There is
no truth, so that each measure compares the deflickered crops with the network's own:

flicker   FLKb in 8-bit levels, by the motion of the source; true changes of the face count, too
detail    SHP, the share of the local contrast that is left
bending   GEO, by how much the face bends from frame to frame unlike the source, in px at 512
mouth     rms in 8-bit levels, in the fifth of the frames in which the mouth moves fastest
both ways rms in 8-bit levels of the whole crops against a deflicker that estimates all flow of
          restored crops in both directions, instead of refining the inverse of one
CPU       of the deflicker, for a face
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple
from unittest.mock import patch

import cv2
import numpy as np
import torch
from key_frames import RECORDED, Window, clip_of, mouth_error, recorded

from vidrestore.common.settings import Deflicker
from vidrestore.imaging.optical_flow import DenseFlow
from vidrestore.restoration.temporal import deflicker
from vidrestore.restoration.track_flow import TrackFlow
from vidrestore.review import metrics

from helpers.simulation import Stack, face_frames, face_mask, stack  # isort: skip

MOST_APART_LEVELS = 0.2


class Row(NamedTuple):
    """The measures of one window."""

    frames: int
    flicker_before: float
    flicker: float
    detail: float
    bending_before_px: float
    bending_px: float
    mouth: float
    both_ways: float
    cpu_ms: float


def measured(window: Window) -> Row:
    source, results, side = window.truth, window.results, window.truth.shape[1]
    frames, mask = face_frames(source, results), face_mask(side)
    start = time.process_time()
    output = stack(deflicker(iter(frames), Deflicker()))
    cpu = time.process_time() - start
    with estimates_both_ways():
        other = stack(deflicker(iter(frames), Deflicker()))
    flows = clip_of(source).flows
    weights = metrics.confident_mask(source, flows, mask)

    def flick(crops: Stack) -> float:
        return metrics.rms(metrics.blind_flicker(crops, source, flows, mask, weights=weights))

    def bending(crops: Stack) -> float:
        own = metrics.flows_between(crops, DenseFlow(), blur_px=0)
        return metrics.rms(metrics.wobble_px(own, flows, mask))

    return Row(
        len(source), flick(results), flick(output),
        metrics.mean(metrics.sharpness(output, results, mask)),
        bending(results), bending(output), mouth_error(window, output),
        255 * float(np.sqrt(np.mean((output - other) ** 2))), 1000 * cpu / len(source),
    )  # fmt: skip


@contextmanager
def estimates_both_ways() -> Iterator[None]:
    def estimated(flows: TrackFlow, first: int, second: int, flow: object) -> object:
        return flows._estimated(first, second)

    with patch.object(TrackFlow, "_refined", estimated):
        yield


def line(name: str, row: Row) -> str:
    change = row.flicker / row.flicker_before - 1
    return (
        f"{name:14}{row.frames:7}{row.flicker_before:9.2f}{row.flicker:8.2f}{change:+8.0%}"
        f"{row.detail:8.3f}{row.bending_before_px:9.2f}{row.bending_px:8.2f}"
        f"{row.mouth:8.2f}{row.both_ways:11.3f}{row.cpu_ms:8.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=512, help="of the crops in pixels")
    parser.add_argument("--frames", type=int, default=48, help="in a window")
    parser.add_argument("--windows", type=int, help="the first ones alone; default: all")
    parser.add_argument("--only", nargs="+", choices=list(RECORDED), default=list(RECORDED))
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    print(f"{options.side} px; both ways: at most {MOST_APART_LEVELS}")
    print(f"{'recording':14}{'frames':>7}{'flicker':>9}{'now':>8}{'':8}{'detail':>8}"
          f"{'bending':>9}{'now':>8}{'mouth':>8}{'both ways':>11}{'CPU ms':>8}")  # fmt: skip
    for name in options.only:
        windows = recorded(name, options.frames, options.side)
        for window in islice(windows, options.windows):
            print(line(window.name, measured(window)), flush=True)


if __name__ == "__main__":
    main()

"""How much detail survives the way from a network's output by the work size to the picture?

    python benchmarks/work_size.py [--pictures FOLDER]

Faces that GPEN-512 restored (the right halves of FOLDER/solvay/face*.jpg; FOLDER is
real-restorers in the folder that VIDRESTORE_SHARED names, ../shared by default) are reduced to
each work size and from there to a crop side in the picture, as the program does. The ideal is the
output reduced once, by averages over the pixels of the picture ("area") or by a bicubic filter of
the width of these pixels ("cubic"). Detail is luma less its blur of 2 px. Its share is the root of
the ratio of its energies; "agrees" is the share of the ideal's detail that is in its place.

The cost is the processor time of deflickering, guarding and pasting a face with its work size,
against the next power of two.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import paste as paste_benchmark
import torch
from rich.console import Console
from rich.table import Table

from vidrestore.analysis.tracks import work_size
from vidrestore.common.settings import Deflicker, Grain, Guard, Paste
from vidrestore.imaging.luma import bt601_luma
from vidrestore.imaging.resample import resample, squared
from vidrestore.restoration.compositing.paste import paste
from vidrestore.restoration.guard import SimilarityJudge, guard
from vidrestore.restoration.statistics import RestorationStats
from vidrestore.restoration.temporal import deflicker

SIDES = (60, 75, 90, 105, 120, 128, 150, 180, 200, 230, 250, 300, 340, 400, 450, 500)
NETWORK_PX, SMALLEST_PX, FINER = 512, 64, 4
TARGET = 0.985
# Only the face is measured: this share of the crop on every side is left out.
EDGE, BLUR_PX = 0.2, 2.0
ROUNDS = 4


def next_power(side: int) -> int:
    return 1 << (side - 1).bit_length()


RULES = {"powers of two": next_power, "work sizes": work_size, "the network's": lambda side: 512}


def pictures(folder: Path) -> list[torch.Tensor]:
    found = []
    for path in sorted((folder / "solvay").glob("face*.jpg"))[::4]:
        output = cv2.imread(str(path))[:, NETWORK_PX:, ::-1]
        found.append(torch.from_numpy(output.copy()).permute(2, 0, 1).float() / 255)
    return found


def ideal(output: torch.Tensor, side: int, shift: float, kind: str) -> np.ndarray:
    """(side, side, 3): the output reduced once; pixel i of the result is at i + `shift`."""
    fine = cv2.resize(
        output.permute(1, 2, 0).numpy(), None, fx=FINER, fy=FINER, interpolation=cv2.INTER_LANCZOS4
    )
    step = len(fine) / side
    middles = (np.arange(side)[:, None] + shift + 0.5) * step - 0.5
    apart = np.abs(np.arange(len(fine)) - middles)
    if kind == "area":
        weights = np.clip(step / 2 + 0.5 - apart, 0, 1)
    else:
        x = apart / step
        near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    rows = (weights @ fine.reshape(len(fine), -1)).reshape(side, -1, 3)
    return np.einsum("jk,ikc->ijc", weights, rows, optimize=True)


def in_picture(output: torch.Tensor, side: int, shift: float, work_px: int) -> np.ndarray:
    """(side, side, 3): the same, by way of a crop of the work size."""
    step = work_px / side
    start = (shift + 0.5) * step - 0.5
    place = np.array([[step, 0, start], [0, step, start]])
    return resample(squared(output, work_px), place, side, side).permute(1, 2, 0).numpy()


def detail(picture: np.ndarray) -> np.ndarray:
    luma = bt601_luma(picture)
    edge = round(EDGE * len(luma))
    return (luma - cv2.GaussianBlur(luma, (0, 0), BLUR_PX))[edge:-edge, edge:-edge]


def shares(outputs: list[torch.Tensor]) -> Table:
    table = Table(title=f"share of the detail / agrees; target {TARGET}")
    table.add_column("crop side")
    for name in RULES:
        for kind in ("area", "cubic"):
            table.add_column(f"{name}, {kind}", justify="right")
    lowest = dict.fromkeys(((name, kind) for name in RULES for kind in ("area", "cubic")), 9.0)
    for side in SIDES:
        row = []
        truths = {
            kind: [detail(ideal(o, side, 0.37 * i % 1 - 0.5, kind)) for i, o in enumerate(outputs)]
            for kind in ("area", "cubic")
        }
        for name, rule in RULES.items():
            work_px = min(max(rule(side), SMALLEST_PX), NETWORK_PX)
            made = [
                detail(in_picture(o, side, 0.37 * i % 1 - 0.5, work_px))
                for i, o in enumerate(outputs)
            ]
            for kind, true in truths.items():
                pairs = list(zip(made, true, strict=True))
                share = float(np.mean([(a * a).sum() / (b * b).sum() for a, b in pairs])) ** 0.5
                agrees = float(np.mean([(a * b).sum() / (b * b).sum() for a, b in pairs]))
                lowest[name, kind] = min(lowest[name, kind], share)
                row.append(f"{share:.3f} / {agrees:.3f}")
        table.add_row(str(side), *row)
    table.add_row("lowest", *(f"{least:.3f}" for least in lowest.values()), style="bold")
    return table


def cost() -> Table:
    table = Table(title="CPU ms per face of deflickering, guarding and pasting")
    for heading in ("crop side", "power of two", "ms", "work size", "ms", "ratio"):
        table.add_column(heading, justify="right")
    for side in SIDES[::2]:
        row, costs = [str(side)], []
        for rule in (next_power, work_size):
            work_px = max(rule(side), SMALLEST_PX)
            make, track = paste_benchmark.scene(side, work_px, 1.0)
            taken = []
            for _ in range(ROUNDS):
                frames = make()
                start = time.process_time()
                tally = RestorationStats()
                steady = deflicker(iter(frames), Deflicker())
                checked = guard(steady, SimilarityJudge(), tally, Guard(), tracks=[track])
                info = paste_benchmark.INFO
                for _ in paste(checked, info, tally, Paste(), Grain(), tracks=[track]):
                    pass
                taken.append(1e3 * (time.process_time() - start) / len(frames))
            costs.append(min(taken))
            row += [str(work_px), f"{costs[-1]:.0f}"]
        table.add_row(*row, f"{costs[1] / costs[0]:.2f}")
    return table


def main() -> None:
    shared = Path(os.environ.get("VIDRESTORE_SHARED") or Path(__file__).parents[2] / "shared")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=Path, default=shared / "real-restorers")
    outputs = pictures(parser.parse_args().pictures)
    console = Console(width=120)
    if outputs:
        console.print(shares(outputs))
    else:
        print("the pictures are missing, so no detail is measured", file=sys.stderr)
    console.print(cost())


if __name__ == "__main__":
    main()

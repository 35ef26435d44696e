"""What does smoothing over time gain, and what does it cost? The table, its targets beside it.

Gains are against the same simulated restorer frame by frame, as tests/simulation.py makes and
scores it. Real clips are cut out of the folder that VIDRESTORE_SHARED names, ../shared by default;
without it they are left out, which is said.

    python benchmarks/temporal.py --side 512 --frames 24 --threads 2

What it costs beside an earlier commit, which lies in a worktree, in turns with it:

    git worktree add --detach ../before f559b41
    python benchmarks/temporal.py --cost-only --threads 1 --before ../before
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from vidrestore.analysis.pipeline import analyze_video
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Deflicker
from vidrestore.restoration.faces import FaceFrame
from vidrestore.restoration.temporal import REACH_FRAMES, deflicker

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))  # so that PYTHONPATH can name another tree

from helpers.simulation import (  # noqa: E402
    STABLE,
    WOBBLY,
    X4,
    X8,
    X16,
    Boil,
    Clip,
    Score,
    course,
    face_frames,
    hand,
    lit,
    real,
    restored,
    score,
    stack,
    synthetic,
    worn,
)

# Of each, deflicker.detail and whether it looks at frames before alone.
METHODS = {
    "two-sided": (0.0, False),
    "detail 0.5": (0.5, False),
    "detail 1": (1.0, False),
    "causal": (0.0, True),
}
# Of dPSNR, FLK, DTL ratio, Ewarp, WORST and BLINK, for the two-sided form.
SYNTHETIC = ("+2.0", "-55 %", "0.95", "-55 %", "0", "+0.5")
BAD = ("+1.5", "-40 %", "0.95", "", "", "")
STILL = ("0", "", "0.95", "", "", "")
TRACELESS = ("", "", "", "", "0", "")
REAL = ("", "-45 %", "0.93", "", "0", "")
REAL_CLIPS = {
    "lp_s18.mp4": (60,),
    "vrt_1.mp4": (30,),
    "hamilton_short.mp4": (84, 112, 150, 184),
}
TARGET_MS, TARGET_PX = 90, 512
COST_PX = (512, 1024)
TURNS = 3
WIDTH = 112

Case = tuple[str, Clip, np.ndarray, np.ndarray, tuple[str, ...]]


def cases(n: int, side: int, seeds: int) -> Iterator[Case]:
    """(name, truth, source, restored frame by frame, targets)."""

    def case(name, clip, targets, wear=X4, boil=None, seed=0) -> Case:
        result = restored(clip, boil or Boil(), seed)
        return name, clip, worn(clip.truth, wear, seed), result, targets

    for seed in range(seeds):
        yield case(f"x4, seed {seed}", synthetic(n, side, seed), SYNTHETIC, seed=seed)
    plain = synthetic(n, side, 0)
    yield case("x8", plain, BAD, wear=X8)
    yield case("x16", plain, BAD, wear=X16)
    yield case("a stable restorer", plain, STILL, boil=STABLE)
    yield case("no wobble", plain, STILL, boil=Boil(wobble_px=0))
    yield case("wobble of 1.2 px", plain, SYNTHETIC, boil=WOBBLY)
    yield case("wobble of 2.5 px", plain, TRACELESS, boil=Boil(wobble_px=2.5))
    yield case("texture x 1.7", plain, TRACELESS, boil=Boil(texture=10.2))
    yield case("a flash", lit(plain, np.where(np.arange(n) == n // 2, 1.8, 1.0)), TRACELESS)
    gains = 1 + 0.05 * np.random.default_rng(5).standard_normal(n)
    yield case("light that pumps", lit(plain, gains), TRACELESS)
    yield case("a hand", hand(plain, range(n // 3, 2 * n // 3), 0), TRACELESS)
    turn = course(n, 0, turn_frames=4, turn_px=60.0)
    yield case("a fast turn", synthetic(n, side, 0, turn), TRACELESS)
    for name, clip in real_clips(n, side):
        yield case(name, clip, REAL)


def real_clips(n: int, side: int) -> Iterator[tuple[str, Clip]]:
    shared = Path(os.environ.get("VIDRESTORE_SHARED") or ROOT.parent / "shared")
    if not (shared / "clips").is_dir():
        print(f"{shared} holds no clips, so none is used", file=sys.stderr)
        return
    options = {
        "weights.folder": shared / "models",
        "weights.offline": True,
        "detect.detector": "yunet",
        "detect.remember": False,
        "restore.restorer": "fusion",
    }
    settings = load_settings(options=options)
    for name, firsts in REAL_CLIPS.items():
        path = shared / "clips" / name
        analysis = analyze_video(path, settings)
        for first in firsts:
            yield f"{name} {first}", real(path, analysis, first, n, side)


def cells(found: Score) -> list[str]:
    return [
        f"{found.psnr_db:+.2f}",
        f"{100 * found.flicker - 100:+.0f} %",
        f"{100 * found.slow_flicker - 100:+.0f} %",
        f"{found.detail:.3f}",
        f"{100 * found.warp_error - 100:+.0f} %",
        f"{found.worst_db:+.2f}",
        "" if np.isnan(found.blink_db) else f"{found.blink_db:+.2f}",
    ]


def quality(n: int, side: int, seeds: int, methods: list[str]) -> Table:
    table = Table(title=f"{side} px, {n} frames, against the restorer frame by frame")
    for heading in ("case", "method", "dPSNR dB", "FLK", "FLKlo", "DTL ratio", "Ewarp",
                    "WORST dB", "BLINK dB"):  # fmt: skip
        table.add_column(heading, justify="left" if heading in ("case", "method") else "right")
    for name, clip, source, result, targets in cases(n, side, seeds):
        for method in methods:
            frames = iter(face_frames(source, result))
            output = stack(steadied(frames, method))
            table.add_row(name, method, *cells(score(output, result, clip)))
        psnr, flk, *others = targets
        table.add_row("", "target", psnr, flk, "", *others, style="dim", end_section=True)
    return table


def steadied(frames: Iterator[FaceFrame], method: str) -> Iterator[FaceFrame]:
    detail, causal = METHODS[method]
    return deflicker(frames, Deflicker(amount=1.0, detail=detail), causal=causal)


def cost(side: int, rounds: int) -> Table:
    """Seconds of the stage alone, on the second and later frames of a track."""
    clip = synthetic(12, side, 0)
    frames = face_frames(worn(clip.truth, X4, 0), restored(clip, Boil(), 0))
    title = f"{side} px, {torch.get_num_threads()} threads, reach {REACH_FRAMES} frames"
    table = Table(title=title)
    for heading in ("method", "wall ms per face", "CPU ms per face", "target"):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for method in METHODS:
        taken = []
        for _ in range(rounds):
            wall, cpu = time.perf_counter(), time.process_time()
            count = sum(1 for _ in steadied(iter(frames), method))
            spent = time.perf_counter() - wall, time.process_time() - cpu
            taken.append([1000 * seconds / count for seconds in spent])
        walls, cpus = zip(*taken, strict=True)
        target = f"{TARGET_MS}" if side == TARGET_PX else ""
        medians = [f"{statistics.median(each):.0f}" for each in (walls, cpus)]
        table.add_row(method, *medians, target)
    return table


def own_cost(side: int, rounds: int) -> float:
    """CPU ms per face with the default settings: the median of some rounds."""
    clip = synthetic(12, side, 0)
    frames = face_frames(worn(clip.truth, X4, 0), restored(clip, Boil(), 0))
    taken = []
    for _ in range(rounds):
        cpu = time.process_time()
        count = sum(1 for _ in deflicker(iter(frames), Deflicker()))
        taken.append(1000 * (time.process_time() - cpu) / count)
    return statistics.median(taken)


def against(before: Path, options: argparse.Namespace) -> Table:
    """The cost here and in another tree, measured in turns; of each the median."""

    def measured(tree: Path, side: int) -> float:
        rounds, threads = str(options.rounds), str(options.threads)
        command = [sys.executable, __file__, "--cost-of", str(side), "--rounds", rounds,
                   "--threads", threads]  # fmt: skip
        paths = os.pathsep.join(map(str, (tree.resolve(), ROOT / "tests")))
        env = os.environ | {"PYTHONPATH": paths}
        return float(subprocess.run(command, env=env, check=True, capture_output=True).stdout)

    table = Table(title=f"CPU ms per face, {options.threads} threads, against {before}")
    for heading in ("side", "before", "now", "before / now"):
        table.add_column(heading, justify="right")
    for side in COST_PX:
        pairs = [(measured(before, side), measured(ROOT, side)) for _ in range(TURNS)]
        then, now = (statistics.median(each) for each in zip(*pairs, strict=True))
        table.add_row(str(side), f"{then:.0f}", f"{now:.0f}", f"{then / now:.1f}")
    return table


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=256, help="of the crops that are scored")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--cost-only", action="store_true")
    parser.add_argument("--before", type=Path, help="worktree of the commit to compare the cost to")
    parser.add_argument("--cost-of", type=int, help="print only the CPU ms per face of this side")
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    if options.cost_of:
        print(own_cost(options.cost_of, options.rounds))
        return
    console = Console(width=WIDTH)
    console.print(cost(TARGET_PX, options.rounds))
    if options.before:
        console.print(against(options.before, options))
    if not options.cost_only:
        console.print(quality(options.frames, options.side, options.seeds, options.methods))


if __name__ == "__main__":
    main()

"""What several workers gain: measured here, and by simulation for a two-hour film.

    python benchmarks/cluster.py [CLIP] [FRAMES] [ROUNDS]

The first table: frames per second of the rendering alone, from the first frame that is told to the
last, so that the start of Ray and of the first worker stands apart; the ways take turns. The
second: a film of 172,800 frames whose segments are dealt out in order to the first worker that is
free, with the times of the first table; what no worker shortens is pass one, the join with the
remux, and the check of the finished file.
"""

from __future__ import annotations

import heapq
import statistics
import sys
import tempfile
import time
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from vidrestore.analysis.pipeline import analyze_video
from vidrestore.api import restore_video
from vidrestore.common.events import Event, Progress
from vidrestore.common.profiles import load_settings
from vidrestore.jobs import ray_cluster
from vidrestore.media.decode import TimeRange
from vidrestore.restoration.segments import context, plan_segments

FILM_FRAMES, FILM_RATE, SEGMENT_FRAMES = 172_800, 24, 300
WORKERS = (1, 8, 64, 512)
# Shots of films: lognormal, of 4 seconds at the median and 6 on average.
SHOT_MEDIAN_SECONDS, SHOT_SIGMA = 4.0, 0.9
REACH_FRAMES = 12
GPEN_2048_SECONDS = 2.0
SHARED = Path(__file__).parents[2] / "shared"


def main() -> None:
    clip = Path(sys.argv[1]) if len(sys.argv) > 1 else SHARED / "clips" / "lp_s18.mp4"
    frames = int(sys.argv[2]) if len(sys.argv) > 2 else 192
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    rates: dict[str, list[float]] = {"no workers": [], "1 worker": [], "2 workers": []}
    times: list[dict[str, float]] = []
    span = TimeRange(Fraction(0), Fraction(frames, 30))
    settings = load_settings(
        options={
            "restore.restorer": "fusion", "detect.detector": "haar", "encode.preset": "ultrafast",
            "job.segment_frames": max(48, frames // 4), "detect.remember": False,
        }
    )  # fmt: skip
    started = time.monotonic()
    analysis = analyze_video(clip, settings, span=span)
    analyze_seconds = (time.monotonic() - started) / analysis.frame_count

    def measure(name: str, crew: Any) -> None:
        steps: list[tuple[float, int]] = []

        def note(event: Event) -> None:
            if isinstance(event, Progress) and event.stage == "restore":
                steps.append((time.monotonic(), event.frame))

        with tempfile.TemporaryDirectory() as folder:
            summary = restore_video(
                clip, Path(folder) / "out.mp4", settings, span=span, analysis=analysis,
                workers=crew, on_event=note,
            )  # fmt: skip
        (first, before), (last, after) = steps[0], steps[-1]
        rates[name].append((after - before) / (last - first))
        if crew is None:
            joined = summary.seconds["restore"] - (last - first)
            times.append({"render": 1 / rates[name][-1], "join": joined / analysis.frame_count,
                          "check": summary.seconds["check"] / analysis.frame_count})  # fmt: skip

    for _ in range(rounds):
        measure("no workers", None)
        for count in (1, 2):
            with ray_cluster.local(count) as crew:
                measure(f"{count} worker{'s' if count > 1 else ''}", crew)
    faces = analysis.face_count
    print(f"{clip.name}, {analysis.frame_count} frames, {faces} faces, fusion, {rounds} rounds")
    for name, found in rates.items():
        ratio = statistics.median(found) / statistics.median(rates["no workers"])
        print(f"{name:12} {statistics.median(found):6.2f} frames per second   {ratio:4.2f}x")
    cost = {name: statistics.median(t[name] for t in times) for name in times[0]}
    cost["analyze"] = analyze_seconds
    film("fusion, measured above", cost)
    film("gpen-2048 on processors", cost | {"render": cost["render"] + GPEN_2048_SECONDS})


def film(title: str, cost: dict[str, float]) -> None:
    """`cost` in seconds for a frame."""
    shots = film_shots()
    analysis: Any = SimpleNamespace(shots=shots, frame_count=FILM_FRAMES, one_thread=False)
    segments = plan_segments(analysis, most_frames=SEGMENT_FRAMES)
    spans = [context(segment, analysis, REACH_FRAMES) for segment in segments]
    work = [(end - first) * cost["render"] for first, end in spans]
    serial = {name: FILM_FRAMES * cost[name] for name in ("analyze", "join", "check")}
    alone = sum(work)
    twice = sum(end - first for first, end in spans) / FILM_FRAMES - 1
    minutes = ", ".join(f"{name} {seconds / 60:.0f} min" for name, seconds in serial.items())
    print(
        f"\n{title}: two hours, {len(segments)} segments, {twice:.1%} of the frames rendered twice"
    )
    print(f"serial: {minutes}")
    print("workers   rendering   speed-up   whole job   speed-up   what limits it")
    for count in WORKERS:
        seconds = makespan(work, count)
        whole, before = seconds + sum(serial.values()), alone + sum(serial.values())
        print(
            f"{count:7}   {seconds / 3600:7.2f} h {alone / seconds:9.1f}x   "
            f"{whole / 3600:7.2f} h {before / whole:9.1f}x   {limit(work, serial, count, seconds)}"
        )


def film_shots() -> tuple[tuple[int, int], ...]:
    random = np.random.default_rng(24)
    lengths = random.lognormal(np.log(SHOT_MEDIAN_SECONDS * FILM_RATE), SHOT_SIGMA, 5000)
    ends = accumulate(np.maximum(lengths, 12).astype(int).tolist())
    edges = [0, *(end for end in ends if end < FILM_FRAMES - 12), FILM_FRAMES]
    return tuple(pairwise(edges))


def makespan(work: list[float], count: int) -> float:
    """Until the last worker is done, the segments dealt out in order."""
    free = [0.0] * count
    for seconds in work:
        heapq.heappush(free, heapq.heappop(free) + seconds)
    return max(free)


def limit(work: list[float], serial: dict[str, float], count: int, seconds: float) -> str:
    share = sum(serial.values()) / (sum(serial.values()) + seconds)
    name = max(serial, key=lambda name: serial[name])
    tail = 1 - sum(work) / count / seconds
    return (
        f"{share:.0%} of the time is serial, most of it {name}; workers idle {tail:.0%} "
        f"(at most {sum(work) / max(work):.0f}x)"
    )


if __name__ == "__main__":
    main()

"""Does the pipeline keep the machine busy, and what does a longer video or another face cost?

    python benchmarks/pipeline.py [CLIP] [FRAMES] [SECONDS ...]

1. Pass two of CLIP (lp_s18) with gpen-512 on random weights: frames per second, the table of
   `--stage-times`, the share of wall x cores in which the process was at work, and that of the time
   in which the busiest stage was.
2. The same with `fusion` by how many frames the stages may run ahead of one another
   (`job.queue_frames`), which take turns: wall time.
3. Pass two by length (10, 100 and 1000 s unless given) and by faces in a frame (0, 1, 2, 4), of a
   small generated clip and a restorer that costs next to nothing. Processor time per frame, which
   neighbours disturb least; wall time beside it.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from gpen import random_gpen
from memory import OPTIONS, Sharper, write_clip
from rich.console import Console

from vidrestore.analysis.pipeline import analyze_video
from vidrestore.analysis.result import Analysis
from vidrestore.analysis.tracks import Track
from vidrestore.api import restore_video
from vidrestore.cli.progress import show_stage_times
from vidrestore.common.events import Event, PassTimes
from vidrestore.common.profiles import load_settings
from vidrestore.common.system import usable_cores
from vidrestore.media.decode import TimeRange

SHARED = Path(__file__).parents[2] / "shared"
DEPTHS, ROUNDS = (1, 2, 4, 8, 16), 3
LENGTHS_SECONDS, FACES = (10.0, 100.0, 1000.0), (0, 1, 2, 4)
FACES_SECONDS = 40.0
CORNERS_PX = ((30.0, 20.0), (180.0, 20.0), (30.0, 95.0), (180.0, 95.0))
LEAST_BUSY, MOST_APART = 0.85, 0.05


def main() -> None:
    clip = Path(sys.argv[1]) if len(sys.argv) > 1 else SHARED / "clips" / "lp_s18.mp4"
    frames = int(sys.argv[2]) if len(sys.argv) > 2 else 48
    lengths = tuple(map(float, sys.argv[3:])) or LENGTHS_SECONDS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = name
        if frames:
            efficiency(clip, frames, folder)
            by_depth(clip, frames)
        by_length(folder, lengths)
        by_faces(folder)


def efficiency(clip: Path, frames: int, folder: Path) -> None:
    weights = folder / "random-512.pth"
    torch.save(random_gpen(512).state_dict(), weights)
    settings = load_settings(
        options={"restore.restorer": str(weights), "detect.detector": "haar", "encode.check": False,
                 "detect.remember": False, "guard.features": 0, "encode.preset": "veryfast"}
    )  # fmt: skip
    span = TimeRange(Fraction(0), Fraction(frames, 30))
    analysis = analyze_video(clip, settings, span=span)
    events: list[Event] = []
    restore_video(
        clip, folder / "out.mp4", settings, analysis=analysis, span=span, on_event=events.append
    )
    times = next(each for each in events if isinstance(each, PassTimes))
    show_stage_times(times, Console())
    cores, wall = usable_cores(), times.seconds
    busiest = max(each.busy_seconds for each in times.stages.values())
    print(
        f"{clip.name}: {analysis.frame_count} frames, {analysis.face_count} faces, "
        f"{analysis.frame_count / wall:.2f} frames/s; processor over wall x {cores} cores "
        f"{times.processor_seconds / wall / cores:.2f}, busiest stage over wall "
        f"{busiest / wall:.2f} (each at least {LEAST_BUSY})"
    )


def by_depth(clip: Path, frames: int) -> None:
    span = TimeRange(Fraction(0), Fraction(frames, 30))
    options = OPTIONS | {"restore.restorer": "fusion", "detect.every": 1, "encode.check": False}
    options |= {"deflicker.amount": 1.0, "paste.occluders": True, "grain.match": 0.5}
    analysis = analyze_video(clip, load_settings(options=options), span=span)
    walls: dict[int, list[float]] = {depth: [] for depth in DEPTHS}
    for _ in range(ROUNDS):
        for depth, found in walls.items():
            settings = load_settings(options=options | {"job.queue_frames": depth})
            with tempfile.TemporaryDirectory() as folder:
                start = time.monotonic()
                restore_video(
                    clip, Path(folder) / "out.mp4", settings, analysis=analysis, span=span
                )
                found.append(time.monotonic() - start)
    medians = {depth: statistics.median(found) for depth, found in walls.items()}
    print(f"{'frames ahead':18}{'frames/s':>10}{'against 4':>12}")
    for depth, wall in medians.items():
        rate = analysis.frame_count / wall
        print(f"{depth:<18}{rate:10.2f}{medians[4] / wall - 1:+12.1%}")


def by_length(folder: Path, lengths: tuple[float, ...]) -> None:
    print(f"{'seconds of video':18}{'processor ms/frame':>20}{'wall ms/frame':>16}{'apart':>8}")
    first = None
    for seconds in lengths:
        clip = write_clip(folder, seconds / 60)
        processor, wall = per_frame(clip, with_faces(clip, 1))
        first = first or processor
        print(f"{seconds:<18g}{processor:20.2f}{wall:16.2f}{processor / first - 1:+8.1%}")
    print(f"(at most {MOST_APART:.0%} apart)")


def by_faces(folder: Path) -> None:
    clip = write_clip(folder, FACES_SECONDS / 60)
    costs = [per_frame(clip, with_faces(clip, count))[0] for count in FACES]
    each, constant = np.polyfit(FACES, costs, 1)
    print(f"{'faces in a frame':18}{'processor ms/frame':>20}{'on the line':>16}{'apart':>8}")
    for count, cost in zip(FACES, costs, strict=True):
        line = constant + each * count
        print(f"{count:<18}{cost:20.2f}{line:16.2f}{cost / line - 1:+8.1%}")
    print(f"{constant:.2f} ms for a frame and {each:.2f} ms for each face in it")


def with_faces(clip: Path, count: int) -> Analysis:
    """The clip's own frames and shots, with so many faces that stand still all through it."""
    settings = load_settings(options=OPTIONS | {"detect.every": 25})
    analysis = analyze_video(clip, settings)
    tracks = [
        still_track(track_id, start, end, corner)
        for start, end in analysis.shots
        for track_id, corner in enumerate(CORNERS_PX)
        if track_id < count
    ]
    numbered = [replace(track, track_id=i) for i, track in enumerate(tracks)]
    return replace(analysis, tracks=tuple(numbered))


def still_track(person: int, start: int, end: int, corner: tuple[float, float]) -> Track:
    side, count = 64.0, end - start
    unit = np.array([[1 / side, 0, -corner[0] / side], [0, 1 / side, -corner[1] / side]])
    points = np.array([[0.35, 0.4], [0.65, 0.4], [0.5, 0.6], [0.4, 0.75], [0.6, 0.75]])
    ones = np.ones(count, np.float32)
    return Track(
        track_id=person, person_id=person + 1, first_frame=start, work_px=64,
        matrices=np.repeat(unit[None], count, axis=0).astype(np.float32),
        landmarks=np.repeat((points * side + corner)[None], count, axis=0).astype(np.float32),
        score=ones, strength=ones, detected=np.ones(count, np.bool_),
    )  # fmt: skip


def per_frame(clip: Path, analysis: Analysis) -> tuple[float, float]:
    """Milliseconds of pass two: processor and wall."""
    settings = load_settings(options=OPTIONS | {"encode.check": False})
    with tempfile.TemporaryDirectory() as folder:
        processor, wall = time.process_time(), time.monotonic()
        restore_video(
            clip, Path(folder) / "out.mkv", settings, restorer=Sharper(), analysis=analysis
        )
        spent = time.process_time() - processor, time.monotonic() - wall
    milliseconds = tuple(1e3 * each / analysis.frame_count for each in spent)
    return milliseconds[0], milliseconds[1]


if __name__ == "__main__":
    main()

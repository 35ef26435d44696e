"""Where does the processor time of a run go apart from the network, stage by stage?

    python benchmarks/stages.py [CLIP ...] [--sizes 512 2048] [--frames 36] [--before TREE]

The restorer is a free stand-in (crop * 0.97 + 0.005) with the face mesh, YuNet and all stages on.
Each cell is CPU-ms a frame: each stage's own thread, the rest of pass two (threads of libraries
such as x264's), pass one, joining and checking, and the whole run without imports. Beside it the
ratio to ffmpeg's transcode of the same clip with the same codec, preset and quality, measured in
turns with it. "busy" is CPU over wall x cores of pass two, which neighbors on the machine disturb;
"longest" is the CPU of the busiest thread over that of all, which they do not: up to 1 / cores all
cores can be busy. With --before the same of another checkout, in turns with this one.

CLIP is a file, or "crowd": seven faces at 1080p, made of lp_s18. Without one: lp_s18 (720p, one
close face) and the crowd. The models lie in ../shared/models.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import imageio_ffmpeg

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
LP, CROWD = SHARED / "clips" / "lp_s18.mp4", Path("crowd")
GOALS = {("lp_s18", 512): (240, 3.6), ("lp_s18", 2048): (400, None), ("crowd", 512): (850, None)}
CRF, PRESET, THREADS = "16", "medium", "4"
ROUNDS = 3
TILE, COLUMNS, FACES = (480, 540), 4, 7
LEAST_BUSY = 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="*", type=Path, default=[LP, CROWD])
    parser.add_argument("--sizes", nargs="+", type=int, default=[512, 2048])
    parser.add_argument("--frames", type=int, default=36)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--before", type=Path, help="another checkout, measured in turns")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(run(Path(options.child[0]), int(options.child[1]))))
        return
    trees = {"before": options.before.resolve()} if options.before else {}
    trees["now"] = ROOT
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for clip in clips(options.clips, folder, options.frames):
            for size in options.sizes:
                compare(clip, size, trees, options.rounds)


def clips(given: list[Path], folder: Path, frames: int) -> list[Path]:
    """The first frames of each clip, without loss of what the codec of the source can show."""
    made = []
    for path in given:
        made.append(folder / f"{path.stem}.mp4")
        if path == CROWD:
            crowd(LP, frames, made[-1])
        else:
            ffmpeg("-i", path, "-frames:v", frames, "-crf", 12, made[-1])
    return made


def crowd(clip: Path, frames: int, target: Path) -> None:
    """Tiles of a close face at other times, each in front of its own part of a 1080p picture."""
    wide, high = TILE
    tiles = [
        f"[0:v]trim=start_frame={12 * k},setpts=PTS-STARTPTS,crop=640:720,scale={wide}:{high}[t{k}]"
        for k in range(FACES)
    ]
    tiles.append(f"[0:v]crop=320:360:0:0,scale={wide}:{high}[t{FACES}]")
    places = "|".join(f"{wide * (k % COLUMNS)}_{high * (k // COLUMNS)}" for k in range(FACES + 1))
    inputs = "".join(f"[t{k}]" for k in range(FACES + 1))
    graph = ";".join([*tiles, f"{inputs}xstack=inputs={FACES + 1}:layout={places}[v]"])
    ffmpeg("-i", clip, "-filter_complex", graph, "-map", "[v]", "-frames:v", frames,
           "-crf", 12, target)  # fmt: skip


def ffmpeg(*arguments: object) -> float:
    """Run ffmpeg without sound; return its CPU-seconds."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments[:-1])]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*command, "-an", "-c:v", "libx264", str(arguments[-1])], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def transcode(clip: Path) -> float:
    """CPU-seconds of ffmpeg for the same codec, preset, quality and number of threads."""
    target = clip.with_name("transcoded.mp4")
    return ffmpeg(
        "-threads", 1, "-i", clip, "-crf", CRF, "-preset", PRESET, "-threads", THREADS, target
    )


def compare(clip: Path, size: int, trees: dict[str, Path], rounds: int) -> None:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    floors = []
    for _ in range(rounds):
        for name, tree in trees.items():
            env = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
            command = [sys.executable, __file__, "--child", str(clip), str(size)]
            done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE)
            found[name].append(json.loads(done.stdout))
        floors.append(transcode(clip))
    frames = found["now"][0]["frames"]
    floor = 1000 * statistics.median(floors) / frames
    print(f"\n{clip.stem}, size {size}: {frames} frames, {found['now'][0]['faces'] / frames:.1f} "
          f"faces a frame; CPU-ms a frame, medians of {rounds}; transcode {floor:.0f}")  # fmt: skip
    medians = {
        name: {key: statistics.median(each["ms"].get(key, 0) for each in runs)
               for key in runs[0]["ms"]}
        for name, runs in found.items()
    }  # fmt: skip
    print(f"{'':20}" + "".join(f"{name:>10}" for name in trees))
    for key in dict.fromkeys(key for each in medians.values() for key in each):
        print(f"{key:20}" + "".join(f"{medians[name].get(key, 0):10.1f}" for name in trees))
    most, ratio = GOALS.get((clip.stem, size), (None, None))
    ratios = "".join(f"{medians[name]['whole run'] / floor:10.1f}" for name in trees)
    print(f"{'/ transcode':20}{ratios}" + (f"   goal {ratio}" if ratio else ""))
    for key in ("busy", "longest"):
        shares = {n: statistics.median(each[key] for each in runs) for n, runs in found.items()}
        print(f"{key:20}" + "".join(f"{shares[name]:10.2f}" for name in trees))
    if most:
        print(f"goals of the whole run {most}, of busy {LEAST_BUSY}")


def run(clip: Path, size: int) -> dict[str, Any]:
    """Restore a clip in this process, after a short run that loads what is loaded once."""
    import torch

    from vidrestore.api import restore_video
    from vidrestore.common.events import Event, PassTimes
    from vidrestore.common.profiles import load_settings
    from vidrestore.common.system import usable_cores
    from vidrestore.models.restorers import Restorer

    class StandIn(Restorer):
        name = "stand-in"
        template = "gpen"

        def __init__(self) -> None:
            self.size = size

        def __call__(self, windows: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = windows[:, 0].mul(0.97).add_(0.005)
            return result

    options = {
        "detect.detector": "yunet", "detect.remember": False, "people.recognise": False,
        "weights.folder": SHARED / "models", "weights.offline": True,
        "encode.codec": "h264", "encode.quality": CRF, "encode.preset": PRESET,
        "encode.threads": THREADS,
    }  # fmt: skip
    settings = load_settings(options=options)
    with tempfile.TemporaryDirectory() as name:
        short = Path(name) / "short.mp4"
        ffmpeg("-i", clip, "-frames:v", 8, short)
        restore_video(short, Path(name) / "first.mp4", settings, restorer=StandIn())
        events: list[Event] = []
        start = time.process_time(), resource.getrusage(resource.RUSAGE_CHILDREN)
        summary = restore_video(
            clip, Path(name) / "out.mp4", settings, restorer=StandIn(), on_event=events.append
        )
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        whole = time.process_time() - start[0]
        whole += children.ru_utime + children.ru_stime - start[1].ru_utime - start[1].ru_stime
    passes = {each.pass_name: each for each in events if isinstance(each, PassTimes)}
    one, two = passes["analyze"], passes["restore"]
    own = {stage: times.processor_seconds for stage, times in two.stages.items()}
    seconds = own | {
        "other threads": two.processor_seconds - sum(own.values()),
        "pass two": two.processor_seconds,
        "pass one": one.processor_seconds,
        "join and check": whole - one.processor_seconds - two.processor_seconds,
        "whole run": whole,
    }
    frames = summary.frames
    return {
        "frames": frames,
        "faces": summary.faces,
        "ms": {key: 1000 * each / frames for key, each in seconds.items()},
        "busy": two.processor_seconds / (two.seconds * usable_cores()),
        "longest": max(own.values()) / two.processor_seconds,
    }


if __name__ == "__main__":
    main()

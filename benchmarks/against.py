"""What whole runs cost against those of an older commit and against ffmpeg's own transcode.

    python benchmarks/against.py --base COMMIT [--seconds 1 3] [--rounds 1] [--only NAME ...]

The base is checked out into a git worktree of its own, which the end removes. Both versions run in
child processes with a free restorer, in turn; the restorer returns the face a little darker, so
that all stages have work. Each clip is taken in two lengths, and the straight line through both
gives the cost of a frame without the start of the program. CPU is that of the processes and all
programs that they start. The floor is ffmpeg's decoding and x264 with the same preset and factor in
the same run, extrapolated in the same way. "busy" is CPU / (wall x cores) of the added frames; on a
machine with other work it says little. Clips and models are those of ../shared.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import imageio_ffmpeg
import numpy as np

HERE = Path(__file__).resolve().parents[1]
SHARED = HERE.parent / "shared"
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
FACTOR, PRESET, RATE = "16", "medium", 25
OPTIONS = {
    "detect.detector": "yunet", "detect.remember": False, "people.recognise": False,
    "weights.folder": str(SHARED / "models"), "weights.offline": True, "encode.codec": "h264",
    "encode.quality": FACTOR, "encode.preset": PRESET,
}  # fmt: skip
# A part of the picture with about seven faces, and how far it moves.
CROWD_XY, CROWD_ZOOM, CROWD_PX = (385, 80), 6.0, 12


class Case(NamedTuple):
    """One line of the table."""

    name: str
    clip: str
    size: int


CASES = (
    Case("lp_s18 720p, 512", "lp_s18.mp4", 512),
    Case("lp_s18 720p, 2048", "lp_s18.mp4", 2048),
    Case("hamilton 360p, 512", "hamilton_short.mp4", 512),
    Case("crowd 1080p, 512", "crowd", 512),
    Case("nasa 270p, no face", "torchcodec_nasa.mp4", 512),
)

# Runs in either version: the older one takes any object, this one a subclass of `Restorer`.
CHILD = """
import json, sys
import vidrestore

source, target, size, options = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
assert vidrestore.__file__.startswith(sys.argv[5]), vidrestore.__file__
Base = vidrestore.Restorer if "Restorer" in vidrestore.__all__ else object

class Free(Base):
    name, reach_frames, template = "free", 0, "gpen"
    def __init__(self):
        self.size = size
    def __call__(self, windows):
        return windows[:, 0] * 0.97 + 0.005

summary = vidrestore.restore_video(
    source, target, vidrestore.load_settings(options=options), restorer=Free()
)
print(json.dumps({"faces": summary.faces}))
"""


class Cost(NamedTuple):
    """What a program and those that it started took."""

    cpu: float
    """CPU-seconds."""
    wall: float
    """Seconds by the clock."""
    faces: int = 0
    """The restored faces."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", required=True)
    parser.add_argument("--seconds", type=float, nargs=2, default=(1, 3))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="parts of the names of the clips to take")
    args = parser.parse_args()
    lengths = [round(RATE * seconds) for seconds in args.seconds]
    with tempfile.TemporaryDirectory() as name, worktree(args.base, Path(name) / "base") as base:
        places = {"before": base, "now": HERE}
        head = "".join(f"{f'{p} ms':>11}{'/ floor':>9}{'busy':>6}{'start s':>9}" for p in places)
        print(f"{'CPU':22}{'faces':>6}{'floor ms':>10}{head}  now / before", flush=True)
        for case in CASES:
            if args.only and not any(part in case.name for part in args.only):
                continue
            if (clips := prepared(case.clip, lengths, Path(name))) is None:
                print(f"{case.name:22} left out: {SHARED} lacks its clip", flush=True)
                continue
            print(line(case, measured(case, clips, lengths, places, args.rounds), lengths),
                  flush=True)  # fmt: skip


@contextmanager
def worktree(commit: str, folder: Path) -> Iterator[Path]:
    """Check a commit out beside this checkout."""
    git = ["git", "-C", str(HERE), "worktree"]
    subprocess.run([*git, "add", "--detach", str(folder), commit], check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True, capture_output=True)


def prepared(clip: str, lengths: Sequence[int], folder: Path) -> list[Path] | None:
    """Write the clip in both lengths, repeated where it is too short; None: there is none."""
    whole = SHARED / "clips" / clip
    if clip == "crowd":
        picture = cv2.imread(str(SHARED / "real-restorers" / "solvay" / "source.png"))
        if picture is None:
            return None
        whole = crowd(np.asarray(picture, np.uint8), max(lengths), folder / "crowd.mkv")
    if not whole.exists():
        return None
    targets = [folder / f"{Path(clip).stem}.{frames}.mp4" for frames in lengths]
    for frames, target in zip(lengths, targets, strict=True):
        subprocess.run(
            [FFMPEG, "-y", "-v", "error", "-stream_loop", "-1", "-i", str(whole), "-an", "-sn",
             "-dn", "-frames:v", str(frames), "-c:v", "libx264", "-crf", "16", str(target)],
            check=True,
        )  # fmt: skip
    return targets


def crowd(picture: np.ndarray, frames: int, target: Path) -> Path:
    """A seeded crowd at 1080p: a part of a photograph that moves to the side, with noise."""
    (x, y), zoom, random = CROWD_XY, CROWD_ZOOM, np.random.default_rng(0)
    command = [
        *(FFMPEG, "-y", "-v", "error", "-f", "rawvideo", "-pix_fmt", "bgr24", "-s", "1920x1080"),
        *("-r", str(RATE), "-i", "-", "-c:v", "libx264", "-crf", "12", "-pix_fmt", "yuv420p"),
        str(target),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for index in range(frames):
            shift = CROWD_PX * np.sin(index / RATE)
            matrix = np.array([[zoom, 0, -zoom * (x + shift)], [0, zoom, -zoom * y]])
            frame = cv2.warpAffine(picture, matrix, (1920, 1080), flags=cv2.INTER_CUBIC)
            noise = random.integers(-3, 4, frame.shape, np.int16)
            process.stdin.write(np.clip(frame + noise, 0, 255).astype(np.uint8).tobytes())
    return target


def measured(
    case: Case, clips: Sequence[Path], lengths: Sequence[int], places: dict[str, Path], rounds: int
) -> dict[tuple[str, int], Cost]:
    """Run the floor and both versions in turn; return the least CPU for each, by frames."""
    found: dict[tuple[str, int], list[Cost]] = defaultdict(list)
    for _ in range(rounds):
        for clip, frames in zip(clips, lengths, strict=True):
            out = clip.with_name("out.mp4")
            floor = [FFMPEG, "-y", "-v", "error", "-i", str(clip), "-c:v", "libx264", "-preset",
                     PRESET, "-crf", FACTOR, "-threads", "4", str(out)]  # fmt: skip
            found["floor", frames].append(run(floor, {}, clip.parent))
            for place, checkout in places.items():
                out.unlink(missing_ok=True)
                command = [
                    sys.executable, "-c", CHILD, str(clip), str(out), str(case.size),
                    json.dumps(OPTIONS), str(checkout),
                ]  # fmt: skip
                # Python prefers modules of the folder that it runs in to those of PYTHONPATH.
                found[place, frames].append(run(command, {"PYTHONPATH": str(checkout)}, checkout))
    return {key: min(costs) for key, costs in found.items()}


def run(command: Sequence[str], environment: dict[str, str], folder: Path) -> Cost:
    """Run a program in a folder to its end; an error ends the benchmark."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command,
        env=os.environ | environment,
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    last = done.stdout.splitlines()[-1:]
    return Cost(cpu, wall, json.loads(last[0])["faces"] if last else 0)


def line(case: Case, costs: dict[tuple[str, int], Cost], lengths: Sequence[int]) -> str:
    """Format one line of the table."""
    short, long = lengths

    def each(place: str) -> tuple[float, float]:
        cpu, wall = (
            (costs[place, long][i] - costs[place, short][i]) / (long - short) for i in (0, 1)
        )
        return cpu, wall

    floor = each("floor")[0]
    parts = [f"{case.name:22}{costs['now', long].faces / long:6.1f}{1000 * floor:10.1f}"]
    for place in ("before", "now"):
        cpu, wall = each(place)
        start = costs[place, short].cpu - cpu * short
        busy = cpu / (wall * len(os.sched_getaffinity(0)))
        parts.append(f"{1000 * cpu:11.0f}{cpu / floor:9.1f}{busy:6.2f}{start:9.1f}")
    parts.append(f"{each('now')[0] / each('before')[0]:14.2f}")
    return "".join(parts)


if __name__ == "__main__":
    main()

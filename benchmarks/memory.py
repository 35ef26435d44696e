"""Whether hours of film need more memory or disk than minutes: pass one, pass two and the check.

    python benchmarks/memory.py [MINUTES] [--everything] [--picture 3840x2160]

A portrait moves through a clip of 320 x 180 at 25 frames per second with sound, ten minutes by
default; its head is half as high as the picture. What costs time and keeps nothing from one frame
to the next is left out, unless `--everything` is given. Of each minute of the clip the table has
the median of this process's resident memory, in the order in which the passes work; of the disk the
most that the work folder held at any moment, beside the size of the finished file; then the most
memory of the whole run. Before that, what the face mesh adds to an analysis. Linux only: memory is
read from /proc.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import imageio_ffmpeg
import torch
from skimage import data

from vidrestore.analysis.storage import save
from vidrestore.api import analyze_video, restore_video
from vidrestore.common.events import Event, Progress
from vidrestore.common.profiles import load_settings
from vidrestore.models.restorers import Restorer

RATE, MINUTES = 25, 10
MOST_GROWTH, MOST_DISK, MOST_MESH_BYTES = 0.05, 2.0, 1000
SHARED = Path(os.environ.get("VIDRESTORE_SHARED") or Path(__file__).parents[2] / "shared")
_POLL_SECONDS = 0.02
OPTIONS = {
    "detect.detector": "haar", "detect.every": 5, "detect.remember": False, "guard.features": 0,
    "deflicker.amount": 0, "paste.occluders": False, "paste.sharpness": 0, "grain.match": 0,
    "encode.preset": "ultrafast",
}  # fmt: skip


EVERYTHING = {key: OPTIONS[key] for key in ("detect.detector", "detect.remember", "encode.preset")}


class Sharper(Restorer):
    """A restorer that costs next to nothing."""

    name = "sharper"
    size = None
    reach_frames = 0
    template = "gpen"

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        crops = windows[:, 0]
        soft = torch.nn.functional.avg_pool2d(crops, 3, stride=1, padding=1)
        return (crops + 0.3 * (crops - soft)).clamp(0, 1)


class Resident:
    """A receiver of events that notes, for each pass and stretch of video, the memory in use."""

    def __init__(self, frames: int = 60 * RATE) -> None:
        """`frames` in a stretch; by default a minute of it."""
        self._frames = frames
        self._bytes: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress):
            stretch = (event.frame - 1) // self._frames
            self._bytes[event.stage][stretch].append(resident_bytes())

    def medians(self, stage: str) -> list[float]:
        return [statistics.median(found) for _, found in sorted(self._bytes[stage].items())]


def resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def disk_use(folder: Path) -> Iterator[list[int]]:
    """The one number in the list is the most bytes that all files in it had together."""
    most, is_over = [0], threading.Event()

    def watch() -> None:
        while not is_over.wait(_POLL_SECONDS):
            total = 0
            for place, _, names in os.walk(folder):
                for name in names:
                    with suppress(OSError):  # it has gone meanwhile
                        total += (Path(place) / name).stat().st_size
            most[0] = max(most[0], total)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        is_over.set()
        thread.join()


def write_clip(folder: Path, minutes: float, picture_px: tuple[int, int] = (320, 180)) -> Path:
    """The portrait wanders under noise, and jumps every eight seconds, which is a cut."""
    picture, clip = folder / "portrait.png", folder / "clip.mkv"
    cv2.imwrite(str(picture), cv2.resize(data.astronaut()[..., ::-1], (400, 400)))
    jump = "40*mod(floor(t/8),2)"
    look = f"crop=320:180:x='20+20*sin(t)+{jump}':y='12+12*sin(0.7*t)'"
    look += f",scale={picture_px[0]}:{picture_px[1]},noise=alls=8:allf=t"
    subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", "-loop", "1",
         "-framerate", str(RATE),
         "-i", str(picture), "-f", "lavfi", "-i", "sine=440", "-vf", look, "-c:v", "libx264",
         "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac", "-t", str(60 * minutes),
         str(clip)],
        check=True,
    )  # fmt: skip
    return clip


def measure(
    minutes: float,
    options: dict[str, Any],
    *,
    stretch_seconds: float = 60,
    picture_px: tuple[int, int] = (320, 180),
) -> tuple[dict[str, list[float]], float]:
    """Median bytes of memory in each stretch, by pass; the most disk per byte of the output."""
    resident = Resident(round(stretch_seconds * RATE))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        clip = write_clip(Path(folder), minutes, picture_px)
        target = Path(folder) / "out" / "clear.mkv"
        target.parent.mkdir()
        with disk_use(target.parent) as most:
            restore_video(clip, target, load_settings(options=options), restorer=Sharper(),
                          on_event=resident)  # fmt: skip
        share = most[0] / target.stat().st_size
    return {stage: resident.medians(stage) for stage in ("analyze", "restore", "check")}, share


def what_a_mesh_keeps() -> None:
    """Bytes that the mesh of a face in a frame takes in the analysis, in memory and in its file."""
    clip = SHARED / "clips" / "lp_s18.mp4"
    if not clip.exists():
        print(f"mesh: not measured, since there is no {clip}")
        return
    options = {"detect.detector": "yunet", "weights.also": [SHARED / "models"]}
    files, faces, in_memory = {}, 1, 0
    with tempfile.TemporaryDirectory() as folder:
        for mesh in ("auto", "off"):
            analysis = analyze_video(clip, load_settings(options=options | {"detect.mesh": mesh}))
            save(analysis, Path(folder) / mesh)
            files[mesh] = (Path(folder) / mesh).stat().st_size
            if mesh == "auto":
                faces = analysis.face_count
                in_memory = sum(
                    values.nbytes
                    for track in analysis.tracks
                    for values in (track.shapes, track.angles_degrees)
                    if values is not None
                )
    print(
        f"mesh: {in_memory / faces:.0f} bytes a face and frame in memory, "
        f"{(files['auto'] - files['off']) / faces:.0f} in the file (at most {MOST_MESH_BYTES})"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("minutes", nargs="?", type=float, default=MINUTES)
    parser.add_argument("--everything", action="store_true")
    parser.add_argument("--picture", default="320x180")
    args = parser.parse_args()
    what_a_mesh_keeps()
    width, height = map(int, args.picture.split("x"))
    options = EVERYTHING if args.everything else OPTIONS
    stages, disk = measure(args.minutes, options, picture_px=(width, height))
    print(f"{'minute':8}" + "".join(f"{stage:>14}" for stage in stages))
    for minute, row in enumerate(zip(*stages.values(), strict=True), start=1):
        print(f"{minute:<8}" + "".join(f"{value / 2**20:11.1f} MB" for value in row))
    for stage, found in stages.items():
        print(f"{stage}: last minute {found[-1] / found[0] - 1:+.1%} against the first "
              f"(at most {MOST_GROWTH:.0%})")  # fmt: skip
    print(f"disk: {disk:.2f}x the finished file at most (at most {MOST_DISK:g}x)")
    most_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"memory of the whole run at {args.picture}: {most_kib / 2**20:.2f} GiB at most")


if __name__ == "__main__":
    main()

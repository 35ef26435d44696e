"""How fast pass one is, what several looks at once gain, and what the face mesh costs.

    python benchmarks/pass_one.py [FOLDER of models] [CLIP with one face]

The clip is scaled to 640 x 360 first; the mesh is also measured at the clip's own size, and on a
crowd. Both ways of each comparison take turns within one run. The last table compares a whole run
on a film without faces with the floor: ffmpeg's decoding and x264 at the same preset and quality.
CPU-milliseconds a frame come from two lengths, so that the start does not count.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import imageio_ffmpeg
import torch

from vidrestore import Restorer, restore_video
from vidrestore.analysis.detection import FirstLook
from vidrestore.analysis.pipeline import analyze_video
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Detect, Settings
from vidrestore.common.system import usable_cores
from vidrestore.common.threads import StageThreads
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.media.probe import probe
from vidrestore.models.detectors.insightface import InsightFace

ROUNDS, LOOKS = 3, 60
SHARED = Path(__file__).parents[2] / "shared"
YUNET_FPS, SCRFD_RATIO, MESH_RATIO = 40.0, 1.7, 1.35
# The video stream of the film in its file, the lengths, and the greatest ratio to the floor.
FILM, FILM_STREAM, LENGTHS_SECONDS, FILM_RATIO = "torchcodec_nasa.mp4", 1, (3, 13), 3.0


def main() -> None:
    models = Path(sys.argv[1]) if len(sys.argv) > 1 else SHARED / "models"
    clip = Path(sys.argv[2]) if len(sys.argv) > 2 else SHARED / "clips" / "lp_s18.mp4"
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.mp4"
        run = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(clip), "-an"]
        run += ["-vf", "scale=640:360", "-crf", "16", str(small)]
        subprocess.run(run, check=True)
        os.environ["XDG_CACHE_HOME"] = folder
        print(f"{usable_cores()} cores, medians of {ROUNDS} rounds, frames per second")
        whole_pass(small, models)
        callers(small, models)
        for video in (small, clip, SHARED / "clips" / "hamilton_short.mp4"):
            what_the_mesh_costs(video, models)
        against_the_floor(Path(folder), models)


def whole_pass(clip: Path, models: Path) -> None:
    for detector in ("yunet", "insightface"):
        rates = [frames_per_second(clip, models, detector) for _ in range(ROUNDS)]
        target = f"   target with yunet {YUNET_FPS:.0f}" if detector == "yunet" else ""
        print(f"{detector:12} the whole pass {statistics.median(rates):6.1f}{target}")


def callers(clip: Path, models: Path) -> None:
    """SCRFD with one thread of onnxruntime for each caller."""
    info = probe(clip).info
    frames = list(islice(decode(clip, DecodeErrors()), LOOKS))
    pack = models / "insightface" / "models" / "det_only"
    looks = [
        FirstLook(InsightFace(pack, size_px=640, score=0.5, threads=1), info, Detect())
        for _ in range(2)
    ]
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for count in seconds:
            started = time.perf_counter()
            with StageThreads() as threads:
                list(threads.each(iter(frames), looks[:count], depth=4, name="look"))
            seconds[count].append(time.perf_counter() - started)
    one, two = (LOOKS / statistics.median(seconds[count]) for count in (1, 2))
    print(
        f"insightface  one caller {one:6.1f}   two {two:6.1f}   "
        f"{two / one:4.2f}x   target {SCRFD_RATIO}x"
    )


def what_the_mesh_costs(clip: Path, models: Path) -> None:
    """CPU-seconds of the whole pass with the mesh and without it, the detector being YuNet."""
    cpu: dict[str, list[float]] = {"off": [], "auto": []}
    for _ in range(ROUNDS):
        for mesh, found in cpu.items():
            started = time.process_time()
            _, faces = analyzed(clip, models, "yunet", mesh)
            found.append(time.process_time() - started)
    without, with_mesh = (statistics.median(found) for found in cpu.values())
    print(
        f"face mesh    {clip.name}: {1000 * without / faces:5.1f} CPU-ms a face and frame without, "
        f"{1000 * with_mesh / faces:5.1f} with it   {with_mesh / without:4.2f}x   "
        f"target {MESH_RATIO}x"
    )


def against_the_floor(folder: Path, models: Path) -> None:
    """A whole run on a film without faces, against ffmpeg's transcode of the same stream."""
    film = SHARED / "clips" / FILM
    cuts = [stretch(film, FILM_STREAM, seconds, folder) for seconds in LENGTHS_SECONDS]
    ways: dict[str, Callable[[Path], object]] = {
        "pass one": lambda source: analyzed(source, models, "yunet", "auto"),
        "the whole run": lambda source: restored(source, folder, models),
        "ffmpeg's transcode": lambda source: transcoded(source, folder),
    }
    frames = [analyzed(cut, models, "yunet", "auto")[0] for cut in cuts]
    spent: dict[str, list[list[float]]] = {name: [[] for _ in cuts] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            for cut, found in zip(cuts, spent[name], strict=True):
                started = all_cpu_seconds()
                way(cut)
                found.append(all_cpu_seconds() - started)
    print(f"{FILM}, no face, {frames[-1]} frames: CPU-ms a frame, and over ffmpeg's transcode")
    costs = {}
    for name, (short, long) in spent.items():
        seconds = statistics.median(long) - statistics.median(short)
        costs[name] = 1000 * seconds / (frames[1] - frames[0])
    floor = costs["ffmpeg's transcode"]
    for name, cost in costs.items():
        target = f"   target {FILM_RATIO}x" if name == "the whole run" else ""
        print(f"{name:20}{cost:8.2f}{cost / floor:8.2f}x{target}")


def stretch(source: Path, stream: int, seconds: int, folder: Path) -> Path:
    """Copy the beginning of one video stream to a file of its own."""
    cut = folder / f"film_{seconds}.mkv"
    run = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(source)]
    run += ["-map", f"0:v:{stream}", "-c", "copy", "-t", str(seconds), str(cut)]
    subprocess.run(run, check=True)
    return cut


def restored(source: Path, folder: Path, models: Path) -> None:
    result = folder / "restored.mkv"
    result.unlink(missing_ok=True)
    restore_video(source, result, settings_for(models, "yunet", "auto"), restorer=Free())


def transcoded(source: Path, folder: Path) -> None:
    run = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-i", str(source)]
    run += ["-c:v", "libx264", "-preset", "medium", "-crf", "16", str(folder / "floor.mkv")]
    subprocess.run(run, check=True)


def all_cpu_seconds() -> float:
    """CPU-seconds of this process and of the processes that it started and that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


class Free(Restorer):
    """Costs next to nothing."""

    name, size, cache_key = "free", 512, "free"

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        return windows[:, 0] * 0.97 + 0.005


def frames_per_second(clip: Path, models: Path, detector: str) -> float:
    started = time.perf_counter()
    frames, faces = analyzed(clip, models, detector, "off")
    assert faces >= 0.9 * frames, "the clip has no face to look for"
    return frames / (time.perf_counter() - started)


def analyzed(clip: Path, models: Path, detector: str, mesh: str) -> tuple[int, int]:
    """Analyze a clip; return the numbers of its frames and of the faces in them."""
    analysis = analyze_video(clip, settings_for(models, detector, mesh))
    return analysis.frame_count, analysis.face_count


def settings_for(models: Path, detector: str, mesh: str) -> Settings:
    return load_settings(
        options={
            "detect.detector": detector,
            "detect.pack": "det_only",
            "detect.mesh": mesh,
            "detect.remember": False,
            "weights.folder": models,
            "weights.offline": True,
        }
    )


if __name__ == "__main__":
    main()

"""How fast pass one is, what several looks at once gain, and what the face mesh costs.

    python benchmarks/pass_one.py [FOLDER of models] [CLIP with one face]

The clip is scaled to 640 x 360 first; the mesh is also measured at the clip's own size. Both ways
of each comparison take turns within one run.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import imageio_ffmpeg

from vidrestore.analysis.detection import FirstLook
from vidrestore.analysis.pipeline import analyze_video
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Detect
from vidrestore.common.system import usable_cores
from vidrestore.common.threads import StageThreads
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.media.probe import probe
from vidrestore.models.detectors.insightface import InsightFace

ROUNDS, LOOKS = 3, 60
SHARED = Path(__file__).parents[2] / "shared"
YUNET_FPS, SCRFD_RATIO, MESH_RATIO = 40.0, 1.7, 1.35


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
        for video in (small, clip):
            what_the_mesh_costs(video, models)


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


def frames_per_second(clip: Path, models: Path, detector: str) -> float:
    started = time.perf_counter()
    frames, faces = analyzed(clip, models, detector, "off")
    assert faces >= 0.9 * frames, "the clip has no face to look for"
    return frames / (time.perf_counter() - started)


def analyzed(clip: Path, models: Path, detector: str, mesh: str) -> tuple[int, int]:
    """Analyze a clip; return the numbers of its frames and of the faces in them."""
    settings = load_settings(
        options={
            "detect.detector": detector,
            "detect.pack": "det_only",
            "detect.mesh": mesh,
            "weights.folder": models,
            "weights.offline": True,
        }
    )
    analysis = analyze_video(clip, settings)
    return analysis.frame_count, analysis.face_count


if __name__ == "__main__":
    main()

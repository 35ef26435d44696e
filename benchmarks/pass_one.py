"""How fast pass one is, decoding included, and what several looks at once gain.

    python benchmarks/pass_one.py [FOLDER of models] [CLIP with one face]

The clip is scaled to 640 x 360 first. Both ways of each comparison take turns within one run.
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
YUNET_FPS, SCRFD_RATIO = 40.0, 1.7


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


def frames_per_second(clip: Path, models: Path, detector: str) -> float:
    settings = load_settings(
        options={
            "detect.detector": detector,
            "detect.pack": "det_only",
            "weights.folder": models,
            "weights.offline": True,
        }
    )
    started = time.perf_counter()
    analysis = analyze_video(clip, settings)
    assert analysis.face_count >= 0.9 * analysis.frame_count, "the clip has no face to look for"
    return analysis.frame_count / (time.perf_counter() - started)


if __name__ == "__main__":
    main()

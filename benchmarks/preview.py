"""How long `preview` takes in an hour of video, but for what networks need.

    python benchmarks/preview.py CLIP [HOURS]

CLIP is played over and over without being encoded anew. In place of detector and restorer stand
two that cost nothing and see one face in the middle; each run is a process of its own, so that its
start counts. The last column is the same command with haar and fusion.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np

from vidrestore.models.detectors import Detection, Detector
from vidrestore.models.restorers import Restorer

TARGET_SECONDS = 5.0
_MOMENTS = (0.0, 0.1, 0.5, 0.77, 0.999)


def main() -> None:
    clip, hours = Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        long = endless(clip, folder, hours)
        print(f"{clip.name} for {hours:g} h, {long.stat().st_size / 1e6:.0f} MB")
        print("       at   its own time   target          with haar and fusion")
        for share in _MOMENTS:
            at = f"{share * hours * 3600:.2f}"
            own = run(__file__, "--stand-ins", str(long), at, str(folder / "a.png"))
            real = run(
                "-m", "vidrestore", "preview", str(long), "--at", at, "-o", str(folder / "a.png"),
                "--overwrite", "--restorer=fusion", "--detector=haar",
            )  # fmt: skip
            verdict = "within" if own <= TARGET_SECONDS else "OVER"
            print(f"{float(at):7.1f} s     {own:5.2f} s      {TARGET_SECONDS:.0f} s: {verdict:6}"
                  f"      {real:5.2f} s", flush=True)  # fmt: skip


def endless(clip: Path, folder: Path, hours: float) -> Path:
    target = folder / f"long{clip.suffix}"
    subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-stream_loop", "-1", "-i", str(clip),
         "-map", "0:v", "-c", "copy", "-t", str(hours * 3600), str(target)],
        check=True,
    )  # fmt: skip
    return target


def run(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - began


class Seen(Detector):
    """A detector that sees a face in the middle of every picture."""

    def __call__(self, picture: Any) -> list[Any]:
        height, width = picture.shape[:2]
        middle, side = np.array([width / 2, height / 2]), height / 3
        points = np.array([[-0.2, -0.15], [0.2, -0.15], [0, 0.05], [-0.15, 0.25], [0.15, 0.25]])
        box = np.concatenate([middle - side / 2, middle + side / 2])
        marks = middle + points * side
        return [Detection(box.astype(np.float32), marks.astype(np.float32), 0.9)]


class Unchanged(Restorer):
    name = "unchanged"
    size: int | None = 512
    reach_frames = 0
    template = "gpen"

    def __call__(self, windows: Any) -> Any:
        return windows[:, 0].clone()


def with_stand_ins(source: str, at: str, target: str) -> None:
    from vidrestore.common.profiles import load_settings
    from vidrestore.models import factory
    from vidrestore.review.preview import write_preview

    factory.open_detector = lambda *_, **__: Seen()  # type: ignore[assignment]
    settings = load_settings(options={"detect.remember": False})
    write_preview(Path(source), Fraction(at), Path(target), settings, restorer=Unchanged())


if __name__ == "__main__":
    with_stand_ins(*sys.argv[2:]) if sys.argv[1] == "--stand-ins" else main()

"""What copying packets of untouched frames saves: a film with a face in a tenth of its frames.

    python benchmarks/copied_packets.py [FRAMES]

1920 x 1080, 150 frames by default, written by ffmpeg. A restorer that costs next to nothing takes
the place of the network, and the finished file is not read back. Processor time of pass two with
the join, of this process and of ffmpeg's, with `encode.copy_untouched` and without, in turns, least
of two rounds. The last column counts the frames whose packets are those of the source.
"""

from __future__ import annotations

import resource
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
from memory import OPTIONS, Sharper
from skimage import data

from vidrestore.analysis.result import Analysis
from vidrestore.api import analyze_video, restore_video
from vidrestore.common.profiles import load_settings

WIDTH, HEIGHT, FRAMES, ROUNDS = 1920, 1080, 150, 2
SHARE = 10
CODECS = {
    "ProRes 422 HQ": (".mov", "-c:v prores_ks -profile:v hq -pix_fmt yuv422p10le"),
    "DNxHR HQX": (".mov", "-c:v dnxhd -profile:v dnxhr_hqx -pix_fmt yuv422p10le"),
    "FFV1, 10 bits": (".mkv", "-c:v ffv1 -level 3 -g 1 -slices 24 -pix_fmt yuv422p10le"),
    "FFV1, 8 bits": (".mkv", "-c:v ffv1 -level 3 -g 1 -slices 24 -pix_fmt yuv420p"),
}


def main() -> None:
    frames = int(sys.argv[1]) if len(sys.argv) > 1 else FRAMES
    print(f"{frames} frames; CPU-seconds   encoded   copied   saved   frames copied")
    with tempfile.TemporaryDirectory() as folder:
        for name, (suffix, how) in CODECS.items():
            film = write_film(Path(folder) / f"film{suffix}", frames, how)
            settings = load_settings(options=OPTIONS | {"detect.every": 1})
            analysis = analyze_video(film, settings)
            seconds, copied = {}, 0
            for copy in (False, True) * ROUNDS:
                taken, count = pass_two_seconds(film, analysis, copy=copy)
                seconds[copy] = min(seconds.get(copy, taken), taken)
                copied = max(copied, count)
            saved = 1 - seconds[True] / seconds[False]
            print(
                f"{name:24} {seconds[False]:9.1f} {seconds[True]:8.1f} {saved:7.0%}   "
                f"{copied:4} of {analysis.frame_count}, faces in {frames_with_faces(analysis)}"
            )


def write_film(path: Path, frames: int, how: str) -> Path:
    """A pan over a photograph, and for a tenth of the frames one over a portrait."""
    form = f"-f rawvideo -pix_fmt rgb24 -video_size {WIDTH}x{HEIGHT} -framerate 25 -i -"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *shlex.split(f"{form} {how}")]
    rng = np.random.default_rng(0)
    noise = rng.integers(-6, 7, (8, HEIGHT, WIDTH, 3)).astype(np.int16)
    with subprocess.Popen([*command, str(path)], stdin=subprocess.PIPE) as encoder:
        assert encoder.stdin is not None
        for index in range(frames):
            has_face = frames // 2 <= index < frames // 2 + frames // SHARE
            photo = data.astronaut()[:288] if has_face else data.coffee()
            scale = 1.2 * max(WIDTH / photo.shape[1], HEIGHT / photo.shape[0])
            shift = np.array([[1 / scale, 0, 2 + index / 20], [0, 1 / scale, 2 + index / 40]])
            flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
            picture = cv2.warpAffine(photo, shift, (WIDTH, HEIGHT), flags=flags)
            noisy = (picture + noise[index % len(noise)]).clip(0, 255).astype(np.uint8)
            encoder.stdin.write(noisy.tobytes())
        encoder.stdin.close()
    return path


def pass_two_seconds(film: Path, analysis: Analysis, *, copy: bool) -> tuple[float, int]:
    """(processor time, number of copied frames)."""
    options = {"encode.check": False, "encode.copy_untouched": copy}
    settings = load_settings(options=OPTIONS | options)
    before = processor_seconds()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"out{film.suffix}"
        summary = restore_video(film, target, settings, restorer=Sharper(), analysis=analysis)
    return processor_seconds() - before, summary.copied_frames


def processor_seconds() -> float:
    """Of this process and of those that it has started and awaited."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def frames_with_faces(analysis: Analysis) -> int:
    seen = np.zeros(analysis.frame_count, bool)
    for track in analysis.tracks:
        seen[track.first_frame :][: len(track.strength)] |= track.strength > 0
    return int(seen.sum())


if __name__ == "__main__":
    main()

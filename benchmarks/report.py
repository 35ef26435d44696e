"""What a report adds to a restoration, in processor time, and the error bars of its verdict.

    python benchmarks/report.py [SECONDS ...]

The film is made of the clips with faces that VIDRESTORE_SHARED names, ../shared by default, one
after the other in 1280 x 720, and played over and over until it has SECONDS (10, 60 and 300 unless
given).

1. Whole runs of 10 s, without a report and with one, in turns.
2. Reading back, by length: ffmpeg's transcode with a sharper picture stands for the output. Every
   frame is read for the check anyway, so only what the samples take counts. The rest of what a
   report adds, such as drawing the page, is that of the whole runs.

3. Of each clip, every face is measured, and samples of 40, 75 and 150 of them as a report takes
   them: the value of all faces must lie within the error bar of the sample.

All is processor time, with one thread for each task, so that it hardly depends on other work.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import imageio_ffmpeg
import numpy as np
import torch
from memory import SHARED, Sharper

from vidrestore.analysis.pipeline import analyze_video
from vidrestore.analysis.result import Analysis
from vidrestore.api import restore_video
from vidrestore.common.profiles import load_settings
from vidrestore.imaging.frame import Frame
from vidrestore.jobs.verify import check_output
from vidrestore.media.probe import fingerprint, probe
from vidrestore.restoration.statistics import RestorationStats
from vidrestore.review import report
from vidrestore.review.error_bars import error_of_change, measured_shares, parts_of
from vidrestore.review.report import samples
from vidrestore.review.report.outcome import outcome
from vidrestore.review.report.samples import SampleCollector
from vidrestore.review.report.sampling import chosen_sample

LENGTHS_SECONDS, SHORT_SECONDS, ROUNDS = (10.0, 60.0, 300.0), 10.0, 3
MOST_CPU_SECONDS = 15.0
SAMPLES = (40, 75, 150)
CLIPS = ("hamilton_short.mp4", "lp_s18.mp4", "intel_asl_thanks.mkv", "vrt_1.mp4")
RATE, SIZE = 30, (1280, 720)
ENCODER = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-pix_fmt", "yuv420p")
LOOK = "unsharp=5:5:1"
OPTIONS = {
    "detect.detector": "yunet", "weights.folder": SHARED / "models", "weights.offline": True,
    "detect.remember": False, "deflicker.amount": 0, "paste.occluders": False,
    "paste.sharpness": 0, "grain.match": 0, "encode.preset": "veryfast",
}  # fmt: skip


def main() -> None:
    lengths = tuple(map(float, sys.argv[1:])) or LENGTHS_SECONDS
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = name
        scene = write_scene(folder)
        known = analyze_video(scene, load_settings(options=OPTIONS))
        page_seconds = whole_run(scene, known, folder)
        for seconds in lengths:
            read_back(scene, known, seconds, folder, page_seconds)
        samples_against_all(scene, known, folder)


class Timed(SampleCollector):
    """A collector that adds up the processor time of its calls, all of which it spends itself."""

    cpu_seconds = 0.0

    def __call__(self, was: Frame, now: Frame) -> None:
        before = time.thread_time()
        super().__call__(was, now)
        self.cpu_seconds += time.thread_time() - before


def whole_run(scene: Path, known: Analysis, folder: Path) -> float:
    """Compare runs with and without a report; return what it adds beside its measures, in
    CPU-seconds."""
    film, settings = folder / "short.mkv", load_settings(options=OPTIONS)
    ffmpeg("-stream_loop", "-1", "-i", scene, "-c", "copy", "-t", SHORT_SECONDS, film)
    analysis, page = repeated(known, film), folder / "report.html"
    collectors: list[Timed] = []

    def collector(*given: Any, **more: Any) -> Timed:
        collectors.append(Timed(*given, **more))
        return collectors[-1]

    report.SampleCollector = collector  # type: ignore[assignment,misc]

    def run(report_path: Path | None) -> float:
        before = cpu_seconds()
        restore_video(film, folder / "out.mkv", settings, restorer=Sharper(), analysis=analysis,
                      report=report_path, overwrite=True)  # fmt: skip
        return cpu_seconds() - before

    run(page)  # the first report imports what it needs
    rounds = [(run(None), run(page)) for _ in range(ROUNDS)]
    without = statistics.median(before for before, _ in rounds)
    added = statistics.median(after - before for before, after in rounds)
    own = statistics.median(each.cpu_seconds for each in collectors[1:])
    print(
        f"whole runs of {SHORT_SECONDS:g} s: {without:.1f} CPU-s; with a report {added:.1f} more, "
        f"{own:.1f} of it for measures; a page of {page.stat().st_size / 1e6:.1f} MB",
        flush=True,
    )
    return max(0.0, added - own)


def read_back(
    scene: Path, known: Analysis, seconds: float, folder: Path, page_seconds: float
) -> None:
    film, output = folder / "film.mkv", folder / "transcode.mkv"
    ffmpeg("-stream_loop", "-1", "-i", scene, "-c", "copy", "-t", seconds, film)
    analysis = repeated(known, film)
    transcode = -cpu_seconds()
    sharpen(film, output)
    transcode += cpu_seconds()
    before = time.thread_time()
    collector = Timed(analysis, analysis, RestorationStats(), 1.0)
    collector.cpu_seconds = time.thread_time() - before
    whole = -cpu_seconds()
    check_output(film, output, analysis, stream_index=0, span=None, strength=1.0,
                 collector=collector)  # fmt: skip
    whole += cpu_seconds()
    cost = collector.cpu_seconds + page_seconds
    goal = "within" if cost <= MOST_CPU_SECONDS else "OVER"
    print(
        f"{seconds:g} s, {analysis.frame_count} frames, {collector.population} faces: the report "
        f"adds {cost:.1f} CPU-s ({MOST_CPU_SECONDS:g}: {goal}), {cost / transcode:.2f}x ffmpeg's "
        f"transcode ({transcode:.1f}); the check without it takes "
        f"{whole - collector.cpu_seconds:.1f}"
    )
    found = outcome(analysis, RestorationStats(), collector, least_features=0.0)
    assert found is not None
    for each in found.aspects:
        print(
            f"    {each.name} {each.word}: {each.figure} {each.error} in {each.basis}", flush=True
        )


def sharpen(source: Path, target: Path) -> None:
    same_times = ("-fps_mode", "passthrough", "-enc_time_base", "demux")
    ffmpeg("-i", source, "-vf", LOOK, *same_times, *ENCODER, target)


def samples_against_all(scene: Path, known: Analysis, folder: Path) -> None:
    """Measure every face of each clip, and compare samples with that."""
    output = folder / "sharp.mkv"
    sharpen(scene, output)
    samples.MOST_FACES = samples.MOST_DETAILS = known.face_count
    collector = SampleCollector(known, known, RestorationStats(), 1.0)
    check_output(scene, output, known, stream_index=0, span=None, strength=1.0,
                 collector=collector)  # fmt: skip
    held = []
    edges = [*np.cumsum([0, *frame_counts(folder)[:-1]]), known.frame_count]
    for name, (first, end) in zip(CLIPS, pairwise(edges), strict=True):
        found = [one for one in collector.flicker if first <= one.frame < end]
        frames = np.array([one.frame for one in found])
        values = np.array([(one.source, one.output) for one in found])
        places = np.stack([np.arange(len(frames)), np.zeros(len(frames), int)], axis=1)
        every = np.diff(np.sqrt(values.mean(axis=0)))[0]
        print(f"{name}: flicker changes by {every:+.3f} levels in all {len(found)} faces;", end="")
        for most in SAMPLES:
            if most >= len(found):
                continue
            chosen = chosen_sample(places, [1], most=most)
            rows = chosen.places[:, 0]
            parts = parts_of(frames[rows], known.shots)
            measured = measured_shares(chosen.weights, len(found))
            bar = error_of_change(*values[rows].T, chosen.weights, parts, measured)
            change = np.diff(np.sqrt(np.average(values[rows], axis=0, weights=chosen.weights)))[0]
            held.append(abs(change - every) <= bar)
            print(f" {change:+.3f} \N{PLUS-MINUS SIGN} {bar:.3f} in {most}", end="")
        print(flush=True)
    print(f"the value of all faces is within the bar of {sum(held)} of {len(held)} samples")


def frame_counts(folder: Path) -> list[int]:
    """The frames of each clip in the scene, of which `write_scene` made files."""
    counts = []
    for number in range(len(CLIPS)):
        with av.open(str(folder / f"clip{number}.mkv")) as container:
            counts.append(sum(packet.pts is not None for packet in container.demux(video=0)))
    return counts


def write_scene(folder: Path) -> Path:
    """The clips one after the other, in one size and rate; copies may end anywhere."""
    width, height = SIZE
    fitted = (
        f"scale={width}:{height}:force_original_aspect_ratio=decrease,"
        f"pad={width}:{height}:-1:-1,setsar=1,fps={RATE},format=yuv420p"
    )
    parts = [folder / f"clip{number}.mkv" for number in range(len(CLIPS))]
    for clip, part in zip(CLIPS, parts, strict=True):
        ffmpeg("-i", SHARED / "clips" / clip, "-vf", fitted, "-an", *ENCODER, "-bf", "0", part)
    listed, scene = folder / "clips.txt", folder / "scene.mkv"
    listed.write_text("".join(f"file '{part}'\n" for part in parts), encoding="utf-8")
    ffmpeg("-f", "concat", "-safe", "0", "-i", listed, "-c", "copy", scene)
    return scene


def repeated(known: Analysis, film: Path) -> Analysis:
    """The analysis of a film that shows what is known over and over."""
    with av.open(str(film)) as container:
        pts = np.sort([p.pts for p in container.demux(video=0) if p.pts is not None])
    info, crc32 = probe(film).info, np.resize(known.crc32, len(pts))
    tracks, shots, count = [], [], known.frame_count
    for begin in range(0, len(pts), count):
        shots += [(begin + a, min(begin + b, len(pts))) for a, b in known.shots
                  if begin + a < len(pts)]  # fmt: skip
        for track in known.tracks:
            here = min(track.end_frame, len(pts) - begin) - track.first_frame
            if here > 0:
                own = track.frames(slice(0, here), first_frame=begin + track.first_frame)
                tracks.append(replace(own, track_id=len(tracks)))
    return replace(
        known, info=info, pts=pts, crc32=crc32, shots=tuple(shots),
        tracks=tuple(tracks), fingerprint=fingerprint(film),
    )  # fmt: skip


def ffmpeg(*words: object) -> None:
    program = imageio_ffmpeg.get_ffmpeg_exe()
    subprocess.run([program, "-y", "-v", "error", *map(str, words)], check=True)


def cpu_seconds() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    main()

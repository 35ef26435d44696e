"""What do key frames save, and what do they cost in quality, against a network on every frame?

Every clip of the folder that VIDRESTORE_SHARED names, ../shared by default, is cut into windows,
one for each stretch in which a track has enough frames. The windows are the truth; their worn
copies are the source; a simulated restorer of tests/helpers/simulation.py restores the truth. Both
ways end with the deflicker of today. Settings were chosen on the windows of half A (even numbers).
Half B ruled out anchors 6 frames apart with a mouth limit of 0.09, and chose the limit of the eyes
among those that are equal on half A. Windows of 24 frames end with a key frame that a longer track
does not need: their runs are a little more than those of a video.

For the recorded outputs of trained restorers there is no truth. There the flicker is estimated
without one, detail is the contrast against the network's own output, and "mouth" is the difference
(rms, 8-bit levels) to the network's own output in the fifth of the frames with the fastest mouth.

    python benchmarks/key_frames.py --frames 48 --sheet sheet.png
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from vidrestore.analysis.pipeline import analyze_video
from vidrestore.analysis.tracks import Track
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Deflicker
from vidrestore.imaging.geometry import apply, crop_matrix, crop_side_px
from vidrestore.imaging.optical_flow import DenseFlow, sample
from vidrestore.restoration import key_frames
from vidrestore.restoration.faces import FaceFrame
from vidrestore.restoration.statistics import RestorationStats
from vidrestore.restoration.temporal import deflicker
from vidrestore.review import metrics

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))

from helpers.simulation import (  # noqa: E402
    STABLE,
    X4,
    X8,
    Boil,
    Clip,
    Stack,
    Wear,
    _centres,
    face_frames,
    face_mask,
    restored,
    stack,
    worn,
)

SIDE, LEAST_FRAMES = 256, 24
# Of the recorded ones: the file, the file of the results, every so many frames, halves of one file.
RECORDED = {
    "zz": ("zz_none_dain_50fps.mp4", "zz_face_dain_50fps.mp4", 2),
    "ed2": ("ed2_lq.mp4", "ed2_hq.mp4", 1),
    "keep_s3": ("keep_s3_lq.mp4", "keep_s3_ours.mp4", 1),
    "pgt_017": ("pgt_017.mp4", "pgt_017.mp4", 1),
}
ED2 = np.array([[5.5694, -0.0056, 627.35], [-0.0032, 5.5569, 145.97]])
RUNS = {"x4": (X4, Boil()), "x8": (X8, Boil()), "holds still": (X4, STABLE)}
GOALS = ("", ">= -0.15", "<= 0 %", ">= -1.5 %", ">= -0.6", "", ">= -0.6", "", "")


@dataclass(frozen=True)
class Window:
    """Some frames of one track."""

    name: str
    truth: Stack
    track: Track
    """Its frames are numbered from 0."""
    results: Stack | None = None
    """What a trained restorer made of them."""


def shared() -> Path:
    return Path(os.environ.get("VIDRESTORE_SHARED") or ROOT.parent / "shared")


def settings():
    return load_settings(
        options={
            "weights.folder": shared() / "models",
            "weights.offline": True,
            "detect.detector": "yunet",
            "detect.remember": False,
            "restore.restorer": "fusion",
            "fields.deinterlace": "off",
        }
    )


def windows(frames_each: int, most: int) -> Iterator[Window]:
    """The first windows of every track of every clip, with the number of each within its track."""
    if not shared().is_dir():
        sys.exit(f"{shared()} is missing, so there are no clips to measure on")
    for path in sorted((shared() / "clips").glob("*.m[kp]*")):
        analysis = analyze_video(path, settings())
        tracks = [
            t for t in analysis.tracks if len(t.matrices) >= LEAST_FRAMES and t.strength.any()
        ]
        if not tracks:
            print(f"{path.name}: no face stays for {LEAST_FRAMES} frames", file=sys.stderr)
            continue
        frames = pictures(path)
        for track in tracks:
            name = f"{path.stem} {track.track_id}"
            yield from islice(of_track(name, track, frames, frames_each), most)
    for name in RECORDED:
        yield from islice(recorded(name, frames_each), most)


def pictures(path: Path, every: int = 1, most: int | None = None) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        end = None if most is None else every * most
        wanted = islice(container.decode(video=0), 0, end, every)
        return [frame.to_ndarray(format="rgb24") for frame in wanted]


def of_track(
    name: str, track: Track, frames: Sequence[np.ndarray], frames_each: int, side: int = SIDE
) -> Iterator[Window]:
    first = track.first_frame
    last = min(track.end_frame, len(frames))
    while last - first >= LEAST_FRAMES:
        n = min(frames_each, last - first)
        part = slice(first - track.first_frame, first - track.first_frame + n)
        own = replace(track.frames(part, first_frame=0), track_id=0)
        truth = np.stack([crop(frames[first + i], own.matrices[i], side) for i in range(n)])
        yield Window(f"{name} {first}", truth, own)
        first += n


def crop(picture: np.ndarray, unit: np.ndarray, side: int = SIDE) -> np.ndarray:
    light = picture.astype(np.float32) / 255
    step = crop_side_px(unit) / side
    if step > 1.3:
        light = cv2.GaussianBlur(light, (0, 0), 0.4 * step)
    matrix = crop_matrix(unit, side)
    return np.clip(
        cv2.warpAffine(light, matrix, (side, side), flags=cv2.INTER_CUBIC,
                       borderMode=cv2.BORDER_REPLICATE), 0, 1)  # fmt: skip


def recorded(name: str, frames_each: int, side: int = SIDE) -> Iterator[Window]:
    """The windows of a recorded restorer; the first 96 frames."""
    source, result, every = RECORDED[name]
    folder = shared() / "real-restorers"
    frames, made = (pictures(folder / file, every, 96) for file in (source, result))
    if source == result:
        half = frames[0].shape[1] // 2
        frames, made = [f[:, :half].copy() for f in frames], [f[:, half:].copy() for f in made]
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"key-frames-{os.getpid()}.mkv"
    write(path, frames)
    try:
        analysis = analyze_video(path, settings())
    finally:
        path.unlink()
    track = max(analysis.tracks, key=lambda t: len(t.matrices) * crop_side_px(t.matrices[0]))
    for window in of_track(name, track, frames, frames_each, side):
        first = int(window.name.split()[-1])
        outputs = []
        for i in range(len(window.truth)):
            unit = window.track.matrices[i].astype(np.float64)
            if name == "ed2":
                back = np.linalg.inv(np.vstack([ED2, [0, 0, 1]]))
                unit = (np.vstack([unit, [0, 0, 1]]) @ back)[:2]
            outputs.append(crop(made[first + i], unit, side))
        yield replace(window, results=np.stack(outputs))


def write(path: Path, frames: Sequence[np.ndarray]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "bgr0"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(picture.reformat(format="bgr0")))
        container.mux(stream.encode())


def clip_of(truth: Stack) -> Clip:
    flows = metrics.flows_between(truth, DenseFlow(), blur_px=0)
    side = truth.shape[1]
    skin = [(_centres(side) * side - 0.5).astype(np.float32)]
    for back in flows.backward:
        skin.append(sample(skin[-1], back))
    return Clip(truth, flows, np.stack(skin))


class Made(NamedTuple):
    """The result of one way."""

    crops: Stack
    runs: float
    """The share of frames that the network restored."""
    cpu: float
    """CPU seconds a frame, without the network."""


def off(frames: list[FaceFrame]) -> Made:
    start = time.process_time()
    made = stack(deflicker(iter(frames), Deflicker()))
    return Made(made, 1.0, (time.process_time() - start) / len(frames))


def on(frames: list[FaceFrame], track: Track) -> Made:
    results = {frame.frame.index: frame.faces[0].restored for frame in frames}
    bare = (f.with_faces((replace(f.faces[0], restored=None),)) for f in frames)
    start, runs = time.process_time(), 0

    def network() -> Iterator[FaceFrame]:
        nonlocal runs
        for frame in key_frames.choose(bare, [track], of={0}):
            (face,) = frame.faces
            if not face.is_between:
                runs += 1
                face = replace(face, restored=results[frame.frame.index])
            yield frame.with_faces((face,))

    filled = key_frames.fill(network(), RestorationStats())
    made = stack(deflicker(filled, Deflicker()))
    return Made(made, runs / len(frames), (time.process_time() - start) / len(frames))


def boxes(window: Window) -> tuple[np.ndarray, np.ndarray]:
    """(n, H, W) masks of the eyes and of the mouth."""
    count, side = window.truth.shape[:2]
    masks = np.zeros((2, count, side, side), np.float32)
    for at, (matrix, points) in enumerate(
        zip(window.track.matrices, window.track.landmarks, strict=True)
    ):
        unit = apply(matrix.astype(np.float64), points.astype(np.float64))
        spots = ((0, unit[0], (0.075, 0.05)), (0, unit[1], (0.075, 0.05)),
                 (1, unit[3:].mean(axis=0), (0.12, 0.075)))  # fmt: skip
        for which, (x, y), (dx, dy) in spots:
            x1, x2, y1, y2 = (round(side * v) for v in (x - dx, x + dx, y - dy, y + dy))
            masks[which, at, max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = 1
    return masks[0], masks[1]


def fastest(truth: Stack, masks: np.ndarray) -> np.ndarray:
    """The fifth of the frames in which what is under the masks changes most."""
    blurred = np.stack([cv2.GaussianBlur(t, (0, 0), 1.5) for t in truth])
    change = np.abs(np.diff(blurred, axis=0)).mean(axis=-1)
    speed = np.array(
        [(c * m).sum() / max(m.sum(), 1) for c, m in zip(change, masks[1:], strict=True)]
    )
    return 1 + np.argsort(-speed)[: max(1, len(truth) // 5)]


def regional_db(output: Stack, truth: Stack, masks: np.ndarray, at: np.ndarray) -> float:
    found = [
        metrics.psnr_db(output[t : t + 1], truth[t : t + 1], masks[t])[0]
        for t in at
        if masks[t].any()
    ]
    return float(np.mean(found)) if found else float("nan")


class Row(NamedTuple):
    """The change against the network on every frame."""

    runs: float
    psnr_db: float
    flicker: float
    detail: float
    worst_db: float
    eyes_db: float
    mouth_db: float
    equal: bool
    cpu: float


def measured(window: Window, wear: Wear, boil: Boil, seed: int = 0) -> Row:
    clip, mask = clip_of(window.truth), face_mask(SIDE)
    result = restored(clip, boil, seed)
    frames = face_frames(worn(window.truth, wear, seed), result)
    usual, keyed = off(frames), on(frames, window.track)
    eyes, mouth = boxes(window)
    truth, flows = window.truth, clip.flows

    def psnr(o: Stack) -> np.ndarray:
        return metrics.psnr_db(o, truth, mask)

    def flick(o: Stack) -> float:
        return metrics.rms(metrics.flicker(o, truth, flows, mask))

    def detail(o: Stack) -> float:
        return metrics.ratio(metrics.true_detail(o, truth, mask))

    plain = psnr(result)
    a, b = psnr(usual.crops), psnr(keyed.crops)
    quick_eyes, quick_mouth = fastest(truth, eyes), fastest(truth, mouth)
    return Row(
        keyed.runs,
        float((b - a).mean()),
        flick(keyed.crops) / flick(usual.crops) - 1,
        detail(keyed.crops) / detail(usual.crops) - 1,
        float((b - plain).min() - (a - plain).min()),
        regional_db(keyed.crops, truth, eyes, quick_eyes)
        - regional_db(usual.crops, truth, eyes, quick_eyes),
        regional_db(keyed.crops, truth, mouth, quick_mouth)
        - regional_db(usual.crops, truth, mouth, quick_mouth),
        bool(np.array_equal(keyed.crops, usual.crops)),
        keyed.cpu - usual.cpu,
    )


def mouth_error(window: Window, output: Stack) -> float:
    """The difference of the mouth to the network's own output where it is fastest, in levels."""
    _, mouth = boxes(window)
    quick = fastest(window.truth, mouth)
    weights = mouth[quick][..., None]
    squares = weights * (output - window.results)[quick] ** 2
    return 255 * float(np.sqrt(squares.sum() / (3 * weights.sum())))


def of_trained(window: Window) -> Row:
    """The same for the recorded outputs of a trained restorer, without a truth."""
    results = window.results
    frames = face_frames(window.truth, results)
    usual, keyed = off(frames), on(frames, window.track)
    flows, mask = clip_of(window.truth).flows, face_mask(SIDE)

    def flick(o: Stack) -> float:
        return metrics.rms(metrics.blind_flicker(o, window.truth, flows, mask))

    sharp = [np.nanmean(metrics.sharpness(made.crops, results, mask)) for made in (keyed, usual)]
    nothing = float("nan")
    return Row(
        keyed.runs, nothing, flick(keyed.crops) / flick(usual.crops) - 1, sharp[0] / sharp[1] - 1,
        nothing, mouth_error(window, usual.crops), mouth_error(window, keyed.crops),
        bool(np.array_equal(keyed.crops, usual.crops)), keyed.cpu - usual.cpu,
    )  # fmt: skip


def cells(row: Row, *, has_truth: bool) -> list[str]:
    unit = "+.2f" if has_truth else ".1f"
    return [
        f"{row.runs:.2f}",
        f"{row.psnr_db:+.2f}" if has_truth else "",
        f"{100 * row.flicker:+.1f} %",
        f"{100 * row.detail:+.1f} %",
        f"{row.worst_db:+.2f}" if has_truth else "",
        format(row.eyes_db, unit),
        format(row.mouth_db, unit),
        "yes" if row.equal else "",
        f"{1000 * row.cpu:.0f}",
    ]


def table(title: str, goals: Sequence[str] = ()) -> Table:
    made = Table(title=title)
    for heading in ("half", "window", "network runs", "PSNR dB", "FLK", "DTL", "WORST dB",
                    "eyes", "mouth", "equal", "CPU ms more"):  # fmt: skip
        made.add_column(heading, justify="left" if heading in ("half", "window") else "right")
    if goals:
        made.add_row("", "goal", *goals, style="dim", end_section=True)
    return made


def sheet(window: Window, path: Path) -> None:
    """Write the six frames that differ most: source, every frame by the network, key frames."""
    result = (
        restored(clip_of(window.truth), Boil(), 0) if window.results is None else window.results
    )
    source = worn(window.truth, X4, 0) if window.results is None else window.truth
    frames = face_frames(source, result)
    usual, keyed = off(frames).crops, on(frames, window.track).crops
    apart = np.abs(usual - keyed).mean(axis=(1, 2, 3))
    worst = sorted(np.argsort(-apart)[:6])
    rows = [np.concatenate([each[t] for t in worst], axis=1) for each in (source, usual, keyed)]
    picture = np.clip(255 * np.concatenate(rows), 0, 255).astype(np.uint8)
    cv2.imwrite(str(path), picture[..., ::-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=24, help="in a window")
    parser.add_argument("--most", type=int, default=100, help="windows of a track")
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=["x4"])
    parser.add_argument("--only", default="", help="windows whose name has this")
    parser.add_argument("--sheet", type=Path, help="a PNG with the frames that differ most")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    console = Console(width=132)
    trained = table("trained restorers; mouth and eyes columns: mouth with all, with key frames")
    tables = {name: table(f"simulated restorer, {name}", GOALS) for name in options.runs}
    seen: dict[str, int] = {}
    for window in windows(options.frames, options.most):
        track = window.name.rsplit(" ", 1)[0]
        half = "AB"[seen.setdefault(track, 0) % 2]
        seen[track] += 1
        if options.only not in window.name:
            continue
        for name, made in tables.items():
            row = measured(window, *RUNS[name])
            made.add_row(half, window.name, *cells(row, has_truth=True))
        if window.results is not None:
            row = of_trained(window)
            trained.add_row(half, window.name, *cells(row, has_truth=False))
        if options.sheet is not None:
            place = options.sheet.with_stem(f"{options.sheet.stem} {window.name}")
            sheet(window, place)
    for made in (*tables.values(), trained):
        console.print(made)


if __name__ == "__main__":
    main()

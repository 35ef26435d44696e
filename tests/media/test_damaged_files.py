"""Damaged files: what can be decoded comes out, the same every time, and what cannot is counted."""

import faulthandler
import hashlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import av
import av.error
import imageio_ffmpeg
import numpy as np
import pytest
from helpers.events import messages
from helpers.media import AS_PAINTED, Painter, frame_times, mild_image, planes_of, write_video
from helpers.recordings import record
from helpers.sources import ffmpeg, picture, tone

from vidrestore.analysis import pipeline
from vidrestore.analysis.replay import frames_again
from vidrestore.api import restore_video
from vidrestore.common.errors import InputError, VidrestoreError
from vidrestore.common.events import Event
from vidrestore.common.profiles import load_settings
from vidrestore.imaging.planes import checksum
from vidrestore.jobs.summary import Summary
from vidrestore.media import decode as stage
from vidrestore.media.decode import DecodeErrors, TimeRange, decode
from vidrestore.media.encode import VideoWriter
from vidrestore.media.probe import probe
from vidrestore.models import factory
from vidrestore.models.detectors import Detector, detection
from vidrestore.review.comparison import write_comparison

_FRAMES = 30
_HANG_SECONDS = 120
# On some processors x264 gives other bytes every time with its macroblock tree.
_H264 = "-c:v libx264 -preset veryfast -x264-params mbtree=0 -bf 2 -g 12 -c:a aac"
KINDS = {
    "mp4": ("end.mp4", _H264),
    "mp4 that begins with its index": ("start.mp4", f"{_H264} -movflags +faststart"),
    "mkv": ("source.mkv", _H264),
    "avi": ("source.avi", "-c:v mpeg4 -bf 2 -g 12 -q:v 5 -c:a mp2"),
    "mpeg-ps": ("source.mpg", "-c:v mpeg2video -bf 2 -g 12 -q:v 5 -c:a mp2"),
}
# Every run analyzes, and needs no weights.
PLAIN = {"detect.detector": "haar", "detect.remember": False}
OTHERS = {
    "mjpeg": ("mjpeg.avi", "-c:v mjpeg -q:v 5 -an"),
    "hevc": ("hevc.mkv", "-c:v libx265 -preset ultrafast -x265-params log-level=error:pools=1 -an"),
}
CASES = [
    pytest.param(kind, seed, marks=[] if seed < 2 else pytest.mark.long)
    for kind in KINDS
    for seed in range(25 if "mp4" in kind else 50)
]


class OneFace(Detector):
    """Sees a face in the middle of every picture of 64 x 48 pixels."""

    coarse = False

    def __call__(self, picture: np.ndarray) -> list[Any]:
        points = [[24, 20], [40, 20], [32, 28], [26, 36], [38, 36]]
        return [detection([16, 10, 48, 44], points, 0.9)]


class Run(NamedTuple):
    """What became of a source."""

    error: VidrestoreError | None
    summary: Summary | None = None
    frames: tuple[tuple[int, str], ...] = ()
    """(pts, hash of the samples) of what reached the encoder."""


@pytest.fixture(autouse=True)
def detector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory, "open_detector", lambda *_, **__: OneFace())


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """An undamaged file of a kind, the same bytes on every machine; made when first asked for."""
    folder = tmp_path_factory.mktemp("whole")

    @cache
    def make(kind: str) -> Path:
        name, how = (KINDS | OTHERS)[kind]
        same = "-flags +bitexact -fflags +bitexact -threads 1"
        ffmpeg(picture("64x48", _FRAMES), tone(1.2), how, same, folder / name)
        return folder / name

    return make


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Restores a source with all that is ours, but for the networks."""
    frames: list[tuple[int, str]] = []
    write = VideoWriter.write

    def noting(self: VideoWriter, frame: Any) -> None:
        if frame.index == 0:  # the encoder is tried with one frame before
            frames.clear()
        frames.append((frame.pts, digest(frame.image)))
        write(self, frame)

    monkeypatch.setattr(VideoWriter, "write", noting)

    def run(source: Path, target: Path, **options: Any) -> Run:
        settings = load_settings(
            options=AS_PAINTED | PLAIN | {"encode.preset": "ultrafast"} | options
        )
        faulthandler.dump_traceback_later(_HANG_SECONDS, exit=True, file=sys.__stderr__)
        try:
            summary = restore_video(source, target, settings, restorer=Painter())
        except VidrestoreError as error:
            return Run(error)
        finally:
            faulthandler.cancel_dump_traceback_later()
        return Run(None, summary, tuple(frames))

    return run


def digest(image: Any) -> str:
    return hashlib.md5(b"".join(p.tobytes() for p in planes_of(image))).hexdigest()


@contextmanager
def one_processor() -> Iterator[None]:
    """Decoders and encoders that count the processors find one, where the system lets them."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    all_of_them = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(all_of_them)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_of_them)


def mutated(data: bytes, seed: int) -> bytes:
    """One kind of damage in some places: bits, an end, blocks of zeros, what is not there."""
    random, damaged, size = np.random.default_rng(seed), bytearray(data), len(data)

    def block(most: int) -> slice:
        length = int(np.exp(random.uniform(0, np.log(most))))
        begin = int(random.integers(len(damaged) - length))
        return slice(begin, begin + length)

    kind = ("flips", "cut", "zeros", "removed", "swapped")[seed % 5]
    if kind == "cut":
        del damaged[int(size * random.uniform(0.02, 0.99)) :]
    for _ in range(int(np.exp(random.uniform(0, np.log(200)))) if kind == "flips" else 0):
        damaged[int(random.integers(size))] ^= 1 << int(random.integers(8))
    for _ in range(int(random.integers(1, 4)) if kind in ("zeros", "removed") else 0):
        lost = block(size // 8)
        damaged[lost] = bytes(lost.stop - lost.start if kind == "zeros" else 0)
    if kind == "swapped":
        length = int(np.exp(random.uniform(np.log(8), np.log(size // 6))))
        one, other = np.sort(random.integers(0, (size - length) // length, 2)) * length
        first, second = (slice(at, at + length) for at in (int(one), int(other)))
        damaged[first], damaged[second] = damaged[second], damaged[first]
    return bytes(damaged)


def judged(path: Path) -> tuple[int, int]:
    """How many frames others decode, but for those of another shape than most; how many corrupt."""
    images = []
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            stream = container.streams.best("video")
            if stream is not None and stream.codec_context is not None:
                stream.thread_type = "NONE"
                images = list(decodable(container, stream))
    except av.error.FFmpegError:
        pass
    shapes = Counter(shape for shape, _ in images)
    usual, _ = max(shapes.items(), key=lambda item: item[1], default=(None, 0))
    strays = sum(shape != usual for shape, _ in images)
    frames = max(len(images), frames_of_ffmpeg(path)) - strays
    return frames, sum(corrupt for shape, corrupt in images if shape == usual)


def decodable(container: Any, stream: Any) -> Iterator[tuple[tuple[Any, ...], bool]]:
    """(shape, is corrupt) of every frame that PyAV can be made to give."""
    for _ in range(100):  # after an error the container may have more
        try:
            for packet in container.demux(stream):
                try:
                    images = stream.codec_context.decode(packet)
                except av.error.FFmpegError:
                    continue
                yield from (((i.width, i.height, i.format.name), i.is_corrupt) for i in images)
            return
        except av.error.FFmpegError:
            continue


def frames_of_ffmpeg(path: Path) -> int:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "quiet", "-i", str(path)]
    command += ["-map", "0:v:0", "-fps_mode", "passthrough", "-f", "framemd5", "-"]
    lines = subprocess.run(command, capture_output=True, timeout=_HANG_SECONDS).stdout.splitlines()
    return sum(not line.startswith(b"#") for line in lines)


@pytest.mark.long
@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_every_frame_that_can_be_decoded_comes_out_and_the_same_again(
    tmp_path: Path, whole: Callable[[str], Path], run: Callable[..., Run], kind: str, seed: int
) -> None:
    source = tmp_path / whole(kind).name
    source.write_bytes(mutated(whole(kind).read_bytes(), seed))
    into = {"encode.codec": "ffv1"} if seed % 2 else {}
    targets = [tmp_path / f"{name}{'.mkv' if seed % 2 else '.mp4'}" for name in ("one", "two")]

    first = run(source, targets[0], **into)
    with one_processor():
        second = run(source, targets[1], **into, **{"encode.check": False})

    frames, corrupt = judged(source)
    if first.error is not None:
        assert frames == 0, first.error
        assert isinstance(first.error, InputError)
        assert "\n" not in str(first.error)
        assert repr(second.error) == repr(first.error)
        assert list(tmp_path.iterdir()) == [source]
        return
    assert first.summary.frames >= frames > 0
    assert first.summary.corrupt_frames >= corrupt
    assert first.frames == second.frames
    assert first.summary.warnings == second.summary.warnings
    for target in targets:
        check_output(target, first)


ENDS = {".mov": "-movflags +faststart", ".mp4": "-movflags +faststart", ".flv": "", ".mkv": "",
        ".ts": "", ".avi": ""}  # fmt: skip


@pytest.mark.parametrize("suffix", ENDS)
def test_a_file_that_ends_early_loses_no_frame_in_silence(tmp_path: Path, suffix: str) -> None:
    data = record(tmp_path / f"whole{suffix}", 1, 50, more=ENDS[suffix]).read_bytes()
    source = tmp_path / f"source{suffix}"
    for share in (0.5, 0.7, 0.9):
        source.write_bytes(data[: int(len(data) * share)])
        wanted, damage = frames_of_ffmpeg(source), DecodeErrors()
        assert wanted > 20
        assert len(list(decode(source, damage))) == wanted or damage.found
        assert len(list(decode(source, DecodeErrors(), one_thread=True))) == wanted


@pytest.mark.parametrize("suffix", [".mov", ".flv"])
def test_a_comparison_shows_all_frames_of_a_file_that_ends_early(
    tmp_path: Path, suffix: str
) -> None:
    data = record(tmp_path / f"whole{suffix}", 1, more=ENDS[suffix]).read_bytes()
    source = tmp_path / f"source{suffix}"
    source.write_bytes(data[: len(data) * 7 // 10])
    compared = write_comparison(source, source, tmp_path / "compared.mp4")
    assert compared.frames == frames_of_ffmpeg(source)


def test_a_stream_that_no_container_holds_is_left_out_and_said(tmp_path, whole, run):
    """Its header lost the codec and the sample rate."""
    source = tmp_path / "source.mp4"
    source.write_bytes(mutated(whole("mp4 that begins with its index").read_bytes(), 15))
    done = run(source, tmp_path / "out.mkv")
    assert done.error is None
    assert any(
        "can hold stream 1 (unknown codec), so it is left out" in w for w in done.summary.warnings
    )
    assert "0x" not in "".join(done.summary.warnings)
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def check_output(target: Path, run: Run) -> None:
    """Its video has all the frames, one after the other, and exactly where that is possible."""
    with av.open(str(target)) as container:
        # What a damaged header calls a video besides is none that anything decodes.
        stream = next(s for s in container.streams.video if s.codec_context is not None)
        images = list(container.decode(stream))
    assert len(images) == len(run.frames) == run.summary.frames
    assert all(a.pts < b.pts for a, b in pairwise(images))
    if run.summary.codec == "ffv1":
        assert [digest(image) for image in images] == [made for _, made in run.frames]


def checksums(path: Path, **options: Any) -> list[tuple[int, int]]:
    return [(f.pts, checksum(f.image)) for f in decode(path, DecodeErrors(), **options)]


@pytest.mark.parametrize("kind", ["mjpeg", "mpeg-ps", "hevc"])
def test_frames_do_not_depend_on_how_long_others_are_kept(tmp_path, whole, kind):
    """Decoders leave parts of damaged frames as they find the memory, and get it back from us."""
    source, data = tmp_path / whole(kind).name, whole(kind).read_bytes()
    headers = len(data) // 4
    for seed in range(0, 40, 5):
        source.write_bytes(data[:headers] + mutated(data[headers:], seed))
        kept = list(decode(source, DecodeErrors(), one_thread=True))
        assert [(f.pts, checksum(f.image)) for f in kept] == checksums(source, one_thread=True)


def test_a_frame_that_several_threads_decode_otherwise_is_decoded_by_one(whole, monkeypatch):
    source = whole("mkv")
    analysis = pipeline.analyze_video(source, load_settings(options=PLAIN))
    decoded = stage._decoded

    def racing(container, stream, damage, one_thread, *arguments, **more):
        images = decoded(container, stream, damage, one_thread, *arguments, **more)
        for index, image in enumerate(images):
            if index > 20 and not one_thread:
                image.make_writable()
                planes = image.planes[0]
                planes.update(bytes(len(memoryview(planes))))
            yield image

    monkeypatch.setattr(stage, "_decoded", racing)
    again = [(f.index, f.pts, checksum(f.image)) for f in frames_again(source, analysis)]
    assert again == list(zip(range(_FRAMES), analysis.pts, analysis.crc32, strict=True))
    assert [crc for _, crc in checksums(source)] != analysis.crc32.tolist()


@pytest.mark.parametrize(
    ("given", "wanted", "repaired"),
    [
        ([0, 40, 40, 120, 160], [0, 40, 80, 120, 160], 1),
        ([None, 40, None, 120, None], [0, 40, 80, 120, 160], 3),
        ([0, 40, 70_000_000, 120, 160], [0, 40, 80, 120, 160], 1),
        ([0, 40, 80, 5, 160], [0, 40, 80, 120, 160], 1),
        ([0, 120, 80, 160, 200], [0, 120, 140, 160, 200], 1),
        ([10**9, 40, 80, 120, 160], [0, 40, 80, 120, 160], 1),
        ([0, 40, 80, 120, 10**12], [0, 40, 80, 120, 160], 1),
        ([0, 40, 10**12, 10**12 + 40, 160], [0, 40, 80, 120, 160], 2),
        ([0, 40, 0, 40, 80], [0, 40, 80, 120, 160], 3),
        ([0, 40, 36_000_000, 36_000_040], [0, 40, 36_000_000, 36_000_040], 0),
    ],
    ids=["repeated", "missing", "far", "early", "swapped", "first", "last", "two", "back", "long"],
)  # fmt: skip
def test_times_that_do_not_fit_are_put_between_their_neighbours(
    whole, monkeypatch, given, wanted, repaired
):
    decoded = stage._decoded

    def timed(*arguments, **more):
        for image, pts in zip(decoded(*arguments, **more), given, strict=False):
            image.pts = pts
            yield image

    monkeypatch.setattr(stage, "_decoded", timed)
    damage = DecodeErrors()
    assert [f.pts for f in decode(whole("mkv"), damage)] == wanted
    assert damage.repaired_times == repaired


def test_a_frame_that_lasts_ten_hours_stays_so(tmp_path, run):
    images = [mild_image(64, 48, "yuv420p", i) for i in range(5)]
    times = [0, 40, 80, 36_000_120, 36_000_160]
    source, target = tmp_path / "source.mkv", tmp_path / "out.mp4"
    write_video(source, images, codec="libx264", pts=times, time_base=Fraction(1, 1000))
    result = run(source, target)
    assert result.error is None
    assert frame_times(target) == [Fraction(time, 1000) for time in times]


@pytest.mark.parametrize("strays", [[7], [0, 1], [28, 29]])
def test_damaged_frames_of_another_shape_are_left_out_and_counted(whole, monkeypatch, strays):
    decoded = stage._decoded
    shape = {"width": 32, "height": 32, "format": SimpleNamespace(name="gray")}

    def straying(*arguments, **more):
        for index, image in enumerate(decoded(*arguments, **more)):
            stray = SimpleNamespace(pts=image.pts, duration=0, is_corrupt=True, **shape)
            stray.opaque = None
            yield stray if index in strays else image

    monkeypatch.setattr(stage, "_decoded", straying)
    damage = DecodeErrors()
    pts = [frame.pts for frame in decode(whole("mkv"), damage)]
    assert pts == [40 * i for i in range(_FRAMES) if i not in strays]
    assert damage == DecodeErrors(decode_errors=len(strays))
    assert probe(whole("mkv")).info.width == 64


def test_a_part_of_a_damaged_file_is_read_from_the_files_beginning(tmp_path, whole):
    data, source = bytearray(whole("mkv").read_bytes()), tmp_path / "source.mkv"
    with av.open(str(whole("mkv"))) as container:
        late = [p for p in container.demux(video=0) if p.pts is not None and p.pts > 700]
    hit = max(late, key=lambda packet: packet.size)
    data[hit.pos + hit.size // 2 : hit.pos + hit.size] = bytes(hit.size - hit.size // 2)
    source.write_bytes(data)
    events: list[Event] = []
    options = PLAIN | {"detect.mesh": "off"}
    settings, span = load_settings(options=options), TimeRange(Fraction(3, 5))
    analysis = pipeline.analyze_video(source, settings, span=span, on_event=events.append)
    assert analysis.one_thread
    said = messages(events)
    assert said == [
        "the file is damaged; vidrestore reads it again from its beginning, so that every run "
        "gives the same result"
    ]
    known = list(zip(analysis.pts, analysis.crc32, strict=True))
    assert known == [f for f in checksums(source, one_thread=True) if f[0] >= 600]


def test_damage_of_the_sound_costs_no_frame(tmp_path, whole):
    data = bytearray(whole("mp4 that begins with its index").read_bytes())
    data[data.rindex(b"stsz") + 16 + 4 * 2] = 0x20  # the third packet has half a gigabyte
    source = tmp_path / "source.mp4"
    source.write_bytes(data)
    assert len(checksums(source)) == _FRAMES


def test_what_lies_behind_an_unreadable_place_is_read_too(whole, monkeypatch):
    opened = stage.open_source

    @contextmanager
    def stumbling(path, device):
        with opened(path, device) as container:
            numbers = count()

            def demux(stream):
                for packet in container.demux(stream):
                    if next(numbers) == 4:
                        raise av.error.InvalidDataError(1, "on purpose")
                    yield packet

            yield SimpleNamespace(
                streams=container.streams,
                demux=demux,
                format=container.format,
                name=container.name,
            )

    monkeypatch.setattr(stage, "open_source", stumbling)
    damage = DecodeErrors()
    assert len(list(decode(whole("mkv"), damage, one_thread=True))) == _FRAMES - 1
    assert damage.decode_errors == 1


def test_a_video_that_nothing_decodes_is_called_so(tmp_path, whole):
    source = tmp_path / "source.mkv"
    data = whole("mkv").read_bytes()
    source.write_bytes(data.replace(b"V_MPEG4/ISO/AVC", b"V_MPEG9/ISO/AVC"))
    with pytest.raises(InputError, match="cannot decode the video"):
        probe(source)

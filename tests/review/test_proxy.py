"""Copies that browsers play: what a player would see of the source, at the same times."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from helpers.footage import film, images, pan, woven_by_hand
from helpers.media import frame_times, mild_image, write_video
from helpers.small_disk import Disk
from helpers.videos import Command, MakeVideo

from vidrestore.common.errors import InputError, OutputError, UsageError
from vidrestore.common.events import Event, Notice, Progress
from vidrestore.imaging.display import picture_of, resized
from vidrestore.imaging.frame import VideoInfo
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.media.probe import probe
from vidrestore.review import proxy
from vidrestore.review.proxy import write_proxy

Picture = npt.NDArray[np.uint8]


def smooth(width: int, height: int, seed: int = 0) -> Picture:
    """Colors that change slowly, so that neither scaling nor coding changes them much."""
    y, x = np.mgrid[:height, :width]
    red = 60 + 120 * x / width
    green = 60 + 100 * y / height
    blue = 90 + 60 * np.sin((x + y) / (width + height) * 3 + seed)
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def shown(path: Path) -> tuple[VideoInfo, list[Picture]]:
    info = probe(path).info
    return info, [picture_of(frame.image, info) for frame in decode(path, DecodeErrors())]


def streams_of(path: Path) -> list[tuple[str, str, Fraction]]:
    """(kind, codec, start in seconds) of each stream."""
    with av.open(str(path)) as container:
        return [
            (s.type, s.codec_context.name, (s.start_time or 0) * Fraction(s.time_base))
            for s in container.streams
        ]


def test_a_browser_plays_it(tmp_path: Path, make_video: MakeVideo) -> None:
    source = make_video("tape.mkv", frames=60, size=(160, 120), audio=True)
    target, events = tmp_path / "tape.mp4", list[Event]()
    made = write_proxy(source, target, on_event=events.append)
    assert made.as_dict() == {
        "frames": 60, "width": 160, "height": 120, "has_sound": True,
        "first_seconds": 0.0, "seconds": 2.4,
    }  # fmt: skip
    assert [(kind, codec) for kind, codec, _ in streams_of(target)] == [
        ("video", "h264"), ("audio", "aac"),
    ]  # fmt: skip
    info, _ = shown(target)
    assert (info.pixel_format, info.matrix, info.full_range) == ("yuv420p", "bt709", False)
    assert not info.guessed
    data = target.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    progress = [(e.stage, e.frames) for e in events if isinstance(e, Progress)]
    assert set(progress) == {("proxy", 60)}
    frames = [event.frame for event in events if isinstance(event, Progress)]
    assert frames[0] == 0
    assert frames[-1] == 60
    assert not [event for event in events if isinstance(event, Notice)]
    with av.open(str(target)) as container:
        keys = [float(p.pts * p.time_base) for p in container.demux(video=0) if p.is_keyframe]
        sound = container.streams.audio[0].codec_context
        assert (sound.layout.name, sound.sample_rate) == ("stereo", 48000)
    assert keys == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".avi"])
def test_each_frame_has_its_time(tmp_path: Path, suffix: str) -> None:
    count = 40
    even = [512 * i for i in range(count)]
    uneven = [512 * i + (i % 3) * 140 + (i > 20) * 4000 for i in range(count)]
    source = write_video(
        tmp_path / f"tape{suffix}", [mild_image(96, 64, "yuv420p", i) for i in range(count)],
        codec="mpeg4" if suffix == ".avi" else "libx264", pts=even if suffix == ".avi" else uneven,
    )  # fmt: skip
    target = tmp_path / "proxy.mp4"
    write_proxy(source, target)
    wanted, found = frame_times(source), frame_times(target)
    assert len(found) == count
    off = [float(a - b) for a, b in zip(found, wanted, strict=True)]
    assert max(map(abs, off)) < 1e-4


def test_a_clock_that_begins_late_does_so_in_the_copy(tmp_path: Path) -> None:
    """Browsers play such a file from that time on."""
    source = write_video(
        tmp_path / "tape.mkv", [mild_image(96, 64, "yuv420p", i) for i in range(30)],
        codec="libx264", time_base=Fraction(1, 1000), pts=range(10_000, 11_200, 40),
    )  # fmt: skip
    made = write_proxy(source, tmp_path / "proxy.mp4")
    assert (made.first_seconds, made.seconds) == (10.0, 1.2)
    with av.open(str(tmp_path / "proxy.mp4")) as container:
        keys = [float(p.pts * p.time_base) for p in container.demux(video=0) if p.is_keyframe]
    assert keys == [10.0, 11.0]


def test_the_copy_of_a_transport_stream_begins_at_zero(tmp_path: Path) -> None:
    source = write_video(
        tmp_path / "tape.ts", [mild_image(96, 64, "yuv420p", i) for i in range(30)],
        codec="libx264", time_base=Fraction(1, 1000), pts=range(90_000_000, 90_001_200, 40),
    )  # fmt: skip
    made = write_proxy(source, tmp_path / "proxy.mp4")
    assert (made.frames, made.first_seconds) == (30, 0.0)


def test_sound_and_picture_that_begin_late_do_so_in_the_copy(tmp_path: Path) -> None:
    for late in ("audio", "video"):
        source = _offset(tmp_path / f"{late}.mkv", late)
        target = tmp_path / f"{late}.mp4"
        write_proxy(source, target)
        assert abs(float(frame_times(target)[0]) - (0.5 if late == "video" else 0)) < 2e-3
        assert abs(_loud_from(target) - (0.5 if late == "audio" else 0)) < 0.03


def _offset(path: Path, late: str) -> Path:
    """Two seconds of picture and tone; one of them begins half a second after the other."""
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        sound: Any = container.add_stream("pcm_s16le", rate=48000, layout="mono")
        tone = (8000 * np.sin(np.arange(96000) / 10)).astype(np.int16)[None]
        for i in range(50):
            image = mild_image(96, 64, "yuv420p", i)
            image.pts = 2 * i + (25 if late == "video" else 0)
            image.time_base = video.codec_context.time_base = Fraction(1, 50)
            container.mux(video.encode(image))
            samples = tone[:, 1920 * i : 1920 * (i + 1)].copy()
            part = av.AudioFrame.from_ndarray(samples, "s16", "mono")
            part.sample_rate, part.time_base = 48000, Fraction(1, 48000)
            part.pts = 1920 * i + (24000 if late == "audio" else 0)
            container.mux(sound.encode(part))
        for stream in (video, sound):
            container.mux(stream.encode(None))
    return path


def _loud_from(path: Path) -> float:
    """The time at which the tone begins, in seconds."""
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            loud = np.flatnonzero(np.abs(frame.to_ndarray()).max(axis=0) > 0.05)
            if len(loud) and frame.time is not None:
                return float(frame.time) + float(loud[0]) / frame.sample_rate
    raise AssertionError("there is no tone")


ORIENTATIONS = [
    (1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0),
    (-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0),
]  # fmt: skip


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_it_is_upright(tmp_path: Path, orientation: tuple[int, int, int, int]) -> None:
    a, b, c, d = orientation

    def turned(stream: Any) -> None:
        one = 65536
        stream.set_display_matrix([a * one, c * one, 0, b * one, d * one, 0, 0, 0, 1 << 30])

    source = write_video(
        tmp_path / "tape.mp4", images([smooth(128, 64)] * 3, "yuv420p"), codec="libx264",
        options={"crf": "8"}, prepare=turned,
    )  # fmt: skip
    assert probe(source).info.display_orientation == orientation
    made = write_proxy(source, tmp_path / "proxy.mp4")
    assert (made.width, made.height) == ((128, 64) if a else (64, 128))
    info, pictures = shown(tmp_path / "proxy.mp4")
    assert info.display_matrix is None
    _, wanted = shown(source)
    assert np.abs(pictures[1].astype(int) - wanted[1]).mean() < 2


FORMATS = [
    ("yuv420p", "ffv1", ".mkv", (162, 122)), ("yuva420p", "ffv1", ".mkv", (160, 120)),
    ("yuvj420p", "mjpeg", ".avi", (160, 120)), ("gray", "ffv1", ".mkv", (161, 121)),
    ("gbrp", "utvideo", ".avi", (161, 121)), ("rgb24", "png", ".mov", (161, 121)),
    ("yuv422p10le", "prores_ks", ".mov", (160, 120)), ("gray10le", "ffv1", ".mkv", (161, 121)),
    ("yuv444p12le", "ffv1", ".mkv", (161, 121)), ("yuv411p", "ffv1", ".mkv", (160, 120)),
]  # fmt: skip


@pytest.mark.parametrize(("pixel_format", "codec", "suffix", "size"), FORMATS)
def test_every_kind_of_picture_looks_as_it_did(
    tmp_path: Path, pixel_format: str, codec: str, suffix: str, size: tuple[int, int]
) -> None:
    source = write_video(
        tmp_path / f"tape{suffix}", images([smooth(*size)] * 3, pixel_format), codec=codec,
        time_base=Fraction(1, 25), pts=range(3),
    )  # fmt: skip
    made = write_proxy(source, tmp_path / "proxy.mp4")
    assert (made.width, made.height) == (size[0] // 2 * 2, size[1] // 2 * 2)
    assert made.frames == 3
    before, after = (shown(path)[1][1] for path in (source, tmp_path / "proxy.mp4"))
    wanted = resized(before, made.width, made.height).astype(int)
    assert np.abs(after - wanted)[4:-4, 4:-4].mean() < 2.5


def test_it_is_reduced_to_the_height_and_never_enlarged(tmp_path: Path) -> None:
    source = write_video(
        tmp_path / "tape.mkv", images([smooth(320, 240)] * 2, "yuv420p"), codec="libx264"
    )
    sizes = {}
    for height in (1080, 240, 121):
        made = write_proxy(source, tmp_path / f"{height}.mp4", most_height_px=height)
        sizes[height] = made.width, made.height
    assert sizes == {1080: (320, 240), 240: (320, 240), 121: (160, 120)}


def test_its_pixels_are_square(tmp_path: Path) -> None:
    def wide(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(16, 15)

    source = write_video(
        tmp_path / "tape.mkv", images([smooth(180, 144)] * 2, "yuv420p"), codec="libx264",
        prepare=wide,
    )  # fmt: skip
    made = write_proxy(source, tmp_path / "proxy.mp4")
    assert (made.width, made.height) == (192, 144)
    assert probe(tmp_path / "proxy.mp4").info.sample_aspect_ratio == 1


@pytest.mark.parametrize("order", ["tff", "bff"])
def test_fields_become_one_picture_without_combs_for_each_frame(tmp_path: Path, order: str) -> None:
    frames = woven_by_hand(images(pan(60, 160, 120, speed_px=5), "yuv420p"), order)
    source = film(tmp_path / "tape.mkv", frames, flag=order)
    write_proxy(source, tmp_path / "proxy.mp4")
    info, after = shown(tmp_path / "proxy.mp4")
    assert len(after) == len(frames) == 30
    assert frame_times(tmp_path / "proxy.mp4") == pytest.approx(frame_times(source))
    assert info.field_order == "progressive"
    before = shown(source)[1]

    def combs(picture: Picture) -> float:
        luma = picture.astype(float).mean(axis=2)
        return float(np.abs(luma[1:-1] - (luma[:-2] + luma[2:]) / 2).mean())

    assert np.mean([*map(combs, after)]) < 0.6 * np.mean([*map(combs, before)])


def test_a_progressive_picture_that_calls_itself_interlaced_stays_whole(tmp_path: Path) -> None:
    source = film(
        tmp_path / "tape.mkv", images(pan(30, 160, 120, speed_px=5), "yuv420p"), flag="tff"
    )
    write_proxy(source, tmp_path / "proxy.mp4")
    before, after = (shown(path)[1][12].astype(int) for path in (source, tmp_path / "proxy.mp4"))
    edges = [np.abs(np.diff(picture.mean(axis=2), axis=0)).mean() for picture in (before, after)]
    assert edges[1] > 0.9 * edges[0]  # 0.78 where fields are joined


@pytest.mark.parametrize(("transfer", "primaries"), [(16, 9), (18, 9), (1, 9)])
def test_hdr_looks_as_in_previews(tmp_path: Path, transfer: int, primaries: int) -> None:
    def tagged(stream: Any) -> None:
        context = stream.codec_context
        context.colorspace, context.color_primaries = 9, primaries
        context.color_trc, context.color_range = transfer, 1

    # Of fewer frames than its delay, x265 with B-frames leaves times undefined.
    source = write_video(
        tmp_path / "tape.mkv", images([smooth(160, 120)] * 2, "yuv420p10le"), codec="libx265",
        options={"x265-params": "log-level=none:crf=4:bframes=0"}, prepare=tagged,
    )  # fmt: skip
    assert probe(source).info.primaries == "bt2020"
    write_proxy(source, tmp_path / "proxy.mp4")
    info, after = shown(tmp_path / "proxy.mp4")
    assert (info.transfer, info.primaries, info.pixel_format) == ("sdr", "bt709", "yuv420p")
    before = shown(source)[1]
    assert np.abs(after[0].astype(int) - before[0])[4:-4, 4:-4].mean() < 3


def test_sound_that_cannot_be_converted_is_left_out_with_a_notice(
    tmp_path: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, events = make_video("tape.mkv", frames=10, audio=True), list[Event]()
    monkeypatch.setattr(proxy, "_SOUND_FILTER", "nonsense")
    made = write_proxy(source, tmp_path / "proxy.mp4", on_event=events.append)
    assert not made.has_sound
    assert made.frames == 10
    (notice,) = [event.message for event in events if isinstance(event, Notice)]
    assert "the sound of" in notice


def test_of_a_damaged_video_there_is_a_copy_and_a_notice(
    tmp_path: Path, make_video: MakeVideo
) -> None:
    source, events = make_video("tape.mkv", frames=60), list[Event]()
    data = bytearray(source.read_bytes())
    random = np.random.default_rng(1)
    for at in random.integers(len(data) // 3, len(data), 40):
        data[at] ^= 0xFF
    source.write_bytes(data)
    made = write_proxy(source, tmp_path / "proxy.mp4", on_event=events.append)
    assert made.frames > 15
    (notice,) = [event.message for event in events if isinstance(event, Notice)]
    assert "is damaged" in notice


@pytest.mark.long
def test_nothing_is_left_of_a_copy_that_fails_or_is_stopped(
    tmp_path: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = make_video("tape.mkv", frames=200, size=(320, 240)), tmp_path / "proxy.mp4"
    target.write_bytes(b"before")

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.frame > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_proxy(source, target, on_event=stop)
    monkeypatch.setattr(proxy, "_filters", lambda *_: ["nonsense"])
    with pytest.raises(OutputError, match="cannot be made"):
        write_proxy(source, target)
    assert target.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["proxy.mp4", "tape.mkv"]


def test_a_full_disk_is_named(disk: Disk, make_video: MakeVideo) -> None:
    source = make_video("tape.mkv", frames=60, size=(320, 240))
    disk.remount("size=32k")
    with pytest.raises(OutputError, match="no space is left"):
        write_proxy(source, disk.folder / "proxy.mp4")
    assert not list(disk.folder.glob("*proxy*"))


def test_what_cannot_be_copied_is_refused(
    tmp_path: Path, make_video: MakeVideo, command: Command
) -> None:
    source = make_video("tape.mkv")
    for name, target, message in (
        ("tape.mkv", "proxy.mkv", "must end in .mp4"),
        ("a.png", "proxy.mp4", "is a picture"),
        ("tape.mkv", "there.mp4", "--overwrite"),
    ):
        (tmp_path / "there.mp4").touch()
        done = command("proxy", tmp_path / name, "-o", tmp_path / target)
        assert done.status == 2
        assert message in done.said
    done = command("proxy", tmp_path / "none.mkv", "-o", tmp_path / "proxy.mp4")
    assert done.status == 1
    assert "does not exist" in done.said
    with pytest.raises(UsageError, match="is a picture"):
        write_proxy(tmp_path / "a.png", tmp_path / "proxy.mp4")
    source.write_bytes(b"text")
    with pytest.raises(InputError):
        write_proxy(source, tmp_path / "proxy.mp4")


def test_the_command_prints_progress_and_the_result(
    tmp_path: Path, make_video: MakeVideo, command: Command
) -> None:
    source = make_video("tape.mkv", frames=12, size=(160, 120))
    done = command("proxy", source, "-o", tmp_path / "a.mp4", "--max-height", 60, "--json")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert lines[0] == {"event": "progress", "stage": "proxy", "frame": 0, "frames": 12}
    assert lines[-1] == {
        "event": "done",
        "proxy": {
            "frames": 12,
            "width": 80,
            "height": 60,
            "has_sound": False,
            "first_seconds": 0.0,
            "seconds": 0.48,
        },
    }
    done = command("proxy", source, "-o", tmp_path / "a.mp4", "--max-height", 60, "--overwrite")
    assert "12 frames, 80 x 60 pixels, without sound" in done.out

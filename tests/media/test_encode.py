"""Encode and remux: times, tags, shape and the other streams."""

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.media import (
    Unchanged,
    analysis_of_file,
    frame_times,
    mild_image,
    packets,
    plain_track,
    planes_of,
    random_image,
    write_video,
)

from vidrestore.api import restore_video
from vidrestore.common.errors import OutputError, UsageError
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Settings
from vidrestore.media.decode import DecodeErrors, TimeRange, decode
from vidrestore.media.encode import VideoWriter
from vidrestore.media.probe import probe

VFR = [0, 700, 1100, 2600, 2700, 5000, 5512, 9000]


def decoded_planes(path):
    return [planes_of(frame.image) for frame in decode(path, DecodeErrors())]


def run(source, target, settings=None, tracks=()):
    return restore_video(
        source, target, settings or Settings(), restorer=Unchanged(),
        analysis=analysis_of_file(source, tracks),
    )  # fmt: skip


@pytest.mark.parametrize("codec", ["h264", "hevc", "ffv1"])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_variable_frame_times_are_kept_to_the_tick(tmp_path, codec, suffix):
    if codec == "ffv1" and suffix != ".mkv":
        pytest.skip("ffv1 belongs into mkv")
    images = [mild_image(64, 48, "yuv420p", i) for i in range(len(VFR))]
    start = 6400  # half a second: an edit list in mp4
    source = write_video(
        tmp_path / "source.mp4", images, codec="libx264", pts=[t + start for t in VFR],
        options={"crf": "10"},
    )  # fmt: skip
    target = tmp_path / f"out{suffix}"
    run(source, target, load_settings(options={"encode.codec": codec}))
    wanted = [Fraction(t + start, 12800) for t in VFR]
    got = frame_times(target)
    tolerance = Fraction(1, 1000) if suffix == ".mkv" else 0
    assert len(got) == len(wanted)
    assert max(abs(a - b) for a, b in zip(got, wanted, strict=True)) <= tolerance


@pytest.mark.parametrize(
    "pixel_format", ["yuv420p", "yuv422p10le", "yuv444p", "yuv411p", "gray", "yuva420p"]
)
def test_ffv1_gives_every_sample_back(tmp_path, pixel_format):
    images = [random_image(62, 46, pixel_format, i) for i in range(4)]
    source = write_video(tmp_path / "source.mkv", images, time_base=Fraction(1, 1000),
                         pts=[0, 40, 80, 120])  # fmt: skip
    target = tmp_path / "out.mkv"
    track = plain_track(4, centre=(30, 20), side=40)
    run(source, target, tracks=[track])
    for was, now in zip(decoded_planes(source), decoded_planes(target), strict=True):
        for a, b in zip(was, now, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_tags_shape_and_rotation_are_passed_on(tmp_path, suffix):
    matrix = [0, 65536, 0, -65536, 0, 0, 0, 0, 1073741824]

    def prepare(stream):
        context = stream.codec_context
        context.colorspace, context.color_range = 5, 1
        context.color_primaries, context.color_trc = 5, 6
        context.sample_aspect_ratio = Fraction(16, 15)
        stream.set_display_matrix(matrix)

    images = [mild_image(64, 48, "yuv420p", i) for i in range(3)]
    source = write_video(tmp_path / "source.mp4", images, codec="libx264", prepare=prepare)
    target = tmp_path / f"out{suffix}"
    run(source, target)
    before, after = probe(source).info, probe(target).info
    assert before.display_orientation == (0, -1, 1, 0)
    for name in ("tags", "sample_aspect_ratio", "display_matrix", "width", "height", "matrix"):
        assert getattr(after, name) == getattr(before, name), name


def test_full_range_stays_full_range(tmp_path):
    images = [mild_image(64, 48, "yuvj420p", i) for i in range(3)]
    source = write_video(tmp_path / "source.mp4", images, codec="mjpeg")
    target = tmp_path / "out.mkv"
    run(source, target, load_settings(options={"encode.codec": "ffv1"}))
    after = probe(target).info
    assert after.full_range
    assert "range" not in after.guessed
    for was, now in zip(decoded_planes(source), decoded_planes(target), strict=True):
        np.testing.assert_array_equal(was[0], now[0])


def test_what_an_encoder_cannot_hold_is_refused_before_the_work(tmp_path):
    odd = write_video(tmp_path / "odd.mkv", [random_image(63, 47, "yuv420p", 0)])
    with pytest.raises(OutputError, match=r"h264 cannot hold 63 x 47.*ffv1"):
        run(odd, tmp_path / "out.mkv", load_settings(options={"encode.codec": "h264"}))
    fine = write_video(tmp_path / "fine.mkv", [random_image(64, 48, "yuv420p", 0)])
    with pytest.raises(OutputError, match=r"out\.mkv"):
        run(fine, tmp_path / "out.mp4", load_settings(options={"encode.codec": "ffv1"}))
    with pytest.raises(UsageError, match=r"\.webm must end in"):
        run(fine, tmp_path / "out.webm")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fine.mkv", "odd.mkv"]


def rich_source(path):
    """Video, two sound tracks with languages, subtitles, a chapter and a title."""
    images = [mild_image(64, 48, "yuv420p", i) for i in range(25)]
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Holiday"
        video = container.add_stream("libx264", rate=25, options={"crf": "20"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sounds = []
        for language in ("eng", "fra"):
            sound = container.add_stream("flac", rate=48000, layout="mono")
            sound.metadata["language"] = language
            sounds.append(sound)
        chapter = {"id": 0, "start": 0, "end": 500, "time_base": Fraction(1, 1000)}
        container.set_chapters([chapter | {"metadata": {"title": "one"}}])
        for i, image in enumerate(images):
            image.pts, image.time_base = i, Fraction(1, 25)
            container.mux(video.encode(image))
        container.mux(video.encode(None))
        random = np.random.default_rng(0)
        for sound in sounds:
            noise = random.integers(-900, 900, (1, 48000)).astype(np.int16)
            samples = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = 48000, 0, Fraction(1, 48000)
            container.mux(sound.encode(samples))
            container.mux(sound.encode(None))
    return path


def test_everything_else_of_the_source_is_there_unchanged(tmp_path):
    source = rich_source(tmp_path / "source.mkv")
    target = tmp_path / "out.mkv"
    run(source, target)
    with av.open(str(source)) as a, av.open(str(target)) as b:
        assert [s.type for s in a.streams] == [s.type for s in b.streams]
        assert [s.metadata.get("language") for s in b.streams.audio] == ["eng", "fre"] or [
            s.metadata.get("language") for s in b.streams.audio
        ] == ["eng", "fra"]
        assert b.metadata["title"] == "Holiday"
        assert [c["metadata"]["title"] for c in b.chapters()] == ["one"]
    for index in (1, 2):
        before, after = packets(source, index), packets(target, index)
        assert [p for _, p in before] == [p for _, p in after]
        assert max(abs(s - t) for (s, _), (t, _) in zip(before, after, strict=True)) <= 0.001


def test_a_sample_starts_at_zero_with_its_own_sound(tmp_path):
    source = rich_source(tmp_path / "source.mkv")
    target = tmp_path / "sample.mp4"
    span = TimeRange(Fraction(2, 5), Fraction(4, 5))
    chosen = list(decode(source, DecodeErrors(), span))
    assert [f.index for f in chosen] == list(range(10))
    assert [f.pts for f in chosen] == list(range(400, 800, 40))
    made = analysis_of_file(source, span=span)
    restore_video(source, target, restorer=Unchanged(), analysis=made, span=span)
    assert frame_times(target) == [Fraction(i, 25) for i in range(10)]
    sound = packets(target, 1)
    assert -0.11 < sound[0][0] < 0.11
    assert 0.25 < sound[-1][0] < 0.5


@pytest.mark.skipif(
    not hasattr(os, "sched_setscheduler") or os.geteuid() != 0,
    reason="only root on Linux may take a real-time priority",
)
@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_no_encoder_keeps_a_real_time_priority(tmp_path, monkeypatch, codec):
    """SVT-AV1 gives it to its threads and to the one that opens it, which others inherit."""
    images = [mild_image(64, 64, "yuv420p", i) for i in range(3)]
    source = write_video(tmp_path / "source.mp4", images, codec="libx264")
    seen = []

    def look():
        tasks = Path("/proc/self/task").iterdir()
        policies = {os.sched_getscheduler(int(task.name)) for task in tasks}
        seen.append(policies | {os.sched_getscheduler(0)})

    mux = VideoWriter._mux

    def muxed(self, image):
        mux(self, image)
        look()

    monkeypatch.setattr(VideoWriter, "_mux", muxed)
    run(source, tmp_path / "out.mkv", load_settings(options={"encode.codec": codec}))
    look()
    assert len(seen) > len(images)
    assert set.union(*seen) == {os.SCHED_OTHER}


def test_x264_codes_a_frame_as_one_slice(tmp_path):
    """Slices cost bytes; x264 states in the stream how its threads worked."""
    target = tmp_path / "out.mp4"
    source = write_video(
        tmp_path / "source.mkv", [mild_image(64, 48, "yuv420p", i) for i in range(3)]
    )
    run(source, target, load_settings(options={"encode.codec": "h264"}))
    assert b"sliced_threads=0" in target.read_bytes()


@pytest.mark.long
@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_an_encoder_writes_nothing_to_the_terminal(tmp_path, codec):
    images = [mild_image(64, 64, "yuv420p", i) for i in range(3)]
    source = write_video(tmp_path / "source.mp4", images, codec="libx264")
    given = [sys.executable, "-m", "vidrestore", "restore", str(source), str(tmp_path / "out.mkv")]
    given += ["--codec", codec, "--restorer", "fusion", "--detector", "haar", "--json"]
    done = subprocess.run(given, check=True, capture_output=True, text=True)
    assert done.stderr == ""

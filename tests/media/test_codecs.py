"""Which codec a picture is encoded in, and what is refused before the work begins."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers.media import (
    Unchanged,
    analysis_of_file,
    info_of,
    mild_image,
    plain_track,
    planes_of,
    random_image,
    write_video,
)

from vidrestore.api import restore_video
from vidrestore.common.errors import OutputError
from vidrestore.common.profiles import load_settings
from vidrestore.media.codecs import plan_encoding
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.media.probe import probe

MASTERING = tuple(
    Fraction(n, d)
    for n, d in [
        (17, 25), (8, 25), (53, 200), (69, 100), (3, 20), (3, 50), (3127, 10000), (329, 1000),
        (1, 10000), (1000, 1),
    ]
)  # fmt: skip


def plan(info, name="out.mkv", **changes):
    asked = {
        "codec": "auto", "quality": "high", "preset": "medium", "threads": 4, "hardware": False,
        "pixel_format": "source",
    }  # fmt: skip
    return plan_encoding(info, Path(name), **(asked | changes))


def source(pixel_format="yuv420p", size=(320, 192), **changes):
    return info_of(*size, pixel_format, **changes)


@pytest.mark.parametrize(
    ("info", "name", "codec"),
    [
        (source(codec="h264"), "out.mp4", "h264"),
        (source("yuv422p10le", codec="h264"), "out.mp4", "h264"),
        (source("yuv420p12le", codec="hevc"), "out.mov", "hevc"),
        (source("yuv420p10le", codec="av1"), "out.mp4", "av1"),
        (source("yuv422p10le", codec="prores"), "out.mov", "prores"),
        (source("yuv422p", codec="dnxhd"), "out.mov", "dnxhr"),
        (source("gray16le", codec="ffv1"), "out.mkv", "ffv1"),
        (source(codec="wmv2"), "out.mp4", "hevc"),
        (source("yuvj420p", codec="mjpeg"), "out.mov", "hevc"),
        (source("gbrp", codec="utvideo"), "out.mp4", "hevc"),
        # What the first choice cannot do, the next does.
        (source(codec="mpeg2video", field_order="tff"), "out.mp4", "h264"),
        (source(codec="hevc", field_order="tff"), "out.mp4", "hevc"),
        (source("yuv411p", codec="dvvideo", field_order="bff"), "out.mkv", "ffv1"),
        (source("yuv422p10le", codec="prores"), "out.mp4", "hevc"),
        (source("yuva444p10le", codec="png"), "out.mov", "prores"),
        (source("yuva420p", codec="vp9"), "out.mkv", "ffv1"),
        (source(codec="av1"), "out.mov", "hevc"),
        (source(codec="h264", size=(321, 193)), "out.mkv", "ffv1"),
        (source(codec="av1", size=(321, 193)), "out.mkv", "av1"),
        (source("yuv444p", codec="h264", size=(321, 193)), "out.mp4", "h264"),
        (source("yuv422p", codec="dnxhd", size=(128, 64)), "out.mov", "hevc"),
        (source("yuv422p", codec="dnxhd", matrix="bt601"), "out.mov", "hevc"),
    ],
)
def test_auto_keeps_the_codec_or_takes_the_next_that_holds_the_picture(info, name, codec):
    chosen = plan(info, name)[0]
    assert chosen.codec == codec
    own = {"dnxhd": "dnxhr"}.get(info.codec, info.codec)
    expected = own if own in ("h264", "hevc", "av1", "prores", "dnxhr", "ffv1") else "hevc"
    assert any(f"encodes the picture in {codec}" in note for note in chosen.notes) == (
        codec != expected
    )


@pytest.mark.parametrize(
    ("info", "name", "changes", "parts"),
    [
        (source("yuv411p"), "out.mp4", {}, ("yuv411p", "out.mkv", "encode.pixel_format")),
        (source(), "out.mp4", {"quality": "archive"}, (".mp4", "out.mkv")),
        (source(), "out.mkv", {"quality": "archive", "codec": "h264"}, ("archive", "ffv1")),
        (source("yuva420p"), "out.mkv", {"codec": "hevc"}, ("hevc", "yuva420p", "ffv1")),
        (source(size=(63, 47)), "out.mkv", {"codec": "hevc"}, ("63 x 47", "--codec")),
        (source("yuv422p"), "out.mov", {"codec": "prores"}, ("prores", "yuv422p")),
        (source(), "out.mkv", {"codec": "h264", "quality": "52"}, ("52", "51")),
        (source(), "out.mkv", {"codec": "ffv1", "quality": "16"}, ("ffv1", "numbers")),
        (source("yuv422p"), "out.mov", {"codec": "dnxhr", "quality": "3"}, ("dnxhr", "numbers")),
        (source(), "out.mkv", {"codec": "ffv1", "hardware": True}, ("hardware", "ffv1")),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(info, name, changes, parts):
    with pytest.raises(OutputError) as raised:
        plan(info, name, **changes)
    for part in parts:
        assert part in str(raised.value)


def test_light_levels_are_said_in_each_encoders_own_words():
    info = source("yuv420p10le", mastering_display=MASTERING, content_light=(1000, 400))
    hevc = plan(info, codec="hevc")[0].options["x265-params"]
    assert (
        "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
        ":max-cll=1000,400" in hevc
    )
    assert "mastering-display=G(13250,34500)" in plan(info, codec="h264")[0].options["x264-params"]
    av1 = plan(info, codec="av1")[0].options["svtav1-params"]
    assert "content-light=1000,400" in av1
    assert "L(1000.0000,0.0001)" in av1
    assert plan(info, codec="ffv1")[0].needs_light_header


def say_bt709(stream):
    stream.codec_context.colorspace, stream.codec_context.color_range = 1, 1


@pytest.mark.parametrize(
    ("codec", "pixel_format", "name", "quality"),
    [
        ("av1", "yuv420p10le", "out.mp4", "40"),
        ("av1", "yuv420p", "out.mkv", "small"),
        ("prores", "yuv422p10le", "out.mov", "small"),
        ("prores", "yuv422p10le", "out.mkv", "high"),
        ("dnxhr", "yuv422p", "out.mov", "high"),
        ("dnxhr", "yuv422p10le", "out.mkv", "high"),
        pytest.param("hevc", "gray10le", "out.mp4", "small", marks=pytest.mark.long),
        pytest.param("hevc", "gbrp10le", "out.mkv", "20", marks=pytest.mark.long),
    ],
)
def test_every_codec_gives_frames_times_and_shape_back(
    tmp_path, codec, pixel_format, name, quality
):
    images = [mild_image(256, 128, pixel_format, i) for i in range(12)]
    pts = [0, 512, 1100, 1500, 2048, 2560, 3072, 4000, 4512, 5120, 5632, 6144]
    was = write_video(tmp_path / "source.mkv", images, pts=[p * 10 // 128 for p in pts],
                      time_base=Fraction(1, 1000), prepare=say_bt709)  # fmt: skip
    options = {"encode.codec": codec, "encode.quality": quality}
    summary = restore_video(
        was, tmp_path / name, load_settings(options=options), restorer=Unchanged(),
        analysis=analysis_of_file(was, [plain_track(12, centre=(100, 60), side=60)]),
    )  # fmt: skip
    assert summary.codec == codec
    info = probe(tmp_path / name).info
    assert (info.pixel_format, info.width, info.height) == (pixel_format, 256, 128)
    if codec != "hevc" or quality == "20":
        assert summary.psnr_outside_db > 20


def test_another_pixel_format_is_taken_where_it_is_asked_for_and_said(tmp_path):
    images = [mild_image(64, 48, "yuv411p", i) for i in range(9)]
    was = write_video(tmp_path / "source.mkv", images)
    settings = load_settings(options={"encode.pixel_format": "yuv422p", "encode.codec": "h264",
                                      "encode.quality": "1"})  # fmt: skip
    summary = restore_video(
        was, tmp_path / "out.mp4", settings, restorer=Unchanged(), analysis=analysis_of_file(was)
    )
    assert "converts the picture from yuv411p to yuv422p" in " ".join(summary.warnings)
    assert summary.psnr_outside_db is None
    before, after = (next(decode(p, DecodeErrors())).image for p in (was, tmp_path / "out.mp4"))
    assert after.format.name == "yuv422p"
    assert np.abs(planes_of(before)[0].astype(int) - planes_of(after)[0]).max() <= 2


def test_a_hardware_encoder_that_is_not_there_is_said_before_the_work(tmp_path):
    was = write_video(tmp_path / "source.mkv", [random_image(256, 128, "yuv420p", 0)])
    settings = load_settings(options={"encode.hardware": True, "encode.codec": "hevc"})
    with pytest.raises(OutputError, match="hevc_videotoolbox"):
        restore_video(was, tmp_path / "out.mkv", settings, restorer=Unchanged(),
                      analysis=analysis_of_file(was))  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["source.mkv"]


@pytest.mark.parametrize("frame_count", [1, 2, 3])
def test_a_video_of_very_few_frames_keeps_their_times(tmp_path, frame_count):
    images = [mild_image(64, 48, "yuv420p", i) for i in range(frame_count)]
    was = write_video(tmp_path / "source.mkv", images)
    summary = restore_video(
        was, tmp_path / "out.mp4", load_settings(options={"encode.codec": "hevc"}),
        restorer=Unchanged(), analysis=analysis_of_file(was),
    )  # fmt: skip
    assert summary.frames == frame_count

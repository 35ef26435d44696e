"""Pictures that change their size, pixel aspect or colors midway: no frame is lost, all is told."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from helpers import statements
from helpers.events import messages
from helpers.media import (
    AS_PAINTED,
    Painter,
    Unchanged,
    analysis_of_file,
    planes_of,
)
from helpers.sources import ffmpeg, hevc, picture

from vidrestore.analysis.pipeline import analyze_video
from vidrestore.analysis.replay import frames_again
from vidrestore.api import restore_video
from vidrestore.common.events import Event
from vidrestore.common.profiles import load_settings
from vidrestore.imaging.planes import checksum
from vidrestore.jobs.summary import Summary
from vidrestore.media.decode import DecodeErrors, TimeRange, decode
from vidrestore.media.probe import probe
from vidrestore.models import factory
from vidrestore.models.detectors import Detection, Detector, detection

H264 = "-c:v libx264 -preset ultrafast -bf 2 -g 6"
PLAIN = {"detect.detector": "haar", "detect.remember": False, "fields.deinterlace": "off"}


def broadcast(path: Path, *parts: tuple[str, str]) -> Path:
    """Parts of half a second, (size, arguments), on one time line in a transport stream, or copied
    from it into another container."""
    data = b""
    for number, (size, how) in enumerate(parts):
        part = path.with_name(f"{number}.ts")
        ffmpeg(picture(size, 12), how, f"-output_ts_offset {0.48 * number}", part)
        data += part.read_bytes()
        part.unlink()
    stream = path.with_suffix(".ts")
    stream.write_bytes(data)
    if path.suffix != ".ts":
        ffmpeg("-i", stream, "-map 0 -c copy", path)
        stream.unlink()
    return path


def call(path: Path, *sizes: str, frames: int = 12) -> Path:
    """A recording of a call: VP8, whose key frames state their own size."""
    with av.open(str(path), "w") as recording:
        stream: Any = None
        for number, size in enumerate(sizes):
            part = path.with_name(f"{number}.webm")
            ffmpeg(picture(size, frames), "-c:v libvpx -cpu-used 8 -g 6 -b:v 2M", part)
            with av.open(str(part)) as container:
                stream = stream or recording.add_stream_from_template(container.streams.video[0])
                for packet in container.demux(video=0):
                    if packet.size:
                        moved = round(Fraction(number * frames, 25) / packet.time_base)
                        packet.pts, packet.dts = packet.pts + moved, packet.dts + moved
                        packet.stream = stream
                        recording.mux(packet)
            part.unlink()
    return path


def shapes_of_others(path: Path) -> list[tuple[int, int]]:
    """The sizes of the frames as PyAV gives them."""
    with av.open(str(path)) as container:
        return [(frame.width, frame.height) for frame in container.decode(video=0)]


def run(source: Path, target: Path, **options: Any) -> Summary:
    settings = load_settings(options=AS_PAINTED | PLAIN | {"encode.preset": "ultrafast"} | options)
    return restore_video(source, target, settings, restorer=Unchanged())


def analyzed(source: Path, **options: Any) -> tuple[Any, list[str]]:
    events: list[Event] = []
    analysis = analyze_video(source, load_settings(options=PLAIN | options), on_event=events.append)
    return analysis, messages(events)


def frames_of(path: Path, like: Any = None) -> list[list[np.ndarray]]:
    return [planes_of(frame.image) for frame in decode(path, DecodeErrors(), like=like)]


def test_frames_of_another_size_are_fitted_and_told(tmp_path: Path) -> None:
    source, target = call(tmp_path / "call.webm", "240x144", "160x96", "96x160"), tmp_path / "o.mkv"
    assert set(shapes_of_others(source)) == {(240, 144), (160, 96), (96, 160)}
    summary = run(source, target, **{"encode.codec": "ffv1"})
    assert shapes_of_others(target) == [(240, 144)] * 36
    assert summary.frames == 36
    assert summary.missing_frames == summary.corrupt_frames == 0
    assert summary.warnings[0] == (
        "the picture changes to 160 x 96 at 0:00:00.480, to 96 x 160 at 0:00:00.960; 24 frames are "
        "fitted into 240 x 144, with black bars where the aspect ratio differs; to keep it, cut "
        "the video there and restore the parts"
    )
    frames = frames_of(target)
    with av.open(str(source)) as container:
        own = [planes_of(frame) for frame in container.decode(video=0)]
    for was, now in zip(own[:12], frames[:12], strict=True):
        assert all((a == b).all() for a, b in zip(was, now, strict=True))
    for index in (12, 23, 24, 35):  # 144 * 96 / 160 is 86.4
        size = (240, 144) if index < 24 else (86, 144)
        left = (240 - size[0]) // 4 * 2  # chroma has half the columns
        right = left + size[0]
        luma = frames[index][0]
        wanted = cv2.resize(own[index][0], size, interpolation=cv2.INTER_CUBIC)
        assert np.abs(luma[:, left:right] - wanted.astype(np.float32)).mean() < 3
        assert (luma[:, : max(left - 1, 0)] == 16).all()
        assert (luma[:, right + 1 :] == 16).all()


@pytest.mark.long
def test_a_recording_that_begins_small_has_the_size_that_most_of_it_has(tmp_path: Path) -> None:
    source, target = call(tmp_path / "call.webm", "80x48", *["160x96"] * 4), tmp_path / "out.mp4"
    assert (probe(source).info.width, probe(source).info.height) == (160, 96)
    analysis, said = analyzed(source)
    assert (analysis.info.width, analysis.frame_count) == (160, 60)
    assert any("to 160 x 96 at 0:00:00.480; 12 frames are fitted" in each for each in said)
    assert not any("lost detail" in each for each in said)
    run(source, target)
    assert shapes_of_others(target) == [(160, 96)] * 60


def test_a_recording_without_a_duration_is_judged_by_its_first_frames(tmp_path: Path) -> None:
    """As browsers write it."""
    call(tmp_path / "whole.webm", "80x48", *["160x96"] * 3)
    live = tmp_path / "live.webm"
    ffmpeg("-i", tmp_path / "whole.webm", "-c copy -live 1", live)
    assert probe(live).info.duration_seconds_from_header == 0
    assert probe(live).info.width == 160
    assert analyzed(live)[0].frame_count == 48


def test_detail_that_is_lost_is_told(tmp_path: Path) -> None:
    source = call(tmp_path / "call.webm", "80x48", "80x48", "80x48", "160x96")
    analysis, said = analyzed(source)
    assert (analysis.fitted_frames, analysis.reduced_frames) == (12, 12)
    assert any("by which 12 frames lost detail" in each for each in said)


@pytest.mark.parametrize("height", [100, 108, 130])
def test_fields_stay_fields_where_interlaced_pictures_are_fitted(
    tmp_path: Path, height: int
) -> None:
    """The first field is bright and blue, the second one dark and yellow."""
    levels = ":".join(f"{plane}='if(mod(N\\,2)\\,{second}\\,{first})'"
                      for plane, first, second in (("lum", 200, 40), ("cb", 160, 90)))  # fmt: skip
    woven = (
        "-f lavfi -i color=red:size={}:rate=50,format=yuv420p,geq=" + levels + ":cr=128,"
        "trim=end_frame=24 -vf tinterlace=interleave_top -c:v mpeg2video -bf 0 -q:v 2 "
        "-flags +ildct+ilme"
    )
    data = b""
    for number, size in enumerate(("96x72", f"192x{height}")):
        part = tmp_path / f"{number}.ts"
        ffmpeg(woven.format(size), f"-output_ts_offset {1 + 0.48 * number}", part)
        data += part.read_bytes()
    source, target = tmp_path / "source.ts", tmp_path / "out.mkv"
    source.write_bytes(data)
    options = {"fields.deinterlace": "keep", "encode.codec": "ffv1"}
    assert run(source, target, **options).frames == 24
    with av.open(str(target)) as container:
        pictures = list(container.decode(video=0))
    assert all(image.interlaced_frame for image in pictures)
    for image in pictures:
        luma, blue, _ = (plane[:, plane.shape[1] // 2].astype(int) for plane in planes_of(image))
        for column, black, first, second in ((luma, 16, 200, 40), (blue, 128, 160, 90)):
            rows = np.flatnonzero(abs(column - black) > 10)[3:-3]
            for parity, level in enumerate((first, second)):
                assert abs(column[rows[rows % 2 == parity]] - level).max() <= 8


@pytest.mark.parametrize("suffix", [".ts", ".mkv", ".mp4"])
def test_a_broadcast_of_two_sizes_keeps_its_shape_and_every_frame(
    tmp_path: Path, suffix: str
) -> None:
    """4:3 in pixels of 16:15, then 16:9 in square ones, which is as wide and less high."""
    source = broadcast(tmp_path / f"source{suffix}", ("90x72", f"-vf setsar=16/15 {H264}"),
                       ("128x72", f"-vf setsar=1 {H264}"))  # fmt: skip
    analysis, said = analyzed(source)
    assert analysis.frame_count == 24
    assert analysis.decode_errors == analysis.corrupt_frames == 0
    assert sum("the picture changes to 128 x 72 at 0:00:00.480" in each for each in said) == 1
    assert [each for each in said if "pixel aspect" in each] == []
    luma = frames_of(source, analysis.info)[-1][0]
    rows = np.flatnonzero((luma != 16).any(axis=1))
    assert (rows[0], rows[-1] - rows[0] + 1) == (9, 54) or (rows[0], len(rows)) == (8, 54)
    assert (luma[rows] != 16).any(axis=0).all()


def test_a_changed_pixel_aspect_costs_no_sample_and_is_told(tmp_path: Path) -> None:
    parts = [("96x64", f"-vf setsar={ratio} {H264}") for ratio in ("16/15", "64/45", "16/15")]
    source = broadcast(tmp_path / "source.ts", *parts)
    target = tmp_path / "out.mkv"
    _, said = analyzed(source)
    wanted = (
        "the pixel aspect changes to 64:45 at 0:00:00.480, to 16:15 at 0:00:00.960, but the output "
        "states 16:15 throughout, so players show the picture too wide or too narrow there; to "
        "keep it, cut the video there and restore the parts"
    )
    assert said.count(wanted) == 1
    summary = run(source, target, **{"encode.codec": "ffv1"})
    assert summary.frames == 36
    with av.open(str(source)) as container:
        own = [planes_of(frame) for frame in container.decode(video=0)]
    for was, now in zip(own, frames_of(target), strict=True):
        assert all((a == b).all() for a, b in zip(was, now, strict=True))


MPEG = ["-c:v mpeg2video -bf 2 -g 6", "-c:v mpeg1video -bf 2 -g 6", "-c:v mpeg2video -bf 0",
        "-c:v mpeg4 -bf 2 -g 6"]  # fmt: skip


@pytest.mark.parametrize("video", MPEG)
@pytest.mark.parametrize("parts", [("96x64", 1, "96x64", "16/11"), ("96x64", 1, "128x64", 1)])
def test_mpeg_keeps_the_last_frame_before_a_change(
    tmp_path: Path, video: str, parts: tuple[str, int, str, str]
) -> None:
    """The decoder holds one frame back, and drops it where the size or aspect ratio changes."""
    data, wanted = b"", []
    for number in range(2):
        part, (size, aspect) = tmp_path / f"{number}.ts", parts[2 * number : 2 * number + 2]
        ffmpeg(picture(size, 12), f"-vf setsar={aspect} -q:v 2 {video}",
               f"-output_ts_offset {1 + 0.48 * number}", part)  # fmt: skip
        data += part.read_bytes()
        with av.open(str(part)) as container:
            wanted += [(f.width, checksum(f)) for f in container.decode(video=0)]
    source, damage = tmp_path / "source.ts", DecodeErrors()
    source.write_bytes(data)
    frames = list(decode(source, damage))
    assert len(frames) == len(wanted) == 24
    width = frames[0].image.width
    own = [(width, checksum(frame.image)) for frame in frames]
    assert [each for each, (wide, _) in zip(own, wanted, strict=True) if wide == width] == [
        each for each in wanted if each[0] == width
    ]
    assert {b.pts - a.pts for a, b in pairwise(frames)} == {3600}
    assert not damage.found


HDR = "hdr10=1:repeat-headers=1:bframes=0:keyint=12"
LIGHT = ":max-cll=1000,400:master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)"
# A rotation by 90 degrees, not canceled, without a flip, for one frame.
TURNED = bytes([0b00001000, 0b00000000, 0b00010000])


def stating_later(path: Path, kind: str) -> Path:
    """A video of two parts of 12 frames, of which the second one states more."""
    codec = "h264" if kind == "turned" else "hevc"
    raw = b""
    for number in range(2):
        part = path.with_name(f"part{number}.mp4")
        light = f"{LIGHT}L(10000000,50)" if number and kind == "light" else ""
        how = hevc(HDR + light, "yuv420p10le") if codec == "hevc" else f"{H264} -bf 0"
        ffmpeg(picture(frames=12), how, part)
        if number and kind != "light":
            payload = (47, TURNED) if kind == "turned" else (4, statements.hdr10_plus())
            part = statements.with_messages(part, path.with_name("stating.mp4"), *payload)
        bare = path.with_name(f"part{number}.{codec}")
        ffmpeg("-i", part, "-c copy", bare)
        raw += bare.read_bytes()
    bare.write_bytes(raw)
    ffmpeg("-framerate 25 -i", bare, "-c copy", path)
    return path


STATED_LATER = {
    "light": ({"MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"},
              "the colors of the mastering display and light levels"),
    "plus": ({"DYNAMIC_HDR_PLUS"}, "HDR10+ metadata"),
    "turned": ({"DISPLAYMATRIX"}, "a rotation or a flip"),
}  # fmt: skip


@pytest.mark.parametrize("kind", STATED_LATER)
def test_what_is_stated_after_the_first_frame_is_told_once(tmp_path: Path, kind: str) -> None:
    source = stating_later(tmp_path / "source.mp4", kind)
    kinds, words = STATED_LATER[kind]
    with av.open(str(source)) as container:
        of_frames = [{e.type.name for e in f.side_data} for f in container.decode(video=0)]
    assert [kinds <= own for own in of_frames] == [False] * 12 + [True] * 12
    _, said = analyzed(source)
    (own,) = [each for each in said if "after its first frame" in each]
    assert f"states {words} at 0:00:00.480, after" in own
    begun = tmp_path / "begun.mp4"
    ffmpeg("-ss 0.48 -i", source, "-c copy", begun)
    assert not [each for each in analyzed(begun)[1] if "after its first frame" in each]


def test_changed_colors_are_told_and_another_matrix_is_converted(tmp_path: Path) -> None:
    sd = "setparams=colorspace=smpte170m:color_primaries=smpte170m:color_trc=smpte170m"
    hd = "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709"
    red = "-f lavfi -i color=red:size={}:rate=25,trim=end_frame=12,format=gbrp"
    parts = []
    for number, (size, tags) in enumerate((("192x108", hd), ("96x64", sd))):
        part = tmp_path / f"{number}.ts"
        matrix = tags.split("=")[2].split(":")[0]
        ffmpeg(red.format(size), f"-vf scale=out_color_matrix={matrix},format=yuv420p,{tags}", H264,
               f"-output_ts_offset {0.48 * number}", part)  # fmt: skip
        parts.append(part.read_bytes())
    source = tmp_path / "source.ts"
    source.write_bytes(b"".join(parts))
    analysis, said = analyzed(source)
    frames = frames_of(source, analysis.info)
    for plane in range(3):
        first, last = (int(np.median(frames[index][plane])) for index in (0, -1))
        assert abs(first - last) <= 1
    assert sum("the colors that the video states change" in each for each in said) == 1
    assert any("primaries smpte170m and transfer smpte170m at 0:00:00.480" in each for each in said)


def test_another_pixel_format_is_converted_and_named(tmp_path: Path) -> None:
    source = broadcast(tmp_path / "source.ts", ("96x64", f"{H264} -pix_fmt yuv420p"),
                       ("96x64", f"{H264} -pix_fmt yuv444p"))  # fmt: skip
    analysis, said = analyzed(source)
    assert (analysis.frame_count, analysis.info.pixel_format) == (24, "yuv420p")
    assert any("to 96 x 64 in yuv444p at 0:00:00.480; 12 frames are fitted into 96 x 64 in yuv420p"
               in each for each in said)  # fmt: skip


class OneFace(Detector):
    """Sees a face in the middle of every picture."""

    coarse = False

    def __call__(self, picture: np.ndarray) -> list[Detection]:
        height, width = picture.shape[:2]
        x, y, side = width / 2, height / 2, height / 2
        points = [[x - 12, y - 8], [x + 12, y - 8], [x, y], [x - 10, y + 10], [x + 10, y + 10]]
        return [detection([x - side / 2, y - side / 2, x + side / 2, y + side / 2], points, 0.9)]


@pytest.mark.long
def test_faces_are_followed_and_pasted_where_the_picture_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one segment or many, and outside the faces nothing but the fitted frame."""
    monkeypatch.setattr(factory, "open_detector", lambda *_, **__: OneFace())
    source = call(tmp_path / "call.webm", "160x96", "80x48", "160x96", frames=40)
    outputs = []
    for frames in (150, 48):
        target = tmp_path / f"{frames}.mkv"
        options = AS_PAINTED | PLAIN | {"encode.codec": "ffv1", "job.segment_frames": frames}
        settings = load_settings(options=options | {"detect.mesh": "off"})
        summary = restore_video(source, target, settings, restorer=Painter())
        assert summary.faces == summary.frames == 120
        assert summary.identical_outside == 120
        outputs.append(frames_of(target))
    info = probe(source).info
    for was, one, many in zip(frames_of(source, info), *outputs, strict=True):
        assert all((a == b).all() for a, b in zip(one, many, strict=True))
        assert (was[0] != one[0]).any()
        assert (was[0][:8] == one[0][:8]).all()


@pytest.mark.parametrize("start", [Fraction(0), Fraction(6, 10), Fraction(11, 10)])
def test_a_part_has_the_frames_of_the_whole(tmp_path: Path, start: Fraction) -> None:
    source = call(tmp_path / "call.webm", "160x96", "240x144", "96x160")
    info = probe(source).info
    whole = [(f.pts, checksum(f.image)) for f in decode(source, DecodeErrors(), like=info)]
    part = decode(source, DecodeErrors(), TimeRange(start or None), like=info)
    assert [(f.pts, checksum(f.image)) for f in part] == [
        each for each in whole if each[0] >= 1000 * start
    ]  # fmt: skip
    analysis = analysis_of_file(source)
    again = frames_again(source, analysis, first=20, end=30)
    assert [(f.pts, checksum(f.image)) for f in again] == whole[20:30]


def test_a_video_before_a_swap_may_change_too(tmp_path: Path) -> None:
    source = call(tmp_path / "call.webm", "160x96", "80x48")
    before = tmp_path / "before.webm"
    before.write_bytes(source.read_bytes())
    settings = load_settings(options=AS_PAINTED | PLAIN | {"encode.codec": "ffv1"})
    summary = restore_video(source, tmp_path / "out.mkv", settings, restorer=Unchanged(),
                            analysis=analysis_of_file(source), before_swap=before)  # fmt: skip
    assert summary.frames == 24
    assert any(w.startswith(f"in {before}, the picture changes") for w in summary.warnings)


def test_an_analysis_is_stored_with_its_changes(tmp_path: Path) -> None:
    from vidrestore.analysis import storage

    source = call(tmp_path / "call.webm", "160x96", "80x48")
    analysis, _ = analyzed(source)
    storage.save(analysis, tmp_path / "analysis.npz")
    read = storage.load(tmp_path / "analysis.npz")
    assert read.changes == analysis.changes
    assert (read.fitted_frames, read.reduced_frames) == (12, 0)
    summary = restore_video(source, tmp_path / "out.mkv", load_settings(options=PLAIN),
                            restorer=Unchanged(), analysis=read)  # fmt: skip
    assert any("80 x 48" in warning for warning in summary.warnings)

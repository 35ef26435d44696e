"""Frames into which nothing was pasted keep the packets of the source, byte for byte.

As a script it is a run that kills itself: `test_copied_packets.py SOURCE TARGET`.
"""

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import numpy as np
import pytest
from helpers import intra_sources
from helpers.events import is_at, messages
from helpers.intra_sources import ALPHA, ANEW, COPIED, packet_hashes, picture_hashes
from helpers.media import (
    AS_PAINTED,
    OneFace,
    Painter,
    analysis_of_file,
    frame_times,
    packets,
    plain_track,
    planes_of,
)
from helpers.processes import environment
from helpers.sources import ffmpeg, fields, picture

from vidrestore.analysis.pipeline import analyze_video
from vidrestore.analysis.result import Analysis, is_woven
from vidrestore.api import restore_video
from vidrestore.common.errors import OutputError, UsageError
from vidrestore.common.profiles import load_settings
from vidrestore.jobs.summary import Summary
from vidrestore.media.decode import DecodeErrors, TimeRange, decode
from vidrestore.media.probe import fingerprint, probe
from vidrestore.models import factory

FRAMES, FIRST, END = intra_sources.FRAMES, 2, 4
TOUCHED = {FIRST, END - 1}
PRORES_12_BITS = {"encode.codec": "prores", "encode.pixel_format": "yuva444p10le"}


def face(frames: int = END - FIRST, first_frame: int = FIRST) -> Any:
    return plain_track(frames, centre=(80, 60), side=50, first_frame=first_frame)


def restored(
    source: Path, target: Path, analysis: Analysis | None = None, told: list[Any] | None = None,
    span: TimeRange | None = None, **options: Any,
) -> Summary:  # fmt: skip
    analysis = analysis or analysis_of_file(source, [face()], span)
    return restore_video(
        source, target, load_settings(options=AS_PAINTED | options), restorer=Painter(),
        analysis=analysis, span=span, on_event=None if told is None else told.append,
    )  # fmt: skip


def pictures(path: Path) -> list[bytes]:
    damage = DecodeErrors()
    frames = [b"".join(p.tobytes() for p in planes_of(f.image)) for f in decode(path, damage)]
    assert not damage.found
    assert not damage.changes
    return frames


def equal(one: list[Any], other: list[Any]) -> set[int]:
    return {i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a == b}


def assert_copied(source: Path, target: Path, untouched: set[int]) -> None:
    """Three readers agree on which frames are the source's, in bytes and in samples."""
    video = [data for _, data in packets(source, 0)]
    assert equal(video, [data for _, data in packets(target, 0)]) == untouched
    assert equal(packet_hashes(source), packet_hashes(target)) == untouched
    assert equal(picture_hashes(source), picture_hashes(target)) == untouched
    assert equal(pictures(source), pictures(target)) == untouched


_QUICK = {
    "prores hq", "prores of variable rate", "prores of several field orders", "dnxhr sq in mxf",
    "dnxhr hqx", "ffv1 of 9 slices", "ffv1 of 10 bits", "ffv1 in avi",
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in _QUICK else pytest.mark.long) for name in COPIED],
)
def test_untouched_frames_keep_their_packets(tmp_path, name):
    source = intra_sources.write(tmp_path, COPIED[name])
    target = tmp_path / f"out{COPIED[name].into}"
    told: list[Any] = []
    summary = restored(source, target, told=told, **{"fields.deinterlace": "off"})
    assert_copied(source, target, {*range(FRAMES)} - TOUCHED)
    assert summary.copied_frames == FRAMES - len(TOUCHED)
    assert summary.faces == len(TOUCHED)
    assert summary.identical_frames == FRAMES - len(TOUCHED)
    assert not [text for text in messages(told) if "packets" in text]
    clock = Fraction(1, 1000) if ".mkv" in (source.suffix, target.suffix) else 0
    times = zip(frame_times(source), frame_times(target), strict=True)
    assert all(abs(was - now) <= clock for was, now in times)


def properties(path: Path) -> tuple[Any, ...]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        frames = list(container.decode(stream))
        of_frames = {
            (f.format.name, f.interlaced_frame, f.colorspace, f.color_primaries, f.color_trc)
            for f in frames
        }
        tag = context.codec_tag if context.name == "prores" else ""
        return of_frames, tag, context.profile, stream.sample_aspect_ratio


@pytest.mark.parametrize(
    "name", ["prores hq", "prores standard", "prores with pixels of 8:9", "prores tff", "dnxhr hqx"]
)
def test_the_stream_states_what_the_source_does(tmp_path, name):
    source = intra_sources.write(tmp_path, COPIED[name])
    restored(source, tmp_path / "out.mov", **{"fields.deinterlace": "off"})
    was, now = properties(source), properties(tmp_path / "out.mov")
    assert was == now
    assert len(now[0]) == 1


def shown_aspect(path: Path) -> set[str]:
    """The aspect ratios of pixels with which the ffmpeg program shows the frames."""
    done = subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-i", path, "-vf", "showinfo", "-f", "null", "-"],
        capture_output=True, text=True,
    )  # fmt: skip
    return set(re.findall(r"\bsar:(\d+/\d+)", done.stderr))


def test_frames_that_state_another_pixel_aspect_are_shown_as_the_file_states(tmp_path):
    first, source, target = (tmp_path / f"{name}.mkv" for name in ("first", "source", "out"))
    ffmpeg(picture("160x120", FRAMES), "-vf setsar=8/9 -c:v ffv1 -level 3 -g 1", first)
    ffmpeg("-i", first, "-c copy -aspect 4:3", source)
    assert (shown_aspect(first), shown_aspect(source)) == ({"8/9"}, {"1/1"})
    summary = restored(source, target)
    assert summary.copied_frames == FRAMES - len(TOUCHED)
    assert shown_aspect(target) == {"1/1"}


@pytest.mark.parametrize("order", ["tff", "bff"])
def test_fields_of_an_mxf_file_keep_the_order_that_its_frames_state(tmp_path, order):
    """The header of the file calls them progressive."""
    source, target = tmp_path / "source.mxf", tmp_path / "out.mov"
    how = f"-vf setfield={order} -c:v prores_ks -profile:v hq -pix_fmt yuv422p10le -flags +ildct"
    ffmpeg(fields("192x128", order, 8), how, source)
    assert probe(source).info.field_order == order
    options = {"detect.remember": False, "fields.deinterlace": "keep"}
    found = analyze_video(source, load_settings(options=options), detector=OneFace())
    summary = restored(source, target, replace(found, tracks=()), **options)
    assert summary.copied_frames == 8
    assert packet_hashes(source) == packet_hashes(target)
    assert probe(target).info.field_order == order


@pytest.mark.parametrize("alpha_bits", [16, 8])
def test_packets_of_12_bits_with_alpha_are_copied(tmp_path, alpha_bits):
    source = intra_sources.write(tmp_path, ALPHA[alpha_bits])
    target = tmp_path / "out.mov"
    summary = restored(source, target, **PRORES_12_BITS)
    assert_copied(source, target, {*range(FRAMES)} - TOUCHED)
    assert summary.copied_frames == FRAMES - len(TOUCHED)
    was, now = (
        [planes_of(frame.image)[3].tobytes() for frame in decode(path, DecodeErrors())]
        for path in (source, target)
    )
    assert len(set(was[0])) > 10
    if alpha_bits == 8:
        assert was == now


@pytest.mark.parametrize("name", ["prores hq", "dnxhr hq", "ffv1"])
def test_the_setting_turns_it_off(tmp_path, name):
    source = intra_sources.write(tmp_path, COPIED[name])
    target = tmp_path / f"out{COPIED[name].into}"
    summary = restored(source, target, **{"encode.copy_untouched": False})
    assert summary.copied_frames == 0
    if name != "ffv1":  # which is lossless, and may give the same packets again
        assert_copied(source, target, set())


def test_the_new_frames_are_those_of_the_encoder_alone(tmp_path):
    """The encoder skips the other frames, which changes none of its own."""
    source = intra_sources.write(tmp_path, COPIED["prores hq"])
    for name, copy in (("with", True), ("without", False)):
        restored(source, tmp_path / f"{name}.mov", **{"encode.copy_untouched": copy})
    files = [packets(tmp_path / f"{name}.mov", 0) for name in ("with", "without")]
    assert equal(*files) == TOUCHED


@pytest.mark.parametrize("name", ANEW)
def test_other_kinds_of_frames_are_encoded_anew(tmp_path, name):
    source = intra_sources.write(tmp_path, ANEW[name])
    target, told = tmp_path / f"out{ANEW[name].into}", []
    count = len(frame_times(source))
    options = {"encode.codec": "dnxhr"} if name.startswith("dnx") else {}
    analysis = analysis_of_file(source, [face(1, 0)])
    summary = restored(source, target, analysis, told, **options)
    assert (summary.frames, summary.copied_frames) == (count, 0)
    notices = [text for text in messages(told) if f"packets of {source.name} cannot" in text]
    assert len(notices) == (0 if name.startswith("ffv1") else 1), "FFV1 loses nothing"
    assert len(picture_hashes(target)) == count


@pytest.mark.parametrize(
    ("name", "options", "notices"),
    [
        ("prores hq", {"encode.quality": "small"}, 1),
        ("prores hq", {"encode.codec": "ffv1"}, 0),
        ("ffv1", {"scale.factor": 2}, 0),
        ("ffv1", {"encode.pixel_format": "yuv444p"}, 0),
        ("dnxhr hq", {"encode.codec": "dnxhr", "encode.pixel_format": "yuv422p10le"}, 0),
    ],
)
def test_frames_that_change_as_a_whole_are_encoded(tmp_path, name, options, notices):
    source = intra_sources.write(tmp_path, COPIED[name])
    told: list[Any] = []
    summary = restored(source, tmp_path / "out.mkv", told=told, **options)
    assert (summary.frames, summary.copied_frames) == (FRAMES, 0)
    assert sum("cannot be copied" in text for text in messages(told)) == notices


def test_frames_that_lose_bits_by_an_encoding_are_told_of(tmp_path):
    source, told = tmp_path / "source.mov", []
    ffmpeg(
        picture("160x120", FRAMES), "-c:v prores_ks -profile:v 4444xq -pix_fmt yuv444p10le", source
    )
    options = {"encode.pixel_format": "yuv444p10le", "encode.quality": "small"}
    summary = restored(source, tmp_path / "out.mov", told=told, **PRORES_12_BITS | options)
    assert summary.copied_frames == 0
    assert [text for text in messages(told) if "4444xq, and encode.quality small" in text]


def test_a_file_that_does_not_state_its_profile_is_encoded_anew(tmp_path):
    whole = intra_sources.write(tmp_path, COPIED["prores hq"])
    source, told = damaged(whole, tmp_path / "source.mkv", FRAMES), []
    assert packet_hashes(source) == packet_hashes(whole)
    summary = restored(source, tmp_path / "out.mov", told=told)
    assert summary.copied_frames == 0
    notes = [text for text in messages(told) if "cannot be copied" in text]
    assert len(notes) == 1
    assert "its profile is not stated" in notes[0]
    assert notes[0].isprintable()


def test_a_smaller_quality_copies_packets_of_that_profile(tmp_path):
    source = intra_sources.write(tmp_path, COPIED["prores lt in mkv"])
    summary = restored(source, tmp_path / "out.mkv", **{"encode.quality": "small"})
    assert summary.copied_frames == FRAMES - len(TOUCHED)


def test_frames_are_encoded_where_the_picture_changes_midway(tmp_path):
    told: list[Any] = []
    source = tmp_path / "source.mov"
    colors = "setparams=color_trc={}:color_primaries=bt709:colorspace=bt709"
    for number, curve in enumerate(("bt709", "smpte2084")):
        how = f"-vf {colors.format(curve)} -c:v prores_ks -profile:v hq -pix_fmt yuv422p10le"
        ffmpeg(picture("160x120", 4), how, tmp_path / f"{number}.mov")
    (tmp_path / "colors.txt").write_text("file 0.mov\nfile 1.mov\n")
    ffmpeg("-f concat -i", tmp_path / "colors.txt", "-c copy", source)
    settings = load_settings(options={"detect.remember": False})
    analysis = analyze_video(source, settings, detector=OneFace())
    assert analysis.changes
    summary = restored(source, tmp_path / "out.mov", analysis, told)
    assert (summary.frames, summary.copied_frames) == (8, 0)
    assert any("its picture changes midway" in text for text in messages(told))


@pytest.mark.parametrize("mode", ["off", "keep"])
@pytest.mark.parametrize("first", ["progressive", "tff"])
def test_every_frame_keeps_its_own_fields(tmp_path, first, mode):
    inputs = {"progressive": picture("192x128", 8), "tff": fields("192x128", "tff", 8)}
    how = "-c:v prores_ks -profile:v hq -pix_fmt yuv422p10le"
    for kind, made in inputs.items():
        flags = "-flags +ildct" if kind == "tff" else ""
        ffmpeg(made, how, flags, tmp_path / f"{kind}.mov")
    kinds = sorted(inputs, reverse=first == "tff")
    (tmp_path / "list.txt").write_text("".join(f"file {kind}.mov\n" for kind in kinds))
    source, target = tmp_path / "source.mov", tmp_path / "out.mov"
    ffmpeg("-f concat -i", tmp_path / "list.txt", "-c copy", source)
    options = {"detect.remember": False, "fields.deinterlace": mode}
    found = analyze_video(source, load_settings(options=options), detector=OneFace())
    pictures_each = 2 if is_woven(found) else 1
    track = face(pictures_each * len(TOUCHED), pictures_each * FIRST)
    summary = restored(source, target, replace(found, tracks=(track,)), **options)
    assert summary.copied_frames == 16 - len(TOUCHED)
    assert_copied(source, target, {*range(16)} - TOUCHED)


@pytest.mark.parametrize(("frames", "copied"), [(1, FRAMES - len(TOUCHED)), (FRAMES, 0)])
def test_new_frames_are_marked_as_the_copied_ones_are(tmp_path, frames, copied):
    source, told = intra_sources.write(tmp_path, COPIED["prores tff"]), []
    data, at = bytearray(source.read_bytes()), 0
    for _ in range(frames):
        at = data.index(b"icpf", at) + len(b"icpf")
        data[at + 12] ^= 0b1100  # from tff to bff, which the container does not state
    source.write_bytes(data)
    options = {"detect.remember": False, "fields.deinterlace": "keep"}
    found = analyze_video(source, load_settings(options=options), detector=OneFace())
    assert is_woven(found)
    assert found.fields is not None
    assert found.fields.info.field_order == "tff"
    track = face(2 * len(TOUCHED), 2 * FIRST)
    target = tmp_path / "out.mov"
    summary = restored(source, target, replace(found, tracks=(track,)), told, **options)
    assert summary.copied_frames == copied
    notes = [text for text in messages(told) if "marked as bff, and the encoder" in text]
    assert len(notes) == (copied == 0)


def test_a_frame_with_a_face_that_shows_nothing_of_it_is_untouched(tmp_path):
    source = intra_sources.write(tmp_path, COPIED["prores hq"])
    track = face()
    faint = replace(track, strength=np.array([1.0, 0.0], np.float32))
    summary = restored(source, tmp_path / "out.mov", analysis_of_file(source, [faint]))
    assert_copied(source, tmp_path / "out.mov", {*range(FRAMES)} - {FIRST})
    assert summary.copied_frames == FRAMES - 1


def test_nothing_is_pasted_anywhere(tmp_path):
    source = intra_sources.write(tmp_path, COPIED["dnxhr hq"])
    summary = restored(source, tmp_path / "out.mov", analysis_of_file(source))
    assert_copied(source, tmp_path / "out.mov", {*range(FRAMES)})
    assert summary.copied_frames == FRAMES


@pytest.mark.parametrize("suffix", [".mov", ".mkv"])
def test_a_part_keeps_the_packets_of_its_frames(tmp_path, suffix):
    source = intra_sources.write(tmp_path, COPIED["prores hq"])
    span = TimeRange(Fraction(2, 25), Fraction(6, 25))
    analysis = analysis_of_file(source, [face(1, 1)], span)
    target = tmp_path / f"part{suffix}"
    summary = restored(source, target, analysis, span=span)
    assert summary.copied_frames == 3
    now = [data for _, data in packets(target, 0)]
    assert equal([data for _, data in packets(source, 0)][2:6], now) == {0, 2, 3}
    assert len(picture_hashes(target)) == 4


@pytest.fixture
def one_face(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory, "open_detector", lambda *_, **__: OneFace())


@pytest.mark.parametrize("name", ["prores tff", "ffv1 tff"])
def test_a_woven_frame_keeps_its_packet_if_both_fields_are_untouched(tmp_path, one_face, name):
    source = intra_sources.write(tmp_path, COPIED[name])
    target = tmp_path / f"out{COPIED[name].into}"
    settings = load_settings(options={"detect.remember": False, "detect.detector": "haar"})
    found = analyze_video(source, settings, detector=OneFace())
    assert is_woven(found)
    strength = np.zeros(2 * FRAMES, np.float32)
    strength[[5, 8, 9]] = 1  # one field of a frame, and both of another
    track = plain_track(2 * FRAMES, centre=(96, 64), side=60)
    analysis = replace(found, tracks=(replace(track, strength=strength),))
    summary = restored(source, target, analysis)
    assert_copied(source, target, {*range(FRAMES)} - {2, 4})
    assert summary.copied_frames == FRAMES - 2
    assert properties(source)[0] == properties(target)[0]
    summary = restored(
        source, tmp_path / f"off{target.suffix}", analysis, **{"encode.copy_untouched": False}
    )
    assert summary.copied_frames == 0
    now, off = pictures(target), pictures(tmp_path / f"off{target.suffix}")
    assert {2, 4} <= equal(now, off)


@pytest.mark.parametrize("mode", ["bob", "frame"])
def test_frames_made_of_fields_have_no_packet(tmp_path, one_face, mode):
    source = intra_sources.write(tmp_path, COPIED["ffv1 tff"])
    options = {"fields.deinterlace": mode, "encode.codec": "ffv1"}
    settings = load_settings(options=options | {"detect.remember": False})
    analysis = replace(analyze_video(source, settings, detector=OneFace()), tracks=())
    summary = restored(source, tmp_path / "out.mkv", analysis, **options)
    assert summary.copied_frames == 0
    assert summary.frames == (2 if mode == "bob" else 1) * FRAMES


def damaged(source: Path, target: Path, index: int) -> Path:
    """A copy of a video of which one packet is damaged, but gives a picture, except in DNxHR."""
    with av.open(str(source)) as was, av.open(str(target), "w") as now:
        stream: Any = now.add_stream_from_template(was.streams.video[0])
        for number, packet in enumerate(p for p in was.demux(video=0) if p.size):
            data = bytearray(bytes(packet))
            if number == index:
                half, end = len(data) // 2, len(data)
                damage = slice(half, half + 8 if source.suffix == ".mkv" else end)
                data[damage] = bytes(len(data[damage]))
            copy: Any = av.Packet(bytes(data))
            copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
            copy.time_base, copy.is_keyframe, copy.stream = packet.time_base, True, stream
            now.mux(copy)
    return target


def analysis_without_fields(source: Path) -> Analysis:
    options = {"detect.remember": False, "fields.deinterlace": "off"}
    return analyze_video(source, load_settings(options=options), detector=OneFace())


@pytest.mark.parametrize(
    ("name", "index"),
    [("prores hq", 5), ("prores hq", 0), ("ffv1", 5), ("ffv1", 0), ("ffv1 of 9 slices", 5)],
)
def test_a_damaged_packet_is_not_copied(tmp_path, name, index):
    whole = intra_sources.write(tmp_path, COPIED[name])
    source = damaged(whole, tmp_path / f"damaged{whole.suffix}", index)
    with pytest.raises(AssertionError):
        picture_hashes(source)  # the player finds the damage
    analysis = replace(analysis_without_fields(source), tracks=(face(),))
    target = tmp_path / f"out{COPIED[name].into}"
    summary = restored(source, target, analysis)
    assert summary.copied_frames == FRAMES - len(TOUCHED) - 1
    video = [data for _, data in packets(source, 0)]
    untouched = {*range(FRAMES)} - TOUCHED
    assert equal(video, [data for _, data in packets(target, 0)]) == untouched - {index}
    assert len(picture_hashes(target)) == FRAMES
    assert summary.frames == FRAMES


def test_a_packet_without_a_picture_leaves_the_others_in_place(tmp_path):
    whole = intra_sources.write(tmp_path, COPIED["dnxhr hq"])
    source = damaged(whole, tmp_path / "damaged.mov", 5)
    found = analysis_without_fields(source)
    assert (found.frame_count, found.decode_errors) == (FRAMES - 1, 1)
    summary = restored(source, tmp_path / "out.mov", replace(found, tracks=(face(),)))
    video = [data for number, (_, data) in enumerate(packets(source, 0)) if number != 5]
    copied = equal(video, [data for _, data in packets(tmp_path / "out.mov", 0)])
    assert copied == {*range(FRAMES - 1)} - TOUCHED
    assert summary.copied_frames == len(copied)


SHOTS = ((0, 24), (24, 50), (50, 75))


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shots in ProRes 422, which is not the profile of `encode.quality` high."""
    source = tmp_path_factory.mktemp("shots") / "source.mov"
    ffmpeg(picture("160x120", SHOTS[-1][1]),
           "-c:v prores_ks -profile:v standard -pix_fmt yuv422p10le", source)  # fmt: skip
    return source


def analysis_of_shots(source: Path) -> Analysis:
    """A face in two frames of each shot."""
    tracks = [
        replace(face(2, start + 5), track_id=number) for number, (start, _) in enumerate(SHOTS)
    ]
    known = replace(analysis_of_file(source, tracks), shots=SHOTS)
    return replace(known, fingerprint=fingerprint(source))


def run(source: Path, target: Path, restorer: Painter | None = None, **more: Any) -> Summary:
    options = {name: more.pop(name) for name in list(more) if "." in name}
    return restore_video(
        source, target, load_settings(options=AS_PAINTED | options),
        restorer=restorer or Painter(), analysis=analysis_of_shots(source), **more,
    )  # fmt: skip


def touched_of_shots() -> set[int]:
    return {start + at for start, _ in SHOTS for at in (5, 6)}


def test_a_redone_shot_keeps_the_packets_of_its_other_frames(shots, tmp_path):
    target = tmp_path / "out.mov"
    summary = run(shots, target, keep_job=True)
    untouched = {*range(SHOTS[-1][1])} - touched_of_shots()
    assert_copied(shots, target, untouched)
    assert summary.copied_frames == len(untouched)
    before = packets(target, 0)
    again = run(shots, target, Painter((0.9, 0.1, 0.1)), redo_shots="2", keep_job=True)
    assert again.copied_frames == len(untouched)
    assert_copied(shots, target, untouched)
    assert equal(before, packets(target, 0)) == {*range(len(before))} - {29, 30}
    with pytest.raises(UsageError, match=r"standard.*hq.*encode\.copy_untouched as before"):
        run(shots, target, redo_shots="1", **{"encode.copy_untouched": False})


@pytest.mark.parametrize("codec", ["prores", "ffv1"])
def test_segments_of_which_every_frame_is_copied_are_joined_with_others(shots, tmp_path, codec):
    source, suffix = shots, ".mov"
    if codec == "ffv1":
        source, suffix = tmp_path / "source.mkv", ".mkv"
        ffmpeg("-i", shots, "-c:v ffv1 -level 3 -g 1", source)
    analysis = replace(analysis_of_file(source, [face(2, 40)]), shots=SHOTS)
    target = tmp_path / f"out{suffix}"
    summary = restored(source, target, analysis, **{"job.segment_frames": 48})
    assert_copied(source, target, {*range(SHOTS[-1][1])} - {40, 41})
    assert summary.copied_frames == SHOTS[-1][1] - 2


_HDR = (
    "-vf format=yuv422p10le,setparams=range=tv:color_primaries=bt2020:color_trc=smpte2084:"
    "colorspace=bt2020nc -c:v libx265 -preset ultrafast -x265-params 'log-level=error:hdr10=1:"
    "repeat-headers=1:max-cll=1000,400:master-display="
    "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)'"
)


@pytest.mark.parametrize(
    ("suffix", "how"),
    [(".mov", "-c:v prores_ks -profile:v hq"), (".mkv", "-c:v ffv1 -level 3 -g 1")],
)
def test_light_levels_stand_in_the_container_of_copied_packets(tmp_path, suffix, how):
    hevc, source, target = (tmp_path / f"{n}{suffix}" for n in ("hevc", "source", "out"))
    ffmpeg(picture("160x120", FRAMES), _HDR, hevc)
    ffmpeg("-i", hevc, how, source)
    assert probe(source).info.content_light == (1000, 400)
    summary = restored(source, target)
    assert_copied(source, target, {*range(FRAMES)} - TOUCHED)
    assert summary.copied_frames == FRAMES - len(TOUCHED)
    was, now = (probe(path).info for path in (source, target))
    assert (was.content_light, was.mastering_display) == (now.content_light, now.mastering_display)
    assert was.tags == now.tags


def test_untouched_frames_of_a_plate_keep_its_packets(tmp_path):
    plate = intra_sources.write(tmp_path, COPIED["prores hq"])
    source, target = tmp_path / "small.mkv", tmp_path / "out.mov"
    ffmpeg("-i", plate, "-vf scale=80:60 -c:v ffv1", source)
    track = plain_track(2, centre=(40, 30), side=25, first_frame=FIRST)
    summary = restore_video(
        source, target, load_settings(options=AS_PAINTED), restorer=Painter(),
        analysis=analysis_of_file(source, [track]), plate=plate,
    )  # fmt: skip
    assert_copied(plate, target, {*range(FRAMES)} - TOUCHED)
    assert summary.copied_frames == FRAMES - len(TOUCHED)


def test_a_layer_belongs_to_the_frames_that_were_encoded(tmp_path):
    source = intra_sources.write(tmp_path, COPIED["ffv1"])
    settings = load_settings(options=AS_PAINTED | {"layer.format": "tiff"})
    summary = restore_video(
        source, tmp_path / "out.mkv", settings, restorer=Painter(),
        analysis=analysis_of_file(source, [face()]), layer=tmp_path / "layer",
    )  # fmt: skip
    assert summary.copied_frames == FRAMES - len(TOUCHED)
    assert_copied(source, tmp_path / "out.mkv", {*range(FRAMES)} - TOUCHED)
    assert len([*(tmp_path / "layer").glob("fill_*.tif")]) == FRAMES


def test_segments_change_nothing(shots, tmp_path):
    counts = {}
    for frames in (1000, 48):
        target = tmp_path / f"{frames}.mov"
        summary = run(shots, target, **{"job.segment_frames": frames})
        counts[frames] = summary.copied_frames, packets(target, 0)
    assert counts[1000] == counts[48]


@pytest.mark.long
def test_an_interrupted_run_goes_on_with_the_setting_that_it_has(shots, tmp_path):
    def broken(event: Any) -> None:
        if is_at(event, "restore", 60):
            raise OutputError("enough")

    whole, target = tmp_path / "whole.mov", tmp_path / "out.mov"
    run(shots, whole)
    split = {"job.segment_frames": 48}
    with pytest.raises(OutputError, match="enough"):
        run(shots, target, on_event=broken, **split)
    anew = Painter()
    run(shots, tmp_path / "other.mov", anew, **split, **{"encode.copy_untouched": False})
    again = Painter()
    told: list[Any] = []
    run(shots, target, again, on_event=told.append, **split)
    assert any("done already" in text for text in messages(told))
    assert packets(target, 0) == packets(whole, 0)
    with pytest.raises(OutputError, match="enough"):
        run(shots, tmp_path / "turned.mov", on_event=broken, **split)
    told.clear()
    summary = run(shots, tmp_path / "turned.mov", on_event=told.append, **split,
                  **{"encode.copy_untouched": False})  # fmt: skip
    assert not any("done already" in text for text in messages(told))
    assert summary.copied_frames == 0


class Deadly(Painter):
    """Kills its process at the last face."""

    def __call__(self, windows: Any) -> Any:
        if sum(self.batches) + len(windows) == len(touched_of_shots()):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(windows)


@pytest.mark.long
def test_a_killed_run_goes_on_and_copies_the_rest(shots, tmp_path):
    whole, target = tmp_path / "whole.mov", tmp_path / "killed" / "out.mov"
    target.parent.mkdir()
    run(shots, whole)
    killed = subprocess.run(
        [sys.executable, __file__, shots, target],
        capture_output=True, text=True, check=False, timeout=600, env=environment(),
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not target.exists()
    again, told = Painter(), []
    summary = run(shots, target, again, on_event=told.append, **{"job.segment_frames": 48})
    assert 0 < sum(again.batches) < len(touched_of_shots())
    assert any("done already" in text for text in messages(told))
    assert packets(target, 0) == packets(whole, 0)
    assert summary.copied_frames == SHOTS[-1][1] - len(touched_of_shots())


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), Deadly(), **{"job.segment_frames": 48})

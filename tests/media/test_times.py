"""The times of frames, sound and subtitles where a file does not state them plainly."""

import re
import zlib
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from time import process_time

import av
import pytest
from helpers import sources
from helpers.events import messages
from helpers.media import Unchanged, analysis_of_file, frame_times, planes_of
from helpers.recordings import (
    H264,
    MPEG2,
    append,
    frames_shown,
    join,
    pack_b_frames,
    packets,
    record,
    spread,
    with_moved_times,
    with_pulldown,
    without_decoding_times,
    without_times,
)
from helpers.sources import ffmpeg, picture, tone

from vidrestore.analysis import storage
from vidrestore.analysis.pipeline import analyze_video
from vidrestore.api import restore_video
from vidrestore.common.errors import InputError
from vidrestore.common.events import Event
from vidrestore.common.profiles import load_settings
from vidrestore.jobs.summary import Summary
from vidrestore.media.appended import MOV, later_files
from vidrestore.media.decode import DecodeErrors, TimeRange, decode, open_video
from vidrestore.media.discontinuities import read_time_line
from vidrestore.media.probe import probe
from vidrestore.media.timeline import NOTHING_TO_REPAIR

# Matroska keeps times to the millisecond, of each stream by itself.
TOLERANCE = Fraction(2, 1000)
HAAR = load_settings(options={"detect.detector": "haar", "detect.remember": False})
LOSSLESS = load_settings(options={"encode.codec": "ffv1", "encode.check": False})
VIDEO, SOUND = 0x100, 0x101


def restored(source: Path, target: Path, span: TimeRange | None = None) -> Summary:
    settings = LOSSLESS if target.suffix == ".mkv" else load_settings()
    return restore_video(source, target, settings, restorer=Unchanged(), span=span,
                         analysis=analysis_of_file(source, span=span))  # fmt: skip


def seconds_of_frames(path: Path, damage: DecodeErrors | None = None) -> list[Fraction]:
    clock = probe(path).info.time_base
    return [frame.pts * clock for frame in decode(path, damage or DecodeErrors())]


# Formats without presentation times.
WITHOUT_TIMES = {
    "h264.avi": "-c:v libx264 -preset ultrafast -bf 3",
    "mpeg4.avi": "-c:v mpeg4 -bf 2 -vtag XVID",
    "xvid.avi": "-c:v libxvid -bf 2",
    "mpeg2.avi": "-c:v mpeg2video -bf 2",
}


@pytest.mark.parametrize("name", WITHOUT_TIMES)
def test_frames_of_avi_have_the_times_at_which_ffmpeg_shows_them(tmp_path, name):
    source, damage = tmp_path / name, DecodeErrors()
    ffmpeg(picture(frames=40), tone(1.6), WITHOUT_TIMES[name], "-c:a libmp3lame", source)
    assert seconds_of_frames(source, damage) == [time for time, _ in frames_shown(source)]
    assert not damage.found


def test_a_gap_of_avi_stays_where_it_is(tmp_path):
    source = tmp_path / "source.avi"
    ffmpeg(picture(frames=90), r"-vf 'select=not(between(n\,40\,69))' -fps_mode passthrough",
           f"{H264} -bf 3", source)  # fmt: skip
    times = seconds_of_frames(source)
    assert times == [time for time, _ in frames_shown(source)]
    assert max(b - a for a, b in pairwise(times)) == Fraction(31, 25)


@pytest.mark.parametrize("codec", WITHOUT_TIMES)
@pytest.mark.parametrize("dropped", ["between(n,34,37)", "eq(n,35)+eq(n,37)", "mod(n,3)"])
def test_frames_after_the_last_gap_of_avi_come_when_ffmpeg_shows_them(tmp_path, codec, dropped):
    """A frame that is dropped has a packet without data, which libavformat passes over."""
    source = tmp_path / codec
    ffmpeg(picture(frames=40), f"-vf \"select='not({dropped})'\" -fps_mode passthrough",
           WITHOUT_TIMES[codec], source)  # fmt: skip
    assert seconds_of_frames(source) == [time for time, _ in frames_shown(source)]


def test_packed_b_frames_have_the_times_at_which_ffmpeg_shows_them(tmp_path):
    plain, damage = tmp_path / "plain.avi", DecodeErrors()
    ffmpeg(picture(frames=40), "-c:v mpeg4 -bf 1 -g 12", plain)
    source = pack_b_frames(plain, tmp_path / "packed.avi")
    times = seconds_of_frames(source, damage)
    assert times == [time for time, _ in frames_shown(source)]
    assert len(times) == 40
    assert not damage.found


def test_decoding_times_count_where_an_mp4_has_them_for_both(tmp_path):
    """A muxer that took them for presentation times made such files of AVI."""
    good, source = tmp_path / "good.mp4", tmp_path / "bad.mp4"
    ffmpeg(picture(frames=40), H264, good)
    with av.open(str(good)) as reader, av.open(str(source), "w") as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        for number, packet in enumerate(p for p in reader.demux(stream) if p.size):
            packet.pts = packet.dts = number * packet.duration
            packet.stream = copy
            writer.mux(packet)
    shown = [time for time, _ in frames_shown(source)]
    times = seconds_of_frames(source)
    assert len(times) == len(shown) == 40
    # ffmpeg gives the frames at the end, after the last packet, equal times.
    assert times[1:38] == shown[1:38]
    assert [b - a for a, b in pairwise(times[1:])] == [Fraction(1, 25)] * 38


@pytest.mark.parametrize("suffix", [".m2v", ".vob"])
def test_durations_add_up_where_there_are_no_times(tmp_path, suffix):
    """Film on a DVD: frames of three and two fields."""
    plain, film = tmp_path / "plain.m2v", tmp_path / "film.m2v"
    ffmpeg("-f lavfi -i testsrc2=size=64x48:rate=30000/1001,trim=end_frame=40",
           "-c:v mpeg2video -bf 0 -g 12 -f mpeg2video", plain)  # fmt: skip
    film.write_bytes(with_pulldown(plain.read_bytes()))
    source = film
    if suffix == ".vob":
        source = tmp_path / "film.vob"
        ffmpeg("-i", film, tone(1.5), "-map 0 -map 1 -c:v copy -c:a mp2 -f vob", source)
        source.write_bytes(without_times(source.read_bytes()))
    damage = DecodeErrors()
    times = seconds_of_frames(source, damage)
    assert times == [time for time, _ in frames_shown(source)]
    steps = {round(float(b - a), 3) for a, b in pairwise(times)}
    assert steps == {0.033, 0.05}
    assert damage.repaired_times == 40


LACKING = {"both": lambda _: True, "sound": lambda kind: kind < 0xE0,
           "picture": lambda kind: kind >= 0xE0}  # fmt: skip


@pytest.mark.parametrize("codec", ["mp2", "ac3"])
@pytest.mark.parametrize("lacking", LACKING)
@pytest.mark.parametrize("span", [None, TimeRange(Fraction(1), Fraction(3, 2))])
def test_a_stream_without_times_begins_with_the_others(tmp_path, codec, lacking, span):
    good = record(tmp_path / "good.vob", 0, 50, audio=f"-c:a {codec}")
    source, target = tmp_path / "bad.vob", tmp_path / "out.mkv"
    source.write_bytes(without_times(good.read_bytes(), LACKING[lacking]))
    summary = restored(source, target, span)
    assert summary.frames == (13 if span else 50)
    said = [warning for warning in summary.warnings if "no times of stream 1" in warning]
    assert len(said) == (lacking != "picture")
    before, after = frames_shown(good), frames_shown(target)
    moved = after[0][0] - next(time for time, crc in before if crc == after[0][1])
    known = {crc: time for time, crc in packets(good, 1)}
    off = [time - known[crc] - moved for time, crc in packets(target, 1)]
    assert max(map(abs, off)) <= Fraction(1, 50)
    assert len(off) == len(known) if span is None else len(off) > 13


def joined(tmp_path: Path, suffix: str, *parts: dict) -> tuple[list[Path], Path]:
    made = [
        record(tmp_path / f"{number}{suffix}", number, **options)
        for number, options in enumerate(parts)
    ]
    return made, join(tmp_path / f"joined{suffix}", made)


# What stands at 0 s begins at 1.4 s in a transport stream.
EACH_SECOND = [{"frames": 25 + i} for i in range(4)]
BACK_BY_HOURS = [{"offset": offset} for offset in (36000, 5, 80000, 20000)]
ONE_WITHOUT_SOUND = [{}, {"has_sound": False}, {}]
OF_UNEQUAL_LENGTH = [
    {"offset": 10, "sound_seconds": 2}, {"frames": 40, "offset": 3, "sound_seconds": 0.7},
    {"frames": 30, "sound_late": 0.7},
]  # fmt: skip
OVERLAPPING = [{"offset": offset} for offset in (10, 10.5, 11.4, 12.2)]
KINDS = {
    "each second": EACH_SECOND,
    "back by hours": BACK_BY_HOURS,
    "one without sound": ONE_WITHOUT_SOUND,
    "of unequal length": OF_UNEQUAL_LENGTH,
    "overlapping": OVERLAPPING,
}
CASES = [(".ts", kind) for kind in KINDS] + [
    (".mpg", "each second"), (".vob", "of unequal length"), (".vob", "back by hours"),
    (".flv", "each second"), (".flv", "overlapping"), (".mp4", "each second"),
    (".mp4", "overlapping"), (".mp4", "back by hours"),
]  # fmt: skip


@pytest.mark.parametrize(("suffix", "kind"), CASES)
def test_sound_and_picture_of_joined_recordings_stay_together(tmp_path, suffix, kind):
    parts, source = joined(tmp_path, suffix, *KINDS[kind])
    summary = restored(source, tmp_path / "out.mkv")
    shifts = spread(parts, tmp_path / "out.mkv")
    assert all(most - least <= TOLERANCE for least, most in shifts), shifts
    times = frame_times(tmp_path / "out.mkv")
    assert times == sorted(set(times))
    assert times[-1] - times[0] < 9
    # Each part begins where all before it have ended, and the notice says when.
    joins = read_time_line(source).joins_seconds
    assert len(joins) == len(parts) - 1
    (said,) = [warning for warning in summary.warnings if "begin anew" in warning]
    assert all(f"{seconds:.3f}" in said for seconds in joins)
    assert not any("repaired" in warning for warning in summary.warnings)


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_the_sound_of_joined_recordings_fits_in_any_container(tmp_path, suffix):
    parts, source = joined(tmp_path, ".ts", {"offset": 50}, {"offset": 7}, {})
    restored(source, tmp_path / f"out{suffix}")
    times, heard = frame_times(tmp_path / f"out{suffix}"), packets(tmp_path / f"out{suffix}", 1)
    for number, part in enumerate(parts):
        before = [time for time, _ in packets(part, 1)]
        after = [time for time, _ in heard[: len(before)]]
        del heard[: len(before)]
        moved = times[25 * number] - frame_times(part)[0]
        off = [b - a - moved for a, b in zip(before, after, strict=True)]
        assert max(map(abs, off)) <= TOLERANCE
    assert not heard


@pytest.mark.parametrize("suffix", [".ts", ".vob"])
def test_a_clock_that_begins_anew_is_no_join(tmp_path, suffix):
    """libavformat lets times before those of the beginning go on, which here ends in the part."""
    parts, source = joined(tmp_path, suffix, {"offset": 100}, {"offset": 38, "frames": 100})
    summary = restored(source, tmp_path / "out.mkv")
    shifts = spread(parts, tmp_path / "out.mkv")
    assert all(most - least <= TOLERANCE for least, most in shifts), shifts
    assert len(read_time_line(source).joins_seconds) == 1
    assert summary.frames == 125


@pytest.mark.parametrize("span", [None, TimeRange(Fraction(1, 2), Fraction(4))])
def test_a_recording_may_begin_just_before_its_clock_begins_anew(tmp_path, span):
    """libavformat counts such times back from the end of the clock, so that they are negative."""
    source, target = record(tmp_path / "a.ts", 0, 150, 95440), tmp_path / "out.mkv"
    assert frames_shown(source)[0][0] < 0
    summary = restored(source, target, span)
    assert not any("begin anew" in warning for warning in summary.warnings)
    if span is None:
        ((least, most),) = spread([source], target)
        assert most - least <= TOLERANCE
        assert abs(frame_times(target)[0] - Fraction(954414, 10)) < Fraction(1, 10)
    else:
        assert summary.frames == 87
        sound = {content: time for time, content in packets(source, 1)}
        first = frames_shown(source)[13][0]
        moved = [time - (sound[content] - first) for time, content in packets(target, 1)]
        assert max(map(abs, moved)) <= TOLERANCE
        assert len(moved) > 120


@pytest.mark.parametrize("suffix", [".ts", ".mpg", ".vob", ".flv"])
def test_a_gap_in_all_streams_is_kept_and_announced(tmp_path, suffix):
    parts, source = joined(
        tmp_path, suffix, {"offset": 10}, {"offset": 15}, {"offset": 50}
    )  # fmt: skip
    summary = restored(source, tmp_path / "out.mkv")
    shifts = spread(parts, tmp_path / "out.mkv")
    assert all(abs(time) <= TOLERANCE for shift in shifts for time in shift), shifts
    (said,) = [warning for warning in summary.warnings if "jump forward" in warning]
    assert "34 s at 0:00:06.0" in said or "33 s at 0:00:06.0" in said
    assert "keeps the gap" in said


def test_another_recording_hours_later_follows_without_a_gap(tmp_path):
    parts, source = joined(tmp_path, ".ts", {"offset": 10}, {"offset": 20_000})
    restored(source, tmp_path / "out.mkv")
    shifts = spread(parts, tmp_path / "out.mkv")
    assert all(most - least <= TOLERANCE for least, most in shifts), shifts
    assert frame_times(tmp_path / "out.mkv")[-1] < 15


# Whole files one after the other. libavformat reads the first one, or reads on with its headers.
APPENDED = {
    ".flv": {}, ".mkv": {}, ".webm": {}, ".mov": {}, ".ogv": {}, ".wmv": {}, ".avi": {},
    "live.webm": {"more": "-live 1"}, "small.flv": {"video": "-c:v flv1", "audio": "-c:a mp3"},
    "fast.mov": {"more": "-movflags +faststart"}, "h264.avi": {"video": H264, "audio": "-c:a ac3"},
    "mjpeg.avi": {"video": "-c:v mjpeg", "audio": "-c:a pcm_s16le"},
}  # fmt: skip


def appended(tmp_path: Path, name: str, *parts: dict) -> tuple[list[Path], Path]:
    suffix = Path(name).suffix or name
    made = [
        record(tmp_path / f"{number}{suffix}", number, **options)
        for number, options in enumerate(parts)
    ]
    return made, append(tmp_path / f"appended{suffix}", made)


@pytest.mark.parametrize("name", APPENDED)
def test_files_that_were_appended_are_read_as_one(tmp_path, name):
    """The sound of the first one ends late, and that of the second one early."""
    how = APPENDED[name]
    lengths = ({"sound_seconds": 1.13}, {"frames": 30, "sound_seconds": 1}, {})
    parts, source = appended(tmp_path, name, *({**how, **own} for own in lengths))
    summary = restored(source, tmp_path / "out.mkv")
    with av.open(str(parts[0])) as container:
        sound = container.streams.audio[0].index
    shifts = spread(parts, tmp_path / "out.mkv", (sound,))
    assert all(most - least <= TOLERANCE for least, most in shifts), shifts
    assert summary.frames == 80
    assert not any("repaired" in warning or "left out" in warning for warning in summary.warnings)
    joins = read_time_line(source).joins_seconds
    (said,) = [warning for warning in summary.warnings if "begin anew" in warning]
    assert all(f"{seconds:.3f}" in said for seconds in joins)
    assert len(joins) == 2
    assert abs(joins[0] - 1.13) < 0.15
    for part in parts:
        assert not read_time_line(part).notes
    damage = DecodeErrors()
    assert len(list(decode(source, damage))) == 80
    assert not damage.decode_errors


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".mov"])
def test_a_sample_of_an_appended_file_has_its_own_sound(tmp_path, suffix):
    parts, source = appended(tmp_path, suffix, {"frames": 50}, {"frames": 50})
    target, begin = tmp_path / "out.mkv", Fraction(read_time_line(source).joins_seconds[0])
    restored(source, target, TimeRange(begin.limit_denominator(1000), begin + 1))
    shown = {crc: time for time, crc in frames_shown(parts[1])}
    heard = {crc: time for time, crc in packets(parts[1], 1)}
    moved = [time - shown[crc] for time, crc in frames_shown(target)]
    moved += [time - heard[crc] for time, crc in packets(target, 1) if crc in heard]
    assert len(moved) > 25 + 30
    assert max(moved) - min(moved) <= TOLERANCE


@pytest.mark.parametrize("suffix", [".mkv", ".mov", ".flv", ".avi"])
def test_an_appended_file_may_have_other_headers_of_the_picture(tmp_path, suffix):
    """Other sets of parameters, and another size."""
    other = f"{H264} -refs 4 -x264-params cabac=0:8x8dct=0:ref=4"
    parts, source = appended(tmp_path, suffix, {"video": H264, "audio": "-c:a mp3"},
                             {"video": other, "audio": "-c:a mp3"})  # fmt: skip
    restored(source, tmp_path / "out.mkv")
    shifts = spread(parts, tmp_path / "out.mkv")
    assert all(most - least <= TOLERANCE for least, most in shifts), shifts


STATED = {
    "-display_rotation 90": "rotation of 90.00 degrees instead of none",
    "-aspect 16:9": "pixel aspect of 4:3 instead of 1:1",
    "-colorspace bt2020nc -color_range tv": "other colors: .*matrix bt2020",
}


@pytest.mark.parametrize("suffix", [".mkv", ".mov"])
@pytest.mark.parametrize("how", STATED)
def test_what_a_later_header_states_otherwise_is_told(tmp_path, suffix, how):
    """It is stated by the second file alone, and by the container alone or by both."""
    parts = [record(tmp_path / f"{number}{suffix}", number) for number in range(2)]
    other = tmp_path / f"other{suffix}"
    before = how if "rotation" in how else ""
    encoder = "-c:v libx264" if "color" in how else ""
    ffmpeg(before, "-i", parts[1], "-map 0 -c copy", encoder, "" if before else how, other)
    source = append(tmp_path / f"source{suffix}", [parts[0], other])
    (said,) = [note for note in read_time_line(source).notes if "states" in note]
    assert re.search(STATED[how], said)
    assert f"split the source at byte {parts[0].stat().st_size:,}" in said
    alike = append(tmp_path / f"alike{suffix}", [other, other])
    assert not any("states" in note for note in read_time_line(alike).notes)


@pytest.mark.parametrize("suffix", [".mkv", ".mov"])
def test_subtitles_of_appended_files_stay_with_their_pictures(tmp_path, suffix):
    """In both files at the same time, so that the second one seems to follow the first one."""
    text, parts = tmp_path / "text.srt", []
    text.write_text("1\n00:00:00,400 --> 00:00:00,600\nA line\n\n")
    for number in range(2):
        plain = record(tmp_path / f"plain{number}{suffix}", number)
        parts.append(tmp_path / f"{number}{suffix}")
        how = "-c:s mov_text" if suffix == ".mov" else "-c:s ass"
        ffmpeg("-i", plain, "-i", text, f"-map 0 -map 1 -c copy {how}", parts[-1])
    source, target = append(tmp_path / f"source{suffix}", parts), tmp_path / "out.mkv"
    restored(source, target)
    (join,) = read_time_line(source).joins_seconds
    with av.open(str(target)) as container:
        (index,) = [stream.index for stream in container.streams if stream.type == "subtitle"]
    begins = [time for time, _ in packets(target, index)]
    assert begins[1] - begins[0] == pytest.approx(join, abs=0.003)


FILES = [(".mov", "-movflags +faststart"), (".mp4", ""), (".mkv", ""), (".avi", ""), (".wmv", "")]


@pytest.mark.parametrize(("suffix", "more"), FILES)
def test_what_follows_a_file_that_was_cut_is_read(tmp_path, suffix, more):
    """The sizes that the first two state lead into the files after them."""
    parts = [record(tmp_path / f"{i}{suffix}", i, 50, more=more) for i in range(3)]
    for part in parts[:2]:
        data = part.read_bytes()
        part.write_bytes(data[: len(data) * 6 // 10])
    source = append(tmp_path / f"source{suffix}", parts)
    info = probe(source).info
    frames = list(decode(source, DecodeErrors(), like=info, shifts=info.shifts))
    wanted = frames_shown(parts[2])
    assert len(info.joins_seconds) == 2
    assert len(frames) >= sum(len(frames_shown(part)) for part in parts) - 2
    first = round(info.joins_seconds[1] / info.time_base) + frames[0].pts
    last = [(f.pts - first) * info.time_base for f in frames[-50:]]
    off = [time - was for time, (was, _) in zip(last, wanted, strict=True)]
    assert max(off) - min(off) <= TOLERANCE
    assert [adler_of(f.image) for f in frames[-50:]] == [crc for _, crc in wanted]


@pytest.mark.parametrize("junk", [bytes(3000), b"a note\n" * 400, b"\0"])
@pytest.mark.parametrize("suffix", [".mov", ".mkv", ".avi", ".wmv"])
def test_what_lies_between_two_files_hides_none(tmp_path, suffix, junk):
    parts = [record(tmp_path / f"{i}{suffix}", i) for i in range(2)]
    source = tmp_path / f"source{suffix}"
    source.write_bytes(junk.join(part.read_bytes() for part in parts))
    info = probe(source).info
    frames = list(decode(source, DecodeErrors(), like=info, shifts=info.shifts))
    wanted = [crc for part in parts for _, crc in frames_shown(part)]
    assert [adler_of(f.image) for f in frames] == wanted
    assert len(info.joins_seconds) == 1


@pytest.mark.parametrize("byte", [8, 9])
def test_a_tag_with_a_false_time_between_two_flv_files_moves_nothing(tmp_path, byte):
    """Bytes that read as a tag of a stream that no file has, 30 hours later."""
    parts = [record(tmp_path / f"{i}.flv", i) for i in range(2)]
    source = tmp_path / "source.flv"
    source.write_bytes((bytes([byte]) * 3000).join(part.read_bytes() for part in parts))
    (join,) = read_time_line(source).joins_seconds
    assert 1 <= join < 1.1
    damage = DecodeErrors()
    frames = list(decode(source, damage))
    assert [adler_of(f.image) for f in frames] == [c for p in parts for _, c in frames_shown(p)]
    assert not damage.repaired_times


@pytest.mark.parametrize("order", ["mdat moov", "moov mdat"])
def test_quicktime_files_without_a_header_are_read_as_one(tmp_path, order):
    """As old cameras write them."""
    parts = []
    for number in range(3):
        part = record(
            tmp_path / f"{number}.mov",
            number,
            video="-c:v mjpeg",
            audio="-c:a pcm_s16le",
            more="-movflags +faststart" * (order[1] == "o"),
        )
        data = part.read_bytes()
        size = int.from_bytes(data[:4])
        if order == "mdat moov":
            data = data.replace(b"ftyp", b"wide", 1)
        else:
            end = data.index(b"moov") - 4 + int.from_bytes(data[size : size + 4])
            data = data[size:end] + data[:size].replace(b"ftyp", b"free", 1) + data[end:]
        part.write_bytes(data)
        parts.append(part)
    source = append(tmp_path / "source.mov", parts)
    info = probe(source).info
    frames = list(decode(source, DecodeErrors(), like=info, shifts=info.shifts))
    assert [adler_of(f.image) for f in frames] == [c for p in parts for _, c in frames_shown(p)]
    assert len(info.joins_seconds) == 2


@pytest.mark.parametrize(
    ("suffix", "video"),
    [(".mkv", H264), (".mp4", H264), (".flv", H264), (".mov", "-c:v mpeg4 -bf 2 -q:v 3")],
)
def test_each_file_is_decoded_with_its_own_header(tmp_path, suffix, video):
    """The third file has the header of the first one again."""
    other = f"{video} -flags +qpel" if "mpeg4" in video else f"{video} -x264-params cabac=0:ref=4"
    parts = [
        record(tmp_path / f"{number}{suffix}", number, video=each, audio="-c:a mp3")
        for number, each in enumerate((video, other, video))
    ]
    source = append(tmp_path / f"source{suffix}", parts)
    info = probe(source).info
    frames = list(decode(source, DecodeErrors(), like=info, shifts=info.shifts))
    assert [adler_of(f.image) for f in frames] == [c for p in parts for _, c in frames_shown(p)]


def adler_of(image: av.VideoFrame) -> int:
    """The checksum by which the ffmpeg program names a frame."""
    return zlib.adler32(b"".join(plane.tobytes() for plane in planes_of(image)), 0)


KINDS_OF_FILES = [(".mov", ".mkv"), (".mkv", ".mov"), (".flv", ".mov"), (".ts", ".mov"),
                  (".avi", ".ts"), (".wmv", ".avi"), (".ogv", ".vob")]  # fmt: skip


@pytest.mark.parametrize(("suffix", "other"), KINDS_OF_FILES)
def test_an_appended_file_of_another_format_is_announced(tmp_path, suffix, other):
    parts = [record(tmp_path / f"{i}{each}", i) for i, each in enumerate((suffix, other))]
    source = append(tmp_path / f"source{suffix}", parts)
    begin, rest = (part.stat().st_size for part in parts)
    (said,) = [note for note in read_time_line(source).notes if "format is another" in note]
    assert f"the last {rest:,} bytes" in said
    assert f"at byte {begin:,}" in said
    assert not read_time_line(parts[0]).notes


OTHERS = [
    (".wmv", {"size": "96x64"}, None, "its video has 96 x 64 pixels .* instead of 64 x 48"),
    (".mov", {"video": "-c:v mpeg4"}, None, "its video is mpeg4 instead of h264"),
    (".mkv", {"video": "-c:v mpeg4"}, None, "its video is mpeg4 instead of h264"),
    (".flv", {"video": "-c:v flv1"}, None, "its video is flv1 instead of h264"),
    (".avi", {"more": "-r 30"}, None, "its video has a clock of 1/30 s instead of 1/25 s"),
    (".avi", {"audio": "-c:a ac3"}, 1, "stream 1 (audio) .* is ac3 instead of mp3"),
    (".mov", {"audio": "-c:a aac -ar 48000"}, 1, "stream 1 (audio) .* has 48000 Hz"),
    (".flv", {"audio": "-c:a mp3"}, 1, "stream 1 (audio) .* is mp3 instead of aac"),
]


@pytest.mark.parametrize(("suffix", "other", "lost", "word"), OTHERS)
def test_what_cannot_go_on_in_an_appended_file_is_announced(tmp_path, suffix, other, lost, word):
    parts, source = appended(tmp_path, suffix, {}, other)
    summary = restored(source, tmp_path / "out.mkv")
    begin, rest = (part.stat().st_size for part in parts)
    (said,) = [warning for warning in summary.warnings if "appended" in warning]
    assert re.search(word.replace("(audio)", r"\(audio\)"), said)
    assert f"split the source at byte {begin:,}" in said
    if lost is None:
        assert f"the last {rest:,} bytes" in said
        assert summary.frames == 25
    else:
        assert summary.frames == 50
    heard = packets(tmp_path / "out.mkv", 1)
    assert [crc for _, crc in heard] == [crc for _, crc in packets(parts[0], 1)]


def test_a_segmented_stream_whose_header_is_repeated_has_nothing_to_repair(tmp_path):
    source = record(tmp_path / "source.mp4", 0, 50)
    data = source.read_bytes()
    header, first = data[: data.index(b"moof") - 4], data.index(b"moof", data.index(b"moof") + 4)
    source.write_bytes(data[: first - 4] + header + data[first - 4 :])
    assert probe(source).time_line == NOTHING_TO_REPAIR
    assert seconds_of_frames(source) == [time for time, _ in frames_shown(source)]


def test_a_live_recording_of_a_day_is_looked_through_in_a_moment(tmp_path):
    """100,000 fragments, of which each has two boxes."""
    source, count = tmp_path / "day.mp4", 100_000
    head = b"\0\0\0\x18ftypisom" + bytes(12) + b"\0\0\0\x08moov"
    fragment = b"\0\0\0\x10moof" + bytes(8) + b"\0\0\0\x10mdat" + bytes(8)
    source.write_bytes(head + count * fragment)
    begin = process_time()
    assert later_files(source, MOV) == ()
    assert process_time() - begin < 2
    source.write_bytes(2 * (head + count * fragment))
    assert later_files(source, MOV) == (len(head) + count * len(fragment),)


def test_samples_of_joined_mp4_files_are_found(tmp_path):
    _, source = joined(tmp_path, ".mp4", {"frames": 50}, {"frames": 50})
    with open_video(source) as video:
        ticks = int(1 / video.stream.time_base)
        for seconds in range(4):
            assert next(video.frames_from(seconds * ticks), None) is not None


@pytest.mark.parametrize("has_sound", [True, False])
def test_joined_streams_without_decoding_times(tmp_path, has_sound):
    video = "-c:v libx264 -preset medium -bf 4 -x264-params b-pyramid=normal:ref=4 -g 25"
    parts, source = joined(
        tmp_path, ".ts", *({"offset": o, "video": video, "has_sound": has_sound} for o in (9, 5, 1))
    )
    for part in parts:
        part.write_bytes(without_decoding_times(part.read_bytes(), VIDEO))
    join(source, parts)
    summary = restored(source, tmp_path / "out.mkv")
    shifts = spread(parts, tmp_path / "out.mkv", streams=(1,) if has_sound else ())
    assert all(most - least <= TOLERANCE for least, most in shifts), shifts
    assert not any("repaired" in warning for warning in summary.warnings)


def test_interlaced_recordings_join_as_others(tmp_path):
    video = "-c:v mpeg2video -flags +ildct+ilme -bf 2 -g 12"
    parts, source = joined(tmp_path, ".ts", *({"offset": o, "video": video} for o in (9, 5, 1)))
    restored(source, tmp_path / "out.mkv")
    shifts = spread(parts, tmp_path / "out.mkv")
    assert all(most - least <= TOLERANCE for least, most in shifts), shifts


@pytest.mark.parametrize("offset", [1, 500])
def test_a_sound_that_one_part_alone_has_stays_in_it(tmp_path, offset):
    """libavformat gives its last packets at the end of the file."""
    parts, second = [], "-map 2 -c:a:1 ac3"
    for number, start in enumerate((50, 5, offset)):
        part = tmp_path / f"{number}.ts"
        noise = f"testsrc2=size=64x48:rate=25,noise=alls=15:allf=t:all_seed={number + 1}"
        ffmpeg(f"-f lavfi -i {noise},trim=end_frame=40",
               *(f"-f lavfi -i anoisesrc=seed={seed}:sample_rate=48000:duration=1.6"
                 for seed in (number + 1, number + 9)),
               f"-map 0 -map 1 {second if number == 1 else ''} {H264} -c:a:0 mp2",
               f"-output_ts_offset {start}", part)  # fmt: skip
        parts.append(part)
    source = join(tmp_path / "joined.ts", parts)
    restored(source, tmp_path / "out.mkv")
    shifts = spread(parts, tmp_path / "out.mkv", streams=(1, 2))
    assert all(most - least <= TOLERANCE for least, most in shifts), shifts
    assert len(read_time_line(source).joins_seconds) == 2
    assert frame_times(tmp_path / "out.mkv")[-1] < 60


def test_a_sample_of_joined_recordings_has_its_own_sound(tmp_path):
    parts, source = joined(tmp_path, ".ts", *({"offset": o, "frames": 50} for o in (90, 7, 3)))
    place = {crc: (i, time) for i, part in enumerate(parts) for time, crc in packets(part, 1)}
    shown = {crc: (i, time) for i, part in enumerate(parts) for time, crc in frames_shown(part)}
    target = tmp_path / "out.mkv"
    restored(source, target, TimeRange(Fraction(3, 2), Fraction(9, 2)))
    moved: dict[int, set[Fraction]] = {}
    for known, found in ((shown, frames_shown(target)), (place, packets(target, 1))):
        for time, crc in found:
            part, before = known[crc]
            moved.setdefault(part, set()).add(time - before)
    assert sorted(moved) == [0, 1, 2]
    assert all(max(each) - min(each) <= TOLERANCE for each in moved.values()), moved
    assert frame_times(target)[0] == 0


# What becomes of false times in one stream, of which the other one says nothing.
ALONE = [
    (SOUND, 8, 1, 5 * 3600, "had false times"),
    (SOUND, 8, 1, -1, "had false times"),
    (SOUND, 8, 4, 7200, "jump forward"),
    (SOUND, 8, 4, -2, "jump back"),
    (SOUND, 12, 1000, -5 * 3600, "jump back"),
    (SOUND, 12, 1000, 5 * 3600, "jump forward"),
    (VIDEO, 24, 12, 5 * 3600, "jump forward"),
    (VIDEO, 24, 12, -2, "jump back"),
    (VIDEO, 30, 1, -2, ""),
    (VIDEO, 24, 1000, -5 * 3600, "jump back"),
]


@pytest.mark.parametrize(("pid", "first", "count", "seconds", "word"), ALONE)
def test_false_times_in_one_stream_move_nothing(tmp_path, pid, first, count, seconds, word):
    good = record(tmp_path / "good.ts", 0, 75, 1000)
    source, target = tmp_path / "bad.ts", tmp_path / "out.mkv"
    source.write_bytes(with_moved_times(good.read_bytes(), pid, first, count, seconds))
    assert source.read_bytes() != good.read_bytes()
    summary = restored(source, target)
    ((least, most),) = spread([good], target)
    # A single frame is put between its neighbors.
    assert -Fraction(1, 25) <= least <= most <= Fraction(1, 25)
    assert any(word in warning for warning in summary.warnings), summary.warnings
    assert not read_time_line(source).joins_seconds


def test_sound_that_falls_back_for_good_stays_where_the_file_has_it(tmp_path):
    good = record(tmp_path / "good.ts", 0, 75, 1000)
    source, target = tmp_path / "bad.ts", tmp_path / "out.mkv"
    source.write_bytes(with_moved_times(good.read_bytes(), SOUND, 12, 1000, -0.3))
    restored(source, target)
    moved = [after - before for (before, _), (after, _) in
             zip(frames_shown(good), frames_shown(target), strict=True)]  # fmt: skip
    heard = [after - before for (before, _), (after, _) in
             zip(packets(good, 1), packets(target, 1), strict=True)]  # fmt: skip
    assert abs(moved[-1] - heard[-1] - Fraction(3, 10)) <= TOLERANCE
    assert abs(moved[0]) <= TOLERANCE
    assert abs(heard[0]) <= TOLERANCE


CHANGES = [("mp2", "ac3"), ("ac3", "aac"), ("aac", "ac3"), ("ac3", "eac3"), ("mp2", "aac")]


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("codecs", CHANGES)
def test_a_sound_that_changes_its_codec_is_kept_up_to_there_and_named(tmp_path, codecs, back):
    """As in broadcasts, where the film has another sound than what is around it."""
    parts = [
        record(tmp_path / f"{number}.ts", number, 50, 2 * number, audio=f"-c:a {codec}")
        for number, codec in enumerate([*codecs, *codecs[:back]])
    ]
    source, target = append(tmp_path / "source.ts", parts), tmp_path / "out.mkv"
    summary = restored(source, target)
    (said,) = [warning for warning in summary.warnings if "codec" in warning]
    named = rf"changes its codec from {codecs[0]} to {codecs[1]} at 0:00:0(1\.9|2\.0)\d\d"
    assert re.search(named, said)
    assert (f"to {codecs[0]} at 0:00:0" in said) == back
    shown, heard = frames_shown(target), packets(target, 1)
    for number, part in enumerate(parts):
        frames, sound = frames_shown(part), packets(part, 1) if number != 1 else []
        if number == 0 and codecs[0] == "ac3":
            # libavformat may lose the last packet before another codec.
            sound = [each for each in sound if each[1] in {crc for _, crc in heard}]
            assert len(sound) >= len(packets(part, 1)) - 1
        moved = [after - before for (before, _), (after, _) in zip(frames, shown, strict=False)]
        assert [crc for _, crc in frames] == [crc for _, crc in shown[: len(frames)]]
        assert [crc for _, crc in sound] == [crc for _, crc in heard[: len(sound)]]
        moved += [after - before for (before, _), (after, _) in zip(sound, heard, strict=False)]
        del shown[: len(frames)], heard[: len(sound)]
        assert max(moved) - min(moved) <= TOLERANCE
    assert not shown
    assert not heard


def test_a_sound_of_a_program_stream_that_changes_its_codec_is_named(tmp_path):
    parts = [
        record(tmp_path / f"{number}.mpg", number, 50, 2 * number, audio=f"-c:a {codec}")
        for number, codec in enumerate(("mp2", "libmp3lame"))
    ]
    line = read_time_line(append(tmp_path / "source.mpg", parts))
    (said,) = [note for note in line.notes if "codec" in note]
    assert "stream 1 changes its codec from mp2 to mp3 at 0:00:02.0" in said
    (numbers,) = line.of_other_codec[1]
    assert len(numbers) in range(len(packets(parts[1], 1)) - 1, len(packets(parts[1], 1)) + 1)


def test_samples_that_look_like_sync_words_are_no_other_codec(tmp_path):
    """PCM whose packets begin with their size, which is the sync word of AC-3 or LATM."""
    parts = []
    for number, samples in enumerate((0x0B77 // 5, 0x56E0 // 5)):
        part = tmp_path / f"{number}.ts"
        ffmpeg(picture(frames=50), "-f lavfi -i anoisesrc=sample_rate=48000:duration=2",
               f"-af aformat=channel_layouts=stereo,asetnsamples={samples} {H264}",
               f"-c:a s302m -sample_fmt s16 -strict -2 -output_ts_offset {2 * number}",
               part)  # fmt: skip
        parts.append(part)
    source = append(tmp_path / "source.ts", parts)
    with av.open(str(source)) as container:
        data = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    assert {each[:2].hex() for each in data} >= {"0b77", "56e0"}
    line = read_time_line(source)
    assert not line.of_other_codec
    assert not [note for note in line.notes if "codec" in note]


@pytest.mark.parametrize("codecs", [(MPEG2, H264), (H264, MPEG2)])
def test_a_video_that_changes_its_codec_is_refused_before_the_work(tmp_path, codecs):
    parts = [
        record(tmp_path / f"{number}.ts", number, 50, 2 * number, video=video)
        for number, video in enumerate(codecs)
    ]
    source = append(tmp_path / "source.ts", parts)
    with pytest.raises(InputError, match=r"changes its codec from \w+ to \w+ at 0:00:0\d.*cut"):
        probe(source)


# A second sound from 9 to 11 s of 14 s, which libavformat does not see when it opens the file.
@pytest.mark.parametrize("codec", ["mp2", "ac3"])
@pytest.mark.parametrize("video", [MPEG2, H264])
def test_a_part_without_video_may_use_the_number_of_the_video(tmp_path, video, codec):
    """The decoder gets no sound. libavformat loses one picture, as it does for ffmpeg, and may cut
    the one after it, which damages others up to the next key frame.
    """
    parts = [record(tmp_path / f"{i}.ts", i, video=video) for i in range(2)]
    alone = tmp_path / "alone.ts"
    ffmpeg(tone(1, 44100), f"-c:a {codec} -f mpegts", alone)
    source = append(tmp_path / "source.ts", [parts[0], alone, parts[1]])
    damage, line = DecodeErrors(), read_time_line(source)
    frames = list(decode(source, damage, one_thread=True))
    assert len(frames) == 49 == len(frames_shown(source))
    assert damage.decode_errors == 1
    assert len(line.joins_seconds) == 1
    (said,) = [note for note in line.notes if "audio instead of video" in note]
    assert "split the source at byte" in said
    wanted = frames_shown(parts[1])[12:]
    assert [adler_of(frame.image) for frame in frames[-13:]] == [crc for _, crc in wanted]


def late_sound(path: Path) -> Path:
    kinds = {".vob": f"{MPEG2} -c:a mp2 -f vob", ".mpg": f"{MPEG2} -c:a mp2 -f mpeg",
             ".ts": f"{H264} -c:a ac3 -f mpegts"}  # fmt: skip
    ffmpeg(picture("64x48", 350), tone(14), f"-itsoffset 9 {tone(2)}",
           f"-map 0 -map 1 -map 2 -metadata:s:a:1 language=deu {kinds[path.suffix]}",
           path)  # fmt: skip
    return path


@pytest.mark.parametrize("suffix", [".vob", ".mpg", ".ts"])
def test_a_sound_that_begins_late_is_kept_with_all_packets(tmp_path, suffix):
    source, target = late_sound(tmp_path / f"source{suffix}"), tmp_path / "out.mkv"
    summary = restored(source, target)
    assert summary.frames == 350
    with av.open(
        str(source), options={"probesize": "50000000", "analyzeduration": "100000000"}
    ) as container:
        wanted = Counter[int]()
        begin: dict[int, Fraction] = {}
        for packet in container.demux():
            if packet.size:
                wanted[packet.stream.index] += 1
                begin.setdefault(packet.stream.index, packet.dts * packet.time_base)
    for index in (1, 2):
        kept = packets(target, index)
        assert len(kept) == wanted[index]
        assert abs(kept[0][0] - begin[index]) <= TOLERANCE
    with av.open(str(target)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio", "audio"]
        languages = [stream.metadata.get("language") for stream in container.streams.audio]
    assert languages == [None, "deu" if suffix == ".ts" else None]
    assert len(summary.warnings) == 1, summary.warnings  # no face was found


def test_a_sample_has_its_part_of_a_late_sound(tmp_path):
    source, target = late_sound(tmp_path / "source.vob"), tmp_path / "out.mkv"
    restored(source, target, TimeRange(Fraction(17, 2), Fraction(10)))
    times = [time for time, _ in packets(target, 2)]
    assert abs(times[0] - Fraction(1, 2)) < Fraction(1, 20)
    assert abs(times[-1] - Fraction(3, 2)) < Fraction(1, 20)


def test_subtitles_of_a_disc_that_begin_late_are_kept(tmp_path):
    """As on a DVD, where the first line is spoken after the opening."""
    marks = tmp_path / "subtitles.sup"
    marks.write_bytes(b"".join(sources.display_set(i / 2, visible=not i % 2) for i in range(4)))
    source, target = tmp_path / "source.vob", tmp_path / "out.mkv"
    ffmpeg(picture("96x64", 500), tone(20), "-itsoffset 9 -i", marks,
           f"-map 0 -map 1 -map 2 {MPEG2} -c:a mp2 -c:s dvdsub -f vob", source)  # fmt: skip
    restored(source, target)
    with av.open(str(target)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio", "subtitle"]
    assert [round(time - frame_times(target)[0], 1) for time, _ in packets(target, 2)] == [9, 10]


def test_a_video_that_begins_after_the_sound_is_found(tmp_path):
    source, target = tmp_path / "source.vob", tmp_path / "out.mkv"
    ffmpeg(f"-itsoffset 14 {picture('64x48', 25)}", tone(20),
           f"-map 0 -map 1 -fps_mode passthrough {MPEG2} -c:a mp2 -f vob", source)  # fmt: skip
    summary = restored(source, target)
    assert summary.frames == 25
    with av.open(str(target)) as container:
        video, sound = container.streams.video[0].index, container.streams.audio[0].index
    start = frame_times(target)[0] - packets(target, sound)[0][0]
    assert abs(start - 14) < Fraction(1, 20)
    assert video != sound


# FLV states the end of the file, and announces no streams.
@pytest.mark.parametrize(
    ("kind", "missing"),
    [("delayed by B frames", 0), ("with a long late sound", 0), ("cut", 25)],
)
def test_frames_of_flv_are_missing_only_where_they_are(tmp_path, kind, missing):
    source = tmp_path / "source.flv"
    sound = f"-itsoffset 8 {tone(8, 44100)} -map 0 -map 1 -c:a libmp3lame"
    ffmpeg(picture("64x48", 250), sound if "sound" in kind else "", H264, source)
    if kind == "cut":
        data = source.read_bytes()
        begin = frames_shown(source)[225][0]
        with av.open(str(source)) as container:
            ends = [p.pos for p in container.demux() if p.size and p.pts * p.time_base >= begin]
        source.write_bytes(data[: min(ends)])
    analysis = analyze_video(source, HAAR)
    target = tmp_path / "out.mkv"
    summary = restore_video(source, target, LOSSLESS, restorer=Unchanged(), analysis=analysis)
    assert abs(summary.missing_frames - missing) <= (3 if missing else 0)


PLAIN = ["camcorder_m2ts", "broadcast_ts", "flv", "xvid_mp3_avi", "rich_mkv", "rich_mp4", "wmv",
         "mpeg2_480i_mpg"]  # fmt: skip


@pytest.mark.parametrize("name", [name for name in PLAIN if name in sources.SOURCES])
def test_a_file_without_faults_has_nothing_to_repair(tmp_path, name):
    source = sources.build(name, tmp_path)
    found = probe(source)
    assert found.time_line == NOTHING_TO_REPAIR
    assert found.info.shifts == found.info.joins_seconds == ()
    damage = DecodeErrors()
    assert list(decode(source, damage))
    assert not damage.found


def test_an_analysis_holds_the_repaired_times(tmp_path):
    _, source = joined(tmp_path, ".ts", {"offset": 50}, {"offset": 7})
    heard: list[Event] = []
    analysis = analyze_video(source, HAAR, on_event=heard.append)
    assert sum("begin anew" in message for message in messages(heard)) == 1
    assert analysis.info.shifts
    assert analysis.info.joins_seconds == read_time_line(source).joins_seconds
    assert abs(analysis.info.duration_seconds_from_header - 2.06) < 0.05
    storage.save(analysis, tmp_path / "analysis.npz")
    kept = storage.load(tmp_path / "analysis.npz")
    assert kept.info == analysis.info
    storage.check_picture(kept, probe(source).info, "it")
    old = replace(kept, info=replace(kept.info, shifts=()))
    with pytest.raises(InputError, match="other times"):
        storage.check_picture(old, probe(source).info, "it")

"""The finished file beside its source: count, times, what changed where, and the listing of it."""

import errno
import json
import math
import os
import shutil
import subprocess
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from helpers.media import (
    AS_PAINTED,
    Painter,
    analysis_of_file,
    mild_image,
    packets,
    plain_track,
    planes_of,
    random_image,
    write_video,
)

from vidrestore.api import restore_video
from vidrestore.common.errors import InputError, OutputError
from vidrestore.common.events import Progress
from vidrestore.common.files import placed_together
from vidrestore.common.profiles import load_settings
from vidrestore.imaging.geometry import crop_matrix
from vidrestore.imaging.planes import checksum
from vidrestore.jobs.verify import check_output
from vidrestore.media.decode import DecodeErrors, TimeRange, decode
from vidrestore.media.ffmpeg import ffmpeg_program
from vidrestore.media.framemd5 import Listing
from vidrestore.restoration.compositing.masks import mask_rect

SIZE = (64, 48)
ODD = (97, 73)
FRAMES = 6
VFR = [0, 700, 1100, 2600, 2700, 5000]
MILLISECOND = Fraction(1, 1000)


def movie(path, *, frames=FRAMES, size=SIZE, pixel_format="yuv420p", make=mild_image, **options):
    images = [make(*size, pixel_format, i) for i in range(frames)]
    return write_video(path, images, **options)


def check(source, output, analysis=None, **options):
    options = {"stream_index": 0, "span": None, "strength": 1.0} | options
    path, target = options.pop("listing", None), options.pop("target", output)
    analysis = analysis or analysis_of_file(source)
    if path is None:
        return check_output(source, output, analysis, **options)
    with Listing(path, source, target) as listing:
        found = check_output(source, output, analysis, listing=listing, **options)
        with placed_together([listing.move]):
            return found


def restored(source, target, tracks, codec="ffv1", span=None, **options):
    """The analysis of a file whose faces were painted over."""
    analysis = analysis_of_file(source, tracks, span)
    settings = load_settings(options=AS_PAINTED | {"encode.codec": codec} | options)
    restore_video(source, target, settings, restorer=Painter(), analysis=analysis, span=span)
    return analysis


def columns(listing):
    lines = listing.read_text().splitlines()
    return [line.split(", ") for line in lines if not line.startswith("#")]


def decoded(path, span=None):
    return [planes_of(frame.image) for frame in decode(path, DecodeErrors(), span)]


def covered(analysis, index, grid):
    """(H, W) True where a mask box lies, in luma pixels."""
    inside = np.zeros((analysis.info.height, analysis.info.width), bool)
    for track in analysis.tracks:
        at = index - track.first_frame
        if 0 <= at < len(track.matrices):
            side = track.work_px
            box = mask_rect(crop_matrix(track.matrices[at], side), side, analysis.info, grid)
            inside[box.y0 : box.y1, box.x0 : box.x1] = True
    return inside


def psnr_db(peak, mean_squared_error):
    return pytest.approx(10 * math.log10(peak**2 / mean_squared_error))


def test_a_copy_is_identical_and_says_so_in_strict_json(tmp_path):
    source = movie(tmp_path / "source.mkv")
    output = shutil.copy(source, tmp_path / "output.mkv")
    events, listing = [], tmp_path / "frames.txt"
    fixity = check(source, output, listing=listing, on_event=events.append)
    said = json.loads(json.dumps(fixity.as_dict(), allow_nan=False))
    assert said == {
        "frames": FRAMES, "identical_frames": FRAMES, "identical_outside": FRAMES,
        "psnr_outside_db": None, "luma_psnr_outside_db": None, "worst_frame": None,
        "worst_frame_psnr_db": None, "not_compared": None,
    }  # fmt: skip
    assert all(c[2] == c[3] and c[4:] == ["-"] * 4 for c in columns(listing))
    assert events == [Progress("check", i + 1, FRAMES) for i in range(FRAMES)]


@pytest.mark.parametrize(
    ("pixel_format", "size"),
    [("yuv420p", SIZE), ("yuv420p", ODD), ("yuv422p10le", SIZE), ("yuv411p", SIZE),
     ("gray", ODD), ("gbrp10le", SIZE), ("yuva420p", ODD)],
)  # fmt: skip
def test_a_painted_face_changes_its_own_box_and_nothing_else(tmp_path, pixel_format, size):
    source = movie(tmp_path / "source.mkv", size=size, pixel_format=pixel_format)
    output, listing = tmp_path / "output.mkv", tmp_path / "frames.txt"
    track = plain_track(3, centre=(30, 20), side=30, first_frame=2)
    analysis = restored(source, output, [track])
    fixity = check(source, output, analysis, listing=listing)
    assert fixity.identical_frames == 3
    assert fixity.identical_outside == fixity.frames == FRAMES
    assert fixity.psnr_outside_db is fixity.worst_frame is fixity.worst_frame_psnr_db is None
    grid = {"yuv420p": (2, 2), "yuva420p": (2, 2), "yuv422p10le": (2, 1), "yuv411p": (4, 1)}
    grid = grid.get(pixel_format, (1, 1))
    inside = np.argwhere(covered(analysis, 2, grid))
    for index, *_, was, now, x0, y0, x1, y1 in columns(listing):
        changed = 2 <= int(index) < 5
        assert (was != now) == changed
        if not changed:
            assert {x0, y0, x1, y1} == {"-"}
            continue
        x0, y0, x1, y1 = map(int, (x0, y0, x1, y1))
        assert x0 % grid[0] == y0 % grid[1] == 0
        assert x0 <= 30 < x1
        assert y0 <= 20 < y1
        assert (inside.min(axis=0) <= (y0, x0)).all()
        assert (inside.max(axis=0) >= (y1 - 1, x1 - 1)).all()
        assert (x1 - x0) * (y1 - y0) > 0.3 * len(inside)


def test_the_box_holds_every_change_and_no_more(tmp_path):
    """One sample of one plane at a time, at the frame's edges too."""
    spots = [(0, 0, 0), (0, 46, 62), (1, 23, 31), (2, 5, 9), (0, 13, 21)]
    before = [mild_image(63, 47, "yuv420p", 0) for _ in spots]
    after = [mild_image(63, 47, "yuv420p", 0) for _ in spots]
    for image, (plane, row, column) in zip(after, spots, strict=True):
        view = np.frombuffer(image.planes[plane], np.uint8)
        view[row * image.planes[plane].line_size + column] ^= 1
    source = write_video(tmp_path / "source.mkv", before)
    output = write_video(tmp_path / "output.mkv", after)
    listing = tmp_path / "frames.txt"
    fixity = check(source, output, listing=listing)
    boxes = [tuple(map(int, c[4:])) for c in columns(listing)]
    assert boxes == [
        (0, 0, 2, 2), (62, 46, 63, 47), (62, 46, 63, 47), (18, 10, 20, 12), (20, 12, 22, 14),
    ]  # fmt: skip
    samples = 63 * 47 + 2 * 32 * 24
    assert fixity.identical_frames == fixity.identical_outside == 0
    assert fixity.psnr_outside_db == psnr_db(255, 1 / samples)
    assert fixity.luma_psnr_outside_db == psnr_db(255, 3 / (5 * 63 * 47))


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p10le"])
def test_psnr_outside_the_faces_is_that_of_the_samples_outside_the_boxes(tmp_path, pixel_format):
    source = movie(tmp_path / "source.mkv", pixel_format=pixel_format)
    tracks = [
        plain_track(4, centre=(24, 20), side=24),
        plain_track(3, centre=(34, 28), side=26, first_frame=2, track_id=1),
        plain_track(FRAMES, centre=(62, 4), side=20, track_id=2),
        plain_track(2, centre=(22, 21), side=12, track_id=3),
    ]
    output = tmp_path / "output.mp4"
    analysis = restored(source, output, tracks, codec="h264", **{"encode.quality": "26"})
    fixity = check(source, output, analysis)
    grid = (2, 2) if pixel_format == "yuv420p" else (2, 1)
    peak = 255 if pixel_format == "yuv420p" else 1023
    frames = []
    for index, (was, now) in enumerate(zip(decoded(source), decoded(output), strict=True)):
        outside = ~covered(analysis, index, grid)
        masks = [outside] + [outside[:: grid[1], :: grid[0]]] * 2
        frames.append([
            (a[mask].astype(float) - b[mask]) ** 2
            for a, b, mask in zip(was, now, masks, strict=True)
        ])  # fmt: skip
    means = [np.concatenate(planes).mean() for planes in frames]
    everything = np.concatenate([plane for planes in frames for plane in planes])
    luma = np.concatenate([planes[0] for planes in frames])
    for got, mean in (
        (fixity.psnr_outside_db, everything.mean()),
        (fixity.luma_psnr_outside_db, luma.mean()),
        (fixity.worst_frame_psnr_db, max(means)),
    ):
        assert got == pytest.approx(10 * np.log10(peak**2 / mean), rel=1e-12)
    assert fixity.worst_frame == int(np.argmax(means))
    assert 25 < fixity.worst_frame_psnr_db < fixity.psnr_outside_db < 60
    assert fixity.identical_frames == fixity.identical_outside == 0
    # The painted faces would lower it, if their boxes were not left out.
    assert check(source, output, analysis, strength=0.0).psnr_outside_db < fixity.psnr_outside_db


def test_alpha_counts_and_green_is_no_luma(tmp_path):
    def pair(pixel_format, plane):
        """The same picture twice, but for the last sample of one plane."""
        first, second = (mild_image(*ODD, pixel_format, 0) for _ in range(2))
        step = first.format.components[0].bits // 9 + 1
        memory = np.frombuffer(second.planes[plane], np.uint8)
        rows = memory.reshape(second.planes[plane].height, -1)
        rows[-1, (second.planes[plane].width - 1) * step] ^= 1
        return [write_video(tmp_path / f"{n}.mkv", [i]) for n, i in enumerate((first, second))]

    whole, listing = ODD[0] * ODD[1], tmp_path / "frames.txt"
    alpha = check(*pair("yuva420p", 3), listing=listing)
    assert alpha.psnr_outside_db == psnr_db(255, 1 / (2 * whole + 2 * 49 * 37))
    assert alpha.luma_psnr_outside_db is None
    assert columns(listing)[0][4:] == ["96", "72", "97", "73"]
    green = check(*pair("gbrp10le", 0))
    assert green.psnr_outside_db == psnr_db(1023, 1 / (3 * whole))
    assert green.luma_psnr_outside_db is None


def two_streams(path, first_seed):
    """A large video of its own and, as stream 1, the small one that is always the same."""
    kinds = ((ODD, first_seed), (SIZE, 0))
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("ffv1", rate=25) for _ in kinds]
        for stream, (size, _) in zip(streams, kinds, strict=True):
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
        for stream, (size, seed) in zip(streams, kinds, strict=True):
            for i in range(2):
                image = mild_image(*size, "yuv420p", seed + i)
                image.pts, image.time_base = i, Fraction(1, 25)
                container.mux(stream.encode(image))
            container.mux(stream.encode(None))
    return path


def test_the_restored_stream_is_compared_and_no_other(tmp_path):
    source, output = (two_streams(tmp_path / f"{seed}.mkv", seed) for seed in (1, 3))
    main = analysis_of_file(source)
    assert main.info.stream_index == 0
    crc32 = [checksum(frame.image) for frame in decode(source, DecodeErrors(), stream_index=1)]
    small = replace(
        main,
        info=replace(main.info, stream_index=1, width=64, height=48),
        crc32=np.array(crc32, np.uint32),
    )
    assert check(source, output, small, stream_index=1).identical_frames == 2
    assert check(source, output, main, stream_index=0).identical_frames == 0
    assert check(source, output, main, stream_index=1).not_compared is not None


def test_a_face_without_strength_has_no_box(tmp_path):
    source, output = movie(tmp_path / "source.mkv"), tmp_path / "output.mkv"
    track = plain_track(FRAMES, centre=(30, 20), side=30)
    analysis = restored(source, output, [track])
    assert check(source, output, analysis).identical_outside == FRAMES
    strength = track.strength.copy()
    strength[3] = 0
    weak = replace(analysis, tracks=(replace(track, strength=strength),))
    fixity = check(source, output, weak)
    assert fixity.identical_outside == FRAMES - 1
    assert fixity.worst_frame == 3
    assert check(source, output, analysis, strength=0.0).identical_outside == 0


def test_full_range_by_name_or_by_tag_is_the_same_picture(tmp_path):
    source = movie(tmp_path / "source.mp4", pixel_format="yuvj420p", codec="mjpeg")
    output = tmp_path / "output.mkv"
    analysis = restored(source, output, [])
    fixity = check(source, output, analysis)
    assert fixity.not_compared is None
    assert fixity.identical_frames == FRAMES


@pytest.mark.parametrize(
    ("size", "pixel_format", "words"),
    [(SIZE, "yuv444p", "64 x 48 in yuv444p"), ((128, 96), "yuv420p", "128 x 96 in yuv420p")],
)
def test_another_shape_is_said_and_its_times_are_checked_all_the_same(
    tmp_path, size, pixel_format, words
):
    source, listing = movie(tmp_path / "source.mkv"), tmp_path / "frames.txt"
    output = movie(tmp_path / "output.mkv", size=size, pixel_format=pixel_format)
    fixity = check(source, output, listing=listing)
    assert f"64 x 48 in yuv420p and the output {words}" in fixity.not_compared
    assert fixity.frames == FRAMES
    assert {v for k, v in fixity.as_dict().items() if k not in ("frames", "not_compared")} == {None}
    assert all(c[4:] == ["?"] * 4 for c in columns(listing))
    with pytest.raises(OutputError, match="holds 6 frames instead of 7"):
        check(movie(tmp_path / "longer.mkv", frames=7), output)


@pytest.mark.parametrize("start", [0, 6400, 701])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_variable_times_are_accepted_from_every_container(tmp_path, suffix, start):
    source = movie(tmp_path / "source.mp4", codec="libx264", pts=[t + start for t in VFR])
    output = tmp_path / f"output{suffix}"
    analysis = restored(source, output, [], codec="h264")
    assert check(source, output, analysis).frames == FRAMES


@pytest.mark.parametrize("frame", [1, 3, FRAMES - 1])
@pytest.mark.parametrize("ticks", [-1, 1])
def test_a_time_one_tick_off_is_an_error(tmp_path, frame, ticks):
    source = movie(tmp_path / "source.mp4", codec="libx264", pts=[t + 512 for t in VFR])
    moved = [t + 512 + (ticks if i == frame else 0) for i, t in enumerate(VFR)]
    output = movie(tmp_path / "output.mp4", codec="libx264", pts=moved)
    with pytest.raises(OutputError, match=rf"frame {frame} 0\.07812 ms off its time of \d"):
        check(source, output)


@pytest.mark.parametrize(
    ("milliseconds", "wrong"),
    [
        ([0, 55, 86, 203, 211, 391], None),
        ([0, 54, 85, 204, 210, 390], None),
        ([1, 55, 86, 203, 211, 391], 0),
        ([0, 56, 86, 203, 211, 391], 1),
        ([0, 55, 86, 205, 211, 391], 3),
    ],
)
def test_a_millisecond_clock_may_be_off_by_less_than_one(tmp_path, milliseconds, wrong):
    """The source's times are 0, 54.69, 85.94, 203.13, 210.94 and 390.63 ms."""
    source = movie(tmp_path / "source.mp4", codec="libx264", pts=VFR)
    output = movie(tmp_path / "output.mkv", pts=milliseconds, time_base=MILLISECOND)
    if wrong is None:
        assert check(source, output).frames == FRAMES
        return
    with pytest.raises(OutputError, match=f"frame {wrong} "):
        check(source, output)


def test_a_clock_that_has_the_tick_must_hit_it(tmp_path):
    times = [0, 40, 80, 120, 160, 200]
    source = movie(tmp_path / "source.mkv", pts=times, time_base=MILLISECOND)
    times[4] += 1
    output = movie(tmp_path / "output.mkv", pts=times, time_base=MILLISECOND)
    with pytest.raises(OutputError, match=r"frame 4 1 ms off its time of 0\.160000 s; nothing was"):
        check(source, output)


def test_two_frames_at_one_time_are_not_repaired_away(tmp_path):
    source = movie(tmp_path / "source.mkv", pts=[0, 40, 41, 80, 120, 160], time_base=MILLISECOND)
    output = movie(tmp_path / "output.mkv", pts=[0, 40, 40, 80, 120, 160], time_base=MILLISECOND)
    with pytest.raises(OutputError, match="frame 2 1 ms off"):
        check(source, output)


@pytest.mark.parametrize(
    ("frames", "words"),
    [(5, "holds 5 frames instead of 6"), (7, "holds more than 6 frames")],
)
def test_a_frame_too_few_or_too_many_is_an_error(tmp_path, frames, words):
    source, listing = movie(tmp_path / "source.mkv"), tmp_path / "frames.txt"
    listing.write_text("of an earlier run")
    output = movie(tmp_path / "output.mkv", frames=frames)
    with pytest.raises(OutputError, match=f"the finished file {words}; nothing was changed"):
        check(source, output, listing=listing)
    assert listing.read_text() == "of an earlier run"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["frames.txt", "output.mkv", "source.mkv"]


def test_a_source_that_changed_meanwhile_is_the_sources_fault(tmp_path):
    source = movie(tmp_path / "source.mkv")
    output = shutil.copy(source, tmp_path / "output.mkv")
    for other in ({"frames": 5}, {"frames": 7}, {"pts": [512 * i + 9 * (i > 2) for i in range(6)]}):
        analysis = analysis_of_file(movie(tmp_path / "other.mkv", **other))
        with pytest.raises(
            InputError,
            match=r"differs from the one of the first|no longer gives the|ends before frame",
        ):
            check(source, output, analysis)


def test_an_output_that_is_damaged_or_gone_is_an_error(tmp_path):
    source = movie(tmp_path / "source.mp4", codec="libx264")
    content, output = source.read_bytes(), tmp_path / "output.mp4"
    packet = packets(source, 0)[3][1]
    half = len(packet) // 2
    output.write_bytes(content.replace(packet, packet[:half] + bytes(len(packet) - half)))
    with pytest.raises(OutputError, match="the finished file cannot be decoded without errors"):
        check(source, output)
    output.write_bytes(content.replace(packet, bytes(len(packet))))
    with pytest.raises(OutputError, match="the finished file has frame 3 40 ms off its time"):
        check(source, output)
    output.unlink()
    with pytest.raises(OutputError, match=r"the finished file cannot be read: .* does not exist"):
        check(source, output)


@pytest.mark.long
def test_damage_is_found_every_time(tmp_path):
    source = movie(tmp_path / "source.mp4", codec="libx264")
    packet = packets(source, 0)[3][1]
    half, output = len(packet) // 2, tmp_path / "output.mp4"
    damaged = packet[:half] + bytes(len(packet) - half)
    output.write_bytes(source.read_bytes().replace(packet, damaged))
    analysis = analysis_of_file(source)
    for _ in range(400):  # a decoder of several threads misses the damage about once in twenty
        with pytest.raises(OutputError, match="cannot be decoded without errors"):
            check(source, output, analysis)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_sample_is_compared_with_its_own_part(tmp_path, suffix):
    pts = [200 + 33 * i + i % 3 for i in range(20)]
    source = movie(tmp_path / "source.mkv", frames=20, pts=pts, time_base=MILLISECOND)
    output, listing = tmp_path / f"output{suffix}", tmp_path / "frames.txt"
    span = TimeRange(Fraction(1, 5), Fraction(1, 2))
    codec = "ffv1" if suffix == ".mkv" else "h264"
    track = plain_track(3, centre=(30, 20), side=30, first_frame=1)
    analysis = restored(source, output, [track], codec=codec, span=span)
    fixity = check(source, output, analysis, span=span, listing=listing)
    assert fixity.frames == analysis.frame_count
    assert 5 < fixity.frames < 15
    assert [int(c[1]) for c in columns(listing)] == [p for p in pts if 400 <= p < 700]
    if codec == "ffv1":
        assert fixity.identical_outside == fixity.frames == fixity.identical_frames + 3
    part = movie(tmp_path / "part.mkv", frames=fixity.frames, time_base=MILLISECOND,
                 pts=[p for p in pts if 400 <= p < 700])  # fmt: skip
    with pytest.raises(OutputError, match=r"frame 0 .* off its time"):
        check(part, output)
    assert check(part, output, span=TimeRange()).frames == fixity.frames


def ffmpeg_md5(path):
    """The hash of every frame of the first video stream, by ffmpeg itself."""
    command = [
        ffmpeg_program(), "-v", "error", "-nostdin", "-noautorotate", "-i", path, "-map", "0:v:0",
        "-fps_mode", "passthrough", "-f", "framemd5", "-",
    ]  # fmt: skip
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line.split(", ")[-1].strip() for line in said.splitlines() if line[0] != "#"]


@pytest.mark.parametrize("size", [SIZE, ODD])
@pytest.mark.parametrize(
    "pixel_format", ["yuv420p", "yuv422p10le", "gray", "yuv444p12le", "gbrp10le", "yuva420p"]
)
def test_hashes_are_ffmpegs_own(tmp_path, pixel_format, size):
    source = movie(tmp_path / "source.mkv", size=size, pixel_format=pixel_format, make=random_image)
    output = movie(tmp_path / "output.mkv", size=size, pixel_format=pixel_format)
    listing = tmp_path / "frames.txt"
    check(source, output, listing=listing)
    assert [c[2] for c in columns(listing)] == ffmpeg_md5(source)
    assert [c[3] for c in columns(listing)] == ffmpeg_md5(output)


def test_hashes_of_a_turned_full_range_video_of_variable_rate_are_ffmpegs_own(tmp_path):
    def turn(stream):
        stream.set_display_matrix([0, 65536, 0, -65536, 0, 0, 0, 0, 1073741824])

    source = movie(tmp_path / "source.mov", pixel_format="yuvj422p", codec="mjpeg", pts=VFR,
                   prepare=turn)  # fmt: skip
    output, listing = tmp_path / "output.mp4", tmp_path / "frames.txt"
    analysis = restored(source, output, [], codec="h264")
    check(source, output, analysis, listing=listing)
    assert [c[2] for c in columns(listing)] == ffmpeg_md5(source)
    assert [c[3] for c in columns(listing)] == ffmpeg_md5(output)
    assert [int(c[1]) for c in columns(listing)] == VFR


def test_the_listing_says_what_it_lists(tmp_path):
    source = movie(tmp_path / "Tür\nund\udcfftor.mkv", pts=VFR)
    output, listing = tmp_path / "whole.mkv", tmp_path / "frames.txt"
    shutil.copy(source, output)
    analysis = analysis_of_file(source)
    check(source, output, analysis, listing=listing, target=tmp_path / "clear.mkv")
    text = listing.read_bytes().decode("utf-8")
    lines = [line for line in text.split("\n") if line]
    header = dict(line[1:].split(": ") for line in lines if line[0] == "#" and ": " in line)
    assert header["source"] == "Tür und\\udcfftor.mkv"
    assert header["output"] == "clear.mkv"
    assert header["hash"] == "MD5"
    assert header["software"].startswith("vidrestore ")
    assert header["tb"] == str(analysis.info.time_base)
    assert header["source_format"] == header["output_format"] == "64x48 yuv420p"
    assert lines[len(lines) - FRAMES - 1] == "#frame, pts, source md5, output md5, x0, y0, x1, y1"
    rows = [line.split(", ") for line in lines[-FRAMES:]]
    assert [row[:2] for row in rows] == [[str(i), str(p)] for i, p in enumerate(analysis.pts)]
    assert all(len(row) == 8 and len(row[2]) == len(row[3]) == 32 for row in rows)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_listing_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch, call):
    source, listing = movie(tmp_path / "source.mkv"), tmp_path / "frames.txt"
    output = shutil.copy(source, tmp_path / "output.mkv")
    listing.write_text("of an earlier run")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    where = os if call == "fsync" else type(listing)
    monkeypatch.setattr(where, call, full)
    with pytest.raises((OutputError, OSError), match=r"(?i)no space (is )?left"):
        check(source, output, listing=listing)
    assert listing.read_text() == "of an earlier run"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["frames.txt", "output.mkv", "source.mkv"]
    with pytest.raises(OutputError, match="cannot be written: no such file or directory"):
        check(source, output, listing=tmp_path / "nowhere" / "frames.txt")


def test_a_head_is_looked_for_in_its_own_box(tmp_path):
    source = movie(tmp_path / "source.mkv", size=(160, 120))
    target = tmp_path / "head.mkv"
    track = plain_track(FRAMES, centre=(80, 60), side=100.0)
    # The run checks its lossless output itself, and would refuse what it changed elsewhere.
    analysis = restored(source, target, [track], **{"paste.extent": "head"})
    assert check(source, target, analysis, extent="head").identical_outside == FRAMES
    assert check(source, target, analysis, extent="face").identical_outside < FRAMES

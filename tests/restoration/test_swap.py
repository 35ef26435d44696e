"""With the video before a face swap, only what the swap changed is restored."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.media import (
    AS_PAINTED,
    Painter,
    analysis_of_file,
    info_of,
    mild_image,
    plain_track,
    planes_of,
    write_video,
)
from helpers.swap_tape import SIDE_PX, image_of, pictures, swapped_place

from vidrestore.api import restore_video
from vidrestore.common.errors import InputError, UsageError
from vidrestore.common.profiles import load_settings
from vidrestore.imaging.frame import Region
from vidrestore.imaging.geometry import Rect
from vidrestore.media.decode import DecodeErrors, TimeRange, decode
from vidrestore.restoration.swap import moved, swapped_region, weight_in

FRAMES = 6


def videos(folder: Path, *, count: int = FRAMES, pixel_format: str = "yuv444p", **options):
    """(before, after) as files."""
    both = [pictures(i) for i in range(count)]
    return [
        write_video(folder / f"{name}.mkv", [image_of(p[k], pixel_format) for p in both], **options)
        for k, name in enumerate(("before", "after"))
    ]


def restored(source: Path, target: Path, before: Path | None, *, tracks=None, **options):
    span, plate = options.pop("span", None), options.pop("plate", None)
    settings = load_settings(options=AS_PAINTED | {"encode.codec": "ffv1"} | options)
    analysis = analysis_of_file(source, span=span)
    track = plain_track(analysis.frame_count, centre=(80, 80), side=SIDE_PX, work_px=256)
    analysis = replace(analysis, tracks=tuple(tracks or [track]))
    return restore_video(source, target, settings, restorer=Painter(), analysis=analysis,
                         span=span, before_swap=before, plate=plate)  # fmt: skip


def samples(path: Path) -> list[list[np.ndarray]]:
    return [planes_of(frame.image) for frame in decode(path, DecodeErrors())]


def changed(source: Path, target: Path) -> list[np.ndarray]:
    """(h, w) True where a sample of any plane differs, frame by frame."""
    return [
        np.any([a != b for a, b in zip(was, now, strict=True)], axis=0)
        for was, now in zip(samples(source), samples(target), strict=True)
    ]


def test_only_what_the_swap_changed_is_restored(tmp_path):
    before, after = videos(tmp_path)
    summary = restored(after, tmp_path / "out.mkv", before)
    assert summary.faces == FRAMES
    inner = np.s_[60:110, :]
    for index, touched in enumerate(changed(after, tmp_path / "out.mkv")):
        place = swapped_place(index)
        assert not touched[~place].any()
        deep = cv2.erode(place.astype(np.uint8), np.ones((13, 13)))[inner].astype(bool)
        assert deep.sum() > 200
        assert touched[inner][deep].mean() > 0.99


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p10le", "gbrp10le"])
def test_pixels_outside_are_identical_in_every_format(tmp_path, pixel_format):
    before, after = videos(tmp_path, count=3, pixel_format=pixel_format)
    restored(after, tmp_path / "out.mkv", before)
    for index, (was, now) in enumerate(
        zip(samples(after), samples(tmp_path / "out.mkv"), strict=True)
    ):
        place = swapped_place(index).astype(np.uint8)
        for a, b in zip(was, now, strict=True):
            size = a.shape[::-1]
            # A chroma sample counts as swapped where any of its pixels is.
            share = cv2.resize(place.astype(np.float32), size, interpolation=cv2.INTER_AREA)
            assert (a == b)[share == 0].all()
        assert any((a != b).any() for a, b in zip(was, now, strict=True))


def test_the_noise_of_a_new_encoding_is_no_swap(tmp_path):
    """Both were encoded, each by itself; one face was swapped, the other was not."""
    before, after = [], []
    for index in range(4):
        pair = [np.hstack([p, pictures(index, seed=50)[0]]) for p in pictures(index)]
        soft = [cv2.GaussianBlur(p, (0, 0), 1.5) for p in pair]
        before.append(image_of(soft[0], "yuv420p"))
        after.append(image_of(soft[1], "yuv420p"))
    paths = [
        write_video(tmp_path / f"{name}.mp4", images, codec="libx264", options={"crf": crf})
        for name, images, crf in (("before", before, "20"), ("after", after, "24"))
    ]
    tracks = [
        plain_track(4, centre=(80 + 160 * k, 80), side=SIDE_PX, work_px=256, track_id=k)
        for k in (0, 1)
    ]
    summary = restored(paths[1], tmp_path / "out.mkv", paths[0], tracks=tracks)
    assert summary.faces == 4
    assert summary.skipped["not changed by the face swap"] == 4
    for index, touched in enumerate(luma_changes(paths[1], tmp_path / "out.mkv")):
        assert not touched[:, 160:].any()
        far = cv2.dilate(swapped_place(index).astype(np.uint8), np.ones((9, 9))) == 0
        assert touched[:, :160][far].mean() < 0.002
        assert touched[:, :160].sum() > 1000


def luma_changes(source: Path, target: Path) -> list[np.ndarray]:
    return [was[0] != now[0] for was, now in zip(samples(source), samples(target), strict=True)]


def test_the_edge_is_soft():
    place = np.zeros((200, 200, 3), np.uint8)
    before = image_of(place + 90)
    place[60:140, 60:140] = 60
    after = image_of(place + 90)
    unit = plain_track(1, centre=(100, 100), side=180).matrices[0]
    info = info_of(200, 200, "yuv444p")
    region = swapped_region(after, before, unit, info, info)
    assert region is not None
    weight = weight_in(region, Rect(0, 0, 200, 200))[0].numpy()
    across = weight[100, 50:101]
    assert across[:10].max() == 0
    assert across[-1] == 1
    assert np.diff(across).min() >= 0
    assert np.diff(across).max() < 0.3
    assert swapped_region(after, after, unit, info, info) is None


def test_a_region_moves_with_its_picture():
    weight = np.zeros((6, 8), np.float32)
    weight[2:4, 3:5] = 1
    region = Region((10, 20), weight)
    twice = moved(region, np.array([[2.0, 0, 0.5], [0, 2.0, 0.5]]))
    large = weight_in(twice, Rect(0, 0, 60, 60))[0].numpy()
    y, x = np.mgrid[:60, :60]
    assert large.sum() == pytest.approx(16)
    assert (large * x).sum() / large.sum() == pytest.approx(2 * 13.5 + 0.5)
    assert (large * y).sum() / large.sum() == pytest.approx(2 * 22.5 + 0.5)
    assert moved(region, np.eye(2, 3)) is region


def test_a_part_of_both_is_the_same_part(tmp_path):
    before, after = videos(tmp_path, count=12)
    span = TimeRange(Fraction("0.121"), Fraction("0.35"))
    summary = restored(after, tmp_path / "out.mkv", before, span=span)
    assert summary.faces == summary.frames == 5
    part = samples(tmp_path / "out.mkv")
    for index, now in enumerate(part, start=4):
        touched = np.any([a != b for a, b in zip(samples(after)[index], now, strict=True)], axis=0)
        assert touched.any()
        assert not touched[~swapped_place(index)].any()


def test_on_a_plate_of_twice_the_size_it_is_the_same_region(tmp_path):
    before, after = videos(tmp_path, count=2)
    images = [
        image_of(cv2.resize(pictures(i)[1], None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR))
        for i in range(2)
    ]
    plate = write_video(tmp_path / "plate.mkv", images)
    assert restored(after, tmp_path / "out.mkv", before, plate=plate).faces == 2
    for index, touched in enumerate(changed(plate, tmp_path / "out.mkv")):
        place = swapped_place(index).astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
        assert not touched[place == 0].any()
        assert touched[cv2.erode(place, np.ones((27, 27))) > 0].mean() > 0.95


@pytest.mark.long
def test_segments_change_nothing(tmp_path):
    before, after = videos(tmp_path, count=100)
    face = plain_track(12, centre=(80, 80), side=SIDE_PX, work_px=256, first_frame=28)
    for name, most in (("whole", 1000), ("cut", 48)):
        restored(after, tmp_path / f"{name}.mkv", before, tracks=[face],
                 **{"job.segment_frames": most, "encode.check": False})  # fmt: skip
    for a, b in zip(samples(tmp_path / "whole.mkv"), samples(tmp_path / "cut.mkv"), strict=True):
        for was, now in zip(a, b, strict=True):
            np.testing.assert_array_equal(was, now)


@pytest.mark.parametrize(
    ("pts", "said"),
    [
        ([0, 512, 1024, 1536, 2048], "ends after 5 frames, but .* has a frame 5, 0.200000 s"),
        ([512 * i for i in range(7)], "has a frame 6, 0.240000 s .* ends after 6 frames"),
        ([0, 512, 1024, 2048, 2560, 3072],
         "frame 3 of .*other.mp4 comes 0.160000 s after its first frame, .*after.mkv 0.120000 s"),
    ],
)  # fmt: skip
def test_frames_that_do_not_match_are_refused_at_the_first(tmp_path, pts, said):
    _, after = videos(tmp_path)
    images = [image_of(pictures(0)[0])] * len(pts)
    other = write_video(tmp_path / "other.mp4", images, codec="libx264", pts=pts)
    with pytest.raises(InputError, match=said):
        restored(after, tmp_path / "out.mkv", other)
    assert not (tmp_path / "out.mkv").exists()


def test_a_picture_of_another_size_is_refused_before_any_work(tmp_path):
    _, after = videos(tmp_path)
    other = write_video(tmp_path / "small.mkv", [mild_image(80, 80, "yuv444p", 0)] * FRAMES)
    with pytest.raises(UsageError, match=r"has 80 x 80 pixels, but .* 160 x 160 pixels"):
        restore_video(after, tmp_path / "out.mkv", restorer=Painter(), before_swap=other)


def test_another_clock_and_a_later_start_are_no_mismatch(tmp_path):
    before, after = videos(tmp_path)
    images = [frame.image for frame in decode(before, DecodeErrors())]
    late = write_video(tmp_path / "late.mp4", images, codec="libx264",
                       pts=[1003 * i + 30000 for i in range(FRAMES)],
                       time_base=Fraction(1, 25075), options={"qp": "0"})  # fmt: skip
    assert restored(after, tmp_path / "out.mkv", late).faces == FRAMES

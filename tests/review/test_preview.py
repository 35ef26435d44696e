"""A moment before and after, by reading little; and two files put side by side."""

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from helpers.footage import images, woven_by_hand
from helpers.media import (
    AS_PAINTED,
    OneFace,
    Painter,
    Unchanged,
    analysis_of_file,
    frame_times,
    mild_image,
    plain_track,
    write_video,
)

from vidrestore.analysis.cache import find_analysis
from vidrestore.analysis.result import Analysis
from vidrestore.api import restore_video
from vidrestore.common.errors import InputError, OutputError, UsageError
from vidrestore.common.files import check_new
from vidrestore.common.profiles import load_settings
from vidrestore.imaging.display import picture_of, resized
from vidrestore.media import decode as decode_stage
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.media.probe import probe
from vidrestore.models import factory
from vidrestore.review import preview as preview_stage
from vidrestore.review.comparison import write_comparison
from vidrestore.review.drawing import beside, wiped
from vidrestore.review.file_names import is_movie
from vidrestore.review.preview import write_preview

FRAMES, RATE = 60, 25
SETTINGS = load_settings(options=AS_PAINTED | {"encode.codec": "ffv1"})


def picture_in(path: Path) -> npt.NDArray[np.uint8]:
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


def pictures_of(path: Path) -> list[npt.NDArray[np.uint8]]:
    info = probe(path).info
    return [picture_of(frame.image, info) for frame in decode(path, DecodeErrors())]


def without_strip(picture: npt.NDArray[np.uint8], height: int) -> npt.NDArray[np.uint8]:
    return picture[picture.shape[0] - height :]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """160 x 120, each frame another, in times that are not even."""
    images = [mild_image(160, 120, "yuv420p", seed) for seed in range(FRAMES)]
    times = [512 * i + (i % 3) * 40 + 999 for i in range(FRAMES)]
    return write_video(tmp_path / "source.mkv", images, pts=times)


@pytest.fixture
def known(source: Path) -> Analysis:
    return analysis_of_file(source, [plain_track(FRAMES, centre=(80, 60), side=70)])


@pytest.mark.long
def test_it_shows_what_the_output_will_show(source: Path, known: Analysis, tmp_path: Path) -> None:
    target = tmp_path / "whole.mkv"
    restore_video(source, target, SETTINGS, restorer=Painter(), analysis=known)
    before, after = pictures_of(source), pictures_of(target)
    times = frame_times(source)
    for index in (0, 31, FRAMES - 1):
        at = times[index] - times[0] + Fraction(1, 1000)
        shown = write_preview(
            source, at, tmp_path / f"{index}.png", SETTINGS,
            restorer=Painter(), analysis=known, apart=True,
        )  # fmt: skip
        was, now = (picture_in(Path(file)) for file in shown.files)
        assert np.array_equal(was, before[index])
        assert np.array_equal(now, after[index])
        assert not np.array_equal(was, now)
        assert (shown.frames, shown.faces) == (1, 1)
        assert shown.at_seconds == pytest.approx(float(times[index] - times[0]))


def test_both_stand_side_by_side_under_their_names(
    source: Path, known: Analysis, tmp_path: Path
) -> None:
    target = tmp_path / "moment.png"
    write_preview(source, Fraction(1), target, SETTINGS, restorer=Painter(), analysis=known)
    picture = without_strip(picture_in(target), 120)
    assert np.array_equal(picture[:, :160], pictures_of(source)[24])
    assert picture.shape[1] > 320
    assert not list(tmp_path.glob("*.vidrestore"))


@pytest.mark.long
def test_two_seconds_are_a_video_with_the_times_of_the_source(
    source: Path, known: Analysis, tmp_path: Path
) -> None:
    target = tmp_path / "moment.mp4"
    shown = write_preview(
        source, Fraction(1, 5), target, SETTINGS, restorer=Painter(), analysis=known
    )
    times = frame_times(source)
    inside = [t for t in times if Fraction(1, 5) - Fraction(1, 25) < t - times[0] < Fraction(11, 5)]
    assert shown.frames == shown.faces == len(inside)
    found = [t - frame_times(target)[0] for t in frame_times(target)]
    assert len(found) == len(inside)
    assert max(abs(a - (b - inside[0])) for a, b in zip(found, inside, strict=True)) < 1e-4


def boxes_of(path: Path) -> list[bytes]:
    """The names of the outermost parts of an mp4 file, in order."""
    data, at, names = path.read_bytes(), 0, []
    while at < len(data):
        names.append(data[at + 4 : at + 8])
        at += int.from_bytes(data[at : at + 4], "big")
    return names


@pytest.mark.long
def test_two_videos_have_the_same_frames_in_one_size_and_play_while_they_load(
    source: Path, known: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(options=AS_PAINTED | {"scale.factor": 2})
    target, turned = tmp_path / "moment.mp4", 0
    convert = preview_stage.picture_of

    def counted(*given: Any) -> Any:
        nonlocal turned
        turned += 1
        return convert(*given)

    monkeypatch.setattr(preview_stage, "picture_of", counted)
    shown = write_preview(
        source, Fraction(1, 5), target, settings, restorer=Painter(), analysis=known, apart=True
    )
    files = [tmp_path / "moment.before.mp4", tmp_path / "moment.after.mp4"]
    assert shown.files == tuple(map(str, files))
    assert sorted(tmp_path.iterdir()) == sorted([source, *files])
    assert turned == 2 * shown.frames  # one pass gives both
    before, after = map(pictures_of, files)
    assert len(before) == len(after) == shown.frames > 48
    assert {picture.shape for picture in (*before, *after)} == {(240, 320, 3)}
    assert frame_times(files[0]) == frame_times(files[1])
    middle = np.s_[110:130, 150:170]
    assert np.abs(after[25][middle].mean((0, 1)) - 255 * np.array([0.2, 0.7, 0.4])).max() < 6
    expected = resized(pictures_of(source)[4 + 25], 320, 240)
    assert np.abs(before[25].astype(int) - expected).mean() < 8
    for path in files:
        info = probe(path).info
        assert (info.codec, info.pixel_format, info.matrix) == ("h264", "yuv420p", "bt709")
        names = boxes_of(path)
        assert names.index(b"moov") < names.index(b"mdat")


def test_of_two_videos_none_is_left_where_one_cannot_be_written(
    source: Path, known: Analysis, tmp_path: Path
) -> None:
    (tmp_path / "moment.after.mp4").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        write_preview(
            source, Fraction(1), tmp_path / "moment.mp4", SETTINGS,
            restorer=Painter(), analysis=known, apart=True,
        )  # fmt: skip
    assert not (tmp_path / "moment.before.mp4").exists()
    assert not list(tmp_path.glob(".*"))


def test_close_shows_the_face_and_little_else(
    source: Path, known: Analysis, tmp_path: Path
) -> None:
    shown = write_preview(
        source, Fraction(1), tmp_path / "a.png", SETTINGS,
        restorer=Painter(), analysis=known, close=True, apart=True,
    )  # fmt: skip
    picture = picture_in(Path(shown.files[1]))
    assert picture.shape == (84, 84, 3)
    middle = picture[30:54, 30:54].reshape(-1, 3).mean(axis=0)
    assert np.abs(middle - 255 * np.array([0.2, 0.7, 0.4])).max() < 3


def test_a_larger_output_is_shown_beside_the_enlarged_source(
    source: Path, known: Analysis, tmp_path: Path
) -> None:
    settings = load_settings(options=AS_PAINTED | {"scale.factor": 2})
    target = tmp_path / "a.png"
    write_preview(source, Fraction(1), target, settings, restorer=Painter(), analysis=known)
    assert without_strip(picture_in(target), 240).shape[1] > 640


def test_fields_are_shown_without_combs(tmp_path: Path) -> None:
    pictures = [np.full((120, 160, 3), 20, np.uint8) for _ in range(40)]
    for i, picture in enumerate(pictures):
        picture[:, 3 * i : 3 * i + 20] = 220
    source = write_video(tmp_path / "source.mkv", woven_by_hand(images(pictures, "yuv420p"), "tff"))
    settings = load_settings(options=AS_PAINTED | {
        "fields.deinterlace": "keep", "detect.detector": "haar", "detect.remember": False,
    })  # fmt: skip
    shown = write_preview(
        source, Fraction(2, 5), tmp_path / "a.png", settings, restorer=Unchanged(), apart=True
    )
    for file in shown.files:
        picture = picture_in(Path(file)).astype(int)[20:100, :, 1]
        assert np.abs(picture[1:-1] - (picture[:-2] + picture[2:]) / 2).max() < 40


def test_a_picture_is_shown_before_and_after(tmp_path: Path) -> None:
    source = tmp_path / "photo.png"
    was = mild_image(160, 120, "yuv420p", 1).to_ndarray(format="bgr24")
    cv2.imwrite(str(source), was)
    known = analysis_of_file(source, [plain_track(1, centre=(80, 60), side=70)])
    shown = write_preview(source, 0, tmp_path / "moment.png", SETTINGS, restorer=Painter(),
                          analysis=known, apart=True)  # fmt: skip
    before, after = (cv2.imread(file) for file in shown.files)
    assert np.array_equal(before, was)
    assert np.array_equal(after[:20], was[:20])
    assert not np.array_equal(after[50:70, 70:90], was[50:70, 70:90])
    assert (shown.frames, shown.faces) == (1, 1)


@pytest.mark.long
def test_only_what_it_needs_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minute = [mild_image(160, 120, "yuv420p", seed) for seed in range(3)] * (20 * RATE)
    source = write_video(
        tmp_path / "long.mp4", minute, codec="libx264", options={"g": "25", "preset": "ultrafast"}
    )
    decoded = 0
    planar = decode_stage._planar

    def counted(image: Any) -> Any:
        nonlocal decoded
        decoded += 1
        return planar(image)

    monkeypatch.setattr(decode_stage, "_planar", counted)
    monkeypatch.setattr(factory, "open_detector", lambda *_, **__: OneFace())
    at = []
    for moment in (Fraction(0), Fraction(30), Fraction(59)):
        decoded = 0
        shown = write_preview(
            source, moment, tmp_path / f"{moment}.png", SETTINGS, restorer=Painter()
        )
        at.append(decoded)
        assert shown.faces == 1
    # Two seconds around it and the groups they begin in, three times: fields, pass one, pass two.
    assert max(at) < 0.2 * len(minute)


def test_an_earlier_analysis_of_the_whole_is_used(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = OneFace()
    monkeypatch.setattr(factory, "open_detector", lambda *_, **__: detector)
    assert find_analysis(probe(source, SETTINGS), SETTINGS).analysis.frame_count == FRAMES
    seen = detector.pictures
    assert seen
    write_preview(source, Fraction(1), tmp_path / "a.png", SETTINGS, restorer=Painter())
    assert detector.pictures == seen


@pytest.mark.parametrize(
    ("at", "name", "message"),
    [
        (Fraction(99), "a.png", "it ends at"),
        (Fraction(1), "a.gif", "neither a picture nor a video"),
    ],
)
def test_what_cannot_be_shown_is_said(
    at: Fraction, name: str, message: str, source: Path, known: Analysis, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        write_preview(source, at, tmp_path / name, SETTINGS, restorer=Painter(), analysis=known)
    assert not (tmp_path / name).exists()


def test_a_moment_behind_the_end_is_refused_without_an_analysis(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factory, "open_detector", lambda *_, **__: OneFace())
    with pytest.raises(InputError, match="lasts 2"):
        write_preview(source, Fraction(99), tmp_path / "a.png", SETTINGS, restorer=Painter())


def test_what_exists_is_not_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    check_new(path, overwrite=False)
    path.touch()
    check_new(path, overwrite=True)
    with pytest.raises(UsageError, match="--overwrite"):
        check_new(path, overwrite=False)
    with pytest.raises(OutputError, match="does not exist"):
        check_new(tmp_path / "no" / "a.png", overwrite=False)
    assert is_movie(Path("a.MP4"))


def stripes(count: int, size: tuple[int, int] = (96, 64), step: int = 512) -> Iterator[Any]:
    for i in range(count):
        picture = np.full((size[1], size[0], 3), 4 * i + 20, np.uint8)
        yield av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv444p")


def test_frames_of_the_same_time_are_compared(tmp_path: Path) -> None:
    """The second has twice the frames; each level in it says at which time it is shown."""
    before = write_video(tmp_path / "a.mkv", list(stripes(10)))
    after = write_video(
        tmp_path / "b.mkv", list(stripes(20)), pts=[7000 + 256 * i for i in range(20)]
    )
    found = write_comparison(before, after, tmp_path / "c.mp4", SETTINGS)
    assert (found.frames, found.alone) == (10, 0)
    pictures = pictures_of(tmp_path / "c.mp4")
    for i, picture in enumerate(pictures):
        left, right = (without_strip(picture, 64)[30, x].mean() for x in (40, 140))
        assert abs(left - (4 * i + 20)) < 3
        assert abs(right - (8 * i + 20)) < 3


def test_frames_that_only_the_first_has_are_counted(tmp_path: Path) -> None:
    before = write_video(tmp_path / "a.mkv", list(stripes(10)))
    after = write_video(tmp_path / "b.mkv", list(stripes(7)))
    found = write_comparison(before, after, tmp_path / "c.mp4", SETTINGS)
    assert (found.frames, found.alone) == (10, 3)


def test_a_smaller_one_is_enlarged(tmp_path: Path) -> None:
    before = write_video(tmp_path / "a.mkv", list(stripes(1, (48, 32))))
    after = write_video(tmp_path / "b.mkv", list(stripes(1)))
    write_comparison(before, after, tmp_path / "c.png", SETTINGS)
    assert without_strip(picture_in(tmp_path / "c.png"), 64).shape[1] > 192


def test_a_wiped_picture_is_each_of_both_on_its_side() -> None:
    before, after = (np.full((64, 96, 3), level, np.uint8) for level in (10, 200))
    for share in (0.0, 0.25, 0.5, 1.0):
        picture = without_strip(wiped(before, after, share), 64)
        line = round(share * 96)
        assert (picture[:, : max(0, line - 2)] == 10).all()
        assert (picture[:, line + 2 :] == 200).all()
        assert picture.shape == (64, 96, 3)
    assert beside(before, after).shape[1] > 2 * 96


def test_the_line_of_a_video_wanders(tmp_path: Path) -> None:
    before = write_video(tmp_path / "a.mkv", [*stripes(1)] * 50)
    dark, light = (np.full((64, 96, 3), level, np.uint8) for level in (0, 255))
    images = [av.VideoFrame.from_ndarray(light, "rgb24").reformat(format="yuv444p")] * 50
    after = write_video(tmp_path / "b.mkv", images)
    write_comparison(before, after, tmp_path / "c.mp4", SETTINGS, wipe=True)
    shares = [
        float((without_strip(picture, 64)[30].mean(axis=1) < 100).mean())
        for picture in pictures_of(tmp_path / "c.mp4")
    ]
    expected = [0.5 + 0.45 * math.sin(2 * math.pi * i / 25 / 4) for i in range(50)]
    assert max(abs(a - b) for a, b in zip(shares, expected, strict=True)) < 0.04
    assert dark.max() == 0

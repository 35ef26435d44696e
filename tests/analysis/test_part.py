"""The part of an analysis: what it says of the frames of a range of times, and of no others."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers.footage import film, images, woven_by_hand
from helpers.media import (
    AS_PAINTED,
    Painter,
    analysis_of,
    analysis_of_file,
    info_of,
    mild_image,
    plain_track,
    planes_of,
    write_video,
)

from vidrestore.analysis.part import first_in_file, frames_of, part_within
from vidrestore.analysis.pipeline import analyze_video
from vidrestore.analysis.result import Analysis, Fields, of_output
from vidrestore.api import restore_video
from vidrestore.common.errors import InputError
from vidrestore.common.profiles import load_settings
from vidrestore.jobs import estimate as estimate_stage
from vidrestore.media.decode import DecodeErrors, TimeRange, decode
from vidrestore.restoration.temporal import REACH_FRAMES

SETTINGS = load_settings(options=AS_PAINTED | {"encode.codec": "ffv1"})
SHOTS = ((0, 12), (12, 30))
PART = TimeRange(Fraction(2, 5), Fraction(4, 5))  # frames 10 to 19 of 25 in a second


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """30 frames, each another, that do not begin at 0."""
    pictures = [mild_image(96, 64, "yuv420p", seed) for seed in range(30)]
    return write_video(tmp_path / "source.mkv", pictures, pts=[512 * i + 999 for i in range(30)])


@pytest.fixture
def whole(source: Path) -> Analysis:
    """A person in each of two shots."""
    tracks = [
        plain_track(12, centre=(30, 32), side=40),
        plain_track(18, centre=(60, 32), side=40, first_frame=12, track_id=1),
    ]
    return replace(analysis_of_file(source, tracks), shots=SHOTS, skipped={"blurred": 3})


def pictures_in(path: Path) -> list[bytes]:
    return [
        b"".join(plane.tobytes() for plane in planes_of(frame.image))
        for frame in decode(path, DecodeErrors())
    ]


def test_it_holds_the_frames_of_the_time_and_people_keep_their_numbers(source, whole):
    part = part_within(whole, source, PART)
    assert part.pts.tolist() == whole.pts[10:20].tolist()
    assert part.crc32.tolist() == whole.crc32[10:20].tolist()
    assert part.shots == ((0, 2), (2, 10))
    assert [(t.person_id, t.first_frame, t.end_frame) for t in part.tracks] == [
        (1, 0, 2), (2, 2, 10)
    ]  # fmt: skip
    assert part.skipped == {}
    later = part_within(whole, source, TimeRange(Fraction(4, 5), None))
    assert [track.person_id for track in later.tracks] == [2]
    assert later.frame_count == 10


def test_what_has_no_other_frames_stays_as_it_is(source, whole):
    part = part_within(whole, source, PART)
    assert part_within(part, source, PART) is part
    assert part_within(whole, source, TimeRange()) is whole


def test_a_part_without_a_frame_is_refused(source, whole):
    with pytest.raises(InputError, match=r"no frame of .* lies in the part"):
        part_within(whole, source, TimeRange(Fraction(9)))


def test_a_part_is_restored_as_in_the_whole(source, whole, tmp_path):
    whole_file, part_file = tmp_path / "whole.mkv", tmp_path / "part.mkv"
    restore_video(source, whole_file, SETTINGS, restorer=Painter(), analysis=whole)
    summary = restore_video(
        source, part_file, SETTINGS, restorer=Painter(), analysis=whole, span=PART
    )
    assert (summary.frames, summary.faces) == (10, 10)
    part, of_whole = pictures_in(part_file), pictures_in(whole_file)[10:20]
    assert len(part) == 10
    # At its ends the temporal filter has no frames beyond the part.
    assert part[REACH_FRAMES:-REACH_FRAMES] == of_whole[REACH_FRAMES:-REACH_FRAMES]
    assert all(was != now for was, now in zip(pictures_in(source)[10:20], part, strict=True))


def woven(mode: str, frames: int, sources: np.ndarray | None = None) -> Analysis:
    """An analysis of pictures that are made from fields, with a face in all of them."""
    count = {"frame": frames}.get(mode, 2 * frames) if sources is None else len(sources)
    pictures = analysis_of(info_of(96, 64), count, [plain_track(count, centre=(48, 32), side=30)])
    times = 1024 * np.arange(frames)
    fields = Fields(
        mode, "tff", info_of(96, 64), times, np.arange(frames, dtype=np.uint32), sources
    )
    return replace(pictures, fields=fields)


@pytest.mark.parametrize(
    ("mode", "pictures"), [("keep", (8, 14)), ("bob", (8, 14)), ("frame", (4, 7))]
)
def test_pictures_of_fields_belong_to_their_frames(mode, pictures):
    analysis = woven(mode, 10)
    part = frames_of(analysis, 4, 7)
    assert part.fields is not None
    assert part.fields.crc32.tolist() == [4, 5, 6]
    assert part.pts.tolist() == analysis.pts[slice(*pictures)].tolist()
    assert len(part.tracks[0].matrices) == len(part.pts)
    assert of_output(part).frame_count == (3 if mode == "keep" else len(part.pts))
    assert first_in_file(analysis, pictures[0]) == 4


def test_pictures_of_film_have_both_their_fields_in_the_part():
    sources = np.array([[0, 0], [1, 1], [1, 2], [3, 3], [4, 4], [5, 5], [5, 6], [7, 7]])
    analysis = woven("film", 8, sources)
    part = frames_of(analysis, 2, 7)
    assert part.fields is not None
    assert part.fields.sources is not None
    assert part.fields.sources.tolist() == [[1, 1], [2, 2], [3, 3], [3, 4]]
    assert part.pts.tolist() == analysis.pts[3:7].tolist()
    assert first_in_file(analysis, 2) == 1


@pytest.mark.parametrize("mode", ["keep", "bob"])
def test_a_part_of_a_tape_is_restored_and_its_time_is_estimated(tmp_path, monkeypatch, mode):
    monkeypatch.setattr(estimate_stage, "_MOST_RUNS", 1)
    shown = [np.full((64, 96, 3), 90, np.uint8) for _ in range(60)]
    for i, picture in enumerate(shown):
        picture[:, i : i + 20] = 160
    tape = film(tmp_path / "tape.mkv", woven_by_hand(images(shown, "yuv420p"), "tff"), flag="tff")
    options = {"fields.deinterlace": mode, "detect.detector": "haar", "detect.remember": False}
    settings = load_settings(options=AS_PAINTED | {"encode.codec": "ffv1"} | options)
    known = analyze_video(tape, settings)
    assert known.fields is not None
    later = plain_track(20, centre=(48, 32), side=30, first_frame=30)
    known = replace(known, tracks=(later,))
    whole_file, part_file = tmp_path / "whole.mkv", tmp_path / "part.mkv"
    restore_video(tape, whole_file, settings, restorer=Painter(), analysis=known)
    restore_video(tape, part_file, settings, restorer=Painter(), analysis=known, span=PART)
    each = 1 if mode == "keep" else 2
    pictures = pictures_in(whole_file)[each * 10 : each * 20]
    part = pictures_in(part_file)
    assert len(pictures) == len(part) == each * 10
    # At its ends the filters have no frames beyond the part.
    assert part[REACH_FRAMES:-REACH_FRAMES] == pictures[REACH_FRAMES:-REACH_FRAMES]
    found = estimate_stage.estimate(
        tape, known, load_settings(options=options | {"restore.restorer": "fusion"})
    )
    assert isinstance(found, estimate_stage.Estimate)

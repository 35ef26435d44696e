"""Single shots of a finished output are rendered anew; all else stays as it was, to the bit."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import sources
from media import (
    AS_PAINTED,
    Painter,
    analysis_of_file,
    mild_image,
    packets,
    plain_track,
    planes_of,
    write_video,
)

from vidrestore import load_settings, restore_video, store
from vidrestore.errors import InputError, UsageError
from vidrestore.frame import Analysis
from vidrestore.redo import Kept, plan_redo
from vidrestore.segments import Segment, plan_segments
from vidrestore.stages.decode import Damage, decode

SIZE = (96, 64)
SHOTS = ((0, 30), (30, 70), (70, 100))
FRAMES = SHOTS[-1][1]


@pytest.fixture(scope="module")
def tape(tmp_path_factory) -> Path:
    """Three shots, with sound."""
    folder = tmp_path_factory.mktemp("tape")
    pictures = [mild_image(*SIZE, "yuv420p", seed) for seed in range(FRAMES)]
    silent = write_video(folder / "silent.mkv", pictures)
    sources.ffmpeg("-i", silent, "-f lavfi -i sine=440:d=4 -map 0 -map 1 -c:v copy -c:a aac "
                   "-strict -2", tape := folder / "tape.mkv")  # fmt: skip
    return tape


@pytest.fixture(scope="module")
def faces(tape) -> Analysis:
    tracks = [
        plain_track(end - start, centre=(48, 32), side=32, first_frame=start, track_id=i)
        for i, (start, end) in enumerate(SHOTS)
    ]
    known = replace(analysis_of_file(tape, tracks), shots=SHOTS)
    return replace(known, fingerprint=store.fingerprint(tape))


def run(
    tape, target, faces, *, restorer=None, keep_job=True, redo_shots=None, told=None, **options
):
    own = {"encode.codec": "ffv1", "encode.preset": "ultrafast", "paste.detail": 0}
    return restore_video(
        tape,
        target,
        load_settings(options=AS_PAINTED | own | options),
        restorer=restorer or Painter(),
        analysis=faces,
        keep_job=keep_job,
        redo_shots=redo_shots,
        on_event=None if told is None else told.append,
    )


def frames_of(path: Path) -> list[tuple[int, bytes]]:
    return [
        (frame.pts, b"".join(plane.tobytes() for plane in planes_of(frame.image)))
        for frame in decode(path, Damage())
    ]


def kept_folder(target: Path) -> Path:
    return target.with_name(target.name + ".vidrestore")


@pytest.mark.parametrize(
    ("codec", "name"),
    [("ffv1", "out.mkv"), ("h264", "out.mp4"), ("h264", "out.mkv"), ("hevc", "out.mp4"),
     ("av1", "out.mkv"), ("prores", "out.mkv")],
)  # fmt: skip
def test_only_the_frames_of_a_redone_shot_differ(tape, faces, tmp_path, codec, name):
    target = tmp_path / name
    how = {"encode.codec": codec}
    if codec == "prores":
        how["encode.pixel_format"] = "yuv422p10le"
    whole = run(tape, target, faces, **how)
    assert whole.redone_shots == ()
    assert {path.name for path in kept_folder(target).iterdir()} == {
        "lock", "job.json", "kept.json", "analysis.npz",
    }  # fmt: skip
    frames, pictures, sound = frames_of(target), packets(target, 0), packets(target, 1)
    painter = Painter((0.9, 0.2, 0.2))
    summary = run(tape, target, faces, restorer=painter, keep_job=False, redo_shots="2",
                  **{"paste.strength": 0.5}, **how)  # fmt: skip
    start, end = SHOTS[1]
    assert sum(painter.batches) == end - start
    assert summary.redone_shots == (2,)
    assert summary.faces == whole.faces == FRAMES
    again = frames_of(target)
    assert [pts for pts, _ in again] == [pts for pts, _ in frames]
    for part in (slice(0, start), slice(end, FRAMES)):
        assert again[part] == frames[part]
        assert packets(target, 0)[part] == pictures[part]
    assert all(now != was for now, was in zip(again[start:end], frames[start:end], strict=True))
    assert packets(target, 1) == sound
    assert list(tmp_path.iterdir()) == [target]


def test_a_redo_can_follow_a_redo_and_one_that_fails(tape, faces, tmp_path):
    target = tmp_path / "out.mkv"
    run(tape, target, faces)
    first = frames_of(target)
    run(tape, target, faces, restorer=Painter((0.9, 0.2, 0.2)), redo_shots="1")

    class Broken(Painter):
        def __call__(self, windows):
            raise OSError("a defect of the restorer")

    second = frames_of(target)
    with pytest.raises(Exception, match="a defect"):
        run(tape, target, faces, restorer=Broken(), redo_shots="3")
    assert frames_of(target) == second
    run(tape, target, faces, restorer=Painter((0.2, 0.2, 0.9)), redo_shots="3")
    third = frames_of(target)
    assert first[30:70] == second[30:70] == third[30:70]
    assert first[:30] != second[:30] == third[:30]
    assert first[70:] == second[70:] != third[70:]
    folder = kept_folder(target)
    assert not [path for path in folder.rglob("*") if path.suffix == ".mkv"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 100_000


def test_a_face_left_out_now_stays_restored_elsewhere(tape, faces, tmp_path):
    """And the check of what lies outside the faces knows both."""
    target = tmp_path / "out.mkv"
    run(tape, target, faces)
    frames = frames_of(target)
    nobody = [replace(track, strength=0 * track.strength) for track in faces.tracks]
    summary = run(tape, target, replace(faces, tracks=tuple(nobody)), redo_shots="2")
    again = frames_of(target)
    assert again[:30] == frames[:30]
    assert again[70:] == frames[70:]
    assert again[30:70] == frames_of(tape)[30:70]
    assert summary.faces == 60
    assert summary.skipped == {"left out where shots were redone": 40}
    assert summary.identical_outside == FRAMES


def of_shots(faces, lengths):
    edges = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    return replace(faces, shots=tuple(pairwise(edges)))


def kept(analysis, segments, *shots):
    return Kept(analysis, segments, (), 1.0, {}, 0, "", (), frozenset(shots))


def test_short_shots_are_redone_with_their_neighbours_and_it_is_said(tape, faces):
    analysis = of_shots(faces, [10, 40, 5, 45])
    segments = plan_segments(analysis, most_frames=300, at_every_cut=True)
    assert [(s.first, s.end) for s in segments] == [(0, 50), (50, 100)]
    redo = plan_redo(kept(analysis, segments, 4), analysis, tape)
    assert (redo.frames, redo.shots) == (((50, 100),), (3, 4))
    assert "shots 3," in redo.notes[0]
    # A segment that ends inside a shot takes all of that with it.
    inside = [Segment(0, 0, 30), Segment(1, 30, 55), Segment(2, 55, 100)]
    redo = plan_redo(kept(analysis, inside, 1), analysis, tape)
    assert (redo.frames, redo.shots) == (((0, 55),), (1, 2, 3))


def test_segments_begin_at_every_cut_only_where_that_is_wanted(faces):
    assert len(plan_segments(faces, most_frames=300)) == 1
    segments = plan_segments(faces, most_frames=300, at_every_cut=True)
    assert tuple((s.first, s.end) for s in segments) == SHOTS


@pytest.fixture(scope="module")
def finished(tape, faces, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("finished") / "out.mp4"
    run(tape, target, faces, **{"encode.codec": "h264"})
    return target


@pytest.mark.parametrize(
    ("shots", "words"),
    [
        ("4", "no shot 4 to redo: the video has shots 1 to 3"),
        ("0-2", "no shot 0"),
        ("2-1", "written as numbers"),
        ("two", "written as numbers, such as 37 or 3,7-9, not 'two'"),
        ("1,", "written as numbers"),
    ],
)
def test_shots_that_do_not_exist_are_refused(tape, faces, finished, shots, words):
    before = finished.read_bytes()
    with pytest.raises(UsageError, match=words):
        run(tape, finished, faces, redo_shots=shots, **{"encode.codec": "h264"})
    assert finished.read_bytes() == before
    assert (kept_folder(finished) / "kept.json").is_file()


def test_what_does_not_fit_the_kept_job_is_refused(tape, faces, finished, tmp_path):
    h264 = {"encode.codec": "h264"}
    with pytest.raises(UsageError, match=r"encoded with options .* leave codec, quality"):
        run(tape, finished, faces, redo_shots="2", **h264, **{"encode.quality": "small"})
    with pytest.raises(UsageError, match="has other shots"):
        run(tape, finished, of_shots(faces, [50, 50]), redo_shots="2", **h264)
    with pytest.raises(UsageError, match="gives other frames"):
        run(tape, finished, replace(faces, crc32=faces.crc32 + 1), redo_shots="2", **h264)
    other = write_video(tmp_path / "o.mkv", [mild_image(*SIZE, "yuv420p", 9) for _ in range(30)])
    with pytest.raises(InputError, match="made from another video"):
        run(other, finished, analysis_of_file(other), redo_shots="2", **h264)
    assert json.loads((kept_folder(finished) / "kept.json").read_text())["stream_index"] == 0


def test_an_output_without_its_job_or_changed_since_is_refused(tape, faces, tmp_path):
    target = tmp_path / "out.mkv"
    with pytest.raises(UsageError, match="does not exist"):
        run(tape, target, faces, redo_shots="2")
    run(tape, target, faces, keep_job=False)
    with pytest.raises(UsageError, match="restore it with --keep-job"):
        run(tape, target, faces, redo_shots="2")
    assert list(tmp_path.iterdir()) == [target]
    restore_again = tmp_path / "again.mkv"
    run(tape, restore_again, faces)
    restore_again.write_bytes(restore_again.read_bytes() + b"\0")
    with pytest.raises(UsageError, match="no longer the file that its job wrote"):
        run(tape, restore_again, faces, redo_shots="2")

"""Single shots of a finished output are rendered anew; all else stays as it was, to the bit."""

import json
import shutil
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from helpers import sources
from helpers.media import (
    AS_PAINTED,
    Painter,
    analysis_of_file,
    frame_times,
    mild_image,
    packets,
    plain_track,
    planes_of,
    write_video,
)
from helpers.onnx_networks import repeating

from vidrestore.analysis.result import Analysis
from vidrestore.api import restore_video
from vidrestore.common.errors import InputError, OutputError, UsageError
from vidrestore.common.profiles import load_settings
from vidrestore.imaging.geometry import apply, compose, invert, upright
from vidrestore.jobs import ray_cluster
from vidrestore.jobs.redo import FinishedJob, plan_redo
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.media.probe import fingerprint, probe
from vidrestore.restoration.segments import Segment, plan_segments

SIZE = (96, 64)
SHOTS = ((0, 24), (24, 50), (50, 75))
FRAMES = SHOTS[-1][1]
ONE, TWO, THREE = (slice(*shot) for shot in SHOTS)


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
    return replace(known, fingerprint=fingerprint(tape))


def run(
    tape, target, faces, *, restorer=None, keep_job=True, redo_shots=None, told=None,
    before_swap=None, workers=None, **options,
):  # fmt: skip
    own = {
        "encode.codec": "ffv1", "encode.preset": "ultrafast", "paste.detail": 0,
        "deflicker.amount": 0, "deflicker.detail": 0,
    }  # fmt: skip
    return restore_video(
        tape,
        target,
        load_settings(options=AS_PAINTED | own | options),
        restorer=restorer or Painter(),
        analysis=faces,
        keep_job=keep_job,
        redo_shots=redo_shots,
        before_swap=before_swap,
        workers=workers,
        on_event=None if told is None else told.append,
    )


def frames_of(path: Path) -> list[tuple[int, bytes]]:
    return [
        (frame.pts, b"".join(plane.tobytes() for plane in planes_of(frame.image)))
        for frame in decode(path, DecodeErrors())
    ]


def kept_folder(target: Path) -> Path:
    return target.with_name(target.name + ".vidrestore")


@pytest.fixture(scope="module")
def finished(tape, faces, tmp_path_factory):
    """A copy, in a folder, of the output of a job that is run once for each codec and name, and of
    what it kept."""
    made: dict[tuple[str, str], Path] = {}

    def copied(folder: Path, codec: str = "ffv1", name: str = "out.mkv") -> Path:
        if (codec, name) not in made:
            made[codec, name] = target = tmp_path_factory.mktemp(codec) / name
            summary = run(tape, target, faces, **how(codec))
            assert (summary.redone_shots, summary.faces) == ((), FRAMES)
        old = made[codec, name]
        shutil.copytree(kept_folder(old), kept_folder(folder / name))
        return Path(shutil.copy(old, folder))

    return copied


def how(codec: str) -> dict[str, str]:
    return {"encode.codec": codec} | (
        {"encode.pixel_format": "yuv422p10le"} if codec == "prores" else {}
    )


@pytest.mark.parametrize(
    ("codec", "name"),
    [("ffv1", "out.mkv"), ("h264", "out.mp4"), ("hevc", "out.mp4"),
     *(pytest.param(codec, name, marks=pytest.mark.long) for codec, name in (
         ("h264", "out.mkv"), ("av1", "out.mkv"), ("prores", "out.mkv")))],
)  # fmt: skip
def test_only_the_frames_of_a_redone_shot_differ(tape, faces, finished, tmp_path, codec, name):
    target = finished(tmp_path, codec, name)
    assert {path.name for path in kept_folder(target).iterdir()} == {
        "lock", "job.json", "kept.json", "analysis.npz",
    }  # fmt: skip
    frames, pictures, sound = frames_of(target), packets(target, 0), packets(target, 1)
    painter = Painter((0.9, 0.2, 0.2))
    summary = run(tape, target, faces, restorer=painter, keep_job=False, redo_shots="2",
                  **{"paste.strength": 0.5}, **how(codec))  # fmt: skip
    assert sum(painter.batches) == SHOTS[1][1] - SHOTS[1][0]
    assert summary.redone_shots == (2,)
    assert summary.faces == FRAMES
    again = frames_of(target)
    assert [pts for pts, _ in again] == [pts for pts, _ in frames]
    for part in (ONE, THREE):
        assert again[part] == frames[part]
        assert packets(target, 0)[part] == pictures[part]
    assert all(now != was for now, was in zip(again[TWO], frames[TWO], strict=True))
    assert packets(target, 1) == sound
    assert list(tmp_path.iterdir()) == [target]


def test_a_redo_can_follow_a_redo_and_one_that_fails(tape, faces, finished, tmp_path):
    target = finished(tmp_path)
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
    assert first[TWO] == second[TWO] == third[TWO]
    assert first[ONE] != second[ONE] == third[ONE]
    assert first[THREE] == second[THREE] != third[THREE]
    folder = kept_folder(target)
    assert not [path for path in folder.rglob("*") if path.suffix == ".mkv"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 100_000


def test_a_face_left_out_now_stays_restored_elsewhere(tape, faces, finished, tmp_path):
    """And the check of what lies outside the faces knows both."""
    target = finished(tmp_path)
    frames = frames_of(target)
    nobody = [replace(track, strength=0 * track.strength) for track in faces.tracks]
    summary = run(tape, target, replace(faces, tracks=tuple(nobody)), redo_shots="2")
    again = frames_of(target)
    assert again[ONE] == frames[ONE]
    assert again[THREE] == frames[THREE]
    assert again[TWO] == frames_of(tape)[TWO]
    assert summary.faces == 49
    assert summary.skipped == {"left out where shots were redone": 26}
    assert summary.identical_outside == FRAMES


def of_shots(faces, lengths):
    edges = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    return replace(faces, shots=tuple(pairwise(edges)))


def kept(analysis, segments, *shots):
    return FinishedJob(analysis, segments, (), 1.0, "face", {}, 0, "", (), frozenset(shots))


def test_short_shots_are_redone_with_their_neighbours_and_it_is_said(tape, faces):
    analysis = of_shots(faces, [8, 30, 5, 32])
    segments = plan_segments(analysis, most_frames=300, at_every_cut=True)
    assert [(s.first, s.end) for s in segments] == [(0, 38), (38, 75)]
    redo = plan_redo(kept(analysis, segments, 4), analysis, tape)
    assert (redo.frames, redo.shots) == (((38, 75),), (3, 4))
    assert "shots 3," in redo.notes[0]
    # A segment that ends inside a shot takes all of that with it.
    inside = [Segment(0, 0, 20), Segment(1, 20, 43), Segment(2, 43, 75)]
    redo = plan_redo(kept(analysis, inside, 1), analysis, tape)
    assert (redo.frames, redo.shots) == (((0, 43),), (1, 2, 3))


def test_segments_begin_at_every_cut_only_where_that_is_wanted(faces):
    assert len(plan_segments(faces, most_frames=300)) == 1
    segments = plan_segments(faces, most_frames=300, at_every_cut=True)
    assert tuple((s.first, s.end) for s in segments) == SHOTS


@pytest.mark.parametrize(
    ("shots", "words"),
    [
        ("4", "no shot 4 to redo: the video has shots 1 to 3"),
        ("0-2", "no shot 0"),
        ("2-1", "must be numbers"),
        ("two", "must be numbers, such as 37 or 3,7-9, not 'two'"),
        ("1,", "must be numbers"),
    ],
)
def test_shots_that_do_not_exist_are_refused(tape, faces, finished, tmp_path, shots, words):
    target = finished(tmp_path)
    before = target.read_bytes()
    with pytest.raises(UsageError, match=words):
        run(tape, target, faces, redo_shots=shots)
    assert target.read_bytes() == before
    assert (kept_folder(target) / "kept.json").is_file()


def test_what_does_not_fit_the_kept_job_is_refused(tape, faces, finished, tmp_path):
    target, h264 = finished(tmp_path, "h264", "out.mp4"), {"encode.codec": "h264"}
    with pytest.raises(UsageError, match=r"encoded with options .* give codec, quality"):
        run(tape, target, faces, redo_shots="2", **h264, **{"encode.quality": "small"})
    with pytest.raises(UsageError, match="has other shots"):
        run(tape, target, of_shots(faces, [40, 35]), redo_shots="2", **h264)
    with pytest.raises(UsageError, match="gives other frames"):
        run(tape, target, replace(faces, crc32=faces.crc32 + 1), redo_shots="2", **h264)
    other = write_video(tmp_path / "o.mkv", [mild_image(*SIZE, "yuv420p", 9) for _ in range(30)])
    with pytest.raises(InputError, match="made from another video"):
        run(other, target, analysis_of_file(other), redo_shots="2", **h264)
    assert json.loads((kept_folder(target) / "kept.json").read_text())["stream_index"] == 0


def test_an_output_without_its_job_or_changed_since_is_refused(tape, faces, finished, tmp_path):
    target = tmp_path / "out.mkv"
    with pytest.raises(UsageError, match="does not exist"):
        run(tape, target, faces, redo_shots="2")
    shutil.rmtree(kept_folder(finished(tmp_path)))
    with pytest.raises(UsageError, match="restore the whole video with --keep-job"):
        run(tape, target, faces, redo_shots="2")
    assert list(tmp_path.iterdir()) == [target]
    (folder := tmp_path / "again").mkdir()
    again = finished(folder)
    again.write_bytes(again.read_bytes() + b"\0")
    with pytest.raises(UsageError, match="has changed since its job wrote it"):
        run(tape, again, faces, redo_shots="2")


@pytest.mark.parametrize("option", ["plate", "layer"])
@pytest.mark.parametrize("how", [{"redo_shots": "2"}, {"keep_job": True}])
def test_what_a_redo_cannot_take_up_is_refused_before_any_work(tape, tmp_path, option, how):
    other = tmp_path / "other"
    with pytest.raises(UsageError, match=f"with --{option}, because .* leave out --"):
        restore_video(tape, tmp_path / "out.mkv", **{option: other}, **how)
    assert not list(tmp_path.iterdir())


def test_of_a_swap_only_the_redone_shot_is_rendered_anew(tape, faces, finished, tmp_path):
    """No face differs from what was there before the swap, so that none is restored there."""
    target = finished(tmp_path)
    frames = frames_of(target)
    before = tmp_path / "before.mkv"
    before.write_bytes(tape.read_bytes())
    summary = run(tape, target, faces, redo_shots="2", before_swap=before)
    again = frames_of(target)
    assert again[ONE] == frames[ONE]
    assert again[THREE] == frames[THREE]
    assert again[TWO] == frames_of(tape)[TWO]
    assert summary.faces == 49


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    """Three shots of pixels that are not square."""
    folder = tmp_path_factory.mktemp("wide")
    pictures = [mild_image(*SIZE, "yuv420p", seed) for seed in range(FRAMES)]

    def prepare(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(16, 15)

    return write_video(folder / "wide.mp4", pictures, codec="libx264",
                       options={"qp": "0", "preset": "ultrafast"}, prepare=prepare)  # fmt: skip


@pytest.fixture(scope="module")
def wide_faces(wide, faces) -> Analysis:
    shown = upright(probe(wide).info).matrix
    tracks = [
        replace(
            track,
            matrices=compose(track.matrices, shown).astype(np.float32),
            landmarks=apply(invert(shown), track.landmarks.reshape(-1, 2))
            .reshape(-1, 5, 2)
            .astype(np.float32),
        )
        for track in faces.tracks
    ]
    known = replace(analysis_of_file(wide, tracks), shots=SHOTS)
    return replace(known, fingerprint=fingerprint(wide))


LARGER = {"scale.factor": 2}


@pytest.mark.long
@pytest.mark.parametrize(("codec", "name"), [("ffv1", "out.mkv"), ("h264", "out.mp4")])
def test_a_shot_redone_in_a_larger_video_is_that_of_a_full_run(
    wide, wide_faces, tmp_path, codec, name
):
    target, whole = tmp_path / name, tmp_path / f"whole-{name}"
    options = LARGER | how(codec)
    assert run(wide, target, wide_faces, **options).enlarged == 2
    first, coded = frames_of(target), packets(target, 0)
    other = Painter((0.9, 0.2, 0.2))

    class Broken(Painter):
        def __call__(self, windows):
            raise OSError("a defect of the restorer")

    with pytest.raises(OutputError, match="a defect"):
        run(wide, target, wide_faces, restorer=Broken(), redo_shots="2", **options)
    assert frames_of(target) == first
    summary = run(wide, target, wide_faces, restorer=other, redo_shots="2", **options)
    assert sum(other.batches) == SHOTS[1][1] - SHOTS[1][0]
    assert summary.redone_shots == (2,)
    assert summary.enlarged == 2
    assert summary.frames == FRAMES
    if codec == "ffv1":
        assert summary.identical_outside == FRAMES
    run(wide, whole, wide_faces, restorer=Painter((0.9, 0.2, 0.2)), keep_job=True, **options)
    again, full = frames_of(target), frames_of(whole)
    for part in (ONE, THREE):
        assert packets(target, 0)[part] == coded[part]
        assert again[part] == first[part]
    assert again[TWO] == full[TWO]
    assert packets(target, 0)[TWO] == packets(whole, 0)[TWO]
    assert all(now != was for now, was in zip(again[TWO], first[TWO], strict=True))
    was, now = probe(wide).info, probe(target).info
    assert was.sample_aspect_ratio == Fraction(16, 15)
    assert (now.width, now.height, now.sample_aspect_ratio) == (204, 128, 1)
    assert frame_times(target) == frame_times(wide)


def test_a_shot_is_redone_only_as_large_as_the_others(tape, faces, tmp_path):
    target, network = tmp_path / "out.mkv", tmp_path / "x2.onnx"
    repeating(network, 2)
    run(tape, target, faces, **LARGER)
    before = target.read_bytes()
    for options, words in (
        ({}, r"is 2 times as large as its source, by Lanczos, .* be as large as its source; give"),
        ({"scale.factor": 4}, r"would be 4 times as large as its source, by Lanczos; give --scale"),
        (LARGER | {"scale.upscaler": str(network)}, r"be 2 times as large .*, by the network with"),
    ):
        with pytest.raises(UsageError, match=words):
            run(tape, target, faces, redo_shots="2", **options)
        assert target.read_bytes() == before
    run(tape, target, faces, redo_shots="2", restorer=Painter((0.9, 0.2, 0.2)), **LARGER)
    assert target.read_bytes() != before


def test_a_plain_output_is_not_redone_larger(tape, faces, finished, tmp_path):
    with pytest.raises(UsageError, match=r"is as large as its source, .* be 2 times as large"):
        run(tape, finished(tmp_path), faces, redo_shots="2", **LARGER)


def test_a_shot_enlarged_by_a_network_is_redone_by_the_same(tape, faces, tmp_path):
    target, network = tmp_path / "out.mkv", tmp_path / "x2.onnx"
    repeating(network, 2)
    options = LARGER | {"scale.upscaler": str(network)}
    run(tape, target, faces, **options)
    first = frames_of(target)
    run(tape, target, faces, redo_shots="3", restorer=Painter((0.9, 0.2, 0.2)), **options)
    again = frames_of(target)
    assert again[ONE] == first[ONE]
    assert again[TWO] == first[TWO]
    assert all(now != was for now, was in zip(again[THREE], first[THREE], strict=True))


@pytest.mark.long
def test_workers_render_a_redone_shot_as_one_process_does(tape, faces, finished, tmp_path):
    pytest.importorskip("ray")
    folders = [tmp_path / name for name in ("alone", "spread")]
    for folder in folders:
        folder.mkdir()
    alone, spread = (finished(folder) for folder in folders)
    painter = Painter((0.9, 0.2, 0.2))
    run(tape, alone, faces, restorer=painter, redo_shots="2")
    with ray_cluster.local(2) as pool:
        summary = run(tape, spread, faces, restorer=painter, redo_shots="2", workers=pool)
    assert summary.redone_shots == (2,)
    assert frames_of(spread) == frames_of(alone)


def test_a_new_track_is_not_taken_for_an_old_one_of_its_number(tape, faces):
    """By the number goes what was counted in the segments that stay."""
    segments = plan_segments(faces, most_frames=300, at_every_cut=True)
    first, second, third = faces.tracks
    now = replace(faces, tracks=(first, replace(second, track_id=2), replace(third, track_id=1)))
    redo = plan_redo(kept(faces, segments, 2), now, tape)
    found = {track.first_frame: track.track_id for track in redo.analysis.tracks}
    assert (found[0], found[50]) == (0, 2)
    assert found[24] not in (0, 2)
    # What is assigned to tracks follows their numbers, and only to those that are rendered anew.
    assert redo.numbered({0: "a", 2: "b", 1: "c"}) == {found[24]: "b"}

"""Segments: the same frames however a video is cut, and nothing that is done is done twice."""

import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from helpers import sources
from helpers.events import messages
from helpers.media import (
    AS_PAINTED,
    Unchanged,
    analysis_of,
    analysis_of_file,
    info_of,
    mild_image,
    plain_track,
    planes_of,
    write_video,
)
from helpers.shots_tape import FRAMES, SHOTS, SIZE, Boiling, faces_of, frames_of, make_tape

from vidrestore.analysis.replay import frames_again
from vidrestore.analysis.result import Analysis
from vidrestore.api import restore_video
from vidrestore.common.errors import OutputError
from vidrestore.common.events import PassTimes
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Settings
from vidrestore.jobs.work_folder import WorkFolder
from vidrestore.media.codecs import Encoding
from vidrestore.media.concat import join
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.media.probe import probe
from vidrestore.models.restorers import RestorerInfo
from vidrestore.models.restorers.assignment import Assignment
from vidrestore.restoration import pipeline
from vidrestore.restoration.segments import (
    Segment,
    context,
    plan_segments,
    restorers_used,
    segment_key,
    tracks_within,
)

OPTIONS = AS_PAINTED | {
    "encode.preset": "ultrafast", "job.segment_frames": 48, "encode.check": False,
    "deflicker.amount": 0,
}  # fmt: skip
IN_FULL: dict = {
    "deflicker.amount": 1, "guard.identity": 0.2, "guard.features": 0.7, "paste.occluders": True,
    "paste.color": 1, "paste.sharpness": 1, "grain.match": 0.5,
}  # fmt: skip
"""With the noise, the light and the blur of the source, and steady over time."""


@pytest.fixture(scope="module")
def tape(tmp_path_factory) -> Path:
    return make_tape(tmp_path_factory.mktemp("tape"))


def restored(tape: Path, target: Path, restorer=None, codec="ffv1", **options):
    settings = load_settings(options=OPTIONS | {"encode.codec": codec} | options)
    return restore_video(
        tape, target, settings, restorer=restorer or Boiling(), analysis=faces_of(tape)
    )


def shots_of(random_lengths: list[int]) -> tuple[tuple[int, int], ...]:
    edges = np.cumsum([0, *random_lengths]).tolist()
    return tuple(pairwise(edges))


@pytest.mark.parametrize("seed", range(20))
def test_segments_cover_everything_once_and_begin_at_cuts_where_they_can(seed):
    random_lengths = np.random.default_rng(seed)
    lengths = random_lengths.integers(1, [30, 400][seed % 2], 1 + seed).tolist()
    shots, most = shots_of(lengths), 100
    analysis = replace(analysis_of_count(sum(lengths)), shots=shots, one_thread=False)
    segments = plan_segments(analysis, most_frames=most)
    assert [s.first for s in segments] == [0, *(s.end for s in segments[:-1])]
    assert segments[-1].end == sum(lengths)
    assert [s.number for s in segments] == list(range(len(segments)))
    assert max(s.frame_count for s in segments) <= most + 48
    if len(segments) > 1:
        assert min(s.frame_count for s in segments) >= 24
    cuts = {start for start, _ in shots}
    inside_long = [s.first for s in segments if s.first not in cuts]
    for first in inside_long:
        start, end = next(shot for shot in shots if shot[0] < first < shot[1])
        assert end - start > most


def analysis_of_count(count: int) -> Analysis:
    return analysis_of(info_of(64, 48), count, [])


def test_a_damaged_source_is_read_from_its_start_few_times():
    analysis = replace(analysis_of_count(100_000), one_thread=True)
    assert len(plan_segments(analysis, most_frames=300)) <= 8


def test_the_boundaries_of_segments_depend_on_no_clock(monkeypatch):
    """A resumed run on a loaded machine has the segments of the first run."""
    analysis = replace(analysis_of_count(1800), shots=shots_of([700, 40, 1000, 60]))
    expected = plan_segments(analysis, most_frames=300)

    def forbidden(*_):
        raise AssertionError("a clock was read")

    clocks = ("time", "monotonic", "perf_counter", "process_time", "thread_time")
    for name in [*clocks, *(f"{name}_ns" for name in clocks)]:
        monkeypatch.setattr(time, name, forbidden)
    again = plan_segments(analysis, most_frames=300)
    monkeypatch.undo()
    assert again == expected


def test_the_context_of_a_segment_stays_within_its_shots():
    analysis = replace(analysis_of_count(180), shots=SHOTS)
    assert context(Segment(0, 30, 100), analysis, 8) == (30, 108)
    assert context(Segment(1, 100, 140), analysis, 8) == (92, 140)
    assert context(Segment(0, 0, 180), analysis, 8) == (0, 180)


@pytest.mark.parametrize(
    "codec",
    [
        "h264",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("ffv1", "hevc", "av1", "prores")),
    ],
)
def test_a_video_in_segments_has_the_frames_and_times_of_one_in_one(tape, tmp_path, codec):
    target = {"prores": ".mov", "ffv1": ".mkv"}.get(codec, ".mp4")
    how: dict = {"encode.pixel_format": "yuv422p10le"} if codec == "prores" else {}
    if codec == "ffv1":
        how |= IN_FULL
    whole, cut = tmp_path / f"whole{target}", tmp_path / f"cut{target}"
    first = restored(tape, whole, codec=codec, **{"job.segment_frames": 1000}, **how)
    second = restored(tape, cut, codec=codec, **how)
    a, b = frames_of(whole), frames_of(cut)
    assert [pts for pts, _ in a] == [pts for pts, _ in b]
    assert len(a) == FRAMES
    assert first.faces == second.faces == FRAMES
    if codec == "ffv1":
        assert a == b
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([whole.name, cut.name])


@pytest.fixture(scope="module")
def expected(tape, tmp_path_factory) -> list[tuple[int, bytes]]:
    """Frames of a run that nothing interrupted."""
    target = tmp_path_factory.mktemp("expected") / "out.mkv"
    restored(tape, target)
    return frames_of(target)


@pytest.mark.parametrize(
    "broken_at", [100, *(pytest.param(at, marks=pytest.mark.long) for at in (10, 175))]
)
def test_what_is_done_is_not_done_again(tape, expected, tmp_path, broken_at):
    target = tmp_path / "out.mkv"
    with pytest.raises(OutputError, match="a defect"):
        restored(tape, target, Boiling(breaks_at=broken_at))
    assert not target.exists()
    kept = [path.name for path in tmp_path.iterdir()]
    assert kept == ["out.mkv.vidrestore"]
    again = Boiling()
    summary = restored(tape, target, again)
    assert frames_of(target) == expected
    assert summary.faces == FRAMES
    assert again.faces <= FRAMES - broken_at
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]


def broken_off(tape: Path, target: Path) -> Path:
    """The work folder of a run of which the first two segments are done."""
    with pytest.raises(OutputError):
        restored(tape, target, Boiling(breaks_at=100))
    folder = target.with_name(target.name + ".vidrestore")
    assert len(list(folder.glob("segments/*.json"))) >= 2
    return folder


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def other_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.long
@pytest.mark.parametrize("harm", [cut_short, other_byte, Path.unlink])
@pytest.mark.parametrize("name", ["segments/0000.mkv", "segments/0000.json", "job.json"])
def test_what_was_harmed_between_two_runs_is_done_again(tape, expected, tmp_path, harm, name):
    target = tmp_path / "out.mkv"
    harm(broken_off(tape, target) / name)
    again = Boiling()
    restored(tape, target, again)
    assert frames_of(target) == expected
    assert again.faces > 0


@pytest.mark.long
def test_a_changed_setting_redoes_what_depends_on_it_and_no_more(tape, tmp_path):
    target = tmp_path / "out.mkv"
    broken_off(tape, target)
    everything = Boiling()
    restored(tape, target, everything, **{"paste.strength": 0.5})
    # But for the faces of the segment that was not finished, which the network gives just so.
    assert everything.faces >= FRAMES - 48
    target.unlink()
    broken_off(tape, target)
    rest = Boiling()
    restored(tape, target, rest, **{"encode.provenance": False})
    assert rest.faces < FRAMES


@pytest.mark.long
def test_another_analysis_redoes_only_the_segments_that_it_changes(tape, tmp_path):
    target = tmp_path / "out.mkv"
    broken_off(tape, target)
    analysis = faces_of(tape)
    first, *others = analysis.tracks
    changed = replace(analysis, tracks=(first, *others[:-1], replace(
        others[-1], strength=others[-1].strength / 2)))  # fmt: skip
    again = Boiling()
    settings = load_settings(options=OPTIONS | {"encode.codec": "ffv1"})
    restore_video(tape, target, settings, restorer=again, analysis=changed)
    assert again.faces < FRAMES - 30


@pytest.mark.long
def test_what_another_source_left_is_said_and_not_used(tape, tmp_path):
    target = tmp_path / "out.mkv"
    broken_off(tape, target)
    other = write_video(
        tmp_path / "other.mkv", [mild_image(*SIZE, "yuv420p", 5 + i % 2) for i in range(60)]
    )
    told, painter = [], Boiling()
    restore_video(other, target, load_settings(options=OPTIONS), restorer=painter,
                  analysis=analysis_of_file(other, [plain_track(60, centre=(48, 32), side=32)]),
                  on_event=told.append)  # fmt: skip
    assert 60 <= painter.faces <= 60 + 2 * 16
    assert any("is of another source" in message for message in messages(told))


@pytest.mark.long
def test_a_segment_costs_no_more_for_the_tracks_of_others(tape, tmp_path, monkeypatch):
    """Else the cost of a film grows with the square of its length."""
    given = []
    real = pipeline.paste

    def noted(frames, *args, tracks, **kwargs):
        given.append([track.track_id for track in tracks])
        return real(frames, *args, tracks=tracks, **kwargs)

    monkeypatch.setattr("vidrestore.restoration.pipeline.paste", noted)
    restored(tape, tmp_path / "out.mkv")
    assert len(given) > 2
    assert all(1 <= len(tracks) <= 2 for tracks in given), given


@pytest.mark.long
def test_nothing_is_resumed_where_nobody_wants_that(tape, tmp_path):
    target = tmp_path / "out.mkv"
    broken_off(tape, target)
    again = Boiling()
    settings = load_settings(options=OPTIONS | {"encode.codec": "ffv1"})
    restore_video(tape, target, settings, restorer=again, analysis=faces_of(tape), resume=False)
    assert again.faces >= FRAMES


@pytest.mark.long
def test_a_full_disk_keeps_what_is_done(tape, tmp_path, monkeypatch):
    target = tmp_path / "out.mkv"
    finish, done = WorkFolder.finish, []

    def full(self, name, *rest):
        if name == "video":
            raise OSError(28, "No space left on device")
        done.append(name)
        return finish(self, name, *rest)

    monkeypatch.setattr(WorkFolder, "finish", full)
    with pytest.raises(OutputError, match="no space is left"):
        restored(tape, target)
    monkeypatch.undo()
    assert len(done) >= 3
    again = Boiling()
    restored(tape, target, again)
    assert again.faces == 0


def test_segments_of_another_encoder_are_not_joined(tmp_path):
    parts = []
    for name, size in (("a", "64x48"), ("b", "96x48")):
        part = tmp_path / f"{name}.mp4"
        sources.ffmpeg(sources.picture(size), "-c:v libx264 -an", part)
        parts.append(part)
    times = [[f.pts for f in decode(part, DecodeErrors())] for part in parts]
    with pytest.raises(OutputError, match="not made by the same encoder"):
        join(parts, tmp_path / "out.mp4", times, probe(parts[0]).info)
    with pytest.raises(OutputError, match="does not hold the expected frames"):
        join(parts, tmp_path / "out.mp4", [times[0][:-1], times[1]], probe(parts[0]).info)


STARTS = {
    "open gop hevc": ("open.mp4", "-c:v libx265 -x265-params "
                      "log-level=error:open-gop=1:keyint=12:bframes=3"),
    "mpeg-ps": ("ps.mpg", "-c:v mpeg2video -bf 2 -g 12 -q:v 5"),
    "mpeg-ts": ("ts.ts", "-c:v libx264 -g 12 -bf 3"),
    "b frames in avi": ("b.avi", "-c:v mpeg4 -vtag DIVX -bf 2 -g 12"),
    "intra": ("intra.mkv", "-c:v ffv1"),
}  # fmt: skip


@pytest.mark.parametrize("kind", STARTS)
def test_every_segment_begins_at_the_exact_frame(tmp_path, kind):
    name, how = STARTS[kind]
    source = tmp_path / name
    sources.ffmpeg(sources.picture(frames=60), how, source)
    analysis = analysis_of_file(source, [])
    assert analysis.frame_count == 60
    for first in (1, 5, 11, 12, 13, 30, 47, 59):
        for end in {first + 1, 60}:
            again = list(frames_again(source, analysis, first=first, end=end))
            assert [frame.index for frame in again] == list(range(first, end))
            assert [frame.pts for frame in again] == analysis.pts[first:end].tolist()


class Scanned(tuple):
    """Counts how often somebody goes through all of it."""

    scans = 0

    def __iter__(self):
        self.scans += 1
        return super().__iter__()


class Described(RestorerInfo):
    def __init__(self, name):
        self.name = self.cache_key = name

    def for_crop_size(self, work_px):
        return self


def crowd(frames: int, count: int) -> Analysis:
    """Tracks of one to forty frames that begin anywhere; some have no strength at first."""
    random = np.random.default_rng(5)
    tracks = []
    for number in range(count):
        first = int(random.integers(frames - 40))
        track = plain_track(
            int(random.integers(1, 40)), centre=(80, 60), side=30, first_frame=first,
            track_id=number, work_px=int(random.choice([32, 64])),
        )  # fmt: skip
        strength = track.strength.copy()
        strength[: int(random.integers(20))] = 0
        tracks.append(replace(track, strength=strength))
    edges = [*range(0, frames, 30), frames]
    analysis = analysis_of(info_of(160, 120), frames, tracks)
    return replace(analysis, tracks=Scanned(tracks), shots=Scanned(pairwise(edges)))


def test_no_segment_goes_through_all_tracks_or_shots():
    analysis, restorers = (
        crowd(3000, 500),
        Assignment([(0, Described("a")), (1500, Described("b"))]),
    )
    segments = plan_segments(analysis, most_frames=60)
    used, encoding = len(analysis.by_frame.at(0)), Encoding("ffv1", "ffv1", "yuv420p", ".mkv")
    before = analysis.tracks.scans, analysis.shots.scans
    for segment in segments:
        used += len(restorers_used(restorers, analysis, segment.first, segment.end))
        segment_key(segment, analysis, 8, restorers, "judge", Settings(), encoding)
    assert used > 400
    assert (analysis.tracks.scans, analysis.shots.scans) == before


def test_the_index_finds_what_a_search_through_all_finds():
    analysis = crowd(600, 150)
    stretches = [(0, Described("a")), (200, Described("b")), (210, Described("c"))]
    restorers = Assignment(stretches)
    for first, end in ((0, 600), (0, 1), (150, 260), (199, 201), (205, 206), (590, 600)):
        there = [t for t in analysis.tracks if t.first_frame < end and first < t.end_frame]
        assert [t.track_id for t in tracks_within(analysis, first, end)] == [
            t.track_id for t in there
        ]
        wanted = []
        for (start, restorer), last in zip(stretches, (200, 210, 600), strict=True):
            for track in sorted(there, key=lambda track: track.work_px):
                frames = range(
                    max(first, start, track.first_frame), min(end, last, track.end_frame)
                )
                if any(track.strength[frame - track.first_frame] for frame in frames):
                    wanted.append((track.track_id, restorer))
        assert restorers_used(restorers, analysis, first, end) == wanted
    shots = list(analysis.shots)
    for segment in (Segment(0, 0, 30), Segment(1, 30, 95), Segment(2, 95, 600)):
        first = next(start for start, end in shots if start <= segment.first < end)
        end = next(end for start, end in shots if start < segment.end <= end)
        wanted = max(first, segment.first - 8), min(end, segment.end + 8)
        assert context(segment, analysis, 8) == wanted


@pytest.mark.parametrize("has_face", [False, True])
def test_frames_without_faces_go_from_the_decoder_to_the_encoder(tmp_path, has_face):
    """Stages that have nothing to do would hand every frame on; the frames are the same."""
    images = [mild_image(96, 64, "yuv420p", i) for i in range(6)]
    source = write_video(tmp_path / "source.mkv", images, codec="ffv1")
    tracks = [plain_track(6, centre=(48, 32), side=40)] if has_face else []
    events: list = []
    restore_video(
        source, tmp_path / "out.mkv",
        load_settings(options=OPTIONS | {"encode.codec": "ffv1", "encode.copy_untouched": False}),
        restorer=Unchanged(), analysis=analysis_of_file(source, tracks), on_event=events.append,
    )  # fmt: skip
    (times,) = [e.stages for e in events if isinstance(e, PassTimes) and e.pass_name == "restore"]
    assert ("crop" in times) is has_face
    assert {"decode", "encode"} <= set(times)
    for path in (source, tmp_path / "out.mkv"):
        seen = [planes_of(frame.image) for frame in decode(path, DecodeErrors())]
        for image, planes in zip(images, seen, strict=True):
            assert all(map(np.array_equal, planes_of(image), planes))

"""Whom to restore, and how in which shot; analyses that are kept and found again."""

import shutil
import time
from dataclasses import replace
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from helpers.events import messages
from helpers.media import (
    AS_PAINTED,
    OneFace,
    Painter,
    analysis_of,
    frame_times,
    info_of,
    mild_image,
    plain_track,
    planes_of,
    write_video,
)

from vidrestore.analysis import cache, pipeline, shot_list
from vidrestore.analysis.choice import Choice
from vidrestore.analysis.description import people_of
from vidrestore.analysis.marked_faces import faces_in_boxes, landmarks_of_marks
from vidrestore.analysis.selection import (
    applied,
    restorers_of,
    with_large,
    with_people,
    with_shots,
    write_shots,
)
from vidrestore.analysis.shot_list import Shot, ShotList
from vidrestore.analysis.tracks import TracksByFrame
from vidrestore.api import restore_video
from vidrestore.cli import main
from vidrestore.common.errors import ConfigError, InputError, UsageError, WeightsError
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Settings
from vidrestore.imaging.geometry import apply, landmarks_in_box
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.media.probe import probe
from vidrestore.models import factory
from vidrestore.models.detectors import Detector, detection

TWO_SHOTS = 24
SIZE = (160, 120)


@pytest.fixture
def detector(monkeypatch):
    detector = OneFace()
    monkeypatch.setattr(factory, "open_detector", lambda *_, **__: detector)
    return detector


@pytest.fixture
def tape(tmp_path):
    """Two shots, one dark and one bright, of twelve frames each."""
    images = [mild_image(*SIZE, "yuv420p", 0) for _ in range(TWO_SHOTS)]
    for index, image in enumerate(images):
        level = bytes([60 if index < TWO_SHOTS // 2 else 180])
        image.planes[0].update(level * image.planes[0].buffer_size)
    times = [40 * i for i in range(TWO_SHOTS)]
    return write_video(tmp_path / "tape.mkv", images, pts=times, time_base=Fraction(1, 1000))


def two_people():
    tracks = [
        replace(plain_track(20, centre=(30, 24), side=20, track_id=i), person_id=i + 1)
        for i in range(2)
    ]
    return analysis_of(info_of(64, 48), 20, tracks)


def strengths(analysis):
    return [track.strength for track in analysis.tracks]


@pytest.mark.parametrize(
    ("people", "restored"), [("1", [True, False]), ("1,2", [True, True]), ("-1", [False, True])]
)
def test_only_who_is_chosen_is_restored_and_the_others_are_counted(people, restored):
    chosen = with_people(two_people(), people)
    assert [bool(s.any()) for s in strengths(chosen)] == restored
    assert sum(chosen.skipped.values()) == 20 * restored.count(False)


@pytest.mark.parametrize(
    ("people", "part"), [("3", "no person 3"), ("1,-2", "leave out"), ("Ann", "numbers from 1")]
)
def test_who_does_not_exist_is_said(people, part):
    with pytest.raises(UsageError, match=part):
        with_people(two_people(), people)


def test_shots_are_obeyed():
    asked = ShotList(
        (
            Shot(0, 5, skip=True),
            Shot(5, 10, (2,)),
            Shot(10, 14, None, ((10, 0.0), (14, 1.0))),
            Shot(14, 16, None, ((14, 0.5),)),
        )
    )
    first, second = strengths(with_shots(two_people(), asked, Settings()))
    ramp = [0.0, 0.25, 0.5, 0.75, 0.5, 0.5, 1, 1, 1, 1]
    np.testing.assert_allclose(first, [0] * 10 + ramp)
    np.testing.assert_allclose(second, [0] * 5 + [1] * 5 + ramp)


def test_a_face_by_hand_is_cut_out_where_its_boxes_lead():
    boxes = ((0, (10.0, 5.0, 40.0, 35.0)), (10, (20.0, 5.0, 50.0, 35.0)))
    asked = ShotList((Shot(0, 11, faces=(boxes,)),))
    turned = info_of(64, 48, display_orientation=(0, -1, 1, 0))
    for info in (info_of(64, 48), turned):
        analysis = with_shots(analysis_of(info, 20, []), asked, Settings())
        (track,) = analysis.tracks
        assert (track.first_frame, track.end_frame, track.person_id) == (0, 11, 1)
        assert track.strength.max() == 1
        middle = apply(track.matrices[5], track.landmarks[5]).mean(axis=0)
        assert np.abs(middle - [0.5, 0.6]).max() < 0.05
    upright_middle = analysis.tracks[0].landmarks[5].mean(axis=0)
    # The picture is shown turned: what is at (30, 21) there is coded elsewhere.
    assert np.abs(upright_middle - [30, 21]).max() > 3


@pytest.mark.parametrize(
    ("shot", "part"),
    [
        (Shot(0, 9, (7,)), "person 7.*only 1, 2"),
        (Shot(0, 9, faces=(((12, (1.0, 1.0, 9.0, 9.0)),),)), "outside its shot"),
    ],
)
def test_shots_that_cannot_be_obeyed_are_refused(shot, part):
    with pytest.raises(ConfigError, match=part):
        with_shots(two_people(), ShotList((shot,)), Settings())


@pytest.mark.parametrize(
    ("shots", "stretches"),
    [
        ((), [(0, None)]),
        ((Shot(0, 4, restorer="a"), Shot(4, 9, restorer="a")), [(0, "a"), (9, None)]),
        ((Shot(2, 4, restorer="a"), Shot(4, 20, restorer="b")), [(0, None), (2, "a"), (4, "b")]),
        ((Shot(3, 9), Shot(9, 20)), [(0, None)]),
    ],
)
def test_each_stretch_has_its_restorer(shots, stretches):
    assert restorers_of(ShotList(shots), 20) == stretches


def test_a_shots_file_leads_a_whole_run(tmp_path, tape, detector):
    painter, listing = Painter(), tmp_path / "shots.toml"
    write_shots(pipeline.analyze_video(tape), tape, listing)
    text = listing.read_text()
    assert text.count("\n[[shot]]") == 2
    listing.write_text(text + 'restorer = "fusion"\nstrength = 0.5\n')
    # All frames of a shot are the same, and each is to be painted.
    settings = load_settings(
        options=AS_PAINTED | {"encode.codec": "ffv1", "restore.repeats": False}
    )
    summary = restore_video(
        tape, tmp_path / "out.mkv", settings, restorer=painter, choice=Choice(shots=listing)
    )
    assert summary.faces == TWO_SHOTS
    assert sum(painter.batches) == TWO_SHOTS // 2
    centre = [planes_of(f.image)[0][60, 80] for f in decode(tmp_path / "out.mkv", DecodeErrors())]
    assert abs(int(centre[4]) - 60) > 30
    assert abs(int(centre[20]) - 180) < 10

    skipped = text.replace("\n[[shot]]", "\n[[shot]]\nskip = true", 1)
    listing.write_text(skipped)
    again = restore_video(
        tape, tmp_path / "out.mkv", settings, restorer=painter, choice=Choice(shots=listing),
        overwrite=True,
    )  # fmt: skip
    assert again.faces == TWO_SHOTS // 2
    assert again.skipped["left out by the shots"] == TWO_SHOTS // 2


def test_shots_of_another_video_are_refused(tmp_path, tape, detector):
    listing = tmp_path / "shots.toml"
    found = replace(
        shot_list.of_analysis(pipeline.analyze_video(tape), "x.mkv"), fingerprint="0" * 64
    )
    pts = np.arange(TWO_SHOTS) * 40
    shot_list.write(found, listing, pts, Fraction(1, 1000))
    with pytest.raises(InputError, match="another video"):
        restore_video(tape, tmp_path / "out.mkv", restorer=Painter(), choice=Choice(shots=listing))
    with pytest.raises(UsageError, match=r"a \.toml, \.edl or \.otio file"):
        write_shots(pipeline.analyze_video(tape), tape, tmp_path / "shots.txt")


def test_a_reference_photo_needs_a_recogniser(tmp_path, tape, detector):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"not looked at")
    with pytest.raises(UsageError, match="--people"):
        restore_video(
            tape, tmp_path / "out.mkv", load_settings(options={"detect.detector": "haar"}),
            restorer=Painter(), choice=Choice(reference=photo),
        )  # fmt: skip


def test_a_reference_photo_is_judged_before_the_analysis(tmp_path, tape, detector, monkeypatch):
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), np.full((120, 160, 3), 90, np.uint8))
    monkeypatch.setattr(factory, "chosen_recognizer", lambda *_, **__: lambda *_: [None])
    with pytest.raises(UsageError, match="too blurred to recognize"):
        restore_video(tape, tmp_path / "out.mkv", plain_settings(), restorer=Painter(),
                      choice=Choice(reference=photo))  # fmt: skip
    assert detector.pictures == 1  # the photo, and no frame of the video


def plain_settings():
    return load_settings(options={"detect.detector": "haar"})


@pytest.mark.parametrize("people", ["-1,-2", "-2,-1"])
def test_leaving_out_everybody_is_refused(people):
    with pytest.raises(UsageError, match=r"leaves no person to restore.*only 1, 2; vidrestore an"):
        with_people(two_people(), people)


def test_a_run_that_would_restore_nobody_is_refused(tmp_path, tape, detector):
    painter, target = Painter(), tmp_path / "out.mkv"
    with pytest.raises(UsageError, match=r"leaves no person to restore.*only 1, 2;"):
        restore_video(tape, target, plain_settings(), restorer=painter,
                      choice=Choice(people="-1,-2"))  # fmt: skip
    assert painter.batches == []
    assert not target.exists()


def with_one_too_small():
    """Person 1 is large, and nothing is restored of person 2."""
    first, second = two_people().tracks
    second = replace(second, strength=np.zeros_like(second.strength))
    return replace(two_people(), tracks=(first, second))


@pytest.mark.parametrize(
    ("choice", "part"),
    [
        (Choice(people="2"), "--people 2 leaves no person .* those of person 1;"),
        (Choice(people="-1"), "--people -1 leaves no person .* those of person 1;"),
        (Choice(people="2", min_face_px=1), "--people 2 with --min-face 1 leaves no person"),
    ],
)
def test_a_choice_of_faces_that_are_not_restored_is_refused(tmp_path, choice, part):
    with pytest.raises(UsageError, match=part):
        applied(choice, with_one_too_small(), tmp_path / "tape.mkv", Settings(), None)
    everyone = Choice(people="1,2")
    chosen, _ = applied(everyone, with_one_too_small(), tmp_path / "tape.mkv", Settings(), None)
    assert chosen.face_count == 20
    nobody = replace(two_people(), tracks=(with_one_too_small().tracks[1],))
    chosen, _ = applied(Choice(people="2"), nobody, tmp_path / "tape.mkv", Settings(), None)
    assert chosen.face_count == 0  # not because of the choice


@pytest.mark.parametrize("how", ["skip = true", "people = []", "strength = 0"])
def test_shots_that_leave_nobody_are_refused_for_a_whole_video(tmp_path, how):
    analysis, listing = two_people(), tmp_path / "shots.toml"
    listing.write_text(f'[[shot]]\nstart = "0"\nend = "0:01:00"\n{how}\n')
    asked = Choice(shots=listing), analysis, tmp_path / "tape.mkv", Settings(), None
    with pytest.raises(ConfigError, match=r"shots\.toml leaves no person .* those of people 1, 2;"):
        applied(*asked)
    chosen, _ = applied(*asked, may_be_empty=True)
    assert chosen.face_count == 0


class Squares(Detector):
    """Sees each white square of at least 24 pixels as a face."""

    def __init__(self):
        self.sizes = []

    def __call__(self, picture):
        self.sizes.append(picture.shape[:2])
        white = (picture.min(axis=2) > 150).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(white)
        # The edges of pixels, half a pixel outside their centers.
        boxes = [np.array([x, y, x + w, y + h]) - 0.5 for x, y, w, h, _ in stats[1:] if w >= 24]
        return [detection(box, landmarks_in_box(box), 0.9) for box in boxes]


def test_a_face_by_hand_snaps_to_the_face_inside_its_box(tmp_path, monkeypatch):
    """The square is too small for the detector until the box is enlarged; another lies beside."""
    detector, told = Squares(), []
    monkeypatch.setattr(factory, "open_detector", lambda *_, **__: detector)
    images = []
    for i in range(4):
        gray = np.full((120, 160), 40, np.uint8)
        gray[50:66, 40 + 4 * i : 56 + 4 * i] = gray[50:66, 90:106] = 220
        images.append(av.VideoFrame.from_ndarray(np.dstack([gray] * 3), "rgb24").reformat(
            format="yuv420p"))  # fmt: skip
    tape = write_video(tmp_path / "tape.mkv", images)
    settings = plain_settings()
    analysis = replace(pipeline.analyze_video(tape, settings), tracks=())
    true = [np.array([40 + 4 * i, 50, 56 + 4 * i, 66]) - 0.5 for i in (0, 3)]
    drawn = [tuple(box + np.array([-6, -4, 9, 7]) * 0.6) for box in true]
    asked = ShotList((Shot(0, 4, faces=(tuple(zip((0, 3), drawn, strict=True)),)),))
    points = faces_in_boxes(asked, analysis, tape, settings, on_event=told.append)
    assert messages(told)[1:] == []
    for mark, box in zip(zip((0, 3), drawn, strict=True), true, strict=True):
        assert np.abs(points[mark] - landmarks_in_box(box)).max() < 0.5
        assert np.abs(landmarks_in_box(np.array(mark[1])) - landmarks_in_box(box)).max() > 1.5
    (track,) = with_shots(analysis, asked, settings, points).tracks
    middle = (landmarks_in_box(true[0]) + landmarks_in_box(true[1])) / 2
    between = (track.landmarks[1] + track.landmarks[2]) / 2
    assert np.abs(between - middle).max() < 1


def test_a_box_without_a_face_is_taken_as_it_is_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(factory, "open_detector", lambda *_, **__: Squares())
    images = [mild_image(*SIZE, "yuv420p", 0) for _ in range(4)]
    tape, told = write_video(tmp_path / "tape.mkv", images), []
    analysis = pipeline.analyze_video(tape, plain_settings())
    boxes = ((0, (10.0, 5.0, 40.0, 35.0)), (3, (20.0, 5.0, 50.0, 35.0)))
    asked = ShotList((Shot(0, 4, faces=(boxes,)),))
    points = faces_in_boxes(asked, analysis, tape, plain_settings(), on_event=told.append)
    assert points == {}
    assert any("in 2 of 2 boxes" in message for message in messages(told))
    plain, snapped = (
        with_shots(analysis, asked, plain_settings(), found).tracks[0].matrices
        for found in ({}, points)
    )
    np.testing.assert_array_equal(plain, snapped)


def test_a_box_without_a_face_follows_the_nearest_one_with(tmp_path):
    boxes = ((0, (10.0, 10.0, 30.0, 30.0)), (9, (110.0, 10.0, 150.0, 50.0)))
    seen = np.array([[15, 15], [25, 15], [20, 20], [16, 25], [24, 25]], np.float32)
    first, second = landmarks_of_marks(boxes, {boxes[0]: seen})
    np.testing.assert_allclose(first, seen)
    np.testing.assert_allclose(second, 2 * (seen - 10) + [110, 10])


def test_a_face_marked_across_cuts_has_a_track_in_each_shot():
    """The stages look at the frames around each, which must not lie behind a cut."""
    known = plain_track(10, centre=(50, 40), side=40, track_id=3)
    analysis = replace(
        analysis_of(info_of(*SIZE), 60, [known]), shots=((0, 20), (20, 45), (45, 60))
    )
    box = (0, (10.0, 5.0, 40.0, 35.0))
    asked = ShotList((Shot(0, 45, faces=((box,), (box,))), Shot(45, 60, faces=(((50, box[1]),),))))
    own, *marked = with_shots(analysis, asked, plain_settings()).tracks
    assert own.track_id == 3
    assert [(t.first_frame, t.end_frame) for t in marked] == [(0, 20), (20, 45)] * 2 + [(45, 60)]
    assert [track.track_id for track in marked] == [4, 5, 6, 7, 8]
    assert [track.person_id for track in marked] == [5, 5, 6, 6, 7]
    assert all((track.strength == 1).all() for track in marked)


def test_a_run_snaps_faces_by_hand(tmp_path, tape, detector):
    """The face of `OneFace` lies in the middle; a drawn box that is off leads there."""
    listing = tmp_path / "shots.toml"
    listing.write_text(
        '[[shot]]\nstart = "0"\nend = "0:01:00"\npeople = []\n'
        'faces = [[["0", 30.0, 20.0, 130.0, 105.0]]]\n'
    )
    seen = detector.pictures
    painter = Painter()
    summary = restore_video(tape, tmp_path / "out.mkv", plain_settings(), restorer=painter,
                            choice=Choice(shots=listing))  # fmt: skip
    assert summary.faces > 0
    assert detector.pictures == seen + TWO_SHOTS + 1


@pytest.fixture
def plain(monkeypatch):
    """Settings under which no weights are looked for."""
    return load_settings(options={"detect.detector": "haar"})


def test_an_analysis_is_used_again_for_the_same_content_and_settings(
    tmp_path, tape, detector, plain
):
    told = []
    first = cache.find_analysis(probe(tape, plain), plain, on_event=told.append).analysis
    seen = detector.pictures
    copy = shutil.copy2(tape, tmp_path / "copy.mkv")
    again = cache.find_analysis(probe(copy, plain), plain, on_event=told.append).analysis
    assert detector.pictures == seen
    assert any("earlier run" in message for message in messages(told))
    np.testing.assert_array_equal(again.tracks[0].matrices, first.tracks[0].matrices)
    for change in ("align.smoothness=0.5", "detect.remember=false"):
        other = load_settings(None, [change], options={"detect.detector": "haar"})
        cache.find_analysis(probe(tape, other), other)
        assert detector.pictures > seen
        seen = detector.pictures


def test_a_cache_that_cannot_be_used_costs_only_time(tmp_path, tape, detector, plain, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "file").write_text("no folder")
    assert cache.find_analysis(probe(tape, plain), plain).analysis.frame_count == TWO_SHOTS


def test_cuts_are_taken_from_an_edit_decision_list(tmp_path, tape, detector, plain):
    found = pipeline.analyze_video(tape, plain)
    assert found.shots == ((0, 12), (12, 24))
    listing = tmp_path / "cuts.edl"
    write_shots(replace(found, shots=((0, 5), (5, 12), (12, 24))), tape, listing)
    settings = plain.model_copy(update={"shots": plain.shots.model_copy(update={"edl": listing})})
    assert pipeline.analyze_video(tape, settings).shots == ((0, 5), (5, 12), (12, 24))


def test_faces_are_followed_where_the_detector_does_not_look(tape, detector):
    settings = load_settings(options={"detect.detector": "haar", "detect.every": 4})
    analysis = pipeline.analyze_video(tape, settings)
    assert detector.pictures == TWO_SHOTS // 4
    assert sum(len(track.matrices) for track in analysis.tracks) >= 2 * 9


def test_the_command_writes_shots_and_obeys_people(tmp_path, tape, detector, capsys):
    listing = tmp_path / "shots.toml"
    with pytest.raises(SystemExit) as left:
        main(["analyze", str(tape), "--detector", "haar", "--shots", str(listing)])
    assert left.value.code == 0
    assert "person" in capsys.readouterr().out
    assert listing.read_text().count("\npeople = ") == 2
    with pytest.raises(SystemExit) as left:
        main([
            "restore", str(tape), str(tmp_path / "out.mkv"), "--detector", "haar", "--restorer",
            "fusion", "--people", "9",
        ])  # fmt: skip
    assert left.value.code == 2
    assert "no person 9" in capsys.readouterr().err
    assert not (tmp_path / "out.mkv").exists()


def test_an_analysis_of_another_video_is_refused_before_any_work(tmp_path, tape, detector):
    other = write_video(tmp_path / "other.mkv", [mild_image(*SIZE, "yuv420p", 7)] * 3)
    painter = Painter()
    with pytest.raises(InputError, match="belongs to another video than"):
        restore_video(tape, tmp_path / "out.mkv", restorer=painter,
                      analysis=pipeline.analyze_video(other))  # fmt: skip
    assert painter.batches == []


def test_a_saved_analysis_is_obeyed_for_the_whole_and_for_a_part(tmp_path, tape, detector):
    saved = tmp_path / "a.npz"
    plain = ["--detector", "haar", "--restorer", "fusion"]
    with pytest.raises(SystemExit) as ended:
        main(["analyze", str(tape), "-o", str(saved), "--no-estimate", *plain])
    assert ended.value.code == 0
    seen, frames = detector.pictures, {}
    for name, more in (("whole.mkv", []), ("part.mkv", ["--start", "0.2"])):
        target = tmp_path / name
        with pytest.raises(SystemExit) as ended:
            main(["restore", str(tape), str(target), "--analysis", str(saved), *plain, *more])
        assert ended.value.code == 0
        frames[name] = len(frame_times(target))
    assert detector.pictures == seen
    assert 0 < frames["part.mkv"] < frames["whole.mkv"] == len(frame_times(tape))


def test_only_large_faces_are_chosen_by_their_size():
    analysis = two_people()
    size = people_of(analysis)[0].eye_distance_px
    assert strengths(with_large(analysis, 0.9 * size))[0].all()
    with pytest.raises(UsageError, match="no person's eyes are"):
        with_large(analysis, 1.1 * size)


def test_the_tracks_of_a_frame_are_those_that_a_look_at_all_finds():
    random = np.random.default_rng(0)
    tracks = [
        plain_track(int(random.integers(1, 20)), centre=(9, 9), side=9, track_id=i,
                    first_frame=int(random.integers(0, 60)))
        for i in range(40)
    ]  # fmt: skip
    by_frame = TracksByFrame(tracks)
    for index in range(-2, 100):
        there = [t.track_id for t in tracks if t.first_frame <= index < t.end_frame]
        assert [t.track_id for t in by_frame.at(index)] == there
        first, end = sorted(random.integers(-5, 110, 2).tolist())
        within = [
            i for i, t in enumerate(tracks) if max(t.first_frame, first) < min(t.end_frame, end)
        ]
        assert by_frame.within(first, end) == within
    assert TracksByFrame(()).at(0) == []


def test_many_shots_of_many_tracks_take_no_time_for_each_pair():
    count, each = 4000, 5
    tracks = [
        plain_track(each, centre=(9, 9), side=9, first_frame=each * i, track_id=i)
        for i in range(count)
    ]
    analysis = analysis_of(info_of(64, 48), each * count, tracks)
    shots = tuple(Shot(each * i, each * (i + 1), skip=i % 2 == 0) for i in range(count))
    begun = time.process_time()
    chosen = with_shots(analysis, ShotList(shots), Settings())
    assert time.process_time() - begun < 2
    assert [track.strength.any() for track in chosen.tracks] == [i % 2 == 1 for i in range(count)]


def with_pack(tmp_path, name="det_rec"):
    folder = tmp_path / "weights" / "insightface" / "models" / name
    folder.mkdir(parents=True)
    options = {"detect.pack": name, "weights.folder": tmp_path / "weights",
               "weights.offline": True}  # fmt: skip
    return folder, options


@pytest.mark.parametrize("content", [None, b"", b"half of a file"])
def test_a_pack_that_is_empty_or_half_unpacked_is_refused_as_a_detector(tmp_path, tape, content):
    folder, options = with_pack(tmp_path)
    if content is not None:
        (folder / "det.onnx").write_bytes(content)
    with pytest.raises(WeightsError, match="det_rec"):
        pipeline.analyze_video(tape, load_settings(options=options))


@pytest.mark.parametrize("content", [None, b"", b"half of a file"])
def test_a_broken_pack_only_costs_recognition_where_another_detector_is_used(
    tmp_path, tape, detector, content
):
    folder, options = with_pack(tmp_path)
    if content is not None:
        (folder / "rec.onnx").write_bytes(content)
    told = []
    settings = load_settings(options=options | {"detect.detector": "yunet"})
    analysis = pipeline.analyze_video(tape, settings, on_event=told.append)
    assert analysis.tracks
    assert not analysis.people_are_joined
    said = " ".join(messages(told))
    assert "does not recognize people from one shot to the next" in said


def test_the_recogniser_of_a_pack_serves_every_detector(tmp_path, tape, detector, shared):
    options = {"detect.pack": "det_rec", "weights.folder": shared / "models",
               "weights.offline": True, "detect.detector": "yunet"}  # fmt: skip
    assert pipeline.analyze_video(tape, load_settings(options=options)).people_are_joined
    without = options | {"people.recognise": False}
    assert not pipeline.analyze_video(tape, load_settings(options=without)).people_are_joined
    detector_only = options | {"detect.pack": "det_only"}
    assert not pipeline.analyze_video(tape, load_settings(options=detector_only)).people_are_joined


def test_choosing_people_without_a_recogniser_says_what_that_means(tmp_path, tape, detector):
    told = []
    restore_video(tape, tmp_path / "out.mkv", load_settings(options={"detect.detector": "haar"}),
                  restorer=Painter(), choice=Choice(people="1"),
                  on_event=told.append)  # fmt: skip
    assert any("each track counts as a person" in message for message in messages(told))

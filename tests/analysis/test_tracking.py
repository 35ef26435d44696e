from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
from helpers.media import find_shots
from helpers.scenes import Simulated, composed, found_trajectories, idf1, observed, visits

from vidrestore.analysis import tracking
from vidrestore.analysis.detection import upright_picture
from vidrestore.analysis.tracks import Motion, Observation
from vidrestore.common.settings import Tracking
from vidrestore.imaging.geometry import upright
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.media.probe import probe
from vidrestore.models.detectors import Detection
from vidrestore.models.detectors.yunet import YuNet
from vidrestore.models.face_mesh import SHAPE_POINTS, FaceShape

HOW = {"overlap": 0.3, "gap_frames": 5, "min_frames": 5, "similarity": 0.45}


def track(seen, shots, *, overlap, gap_frames, min_frames, similarity):
    """The stage, at a frame a second."""
    how = Tracking(overlap=overlap, gap_seconds=gap_frames, min_seconds=min_frames)
    return tracking.track(seen, shots, how, frame_rate=Fraction(1), every=1, similarity=similarity)


def face(x, y, size=40):
    points = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]) * size
    box = np.array([x, y, x + size, y + size], np.float32)
    return Detection(box, (points + np.array([x, y])).astype(np.float32), 0.9)


def who(number):
    """A unit vector at right angles to those of all other numbers."""
    return np.eye(8, dtype=np.float32)[int(number)]


def seen_as(detection, number):
    return replace(detection, embedding=who(number))


def frames_of(faces_per_frame, motions=None):
    thumbnail = np.zeros((36, 64), np.uint8)
    return [
        Observation(i, 512 * i, 0, thumbnail, tuple(faces), (motions or {}).get(i, {}))
        for i, faces in enumerate(faces_per_frame)
    ]


def places(raw):
    """x of the first landmark where the face was found, by frame."""
    return {raw.first_frame + i: float(points[0, 0]) for i, points in enumerate(raw.landmarks)
            if np.isfinite(points).all()}  # fmt: skip


def thumbnails(levels, seed=0):
    random = np.random.default_rng(seed)
    return np.stack([
        np.clip(level + random.normal(0, 2, (36, 64)), 0, 255).astype(np.uint8) for level in levels
    ])  # fmt: skip


def test_two_faces_keep_their_tracks_while_they_move():
    seen = frames_of([[face(10 + 3 * i, 20), face(300 - 3 * i, 60)][:: 1 if i % 2 else -1]
                     for i in range(40)])  # fmt: skip
    tracks, brief = track(seen, [(0, 40)], **HOW)
    assert brief == 0
    assert [len(t.score) for t in tracks] == [40, 40]
    starts = sorted(float(t.landmarks[0, 0, 0]) for t in tracks)
    np.testing.assert_allclose(starts, [22, 312])
    for t in tracks:
        assert (np.diff(t.landmarks[:, 0, 1]) == 0).all()


def test_a_gap_is_bridged_and_marked_missing_a_longer_one_ends_the_track():
    short = frames_of([[] if 10 <= i < 14 else [face(10 + i, 20)] for i in range(30)])
    (only,), _ = track(short, [(0, 30)], **HOW)
    assert np.isnan(only.score).sum() == 4
    assert np.isnan(only.landmarks[10:14]).all()
    long = frames_of([[] if 10 <= i < 20 else [face(10 + i, 20)] for i in range(30)])
    assert len(track(long, [(0, 30)], **HOW)[0]) == 2


def test_tracks_end_at_cuts_and_brief_ones_are_counted_as_false_alarms():
    seen = frames_of([[face(10, 20), face(200, 100)][: 1 + (i in (4, 5))] for i in range(30)])
    tracks, brief = track(seen, [(0, 12), (12, 30)], **HOW)
    assert [(t.first_frame, len(t.score), t.shot) for t in tracks] == [
        (0, 12, (0, 12)), (12, 18, (12, 30)),
    ]  # fmt: skip
    assert brief == 2


def test_a_face_seen_through_a_whole_tiny_shot_is_kept():
    tracks, brief = track(frames_of([[face(10, 20)]] * 3), [(0, 3)], **HOW)
    assert len(tracks) == 1
    assert brief == 0


def test_cuts_are_found_exactly_and_motion_is_none():
    levels = [50] * 20 + [120] * 15 + [70] * 25
    assert find_shots(thumbnails(levels), cut=12, contrast=3) == ((0, 20), (20, 35), (35, 60))
    drifting = np.linspace(20, 230, 30)  # seven levels a frame: a fast fade, no cut
    assert find_shots(thumbnails(drifting), cut=12, contrast=3) == ((0, 30),)
    shaking = [100 + 40 * (i % 2) for i in range(30)]
    assert find_shots(thumbnails(shaking), cut=12, contrast=3) == ((0, 30),)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_shortest_videos_have_shots(count):
    shots = find_shots(thumbnails([50, 200][:count]) if count else np.zeros((0, 36, 64), np.uint8),
                       cut=12, contrast=3)  # fmt: skip
    assert shots == ((), ((0, 1),), ((0, 1), (1, 2)))[count]


@pytest.mark.parametrize("flash", [[200], [200, 180]])
def test_a_flash_is_no_cut_and_hides_none(flash):
    levels = [60] * 20 + flash + [60] * 20
    assert len(find_shots(thumbnails(levels), cut=12, contrast=3)) == 1
    cut_soon_after = [60] * 20 + flash + [60] * 3 + [110] * 20
    start = 20 + len(flash) + 3
    assert find_shots(thumbnails(cut_soon_after), cut=12, contrast=3)[1][0] == start
    cut_in_a_flash = [60] * 20 + flash + [110] * 20
    assert find_shots(thumbnails(cut_in_a_flash), cut=12, contrast=3)[1][0] == 20


@pytest.mark.parametrize("insert", [[200] * 3, [5], [5, 5]])
def test_what_is_longer_or_darker_than_a_flash_cuts(insert):
    shots = find_shots(thumbnails([60] * 20 + insert + [60] * 20), cut=12, contrast=3)
    assert 20 <= shots[1][0] <= 20 + len(insert)


@pytest.mark.parametrize("frames", [6, 12, 25])
def test_a_dissolve_or_a_fade_is_no_cut(frames):
    random = np.random.default_rng(0)
    before, after = (cv2.resize(random.uniform(20, 230, (5, 8)), (64, 36)) for _ in range(2))
    for end in (after, np.zeros_like(after)):
        shares = np.clip((np.arange(40 + frames) - 20) / frames, 0, 1)
        pictures = [((1 - share) * before + share * end).astype(np.uint8) for share in shares]
        assert len(find_shots(pictures, cut=12, contrast=3)) == 1


def test_shots_of_three_frames_are_told_apart():
    levels = [60] * 10 + [130] * 3 + [60] * 3 + [130] * 10
    starts = [start for start, _ in find_shots(thumbnails(levels), cut=12, contrast=1.01)]
    assert starts == [0, 10, 13, 16]


def test_a_track_goes_on_through_a_flash():
    seen = frames_of([[] if i in (10, 11) else [face(10 + i, 20)] for i in range(30)])
    shots = find_shots(thumbnails([60] * 10 + [200] * 2 + [60] * 18), cut=12, contrast=3)
    (only,), _ = track(seen, shots, **HOW)
    assert len(only.score) == 30


def test_faces_that_pass_each_other_keep_their_tracks_without_embeddings():
    def faces(i):
        left, right = face(10 + 6 * i, 20), face(250 - 6 * i, 22)
        return [left] if 17 <= i <= 23 else [left, right]  # the nearer one hides the other

    seen = frames_of([faces(i) for i in range(41)])
    tracks, _ = track(seen, [(0, 41)], **HOW | {"gap_frames": 8})
    assert len(tracks) == 2
    for raw, step in zip(tracks, (6, -6), strict=True):
        x = places(raw)
        assert all(x[i] == pytest.approx(x[0] + step * i) for i in x)


def test_embeddings_tell_faces_that_meet_and_turn_back_from_such_that_pass():
    def faces(i):
        there = min(i, 40 - i)
        pair = [face(10 + 5 * there, 20), face(215 - 5 * there, 20)]
        known = [seen_as(p, n) if i % 6 == 0 else p for n, p in enumerate(pair)]
        return known[:1] if 17 <= i <= 23 else known

    seen = frames_of([faces(i) for i in range(41)])
    tracks, _ = track(seen, [(0, 41)], **HOW | {"gap_frames": 8})
    assert len(tracks) == 2
    for number, raw in enumerate(tracks):
        np.testing.assert_allclose(raw.embedding, who(number))
        x = places(raw)
        assert x[0] == x[40]


def test_a_track_that_went_over_to_another_face_is_split_there():
    """Somebody else is in the same place after a dissolve, or after something hid both."""
    for missing in ((), (14, 15)):
        seen = frames_of([
            [] if i in missing else [seen_as(face(50, 20 + 8 * (i > 15)), i > 15) if i % 4 == 0
                                     else face(50, 20 + 8 * (i > 15))]
            for i in range(32)
        ])  # fmt: skip
        tracks, _ = track(seen, [(0, 32)], **HOW)
        assert [len(raw.score) for raw in tracks] == ([16, 16] if not missing else [14, 16])


def test_one_odd_embedding_or_a_turning_head_splits_nothing():
    for odd in (0, 12, 28):
        seen = frames_of([[seen_as(face(50, 20), i == odd) if i % 4 == 0 else face(50, 20)]
                          for i in range(32)])  # fmt: skip
        assert len(track(seen, [(0, 32)], **HOW)[0]) == 1
    angles = np.linspace(0, np.pi / 2, 32)
    turning = frames_of([
        [replace(face(50, 20), embedding=(np.cos(a) * who(0) + np.sin(a) * who(1)))] for a in angles
    ])  # fmt: skip
    (only,), _ = track(turning, [(0, 32)], **HOW)
    assert np.linalg.norm(only.embedding) == pytest.approx(1, abs=1e-6)


def test_who_leaves_and_returns_or_makes_way_for_another_has_two_tracks():
    def gone(i):
        return 12 <= i < 20

    back = frames_of([[] if gone(i) else [seen_as(face(50, 20), 0)] for i in range(32)])
    assert len(track(back, [(0, 32)], **HOW)[0]) == 2
    assert len(track(back, [(0, 32)], **HOW | {"gap_frames": 8})[0]) == 1
    other = frames_of([[] if gone(i) else [seen_as(face(50, 20), i >= 20)] for i in range(32)])
    assert len(track(other, [(0, 32)], **HOW | {"gap_frames": 8})[0]) == 2


def test_embeddings_decide_between_two_faces_in_one_place():
    other = 0.3 * who(0) + np.sqrt(np.float32(0.91)) * who(1)

    def faces(i):
        if i < 10:
            return [seen_as(face(50, 20), 0)]
        return [replace(face(50, 24), embedding=other), seen_as(face(50, 29), 0)]

    first, second = track(frames_of([faces(i) for i in range(20)]), [(0, 20)], **HOW)[0]
    assert first.first_frame == 0
    assert first.landmarks[-1, 0, 1] == pytest.approx(29 + 16)
    np.testing.assert_allclose(second.embedding, other, atol=1e-6)


def test_a_covered_face_that_seems_to_stop_is_found_again_where_it_comes_out():
    """Landmarks keep to what is still seen; forward alone, the face would be lost."""

    def x(i):
        return 10 + 7 * (min(i, 14) if i < 18 else max(i, 21))

    seen = frames_of([[] if 16 <= i < 20 else [face(x(i), 20)] for i in range(36)])
    assert len(track(seen, [(0, 36)], **HOW | {"gap_frames": 4})[0]) == 1
    assert len(track(seen, [(0, 36)], **HOW | {"gap_frames": 3})[0]) == 2


def test_across_a_gap_the_same_embedding_reaches_further():
    def jump(*numbers, far=60):
        return frames_of([
            [] if 12 <= i < 16 else [seen_as(face(50 + far * (i >= 16), 20), numbers[i >= 16])]
            for i in range(32)
        ])  # fmt: skip

    assert len(track(jump(0, 0), [(0, 32)], **HOW)[0]) == 1
    assert len(track(jump(0, 0, far=120), [(0, 32)], **HOW)[0]) == 2
    assert len(track(jump(0, 1), [(0, 32)], **HOW)[0]) == 2
    blind = [replace(o, detections=tuple(replace(d, embedding=None) for d in o.detections))
             for o in jump(0, 0)]  # fmt: skip
    assert len(track(blind, [(0, 32)], **HOW)[0]) == 2


def test_a_much_larger_face_is_another():
    seen = frames_of([[] if 12 <= i < 15 else [face(56, 7, 72) if i >= 15 else face(50, 20)]
                      for i in range(30)])  # fmt: skip
    assert len(track(seen, [(0, 30)], **HOW)[0]) == 2


def test_weak_sightings_must_be_more_to_count():
    def faces(score, frames):
        return frames_of([[replace(face(50, 20), score=score)] if i < frames else []
                          for i in range(40)])  # fmt: skip

    assert len(track(faces(0.8, 6), [(0, 40)], **HOW)[0]) == 1
    assert track(faces(0.5, 9), [(0, 40)], **HOW) == ([], 9)
    assert len(track(faces(0.5, 10), [(0, 40)], **HOW)[0]) == 1


def moved(support=0.9):
    return Motion(np.eye(2, 3), support, 40)


def test_motion_goes_with_the_track_it_was_measured_for():
    faces = [[face(10 + i, 20), face(200, 20)][:: 1 if i % 2 else -1] for i in range(12)]
    motions = {i: {(0, 1): moved(), (1, 0): moved(0.5)} for i in range(1, 12)}
    first, second = track(frames_of(faces, motions), [(0, 12)], **HOW)[0]
    assert first.motions[0] is None
    assert {m.support for raw in (first, second) for m in raw.motions[1:]} == {0.9, 0.5}
    assert [m.support for m in first.motions[1:4]] == [0.5, 0.9, 0.5]
    assert track(frames_of(faces), [(0, 12)], **HOW)[0][0].motions == ()


def test_carried_faces_lead_across_a_gap_but_are_not_sightings():
    """The face turns round where nobody finds it; only its pixels say where it went."""

    def x(i):
        return 10 + 8 * min(i, 12) - 8 * max(i - 16, 0)

    faces = [[replace(face(x(i), 20), score=np.nan if 10 <= i < 20 or i >= 26 else 0.9)]
             for i in range(30)]  # fmt: skip
    seen = frames_of(faces, {i: {(0, 0): moved()} for i in range(1, 30)})
    (only,), brief = track(seen, [(0, 30)], **HOW | {"gap_frames": 10})
    assert brief == 0
    assert len(only.score) == 26
    np.testing.assert_array_equal(np.isnan(only.score), [10 <= i < 20 for i in range(26)])
    assert np.isnan(only.landmarks[10:20]).all()
    assert all(only.motions[1:])
    assert len(track(seen, [(0, 30)], **HOW)[0]) == 2
    assert track(frames_of([[replace(f, score=np.nan) for f in one] for one in faces]),
                 [(0, 30)], **HOW) == ([], 0)  # fmt: skip


def test_motion_decides_between_two_faces_in_one_place():
    """A false alarm that fits the prediction better does not take the track."""

    def faces(i):
        return [face(50, 26), face(50, 20)] if i == 10 else [face(50, 20 + (i > 10) * 6)]

    motions = {10: {(0, 0): moved(), (0, 1): moved(0.05)}, 11: {(0, 0): moved()}}
    (only,), _ = track(frames_of([faces(i) for i in range(20)], motions), [(0, 20)], **HOW)
    assert only.landmarks[10, 0, 1] == pytest.approx(26 + 16)


@pytest.mark.long
def test_composed_scenes_without_a_recogniser():
    """Two to five moving faces that cross, hide, leave and return; a cut; a flash."""
    scores = []
    for seed in range(6):
        scene = composed(seed)
        seen = observed(scene, Simulated(scene))
        shots = find_shots([o.thumbnail for o in seen], cut=12, contrast=3)
        assert shots == scene.ranges
        tracks, _ = track(seen, shots, **HOW | {"gap_frames": 10})
        truth = visits(scene, seen, 10)
        scores.append(idf1(truth, found_trajectories(tracks, range(len(tracks)), scene)))
    assert np.mean(scores) >= 0.95
    assert min(scores) >= 0.85


@pytest.mark.long
def test_nobody_is_seen_where_nobody_shows_a_face(shared):
    source = shared / "clips" / "torchcodec_nasa.mp4"
    # Well below the setting, where a hood begins to look like a face.
    detector = YuNet(shared / "models" / "face_detection_yunet_2023mar.onnx", score=0.5)
    info = probe(source).info
    view = upright(info, 640)
    seen = []
    for frame in decode(source, DecodeErrors()):
        picture = upright_picture(frame.image, info, view)
        small = cv2.resize(picture.mean(axis=2), (64, 36), interpolation=cv2.INTER_AREA)
        seen.append(Observation(frame.index, frame.pts, 0, small.astype(np.uint8),
                                tuple(detector(picture))))  # fmt: skip
    shots = find_shots([o.thumbnail for o in seen], cut=12, contrast=3)
    assert shots == ((0, 240), (240, 390))
    tracks, brief = track(seen, shots, **HOW | {"gap_frames": 12, "min_frames": 6})
    assert tracks == []
    assert brief > 10


def test_landmarks_of_a_face_whose_mesh_comes_and_goes_do_not_jump():
    """The detector sees other landmarks than the mesh; where no mesh is, they are moved."""
    points = np.full((len(SHAPE_POINTS), 2), 0.5, np.float16)
    shape = FaceShape(points, -40.0, 0.0, 8.0)
    observations = []
    for index in range(40):
        own = face(100 + 2 * index, 80)
        wanted = own.landmarks + np.float32([7, -5])
        if index % 7 < 4 or index < 5:
            own = replace(own, landmarks=wanted, shape=shape, detector_landmarks=own.landmarks)
        observations.append(Observation(index, index, 0, None, (own,)))
    (found,), _ = track(observations, [(0, 40)], **HOW)
    for index in range(40):
        wanted = face(100 + 2 * index, 80).landmarks + np.float32([7, -5])
        assert found.landmarks[index] == pytest.approx(wanted, abs=0.1)

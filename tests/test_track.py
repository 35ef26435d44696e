import numpy as np
import pytest

from vidrestore.frame import Detection, Observation
from vidrestore.stages.track import find_shots, track

HOW = {"overlap": 0.3, "gap_frames": 5, "min_frames": 5}


def face(x, y, size=40):
    points = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]) * size
    box = np.array([x, y, x + size, y + size], np.float32)
    return Detection(box, (points + np.array([x, y])).astype(np.float32), 0.9)


def observed(faces_per_frame):
    thumbnail = np.zeros((36, 64), np.uint8)
    return [
        Observation(i, 512 * i, 0, thumbnail, tuple(faces))
        for i, faces in enumerate(faces_per_frame)
    ]


def thumbnails(levels, seed=0):
    random = np.random.default_rng(seed)
    return np.stack([
        np.clip(level + random.normal(0, 2, (36, 64)), 0, 255).astype(np.uint8) for level in levels
    ])  # fmt: skip


def test_two_faces_keep_their_tracks_while_they_move():
    seen = observed([[face(10 + 3 * i, 20), face(300 - 3 * i, 60)][:: 1 if i % 2 else -1]
                     for i in range(40)])  # fmt: skip
    tracks, brief = track(seen, [(0, 40)], **HOW)
    assert brief == 0
    assert [len(t.score) for t in tracks] == [40, 40]
    starts = sorted(float(t.landmarks[0, 0, 0]) for t in tracks)
    np.testing.assert_allclose(starts, [22, 312])
    for t in tracks:
        assert (np.diff(t.landmarks[:, 0, 1]) == 0).all()


def test_a_gap_is_bridged_and_marked_missing_a_longer_one_ends_the_track():
    short = observed([[] if 10 <= i < 14 else [face(10 + i, 20)] for i in range(30)])
    (only,), _ = track(short, [(0, 30)], **HOW)
    assert np.isnan(only.score).sum() == 4
    assert np.isnan(only.landmarks[10:14]).all()
    long = observed([[] if 10 <= i < 20 else [face(10 + i, 20)] for i in range(30)])
    assert len(track(long, [(0, 30)], **HOW)[0]) == 2


def test_tracks_end_at_cuts_and_brief_ones_are_counted_as_false_alarms():
    seen = observed([[face(10, 20)] + ([face(200, 100)] if i in (4, 5) else []) for i in range(30)])
    tracks, brief = track(seen, [(0, 12), (12, 30)], **HOW)
    assert [(t.first_frame, len(t.score), t.shot) for t in tracks] == [
        (0, 12, (0, 12)), (12, 18, (12, 30)),
    ]  # fmt: skip
    assert brief == 2


def test_a_face_seen_through_a_whole_tiny_shot_is_kept():
    tracks, brief = track(observed([[face(10, 20)]] * 3), [(0, 3)], **HOW)
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

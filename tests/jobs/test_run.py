"""The restore stage: batches, order, windows, bounds."""

import itertools

import numpy as np
import pytest
import torch
from helpers.media import Painter, plain_face, random_image

from vidrestore.common.settings import Restore
from vidrestore.imaging.frame import Frame
from vidrestore.models.restorers import Restorer
from vidrestore.restoration.batching import restore
from vidrestore.restoration.faces import FaceFrame
from vidrestore.restoration.statistics import RestorationStats


class Recorder(Restorer):
    """Returns the mean of its window and keeps what it saw."""

    name = "recorder"
    template = "gpen"

    def __init__(self, reach_frames=0, size=None):
        self.reach_frames, self.size = reach_frames, size
        self.windows = []

    def __call__(self, windows):
        self.windows.append(windows.clone())
        return windows[:, self.reach_frames]


def face_frames(faces_per_frame, side=8):
    """Crops of frame i and track k are flat with the level (10 i + k) / 1000."""
    image = random_image(16, 16, "yuv420p", 0)
    for i, tracks in enumerate(faces_per_frame):
        faces = tuple(
            plain_face(torch.full((3, side, side), (10 * i + k) / 1000), track_id=k) for k in tracks
        )
        yield FaceFrame(Frame(i, i, image), faces)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7])
@pytest.mark.parametrize("reach", [0, 2])
def test_every_face_is_restored_once_and_frames_keep_their_order(batch_size, reach):
    random = np.random.default_rng(batch_size)
    faces = [[k for k in range(3) if random.random() < 0.5] for _ in range(30)]
    recorder = Recorder(reach)
    out = list(
        restore(
            face_frames(faces),
            recorder,
            RestorationStats(),
            how=Restore(batch_size=batch_size, max_waiting_frames=9),
        )
    )
    assert [f.frame.index for f in out] == list(range(30))
    assert [[face.track_id for face in f.faces] for f in out] == faces
    for frame, face in ((f, face) for f in out for face in f.faces):
        torch.testing.assert_close(face.restored, face.source)
        assert face.source[0, 0, 0] == pytest.approx(
            (10 * frame.frame.index + face.track_id) / 1000
        )
    sizes = [len(w) for w in recorder.windows]
    assert sum(sizes) == sum(map(len, faces))
    assert max(sizes) <= batch_size


def test_batches_are_full_across_frames_and_faces():
    painter = Painter()
    list(
        restore(
            face_frames([[0, 1]] * 12),
            painter,
            RestorationStats(),
            how=Restore(batch_size=4, max_waiting_frames=16),
        )
    )
    assert painter.batches == [4] * 6


def test_windows_hold_the_neighbours_and_repeat_the_ends():
    recorder = Recorder(reach_frames=2)
    list(
        restore(
            face_frames([[0]] * 5),
            recorder,
            RestorationStats(),
            how=Restore(batch_size=2, max_waiting_frames=16),
        )
    )
    levels = [[round(float(w[i, 0, 0, 0]) * 100) for i in range(5)]
              for w in itertools.chain(*recorder.windows)]  # fmt: skip
    assert levels == [
        [0, 0, 0, 1, 2], [0, 0, 1, 2, 3], [0, 1, 2, 3, 4], [1, 2, 3, 4, 4], [2, 3, 4, 4, 4],
    ]  # fmt: skip


def test_a_window_never_takes_another_track():
    recorder = Recorder(reach_frames=1)
    list(
        restore(
            face_frames([[0], [1], [0, 1]]),
            recorder,
            RestorationStats(),
            how=Restore(batch_size=1, max_waiting_frames=4),
        )
    )
    for window in itertools.chain(*recorder.windows):
        tracks = {round(float(level) * 1000) % 10 for level in window[:, 0, 0, 0]}
        assert len(tracks) == 1


def test_frames_without_faces_pass_at_once_and_waiting_is_bounded():
    taken = []

    def counted():
        for frame in face_frames([[]] * 5 + [[0]] * 40):
            taken.append(frame.frame.index)
            yield frame

    out = restore(
        counted(), Painter(), RestorationStats(), how=Restore(batch_size=100, max_waiting_frames=6)
    )
    assert next(out).frame.index == 0
    assert len(taken) == 1
    for frame in out:
        assert len(taken) - frame.frame.index <= 7


def test_crops_of_other_sizes_go_through_the_networks_own():
    recorder = Recorder(size=16)
    small = face_frames([[0]], side=8)
    large = face_frames([[1]], side=32)
    out = list(
        restore(
            itertools.chain(small, large),
            recorder,
            RestorationStats(),
            how=Restore(batch_size=4, max_waiting_frames=4),
        )
    )
    assert [tuple(f.faces[0].restored.shape) for f in out] == [(3, 8, 8), (3, 32, 32)]
    assert all(w.shape[-1] == 16 for w in recorder.windows)


class Hungry(Restorer):
    """Holds at most `room` faces at once."""

    name, size, reach_frames, template = "hungry", None, 0, "gpen"

    def __init__(self, room):
        self.room, self.asked = room, []

    def __call__(self, windows):
        self.asked.append(len(windows))
        if len(windows) > self.room:
            raise MemoryError("no room")
        return windows[:, 0].clone()


def test_memory_that_gives_out_halves_the_batch_for_good_and_is_said_once():
    hungry, tally = Hungry(room=3), RestorationStats()
    out = list(
        restore(
            face_frames([[0, 1]] * 8),
            hungry,
            tally,
            how=Restore(batch_size=8, max_waiting_frames=9),
        )
    )
    assert all(face.restored is not None for f in out for face in f.faces)
    assert hungry.asked == [8, 4] + [2] * 8
    assert list(tally.notes.values()) == [
        "memory did not suffice for larger batches; faces ran 2 at a time"
    ]
    assert not tally.not_restored


def test_a_face_that_does_not_fit_alone_is_left_as_it_was_and_counted():
    tally = RestorationStats()
    out = list(
        restore(
            face_frames([[0], [0]]),
            Hungry(0),
            tally,
            how=Restore(batch_size=4, max_waiting_frames=9),
        )
    )
    assert [f.faces[0].restored for f in out] == [None, None]
    assert tally.not_restored == {"did not fit into memory": 2}


def test_a_result_that_is_not_finite_is_left_out_and_counted():
    class Broken(Recorder):
        def __call__(self, windows):
            result = windows[:, 0].clone()
            result[0, 0, 0, 0] = float("nan")
            return result

    tally = RestorationStats()
    out = list(
        restore(
            face_frames([[0, 1]]), Broken(), tally, how=Restore(batch_size=2, max_waiting_frames=9)
        )
    )
    assert [face.restored is None for face in out[0].faces] == [True, False]
    assert tally.not_restored["the network gave no finite result"] == 1

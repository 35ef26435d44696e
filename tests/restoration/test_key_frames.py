"""Key frames: few runs of the network, the same frames in any part, no harm where faces move."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.media import plain_track
from helpers.simulation import X4, Boil, course, face_frames, face_mask, restored, synthetic, worn

from vidrestore.analysis.tracks import Track
from vidrestore.common.settings import Restore
from vidrestore.models.face_mesh import OUTLINE_POINTS, SHAPE_POINTS
from vidrestore.models.restorers import Restorer
from vidrestore.restoration.batching import restore
from vidrestore.restoration.faces import FaceFrame
from vidrestore.restoration.key_frames import KEY_REACH_FRAMES, REACH_FRAMES, choose, fill
from vidrestore.restoration.statistics import RestorationStats
from vidrestore.review import metrics

SIDE = 64


def clip_frames(n: int, *, calm: bool = True, side: int = SIDE, seed: int = 0) -> list[FaceFrame]:
    """Worn sources with what a restorer that boils would make of each."""
    moves = course(n, seed)
    if calm:
        moves = replace(moves, yaw=moves.yaw * 0, talk=moves.talk * 0.1, lids=moves.lids * 0)
    clip = synthetic(n, side, seed, moves)
    return face_frames(worn(clip.truth, X4, seed), restored(clip, Boil(), seed))


def track_of(n: int, first: int = 0) -> Track:
    return plain_track(n, centre=(48, 32), side=32, first_frame=first)


def keyed(
    frames: Sequence[FaceFrame],
    track: Track,
    tally: RestorationStats | None = None,
    network: range | None = None,
    wanted: range | None = None,
) -> list[FaceFrame]:
    """The frames after `choose`, a network that knows every `restored`, and `fill`."""
    results = {frame.frame.index: [face.restored for face in frame.faces] for frame in frames}
    bare = (f.with_faces(tuple(replace(face, restored=None) for face in f.faces)) for f in frames)

    def run() -> Iterator[FaceFrame]:
        for frame in choose(bare, [track], of={track.track_id}):
            index = frame.frame.index
            given = zip(frame.faces, results[index], strict=True)
            yield frame.with_faces(tuple(
                face if face.is_between or (network is not None and index not in network)
                else replace(face, restored=crop)
                for face, crop in given
            ))  # fmt: skip

    return list(fill(run(), tally or RestorationStats(), needed=wanted))


def crop_of(frame: FaceFrame) -> torch.Tensor:
    (face,) = frame.faces
    assert face.restored is not None
    return face.restored


def without(frames: Sequence[FaceFrame], missing: range) -> list[FaceFrame]:
    return [f.with_faces(()) if f.frame.index in missing else f for f in frames]


@pytest.mark.parametrize(
    "calm",
    [pytest.param(True, id="calm", marks=pytest.mark.long), pytest.param(False, id="talking")],
)
def test_any_part_gives_the_frames_of_the_whole(calm):
    n = 88
    frames, track = without(clip_frames(n, calm=calm), range(50, 53)), track_of(n)
    whole = keyed(frames, track)
    for first, end in ((21, 60), (37, 38), (44, 70), (70, 88)):
        begin, stop = max(0, first - REACH_FRAMES), min(n, end + REACH_FRAMES)
        # As the pipeline does it: what lies at the ends of the context is not restored.
        part = keyed(
            frames[begin:stop], track,
            network=range(
                begin + KEY_REACH_FRAMES if begin else 0, stop - KEY_REACH_FRAMES if stop < n else n
            ),
            wanted=range(first, end),
        )[first - begin : end - begin]  # fmt: skip
        for a, b in zip(whole[first:end], part, strict=True):
            assert a.frame.index == b.frame.index
            assert [face.is_between for face in a.faces] == [face.is_between for face in b.faces]
            for own, other in zip(a.faces, b.faces, strict=True):
                assert torch.equal(own.restored, other.restored), a.frame.index


@pytest.mark.long
def test_the_reach_is_not_declared_too_large_by_much():
    """Else the test above would pass for any algorithm that looks at less than the whole."""
    n = 88
    frames, track = clip_frames(n), track_of(n)
    whole, first = keyed(frames, track), 44
    begin, stop = first - REACH_FRAMES // 2, first + 1 + REACH_FRAMES // 2
    part = keyed(frames[begin:stop], track)
    assert not torch.equal(crop_of(whole[first]), crop_of(part[first - begin]))


def test_a_calm_face_takes_few_runs_and_is_as_near_the_truth():
    n = 33
    moves = course(n, 0)
    moves = replace(moves, yaw=moves.yaw * 0, talk=moves.talk * 0.1, lids=moves.lids * 0)
    clip = synthetic(n, 128, 0, moves)
    frames = face_frames(worn(clip.truth, X4, 0), restored(clip, Boil(), 0))
    tally = RestorationStats()
    made = keyed(frames, track_of(n), tally)
    assert tally.between >= 0.5 * n
    assert sum(not face.is_between for frame in made for face in frame.faces) == n - tally.between

    def psnr(crops):
        stack = np.stack([crop.permute(1, 2, 0).numpy() for crop in crops])
        return metrics.psnr_db(stack, clip.truth, face_mask(128))

    alone = psnr([crop_of(frame) for frame in frames])
    gain = psnr([crop_of(frame) for frame in made]) - alone
    assert gain.mean() >= 1.0
    assert gain.min() >= 0


def test_a_blink_does_not_reach_the_eyes_of_frames_around_it():
    n, blink = 17, {6: 0.3, 7: 0.7, 8: 1.0, 9: 0.7, 10: 0.3}
    moves = course(n, 0)
    lids = np.array([blink.get(t, 0.0) for t in range(n)])
    clip = synthetic(n, 128, 0, replace(moves, yaw=moves.yaw * 0, talk=moves.talk * 0, lids=lids))
    frames = face_frames(worn(clip.truth, X4, 0), restored(clip, Boil(), 0))
    made = keyed(frames, track_of(n))

    def eyes_db(all_frames: Sequence[FaceFrame], t: int) -> float:
        crops = crop_of(all_frames[t]).permute(1, 2, 0).numpy()[None]
        return metrics.psnr_db(crops, clip.truth[t : t + 1], clip.eyes[t].astype(np.float32))[0]

    lost = {t: eyes_db(frames, t) - eyes_db(made, t) for t in blink}
    (key,) = (t for t in blink if not made[t].faces[0].is_between and lids[t] == 1)
    assert lost[key] < 0.5
    # What the source shows of the lid between key frames is there, however soft.
    assert max(lost.values()) < 8


def shaken(n: int) -> list[FaceFrame]:
    """A face whose features change in every frame."""
    frames = clip_frames(n)
    random = torch.Generator().manual_seed(0)
    return [
        frame.with_faces(
            (replace(frame.faces[0], source=torch.rand(3, SIDE, SIDE, generator=random)),)
        )
        for frame in frames
    ]


def test_where_key_frames_save_too_little_the_crops_are_those_of_the_network():
    frames, tally = shaken(32), RestorationStats()
    made = keyed(frames, track_of(32), tally)
    assert (tally.between, tally.fast) == (0, 32)
    for own, other in zip(made, frames, strict=True):
        assert crop_of(own) is crop_of(other)


def test_a_track_begins_and_ends_with_a_key_frame():
    frames = without(clip_frames(40), range(19, 21))
    made = keyed(frames[3:39], track_of(40))
    between = [f.frame.index for f in made for face in f.faces if face.is_between]
    assert not {3, 18, 21, 38}.intersection(between)
    assert len(between) >= 18


def test_other_tracks_pass_as_they_are():
    frames = clip_frames(20)
    chosen = list(choose(iter(frames), [track_of(20)], of={7}))
    assert [frame.faces[0] for frame in chosen] == [frame.faces[0] for frame in frames]
    assert [f.faces[0] for f in fill(iter(chosen), RestorationStats())] == [
        frame.faces[0] for frame in frames
    ]


def shaped(track: Track, open_at: range) -> Track:
    """The track with a mesh whose mouth is open in some frames."""
    n = len(track.matrices)
    shapes = np.full((n, len(SHAPE_POINTS), 2), 0.5, np.float16)
    lips = slice(OUTLINE_POINTS + 16, OUTLINE_POINTS + 26)
    shapes[:, lips, 1] += np.linspace(-0.02, 0.02, 10, dtype=np.float16)
    for at in open_at:
        shapes[at, lips, 1] += np.linspace(-0.03, 0.03, 10, dtype=np.float16)
    return replace(track, shapes=shapes, angles_degrees=np.zeros((n, 2), np.float32))


def test_a_mouth_that_only_the_mesh_sees_open_calls_for_a_key_frame():
    frames = clip_frames(33)
    plain = [frame.faces[0].is_between for frame in choose(iter(frames), [track_of(33)], of={0})]
    at = plain.index(True, 16)
    opened = shaped(track_of(33), range(at, at + 1))
    made = [frame.faces[0].is_between for frame in choose(iter(frames), [opened], of={0})]
    assert not made[at]


class Counted(Restorer):
    """A restorer that notes what it gets."""

    name, cache_key = "counted", "counted"

    def __init__(self, fails_at: frozenset[int] = frozenset()) -> None:
        self.runs = 0
        self._fails_at = fails_at

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        made = windows[:, 0] * 0.9 + 0.05
        for i in range(len(made)):
            if self.runs + i in self._fails_at:
                made[i] = float("nan")
        self.runs += len(windows)
        return made


def by_network(frames: Sequence[FaceFrame], network: Restorer, tally: RestorationStats):
    n = len(frames)
    bare = (f.with_faces((replace(f.faces[0], restored=None),)) for f in frames)
    chosen = choose(bare, [track_of(n)], of={0})
    return list(fill(restore(chosen, network, tally, Restore()), tally))


def test_the_network_gets_key_frames_only():
    frames, network, tally = clip_frames(33), Counted(), RestorationStats()
    made = by_network(frames, network, tally)
    assert network.runs == 33 - tally.between < 15
    assert not tally.not_restored
    assert all(crop_of(frame) is not None for frame in made)


def test_repeated_frames_between_key_frames_are_not_taken_for_results():
    frames = clip_frames(33)
    still = [replace(f, faces=frames[0].faces) for f in frames]
    network, tally = Counted(), RestorationStats()
    made = by_network(still, network, tally)
    assert network.runs == 33 - tally.between
    assert not tally.not_restored
    first = crop_of(made[0])
    assert all((crop_of(frame) - first).abs().mean() < 0.01 for frame in made)


def test_a_key_frame_that_fails_leaves_the_others():
    network, tally = Counted(frozenset({2})), RestorationStats()
    made = by_network(clip_frames(33), network, tally)
    failed = [f for f in made if f.faces[0].restored is None]
    assert len(failed) == 1, "a face that is counted as left alone is not made of others"
    assert sum(tally.not_restored.values()) == 1


def test_where_all_key_frames_fail_the_faces_between_are_counted():
    network, tally = Counted(frozenset(range(99))), RestorationStats()
    made = by_network(clip_frames(33), network, tally)
    assert all(frame.faces[0].restored is None for frame in made)
    assert sum(tally.not_restored.values()) == 33
    assert tally.between == 0


def test_what_the_restorer_did_not_change_stays_the_source():
    frames = clip_frames(33)
    half = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    half[:, : SIDE // 2] = True
    partly = [
        f.with_faces(
            (replace(f.faces[0], restored=torch.where(half, f.faces[0].source, crop_of(f))),)
        )
        for f in frames
    ]
    for frame in keyed(partly, track_of(33)):
        (face,) = frame.faces
        kept = half.clone()
        kept[:, SIDE // 2 - 8 :] = False  # where a warp may reach
        assert torch.equal(face.restored[:, kept], face.source[:, kept]), frame.frame.index


def test_faces_are_kept_in_order_with_their_tracks():
    frames = clip_frames(20)
    pairs = [f.with_faces((f.faces[0], replace(f.faces[0], track_id=1))) for f in frames]
    tracks = [track_of(20), replace(track_of(20), track_id=1)]
    chosen = choose(iter(pairs), tracks, of={0, 1})
    roles = [[(face.track_id, face.is_between) for face in f.faces] for f in chosen]
    assert all(a[0] == 0 and b[0] == 1 and a[1] == b[1] for a, b in roles)

"""The latent code of a track: the mean of the codes around each frame, however a video is cut."""

from collections.abc import Iterable, Iterator

import pytest
import torch
from helpers import gpen_formula
from helpers.media import Unchanged, plain_face, random_image
from helpers.shots_tape import faces_of as faces_of_tape
from helpers.shots_tape import frames_of, make_tape

from vidrestore.api import restore_video
from vidrestore.common.errors import UsageError
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Restore
from vidrestore.imaging.frame import Frame
from vidrestore.models.factory import chosen_restorer
from vidrestore.models.restorers import LatentRestorer
from vidrestore.models.restorers.assignment import Assignment
from vidrestore.models.restorers.gpen import Gpen
from vidrestore.restoration.batching import restore
from vidrestore.restoration.crop_cache import CropCache
from vidrestore.restoration.faces import FaceFrame
from vidrestore.restoration.latent import REACH_FRAMES, drawn, robust_mean
from vidrestore.restoration.pipeline import reach_frames
from vidrestore.restoration.statistics import RestorationStats


def codes_of(count: int, seed: int = 0, track: int = 0) -> list[dict[int, torch.Tensor]]:
    values = torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))
    return [{track: code} for code in values]


def test_the_code_of_a_still_face_stays():
    code = torch.randn(8, generator=torch.Generator().manual_seed(3))
    for (own,) in (frame.values() for frame in drawn(iter([{0: code}] * 40))):
        assert torch.equal(own, code)


def test_a_code_depends_on_the_frames_within_reach_only():
    frames = codes_of(60)
    whole = list(drawn(iter(frames)))
    assert len(whole) == 60
    part = list(drawn(iter(frames[20 - REACH_FRAMES : 31 + REACH_FRAMES])))
    for own, other in zip(part[REACH_FRAMES:-REACH_FRAMES], whole[20:31], strict=True):
        assert torch.equal(own[0], other[0])
    frames[20] = {0: frames[20][0] + 1}
    other = list(drawn(iter(frames)))
    differ = [i for i in range(60) if not torch.equal(whole[i][0], other[i][0])]
    assert differ == list(range(20 - REACH_FRAMES, 21 + REACH_FRAMES))


def test_tracks_do_not_mix_and_may_have_gaps():
    one, two = codes_of(30), codes_of(30, seed=1, track=1)
    both = [one[i] | ({} if i in (4, 5, 20) else two[i]) for i in range(30)]
    found = list(drawn(iter(both)))
    assert [sorted(frame) for frame in found] == [sorted(frame) for frame in both]
    for frame, alone in zip(found, drawn(iter(one)), strict=True):
        assert torch.equal(frame[0], alone[0])


def test_codes_vary_less_and_one_that_is_far_away_hardly_counts():
    frames = codes_of(60)
    before = torch.stack([frame[0] for frame in frames])
    after = torch.stack([frame[0] for frame in drawn(iter(frames))])
    assert after.diff(dim=0).norm() < 0.15 * before.diff(dim=0).norm()
    codes = torch.cat([torch.randn(16, 8, generator=torch.Generator().manual_seed(1)),
                       torch.full((1, 8), 100.0)])  # fmt: skip
    mean = robust_mean(codes, torch.ones(17))
    assert (mean - codes[:16].mean(dim=0)).norm() < 1 < (codes.mean(dim=0) - mean).norm()


@pytest.fixture(scope="module")
def gpen(tmp_path_factory) -> Gpen:
    """A small GPEN with formula weights."""
    path = tmp_path_factory.mktemp("weights") / "gpen.pth"
    torch.save(gpen_formula.build("gpen-64").state_dict(), path)
    return Gpen(path, device=torch.device("cpu"), number_format="float32")


def faces_of(frames: Iterable[int], side: int = 64) -> Iterator[FaceFrame]:
    """Two faces that change from frame to frame; the first begins at frame 3."""
    image = random_image(16, 16, "yuv420p", 0)
    for index in frames:
        random = torch.Generator().manual_seed(index // 2)  # every other frame repeats one
        faces = [
            plain_face(torch.rand(3, side, side, generator=random), track_id=track)
            for track in (0, 1)
        ]
        yield FaceFrame(Frame(index, index, image), tuple(faces[index < 3 :]))


def restored(network, frames, latent="shot", **more):
    stats = more.pop("stats", RestorationStats())
    how = Restore(batch_size=1, latent=latent, repeats=more.pop("repeats", True))
    done = restore(faces_of(frames), network, stats, how, **more)
    return {
        (frame.frame.index, face.track_id): face.restored
        for frame in done
        for face in frame.faces
        if face.restored is not None
    }


def test_the_network_gets_the_code_of_the_shot(gpen):
    window = next(iter(faces_of([9]))).faces[0].source[None, None]
    code = gpen.codes(window)
    torch.testing.assert_close(gpen.with_codes(window, code), gpen(window), atol=1e-6, rtol=0)
    assert (gpen.with_codes(window, code + 1) - gpen(window)).abs().max() > 0.01
    by_frame, by_shot = (restored(gpen, range(24), latent) for latent in ("frame", "shot"))
    codes = [
        {face.track_id: gpen.codes(face.source[None, None])[0].float() for face in frame.faces}
        for frame in faces_of(range(24))
    ]
    for index, (frame, own) in enumerate(zip(faces_of(range(24)), drawn(iter(codes)), strict=True)):
        face = next((face for face in frame.faces if face.track_id == 0), None)
        if face is not None:
            window = face.source[None, None]
            assert torch.equal(by_frame[index, 0], gpen(window)[0])
            assert torch.equal(by_shot[index, 0], gpen.with_codes(window, own[0][None])[0])


def test_the_result_does_not_depend_on_the_segment(gpen, tmp_path):
    whole = restored(gpen, range(40))
    crops, stats = CropCache(tmp_path, "here"), RestorationStats()
    part = range(20 - REACH_FRAMES, 28 + REACH_FRAMES)
    for runs in (0, 16):
        found = restored(gpen, part, needed=range(20, 28), crops=crops, stats=stats)
        assert sorted({index for index, _ in found}) == list(range(20, 28))
        assert all(torch.equal(crop, whole[place]) for place, crop in found.items())
        assert stats.kept == runs
    settings = load_settings(options={"restore.latent": "shot"})
    alone = Assignment([(0, gpen)])
    assert reach_frames(alone, settings) - reach_frames(alone, load_settings()) == REACH_FRAMES


def test_a_repeated_face_is_drawn_again_where_its_code_is_another(gpen):
    with_repeats, without = (restored(gpen, range(24), repeats=each) for each in (True, False))
    assert all(torch.equal(crop, without[place]) for place, crop in with_repeats.items())
    stats = RestorationStats()
    restored(gpen, [0] * 12, stats=stats)
    assert stats.repeated == 11


class Keeping(LatentRestorer):
    """A network that keeps its memory after each call, which another one lacks then."""

    name, size, template, keepers = "keeping", None, "gpen", set[int]()

    def __call__(self, windows):
        if self.keepers - {id(self)}:
            raise MemoryError
        self.keepers.add(id(self))
        return windows[:, 0]

    def codes(self, windows):
        return self(windows)[:, 0, 0]

    def with_codes(self, windows, codes):
        return self(windows)

    def release(self):
        self.keepers.discard(id(self))


@pytest.mark.parametrize("latent", ["frame", "shot"])
def test_a_network_gets_the_memory_that_another_one_keeps(latent):
    Keeping.keepers.clear()
    stats = RestorationStats()
    found = restored(Keeping(), range(12), latent, stats=stats, own={1: Keeping()})
    assert len(found) == 12 + 9
    assert not stats.not_restored
    assert not stats.notes


def test_restorers_without_a_code_and_engines_without_one_say_so(monkeypatch, tmp_path):
    stats = RestorationStats()
    assert len(restored(Unchanged(), range(4), stats=stats)) == 5
    assert list(stats.notes.values()) == [
        "restore.latent has no effect on unchanged, which has no latent code"
    ]
    options = {"restore.latent": "shot", "restore.engine": "openvino", "restore.device": "cpu",
               "restore.restorer": "gpen-64.pth", "weights.folder": tmp_path}  # fmt: skip
    monkeypatch.chdir(tmp_path)
    torch.save(gpen_formula.build("gpen-64").state_dict(), "gpen-64.pth")
    with pytest.raises(UsageError, match="openvino runs GPEN as a whole"):
        chosen_restorer(load_settings(options=options), None)
    auto = load_settings(options=options | {"restore.engine": "auto"})
    assert chosen_restorer(auto, None).engine == "torch"


@pytest.mark.long
@pytest.mark.parametrize("key_frames", ["off", "on"])
def test_a_video_in_segments_has_the_frames_of_one_in_one(gpen, tmp_path, key_frames):
    tape, found = make_tape(tmp_path), []
    for most_frames in (48, 1000):
        options = {"restore.latent": "shot", "restore.key_frames": key_frames,
                   "job.segment_frames": most_frames, "encode.codec": "ffv1",
                   "encode.check": False, "restore.device": "cpu"}  # fmt: skip
        target = tmp_path / f"{most_frames}.mkv"
        settings = load_settings(options=options)
        restore_video(tape, target, settings, restorer=gpen, analysis=faces_of_tape(tape))
        found.append(frames_of(target))
    assert found[0] == found[1]

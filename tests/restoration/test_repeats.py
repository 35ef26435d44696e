"""Faces that show what the frame before showed are not computed twice, and nothing else changes."""

from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from helpers.media import AS_PAINTED, Unchanged, plain_face, planes_of, random_image, write_video
from skimage import data

from vidrestore.analysis.alignment import align
from vidrestore.analysis.pipeline import analyze_video
from vidrestore.analysis.tracks import RawTrack
from vidrestore.api import restore_video
from vidrestore.cli import console
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Align, Restore
from vidrestore.imaging.frame import Frame
from vidrestore.imaging.geometry import crop_matrix
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.restoration.batching import restore
from vidrestore.restoration.faces import FaceFrame
from vidrestore.restoration.statistics import RestorationStats

SIZE = (320, 240)


class Lively(Unchanged):
    """Changes every pixel by what stands around it, and counts the windows."""

    name = "lively"

    def __init__(self, reach_frames: int = 0, size: int | None = None):
        self.reach_frames, self.size, self.windows = reach_frames, size, 0

    def __call__(self, windows):
        self.windows += len(windows)
        return (0.9 * windows.mean(dim=1) + 0.05 * windows[:, 0].flip(-1) + 0.02).clamp(0, 1)


def crops(*levels, tracks=(0,), side=8):
    """Frames in which the faces of these tracks are flat."""
    image = random_image(16, 16, "yuv420p", 0)
    for i, level in enumerate(levels):
        yield FaceFrame(Frame(i, i, image), tuple(
            plain_face(torch.full((3, side, side), level / 100 + track / 10), track_id=track)
            for track in tracks))  # fmt: skip


def both(levels, *, reach=0, batch_size=1, tracks=(0,), tally=None, **more):
    """Results with and without looking for repeats, and how many windows were run."""
    results, runs = [], []
    for repeats in (True, False):
        restorer = Lively(reach)
        out = restore(crops(*levels, tracks=tracks), restorer, tally or RestorationStats(),
                      how=Restore(batch_size=batch_size, max_waiting_frames=9, repeats=repeats),
                      **more)  # fmt: skip
        results.append([face.restored for frame in out for face in frame.faces])
        runs.append(restorer.windows)
    return results, runs


@pytest.mark.parametrize("batch_size", [1, 3, 50])
@pytest.mark.parametrize("reach", [0, 1, 4])
def test_nothing_comes_out_otherwise(reach, batch_size):
    levels = np.repeat(np.random.default_rng(reach).integers(0, 30, 12), [1, 2, 3, 1, 12, 1] * 2)
    (with_repeats, without), (fewer, all_of_them) = both(
        levels.tolist(), reach=reach, batch_size=batch_size, tracks=(0, 3)
    )
    assert all_of_them == 2 * len(levels)
    assert fewer < all_of_them
    for a, b in zip(with_repeats, without, strict=True):
        assert torch.equal(a, b)


def test_each_picture_is_run_once_and_repeats_are_counted():
    tally = RestorationStats(frames=range(2, 100))
    levels = [1, 1, 1, 2, 2, 1, 1, 1]
    restorer = Lively()
    list(restore(crops(*levels), restorer, tally, how=Restore(batch_size=4, max_waiting_frames=9)))
    assert restorer.windows == 3
    assert tally.repeated == 4  # of the frames that count: the first and second do not


def test_a_repeat_is_one_of_the_same_track_in_the_frame_before():
    _, (runs, _) = both([1, 2, 1, 2])
    assert runs == 4
    image = random_image(16, 16, "yuv420p", 0)
    face = plain_face(torch.full((3, 8, 8), 0.5))
    for faces in ([face, replace(face, track_id=1)], [face, None, face]):
        frames = [FaceFrame(Frame(i, i, image), (f,) if f else ()) for i, f in enumerate(faces)]
        restorer = Lively()
        list(
            restore(
                iter(frames),
                restorer,
                RestorationStats(),
                how=Restore(batch_size=1, max_waiting_frames=9),
            )
        )
        assert restorer.windows == 2


def test_a_restorer_that_looks_around_runs_again_where_a_neighbour_differs():
    _, (runs, _) = both([1, 1, 1, 1, 1, 2], reach=1)
    assert runs == 3  # the still part, its last frame, and the one after


def test_a_repeat_of_what_could_not_be_restored_is_counted_with_the_reason():
    class Broken(Lively):
        def __call__(self, windows):
            return super().__call__(windows) * torch.nan

    tally, restorer = RestorationStats(), Broken()
    out = list(
        restore(crops(1, 1, 1), restorer, tally, how=Restore(batch_size=1, max_waiting_frames=9))
    )
    assert [frame.faces[0].restored for frame in out] == [None] * 3
    assert tally.not_restored == {"the network gave no finite result": 3}
    assert (tally.repeated, restorer.windows) == (0, 1)


def test_what_is_kept_of_faces_that_are_gone_is_nothing():
    import gc
    import weakref

    frames = list(crops(1, 2)) + [FaceFrame(Frame(i, i, None)) for i in (2, 3, 4)]
    seen = weakref.ref(frames[1].faces[0].source)
    out = restore(
        iter(frames), Lively(), RestorationStats(), how=Restore(batch_size=1, max_waiting_frames=9)
    )
    for _ in range(4):
        next(out)
    frames.clear()
    gc.collect()
    assert seen() is None
    out.close()


def pulldown(count: int) -> list[int]:
    """Which picture each frame shows: two and three of each, as film runs on television."""
    return np.repeat(np.arange(count), [2, 3] * (count // 2))[:count].tolist()


HELD = [*range(8), *[8] * 16, *range(9, 17)]
# Each with another setting under which the same must come out.
CADENCES = [
    (pulldown(60), {"job.segment_frames": 48}),
    (HELD, {"restore.repeats": False}),
    ([0] * 16, {"restore.repeats": False}),
]


def tape_of(path, shown):
    """A face that goes right and down, in noise of its own for each picture."""
    photo = data.astronaut()[:220, 100:420]
    images = []
    for picture in shown:
        noise = np.random.default_rng(picture).normal(0, 4, (SIZE[1], SIZE[0], 3))
        offset = 1.3 * picture
        canvas = np.zeros((SIZE[1] + 80, SIZE[0] + 80, 3))
        canvas[30:250, 10:330] = photo
        top, left = 50 - round(0.4 * offset), 60 - round(offset * 0.9)
        rgb = canvas[top : top + SIZE[1], left : left + SIZE[0]] + noise
        image = av.VideoFrame.from_ndarray(np.clip(rgb, 0, 255).astype(np.uint8), "rgb24")
        images.append(image.reformat(format="yuv420p"))
    return write_video(path, images)


def settings_with(**options):
    how = {"detect.detector": "haar", "encode.codec": "ffv1", "encode.check": False,
           "detect.remember": False, "deflicker.amount": 0}  # fmt: skip
    return load_settings(options=AS_PAINTED | how | options)


def planes_in(path) -> list[bytes]:
    return [b"".join(plane.tobytes() for plane in planes_of(frame.image))
            for frame in decode(path, DecodeErrors())]  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(("shown", "otherwise"), CADENCES)
def test_frames_that_repeat_are_found_on_the_whole_way(tmp_path, shown, otherwise, capsys):
    source = tape_of(tmp_path / "source.mkv", shown)
    analysis = analyze_video(source, settings_with())
    (track,) = analysis.tracks
    again = [i for i in range(track.first_frame + 1, track.end_frame) if shown[i] == shown[i - 1]
             and min(track.strength[i - track.first_frame - 1 :][:2]) > 0]  # fmt: skip
    assert len(again) > len(shown) // 3
    faces, results = int(np.count_nonzero(track.strength)), []
    for options in ({}, otherwise):
        restorer, target = Lively(), tmp_path / f"{len(results)}.mkv"
        settings = settings_with(**options)
        summary = restore_video(source, target, settings, restorer=restorer, analysis=analysis)
        results.append(planes_in(target))
        assert summary.faces == faces
        is_on = settings.restore.repeats
        assert summary.repeated == summary.as_dict()["repeated"] == (len(again) if is_on else 0)
        if options == {}:
            assert restorer.windows == faces - len(again)
            console.show_summary(summary, target)
    assert f"{len(again)} of them repeat the frame before" in " ".join(
        capsys.readouterr().out.split()
    )
    assert results[0] == results[1]


@pytest.mark.long
def test_frames_that_repeat_are_as_steady_as_the_others(tmp_path):
    """The geometry of each picture is about the same whether it is shown once or more often."""
    paths = {}
    for name, shown in {"once": range(24), "pulldown": pulldown(60)}.items():
        analysis = analyze_video(tape_of(tmp_path / f"{name}.mkv", shown), settings_with())
        (track,) = analysis.tracks
        first = {p: shown.index(p) for p in range(24)}
        rows = [first[p] - track.first_frame for p in range(24)]
        paths[name] = track.landmarks[rows].mean(axis=1)
    assert np.abs(paths["once"] - paths["pulldown"]).max() < 0.25
    for path in paths.values():
        assert np.abs(np.diff(path, n=2, axis=0)).max() < 0.75


def seen_at(missing=(), repeated=()):
    """A track of ten frames that moves evenly, and of which some frames repeat the one before."""
    from helpers.media import info_of

    from vidrestore.imaging.geometry import apply, invert, template

    points = apply(invert(crop_matrix(np.eye(2, 3), 1).astype(float)), template("gpen")) * 80
    show = np.cumsum([i not in repeated for i in range(10)]) - 1
    landmarks = (points[None] + 3.0 * show[:, None, None]).astype(np.float32)
    score = np.ones(10, np.float32)
    landmarks[list(missing)], score[list(missing)] = np.nan, np.nan
    repeats = np.array([i in repeated for i in range(12)])
    raw = RawTrack(0, (0, 10), landmarks, score)
    return raw, info_of(640, 480), repeats


def test_a_picture_is_seen_where_it_is_seen_in_any_of_its_frames():
    """Some frames are only followed; what a repeat of one saw is used for both."""
    whole, info, repeats = seen_at(repeated=(3, 4, 8))
    (wanted,) = align([whole], info, Align(), template_name="gpen", coarse=False, repeats=repeats)
    part, info, repeats = seen_at(repeated=(3, 4, 8), missing=(2, 4, 7))
    (got,) = align([part], info, Align(), template_name="gpen", coarse=False, repeats=repeats)
    np.testing.assert_array_equal(got.matrices, wanted.matrices)
    for frame in (3, 4, 8):
        np.testing.assert_array_equal(got.matrices[frame], got.matrices[frame - 1])
        np.testing.assert_array_equal(got.landmarks[frame], got.landmarks[frame - 1])
    moved = np.diff(got.matrices[:, 0, 2])[[0, 1, 4, 5, 6, 8]]
    assert np.abs(moved - moved.mean()).max() < 0.02 * abs(moved.mean())


def test_a_track_that_begins_with_a_repeat_has_a_first_picture():
    raw, info, _ = seen_at()
    repeats = np.ones(12, bool)
    (track,) = align([raw], info, Align(), template_name="gpen", coarse=False, repeats=repeats)
    assert len(np.unique(track.matrices, axis=0)) == 1


class Careless(Lively):
    """Leaves its gradients on, or gives half precision."""

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self._gain, self._dtype = torch.nn.Parameter(torch.ones(1)), dtype

    def __call__(self, windows):
        with torch.enable_grad():
            return (super().__call__(windows) * self._gain).to(self._dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_a_result_with_gradients_or_another_precision_can_be_used(dtype):
    for frame in restore(crops(40, 50), Careless(dtype), RestorationStats(), Restore()):
        (face,) = frame.faces
        assert face.restored.dtype == torch.float32
        assert face.restored.numpy().mean() == pytest.approx(
            0.95 * face.source.mean().item() + 0.02, abs=1e-3
        )

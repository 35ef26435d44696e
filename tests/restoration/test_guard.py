"""The guard: who was turned into somebody else is let be, who was not is not touched."""

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from helpers.media import (
    Unchanged,
    analysis_of,
    analysis_of_file,
    info_of,
    plain_face,
    plain_track,
    planes_of,
    write_video,
)
from helpers.simulation import (
    X4,
    X8,
    X16,
    Boil,
    Clip,
    face_at_rest,
    face_frames,
    restored,
    synthetic,
    worn,
)
from skimage import data

from vidrestore.api import restore_video
from vidrestore.cli import console
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Guard
from vidrestore.imaging.geometry import fit_similarity, template
from vidrestore.jobs.summary import likeness_by_track
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.models.detectors.yunet import YuNet
from vidrestore.models.recognizer import Recognizer, find_recognizer
from vidrestore.restoration.faces import FaceFrame
from vidrestore.restoration.guard import (
    IDENTITY_EVERY,
    REACH_FRAMES,
    UNLIKE,
    SimilarityJudge,
    chosen_judge,
    guard,
    pair_of,
)
from vidrestore.restoration.statistics import RestorationStats
from vidrestore.review.portrait import place_in_crop

SIDE, N = 128, 16
POINTS = template("ffhq")
FLOORS = {"identity": 0.2, "features": 0.7}
LARGEST_STEP = 1 / 5


@lru_cache(maxsize=8)
def clip_of(seed: int, n: int = N, side: int = SIDE) -> Clip:
    return synthetic(n, side, seed)


def as_crop(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.clip(picture, 0, 1).astype(np.float32)).permute(2, 0, 1).contiguous()


def features(source: np.ndarray, result: np.ndarray) -> float:
    return SimilarityJudge().features(pair_of(as_crop(source), as_crop(result), POINTS))


def guarded(frames, judge=None, tally=None, **floors) -> list[FaceFrame]:
    how = Guard(**(FLOORS | floors))
    return list(guard(iter(frames), judge or SimilarityJudge(), tally or RestorationStats(), how))


def strengths(frames) -> np.ndarray:
    return np.array([frame.faces[0].strength for frame in frames])


class Said(SimilarityJudge):
    """Says of each pair what the level of the restored crop is."""

    def __init__(self, *, knows_people: bool = False) -> None:
        super().__init__((lambda picture, faces: []) if knows_people else None, "said")
        self.looks = 0

    def features(self, pair) -> float:
        return 1.0 if self.knows_people else float(pair.restored.mean()) / 255

    def identity(self, pair) -> float | None:
        self.looks += 1
        return float(pair.restored.mean()) / 255 if self.knows_people else None


def said(values) -> list[FaceFrame]:
    """Frames of one face, of which `Said` says these values."""
    source = np.ones((len(values), 8, 8, 3), np.float32)
    result = np.asarray(values, np.float32)[:, None, None, None] * source
    return face_frames(source, result)


@pytest.mark.parametrize("wear", [X4, X8, X16], ids=["x4", "x8", "x16"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_faithful_restorer_is_not_touched(wear, seed):
    clip, tally = clip_of(seed), RestorationStats()
    frames = face_frames(worn(clip.truth, wear, seed), restored(clip, Boil(), seed))
    for given, out in zip(frames, guarded(frames, tally=tally, features=0.8), strict=True):
        assert out is given
    assert tally.likeness_of(0).reduced == 0
    assert not tally.not_restored


@pytest.mark.parametrize("swapped", [(9,), (2, 3, 13), range(6, 11)])
def test_a_face_that_becomes_another_is_let_be_there(swapped):
    clip, other = clip_of(0), someone_else(N)
    result = restored(clip, Boil(), 0)
    result[list(swapped)] = other[list(swapped)]
    frames, tally = face_frames(worn(clip.truth, X4, 0), result), RestorationStats()
    out = guarded(frames, tally=tally)
    found = strengths(out)
    assert found[list(swapped)].max() == 0
    assert np.abs(np.diff(found)).max() <= LARGEST_STEP + 1e-9
    far = [t for t in range(N) if min(abs(t - s) for s in swapped) > REACH_FRAMES]
    assert all(out[t] is frames[t] for t in far)
    assert tally.not_restored[UNLIKE] == np.count_nonzero(found == 0)
    assert tally.likeness_of(0).reduced == np.count_nonzero(found < 1)
    # What is pasted never is under the floor, in any frame.
    for frame in out:
        (face,) = frame.faces
        pasted = torch.lerp(face.source, face.restored, face.strength)
        assert (
            SimilarityJudge().features(pair_of(face.source, pasted, POINTS)) >= FLOORS["features"]
        )
    known = tally.likeness_of(0)
    assert known.features / known.frames < known.features_used / known.frames


def someone_else(n: int) -> np.ndarray:
    """(n, SIDE, SIDE, 3) another face in the same place: a man of skimage's, one frame for all."""
    man = data.lfw_subset()[2]
    large = cv2.resize(man.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return np.repeat(np.dstack([large] * 3)[None], n, axis=0).clip(0, 1)


@pytest.mark.parametrize("knows_people", [False, True])
def test_the_strength_is_monotone_in_likeness_and_smooth(knows_people):
    values = np.linspace(0, 1, 26)
    judge = Said(knows_people=knows_people)
    steady = [strengths(guarded(said([value]), judge))[0] for value in values]
    rises = np.diff(steady)
    assert rises.min() >= 0
    assert (steady[0], steady[-1]) == (0, 1)
    floor = FLOORS["identity" if knows_people else "features"]
    sure = floor + (0.15 if knows_people else 0.2)
    assert all(s == 0 for s, value in zip(steady, values, strict=True) if value < floor - 0.01)
    assert all(s == 1 for s, value in zip(steady, values, strict=True) if value > sure + 0.01)
    assert rises.max() <= 1.6 * 0.04 / (sure - floor)


@pytest.mark.parametrize("seed", [0, 1])
def test_no_course_of_likenesses_makes_a_step_or_a_recursion(seed):
    random = np.random.default_rng(seed)
    levels = (0.0, 0.75, 0.8, 1.0)
    values = random.choice(levels, 24)
    whole = guarded(said(values), Said())
    found = strengths(whole)
    assert np.abs(np.diff(found)).max() <= LARGEST_STEP + 1e-9
    alone = {level: strengths(guarded(said([level]), Said()))[0] for level in levels}
    assert (found <= [alone[value] + 1e-9 for value in values]).all()
    for first in (1, 13):
        part = strengths(guarded(said(values)[first:], Said()))
        np.testing.assert_array_equal(part[REACH_FRAMES:], found[first + REACH_FRAMES :])
        part = strengths(guarded(said(values)[:first], Said()))
        held = max(first - REACH_FRAMES, 0)
        np.testing.assert_array_equal(part[:held], found[:held])


def test_a_recogniser_looks_at_fixed_frames_and_its_word_reaches_those_between():
    judge, values = Said(knows_people=True), np.ones(12)
    values[6] = 0
    found = strengths(guarded(said(values), judge))
    # Around the sixth also at what was used instead.
    assert judge.looks == 12 // IDENTITY_EVERY + 3
    assert found[6] == 0
    assert (found[[0, 1, 11]] == 1).all()
    whole = said(values)
    tracks = [replace(plain_track(12, centre=(4, 4), side=8), first_frame=0)]
    for first in (1, 2, 3):
        part = guard(
            iter(whole[first:]),
            Said(knows_people=True),
            RestorationStats(),
            Guard(**FLOORS),
            tracks=tracks,
        )
        cut = strengths(part)[REACH_FRAMES:]
        np.testing.assert_array_equal(cut, found[first + REACH_FRAMES :])


def test_where_nothing_is_asked_nothing_is_looked_at():
    frames = said([0.0] * 3)
    nothing = {"features": 0.0, "identity": 0.0}
    for judge, floors in ((Said(), {"features": 0.0}), (Said(knows_people=True), nothing)):
        tally = RestorationStats()
        out = guarded(frames, judge, tally, **floors)
        assert all(a is b for a, b in zip(out, frames, strict=True))
        assert not tally.likeness


def test_faces_that_were_not_restored_pass():
    (frame,) = said([0.0])
    left = frame.with_faces((plain_face(torch.ones(3, 8, 8)),))
    assert guarded([left])[0] is left


def changed_mouth(picture: np.ndarray) -> np.ndarray:
    centre = np.rint(POINTS[3:].mean(axis=0) * SIDE - 0.5).astype(int).tolist()
    opened = cv2.ellipse(picture.copy(), centre, (SIDE // 11, SIDE // 16), 0, 0, 360,
                         (0.18, 0.07, 0.07), cv2.FILLED)  # fmt: skip
    return cv2.GaussianBlur(opened, (0, 0), SIDE / 256)


def moved_eyes(picture: np.ndarray, share: float = 0.05) -> np.ndarray:
    """Both down by that share of the crop, the face around them pulled along."""
    at = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE
    x, y = np.meshgrid(at, at)
    pull = sum(np.exp(-((x - e[0]) ** 2 + (y - e[1]) ** 2) / 0.09**2) for e in POINTS[:2])
    rows = (y - share * pull).astype(np.float32) * SIDE - 0.5
    return cv2.remap(picture, x * SIDE - 0.5, rows, cv2.INTER_CUBIC)


def tinted(picture: np.ndarray) -> np.ndarray:
    return (picture * (1.1, 0.95, 0.85) - 0.5) * 0.8 + 0.5


@pytest.mark.parametrize("wear", [X4, X8, X16], ids=["x4", "x8", "x16"])
@pytest.mark.parametrize("seed", [0, 1])
def test_what_a_bad_source_does_is_no_other_face_but_a_moved_feature_is(wear, seed):
    truth = clip_of(seed).truth[:1]
    source = worn(truth, wear, seed)[0]
    for faithful in (truth[0], tinted(truth[0]), cv2.GaussianBlur(truth[0], (0, 0), SIDE / 128)):
        assert features(source, faithful) >= 0.93
    for wrong in (changed_mouth(truth[0]), moved_eyes(truth[0])):
        assert features(source, wrong) <= 0.87
    further = [features(source, moved_eyes(truth[0], share)) for share in (0.03, 0.05, 0.07)]
    assert further == sorted(further, reverse=True)


def test_a_face_in_the_dark_is_not_judged_by_its_noise():
    truth = clip_of(0).truth[0]
    noise = np.random.default_rng(0).normal(0, 4 / 255, truth.shape)
    assert features(0.05 * truth + noise, 0.05 * truth) >= 0.93


@pytest.fixture(scope="module")
def models(shared) -> Path:
    return shared / "models"


@pytest.fixture(scope="module")
def recogniser(models) -> SimilarityJudge:
    found = Recognizer(find_recognizer(models / "insightface" / "models" / "det_rec"))
    return SimilarityJudge(found, found.name)


def clip_faces(models: Path, name: str, count: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """(count, 256, 256, 3) crops of the largest face of a real clip, and their landmarks."""
    detector = YuNet(models / "face_detection_yunet_2023mar.onnx", score=0.7)
    crops, points = [], []
    for frame in decode(models.parent / "clips" / name, DecodeErrors()):
        picture = frame.image.to_ndarray(format="bgr24")
        face = max(detector(picture), key=lambda d: d.box[2] - d.box[0])
        unit = fit_similarity(face.landmarks[None].astype(np.float64), template("gpen"))[0]
        matrix = unit * 256
        matrix[:, 2] -= 0.5
        light = cv2.warpAffine(picture, matrix, (256, 256), flags=cv2.INTER_AREA)
        crops.append(light[..., ::-1].astype(np.float32) / 255)
        points.append(face.landmarks @ unit[:, :2].T + unit[:, 2])
        if len(crops) == count:
            break
    return np.stack(crops), points


@pytest.mark.parametrize("wear", [X4, X8], ids=["x4", "x8"])
def test_a_real_recogniser_tells_another_person_and_knows_the_same(models, recogniser, wear):
    (own, points), (other, _) = (clip_faces(models, c, 4) for c in ("lp_s18.mp4", "vrt_1.mp4"))
    sources = worn(own, wear, 0)

    def cosines(results: np.ndarray) -> list[float]:
        return [
            recogniser.identity(pair_of(as_crop(source), as_crop(result), at))
            for source, result, at in zip(sources, results, points, strict=True)
        ]

    assert min(cosines(own)) >= (0.55 if wear is X4 else FLOORS["identity"] + 0.15)
    assert max(cosines(other)) <= 0.25
    track = plain_track(4, centre=(127.5, 127.5), side=256)
    track = replace(track, landmarks=np.float32(np.stack(points) * 256 - 0.5))
    for results, reduced in ((own, 0), (other, 4)):
        tally, floors = RestorationStats(), FLOORS | {"features": 0.0}
        frames = iter(face_frames(sources, results))
        list(guard(frames, recogniser, tally, Guard(**floors), tracks=[track]))
        known = tally.likeness_of(0)
        assert known.comparisons == 2
        assert known.reduced == reduced
        assert known.identity_used / known.comparisons >= FLOORS["identity"]


def test_counts_add_up_over_segments_and_survive_json():
    whole, parts = RestorationStats(), RestorationStats()
    values = [1.0] * 12 + [0.4] * 4 + [1.0] * 4
    guarded(said(values), Said(), whole)
    for first, end in ((0, 9), (9, 20)):
        part = RestorationStats(frames=range(first, end))
        near = slice(max(0, first - REACH_FRAMES), end + REACH_FRAMES)
        guarded(said(values)[near], Said(), part)
        parts.add(json.loads(json.dumps(part.as_dict())))
    assert parts.not_restored == whole.not_restored
    one, other = parts.likeness_of(0), whole.likeness_of(0)
    assert (one.frames, one.reduced) == (other.frames, other.reduced) == (20, 12)
    assert one.features == pytest.approx(other.features)
    assert one.features_used == pytest.approx(other.features_used)
    courses = [{at: each.share for at, each in t.likeness[0].items()} for t in (parts, whole)]
    assert courses[0] == pytest.approx(courses[1])
    assert list(courses[0]) == [0, 1]


class Swapping(Unchanged):
    """Gives everybody the same other face in some calls, and else what was there."""

    name = "swapping"

    def __init__(self, other: torch.Tensor, calls: range) -> None:
        self._other, self._calls, self._count = other, calls, 0

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        crops = 0.98 * windows[:, 0] + 0.01
        if self._count in self._calls:
            crops = self._other.expand(len(crops), -1, -1, -1).clone()
        self._count += len(crops)
        return crops


@pytest.fixture
def tape(tmp_path) -> Path:
    """A still portrait of 128 x 128 pixels, its landmarks where the template has them."""
    wide = face_at_rest(0, SIDE)
    matrix = place_in_crop((POINTS + 0.25) / 1.5 * len(wide) - 0.5, template("gpen"), SIDE)
    face = cv2.warpAffine(wide, matrix, (SIDE, SIDE), flags=cv2.INTER_CUBIC)
    levels = np.clip(np.rint(255 * face), 0, 255).astype(np.uint8)
    image = av.VideoFrame.from_ndarray(levels, "rgb24").reformat(format="yuv444p")
    return write_video(tmp_path / "tape.mkv", [image] * 24)


def run(tape: Path, target: Path, *changes: str, calls: range = range(10, 14)):
    track = plain_track(24, centre=(64, 64), side=SIDE, work_px=SIDE)
    settings = load_settings(None, [
        "encode.codec=ffv1", "encode.check=false", "deflicker.amount=off", "paste.occluders=false",
        "paste.color=0", "paste.sharpness=0", "grain.match=0", "restore.repeats=false", *changes,
    ])  # fmt: skip
    restorer = Swapping(as_crop(someone_else(1)[0]), calls)
    summary = restore_video(tape, target, settings, restorer=restorer,
                            analysis=analysis_of_file(tape, [track]))  # fmt: skip
    lumas = [planes_of(frame.image)[0].astype(int) for frame in decode(target, DecodeErrors())]
    return summary, np.stack(lumas)


def test_a_job_with_a_restorer_that_swaps_leaves_those_frames_and_says_so(tape, tmp_path, capsys):
    summary, lumas = run(tape, tmp_path / "out.mkv")
    (source, *_) = (planes_of(frame.image)[0].astype(int) for frame in decode(tape, DecodeErrors()))
    apart = np.abs(lumas - source).mean(axis=(1, 2))
    assert apart[10:14].max() == 0
    assert apart.max() < 3
    (track,) = summary.likeness
    assert (track.track, track.person, track.shot, track.frames) == (0, 1, 1, 24)
    assert track.reduced_frames == 4 + 2 * REACH_FRAMES
    assert track.features < 0.95 < track.features_used
    assert track.identity is None
    assert summary.skipped[UNLIKE] == 4
    assert summary.faces == 20
    assert json.loads(json.dumps(summary.as_dict()))["likeness"][0]["reduced_frames"] == 12
    console.show_summary(summary, tmp_path / "out.mkv")
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "person 1 in shot 1" in shown
    assert "does not look like the source in 12 frames" in shown


def test_the_setting_switches_the_guard_off_and_on(tape, tmp_path, capsys):
    summary, lumas = run(tape, tmp_path / "off.mkv", "guard.features=off", "guard.identity=off")
    assert np.abs(lumas[11] - lumas[2]).mean() > 5
    assert summary.likeness == ()
    summary, faithful = run(tape, tmp_path / "on.mkv", calls=range(0))
    assert summary.likeness[0].reduced_frames == 0
    np.testing.assert_array_equal(faithful[2], lumas[2])
    console.show_summary(summary, tmp_path / "on.mkv")
    assert "does not look like" not in capsys.readouterr().out


def test_the_judge_is_the_packs_recogniser_where_there_is_one(models):
    def judge(*changes: str) -> SimilarityJudge:
        folder = f"weights.folder={models}"
        more = ["weights.offline=true", "guard.expression=off", *changes]
        settings = load_settings(None, [folder, *more])
        return chosen_judge(settings, None)

    assert judge("detect.pack=det_only").name == judge("detect.pack=missing").name == "features"
    assert judge("detect.pack=det_rec").name == "det_rec/mobilefacenet_pixamatch.onnx"
    assert judge("detect.pack=det_rec", "guard.identity=off").name == "features"
    assert judge("detect.pack=det_rec", "people.recognise=false").name == "features"


def test_likeness_is_told_by_person_and_shot():
    tracks = [replace(plain_track(4, centre=(8, 8), side=8, track_id=i), first_frame=4 * i)
              for i in range(3)]  # fmt: skip
    tally = RestorationStats()
    for frame in said([1.0] * 4):
        (face,) = frame.faces
        moved = replace(frame.frame, index=frame.frame.index + 8)
        guarded([FaceFrame(moved, (replace(face, track_id=2),))], Said(), tally)
    analysis = replace(analysis_of(info_of(16, 16), 12, tracks), shots=((0, 4), (4, 12)))
    (found,) = likeness_by_track(tally, analysis)
    assert (found.track, found.person, found.shot, found.frames) == (2, 3, 2, 4)

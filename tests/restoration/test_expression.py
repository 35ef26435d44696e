"""The expression: what a restorer made of an eye or a mouth is found, and only there used less."""

import json
from dataclasses import replace

import av
import cv2
import numpy as np
import pytest
import torch
from helpers.expressions import POINTS, SIDE, closed, open_mesh, portrait, true_restorations, worn
from helpers.media import (
    Unchanged,
    analysis_of_file,
    info_of,
    plain_track,
    planes_of,
    write_video,
)
from helpers.simulation import face_frames

from vidrestore.api import restore_video
from vidrestore.cli import console
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Grain, Guard, Paste
from vidrestore.imaging.frame import Frame
from vidrestore.jobs.summary import Summary, TrackLikeness
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.restoration.compositing.masks import EXPRESSIVE, expression_strength
from vidrestore.restoration.compositing.paste import paste
from vidrestore.restoration.faces import Face, FaceFrame
from vidrestore.restoration.guard import (
    REACH_FRAMES,
    SimilarityJudge,
    chosen_judge,
    guard,
    pair_of,
)
from vidrestore.restoration.statistics import Counts, RestorationStats

ONLY = Guard(identity=0.0, features=0.0, expression=1.0)
LARGEST_STEP = 1 / 5


@pytest.fixture(scope="module")
def mesh(shared):
    return open_mesh(shared)


@pytest.fixture(scope="module")
def judge(mesh):
    return SimilarityJudge(mesh=mesh)


@pytest.fixture(scope="module")
def smile(mesh):
    """The portrait, which shows teeth, and its mesh."""
    return portrait(mesh)


def as_crop(bgr: np.ndarray) -> torch.Tensor:
    rgb = np.ascontiguousarray(bgr[..., ::-1].transpose(2, 0, 1))
    return torch.from_numpy(rgb.astype(np.float32) / 255)


def frames_of(source: np.ndarray, results: list[np.ndarray]) -> list[FaceFrame]:
    """Frames of one face with the landmarks of the template "gpen", the same source in each."""
    picture, matrix, own = (
        av.VideoFrame(16, 16, "gray"), np.eye(2, 3, dtype=np.float32), as_crop(source),
    )  # fmt: skip
    return [
        FaceFrame(Frame(t, t, picture), (Face(0, SIDE, matrix, own, 1.0, as_crop(each)),))
        for t, each in enumerate(results)
    ]


def factors(frames: list[FaceFrame]) -> np.ndarray:
    """(n, 3) factors of the left eye, the right eye and the mouth."""
    return np.array(
        [[frame.faces[0].part_factors.get(part, 1.0) for part in EXPRESSIVE] for frame in frames]
    )


def departures(judge, source, restored, points=POINTS) -> dict[str, float]:
    pair = pair_of(as_crop(source), as_crop(restored), points)
    return dict(judge.departures(pair, judge.softness_px(pair)))


# What is closed in the source and in the restored face, and by which share.
CHANGES = {
    "a smile to teeth": ({"mouth": 1.0}, {}),
    "teeth to a smile": ({}, {"mouth": 1.0}),
    "a closed eye opened": ({"left_eye": 1.0}, {}),
    "an open eye closed": ({}, {"right_eye": 1.0}),
    "closed eyes opened": ({"left_eye": 1.0, "right_eye": 1.0}, {}),
    "open eyes closed": ({}, {"left_eye": 1.0, "right_eye": 1.0}),
}


def shown(smile, shut: dict[str, float]) -> np.ndarray:
    crop, mesh = smile
    for part, share in shut.items():
        crop = closed(crop, mesh, part, share)
    return crop


@pytest.mark.parametrize("factor", [1, 4, 8])
@pytest.mark.parametrize("change", CHANGES)
def test_another_expression_is_kept_out_there_and_nowhere_else(judge, smile, change, factor):
    before, after = CHANGES[change]
    changed = [part in before | after for part in EXPRESSIVE]
    true = shown(smile, before)
    results = [true] * 6 + [shown(smile, after)] * 2 + [true] * 6
    given = frames_of(worn(true, factor), results)
    tally = RestorationStats()
    out = list(guard(iter(given), judge, tally, ONLY))
    found = factors(out)
    assert found[6:8][:, changed].max() <= 0.1
    assert (found[:, ~np.array(changed)] == 1).all()
    assert all(frame.faces[0].strength == 1 for frame in out)
    assert np.abs(np.diff(found, axis=0)).max() <= LARGEST_STEP + 1e-9
    far = [t for t in range(14) if not 6 - REACH_FRAMES <= t < 8 + REACH_FRAMES]
    assert all(out[t] is given[t] for t in far)
    known = tally.likeness_of(0)
    assert known.expressions == 2 + 2 * REACH_FRAMES
    assert known.reduced == 0


def test_the_departure_grows_with_the_opening_and_falls_with_the_quality_of_the_source(
    judge, smile
):
    teeth = smile[0]
    of_share = [departures(judge, shown(smile, {"mouth": share}), teeth)["mouth"]
                for share in (0.25, 0.5, 0.75, 1.0)]  # fmt: skip
    assert of_share == sorted(of_share)
    assert of_share[1] > 1.5
    shut = shown(smile, {"mouth": 1.0})
    of_factor = [departures(judge, worn(shut, factor), teeth)["mouth"] for factor in (1, 4, 8, 16)]
    assert of_factor == sorted(of_factor, reverse=True)
    # With 8 pixels between the eyes a smile is not told from teeth.
    assert of_factor[-1] < 1


@pytest.mark.parametrize("factor", [1, 4, 8, 16])
def test_a_faithful_restoration_of_the_portrait_passes(judge, smile, factor):
    for shut in ({}, {"mouth": 1.0}, {"left_eye": 1.0, "right_eye": 1.0}):
        true = shown(smile, shut)
        for seed in range(3):
            found = departures(judge, worn(true, factor, seed=seed), true)
            assert max(found.values()) < 0.8


@pytest.mark.parametrize("light", [0.7, 0.5, 0.35])
def test_teeth_are_kept_out_where_the_restorer_lightens_the_face(judge, smile, light):
    shut, teeth = shown(smile, {"mouth": 1.0}), shown(smile, {})
    assert departures(judge, shut * np.float32(light), teeth)["mouth"] > 1.75


def test_light_and_tint_are_no_expression(judge, smile):
    true = smile[0]
    tinted = np.clip(true * (0.8, 0.9, 1.05) * 0.8 + 20, 0, 255).astype(np.uint8)
    assert max(departures(judge, worn(true, 4), tinted).values()) < 0.5


def test_where_there_is_no_face_nothing_is_said(judge):
    noise = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)
    flat = np.full((SIDE, SIDE, 3), 90, np.uint8)
    for picture in (cv2.GaussianBlur(noise, (0, 0), 9), flat):
        assert departures(judge, picture, picture) == {}


@pytest.mark.long
def test_true_restorations_pass_whole(shared, mesh, judge):
    how = Guard(identity=0.0)
    largest: dict[str, float] = {}
    count = 0
    for name, number, source, restored, points in true_restorations(shared, mesh, 25):
        found = departures(judge, source, restored, points)
        assert set(found) == set(EXPRESSIVE)
        for part, far in found.items():
            assert far < 0.75, (name, number, part)
            largest[f"{name} {part}"] = max(far, largest.get(f"{name} {part}", 0.0))
        (frame,) = face_frames(*(rgb(each)[None] for each in (source, restored)))
        (out,) = guard(iter([frame]), judge, RestorationStats(), how)
        assert out.faces[0].strength >= 0.999, (name, number)
        assert not out.faces[0].part_factors
        count += 1
    assert count == 29 + 4 * 25
    print("largest departures", {key: round(value, 2) for key, value in largest.items()})


def rgb(bgr: np.ndarray) -> np.ndarray:
    return bgr[..., ::-1].astype(np.float32) / 255


@pytest.mark.long
@pytest.mark.parametrize(("factor", "noise", "quality"), [(8, 8, 40), (16, 6, 40), (24, 4, 60)])
def test_true_restorations_of_poor_sources_are_not_rejected_and_others_are(
    shared, mesh, judge, factor, noise, quality
):
    how = Guard(identity=0.0)
    pairs = list(true_restorations(shared, mesh, 4))
    faces = [*pairs[:29], *pairs[29::4]]

    def used(source: np.ndarray, restored: np.ndarray) -> Face:
        (frame,) = face_frames(rgb(source)[None], rgb(restored)[None])
        (out,) = guard(iter([frame]), judge, RestorationStats(), how)
        return out.faces[0]

    for i, (name, number, _, restored, _) in enumerate(faces):
        poor = worn(restored, factor, seed=i, noise=noise, quality=quality)
        face = used(poor, restored)
        assert face.strength > 0.95, (name, number)
        assert not face.part_factors, (name, number)
        other = faces[(i + 1) % len(faces)][3]
        assert used(poor, other).strength < 0.5, (name, number)


class Said(SimilarityJudge):
    """Says that the mouth departs by a hundred times the level of the restored crop."""

    looks = 0

    @property
    def sees_expression(self) -> bool:
        return True

    def departures(self, pair, soft_px):
        self.looks += 1
        return {"left_eye": 0.0, "right_eye": 0.0, "mouth": 100 * float(pair.restored.mean()) / 255}


def said(values) -> list[FaceFrame]:
    """Frames of one face, whose mouth `Said` says departs by these values."""
    source = np.full((len(values), 8, 8, 3), 0.5, np.float32)
    return face_frames(source, np.ones_like(source) * np.float32(values)[:, None, None, None] / 100)


@pytest.mark.parametrize("most", [0.5, 1.0, 2.0])
def test_the_setting_is_the_largest_departure_of_a_face_that_is_used_in_full(most):
    values = np.linspace(0, 4, 41)
    how = Guard(identity=0.0, features=0.0, expression=most)
    found = np.array([
        factors(list(guard(iter(said([value])), Said(), RestorationStats(), how)))[0, 2]
        for value in values
    ])  # fmt: skip
    assert (np.diff(found) <= 1e-9).all()
    assert (found[values < most - 0.01] == 1).all()
    assert (found[values > 1.76 * most] < 1e-3).all()
    assert 0.05 < found[np.argmin(np.abs(values - 1.4 * most))] < 0.95


@pytest.mark.parametrize("seed", [0, 1])
def test_the_factors_make_no_step_and_do_not_depend_on_where_a_segment_begins(seed):
    values = np.random.default_rng(seed).choice([0.0, 0.9, 1.3, 3.0], 24)

    def through(frames):
        return factors(list(guard(iter(frames), Said(), RestorationStats(), ONLY)))

    whole = through(said(values))
    assert np.abs(np.diff(whole, axis=0)).max() <= LARGEST_STEP + 1e-9
    assert whole[:, 2].min() < 1
    for first in (1, 13):
        part = through(said(values)[first:])
        np.testing.assert_array_equal(part[REACH_FRAMES:], whole[first + REACH_FRAMES :])
        part = through(said(values)[:first])
        held = max(first - REACH_FRAMES, 0)
        np.testing.assert_array_equal(part[:held], whole[:held])


def test_without_the_mesh_or_the_setting_nothing_is_looked_at():
    frames, off = said([9.0] * 3), Guard(identity=0.0, features=0.0, expression=0.0)
    tally, judge = RestorationStats(), Said()
    for judged, how in ((judge, off), (SimilarityJudge(), ONLY)):
        out = list(guard(iter(frames), judged, tally, how))
        assert all(a is b for a, b in zip(out, frames, strict=True))
    assert judge.looks == 0
    assert not tally.likeness


def test_the_name_of_the_judge_holds_the_hash_of_the_mesh(shared, mesh, monkeypatch):
    asked = []

    def stub(settings, on_event, hashes=None, *, without):
        asked.append(settings.guard.expression)
        return mesh

    monkeypatch.setattr("vidrestore.restoration.guard.chosen_face_mesh", stub)

    def judge(*changes: str) -> SimilarityJudge:
        return chosen_judge(load_settings(None, ["guard.identity=off", *changes]), None)

    assert judge().name == f"features, face mesh {mesh.sha256}"
    assert len(mesh.sha256) == 64
    assert judge().sees_expression
    assert len(asked) == 2
    without = judge("guard.expression=off")
    assert (without.name, without.sees_expression, len(asked)) == ("features", False, 2)


def test_kept_expressions_are_counted_and_told(capsys):
    tally = RestorationStats(frames=range(0, 9))
    list(guard(iter(said([0, 0, 0, 0, 0, 0, 0, 0, 9])), Said(), tally, ONLY))
    counts = json.loads(json.dumps(tally.as_dict()))
    Counts.model_validate(counts)
    both = RestorationStats()
    both.add(counts)
    both.add(counts)
    assert tally.likeness_of(0).expressions == 1 + REACH_FRAMES
    assert both.likeness_of(0).expressions == 2 * (1 + REACH_FRAMES)
    track = TrackLikeness(0, 3, 2, 9, 0, 0.99, 0.99, None, None, expression_frames=5)
    console.show_summary(Summary(9, 9, 1, 1, 2, likeness=(track,)), "out.mkv")
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "person 3 in shot 2: expression kept in 5 faces" in told
    assert "does not look like" not in told


def test_less_is_used_of_the_whole_part_and_all_of_the_rest():
    at = (np.arange(64) + 0.5) / 64
    eyes_apart = POINTS[1, 0] - POINTS[0, 0]
    mouth = POINTS[3:].mean(axis=0)
    for part, (x, y) in zip(EXPRESSIVE, (*POINTS[:2], mouth), strict=True):
        field = expression_strength(POINTS, {part: 0.25})
        assert field[np.abs(at - y).argmin(), np.abs(at - x).argmin()] == pytest.approx(0.25)
        for other in (*POINTS[:3], mouth):
            if np.hypot(*(other - (x, y))) > 0.01:
                near = field[np.abs(at - other[1]).argmin(), np.abs(at - other[0]).argmin()]
                assert near == 1
        away = np.hypot(at - x, (at - y)[:, None])
        assert (field[away > eyes_apart] == 1).all()
        assert np.abs(np.diff(field, axis=0)).max() < 0.5
    corners = expression_strength(POINTS, {"mouth": 0.0})
    for x, y in POINTS[3:]:
        assert corners[np.abs(at - y).argmin(), np.abs(at - x).argmin()] < 0.02
    assert (expression_strength(POINTS, {}) == 1).all()
    with pytest.raises(ValueError, match="part_factors"):
        Face(0, 8, np.eye(2, 3, dtype=np.float32), torch.ones(3, 8, 8), 1.0,
             part_factors={"mouth": 1.5})  # fmt: skip


def pasted(source: np.ndarray, restored: np.ndarray, parts: dict[str, float]) -> np.ndarray:
    """(SIDE, SIDE, 3) RGB after a face as large as the frame was pasted."""
    rgb24 = np.ascontiguousarray(source[..., ::-1])
    image = av.VideoFrame.from_ndarray(rgb24, "rgb24").reformat(format="gbrp")
    crop = as_crop(source)
    face = Face(0, SIDE, np.eye(2, 3, dtype=np.float32), crop, 1.0, as_crop(restored))
    frame = FaceFrame(Frame(0, 0, image), (replace(face, part_factors=parts),))
    info = info_of(SIDE, SIDE, "gbrp")
    how = Paste(occluders=False, color=0.0, sharpness=0.0, focus=0.0)
    (out,) = paste(iter([frame]), info, RestorationStats(), how, Grain(match=0.0))
    green, blue, red = planes_of(out.image)
    return np.dstack([red, green, blue])


def test_the_kept_mouth_is_the_sources_and_the_rest_the_restored_one(smile):
    true = shown(smile, {"mouth": 1.0})
    source, teeth = worn(true, 4), smile[0]
    whole = pasted(source, teeth, {})
    kept = pasted(source, teeth, {"mouth": 0.0})
    lips = np.rint(smile[1].points[[13, 14, 78, 308, 0, 17], :2]).astype(int)
    at = lips[:, 1], lips[:, 0]
    of_source = np.ascontiguousarray(source[..., ::-1]).astype(int)
    assert np.abs(kept[at] - of_source[at]).max() <= 4
    assert np.abs(whole[at] - of_source[at]).max() > 60
    eyes_apart = int((POINTS[1, 0] - POINTS[0, 0]) * SIDE)
    upper = slice(0, int(POINTS[3:, 1].mean() * SIDE) - eyes_apart // 2)
    np.testing.assert_array_equal(kept[upper], whole[upper])
    # No seam: both pictures show the same face around the mouth, so no new edges appear there.
    clean = pasted(source, true, {})
    edges = [cv2.Laplacian(each.astype(np.float32), cv2.CV_32F) for each in (kept, clean)]
    assert np.abs(edges[0]).max() <= 1.1 * np.abs(edges[1]).max()


class Toothy(Unchanged):
    """Shows teeth in some calls, and else what was there."""

    name = "toothy"

    def __init__(self, teeth: torch.Tensor, calls: range) -> None:
        self._teeth, self._calls, self._count = teeth, calls, 0

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        crops = 0.98 * windows[:, 0] + 0.01
        if self._count in self._calls:
            crops = self._teeth.expand(len(crops), -1, -1, -1).clone()
        self._count += len(crops)
        return crops


@pytest.mark.parametrize("setting", ["1", "off"])
def test_a_job_keeps_the_mouth_of_the_source_and_says_so(shared, smile, tmp_path, capsys, setting):
    side, n = 256, 14
    true, teeth = (
        cv2.resize(each, (side, side), interpolation=cv2.INTER_AREA)
        for each in (worn(shown(smile, {"mouth": 1.0}), 4), smile[0])
    )
    image = av.VideoFrame.from_ndarray(np.ascontiguousarray(true[..., ::-1]), "rgb24")
    tape = write_video(tmp_path / "tape.mkv", [image.reformat(format="yuv444p")] * n)
    track = plain_track(n, centre=(side / 2, side / 2), side=side, work_px=side)
    settings = load_settings(None, [
        "encode.codec=ffv1", "encode.check=false", "deflicker.amount=off", "paste.occluders=false",
        "paste.color=0", "paste.sharpness=0", "grain.match=0", "restore.repeats=false",
        f"weights.folder={shared / 'models'}", "weights.offline=true", "guard.features=off",
        "guard.identity=off", f"guard.expression={setting}",
    ])  # fmt: skip
    summary = restore_video(tape, tmp_path / "out.mkv", settings,
                            restorer=Toothy(as_crop(teeth), range(6, 8)),
                            analysis=analysis_of_file(tape, [track]))  # fmt: skip
    lumas = [planes_of(f.image)[0].astype(int)
             for f in decode(tmp_path / "out.mkv", DecodeErrors())]  # fmt: skip
    (source, *_) = (planes_of(f.image)[0].astype(int) for f in decode(tape, DecodeErrors()))
    x, y = np.rint((smile[1].points[[13, 14], :2].mean(axis=0) + 0.5) / 2 - 0.5).astype(int)
    lips = slice(y - 4, y + 5), slice(x - 12, x + 13)
    apart = [np.abs(luma[lips] - source[lips]).mean() for luma in lumas]
    console.show_summary(summary, tmp_path / "out.mkv")
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    if setting == "off":
        assert max(apart) > 25
        assert summary.likeness == ()
        assert "expression" not in told
        return
    assert max(apart) < 2
    assert summary.likeness[0].expression_frames == 2 + 2 * REACH_FRAMES
    assert summary.likeness[0].reduced_frames == 0
    assert f"person 1 in shot 1: expression kept in {2 + 2 * REACH_FRAMES} faces" in told
    # The eyes are those of the restorer all the same.
    eye = slice(int(POINTS[0, 1] * side) - 6, int(POINTS[0, 1] * side) + 6), slice(80, 110)
    assert np.abs(lumas[6][eye] - source[eye]).mean() > 1

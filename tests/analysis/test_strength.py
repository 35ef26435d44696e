"""How much of a restored face is used."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from helpers.media import info_of
from helpers.motion import raw_track

from vidrestore.analysis.alignment import align
from vidrestore.analysis.strength import turned_degrees, with_strength
from vidrestore.analysis.tracks import Motion
from vidrestore.common.settings import Align
from vidrestore.imaging.geometry import template
from vidrestore.models.face_mesh import SHAPE_POINTS

FACE = template("gpen") * 200 + [120, 60]
# Fades last five frames.
HOW = {"min_face_px": 0.0, "least_support": 0.3, "fade_seconds": 0.2}
FRAMES = 60


def smooth(raw):
    return align([raw], info_of(640, 360), Align(), template_name="gpen", coarse=False)


def weighed(raw, **changes):
    return with_strength(
        smooth(raw), [raw], Align(**(HOW | changes)),
        template_name="gpen", least_score=0.5, frame_rate=Fraction(25),
    )  # fmt: skip


def strength_of(raw, **changes):
    (track,), _ = weighed(raw, **changes)
    return track.strength


def still(**changes):
    return replace(raw_track(np.repeat(FACE[None], FRAMES, axis=0)), **changes)


def turned(degrees):
    """(5, 2) of a head of simple proportions, turned to the side."""
    eyes = 42.0
    x = np.array([-eyes / 2, eyes / 2, 0, -18, 18])
    y = np.array([0, 0, 24, 48, 48])
    forward = np.array([0, 0, 0.6 * eyes, 0.25 * eyes, 0.25 * eyes])
    angle = np.radians(degrees)
    return np.stack([200 + x * np.cos(angle) + forward * np.sin(angle), 100 + y], axis=-1)


def test_a_large_clear_face_is_used_whole():
    assert (strength_of(still()) == 1).all()


def test_strength_fades_only_where_a_track_begins_or_ends_inside_its_shot():
    inside = strength_of(raw_track(np.repeat(FACE[None], 40, axis=0), 10, (0, 50)))
    assert inside[0] == pytest.approx(0.15)
    assert inside[-1] == 1
    assert (np.diff(inside) >= 0).all()


def test_faces_too_small_are_left_out_smoothly_and_counted():
    growing = FACE[None] * np.linspace(0.2, 1.0, FRAMES)[:, None, None]
    raw = raw_track(growing)
    (track,), reasons = weighed(raw, min_face_px=20.0)
    assert track.strength[0] == 0
    assert track.strength[-1] == 1
    assert np.abs(np.diff(track.strength)).max() < 0.1
    assert reasons["too small"] == (track.strength == 0).sum()


def test_a_track_that_is_small_all_the_way_is_no_track():
    assert weighed(still(), min_face_px=60.0) == ([None], {"too small or too doubtful": FRAMES})


@pytest.mark.parametrize("degrees", [0, 20, 45, 60, 75, 90])
def test_the_angle_of_a_turned_head_is_seen_to_within_ten_degrees(degrees):
    for side in (degrees, -degrees):
        raw = raw_track(np.repeat(turned(side)[None], 10, axis=0))
        (track,) = smooth(raw)
        assert np.abs(turned_degrees(track) - degrees).max() < 10


def test_a_head_that_turns_away_is_let_go_smoothly_and_counted():
    angles = np.concatenate([np.zeros(20), np.linspace(0, 95, 30), np.full(20, 95)])
    (track,), reasons = weighed(raw_track(np.stack([turned(a) for a in angles])))
    assert (track.strength[:20] == 1).all()
    assert (track.strength[-10:] == 0).all()
    assert np.abs(np.diff(track.strength)).max() < 0.2
    assert reasons["turned away"] == (track.strength == 0).sum() > 0


def test_weak_scores_use_less_but_never_nothing():
    weak = strength_of(still(score=np.full(FRAMES, 0.55, np.float32)))
    assert 0.3 < weak.min() <= weak.max() < 0.8
    assert (strength_of(still(score=np.full(FRAMES, 0.7, np.float32))) == 1).all()


def hidden(first, end):
    score = np.full(FRAMES, 0.9, np.float32)
    score[first:end] = np.nan
    landmarks = still().landmarks.copy()
    landmarks[first:end] = np.nan
    return {"score": score, "landmarks": landmarks}


def test_a_face_that_is_neither_found_nor_followed_fades_out_and_in():
    strength = strength_of(still(**hidden(20, 40)))
    assert (strength[26:34] == 0).all()
    assert (strength[:15] == 1).all()
    assert (strength[45:] == 1).all()
    assert np.abs(np.diff(strength)).max() < 0.2
    missed_once = strength_of(still(**hidden(30, 31)))
    assert missed_once.min() > 0.9


def test_a_face_that_is_followed_by_its_pixels_is_in_sight():
    still_there = Motion(np.eye(2, 3), 0.9, 40)
    motions = (None, *[still_there] * (FRAMES - 1))
    assert (strength_of(still(motions=motions, **hidden(20, 40))) == 1).all()
    lost = tuple(replace(still_there, support=0.1) if 20 <= i < 40 else m
                 for i, m in enumerate(motions))  # fmt: skip
    assert strength_of(still(motions=lost, **hidden(20, 40))).min() == 0


def test_frames_far_less_sharp_than_the_rest_use_less():
    sharpness = np.full(FRAMES, 0.2, np.float32)
    sharpness[20:40] = 0.05
    blurred = strength_of(still(sharpness=sharpness))
    assert blurred[26:34].max() == pytest.approx(0.4)
    assert (blurred[:15] == 1).all()
    # A face that is soft all the way is what people come for.
    assert (strength_of(still(sharpness=sharpness / 50)) == 1)[:15].all()
    unknown = np.where(np.arange(FRAMES) % 2, np.nan, 0.2).astype(np.float32)
    assert (strength_of(still(sharpness=unknown)) == 1).all()


def with_mesh(raw, yaw_degrees, pitch_degrees=0.0):
    """The track with a mesh of the same angles in every frame."""
    shapes = np.full((len(raw.score), len(SHAPE_POINTS), 2), 0.5, np.float16)
    angles = np.tile(np.float32([yaw_degrees, pitch_degrees]), (len(raw.score), 1))
    return replace(raw, shapes=shapes, angles_degrees=angles)


@pytest.mark.parametrize(
    ("eyes_px", "expected"), [(12.0, 1.0), (13.0, 1.0), (10.5, 0.62), (8.0, 0)]
)
def test_a_clear_frontal_face_is_used_whole_from_twelve_pixels_on(eyes_px, expected):
    scale = eyes_px / np.linalg.norm(FACE[1] - FACE[0])
    raw = raw_track(np.repeat(FACE[None] * scale, FRAMES, axis=0))
    (track,), _ = weighed(raw, min_face_px=12.0)
    if expected == 0:
        assert track is None
    else:
        assert track.strength == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("yaw", "pitch", "expected"),
    [(0, 0, 1), (40, 0, 1), (-40, 0, 1), (50, 0, 0.5), (-50, 0, 0.5), (60, 0, 0), (0, 55, 0.5)],
)
def test_the_mesh_says_how_far_a_head_is_turned(yaw, pitch, expected):
    """Landmarks of a frontal face, as detectors paint them on heads in profile, do not count."""
    raw = with_mesh(still(), yaw, pitch)
    assert strength_of(raw) == pytest.approx(expected, abs=1e-6)
    (track,), _ = weighed(raw)
    assert turned_degrees(track) == pytest.approx(abs(yaw), abs=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_strength_never_jumps(seed):
    random = np.random.default_rng(seed)
    score = np.where(random.random(FRAMES) < 0.3, np.nan, random.uniform(0.4, 1, FRAMES))
    score[[0, -1]] = 0.9
    sharpness = random.uniform(0, 1, FRAMES).astype(np.float32)
    raw = still(score=score.astype(np.float32), sharpness=sharpness)
    raw = with_mesh(raw, 0.0)
    raw.angles_degrees[:, 0] = random.uniform(-90, 90, FRAMES)
    strength = strength_of(raw)
    assert np.abs(np.diff(strength)).max() <= 0.15 + 1e-6
    assert strength.min() >= 0


def test_a_face_behind_another_gets_no_strength():
    """It is not seen for ten frames, in which another face stands where it is expected."""
    hidden = still()
    score = hidden.score.copy()
    score[25:35] = np.nan
    hidden = replace(hidden, score=score)
    front = replace(hidden, score=np.ones(FRAMES, np.float32))
    tracks = align([hidden, front], info_of(640, 360), Align(), template_name="gpen", coarse=False)
    (behind, before), _ = with_strength(
        tracks, [hidden, front], Align(**HOW),
        template_name="gpen", least_score=0.5, frame_rate=Fraction(25),
    )  # fmt: skip
    assert (behind.strength[25:35] == 0).all()
    assert behind.strength[0] == behind.strength[-1] == 1
    assert (before.strength == 1).all()


@pytest.mark.parametrize(
    ("degrees", "has_mesh", "expected"), [(65, False, 0.75), (65, True, None), (25, True, 1.0)]
)
def test_a_turned_face_that_the_mesh_does_not_confirm_is_used_less(degrees, has_mesh, expected):
    raw = raw_track(np.repeat(turned(degrees)[None], FRAMES, axis=0))
    (track,), _ = with_strength(
        smooth(raw), [raw], Align(**HOW), template_name="gpen", least_score=0.5,
        frame_rate=Fraction(25), has_mesh=has_mesh,
    )  # fmt: skip
    if expected is None:
        assert track is None
    else:
        assert track.strength == pytest.approx(expected, abs=0.12)

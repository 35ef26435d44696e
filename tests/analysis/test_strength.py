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

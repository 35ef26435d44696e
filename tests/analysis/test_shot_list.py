"""shots.toml, edit decision lists and stored analyses: given back exactly, or refused by line."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from helpers.media import analysis_of, info_of, plain_track

from vidrestore.analysis import edl, shot_list
from vidrestore.analysis.shot_list import Shot, ShotList
from vidrestore.common.errors import ConfigError

CLOCKS = {
    "film": (np.arange(90) * 1001, Fraction(1, 24000), Fraction(24000, 1001)),
    "pal": (np.arange(90) * 3600 + 48003, Fraction(1, 90000), Fraction(25)),
    "ntsc": (np.arange(90) * 1001 + 500, Fraction(1, 30000), Fraction(30000, 1001)),
    "variable": (
        np.cumsum(np.random.default_rng(3).integers(20, 90, 90)), Fraction(1, 1000), Fraction(22),
    ),
}  # fmt: skip


def asked_for():
    return ShotList(
        (
            Shot(0, 20, (1, 2), ((0, 0.3),)),
            Shot(20, 41, None, ((22, 0.0), (30, 0.75), (40, 1.0)), "gpen-512"),
            Shot(41, 60, (), skip=True),
            Shot(66, 90, (3,), faces=(((66, (1.0, 2.5, 30.0, 40.0)), (80, (3.0, 4.0, 3.5, 9.0))),)),
        ),
        'holi"day\\ ü.mp4',
        "abc123",
        {1: "anna.safetensors", 12: "fusion"},
    )  # fmt: skip


@pytest.mark.parametrize("clock", CLOCKS)
def test_shots_come_back_as_they_were_written(tmp_path, clock):
    pts, time_base, _ = CLOCKS[clock]
    path = tmp_path / "shots.toml"
    shot_list.write(asked_for(), path, pts, time_base)
    assert shot_list.read(path, pts, time_base) == asked_for()
    again = tmp_path / "again.toml"
    shot_list.write(shot_list.read(path, pts, time_base), again, pts, time_base)
    assert again.read_text() == path.read_text()


def test_times_by_hand_mean_the_nearest_frame(tmp_path):
    path = tmp_path / "shots.toml"
    path.write_text('[[shot]]\nstart = "00:01.03"\nend = "0:01:39"\n')
    pts, time_base, _ = CLOCKS["pal"]
    (shot,) = shot_list.read(path, pts, time_base).shots
    assert (shot.start, shot.end) == (26, 90)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('[[shot]]\nstart="0:00:01"\nend="0:00:01"', ("line 1", "end does not lie after")),
        ('# x\n[[shot]]\nstart="0:00:02"\nend="0:00:01"', ("line 2", "end does not lie after")),
        (
            '[[shot]]\nstart="0:00:00"\nend="0:00:02"\n\n[[shot]]\nstart="0:00:01"\nend="0:00:03"',
            ("line 5", "before the shot in line 1 ends"),
        ),
        ('[[shot]]\nstart="0:00:00"', ("line 1", "no end")),
        ('[[shot]]\nstart="1 s"\nend="0:00:02"', ("line 1", "H:MM:SS", "'1 s'")),
        ('[[shot]]\nstart="0:00:00"\nend="0:99:99"', ("line 1", "H:MM:SS", "'0:99:99'")),
        ('[[shot]]\nstart=0:00:00\nend="0:00:02"', ("is not valid TOML",)),
        ('[[shot]]\nstart=00:00:00\nend="0:00:02"', ("line 1", "in quotes")),
        ('[[shot]]\nstart=1\nend="0:00:02"', ("line 1", "in quotes", "not 1")),
        ("video = 3", ("video must be a text",)),
        ('[[shot]]\nstart="0:00:00"\nend="0:00:02"\npeopel=[1]', ("line 1", "did you mean people")),
        ('[[shot]]\nstart="0:00:00"\nend="0:00:02"\npeople=["Ann"]', ("line 1", "people")),
        ('[[shot]]\nstart="0:00:00"\nend="0:00:02"\nstrength=2', ("line 1", "strength", "2")),
        (
            '[[shot]]\nstart="0:00:00"\nend="0:00:02"\nstrength=[["0:00:01",1],["0:00:00",1]]',
            ("line 1", "run forward"),
        ),
        ('[[shot]]\nstart="0:00:00"\nend="0:00:02"\nskip="no"', ("line 1", "skip")),
        ('[[shot]]\nstart="0:00:00"\nend="0:00:02"\nfaces=[[["0:00:01",9,9,1,1]]]', ("empty",)),
        ('[[shot]]\nstart="0:00:00"\nend="0:00:02"\nfaces=[[1]]', ("line 1", "by hand")),
        ("shots = 3", ("did you mean shot?",)),
        ("shot = 3", ("[[shot]]",)),
        ("[[shot", ("is not valid TOML",)),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_shots_file_is_named_by_its_line(tmp_path, text, parts):
    path = tmp_path / "shots.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        shot_list.read(path, *CLOCKS["pal"][:2])
    for part in (str(path), *parts):
        assert part in str(raised.value)


def test_a_list_for_people_says_who_is_in_each_shot():
    tracks = [
        replace(plain_track(20, centre=(9, 9), side=9, first_frame=f, track_id=i), person_id=p)
        for i, (f, p) in enumerate([(0, 1), (30, 2), (30, 1)])
    ]
    analysis = replace(analysis_of(info_of(64, 48), 60, tracks), shots=((0, 25), (25, 60)))
    found = shot_list.of_analysis(analysis, "tape.mp4")
    assert [(s.start, s.end, s.people) for s in found.shots] == [(0, 25, (1,)), (25, 60, (1, 2))]


@pytest.mark.parametrize("clock", CLOCKS)
def test_cuts_come_back_from_an_edit_decision_list(tmp_path, clock):
    pts, time_base, rate = CLOCKS[clock]
    path = tmp_path / "cuts.edl"
    shots = ((0, 20), (20, 41), (41, 66), (66, 90))
    edl.write_cuts(path, shots, pts, time_base, rate, "holiday\n2")
    tolerance = 1 if clock == "variable" else 0
    found = edl.read_cuts(path, pts, time_base, rate)
    assert np.abs(np.array(found) - [0, 20, 41, 66]).max() <= tolerance


LIST = """TITLE: REEL 1
FCM: {fcm}

001  AX       V     C        00:00:00:00 00:00:01:00 {a} {b}
* FROM CLIP NAME: SINGER.MOV
002  BX       V     D    024 00:00:10:00 00:00:12:00 {b} {c}
003  BX       A     C        00:00:10:00 00:00:12:00 01:00:00:09 {c}
"""


@pytest.mark.parametrize(
    ("fcm", "codes", "cuts"),
    [
        ("NON-DROP FRAME", ("01:00:00:00", "01:00:01:05", "01:00:02:20"), (0, 35)),
        ("DROP FRAME", ("00:00:59;20", "00:01:00;02", "00:01:02:20"), (0, 10)),
        ("NON-DROP FRAME", ("00:00:59:20", "00:01:00:02", "00:01:02:20"), (0, 12)),
    ],
)
def test_lists_of_editing_programs_are_understood(tmp_path, fcm, codes, cuts):
    path = tmp_path / "cuts.edl"
    path.write_text(LIST.format(fcm=fcm, a=codes[0], b=codes[1], c=codes[2]))
    assert edl.read_cuts(path, *CLOCKS["ntsc"]) == cuts


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("hello\n", "no video event"),
        (LIST.format(fcm="", a="00:00:00:00", b="00:00:01:30", c="00:00:02:00"), "line 6"),
        (LIST.format(fcm="", a="00:00:00:00", b="00:00:09:00", c="00:00:12:00"), "after the end"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(tmp_path, text, part):
    path = tmp_path / "cuts.edl"
    path.write_text(text)
    with pytest.raises(ConfigError, match=part):
        edl.read_cuts(path, *CLOCKS["ntsc"])

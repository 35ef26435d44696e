"""The verdict of a report: from the samples, with what the error bars allow."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from helpers.media import analysis_of, info_of, plain_track

from vidrestore.analysis.result import Analysis
from vidrestore.restoration.statistics import STRETCH_FRAMES, Likeness, RestorationStats
from vidrestore.review.report.likeness import least_like, measured_likeness
from vidrestore.review.report.outcome import Outcome, outcome
from vidrestore.review.report.samples import Detail, Flicker, Moment, SampleCollector, View

FRAMES = 600


@pytest.fixture
def known() -> Analysis:
    """Two people all along, in thirty shots."""
    tracks = [
        replace(plain_track(20, centre=(8, 8), side=8, first_frame=20 * (i // 2), track_id=i),
                person_id=i % 2 + 1)
        for i in range(60)
    ]  # fmt: skip
    shots = tuple((20 * i, 20 * (i + 1)) for i in range(30))
    return replace(analysis_of(info_of(64, 48), FRAMES, tracks), shots=shots)


def collected(
    flicker: Sequence[Flicker] = (), details: Sequence[Detail] = (), **more: Any
) -> SampleCollector:
    plain = {
        "population": 5000,
        "stretches": (),
        "is_sample": True,
        "least_like": [],
        "worst": lambda aspect: [],
    }
    return cast(SampleCollector, SimpleNamespace(flicker=flicker, details=details, **plain | more))


def flickers(gain: float, noise: float, step: int = 4, seed: int = 0) -> list[Flicker]:
    """Of 2 levels in the source, with the output `gain` times as much, give or take `noise`."""
    random = np.random.default_rng(seed)
    return [
        Flicker(1, frame, 4.0, 4.0 * (gain * np.exp(noise * random.standard_normal())) ** 2)
        for frame in range(0, FRAMES, step)
    ]


def told(known: Analysis, collector: SampleCollector, stats: RestorationStats) -> Outcome:
    found = outcome(known, stats, collector, least_features=0.9)
    assert found is not None
    return found


def test_a_change_beyond_its_error_bar_decides(known: Analysis) -> None:
    for gain, noise, step, word in (
        (0.8, 0.1, 4, "better"), (1.3, 0.1, 4, "worse"), (1.01, 0.05, 4, "same"),
        (0.9, 0.02, 60, "better"), (0.9, 0.3, 60, "same"),
    ):  # fmt: skip
        found = told(known, collected(flickers(gain, noise, step)), RestorationStats())
        (aspect,) = found.aspects
        assert (found.verdict.word, aspect.word) == (word, word), gain
        assert aspect.name == "Flicker"
        assert aspect.figure.startswith("2.00 to ")
        assert aspect.error.startswith("\u00b1 ")
        assert aspect.basis == f"{FRAMES // step} of 5,000 faces"
    assert any("95 of 100" in sentence for sentence in found.explained)
    assert any("spread over people and time" in sentence for sentence in found.explained)


def test_where_little_was_read_the_bar_is_wider_or_not_known(known: Analysis) -> None:
    samples = flickers(0.9, 0.1)
    bars = {}
    for name, read in {"all": (), "two": [(0, 300), (300, 600)], "one": [(0, 300)]}.items():
        here = [one for one in samples if name != "one" or one.frame < 300]
        (aspect,) = told(known, collected(here, stretches=read), RestorationStats()).aspects
        bars[name] = aspect.error
    number = {name: float(bars[name].split()[1]) for name in ("all", "two")}
    assert number["two"] > number["all"]
    assert bars["one"] == "(error not known)"
    whole = told(known, collected(samples, stretches=[(0, FRAMES)]), RestorationStats())
    assert whole.aspects[0].error == bars["all"]


def test_weights_make_a_sample_stand_for_all(known: Analysis) -> None:
    """Half of the samples are of a person who is seldom there."""
    rare = [Flicker(2, frame, 1.0, 9.0, 0.01) for frame in range(0, FRAMES, 10)]
    often = [Flicker(1, frame, 1.0, 1.0, 0.99) for frame in range(5, FRAMES, 10)]
    (aspect,) = told(known, collected([*rare, *often]), RestorationStats()).aspects
    assert aspect.figure == "1.00 to 1.04 levels"


def test_detail_and_likeness_have_their_own_bars(known: Analysis) -> None:
    random, stats = np.random.default_rng(1), RestorationStats()
    details = [Detail(1, frame, 0.5 + 0.1 * random.standard_normal(), 1.0)
               for frame in range(0, FRAMES, 8)]  # fmt: skip
    for track in known.tracks:
        for frame in range(track.first_frame, track.end_frame, 3):
            cosine = 0.8 if track.person_id == 1 else 0.6
            one = Likeness(3, 0, 1, 2.9, 2.9, cosine - 0.1, cosine, 3.0)
            stats.add_likeness(track.track_id, frame, one)
    found = told(known, collected(details=details), stats)
    assert [(each.name, each.word) for each in found.aspects] == [
        ("Fine detail", "worse"), ("Likeness", "same"),
    ]  # fmt: skip
    assert found.verdict.word == "worse"
    assert "Fine detail went from 100 to" in found.verdict.sentence
    detail, likeness = found.aspects
    assert detail.figure.endswith(" % of the source's")
    assert likeness.figure == "0.700"
    assert likeness.basis == "420 of 1,260 faces"
    assert likeness.error == "\u00b1 less than 0.001"
    assert any("tells people apart" in sentence for sentence in found.explained)


def test_without_a_recognizer_features_tell(known: Analysis) -> None:
    stats = RestorationStats()
    for track in known.tracks:
        stats.add_likeness(track.track_id, track.first_frame, Likeness(4, 0, 0, 3.2, 3.2))
    (aspect,) = told(known, collected(), stats).aspects
    assert (aspect.name, aspect.word, aspect.figure) == ("Likeness", "worse", "0.800")
    assert (aspect.basis, aspect.error) == ("all 240 faces", "")  # features are compared in all
    assert outcome(known, stats, collected(), least_features=0.7).verdict.word == "same"
    assert outcome(known, RestorationStats(), collected(), least_features=0.7) is None


def test_the_worst_moments_are_named(known: Analysis) -> None:
    view = View(2, 40, 64, b"a", b"b")
    moments = {"flicker": [Moment(1.0, (0.5, 1.5), view), Moment(0.5, (1.0, 1.5), view)],
               "detail": []}  # fmt: skip
    collector = collected(flickers(1.3, 0.1), worst=moments.get, least_like=[view])
    stats = RestorationStats()
    stats.add_likeness(0, 3, Likeness(4, 0, 0, 3.2, 3.2))
    flicker, likeness = told(known, collector, stats).aspects
    assert [each.name for each in flicker.moments] == ["worst-flicker-1", "worst-flicker-2"]
    assert flicker.moments[0].text == "Flicker rose from 0.50 to 1.50 levels."
    assert [each.name for each in likeness.moments] == ["worst-likeness-1"]


def test_the_least_like_are_found_apart_from_each_other(known: Analysis) -> None:
    """The worst stretch of person 1, then that of person 2; a neighbor of the first is left out."""
    stats = RestorationStats()
    values = {(0, 0): 0.2, (0, 12): 0.3, (30, 300): 0.5, (1, 0): 0.4}
    for track in known.tracks:
        for frame in (track.first_frame, track.first_frame + 12):
            value = values.get((track.track_id, frame), 0.9)
            stats.add_likeness(track.track_id, frame, Likeness(2, 0, 2, 1, 1, 2 * value, 2 * value))
    found = least_like(known, stats, most=3, apart_seconds=2.0)
    assert [known.tracks[place].track_id for _, place in found] == [0, 1, 30]
    assert all(known.tracks[p].first_frame <= at < known.tracks[p].end_frame for at, p in found)
    rows = measured_likeness(known, stats, 2).rows
    assert {known.tracks[row.place].person_id for row in rows} == {2}
    assert all(row.frame // STRETCH_FRAMES * STRETCH_FRAMES <= row.frame for row in rows)
    assert [row.frame for row in rows] == sorted(row.frame for row in rows)

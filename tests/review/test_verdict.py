"""Better, same or worse: each aspect on either side of its threshold, and all together."""

import math

import pytest

from vidrestore.review.face_metrics import Pair
from vidrestore.review.verdict import (
    blind_changes,
    detail_change,
    flicker_change,
    identity_change,
    psnr_change,
    verdict,
)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        (flicker_change(1.2, 2.9), "worse"),
        (flicker_change(2.9, 1.2), "better"),
        (flicker_change(4.0, 4.15), "same"),
        (flicker_change(0.1, 0.19), "same"),
        (detail_change(1.0, 0.6, clean=False), "worse"),
        (detail_change(1.0, 2.0, clean=False), "same"),
        (detail_change(0.6, 0.7, clean=True), "better"),
        (detail_change(0.9, 1.3, clean=True), "worse"),
        (psnr_change(30, 30.5), "better"),
        (psnr_change(30, 29.5), "worse"),
        (psnr_change(math.inf, math.inf), "same"),
        (identity_change(math.nan, 0.3), "worse"),
        (identity_change(math.nan, 0.9), "same"),
        (identity_change(0.5, 0.6), "better"),
        (flicker_change(2.9, 1.2) + psnr_change(30, 29), "worse"),
        (flicker_change(math.nan, 1.0), "not known"),
    ],
)
def test_one_aspect_that_is_worse_decides(changes, word):
    found = verdict(changes)
    assert found.word == word
    assert found.sentence.startswith(f"Verdict: {word}. ")
    assert ("--strength" in found.sentence) == (word == "worse")


def test_the_sentence_says_what_rose_and_what_to_do():
    assert verdict(flicker_change(1.2, 2.9)).sentence == (
        "Verdict: worse. Flicker of the faces rose from 1.2 to 2.9 levels; "
        "use a lower --strength or another restorer."
    )


def test_each_change_is_a_sentence_of_its_own():
    assert verdict([*flicker_change(2.8, 1.6), *psnr_change(29.4, 30.6)]).sentence == (
        "Verdict: better. Flicker of the faces fell from 2.8 to 1.6 levels. "
        "Likeness to the clean video went from 29.4 to 30.6 dB."
    )


def test_without_a_clean_video_features_stand_for_the_person():
    found = blind_changes(
        flicker=Pair(1.0, 2.0, 0.5), detail=Pair(0.5, error=0.6), features=Pair(0.8),
        least_features=0.9,
    )  # fmt: skip
    assert {name: change.word for name, change in found.items()} == {
        "flicker": "better", "detail": "same", "likeness": "worse",
    }  # fmt: skip
    known = blind_changes(identity=Pair(0.3, error=0.2), features=Pair(0.8), least_features=0.9)
    assert [change.word for change in known.values()] == ["same"]
    assert blind_changes(flicker=Pair(math.nan), least_features=0.9) == {}

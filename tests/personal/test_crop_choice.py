"""The choice of crops: clear ones of one person, that differ, and a fifth set apart."""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from vidrestore.common.errors import UsageError
from vidrestore.personal.crop_choice import FEWEST_CROPS, Candidate, choose_crops
from vidrestore.personal.same_picture import thumbnail_of

SIZE = 512
ANNA, BERT = np.eye(8, dtype=np.float32)[:2]


def candidate(**changes: Any) -> Candidate:
    usual = Candidate(
        source=0, seconds=0.0, side_px=400.0, edges_px=1.0, turned_degrees=0.0, embedding=ANNA
    )
    return replace(usual, **changes)


def shot(count: int, *, every: float = 0.04, source: int = 0, **changes: Any) -> list[Candidate]:
    """Return the crops of one shot of a video."""
    return [candidate(source=source, seconds=i * every, **changes) for i in range(count)]


def photos(count: int) -> list[Candidate]:
    return [candidate(source=100 + i) for i in range(count)]


@pytest.mark.parametrize(
    "candidates",
    [
        shot(200),  # one long shot
        photos(40),
        [*shot(60), *shot(60, source=1), *photos(5)],
        [each for start in range(20) for each in shot(5, source=start)],
    ],
)
def test_a_fifth_is_set_apart_by_a_second(candidates: list[Candidate]) -> None:
    choice = choose_crops(candidates, SIZE, most=1000)
    total = len(choice.learned) + len(choice.apart)
    assert len(choice.apart) / total == pytest.approx(0.2, abs=0.06)
    assert not set(choice.learned) & set(choice.apart)
    for a in choice.apart:
        for b in choice.learned:
            same_source = candidates[a].source == candidates[b].source
            apart_seconds = abs(candidates[a].seconds - candidates[b].seconds)
            assert not same_source or apart_seconds >= 1.0
    assert choice.unclear == choice.others == 0


@pytest.mark.parametrize(
    "change",
    [{"side_px": 200.0}, {"edges_px": None}, {"edges_px": 4.0}, {"turned_degrees": -70.0}],
)
def test_unclear_crops_are_left_out(change: dict[str, Any]) -> None:
    candidates = [*photos(30), *(candidate(source=i, **change) for i in range(10))]
    choice = choose_crops(candidates, SIZE, most=100)
    assert max(*choice.learned, *choice.apart) < 30
    assert choice.unclear == 10
    with pytest.raises(
        UsageError, match=r"0 crops of 10 can be learned from .* \(10 are too small"
    ):
        choose_crops(candidates[30:], SIZE, most=100)


def test_few_strangers_are_left_out_and_many_refused() -> None:
    few = [*photos(40), candidate(embedding=BERT)]
    choice = choose_crops(few, SIZE, most=100)
    assert choice.others == 1
    assert 40 not in (*choice.learned, *choice.apart)
    many = [*photos(40), *(candidate(source=i, embedding=BERT) for i in range(20))]
    with pytest.raises(UsageError, match="20 of 60 differ from the others; choose one person"):
        choose_crops(many, SIZE, most=100)


@pytest.mark.parametrize("count", [0, 1, FEWEST_CROPS - 1])
def test_too_few_are_refused(count: int) -> None:
    with pytest.raises(UsageError, match=f"at least {FEWEST_CROPS} are needed"):
        choose_crops(photos(count), SIZE, most=100)
    choose_crops(photos(FEWEST_CROPS), SIZE, most=100)


def test_a_short_shot_cannot_be_parted() -> None:
    with pytest.raises(UsageError, match="in stretches that are a second apart"):
        choose_crops(shot(20), SIZE, most=100)


def test_the_chosen_ones_are_sharp_and_differ() -> None:
    random = np.random.default_rng(0)
    alike = [
        candidate(source=i % 10, seconds=100.0 * i, edges_px=2.0, expression=np.zeros(2))
        for i in range(300)
    ]
    smiles = [
        candidate(source=20 + i, expression=np.float32([3.0, 0.0]), turned_degrees=float(10 * i))
        for i in range(5)
    ]
    candidates = [*alike, *smiles]
    order = random.permutation(len(candidates))
    choice = choose_crops([candidates[i] for i in order], SIZE, most=40)
    assert len(choice.learned) == 32
    assert len(choice.apart) == 8
    chosen = {int(order[i]) for i in (*choice.learned, *choice.apart)}
    assert sum(i >= 300 for i in chosen) >= 4


def test_a_picture_is_not_on_both_sides_in_two_sources() -> None:
    """A video and all its frames as photographs: a photograph has the place of its frame."""
    random = np.random.default_rng(0)
    pictures = [
        thumbnail_of(cv2.GaussianBlur(random.random((48, 48, 3), np.float32), (0, 0), 2.0))
        for _ in range(60)
    ]
    video = [candidate(seconds=0.2 * i, thumbnail=each) for i, each in enumerate(pictures)]
    album = [candidate(source=1 + i, thumbnail=each) for i, each in enumerate(pictures)]
    candidates = [*album[::-1], *video, *[candidate(source=100 + i) for i in range(5)]]
    choice = choose_crops(candidates, SIZE, most=1000)
    assert len(choice.apart) > 10
    shown = {i: 59 - i if i < 60 else i - 60 for i in range(120)}
    apart = {shown[i] for i in choice.apart if i in shown}
    learned = {shown[i] for i in choice.learned if i in shown}
    assert not apart & learned

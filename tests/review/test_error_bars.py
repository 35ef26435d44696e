"""Error bars: as wide as results differ from video to video."""

import math

import numpy as np
import pytest

from vidrestore.review.error_bars import error_of_change, error_of_mean, parts_of


def test_parts_end_at_cuts_and_long_shots_are_divided():
    frames = np.arange(100)
    shots = [(0, 10), (10, 13), (13, 100)]
    parts = parts_of(frames[::-1], shots)[::-1]
    assert np.unique(parts[:10]).size == 2
    assert np.unique(parts[10:13]).size == 1
    assert set(parts[:10]) & set(parts[10:]) == set()
    assert np.bincount(parts).max() == 5
    assert len(parts_of([], shots)) == 0


def tape(random: np.random.Generator, count: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Mean squares of source and output; neighbors are alike, and both rise and fall together."""
    level = np.repeat(np.exp(random.normal(0, 0.5, count // 20)), 20)
    return (
        level * np.exp(random.normal(0, 0.2, count)),
        0.8 * level * np.exp(random.normal(0, 0.2, count)),
    )


def test_the_error_bar_of_a_change_holds_the_true_change():
    """Of 400 videos of one kind, the change is within the bar in about 95 of 100, and not more."""
    random = np.random.default_rng(0)
    source, output = tape(random, 2_000_000)
    truth = math.sqrt(output.mean()) - math.sqrt(source.mean())
    weights, shots = np.ones(600), [(20 * i, 20 * (i + 1)) for i in range(30)]
    parts = parts_of(np.arange(600), shots)
    held, bars = 0, []
    for _ in range(400):
        source, output = tape(random)
        found = math.sqrt(output.mean()) - math.sqrt(source.mean())
        bars.append(error_of_change(source, output, weights, parts))
        held += abs(found - truth) <= bars[-1]
    assert 0.88 < held / 400 < 0.99
    # Each root alone is known far less exactly than the change.
    alone = error_of_mean(np.sqrt(source), weights, parts)
    assert np.mean(bars) < 0.6 * alone


def test_weights_count_and_one_part_tells_nothing():
    values, parts = np.array([1.0, 1.0, 3.0, 3.0]), np.array([0, 1, 2, 3])
    even = error_of_mean(values, np.ones(4), parts)
    assert even == pytest.approx(2 * math.sqrt(4 / 3 * 4 * (1 / 4) ** 2))
    assert error_of_mean(values, np.array([1.0, 1, 0, 0]), parts) == 0
    assert error_of_mean(5 * values, 7 * np.ones(4), parts) == pytest.approx(5 * even)
    assert math.isnan(error_of_mean(values, np.ones(4), np.zeros(4, int)))
    assert math.isnan(error_of_change(values, values, np.ones(4), np.zeros(4, int)))
    assert error_of_change(values, values, np.ones(4), parts) == 0

"""Error bars: as wide as results differ from video to video."""

import math
from itertools import pairwise

import numpy as np
import pytest

from vidrestore.review.error_bars import (
    error_of_change,
    error_of_mean,
    error_text,
    measured_shares,
    parts_of,
)
from vidrestore.review.report.sampling import chosen_sample


def test_parts_end_at_cuts_and_long_shots_are_divided():
    frames = np.arange(100)
    shots = [(0, 10), (10, 13), (13, 100)]
    parts = parts_of(frames[::-1], shots)[::-1]
    assert np.unique(parts[:10]).size == 2
    assert np.unique(parts[10:13]).size == 1
    assert set(parts[:10]) & set(parts[10:]) == set()
    assert np.bincount(parts).max() == 5
    assert len(parts_of([], shots)) == 0
    read = parts_of([5, 40, 41, 90], shots, stretches=[(4, 14), (40, 50), (88, 98)])
    assert read.tolist() == [1, 2, 2, 3]


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
    assert even == pytest.approx(3.182 * math.sqrt(4 / 3 * 4 * (1 / 4) ** 2), rel=1e-3)
    assert error_of_mean(values, np.array([1.0, 1, 0, 0]), parts) == 0
    assert error_of_mean(5 * values, 7 * np.ones(4), parts) == pytest.approx(5 * even)
    assert math.isnan(error_of_mean(values, np.ones(4), np.zeros(4, int)))
    assert math.isnan(error_of_change(values, values, np.ones(4), np.zeros(4, int)))
    assert error_of_change(values, values, np.ones(4), parts) == 0


def film(random: np.random.Generator, faces: int) -> tuple[np.ndarray, np.ndarray, list]:
    """Shots of any length, each with a flicker of its own that drifts, as source and output."""
    lengths = random.integers(20, 200, faces // 20)
    edges = np.append(0, np.cumsum(lengths))
    edges = np.append(edges[edges < faces - 20], faces)
    shot = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
    drift = np.cumsum(random.normal(0, 0.05, faces))
    drift -= np.interp(np.arange(faces), np.arange(faces)[::50], drift[::50])
    own = random.normal(0, 0.5, len(edges) - 1)
    level = np.exp(own[shot] + drift)
    gain = np.exp(random.normal(-0.3, 0.2, len(edges) - 1))[shot]
    noise = np.exp(random.normal(0, 0.3, (2, faces)))
    return level * noise[0], gain * level * noise[1], list(pairwise(edges))


@pytest.mark.parametrize(("faces", "most"), [(400, 300), (1500, 300), (9000, 300), (9000, 75)])
def test_the_value_of_all_faces_lies_within_the_bar_of_a_sample(faces, most):
    """In 9 of 10 films or more; and the bar of 300 faces is smaller the more of all they are."""
    random, held, bars = np.random.default_rng(3), [], []
    for _ in range(150):
        source, output, shots = film(random, faces)
        places = np.stack([np.arange(faces), np.zeros(faces, int)], axis=1)
        sample = chosen_sample(places, [1], most=most)
        frames = sample.places[:, 0]
        parts, measured = parts_of(frames, shots), measured_shares(sample.weights, faces)
        found = (source[frames], output[frames], sample.weights, parts)
        bar = error_of_change(*found, measured)
        at = [math.sqrt(np.average(each, weights=sample.weights)) for each in found[:2]]
        truth = math.sqrt(output.mean()) - math.sqrt(source.mean())
        held.append(abs(at[1] - at[0] - truth) <= bar)
        bars.append(bar / error_of_change(*found))
    assert np.mean(held) >= 0.9
    assert np.mean(bars) == pytest.approx(math.sqrt(1 - most / faces), rel=0.01)


@pytest.mark.parametrize("count", [3, 12])
def test_the_value_of_all_faces_lies_within_the_bar_of_some_stretches(count):
    """Faces of one stretch are alike, so the stretches are the parts, of which there are few."""
    random, held = np.random.default_rng(4), []
    for _ in range(150):
        source, output, shots = film(random, 9000)
        stretches = [(a, a + 24) for a in np.linspace(1, 8900, count).astype(int)]
        frames = np.concatenate([np.arange(*each) for each in stretches])
        parts, weights = parts_of(frames, shots, stretches=stretches), np.ones(len(frames))
        measured = measured_shares(weights, 9000)
        bar = error_of_change(source[frames], output[frames], weights, parts, measured)
        found = math.sqrt(output[frames].mean()) - math.sqrt(source[frames].mean())
        held.append(abs(found - math.sqrt(output.mean()) + math.sqrt(source.mean())) <= bar)
    assert np.mean(held) >= 0.9


def test_there_is_no_bar_where_every_face_was_measured():
    values, parts = np.array([1.0, 2.0, 4.0]), np.array([0, 1, 2])
    even = np.ones(3)
    assert error_of_mean(values, even, parts, measured_shares(even, 3)) == 0
    assert error_of_change(values, even, even, np.zeros(3, int), measured_shares(even, 3)) == 0
    # Of one person, all faces were measured; of the other, one of four.
    weights = np.array([1.0, 1.0, 4.0])
    np.testing.assert_allclose(measured_shares(weights, 6), [1, 1, 0.25])
    bars = (0.0, 0.26, 0.004, math.nan)
    assert [error_text(each, ".2f", " levels") for each in bars] == [
        "", " \u00b1 0.26 levels", " \u00b1 less than 0.01 levels", " (error not known)",
    ]  # fmt: skip

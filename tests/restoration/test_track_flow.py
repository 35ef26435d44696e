"""Flow from frame to frame, and its chains."""

import cv2
import numpy as np
import pytest

from vidrestore.imaging.optical_flow import DenseFlow, inverse, sample
from vidrestore.restoration.track_flow import TrackFlow

SIDE, FRAMES = 64, 5


def picture(shift_px: float, seed: int = 0) -> np.ndarray:
    """A smooth picture, moved to the right."""
    noise = np.random.default_rng(seed).standard_normal((SIDE, 2 * SIDE), np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    levels = np.clip(128 + 50 * smooth / smooth.std(), 0, 255)
    place = np.array([[1.0, 0, SIDE / 2 - shift_px], [0, 1, 0]])
    moved = cv2.warpAffine(
        levels, place, (SIDE, SIDE), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    )
    return np.rint(np.clip(moved, 0, 255)).astype(np.uint8)


def moving(step_px: float, frames=range(FRAMES), seeds=()) -> TrackFlow:
    """A track that moves evenly; frames with a seed show something else."""
    flow = TrackFlow()
    for at in frames:
        flow.add(at, picture(step_px * at, dict(seeds).get(at, 0)))
    return flow


def middle(flow: np.ndarray) -> np.ndarray:
    return np.median(flow[16:-16, 16:-16], axis=(0, 1))


@pytest.fixture
def estimates(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One item for each estimate."""
    made: list[None] = []
    usual = DenseFlow.__call__

    def counted(self: DenseFlow, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        made.append(None)
        return usual(self, first, second)

    monkeypatch.setattr(DenseFlow, "__call__", counted)
    return made


@pytest.mark.parametrize("to", [1, 2, 3])
def test_flow_leads_to_the_same_point(to):
    np.testing.assert_allclose(middle(moving(0.7).between(0, to)), [0.7 * to, 0], atol=0.1)
    np.testing.assert_allclose(middle(moving(0.7).between(3, 3 - to)), [-0.7 * to, 0], atol=0.1)


def test_flow_over_three_frames_needs_no_estimate_of_its_own(estimates):
    flow = moving(0.7)
    near = [(a, b) for a in range(FRAMES) for b in range(FRAMES) if 1 <= abs(a - b) <= 2]
    for pair in near:
        flow.between(*pair)
    assert len(estimates) == len(near)
    flow.between(0, 3)
    flow.between(4, 1)
    assert len(estimates) == len(near)


def test_flow_is_estimated_where_a_frame_on_the_way_shows_something_else(estimates):
    chained, own = moving(0.7, seeds=[(1, 1)]), DenseFlow(finest_halvings=0)
    expected = own(picture(0), picture(3 * 0.7))
    np.testing.assert_array_equal(chained.between(0, 3), expected)


def test_flow_is_estimated_where_a_frame_on_the_way_is_missing():
    flow, own = moving(0.7, frames=(0, 1, 3)), DenseFlow(finest_halvings=0)
    np.testing.assert_array_equal(flow.between(0, 3), own(picture(0), picture(3 * 0.7)))


@pytest.mark.parametrize("first", [0, 1])
def test_flow_depends_on_the_frames_of_its_way_alone(first):
    whole, part = moving(0.7), moving(0.7, frames=range(first, first + 4))
    whole.between(4, 0)
    np.testing.assert_array_equal(whole.between(first + 3, first), part.between(first + 3, first))


def test_what_is_forgotten_takes_its_flows_along():
    flow = moving(0.7)
    flow.between(0, 3)
    flow.forget(1)
    with pytest.raises(KeyError):
        flow.between(1, 2)
    assert flow.between(2, 3).shape == (SIDE, SIDE, 2)


def test_flow_back_is_the_inverse_where_other_pictures_tell_what_is_reliable(estimates):
    other = moving(0.7)
    flow = TrackFlow(like=other)
    for at in range(FRAMES):
        flow.add(at, picture(1.1 * at, seed=3))
    there, back = flow.between(1, 2), flow.between(2, 1)
    assert len(estimates) == 1
    inner = (back + sample(there, back))[8:-8, 8:-8]
    assert np.abs(inner).max() < 0.05
    np.testing.assert_allclose(middle(back), [-1.1, 0], atol=0.1)


def test_flow_back_follows_the_pictures_where_the_inverse_does_not():
    """The second picture holds something that the first one has elsewhere, moved the other way."""
    flow, own = TrackFlow(like=moving(0.7)), DenseFlow(finest_halvings=0)
    first, second = picture(0, seed=3), picture(1.5, seed=3)
    second[24:40, 24:40] = picture(0.5, seed=3)[24:40, 24:40]
    flow.add(1, first)
    flow.add(2, second)
    wanted = own(second, first)
    alone = inverse(flow.between(1, 2))
    apart = [np.abs(each - wanted)[8:-8, 8:-8].mean() for each in (flow.between(2, 1), alone)]
    assert apart[0] < 0.6 * apart[1]


@pytest.mark.parametrize("off_px", [-0.5, 0.3])
def test_a_flow_that_is_nearly_right_becomes_right(off_px):
    start = np.full((SIDE, SIDE, 2), (1.2 + off_px, off_px), np.float32)
    kept = start.copy()
    refined = DenseFlow(finest_halvings=0).refined(picture(0), picture(1.2), start)
    np.testing.assert_allclose(middle(refined), [1.2, 0], atol=0.05)
    np.testing.assert_array_equal(start, kept)


@pytest.mark.parametrize("are_others_reliable", [True, False])
def test_chains_of_flow_are_taken_where_other_pictures_allow_it(are_others_reliable):
    flow = TrackFlow(like=moving(0.7, seeds=[] if are_others_reliable else [(1, 1)]))
    for at in range(FRAMES):
        flow.add(at, picture(1.1 * at, seed=3))
    own = DenseFlow(finest_halvings=0)(picture(0, seed=3), picture(3.3, seed=3))
    assert np.array_equal(flow.between(0, 3), own) != are_others_reliable


def test_pictures_without_detail_are_compared_at_half_the_side():
    flow, own = TrackFlow(), DenseFlow(finest_halvings=0)
    for at in (0, 1):
        flow.add(at, picture(at), is_fine=at == 0)
    small = [cv2.resize(picture(at), (32, 32), interpolation=cv2.INTER_AREA) for at in (0, 1)]
    expected = 2 * cv2.resize(own(*small), (SIDE, SIDE))
    np.testing.assert_allclose(flow.between(0, 1), expected, atol=1e-5)


def test_the_preset_estimates_flow_at_a_quarter_of_the_side():
    pictures = [cv2.resize(picture(2 * at), (256, 256)) for at in (0, 1)]
    quarters = [cv2.resize(cv2.resize(each, (128, 128), interpolation=cv2.INTER_AREA), (64, 64),
                           interpolation=cv2.INTER_AREA) for each in pictures]  # fmt: skip
    usual, quarter = DenseFlow()(*pictures), DenseFlow(finest_halvings=0)(*quarters)
    np.testing.assert_allclose(4 * cv2.resize(quarter, (256, 256)), usual, atol=0.3)

"""Each measure on stacks that are made to have a known value, or a known order."""

import math
import warnings

import cv2
import numpy as np
import pytest
from skimage import data

from vidrestore.imaging.optical_flow import DenseFlow
from vidrestore.review import metrics as m

SIDE = 128
FRAMES = 9
FACE = (223.0, 118.0)


@pytest.fixture(scope="module")
def mask():
    y, x = np.mgrid[:SIDE, :SIDE]
    return (np.hypot((x - 63.5) / 42, (y - 63.5) / 52) <= 1).astype(np.float32)


def view(x_px, y_px, scale=1.0):
    """The portrait's face, moved by so many crop pixels and enlarged about its middle."""
    k = 0.7 / scale
    matrix = np.array([[k, 0, FACE[0] - k * (63.5 + x_px)], [0, k, FACE[1] - k * (63.5 + y_px)]])
    how = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(
        data.astronaut().astype(np.float32) / 255, matrix, (SIDE, SIDE), flags=how
    )
    return np.clip(crop, 0, 1)


@pytest.fixture(scope="module")
def truth():
    return np.stack([view(1.5 * np.sin(i / 2), 1.2 * np.cos(i / 3)) for i in range(FRAMES)])


@pytest.fixture(scope="module")
def flows(truth):
    return m.flows_between(truth, DenseFlow(), blur_px=0)


def still(count=FRAMES):
    return np.repeat(view(0, 0)[None], count, axis=0)


def no_motion(count=FRAMES):
    zero = np.zeros((count - 1, SIDE, SIDE, 2), np.float32)
    return m.Flows(zero, zero)


def shift(x_px, y_px=0.0):
    """A similarity flow field that moves everything by the same."""
    return np.broadcast_to(np.array([x_px, y_px], np.float32), (SIDE, SIDE, 2)).copy()


def noise(seed, sigma_levels, shape):
    return np.random.default_rng(seed).normal(0, sigma_levels / 255, shape).astype(np.float32)


def blurred(stack, sigma):
    return np.stack([cv2.GaussianBlur(picture, (0, 0), sigma) for picture in stack])


def test_psnr_counts_only_what_lies_under_the_mask(truth, mask):
    off = truth + np.float32(0.1) * mask[..., None] + np.float32(0.7) * (1 - mask)[..., None]
    assert m.psnr_db(off, truth, mask) == pytest.approx(20, abs=1e-3)
    assert np.isposinf(m.psnr_db(truth, truth, mask)).all()
    assert np.isnan(m.psnr_db(off, truth, 0 * mask)).all()


def test_a_mask_of_each_frame_is_that_frame_s(truth, mask):
    masks = np.stack([mask] * FRAMES)
    masks[3] = 0
    values = m.psnr_db(truth + np.float32(0.01), truth, masks)
    assert np.isnan(values).tolist() == [i == 3 for i in range(FRAMES)]
    assert m.mean(values) == pytest.approx(40, abs=1e-2)


def test_ssim_is_one_of_the_same_and_falls_with_blur(truth, mask):
    assert m.ssim(truth, truth, mask) == pytest.approx(1)
    slight, heavy = (m.mean(m.ssim(blurred(truth, s), truth, mask)) for s in (1, 3))
    assert 0.5 < heavy < slight - 0.05 < 0.95


def test_worst_gain_is_that_of_the_one_frame_with_a_ghost(truth, mask):
    other = truth + np.float32(0.1)
    output = truth + np.float32(0.05)
    assert m.worst_gain_db(output, other, truth, mask) == pytest.approx(6.02, abs=0.02)
    output[5] += np.float32(0.15)
    assert m.worst_gain_db(output, other, truth, mask) == pytest.approx(-6.02, abs=0.02)
    assert m.worst_gain_db(truth, truth, truth, mask) == 0


@pytest.mark.parametrize("sigma", [2.0, 6.0])
def test_flicker_is_the_deviation_of_noise_that_is_new_in_every_frame(sigma, mask):
    clean = still(20)
    output = clean + noise(1, sigma, clean.shape)
    assert m.rms(m.flicker(output, clean, no_motion(20), mask)) == pytest.approx(sigma, rel=0.02)


def test_an_error_that_stays_on_the_face_does_not_flicker(mask):
    clean = still()
    stays = clean + noise(1, 6, clean[:1].shape)
    assert m.rms(m.flicker(stays, clean, no_motion(), mask)) < 1e-3
    pan = np.stack([view(3 * i - 12, 0) for i in range(FRAMES)])
    flows = m.flows_between(pan, DenseFlow(), blur_px=0)
    weak = np.float32(0.9)  # an error that lies on the face wherever that moves
    slides = pan + (weak - 1) * pan[4]
    steady, sliding = (m.rms(m.flicker(o, pan, flows, mask)) for o in (weak * pan, slides))
    assert steady < 0.3 * sliding


def test_slow_flicker_sees_light_that_changes_and_hardly_noise(mask):
    clean = still(20)
    light = clean + noise(2, 3, (20, 1, 1, 1))
    grain = clean + noise(3, 3, clean.shape)
    none = no_motion(20)
    fine, coarse = (m.rms(m.flicker(o, clean, none, mask)) for o in (grain, light))
    assert fine == pytest.approx(3, rel=0.05)
    assert m.rms(m.slow_flicker(light, clean, none, mask)) == pytest.approx(coarse, rel=1e-3)
    assert m.rms(m.slow_flicker(grain, clean, none, mask)) < 0.15 * fine


def test_blind_flicker_orders_as_the_noise_does(truth, mask):
    source = truth + noise(4, 6, truth.shape)
    flows = m.flows_between(source, DenseFlow(), blur_px=1.5)
    less = truth + noise(5, 2, truth.shape)
    values = [m.rms(m.blind_flicker(o, source, flows, mask)) for o in (truth, less, source)]
    assert values == sorted(values)
    assert values[2] > 2 * values[1]


def test_blind_flicker_leaves_out_what_no_flow_explains(mask):
    source = still()
    source[4] = 1 - source[4]
    flows = m.flows_between(source, DenseFlow(), blur_px=1.5)
    around = m.blind_flicker(source, source, flows, mask)
    assert m.rms(around) < 10  # of the 100 levels and more that it changes by


def test_true_detail_is_the_share_of_detail_and_not_that_of_noise(truth, mask):
    assert m.ratio(m.true_detail(truth, truth, mask)) == pytest.approx(1)
    low = blurred(truth, 4)
    halved = low + np.float32(0.5) * (truth - low)
    share = m.ratio(m.true_detail(halved, truth, mask))
    assert share == pytest.approx(0.5, abs=0.03)
    noisy = halved + noise(6, 8, truth.shape)
    assert m.ratio(m.true_detail(noisy, truth, mask)) == pytest.approx(share, abs=0.01)
    assert m.mean(m.sharpness(noisy, halved, mask)) > 1.3
    assert math.isnan(m.ratio(m.true_detail(truth, 0 * truth, mask)))


def test_warp_error_is_the_squared_step_and_zero_on_a_still_scene(mask):
    clean = still()
    assert (m.warp_error(clean, no_motion(), mask) == 0).all()
    steps = clean + np.float32(0.03) * (np.arange(FRAMES) % 2)[:, None, None, None]
    values = m.warp_error(steps.astype(np.float32), no_motion(), mask)
    assert values == pytest.approx(1000 * 0.03**2, rel=1e-3)


def test_warp_error_follows_the_motion(truth, flows, mask):
    along = m.mean(m.warp_error(truth, flows, mask))
    across = m.mean(m.warp_error(truth, no_motion(), mask))
    assert along < 0.1 * across


def test_warp_error_leaves_out_what_is_hidden(mask):
    """Where the way back does not lead to where the way there began."""
    clean = still(2)
    clean[1, 40:60, 40:60] = 0
    forward, backward = shift(0)[None], shift(0)[None].copy()
    assert m.warp_error(clean, m.Flows(forward, backward), mask)[0] > 1
    backward[0, 40:60, 40:60] = 5
    assert m.warp_error(clean, m.Flows(forward, backward), mask)[0] == 0


def test_motion_error_is_how_far_the_motions_are_apart(truth, mask):
    assert (m.motion_error_px(truth, truth, mask) == 0).all()
    clean = still(4)
    moving = np.stack([view(i, 0) for i in range(4)])
    far = m.mean(m.motion_error_px(moving, clean, mask))
    assert far == pytest.approx(512 / SIDE, rel=0.1)  # one of its pixels in every frame


def test_blinks_are_scored_in_their_frames_alone(truth):
    which = np.zeros(FRAMES, np.bool_)
    which[[2, 4]] = True
    output = truth.copy()
    output[which] += np.float32(0.1)
    region = np.ones((SIDE, SIDE), np.float32)
    assert m.blink_psnr_db(output, truth, which, region) == pytest.approx(20, abs=1e-3)
    assert math.isnan(m.blink_psnr_db(output, truth, ~which & which, region))


def test_sharpness_is_the_ratio_of_detail(truth, mask):
    assert m.sharpness(truth, truth, mask) == pytest.approx(1)
    low = blurred(truth, 4)
    assert m.mean(m.sharpness(low + 2 * (truth - low), truth, mask)) == pytest.approx(2, rel=0.05)
    assert m.mean(m.sharpness(low, truth, mask)) < 0.4
    assert np.isnan(m.sharpness(truth, np.ones_like(truth), mask)).all()


def test_wobble_is_the_deviation_of_a_bend_that_is_new_in_every_frame(mask):
    bends = np.random.default_rng(8).normal(0, 0.3, (60, 1, 1, 2)).astype(np.float32)
    field = np.broadcast_to(bends, (60, SIDE, SIDE, 2))
    drift = np.broadcast_to(np.float32(0.7), field.shape)
    source = m.Flows(drift, -drift)
    value = m.rms(m.wobble_px(m.Flows(drift + field, -drift), source, mask))
    assert value == pytest.approx(0.3 * math.sqrt(2) * 512 / SIDE, rel=0.1)
    assert m.rms(m.wobble_px(source, m.Flows(0 * drift, 0 * drift), mask)) == 0


def test_jitter_is_that_of_the_face_as_a_whole(mask):
    steps = [0.5, -0.5, 0.5, -0.5, 0.5]
    fields = np.stack([shift(step) for step in steps])
    value = m.rms(m.jitter_px(m.Flows(fields, -fields), mask))
    assert value == pytest.approx(1.0 * 512 / SIDE, rel=1e-3)
    even = np.stack([shift(0.8)] * 5)
    assert m.rms(m.jitter_px(m.Flows(even, -even), mask)) == pytest.approx(0, abs=1e-6)
    opens = np.array([4, 0, -4, 4, 0], np.float32)[:, None, None, None]
    mouth = even.copy()
    mouth[:, 80:100, 50:78] += opens  # on its own, and so not the face's
    assert m.rms(m.jitter_px(m.Flows(mouth, -mouth), mask)) < 0.1


def test_a_trembling_crop_has_more_jitter_than_a_steady_one(mask):
    random = np.random.default_rng(9)
    trembling = np.stack([view(*random.normal(0, 0.7, 2)) for _ in range(FRAMES)])
    steady = np.stack([view(0.3 * i, 0.2 * i, 1 + 0.004 * i) for i in range(FRAMES)])
    flow = DenseFlow()
    a, b = (m.flows_between(s, flow, blur_px=0) for s in (trembling, steady))
    assert m.rms(m.jitter_px(a, mask)) > 5 * m.rms(m.jitter_px(b, mask))


def test_lengths_do_not_depend_on_the_size_of_the_crop(mask):
    big_mask = cv2.resize(mask, (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_NEAREST)
    fields = np.stack([shift(step) for step in (0.5, -0.5, 0.4, 0.1)])
    twice = 2 * np.repeat(np.repeat(fields, 2, axis=1), 2, axis=2)
    for measure in (
        m.jitter_px,
        lambda f, k: m.wobble_px(f, m.Flows(0 * f.forward, 0 * f.forward), k),
    ):
        small = m.rms(measure(m.Flows(fields, -fields), mask))
        large = m.rms(measure(m.Flows(twice, -twice), big_mask))
        assert large == pytest.approx(small, rel=1e-4)
        assert small > 0.5


def test_a_still_scene_restored_alike_scores_nothing(mask):
    clean = still()
    flows = m.flows_between(clean, DenseFlow(), blur_px=0)
    own = m.flows_between(clean, DenseFlow(), blur_px=1.5)
    found = [
        m.flicker(clean, clean, flows, mask),
        m.slow_flicker(clean, clean, flows, mask),
        m.blind_flicker(clean, clean, own, mask),
        m.warp_error(clean, flows, mask),
        m.motion_error_px(clean, clean, mask),
        m.wobble_px(own, own, mask),
        m.jitter_px(own, mask),
    ]
    assert [m.mean(values) for values in found] == pytest.approx([0] * 7, abs=1e-4)


def test_one_frame_has_no_motion_and_says_so(mask):
    one = still(1)
    flows = m.flows_between(one, DenseFlow(), blur_px=0)
    assert len(flows) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = [
            m.rms(m.flicker(one, one, flows, mask)),
            m.rms(m.slow_flicker(one, one, flows, mask)),
            m.rms(m.blind_flicker(one, one, flows, mask)),
            m.mean(m.warp_error(one, flows, mask)),
            m.mean(m.motion_error_px(one, one, mask)),
            m.rms(m.wobble_px(flows, flows, mask)),
            m.rms(m.jitter_px(flows, mask)),
        ]
    assert all(math.isnan(value) for value in values)


def test_masks_of_single_frames_belong_to_the_middle_of_each_triple(truth, flows, mask):
    masks = np.stack([mask if i == 4 else 0 * mask for i in range(FRAMES)])
    still_flows = m.Flows(0 * flows.forward, 0 * flows.backward)
    found = {
        "flicker": (m.flicker(truth, 0 * truth, flows, masks), 3),
        "slow": (m.slow_flicker(truth, 0 * truth, flows, masks), 3),
        "blind": (m.blind_flicker(truth, truth, flows, masks), 3),
        "warp": (m.warp_error(truth, flows, masks), 4),
        "wobble": (m.wobble_px(flows, still_flows, masks), 3),
    }
    for name, (values, at) in found.items():
        assert np.flatnonzero(~np.isnan(values)).tolist() == [at], name


def test_a_part_of_the_flows_belongs_to_a_part_of_the_stack(truth, flows, mask):
    whole = m.warp_error(truth, flows, mask)
    np.testing.assert_allclose(m.warp_error(truth[2:5], flows.part(2, 5), mask), whole[2:4])

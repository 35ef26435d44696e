"""HDR and wide primaries: what a network is shown, and what its answer does to the samples."""

from itertools import product

import numpy as np
import pytest
import torch
from helpers.media import (
    Painter,
    Unchanged,
    frames_of,
    info_of,
    plain_track,
    planes_of,
    random_image,
)
from helpers.pasting import paste
from helpers.standards import display_of, luma, pq_nits, pq_signal, rgb_codes, ycc_codes

from vidrestore.common.settings import Restore
from vidrestore.imaging import color, transfer
from vidrestore.imaging.geometry import Rect
from vidrestore.models.restorers import Restorer
from vidrestore.restoration.batching import restore
from vidrestore.restoration.crop import crop
from vidrestore.restoration.statistics import RestorationStats

WIDTH, HEIGHT = 96, 80
MIDDLE = np.s_[32:48, 40:60]  # of luma, well inside the face below
KINDS = [
    (kind, primaries)
    for kind, primaries in product(("sdr", "pq", "hlg"), ("bt709", "bt2020", "p3"))
    if (kind, primaries) != ("sdr", "bt709")
]
# Signals of faces and what lies around them, none beyond BT.709.
COLOURS = [(0.45, 0.38, 0.33), (0.56, 0.52, 0.5), (0.3, 0.3, 0.3), (0.2, 0.26, 0.22),
           (0.62, 0.6, 0.55)]  # fmt: skip


def hdr_info(pixel_format="yuv420p10le", kind="pq", primaries="bt2020", **changes):
    changes = {"matrix": "bt2020", "chroma_location": "topleft"} | changes
    return info_of(WIDTH, HEIGHT, pixel_format, transfer=kind, primaries=primaries, **changes)


def pixels(*colours):
    """(3, 1, n)."""
    return torch.tensor(np.array(colours), dtype=torch.float64).T[:, None]


def flat_image(pixel_format, rgb, info, *, full=False):
    """A picture of one stream colour, as near as codes come."""
    image = random_image(WIDTH, HEIGHT, pixel_format, 0)
    bits = image.format.components[0].bits
    if pixel_format.startswith("gbr"):
        codes = np.roll(rgb_codes(rgb, full=full, bits=bits), -1)
    else:
        codes = ycc_codes(rgb, info.matrix, full=full, bits=bits)
    for index, code in enumerate(codes):
        color.plane(image, index)[...] = round(code)
    return image


def through(image, restorer, info, *, strength=1.0):
    """One face across the middle: cut, restored and pasted."""
    track = plain_track(1, centre=(50, 40), side=64.0)
    cut = crop(frames_of([image]), [track], info, largest_px=2048, device=torch.device("cpu"))
    done = restore(
        cut, restorer, RestorationStats(), how=Restore(batch_size=1, max_waiting_frames=1)
    )
    (frame,) = paste(done, info, RestorationStats(), strength=strength)
    return planes_of(frame.image)


def painter(rgb, kind, primaries):
    """Paints what a network would have to give for this stream colour."""
    return Painter(tuple(display_of(rgb, kind, primaries).tolist()))


class Answer(Restorer):
    """A restorer that does to the crop what it is told."""

    name, size, reach_frames, template = "answer", None, 0, "gpen"

    def __init__(self, change):
        self.change = change

    def __call__(self, windows):
        return self.change(windows[:, 0].clone())


def test_ordinary_video_is_shown_as_it_is():
    info = info_of(WIDTH, HEIGHT)
    rgb = torch.rand(3, 5, 7)
    assert transfer.to_display(rgb, info) is rgb
    assert transfer.from_display(rgb, info) is rgb
    assert transfer.limit_highlights(rgb, rgb, info) is rgb


@pytest.mark.parametrize(("kind", "primaries"), KINDS)
def test_display_values_follow_the_standards(kind, primaries):
    shown = transfer.to_display(pixels(*COLOURS), hdr_info(kind=kind, primaries=primaries))
    wanted = [display_of(rgb, kind, primaries) for rgb in COLOURS]
    np.testing.assert_allclose(shown[:, 0].T, wanted, atol=2e-4)


def test_skin_is_shown_at_the_levels_of_ordinary_pictures():
    """Light skin reflects about 45 %, dark skin 10 %; coded for a display, 0.72 and 0.38."""
    signals = pq_signal(203 * np.array([0.45, 0.10, 1.0, 10000 / 203]))
    shown = transfer.to_display(pixels(*signals[:, None].repeat(3, 1)), hdr_info())[1, 0]
    np.testing.assert_allclose(shown, [0.717, 0.383, 0.879, 1.0], atol=1e-3)


@pytest.mark.parametrize(("kind", "primaries"), KINDS)
def test_whatever_planes_hold_has_a_way_back(kind, primaries):
    info = hdr_info(kind=kind, primaries=primaries)
    ask = torch.Generator().manual_seed(1)
    rgb = 3.2 * torch.rand(3, 70, 50, generator=ask, dtype=torch.float64) - 1.1
    rgb[:, :9] = torch.randint(-1, 3, (3, 9, 50), generator=ask)  # blacks, and none but tops
    rgb[:, 9:20] = torch.randint(0, 4096, (3, 11, 50), generator=ask) / 4095
    again = transfer.from_display(transfer.to_display(rgb, info), info)
    assert (again - rgb).abs().max() * 4095 < 0.05


@pytest.mark.parametrize(("kind", "primaries"), KINDS)
def test_curves_rise_everywhere_and_keep_black_and_the_top(kind, primaries):
    info = hdr_info(kind=kind, primaries=primaries)
    ramp = torch.linspace(-1, 2, 12001, dtype=torch.float64)
    shown = transfer.to_display(ramp.expand(3, 1, -1), info)[:, 0]
    assert (shown.diff(dim=1) > 0).all()
    ends = transfer.to_display(pixels((0, 0, 0), (1, 1, 1)), info)
    torch.testing.assert_close(ends, pixels((0, 0, 0), (1, 1, 1)), atol=1e-9, rtol=0)
    for channel in range(3):
        one = torch.full((3, 1, 12001), 0.4, dtype=torch.float64)
        one[channel, 0] = ramp
        assert (transfer.to_display(one, info)[channel, 0].diff() > 0).all()


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "yuv444p10le", "gbrp10le", "yuv422p12le"])
@pytest.mark.parametrize(("kind", "primaries"), KINDS)
def test_a_painted_patch_has_the_code_values_of_the_standards(kind, primaries, pixel_format, full):
    info = hdr_info(pixel_format, kind, primaries, full_range=full)
    bits = 12 if "12" in pixel_format else 10
    for rgb in COLOURS:
        # As bright as it is, the bound on highlights lets every patch pass.
        image = flat_image(pixel_format, (0.75, 0.75, 0.75), info, full=full)
        painted = through(image, painter(rgb, kind, primaries), info)
        if pixel_format.startswith("gbr"):
            wanted = np.roll(rgb_codes(rgb, full=full, bits=bits), -1)
        else:
            wanted = ycc_codes(rgb, info.matrix, full=full, bits=bits)
        for part, code in zip(painted, wanted, strict=True):
            rows, columns = (
                np.s_[part.shape[i] * 4 // 10 : part.shape[i] * 6 // 10] for i in (0, 1)
            )
            assert np.abs(part[rows, columns] - code).max() < 1


def test_grey_film_in_pq_takes_the_painted_luma():
    for full in (False, True):
        info = hdr_info("gray10le", full_range=full)
        image = random_image(WIDTH, HEIGHT, "gray10le", 0)
        color.plane(image, 0)[...] = 400
        (painted,) = through(image, painter(COLOURS[0], "pq", "bt2020"), info)
        wanted = ycc_codes([luma(COLOURS[0], "bt2020")] * 3, "bt2020", full=full, bits=10)[0]
        assert np.abs(painted[MIDDLE] - wanted).max() < 1


@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "yuv444p10le", "yuva420p10le", "gbrp12le"])
@pytest.mark.parametrize(("kind", "primaries"), KINDS)
def test_nothing_changes_where_nothing_was_restored(kind, primaries, pixel_format):
    info = hdr_info(pixel_format, kind, primaries)
    image = random_image(WIDTH, HEIGHT, pixel_format, 4)
    before = planes_of(image)
    nothing = torch.zeros(1, HEIGHT, WIDTH)
    color.blend_rgb(image, Rect(0, 0, WIDTH, HEIGHT), torch.rand(3, HEIGHT, WIDTH), nothing, info)
    for was, now, then in zip(
        before, planes_of(image), through(image, Unchanged(), info), strict=True
    ):
        np.testing.assert_array_equal(was, now)
        np.testing.assert_array_equal(was, then)


@pytest.mark.parametrize(("kind", "primaries"), KINDS)
def test_a_zero_difference_is_a_zero_change(kind, primaries):
    """Also where the weight is not zero, and for colours that BT.709 does not hold."""
    info = hdr_info("gbrp12le", kind, primaries)
    image = random_image(WIDTH, HEIGHT, "gbrp12le", 4)
    whole = Rect(0, 0, WIDTH, HEIGHT)
    before = planes_of(image)
    shown = transfer.to_display(color.region_rgb(image, whole, info), info).clamp(0, 1)
    color.blend_rgb(image, whole, shown, torch.rand(1, HEIGHT, WIDTH), info)
    for was, now in zip(before, planes_of(image), strict=True):
        np.testing.assert_array_equal(was, now)


@pytest.mark.parametrize(("kind", "primaries"), KINDS)
def test_no_channel_leaves_the_range_it_was_in(kind, primaries):
    info = hdr_info(kind=kind, primaries=primaries)
    ask = torch.Generator().manual_seed(2)
    rgb = torch.rand(3, 40, 50, generator=ask)
    wanted, weight = torch.rand(3, 40, 50, generator=ask), torch.rand(1, 40, 50, generator=ask)
    after = rgb + transfer.change(rgb, wanted, weight, info)
    assert after.min() > -1e-6
    assert after.max() < 1 + 1e-6


def test_a_white_answer_paints_paper_not_a_lamp():
    """Where the source has a face in ordinary light, white is reference white: 203 cd/m2."""
    for kind, white in (("pq", pq_signal(203)), ("hlg", 0.75)):
        info = hdr_info("yuv444p10le", kind)
        image = flat_image("yuv444p10le", (0.5, 0.5, 0.5), info)
        painted = through(image, Painter((1.0, 1.0, 1.0)), info)
        assert painted[0].max() <= np.ceil(ycc_codes([white] * 3, "bt2020", full=False, bits=10)[0])
        assert painted[0][MIDDLE].min() >= painted[0].max() - 1


def test_a_white_answer_is_as_bright_as_the_source_near_by():
    info = hdr_info("yuv444p10le")
    image = flat_image("yuv444p10le", (0.5, 0.5, 0.5), info)
    lamp, paper = (round(ycc_codes([s] * 3, "bt2020", full=False, bits=10)[0])
                   for s in (pq_signal(1000), pq_signal(203)))  # fmt: skip
    color.plane(image, 0)[36:42, 50:56] = lamp
    luma_after = through(image, Painter((1.0, 1.0, 1.0)), info)[0].astype(int)
    assert np.abs(luma_after[37:41, 51:55] - lamp).max() <= 12
    assert luma_after.max() <= lamp + 12
    far = luma_after[38:46, 37:41]
    assert np.abs(far - paper).max() <= 2


@pytest.mark.parametrize(
    ("kind", "nits_or_signal", "codes"),
    [("pq", 100, 2), ("pq", 203, 3), ("pq", 1000, 9), ("pq", 4000, 18), ("hlg", 0.75, 5),
     ("hlg", 1.0, 9)],
)  # fmt: skip
def test_highlights_survive_a_restorer_of_eight_bits(kind, nits_or_signal, codes):
    signal = pq_signal(nits_or_signal) if kind == "pq" else nits_or_signal
    info = hdr_info("yuv444p10le", kind)
    wanted = round(ycc_codes([signal] * 3, "bt2020", full=False, bits=10)[0])
    for offset in (-2, -1, 0, 1, 2):
        image = flat_image("yuv444p10le", (0.4, 0.4, 0.4), info)
        color.plane(image, 0)[20:60, 30:70] = wanted + offset
        eight = Answer(lambda crops: (crops.clamp(0, 1) * 255).round() / 255)
        after = through(image, eight, info)[0].astype(int)
        assert np.abs(after[MIDDLE] - wanted - offset).max() <= codes


def test_a_float_restorer_keeps_highlights_and_signals_beyond_the_top():
    info = hdr_info("yuv444p10le")
    image = flat_image("yuv444p10le", (0.4, 0.4, 0.4), info)
    color.plane(image, 0)[20:60, 30:50] = round(64 + 876 * float(pq_signal(4000)))
    color.plane(image, 0)[20:60, 50:70] = 1000  # 940 is the top
    before = planes_of(image)[0].astype(int)
    hair = Answer(lambda crops: (crops - 1e-6).clamp(0, 1))  # so that everything is pasted
    after = through(image, hair, info)[0].astype(int)
    assert np.abs(after - before)[22:58, 32:48].max() <= 1
    assert np.abs(after - before)[22:58, 52:68].max() <= 1


def test_the_bound_on_highlights_never_cuts_the_source():
    ask = torch.Generator().manual_seed(3)
    for side in (64, 65, 100, 128):
        source = torch.rand(3, side, side, generator=ask) ** 0.1
        kept = transfer.limit_highlights(source, source, hdr_info())
        torch.testing.assert_close(kept, source, atol=1e-6, rtol=0)


def test_reference_formulas_are_each_others_inverse():
    signals = np.linspace(0.01, 1, 50)
    np.testing.assert_allclose(pq_signal(pq_nits(signals)), signals, atol=1e-12)
    assert pq_nits(1.0) == pytest.approx(10000)
    assert pq_signal(203) == pytest.approx(0.5807, abs=1e-4)  # BT.2408: 58 %

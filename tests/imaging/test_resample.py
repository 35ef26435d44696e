"""Restored faces are brought to the size of the picture without aliasing, shimmer or softness."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.media import Unchanged, frames_of, info_of, mild_image, plain_face, planes_of
from helpers.pasting import paste
from skimage import data

from vidrestore.analysis.tracks import Track, work_size
from vidrestore.common.settings import Restore
from vidrestore.imaging import color
from vidrestore.imaging import resample as module
from vidrestore.imaging.resample import resample, sampling_grid, squared, squared_into, warp
from vidrestore.restoration.batching import restore
from vidrestore.restoration.crop import crop
from vidrestore.restoration.faces import FaceFrame
from vidrestore.restoration.statistics import RestorationStats

PLATE_PX = 1024
INSIDE = 0.19  # radius of a circle in the unit crop on which every mask is 1
GROWTH = 0.5 / INSIDE
SHIFTS = [(0.0, 0.0), (0.37, 0.81), (0.5, 0.5)]
# Most shimmer and rms error to the ideal, in 8-bit levels, at two sizes of a face of 2048.
LIMITS = {150: (1.6, 1.6), 400: (1.2, 1.8)}


def plate() -> torch.Tensor:
    """(1, W, W): rings whose frequency grows to 1/2 where the mask begins to fall."""
    place = torch.arange(PLATE_PX) + 0.5 - PLATE_PX / 2
    squares = place**2 + place[:, None] ** 2
    return (0.5 + 0.4 * torch.cos(torch.pi * GROWTH * squares / PLATE_PX))[None]


def matrix_of(step: float, shift: tuple[float, float]) -> np.ndarray:
    return np.array([[step, 0, (0.5 - s) * step - 0.5] if i == 0 else
                     [0, step, (0.5 - s) * step - 0.5] for i, s in enumerate(shift)])  # fmt: skip


def bilinear(image: torch.Tensor, matrix: np.ndarray, side: int) -> torch.Tensor:
    """What a plain affine warp makes of it."""
    grid = sampling_grid(matrix, side, side, image.shape[1:], image.device)
    return F.grid_sample(image[None], grid, padding_mode="border", align_corners=False)[0]


class Plate(Unchanged):
    """A restorer that paints the rings."""

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        return plate().expand(len(windows), 3, -1, -1).clone()


def pasted(scale: float, shift: tuple[float, float]) -> np.ndarray:
    """The rings, cropped and pasted into grey; (h, w) in [0, 1]."""
    side = PLATE_PX * scale
    size = int(side) + 4
    info = info_of(size, size, "gray", full_range=True)
    image = mild_image(size, size, "gray", 0)
    color.plane(image, 0)[...] = 128
    unit = np.array([[1 / side, 0, 0], [0, 1 / side, 0]])
    unit[:, 2] = (0.5 - np.array(shift)) / side
    track = Track(0, 1, 0, PLATE_PX, unit[None].astype(np.float32),
                  np.zeros((1, 5, 2), np.float32), *np.ones((2, 1), np.float32),
                  np.ones(1, bool))  # fmt: skip
    cut = crop(frames_of([image]), [track], info, largest_px=2048, device=torch.device("cpu"))
    done = restore(
        cut, Plate(), RestorationStats(), how=Restore(batch_size=1, max_waiting_frames=1)
    )
    (frame,) = paste(done, info, RestorationStats(), strength=1)
    return planes_of(frame.image)[0] / 255


@pytest.mark.parametrize(
    ("scale", "least_db"),
    [(0.05, 30), (0.1, 25), (0.2, 28), (0.35, 25), (0.5, 20), (0.65, 20)],
)
def test_rings_too_fine_for_the_picture_do_not_fold(scale, least_db):
    own, plain = [], []
    for shift in SHIFTS:
        picture = pasted(scale, shift)
        side = picture.shape[0]
        warped = bilinear(plate(), matrix_of(1 / scale, shift), side)[0].numpy()
        x, y = (np.arange(side) - PLATE_PX * scale / 2 - s + 0.5 for s in shift)
        radius = np.hypot(x, y[:, None]) / (PLATE_PX * scale)
        too_fine = (GROWTH * radius / scale > 0.625) & (radius < INSIDE)
        own.append(((picture - 0.5)[too_fine] ** 2).mean())
        plain.append(((warped - 0.5)[too_fine] ** 2).mean())
    assert 10 * np.log10(np.mean(plain) / np.mean(own)) >= least_db


def sharp_portrait() -> torch.Tensor:
    """(1, 2048, 2048) in [0, 1], with detail down to two pixels: hair, pores.

    Weighed so that a bilinear warp shimmers as much as on the portrait on which `LIMITS` were set.
    """
    head = torch.from_numpy(data.astronaut()[:256, 96:352].astype(np.float32)).mean(dim=2) / 255
    large = F.interpolate(head[None, None], (2048, 2048), mode="bicubic", align_corners=False)
    large = 0.25 + large / 2
    random = torch.Generator().manual_seed(3)
    for cell, levels in ((2, 4.2), (4, 6), (8, 2), (16, 0.7)):
        noise = torch.randn((1, 1, 2048 // cell, 2048 // cell), generator=random)
        large += F.interpolate(noise, (2048, 2048), mode="bicubic") * levels / 255
    return large[0].clamp(0, 1)


def undone(picture: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Shifted back, in Fourier space."""
    across, down = (np.fft.fftfreq(n) for n in picture.shape[::-1])
    phase = np.exp(2j * np.pi * (across * shift[0] + down[:, None] * shift[1]))
    return np.fft.ifft2(np.fft.fft2(picture) * phase).real


@pytest.mark.parametrize("side", LIMITS)
def test_a_sharp_portrait_neither_shimmers_nor_goes_soft(side):
    portrait, random = sharp_portrait(), np.random.default_rng(1)
    inner, factor, step = np.s_[8:-8, 8:-8], 8, 2048 / side
    results, plain, errors = [], [], []
    for shift in random.random((8, 2)):
        matrix = matrix_of(step, shift)
        fine = matrix_of(step / factor, shift * factor)
        ideal = F.avg_pool2d(bilinear(portrait, fine, side * factor), factor)[0].numpy()
        for pictures, result in (
            (results, resample(portrait, matrix, side, side)),
            (plain, bilinear(portrait, matrix, side)),
        ):
            levels = (255 * result[0].clamp(0, 1)).round().numpy()
            pictures.append(undone(levels, shift)[inner])
            if pictures is results:
                errors.append((levels - 255 * ideal)[inner])
    shimmer, plain_shimmer = (float(np.std(each, axis=0).mean()) for each in (results, plain))
    most_shimmer, most_error = LIMITS[side]
    assert plain_shimmer == pytest.approx({150: 5.5, 400: 3.3}[side], abs=0.2)
    assert shimmer <= most_shimmer
    assert float(np.sqrt(np.mean(np.square(errors)))) <= most_error


@pytest.mark.parametrize("step", [0.4, 1.0, 1.7, 9.0])
def test_a_slope_keeps_its_values_and_its_place(step):
    image = torch.arange(200.0).expand(1, 200, 200) / 200
    turned = np.array([[0.0, -step, 180.0], [step, 0.0, 10.0]])
    result = resample(image, turned, 9, 12)[0]
    wanted = (180 - step * torch.arange(9.0)) / 200
    torch.testing.assert_close(result[:, 5], wanted, atol=2e-3, rtol=0)


def texture(seed: int) -> torch.Tensor:
    """(3, 512, 512) in [0, 1]: detail of all sizes, the finest as weak as on restored skin."""
    random = np.random.default_rng(seed)
    across = np.fft.fftfreq(512)
    radius = np.hypot(across, across[:, None]) + 1 / 512
    waves = np.fft.fft2(random.standard_normal((3, 512, 512))) / radius**1.5
    picture = np.fft.ifft2(waves).real
    return torch.from_numpy((0.5 + 0.12 * picture / picture.std()).clip(0, 1).astype(np.float32))


def fine(picture: torch.Tensor) -> np.ndarray:
    """The detail within, which a blur of 2 px takes away."""
    grey = picture.mean(dim=0).numpy()
    return (grey - cv2.GaussianBlur(grey, (0, 0), 2))[8:-8, 8:-8]


@pytest.mark.parametrize("side", [64, 75, 90, 105, 128, 150, 180, 200, 250, 300, 340, 400, 500])
def test_detail_survives_the_way_by_the_work_size(side):
    """Against the output of a network that a bicubic filter reduces once, to the picture."""
    output, work_px = texture(side), work_size(side)
    ideal = fine(F.interpolate(output[None], (side, side), mode="bicubic", antialias=True)[0])
    step = work_px / side
    place = np.array([[step, 0, (step - 1) / 2], [0, step, (step - 1) / 2]])
    found = fine(resample(squared(output, work_px), place, side, side))
    assert 0.985 <= (found**2).sum() / (ideal**2).sum() < 1.25
    assert (found * ideal).sum() / (ideal**2).sum() >= 0.985


def test_a_result_at_its_work_size_is_not_resampled():
    output = texture(0)
    assert squared(output, work_size(400)) is output


@pytest.mark.parametrize("side", [512, 320, 256, 96])
def test_a_reduced_crop_stays_in_its_place_and_its_range(side):
    slope = torch.linspace(0.1, 0.9, 512).expand(2, 3, 512, 512)
    small = squared(slope, side)
    assert small.shape == (2, 3, side, side)
    wanted = F.interpolate(slope[0, :1, :1], side, mode="linear", align_corners=False)[0, 0]
    torch.testing.assert_close(small[1, 2, 7, 8:-8], wanted[8:-8], atol=1e-3, rtol=0)
    steps = (torch.arange(512) // 40 % 2).float().expand(1, 3, 512, 512)
    reduced = squared(steps, side)
    assert reduced.min() >= 0
    assert reduced.max() <= 1


def test_a_picture_of_equal_size_is_left_as_it_is():
    image = torch.rand((3, 20, 30), generator=torch.Generator().manual_seed(0))
    identity = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    torch.testing.assert_close(resample(image, identity, 20, 30), image, atol=1e-5, rtol=0)


def photograph(side: int) -> torch.Tensor:
    """(3, side, side) in [0, 1], with detail up to the border."""
    picture = cv2.resize(data.astronaut(), (side, side), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(picture.astype(np.float32).transpose(2, 0, 1) / 255)


@pytest.mark.parametrize(("own", "side"), [(64, 256), (256, 64), (256, 128), (192, 64), (256, 96)])
def test_opencv_and_torch_scale_alike(own, side, monkeypatch):
    """Rows at whole steps are computed by themselves on the processor."""
    crop_here = photograph(own)
    found = squared(crop_here, side)
    into = torch.full((3, side, side), float("nan"))
    squared_into(crop_here, into)
    assert torch.equal(into, found)
    monkeypatch.setattr(module, "uses_opencv", lambda device: False)
    wanted = squared(crop_here, side)
    apart = 255 * (found - wanted).abs()
    if own % side == 0 or own < side:
        assert apart[:, 2:-2, 2:-2].max() <= 0.01
        assert apart.max() <= 5  # what is repeated at the border is filtered here, and not there
    else:  # OpenCV rounds positions.
        assert apart.max() <= 2
        assert apart.square().mean().sqrt() <= 0.2


@pytest.mark.parametrize("scale", [0.6, 1.0, 1.7, 5.0])
def test_opencv_and_torch_read_alike(scale, monkeypatch):
    picture = photograph(512)
    turned = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]) * scale
    matrix = np.column_stack([turned, [40.3, 7.8]])
    ways = {
        "resample": lambda: resample(picture, matrix, 80, 90),
        "bicubic": lambda: warp(picture, matrix, 80, 90, mode="bicubic"),
        "bilinear": lambda: warp(picture, matrix, 80, 90, mode="bilinear"),
    }
    found = {name: way() for name, way in ways.items()}
    monkeypatch.setattr(module, "uses_opencv", lambda device: False)
    for name, way in ways.items():
        apart = 255 * (found[name] - way())
        assert apart.square().mean().sqrt() <= 0.4, name
        assert apart.abs().max() <= 4, name


def test_a_restorer_may_change_its_input():
    class InPlace(Unchanged):
        def __call__(self, windows: torch.Tensor) -> torch.Tensor:
            return windows.mul_(0.5)[:, 0]

    source = photograph(64)
    (frame,) = frames_of([mild_image(64, 64, "yuv420p", 0)])
    given = FaceFrame(frame, (plain_face(source.clone()),))
    (out,) = restore(iter([given]), InPlace(), RestorationStats(), how=Restore())
    assert torch.equal(out.faces[0].source, source)
    assert torch.equal(out.faces[0].restored, source * 0.5)

"""Where a restored face is pasted: hull, feather, hands, neighbours, the edge of the frame."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from helpers.media import Painter, frames_of, info_of, mild_image, plain_track, planes_of
from helpers.pasting import Finish, paste

from vidrestore.analysis.tracks import Track
from vidrestore.common.settings import Restore
from vidrestore.imaging import color
from vidrestore.imaging.geometry import (
    GRID_PX,
    apply,
    crop_matrix,
    fit_similarity,
    invert,
    template,
)
from vidrestore.models.restorers import Restorer
from vidrestore.restoration.batching import restore
from vidrestore.restoration.compositing import masks, occlusion
from vidrestore.restoration.compositing.appearance import place_of
from vidrestore.restoration.crop import crop
from vidrestore.restoration.faces import Face, FaceFrame
from vidrestore.restoration.statistics import RestorationStats
from vidrestore.review import portrait

CROP_PX, SIDE = 256, 256
# In frame 19 of the clip: eyes, nose, corners of the mouth, (x, y); the hand in the aligned crop of
# 128 px, drawn by eye.
LANDMARKS_OF_CLIP = np.array(
    [[294.8, 80], [323.2, 80], [309.2, 95.7], [296.8, 108.6], [321.2, 108]]
)
HAND_OF_CLIP = np.array([[37, 113], [40, 107], [59, 96], [67, 98], [75, 104], [73, 115], [66, 122],
                         [64, 128], [25, 128]])  # fmt: skip
ALL = Finish(occluders=True, color=1.0)


def mask_of(landmarks: np.ndarray, feather: float = 0.05) -> np.ndarray:
    distance = torch.from_numpy(
        masks.hull_distance(masks.hull_support(masks.believable(landmarks)), feather)
    )
    return masks.soft(distance, feather).numpy()


def test_the_hull_holds_the_landmarks_and_stays_in_its_ellipse():
    ellipse = masks.face_mask(GRID_PX)[0].numpy()
    for name in ("gpen", "ffhq"):
        mask = mask_of(template(name))
        assert mask.max() == 1
        assert not mask[ellipse == 0].any()
        for x, y in template(name):
            assert mask[int(y * 64), int(x * 64)] == 1


def test_the_hull_follows_a_turned_head_and_does_not_follow_nonsense():
    usual = masks.usual_landmarks()
    turned = (usual - [0.5, 0]) * [0.6, 1] + [0.5, 0]
    width, narrow = ((mask_of(points)[32] > 0.5).sum() for points in (usual, turned))
    assert narrow < 0.85 * width
    np.testing.assert_allclose(mask_of(np.zeros((5, 2))), mask_of(usual), atol=1e-6)


def test_the_mask_moves_as_little_as_its_landmarks():
    usual, random = masks.usual_landmarks(), np.random.default_rng(0)
    areas = [mask_of(usual + random.normal(0, 0.001, (5, 2))).sum() for _ in range(20)]
    assert np.ptp(areas) < 0.03 * np.mean(areas)


@pytest.mark.parametrize("side", [120.0, 480.0])
def test_the_feather_is_measured_in_pixels_of_the_frame(side):
    place = place_of(np.array([[1 / side, 0, 0], [0, 1 / side, 0]]), None)
    assert place.feather * side == pytest.approx(min(14, 0.07 * side))


def test_regions_have_the_strength_that_they_are_given():
    points = masks.usual_landmarks()
    found = masks.region_strength(points, {"eyes": 0.2, "mouth": 0.5, "skin": 0.8})
    at = [(points[0], 0.2), (points[1], 0.2), (points[3:].mean(axis=0), 0.5), ([0.5, 0.58], 0.8)]
    for (x, y), wanted in at:
        assert found[int(y * 64), int(x * 64)] == pytest.approx(wanted, abs=0.02)
    assert masks.region_strength(points, {}).min() == 1


class Portrait(Restorer):
    """A restorer that paints the clean portrait over everything."""

    name, size, reach_frames, template = "portrait", None, 0, "gpen"

    def __init__(self, crops: torch.Tensor) -> None:
        self.crops = crops

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        return self.crops.expand(len(windows), -1, -1, -1).clone()


def scene() -> tuple[np.ndarray, Track]:
    """(256, 256, 3) the portrait, which fills the frame, and the track of its face."""
    picture, landmarks = portrait.clean_portrait()
    matrix = portrait.place_in_crop(landmarks, template("gpen"), SIDE)
    shown = portrait.as_picture(portrait.cut(picture, matrix, SIDE))
    track = plain_track(1, centre=(SIDE / 2, SIDE / 2), side=float(SIDE), work_px=CROP_PX)
    return shown, replace(track, landmarks=apply(matrix, landmarks)[None].astype(np.float32))


def hand(size: float, x: float) -> tuple[np.ndarray, np.ndarray]:
    """(256, 256) coverage and (256, 256, 3) picture of fingers in front of the chin, like skin."""
    cover, texture = np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE, 3), np.float32)
    texture[:] = np.array([214, 170, 146], np.float32)
    for i in range(4):
        ends = (int(40 + x), 168 + 13 * i), (int(150 - 4 * i + x), 182 + 12 * i)
        cv2.line(cover, *ends, 255, int(12 * size))
        cv2.line(texture, (ends[0][0], ends[0][1] - 6), (ends[1][0], ends[1][1] - 6),
                 (130, 100, 88), 2)  # fmt: skip
    return cover, cv2.GaussianBlur(texture, (0, 0), 1)


def microphone(size: float, x: float) -> tuple[np.ndarray, np.ndarray]:
    cover = np.zeros((SIDE, SIDE), np.uint8)
    cv2.circle(cover, (int(110 + x), 205), int(22 * size), 255, -1)
    return cover, np.full((SIDE, SIDE, 3), 38, np.float32)


def glasses(size: float, x: float) -> tuple[np.ndarray, np.ndarray]:
    cover = np.zeros((SIDE, SIDE), np.uint8)
    for middle in (101, 155):
        cv2.ellipse(cover, (int(middle + x / 8), 122), (22, 16), 0, 0, 360, 255, int(3 * size))
    return cover, np.full((SIDE, SIDE, 3), 30, np.float32)


def covered(clean: np.ndarray, cover: np.ndarray, texture: np.ndarray) -> np.ndarray:
    share = cv2.GaussianBlur(cover, (0, 0), 0.7)[..., None] / np.float32(255)
    return np.clip(clean * (1 - share) + texture * share, 0, 255).astype(np.uint8)


def video_frame(rgb: np.ndarray, pixel_format: str = "gbrp"):
    image = mild_image(rgb.shape[1], rgb.shape[0], pixel_format, 0)
    for channel, index in enumerate((2, 0, 1)):
        color.plane(image, index)[...] = rgb[..., channel]
    return image


def rgb_of(image) -> np.ndarray:
    planes = planes_of(image)
    return np.stack([planes[2], planes[0], planes[1]], axis=-1)


def painted(pictures, track, crops, finish=ALL):
    """The pictures after a restorer painted `crops` over the face of each."""
    info, tally = info_of(SIDE, SIDE, "gbrp", full_range=True), RestorationStats()
    n = len(pictures)
    track = replace(
        track,
        **{name: np.repeat(getattr(track, name), n, axis=0)
           for name in ("matrices", "landmarks", "score", "strength", "detected")},
    )  # fmt: skip
    frames = frames_of([video_frame(p) for p in pictures])
    cut = crop(frames, [track], info, largest_px=2048, device=torch.device("cpu"))
    done = restore(cut, Portrait(crops), tally, how=Restore(batch_size=1, max_waiting_frames=1))
    out = paste(done, info, tally, strength=1, tracks=[track], finish=finish)
    return [rgb_of(frame.image) for frame in out]


def clean_crop(clean: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(clean).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("occluder", [hand, microphone, glasses])
def test_what_covers_a_face_stays_as_it_was(occluder):
    clean, track = scene()
    covers, pictures = [], []
    for x in (0, 4, 8, 12, 16):
        cover, texture = occluder(1.0, x)
        covers.append(cover > 0)
        pictures.append(covered(clean, cover, texture))
    after = painted(pictures, track, clean_crop(clean))
    same = [(now == was).all(axis=-1) for was, now in zip(pictures, after, strict=True)]
    kept = np.mean([s[c].mean() for s, c in zip(same, covers, strict=True)])
    assert kept >= 0.98
    # Without the check the same pixels are painted over.
    plain = painted(pictures, track, clean_crop(clean), Finish())
    lost = np.mean([(a != b).any(axis=-1)[c].mean()
                    for a, b, c in zip(plain, pictures, covers, strict=True)])  # fmt: skip
    assert lost > 0.3


@pytest.mark.parametrize("degradation", portrait.DEGRADATIONS)
@pytest.mark.parametrize("tint", [(1, 1, 1), (0.95, 0.88, 0.8)])
def test_a_face_that_was_only_worn_is_restored_whole(degradation, tint):
    clean, _ = scene()
    large = cv2.resize(clean, (512, 512), interpolation=cv2.INTER_CUBIC)
    worn = portrait.DEGRADATIONS[degradation](large)
    source, restored = (cv2.resize(p, (128, 128), interpolation=cv2.INTER_AREA).astype(np.float32)
                        for p in (worn, large))  # fmt: skip
    face = cv2.resize(mask_of(masks.usual_landmarks()), (128, 128))
    found = occlusion.contradiction(source, restored * np.float32(tint), face)
    assert occlusion.visible([found], 0, 2).min() == 1


def test_what_passes_by_fades_in_and_out():
    clean, track = scene()
    pictures = []
    for x in (-400, -400, -400, -400, 0, 4, 8, 12, -400, -400, -400, -400):
        cover, texture = microphone(1.0, x)
        pictures.append(covered(clean, cover, texture))
    crops = clean_crop(np.clip(clean.astype(int) + 12, 0, 255).astype(np.uint8))
    finish = Finish(occluders=True)
    after = painted(pictures, track, crops, finish)
    changed = [np.abs(a.astype(int) - b).sum() for a, b in zip(after, pictures, strict=True)]
    share = np.array(changed) / changed[0]
    assert share[5] < 0.9
    assert share[-1] == pytest.approx(1, abs=0.01)
    assert np.abs(np.diff(share, 2)).max() < 0.12


def test_a_real_hand_over_a_chin_stays(shared):
    capture = cv2.VideoCapture(str(shared / "clips" / "intel_asl_thanks.mkv"))
    picture = [capture.read()[1][..., ::-1] for _ in range(20)][-1]
    unit = fit_similarity(LANDMARKS_OF_CLIP[None], template("gpen"))[0]
    matrix = crop_matrix(unit, 128).astype(np.float64)
    source = cv2.warpAffine(picture, matrix, (128, 128), flags=cv2.INTER_CUBIC)
    fingers = np.zeros((128, 128), np.uint8)
    cv2.fillPoly(fingers, [HAND_OF_CLIP], 1)
    around = cv2.dilate(fingers, np.ones((5, 5), np.uint8))
    plain = cv2.inpaint(source, around, 5, cv2.INPAINT_TELEA)
    face = cv2.resize(mask_of(masks.believable(apply(unit, LANDMARKS_OF_CLIP))), (128, 128))
    found = occlusion.contradiction(source.astype(np.float32), plain.astype(np.float32), face)
    shown = occlusion.visible([found], 0, 2) * face
    reached = (fingers > 0) & (face > 0.02)
    assert reached.sum() > 300
    assert (shown[reached] < 0.004).mean() >= 0.98
    assert shown.sum() > 0.6 * face.sum()


def test_the_larger_face_is_in_front():
    info = info_of(160, 120)
    near = plain_track(1, centre=(60, 60), side=100.0, track_id=7)
    far = plain_track(1, centre=(95, 60), side=60.0, track_id=3)
    image = mild_image(160, 120, "yuv420p", 0)
    (frame,) = crop(frames_of([image]), [near, far], info, largest_px=64,
                    device=torch.device("cpu"))  # fmt: skip
    paint = {7: (0.8, 0.2, 0.2), 3: (0.2, 0.2, 0.8)}
    painter = [Painter(paint[face.track_id]) for face in frame.faces]
    faces = [replace(f, restored=p(f.source[None, None])[0])
             for f, p in zip(frame.faces, painter, strict=True)]  # fmt: skip
    for order in (faces, faces[::-1]):
        picture = mild_image(160, 120, "yuv420p", 0)
        given = FaceFrame(next(frames_of([picture])), tuple(order))
        list(paste(iter([given]), info, RestorationStats(), strength=1, tracks=[near, far]))
        rect = masks.Rect(0, 0, 160, 120)
        red, _, blue = color.region_rgb(picture, rect, info)
        assert red[60, 76] > blue[60, 76] + 0.4
        assert blue[60, 104] > red[60, 104] + 0.4


def test_a_face_that_is_not_restored_still_hides_what_is_behind_it():
    info = info_of(160, 120)
    near = plain_track(1, centre=(60, 60), side=100.0, track_id=7)
    far = plain_track(1, centre=(80, 60), side=60.0, track_id=3)
    image = mild_image(160, 120, "yuv420p", 0)
    before = planes_of(image)[0]
    (frame,) = crop(frames_of([image]), [far], info, largest_px=64, device=torch.device("cpu"))
    face: Face = replace(frame.faces[0], restored=torch.zeros(3, 64, 64))
    given = FaceFrame(frame.frame, (face,))
    list(paste(iter([given]), info, RestorationStats(), strength=1, tracks=[near, far]))
    changed = planes_of(image)[0] != before
    assert changed.any()
    inner = apply(invert(near.matrices[0].astype(np.float64)), masks.usual_landmarks())
    for x, y in inner.round().astype(int):
        assert not changed[y, x]


def test_a_face_cut_by_the_edge_is_pasted_up_to_it():
    info = info_of(96, 80, "gray", full_range=True)
    image = mild_image(96, 80, "gray", 1)
    before = planes_of(image)[0]
    track = plain_track(1, centre=(6, 40), side=60.0)
    cut = crop(frames_of([image]), [track], info, largest_px=64, device=torch.device("cpu"))
    done = restore(
        cut,
        Painter((0.9, 0.9, 0.9)),
        RestorationStats(),
        how=Restore(batch_size=1, max_waiting_frames=1),
    )
    list(paste(done, info, RestorationStats(), strength=1, tracks=[track]))
    after = planes_of(image)[0]
    assert (after[30:50, 0] > 220).all()
    np.testing.assert_array_equal(after[:, 40:], before[:, 40:])

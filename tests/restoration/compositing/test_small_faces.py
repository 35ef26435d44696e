"""Of a small face its own features are not taken for noise of the camera."""

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from helpers.media import Unchanged, analysis_of_file, info_of, plain_track, write_video

from vidrestore import analyze_video, load_settings, restore_video
from vidrestore.imaging.frame import Frame
from vidrestore.media.decode import DecodeErrors, TimeRange, decode
from vidrestore.media.probe import probe
from vidrestore.restoration.companion import _in_pixels_of
from vidrestore.restoration.compositing import grain
from vidrestore.restoration.compositing.appearance import noise_of, place_of
from vidrestore.review.evaluate import evaluate

FRAME_PX = 320


def sigma_found(side_px):
    """Of noise that is everywhere, for a crop of that side in the middle of the frame."""
    levels = 128 + np.random.default_rng(5).normal(0, 6, (FRAME_PX, FRAME_PX))
    image = av.VideoFrame.from_ndarray(np.rint(levels).clip(0, 255).astype(np.uint8), "gray")
    corner = (FRAME_PX - side_px) / 2
    unit = np.array([[1, 0, 0.5 - corner], [0, 1, 0.5 - corner]], np.float32) / side_px
    found = noise_of(Frame(0, 0, image), place_of(unit, None), info_of(FRAME_PX, FRAME_PX))
    return grain.sigma_of(found[0])


@pytest.mark.parametrize("side_px", [46, 70, 102, 108])
def test_a_face_with_few_blocks_gets_no_grain(side_px):
    assert sigma_found(side_px) == 0


def test_grain_fades_in_without_a_step():
    found = [sigma_found(side) for side in range(110, 148, 2)]
    assert found[-1] == pytest.approx(6, rel=0.2)
    assert max(np.diff(found)) < 1.0


def test_a_face_that_left_over_the_corner_breaks_nothing(tmp_path):
    """Its crop still touches the frame, while mask and surroundings lie outside."""
    images = [av.VideoFrame(96, 64, "yuv420p") for _ in range(26)]
    source = write_video(tmp_path / "source.mkv", images)
    track = plain_track(26, centre=(112, 80), side=32)
    settings = load_settings(options={"encode.codec": "ffv1"})
    summary = restore_video(
        source, tmp_path / "out.mkv", settings, restorer=Unchanged(),
        analysis=analysis_of_file(source, [track]),
    )  # fmt: skip
    assert summary.frames == 26


def eye_distance_px(track):
    return float(np.median(np.linalg.norm(track.landmarks[:, 1] - track.landmarks[:, 0], axis=1)))


@pytest.mark.long
@pytest.mark.parametrize("eyes_px", [10, 14, 22])
@pytest.mark.parametrize(("name", "start"), [("lp_s18", 1), ("vrt_1", 0), ("hamilton_short", 8)])
def test_small_faces_of_real_clips_flicker_no_more_than_their_source(
    shared, tmp_path, name, start, eyes_px
):
    """Until the grain stage left such faces alone they flickered by 2 to 18 times as much."""
    options = {
        "restore.restorer": "fusion", "detect.detector": "yunet", "encode.codec": "ffv1",
        "weights.folder": shared / "models", "weights.offline": True, "people.recognise": False,
        "fields.deinterlace": "off", "detect.margins": False, "detect.remember": False,
    }  # fmt: skip
    settings, clip = load_settings(options=options), shared / f"clips/{name}.mp4"
    span = TimeRange(Fraction(start), Fraction(start) + 1)
    full = analyze_video(clip, settings, span=span)
    scale = eyes_px / max(eye_distance_px(track) for track in full.tracks)
    frames = [frame.image for frame in decode(clip, DecodeErrors(), span)][:24]
    size = [2 * round(side * scale / 2) for side in (frames[0].width, frames[0].height)]
    images = [image.reformat(*size, "yuv420p", interpolation="AREA") for image in frames]
    source, target = write_video(tmp_path / "small.mkv", images), tmp_path / "out.mkv"
    info = probe(source).info
    tracks = []
    for track in full.tracks:
        rows = slice(0, len(images) - track.first_frame)
        if len(track.matrices[rows]) < 3:
            continue
        cut = replace(
            track, matrices=track.matrices[rows], landmarks=track.landmarks[rows],
            score=track.score[rows], detected=track.detected[rows],
            strength=np.ones_like(track.strength[rows]),
        )  # fmt: skip
        own = _in_pixels_of(info, replace(full.info, sample_aspect_ratio=Fraction(1)), cut)
        tracks.append(replace(own, work_px=64 if eyes_px < 16 else 128))
    analysis = analysis_of_file(source, tracks)
    restore_video(source, target, settings, analysis=analysis)
    flicker = evaluate(target, source, settings, analysis=analysis).measures["FLKb"]
    assert flicker.output <= 1.05 * flicker.source

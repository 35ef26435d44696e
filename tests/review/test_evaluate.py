"""Whole videos measured: a worn one, and one restored halfway back to its known truth."""

import json
import math

import av
import cv2
import numpy as np
import pytest
import torch
from helpers.media import (
    analysis_of,
    analysis_of_file,
    info_of,
    plain_face,
    plain_track,
    write_video,
)

from vidrestore.cli.console import show_evaluation
from vidrestore.common.errors import InputError
from vidrestore.common.profiles import load_settings
from vidrestore.imaging.frame import Frame
from vidrestore.imaging.geometry import fit_similarity, template
from vidrestore.restoration.compositing.masks import crop_mask, face_mask
from vidrestore.restoration.faces import FaceFrame
from vidrestore.review import evaluate as module
from vidrestore.review.evaluate import evaluate, table_rows
from vidrestore.review.face_metrics import FaceScores, Pair, blink_frames
from vidrestore.review.portrait import as_picture, clean_portrait

SETTINGS = load_settings(options={"people.recognise": False})
FRAME, CROP, COUNT = 160, 128, 30
EDGE = (FRAME - CROP) / 2
CLOSED = range(13, 18)
BLIND = {"FLKb", "Ewarp", "SHP", "GEO", "JIT", "features"}
WITH_TRUTH = {"WORST", "FLK", "FLKlo", "DTL", "Ewarp", "tOF", "BLINK"}


@pytest.fixture(scope="module")
def truth():
    """(n, H, W, 3) 8-bit levels: the portrait sways in its crop, and blinks once."""
    picture, landmarks = clean_portrait()
    at = template("gpen") * CROP + EDGE - 0.5
    matrix = fit_similarity(landmarks[None], at)[0]
    small = cv2.GaussianBlur(as_picture(picture), (0, 0), 2.5)
    found = []
    for i in range(COUNT):
        moved = matrix.copy()
        moved[:, 2] += np.sin(i / 4), 0.5 * np.cos(i / 5)
        frame = cv2.warpAffine(small, moved, (FRAME, FRAME), flags=cv2.INTER_LINEAR)
        if i in CLOSED:
            for x, y in at[:2]:
                cv2.ellipse(frame, (round(x), round(y)), (8, 5), 0, 0, 360, (205, 160, 140), -1)
        found.append(frame.astype(np.float32))
    return np.stack(found)


@pytest.fixture(scope="module")
def worn(truth):
    noise = np.random.default_rng(11).normal(0, 8, truth.shape)
    return np.stack([cv2.GaussianBlur(p, (0, 0), 1.5) for p in truth]) + noise


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


def write(path, pictures):
    levels = np.clip(np.rint(pictures), 0, 255).astype(np.uint8)
    rgb = (av.VideoFrame.from_ndarray(picture, "rgb24") for picture in levels)
    # Untagged and small, so BT.601; ten bits, so that nothing to speak of is rounded.
    images = [f.reformat(format="yuv444p10le", dst_colorspace="ITU601") for f in rgb]
    return write_video(path, images)


@pytest.fixture(scope="module")
def videos(folder, truth, worn):
    halfway = (truth + worn) / 2
    named = {"truth": truth, "source": worn, "output": halfway}
    return {name: write(folder / f"{name}.mkv", pictures) for name, pictures in named.items()}


@pytest.fixture(scope="module")
def analysis(videos):
    track = plain_track(COUNT, centre=(FRAME / 2, FRAME / 2), side=CROP, work_px=CROP)
    return analysis_of_file(videos["source"], [track])


@pytest.fixture(scope="module")
def against_truth(videos, analysis):
    return evaluate(
        videos["output"], videos["source"], SETTINGS, reference=videos["truth"], analysis=analysis
    )


def test_halving_the_error_halves_what_is_linear_in_it(against_truth):
    gain = against_truth.output.face_psnr_db - against_truth.source.face_psnr_db
    assert gain == pytest.approx(6.02, abs=0.1)
    found = against_truth.measures
    assert set(found) == WITH_TRUTH
    for name in ("FLK", "FLKlo"):
        assert found[name].output == pytest.approx(found[name].source / 2, rel=0.03)
    assert found["FLK"].source == pytest.approx(8 * math.sqrt(2 / 3), rel=0.3)
    assert found["WORST"].output == pytest.approx(6.02, abs=0.2)
    assert math.isnan(found["WORST"].source)
    lost = 1 - found["DTL"].source
    assert 1 - found["DTL"].output == pytest.approx(lost / 2, abs=0.03)
    assert 0.3 < lost < 1


def test_what_is_not_linear_has_the_right_order(against_truth):
    found = against_truth.measures
    assert found["Ewarp"].output < 0.5 * found["Ewarp"].source
    assert found["tOF"].output < found["tOF"].source
    assert found["BLINK"].output == pytest.approx(found["BLINK"].source + 6.02, abs=0.3)


def test_a_ghost_shows_in_the_worst_frame_and_in_the_blink(folder, truth, worn, videos, analysis):
    """Lids that stay open while the truth blinks: the mean of all frames hardly tells."""
    ghost = (truth + worn) / 2
    ghost[CLOSED] = ghost[CLOSED.start - 1]
    path = write(folder / "ghost.mkv", ghost)
    found = evaluate(path, videos["source"], SETTINGS, reference=videos["truth"], analysis=analysis)
    gain = found.output.face_psnr_db - found.source.face_psnr_db
    assert gain > 4
    assert found.measures["WORST"].output < gain - 4
    assert found.measures["BLINK"].output < found.measures["BLINK"].source


def test_without_a_truth_the_blind_measures_are_taken(videos, analysis):
    found = evaluate(videos["output"], videos["source"], SETTINGS, analysis=analysis)
    assert set(found.measures) == BLIND
    assert found.source is None
    assert found.measures["FLKb"].output < 0.7 * found.measures["FLKb"].source
    assert found.measures["SHP"].output < 0.9
    assert found.measures["GEO"].output > 0
    assert found.measures["JIT"].output == pytest.approx(found.measures["JIT"].source, abs=0.3)


def test_a_video_is_what_it_is_made_from(videos, analysis):
    source = videos["source"]
    found = evaluate(source, source, SETTINGS, analysis=analysis).measures
    for name in ("FLKb", "Ewarp", "JIT"):
        assert found[name].output == found[name].source > 0
    assert found["SHP"].output == pytest.approx(1)
    assert found["GEO"].output == 0
    assert found["features"] == Pair(pytest.approx(1))
    truth = evaluate(source, source, SETTINGS, reference=source, analysis=analysis).measures
    assert truth["FLK"] == Pair(0, 0)
    assert truth["tOF"] == Pair(0, 0)
    assert truth["WORST"].output == 0
    assert truth["DTL"].output == pytest.approx(1)


@pytest.mark.long
def test_results_are_plain_values_and_words(videos, analysis, against_truth, capsys):
    plain = json.loads(json.dumps(against_truth.as_dict(), allow_nan=False))
    assert plain["measures"]["WORST"]["source"] is None
    assert plain["measures"]["FLK"]["output"] == against_truth.measures["FLK"].output
    blind = evaluate(videos["output"], videos["source"], SETTINGS, analysis=analysis)
    for result in (against_truth, blind):
        rows = {row.name: row for row in table_rows(result)}
        assert {"PSNR", "SSIM", "PSNR outside", *result.measures} == set(rows)
        assert all(row.meaning and row.output for row in rows.values())
    assert rows["FLKb"].better == "lower"
    assert rows["PSNR"].better == ""
    show_evaluation(against_truth)
    said = capsys.readouterr().out
    assert "lower" in said
    assert f"{COUNT} frames compared" in said
    assert said.splitlines()[-1].startswith("Verdict: better. Flicker of the faces fell from ")
    assert plain["verdict"] == "better"
    swapped = evaluate(videos["source"], videos["output"], SETTINGS, analysis=analysis)
    show_evaluation(swapped)
    said = capsys.readouterr().out
    assert said.splitlines()[-1].startswith("Verdict: worse. Flicker of the faces rose from ")


@pytest.mark.long
def test_a_recogniser_says_whether_it_is_the_same_person(videos, analysis, monkeypatch):
    seen = []

    def recognise(picture, faces):
        seen.append(faces[0].landmarks)
        brightness = float(picture.mean()) / 255
        return [np.array([math.cos(brightness), math.sin(brightness)], np.float32)]

    monkeypatch.setattr(module, "chosen_recognizer", lambda settings, on_event: recognise)
    alone = evaluate(videos["output"], videos["source"], SETTINGS, analysis=analysis)
    assert alone.measures["identity"].output == pytest.approx(1, abs=1e-4)
    assert math.isnan(alone.measures["identity"].source)
    assert 0 < alone.measures["identity"].error < 0.01  # it is measured in some faces alone
    (row,) = (row for row in table_rows(alone) if row.name == "identity")
    assert row.output == "1.000 \u00b1 less than 0.001"
    assert "features" not in alone.measures
    every = round(SETTINGS.people.every_seconds * analysis.info.frame_rate)
    assert len(seen) == 2 * math.ceil(COUNT / every)
    np.testing.assert_allclose(seen[0], template("gpen") * CROP - 0.5, rtol=1e-5)
    truth = videos["truth"]
    both = evaluate(
        videos["output"], videos["source"], SETTINGS, reference=truth, analysis=analysis
    )
    assert both.measures["identity"].source == pytest.approx(1, abs=1e-4)


def test_a_face_too_blurred_to_recognise_counts_for_nothing(videos, analysis, monkeypatch):
    monkeypatch.setattr(module, "chosen_recognizer", lambda settings, on_event: lambda p, f: [None])
    found = evaluate(videos["output"], videos["source"], SETTINGS, analysis=analysis)
    assert "identity" not in found.measures


def test_blinks_are_brief_changes_of_the_eyes_and_not_of_the_light():
    random = np.random.default_rng(7)
    eyes = np.repeat(random.uniform(40, 200, (1, 16, 12)), 50, axis=0)
    eyes = eyes + random.normal(0, 2, eyes.shape) + random.normal(0, 8, (50, 1, 1))
    assert not blink_frames(eyes, 15).any()
    closed = eyes.copy()
    closed[20:25] = 150 + random.normal(0, 2, (5, 16, 12))
    assert np.flatnonzero(blink_frames(closed, 15)).tolist() == [20, 21, 22, 23, 24]
    gaze = eyes.copy()
    gaze[20:] = np.roll(gaze[20:], 3, axis=2)
    assert not blink_frames(gaze, 15).any()


def test_nothing_is_measured_across_a_gap():
    info = info_of(64, 64)
    scores = FaceScores(analysis_of(info, 20, [plain_track(20, centre=(32, 32), side=50)]), None,
                        recognise_seconds=1.0)  # fmt: skip
    face = plain_face(torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1)))
    image = av.VideoFrame(64, 64, "yuv420p")
    for index in (0, 1, 5, 6):
        video = FaceFrame(Frame(index, index, image), (face,))
        scores.add({"output": video, "source": video, "truth": video})
    found = scores.result()
    assert set(found) == {"WORST", "DTL", "Ewarp", "tOF", "BLINK"}
    assert math.isnan(found["BLINK"].output)


def test_the_mask_ends_where_the_frame_ends():
    inner, over = (np.array(m, np.float32) for m in ([[1, 0, -10], [0, 1, -10]],
                                                     [[1, 0, 32], [0, 1, 0]]))  # fmt: skip
    whole = face_mask(64)[0].numpy()
    np.testing.assert_array_equal(crop_mask(inner, 64, info_of(100, 100)), whole)
    cut = crop_mask(over, 64, info_of(100, 100))
    assert not cut[:, :31].any()
    np.testing.assert_array_equal(cut[:, 33:], whole[:, 33:])


def test_videos_of_other_sizes_are_refused(folder, truth, videos, analysis):
    small = write(folder / "small.mkv", truth[:3, :80, :80])
    with pytest.raises(InputError, match=r"80 x 80 pixels.*160 x 160"):
        evaluate(small, videos["source"], SETTINGS, analysis=analysis)

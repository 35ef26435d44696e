"""The whole way on real footage; see the README of ../shared/clips."""

from pathlib import Path

import av
import numpy as np
import pytest
from helpers.media import AS_PAINTED, Painter, frame_times, packets, planes_of

from vidrestore.analysis.pipeline import analyze_video
from vidrestore.api import restore_video
from vidrestore.common.profiles import load_settings
from vidrestore.imaging import color
from vidrestore.imaging.geometry import crop_matrix
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.media.probe import probe
from vidrestore.restoration.compositing.masks import mask_rect


def settings(shared, detector, **options):
    folder = {"weights.folder": shared / "models", "weights.offline": True,
              "detect.detector": detector, "detect.pack": "det_only",
              "restore.restorer": "fusion"}  # fmt: skip
    return load_settings(options=folder | {k.replace("__", "."): v for k, v in options.items()})


@pytest.fixture(scope="module")
def hamilton(shared: Path):
    source = shared / "clips" / "hamilton_short.mp4"
    return source, analyze_video(source, settings(shared, "insightface"))


def mask_boxes(analysis, index, grid):
    for track in analysis.tracks:
        at = index - track.first_frame
        if 0 <= at < len(track.matrices) and track.strength[at] > 0:
            yield mask_rect(crop_matrix(track.matrices[at], track.work_px), track.work_px,
                            analysis.info, grid)  # fmt: skip


@pytest.mark.long
def test_cuts_and_tracks_of_real_shots(hamilton):
    _, analysis = hamilton
    starts = [start for start, _ in analysis.shots]
    assert {82, 211} <= set(starts)
    # Frame 20 is a hard cut too: from the stage to the pianist's profile.
    assert starts == [0, 20, 82, 211]
    for track in analysis.tracks:
        assert any(a <= track.first_frame and track.end_frame <= b for a, b in analysis.shots)
    assert any(t.first_frame == 82 and t.end_frame == 211 for t in analysis.tracks)


@pytest.mark.long
def test_a_real_clip_in_mp4(hamilton, shared, tmp_path):
    source, analysis = hamilton
    target = tmp_path / "out.mp4"
    summary = restore_video(
        source, target, settings(shared, "insightface", deflicker__amount=0, **AS_PAINTED),
        analysis=analysis, restorer=Painter(),
    )  # fmt: skip
    assert summary.frames == 275
    assert summary.faces == analysis.face_count > 300
    assert frame_times(target) == frame_times(source)
    assert packets(target, 1) == packets(source, 1)
    assert list(tmp_path.iterdir()) == [target]
    inside, outside = [], []
    for a, b in zip(decode(source, DecodeErrors()), decode(target, DecodeErrors()), strict=True):
        before, after = (color.plane(f.image, 0).astype(int) for f in (a, b))
        covered = np.zeros(before.shape, bool)
        for box in mask_boxes(analysis, a.index, (2, 2)):
            covered[box.y0 : box.y1, box.x0 : box.x1] = True
        difference = np.abs(after - before)
        inside.append(difference[covered].mean() if covered.any() else 0)
        outside.append(difference[~covered].mean())
    assert np.mean(inside) > 2 * np.mean(outside)
    assert np.mean(outside) < 1.0


@pytest.mark.long
def test_nothing_outside_the_mask_boxes_changes(hamilton, shared, tmp_path):
    source, analysis = hamilton
    target = tmp_path / "out.mkv"
    chosen = settings(
        shared, "insightface", encode__codec="ffv1", deflicker__amount=0, **AS_PAINTED
    )
    restore_video(source, target, chosen, analysis=analysis, restorer=Painter())
    changed, frames = 0, 0
    for a, b in zip(decode(source, DecodeErrors()), decode(target, DecodeErrors()), strict=True):
        grid = color.layout(a.image).grid
        for was, now in zip(planes_of(a.image), planes_of(b.image), strict=True):
            covered = np.zeros(was.shape, bool)
            for box in mask_boxes(analysis, a.index, grid):
                part = box if was.shape[1] == analysis.info.width else color.chroma_rect(box, grid)
                covered[part.y0 : part.y1, part.x0 : part.x1] = True
            np.testing.assert_array_equal(was[~covered], now[~covered])
            changed += int((was != now).sum())
        frames += 1
    assert frames == 275
    assert changed > 10_000


@pytest.mark.long
def test_a_video_without_faces_comes_out_bit_identical_with_all_its_streams(shared, tmp_path):
    source = shared / "clips" / "torchcodec_nasa.mp4"
    target = tmp_path / "out.mkv"
    summary = restore_video(source, target, settings(shared, "yunet", encode__codec="ffv1"))
    assert summary.faces == summary.tracks == 0
    assert any("no face was found" in warning for warning in summary.warnings)
    assert probe(source).info.stream_index == 3
    with av.open(str(source)) as a, av.open(str(target)) as b:
        assert [s.type for s in a.streams] == [s.type for s in b.streams]
        assert len(b.streams.audio) == 2
        before, after = a.decode(a.streams[3]), b.decode(b.streams[3])
        count = 0
        for was, now in zip(before, after, strict=True):
            for x, y in zip(planes_of(was), planes_of(now), strict=True):
                np.testing.assert_array_equal(x, y)
            count += 1
    assert count == 390
    for index in (0, 1, 4):
        assert [p for _, p in packets(target, index)] == [p for _, p in packets(source, index)]


@pytest.mark.long
def test_variable_frame_times_of_a_real_clip_are_exact(shared, tmp_path):
    source = shared / "clips" / "vrt_1.mp4"
    target = tmp_path / "out.mp4"
    restore_video(source, target, settings(shared, "yunet", deflicker__amount=0, **AS_PAINTED),
                  restorer=Painter())  # fmt: skip
    assert frame_times(target) == frame_times(source)
    assert len(set(np.diff([float(t) for t in frame_times(source)]).round(6))) > 1


@pytest.mark.long
def test_full_range_of_a_real_clip_stays_full_range(shared, tmp_path):
    source = shared / "clips" / "intel_asl_thanks.mkv"
    target = tmp_path / "out.mkv"
    summary = restore_video(source, target, settings(shared, "yunet"))
    assert summary.faces == 51
    assert probe(target).info.full_range
    assert probe(target).info.codec == "h264"
    means = [np.mean([color.plane(f.image, 0).mean() for f in decode(p, DecodeErrors())])
             for p in (source, target)]  # fmt: skip
    assert means[0] == pytest.approx(means[1], abs=0.5)


@pytest.mark.long
@pytest.mark.parametrize("detector", ["yunet", pytest.param("insightface", marks=pytest.mark.long)])
def test_nobody_is_found_where_nobody_shows_a_face(shared, detector):
    """A hood seen from behind, of which SCRFD thinks it may be a face."""
    analysis = analyze_video(shared / "clips" / "torchcodec_nasa.mp4", settings(shared, detector))
    assert analysis.tracks == ()
    if detector == "insightface":
        assert sum(analysis.skipped.values()) > 0

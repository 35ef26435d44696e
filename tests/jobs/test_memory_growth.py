"""Memory and disk do not grow with the length of a film; `benchmarks/memory.py` has ten minutes."""

import gc
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.footage import film, images
from helpers.media import Unchanged
from skimage import data

from vidrestore.analysis.tracks import Motion, Observation, Observations
from vidrestore.api import restore_video
from vidrestore.common.profiles import load_settings
from vidrestore.models.detectors import detection

MINUTES, STRETCH_SECONDS = 4, 15
# Far below the 86 kB of one picture of the clip: none may be kept for each frame.
MOST_BYTES_PER_FRAME = 15_000
# A process of its own: in this one the tests before have left holes in memory of any size.
MEASURE = """
import json, memory
print(json.dumps(memory.measure({minutes}, memory.OPTIONS, stretch_seconds={stretch})))
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_a_longer_film_needs_no_more_memory_and_at_most_twice_its_room():
    run = subprocess.run(
        [sys.executable, "-c", MEASURE.format(minutes=MINUTES, stretch=STRETCH_SECONDS)],
        cwd=Path(__file__).parents[2] / "benchmarks",
        check=True,
        stdout=subprocess.PIPE,
    )
    stages, disk = json.loads(run.stdout)
    for stage, found in stages.items():
        assert len(found) == MINUTES * 60 / STRETCH_SECONDS
        # Caches and the pools of threads are full after a minute at most.
        first, last = np.median(found[4:7]), np.median(found[-3:])
        frames = (len(found) - 7) * STRETCH_SECONDS * 25
        assert last - first < MOST_BYTES_PER_FRAME * frames, (stage, found)
    assert disk <= 2.05


@pytest.mark.long
def test_no_picture_waits_for_the_garbage_collector(tmp_path):
    """Python may look for cycles only after thousands of frames."""
    shown = cv2.resize(data.astronaut(), (256, 256))
    source = film(
        tmp_path / "film.mp4",
        images([shown[y : y + 192] for y in range(12)], "yuv420p"),
        flag="tff",
    )
    settings = load_settings(options={"detect.detector": "haar", "encode.preset": "ultrafast"})
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        summary = restore_video(source, tmp_path / "out.mp4", settings, restorer=Unchanged())
        gc.collect()
        kept = {type(each).__name__ for each in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert summary.faces
    assert not kept & {"VideoFrame", "Packet", "Tensor", "Frame", "FaceFrame", "generator"}


def seen_at(index: int, random: np.random.Generator) -> Observation:
    count = index % 4
    faces = tuple(
        replace(detection(random.random(4), random.random((5, 2)), random.random()),
                embedding=random.random(8).astype(np.float32) if index % 3 == 0 and i else None)
        for i in range(count)
    )  # fmt: skip
    motions = {(i, i): Motion(random.random((2, 3)), random.random(), i + 9) for i in range(count)}
    sharpness = (float("nan"), *random.random(count).tolist())[:count] if index % 2 else ()
    return Observation(index, 512 * index - 7, 2**32 - 1 - index, None, faces, motions, sharpness)


def test_observations_come_out_as_they_went_in():
    random, kept = np.random.default_rng(8), Observations()
    given = [seen_at(index, random) for index in range(13)]
    for observation in given:
        kept.append(observation)
    assert len(kept) == 13
    assert kept[-1].index == 12
    assert [o.index for o in kept[3:7]] == [3, 4, 5, 6]
    for was, now in zip(given, kept, strict=True):
        assert (now.index, now.pts, now.crc32) == (was.index, was.pts, was.crc32)
        np.testing.assert_array_equal(now.sharpness, was.sharpness)
        assert now.motions.keys() == was.motions.keys()
        for pair, motion in was.motions.items():
            np.testing.assert_array_equal(now.motions[pair].matrix, motion.matrix)
            assert now.motions[pair].support == motion.support
            assert now.motions[pair].points == motion.points
        for one, other in zip(was.detections, now.detections, strict=True):
            assert one.score == other.score
            np.testing.assert_array_equal(one.box, other.box)
            np.testing.assert_array_equal(one.landmarks, other.landmarks)
            np.testing.assert_array_equal(one.embedding, other.embedding)

"""Memory and disk do not grow with the length of a film; `benchmarks/memory.py` has ten minutes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vidrestore import load_settings, restore_video
from vidrestore.detectors import detection
from vidrestore.frame import Motion, Observation
from vidrestore.observed import Observations

MINUTES, STRETCH_SECONDS = 2.5, 15


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_a_longer_film_needs_no_more_memory_and_at_most_twice_its_room(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import memory

    clip, target = memory.write_clip(tmp_path, MINUTES), tmp_path / "out" / "clear.mkv"
    target.parent.mkdir()
    resident = memory.Resident(STRETCH_SECONDS * memory.RATE)
    with memory.disk_use(target.parent) as most:
        restore_video(clip, target, load_settings(options=memory.OPTIONS),
                      restorer=memory.Sharper(), on_event=resident)  # fmt: skip
    for stage in ("analyze", "restore", "check"):
        found = resident.medians(stage)
        assert len(found) == MINUTES * 60 / STRETCH_SECONDS
        # Caches and the pools of threads are full after the first stretch.
        assert found[-1] < 1.03 * found[1], (stage, found)
    assert most[0] <= memory.MOST_DISK * target.stat().st_size + 100_000


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

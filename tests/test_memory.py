"""Memory and disk do not grow with the length of a film; `benchmarks/memory.py` has ten minutes."""

from pathlib import Path

import pytest

from vidrestore import load_settings, restore_video

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

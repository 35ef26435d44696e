"""What a stage did with its time: at work, without input, or without room."""

import json
import time

import pytest
from helpers.media import mild_image, write_video

from vidrestore.cli import main
from vidrestore.common.stage_times import StageTime
from vidrestore.common.threads import StageThreads
from vidrestore.restoration.statistics import RestorationStats

COUNT, STEP_SECONDS = 40, 0.005


def slowly(items):
    for item in items:
        time.sleep(STEP_SECONDS)
        yield item


def squared(items):
    yield from (item**2 for item in items)


def test_the_slow_stage_is_the_busy_one_and_the_others_wait():
    with StageThreads(caller="last") as threads:
        first = threads.background(squared(range(COUNT)), depth=1, name="first")
        second = threads.background(slowly(first), depth=1, name="second")
        assert len(list(second)) == COUNT
    times = threads.times
    assert list(times) == ["first", "second", "last"]
    least = COUNT * STEP_SECONDS
    assert times["second"].busy_seconds >= least
    assert times["second"].processor_seconds < times["second"].busy_seconds
    assert times["first"].held_seconds >= 0.8 * least
    assert times["last"].starved_seconds >= 0.8 * least
    assert [own.items for own in times.values()] == [COUNT, COUNT, 0]


def test_several_threads_of_one_stage_wait_for_their_turn():
    with StageThreads() as threads:
        works = [lambda item: item, lambda item: item]
        assert len(list(threads.each(slowly(range(COUNT)), works, depth=2, name="look"))) == COUNT
    lanes = threads.times["look 0"], threads.times["look 1"]
    assert [lane.items for lane in lanes] == [COUNT // 2, COUNT // 2]
    # Both see the source sleep: the one that asks it as its own work, the other as no input.
    assert sum(lane.starved_seconds for lane in lanes) >= 0.4 * COUNT * STEP_SECONDS


def test_a_stage_that_breaks_keeps_what_it_did():
    def broken(items):
        yield from slowly(items)
        raise ValueError

    with pytest.raises(ValueError), StageThreads() as threads:  # noqa: PT011
        for _ in threads.background(broken(range(3)), depth=1, name="broken"):
            pass
    assert threads.times["broken"].items == 3
    assert threads.times["broken"].busy_seconds >= 3 * STEP_SECONDS


def test_parts_add_up():
    tally, whole = RestorationStats(), RestorationStats()
    tally.add_stages({"decode": StageTime(3, 1.0, 0.5, 0.25, 0.125)})
    for _ in range(2):
        whole.add(json.loads(json.dumps(tally.as_dict())))
    assert whole.stages == {"decode": StageTime(6, 2.0, 1.0, 0.5, 0.25)}
    assert whole.stages["decode"].seconds == 2.75


def test_the_command_says_it_of_both_passes(tmp_path, capsys):
    images = [mild_image(96, 64, "yuv420p", i) for i in range(6)]
    source = write_video(tmp_path / "source.mkv", images)
    how = ["restore", str(source), "--overwrite", "--restorer", "fusion", "--detector", "haar",
           "--set", "detect.remember=false"]  # fmt: skip
    for more in (["--stage-times"], ["--json"], []):
        with pytest.raises(SystemExit) as leaving:
            main([*how, str(tmp_path / "out.mkv"), *more])
        assert leaving.value.code in (0, None)
        said = capsys.readouterr()
        if more == ["--json"]:
            events = [json.loads(line) for line in said.out.splitlines()]
            stages = [event for event in events if event["event"] == "stages"]
            assert [event["pass"] for event in stages] == ["analyze", "restore"]
            # Without faces, frames go from the decoder to the encoder.
            assert list(stages[1]["stages"]) == ["decode", "encode"]
            assert stages[1]["stages"]["decode"]["items"] == 6
            assert stages[1]["processor_seconds"] > 0
        else:
            assert ("no input" in said.err and "encode" in said.err) == bool(more)

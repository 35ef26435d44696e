"""StageThreads: order, bounds, errors, and that nothing outlives the scope."""

import contextlib
import itertools
import random
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pytest
from helpers.beats import Beats
from helpers.videos import stage_threads

from vidrestore.common.errors import VidrestoreError
from vidrestore.common.threads import RunEach, StageThreads, _Channel

_PATIENCE_SECONDS = 60  # for what must happen; only a defect waits that long
_PROMPT_SECONDS = 2
STAGES = ("first", "second", "third")


class StageError(Exception):
    pass


def passing(items: Iterable[int]) -> Iterator[int]:
    yield from items


def breaks_at(bad: int, items: Iterable[int]) -> Iterator[int]:
    for item in items:
        if item == bad:
            raise StageError(f"at {item}")
        yield item


def pipeline(
    threads: StageThreads, items: Iterable[int], bad_stage: str | None = None, depth: int = 2
) -> Iterator[int]:
    """Three stages after one another, of which one may break at item 5."""
    for name in STAGES:
        stage = breaks_at(5, items) if name == bad_stage else passing(items)
        items = threads.background(stage, depth=depth, name=name)
    return iter(items)


def within(seconds: float, work: Callable[[], object]) -> None:
    """Fail instead of hanging where `work` does not end."""
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(seconds)
    assert not worker.is_alive(), f"still at work after {seconds} s"


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_items_arrive_once_and_in_order(depth: int) -> None:
    with StageThreads() as threads:
        assert list(pipeline(threads, range(200), depth=depth)) == list(range(200))


def test_no_item_is_an_item_of_its_own_kind() -> None:
    """None and an exception that is yielded, not raised, are items like any other."""
    items = [None, StageError("harmless"), StopIteration()]
    with StageThreads() as threads:
        assert list(threads.background(items, depth=2, name="odd")) == items


@pytest.mark.parametrize("depth", [1, 3])
def test_reads_ahead_as_far_as_depth_and_no_further(depth: int) -> None:
    used = 0
    furthest = 0
    is_full = threading.Event()

    def make() -> Iterator[int]:
        nonlocal furthest
        for item in range(10_000):
            furthest = max(furthest, item + 1 - used)
            if item == depth:  # `depth` items wait in the queue, and one more is in hand
                is_full.set()
            yield item

    with StageThreads() as threads:
        items = threads.background(make(), depth=depth, name="make")
        assert is_full.wait(_PATIENCE_SECONDS), "the stage does not run ahead"
        time.sleep(0.2)  # an unbounded stage would come far in this time
        assert furthest == depth + 1
        for _ in itertools.islice(items, 50):
            used += 1
    assert furthest <= depth + 2


@pytest.mark.parametrize("bad_stage", STAGES)
def test_an_error_follows_the_items_before_it(bad_stage: str, beats: Beats) -> None:
    seen: list[int] = []
    with pytest.raises(StageError), StageThreads() as threads:
        seen.extend(pipeline(threads, itertools.count(), bad_stage))
    assert seen == [0, 1, 2, 3, 4]
    assert beats.seconds < _PROMPT_SECONDS
    assert stage_threads() == []


@pytest.mark.parametrize("bad_stage", STAGES)
def test_an_error_keeps_its_own_traceback(bad_stage: str) -> None:
    with pytest.raises(StageError) as raised, StageThreads() as threads:
        list(pipeline(threads, itertools.count(), bad_stage))
    frames = traceback.extract_tb(raised.value.__traceback__)
    assert frames[-1].name == "breaks_at"
    assert "raise StageError" in (frames[-1].line or "")


def test_an_error_arrives_while_the_source_is_blocked() -> None:
    """The broken stage does not wait for the one above it, which here never goes on by itself."""
    release, arrived = threading.Event(), threading.Event()

    def stuck() -> Iterator[int]:
        yield 5
        release.wait(_PATIENCE_SECONDS)

    def run() -> None:
        with StageThreads() as threads:
            try:
                list(pipeline(threads, stuck(), "second"))
            except StageError:
                arrived.set()
            release.set()

    within(_PATIENCE_SECONDS / 2, run)
    assert arrived.is_set()


def leave_by_break(items: Iterator[int]) -> None:
    for item in items:
        if item == 5:
            break


def leave_by_error(items: Iterator[int]) -> None:
    for item in items:
        if item == 5:
            raise StageError


def leave_by_interrupt(items: Iterator[int]) -> None:
    for item in items:
        if item == 5:
            raise KeyboardInterrupt


def leave_untouched(items: Iterator[int]) -> None:
    """The stages have been started all the same."""


LEAVING = [
    (leave_by_break, None),
    (leave_by_error, StageError),
    (leave_by_interrupt, KeyboardInterrupt),
    (leave_untouched, None),
]


@pytest.mark.parametrize(("leave", "error"), LEAVING)
def test_leaving_stops_and_joins_all(
    leave: Callable[[Iterator[int]], None], error: type[BaseException] | None, beats: Beats
) -> None:
    try:
        with StageThreads() as threads:
            leave(pipeline(threads, itertools.count()))
        raised = None
    except (StageError, KeyboardInterrupt) as left_with:
        raised = type(left_with)
    assert raised is error
    assert stage_threads() == []
    assert beats.seconds < _PROMPT_SECONDS


@pytest.mark.parametrize(("leave", "error"), LEAVING)
def test_every_stage_cleans_up_in_its_own_thread(
    leave: Callable[[Iterator[int]], None], error: type[BaseException] | None
) -> None:
    ran: dict[str, set[str]] = {name: set() for name in STAGES}
    cleaned: dict[str, str] = {}
    started = {name: threading.Event() for name in STAGES}
    kept: list[Iterator[int]] = []  # so that it is not its end that cleans a stage up

    def stage(name: str, items: Iterable[int]) -> Iterator[int]:
        try:
            for item in items:
                ran[name].add(threading.current_thread().name)
                started[name].set()
                yield item
        finally:
            cleaned[name] = threading.current_thread().name

    def run() -> None:
        with StageThreads() as threads:
            items: Iterable[int] = itertools.count()
            for name in STAGES:
                kept.append(stage(name, items))
                items = threads.background(kept[-1], depth=2, name=name)
            assert all(event.wait(_PATIENCE_SECONDS) for event in started.values())
            leave(iter(items))

    if error is None:
        run()
    else:
        with pytest.raises(error):
            run()
    assert cleaned == {name: name for name in STAGES}
    assert ran == {name: {name} for name in STAGES}


def test_a_stage_that_ends_early_lets_the_ones_above_it_go() -> None:
    with StageThreads() as threads:
        endless = threads.background(itertools.count(), depth=1, name="endless")
        few = threads.background(itertools.islice(endless, 3), depth=1, name="few")
        assert list(few) == [0, 1, 2]
    assert stage_threads() == []


def test_a_stage_that_waits_for_room_makes_several_items_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To wake a thread costs more than an item; half of the room is free before it is woken."""
    made: list[int] = []
    is_waiting, wait_for_room = threading.Event(), _Channel._wait_for_room

    def waiting(channel: _Channel) -> None:
        is_waiting.set()
        wait_for_room(channel)

    monkeypatch.setattr(_Channel, "_wait_for_room", waiting)

    def make() -> Iterator[int]:
        for item in range(40):
            made.append(item)
            yield item

    def is_made(count: int) -> bool:
        until = time.monotonic() + _PATIENCE_SECONDS
        while len(made) < count and time.monotonic() < until:
            time.sleep(0.002)
        return len(made) == count

    with StageThreads() as threads:
        items = threads.background(make(), depth=8, name="make")
        assert is_waiting.wait(_PATIENCE_SECONDS)
        assert len(made) == 9  # eight wait, and one is in hand
        assert [next(items) for _ in range(3)] == [0, 1, 2]
        time.sleep(0.2)
        assert len(made) == 9
        assert next(items) == 3
        assert is_made(13)


def test_stages_run_at_the_same_time() -> None:
    """All three wait for each other, each at an item of its own: in turns none would go on."""
    together = threading.Barrier(3)

    def meets_at(item: int, items: Iterable[int]) -> Iterator[int]:
        for current in items:
            if current == item:
                together.wait(_PATIENCE_SECONDS)
            yield current

    with StageThreads() as threads:
        ahead = threads.background(meets_at(2, range(5)), depth=2, name="ahead")
        behind = threads.background(meets_at(1, ahead), depth=2, name="behind")
        assert list(meets_at(0, behind)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("seed", range(30))
def test_no_order_of_events_hangs(seed: int) -> None:
    chance = random.Random(seed)
    outcomes: list[str] = []

    def jittery(items: Iterable[int], bad: int, pauses: random.Random) -> Iterator[int]:
        for item in items:
            if item == bad:
                raise StageError
            if pauses.random() < 0.2:
                time.sleep(pauses.random() / 500)
            yield item

    def run() -> None:
        bad_stage, bad_item = chance.randrange(6), chance.randrange(40)
        stop = chance.randrange(20, 60)
        try:
            with StageThreads() as threads:
                items: Iterable[int] = range(50)
                for number in range(4):
                    bad = bad_item if number == bad_stage else -1
                    stage = jittery(items, bad, random.Random(chance.random()))
                    depth = chance.randrange(1, 5)
                    items = threads.background(stage, depth=depth, name=f"stage {number}")
                seen = list(itertools.islice(items, stop))
            outcomes.append("whole" if seen == list(range(min(stop, 50))) else f"wrong {seen}")
        except StageError:
            outcomes.append("error" if bad_stage < 4 else "an error from nowhere")

    within(_PATIENCE_SECONDS, run)
    assert outcomes in (["whole"], ["error"])
    assert stage_threads() == []


def slowly(seed: int) -> Callable[[int], int]:
    random_waits = random.Random(seed)

    def work(item: int) -> int:
        time.sleep(random_waits.choice([0, 0, 0.002]))
        return item

    return work


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 4, 23])
def test_each_gives_every_result_once_and_in_order(workers: int, count: int) -> None:
    with StageThreads() as threads:
        works = [slowly(seed) for seed in range(workers)]
        made = threads.each(range(count), works, depth=2, name="work")
        assert list(made) == list(range(count))


def test_each_works_at_the_same_time() -> None:
    meet = threading.Barrier(3)

    def work(item: int) -> int:
        meet.wait(_PATIENCE_SECONDS)
        return item

    with StageThreads() as threads:
        assert list(threads.each(range(6), [work] * 3, depth=1, name="work")) == list(range(6))


def test_each_runs_ahead_no_further_than_it_says() -> None:
    dealt = []

    def items() -> Iterator[int]:
        for item in range(100):
            dealt.append(item)
            yield item

    with StageThreads() as threads:
        results = threads.each(items(), [abs] * 2, depth=3, name="work")
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        time.sleep(0.2)
        # In each lane the queue, one that waits to be put, and what was read.
        assert len(dealt) <= 3 + 2 * (3 + 1)


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("bad", [0, 4, 9])
@pytest.mark.parametrize("where", ["items", "work"])
def test_an_error_in_each_follows_the_items_before_it(workers: int, bad: int, where: str) -> None:
    def work(item: int) -> int:
        if where == "work" and item == bad:
            raise StageError(f"at {item}")
        return item

    items = breaks_at(bad, range(20)) if where == "items" else iter(range(20))
    came = []
    with pytest.raises(StageError), StageThreads() as threads:
        came.extend(threads.each(items, [work] * workers, depth=2, name="work"))
    assert came == list(range(bad))
    assert not stage_threads()


@pytest.mark.parametrize(("leave", "error"), LEAVING)
def test_leaving_each_stops_all(leave: Callable[[Iterator[int]], None], error: Any) -> None:
    with contextlib.suppress(*([error] if error else [])), StageThreads() as threads:
        leave(threads.each(itertools.count(), [slowly(s) for s in range(3)], depth=2, name="work"))
    assert not stage_threads()


@pytest.mark.parametrize("helpers", [0, 1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_together_gives_every_result_in_order(helpers: int, count: int) -> None:
    with StageThreads() as threads:
        run_each = threads.together(helpers, name="work")
        for _ in range(3):
            assert run_each([partial(slowly(k), k) for k in range(count)]) == list(range(count))
    assert not stage_threads()


def test_helpers_whose_calls_are_taken_from_them_end_with_the_scope() -> None:
    def run() -> None:
        with StageThreads() as threads:
            run_each = threads.together(2, name="work")
            until = time.monotonic() + 1.0
            while time.monotonic() < until:
                assert run_each([partial(abs, k) for k in range(3)]) == [0, 1, 2]
        assert not stage_threads()

    within(_PATIENCE_SECONDS, run)


def test_together_works_at_the_same_time_and_lends_a_hand() -> None:
    meet = threading.Barrier(3)

    def work(item: int) -> int:
        meet.wait(_PATIENCE_SECONDS)
        return item

    with StageThreads() as threads:
        run_each = threads.together(2, name="work")
        assert run_each([partial(work, k) for k in range(3)]) == [0, 1, 2]


@pytest.mark.parametrize("error", [StageError("no"), TimeoutError("no")])
@pytest.mark.parametrize("bad", [0, 3])
def test_an_error_in_calls_together_reaches_the_caller(error: Exception, bad: int) -> None:
    def work(item: int) -> int:
        if item == bad:
            raise error
        return item

    def run() -> None:
        with pytest.raises(type(error)), StageThreads() as threads:
            threads.together(2, name="work")([partial(work, k) for k in range(5)])

    within(_PATIENCE_SECONDS, run)
    assert not stage_threads()


def test_leaving_ends_a_stage_that_waits_for_its_helpers() -> None:
    begun, is_left = threading.Event(), threading.Event()

    def block(in_helper: list[bool]) -> None:
        # The stage itself comes back at once, and waits for the helper.
        if threading.current_thread().name.startswith("help"):
            in_helper.append(True)
            begun.set()
            is_left.wait(_PATIENCE_SECONDS)
        else:
            begun.wait(_PATIENCE_SECONDS)

    def items(run_each: RunEach, seen: list[bool]) -> Iterator[int]:
        run_each([partial(block, seen)] * 2)
        yield 1

    def run() -> None:
        seen: list[bool] = []
        with StageThreads() as threads:
            threads.background(items(threads.together(1, name="help"), seen), depth=1, name="stage")
            assert begun.wait(_PATIENCE_SECONDS)
            (stage,) = (each for each in stage_threads() if each.name == "stage")
            threading.Thread(target=lambda: (stage.join(), is_left.set())).start()
        assert is_left.is_set()
        assert seen == [True]

    within(_PATIENCE_SECONDS, run)
    assert not stage_threads()


def test_a_thread_that_cannot_be_started_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def run() -> None:
        with StageThreads() as threads:
            first = threads.background(itertools.count(), depth=1, name="first")
            monkeypatch.setattr(threading.Thread, "start", full)
            threads.background(first, depth=1, name="second")

    with pytest.raises(VidrestoreError, match=r"^the thread 'second' cannot be started"):
        run()
    assert stage_threads() == []


def test_an_interruption_while_leaving_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    join, interruptions = threading.Thread.join, [KeyboardInterrupt]

    def interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
        if interruptions:
            raise interruptions.pop()
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt), StageThreads() as threads:
        list(itertools.islice(pipeline(threads, itertools.count()), 3))
    assert stage_threads() == []

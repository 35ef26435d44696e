"""Threads for pipeline stages, which never outlive the pipeline."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import cycle
from types import TracebackType
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from vidrestore.common.errors import VidrestoreError
from vidrestore.common.events import OnEvent, PassTimes
from vidrestore.common.stage_times import StageTime

S = TypeVar("S")
T = TypeVar("T")


class RunEach(Protocol):
    """Calls functions that do not depend on each other."""

    def __call__(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """Call each function once.

        Args:
            calls: The functions.

        Returns:
            Their results, in order.
        """
        ...


def in_turn(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Call functions one after the other.

    Args:
        calls: The functions.

    Returns:
        Their results, in order.
    """
    return [call() for call in calls]


_POLL_SECONDS = 0.05  # longest wait before a blocked thread notices that the scope is left


class _Failure(NamedTuple):
    """Follows the last item of a stage that raised an error."""

    error: BaseException


class _End:
    """Follows the last item of a stage that succeeded."""


class _Cancelled(BaseException):
    """Unwinds a stage whose scope has ended; it never reaches the caller."""


class _Channel:
    """Hands items from one thread to another one, which may be behind by a number of items.

    To wake a thread costs more than to hand an item over. A writer that waits for room is therefore
    woken only when half of the items are gone, and then makes several at once.
    """

    def __init__(self, depth: int, left: threading.Event) -> None:
        """Open the channel.

        Args:
            depth: The most items that wait in it, at least 1.
            left: Is set where the scope ends.
        """
        self._depth = depth
        self._left = left
        self._items = deque[Any]()
        self._changed = threading.Condition()
        self._reader_waits = self._writer_waits = False

    def put(self, item: Any, time_of_writer: StageTime) -> None:
        """Add an item; wait for room if there is none.

        Args:
            item: The item.
            time_of_writer: Gets the seconds of the wait.

        Raises:
            _Cancelled: The scope has ended.
        """
        if self._left.is_set():
            raise _Cancelled
        if len(self._items) >= self._depth:
            began = time.perf_counter()
            try:
                self._wait_for_room()
            finally:
                time_of_writer.held_seconds += time.perf_counter() - began
        # In this order: the reader says that it waits before it looks for items.
        self._items.append(item)
        if self._reader_waits:
            with self._changed:
                self._changed.notify()

    def take(self, time_of_reader: StageTime) -> Any:
        """Take the next item; wait for it if there is none.

        Args:
            time_of_reader: Gets the seconds of the wait.

        Returns:
            The item.

        Raises:
            _Cancelled: The scope has ended.
        """
        if self._left.is_set():
            raise _Cancelled
        if not self._items:
            began = time.perf_counter()
            try:
                self._wait_for_item()
            finally:
                time_of_reader.starved_seconds += time.perf_counter() - began
        item = self._items.popleft()
        if self._writer_waits and len(self._items) <= self._depth // 2:
            with self._changed:
                self._changed.notify()
        return item

    def _wait_for_room(self) -> None:
        with self._changed:
            self._writer_waits = True
            while len(self._items) > self._depth // 2:
                self._wait()
            self._writer_waits = False

    def _wait_for_item(self) -> None:
        with self._changed:
            self._reader_waits = True
            while not self._items:
                self._wait()
            self._reader_waits = False

    def _wait(self) -> None:
        """Wait until the other thread did something, or for a short time."""
        if self._left.is_set():
            raise _Cancelled
        self._changed.wait(_POLL_SECONDS)


class _Distributor:
    """Distributes the items of an iterator to several threads in turn."""

    def __init__(
        self,
        items: Iterator[Any],
        count: int,
        left: threading.Event,
        own_time: Callable[[], StageTime],
    ) -> None:
        self._items = items
        self._own_time = own_time
        self._count = count
        self._left = left
        self._turn = threading.Condition()
        self._next_thread = 0
        self._is_over = False

    def items_of(self, k: int) -> Iterator[Any]:
        """Yield the items k, k + n, k + 2 n and so on, where n is the number of threads."""
        while True:
            began = time.perf_counter()
            with self._turn:  # which the thread holds that waits for an item
                while self._next_thread != k and not self._is_over:
                    if self._left.is_set():
                        raise _Cancelled
                    self._turn.wait(_POLL_SECONDS)
                self._own_time().starved_seconds += time.perf_counter() - began
                if self._is_over:
                    return
                try:
                    item = next(self._items, _End)
                    self._is_over = item is _End
                except BaseException:
                    self._is_over = True
                    raise
                finally:
                    self._next_thread = (k + 1) % self._count
                    self._turn.notify_all()
            if item is _End:
                return
            yield item


class StageThreads:
    """Owns all stage threads of a pipeline: the end of the `with` block stops and joins them.

    Each call of `background` runs the stages before it in a thread of their own. A queue of at most
    `depth` items connects that thread to its reader. An error in a stage is raised in its reader,
    with its own traceback, after all items that came before it, and so passes from stage to stage
    to the caller. An error in the caller, Ctrl-C included, ends the scope and stops all stages.

    Memory: each boundary holds at most depth + 2 items: the queue, one that is being made, and one
    that is in use.

    Args:
        caller: The name of the stage that runs in the thread of the `with` block; default
            "caller".
    """

    def __init__(self, caller: str = "caller") -> None:
        self._left = threading.Event()
        self._threads: list[threading.Thread] = []
        self._local = threading.local()
        self._as_caller = self._clocked(caller)
        self.times: dict[str, StageTime] = {}
        """Name of a stage -> its times, in the order of the pipeline; final after the scope."""

    def __enter__(self) -> StageThreads:
        self._as_caller.__enter__()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._as_caller.__exit__(None, None, None)
        finally:
            self._join()
        # The caller comes last and was entered first.
        caller = next(iter(self.times))
        self.times[caller] = self.times.pop(caller)

    def _join(self) -> None:
        """Stop all threads and wait for each, even if Ctrl-C comes at the same time."""
        try:
            self._left.set()
            for thread in self._threads:
                thread.join()
        except KeyboardInterrupt:
            self._join()
            raise

    def background(self, items: Iterable[T], *, depth: int, name: str) -> Iterator[T]:
        """Compute items in a thread of their own, ahead of their reader.

        Args:
            items: The iterable that the thread runs through, and closes at the end.
            depth: The number of items by which the thread may run ahead, at least 1.
            name: The name of the stage and of the thread.

        Returns:
            An iterator over the items, in order.

        Raises:
            VidrestoreError: The thread cannot be started.
        """
        results = _Channel(depth, self._left)

        def run() -> None:
            with self._clocked(name):
                try:
                    for item in items:
                        self._put(results, item)
                        self._own_time().items += 1
                    self._put(results, _End)
                except _Cancelled:
                    pass
                except BaseException as error:
                    self._report(results, _Failure(error))
                finally:
                    # The thread that ran the stage closes it, so that its `finally` runs at once.
                    close = getattr(items, "close", None)
                    if close is not None:
                        close()

        self._start_thread(run, name)
        return self._take(results)

    def _start_thread(self, run: Callable[[], None], name: str) -> None:
        self.times.setdefault(name, StageTime())  # in the order of the pipeline
        thread = threading.Thread(target=run, name=name, daemon=True)
        try:
            thread.start()
        except (MemoryError, RuntimeError) as error:
            raise VidrestoreError(
                f"the thread {name!r} cannot be started ({error or 'out of memory'}): there is not "
                "enough memory, or too many threads run; free some and run the command again"
            ) from error
        self._threads.append(thread)

    def each(
        self, items: Iterable[S], works: Sequence[Callable[[S], T]], *, depth: int, name: str
    ) -> Iterator[T]:
        """Apply functions to items in several threads, and keep the order.

        The threads run ahead of the reader by at most len(works) * (depth + 1) items together.

        Args:
            items: The items.
            works: The functions, one for each thread. Of n functions, the k-th one receives the
                items k, k + n, k + 2 n and so on.
            depth: The number of results by which each thread may run ahead, at least 1.
            name: The name of the stage; a number is appended for each thread.

        Returns:
            An iterator over the results, in the order of the items.

        Raises:
            VidrestoreError: A thread cannot be started.
        """
        distributor = _Distributor(iter(items), len(works), self._left, self._own_time)
        return _dealt(
            [
                self.background(map(work, distributor.items_of(k)), depth=depth, name=f"{name} {k}")
                for k, work in enumerate(works)
            ]
        )

    def together(self, helpers: int, *, name: str) -> RunEach:
        """Start threads that help another thread to call functions.

        The function that is returned waits until all calls are done, and raises the error of the
        first one that failed. It works on the calls, too, and gives single calls to no helper.

        Args:
            helpers: The number of threads that help; 0: none, and the calls are made in turn.
            name: The name of the stage; a number is appended for each thread.

        Returns:
            The function; only one thread may use it at a time.

        Raises:
            VidrestoreError: A thread cannot be started.
        """
        if helpers == 0:
            return in_turn
        # A SimpleQueue waits forever where its time is over when another thread takes the item.
        waiting: queue.Queue[Callable[[], None]] = queue.Queue()
        for k in range(helpers):
            self._start_thread(partial(self._help, waiting, f"{name} {k}"), f"{name} {k}")

        def run_each(calls: Sequence[Callable[[], T]]) -> list[T]:
            if len(calls) < 2:
                return in_turn(calls)
            results: list[Future[T]] = [Future() for _ in calls]
            for result, call in zip(results, calls, strict=True):
                waiting.put(partial(_settle, result, call))
            with suppress(queue.Empty):
                while True:
                    waiting.get_nowait()()
            return [self._result(each) for each in results]

        return run_each

    def _help(self, waiting: queue.Queue[Callable[[], None]], name: str) -> None:
        """Make the calls that wait, until the scope ends."""
        with self._clocked(name):
            while not self._left.is_set():
                began = time.perf_counter()
                try:
                    call = waiting.get(timeout=_POLL_SECONDS)
                except queue.Empty:
                    continue
                finally:
                    self._own_time().starved_seconds += time.perf_counter() - began
                call()
                self._own_time().items += 1

    def _result(self, future: Future[T]) -> T:
        """Wait for a result; raise _Cancelled where the scope has ended."""
        began = time.perf_counter()
        try:
            while not self._left.is_set():
                if wait([future], timeout=_POLL_SECONDS).done:
                    return future.result()
            raise _Cancelled
        finally:
            self._own_time().starved_seconds += time.perf_counter() - began

    @contextmanager
    def _clocked(self, name: str) -> Iterator[None]:
        """Count the seconds of this thread as those of the stage `name`."""
        total = self.times.setdefault(name, StageTime())
        own = self._local.time = StageTime()
        wall, processor = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            own.processor_seconds = time.thread_time() - processor
            own.busy_seconds = time.perf_counter() - wall - own.starved_seconds - own.held_seconds
            total.add(own)

    def _own_time(self) -> StageTime:
        """Return the times of this thread; a new object where it is not a thread of the scope."""
        return getattr(self._local, "time", None) or StageTime()

    def _put(self, results: _Channel, item: object) -> None:
        """Put an item into a channel; raise _Cancelled where the scope has ended."""
        results.put(item, self._own_time())

    def _report(self, results: _Channel, failure: _Failure) -> None:
        """Put a failure into a channel, unless the scope has ended."""
        with suppress(_Cancelled):
            self._put(results, failure)

    def _take(self, results: _Channel) -> Iterator[Any]:
        """Yield the items of a channel, and raise the error of its stage, if any."""
        while True:
            item = results.take(self._own_time())
            if item is _End:
                return
            if isinstance(item, _Failure):
                raise item.error
            yield item


def _dealt(lanes: Sequence[Iterator[T]]) -> Iterator[T]:
    """Yield an item of each iterator in turn, until one ends."""
    for lane in cycle(lanes):
        item = next(lane, _End)
        if item is _End:
            return
        yield cast(T, item)


def _settle(result: Future[T], call: Callable[[], T]) -> None:
    """Call a function, and keep its result or its error."""
    try:
        result.set_result(call())
    except BaseException as error:
        result.set_exception(error)


class Stopwatch:
    """Measures the time of a pass, from the creation of the object."""

    def __init__(self) -> None:
        self._wall, self._processor = time.monotonic(), time.process_time()

    def report(self, on_event: OnEvent | None, name: str, stages: Mapping[str, StageTime]) -> None:
        """Report the times of the pass and of its stages as an event.

        Args:
            on_event: Receives the event (`PassTimes`); None: nothing is reported.
            name: The name of the pass, such as "restore".
            stages: Name of a stage -> its times.
        """
        if on_event is not None:
            on_event(
                PassTimes(
                    name,
                    seconds=time.monotonic() - self._wall,
                    processor_seconds=time.process_time() - self._processor,
                    stages={each: replace(own) for each, own in stages.items()},
                )
            )

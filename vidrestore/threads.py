"""Run pipeline stages in threads that never outlive the pipeline."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import cycle
from types import TracebackType
from typing import Any, NamedTuple, TypeVar, cast

S = TypeVar("S")
T = TypeVar("T")

_POLL_SECONDS = 0.05  # longest wait before a blocked thread notices that the scope is left


class _Failure(NamedTuple):
    error: BaseException


class _End:
    """Follows the last item of a stage."""


class _Cancelled(BaseException):
    """Unwinds a stage whose scope has been left; no caller ever sees it."""


class _Deal:
    """Gives the items of an iterator to several threads, turn by turn."""

    def __init__(self, items: Iterator[Any], lanes: int, left: threading.Event) -> None:
        self._items = items
        self._lanes = lanes
        self._left = left
        self._turn = threading.Condition()
        self._next_lane = 0
        self._is_over = False

    def lane(self, k: int) -> Iterator[Any]:
        while True:
            with self._turn:
                while self._next_lane != k and not self._is_over:
                    if self._left.is_set():
                        raise _Cancelled
                    self._turn.wait(_POLL_SECONDS)
                if self._is_over:
                    return
                try:
                    item = next(self._items, _End)
                    self._is_over = item is _End
                except BaseException:
                    self._is_over = True
                    raise
                finally:
                    self._next_lane = (k + 1) % self._lanes
                    self._turn.notify_all()
            if item is _End:
                return
            yield item


class StageThreads:
    """The one owner of all stage threads: leaving the `with` block stops and joins them.

    Each `background` line puts the stages above it into a thread of their own, joined to the
    reader by a queue of at most `depth` items. An error in any stage is raised in the reader, with
    its own traceback, after every item that came before it; from there it travels stage by
    stage to the caller. An error in the caller, Ctrl-C included, leaves the scope and stops all.

    Memory: each boundary holds at most depth + 2 items (the queue, one being made, one being used).
    """

    def __init__(self) -> None:
        self._left = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> StageThreads:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._left.set()
        for thread in self._threads:
            thread.join()

    def background(self, items: Iterable[T], *, depth: int, name: str) -> Iterator[T]:
        """Yield `items` in order, computed by a thread named `name` at most `depth` items ahead."""
        results: queue.Queue[T | _Failure | type[_End]] = queue.Queue(maxsize=depth)

        def run() -> None:
            try:
                for item in items:
                    self._put(results, item)
                self._put(results, _End)
            except _Cancelled:
                pass
            except BaseException as error:
                self._report(results, _Failure(error))
            finally:
                # Closed here, in the thread that ran it, so that a stage's `finally` runs at once.
                close = getattr(items, "close", None)
                if close is not None:
                    close()

        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()
        return self._take(results)

    def each(
        self, items: Iterable[S], works: Sequence[Callable[[S], T]], *, depth: int, name: str
    ) -> Iterator[T]:
        """Yield work(item) in order; each of `works` has a thread and every so-manieth item.

        Together they run at most len(works) * (depth + 1) items ahead.
        """
        deal = _Deal(iter(items), len(works), self._left)
        lanes = [
            self.background(map(work, deal.lane(k)), depth=depth, name=f"{name} {k}")
            for k, work in enumerate(works)
        ]
        for lane in cycle(lanes):
            item = next(lane, _End)
            if item is _End:
                return
            yield cast(T, item)

    def _put(self, results: queue.Queue[T], item: T) -> None:
        while not self._left.is_set():
            try:
                return results.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
        raise _Cancelled

    def _report(self, results: queue.Queue[T], failure: T) -> None:
        try:
            self._put(results, failure)
        except _Cancelled:
            return

    def _take(self, results: queue.Queue[T | _Failure | type[_End]]) -> Iterator[T]:
        while not self._left.is_set():
            try:
                item = results.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if item is _End:
                return
            if isinstance(item, _Failure):
                raise item.error
            yield cast(T, item)
        raise _Cancelled

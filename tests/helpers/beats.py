"""A clock that stands still while the process gets no time."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_BEAT_SECONDS = 0.01


class Beats:
    """Counts short sleeps in a thread of its own. While the process is stopped, or waits for a
    processor that others use, it counts little or nothing."""

    def __init__(self) -> None:
        self._count = 0

    @property
    def seconds(self) -> float:
        """The time so far."""
        return self._count * _BEAT_SECONDS

    def beat(self) -> None:
        time.sleep(_BEAT_SECONDS)
        self._count += 1


@contextmanager
def beating() -> Iterator[Beats]:
    """A clock that goes until the end of the scope."""
    beats, is_over = Beats(), threading.Event()

    def run() -> None:
        while not is_over.is_set():
            beats.beat()

    thread = threading.Thread(target=run, name="beats", daemon=True)
    thread.start()
    try:
        yield beats
    finally:
        is_over.set()
        thread.join()

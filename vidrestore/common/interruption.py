"""What a signal to end does to a command: it unwinds once, however many signals come."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from contextlib import suppress
from types import FrameType

STATUS = 130
"""With which an interrupted command ends."""

_AT_ONCE_SIGNALS = 3
_AT_ONCE_SECONDS = 1.0
_POSTPONED_SECONDS = 0.02
_MOST_POSTPONED_SECONDS = 5.0
# In these an exception would leave something half removed, or be lost.
_UNDISTURBED = ("__exit__", "__del__")


class Interruption:
    """SIGINT, SIGTERM and SIGHUP as one KeyboardInterrupt, raised in the main thread.

    The first signal raises it, at once or, where a scope is being left just then, after that.
    Those that follow are noted and do not disturb what is cleaned up. From the third on, a second
    or more after the first, the process ends at once; what it leaves, the next run removes.
    Once `settle` was called nothing is raised: the result is decided.

    It loads nothing, so that it can be installed before anything else is loaded.
    """

    def __init__(self) -> None:
        self._signals = 0
        self._first_at = 0.0
        self._is_done = False
        self.was_raised = False
        """Whether it was. Where a library makes another error of it, as imports of compiled modules
        do, that error is the interruption all the same."""

    def install(self) -> None:
        """From now on, until the process ends. What was told to be ignored (nohup) stays so."""
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is None:
                continue
            if name == "SIGTERM" or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._note)
                # The interpreter gives back the default at its end, which would kill the process.
                atexit.register(signal.signal, number, signal.SIG_IGN)
        if hasattr(signal, "SIGALRM"):
            signal.signal(signal.SIGALRM, self._retry)

    def settle(self) -> None:
        """Raise nothing from now on."""
        self._is_done = True
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        # Where the interruption went through code that was compiled from a text, as dataclasses
        # are, the interpreter would end by a signal of its own; the next such text clears that.
        eval("None")

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals == 1:
            self._first_at = time.monotonic()
        seconds = time.monotonic() - self._first_at
        if self._signals >= _AT_ONCE_SIGNALS and seconds >= _AT_ONCE_SECONDS:
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):
                    stream.flush()
            os._exit(STATUS)
        self._retry(number, frame)

    def _retry(self, number: int, frame: FrameType | None) -> None:
        if self._is_done or not self._signals:
            return
        waited = time.monotonic() - self._first_at
        can_wait = hasattr(signal, "setitimer") and waited < _MOST_POSTPONED_SECONDS
        if can_wait and _is_undisturbed(frame):
            signal.setitimer(signal.ITIMER_REAL, _POSTPONED_SECONDS)
            return
        self._is_done = self.was_raised = True
        raise KeyboardInterrupt


def _is_undisturbed(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name in _UNDISTURBED:
            return True
        frame = frame.f_back
    return False

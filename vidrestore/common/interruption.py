"""Interruption of a command by signals: one KeyboardInterrupt, however many signals come."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

STATUS = 130
"""The exit status of an interrupted command."""

_AT_ONCE_SIGNALS = 3
_AT_ONCE_SECONDS = 1.0
_POSTPONED_SECONDS = 0.02
_MOST_POSTPONED_SECONDS = 5.0
# An interruption inside such a function could leave a file half removed, or could be lost.
_UNDISTURBED = ("__exit__", "__del__")
# Functions, by package, that take hold of a process, a thread, a lock, a file or a scope. An
# interruption there would leave it without an owner, or an output in its place that the command
# disowns.
_TAKES_HOLD = {
    "subprocess": ("__init__",),
    "threading": ("start", "__enter__", "_acquire_restore"),
    "vidrestore": (
        "__enter__", "_start_thread", "_place_all", "place_together",
        "_begun", "_try_to_begin", "held_folder", "_taken_folder",
    ),
}  # fmt: skip


class Interruption:
    """Turns SIGINT, SIGTERM and SIGHUP into one KeyboardInterrupt in the main thread.

    The first signal raises it at once, or after what is under way at that moment: a scope that is
    being left, a process or a thread that is being started, a library that is being imported.
    Where the interpreter drops it, as in a callback of a weak reference, it is raised again later.
    Later signals are counted and do not disturb the cleanup. The third and later signals, if they
    come a second or more after the first, end the process at once; the next run removes what it
    leaves.
    Once the output is in its place (`expect_end`), the command gets five seconds to end as if there
    had been no signal. After `settle`, nothing is raised.

    This class imports no other module of vidrestore, so it can be installed before they are loaded.
    """

    def __init__(self) -> None:
        self._signals = 0
        self._first_at = 0.0
        self._is_done = False
        self._is_settled = False
        self._ends_soon = False
        self._show_dropped = sys.unraisablehook
        self.was_raised = False
        """Whether the KeyboardInterrupt was raised. A library may turn it into another error, as
        imports of compiled modules do; that error then stands for the interruption."""

    def install(self) -> None:
        """Handle the signals from now on; SIGINT and SIGHUP that are ignored (nohup) stay so."""
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is None:
                continue
            if name == "SIGTERM" or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._note)
                # At its end the interpreter restores the default, which would kill the process.
                atexit.register(signal.signal, number, signal.SIG_IGN)
        if hasattr(signal, "SIGALRM"):
            signal.signal(signal.SIGALRM, self._retry)
            self._show_dropped = sys.unraisablehook
            sys.unraisablehook = self._note_dropped

    def settle(self) -> None:
        """Raise nothing from now on."""
        self._is_done = self._is_settled = True
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        # If the exception passed through code that was compiled from a text, such as the methods
        # of dataclasses, the interpreter would end by a signal. Evaluating a text resets that.
        eval("None")

    def expect_end(self, is_near: bool) -> None:
        """See the function of this name."""
        self._ends_soon = is_near
        if not is_near:
            self._retry(signal.SIGTERM, None)  # it waited for the end of what came before

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
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

    def _note_dropped(self, dropped: UnraisableHookArgs) -> None:
        """Raise a KeyboardInterrupt again that was raised where nothing can be raised."""
        if not (self.was_raised and issubclass(dropped.exc_type, KeyboardInterrupt)):
            self._show_dropped(dropped)
        elif not self._is_settled:
            self._is_done = False
            signal.setitimer(signal.ITIMER_REAL, _POSTPONED_SECONDS)

    def _retry(self, number: int, frame: FrameType | None) -> None:
        """Raise the KeyboardInterrupt, or postpone it while nothing may be disturbed."""
        if self._is_done or not self._signals:
            return
        waited = time.monotonic() - self._first_at
        can_wait = hasattr(signal, "setitimer") and waited < _MOST_POSTPONED_SECONDS
        if can_wait and (self._ends_soon or _is_undisturbed(frame)):
            signal.setitimer(signal.ITIMER_REAL, _POSTPONED_SECONDS)
            return
        self._is_done = self.was_raised = True
        raise KeyboardInterrupt


def expect_end(is_near: bool) -> None:
    """Tell the handler of this process whether its command is about to end, if there is a handler.

    Args:
        is_near: True once the output is in its place: an interruption waits for the end of the
            command. False where more work begins: an interruption that waited is raised.

    Raises:
        KeyboardInterrupt: See `is_near`.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if isinstance(owner := getattr(handler, "__self__", None), Interruption):
        owner.expect_end(is_near)


def _is_undisturbed(frame: FrameType | None) -> bool:
    """Tell whether the stack includes code that must not be disturbed."""
    # What a generator holds by now, contextlib is about to hand over to a scope.
    if frame is not None and frame.f_globals.get("__name__") == "contextlib":
        return True
    while frame is not None:
        if frame.f_code.co_name in _UNDISTURBED or _takes_hold(frame) or _imports_library(frame):
            return True
        frame = frame.f_back
    return False


def _takes_hold(frame: FrameType) -> bool:
    """Tell whether a frame takes hold of a process, a thread, a lock, a file or a scope."""
    package = str(frame.f_globals.get("__name__")).partition(".")[0]
    return frame.f_code.co_name in _TAKES_HOLD.get(package, ())


def _imports_library(frame: FrameType) -> bool:
    """Tell whether a frame is the code of a module of a library that is being imported.

    C++ code that torch runs at its import ends the process where it meets an exception of Python.
    """
    caller = frame.f_back
    return (
        frame.f_code.co_name == "<module>"
        and caller is not None
        and caller.f_code.co_filename.startswith("<frozen importlib")
        and str(frame.f_globals.get("__name__")).partition(".")[0] != "vidrestore"
    )

"""The description of an open file that libavformat prints."""

from __future__ import annotations

import re
import threading
from typing import Any

import av.logging

_LIBAV_LEVEL = threading.Lock()
"""The lock of the thread that has changed the log level of libav."""


def description(container: Any) -> str:
    """Return what libavformat prints about an open file, with details that PyAV does not expose.

    libav prints the details only at the log level VERBOSE, and the level applies to the whole
    process. Messages of other threads in the meantime go into `dropped`. PyAV's own level stays at
    INFO: for each message that passes it, a thread of a decoder waits for the interpreter. Where
    another thread of the caller closes that decoder at this moment, the two wait for each other; so
    vidrestore is to be called from one thread at a time (docs/guide/python.md).

    Args:
        container: An opened PyAV container.

    Returns:
        The text.
    """
    with _LIBAV_LEVEL, av.logging.Capture(local=False) as dropped:
        level = av.logging.get_level()
        av.logging.set_libav_level(av.logging.VERBOSE)
        av.logging.set_level(av.logging.INFO)
        try:
            return str(container.dumps_format())
        finally:
            av.logging.set_level(level)
            av.logging.set_libav_level(av.logging.INFO)
            dropped.clear()


def stream_count(printed: str) -> int:
    """Count the streams in the description of a file, also those that PyAV does not know.

    Args:
        printed: The description.

    Returns:
        The number of streams.
    """
    return len(set(re.findall(r"^ *Stream #0:(\d+)\b", printed, re.MULTILINE)))

"""Events: what the program reports to the user while it works."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass

OnEvent = Callable[[dict[str, Any]], None]
"""Receives what the command line shows: {"event": "progress" or "notice", ...}."""


def notify(on_event: OnEvent | None, *messages: str) -> None:
    """Say each to whoever listens."""
    if on_event is not None:
        for message in messages:
            on_event({"event": "notice", "message": message})

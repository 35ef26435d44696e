"""What a Python program calls: restore, analyze, look at a moment, compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidrestore.analysis.pipeline import analyze_video
from vidrestore.common.events import OnEvent
from vidrestore.common.settings import Settings
from vidrestore.jobs.request import RestoreRequest
from vidrestore.jobs.run import run
from vidrestore.jobs.summary import Summary
from vidrestore.review.comparison import write_comparison
from vidrestore.review.preview import write_preview

__all__ = ["analyze_video", "restore", "restore_video", "write_comparison", "write_preview"]


def restore(request: RestoreRequest, on_event: OnEvent | None = None) -> Summary:
    """Carry out a request, and write the report where it asks for one.

    Args:
        request: What is asked for.
        on_event: Receives progress and notices; default: nobody does.

    Returns:
        What was done, and what was not.

    Raises:
        VidrestoreError: See `vidrestore.common.errors`.
    """
    if request.report is None:
        return run(request, on_event)
    from vidrestore.review.report import Reporter  # what it measures with takes a while to load

    return run(request, observer=Reporter(request.report, request, on_event))


def restore_video(
    source: str | Path,
    target: str | Path,
    settings: Settings | None = None,
    *,
    on_event: OnEvent | None = None,
    **options: Any,
) -> Summary:
    """Restore the faces of `source` and write the whole file anew as `target`.

    Args:
        source: A video, a picture, or numbered pictures by a pattern.
        target: The output.
        settings: Default: `Settings()`.
        on_event: Receives progress and notices; default: nobody does.
        **options: The other fields of `RestoreRequest`, such as `span`, `choice` or `overwrite`.

    Returns:
        What was done, and what was not.

    Raises:
        VidrestoreError: See `vidrestore.common.errors`.
    """
    request = RestoreRequest(Path(source), Path(target), settings or Settings(), **options)
    return restore(request, on_event)

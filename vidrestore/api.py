"""The functions for Python programs: restore, analyze, write previews, comparisons and proxies."""

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
from vidrestore.review.proxy import write_proxy

__all__ = [
    "analyze_video",
    "restore",
    "restore_video",
    "write_comparison",
    "write_preview",
    "write_proxy",
]


def restore(request: RestoreRequest, on_event: OnEvent | None = None) -> Summary:
    """Carry out a request, and write the report if the request has one.

    Args:
        request: The video, the output and the settings.
        on_event: Receives progress and notices; default: None, and none are sent.

    Returns:
        The summary of what was restored and what was not.

    Raises:
        VidrestoreError: See `vidrestore.common.errors`.
    """
    if request.report is None:
        return run(request, on_event)
    from vidrestore.review.report import Reporter  # its modules take long to load

    return run(request, observer=Reporter(request.report, request, on_event))


def restore_video(
    source: str | Path,
    target: str | Path,
    settings: Settings | None = None,
    *,
    on_event: OnEvent | None = None,
    **options: Any,
) -> Summary:
    """Restore the faces in a video, and write the result with all other streams to a new file.

    Args:
        source: A video, a picture, or a pattern of numbered pictures such as name_%06d.tif.
        target: The output. It appears when it is complete.
        settings: The settings; default: `Settings()`.
        on_event: Receives progress and notices; default: None, and none are sent.
        **options: The other fields of `RestoreRequest`, such as `span`, `choice` or `overwrite`.

    Returns:
        The summary of what was restored and what was not.

    Raises:
        VidrestoreError: See `vidrestore.common.errors`.
    """
    request = RestoreRequest(Path(source), Path(target), settings or Settings(), **options)
    return restore(request, on_event)

"""The functions for Python programs: restore, analyze, personalize, write files to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidrestore.analysis.pipeline import analyze_video
from vidrestore.common.events import OnEvent
from vidrestore.common.settings import Settings
from vidrestore.jobs.request import RestoreRequest
from vidrestore.jobs.run import run
from vidrestore.jobs.summary import Summary
from vidrestore.personal.request import PersonalizeRequest
from vidrestore.personal.run import run as run_training
from vidrestore.personal.trainer import TrainingRecord
from vidrestore.review.comparison import write_comparison
from vidrestore.review.preview import write_preview
from vidrestore.review.proxy import write_proxy

__all__ = [
    "analyze_video",
    "personalize",
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


def personalize(
    sources: str | Path | Sequence[str | Path],
    target: str | Path,
    settings: Settings | None = None,
    *,
    person: int | None = None,
    reference: str | Path | None = None,
    photos: str | Path | None = None,
    keeps_embedding: bool = True,
    report: str | Path | None = None,
    overwrite: bool = False,
    on_event: OnEvent | None = None,
) -> TrainingRecord:
    """Adapt a GPEN to one person, and write it if it is better than before.

    The same call goes on where a killed one stopped. Give either `person` or `reference`.

    Args:
        sources: Videos and pictures that show the person.
        target: The .safetensors file for the network. It appears when training has ended.
        settings: The settings; `train` says how to train. Default: `Settings()`.
        person: The number of the person in the first of `sources`, as `analyze` lists it.
        reference: A photograph of the person.
        photos: A folder of more photographs; those without the person are left out. Default: none.
        keeps_embedding: Whether the mean embedding of the person stands in the file, by which
            `restore` knows the person again. Default: True.
        report: The .html file for a report about the training. Default: none.
        overwrite: Whether files that exist may be replaced. Default: False.
        on_event: Receives progress and notices; default: None, and none are sent.

    Returns:
        What the training did.

    Raises:
        VidrestoreError: The network is not better than before, so no file is written; or see
            `vidrestore.common.errors`.
    """
    given = [sources] if isinstance(sources, str | Path) else sources
    request = PersonalizeRequest(
        tuple(map(Path, given)),
        Path(target),
        settings or Settings(),
        person=person,
        reference=None if reference is None else Path(reference),
        photos=None if photos is None else Path(photos),
        keeps_embedding=keeps_embedding,
        report=None if report is None else Path(report),
        overwrite=overwrite,
    )
    return train(request, on_event)


def train(request: PersonalizeRequest, on_event: OnEvent | None = None) -> TrainingRecord:
    """Carry out a request to adapt a network, and write the report if the request has one.

    Args:
        request: The inputs, the output and the settings.
        on_event: Receives progress and notices; default: None, and none are sent.

    Returns:
        What the training did.

    Raises:
        VidrestoreError: See `personalize`.
    """
    if request.report is None:
        return run_training(request, on_event)
    from vidrestore.review.report.training import write_training_page  # its modules take long

    return run_training(
        request, on_event, lambda trained: write_training_page(request, trained, on_event)
    )

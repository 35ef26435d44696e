"""Analyses of earlier runs, kept in the user cache."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from vidrestore.analysis import storage
from vidrestore.analysis.interlacing import Inspection, inspect_samples
from vidrestore.analysis.pipeline import analyze, template_of
from vidrestore.analysis.result import Analysis
from vidrestore.common.errors import InputError, VidrestoreError
from vidrestore.common.events import OnEvent, notify
from vidrestore.common.settings import Settings
from vidrestore.common.text_files import can_be_found
from vidrestore.media.decode import TimeRange
from vidrestore.media.probe import Probe
from vidrestore.models import weights
from vidrestore.models.factory import recognizer_folder

_LOG = logging.getLogger("vidrestore")
OTHER_FRAMES = (
    "the analysis of an earlier run is of other frames than the source has now; it is dropped, and "
    "the source is analyzed again"
)
"""What is said before that is done."""


@dataclass(frozen=True, slots=True)
class Known:
    """An analysis, and where it is from."""

    analysis: Analysis
    is_kept: bool
    """Whether it is that of an earlier run, which nothing but the source's frames can prove."""


def find_analysis(
    source: Probe,
    settings: Settings,
    *,
    span: TimeRange | None = None,
    inspection: Inspection | None = None,
    may_be_kept: bool = True,
    on_event: OnEvent | None = None,
) -> Known:
    """The analysis of an earlier run with the same settings on the same content, else a new one.

    It is kept in the user cache unless the settings forbid that.

    Args:
        source: The video.
        settings: Those of the run.
        span: The part of the source that is looked at; None: all.
        inspection: What sampled frames say, where they were looked at already.
        may_be_kept: False where that of an earlier run turned out to be of other frames: it is made
            anew, and takes the place of the other.
        on_event: Is told what is used, and what is of no use.

    Raises:
        ChangedSourceError: The source changed while it was looked through.
    """
    path = _kept_at(source, settings, span) if settings.detect.remember else None
    if path is not None and not may_be_kept:
        _drop(path)
    elif path is not None and (known := _loaded(path, source, settings, on_event)) is not None:
        notify(on_event, "the analysis of an earlier run is used")
        return Known(known, is_kept=True)
    if inspection is None:
        inspection = inspect_samples(source, settings, span)
        notify(on_event, *filter(None, [inspection.interlacing.notice()]))
    analysis = analyze(source, inspection, settings, span=span, on_event=on_event)
    if path is None or analysis.detector_errors:  # the next run may have better luck
        return Known(analysis, is_kept=False)
    if source.mtime_ns and source.path.stat().st_mtime_ns != source.mtime_ns:
        notify(
            on_event,
            f"{source.path} was written to while it was looked through, so its analysis is not "
            "kept",
        )
        return Known(analysis, is_kept=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.save(analysis, path, key=path.name)
    except (OSError, VidrestoreError) as error:  # only costs time
        _LOG.info("the analysis is not kept: %s", error)
    return Known(analysis, is_kept=False)


def remembered_analysis(
    source: Probe, settings: Settings, on_event: OnEvent | None = None
) -> Analysis | None:
    """That of the whole source, where an earlier run with the same settings made it."""
    if not settings.detect.remember:
        return None
    return _loaded(_kept_at(source, settings, None), source, settings, on_event)


def forget_analysis(source: Probe, settings: Settings, on_event: OnEvent | None) -> None:
    """Drop what `remembered_analysis` gave, since the source has other frames, and say so."""
    notify(on_event, OTHER_FRAMES)
    _drop(_kept_at(source, settings, None))


def _kept_at(source: Probe, settings: Settings, span: TimeRange | None) -> Path:
    folder = weights.user_cache() / "analyses"
    return storage.cached(source, folder, _settings_hash(settings, span))


def _loaded(
    path: Path, source: Probe, settings: Settings, on_event: OnEvent | None
) -> Analysis | None:
    """None where there is none, or one of no use, which is dropped and said."""
    try:
        path.lstat()
    except OSError as error:  # there is none, or no cache
        _LOG.debug("no analysis is kept at %s: %s", path, error)
        return None
    try:
        analysis = storage.load(path, key=path.name)
        storage.check_source(analysis, source, str(path))
        storage.check_picture(analysis, source.info, str(path))
    except InputError as error:
        _LOG.info("a kept analysis is of no use: %s", error)
        notify(
            on_event,
            f"the analysis that an earlier run kept in {path} cannot be used, so it is made anew",
        )
        _drop(path)
        return None
    return analysis


def _drop(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _LOG.info("a kept analysis stays: %s", error)


def _settings_hash(settings: Settings, span: TimeRange | None) -> str:
    """Of all that pass one depends on but the source."""
    align = settings.align.model_copy(update={"template": template_of(settings)})
    parts = [
        *(getattr(settings, name) for name in ("fields", "detect", "shots", "track", "people")),
        align,
    ]
    asked = repr((span, settings.decode.fps, settings.decode.input_curve))
    text = "\n".join([version("vidrestore"), asked, *(p.as_text() for p in parts)])
    digest = hashlib.sha256(text.encode())
    digest.update(repr(recognizer_folder(settings)).encode())
    if can_be_found(curve := Path(settings.decode.input_curve)) and curve.is_file():
        digest.update(curve.read_bytes())
    if (cuts := settings.shots.edl) is not None and can_be_found(cuts) and cuts.is_file():
        digest.update(cuts.read_bytes())
    return digest.hexdigest()

"""The cache of analyses: reuse the analysis of an earlier run, from the user's cache folder."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from vidrestore.analysis import storage
from vidrestore.analysis.cut_list import check_content, file_of
from vidrestore.analysis.interlacing import Inspection, inspect_samples
from vidrestore.analysis.pipeline import analyze, template_of
from vidrestore.analysis.result import Analysis
from vidrestore.common.checksums import FileHashes
from vidrestore.common.errors import InputError, VidrestoreError
from vidrestore.common.events import OnEvent, notify
from vidrestore.common.settings import Settings
from vidrestore.common.text_files import can_be_found
from vidrestore.media.decode import TimeRange
from vidrestore.media.probe import Probe
from vidrestore.models import weights
from vidrestore.models.factory import recognizer_folder, with_models_here

_LOG = logging.getLogger("vidrestore")
# Increased whenever pass one may find other faces in the same frames with the same settings.
_METHOD = 5
OTHER_FRAMES = (
    "the analysis of an earlier run does not match the frames of the source; vidrestore analyzes "
    "the source again"
)
"""The notice for a cached analysis that does not match the frames of the source."""


@dataclass(frozen=True, slots=True)
class Known:
    """An analysis and its origin."""

    analysis: Analysis
    """The analysis."""
    is_kept: bool
    """Whether it comes from an earlier run; only the frames of the source can prove it right."""
    settings: Settings
    """The settings that it was made with, in which nothing of detection is "auto"."""


def find_analysis(
    source: Probe,
    settings: Settings,
    *,
    span: TimeRange | None = None,
    inspection: Inspection | None = None,
    may_be_kept: bool = True,
    hashes: FileHashes | None = None,
    on_event: OnEvent | None = None,
) -> Known:
    """Return the cached analysis of an earlier run, or make a new one.

    A cached analysis belongs to the same settings and the same content. A new one is written to the
    user's cache folder unless the settings forbid that, the detector failed, or the source was
    written to in the meantime.

    Args:
        source: The video.
        settings: The settings of the run; `with_models_here` replaces what is "auto" in them.
        span: The part of the source to look at; default: all.
        inspection: The measurements in sampled frames; default: measured here when needed.
        may_be_kept: False to ignore a cached analysis, because it does not match the frames of the
            source. The new analysis replaces it. Default: True.
        hashes: Hashes of the files that this run has read already; default: none.
        on_event: Receives progress and notices; default: none are sent.

    Returns:
        The analysis and its origin.

    Raises:
        InputError: The source cannot be read as video, or `span` holds no frame.
        ChangedSourceError: The source changed during the analysis.
        ConfigError: The list of cuts of the settings cannot be read.
        UsageError: A setting does not suit the source.
        WeightsError: The weights of the detector are missing.
    """
    if settings.shots.edl is not None:
        # A bad file is refused before anything is downloaded.
        check_content(settings.shots.edl, source.info.frame_rate)
    settings = with_models_here(settings, on_event)
    path = _cache_path(source, settings, span) if settings.detect.remember else None
    if path is not None and not may_be_kept:
        _delete(path)
    elif path is not None and (known := _loaded(path, source, on_event)) is not None:
        notify(on_event, "the analysis of an earlier run is used")
        if inspection is not None and inspection.kept is not None:
            inspection.kept.taken()  # frees their memory
        return Known(known, is_kept=True, settings=settings)
    if inspection is None:
        inspection = inspect_samples(source, settings, span)
        notify(on_event, *filter(None, [inspection.interlacing.notice()]))
    analysis = analyze(source, inspection, settings, span=span, hashes=hashes, on_event=on_event)
    if path is None or analysis.detector_errors:  # the detector may work in the next run
        return Known(analysis, is_kept=False, settings=settings)
    if source.mtime_ns and source.path.stat().st_mtime_ns != source.mtime_ns:
        notify(
            on_event,
            f"{source.path} was written to during its analysis, so vidrestore does not keep the "
            "analysis",
        )
        return Known(analysis, is_kept=False, settings=settings)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.save(analysis, path, key=path.name)
    except (OSError, VidrestoreError) as error:  # the next run only takes longer
        _LOG.info("the analysis is not kept: %s", error)
    return Known(analysis, is_kept=False, settings=settings)


def remembered_analysis(
    source: Probe, settings: Settings, on_event: OnEvent | None = None
) -> Analysis | None:
    """Return the cached analysis of a whole source; never make a new one.

    Args:
        source: The video.
        settings: The settings of the run, a result of `with_models_here`.
        on_event: Receives a notice about a cached analysis that cannot be used; default: none is
            sent.

    Returns:
        The analysis; None where there is none, or where `settings.detect.remember` is False.
    """
    if not settings.detect.remember:
        return None
    return _loaded(_cache_path(source, settings, None), source, on_event)


def forget_analysis(source: Probe, settings: Settings, on_event: OnEvent | None) -> None:
    """Delete the cached analysis of a whole source whose frames differ from it, and send a notice.

    Args:
        source: The video.
        settings: The settings of the run, a result of `with_models_here`.
        on_event: Receives the notice `OTHER_FRAMES`; None: none is sent.
    """
    notify(on_event, OTHER_FRAMES)
    _delete(_cache_path(source, settings, None))


def _cache_path(source: Probe, settings: Settings, span: TimeRange | None) -> Path:
    """Return the path of the cached analysis."""
    folder = weights.user_cache() / "analyses"
    return storage.cached(source, folder, _settings_hash(settings, span))


def _loaded(path: Path, source: Probe, on_event: OnEvent | None) -> Analysis | None:
    """Load a cached analysis; delete one that cannot be used, and send a notice about it."""
    try:
        path.lstat()
    except OSError as error:  # there is no analysis, or no cache folder
        _LOG.debug("there is no cached analysis at %s: %s", path, error)
        return None
    try:
        analysis = storage.load(path, key=path.name)
        storage.check_source(analysis, source, str(path))
        storage.check_picture(analysis, source.info, str(path))
    except InputError as error:
        _LOG.info("a cached analysis cannot be used: %s", error)
        notify(
            on_event,
            f"the analysis that an earlier run kept in {path} cannot be used; vidrestore "
            "analyzes the source again",
        )
        _delete(path)
        return None
    return analysis


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _LOG.info("a cached analysis cannot be deleted: %s", error)


def _settings_hash(settings: Settings, span: TimeRange | None) -> str:
    """Hash everything that pass one depends on except the source."""
    align = settings.align.model_copy(update={"template": template_of(settings)})
    parts = [
        *(getattr(settings, name) for name in ("fields", "detect", "shots", "track", "people")),
        align,
    ]
    options = repr((span, settings.decode.fps, settings.decode.input_curve))
    text = "\n".join([version("vidrestore"), str(_METHOD), options, *(p.as_text() for p in parts)])
    digest = hashlib.sha256(text.encode())
    digest.update(repr(recognizer_folder(settings)).encode())
    if can_be_found(curve := Path(settings.decode.input_curve)) and curve.is_file():
        digest.update(curve.read_bytes())
    if (cuts := settings.shots.edl) is not None:
        file = file_of(cuts)
        if can_be_found(file) and file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()

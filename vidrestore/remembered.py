"""Analyses of earlier runs, kept in the user cache."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path

from vidrestore import store, weights
from vidrestore.analyze import analyze_video, template_of
from vidrestore.config import Settings
from vidrestore.deinterlacing import Interlacing
from vidrestore.errors import InputError, VidrestoreError
from vidrestore.frame import Analysis, OnEvent, notify
from vidrestore.openers import recognizer_folder
from vidrestore.opening import open_source
from vidrestore.sidefiles import can_be_found
from vidrestore.stages.decode import Span


def known_analysis(
    source: Path,
    settings: Settings,
    *,
    span: Span | None = None,
    interlacing: Interlacing | None = None,
    on_event: OnEvent | None = None,
) -> Analysis:
    """That of an earlier run with the same settings on the same content, else a new one.

    It is kept in the user cache unless the settings forbid that. `interlacing` is what was measured
    of the source's fields already.
    """
    analyze = partial(analyze_video, span=span, interlacing=interlacing, on_event=on_event)
    if not settings.detect.remember:
        return analyze(source, settings)
    path = _kept_at(source, settings, span)
    if (known := _loaded(path)) is not None:
        notify(on_event, "the analysis of an earlier run is used")
        return known
    analysis = analyze(source, settings)
    if analysis.detector_errors:  # the next run may have better luck
        return analysis
    with suppress(OSError, VidrestoreError):  # a cache that cannot be written only costs time
        path.parent.mkdir(parents=True, exist_ok=True)
        store.save(analysis, path)
    return analysis


def remembered_analysis(source: Path, settings: Settings) -> Analysis | None:
    """That of the whole source, where an earlier run with the same settings made it."""
    return _loaded(_kept_at(source, settings, None)) if settings.detect.remember else None


def _kept_at(source: Path, settings: Settings, span: Span | None) -> Path:
    folder = weights.user_cache() / "analyses"
    with open_source(source):  # which says what is wrong with a file that is no video
        return store.cached(source, folder, _settings_hash(settings, span))


def _loaded(path: Path) -> Analysis | None:
    with suppress(InputError):
        return store.load(path)
    return None


def _settings_hash(settings: Settings, span: Span | None) -> str:
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

"""vidrestore restores the faces in a video and leaves everything else exactly as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidrestore.analysis.result import Analysis
    from vidrestore.api import (
        analyze_video,
        personalize,
        restore,
        restore_video,
        write_comparison,
        write_preview,
        write_proxy,
    )
    from vidrestore.common.errors import (
        ClusterError,
        ConfigError,
        InputError,
        OutputError,
        UsageError,
        VidrestoreError,
        WeightsError,
    )
    from vidrestore.common.events import (
        DownloadProgress,
        Notice,
        PassTimes,
        Progress,
        TrainingProgress,
    )
    from vidrestore.common.profiles import load_profile, load_settings
    from vidrestore.common.settings import Settings
    from vidrestore.jobs.request import RestoreRequest
    from vidrestore.jobs.summary import Summary
    from vidrestore.models.detectors import Detector
    from vidrestore.models.restorers import Restorer
    from vidrestore.personal.trainer import TrainingRecord

__all__ = [
    "Analysis",
    "ClusterError",
    "ConfigError",
    "Detector",
    "DownloadProgress",
    "InputError",
    "Notice",
    "OutputError",
    "PassTimes",
    "Progress",
    "RestoreRequest",
    "Restorer",
    "Settings",
    "Summary",
    "TrainingProgress",
    "TrainingRecord",
    "UsageError",
    "VidrestoreError",
    "WeightsError",
    "analyze_video",
    "load_profile",
    "load_settings",
    "personalize",
    "restore",
    "restore_video",
    "write_comparison",
    "write_preview",
    "write_proxy",
]

_HOMES = {
    "api": (
        "analyze_video", "personalize", "restore", "restore_video", "write_comparison",
        "write_preview", "write_proxy",
    ),
    "analysis.result": ("Analysis",),
    "common.events": (
        "DownloadProgress", "Notice", "PassTimes", "Progress", "TrainingProgress",
    ),
    "common.profiles": ("load_profile", "load_settings"),
    "common.settings": ("Settings",),
    "jobs.request": ("RestoreRequest",),
    "jobs.summary": ("Summary",),
    "models.detectors": ("Detector",),
    "models.restorers": ("Restorer",),
    "personal.trainer": ("TrainingRecord",),
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load a public name on its first use, so that `import vidrestore` is quick."""
    import importlib

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((home for home, names in _HOMES.items() if name in names), "common.errors")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)

"""Makes the faces in a video clear and leaves everything else exactly as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidrestore.analyze import analyze_video
    from vidrestore.compare import write_comparison
    from vidrestore.config import Settings
    from vidrestore.errors import (
        ClusterError,
        ConfigError,
        InputError,
        OutputError,
        UsageError,
        VidrestoreError,
        WeightsError,
    )
    from vidrestore.frame import Analysis
    from vidrestore.job import restore_video
    from vidrestore.preview import write_preview
    from vidrestore.profiles import load_profile, load_settings
    from vidrestore.summary import Summary

__all__ = [
    "Analysis",
    "ClusterError",
    "ConfigError",
    "InputError",
    "OutputError",
    "Settings",
    "Summary",
    "UsageError",
    "VidrestoreError",
    "WeightsError",
    "analyze_video",
    "load_profile",
    "load_settings",
    "restore_video",
    "write_comparison",
    "write_preview",
]

_HOMES = {
    "analyze": ("analyze_video",),
    "compare": ("write_comparison",),
    "config": ("Settings",),
    "frame": ("Analysis",),
    "preview": ("write_preview",),
    "profiles": ("load_profile", "load_settings"),
    "summary": ("Summary",),
    "job": ("restore_video",),
}


def __getattr__(name: str) -> Any:
    """Public names are loaded on first use, so that `import vidrestore` stays light."""
    import importlib

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((home for home, names in _HOMES.items() if name in names), "errors")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)

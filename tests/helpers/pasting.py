"""Pasting by what a test asks for, and nothing else of what the settings do by default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from vidrestore.analysis.tracks import Track
from vidrestore.common.settings import Grain, Paste, Regions
from vidrestore.imaging.frame import Frame, VideoInfo
from vidrestore.models.face_parser import Parser
from vidrestore.restoration.compositing import paste as stage
from vidrestore.restoration.faces import FaceFrame
from vidrestore.restoration.statistics import RestorationStats


@dataclass(frozen=True, slots=True)
class Finish:
    """The settings of pasting; what is not asked for is not done."""

    occluders: bool = False
    color: float = 0.0
    grain: float = 0.0
    sharpness: float = 0.0
    focus: float = 0.0
    detail: float = 1.0
    regions: Mapping[str, float] = field(default_factory=dict)
    parser: Parser | None = None


def paste(
    frames: Iterator[FaceFrame],
    info: VideoInfo,
    tally: RestorationStats,
    *,
    strength: float,
    tracks: Sequence[Track] = (),
    finish: Finish | None = None,
) -> Iterator[Frame]:
    """The stage, with the settings of `finish`."""
    wanted = finish or Finish()
    how = Paste(
        strength=strength,
        regions=Regions(**wanted.regions),
        detail=wanted.detail,
        occluders=wanted.occluders,
        color=wanted.color,
        sharpness=wanted.sharpness,
        focus=wanted.focus,
    )
    noise = Grain(match=wanted.grain)
    return stage.paste(frames, info, tally, how, noise, parser=wanted.parser, tracks=tracks)

"""Runs with a report, and what stands in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from helpers import footage
from helpers.media import AS_PAINTED, Unchanged, analysis_of_file, plain_track, write_video
from skimage import data

from vidrestore.analysis.result import Analysis
from vidrestore.analysis.tracks import Track
from vidrestore.api import restore_video
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Settings
from vidrestore.jobs.summary import Summary
from vidrestore.media.probe import fingerprint

SIZE, SHOTS = (192, 144), ((0, 26), (26, 56))
FRAMES = SHOTS[-1][1]
SOURCE, TARGET = "<b>&'tape\".mkv", "<img src=x onerror=alert(1)>.mkv"
VOID = {"meta", "img", "input"}


class Brighter(Unchanged):
    """Lighter by a tenth, which the guard does not mind."""

    name = "brighter"
    weights_sha256 = "ab" * 32

    def __call__(self, windows: Any) -> Any:
        return (1.1 * windows[:, 0]).clamp(0, 1)


class Page(HTMLParser):
    """What a page holds; that every element is closed where it was opened."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(self.source)
        self.close()
        assert not self._open
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, text: str) -> None:
        if not self._open or self._open[-1] not in ("style", "script"):
            self.text += f" {text} "

    def shown(self, kind: str) -> list[dict[str, str | None]]:
        """The pictures before and after of people ("person"), or of moments ("Flicker")."""
        return [
            each
            for each in self.all("img")
            if (each["alt"] or "").startswith(kind) and each.get("class") != "face"
        ]

    @property
    def portraits(self) -> list[dict[str, str | None]]:
        """The pictures of people beside their names."""
        return [each for each in self.all("img") if each.get("class") == "face"]

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@dataclass
class Made:
    folder: Path
    summary: Summary
    page: Page


def pictures() -> list[Any]:
    """A portrait with some noise that moves a little, and from the cut on its mirror image."""
    random = np.random.default_rng(0)
    found = []
    for i in range(FRAMES):
        x = 130 + i // 4
        part = data.astronaut()[40:184, x : x + 192].astype(np.float32)
        if i >= SHOTS[1][0]:
            part = part[:, ::-1]
        noisy = part + random.normal(0, 4, part.shape)
        found.append(noisy.clip(0, 255).astype(np.uint8))
    return footage.images(found, "yuv420p")


def people() -> list[Track]:
    """Two in the first shot, of whom the guard or the analysis lets nothing be used; one later."""
    (a, b), (c, d) = SHOTS
    one = plain_track(b - a, centre=(90, 80), side=96, track_id=0, work_px=128)
    away = plain_track(b - a, centre=(20, 20), side=30, track_id=1)
    away = replace(away, strength=np.zeros(b - a, np.float32))
    two = plain_track(d - c, centre=(100, 80), side=64, first_frame=c, track_id=2)
    return [one, away, replace(two, strength=np.linspace(0.2, 1, d - c, dtype=np.float32))]


def write_tape(folder: Path) -> tuple[Path, Analysis]:
    """A video of both shots, and what is known of it."""
    tape = write_video(folder / SOURCE, pictures())
    known = replace(analysis_of_file(tape, people()), shots=SHOTS, skipped={"too <small>": 7})
    return tape, replace(known, fingerprint=fingerprint(tape))


def settings_of(**more: Any) -> Settings:
    plain = {"encode.codec": "ffv1", "encode.preset": "ultrafast", "deflicker.amount": 0,
             "job.segment_frames": 48}  # fmt: skip
    return load_settings(options=AS_PAINTED | plain | {"guard.features": 0.7} | more)


def run(
    tape: Path,
    folder: Path,
    known: Analysis,
    *,
    target: str = TARGET,
    restorer: Any = None,
    **more: Any,
) -> Made:
    """`more` are settings by dotted name, and what else `restore_video` takes."""
    options = {key: more.pop(key) for key in list(more) if "." in key}
    summary = restore_video(
        tape, folder / target, settings_of(**options), restorer=restorer or Brighter(),
        analysis=known, report=folder / "report.html", **more,
    )  # fmt: skip
    return Made(folder, summary, Page(folder / "report.html"))

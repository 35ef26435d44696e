"""The drawings of a report as SVG that stands within a page and follows its colours."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vidrestore.common.timecode import time_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Values = npt.NDArray[np.float64]
Part = tuple[float, float]
"""From when to when, in seconds."""

MOST_POINTS = 400
"""Of a curve; more are binned."""

# Matplotlib knows no variables of CSS, so it draws in colours of which each stands for one.
_COLORS = {
    "ink": "#010101", "soft": "#020202", "line": "#030303", "before": "#040404",
    "after": "#050505", "seen": "#060606", "shade": "#070707", "limit": "#080808",
}  # fmt: skip
_INCHES_WIDE, _ROW_INCHES = 9.0, 0.34
_STEPS_SECONDS = (
    0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800,
)  # fmt: skip
_MOST_TICKS = 9
_LEAST_NUMBERED = 0.025  # of the width, which a shot must have for its number to fit in


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """Somebody on the timeline."""

    label: str
    seen: Values
    """(bins,) share of the time on screen."""
    strength: Values
    """(bins,) how much of the restored face was used, in [0, 1]."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Values over time; where it was not looked for long, the line breaks."""

    seconds: Values
    values: Values

    def binned(self, part: Part, *, squares: bool = False) -> Curve:
        """Means within `MOST_POINTS` parts of that time; of `squares`, their roots."""
        if len(self.seconds) == 0:
            return self
        width = max(part[1] - part[0], 1e-9) / MOST_POINTS
        bins = ((self.seconds - part[0]) / width).astype(int).clip(0, MOST_POINTS - 1)
        where = np.unique(bins, return_inverse=True)[1]
        counts = np.bincount(where)
        values = np.bincount(where, weights=self.values) / counts
        seconds = np.bincount(where, weights=self.seconds) / counts
        return Curve(seconds, np.sqrt(values) if squares else values)


def timeline(
    shots: Sequence[tuple[float, float]], rows: Sequence[Row], end_seconds: float, name: str
) -> str:
    """Shots, numbered where there is room, and below them who is seen and how much restored."""
    figure, (axes,) = _figure([_ROW_INCHES * (len(rows) + 1) + 0.45])
    axes.set_ylim(len(rows) + 1, 0)
    _shots(axes, shots, end_seconds)
    for i, row in enumerate(rows, start=1):
        edges = np.linspace(0, end_seconds, len(row.seen) + 1)
        for values, color in ((np.ceil(row.seen), "seen"), (row.strength, "after")):
            axes.stairs(
                i + 0.9 - 0.8 * values, edges, baseline=i + 0.9, fill=True, color=_COLORS[color],
                linewidth=0,
            )  # fmt: skip
    axes.set_yticks([0.5, *(i + 0.5 for i in range(1, len(rows) + 1))])
    axes.set_yticklabels(["shots", *(row.label for row in rows)])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    _clock(axes, (0, end_seconds))
    return _svg(figure, name, "Shots and people over time, with the strength of the restoration.")


def _shots(axes: Axes, shots: Sequence[tuple[float, float]], end_seconds: float) -> None:
    for i, (start, end) in enumerate(_joined(shots, end_seconds)):
        color = _COLORS["shade" if i % 2 else "line"]
        axes.broken_barh([(start, end - start)], (0.1, 0.8), color=color, linewidth=0)
    for number, (start, end) in enumerate(shots, 1):
        if end - start >= _LEAST_NUMBERED * end_seconds:
            axes.text((start + end) / 2, 0.52, str(number), ha="center", va="center", fontsize=8,
                      color=_COLORS["ink"])  # fmt: skip


def _joined(
    shots: Sequence[tuple[float, float]], end_seconds: float
) -> Sequence[tuple[float, float]]:
    """Those too short to be told apart are taken together."""
    found: list[tuple[float, float]] = []
    for start, end in shots:
        if found and found[-1][1] - found[-1][0] < end_seconds / MOST_POINTS:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def courses(
    flicker: Mapping[str, Curve],
    likeness: Mapping[str, Curve],
    part: Part,
    name: str,
    *,
    likeness_axis: str,
    floor: float,
) -> str:
    """How one person flickers before and after, and how like the source the faces are.

    `flicker` by "before" and "after", in 8-bit levels; `likeness` by "restored" and "used". Either
    may be empty and then is left out. `floor` is the least likeness that the guard accepts, or 0.
    """
    panels = [panel for panel in (flicker, likeness) if any(len(c.values) for c in panel.values())]
    figure, all_axes = _figure([1.55] * len(panels))
    for axes, panel in zip(all_axes, panels, strict=True):
        is_flicker = panel is flicker
        for label, curve in panel.items():
            color = _COLORS["before" if label in ("before", "restored") else "after"]
            _curve(axes, curve, part, color, label)
        axes.set_ylabel("flicker\n8-bit levels" if is_flicker else likeness_axis)
        if is_flicker:
            axes.set_ylim(bottom=0)
        else:
            lowest = min(float(curve.values.min()) for curve in panel.values())
            axes.set_ylim(min(floor - 0.05 if floor else 0.5, lowest - 0.05), 1.02)
            if floor:
                axes.axhline(floor, color=_COLORS["limit"], linewidth=1, linestyle=(0, (4, 3)))
        axes.grid(axis="y", color=_COLORS["line"], linewidth=0.6)
        axes.margins(y=0.15)
        axes.locator_params(axis="y", nbins=4)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=8,
                    labelcolor=_COLORS["soft"], borderaxespad=0.1, handlelength=1.4)  # fmt: skip
        _clock(axes, part)
    return _svg(figure, name, "Flicker and likeness over time.")


def _curve(axes: Axes, curve: Curve, part: Part, color: str, label: str) -> None:
    seconds, values = curve.seconds, curve.values
    steps = np.diff(seconds)
    usual = float(np.median(steps)) if len(steps) else 0.0
    breaks = np.flatnonzero(steps > max(3 * usual, (part[1] - part[0]) / 60)) + 1
    seconds, values = (np.insert(v.astype(float), breaks, np.nan) for v in (seconds, values))
    dots = "o" if len(curve.values) <= 60 else ""
    axes.plot(seconds, values, color=color, linewidth=1.4, marker=dots, markersize=2.6, label=label)


def _clock(axes: Axes, part: Part) -> None:
    start, end = part
    step = next((s for s in _STEPS_SECONDS if (end - start) / s <= _MOST_TICKS), _STEPS_SECONDS[-1])
    at = np.arange(math.ceil(start / step - 1e-6) * step, end + step / 1000, step)
    axes.set_xlim(start, end)
    axes.set_xticks(at)
    axes.set_xticklabels([time_text(t, int(step < 1), short=True) for t in at])


def _figure(heights_inches: Sequence[float]) -> tuple[Figure, Sequence[Any]]:
    """Panels below each other, which share nothing with any other figure of the process."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_INCHES_WIDE, sum(heights_inches) + 0.2), layout="constrained")
    panels = figure.subplots(len(heights_inches), 1, squeeze=False, height_ratios=heights_inches)
    for axes in panels[:, 0]:
        axes.set_facecolor("none")
        axes.tick_params(colors=_COLORS["soft"], labelsize=8, width=0.6)
        axes.yaxis.label.set(color=_COLORS["soft"], fontsize=8)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set(color=_COLORS["line"], linewidth=0.8)
    return figure, list(panels[:, 0])


def _svg(figure: Figure, name: str, says: str) -> str:
    """As part of a page: its own size left to the page, its names apart from those of others."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    FigureCanvasSVG(figure)
    drawn = io.StringIO()
    # Text stays text; the same drawing has the same names within it.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    text = drawn.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(
        r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", text, flags=re.DOTALL
    )
    text = re.sub(r"(\d\.\d\d)\d+", r"\1", text)
    view = re.search(r'viewBox="[^"]*"', text)
    head = f'<svg {view[0] if view else ""} role="img" aria-label="{says}">'
    text = re.sub(r"<svg[^>]*>", head, text, count=1)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("xlink:href=", "href=")
    text = re.sub(r'url\(#|href="#', lambda found: f"{found[0]}{name}-", text)
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", text)
    text = re.sub(r"font-family: [^;\"]*", "", text)
    for color, code in _COLORS.items():
        text = text.replace(code, f"var(--{color})")
    return re.sub(r"\s*\n\s*", "\n", text)

"""The plots of a report as SVG, which are part of the page and use its colors."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from vidrestore.common.timecode import time_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Values = npt.NDArray[np.float64]
"""(n,) values."""
Part = tuple[float, float]
"""(start, end) of a time range, in seconds."""

MOST_POINTS = 400
"""Most points of a curve; more points are averaged."""

# Matplotlib has no CSS variables, so a variable replaces each color afterwards.
_COLORS = {
    "ink": "#010101", "soft": "#020202", "line": "#030303", "before": "#040404",
    "after": "#050505", "seen": "#060606", "shade": "#070707", "limit": "#080808",
}  # fmt: skip
_INCHES_WIDE, _ROW_INCHES, _PANEL_INCHES, _STEP_PANEL_INCHES = 9.0, 0.34, 1.65, 1.2
# Margins of panels in inches: room for their labels on the left, a legend above and times below.
_LEFT_INCHES, _RIGHT_INCHES, _ABOVE_INCHES, _BELOW_INCHES = 0.72, 0.27, 0.26, 0.26
_STEPS_SECONDS = (
    0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800,
)  # fmt: skip
_MOST_TICKS = 9
_LEAST_NUMBERED = 0.025  # share of the width at which the number of a shot fits in


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """The row of a person or a group on the timeline."""

    label: str
    """Text before the row."""
    seen: Values
    """(bins,) share of the time on screen, in [0, 1]."""
    strength: Values
    """(bins,) how much of the restored face was used, in [0, 1]."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Values over time; the line is interrupted where values are missing for long."""

    seconds: Values
    """(n,) times in seconds, ascending."""
    values: Values
    """(n,) the values at these times."""

    def binned(self, part: Part, *, squares: bool = False) -> Curve:
        """Average the values within `MOST_POINTS` parts of a time range.

        Args:
            part: The time range, in seconds.
            squares: Whether the values are mean squares, so that the result is the root of each
                mean. Default: False.

        Returns:
            The curve of the means; parts without values are left out.
        """
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
    """Draw the shots, and below them when people are on screen and how much was restored.

    Shots have numbers where there is room.

    Args:
        shots: (start, end) of each shot, in seconds.
        rows: The rows of people.
        end_seconds: End of the video, in seconds.
        name: Prefix of the names within the SVG, unique in the page.

    Returns:
        SVG text.
    """
    height = _ROW_INCHES * (len(rows) + 1) + 0.65
    figure, (axes,) = _figure(1, height, layout="constrained")  # the labels may be long
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
    """Join shots that are too short to be distinguished."""
    joined: list[tuple[float, float]] = []
    for start, end in shots:
        if joined and joined[-1][1] - joined[-1][0] < end_seconds / MOST_POINTS:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def flicker_and_likeness(
    flicker: Mapping[str, Curve],
    likeness: Mapping[str, Curve],
    part: Part,
    name: str,
    *,
    likeness_axis: str,
    floor: float,
) -> str:
    """Draw the flicker and the likeness of one person over time.

    Args:
        flicker: The curves "before" and "after", in 8-bit levels; an empty mapping is left out.
        likeness: The curves "restored" and "used"; an empty mapping is left out.
        part: The time range of the plot, in seconds.
        name: Prefix of the names within the SVG, unique in the page.
        likeness_axis: Label of the axis of the likeness.
        floor: The least likeness that the guard accepts, drawn as a dashed line; 0 for none.

    Returns:
        SVG text.
    """
    panels = [panel for panel in (flicker, likeness) if any(len(c.values) for c in panel.values())]
    height = _PANEL_INCHES * len(panels)
    figure, all_axes = _figure(len(panels), height)
    # A computed layout would draw everything twice.
    figure.subplots_adjust(
        left=_LEFT_INCHES / _INCHES_WIDE,
        right=1 - _RIGHT_INCHES / _INCHES_WIDE,
        top=1 - _ABOVE_INCHES / height,
        bottom=_BELOW_INCHES / height,
        hspace=(_ABOVE_INCHES + _BELOW_INCHES) / (_PANEL_INCHES - _ABOVE_INCHES - _BELOW_INCHES),
    )
    for axes, panel in zip(all_axes, panels, strict=True):
        is_flicker = panel is flicker
        for label, curve in panel.items():
            color = _COLORS["before" if label in ("before", "restored") else "after"]
            _curve(axes, curve, part, color, label)
        axes.set_ylabel("flicker\nlevels" if is_flicker else likeness_axis)
        if is_flicker:
            axes.set_ylim(bottom=0)
        else:
            lowest = min(float(curve.values.min()) for curve in panel.values())
            axes.set_ylim(min(floor - 0.05 if floor else 0.5, lowest - 0.05), 1.02)
            if floor:
                axes.axhline(floor, color=_COLORS["limit"], linewidth=1, linestyle=(0, (4, 3)))
        _levels(axes)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=8,
                    labelcolor=_COLORS["soft"], borderaxespad=0.1, handlelength=1.4)  # fmt: skip
        _clock(axes, part)
    return _svg(figure, name, "Flicker and likeness over time.")


@dataclass(frozen=True, slots=True, eq=False)
class StepPanel:
    """Values over the steps of a training."""

    axis: str
    """Label of the axis."""
    steps: Values
    """(n,) numbers of steps, ascending."""
    values: Values
    """(n,) the values at these steps."""
    level: float | None
    """A value that is drawn as a dashed line; None for none."""


def over_steps(panels: Iterable[StepPanel], name: str, label: str) -> str:
    """Draw values over the steps of a training, a panel for each kind.

    Args:
        panels: The panels, at least one.
        name: Prefix of the names within the SVG, unique in the page.
        label: What the drawing shows, for those who do not see it.

    Returns:
        SVG text.
    """
    panels = list(panels)
    height = _STEP_PANEL_INCHES * len(panels) + _BELOW_INCHES
    figure, all_axes = _figure(len(panels), height, layout="constrained")
    last = max(float(panel.steps.max()) for panel in panels)
    for axes, panel in zip(all_axes, panels, strict=True):
        dots = "o" if len(panel.steps) <= 60 else ""
        axes.plot(panel.steps, panel.values, color=_COLORS["after"], linewidth=1.4, marker=dots,
                  markersize=2.6)  # fmt: skip
        if panel.level is not None:
            axes.axhline(panel.level, color=_COLORS["limit"], linewidth=1, linestyle=(0, (4, 3)))
        axes.set_ylabel(panel.axis)
        axes.set_xlim(0, last)
        _levels(axes)
    all_axes[-1].set_xlabel("steps", color=_COLORS["soft"], fontsize=8)
    return _svg(figure, name, label)


def _levels(axes: Axes) -> None:
    """Draw lines at few values, with room above and below the curve."""
    axes.grid(axis="y", color=_COLORS["line"], linewidth=0.6)
    axes.margins(y=0.15)
    axes.locator_params(axis="y", nbins=4)


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


def _figure(
    count: int, height_inches: float, layout: Literal["constrained"] | None = None
) -> tuple[Figure, Sequence[Any]]:
    """Make panels below each other, without any state that figures of the process share."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_INCHES_WIDE, height_inches), layout=layout)
    panels = figure.subplots(count, 1, squeeze=False)
    for axes in panels[:, 0]:
        axes.set_facecolor("none")
        axes.tick_params(colors=_COLORS["soft"], labelsize=8, width=0.6)
        axes.yaxis.label.set(color=_COLORS["soft"], fontsize=8)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set(color=_COLORS["line"], linewidth=0.8)
    return figure, list(panels[:, 0])


def _svg(figure: Figure, name: str, label: str) -> str:
    """Write SVG for a page, without a size of its own, with names that begin with `name`."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    FigureCanvasSVG(figure)
    drawn = io.StringIO()
    # Text stays text, and equal drawings have equal names.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    text = drawn.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(
        r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", text, flags=re.DOTALL
    )
    text = re.sub(r"(\d\.\d\d)\d+", r"\1", text)
    view = re.search(r'viewBox="[^"]*"', text)
    head = f'<svg {view[0] if view else ""} role="img" aria-label="{label}">'
    text = re.sub(r"<svg[^>]*>", head, text, count=1)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("xlink:href=", "href=")
    text = re.sub(r'url\(#|href="#', lambda match: f"{match[0]}{name}-", text)
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", text)
    text = re.sub(r"font-family: [^;\"]*", "", text)
    for color, code in _COLORS.items():
        text = text.replace(code, f"var(--{color})")
    return re.sub(r"\s*\n\s*", "\n", text)

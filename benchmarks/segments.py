"""What it costs to render in segments, to note them and to join them: one against many.

    python benchmarks/segments.py [SECONDS of clip] [FRAMES of a segment] [ROUNDS]

The same clip, with cuts every eight seconds; the two ways take turns. Frames around a cut between
segments that is none of the video are rendered twice: their share stands apart, and the last column
is the cost of a rendered frame against that of the run in one segment. Processor time hardly
depends on what else the machine does, wall time does; it has what threads wait at both ends of a
segment.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from memory import OPTIONS, Sharper, write_clip

from vidrestore.analysis.pipeline import analyze_video
from vidrestore.analysis.result import Analysis
from vidrestore.api import restore_video
from vidrestore.common.profiles import load_settings
from vidrestore.models.restorers.assignment import Assignment
from vidrestore.restoration.pipeline import reach_frames
from vidrestore.restoration.segments import context, plan_segments

MOST = 0.03
_ENDLESS = 10**6


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 48
    frames = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    found: dict[int, list[tuple[float, float]]] = {_ENDLESS: [], frames: []}
    with tempfile.TemporaryDirectory() as folder:
        clip = write_clip(Path(folder), seconds / 60)
        analysis = analyze_video(clip, load_settings(options=OPTIONS))
        for _ in range(rounds):
            for most, times in found.items():
                times.append(rendering_seconds(clip, analysis, most))
    spans = {most: rendered_frames(analysis, most) for most in found}
    print(f"{analysis.frame_count} frames, {analysis.face_count} faces, {rounds} rounds, medians")
    for index, kind in enumerate(("wall", "processor")):
        alone, many = (statistics.median(t[index] for t in times) for times in found.values())
        (_, once), (count, twice) = spans.values()
        ratio = (many / twice) / (alone / once) - 1
        print(
            f"{kind:10} one segment {alone:6.2f} s   {count} segments {many:6.2f} s "
            f"({many / alone - 1:+.1%})   overlap {twice / once - 1:.1%} of the frames   "
            f"for each rendered frame {ratio:+.1%} (at most {MOST:.0%})"
        )


def rendering_seconds(clip: Path, analysis: Analysis, most_frames: int) -> tuple[float, float]:
    """Of pass two with join and remux: wall and processor time."""
    settings = load_settings(
        options=OPTIONS | {"job.segment_frames": most_frames, "encode.check": False}
    )
    with tempfile.TemporaryDirectory() as folder:
        before = time.process_time()
        summary = restore_video(
            clip, Path(folder) / "out.mkv", settings, restorer=Sharper(), analysis=analysis
        )
        return summary.seconds["restore"], time.process_time() - before


def rendered_frames(analysis: Analysis, most_frames: int) -> tuple[int, int]:
    """(segments, frames rendered for them)."""
    segments = plan_segments(analysis, most_frames=most_frames)
    reach = reach_frames(Assignment([(0, Sharper())]), load_settings(options=OPTIONS))
    spans = [context(segment, analysis, reach) for segment in segments]
    return len(segments), sum(end - first for first, end in spans)


if __name__ == "__main__":
    main()

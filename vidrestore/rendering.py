"""The new video stream, segment by segment; what an earlier run finished is not done again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from vidrestore.codecs import Encoding
from vidrestore.config import Settings
from vidrestore.frame import Analysis, OnEvent, notify
from vidrestore.restore import reach_frames, restore_segment
from vidrestore.segments import Schedule, Segment, made_from
from vidrestore.stages.decode import Span
from vidrestore.stages.join import join
from vidrestore.summary import Tally
from vidrestore.workfolder import Done, WorkFolder


@dataclass(frozen=True, slots=True)
class Rendering:
    """What the new video stream is made from, segment by segment."""

    source: Path
    work: WorkFolder
    segments: Sequence[Segment]
    taken: Mapping[int, str]
    """Numbers of segments that lie in the work folder already, as what: not to be rendered."""
    analysis: Analysis
    restorers: Schedule
    settings: Settings
    encoding: Encoding
    header: Path | None
    span: Span | None
    on_event: OnEvent | None

    def video(self) -> tuple[Path, list[Mapping[str, Any]]]:
        """The whole stream in one file, and what was counted in each segment (see `Tally`); what is
        done already is not redone.

        Where a segment cannot be finished, those before it stay for the next run.
        """
        segments = self.segments
        hashes = [self._made_from(segment) for segment in segments]
        all_hash = sha256("".join(hashes).encode()).hexdigest()
        suffix = self.encoding.suffix
        joined = self.work.find("video", suffix, all_hash)
        if joined is None:
            parts = self._segments(segments, hashes)
            counts = [part.counts for part in parts]
            self._join(segments, parts)
            joined = self.work.finish("video", suffix, all_hash, {"segments": counts})
            self.work.forget_segments()
        return joined.path, list(joined.counts["segments"])

    def _join(self, segments: Sequence[Segment], parts: Sequence[Done]) -> None:
        whole, pts = self.work.place("video", self.encoding.suffix), self.analysis.pts
        if len(parts) == 1:
            parts[0].path.replace(whole)
            return
        times = [pts[segment.first : segment.end].tolist() for segment in segments]
        join([part.path for part in parts], whole, times, self.analysis.info)

    def _segments(self, segments: Sequence[Segment], hashes: Sequence[str]) -> list[Done]:
        suffix, done = self.encoding.suffix, []
        found = [
            self.work.find(f"{segment.number:04}", suffix, origin)
            for segment, origin in zip(segments, hashes, strict=True)
        ]
        count = sum(part is not None for part in found)
        if count:
            notify(self.on_event, f"{count} of {len(segments)} segments are done already")
        for segment, origin, part in zip(segments, hashes, found, strict=True):
            done.append(part or self._segment(segment, origin))
        return done

    def _segment(self, segment: Segment, origin: str) -> Done:
        name, suffix = f"{segment.number:04}", self.encoding.suffix
        tally = restore_segment(
            self.source,
            self.work.place(name, suffix),
            self.analysis,
            segment,
            self.restorers,
            self.settings,
            encoding=self.encoding,
            header=self.header,
            span=self.span,
            on_event=self.on_event,
        )
        return self.work.finish(name, suffix, origin, tally.as_dict())

    def _made_from(self, segment: Segment) -> str:
        if (taken := self.taken.get(segment.number)) is not None:
            return taken
        return made_from(
            segment,
            self.analysis,
            reach_frames(self.restorers, self.settings),
            self.restorers,
            self.settings,
            self.encoding,
        )


def sum_of(counts: Sequence[Mapping[str, Any]]) -> Tally:
    tally = Tally()
    for part in counts:
        tally.add(part)
    return tally

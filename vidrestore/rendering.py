"""The new video stream, segment by segment; what an earlier run finished is not done again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from vidrestore.codecs import Encoding
from vidrestore.config import Settings
from vidrestore.frame import Analysis, OnEvent, notify
from vidrestore.layering import Layering
from vidrestore.likeness import Judge
from vidrestore.pairing import Pairing
from vidrestore.restore import reach_frames, restore_segment
from vidrestore.segments import Schedule, Segment, made_from, plan_segments
from vidrestore.stages.decode import Span
from vidrestore.stages.join import join
from vidrestore.summary import Tally
from vidrestore.workfolder import Done, WorkFolder


@dataclass(frozen=True, slots=True)
class Rendering:
    """What the new video stream is made from, segment by segment."""

    source: Path
    work: WorkFolder
    analysis: Analysis
    restorers: Schedule
    judge: Judge
    settings: Settings
    encoding: Encoding
    header: Path | None
    span: Span | None
    pairing: Pairing
    layering: Layering | None
    on_event: OnEvent | None

    def video(self) -> tuple[Path, Tally]:
        """The whole stream in one file, and what was counted; what is done already is not redone.

        Where a segment cannot be finished, those before it stay for the next run.
        """
        segments = plan_segments(self.analysis, most_frames=self.settings.job.segment_frames)
        hashes = [self._made_from(segment) for segment in segments]
        all_hash = sha256("".join(hashes).encode()).hexdigest()
        suffix = self.encoding.suffix
        joined = self._found("video", all_hash)
        if joined is None:
            parts = self._segments(segments, hashes)
            tally = _sum_of(parts)
            self._join(segments, parts, hashes, all_hash)
            joined = self.work.finish("video", suffix, all_hash, tally.as_dict())
            self.work.forget_segments()
        return joined.path, _sum_of([joined])

    def _join(
        self,
        segments: Sequence[Segment],
        parts: Sequence[Done],
        hashes: Sequence[str],
        all_hash: str,
    ) -> None:
        shown = self.pairing.plate.analysis if self.pairing.plate else self.analysis
        times = [shown.pts[segment.first : segment.end].tolist() for segment in segments]
        if self.layering is not None:
            named = [(_name(s), origin) for s, origin in zip(segments, hashes, strict=True)]
            self.layering.join(named, times, shown.info, all_hash)
        whole = self.work.place("video", self.encoding.suffix)
        if len(parts) == 1:
            parts[0].path.replace(whole)
            return
        join([part.path for part in parts], whole, times, shown.info)

    def _found(self, name: str, origin: str) -> Done | None:
        """A part that is done, with its layer where that is wanted, too."""
        if self.layering is not None and not self.layering.has(name, origin):
            return None
        return self.work.find(name, self.encoding.suffix, origin)

    def _segments(self, segments: Sequence[Segment], hashes: Sequence[str]) -> list[Done]:
        done = []
        found = [
            self._found(_name(segment), origin)
            for segment, origin in zip(segments, hashes, strict=True)
        ]
        count = sum(part is not None for part in found)
        if count:
            notify(self.on_event, f"{count} of {len(segments)} segments are done already")
        for segment, origin, part in zip(segments, hashes, found, strict=True):
            done.append(part or self._segment(segment, origin))
        return done

    def _segment(self, segment: Segment, origin: str) -> Done:
        name, suffix, layering = _name(segment), self.encoding.suffix, self.layering
        tally = restore_segment(
            self.source,
            self.work.place(name, suffix),
            self.analysis,
            segment,
            self.restorers,
            self.judge,
            self.settings,
            encoding=self.encoding,
            header=self.header,
            span=self.span,
            pairing=self.pairing,
            layer=None if layering is None else layering.files(name),
            on_event=self.on_event,
        )
        if layering is not None:
            layering.finish(name, origin)
        return self.work.finish(name, suffix, origin, tally.as_dict())

    def _made_from(self, segment: Segment) -> str:
        return made_from(
            segment,
            self.analysis,
            reach_frames(self.restorers, self.settings),
            self.restorers,
            self.judge,
            self.settings,
            self.encoding,
            self.pairing,
        )


def _name(segment: Segment) -> str:
    return f"{segment.number:04}"


def _sum_of(parts: Sequence[Done]) -> Tally:
    tally = Tally()
    for part in parts:
        tally.add(part.counts)
    return tally

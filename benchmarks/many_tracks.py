"""What the plan, the segments and the tables cost in a video of 100 seconds and one of 1000.

    python benchmarks/many_tracks.py [FRAMES] [TRACKS] [ROUNDS]

No video is read: the analyses are made up, with five shots for every ten tracks, people who appear
twice, and ten stretches with a restorer of their own. The larger one has FRAMES and TRACKS
(default: 30000 and 5000), the smaller one a tenth of both. Each row is one function over the whole
video, in CPU-microseconds for each frame, the least of the rounds, which take turns. Where a frame
costs the same in both videos, the ratio in the last column is 1.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np

from vidrestore.analysis.description import best_views, people_of, places_of_people
from vidrestore.analysis.people import large_people, only
from vidrestore.analysis.result import Analysis, of_output
from vidrestore.analysis.shot_list import of_analysis
from vidrestore.analysis.tracks import Track, TracksByFrame
from vidrestore.common.settings import Settings
from vidrestore.imaging.frame import VideoInfo
from vidrestore.imaging.geometry import template
from vidrestore.jobs.memory import memory_for_faces
from vidrestore.jobs.redo import FinishedJob, plan_redo, restorers_of_segments
from vidrestore.jobs.summary import likeness_by_track, summarize
from vidrestore.jobs.verify import mask_boxes
from vidrestore.media.codecs import Encoding
from vidrestore.models.restorers import RestorerInfo
from vidrestore.models.restorers.assignment import Assignment
from vidrestore.restoration.crop_cache import forget_frames_outside
from vidrestore.restoration.segments import (
    context,
    networks_used,
    plan_segments,
    segment_key,
    tracks_within,
)
from vidrestore.restoration.statistics import Likeness, RestorationStats

MOST = 1.5
SEGMENT, REACH, STRETCHES = 100, 8, 10
ENCODING = Encoding("ffv1", "ffv1", "yuv420p", ".mkv")


class Named(RestorerInfo):
    """A restorer of which only the description exists."""

    def __init__(self, name: str) -> None:
        self.name, self.cache_key = name, name

    def for_crop_size(self, side_px: int) -> RestorerInfo:
        return self


def main() -> None:
    given = [int(text) for text in sys.argv[1:]]
    frames, tracks, rounds = (*given, *(30_000, 5_000, 3)[len(given) :])
    sizes = [(frames // 10, tracks // 10), (frames, tracks)]
    analyses = [made_up(*size) for size in sizes]
    least: dict[str, dict[int, float]] = defaultdict(dict)
    for _ in range(rounds):
        for number, analysis in enumerate(analyses):
            for name, function in functions(analysis).items():
                before = time.process_time()
                function()
                spent = (time.process_time() - before) / analysis.frame_count
                least[name][number] = min(spent, least[name].get(number, spent))
    show(least, sizes)


def show(least: Mapping[str, Mapping[int, float]], sizes: list[tuple[int, int]]) -> None:
    heads = "".join(f"{f'{f} frames, {t} tracks':>28}" for f, t in sizes)
    print(f"{'CPU-us a frame':32}{heads}   ratio")
    for name, spent in least.items():
        ratio = spent[1] / max(spent[0], 1e-9)
        # What is below a microsecond a frame does not matter at any length of video.
        verdict = f"  OVER {MOST:g}" if ratio > MOST and spent[1] > 1e-6 else ""
        print(f"{name:32}{spent[0] * 1e6:28.2f}{spent[1] * 1e6:28.2f}{ratio:8.2f}{verdict}")


def made_up(frames: int, tracks: int, seed: int = 0) -> Analysis:
    """An analysis of a crowd: its tracks begin anywhere and end with their shot."""
    random = np.random.default_rng(seed)
    edges = np.unique(np.linspace(0, frames, max(2, tracks // 2)).round().astype(int))
    shots = [(int(a), int(b)) for a, b in pairwise(edges)]
    info = VideoInfo(
        stream_index=0, codec="h264", width=1280, height=720, time_base=Fraction(1, 30),
        frame_rate=Fraction(30), frame_count_from_header=frames, sample_aspect_ratio=Fraction(1),
        duration_seconds_from_header=frames / 30, display_orientation=(1, 0, 0, 1),
        display_matrix=None, pixel_format="yuv420p", bit_depth=8, matrix="bt709", full_range=False,
        tags=(1, 1, 1, 1), field_order="progressive",
    )  # fmt: skip
    points = template("gpen")
    made = []
    for number in range(tracks):
        first, end = shots[number * len(shots) // tracks]
        x, y, side = random.uniform(0, 1000), random.uniform(0, 500), random.uniform(60, 250)
        matrix = np.array([[1 / side, 0, -x / side], [0, 1 / side, -y / side]])
        n = end - first
        made.append(Track(
            track_id=number, person_id=1 + number // 2, first_frame=first, work_px=256,
            matrices=np.repeat(matrix[None], n, axis=0).astype(np.float32),
            landmarks=np.repeat((points * side + (x, y))[None], n, axis=0).astype(np.float32),
            score=np.ones(n, np.float32), strength=np.ones(n, np.float32),
            detected=np.ones(n, np.bool_),
        ))  # fmt: skip
    return Analysis(
        info=info, pts=np.arange(frames), crc32=np.zeros(frames, np.uint32), shots=tuple(shots),
        tracks=tuple(made),
    )  # fmt: skip


def functions(analysis: Analysis) -> dict[str, Callable[[], object]]:
    """The functions that a run, its checks and its tables call, each over the whole video."""
    settings = Settings()
    segments = plan_segments(analysis, most_frames=SEGMENT)
    two = Named("one"), Named("other")
    changes = analysis.shots[:: -(-len(analysis.shots) // STRETCHES)]
    restorers = Assignment([(first, two[i % 2]) for i, (first, _) in enumerate(changes)])
    by_frame = TracksByFrame(analysis.tracks)
    odd = frozenset(range(1, len(analysis.shots) + 1, 2))
    each = len(segments)
    kept = FinishedJob(
        analysis, segments, (("one",),) * each, 1.0, "face", {}, 0, "", ({},) * each, odd
    )
    stats = RestorationStats()
    for track in analysis.tracks:
        stats.add_likeness(track.track_id, track.first_frame, Likeness(frames=1, features=0.9))
    spans = [context(segment, analysis, REACH) for segment in segments]

    def keys() -> None:
        for segment in segments:
            segment_key(segment, analysis, REACH, restorers, "judge", settings, ENCODING)

    def boxes() -> None:
        for index in range(analysis.frame_count):
            mask_boxes(by_frame.at(index), index, 1.0, analysis.info, (2, 2))

    def sums() -> None:
        total = RestorationStats()
        for segment in segments:
            part = RestorationStats(frames=range(segment.first, segment.end))
            total.add(part.as_dict())

    def forget() -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for number, (first, end) in enumerate(spans):
                for index in range(first, end, 20):
                    (folder / f"{index:08}").mkdir(exist_ok=True)
                forget_frames_outside(folder, spans[number + 1 :])

    return {
        "plan_segments": lambda: plan_segments(analysis, most_frames=SEGMENT),
        "context": lambda: [context(segment, analysis, REACH) for segment in segments],
        "tracks_within": lambda: [tracks_within(analysis, *span) for span in spans],
        "segment_key": keys,
        "restorers_of_segments": lambda: restorers_of_segments(segments, analysis, restorers, None),
        "networks_used": lambda: networks_used(restorers, analysis, 0, analysis.frame_count),
        "forget_frames_outside": forget,
        "TracksByFrame": lambda: TracksByFrame(analysis.tracks),
        "mask_boxes": boxes,
        "of_output": lambda: of_output(analysis),
        "memory_for_faces": lambda: memory_for_faces(
            analysis, settings, Assignment(restorers.stretches[:2])
        ),
        "large_people, only": lambda: only(
            analysis.tracks,
            large_people(analysis.tracks, min_face_px=20, template_name="gpen"),
        ),
        "list of shots": lambda: of_analysis(analysis, "crowd.mp4"),
        "people_of": lambda: people_of(analysis),
        "best_views": lambda: [
            best_views(analysis.tracks, own, 3)
            for own in places_of_people(analysis.tracks).values()
        ],
        "likeness_by_track": lambda: likeness_by_track(stats, analysis),
        "summarize": lambda: summarize(analysis, stats, (), {}, is_part=False, fixity=None),
        "sum of the counts": sums,
        "redo: half of the shots": lambda: plan_redo(kept, analysis, Path("crowd.mp4")),
    }


if __name__ == "__main__":
    main()

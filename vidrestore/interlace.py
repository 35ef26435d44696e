"""Interlaced frames, and the pictures of their fields in which faces are found and restored.

An analysis with `fields` is of those pictures: times, checksums, shots and faces. Here is what it
says of the file's own frames, and of the output's, which may be either.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import numpy as np

from vidrestore.frame import Analysis, Track, VideoInfo


def info_of_pictures(info: VideoInfo, mode: str) -> VideoInfo:
    """Of the pictures of fields: no longer interlaced; where both are made, twice as many, and of
    film four for five frames."""
    if mode == "frame":
        return replace(info, field_order="progressive")
    if mode == "film":
        return replace(
            info,
            field_order="progressive",
            time_base=info.time_base / 4,
            frame_rate=info.frame_rate * 4 / 5,
            frame_count_from_header=info.frame_count_from_header * 4 // 5,
        )
    return replace(
        info,
        field_order="progressive",
        time_base=info.time_base / 2,
        frame_rate=2 * info.frame_rate,
        frame_count_from_header=2 * info.frame_count_from_header,
    )


def of_file(analysis: Analysis) -> Analysis:
    """The same of the file's own frames; without faces, where it is of pictures of their fields."""
    if (fields := analysis.fields) is None:
        return analysis
    return replace(
        analysis,
        info=fields.info,
        pts=fields.pts,
        crc32=fields.crc32,
        shots=((0, len(fields.pts)),),
        tracks=(),
        fields=None,
    )


def of_output(analysis: Analysis) -> Analysis:
    """The same of the output's frames. Where they are woven each face has two tracks, one of its
    places in the earlier fields and one in the later ones."""
    if not is_woven(analysis):
        return analysis
    tracks = chain.from_iterable(map(_in_frames, analysis.tracks))
    shots = tuple((start // 2, end // 2) for start, end in analysis.shots)
    return replace(of_file(analysis), shots=shots, tracks=tuple(tracks))


def frames_of_output(analysis: Analysis) -> Analysis:
    """The same without the work of telling where faces are: without them, where it is woven."""
    return of_file(analysis) if is_woven(analysis) else analysis


def is_woven(analysis: Analysis) -> bool:
    """The output's frames each show two pictures of the analysis."""
    return analysis.fields is not None and analysis.fields.mode == "keep"


def in_output(analysis: Analysis, first: int, end: int) -> tuple[int, int]:
    """The output's frames that show these two of the analysis, or end where these end: then even,
    where woven."""
    return (first // 2, end // 2) if is_woven(analysis) else (first, end)


def _in_frames(track: Track) -> list[Track]:
    found = []
    for field in (0, 1):
        skipped = (field - track.first_frame) % 2
        rows = slice(skipped, None, 2)
        if len(track.matrices[rows]):
            found.append(
                replace(
                    track,
                    first_frame=(track.first_frame + skipped) // 2,
                    matrices=np.ascontiguousarray(track.matrices[rows]),
                    landmarks=np.ascontiguousarray(track.landmarks[rows]),
                    score=track.score[rows],
                    strength=track.strength[rows],
                    detected=track.detected[rows],
                )
            )
    return found

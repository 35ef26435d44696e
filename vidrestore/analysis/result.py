"""The result of pass one: all that is known of a video before its faces are restored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vidrestore.analysis.tracks import Track
from vidrestore.imaging.frame import VideoInfo

if TYPE_CHECKING:
    from vidrestore.analysis.borders import Margins


@dataclass(frozen=True, slots=True, eq=False)
class Fields:
    """The file's own frames, where faces are found and restored in pictures of their fields."""

    mode: str
    """keep: both fields of each frame, woven again in the output; bob: both, and so they stay;
    frame: the earlier one; film: four pictures from each five frames."""
    order: str
    """tff or bff, as measured."""
    info: VideoInfo
    pts: npt.NDArray[np.int64]
    crc32: npt.NDArray[np.uint32]
    sources: npt.NDArray[np.int64] | None = None
    """(pictures, 2) of film: the frames that their earlier and their later field are from."""


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """What pass one found: all that must be known about a whole shot before pass two begins."""

    info: VideoInfo
    pts: npt.NDArray[np.int64]
    """(frames,) in time_base."""
    crc32: npt.NDArray[np.uint32]
    """(frames,) of the decoded planes."""
    shots: tuple[tuple[int, int], ...]
    """Half-open [start, end) in frames, together covering every frame."""
    tracks: tuple[Track, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Faces that will not be restored: reason -> how many (face, frame) pairs."""
    corrupt_frames: int = 0
    decode_errors: int = 0
    repaired_times: int = 0
    detector_errors: int = 0
    """Frames at which the detector broke."""
    one_thread: bool = False
    """The source is damaged: only one decoding thread, from the start, gives the same again."""
    coarse_landmarks: bool = False
    """The detector guessed landmarks from boxes."""
    template: str = "gpen"
    """Where the matrices lead the landmarks; see `vidrestore.imaging.geometry.template`."""
    fingerprint: str = ""
    """Of the source file's content; see `vidrestore.analysis.storage`."""
    people_are_joined: bool = False
    """A recogniser joined the tracks of a person across shots."""
    margins: Margins | None = None
    """Edges from which no face was taken."""
    fields: Fields | None = None
    """Where all the rest is of pictures of fields; see `vidrestore.analysis.result`."""

    def __post_init__(self) -> None:
        if len(self.pts) != len(self.crc32):
            raise ValueError(f"{len(self.pts)} times but {len(self.crc32)} checksums")
        edges = [start for start, _ in self.shots] + [len(self.pts)]
        if [end for _, end in self.shots] != edges[1:] or edges[0] != 0:
            raise ValueError(f"shots {self.shots} do not cover {len(self.pts)} frames")

    @property
    def frame_count(self) -> int:
        return len(self.pts)

    @property
    def face_count(self) -> int:
        """(face, frame) pairs with a strength above zero."""
        return int(sum(np.count_nonzero(track.strength) for track in self.tracks))


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
    for parity in (0, 1):
        skipped = (parity - track.first_frame) % 2
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

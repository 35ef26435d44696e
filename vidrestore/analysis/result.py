"""The result of pass one: the properties, shots and face tracks of a video."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vidrestore.analysis.tracks import Track, TracksByFrame
from vidrestore.imaging.frame import PictureChange, VideoInfo

if TYPE_CHECKING:
    from vidrestore.analysis.borders import Margins


NOT_A_FACE = "not a face according to the face mesh"
"""The reason in `Analysis.skipped` for what only the detector took for a face."""


@dataclass(frozen=True, slots=True, eq=False)
class Fields:
    """The file's own frames, where pass one works on pictures made from their fields."""

    mode: str
    """Which pictures are made from the fields: keep, bob, frame or film.

    keep: one from each field, and the output weaves each pair into a frame. bob: one from each
    field, and each is a frame of the output. frame: one from the earlier field of each frame. film:
    four from every five frames.
    """
    order: str
    """The measured order of the fields: tff (top field first) or bff (bottom field first)."""
    info: VideoInfo
    """The properties of the file's own frames."""
    pts: npt.NDArray[np.int64]
    """(frames,) presentation times of the file's own frames, in units of their time base."""
    crc32: npt.NDArray[np.uint32]
    """(frames,) CRC-32 of the decoded planes of each of the file's own frames."""
    sources: npt.NDArray[np.int64] | None = None
    """(pictures, 2) the indices of the frames that hold the earlier and the later field of each
    picture; None unless `mode` is film."""


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """The result of pass one: all that pass two needs to know about the video in advance.

    Where the footage is interlaced, everything except `fields` describes the pictures that are made
    from its fields.
    """

    info: VideoInfo
    """The properties of the frames."""
    pts: npt.NDArray[np.int64]
    """(frames,) presentation times, in units of `info.time_base`."""
    crc32: npt.NDArray[np.uint32]
    """(frames,) CRC-32 of the decoded planes of each frame."""
    shots: tuple[tuple[int, int], ...]
    """The shots: half-open [start, end) in frames, which together cover every frame."""
    tracks: tuple[Track, ...]
    """The tracks of all faces that may be restored."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """For each reason not to restore a face, the number of (face, frame) pairs."""
    corrupt_frames: int = 0
    """The number of frames that the decoder marked as damaged."""
    decode_errors: int = 0
    """The number of errors that the decoder reported."""
    repaired_times: int = 0
    """The number of presentation times that vidrestore repaired."""
    detector_errors: int = 0
    """The number of frames at which the detector or the recognizer failed."""
    one_thread: bool = False
    """Whether the source is damaged, so that only one decoding thread gives the same frames."""
    coarse_landmarks: bool = False
    """Whether the detector guessed the landmarks from boxes."""
    detector: str = ""
    """The name of the detector that found the faces, or the class of the caller's detector; empty:
    it is not known."""
    template: str = "gpen"
    """The template to which the matrices map the landmarks; see `imaging.geometry.template`."""
    fingerprint: str = ""
    """The fingerprint of the source file; see `vidrestore.media.probe`."""
    people_are_joined: bool = False
    """Whether a recognizer joined the tracks of a person across shots."""
    margins: Margins | None = None
    """The edges of the picture in which faces are ignored; None: there are none."""
    changes: tuple[PictureChange, ...] = ()
    """The changes of the picture in the file, in order of time; their times are in ticks of the
    file's own frames."""
    fitted_frames: int = 0
    """The number of the file's frames that were fitted into the shape of the others."""
    reduced_frames: int = 0
    """The number of those that had more pixels."""
    decoded: VideoInfo | None = None
    """The properties of the decoded frames where `info` describes them enlarged; None: `info`."""
    fields: Fields | None = None
    """The file's own frames; None where the analysis describes them itself."""
    _by_frame: TracksByFrame | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.pts) != len(self.crc32):
            raise ValueError(f"{len(self.pts)} times but {len(self.crc32)} checksums")
        edges = [start for start, _ in self.shots] + [len(self.pts)]
        if [end for _, end in self.shots] != edges[1:] or edges[0] != 0:
            raise ValueError(f"shots {self.shots} do not cover {len(self.pts)} frames")

    @property
    def by_frame(self) -> TracksByFrame:
        """The index of the tracks by frame, which the first use builds."""
        if self._by_frame is None:
            object.__setattr__(self, "_by_frame", TracksByFrame(self.tracks))
        assert self._by_frame is not None
        return self._by_frame

    @property
    def frame_count(self) -> int:
        """The number of frames."""
        return len(self.pts)

    @property
    def face_count(self) -> int:
        """The number of (face, frame) pairs with a strength above zero."""
        return int(sum(np.count_nonzero(track.strength) for track in self.tracks))


def info_of_pictures(info: VideoInfo, mode: str) -> VideoInfo:
    """Derive the properties of the pictures that are made from fields.

    The pictures are progressive. For keep and bob there are two for each frame, for film four for
    five frames.

    Args:
        info: The properties of the file's own frames.
        mode: keep, bob, frame or film, as in `Fields`.

    Returns:
        The properties of the pictures.
    """
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
    """Return the analysis of the file's own frames.

    Args:
        analysis: The analysis.

    Returns:
        `analysis` itself if it describes the file's own frames. Otherwise one that does, with one
        shot and without faces.
    """
    if (fields := analysis.fields) is None:
        return analysis
    return replace(
        analysis,
        info=fields.info,
        pts=fields.pts,
        crc32=fields.crc32,
        shots=((0, len(fields.pts)),),
        tracks=(),
        decoded=None,
        fields=None,
    )


def of_output(analysis: Analysis) -> Analysis:
    """Return the analysis of the frames of the output.

    Args:
        analysis: The analysis.

    Returns:
        `analysis` itself unless the output is woven from fields. Otherwise one of the woven frames,
        in which each face has two tracks: its places in the earlier fields and those in the later
        fields.
    """
    if not is_woven(analysis):
        return analysis
    tracks = chain.from_iterable(map(_in_frames, analysis.tracks))
    shots = tuple((start // 2, end // 2) for start, end in analysis.shots)
    return replace(of_file(analysis), shots=shots, tracks=tuple(tracks))


def frames_of_output(analysis: Analysis) -> Analysis:
    """Return the analysis of the frames of the output, without the cost of splitting tracks.

    Args:
        analysis: The analysis.

    Returns:
        The analysis of the file's own frames, without faces, if the output is woven from fields;
        otherwise `analysis` itself.
    """
    return of_file(analysis) if is_woven(analysis) else analysis


def is_woven(analysis: Analysis) -> bool:
    """Tell whether each frame of the output is woven from two pictures of the analysis.

    Args:
        analysis: The analysis.

    Returns:
        True if the mode of the fields is keep.
    """
    return analysis.fields is not None and analysis.fields.mode == "keep"


def in_output(analysis: Analysis, first: int, end: int) -> tuple[int, int]:
    """Convert a range of frames of the analysis to frames of the output.

    Args:
        analysis: The analysis.
        first: The first frame of the range; even if the output is woven.
        end: The frame after the last one; even if the output is woven.

    Returns:
        (first, end) in frames of the output.
    """
    return (first // 2, end // 2) if is_woven(analysis) else (first, end)


def _in_frames(track: Track) -> list[Track]:
    """Split a track of fields into one of the earlier and one of the later fields."""
    parts = []
    for parity in (0, 1):
        skipped = (parity - track.first_frame) % 2
        rows = slice(skipped, None, 2)
        if len(track.matrices[rows]):
            parts.append(track.frames(rows, first_frame=(track.first_frame + skipped) // 2))
    return parts

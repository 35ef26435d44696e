"""The notes of a work folder: JSON objects with a checksum, which describe its files.

vidrestore checks the fields of a note as well as its checksum, since a person who edits a note can
compute a new checksum.
"""

from __future__ import annotations

import json
import logging
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vidrestore.common.checksums import fields_from_json, with_checksum
from vidrestore.common.files import fitting_name, written_atomically
from vidrestore.common.settings import Extent
from vidrestore.restoration.statistics import Counts

VERSION = 4
KEPT = "kept.json"
"""The name of the note of a kept job in its work folder."""
# A note has a few hundred bytes for each segment and each half second of a face.
_MOST_BYTES = 1 << 28
_MOST_FRAMES = 2**31
_logger = logging.getLogger("vidrestore")

_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Word = Annotated[str, Field(max_length=1000)]
_Number = Annotated[str, Field(pattern="^(0|[1-9][0-9]{0,11})$")]
_Frame = Annotated[int, Field(ge=0, le=_MOST_FRAMES)]


class _Note(BaseModel):
    """The base of all notes: unknown fields and values of other types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Models(_Note):
    """The fields of `DetectionModels`."""

    detector: Literal["insightface", "yunet", "haar"]
    has_mesh: bool
    recognizes: bool


class JobNote(_Note):
    """The note about the source that a work folder belongs to."""

    version: Literal[4]
    """The version of the notes."""
    source: _Word
    """The fingerprint of the source."""
    models: _Models | None = None
    """What finds the faces; None: it is not known, or the job was given its analysis."""
    judge: dict[_Word, _Word] | None = None
    """The networks that compare restored faces with their source, as `WorkFolder.note_judge` gets
    them; None: they are not known."""
    key_frames: dict[_Word, bool] | None = None
    """Network, side and device -> whether key frames save time; None: it was not measured."""


class _PartNote(_Note):
    """The note of a finished file."""

    segment_key: _Word
    """The hash of all that the file was made from."""
    size: int = Field(ge=0, le=2**62)
    """The size of the file, in bytes."""
    sha256: _Sha256
    """The hash of the file."""


class _NoCounts(_Note):
    """The counts of a stream in which nothing is counted: an empty object."""


class _VideoCounts(_Note):
    """The counts of the joined stream."""

    segments: list[Counts] = Field(min_length=1)
    """The counts of each segment, in order."""


class LayerNote(_PartNote):
    """The note of a stream of a layer, of one segment or of the whole video."""

    counts: _NoCounts
    """An empty object."""


class SegmentNote(_PartNote):
    """The note of a segment."""

    counts: Counts
    """The counts of the segment (`RestorationStats`)."""


class VideoNote(_PartNote):
    """The note of the joined stream."""

    counts: _VideoCounts
    """The counts of all segments."""


class _Encoding(_Note):
    """The encoding of the video stream of a finished job."""

    encoder: _Word
    pixels: _Word
    container: _Word
    options: Annotated[str, Field(max_length=100_000)]


class _Scaling(_Note):
    """The enlargement of a finished job, as `vidrestore.restoration.upscaling.Scaling`."""

    factor: Literal[2, 4]
    upscaler_sha256: _Sha256 | None


class _KeptSegment(_Note):
    """A segment of a finished job; `frames` is [first, end)."""

    frames: Annotated[list[_Frame], Field(min_length=2, max_length=2)]
    restorers: list[_Word]
    counts: Counts


class KeptNote(_Note):
    """The note of a finished job whose shots can be redone."""

    version: Literal[4]
    """The version of the notes."""
    sha256: _Sha256
    """The hash of the whole output file."""
    segments: list[_KeptSegment] = Field(min_length=1)
    """The segments of the output, in order and without gaps."""
    labels: dict[_Number, _Word] = Field(default_factory=dict)
    """Number of a track, as JSON has it -> the name of the restorer of its faces; earlier versions
    noted none."""
    strength: float = Field(ge=0, le=1)
    """The greatest strength of pasting in the output, 0 to 1."""
    extent: Extent
    """The greatest extent of pasting in the output."""
    encoding: _Encoding
    """The encoding of the restored stream."""
    stream_index: int = Field(ge=0, lt=2**16)
    """The index of the restored stream in the output."""
    scaling: _Scaling | None = None
    """How the output was enlarged; None: it was not."""

    @model_validator(mode="after")
    def _are_contiguous(self) -> KeptNote:
        at = 0
        for segment in self.segments:
            first, end = segment.frames
            if first != at or end <= first:
                raise ValueError(f"a segment of frames {first} to {end} follows frame {at}")
            at = end
        return self


def work_path(place: Path) -> Path:
    """Return the path of the work folder of an output.

    Args:
        place: The place of the output.

    Returns:
        The path; the folder need not exist. Its name is shortened where the file system needs that.
    """
    return place.with_name(fitting_name(place.parent, place.name, ".vidrestore"))


NoteT = TypeVar("NoteT", bound=_Note)


def write_note(path: Path, content: Mapping[str, Any]) -> None:
    """Write a note atomically, with its checksum.

    Args:
        path: The file of the note.
        content: The fields of the note, as values that JSON can hold.

    Raises:
        OSError: The file cannot be written.
    """
    with written_atomically(path) as part:
        part.write_text(json.dumps(with_checksum(content), indent=1), encoding="utf-8")


def read_note(path: Path, shape: type[NoteT]) -> dict[str, Any] | None:
    """Read a note that `write_note` wrote, and check it.

    Args:
        path: The file of the note. A link, or anything else but a file, is not a note.
        shape: The type of the note.

    Returns:
        The fields of the note. None where there is no file, or where the note is damaged or of
        another type or version; the reason goes to the log.
    """
    try:
        state = path.lstat()
        if not stat.S_ISREG(state.st_mode) or state.st_size > _MOST_BYTES:
            raise ValueError("it is not a file, or too large for a note")
        content = fields_from_json(path.read_text(encoding="utf-8"))
        shape.model_validate(content)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:  # the errors of pydantic are ValueErrors
        _logger.info("the note %s is not used: %s", path, str(error)[:1000])
        return None
    return content

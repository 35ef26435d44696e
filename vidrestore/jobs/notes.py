"""The notes of a job on disk: each is whole, written by this program, and of one shape.

A note is a JSON object that carries its checksum. Its shape is checked besides, since whoever edits
a note may compute that anew.
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
from vidrestore.common.files import written_atomically
from vidrestore.restoration.statistics import Counts

VERSION = 4
# A note has a few hundred bytes for each segment and each half second of a face.
_MOST_BYTES = 1 << 28
_MOST_FRAMES = 2**31
_logger = logging.getLogger("vidrestore")

_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Word = Annotated[str, Field(max_length=1000)]
_Frame = Annotated[int, Field(ge=0, le=_MOST_FRAMES)]


class _Note(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class JobNote(_Note):
    """Which source a work folder is of."""

    version: Literal[4]
    source: _Word


class _PartNote(_Note):
    """What a finished file is made from, and what it holds."""

    segment_key: _Word
    size: int = Field(ge=0, le=2**62)
    sha256: _Sha256


class _NoCounts(_Note):
    """Of a stream in which nothing is counted."""


class _VideoCounts(_Note):
    segments: list[Counts] = Field(min_length=1)


class LayerNote(_PartNote):
    """Of a stream of a layer."""

    counts: _NoCounts


class SegmentNote(_PartNote):
    """Of a segment."""

    counts: Counts


class VideoNote(_PartNote):
    """Of the joined stream."""

    counts: _VideoCounts


class _Encoding(_Note):
    encoder: _Word
    pixels: _Word
    container: _Word
    options: Annotated[str, Field(max_length=100_000)]


class _KeptSegment(_Note):
    frames: Annotated[list[_Frame], Field(min_length=2, max_length=2)]
    restorers: list[_Word]
    counts: Counts


class KeptNote(_Note):
    """A finished job."""

    version: Literal[4]
    sha256: _Sha256
    segments: list[_KeptSegment] = Field(min_length=1)
    strength: float = Field(ge=0, le=1)
    encoding: _Encoding
    stream_index: int = Field(ge=0, lt=2**16)

    @model_validator(mode="after")
    def _are_contiguous(self) -> KeptNote:
        at = 0
        for segment in self.segments:
            first, end = segment.frames
            if first != at or end <= first:
                raise ValueError(f"a segment of frames {first} to {end} follows frame {at}")
            at = end
        return self


NoteT = TypeVar("NoteT", bound=_Note)


def write_note(path: Path, content: Mapping[str, Any]) -> None:
    """Write a note, which appears only when it is whole.

    Args:
        path: Its file.
        content: Plain values, as JSON holds them.

    Raises:
        OSError: As the system does.
    """
    with written_atomically(path) as part:
        part.write_text(json.dumps(with_checksum(content), indent=1), encoding="utf-8")


def read_note(path: Path, shape: type[NoteT]) -> dict[str, Any] | None:
    """What `write_note` wrote.

    Args:
        path: Its file; what lies there as a link, or is no file, is no note.
        shape: What it must fit.

    Returns:
        The content, or None where there is nothing, or nothing that fits; that is logged.
    """
    try:
        state = path.lstat()
        if not stat.S_ISREG(state.st_mode) or state.st_size > _MOST_BYTES:
            raise ValueError("it is no file of a note")
        content = fields_from_json(path.read_text(encoding="utf-8"))
        shape.model_validate(content)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:  # pydantic's are ValueErrors
        _logger.info("the note %s is not used: %s", path, str(error)[:1000])
        return None
    return content

"""A text file that lists the MD5 checksums of every frame of a source and its output."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from vidrestore.common.errors import OutputError, UsageError, not_written
from vidrestore.common.files import output_file
from vidrestore.imaging.frame import Frame
from vidrestore.imaging.planes import plane


def check_listing_path(
    listing: Path, source: Path, target: Path, *, overwrite: bool, what: str = "listing"
) -> None:
    """Check before the work begins that a file can be written next to the output without harm.

    Args:
        listing: The file to write.
        source: The input, which must be another file.
        target: The output, which must be another file.
        overwrite: Whether an existing file may be replaced.
        what: The kind of file for messages; default: listing.

    Raises:
        UsageError: The file is the input or the output, or exists although `overwrite` is False.
        OutputError: The path is a folder or a special file, or its folder does not exist or cannot
            be written to.
    """
    with _writing(listing, what):
        for other, role in ((source, "input"), (target, "output")):
            if listing.resolve() == other.resolve() or _are_one_file(listing, other):
                raise UsageError(f"the {what} {listing} is the {role} itself; choose another name")
        if listing.is_dir():
            raise OutputError(f"the {what} {listing} is a folder; give a file name in it")
        if listing.exists() and not listing.is_file():
            raise OutputError(f"the {what} {listing} is no ordinary file; choose another name")
        if listing.is_file() and not overwrite:
            raise UsageError(f"the {what} {listing} exists already; add --overwrite to replace it")
        if not listing.parent.is_dir():
            raise OutputError(
                f"the folder {listing.parent} for the {what} does not exist; create it"
            )
        if not os.access(listing.parent, os.W_OK | os.X_OK):
            raise OutputError(
                f"the folder {listing.parent} for the {what} cannot be written to; choose another"
            )


def _are_one_file(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def frame_md5(image: av.VideoFrame) -> str:
    """Compute the MD5 checksum of a frame as ffmpeg's `framemd5` does for the decoded frame.

    Args:
        image: A frame in a planar format.

    Returns:
        32 hexadecimal digits: the checksum of the samples of all planes in their order, row by row
        without padding.
    """
    digest = hashlib.md5(usedforsecurity=False)
    for index in range(len(image.planes)):
        digest.update(np.ascontiguousarray(plane(image, index)).data)
    return digest.hexdigest()


class Listing:
    """Writes a text file with one line per frame, in the format of ffmpeg's `framemd5`.

    Lines that begin with # describe the file; the last of them names the columns of the others. The
    column pts is in the time base of the source. The last four columns are the half-open box of
    changed samples in luma pixels, "-" where the frames are identical and "?" where their samples
    cannot be compared. The file appears under its name only when it is complete.

    Raises:
        OutputError: The file cannot be written; each method may raise it.
    """

    def __init__(self, path: Path, source: Path, target: Path) -> None:
        """Store the paths; entering the context opens the file.

        Args:
            path: The file to write.
            source: The input, whose name the header states.
            target: The output, whose name the header states.
        """
        self._path, self._source, self._target = path, source, target
        self._stack = ExitStack()

    def __enter__(self) -> Listing:
        with ExitStack() as stack:
            part = stack.enter_context(output_file(self._path, "the listing"))
            self._file = stack.enter_context(part.open("wb"))
            self._stack = stack.pop_all()
        return self

    def write_header(self, clock: Fraction, source_format: str, output_format: str) -> None:
        """Write the lines that describe the file.

        Args:
            clock: The time base of the source, in seconds per tick.
            source_format: The pixel format of the frames of the source.
            output_format: The pixel format of the frames of the output.

        Raises:
            OutputError: The file cannot be written.
        """
        lines = {
            "format": "frame checksums of a video and its restored output",
            "version": "1",
            "hash": "MD5",
            "software": f"vidrestore {version('vidrestore')}",
            "source": self._source.name,
            "output": self._target.name,
            "tb": str(clock),
            "source_format": source_format,
            "output_format": output_format,
        }
        text = "".join(f"#{name}: {' '.join(v.splitlines())}\n" for name, v in lines.items())
        self._write(f"{text}#frame, pts, source md5, output md5, x0, y0, x1, y1\n")

    def write(self, frame: Frame, source_md5: str, output_md5: str, xyxy: Sequence[object]) -> None:
        """Write the line of one frame.

        Args:
            frame: The frame, for its number and time.
            source_md5: The checksum of the frame in the source.
            output_md5: The checksum of the frame in the output.
            xyxy: The box of changed samples, x0 y0 x1 y1, or four times "-" or "?".

        Raises:
            OutputError: The file cannot be written.
        """
        columns = (frame.index, frame.pts, source_md5, output_md5, *xyxy)
        self._write(", ".join(map(str, columns)) + "\n")

    def _write(self, text: str) -> None:
        with _writing(self._path):
            # File names may hold bytes that are not text; these are written as escapes.
            self._file.write(text.encode("utf-8", "backslashreplace"))

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(error_type, error, trace)


@contextmanager
def _writing(listing: Path, what: str = "listing") -> Iterator[None]:
    """Convert errors of the file system to OutputError."""
    try:
        yield
    except OSError as error:
        raise not_written(
            f"the {what} {listing}", listing.parent, error, "cannot be written"
        ) from error

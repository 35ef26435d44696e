"""A text file that lists the MD5 checksums of every frame of a source and its output."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from vidrestore.common.errors import not_written
from vidrestore.common.files import output_place, sync_file, unfinished_file
from vidrestore.imaging.frame import Frame
from vidrestore.imaging.planes import plane


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
    cannot be compared. The file lies next to its place until the caller moves it there; it is
    removed at the end if that was not done.

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
        with ExitStack() as stack, _writing(self._path):
            self._place = output_place(self._path, "the listing")
            self._part = stack.enter_context(unfinished_file(self._place))
            self._file = stack.enter_context(self._part.open("wb"))
            self._stack = stack.pop_all()
        return self

    def finish(self) -> None:
        """All is written."""
        with _writing(self._path):
            self._file.close()
            sync_file(self._part)

    @property
    def move(self) -> tuple[Path, Path]:
        """(file, place), for `placed_together` once the listing is finished."""
        return self._part, self._place

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
def _writing(listing: Path) -> Iterator[None]:
    """Convert errors of the file system to OutputError."""
    try:
        yield
    except OSError as error:
        raise not_written(
            f"the listing {listing}", listing.parent, error, "cannot be written"
        ) from error

"""A text file with the hashes of every frame of a source and its output."""

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
    """Of the samples of all planes in their order, row by row without padding: what ffmpeg's
    `framemd5` gives for the decoded frame."""
    digest = hashlib.md5(usedforsecurity=False)
    for index in range(len(image.planes)):
        digest.update(np.ascontiguousarray(plane(image, index)).data)
    return digest.hexdigest()


class Listing:
    """A text file with one line per frame, in the manner of ffmpeg's `framemd5`.

    Lines that begin with # say what the file is. The others have the columns named in the last of
    them: pts in the source's time base, and the half-open box of changed samples in luma pixels,
    "-" where the frames are identical and "?" where their samples cannot be compared. It lies
    beside its place until whoever opened it brings it there, and is removed in the end where that
    was not done. OutputError where it cannot be written.
    """

    def __init__(self, path: Path, source: Path, target: Path) -> None:
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
        columns = (frame.index, frame.pts, source_md5, output_md5, *xyxy)
        self._write(", ".join(map(str, columns)) + "\n")

    def _write(self, text: str) -> None:
        with _writing(self._path):
            # A file name may hold bytes that are no text; they are written as escapes.
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
    """OutputError, in one sentence, for what the file system refuses."""
    try:
        yield
    except OSError as error:
        raise not_written(
            f"the listing {listing}", listing.parent, error, "cannot be written"
        ) from error

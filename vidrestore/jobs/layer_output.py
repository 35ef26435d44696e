"""The layer (`--layer`): the restored faces and their matte in files of their own."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vidrestore.analysis.edl import later
from vidrestore.analysis.result import Analysis
from vidrestore.common.errors import OutputError, UsageError, not_written
from vidrestore.common.files import (
    fitting_name,
    held,
    output_place,
    remove_tree,
    sync_file,
    sync_folder,
)
from vidrestore.common.handled import logged
from vidrestore.imaging.frame import LayerRange, VideoInfo
from vidrestore.imaging.planes import layout, plane
from vidrestore.jobs.request import check_layer_folder
from vidrestore.jobs.work_folder import SegmentFile, WorkFolder, segment_file
from vidrestore.media.codecs import Encoding
from vidrestore.media.concat import join
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.media.ffmpeg import check_room, run_ffmpeg
from vidrestore.media.source import open_source
from vidrestore.media.timeline import begin_pts
from vidrestore.restoration.compositing.layers import LayerFiles

_STREAMS = ("fill", "matte")
_PICTURE = re.compile(r"(fill|matte)_\d{6,}\.tif")
_LOCK = ".vidrestore-layer.lock"
_STAGING = re.compile(r"\.layer\.[0-9]{1,10}-[0-9a-f]{8}\.part")
_DEFLATE = 8  # libtiff's COMPRESSION_ADOBE_DEFLATE
# The encoder of ProRes takes a limit of bits for each macroblock, not a quality. With this limit
# and a flat quantization matrix it is as exact as it can be: the root mean square error is half a
# code value of ten bits.
_PRORES = {"profile": "4444xq", "bits_per_mb": "8192", "quant_mat": "default"}
_LOSSY = (
    "the layer is in ProRes, which is lossy: the layer over the source differs from the output by "
    "up to two code values of 8 bits or six of 10 bits; --set layer.format=tiff reduces this to one"
)
# Ten bits of narrow range, without the codes that are reserved for synchronization.
_PRORES_HOLDS = LayerRange(219 * 4, -0.06, 1.08)
_TIFF_HOLDS = LayerRange(2**16 - 1, 0.0, 1.0)
_FFV1 = {"level": "3", "g": "1", "slicecrc": "1"}


@dataclass(frozen=True, slots=True)
class LayerOutput:
    """The streams of the fill (the restored faces) and of the matte.

    The work folder holds them in segments, as it holds the video.
    """

    folder: Path
    """The folder that receives the finished files of the layer."""
    stem: str
    """The beginning of the names of the ProRes files."""
    form: str
    """The format of the files: "prores" or "tiff", as the setting `layer.format`."""
    work: WorkFolder
    """The work folder that holds the streams until the output is finished."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Notices about the files for the user, one sentence each."""
        return (_LOSSY,) if self.form == "prores" else ()

    def files(self, part: str, work: WorkFolder, info: VideoInfo) -> LayerFiles:
        """Choose new temporary files and the encoding for the layer of one part of the video.

        Args:
            part: The name of the part in the work folder, such as "0007".
            work: The work folder in which the files are to be written.
            info: The properties of the output's frames.

        Returns:
            The paths of the fill and of the matte, their encodings and the range of values that
            the encodings hold.
        """
        fill, matte = (work.place(f"{part}.{stream}", self._suffix) for stream in _STREAMS)
        if self.form == "prores":
            # Editing programs assume narrow range for every ProRes file.
            one = Encoding(
                "prores", "prores_ks", "yuv444p10le", ".mov", _PRORES,
                has_field_flags=info.is_interlaced,
            )  # fmt: skip
            return LayerFiles(fill, matte, (one, one), _PRORES_HOLDS)
        color, gray = (
            Encoding("ffv1", "ffv1", name, ".mkv", _FFV1) for name in ("gbrp16le", "gray16le")
        )
        return LayerFiles(fill, matte, (color, gray), _TIFF_HOLDS)

    def has(self, part: str, key: str) -> bool:
        """Tell whether both streams of a part are finished.

        Args:
            part: The name of the part in the work folder.
            key: The key of the part (see `segment_key`).

        Returns:
            True where both files exist, are whole and have that key.
        """
        return all(self._find(part, stream, key) is not None for stream in _STREAMS)

    def finish(self, part: str, key: str, streams: Sequence[SegmentFile]) -> None:
        """Register both streams of a part as finished, and give them their final names.

        Args:
            part: The name of the part in the work folder.
            key: The key of the part.
            streams: The fill and the matte, which were written to the paths that `files` chose.
        """
        for stream, written in zip(_STREAMS, streams, strict=True):
            self.work.finish(f"{part}.{stream}", self._layer_key(key), written)

    def join(
        self,
        parts: Sequence[tuple[str, str]],
        times: Sequence[Sequence[int]],
        info: VideoInfo,
        video_key: str,
    ) -> None:
        """Join the parts of each stream into one file, and register that as finished.

        Args:
            parts: (name, key) of all parts of the video, in order.
            times: For each part, the presentation times of its frames, in ticks of the time base
                of `info`.
            info: The properties of the output's picture.
            video_key: The key of the whole video.
        """
        wholes = []
        for stream in _STREAMS:
            matches = [self._find(name, stream, key) for name, key in parts]
            paths = [path for path in matches if path is not None]
            whole = self.work.place(f"video.{stream}", self._suffix)
            if len(paths) == 1:
                paths[0].replace(whole)
            else:
                join(paths, whole, times, info)
            wholes.append(segment_file(whole, {}))
        self.finish("video", video_key, wholes)

    @contextmanager
    def placed(self, source: Path, analysis: Analysis, *, is_part: bool) -> Iterator[None]:
        """Write the files of the layer into its folder, from the joined streams.

        After an error, in this function or in the scope, the folder holds what it held before.
        The caller holds `layer_folder` during the scope.

        Args:
            source: The video to which the layer belongs.
            analysis: The analysis of `source`, or of a part of it. Its frames are the frames of
                the layer.
            is_part: Whether the layer covers a part of the source. The times of a part begin at
                zero, as those of the output do; otherwise the times of the source are kept.

        Yields:
            Nothing. In the scope the new files are in their places.

        Raises:
            OutputError: The files cannot be written.
        """
        paths = [self.work.path_of(f"video.{stream}", self._suffix) for stream in _STREAMS]
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            staging = _Staging.made_in(self.folder)
        try:
            with _writing(self.folder):
                code = _timecode(source, analysis) if self.form == "prores" else None
                for stream, path in zip(_STREAMS, paths, strict=True):
                    if self.form == "prores":
                        target = staging.new / self._movie_name(stream)
                        _remux(path, target, self.folder, code, is_part=is_part)
                    else:
                        _write_pictures(path, staging.new, stream)
                staging.swap(self._there())
            yield
        except BaseException:
            with _writing(self.folder):
                staging.undo()
            raise
        with _writing(self.folder):
            staging.commit()

    def check(self, target: Path, others: Sequence[Path], *, overwrite: bool) -> None:
        """Check, before any work, that the folder of the layer can be used.

        Args:
            target: The output.
            others: The inputs.
            overwrite: Whether files of a layer that exist may be replaced.

        Raises:
            UsageError: `folder` is not a folder, the layer would overwrite a file of this run, a
                file of the layer is a link, or a layer exists and `overwrite` is False.
            OutputError: The folder cannot be created or written to.
        """
        with _writing(self.folder):
            check_layer_folder(self.folder)
            movies = self._movies()
            run_files = {os.path.realpath(path) for path in (target, *others)}
            if self.form == "prores" and run_files.intersection(map(os.path.realpath, movies)):
                raise UsageError(
                    f"the layer would replace a file of this run in {self.folder}; "
                    "choose another folder"
                )
            for path in self._there():
                # The old files are moved to another folder until the new ones are whole.
                if path.is_symlink():
                    raise UsageError(f"the layer {path} is a link; remove it")
                output_place(path, "the layer")
            if not overwrite and (old := next(iter(self._there()), None)):
                raise UsageError(f"the layer {old} exists already; add --overwrite to replace it")

    def _there(self) -> list[Path]:
        """List the files of the layer that the folder holds already."""
        if self.form == "prores":
            return [movie for movie in self._movies() if movie.exists() or movie.is_symlink()]
        return list(self._pictures())

    def _movies(self) -> list[Path]:
        return [self.folder / self._movie_name(stream) for stream in _STREAMS]

    def _movie_name(self, stream: str) -> str:
        return fitting_name(self.folder, self.stem, f".{stream}.mov")

    def _pictures(self) -> Iterator[Path]:
        if self.folder.is_dir():
            yield from (p for p in self.folder.iterdir() if _PICTURE.fullmatch(p.name))

    @property
    def _suffix(self) -> str:
        return ".mov" if self.form == "prores" else ".mkv"

    def _layer_key(self, key: str) -> str:
        return f"{key}-{self.form}"

    def _find(self, part: str, stream: str, key: str) -> Path | None:
        """Return the finished file of one stream of a part, if it is whole and has that key."""
        done = self.work.find(f"{part}.{stream}", self._suffix, self._layer_key(key))
        return None if done is None else done.path


@contextmanager
def layer_folder(folder: Path | None) -> Iterator[None]:
    """Lock the folder of a layer for one run, and undo what a killed run left in it.

    Where the folder is missing, this function creates it, and removes it at the end of the scope
    if it is empty then. A path that is not a folder is left to `LayerOutput.check`.

    Args:
        folder: The folder of the layer; None: the run writes no layer.

    Yields:
        Nothing.

    Raises:
        UsageError: Another run holds the folder.
        OutputError: The folder cannot be written to.
    """
    if folder is None or ((folder.exists() or folder.is_symlink()) and not folder.is_dir()):
        yield  # `LayerOutput.check` reports what is not a folder, with the other options
        return
    if not folder.absolute().parent.is_dir():
        yield
        return
    with ExitStack() as stack:
        with _writing(folder):
            is_new = not folder.exists()
            folder.mkdir(exist_ok=True)
            if is_new:
                stack.callback(_remove_if_empty, folder)
            try:
                stack.enter_context(held(folder / _LOCK, wait=False))
            except BlockingIOError as error:
                raise UsageError(
                    f"another run is writing the layer {folder}; wait for it or choose another "
                    "folder"
                ) from error
            stack.callback(_remove_lock, folder)
            for entry in list(folder.iterdir()):
                if _STAGING.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink():
                    _Staging(entry).undo()
        yield


def _remove_if_empty(folder: Path) -> None:
    with logged(OSError, what=f"removing {folder} where it is empty"):
        folder.rmdir()


def _remove_lock(folder: Path) -> None:
    # Windows cannot remove a file that is open.
    with logged(OSError, what=f"removing the lock of {folder}"):
        (folder / _LOCK).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Staging:
    """A folder in the folder of a layer, from which the new files replace the old ones at once.

    new/      the new files that are not in their places yet
    old/      the old files that were moved out of the folder so far
    gone/     the new name of old/, once it holds all old files: from then on, a file in the folder
              of the layer whose name is in `names` is new
    names     the names of all new files, each followed by a zero byte
    """

    path: Path

    @classmethod
    def made_in(cls, folder: Path) -> _Staging:
        """Create an empty one in the folder of the layer."""
        staging = cls(folder / f".layer.{os.getpid()}-{secrets.token_hex(4)}.part")
        staging.path.mkdir()
        staging.new.mkdir()
        return staging

    @property
    def new(self) -> Path:
        """The folder for the new files."""
        return self.path / "new"

    def swap(self, there: Sequence[Path]) -> None:
        """Move the old files (`there`) away, and the new files to their places."""
        folder, old, gone = self.path.parent, self.path / "old", self.path / "gone"
        new = sorted(self.new.iterdir())
        for path in new:
            sync_file(path)
        names = self.path / "names"
        names.write_bytes(b"".join(os.fsencode(path.name) + b"\0" for path in new))
        sync_file(names)
        old.mkdir()
        for path in (self.new, self.path, folder):
            sync_folder(path)
        for path in there:
            path.replace(old / path.name)
        old.replace(gone)
        for path in new:
            path.replace(folder / path.name)
        sync_folder(folder)

    def commit(self) -> None:
        """Make the new files final, and remove the old ones."""
        (self.path / "names").unlink()
        self.remove()

    def undo(self) -> None:
        """Bring the folder back to its state before `swap`, unless `commit` was called."""
        folder, old, gone = self.path.parent, self.path / "old", self.path / "gone"
        try:
            names = (self.path / "names").read_bytes().split(b"\0")
        except FileNotFoundError:
            names = []
        if names and gone.is_dir():
            for name in filter(None, names):
                path = folder / os.fsdecode(name)
                if path.parent == folder and path.is_file():
                    path.unlink()
            gone.replace(
                old
            )  # so that, after an interruption here, the next `undo` keeps the old files
        for path in list(old.iterdir()) if old.is_dir() else ():
            path.replace(folder / path.name)
        self.remove()

    def remove(self) -> None:
        """Remove the staging folder with all that it holds."""
        remove_tree(self.path)


def _timecode(source: Path, analysis: Analysis) -> str | None:
    """Return the time code of the first frame; None where the source has no time code."""
    with open_source(source) as container:
        tags = [container.metadata, *(stream.metadata for stream in container.streams)]
        stream = container.streams[analysis.info.stream_index]
        begin = begin_pts(stream, analysis.info.shifts)
    code = next((tag["timecode"] for tag in tags if "timecode" in tag), None)
    rate, clock = analysis.info.frame_rate, analysis.info.time_base
    frames = round((int(analysis.pts[0]) - begin) * clock * rate)
    return None if code is None else later(code, frames, rate)


def _remux(video: Path, target: Path, folder: Path, timecode: str | None, *, is_part: bool) -> None:
    """Copy a stream of the layer into a QuickTime file, with its time code."""
    code = [] if timecode is None else ["-timecode", timecode]
    times = [] if is_part else ["-copyts"]
    done = run_ffmpeg(
        ["-v", "error", "-y", "-i", str(video.absolute()), "-map", "0:v:0", "-c", "copy", *times,
         *code, "-movie_timescale", "90000", str(target.absolute())]
    )  # fmt: skip
    check_room(done, target)
    if done.status:
        raise OutputError(f"the layer {folder} cannot be written: {done.printed.strip()}")


def _write_pictures(video: Path, folder: Path, stream: str) -> None:
    """Write a TIFF of 16 bits, full range, for each frame, numbered from 0."""
    for frame in decode(video, DecodeErrors()):
        # OpenCV wants the colors in the order blue, green, red.
        order = layout(frame.image).planes[::-1]
        picture = np.dstack([plane(frame.image, index) for index in order])
        # cv2.imwrite does not tell why it fails.
        done, data = cv2.imencode(".tif", picture, [cv2.IMWRITE_TIFF_COMPRESSION, _DEFLATE])
        if not done:
            raise OutputError(f"frame {frame.index} of the layer cannot be encoded as TIFF")
        (folder / f"{stream}_{frame.index:06d}.tif").write_bytes(data.tobytes())


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn an error of the file system into an OutputError."""
    try:
        yield
    except OSError as error:
        raise not_written(f"the layer {folder}", folder, error, "cannot be written") from error

"""The folder beside the output in which a job keeps what is done, so that it can be resumed.

OUTPUT.vidrestore/
    lock                held while a run works
    job.json            which source and which segments
    segments/0007.mp4   a part of the new video stream, and 0007.json: what it is made from;
                        0007.*.part.mp4 while it is being written
    video.mp4           all of them, once they are joined, and video.json
    whole/              the pictures of the output, until all are there
    *.fill.mov, *.matte.mov     the same parts of a layer, where one is written, each with its note
    unkeyed/            what a run with a restorer without a cache_key finishes, while it runs
    faces/00000123/     restored crops of frame 123, while a segment that needs them is not done
    crops/              restored crops, with restore.cache_crops; they stay when the job is done
    kept.json           with --keep-job, once the output is written: what its segments are,
    analysis.npz        and the analysis that they were made from
"""

from __future__ import annotations

import logging
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vidrestore.common.checksums import sha256_of_file
from vidrestore.common.errors import (
    OutputError,
    UsageError,
    is_disk_full,
    not_written,
    system_reason,
)
from vidrestore.common.files import held, sync_file, sync_folder
from vidrestore.common.handled import logged
from vidrestore.jobs.notes import (
    VERSION,
    JobNote,
    KeptNote,
    LayerNote,
    SegmentNote,
    VideoNote,
    read_note,
    write_note,
)
from vidrestore.restoration.crop_cache import bytes_in, crops_in, forget_frames_outside

ANALYSIS = "analysis.npz"
_KEPT = "kept.json"
_MOST_NAMED = 3
_logger = logging.getLogger("vidrestore")


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A part of the video, or all of it, that is whole and on the disk."""

    path: Path
    size: int
    """In bytes."""
    sha256: str
    counts: Mapping[str, Any]
    """What was counted in the segment, for `RestorationStats.add`; for the whole video a list of
    such, "segments"."""
    layer: tuple[SegmentFile, ...] = ()
    """The streams of its layer, where one is written."""


def segment_file(path: Path, counts: Mapping[str, Any], *layer: Path) -> SegmentFile:
    """Flush what was written to `path`, and its layer, to the disk, and hash it."""
    sync_file(path)
    sync_folder(path.parent)
    streams = tuple(segment_file(each, {}) for each in layer)
    return SegmentFile(path, path.stat().st_size, sha256_of_file(path), counts, streams)


class WorkFolder:
    """Nothing in it counts until a note says that it is whole; notes appear all at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_kept = True
        """Whether the folder stays when the run ends, if anything in it is done."""
        self._segments = path / "segments"
        self.crops = path / "crops"
        self.faces = path / "faces"
        """Where the restored crops of unfinished segments are."""
        self._unkeyed = path / "unkeyed"
        self._is_unkeyed = False
        self._dropped: list[str] = []

    def begin(self, source: str, *, resume: bool) -> str | None:
        """Keep what an earlier run on the same source finished, and remove all else.

        Why nothing is kept of what there was, or None.
        """
        own = self.path / "job.json"
        is_left = own.exists() or own.is_symlink()
        left = read_note(own, JobNote)
        is_same = left is not None and left["source"] == source
        fits = resume and is_same
        for entry in list(self.path.iterdir()):
            if not (entry.name == "lock" or self._stays(entry, fits=fits, is_same=is_same)):
                _remove(entry)
        self._segments.mkdir(exist_ok=True)
        self.drop_unfinished()
        self._note(own, {"version": VERSION, "source": source})
        if is_same or not is_left or not resume:
            return None
        if left is None:
            return (
                f"what an earlier run left in {self.path} is not used, since its {own.name} is "
                "damaged or of another version"
            )
        return f"what an earlier run left in {self.path} is of another source and is not used"

    def keep_results_apart(self) -> None:
        """No later run can use what this one makes: it lies apart, and goes when the run ends, so
        that what an earlier run finished stays."""
        self._unkeyed.mkdir(exist_ok=True)
        self._is_unkeyed = True

    def _stays(self, entry: Path, *, fits: bool, is_same: bool) -> bool:
        """Whether `begin` keeps that entry; of a folder it removes what cannot be of a run."""
        if entry in (self._segments, self.crops, self.faces):
            if not fits:
                return False
            if not _is_folder(entry):
                self._drop(entry, "it is not a folder of its own")
                return False
            for inside in list(entry.iterdir()):
                self._drop_foreign(inside, has_files=entry != self._segments)
            return True
        is_part = entry.name.startswith("video.") and ".part." not in entry.name
        if is_same and entry.name in (_KEPT, ANALYSIS):
            wanted = True
        else:
            wanted = fits and (entry.name == "job.json" or is_part)
        if wanted and not _is_file(entry):
            self._drop(entry, "it is not a file of its own")
            return False
        return wanted

    def _drop_foreign(self, entry: Path, *, has_files: bool) -> None:
        """Remove what is not a file, or not a folder of files where it `has_files`: nothing is
        ever written through a link."""
        if has_files and _is_folder(entry):
            for inside in list(entry.iterdir()):
                self._drop_foreign(inside, has_files=False)
        elif has_files or not _is_file(entry):
            self._drop(entry, f"it is not a {'folder' if has_files else 'file'} of its own")
            _remove(entry)

    def _drop(self, entry: Path, why: str) -> None:
        _logger.info("%s is of no use: %s", entry, why)
        name = entry.relative_to(self.path).as_posix()
        if ".part." not in name and name not in self._dropped:
            self._dropped.append(name)

    def dropped(self) -> str | None:
        """What an earlier run finished that is damaged, in a sentence; only once."""
        names, self._dropped = self._dropped, []
        if not names:
            return None
        more = len(names) - _MOST_NAMED
        shown = ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        return f"damaged in {self.path}, and made anew as far as it is needed: {shown}"

    def place(self, name: str, suffix: str) -> Path:
        """Where a part may be written before it is done: another place each time, so that two
        tries at one part, of which one was given up for lost, do not meet."""
        return self._folder(name) / f"{name}.{secrets.token_hex(4)}.part{suffix}"

    def path_of(self, name: str, suffix: str) -> Path:
        """Name the place of a finished file."""
        return self._folder(name) / f"{name}{suffix}"

    def find(self, name: str, suffix: str, segment_key: str) -> SegmentFile | None:
        """The finished file of that name, if it is whole and has that key."""
        path = self.path_of(name, suffix)
        of_note = path.with_suffix(".json")
        note = read_note(of_note, _shape(name))
        if note is None:
            if of_note.exists() or of_note.is_symlink():
                self._drop(of_note, "it is no whole note")
            return None
        if note["segment_key"] != segment_key:
            return None
        is_there = _is_file(path) and path.stat().st_size == note["size"]
        if not is_there or sha256_of_file(path) != note["sha256"]:
            # Streams of a layer are moved away when they are joined.
            if path.exists() or path.is_symlink():
                self._drop(path, "it is not what its note describes")
            return None
        return SegmentFile(path, note["size"], note["sha256"], note["counts"])

    def finish(self, name: str, segment_key: str, made: SegmentFile) -> SegmentFile:
        """Give the file its name and its note; only the holder of the lock may call this."""
        path = self.path_of(name, made.path.suffix)
        note = {"segment_key": segment_key, "size": made.size, "sha256": made.sha256,
                "counts": dict(made.counts)}  # fmt: skip
        # Without its note a file counts for nothing, so that the two can never disagree.
        _remove(path.with_suffix(".json"))
        if not _is_file(path):
            _remove(path)
        made.path.replace(path)
        self._note(path.with_suffix(".json"), note)
        return replace(made, path=path, layer=())

    def forget_segments(self) -> None:
        """Once they are joined."""
        if self._is_unkeyed:
            return  # they go together with the joined stream
        # A worker that was given up for lost may be writing there still.
        shutil.rmtree(self._segments, ignore_errors=True)
        shutil.rmtree(self.faces, ignore_errors=True)
        self._segments.mkdir(exist_ok=True)

    def forget_faces(self, needed: Sequence[tuple[int, int]]) -> None:
        """Remove the restored crops that no unfinished segment needs.

        Args:
            needed: [first, end) of the frames that the unfinished segments depend on.
        """
        if self._is_unkeyed:
            return  # these are an earlier run's
        forget_frames_outside(self.faces, needed)

    def forget_video(self) -> None:
        """The joined stream is of no use."""
        folder = self._folder("video")
        for path in (folder / "video.json", *folder.glob("video.*")):
            _remove(path)

    def keep(self, output: Path, note: Mapping[str, Any]) -> None:
        """Note what a later run must know of the job that made `output`."""
        own = {"version": VERSION, "sha256": sha256_of_file(output)}
        self._note(self.path / _KEPT, {**note, **own})

    def kept(self) -> dict[str, Any] | None:
        """What `keep` noted, the "sha256" of the output with it; None where there is nothing.

        UsageError where it is damaged.
        """
        return self._kept(_KEPT, KeptNote)

    def source(self) -> str | None:
        """The fingerprint of the source of what is kept; UsageError as of `kept`."""
        note = self._kept("job.json", JobNote)
        return None if note is None else str(note["source"])

    def _kept(self, name: str, shape: type[KeptNote] | type[JobNote]) -> dict[str, Any] | None:
        path = self.path / name
        note = read_note(path, shape)
        if note is None and (path.exists() or path.is_symlink()):
            raise UsageError(
                f"{path} is damaged or of another version, so its output cannot be redone in "
                "part; restore the whole with --keep-job --overwrite"
            )
        return note

    @property
    def is_of_earlier_run(self) -> bool:
        """Whether this run's own results are kept apart and go when it ends."""
        return self._is_unkeyed

    def end(self, *, keep_job: bool) -> None:
        """The output is written; nothing stays but what `keep` noted, if that is wanted."""
        self.is_kept = False
        if not keep_job:
            _remove(self.path / _KEPT)

    def clear(self) -> bool:
        """Remove all but a kept job and crops; False where there is neither."""
        if not (_is_file(self.path / _KEPT) or _is_folder(self.crops)):
            return False
        for entry in list(self.path.iterdir()):
            if entry.name in ("lock", "job.json", _KEPT, ANALYSIS) or entry == self.crops:
                continue
            # A worker that was given up for lost may be writing there still.
            with logged(OSError, what=f"removing {entry}"):
                _remove(entry)
        return True

    def drop_unfinished(self) -> None:
        """Give back the room of what no later run can use."""
        shutil.rmtree(self._unkeyed, ignore_errors=True)
        shutil.rmtree(self.path / "whole", ignore_errors=True)
        for path in (*self.path.glob("whole.*"), *self.path.rglob("*.part.*")):
            # A worker that was given up for lost may be writing it still.
            with logged(OSError, what=f"removing {path}"):
                _remove(path)

    def what_is_done(self) -> str:
        """What a later run need not do again, in words; empty where there is nothing. Of a run
        whose results are kept apart, what there was before."""
        if read_note(self.path / "video.json", VideoNote) is not None:
            return "the whole video stream"
        if not _is_folder(self._segments):
            return ""
        notes = [note for note in self._segments.glob("*.json") if "." not in note.stem]
        segments = sum(read_note(note, SegmentNote) is not None for note in notes)
        faces = len(crops_in(self.faces)) if _is_folder(self.faces) else 0
        found = _counted(segments, "segment"), _counted(faces, "restored face")
        return " and ".join(filter(None, found))

    def _folder(self, name: str) -> Path:
        if self._is_unkeyed:
            return self._unkeyed
        return self.path if name.partition(".")[0] == "video" else self._segments

    def _note(self, path: Path, note: Mapping[str, Any]) -> None:
        if not _is_file(path):
            _remove(path)
        write_note(path, note)


def _shape(name: str) -> type[LayerNote] | type[SegmentNote] | type[VideoNote]:
    """Of the note of a part of that name."""
    if "." in name:
        return LayerNote
    return VideoNote if name == "video" else SegmentNote


def _is_file(path: Path) -> bool:
    """Not a link to one."""
    with suppress(FileNotFoundError), logged(OSError, what=f"looking at {path}"):
        return stat.S_ISREG(path.lstat().st_mode)
    return False


def _is_folder(path: Path) -> bool:
    """Not a link to one."""
    with suppress(FileNotFoundError), logged(OSError, what=f"looking at {path}"):
        return stat.S_ISDIR(path.lstat().st_mode)
    return False


def _remove(path: Path) -> None:
    """What lies there, if anything; of a link, the link."""
    if _is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _check_own(folder: Path) -> None:
    """OutputError where something else lies in the place of the work folder or of its lock."""
    lock = folder / "lock"
    for path, is_right, right in (
        (folder, _is_folder(folder), "a folder of its own"),
        (lock, _is_file(lock), "a file of its own"),
    ):
        if not is_right and (path.exists() or path.is_symlink()):
            what = "a link" if path.is_symlink() else "a folder" if path.is_dir() else "a file"
            raise OutputError(
                f"{path} is {what}, and vidrestore keeps {right} there; move it away or choose "
                "another name for the output"
            )


@contextmanager
def work_folder(target: Path, on_kept: Callable[[str], None]) -> Iterator[WorkFolder]:
    """`TARGET.vidrestore` beside the output; gone again if nothing in it is worth keeping.

    `on_kept` is told where it stays, in a sentence.
    UsageError while another run works in it, OutputError where it cannot be written to.
    """
    path = target.with_name(target.name + ".vidrestore")
    folder = WorkFolder(path)
    with ExitStack() as last, ExitStack() as stack:
        _check_own(path)
        try:
            path.mkdir(exist_ok=True)
            stack.enter_context(held(path / "lock", wait=False))
            # Windows removes no file that is open, as the lock is until the folder is let go.
            (last if sys.platform == "win32" else stack).callback(_leave, folder, on_kept)
        except BlockingIOError as error:
            raise UsageError(
                f"another run is writing {target}; wait for it or choose another name"
            ) from error
        except OSError as error:
            raise OutputError(
                f"the folder {target.parent} cannot be written to: {system_reason(error)}"
            ) from error
        try:
            yield folder
        except OSError as error:
            if is_disk_full(error):
                raise not_written("writing", target.parent, error) from error
            reason = system_reason(error)
            raise OutputError(f"{error.filename or target} cannot be used: {reason}") from error


def _leave(folder: WorkFolder, on_kept: Callable[[str], None]) -> None:
    if folder.is_kept and (done := folder.what_is_done()):
        folder.drop_unfinished()
        if folder.is_of_earlier_run:
            on_kept(
                f"kept in {folder.path}, of an earlier run: {done}; to go on from there, type the "
                "command of that run again"
            )
        else:
            on_kept(
                f"kept in {folder.path}: {done}; to go on from there, type the same command again, "
                "or with --no-resume to begin anew"
            )
    elif not folder.clear():
        shutil.rmtree(folder.path, ignore_errors=True)
    if _is_folder(folder.crops):
        size = bytes_in(folder.crops) / 1e6
        on_kept(
            f"restored faces are kept in {folder.crops} ({size:,.1f} MB); with "
            "restore.cache_crops they are used again, and the folder can be deleted at any time"
        )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}" if count else ""

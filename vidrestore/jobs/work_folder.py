"""The work folder of a job, next to the output: it holds finished parts, so that a job can resume.

OUTPUT.vidrestore/
    lock                locked while a run works
    job.json            the note about the source, about what finds its faces, and about the
                        networks for which key frames save time
    segments/0007.mp4   a part of the new video stream; its note 0007.json holds its key, size and
                        hash; its name is 0007.*.part.mp4 while it is being written
    video.mp4           all segments, joined, with the note video.json
    whole/              the pictures of the output, until all of them are written
    *.fill.mov, *.matte.mov     the parts of a layer, where the run writes one, each with its note
    unkeyed/            the results of a run whose restorer has no cache_key, while it runs
    faces/00000123/     the restored crops of frame 123, while an unfinished segment needs them
    crops/              the restored crops, with restore.cache_crops; they stay after the job
    kept.json           the segments of the finished output, with --keep-job
    analysis.npz        the analysis of the finished output, with --keep-job
"""

from __future__ import annotations

import logging
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vidrestore.common.checksums import sha256_of_file
from vidrestore.common.counting import counted
from vidrestore.common.errors import (
    OutputError,
    UsageError,
    is_disk_full,
    not_written,
    system_reason,
)
from vidrestore.common.files import held_folder, remove_tree, sync_file, sync_folder
from vidrestore.common.handled import logged
from vidrestore.jobs.notes import (
    KEPT,
    VERSION,
    JobNote,
    KeptNote,
    LayerNote,
    SegmentNote,
    VideoNote,
    read_note,
    work_path,
    write_note,
)
from vidrestore.models.detectors import DetectionModels
from vidrestore.restoration.crop_cache import bytes_in, crops_in, forget_frames_outside

ANALYSIS = "analysis.npz"
_FIELDS = ("models", "judge", "key_frames")  # the fields of job.json apart from the source
_MOST_NAMED = 3
_logger = logging.getLogger("vidrestore")


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A complete file on the disk that holds a part of the video, or the whole video."""

    path: Path
    """The place of the file."""
    size: int
    """The size of the file, in bytes."""
    sha256: str
    """The hash of the file, in hexadecimal digits."""
    counts: Mapping[str, Any]
    """The counts of the segment, for `RestorationStats.add`. For the whole video: "segments" -> the
    list of the counts of all segments."""
    layer: tuple[SegmentFile, ...] = ()
    """The fill and the matte of the same part, where the run writes a layer."""


def segment_file(path: Path, counts: Mapping[str, Any], *layer: Path) -> SegmentFile:
    """Flush a file and its layer to the disk, and hash them.

    Args:
        path: The file, completely written.
        counts: The counts of the segment; see `SegmentFile.counts`.
        *layer: The files of its layer, if any.

    Returns:
        The description of the file.

    Raises:
        OSError: A file cannot be read or flushed.
    """
    sync_file(path)
    sync_folder(path.parent)
    streams = tuple(segment_file(each, {}) for each in layer)
    return SegmentFile(path, path.stat().st_size, sha256_of_file(path), counts, streams)


class WorkFolder:
    """The work folder of one job.

    A file in it is used only if a note states its key, size and hash. Notes are written atomically.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        """The folder."""
        self.is_kept = True
        """Whether the folder stays when the run ends, if it holds finished parts."""
        self._segments = path / "segments"
        self.crops = path / "crops"
        """The folder of the restored crops that stay after the job."""
        self.faces = path / "faces"
        """The folder of the restored crops of unfinished segments."""
        self._unkeyed = path / "unkeyed"
        self._is_unkeyed = False
        self._dropped: list[str] = []

    def begin(self, source: str, *, resume: bool) -> str | None:
        """Keep what an earlier run on the same source finished, and remove everything else.

        Args:
            source: The fingerprint of the source (`vidrestore.media.probe.fingerprint`).
            resume: Whether to use what an earlier run finished. A kept job (`keep`) and its
                analysis stay in either case, if they belong to the same source.

        Returns:
            A notice that tells why the parts of an earlier run are not used; None where there are
            none, or `resume` is False, or they are used.
        """
        own = self.path / "job.json"
        has_note = own.exists() or own.is_symlink()
        earlier = read_note(own, JobNote)
        is_same = earlier is not None and earlier["source"] == source
        fits = resume and is_same
        for entry in list(self.path.iterdir()):
            if not (entry.name == "lock" or self._stays(entry, fits=fits, is_same=is_same)):
                _remove(entry)
        self._segments.mkdir(exist_ok=True)
        self.drop_unfinished()
        kept = {name: (earlier or {}).get(name) if is_same else None for name in _FIELDS}
        self._note(own, {"version": VERSION, "source": source, **kept})
        if is_same or not has_note or not resume:
            return None
        if earlier is None:
            return (
                f"the work of an earlier run in {self.path} is not used, because its {own.name} is "
                "damaged or of another version"
            )
        return f"the work of an earlier run in {self.path} is of another source, so it is not used"

    def note_models(self, source: str, models: DetectionModels | None) -> None:
        """Note what finds the faces, for `begun_with` in a later run.

        Args:
            source: The fingerprint of the source, as for `begin`.
            models: What finds the faces; None: the job was given its analysis.
        """
        self._note_also(source, "models", None if models is None else asdict(models))

    def note_judge(self, source: str, parts: Mapping[str, str]) -> str | None:
        """Note the networks that compare restored faces with their source.

        Args:
            source: The fingerprint of the source, as for `begin`.
            parts: What each network that the settings ask for is -> a text that names its file, or
                an empty text where there is none.

        Returns:
            A notice where an earlier run of the job had others, so that what it finished cannot be
            used; else None.
        """
        note = read_note(self.path / "job.json", JobNote)
        before = None if note is None or note["source"] != source else note.get("judge")
        self._note_also(source, "judge", dict(parts))
        if before is None or not self._has_parts():
            return None
        changes = [
            f"{name} {change}"
            for name in sorted(before.keys() & parts.keys())
            if (change := _change(before[name], parts[name])) is not None
        ]
        if not changes:
            return None
        return (
            f"since this job began, {' and '.join(changes)}, with which restored faces are "
            "compared with their source; so what earlier runs of the job finished is rendered again"
        )

    def _note_also(self, source: str, field: str, value: object) -> None:
        """Replace one field of the note about the job."""
        path = self.path / "job.json"
        earlier = read_note(path, JobNote)
        known = {} if earlier is None or earlier["source"] != source else earlier
        fields = {name: known.get(name) for name in _FIELDS} | {field: value}
        self._note(path, {"version": VERSION, "source": source, **fields})

    def _has_parts(self) -> bool:
        """Tell whether an earlier run of the job finished anything that could be used."""
        return any(self._segments.glob("*.json")) or (self.path / "video.json").exists()

    def begun_with(self, source: str) -> DetectionModels | None:
        """Return what found the faces in the run whose work this folder holds.

        Args:
            source: The fingerprint of the source.

        Returns:
            What `note_models` noted; None where there is no such note, or it is of another source.
        """
        note = read_note(self.path / "job.json", JobNote)
        if note is None or note["source"] != source or note.get("models") is None:
            return None
        return DetectionModels(**note["models"])

    def note_key_frames(self, source: str, saves_time: Mapping[str, bool]) -> None:
        """Note for which networks key frames save time, so that a later run decides the same.

        Args:
            source: The fingerprint of the source, as for `begin`.
            saves_time: Network, side and device -> whether key frames save time.
        """
        self._note_also(source, "key_frames", dict(saves_time))

    def key_frames_noted(self, source: str) -> dict[str, bool]:
        """Return what `note_key_frames` noted.

        Args:
            source: The fingerprint of the source.

        Returns:
            Network, side and device -> whether key frames save time; empty where there is no such
            note, or it is of another source.
        """
        note = read_note(self.path / "job.json", JobNote)
        if note is None or note["source"] != source:
            return {}
        return dict(note.get("key_frames") or {})

    def keep_results_apart(self) -> None:
        """Store the results of this run in a folder of their own, which the end of the run removes.

        No later run can use them. What an earlier run finished stays.
        """
        (self._unkeyed / self._segments.name).mkdir(parents=True, exist_ok=True)
        self._is_unkeyed = True

    def _stays(self, entry: Path, *, fits: bool, is_same: bool) -> bool:
        """Tell whether `begin` keeps an entry; remove from a kept folder what no run wrote."""
        if entry in (self._segments, self.crops, self.faces):
            if not fits:
                return False
            if not _is_folder(entry):
                self._drop(entry, "it is not a folder, or is a link")
                return False
            for inside in list(entry.iterdir()):
                self._drop_foreign(inside, has_files=entry != self._segments)
            return True
        is_part = entry.name.startswith("video.") and ".part." not in entry.name
        if is_same and entry.name in (KEPT, ANALYSIS):
            wanted = True
        else:
            wanted = fits and (entry.name == "job.json" or is_part)
        if wanted and not _is_file(entry):
            self._drop(entry, "it is not a file, or is a link")
            return False
        return wanted

    def _drop_foreign(self, entry: Path, *, has_files: bool) -> None:
        """Remove an entry that is not a file, or, where it `has_files`, not a folder of files.

        So vidrestore never writes through a link.
        """
        if has_files and _is_folder(entry):
            for inside in list(entry.iterdir()):
                self._drop_foreign(inside, has_files=False)
        elif has_files or not _is_file(entry):
            self._drop(entry, f"it is not a {'folder' if has_files else 'file'}, or is a link")
            _remove(entry)

    def _drop(self, entry: Path, why: str) -> None:
        """Log that an entry is not used, and remember it for `dropped`."""
        _logger.info("%s is of no use: %s", entry, why)
        name = entry.relative_to(self.path).as_posix()
        if ".part." not in name and name not in self._dropped:
            self._dropped.append(name)

    def dropped(self) -> str | None:
        """Return a notice about the damaged parts since the last call; None: there are none."""
        names, self._dropped = self._dropped, []
        if not names:
            return None
        more = len(names) - _MOST_NAMED
        files = ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        return (
            f"damaged files in {self.path} are not used; vidrestore writes them again if it needs "
            f"them: {files}"
        )

    def place(self, name: str, suffix: str) -> Path:
        """Choose a temporary file for a part, with a new name in each call.

        So two workers that render the same part, because vidrestore took the first for lost, write
        to different files.

        Args:
            name: The name of the part, such as "0007" or "video".
            suffix: The suffix of the file, with its dot.

        Returns:
            The path; the file does not exist.
        """
        return self._folder(name) / f"{name}.{secrets.token_hex(4)}.part{suffix}"

    def path_of(self, name: str, suffix: str) -> Path:
        """Return the place of a finished file.

        Args:
            name: The name of the part, such as "0007" or "video".
            suffix: The suffix of the file, with its dot.

        Returns:
            The path; the file need not exist.
        """
        return self._folder(name) / f"{name}{suffix}"

    def find(self, name: str, suffix: str, segment_key: str) -> SegmentFile | None:
        """Find a finished file.

        Args:
            name: The name of the part, such as "0007" or "video".
            suffix: The suffix of the file, with its dot.
            segment_key: The key that the part must have.

        Returns:
            The file; None where it does not exist, is damaged, or has another key.
        """
        path = self.path_of(name, suffix)
        note_path = path.with_suffix(".json")
        note = read_note(note_path, _shape(name))
        if note is None:
            if note_path.exists() or note_path.is_symlink():
                self._drop(note_path, "it is not a complete note")
            return None
        if note["segment_key"] != segment_key:
            return None
        has_size = _is_file(path) and path.stat().st_size == note["size"]
        if not has_size or sha256_of_file(path) != note["sha256"]:
            # A missing file is no damage: joining moves the streams of a layer away.
            if path.exists() or path.is_symlink():
                self._drop(path, "it differs from its note")
            return None
        return SegmentFile(path, note["size"], note["sha256"], note["counts"])

    def finish(self, name: str, segment_key: str, made: SegmentFile) -> SegmentFile:
        """Give a part its final name and write its note; only the holder of the lock may call this.

        Args:
            name: The name of the part, such as "0007" or "video".
            segment_key: The key of the part.
            made: The complete file, at the path that `place` chose.

        Returns:
            The same file at its final place, without its layer.
        """
        path = self.path_of(name, made.path.suffix)
        note = {"segment_key": segment_key, "size": made.size, "sha256": made.sha256,
                "counts": dict(made.counts)}  # fmt: skip
        # A file without a note is never used, so file and note cannot contradict each other.
        _remove(path.with_suffix(".json"))
        if not _is_file(path):
            _remove(path)
        made.path.replace(path)
        self._note(path.with_suffix(".json"), note)
        return replace(made, path=path, layer=())

    def forget_segments(self) -> None:
        """Remove the segments and their crops, after the segments were joined."""
        if self._is_unkeyed:  # an earlier run made what the other folders hold
            remove_tree(self._unkeyed / self._segments.name)
            return
        # A worker that vidrestore took for lost may still be writing there.
        remove_tree(self._segments)
        remove_tree(self.faces)
        self._segments.mkdir(exist_ok=True)

    def forget_faces(self, needed: Sequence[tuple[int, int]]) -> None:
        """Remove the restored crops that no unfinished segment needs.

        Args:
            needed: [first, end) of the frames that the unfinished segments depend on.
        """
        if self._is_unkeyed:
            return  # an earlier run made the crops in the folder
        forget_frames_outside(self.faces, needed)

    def forget_video(self) -> None:
        """Remove the joined stream and its note."""
        folder = self._folder("video")
        for path in (folder / "video.json", *folder.glob("video.*")):
            _remove(path)

    def keep(self, output: Path, note: Mapping[str, Any]) -> None:
        """Write the note that a later run needs to redo shots of an output.

        Args:
            output: The finished file, whose hash the note includes.
            note: The other fields of the note (`vidrestore.jobs.notes.KeptNote`).
        """
        own = {"version": VERSION, "sha256": sha256_of_file(output)}
        self._note(self.path / KEPT, {**note, **own})

    def kept(self) -> dict[str, Any] | None:
        """Return the fields that `keep` wrote, with the "sha256" of the output.

        Returns:
            The fields; None where there is no note.

        Raises:
            UsageError: The note is damaged or of another version.
        """
        return self._kept(KEPT, KeptNote)

    def source(self) -> str | None:
        """Return the fingerprint of the source that the folder belongs to.

        Returns:
            The fingerprint; None where there is no note.

        Raises:
            UsageError: The note is damaged or of another version.
        """
        note = self._kept("job.json", JobNote)
        return None if note is None else str(note["source"])

    def _kept(self, name: str, shape: type[KeptNote] | type[JobNote]) -> dict[str, Any] | None:
        """Read a note; raise UsageError where it is damaged."""
        path = self.path / name
        note = read_note(path, shape)
        if note is None and (path.exists() or path.is_symlink()):
            raise UsageError(
                f"{path} is damaged or of another version, so single shots of its output cannot be "
                "redone; restore the whole video with --keep-job --overwrite"
            )
        return note

    @property
    def is_of_earlier_run(self) -> bool:
        """Whether this run keeps its results apart, so that all that stays is of an earlier run."""
        return self._is_unkeyed

    def end(self, *, keep_job: bool) -> None:
        """Mark the job as finished, so that the end of the run removes its parts.

        Args:
            keep_job: Whether the note that `keep` wrote stays.
        """
        self.is_kept = False
        if not keep_job:
            _remove(self.path / KEPT)

    def clear(self) -> bool:
        """Remove everything but a kept job and the crops.

        Returns:
            False where the folder holds neither; nothing is removed then.
        """
        if not (_is_file(self.path / KEPT) or _is_folder(self.crops)):
            return False
        for entry in list(self.path.iterdir()):
            if entry.name in ("lock", "job.json", KEPT, ANALYSIS) or entry == self.crops:
                continue
            # A worker that vidrestore took for lost may still be writing there.
            with logged(OSError, what=f"removing {entry}"):
                _remove(entry)
        return True

    def drop_unfinished(self) -> None:
        """Remove unfinished files, which no later run can use."""
        remove_tree(self._unkeyed)
        remove_tree(self.path / "whole")
        for path in (*self.path.glob("whole.*"), *self.path.rglob("*.part.*")):
            # A worker that vidrestore took for lost may still be writing it.
            with logged(OSError, what=f"removing {path}"):
                _remove(path)

    def progress_text(self) -> str:
        """Describe the finished parts that a later run can use, in words; empty: there are none.

        Results that are kept apart (see `keep_results_apart`) do not count.
        """
        if read_note(self.path / "video.json", VideoNote) is not None:
            return "the whole video stream"
        if not _is_folder(self._segments):
            return ""
        notes = [note for note in self._segments.glob("*.json") if "." not in note.stem]
        segments = sum(read_note(note, SegmentNote) is not None for note in notes)
        faces = len(crops_in(self.faces)) if _is_folder(self.faces) else 0
        counts = (segments, "segment"), (faces, "restored face")
        return " and ".join(counted(number, name) for number, name in counts if number)

    def _folder(self, name: str) -> Path:
        """Return the folder for the part of that name."""
        base = self._unkeyed if self._is_unkeyed else self.path
        return base if name.partition(".")[0] == "video" else base / self._segments.name

    def _note(self, path: Path, note: Mapping[str, Any]) -> None:
        """Write a note; remove first what is at its place and is not a file."""
        if not _is_file(path):
            _remove(path)
        write_note(path, note)


def _change(before: str, now: str) -> str | None:
    """Return the end of a clause that tells what happened to a network; None: nothing."""
    if before == now:
        return None
    if not now:
        return "is no longer there"
    return "has changed" if before else "was added"


def _shape(name: str) -> type[LayerNote] | type[SegmentNote] | type[VideoNote]:
    """Return the type of the note of the part of that name."""
    if "." in name:
        return LayerNote
    return VideoNote if name == "video" else SegmentNote


def _mode_of(path: Path) -> int | None:
    """Return the mode of what is at a path, which may be a link; None: there is nothing."""
    with logged(OSError, what=f"looking at {path}"), suppress(FileNotFoundError):
        return path.lstat().st_mode
    return None


def _is_file(path: Path) -> bool:
    """Tell whether a path is a file and not a link to one."""
    return stat.S_ISREG(_mode_of(path) or 0)


def _is_folder(path: Path) -> bool:
    """Tell whether a path is a folder and not a link to one."""
    return stat.S_ISDIR(_mode_of(path) or 0)


def _remove(path: Path) -> None:
    """Remove a file, a folder or a link (not its target); a missing path is no error."""
    if _is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _check_own(folder: Path) -> None:
    """Raise OutputError where the work folder or its lock is something else, such as a link."""
    for path, is_right, right in (
        (folder, stat.S_ISDIR, "a folder"),
        (folder / "lock", stat.S_ISREG, "a file"),
    ):
        # Another run may make or remove it meanwhile, so one look must do.
        if (mode := _mode_of(path)) is not None and not is_right(mode):
            kinds = {stat.S_ISLNK: "a link", stat.S_ISDIR: "a folder"}
            what = next((kind for test, kind in kinds.items() if test(mode)), "a file")
            raise OutputError(
                f"{path} is {what}, but vidrestore needs {right} of that name; move it away or "
                "choose another name for the output"
            )


@contextmanager
def work_folder(target: Path, on_kept: Callable[[str], None]) -> Iterator[WorkFolder]:
    """Create and lock the work folder of an output, `TARGET.vidrestore`, for one run.

    The end of the scope removes the folder, except for what a later run can use.

    Args:
        target: The output.
        on_kept: Receives a notice, one sentence, about each thing that stays.

    Yields:
        The work folder.

    Raises:
        UsageError: Another run works in the folder.
        OutputError: The folder cannot be written to, or the file system refuses something in the
            scope (`OSError`).
    """
    path = work_path(target)
    folder = WorkFolder(path)
    with ExitStack() as last, ExitStack() as stack:
        _check_own(path)
        try:
            stack.enter_context(held_folder(path))
            # Windows cannot remove the lock while it is open, so the lock is released first there.
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
    """Remove what no later run can use, and report what stays."""
    if folder.is_kept and (done := folder.progress_text()):
        folder.drop_unfinished()
        if folder.is_of_earlier_run:
            on_kept(
                f"kept in {folder.path}, of an earlier run: {done}; to continue from there, run "
                "the command of that run again"
            )
        else:
            on_kept(
                f"kept in {folder.path}: {done}; to continue from there, run the same command "
                "again, or add --no-resume to start over"
            )
    elif not folder.clear():
        remove_tree(folder.path)
    if _is_folder(folder.crops):
        size = bytes_in(folder.crops) / 1e6
        on_kept(
            f"restored faces are kept in {folder.crops} ({size:,.1f} MB); later runs with "
            "restore.cache_crops use them, and the folder can be deleted at any time"
        )

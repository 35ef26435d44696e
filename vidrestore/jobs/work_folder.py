"""The folder beside the output in which a job keeps what is done, so that it can be resumed.

OUTPUT.vidrestore/
    lock                held while a run works
    job.json            which source and which segments
    segments/0007.mp4   a part of the new video stream, and 0007.json: what it is made from;
                        0007.*.part.mp4 while it is being written
    video.mp4           all of them, once they are joined, and video.json
    whole/              the pictures of the output, until all are there
    *.fill.mov, *.matte.mov     the same parts of a layer, where one is written, each with its note
    faces/00000123/     restored crops of frame 123, while a segment that needs them is not done
    crops/              restored crops, with restore.cache_crops; they stay when the job is done
    kept.json           with --keep-job, once the output is written: what its segments are,
    analysis.npz        and the analysis that they were made from
"""

from __future__ import annotations

import errno
import hashlib
import json
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidrestore.common.errors import OutputError, UsageError, not_written
from vidrestore.common.files import held, sync_file, sync_folder, written_atomically
from vidrestore.restoration.crop_cache import bytes_in, crops_in, forget_frames_outside

_VERSION = 3
ANALYSIS = "analysis.npz"
_KEPT = "kept.json"


@dataclass(frozen=True, slots=True)
class Part:
    """A file that is whole and on the disk under a name of its own, and what was counted."""

    path: Path
    size: int
    sha256: str
    counts: Mapping[str, Any]
    layer: tuple[Part, ...] = ()
    """The streams of its layer, where one is written."""


def sealed(path: Path, counts: Mapping[str, Any], *layer: Path) -> Part:
    """What was written to `path`, and its layer to others, once it is on the disk."""
    sync_file(path)
    sync_folder(path.parent)
    streams = tuple(sealed(each, {}) for each in layer)
    return Part(path, path.stat().st_size, _sha256(path), counts, streams)


@dataclass(frozen=True, slots=True)
class Done:
    """A part of the video that is finished, and what was counted while it was made."""

    path: Path
    counts: Mapping[str, Any]


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

    def begin(self, source: str, *, resume: bool) -> str | None:
        """Keep what an earlier run on the same source finished, and remove all else.

        Why nothing is kept of what there was, or None.
        """
        left = self._read(self.path / "job.json")
        known = left is not None and left.get("version") == _VERSION
        is_same = known and left is not None and left.get("source") == source
        fits = resume and is_same
        for entry in self.path.iterdir():
            if entry.name == "lock" or (fits and entry.name in ("job.json", "segments")):
                continue
            if is_same and entry.name in (_KEPT, ANALYSIS):
                continue
            if fits and entry in (self.crops, self.faces):
                continue
            if fits and entry.name.startswith("video.") and ".part." not in entry.name:
                continue
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        self._segments.mkdir(exist_ok=True)
        self.drop_unfinished()
        self._note(self.path / "job.json", {"version": _VERSION, "source": source})
        if is_same or left is None or not resume:
            return None
        return f"what an earlier run left in {self.path} is of another source and is not used"

    def place(self, name: str, suffix: str) -> Path:
        """Where a part may be written before it is done: another place each time, so that two
        tries at one part, of which one was given up for lost, do not meet."""
        return self._folder(name) / f"{name}.{secrets.token_hex(4)}.part{suffix}"

    def find(self, name: str, suffix: str, made_from: str) -> Done | None:
        """The part of that name, if it is whole and made from the same."""
        path = self._folder(name) / f"{name}{suffix}"
        note = self._read(path.with_suffix(".json"))
        if note is None or note.get("made_from") != made_from or not path.is_file():
            return None
        if note.get("size") != path.stat().st_size or note.get("sha256") != _sha256(path):
            return None
        return Done(path, note.get("counts", {}))

    def finish(self, name: str, made_from: str, part: Part) -> Done:
        """The part is the one of that name; whoever holds the folder alone may call this."""
        path = self._folder(name) / f"{name}{part.path.suffix}"
        note = {"made_from": made_from, "size": part.size, "sha256": part.sha256,
                "counts": dict(part.counts)}  # fmt: skip
        # Without its note a file counts for nothing, so that the two can never disagree.
        path.with_suffix(".json").unlink(missing_ok=True)
        part.path.replace(path)
        self._note(path.with_suffix(".json"), note)
        return Done(path, part.counts)

    def forget_segments(self) -> None:
        """Once they are joined."""
        # A worker that was given up for lost may be writing there still.
        shutil.rmtree(self._segments, ignore_errors=True)
        shutil.rmtree(self.faces, ignore_errors=True)
        self._segments.mkdir(exist_ok=True)

    def forget_faces(self, needed: Sequence[tuple[int, int]]) -> None:
        """Remove the restored crops that no unfinished segment needs.

        Args:
            needed: [first, end) of the frames that the unfinished segments depend on.
        """
        forget_frames_outside(self.faces, needed)

    def forget_video(self) -> None:
        """The joined stream is of no use."""
        for path in (self.path / "video.json", *self.path.glob("video.*")):
            path.unlink(missing_ok=True)

    def keep(self, output: Path, note: Mapping[str, Any]) -> None:
        """Note what a later run must know of the job that made `output`."""
        own = {"version": _VERSION, "sha256": _sha256(output)}
        self._note(self.path / _KEPT, {**note, **own})

    def kept(self) -> dict[str, Any] | None:
        """What `keep` noted, the "sha256" of the output with it; None where there is nothing."""
        note = self._read(self.path / _KEPT)
        return note if note is not None and note.get("version") == _VERSION else None

    def source(self) -> str | None:
        """The fingerprint of the source of what is kept."""
        return (self._read(self.path / "job.json") or {}).get("source")

    def end(self, *, keep_job: bool) -> None:
        """The output is written; nothing stays but what `keep` noted, if that is wanted."""
        self.is_kept = False
        if not keep_job:
            (self.path / _KEPT).unlink(missing_ok=True)

    def clear(self) -> bool:
        """Remove all but a kept job and crops; False where there is neither."""
        if not ((self.path / _KEPT).is_file() or self.crops.is_dir()):
            return False
        for entry in self.path.iterdir():
            if entry.is_dir() and entry != self.crops:
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.is_file() and entry.name not in ("lock", "job.json", _KEPT, ANALYSIS):
                entry.unlink()
        return True

    def drop_unfinished(self) -> None:
        """Give back the room of what no later run can use."""
        shutil.rmtree(self.path / "whole", ignore_errors=True)
        for path in (*self.path.glob("whole.*"), *self.path.rglob("*.part.*")):
            with suppress(OSError):  # a worker that was given up for lost may be writing it still
                path.unlink()

    def what_is_done(self) -> str:
        """What a later run need not do again, in words; empty where there is nothing."""
        if (self.path / "video.json").is_file():
            return "the whole video stream"
        segments = sum("." not in note.stem for note in self._segments.glob("*.json"))
        found = _counted(segments, "segment"), _counted(len(crops_in(self.faces)), "restored face")
        return " and ".join(filter(None, found))

    def _folder(self, name: str) -> Path:
        return self.path if name.partition(".")[0] == "video" else self._segments

    def _read(self, path: Path) -> dict[str, Any] | None:
        """None where there is no note, or half of one."""
        with suppress(OSError, ValueError):
            note = json.loads(path.read_text(encoding="utf-8"))
            return note if isinstance(note, dict) else None
        return None

    def _note(self, path: Path, note: Mapping[str, Any]) -> None:
        with written_atomically(path) as part:
            part.write_text(json.dumps(note, indent=1), encoding="utf-8")


@contextmanager
def work_folder(target: Path, on_kept: Callable[[str], None]) -> Iterator[WorkFolder]:
    """`TARGET.vidrestore` beside the output; gone again if nothing in it is worth keeping.

    `on_kept` is told where it stays, in a sentence.
    UsageError while another run works in it, OutputError where it cannot be written to.
    """
    path = target.with_name(target.name + ".vidrestore")
    folder = WorkFolder(path)
    with ExitStack() as last, ExitStack() as stack:
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
                f"the folder {target.parent} cannot be written to: {(error.strerror or '').lower()}"
            ) from error
        try:
            yield folder
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise not_written("writing", target.parent, error) from error
            reason = (error.strerror or str(error)).lower()
            raise OutputError(f"{error.filename or target} cannot be used: {reason}") from error


def _leave(folder: WorkFolder, on_kept: Callable[[str], None]) -> None:
    if folder.is_kept and (done := folder.what_is_done()):
        folder.drop_unfinished()
        on_kept(
            f"kept in {folder.path}: {done}; to go on from there, type the same command again, or "
            "with --no-resume to begin anew"
        )
    elif not folder.clear():
        shutil.rmtree(folder.path, ignore_errors=True)
    if folder.crops.is_dir():
        size = bytes_in(folder.crops) / 1e6
        on_kept(
            f"restored faces are kept in {folder.crops} ({size:,.1f} MB); with "
            "restore.cache_crops they are used again, and the folder can be deleted at any time"
        )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}" if count else ""


def has_sha256(path: Path, sha256: str) -> bool:
    return _sha256(path) == sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

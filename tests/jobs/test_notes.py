"""What lies in a work folder was edited, damaged or replaced: begun anew, or one sentence."""

import copy
import json
import os
import random
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.events import is_at, messages
from helpers.media import (
    AS_PAINTED,
    Painter,
    analysis_of_file,
    mild_image,
    plain_track,
    planes_of,
    write_video,
)

from vidrestore.api import restore_video
from vidrestore.common.errors import OutputError, UsageError, VidrestoreError
from vidrestore.common.profiles import load_settings
from vidrestore.jobs.notes import JobNote, KeptNote, SegmentNote, read_note, write_note
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.media.probe import fingerprint

SIZE, FRAMES = (96, 64), 48
OPTIONS = AS_PAINTED | {
    "encode.codec": "ffv1", "encode.preset": "ultrafast", "paste.detail": 0,
    "deflicker.amount": 0, "deflicker.detail": 0, "guard.features": 0,
}  # fmt: skip
_SEEDED = 12


class Place:
    """A job that was stopped, or finished and kept, and a copy of it for each test."""

    def __init__(self, folder: Path) -> None:
        pictures = [mild_image(*SIZE, "yuv420p", seed) for seed in range(FRAMES)]
        self.tape = write_video(folder / "tape.mkv", pictures)
        half = FRAMES // 2
        shots = ((0, half), (half, FRAMES))
        tracks = [plain_track(half, centre=(48, 32), side=32, first_frame=first, track_id=number)
                  for number, (first, _) in enumerate(shots)]  # fmt: skip
        known = analysis_of_file(self.tape, tracks)
        self.faces = replace(known, shots=shots, fingerprint=fingerprint(self.tape))
        self.made: dict[str, Path] = {}
        for name in CASES:
            self.made[name] = folder / name
            self.made[name].mkdir()
            with suppress(KeyboardInterrupt):
                self.run(name, self.made[name], is_first=True)
        self.frames: dict[str, list[bytes]] = {}

    def run(self, name: str, folder: Path, *, is_first: bool = False):
        """The summary of a run of that case, and what it said."""
        stage, frame, first, again, options = CASES[name]
        told: list[str] = []

        def listen(event):
            told.extend(messages([event]))
            if is_first and is_at(event, stage, frame):
                raise KeyboardInterrupt

        how = dict(first if is_first else again)
        if "layer" in how:
            how["layer"] = folder / "layer"
        settings = load_settings(options=OPTIONS | options)
        summary = restore_video(
            self.tape, folder / "out.mkv", settings, restorer=Painter(), analysis=self.faces,
            overwrite=True, on_event=listen, **how,
        )  # fmt: skip
        return summary, told

    def copied(self, name: str, folder: Path) -> Path:
        shutil.copytree(self.made[name], folder)
        return folder / "out.mkv.vidrestore"

    def right(self, name: str, folder: Path) -> list[bytes]:
        """The frames of a run in which nothing was replaced."""
        if name not in self.frames:
            self.copied(name, folder)
            _, told = self.run(name, folder)
            assert not any("damaged" in message for message in told), told
            self.frames[name] = frames_of(folder / "out.mkv")
        return self.frames[name]


# What stops the first run, its arguments and those of the second, settings of both.
CASES = {
    "stopped": ("restore", 36, {"keep_job": True}, {"keep_job": True}, {}),
    "layered": ("check", 1, {"layer": ""}, {"layer": ""}, {}),
    "cropped": ("restore", 30, {}, {}, {"restore.cache_crops": True}),
    "finished": ("", 0, {"keep_job": True}, {"redo_shots": "2"}, {}),
}


def frames_of(path: Path) -> list[bytes]:
    return [b"".join(plane.tobytes() for plane in planes_of(frame.image))
            for frame in decode(path, DecodeErrors())]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("place"))


def by_folder(path: Path, victim: Path) -> None:
    path.mkdir()
    (path / "inside").write_text("x")


def by_file(path: Path, victim: Path) -> None:
    path.write_text("something else")


def by_dangling(path: Path, victim: Path) -> None:
    path.symlink_to(victim / "missing")


def by_link_to_folder(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def by_link_to_file(path: Path, victim: Path) -> None:
    path.symlink_to(victim / "file.part.mkv")


REPLACED = (by_folder, by_file, by_dangling, by_link_to_folder, by_link_to_file)


def replaced(place: Place, tmp_path: Path):
    """All (case, entry, how); of the crops the first and the last of each folder's depth."""
    for name, folder in place.made.items():
        work = folder / "out.mkv.vidrestore"
        entries = [path.relative_to(work).as_posix() for path in sorted(work.rglob("*"))]
        many = [entry for entry in entries if entry.startswith(("faces/", "crops/"))]
        few = [e for depth in (1, 2) if (of := [m for m in many if m.count("/") == depth])
               for e in (of[0], of[-1])]  # fmt: skip
        rest = [entry for entry in entries if entry not in many]
        assert len(rest) >= 3, (name, entries)
        # A new run makes these three.
        for entry in dict.fromkeys([".", "lock", "segments", "whole", "whole.mkv", *rest, *few]):
            for how in REPLACED:
                yield name, entry, how


def check_replaced(place: Place, tmp_path: Path, cases) -> None:
    for number, (name, entry, how) in enumerate(cases):
        what = f"{name}: {entry} {how.__name__}"
        right = place.right(name, tmp_path / f"right-{name}")
        root = tmp_path / str(number)
        work, victim = place.copied(name, root), root / "victim"
        victim.mkdir()
        (victim / "file.part.mkv").write_text("precious")
        path = Path(os.path.normpath(work / entry))
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        how(path, victim)
        try:
            place.run(name, root)
        except VidrestoreError as error:
            said = str(error)
            known = name == "finished" and "--keep-job" in said
            assert str(path) in said or known, (what, said)
            assert "\n" not in said
        except Exception as error:
            raise AssertionError(what) from error
        else:
            assert frames_of(root / "out.mkv") == right, what
        assert [entry.name for entry in victim.iterdir()] == ["file.part.mkv"], what
        assert (victim / "file.part.mkv").read_text() == "precious", what
        shutil.rmtree(root)


@pytest.mark.long
def test_what_lies_in_the_place_of_an_entry_is_a_sentence_or_begun_anew(place, tmp_path):
    cases = list(replaced(place, tmp_path))
    always = [case for case in cases if case[:2] in (("stopped", "."), ("stopped", "lock"))]
    check_replaced(place, tmp_path, always + random.Random(28).sample(cases, _SEEDED))


@pytest.mark.long
def test_whatever_lies_in_the_place_of_any_entry(place, tmp_path):
    check_replaced(place, tmp_path, replaced(place, tmp_path))


def spoilt(note: dict) -> dict[str, object]:
    """Name -> the content with one thing in it that no note has, at each of its places."""
    found: dict[str, object] = {"a list": [note], "a text": "note", "empty": {}}
    values = ("text", None, -1, 10**400, float("nan"), float("inf"), [], {}, True, 0.5)

    def walk(part, trail):
        items = part.items() if isinstance(part, dict) else enumerate(part)
        for key, value in list(items):
            for other in values:
                where = copy.deepcopy(note)
                at = where
                for step in trail:
                    at = at[step]
                at[key] = other
                found[f"{[*trail, key]} {str(other)[:9]}"] = where
            if isinstance(value, dict | list):
                walk(value, [*trail, key])
        if isinstance(part, dict):
            for key in part:
                where = copy.deepcopy(note)
                at = where
                for step in trail:
                    at = at[step]
                del at[key]
                found[f"{[*trail, key]} missing"] = where

    walk(note, [])
    return found


TEXTS = {
    "empty": b"", "half": b'{"version": 4, ', "not utf-8": b'{"a": "\xff"}', "null": b"null",
    "nested": b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "nested objects": b'{"a": ' * 50_000 + b"1" + b"}" * 50_000,
    "digits": b'{"version": ' + b"9" * 5000 + b"}",
}  # fmt: skip
NOTES = (
    ("stopped", "job.json", JobNote), ("stopped", "segments/0000.json", SegmentNote),
    ("finished", "job.json", JobNote), ("finished", "kept.json", KeptNote),
)  # fmt: skip


@pytest.mark.parametrize(
    ("case", "name", "shape"), [*NOTES[:-1], pytest.param(*NOTES[-1], marks=pytest.mark.long)]
)
def test_a_note_is_read_only_if_it_is_whole_and_fits(place, tmp_path, case, name, shape):
    path = place.copied(case, tmp_path / "copy") / name
    note = read_note(path, shape)
    assert note is not None
    laid_out = json.loads(path.read_text())
    path.write_text(json.dumps(laid_out))  # its layout does not matter
    assert read_note(path, shape) == note
    path.write_text(json.dumps(laid_out | {"more": 1}))
    assert read_note(path, shape) is None
    write_note(path, note | {"more": 1})
    assert read_note(path, shape) is None
    for what, text in TEXTS.items():
        path.write_bytes(text)
        assert read_note(path, shape) is None, what
    for what, other in spoilt(note).items():
        path.write_text(json.dumps(other))
        assert read_note(path, shape) is None, what
        if not isinstance(other, dict):
            continue
        with suppress(ValueError):  # integers of 4300 digits are not written
            write_note(path, other)
            again = read_note(path, shape)
            # What has its sum and fits is another note, or the same.
            assert again is None or again == other, what
            # A note without models, key frames, copied frames or what each track got is of a
            # version that did not note them.
            if (
                " missing" in what
                and what
                not in ("['models'] missing", "['judge'] missing", "['key_frames'] missing")
                and "'pasted'" not in what
                and "'labels'" not in what
                and not any(
                    k in what
                    for k in (
                        "'not_restored', ",
                        "'notes', ",
                        "'likeness', ",
                        "'stages', ",
                        "'judge', ",
                        "'copied'] missing",
                    )
                )
            ):
                assert again is None, what


@pytest.mark.parametrize("frames", [[(0, 24), (25, 48)], [(0, 24), (24, 24)], [(0, 24), (48, 24)],
                                    [(1, 24), (24, 48)], [(0, 24), (10, 48)], [(0, 24), (24, 30)],
                                    [(0, 24), (24, 4000)]])  # fmt: skip
def test_segments_that_do_not_cover_the_video_are_one_sentence(place, tmp_path, frames):
    path = place.copied("finished", tmp_path / "copy") / "kept.json"
    note = read_note(path, KeptNote)
    assert note is not None
    assert len(note["segments"]) == len(frames)
    for segment, own in zip(note["segments"], frames, strict=True):
        segment["frames"] = list(own)
    write_note(path, note)
    with pytest.raises(UsageError, match="restore the whole video with --keep-job"):
        place.run("finished", tmp_path / "copy")


def test_a_stream_that_the_output_does_not_have_is_one_sentence(place, tmp_path):
    path = place.copied("finished", tmp_path / "copy") / "kept.json"
    note = read_note(path, KeptNote)
    assert note is not None
    write_note(path, note | {"stream_index": 7})
    with pytest.raises(OutputError, match="has no stream 7"):
        place.run("finished", tmp_path / "copy")


@pytest.mark.parametrize("text", ["nested", "not utf-8", "null"])
@pytest.mark.parametrize(("case", "name"), [note[:2] for note in NOTES])
def test_a_run_says_that_a_note_is_damaged(place, tmp_path, case, name, text):
    right = place.right(case, tmp_path / "right")
    path = place.copied(case, tmp_path / "copy") / name
    path.write_bytes(TEXTS[text])
    if case == "finished":
        with pytest.raises(UsageError, match=rf"{name} is damaged or of another version"):
            place.run(case, tmp_path / "copy")
        return
    summary, told = place.run(case, tmp_path / "copy")
    assert summary.faces == FRAMES
    assert sum("damaged" in message and Path(name).name in message for message in told) == 1, told
    assert frames_of(tmp_path / "copy/out.mkv") == right

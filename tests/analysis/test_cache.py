"""Analyses of earlier runs: used where they hold, dropped with a word where they do not."""

import os
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from helpers.events import is_at, messages
from helpers.media import (
    AS_PAINTED,
    OneFace,
    Painter,
    analysis_of_file,
    mild_image,
    planes_of,
    write_video,
)

from vidrestore.analysis import cache, storage
from vidrestore.api import restore_video
from vidrestore.common.errors import ChangedSourceError, InputError
from vidrestore.common.profiles import load_settings
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.media.probe import fingerprint, probe
from vidrestore.models import factory
from vidrestore.review.preview import write_preview

SIZE, FRAMES = (160, 120), 12
OPTIONS = AS_PAINTED | {"detect.detector": "haar", "encode.codec": "ffv1"}
USED = "the analysis of an earlier run is used"
ANEW = "cannot be used; vidrestore analyzes the source again"


def known(source, settings, **more):
    """The analysis of an earlier run, or a new one."""
    return cache.find_analysis(probe(source, settings), settings, **more).analysis


@pytest.fixture
def detector(monkeypatch):
    detector = OneFace()
    monkeypatch.setattr(factory, "open_detector", lambda *_, **__: detector)
    return detector


@pytest.fixture
def settings():
    return load_settings(options=OPTIONS)


def tape_of(path, seeds):
    """A file whose size does not depend on what it shows."""
    images = [mild_image(*SIZE, "yuv420p", seed) for seed in seeds]
    return write_video(path, images, codec="rawvideo")


@pytest.fixture
def tape(tmp_path):
    return tape_of(tmp_path / "tape.nut", range(FRAMES))


def change_one_frame(tape):
    """Other content in a file of the same size, beside what a fingerprint looks at."""
    size, before = tape.stat().st_size, fingerprint(tape)
    data = bytearray(tape.read_bytes())
    at = size // 3 + 5000  # within the samples of a frame
    data[at : at + 2000] = bytes(2000)
    tape.write_bytes(data)
    assert tape.stat().st_size == size
    return before


@pytest.fixture
def few_samples(monkeypatch):
    """A fingerprint of a long video does not see most of it; let that be so of a short one."""
    monkeypatch.setattr("vidrestore.media.probe._SAMPLE_BYTES", 1024)


def run(tape, settings, told, target=None, **more):
    target = target or tape.with_name("out.mkv")
    restore_video(tape, target, settings, restorer=Painter(), overwrite=True,
                  on_event=told.append, **more)  # fmt: skip
    return [planes_of(frame.image) for frame in decode(target, DecodeErrors())]


def said(told):
    return messages(told)


def count(told, part):
    return sum(part in message for message in said(told))


def kept_files():
    return sorted((cache.weights.user_cache() / "analyses").iterdir())


def test_a_file_that_was_written_to_is_analyzed_again(tape, detector, settings, few_samples):
    known(tape, settings)
    before = change_one_frame(tape)
    assert fingerprint(tape) == before  # which therefore proves nothing
    seen, told = detector.pictures, []
    run(tape, settings, told)
    assert detector.pictures == seen + FRAMES
    assert count(told, USED) == 0


def keeping_its_time(tape):
    times = tape.stat()
    change_one_frame(tape)
    os.utime(tape, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.long
def test_other_frames_at_the_same_time_cost_one_analysis_more(
    tape, detector, settings, few_samples
):
    known(tape, settings)
    keeping_its_time(tape)
    seen, told = detector.pictures, []
    frames = run(tape, settings, told)
    assert detector.pictures == seen + FRAMES
    assert (count(told, USED), count(told, cache.OTHER_FRAMES)) == (1, 1)
    anew = run(tape, load_settings(options=OPTIONS | {"detect.remember": False}), [],
               tape.with_name("anew.mkv"))  # fmt: skip
    for was, now in zip(frames, anew, strict=True):
        assert all(map(np.array_equal, was, now))
    seen, told = detector.pictures, []
    run(tape, settings, told)
    assert detector.pictures == seen
    assert (count(told, USED), count(told, cache.OTHER_FRAMES)) == (1, 0)


def test_a_preview_and_a_sheet_of_people_do_the_same(
    tmp_path, tape, detector, settings, few_samples, command
):
    for show in (
        lambda: write_preview(tape, 0.2, tmp_path / "p.png", settings, restorer=Painter()),
        lambda: command("analyze", tape, "--detector", "haar", "--no-estimate",
                        "--contact-sheet", tmp_path / "sheet.png"),
    ):  # fmt: skip
        known(tape, load_settings(options={"detect.detector": "haar"}))
        known(tape, settings)
        keeping_its_time(tape)
        seen = detector.pictures
        result = show()
        assert getattr(result, "status", 0) == 0, result
        assert detector.pictures > seen
        tape_of(tape, range(FRAMES))


def test_frames_that_are_never_those_of_the_analysis_end_in_one_sentence(
    tape, detector, settings, few_samples
):
    """One that is given is nobody's to replace."""
    given = known(tape, settings)
    keeping_its_time(tape)
    told = []
    with pytest.raises(ChangedSourceError, match="do not give it an earlier analysis"):
        run(tape, settings, told, analysis=given)
    assert count(told, cache.OTHER_FRAMES) == 0


def damaged(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def of_another_source(path):
    known = storage.load(path, key=path.name)
    storage.save(replace(known, fingerprint="0" * 64), path, key=path.name)


def of_another_size(path):
    known = storage.load(path, key=path.name)
    storage.save(replace(known, info=replace(known.info, width=320)), path, key=path.name)


def a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("how", [damaged, of_another_source, of_another_size, a_folder])
def test_a_kept_analysis_of_no_use_costs_time_and_a_notice(tape, detector, settings, how):
    first = known(tape, settings)
    (path,) = kept_files()
    how(path)
    seen, told = detector.pictures, []
    again = known(tape, settings, on_event=told.append)
    assert detector.pictures == seen + FRAMES
    assert (count(told, ANEW), count(told, USED)) == (1, 0)
    np.testing.assert_array_equal(again.tracks[0].matrices, first.tracks[0].matrices)
    if how is not a_folder:
        seen, told = detector.pictures, []
        known(tape, settings, on_event=told.append)
        assert detector.pictures == seen
        assert count(told, ANEW) == 0


def test_analyses_with_other_settings_in_its_place_are_not_taken_for_it(tape, detector, settings):
    others = load_settings(options=OPTIONS | {"shots.cut": 255})
    known(tape, settings)
    (own,) = kept_files()
    known(tape, others)
    (other,) = set(kept_files()) - {own}
    content = own.read_bytes()
    own.write_bytes(other.read_bytes())
    other.write_bytes(content)
    for each in (settings, others):
        told = []
        known(tape, each, on_event=told.append)
        assert count(told, ANEW) == 1


def test_an_analysis_by_another_method_is_not_used(tape, detector, settings, monkeypatch):
    told = []
    with monkeypatch.context() as earlier:
        earlier.setattr(cache, "_METHOD", cache._METHOD - 1)
        known(tape, settings)
    known(tape, settings, on_event=told.append)
    assert USED not in messages(told)


def test_every_command_bears_a_damaged_cache(tmp_path, tape, detector, settings):
    known(tape, settings)
    (path,) = kept_files()
    for show in (
        lambda: run(tape, settings, []),
        lambda: write_preview(tape, 0.2, tmp_path / "p.png", settings, restorer=Painter()),
    ):
        damaged(path)
        show()
        is_there = path in kept_files()
        assert not is_there or storage.load(path, key=path.name).frame_count == FRAMES
        known(tape, settings)


def test_a_given_analysis_of_another_picture_is_refused(tape, detector, settings):
    given = analysis_of_file(tape)
    wrong = replace(given, info=replace(given.info, height=240))
    with pytest.raises(InputError, match=r"160 x 240 in yuv420p.*160 x 120"):
        run(tape, settings, [], analysis=wrong)


class OnFrame:
    """Does something to the source once, while a frame of the first pass is reported."""

    def __init__(self, what):
        self.what, self.told, self.counts = what, [], Counter()

    def __call__(self, event):
        self.told.append(event)
        if is_at(event, "analyze", 0):
            self.counts["analyze"] += 1
            if self.counts["analyze"] == FRAMES // 2:
                self.what()


def test_a_source_that_grows_while_it_is_looked_through_is_not_remembered(tape, detector, settings):
    whole = tape.read_bytes()
    tape.write_bytes(whole[: len(whole) // 2])

    def go_on():
        with tape.open("ab") as file:
            file.write(whole[len(whole) // 2 :])

    listener = OnFrame(go_on)
    listener.counts["analyze"] = FRAMES // 2 - 2
    with pytest.raises(ChangedSourceError, match="once no program writes or copies the file"):
        known(tape, settings, on_event=listener)
    assert known(tape, settings).frame_count == FRAMES


def test_a_source_that_was_short_for_a_moment_is_not_remembered(
    tape, detector, settings, monkeypatch
):
    """It is whole again at the end, and only its time says so."""
    whole = tape.read_bytes()

    def write(data):
        tape.write_bytes(data)
        os.utime(tape, ns=(0, tape.stat().st_mtime_ns + 1_000_000))

    analyze = cache.analyze

    def analyze_short(source, inspection, settings, **options):
        write(whole[: len(whole) // 2])
        short = analyze(probe(tape), inspection, settings, **options)
        write(whole)
        return replace(short, fingerprint=fingerprint(tape))

    told = []
    monkeypatch.setattr(cache, "analyze", analyze_short)
    assert known(tape, settings, on_event=told.append).frame_count < FRAMES
    assert count(told, "does not keep the analysis") == 1
    monkeypatch.undo()
    monkeypatch.setattr(factory, "open_detector", lambda *_, **__: detector)
    assert known(tape, settings).frame_count == FRAMES

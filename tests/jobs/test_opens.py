"""How often a run opens its source: each look costs seconds on a slow disk or a network drive."""

import shutil
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
import pytest

from vidrestore import load_settings, restore_video
from vidrestore.media.decode import TimeRange

OPTIONS = {"restore.restorer": "fusion", "detect.detector": "haar", "encode.codec": "ffv1"}
_MOST_OPENS, _MOST_PROCESSES = 9, 2


@pytest.fixture
def opens(monkeypatch):
    """What opened a file of a given name: PyAV, a process, or a raw read."""
    found: Counter[str] = Counter()
    listening = True
    names: list[str] = []
    real = av.open

    def counted(file, *arguments, **options):
        if str(file) in names:
            found["container"] += 1
        return real(file, *arguments, **options)

    def heard(event, arguments):
        if listening and event == "open" and str(arguments[0]) in names:
            found["raw read"] += 1
        if listening and event == "subprocess.Popen" and set(map(str, arguments[1])) & set(names):
            found["process"] += 1

    monkeypatch.setattr(av, "open", counted)
    sys.addaudithook(heard)  # which can never be removed
    yield names, found
    listening = False


def test_an_open_of_each_kind_is_counted(opens, make_video):
    names, found = opens
    source = make_video()
    names.append(str(source))
    source.read_bytes()
    av.open(str(source)).close()
    subprocess.run([sys.executable, "-c", "", str(source)], check=True)
    assert found == {"raw read": 1, "container": 1, "process": 1}


@pytest.mark.long
def test_a_short_run_opens_its_source_few_times(opens, shared, tmp_path):
    names, found = opens
    source = shared / "clips/hamilton_short.mp4"
    names.append(str(source))
    span = TimeRange(Fraction(1), Fraction(2))
    summary = restore_video(source, tmp_path / "out.mkv", load_settings(options=OPTIONS), span=span)
    assert summary.frames > 20
    assert sum(found.values()) <= _MOST_OPENS, found
    assert found["process"] <= _MOST_PROCESSES, found
    assert found["raw read"] == 3, "the boxes of mp4; fingerprints, before pass one and after it"


@pytest.mark.long
def test_each_further_segment_opens_it_once_more(opens, make_video, tmp_path):
    names, found = opens
    made = make_video(frames=144, audio=True)
    counts = []
    for frames in (150, 48):
        source = Path(shutil.copy(made, tmp_path / f"{frames}.mp4"))  # the last search is kept
        names.append(str(source))
        found.clear()
        settings = load_settings(
            options=OPTIONS | {"job.segment_frames": frames, "detect.remember": False}
        )
        restore_video(source, tmp_path / f"{frames}.mkv", settings)
        counts.append(sum(found.values()))
    assert counts[0] <= _MOST_OPENS
    assert counts[1] - counts[0] == 2, "three segments in place of one"

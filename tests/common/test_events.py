"""Events: each kind is a value of its own, and its line of `--json` keeps its keys."""

import json
import pickle
from typing import get_args

import pytest

from vidrestore.common.ending import failed
from vidrestore.common.events import (
    Done,
    DownloadProgress,
    Failure,
    FileOutcome,
    Line,
    Notice,
    PassTimes,
    Progress,
    TrainingProgress,
    line_from_dict,
    notify,
)
from vidrestore.common.stage_times import StageTime
from vidrestore.common.threads import Stopwatch
from vidrestore.jobs.batch import Outcome
from vidrestore.models.download import as_events

TIME = {"items": 3, "busy_seconds": 1.5, "processor_seconds": 1.25, "starved_seconds": 0.5,
        "held_seconds": 0.0}  # fmt: skip
FILE = {"source": "a.mp4", "target": "b.mp4", "status": "failed", "message": "no", "summary": None}
# All that programs which read `--json` rely on: each kind with its keys, in their order.
LINES = [
    (Progress("analyze", 1, 9),
     {"event": "progress", "stage": "analyze", "frame": 1, "frames": 9}),
    (Progress("look at faces", 1, 9, unit="faces"),
     {"event": "progress", "stage": "look at faces", "frame": 1, "frames": 9, "unit": "faces"}),
    (DownloadProgress("fetch a", 5, None),
     {"event": "progress", "stage": "fetch a", "bytes": 5, "of_bytes": None}),
    (TrainingProgress(3, 9, {"pixel": 0.5}),
     {"event": "progress", "stage": "train", "step": 3, "steps": 9, "losses": {"pixel": 0.5}}),
    (Notice("a sentence"), {"event": "notice", "message": "a sentence"}),
    (PassTimes("restore", 2.0, 3.0, {"decode": StageTime(**TIME)}),
     {"event": "stages", "pass": "restore", "seconds": 2.0, "processor_seconds": 3.0,
      "stages": {"decode": TIME}}),
    (FileOutcome(**FILE), {"event": "file"} | FILE),
    (Failure("InputError", "no"), {"event": "error", "kind": "InputError", "message": "no"}),
    *((Done(name, {"a": 1}), {"event": "done", name: {"a": 1}})
      for name in ("summary", "files", "analysis", "preview", "comparison", "evaluation")),
]  # fmt: skip


def test_every_kind_is_listed_here():
    assert {type(event) for event, _ in LINES} == set(get_args(Line))


@pytest.mark.parametrize(("event", "line"), LINES)
def test_a_line_keeps_its_keys_and_their_order(event, line):
    assert json.dumps(event.as_dict()) == json.dumps(line)
    assert line_from_dict(json.loads(json.dumps(line))) == event


@pytest.mark.parametrize(("event", "line"), LINES)
def test_an_event_goes_to_another_process_and_is_not_changed(event, line):
    assert pickle.loads(pickle.dumps(event)) == event
    with pytest.raises(AttributeError):
        setattr(event, next(iter(event.__dataclass_fields__)), "other")


def test_a_line_of_another_kind_is_none_and_one_that_lacks_a_key_is_refused():
    assert line_from_dict({"event": "new", "a": 1}) is None
    assert line_from_dict({}) is None
    for line in ({"event": "progress", "stage": "a"}, {"event": "notice"}, {"event": "done"}):
        with pytest.raises((LookupError, TypeError, ValueError)):
            line_from_dict(line)


def test_what_reports_gives_these(capsys):
    events = []
    notify(events.append, "one", "two")
    notify(None, "three")
    as_events("net", events.append)(1, 2)
    times = {"decode": StageTime(1)}
    Stopwatch().report(events.append, "analyze", times)
    times["decode"].items = 2  # what was reported stays as it was
    assert events[:3] == [Notice("one"), Notice("two"), DownloadProgress("fetch net", 1, 2)]
    assert isinstance(events[3], PassTimes)
    assert events[3].stages == {"decode": StageTime(1)}
    failed("InputError", "no", 1, ["--json"])
    line = json.loads(capsys.readouterr().out)
    assert line_from_dict(line) == Failure("InputError", "no")


def test_the_outcome_of_a_file_has_the_fields_of_its_line(tmp_path):
    outcome = Outcome(tmp_path / "a", tmp_path / "b", "failed", message="no")
    line = FileOutcome(**outcome.as_dict())
    assert line.as_dict() == {"event": "file"} | outcome.as_dict()

"""The command that repeats a run asks for the same run."""

import shlex
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from helpers.media import Unchanged

from vidrestore.analysis.choice import Choice
from vidrestore.cli import main
from vidrestore.common.profiles import load_settings
from vidrestore.jobs.request import RestoreRequest
from vidrestore.media.decode import TimeRange
from vidrestore.review.report.command import command_of


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[RestoreRequest]:
    """The requests that the command line makes, none of which is carried out."""
    requests: list[RestoreRequest] = []

    def restore(request: RestoreRequest, on_event: Any) -> None:
        requests.append(request)
        raise KeyboardInterrupt

    monkeypatch.setattr("vidrestore.api.restore", restore)
    monkeypatch.setattr(RestoreRequest, "validate", lambda self: None)
    return requests


def test_it_asks_for_the_same(asked: list[RestoreRequest], tmp_path: Path) -> None:
    settings = load_settings("home-video", [
        "restore.restorer=gpen-512", "encode.quality=archive", "paste.strength=0.35",
        "detect.margins=false", "paste.regions.eyes=0.5", "restore.batch_size=3",
        f"weights.folder={tmp_path / 'weights of mine'}",
    ])  # fmt: skip
    request = RestoreRequest(
        tmp_path / "it's a $(tape).mp4", tmp_path / 'the "clear" one.mkv', settings,
        span=TimeRange(Fraction(3, 2), Fraction("4.04")),
        choice=Choice(people="-2", min_face_px=33.5), framemd5=tmp_path / "md5.txt",
        report=tmp_path / "a.html", keep_job=True,
    )  # fmt: skip
    line = command_of(request)
    assert line is not None
    program, *words = shlex.split(line)
    assert program == "vidrestore"
    with pytest.raises(SystemExit):
        main(words)
    (again,) = asked
    assert again.overwrite
    for name in ("source", "target", "settings", "span", "choice", "framemd5", "report",
                 "keep_job"):  # fmt: skip
        assert getattr(again, name) == getattr(request, name), name


def test_paths_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = command_of(RestoreRequest(Path("a.mp4"), Path("b.mp4")))
    assert line == f"vidrestore restore {tmp_path}/a.mp4 {tmp_path}/b.mp4 --overwrite"


def test_no_command_names_a_restorer_of_the_caller() -> None:
    assert command_of(RestoreRequest(Path("a.mp4"), Path("b.mp4"), restorer=Unchanged())) is None

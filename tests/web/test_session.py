"""A session refuses what a visitor does not own, whatever the page lets through."""

from pathlib import Path

import pytest

from vidrestore.common.errors import UsageError
from vidrestore.web.queue import Job
from vidrestore.web.session import Kind, Order, Session

HAAR = Kind("none", "haar")
NAN = float("nan")


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path / "page")


@pytest.fixture
def look(session: Session) -> Job:
    """Of a video of "me", looked through."""
    folder = session.uploads.make_folder()
    (folder / "tape.mp4").write_bytes(b"x")
    assert session.uploads.keep(folder, folder / "tape.mp4", "me") is not None
    look = session.look("me", str(folder / "tape.mp4"), HAAR)
    look.state = "done"
    look.outcome = {"analysis": {"people": [{"person_id": 1}, {"person_id": 2}]}}
    return look


def order(**changes) -> Order:
    return Order(**({"kind": HAAR, "restorer": "fusion", "strength": 1.0, "people": ("1",)}
                    | changes))  # fmt: skip


def ways(session: Session, owner: str, look_id: int, job_id: int) -> dict[str, object]:
    """All that can be asked of a job, by name."""
    return {
        "look_again": lambda: session.look_again(owner, look_id, HAAR),
        "forget_look": lambda: session.forget_look(owner, look_id),
        "try_out": lambda: session.try_out(owner, look_id, 0.5, order(), close=False),
        "restore": lambda: session.restore(owner, look_id, "high", ".mp4", order()),
        "stop": lambda: session.stop(owner, job_id),
        "again": lambda: session.again(owner, job_id),
        "remove": lambda: session.remove(owner, job_id),
    }


def test_a_job_of_another_visitor_or_none_is_refused(session, look):
    job = session.restore("me", look.job_id, "high", ".mp4", order())
    jobs = [*session.looks.jobs, *session.restorations.jobs]
    for owner, look_id, job_id in (
        ("you", look.job_id, job.job_id), ("me", 99, 99), ("me", None, None), ("", 1, 1),
    ):  # fmt: skip
        for name, ask in ways(session, owner, look_id, job_id).items():
            with pytest.raises(UsageError, match="choose it again"):
                ask()
            assert [*session.looks.jobs, *session.restorations.jobs] == jobs, name
    assert job.state == "waiting"
    with pytest.raises(UsageError, match="choose it again"):
        session.look("you", str(look.source), HAAR)
    with pytest.raises(UsageError, match="choose it again"):
        session.look("me", "/etc/passwd", HAAR)
    for ask in list(ways(session, "me", look.job_id, job.job_id).values())[3:]:
        ask()


@pytest.mark.parametrize(
    "changes",
    [
        {"people": ("3",)}, {"people": ("--set",)}, {"people": ("1,2",)}, {"strength": NAN},
        {"strength": 1.1}, {"restorer": "--help"}, {"restorer": "/etc/passwd"}, {"restorer": ""},
        {"kind": Kind("../x", "haar")}, {"kind": Kind("none", "--json")},
    ],
)  # fmt: skip
def test_an_order_that_no_command_must_get_is_refused(session, look, changes):
    with pytest.raises(UsageError):
        session.restore("me", look.job_id, "high", ".mp4", order(**changes))
    with pytest.raises(UsageError):
        session.try_out("me", look.job_id, 0.5, order(**changes), close=False)
    assert session.restorations.jobs == []
    assert session.looks.jobs == [look]


def test_a_path_a_moment_and_a_quality_are_checked(session, look):
    for suffix in ("/../../x.mp4", "", "mp4", ".mp4/x", "\0"):
        with pytest.raises(UsageError, match="kind of file"):
            session.restore("me", look.job_id, "high", suffix, order())
    with pytest.raises(UsageError, match="names to choose from"):
        session.restore("me", look.job_id, "--set", ".mp4", order())
    for moment in (NAN, float("inf"), -1.0):
        with pytest.raises(UsageError, match="moment"):
            session.try_out("me", look.job_id, moment, order(), close=False)
    look.outcome = {}
    with pytest.raises(UsageError, match="not analyzed yet"):
        session.restore("me", look.job_id, "high", ".mp4", order())


def test_a_video_that_is_forgotten_takes_its_previews_and_its_upload_along(session, look):
    preview = session.try_out("me", look.job_id, 0.5, order(), close=False)
    session.forget_look("me", look.job_id)
    assert session.looks.jobs == []
    assert not preview.folder.exists()
    assert not look.source.exists()

"""A session refuses what a visitor does not own, whatever the page lets through."""

from pathlib import Path

import pytest

from vidrestore.common.errors import UsageError
from vidrestore.web.queue import Job
from vidrestore.web.session import AnalysisOptions, RestoreOptions, Session

HAAR = AnalysisOptions("none", "haar")
NAN = float("nan")


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path / "page")


@pytest.fixture
def analysis_job(session: Session) -> Job:
    """The finished analysis of a video of "me"."""
    folder = session.uploads.make_folder()
    (folder / "tape.mp4").write_bytes(b"x")
    assert session.uploads.keep(folder, folder / "tape.mp4", "me") is not None
    analysis_job = session.analyze("me", str(folder / "tape.mp4"), HAAR)
    analysis_job.state = "done"
    analysis_job.outcome = {"analysis": {"people": [{"person_id": 1}, {"person_id": 2}]}}
    return analysis_job


def order(**changes) -> RestoreOptions:
    usual = {"restorer": "fusion", "strength": 1.0, "people": ("1",), "analysis_options": HAAR}
    return RestoreOptions(**(usual | changes))


def ways(session: Session, owner: str, analysis_id: int, job_id: int) -> dict[str, object]:
    """All that can be asked of a job, by name."""
    return {
        "analyze_again": lambda: session.analyze_again(owner, analysis_id, HAAR),
        "forget_analysis": lambda: session.forget_analysis(owner, analysis_id),
        "preview": lambda: session.preview(owner, analysis_id, 0.5, order(), close=False),
        "restore": lambda: session.restore(owner, analysis_id, "high", ".mp4", order()),
        "stop": lambda: session.stop(owner, job_id),
        "resume": lambda: session.resume(owner, job_id),
        "remove": lambda: session.remove(owner, job_id),
    }


def test_a_job_of_another_visitor_or_none_is_refused(session, analysis_job):
    job = session.restore("me", analysis_job.job_id, "high", ".mp4", order())
    jobs = [*session.analyses.jobs, *session.restorations.jobs]
    for owner, analysis_id, job_id in (
        ("you", analysis_job.job_id, job.job_id), ("me", 99, 99), ("me", None, None), ("", 1, 1),
    ):  # fmt: skip
        for name, ask in ways(session, owner, analysis_id, job_id).items():
            with pytest.raises(UsageError, match="choose it again"):
                ask()
            assert [*session.analyses.jobs, *session.restorations.jobs] == jobs, name
    assert job.state == "waiting"
    with pytest.raises(UsageError, match="choose it again"):
        session.analyze("you", str(analysis_job.source), HAAR)
    with pytest.raises(UsageError, match="choose it again"):
        session.analyze("me", "/etc/passwd", HAAR)
    for ask in list(ways(session, "me", analysis_job.job_id, job.job_id).values())[3:]:
        ask()


@pytest.mark.parametrize(
    "changes",
    [
        {"people": ("3",)}, {"people": ("--set",)}, {"people": ("1,2",)}, {"strength": NAN},
        {"strength": 1.1}, {"restorer": "--help"}, {"restorer": "/etc/passwd"}, {"restorer": ""},
        {"analysis_options": AnalysisOptions("../x", "haar")},
        {"analysis_options": AnalysisOptions("none", "--json")},
    ],
)  # fmt: skip
def test_an_order_that_no_command_must_get_is_refused(session, analysis_job, changes):
    with pytest.raises(UsageError):
        session.restore("me", analysis_job.job_id, "high", ".mp4", order(**changes))
    with pytest.raises(UsageError):
        session.preview("me", analysis_job.job_id, 0.5, order(**changes), close=False)
    assert session.restorations.jobs == []
    assert session.analyses.jobs == [analysis_job]


def test_a_path_a_moment_and_a_quality_are_checked(session, analysis_job):
    for suffix in ("/../../x.mp4", "", "mp4", ".mp4/x", "\0"):
        with pytest.raises(UsageError, match="not a suffix of a file"):
            session.restore("me", analysis_job.job_id, "high", suffix, order())
    with pytest.raises(UsageError, match="not one of the choices"):
        session.restore("me", analysis_job.job_id, "--set", ".mp4", order())
    for moment in (NAN, float("inf"), -1.0):
        with pytest.raises(UsageError, match="not a time in the video"):
            session.preview("me", analysis_job.job_id, moment, order(), close=False)
    analysis_job.outcome = {}
    with pytest.raises(UsageError, match="not analyzed yet"):
        session.restore("me", analysis_job.job_id, "high", ".mp4", order())


def test_a_video_that_is_forgotten_takes_its_previews_and_its_upload_along(session, analysis_job):
    preview = session.preview("me", analysis_job.job_id, 0.5, order(), close=False)
    session.forget_analysis("me", analysis_job.job_id)
    assert session.analyses.jobs == []
    assert not preview.folder.exists()
    assert not analysis_job.source.exists()

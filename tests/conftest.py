"""What every test stands on: its own empty home, no thread left over, small videos."""

import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from helpers.beats import Beats, beating
from helpers.small_disk import Disk, small_disk
from helpers.videos import Command, MakeVideo, Result, stage_threads, write_video

from vidrestore.cli import main
from vidrestore.common.errors import WeightsError
from vidrestore.models import weights

_MOST_SECONDS = 30


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real clips and models, which is not part of the project."""
    beside = Path(__file__).parents[2] / "shared"
    folder = Path(os.environ.get("VIDRESTORE_SHARED") or beside)
    if not (folder / "clips").is_dir():
        pytest.skip(f"{folder} holds no clips; VIDRESTORE_SHARED may name the folder that does")
    return folder


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk") as own:
        yield own


@pytest.fixture(scope="session", autouse=True)
def own_ray_token() -> Iterator[None]:
    """Ray reads its secret once in a process; by default from the home, which each test changes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", "f" * 64)
        yield


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each test has its home: a numbered folder of pytest would read the names of all."""
    return tmp_path_factory.mktemp("homes")


@pytest.fixture(autouse=True)
def own_home(homes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees what this machine's user has set or downloaded."""
    home = Path(tempfile.mkdtemp(dir=homes))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    for name in ("XDG_VIDEOS_DIR", "VIDRESTORE_WEIGHTS", "VIDRESTORE_FFMPEG", "MODELSCOPE_CACHE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test in this process downloads weights, except from a server of its own."""
    fetch_file = weights.fetch_file

    def own_only(urls: Sequence[str], *arguments: Any, **more: Any) -> None:
        if any(not url.startswith("http://127.0.0.1:") for url in urls):
            raise WeightsError(f"a test downloads nothing, and not {urls[0]}")
        fetch_file(urls, *arguments, **more)

    monkeypatch.setattr(weights, "fetch_file", own_only)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    assert not (left := stage_threads()), f"these threads outlived the test: {left}"


@pytest.fixture
def beats() -> Iterator[Beats]:
    """A clock for what must be prompt, which stands still while the machine gives no time."""
    with beating() as clock:
        yield clock


@pytest.fixture
def make_video(tmp_path: Path) -> MakeVideo:
    """Writes small videos into `tmp_path`; see `write_video`."""
    return lambda name="source.mp4", **options: write_video(tmp_path / name, **options)


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs the command line in this process; libraries' own words to stderr are seen too."""
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as leaving:
            main([str(argument) for argument in arguments])
        return Result(int(leaving.value.code or 0), *capfd.readouterr())

    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """Opening a pipe into which nobody writes waits forever."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"it still waits after {_MOST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(_MOST_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)

"""The local page as the command serves it, with every way out blocked."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from helpers.holding import HOLDS

SECONDS = 60
# Every connection to another machine fails, and is noted.
BLOCKED = """
import os, socket
def _refuse(what):
    with open(os.environ["BLOCKED_LOG"], "a") as log:
        log.write(f"{os.getpid()} {what}\\n")
    raise OSError(f"blocked: {what}")
def _is_local(host):
    return host in (None, "", b"", "localhost", "::1") or str(host).startswith("127.")
def _guarded(name):
    method = getattr(socket.socket, name)
    def guarded(self, address, *rest):
        if isinstance(address, tuple) and not _is_local(address[0]):
            _refuse(address)
        return method(self, address, *rest)
    return guarded
for _name in ("connect", "connect_ex"):
    setattr(socket.socket, _name, _guarded(_name))
_lookup = socket.getaddrinfo
def _getaddrinfo(host, *rest, **more):
    return _lookup(host, *rest, **more) if _is_local(host) else _refuse(host)
socket.getaddrinfo = _getaddrinfo
"""


@dataclass
class Served:
    entry: str
    """As the terminal shows it."""
    process: subprocess.Popen[str]
    home: Path
    steering: Path
    """What the stand-in for the commands obeys; see `stand_in_command`."""
    requests: list[str] = field(default_factory=list)
    """Of all browsers."""

    @property
    def address(self) -> str:
        """Without the token."""
        return self.entry.partition("/?")[0]

    @property
    def folder(self) -> Path:
        """What the page keeps."""
        return self.home / "data/vidrestore/ui"

    def commands(self) -> list[list[str]]:
        """The arguments of every command that the stand-in got."""
        log = self.steering / "log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(SECONDS)


def shut_in(folder: Path) -> dict[str, str]:
    """The environment of a process that reaches no other machine; what it tried is in a log."""
    (folder / "blocker").mkdir(exist_ok=True)
    # A test that sets the variable of `holding` lets commands wait at their frames.
    (folder / "blocker" / "sitecustomize.py").write_text(BLOCKED + HOLDS)
    (folder / "blocked.log").touch()
    paths = [str(folder / "blocker"), str(Path(__file__).parents[2])]
    own = {"BLOCKED_LOG": str(folder / "blocked.log"), "PYTHONPATH": os.pathsep.join(paths)}
    return os.environ | own


def environment_of(folder: Path) -> dict[str, str]:
    """The environment of a page whose user has a home of his own below `folder`."""
    home = folder / "home"
    (home / "Videos").mkdir(parents=True, exist_ok=True)
    (folder / "steering").mkdir(exist_ok=True)
    own = {"HOME": home, "XDG_DATA_HOME": home / "data", "XDG_CACHE_HOME": home / "cache",
           "XDG_CONFIG_HOME": home / "config", "STAND_IN": folder / "steering"}  # fmt: skip
    return shut_in(folder) | {name: str(path) for name, path in own.items()}


def started(folder: Path, *options: str, is_real: bool = False) -> Served:
    """Begin to serve; with `is_real` the commands do what they say. Its end is the caller's."""
    program = ["-m", "vidrestore", "ui"] if is_real else [
        str(Path(__file__).with_name("serve_stand_in.py"))]  # fmt: skip
    with (folder / "stderr").open("a") as stderr:
        process = subprocess.Popen(
            [sys.executable, *program, "--no-browser", *options],
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment_of(folder),
            text=True,
        )
    assert process.stdout is not None
    said = process.stdout.readline()
    assert said.startswith("The page is at "), (folder / "stderr").read_text()
    entry = said.split()[4].rstrip(";")
    return Served(entry, process, folder / "home", folder / "steering")


@contextmanager
def served(
    folder: Path, *options: str, is_real: bool = False, warning: str = ""
) -> Iterator[Served]:
    """The page, served by the command; it says nothing on stderr but `warning`, and asks no
    other machine."""
    page = started(folder, *options, is_real=is_real)
    process = page.process
    try:
        yield page
        assert page.end() == 0
        assert not (page.folder / "address").exists()
        assert (folder / "blocked.log").read_text() == ""
        said = (folder / "stderr").read_text()
        if warning:
            assert warning in said, said
        else:
            assert said == "", said
        assert {urlsplit(url).hostname for url in page.requests} <= {"127.0.0.1"}
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()

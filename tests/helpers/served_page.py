"""The local page as the command serves it, with every way out blocked."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

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
    cache: Path
    log: Path
    requests: list[str] = field(default_factory=list)
    """Of all browsers."""

    @property
    def address(self) -> str:
        """Without the token."""
        return self.entry.partition("/?")[0]

    def left(self) -> list[str]:
        """Work folders of pages."""
        return [path.name for path in (self.cache / "vidrestore/ui").iterdir() if path.is_dir()]


def shut_in(folder: Path) -> dict[str, str]:
    """The environment of a process that reaches no other machine; what it tried is in a log."""
    (folder / "blocker").mkdir()
    (folder / "blocker" / "sitecustomize.py").write_text(BLOCKED)
    (folder / "blocked.log").touch()
    paths = [str(folder / "blocker"), str(Path(__file__).parents[2])]
    own = {"BLOCKED_LOG": str(folder / "blocked.log"), "PYTHONPATH": os.pathsep.join(paths)}
    return os.environ | own


@contextmanager
def served(folder: Path, *options: str) -> Iterator[Served]:
    """The page, served by the command; its end must leave nothing behind."""
    cache, log = folder / "cache", folder / "blocked.log"
    environment = shut_in(folder) | {"XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-m", "vidrestore", "ui", "--no-browser", *options]
    with (
        (folder / "stderr").open("w+") as stderr,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, env=environment, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            page = Served(said.split()[4].rstrip(";"), process, cache, log)
            yield page
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == 0
            assert page.left() == []
            assert log.read_text() == ""
            assert (folder / "stderr").read_text() == ""
            assert {urlsplit(url).hostname for url in page.requests} <= {"127.0.0.1"}
        finally:
            process.kill()

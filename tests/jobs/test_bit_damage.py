"""One flipped bit in a file that a job or a cache keeps: the same frames, or one sentence.

`ROWS` lists every kind of such a file. Each case of it is a process of its own, since a library may
take that down: `test_bit_damage.py CASE FOLDER DAMAGES [KIND:NUMBER ...]` sets the case up, damages
its files one after the other and prints a line of JSON for each; those that are named it leaves
out.
"""

import contextlib
import faulthandler
import fnmatch
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import av
import cv2
import pytest
import torch
from helpers import media, sources
from helpers.events import is_at
from helpers.processes import environment
from skimage import data

from vidrestore.analysis import storage
from vidrestore.analysis.choice import Choice
from vidrestore.api import restore_video
from vidrestore.cli import main as vidrestore
from vidrestore.common.errors import VidrestoreError
from vidrestore.common.events import Event
from vidrestore.common.profiles import load_settings
from vidrestore.models import factory, weights
from vidrestore.models.gpen.network import GPEN
from vidrestore.models.weights import Weight

pytestmark = pytest.mark.long

FRAMES = 48
# Of each kind; all kinds together make two thousand and more.
DAMAGES, COMMANDS = 100, 4
# After which a damage counts as one that never ends.
_MOST_SECONDS = 120.0
_MOST_MEMORY = 24 << 30
OPTIONS = {
    **media.AS_PAINTED, "encode.codec": "ffv1", "deflicker.amount": 0,
    "paste.detail": 0, "deflicker.detail": 0, "detect.detector": "haar", "detect.every": 3,
    "restore.engine": "torch", "restore.number_format": "float32", "weights.offline": True,
    "encode.preset": "ultrafast",
}  # fmt: skip


class Place:
    """The folder of a case: what is there between two runs, and the user's home."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        self.tape, self.target = root / "tape.mkv", root / "out.mkv"
        self.pth = root / "GPEN-64.pth"
        self.weights = root / "weights"
        self.layer = root / "layer"
        self.shots, self.profile = root / "shots.toml", root / "profile.toml"
        self.analysis = root / "known.npz"

    def files(self) -> Iterator[str]:
        """Relative paths of all files that hold anything."""
        for path in sorted(self.root.rglob("*")):
            if path.is_file() and path.stat().st_size:
                yield path.relative_to(self.root).as_posix()


def frames_of(path: Path) -> str:
    """A hash of all frames and their times."""
    digest = hashlib.md5()
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            digest.update(f"{frame.pts} {frame.format.name}".encode())
            for plane in media.planes_of(frame):
                digest.update(plane.tobytes())
    return digest.hexdigest()


class Case:
    """How files come to be, who reads them again, and by which command that happens."""

    options: ClassVar[dict[str, Any]] = {}
    """Settings, besides those of all."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.faces = 0
        """Restored in the run before."""

    def set_up(self) -> None:
        """Make all that is kept, from the tape and the weights alone."""
        raise NotImplementedError

    def read(self) -> str:
        """Use what is kept, and describe what came of it."""
        raise NotImplementedError

    def command(self) -> list[str] | None:
        """The same as arguments; what came of it `after` says."""
        raise NotImplementedError

    def after(self) -> str:
        """What a run wrote."""
        return frames_of(self.place.target)

    def close(self) -> None:
        """Nothing of it goes on."""

    def settings(self) -> dict[str, Any]:
        return OPTIONS | {"restore.restorer": str(self.place.pth)} | self.options

    def restored(self, **how: Any) -> str:
        place = self.place
        settings = load_settings(options=self.settings())
        summary = restore_video(place.tape, place.target, settings, overwrite=True, **how)
        self.faces = summary.faces
        return self.after()

    def arguments(self, *more: object) -> list[str]:
        place = self.place
        changes = [w for k, v in self.settings().items() for w in ("--set", f"{k}={json.dumps(v)}")]
        head = ["restore", str(place.tape), str(place.target), "--json", *changes]
        return [*head, *map(str, more)]

    def stopped(self, stage: str, frame: int, **how: Any) -> None:
        """Interrupt a run once it tells so much of that stage."""

        def stop(event: Event) -> None:
            if is_at(event, stage, frame):
                raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            self.restored(on_event=stop, **how)
            raise AssertionError(f"the run was never told of frame {frame} of {stage}")


class Stopped(Case):
    """A job that was stopped in its second segment."""

    def set_up(self) -> None:
        self.stopped("restore", 40, keep_job=True)

    def read(self) -> str:
        return self.restored(keep_job=True)

    def command(self) -> list[str] | None:
        return self.arguments("--keep-job", "--overwrite")


class Joined(Case):
    """A job with a layer, stopped after its segments were joined."""

    def set_up(self) -> None:
        self.stopped("check", 1, layer=self.place.layer)

    def read(self) -> str:
        return self.restored(layer=self.place.layer)

    def command(self) -> list[str] | None:
        return self.arguments("--layer", self.place.layer, "--overwrite")

    def after(self) -> str:
        layer = sorted(self.place.layer.glob("*.mov"))
        assert len(layer) == 2
        return " ".join(map(frames_of, [self.place.target, *layer]))


class Finished(Case):
    """A finished job, of which the second shot is to be redone."""

    def set_up(self) -> None:
        self.restored(keep_job=True)
        assert self.faces > 0.8 * FRAMES, self.faces

    def read(self) -> str:
        return self.restored(redo_shots="2")

    def command(self) -> list[str] | None:
        return self.arguments("--redo-shots", "2", "--overwrite")

    def settings(self) -> dict[str, Any]:
        is_made = self.place.target.is_file()
        return super().settings() | {"paste.strength": 0.5 if is_made else 1.0}


class Cropped(Case):
    """A finished job that kept the restored crops, to be done again with another strength."""

    options: ClassVar[dict[str, Any]] = {"restore.cache_crops": True}

    def set_up(self) -> None:
        self.restored()
        assert self.faces > 0.8 * FRAMES, self.faces

    def read(self) -> str:
        return self.restored()

    def command(self) -> list[str] | None:
        return self.arguments("--overwrite")

    def settings(self) -> dict[str, Any]:
        is_made = self.place.target.is_file()
        return super().settings() | {"paste.strength": 0.5 if is_made else 1.0}


class Asked(Case):
    """A job that is told what to do by files: an analysis, a list of shots, a profile."""

    def set_up(self) -> None:
        place = self.place
        given = {k: v for k, v in self.settings().items() if k in ("detect.detector",)}
        run("analyze", place.tape, "-o", place.analysis, "--shots", place.shots, "--json",
            *(w for k, v in given.items() for w in ("--set", f"{k}={json.dumps(v)}")))  # fmt: skip
        # As a person writes it; the settings of all are given otherwise.
        place.profile.write_text(
            "[paste]\nstrength = 0.8  # not all\nsharpness = 0.4\n\n[grain]\nmatch = 0.25\n"
            '[encode]\nprovenance = true\n[fields]\ndeinterlace = "off"\n'
        )

    def settings(self) -> dict[str, Any]:
        return {k: v for k, v in super().settings().items()
                if k not in ("paste.sharpness", "grain.match")}  # fmt: skip

    def read(self) -> str:
        place = self.place
        settings = load_settings(place.profile, options=self.settings())
        restore_video(
            place.tape,
            place.target,
            settings,
            overwrite=True,
            analysis=storage.load(place.analysis),
            choice=Choice(shots=place.shots),
        )
        return self.after()

    def command(self) -> list[str] | None:
        place = self.place
        return self.arguments("--profile", place.profile, "--analysis", place.analysis,
                              "--shots", place.shots, "--overwrite")  # fmt: skip


class Weighed(Case):
    """Weights that were converted and used by name, of which the first use is noted."""

    def settings(self) -> dict[str, Any]:
        where = {"weights.folder": str(self.place.weights), "restore.restorer": "gpen-256"}
        return super().settings() | where

    def set_up(self) -> None:
        place = self.place
        place.weights.mkdir()
        original = place.root / "mine.pth"
        torch.save(network(256), original)
        run("weights", "convert", original, "-o", place.weights / "GPEN-BFR-256.safetensors")
        original.unlink()
        self.read()

    def read(self) -> str:
        notes: list[Any] = []
        restorer = factory.chosen_restorer(load_settings(options=self.settings()), notes.append)
        size = restorer.size or 64
        u = torch.linspace(0, 1, size)
        window = torch.stack([(u + u[:, None]) / 2, (u * u[:, None]), (u - u[:, None]) / 2 + 0.5])
        return hashlib.md5(restorer(window[None, None]).numpy().tobytes()).hexdigest()

    def command(self) -> list[str] | None:
        return self.arguments("--overwrite")


class Compiled(Weighed):
    """A network that OpenVINO has compiled."""

    def settings(self) -> dict[str, Any]:
        return Case.settings(self) | {"restore.engine": "openvino"}

    def set_up(self) -> None:
        self.read()


class Downloaded(Case):
    """A download that broke off."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        content = place.pth.read_bytes()
        self._cut = True

        def answer(request: BaseHTTPRequestHandler) -> None:
            begin = int((request.headers.get("Range") or "bytes=0-")[6:-1])
            request.send_response(206 if begin else 200)
            if begin:
                span = f"bytes {begin}-{len(content) - 1}/{len(content)}"
                request.send_header("Content-Range", span)
            request.send_header("ETag", '"first"')
            request.send_header("Content-Length", str(len(content) - begin))
            request.end_headers()
            with contextlib.suppress(ConnectionError):
                request.wfile.write(content[begin : len(content) // 2 if self._cut else None])

        quiet = {"do_GET": answer, "log_message": lambda *_: None}
        handler = type("Handler", (BaseHTTPRequestHandler,), quiet)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        poll = {"poll_interval": 0.01}
        threading.Thread(target=self._server.serve_forever, kwargs=poll, daemon=True).start()
        url = f"http://127.0.0.1:{self._server.server_port}/GPEN-64.pth"
        weight = Weight(
            name="gpen-64", kind="gpen", file="GPEN-64.pth", bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(), licence="none", urls=(url,),
        )  # fmt: skip
        self._fetch = partial(weights.fetch, "gpen-64", table={"gpen-64": weight})

    def set_up(self) -> None:
        with contextlib.suppress(VidrestoreError):
            self.read()
        self._cut = False

    def read(self) -> str:
        os.environ["no_proxy"] = "*"
        self.place.weights.mkdir(exist_ok=True)
        return hashlib.md5(self._fetch(self.place.weights).read_bytes()).hexdigest()

    def command(self) -> list[str] | None:
        return None  # the addresses are those of the manifest

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


CASES: dict[str, type[Case]] = {
    case.__name__.lower(): case
    # What takes longest comes first.
    for case in (Joined, Stopped, Compiled, Cropped, Asked, Weighed, Finished, Downloaded)
}


class Row(NamedTuple):
    kind: str
    case: str
    where: str
    """Of its files, relative to the folder of the case."""
    is_text: bool = False
    """People write it: with one bit changed it may say something else that is as good."""


_WORK = "out.mkv.vidrestore"
# What makes it is `set_up` of the case, what reads it `read`, by which command `command`.
ROWS = (
    Row("note of a job", "stopped", f"{_WORK}/job.json"),
    Row("note of a job", "finished", f"{_WORK}/job.json"),
    Row("segment", "stopped", f"{_WORK}/segments/0000.mkv"),
    Row("joined stream", "joined", f"{_WORK}/video.mkv"),
    Row("note of a segment or stream", "stopped", f"{_WORK}/segments/0000.json"),
    Row("note of a segment or stream", "joined", f"{_WORK}/video.json"),
    Row("stream of a layer", "joined", f"{_WORK}/video.*.mov"),
    Row("note of a stream of a layer", "joined", f"{_WORK}/video.*.json"),
    Row("restored crop of an unfinished segment", "stopped", f"{_WORK}/faces/*/*.npy"),
    Row("restored crop", "cropped", f"{_WORK}/crops/*/*.npy"),
    Row("analysis in the cache", "stopped", "home/cache/vidrestore/weights/analyses/*.npz"),
    Row("note of a kept job", "finished", f"{_WORK}/kept.json"),
    Row("analysis of a kept job", "finished", f"{_WORK}/analysis.npz"),
    Row("output of a kept job", "finished", "out.mkv"),
    Row("analysis in a file", "asked", "known.npz"),
    Row("list of shots", "asked", "shots.toml", is_text=True),
    Row("profile", "asked", "profile.toml", is_text=True),
    Row("converted weights", "weighed", "weights/GPEN-BFR-256.safetensors"),
    Row("notes on weights", "weighed", "home/cache/vidrestore/weights/hashes.json"),
    Row("compiled network", "compiled", "home/cache/vidrestore/weights/openvino/*.blob"),
    Row("note of a compiled network", "compiled", "home/cache/vidrestore/weights/openvino/*.json"),
    Row("download that broke off", "downloaded", "weights/.GPEN-64.pth.*.part"),
    Row("note of a download", "downloaded", "weights/.GPEN-64.pth.*.json"),
)
# What is there beside: what the user gave or wanted, and what marks a folder as in use.
_OTHERS = ("tape.mkv", "GPEN-64.pth", "out.mkv", "layer/*.mov")


def rows_of(case: str) -> list[Row]:
    return [row for row in ROWS if row.case == case]


def is_of(row: Row, name: str) -> bool:
    return fnmatch.fnmatchcase(name, row.where)


def network(size: int) -> dict[str, torch.Tensor]:
    """Small, and untrained."""
    torch.manual_seed(1)
    state = GPEN(size, style_dim=64, narrow=0.125).eval().state_dict()
    return {key: value + 0.05 * torch.randn_like(value) for key, value in state.items()}


def write_tape(path: Path) -> None:
    """A face that a detector finds, in two shots, with sound."""
    portrait = path.with_suffix(".png")
    cv2.imwrite(str(portrait), cv2.resize(data.astronaut()[..., ::-1], (180, 180)))
    look = "crop=96:64:x='26+6*sin(3*t)':y='8+4*sin(2*t)'"
    # Light that changes is taken for a cut.
    look += ",eq=brightness='0.2*mod(floor(t/0.96),2)':eval=frame"
    moving = "-loop 1 -framerate 25 -i", portrait, "-f lavfi -i sine=440 -t 1.92"
    sources.ffmpeg(*moving, f'-vf "{look}" -c:v libx264 -crf 16 -pix_fmt yuv420p -c:a flac', path)
    portrait.unlink()


class Said(NamedTuple):
    status: int
    out: str
    err: str


def run(*arguments: object, check: bool = True) -> Said:
    """A whole command, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            vidrestore([str(argument) for argument in arguments])
        except SystemExit as leaving:
            status = int(leaving.code or 0)
    assert status == 0 or not check, (out.getvalue(), err.getvalue())
    return Said(status, out.getvalue(), err.getvalue())


def check_sentence(error: VidrestoreError) -> None:
    """A message must be one that a user can be shown."""
    text = str(error)
    assert text.strip(), f"{type(error).__name__} says nothing"
    assert "\n" not in text, f"more than one line: {text!r}"
    assert len(text) < 1000, f"{len(text)} characters: {text[:200]!r}"


@cache
def known_errors() -> frozenset[str]:
    def below(kind: type) -> Iterator[str]:
        yield kind.__name__
        for other in kind.__subclasses__():
            yield from below(other)

    return frozenset(below(VidrestoreError))


# Of a damage: the same came of it; it was refused in a sentence; a text says something else that
# is as good. All else is a failure.
SAME, SENTENCE, OTHER_TEXT = "same", "sentence", "other text"
GOOD = (SAME, SENTENCE, OTHER_TEXT)
DIFFERENT = "different at status 0"


def outcome_of_reading(case: Case, wanted: str) -> tuple[str, str]:
    try:
        found = case.read()
    except VidrestoreError as error:
        check_sentence(error)
        return SENTENCE, str(error)
    return (SAME, "") if found == wanted else (DIFFERENT, "")


def outcome_of_command(case: Case, wanted: str) -> tuple[str, str]:
    said = run(*(case.command() or ()), check=False)
    if "Traceback" in said.err:
        return "traceback", said.err[-2000:]
    if said.status == 0:
        return (SAME, "") if case.after() == wanted else (DIFFERENT, "")
    last = json.loads(said.out.splitlines()[-1])
    if last["event"] != "error" or last["kind"] not in known_errors():
        return "defect", last["message"]
    check_sentence(VidrestoreError(last["message"]))
    return SENTENCE, last["message"]


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def says_something_else(content: bytes, changed: bytes) -> bool:
    """A text that is as well formed as it was, and holds other values."""
    try:
        return tomllib.loads(changed.decode()) != tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        return False


class Bench:
    """Sets a case up, and puts it back as it was after each damage.

    Always at the same paths, which notes may name.
    """

    def __init__(self, name: str, root: Path) -> None:
        self._rows = rows_of(name)
        self._now, self._kept = root / "now", root / "kept"
        for folder in (self._now, self._kept):
            shutil.rmtree(folder, ignore_errors=True)
        self.place = Place(self._now)
        self.place.home.mkdir(parents=True)
        os.environ["HOME"] = str(self.place.home)
        os.environ["XDG_CACHE_HOME"] = str(self.place.home / "cache")
        for variable in ("VIDRESTORE_WEIGHTS", "VIDRESTORE_FFMPEG", "MODELSCOPE_CACHE"):
            os.environ.pop(variable, None)
        os.chdir(self.place.home)
        write_tape(self.place.tape)
        torch.save(network(64), self.place.pth)
        self.case = CASES[name](self.place)
        self.case.set_up()
        shutil.copytree(self._now, self._kept)
        self.files = list(self.place.files())
        self.read = self.case.read()
        self.back()
        self.written = ""
        if (arguments := self.case.command()) is not None:
            run(*arguments)
            self.written = self.case.after()

    def back(self) -> None:
        """As it was when it had been set up."""
        shutil.rmtree(self.place.home / "cache", ignore_errors=True)
        for entry in self._now.iterdir():
            if entry.is_file():
                entry.unlink()
            elif entry != self.place.home:  # where the process is
                shutil.rmtree(entry)
        shutil.copytree(self._kept, self._now, dirs_exist_ok=True)

    def of(self, row: Row) -> list[str]:
        return [name for name in self.files if is_of(row, name)]

    def unknown(self) -> list[str]:
        """Files of no kind that is known."""
        return [
            name
            for name in self.files
            if not any(is_of(row, name) for row in ROWS)
            and not any(fnmatch.fnmatchcase(name, other) for other in _OTHERS)
        ]

    def damage(self, row: Row, number: int, *, by_command: bool) -> dict[str, Any]:
        """Flip one bit, which the kind and the number choose, and see what comes of it."""
        self.back()
        chosen = random.Random(f"{row.kind} {row.case} {number}")
        path = self._now / chosen.choice(self.of(row))
        content = path.read_bytes()
        bit = chosen.randrange(8 * len(content))
        # A disk that forgets a bit does not note that the file changed; a program does.
        is_silent, was = number % 2 == 0, path.stat()
        path.write_bytes(changed := flipped(content, bit))
        if is_silent:
            os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
        look = outcome_of_command if by_command else outcome_of_reading
        wanted = self.written if by_command else self.read
        try:
            result, detail = look(self.case, wanted)
        except Exception as error:
            kind = type(error)
            result, detail = f"{kind.__module__}.{kind.__qualname__}", str(error)[:500]
        if row.is_text and result == DIFFERENT and says_something_else(content, changed):
            result = OTHER_TEXT
        file = path.relative_to(self._now).as_posix()
        return {"result": result, "detail": detail, "file": file, "bit": bit, "silent": is_silent}

    def is_read(self, row: Row) -> bool:
        """Whether a run opens the files of that kind, or gives something else without them, so
        that damage to them can show. Libraries open files unseen."""
        names = self.of(row)
        self.back()
        _OPENED.clear()
        self.case.read()
        if all(str(self._now / name) in _OPENED for name in names):
            return True
        self.back()
        empty = {name: b"\0" * (self._now / name).stat().st_size for name in names}
        for name, zeros in empty.items():
            (self._now / name).write_bytes(zeros)
        try:
            found = self.case.read()
        except Exception:
            return True
        paths = {self._now / name: zeros for name, zeros in empty.items()}
        is_left = all(path.is_file() and path.read_bytes() == was for path, was in paths.items())
        return not is_left or found != self.read


_OPENED: set[str] = set()


def _note_opened(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        _OPENED.add(os.fsdecode(arguments[0]))


def numbers_of(row: Row, damages: int) -> range:
    """A kind that has several rows shares its damages among them."""
    rows = [other for other in ROWS if other.kind == row.kind]
    at = rows.index(row)
    return range(at * damages // len(rows), (at + 1) * damages // len(rows))


def damage_all(name: str, root: Path, damages: int, left_out: set[str]) -> None:
    """What `test_bit_damage.py CASE FOLDER DAMAGES ...` does."""

    def tell(**what: Any) -> None:
        print(json.dumps(what), file=told, flush=True)

    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is none of it
    limit_memory()
    sys.addaudithook(_note_opened)
    faulthandler.dump_traceback_later(5 * _MOST_SECONDS, exit=True)
    bench = Bench(name, root)
    faulthandler.cancel_dump_traceback_later()
    try:
        tell(event="ready", unknown=bench.unknown(), files=bench.files,
             missing=[row.where for row in rows_of(name) if not bench.of(row)])  # fmt: skip
        for row in filter(bench.of, rows_of(name)):
            tell(event="control", kind=row.kind, is_read=bench.is_read(row))
            for number in numbers_of(row, damages):
                # The first of a kind go through the whole command.
                by_command = number - numbers_of(row, damages).start < commands_of(row)
                key = f"{row.kind}:{number}"
                if key in left_out:
                    continue
                tell(event="begin", key=key, kind=row.kind)
                faulthandler.dump_traceback_later(_MOST_SECONDS, exit=True)
                found = bench.damage(row, number, by_command=by_command)
                faulthandler.cancel_dump_traceback_later()
                tell(event="end", key=key, kind=row.kind, command=by_command, **found)
    finally:
        bench.case.close()
    tell(event="done")


def commands_of(row: Row) -> int:
    rows = [other for other in ROWS if other.kind == row.kind]
    if row.case == "downloaded":
        return 0
    return len(range(rows.index(row), COMMANDS, len(rows)))


def limit_memory() -> None:
    """So that a size that is damaged is no more than an error."""
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))


class Results(NamedTuple):
    ready: dict[str, Any]
    controls: dict[str, bool]
    found: list[dict[str, Any]]


def results_of(case: str, folder: Path, damages: int) -> Results:
    """What became of all damages of a case; a process that one ends is started again after it."""
    ready: dict[str, Any] = {}
    controls: dict[str, bool] = {}
    found: list[dict[str, Any]] = []
    is_done = False
    while not is_done:
        keys = [each["key"] for each in found]
        with (folder / "told").open("w+b") as told, (folder / "said").open("w+b") as said:
            process = subprocess.run(
                [sys.executable, __file__, case, folder, str(damages), *keys],
                stdout=told, stderr=said, check=False, env=environment(OMP_NUM_THREADS="1"),
            )  # fmt: skip
        lines = (folder / "told").read_text().splitlines()
        words = (folder / "said").read_text(errors="replace")[-3000:]
        under_way = None
        for line in lines:
            one = json.loads(line)
            event = one.pop("event")
            if event == "ready":
                ready = one
            elif event == "control":
                controls[one["kind"]] = one["is_read"]
            elif event == "begin":
                under_way = one
            elif event == "end":
                under_way = None
                found.append(one)
            is_done = event == "done"
        if not is_done:
            assert under_way is not None, f"{process.returncode}: {words}"
            ended = f"the process ended with {process.returncode}"
            found.append(under_way | {"result": ended, "detail": words[-600:], "command": False})
    return Results(ready, controls, found)


def table_of(found: list[dict[str, Any]]) -> str:
    """How often what came of each kind."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for each in found:
        counts[each["kind"]][each["result"]] += 1
    return "\n".join(f"{kind}: {dict(count)}" for kind, count in counts.items())


@pytest.mark.timeout(2400)
def test_a_flipped_bit_gives_the_same_frames_or_one_sentence(tmp_path):
    """All cases in one test, two at a time, since they take minutes of a processor."""
    folders = {case: tmp_path / case for case in CASES}
    for folder in folders.values():
        folder.mkdir()
    with ThreadPoolExecutor(2) as pool:
        started = {
            case: pool.submit(results_of, case, folder, DAMAGES) for case, folder in folders.items()
        }
    results = {case: future.result() for case, future in started.items()}
    for case, (ready, controls, _) in results.items():
        assert not ready["unknown"], f"{case}: these are of no kind that is in the table"
        assert not ready["missing"], f"{case}: the set-up has no file of these kinds"
        assert all(controls.values()), f"{case}: {controls}"
    found = [each for result in results.values() for each in result.found]
    assert len(found) == sum(len(numbers_of(row, DAMAGES)) for row in ROWS)
    bad = [each for each in found if each["result"] not in GOOD]
    assert not bad, f"{len(bad)} of {len(found)}\n{table_of(found)}\n{bad[:5]}"


def test_all_kinds_together_get_two_thousand_damages_and_sixty_commands():
    kinds = {row.kind for row in ROWS}
    assert all(
        sum(len(numbers_of(row, DAMAGES)) for row in ROWS if row.kind == kind) >= 100
        for kind in kinds
    )
    assert sum(len(numbers_of(row, DAMAGES)) for row in ROWS) >= 2000
    assert sum(map(commands_of, ROWS)) >= 60
    assert {row.case for row in ROWS} == set(CASES)


if __name__ == "__main__":
    damage_all(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), set(sys.argv[4:]))

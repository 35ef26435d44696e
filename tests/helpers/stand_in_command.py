"""Speaks as `vidrestore --json` does, without any video work: for tests of the page.

A file in the folder $STAND_IN steers it: `slow` holds the seconds of each step (default 0), a file
`hold` keeps commands that are at work waiting until it is gone (`hold-estimate` those that estimate
a time), `fail-NAME` holds the message with which the command NAME fails, `nobody` hides all people,
`first` holds the time of the first frame, and `log` gets a line for each start. Copies of the
source stand for results, so a source that a browser plays gives results that it plays.
"""

import base64
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

STEPS = 10
STEERING = Path(os.environ.get("STAND_IN", "/nonexistent"))
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
PEOPLE = [
    {"person_id": 1, "shots": [1, 2], "tracks": [1, 2], "seconds_on_screen": 1.0,
     "eye_distance_px": 40.0, "share_turned_away": 0.0, "clearest_seconds": 0.4,
     "appearances": [[0.0, 0.5, 15], [0.7, 1.2, 15]]},
    {"person_id": 2, "shots": [2], "tracks": [3], "seconds_on_screen": 0.5,
     "eye_distance_px": 12.0, "share_turned_away": 0.0, "clearest_seconds": 1.0,
     "appearances": [[0.7, 1.2, 15]]},
]  # fmt: skip


def say(**event: object) -> None:
    print(json.dumps(event), flush=True)


def option(name: str) -> str | None:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else None


def step() -> None:
    slow = STEERING / "slow"
    time.sleep(float(slow.read_text() or 0) if slow.exists() else 0)
    is_estimate = sys.argv[1] == "analyze" and "--no-estimate" not in sys.argv
    while (STEERING / ("hold-estimate" if is_estimate else "hold")).exists():
        time.sleep(0.01)


def analyze(source: Path) -> None:
    for number in range(STEPS):
        say(event="progress", stage="analyze", frame=3 * number, frames=3 * STEPS)
        step()
    people = [] if (STEERING / "nobody").exists() else PEOPLE
    if (known := option("-o")) is not None:
        Path(known).write_text("the analysis")
    folder = option("--contact-sheet")
    if folder is not None:
        for person in people:
            Path(folder, f"person_{person['person_id']}.png").write_bytes(PNG)
    estimate = None
    if "--no-estimate" not in sys.argv:
        estimate = {"restorer": option("--restorer"), "seconds": 60.0, "seconds_per_face": 1.0,
                    "seconds_per_frame": 0.5, "network_share": 1.0,
                    "seconds_with_key_frames": 30.0}  # fmt: skip
    say(event="notice", message="the analysis of an earlier run is used")
    first = STEERING / "first"
    say(event="done", analysis={
        "video": {}, "first_seconds": float(first.read_text()) if first.exists() else 0.0,
        "frames": 30, "last_frame_seconds": 1.17, "seconds": 1.2, "width": 320,
        "height": 240, "rate": 25.0, "codec": "h264", "is_interlaced": False,
        "cuts_seconds": [0.6], "shots": [[0, 15], [15, 30]], "faces": 15 * 3 if people else 0,
        "skipped": {}, "detector": "YuNet", "people_are_joined": False, "people": people,
        "estimate": estimate,
    })  # fmt: skip


def preview(source: Path) -> None:
    target = Path(option("-o") or "")
    for number in range(STEPS):
        say(event="progress", stage="preview", frame=number, frames=STEPS)
        step()
    for which in ("before", "after"):
        shutil.copy(source, target.with_suffix(f".{which}{target.suffix}"))
    say(event="done", preview={"at_seconds": float(option("--at") or 0), "frames": 50, "faces": 50,
                               "not_restored": {}, "files": []})  # fmt: skip


def proxy(source: Path) -> None:
    for number in range(STEPS):
        say(event="progress", stage="proxy", frame=number, frames=STEPS)
        step()
    shutil.copy(source, option("-o") or "")
    say(event="done", proxy={"frames": 30})


def restore(source: Path) -> None:
    target = Path(sys.argv[3])
    if target.exists() and "--overwrite" not in sys.argv:
        say(event="error", kind="UsageError",
            message=f"{target} exists already; add --overwrite to replace it")  # fmt: skip
        sys.exit(2)
    work = target.with_name(f"{target.name}.vidrestore")
    work.mkdir(exist_ok=True)
    live = Path(option("--live") or work / "live")
    for number in range(len(list(work.glob("part*"))), STEPS):
        (work / f"part{number}").touch()
        live.write_bytes(PNG)
        say(event="progress", stage="restore", frame=3 * number, frames=3 * STEPS,
            picture=str(live))  # fmt: skip
        step()
    say(event="progress", stage="check", frame=30, frames=30)
    shutil.copy(source, work / "whole")
    (work / "whole").replace(target)
    shutil.rmtree(work)
    if option("--report"):
        page = "<!doctype html><title>Report</title><p>Better."
        Path(option("--report") or "").write_text(page)
    say(event="notice", message="restore.denoise has no effect on fusion")
    say(event="done", summary={"frames": 30, "faces": 45, "skipped": {"blurred": 2},
                               "warnings": ["the subtitles are lost"]})  # fmt: skip


def weights(source: Path) -> None:
    for number in range(STEPS):
        say(event="progress", stage=f"fetch {sys.argv[3]}", bytes=number, of_bytes=STEPS)
        step()
    say(event="done", weight={"name": sys.argv[3]})


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    name, source = sys.argv[1], Path(sys.argv[2])
    assert sys.argv[-1] == "--json"
    signal.signal(signal.SIGTERM, interrupted)
    if STEERING.is_dir():
        with (STEERING / "log").open("a") as log:
            log.write(json.dumps(sys.argv[1:-1]) + "\n")
    failure = STEERING / f"fail-{name}"
    commands = {"analyze": analyze, "preview": preview, "proxy": proxy, "restore": restore,
                "weights": weights}  # fmt: skip
    try:
        if failure.exists():
            say(event="error", kind="InputError", message=failure.read_text())
            sys.exit(1)
        commands[name](source)
    except KeyboardInterrupt:
        message = "interrupted; no unfinished output was written"
        say(event="error", kind="interrupted", message=message)
        sys.exit(130)


if __name__ == "__main__":
    main()

"""The command line reaches no other machine."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.served_page import shut_in
from helpers.videos import MakeVideo

QUICK = ["--restorer", "fusion", "--detector", "haar"]
RUN = """
import json, sys
from vidrestore.cli import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as leaving:
        print("status", leaving.code, *arguments, file=sys.stderr)
"""


def test_no_command_reaches_out(make_video: MakeVideo, tmp_path: Path) -> None:
    make_video("tape.mp4", frames=12, audio=True)
    commands = [
        ["doctor"],
        ["weights", "list"],
        ["analyze", "tape.mp4", *QUICK, "-o", "tape.npz", "--shots", "shots.toml"],
        ["preview", "tape.mp4", "--at", "0.2", "-o", "moment.png", *QUICK],
        ["restore", "tape.mp4", "clear.mp4", *QUICK, "--report", "clear.html"],
        ["restore", "tape.mp4", "--output-dir", "many", *QUICK],
        ["compare", "tape.mp4", "clear.mp4", "-o", "both.mp4"],
        ["evaluate", "clear.mp4", "--source", "tape.mp4", "--detector", "haar"],
        ["restore", "tape.mp4", "never.mp4", "--offline"],
    ]
    environment = shut_in(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(commands)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    statuses = [line.split()[1] for line in done.stderr.splitlines() if line[:7] == "status "]
    assert statuses == [*"00000000", "1"], done.stderr
    assert (tmp_path / "blocked.log").read_text() == ""


def test_what_is_asked_for_by_name_would_reach_out(tmp_path: Path) -> None:
    """Else the test above could not fail."""
    done = subprocess.run(
        [sys.executable, "-m", "vidrestore", "weights", "fetch", "yunet"],
        cwd=tmp_path, env=shut_in(tmp_path), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "blocked" in (tmp_path / "blocked.log").read_text() or "blocked" in done.stderr


@pytest.mark.parametrize("name", ["README.md", "docs/two-passes.svg"])
def test_pages_show_nothing_from_elsewhere(name: str) -> None:
    text = (Path(__file__).parents[1] / name).read_text(encoding="utf-8")
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    # PyTorch's index is named in commands; nothing is loaded from it when the page is shown.
    assert not re.search(r"(src=|\]\(|href=)[\"']?https://", text)

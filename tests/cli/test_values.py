"""A value that an option cannot have is one sentence: the option, the value, what is expected."""

import json

import pytest
from helpers.videos import Command

from vidrestore.common.errors import ConfigError
from vidrestore.common.profiles import load_settings

OPTIONS = {
    "restore a.mp4 b.mp4 --fps abc": "--fps cannot be 'abc'; it must be a number",
    "restore a.mp4 b.mp4 --fps=nan": "--fps cannot be nan; it must be a finite number",
    "restore a.mp4 b.mp4 --fps 1e-320": "--fps cannot be 1e-320; it must be at least 0.01",
    "restore a.mp4 b.mp4 --batch-size 1.5": "--batch-size cannot be '1.5'; it must be a whole",
    "restore a.mp4 b.mp4 --batch-size 0": "--batch-size cannot be 0; it must be at least 1",
    "restore a.mp4 b.mp4 --max-vram 0": "--max-vram cannot be 0.0; it must be at least 0.1",
    "restore a.mp4 b.mp4 --max-vram 1e-320": "--max-vram cannot be 1e-320; it must be at least",
    "restore a.mp4 b.mp4 --max-vram=-1": "--max-vram cannot be -1.0; it must be at least 0.1",
    "restore a.mp4 b.mp4 --max-vram nan": "--max-vram cannot be nan; it must be a finite number",
    "restore a.mp4 b.mp4 --strength 2": "--strength cannot be 2.0; it must be at most 1",
    "restore a.mp4 b.mp4 --workers 0": "--workers cannot be '0'; it must be at least 1",
    "restore a.mp4 b.mp4 --workers x": "--workers cannot be 'x'; it must be a whole number",
    "restore a.mp4 b.mp4 --quality best": "--quality cannot be 'best'; allowed is archive",
    "restore a.mp4 b.mp4 --device moon": "--device cannot be 'moon'; allowed is auto, cpu",
    "restore a.mp4 b.mp4 --set restore.batch_size=x": "restore.batch_size cannot be 'x'; it must",
    "restore a.mp4 b.mp4 --strength 1 --set paste.strength=[]": "paste.strength cannot be []; it",
    "ui --port 0": "--port cannot be '0'; it must be at least 1",
    "ui --max-upload nan": "--max-upload cannot be 'nan'; it must be",
    "preview a.mp4 --min-face x -o b.png": "--min-face cannot be 'x'; it must be a number",
}


@pytest.mark.parametrize(("given", "sentence"), OPTIONS.items(), ids=OPTIONS.keys())
def test_a_value_of_the_wrong_kind(given: str, sentence: str, command: Command) -> None:
    found = command(*given.split())
    assert found.status == 2
    assert len(found.err.splitlines()) == 1, found.err
    assert found.err.startswith(f"vidrestore: {sentence}"), found.err


@pytest.mark.parametrize(
    ("given", "part"),
    [("restore --foo", "no such option: --foo"), ("preview a.mp4", "missing option '-o'"),
     ("restore a b --fps", "'--fps' requires an argument"), ("restor", "no such command 'restor'"),
     ("compare a.mp4", "missing argument")],
)  # fmt: skip
def test_what_the_parser_does_not_take_is_one_sentence(
    given: str, part: str, command: Command
) -> None:
    found = command(*given.split())
    assert found.status == 2
    assert len(found.err.splitlines()) == 1, found.err
    assert found.err.startswith("vidrestore: ")
    assert part in found.err
    assert "--help shows what there is" in found.err


def test_a_program_is_told_in_json(command: Command) -> None:
    found = command("restore", "a.mp4", "b.mp4", "--json", "--fps", "abc")
    assert found.status == 2
    assert found.err == ""
    assert json.loads(found.out) == {
        "event": "error", "kind": "UsageError",
        "message": "--fps cannot be 'abc'; it must be a number",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "sentence"),
    [("job.segment_frames=2000000", "it must be at most 1000000"),
     ("detect.size_px=65", "it must be a multiple of 32"),
     ("detect.margins=maybe", "it must be true or false"),
     ("detect.pack=1", "it must be a text"),
     ("weights.also=1", "it must be a list"),
     ("shots.edl=1", "it must be the name of a file")],
)  # fmt: skip
def test_what_a_setting_expects(change: str, sentence: str) -> None:
    name, _, value = change.partition("=")
    with pytest.raises(ConfigError) as raised:
        load_settings(None, [change])
    assert str(raised.value).startswith(f"{name} cannot be ")
    assert value in str(raised.value)
    assert str(raised.value).endswith(sentence)

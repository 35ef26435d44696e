"""`vidrestore weights fetch, verify, convert, try`: what they say, and what they leave behind."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import onnx
import pytest
import torch
from helpers.weights_server import Server, onnx_bytes, serving
from onnx import TensorProto, helper
from safetensors.torch import save_file

from vidrestore.cli import main
from vidrestore.models import weights
from vidrestore.models.gpen.checkpoint import export_onnx, load_checkpoint
from vidrestore.models.gpen.network import GPEN
from vidrestore.models.weights import Weight

CONTENT = onnx_bytes(1, padding_bytes=2_500_000)
LICENCE = "free, but for non-commercial use only"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving(monkeypatch) as own:
        yield own


class Result(NamedTuple):
    status: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Command:
    """`vidrestore weights ...` in this process, in an empty folder."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as leaving:
            main(["weights", *map(str, arguments)])
        return Result(int(leaving.value.code or 0), *capsys.readouterr())

    return run


def assert_refused(result: Result, status: int, *parts: str) -> None:
    """One sentence on standard error, below what a download said of itself."""
    assert result.status == status, result
    *progress, sentence = result.err.splitlines()
    assert all(line.startswith("fetch ") for line in progress)
    assert sentence.startswith("vidrestore: ")
    assert "--debug" not in sentence, "it was taken for a defect"
    for part in parts:
        assert part in sentence


@pytest.fixture(scope="module")
def gpen() -> GPEN:
    """Untrained, yet no two entries alike: the exporter would keep but one of them."""
    torch.manual_seed(1)
    gpen = GPEN(64, style_dim=64, narrow=0.125).eval().requires_grad_(False)
    for parameter in gpen.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    return gpen


def parameters(gpen: GPEN) -> int:
    return sum(v.numel() for k, v in gpen.state_dict().items() if not k.endswith(".kernel"))


def assert_same(path: Path, gpen: GPEN) -> None:
    config, state = load_checkpoint(path)
    assert config == gpen.config
    wanted = gpen.state_dict()
    assert list(state) == list(wanted)
    assert all(torch.equal(state[key], wanted[key]) for key in wanted)


def use_table(monkeypatch: pytest.MonkeyPatch, *entries: Weight) -> None:
    monkeypatch.setattr(weights, "load_table", lambda: {entry.name: entry for entry in entries})


def net(*urls: str) -> Weight:
    return Weight(name="net", kind="yunet", file="net.onnx", licence=LICENCE, urls=urls)


def small(gpen: GPEN, **changes: int) -> Weight:
    fields = {"entries": len(gpen.state_dict()), "parameters": parameters(gpen)} | changes
    return Weight(
        name="gpen-64",
        kind="gpen",
        file="GPEN-BFR-64.pth",
        other_names=("GPEN-BFR-64.onnx",),
        licence=LICENCE,
        urls=("http://127.0.0.1:9/nothing",),
        **fields,
    )


# fetch


def test_fetch_says_where_it_is_and_the_licence(
    command: Command, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_table(monkeypatch, net(server.serve("/net", CONTENT)))
    result = command("fetch", "net", "--weights", tmp_path / "w")
    path = tmp_path / "w" / "net.onnx"
    assert result.status == 0
    assert result.out == f"net is here: {path}\nlicense: {LICENCE}\n"
    assert "fetch net" in result.err
    assert path.read_bytes() == CONTENT
    again = command("fetch", "net", "--weights", tmp_path / "w")
    assert again.out.startswith(f"net is here already: {path}\n")
    assert len(server.asked) == 1


def test_fetch_tells_a_program_how_far_it_is(
    command: Command, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_table(monkeypatch, net(server.serve("/net", CONTENT)))
    path = tmp_path / "w" / "net.onnx"
    done = {"event": "done", "weight": {"name": "net", "path": str(path), "license": LICENCE}}
    for is_here in (False, True):
        result = command("fetch", "net", "--weights", tmp_path / "w", "--json")
        *progress, last = [json.loads(line) for line in result.out.splitlines()]
        assert last == done
        assert bool(progress) != is_here
        assert {(each["event"], each["stage"]) for each in progress} <= {("progress", "fetch net")}
    monkeypatch.setattr(weights, "load_table", dict)
    failed = command("fetch", "absent", "--json")
    assert json.loads(failed.out)["event"] == "error"


def test_fetch_goes_on_where_it_broke(
    command: Command, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.serve("/net", CONTENT, cut_after_bytes=[1_200_000, 0, 0])
    use_table(monkeypatch, net(url))
    assert_refused(command("fetch", "net", "--weights", tmp_path), 1, "broke off")
    assert command("fetch", "net", "--weights", tmp_path).status == 0
    assert (tmp_path / "net.onnx").read_bytes() == CONTENT
    assert server.asked[-1] == ("/net", "bytes=1200000-")


def test_fetch_of_what_is_not_there(
    command: Command, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_table(monkeypatch, net(server.url + "/gone"))
    assert_refused(command("fetch", "net", "--weights", tmp_path), 1, "/gone", "404")
    assert_refused(command("fetch", "nets"), 2, "'nets'", "did you mean net?")


def test_fetch_replaces_a_damaged_file_and_leaves_a_changed_one(
    command: Command, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_table(monkeypatch, net(server.serve("/net", CONTENT)))
    (tmp_path / "net.onnx").write_bytes(b"<html>")
    assert command("fetch", "net", "--weights", tmp_path).status == 0
    assert (tmp_path / "net.onnx").read_bytes() == CONTENT
    (tmp_path / "net.onnx").write_bytes(onnx_bytes(2))
    assert_refused(command("fetch", "net", "--weights", tmp_path), 1, "has changed")
    assert (tmp_path / "net.onnx").read_bytes() == onnx_bytes(2)


def test_fetch_of_a_checkpoint_whose_onnx_is_here(
    command: Command, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpen: GPEN
) -> None:
    torch.save(gpen.state_dict(), tmp_path / "served.pth")
    url = server.serve("/64", (tmp_path / "served.pth").read_bytes())
    entry = small(gpen)
    use_table(monkeypatch, Weight(**{**fields_of(entry), "urls": (url,)}))
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "GPEN-BFR-64.onnx").write_bytes(onnx_bytes(1))
    result = command("fetch", "gpen-64", "--weights", tmp_path / "w")
    assert result.status == 0, result.err
    assert_same(tmp_path / "w" / "GPEN-BFR-64.pth", gpen)


def fields_of(entry: Weight) -> dict:
    return {name: getattr(entry, name) for name in entry.__dataclass_fields__}


# verify


def states(result: Result) -> dict[str, str]:
    """Name -> state, of the rows of the table."""
    rows = [line.split("│") for line in result.out.splitlines() if line.startswith("│")]
    return {cells[1].strip(): cells[3].strip() for cells in rows}


def test_verify_knows_every_state(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpen: GPEN
) -> None:
    use_table(monkeypatch, net(), small(gpen))
    verify = ("verify", "--weights", tmp_path)
    result = command(*verify)
    assert (result.status, states(result)) == (0, {"net": "missing", "gpen-64": "missing"})
    (tmp_path / "net.onnx").write_bytes(CONTENT)
    torch.save({"g_ema": gpen.state_dict()}, tmp_path / "GPEN-BFR-64.pth")
    result = command(*verify)
    assert (result.status, states(result)) == (0, {"net": "recorded", "gpen-64": "recorded"})
    result = command(*verify)
    assert (result.status, states(result)) == (0, {"net": "good", "gpen-64": "good"})
    (tmp_path / "net.onnx").write_bytes(onnx_bytes(3))
    result = command(*verify)
    assert (result.status, states(result)) == (1, {"net": "changed", "gpen-64": "good"})
    assert f"changed: {tmp_path / 'net.onnx'} has changed since its first use" in result.out
    (tmp_path / "net.onnx").write_bytes(CONTENT[:-9])
    result = command(*verify)
    assert (result.status, states(result)["net"]) == (1, "damaged")


@pytest.mark.parametrize(
    ("size", "changes", "reason"),
    [
        (32, {}, "holds a GPEN for 32 px where one for 64 px is needed"),
        (64, {"parameters": 71_005_223}, "parameters instead of 71005223"),
    ],
)
def test_verify_looks_into_gpen(
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gpen: GPEN,
    size: int,
    changes: dict[str, int],
    reason: str,
) -> None:
    use_table(monkeypatch, small(gpen, **changes))
    other = GPEN(size, style_dim=64, narrow=0.125)
    torch.save(other.state_dict(), tmp_path / "GPEN-BFR-64.pth")
    result = command("verify", "--weights", tmp_path)
    assert (result.status, states(result)) == (1, {"gpen-64": "damaged"})
    assert reason in result.out


def test_verify_finds_weights_that_are_no_numbers(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpen: GPEN
) -> None:
    use_table(monkeypatch, small(gpen))
    state = {key: value.clone() for key, value in gpen.state_dict().items()}
    state["generator.conv1.conv.weight"][0, 0] = torch.nan
    torch.save(state, tmp_path / "GPEN-BFR-64.pth")
    result = command("verify", "--weights", tmp_path)
    assert result.status == 1
    assert "NaN" in result.out


def test_a_flipped_bit_is_found_by_verify_convert_and_at_first_use(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpen: GPEN
) -> None:
    use_table(monkeypatch, small(gpen))
    path = tmp_path / "GPEN-BFR-64.pth"
    torch.save(gpen.state_dict(), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    result = command("verify", "--weights", tmp_path)
    assert (result.status, states(result)) == (1, {"gpen-64": "damaged"})
    assert "Bad CRC-32" in result.out
    assert_refused(command("convert", path), 1, "GPEN-BFR-64.pth is damaged: Bad CRC-32")
    assert_refused(command("try", path), 1, "GPEN-BFR-64.pth is damaged: Bad CRC-32")


@pytest.mark.long
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_bit_that_a_converted_file_lost_is_found_at_its_first_use(
    command: Command, tmp_path: Path, gpen: GPEN, suffix: str
) -> None:
    source, path = tmp_path / "a.pt", tmp_path / f"b{suffix}"
    torch.save(gpen.state_dict(), source)
    assert command("convert", source, "-o", path).status == 0
    state, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert_refused(command("try", path), 1, f"b{suffix} is damaged")
    assert command("convert", source, "-o", path, "--overwrite").status == 0
    assert command("try", path, "-o", tmp_path / "a.png").status == 0


def test_a_damaged_directory_of_a_pth_is_one_sentence(
    command: Command, tmp_path: Path, gpen: GPEN
) -> None:
    path = tmp_path / "a.pth"
    torch.save(gpen.state_dict(), path)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02")] = 0
    path.write_bytes(content)
    assert_refused(command("convert", path), 1, "a.pth is damaged")
    assert_refused(command("try", path), 1, "a.pth is damaged")


def test_list_shows_the_licence(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_table(monkeypatch, net())
    result = command("list", "--weights", tmp_path)
    assert result.status == 0
    assert LICENCE in result.out


def test_list_shows_what_is_found_where(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_table(monkeypatch, net())
    first, app = tmp_path / "first", tmp_path / "app/models/GPEN"
    for file in (first / "NET (1).onnx", app / "net.ONNX", app / "net (2).onnx"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(CONTENT + bytes([0x08, len(file.name)]))
    result = command("list", "--weights", first, "--set", f"weights.also=['{tmp_path / 'app'}']")
    assert result.status == 0, result.err
    shown = result.out.replace("\n", "")
    assert "NET (1).onnx" in shown
    further = [line for line in result.out.splitlines() if line.startswith("net is also here")]
    assert further == [
        f"net is also here, and not used: {app / name}" for name in ("net.ONNX", "net (2).onnx")
    ]


# convert


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, gpen: GPEN) -> Path:
    path = tmp_path_factory.mktemp("exported") / "gpen_bfr_64.onnx"
    export_onnx(gpen, path)
    return path


def test_convert_gives_back_what_was_exported(
    command: Command, tmp_path: Path, exported: Path, gpen: GPEN
) -> None:
    source = tmp_path / exported.name
    source.write_bytes(exported.read_bytes())
    result = command("convert", source)
    target = tmp_path / "gpen_bfr_64.safetensors"
    assert result.status == 0, result.err
    assert result.out.startswith(f"wrote {target}: GPEN for faces of 64 px, ")
    assert f"--restorer {target}" in result.out
    assert_same(target, gpen)
    assert {path.name for path in tmp_path.iterdir()} == {source.name, target.name, "cwd"}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_convert_between_all_forms(
    command: Command, tmp_path: Path, exported: Path, gpen: GPEN, suffix: str
) -> None:
    first, second = tmp_path / f"a{suffix}", tmp_path / "b.pth"
    assert command("convert", exported, "-o", first).status == 0
    assert_same(first, gpen)
    assert command("convert", first, "-o", second).status == 0
    assert_same(second, gpen)


def test_convert_takes_entries_that_share_their_memory(
    command: Command, tmp_path: Path, gpen: GPEN
) -> None:
    state = dict(gpen.state_dict())
    kernels = [key for key in state if key.startswith("generator") and key.endswith(".kernel")]
    state |= dict.fromkeys(kernels, state[kernels[0]])
    torch.save(state, tmp_path / "a.pth")
    assert command("convert", tmp_path / "a.pth").status == 0
    assert_same(tmp_path / "a.safetensors", gpen)


def renamed(source: Path, target: Path) -> Path:
    """As most exporters write it: the weights are there, their names are not."""
    model = onnx.load(source)
    names = {each.name: f"onnx::Conv_{i}" for i, each in enumerate(model.graph.initializer)}
    for each in model.graph.initializer:
        each.name = names[each.name]
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    onnx.save(model, target)
    return target


def test_convert_of_what_does_not_fit_says_how_it_runs(
    command: Command, tmp_path: Path, exported: Path
) -> None:
    file = renamed(exported, tmp_path / "folded.onnx")
    result = command("convert", file)
    assert_refused(result, 1, "does not fit", "through onnxruntime", f"--restorer {file}")
    assert not (tmp_path / "folded.safetensors").exists()


def test_convert_of_what_cannot_run_either(command: Command, tmp_path: Path) -> None:
    words = helper.make_tensor_value_info("words", TensorProto.FLOAT, [1, 7])
    same = helper.make_tensor_value_info("same", TensorProto.FLOAT, [1, 7])
    node = helper.make_node("Identity", ["words"], ["same"])
    graph = helper.make_graph([node], "g", [words], [same])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "words.onnx")
    result = command("convert", tmp_path / "words.onnx")
    assert_refused(result, 1, "nor does it run through onnxruntime")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("absent.onnx", None, "cannot be read"),
        ("page.onnx", b"<!DOCTYPE html>", "web page"),
        ("cut.onnx", CONTENT[:-9], "not a whole ONNX file"),
        ("empty.pth", b"", "is empty"),
        ("letter.pth", b"Dear grandmother", "not a .pth file"),
        ("letter.txt", b"Dear grandmother", "where weights end in"),
    ],
)
def test_convert_of_bad_files(
    command: Command, tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert_refused(command("convert", tmp_path / name), 1, name, reason)


def test_convert_of_another_network(command: Command, tmp_path: Path) -> None:
    save_file({"stylegan_decoder.a": torch.zeros(1)}, tmp_path / "a.safetensors")
    result = command("convert", tmp_path / "a.safetensors", "-o", tmp_path / "b.pth")
    assert_refused(
        result, 1, "a.safetensors holds GFPGAN, not a GPEN; vidrestore runs this network"
    )


def test_a_whole_network_is_told_in_three_lines(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "two\nlines.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    result = command("convert", path, "-o", tmp_path / "b.pth")
    assert result.status == 1
    told, load, save = result.err.splitlines()
    assert told.startswith(f"vidrestore: {tmp_path}/two\\nlines.pth holds a whole network")
    assert load.startswith("  network = torch.load('")
    assert save.startswith("  torch.save(network.state_dict(), '")


def test_convert_overwrites_only_when_told(
    command: Command, tmp_path: Path, exported: Path, gpen: GPEN
) -> None:
    target = tmp_path / "there.safetensors"
    target.write_bytes(b"of an earlier run")
    assert_refused(command("convert", exported, "-o", target), 2, "add --overwrite")
    assert target.read_bytes() == b"of an earlier run"
    assert command("convert", exported, "-o", target, "--overwrite").status == 0
    assert_same(target, gpen)


def test_convert_into_what_cannot_be_written(
    command: Command, tmp_path: Path, exported: Path
) -> None:
    folder = tmp_path / "a.pth"
    folder.mkdir()
    assert_refused(command("convert", exported, "-o", folder), 2, "is a folder")
    assert_refused(command("convert", exported, "-o", tmp_path / "a.bin"), 2, "must end in")
    absent = tmp_path / "absent" / "a.pth"
    assert_refused(command("convert", exported, "-o", absent), 1, "absent does not exist")
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    itself = command("convert", tmp_path / "a.safetensors", "--overwrite")
    assert_refused(itself, 2, "is the input itself")


def test_convert_leaves_nothing_half_written(
    command: Command, tmp_path: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    result = command("convert", exported, "-o", tmp_path / "a.pth")
    assert_refused(result, 1, "no space is left")
    assert [path.name for path in tmp_path.iterdir()] == ["cwd"]


# try


@pytest.mark.long
def test_try_of_untrained_weights(command: Command, tmp_path: Path, gpen: GPEN) -> None:
    torch.save(gpen.state_dict(), tmp_path / "mine.pth")
    engine = ("--device", "cpu", "--set", "restore.engine=torch")
    result = command("try", tmp_path / "mine.pth", *engine)
    assert result.status == 0, result.err
    assert "mean nothing" in result.out
    for word in ("soft", "small", "old", "gpen", "ffhq", "not restored"):
        assert word in result.out
    sheet = cv2.imread("try-mine.png")
    assert sheet is not None
    assert np.ptp(sheet) == 255
    assert_refused(command("try", tmp_path / "mine.pth", *engine), 2, "add --overwrite")


def test_try_of_what_is_not_here(command: Command, tmp_path: Path) -> None:
    result = command("try", "gpen-512", "--weights", tmp_path, "--offline")
    assert result.status == 1
    missing, get, without = result.err.splitlines()
    assert missing.startswith("vidrestore: GPEN-BFR-512.pth is in none of the folders")
    assert missing.endswith("downloads are switched off (--offline)")
    assert get.startswith(f"  put it into {tmp_path}, or run once without --offline: vidrestore w")
    assert without == "  or use --restorer fusion --detector haar, which need no download"
    assert_refused(command("try", "absent.pth"), 1, "absent.pth does not exist")
    assert_refused(command("try", "gpen-511"), 2, "gpen-512")
    assert list(Path().iterdir()) == []

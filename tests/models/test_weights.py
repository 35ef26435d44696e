"""Weight files: found, fetched from a local server, checked, remembered. No outside network."""

import errno
import hashlib
import importlib
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from helpers.weights_server import Server, onnx_bytes, serving

from vidrestore.common import checksums
from vidrestore.common.errors import ConfigError, WeightsError
from vidrestore.models import weights
from vidrestore.models.download import part_path
from vidrestore.models.weight_file import (
    Notes,
    check_kind,
    check_pack,
    check_state_dict,
    count_outputs,
)
from vidrestore.models.weights import Weight, cache_variable

SHARED_MODELS = Path(__file__).parents[3] / "shared/models"


def zip_bytes(members: dict[str, bytes]) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


DETECTOR = onnx_bytes(9)
CONTENT = onnx_bytes(1, padding_bytes=2_500_000)  # more than two blocks of a download


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving(monkeypatch) as own:
        yield own


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and working folder, so that nothing of this machine is found."""
    home = tmp_path / "home"
    (tmp_path / "cwd").mkdir()
    home.mkdir()
    for name in ("VIDRESTORE_WEIGHTS", "MODELSCOPE_CACHE", weights.MIRROR):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.chdir(tmp_path / "cwd")
    return home


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def table_of(*urls: str, **changes: Any) -> dict[str, Weight]:
    fields: dict[str, Any] = {"kind": "yunet", "file": "net.onnx", "licence": "free", "urls": urls}
    weight = Weight(name="net", **(fields | changes))
    return {"net": weight}


def pack_table(*urls: str) -> dict[str, Weight]:
    return {"p": Weight(name="p", kind="pack", file="p.zip", licence="not to be sold", urls=urls)}


def visible(folder: Path) -> set[str]:
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    return names - {".fetch.lock", ".unpack.lock"}


# The table


def test_the_table_is_complete_and_invents_nothing() -> None:
    table = weights.load_table()
    packs, free = {"buffalo_l", "buffalo_sc"}, {"yunet", "face-mesh"}
    restorers = {"gpen-2048", "gpen-1024", "gpen-512", "gpen-256"}
    tasks, training = {"gpen-colorize", "gpen-inpaint"}, {"gpen-512-d", "gpen-256-d", "ir-se50"}
    assert set(table) == restorers | tasks | training | {"parsenet"} | free | packs
    authors = "https://public-vigen-video.oss-cn-shanghai.aliyuncs.com/robin/models/"
    for weight in table.values():
        assert weight.urls
        assert all(url.startswith("https://") for url in weight.urls)
        assert ("non-commercial" in weight.licence) != (weight.name in free)
        if weight.name in tasks | training | {"parsenet"}:
            assert weight.urls == (authors + weight.file,)
    assert {name for name, weight in table.items() if weight.sha256} == free
    assert {name for name, weight in table.items() if weight.kind == "gpen"} == restorers
    parity = Path(__file__).parents[1] / "data/gpen-parity/manifest.json"
    shapes = json.loads(parity.read_text(encoding="utf-8"))
    for name in ("gpen-2048", "gpen-512", "gpen-256"):
        expected = (len(shapes[name]["state_dict"]), shapes[name]["parameters"])
        assert (table[name].entries, table[name].parameters) == expected


@pytest.mark.parametrize("name", ["yunet", "face-mesh"])
def test_the_real_file_is_the_one_in_the_table(name: str, target: Path) -> None:
    file = SHARED_MODELS / weights.load_table()[name].file
    if not file.exists():
        pytest.skip(f"needs {file}")
    target.mkdir()
    shutil.copy(file, target)
    (result,) = weights.verify(name, [target])
    assert (result.state, result.message) == ("good", "")
    (row,) = (row for row in weights.list_weights([target]) if row.name == name)
    assert (row.path, row.message) == (target / file.name, "")
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    (target / file.name).write_bytes(content)
    (result,) = weights.verify(name, [target])
    assert result.state == "changed"
    with pytest.raises(WeightsError, match=f"weights fetch {name}"):
        weights.require(name, [target], target=target, offline=True)


def test_a_missing_face_mesh_names_the_setting_that_does_without_it(target: Path) -> None:
    with pytest.raises(WeightsError, match=r"face_landmark\.tflite .*detect\.mesh=off"):
        weights.require("face-mesh", [target], target=target, offline=True)


# Finding


def test_search_order(
    tmp_path: Path, home: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modelscope = home / ".cache/modelscope/hub/damo"
    comfy = tmp_path / "ComfyUI"
    restorers = comfy / "models/facerestore_models"
    fusion = tmp_path / "fusion/.assets/models"
    for folder in (modelscope, restorers, fusion, home / ".insightface"):
        folder.mkdir(parents=True)
    cache = home / "cache/vidrestore/weights"
    also = [comfy, comfy / "models/facerestore_models", tmp_path / "fusion"]
    others = (modelscope, comfy, comfy / "models", restorers, fusion.parents[1], fusion)

    assert weights.search_folders(None, also) == (cache, *others, home / ".insightface")
    assert weights.target_folder(None) == cache

    Path("weights").mkdir()
    here = Path("weights").absolute()
    monkeypatch.setenv("VIDRESTORE_WEIGHTS", str(tmp_path / "env"))
    assert weights.search_folders(target)[:4] == (target, tmp_path / "env", here, cache)
    assert weights.target_folder(target) == target
    assert weights.target_folder(None) == tmp_path / "env"
    monkeypatch.delenv("VIDRESTORE_WEIGHTS")
    assert weights.target_folder(None) == here


def test_the_first_folder_wins_and_other_names_are_known(tmp_path: Path) -> None:
    table = table_of(other_names=("theirs.onnx", "model/net.onnx"))
    first, second = tmp_path / "a", tmp_path / "b"
    (first / "model").mkdir(parents=True)
    second.mkdir()
    (second / "net.onnx").write_bytes(DETECTOR)
    assert weights.find("net", [first, second], table=table) == second / "net.onnx"
    (first / "model/net.onnx").write_bytes(DETECTOR)
    assert weights.find("net", [first, second], table=table) == first / "model/net.onnx"
    (first / "theirs.onnx").write_bytes(DETECTOR)
    assert weights.find("net", [first, second], table=table) == first / "theirs.onnx"


def test_modelscope_names_are_told_apart_by_their_folder(home: Path) -> None:
    folder = home / ".cache/modelscope/hub/models/damo/cv_gpen_image-portrait-enhancement-hires"
    folder.mkdir(parents=True)
    (folder / "pytorch_model.pt").write_bytes(b"\x80")
    (folder / "pytorch_model-2048.pt").write_bytes(b"\x80")
    folders = weights.search_folders(None)
    assert weights.find("gpen-1024", folders) == folder / "pytorch_model.pt"
    assert weights.find("gpen-2048", folders) == folder / "pytorch_model-2048.pt"
    assert weights.find("gpen-512", folders) is None


def test_an_unknown_name_says_which_are_meant(target: Path) -> None:
    for name in ("gpen-2084", "../target"):
        with pytest.raises(ConfigError, match="there is no weight or InsightFace pack"):
            weights.find(name, [target])
    with pytest.raises(ConfigError, match="did you mean gpen-2048"):
        weights.fetch("gpen-2084", target)


@pytest.mark.parametrize("user", ["~", "~a-user-that-is-not-here"])
def test_a_tilde_is_the_home_where_there_is_one(monkeypatch: pytest.MonkeyPatch, user: str) -> None:
    home = Path.home()
    (home / "ms" / "iic").mkdir(parents=True)
    (home / "app" / "models").mkdir(parents=True)
    monkeypatch.setenv("MODELSCOPE_CACHE", f"{user}/ms")
    monkeypatch.setenv("VIDRESTORE_WEIGHTS", f"{user}/own")
    folders = weights.search_folders(None, (Path(f"{user}/app"),))
    expected = {home / "own", home / "ms" / "iic", home / "app" / "models"}
    assert (expected <= set(folders)) == (user == "~")
    assert weights.find("gpen-512", folders) is None


Answer = Callable[[BaseHTTPRequestHandler], None]


def answering(
    *headers: tuple[str, str], status: int = 200, reason: str = "OK", times: int = 1
) -> Answer:
    """An answer of so many times `CONTENT` with these headers."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status, reason)
        for header in headers:
            request.send_header(*header)
        request.end_headers()
        for _ in range(times):
            request.wfile.write(CONTENT)

    return answer


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (answering(("Content-Range", f"bytes {'9' * 5000}-1/{'9' * 5000}"), status=206),
         "an unspecified part of the file"),
        (answering(times=20), f"goes on after the {len(CONTENT)} bytes"),
        (answering(status=404, reason="\x1b[31mred"), r"answered 404 \x1b[31mred"),
        (answering(("Location", "/net"), status=302), "answered 302"),
        (answering(("Location", "file:///etc/passwd"), status=302), "is not allowed"),
    ],
    ids=["range", "endless", "escape", "loop", "file"],
)  # fmt: skip
def test_a_hostile_server_is_told_in_one_printable_line(
    server: Server, target: Path, answer: Answer, reason: str
) -> None:
    server.answers["/net"] = answer
    table = table_of(f"{server.url}/net", bytes=len(CONTENT))
    with pytest.raises(WeightsError) as error:
        weights.fetch("net", target, table=table, structure=lambda path, weight: None)
    assert reason in str(error.value)
    assert str(error.value).isprintable()


def test_a_length_of_thousands_of_digits_counts_as_none(server: Server, target: Path) -> None:
    server.answers["/net"] = answering(("Content-Length", "9" * 5000))
    table = table_of(f"{server.url}/net")
    assert weights.fetch("net", target, table=table, structure=lambda path, weight: None)


def test_offline_names_file_folder_and_what_runs_without(server: Server, target: Path) -> None:
    table = table_of(server.serve("/net", CONTENT))
    with pytest.raises(WeightsError) as caught:
        weights.require("net", [target], target=target, offline=True, table=table)
    missing, get, without = caught.value.lines
    assert missing.startswith("net.onnx is in none of the folders")
    assert "--offline" in missing
    assert get.startswith(f"put it into {target}, or run once without --offline: vidrestore weigh")
    assert without == "or use --restorer fusion --detector haar, which need no download"
    assert all(len(line) < 120 + len(str(target)) for line in caught.value.lines)
    assert server.asked == []
    assert weights.list_weights([target], table=table)[0].path is None
    assert weights.verify("net", [target], table=table) == []


# Fetching


def test_missing_is_fetched_from_the_second_address(server: Server, target: Path) -> None:
    steps: list[tuple[int, int | None]] = []
    good = server.serve("/net", CONTENT)
    path = weights.require(
        "net",
        [target],
        target=target,
        offline=False,
        on_progress=lambda done, total: steps.append((done, total)),
        table=table_of(f"{server.url}/gone", good),
    )
    assert path.read_bytes() == CONTENT
    assert [path for path, _ in server.asked] == ["/gone", "/net"]
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert steps == sorted(steps)
    assert len(steps) > 2
    assert visible(target) == {"net.onnx"}
    weights.require("net", [target], target=target, offline=False, table=table_of(good))
    assert len(server.asked) == 2


@pytest.mark.parametrize("ending", ["", "/", "/?key=1"])
def test_a_mirror_takes_the_place_of_the_publishers(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    published = server.serve("/net", CONTENT)
    served = "/a%20mirror/my%20net.onnx" + ending.lstrip("/")
    server.serve(served, CONTENT)
    table = table_of(published, file="my net.onnx")
    monkeypatch.setenv(weights.MIRROR, f"{server.url}/a%20mirror{ending}")
    path = weights.require("net", [target], target=target, offline=False, table=table)
    assert path.read_bytes() == CONTENT
    assert [path for path, _ in server.asked] == [served]


def test_a_mirror_is_checked_and_named_like_a_publisher(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = server.serve("/net", CONTENT)
    table = table_of(published, sha256=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setenv(weights.MIRROR, f"{server.url}/mirror")
    with pytest.raises(WeightsError, match=r"mirror/net.onnx answered 404.*unset VIDRESTORE_WEI"):
        weights.fetch("net", target, table=table)
    server.serve("/mirror/net.onnx", DETECTOR)
    with pytest.raises(WeightsError, match=r"its sha256 is .* instead of"):
        weights.fetch("net", target, table=table)
    assert visible(target) == set()
    server.serve("/mirror/net.onnx", CONTENT, cut_after_bytes=[1_500_000])
    assert weights.fetch("net", target, table=table).read_bytes() == CONTENT
    assert "/net" not in {path for path, _ in server.asked}


def test_a_mirror_has_what_has_no_other_address(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WeightsError, match="no address is known"):
        weights.fetch("net", target, table=table_of())
    server.serve("/net.onnx", CONTENT)
    monkeypatch.setenv(weights.MIRROR, server.url)
    assert weights.fetch("net", target, table=table_of()).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ftp://host/a", "must be an address that begins with https://"),
        ("file:///etc", "must be an address that begins with https://"),
        ("host/a", "must be an address that begins with https://"),
        ("https://", "must be an address that begins with https://"),
        ("http://[::1", "must be an address that begins with https://"),
        ("https://me:secret@host/a", "holds a name or a password"),
    ],
)
def test_an_odd_mirror_is_refused(
    target: Path, monkeypatch: pytest.MonkeyPatch, address: str, message: str
) -> None:
    monkeypatch.setenv(weights.MIRROR, address)
    with pytest.raises(ConfigError, match=message) as refused:
        weights.fetch("net", target, table=table_of("https://host/net"))
    assert "secret" not in str(refused.value)


def test_what_is_there_is_not_fetched_twice(server: Server, target: Path) -> None:
    table = table_of(server.serve("/net", CONTENT))
    threads = [
        threading.Thread(target=weights.fetch, args=("net", target), kwargs={"table": table})
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.asked == [("/net", None)]


@pytest.mark.parametrize(
    ("content", "changes", "reason"),
    [
        (CONTENT, {"bytes": 10}, f"has {len(CONTENT)} bytes instead of 10"),
        (CONTENT, {"sha256": "0" * 64}, "instead of " + "0" * 64),
        (b"<!DOCTYPE html><p>Sorry", {}, "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", {}, "is a Git LFS pointer"),
        (b"", {}, "is empty"),
        (CONTENT[:-5], {}, "not a whole ONNX file"),
    ],
)
def test_another_file_is_refused(
    server: Server, target: Path, content: bytes, changes: dict[str, Any], reason: str
) -> None:
    table = table_of(server.serve("/net", content), **changes)
    with pytest.raises(WeightsError, match=re.escape(reason)) as caught:
        weights.fetch("net", target, table=table)
    assert "--restorer fusion" in str(caught.value)
    assert visible(target) == set()


def test_a_web_page_is_refused_before_it_is_read(server: Server, target: Path) -> None:
    page = server.serve("/net", CONTENT, content_type="text/html; charset=utf-8")
    with pytest.raises(WeightsError, match="answered with a web page"):
        weights.fetch("net", target, table=table_of(page))
    assert visible(target) == set()


def test_no_server_is_one_sentence(server: Server, target: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be reached"):
        weights.fetch("net", target, table=table_of("http://127.0.0.1:9/net"))


def test_a_cut_download_goes_on_where_it_stopped(server: Server, target: Path) -> None:
    url = server.serve("/net", CONTENT, cut_after_bytes=[1_200_000])
    path = weights.fetch("net", target, table=table_of(url))
    assert path.read_bytes() == CONTENT
    assert server.asked == [("/net", None), ("/net", "bytes=1200000-")]


def test_a_cut_download_goes_on_in_a_later_call(server: Server, target: Path) -> None:
    table = table_of(server.serve("/net", CONTENT, cut_after_bytes=[700_000, 5, 0]))
    with pytest.raises(WeightsError, match="broke off after 700005 of"):
        weights.fetch("net", target, table=table)
    assert not (target / "net.onnx").exists()
    assert weights.fetch("net", target, table=table).read_bytes() == CONTENT
    assert server.asked[-1] == ("/net", "bytes=700005-")
    assert visible(target) == {"net.onnx"}


def test_a_whole_part_needs_no_request(server: Server, target: Path) -> None:
    url = server.serve("/net", CONTENT)
    part = part_path(target, "net.onnx", url)
    target.mkdir()
    part.write_bytes(CONTENT)
    part.with_suffix(".json").write_text(json.dumps({"total": len(CONTENT), "validator": ""}))
    assert weights.fetch("net", target, table=table_of(url)).read_bytes() == CONTENT
    assert server.asked == []


@pytest.mark.parametrize("ranges", [False, True])
def test_a_file_that_cannot_be_resumed_is_begun_anew(
    server: Server, target: Path, ranges: bool
) -> None:
    old = CONTENT.replace(b"\0", b"\1")  # of the same length
    url = server.serve("/net", old, cut_after_bytes=[300_000, 0, 0])
    with pytest.raises(WeightsError, match="broke off"):
        weights.fetch("net", target, table=table_of(url))
    server.serve("/net", CONTENT, ranges=ranges)  # with ranges: another file, told by its ETag
    assert weights.fetch("net", target, table=table_of(url)).read_bytes() == CONTENT
    assert server.asked[-1] == ("/net", "bytes=300000-")


def test_too_large_for_the_disk_is_found_before_it_is_filled(server: Server, target: Path) -> None:
    url = server.serve("/net", CONTENT, announced_bytes=10**16)
    with pytest.raises(WeightsError, match=r"there is no room in .*target .*bytes are needed"):
        weights.fetch("net", target, table=table_of(url, server.serve("/other", CONTENT)))
    assert [path for path, _ in server.asked] == ["/net"]
    assert visible(target) == set()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk always full")
def test_a_disk_that_fills_up_is_one_sentence(server: Server, target: Path) -> None:
    url = server.serve("/net", CONTENT)
    target.mkdir()
    part_path(target, "net.onnx", url).symlink_to("/dev/full")
    with pytest.raises(WeightsError, match=r"there is no room .*the disk is full.*free some space"):
        weights.fetch("net", target, table=table_of(url))
    assert not (target / "net.onnx").exists()


def test_a_file_in_place_of_the_folder_is_one_sentence(server: Server, target: Path) -> None:
    target.write_bytes(b"")
    with pytest.raises(WeightsError, match="cannot be written"):
        weights.fetch("net", target, table=table_of(server.serve("/net", CONTENT)))


# What a file holds


def test_kinds_of_files(tmp_path: Path) -> None:
    archive = zip_bytes({"a": b"a" * 100})
    header = struct.pack("<Q", 20)
    bad = {
        "cut.pth": archive[:60],
        "text.pth": b"hello",
        "legacy.zip": b"\x80\x02",
        "short.safetensors": header + b'{"a": 1',
        "text.onnx": b"hello",
        "cut.onnx": DETECTOR[:-1],
        "none.onnx": onnx_bytes(0),
    }
    good = {
        "new.pth": archive,
        "old.pth": b"\x80\x02}q\x00.",
        "small.safetensors": header + b'{"a": "0123456789"  }',
        "net.onnx": DETECTOR,
    }
    for name, content in (bad | good).items():
        (tmp_path / name).write_bytes(content)
    for name in good:
        check_kind(tmp_path / name, name)
    for name in bad:
        with pytest.raises(WeightsError, match=re.escape(name)):
            check_kind(tmp_path / name, name)
    assert count_outputs(tmp_path / "net.onnx") == 9


def test_structure_of_a_checkpoint(server: Server, tmp_path: Path, target: Path) -> None:
    torch = pytest.importorskip("torch")
    state = {"a.weight": torch.zeros(2, 3), "blur.kernel": torch.zeros(4, 4)}
    path = tmp_path / "net.pth"
    torch.save({"g_ema": state}, path)
    check_state_dict(path, 2, 6)
    check_state_dict(path, None, None)
    with pytest.raises(WeightsError, match=r"2 entries and 6 parameters instead of 201 and 7"):
        check_state_dict(path, 201, 7)

    changes = {"kind": "gpen", "file": "net.pth", "entries": 2, "parameters": 6}
    table = table_of(server.serve("/net", path.read_bytes()), **changes)
    fetched = weights.fetch("net", target, table=table)
    assert fetched == target / "net.pth"
    wrong = table_of(server.serve("/net", path.read_bytes()), **(changes | {"entries": 3}))
    fetched.unlink()
    with pytest.raises(WeightsError, match="is another network"):
        weights.fetch("net", target, table=wrong)
    assert not fetched.exists()


class Malicious:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.witness,))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path, witness = tmp_path / "net.pth", tmp_path / "witness"
    torch.save({"g_ema": Malicious(witness)}, path)
    with pytest.raises(WeightsError, match="would run code"):
        check_state_dict(path, None, None)
    assert not witness.exists()
    torch.save([1, 2], path)
    with pytest.raises(WeightsError, match="where a state dict is needed"):
        check_state_dict(path, None, None)


# Packs


@pytest.mark.parametrize("top", ["", "p/"])
def test_a_pack_is_fetched_and_unpacked(server: Server, target: Path, top: str) -> None:
    content = zip_bytes({f"{top}det.onnx": DETECTOR, "__MACOSX/._det.onnx": b"x"})
    table = pack_table(server.serve("/p.zip", content))
    folder = weights.require("p", [target], target=target, offline=False, table=table)
    assert folder == target / "insightface/models/p"
    assert visible(folder) == {"det.onnx"}
    assert visible(folder.parent) == {"p"}
    assert visible(target) == {"insightface"}
    assert [file.state for file in weights.verify("p", [target], table=table)] == ["good"]
    assert weights.fetch("p", target, table=table) == folder
    assert len(server.asked) == 1


def test_half_a_pack_that_a_killed_run_left_is_removed(target: Path) -> None:
    beside = weights.pack_folder(target, "p").parent
    for name in (".p.77-0a1b2c3d.part", ".q.77-0a1b2c3d.part"):
        (beside / name / "new").mkdir(parents=True)
    (target / "p.zip").write_bytes(zip_bytes({"det.onnx": DETECTOR}))
    weights.require("p", [target], target=target, offline=True, table=pack_table())
    assert {path.name for path in beside.iterdir() if path.is_dir()} == {"p", ".q.77-0a1b2c3d.part"}


def test_a_zip_put_there_by_hand_is_unpacked(target: Path) -> None:
    target.mkdir()
    (target / "p.zip").write_bytes(zip_bytes({"det.onnx": DETECTOR}))
    folder = weights.require("p", [target], target=target, offline=True, table=pack_table())
    assert visible(folder) == {"det.onnx"}


@pytest.mark.parametrize("by_hand", [True, False])
def test_what_a_killed_run_left_of_a_pack_is_removed_by_the_next(
    server: Server, target: Path, by_hand: bool
) -> None:
    content = zip_bytes({"det.onnx": DETECTOR})
    table = pack_table() if by_hand else pack_table(server.serve("/p.zip", content))
    models = target / "insightface/models"
    (models / ".p.123-0123abcd.part" / "new").mkdir(parents=True)
    (models / ".p.123-0123abcd.part" / "new" / "det.onnx").write_bytes(DETECTOR[:-3])
    (models / ".p-of-my-own").mkdir()
    (models / ".pq.123-0123abcd.part").mkdir()
    for suffix in ("part", "json"):  # from an address that is not in the table any more
        (target / f".p.zip.01234567.{suffix}").write_bytes(b"{}")
    if by_hand:
        (target / "p.zip").write_bytes(content)
        weights.require("p", [target], target=target, offline=True, table=table)
    else:
        weights.fetch("p", target, table=table)
        assert not list(target.glob(".p.zip.*"))
    left = {path.name for path in models.iterdir()} - {".unpack.lock"}
    assert left == {"p", ".p-of-my-own", ".pq.123-0123abcd.part"}


@pytest.mark.parametrize("name", ["../evil.onnx", "/evil.onnx", "p/../../evil.onnx", "C:evil.onnx"])
def test_a_zip_that_leads_out_of_its_folder_is_refused(
    server: Server, target: Path, name: str
) -> None:
    content = zip_bytes({"det.onnx": DETECTOR, name: b"evil"})
    with pytest.raises(WeightsError, match="leads out of its folder"):
        weights.fetch("p", target, table=pack_table(server.serve("/p.zip", content)))
    assert not list(target.parent.rglob("*evil*"))
    assert visible(target / "insightface/models") == set()


def test_a_damaged_zip_is_refused(server: Server, target: Path) -> None:
    content = bytearray(zip_bytes({"det.onnx": DETECTOR}))
    content[60] ^= 0xFF
    with pytest.raises(WeightsError, match="the archive is damaged"):
        weights.fetch("p", target, table=pack_table(server.serve("/p.zip", bytes(content))))
    assert visible(target / "insightface/models") == set()


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({}, "never fully unpacked"),
        ({"det.onnx": b""}, "is empty"),
        ({"det.onnx": DETECTOR[:-3]}, "not a whole ONNX file"),
        ({"det.onnx": DETECTOR, "rec.onnx": DETECTOR[:-3]}, "not a whole ONNX file"),
        ({"rec.onnx": onnx_bytes(1)}, "no face detector, only rec.onnx"),
    ],
)
def test_half_a_pack_is_refused_and_can_be_fetched_anew(
    server: Server, target: Path, members: dict[str, bytes], reason: str
) -> None:
    folder = target / "insightface/models/p"
    folder.mkdir(parents=True)
    for name, content in members.items():
        (folder / name).write_bytes(content)
    table = pack_table(server.serve("/p.zip", zip_bytes({"whole.onnx": DETECTOR})))
    with pytest.raises(WeightsError, match=reason):
        weights.require("p", [target], target=target, offline=True, table=table)
    assert reason in weights.list_weights([target], table=table)[0].message
    assert weights.verify("p", [target], table=table)[0].state == "damaged"
    weights.fetch("p", target, table=table)
    assert visible(folder) == {"whole.onnx"}


def test_a_real_pack_that_is_not_in_the_table(target: Path) -> None:
    source = SHARED_MODELS / "insightface"
    if not source.exists():
        pytest.skip(f"needs {source}")
    shutil.copytree(source, target / "insightface")
    for name in ("det_only", "det_rec"):
        folder = weights.require(name, [target], target=target, offline=True)
        assert folder == target / "insightface/models" / name
        assert "non-commercial" in (weights.licence_notice(name, [target]) or "")
    root = target / "insightface"  # InsightFace's own layout: its root holds models/
    assert weights.find("det_only", [root]) == root / "models/det_only"
    (root / "models/det_only/scrfd_2.5g_bnkps.onnx").rename(root / "models/det_rec/a.onnx")
    with pytest.raises(WeightsError, match="never fully unpacked"):
        weights.require("det_only", [target], target=target, offline=True)
    with pytest.raises(WeightsError, match="no face detector"):
        check_pack_of(root / "models/det_rec", "mobilefacenet_pixamatch.onnx")


def check_pack_of(folder: Path, name: str) -> None:
    for file in folder.iterdir():
        if file.name != name:
            file.unlink()
    check_pack(folder)


# What is remembered


def test_a_file_that_changed_after_its_first_use_is_refused(home: Path, target: Path) -> None:
    target.mkdir()
    file = target / "net.onnx"
    file.write_bytes(DETECTOR)
    table = table_of()

    def require() -> Path:
        return weights.require("net", [target], target=target, offline=True, table=table)

    assert require() == file
    notes = home / "cache/vidrestore/weights/hashes.json"
    noted = json.loads(notes.read_text(encoding="utf-8"))["files"]
    assert noted[str(file)]["sha256"] == hashlib.sha256(DETECTOR).hexdigest()
    os.utime(file, (1, 1))  # the same bytes under another time are no change
    assert require() == file

    file.write_bytes(onnx_bytes(8))
    with pytest.raises(WeightsError, match=r"has changed since its first use.*hashes\.json"):
        require()
    (result,) = weights.verify("net", [target], table=table)
    assert result.state == "changed"
    weights.record(file)
    assert require() == file


def test_a_damaged_file_is_refused_at_first_use_and_not_noted(target: Path) -> None:
    target.mkdir()
    file, table = target / "net.pth", table_of(kind="gpen", file="net.pth")
    whole = zip_bytes({"net/data.pkl": b"N.", "net/data/0": b"b" * 100})
    file.write_bytes(whole.replace(b"bbbb", b"bbcb", 1))

    def require() -> Path:
        return weights.require("net", [target], target=target, offline=True, table=table)

    with pytest.raises(WeightsError, match=r"net\.pth is damaged: Bad CRC-32"):
        require()
    file.write_bytes(whole)  # what takes its place is no change
    assert require() == file


def test_use_and_verify_read_everything_even_if_time_and_size_agree(target: Path) -> None:
    target.mkdir()
    file = target / "net.onnx"
    file.write_bytes(onnx_bytes(1, 100))
    table = table_of()
    assert [one.state for one in weights.verify("net", [target], table=table)] == ["recorded"]
    time_ns = file.stat().st_mtime_ns
    content = bytearray(file.read_bytes())
    content[50] = 1
    file.write_bytes(content)
    os.utime(file, ns=(time_ns, time_ns))
    with pytest.raises(WeightsError, match=r"net\.onnx is damaged.*though its size and its time"):
        weights.require("net", [target], target=target, offline=True, table=table)
    assert [one.state for one in weights.verify("net", [target], table=table)] == ["changed"]


def flip(path: Path, *, place: int) -> None:
    """One bit, as a disk loses it: the time of change stays."""
    state, content = path.stat(), bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize("suffix", [".onnx", ".pth", ".safetensors"])
def test_a_file_named_by_its_path_may_be_replaced_but_not_damaged(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"mine{suffix}"
    path.write_bytes(b"weights" * 100)
    sha256 = weights.sha256_of_own(path)
    assert weights.sha256_of_own(path) == sha256 == hashlib.sha256(b"weights" * 100).hexdigest()
    path.write_bytes(b"other.." * 100)
    os.utime(path, (1, 1))
    assert weights.sha256_of_own(path) != sha256
    flip(path, place=350)
    with pytest.raises(WeightsError, match=r"is damaged.*put a good copy in its place"):
        weights.sha256_of_own(path)


def test_each_file_of_a_pack_is_read_at_each_use(target: Path) -> None:
    target.mkdir()
    members = {"det.onnx": onnx_bytes(9, 500), "rec.onnx": onnx_bytes(1, 500)}
    (target / "p.zip").write_bytes(zip_bytes(members))
    for _ in range(2):
        folder = weights.require("p", [target], target=target, offline=True, table=pack_table())
    flip(folder / "rec.onnx", place=300)
    with pytest.raises(WeightsError, match=r"rec\.onnx is damaged"):
        weights.require("p", [target], target=target, offline=True, table=pack_table())


def test_a_file_that_cannot_be_read_to_its_end_is_one_sentence(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.mkdir()
    (target / "net.onnx").write_bytes(DETECTOR)

    def fails(path: Path) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(checksums, "sha256_of_file", fails)
    with pytest.raises(WeightsError, match=r"net\.onnx cannot be read: input/output error"):
        weights.require("net", [target], target=target, offline=True, table=table_of())


def test_a_published_hash_is_checked_at_first_use(target: Path) -> None:
    target.mkdir()
    (target / "net.onnx").write_bytes(DETECTOR)
    table = table_of(sha256="0" * 64)
    with pytest.raises(WeightsError, match="instead of the published 0000"):
        weights.require("net", [target], target=target, offline=True, table=table)
    assert weights.verify("net", [target], table=table)[0].state == "damaged"


def test_a_wrong_size_is_refused(target: Path) -> None:
    target.mkdir()
    (target / "net.onnx").write_bytes(DETECTOR)
    with pytest.raises(WeightsError, match=f"has {len(DETECTOR)} bytes instead of 7"):
        weights.require("net", [target], target=target, offline=True, table=table_of(bytes=7))


def test_the_licence_is_said_once(home: Path, target: Path) -> None:
    table = table_of()
    assert weights.licence_notice("net", [target], table=table) == "free"
    assert weights.licence_notice("net", [target], table=table) is None
    (home / "cache/vidrestore/weights/hashes.json").write_text('{"files": {"a": {}}, "b": 1}')
    assert weights.licence_notice("net", [target], table=table) == "free"


def test_notes_that_cannot_be_written_stop_nothing(home: Path, target: Path) -> None:
    (home / "cache").parent.mkdir(parents=True, exist_ok=True)
    (home / "cache").write_bytes(b"")  # a file where the cache's folder should be
    target.mkdir()
    (target / "net.onnx").write_bytes(DETECTOR)
    table = table_of()
    for _ in range(2):
        weights.require("net", [target], target=target, offline=True, table=table)
        assert weights.licence_notice("net", [target], table=table) == "free"


NOTE_MANY = """
import sys
from pathlib import Path
from vidrestore.models.weight_file import Notes

notes, who = Notes(Path(sys.argv[1])), sys.argv[2]
for number in range(30):
    notes.note_licence(f"{who} {number}", "free")
"""


def test_two_processes_lose_no_note_of_each_other(tmp_path: Path) -> None:
    path = tmp_path / "hashes.json"
    runs = [
        subprocess.Popen([sys.executable, "-c", NOTE_MANY, str(path), who]) for who in ("a", "b")
    ]
    assert [run.wait(60) for run in runs] == [0, 0]
    noted = json.loads(path.read_text(encoding="utf-8"))["licences"]
    assert set(noted) == {f"{who} {number}" for who in "ab" for number in range(30)}
    assert list(tmp_path.glob(".hashes-*")) == []


def test_what_a_killed_run_left_of_the_notes_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "hashes.json"
    for name in (".hashes-abcdef12", ".hashes-77.part"):
        (tmp_path / name).write_text("{")
    assert Notes(path).note_licence("net", "free")
    assert list(tmp_path.glob(".hashes-*")) == []
    assert not Notes(path).note_licence("net", "free")


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        '{"files": {"a": ' + "[" * 5_000 + "]" * 5_000 + '}, "licences": {}}',
        '{"files": {"a": 7}, "licences": {}}',
        '{"files": {}, "licences": 7}',
        '{"files": {}, "licences": {"a": ' + "9" * 5_000 + "}}",
        "\x00",
    ],
)
def test_damaged_notes_are_begun_anew(tmp_path: Path, content: str) -> None:
    path, file = tmp_path / "hashes.json", tmp_path / "a"
    path.write_text(content)
    file.write_bytes(b"weights")
    notes = Notes(path)
    assert notes.sha256_noted(file) is None
    notes.note_file(file)
    assert notes.looks_unchanged(file)
    assert set(json.loads(path.read_text(encoding="utf-8"))) == {"files", "licences"}


def test_no_flipped_bit_of_the_notes_makes_a_good_file_a_changed_one(tmp_path: Path) -> None:
    path, file = tmp_path / "hashes.json", tmp_path / "a"
    file.write_bytes(b"weights")
    sha256 = Notes(path).note_file(file)
    whole, chance = path.read_bytes(), random.Random(27)
    for _ in range(400):
        content = bytearray(whole)
        content[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        assert Notes(path).sha256_noted(file) in (None, sha256)
        Notes(path).looks_unchanged(file)


@pytest.mark.parametrize(
    "note",
    [
        "[" * 100_000,
        "7",
        "{}",
        '{"total": "many", "validator": ""}',
        '{"total": 1e99, "validator": ""}',
        '{"total": 900, "validator": "a\\nb"}',
        '{"total": 900, "validator": 7}',
    ],
)
def test_a_damaged_note_of_a_download_begins_it_anew(
    server: Server, target: Path, note: str
) -> None:
    url = server.serve("/net", DETECTOR)
    target.mkdir()
    part = part_path(target, "net.onnx", url)
    part.write_bytes(DETECTOR[:5])
    part.with_suffix(".json").write_text(note)
    path = weights.fetch("net", target, table=table_of(url))
    assert path.read_bytes() == DETECTOR


def test_importing_loads_nothing_heavy() -> None:
    import subprocess

    code = (
        "import sys, vidrestore.models.weights;"
        "print([m for m in ('torch', 'av', 'cv2', 'insightface') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("platform", "module", "name"),
    [("win32", "windows", "Windows"), ("darwin", "macos", "MacOS"), ("linux", "unix", "Unix")],
)
def test_the_variable_that_moves_the_caches_does_so(tmp_path, monkeypatch, platform, module, name):
    """By the library's own class for each system."""
    for each in ("win32", "darwin"):
        monkeypatch.delenv(cache_variable(each), raising=False)
    folder = "C:\\caches" if platform == "win32" else str(tmp_path)
    monkeypatch.setenv(cache_variable(platform), folder)
    kind = getattr(importlib.import_module(f"platformdirs.{module}"), name)
    assert kind("vidrestore", appauthor=False).user_cache_dir.startswith(folder)

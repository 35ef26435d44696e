"""Weights as people own them: in every place, under every name, in every form, always the same."""

import argparse
import os
import pickle
import threading
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import gpen_formula as formula
from helpers.weights_server import onnx_bytes
from safetensors.torch import save_file
from torch import Tensor, nn

from vidrestore.common.errors import WeightsError
from vidrestore.models import weights
from vidrestore.models.gpen.checkpoint import export_onnx, load_checkpoint, load_gpen
from vidrestore.models.gpen.network import GPEN, GPENConfig
from vidrestore.models.known_networks import identified
from vidrestore.models.weight_file import read_checkpoint

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def gpen() -> GPEN:
    """A GPEN of 16 px whose weights are those of a formula."""
    gpen = GPEN(16, style_dim=16, n_mlp=2, narrow=1 / 32)
    shapes = {key: list(value.shape) for key, value in gpen.state_dict().items()}
    gpen.load_state_dict(formula.weights(shapes, "forms"), strict=False)
    return gpen.eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and working folder, so that nothing of this machine is found."""
    for name in ("home", "cwd"):
        (tmp_path / name).mkdir()
    for name in ("VIDRESTORE_WEIGHTS", "MODELSCOPE_CACHE", weights.MIRROR):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home/cache"))
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "home"


def arrays(state: State) -> dict[str, np.ndarray]:
    return {key: value.numpy() for key, value in state.items()}


def prefixed(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def other(state: State) -> State:
    """Weights of the same names that must not be taken."""
    return {key: value + 1 for key, value in state.items()}


# What torch.save is given.
CONTENTS: dict[str, Callable[[State], object]] = {
    "plain": lambda state: state,
    "ordered, with metadata": lambda state: OrderedDict(state),
    "without kernels": lambda state: {k: v for k, v in state.items() if ".kernel" not in k},
    "parameters": lambda state: {k: nn.Parameter(v) for k, v in state.items()},
    "g": lambda state: {"g": state, "iteration": 7},
    "model": lambda state: {"model": state},
    "generator": lambda state: {"generator": state},
    "model, then state_dict": lambda state: {"model": {"state_dict": state}},
    "averaged first": lambda state: {
        "g": other(state), "g_ema": state, "d": {"x": state["ecd0.0.1.bias"]},
    },
    "training": lambda state: {
        "g_ema": state,
        "g_optim": {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": []},
        "args": argparse.Namespace(size=16),
        "loss": np.float64(0.5),
    },
    "module.": lambda state: prefixed("module.", state),
    "two prefixes": lambda state: prefixed("g.", other(state)) | prefixed("g_ema.module.", state),
    "lightning": lambda state: {
        "epoch": 3,
        "state_dict": prefixed("netG._orig_mod.", state) | {"netD.convs.0.weight": torch.zeros(2)},
    },
    "arrays": arrays,
    "arrays below g_ema": lambda state: {"g_ema": arrays(state)},
    "arrays in the order of Fortran": lambda state: {
        key: np.asfortranarray(value) for key, value in arrays(state).items()
    },
    "arrays of the other byte order": lambda state: {
        key: value.astype(">f4") for key, value in arrays(state).items()
    },
}  # fmt: skip
FORMS = [
    *((content, ".pth", "zip") for content in CONTENTS),
    *((content, ".pth", "old") for content in ("plain", "g", "arrays", "training")),
    *(("plain", suffix, "zip") for suffix in (".pt", ".ckpt", ".bin", ".PTH", ".Bin")),
    *((content, ".safetensors", "") for content in ("plain", "module.", "two prefixes")),
    ("plain", ".onnx", ""),
]


def write(path: Path, form: tuple[str, str, str], gpen: GPEN) -> None:
    content, suffix, how = form
    made = CONTENTS[content](dict(gpen.state_dict()))
    if suffix == ".safetensors":
        save_file({key: value.contiguous().clone() for key, value in made.items()}, path)
    elif suffix == ".onnx":
        export_onnx(gpen, path)
    else:
        torch.save(made, path, _use_new_zipfile_serialization=how == "zip")


# The folder of the file; {variable} and {modelscope} stand in environment variables.
PLACES = {
    "named": "{explicit}",
    "VIDRESTORE_WEIGHTS": "{variable}",
    "working folder": "{cwd}/weights",
    "cache": "{home}/cache/vidrestore/weights",
    "ModelScope": "{home}/.cache/modelscope/hub/models/damo",
    "ModelScope of its variable": "{modelscope}/models/iic",
    "older ModelScope, damo": "{modelscope}/damo",
    "older ModelScope, iic": "{modelscope}/iic",
    "a checkout of GPEN": "{also}/weights",
    "ComfyUI": "{also}/models/facerestore_models",
    "ComfyUI in another case": "{also}/Models/FaceRestore_Models",
    "ReActor": "{also}/custom_nodes/comfyui-reactor-node/models/facerestore_models",
    "WebUI": "{also}/models/GPEN",
    "WebUI's folder of models": "{also}/GPEN",
    "FaceFusion": "{also}/.assets/models",
}
# The weight, and its name for a suffix.
NAMES = {
    "gpen-2048": ("gpen-2048", "GPEN-BFR-2048{}"),
    "another case": ("gpen-1024", "gpen-bfr-1024{}"),
    "a second copy of Chrome": ("gpen-512", "GPEN-BFR-512 (1){}"),
    "a second copy of Firefox": ("gpen-256", "gpen-bfr-256(12){}"),
}


def put(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, tuple[Path, ...]]:
    """Make the folder of a place; return it and the folders that are searched."""
    names = ("home", "cwd", "explicit", "variable", "modelscope", "also")
    below = {name: str(tmp_path / name) for name in names}
    folder = Path(PLACES[place].format(**below).replace("", ""))
    folder.mkdir(parents=True, exist_ok=True)
    if "{variable}" in PLACES[place]:
        monkeypatch.setenv("VIDRESTORE_WEIGHTS", str(folder))
    if "{modelscope}" in PLACES[place]:
        monkeypatch.setenv("MODELSCOPE_CACHE", below["modelscope"])
    explicit = folder if place == "named" else None
    return folder, weights.search_folders(explicit, [tmp_path / "also"])


@pytest.fixture(scope="module")
def written(gpen: GPEN, tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple], Path]:
    """Writes a form once."""
    folder = tmp_path_factory.mktemp("forms")

    def file(form: tuple[str, str, str]) -> Path:
        path = folder / f"{FORMS.index(form)}{form[1]}"
        if not path.exists():
            write(path, form, gpen)
        return path

    return file


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_every_file_in_every_place_and_form_is_found_and_read_bit_for_bit(
    form: tuple[str, str, str], gpen: GPEN, written: Callable[[tuple], Path], tmp_path: Path
) -> None:
    wanted, source = gpen.state_dict(), written(form)
    for place in PLACES:
        for name, pattern in NAMES.values():
            with pytest.MonkeyPatch.context() as patch:
                folder, folders = put(place, tmp_path, patch)
                file = folder / pattern.format(form[1])
                file.hardlink_to(source)
                assert weights.find(name, folders) == file, (place, name)
                file.unlink()
    config, state = load_checkpoint(source)
    assert config == gpen.config
    assert list(state) == list(wanted)
    for key, value in wanted.items():
        assert state[key].dtype == torch.float32
        assert torch.equal(state[key], value), key


@pytest.mark.parametrize(
    "form", [("arrays", ".pth", "zip"), ("two prefixes", ".safetensors", "")], ids="-".join
)
def test_a_found_file_computes_what_the_authors_network_does(
    form: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "gpen-64"
    folder, folders = put("a checkout of GPEN", tmp_path, monkeypatch)
    write(folder / f"gpen-bfr-512 (1){form[1]}", form, formula.build(name))
    found = weights.find("gpen-512", folders)
    assert found is not None
    with torch.no_grad():
        output = load_gpen(found, expected_size=64)(formula.inputs(name))
    expected = formula.expected(name)
    for key, value in formula.measured(name, output).items():
        assert formula.relative_rms(value, expected[key]) < 5e-6, key


def test_modelscope_holds_512_apart_from_the_larger_ones(home: Path) -> None:
    below = home / ".cache/modelscope/hub/damo"
    for model in ("cv_gpen_image-portrait-enhancement", "cv_gpen_image-portrait-enhancement-hires"):
        (below / model).mkdir(parents=True)
        (below / model / "pytorch_model.pt").write_bytes(b"\x80")
    folders = weights.search_folders(None)
    for name, ending in (("gpen-512", "enhancement"), ("gpen-1024", "enhancement-hires")):
        found = weights.find(name, folders)
        assert found is not None
        assert found.parent.name.endswith(ending)
    urls = weights.load_table()["gpen-512"].urls
    model = "cv_gpen_image-portrait-enhancement/resolve/master/pytorch_model.pt"
    assert any(url.endswith(model) for url in urls)


def test_the_best_name_comes_first_and_the_list_shows_the_rest(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    files = [
        first / "GPEN-BFR-512.safetensors", first / "gpen-bfr-512.pth",
        first / "GPEN-BFR-512 (1).pth", first / "GPEN-BFR-512 (10).pth",
        second / "GPEN-BFR-512.pth",
    ]  # fmt: skip
    for folder in (first, second):
        folder.mkdir()
    for file in files:
        file.write_bytes(b"\x80" + file.name.encode())
    (second / "GPEN-BFR-512.pt").hardlink_to(files[0])  # the same file again is not told of
    (first / "GPEN-BFR-512 (2).pth").mkdir()
    for name in ("GPEN-BFR-512 (x).pth", "GPEN-BFR-512.pth.part", "xGPEN-BFR-512.pth"):
        (first / name).write_bytes(b"\x80")
    (row,) = (row for row in weights.list_weights([first, second]) if row.name == "gpen-512")
    assert [row.path, *row.others] == files


# Nothing that executes


class Bomb:
    """Creates a file when unpickled carelessly."""

    def __init__(self, call: Callable, *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple:
        return self.call, self.arguments


def bombs(target: Path) -> dict[str, object]:
    state = {"ecd0.0.0.weight": torch.zeros(2)}
    command = f"touch {target}"
    return {
        "os.system": Bomb(os.system, command),
        "eval": Bomb(eval, f"open({str(target)!r}, 'w')"),
        "exec beside weights": {**state, "x": Bomb(exec, f"open({str(target)!r}, 'w')")},
        "below g_ema": {"g_ema": {**state, "x": Bomb(Path.touch, target)}},
        "in the options": {"g_ema": state, "args": argparse.Namespace(x=Bomb(os.system, command))},
        "in an array of objects": {"w": np.array([Bomb(os.system, command)], dtype=object)},
        "getattr": Bomb(getattr, Path(target), "touch"),
        "dressed as a network": SimpleNamespace(
            _parameters={}, _buffers={}, _modules={}, x=Bomb(os.system, command)
        ),
    }


@pytest.mark.parametrize("how", ["zip", "old", "bare"])
@pytest.mark.parametrize("what", bombs(Path("x")))
@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".bin"])
def test_no_file_runs_code(tmp_path: Path, what: str, how: str, suffix: str) -> None:
    target, path = tmp_path / "ran", tmp_path / f"a{suffix}"
    content = bombs(target)[what]
    if how == "bare":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(WeightsError) as refused:
        read_checkpoint(path)
    assert not target.exists()
    assert len(refused.value.lines) == 1, "a hostile file is no network to convert"


def with_pickle(path: Path, content: bytes) -> Path:
    """A zip as torch writes it, with any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", content)
        archive.writestr("a/version", "3\n")
    return path


def made_by(kind: bytes, state: bytes) -> bytes:
    """A pickle of one array in which type and state are those given."""
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
    state = state.replace(b"TYPE", kind).replace(b"NUMBER", NUMBER)
    return b"\x80\x02}U\x01w" + made + b"(K\x01" + state + b"tbs."


# Four bytes, the number 1, as NumPy writes them with protocol 2.
NUMBER = b"c_codecs\nencode\n(X\x05\0\0\0\0\0\xc2\x80?U\x06latin1tR"
F4 = b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tR"


def test_the_array_made_here_is_read(tmp_path: Path) -> None:
    path = with_pickle(tmp_path / "a.pth", made_by(F4, b"K\x01\x85TYPE\x89NUMBER"))
    assert read_checkpoint(path)["w"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("kind", "state", "message"),
    [
        (F4.replace(b"f4", b"O8"), b"K\x01\x85TYPE\x89]", "'O8' where numbers are needed"),
        (b"U\x02f4", b"K\x01\x85TYPE\x89NUMBER", "an array has no numbers"),
        (F4, b"K\x01\x85TYPE\x89K\x04", "an array has no numbers"),
        (F4, b"K\x02\x85TYPE\x89NUMBER", r"shape \(2,\) has 4 bytes"),
        (F4, b"J\xff\xff\xff\xff\x85TYPE\x89NUMBER", r"the shape \(-1,\)"),
        (F4, b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86TYPE\x89NUMBER", "has 4 bytes"),
        (F4, b"K\x01TYPE\x89NUMBER", "not iterable"),
        (F4 + b"(K\x03U\x01?tb", b"K\x01\x85TYPE\x89NUMBER", "byte order '\\?'"),
    ],
)
def test_a_hostile_array_is_refused(
    tmp_path: Path, kind: bytes, state: bytes, message: str
) -> None:
    path = with_pickle(tmp_path / "a.pth", made_by(kind, state))
    with pytest.raises(WeightsError, match=message):
        read_checkpoint(path)


def test_one_text_as_ever_so_many_arrays_takes_no_memory(tmp_path: Path) -> None:
    text = pickle.dumps(np.zeros(100_000, np.float32), protocol=2)
    entries = b"".join(f"X\x04\0\0\0{i:04}h\xc8".encode("latin-1") for i in range(1000))
    path = tmp_path / "a.pth"
    with_pickle(path, b"\x80\x02}(X\x01\0\0\0w" + text[2:-1] + b"q\xc8" + entries + b"u.")
    with pytest.raises(WeightsError, match="arrays are larger than the file"):
        read_checkpoint(path)


def test_a_dict_that_holds_itself_ends(tmp_path: Path) -> None:
    circle: dict[str, object] = {}
    circle["g"] = circle
    torch.save(circle, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_checkpoint(tmp_path / "a.pth")


def test_two_threads_read_arrays_at_once(tmp_path: Path) -> None:
    torch.save({"w": np.arange(9.0)}, tmp_path / "a.pth")
    found = []

    def read() -> None:
        for _ in range(20):
            found.append(read_checkpoint(tmp_path / "a.pth")["w"].sum().item())

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [36.0] * 80
    with pytest.raises(pickle.UnpicklingError):  # the permission is gone
        torch.load(tmp_path / "a.pth", weights_only=True)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_whole_network_is_told_with_two_lines_that_make_a_state_dict(
    tmp_path: Path, zipped: bool
) -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.PReLU())
    path = tmp_path / "it's a network.pth"
    torch.save(network, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="holds a whole network") as refused:
        read_checkpoint(path)
    _, *lines = refused.value.lines
    assert len(lines) == 2
    exec("\n".join(lines), {"torch": torch})
    state = read_checkpoint(tmp_path / "it's a network.state.pth")
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())


# What another network is called


@pytest.mark.parametrize(
    ("keys", "name", "advice"),
    [
        (["stylegan_decoder.style_mlp.1.weight", "conv_body_first.weight"], "GFPGAN", r"\.onnx"),
        (["quantize.embedding.weight", "position_emb"], "CodeFormer", r"\.onnx"),
        (["quantize.embedding.weight", "encoder.conv_in.weight"], "RestoreFormer", r"\.onnx"),
        (["encoder.0.conv2d.weight", "out_mask_conv.conv2d.bias"], "ParseNet", "paste.parser"),
        (["cp.resnet.conv1.weight", "ffm.convblk.conv.weight"], "BiSeNet", r"paste.parser.*\.onnx"),
        (["module.BboxHead.0.conv1x1.bias", "LandmarkHead.0.conv1x1.bias"], "RetinaFace", "yunet"),
        (["conv_first.weight", "body.0.rdb1.conv1.weight"], "RealESRNet", "--upscaler"),
        (["model.1.sub.0.RDB1.conv1.0.weight"], "ESRGAN", "--upscaler"),
        (["input_layer.0.weight", "body.0.res_layer.1.weight"], "IR-SE50", "training"),
        (["convs.0.0.weight", "final_conv.0.weight"], "StyleGAN2 discriminator", "training"),
        (["style.1.weight", "to_rgb1.conv.weight"], "StyleGAN2 generator", "GPEN"),
    ],
)
def test_another_network_is_called_by_its_name(
    tmp_path: Path, keys: list[str], name: str, advice: str
) -> None:
    path = tmp_path / "a.pth"
    torch.save({"params_ema": {key: torch.zeros(1) for key in keys}}, path)
    with pytest.raises(WeightsError, match=rf"a\.pth holds .*{name}.*, not a GPEN; .*{advice}"):
        load_checkpoint(path)


def test_full_generator_sr_is_called_by_its_name(tmp_path: Path) -> None:
    arguments = {"style_dim": 16, "n_mlp": 2, "narrow": 1 / 32}
    large, small = GPEN(64, **arguments).state_dict(), GPEN(16, **arguments).state_dict()
    state = {key: value for key, value in large.items() if key.startswith("generator.")}
    state |= {key: value for key, value in small.items() if not key.startswith("generator.")}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"holds FullGenerator_SR.* 64 px from faces of 16 px"):
        load_checkpoint(tmp_path / "a.pth")


def test_a_gpen_of_any_size_is_called_nothing_else() -> None:
    for size in (16, 64, 256):
        with torch.device("meta"):
            state = GPEN(size, style_dim=16, narrow=1 / 32).state_dict()
        assert identified(state) is None
        assert GPENConfig(size, 16, 8, 2, 1 / 32).size == size


# Odd files and folders


def test_files_that_cannot_be_used_are_told_of_in_one_line(gpen: GPEN, tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(WeightsError) as error:
            load_checkpoint(path)
        (line,) = error.value.lines
        return line

    path = tmp_path / "GPEN-BFR-2048 (1).PTH"
    torch.save(dict(gpen.state_dict()), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "is cut short" in refused(path)
    path.write_bytes(whole[:40])
    assert "is cut short" in refused(path)
    save_file(dict(gpen.state_dict()), path)
    assert "looks like a .safetensors file" in refused(path)
    renamed = tmp_path / "a.safetensors"
    renamed.write_bytes(whole)
    assert "looks like a .pth file" in refused(renamed)
    path.write_bytes(onnx_bytes(1))
    assert "is not a .pth file" in refused(path)
    (tmp_path / "folder.pth").mkdir()
    assert "is a folder" in refused(tmp_path / "folder.pth")


@pytest.mark.parametrize(
    "header",
    [
        b"{}", b"{", b"[]", b'{"w": 1}',
        b'{"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 0]}}',
        b'{"w": {"dtype": "X9", "shape": [0], "data_offsets": [0, 0]}}',
        b'{"w": {"dtype": "F32", "shape": [4611686018427387904, 4], "data_offsets": [0, 0]}}',
        b'{"__metadata__": {"a": "b"}}', b'{"a"' + b":{" * 60_000, b"{\xff\xff}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("said_bytes", [None, 0, 1 << 40, (1 << 64) - 1])
def test_safetensors_with_odd_headers(
    tmp_path: Path, header: bytes, said_bytes: int | None
) -> None:
    path = tmp_path / "a.safetensors"
    size = len(header) if said_bytes is None else said_bytes
    path.write_bytes(size.to_bytes(8, "little") + header)
    with pytest.raises(WeightsError, match=r"a\.safetensors") as refused:
        load_checkpoint(path)
    assert len(str(refused.value)) < 600
    assert "\n" not in str(refused.value)


def test_folders_and_links_in_the_place_of_weights(tmp_path: Path) -> None:
    (tmp_path / "GPEN-BFR-512.pth").mkdir()
    circle = tmp_path / "GPEN-BFR-256.pth"
    circle.symlink_to(tmp_path / "b.pth")
    (tmp_path / "b.pth").symlink_to(circle)
    (tmp_path / "gpen-bfr-1024 (1).pth").symlink_to(tmp_path / "b.pth")
    (tmp_path / "weights").symlink_to(tmp_path, target_is_directory=True)
    rows = {row.name: row for row in weights.list_weights([tmp_path, tmp_path / "absent"])}
    assert "is a folder" in rows["gpen-512"].message
    assert "is a link to a file that does not exist" in rows["gpen-256"].message
    assert (rows["gpen-1024"].path, rows["gpen-1024"].message) == (None, "")
    for folder in weights.search_folders(None, [tmp_path, circle, tmp_path / "b.pth"]):
        assert weights.find("gpen-512", [folder]) is None


def test_a_folder_that_cannot_be_searched_hides_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = tmp_path / ("x" * 300), tmp_path / "good"  # no system has names as long
    good.mkdir()
    (good / "gpen-bfr-512.pth").write_bytes(b"\x80")
    with caplog.at_level("DEBUG", "vidrestore"):
        assert weights.find("gpen-512", [bad, good]) == good / "gpen-bfr-512.pth"
        odd = [bad, Path("nul\0"), good / "gpen-bfr-512.pth"]
        assert weights.search_folders(None, odd) == weights.search_folders(None)
        assert weights.obstacle("gpen-512", [bad]) is None
    assert f"{bad} is not searched for weights" in caplog.text


def test_a_folder_of_ever_so_many_files_is_listed_once_for_a_weight(tmp_path: Path) -> None:
    for index in range(3000):
        (tmp_path / f"GPEN-BFR-512 {index}.pth").touch()
    (tmp_path / "gpen-bfr-512 (3).pth").touch()
    began = time.process_time()
    rows = weights.list_weights([tmp_path])
    assert time.process_time() - began < 2
    assert {row.name for row in rows if row.path is not None} == {"gpen-512"}


def test_a_zip_whose_entries_claim_to_be_huge_is_refused(gpen: GPEN, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(dict(gpen.state_dict()), path)
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    for place in (20, 24):  # the compressed and the own size of the first member
        content[entry + place : entry + place + 4] = b"\xff\xff\xff\x7f"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"a\.pth (is damaged|was not loaded)"):
        load_checkpoint(path)


NETWORKS = {
    "discriminator": {"convs.0.0.weight": torch.zeros(2), "final_conv.0.weight": torch.zeros(2)},
    "identity": {"body.0.res_layer.1.weight": torch.zeros(2)},
    "parser": {"out_mask_conv.conv2d.weight": torch.zeros(2)},
}


@pytest.mark.parametrize("name", ["gpen-512-d", "gpen-256-d", "ir-se50", "parsenet"])
def test_a_file_that_training_or_parsing_needs_is_checked_for_its_kind(
    tmp_path: Path, name: str
) -> None:
    weight = weights.load_table()[name]
    path = tmp_path / weight.file
    for kind, state in NETWORKS.items():
        torch.save({"d": state}, path)
        (checked,) = weights.verify(name, [tmp_path])
        assert (checked.state != "damaged") == (kind == weight.kind)
        if kind != weight.kind:
            assert "is another network: it holds" in checked.message
    torch.save({"w": torch.zeros(1)}, path)
    assert "it has the weights w" in weights.verify(name, [tmp_path])[0].message

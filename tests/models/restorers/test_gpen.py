"""The restorers that run networks: GPEN in each number format, and ONNX files."""

import json
import os
import random
import shutil
from fractions import Fraction

import numpy as np
import onnx
import pytest
import torch
from helpers import gpen_formula
from helpers.events import messages
from helpers.media import AS_PAINTED, analysis_of_file, mild_image, plain_track, write_video

from vidrestore.api import restore_video
from vidrestore.common.checksums import sha256_of_file, with_checksum
from vidrestore.common.errors import ConfigError, UsageError, WeightsError
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Restore
from vidrestore.media.decode import TimeRange
from vidrestore.models.factory import open_restorer
from vidrestore.models.gpen.checkpoint import export_onnx
from vidrestore.models.gpen.inference import InferenceGPEN
from vidrestore.models.restorers.gpen import Gpen, float32_result, probe_image, psnr_to_float32_db
from vidrestore.models.restorers.openvino import import_openvino, is_installed

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "GPEN-64.pth"
    torch.save(gpen_formula.build("gpen-64").state_dict(), path)
    return path


@pytest.fixture(scope="module")
def small_onnx(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "gpen-64.onnx"
    export_onnx(gpen_formula.build("gpen-64"), path)
    return path


def opened(name, notices=None, **changes):
    given = {"device": CPU, "cache_folder": None, "find_weights": lambda name: None}
    values = {"number_format": "float32", "engine": "torch", "codeformer_fidelity": 0.7}
    for key, value in changes.items():
        (given if key in given else values)[key] = value
    told = notices.append if notices is not None else lambda message: None
    return open_restorer(str(name), Restore(**values), **given, on_notice=told)


def faces(count, side=64):
    return torch.rand(count, 1, 3, side, side, generator=torch.Generator().manual_seed(count))


def test_the_restorer_gives_the_networks_own_result_in_0_to_1(small_weights):
    windows = faces(2)
    wanted = gpen_formula.build("gpen-64")(windows[:, 0] * 2 - 1) / 2 + 0.5
    got = opened(small_weights)(windows)
    torch.testing.assert_close(got, wanted.clamp(0, 1), atol=1e-5, rtol=0)
    assert got.min() >= 0
    assert got.max() <= 1


def pictures_weights(folder):
    """Formula weights whose output spreads as pictures do; as they are it is five times as wide."""
    state = gpen_formula.build("gpen-64").state_dict()
    for key in state:
        if ".to_rgb" in key and key.endswith("conv.weight"):
            state[key] = state[key] * 0.25
    path = folder / "pictures.pth"
    torch.save(state, path)
    return path


@pytest.mark.parametrize(("number_format", "tolerance"), [("float32", 1e-5), ("bfloat16", 1 / 255)])
def test_a_batch_is_its_faces_one_by_one(tmp_path, number_format, tolerance):
    restorer = opened(pictures_weights(tmp_path), number_format=number_format)
    windows = faces(5)
    alone = torch.cat([restorer(w[None]) for w in windows])
    assert 0.1 < alone.std() < 0.4
    torch.testing.assert_close(restorer(windows), alone, atol=tolerance, rtol=0)


def test_a_face_without_a_finite_result_runs_in_float32_and_that_is_said_once(small_weights):
    notices = []
    restorer = opened(small_weights, notices, number_format="bfloat16")
    exact = opened(small_weights)(faces(2))
    broken = restorer._network

    def overflowing(image):
        result = broken(image)
        result[0] = float("inf")
        return result

    restorer._network = overflowing
    for _ in range(2):
        torch.testing.assert_close(restorer(faces(2))[0], exact[0], atol=1e-5, rtol=0)
    assert len(notices) == 1
    assert "float32" in notices[0]
    restorer._exact = overflowing  # now float32 has no answer either
    result = restorer(faces(2))
    assert result[0].isnan().all()
    assert result[1].isfinite().all()


def test_float16_is_measured_before_it_is_chosen():
    gpen = gpen_formula.build("gpen-64")
    half = InferenceGPEN(gpen, torch.float16)
    assert psnr_to_float32_db(half, float32_result(gpen)) > 60
    with torch.no_grad():
        gpen.generator.to_rgb1.conv.weight *= 1e30  # beyond what float16 can hold
    half = InferenceGPEN(gpen, torch.float16)
    assert psnr_to_float32_db(half, float32_result(gpen)) < 60
    assert probe_image(64).abs().max() <= 1


IS_FASTER = "vidrestore.models.restorers.gpen.is_faster_than_openvino"


def test_auto_is_torch_where_it_is_faster(small_weights, tmp_path, monkeypatch):
    monkeypatch.setattr("vidrestore.models.restorers.openvino.is_installed", lambda: True)
    monkeypatch.setattr(IS_FASTER, lambda dtype: dtype == torch.float32)
    folder = tmp_path / "cache"
    found = opened(small_weights, engine="auto", number_format="float32", cache_folder=folder)
    assert found.engine == "torch"
    assert not folder.exists()


def needs_openvino():
    if not is_installed():
        pytest.skip("the extra openvino is not installed")


@pytest.mark.long
def test_openvino_is_measured_kept_in_a_cache_and_refused_where_it_differs(
    small_weights, tmp_path, monkeypatch
):
    needs_openvino()
    monkeypatch.setattr(IS_FASTER, lambda dtype: False)
    how = {"engine": "auto", "number_format": "auto", "cache_folder": tmp_path / "cache"}
    windows = faces(3)
    notices = []
    first = opened(small_weights, notices, **how)
    assert first.engine == "openvino"
    assert len(notices) == 1
    assert "once" in notices[0]
    exact = opened(small_weights)(windows)
    assert -10 * torch.log10((first(windows) - exact).square().mean()) > 38
    (blob,) = (tmp_path / "cache").glob("*.blob")
    assert len(list((tmp_path / "cache").iterdir())) == 3  # with its note and the lock
    written = blob.stat().st_mtime_ns
    again = opened(small_weights, notices, **how)
    assert blob.stat().st_mtime_ns == written
    assert len(notices) == 1
    torch.testing.assert_close(again(windows), first(windows))
    with pytest.raises(WeightsError, match="64 px where one for 512 px"):
        opened("gpen-512", find_weights=lambda name: small_weights, **how)
    other = gpen_formula.build("gpen-64").state_dict()
    other["generator.to_rgb1.bias"] += 1
    state = small_weights.stat()
    replaced = tmp_path / "GPEN-64.pth"  # another network, but OpenVINO's old one is there
    torch.save(other, replaced)
    assert replaced.stat().st_size == state.st_size
    os.utime(replaced, ns=(state.st_mtime_ns, state.st_mtime_ns))
    changed = opened(replaced, **how)
    assert len(list((tmp_path / "cache").glob("*.blob"))) == 2
    assert blob.stat().st_mtime_ns == written
    assert not torch.allclose(changed(windows), first(windows), atol=0.05)


@pytest.fixture(scope="module")
def compiled(small_weights, small_onnx, tmp_path_factory):
    """A folder with what OpenVINO made of the small weights, and three faces from it."""
    needs_openvino()
    folder = tmp_path_factory.mktemp("compiled")
    with pytest.MonkeyPatch.context() as patch:
        export_is_a_copy_of(small_onnx, patch)
        restorer = opened(small_weights, engine="openvino", cache_folder=folder)
    return folder, restorer(faces(3))


def export_is_a_copy_of(path, monkeypatch):
    """Exporting takes most of the time of compiling a small network."""
    name = "vidrestore.models.restorers.openvino.export_onnx"
    monkeypatch.setattr(name, lambda gpen, target: shutil.copy(path, target))


def copy_of(folder, target):
    shutil.copytree(folder, target)
    (blob,) = target.glob("*.blob")
    (note,) = target.glob("*.json")
    return blob, note


def flip(path, place, bit=0):
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def blank(path):
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 65536] = bytes(65536)
    path.write_bytes(content)


COMPILED_DAMAGES = {
    "64 kB of zeros": lambda blob, note: blank(blob),
    "a cut network": lambda blob, note: blob.write_bytes(blob.read_bytes()[:-5000]),
    "an empty network": lambda blob, note: blob.write_bytes(b""),
    "no network": lambda blob, note: blob.unlink(),
    "a folder for a network": lambda blob, note: (blob.unlink(), blob.mkdir()),
    "an empty note": lambda blob, note: note.write_text(""),
    "a nested note": lambda blob, note: note.write_text("[" * 100_000),
    "a note of another kind": lambda blob, note: note.write_text("[7]"),
    "a note without end": lambda blob, note: note.write_text(note.read_text()[:-9]),
    "a note that is no text": lambda blob, note: note.write_bytes(b"\xff\xfe"),
    "an edited side": lambda blob, note: edit(note, size=128),
    "an infinite side": lambda blob, note: edit(note, size=float("inf")),
    "an edited measure": lambda blob, note: edit(note, psnr_db=99.0),
    "a measure that is a text": lambda blob, note: edit(note, psnr_db="good"),
    "another hash": lambda blob, note: edit(note, sha256="0" * 64),
    "another key": lambda blob, note: edit(note, more=1),
    "another version": lambda blob, note: edit(note, openvino="2020.1"),
}


def edit(note, **changes):
    note.write_text(json.dumps(json.loads(note.read_text()) | changes))


def kept_at(folder, weights):
    from vidrestore.models.restorers.openvino import OpenVinoCache

    return OpenVinoCache(folder, weights.stem, sha256_of_file(weights), str(torch.float32))


@pytest.mark.parametrize("what", COMPILED_DAMAGES)
def test_a_damaged_compiled_network_is_not_used(compiled, small_weights, tmp_path, what):
    from vidrestore.models.restorers.openvino import UnusableError

    blob, note = copy_of(compiled[0], tmp_path / "cache")
    assert kept_at(tmp_path / "cache", small_weights).load() is not None
    COMPILED_DAMAGES[what](blob, note)
    with pytest.raises(UnusableError):
        kept_at(tmp_path / "cache", small_weights).load()


IMPOSSIBLE = {
    "a measure that is no number": {"psnr_db": float("nan")},
    "an infinite measure": {"psnr_db": float("inf")},
    "a measure that is a text": {"psnr_db": "60"},
    "no measure": {"psnr_db": None},
    "a side below zero": {"size": -64},
    "no side": {"size": 0},
    "half a side": {"size": 64.5},
    "a side of thousands of digits": {"size": 10**4000},
    "a side that is a switch": {"size": True},
    "a hash that is none": {"sha256": "sha256"},
    "a version that is none": {"openvino": 2026},
    "another key": {"more": 1},
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_a_note_of_a_compiled_network_whose_checksum_was_computed_anew_is_checked_too(
    compiled, small_weights, tmp_path, what
):
    from vidrestore.models.restorers.openvino import UnusableError

    _, note = copy_of(compiled[0], tmp_path / "cache")
    fields = json.loads(note.read_text())
    del fields["sum"]
    note.write_text(json.dumps(with_checksum(fields | IMPOSSIBLE[what])))
    with pytest.raises(UnusableError, match="is damaged"):
        kept_at(tmp_path / "cache", small_weights).load()
    note.write_text(json.dumps(with_checksum(fields)))
    assert kept_at(tmp_path / "cache", small_weights).load() is not None


@pytest.mark.parametrize("psnr_db", [float("inf"), -float("inf")])
def test_a_network_that_is_infinitely_near_or_far_is_noted(tmp_path, psnr_db):
    from vidrestore.models.restorers.openvino import OpenVinoCache

    kept = OpenVinoCache(tmp_path, "net", "0" * 64, str(torch.float32))
    kept.keep(b"a network", 64, psnr_db)
    found = kept.load()
    assert found is not None
    assert found[0].psnr_db == (999 if psnr_db > 0 else -999)


def test_no_flipped_bit_of_a_compiled_network_or_its_note_is_used(
    compiled, small_weights, tmp_path
):
    from vidrestore.models.restorers.openvino import UnusableError

    blob, note = copy_of(compiled[0], tmp_path / "cache")
    chance, kept = random.Random(24), kept_at(tmp_path / "cache", small_weights)
    for path, times in ((blob, 20), (note, 200)):
        whole = path.read_bytes()
        for _ in range(times):
            flip(path, chance.randrange(len(whole)), chance.randrange(8))
            with pytest.raises(UnusableError):
                kept.load()
            path.write_bytes(whole)
    assert kept.load() is not None


@pytest.mark.parametrize("part", ["network", "version"])
def test_a_damaged_compiled_network_is_compiled_anew_once_and_that_is_said(
    compiled, small_weights, small_onnx, tmp_path, monkeypatch, part
):
    export_is_a_copy_of(small_onnx, monkeypatch)
    folder, wanted = compiled
    blob, note = copy_of(folder, tmp_path / "cache")
    if part == "version":
        fields = json.loads(note.read_text()) | {"openvino": "2020.1"}
        del fields["sum"]
        note.write_text(json.dumps(with_checksum(fields)))
    else:
        flip(blob, blob.stat().st_size // 2)
    (tmp_path / "cache" / "left.part").write_bytes(b"by a killed run")
    (tmp_path / "cache" / "graph.part").mkdir()
    (tmp_path / "cache" / "graph.part" / "gpen.onnx").write_bytes(b"by another")
    notices = []
    how = {"engine": "openvino", "cache_folder": tmp_path / "cache"}
    torch.testing.assert_close(opened(small_weights, notices, **how)(faces(3)), wanted)
    assert len(notices) == 1
    assert "vidrestore compiles and measures it again" in notices[0]
    assert ("2020.1" in notices[0]) == (part == "version")
    torch.testing.assert_close(opened(small_weights, notices, **how)(faces(3)), wanted)
    assert len(notices) == 1
    assert not list((tmp_path / "cache").glob("*.part"))


def test_a_compiled_network_in_the_place_of_another_is_not_used(compiled, small_weights, tmp_path):
    from vidrestore.models.restorers.openvino import OpenVinoCache, UnusableError

    blob, note = copy_of(compiled[0], tmp_path / "cache")
    other = OpenVinoCache(tmp_path / "cache", small_weights.stem, "0" * 64, str(torch.float32))
    other.keep(b"another network", 64, 60.0)
    (of_other,) = set((tmp_path / "cache").glob("*.json")) - {note}
    shutil.copy(blob, of_other.with_suffix(".blob"))
    shutil.copy(note, of_other)
    with pytest.raises(UnusableError, match="another network"):
        other.load()
    assert kept_at(tmp_path / "cache", small_weights).load() is not None


def test_an_engine_that_fails_gives_way_to_torch_or_is_one_sentence(
    compiled, small_weights, tmp_path, monkeypatch
):
    def fails(*arguments):
        raise RuntimeError("Exception from src/core.cpp\nmore of it")

    monkeypatch.setattr(import_openvino().Core, "read_model", fails)
    monkeypatch.setattr("vidrestore.models.restorers.openvino.export_onnx", lambda gpen, path: None)
    monkeypatch.setattr(IS_FASTER, lambda dtype: False)
    notices = []
    found = opened(small_weights, notices, engine="auto", cache_folder=tmp_path)
    assert found.engine == "torch"
    assert "torch runs the network" in notices[-1]
    with pytest.raises(WeightsError, match=r"cannot run GPEN-64\.pth: OpenVINO reports Exc") as no:
        opened(small_weights, engine="openvino", cache_folder=tmp_path)
    assert "\n" not in str(no.value)
    assert [path.name for path in tmp_path.iterdir()] == [".openvino.lock"]


def test_an_engine_that_is_missing_is_said(small_weights, monkeypatch):
    monkeypatch.setattr("vidrestore.models.restorers.openvino.is_installed", lambda: False)
    assert opened(small_weights, engine="auto").engine == "torch"
    with pytest.raises(UsageError, match=r"pip install 'vidrestore\[openvino\]'"):
        opened(small_weights, engine="openvino")


def test_an_onnx_that_holds_the_weights_runs_as_the_exact_network(small_onnx):
    notices = []
    restorer = opened(small_onnx, notices)
    assert isinstance(restorer, Gpen)
    assert restorer.size == 64
    assert "exact network" in notices[0]


def test_the_networks_own_onnx_agrees_through_onnxruntime(small_onnx, small_weights):
    from vidrestore.models.restorers.onnx import Onnx

    through = Onnx(small_onnx, device=CPU, fidelity=0.7)
    assert through.size == 64
    assert through.template == "gpen"
    torch.testing.assert_close(
        through(faces(3)), opened(small_weights)(faces(3)), atol=1e-4, rtol=0
    )


class OtherNetwork(torch.nn.Module):
    """Brightens by a tenth of the fidelity weight: a CodeFormer in its calling only."""

    def forward(self, image, weight):
        return image + weight.to(image.dtype) * 0.1


def exported(path, batch=1, side=32, weight=True):
    image = torch.zeros(batch, 3, side, side)
    model, arguments = OtherNetwork(), (image, torch.tensor(0.5, dtype=torch.float64))
    if not weight:
        model, arguments = torch.nn.Conv2d(3, 3, 1), (image,)
    torch.onnx.export(model, arguments, str(path), dynamo=False, input_names=["x", "w"])
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_another_network_runs_through_onnxruntime_one_face_at_a_time(tmp_path):
    notices = []
    restorer = opened(exported(tmp_path / "codeformer.onnx"), notices)
    assert notices[0] == "codeformer.onnx runs through onnxruntime"
    assert [notice for notice in notices[1:] if "align.template" not in notice] == []
    assert restorer.template == "ffhq"
    windows = faces(3, 32) * 0.8
    torch.testing.assert_close(restorer(windows), windows[:, 0] + 0.07 / 2, atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_files_that_are_no_face_restorer_are_refused_in_one_sentence(tmp_path):
    odd = exported(tmp_path / "odd.onnx", side=48, weight=False)
    with pytest.raises(WeightsError, match="power of two"):
        opened(odd)
    text = tmp_path / "text.onnx"
    text.write_text("<html>not here</html>")
    with pytest.raises(WeightsError, match=r"text\.onnx"):
        opened(text)
    with pytest.raises(WeightsError, match="does not exist"):
        opened(tmp_path / "absent.pth")
    with pytest.raises(ConfigError, match="did you mean gpen-2048"):
        opened("gpen2048")


def graph(path, *nodes, gives=("B", 3, 32, 32), takes=("B", 3, 32, 32), weights=()):
    """An ONNX file that does `nodes`, each (operation, inputs, outputs, attributes), to `x`."""
    value, floats = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    made = [onnx.helper.make_node(kind, ins, outs, name=f"node{i}", **how)
            for i, (kind, ins, outs, how) in enumerate(nodes)]  # fmt: skip
    last = nodes[-1][2][0]
    inputs = [value("x", floats, takes)] if takes else []
    tensors = [onnx.numpy_helper.from_array(a, name) for name, a in dict(weights).items()]
    whole = onnx.helper.make_graph(made, "g", inputs, [value(last, floats, gives)], tensors)
    model = onnx.helper.make_model(
        whole, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=9
    )
    onnx.save(model, path)
    return path


SCALE = (("Mul", ["x", "a"], ["m"], {}), ("Add", ["m", "b"], ["y"], {}))


def numbers(**values):
    return {name: np.array(value, np.float32) for name, value in values.items()}


@pytest.mark.parametrize(
    ("factor", "summand", "said"),
    [(1, 0, None), (0.5, 0.5, "[0, 1]"), (127.5, 127.5, "[0, 255]"), (1.3, -0.1, None)],
)
def test_an_onnx_whose_result_is_in_another_range_is_adapted(tmp_path, factor, summand, said):
    path = graph(tmp_path / "net.onnx", *SCALE, weights=numbers(a=factor, b=summand))
    notices = []
    restorer = opened(path, notices)
    windows = faces(3, 32)
    wanted = windows[:, 0] if said else ((2 * windows[:, 0] - 1) * factor + summand + 1) / 2
    torch.testing.assert_close(restorer(windows), wanted.clamp(0, 1), atol=1e-5, rtol=0)
    assert [said in notice for notice in notices if "; vidrestore converts it" in notice] == (
        [True] if said else []
    )


def test_an_onnx_whose_channels_come_last_is_adapted(tmp_path):
    turn = ("Transpose", ["x"], ["y"], {"perm": [0, 2, 3, 1]})
    notices = []
    restorer = opened(graph(tmp_path / "net.onnx", turn, gives=("B", 32, 32, 3)), notices)
    windows = faces(3, 32)
    torch.testing.assert_close(restorer(windows), windows[:, 0], atol=1e-5, rtol=0)
    assert sum("last axis" in notice for notice in notices) == 1


def test_of_several_outputs_the_first_picture_is_taken(tmp_path):
    path = graph(tmp_path / "net.onnx", ("Identity", ["x"], ["y"], {}))
    model = onnx.load(path)
    mean = onnx.helper.make_tensor_value_info("mean", onnx.TensorProto.FLOAT, ["B", 1, 32, 32])
    model.graph.node.append(onnx.helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1]))
    model.graph.output.insert(0, mean)
    onnx.save(model, path)
    notices = []
    windows = faces(2, 32)
    torch.testing.assert_close(opened(path, notices)(windows), windows[:, 0], atol=1e-5, rtol=0)
    assert any("y is used" in notice for notice in notices)


REFUSED = {
    "one channel": (
        [("ReduceMean", ["x"], ["y"], {"axes": [1]})], {}, r"to \(1, 1, 32, 32\); a face"),
    "no picture": (
        [("ReduceMean", ["x"], ["y"], {"axes": [2, 3]})], {}, r"to \(1, 3, 1, 1\); a face"),
    "another side": (
        [("MaxPool", ["x"], ["y"], {"kernel_shape": [2, 2], "strides": [2, 2]})],
        {}, r"to \(1, 3, 16, 16\); a face"),
    "no numbers": (
        [("Mul", ["x", "a"], ["m"], {}), ("Log", ["m"], ["y"], {})],
        {"a": -1.0}, "no finite result"),
    "flat": (SCALE, {"a": 0.0, "b": 0.25}, "values from 0.25 to 0.25"),
    "no range": (SCALE, {"a": 900.0, "b": 0.0}, r"values from -8\d\d"),
    "a failing graph": (
        [("Reshape", ["x", "s"], ["y"], {})], {"s": None}, "cannot be run"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_an_onnx_that_gives_no_face_is_refused_when_it_is_opened(tmp_path, what):
    nodes, values, reason = REFUSED[what]
    weights = {name: np.array([7, 7] if value is None else value,
                              np.int64 if value is None else np.float32)
               for name, value in values.items()}  # fmt: skip
    path = graph(tmp_path / "net.onnx", *nodes, gives=None, weights=weights)
    with pytest.raises(WeightsError, match=reason) as refused:
        opened(path)
    assert "\n" not in str(refused.value)


def test_an_onnx_without_inputs_is_one_sentence(tmp_path):
    picture = np.zeros((1, 3, 32, 32), np.float32)
    path = graph(
        tmp_path / "net.onnx", ("Identity", ["c"], ["y"], {}), takes=None, weights={"c": picture}
    )
    with pytest.raises(WeightsError, match=r"net\.onnx takes no input"):
        opened(path)


def flattened(path, rows):
    """A graph that leaves the number of faces open, and then counts on one."""
    shapes = {"s": np.array(rows, np.int64), "t": np.array([-1, 3, 32, 32], np.int64)}
    return graph(path, ("Reshape", ["x", "s"], ["m"], {}), ("Softsign", ["m"], ["n"], {}),
                 ("Reshape", ["n", "t"], ["y"], {}), weights=shapes)  # fmt: skip


def test_an_onnx_whose_batch_is_open_and_fixed_inside_runs_face_by_face(tmp_path, capfd):
    notices = []
    restorer = opened(flattened(tmp_path / "net.onnx", [1, 3072]), notices)
    assert sum("one face at a time" in notice for notice in notices) == 1
    assert capfd.readouterr().err == ""
    windows = faces(3, 32)
    signed = windows[:, 0] * 2 - 1
    wanted = (signed / (1 + signed.abs()) + 1) / 2
    torch.testing.assert_close(restorer(windows), wanted, atol=1e-5, rtol=0)
    notices.clear()
    opened(flattened(tmp_path / "open.onnx", [-1, 3072]), notices)
    assert not any("one face at a time" in notice for notice in notices)


def test_an_onnx_that_mixes_the_faces_of_a_batch_runs_face_by_face(tmp_path):
    mean = ("ReduceMean", ["x"], ["m"], {"axes": [0]})
    path = graph(tmp_path / "net.onnx", mean, ("Add", ["x", "m"], ["y"], {}))
    restorer = opened(path)
    windows = faces(3, 32)
    alone = torch.cat([restorer(window[None]) for window in windows])
    torch.testing.assert_close(restorer(windows), alone, atol=1e-6, rtol=0)


def without_names(source, target):
    """As some exporters write it: neither weights nor nodes have names of their own."""
    model = onnx.load(source)
    names = {each.name: f"onnx::Conv_{i}" for i, each in enumerate(model.graph.initializer)}
    for each in model.graph.initializer:
        each.name = names[each.name]
    for i, node in enumerate(model.graph.node):
        node.name = f"node_{i}"
        node.input[:] = [names.get(name, name) for name in node.input]
    onnx.save(model, target)
    return target


def renamed_weights(source, target, old, new):
    model = onnx.load(source)
    for each in model.graph.initializer:
        each.name = each.name.replace(old, new)
    for node in model.graph.node:
        node.input[:] = [name.replace(old, new) for name in node.input]
    onnx.save(model, target)
    return target


@pytest.mark.parametrize("name", ["net.onnx", "gpen-64.onnx", "gfpgan.onnx"])
def test_the_template_of_an_onnx_comes_from_its_graph_whatever_it_is_called(
    small_onnx, tmp_path, name
):
    notices = []
    # Not the exact network any more, but its encoder keeps the names.
    gpen = renamed_weights(small_onnx, tmp_path / name, "generator.input.input", "constant")
    restorer = opened(gpen, notices)
    assert not isinstance(restorer, Gpen)
    assert restorer.template == "gpen"
    other = graph(tmp_path / name, ("Add", ["x", "stylegan_decoder.bias"], ["y"], {}),
                  weights={"stylegan_decoder.bias": np.zeros(1, np.float32)})  # fmt: skip
    assert opened(other, notices).template == "ffhq"
    assert not any("align.template" in notice for notice in notices)


def test_a_template_that_no_name_in_the_graph_tells_is_said(small_onnx, tmp_path):
    notices = []
    assert opened(without_names(small_onnx, tmp_path / "a.onnx"), notices).template == "ffhq"
    assert "align.template" in notices[-1]
    assert opened(without_names(small_onnx, tmp_path / "GPEN.onnx"), notices).template == "gpen"
    assert "since the file's name contains it" in notices[-1]
    notices.clear()
    path = without_names(small_onnx, tmp_path / "mine.onnx")
    with pytest.raises(WeightsError, match="faces of 64 px, but its name stands for 512 px"):
        opened("gpen-512", notices, find_weights=lambda name: path)
    assert not any("align.template" in notice for notice in notices)


def test_another_size_than_the_name_says_is_refused(small_weights):
    with pytest.raises(WeightsError, match=r"64 px where one for 512 px"):
        opened("gpen-512", find_weights=lambda name: small_weights)


def test_a_clip_goes_through_the_network_in_batches_of_the_asked_size(small_weights, tmp_path):
    images = [mild_image(160, 120, "yuv420p", i) for i in range(7)]
    source = write_video(tmp_path / "source.mkv", images, time_base=Fraction(1, 1000),
                         pts=[40 * i for i in range(7)])  # fmt: skip
    restorer = opened(small_weights)
    network, sizes = restorer._network, []

    def counted(image):
        sizes.append(len(image))
        return network(image)

    restorer._network = counted
    tracks = [plain_track(7, centre=(50, 50), side=60.0),
              plain_track(7, centre=(110, 60), side=50.0, track_id=1)]  # fmt: skip
    summary = restore_video(
        source,
        tmp_path / "out.mkv",
        load_settings(options=AS_PAINTED | {"encode.codec": "ffv1", "restore.batch_size": 4}),
        restorer=restorer,
        analysis=analysis_of_file(source, tracks),
    )
    assert summary.faces == 14
    assert sizes == [4, 4, 4, 2]


@pytest.mark.long
def test_four_frames_of_a_real_clip_through_gpen_2048(shared, tmp_path):
    torch.save(gpen_formula.build("gpen-2048").state_dict(), tmp_path / "GPEN-BFR-2048.pth")
    source = shared / "clips" / "lp_s18.mp4"
    target = tmp_path / "out.mp4"
    notices = []
    summary = restore_video(
        source,
        target,
        load_settings(
            # Without AS_PAINTED the paste keeps the picture, which formula weights contradict.
            options=AS_PAINTED
            | {
                "weights.folder": tmp_path,
                "weights.also": (shared / "models",),
                "weights.offline": True,
                "detect.detector": "yunet",
                "restore.restorer": "gpen-2048",
                "restore.batch_size": 2,
            }
        ),
        span=TimeRange(Fraction(0), Fraction(4, 30)),
        on_event=lambda event: notices.extend(messages([event])),
    )
    assert summary.frames == summary.faces == 4
    assert not summary.skipped
    assert any("non-commercial" in notice for notice in notices)
    from helpers.media import frame_times

    from vidrestore.imaging import color
    from vidrestore.media.decode import DecodeErrors, decode

    assert frame_times(target) == [t - frame_times(source)[0] for t in frame_times(source)[:4]]
    before = [f.image for f in decode(source, DecodeErrors(), TimeRange(None, Fraction(4, 30)))]
    after = [f.image for f in decode(target, DecodeErrors())]
    for a, b in zip(before, after, strict=True):
        change = np.abs(color.plane(a, 0).astype(int) - color.plane(b, 0))
        assert change[120:320, 680:860].mean() > 20  # formula weights paint a dark pattern
        assert change[:, :300].mean() < 2

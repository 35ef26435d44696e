"""`--upscaler`: the background through a network, in tiles that nobody sees."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnx
import pytest
import torch
from helpers.media import (
    AS_PAINTED,
    Painter,
    analysis_of_file,
    info_of,
    mild_image,
    plain_track,
    planes_of,
    write_video,
)
from helpers.onnx_networks import repeating

from vidrestore.api import restore_video
from vidrestore.common.errors import UsageError, WeightsError
from vidrestore.common.profiles import load_settings
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.models import upscaler
from vidrestore.models.face_parser import Parser
from vidrestore.models.upscaler import Upscaler
from vidrestore.restoration.upscaling import Scaler, scaled_info

CPU = torch.device("cpu")
ANIME = "models/realesr-animevideov3.onnx"


def noise(height: int, width: int) -> Any:
    rng = np.random.default_rng(3)
    coarse = rng.random((3, height // 4 + 1, width // 4 + 1)).repeat(4, axis=1).repeat(4, axis=2)
    return (0.8 * coarse[:, :height, :width] + 0.2 * rng.random((3, height, width))).astype("f4")


@pytest.mark.long
def test_tiles_are_the_whole(shared, monkeypatch):
    network = Upscaler(shared / ANIME, device=CPU)
    assert network.factor == 4
    picture = noise(100, 140)
    whole = network(picture, 4)
    monkeypatch.setattr(upscaler, "_TILE_PX", 96)
    tiled = network(picture, 4)
    assert whole.shape == tiled.shape == (3, 400, 560)
    assert np.abs(tiled - whole).max() < 1 / 255
    halved = network(picture, 2)
    by_area = tiled.reshape(3, 200, 2, 280, 2).mean(axis=(2, 4))
    # Where black and white cut it off, it matters at which size they do.
    assert np.abs(halved - by_area).mean() < 0.2 / 255


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_broad_colours_stay_where_the_network_shifts_them(shared, level):
    network = Upscaler(shared / ANIME, device=CPU)
    flat = np.full((3, 48, 48), level, np.float32)
    shift = network(flat, 4).mean(axis=(1, 2)) - level
    assert np.abs(shift).max() < 0.1 / 255


@pytest.mark.parametrize("sides", [("h", "w"), (64, 48)])
def test_a_network_of_any_or_of_one_size_sees_every_pixel(tmp_path, monkeypatch, sides):
    monkeypatch.setattr(upscaler, "_TILE_PX", 64)
    network = Upscaler(repeating(tmp_path / "net.onnx", 2, sides), device=CPU)
    for height, width in ((150, 131), (40, 300), (7, 5)):
        picture = noise(height, width)
        expected = picture.repeat(2, axis=1).repeat(2, axis=2)
        np.testing.assert_allclose(network(picture, 2), expected, atol=1e-6)


@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("pixel_format", ["yuv444p", "yuv444p12le", "gbrp", "gray", "yuva420p"])
def test_what_a_network_leaves_alone_keeps_its_colours(tmp_path, pixel_format, full_range, matrix):
    info = info_of(50, 38, pixel_format, matrix=matrix, full_range=full_range)
    network = Upscaler(repeating(tmp_path / "net.onnx", 2), device=CPU)
    image = mild_image(50, 38, pixel_format, 5)
    larger = Scaler(info, scaled_info(info, 2), network)(image)
    for index, (was, now) in enumerate(zip(planes_of(image), planes_of(larger), strict=True)):
        if "420" not in pixel_format:
            assert np.array_equal(now, was.repeat(2, axis=0).repeat(2, axis=1))
        elif index < 3:
            # Chroma is interpolated at each pixel and taken back: as a whole it stays.
            assert abs(now.mean() - was.mean()) < 0.2


@pytest.mark.parametrize("aspect", [Fraction(1), Fraction(16, 15), Fraction(8, 9)])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p10le"])
def test_a_constant_colour_is_the_same_code_values(tmp_path, pixel_format, aspect):
    info = info_of(51, 37, pixel_format, sample_aspect_ratio=aspect)
    image = av.VideoFrame(51, 37, pixel_format)
    step = 2 ** (info.bit_depth - 8)
    for plane, code in zip(image.planes, (120, 100, 150), strict=True):
        np.frombuffer(plane, np.uint8 if step == 1 else np.uint16)[...] = code * step + step // 2
    network = Upscaler(repeating(tmp_path / "net.onnx", 4), device=CPU)
    for factor in (2, 4):
        larger = Scaler(info, scaled_info(info, factor), network)(image)
        assert (larger.width, larger.height) == (2 * round(51 * aspect * factor / 2), 37 * factor)
        for plane, code in zip(planes_of(larger), (120, 100, 150), strict=True):
            assert (plane == code * step + step // 2).all()


def test_a_video_through_a_network(tmp_path):
    images = [mild_image(64, 48, "yuv420p", i) for i in range(60)]
    source = write_video(tmp_path / "source.mkv", images)
    network = repeating(tmp_path / "net.onnx", 2)
    face = plain_track(6, centre=(31.5, 23.5), side=30, first_frame=28, work_px=32)
    found = []
    for name, segment_frames in (("whole.mkv", 300), ("parts.mkv", 48)):
        options = AS_PAINTED | {
            "encode.codec": "ffv1", "scale.factor": 2, "scale.upscaler": network,
            "job.segment_frames": segment_frames,
        }  # fmt: skip
        settings, analysis = load_settings(options=options), analysis_of_file(source, [face])
        summary = restore_video(
            source, tmp_path / name, settings, restorer=Painter(), analysis=analysis
        )
        assert summary.faces == 6
        assert summary.identical_frames is None
        assert any("so samples were not compared" in said for said in summary.warnings)
        found.append([planes_of(f.image) for f in decode(tmp_path / name, DecodeErrors())])
    for image, one, other in zip(images, *found, strict=True):
        assert all(map(np.array_equal, one, other))
        luma, was = one[0].astype(int), planes_of(image)[0].repeat(2, axis=0).repeat(2, axis=1)
        assert np.abs(luma - was)[:8].max() <= 1


@pytest.mark.parametrize(
    ("factor", "wanted", "kind", "said"),
    [
        (2, 4, UsageError, "enlarges 2 times; use --scale 2"),
        (3, 2, WeightsError, r"maps \(1, 3, 64, 64\) to \(1, 3, 192, 192\)"),
        (1, 2, WeightsError, "2 or 4 times as wide and high"),
        (0, 2, WeightsError, "cannot be loaded as an ONNX network"),
    ],
)
def test_a_network_that_does_not_serve_is_refused(tmp_path, factor, wanted, kind, said):
    source = write_video(tmp_path / "source.mkv", [mild_image(64, 48, "yuv420p", 0)])
    network = tmp_path / "net.onnx"
    repeating(network, factor) if factor else network.write_bytes(b"no network")
    settings = load_settings(options={"scale.factor": wanted, "scale.upscaler": network})
    with pytest.raises(kind, match=said):
        restore_video(source, tmp_path / "out.mkv", settings, restorer=Painter())


@pytest.mark.parametrize(("factor", "summand"), [(255, 0), (2, -1), (1, float("nan"))])
def test_a_network_that_gives_another_range_is_refused(
    tmp_path: Path, factor: float, summand: float
) -> None:
    path = repeating(tmp_path / "net.onnx", 2)
    model = onnx.load(path)
    (node,) = model.graph.node
    output, node.output[0] = node.output[0], "large"
    for name, value in (("a", factor), ("b", summand)):
        tensor = onnx.numpy_helper.from_array(np.array(value, np.float32), name)
        model.graph.initializer.append(tensor)
    model.graph.node.append(onnx.helper.make_node("Mul", ["large", "a"], ["scaled"]))
    model.graph.node.append(onnx.helper.make_node("Add", ["scaled", "b"], [output]))
    onnx.save(model, str(path))
    with pytest.raises(WeightsError, match=r"for a ramp from 0 to 1"):
        Upscaler(path, device=CPU)


def test_neither_an_upscaler_nor_a_parser_is_without_inputs(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    value = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    tensor = onnx.numpy_helper.from_array(np.zeros(1, np.float32), "c")
    node = onnx.helper.make_node("Identity", ["c"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [], [value], [tensor])
    onnx.save(
        onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=9
        ),
        str(path),
    )
    for opened in (
        lambda: Upscaler(path, device=CPU),
        lambda: Parser(path, device=CPU, name="none"),
    ):
        with pytest.raises(WeightsError, match="takes no input"):
            opened()

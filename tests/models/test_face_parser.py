"""A face parser: what it sees that is no face stays as it was; where the regions are."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import onnx
import pytest
import torch
from helpers import parsenet_formula
from helpers.media import (
    AS_PAINTED,
    Painter,
    analysis_of_file,
    frames_of,
    info_of,
    plain_track,
    planes_of,
    write_video,
)
from helpers.pasting import Finish, paste
from onnx import TensorProto, helper, numpy_helper

from vidrestore.api import restore_video
from vidrestore.common.errors import WeightsError
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Restore
from vidrestore.imaging.frame import Frame
from vidrestore.media.codecs import Encoding
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.models import face_parser
from vidrestore.models.face_parser import Parsed, Parser
from vidrestore.models.factory import chosen_parser
from vidrestore.models.parsenet import ORDER, ParseNet
from vidrestore.models.restorers.assignment import Assignment
from vidrestore.restoration.batching import restore
from vidrestore.restoration.compositing import masks
from vidrestore.restoration.crop import crop
from vidrestore.restoration.segments import plan_segments, segment_key
from vidrestore.restoration.statistics import RestorationStats

SIDE = 192
# Class -> the colour in which scenes paint it.
COLOURS = {
    0: (100, 0, 100), 1: (220, 170, 140), 4: (255, 255, 255), 6: (0, 0, 0), 7: (230, 200, 0),
    12: (40, 200, 40), 17: (110, 50, 0), 18: (20, 40, 230),
}  # fmt: skip
WHOLE = np.ones((64, 64), np.float32)
CPU = torch.device("cpu")


def network(
    path: Path, *, side: int | str = 128, classes: int = 19, extra: bool = False, given: int = 3
) -> Path:
    """Each pixel has the class whose colour is the nearest: -|x - c|^2 is linear but for |x|^2."""
    colours = np.full((classes, 3), 40.0)
    bias = np.full(classes, -1e6)
    for index, rgb in COLOURS.items():
        if index < classes:
            colours[index] = (np.array(rgb) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
            # In the colours' own space every channel counts alike.
            scaled = colours[index] * [0.229, 0.224, 0.225]
            colours[index], bias[index] = 2 * scaled * [0.229, 0.224, 0.225], -(scaled**2).sum()
    weight = np.zeros((classes, given, 1, 1), np.float32)
    weight[:, :3, 0, 0] = colours[:, :given]
    tensors = [
        numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias.astype(np.float32), "b"),
    ]  # fmt: skip
    nodes = [helper.make_node("Conv", ["image", "w", "b"], ["logits"])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, classes, side, side])]
    if extra:
        nodes.append(helper.make_node("Identity", ["image"], ["same"]))
        same = helper.make_tensor_value_info("same", TensorProto.FLOAT, [1, given, side, side])
        outputs.insert(0, same)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, given, side, side])
    graph = helper.make_graph(nodes, "parser", [image], outputs, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
              path)  # fmt: skip
    return path


@pytest.fixture
def parser(tmp_path: Path) -> Parser:
    return Parser(network(tmp_path / "parser.onnx"), device=CPU, name="tiny")


def scene(*, lips: tuple[int, int] = (96, 140)) -> np.ndarray:
    """(192, 192) classes: skin with eyes, glasses, lips and an ear, in hair and a hat."""
    classes = np.zeros((SIDE, SIDE), np.uint8)
    cv2.ellipse(classes, (96, 98), (66, 78), 0, 0, 360, 17, -1)
    cv2.ellipse(classes, (96, 102), (58, 70), 0, 0, 360, 1, -1)
    cv2.rectangle(classes, (138, 90), (150, 115), 7, -1)
    cv2.ellipse(classes, lips, (20, 8), 0, 0, 360, 12, -1)
    for x in (72, 120):
        cv2.ellipse(classes, (x, 84), (12, 6), 0, 0, 360, 4, -1)
    cv2.rectangle(classes, (104, 72), (136, 96), 6, 5)
    cv2.rectangle(classes, (30, 20), (162, 60), 18, -1)
    return classes


def painted(classes: np.ndarray) -> np.ndarray:
    table = np.zeros((19, 3), np.uint8)
    for index, rgb in COLOURS.items():
        table[index] = rgb
    return table[classes]


def frame_of(classes: np.ndarray) -> av.VideoFrame:
    image = av.VideoFrame.from_ndarray(painted(classes), format="rgb24")
    return image.reformat(format="yuv444p", dst_colorspace="ITU709", dst_color_range="MPEG")


def pasted(
    scenes: Sequence[np.ndarray], finish: Finish, tally: RestorationStats | None = None
) -> list[np.ndarray]:
    """(n, 192, 192) where any sample of each frame changed under a restorer that paints it all."""
    images = [frame_of(each) for each in scenes]
    before = [planes_of(image) for image in images]
    track = plain_track(len(scenes), centre=(96, 96), side=float(SIDE), work_px=128)
    info, tally = info_of(SIDE, SIDE, "yuv444p"), tally or RestorationStats()
    cut = crop(frames_of(images), [track], info, largest_px=2048, device=CPU)
    done = restore(
        cut, Painter((0.9, 0.1, 0.9)), tally, how=Restore(batch_size=1, max_waiting_frames=1)
    )
    out: list[Frame] = list(paste(done, info, tally, strength=1, tracks=[track], finish=finish))
    return [
        np.abs(np.array(was, int) - np.array(planes_of(now.image), int)).max(axis=0)
        for was, now in zip(before, out, strict=True)
    ]


def crop_of(classes: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(painted(classes)).permute(2, 0, 1).float() / 255


def test_the_network_is_read_as_it_was_trained(parser):
    classes = scene()
    seen = parser(crop_of(classes), WHOLE)
    for field, wanted in ((seen.face, (1, 4, 12)), (seen.regions["mouth"], (12,)),
                          (seen.regions["eyes"], (4,))):  # fmt: skip
        truth = cv2.resize(np.isin(classes, wanted).astype(np.float32), (64, 64),
                           interpolation=cv2.INTER_AREA)  # fmt: skip
        assert np.abs(field - truth).mean() < 0.01
        assert np.abs(field.sum() - truth.sum()) < 0.1 * truth.sum()
    assert seen.regions["brows"].max() == 0


@pytest.mark.parametrize(
    "how", [{"side": 512}, {"side": "s"}, {"extra": True}, {"side": 96}], ids=str
)
def test_other_sizes_and_several_outputs_are_read(tmp_path, parser, how):
    other = Parser(network(tmp_path / "other.onnx", **how), device=CPU, name="other")
    one, two = (each(crop_of(scene()), WHOLE).face for each in (parser, other))
    assert np.abs(one - two).mean() < 0.02


def test_what_is_no_face_stays_bit_identical(parser):
    classes = scene()
    changed = pasted([classes] * 5, Finish(parser=parser))
    plain = pasted([classes], Finish())[0]
    covered = ~np.isin(classes, (1, 4, 12))
    for each in changed:
        assert not each[covered].any()
        # Everything else within the mask is painted, but for a soft edge.
        inner = cv2.erode((~covered).astype(np.uint8), np.ones((47, 47))) > 0
        np.testing.assert_array_equal(each[inner], plain[inner])
    for what in (0, 6, 7, 17, 18):
        assert (plain[classes == what] > 0).any(), what


def test_its_edge_is_soft(parser):
    under_hat = pasted([scene()], Finish(parser=parser))[0][:, 60:80].mean(axis=1)
    steps = np.abs(np.diff(under_hat[56:90]))
    assert under_hat[58] == 0
    assert under_hat[82] > 60
    assert steps.max() < 0.25 * under_hat.max()


class Flipping:
    """A parser that says something else in one frame."""

    name = "flipping"

    def __init__(self, parser: Parser, at: int, other: Parsed) -> None:
        self.parser, self.at, self.other, self.count = parser, at, other, 0

    def __call__(self, source: torch.Tensor, hull: np.ndarray) -> Parsed:
        self.count += 1
        return self.other if self.count - 1 == self.at else self.parser(source, hull)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_one_frame_that_is_parsed_otherwise_does_not_show(parser, share):
    nothing = {name: np.zeros((64, 64), np.float32) for name in ("brows", "eyes", "mouth")}
    flip = Flipping(parser, 3, Parsed(np.full((64, 64), share, np.float32), nothing))
    usual = pasted([scene()] * 7, Finish(parser=parser))
    for was, now in zip(usual, pasted([scene()] * 7, Finish(parser=flip)), strict=True):
        assert np.abs(was - now).max() <= 1
    assert flip.count == 7


def test_a_hat_that_is_put_on_is_kept_from_its_first_frame(parser):
    bare = scene()
    bare[:61][bare[:61] == 18] = 1
    changed = pasted([bare] * 4 + [scene()] * 4, Finish(parser=parser))
    hat = (scene() == 18) & (np.arange(SIDE)[:, None] < 58)
    shown = [each[hat].mean() for each in changed]
    assert shown[1] > 10
    assert 0 < shown[3] < shown[1]
    assert shown[4:] == [0] * 4


def test_regions_are_where_they_are_parsed(parser):
    lips = (110, 152)
    finish = Finish(regions={"mouth": 0.0}, parser=parser)
    changed, plain = (pasted([scene(lips=lips)], each)[0]
                      for each in (finish, Finish(regions={"mouth": 0.0})))  # fmt: skip
    mouth = scene(lips=lips) == 12
    assert changed[mouth].max() <= 0.1 * plain[mouth].max()
    assert plain[mouth].max() > 60
    beside = (slice(136, 140), slice(74, 80))  # in the ellipse around the landmarks
    assert plain[beside].mean() < 0.5 * changed[beside].mean()


def test_a_region_that_is_not_seen_is_where_landmarks_have_it():
    points, nothing = masks.usual_landmarks(), np.zeros((64, 64), np.float32)
    strengths = {"eyes": 0.2, "mouth": 0.5}
    shut = masks.region_strength(points, strengths, {"eyes": nothing, "mouth": nothing})
    kept = masks.region_strength(points, strengths)
    np.testing.assert_allclose(shut, kept, atol=1e-6)


def test_a_crop_without_a_face_is_left_to_the_landmarks_and_counted(parser):
    nothing = np.zeros((SIDE, SIDE), np.uint8)
    tally = RestorationStats()
    (parsed,) = pasted([nothing], Finish(parser=parser), tally)
    np.testing.assert_array_equal(parsed, pasted([nothing], Finish())[0])
    assert tally.unparsed == 1
    assert not parser(crop_of(nothing), WHOLE).is_face


def test_visible_is_nothing_where_all_is_covered_and_all_where_nothing_is():
    for share in (0.0, 1.0):
        field = np.full((64, 64), share, np.float32)
        np.testing.assert_array_equal(face_parser.visible([Parsed(field, {})]), field)


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ({"classes": 11}, "returns (1, 11, 128, 128)"),
        ({"given": 1}, "takes [1, 1, 128, 128]"),
        ({"side": 32}, "takes [1, 3, 32, 32]"),
    ],
)
def test_another_network_is_refused(tmp_path, how, found):
    path = network(tmp_path / "other.onnx", **how)
    with pytest.raises(WeightsError, match="19, S, S") as caught:
        Parser(path, device=CPU, name="other")
    assert found in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_is_none_or_missing_is_refused(tmp_path):
    path = tmp_path / "words.onnx"
    for sentence in ("does not exist", "cannot be loaded"):
        with pytest.raises(WeightsError, match=sentence):
            chosen_parser(load_settings(None, [f"paste.parser={path}"]))
        path.write_text("words")
    assert chosen_parser(load_settings()) is None


def test_segments_are_redone_where_the_file_has_another_content(tmp_path):
    track = plain_track(48, centre=(96, 96), side=100.0)
    source = write_video(tmp_path / "source.mkv", [frame_of(scene())] * 2)
    analysis = analysis_of_file(source, [replace(track)])
    encoding = Encoding("e", "e", "p", ".mkv")
    (segment,) = plan_segments(analysis, most_frames=48)
    path = tmp_path / "parser.onnx"
    settings = load_settings(None, [f"paste.parser={path}"])
    hashes = []
    for side in (128, 128, 96):
        network(path, side=side)
        parser = chosen_parser(settings)
        schedule = Assignment([(0, Painter())])
        hashes.append(
            segment_key(segment, analysis, 2, schedule, "", settings, encoding, parser=parser.name)
        )
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_setting_reaches_the_picture(tmp_path):
    """From a file to a file; segments and the rest of pass two included."""
    classes = scene()
    source = write_video(tmp_path / "source.mkv", [frame_of(classes) for _ in range(4)])
    track = plain_track(4, centre=(96, 96), side=float(SIDE), work_px=128)
    analysis = analysis_of_file(source, [track])
    changes = ["encode.codec=ffv1", "deflicker.amount=0", *(f"{k}={str(v).lower()}"
               for k, v in AS_PAINTED.items())]  # fmt: skip
    network(tmp_path / "parser.onnx")
    covered = ~np.isin(classes, (1, 4, 12))
    changed = []
    for more in ([], [f"paste.parser={tmp_path / 'parser.onnx'}"]):
        target = tmp_path / f"out{len(more)}.mkv"
        restore_video(source, target, load_settings(None, [*changes, *more]), restorer=Painter(),
                      analysis=analysis)  # fmt: skip
        pairs = zip(decode(source, DecodeErrors()), decode(target, DecodeErrors()), strict=True)
        changed.append([
            np.any(np.array(planes_of(a.image)) != np.array(planes_of(b.image)), axis=0)
            for a, b in pairs
        ])  # fmt: skip
    assert all(each[covered].any() for each in changed[0])
    assert not any(each[covered].any() for each in changed[1])
    assert all(each[~covered].mean() > 0.4 for each in changed[1])


# ParseNet


def written(path: Path, **changes: torch.Tensor) -> Path:
    torch.save({"params": parsenet_formula.weights(parsenet_formula.shapes()) | changes}, path)
    return path


@pytest.mark.parametrize("suffix", [".pth", ".PTH", ".ckpt"])
def test_parsenet_computes_what_the_network_of_facexlib_does(tmp_path, suffix):
    network = ParseNet(written(tmp_path / f"ParseNet-latest{suffix}"), CPU)
    logits = network(parsenet_formula.picture())[:, :, ::4, ::4].numpy()
    with np.load(Path(__file__).parents[1] / "data/parsenet.npz") as arrays:
        stored = arrays["logits"]
    assert np.linalg.norm(logits - stored) < 5e-6 * np.linalg.norm(stored)


def test_the_classes_of_parsenet_are_brought_into_order():
    # The order of CelebAMask-HQ, and that in which BiSeNet is trained.
    theirs = (
        "background skin nose glasses left_eye right_eye left_brow right_brow left_ear right_ear "
        "mouth upper_lip lower_lip hair hat earring necklace neck cloth"
    )
    ours = (
        "background skin left_brow right_brow left_eye right_eye glasses left_ear right_ear "
        "earring nose mouth upper_lip lower_lip neck necklace cloth hair hat"
    )
    assert [theirs.split()[index] for index in ORDER] == ours.split()


def test_parsenet_parses_crops(tmp_path):
    bias = torch.full((19,), -100.0)
    bias[1] = 100.0  # skin everywhere
    path = written(tmp_path / "a.pth", **{"out_mask_conv.conv2d.bias": bias})
    settings = load_settings(changes=[f"paste.parser={path}", "restore.device=cpu"])
    parser = chosen_parser(settings)
    seen = parser(crop_of(scene()), WHOLE)
    assert seen.is_face
    assert (seen.face == 1).all()
    bias[1], bias[4] = -100.0, 100.0  # the left eye, in the order of CelebAMask-HQ
    other = Parser(written(path, **{"out_mask_conv.conv2d.bias": bias}), device=CPU, name="b")
    seen = other(crop_of(scene()), WHOLE)
    assert (seen.regions["eyes"] == 1).all()
    assert (seen.regions["brows"] == 0).all()


def test_another_file_than_parsenet_is_refused(tmp_path):
    path, state = tmp_path / "a.pth", parsenet_formula.weights(parsenet_formula.shapes())

    def refused(content: object) -> str:
        torch.save(content, path)
        with pytest.raises(WeightsError) as error:
            Parser(path, device=CPU, name="a")
        return str(error.value)

    bisenet = {"cp.resnet.conv1.weight": torch.zeros(1), "ffm.convblk.conv.weight": torch.zeros(1)}
    assert "holds BiSeNet, a face parser, not a ParseNet; --set paste.parser=FILE" in refused(
        bisenet
    )
    assert "does not hold a ParseNet: it has w" in refused({"w": torch.zeros(1)})
    name = "body.1.conv2.conv2d.weight"
    missing = {key: value for key, value in state.items() if key != name}
    assert "does not hold a ParseNet" in refused(missing)
    assert "does not hold a ParseNet" in refused(state | {name: torch.zeros(3)})
    assert f"values in {name.removesuffix('.conv2d.weight')} that are NaN" in refused(
        state | {name: state[name] * np.nan}
    )
    few = {"weight": torch.zeros(5, 8, 3, 3), "bias": torch.zeros(5)}
    few = {f"out_mask_conv.conv2d.{key}": value for key, value in few.items()}
    assert "returns (1, 5, 64, 64) for a picture of 64 px" in refused(state | few)
    path.write_bytes(b"\x80")
    with pytest.raises(WeightsError, match=r"a\.pth"):
        Parser(path, device=CPU, name="a")

"""Log curves and tables: networks see a picture for a display, the output keeps its own values."""

from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from helpers.media import (
    AS_PAINTED,
    Painter,
    Unchanged,
    analysis_of_file,
    info_of,
    plain_track,
    planes_of,
    random_image,
    write_video,
)
from skimage import data

from vidrestore.analysis.detection import upright_picture
from vidrestore.api import restore_video
from vidrestore.common.errors import ConfigError, UsageError
from vidrestore.common.profiles import load_settings
from vidrestore.imaging import transfer
from vidrestore.imaging.curves import read_cube
from vidrestore.imaging.geometry import upright
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.media.probe import probe
from vidrestore.models.detectors.yunet import YuNet

CUBE = """# made for a test
TITLE "lift"
LUT_1D_SIZE 4
DOMAIN_MIN 0 0 0
DOMAIN_MAX 1.0 1.0 1.0
0.0 0.01 0.0
0.5 0.40 0.3
0.8 0.70 0.6
1.0 0.99 0.9
"""


def rgb_of(values):
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, -1).expand(3, 1, -1)


def infos(folder):
    table = folder / "lift.cube"
    table.write_text(CUBE)
    return {
        "cineon": info_of(64, 48, "gbrp", transfer="cineon", full_range=True),
        "slog3": info_of(64, 48, "gbrp", transfer="slog3", full_range=True),
        "slog3, limited": info_of(64, 48, transfer="slog3"),
        "table": info_of(64, 48, transfer="table", curve=read_cube(table)),
    }


@pytest.mark.parametrize("name", ["cineon", "slog3", "slog3, limited", "table"])
def test_every_signal_has_a_way_there_and_back(tmp_path, name):
    info = infos(tmp_path)[name]
    signal = rgb_of(np.linspace(-0.03, 1.08, 500))
    shown = transfer.to_display(signal, info)
    assert (torch.diff(shown, dim=2) > 0).all()
    assert torch.abs(transfer.from_display(shown, info) - signal).max() < 1e-9
    assert shown[:, 0, -40].max() <= 1.05
    none = torch.zeros(1, *signal.shape[1:], dtype=torch.float64)
    assert (transfer.change(signal, shown, none, info) == 0).all()
    same = transfer.change(signal, shown.clamp(0, 1), none + 1, info)
    assert torch.abs(same).max() < 1e-9


@pytest.mark.parametrize(
    ("name", "codes", "light"),
    [
        # Cineon: black, white. S-Log3, from Sony's table: black, 18 % and 90 % of reflection.
        ("cineon", (95, 685), (0.0, 1.0)),
        ("slog3", (95, 420, 598), (0.0, 0.18 / 0.9, 1.0)),
    ],
)
def test_curves_are_those_of_their_makers(tmp_path, name, codes, light):
    info = infos(tmp_path)[name]
    shown = transfer.to_display(rgb_of([code / 1023 for code in codes]), info)[0, 0]
    # Below the shoulder the display's own root is all there is.
    wanted = [transfer._with_shoulder(torch.tensor(each ** (1 / 2.4)), name) for each in light]
    np.testing.assert_allclose(shown, wanted, atol=2e-3)


def test_limited_range_counts_the_codes_that_the_file_has(tmp_path):
    known = infos(tmp_path)
    code = 512
    full = transfer.to_display(rgb_of([code / 1023]), known["slog3"])
    limited = transfer.to_display(rgb_of([(code - 64) / 876]), known["slog3, limited"])
    torch.testing.assert_close(full, limited)


class Watching(Unchanged):
    """Keeps the mean of what it is shown."""

    def __init__(self):
        self.means = []

    def __call__(self, windows):
        self.means.append(float(windows.mean()))
        return super().__call__(windows)


@pytest.mark.parametrize("curve", ["cineon", "slog3", "table"])
def test_the_network_sees_the_curve_and_the_output_keeps_its_values(tmp_path, curve):
    images = [random_image(64, 48, "gbrp10le", seed) for seed in range(3)]
    source = write_video(tmp_path / "source.mkv", images)
    before = [
        [plane.copy() for plane in planes_of(f.image)] for f in decode(source, DecodeErrors())
    ]
    table = tmp_path / "lift.cube"
    table.write_text(CUBE)
    asked = str(table) if curve == "table" else curve
    means = {}
    for name in ("", asked):
        settings = load_settings(
            options={"decode.input_curve": name, "encode.codec": "ffv1", **AS_PAINTED}
        )
        analysis = analysis_of_file(source, [plain_track(3, centre=(32, 24), side=30)])
        analysis = replace(analysis, info=probe(source, settings).info)
        for restorer in (watching := Watching(), Painter()):
            target = tmp_path / "out.mkv"
            summary = restore_video(source, target, settings, restorer=restorer,
                                    analysis=analysis, overwrite=True)  # fmt: skip
            assert summary.identical_outside == 3
            if restorer is watching:
                after = [planes_of(f.image) for f in decode(target, DecodeErrors())]
                for was, now in zip(before, after, strict=True):
                    assert all(map(np.array_equal, was, now))
            else:
                assert summary.identical_frames == 0
        means[name] = np.mean(watching.means)
    assert abs(means[asked] - means[""]) > 0.02


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("LUT_3D_SIZE 2\n" + "0 0 0\n" * 8, "cannot invert"),
        ("LUT_1D_SIZE 3\n0 0 0\n.5 .5 .5\n", "3 rows"),
        ("LUT_1D_SIZE 3\n0 0 0\n.5 .5 .5\n.5 1 1\n", "does not rise"),
        ("LUT_1D_SIZE 2\nDOMAIN_MAX 4 4 4\n0 0 0\n1 1 1\n", "from 0 to 1"),
        ("LUT_1D_SIZE 2\nLUT_1D_INPUT_RANGE 0.0 4.0\n0 0 0\n1 1 1\n", "from 0 to 1"),
        ("LUT_1D_SIZE 2\nLUT_1D_INPUT_RANGE -0.1 1\n0 0 0\n1 1 1\n", "from 0 to 1"),
        ("LUT_1D_SIZE 2\nLUT_1D_INPUT_RANGE 0\n0 0 0\n1 1 1\n", "from 0 to 1"),
        ("LUT_1D_SIZE 2\nLUT_1D_INPUT_RANGE a b\n0 0 0\n1 1 1\n", "not a .cube file"),
        ("LUT_1D_SIZE 2\nLUT_3D_INPUT_RANGE 0 4\n0 0 0\n1 1 1\n", "from 0 to 1"),
        ("LUT_1D_SIZE 2\nLUT_IN_VIDEO_RANGE\n0 0 0\n1 1 1\n", "is not supported"),
        ("hello\n", "not a .cube file"),
        (None, "does not exist"),
    ],
)
def test_a_table_that_cannot_be_used_is_said(tmp_path, text, said):
    path = tmp_path / "curve.cube"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=said):
        read_cube(path)


def test_a_table_as_resolve_writes_it(tmp_path):
    path = tmp_path / "curve.cube"
    path.write_text('TITLE "a"\nLUT_1D_SIZE 2\nLUT_1D_INPUT_RANGE 0.0 1.0\n0 0 0\n1 1 1\n')
    assert read_cube(path) == ((0, 0, 0), (1, 1, 1))


def test_other_curves_are_refused():
    with pytest.raises(ConfigError, match=r"cineon, slog3 or a \.cube file"):
        load_settings(options={"decode.input_curve": "logc"})


def test_a_face_in_a_log_curve_is_found_as_on_a_display(shared, tmp_path):
    """The astronaut, printed down to a fifth of her contrast and lifted, as a scanner sees it."""
    info = replace(infos(tmp_path)["cineon"], width=512, height=512, pixel_format="gbrp")
    display = torch.from_numpy(data.astronaut() / 255.0).permute(2, 0, 1)
    coded = transfer.from_display(display * 0.7, info).clamp(0, 1).mul(255).round()
    picture = coded.permute(1, 2, 0).to(torch.uint8).numpy()
    image = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="gbrp")
    shown = upright_picture(image, info, upright(info, 512))
    wanted = display.permute(1, 2, 0).numpy() * 0.7
    assert np.abs(shown[..., ::-1] / 255 - wanted).mean() < 0.01
    yunet = YuNet(shared / "models" / "face_detection_yunet_2023mar.onnx", score=0.7)
    assert len(yunet(shown)) == 1

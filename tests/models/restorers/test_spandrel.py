"""Other authors' networks in .pth files, through spandrel or a stand-in for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import gpen_formula
from helpers.spandrel_stand_in import Descriptor, Network, Packages

from vidrestore.common.errors import UsageError, WeightsError
from vidrestore.common.settings import Restore
from vidrestore.models.admission import Exact
from vidrestore.models.factory import open_restorer
from vidrestore.models.restorers import Restorer
from vidrestore.models.restorers import spandrel as spandrel_module
from vidrestore.models.restorers.gpen import Gpen
from vidrestore.models.upscaler import Upscaler

CPU, MPS = torch.device("cpu"), torch.device("mps")
NAMES = {
    "GFPGAN": ("stylegan_decoder.style_mlp.1.weight", "toRGB.0.weight"),
    "RestoreFormer": ("quantize.embedding.weight", "encoder.conv_in.weight"),
    "CodeFormer": ("quantize.embedding.weight", "position_emb", "encoder.blocks.0.weight"),
}
EXTRAS = {"GFPGAN": "spandrel", "RestoreFormer": "spandrel", "CodeFormer": "codeformer"}


def weights(folder: Path, family: str, prefix: str = "") -> Path:
    state = {prefix + name: torch.ones(2) for name in NAMES[family]}
    torch.save({"params_ema": state}, folder / f"{family}.pth")
    return folder / f"{family}.pth"


def opened(path: Path, notices: list[str] | None = None, **how: Any) -> Restorer:
    devices = {name: how.pop(name) for name in ("device", "others") if name in how}
    return open_restorer(
        str(path), Restore(engine="torch", codeformer_fidelity=0.5, **how),
        **{"device": CPU} | devices, cache_folder=path.parent, find_weights=Path,
        on_notice=(lambda message: None) if notices is None else notices.append,
    )  # fmt: skip


def faces(count: int) -> torch.Tensor:
    return torch.rand(count, 1, 3, 512, 512, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("family", NAMES)
def test_without_the_extra_the_answer_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(UsageError) as error:
        opened(weights(tmp_path, family))
    said = str(error.value)
    assert f"holds {family}, which the extra {EXTRAS[family]} runs" in said
    assert f"run pip install 'vidrestore[{EXTRAS[family]}]', or use an ONNX file" in said
    assert ("for non-commercial use" in said) == (family == "CodeFormer")


def test_codeformer_needs_its_own_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Packages(monkeypatch)
    monkeypatch.setitem(sys.modules, "spandrel_extra_arches", None)
    opened(weights(tmp_path, "GFPGAN"))
    with pytest.raises(UsageError, match=r"pip install 'vidrestore\[codeformer\]'"):
        opened(weights(tmp_path, "CodeFormer"))


def test_a_torchvision_that_does_not_suit_torch_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spandrel.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "spandrel", raising=False)
    with pytest.raises(UsageError, match=r"\(operator torchvision::nms does not exist\); install"):
        opened(weights(tmp_path, "GFPGAN"))


@pytest.mark.parametrize("prefix", ["", "module.", "vqvae."])
@pytest.mark.parametrize("family", NAMES)
def test_each_network_is_called_as_its_authors_call_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, prefix: str
) -> None:
    packages, notices = Packages(monkeypatch), list[str]()
    restorer = opened(weights(tmp_path, family, prefix), notices)
    assert packages.registries == ["extra" if family == "CodeFormer" else "main"]
    assert set(packages.states[0]) == set(NAMES[family])
    assert (restorer.name, restorer.size) == (f"{family}.pth ({family})", 512)
    assert (restorer.template, restorer.is_cheap) == ("ffhq", False)
    assert [("non-commercial" in each) for each in notices] == [True] * (family == "CodeFormer")
    windows = faces(2)
    weight = 0.5 if family == "CodeFormer" else 0.0
    wanted = (1 - windows[:, 0] + 0.05 * weight).clamp(0, 1)
    torch.testing.assert_close(restorer(windows), wanted, atol=1e-5, rtol=0)
    network: Any = packages.descriptors[0].model
    call = network.calls[-1]
    assert call["low"] < -0.9
    assert call["weight"] == weight
    assert call.get("randomize_noise") == (False if family == "GFPGAN" else None)
    key = restorer.cache_key
    assert key is not None
    assert ("spandrel_extra_arches 1.0" in key) == (family == "CodeFormer")


def test_weights_that_do_not_fit_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> Descriptor:
        raise RuntimeError("Error(s) in loading state_dict:\n\tMissing key(s)")

    Packages(monkeypatch, fails)
    with pytest.raises(WeightsError, match=r"cannot be loaded as GFPGAN: Error\(s\)") as error:
        opened(weights(tmp_path, "GFPGAN"))
    assert "\n" not in str(error.value)


def test_a_network_without_a_finite_result_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Descriptor:
        network = Network()
        network.gain.data.fill_(float("nan"))
        return Descriptor(network, "stand-in")

    Packages(monkeypatch, broken)
    with pytest.raises(WeightsError, match="returns no finite picture"):
        opened(weights(tmp_path, "GFPGAN"))


def test_a_gpen_and_what_is_nothing_known_need_no_spandrel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    path = tmp_path / "mine.pth"
    torch.save(gpen_formula.build("gpen-64").state_dict(), path)
    assert isinstance(opened(path), Gpen)
    torch.save({"a.weight": torch.ones(2)}, path)
    with pytest.raises(WeightsError, match="does not hold a GPEN"):
        opened(path)


def test_a_number_format_that_the_network_lacks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Packages(monkeypatch)
    with pytest.raises(UsageError, match="GFPGAN cannot compute in float16"):
        opened(weights(tmp_path, "GFPGAN"), number_format="float16")


@pytest.mark.parametrize("is_right", [True, False])
def test_the_same_rule_admits_its_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_right: bool
) -> None:
    network = torch.nn.Module.to

    def moved(own: Any, *to: Any, **how: Any) -> Any:
        if MPS in to:
            with torch.no_grad():
                own.gain.mul_(1 if is_right else 0.9)
            return own
        return network(own, *to, **how)

    Packages(monkeypatch)
    monkeypatch.setattr(Network, "to", moved)
    monkeypatch.setattr(spandrel_module, "to_device", lambda tensor, device: tensor)
    monkeypatch.setattr(spandrel_module, "kept_exact",
                        lambda *given: Exact(given[2]().result, seconds=100.0))  # fmt: skip
    notices: list[str] = []
    path = weights(tmp_path, "GFPGAN")
    restorer = opened(path, notices, device=MPS, others=(CPU,))
    assert restorer.is_cheap is is_right
    assert len(notices) == (not is_right)
    windows = faces(1)
    torch.testing.assert_close(restorer(windows), 1 - windows[:, 0], atol=1e-5, rtol=0)
    if not is_right:
        assert notices[0].endswith("; the processor runs it")
        with pytest.raises(UsageError, match=r"GFPGAN\.pth cannot run in float32 on mps"):
            opened(path, device=MPS)


class Doubling(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(image, scale_factor=2)


def upscaling(**changes: Any) -> Callable[[], Descriptor]:
    return lambda: Descriptor(Doubling(), "ESRGAN", **{"purpose": "SR"} | changes)


def test_an_upscaler_in_a_pth_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "RealESRGAN_x2.pth"
    torch.save({"params_ema": {"conv_first.weight": torch.ones(2)}}, path)
    packages = Packages(monkeypatch, upscaling())
    network = Upscaler(path, device=CPU)
    assert network.factor == 2
    assert packages.registries == ["main"]
    picture = np.random.default_rng(1).random((3, 300, 70), np.float32)
    np.testing.assert_allclose(
        network(picture, 2), picture.repeat(2, axis=1).repeat(2, axis=2), atol=1e-6
    )
    for changes, reason in (({"purpose": "FaceSR"}, "for another purpose"),
                            ({"input_channels": 1}, "1 channels")):  # fmt: skip
        Packages(monkeypatch, upscaling(**changes))
        with pytest.raises(WeightsError, match=reason):
            Upscaler(path, device=CPU)
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(UsageError, match=r"holds an upscaler, which the extra spandrel runs"):
        Upscaler(path, device=CPU)


def test_an_upscaler_keeps_to_the_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "RealESRGAN_x2.pth"
    torch.save({"params": {"conv_first.weight": torch.ones(2)}}, path)

    def fails(own: Any, device: Any, dtype: Any) -> Any:
        raise RuntimeError("the operator is not implemented for MPS")

    Packages(monkeypatch, upscaling(supports_half=True))
    monkeypatch.setattr(Descriptor, "to", fails)
    notices: list[str] = []
    network = Upscaler(path, device=MPS, others=(CPU,), on_notice=notices.append)
    assert [each.split(" because ")[0] for each in notices] == [
        "RealESRGAN_x2.pth does not run in float16 on mps,",
        "RealESRGAN_x2.pth does not run in float32 on mps,",
    ]
    assert network(np.zeros((3, 8, 8), np.float32), 2).shape == (3, 16, 16)


def needs_spandrel() -> Any:
    """Return the real package; skip where it or its torchvision is missing or does not load."""
    try:
        import spandrel
    except Exception as error:
        pytest.skip(f"spandrel cannot be imported: {error}")
    return spandrel


@pytest.mark.filterwarnings("ignore")
def test_the_real_spandrel_builds_an_upscaler_and_a_restorer(tmp_path: Path) -> None:
    needs_spandrel()
    from spandrel.architectures.ESRGAN import ESRGAN
    from spandrel.architectures.RestoreFormer import RestoreFormer

    path = tmp_path / "x4.pth"
    torch.manual_seed(0)
    network = ESRGAN(in_nc=3, out_nc=3, num_filters=8, num_blocks=1, scale=4)
    torch.save({"params_ema": network.state_dict()}, path)
    with pytest.raises(WeightsError, match="returns values from"):  # it was not trained
        Upscaler(path, device=CPU)
    made = RestoreFormer(n_embed=8, embed_dim=32, ch=32, out_ch=3, ch_mult=(1, 1, 1, 1, 1, 1),
                         num_res_blocks=1, attn_resolutions=(16,), dropout=0.0, in_channels=3,
                         resolution=512, z_channels=32, double_z=False, enable_mid=True,
                         head_size=8).eval()  # fmt: skip
    path = tmp_path / "RestoreFormer.pth"
    torch.save({"params": made.state_dict()}, path)
    windows = faces(1)
    with torch.no_grad():
        wanted = (made(windows[:, 0] * 2 - 1)[0] / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(opened(path)(windows), wanted, atol=1e-4, rtol=0)

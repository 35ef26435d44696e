"""Loading the networks that judge, and averaging the weights of the one that learns."""

from pathlib import Path

import pytest
import torch
from helpers import training_formula as formula

from vidrestore.common.errors import WeightsError
from vidrestore.models.gpen.network import GPEN
from vidrestore.personal.averaging import AveragedWeights
from vidrestore.personal.discriminator import Discriminator, load_discriminator
from vidrestore.personal.identity import load_identity


@pytest.mark.parametrize(
    "widths", [(8, 2, 0.0625), (32, 2, 0.0625), (64, 2, 0.125), (64, 1, 0.125), (256, 3, 0.0625)]
)
def test_a_discriminator_is_read_back(tmp_path: Path, widths: tuple[int, int, float]) -> None:
    written = Discriminator(*widths)
    state = {k: v for k, v in written.state_dict().items() if not k.endswith(".kernel")}
    torch.save(state, tmp_path / "d.pth")
    read = load_discriminator(tmp_path / "d.pth")
    assert read.config == written.config
    images = formula.waves(widths[0], 2)
    assert torch.equal(read(images), written(images))
    assert all(parameter.requires_grad for parameter in read.parameters())


def test_another_network_is_no_discriminator(tmp_path: Path) -> None:
    gpen = GPEN(16, narrow=0.0625, style_dim=8)
    torch.save(gpen.state_dict(), tmp_path / "g.pth")
    with pytest.raises(WeightsError, match="does not hold a discriminator of GPEN"):
        load_discriminator(tmp_path / "g.pth")
    state = Discriminator(16, narrow=0.0625).state_dict()
    state["final_linear.1.bias"] = torch.full((1,), torch.nan)
    torch.save(state, tmp_path / "d.pth")
    with pytest.raises(WeightsError, match=r"final_linear\.1\.bias that are not finite"):
        load_discriminator(tmp_path / "d.pth")
    with pytest.raises(WeightsError, match="does not hold the identity network"):
        load_identity(tmp_path / "g.pth")


def test_a_weight_has_half_its_share_after_the_half_life() -> None:
    network = torch.nn.Linear(2, 1)
    with torch.no_grad():
        network.weight.fill_(1.0)
    average = AveragedWeights(network, half_life_images=40)
    with torch.no_grad():
        network.weight.fill_(3.0)
    for _ in range(10):
        average.update(network, images=4)
    assert average.network.weight.tolist() == [[pytest.approx(2.0)] * 2]
    assert network.weight.tolist() == [[3.0, 3.0]]
    assert not average.network.weight.requires_grad

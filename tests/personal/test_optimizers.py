"""The optimizers of a training."""

import pytest
import torch

from vidrestore.common.settings import Train
from vidrestore.models.gpen.network import GPEN
from vidrestore.personal.discriminator import Discriminator
from vidrestore.personal.optimizers import (
    Muon,
    is_matrix,
    optimizers,
    orthogonalized,
    set_rates,
)


def small_gpen() -> GPEN:
    torch.manual_seed(0)
    return GPEN(32, 16, 2, narrow=0.03125)


def trained_by(name: str, gpen: GPEN) -> list[torch.optim.Optimizer]:
    settings = Train.model_validate({"optimizer": name, "decoder_rate": 0.01, "encoder_rate": 0.02})
    return list(optimizers(gpen, None, settings)["generator"])


@pytest.mark.parametrize("shape", [(8, 8), (6, 200), (200, 6), (64, 1152)])
@pytest.mark.parametrize("scale", [1e-7, 1.0, 1e5])
def test_orthogonalizing_keeps_directions_and_evens_their_lengths(
    shape: tuple[int, int], scale: float
) -> None:
    random = torch.Generator().manual_seed(3)
    matrix = torch.randn(shape, generator=random)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    lengths = torch.logspace(0, -2, min(shape))
    found = orthogonalized(scale * (left * lengths) @ right)
    assert found.shape == matrix.shape
    along = left.T @ found @ right.T
    values = along.diagonal()
    assert values.min() > 0.6
    assert values.max() < 1.3
    assert (along - torch.diag(values)).abs().max() < 1e-3


def test_a_gradient_of_zero_changes_nothing() -> None:
    assert torch.equal(orthogonalized(torch.zeros(5, 7)), torch.zeros(5, 7))


def test_each_weight_has_one_optimizer() -> None:
    gpen = small_gpen()
    judge = Discriminator(32, narrow=0.03125)
    for name in ("muon", "adam"):
        found = optimizers(gpen, judge, Train.model_validate({"optimizer": name}))
        for network, key in ((gpen, "generator"), (judge, "discriminator")):
            ids = [
                id(weight)
                for optimizer in found[key]
                for group in optimizer.param_groups
                for weight in group["params"]
            ]
            assert sorted(ids) == sorted(map(id, network.parameters()))


def test_muon_takes_what_lies_between_colors_and_code() -> None:
    names = {name for name, weight in small_gpen().named_parameters() if is_matrix(weight)}
    assert {
        "ecd1.0.1.weight", "final_linear.0.weight", "generator.style.1.weight",
        "generator.conv1.conv.weight", "generator.conv1.conv.modulation.weight",
        "generator.convs.0.conv.weight",
    } <= names  # fmt: skip
    assert not any(
        name.endswith("bias") or name == "ecd0.0.0.weight" or name == "generator.input.input"
        or (name.startswith("generator.to_rgb") and not name.endswith("modulation.weight"))
        for name in names
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "part", "rate"),
    [("generator.convs.0.conv.weight", "decoder", 0.01), ("ecd1.0.1.weight", "encoder", 0.02)],
)
def test_a_step_is_as_long_as_the_rate(name: str, part: str, rate: float) -> None:
    steps = {}
    for optimizer in ("muon", "adam"):
        gpen = small_gpen()
        weight = gpen.get_parameter(name)
        before = weight.detach().clone()
        weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
        for each in trained_by(optimizer, gpen):
            each.step()
        steps[optimizer] = (weight.detach() - before).square().mean().sqrt().item()
    assert steps["adam"] == pytest.approx(rate, rel=0.05)
    assert steps["muon"] == pytest.approx(rate, rel=0.25)


def test_muon_learns_directions_that_plain_gradients_hide() -> None:
    """A linear map whose inputs differ a hundredfold in strength."""
    random = torch.Generator().manual_seed(0)
    wanted = torch.randn(16, 16, generator=random)
    inputs = torch.randn(512, 16, generator=random) * torch.logspace(0, -2, 16)

    def error_after(steps: int, optimizer: torch.optim.Optimizer, weight: torch.Tensor) -> float:
        for _ in range(steps):
            optimizer.zero_grad()
            (inputs @ (weight - wanted).T).square().mean().backward()
            optimizer.step()
        return (weight.detach() - wanted).square().mean().item()

    weights = [torch.nn.Parameter(torch.zeros(16, 16)) for _ in range(2)]
    muon = Muon([{"params": [weights[0]], "lr": 0.02}], 0.95)
    descent = torch.optim.SGD([weights[1]], lr=0.5, momentum=0.95)
    errors = (error_after(200, muon, weights[0]), error_after(200, descent, weights[1]))
    assert errors[0] < 0.1 * errors[1]


def test_rates_fall_to_zero_in_the_second_half() -> None:
    for name in ("muon", "adam"):
        learners = trained_by(name, small_gpen())
        for done, share in ((0.0, 1.0), (0.5, 1.0), (0.75, 0.5), (1.0, 0.0)):
            set_rates(learners, done)
            rates = {group["lr"] for learner in learners for group in learner.param_groups}
            assert rates == {0.01 * share, 0.02 * share}

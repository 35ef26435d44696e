"""Memory and time of a training, stated before it begins."""

from collections.abc import Callable

import pytest
import torch

from vidrestore.common.settings import Train
from vidrestore.models.gpen.network import GPEN, GPENConfig
from vidrestore.personal import objectives
from vidrestore.personal.discriminator import Discriminator
from vidrestore.personal.estimate import (
    LIBRARIES_BYTES,
    batch_that_fits,
    estimate_training,
    measured_speed,
)
from vidrestore.personal.objectives import Judges

CONFIG = GPENConfig(32, style_dim=16, n_mlp=2, narrow=0.125)
PARTS = {"discriminator": False, "identity": False}


def peak_bytes(step: Callable[[], object]) -> int:
    """Return the most memory that torch allocates in a step beyond what was there before."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        step()
    now = most = 0
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


@pytest.mark.parametrize("save_memory", [pytest.param(True, marks=pytest.mark.long), False])
def test_memory_follows_from_shapes(save_memory: bool) -> None:
    settings = Train(batch=4, save_memory=save_memory)
    gpen, judge = GPEN(32, 16, 2, narrow=0.125), Discriminator(32, narrow=0.125)
    truth, run = torch.rand(4, 3, 32, 32), objectives.layer_runner(settings)
    for network in (gpen, judge):
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)

    def learn() -> None:
        restored, _ = objectives.restored_faces(gpen, truth, run)
        objectives.add_discriminator_gradients(judge, truth, restored, run)
        objectives.add_generator_gradients(Judges(judge), truth, restored, settings, run)

    peak = max(
        peak_bytes(learn),
        peak_bytes(lambda: objectives.add_r1_gradients(judge, truth, settings, run)),
    )
    weights, own = (sum(4 * each.numel() for each in n.parameters()) for n in (gpen, judge))
    measured = 5 * weights + 4 * own + peak  # gradients, momentum, averaged, best
    estimate = estimate_training(CONFIG, settings, discriminator=True, identity=False)
    assert 1.0 <= (estimate.memory_bytes - LIBRARIES_BYTES) / measured <= 1.4


def test_saving_memory_saves_it_and_costs_a_third() -> None:
    # Adam, since the steps of Muon take the same arithmetic in both.
    plain, saving = (
        estimate_training(CONFIG, Train(save_memory=saves, optimizer="adam"), **PARTS)
        for saves in (False, True)
    )
    assert saving.memory_bytes < plain.memory_bytes
    assert saving.step_operations == pytest.approx(4 / 3 * plain.step_operations, rel=0.03)
    assert saving.state_bytes == plain.state_bytes
    assert saving.seconds(100, 1e9) == pytest.approx(saving.step_operations * 1e-7)


@pytest.mark.parametrize(("optimizer", "copies"), [("adam", 5), ("muon", 4)])
def test_the_state_has_the_stated_size(optimizer: str, copies: int) -> None:
    # Itself, averaged, best, and two moments of Adam or the momentum of Muon.
    gpen = GPEN(32, 16, 2, narrow=0.125)
    weights = sum(4 * each.numel() for each in gpen.parameters())
    settings = Train.model_validate({"optimizer": optimizer})
    estimate = estimate_training(CONFIG, settings, **PARTS)
    assert copies * weights <= estimate.state_bytes <= 1.03 * copies * weights


def test_the_batch_fits_into_memory() -> None:
    config, settings = GPENConfig(16, style_dim=8, n_mlp=1, narrow=0.125), Train(batch=40)
    one, thirty, most = (
        estimate_training(config, Train(batch=batch), **PARTS).memory_bytes for batch in (1, 30, 40)
    )
    assert batch_that_fits(most, config, settings, **PARTS) == 40
    assert batch_that_fits(thirty, config, settings, **PARTS) in (28, 29, 30)
    assert batch_that_fits(one, config, settings, **PARTS) == 1
    assert batch_that_fits(one - 1, config, settings, **PARTS) == 0


def test_large_networks_take_no_memory_to_estimate() -> None:
    estimate = estimate_training(GPENConfig(512), Train(batch=1), **PARTS)
    assert estimate.memory_bytes > 6 * 4 * 71_005_223  # weights, their gradients and moments
    assert estimate.step_operations > 1e12


@pytest.mark.long
def test_speed_is_measured() -> None:
    assert measured_speed(torch.device("cpu")) > 1e6

"""The trainer: it learns, stops in time, and goes on after a kill as if nothing had happened."""

import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from vidrestore.common.errors import VidrestoreError
from vidrestore.common.settings import Train
from vidrestore.models.gpen.network import GPEN
from vidrestore.personal import objectives
from vidrestore.personal.degradations import BlindDegradation
from vidrestore.personal.discriminator import Discriminator
from vidrestore.personal.objectives import Judges
from vidrestore.personal.scores import Scores
from vidrestore.personal.trainer import Look, StepDone, Trainer, TrainingSet

SIDE = 32


@cache
def faces() -> np.ndarray:
    """Return (10, 32, 32, 3) crops of one face, moved and lit differently."""
    picture = data.astronaut()
    crops = [
        cv2.resize(picture[y : y + 192, 130 + x : 322 + x], (SIDE, SIDE), interpolation=3)
        for x in (-8, -4, 0, 4, 8)
        for y in (0, 8)
    ]
    return np.stack(crops)


def training_set() -> TrainingSet:
    return TrainingSet(faces()[:8], faces()[8:], (BlindDegradation().for_side(SIDE),))


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Sums over several threads depend on their number, which other tests may have set."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


def small_gpen() -> GPEN:
    return GPEN(SIDE, style_dim=16, n_mlp=2, narrow=0.03125)


def judges() -> Judges:
    weights = torch.randn(8, 3, 4, 4) / 10

    def embed(images: torch.Tensor) -> torch.Tensor:
        maps = torch.nn.functional.conv2d(images, weights, stride=4)
        return torch.nn.functional.normalize(maps.flatten(1))

    return Judges(Discriminator(SIDE, narrow=0.03125), embed)


def settings(**changes: Any) -> Train:
    values = {
        "steps": 7, "batch": 2, "check_every": 3, "r1_every": 2, "path_every": 3,
        "save_memory": False,
    }  # fmt: skip
    return Train.model_validate(values | changes)


def assert_same(a: GPEN, b: GPEN) -> None:
    pairs = zip(a.state_dict().items(), b.state_dict().values(), strict=True)
    assert [name for (name, one), other in pairs if not torch.equal(one, other)] == []


def test_it_learns() -> None:
    rates = {"decoder_rate": 0.01, "encoder_rate": 0.01, "half_life_images": 8}
    base = small_gpen()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    trainer = Trainer(base, training_set(), settings(steps=60, check_every=20, **rates))
    events = list(trainer.run())
    record = trainer.record
    assert record.best.scores.psnr_db > record.base.psnr_db + 4
    first, last = (
        np.mean([step.losses["pixel"] for step in part])
        for part in (record.losses[:10], record.losses[-10:])
    )
    assert last < 0.5 * first
    assert [event.step for event in events if isinstance(event, Look)] == [20, 40, 60]
    assert [event.step for event in events if isinstance(event, StepDone)] == list(range(1, 61))
    # The base stays as it is.
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


def test_all_losses_are_computed_in_their_steps() -> None:
    trainer = Trainer(small_gpen(), training_set(), settings(steps=4), judges=judges())
    steps = [event for event in trainer.run() if isinstance(event, StepDone)]
    usual = {"discriminator", "pixel", "identity", "adversarial"}
    assert [set(step.losses) - usual for step in steps] == [{"r1", "path"}, set(), {"r1"}, {"path"}]
    assert all(usual <= set(step.losses) for step in steps)
    assert trainer.record.best.scores.identity is not None


@pytest.mark.parametrize(
    "stop_after",
    [pytest.param(2, marks=pytest.mark.long), 5, pytest.param(6, marks=pytest.mark.long)],
)
def test_a_killed_training_gives_the_same_network(tmp_path: Path, stop_after: int) -> None:
    def trainer(folder: Path) -> Trainer:
        folder.mkdir(exist_ok=True)
        torch.manual_seed(1)
        return Trainer(
            small_gpen(), training_set(), settings(), judges=judges(), seed=3,
            state_path=folder / "state.pt",
        )  # fmt: skip

    whole = trainer(tmp_path / "whole")
    list(whole.run())
    killed = trainer(tmp_path / "killed").run()
    for event in killed:
        if isinstance(event, StepDone) and event.step == stop_after:
            break
    killed.close()
    again = trainer(tmp_path / "killed")
    events = list(again.run())
    assert_same(again.network, whole.network)
    assert again.record.looks == whole.record.looks
    assert again.record.losses == whole.record.losses
    # Steps up to the last look before the kill are not repeated.
    first_step = 3 * ((stop_after - 1) // 3) + 1
    assert next(e.step for e in events if isinstance(e, StepDone)) == first_step


def one_of_many_looks(path: Path | None) -> Trainer:
    torch.manual_seed(6)
    return Trainer(
        small_gpen(), training_set(), settings(steps=20, check_every=1, patience=99),
        judges=judges(), state_path=path,
    )  # fmt: skip


TRAINER = "test_trainer.Trainer"


@pytest.mark.long
def test_a_process_that_is_killed_gives_the_same_network(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    code = (
        f"import sys; sys.path[:0] = {[str(each) for each in Path(__file__).parents[:2]]!r}\n"
        "import test_trainer\n"
        "import torch; torch.set_num_threads(1)\n"
        "from helpers.processes import kill_after_call\n"
        "kill_after_call(eval(sys.argv[1]), sys.argv[2], int(sys.argv[3]))\n"
        f"from pathlib import Path\nlist(test_trainer.one_of_many_looks(Path({str(path)!r})).run())"
    )
    # While the second state is written, between two states, and after one.
    moments = ("torch", "save", 2), (TRAINER, "_train_step", 5), (TRAINER, "_save", 3)
    for owner, name, call in moments:
        process = subprocess.run([sys.executable, "-c", code, owner, name, str(call)])
        assert process.returncode == -signal.SIGKILL
    again, whole = one_of_many_looks(path), one_of_many_looks(None)
    first = next(event.step for event in again.run() if isinstance(event, StepDone))
    assert first == 1 + 4 + 3 + 1
    again = one_of_many_looks(path)
    for trainer in (again, whole):
        list(trainer.run())
    assert_same(again.network, whole.network)
    assert [each.name for each in tmp_path.iterdir()] == ["state.pt"]


def test_another_seed_gives_another_network(tmp_path: Path) -> None:
    networks = []
    for seed in (0, 0, 1):
        torch.manual_seed(2)
        path = tmp_path / "state.pt"
        trainer = Trainer(
            small_gpen(), training_set(), settings(steps=2), seed=seed, state_path=path
        )
        list(trainer.run())
        networks.append(trainer.network)
        if seed == 0:
            path.unlink()
    assert_same(networks[0], networks[1])
    weights = [each.generator.input.input for each in networks]
    assert not torch.equal(weights[0], weights[2])


def test_states_of_others_and_damaged_ones_are_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state.pt"

    def first_step(**changes: Any) -> int:
        torch.manual_seed(4)
        trainer = Trainer(
            small_gpen(), training_set(), settings(steps=4, **changes), state_path=path
        )
        return next(event.step for event in trainer.run() if isinstance(event, StepDone))

    torch.manual_seed(4)
    training = Trainer(small_gpen(), training_set(), settings(steps=4), state_path=path).run()
    while not path.exists():
        next(training)
    training.close()
    with caplog.at_level(logging.INFO, "vidrestore"):
        assert first_step() == 4
        assert first_step(encoder_rate=0.5) == 1
        assert "is of another training" in caplog.text
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        assert first_step() == 1
        path.write_bytes(content[: len(content) // 2])
        assert first_step() == 1
    assert caplog.text.count("is damaged, and the training begins anew") == 2


def test_it_stops_when_looks_no_longer_get_better() -> None:
    worse = {"decoder_rate": 0.3, "encoder_rate": 0.3, "half_life_images": 1e-3}
    fine = Trainer(small_gpen(), training_set(), settings(steps=30, check_every=1, patience=2))
    list(fine.run())
    trainer = Trainer(
        fine.network, training_set(), settings(steps=30, check_every=1, patience=2, **worse)
    )
    list(trainer.run())
    record = trainer.record
    assert record.looks[-1].step == record.best.step + 2 < 30
    assert not record.is_better


def test_time_is_limited() -> None:
    trainer = Trainer(small_gpen(), training_set(), settings(steps=1000, minutes=1e-4))
    events = list(trainer.run())
    assert len(events) < 100
    assert isinstance(events[-1], Look)


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    base = small_gpen()
    with torch.no_grad():
        base.generator.to_rgb1.bias.fill_(torch.inf)
    with pytest.raises(VidrestoreError, match=r"the pixel loss became inf in step 1 .* lower"):
        list(Trainer(base, training_set(), settings()).run())


def test_saving_memory_changes_no_gradient() -> None:
    judge, gpen = judges(), small_gpen()
    truth, degraded, noise = (torch.rand(2, 3, SIDE, SIDE) * 2 - 1 for _ in range(3))
    found = []
    for save_memory in (False, True):
        own = settings(save_memory=save_memory)
        run = objectives.layer_runner(own)
        steps: list[Callable[[], object]] = [
            lambda own=own, run=run: objectives.add_generator_gradients(
                judge, truth, objectives.restored_faces(gpen, degraded, run)[0], own, run
            ),
            lambda own=own, run=run: objectives.add_path_gradients(
                gpen, degraded, noise, 0.1, own, run
            ),
            lambda run=run: objectives.add_discriminator_gradients(
                judge.discriminator, truth, objectives.restored_faces(gpen, degraded, run)[0], run
            ),
            lambda own=own, run=run: objectives.add_r1_gradients(
                judge.discriminator, truth, own, run
            ),
        ]
        gradients = []
        for step in steps:
            for network in (gpen, judge.discriminator):
                network.zero_grad()
            step()
            gradients += [
                parameter.grad.clone()
                for network in (gpen, judge.discriminator)
                for parameter in network.parameters()
                if parameter.grad is not None
            ]
        found.append(gradients)
    assert len(found[0]) == len(found[1]) > 100
    for plain, saved in zip(*found, strict=True):
        assert torch.allclose(plain, saved, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("own", "better"),
    [
        (Scores(30.1, 0.5, 0.8), True),
        (Scores(30.0, 0.5, 0.8), True),
        (Scores(29.9, 0.5, 0.8), False),  # pixels
        (Scores(31.0, 0.4, 0.8), False),  # detail
        (Scores(31.0, 0.5, 0.7), False),  # likeness
        (Scores(31.0, 0.5, None), True),
    ],
)
def test_better_means_detail_and_likeness(own: Scores, better: bool) -> None:
    assert own.is_better_than(Scores(30.0, 0.4, 0.7)) == better


def test_the_best_look_is_one_that_may_be_written() -> None:
    base = Scores(30.0, 0.4, 0.7)
    soft, good, better = Scores(33.0, 0.3, 0.7), Scores(30.5, 0.5, 0.8), Scores(30.4, 0.5, 0.9)
    assert sorted([good, better, soft], key=lambda each: each.merit(base)) == [soft, good, better]


def test_crops_of_another_side_are_named() -> None:
    with pytest.raises(ValueError, match="crops of 64 px"):
        Trainer(GPEN(64, 16, 2, narrow=0.03125), training_set(), settings())
    with pytest.raises(ValueError, match=r"with N above 0, got \(0, 32, 32, 3\)"):
        TrainingSet(faces(), faces()[:0], (BlindDegradation(),))

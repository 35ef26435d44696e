"""The trainer: adapts a GPEN to crops of clear faces.

Everything random in a step comes from a generator that is seeded with the seed and the number of
the step. So a training that was killed and goes on from its last state gives the same weights as
one that was not, on the same machine.
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from vidrestore.common.errors import UsageError, VidrestoreError
from vidrestore.common.settings import Train
from vidrestore.models.admission import ran_out_of_memory
from vidrestore.models.gpen.cuda import repeatable_convolutions
from vidrestore.models.gpen.network import GPEN
from vidrestore.personal import objectives, saved_state
from vidrestore.personal.averaging import AveragedWeights
from vidrestore.personal.degradations import Degradation, Pair
from vidrestore.personal.objectives import Judges
from vidrestore.personal.optimizers import optimizers, set_rates
from vidrestore.personal.scores import Scores, score, tensor_of

Crops = npt.NDArray[np.uint8]
"""(N, S, S, 3) uint8 RGB."""

# The least number of half-lives of the averaged weights in a training.
_HALF_LIVES = 20
# Numbers that separate the random numbers of steps from those of the crops that are set apart.
_STEPS, _APART = 0, 1


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """What a network learns from."""

    crops: Crops
    """(N, S, S, 3) uint8 RGB clear faces, for learning."""
    apart: Crops
    """(M, S, S, 3) uint8 RGB clear faces that are set apart, for judging."""
    degradations: tuple[Degradation, ...]
    """Make bad pictures of clear ones; each is as likely as the others."""

    def __post_init__(self) -> None:
        """Check the shapes.

        Raises:
            ValueError: One part is empty, or the crops have another shape or type.
        """
        for name, crops in (("crops", self.crops), ("apart", self.apart)):
            if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[3] != 3 or not len(crops):
                raise ValueError(
                    f"{name} must be (N, S, S, 3) uint8 with N above 0, got {crops.shape} "
                    f"{crops.dtype}"
                )
        if not self.degradations:
            raise ValueError("a training set needs at least one degradation")


@dataclass(frozen=True, slots=True)
class StepDone:
    """A step of training is done."""

    step: int
    """The number of steps that are done."""
    steps: int
    """The number of steps at most."""
    losses: Mapping[str, float]
    """Name of a loss -> its value without its weight. Losses of few steps are there in those."""


@dataclass(frozen=True, slots=True)
class Look:
    """The averaged network was scored on the crops that are set apart."""

    step: int
    """The number of steps that were done."""
    scores: Scores
    """The scores of the averaged network."""
    is_best: bool
    """Whether they are the best so far."""


TrainingEvent = StepDone | Look
"""An event of a training."""


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """What a training did."""

    base: Scores
    """The scores of the network before training."""
    best: Look
    """The look with the best scores, whose weights are the result."""
    looks: tuple[Look, ...]
    """All looks."""
    losses: tuple[StepDone, ...]
    """All steps."""
    seconds: float
    """The time of all steps and looks, in seconds, killed runs included up to their last state."""

    @property
    def is_better(self) -> bool:
        """Whether the result is better than the network before training."""
        return self.best.scores.is_better_than(self.base)


class Trainer:
    """Trains a copy of a network.

    Args:
        base: The network, which stays as it is.
        training_set: What it learns from; its crops have the side of the network.
        settings: How to train.
        judges: The networks that judge. A discriminator learns, too, as a copy.
        seed: Seed of everything random. Default 0.
        device: The device. Default: the CPU.
        state_path: File that keeps the state, so that a later training with the same arguments goes
            on there. None keeps none. A state of other arguments or a damaged one is ignored.

    Raises:
        ValueError: The crops, or the faces that the discriminator judges, have another side.
    """

    def __init__(
        self,
        base: GPEN,
        training_set: TrainingSet,
        settings: Train,
        *,
        judges: Judges | None = None,
        seed: int = 0,
        device: torch.device | None = None,
        state_path: Path | None = None,
    ) -> None:
        judges = judges or Judges()
        size = base.config.size
        for crops in (training_set.crops, training_set.apart):
            if crops.shape[1:3] != (size, size):
                raise ValueError(f"the network needs crops of {size} px, got {crops.shape[1:3]}")
        if judges.discriminator is not None and judges.discriminator.config.size != size:
            raise ValueError(
                f"the network needs a discriminator for {size} px, got one for "
                f"{judges.discriminator.config.size} px"
            )
        self._set, self._settings, self._seed = training_set, settings, seed
        self._device = device or torch.device("cpu")
        self._run = objectives.layer_runner(settings)
        self._gpen = copy.deepcopy(base).to(self._device).train().requires_grad_(True)
        discriminator = copy.deepcopy(judges.discriminator)
        if discriminator is not None:
            discriminator.to(self._device).train().requires_grad_(True)
        self._judges = Judges(discriminator, judges.embed, judges.compare)
        half_life = min(settings.half_life_images, settings.steps * settings.batch / _HALF_LIVES)
        self._average = AveragedWeights(self._gpen, half_life)
        self._optimizers = optimizers(self._gpen, discriminator, settings)
        self.pairs_apart = self._pairs_apart()
        """The pairs of the crops that are set apart, on which networks are scored."""
        self._state_path = state_path
        self._key = self._key_of_arguments(base) if state_path is not None else ""
        self._step, self._path_mean, self._seconds = 0, 0.0, 0.0
        self.kept_step = 0
        """The number of steps after which the state in the file was written; 0: it holds none of
        this training."""
        self._base_scores: Scores | None = None
        self._steps: list[StepDone] = []
        self._looks: list[Look] = []
        self._best: dict[str, torch.Tensor] = {}

    def run(self) -> Iterator[TrainingEvent]:
        """Train until the steps or the time are used up, or no look is better any more.

        Yields:
            An event for each step and each look of this run. `record` and `network` are complete
            when the iterator ends.

        Raises:
            VidrestoreError: A loss is no longer finite.
            UsageError: The state of this training has another form.
            OSError: The state cannot be written.
        """
        self._go_on()
        began = time.monotonic() - self._seconds
        if self._base_scores is None:
            self._base_scores = self._score(self._average.network)
        while not self._is_done():
            done = self._train_step()
            self._steps.append(done)
            self._seconds = time.monotonic() - began
            yield done
            is_last = self._step == self._settings.steps or self._is_late()
            if is_last or self._step % self._settings.check_every == 0:
                look = self._look()
                self._seconds = time.monotonic() - began
                self._save()
                yield look

    @property
    def record(self) -> TrainingRecord:
        """What the training did so far; there is none before the first look."""
        assert self._base_scores is not None
        best = next(look for look in reversed(self._looks) if look.is_best)
        return TrainingRecord(
            self._base_scores, best, tuple(self._looks), tuple(self._steps), self._seconds
        )

    @property
    def network(self) -> GPEN:
        """The averaged network of the best look, on the CPU, in evaluation mode."""
        network = copy.deepcopy(self._average.network).cpu()
        network.load_state_dict(self._best)
        return network

    def _is_done(self) -> bool:
        patience, looks = self._settings.patience, self._looks
        gave_up = len(looks) > patience and not any(each.is_best for each in looks[-patience:])
        return self._step >= self._settings.steps or gave_up or self._is_late()

    def _is_late(self) -> bool:
        minutes = self._settings.minutes
        return minutes is not None and self._seconds >= 60 * minutes

    def _done_share(self) -> float:
        minutes = self._settings.minutes
        of_time = 0.0 if minutes is None else self._seconds / (60 * minutes)
        return min(max(self._step / self._settings.steps, of_time), 1.0)

    def _train_step(self) -> StepDone:
        for learners in self._optimizers.values():
            set_rates(learners, self._done_share())
        random = np.random.default_rng((self._seed, _STEPS, self._step))
        chosen = random.integers(len(self._set.crops), size=self._settings.batch)
        pairs = [self._pair(self._set.crops[index], random) for index in chosen]
        truth = tensor_of([pair.truth for pair in pairs], self._device)
        degraded = tensor_of([pair.degraded for pair in pairs], self._device)
        with _repeatable(self._device):
            found = self._penalty_step(truth)
            # The discriminator's step leaves the generator as it is, so that both learn from one
            # forward pass. The penalty comes before it, since both together take the most memory.
            restored, _ = objectives.restored_faces(self._gpen, degraded, self._run)
            found |= self._judge_step(truth, restored) | self._restore_step(truth, restored)
            if self._is_due(self._settings.path_every) and self._settings.path_weight:
                noise = random.standard_normal(degraded.shape, np.float32)
                found |= self._path_step(degraded, torch.from_numpy(noise).to(self._device))
        losses = {name: loss.item() for name, loss in found.items()}
        self._step += 1
        for name, value in losses.items():
            if not math.isfinite(value):
                raise VidrestoreError(
                    f"the {name} loss became {value} in step {self._step} of the training; lower "
                    "the learning rates"
                )
        self._average.update(self._gpen, len(truth))
        return StepDone(self._step, self._settings.steps, losses)

    @contextmanager
    def _update_of(self, network: str) -> Iterator[None]:
        """Change the weights of a network by the gradients that the scope adds."""
        for optimizer in self._optimizers[network]:
            optimizer.zero_grad()
        yield
        for optimizer in self._optimizers[network]:
            optimizer.step()

    def _penalty_step(self, truth: torch.Tensor) -> dict[str, torch.Tensor]:
        discriminator, settings = self._judges.discriminator, self._settings
        if discriminator is None or not settings.r1_weight or not self._is_due(settings.r1_every):
            return {}
        with self._update_of("discriminator"):
            return objectives.add_r1_gradients(discriminator, truth, settings, self._run)

    def _judge_step(self, truth: torch.Tensor, restored: torch.Tensor) -> dict[str, torch.Tensor]:
        discriminator = self._judges.discriminator
        if discriminator is None:
            return {}
        with self._update_of("discriminator"):
            return objectives.add_discriminator_gradients(discriminator, truth, restored, self._run)

    def _restore_step(self, truth: torch.Tensor, restored: torch.Tensor) -> dict[str, torch.Tensor]:
        with self._update_of("generator"):
            return objectives.add_generator_gradients(
                self._judges, truth, restored, self._settings, self._run
            )

    def _path_step(self, degraded: torch.Tensor, noise: torch.Tensor) -> dict[str, torch.Tensor]:
        if self._judges.discriminator is None:
            return {}
        # Half a batch, as the authors take: gradients of gradients need more memory.
        half = max(len(degraded) // 2, 1)
        with self._update_of("generator"):
            losses, mean = objectives.add_path_gradients(
                self._gpen, degraded[:half], noise[:half], self._path_mean, self._settings,
                self._run,
            )  # fmt: skip
        self._path_mean = mean.item()
        return losses

    def _is_due(self, every: int) -> bool:
        return self._step % every == 0

    def _pair(self, crop: npt.NDArray[np.uint8], random: np.random.Generator) -> Pair:
        degrade = self._set.degradations[random.integers(len(self._set.degradations))]
        return degrade(crop.astype(np.float32) / np.float32(255), random)

    def _pairs_apart(self) -> Sequence[Pair]:
        """Return pairs of the crops that are set apart, always the same."""
        return [
            self._pair(crop, np.random.default_rng((self._seed, _APART, index)))
            for index, crop in enumerate(self._set.apart)
        ]

    def _score(self, network: nn.Module) -> Scores:
        with _repeatable(self._device):
            return score(network, self.pairs_apart, self._judges, self._device)

    def _look(self) -> Look:
        scores = self._score(self._average.network)
        assert self._base_scores is not None
        merits = [each.scores.merit(self._base_scores) for each in self._looks]
        own = scores.merit(self._base_scores)
        look = Look(self._step, scores, not merits or own > max(merits))
        self._looks.append(look)
        if look.is_best:
            self._best = {
                name: value.cpu().clone()
                for name, value in self._average.network.state_dict().items()
            }
        return look

    def _key_of_arguments(self, base: GPEN) -> str:
        """Return a hash of all that the result depends on, apart from the machine.

        Degradations count by what they make of the crops that are set apart.
        """
        digest = hashlib.sha256()
        for text in (self._settings.as_text(), repr(base.config), str(self._seed)):
            digest.update(text.encode() + b"\n")
        networks: list[nn.Module] = [base]
        if self._judges.discriminator is not None:
            networks.append(self._judges.discriminator)
        for network in networks:
            for name, value in network.state_dict().items():
                digest.update(name.encode())
                digest.update(np.ascontiguousarray(value.detach().cpu().numpy()).data)
        digest.update(np.ascontiguousarray(self._set.crops).data)
        for pair in self.pairs_apart:
            digest.update(np.ascontiguousarray(pair.degraded).data)
        for judge in (self._judges.embed, self._judges.compare):
            digest.update(b"judged" if judge is not None else b"not judged")
        return digest.hexdigest()

    def _save(self) -> None:
        if self._state_path is None:
            return
        networks: dict[str, nn.Module] = {"gpen": self._gpen, "average": self._average.network}
        if self._judges.discriminator is not None:
            networks["discriminator"] = self._judges.discriminator
        saved_state.write(
            self._state_path,
            self._key,
            networks={name: network.state_dict() for name, network in networks.items()},
            optimizers={
                name: [each.state_dict() for each in own] for name, own in self._optimizers.items()
            },
            best=self._best,
            progress=self._progress(),
        )
        self.kept_step = self._step

    def _progress(self) -> dict[str, Any]:
        assert self._base_scores is not None
        return {
            "step": self._step,
            "path_mean": self._path_mean,
            "seconds": self._seconds,
            "base": _numbers(self._base_scores),
            "looks": [[each.step, _numbers(each.scores), each.is_best] for each in self._looks],
            "losses": [[each.step, dict(each.losses)] for each in self._steps],
        }

    def _go_on(self) -> None:
        """Go on from the state of an earlier run, if there is one."""
        if self._state_path is None:
            return
        state = saved_state.read(self._state_path, self._key, self._device)
        if state is None:
            return
        try:
            self._take(state)
        except (LookupError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            if ran_out_of_memory(error):
                raise
            raise UsageError(
                f"{self._state_path} is the state of this training, but another version of "
                "vidrestore wrote it in another form; end the training with that version, or "
                "remove the file to begin anew"
            ) from error

    def _take(self, state: Mapping[str, Any]) -> None:
        self._gpen.load_state_dict(state["networks"]["gpen"])
        self._average.network.load_state_dict(state["networks"]["average"])
        if self._judges.discriminator is not None:
            self._judges.discriminator.load_state_dict(state["networks"]["discriminator"])
        for name, own in self._optimizers.items():
            for optimizer, kept in zip(own, state["optimizers"][name], strict=True):
                optimizer.load_state_dict(kept)
        self._best = {name: value.cpu() for name, value in state["best"].items()}
        progress = state["progress"]
        self._step = self.kept_step = progress["step"]
        self._path_mean = progress["path_mean"]
        self._seconds = progress["seconds"]
        self._base_scores = Scores(*progress["base"])
        self._looks = [Look(step, Scores(*own), best) for step, own, best in progress["looks"]]
        steps = self._settings.steps
        self._steps = [StepDone(step, steps, own) for step, own in progress["losses"]]


def _numbers(scores: Scores) -> list[float | None]:
    return [scores.psnr_db, scores.detail, scores.identity]


def _repeatable(device: torch.device) -> Any:
    return repeatable_convolutions() if device.type == "cuda" else nullcontext()

"""A run: from videos and photographs of one person to the file of an adapted network."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from vidrestore.analysis.cache import OTHER_FRAMES
from vidrestore.analysis.tracks import mean_direction
from vidrestore.common.checksums import FileHashes
from vidrestore.common.counting import counted
from vidrestore.common.errors import ChangedSourceError, OutputError, UsageError, not_written
from vidrestore.common.events import OnEvent, TrainingProgress, notify
from vidrestore.common.files import fitting_name, held_folder, output_place, remove_left_behind
from vidrestore.common.handled import log_handled, logged
from vidrestore.common.settings import Settings
from vidrestore.imaging.frame import FloatArray
from vidrestore.models.admission import ran_out_of_memory
from vidrestore.models.devices import GB
from vidrestore.models.factory import chosen_recognizer, with_models_here
from vidrestore.models.gpen.network import GPEN
from vidrestore.models.recognizer import Recognition
from vidrestore.personal.candidates import cut, look
from vidrestore.personal.crop_choice import Choice, choose_crops
from vidrestore.personal.degradations import BlindDegradation, Degradation, FilmDegradation, Pair
from vidrestore.personal.film_conditions import film_conditions
from vidrestore.personal.forecast import Forecast, forecast
from vidrestore.personal.networks import open_base, open_judges
from vidrestore.personal.person import PersonFinder, Source
from vidrestore.personal.personal_file import gains, write_personal_file
from vidrestore.personal.request import NETWORK, PersonalizeRequest
from vidrestore.personal.trainer import (
    Look,
    StepDone,
    Trainer,
    TrainingEvent,
    TrainingRecord,
    TrainingSet,
)


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A training that has ended, whether or not the network is better than before."""

    record: TrainingRecord
    """What the training did."""
    forecast: Forecast
    """What it was forecast to take."""
    settings: Settings
    """The settings of the run."""
    training_set: TrainingSet
    """What the network learned from."""
    pairs_apart: tuple[Pair, ...]
    """The pairs of the crops that were set apart."""
    base: GPEN
    """The network before training, on the CPU."""
    network: GPEN
    """The adapted network, on the CPU."""
    film_conditions: int
    """Number of faces of the videos whose condition the training imitated."""


OnTrained = Callable[[Trained], None]
"""Receives a training that has ended, before the file is written or refused."""


def run(
    request: PersonalizeRequest,
    on_event: OnEvent | None = None,
    on_trained: OnTrained | None = None,
) -> TrainingRecord:
    """Adapt a network to one person, and write it if it is better than before.

    The state is kept in a folder beside the output until the training ends, so that the same
    request goes on where a killed run stopped, and gives the same file.

    Args:
        request: The request.
        on_event: Receives progress and notices. Default: none are sent.
        on_trained: See `OnTrained`. Default: nothing.

    Returns:
        What the training did.

    Raises:
        VidrestoreError: The network is not better than before, or a loss is no longer finite; or
            see `PersonalizeRequest.validate`, `PersonFinder`, `choose_crops` and `forecast`.
    """
    request.validate()
    settings, hashes = _with_template(request.settings), FileHashes()
    planned = forecast(settings, on_event)
    notify(on_event, planned.sentence())
    settings = with_models_here(settings, on_event)
    recognizer = chosen_recognizer(settings, on_event, hashes)
    finder = PersonFinder(
        request, settings, has_recognizer=recognizer is not None, on_event=on_event, hashes=hashes
    )
    base, device = open_base(settings, on_event, hashes), torch.device(planned.device)
    judges = open_judges(planned.size_px, settings, recognizer, device, on_event, hashes)
    # While a state replaces the one before, both are on the disk.
    with _state_of(request, 2 * planned.state_bytes) as state:
        request.validate()  # another run of the same output may have ended meanwhile
        material = _material(finder, planned.size_px, settings, recognizer, on_event)
        trainer = Trainer(
            base,
            material.training_set,
            settings.train.model_copy(update={"batch": planned.batch}),
            judges=judges,
            seed=settings.train.seed,
            device=device,
            state_path=state,
        )
        with _kept_told(trainer, state, on_event):
            _follow(trainer, planned, state, on_event)
            record, network = trainer.record, trainer.network
            if on_trained is not None:
                on_trained(
                    Trained(
                        record=record,
                        forecast=planned,
                        settings=settings,
                        training_set=material.training_set,
                        pairs_apart=tuple(trainer.pairs_apart),
                        base=base,
                        network=network,
                        film_conditions=material.film_conditions,
                    )
                )
            embedding = material.embedding if request.keeps_embedding else None
            if not record.is_better:
                state.unlink(missing_ok=True)  # no other training can go on from it
            write_personal_file(
                request.target,
                network,
                record,
                base=planned.base,
                learned=len(material.choice.learned),
                apart=len(material.choice.apart),
                embedding=embedding,
            )
        state.unlink(missing_ok=True)
    return record


def _with_template(settings: Settings) -> Settings:
    """Return the settings with GPEN's template for crops, if they leave it open."""
    if settings.align.template != "auto":
        return settings
    align = settings.align.model_copy(update={"template": "gpen"})
    return settings.model_copy(update={"align": align})


@dataclass(frozen=True, slots=True, eq=False)
class _Material:
    """What a network learns from, and how it was chosen."""

    training_set: TrainingSet
    choice: Choice
    embedding: FloatArray | None
    film_conditions: int


def _material(
    finder: PersonFinder,
    size_px: int,
    settings: Settings,
    recognizer: Recognition | None,
    on_event: OnEvent | None,
) -> _Material:
    """Gather crops; where a kept analysis does not match its file, with new analyses."""
    sources = finder.sources()
    try:
        return _gathered(sources, size_px, settings, recognizer, on_event)
    except ChangedSourceError as error:
        if not any(source.is_kept for source in sources):
            raise
        log_handled(error)
        notify(on_event, OTHER_FRAMES)
    sources = finder.sources(may_be_kept=False)
    return _gathered(sources, size_px, settings, recognizer, on_event)


def _gathered(
    sources: Sequence[Source],
    size_px: int,
    settings: Settings,
    recognizer: Recognition | None,
    on_event: OnEvent | None,
) -> _Material:
    looks = look(sources, size_px, recognizer, on_event)
    choice = choose_crops([each.candidate for each in looks], size_px, settings.train.crops)
    chosen = [looks[index] for index in (*choice.learned, *choice.apart)]
    crops = cut(sources, [each.place for each in chosen], size_px)
    learned = len(choice.learned)
    notify(
        on_event,
        f"{counted(learned, 'crop')} from {counted(len(sources), 'file')} are learned from, and "
        f"{counted(len(choice.apart), 'crop')} are set apart; of {counted(len(looks), 'face')} "
        f"that were looked at, {choice.unclear} are too small, too blurred or turned too far, and "
        f"{choice.others} show another person",
    )
    conditions = film_conditions(sources, size_px, crops[0])
    degradations: list[Degradation] = [BlindDegradation().for_side(size_px)]
    if conditions:
        degradations.append(FilmDegradation(conditions))
        notify(
            on_event,
            f"half of the bad pictures for training imitate {counted(len(conditions), 'face')} of "
            "the videos, the others are blurred and compressed at random",
        )
    known = [each.candidate.embedding for each in chosen]
    return _Material(
        TrainingSet(crops[:learned], crops[learned:], tuple(degradations)),
        choice,
        mean_direction([each for each in known if each is not None]),
        len(conditions),
    )


def _follow(trainer: Trainer, planned: Forecast, state: Path, on_event: OnEvent | None) -> None:
    """Train to the end, and send what the user sees of it."""
    is_begun = state.exists()
    for event in _events(trainer, planned, state):
        if isinstance(event, Look):
            notify(
                on_event,
                f"after {counted(event.step, 'step')}, compared with {planned.base} on the "
                f"crops that are set apart: {gains(trainer.record.base, event.scores)}",
            )
            continue
        if is_begun:
            is_begun = False
            notify(on_event, _of_begun(event, state))
        if on_event is not None:
            on_event(TrainingProgress(event.step, event.steps, event.losses))


def _events(trainer: Trainer, planned: Forecast, state: Path) -> Iterator[TrainingEvent]:
    """Train; errors of the disk and the memory become sentences, those of the receiver do not."""
    try:
        yield from trainer.run()
    except OSError as error:
        raise _not_kept(state, state.parent, error) from error
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        raise UsageError(
            f"{counted(planned.batch, 'face')} in each step do not fit into the memory of "
            f"{planned.device}, of which other programs use a part; end them, or choose fewer "
            "with --set train.batch or a smaller network with --base"
        ) from error


def _not_kept(state: Path, folder: Path, error: OSError) -> OutputError:
    what = f"the state of the training {state}"
    return not_written(what, folder, error, "cannot be kept")


@contextmanager
def _kept_told(trainer: Trainer, state: Path, on_event: OnEvent | None) -> Iterator[None]:
    """Tell, where the scope is left early, what of the training is kept."""
    try:
        yield
    except BaseException:
        if trainer.kept_step and state.exists():
            notify(
                on_event,
                f"the training after {counted(trainer.kept_step, 'step')} is kept in "
                f"{state.parent}; the same command goes on from there",
            )
        raise


def _of_begun(event: StepDone, state: Path) -> str:
    """Return the notice about a state that an earlier run left."""
    if event.step > 1:
        return f"training goes on after step {event.step - 1}, where an earlier run stopped"
    return (
        f"{state} is damaged, or the state of a training with other crops or settings, so training "
        "begins anew"
    )


@contextmanager
def _state_of(request: PersonalizeRequest, needed_bytes: int) -> Iterator[Path]:
    """Lock the folder for the state of a training; remove it at the end if it holds none."""
    place = output_place(request.target, NETWORK)
    folder = place.with_name(fitting_name(place.parent, place.name, ".training"))
    state = folder / "state.pt"
    with ExitStack() as last, ExitStack() as stack:
        try:
            stack.enter_context(held_folder(folder))
            # It is removed while the lock is held, since another run may take the lock right after.
            # Windows cannot remove an open file.
            (last if sys.platform == "win32" else stack).callback(_remove_empty, folder, state)
            _check_disk(folder, needed_bytes - (state.stat().st_size if state.exists() else 0))
        except BlockingIOError as error:
            raise UsageError(
                f"another run is training {request.target}; wait for it or choose another name"
            ) from error
        except OSError as error:
            with logged(OSError):
                folder.rmdir()  # where nothing is in it
            raise _not_kept(state, folder.parent, error) from error
        yield state


def _remove_empty(folder: Path, state: Path) -> None:
    """Remove a folder that holds no state, and nothing that the user keeps there."""
    with logged(OSError):
        if not state.exists():
            remove_left_behind(state)
            (folder / "lock").unlink(missing_ok=True)
            folder.rmdir()


def _check_disk(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise OutputError(
            f"training keeps up to {needed_bytes / GB:.1f} GB in {folder}, and its disk has "
            f"{free / GB:.1f} GB free; choose another folder for the output"
        )

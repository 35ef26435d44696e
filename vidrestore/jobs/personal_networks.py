"""The networks of single people in a run: which faces they restore, decided once in the plan.

A restorer of one person is used for the faces of that person only. A recognizer finds them, unless
the user names the people to restore.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidrestore.analysis.choice import Choice, wanted_people
from vidrestore.analysis.people import surely_recognized
from vidrestore.analysis.result import Analysis
from vidrestore.common.errors import ConfigError, UsageError, WeightsError, system_reason
from vidrestore.common.events import OnEvent
from vidrestore.common.files import is_same_file
from vidrestore.common.quoting import quoted
from vidrestore.common.settings import RESTORERS, Person, Settings
from vidrestore.common.text_files import can_be_found
from vidrestore.imaging.frame import FloatArray
from vidrestore.models.factory import reference_embedding
from vidrestore.models.restorers import Restorer
from vidrestore.models.restorers.assignment import Assignment
from vidrestore.personal.personal_file import Description, read_description
from vidrestore.personal.request import BASES


@dataclass(frozen=True, slots=True, eq=False)
class PersonalNetwork:
    """A restorer of one person, and how the person is recognized."""

    person: str
    """The name of the person, for messages."""
    restorer: str
    """The name of the restorer, or its file."""
    embedding: FloatArray
    """(d,) embedding of the person, of unit length."""


def with_base_network(settings: Settings, choice: Choice) -> Settings:
    """Replace a restorer that was adapted to one person by the network that it was made from.

    The person becomes one of `settings.person`, so that the restorer is used only for faces that a
    recognizer surely takes for the person; where one of them has the restorer already, that one
    tells how to recognize the person. Nothing changes where the user names the people to restore,
    because the restorer is for them.

    Args:
        settings: The settings.
        choice: The choice of the user.

    Returns:
        The settings.

    Raises:
        UsageError: The file does not tell how to recognize the person, or which network to use for
            other people.
        WeightsError: The file is damaged or cannot be read.
    """
    name = settings.restore.restorer
    if _names_people(choice) or (found := _description(name)) is None:
        return settings
    if found.base not in BASES:
        raise UsageError(
            f"{name} was made from the network {quoted(found.base)}, which is none of "
            f"{', '.join(BASES)}, so other people would have no network; choose the person "
            "with --people, or give the network as the restorer and the person in a profile"
        )
    how = settings.restore.model_copy(update={"restorer": found.base})
    settings = settings.model_copy(update={"restore": how})
    others = (Path(person.restorer) for person in settings.person)
    if any(can_be_found(other) and is_same_file(Path(name), other) for other in others):
        return settings
    person = Person(name=Path(name).stem, restorer=name)
    return settings.model_copy(update={"person": (*settings.person, person)})


def personal_networks(settings: Settings, on_event: OnEvent | None) -> list[PersonalNetwork]:
    """Find out how to recognize the people of `settings.person`.

    Args:
        settings: The settings, with the detector chosen.
        on_event: Receives the progress of a download and notices; None: none are sent.

    Returns:
        The networks of the people.

    Raises:
        UsageError: There is neither a photo nor an embedding of a person, a photo cannot be judged
            (see `reference_embedding`), or two people have the same face.
        InputError: A photo cannot be read.
        WeightsError: A weight file is missing or damaged.
    """
    networks: list[PersonalNetwork] = []
    for person in settings.person:
        if person.reference is not None:
            embedding = reference_embedding(person.reference, settings, on_event)
        else:
            found = _description(person.restorer)
            if found is None or found.embedding is None:
                raise UsageError(
                    f"{person.restorer} holds no embedding by which {person.name} can be "
                    "recognized; choose the person with --people, or give a photo as the reference "
                    "of a [[person]] in a profile"
                )
            embedding = found.embedding
        for other in networks:
            if np.array_equal(other.embedding, embedding):
                raise UsageError(
                    f"the two [[person]] {other.person} and {person.name} are recognized by the "
                    "same face, so vidrestore cannot tell them apart; remove one of them, or give "
                    "it another photo as the reference"
                )
        networks.append(PersonalNetwork(person.name, person.restorer, embedding))
    return networks


def check_recognition(settings: Settings, *, recognizes: bool) -> None:
    """Refuse networks of single people where no recognizer can find these people.

    Args:
        settings: The settings.
        recognizes: Whether a recognizer is used.

    Raises:
        UsageError: There is no recognizer, and a person has a restorer of their own.
    """
    if settings.person and not recognizes:
        files = " and ".join(dict.fromkeys(person.restorer for person in settings.person))
        raise UsageError(
            f"{files} is for one person, whom vidrestore cannot recognize without the recognizer "
            f"of an InsightFace pack (people.recognise, {settings.detect.pack}); choose the person "
            "with --people and --restorer, or run vidrestore weights fetch "
            f"{settings.detect.pack}"
        )


def check_shots(names: Assignment[str | None], choice: Choice) -> None:
    """Refuse a restorer of one person for whole shots, unless the user names the people.

    Args:
        names: The names of the restorers.
        choice: The choice of the user.

    Raises:
        ConfigError: A shot has such a restorer.
        WeightsError: A file is damaged or cannot be read.
    """
    if _names_people(choice):
        return
    for _, name in names.stretches:
        if name is not None and _description(name) is not None:
            raise ConfigError(
                f"the shots give everyone the restorer {name}, which is for one person; give it "
                "under a heading [people.1], with the number of the person"
            )


def assigned(
    names: Assignment[str | None],
    analysis: Analysis,
    networks: Sequence[PersonalNetwork],
    *,
    similarity: float,
) -> tuple[Assignment[str | None], list[str]]:
    """Assign the network of each person to the tracks of that person.

    Args:
        names: The names of the restorers; a restorer that it gives to a track stays.
        analysis: The analysis, with the embeddings of the tracks.
        networks: The networks.
        similarity: The least cosine of two embeddings of one person, in [-1, 1].

    Returns:
        The names, with those of the networks, and notices about people who were not found.

    Raises:
        UsageError: An embedding is of another recognizer than that of the analysis.
    """
    _check_lengths(analysis, networks)
    embeddings = [network.embedding for network in networks]
    found = surely_recognized(
        embeddings, analysis.tracks, similarity=similarity,
        names=[network.person for network in networks],
    )  # fmt: skip
    seen = {networks[index].person for index in found.values()}
    own = {
        track.track_id: networks[found[track.person_id]].restorer
        for track in analysis.tracks
        if track.person_id in found
    }
    notes = [
        f"no face of the video is surely that of {network.person}, for whom {network.restorer} is"
        for network in networks
        if network.person not in seen
    ]
    return Assignment(names.stretches, own | dict(names.of_tracks)), notes


def labels_of(
    names: Assignment[str | None], analysis: Analysis, settings: Settings, own: Restorer | None
) -> dict[int, str]:
    """Name the restorers of people and those that come from files, for the summary.

    Args:
        names: The names of the restorers.
        analysis: The analysis with the tracks.
        settings: The settings, which have the usual restorer and the names of people.
        own: A restorer that the caller gave in place of the usual one; None: none.

    Returns:
        Number of the track -> label; tracks that have no restorer of their own are missing where
        the restorer has a name of `RESTORERS`.
    """
    # A restorer of several people does not tell which of them a face shows.
    shared = Counter(person.restorer for person in settings.person)
    people = {
        person.restorer: person.name for person in settings.person if shared[person.restorer] == 1
    }
    usual = settings.restore.restorer if own is None else None
    labels = {}
    for track in analysis.tracks:
        name = names.of_tracks.get(track.track_id, names.at(track.first_frame)) or usual
        if name is not None and (name not in RESTORERS or track.track_id in names.of_tracks):
            labels[track.track_id] = _label(name, people.get(name, ""))
    return labels


def _label(restorer: str, person: str) -> str:
    file = Path(restorer)
    return file.name if person in ("", file.stem) else f"{file.name} ({person})"


def _names_people(choice: Choice) -> bool:
    """Tell whether the user names the people to restore, not those to leave out."""
    is_named = choice.people is not None and not wanted_people(choice.people).all_but
    return is_named or choice.reference is not None


def _description(name: str) -> Description | None:
    """Return the description in the file of a restorer; None where it is none of one person."""
    if name in RESTORERS or not (can_be_found(Path(name)) and Path(name).is_file()):
        return None
    try:
        return read_description(Path(name))
    except OSError as error:
        raise WeightsError(f"{name} cannot be read: {system_reason(error)}") from error


def _check_lengths(analysis: Analysis, networks: Sequence[PersonalNetwork]) -> None:
    lengths = {len(own) for own in _embeddings(analysis)}
    for network in networks:
        own = len(network.embedding)
        if lengths and own not in lengths:
            raise UsageError(
                f"the embedding of {network.person} has {own} numbers and those of the faces have "
                f"{', '.join(map(str, sorted(lengths)))}, so another recognizer made it; use the "
                "pack with which the file was made, or give a photo of the person as the reference"
            )


def _embeddings(analysis: Analysis) -> Iterator[FloatArray]:
    return (track.embedding for track in analysis.tracks if track.embedding is not None)

"""Finding one person in videos and photographs, by the analysis of each of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vidrestore.analysis.cache import find_analysis
from vidrestore.analysis.choice import Wanted
from vidrestore.analysis.people import chosen, people_embeddings, people_like
from vidrestore.analysis.result import Analysis
from vidrestore.analysis.selection import NOT_JOINED
from vidrestore.analysis.tracks import Track
from vidrestore.common.checksums import FileHashes
from vidrestore.common.counting import counted
from vidrestore.common.errors import InputError, UsageError
from vidrestore.common.events import DownloadProgress, Event, OnEvent, Progress, notify
from vidrestore.common.handled import log_handled
from vidrestore.common.settings import Settings
from vidrestore.imaging.frame import FloatArray
from vidrestore.media.probe import probe
from vidrestore.models.factory import reference_embedding
from vidrestore.personal.request import PersonalizeRequest, photographs_in


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A video or a photograph with the person."""

    path: Path
    """The file, or the pattern of numbered pictures."""
    analysis: Analysis
    """Its analysis."""
    tracks: tuple[Track, ...]
    """The tracks of the person."""
    is_kept: bool
    """Whether the analysis is that of an earlier run; only the frames can prove it right."""

    @property
    def is_photograph(self) -> bool:
        """Whether it is one picture."""
        return self.analysis.frame_count == 1


class PersonFinder:
    """Finds the person of a request.

    Args:
        request: The request.
        settings: Its settings, a result of `with_models_here`.
        has_recognizer: Whether there is a recognizer.
        on_event: Receives progress and notices; None: none are sent.
        hashes: Hashes of the files that this run has read already.

    Raises:
        UsageError: The request needs a recognizer, and there is none.
    """

    def __init__(
        self,
        request: PersonalizeRequest,
        settings: Settings,
        *,
        has_recognizer: bool,
        on_event: OnEvent | None,
        hashes: FileHashes,
    ) -> None:
        self._request, self._settings, self._on_event = request, settings, on_event
        self._hashes = hashes
        several = len(request.sources) > 1 or request.photos is not None
        if not has_recognizer and (several or request.reference is not None):
            pack = settings.detect.pack
            raise UsageError(
                "finding the person of a photograph, or one person in several files, needs the "
                f"recognizer of an InsightFace pack, and the pack {pack} is missing or has none; "
                "run vidrestore weights fetch buffalo_l, for non-commercial use, or give one video "
                "with --person"
            )

    def sources(self, *, may_be_kept: bool = True) -> list[Source]:
        """Analyze all inputs, and find the person in them.

        Args:
            may_be_kept: Whether analyses of earlier runs may be used. Default: True.

        Returns:
            The inputs that show the person, in order.

        Raises:
            UsageError: There is no such person.
            InputError: An input cannot be read.
            WeightsError: The weights of the detector are missing or damaged.
        """
        request = self._request
        first, *others = request.sources
        found, wanted = [], None
        if request.reference is not None:
            wanted = reference_embedding(request.reference, self._settings, self._on_event)
            others = [first, *others]
        else:
            known, is_kept = self._analysis(first, may_be_kept, self._on_event)
            if not known.people_are_joined:
                notify(self._on_event, NOT_JOINED)
            there = {track.person_id for track in known.tracks}
            (number,) = chosen(Wanted(frozenset([request.person or 0])), there)
            own = tuple(track for track in known.tracks if track.person_id == number)
            found.append(Source(first, known, own, is_kept))
            if others or request.photos is not None:
                wanted = _embedding(found[0], number)
        assert wanted is not None or not others
        for path in others:
            known, is_kept = self._analysis(path, may_be_kept, self._on_event)
            if source := self._like(wanted, path, known, is_kept):
                found.append(source)
            else:
                notify(self._on_event, f"no one in {path} looks like the person")
        if request.photos is not None:
            found += self._photographs(request.photos, wanted, may_be_kept)
        if not found:
            raise UsageError(
                f"no one in the inputs looks like the face of {request.reference}; use another "
                "photograph, or choose the person by --person"
            )
        return found

    def _photographs(
        self, folder: Path, wanted: FloatArray | None, may_be_kept: bool
    ) -> Iterator[Source]:
        """Yield the photographs of a folder that show the person; notices count the others."""
        paths = photographs_in(folder)
        unreadable = strangers = 0
        for done, path in enumerate(paths, start=1):
            try:
                known, is_kept = self._analysis(path, may_be_kept, self._of_photograph)
            except (InputError, UsageError) as error:
                log_handled(error)
                unreadable += 1
            else:
                if source := self._like(wanted, path, known, is_kept):
                    yield source
                else:
                    strangers += 1
            if self._on_event is not None:
                self._on_event(
                    Progress("look at photographs", done, len(paths), unit="photographs")
                )
        for count, what in (
            (unreadable, "cannot be read (--verbose shows why)"),
            (strangers, "do not show the person" if strangers > 1 else "does not show the person"),
        ):
            if count:
                notify(self._on_event, f"{counted(count, 'photograph')} of {folder} {what}")

    def _of_photograph(self, event: Event) -> None:
        """Pass on what counts for one of many photographs; the files have one progress bar."""
        if self._on_event is not None and isinstance(event, DownloadProgress):
            self._on_event(event)

    def _analysis(
        self, path: Path, may_be_kept: bool, on_event: OnEvent | None
    ) -> tuple[Analysis, bool]:
        settings = self._settings
        known = find_analysis(
            probe(path, settings), settings, may_be_kept=may_be_kept, hashes=self._hashes,
            on_event=on_event,
        )  # fmt: skip
        return known.analysis, known.is_kept

    def _like(
        self, wanted: FloatArray | None, path: Path, known: Analysis, is_kept: bool
    ) -> Source | None:
        """Return the source with the tracks of all who look like the person; None: no one does."""
        assert wanted is not None
        people = _embeddings(known)
        alike = people_like(wanted, people, similarity=self._settings.people.similarity)
        own = tuple(track for track in known.tracks if track.person_id in alike)
        return Source(path, known, own, is_kept) if own else None


def _embeddings(analysis: Analysis) -> dict[int, FloatArray]:
    tracks = analysis.tracks
    return people_embeddings([t.person_id for t in tracks], [t.embedding for t in tracks])


def _embedding(source: Source, number: int) -> FloatArray:
    found = _embeddings(source.analysis).get(number)
    if found is None:
        raise UsageError(
            f"person {number} in {source.path} is nowhere clear enough to be recognized in other "
            "files; choose the person by --reference"
        )
    return found

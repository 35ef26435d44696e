"""What a run told its receiver of events."""

from collections.abc import Iterable

from vidrestore.common.events import Event, Notice, Progress


def messages(events: Iterable[Event]) -> list[str]:
    """Those of the notices, in their order."""
    return [event.message for event in events if isinstance(event, Notice)]


def is_at(event: Event, stage: str, frame: int) -> bool:
    """Whether the stage has done so many frames or more."""
    return isinstance(event, Progress) and event.stage == stage and event.frame >= frame

"""The times that the stages of a pass work and wait."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class StageTime:
    """The times of a stage's thread, and the number of items that it produced."""

    items: int = 0
    """The number of items that the stage produced."""
    busy_seconds: float = 0.0
    """The time in which the thread worked or waited for a processor, in seconds."""
    processor_seconds: float = 0.0
    """The processor time of the thread, in seconds, without that of threads in libraries."""
    starved_seconds: float = 0.0
    """The time in which the thread waited for items of the stages before, in seconds."""
    held_seconds: float = 0.0
    """The time in which the thread waited for the stages after to take items, in seconds."""

    @property
    def seconds(self) -> float:
        """The time that the thread worked and waited, in seconds."""
        return self.busy_seconds + self.starved_seconds + self.held_seconds

    def add(self, other: StageTime) -> None:
        """Add the items and times of another thread.

        Args:
            other: The items and times to add.
        """
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

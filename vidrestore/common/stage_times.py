"""How long the stages of a pass worked and waited."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class StageTime:
    """Where the seconds of a stage's thread went, and how many items it gave on."""

    items: int = 0
    busy_seconds: float = 0.0
    """At work, or waiting for a processor."""
    processor_seconds: float = 0.0
    """Of the thread itself; what libraries do in threads of their own is not in it."""
    starved_seconds: float = 0.0
    """Waiting for the stages before."""
    held_seconds: float = 0.0
    """Waiting for the stages after, which have enough."""

    @property
    def seconds(self) -> float:
        return self.busy_seconds + self.starved_seconds + self.held_seconds

    def add(self, other: StageTime) -> None:
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

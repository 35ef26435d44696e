"""The tabs in which the page is open: whose each is, and which video is looked at in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MOST_TABS = 100
"""Of one visitor."""


@dataclass(eq=False, slots=True)
class Tab:
    """One load of the page."""

    owner: str
    """The visitor who named it first; no other may use it."""
    name: str = ""
    """What the browser calls the tab, which stays the same when the page is loaded again."""
    look_id: int | None = None
    """The job that looked at the video of this tab; None without a video."""
    open_requests: int = 0
    """How many requests of it are being answered now."""


class Tabs:
    """All tabs by the name that the framework gives to each load of the page.

    A client makes that name up, so only `most` are kept of each visitor: with one more, the tab
    that was not used for longest is forgotten.

    Args:
        is_at_work: Whether work goes on for the video (visitor, job) of a tab; such a tab is never
            forgotten, nor is one with an open request.
        on_forgotten: Called with the visitor and the job of a tab that is forgotten with a video.
        most: How many tabs of one visitor are kept.
    """

    def __init__(
        self,
        is_at_work: Callable[[str, int], bool],
        on_forgotten: Callable[[str, int], None],
        most: int = MOST_TABS,
    ) -> None:
        self._is_at_work = is_at_work
        self._on_forgotten = on_forgotten
        self._most = most
        self._tabs: dict[str, Tab] = {}
        """The one that was used last stands last."""

    def claim(self, named: str, visitor: str) -> Tab | None:
        """Use a tab, or begin a new one.

        Args:
            named: The framework's name for the load of the page.
            visitor: Who uses it.

        Returns:
            None where it is another visitor's, or where the visitor has too many tabs in use.
        """
        tab = self._tabs.get(named)
        if tab is None:
            if not self._has_room(visitor):
                return None
            tab = Tab(visitor)
        elif tab.owner != visitor:
            return None
        self._tabs.pop(named, None)
        self._tabs[named] = tab
        return tab

    def is_full(self, visitor: str) -> bool:
        """Whether the visitor has as many tabs as are kept, and all are in use."""
        own = self._of(visitor)
        return len(own) >= self._most and all(self._is_used(self._tabs[each]) for each in own)

    def give_name(self, tab: Tab, name: str) -> Tab | None:
        """Note what the browser calls a tab.

        Returns:
            The earlier load of the page in the same tab, if there is one.
        """
        tabs = [self._tabs[each] for each in self._of(tab.owner)]
        before = next((each for each in tabs if each.name == name and each is not tab), None)
        if before is not None:
            before.name = ""
        tab.name = name
        return before

    def has_open_requests(self, visitor: str) -> bool:
        """Whether something is being answered to the visitor now."""
        return any(self._tabs[each].open_requests for each in self._of(visitor))

    def forget_all(self, visitor: str) -> None:
        """Forget all tabs of a visitor."""
        for named in self._of(visitor):
            self._forget(named)

    def __len__(self) -> int:
        return len(self._tabs)

    def _of(self, visitor: str) -> list[str]:
        return [named for named, tab in self._tabs.items() if tab.owner == visitor]

    def _is_used(self, tab: Tab) -> bool:
        is_at_work = tab.look_id is not None and self._is_at_work(tab.owner, tab.look_id)
        return is_at_work or tab.open_requests > 0

    def _has_room(self, visitor: str) -> bool:
        """Whether there is room for one more tab, after the oldest is forgotten if need be."""
        own = self._of(visitor)
        if len(own) < self._most:
            return True
        idle = next((each for each in own if not self._is_used(self._tabs[each])), None)
        if idle is not None:
            self._forget(idle)
        return idle is not None

    def _forget(self, named: str) -> None:
        tab = self._tabs.pop(named)
        if tab.look_id is not None:
            self._on_forgotten(tab.owner, tab.look_id)

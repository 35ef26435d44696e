"""The browser tabs in which the page is open: the owner of each, and the video in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MOST_TABS = 100
"""The largest number of tabs that are kept for one visitor."""


@dataclass(eq=False, slots=True)
class Tab:
    """One load of the page."""

    owner: str
    """The visitor who named the tab first; no other visitor may use it."""
    name: str = ""
    """The browser's name for the tab, which stays the same when the page is loaded again."""
    analysis_id: int | None = None
    """The number of the job that analyzes the video of this tab; None without a video."""
    open_requests: int = 0
    """The number of the tab's requests that the server is answering now."""


class Tabs:
    """All tabs by the name that the framework gives to each load of the page.

    A client can invent such names, so at most `most` tabs are kept for each visitor. One more tab
    replaces the tab that was not used for the longest time.

    Args:
        is_at_work: Returns whether a command works on the video of a tab, which it gets as visitor
            and job. Such a tab is never forgotten, and neither is one with an open request.
        on_forgotten: Called with the visitor and the job of a forgotten tab that had a video.
        most: The largest number of tabs of one visitor.
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
        """Tabs by name, in the order of their last use."""

    def claim(self, named: str, visitor: str) -> Tab | None:
        """Use a tab, or begin a new one.

        Args:
            named: The framework's name for the load of the page.
            visitor: The visitor who uses it.

        Returns:
            The tab, or None if it belongs to another visitor or the visitor has too many tabs in
            use.
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
        """Check whether a visitor can open no more tabs.

        Args:
            visitor: The visitor.

        Returns:
            True if the visitor has the largest number of tabs and all of them are in use.
        """
        own = self._of(visitor)
        return len(own) >= self._most and all(self._is_used(self._tabs[each]) for each in own)

    def give_name(self, tab: Tab, name: str) -> Tab | None:
        """Record the browser's name for a tab.

        Args:
            tab: The tab.
            name: The name.

        Returns:
            The earlier load of the page in the same tab of the browser; None if there is none.
        """
        tabs = [self._tabs[each] for each in self._of(tab.owner)]
        before = next((each for each in tabs if each.name == name and each is not tab), None)
        if before is not None:
            before.name = ""
        tab.name = name
        return before

    def has_open_requests(self, visitor: str) -> bool:
        """Check whether the server is answering a request of a visitor now.

        Args:
            visitor: The visitor.

        Returns:
            True if one of the visitor's tabs has an open request.
        """
        return any(self._tabs[each].open_requests for each in self._of(visitor))

    def forget_all(self, visitor: str) -> None:
        """Forget all tabs of a visitor.

        Args:
            visitor: The visitor.
        """
        for named in self._of(visitor):
            self._forget(named)

    def __len__(self) -> int:
        return len(self._tabs)

    def _of(self, visitor: str) -> list[str]:
        return [named for named, tab in self._tabs.items() if tab.owner == visitor]

    def _is_used(self, tab: Tab) -> bool:
        is_at_work = tab.analysis_id is not None and self._is_at_work(tab.owner, tab.analysis_id)
        return is_at_work or tab.open_requests > 0

    def _has_room(self, visitor: str) -> bool:
        """Make room for one more tab by forgetting an idle one if needed; False if none is idle."""
        own = self._of(visitor)
        if len(own) < self._most:
            return True
        idle = next((each for each in own if not self._is_used(self._tabs[each])), None)
        if idle is not None:
            self._forget(idle)
        return idle is not None

    def _forget(self, named: str) -> None:
        tab = self._tabs.pop(named)
        if tab.analysis_id is not None:
            self._on_forgotten(tab.owner, tab.analysis_id)

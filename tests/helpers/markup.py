"""What a browser would make of HTML."""

from html.parser import HTMLParser
from typing import Any

HOSTILE = "<script>alert(1)</script>\"'&{{ 7 * 7 }}\u202e\u2067\udcff.mkv"
"""Markup, quotes, a template's own marks, marks that turn the order around, a byte that is no
text."""


class Markup(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        """One for each element that holds text."""
        self.isolated: list[str] = []
        """Texts whose marks of direction end with them."""
        self._is_isolated = False
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        self.texts.append("")
        self._is_isolated = tag == "bdi"

    def handle_endtag(self, tag: str) -> None:
        self.texts.append("")
        self._is_isolated = False

    def handle_data(self, text: str) -> None:
        if not self.texts:
            self.texts.append("")
        self.texts[-1] += text
        if self._is_isolated:
            self.isolated.append(text)

    def holds(self, text: str) -> bool:
        """Whether the text is shown as it is."""
        return any(text in each for each in self.texts)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of that name."""
        return [attributes for name, attributes in self.tags if name == tag]


def is_harmless(markup: Markup, *, scripts: int) -> bool:
    """Whether nothing in it runs but so many scripts of the page itself."""
    handlers = [name for _, own in markup.tags for name in own if name.startswith("on")]
    return len(markup.named("script")) == scripts and not handlers

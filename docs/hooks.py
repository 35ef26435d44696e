"""What mkdocs does besides its configuration; see mkdocs.yml.

The page about weight files is weights/README.md, which stands outside docs/ because the wheel
contains it. A site with a page that loads something from another host is not built.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_WEIGHTS = "reference/weights.md"
_ELSEWHERE = r"""["']?(?:https?:)?//[^"'>) ]+"""
_OTHER_HOST = re.compile(
    rf"<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc={_ELSEWHERE}"
    rf"""|<link\b(?![^>]*\brel=["']?(?:canonical|next|prev|edit))[^>]*\bhref={_ELSEWHERE}"""
    rf"|@import\s+(?:url\()?{_ELSEWHERE}"
    rf"|url\({_ELSEWHERE}"
)


def on_files(files: Any, config: Any) -> Any:
    """Add the page about weight files."""
    from mkdocs.structure.files import File

    source = Path(config["config_file_path"]).parent / "weights" / "README.md"
    files.append(File.generated(config, _WEIGHTS, abs_src_path=str(source)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Let links to weights/README.md lead to its page."""
    depth = page.file.src_uri.count("/")
    return markdown.replace(f"{'../' * (depth + 1)}weights/README.md", "../" * depth + _WEIGHTS)


def on_post_build(config: Any) -> None:
    """Refuse a site that needs another host."""
    from mkdocs.exceptions import PluginError

    if found := list(loads_from_elsewhere(Path(config["site_dir"]))):
        raise PluginError("the site loads from other hosts:\n" + "\n".join(found))


def loads_from_elsewhere(site: Path) -> Iterator[str]:
    """Yield each place in the pages and styles of a built site that loads from another host.

    Args:
        site: The folder of the site.

    Yields:
        The file and what it loads.
    """
    for path in sorted([*site.rglob("*.html"), *site.rglob("*.css")]):
        for found in _OTHER_HOST.findall(path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(site)}: {found}"

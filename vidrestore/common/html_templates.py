"""Templates of HTML pages, which escape every value that they do not mark as safe."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template


@cache
def html_template(path: Path) -> Template:
    """Read a template.

    Args:
        path: A file of the package, in the language of Jinja.

    Returns:
        The template. It escapes all values except those that it marks with `safe`, and raises
        jinja2.UndefinedError for a name that has no value.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(path.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(path.name)

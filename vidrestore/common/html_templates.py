"""Templates of HTML pages, in which every value is escaped unless the template says otherwise."""

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
        The template. It escapes all values but those that it marks with `safe`, and raises
        jinja2.UndefinedError for a name that it is not given.
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

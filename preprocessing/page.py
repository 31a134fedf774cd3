"""Pages that show results: one look, one file each, nothing loaded from anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, *more: Path, **values: Any) -> str:
    """A page from `template`, which extends base.html.j2 and takes `title`, `version` ("" where no model has a part in
    it) and its own values; all are escaped, and one that is missing is an error.

    more: directories with templates of other packages, searched first. The same values give the same bytes.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([*more, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)

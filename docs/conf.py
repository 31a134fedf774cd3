"""Sphinx's settings: `make docs`. The reference is written from the code each time, and not kept: docs/reference."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import pkgutil
import re
import sys
from pathlib import Path
from typing import Any
from unittest import mock

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import trainer  # noqa: E402

project = "Parcours"
version = release = trainer.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "alabaster"  # Sphinx's own: nothing more to install, readable on a phone
html_theme_options = {"page_width": "1180px", "sidebar_width": "250px", "show_powered_by": False}
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_copy_source = False
suppress_warnings = [
    "misc.highlighting_failure",  # TensorFlow Serving's JSON has NaN
    "ref.python",  # types of one name in two packages
]
myst_heading_anchors = 3  # links to headings are checked, as those to pages are
autodoc_default_options = {"members": True, "undoc-members": False, "member-order": "bysource"}
autodoc_inherit_docstrings = False  # Beam's own are not ours
autodoc_mock_imports = ["pynvml"]  # which needs NVIDIA's driver
PACKAGES = {
    "preprocessing": "From events to journeys, and from journeys to records",
    "trainer": "The model, its evaluation and what campaigns changed",
    "deploy": "Jobs, scores, the server, the double run and monitoring",
}


def entry_points() -> list[str]:
    """Every module that `python -m` runs, in the order of the way."""
    found = [f"{name}.{m.name}" for name in PACKAGES for m in pkgutil.iter_modules([str(HERE.parent / name)])]
    return [name for name in found if 'if __name__ == "__main__"' in _source(name) and "argparse" in _uses(name)]


def write_reference(_app: Any = None) -> None:
    """docs/reference: what each command's --help says, and the docstrings of what modules offer to others."""
    place = HERE / "reference"
    place.mkdir(exist_ok=True)
    commands = ["# Commands", "What each command's `--help` says."]
    commands += [f"## {name}\n\n```text\n{_help(name)}\n```" for name in entry_points()]
    _write(place / "commands.md", "\n\n".join(commands) + "\n")
    for package, title in PACKAGES.items():
        modules = sorted(m.name for m in pkgutil.iter_modules([str(HERE.parent / package)]))
        pages = [f"## {package}.{m}\n\n```{{eval-rst}}\n.. automodule:: {package}.{m}\n```\n" for m in modules]
        _write(place / f"{package}.md", f"# `{package}`\n\n{title}.\n\n" + "\n".join(pages))


def _source(module: str) -> str:
    return (HERE.parent / f"{module.replace('.', '/')}.py").read_text()


def _uses(module: str) -> str:
    """The module's text, and that of the module whose `parse` it calls: trainer.task's flags are trainer.settings'."""
    text = _source(module)
    return text + "".join(_source(name) for name in re.findall(r"^from (trainer\.settings) import", text, re.MULTILINE))


def _help(module: str) -> str:
    main, said = importlib.import_module(module).main, io.StringIO()
    given = [["--help"]] * bool(inspect.signature(main).parameters)
    with (
        contextlib.redirect_stdout(said),
        contextlib.suppress(SystemExit),
        mock.patch.object(sys, "argv", [module, "--help"]),
        mock.patch.dict("os.environ", COLUMNS="100"),
    ):
        main(*given)
    return said.getvalue().rstrip()


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:  # what is as it was is not built again
        path.write_text(text)


def plain(_app: Any, _what: str, _name: str, _of: Any, _options: Any, lines: list[str]) -> None:
    """Docstrings are plain text: paragraphs, and lines of `name: meaning` whose continuation is indented."""
    found: list[str] = []
    for line in lines:
        words = re.sub(r"([\\*`|_<>])", r"\\\1", line.strip())
        if words.startswith("- ") or (found and re.match(r"[\w\\]+(, [\w\\]+)*( and [\w\\]+)?: ", words)):
            found += ["", f"* {words.removeprefix('- ')}"]
        elif found and found[-1].startswith(("* ", "  ")) and line.strip():
            found.append(f"  {words}")
        else:
            found.append(words)
    lines[:] = found


def setup(app: Any) -> None:
    app.connect("builder-inited", write_reference)
    app.connect("autodoc-process-docstring", plain)

"""What the documents say that can be held against the repository: commands, make targets, paths."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
MARKDOWN = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")} - {*ROOT.glob("docs/reference/*.md")})
_FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`([^`]+)`")
_COMMAND = re.compile(r"(?:python3?|\.venv/bin/python) -m ((?:preprocessing|trainer|deploy|tests)\.[\w.]+)(.*)")
_MAKE = re.compile(r"\s*(?:\$ )?make ([a-z](?:[a-z-]*[a-z])?)(?![\w…-])")
_PATH = re.compile(r"(?:preprocessing|trainer|deploy|tests|job_configs|docs|notebooks|examples)/[\w./*-]*\w")
ELLIPSIS = "…"


@dataclass(frozen=True)
class Command:
    """A command line of a page: what stands after `python -m`. whole: nothing of it is left out by "…"."""

    page: str
    module: str
    flags: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return f"{self.page}: python -m {self.module} {shlex.join(self.flags)}"


def fenced(text: str) -> list[str]:
    """Lines of the fenced blocks, those that a backslash continues in one."""
    return [line for block in _FENCE.findall(text) for line in block.replace("\\\n", " ").splitlines()]


def inline(text: str) -> list[str]:
    """What stands between single backticks outside the fenced blocks, on one line."""
    return [" ".join(code.split()) for code in _INLINE.findall(_FENCE.sub("", text))]


def commands(page: str, text: str) -> Iterator[Command]:
    """Every `python -m …` of a page. What stands inline may name a command without its flags: it is never whole."""
    for line, in_block in [*((line, True) for line in fenced(text)), *((code, False) for code in inline(text))]:
        found = _COMMAND.search(line)
        if found is None:
            continue
        module, rest = found[1], found[2].strip()
        words = shlex.split(re.split(r"\s(?:[|>&;]|&&)(?:\s|$)", rest)[0], comments=True)
        shown = tuple(word for word in words if ELLIPSIS not in word or word.startswith("--"))
        first = re.fullmatch(r"\s*(?:\$ )?(?:\w+=\S* )*", line[: found.start()])  # a drawing names commands, too
        yield Command(page, module, shown, in_block and first is not None and ELLIPSIS not in " ".join(words))


def make_targets(text: str) -> set[str]:
    return {found[1] for code in [*fenced(text), *inline(text)] if (found := _MAKE.match(code))}


def paths(text: str) -> set[str]:
    """Paths of the repository that a page names in code."""
    code = [*fenced(text), *inline(text)]
    words = [word.strip("'\"(),;:[]") for line in code for word in re.split(r"[\s=]", line)]
    return {word for word in words if _PATH.fullmatch(word)}

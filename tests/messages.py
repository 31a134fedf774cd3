"""The texts of the code, f-strings with "…" for what is filled in: quoted messages are held against them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILLED = "…"


def texts(*packages: str) -> set[str]:
    """Every text of the packages' modules; of an f-string what is written, with "…" for each field."""
    files = [path for package in packages for path in sorted((ROOT / package).glob("*.py"))]
    return {" ".join(text.split()) for path in files for text in _texts(ast.parse(path.read_text()))}


def _texts(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(p.value) if isinstance(p, ast.Constant) else FILLED for p in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    for child in ast.iter_child_nodes(node):
        yield from _texts(child)


def said(message: str, code: set[str]) -> bool:
    """Whether a text of the code holds the message's parts, which stand between its "…", one after the other."""
    parts = [re.escape(part.strip()) for part in message.split(FILLED) if part.strip()]
    wanted = re.compile(".*".join(parts))
    return bool(parts) and any(wanted.search(text) for text in code)

"""YAML files read into pydantic models, with every mistake told as `file:line: key: what; expected …`."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from preprocessing.cli import UserError, visible
from preprocessing.storage import read_text

__all__ = ["parse", "read_text"]
_LARGEST = 100_000  # values: no spec and no job comes near it


def load(text: str, name: str) -> tuple[yaml.Node, dict[str, Any]]:
    """The YAML node and the top-level mapping of a text. Raises UserError where it is neither YAML nor a mapping."""
    try:
        node = yaml.compose(text, Loader=_StrictLoader)
        if node is not None and _expanded(node, {}) > _LARGEST:
            raise UserError(f"{name}: not YAML that is read here: its aliases come to more than {_LARGEST:,} values")
        content = yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{name}:{line}: not YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{name}: not YAML: {' '.join(str(error).split())}") from None
    if node is None or not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{name}: expected a mapping of keys to values")
    return node, content


def parse(text: str, name: str, choose: Callable[[dict[str, Any]], type[BaseModel]]) -> Any:
    """Validates YAML text as the model class that `choose` picks from its top-level mapping.

    name: what errors call the file. Raises UserError with one line a mistake.
    """
    node, content = load(text, name)
    model = choose(content)
    try:
        # Strict validation would refuse YAML's lists where tuples stand, so lists become tuples first.
        return model.model_validate(_tuples(content))
    except ValidationError as error:
        lines = [_mistake(name, node, model, mistake) for mistake in error.errors()]
        raise UserError("\n".join(dict.fromkeys(lines))) from None


def _expanded(node: yaml.Node, known: dict[int, float]) -> float:
    """How many values a node comes to with every alias written out; infinite where it holds itself."""
    if id(node) not in known:
        known[id(node)] = math.inf  # until it is known: who meets it again on the way down is inside of it
        inside = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        inside = inside if isinstance(inside, list) else []
        known[id(node)] = 1 + sum(_expanded(part, known) for part in inside)
    return known[id(node)]


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, which YAML forbids and PyYAML lets the last one win."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):  # {{ name }} of a template that was not rendered, say
                raise yaml.MarkedYAMLError(problem="expected a plain key", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_yaml_timestamp(self, node: Any) -> Any:
        try:
            return super().construct_yaml_timestamp(node)
        except ValueError as error:
            problem = f"no such date or time, {node.value!r}: {error}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from None


_StrictLoader.add_constructor("tag:yaml.org,2002:timestamp", _StrictLoader.construct_yaml_timestamp)


def _line_of(node: yaml.Node | None, place: tuple[int | str, ...]) -> int:
    """The line (from 1) on which the key or item at `place` stands, or its nearest ancestor's."""
    line = 1
    for step in place:
        found = None
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == step), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            found = (node.value[step], node.value[step])
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def _known_keys(spec_class: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """The keys allowed beside an unknown one."""
    model: Any = spec_class
    for step in place[:-1]:
        field = model.model_fields.get(step) if hasattr(model, "model_fields") else None
        candidates = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((c for c in candidates if hasattr(c, "model_fields")), None)
    return sorted(model.model_fields) if model is not None else []


def _mistake(name: str, node: yaml.Node | None, spec_class: type[BaseModel], error: Any) -> str:
    """`file:line: key: what; expected …` for one of pydantic's errors."""
    # pydantic puts the names of union members into the place; keep what stands in the file
    place = tuple(step for step in error["loc"] if step not in ("LabelSplit", "HashSplit"))
    sentence = _sentence(spec_class, error)
    named = re.match(r"(\w+(?:\.\w+)*): ", sentence)
    if named:  # a check of several keys says which of them to mend
        place, sentence = (*place, *named[1].split(".")), sentence[named.end() :]
    key = ".".join(str(step) for step in place)
    return f"{name}:{_line_of(node, place)}: {visible(f'{key}: ' if key else '')}{visible(sentence)}"


def _sentence(spec_class: type[BaseModel], error: Any) -> str:
    place, kind = error["loc"], error["type"]
    if kind == "extra_forbidden":
        known = _known_keys(spec_class, place)
        near = difflib.get_close_matches(str(place[-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
        return f"unknown key; {hint}"
    if kind == "missing":
        return "missing; this key is required"
    if kind == "value_error":
        return error["msg"].removeprefix("Value error, ")
    expected = error["msg"].replace("Input should be", "expected").replace("a valid tuple", "a list")
    return f"{expected[0].lower()}{expected[1:]}, got {error['input']!r}"


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    return {key: _tuples(item) for key, item in value.items()} if isinstance(value, dict) else value

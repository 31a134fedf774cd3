"""What a request may be: its size, its JSON, its envelope. What is wrong with it, as an answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from deploy.instances import InstanceError
from deploy.instants import called

_QUOTE, _COLON, _SPACE = b'": '


class RequestError(Exception):
    """An answer other than 200: its status, what was wrong in words, and more fields of the error where there are."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None, **more: Any) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}
        self.content = {"error": {"message": message, **more}}

    @classmethod
    def of_instance(cls, error: InstanceError) -> RequestError:
        """400: which instance, which field."""
        return cls(400, str(error), instance=error.instance, field=error.field)


@dataclass(frozen=True)
class Limits:
    """What one request may bring, what all may, and how long an answer may take."""

    max_body_bytes: int = 8 << 20
    max_instances: int = 512
    max_events: int = 2000
    max_requests: int = 512
    max_queue: int = 4096
    timeout_s: float = 10.0


@dataclass(frozen=True)
class Routes:
    """Where the server answers; Vertex AI names the first two."""

    predict: str = "/predict"
    health: str = "/health"
    explain: str = "/explain"
    metrics: str = "/metrics"
    model: str = "/model"


DEFAULT_ROUTES = Routes()


async def read_body(declared: str | None, chunks: AsyncIterator[bytes], limits: Limits) -> bytes:
    """The whole body. Raises RequestError 413 where it is too large, declared or not, and 408 where it does not come.

    declared: the Content-Length header. An answer before the end of the body closes the connection.
    """
    close = {"Connection": "close"}
    too_large = RequestError(413, f"expected a body of at most {limits.max_body_bytes} bytes", close)
    if declared is not None and declared.isdecimal() and int(declared) > limits.max_body_bytes:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(limits.timeout_s):
            async for chunk in chunks:
                size += len(chunk)
                if size > limits.max_body_bytes:
                    raise too_large
                parts.append(chunk)
    except TimeoutError:
        raise RequestError(408, f"the body did not come within {limits.timeout_s:g} s", close) from None
    return b"".join(parts)


def read_json(body: bytes) -> Any:
    """The value that a body holds. Raises RequestError 400 where it is not JSON, or names a key twice in one object."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # orjson's words are of places and kinds, never of content
        raise RequestError(400, f"expected JSON in UTF-8: {error.msg} (byte {error.pos})") from None
    if _may_repeat_a_key(body, content):
        _refuse_repeated_keys(body)
    return content


def envelope(content: Any, name: str, kind: type, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """The request's outermost object, whose `name` is a `kind`. Raises RequestError 400 for anything else."""
    if type(content) is not dict:
        raise RequestError(400, f"expected an object with {name}, got {called(content)}")
    if name not in content:
        raise RequestError(400, f"{name}: missing; expected {called(kind())}", field=name)
    if type(content[name]) is not kind:
        raise RequestError(400, f"{name}: expected {called(kind())}, got {called(content[name])}", field=name)
    if not {name, *optional} >= content.keys():
        raise RequestError(400, f"unknown field beside {name}; expected {', '.join((name, *optional))} only")
    return content


def wants_partial(content: dict[str, Any]) -> bool:
    """parameters.partial, false by default. Raises RequestError 400 where `parameters` is anything else."""
    parameters = content.get("parameters")
    if parameters is None:
        return False
    if type(parameters) is not dict or not {"partial"} >= parameters.keys():
        raise RequestError(400, 'parameters: expected an object with "partial" at most', field="parameters")
    partial = parameters.get("partial", False)
    if type(partial) is not bool:
        raise RequestError(
            400, f"parameters.partial: expected a boolean, got {called(partial)}", field="parameters.partial"
        )
    return partial


def _may_repeat_a_key(body: bytes, content: Any) -> bool:
    """Whether a key could stand twice in one object; false is certain.

    orjson keeps the last of two, in silence. Before the colon of every key is a quote, or space; where it is never
    space, and a quote no more often than keys were read, none was lost. Strings may hold such pairs too: then a slower
    look decides.
    """
    letters = np.frombuffer(body, np.uint8)
    before = letters[np.flatnonzero(letters == _COLON) - 1]
    return bool((before <= _SPACE).any()) or np.count_nonzero(before == _QUOTE) != _keys(content)


def _keys(content: Any) -> int:
    """How many keys a request's objects have, where a request has objects; those anywhere else are left out."""
    if type(content) is not dict:
        return 0
    count = len(content)
    for value in content.values():
        for instance in value if type(value) is list else (value,):
            if type(instance) is dict:
                events = instance.get("events")
                # unlike len, it raises for what is no object
                with contextlib.suppress(TypeError):
                    count += sum(map(dict.__len__, events)) if type(events) is list else 0
                count += len(instance)
    return count


def _refuse_repeated_keys(body: bytes) -> None:
    def checked(pairs: list[tuple[str, Any]]) -> None:
        if len({name for name, _ in pairs}) < len(pairs):
            raise RequestError(400, "expected JSON whose objects name each key once, got one that repeats a key")

    try:
        # numbers are not looked at: Python refuses integers of thousands of digits
        json.loads(body, object_pairs_hook=checked, parse_int=len, parse_float=len)
    except RecursionError:
        raise RequestError(400, "expected JSON of a few levels, got a deeper one") from None

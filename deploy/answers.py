"""What a mirrored request asks about, and what a candidate's answer to it says: pure functions of bytes and JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from deploy import instants
from deploy.pairs import OK, Answer


def share(key: str) -> float:
    """Where in [0, 1) the SHA-256 of a key falls."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big") / 2**56


def journeys(body: bytes, instances: Sequence[dict[str, Any]]) -> tuple[tuple[str, Any], ...]:
    """(key, as_of) of each instance; one without a key has the digest of the request and its place in it."""
    digest = ""
    found = []
    for i, instance in enumerate(instances):
        key, as_of = (instance.get("key"), instance.get("as_of")) if isinstance(instance, dict) else (None, None)
        if not (isinstance(key, str) and key):
            digest = digest or hashlib.sha256(body).hexdigest()[:32]
            key = f"unkeyed-{digest}-{i}"
        found.append((key, as_of))
    return tuple(found)


def only(body: bytes, chosen: Sequence[int]) -> bytes:
    """The request with the chosen instances only."""
    import orjson

    request = orjson.loads(body)
    request["instances"] = [request["instances"][i] for i in chosen]
    return orjson.dumps(request)


def predictions(content: bytes, wanted: int) -> tuple[str, list[Any]]:
    """("ok", the predictions in a candidate's body), or (what is wrong with it, [])."""
    import orjson

    try:
        read = orjson.loads(content)
    except orjson.JSONDecodeError:
        return "not_json", []
    given = read.get("predictions") if isinstance(read, dict) else None
    if not isinstance(given, list) or len(given) != wanted:
        return "other_shape", []
    return OK, given


def answer(prediction: Any, key: Any, milliseconds: float, horizons: Sequence[str]) -> Answer:
    """A prediction as it is logged. key: that it must bear, where there is one; horizons: the incumbent's, as named."""
    nothing = (None,) * len(horizons)
    if not isinstance(prediction, dict):
        return Answer(None, nothing, milliseconds, "no_prediction")
    version = prediction.get("model_version")
    version = version if isinstance(version, str) else None
    if "error" in prediction:
        return Answer(version, nothing, milliseconds, "instance_error")
    if key is not None and prediction.get("key") != key:
        return Answer(version, nothing, milliseconds, "other_key")
    named = prediction.get("probabilities")
    given = tuple(named.get(h) for h in horizons) if isinstance(named, dict) else nothing
    if all(p is None for p in given) or not all(p is None or _is_probability(p) for p in given):
        return Answer(version, nothing, milliseconds, "no_probability")
    return Answer(version, given, milliseconds, OK)


def _is_probability(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def micros(as_of: Any) -> int | None:
    """int64 UTC microseconds of an instance's as_of; None where it has none, or one that the incumbent refused."""
    try:
        return int(instants.micros([as_of])[0])
    except instants.BadValue:
        return None

"""The OpenAPI document: what a model's own fields make of requests and answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploy import instants
from deploy.explanation import sample
from deploy.instances import Fields
from deploy.requests import Limits, Routes
from preprocessing.blocks import ASKED

_TEXT = {"type": ["string", "null"], "pattern": "^[^\\u0000]*$", "description": "null: missing"}
_NUMBER = {"type": ["number", "null"], "minimum": -3.4e38, "maximum": 3.4e38, "description": "null: missing"}
_KINDS: dict[str, dict[str, Any]] = {"categorical": _TEXT, "numeric": _NUMBER}
_ERRORS = {
    "400": "Not JSON, or an instance is not as the model's fields ask for; the message names instance and field.",
    "401": "No token, or another one.",
    "408": "The body did not come in time.",
    "413": "More bytes, instances or campaigns than allowed.",
    "415": "The body bears a Content-Encoding.",
    "429": "More waits than the queue takes; Retry-After says when to come again.",
    "503": "The model is not warm yet.",
    "504": "No answer within the time allowed.",
}


def document(about: Mapping[str, Any], limits: Limits, routes: Routes, secured: bool) -> dict[str, Any]:
    """OpenAPI 3.1, as JSON values; `about`: model/parcours.json."""
    example = sample(about)
    errors = {code: _json(what, _ref("Error")) for code, what in _ERRORS.items() if secured or code != "401"}
    predict = _post(
        "Score journeys",
        f"Journeys of any length, events in any order. More than {limits.max_events} events of one journey are an "
        "error of that instance (400). With parameters.partial a bad one has an error in its place, others a score.",
        _request("instances", {"type": "array", "items": _ref("Instance"), "maxItems": limits.max_instances}, True),
        {"instances": [example]},
        {"200": _json("Answered", _ref("Predictions")), **errors},
    )
    explain = _post(
        "Explain one journey",
        "The probability by days ahead, after each event so far, and with and without each campaign: those of the "
        "journey and, where customers were assigned to campaigns in training, those that the model can be asked about.",
        _request("instance", _ref("Instance"), False),
        {"instance": example},
        {"200": _json("Answered", _ref("Explanation")), **errors},
    )
    if secured:
        for post in (predict, explain):
            post["post"]["security"] = [{"token": []}]
    components: dict[str, Any] = {"schemas": _schemas(about, limits)}
    if secured:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    metrics = {"description": "Prometheus' text format", "content": {"text/plain": {"schema": {"type": "string"}}}}
    health = {"200": _json("Warm", _object({"status": {"const": "ready"}})), "503": _json("Not", _ref("Error"))}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Parcours", "version": about["model_version"], "description": _introduction(about)},
        "paths": {
            routes.predict: predict,
            routes.explain: explain,
            routes.health: {"get": {"summary": "Whether to send requests here", "responses": health}},
            routes.metrics: {"get": {"summary": "Metrics", "responses": {"200": metrics}}},
            routes.model: {
                "get": {
                    "summary": "The model's metadata, and a sample instance",
                    "responses": {"200": _json("The metadata", {"type": "object", "required": ["sample"]})},
                }
            },
        },
        "components": components,
    }


def _schemas(about: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    fields = Fields(about)
    instant = {
        "anyOf": [
            {"type": "string", "format": "date-time"},
            {"type": "integer", "minimum": instants.FIRST, "maximum": instants.LAST},
        ],
        "description": "RFC 3339, or UTC microseconds as an integer; the years 1 to 9999",
    }
    most = instants.MOST_SECONDS
    seconds = {"type": "number", "minimum": -most, "maximum": most, "description": "since the journey's start"}
    event = {fields.time: instant if fields.dated else seconds}
    event |= {name: _KINDS[kind] for name, kind in fields.sequence.items()}
    columns = {
        name: {"type": ["array", "null"], "items": schema, "maxItems": limits.max_events}
        for name, schema in event.items()
    }
    scalars = {"key": {**_TEXT, "description": "comes back with the answer"}, "as_of": instant}
    if not fields.dated:
        scalars["as_of"] = {"anyOf": [instant, {"type": "null"}]}
    scalars |= {name: _KINDS[kind] for name, kind in fields.customer.items()}
    if ASKED in scalars:
        scalars[ASKED] = {**_TEXT, "description": "the campaign that is sent at as_of; null: none"}
    required = ["as_of"] if fields.dated else []
    probability = {"type": "number", "minimum": 0, "maximum": 1}
    by_horizon = {str(h): probability for h in about["horizons_days"]}
    change = {str(h): {"type": ["number", "null"], "minimum": -1, "maximum": 1} for h in about["horizons_days"]}
    key = {"type": ["string", "null"]}
    version = {"type": "string"}
    influence = {"campaign": {"type": "string"}, "with": _object(change), "without": _object(change)}
    claim = {"enum": ["randomised", "association", ""], "description": "what the numbers may be taken for"}
    reason = {"type": "string", "description": "why there is no answer; empty where there is one"}
    influence |= {"difference": _object(change), "claim": claim, "reason": reason}
    when = {fields.time: {"type": "string", "format": "date-time"} if fields.dated else {"type": "number"}}
    listed = {"events": {"type": "array", "items": _ref("Event"), "maxItems": limits.max_events}}
    failure = {"message": {"type": "string"}, "instance": {"type": "integer"}, "field": {"type": "string"}}
    explained = {"curve": _list(_object({"days": {"type": "integer"}, "probability": probability}))}
    explained |= {"running": _list(_object(when | {"probabilities": _ref("Probabilities")}))}
    explained |= {"influence": _list(_object(influence))}
    return {
        "Event": _object(event, [fields.time]),
        "EventsAsList": _object(scalars | listed, [*required, "events"]),
        "EventsAsColumns": {
            **_object(scalars | columns, required),
            "description": f"Each list that is given has as many values as {fields.time}.",
        },
        "Instance": {"anyOf": [_ref("EventsAsList"), _ref("EventsAsColumns")]},
        "Probabilities": {**_object(by_horizon), "description": "of converting within so many days of as_of + gap"},
        "Prediction": _object({"key": key, "model_version": version, "probabilities": _ref("Probabilities")}),
        "Refusal": _object({"key": key, "error": {"type": "string"}}),
        "Predictions": _object({"predictions": _list({"anyOf": [_ref("Prediction"), _ref("Refusal")]})}),
        "Explanation": _object(
            {"key": key, "model_version": version, "probabilities": _ref("Probabilities"), **explained}
        ),
        "Error": _object({"error": _object(failure, ["message"])}),
    }


def _introduction(about: Mapping[str, Any]) -> str:
    days = ", ".join(map(str, about["horizons_days"]))
    return f"Probability of a conversion ({about['conversion']}) within {days} days, by model {about['model_version']}."


def _request(name: str, schema: dict[str, Any], with_parameters: bool) -> dict[str, Any]:
    properties = {name: schema}
    if with_parameters:
        partial = _object({"partial": {"type": "boolean", "default": False}}, [])
        properties["parameters"] = {"anyOf": [partial, {"type": "null"}]}
    return _object(properties, [name])


def _post(
    summary: str, description: str, schema: dict[str, Any], example: Any, responses: dict[str, Any]
) -> dict[str, Any]:
    content = {"application/json": {"schema": schema, "example": example}}
    body = {"required": True, "content": content}
    return {"post": {"summary": summary, "description": description, "requestBody": body, "responses": responses}}


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _object(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}

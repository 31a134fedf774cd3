"""The web application with a scorer by hand: answers, limits, faults, what is counted and what is told."""

import asyncio
import contextlib
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.testclient import TestClient

from deploy.app import create_app
from deploy.requests import Limits, Routes
from deploy.service import Service
from deploy.telemetry import JsonLines
from tests.deploy.server import ABOUT, HandScorer

DEFAULT = Limits()
AS_OF = "2026-06-01T00:00:00Z"


def journey(events, **more):
    return {"as_of": AS_OF, "events": [{"event_time": "2026-05-01T00:00:00Z", "event_type": "view"}] * events} | more


@contextlib.contextmanager
def client(before=lambda arrays: None, limits=DEFAULT, **more):
    """A client of a warm application; `before` is called with what the model is asked, from then on."""
    scorer = HandScorer()
    service = Service(ABOUT, lambda: scorer, limits, token=more.pop("token", None), max_batch=16)
    with TestClient(create_app(service, **more), raise_server_exceptions=False) as opened:
        while opened.get("/health").status_code != 200:
            pass
        scorer.before = before
        opened.service = service
        yield opened


@pytest.fixture(scope="module")
def plain():
    with client() as opened:
        yield opened


def refused(answer, status=400):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()["error"]


def test_answers_carry_key_version_and_horizons(plain):
    answer = plain.post("/predict", json={"instances": [journey(3, key="a"), journey(0), journey(1, key="b")]})
    assert answer.status_code == 200
    assert answer.json() == {
        "predictions": [
            {"key": key, "model_version": "0123456789ab", "probabilities": pytest.approx({"7": p, "30": 2 * p})}
            for key, p in (("a", 0.03), (None, 0.0), ("b", 0.01))
        ]
    }
    assert plain.post("/predict", json={"instances": []}).json() == {"predictions": []}


def test_a_bad_instance_is_named_or_told_in_its_place(plain):
    bad = journey(1, key="k", age="a secret")
    body = {"instances": [journey(1), bad, 7, journey(2)]}
    error = refused(plain.post("/predict", json=body))
    assert error == {
        "message": "instance 1, age: expected a number or null, got text",
        "instance": 1,
        "field": "age",
    }
    answer = plain.post("/predict", json=body | {"parameters": {"partial": True}}).json()["predictions"]
    assert answer[1] == {"key": "k", "error": error["message"]}
    assert answer[2] == {"key": None, "error": "instance 2: expected an object, got a number"}
    assert [p["probabilities"]["7"] for p in (answer[0], answer[3])] == pytest.approx([0.01, 0.02])


GOOD = json.dumps({"instances": [journey(1)]}).encode()
EVENT = b'{"instances": [{"as_of": "2026-06-01T00:00:00Z", "events": [{"event_time": "2026-05-01T00:00:00Z", %s}]}]}'
BODIES = {
    "nothing": b"",
    "no JSON": b"instances",
    "cut off": GOOD[:-3],
    "two values": GOOD + b"{}",
    "no object": b"[]",
    "null": b"null",
    "no instances": b"{}",
    "instances no list": b'{"instances": {}}',
    "a field too many": b'{"instances": [], "more": 1}',
    "parameters no object": b'{"instances": [], "parameters": []}',
    "unknown parameter": b'{"instances": [], "parameters": {"partially": true}}',
    "partial no boolean": b'{"instances": [], "parameters": {"partial": 1}}',
    "NaN": EVENT % b'"amount": NaN',
    "Infinity": EVENT % b'"amount": -Infinity',
    "infinite": EVENT % b'"amount": 1e999',
    "beyond float32": EVENT % b'"amount": 1e39',
    "many digits": EVENT % (b'"amount": ' + b"9" * 5000),
    "many digits, an instant": b'{"instances": [{"as_of": ' + b"9" * 40 + b"}]}",
    "deep": b'{"instances": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "deep in a field": EVENT % (b'"amount": ' + b"[" * 900 + b"]" * 900),
    "deep and of objects": b'{"instances": ' + b'{"a" :' * 900 + b"1" + b"}" * 900 + b"}",
    "UTF-16": GOOD.decode().encode("utf-16"),
    "Latin-1": EVENT % '"event_type": "é"'.encode("latin-1"),
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
    "half a surrogate pair": EVENT % rb'"event_type": "\ud800"',
    "NUL": EVENT % rb'"event_type": "\u0000"',
    "NUL as it is": EVENT % b'"event_type": "\0"',
    "the year 0": b'{"instances": [{"as_of": "0000-01-01T00:00:00Z"}]}',
    "a negative year": b'{"instances": [{"as_of": "-0001-01-01T00:00:00Z"}]}',
    "the year 10000": b'{"instances": [{"as_of": "10000-01-01T00:00:00Z"}]}',
    "microseconds out of range": b'{"instances": [{"as_of": 9223372036854775807}]}',
    "a key twice": EVENT % b'"amount": 1, "amount": 2',
    "a key twice, with spaces": EVENT % b'"amount" : 1, "amount"\n: 2',
    "a key twice, escaped": EVENT % rb'"amount": 1, "\u0061mount": 2',
    "a key twice, hidden by a string": EVENT % b'"amount": 1, "amount": 2, "event_type": "\\":"',
    "a key twice, outermost": b'{"instances": [], "instances": []}',
    "a key twice, in parameters": b'{"instances": [], "parameters": {"partial": true, "partial": false}}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_what_is_no_request_is_refused(plain, body):
    message = refused(plain.post("/predict", content=body))["message"]
    assert len(message) < 300
    assert "Traceback" not in message


def test_what_only_looks_like_a_key_twice_is_answered(plain):
    for event in (b'"event_type": ":"', rb'"event_type": "\":"', b'"event_type" : "x", "amount" : 1'):
        assert plain.post("/predict", content=EVENT % event).status_code == 200, event


def test_explaining_needs_one_instance(plain):
    answer = plain.post("/explain", json={"instance": journey(2, key="e")}).json()
    assert answer["probabilities"] == pytest.approx({"7": 0.02, "30": 0.04})
    assert (answer["key"], answer["curve"], answer["running"], answer["influence"]) == ("e", [], [], [])
    error = refused(plain.post("/explain", json={"instance": journey(1, age="x")}))
    assert error == {"message": "instance.age: expected a number or null, got text", "field": "instance.age"}
    refused(plain.post("/explain", json={"instances": []}))


def test_too_large_and_too_many():
    with client(limits=Limits(max_body_bytes=2000, max_instances=3, max_events=5)) as small:
        large = GOOD + b" " * 2000
        refused(small.post("/predict", content=large), 413)
        refused(small.post("/predict", content=(large[i : i + 100] for i in range(0, len(large), 100))), 413)
        refused(small.post("/predict", json={"instances": [{"as_of": AS_OF}] * 4}), 413)
        error = refused(small.post("/predict", json={"instances": [journey(5), journey(6)]}))
        assert (error["instance"], error["field"]) == (1, "events")
        chunks = (GOOD[i : i + 7] for i in range(0, len(GOOD), 7))
        assert small.post("/predict", content=chunks).status_code == 200
        refused(small.post("/predict", content=b"", headers={"Content-Encoding": "gzip"}), 415)


def test_a_full_queue_sheds_and_a_slow_answer_is_given_up():
    go, asked = threading.Event(), threading.Event()

    def blocked(arrays):
        asked.set()
        assert go.wait(20)

    with client(blocked, Limits(max_queue=2, timeout_s=20)) as slow, ThreadPoolExecutor(4) as pool:
        first = pool.submit(slow.post, "/predict", json={"instances": [journey(1)]})
        assert asked.wait(20)
        second = pool.submit(slow.post, "/predict", json={"instances": [journey(2)] * 2})
        while slow.service.batcher.waiting < 2:
            pass
        answer = slow.post("/predict", json={"instances": [journey(3)]})
        refused(answer, 429)
        assert answer.headers["retry-after"] == "1"
        assert slow.get("/health").status_code == 200
        assert "parcours_queue_journeys 2.0" in slow.get("/metrics").text
        go.set()
        assert [task.result().status_code for task in (first, second)] == [200, 200]

    go.clear()
    with client(blocked, Limits(timeout_s=0.2)) as slow:
        refused(slow.post("/predict", json={"instances": [journey(1)]}), 504)
        go.set()
        assert slow.post("/predict", json={"instances": [journey(1)]}).status_code == 200


def test_too_many_requests_at_a_time():
    go, asked = threading.Event(), threading.Event()

    def blocked(arrays):
        asked.set()
        assert go.wait(20)

    with client(blocked, Limits(max_requests=1)) as slow, ThreadPoolExecutor(1) as pool:
        first = pool.submit(slow.post, "/predict", content=GOOD)
        assert asked.wait(20)
        refused(slow.post("/predict", content=GOOD), 429)
        go.set()
        assert first.result().status_code == 200


def test_not_before_warm_and_still_while_draining():
    go = threading.Event()
    scorer = HandScorer(before=lambda arrays: go.wait(20))
    service = Service(ABOUT, lambda: scorer, Limits())
    with TestClient(create_app(service)) as cold:
        refused(cold.get("/health"), 503)
        answer = cold.post("/predict", content=GOOD)
        refused(answer, 503)
        assert "retry-after" in answer.headers
        go.set()
        while cold.get("/health").status_code != 200:
            pass
        service.drain()
        assert refused(cold.get("/health"), 503)["message"] == "draining"
        assert cold.post("/predict", content=GOOD).status_code == 200
        assert "parcours_ready 0.0" in cold.get("/metrics").text


def test_a_model_that_does_not_load_is_told_of():
    failures = []
    told = threading.Event()

    def failed(error):
        failures.append(error)
        told.set()

    def load():
        raise FileNotFoundError("variables")

    with TestClient(create_app(Service(ABOUT, load, Limits()), failed=failed)) as cold:
        assert told.wait(20)
        refused(cold.get("/health"), 503)
        refused(cold.post("/predict", content=GOOD), 503)
    assert isinstance(failures[0], FileNotFoundError)


def test_a_token_is_asked_for():
    with client(token="a-token-of-some-length", secured=True) as secured:
        wrong = [None, "Bearer", "Bearer a-token", "Basic a-token-of-some-length", "Bearer é", "a-token-of-some-length"]
        for given in wrong:
            headers = {} if given is None else {"Authorization": given.encode("latin-1")}
            for route in ("/predict", "/explain"):
                answer = secured.post(route, content=GOOD, headers=headers)
                refused(answer, 401)
                assert answer.headers["www-authenticate"] == "Bearer"
        headers = {"Authorization": "bearer a-token-of-some-length"}
        assert secured.post("/predict", content=GOOD, headers=headers).status_code == 200
        assert secured.get("/health").status_code == 200
        assert secured.get("/openapi.json").json()["paths"]["/predict"]["post"]["security"] == [{"token": []}]


def test_a_fault_inside_is_500_without_what_it_met(caplog):
    def failing(arrays):
        raise ValueError(f"met {arrays['segment'][0]}")

    with client(failing) as broken, caplog.at_level(logging.INFO):
        answer = broken.post("/predict", json={"instances": [journey(1, segment="a secret")]})
        assert refused(answer, 500) == {"message": "failed inside; the server's log tells where"}
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records]
    (told,) = [line for line in lines if line["message"] == "failed inside"]
    assert told["exception"] == "ValueError"
    assert any("test_app.py" in place for place in told["where"])
    assert "a secret" not in json.dumps(lines)


def test_one_line_a_request_and_nothing_of_the_customer(caplog):
    with client() as told, caplog.at_level(logging.INFO):
        told.post("/predict?secret=1", json={"instances": [journey(2, key="a secret", segment="a secret")] * 2})
        told.post("/predict", json={"instances": [{"as_of": "a secret", "a secret": 1}]})
        told.get("/a secret")
        told.get("/health")
        metrics = told.get("/metrics").text
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records if record.name.startswith("deploy")]
    requests = [line for line in lines if line["message"] == "request"]
    assert [(line["route"], line["code"], line["instances"]) for line in requests if line["route"] != "health"] == [
        ("predict", 200, 2),
        ("predict", 400, 0),
        ("other", 404, 0),
    ]
    assert all(line["ms"] > 0 for line in requests)
    assert "secret" not in json.dumps(lines) + metrics
    for line in (
        'parcours_requests_total{code="200",route="predict"} 1.0',
        'parcours_requests_total{code="404",route="other"} 1.0',
        'parcours_instances_total{outcome="scored"} 2.0',
        'parcours_model_info{model_version="0123456789ab"} 1.0',
        "parcours_batch_journeys_count",
        'parcours_request_seconds_bucket{le="0.001",route="predict"}',
        "parcours_queue_journeys 0.0",
    ):
        assert line in metrics


class Mirror:
    """What a Shadow is to the application."""

    def __init__(self):
        self.told, self.states = [], []

    async def start(self):
        self.states.append("started")

    async def stop(self):
        self.states.append("stopped")

    def mirror(self, body, instances, answers, seconds):
        self.told.append((body, instances, answers, seconds))

    def counters(self):
        return {"mirrored": len(self.told), "dropped": 0}


def test_a_shadow_is_told_of_what_was_answered():
    shadow = Mirror()
    with client(shadow=shadow) as mirrored:
        answer = mirrored.post("/predict", content=GOOD).json()
        mirrored.post("/predict", content=b"[]")
        mirrored.post("/explain", json={"instance": journey(1)})
        assert 'parcours_shadow_total{event="mirrored"} 1.0' in mirrored.get("/metrics").text
    ((body, instances, answers, seconds),) = shadow.told
    assert (body, instances, answers) == (GOOD, json.loads(GOOD)["instances"], answer["predictions"])
    assert 0 < seconds < 20
    assert shadow.states == ["started", "stopped"]


def test_other_paths_and_methods_answer_in_json(plain):
    refused(plain.get("/nothing"), 404)
    answer = plain.get("/predict")
    refused(answer, 405)
    assert answer.headers["allow"] == "POST"
    assert "swagger" in plain.get("/docs").text


def test_the_models_page_holds_a_sample_that_works(plain):
    about = plain.get("/model").json()
    sample = about.pop("sample")
    assert about == ABOUT
    assert plain.post("/predict", json={"instances": [sample]}).status_code == 200
    paths = plain.get("/openapi.json").json()["paths"]
    assert paths["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"] == {"instances": [sample]}


def test_routes_as_vertex_names_them():
    routes = Routes(predict="/v1/endpoints/1:predict", health="/v1/endpoints/1")
    service = Service(ABOUT, HandScorer, Limits())
    asyncio.run(service.warm())
    vertex = TestClient(create_app(service, routes=routes))
    assert vertex.get("/v1/endpoints/1").status_code == 200
    assert vertex.post("/v1/endpoints/1:predict", content=GOOD).status_code == 200
    assert vertex.get("/health").status_code == 404
    assert {routes.predict, routes.health} <= vertex.get("/openapi.json").json()["paths"].keys()

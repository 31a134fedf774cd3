"""The server as a process: Vertex AI's environment, draining under load, a slow body, mistakes told in one line."""

import http.client
import json
import subprocess
import sys
import threading
import time

import httpx
import pytest

from deploy.scorer import read_metadata
from preprocessing.manifest import write_manifest
from tests.deploy.server import ROOT, running
from tests.job import command


@pytest.fixture(scope="module")
def model(job):
    return job["run_dir"] / "model"


MARK = "mark-4711"


def of_a_marked_customer(url, sample):
    """Requests good and bad whose every value is marked; all that is answered but the good ones' own keys."""
    event = dict(sample["events"][0]) if sample["events"] else {"event_time": sample["as_of"]}
    good = sample | {"key": MARK, "segment": MARK, "events": [event | {"event_type": MARK, "campaign": MARK}]}
    bad = [
        good | {"as_of": MARK},
        good | {"age": MARK},
        good | {"segment": [MARK]},
        good | {"events": [{"event_time": MARK}]},
        good | {"events": MARK},
        MARK,
    ]
    right = {"Authorization": "Bearer 0123456789abcdef"}
    answers = [httpx.post(url, json={"instances": [good]}, headers=right)]
    assert [prediction["key"] for prediction in answers.pop().json()["predictions"]] == [MARK]
    answers += [httpx.post(url, json={"instances": [instance]}, headers=right) for instance in bad]
    answers += [httpx.post(url, json={"instances": [good]}, headers={"Authorization": f"Bearer {MARK}"})]
    answers += [httpx.post(f"{url}?{MARK}", content=f'{{"instances": ["{MARK}"', headers=right)]
    answers += [httpx.post(url, content=f'{{"instances": [{{"key": "{MARK}", "key": 1}}]}}', headers=right)]
    assert [answer.status_code for answer in answers] == [400] * 6 + [401, 400, 400]
    answers += [httpx.get(httpx.URL(url).join(route)) for route in ("/metrics", "/model", "/ping", "/none")]
    return "".join(answer.text + str(answer.headers) for answer in answers)


def test_vertex_environment_token_and_drain_under_load(model, tmp_path):
    """Everything that was accepted is answered; health says 503 first; the process ends with 0."""
    (tmp_path / "token").write_text("0123456789abcdef\n")
    flags = ("--token_file", tmp_path / "token", "--drain_s", 1.5, "--timeout_s", 5, "--host", "127.0.0.1")
    vertex = {"AIP_HTTP_PORT": "0", "AIP_HEALTH_ROUTE": "/ping", "AIP_PREDICT_ROUTE": "/v1:predict"}
    answers, healths, faults = [], [], []
    with running(*flags, AIP_STORAGE_URI=str(model), **vertex) as server:
        sample = httpx.get(f"{server.url}/model").json()["sample"]
        body = json.dumps({"instances": [sample] * 16})
        assert httpx.post(f"{server.url}/v1:predict", content=body).status_code == 401
        said_to_callers = of_a_marked_customer(f"{server.url}/v1:predict", sample)
        going = threading.Event()

        def load():
            with httpx.Client(headers={"Authorization": "Bearer 0123456789abcdef"}, timeout=30) as client:
                while True:
                    try:
                        answers.append(client.post(f"{server.url}/v1:predict", content=body))
                    except httpx.ConnectError:
                        return  # closed: nobody is let in any more
                    except httpx.TransportError as error:
                        # a connection that was idle as the server closed it; under way, it would be a fault
                        faults.append((time.monotonic(), error))
                        return

        loaders = [threading.Thread(target=load) for _ in range(6)]
        for loader in loaders:
            loader.start()
        while len(answers) < 30:
            time.sleep(0.01)
        server.process.terminate()
        until = time.monotonic() + 1
        while time.monotonic() < until:
            healths.append(httpx.get(f"{server.url}/ping").status_code)
            going.wait(0.05)
        before_closing = len(answers)
        assert server.process.wait(60) == 0
        for loader in loaders:
            loader.join(30)
    assert healths[0] in (200, 503)
    assert healths[-1] == 503
    assert before_closing > 30
    assert {answer.status_code for answer in answers} == {200}
    assert all(len(answer.json()["predictions"]) == 16 for answer in answers)
    assert all(isinstance(error, httpx.RemoteProtocolError | httpx.ReadError) for _, error in faults), faults
    assert len(faults) <= len(loaders)
    requests = [line for line in server.lines if line.get("message") == "request" and line["route"] == "predict"]
    assert len([line for line in requests if line["code"] == 200]) == len(answers) + 1
    assert [line["code"] for line in requests[:10]] == [401, 200, *[400] * 6, 401, 400]
    assert MARK not in json.dumps(server.lines) + said_to_callers
    assert "Traceback" not in json.dumps(server.lines) + said_to_callers
    assert all("text" not in line for line in server.lines), server.lines


def test_limits_on_the_wire(model):
    """Chunks without a length, a length that promises too much, a body that does not come."""
    flags = ("--max_body_bytes", 1000, "--timeout_s", 1, "--drain_s", 0)
    with running("--model", model, *flags) as server:
        host, _, port = server.url.removeprefix("http://").partition(":")

        def ask(start):
            connection = http.client.HTTPConnection(host, int(port), timeout=20)
            connection.putrequest("POST", "/predict")
            start(connection)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())["error"]["message"]

        def chunked(connection):
            connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders()
            for _ in range(3):
                connection.send(b"200\r\n" + b" " * 512 + b"\r\n")

        def promised(connection):
            connection.putheader("Content-Length", "1001")
            connection.endheaders()

        def held_back(connection):
            connection.putheader("Content-Length", "100")
            connection.endheaders()
            connection.send(b"{")

        assert ask(chunked) == (413, "expected a body of at most 1000 bytes")
        assert ask(promised) == (413, "expected a body of at most 1000 bytes")
        assert ask(held_back) == (408, "the body did not come within 1 s")
        assert server.end() == 0


def test_a_broken_model_ends_the_server_in_one_line(model, tmp_path):
    (tmp_path / "parcours.json").write_text(json.dumps(read_metadata(model)))
    write_manifest(tmp_path)
    said = command("deploy.serve", "--model", tmp_path, "--port", 0, "--drain_s", 0, code=2)
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "cannot load the SavedModel" in errors[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "--model: expected RUN_DIR/model or gs://"),
        (("--model", "/nowhere"), "--model /nowhere: no exported model here"),
        (("--model", "MODEL", "--port", "http"), "--port: expected a port"),
        (("--model", "MODEL", "--max_queue", 0), "--max_queue: expected 1 or more, got 0"),
        (("--model", "MODEL", "--timeout_s", 0), "--timeout_s: expected seconds above 0"),
        (("--model", "MODEL", "--token_file", "/nowhere"), "--token_file /nowhere: cannot read"),
        (("--model", "MODEL", "--shadow", "http://x/predict"), "--shadow: expected together with --shadow_log"),
        (("--model", "MODEL", "--host", "192.0.2.1"), "--host 192.0.2.1 --port 8080: cannot listen there"),
    ],
)
def test_mistakes_are_told_in_one_line(model, flags, message):
    said = command("deploy.serve", *(model if flag == "MODEL" else flag for flag in flags), code=2)
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert message in error


def test_the_server_needs_neither_beam_nor_the_trainer():
    """What the serving image leaves out is not imported."""
    modules = ("app", "service", "scorer", "draining", "page", "shadow", "serve")
    code = (
        f"import sys, {', '.join(f'deploy.{name}' for name in modules)}\n"
        "absent = 'trainer apache_beam tensorflow_transform duckdb sklearn matplotlib tensorflow'.split()\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & set(absent)),"
        " sorted(name for name in sys.modules if name.startswith('preprocessing.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    light = (
        "bigquery_client",
        "blocks",
        "cli",
        "manifest",
        "padded",
        "storage",
        "tensorflow_errors",
        "values",
    )  # none of them imports what is absent
    assert done.stdout.strip() == f"[] {[f'preprocessing.{name}' for name in light]}"

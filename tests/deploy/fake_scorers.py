"""A scorer behind real HTTP that speaks the server's protocol and Vertex AI's REST predict, and fails when told to."""

import json
import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ENDPOINT = "projects/p/locations/europe-west1/endpoints/42"
VERSION = "served-1"


def probabilities(key):
    """What the scorer says of journey j0012: 0.12 within 30 days, half of it within 7."""
    percent = int(key[1:]) % 100
    return {"7": percent / 200, "30": percent / 100}


class FakeScorer:
    """statuses: answered to the next requests, in turn (200: as usual); bad: keys that get an error; most: instances a
    request, above it 413; hanging: seconds before each answer; requests: (path, body, headers) of all predictions."""

    def __init__(self):
        self.statuses, self.bad, self.most, self.hanging = [], set(), 10**6, 0.0
        self.requests, self.address, self.about, self.wrong_key = [], "", None, False

    def answer(self, path, body, headers):
        self.requests.append((path, body, headers))
        time.sleep(self.hanging)
        status = self.statuses.pop(0) if self.statuses else 200
        if status != 200:
            return status, {"error": {"code": status, "message": "told to fail", "status": "UNAVAILABLE"}}
        if len(body["instances"]) > self.most:
            return 413, {"error": {"code": 413, "message": "too many instances"}}
        predictions = []
        for at, instance in enumerate(body["instances"]):
            key = instance["key"]
            if key in self.bad:
                predictions.append({"key": key, "error": f"instance {at}: events[0].amount: expected a number"})
            else:
                told = "j0000" if self.wrong_key else key
                predictions.append({"key": told, "model_version": VERSION, "probabilities": probabilities(key)})
        return 200, {"predictions": predictions}


@contextmanager
def served():
    """The scorer on a port of its own; `.address` is its http://host:port."""
    fake = FakeScorer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _say(self, status, content):
            encoded = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            if status in (429, 503):
                self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(encoded)

        def do_GET(self):
            known = self.path == "/model" and fake.about is not None
            self._say(200 if known else 404, fake.about if known else {"error": {"message": "no such page"}})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            path = self.path.partition("?")[0]
            if path == "/predict" or re.fullmatch(rf"/v1/{ENDPOINT}:predict", path):
                self._say(*fake.answer(path, body, dict(self.headers)))
            else:
                self._say(404, {"error": {"message": f"no such page: {path}"}})

        def log_message(self, *_):
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # a client that waited no longer
    fake.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()

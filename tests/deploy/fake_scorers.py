"""A scorer behind real HTTP that speaks the server's protocol and Vertex AI's REST predict, and fails when told to."""

import time
from contextlib import contextmanager

from tests.cloud.listener import Listener
from tests.cloud.service import ApiError, Service, answer, route

ENDPOINT = "projects/p/locations/europe-west1/endpoints/42"
VERSION = "served-1"


def probabilities(key):
    """What the scorer says of journey j0012: 0.12 within 30 days, half of it within 7."""
    percent = int(key[1:]) % 100
    return {"7": percent / 200, "30": percent / 100}


class FakeScorer(Service):
    """statuses: answered to the next predictions, in turn (200: as usual); bad: keys that get an error; most: instances
    a request, above it 413; hanging: seconds before each answer; about: what GET /model answers; address: its URL."""

    def reset(self):
        super().reset()
        self.statuses, self.bad, self.most, self.hanging = [], set(), 10**6, 0.0
        self.address, self.about, self.wrong_key = "", None, False

    @route("GET", "/model")
    def model(self, request):
        if self.about is None:
            raise ApiError(404, "no such page")
        return self.about

    @route("POST", "/predict")
    @route("POST", f"/v1/{ENDPOINT}:predict")
    def predict(self, request):
        time.sleep(self.hanging)
        status = self.statuses.pop(0) if self.statuses else 200
        if status != 200:
            error = {"code": status, "message": "told to fail", "status": "UNAVAILABLE"}
            return answer({"error": error}, status, **({"Retry_After": "0"} if status in (429, 503) else {}))
        instances = request.json()["instances"]
        if len(instances) > self.most:
            raise ApiError(413, "too many instances")
        predictions = []
        for at, instance in enumerate(instances):
            key = instance["key"]
            if key in self.bad:
                predictions.append({"key": key, "error": f"instance {at}: events[0].amount: expected a number"})
            else:
                told = "j0000" if self.wrong_key else key
                predictions.append({"key": told, "model_version": VERSION, "probabilities": probabilities(key)})
        return {"predictions": predictions}

    @property
    def predictions(self):
        """The requests for predictions so far: (path, body, headers in lower case)."""
        return [(request.path, request.json(), request.headers) for request in self.seen("POST ")]


@contextmanager
def served():
    """The scorer on a port of its own; `.address` is its http://host:port."""
    fake = FakeScorer()
    listener = Listener([fake], lambda request: None)
    fake.address = f"http://127.0.0.1:{listener.port}"
    try:
        yield fake
    finally:
        listener.close()

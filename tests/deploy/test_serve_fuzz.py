"""Requests made from the server's own OpenAPI page, good ones and bad ones, against a real model: no 5xx, no hang."""

import asyncio
import collections
import time

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode, checks

from deploy.app import create_app
from deploy.page import router
from deploy.requests import Limits
from deploy.scorer import Scorer
from deploy.service import Service

CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.unsupported_method,
]
FUZZ = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "phases": [Phase.explicit, Phase.generate, Phase.target],
    "derandomize": False,
}


@pytest.fixture(scope="module")
def api(job):
    scorer = Scorer(job["run_dir"] / "model")
    service = Service(scorer.about, lambda: scorer, Limits(max_events=6, max_instances=4, timeout_s=20))
    asyncio.run(service.warm())
    app = create_app(service, page=router(scorer.about))

    async def warm_already(scope, receive, send):
        """The application without its start and end, which schemathesis would walk through for each route."""
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        for what in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{what}.complete"})

    return schemathesis.openapi.from_asgi("/openapi.json", warm_already)


def fuzz(api, route, mode, requests):
    """The codes that so many requests to a route were answered with; each answer is checked against the page."""
    codes = collections.Counter()

    @settings(max_examples=requests, **FUZZ)
    @given(api[route]["POST"].as_strategy(generation_mode=mode))
    def ask(case):
        start = time.monotonic()
        answer = case.call_and_validate(checks=CHECKS)
        assert time.monotonic() - start < 20
        codes[answer.status_code] += 1

    ask()
    assert not codes[429]
    return codes


ROUTES = ["/predict", "/explain"]


@pytest.mark.parametrize("route", ROUTES)
def test_requests_of_the_page_and_off_it(api, route):
    good = fuzz(api, route, GenerationMode.POSITIVE, 100)
    bad = fuzz(api, route, GenerationMode.NEGATIVE, 100)
    assert good[200] > 30  # the rest: columns of different lengths, which no schema can tell, and the like
    assert bad[400] > 30
    assert max(good | bad) < 500


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_ten_thousand_requests(api, route, mode):
    codes = fuzz(api, route, mode, 2500)
    assert codes.total() >= 2000
    assert max(codes) < 500


@pytest.mark.parametrize("route", ["/health", "/metrics", "/model"])
def test_what_is_read_is_as_the_page_says(api, route):
    api[route]["GET"].Case().call_and_validate(checks=CHECKS[:-1])

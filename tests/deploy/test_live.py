"""Live scorers: retries, halving, hangs, dead servers; over HTTP and by Vertex AI's own client, on real sockets."""

import time

import numpy as np
import pytest

from deploy.endpoints import Http, Vertex
from deploy.population import read_population
from deploy.timing import GIVEN_UP, NOT_ASKED, latency, score_all
from preprocessing.cli import UserError
from tests.deploy import fake_scorers
from tests.deploy.double_journeys import write_journeys

SETTINGS = {"batch_size": 10, "concurrency": 2, "attempts": 3, "first_wait": 0.001}
WANTED = np.array([i % 100 / 100 for i in range(25)])


@pytest.fixture
def journeys(tmp_path):
    return read_population(write_journeys(tmp_path / "journeys.parquet", 25), None)


@pytest.fixture
def server():
    with fake_scorers.served() as fake:
        yield fake


@pytest.fixture(params=["http", "vertex"])
def scorer(request, server, journeys):
    def made(**changed):
        settings = SETTINGS | {"timeout": 5.0} | changed
        if request.param == "http":
            live = Http(server.address, journeys.about, token=None, **settings)
        else:
            live = Vertex("--x", fake_scorers.ENDPOINT, journeys.about, api_endpoint=server.address, **settings)
        live.introduce("--x", next(journeys.batches(1, 1)))
        server.requests.clear()
        return live

    return made


def test_all_journeys_in_order(scorer, server, journeys):
    side = score_all(scorer(), journeys, "candidate")
    np.testing.assert_allclose(side.values[30], WANTED)
    np.testing.assert_allclose(side.values[7], WANTED / 2)
    assert (side.version, side.counts["scored"], side.counts["errors"]) == ("served-1", 25, 0)
    assert sorted(len(body["instances"]) for _, body, _ in server.predictions) == [5, 10, 10]
    sent = next(one for _, body, _ in server.predictions for one in body["instances"] if one["key"] == "j0007")
    assert sent["as_of"] == "2026-06-15T00:00:00Z"
    assert [event["event_type"] for event in sent["events"]] == ["view", "view"]
    assert sent["age"] is None  # NaN in the table
    assert side.timing["journeys"] == 25
    assert side.timing["seconds"] > 0


def test_a_busy_server_is_asked_again_a_bounded_number_of_times(scorer, server, journeys):
    live = scorer(concurrency=1)
    server.statuses = [503, 429, 200, 503, 503, 503]
    side = score_all(live, journeys, "candidate")
    np.testing.assert_allclose(side.values[30][:10], WANTED[:10])
    assert np.isnan(side.values[30][10:20]).all()
    np.testing.assert_allclose(side.values[30][20:], WANTED[20:])
    assert side.counts["reasons"] == {"status 503, 3 times": 10}
    assert side.timing["retries"] == 4


def test_one_bad_journey_takes_no_other_along(scorer, server, journeys):
    live = scorer()
    server.bad = {"j0003", "j0017"}
    side = score_all(live, journeys, "candidate")
    assert np.flatnonzero(side.code).tolist() == [3, 17]
    assert side.counts["reasons"] == {"events[0].amount: expected a number": 2}


def test_a_request_too_large_is_halved(scorer, server, journeys):
    live = scorer()
    server.most = 3
    side = score_all(live, journeys, "candidate")
    np.testing.assert_allclose(side.values[30], WANTED)


def test_a_hanging_server_costs_its_timeout_a_few_times_only(scorer, server, journeys):
    scorer()  # the first request of a process imports much
    live = scorer(timeout=0.5, concurrency=1, batch_size=2)
    server.hanging = 2.0
    started = time.monotonic()
    side = score_all(live, journeys, "candidate")
    assert time.monotonic() - started < 6.5  # of 13 batches, five
    assert side.counts["reasons"] == {"no answer within 0.5 s": 2 * GIVEN_UP, NOT_ASKED: 25 - 2 * GIVEN_UP}
    assert side.counts["errors"] == 25


def test_latency_counts_failures_and_does_not_retry(scorer, server, journeys):
    live = scorer()
    server.statuses = [200] * 20 + [503, 500] + [200] * 18  # 20 are the warm-up
    measured = latency(live, journeys, 20, "candidate")
    assert (measured["requests"], measured["errors"], measured["error_rate"]) == (20, 2, 0.1)
    assert 0 < measured["p50_ms"] <= measured["p95_ms"] <= measured["p99_ms"]
    assert len(server.predictions) == 40


def test_latency_of_a_dead_server_is_given_up(scorer, server, journeys):
    live = scorer()
    server.statuses = [500] * 100
    measured = latency(live, journeys, 20, "candidate")
    assert (measured["requests"], measured["error_rate"]) == (GIVEN_UP, 1.0)


def test_another_journeys_answer_is_an_error(scorer, server, journeys):
    live = scorer()
    server.wrong_key = True
    side = score_all(live, journeys, "candidate")
    assert side.counts["reasons"] == {"an answer with another journey's key": 24}


def test_a_server_that_is_not_there_is_told_at_once(journeys, server):
    for live in (
        Http("http://127.0.0.1:9", journeys.about, token=None, timeout=1.0, **SETTINGS),
        Vertex(
            "--x", fake_scorers.ENDPOINT, journeys.about, api_endpoint="http://127.0.0.1:9", timeout=1.0, **SETTINGS
        ),
    ):
        with pytest.raises(UserError, match="no score of a first journey: no connection"):
            live.introduce("--incumbent", next(journeys.batches(1, 1)))


def test_an_answer_in_another_protocol_is_told(server, journeys):
    live = Http(f"{server.address}/other", journeys.about, token=None, timeout=1.0, **SETTINGS)
    with pytest.raises(UserError, match="status 404"):
        live.introduce("--incumbent", next(journeys.batches(1, 1)))


def test_an_older_server_is_sent_only_the_fields_that_it_knows(server, journeys):
    server.about = {"sequence": {"event_type": "categorical"}, "customer": {}}
    live = Http(server.address, journeys.about, token="secret", timeout=5.0, **SETTINGS)
    live.introduce("--incumbent", next(journeys.batches(1, 1)))
    live.score(next(journeys.batches(10)))
    (_, body, headers) = server.predictions[-1]
    assert set(body["instances"][4]) == {"key", "as_of", "events"}
    assert set(body["instances"][4]["events"][0]) == {"event_time", "event_type"}
    assert headers["authorization"] == "Bearer secret"

"""The shadow by fault injection: candidates that answer, hang, die, reset, drip and answer nonsense."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import re
import socket
import time
import tracemalloc

import httpx
import pyarrow.parquet as pq
import pytest

from deploy import shadow as shadow_module
from deploy.answers import share
from deploy.shadow import Shadow
from preprocessing.cli import UserError
from tests.deploy import candidate
from tests.deploy.servers import deployed
from tests.deploy.shadow_load import bodies, candidate_process, load

ABOUT = {"model_version": "incumbent-1", "horizons_days": [7, 30]}


@pytest.fixture(scope="module")
def address():
    """A candidate in a process of its own."""
    with candidate_process() as (url, _):
        yield url


def request(*numbers, keyed=True):
    """(body, instances, answers) of journeys j1, j2 …, as the server has them when it has answered."""
    instances = [
        ({"key": f"j{n}"} if keyed else {}) | {"as_of": "2026-06-01T02:00:00+02:00", "events": []} for n in numbers
    ]
    answers = [
        {"key": one.get("key"), "model_version": "incumbent-1", "probabilities": {"7": 0.25, "30": 0.5}}
        for one in instances
    ]
    return json.dumps({"instances": instances}).encode(), instances, answers


def mirrored(url, directory, requests, wait_s=20.0, **options):
    """What (counters, incumbent's rows, candidate's rows) are after these requests; every call timed, in seconds."""

    async def walk():
        shadow = Shadow(url, str(directory), ABOUT, **options)
        await shadow.start()
        slowest = 0.0
        for one in requests:
            began = time.perf_counter()
            shadow.mirror(*one, 0.004)
            slowest = max(slowest, time.perf_counter() - began)
        offered = sum(len(one[2]) for one in requests)
        until = time.monotonic() + wait_s
        while time.monotonic() < until and sum(shadow.counters()[n] for n in ("mirrored", "dropped")) < offered:
            await asyncio.sleep(0.01)
        began = time.perf_counter()
        await shadow.stop()
        ended = time.perf_counter() - began
        assert slowest < 0.05, slowest
        return shadow.counters(), ended

    counters, ended = asyncio.run(walk())
    assert ended < 6, ended
    return counters, *(rows(directory, side) for side in ("incumbent", "candidate"))


def rows(directory, side):
    return [row for path in sorted(directory.glob(f"{side}-*.parquet")) for row in pq.read_table(path).to_pylist()]


def by_key(table):
    return {row["journey_id"]: row for row in table}


def test_both_answers_are_logged_with_their_key(address, tmp_path):
    counters, incumbent, candidates = mirrored(f"{address}/predict", tmp_path, [request(1, 2), request(3)])
    assert counters == {"mirrored": 3, "dropped": 0, "failed": 0, "answered": 3, "logged": 3, "unlogged": 0}
    assert [row["journey_id"] for row in incumbent] == [row["journey_id"] for row in candidates]
    assert by_key(incumbent).keys() == {"j1", "j2", "j3"}
    mine, other = by_key(incumbent)["j2"], by_key(candidates)["j2"]
    assert (mine["p_7d"], mine["p_30d"], other["p_7d"], other["p_30d"]) == (0.25, 0.5, 0.01, 0.02)
    assert (mine["model_version"], other["model_version"]) == ("incumbent-1", "candidate-1")
    assert mine["as_of"] == other["as_of"] and mine["as_of"].isoformat() == "2026-06-01T00:00:00+00:00"
    assert mine["latency_ms"] == pytest.approx(4.0) and 0 < other["latency_ms"] < 10_000
    assert mine["status"] == other["status"] == "ok"
    assert mine["logged_at"] == other["logged_at"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("error", "http_500"),
        ("nowhere", "http_404"),
        ("garbage", "not_json"),
        ("fewer", "other_shape"),
        ("other_key", "other_key"),
        ("outside", "no_probability"),
    ],
)
def test_a_wrong_answer_is_a_failure_of_the_candidate(address, tmp_path, path, status):
    counters, incumbent, candidates = mirrored(f"{address}/{path}", tmp_path, [request(1, 2), request(3)])
    assert counters == {"mirrored": 3, "dropped": 0, "failed": 3, "answered": 0, "logged": 3, "unlogged": 0}
    assert {row["status"] for row in candidates} == {status}
    assert {(row["p_7d"], row["p_30d"]) for row in candidates} == {(None, None)}
    assert {(row["p_7d"], row["status"]) for row in incumbent} == {(0.25, "ok")}


def test_an_error_of_one_instance_leaves_the_others(address, tmp_path):
    counters, incumbent, candidates = mirrored(f"{address}/partial", tmp_path, [request(1, 2, 3)])
    assert (counters["answered"], counters["failed"]) == (2, 1)
    assert {key: row["status"] for key, row in by_key(candidates).items()} == {
        "j1": "instance_error",
        "j2": "ok",
        "j3": "ok",
    }
    # and one of the incumbent's: {"key", "error"} stands in the prediction's place
    body, instances, answers = request(4, 5)
    answers[0] = {"key": "j4", "error": "instance 0: as_of: expected …"}
    counters, incumbent, candidates = mirrored(f"{address}/predict", tmp_path / "other", [(body, instances, answers)])
    assert {key: (row["status"], row["p_7d"]) for key, row in by_key(incumbent).items()} == {
        "j4": ("instance_error", None),
        "j5": ("ok", 0.25),
    }
    assert counters["answered"] == 2


def test_a_hanging_candidate_is_given_up_and_the_queue_does_not_grow(address, tmp_path):
    requests = [request(n) for n in range(500)]
    counters, _, candidates = mirrored(f"{address}/hang", tmp_path, requests, wait_s=1.5, timeout_s=0.4, queue=20)
    assert counters["answered"] == 0
    assert counters["failed"] == counters["mirrored"] == counters["logged"] == len(candidates)
    # eight before the candidate at once, so three times eight within 1.5 s, less what stops early
    assert 8 <= counters["failed"] <= 28 + 8
    assert counters["failed"] + counters["dropped"] == 500
    assert {row["status"] for row in candidates} == {"timeout"}
    assert all(380 < row["latency_ms"] < 2_000 for row in candidates)


@pytest.mark.parametrize(("behave", "status"), [("silent", "timeout"), ("drip", "timeout"), ("reset", "broken")])
def test_faults_below_http(tmp_path, behave, status):
    with candidate.sockets(behave) as url:
        counters, _, candidates = mirrored(url, tmp_path, [request(n) for n in range(4)], timeout_s=0.5)
    assert (counters["failed"], counters["logged"], counters["dropped"]) == (4, 4, 0)
    assert {row["status"] for row in candidates} == {status}


def test_nobody_listens(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as once:
        url = f"http://127.0.0.1:{once.getsockname()[1]}/predict"
    counters, _, candidates = mirrored(url, tmp_path, [request(n) for n in range(4)])
    assert (counters["failed"], counters["logged"]) == (4, 4)
    assert {row["status"] for row in candidates} == {"unreachable"}


def test_a_candidate_that_dies_and_comes_back(tmp_path):
    async def walk():
        with candidate_process() as (url, child):
            shadow = Shadow(f"{url}/predict", str(tmp_path), ABOUT, timeout_s=1)
            await shadow.start()

            async def ask(n, name):
                shadow.mirror(*request(n), 0.001)
                until = time.monotonic() + 10
                while shadow.counters()[name] == 0 and time.monotonic() < until:
                    await asyncio.sleep(0.01)
                return shadow.counters()

            assert (await ask(1, "answered"))["answered"] == 1
            child.kill()
            child.wait()
            assert (await ask(2, "failed"))["failed"] == 1
            began = time.perf_counter()
            await shadow.stop()
            assert time.perf_counter() - began < 3
            assert shadow.counters()["logged"] == 2

    asyncio.run(walk())


def test_stopping_ends_within_seconds_though_the_candidate_hangs(address, tmp_path):
    requests = [request(n) for n in range(100)]
    counters, _, _ = mirrored(f"{address}/hang", tmp_path, requests, wait_s=0.2, timeout_s=600)
    assert (counters["dropped"], counters["mirrored"]) == (100, 0)


def test_what_waits_at_the_end_is_sent_when_the_candidate_answers(address, tmp_path):
    counters, _, _ = mirrored(f"{address}/predict", tmp_path, [request(n) for n in range(60)], wait_s=0)
    assert (counters["answered"], counters["dropped"], counters["logged"]) == (60, 0, 60)


def test_mirroring_after_the_end_or_before_the_start_drops(tmp_path):
    shadow = Shadow("http://127.0.0.1:9/predict", str(tmp_path), ABOUT)
    shadow.mirror(*request(1), 0.001)
    assert shadow.counters()["dropped"] == 1

    async def walk():
        await shadow.start()
        await shadow.stop()
        await shadow.stop()

    asyncio.run(walk())
    shadow.mirror(*request(1, 2), 0.001)
    assert shadow.counters()["dropped"] == 3


def test_mirror_never_raises(tmp_path):
    shadow = Shadow("http://127.0.0.1:9/predict", str(tmp_path), ABOUT)
    shadow.mirror(b"{}", None, [{}, {}], 0.001)  # type: ignore[arg-type]
    assert shadow.counters()["dropped"] == 2


def test_memory_is_bounded_by_requests_and_by_bytes(tmp_path, monkeypatch):
    with candidate.sockets("silent") as url:

        async def walk():
            shadow = Shadow(url, str(tmp_path), ABOUT, timeout_s=600, queue=50)
            await shadow.start()
            gc.collect()
            tracemalloc.start()
            body, instances, answers = request(1)
            for n in range(5_000):
                padding = b" " * 10_000 + str(n).encode()
                shadow.mirror(body + padding, instances, answers, 0.001)
            held, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            # 50 in the queue and 8 on their way, 10 kB each
            assert held < 58 * 10_200 * 2 + 1_000_000, held
            assert 5_000 - 58 <= shadow.counters()["dropped"] <= 5_000 - 50
            await shadow.stop()

            monkeypatch.setattr(shadow_module, "_QUEUED_BYTES", 100_000)
            shadow = Shadow(url, str(tmp_path), ABOUT, timeout_s=600, queue=1_000)
            await shadow.start()
            for _ in range(100):
                shadow.mirror(body + b" " * 10_000, instances, answers, 0.001)
            assert 100 - 18 <= shadow.counters()["dropped"] <= 100 - 9
            await shadow.stop()

        asyncio.run(walk())


def test_sampling_is_by_the_hash_of_the_key(address, tmp_path):
    digest = hashlib.sha256(b"j7").hexdigest()
    assert share("j7") == pytest.approx(int(digest[:12], 16) / 16**12, abs=1e-12)
    numbers = list(range(400))
    wanted = {f"j{n}" for n in numbers if share(f"j{n}") < 0.3}
    assert 85 < len(wanted) < 155
    requests = [request(*numbers[i : i + 10]) for i in range(0, 400, 10)]
    counters, incumbent, candidates = mirrored(f"{address}/predict", tmp_path, requests, wait_s=1, sample=0.3)
    assert by_key(incumbent).keys() == by_key(candidates).keys() == wanted
    assert counters["mirrored"] == len(wanted)
    assert all(row["p_30d"] == candidate.probabilities(row["journey_id"])["30"] for row in candidates)


def test_journeys_without_a_key_are_paired_all_the_same(address, tmp_path):
    body, *others = request(1, 2, keyed=False)
    _, incumbent, candidates = mirrored(f"{address}/predict", tmp_path, [(body, *others)])
    digest = hashlib.sha256(body).hexdigest()[:32]
    assert by_key(incumbent).keys() == by_key(candidates).keys() == {f"unkeyed-{digest}-{i}" for i in (0, 1)}
    assert {row["status"] for row in candidates} == {"ok"}


def test_pairs_reach_the_disk_while_it_runs(address, tmp_path, monkeypatch):
    monkeypatch.setattr(shadow_module, "_FLUSH_S", 0.2)

    async def walk():
        shadow = Shadow(f"{address}/predict", str(tmp_path), ABOUT)
        await shadow.start()
        shadow.mirror(*request(1), 0.001)
        until = time.monotonic() + 10
        while shadow.counters()["logged"] == 0 and time.monotonic() < until:
            await asyncio.sleep(0.02)
        assert len(rows(tmp_path, "candidate")) == 1
        await shadow.stop()

    asyncio.run(walk())


def test_a_log_that_cannot_be_written_keeps_some_pairs_and_gives_up_others(address, tmp_path, monkeypatch):
    monkeypatch.setattr(shadow_module, "_KEPT_PAIRS", 5)
    monkeypatch.setattr(shadow_module, "_FLUSH_S", 0.05)
    place = tmp_path / "log"

    async def walk():
        shadow = Shadow(f"{address}/predict", str(place), ABOUT)
        await shadow.start()
        place.rmdir()
        for n in range(8):
            shadow.mirror(*request(n), 0.001)
        until = time.monotonic() + 10
        while shadow.counters()["mirrored"] < 8 and time.monotonic() < until:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        assert shadow.counters()["logged"] == 0
        assert shadow.counters()["unlogged"] == 3
        place.mkdir()  # the disk is back
        await shadow.stop()
        assert (shadow.counters()["logged"], shadow.counters()["unlogged"]) == (5, 3)
        assert len(rows(place, "candidate")) == 5

    asyncio.run(walk())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "http://candidate:8080"}, r"--shadow http://candidate:8080: expected the candidate's predict route"),
        ({"url": "candidate/predict"}, "--shadow: no address of a server"),
        ({"url": "http://host:abc/predict"}, "--shadow: no address of a server"),
        ({"sample": 0.0}, "--shadow_sample: expected a share above 0, at most 1, got 0"),
        ({"sample": 1.5}, "--shadow_sample"),
        ({"timeout_s": 0.0}, "timeout_s: expected seconds above 0"),
        ({"queue": 0}, "queue: expected 1 or more"),
        ({"log": "s3://bucket/log"}, "--shadow_log s3://bucket/log: expected a directory or bigquery://"),
        ({"log": "/proc/none/log"}, "--shadow_log /proc/none/log: expected a directory to write in"),
    ],
)
def test_mistakes_are_told_at_the_start(tmp_path, options, said):
    with pytest.raises(UserError, match=said):
        Shadow(**{"url": "http://c:1/predict", "log": str(tmp_path), "about": ABOUT} | options)


def test_callers_of_the_real_server_notice_nothing(job, tmp_path):
    """Under load the candidate hangs, then dies; every answer is what the same server says without a shadow."""
    model = job["run_dir"] / "model"
    requests = bodies(model, job["run_dir"] / "journeys", 16, instances=2)
    with candidate_process() as (candidate_url, child):
        with deployed(model, "--shadow", f"{candidate_url}/hang", "--shadow_log", tmp_path) as address:
            wanted = [httpx.post(f"{address}predict", content=one, trust_env=False, timeout=30) for one in requests]
            _, answers = load(address, requests, 8, 3)
            child.kill()
            child.wait()
            _, more = load(address, requests, 8, 2)
            counts = {
                name: float(count)
                for name, count in re.findall(
                    r'parcours_shadow_total\{event="(\w+)"\} (\S+)',
                    httpx.get(f"{address}metrics", trust_env=False).text,
                )
            }
            began = time.monotonic()
        assert time.monotonic() - began < 30
    for i, alone in enumerate(wanted):
        probabilities = [one["probabilities"] for one in alone.json()["predictions"]]
        for other in answers[i] | more[i]:
            assert other.startswith(b"200 "), other
            # a batch of another size may differ in the last bit
            for mine, theirs in zip(probabilities, json.loads(other[4:])["predictions"], strict=True):
                assert theirs["probabilities"] == pytest.approx(mine, abs=1e-6)
    assert counts["failed"] > 0 and counts["answered"] == 0
    assert counts["mirrored"] == counts["failed"]
    logged = rows(tmp_path, "candidate")
    assert {row["status"] for row in logged} <= {"broken", "unreachable", "timeout"}
    assert by_key(rows(tmp_path, "incumbent")).keys() == by_key(logged).keys()
    assert len(logged) >= counts["failed"] > 0

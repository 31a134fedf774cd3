"""The log of pairs, on disk and in a BigQuery that Google's own client talks to."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deploy.pairs import Answer, BigQueryLog, LogError, Pair, ParquetLog, open_log
from deploy.shadow import Shadow
from preprocessing.cli import UserError
from tests.cloud.bigquery import emulator
from tests.job import ROOT

ABOUT = {"model_version": "m1", "horizons_days": [7, 30]}
AS_OF = 1_780_272_000_000_000  # 2026-06-01T00:00:00Z
NOW = AS_OF + 1_500_001


def pair(n, as_of=AS_OF, status="ok"):
    scored = (None, None) if status != "ok" else (n / 1000, n / 500)
    return Pair(
        f"j{n}",
        as_of,
        NOW,
        Answer("m1", (0.25, 0.5), 3.5, "ok"),
        Answer(None if status != "ok" else "m2", scored, 12.0, status),
    )


def read(directory, side):
    return pa.concat_tables([pq.read_table(path) for path in sorted(directory.glob(f"{side}-*.parquet"))])


def test_both_tables_are_tables_of_scores(tmp_path):
    ParquetLog(str(tmp_path), ABOUT).write([pair(1), pair(2, status="timeout"), pair(3, as_of=None)])
    incumbent, candidate = read(tmp_path, "incumbent"), read(tmp_path, "candidate")
    assert incumbent.schema.names == [
        "journey_id",
        "as_of",
        "model_version",
        "p_7d",
        "p_30d",
        "latency_ms",
        "status",
        "logged_at",
    ]
    assert incumbent.schema == candidate.schema
    assert incumbent.schema.field("as_of").type == pa.timestamp("us", "UTC")
    day = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
    later = dt.datetime(2026, 6, 1, 0, 0, 1, 500_001, tzinfo=dt.UTC)
    assert [tuple(row.values()) for row in candidate.to_pylist()] == [
        ("j1", day, "m2", 0.001, 0.002, 12.0, "ok", later),
        ("j2", day, None, None, None, 12.0, "timeout", later),
        ("j3", None, "m2", 0.003, 0.006, 12.0, "ok", later),
    ]
    assert [tuple(row.values()) for row in incumbent.to_pylist()][1] == ("j2", day, "m1", 0.25, 0.5, 3.5, "ok", later)


def test_the_double_run_reads_them_as_they_are(tmp_path):
    sources = pytest.importorskip("deploy.sources", reason="the offline double run is not here")
    ParquetLog(str(tmp_path), ABOUT).write([pair(1), pair(2, status="timeout")])
    table = sources.read_scores("--candidate", f"{tmp_path}/candidate-*.parquet", [], (0, 2 * AS_OF), None)
    assert {"journey_id", "as_of", "model_version", "p_7d", "p_30d"} <= set(table.column_names)
    assert table["p_30d"].to_pylist() == [0.002, None]


def test_a_file_grows_until_it_is_full_and_another_begins(tmp_path):
    log = ParquetLog(str(tmp_path), ABOUT, roll=5)
    for n in range(0, 12, 2):
        log.write([pair(n), pair(n + 1)])
        assert read(tmp_path, "candidate")["journey_id"].to_pylist().count(f"j{n}") == 1
    sizes = sorted(pq.read_metadata(path).num_rows for path in tmp_path.glob("incumbent-*"))
    assert sizes == [6, 6]
    assert sorted(read(tmp_path, "incumbent")["journey_id"].to_pylist()) == sorted(f"j{n}" for n in range(12))


def test_two_servers_share_a_directory(tmp_path):
    for first in (0, 10):
        ParquetLog(str(tmp_path), ABOUT).write([pair(first)])
    assert sorted(read(tmp_path, "candidate")["journey_id"].to_pylist()) == ["j0", "j10"]


def test_more_pairs_than_a_slice(tmp_path):
    ParquetLog(str(tmp_path), ABOUT).write([pair(n) for n in range(2_500)])
    assert read(tmp_path, "candidate")["journey_id"].to_pylist() == [f"j{n}" for n in range(2_500)]


def test_a_refused_write_leaves_nothing_aside_and_may_be_repeated(tmp_path):
    log = ParquetLog(str(tmp_path / "log"), ABOUT)
    log.write([pair(1)])
    moved = (tmp_path / "log").rename(tmp_path / "moved")
    with pytest.raises(LogError, match="No such file or directory"):
        log.write([pair(2)])
    moved.rename(tmp_path / "log")
    log.write([pair(2)])
    assert read(tmp_path / "log", "candidate")["journey_id"].to_pylist() == ["j1", "j2"]
    assert not list((tmp_path / "log").glob(".*"))


WRITER = """
import sys
from deploy.pairs import ParquetLog
from tests.deploy.test_pairs import ABOUT, pair
log = ParquetLog(sys.argv[1], ABOUT, roll=3_000)
n = 0
while True:
    log.write([pair(n + i) for i in range(500)])
    n += 500
    print(n, flush=True)
"""


def test_whatever_has_its_name_is_whole_after_a_kill(tmp_path):
    for kill in range(3):
        place = tmp_path / str(kill)
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, place], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as writer:
            for _ in range(5):
                written = int(writer.stdout.readline())
            time.sleep(0.003 * kill)
            os.kill(writer.pid, signal.SIGKILL)
        for side in ("incumbent", "candidate"):
            keys = read(place, side)["journey_id"].to_pylist()
            assert len(keys) == len(set(keys)) >= written


@pytest.fixture
def bigquery(monkeypatch):
    with emulator() as server:
        server.store.add_dataset("project", {"datasetReference": {"datasetId": "dataset"}})
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", server.url)
        yield server


TARGET = "bigquery://project.dataset.pairs"


def test_bigquery_gets_two_tables_partitioned_by_day(bigquery):
    log = open_log(TARGET, ABOUT)
    assert isinstance(log, BigQueryLog)
    log.write([pair(1), pair(2, status="http_500"), pair(3, as_of=None)])
    assert {name[2] for name in bigquery.store.tables} == {"pairs_incumbent", "pairs_candidate"}
    made = bigquery.store.table(("project", "dataset", "pairs_candidate")).resource
    assert made["timePartitioning"]["field"] == "logged_at"
    assert bigquery.store.get("project.dataset.pairs_candidate").to_pylist() == [
        {
            "journey_id": f"j{n}",
            "as_of": as_of,
            "model_version": version,
            "p_7d": p7,
            "p_30d": p30,
            "latency_ms": 12.0,
            "status": status,
            "logged_at": dt.datetime(2026, 6, 1, 0, 0, 1, 500_001, dt.UTC),
        }
        for n, as_of, version, p7, p30, status in [
            (1, dt.datetime(2026, 6, 1, tzinfo=dt.UTC), "m2", 0.001, 0.002, "ok"),
            (2, dt.datetime(2026, 6, 1, tzinfo=dt.UTC), None, None, None, "http_500"),
            (3, None, "m2", 0.003, 0.006, "ok"),
        ]
    ]
    assert len(bigquery.store.get("project.dataset.pairs_incumbent")) == 3


def test_bigquery_again_into_tables_that_are_there(bigquery):
    open_log(TARGET, ABOUT).write([pair(1)])
    open_log(TARGET, ABOUT).write([pair(2)])
    assert len(bigquery.store.get("project.dataset.pairs_candidate")) == 2
    with pytest.raises(UserError, match="pairs_incumbent exists and lacks p_90d"):
        open_log(TARGET, {"horizons_days": [7, 30, 90]})


def test_bigquery_a_batch_written_again_is_one_batch(bigquery):
    log = open_log(TARGET, ABOUT)
    pairs = [pair(n) for n in range(1_200)]
    bigquery.fail(503, match="insertAll")
    with pytest.raises(LogError, match="pairs_incumbent: 503"):
        log.write(pairs)
    bigquery.refusing = {"j1100"}
    with pytest.raises(LogError, match="pairs_incumbent: 1 of 200 rows refused"):
        log.write(pairs)
    bigquery.refusing = set()
    log.write(pairs)
    assert max(len(request.json()["rows"]) for request in bigquery.seen("insertAll")) == 500
    for side in ("incumbent", "candidate"):
        rows = bigquery.store.get(f"project.dataset.pairs_{side}")
        assert sorted(rows["journey_id"].to_pylist()) == sorted(f"j{n}" for n in range(1_200))


def test_bigquery_mistakes_are_told_at_the_start(bigquery):
    with pytest.raises(UserError, match=r"--shadow_log bigquery://project.other.pairs: 404.*Not found: Dataset"):
        open_log("bigquery://project.other.pairs", ABOUT)
    with pytest.raises(UserError, match=r"expected bigquery://project\.dataset\.table"):
        open_log("bigquery://project.dataset", ABOUT)


def test_bigquery_down_leaves_the_shadow_alone(bigquery, tmp_path):
    async def walk():
        shadow = Shadow("http://127.0.0.1:9/predict", TARGET, ABOUT)
        await shadow.start()
        bigquery.fail(500, times=100, match="insertAll")
        body = b'{"instances": [{"key": "j1", "as_of": 5}]}'
        shadow.mirror(body, [{"key": "j1", "as_of": 5}], [{"key": "j1", "error": "x"}], 0.001)
        until = time.monotonic() + 10
        while shadow.counters()["mirrored"] == 0 and time.monotonic() < until:
            await asyncio.sleep(0.01)
        await shadow.stop()
        return shadow.counters()

    counters = asyncio.run(walk())
    assert (counters["mirrored"], counters["logged"], counters["unlogged"]) == (1, 0, 1)

"""`python -m tests.bench.bigquery`: nested journeys out of BigQuery, by this package's source and by Beam's own.

All readers run one after the other in this process, each in Beam's in-process runner, against one local server in a
process of its own, which has encoded all messages before the first of them is timed.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from preprocessing.cli import UserError, run

ROOT = Path(__file__).parents[2]
TABLE = ("bench", "journeys", "nested")
BAR = 8.0  # times as fast as ReadFromBigQuery's Avro rows
log = logging.getLogger(__name__)
SERVER = """
import json, sys
from pathlib import Path
from tests.bench.bigquery import journeys
from tests.cloud.bigquery import BigQuery
from tests.cloud.house import House

house = House(Path(sys.argv[1]), [BigQuery()])
house.service(BigQuery).store.put("bench.journeys.nested", journeys(int(sys.argv[2])))
print(json.dumps(house.environment), flush=True)
sys.stdin.read()
"""


def journeys(count: int, mean_events: int = 12) -> pa.Table:
    """A journeys table as preprocessing makes it: three categorical and one numeric field, lengths geometric."""
    rng = np.random.default_rng(7)
    lengths = np.minimum(rng.geometric(1 / (mean_events + 1), count) - 1, 64)
    offsets = pa.array(np.append(0, lengths.cumsum()), pa.int32())
    steps = int(lengths.sum())

    def words(*values: str) -> pa.Array:
        return pa.ListArray.from_arrays(offsets, pa.array(values).take(pa.array(rng.integers(0, len(values), steps))))

    times = pa.array(1_767_225_600_000_000 + rng.integers(0, 86_400_000_000 * 90, steps)).cast(
        pa.timestamp("us", "UTC")
    )
    keys = pa.array([f"{i:064x}" for i in range(count)])
    days = np.where(rng.random(count) < 0.9, np.nan, rng.random(count) * 90)
    return pa.table(
        {
            "journey_id": keys,
            "customer_key": keys,
            "as_of": pa.array([dt.datetime(2026, 4, 1, tzinfo=dt.UTC)] * count, pa.timestamp("us", "UTC")),
            "split": pa.array(["train"] * count),
            "held_out": pa.array([False] * count),
            "event_type": words("page_view", "email_open", "add_to_cart", "purchase", "store_visit"),
            "channel": words("web", "email", "store", "app"),
            "campaign": words("", "spring_sale", "newsletter"),
            "amount": pa.ListArray.from_arrays(offsets, pa.array(rng.random(steps) * 100)),
            "event_time": pa.ListArray.from_arrays(offsets, times),
            "segment": pa.array(["families"] * count),
            "age": pa.array(rng.integers(18, 90, count).astype(float)),
            "days_to_conversion": pa.array(days, from_pandas=True),
            "observed_days": pa.array([90.0] * count),
            "weight": pa.array([1.0] * count),
        }
    )


def rows_of(read: Any, size: Any) -> tuple[int, float]:
    """(rows, seconds) of a pipeline that reads and counts."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
            _ = (
                pipeline
                | "Read" >> read
                | "Sizes" >> beam.Map(size)
                | "Sum" >> beam.CombineGlobally(sum)
                | "Write" >> beam.io.WriteToText(f"{folder}/count", shard_name_template="")
            )
        seconds = time.perf_counter() - began
        return int((Path(folder) / "count").read_text()), seconds


def measure(count: int) -> list[dict[str, Any]]:
    """One row a reader: rows and seconds."""
    import apache_beam as beam

    from preprocessing.bigquery_source import ReadArrow

    schema = journeys(1).schema
    name = "{}:{}.{}".format(*TABLE)
    direct = beam.io.ReadFromBigQuery.Method.DIRECT_READ
    readers = {
        "preprocessing.bigquery_source.ReadArrow, Arrow tables": (
            ReadArrow(TABLE, schema, TABLE[0], most=10),
            lambda table: table.num_rows,
        ),
        "ReadFromBigQuery(DIRECT_READ), Avro rows": (
            beam.io.ReadFromBigQuery(table=name, method=direct),
            lambda _: 1,
        ),
        "ReadFromBigQuery(DIRECT_READ, use_native_datetime=True), Arrow rows": (
            beam.io.ReadFromBigQuery(table=name, method=direct, use_native_datetime=True),
            lambda _: 1,
        ),
    }
    warm()
    found = []
    for title, (read, size) in readers.items():
        rows, seconds = rows_of(read, size)
        if rows != count:
            raise UserError(f"{title}: {rows:,} rows of {count:,}")
        found.append({"reader": title, "rows": rows, "seconds": seconds, "rate": rows / seconds})
        log.info("%s: %.1f s, %s rows/s", title, seconds, f"{rows / seconds:,.0f}")
    return found


def warm() -> None:
    """Lets the server encode every message that the readers will ask for; they ask for ten streams, as Beam does."""
    from google.cloud.bigquery_storage_v1 import types

    from preprocessing.bigquery_client import read_client

    client = read_client()
    for form, compression in (("ARROW", "LZ4_FRAME"), ("AVRO", None)):
        wanted = types.ReadSession(table="projects/{}/datasets/{}/tables/{}".format(*TABLE), data_format=form)
        if compression:
            options = types.ArrowSerializationOptions(buffer_compression=compression)
            wanted.read_options.arrow_serialization_options = options
        for fields in ([], journeys(1).column_names) if compression else ([],):
            wanted.read_options.selected_fields = fields
            session = client.create_read_session(
                parent=f"projects/{TABLE[0]}", read_session=wanted, max_stream_count=10
            )
            for stream in session.streams:
                for _ in client.read_rows(stream.name):
                    pass


def page(found: list[dict[str, Any]], load: tuple[float, ...]) -> str:
    """docs/bigquery_speed.md."""
    ours, avro = found[0], found[1]
    ratio = ours["rate"] / avro["rate"]
    lines = [f"| {one['reader']} | {one['seconds']:.1f} | {one['rate']:,.0f} |" for one in found]
    verdict = "met" if ratio >= BAR else "missed"
    cores, today, python = os.cpu_count(), dt.date.today(), platform.python_version()
    return f"""# Reading journeys out of BigQuery: what was measured

`make bench-bigquery` (`python -m tests.bench.bigquery`): {ours["rows"]:,} nested journeys of 12 events on average, four
fields each, read and counted in Beam's in-process runner, one reader after the other in one process, against the same
local server, which runs in a process of its own and has encoded every message before. Up to ten streams.

| reader | seconds | rows/s |
|---|---|---|
{chr(10).join(lines)}

This package's source is **{ratio:.1f} times** as fast as `ReadFromBigQuery`'s Avro rows; the bar is {BAR:g} times:
{verdict}. A pipeline's fixed cost is in all three.

Measured on {today:%Y-%m-%d} with Python {python} on {cores} cores that had other work to do: a load average of
{load[0]:.0f} before and {load[1]:.0f} after. On a calm machine all three are faster. The server stands on the same
machine: of BigQuery's own speed, and of the network's, this says nothing.
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bigquery", description=__doc__.splitlines()[0])
    parser.add_argument("--journeys", type=int, default=300_000)
    parser.add_argument("--output", type=Path, default=ROOT / "docs/bigquery_speed.md")
    args = parser.parse_args()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as place:
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER, place, str(args.journeys)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.stdout is not None
            os.environ |= json.loads(server.stdout.readline())
            found = measure(args.journeys)
        finally:
            assert server.stdin is not None
            server.stdin.close()
            server.wait(timeout=60)
    args.output.write_text(page(found, (before, os.getloadavg()[0])))
    print(args.output.read_text())


if __name__ == "__main__":
    run(main)

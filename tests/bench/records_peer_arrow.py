"""`python -m tests.bench.records_peer_arrow`: events to records by hand, in DuckDB, Arrow and numpy.

The features are those of preprocessing.features, and are written as gzip TFRecords; there is no graph, so that serving
would have to write the features a second time. Left out, in this peer's favour: all that the Beam peer leaves out.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import itertools
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import google_crc32c
import numpy as np
import pyarrow as pa
import yaml

from preprocessing.wire import examples

MOST, LOOKBACK_DAYS, FAR = 64, 90, 3.0
DAY = 86_400_000_000
BATCH = 4096
TEXTS = ("event_type", "channel", "campaign")

# The events of all journeys, oldest first, journey after journey
STEPS = f"""
SELECT a.row, epoch_us(e.event_time) AS us, event_type, channel, campaign, amount
FROM '{{data}}/events.parquet' AS e JOIN asked AS a USING (customer_id)
WHERE e.event_time < a.as_of AND e.event_time >= a.as_of - INTERVAL {LOOKBACK_DAYS} DAY
ORDER BY a.row, us
"""
ASKED = "SELECT *, ROW_NUMBER() OVER (ORDER BY split DESC, customer_id) - 1 AS row FROM '{data}/as_of.parquet'"
BOUGHT = """
SELECT a.row, MIN(epoch_us(e.event_time)) AS us FROM '{data}/events.parquet' AS e JOIN asked AS a USING (customer_id)
WHERE event_type = 'purchase' AND e.event_time >= a.as_of GROUP BY a.row
"""


def ids(column: pa.ChunkedArray, train: np.ndarray) -> np.ndarray:
    """Ids from 2 by falling frequency among `train`; 1 where train has not seen the value."""
    encoded = column.combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy()
    counts = np.bincount(codes[train], minlength=len(encoded.dictionary))
    of = np.empty(len(counts), np.int64)
    of[np.argsort(-counts, kind="stable")] = np.arange(2, len(counts) + 2)
    return np.where(counts > 0, of, 1)[codes]


def standardised(value: np.ndarray, train: np.ndarray) -> np.ndarray:
    """z-scores by the moments of what is there in train; 0 where missing."""
    known = value[train & ~np.isnan(value)].astype(np.float64)
    deviation = known.std() or 1.0
    return np.nan_to_num((value - np.float32(known.mean())) / np.float32(deviation)).astype(np.float32)


def signed_log(value: np.ndarray) -> np.ndarray:
    return np.sign(value) * np.log1p(np.abs(value))


def flat_features(steps: pa.Table, row: np.ndarray, as_of: np.ndarray, train: np.ndarray) -> dict[str, np.ndarray]:
    """Every sequence feature, flat."""
    us = steps["us"].to_numpy()
    gap = np.diff(us, prepend=us[:1])
    gap[np.flatnonzero(np.diff(row, prepend=-1))] = 0
    seconds = {"gap": (gap * 1e-6).astype(np.float32), "to_as_of": ((as_of[row] - us) * 1e-6).astype(np.float32)}
    amount = steps["amount"].to_numpy().astype(np.float32)
    found = {name: ids(steps[name].fill_null("__none__"), train) for name in TEXTS}
    found |= {
        "amount": standardised(signed_log(amount), train),
        "amount_missing": np.isnan(amount).astype(np.float32),
        "no_gap": (seconds["gap"] == 0).astype(np.float32),
    }
    for name, value in seconds.items():
        found[f"log_{name}"] = standardised(np.log1p(value), train)
        found[f"linear_{name}"] = np.clip(standardised(value, train), -FAR, FAR)
    return found


def write(path: Path, batches: Callable[[], Any]) -> None:
    """A gzip TFRecord file."""

    def masked(data: bytes) -> bytes:
        crc = google_crc32c.value(data)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    squeezed = zlib.compressobj(wbits=31)
    with path.open("wb") as file:
        for batch in batches():
            framed = []
            for record in examples(batch):
                size = struct.pack("<Q", len(record))
                framed += [size, masked(size), record, masked(record)]
            file.write(squeezed.compress(b"".join(framed)))
        file.write(squeezed.flush())


def shards(splits: np.ndarray) -> Iterator[tuple[str, int, int]]:
    """Name, first row and the row after the last of every file; `splits` are sorted."""
    first = 0
    for last in np.append(np.flatnonzero(splits[1:] != splits[:-1]) + 1, len(splits)):
        files = -(-(last - first) // (1 << 16))
        cuts = np.linspace(first, last, files + 1).astype(int)
        for i, (low, high) in enumerate(itertools.pairwise(cuts)):
            yield f"{splits[first]}-{i:05d}-of-{files:05d}.tfrecord.gz", low, high
        first = last


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.records_peer_arrow", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="where tests.bench.records_data put the tables")
    parser.add_argument("--output", type=Path, required=True, help="where the records go")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    key = bytes.fromhex((args.data / "customer.key").read_text().strip())
    spec = yaml.safe_load((args.data / "spec.yaml").read_text())

    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("CREATE TABLE asked AS " + ASKED.format(data=args.data))
        asked = connection.sql("SELECT *, epoch_us(as_of) AS us FROM asked ORDER BY row").to_arrow_table()
        steps = connection.sql(STEPS.format(data=args.data)).to_arrow_table()
        bought = connection.sql(BOUGHT.format(data=args.data)).to_arrow_table()
        until = connection.execute(f"SELECT epoch_us(TIMESTAMPTZ '{spec['data_until']} 00:00:00+00')").fetchone()[0]

    journeys, as_of = asked.num_rows, asked["us"].to_numpy()
    all_rows = steps["row"].to_numpy()
    ends = np.searchsorted(all_rows, np.arange(journeys), side="right")
    kept = ends[all_rows] - np.arange(len(all_rows)) <= MOST
    steps, row = steps.filter(pa.array(kept)), all_rows[kept]
    lengths = np.bincount(row, minlength=journeys)
    starts = np.append(0, np.cumsum(lengths))
    in_train = asked["split"].to_numpy(zero_copy_only=False) == "train"
    flat = flat_features(steps, row, as_of, in_train[row])

    age = asked["age"].to_numpy().astype(np.float32)
    days = np.full(journeys, np.inf, np.float32)
    days[bought["row"].to_numpy()] = (bought["us"].to_numpy() - as_of[bought["row"].to_numpy()]) / DAY
    customers = asked["customer_id"].to_pylist()

    def keyed(text: str) -> str:
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

    scalars = {
        "length": lengths.astype(np.int64),
        "segment": ids(asked["segment"].fill_null("__none__"), in_train),
        "age": standardised(signed_log(age), in_train),
        "age_missing": np.isnan(age).astype(np.float32),
        "as_of": as_of,
        "days_to_conversion": days,
        "observed_days": ((until - as_of) / DAY).astype(np.float32),
        "weight": np.ones(journeys, np.float32),
        "held_out": np.zeros(journeys, np.int64),
        "customer_key": [keyed(one).encode() for one in customers],
        "journey_id": [keyed(f"{one}\x1f{us}").encode() for one, us in zip(customers, as_of.tolist(), strict=True)],
    }

    def batches(first: int, last: int) -> Any:
        for low in range(first, last, BATCH):
            high = min(low + BATCH, last)
            inside = slice(starts[low], starts[high])
            at = row[inside] - low
            column = np.arange(starts[low], starts[high]) - starts[row[inside]]
            arrays = {}
            for name, values in flat.items():
                padded = np.zeros((high - low, MOST), values.dtype)
                padded[at, column] = values[inside]
                offsets = np.arange(0, (high - low + 1) * MOST, MOST)
                arrays[name] = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(padded.ravel()))
            for name, every in scalars.items():
                kind = pa.large_binary() if isinstance(every, list) else None
                offsets = np.arange(high - low + 1)
                arrays[name] = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(every[low:high], kind))
            yield pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))

    splits = asked["split"].to_numpy(zero_copy_only=False)
    work = [(args.output / name, low, high) for name, low, high in shards(splits)]
    with ThreadPoolExecutor(2) as pool:  # zlib and numpy let go of the interpreter
        for done in [pool.submit(write, path, lambda a=a, b=b: batches(a, b)) for path, a, b in work]:
            done.result()
    (args.output / "summary.json").write_text(json.dumps({"journeys": journeys, "events": len(row)}) + "\n")


if __name__ == "__main__":
    main()

"""`python -m tests.deploy.shadow_load --model RUN_DIR/model --journeys RUN_DIR/journeys`: what a shadow costs callers.

Runs the same load against two servers in turn, one with a shadow that hangs (or another fault) and one without, and
prints p50 and p99 of both with their ratios. For a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow.parquet as pq

from tests.deploy.servers import deployed
from tests.job import ROOT


@contextlib.contextmanager
def candidate_process() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of tests.deploy.candidate in a process of its own, and the process."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.deploy.candidate"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            yield f"http://127.0.0.1:{int(child.stdout.readline())}", child
        finally:
            child.kill()


def bodies(model: Path, journeys: Path, count: int, instances: int = 1) -> list[bytes]:
    """Requests of so many instances each, of the first journeys of a table."""
    from deploy.instances import to_instances

    about = json.loads((model / "parcours.json").read_text())
    part = sorted(journeys.glob("part-*.parquet"))[0]
    batch = next(pq.ParquetFile(part).iter_batches(count * instances))
    natural = to_instances(batch, about)
    return [
        json.dumps({"instances": natural[first : first + instances]}).encode()
        for first in range(0, len(natural), instances)
    ]


def load(
    address: str, requests: list[bytes], clients: int, seconds: float
) -> tuple[list[float], dict[int, set[bytes]]]:
    """Milliseconds of each request, and every different answer to requests[i]: b"<status> <body>", or the exception."""
    end = time.perf_counter() + seconds
    times: list[list[float]] = [[] for _ in range(clients)]
    answers: dict[int, set[bytes]] = {i: set() for i in range(len(requests))}

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
        i = number
        while time.perf_counter() < end:
            i = (i + clients) % len(requests)
            began = time.perf_counter()
            try:
                connection.request("POST", "/predict", requests[i], {"Content-Type": "application/json"})
                response = connection.getresponse()
                answers[i].add(b"%d %s" % (response.status, response.read()))
            except (OSError, http.client.HTTPException) as error:
                answers[i].add(repr(error).encode())
                connection.close()
            times[number].append(1e3 * (time.perf_counter() - began))
        connection.close()

    threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [one for some in times for one in some], answers


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.deploy.shadow_load", description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--journeys", type=Path, required=True)
    parser.add_argument("--fault", default="hang", help="a path of tests.deploy.candidate (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10, help="a turn (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=6)
    args = parser.parse_args()
    requests = bodies(args.model, args.journeys, 256)
    times: dict[str, list[float]] = {"without": [], "with": []}
    with (
        candidate_process() as (candidate, _),
        tempfile.TemporaryDirectory() as log,
        deployed(args.model) as without,
        deployed(args.model, "--shadow", f"{candidate}/{args.fault}", "--shadow_log", log) as shadowed,
    ):
        servers = {"without": without, "with": shadowed}
        for address in servers.values():
            load(address, requests, args.clients, 3)
        for turn in range(args.turns):
            # the order changes from turn to turn, so that a machine growing slower favours neither
            for name in sorted(servers, reverse=bool(turn % 2)):
                some, answers = load(servers[name], requests, args.clients, args.seconds)
                wrong = [one for given in answers.values() for one in given if not one.startswith(b"200 ")]
                assert not wrong, wrong[:3]
                times[name] += some
    for quantile in (50, 99):
        without_ms, with_ms = (np.percentile(times[name], quantile) for name in ("without", "with"))
        print(f"p{quantile}: {without_ms:.2f} ms without, {with_ms:.2f} ms with, ratio {with_ms / without_ms:.3f}")
    print(f"requests: {len(times['without']):,} without, {len(times['with']):,} with")


if __name__ == "__main__":
    main()

"""`python -m tests.bench.serving --model RUN_DIR/model`: the server beside the model in process, in ratios of one run.

Every number is a ratio of two measurements taken minutes apart on one machine, so that it says the same on a fast one
and a slow one. Takes about five minutes, and wants the machine for itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime as dt
import importlib.metadata
import json
import os
import platform
import random
import resource
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from deploy.explanation import sample
from deploy.instances import from_instances
from deploy.scorer import Scorer
from preprocessing.cli import run
from tests.deploy.server import Running, running

CLIENTS, PER_REQUEST, EVENTS = 64, 64, 30


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.serving", description="Measures the server.")
    parser.add_argument("--model", required=True, help="RUN_DIR/model")
    parser.add_argument("--output", help="a Markdown file for the table, such as docs/serving.md (default: print only)")
    parser.add_argument("--seconds", type=float, default=60, help="of the 64 clients (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=1500, help="a latency is taken from (default: %(default)s)")
    return parser


def main() -> None:
    """Measures, prints and writes the table; exit 1 where a bar is missed."""
    args = _parser().parse_args()
    started = time.monotonic()
    cores = len(os.sched_getaffinity(0))
    scorer = Scorer(args.model, intra_op_threads=cores, inter_op_threads=1)
    rows: list[tuple[str, str, str, bool]] = []

    def bar(what: str, value: float, limit: float, at_most: bool) -> None:
        kept = value <= limit if at_most else value >= limit
        rows.append((what, f"{value:.2f}", f"{'at most' if at_most else 'at least'} {limit:g}", kept))
        print(f"{what}: {value:.3f} ({'kept' if kept else 'MISSED'}: {rows[-1][2]})", flush=True)

    bodies = journeys(scorer.about)
    with running("--model", args.model, "--drain_s", 0) as server:
        served, inside = alone(server, scorer, bodies, args.requests)
        bar("one journey a request, p99: server / in process", p99(served) / p99(inside), 3, True)
        print(f"  in ms: server {p99(served) * 1e3:.2f}, in process {p99(inside) * 1e3:.2f}", flush=True)
        reference = batched(scorer, bodies)
        answered = throughput(server, bodies)
        bar("64 journeys a request: journeys/s of the server / of batches in process", answered / reference, 0.6, False)
        print(f"  journeys/s: server {answered:.0f}, in process {reference:.0f}", flush=True)
        errors, growth = crowd(server, bodies, args.seconds)
        bar(f"{CLIENTS} clients for {args.seconds:g} s: errors", errors, 0, True)
        bar(f"{CLIENTS} clients for {args.seconds:g} s: resident memory, end / begin", growth, 1.05, True)
        server.end()
    bar("p99 with a shadow that hangs / without", shadowed(args.model, bodies, args.requests), 1.1, True)

    text = page(rows, scorer.about, " ".join(sys.argv[1:]), time.monotonic() - started)
    print(text)
    if args.output:
        Path(args.output).write_text(text, encoding="utf-8")
    if not all(kept for *_, kept in rows):
        sys.exit(1)


def journeys(about: dict[str, Any]) -> list[bytes]:
    """Journeys of 30 events on average, between 1 and 59, each a JSON object."""
    lengths = random.Random(0)
    return [
        json.dumps(sample(about, lengths.randint(1, 2 * EVENTS - 1)) | {"key": f"journey {i}"}).encode()
        for i in range(640)
    ]


def request(bodies: list[bytes]) -> bytes:
    """A request's body of these journeys."""
    return b'{"instances":[' + b",".join(bodies) + b"]}"


def p99(seconds: list[float]) -> float:
    """The 99th percentile."""
    return float(np.percentile(seconds, 99))


def alone(server: Running, scorer: Scorer, bodies: list[bytes], requests: int) -> tuple[list[float], list[float]]:
    """Seconds of each single journey, one after the other, from the server and in process, in turns."""
    arrays = [from_instances([json.loads(body)], scorer.about).arrays for body in bodies[:100]]
    served, inside = [], []
    with Connection(server.url) as connection:
        for i in range(requests + 50):
            start = time.perf_counter()
            connection.post(request([bodies[i % 100]]))
            middle = time.perf_counter()
            scorer.score(arrays[i % 100])
            if i >= 50:
                served.append(middle - start)
                inside.append(time.perf_counter() - middle)
    return served, inside


def batched(scorer: Scorer, bodies: list[bytes]) -> float:
    """Journeys a second in process, on arrays that lie ready, in batches as large as the server's."""
    arrays = from_instances([json.loads(body) for body in bodies[:256]], scorer.about).arrays
    count, start = 0, 0.0
    for i in range(45):
        if i == 5:
            count, start = 0, time.perf_counter()
        count += len(scorer.score(arrays))
    return count / (time.perf_counter() - start)


def throughput(server: Running, bodies: list[bytes], clients: int = 8, seconds: float = 15) -> float:
    """Journeys a second under load, had the load generator taken no CPU of the server's machine.

    It shares the cores with the server: of seconds x cores, what it took is set aside.
    """
    requests = [request(bodies[i * PER_REQUEST : (i + 1) * PER_REQUEST]) for i in range(10)]
    until = time.perf_counter() + seconds
    counts = [0] * clients

    def load(client: int) -> None:
        with Connection(server.url) as connection:
            while time.perf_counter() < until:
                connection.post(requests[(counts[client] + client) % 10])
                counts[client] += 1

    before, start = _cpu(), time.perf_counter()
    _together(load, clients)
    elapsed, own = time.perf_counter() - start, _cpu() - before
    return sum(counts) * PER_REQUEST / (elapsed - own / len(os.sched_getaffinity(0)))


def crowd(server: Running, bodies: list[bytes], seconds: float) -> tuple[int, float]:
    """Errors, and how resident memory grew, over so many seconds of 64 clients that each send a journey at a time.

    Memory is looked at after a tenth of the time, as a server has it that has met its load, and at the end.
    """
    errors, sizes = [0] * CLIENTS, []
    until = time.perf_counter() + seconds

    def load(client: int) -> None:
        with Connection(server.url) as connection:
            turn = client
            while time.perf_counter() < until:
                try:
                    connection.post(request([bodies[turn % len(bodies)]]))
                except (OSError, AssertionError, httpx.HTTPError):
                    errors[client] += 1
                turn += CLIENTS
                if client == 0 and not sizes and time.perf_counter() > until - 0.9 * seconds:
                    sizes.append(_resident(server.process.pid))

    _together(load, CLIENTS)
    sizes.append(_resident(server.process.pid))
    return sum(errors), sizes[-1] / sizes[0]


def shadowed(model: str, bodies: list[bytes], requests: int) -> float:
    """p99 of single journeys with a candidate that takes every request and answers none / without one, in turns."""
    with (
        tempfile.TemporaryDirectory() as pairs,
        hanging() as candidate,
        running("--model", model, "--drain_s", 0) as plain,
        running("--model", model, "--drain_s", 0, "--shadow", candidate, "--shadow_log", pairs) as mirrored,
        Connection(plain.url) as to_plain,
        Connection(mirrored.url) as to_mirrored,
    ):
        taken: dict[Connection, list[float]] = {to_plain: [], to_mirrored: []}
        for i in range(requests + 50):
            for connection in (to_plain, to_mirrored) if i % 2 else (to_mirrored, to_plain):
                start = time.perf_counter()
                connection.post(request([bodies[i % 100]]))
                if i >= 50:
                    taken[connection].append(time.perf_counter() - start)
    return p99(taken[to_mirrored]) / p99(taken[to_plain])


@contextlib.contextmanager
def hanging() -> Iterator[str]:
    """A predict route that reads all it is sent, and never answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    loop = asyncio.new_event_loop()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            pass

    loop.run_until_complete(asyncio.start_server(swallow, sock=listener))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/predict"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


class Connection:
    """One kept-alive connection that sends ready bytes: httpx would cost more than the server does."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self._socket.makefile("rb")

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        self._socket.close()

    def post(self, body: bytes) -> bytes:
        """The answer's body; raises AssertionError where it is not 200."""
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        self._socket.sendall(head.encode() + body)
        status = self._answers.readline()
        length = 0
        while (line := self._answers.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        content = self._answers.read(length)
        assert status.split()[1:2] == [b"200"], status
        return content


def page(rows: list[tuple[str, str, str, bool]], about: dict[str, Any], flags: str, seconds: float) -> str:
    """The table in Markdown, with what it was measured on."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("tensorflow", "fastapi", "uvicorn"))
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    lines = [
        "# The server's speed",
        "",
        "Ratios of one run; p99 over single requests one after the other; throughput with the load generator's CPU",
        "time set aside; journeys of 30 events on average.",
        "",
        "| measure | value | bar | |",
        "|---|---|---|---|",
        *(f"| {what} | {value} | {limit} | {'kept' if kept else '**missed**'} |" for what, value, limit, kept in rows),
        "",
        f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, {len(os.sched_getaffinity(0))} cores of {model}, Python"
        f" {platform.python_version()}, {versions}, model of {about['max_events']} events at most; {seconds:.0f} s by",
        "",
        f"    python -m tests.bench.serving {flags}",
        "",
    ]
    return "\n".join(lines)


def _together(load: Any, clients: int) -> None:
    threads = [threading.Thread(target=load, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _resident(pid: int) -> float:
    return float(Path(f"/proc/{pid}/statm").read_text().split()[1])


if __name__ == "__main__":
    run(main)

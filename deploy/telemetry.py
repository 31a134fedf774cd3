"""What a server tells of itself: metrics for Prometheus, and one JSON line a request. Nothing of any customer."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self, about: Mapping[str, Any], waiting: Callable[[], int]) -> None:
        """about: model/parcours.json; waiting: how many journeys are in the queue now."""
        self.registry = CollectorRegistry()
        self.requests = Counter("parcours_requests", "Requests answered", ["route", "code"], registry=self.registry)
        self.seconds = Histogram(
            "parcours_request_seconds",
            "From a request's head to its answer",
            ["route"],
            buckets=_LATENCIES,
            registry=self.registry,
        )
        self.instances = Counter("parcours_instances", "Journeys answered", ["outcome"], registry=self.registry)
        self.batch_rows = Histogram(
            "parcours_batch_journeys", "Journeys of a model call", buckets=_SIZES, registry=self.registry
        )
        self.in_flight = Gauge("parcours_requests_in_flight", "Requests not yet answered", registry=self.registry)
        self.ready = Gauge("parcours_ready", "1 when warm and not draining", registry=self.registry)
        queue = Gauge("parcours_queue_journeys", "Journeys that wait for the model", registry=self.registry)
        queue.set_function(waiting)
        model = Gauge("parcours_model_info", "The model served", ["model_version"], registry=self.registry)
        model.labels(about["model_version"]).set(1)
        ProcessCollector(registry=self.registry)

    def add_shadow(self, counters: Callable[[], dict[str, int]]) -> None:
        """Shows what became of mirrored requests, by the shadow's own counters."""
        self.registry.register(_Shadow(counters))

    def page(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)


class _Shadow:
    def __init__(self, counters: Callable[[], dict[str, int]]) -> None:
        self._counters = counters

    def collect(self) -> Iterable[CounterMetricFamily]:
        family = CounterMetricFamily("parcours_shadow", "Mirrored journeys, by what became of them", labels=["event"])
        for name, count in self._counters().items():
            family.add_metric([name], count)
        yield family


class JsonLines(logging.Formatter):
    """A record as one line of JSON, in the names that Cloud Logging reads.

    Of an exception it tells the type and where it happened. Its text may quote what a customer sent, and stays out.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "severity": record.levelname,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _OWN}
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
            frames = traceback.extract_tb(record.exc_info[2])
            line["where"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        return json.dumps(line, default=str)


def log_as_json(stream: TextIO | None = None) -> None:
    """All logs of this process to `stream` (standard output by default), a JSON line each."""
    handler = logging.StreamHandler(sys.stdout if stream is None else stream)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("deploy", "uvicorn"):
        logging.getLogger(name).setLevel(logging.INFO)

"""A live scorer asked for all journeys, and what that takes: latency of single requests, throughput, CPU, errors."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from deploy.live import Answers, Live
from deploy.population import Population
from deploy.scores import ERROR, PERCENTILES, STRAY, Scored
from deploy.sources import TITLES

WARM_UP = 20  # single requests before any is timed
GIVEN_UP = 5  # requests in a row without one score: the rest is not asked, else a dead server costs a timeout a batch
NOT_ASKED = f"not asked: {GIVEN_UP} requests in a row had failed"


def score_all(live: Live, journeys: Population, side: str) -> Scored:
    """Asks for every journey, batch by batch; side: what the progress bar calls it.

    `timing` of the result: journeys, seconds, journeys_per_second, and for a model in this process cpu_seconds, all of
    the scoring alone; retries.
    """
    scored = Scored(
        live.source,
        TITLES[live.kind],
        "probability",
        live.version,
        {h: np.full(len(journeys), np.nan) for h in live.horizons},
        np.zeros(len(journeys), dtype=np.int16),
        [("", "")],
        STRAY.empty_table(),
    )
    failed_in_a_row, row, seconds, cpu = 0, 0, 0.0, 0.0
    with tqdm(total=len(journeys), unit=" journeys", desc=f"scoring: {side}", disable=None) as bar:
        for rows, answers, took, busy in _answers(live, journeys):
            here = np.arange(row, row + rows)
            for horizon, values in answers.values.items():
                scored.values[horizon][here] = values
            for text in dict.fromkeys(answers.errors.values()):
                scored.give_reason(here[[i for i, one in answers.errors.items() if one == text]], ERROR, text)
            row, seconds, cpu = row + rows, seconds + took, cpu + busy
            failed_in_a_row = failed_in_a_row + 1 if len(answers.errors) == rows else 0
            bar.update(rows)
            if failed_in_a_row >= GIVEN_UP and row < len(journeys):
                scored.give_reason(np.arange(row, len(journeys)), ERROR, NOT_ASKED)
                break
    scored.refuse_impossible()
    done = scored.counts["scored"]
    scored.timing = {
        "journeys": done,
        "seconds": seconds,
        "journeys_per_second": done / seconds if seconds > 0 else None,
        "cpu_seconds": cpu if live.kind == "saved_model" else None,
        "batch_size": live.batch_size,
        "concurrency": live.concurrency,
        "retries": live.retries,
    }
    return scored


def latency(live: Live, journeys: Population, requests: int, side: str) -> dict[str, Any]:
    """Percentiles in milliseconds of `requests` single-journey requests one after another, after a warm-up.

    Each is one attempt; those that fail count in `error_rate`, and in the percentiles with the time until they failed.
    Where several in a row fail the rest is not asked; `requests` says how many were.
    """
    single = list(_singles(journeys, requests))
    milliseconds, failed = [], []
    total = WARM_UP + requests
    for batch in tqdm(_repeated(single, total), total=total, unit=" requests", desc=f"latency: {side}", disable=None):
        start = time.perf_counter()
        answers = live.ask(batch)
        milliseconds.append(1000 * (time.perf_counter() - start))
        failed.append(bool(answers.errors))
        if len(failed) >= GIVEN_UP and all(failed[-GIVEN_UP:]):
            break
    if len(failed) > WARM_UP:
        milliseconds, failed = milliseconds[WARM_UP:], failed[WARM_UP:]
    requests, errors = len(failed), sum(failed)
    return {
        "requests": requests,
        **{f"p{p}_ms": float(np.percentile(milliseconds, p)) for p in PERCENTILES},
        "mean_ms": float(np.mean(milliseconds)),
        "errors": errors,
        "error_rate": errors / requests,
        "origin": "one journey a request, one after another, after a warm-up",
    }


def _answers(live: Live, journeys: Population) -> Iterator[tuple[int, Answers, float, float]]:
    """(rows, answers, seconds, CPU seconds) of each batch, in order; several at once where the scorer is remote.

    Seconds add up to the time that passed while answers were awaited.
    """
    batches = journeys.batches(live.batch_size)
    if live.concurrency == 1:
        for batch in batches:
            wall, cpu = time.perf_counter(), time.process_time()
            answers = live.score(batch)
            yield batch.num_rows, answers, time.perf_counter() - wall, time.process_time() - cpu
        return
    with ThreadPoolExecutor(live.concurrency) as pool:
        waiting: deque[tuple[int, Future[Answers]]] = deque()
        try:
            last = time.perf_counter()
            for batch in batches:
                waiting.append((batch.num_rows, pool.submit(live.score, batch)))
                if len(waiting) > live.concurrency:
                    rows, future = waiting.popleft()
                    answers = future.result()
                    last, before = time.perf_counter(), last
                    yield rows, answers, last - before, 0.0
            while waiting:
                rows, future = waiting.popleft()
                answers = future.result()
                last, before = time.perf_counter(), last
                yield rows, answers, last - before, 0.0
        finally:
            for _, future in waiting:
                future.cancel()


def _singles(journeys: Population, requests: int) -> Iterator[pa.RecordBatch]:
    """Journeys one by one, from all over the population's start: as many as are asked, or as there are."""
    for batch in journeys.batches(min(requests, 1024), requests):
        for row in range(batch.num_rows):
            yield batch.slice(row, 1)


def _repeated(single: list[pa.RecordBatch], requests: int) -> Iterator[pa.RecordBatch]:
    for i in range(requests):
        yield single[i % len(single)]

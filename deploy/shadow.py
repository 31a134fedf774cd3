"""The live double run: what the incumbent was asked is asked of the candidate too, in the background.

The incumbent's callers notice nothing. `mirror` puts a request into a bounded queue and returns; a thread with an event
loop of its own sends it, a few at a time, each within a time limit. Where the candidate cannot keep up, hangs or is
gone, requests are dropped and counted. What is logged are keys, scores and times: see deploy.pairs.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from deploy import answers as reading
from deploy import asking
from deploy.address import http_url, shown
from deploy.pairs import OK, Answer, LogError, Pair, open_log
from preprocessing.cli import UserError

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

COUNTS = ("mirrored", "dropped", "failed", "answered", "logged", "unlogged")
_AT_ONCE = 8  # requests that the candidate has before it at the same time
_QUEUED_BYTES = 64 << 20
_REST_S = 0.25  # after a failure of the connection, so that a dead candidate costs no CPU
_FLUSH_S = 30.0
_FLUSH_PAIRS = 10_000
_KEPT_PAIRS = 100_000  # while the log cannot be written
_GRACE_S = 2.0  # at the end, for what is under way
_FLUSH_END_S = 15.0
_SAY_S = 60.0


class Shadow:
    """Mirrors requests to a candidate and logs both answers.

    url: the candidate's predict route in full; it speaks the protocol of deploy.serve. log: a directory, or
    bigquery://project.dataset.table. about: the incumbent's parcours.json. sample: the share of journeys, chosen by the
    SHA-256 of their key, so that every server chooses the same ones. timeout_s: for an answer, from its first byte sent
    to its last received. queue: requests that may wait. Raises UserError where one of them makes no sense.
    """

    def __init__(
        self,
        url: str,
        log: str,
        about: dict[str, Any],
        *,
        sample: float = 1.0,
        timeout_s: float = 10.0,
        queue: int = 1000,
    ) -> None:
        if http_url("--shadow", url).path in ("", "/"):
            raise UserError(
                f"--shadow {shown(url)}: expected the candidate's predict route in full, such as "
                "http://candidate:8080/predict"
            )
        if not 0 < sample <= 1:
            raise UserError(f"--shadow_sample: expected a share above 0, at most 1, got {sample:g}")
        if not timeout_s > 0:
            raise UserError(f"the shadow's timeout_s: expected seconds above 0, got {timeout_s:g}")
        if queue < 1:
            raise UserError(f"the shadow's queue: expected 1 or more requests, got {queue}")
        self._url, self._sample, self._timeout_s, self._most = url, sample, timeout_s, queue
        self._horizons = [str(h) for h in about["horizons_days"]]
        self._log = open_log(log, about)
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(COUNTS, 0)
        self._queue: deque[asking.Mirrored] = deque()
        self._bytes = 0
        self._open = False
        self._pairs: list[Pair] = []
        self._said: dict[str, float] = {}
        self._started = threading.Event()
        # A daemon: whatever the candidate or the log do, the server's process can end.
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._writer = ThreadPoolExecutor(1, "shadow-log")

    def counters(self) -> dict[str, int]:
        """Instances since the start. mirrored = answered + failed by the candidate; dropped: never asked about, or not
        to the end; of the mirrored, logged: their pair is on disk or in BigQuery, unlogged: it was given up."""
        with self._lock:
            return dict(self._counts)

    async def start(self) -> None:
        """Begins to mirror."""
        self._thread.start()
        await asyncio.to_thread(self._started.wait)
        self._open = True

    async def stop(self) -> None:
        """Ends within seconds, whatever the candidate does: what waits is sent as far as it goes, the rest is dropped,
        all pairs are logged."""
        self._open = False
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        await asyncio.to_thread(self._thread.join, _GRACE_S + _FLUSH_END_S + 5)
        if self._thread.is_alive():
            log.error("shadow: its thread does not end; left behind")

    def mirror(
        self, body: bytes, instances: list[dict[str, Any]], answers: list[dict[str, Any]], seconds: float
    ) -> None:
        """Queues an answered request; returns within microseconds, and never raises.

        body: as the incumbent got it, JSON; instances: the same, parsed; answers: one an instance; seconds: that the
        incumbent took. Instances without a key are paired by one made of the request's digest.
        """
        try:
            self._offer(body, instances, answers, seconds)
        except Exception as error:  # noqa: BLE001 - the caller has its answer, nothing here may reach it
            self._count("dropped", len(answers))
            self._say("mirror", f"shadow: a request could not be mirrored: {type(error).__name__}")

    def _offer(
        self, body: bytes, instances: list[dict[str, Any]], answers: list[dict[str, Any]], seconds: float
    ) -> None:
        journeys = reading.journeys(body, instances)
        chosen = None
        if self._sample < 1:
            chosen = tuple(i for i, (key, _) in enumerate(journeys) if reading.share(key) < self._sample)
            if not chosen:
                return
        item = asking.Mirrored(body, chosen, journeys, answers, seconds)
        with self._lock:
            full = len(self._queue) >= self._most or self._bytes + len(body) > _QUEUED_BYTES
            if full or not self._open:
                self._counts["dropped"] += len(item)
                return
            self._queue.append(item)
            self._bytes += len(body)
        self._loop.call_soon_threadsafe(self._ready.release)

    def _count(self, name: str, by: int) -> None:
        with self._lock:
            self._counts[name] += by

    def _say(self, what: str, message: str) -> None:
        """A warning, at most once a minute of each kind."""
        now = time.monotonic()
        if now - self._said.get(what, -_SAY_S) >= _SAY_S:
            self._said[what] = now
            log.warning("%s", message)

    # From here on: in the shadow's thread.

    def _run(self) -> None:
        asyncio.run(self._live())

    async def _live(self) -> None:
        import httpx

        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Semaphore(0)
        self._stopping = asyncio.Event()
        self._enough = asyncio.Event()
        limits = httpx.Limits(max_connections=_AT_ONCE, max_keepalive_connections=_AT_ONCE)
        # The whole exchange has one limit, in asking.ask; httpx' own would begin anew with every piece received.
        async with httpx.AsyncClient(limits=limits, timeout=None, follow_redirects=False) as client:
            workers = [asyncio.create_task(self._work(client)) for _ in range(_AT_ONCE)]
            flusher = asyncio.create_task(self._flush_always())
            self._started.set()
            await self._stopping.wait()
            await self._drain(workers)
        self._enough.set()
        try:
            async with asyncio.timeout(_FLUSH_END_S):
                await flusher  # which may be writing: the same pairs must not be written twice
                await self._flush()
        except TimeoutError:
            log.error("shadow: the log takes no pairs; given up at the end")
        self._count("unlogged", len(self._pairs))
        self._writer.shutdown(wait=False, cancel_futures=True)

    async def _drain(self, workers: list[asyncio.Task[None]]) -> None:
        """Lets the workers go on while there is work, at most _GRACE_S, then counts what is left as dropped."""
        for _ in workers:
            self._ready.release()  # each finds the queue empty at last, and ends
        await asyncio.wait(workers, timeout=_GRACE_S)
        for worker in workers:
            worker.cancel()
        await asyncio.wait(workers)
        with self._lock:
            self._counts["dropped"] += sum(len(item) for item in self._queue)
            self._queue.clear()

    async def _work(self, client: httpx.AsyncClient) -> None:
        while True:
            await self._ready.acquire()
            with self._lock:
                item = self._queue.popleft() if self._queue else None
                self._bytes -= len(item.body) if item else 0
            if item is None:
                return  # only _drain wakes for nothing
            try:
                connected = await self._exchange(client, item)
            except asyncio.CancelledError:
                self._count("dropped", len(item))
                raise
            except Exception as error:  # noqa: BLE001 - one odd answer must not end the double run
                self._count("dropped", len(item))
                self._say("bug", f"shadow: an exchange failed: {type(error).__name__}")
                connected = False
            if not connected and not self._stopping.is_set():
                await asyncio.sleep(_REST_S)

    async def _exchange(self, client: httpx.AsyncClient, item: asking.Mirrored) -> bool:
        """Asks the candidate and keeps the pairs; returns whether it answered at all."""
        chosen = range(len(item.journeys)) if item.chosen is None else item.chosen
        body = item.body if item.chosen is None else reading.only(item.body, item.chosen)
        began = time.perf_counter()
        status, content = await asking.ask(client, self._url, body, self._timeout_s)
        milliseconds = 1e3 * (time.perf_counter() - began)
        predictions: list[Any] = []
        if status == OK:
            status, predictions = reading.predictions(content, len(chosen))
        now = time.time_ns() // 1000
        pairs = []
        for place, i in enumerate(chosen):
            key, as_of = item.journeys[i]
            incumbent = reading.answer(item.answers[i], None, 1e3 * item.seconds, self._horizons)
            if status == OK:
                candidate = reading.answer(predictions[place], item.answers[i].get("key"), milliseconds, self._horizons)
            else:
                candidate = Answer(None, (None,) * len(self._horizons), milliseconds, status)
            pairs.append(Pair(key, reading.micros(as_of), now, incumbent, candidate))
        answered = sum(pair.candidate.status == OK for pair in pairs)
        with self._lock:
            self._counts["mirrored"] += len(pairs)
            self._counts["answered"] += answered
            self._counts["failed"] += len(pairs) - answered
        if answered < len(pairs):
            why = next(pair.candidate.status for pair in pairs if pair.candidate.status != OK)
            self._say(why, f"shadow: the candidate failed: {why}")
        self._keep(pairs)
        return status not in ("timeout", "unreachable", "broken")

    def _keep(self, pairs: list[Pair]) -> None:
        if len(self._pairs) + len(pairs) > _KEPT_PAIRS:
            self._count("unlogged", len(pairs))
            return
        self._pairs += pairs
        if len(self._pairs) >= _FLUSH_PAIRS:
            self._enough.set()

    async def _flush_always(self) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._enough.wait(), _FLUSH_S)
            self._enough.clear()
            if not await self._flush():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), _FLUSH_S)

    async def _flush(self) -> bool:
        """Writes what there is, in the writer's thread: neither disk nor BigQuery holds up the loop."""
        pairs = self._pairs[:]
        if not pairs:
            return True
        written = False
        try:
            await self._loop.run_in_executor(self._writer, self._log.write, pairs)
            written = True
        except LogError as error:
            self._say("log", f"shadow: pairs wait in memory, the log takes none: {error}")
            return False
        except Exception as error:  # noqa: BLE001 - pairs that no log can take must not end the double run
            self._say("bug", f"shadow: pairs given up, the log failed: {type(error).__name__}")
        del self._pairs[: len(pairs)]
        self._count("logged" if written else "unlogged", len(pairs))
        return True

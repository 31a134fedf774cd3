"""What a server does for a request, apart from HTTP: reads instances, has them scored, words the answer."""

from __future__ import annotations

import asyncio
import gc
import hmac
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from deploy.batching import Batcher, QueueFullError, TooLateError
from deploy.explanation import askable, explain, sample
from deploy.instances import Parsed, from_instances
from deploy.requests import Limits, RequestError, envelope, read_json, wants_partial
from deploy.scorer import Scorer
from deploy.telemetry import Metrics

log = logging.getLogger(__name__)

_LARGE = 1 << 20  # bytes of a body that is read beside the event loop, so that health is answered meanwhile
_MOST_CAMPAIGNS = 64  # of one explanation
_LOADING_S = 3600.0


class Service:
    """One model, its queue, and its state: `warming`, then `ready`, at last `draining`."""

    def __init__(
        self,
        about: dict[str, Any],
        load: Callable[[], Scorer],
        limits: Limits,
        *,
        token: str | None = None,
        max_batch: int = 256,
        batch_delay_s: float = 0.0,
    ) -> None:
        """about: model/parcours.json; load: makes the Scorer, on the model's own thread; token: asked of callers."""
        self.about, self.limits, self.state = about, limits, "warming"
        self._load, self._token, self._max_batch = load, token, max_batch
        self._scorer: Scorer | None = None
        self._horizons = [str(h) for h in about["horizons_days"]]
        self.metrics = Metrics(about, lambda: self.batcher.waiting)
        self.batcher = Batcher(
            self._score,
            max_batch=max_batch,
            max_queue=limits.max_queue,
            delay_s=batch_delay_s,
            seen=self.metrics.batch_rows.observe,
        )

    async def warm(self) -> None:
        """Loads the model and runs it on several shapes, then is ready. Raises what `load` raises."""
        start = time.monotonic()
        await self.batcher.run(self._warm, _LOADING_S)
        # what has been made by now stays: the collector need not walk through TensorFlow's modules in mid-request
        gc.collect()
        gc.freeze()
        if self.state == "warming":
            self._become("ready")
        log.info("ready", extra={"model_version": self.about["model_version"], "s": round(time.monotonic() - start, 2)})

    def drain(self) -> None:
        """Says from now on that it is going; what comes is still answered."""
        self._become("draining")

    def check_caller(self, authorization: str | None) -> None:
        """Raises RequestError: 401 without the token where one is asked for, 503 until the model is warm."""
        if self._token is not None:
            scheme, _, given = (authorization or "").partition(" ")
            same = hmac.compare_digest(given.strip().encode(), self._token.encode())
            if scheme.lower() != "bearer" or not same:
                raise RequestError(401, "expected Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})
        if self._scorer is None or self.state == "warming":
            raise RequestError(503, "the model is not warm yet", {"Retry-After": "5"})

    async def predict(self, body: bytes, deadline: float) -> tuple[dict[str, Any], list[Any]]:
        """The answer to a request's body, and its instances. deadline: by time.monotonic(). Raises RequestError."""
        content, parsed = await self._read(body, self._instances)
        instances, partial = content["instances"], wants_partial(content)
        if parsed.errors and not partial:
            raise RequestError.of_instance(parsed.errors[min(parsed.errors)])
        predictions: list[Any] = [None] * len(instances)
        for index, error in parsed.errors.items():
            given = instances[index].get("key") if type(instances[index]) is dict else None
            predictions[index] = {"key": given if type(given) is str else None, "error": str(error)}
        if parsed.kept:
            scores = await self._in_time(self.batcher.score(parsed.arrays, deadline - time.monotonic()))
            version = self.about["model_version"]
            for index, key, row in zip(parsed.kept, parsed.keys, scores.tolist(), strict=True):
                probabilities = dict(zip(self._horizons, row, strict=True))
                predictions[index] = {"key": key, "model_version": version, "probabilities": probabilities}
        self.metrics.instances.labels("scored").inc(len(parsed.kept))
        self.metrics.instances.labels("refused").inc(len(parsed.errors))
        return {"predictions": predictions}, instances

    async def explain(self, body: bytes, deadline: float) -> dict[str, Any]:
        """The explanation of the instance in a body. Raises RequestError."""
        _, parsed = await self._read(body, self._instance)
        if parsed.errors:
            error = parsed.errors[0]
            where = f"instance.{error.field}" if error.field else "instance"
            raise RequestError(400, f"{where}: {error.message}", field=where)
        campaigns = askable(parsed.arrays, self.about)
        if len(campaigns) > _MOST_CAMPAIGNS:
            raise RequestError(413, f"expected at most {_MOST_CAMPAIGNS} campaigns to explain, got {len(campaigns)}")
        scorer = self._scorer
        assert scorer is not None, "check_caller lets nobody in before the model is there"
        work = self.batcher.run(
            lambda: explain(scorer, parsed.arrays, parsed.keys[0], campaigns),
            deadline - time.monotonic(),
            rows=1 + len(campaigns),
        )
        answer: dict[str, Any] = await self._in_time(work)
        self.metrics.instances.labels("explained").inc()
        return answer

    def _instances(self, content: Any) -> Parsed:
        instances = envelope(content, "instances", list, ("parameters",))["instances"]
        wants_partial(content)
        if len(instances) > self.limits.max_instances:
            raise RequestError(413, f"expected at most {self.limits.max_instances} instances, got {len(instances)}")
        return from_instances(instances, self.about, self.limits.max_events)

    def _instance(self, content: Any) -> Parsed:
        instance = envelope(content, "instance", dict)["instance"]
        return from_instances([instance], self.about, self.limits.max_events)

    async def _read(self, body: bytes, parse: Callable[[Any], Parsed]) -> tuple[Any, Parsed]:
        def read() -> tuple[Any, Parsed]:
            content = read_json(body)
            return content, parse(content)

        return await asyncio.to_thread(read) if len(body) > _LARGE else read()

    async def _in_time(self, answer: Any) -> Any:
        try:
            return await answer
        except QueueFullError:
            raise RequestError(429, "too many journeys wait for the model; try again", {"Retry-After": "1"}) from None
        except TooLateError:
            raise RequestError(504, f"no answer within {self.limits.timeout_s:g} s") from None

    def _score(self, arrays: Any) -> np.ndarray:
        assert self._scorer is not None, "check_caller lets nobody in before the model is there"
        scores = self._scorer.score(arrays)
        if not np.isfinite(scores).all():
            raise ArithmeticError("the model answered what is no probability")
        return scores

    def _warm(self) -> None:
        self._scorer = self._load()
        longest = self.about["max_events"]
        for rows in dict.fromkeys((1, 1, 2, 8, 64, self._max_batch)):
            for events in (0, 1, longest):
                self._score(from_instances([sample(self.about, events)] * rows, self.about).arrays)
        one = from_instances([sample(self.about)], self.about).arrays
        explain(self._scorer, one, None, askable(one, self.about))

    def _become(self, state: str) -> None:
        self.state = state
        self.metrics.ready.set(state == "ready")

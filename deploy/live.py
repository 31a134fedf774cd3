"""Scorers that answer at once: a SavedModel in this process, and what all remote ones have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from deploy.address import shown
from deploy.scores import Floats
from preprocessing.cli import UserError

FIRST_WAIT_S, _LONGEST_WAIT = 0.5, 30.0


@dataclass(frozen=True)
class Answers:
    """values: {horizon: float64 [b]}, NaN where there is none; errors: what went wrong, by row of the batch."""

    values: dict[int, Floats]
    errors: dict[int, str]


class Live(Protocol):
    """What a live scorer offers. `ask` is one attempt; `score` tries again where that is worth it; neither raises."""

    source: str
    kind: str
    version: str | None
    horizons: tuple[int, ...]
    batch_size: int
    concurrency: int

    def ask(self, batch: pa.RecordBatch) -> Answers: ...

    def score(self, batch: pa.RecordBatch) -> Answers: ...

    @property
    def retries(self) -> int: ...


class Busy(Exception):
    """Overloaded or not ready: worth another attempt, after `wait` seconds where the server says so."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class Refused(Exception):
    """Another attempt would fail in the same way; `divisible`: halves of the batch may not."""

    def __init__(self, message: str, divisible: bool = False) -> None:
        super().__init__(message)
        self.divisible = divisible


class SavedModel:
    """RUN_DIR/model, loaded into this process."""

    kind = "saved_model"
    concurrency = 1
    retries = 0

    def __init__(self, flag: str, source: str, batch_size: int, fields: dict[str, dict[str, str]]) -> None:
        from deploy.scorer import Scorer

        self._scorer = Scorer(source)
        self.source, self.batch_size, self.about = source, batch_size, self._scorer.about
        self.version = self.about["model_version"]
        self.horizons = tuple(self.about["horizons_days"])
        for part in ("sequence", "customer"):
            lacking = sorted(set(self.about[part]) - set(fields[part]))
            if lacking:
                raise UserError(
                    f"{flag} {source}: the journeys lack its {part} field {lacking[0]!r}; expected journeys of its spec"
                )

    def ask(self, batch: pa.RecordBatch) -> Answers:
        from preprocessing.padded import coded

        scores = np.asarray(self._scorer.score(coded(batch, self.about)), dtype=np.float64)
        return Answers({h: scores[:, i].copy() for i, h in enumerate(self.horizons)}, {})

    score = ask


class Remote:
    """What HTTP and Vertex AI have in common: natural JSON instances, answers by position, attempts and halving."""

    kind = ""

    def __init__(
        self, source: str, about: dict[str, Any], *, batch_size: int, concurrency: int, attempts: int, first_wait: float
    ) -> None:
        self.source, self.about, self.batch_size, self.concurrency = shown(source), about, batch_size, concurrency
        self.version: str | None = None
        self.horizons: tuple[int, ...] = ()
        self._attempts, self._first_wait = attempts, first_wait
        self._waits: list[None] = []  # its append is one step even with several requests at once

    @property
    def retries(self) -> int:
        """How many requests were asked again."""
        return len(self._waits)

    def send(self, instances: list[dict[str, Any]]) -> list[Any]:
        """One request's predictions. Raises Busy or Refused."""
        raise NotImplementedError

    def ask(self, batch: pa.RecordBatch) -> Answers:
        try:
            return self._parsed(self.send(self._instances(batch)), batch)
        except (Busy, Refused) as error:
            return self._failed(batch.num_rows, str(error))

    def score(self, batch: pa.RecordBatch) -> Answers:
        try:
            return self._parsed(self._patiently(self._instances(batch)), batch)
        except Refused as error:
            if not error.divisible or batch.num_rows < 2:
                return self._failed(batch.num_rows, str(error))
            half = batch.num_rows // 2
            first, second = self.score(batch.slice(0, half)), self.score(batch.slice(half))
            return Answers(
                {h: np.concatenate([first.values[h], second.values[h]]) for h in self.horizons},
                first.errors | {half + row: text for row, text in second.errors.items()},
            )
        except Busy as error:
            return self._failed(batch.num_rows, f"{error}, {self._attempts} times")

    def introduce(self, flag: str, batch: pa.RecordBatch) -> None:
        """Learns horizons and version from the answer to one journey. Raises UserError where there is no answer."""
        try:
            (answer,) = self._patiently(self._instances(batch))
        except (Busy, Refused) as error:
            raise UserError(f"{flag} {self.source}: no score of a first journey: {error}") from None
        except ValueError:
            raise UserError(f"{flag} {self.source}: expected one prediction for one instance") from None
        if isinstance(answer, dict) and "error" in answer:
            raise UserError(f"{flag} {self.source}: no score of a first journey: {answer['error']}")
        try:
            self.horizons = tuple(sorted(int(horizon) for horizon in answer["probabilities"]))
        except (TypeError, KeyError, ValueError, AttributeError):
            raise UserError(
                f"{flag} {self.source}: expected predictions such as "
                f'{{"probabilities": {{"30": 0.1}}}}, got {str(answer)[:200]}'
            ) from None
        self.version = answer.get("model_version")

    def _patiently(self, instances: list[dict[str, Any]]) -> list[Any]:
        import tenacity

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.wait if isinstance(error, Busy) else 0.0
            grown = tenacity.wait_random_exponential(self._first_wait, max=_LONGEST_WAIT)(state)
            return min(max(asked, grown), _LONGEST_WAIT)

        def count(_: tenacity.RetryCallState) -> None:
            self._waits.append(None)

        return tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._attempts),
            wait=wait,
            retry=tenacity.retry_if_exception_type(Busy),
            before_sleep=count,
            reraise=True,
        )(self.send, instances)

    def _instances(self, batch: pa.RecordBatch) -> list[dict[str, Any]]:
        from deploy.instances import to_instances

        return to_instances(batch, self.about)

    def _failed(self, rows: int, message: str) -> Answers:
        return Answers({h: np.full(rows, np.nan) for h in self.horizons}, dict.fromkeys(range(rows), message))

    def _parsed(self, predictions: Sequence[Any], batch: pa.RecordBatch) -> Answers:
        rows, keys = batch.num_rows, batch.column("journey_id").to_pylist()
        if len(predictions) != rows:
            return self._failed(rows, "another number of predictions than of instances")
        answers = self._failed(rows, "")
        answers.errors.clear()
        for row, one in enumerate(predictions):
            if isinstance(one, dict) and one.get("key") not in (None, keys[row]):
                answers.errors[row] = "an answer with another journey's key"
                continue
            found = one.get("probabilities") if isinstance(one, dict) else None
            if not isinstance(found, dict):
                said = one.get("error") if isinstance(one, dict) else None
                answers.errors[row] = without_place(str(said)) if said else "an answer without probabilities"
                continue
            for horizon in self.horizons:
                value = found.get(str(horizon))
                is_number = isinstance(value, int | float) and not isinstance(value, bool)
                # null and NaN are found later, with every other impossible score
                answers.values[horizon][row] = value if is_number else math.nan
        return answers


def without_place(message: str) -> str:
    """An error's text without the instance's number, so that equal mistakes are counted as one."""
    import re

    return re.sub(r"instance \d+[,:]?\s*", "", message)[:200]

"""Requests that wait together: what each gets back, what the queue refuses, what time does."""

import asyncio
import threading
import time

import numpy as np
import pytest

from deploy.batching import Batcher, QueueFullError, TooLateError, together


def arrays(*lengths):
    """Journeys of these lengths whose event times are their length."""
    length = np.array(lengths)
    inside = np.arange(length.max(initial=0)) < length[:, None]
    return {
        "length": length,
        "event_time": np.where(inside, length[:, None], 0),
        "event_type": np.where(inside, "view", "").astype(object),
        "amount": np.where(inside, 1.0, 0).astype(np.float32),
    }


class Model:
    """Scores are ten times the length; calls wait while `open` is not set."""

    def __init__(self):
        self.open, self.calls = threading.Event(), []
        self.open.set()
        self.busy = threading.Event()

    def __call__(self, batch):
        self.calls.append(batch["length"].tolist())
        self.busy.set()
        assert self.open.wait(20)
        if 13 in batch["length"]:
            raise ValueError("thirteen")
        assert (batch["event_time"].max(axis=1, initial=0) == batch["length"]).all()
        return batch["length"][:, None] * 10


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def batcher(model):
    made = Batcher(model, max_batch=8, max_queue=10)
    yield made
    model.open.set()
    made.close(20)


async def busy(batcher, model):
    """A request that the model is at until it is let go."""
    model.open.clear()
    first = asyncio.create_task(batcher.score(arrays(1), 20))
    await asyncio.to_thread(model.busy.wait, 20)
    return first


async def submitted(batcher, *requests, timeout_s=20):
    tasks = [asyncio.create_task(batcher.score(request, timeout_s)) for request in requests]
    await asyncio.sleep(0.01)
    return tasks


def test_together_pads_to_the_longest():
    joined = together([arrays(2, 0), arrays(), arrays(3)])
    assert joined["length"].tolist() == [2, 0, 3]
    assert joined["event_time"].tolist() == [[2, 2, 0], [0, 0, 0], [3, 3, 3]]
    assert joined["event_type"].tolist() == [["view", "view", ""], ["", "", ""], ["view"] * 3]
    assert joined["amount"].dtype == np.float32


def test_an_idle_model_is_asked_at_once_and_a_busy_one_in_batches(batcher, model):
    async def walk():
        first = await busy(batcher, model)
        waiting = await submitted(batcher, arrays(2, 3), arrays(4), arrays(5, 6, 7, 5), arrays(8, 9))
        assert batcher.waiting == 9
        model.open.set()
        answers = [(await task)[:, 0].tolist() for task in (first, *waiting)]
        assert answers == [[10], [20, 30], [40], [50, 60, 70, 50], [80, 90]]

    asyncio.run(walk())
    assert model.calls == [[1], [2, 3, 4, 5, 6, 7, 5], [8, 9]]  # at most 8 a call, requests whole
    assert batcher.waiting == 0


def test_a_full_queue_refuses_at_once(batcher, model):
    async def walk():
        first = await busy(batcher, model)
        (waiting,) = await submitted(batcher, arrays(*[2] * 9))
        with pytest.raises(QueueFullError):
            await batcher.score(arrays(3, 3), 20)
        (one_more,) = await submitted(batcher, arrays(3))
        model.open.set()
        assert [len(await task) for task in (first, waiting, one_more)] == [1, 9, 1]

    asyncio.run(walk())


def test_who_waits_too_long_is_told_and_never_scored(batcher, model):
    async def walk():
        first = await busy(batcher, model)
        start = time.monotonic()
        with pytest.raises(TooLateError):
            await batcher.score(arrays(5), 0.05)
        assert time.monotonic() - start < 5
        assert batcher.waiting == 0  # its place is free at once
        model.open.set()
        await first

    asyncio.run(walk())
    asyncio.run(batcher.score(arrays(2), 20))
    assert model.calls == [[1], [2]]


def test_a_request_that_the_model_cannot_take_harms_no_other(batcher, model):
    async def walk():
        first = await busy(batcher, model)
        waiting = await submitted(batcher, arrays(2), arrays(13), arrays(4))
        model.open.set()
        await first
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert [answers[0][0, 0], answers[2][0, 0]] == [20, 40]
        assert isinstance(answers[1], ValueError)
        assert (await batcher.score(arrays(3), 20))[0, 0] == 30

    asyncio.run(walk())


def test_work_runs_alone_in_its_turn(batcher, model):
    async def walk():
        first = await busy(batcher, model)
        before = await submitted(batcher, arrays(2))
        work = asyncio.create_task(batcher.run(lambda: list(model.calls), 20))
        await asyncio.sleep(0.01)
        after = await submitted(batcher, arrays(3))
        model.open.set()
        assert await work == [[1], [2]]
        await asyncio.gather(first, *before, *after)

    asyncio.run(walk())
    assert model.calls == [[1], [2], [3]]


def test_closing_finishes_what_waits(batcher, model):
    async def walk():
        first = await busy(batcher, model)
        waiting = await submitted(batcher, arrays(2))
        closing = asyncio.create_task(asyncio.to_thread(batcher.close, 20))
        await asyncio.sleep(0.05)
        with pytest.raises(QueueFullError):
            await batcher.score(arrays(3), 20)
        model.open.set()
        await closing
        assert (await waiting[0])[0, 0] == 20
        await first

    asyncio.run(walk())


def test_a_delay_lets_a_crowd_gather(model):
    batcher = Batcher(model, max_batch=4, max_queue=100, delay_s=0.5)

    async def walk():
        first = await busy(batcher, model)
        crowd = await submitted(batcher, arrays(2), arrays(2))
        model.open.set()
        await asyncio.gather(first, *crowd)
        late = [asyncio.create_task(batcher.score(arrays(n), 20)) for n in (3, 4, 5, 6)]
        for _ in late:
            await asyncio.sleep(0.01)
        await asyncio.gather(*late)

    start = time.monotonic()
    asyncio.run(walk())
    assert model.calls == [[1], [2, 2], [3, 4, 5, 6]]
    assert time.monotonic() - start < 0.5  # a full batch goes at once
    batcher.close(20)

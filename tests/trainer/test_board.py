"""What TensorBoard is given is what TensorBoard itself serves of it."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request

import numpy as np
import pytest
from tensorboard import program

from tests.trainer.test_model import BIAS, SCHEMA, SETTINGS
from trainer.board import Board
from trainer.model import JourneyModel
from trainer.projector import write_embeddings


def served(logs, path: str, **query: str) -> bytes:
    """The answer of a TensorBoard on these logs."""
    board = program.TensorBoard()
    flags = ("--port=0", "--load_fast=false", "--reload_interval=0", "--reload_task=blocking")
    board.configure(argv=["tensorboard", f"--logdir={logs}", *flags])
    url = f"{board.launch()}data/plugin/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()


def test_the_pr_curve_of_eval(tmp_path):
    board = Board(str(tmp_path))
    # By rank: a conversion, another journey, a conversion, and 97 others that share the last place.
    probability = np.array([0.03, 0.02, 0.01, *[0.001] * 97])
    converted = np.array([True, False, True, *[False] * 97])
    board.tell_ranking(7, 30, converted, probability)
    board.tell_ranking(9, 30, converted[:1], probability[:1])  # one outcome only: there is no curve
    board.eval.flush()
    found = json.loads(served(tmp_path, "pr_curves/pr_curves", run="eval", tag="within_30_days/pr_curves"))
    (curve,) = found["eval"]
    assert curve["step"] == 7
    places = dict(zip(curve["thresholds"], zip(curve["precision"], curve["recall"], strict=True), strict=True))

    def at(share):
        """Precision and recall just where so great a share of all journeys is contacted."""
        return places[max(t for t in places if t <= 1 - share**0.25)]

    assert at(0.01) == pytest.approx((1.0, 0.5))
    assert at(0.02) == pytest.approx((0.5, 0.5))
    assert at(0.03) == pytest.approx((2 / 3, 1.0))
    assert at(1.0) == pytest.approx((0.02, 1.0))


def test_a_worker_that_is_not_the_chief_writes_nothing(tmp_path):
    board = Board(str(tmp_path / "logs"), writes=False)
    board.tell_ranking(7, 30, np.array([True, False]), np.array([0.2, 0.1]))
    board.tell_resources(7, {"cpu": 0.5})
    assert not (tmp_path / "logs").exists()


def test_embeddings_for_the_projector(tmp_path):
    network = JourneyModel(SCHEMA, SETTINGS, BIAS).members[0]
    sizes = SCHEMA.sequence_categorical | SCHEMA.customer_categorical
    words = {name: [f"{name} {i}" for i in range(size - 2)] for name, size in sizes.items()}
    first = next(iter(words))
    words[first][0] = "tab\tand\nline"
    Board(str(tmp_path)).train.flush()
    write_embeddings(str(tmp_path), network, words)
    (info,) = [
        one
        for one in json.loads(served(tmp_path, "projector/info", run="train"))["embeddings"]
        if one["tensorName"] == first
    ]
    vectors = network.embeddings[first].embeddings.numpy()[1:]
    assert info["tensorShape"] == list(vectors.shape)
    sent = served(tmp_path, "projector/tensor", run="train", name=first)
    np.testing.assert_allclose(np.frombuffer(sent, np.float32).reshape(vectors.shape), vectors, rtol=1e-5)
    lines = served(tmp_path, "projector/metadata", run="train", name=first).decode().splitlines()
    assert lines == ["(out of vocabulary)", "tab and line", *words[first][1:]]

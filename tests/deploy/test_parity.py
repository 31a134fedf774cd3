"""One set of raw journeys, every way to their probabilities: all agree to 1e-6, and a wrong one is found out."""

import dataclasses
import subprocess
import sys

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from deploy.instances import from_instances, to_instances
from deploy.scorer import Scorer
from preprocessing.padded import padded
from tests.deploy.server import running
from tests.deploy.test_scorer import FRESH, as_columns, shuffled
from tests.job import TEST_AS_OF, command

COLUMNS = ["p_7d", "p_14d", "p_30d"]


@dataclasses.dataclass
class Ways:
    """Journeys of one as_of, and what each way answers for them: name to float [journeys, horizons]."""

    journeys: pa.RecordBatch
    answers: dict[str, np.ndarray]


def by_journey(path, ids):
    table = pq.read_table(path, columns=["journey_id", *COLUMNS])
    at = {journey: row for row, journey in enumerate(table["journey_id"].to_pylist())}
    return np.column_stack([table[c].to_numpy() for c in COLUMNS])[[at[journey] for journey in ids]]


def agree(answers):
    """The check: every way against the graph that training computed with."""
    for name, found in answers.items():
        np.testing.assert_allclose(found, answers["training"], rtol=0, atol=1e-6, err_msg=name)


def asked(url, instances, size):
    found = []
    for start in range(0, len(instances), size):
        answer = httpx.post(f"{url}/predict", json={"instances": instances[start : start + size]}, timeout=60)
        assert answer.status_code == 200, answer.text
        found += [list(prediction["probabilities"].values()) for prediction in answer.json()["predictions"]]
    return np.array(found)


@pytest.fixture(scope="module")
def ways(job, tmp_path_factory):
    model, place = job["run_dir"] / "model", tmp_path_factory.mktemp("parity")
    parts = sorted((job["run_dir"] / "journeys").glob("part-*.parquet"))
    table = pa.concat_tables([pq.read_table(part) for part in parts])
    day = pc.starts_with(pc.strftime(table["as_of"], "%Y-%m-%d"), TEST_AS_OF)
    (rows,) = table.filter(pc.and_(day, pc.equal(table["split"], "test"))).combine_chunks().to_batches()
    ids = rows.column("journey_id").to_pylist()
    assert len(ids) > 500
    scorer = Scorer(model)
    np.savez(place / "given.npz", **padded(rows, scorer.about))
    fresh = [sys.executable, "-c", FRESH, model, place / "given.npz", place / "fresh.npy"]
    subprocess.run(list(map(str, fresh)), cwd=place, check=True, capture_output=True)
    instances = shuffled(to_instances(rows, scorer.about))
    on_beam = ("--as_of", TEST_AS_OF, "--runner", "FnApiRunner", "--batch_size", 100)
    said = command("deploy.predict", *job["flags"], *on_beam, "--output", place / "beam.parquet")
    assert said.count("journeys scored by model") == 1
    with running("--model", model) as server:
        served = asked(server.url, instances, 64)
        columns = asked(server.url, [as_columns(instance) for instance in instances], 200)
        one_by_one = asked(server.url, instances[:30], 1)
    return Ways(
        rows,
        {
            "training": by_journey(job["run_dir"] / "evaluation/predictions.parquet", ids),
            "fresh process": np.load(place / "fresh.npy"),
            "server": served,
            "server, columns": columns,
            "server, one by one": np.concatenate([one_by_one, served[30:]]),
            "deploy.predict": by_journey(job["base"] / "scores.parquet", ids),
            "deploy.predict on Beam": by_journey(place / "beam.parquet", ids),
            "scorer": scorer.score(padded(rows, scorer.about)),
        },
    )


def test_every_way_gives_the_same_probabilities(ways):
    assert len(ways.answers) == 8
    assert ways.answers["training"].std(axis=0).min() > 1e-3
    agree(ways.answers)


def perturbed(scorer, arrays):
    variables = scorer._loaded._variables
    kernel = max(variables, key=lambda variable: int(np.prod(variable.shape)))
    kernel.assign_add(np.full(kernel.shape, 1e-3, np.float32))
    return scorer.score(arrays)


WRONG = {
    "weights": perturbed,
    "times in milliseconds": lambda scorer, arrays: scorer.score(
        arrays | {name: arrays[name] // 1000 for name in ("event_time", "as_of")}
    ),
    "an hour off": lambda scorer, arrays: scorer.score(arrays | {"as_of": arrays["as_of"] + 3_600_000_000}),
    "missing is zero": lambda scorer, arrays: scorer.score(arrays | {"amount": np.nan_to_num(arrays["amount"])}),
    "the last event left out": lambda scorer, arrays: scorer.score(
        arrays | {"length": np.maximum(arrays["length"] - 1, 0)}
    ),
    "another journey's": lambda scorer, arrays: np.roll(scorer.score(arrays), 1, axis=0),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_graph_is_found_out(ways, job, wrong):
    scorer = Scorer(job["run_dir"] / "model")  # one to break
    arrays = from_instances(to_instances(ways.journeys, scorer.about), scorer.about).arrays
    agree(ways.answers | {"right": scorer.score(arrays)})
    with pytest.raises(AssertionError, match="wrong"):
        agree(ways.answers | {"wrong": wrong(scorer, arrays)})

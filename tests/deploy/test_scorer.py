"""An exported model behind numpy: what it answers in a fresh process, and what its signatures say of one journey."""

import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from deploy.explanation import explain, touched
from deploy.instances import from_instances, to_instances
from deploy.scorer import Scorer, read_metadata
from preprocessing.cli import UserError
from preprocessing.padded import padded

FRESH = """
import sys
import numpy as np
import tensorflow as tf
given = dict(np.load(sys.argv[2], allow_pickle=True))
signature = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
answer = signature(**{name: tf.constant(values) for name, values in given.items()})
np.save(sys.argv[3], answer["probabilities"].numpy())
"""


@pytest.fixture(scope="module")
def scorer(job):
    return Scorer(job["run_dir"] / "model")


@pytest.fixture(scope="module")
def journeys(job):
    """Rows of the journeys table."""
    part = sorted((job["run_dir"] / "journeys").glob("part-*.parquet"))[0]
    rows = next(pq.ParquetFile(part).iter_batches(400))
    lengths = rows.column("event_time").value_lengths().to_pylist()
    assert max(lengths) - min(lengths) > 20
    return rows


def shuffled(instances, seed=0):
    rng = np.random.default_rng(seed)
    for instance in instances:
        instance["events"] = [instance["events"][i] for i in rng.permutation(len(instance["events"]))]
    return instances


def as_columns(instance):
    names = ("event_time", "event_type", "channel", "campaign", "amount")
    rest = {name: value for name, value in instance.items() if name != "events"}
    return rest | {name: [event[name] for event in instance["events"]] for name in names}


def test_every_form_scores_as_a_fresh_process_does(scorer, journeys, job, tmp_path):
    arrays = padded(journeys, scorer.about)
    arrays["length"][::10] = 0  # empty ones among them
    np.savez(tmp_path / "given.npz", **arrays)
    arguments = [str(job["run_dir"] / "model"), str(tmp_path / "given.npz"), str(tmp_path / "answer.npy")]
    subprocess.run([sys.executable, "-c", FRESH, *arguments], cwd=tmp_path, check=True, capture_output=True)
    expected = np.load(tmp_path / "answer.npy")
    assert expected.std(axis=0).min() > 1e-4  # the journeys differ, so equality says something
    instances = shuffled(json.loads(json.dumps(to_instances(journeys, scorer.about))))
    for instance in instances[::10]:
        instance["events"] = []
    instances = [as_columns(x) if i % 3 == 0 else x for i, x in enumerate(instances)]
    parsed = from_instances(instances, scorer.about)
    assert not parsed.errors
    np.testing.assert_allclose(scorer.score(arrays), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(scorer.score(parsed.arrays), expected, rtol=0, atol=1e-6)
    # beside others as alone
    alone = [scorer.score(from_instances([instance], scorer.about).arrays)[0] for instance in instances[:40]]
    np.testing.assert_allclose(alone, expected[:40], rtol=0, atol=1e-6)


def test_an_empty_journey_and_none_at_all(scorer):
    empty = from_instances([{"as_of": "2026-06-01T00:00:00Z"}], scorer.about).arrays
    assert scorer.score(empty).shape == (1, 3)
    assert scorer.score(from_instances([], scorer.about).arrays).shape == (0, 3)


def test_an_explanation_agrees_with_the_score(scorer, journeys):
    instances = to_instances(journeys, scorer.about)
    instance = next(x for x in instances if len({e["campaign"] for e in x["events"]} - {None}) >= 2)
    unknown = {"event_time": "2020-01-01T00:00:00Z", "campaign": "never seen", "event_type": "view"}
    arrays = from_instances([instance | {"events": [unknown, *instance["events"]]}], scorer.about).arrays
    campaigns = touched(arrays, scorer.about)
    assert campaigns[0] == "never seen"  # the oldest touch
    answer = explain(scorer, arrays, "k", campaigns)
    score = scorer.score(arrays)[0]
    names = ["7", "14", "30"]
    assert list(answer["probabilities"].values()) == pytest.approx(score.tolist(), abs=1e-6)
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer

    curve = {point["days"]: point["probability"] for point in answer["curve"]}
    assert list(curve) == list(range(31))
    assert [curve[7], curve[14], curve[30]] == pytest.approx(score.tolist(), abs=1e-5)
    assert answer["running"][-1]["event_time"] == instance["events"][-1]["event_time"]
    assert len(answer["running"]) == len(instance["events"])

    influence = {entry["campaign"]: entry for entry in answer["influence"]}
    assert list(influence) == campaigns
    assert influence["never seen"]["reason"]
    assert influence["never seen"]["with"] == dict.fromkeys(names)
    known = influence[campaigns[1]]
    assert known["reason"] == ""
    assert list(known["with"].values()) == pytest.approx(score.tolist(), abs=1e-6)
    without = [event for event in instance["events"] if event["campaign"] != campaigns[1]]
    expected = scorer.score(from_instances([instance | {"events": without}], scorer.about).arrays)[0]
    assert list(known["without"].values()) == pytest.approx(expected.tolist(), abs=1e-6)


def test_influence_row_by_row_and_of_one_row(scorer, journeys):
    arrays = padded(journeys.slice(0, 3), scorer.about)
    campaign = scorer.about["campaigns"]["known"][0]
    by_row = scorer.influence(arrays, [campaign] * 3)
    one = scorer.influence({name: values[1:2] for name, values in arrays.items()}, [campaign] * 130)
    assert by_row["with_campaign"].shape == (3, 3)
    assert one["difference"].shape == (130, 3)  # more than go at once
    np.testing.assert_allclose(one["difference"][129], by_row["difference"][1], atol=1e-6)
    assert isinstance(one["reason"][0], str)


def test_mistakes_are_told(tmp_path):
    with pytest.raises(UserError, match=r"no exported model here \(parcours.json: No such file"):
        read_metadata(tmp_path)
    (tmp_path / "parcours.json").write_text("{")
    with pytest.raises(UserError, match="damaged: not JSON"):
        Scorer(tmp_path)
    (tmp_path / "parcours.json").write_text("{}")
    with pytest.raises(UserError, match="cannot load the SavedModel"):
        Scorer(tmp_path)

"""An exported model behind numpy: what it answers in a fresh process, and what its signatures say of one journey."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deploy.explanation import askable, explain
from deploy.instances import from_instances, to_instances
from deploy.scorer import Scorer, read_metadata
from preprocessing.cli import UserError
from preprocessing.manifest import write_manifest
from preprocessing.padded import coded, padded
from tests.deploy.edited import without_campaign

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


def test_a_large_batch_is_scored_by_length_and_answered_in_its_order(scorer, journeys):
    many = pa.Table.from_batches([journeys] * (1300 // len(journeys) + 1)).combine_chunks().to_batches()[0]
    rows = np.random.default_rng(0).permutation(len(many))
    many = many.take(pa.array(rows))
    expected = scorer.score(padded(journeys, scorer.about))[rows % len(journeys)]
    assert len(many) > 1024 and expected.std(axis=0).min() > 1e-4
    for arrays in (padded(many, scorer.about), coded(many, scorer.about)):
        np.testing.assert_allclose(scorer.score(arrays), expected, rtol=0, atol=1e-6)


def test_an_empty_journey_and_none_at_all(scorer):
    empty = from_instances([{"as_of": "2026-06-01T00:00:00Z"}], scorer.about).arrays
    assert scorer.score(empty).shape == (1, 3)
    assert scorer.score(from_instances([], scorer.about).arrays).shape == (0, 3)


def test_an_explanation_agrees_with_the_score(scorer, journeys):
    instances = to_instances(journeys, scorer.about)
    instance = next(x for x in instances if len({e["campaign"] for e in x["events"]} - {None}) >= 2)
    unknown = {"event_time": "2020-01-01T00:00:00Z", "campaign": "never seen", "event_type": "view"}
    arrays = from_instances([instance | {"events": [unknown, *instance["events"]]}], scorer.about).arrays
    campaigns = askable(arrays, scorer.about)
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
    assert known["claim"] == "association"  # lots or no lots: the question is about a touch already seen
    asked = [instance | {"asked_campaign": campaigns[1]}, without_campaign(instance, campaigns[1])]
    with_it, without = scorer.score(from_instances(asked, scorer.about).arrays)
    assert list(known["with"].values()) == pytest.approx(with_it.tolist(), abs=1e-6)
    assert list(known["without"].values()) == pytest.approx(without.tolist(), abs=1e-6)


def test_influence_equals_the_score_of_the_edited_journeys(scorer, journeys):
    """Of every journey and campaign: with and without are what serving_default answers for the journeys, edited."""
    instances = to_instances(journeys.slice(0, 120), scorer.about)
    arrays = from_instances(instances, scorer.about).arrays
    claims, owed = set(), 0
    assert set(scorer.about["campaigns"]["known"]) == {*scorer.about["campaigns"]["randomised"], "vip_offer"}
    for campaign in scorer.about["campaigns"]["known"]:
        found = scorer.influence(arrays, [campaign] * len(instances), at_once=50)
        edited = [without_campaign(instance, campaign) for instance in instances]
        with_it = [instance | {"asked_campaign": campaign} for instance in instances]
        answers = [scorer.score(from_instances(some, scorer.about).arrays) for some in (with_it, edited)]
        assert found["reason"].tolist() == [""] * len(instances)
        np.testing.assert_allclose(found["with_campaign"], answers[0], atol=1e-6)
        np.testing.assert_allclose(found["without_campaign"], answers[1], atol=1e-6)
        np.testing.assert_allclose(found["difference"], answers[0] - answers[1], atol=1e-6)
        past = [any(event["campaign"] == campaign for event in instance["events"]) for instance in instances]
        randomised = campaign in scorer.about["campaigns"]["randomised"]
        expected = ["randomised" if randomised and not touched else "association" for touched in past]
        assert found["claim"].tolist() == expected
        claims |= set(expected)
        gone = [len(x["events"]) - len(y["events"]) for x, y in zip(instances, edited, strict=True)]
        owed += sum(
            g > sum(e["campaign"] == campaign for e in x["events"]) for g, x in zip(gone, instances, strict=True)
        )
    assert claims == {"randomised", "association"}
    assert owed > 20  # consequences that bear no campaign went with the touches


def test_what_training_cannot_speak_to_has_no_answer_and_no_claim(scorer, journeys):
    arrays = padded(journeys.slice(0, 3), scorer.about)
    campaign = scorer.about["campaigns"]["known"][0]
    arrays["segment"][2] = "martian"
    found = scorer.influence(arrays, ["", "winter_sale", campaign])
    assert np.isnan(found["difference"]).all() and np.isnan(found["with_campaign"]).all()
    assert found["claim"].tolist() == ["", "", ""]
    assert found["reason"].tolist() == [
        "no campaign was asked about",
        "training saw no campaign of this name",
        "training saw fewer than 20 customers with segment = 'martian' treated by this campaign or held out from it",
    ]


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
    write_manifest(tmp_path)
    with pytest.raises(UserError, match="damaged: not JSON"):
        Scorer(tmp_path)
    (tmp_path / "parcours.json").write_text("{}")
    write_manifest(tmp_path)
    with pytest.raises(UserError, match="cannot load the SavedModel"):
        Scorer(tmp_path)

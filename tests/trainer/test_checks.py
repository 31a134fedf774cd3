"""Faults planted and found: a feature that knows the answer, a label rate and scores that move; and clean data."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from preprocessing.single_feature import rate_auc
from preprocessing.spec import DAY_US
from tests.trainer.synthetic_run import make_run
from trainer.checks import drift, leakage, stability
from trainer.outcomes import read_outcomes


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", customers=500)


def rewritten(run, change):
    """The run's journeys with columns replaced: change(table) -> {name: values}."""
    for part in sorted(run.run_dir.journeys.glob("part-*.parquet")):
        table = pq.read_table(part)
        for name, values in change(table).items():
            table = table.set_column(table.column_names.index(name), name, pa.array(values, from_pandas=False))
        pq.write_table(table, part)


def converts(table):
    return pc.less(pc.fill_null(table["days_to_conversion"], np.inf), 30).to_numpy(zero_copy_only=False)


def looked_at(run, auc=0.75):
    checks, features = leakage(run.run_dir.journeys, run.spec, read_outcomes(run.run_dir.journeys, "eval"), auc)
    return {one["name"]: one for one in checks}, features


def moved(run, scores=None):
    outcomes = {split: read_outcomes(run.run_dir.journeys, split) for split in ("train", "eval", "test")}
    if scores is None:
        rate = outcomes["test"].converted(30)[outcomes["test"].known(30, 0)].mean()
        scores = {s: 5 * rate * np.random.default_rng(0).beta(2, 8, size=len(outcomes[s])) for s in ("eval", "test")}
    return {one["name"]: one for one in drift(run.spec, outcomes, scores, 100, 0)}


def test_clean_data_is_not_flagged(run):
    checks, features = looked_at(run)
    assert {name: one["status"] for name, one in checks.items()} == {"single feature": "ok", "missing values": "ok"}
    assert len(features) == 10
    assert features[0]["roc_auc"] == checks["single feature"]["value"] < 0.8
    assert {one["status"] for one in moved(run).values()} == {"ok"}
    best = features[0]["feature"]
    assert checks["single feature"]["what"].startswith(f"{best} alone reaches ROC-AUC 0.")
    assert re.match(r"whether \S.* is missing, alone, reaches ROC-AUC 0\.", checks["missing values"]["what"])


def test_a_number_that_knows_the_answer_is_flagged(run):
    rng = np.random.default_rng(1)
    rewritten(run, lambda table: {"age": 40.0 + 5 * converts(table) + rng.normal(0, 1, table.num_rows)})
    checks, features = looked_at(run)
    found = checks["single feature"]
    assert found["status"] == "warning"
    assert found["what"].startswith("age (0.9")
    assert features[0]["feature"] == "age"
    assert checks["missing values"]["status"] == "ok"


def test_a_number_whose_extremes_know_the_answer_is_flagged(run):
    rng = np.random.default_rng(1)
    sign = lambda n: rng.choice([-1, 1], n)  # noqa: E731 - both ends convert: no straight ranking sees it
    rewritten(run, lambda t: {"age": sign(t.num_rows) * (10.0 * converts(t) + rng.random(t.num_rows))})
    assert looked_at(run)[0]["single feature"]["status"] == "warning"


def test_a_category_that_knows_the_answer_is_flagged(run):
    rewritten(run, lambda table: {"segment": np.where(converts(table), "won", "lost")})
    assert looked_at(run)[0]["single feature"]["what"].startswith("segment (1.000)")


def test_missingness_that_knows_the_answer_is_flagged(run):
    rewritten(run, lambda table: {"age": np.where(converts(table), np.nan, 40.0)})
    found = looked_at(run)[0]
    # the missing ones have a bin of their own; and what was ranked is said, be it the value or whether there is one
    for name, said in (("missing values", "whether age is missing (1.000)"), ("single feature", "age (1.000)")):
        assert found[name]["status"] == "warning"
        assert found[name]["what"].startswith(f"{said}: known only after the conversion?")


def test_an_event_field_empty_only_before_a_conversion_is_flagged(run):
    def emptied(table):
        lists = zip(table["channel"].to_pylist(), converts(table), strict=True)
        return {"channel": [["" if yes else value for value in values] for values, yes in lists]}

    rewritten(run, emptied)
    assert "channel:missing share (1.000)" in looked_at(run)[0]["single feature"]["what"]


def test_a_feature_that_gives_the_lstm_nearly_all_it_has_is_flagged_from_080_on(run):
    rng = np.random.default_rng(1)
    rewritten(run, lambda table: {"age": 40.0 + 1.5 * converts(table) + rng.normal(0, 1, table.num_rows)})
    alone = looked_at(run)[1][0]["roc_auc"]
    assert 0.8 < alone < 0.9
    assert looked_at(run, auc=alone + 0.005)[0]["single feature"]["status"] == "warning"
    found = looked_at(run, auc=0.93)[0]["single feature"]
    assert found["status"] == "ok"
    assert found["threshold"] == pytest.approx(0.9)


def test_few_conversions_are_not_measured(run):
    rewritten(run, lambda table: {"days_to_conversion": np.full(table.num_rows, 99.0)})
    checks, features = looked_at(run)
    assert {one["status"] for one in checks.values()} == {"not measured"}
    assert features == []


def test_the_rate_is_learnt_on_one_half_and_ranked_on_the_other():
    rng = np.random.default_rng(0)
    half = rng.integers(2, size=4000)
    converted = rng.random(4000) < 0.2
    # a category of its own for every journey learns the sample by heart, and nothing for the other half
    assert rate_auc(np.arange(4000), converted, half) == pytest.approx(0.5, abs=0.02)
    code = rng.integers(3, size=4000)
    converted = rng.random(4000) < np.array([0.3, 0.1, 0.2])[code]
    assert rate_auc(code, converted, half) == pytest.approx(
        roc_auc_score(converted, np.array([0.3, 0.1, 0.2])[code]), abs=0.01
    )
    assert rate_auc(code, np.zeros(4000, dtype=bool), half) == 0.5


def test_a_rate_that_grows_is_flagged(run):
    def later(table):
        """Of those who converted many are taken back at first, fewer as time goes on."""
        days = table["days_to_conversion"].to_numpy(zero_copy_only=False)
        age = table["as_of"].cast(pa.int64()).to_numpy() / DAY_US
        kept = np.random.default_rng(2).random(len(days)) < 0.3 + 0.7 * (age - 20458) / 180
        return {"days_to_conversion": np.where(kept, days, 99.0)}

    rewritten(run, later)
    found = moved(run)
    assert found["label rate over time"]["status"] == "warning"
    assert found["label rate over time"]["value"] > 0.5
    assert found["label rate, test against train"]["status"] == "warning"


def test_a_test_that_converts_half_as_often_is_flagged(run):
    def halved(table):
        test = pc.equal(table["split"], "test").to_numpy(zero_copy_only=False)
        lost = test & (np.random.default_rng(3).random(len(test)) < 0.5)
        days = table["days_to_conversion"].to_numpy(zero_copy_only=False)
        return {"days_to_conversion": np.where(lost, 99.0, days)}

    before = moved(run)["label rate, test against train"]["value"]
    rewritten(run, halved)
    found = moved(run)
    assert found["label rate, test against train"]["status"] == "warning"
    assert found["label rate, test against train"]["value"] == pytest.approx((1 + before) / 2 - 1, abs=0.06)
    assert found["label rate, eval against train"]["status"] == "ok"


def test_scores_that_move_are_flagged(run):
    sizes = {split: len(read_outcomes(run.run_dir.journeys, split)) for split in ("eval", "test")}
    rng = np.random.default_rng(0)
    same = {split: rng.beta(2, 8, size=n) for split, n in sizes.items()}
    assert moved(run, same)["scores, test against eval"]["status"] == "ok"
    found = moved(run, {**same, "test": same["test"] ** 0.7})["scores, test against eval"]
    assert found["status"] == "warning"


@pytest.mark.parametrize(("over", "status"), [(1.0, "ok"), (1.09, "ok"), (1.3, "warning"), (0.7, "warning")])
def test_probabilities_off_what_happened_are_flagged(run, over, status):
    test = read_outcomes(run.run_dir.journeys, "test")
    known, (days,) = test.known(30, 0), {run.spec.primary_horizon}
    assert days == 30
    rate = test.converted(30)[known].mean()
    # what is said of journeys that were not watched to the end is no matter
    scores = {"eval": np.full(len(read_outcomes(run.run_dir.journeys, "eval")), 0.2)}
    scores["test"] = np.where(known, over * rate, 1.0)
    found = moved(run, scores)["mean probability, test"]
    assert (found["status"], found["value"]) == (status, pytest.approx(over - 1, abs=1e-5))
    sign = "\N{MINUS SIGN}30" if over < 1 else "+30" if over > 1.2 else "+9" if over > 1 else "+0"
    assert f"lies {sign}\N{NO-BREAK SPACE}% off the share that converted, 95 % interval" in found["what"]


def test_without_a_conversion_in_test_nothing_is_off(run):
    rewritten(run, lambda table: {"days_to_conversion": np.full(len(table), 99.0)})
    found = moved(run)["mean probability, test"]
    assert (found["status"], found["value"]) == ("not measured", None)


def test_the_stability_index_by_hand():
    reference = np.arange(100) / 100
    assert stability(reference, reference) == 0
    # the upper half twice: by bin 10.5 of 105 against 0.5 below and 20.5 above, each with its half journey
    p, low, high = 10.5 / 105, 0.5 / 105, 20.5 / 105
    expected = 5 * (low - p) * np.log(low / p) + 5 * (high - p) * np.log(high / p)
    assert stability(reference, np.tile(reference[50:], 2)) == pytest.approx(expected)

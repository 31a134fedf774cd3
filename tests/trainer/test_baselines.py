"""The baselines: they learn what is there, select on eval only, and speak at the true base rate."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from preprocessing.spec import parse_spec
from tests.trainer.synthetic_run import SPEC, make_run
from trainer.aggregates import Aggregates
from trainer.baselines import baseline_predictions, recency_frequency_inputs, undo_downsampling
from trainer.metrics import METRICS, Scores
from trainer.outcomes import read_outcomes

AUC = METRICS.index("roc_auc")


def fitted(run, spec=None, **options):
    outcomes = {split: read_outcomes(run.run_dir.journeys, split) for split in ("train", "eval", "test")}
    found, notes = baseline_predictions(run.run_dir.journeys, spec or run.spec, *outcomes.values(), **options)
    return found, notes, outcomes["test"]


def auc(test, found, model, horizon):
    return Scores(test.converted(horizon), found[model][horizon]).evaluate()[AUC]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("baselines") / "run", customers=900)


def test_both_learn_and_the_trees_see_more(run):
    found, notes, test = fitted(run)
    assert notes == []
    for horizon in (7, 14, 30):
        assert 0.55 < auc(test, found, "recency_frequency", horizon) < 0.72
        assert auc(test, found, "gradient_boosting", horizon) > auc(test, found, "recency_frequency", horizon)
        mean = test.converted(horizon).mean()
        for model in found:
            assert found[model][horizon].mean() == pytest.approx(mean, rel=0.15)


def test_predictions_follow_the_order_asked_for(run):
    found, _, test = fitted(run)
    outcomes = {split: read_outcomes(run.run_dir.journeys, split) for split in ("train", "eval")}
    order = np.random.default_rng(0).permutation(len(test))[:500]
    again, _ = baseline_predictions(run.run_dir.journeys, run.spec, *outcomes.values(), test.take(order))
    for model in found:
        np.testing.assert_array_equal(again[model][30], found[model][30][order])


def test_test_labels_change_nothing(run, tmp_path):
    found, _, _ = fitted(run)
    (tmp_path / "run/journeys").mkdir(parents=True)
    table = pq.read_table(run.run_dir.journeys)
    is_test = pc.equal(table["split"], "test")
    days = pc.if_else(is_test, 0.5, table["days_to_conversion"])
    changed = table.set_column(table.column_names.index("days_to_conversion"), "days_to_conversion", days)
    pq.write_table(changed, tmp_path / "run/journeys/part-00000.parquet")
    moved = dataclasses.replace(run, run_dir=type(run.run_dir)(tmp_path / "run"))
    again, _, test = fitted(moved)
    assert test.converted(7).all()
    for model in found:
        np.testing.assert_array_equal(again[model][30], found[model][30])


def test_capped_rows_are_a_fixed_sample_and_said(run):
    found, notes, test = fitted(run, rows=1000)
    again, _, _ = fitted(run, rows=1000)
    assert notes == ["The baselines learn from 1,000 of 3,600 train journeys (those with the smallest id)."]
    np.testing.assert_array_equal(found["gradient_boosting"][30], again["gradient_boosting"][30])
    assert auc(test, found, "recency_frequency", 30) > 0.55


def test_what_the_network_learns_from_beside_is_said(tmp_path):
    """With assignments beside snapshots it has more to learn from than the baselines."""
    run = make_run(tmp_path / "run", customers=100)
    for part in run.run_dir.journeys.glob("part-*.parquet"):
        table = pq.read_table(part)
        pq.write_table(table.append_column("asked_campaign", pa.array([""] * table.num_rows)), part)
    assignments = "{customer: customer_id, campaign: campaign, time: assigned_at, treated: treated}"
    spec = parse_spec(f"{SPEC}campaigns: {{column: channel, assignments: {assignments}}}\n")
    _, notes, _ = fitted(run, spec)
    assert notes == [
        "The network also learns from journeys at assignments (assigned_train); the baselines learn from the snapshots "
        "of train alone."
    ]


def test_downsampling_undone_by_hand():
    # population: 10 % convert within 7 days, 30 % later within 30, 60 % never; of these one in ten is kept
    kept = 0.1 + 0.3 + 0.06
    seven, thirty = np.array([0.1 / kept]), np.array([0.4 / kept])
    assert undo_downsampling(seven, thirty, 0.1) == pytest.approx([0.1])
    assert undo_downsampling(thirty, thirty, 0.1) == pytest.approx([0.4])
    assert undo_downsampling(seven, thirty, 1.0) is seven
    assert undo_downsampling(np.array([0.9]), np.array([0.2]), 0.5) <= 1  # contradictory models


def test_a_downsampled_train_speaks_at_the_true_rate(run, tmp_path):
    table = pq.read_table(run.run_dir.journeys)
    never = pc.invert(pc.less(pc.fill_null(table["days_to_conversion"], np.inf), 30))
    drawn = np.array([int(one[:4], 16) % 5 == 0 for one in table["journey_id"].to_pylist()])  # by hash: a fifth
    kept = pc.or_(pc.or_(pc.invert(never), pa.array(drawn)), pc.not_equal(table["split"], "train"))
    (tmp_path / "run/journeys").mkdir(parents=True)
    pq.write_table(table.filter(kept), tmp_path / "run/journeys/part-00000.parquet")
    thinned = dataclasses.replace(run, run_dir=type(run.run_dir)(tmp_path / "run"))
    spec = parse_spec(SPEC + "sampling: {negative_rate: 0.2}\n")
    found, _, test = fitted(thinned, spec)
    naive, _, _ = fitted(thinned)  # the spec that knows nothing of it
    for horizon in (7, 14, 30):
        rate = test.converted(horizon).mean()
        for model in found:
            assert found[model][horizon].mean() == pytest.approx(rate, rel=0.2)
        assert naive["recency_frequency"][horizon].mean() > 1.3 * rate


def test_a_train_of_one_class_fits_nothing_and_says_so(tmp_path):
    run = make_run(tmp_path / "run", customers=30, intercept=-40)
    found, notes, _ = fitted(run)
    assert found == {"recency_frequency": {}, "gradient_boosting": {}}
    assert len(notes) == 3
    assert notes[0] == (
        "7 days: no baseline is fitted: 0 of 120 train journeys whose outcome is known converted, "
        "and a classifier needs both kinds."
    )


def test_columns_without_a_value_and_journeys_without_an_event_do_not_stop_the_trees(tmp_path):
    run = make_run(tmp_path / "run", customers=200, mean_events=0.0, intercept=2.0)
    found, notes, test = fitted(run)
    assert read_outcomes(run.run_dir.journeys, "train").length.max() == 0
    assert np.isfinite(found["gradient_boosting"][30]).all()
    assert np.isfinite(found["recency_frequency"][30]).all()
    assert notes == []
    assert len(test)


def test_an_eval_that_cannot_select_is_said(tmp_path):
    run = make_run(tmp_path / "run", customers=100, intercept=-4.5)
    table = pq.read_table(run.run_dir.journeys)
    calm = pc.if_else(pc.equal(table["split"], "eval"), None, table["days_to_conversion"])
    changed = table.set_column(table.column_names.index("days_to_conversion"), "days_to_conversion", calm)
    for part in run.run_dir.journeys.iterdir():
        part.unlink()
    pq.write_table(changed, run.run_dir.journeys / "part-00000.parquet")
    found, notes, _ = fitted(run)
    assert "30 days: eval has not both kinds to select on: gradient boosting takes 50 trees." in notes
    assert np.isfinite(found["gradient_boosting"][30]).all()


def test_recency_and_frequency_by_hand():
    aggregates = Aggregates(parse_spec(SPEC), {"event_type": (), "channel": (), "segment": ()})
    matrix = np.zeros((2, len(aggregates.names)), dtype=np.float32)
    matrix[0, :6] = [3, 2, 38, 19, 1, 2]
    matrix[1, :6] = [0, np.nan, np.nan, np.nan, 0, 0]
    expected = [np.log([3, 1, 4, 2, 3]), [np.log(91), 1, 0, 0, 0]]  # no event within the lookback of 90 days
    np.testing.assert_allclose(recency_frequency_inputs(aggregates, matrix), expected)

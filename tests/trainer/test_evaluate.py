"""Evaluation from a run directory to its three files, and what it says where there is nothing to measure."""

import datetime as dt
import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from preprocessing.cli import UserError
from tests.trainer.synthetic_run import SPEC, make_run
from tests.trainer.test_evolution import counting
from trainer.bootstrap import Slice
from trainer.comparison import LABELS, by_as_of, periods, verdict
from trainer.evaluate import evaluate, headline
from trainer.evolution import RULES
from trainer.metrics import Scores

FILES = ("metrics.json", "model_card.md", "report.html", "predictions.parquet", "evolution.json")


def evaluated(run, output, **options):
    output.mkdir()
    options = {"bootstrap": 20, "baselines": False, "model_version": "v1"} | options
    return evaluate(run.run_dir, run.spec, run.predictions, run.history, output, **options)


def refused(constant):
    raise AssertionError(f"{constant} is no JSON")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("evaluate") / "run", customers=300)


@pytest.fixture(scope="module")
def full(run, tmp_path_factory):
    output = tmp_path_factory.mktemp("evaluate") / "evaluation"
    return evaluated(run, output, truth=run.truth, baselines=True, settings={"epochs": 8}, evolution=counting), output


def test_the_files_and_their_contents(run, full):
    metrics, output = full
    assert sorted(path.name for path in output.iterdir()) == sorted(FILES)
    assert json.loads((output / "metrics.json").read_text(), parse_constant=refused) == metrics
    assert list(metrics["test"]) == ["7", "14", "30"]
    assert set(LABELS) <= set(metrics["test"]["30"])
    predictions = pq.read_table(output / "predictions.parquet")
    assert predictions.num_rows == run.predictions["test"].num_rows
    assert {"model_version", "p_7d", "p_14d", "p_30d", "days_to_conversion", "observed_days"} <= set(
        predictions.column_names
    )
    assert predictions["journey_id"] == run.predictions["test"]["journey_id"]


def test_point_values_are_scikit_learns(run, full):
    metrics, output = full
    table = pq.read_table(output / "predictions.parquet")
    converted = pc.less(pc.fill_null(table["days_to_conversion"], np.inf), 30).to_numpy()
    probability = table["p_30d"].to_numpy().astype(float)
    found = metrics["test"]["30"]["lstm"]
    assert found["roc_auc"]["value"] == pytest.approx(roc_auc_score(converted, probability), rel=1e-5)
    assert found["pr_auc"]["value"] == pytest.approx(average_precision_score(converted, probability), rel=1e-5)
    assert found["log_loss"]["value"] == pytest.approx(log_loss(converted, probability), rel=1e-5)
    assert metrics["test"]["30"]["conversions"] == converted.sum()
    by_cut_off = metrics["by_as_of"]
    assert [one["as_of"] for one in by_cut_off] == ["2026-05-25", "2026-06-08", "2026-06-22"]
    assert sum(one["conversions"] for one in by_cut_off) == converted.sum()
    here = np.array([f"{as_of:%Y-%m-%d}" == "2026-06-08" for as_of in table["as_of"].to_pylist()])
    expected = roc_auc_score(converted[here], probability[here])
    assert by_cut_off[1]["lstm"]["roc_auc"] == pytest.approx(expected, rel=1e-5)


def test_seen_and_held_out_customers_part_the_test_split(full):
    metrics, _ = full
    for count in ("journeys", "customers", "conversions"):
        parts = [metrics[group]["30"][count] for group in ("seen", "held_out")]
        assert sum(parts) == metrics["test"]["30"][count]
        assert all(parts)


def test_the_oracle_is_the_truth(run, full):
    metrics, _ = full
    test = metrics["test"]["30"]
    assert test["oracle"]["gap_to_truth"]["value"] == 0
    truth = pq.read_table(run.truth, columns=["customer_key", "as_of", "p_30d"])
    truth = truth.rename_columns(["customer_key", "as_of", "true"])
    joined = run.predictions["test"].join(truth, ["customer_key", "as_of"])
    gap = np.abs(joined["p_30d"].to_numpy() - joined["true"].to_numpy()).mean()
    assert test["lstm"]["gap_to_truth"]["value"] == pytest.approx(gap, rel=1e-5)
    assert test["oracle"]["log_loss"]["value"] < test["lstm"]["log_loss"]["value"]


def test_differences_and_verdicts(full):
    metrics, _ = full
    gaps = metrics["differences"]["30"]
    assert list(gaps) == ["recency_frequency", "gradient_boosting", "constant", "oracle"]
    for model, found in gaps.items():
        for name, one in found.items():
            values = [metrics["test"]["30"][m][name]["value"] for m in ("lstm", model)]
            assert one["value"] == pytest.approx(values[0] - values[1], abs=2e-6)
    assert gaps["constant"]["roc_auc"]["verdict"] == "better"
    assert verdict("log_loss", -0.2, -0.1) == verdict("roc_auc", 0.1, 0.2) == "better"
    assert verdict("log_loss", 0.1, 0.2) == verdict("roc_auc", -0.2, -0.1) == "worse"
    assert verdict("log_loss", -0.1, 0.2) == verdict("roc_auc", 0.0, 0.0) == "not distinguishable"
    assert verdict("log_loss", None, None) is None


def test_the_same_input_gives_the_same_bytes(run, full, tmp_path):
    _, output = full
    evaluated(run, tmp_path / "again", truth=run.truth, baselines=True, settings={"epochs": 8}, evolution=counting)
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (output / name).read_bytes(), name


def test_the_rows_order_is_no_matter(run, full, tmp_path):
    metrics, _ = full
    table = run.predictions["test"]
    order = np.random.default_rng(1).permutation(table.num_rows)
    shuffled = {**run.predictions, "test": table.take(pa.array(order))}
    again = evaluate(
        run.run_dir, run.spec, shuffled, run.history, tmp_path, truth=run.truth, bootstrap=20, model_version="v1"
    )
    one, other = metrics["test"]["30"]["lstm"], again["test"]["30"]["lstm"]
    for name in one:
        assert one[name] == pytest.approx(other[name], rel=1e-4)


def test_the_cut_offs_differences_are_paired_and_have_intervals(full):
    metrics, _ = full
    for one in metrics["by_as_of"]:
        assert set(one["differences"]) == {"recency_frequency", "gradient_boosting", "constant", "oracle"}
        for model, gaps in one["differences"].items():
            for name, gap in gaps.items():
                assert gap["value"] == pytest.approx(one["lstm"][name] - one[model][name], abs=2e-6)
                assert gap["low"] <= gap["value"] <= gap["high"]
                assert gap["verdict"] == verdict(name, gap["low"], gap["high"])
    # on one and the same cut-off the pair's interval is narrower than the cut-off's journeys alone would allow
    wide = metrics["test"]["30"]["lstm"]["log_loss"]
    gap = metrics["by_as_of"][0]["differences"]["oracle"]["log_loss"]
    assert gap["high"] - gap["low"] < wide["high"] - wide["low"]


def test_a_cut_off_of_few_customers_has_no_figures_and_no_instant():
    """Customers by instant: 3 at midnight, 1 at 09:30, 2 rows of one at 10:00, 2 the day after."""
    day = 86_400_000_000
    as_of = day * np.array([0, 0, 0, 9.5 / 24, 10 / 24, 10 / 24, 1, 1])
    scores = {"lstm": Scores(np.arange(8) % 2 == 0, np.linspace(0.1, 0.9, 8))}
    customer = np.array([0, 1, 2, 3, 4, 4, 5, 6, 7])  # of a table of nine rows
    found = by_as_of(Slice(np.arange(8), scores), as_of.astype(np.int64), customer, smallest=2, draws=5, seed=1)
    assert [one["as_of"] for one in found] == ["1970-01-01", "1970-01-01", "1970-01-02"]
    assert found[1] == {"as_of": "1970-01-01", "suppressed": "fewer than 2 customers"}  # of both instants, once
    assert [(one["journeys"], one["conversions"]) for one in (found[0], found[2])] == [(3, 2), (2, 1)]
    assert found[0]["suppressed"] is None


def test_an_instant_of_one_customer_is_told_nowhere(tmp_path):
    """A prediction at an event, as snapshots at events make them, among those of a grid."""
    run = make_run(tmp_path / "run", customers=60)
    moved = []
    for part in run.run_dir.journeys.glob("part-*.parquet"):
        table = pq.read_table(part)
        as_of = table["as_of"].to_pylist()
        for row in [i for i, split in enumerate(table["split"].to_pylist()) if split == "test"][:1]:
            as_of[row] += dt.timedelta(hours=7, minutes=31)
            moved.append(as_of[row])
        column = pa.array(as_of, pa.timestamp("us", "UTC"))
        pq.write_table(table.set_column(table.column_names.index("as_of"), "as_of", column), part)
    assert moved
    metrics = evaluated(run, tmp_path / "out")
    hidden = [one for one in metrics["by_as_of"] if one["suppressed"]]
    assert {one["as_of"] for one in hidden} == {f"{one:%Y-%m-%d}" for one in moved}
    assert all(set(one) == {"as_of", "suppressed"} for one in hidden)
    shown = [one for one in metrics["by_as_of"] if not one["suppressed"]]
    assert sum(one["journeys"] for one in shown) == metrics["test"]["30"]["journeys"] - len(moved)
    for name in ("metrics.json", "report.html", "model_card.md"):
        assert "07:31" not in (tmp_path / "out" / name).read_text()
    assert "not shown: fewer than 20 customers" in (tmp_path / "out/report.html").read_text()


def test_a_run_of_few_customers_has_no_cut_offs(tmp_path):
    run = make_run(tmp_path / "run", customers=30, spec_text=f"{SPEC}privacy: {{min_customers: 31}}\n")
    metrics = evaluated(run, tmp_path / "out", baselines=True)
    assert {one["suppressed"] for one in metrics["by_as_of"]} == {"fewer than 31 customers"}
    page = (tmp_path / "out/report.html").read_text()
    assert "Not drawn: no as_of has the known outcomes of 31 customers." in page
    assert 'id="cut-offs"' not in page


def test_slices_part_the_test_and_stand_beside_the_strongest_baseline(full):
    metrics, _ = full
    test = metrics["test"]["30"]
    fitted = ("recency_frequency", "gradient_boosting")
    strongest = min(fitted, key=lambda model: test[model]["log_loss"]["value"])
    by = {}
    for one in metrics["slices"]:
        if one["suppressed"] is None:
            assert one["difference"]["model"] == strongest
            by.setdefault(one["by"], []).append(one)
    assert {
        "channel of the last event",
        "segment",
        "events",
        "earlier conversion in the journey",
        "first visible event",
    } <= set(by)
    assert sum(one["journeys"] for one in by["segment"]) == test["journeys"]
    held_out = next(one for one in by["customers"] if one["slice"] == "held out")
    assert held_out["lstm"]["roc_auc"] == metrics["held_out"]["30"]["lstm"]["roc_auc"]
    mean = sum(one["journeys"] * one["lstm"]["log_loss"]["value"] for one in by["segment"]) / test["journeys"]
    assert mean == pytest.approx(test["lstm"]["log_loss"]["value"], rel=1e-4)


def test_the_threshold_is_told_with_prices_and_without(run, full, tmp_path):
    metrics, _ = full
    assert [one["value_over_cost"] for one in metrics["decision"]["choices"]] == [5, 10, 20, 50, 100]
    priced = evaluated(run, tmp_path / "out", contact_cost=2.0, conversion_value=9.0)["decision"]
    rules = priced["choices"][0]["rules"]
    table = run.predictions["test"]
    assert rules["break_even"]["contacted"]["value"] == pytest.approx(
        np.mean(table["p_30d"].to_numpy() >= np.float32(2 / 9)), rel=1e-5
    )
    with pytest.raises(UserError, match="expected --conversion_value beside it"):
        evaluated(run, tmp_path / "half", contact_cost=2.0)


def test_checks_and_calibration_are_told(run, full, tmp_path):
    metrics, _ = full
    assert [one["name"] for one in metrics["checks"]] == [
        *("single feature", "missing values", "label rate over time", "label rate, eval against train"),
        *("label rate, test against train", "mean probability, test", "scores, test against eval"),
    ]
    assert {one["status"] for one in metrics["checks"]} == {"ok"}
    assert metrics["calibration"] is None
    shown = {"30": {"slope": 1.25, "shift": -0.5}}
    assert evaluated(run, tmp_path / "out", calibrated=shown)["calibration"] == shown
    assert "slope 1.25, shift -0.5" in (tmp_path / "out/report.html").read_text()


def test_single_journeys_are_told_where_the_model_can(full):
    metrics, output = full
    told = json.loads((output / "evolution.json").read_text(), parse_constant=refused)
    assert [one["rule"] for one in told] == list(RULES.values())
    assert "evolution" not in metrics
    text = (output / "report.html").read_text()
    for one in told:
        assert f"Customer {one['customer_key'][:8]}, as_of" in text
        assert one["customer_key"] not in text
        assert one["journey_id"] not in text
    first = pq.read_table(output / "predictions.parquet").filter(pc.field("journey_id") == told[0]["journey_id"])
    assert first["days_to_conversion"][0].as_py() == pytest.approx(told[0]["days_to_conversion"], rel=1e-5)


def test_a_horizon_counts_only_where_its_outcome_is_known(tmp_path):
    # the last cut-offs are 2026-06-22 and 2026-06-08: on 07-15 the data knows 14 days of both, 30 of the earlier
    run = make_run(tmp_path / "run", customers=100, spec_text=SPEC.replace("2026-07-31", "2026-07-15"))
    metrics = evaluated(run, tmp_path / "out")
    assert [metrics["test"][h]["journeys"] for h in ("7", "14", "30")] == [300, 300, 200]
    assert metrics["test"]["30"]["not_observed"] == 100
    assert [one["as_of"] for one in metrics["by_as_of"]] == ["2026-05-25", "2026-06-08"]
    assert "test, 30 days: 100 journeys are not counted: the data ends before their horizon does." in metrics["notes"]


def test_a_test_without_a_conversion_is_null_and_said(tmp_path):
    run = make_run(tmp_path / "run", customers=30, intercept=-40)
    metrics = evaluated(run, tmp_path / "out", truth=run.truth, baselines=True)
    test = metrics["test"]["30"]
    assert test["reason"] == "no conversion among 90 journeys"
    assert test["lstm"]["roc_auc"] == test["lstm"]["lift_10"] == {"value": None, "low": None, "high": None}
    assert "test, 30 days: no conversion among 90 journeys; what that leaves open is null." in metrics["notes"]
    assert "no conversion among 90 journeys" in headline(metrics)
    assert "Ranking cannot be measured: no conversion among 90 journeys." in (tmp_path / "out/report.html").read_text()


def test_an_empty_test_is_null_and_said(tmp_path):
    run = make_run(tmp_path / "run", customers=30)
    run.predictions["test"] = run.predictions["test"].slice(0, 0)
    metrics = evaluated(run, tmp_path / "out", truth=run.truth, baselines=True)
    assert metrics["test"]["30"]["reason"] == "no journey whose outcome is known"
    assert metrics["test"]["30"]["lstm"]["log_loss"]["value"] is None
    assert "test: 0 of 90 journeys were predicted; only these are measured." in metrics["notes"]
    assert "unknown" in headline(metrics)
    assert "there is nothing to measure" in (tmp_path / "out/report.html").read_text()


def test_predictions_of_another_run_are_refused(run, tmp_path):
    other = make_run(tmp_path / "other", customers=310)
    with pytest.raises(UserError, match="8 of 248 belong to no eval journey of this run directory"):
        evaluate(run.run_dir, run.spec, other.predictions, [], tmp_path)
    twice = {**run.predictions, "test": pa.concat_tables([run.predictions["test"]] * 2)}
    with pytest.raises(UserError, match="a journey_id occurs twice"):
        evaluate(run.run_dir, run.spec, twice, [], tmp_path)
    lacking = {**run.predictions, "eval": run.predictions["eval"].drop_columns("p_14d")}
    with pytest.raises(UserError, match="no column p_14d"):
        evaluate(run.run_dir, run.spec, lacking, [], tmp_path)
    assert not (tmp_path / "metrics.json").exists()


def test_diverged_predictions_are_refused(run, tmp_path):
    table = run.predictions["test"]
    broken = table.set_column(
        table.column_names.index("p_7d"), "p_7d", pa.array([np.nan] * 4 + [0.1] * (table.num_rows - 4))
    )
    with pytest.raises(UserError, match="p_7d holds 4 values that are no number"):
        evaluate(run.run_dir, run.spec, {**run.predictions, "test": broken}, [], tmp_path)


def test_a_truth_with_gaps_gives_no_oracle_and_a_note(run, tmp_path):
    table = pq.read_table(run.truth)
    pq.write_table(table.slice(0, table.num_rows - 1), tmp_path / "truth.parquet")
    metrics = evaluated(run, tmp_path / "out", truth=tmp_path / "truth.parquet")
    assert "oracle" not in metrics["test"]["30"]
    assert "The truth lacks 1 of 900 test journeys: there is no oracle to compare with." in metrics["notes"]
    pq.write_table(pa.concat_tables([table, table]), tmp_path / "truth.parquet")
    with pytest.raises(UserError, match="two rows for one as_of"):
        evaluate(run.run_dir, run.spec, run.predictions, [], tmp_path, truth=tmp_path / "truth.parquet")
    (tmp_path / "truth.parquet").write_text("no Parquet")
    with pytest.raises(UserError, match="expected a Parquet file"):
        evaluate(run.run_dir, run.spec, run.predictions, [], tmp_path, truth=tmp_path / "truth.parquet")


def test_without_draws_there_are_values_and_no_intervals(run, tmp_path):
    metrics = evaluated(run, tmp_path / "out", bootstrap=0)
    found = metrics["test"]["30"]["lstm"]["roc_auc"]
    assert found["value"] > 0.5
    assert found["low"] is found["high"] is None
    assert metrics["differences"]["30"]["constant"]["roc_auc"]["verdict"] is None


def test_a_shortened_embargo_is_said(tmp_path):
    run = make_run(tmp_path / "run", customers=30, spec_text=SPEC.replace("holdout_customers: 0.2", "embargo_days: 14"))
    metrics = evaluated(run, tmp_path / "out")
    said = "The embargo between the parts is 14 days, shorter than gap + longest horizon (30 days)"
    assert metrics["notes"][0].startswith(said)


def test_the_headline_is_a_table(full):
    metrics, _ = full
    lines = headline(metrics).splitlines()
    assert lines[0].startswith("test, 30 days: 900 journeys of 300 customers")
    assert [line.split("  ")[0] for line in lines[2:]] == list(LABELS.values())
    assert "ECE" in lines[1].split()
    columns = [line.index("[") for line in lines[2:]]
    assert len(set(columns)) == 1


def test_periods_grow_coarser_as_instants_grow_many():
    day = 86_400_000_000
    assert periods(np.array([day, 0, day]))[0] == ["1970-01-01", "1970-01-02"]
    assert periods(np.array([day, 0, day]))[1].tolist() == [1, 0, 1]
    assert periods(np.array([3_600_000_000]))[0] == ["1970-01-01T01:00"]
    hours = np.arange(0, 10 * day, day // 24)
    assert periods(hours)[0] == [f"1970-01-{d:02}" for d in range(1, 11)]
    assert periods(np.arange(0, 90 * day, day))[0] == ["1970-01", "1970-02", "1970-03"]
    assert periods(np.zeros(0, dtype=np.int64))[0] == []

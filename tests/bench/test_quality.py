"""The benchmark's own arithmetic, and that its peers choose without seeing test."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from preprocessing.cli import UserError
from preprocessing.spec import load_spec, parse_spec
from tests.bench import peers, quality, quality_table, tasks
from tests.bench.quality_table import Scored
from tests.bench.steps import ROOT, Steps
from tests.bench.tasks import Goal, Prepared, Run


def scored(lstm, peer, converted=(1, 0, 1, 0), name="run", eval_loss=0.5):
    keys = pa.array(["a", "b", "c", "d"])
    models = {"lstm": np.array(lstm), "lightgbm": np.array(peer), "logistic_regression": np.array(peer)}
    losses = {"lightgbm": eval_loss, "logistic_regression": 0.6}
    return Scored(name, keys, np.zeros(4, np.int64), np.array(converted, bool), models, losses)


def test_a_step_is_kept_until_an_ingredient_changes(tmp_path):
    steps, made = Steps(tmp_path / "work"), []
    table = tmp_path / "table"
    table.write_text("1")
    for _ in range(2):
        place, first = steps.done("a/b", ["flag", table], made.append)
    assert made == [place]
    table.write_text("2")
    _, second = steps.done("a/b", ["flag", table], made.append)
    assert len(made) == 2
    assert first != second


def test_a_step_that_fails_is_not_taken_for_done(tmp_path):
    steps = Steps(tmp_path)

    def fails(place):
        (place / "half").touch()
        steps.command("preprocessing.task", "--spec", "none.yaml", "--events", "x", "--run_dir", place / "run")

    with pytest.raises(UserError, match=r"preprocessing\.task ended with 2: error: none\.yaml: cannot read"):
        steps.done("a", [], fails)
    place, _ = steps.done("a", [], lambda place: None)
    assert not (place / "half").exists()


def test_a_derived_spec_differs_where_it_was_told_to():
    spec = parse_spec(tasks.derived("clickstream.yaml", {"journeys.split.column": "split3"}))
    assert spec.journeys.split.column == "split3"
    assert spec.events.first == 5
    whole = load_spec(ROOT / "job_configs/journeys/demo.yaml")
    assert parse_spec(tasks.derived("demo.yaml", {})) == whole
    assert parse_spec(tasks.derived("demo.yaml", {"eligible": None})).eligible.where is None


def test_means_spread_and_paired_difference_are_those_worked_out_by_hand():
    # AUC by hand: run 1: LSTM ranks both converters first (1), the peer has 3 of 4 pairs right (0.75);
    # run 2: LSTM 0.5, the peer 0.75
    runs = [
        scored([0.9, 0.1, 0.8, 0.2], [0.9, 0.3, 0.2, 0.1]),
        scored([0.1, 0.2, 0.9, 0.3], [0.9, 0.3, 0.2, 0.1]),
    ]
    table = quality_table.measure(runs, [np.ones(4, bool)] * 2, draws=50)
    assert table["models"]["lstm"]["roc_auc"]["runs"] == [1.0, 0.5]
    assert table["models"]["lstm"]["roc_auc"]["mean"] == 0.75
    assert table["models"]["lstm"]["roc_auc"]["sd"] == pytest.approx(0.5 / np.sqrt(2))
    assert table["models"]["lightgbm"]["roc_auc"] == {"mean": 0.75, "sd": 0.0, "runs": [0.75, 0.75]}
    assert table["differences"]["lightgbm"]["roc_auc"]["value"] == 0
    assert table["conversions"] == [2, 2]


def test_draws_are_paired_over_runs_and_models():
    """The same scores in another order of rows: every draw's difference is 0, so the interval has no width."""
    one = scored([0.9, 0.1, 0.8, 0.2], [0.9, 0.1, 0.8, 0.2])
    order = [2, 0, 3, 1]
    other = Scored(
        "other",
        one.customer_key.take(pa.array(order)),
        one.as_of,
        one.converted[order],
        {name: 1 - p[order] if name == "lstm" else p[order] for name, p in one.models.items()},
        one.eval_log_loss,
    )
    both = quality_table.measure([one, one], [np.ones(4, bool)] * 2, draws=30)["differences"]["lightgbm"]["log_loss"]
    assert (both["low"], both["high"]) == (0, 0)
    turned = quality_table.measure([one, other], [np.ones(4, bool)] * 2, draws=30)["differences"]["lightgbm"]
    alone = quality_table.measure([other], [np.ones(4, bool)], draws=30)["differences"]["lightgbm"]
    assert turned["log_loss"]["high"] == pytest.approx(alone["log_loss"]["high"] / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("goal", "words", "reached"),
    [
        (Goal("roc_auc", 0.7, at_least=True), "AUC ≥ 0.700", True),
        (Goal("log_loss", 0.4, at_least=False), "log loss ≤ 0.400", False),
        (Goal("roc_auc", -0.01, at_least=True, against="better", bound="low"), "lower bound > -0.01", False),
        (Goal("log_loss", 0.0, at_least=False, against="lightgbm", bound="high"), "upper bound < 0", False),
    ],
)
def test_goals_are_judged_by_the_figure_that_they_name(goal, words, reached):
    gap = {"value": 0.0, "low": -0.01, "high": 0.0}
    models = {"lstm": {"roc_auc": {"mean": 0.7}, "log_loss": {"mean": 0.41}}}
    groups = {"test": {"models": models, "differences": {"lightgbm": {"roc_auc": gap, "log_loss": gap}}}}
    found = quality_table.judged(goal, groups, "lightgbm")
    assert words in found["goal"]
    assert found["reached"] is reached


def test_the_better_peer_is_the_one_that_eval_prefers():
    runs = [scored([0.5] * 4, [0.5] * 4, eval_loss=0.7), scored([0.5] * 4, [0.5] * 4, eval_loss=0.52)]
    assert quality_table.better_peer(runs) == "logistic_regression"  # 0.6 against (0.7 + 0.52) / 2


def test_short_journeys_are_laid_out_event_by_event():
    text = (
        "journeys: {journey: id, label: y}\nevents: {journey: id, seconds: s}\n"
        "sequence: {categorical: [page], max_events: 3}\n"
    )
    spec = parse_spec(text)
    inputs = peers.Inputs(spec, peers.Aggregates(spec, {"page": ("x", "y")}))
    day = 86_400_000_000
    instant = pa.timestamp("us", "UTC")
    batch = pa.record_batch(
        {
            "as_of": pa.array([3 * day + 1], instant),
            "event_time": pa.array([[day, 3 * day]], pa.list_(instant)),
            "page": [["y", "z"]],
        }
    )
    laid_out = inputs.of(batch)[0, -6:]
    np.testing.assert_array_equal(laid_out, np.array([2, 0, np.nan, np.nan, 2, np.nan], np.float32))
    assert inputs.is_category[-6:].tolist() == [True] * 3 + [False] * 3


@pytest.fixture(scope="module")
def prepared(job):
    return Prepared("job", job["base"], "digest", (0,), None)


def test_no_choice_of_a_peer_can_see_test(job, prepared, tmp_path):
    """With every test outcome turned around, the fitted peers say the same."""
    assert prepared.run_dir == job["run_dir"]
    turned = tmp_path / "journeys"
    shutil.copytree(job["run_dir"] / "journeys", turned)
    for part in turned.glob("part-*.parquet"):
        table = pq.read_table(part)
        in_test = pc.equal(table["split"], "test")
        bought = pc.is_valid(table["days_to_conversion"])
        other = pc.if_else(bought, pa.scalar(None, pa.float64()), 1.0)
        days = pc.if_else(in_test, other, table["days_to_conversion"])
        column = table.column_names.index("days_to_conversion")
        pq.write_table(table.set_column(column, "days_to_conversion", days), part)
    spec = load_spec(job["run_dir"] / "transform/spec.yaml")
    said, outcomes = [], []
    for journeys in (job["run_dir"] / "journeys", turned):
        inputs = peers.learn_inputs(journeys, spec)
        train, evaluation = (peers.read_part(journeys, split, inputs) for split in ("train", "eval"))
        fitted = peers.fit_peers(train, evaluation, inputs, (0,), quick=True)
        test = peers.read_part(journeys, "test", inputs)
        said.append([peer.predict(test.matrix) for peer in fitted])
        outcomes.append(test.converted)
    assert (outcomes[0] != outcomes[1]).mean() > 0.9
    for one, other in zip(*said, strict=True):
        np.testing.assert_array_equal(one, other)


def test_peers_and_lstm_meet_on_the_same_journeys(job, prepared, tmp_path):
    """On a real run: the table holds the AUC that the run's own evaluation found."""
    import json

    place = quality._peers(prepared, Steps(tmp_path), quick=True)
    one = quality._scored(place, Run("simulator", "simulator/all-seed0", job["run_dir"], 0, None))
    result = quality._result(tasks.TASKS["coupons"], [prepared], [one], 20)
    metrics = json.loads((job["run_dir"] / "evaluation/metrics.json").read_text())["test"]["30"]
    table = result["groups"]["test"]
    assert table["journeys"] == [metrics["journeys"]]
    assert table["models"]["lstm"]["roc_auc"]["mean"] == pytest.approx(metrics["lstm"]["roc_auc"]["value"], rel=1e-5)
    assert table["models"]["lightgbm"]["roc_auc"]["mean"] > 0.55
    assert table["models"]["logistic_regression"]["roc_auc"]["mean"] > 0.55
    text = "\n".join(quality_table.task_lines(tasks.TASKS["coupons"], result))
    assert "Runs: 1 (all-seed0)" in text
    assert f"| LSTM | {metrics['lstm']['roc_auc']['value']:.4f} |" in text


def said_by(*flags):
    words = [sys.executable, "-m", "tests.bench.quality", *map(str, flags)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)


def test_without_the_tables_one_line_says_what_is_expected(tmp_path):
    done = said_by("--data", tmp_path, "--output", tmp_path / "q.md")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: --data {tmp_path}: no clickstreamdmm_events.parquet here; expected")


@pytest.mark.slow
def test_a_quick_run_walks_the_whole_way_and_keeps_what_is_done(tmp_path):
    flags = (
        "--tasks",
        "simulator",
        "--customers",
        600,
        "--quick",
        "--work",
        tmp_path / "w",
        "--output",
        tmp_path / "q.md",
    )
    done = said_by(*flags)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "q.md").read_text()
    assert "| Oracle (true probability) |" in text
    assert "the figures mean nothing" in text
    again = said_by(*flags)
    assert again.stderr.count("kept from an earlier run") == 4  # tables, run directory, peers, training
    assert (tmp_path / "q.json").exists()

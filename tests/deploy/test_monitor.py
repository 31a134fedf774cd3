"""Each fault raises its own alert and no other; the same stream without a fault raises none."""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from deploy import monitor
from preprocessing.cli import UserError
from preprocessing.manifest import write_manifest
from tests.deploy import monitored
from tests.job import command

FAULTS = {
    "none": ({}, set()),
    "a field shifts": ({"channel_shares": [0.2, 0.3, 0.5]}, {("field", "channel")}),
    "a value never seen": (
        {"channels": ["web", "app", "store", "kiosk"], "channel_shares": [0.485, 0.291, 0.194, 0.03]},
        {("out_of_vocabulary", "channel")},
    ),
    "numbers go missing": ({"missing_amount": 0.6}, {("field", "amount")}),
    "journeys are longer": ({"length": 12}, {("length", "events a journey")}),
    "customers were last seen longer ago": ({"recency_days": 12.0}, {("recency", "days since the last event")}),
    "fewer convert than was said": (
        {"convert": 0.6},
        {("calibration_sum", "7 days"), ("calibration_sum", "30 days"), ("calibration_error", "30 days")},
    ),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return monitored.model(tmp_path_factory.mktemp("monitored"))


def run(model, tmp_path, journeys, scores, *flags):
    """monitor.json of logged journeys."""
    place = monitored.write(journeys, scores, tmp_path / "logged")
    scored = ("--scores", str(tmp_path / "logged/scores.parquet")) if scores is not None else ()
    out = tmp_path / "out"
    words = (
        "--model",
        str(model),
        "--journeys",
        str(place),
        *scored,
        "--output",
        str(out),
        "--bootstrap",
        "60",
        *flags,
    )
    monitor.main(list(words))
    return json.loads((out / "monitor.json").read_text())


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_raises_its_own_alert_and_no_other(model, tmp_path, fault):
    law, expected = FAULTS[fault]
    found = run(model, tmp_path, *monitored.draw(1500, 3, **law))
    raised = {(alert["kind"], alert["name"]) for alert in found["alerts"]}
    if (
        fault == "fewer convert than was said"
    ):  # at 7 days few convert: the error by bin may or may not be beyond chance
        raised -= {("calibration_error", "7 days")}
    assert raised == expected
    assert found["alerts"] == json.loads((tmp_path / "out/alerts.json").read_text())


def test_journeys_at_assignments_are_another_population(model, tmp_path):
    """Those of a run directory lie beside the others; they count only where they are asked for."""
    law, raised = FAULTS["a field shifts"]
    journeys, scores = monitored.draw(1500, 3)
    assigned, _ = monitored.draw(1500, 4, split="assigned", **law)
    both = pa.concat_tables([journeys, assigned])
    (tmp_path / "all").mkdir()
    found = run(model, tmp_path / "all", both, scores)
    assert (found["journeys"]["count"], found["alerts"]) == (len(journeys), [])
    found = run(model, tmp_path, both, None, "--split", "assigned")
    assert {(alert["kind"], alert["name"]) for alert in found["alerts"]} == raised


def test_a_shift_of_scores_is_told_apart_from_miscalibration(model, tmp_path):
    """Twice the risk, and outcomes that follow it: scores have moved, and are right."""
    journeys, scores = monitored.draw(1500, 3)
    p = np.minimum(scores["p_30d"].to_numpy() * 2.0, 0.99)
    rng = np.random.default_rng(0)
    when = rng.exponential(1, len(p)) / -np.log1p(-p) * 30
    names = journeys.column_names
    journeys = journeys.set_column(names.index("days_to_conversion"), "days_to_conversion", pa.array(when))
    columns = {f"p_{h}d": pa.array((1 - (1 - p) ** (h / 30)).astype(np.float32)) for h in (7, 30)}
    found = run(model, tmp_path, journeys, scores.drop_columns(list(columns)).append_column(
        "p_7d", columns["p_7d"]).append_column("p_30d", columns["p_30d"]))  # fmt: skip
    assert {alert["kind"] for alert in found["alerts"]} == {"score"}


def test_the_new_value_is_named_and_the_page_shows_it(model, tmp_path):
    law, _ = FAULTS["a value never seen"]
    found = run(model, tmp_path, *monitored.draw(1500, 3, **law))
    assert "new: 'kiosk' 3." in found["alerts"][0]["message"] or "'kiosk' 2." in found["alerts"][0]["message"]
    page = (tmp_path / "out/monitor.html").read_text()
    assert "kiosk" in page
    assert "1 alert on 3,000 journeys." in page
    assert not re.search(r"(src|href)=\"(?!#)", page)
    assert "<script" not in page


def test_a_value_that_few_customers_hold_is_not_told(model, tmp_path):
    journeys, scores = monitored.draw(1500, 3)
    channel = journeys["channel"].combine_chunks()
    flat = channel.flatten().to_pylist()
    flat[:3] = ["secret"] * 3
    changed = pa.ListArray.from_arrays(channel.offsets, pa.array(flat))
    journeys = journeys.set_column(journeys.column_names.index("channel"), "channel", changed)
    found = run(model, tmp_path, journeys, scores)
    assert "secret" not in (tmp_path / "out/monitor.json").read_text()
    assert "secret" not in (tmp_path / "out/monitor.html").read_text()
    (row,) = [row for row in found["shifts"] if row["name"] == "channel"]
    assert row["out_of_vocabulary"]["actual"] is None
    assert [cell["actual"] for cell in row["cells"] if cell["cell"] == "all others"] == [None]


def test_too_few_customers_raise_no_alert(model, tmp_path):
    found = run(model, tmp_path, *monitored.draw(150, 3, recency_days=40.0, convert=0.2))
    assert found["alerts"] == []
    assert {row["status"] for row in found["shifts"]} == {"too few"}
    assert "150 customers are fewer than 200" in found["notes"][0]


def test_what_is_not_paired_is_counted(model, tmp_path):
    journeys, scores = monitored.draw(400, 3)
    _, strangers = monitored.draw(10, 9)
    found = run(model, tmp_path, journeys, pa.concat_tables([scores.slice(5), strangers]))
    assert found["scores"] == {"paired": 795, "journeys_without_score": 5, "scores_without_journey": 20}
    assert found["calibration"]["30"]["journeys"] == 795


def test_without_outcomes_there_is_no_calibration(model, tmp_path):
    journeys, scores = monitored.draw(400, 3)
    unknown = pa.array(np.full(len(journeys), 5.0))
    place = journeys.column_names.index("observed_days")
    found = run(model, tmp_path, journeys.set_column(place, "observed_days", unknown), scores)
    assert found["calibration"] == {}
    assert "No outcome is known yet" in found["notes"][0]


def test_the_same_input_gives_the_same_bytes(model, tmp_path):
    journeys, scores = monitored.draw(400, 3)
    pages = []
    for i in range(2):
        run(model, tmp_path / str(i), journeys, scores)
        pages.append((tmp_path / str(i) / "out/monitor.html").read_bytes())
    assert pages[0] == pages[1]


def test_fail_on_alert_ends_with_3_and_writes_all_the_same(model, tmp_path):
    with pytest.raises(SystemExit) as end:
        run(model, tmp_path, *monitored.draw(1500, 3, recency_days=12.0), "--fail_on_alert")
    assert end.value.code == 3
    assert (tmp_path / "out/monitor.html").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("scores without p_30d", "no column 'p_30d'; expected journey_id, customer_key, p_7d, p_30d"),
        ("scores twice", "a journey_id occurs twice"),
        ("scores above 1", "p_7d holds what is no probability"),
        ("journeys without age", "no column 'age'"),
        ("no journeys", "no journeys here; expected a Parquet file, or a directory with part-"),
        ("no such split", "no journey of split 'train' here"),
        ("no statistics", "no statistics.json here; export the model anew"),
        ("thresholds", ":2: psi.fields: unknown key; did you mean 'field'?"),
        ("output", "expected a new directory, or that of an earlier run that made monitor.json"),
    ],
)
def test_mistakes_are_told_in_one_line(model, tmp_path, change, message):
    journeys, scores = monitored.draw(50, 3)
    flags: list[str] = []
    if change == "scores without p_30d":
        scores = scores.drop_columns(["p_30d"])
    elif change == "scores twice":
        scores = pa.concat_tables([scores, scores])
    elif change == "scores above 1":
        scores = scores.set_column(2, "p_7d", pc.add(scores["p_7d"], pa.scalar(1, pa.float32())))
    elif change == "journeys without age":
        journeys = journeys.drop_columns(["age"])
    elif change == "no journeys":
        (tmp_path / "empty").mkdir()
        flags = ["--journeys", str(tmp_path / "empty")]
    elif change == "no such split":
        flags = ["--split", "train"]
    elif change == "no statistics":
        bare = tmp_path / "bare"
        bare.mkdir()
        for name in ("parcours.json", "spec.yaml"):
            (bare / name).write_bytes((model / name).read_bytes())
        write_manifest(bare)
        model = bare
    elif change == "thresholds":
        wrong = tmp_path / "wrong.yaml"
        wrong.write_text("psi:\n  fields: 0.2\n")
        flags = ["--thresholds", str(wrong)]
    elif change == "output":
        (tmp_path / "out").mkdir()
        (tmp_path / "out/mine.txt").touch()
    with pytest.raises(UserError, match=re.escape(message)):
        run(model, tmp_path, journeys, scores, *flags)
    assert not (tmp_path / "out/monitor.json").exists()


def test_the_real_runs_test_journeys_raise_no_alert_and_planted_ones_do(job, tmp_path):
    """By the command, on simulated customers: train against test, then with a channel renamed."""
    run_dir = job["run_dir"]
    flags = ("--run_dir", run_dir, "--split", "test", "--fail_on_alert")
    said = command("deploy.monitor", *flags, "--journeys", run_dir / "journeys", "--output", tmp_path / "a")
    assert "no alert on 1,706 journeys" in said
    (tmp_path / "planted").mkdir()
    for part in (run_dir / "journeys").glob("part-*.parquet"):
        table = pq.read_table(part)
        channel = table["channel"].combine_chunks()
        words = pc.if_else(pc.equal(channel.flatten(), "email"), "mail", channel.flatten())
        changed = pa.ListArray.from_arrays(channel.offsets, words)
        table = table.set_column(table.column_names.index("channel"), "channel", changed)
        pq.write_table(table, tmp_path / "planted" / part.name)
    said = command(
        "deploy.monitor", *flags, "--journeys", tmp_path / "planted", "--output", tmp_path / "b", code=monitor.ALERTED
    )
    assert "alert: out_of_vocabulary: channel: " in said
    assert "new: 'mail'" in said

"""The whole way on simulated customers, each step as its own command, and what must hold across all of them."""

import gzip
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.job import SPEC, TEST_AS_OF, command


def rows_by_journey(path, columns):
    table = pq.read_table(path, columns=["journey_id", *columns])
    return dict(
        zip(table["journey_id"].to_pylist(), zip(*(table[c].to_pylist() for c in columns), strict=True), strict=True)
    )


def test_predict_gives_what_evaluation_saw(job):
    """Scores made from raw events by the SavedModel equal those that training computed from its records."""
    probabilities = ["p_7d", "p_14d", "p_30d"]
    scored = rows_by_journey(job["base"] / "scores.parquet", probabilities)
    table = pq.read_table(job["run_dir"] / "evaluation/predictions.parquet")
    same_day = table.filter([str(t)[:10] == TEST_AS_OF for t in table["as_of"].to_pylist()])
    assert same_day.num_rows > 500
    assert set(scored) == set(same_day["journey_id"].to_pylist())
    here = np.array([scored[j] for j in same_day["journey_id"].to_pylist()])
    there = np.column_stack([same_day[p].to_numpy() for p in probabilities])
    np.testing.assert_allclose(here, there, atol=1e-6)
    assert (np.diff(here, axis=1) >= 0).all()
    assert here.std() > 0


def test_scores_carry_the_key_of_every_eligible_customer(job):
    from preprocessing.keys import customer_key, load_key

    scores = pq.read_table(job["base"] / "scores.parquet")
    customers = pq.read_table(job["base"] / "source/customers.parquet").to_pylist()
    key = load_key(job["key"])
    current = {
        c["customer_id"]: c
        for c in sorted(customers, key=lambda c: c["updated_at"])
        if str(c["updated_at"]) < TEST_AS_OF
    }
    eligible = {customer_key(key, i) for i, c in current.items() if c["consent"]}
    assert set(scores["customer_key"].to_pylist()) == eligible
    about = json.loads((job["run_dir"] / "model/parcours.json").read_text())
    assert set(scores["model_version"].to_pylist()) == {about["model_version"]}


def test_every_event_is_accounted_for(job):
    summary = json.loads((job["run_dir"] / "transform/summary.json").read_text())
    events = summary["events"]
    assert events["read"] == pq.ParquetFile(job["base"] / "source/events.parquet").metadata.num_rows
    parts = ("used", "truncated", "outside_windows", "duplicate", "ineligible")
    assert sum(events[part] for part in parts) + sum(events["set_aside"].values()) == events["read"]


def test_no_raw_customer_id_leaves_the_source(job):
    """Every id is C and seven digits: none of them stands in any file of the run, nor in what the commands said."""
    ids = {i.encode() for i in pq.read_table(job["base"] / "source/customers.parquet")["customer_id"].to_pylist()}
    assert len(ids) == 900
    assert all(re.fullmatch(rb"C\d{7}", i) for i in ids)

    def found_in(content):
        return ids.intersection(re.findall(rb"(?=(C\d{7}))", content))

    assert found_in((job["base"] / "source/truth.parquet").read_bytes())  # the search sees what is there
    files = [p for p in job["run_dir"].rglob("*") if p.is_file()] + [job["base"] / "scores.parquet"]
    kinds = {path.parent.relative_to(job["base"]).as_posix() for path in files}
    assert {
        "run/journeys",
        "run/records",
        "run/model/assets",
        "run/evaluation",
        "run/training/checkpoints/best",
    } <= kinds
    for path in files:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        elif path.suffix == ".parquet":
            table = pq.read_table(path)
            texts = [table[name].combine_chunks() for name in table.column_names]
            texts = [values.flatten() if pa.types.is_list(values.type) else values for values in texts]
            content += "\n".join(
                str(v) for values in texts if pa.types.is_string(values.type) for v in values.unique()
            ).encode()
        assert not found_in(content), path
    assert "journeys scored by model" in job["said"]
    assert not found_in(job["said"].encode())


def test_the_run_ends_with_where_things_lie(job):
    said = command("trainer.summary", "--run_dir", job["run_dir"])
    for name in ("model", "evaluation/report.html", "evaluation/metrics.json", "records", "journeys"):
        assert str(job["run_dir"] / name) in said
    assert "LSTM" in said
    assert "Gradient" in said


def test_a_second_preprocessing_does_not_overwrite_unasked(job):
    flags = ("--spec", SPEC, "--events", job["base"] / "source/events.parquet", "--run_dir", job["run_dir"])
    assert "add --overwrite" in command("preprocessing.task", *flags, "--key_file", job["key"], code=2)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--as_of", "soon"), "--as_of: expected a date such as 2026-07-01, got 'soon'"),
        ((), "--as_of: expected a date such as 2026-07-01"),
        (("--as_of", TEST_AS_OF, "--batch_size", 0), "--batch_size: expected 1 or more, got 0"),
        (("--as_of", TEST_AS_OF, "--model", "/nowhere"), "--model /nowhere: no exported model here"),
        (("--as_of", TEST_AS_OF, "--events", "/nowhere.parquet"), "/nowhere.parquet"),
    ],
)
def test_predict_tells_mistakes_in_one_line(job, flags, message):
    output = job["base"] / "none.parquet"
    said = command("deploy.predict", *job["flags"], "--output", output, *flags, code=2)
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not output.exists()
    assert not list(job["base"].glob(".predict-*"))


def test_predict_refuses_a_spec_with_other_fields(job, tmp_path):
    spec = tmp_path / "other.yaml"
    without_campaigns = SPEC.read_text().partition("campaigns:")[0]
    spec.write_text(without_campaigns.replace("[event_type, channel, campaign]", "[event_type, channel]"))
    flags = [spec if flag == SPEC else flag for flag in job["flags"]]
    said = command("deploy.predict", *flags, "--as_of", TEST_AS_OF, "--output", tmp_path / "s.parquet", code=2)
    assert "sequence fields differ from those that" in said
    assert "campaign (categorical)" in said

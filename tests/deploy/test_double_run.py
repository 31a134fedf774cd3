"""The double run as a command: known differences found, every key accounted for, the verdict and its exit code."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deploy import double_run
from preprocessing.cli import UserError
from preprocessing.keys import customer_key
from tests.cloud.bigquery import emulator
from tests.deploy import fake_scorers
from tests.deploy.double_journeys import as_of, journey_id, write_journeys
from tests.job import ROOT, command

COUNT = 1200
THRESHOLDS = """
outcomes: {min_conversions: 50}
quality: {roc_auc: {margin: 0.01}, log_loss: {margin: 0.001}}
pairing: {max_candidate_missing: 0.01, max_incumbent_missing: 0.05}
errors: {max_rate: 0.01}
"""


def converted(i):
    return i * 7919 % 10 < 3


def good(i):
    """A probability that knows the outcome well, and some of its own noise."""
    return (0.6 if converted(i) else 0.2) + (i * 31 % 100) / 400


def poor(i):
    return 0.3 + (i * 17 % 100) / 1000


@pytest.fixture
def place(tmp_path):
    write_journeys(tmp_path / "journeys.parquet", COUNT, converted=converted)
    (tmp_path / "thresholds.yaml").write_text(THRESHOLDS)
    for name, score in (("good", good), ("poor", poor)):
        ids = [journey_id(i) for i in range(COUNT)]
        table = pa.table({"journey_id": ids, "p_7d": [score(i) for i in range(COUNT)]})
        pq.write_table(table.append_column("p_30d", table["p_7d"]), tmp_path / f"{name}.parquet")
    return tmp_path


def flags(place, **changed):
    """The command's flags; None leaves one out."""
    given = {
        "incumbent": place / "poor.parquet",
        "candidate": place / "good.parquet",
        "journeys": place / "journeys.parquet",
        "output": place / "out",
        "thresholds": place / "thresholds.yaml",
        "horizon": 30,
        "gap_days": 0,
        "bootstrap": 30,
    } | changed
    return [str(part) for name, value in given.items() if value is not None for part in (f"--{name}", value)]


def run(place, *more, **changed):
    double_run.main([*flags(place, **changed), *more])
    output = place / "out"
    return [json.loads((output / f"{name}.json").read_text()) for name in ("comparison", "verdict")]


def test_a_better_candidate_goes_and_the_other_way_round_does_not(place):
    comparison, verdict = run(place)
    assert (verdict["verdict"], comparison["journeys"]["paired"]) == ("go", COUNT)
    document = comparison["quality"]["horizons"]["30"]
    assert document["conversions"] == sum(map(converted, range(COUNT)))
    assert document["difference"]["roc_auc"]["verdict"] == "better"
    assert document["difference"]["log_loss"]["verdict"] == "better"
    with pytest.raises(SystemExit) as end:
        run(place, "--fail_unless_go", incumbent=place / "good.parquet", candidate=place / "poor.parquet")
    assert end.value.code == 3
    verdict = json.loads((place / "out/verdict.json").read_text())
    assert (verdict["verdict"], verdict["rule"]) == ("no-go", "quality.roc_auc")


def test_the_figures_are_those_of_scikit_learn(place):
    from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

    comparison, _ = run(place)
    truth = [converted(i) for i in range(COUNT)]
    for side, score in (("incumbent", poor), ("candidate", good)):
        found = comparison["quality"]["horizons"]["30"][side]
        scores = [score(i) for i in range(COUNT)]
        for name, by_sklearn in (
            ("roc_auc", roc_auc_score),
            ("pr_auc", average_precision_score),
            ("log_loss", log_loss),
            ("brier", brier_score_loss),
        ):
            assert found[name]["value"] == pytest.approx(by_sklearn(truth, scores), rel=1e-5)
            assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]


def test_the_slices_part_all_journeys(place):
    comparison, _ = run(place)
    for slices in (comparison["quality"]["lengths"], comparison["quality"]["as_of"]):
        assert sum(one["journeys"] for one in slices) == COUNT
    assert [one["events"] for one in comparison["quality"]["lengths"]] == ["0", "1", "2", "3 to 5"]
    assert [one["as_of"] for one in comparison["quality"]["as_of"]] == ["2026-06-01", "2026-06-15"]


def test_every_key_without_a_partner_is_counted_and_listed(place):
    table = pq.read_table(place / "poor.parquet")
    more = pa.table({"journey_id": ["ghost"], "p_7d": [0.5], "p_30d": [0.5]})
    pq.write_table(pa.concat_tables([table.slice(3), more]), place / "poor.parquet")
    scores = pq.read_table(place / "good.parquet")
    scores = scores.set_column(2, "p_30d", pa.array([good(i) if i != 10 else None for i in range(COUNT)]))
    pq.write_table(scores, place / "good.parquet")
    comparison, verdict = run(place)
    assert comparison["journeys"] | {"source": ""} == {
        "source": "", "split": None, "count": COUNT, "paired": COUNT - 4, "unpaired": 4,
    }  # fmt: skip
    listed = pq.read_table(place / "out/unpaired.parquet").to_pylist()
    assert [(one["side"], one["journey_id"], one["what"]) for one in listed] == [
        ("incumbent", "j0000", "missing"),
        ("incumbent", "j0001", "missing"),
        ("incumbent", "j0002", "missing"),
        ("incumbent", "ghost", "stray"),
        ("candidate", "j0010", "error"),
    ]
    assert listed[1]["customer_key"] == "c0000"
    assert listed[1]["as_of"] == as_of(1)
    pairs = pq.read_table(place / "out/pairs.parquet")
    assert pairs.num_rows == COUNT - 4
    assert pairs["converted_30d"].to_pylist()[:4] == [converted(i) for i in (3, 4, 5, 6)]
    assert verdict["verdict"] == "go"


def test_unknown_outcomes_wait(place):
    write_journeys(place / "journeys.parquet", COUNT, converted=converted, observed=29.9)
    comparison, verdict = run(place)
    assert (verdict["verdict"], verdict["rule"]) == ("wait", "outcomes.min_conversions")
    assert comparison["quality"]["horizons"]["30"]["journeys"] == 0
    assert comparison["quality"]["horizons"]["30"]["not_observed"] == COUNT
    assert comparison["quality"]["horizons"]["7"]["journeys"] == COUNT
    assert comparison["quality"]["horizons"]["30"]["reason"] == "no journey whose outcome is known"
    assert pq.read_table(place / "out/pairs.parquet")["converted_30d"].null_count == COUNT
    assert "no journey whose outcome is known" in (place / "out/report.html").read_text()


def test_an_old_component_with_a_score_that_only_ranks(place):
    """Raw customer ids, one score on a scale of its own: ranking is compared, what needs probabilities is not."""
    key = b"\x11" * 32
    (place / "key").write_text(key.hex())
    (place / "key").chmod(0o600)
    journeys = pq.read_table(place / "journeys.parquet")
    keys = pa.array([customer_key(key, f"client {i // 2}") for i in range(COUNT)])
    pq.write_table(journeys.set_column(1, "customer_key", keys), place / "journeys.parquet")
    rows = "".join(f"client {i // 2},{as_of(i):%Y-%m-%d},{1000 * poor(i) - 500:.1f}\n" for i in range(COUNT))
    (place / "old.csv").write_text("client,day,points\n" + rows)
    columns = [f"--incumbent_column={text}" for text in ("customer_id=client", "as_of=day", "p_30d=points")]
    comparison, verdict = run(
        place, *columns, incumbent=place / "old.csv", incumbent_kind="rank", key_file=place / "key"
    )
    assert comparison["journeys"]["paired"] == COUNT
    assert comparison["horizons_days"] == [30]
    document = comparison["quality"]["horizons"]["30"]
    assert document["incumbent"]["log_loss"] == {
        "value": None, "low": None, "high": None, "null_reason": "its score is a rank, no probability",
    }  # fmt: skip
    assert document["difference"]["roc_auc"]["verdict"] == "better"
    assert comparison["agreement"]["30"]["psi"] is None
    assert comparison["disagreements"]["of"] == "percentile"
    assert next(rule for rule in verdict["rules"] if rule["rule"] == "quality.log_loss")["result"] == "not asked"
    assert verdict["verdict"] == "go"
    assert "client" not in (place / "out/comparison.json").read_text().replace("client,day", "")


def test_the_largest_disagreements_are_those_planted(place):
    table = pq.read_table(place / "good.parquet")
    scores = [poor(i) + (0.5 if i == 77 else -0.2 if i == 5 else 0.0) for i in range(COUNT)]
    pq.write_table(table.set_column(2, "p_30d", pa.array(scores)), place / "good.parquet")
    comparison, _ = run(place)
    first, second = comparison["disagreements"]["journeys"][:2]
    assert (first["journey_id"], first["customer_key"], first["converted"]) == ("j0077", "c0038", converted(77))
    assert first["difference"] == pytest.approx(0.5)
    assert (second["journey_id"], second["as_of"]) == ("j0005", "2026-06-15T00:00:00.000000Z")
    assert len(comparison["disagreements"]["journeys"]) == 20


def test_a_server_beside_an_endpoint_of_vertex(place):
    write_journeys(place / "journeys.parquet", 60)
    with fake_scorers.served() as server:
        server.bad = {"j0004"}
        comparison, _ = run(
            place, incumbent=server.address, candidate=fake_scorers.ENDPOINT, vertex_api_endpoint=server.address,
            latency_requests=5, batch_size=20,
        )  # fmt: skip
    for side in comparison["sides"].values():
        assert side["counts"]["errors"] == 1
        assert side["latency"]["requests"] == 5
        assert side["latency"]["p99_ms"] >= side["latency"]["p50_ms"] > 0
        assert side["timing"]["journeys_per_second"] > 0
    assert comparison["agreement"]["30"]["spearman"] == pytest.approx(1)
    assert comparison["horizons_days"] == [7, 30]


def test_a_bigquery_table_beside_a_file(place, monkeypatch):
    scores = pq.read_table(place / "poor.parquet").rename_columns(["journey", "p_7d", "p_30d"])
    with emulator() as server:
        server.store.put("project.scores.daily", scores)
        server.page = 500
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", server.url)
        source = "bigquery://project.scores.daily"
        comparison, verdict = run(place, "--incumbent_column=journey_id=journey", incumbent=source)
    assert (comparison["journeys"]["paired"], verdict["verdict"]) == (COUNT, "go")
    assert comparison["sides"]["incumbent"]["title"] == "BigQuery table"


def test_costs_enter_the_verdict(place):
    (place / "thresholds.yaml").write_text(THRESHOLDS + "cost: {max_ratio: 1.0}\n")
    _, verdict = run(place)
    assert (verdict["verdict"], verdict["why"]) == ("wait", "no --costs file is given")
    comparison, verdict = run(place, costs=ROOT / "job_configs/double_run_costs.yaml")
    assert verdict["verdict"] == "go"
    assert comparison["cost"]["incumbent"]["monthly"] == 2580
    assert "2,580.00 USD" in (place / "out/report.html").read_text()


def test_the_report_is_one_whole_page(place):
    _, verdict = run(place, costs=ROOT / "job_configs/double_run_costs.yaml")
    page = (place / "out/report.html").read_text()
    assert not re.findall(r"(?:src|href)=[\"'](?!#)(?!data:)[^\"']*|url\((?!#)[^)]*|@import|<script", page)
    assert "Go: the candidate may replace the incumbent." in page
    assert page.count("<svg") == page.count('role="img"') == 3
    assert all(rule["rule"] in page for rule in verdict["rules"])
    assert "Population stability index" in page
    again = page
    run(place, costs=ROOT / "job_configs/double_run_costs.yaml")
    assert (place / "out/report.html").read_text() == again


def test_the_same_model_twice_agrees_to_a_millionth(job, tmp_path):
    """The SavedModel of the main job beside the scores that evaluation wrote of it."""
    out = tmp_path / "out"
    said = command(
        "deploy.double_run", "--incumbent", job["run_dir"] / "evaluation/predictions.parquet",
        "--candidate", job["run_dir"] / "model", "--journeys", job["run_dir"], "--output", out,
        "--bootstrap", 20, "--latency_requests", 10, "--costs", ROOT / "job_configs/double_run_costs.yaml",
    )  # fmt: skip
    comparison = json.loads((out / "comparison.json").read_text())
    assert comparison["journeys"]["paired"] == comparison["journeys"]["count"] > 500
    for found in comparison["agreement"].values():
        assert found["shift"]["largest_difference"] < 1e-6
        assert found["top_decile_overlap"] > 0.999
    assert comparison["sides"]["candidate"]["timing"]["cpu_seconds"] > 0
    assert comparison["cost"]["candidate"]["compute_per_1000"] > 0
    assert comparison["primary_horizon"] == 30
    verdict = json.loads((out / "verdict.json").read_text())
    assert said.splitlines()[-2].startswith(f"{verdict['verdict']}: ") or f"{verdict['verdict']}: " in said
    assert pq.read_table(out / "unpaired.parquet").num_rows == 0
    assert np.isfinite(comparison["sides"]["candidate"]["latency"]["p99_ms"])


def test_a_failed_run_leaves_the_earlier_one_and_nothing_beside_it(place):
    run(place)
    before = (place / "out/verdict.json").read_bytes()
    with pytest.raises(UserError):
        run(place, journeys=place / "none.parquet")
    pq.write_table(pa.table({"journey_id": ["other"], "p_30d": [0.5]}), place / "elsewhere.parquet")
    with pytest.raises(UserError, match=r"not one journey has a score of both sides: .*keys of one key file"):
        run(place, incumbent=place / "elsewhere.parquet")
    assert (place / "out/verdict.json").read_bytes() == before
    assert not list(place.glob(".double-run-*"))
    (place / "mine").mkdir()
    (place / "mine/thesis.txt").touch()
    with pytest.raises(UserError, match="expected a new directory, or that of an earlier run that made verdict"):
        run(place, output=place / "mine")
    assert (place / "mine/thesis.txt").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"horizon": None}, "--horizon: the journeys come without a spec; expected one of 7, 30 days"),
        ({"horizon": 14}, "--horizon: both sides score 7, 30 days, not 14"),
        ({"gap_days": None}, "--gap_days: the journeys come without a spec"),
        ({"gap_days": -1}, "--gap_days: expected days, got -1"),
        ({"bootstrap": -1}, "--bootstrap: expected 0 or more, got -1"),
        ({"timeout": 0}, "--timeout: expected seconds above 0"),
        ({"split": "eval"}, "split eval: no journey; expected at least one"),
        ({"incumbent": "/nowhere.parquet"}, "--incumbent /nowhere.parquet: expected a SavedModel directory, an http"),
        ({"incumbent_column": "p_30d=none"}, "has no column 'none'"),
        ({"thresholds": "/nowhere.yaml"}, "/nowhere.yaml: cannot read the thresholds file"),
        ({"candidate_column": "p_30d"}, "expected NAME=COLUMN"),
    ],
)
def test_mistakes_are_told(place, changed, message):
    with pytest.raises(UserError) as error:
        run(place, **changed)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (place / "out").exists()

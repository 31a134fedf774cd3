"""Tables of scores paired with journeys by hand: keys, duplicates, errors, strays; and the files they come from."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deploy.address import shown
from deploy.population import read_population
from deploy.scores import ERROR, MISSING, UNASKED, from_table, leave_out_unasked
from deploy.sources import kind_of, read_scores
from preprocessing.cli import UserError
from preprocessing.keys import customer_key
from tests.cloud.bigquery import emulator
from tests.deploy.double_journeys import as_of, journey_id, write_journeys


@pytest.fixture
def journeys(tmp_path):
    return read_population(write_journeys(tmp_path / "journeys.parquet", 4), None)


def paired(columns, journeys, kind="probability", key=None):
    return from_table(pa.table(columns), journeys, source="x.parquet", title="table", kind=kind, key=key)


def reason(side, row):
    return side.reasons[side.code[row]]


def test_by_journey_id_whatever_the_order_of_rows(journeys):
    side = paired({"journey_id": ["j0002", "other", "j0000"], "p_30d": [0.2, 0.9, 0.0]}, journeys)
    np.testing.assert_array_equal(side.values[30], [0.0, np.nan, 0.2, np.nan])
    assert reason(side, 1) == (MISSING, "no row in the table")
    assert side.strays.to_pylist() == [
        {"journey_id": "other", "customer_key": None, "as_of": None, "reason": "no such journey"}
    ]
    assert {k: side.counts[k] for k in ("rows", "scored", "missing", "errors", "strays", "journeys")} == {
        "rows": 3, "scored": 2, "missing": 2, "errors": 0, "strays": 1, "journeys": 4,
    }  # fmt: skip


def test_by_customer_and_as_of_in_each_form_of_time(journeys):
    keys = ["c0000", "c0000", "c0001", "c0001"]
    scores = [0.1, 0.2, 0.3, 0.4]
    instants = [as_of(i) for i in range(4)]
    for times in (
        pa.array(instants, pa.timestamp("us", "UTC")),
        pa.array([t.replace(tzinfo=None) for t in instants], pa.timestamp("ns")),
        pa.array([t.date() for t in instants], pa.date32()),
        pa.array([t.isoformat() for t in instants]),
        pa.array([t.astimezone(dt.timezone(dt.timedelta(hours=2))).isoformat() for t in instants]),
        pa.array([f"{t:%Y-%m-%d}" for t in instants]),
    ):
        side = paired({"customer_key": keys, "as_of": times, "p_30d": scores}, journeys)
        np.testing.assert_array_equal(side.values[30], scores)


def test_raw_customer_ids_are_mapped_by_their_key(tmp_path):
    key, path = b"k" * 32, tmp_path / "journeys.parquet"
    write_journeys(path, 2)
    table = pq.read_table(path)
    hashed = pa.array([customer_key(key, "17"), customer_key(key, "17")])
    pq.write_table(table.set_column(table.column_names.index("customer_key"), "customer_key", hashed), path)
    population = read_population(str(path), None)
    columns = {"customer_id": [17, 17], "as_of": [as_of(1), as_of(0)], "p_30d": [0.7, 0.6]}
    np.testing.assert_array_equal(paired(columns, population, key=key).values[30], [0.6, 0.7])
    stray = paired(columns | {"customer_id": [18, 17]}, population, key=key).strays
    assert stray["customer_key"].to_pylist() == [customer_key(key, "18")]
    with pytest.raises(UserError, match="--key_file"):
        paired(columns, population)


def test_repeated_rows_count_once_and_conflicting_ones_not_at_all(journeys):
    ids = ["j0000", "j0000", "j0001", "j0001", "j0002", "j0002"]
    side = paired({"journey_id": ids, "p_30d": [0.1, 0.1, 0.2, 0.3, None, 0.4]}, journeys)
    np.testing.assert_array_equal(side.values[30], [0.1, np.nan, 0.4, np.nan])
    assert reason(side, 1) == (ERROR, "several rows with different scores")
    assert (side.counts["repeated_rows"], side.counts["conflicting_journeys"], side.counts["errors"]) == (3, 1, 1)


def test_scores_that_are_no_probabilities_are_errors_unless_they_only_rank(journeys):
    columns = {"journey_id": [journey_id(i) for i in range(4)], "p_30d": [1.5, np.nan, -0.1, 0.5]}
    side = paired(columns, journeys)
    assert [reason(side, i)[1] for i in range(3)] == [
        "the score is not within [0, 1]", "the score is no number", "the score is not within [0, 1]",
    ]  # fmt: skip
    assert side.counts["reasons"] == {"the score is no number": 1, "the score is not within [0, 1]": 2}
    ranks = paired(columns, journeys, kind="rank")
    np.testing.assert_array_equal(ranks.values[30], [1.5, np.nan, -0.1, 0.5])
    assert ranks.counts["errors"] == 1


def test_a_horizon_without_any_number_is_none_of_this_sides(journeys):
    """The log of a live run has the columns of both sides; a candidate may have fewer horizons."""
    columns = {"journey_id": ["j0000", "j0001"], "p_7d": pa.nulls(2, pa.float64()), "p_30d": [0.1, None]}
    side = paired(columns, journeys)
    assert [*side.values] == [30]
    np.testing.assert_array_equal(side.values[30][:2], [0.1, np.nan])
    assert [*paired(columns | {"p_30d": pa.nulls(2, pa.float64())}, journeys).values] == [7, 30]


def test_a_log_of_a_live_run_brings_latency_and_status(journeys):
    side = paired(
        {
            "journey_id": ["j0000", "j0001", "j0002"],
            "p_30d": [0.1, None, 0.3],
            "status": ["ok", "timeout", "ok"],
            "latency_ms": [10.0, 1000.0, 20.0],
        },
        journeys,
    )
    assert reason(side, 1) == (ERROR, "status: timeout")
    assert side.latency["p50_ms"] == 20.0
    assert side.latency["error_rate"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"journey_id": ["a"], "score": [1.0]}, r"no column p_<days>d; it has journey_id, score; .*p_30d=score"),
        ({"customer_key": ["a"], "p_30d": [1.0]}, "expected journey_id, or customer_key"),
        ({"journey_id": ["a"], "p_30d": ["high"]}, "p_30d: expected numbers"),
        ({"customer_key": ["a"], "as_of": ["June"], "p_30d": [1.0]}, "as_of: expected times or dates"),
    ],
)
def test_a_table_that_cannot_be_paired_is_refused(journeys, columns, message):
    with pytest.raises(UserError, match=message):
        paired(columns, journeys)


def test_customer_and_as_of_must_tell_journeys_apart(tmp_path):
    path = tmp_path / "journeys.parquet"
    write_journeys(path, 2)
    table = pq.read_table(path)
    pq.write_table(table.set_column(2, "as_of", pa.array([as_of(0)] * 2, pa.timestamp("us", "UTC"))), path)
    with pytest.raises(UserError, match="customer and as_of of 1 journeys are another's"):
        paired({"customer_key": ["c0000"], "as_of": ["2026-06-01"], "p_30d": [0.1]}, read_population(str(path), None))


def test_files_with_columns_of_other_names(tmp_path):
    (tmp_path / "old.csv").write_text("client,day,score,note\n007,2026-06-01,0.25,x\n008,2026-06-15,,y\n")
    mapping = ["customer_id=client", "as_of=day", "p_30d=score"]
    table = read_scores("--incumbent", str(tmp_path / "old.csv"), mapping, (0, 0), None)
    assert table.to_pylist() == [
        {"customer_id": "007", "as_of": "2026-06-01", "p_30d": 0.25},
        {"customer_id": "008", "as_of": "2026-06-15", "p_30d": None},
    ]
    for i in range(2):
        pq.write_table(pa.table({"id": [f"j{i}"], "score": [0.5], "p_30d": [0.1]}), tmp_path / f"part-{i}.parquet")
    table = read_scores("--incumbent", str(tmp_path / "part-*.parquet"), ["journey_id=id", "p_30d=score"], (0, 0), None)
    assert table.to_pydict() == {"journey_id": ["j0", "j1"], "p_30d": [0.5, 0.5]}
    with pytest.raises(UserError, match=r"--incumbent_column 'p_30d=nothing': .* has no column 'nothing'; it has"):
        read_scores("--incumbent", str(tmp_path / "old.csv"), ["p_30d=nothing"], (0, 0), None)


def test_every_kind_of_source_is_known_by_its_name(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/saved_model.pb").touch()
    (tmp_path / "s.csv").touch()
    for source, kind in (
        (str(tmp_path / "model"), "saved_model"),
        ("gs://bucket/model", "saved_model"),
        (str(tmp_path / "s.csv"), "table"),
        ("https://scores.example/predict", "http"),
        ("bigquery://p.d.t", "bigquery"),
        ("projects/p/locations/europe-west1/endpoints/42", "vertex"),
    ):
        assert kind_of("--incumbent", source) == kind
    for wrong in ("http://[::1/x", "http://host:abc/x", "https:///x"):
        with pytest.raises(UserError, match="--incumbent: no address of a server; expected one such as"):
            kind_of("--incumbent", wrong)
    for wrong in ("bigquery://p.d", str(tmp_path / "none.parquet"), str(tmp_path)):
        with pytest.raises(UserError, match=r"--incumbent .*expected"):
            kind_of("--incumbent", wrong)
    assert shown("https://me:secret@host:80/predict?token=x") == "https://host:80/predict"


def test_journeys_that_were_never_mirrored_count_against_nobody(journeys):
    def log(names, status):
        scores = [0.1 if one == "ok" else None for one in status]
        columns = {"journey_id": names, "p_30d": pa.array(scores, pa.float64()), "status": status}
        return paired(columns, journeys)

    sides = {
        "incumbent": log(["j0000", "j0001"], ["ok", "ok"]),
        "candidate": log(["j0000", "j0002"], ["ok", "timeout"]),
    }
    assert leave_out_unasked(sides) == 1  # j0003; the others are in one log at least
    assert reason(sides["candidate"], 3) == (UNASKED, "in neither log: it was not mirrored")
    counts = sides["candidate"].counts
    assert {name: counts[name] for name in ("journeys", "scored", "missing", "errors")} == {
        "journeys": 3, "scored": 1, "missing": 1, "errors": 1,
    }  # fmt: skip
    # a plain table owes every journey
    sides["incumbent"] = paired({"journey_id": ["j0000"], "p_30d": [0.1]}, journeys)
    assert leave_out_unasked(sides) == 0


def test_bigquery_reads_its_columns_and_the_window_only(monkeypatch, journeys):
    times = [as_of(0), as_of(1), as_of(0), dt.datetime(2020, 1, 1, tzinfo=dt.UTC)]
    scores = pa.table(
        {
            "customer_key": ["c0000", "c0000", "c0001", "c0001"],
            "as_of": pa.array(times, pa.timestamp("us", "UTC")),
            "risk": [0.1, 0.2, 0.3, 0.4],
            "comment": ["a", "b", "c", "d"],
        }
    )
    window = (int(as_of(0).timestamp() * 1e6), int(as_of(1).timestamp() * 1e6))
    with emulator() as server:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", server.url)
        server.store.put("p.d.t", scores)
        server.page = 2
        table = read_scores("--incumbent", "bigquery://p.d.t", ["p_30d=risk"], window, None)
        side = paired({name: table[name] for name in table.column_names}, journeys)
        np.testing.assert_array_equal(side.values[30], [0.1, 0.2, 0.3, np.nan])
        assert side.counts["rows"] == 3  # 2020 is outside the window: neither read nor a stray
        (job,) = server.jobs.values()
        assert "comment" not in job.configuration["query"]["query"]
        with pytest.raises(UserError, match=r"--incumbent bigquery://p\.d\.none: Not found"):
            read_scores("--incumbent", "bigquery://p.d.none", [], window, None)

"""The true probabilities of simulated customers: what is refused of them, by file, column and count."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocessing.cli import UserError
from trainer.joins import require_truth, true_probabilities
from trainer.outcomes import Outcomes

DAY_US = 86_400_000_000
TEST = Outcomes(  # of the last journey nothing is known at 30 days
    journey_id=pa.array(["j1", "j2", "j3"]),
    customer_key=pa.array(["a", "b", "a"]),
    as_of=np.array([0, 0, DAY_US]),
    held_out=np.zeros(3, bool),
    days=np.array([3.0, math.inf, math.inf]),
    observed=np.array([40.0, 40.0, 20.0]),
    length=np.ones(3, np.int64),
)
COLUMNS = {
    "customer_key": pa.array(["b", "a", "a", "c"]),
    "as_of": pa.array([0, DAY_US, 0, 0], pa.timestamp("us", "UTC")),
    "p_7d": pa.array([0.25, 0.5, 1.0, 0.0]),
    "p_30d": pa.array([0.5, None, 1.0, None]),
}


def written(tmp_path, **changes):
    columns = {name: column for name, column in (COLUMNS | changes).items() if column is not None}
    pq.write_table(pa.table(columns), tmp_path / "truth.parquet")
    return tmp_path / "truth.parquet"


def looked_at(truth):
    require_truth(truth, TEST, (7, 30), 0, "--truth truth.parquet")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"as_of": COLUMNS["as_of"].cast(pa.timestamp("ns"))},
        {"customer_key": COLUMNS["customer_key"].dictionary_encode()},
        {"p_7d": pa.array([0.25, 0.5, 1.0, 0.0], pa.float32())},
    ],
)
def test_the_journeys_in_their_order_and_null_where_nothing_is_known(tmp_path, changes):
    truth = written(tmp_path, **changes)
    looked_at(truth)
    notes = []
    found = true_probabilities(truth, TEST, (7, 30, 60), notes)
    np.testing.assert_array_equal(found[7], [1.0, 0.25, 0.5])
    np.testing.assert_array_equal(found[30], [1.0, 0.5, np.nan])
    assert notes == ["The truth has no p_60d: no oracle at 60 days."]
    assert found[7].dtype == np.float64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"customer_key": None}, "no column 'customer_key'; expected customer_key, as_of and p_7d, p_30d"),
        ({"p_7d": None, "p_30d": None}, "no column 'p_7d'; expected customer_key, as_of and p_7d, p_30d"),
        ({"customer_key": pa.array([1, 2, 3, 4])}, "column customer_key: expected text, found int64"),
        ({"as_of": pa.array(["2026"] * 4)}, "column as_of: expected a timestamp, found string"),
        ({"p_7d": pa.array(["0.2"] * 4)}, "column p_7d: expected a number from 0 to 1, found string"),
        ({"customer_key": pa.array(["a", None, "b", None])}, "column customer_key: 2 of 4 values are null"),
        ({"as_of": pa.array([0, None, 1, 2], pa.timestamp("us"))}, "column as_of: 1 of 4 values are null"),
        ({"as_of": pa.array([0, 1, 2, 3], pa.timestamp("ns"))}, "column as_of: expected whole microseconds"),
        ({"p_30d": pa.array([0.5, math.nan, 1.0, None])}, "column p_30d: 1 of 4 values are no number from 0 to 1"),
        ({"p_7d": pa.array([-0.1, 1.1, math.inf, 0.0])}, "column p_7d: 3 of 4 values are no number from 0 to 1"),
        ({"customer_key": pa.array(["b", "a", "b", "c"])}, "a customer_key has two rows for one as_of"),
        (
            {"p_30d": pa.array([0.5, None, None, None])},
            "p_30d is null for 1 of 2 test journeys that are observed for 30 days",
        ),
    ],
)
def test_what_is_no_truth_is_named(tmp_path, changes, message):
    with pytest.raises(UserError) as refused:
        looked_at(written(tmp_path, **changes))
    assert str(refused.value).startswith(f"--truth truth.parquet: {message}")
    assert "\n" not in str(refused.value)


def test_a_gap_counts_to_what_must_be_observed(tmp_path):
    truth = written(tmp_path, p_30d=pa.array([None] * 4, pa.float64()))
    require_truth(truth, TEST, (7, 30), 20, "truth")  # 50 days were watched of nobody
    with pytest.raises(UserError, match="null for 2 of 2 test journeys that are observed for 40 days"):
        require_truth(truth, TEST, (7, 30), 10, "truth")

"""Ready-made journeys: what their first events are, and what is no journey."""

import datetime as dt

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocessing import keys
from preprocessing.cli import UserError
from preprocessing.journeys import build_journeys
from preprocessing.spec import parse_spec

KEY = bytes(range(32))
READY = """
journeys: {table: sessions, journey: sid, label: bought, where: whole, split: {column: part, eval: val}}
events:   {table: clicks, journey: sid, seconds: t, order: nr, first: 3}
sequence: {categorical: [page], max_events: 2}
privacy:  {min_customers: 1}
"""


def sessions(folder, rows, clicks):
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "sessions.parquet")
    pq.write_table(pa.Table.from_pylist(clicks), folder / "clicks.parquet")
    (folder / "output").mkdir()
    return str(folder / "clicks.parquet"), folder / "output"


SESSION = {"sid": 1, "bought": 1, "whole": True, "part": "train"}
CLICKS = [
    {"sid": 1, "t": t, "nr": nr, "page": page}
    for t, nr, page in [(0.5, 1, "b"), (0.5, 0, "a"), (9.0, 0, "d"), (2.25, 0, "c")]
]


def test_ready_made_journeys_see_their_first_events(tmp_path):
    source, output = sessions(tmp_path, [SESSION, SESSION | {"sid": 2, "part": "val", "bought": 0}], CLICKS)
    summary = build_journeys(parse_spec(READY), source, output, KEY, progress=False)
    rows = {r["customer_key"]: r for r in pq.read_table(next(iter(output.glob("part*")))).to_pylist()}
    one, two = (rows[keys.customer_key(KEY, sid)] for sid in "12")
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    assert one["page"] == ["b", "c"]  # a, b, c are the first three, of which the last two are kept
    assert one["as_of"] == epoch + dt.timedelta(seconds=2.25) + dt.timedelta(microseconds=1)
    assert (one["days_to_conversion"], one["observed_days"], one["split"]) == (0.0, 1.0, "train")
    assert (two["page"], two["as_of"], two["days_to_conversion"], two["split"]) == (
        [],
        epoch + dt.timedelta(microseconds=1),
        None,
        "eval",
    )
    assert summary["events"]["truncated"] == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([SESSION, SESSION], "sessions.parquet: journeys.journey: 1 rows repeat the 'sid' of another"),
        ([SESSION | {"bought": 2}], "sessions.parquet: journeys.label: 1 rows whose 'bought' is neither 0 nor 1"),
        ([SESSION, SESSION | {"sid": 2, "bought": None}], "journeys.label: 1 rows whose 'bought'"),
        ([SESSION | {"bought": 0.5}], "journeys.label: column 'bought' is FLOAT64; expected BOOL or INT64"),
        ([SESSION | {"whole": 3}], "journeys.where: expected a condition, true or false; whole is INT64"),
    ],
)
def test_ready_made_journeys_that_are_none(tmp_path, rows, message):
    source, output = sessions(tmp_path, rows, CLICKS)
    with pytest.raises(UserError, match="sessions") as caught:
        build_journeys(parse_spec(READY), source, output, KEY, progress=False)
    assert message in str(caught.value)


def test_ready_made_journeys_are_predicted_without_label_and_split(tmp_path):
    source, output = sessions(tmp_path, [{"sid": 1, "whole": True}, {"sid": 2, "whole": False}], CLICKS)
    summary = build_journeys(parse_spec(READY), source, output, KEY, predict=True, progress=False)
    assert summary["journeys"] == {"considered": 2, "kept": {"predict": 1}, "dropped": {"ineligible": 1}}

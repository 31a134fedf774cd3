"""Frames in a notebook: pandas, Polars and Arrow make the very journeys and scores that files make."""

import datetime as dt

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from deploy.frames import scores
from preprocessing import frames
from preprocessing.cli import UserError
from tests.job import SPEC, TEST_AS_OF

TABLES = ("events", "customers", "assignments")


def read(job, kind):
    """The main job's source tables as frames of one library."""
    made = {
        "pandas": pd.read_parquet,
        "polars": pl.read_parquet,
        "arrow": pq.read_table,
    }[kind]
    return {name: made(job["base"] / f"source/{name}.parquet") for name in TABLES}


def by_id(table):
    return table.sort_by("journey_id").to_pylist()


def flat(column):
    """A column's values, those of lists one after the other, for a comparison in which NaN equals itself."""
    values = column.combine_chunks()
    return (values.flatten() if pa.types.is_list(values.type) else values).to_numpy(zero_copy_only=False)


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_scores_of_frames_are_those_of_files(job, kind):
    flags = (f"--key_file={job['key']}", f"--as_of={TEST_AS_OF}")
    found = scores(job["run_dir"] / "model", SPEC, read(job, kind), *flags)
    expected = pq.read_table(job["base"] / "scores.parquet")
    assert found.num_rows > 500
    assert by_id(found) == by_id(expected)
    assert pl.from_arrow(found).height == len(found.to_pandas()) == found.num_rows


def test_journeys_of_frames_are_those_of_files(job):
    found = frames.journeys(SPEC, read(job, "polars"), key_file=str(job["key"]))
    parts = sorted((job["run_dir"] / "journeys").glob("part-*.parquet"))
    expected = pa.concat_tables([pq.read_table(part) for part in parts])
    assert found.schema.equals(expected.schema)
    assert found.num_rows > 1000
    found, expected = found.sort_by("journey_id"), expected.sort_by("journey_id")
    for name in expected.column_names:
        np.testing.assert_array_equal(flat(found[name]), flat(expected[name]), err_msg=name)
        lists = [table[name] for table in (found, expected)]
        if pa.types.is_list(lists[0].type):
            assert pc.list_value_length(lists[0]).equals(pc.list_value_length(lists[1]))


SPEC_OF_ONE = """
events:      {customer: who, time: at}
sequence:    {categorical: [what]}
conversion:  {where: "what = 'buy'", horizons_days: [7], primary_horizon: 7}
snapshots:   {dates: [2026-01-20, 2026-02-10, 2026-03-10], lookback_days: 60}
data_until:  2026-04-01
split:       {eval_from: 2026-02-01, test_from: 2026-03-01}
privacy:     {min_customers: 1}
"""


@pytest.fixture
def spec(tmp_path, monkeypatch):
    path, key = tmp_path / "spec.yaml", tmp_path / "customer.key"
    path.write_text(SPEC_OF_ONE)
    key.write_text("5a" * 32)
    key.chmod(0o600)
    monkeypatch.setenv("PARCOURS_KEY_FILE", str(key))
    return path


def visits(kind):
    rows = {
        "who": ["a", "b", "a", "b"],
        "at": [dt.datetime(2026, 1, d, 9, 30, 15, 123456) for d in (5, 6, 7, 22)],
        "what": ["look", "look", "buy", "buy"],
    }
    if kind == "polars":
        return pl.DataFrame(rows).with_columns(pl.col("what").cast(pl.Categorical))
    frame = pd.DataFrame(rows).astype({"what": "category"})
    return frame.assign(at=frame["at"].astype("datetime64[ns]")).set_index(pd.Index([9, 7, 5, 3]))


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_one_frame_is_the_events_with_categories_and_nanoseconds(spec, kind):
    found = frames.journeys(spec, visits(kind))
    (first,) = [one for one in found.to_pylist() if one["days_to_conversion"] is not None]
    assert first["what"] == ["look"]
    assert first["event_time"] == [dt.datetime(2026, 1, 6, 9, 30, 15, 123456, dt.UTC)]


def test_journeys_to_be_predicted_have_no_label(spec):
    found = frames.journeys(spec, visits("polars"), as_of=dt.datetime(2026, 2, 1, tzinfo=dt.UTC))
    assert found["split"].to_pylist() == ["predict"] * 2
    assert found["days_to_conversion"].null_count == 2


def test_what_is_wrong_names_the_frame(spec):
    with pytest.raises(UserError, match=r"^frame events: events.time: no column 'at'"):
        frames.journeys(spec, visits("pandas").rename(columns={"at": "when"}))
    with pytest.raises(UserError, match=r"^frame events: expected one of pandas, Polars or Arrow"):
        frames.journeys(spec, [("a", 1)])
    with pytest.raises(UserError, match=r"^frame events: events.table: no such table; expected events"):
        frames.journeys(spec, {"visits": visits("polars")})
    with pytest.raises(UserError, match="a frame's name"):
        frames.journeys(spec, {"../visits": visits("polars")})
    with pytest.raises(UserError, match="frame events: column 'who': no table of plain values"):
        frames.journeys(spec, pd.DataFrame({"who": ["a", 1]}))
    with pytest.raises(UserError) as told:
        frames.journeys(spec, pd.DataFrame({"who": [1, "jane.doe@example.com"]}))
    assert "who" in str(told.value) and "jane" not in str(told.value)


def test_a_run_directory_is_refused_like_the_command_does(job):
    with pytest.raises(UserError, match="already holds records; add --overwrite"):
        frames.prepare(SPEC, read(job, "arrow"), job["run_dir"], f"--key_file={job['key']}")

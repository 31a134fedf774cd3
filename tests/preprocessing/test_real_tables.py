"""The specs of job_configs/journeys on the published tables: as many journeys and conversions as were published."""

import datetime as dt
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from preprocessing.journeys import build_journeys
from preprocessing.journeys_schema import journeys_schema
from preprocessing.spec import load_spec

KEY = bytes(range(32))
DATA = Path(__file__).resolve().parents[3] / "shared/data"
SPECS = Path(__file__).resolve().parents[2] / "job_configs/journeys"


@pytest.mark.parametrize(
    ("name", "table", "counts"),
    [
        ("online_retail", "online_retail_events", {"train": 15501, "eval": 2892, "test": 7590}),
        ("clickstream", "clickstreamdmm_events", {"train": 13724, "eval": 5256, "test": 5256}),
        ("completejourney", "completejourney_events", {"train": 2406, "eval": 444, "test": 3739}),
    ],
)
def test_real_tables_give_the_published_journeys(tmp_path, name, table, counts):
    source = DATA / f"{table}.parquet"
    if not source.exists():
        pytest.skip(f"REAL DATA ABSENT: {source} is not there, so the counts of {name} are NOT checked")
    spec = load_spec(SPECS / f"{name}.yaml")
    output = tmp_path / "output"
    output.mkdir()
    summary = build_journeys(spec, str(source), output, KEY, progress=False)
    assert summary["journeys"]["kept"] == counts
    table = pq.read_table(next(iter(output.glob("part*"))))
    assert table.schema.equals(journeys_schema(spec))
    rows = table.select(["split", "as_of", "days_to_conversion", "observed_days"]).to_pylist()
    horizon = spec.horizons_days[-1]
    assert all(row["observed_days"] >= horizon for row in rows)

    def rate(*parts, day=None):
        found = [r for r in rows if r["split"] in parts and (day is None or r["as_of"].date() == day)]
        positive = sum(r["days_to_conversion"] is not None and r["days_to_conversion"] < horizon for r in found)
        return len(found), round(100 * positive / len(found), 1)

    if name == "online_retail":
        assert rate("test", day=dt.date(2011, 10, 1)) == (3616, 27.0)
        assert rate("test", day=dt.date(2011, 11, 1)) == (3974, 33.7)
    elif name == "clickstream":
        assert rate("train", "eval", "test") == (24236, 22.7)
    else:
        assert rate("train", "eval") == (2850, 9.8)
        assert rate("test") == (3739, 13.7)

"""job_configs/journeys/ga4.yaml on rows of the documented export: every field of a journey, worked out by hand."""

from __future__ import annotations

import datetime as dt
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocessing import building, keys
from preprocessing.spec import load_spec
from preprocessing.warehouse import Warehouse
from tests.cloud import ga4
from tests.cloud.bigquery import BigQuery
from tests.job import ROOT

SPEC = ROOT / "job_configs/journeys/ga4.yaml"
KEY = bytes(range(32))
AS_OF = dt.datetime(2026, 7, 6, tzinfo=dt.UTC)


def before(days=0, **more):
    return AS_OF - dt.timedelta(days=days, **more)


def shopper(user="1234.5678"):
    """A newsletter brings a shopper back, who puts something into the cart, and buys after the as_of."""
    cart = [{"item_id": "S1", "item_category": "Shoes", "price": 80.0, "quantity": 1}]
    first = ("google", "organic", "(organic)")
    told = {"first": first, "device": "desktop"}
    return [
        ga4.event(user, before(20), "session_start", campaign=("news", "email", "july_sale"), **told),
        ga4.event(
            user,
            before(20),
            "page_view",
            index=2,
            params={"page_location": "https://shop/", "engagement_time_msec": 4000},
            **told,
        ),
        ga4.event(user, before(20), "scroll", index=3, **told),
        ga4.event(user, before(19), "add_to_cart", items=cart, **told),
        ga4.event(user, before(19), "refund", index=2, **told) | {"ecommerce": {"refund_value": 15.0}},
        ga4.event(user, before(-3), "purchase", items=cart, revenue=80.0, **told),
    ]


def others():
    """Enough train customers that no value of the shopper's is rare, one visit each in March."""
    rows = []
    for i in range(25):
        rows += [
            {**row, "event_timestamp": row["event_timestamp"] - 120 * 86_400_000_000, "event_date": f"{at:%Y%m%d}"}
            for row in shopper(f"train{i}")
            for at in [dt.datetime.fromtimestamp(row["event_timestamp"] / 1e6 - 120 * 86_400, dt.UTC)]
        ]
    return rows


@pytest.fixture
def export(cloud):
    """An analytics_… dataset of day tables, one of another year and one after data_until, and an intraday table."""
    store = cloud.service(BigQuery).store
    stray = [ga4.event("1234.5678", dt.datetime(2025, 3, 1, tzinfo=dt.UTC), "purchase", revenue=1.0)]
    later = [ga4.event("1234.5678", dt.datetime(2026, 10, 3, tzinfo=dt.UTC), "purchase", revenue=1.0)]
    for name, rows in ga4.day_tables([*shopper(), *others(), *stray, *later]).items():
        store.put(f"shop.analytics_1.{name}", rows)
    store.put("shop.analytics_1.events_intraday_20260930", next(iter(ga4.day_tables(stray).values())))
    inner, outer = keys.pads(KEY)
    store.put("secret.keys.pads", pa.table({"inner_pad": [inner], "outer_pad": [outer]}))
    return cloud.service(BigQuery)


def build(folder):
    warehouse = Warehouse(pads="bigquery://secret.keys.pads", beam=("--runner=FnApiRunner",))
    folder.mkdir()
    summary = building.build(load_spec(SPEC), "bigquery://shop.analytics_1", folder, warehouse)
    return pq.ParquetDataset(sorted(folder.glob("part-*.parquet"))).read().to_pylist(), summary


def test_every_field_of_a_journey_from_the_export(export, tmp_path):
    rows, summary = build(tmp_path / "journeys")
    customer = keys.customer_key(KEY, "1234.5678")
    (row,) = [row for row in rows if row["as_of"] == AS_OF and row["customer_key"] == customer]
    # scroll is left out; the order within one instant is that of batch_event_index
    assert row["event_name"] == ["session_start", "page_view", "add_to_cart", "refund"]
    assert row["event_time"] == [before(20), before(20), before(19), before(19)]
    assert row["campaign"] == ["july_sale", "", "", ""]
    assert row["channel"] == ["email", "", "", ""]
    assert row["category"] == ["", "", "Shoes", ""]
    assert row["device"] == ["desktop"] * 4 and row["country"] == ["France"] * 4
    assert row["first_channel"] == ["organic"] * 4
    assert [None if math.isnan(x) else x for x in row["revenue"]] == [None, None, None, -15.0]
    assert [None if math.isnan(x) else x for x in row["engagement_ms"]] == [None, 4000.0, None, None]
    assert (row["split"], row["days_to_conversion"]) == ("test", 3.0)
    # 26 shoppers of five events each, and what came after data_until; last year's and the intraday table are not read
    assert summary["events"]["read"] == 26 * 5 + 1
    assert summary["events"]["set_aside"] == {}

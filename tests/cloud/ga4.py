"""Rows of the Google Analytics 4 export, in the schema that Google documents ("BigQuery Export schema")."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa

_VALUE = pa.struct(
    [
        ("string_value", pa.string()),
        ("int_value", pa.int64()),
        ("float_value", pa.float64()),
        ("double_value", pa.float64()),
    ]
)
_PARAMS = pa.list_(pa.struct([("key", pa.string()), ("value", _VALUE)]))
_CAMPAIGN = [
    ("manual_campaign_id", pa.string()),
    ("manual_campaign_name", pa.string()),
    ("manual_source", pa.string()),
    ("manual_medium", pa.string()),
    ("manual_term", pa.string()),
    ("manual_content", pa.string()),
    ("manual_creative_format", pa.string()),
    ("manual_marketing_tactic", pa.string()),
    ("manual_source_platform", pa.string()),
    ("gclid", pa.string()),
    ("dclid", pa.string()),
    ("srsltid", pa.string()),
]
_ITEM = [
    *((name, pa.string()) for name in ("item_id", "item_name", "item_brand", "item_variant", "item_category")),
    ("price_in_usd", pa.float64()),
    ("price", pa.float64()),
    ("quantity", pa.int64()),
    ("item_revenue_in_usd", pa.float64()),
    ("item_revenue", pa.float64()),
    *((name, pa.string()) for name in ("coupon", "affiliation", "location_id", "item_list_id", "item_list_name")),
    *((name, pa.string()) for name in ("promotion_id", "promotion_name", "creative_name", "creative_slot")),
]
SCHEMA = pa.schema(
    [
        ("event_date", pa.string()),
        ("event_timestamp", pa.int64()),
        ("event_name", pa.string()),
        ("event_params", _PARAMS),
        ("event_previous_timestamp", pa.int64()),
        ("event_value_in_usd", pa.float64()),
        ("event_bundle_sequence_id", pa.int64()),
        ("event_server_timestamp_offset", pa.int64()),
        ("user_id", pa.string()),
        ("user_pseudo_id", pa.string()),
        (
            "privacy_info",
            pa.struct([(n, pa.string()) for n in ("analytics_storage", "ads_storage", "uses_transient_token")]),
        ),
        ("user_properties", _PARAMS),
        ("user_first_touch_timestamp", pa.int64()),
        ("user_ltv", pa.struct([("revenue", pa.float64()), ("currency", pa.string())])),
        (
            "device",
            pa.struct(
                [
                    ("category", pa.string()),
                    ("mobile_brand_name", pa.string()),
                    ("operating_system", pa.string()),
                    ("language", pa.string()),
                    ("web_info", pa.struct([("browser", pa.string()), ("hostname", pa.string())])),
                ]
            ),
        ),
        ("geo", pa.struct([(n, pa.string()) for n in ("continent", "country", "region", "city")])),
        ("traffic_source", pa.struct([(n, pa.string()) for n in ("name", "medium", "source")])),
        ("stream_id", pa.string()),
        ("platform", pa.string()),
        (
            "ecommerce",
            pa.struct(
                [
                    ("total_item_quantity", pa.int64()),
                    ("purchase_revenue_in_usd", pa.float64()),
                    ("purchase_revenue", pa.float64()),
                    ("refund_value_in_usd", pa.float64()),
                    ("refund_value", pa.float64()),
                    ("shipping_value", pa.float64()),
                    ("tax_value", pa.float64()),
                    ("unique_items", pa.int64()),
                    ("transaction_id", pa.string()),
                ]
            ),
        ),
        ("items", pa.list_(pa.struct(_ITEM))),
        ("collected_traffic_source", pa.struct(_CAMPAIGN)),
        ("is_active_user", pa.bool_()),
        ("batch_event_index", pa.int64()),
    ]
)


def param(key: str, value: Any) -> dict[str, Any]:
    """An event parameter: text, whole number or fraction, each in its own place."""
    kind = {str: "string_value", int: "int_value", float: "double_value"}[type(value)]
    return {"key": key, "value": {kind: value}}


def event(user: str | None, at: dt.datetime, name: str, *, index: int = 1, **more: Any) -> dict[str, Any]:
    """A row. more: `params` as {key: value}, `items`, `revenue`, `campaign` as (source, medium, name), `first` as the
    same of the user's first visit, `device`, `country`."""
    made: dict[str, Any] = {
        "event_date": f"{at:%Y%m%d}",
        "event_timestamp": int(at.timestamp() * 1_000_000),
        "event_name": name,
        "event_params": [param(key, value) for key, value in {"ga_session_id": 1, **more.get("params", {})}.items()],
        "user_pseudo_id": user,
        "user_properties": [],
        "device": {"category": more.get("device", "mobile")},
        "geo": {"country": more.get("country", "France")},
        "platform": "WEB",
        "items": more.get("items", []),
        "is_active_user": True,
        "batch_event_index": index,
    }
    if "revenue" in more:
        made["ecommerce"] = {"purchase_revenue": more["revenue"], "transaction_id": f"T{index}"}
    if "campaign" in more:
        source, medium, campaign = more["campaign"]
        made["collected_traffic_source"] = {
            "manual_source": source,
            "manual_medium": medium,
            "manual_campaign_name": campaign,
        }
    if "first" in more:
        source, medium, campaign = more["first"]
        made["traffic_source"] = {"source": source, "medium": medium, "name": campaign}
    return made


def day_tables(rows: list[dict[str, Any]]) -> dict[str, pa.Table]:
    """{events_YYYYMMDD: its rows}."""
    by_day: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_day.setdefault(f"events_{row['event_date']}", []).append(row)
    return {name: pa.Table.from_pylist(own, schema=SCHEMA) for name, own in by_day.items()}

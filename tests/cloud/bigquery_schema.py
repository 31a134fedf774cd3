"""BigQuery's types: REST schemas to DuckDB, Arrow and Avro, values to the cells of JSON answers, and logical sizes.

As cloud.google.com/bigquery/docs/reference/rest/v2/tables#TableFieldSchema, …/docs/reference/storage (Arrow and Avro
schema details) and …/pricing#data (the size of a value) have them.
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

Field = dict[str, Any]

_STANDARD = {
    **{"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN", "STRUCT": "RECORD"},
    **{"DECIMAL": "NUMERIC", "BIGDECIMAL": "BIGNUMERIC"},
}
_DUCKDB = {
    **{"STRING": "VARCHAR", "BYTES": "BLOB", "INTEGER": "BIGINT", "FLOAT": "DOUBLE", "BOOLEAN": "BOOLEAN"},
    **{"TIMESTAMP": "TIMESTAMPTZ", "DATE": "DATE", "TIME": "TIME", "DATETIME": "TIMESTAMP", "JSON": "VARCHAR"},
    **{"NUMERIC": "DECIMAL(38,9)", "BIGNUMERIC": "DECIMAL(38,18)"},
}
_ARROW = {
    **{"STRING": pa.string(), "BYTES": pa.binary(), "INTEGER": pa.int64(), "FLOAT": pa.float64()},
    **{"BOOLEAN": pa.bool_(), "TIMESTAMP": pa.timestamp("us", "UTC"), "DATE": pa.date32(), "TIME": pa.time64("us")},
    **{"DATETIME": pa.timestamp("us"), "JSON": pa.string(), "NUMERIC": pa.decimal128(38, 9)},
    "BIGNUMERIC": pa.decimal128(38, 18),
}
_AVRO: dict[str, Any] = {
    **{"STRING": "string", "BYTES": "bytes", "INTEGER": "long", "FLOAT": "double", "BOOLEAN": "boolean"},
    "TIMESTAMP": {"type": "long", "logicalType": "timestamp-micros"},
    "DATE": {"type": "int", "logicalType": "date"},
    "TIME": {"type": "long", "logicalType": "time-micros"},
    "DATETIME": {"type": "string", "sqlType": "DATETIME"},
    "JSON": {"type": "string", "sqlType": "JSON"},
    "NUMERIC": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 9},
    "BIGNUMERIC": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 18},
}


def kind_of(field: Field) -> str:
    """The type by its legacy name, in which the API answers."""
    kind = field["type"].upper()
    return _STANDARD.get(kind, kind)


def is_repeated(field: Field) -> bool:
    return bool(field.get("mode") == "REPEATED")


def normal(fields: Iterable[Field]) -> list[Field]:
    """Fields as the API gives them back: legacy type names, a mode everywhere."""
    made = []
    for field in fields:
        one = {**field, "type": kind_of(field), "mode": field.get("mode", "NULLABLE").upper()}
        if kind_of(field) == "RECORD":
            one["fields"] = normal(field["fields"])
        made.append(one)
    return made


def quoted(name: str) -> str:
    """A column's name in DuckDB."""
    return '"' + name.replace('"', '""') + '"'


def duckdb_type(field: Field) -> str:
    if kind_of(field) == "RECORD":
        inner = ", ".join(f"{quoted(sub['name'])} {duckdb_type(sub)}" for sub in field["fields"])
        return f"STRUCT({inner})" + "[]" * is_repeated(field)
    return _DUCKDB[kind_of(field)] + "[]" * is_repeated(field)


def arrow_field(field: Field) -> pa.Field:
    kind = (
        pa.struct([arrow_field(sub) for sub in field["fields"]])
        if kind_of(field) == "RECORD"
        else _ARROW[kind_of(field)]
    )
    if is_repeated(field):
        return pa.field(field["name"], pa.list_(pa.field("item", kind)), nullable=False)
    return pa.field(field["name"], kind, nullable=field.get("mode") != "REQUIRED")


def arrow_schema(fields: Iterable[Field]) -> pa.Schema:
    return pa.schema([arrow_field(field) for field in fields])


def avro_schema(fields: Iterable[Field], name: str = "__root__") -> dict[str, Any]:
    """Nullable columns are unions with null, repeated ones arrays; nested records bear names that are theirs alone."""
    made = []
    for field in fields:
        own = f"{name}_{field['name']}" if name != "__root__" else f"__s_{field['name']}"
        kind = avro_schema(field["fields"], own) if kind_of(field) == "RECORD" else _AVRO[kind_of(field)]
        if is_repeated(field):
            kind = {"type": "array", "items": kind}
        elif field.get("mode") != "REQUIRED":
            kind = ["null", kind]
        made.append({"name": field["name"], "type": kind})
    return {"type": "record", "name": name, "fields": made}


def datetimes_as_text(value: Any) -> Any:
    """A value as Avro takes it: DATETIME travels as text."""
    if isinstance(value, list):
        return [datetimes_as_text(one) for one in value]
    if isinstance(value, dict):
        return {name: datetimes_as_text(one) for name, one in value.items()}
    return value.isoformat() if isinstance(value, dt.datetime) and value.tzinfo is None else value


def fields_of(schema: pa.Schema) -> list[Field]:
    """The REST schema of a query's result."""
    return [_field(field.name, field.type) for field in schema]


def _field(name: str, kind: pa.DataType) -> Field:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return {**_field(name, kind.value_type), "mode": "REPEATED"}
    if pa.types.is_struct(kind):
        return {"name": name, "type": "RECORD", "mode": "NULLABLE", "fields": [_field(f.name, f.type) for f in kind]}
    return {"name": name, "type": _scalar(kind), "mode": "NULLABLE"}


def _scalar(kind: pa.DataType) -> str:  # noqa: PLR0911 - a type a line
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP" if kind.tz else "DATETIME"
    if pa.types.is_decimal(kind):  # DuckDB sums BIGINT to HUGEINT, which is INT64 in BigQuery
        return "NUMERIC" if kind.scale else "INTEGER"
    if pa.types.is_integer(kind) or pa.types.is_null(kind):  # NULL alone is INT64
        return "INTEGER"
    if pa.types.is_floating(kind):
        return "FLOAT"
    if pa.types.is_boolean(kind):
        return "BOOLEAN"
    if pa.types.is_date(kind):
        return "DATE"
    if pa.types.is_time(kind):
        return "TIME"
    return "BYTES" if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) else "STRING"


def cell(value: Any, field: Field, int64_timestamps: bool) -> dict[str, Any]:
    """{"v": …} as tabledata.list and getQueryResults give a value."""
    if is_repeated(field):
        inner = {**field, "mode": "NULLABLE"}
        return {"v": [cell(one, inner, int64_timestamps) for one in value or []]}
    if value is None:
        return {"v": None}
    if kind_of(field) == "RECORD":
        return {"v": {"f": [cell(value[sub["name"]], sub, int64_timestamps) for sub in field["fields"]]}}
    return {"v": _text(value, kind_of(field), int64_timestamps)}


def _text(value: Any, kind: str, int64_timestamps: bool) -> str:
    if kind == "TIMESTAMP":
        micros = (value - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
        return str(micros) if int64_timestamps else repr(micros / 1e6)
    if kind == "BOOLEAN":
        return str(value).lower()
    if kind == "BYTES":
        return base64.b64encode(value).decode()
    if kind == "FLOAT":
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(repr(value), repr(value))
    return value.isoformat() if isinstance(value, dt.date | dt.time | dt.datetime) else str(value)


def size_of(column: Any) -> int:
    """Logical bytes: 8 a number, date or timestamp, 1 a BOOL, 2 + UTF-8 bytes a text, 16 a NUMERIC, 0 a NULL."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    kind = array.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return size_of(array.flatten())
    if pa.types.is_struct(kind):
        return sum(size_of(part) for part in array.flatten())
    present = len(array) - array.null_count
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        import pyarrow.compute as pc

        return 2 * present + int(pc.sum(pc.binary_length(array)).as_py() or 0)
    return present * (1 if pa.types.is_boolean(kind) else 16 if pa.types.is_decimal(kind) else 8)


def from_json(value: Any, field: Field) -> Any:
    """A value of a row in JSON (insertAll, NEWLINE_DELIMITED_JSON) as Arrow takes it. Raises ValueError, TypeError or
    KeyError where it is none of its type."""
    if is_repeated(field):
        if value is None:
            return []
        return [from_json(one, {**field, "mode": "NULLABLE"}) for one in value]
    if value is None:
        if field.get("mode") == "REQUIRED":
            raise ValueError(f"Missing required field: {field['name']}.")
        return None
    kind = kind_of(field)
    if kind == "RECORD":
        unknown = set(value) - {sub["name"] for sub in field["fields"]}
        if unknown:
            raise KeyError(f"no such field: {sorted(unknown)[0]}")
        return {sub["name"]: from_json(value.get(sub["name"]), sub) for sub in field["fields"]}
    return _from_text(value, kind)


def _from_text(value: Any, kind: str) -> Any:
    from decimal import Decimal

    if kind in ("STRING", "JSON"):
        if not isinstance(value, str):
            raise TypeError(f"expected text, got {value!r}")
        return value
    if kind == "BOOLEAN":
        return value if isinstance(value, bool) else {"true": True, "false": False}[value.lower()]
    if isinstance(value, bool):
        raise TypeError(f"expected {kind}, got {value!r}")
    if kind == "TIMESTAMP":
        if isinstance(value, int | float):
            return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=round(value * 1e6))
        instant = dt.datetime.fromisoformat(value.replace(" UTC", "+00:00"))
        return instant.replace(tzinfo=dt.UTC) if instant.tzinfo is None else instant
    makers: dict[str, Any] = {
        "BYTES": base64.b64decode,
        "INTEGER": int,
        "FLOAT": float,
        "DATE": dt.date.fromisoformat,
        "DATETIME": dt.datetime.fromisoformat,
        "TIME": dt.time.fromisoformat,
    }
    return makers.get(kind, Decimal)(value)

"""The journeys table as Arrow sees it, whichever engine builds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from preprocessing.blocks import ASSIGNMENT_COLUMNS
from preprocessing.spec import AnySpec

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_A_GROUP = 100_000  # journeys in a row group of the Parquet files


def journeys_schema(spec: AnySpec) -> pa.Schema:
    """The journeys table's Arrow schema, one row a journey.

    Sequence fields are lists of equal length, oldest event first: text with '' where missing, float64 with NaN where
    missing. Customer fields are scalars of the same two kinds. Only days_to_conversion and days_since_conversion may be
    null: none was seen. The columns of assignments are there where the spec has any.
    """
    import pyarrow as pa

    instant = pa.timestamp("us", tz="UTC")
    beside = zip(ASSIGNMENT_COLUMNS, (pa.string(), pa.int64(), pa.float64()), strict=True)
    return pa.schema(
        [
            ("journey_id", pa.string()),
            ("customer_key", pa.string()),
            ("as_of", instant),
            ("split", pa.string()),
            ("held_out", pa.bool_()),
            *((name, pa.list_(pa.string())) for name in spec.sequence.categorical),
            *((name, pa.list_(pa.float64())) for name in spec.sequence_numeric),
            ("event_time", pa.list_(instant)),
            *((name, pa.string()) for name in spec.customer_categorical),
            *((name, pa.float64()) for name in spec.customer_numeric),
            ("days_to_conversion", pa.float64()),
            ("observed_days", pa.float64()),
            ("weight", pa.float64()),
            *(beside if spec.assignments else ()),
        ]
    )

"""What is to be seen of the events before any training: counts, made by DuckDB.

A value that fewer than k customers share is counted among the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from preprocessing.dialect import duckdb_text
from preprocessing.findings import MOST_SERIES, NONE, OTHER, k_of, touch_field
from preprocessing.spec import DAY_US, AnySpec, EventsSpec

if TYPE_CHECKING:
    import duckdb

GAPS_A_DECADE = 4


class Events:
    """Findings from the table `events` of journeys.sql: c0…, x0… are the fields, time_us the instants."""

    def __init__(self, spec: AnySpec) -> None:
        self.spec = spec
        self.total: dict[str, Any] = {}
        self.over_time: list[tuple[float, str, int]] = []  # start of the week or day in days since 1970, value, events
        self.step_days = 7
        self.gaps: list[tuple[int, int]] = []  # bin, gaps; a bin is 1/GAPS_A_DECADE of a power of ten of seconds
        self.columns: list[dict[str, Any]] = []

    def look(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Counts. To be called while journeys.sql's tables are there."""
        row = connection.execute(
            "SELECT count(*), count(DISTINCT id), min(time_us), max(time_us) FROM events"
        ).fetchone()
        assert row is not None
        self.total = dict(zip(("events", "customers", "first_us", "last_us"), row, strict=True))
        self._over_time(connection)
        self.gaps = connection.execute(
            f"SELECT CAST(floor(log10(greatest(gap, 1000000) / 1e6) * {GAPS_A_DECADE}) AS INT) AS bin, count(*) FROM "
            "(SELECT time_us - lag(time_us) OVER (PARTITION BY id ORDER BY n) AS gap FROM events) "
            "WHERE gap IS NOT NULL GROUP BY 1 ORDER BY 1"
        ).fetchall()
        self._columns(connection)

    def _over_time(self, connection: duckdb.DuckDBPyConnection) -> None:
        field = touch_field(self.spec)
        if not isinstance(self.spec, EventsSpec) or not field:
            return
        column = f"c{self.spec.sequence.categorical.index(field)}"
        days = (self.total["last_us"] - self.total["first_us"]) / DAY_US
        self.step_days = 7 if days > 60 else 1
        self.over_time = connection.execute(
            f"WITH most AS (SELECT {column} AS value FROM events GROUP BY 1 "
            f"HAVING count(DISTINCT id) >= {k_of(self.spec)} ORDER BY count(*) DESC, 1 LIMIT {MOST_SERIES}) "
            f"SELECT time_us // {DAY_US * self.step_days} * {self.step_days} AS day, "
            f"CASE WHEN most.value IS NULL THEN {duckdb_text(OTHER)} WHEN most.value = '' "
            f"THEN {duckdb_text(NONE)} ELSE most.value END AS value, count(*) "
            f"FROM events LEFT JOIN most ON {column} = most.value GROUP BY 1, 2 ORDER BY 1, 2"
        ).fetchall()

    def _columns(self, connection: duckdb.DuckDBPyConnection) -> None:
        spec = self.spec
        fields = [(name, f"c{i}", True) for i, name in enumerate(spec.sequence.categorical)]
        fields += [(name, f"x{i}", False) for i, name in enumerate(spec.sequence_numeric)]
        for name, column, is_text in fields:
            there = f"{column} <> ''" if is_text else f"{column} IS NOT NULL AND NOT isnan({column})"
            row = connection.execute(
                f"WITH held AS (SELECT {column} AS value, count(*) AS n FROM events WHERE {there} GROUP BY 1) "
                "SELECT coalesce(sum(n), 0), count(*), coalesce(max(n), 0), first(value ORDER BY n DESC) FROM held"
            ).fetchone()
            assert row is not None
            kept, distinct, most, _ = row
            self.columns.append(
                {
                    "name": name,
                    "kind": "categorical" if is_text else "numeric",
                    "missing": 1 - kept / max(self.total["events"], 1),
                    "distinct": distinct,
                    "dominant": most / kept if kept else 0.0,
                    "present": kept,
                }
            )

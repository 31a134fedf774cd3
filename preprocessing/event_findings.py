"""What is to be seen of the events before any training: counts, made where journeys.sql ran, in DuckDB or BigQuery.

A value that fewer than k customers share is counted among the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from preprocessing.dialect import literal, to_duckdb
from preprocessing.findings import MOST_SERIES, NONE, OTHER, k_of, touch_field
from preprocessing.spec import DAY_US, AnySpec, EventsSpec

if TYPE_CHECKING:
    import duckdb

    from preprocessing.bigquery_session import Session

GAPS_A_DECADE = 4
Ask = Callable[[str], list[tuple[Any, ...]]]  # a GoogleSQL query to its rows


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
        import sqlglot

        self._look(lambda query: connection.execute(to_duckdb(sqlglot.parse_one(query, read="bigquery"))).fetchall())

    def look_in_bigquery(self, session: Session) -> None:
        """The same of the session's tables."""
        self._look(lambda query: session.execute(query, place="BigQuery: events").fetchall())

    def _look(self, ask: Ask) -> None:
        ((*found,),) = ask("SELECT COUNT(*), COUNT(DISTINCT person), MIN(time_us), MAX(time_us) FROM events")
        self.total = dict(zip(("events", "customers", "first_us", "last_us"), found, strict=True))
        self._over_time(ask)
        self.gaps = ask(
            f"SELECT CAST(FLOOR(LOG10(GREATEST(gap, 1000000) / 1e6) * {GAPS_A_DECADE}) AS INT64) AS bin, COUNT(*) FROM "
            "(SELECT time_us - LAG(time_us) OVER (PARTITION BY person ORDER BY n) AS gap FROM events) AS gaps "
            "WHERE gap IS NOT NULL GROUP BY 1 ORDER BY 1"
        )
        self._columns(ask)

    def _over_time(self, ask: Ask) -> None:
        field = touch_field(self.spec)
        if not isinstance(self.spec, EventsSpec) or not field:
            return
        column = f"c{self.spec.sequence.categorical.index(field)}"
        days = (self.total["last_us"] - self.total["first_us"]) / DAY_US
        self.step_days = 7 if days > 60 else 1
        self.over_time = ask(
            f"WITH most AS (SELECT {column} AS value FROM events GROUP BY 1 "
            f"HAVING COUNT(DISTINCT person) >= {k_of(self.spec)} ORDER BY COUNT(*) DESC, 1 LIMIT {MOST_SERIES}) "
            f"SELECT DIV(time_us, {DAY_US * self.step_days}) * {self.step_days} AS day, "
            f"CASE WHEN most.value IS NULL THEN {literal(OTHER)} WHEN most.value = '' "
            f"THEN {literal(NONE)} ELSE most.value END AS value, COUNT(*) "
            f"FROM events LEFT JOIN most ON {column} = most.value GROUP BY 1, 2 ORDER BY 1, 2"
        )

    def _columns(self, ask: Ask) -> None:
        spec = self.spec
        fields = [(name, f"c{i}", True) for i, name in enumerate(spec.sequence.categorical)]
        fields += [(name, f"x{i}", False) for i, name in enumerate(spec.sequence_numeric)]
        for name, column, is_text in fields:
            there = f"{column} <> ''" if is_text else f"{column} IS NOT NULL AND NOT IS_NAN({column})"
            ((kept, distinct, most),) = ask(
                f"WITH held AS (SELECT {column} AS value, COUNT(*) AS n FROM events WHERE {there} GROUP BY 1) "
                "SELECT COALESCE(SUM(n), 0), COUNT(*), COALESCE(MAX(n), 0) FROM held"
            )
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

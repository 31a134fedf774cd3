"""The spec's tables where they lie in BigQuery: found by name, wildcard or query, their columns told by a dry run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from preprocessing.bigquery_client import SCHEME
from preprocessing.bigquery_session import Session
from preprocessing.cli import UserError
from preprocessing.tables import QUERY, Table

if TYPE_CHECKING:
    from google.cloud import bigquery

_KINDS = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "BIGNUMERIC": "NUMERIC", "RECORD": "STRUCT"}
_NAME = re.compile(r"[^`\\\s]+")


@dataclass
class WarehouseTables:
    """Opens the spec's tables in the session's dataset. `events` is the table that --events names, None: the spec's."""

    session: Session
    events: str | None

    def open_events(self, table: str) -> Table:
        """The events table: what --events says, unless the spec has a query."""
        return self.open(table if self.events is None or QUERY.match(table) else self.events, "events.table")

    def open(self, table: str, key: str) -> Table:
        """A table of the spec by name (table, dataset.table, project.dataset.table, prefix_*) or query."""
        if QUERY.match(table):
            query = table.strip().rstrip(";")
            if re.search(r";\s*(\n|$)", query):
                raise UserError(f"{key}: expected one SELECT")
            return self._described(key, f"(\n{query}\n)")
        if not _NAME.fullmatch(table):
            raise UserError(f"{key}: expected a table's name or SELECT …, got {table!r}")
        parts = table.split(".")
        name = ".".join([*self.session.dataset[: max(0, 3 - len(parts))], *parts])
        return self._described(f"{SCHEME}{name}", f"`{name}`")

    def _described(self, place: str, relation: str) -> Table:
        _, schema = self.session.dry_run(f"SELECT * FROM {relation}", place)
        # rows have no number here
        return Table(place, relation, {one.name: kind_of(one) for one in schema}, False, "CAST(NULL AS INT64)")


def kind_of(column: bigquery.SchemaField) -> str:
    """BigQuery's standard name of the column's type; arrays and structs are read by no field of a spec."""
    kind = _KINDS.get(column.field_type, column.field_type)
    return f"ARRAY<{kind}>" if column.mode == "REPEATED" else kind

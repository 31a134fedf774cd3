"""What the BigQuery server holds: datasets, tables with their rows in DuckDB, the temporary tables of sessions."""

from __future__ import annotations

import copy
import datetime as dt
import itertools
import time
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

from tests.cloud import bigquery_schema as schemas
from tests.cloud.service import ApiError

Name = tuple[str, str, str]


def now_ms() -> int:
    return int(time.time() * 1000)


@dataclass
class Table:
    """`resource` as tables.get answers it, less what is counted; `physical` is its name in DuckDB; `version` counts
    changes of its rows; `insert_ids` of insertAll."""

    name: Name
    resource: dict[str, Any]
    physical: str
    version: int = 0
    insert_ids: set[str] = field(default_factory=set)

    @property
    def fields(self) -> list[schemas.Field]:
        return list(self.resource.get("schema", {}).get("fields", ()))


class Store:
    """One DuckDB database; used under the service's lock."""

    def __init__(self) -> None:
        self.connection = duckdb.connect()
        self.connection.execute("SET TimeZone = 'UTC'")
        self.connection.execute("SET enable_progress_bar = false")
        self.datasets: dict[tuple[str, str], dict[str, Any]] = {}
        self.tables: dict[Name, Table] = {}
        self.sessions: dict[str, dict[str, Table]] = {}
        self._numbers = itertools.count()

    def dataset(self, project: str, name: str) -> dict[str, Any]:
        if (project, name) not in self.datasets:
            raise ApiError(404, f"Not found: Dataset {project}:{name}")
        return self.datasets[project, name]

    def add_dataset(self, project: str, resource: dict[str, Any]) -> dict[str, Any]:
        name = resource["datasetReference"]["datasetId"]
        if (project, name) in self.datasets:
            raise ApiError(409, f"Already Exists: Dataset {project}:{name}", reason="duplicate")
        stamp = str(now_ms())
        self.datasets[project, name] = {
            "kind": "bigquery#dataset",
            "id": f"{project}:{name}",
            "etag": stamp,
            "location": "US",
            "creationTime": stamp,
            "lastModifiedTime": stamp,
            **resource,
            "datasetReference": {"projectId": project, "datasetId": name},
        }
        return self.datasets[project, name]

    def table(self, name: Name) -> Table:
        """Raises ApiError 404 where there is none, or it has expired."""
        self.dataset(*name[:2])
        table = self.tables.get(name)
        if table is not None and 0 < int(table.resource.get("expirationTime", 0)) <= now_ms():
            self.drop(name)
            table = None
        if table is None:
            raise ApiError(404, f"Not found: Table {name[0]}:{name[1]}.{name[2]}")
        return table

    def add_table(self, name: Name, resource: dict[str, Any]) -> Table:
        dataset = self.dataset(*name[:2])
        if name in self.tables:
            raise ApiError(409, f"Already Exists: Table {name[0]}:{name[1]}.{name[2]}", reason="duplicate")
        table = self.make(name, resource)
        if milliseconds := dataset.get("defaultTableExpirationMs"):
            table.resource.setdefault("expirationTime", str(now_ms() + int(milliseconds)))
        table.resource["location"] = dataset["location"]
        self.tables[name] = table
        return table

    def make(self, name: Name, resource: dict[str, Any]) -> Table:
        """A table with no rows that no dataset lists."""
        resource = copy.deepcopy(resource)
        fields = schemas.normal(resource.get("schema", {}).get("fields", ()))
        stamp = str(now_ms())
        reference = dict(zip(("projectId", "datasetId", "tableId"), name, strict=True))
        made = {"kind": "bigquery#table", "type": "TABLE", "etag": stamp, "creationTime": stamp}
        made |= {"lastModifiedTime": stamp, "id": f"{name[0]}:{name[1]}.{name[2]}"}
        table = Table(name, {**made, **resource, "tableReference": reference}, f"t{next(self._numbers)}")
        if fields:
            self.define(table, fields)
        return table

    def define(self, table: Table, fields: list[schemas.Field]) -> None:
        """Gives the table its columns, and none of the rows that it had."""
        table.resource["schema"] = {"fields": fields}
        columns = ", ".join(f"{schemas.quoted(f['name'])} {schemas.duckdb_type(f)}" for f in fields)
        self.connection.execute(f"CREATE OR REPLACE TABLE {table.physical} ({columns})")
        self.touch(table)

    def touch(self, table: Table) -> None:
        table.version += 1
        table.resource["lastModifiedTime"] = str(now_ms())

    def drop(self, name: Name) -> None:
        table = self.tables.pop(name)
        self.connection.execute(f"DROP TABLE IF EXISTS {table.physical}")

    def rows(self, table: Table) -> pa.Table:
        """All rows, in the table's Arrow schema."""
        schema = schemas.arrow_schema(table.fields)
        if not table.fields:
            return schema.empty_table()
        # rowid: an insertion order, as tabledata.list shows; BigQuery promises none
        found = self.connection.sql(f"SELECT * FROM {table.physical} ORDER BY rowid").to_arrow_table()
        return pa.table([_cast(c, f) for c, f in zip(found.columns, schema, strict=True)], schema=schema)

    def append(self, table: Table, rows: pa.Table) -> None:
        """Adds rows, by name; lacking columns are NULL, or empty where repeated."""
        self.connection.register("incoming", rows)
        values = ", ".join(self._value(f, rows) for f in table.fields)
        self.connection.execute(f"INSERT INTO {table.physical} SELECT {values} FROM incoming")
        self.connection.unregister("incoming")
        self.touch(table)

    def _value(self, column: schemas.Field, rows: pa.Table) -> str:
        name, kind = column["name"], schemas.duckdb_type(column)
        if name not in rows.column_names:
            return f"CAST([] AS {kind})" if schemas.is_repeated(column) else f"CAST(NULL AS {kind})"
        value = f"CAST({schemas.quoted(name)} AS {kind})"
        return f"COALESCE({value}, CAST([] AS {kind}))" if schemas.is_repeated(column) else value

    def count(self, table: Table) -> int:
        if not table.fields:
            return 0
        ((rows,),) = self.connection.execute(f"SELECT COUNT(*) FROM {table.physical}").fetchall()
        return int(rows)

    def described(self, table: Table) -> dict[str, Any]:
        """The resource as tables.get answers it."""
        size = sum(schemas.size_of(column) for column in self.rows(table).columns)
        return {**table.resource, "numRows": str(self.count(table)), "numBytes": str(size)}

    def put(self, name: str, rows: pa.Table, *, location: str = "US", **resource: Any) -> None:
        """For tests: `project.dataset.table` with these rows, made with its dataset where that is missing."""
        project, dataset, table = name.split(".")
        if (project, dataset) not in self.datasets:
            self.add_dataset(project, {"datasetReference": {"datasetId": dataset}, "location": location})
        self.tables.pop((project, dataset, table), None)
        fields = schemas.normal(resource.pop("fields", None) or schemas.fields_of(rows.schema))
        made = self.add_table((project, dataset, table), {"schema": {"fields": fields}, **resource})
        self.append(made, rows)

    def get(self, name: str) -> pa.Table:
        """For tests: the rows of `project.dataset.table`."""
        project, dataset, table = name.split(".")
        return self.rows(self.table((project, dataset, table)))

    def delete_partition(self, table: Table, day: dt.date) -> None:
        column = table.resource["timePartitioning"]["field"]
        self.connection.execute(f"DELETE FROM {table.physical} WHERE CAST({schemas.quoted(column)} AS DATE) = ?", [day])
        self.touch(table)

    def matching(self, project: str, dataset: str, prefix: str) -> list[Table]:
        """The tables of a wildcard `prefix*`, by name."""
        self.dataset(project, dataset)
        own = (name for name in self.tables if name[:2] == (project, dataset) and name[2].startswith(prefix))
        return [self.tables[name] for name in sorted(own)]


def _cast(column: pa.ChunkedArray, wanted: pa.Field) -> pa.ChunkedArray:
    return column if column.type.equals(wanted.type) else column.cast(wanted.type)

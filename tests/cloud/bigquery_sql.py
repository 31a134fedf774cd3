"""GoogleSQL statements run in DuckDB. It shows that a client's requests work, and not how BigQuery computes.

Translation is sqlglot's, with the rules of preprocessing.dialect and, for what any client may ask, a few more: wildcard
tables, UNNEST of arrays of structs, query parameters, options of CREATE TABLE.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa
import sqlglot
from sqlglot import exp

from preprocessing.dialect import to_duckdb
from tests.cloud import bigquery_schema as schemas
from tests.cloud.bigquery_store import Name, Store, Table
from tests.cloud.service import ApiError


@dataclass
class Context:
    """What a query is run with: default dataset, session, parameters; and what it turned out to touch."""

    project: str
    dataset: tuple[str, str] | None
    session: str | None
    parameters: dict[str, Any]
    location: str | None
    dry_run: bool = False
    read: list[Table] = field(default_factory=list)
    read_bytes: int = 0
    statement: str = "SELECT"
    made: Table | None = None
    affected: int | None = None


def run(store: Store, sql: str, context: Context) -> pa.Table | None:
    """Runs each statement; the rows of the last where it is a query. Raises ApiError 400 for what is no GoogleSQL."""
    if sql.strip().rstrip(";").upper() == "CALL BQ.ABORT_SESSION()":  # which sqlglot cannot parse
        context.statement = "CALL"
        store.sessions.pop(context.session or "", None)
        return None
    try:
        trees = [tree for tree in sqlglot.parse(sql, read="bigquery") if tree is not None]
    except sqlglot.errors.SqlglotError as error:
        raise ApiError(400, f"Syntax error: {' '.join(str(error).split())}", reason="invalidQuery") from None
    if not trees:
        raise ApiError(400, "Syntax error: Unexpected end of script", reason="invalidQuery")
    result = None
    for tree in trees:
        try:
            result = _statement(store, tree, context)
        except duckdb.Error as error:
            said = str(error).splitlines()[0]
            raise ApiError(400, said, reason="invalidQuery") from None
    if len(trees) > 1:
        context.statement = "SCRIPT"
    return result


def _statement(store: Store, tree: exp.Expr, context: Context) -> pa.Table | None:
    match tree:
        case exp.Query():
            context.statement = "SELECT"
            return _select(store, tree, context)
        case exp.Create() if tree.kind == "TABLE":
            context.statement = "CREATE_TABLE" + "_AS_SELECT" * (tree.expression is not None)
            _create(store, tree, context)
        case exp.Drop() if tree.kind == "TABLE":
            context.statement = "DROP_TABLE"
            name = _name(tree.this, context)
            if not context.dry_run and not (tree.args.get("exists") and name not in store.tables):
                store.table(name)
                store.drop(name)
        case exp.Insert() | exp.Delete() | exp.Update() | exp.Merge():
            context.statement = type(tree).__name__.upper()
            _change(store, tree, context)
        case _:
            raise ApiError(400, f"not known to this local server: {tree.sql('bigquery')[:200]}", reason="invalidQuery")
    return None


def _select(store: Store, tree: exp.Expr, context: Context) -> pa.Table:
    found = store.connection.sql(_translated(store, tree, context))
    if context.dry_run:
        return found.limit(0).to_arrow_table()
    return found.to_arrow_table()


def _create(store: Store, tree: exp.Create, context: Context) -> None:
    target = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
    properties = list(tree.args["properties"].expressions) if tree.args.get("properties") else []
    temporary = any(isinstance(p, exp.TemporaryProperty) for p in properties)
    rows = _select(store, tree.expression, context) if tree.expression is not None else None
    fields = (
        schemas.normal(schemas.fields_of(rows.schema))
        if rows is not None
        else [_column(c) for c in tree.this.expressions]
    )
    resource = {"schema": {"fields": fields}, **_options(properties)}
    if context.dry_run:
        return
    if temporary:
        if context.session is None:
            raise ApiError(400, "Use of CREATE TEMPORARY TABLE requires a script or session", reason="invalidQuery")
        own, key = store.sessions[context.session], target.name.lower()
        if key in own and not tree.args.get("replace"):
            raise ApiError(409, f"Already Exists: Table {target.name}", reason="duplicate")
        context.made = own[key] = store.make((context.project, f"_script{context.session}", target.name), resource)
    else:
        name = _name(target, context)
        if name in store.tables and tree.args.get("replace"):
            store.drop(name)
        context.made = store.add_table(name, resource)
    if rows is not None:
        store.append(context.made, rows)


def _column(definition: exp.Expr) -> schemas.Field:
    kind = definition.args["kind"]
    repeated = kind.is_type(exp.DataType.Type.ARRAY)
    inner = kind.expressions[0] if repeated else kind
    return schemas.normal(
        [
            {
                "name": definition.name,
                "type": inner.sql("bigquery"),
                "mode": "REPEATED" if repeated else "NULLABLE",
            }
        ]
    )[0]


def _options(properties: list[exp.Expr]) -> dict[str, Any]:
    """labels, expirationTime, description and clustering of a CREATE TABLE."""
    resource: dict[str, Any] = {}
    for one in properties:
        if isinstance(one, exp.ClusterProperty):
            resource["clustering"] = {"fields": [c.name for c in one.expressions]}
        elif isinstance(one, exp.PartitionedByProperty):
            column = next(one.find_all(exp.Column, exp.Identifier)).name
            resource["timePartitioning"] = {"type": "DAY", "field": column}
        elif type(one) is exp.Property:
            value = one.args["value"]
            match one.name.lower():
                case "labels":
                    pairs = [[part.name for part in pair.find_all(exp.Literal)] for pair in value.expressions]
                    resource["labels"] = dict(pairs)
                case "expiration_timestamp":
                    at = dt.datetime.fromisoformat(next(value.find_all(exp.Literal)).name)
                    at = at if at.tzinfo else at.replace(tzinfo=dt.UTC)
                    resource["expirationTime"] = str(int(at.timestamp() * 1000))
                case "description":
                    resource["description"] = value.name
    return resource


def _change(store: Store, tree: exp.Expr, context: Context) -> None:
    target = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
    table = _table(store, target, context)
    sql = _translated(store, tree, context)
    if not context.dry_run:
        ((context.affected,),) = store.connection.execute(sql).fetchall()
        store.touch(table)


def _translated(store: Store, tree: exp.Expr, context: Context) -> str:
    tree = tree.copy()
    named = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
    words = {node.name.lower() for node in tree.find_all(exp.Identifier)}
    everything = any(True for _ in tree.find_all(exp.Star))
    for node in list(tree.find_all(exp.Table)):
        if not node.name or (len(node.parts) == 1 and node.name.lower() in named):
            continue
        alias = node.alias or node.name.rstrip("*")
        if node.name.endswith("*"):
            tables = _wildcard(store, node, context)
            relation = _union(tables, _name(node, context)[2].rstrip("*"))
            node.replace(
                sqlglot.parse_one(f'SELECT * FROM ({relation}) AS "{alias}"', read="duckdb").find(exp.Subquery)
            )
        else:
            tables = [_table(store, node, context)]
            changed = exp.to_table(tables[0].physical)
            node.replace(exp.alias_(changed, alias, table=True, quoted=True))
        for table in tables:
            chosen = list(store.rows(table).columns) if everything else []
            if not everything:
                rows = store.rows(table)
                chosen = [rows[name] for name in rows.column_names if name.lower() in words]
            context.read_bytes += sum(schemas.size_of(column) for column in chosen)
    for unnest in list(tree.find_all(exp.Unnest)):
        if not unnest.args.get("alias") and isinstance(unnest.parent, exp.From | exp.Join):
            inner = to_duckdb(unnest.expressions[0])
            text = f"SELECT * FROM (SELECT UNNEST({inner}, max_depth := 2)) AS _u"
            unnest.replace(sqlglot.parse_one(text, read="duckdb").find(exp.Subquery))
    for node in list(tree.find_all(exp.Parameter, exp.Placeholder)):
        node.replace(_parameter(node, context))
    return to_duckdb(tree)


def _parameter(node: exp.Expr, context: Context) -> exp.Expr:
    if isinstance(node, exp.Placeholder):
        position = next(key for key in context.parameters if isinstance(key, int))
        value = context.parameters.pop(position)
    elif node.name in context.parameters:
        value = context.parameters[node.name]
    else:
        raise ApiError(400, f"Query parameter '{node.name}' not found", reason="invalidQuery")
    return exp.convert(value)


def _wildcard(store: Store, node: exp.Table, context: Context) -> list[Table]:
    project, dataset, name = _name(node, context)
    tables = store.matching(project, dataset, name.rstrip("*"))
    if not tables:
        raise ApiError(404, f"Not found: Table {project}:{dataset}.{name} does not match any table.")
    _locate(store, (project, dataset), context)
    context.read += tables
    return tables


def _union(tables: list[Table], prefix: str) -> str:
    """The schema of a wildcard is that of its newest table; the rest are read by name."""
    newest = max(tables, key=lambda table: table.name)
    parts = []
    for table in tables:
        own = {f["name"] for f in table.fields}
        columns = [
            schemas.quoted(f["name"])
            if f["name"] in own
            else f"CAST(NULL AS {schemas.duckdb_type(f)}) AS {schemas.quoted(f['name'])}"
            for f in newest.fields
        ]
        parts.append(
            f"SELECT {', '.join(columns)}, '{table.name[2].removeprefix(prefix)}' AS _TABLE_SUFFIX "
            f"FROM {table.physical}"
        )
    return " UNION ALL ".join(parts)


def _name(node: exp.Expr, context: Context) -> Name:
    parts = [piece for part in node.parts for piece in part.name.split(".")]
    match len(parts):
        case 3:
            return (parts[0], parts[1], parts[2])
        case 2:
            return (context.project, parts[0], parts[1])
        case 1 if context.dataset:
            return (*context.dataset, parts[0])
    raise ApiError(
        400,
        f'Table "{node.name}" must be qualified with a dataset (e.g. dataset.table).',
        reason="invalid",
    )


def _table(store: Store, node: exp.Expr, context: Context) -> Table:
    if len(node.parts) == 1 and context.session and node.name.lower() in store.sessions[context.session]:
        table = store.sessions[context.session][node.name.lower()]
    else:
        name = _name(node, context)
        _locate(store, name[:2], context)
        table = store.table(name)
    context.read.append(table)
    return table


def _locate(store: Store, dataset: tuple[str, str], context: Context) -> None:
    """A job runs in the one location of its datasets."""
    found = store.dataset(*dataset)["location"]
    if context.location is None:
        context.location = found
    elif context.location.lower() != found.lower():
        raise ApiError(404, f"Not found: Dataset {':'.join(dataset)} was not found in location {context.location}")


def parameters_of(query: dict[str, Any]) -> dict[Any, Any]:
    """{name or position: value} of a job's queryParameters."""
    return {one.get("name") or i: _value(one) for i, one in enumerate(query.get("queryParameters", ()))}


def _value(parameter: dict[str, Any]) -> Any:
    kind, value = parameter["parameterType"], parameter["parameterValue"]
    if kind["type"] == "ARRAY":
        return [
            _value({"parameterType": kind["arrayType"], "parameterValue": one}) for one in value.get("arrayValues", ())
        ]
    if value.get("value") is None:
        return None
    makers: Iterator[tuple[str, Any]] = iter(
        [("INT64", int), ("FLOAT64", float), ("BOOL", lambda text: str(text).lower() == "true")]
    )
    return dict(makers).get(kind["type"], str)(value["value"])

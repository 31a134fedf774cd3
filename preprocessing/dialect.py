"""GoogleSQL to DuckDB: translates journeys.sql's statements, where sqlglot alone would change what they mean.

Six rules are ours. A cast of text to BYTES is UTF-8 in BigQuery, while DuckDB's cast reads escapes. TIMESTAMP_MICROS
keeps its zone. A number with a point is FLOAT64, and no decimal. COUNTIF of nothing is 0, not NULL. CLUSTER BY, a hint
to BigQuery, becomes an order of rows, by which DuckDB skips what it need not read. All tables are temporary, which
DuckDB neither compresses nor logs, in half the time, and yet moves to disk where memory is short.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import sqlglot
from sqlglot import exp

from preprocessing.sequences import flattened

_ASIDE = "\ue02e"  # of Unicode's private letters; in a name 1 after it stands for a dot, 0 for itself


@dataclass(frozen=True)
class Statement:
    """`creates` names the table that the statement makes; `query` is what fills it, in DuckDB's dialect.

    `parameters` are the names of the @parameters inside, all INT64. `rows` is set where the query groups rows into
    arrays: the query for those rows, in order, of which the first `keys` columns are the group's (sequences.folded).
    """

    creates: str
    query: str
    parameters: frozenset[str]
    rows: str | None
    keys: int

    def select(self, values: Mapping[str, int]) -> str:
        """The query with its parameters as literals."""
        return self._filled(self.query, values)

    def select_rows(self, values: Mapping[str, int]) -> str:
        return self._filled(self.rows or self.query, values)

    def sql(self, values: Mapping[str, int]) -> str:
        return f"CREATE OR REPLACE TEMP TABLE {self.creates} AS {self.select(values)}"

    def _filled(self, query: str, values: Mapping[str, int]) -> str:
        for name in self.parameters:
            query = query.replace(f"${name}", str(values[name]))
        return query


def literal(text: str) -> str:
    """`text` as a string literal in GoogleSQL, escapes and all."""
    return exp.Literal.string(text).sql(dialect="bigquery")


def below(share: float) -> str:
    """The hash, 64 hexadecimal letters, below which a uniform share of hashes lies; '' for none, 'g' for all."""
    if share >= 1:
        return "g"
    return f"{int(share * 2**64):016x}" if share > 0 else ""


def quoted(name: str) -> str:
    """A column's name in GoogleSQL, whatever letters it has.

    A dot, which no column of BigQuery's can have, would part the name: statements() puts it back.
    """
    return exp.to_identifier(name.replace(_ASIDE, f"{_ASIDE}0").replace(".", f"{_ASIDE}1"), quoted=True).sql(
        dialect="bigquery"
    )


def table_name(name: str) -> str:
    """A DuckDB name, quoted."""
    return exp.to_identifier(name, quoted=True).sql(dialect="duckdb")


def duckdb_text(value: str) -> str:
    """A DuckDB string literal."""
    return exp.Literal.string(value).sql(dialect="duckdb")


def duckdb_list(values: Iterable[str]) -> str:
    """A DuckDB list of string literals."""
    return f"[{', '.join(map(duckdb_text, values))}]"


def duckdb_files(paths: Iterable[str | Path]) -> str:
    """A DuckDB list of files, by name: what would be a pattern in a name is none."""
    return duckdb_list(re.sub(r"[*?\[]", r"[\g<0>]", str(path)) for path in paths)


def to_duckdb(expression: exp.Expr) -> str:
    """One GoogleSQL query or expression in DuckDB's dialect."""
    tree = expression.transform(_rule)
    return tree.sql(dialect="duckdb", unsupported_level=sqlglot.ErrorLevel.RAISE, copy=False)


def statements(script: str) -> tuple[Statement, ...]:
    """The statements of a GoogleSQL script of CREATE TABLE … AS, for DuckDB, in their order.

    Each ends with a semicolon at the end of a line, where no literal has one.
    """
    return tuple(_statement(text) for text in re.split(r";\s*\n", script) if text.strip())


@functools.lru_cache(maxsize=512)
def _statement(text: str) -> Statement:
    tree = sqlglot.parse_one(text, read="bigquery")
    if not isinstance(tree, exp.Create) or tree.kind != "TABLE":
        raise ValueError(f"expected CREATE TABLE … AS, got {type(tree).__name__}")
    query = tree.expression
    properties = tree.args.get("properties")
    for cluster in properties.find_all(exp.ClusterProperty) if properties else ():
        query = query.order_by(*(column.copy() for column in cluster.expressions))
    rows = flattened(query)
    return Statement(
        creates=tree.this.sql(dialect="duckdb"),
        query=to_duckdb(query),
        parameters=frozenset(p.name for p in query.find_all(exp.Parameter)),
        rows=to_duckdb(rows) if rows else None,
        keys=len(query.args["group"].expressions) if rows else 0,
    )


def _rule(node: exp.Expr) -> exp.Expr:
    if isinstance(node, exp.Identifier) and _ASIDE in node.this:
        return exp.to_identifier(node.this.replace(f"{_ASIDE}1", ".").replace(f"{_ASIDE}0", _ASIDE), quoted=True)
    if isinstance(node, exp.Cast) and not isinstance(node, exp.TryCast) and node.to.is_type(exp.DataType.Type.BINARY):
        return exp.Anonymous(this="ENCODE", expressions=[node.this])
    if isinstance(node, exp.UnixToTime):  # TIMESTAMP_MICROS; others of the family do not appear in journeys.sql
        return exp.Anonymous(this="MAKE_TIMESTAMPTZ", expressions=[node.this])
    if isinstance(node, exp.CountIf):
        return exp.Count(this=exp.If(this=node.this, true=exp.Literal.number(1)))
    if isinstance(node, exp.Literal) and not node.is_string and not node.is_int:
        return exp.cast(exp.Literal.string(node.name), exp.DataType.Type.DOUBLE)
    return node

"""Queries in GoogleSQL over local tables: a table's name gives way to what was opened under it, in DuckDB's dialect."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from preprocessing import dialect
from preprocessing.cli import UserError

if TYPE_CHECKING:
    from sqlglot import exp

    from preprocessing.tables import Table

_PLAIN = {"this", "db", "catalog", "alias"}  # what may stand with a table's name; a PIVOT, a TABLESAMPLE may not


def over(query: str, key: str, opened: Callable[[str], Table]) -> tuple[str, bool]:
    """The query for DuckDB, and whether all tables that it reads are text throughout.

    key: the spec's, for errors; opened: gives the table of a name. Raises UserError where it is not one SELECT over
    plain tables.
    """
    import sqlglot
    from sqlglot import exp

    try:
        trees = sqlglot.parse(query, read="bigquery")
    except sqlglot.errors.SqlglotError as error:
        raise UserError(f"{key}: not a query in GoogleSQL: {' '.join(str(error).split())}") from None
    if len(trees) != 1 or not isinstance(trees[0], exp.Query):
        raise UserError(f"{key}: expected one SELECT")
    tree, texts = trees[0], []
    for table in list(tree.find_all(exp.Table)):
        name = ".".join(part.name for part in table.parts)
        if not name or _of_with(table, name):
            continue
        alias = table.args.get("alias")
        if {part for part, value in table.args.items() if value} - _PLAIN or (alias and alias.args.get("columns")):
            raise UserError(f"{key}: {table.sql('bigquery')}: expected the plain name of a table, and an alias at most")
        found = opened(name)
        texts.append(found.is_text)
        columns = (exp.column(column, quoted=True) for column in found.columns)  # and no number of a row
        table.replace(exp.select(*columns).from_(found.relation).subquery(table.alias or table.name))
    return dialect.to_duckdb(tree), bool(texts) and all(texts)


def _of_with(table: exp.Table, name: str) -> bool:
    """Whether the name is a WITH's: of one around it, or, inside of a WITH, of those told before it.

    sqlglot's own scopes tell capitals from small letters, which GoogleSQL does not in these names.
    """
    from sqlglot import exp

    node: exp.Expr | None = table
    while node is not None:
        told = node.ctes if isinstance(node, exp.Query) else []
        if isinstance(node, exp.CTE) and isinstance(node.parent, exp.With):
            told = node.parent.expressions
            told = told if node.parent.args.get("recursive") else told[: node.index]
            node = node.parent.parent  # the query of this WITH, of whose names some were not told yet
        if name.lower() in {cte.alias.lower() for cte in told}:
            return True
        node = node.parent if node is not None else None
    return False

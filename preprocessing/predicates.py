"""The spec's predicates: one GoogleSQL condition each over the columns of one table, checked before anything runs."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import sqlglot
from sqlglot import exp

from preprocessing.cli import UserError
from preprocessing.kinds import CONTEXT, Kinds
from preprocessing.spec import EventsSpec, JourneysSpec


class Predicate:
    """A condition with its place in the spec (`key`). Raises UserError where it is not one."""

    def __init__(self, text: str, key: str) -> None:
        self.key = key
        try:
            trees = sqlglot.parse(text, read="bigquery")
        except sqlglot.errors.SqlglotError as error:
            detail = getattr(error, "errors", None) or [{"description": str(error)}]
            raise UserError(f"{key}: not a condition in GoogleSQL: {text!r} ({detail[0]['description']})") from None
        if len(trees) != 1 or trees[0] is None or isinstance(trees[0], exp.Query | exp.DDL | exp.Command | exp.DML):
            raise UserError(f"{key}: expected one condition such as event_type = 'purchase', got {text!r}")
        self.tree: exp.Expr = trees[0]

    def columns(self) -> list[str]:
        """The table's columns that the condition names, in the order of their names."""
        return sorted({c.name for c in self.tree.find_all(exp.Column) if c.table != CONTEXT})

    def check(self, kinds: Mapping[str, str], context: Mapping[str, str] | None = None) -> None:
        """`kinds` of the table's columns, `context` of those that may stand after `context.`.

        Raises UserError where a column is not there, a value is of the wrong kind, or a function is not allowed.
        """
        for column in self.tree.find_all(exp.Column):
            known = kinds if column.table != CONTEXT else context
            if known is None or (column.table and column.table != CONTEXT):
                hint = "context.… needs snapshots.at" if column.table == CONTEXT else "expected a column's name alone"
                raise UserError(f"{self.key}: {column.sql('bigquery')}: {hint}")
            if column.name not in known:
                near = difflib.get_close_matches(column.name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
                where = "snapshots.context" if column.table == CONTEXT else "the columns"
                raise UserError(f"{self.key}: no {column.name!r} among {where}; {hint}")
        kind = Kinds(self.key, kinds, context or {}).of(self.tree)
        if kind not in ("BOOL", "NULL"):
            sql = self.tree.sql(dialect="bigquery")
            raise UserError(f"{self.key}: expected a condition, true or false; {sql} is {kind}")

    def bound(self, names: Mapping[str, str]) -> str:
        """The condition in GoogleSQL with every column under its name in the query."""
        return bound([self.tree], names)

    def conjuncts(self) -> tuple[list[exp.Expr], list[exp.Expr]]:
        """What AND joins, parted: those without context, which need no journey to be judged, and those with."""
        plain: list[exp.Expr] = []
        contextual: list[exp.Expr] = []
        root = self.tree.unnest()
        for part in root.flatten() if isinstance(root, exp.And) else [root]:
            uses_context = any(c.table == CONTEXT for c in part.find_all(exp.Column))
            (contextual if uses_context else plain).append(part)
        return plain, contextual


def bound(parts: list[exp.Expr], names: Mapping[str, str], context: Mapping[str, str] | None = None) -> str:
    """All of `parts` in GoogleSQL, joined by AND, columns under their `names`; TRUE where there is none."""

    def rename(node: exp.Expr) -> exp.Expr:
        if not isinstance(node, exp.Column):
            return node
        return sqlglot.parse_one(((context or {}) if node.table == CONTEXT else names)[node.name], read="bigquery")

    return " AND ".join(f"({part.transform(rename).sql(dialect='bigquery')})" for part in parts) or "TRUE"


def predicates_of(spec: EventsSpec | JourneysSpec) -> dict[str, dict[str, Predicate]]:
    """The spec's predicates by table ('events', 'subjects') and spec key."""
    if isinstance(spec, JourneysSpec):
        where = spec.journeys.where
        return {"events": {}, "subjects": {"journeys.where": Predicate(where, "journeys.where")} if where else {}}
    texts = {
        "conversion.where": spec.conversion.where,
        "snapshots.at": spec.snapshots.at,
        "eligible.after_event": spec.eligible.after_event,
    }
    where = spec.eligible.where
    return {
        "events": {key: Predicate(text, key) for key, text in texts.items() if text},
        "subjects": {"eligible.where": Predicate(where, "eligible.where")} if where else {},
    }


def inferred_columns(spec: EventsSpec | JourneysSpec) -> dict[str, list[str]]:
    """Columns by table whose kind must be known where a source is all text: predicates', order's, context's."""
    found = {table: [c for p in by_key.values() for c in p.columns()] for table, by_key in predicates_of(spec).items()}
    found["events"] += spec.context_columns
    if spec.events.order:
        found["events"].append(spec.events.order)
    return {table: sorted(set(names)) for table, names in found.items()}

"""The kind of value that a condition and its parts have, for the short list of what both engines compute alike.

Kinds are those of columns.py. Comparing a number with text is an error: BigQuery refuses it, DuckDB would cast. Left
out on purpose: / (division by zero), TRIM (other white space), CONCAT and GREATEST (other nulls), regular expressions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from sqlglot import exp

from preprocessing.cli import UserError

CONTEXT = "context"
FUNCTIONS = (
    *("ABS", "COALESCE", "ENDS_WITH", "EXTRACT", "IF", "IFNULL"),
    *("LENGTH", "LOWER", "NULLIF", "STARTS_WITH", "UPPER"),
)
_NUMBERS = ("INT64", "FLOAT64", "NUMERIC")
_TIMES = ("DATE", "DATETIME", "TIMESTAMP")
_LITERAL = "text literal"  # which is text, or a time where it stands beside one
_NULL = "NULL"
_COMPARISONS = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.NullSafeEQ, exp.NullSafeNEQ)
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}:\d{2}(\.\d{1,6})?([+-]\d{2}:\d{2}|Z)?)?")


class Kinds:
    """Finds kinds by those of the columns: a table's own, and those of the event that asks, after `context.`."""

    def __init__(self, key: str, columns: Mapping[str, str], context: Mapping[str, str]) -> None:
        self.key = key
        self.columns = columns
        self.context = context

    def of(self, node: exp.Expr) -> str:  # noqa: PLR0911 - a kind a case
        """BOOL, INT64, STRING …, or NULL. Raises UserError where kinds do not go together or are not allowed."""
        match node:
            case exp.Paren():
                return self.of(node.this)
            case exp.Column():
                return (self.context if node.table == CONTEXT else self.columns)[node.name]
            case exp.Boolean():
                return "BOOL"
            case exp.Null():
                return _NULL
            case exp.RawString():
                return _LITERAL
            case exp.Literal():
                return _LITERAL if node.is_string else "INT64" if node.is_int else "FLOAT64"
            case exp.Cast():
                return self._time_literal(node)
        return self._of_test(node) or self._of_value(node) or self._refuse(node)

    def _of_test(self, node: exp.Expr) -> str | None:
        match node:
            case exp.And() | exp.Or():
                self._expect(node, node.left, "BOOL")
                self._expect(node, node.right, "BOOL")
            case exp.Not():
                self._expect(node, node.this, "BOOL")
            case exp.Is():
                if isinstance(node.expression, exp.Boolean):
                    self._expect(node, node.this, "BOOL")
                elif isinstance(node.expression, exp.Null):
                    self.of(node.this)
                else:
                    return None
            case _ if isinstance(node, _COMPARISONS):
                self._alike(node, node.this, node.expression)
            case exp.Between():
                self._alike(node, node.this, node.args["low"], node.args["high"])
            case exp.In() if node.expressions:
                self._alike(node, node.this, *node.expressions)
            case exp.StartsWith() | exp.EndsWith():
                self._expect(node, node.this, "STRING")
                self._expect(node, node.expression, "STRING")
            case exp.Like() if isinstance(node.expression, exp.Literal) and "\\" not in node.expression.name:
                self._expect(node, node.this, "STRING")
                self._expect(node, node.expression, "STRING")
            case _:
                return None
        return "BOOL"

    def _of_value(self, node: exp.Expr) -> str | None:  # noqa: PLR0911 - a kind a case
        match node:
            case exp.Neg() | exp.Abs():
                self._expect(node, node.this, *_NUMBERS)
                return self.of(node.this)
            case exp.Add() | exp.Sub() | exp.Mul():
                self._expect(node, node.left, *_NUMBERS)
                self._expect(node, node.right, *_NUMBERS)
                return self._alike(node, node.left, node.right)
            case exp.Lower() | exp.Upper():
                self._expect(node, node.this, "STRING")
                return "STRING"
            case exp.Length():
                self._expect(node, node.this, "STRING")
                return "INT64"
            case exp.Extract() if node.name.upper() in ("YEAR", "MONTH", "DAY"):
                self._expect(node, node.expression, *_TIMES)
                return "INT64"
            case exp.Coalesce():
                return self._alike(node, node.this, *node.expressions)
            case exp.Nullif():
                return self._alike(node, node.this, node.expression)
            case exp.If():
                self._expect(node, node.this, "BOOL")
                return self._alike(node, *(node.args[name] for name in ("true", "false") if node.args.get(name)))
            case exp.Case() if node.this is None:
                for branch in node.args["ifs"]:
                    self._expect(node, branch.this, "BOOL")
                default = [node.args["default"]] if node.args.get("default") else []
                return self._alike(node, *(branch.args["true"] for branch in node.args["ifs"]), *default)
        return None

    def _alike(self, node: exp.Expr, *parts: exp.Expr) -> str:
        """The one kind that all parts have."""
        found = [(part, self.of(part)) for part in parts]
        known = [kind for _, kind in found if kind not in (_NULL, _LITERAL)]
        one = known[0] if known else _LITERAL if any(kind == _LITERAL for _, kind in found) else _NULL
        for part, kind in found:
            if kind in (_NULL, one) or (kind in _NUMBERS and one in _NUMBERS):
                continue
            if kind == _LITERAL and (one == "STRING" or (one in _TIMES and _ISO.fullmatch(part.name))):
                continue
            listed = " and ".join(f"{_sql(other)} ({its})" for other, its in found)
            raise UserError(f"{self.key}: {_sql(node)}: expected values of one type, got {listed}")
        return "STRING" if one == _LITERAL else one

    def _expect(self, node: exp.Expr, part: exp.Expr, *allowed: str) -> None:
        kind = self.of(part)
        if kind not in (*allowed, _NULL) and not (kind == _LITERAL and "STRING" in allowed):
            raise UserError(f"{self.key}: {_sql(node)}: expected {' or '.join(allowed)}, but {_sql(part)} is {kind}")

    def _time_literal(self, node: exp.Cast) -> str:
        """DATE '2026-01-05' and its kin, which are casts of a literal to the parser; no other cast is allowed."""
        kind = node.to.sql(dialect="bigquery")
        text = node.this
        is_literal = isinstance(text, exp.Literal) and text.is_string and not isinstance(node, exp.TryCast)
        return kind if is_literal and kind in _TIMES and _ISO.fullmatch(text.name) else self._refuse(node)

    def _refuse(self, node: exp.Expr) -> str:
        raise UserError(
            f"{self.key}: {_sql(node)}: not among what both engines compute alike; expected comparisons, AND, OR, NOT, "
            f"IN (…), BETWEEN, LIKE 'text', IS NULL, CASE, + - * and {', '.join(FUNCTIONS)}"
        )


def _sql(node: exp.Expr) -> str:
    return node.sql(dialect="bigquery")

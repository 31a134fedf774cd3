"""Predicates as a spec has them, in GoogleSQL, each with the columns that it names and the same in Python."""

import math


def sql_and(*values):
    return False if False in values else None if None in values else True


def sql_or(*values):
    return True if True in values else None if None in values else False


def compare(value, other, holds):
    if value is None or other is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return holds(value, other)


def equal(value, other):
    return compare(value, other, lambda a, b: a == b)


def above(value, other):
    return compare(value, other, lambda a, b: a > b)


# SQL, its columns, and the same in Python
CONVERSIONS = [
    ("kind = 'buy'", ["kind"], lambda r, c: equal(r["kind"], "buy")),
    (
        "kind = 'buy' AND amount > 2.5",
        ["amount", "kind"],
        lambda r, c: sql_and(equal(r["kind"], "buy"), above(r["amount"], 2.5)),
    ),
    (
        "NOT (flag OR kind = 'mail')",
        ["flag", "kind"],
        lambda r, c: {True: False, False: True, None: None}[sql_or(r["flag"], equal(r["kind"], "mail"))],
    ),
    (
        "kind IN ('buy', 'sell') AND paid >= 1",
        ["kind", "paid"],
        lambda r, c: sql_and(
            None if r["kind"] is None else r["kind"] in ("buy", "sell"), compare(r["paid"], 1, lambda a, b: a >= b)
        ),
    ),
]
IN_CONTEXT = [
    (
        "kind = 'buy' AND camp = context.camp",
        ["camp", "kind"],
        lambda r, c: sql_and(equal(r["kind"], "buy"), equal(r["camp"], c["camp"])),
    ),
    (
        "amount > context.amount OR kind = 'sell'",
        ["amount", "kind"],
        lambda r, c: sql_or(compare(r["amount"], c["amount"], lambda a, b: a > b), equal(r["kind"], "sell")),
    ),
]
TRIGGERS = [
    ("kind = 'mail'", ["kind"], lambda r: equal(r["kind"], "mail")),
    ("flag IS TRUE", ["flag"], lambda r: r["flag"] is True),
]
AFTER = [("kind <> 'mail'", ["kind"], lambda r: compare(r["kind"], "mail", lambda a, b: a != b))]
CUSTOMERS = [
    ("consent", ["consent"], lambda r: r["consent"]),
    (
        "country = 'FR' OR age >= 40",
        ["age", "country"],
        lambda r: sql_or(equal(r["country"], "FR"), compare(r["age"], 40, lambda a, b: a >= b)),
    ),
]

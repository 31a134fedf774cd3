import pytest

from preprocessing.cli import UserError
from preprocessing.predicates import Predicate

KINDS = {
    "event_type": "STRING",
    "amount": "FLOAT64",
    "paid": "NUMERIC",
    "n": "INT64",
    "flag": "BOOL",
    "day": "DATE",
    "ts": "TIMESTAMP",
    "odd name": "STRING",
}


@pytest.mark.parametrize(
    "text",
    [
        "event_type = 'purchase'",
        "event_type IN ('a', 'b') AND NOT flag",
        "amount * 2 - n >= 1.5 OR paid BETWEEN 1 AND 2",
        "day >= '2026-01-05' AND ts < TIMESTAMP '2026-01-05 10:00:00+00:00'",
        "day = DATE '2026-01-05'",
        "EXTRACT(YEAR FROM day) = 2026",
        "LOWER(event_type) LIKE 'web%' AND LENGTH(event_type) < 9",
        "IFNULL(flag, FALSE) IS TRUE AND amount IS NOT NULL",
        "CASE WHEN flag THEN n ELSE 0 END > 0",
        "COALESCE(event_type, '') <> '' AND IF(flag, n, NULL) = 1",
        "`odd name` = 'it\\'s'",
        "STARTS_WITH(event_type, 'e_') AND ABS(-n) = 1 AND NULLIF(n, 0) IS NULL",
        "flag",
    ],
)
def test_what_both_engines_compute_alike_is_allowed(text):
    Predicate(text, "conversion.where").check(KINDS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("event_typ = 'purchase'", "no 'event_typ' among the columns; did you mean 'event_type'?"),
        ("zzz = 1", "no 'zzz' among the columns; expected one of event_type, amount"),
        ("n = 'purchase'", r"expected values of one type, got n \(INT64\) and 'purchase' \(text literal\)"),
        ("event_type = 3", r"event_type \(STRING\) and 3 \(INT64\)"),
        ("event_type IN ('a', 3)", "expected values of one type"),
        ("day = ts", r"day \(DATE\) and ts \(TIMESTAMP\)"),
        ("day = 'soon'", "expected values of one type"),
        ("'x' = event_type AND 'x' = n", "expected values of one type"),
        ("n", "expected a condition, true or false; n is INT64"),
        ("'yes'", "expected a condition"),
        ("amount / n > 1", "not among what both engines compute alike"),
        ("TRIM(event_type) = 'a'", "not among"),
        ("CAST(n AS STRING) = '1'", "not among"),
        ("REGEXP_CONTAINS(event_type, 'a.*')", "not among"),
        ("event_type LIKE 'a\\\\_b'", "not among"),
        ("event_type LIKE event_type", "not among"),
        ("MAX(amount) > 1", "not among"),
        ("ROW_NUMBER() OVER (ORDER BY n) = 1", "not among"),
        ("n IN (SELECT n FROM others)", "not among"),
        ("EXISTS (SELECT 1)", "not among"),
        ("n IN UNNEST([1, 2])", "not among"),
        ("RAND() < 0.5", "not among"),
        ("CURRENT_DATE() > day", "not among"),
        ("made_up(n)", "not among"),
        ("@secret = n", "not among"),
        ("SELECT 1", "expected one condition"),
        ("n = 1; DROP TABLE events", "expected one condition"),
        ("DROP TABLE events", "not among"),
        ("n = ", "not a condition in GoogleSQL"),
        ("n = 1)", "not a condition in GoogleSQL"),
        ("", "expected one condition"),
        ("e.n = 1", "expected a column's name alone"),
        ("n = context.n", "needs snapshots.at"),
        ("NOT n", "expected BOOL, but n is INT64"),
        ("LOWER(n) = 'a'", "expected STRING, but n is INT64"),
        ("flag + 1 = 2", "flag is BOOL"),
    ],
)
def test_all_else_is_refused_with_its_place(text, message):
    with pytest.raises(UserError, match=message) as caught:
        Predicate(text, "conversion.where").check(KINDS)
    assert str(caught.value).startswith("conversion.where: ")
    assert "\n" not in str(caught.value)


def test_context_columns_are_those_of_the_event_that_asks():
    predicate = Predicate("event_type = 'redeemed' AND (n = context.n OR flag) AND amount > 1", "conversion.where")
    predicate.check(KINDS, {"n": "INT64"})
    assert predicate.columns() == ["amount", "event_type", "flag", "n"]
    plain, contextual = predicate.conjuncts()
    assert [part.sql("bigquery") for part in plain] == ["event_type = 'redeemed'", "amount > 1"]
    assert [part.sql("bigquery") for part in contextual] == ["n = context.n OR flag"]
    with pytest.raises(UserError, match=r"no 'm' among snapshots\.context; expected one of n"):
        Predicate("n = context.m", "conversion.where").check(KINDS, {"n": "INT64"})


def test_columns_are_bound_to_their_names_in_the_query():
    predicate = Predicate("`odd name` = 'a' OR n > 1", "eligible.where")
    assert predicate.bound({"odd name": "p1", "n": "p0"}) == "(p1 = 'a' OR p0 > 1)"

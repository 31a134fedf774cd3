"""journeys.sql is GoogleSQL that BigQuery runs, and its translation means the same."""

import duckdb
import pytest
import sqlglot
from sqlglot import exp

from preprocessing import dialect, script
from preprocessing.spec import load_spec
from preprocessing.tables import Table
from tests.job import ROOT
from tests.preprocessing.random_case import random_case

# Every function that journeys.sql may call: each has one meaning in GoogleSQL and, translated, in DuckDB. A name enters
# this list after a look at both manuals: NULL, NaN, empty input, ties, integer or float.
FUNCTIONS = {
    *("ABS", "ARRAY_AGG", "CASE", "CAST", "CONCAT", "COUNT", "COUNT_IF", "DENSE_RANK", "FLOOR", "GENERATE_SERIES"),
    *(
        "GREATEST",
        "IF",
        "COALESCE",
        "IS_NAN",
        "LEAD",
        "LEAST",
        "LOGICAL_OR",
        "LOWER_HEX",
        "MAX",
        "MIN",
        "NULLIF",
        "RANK",
    ),
    *("REGEXP_LIKE", "REGEXP_REPLACE", "ROUND", "ROW_NUMBER", "S_H_A2_DIGEST", "SUBSTRING", "SUM", "TIMESTAMP"),
    *("TRY_CAST", "UNIX_MICROS", "UNIX_TO_TIME", "AND", "OR", "UNNEST", "ARRAY"),
}
RESERVED = set(  # of GoogleSQL; sqlglot reads many of them as names
    """ALL AND ANY ARRAY AS ASC ASSERT_ROWS_MODIFIED AT BETWEEN BY CASE CAST COLLATE CONTAINS CREATE CROSS CUBE CURRENT
    DEFAULT DEFINE DESC DISTINCT ELSE END ENUM ESCAPE EXCEPT EXCLUDE EXISTS EXTRACT FALSE FETCH FOLLOWING FOR FROM FULL
    GROUP GROUPING GROUPS HASH HAVING IF IGNORE IN INNER INTERSECT INTERVAL INTO IS JOIN LATERAL LEFT LIKE LIMIT LOOKUP
    MERGE NATURAL NEW NO NOT NULL NULLS OF ON OR ORDER OUTER OVER PARTITION PRECEDING PROTO QUALIFY RANGE RECURSIVE
    RESPECT RIGHT ROLLUP ROWS SELECT SET SOME STRUCT TABLESAMPLE THEN TO TREAT TRUE UNBOUNDED UNION UNNEST USING WHEN
    WHERE WINDOW WITH WITHIN""".split()  # noqa: SIM905 - seventy lines as a list
)
KINDS = {
    "kind": "STRING", "camp": "STRING", "flag": "BOOL", "code": "INT64", "amount": "FLOAT64", "paid": "NUMERIC",
    "words": "STRING", "Kunde `nr`": "STRING", "order": "STRING", 'seen "at"': "DATETIME", "größe": "INT64",
    "since": "DATE", "country": "STRING", "age": "INT64", "consent": "BOOL", "who": "STRING", "session": "STRING",
    "clock": "STRING", "bought": "INT64", "whole": "BOOL", "part": "STRING", "device": "STRING", "size": "FLOAT64",
    "promo": "STRING", "drawn at": "STRING", "in": "INT64",
}  # fmt: skip


def rendered(seed):
    """The script of a random spec, with all its columns in one table that plays every part."""
    case = random_case(seed)
    table = Table("events", "`project.dataset.events`", KINDS, is_text=False, row="source.source_row")
    return script.render(
        case.spec,
        table,
        table if case.others is not None else None,
        assignments=table if case.assignments is not None and not case.predict else None,
        predict=case.predict,
        predict_as_of=case.predict_as_of,
    )


@pytest.mark.parametrize("seed", range(12))
def test_the_script_is_googlesql_with_functions_of_the_list_only(seed):
    trees = sqlglot.parse(rendered(seed), read="bigquery", error_level=sqlglot.ErrorLevel.RAISE)
    assert all(isinstance(tree, exp.Create) for tree in trees)
    used = {node.sql_name() for tree in trees for node in tree.find_all(exp.Func)}
    used |= {node.name for tree in trees for node in tree.find_all(exp.Anonymous)}
    assert used <= FUNCTIONS, used - FUNCTIONS
    for tree in trees:
        for aggregate in tree.find_all(exp.ArrayAgg):
            assert isinstance(aggregate.this, exp.Order), "an array without an order"
        assert not list(tree.find_all(exp.Limit))
        bare = {node.name.upper() for node in tree.find_all(exp.Identifier) if not node.quoted}
        assert not bare & RESERVED


def refused_by_bigquery(tree):
    """What BigQuery's manual forbids in a CREATE TABLE … AS, and DuckDB would let pass."""
    found = []
    selects = tree.expression.selects
    names = [one.alias_or_name if isinstance(one, exp.Alias | exp.Column) else "" for one in selects]
    star = any(one.is_star and not isinstance(one.unalias(), exp.Count) for one in selects)
    if not star and not all(names):
        found.append("a column without a name")
    if not star and len({name.lower() for name in names}) < len(names):
        found.append("two columns of one name")
    for join in tree.find_all(exp.Join):
        condition = join.args.get("on")
        if join.side and not (condition and any(True for _ in condition.find_all(exp.EQ))):
            found.append("an outer join without an equality")
    for cluster in tree.find_all(exp.ClusterProperty):
        if len(cluster.expressions) > 4:
            found.append("more than four columns to cluster by")
    for window in tree.find_all(exp.Window):
        frame, order = window.args.get("spec"), window.args.get("order")
        bounded = frame and frame.args.get("kind") == "RANGE" and frame.find(exp.Literal)
        if bounded and len(order.expressions if order else ()) != 1:
            found.append("a numbered RANGE over other than one key")
        if window.find(exp.Distinct):
            found.append("DISTINCT in a window")
    for select in tree.find_all(exp.Select):
        if select.args.get("qualify") and not (select.args.get("where") or select.args.get("group")):
            found.append("QUALIFY without WHERE or GROUP BY")
    return found


@pytest.mark.parametrize("seed", range(12))
def test_nothing_in_the_script_is_what_bigquery_refuses(seed):
    for tree in sqlglot.parse(rendered(seed), read="bigquery"):
        assert refused_by_bigquery(tree) == []


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("SELECT COUNT(*) FROM s", "a column without a name"),
        ("SELECT a, b AS A FROM s", "two columns of one name"),
        ("SELECT s.a FROM s LEFT JOIN u ON s.a < u.a", "an outer join without an equality"),
        (
            "SELECT SUM(a) OVER (ORDER BY a, b RANGE BETWEEN 1 PRECEDING AND CURRENT ROW) AS x FROM s",
            "a numbered RANGE over other than one key",
        ),
        ("SELECT COUNT(DISTINCT a) OVER (PARTITION BY b) AS x FROM s", "DISTINCT in a window"),
        ("SELECT a FROM s QUALIFY ROW_NUMBER() OVER (ORDER BY a) = 1", "QUALIFY without WHERE or GROUP BY"),
    ],
)
def test_what_bigquery_refuses_is_seen(query, reason):
    tree = sqlglot.parse_one(f"CREATE TEMP TABLE t AS {query}", read="bigquery")
    assert refused_by_bigquery(tree) == [reason]


def test_the_ga4_query_calls_what_needs_no_translation_alone():
    (tree,) = sqlglot.parse(load_spec(ROOT / "job_configs/journeys/ga4.yaml").events.table, read="bigquery")
    used = {node.sql_name() for node in tree.find_all(exp.Func)}
    used |= {node.name for node in tree.find_all(exp.Anonymous)}
    assert used <= {"AND", "OR", "CASE", "COALESCE", "IF", "MAX", "MIN", "UNIX_TO_TIME", "UNNEST"}, used


def value(sql):
    """What DuckDB answers to a GoogleSQL expression, translated."""
    query = dialect.to_duckdb(sqlglot.parse_one(f"SELECT {sql}", read="bigquery"))
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        (answer,) = connection.execute(query).fetchone()
    return answer


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        # each by BigQuery's manual
        (
            "TO_HEX(SHA256(CAST('é\\\\x41' AS BYTES)))",
            "434275b9698467af283f60e4ab449478a1124e8d5f3aadec4cfb4bfbf16d2f73",
        ),
        ("UNIX_MICROS(TIMESTAMP_MICROS(-1))", -1),
        ("UNIX_MICROS(TIMESTAMP(DATE '2026-01-05'))", 1_767_571_200_000_000),
        ("1.5 + 1", 2.5),
        ("7 / 2", 3.5),
        ("0.1 + 0.2", 0.1 + 0.2),
        ("REGEXP_REPLACE('a1b2', r'\\d', '9')", "a9b9"),
        ("CONCAT('a', CAST(NULL AS STRING))", None),
        ("GREATEST(1, CAST(NULL AS INT64))", None),
        ("ROUND(2.5)", 3.0),
        ("ROUND(-2.5)", -3.0),
        ("CAST(FLOOR(-0.5) AS INT64)", -1),
        ("(SELECT COUNTIF(x > 1) FROM UNNEST([1]) AS x WHERE x > 5)", 0),
        ("(SELECT COUNTIF(x > 1) FROM UNNEST([1, 2, 3]) AS x)", 2),
        ("SAFE_CAST('x' AS FLOAT64)", None),
        ("CAST(TRUE AS STRING)", "true"),
        ("'a' < 'B'", False),  # code points, no collation
        ("'\\uffff' < '\\U0001F600'", True),
    ],
)
def test_translated_expressions_answer_as_bigquery_would(sql, expected):
    assert value(sql) == expected


def test_a_cluster_becomes_an_order_and_every_table_a_temporary_one():
    (statement,) = dialect.statements("CREATE TABLE t CLUSTER BY b, a AS SELECT a, b FROM s WHERE a > @low;\n")
    assert statement.sql({"low": 7}) == "CREATE OR REPLACE TEMP TABLE t AS SELECT a, b FROM s WHERE a > 7 ORDER BY b, a"
    assert statement.parameters == {"low"}


def test_only_create_table_as_is_a_statement():
    with pytest.raises(ValueError, match="expected CREATE TABLE"):
        dialect.statements("SELECT 1;\n")


@pytest.mark.parametrize("text", ["it's", "back\\slash", "new\nline", "\x1f", 'say "é"', "`"])
def test_text_and_names_survive_both_dialects(text):
    assert value(dialect.literal(text)) == text
    query = f"SELECT t.{dialect.quoted(text)} FROM t"
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE t AS SELECT 7 AS {dialect.table_name(text)}")
        found = connection.execute(dialect.to_duckdb(sqlglot.parse_one(query, read="bigquery"))).fetchone()
    assert found == (7,)

"""Arrays by sorting rows once, against arrays by DuckDB's own aggregates."""

import duckdb

from preprocessing.dialect import statements
from preprocessing.sequences import folded

SCRIPT = """
CREATE TABLE arrays AS
SELECT s.id, ARRAY_AGG(s.a ORDER BY s.n) AS a, ARRAY_AGG(CONCAT(s.b, '!') ORDER BY s.n) AS b
FROM rows_read AS s GROUP BY s.id;
"""


def test_several_arrays_of_one_order_are_cut_from_sorted_rows():
    (statement,) = statements(SCRIPT)
    assert statement.rows is not None
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE rows_read AS "
            "SELECT i % 7 AS id, HASH(i) AS n, i AS a, i::VARCHAR AS b FROM range(1000) AS r(i)"
        )
        fast = folded(connection.sql(statement.select_rows({})).to_arrow_table(), statement.keys)
        slow = connection.sql(f"SELECT * FROM ({statement.query}) ORDER BY id").to_arrow_table()
    assert fast.to_pylist() == slow.to_pylist()


def test_arrays_of_two_orders_are_left_to_the_engine():
    (statement,) = statements(SCRIPT.replace("'!') ORDER BY s.n", "'!') ORDER BY s.a"))
    assert statement.rows is None

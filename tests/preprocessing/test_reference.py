"""journeys.sql against the slow reference, row for row, on random tables."""

from __future__ import annotations

import math

import pyarrow.parquet as pq
import pytest

from preprocessing import journeys
from preprocessing.journeys import build_journeys, journeys_schema
from preprocessing.spec import JourneysSpec
from tests.preprocessing import reference, reference_ready
from tests.preprocessing.random_case import random_case

KEY = bytes(range(32))
SEEDS_A_TEST = 25


def plain(value):
    """NaN equals NaN."""
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    return [plain(item) for item in value] if isinstance(value, list) else value


def compare(seed, folder):
    case = random_case(seed)
    source = case.write(folder)
    output = folder / "out"
    output.mkdir()
    summary = build_journeys(
        case.spec,
        source,
        output,
        KEY,
        predict_as_of=case.predict_as_of,
        predict=case.predict,
        max_bad_rows=1.0,
        progress=False,
    )
    parts = sorted(output.glob("part-*.parquet"))
    table = pq.ParquetDataset(parts).read()
    assert table.schema.equals(journeys_schema(case.spec)), table.schema
    found = [{name: plain(value) for name, value in row.items()} for row in table.to_pylist()]
    tables = (case.events, case.others, KEY, case.holds)
    if isinstance(case.spec, JourneysSpec):
        rows, expected_summary = reference_ready.build(case.spec, *tables, predict=case.predict)
    else:
        rows, expected_summary = reference.build(
            case.spec,
            *tables,
            case.predicate_columns,
            predict_as_of=case.predict_as_of,
            assignments=case.assignments,
        )
    expected = [{name: plain(value) for name, value in row.items()} for row in rows]
    assert found == expected, f"seed {seed}\n{case.text}"
    assert summary == expected_summary, f"seed {seed}\n{case.text}"


@pytest.mark.parametrize("first", range(0, 150, SEEDS_A_TEST))
def test_journeys_equal_the_reference_row_for_row(first, tmp_path):
    for seed in range(first, first + SEEDS_A_TEST):
        folder = tmp_path / str(seed)
        folder.mkdir()
        compare(seed, folder)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 3000, 100))
def test_journeys_equal_the_reference_on_many_more_tables(first, tmp_path):
    for seed in range(first, first + 100):
        folder = tmp_path / str(seed)
        folder.mkdir()
        compare(seed, folder)


def test_the_sql_alone_without_the_faster_path_and_in_many_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(
        journeys, "execute", lambda connection, statement, shard: connection.execute(statement.sql(shard))
    )
    monkeypatch.setattr(journeys, "STEPS_A_SHARD", 4)
    for seed in range(500, 515):
        folder = tmp_path / str(seed)
        folder.mkdir()
        compare(seed, folder)

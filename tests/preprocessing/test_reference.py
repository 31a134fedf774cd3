"""journeys.sql against the slow reference, row for row, on random tables."""

from __future__ import annotations

import math
import shutil

import pyarrow.parquet as pq
import pytest
import yaml

from preprocessing import journeys
from preprocessing.journeys import build_journeys
from preprocessing.journeys_schema import journeys_schema
from preprocessing.spec import EventsSpec, JourneysSpec, parse_spec
from tests.fuzzing import cases
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
    if seed % 7 == 3:  # the same table by a query
        content = yaml.safe_load(case.text)
        content["events"]["table"] = "SELECT * FROM events"
        case.spec = parse_spec(yaml.safe_dump(content, allow_unicode=True))
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


@pytest.mark.parametrize("first", range(0, 100, SEEDS_A_TEST))
def test_journeys_equal_the_reference_row_for_row(first, tmp_path):
    for seed in range(first, first + SEEDS_A_TEST):
        folder = tmp_path / str(seed)
        folder.mkdir()
        compare(seed, folder)


@pytest.mark.slow
@pytest.mark.parametrize("first", cases(2000)[::100])
def test_journeys_equal_the_reference_on_many_more_tables(first, tmp_path):
    for seed in range(1000 + first, 1000 + min(first + 100, cases(2000).stop)):
        folder = tmp_path / str(seed)
        folder.mkdir()
        compare(seed, folder)
        shutil.rmtree(folder)


def test_the_cases_hold_what_they_are_drawn_for():
    """Leap days, changes of clocks, very many events, nobody who converts, doubled tables, every block of the spec."""
    drawn = [case for case in map(random_case, range(1000, 1400)) if not isinstance(case.spec, JourneysSpec)]
    starts = {case.spec.split.test_from for case in drawn}
    assert {day.year for day in starts if day} == {1970, 2000, 2024, 2026}
    assert {day.month for day in starts if day and day.year == 2026} == {1, 3, 11}
    assert any(len(case.events) >= 10_000 for case in drawn)
    assert any(not {"buy", "sell"} & {e["kind"] for e in case.events} for case in drawn)
    assert any(len({str(e) for e in case.events}) * 2 == len(case.events) for case in drawn)
    blocks = {block for case in drawn for block in yaml.safe_load(case.text)}
    assert blocks >= set(EventsSpec.model_fields) - {"journeys"}


def test_the_sql_alone_without_the_faster_path_and_in_many_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(
        journeys, "execute", lambda connection, statement, shard: connection.execute(statement.sql(shard))
    )
    monkeypatch.setattr(journeys, "STEPS_A_SHARD", 4)
    for seed in range(500, 515):
        folder = tmp_path / str(seed)
        folder.mkdir()
        compare(seed, folder)

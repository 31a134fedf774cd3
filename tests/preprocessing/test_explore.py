"""The page before training: its figures against plain Python, what it flags, and what it keeps to itself."""

import re
from pathlib import Path

import duckdb
import numpy as np
import pytest

from preprocessing import explore
from preprocessing.cli import UserError
from preprocessing.event_findings import Events
from preprocessing.findings import OTHER, Journeys, wilson
from preprocessing.journeys import build_journeys
from preprocessing.spec import EventsSpec, parse_spec
from preprocessing.suspects import suspects

SPEC = """
events: {table: events, customer: customer_id, time: event_time}
sequence: {categorical: [event_type, channel, steady, token], numeric: [amount, paid], max_events: 16}
conversion: {where: "event_type = 'purchase'", horizons_days: [7, 14], primary_horizon: 14}
snapshots: {first: 2025-02-01, last: 2025-06-21, every_days: 14, lookback_days: 30}
data_until: 2025-07-10
split: {eval_from: 2025-04-26, test_from: 2025-06-07, holdout_customers: 0, salt: v1}
privacy: {min_customers: 20}
"""
# paid knows of the purchase that comes: who will buy within two weeks has it before
EVENTS = """WITH lines AS (
  SELECT i, i % 300 AS c, TIMESTAMP '2025-01-01' + INTERVAL ((i * 7919) % 190) DAY + INTERVAL (i % 1440) MINUTE AS t,
    hash(i) AS h FROM range(30000) AS r(i)),
typed AS (SELECT *, CASE WHEN h % 29 = 0 THEN 'purchase' ELSE 'view' END AS event_type FROM lines)
SELECT 'cust-' || c AS customer_id, t AS event_time, event_type,
  CASE WHEN c < 5 AND i % 2 = 0 THEN 'secret-channel'
    WHEN h % 3 = 0 THEN 'web' WHEN h % 3 = 1 THEN 'app' ELSE '' END AS channel,
  'same' AS steady, 'T' || h AS token, CAST(h % 50 AS DOUBLE) AS amount,
  CASE WHEN exists(SELECT 1 FROM typed AS o WHERE o.c = l.c AND o.event_type = 'purchase' AND o.t > l.t
    AND o.t < l.t + INTERVAL 14 DAY) THEN 1.0 ELSE 0.0 END AS paid
FROM typed AS l"""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[EventsSpec, Path, Path, Events]:
    place = tmp_path_factory.mktemp("explore")
    duckdb.sql(f"COPY ({EVENTS}) TO '{place / 'events.parquet'}'")
    spec = parse_spec(SPEC)
    assert isinstance(spec, EventsSpec)
    (place / "journeys").mkdir()
    events = Events(spec)
    source = str(place / "events.parquet")
    build_journeys(spec, source, place / "journeys", bytes(32), progress=False, look=events.look)
    return spec, place, place / "journeys", events


@pytest.fixture
def journeys(made):
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield Journeys(connection, made[2], made[0])


def rows(directory: Path) -> list[dict]:
    return duckdb.sql(f"SELECT * FROM '{directory}/part-*.parquet'").to_arrow_table().to_pylist()


def test_rates_are_those_of_a_loop_over_the_journeys(made, journeys):
    _, _, directory, _ = made
    told: dict[str, list[bool]] = {}
    for row in rows(directory):
        if row["split"] == "train" and row["observed_days"] >= 14:
            touches = [value for value in row["channel"] if value]
            days = row["days_to_conversion"]
            told.setdefault(touches[-1] if touches else "none", []).append(days is not None and days < 14)
    found = {one.name: one for one in journeys.last_touch()}
    assert {"web", "app"} <= set(found)
    for name in ("web", "app"):
        assert found[name].journeys == len(told[name])
        assert found[name].rate == pytest.approx(np.mean(told[name]))
        assert found[name].low < found[name].rate < found[name].high
    known = sum(map(len, told.values()))
    assert 0.95 * known < sum(one.journeys for one in journeys.number_of_touches()) <= known


def test_few_customers_share_no_cell_of_their_own(made, journeys):
    _, _, _, events = made
    for found in (journeys.first_touch(), journeys.last_touch(), journeys.paths(100), journeys.by_snapshot()):
        assert found
        assert all(one.customers >= 20 for one in found)
        assert not any("secret" in one.name for one in found)
    assert not any("secret" in value for _, value, _ in events.over_time)
    assert any(value == OTHER for _, value, _ in events.over_time)
    assert not any("secret" in source + target for _, source, target, _ in journeys.flows())


def test_every_event_is_in_its_week_and_every_gap_is_counted(made):
    _, place, _, events = made
    assert sum(n for *_, n in events.over_time) == events.total["events"] == 30000
    assert sum(n for _, n in events.gaps) == 30000 - 300
    first = duckdb.sql(f"SELECT min(event_time) FROM '{place / 'events.parquet'}'").fetchall()[0][0]
    assert abs(min(day for day, *_ in events.over_time) * 86400 - first.timestamp()) < 8 * 86400


def test_the_bands_between_steps_carry_the_journeys_on(journeys):
    flows = journeys.flows()
    ends = sum(n for step, _, _, n in flows if step == 3)
    train = journeys.by_split()[0]["rates"][-1]
    assert 0.9 * train["known"] <= ends <= train["known"]
    assert {target for step, _, target, _ in flows if step == 3} == {"converts", "does not"}


def test_what_is_odd_is_flagged_and_what_is_not_is_left_alone(made, journeys):
    _, _, _, events = made
    features = journeys.single_features()
    assert features[0]["feature"] == "last paid"
    found = {name: odd for name, odd, _ in suspects(events.columns, features, 30000)}
    assert found["steady"] == "always the same value"
    assert "value of its own" in found["token"]
    assert "ROC-AUC" in found["last paid"]
    assert not {"event_type", "channel", "amount", "last amount", "number of events"} & set(found)
    honest = [one for one in features if "paid" not in one["feature"]]
    assert all(one["roc_auc"] < 0.7 for one in honest)
    mostly = {"name": "m", "kind": "numeric", "missing": 0.97, "distinct": 9, "dominant": 0.995, "present": 900}
    assert [odd for _, odd, _ in suspects([mostly], [], 30000)] == [
        "missing in 97.0 % of the events",
        "one value makes 99.5 % of what is there",
    ]


def test_the_interval_is_wilson_s_where_each_customer_has_one_journey():
    from statsmodels.stats.proportion import proportion_confint

    rate = 12 / 400
    spread = 12 * (1 - rate) ** 2 + 388 * rate**2
    assert wilson(rate, 400, 400, spread) == pytest.approx(proportion_confint(12, 400, method="wilson"))
    assert wilson(0.0, 400, 400, 0.0) == pytest.approx(proportion_confint(0, 400, method="wilson"))
    # four journeys a customer that end alike: as if there were a quarter of them
    assert wilson(rate, 1600, 400, 16 * spread) == pytest.approx(proportion_confint(12, 400, method="wilson"))


def test_the_page_is_whole_loads_nothing_and_names_no_customer(made, capsys):
    _, place, _, _ = made
    (place / "my.yaml").write_text(SPEC.replace("token]", "steady]").replace("steady, steady", "steady"))
    output = place / "explore.html"
    flags = ["--spec", str(place / "my.yaml"), "--events", str(place / "events.parquet")]
    explore.main([*flags, "--output", str(output)])
    page = output.read_text()
    assert "30,000 events of 300 customers" in page
    assert "30,000 events of 300 customers" in capsys.readouterr().out
    assert not re.search(r"(?:src|href)=\"(?!#)|https?://(?!www\.w3\.org)|<script|@import", page)
    assert not re.search(r"cust-\d|secret-channel", page)
    plots = re.findall(r"<svg [^>]*>", page)
    assert len(plots) == 8
    assert all('role="img" aria-label="' in one for one in plots)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert all('tabindex="0"' in one for one in re.findall(r'<div class="scroll"[^>]*>', page))
    assert sorted(path.name for path in place.iterdir()) == ["events.parquet", "explore.html", "journeys", "my.yaml"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--events", "none.parquet"], "none.parquet: no such file or directory"),
        (["--events", "bigquery://p"], "expected bigquery://project.dataset or"),
        (["--events", "x", "--output", "nowhere/explore.html"], "nowhere: no such directory"),
        (["--events", "x", "--max_bad_rows", "much"], "max_bad_rows"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text(SPEC)
    with pytest.raises(UserError, match=message) as told:
        explore.main(["--spec", "my.yaml", *flags])
    assert "\n" not in str(told.value)
    assert [path.name for path in tmp_path.iterdir()] == ["my.yaml"]

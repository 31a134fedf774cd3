"""The page before training from events in BigQuery: the same figures as from a file of them."""

import re

import pyarrow.parquet as pq
import pytest

from preprocessing import bigquery_journeys, explore
from preprocessing.cli import UserError
from preprocessing.event_findings import Events
from preprocessing.spec import parse_spec
from tests.cloud.test_bigquery_journeys import KEY, PADS, store, warehouse
from tests.preprocessing.test_explore import SPEC, made

__all__ = ["made", "store"]  # fixtures
FLAGS = ("--events", "bigquery://shop.web", "--pads", PADS)


@pytest.fixture
def table(store, made):
    table = pq.read_table(made[1] / "events.parquet")
    store.put("shop.web.events", table)
    return table


def test_the_page_from_bigquery_is_the_page_from_a_file(made, table, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(explore.secrets, "token_bytes", lambda _: KEY)  # samples go by keys: the same as in the table
    (tmp_path / "spec.yaml").write_text(SPEC)
    pages = []
    for name, flags in (("here", ("--events", str(made[1] / "events.parquet"))), ("there", FLAGS)):
        page = tmp_path / f"{name}.html"
        explore.main(["--spec", str(tmp_path / "spec.yaml"), "--output", str(page), *flags])
        pages.append(re.sub(r"bigquery://shop.web|[^ <>\"]*/events\.parquet", "EVENTS", page.read_text()))
    assert "30,000 events of 300 customers" in capsys.readouterr().out
    assert "secret-channel" not in pages[1]
    assert pages[1] == pages[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here.html", "spec.yaml", "there.html"]


def test_what_is_seen_of_the_events_is_the_same(made, table, tmp_path):
    spec, _, _, here = made
    there = Events(parse_spec(SPEC))
    (tmp_path / "out").mkdir()
    options = {"predict": False, "predict_as_of": None, "max_bad_rows": 0.0, "look": there.look_in_bigquery}
    bigquery_journeys.build(spec, "bigquery://shop.web", tmp_path / "out", warehouse(), **options)
    assert vars(there) == vars(here) | {"spec": there.spec}
    assert there.total["events"] == table.num_rows
    assert len(there.over_time) > 20


def test_without_the_keys_table_it_is_one_line(table, tmp_path, monkeypatch):
    monkeypatch.delenv("PARCOURS_PADS", raising=False)
    (tmp_path / "spec.yaml").write_text(SPEC)
    with pytest.raises(UserError, match="--pads: expected the table of the key's pads"):
        explore.main(["--spec", str(tmp_path / "spec.yaml"), "--output", str(tmp_path / "p.html"), *FLAGS[:2]])
    assert not (tmp_path / "p.html").exists()

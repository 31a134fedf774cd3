"""Monthly totals and the cost of 1,000 predictions, worked out by hand with round prices."""

from pathlib import Path

import pytest

from deploy.prices import load_prices
from deploy.running_cost import Costs, load_costs, running_cost
from preprocessing.cli import UserError

CONFIGS = Path(__file__).parent.parent.parent / "job_configs"
ROUND = """
noted: 2026-11
currency: EUR
region: here
hours_per_month: 700
compute: {source: a, families: {f: {vcpu_hour: 0.25, gb_hour: 0.125}}}  # m: 4 · 0.25 + 8 · 0.125 = 2
vertex_training: {source: b, families: {f: {vcpu_hour: 0.5, gb_hour: 0.25}}, accelerators: {gpu: 6}}  # 4, 10
vertex_prediction: {source: c, families: {f: {vcpu_hour: 0.75, gb_hour: 0.375}}}  # m: 6
machines: {m: {family: f, vcpus: 4, ram_gb: 8}}
bigquery: {source: d, tib_scanned: 5}
dataflow: {source: e, vcpu_hour: 0.1, gb_hour: 0.01, disk_gb_hour: 0.001}
disk: {source: g, gb_month: 0.05}
spot: {source: h, share: 0.4}
"""
TABLE = {"incumbent": None, "candidate": None}


@pytest.fixture
def prices(tmp_path):
    (tmp_path / "prices.yaml").write_text(ROUND)
    return load_prices(tmp_path / "prices.yaml")


def costs(candidate, incumbent=None):
    return Costs.model_validate(
        {
            "prices": "prices.yaml",
            "predictions_per_month": 2_000_000,
            "incumbent": incumbent
            or {"stated": ({"what": "invoice", "monthly": 3000}, {"what": "export", "monthly": 200})},
            "candidate": candidate,
        }
    )


def test_the_month_by_hand(prices):
    """SQL 0.5 TiB · 4 · 5 = 10; Dataflow 4 · (10 · 0.1 + 50 · 0.01) = 6; training 2 replicas · 3 h · 2 runs · 10 = 120;
    two nodes 2 · 700 · 6 = 8400; disk 100 · 0.05 = 5; together 8541."""
    found = running_cost(
        costs(
            {
                "sql": {"tib_per_run": 0.5, "runs_per_month": 4},
                "dataflow": {"vcpu_hours_per_run": 10, "gb_hours_per_run": 50, "runs_per_month": 4},
                "training": {
                    "machine": "m", "accelerators": {"gpu": 1}, "replicas": 2, "hours_per_run": 3, "runs_per_month": 2,
                },
                "scoring": {"place": "vertex_prediction", "machine": "m", "nodes": 2},
                "disk": {"gb": 100},
            }
        ),
        prices,
        TABLE,
    )  # fmt: skip
    parts = {one["part"]: one["monthly"] for one in found["candidate"]["parts"]}
    assert parts == pytest.approx({"SQL": 10, "Dataflow": 6, "Training": 120, "Scoring": 8400, "Disk": 5})
    assert found["candidate"]["monthly"] == pytest.approx(8541)
    assert found["candidate"]["per_1000"] == pytest.approx(8541 / 2000)
    assert found["incumbent"]["monthly"] == 3200
    assert found["incumbent"]["per_1000"] == pytest.approx(1.6)
    assert (found["currency"], found["noted"]) == ("EUR", "2026-11")
    assert found["sources"] == ["d", "e", "b", "c", "g"]


def test_measured_cpu_seconds_of_a_model_in_this_process(prices):
    """18 CPU seconds for 5,000 journeys: 3.6 a thousand, 0.9 s of 4 vCPUs, at 2 an hour 0.0005; the month at half use:
    2,000 thousands · 0.9 s / 3600 / 0.5 = 1 hour = 2."""
    timing = {"journeys": 5000, "seconds": 9.0, "cpu_seconds": 18.0, "concurrency": 1}
    scoring = {"place": "compute", "machine": "m", "utilisation": 0.5}
    found = running_cost(costs({"scoring": scoring}), prices, {"incumbent": None, "candidate": timing})["candidate"]
    assert found["compute_per_1000"] == pytest.approx(0.0005)
    assert found["monthly"] == pytest.approx(2)
    assert "3.6 CPU seconds measured / 4 vCPUs" in found["compute_worked"]


def test_measured_throughput_of_a_server(prices):
    """5,000 journeys in 45 s: 9 s a thousand of the whole machine, at 2 an hour 0.005."""
    timing = {"journeys": 5000, "seconds": 45.0, "cpu_seconds": None, "concurrency": 4}
    scoring = {"place": "compute", "machine": "m", "utilisation": 1}
    found = running_cost(costs({"scoring": scoring}), prices, {"incumbent": None, "candidate": timing})["candidate"]
    assert found["compute_per_1000"] == pytest.approx(0.005)
    assert found["monthly"] == pytest.approx(10)


def test_what_was_not_measured_has_no_cost_but_a_reason(prices):
    scoring = {"place": "compute", "machine": "m", "utilisation": 1}
    found = running_cost(costs({"scoring": scoring, "disk": {"gb": 1}}), prices, TABLE)["candidate"]
    assert (found["monthly"], found["per_1000"], found["compute_per_1000"]) == (None, None, None)
    assert "a table was scored elsewhere" in found["reason"]
    stated = running_cost(costs({"scoring": scoring | {"machine_seconds_per_1000": 9}}), prices, TABLE)["candidate"]
    assert stated["monthly"] == pytest.approx(10)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("nodes: 2", "node: 2", r"costs\.yaml:15: candidate\.scoring\.node: unknown key; did you mean 'nodes'"),
        (", nodes: 2", "", "expected either nodes .* or utilisation"),
        ("monthly: 2400", "monthly: much", r"costs\.yaml:8: incumbent\.stated\.0\.monthly"),
        ("prices: prices.yaml", "prices: none.yaml", "none.yaml: cannot read the price file"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path, old, new, message):
    text = (CONFIGS / "double_run_costs.yaml").read_text()
    assert old in text
    (tmp_path / "prices.yaml").write_text(ROUND)
    (tmp_path / "costs.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        load_costs(tmp_path / "costs.yaml")


def test_the_shipped_costs_are_worked_out():
    found = running_cost(*load_costs(CONFIGS / "double_run_costs.yaml"), TABLE)
    assert found["incumbent"]["monthly"] == 2580
    assert [one["part"] for one in found["candidate"]["parts"]] == ["SQL", "Dataflow", "Training", "Scoring", "Disk"]
    assert found["candidate"]["monthly"] > 0

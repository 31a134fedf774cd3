"""The price file: machines by hand, the shipped file, strictness."""

from pathlib import Path

import pytest

from deploy.prices import load_prices
from preprocessing.cli import UserError

SHIPPED = Path(__file__).parent.parent.parent / "job_configs/prices.yaml"


def test_the_shipped_file_is_dated_and_names_its_sources():
    prices = load_prices(SHIPPED)
    assert prices.noted == "2026-11"
    assert all(
        part.source.startswith("Google Cloud, ")
        for part in (
            *(prices.compute, prices.vertex_training, prices.vertex_prediction),
            *(prices.bigquery, prices.dataflow, prices.disk, prices.spot),
        )
    )
    assert "REPLACE" in SHIPPED.read_text()
    for place in ("compute", "vertex_training", "vertex_prediction"):
        for machine in prices.machines:
            assert prices.machine_hour(place, machine) > 0


def test_a_machine_by_hand():
    """n1-standard-4: 4 vCPUs · 0.031611 + 15 GB · 0.004237 = 0.189999; two T4 add 0.70."""
    prices = load_prices(SHIPPED)
    assert prices.machine_hour("compute", "n1-standard-4") == pytest.approx(0.189999)
    assert prices.machine_hour("compute", "n1-standard-4", {"nvidia-tesla-t4": 2}) == pytest.approx(0.889999)


@pytest.mark.parametrize(
    ("machine", "accelerators", "message"),
    [("n9-tiny", {}, "no machine 'n9-tiny'; expected one of"), ("n1-standard-4", {"tpu": 1}, "no accelerator 'tpu'")],
)
def test_what_has_no_price_is_named(machine, accelerators, message):
    with pytest.raises(UserError, match=message):
        load_prices(SHIPPED).machine_hour("compute", machine, accelerators)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("noted: 2026-11", "noted: soon", r"prices\.yaml:5: noted"),
        ("tib_scanned: 6.25", "tib_scannd: 6.25", r"bigquery\.tib_scannd: unknown key; did you mean 'tib_scanned'"),
        ("gb_month: 0.04", "gb_month: -1", r"disk\.gb_month: "),
        ("family: e2, vcpus: 2", "family: e9, vcpus: 2", "family 'e9' has no price"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path, old, new, message):
    text = SHIPPED.read_text()
    assert old in text
    (tmp_path / "prices.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        load_prices(tmp_path / "prices.yaml")

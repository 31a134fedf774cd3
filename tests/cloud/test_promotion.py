"""Promotion under gs://: where versions are kept the old model can be had back, and what it wrote on the way goes."""

import json

from deploy import promote
from deploy.outputs import replaced
from tests.deploy.test_promote import model
from tests.deploy.test_retention import lasting


def test_a_replaced_model_can_be_had_back_for_a_year_and_what_is_written_on_the_way_for_a_week(
    shop, tmp_path, monkeypatch
):
    written, store = {}, shop.store  # by name and generation, as versioning keeps them

    def recorded(stored):
        written[stored.name, str(stored.generation)] = stored.data
        return store(stored)

    monkeypatch.setattr(shop, "store", recorded)
    promote.main(["--candidate", str(model(tmp_path / "v1", "v1")), "--to", "gs://shop/models/current", "--first"])
    first = json.loads(shop.data("shop", "models/current/whole.json"))["objects"]
    with replaced("gs://shop/models/current") as place:
        (place / "saved_model.pb").write_bytes(b"v2")

    assert shop.data("shop", "models/current/saved_model.pb") == b"v2"
    had = {name: written[f"models/current/{name}", generation] for name, generation in first.items()}
    assert had["saved_model.pb"] == b"v1"
    assert json.loads(had["promotion.json"])["model_version"] == "v1"
    kept = {name for name, _ in written if name.startswith("models/current/")}
    assert {lasting(name) for name in kept} == {365}
    between = {name for name, _ in written} - kept
    assert {name.split("/")[1] for name in between} == {".lock-current", ".staged-current"}
    assert {lasting(name) for name in between} == {7}

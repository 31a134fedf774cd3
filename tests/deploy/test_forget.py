"""A customer is removed from all that is stored of them, and nothing else changes."""

import gzip
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deploy import forget
from preprocessing.cli import UserError
from preprocessing.keys import customer_key, load_key
from preprocessing.rundir import RunDir
from tests.tfrecords import records


@pytest.fixture
def place(job, tmp_path):
    shutil.copytree(job["run_dir"], tmp_path / "run")
    shutil.copy(job["base"] / "scores.parquet", tmp_path / "scores.parquet")
    return tmp_path


@pytest.fixture(scope="module")
def told(job):
    """(id, key) of a customer whose journey the report draws."""
    key = load_key(job["key"])
    ids = set(pq.read_table(job["base"] / "source/customers.parquet")["customer_id"].to_pylist())
    by_key = {customer_key(key, customer): customer for customer in ids}
    drawn = json.loads((job["run_dir"] / "evaluation/evolution.json").read_text())[0]["customer_key"]
    return by_key[drawn], drawn


def forgotten(job, place, *customers, scores=True):
    flags = ["--run_dir", str(place / "run"), "--key_file", str(job["key"])]
    flags += ["--scores", str(place / "scores.parquet")] if scores else []
    forget.main(flags + [part for customer in customers for part in ("--customer", customer)])


def files(place):
    found = {p.relative_to(place).as_posix(): p.read_bytes() for p in sorted(place.rglob("*")) if p.is_file()}
    return {name: content for name, content in found.items() if not name.endswith((".lock", "whole.json"))}


def decoded(name, content, place):
    if name.endswith(".gz"):
        return gzip.decompress(content)
    if name.endswith(".parquet"):
        table = pq.read_table(place / name)
        return str(table.select([c for c in table.column_names if not c.startswith("event")]).to_pydict()).encode()
    return content


def assert_same_rows(found, wanted):
    """Value by value; NaN, which a missing number is, equals NaN."""
    assert found.schema == wanted.schema
    for name in wanted.column_names:
        one, other = found[name].combine_chunks(), wanted[name].combine_chunks()
        if pa.types.is_list(one.type):
            assert one.value_lengths().equals(other.value_lengths()), name
            one, other = one.flatten(), other.flatten()
        if pa.types.is_floating(one.type):
            np.testing.assert_array_equal(one.to_numpy(zero_copy_only=False), other.to_numpy(zero_copy_only=False))
        else:
            assert one.equals(other), name


def test_a_customer_is_gone_and_all_else_is_as_it_was(job, place, told, capsys):
    customer, key = told
    before = files(place)
    journeys = pq.read_table(place / "run/journeys/part-00000-of-00001.parquet")
    ids = journeys.select(["journey_id", "customer_key"]).to_pylist()
    theirs = {row["journey_id"] for row in ids if row["customer_key"] == key}
    assert len(theirs) > 3
    forgotten(job, place, customer)
    after = files(place)
    assert before.keys() == after.keys()
    for name, content in after.items():
        text = decoded(name, content, place)
        assert not any(mark.encode() in text for mark in {key, *theirs}), name
    changed = {name for name in after if before[name] != after[name]}
    assert {"run/journeys/part-00000-of-00001.parquet", "scores.parquet"} <= changed
    assert {f"run/evaluation/{name}" for name in ("predictions.parquet", "evolution.json", "report.html")} <= changed
    for name in changed:
        if name.endswith(".parquet"):
            old = pq.read_table(job["base"] / name)
            wanted = old.filter([k != key for k in old["customer_key"].to_pylist()])
            assert 0 < wanted.num_rows < old.num_rows
            assert_same_rows(pq.read_table(place / name), wanted)
            assert pq.read_schema(place / name).equals(old.schema, check_metadata=True)
        elif name.endswith(".gz"):
            old = [record for record in records(before[name]) if key.encode() not in record]
            assert records(after[name]) == old, name
        elif name.endswith("evolution.json"):
            old = json.loads(before[name])
            assert json.loads(after[name]) == [one for one in old if one["customer_key"] != key]
        else:
            assert name == "run/evaluation/report.html"
            assert before[name].count(b'<section class="told">') == after[name].count(b'<section class="told">') + 1
    RunDir(place / "run").require("journeys", "records", "transform", "model", "evaluation")
    said = capsys.readouterr().out
    version = json.loads((place / "run/model/parcours.json").read_text())["model_version"]
    held_out = not any("train" in name for name in changed)
    assert held_out or f"version {version} was trained on them" in said
    assert "nothing left of them in" in said
    assert customer not in said

    marks = (place / "run/journeys/whole.json").read_bytes()
    forgotten(job, place, customer)
    assert files(place) == after
    assert (place / "run/journeys/whole.json").read_bytes() == marks
    assert "nothing of" in capsys.readouterr().out


def test_several_at_once_from_a_file_and_the_models_trained_on_them(job, place, capsys):
    ids = sorted(pq.read_table(job["base"] / "source/customers.parquet")["customer_id"].to_pylist())[:40]
    (place / "ids.txt").write_text("\n".join(ids))
    key = load_key(job["key"])
    flags = ("--run_dir", place / "run", "--key_file", job["key"], "--customers", place / "ids.txt")
    forget.main([*map(str, flags)])
    said = capsys.readouterr().out
    assert "was trained on them" in said and "--restart" in said
    left = set(pq.read_table(place / "run/evaluation/predictions.parquet")["customer_key"].to_pylist())
    assert left and not left & {customer_key(key, customer) for customer in ids}


def test_a_log_of_journeys_alone_is_read_by_what_the_other_places_tell(job, place, told, capsys):
    """The log of a live run holds journey ids only, and a frame's categories are texts of another type."""
    journeys = pq.read_table(place / "run/journeys/part-00000-of-00001.parquet")
    log = pa.table({"journey_id": journeys["journey_id"], "p_30d": pa.array([0.5] * len(journeys))})
    pq.write_table(log, place / "log.parquet")
    category = pa.table({"customer_key": journeys["customer_key"].dictionary_encode()})
    pq.write_table(category, place / "category.parquet")
    flags = ["--scores", str(place / "log.parquet"), "--scores", str(place / "category.parquet")]
    forget.main([*flags, "--run_dir", str(place / "run"), "--key_file", str(job["key"]), "--customer", told[0]])
    kept = [key != told[1] for key in journeys["customer_key"].to_pylist()]
    assert 0 < sum(kept) < len(kept)
    assert pq.read_table(place / "log.parquet").equals(log.filter(kept))
    left = pq.read_table(place / "category.parquet")["customer_key"]
    assert left.to_pylist() == journeys["customer_key"].filter(pa.array(kept)).to_pylist()
    assert pa.types.is_dictionary(left.type)
    assert f"log.parquet: removed {len(kept) - sum(kept)} rows" in capsys.readouterr().out


def test_no_key_is_made_to_forget_with(place, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PARCOURS_KEY_FILE", raising=False)
    with pytest.raises(UserError, match=r"no customer key: neither --key_file nor \$PARCOURS_KEY_FILE names one"):
        forget.main(["--customer", "a", "--run_dir", str(place / "run")])


def test_what_breaks_halfway_changes_nothing(job, place, told, monkeypatch):
    from deploy import erasure

    before = files(place)
    as_it_was = lambda self, path, aside: aside.write_bytes(path.read_bytes())  # noqa: E731
    monkeypatch.setattr(erasure.Eraser, "_erase_records", as_it_was)
    with pytest.raises(UserError, match="still holds something of them; nothing was changed"):
        forgotten(job, place, told[0])
    assert files(place) == before


def test_one_who_is_not_there_is_told_and_changes_nothing(job, place, capsys):
    before = files(place)
    forgotten(job, place, "nobody-17")
    assert files(place) == before
    assert "kept under another key than this one" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "no customer; expected"),
        (("--customer", "a"), "nowhere to look; expected"),
        (("--customer", "a", "--run_dir", "/nowhere"), "--run_dir /nowhere: no such run directory"),
        (("--customer", "a", "--run_dir", "."), r"--run_dir .: holds none of journeys"),
        (("--customer", "a", "--scores", "README.md"), "--scores README.md: expected a Parquet file"),
        (("--customer", "a", "--scores", "cut.parquet"), "--scores cut.parquet: cannot be read; expected a Parquet"),
        (("--customer", "a", "--scores", "b.parquet"), "expected a column customer_key or journey_id or key; it has b"),
    ],
)
def test_mistakes_are_told(job, flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").touch()
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    pq.write_table(pa.table({"b": [1]}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match=message):
        forget.main([*flags, "--key_file", str(job["key"])])

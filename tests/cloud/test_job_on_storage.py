"""The main job with everything under gs://: events, spec and key in, run directory, model, scores and reports out."""

import json
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from preprocessing import keys, storage
from preprocessing.cli import UserError
from preprocessing.rundir import RunDir
from tests.cloud.bucket import put_files
from tests.job import SPEC, TEST_AS_OF, command
from tests.tfrecords import assert_same_records, records


def test_the_job_walks_from_gs_to_gs(shop, job):
    """Preprocessing, training and scoring by the real commands; records and scores equal those of the job on disk."""
    put_files(shop, "source", job["base"] / "source")
    shop.put("shop", "spec.yaml", SPEC.read_bytes())
    shop.put("shop", "secret/customer.key", job["key"].read_bytes())
    run, given = "gs://shop/runs/demo", ("--spec", "gs://shop/spec.yaml", "--key_file", "gs://shop/secret/customer.key")
    events = ("--events", "gs://shop/source/events.parquet")
    said = command("preprocessing.task", *given, *events, "--run_dir", run)
    assert f"are in {run}/" in said
    for split in ("train", "eval", "test"):
        (local,) = (job["run_dir"] / "records").glob(f"{split}-*")
        there = shop.data("shop", f"runs/demo/records/{local.name}")
        assert_same_records(there, local.read_bytes())
    assert "add --overwrite" in command("preprocessing.task", *given, *events, "--run_dir", run, code=2)

    small = ("--max_steps", 20, "--epochs", 1, "--lstm_units", 8, "--members", 1, "--no_baselines", "--bootstrap", 0)
    said = command("trainer.task", "--run_dir", run, *small)
    assert f"{run}/evaluation/report.html" in said
    names = shop.names("shop", "runs/demo/")
    assert {"runs/demo/model/saved_model.pb", "runs/demo/evaluation/metrics.json"} <= set(names)
    assert any(name.startswith("runs/demo/training/checkpoints/latest/ckpt-") for name in names)
    assert any("training/logs/train/events.out.tfevents" in name for name in names)
    assert not [name for name in names if name.startswith("runs/demo/.")]
    assert "going on from there" in command("trainer.task", "--run_dir", run, *small)  # the checkpoint, read back

    scores = "gs://shop/scores/today.parquet"
    said = command(
        "deploy.predict", "--model", f"{run}/model", *given, *events, "--as_of", TEST_AS_OF, "--output", scores
    )
    assert f"are in {scores}" in said
    table = pq.read_table(storage.localised(scores))
    local = pq.read_table(job["base"] / "scores.parquet")
    assert table["journey_id"].to_pylist() == local["journey_id"].to_pylist()
    version = json.loads(shop.data("shop", "runs/demo/model/parcours.json"))["model_version"]
    assert set(table["model_version"].to_pylist()) == {version}


def test_records_that_tensorflow_may_not_read_are_one_line(shop, job):
    """TensorFlow reads gs:// by a client of its own, whose refusals are not google-cloud-storage's."""
    put_files(shop, "run", job["run_dir"])
    shop.fail(403, times=1000, match="GET .*records.*tfrecord", message="storage.objects.get is denied")
    said = command("trainer.task", "--run_dir", "gs://shop/run", "--restart", "--epochs", 1, code=2)
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: gs://shop/run/records/") and ".tfrecord.gz: " in line
    assert "storage.objects.get is denied" in line and "roles/storage.objectUser" in line
    assert shop.faults.struck


def test_reports_lie_under_gs_too(shop, job):
    """A double run of a model and its own scores, and the monitor, both whole under gs://."""
    put_files(shop, "run", job["run_dir"])
    shop.put("shop", "scores.parquet", (job["base"] / "scores.parquet").read_bytes())
    model = "gs://shop/run/model"
    said = command(
        "deploy.double_run", "--incumbent", "gs://shop/scores.parquet", "--candidate", model, "--bootstrap", 10,
        "--journeys", "gs://shop/run", "--latency_requests", 1,
        "--output", "gs://shop/double_run",
    )  # fmt: skip
    assert "are in gs://shop/double_run" in said
    files = ("comparison.json", "pairs.parquet", "report.html", "unpaired.parquet", "verdict.json", "whole.json")
    assert shop.names("shop", "double_run") == [f"double_run/{name}" for name in files]
    command(
        "deploy.monitor", "--model", model, "--journeys", "gs://shop/run/journeys", "--split", "test", "--bootstrap", 5,
        "--output", "gs://shop/monitor",
    )  # fmt: skip
    assert json.loads(shop.data("shop", "monitor/monitor.json"))["model_version"]
    assert not [name for name in shop.names("shop") if "/." in f"/{name}" and name != "run/.lock"]  # the disk's


def test_a_file_is_written_whole_and_over_nobody_elses(shop):
    place = "gs://shop/out/a.txt"
    with storage.delivered(place) as aside:
        aside.write_text("one")
    with pytest.raises(OSError, match="disk"), storage.delivered(place) as aside:
        aside.write_text("half")
        raise OSError("disk")
    assert shop.data("shop", "out/a.txt") == b"one"
    with pytest.raises(UserError, match="written by another run meanwhile"), storage.delivered(place) as aside:
        aside.write_text("two")
        shop.put("shop", "out/a.txt", b"theirs")
    assert shop.data("shop", "out/a.txt") == b"theirs"


def test_copies_are_of_one_moment_and_made_anew_when_the_object_changes(shop):
    shop.put("shop", "dir/a", b"1")
    shop.put("shop", "dir/sub/b", b"2")
    shop.put("shop", "dirt", b"3")
    shop.put("shop", "dir/sub/", b"")  # TensorFlow's sign for a directory
    copy = storage.localised("gs://shop/dir")
    assert sorted(p.relative_to(copy).as_posix() for p in copy.rglob("*") if p.is_file()) == ["a", "sub/b"]
    assert storage.localised("gs://shop/dir") == copy
    shop.put("shop", "dir/a", b"changed")
    assert (storage.localised("gs://shop/dir") / "a").read_bytes() == b"changed"
    assert (copy / "a").read_bytes() == b"1"
    with pytest.raises(UserError, match="gs://shop/none: nothing here"):
        storage.localised("gs://shop/none")


def test_tables_are_found_under_gs_as_on_disk(shop):
    import duckdb

    from preprocessing import profile
    from preprocessing.tables import Tables

    for day in (1, 2):
        shop.put("shop", f"tables/events/{day}.csv", f"id,day\nc{day},{day}\n".encode())
    shop.put("shop", "tables/customers.csv", b"id,age\nc1,40\n")
    shop.put("shop", "tables/large_and_unasked.csv", b"x\n" * 1000)

    def rows(events, table="events"):
        with duckdb.connect() as connection:
            tables = Tables(connection, events)
            opened = tables.open_events("events") if table == "events" else tables.open(table, "customer.table")
            columns = ", ".join(opened.columns)
            return connection.execute(f"SELECT {columns} FROM {opened.relation} ORDER BY ALL").fetchall()

    assert rows("gs://shop/tables") == rows("gs://shop/tables/events/*.csv") == [("c1", "1"), ("c2", "2")]
    assert rows("gs://shop/tables/events/2.csv") == [("c2", "2")]
    assert rows("gs://shop/tables", "customers") == [("c1", "40")]
    with duckdb.connect() as connection:  # as preprocessing.init looks for the events
        assert profile.choose(Tables(connection, "gs://shop/tables"), "gs://shop/tables", None)[0] == "events"
    assert not [r for r in shop.seen("GET") if "large_and_unasked" in r.path]
    for events, message in (
        ("gs://shop/tables/none.csv", "nothing here|no such object"),
        ("gs://shop/tables/*.parquet", "no object matches this pattern"),
        ("gs://none/tables", "gs://none: no such bucket"),
    ):
        with pytest.raises(UserError, match=message):
            rows(events)


def test_a_key_under_gs_is_made_once(shop):
    keys.new_key("gs://shop/customer.key")
    key = keys.load_key("gs://shop/customer.key")
    assert len(key) == keys.KEY_BYTES
    with pytest.raises(UserError, match="exists already; a new key would orphan"):
        keys.new_key("gs://shop/customer.key")
    assert keys.load_key("gs://shop/customer.key") == key
    shop.put("shop", "bad.key", b"no key")
    with pytest.raises(UserError, match="no key file; expected"):
        keys.load_key("gs://shop/bad.key")
    with pytest.raises(UserError, match="cannot read the key file: no such object"):
        keys.load_key("gs://shop/none.key")


def test_without_the_client_library_one_line_says_what_to_install(tmp_path):
    """And nothing on disk needs it."""
    code = (
        "import sys\nsys.modules['google.cloud.storage'] = None\n"
        "import importlib.util as u\nreal = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'google.cloud.storage' else real(name, *a)\n"
        "from preprocessing.rundir import RunDir\nfrom preprocessing.cli import run\n"
        f"with RunDir({str(tmp_path / 'run')!r}).lock(): pass\n"
        "run(lambda: RunDir('gs://shop/run'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == ("error: gs://shop: needs google-cloud-storage; pip install google-cloud-storage\n")


def test_a_customer_is_forgotten_under_gs(shop, job, capsys):
    from deploy import forget

    put_files(shop, "runs/demo", job["run_dir"])
    shop.put("shop", "scores/today.parquet", (job["base"] / "scores.parquet").read_bytes())
    key = keys.load_key(job["key"])
    scored = set(pq.read_table(job["base"] / "scores.parquet")["customer_key"].to_pylist())
    everyone = sorted(pq.read_table(job["base"] / "source/customers.parquet")["customer_id"].to_pylist())
    customer = next(one for one in everyone if keys.customer_key(key, one) in scored)
    theirs = keys.customer_key(key, customer)
    flags = ["--customer", customer, "--run_dir", "gs://shop/runs/demo", "--key_file", str(job["key"])]
    flags += ["--scores", "gs://shop/scores/today.parquet"]
    before = {name for name in shop.names("shop", "runs/demo/") if ".lock" not in name}
    forget.main(flags)
    assert "nothing left of them" in capsys.readouterr().out
    assert {name for name in shop.names("shop", "runs/demo/") if ".lock" not in name} == before
    for place in ("runs/demo/journeys/part-00000-of-00001.parquet", "scores/today.parquet"):
        left = pq.read_table(storage.localised(f"gs://shop/{place}"), columns=["customer_key"])
        assert left.num_rows > 100 and theirs not in left["customer_key"].to_pylist()
    for name in shop.names("shop", "runs/demo/records/"):
        if name.endswith(".gz"):
            assert not any(theirs.encode() in record for record in records(shop.data("shop", name)))
    RunDir("gs://shop/runs/demo").fetch("journeys", "records", "transform", "model", "evaluation")
    forget.main(flags)
    assert "removed before, never there" in capsys.readouterr().out

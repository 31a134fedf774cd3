"""The same input, seed and versions give the same records, byte for byte, and the same metrics."""

import json

import pytest

from tests.job import SPEC, command

SMALL = ("--epochs", 2, "--lstm_units", 8, "--members", 1, "--bootstrap", 5, "--seed", 3)
BY_THE_CLOCK = ("seconds", "duration", "created", "time", "version", "stamp", "run_dir", "per_second", "host")


def without_clocks(value):
    """The metrics without what names a moment, how long something took, or where it lies."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if not any(word in k for word in BY_THE_CLOCK)}
        return {k: without_clocks(v) for k, v in kept.items()}
    return [without_clocks(item) for item in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_the_main_job_twice(tmp_path):
    """Records of two runs by the commands, in processes of their own; then two trainings."""
    events, key = tmp_path / "events.parquet", tmp_path / "key"
    command("preprocessing.simulate", "--customers", 900, "--seed", 7, "--base_rate", 0.2, "--output", events)
    key.write_text(f"{'5a' * 32}\n")
    key.chmod(0o600)
    metrics = []
    for name in ("one", "two"):
        run = tmp_path / name
        command("preprocessing.task", "--spec", SPEC, "--events", events, "--run_dir", run, "--key_file", key)
        command("trainer.task", "--run_dir", run, *SMALL)
        metrics.append(without_clocks(json.loads((run / "evaluation/metrics.json").read_text())))
    files = sorted(path.name for path in (tmp_path / "one/records").glob("*.tfrecord.gz"))
    assert len(files) >= 5
    for name in files:
        assert (tmp_path / "one/records" / name).read_bytes() == (tmp_path / "two/records" / name).read_bytes(), name
    assert len(str(metrics[0])) > 1000
    assert metrics[0] == metrics[1]

"""deploy.cost: what it tells agrees with values worked out by hand from a price file of round numbers."""

from __future__ import annotations

import datetime as dt
import json
import re
import shlex
from pathlib import Path

import pytest

from deploy import cost
from deploy.ceiling import ceiling, guard, hourly
from deploy.environment import ENVIRONMENTS
from deploy.jobs import custom_job_spec, load_job, parse_job
from deploy.prices import load_prices
from preprocessing.cli import UserError
from tests.deploy.test_running_cost import ROUND

POOL = """
  - machineSpec: {machineType: m, acceleratorType: NVIDIA_TESLA_T4, acceleratorCount: 2}
    replicaCount: REPLICAS
    diskSpec: {bootDiskType: pd-standard, bootDiskSizeGb: 140}
    containerSpec: {imageUri: "${TRAINER_IMAGE}"}
"""
CUSTOM = "workerPoolSpecs:" + POOL.replace("REPLICAS", "1") + "scheduling: {timeout: 7200s}\n"
POOLS = "workerPoolSpecs:" + POOL.replace("REPLICAS", "1") + POOL.replace("REPLICAS", "3").replace(": 2}", ": 1}")
POOLS += "scheduling: {timeout: 7200s}\n"
SPOT = CUSTOM.replace("{timeout", "{strategy: SPOT, timeout")
TUNING = "maxTrialCount: 5\nparallelTrialCount: 2\nstudySpec: {metrics: [{metricId: eval_pr_auc, goal: MAXIMIZE}]}\n"
TUNING += "trialJobSpec:\n" + "".join(f"  {line}\n" for line in CUSTOM.splitlines())
BATCH = """
inputConfig: {instancesFormat: jsonl}
dedicatedResources: {machineSpec: {machineType: m}, startingReplicaCount: 1, maxReplicaCount: 4}
"""


@pytest.fixture
def prices(tmp_path):
    """An hour of m: 4 at Vertex AI, 2 at Compute Engine; a T4 costs 6 and 5; 140 GB of disk 0.01."""
    text = ROUND.replace("accelerators: {gpu: 6}", "accelerators: {nvidia-tesla-t4: 6}")
    text = text.replace("gb_hour: 0.125}}}", "gb_hour: 0.125}}, accelerators: {nvidia-tesla-t4: 5}}")
    (tmp_path / "round.yaml").write_text(text)
    return tmp_path / "round.yaml"


@pytest.fixture
def tell(tmp_path, prices, capsys):
    """What the command prints of a job file of this text; '' for none."""

    def told(job, *flags):
        (tmp_path / "job.yaml").write_text(job)
        named = ("--job", str(tmp_path / "job.yaml")) if job else ()
        cost.main([*named, "--prices", str(prices), "--old_months", "9999", *flags])
        return capsys.readouterr().out

    return told


def amounts(said):
    return {line.partition(": ")[0]: line.partition(": ")[2] for line in said.splitlines() if not line.startswith(" ")}


@pytest.mark.parametrize(
    ("job", "flags", "most", "expected"),
    [
        # one machine: 4 + 2 · 6 + 0.01 = 16.01 an hour
        (CUSTOM, (), "32.02 EUR", "12.01 EUR"),
        # and three with one T4: 3 · (4 + 6 + 0.01) = 30.03; together 46.04 an hour
        (POOLS, (), "92.08 EUR", "34.53 EUR"),
        # Spot saves 60 % of Compute Engine's 2 + 2 · 5 = 12: 16.01 - 7.2 = 8.81 an hour
        (SPOT, (), "17.62 EUR", "6.61 EUR"),
        # five trials
        (TUNING, (), "160.10 EUR", "60.04 EUR"),
        # four replicas at 6 an hour for prediction, no disk
        (BATCH, ("--max_hours", "1.5"), "36.00 EUR", "18.00 EUR"),
    ],
    ids=["one machine", "pools", "spot", "tuning", "batch"],
)
def test_the_cost_by_hand(tell, job, flags, most, expected):
    """At most: 2 hours (batch: 1.5); expected: 0.75 hours."""
    said = tell(job, "--expected_hours", "0.75", *flags)
    assert amounts(said)["at most"] == most
    assert amounts(said)["expected"] == expected
    assert "as given by --expected_hours" in said


def test_every_line_says_how_it_was_worked_out(tell):
    said = tell(TUNING, "--expected_hours", "0.75").splitlines()
    assert said[0].startswith("list prices of here, noted 2026-11 (")
    assert said[1:4] == [
        "at most: 160.10 EUR",
        "  pool 0: 5 trials · 1 · 2 h · 16.0100 an hour (m + 2 nvidia-tesla-t4) = 160.10",
        "    an hour: 4 vCPUs · 0.5 + 8 GB · 0.25 + 2 nvidia-tesla-t4 · 6 + 140 GB of disk · 0.05 / 700",
    ]
    assert said[-1] == "    each trial 0.75 h: as given by --expected_hours"


def test_without_a_basis_only_the_ceiling_is_known(tell):
    found = amounts(tell(CUSTOM))
    assert (found["at most"], found["expected"]) == ("32.02 EUR", "not known")


def run_dir(path, metrics):
    from preprocessing.rundir import RunDir

    made = RunDir(path)
    with made.lock(), made.stage("evaluation") as staged:
        (staged["evaluation"] / "run.json").write_text(json.dumps(metrics))
    return str(path)


def test_a_former_runs_measured_seconds_are_a_basis(tmp_path, tell):
    like = run_dir(tmp_path / "run", {"seconds": 2700.0})
    said = tell(CUSTOM, "--like", like)
    assert amounts(said)["expected"] == "12.01 EUR"
    assert f"0.75 h: as measured in {like}: 2,700 s, on the machine that ran it" in said


def test_a_real_run_is_a_basis(job, tell):
    """What trainer.task left, and not a file made for this test."""
    seconds = json.loads((job["run_dir"] / "evaluation/run.json").read_text())["seconds"]
    assert 1 < seconds < 3600
    assert f": {seconds:,.0f} s, on the machine that ran it" in tell(CUSTOM, "--like", str(job["run_dir"]))


@pytest.mark.parametrize("metrics", [{}, {"seconds": None}, {"seconds": 0}])
def test_a_run_that_measured_nothing_is_no_basis(tmp_path, tell, metrics):
    like = run_dir(tmp_path / "run", metrics)
    with pytest.raises(UserError, match="holds no measured seconds; give --expected_hours H"):
        tell(CUSTOM, "--like", like)


def test_making_journeys_by_hand(tell):
    """2 TiB · 5 = 10, and 6 workers for 2 h at 4 · 0.1 + 8 · 0.01 + 50 · 0.001 = 0.53: 6.36; of which half a TiB (2.50)
    and 5 worker hours (2.65) are expected."""
    flags = ["--maximum_bytes_billed", str(2 << 40), "--max_num_workers", "6", "--machine_type", "m"]
    flags += ["--disk_size_gb", "50", "--pipeline_hours", "2"]
    found = amounts(tell("", *flags))
    assert (found["at most"], found["expected"]) == ("16.36 EUR", "not known")
    said = tell("", *flags, "--scanned_bytes", str(1 << 39), "--worker_hours", "5")
    assert amounts(said)["expected"] == "5.15 EUR"
    assert "  BigQuery: 512.0 GiB · 5 a TiB = 2.50" in said
    assert "  Dataflow: 5 worker hours · 0.5300 an hour (m) = 2.65" in said
    with_job = amounts(tell(CUSTOM, *flags))
    assert with_job["at most"] == "48.38 EUR"


def test_what_has_no_limit_is_said(tell):
    said = tell("", "--scanned_bytes", str(1 << 40), "--machine_type", "m")
    assert amounts(said)["at most"] == "not known"
    assert amounts(said)["expected"] == "5.00 EUR and what is not known:"
    assert "  BigQuery: no limit without --maximum_bytes_billed" in said
    assert "  Dataflow: no limit without --max_num_workers and --pipeline_hours" in said


@pytest.mark.parametrize(("cap", "message"), [("32.01", "above"), ("32.02", "within")])
def test_the_cap_of_an_environment(tmp_path, tell, cap, message):
    text = (ENVIRONMENTS / "integration.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("cost_cap: 25", f"cost_cap: {cap}"))
    said = tell(CUSTOM, "--env", str(tmp_path / "mine.yaml")).splitlines()
    assert said[-2].startswith("these are the prices of here; --env ")
    assert said[-1].startswith(f"{message} the cost_cap of --env ")
    assert ("deploy.submit asks for --above_cap" in said[-1]) == (message == "above")
    unlimited = tell(CUSTOM, "--env", str(tmp_path / "mine.yaml"), "--scanned_bytes", "1").splitlines()[-1]
    assert unlimited.startswith("not known whether it stays within" if message == "within" else "above")


def test_old_prices_are_told(tell, prices):
    found = load_prices(prices)  # noted 2026-11
    assert found.told_old("p", 6, dt.date(2027, 5, 31)) is None
    warned = found.told_old("p", 6, dt.date(2027, 6, 1))
    assert warned == "warning: p: prices noted 2026-11, 7 months ago (more than 6): look them up anew"
    prices.write_text(prices.read_text().replace("2026-11", "2020-01"))
    assert f"warning: {prices}: prices noted 2020-01" in tell(CUSTOM, "--old_months", "6")
    assert "warning" not in tell(CUSTOM, "--old_months", "9999")


@pytest.mark.parametrize(
    ("job", "flags", "message"),
    [
        ("", (), "nothing to price: expected --job FILE, or flags for making journeys"),
        ("", ("--machine_type", "m", "--like", "x"), "they are a job's; expected --job FILE with them"),
        ("", ("--max_num_workers", "3"), "--machine_type: expected, the Dataflow workers' machines"),
        ("", ("--machine_type", "x", "--worker_hours", "1"), "prices: no machine 'x'; expected one of m"),
        (CUSTOM, ("--max_hours", "3"), "--max_hours: for batch predictions only"),
        (CUSTOM, ("--expected_hours", "3"), "3 hours, as given by --expected_hours, are more than the 2 of the time"),
        (CUSTOM, ("--like", "nowhere"), "nowhere: no such run directory"),
        (CUSTOM.replace("140", "0"), (), "diskSpec: expected bootDiskType pd-standard"),
        (CUSTOM.replace("T4", "P4"), (), "no accelerator 'nvidia-tesla-p4'; it has nvidia-tesla-t4"),
        (CUSTOM.replace("scheduling", "# "), (), "scheduling.timeout: missing"),
        (BATCH, (), "--max_hours: expected, for a batch prediction"),
        (BATCH, ("--max_hours", "1", "--like", "x"), "--like: a training's hours tell nothing of a batch prediction's"),
        ("cron: x\ncreatePipelineJobRequest: {}", (), "a schedule's steps have no time limit"),
    ],
)
def test_a_mistake_is_one_line(tell, job, flags, message):
    with pytest.raises(UserError) as found:
        tell(job, *flags)
    assert message in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("flags", [("--expected_hours", "0"), ("--expected_hours", "inf"), ("--scanned_bytes", "1e9")])
def test_a_number_that_is_none(tell, capsys, flags):
    with pytest.raises(SystemExit):
        tell(CUSTOM, *flags)
    assert f"argument {flags[0]}: expected a" in capsys.readouterr().err


def test_the_hourly_price_is_that_of_the_whole_job(tmp_path, prices):
    """What the trainer's budget guard counts with: all pools; of a tuning job one trial."""
    found = load_prices(prices)
    for job, each in ((POOLS, 46.04), (SPOT, 8.81), (TUNING, 16.01)):
        (tmp_path / "job.yaml").write_text(job)
        loaded = load_job(tmp_path / "job.yaml")
        message = parse_job(loaded, loaded.content)
        assert hourly(message, found) == pytest.approx(each)
        assert ceiling(message, found).amount == pytest.approx(2 * each * (5 if job is TUNING else 1))


def test_the_worked_example_of_the_docs(capsys):
    text = (Path(__file__).parent.parent.parent / "docs/costs.md").read_text()
    command, shown = re.findall(r"```\n(.*?)```", text, re.DOTALL)[:2]
    cost.main([*shlex.split(command)[3:], "--old_months", "9999"])
    assert capsys.readouterr().out == shown


def test_a_job_is_told_its_price_and_its_budget(tmp_path, prices):
    program = '{imageUri: "${TRAINER_IMAGE}", command: [python, -m, trainer.task], args: [--run_dir=x]}'
    found = load_prices(prices)
    for text, flags in (
        (POOLS, ["--run_dir=x", "--hourly_price=46.04", "--budget=90"]),  # 4 + 2 · 6 + 0.01, and three of 4 + 6 + 0.01
        (TUNING, ["--run_dir=x", "--hourly_price=16.01", "--budget=18"]),  # a fifth of 90 for each trial
    ):
        (tmp_path / "job.yaml").write_text(text.replace('{imageUri: "${TRAINER_IMAGE}"}', program))
        job = load_job(tmp_path / "job.yaml")
        message = parse_job(job, job.content)
        guard(message, found, 90.0)
        for pool in custom_job_spec(message).worker_pool_specs:
            assert list(pool.container_spec.args) == flags
    (tmp_path / "job.yaml").write_text(CUSTOM)  # runs whatever its image runs
    job = load_job(tmp_path / "job.yaml")
    message = parse_job(job, job.content)
    guard(message, found, None)
    assert not message.job_spec.worker_pool_specs[0].container_spec.args
    with pytest.raises(UserError, match=r"--budget: expected a job that runs trainer\.task"):
        guard(message, found, 90.0)

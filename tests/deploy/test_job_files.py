"""Every job file is one that Vertex AI knows, with flags that the trainer knows, at the price that its header tells."""

import re
from pathlib import Path

import pytest
import yaml

from deploy.ceiling import ceiling
from deploy.environment import load_environment
from deploy.jobs import custom_job_spec, given, load_job, parse_job, to_message
from deploy.prices import load_prices
from preprocessing.cli import UserError
from trainer.settings import parse

JOB_CONFIGS = Path(__file__).parent.parent.parent / "job_configs"
OF_VERTEX = sorted(
    path
    for path in JOB_CONFIGS.glob("*.yaml")
    if {"workerPoolSpecs", "studySpec", "inputConfig"} & set(yaml.safe_load(path.read_text()))
)
VARIABLES = {
    "RUN_DIR": "gs://bucket/runs/one",
    "PACKAGE": "gs://bucket/packages/parcours.tar.gz",
    "MODEL": "projects/1/locations/us-central1/models/parcours@champion",
}


def message_of(path, environment="integration", extra=VARIABLES):
    job, env = load_job(path), load_environment(environment)
    return to_message(job, job.render(env.variables() | extra), env, "a name", extra["RUN_DIR"])


def test_all_of_them_are_looked_at():
    assert {"smoke_job", "gpu_job", "multi_worker_job", "spot_job", "hptuning_job", "python_package_job"} | {
        "batch_prediction"
    } <= {path.stem for path in OF_VERTEX}


@pytest.mark.parametrize("path", OF_VERTEX, ids=lambda path: path.stem)
def test_every_job_file_is_the_api_type(path):
    message = message_of(path)
    assert message.display_name == "a name"
    wanted = {"environment": "integration", "cost_centre": "marketing", "run": "runs_one"}
    assert wanted.items() <= dict(message.labels).items()
    assert message.labels["job"] == path.stem.replace("_", "-")
    assert message.encryption_spec.kms_key_name == load_environment("integration").cmek_key
    assert "${" not in str(message)
    # gcloud reads camelCase only, where ParseDict takes both
    keys = re.findall(r"^[\s-]*([\w]+):", re.sub(r"(?m)#.*", "", path.read_text()), re.MULTILINE)
    assert keys
    assert not [key for key in keys if "_" in key]


@pytest.mark.parametrize("path", OF_VERTEX, ids=lambda path: path.stem)
def test_what_a_job_costs_needs_no_environment(path):
    """${NAME} stands where nothing is paid for: the file as it stands is the API's type, at the same price."""
    job, prices = load_job(path), load_prices(JOB_CONFIGS / "prices.yaml")
    hours = 2 if path.stem == "batch_prediction" else None
    assert ceiling(parse_job(job, job.content), prices, hours) == ceiling(message_of(path), prices, hours)


def test_labels_are_what_the_bill_takes():
    """Google's rule: lower case, digits, _ and -, 63 characters at most."""
    long = VARIABLES | {"RUN_DIR": f"gs://bucket/Runs/{'x' * 70}/Éclair 1/"}
    labels = message_of(JOB_CONFIGS / "smoke_job.yaml", extra=long).labels
    assert labels["run"].endswith("x_clair_1")
    assert all(re.fullmatch(r"[a-z0-9_-]{1,63}", value) for value in labels.values())


@pytest.mark.parametrize("path", OF_VERTEX, ids=lambda path: path.stem)
def test_jobs_are_bounded_and_closed(path):
    message = message_of(path)
    if message.DESCRIPTOR.name == "BatchPredictionJob":
        assert message.service_account == load_environment("integration").serving_account
        return
    spec = custom_job_spec(message)
    assert 0 < spec.scheduling.timeout.seconds < 86_400
    assert spec.network == load_environment("integration").network
    assert spec.service_account == load_environment("integration").training_account
    assert not spec.enable_web_access
    assert "enableWebAccess: false" in path.read_text()
    assert "restartJobOnWorkerRestart" in path.read_text()
    # its own place, not the run directory's model/: trainer.task publishes from there to here
    assert spec.base_output_directory.output_uri_prefix == f"{VARIABLES['RUN_DIR']}/vertex"


def test_the_spot_job_is_spot_and_the_others_are_not():
    schedulings = {
        path.stem: custom_job_spec(message_of(path)).scheduling for path in OF_VERTEX if path.stem != "batch_prediction"
    }
    assert [name for name, one in schedulings.items() if one.strategy == one.SPOT] == ["spot_job"]
    # the wait that this bounds is FLEX_START's alone, says the API's type
    assert not [name for name, one in schedulings.items() if one.HasField("max_wait_duration")]


@pytest.mark.parametrize("path", OF_VERTEX, ids=lambda path: path.stem)
def test_every_flag_is_one_that_the_trainer_knows(path):
    message = message_of(path)
    if message.DESCRIPTOR.name == "BatchPredictionJob":
        return
    pools = custom_job_spec(message).worker_pool_specs
    assert pools
    for pool in pools:
        if pool.HasField("container_spec"):
            assert list(pool.container_spec.command) == ["python", "-m", "trainer.task"]
            args = list(pool.container_spec.args)
        else:
            assert pool.python_package_spec.python_module == "trainer.task"
            args = list(pool.python_package_spec.args)
        found = parse(args)  # exits where a flag or a value is wrong
        assert found.run_dir.endswith("runs/one")
        # what pays for a GPU wants one, and stops where there is none
        assert found.require_gpu == bool(pool.machine_spec.accelerator_count)


def test_a_flag_that_the_trainer_does_not_know_would_be_seen(tmp_path, capsys):
    changed = (JOB_CONFIGS / "smoke_job.yaml").read_text().replace("--max_steps=50", "--max-steps=50")
    (tmp_path / "bad.yaml").write_text(changed)
    with pytest.raises(SystemExit):
        test_every_flag_is_one_that_the_trainer_knows(tmp_path / "bad.yaml")
    assert "--max-steps=50" in capsys.readouterr().err


def test_every_tuned_parameter_is_a_flag_at_both_ends_of_its_range():
    study = message_of(JOB_CONFIGS / "hptuning_job.yaml").study_spec
    assert len(study.parameters) >= 4
    for parameter in study.parameters:
        found = getattr(parameter, parameter.WhichOneof("parameter_value_spec"))
        for value in (found.min_value, found.max_value):
            given = parse(["--run_dir=x", f"--{parameter.parameter_id}={value}"]).given
            assert given == {parameter.parameter_id: value}


@pytest.mark.parametrize("path", OF_VERTEX, ids=lambda path: path.stem)
def test_the_header_tells_the_command_and_the_cost(path):
    header = "".join(line for line in path.read_text().splitlines(True) if line.startswith("#"))
    assert f"--job job_configs/{path.name} --env " in header
    for word in ("Takes: ", "Expect: "):
        assert word in header
    hours = re.search(r"--max_hours (\d+)", header)
    found = ceiling(message_of(path), load_prices(JOB_CONFIGS / "prices.yaml"), hours and float(hours[1]))
    (stated,) = re.findall(r"Costs: at most ([\d.]+) USD", header)
    assert found.cents == stated


def test_the_ceiling_by_hand():
    """n1-standard-8: 8 · 0.036353 + 30 · 0.004873 = 0.437014, T4 0.4025, disk 100 · 0.04 / 730 = 0.005479: 0.844993.

    On Spot, 60 % of Compute Engine's 8 · 0.031611 + 30 · 0.004237 + 0.35 = 0.729998 is saved: 0.406995 an hour.
    """
    prices = load_prices(JOB_CONFIGS / "prices.yaml")
    gpu = ceiling(message_of(JOB_CONFIGS / "gpu_job.yaml"), prices)
    assert gpu.amount == pytest.approx(4 * 0.844993, abs=1e-5)
    assert gpu.currency == "USD"
    assert "1 · 4 h · 0.8450 an hour (n1-standard-8 + 1 nvidia-tesla-t4) = 3.38" in gpu.worked[0]
    workers = ceiling(message_of(JOB_CONFIGS / "multi_worker_job.yaml"), prices)
    assert workers.amount == pytest.approx(3 * 4 * 0.844993, abs=1e-4)
    spot = ceiling(message_of(JOB_CONFIGS / "spot_job.yaml"), prices)
    assert spot.amount == pytest.approx(8 * 0.406995, abs=1e-4)
    trials = ceiling(message_of(JOB_CONFIGS / "hptuning_job.yaml"), prices)
    assert trials.amount == pytest.approx(16 * 2 * (0.437014 + 0.005479), abs=1e-4)
    batch = ceiling(message_of(JOB_CONFIGS / "batch_prediction.yaml"), prices, 2)
    assert batch.amount == pytest.approx(4 * 2 * (4 * 0.036353 + 15 * 0.004873), abs=1e-4)


def test_a_batch_prediction_needs_a_limit():
    with pytest.raises(UserError, match="--max_hours: expected"):
        ceiling(message_of(JOB_CONFIGS / "batch_prediction.yaml"), load_prices(JOB_CONFIGS / "prices.yaml"))


@pytest.mark.parametrize("path", OF_VERTEX, ids=lambda path: path.stem)
def test_environments_change_values_only(path):
    """What the two environments' jobs differ in is what the environment files say, and nothing else."""
    ours, theirs = (str(message_of(path, name)) for name in ("integration", "production"))
    assert ours != theirs
    assert ours.replace("integration", "production").replace("100000000001", "100000000002") == theirs


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("machineType:", "machinetype:", 'MachineSpec" has no field named "machinetype"'),
        ("baseOutputDirectory:", "labels: {a: b}\nbaseOutputDirectory:", 'has no field named "labels"'),
        ("  timeout: 1800s\n", "", "scheduling.timeout: missing; without it a job may run, and cost, for 7 days"),
        ("workerPoolSpecs:", "workers:", "expected workerPoolSpecs .* at its top"),
        ("${NETWORK}", "${NETWORKS}", r"\$\{NETWORKS\} has no value; give it with --set NETWORKS=…"),
        ("${NETWORK}", "${NETWORK2}", r"\$\{NETWORK2\} has no value; give it with --set NETWORK2=…"),
        ("${NETWORK}", "$NETWORK!$", r"expected \$\{NAME\} in capitals"),
        ("${NETWORK}", "$NETWORK", r"'\$NETWORK': expected \$\{NAME\} in capitals, or \$\$ for a dollar sign"),
        ("${NETWORK}", "${network}", r"expected \$\{NAME\} in capitals"),
        ("${NETWORK}", "${_NETWORK}", r"expected \$\{NAME\} in capitals"),
        ("timeout: 1800s", "timeout: half an hour", "timeout"),
        ("replicaCount: 1", "replicaCount: one", "replicaCount"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, old, new, message):
    text = (JOB_CONFIGS / "smoke_job.yaml").read_text()
    assert old in text
    (tmp_path / "job.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message) as told:
        message_of(tmp_path / "job.yaml")
    assert "\n" not in str(told.value)
    assert str(tmp_path / "job.yaml") in str(told.value)


def test_two_dollars_are_one_and_name_nothing(tmp_path):
    text = (JOB_CONFIGS / "smoke_job.yaml").read_text()
    (tmp_path / "job.yaml").write_text(text.replace("${NETWORK}", "$${NETWORKS} $$NETWORKS $$$${NETWORKS2} $$"))
    job = load_job(tmp_path / "job.yaml")
    assert not {name for name in job.variables if "NETWORK" in name}
    rendered = job.render(load_environment("integration").variables() | VARIABLES)
    assert rendered["network"] == "${NETWORKS} $NETWORKS $${NETWORKS2} $"


def test_what_is_set_has_a_name_that_a_job_file_may_have():
    assert given(["A=1", "A_2==b", "A_2="]) == {"A": "1", "A_2": ""}
    for wrong in ("a=1", "A", "=1", "A B=1", "A-B=1", "2A=1", "É=1", "_A=1"):
        with pytest.raises(UserError, match=f"--set {wrong}: expected NAME=VALUE, the name in capitals"):
            given([wrong])


def test_the_docs_tell_each_jobs_price_and_commands_that_exist():
    from tests.test_package import ENTRY_POINTS

    text = (JOB_CONFIGS.parent / "docs/vertex.md").read_text()
    for path in OF_VERTEX:
        (stated,) = re.findall(r"Costs: at most ([\d.]+) USD", path.read_text())
        assert re.search(rf"\| `{path.name}` \| .* \| {re.escape(stated)} USD", text), path.name
    assert set(re.findall(r"python -m ([\w.]+)", text)) <= set(ENTRY_POINTS)
    for place in re.findall(r"`((?:deploy|job_configs|tests)/[\w./]+)`", text):
        assert (JOB_CONFIGS.parent / place).exists(), place

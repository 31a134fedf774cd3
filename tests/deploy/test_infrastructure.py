"""deploy/terraform and deploy/monitoring: they parse, fit the APIs' types, declare what they use, and grant little."""

from __future__ import annotations

import json
import re
from pathlib import Path

import hcl2
import pytest
from google.protobuf import json_format

from deploy.environment import ENVIRONMENTS, Environment, load_environment

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
FILES = sorted((DEPLOY / "terraform").glob("*.tf"))
TEXT = "\n".join(re.sub(r"(?m)(^|\s)#.*$", "", path.read_text()) for path in FILES)


def parsed(path: Path) -> dict:
    with path.open() as file:
        return hcl2.load(file)


def unquoted(name: str) -> str:
    return name.strip('"')


@pytest.mark.parametrize("path", [*FILES, *sorted((DEPLOY / "terraform").glob("*.tfvars"))], ids=lambda p: p.name)
def test_every_file_is_hcl(path):
    assert parsed(path)


def test_every_variable_that_is_used_is_declared_described_and_given():
    declared = {
        unquoted(name): body
        for block in parsed(DEPLOY / "terraform/variables.tf")["variable"]
        for name, body in block.items()
    }
    used = set(re.findall(r"\bvar\.(\w+)", TEXT))
    assert used == set(declared)
    assert all(body["description"] and body["type"] for body in declared.values())
    for name in ("integration", "production"):
        given = parsed(DEPLOY / f"terraform/{name}.tfvars")
        assert {key for key in given if not key.startswith("__")} == set(declared)


def test_every_resource_and_local_that_is_named_is_there():
    made = {tuple(map(unquoted, pair)) for pair in re.findall(r'(?m)^resource "(\w+)" "(\w+)"', TEXT)}
    assert len(made) > 15
    named = set(re.findall(r"(?<!data\.)\b(google_\w+)\.(\w+)[.\[]", TEXT))
    assert named <= made, named - made
    locals_made = {key for path in FILES for block in parsed(path).get("locals", []) for key in block}
    assert set(re.findall(r"\blocal\.(\w+)", TEXT)) <= locals_made


def test_the_environment_files_hold_what_terraform_makes():
    (block,) = [
        b
        for b in parsed(DEPLOY / "terraform/main.tf")["output"]
        if '"environment_file"' in b or "environment_file" in b
    ]
    (output,) = block.values()
    made = set(output["value"])
    images = {name for name in Environment.model_fields if name.endswith("_image")}
    assert {unquoted(name) for name in made} == set(Environment.model_fields) - images - {"labels", "cost_cap"}
    for name in ("integration", "production"):
        environment, given = load_environment(name), parsed(DEPLOY / f"terraform/{name}.tfvars")
        assert unquoted(given["project"]) == environment.project
        assert unquoted(given["region"]) == environment.region
        assert unquoted(given["environment"]) == environment.labels["environment"]
        assert f"{environment.project}-runs" == environment.bucket
        assert environment.cmek_key.endswith("keyRings/parcours/cryptoKeys/runs")
    assert ENVIRONMENTS.is_dir()


def test_roles_are_narrow_and_each_has_its_reason():
    roles = re.findall(r'role\s*=\s*"(roles/[\w.]+)"', TEXT)
    assert len(roles) > 15
    assert not [role for role in roles if re.fullmatch(r"roles/(owner|editor|viewer|.*[aA]dmin)", role)]
    granted = re.findall(r"\{ member = .*?\}", TEXT)
    assert len(granted) > 10
    assert all(re.search(r'why = "[^"]{5,}"', grant) for grant in granted)
    assert "service_account_key" not in TEXT
    assert "allUsers" not in TEXT
    assert "allAuthenticatedUsers" not in TEXT


def test_what_holds_data_is_encrypted_expires_and_is_closed():
    for bucket in ("runs", "models"):
        body = re.search(rf'resource "google_storage_bucket" "{bucket}" \{{(.*?)\n\}}', TEXT, re.DOTALL)[1]
        assert "default_kms_key_name" in body
        assert 'public_access_prevention    = "enforced"' in body
    runs, models = (
        re.search(rf'resource "google_storage_bucket" "{name}" \{{(.*?)\n\}}', TEXT, re.DOTALL)[1]
        for name in ("runs", "models")
    )
    assert runs.count("lifecycle_rule") >= 3
    assert "retention_policy" in models
    assert "default_partition_expiration_ms" in TEXT
    assert "default_table_expiration_ms = 86400000" in TEXT
    assert TEXT.count("default_encryption_configuration") == 2


@pytest.mark.parametrize("path", sorted((DEPLOY / "monitoring").glob("alert_*.json")), ids=lambda p: p.stem)
def test_every_alert_is_the_apis_type_and_says_what_to_do(path):
    from google.cloud.monitoring_v3 import AlertPolicy

    message = AlertPolicy.pb(AlertPolicy())
    json_format.ParseDict(json.loads(path.read_text()), message)
    assert message.documentation.content
    (condition,) = message.conditions
    assert condition.condition_threshold.aggregations
    assert "resource.type = " in condition.condition_threshold.filter
    assert "metric.type = " in condition.condition_threshold.filter
    broken = json.loads(path.read_text()) | {"displayname": "x"}
    with pytest.raises(json_format.ParseError):
        json_format.ParseDict(broken, AlertPolicy.pb(AlertPolicy()))


# By metric, the resource that bears it; those of a training job were not compared with Google's own page. Pages:
# https://cloud.google.com/monitoring/api/metrics_gcp_i_o#gcp-ml, the same
# page's #gcp-logging, …_a_b#gcp-aiplatform, …_d_h#gcp-dataflow. A name that is none would never raise an alert, and
# nobody would be told.
METRICS = {
    "ml.googleapis.com/training/accelerator/utilization": "cloudml_job",
    "ml.googleapis.com/training/cpu/utilization": "cloudml_job",
    "aiplatform.googleapis.com/prediction/online/response_count": "aiplatform.googleapis.com/Endpoint",
    "aiplatform.googleapis.com/prediction/online/prediction_latencies": "aiplatform.googleapis.com/Endpoint",
    "dataflow.googleapis.com/job/is_failed": "dataflow_job",
    "logging.googleapis.com/log_entry_count": "ml_job",
}


def policies() -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in (DEPLOY / "monitoring").glob("alert_*.json")}


def test_alerts_watch_metrics_that_there_are():
    for name, policy in policies().items():
        asked = policy["conditions"][0]["conditionThreshold"]["filter"]
        (metric,), (resource,) = (re.findall(rf'{key}\.type = "([^"]+)"', asked) for key in ("metric", "resource"))
        assert METRICS[metric] == resource, name


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def test_alerts_fit_the_services_limits():
    """A condition may last 23.5 hours at most, in whole minutes, and is aligned over a minute or more."""
    for name, policy in policies().items():
        condition = policy["conditions"][0]["conditionThreshold"]
        assert seconds(condition["duration"]) % 60 == 0, name
        assert seconds(condition["duration"]) <= 84_600, name
        assert seconds(condition["aggregations"][0]["alignmentPeriod"]) >= 60, name


def test_an_overrun_is_longer_than_every_job_may_run_and_a_long_job_is_not():
    from deploy.jobs import custom_job_spec, load_job, parse_job
    from tests.deploy.test_job_files import OF_VERTEX

    jobs = [load_job(path) for path in OF_VERTEX]
    limits = [
        custom_job_spec(parse_job(job, job.content)).scheduling.timeout.seconds for job in jobs if job.kind != "batch"
    ]
    lasts = {
        name: seconds(policy["conditions"][0]["conditionThreshold"]["duration"]) for name, policy in policies().items()
    }
    assert lasts["alert_job_overrun"] > max(limits)
    assert lasts["alert_job_long"] < max(limits)


@pytest.mark.parametrize("name", ["alert_gpu_idle", "alert_job_long", "alert_job_overrun"])
def test_each_job_is_watched_for_itself(name):
    """Reduced over all jobs, one that works would hide one that idles."""
    (aggregation,) = policies()[name]["conditions"][0]["conditionThreshold"]["aggregations"]
    assert aggregation["groupByFields"] == ["resource.labels.job_id"]
    assert "group_by_fields      = try(conditions.value.conditionThreshold.aggregations[0].groupByFields" in TEXT


def test_the_budget_is_the_apis_type():
    from google.cloud.billing.budgets_v1 import Budget

    message = Budget.pb(Budget())
    json_format.ParseDict(json.loads((DEPLOY / "monitoring/budget.json").read_text()), message)
    assert [rule.threshold_percent for rule in message.threshold_rules] == [0.5, 0.9, 1.0]


def test_what_the_alerts_tell_people_to_type_exists():
    from tests.test_package import ENTRY_POINTS

    text = "".join(path.read_text() for path in (DEPLOY / "monitoring").glob("*.json"))
    modules = set(re.findall(r"python -m ([\w.]+)", text))
    assert modules
    assert modules <= set(ENTRY_POINTS)
